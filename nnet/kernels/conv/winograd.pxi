# Winograd's minimal filtering F(2x2, 3x3): 16 multiplications for 2 x 2 outputs,
# where the direct sum takes 36. (Lavin and Gray 2016, "Fast algorithms for
# convolutional neural networks", section 4.1, eqs. 7 to 12.)
#
#     out = A' [ (G g G') * (B' d B) ] A      d: 4 x 4 pixels, g: 3 x 3 taps, *: by elements
#
#          1  0 -1  0           1   0   0
#     B' = 0  1  1  0      G = 1/2 1/2 1/2      A' = 1  1  1  0
#          0 -1  1  0          1/2 -1/2 1/2          0  1 -1 -1
#          0  1  0 -1           0   0   1
#
# The sums over channels are 16 correlations of transformed pixels, one for each
# element, on the same register tile as the direct form.
#
# A larger filter is cut into pieces of two taps an axis, and a last one of two or
# three. Pieces start at even taps, so what one of them reads is what another one
# reads for a tile further on: the pixels are transformed once for all of them. A
# piece of two taps has nothing in its fourth element: 5 x 5 taps, 2 + 3 an axis,
# take 7 x 7 multiplications instead of 100.
#
# With a stride of 2, even and odd taps read even and odd pixels: these phases are
# images of their own, and pieces add up over them. A piece of one tap multiplies its
# two pixels as they are, in the first and the fourth element, which only one output
# takes: 3 x 3 taps, 2 + 1 an axis, take 5 x 5 multiplications instead of 36. Back to the
# images these phases are outputs that read the same gradient: each is a pass of its own.
#
# With dilation d a tile's pixels are d apart; tile rows q*d to q*d + d - 1 lie
# within each other.

cdef enum:
    # Tiles in all below which a second thread takes as long to fetch the weights from the
    # first one's cache as it saves.
    SMALL_TILES = 128

cdef struct Piece:                      # some taps of an axis of a filter
    Py_ssize_t phase                    # of the pixels that they read
    Py_ssize_t shift                    # how many tiles after the first one's
    Py_ssize_t first, n_taps            # 1 to 3 of them, a stride apart

cdef struct Pieces:                     # of an axis
    Py_ssize_t n_taps, stride
    Py_ssize_t n                        # 0: this axis has no such form
    Py_ssize_t n_shifts
    Py_ssize_t n_products, n_elements   # of a tile, along the axis; of its transformed pixels


cdef inline Py_ssize_t phase_taps(const Pieces *pieces, Py_ssize_t phase) noexcept nogil:
    return (pieces.n_taps - phase + pieces.stride - 1) // pieces.stride


cdef inline Py_ssize_t longest_piece(const Pieces *pieces, Py_ssize_t phase) noexcept nogil:
    """The taps of a phase's longest piece."""
    cdef Py_ssize_t m = phase_taps(pieces, phase)
    return m if m < 3 else 2 + m % 2


cdef Piece axis_piece(const Pieces *pieces, Py_ssize_t k) noexcept nogil:
    """The last phase comes first: sums err less if they start with the shorter pieces."""
    cdef Piece piece
    cdef Py_ssize_t m, n
    piece.phase = pieces.stride - 1
    m = phase_taps(pieces, piece.phase)
    n = max(<Py_ssize_t>1, m // 2)
    if k >= n:
        k -= n
        piece.phase = 0
        m = phase_taps(pieces, 0)
        n = max(<Py_ssize_t>1, m // 2)
    piece.shift, piece.first = k, piece.phase + 2 * k * pieces.stride
    piece.n_taps = m - 2 * k if k == n - 1 else 2
    return piece


cdef Pieces cut_axis(Py_ssize_t n_taps, Py_ssize_t stride, Py_ssize_t dilation) noexcept nogil:
    cdef Pieces pieces
    cdef Py_ssize_t phase, m, k
    pieces.n_taps, pieces.stride, pieces.n = n_taps, stride, 0
    pieces.n_shifts = pieces.n_products = pieces.n_elements = 0
    if n_taps < 2 or stride > 2 or stride == 2 and dilation > 1:
        return pieces
    for phase in range(stride):
        m = phase_taps(&pieces, phase)
        pieces.n += max(<Py_ssize_t>1, m // 2)
        pieces.n_shifts = max(pieces.n_shifts, max(<Py_ssize_t>1, m // 2))
        pieces.n_elements += longest_piece(&pieces, phase) + 1
    for k in range(pieces.n):
        pieces.n_products += axis_piece(&pieces, k).n_taps + 1
    return pieces


cdef inline bint has_element(Py_ssize_t e, Py_ssize_t n_taps) noexcept nogil:
    """Whether a piece of so many taps has an element e, along its axis."""
    return e == 0 or e == 3 and n_taps != 2 or 0 < e < 3 and n_taps > 1


cdef inline int elements_of(Piece y, Piece x) noexcept nogil:
    """Which elements a piece of both axes has: 16 bits."""
    cdef int e, row = 0, bits = 0
    for e in range(4):
        row |= has_element(e, x.n_taps) << e
    for e in range(4):
        bits |= has_element(e, y.n_taps) * row << 4 * e
    return bits


cdef struct TiledAxis:
    Pieces pieces
    Py_ssize_t dilation
    Py_ssize_t in_step, out_step        # between the pixels of a phase: 1, or the stride
    Py_ssize_t first[2]                 # the packed pixel that the first tap of a phase reads ...
    Py_ssize_t pixel[2]                 # ... for this output pixel, the first of the phase
    Py_ssize_t tiles                    # of outputs
    Py_ssize_t halo                     # tiles that only pieces read

cdef struct Winograd:
    TiledAxis y, x
    Py_ssize_t *grid_at                 # (stack, strip, x.tiles) where each tile is in the grid
    Py_ssize_t *dense_at                # 0, 1, 2, ...
    Py_ssize_t n_passes                 # phases of outputs
    Py_ssize_t n_taps[64]               # (passes, 16), channels and pieces
    Py_ssize_t *tap_at[64]
    Py_ssize_t n_all                    # of all passes and elements
    void *weights                       # (blocks) (passes) (16) (n_taps, width)
    Py_ssize_t pitch                    # from one element of the transformed pixels to the next
    Py_ssize_t sums_pitch               # from one element of their sums to the next


cdef inline Py_ssize_t pass_of(const Winograd *w, Piece y, Piece x) noexcept nogil:
    return y.phase * w.x.pieces.stride + x.phase if w.n_passes > 1 else 0


cdef inline Py_ssize_t taps_of_sums(const TiledAxis *axis, Py_ssize_t phase) noexcept nogil:
    """Pieces of so many taps have the elements of a pass's sums: 3 for all of them."""
    cdef Py_ssize_t longest = longest_piece(&axis.pieces, phase)
    if axis.in_step > 1 and longest_piece(&axis.pieces, 1) != longest:
        return 3
    return longest


cdef inline Py_ssize_t tile_start(Py_ssize_t t, Py_ssize_t dilation) noexcept nogil:
    """The first output pixel of tile t of an axis."""
    return t // dilation * 2 * dilation + t % dilation


cdef inline void transform_line(real *out, Py_ssize_t out_pitch, const real *d,
                                Py_ssize_t pitch, const int n_taps) noexcept nogil:
    """B' d of the vectors that so many taps and two outputs read; what is 0 is not written."""
    if n_taps == 1:
        store(out, d)
        store(out + 3 * out_pitch, d + pitch)
        return
    subtract(out, d, d + 2 * pitch)
    add(out + out_pitch, d + pitch, d + 2 * pitch)
    subtract(out + 2 * out_pitch, d + 2 * pitch, d + pitch)
    if n_taps == 3:
        subtract(out + 3 * out_pitch, d + pitch, d + 3 * pitch)


cdef inline void transform_tile(
    real *out, Py_ssize_t pitch, const real *src, Py_ssize_t row, Py_ssize_t col,
    const int taps_y, const int taps_x,
) noexcept nogil:
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real d[16 * LANES]
    cdef int i
    for i in range(taps_y + 1):
        transform_line(d + 4 * i * lanes, lanes, src + i * row, col, taps_x)
    for i in range(4):
        if has_element(i, taps_x):
            transform_line(out + i * pitch, 4 * pitch, d + i * lanes, 4 * lanes, taps_y)


cdef inline void transform_pixels(
    real *out,                  # (4, 4, ...), elements pitch apart                 OUT
    Py_ssize_t pitch,
    const real *src,            # (taps_y + 1, taps_x + 1) pixels
    Py_ssize_t row,             # from one to the next row of them
    Py_ssize_t col,
    Py_ssize_t taps_y, Py_ssize_t taps_x,
) noexcept nogil:
    """B' d B of one vector of channels: the elements that pieces of so many taps have."""
    if taps_y == 3 and taps_x == 3:
        transform_tile(out, pitch, src, row, col, 3, 3)
    elif taps_y == 3 and taps_x == 2:
        transform_tile(out, pitch, src, row, col, 3, 2)
    elif taps_y == 3:
        transform_tile(out, pitch, src, row, col, 3, 1)
    elif taps_y == 2 and taps_x == 3:
        transform_tile(out, pitch, src, row, col, 2, 3)
    elif taps_y == 2 and taps_x == 2:
        transform_tile(out, pitch, src, row, col, 2, 2)
    elif taps_y == 2:
        transform_tile(out, pitch, src, row, col, 2, 1)
    elif taps_x == 3:
        transform_tile(out, pitch, src, row, col, 1, 3)
    elif taps_x == 2:
        transform_tile(out, pitch, src, row, col, 1, 2)
    else:
        transform_tile(out, pitch, src, row, col, 1, 1)


cdef inline void sum_line(real *out, Py_ssize_t out_pitch, const real *m, Py_ssize_t pitch,
                          const int n_taps) noexcept nogil:
    """A' m of the elements that pieces of so many taps have."""
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real b[LANES]
    if n_taps == 1:
        clear(b)
        store(out, m)
        subtract(out + out_pitch, b, m + 3 * pitch)
        return
    add(b, m + pitch, m + 2 * pitch)
    add(out, m, b)
    subtract(out + out_pitch, m + pitch, m + 2 * pitch)
    if n_taps == 3:
        subtract(out + out_pitch, out + out_pitch, m + 3 * pitch)


cdef inline void sum_tile(real *out, const real *sums, Py_ssize_t pitch, const int taps_y,
                          const int taps_x) noexcept nogil:
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real a[8 * LANES]
    cdef int i
    for i in range(4):
        if has_element(i, taps_x):
            sum_line(a + i * lanes, 4 * lanes, sums + i * pitch, 4 * pitch, taps_y)
    for i in range(2):
        sum_line(out + 2 * i * lanes, lanes, a + 4 * i * lanes, lanes, taps_x)


cdef inline void transform_sums(
    real *out,                  # (2, 2) vectors of features                        OUT
    const real *sums,           # (4, 4, ...), elements pitch apart
    Py_ssize_t pitch,
    Py_ssize_t taps_y, Py_ssize_t taps_x,
) noexcept nogil:
    """A' m A of one vector of features."""
    if taps_y == 3 and taps_x == 3:
        sum_tile(out, sums, pitch, 3, 3)
    elif taps_y == 3 and taps_x == 2:
        sum_tile(out, sums, pitch, 3, 2)
    elif taps_y == 3:
        sum_tile(out, sums, pitch, 3, 1)
    elif taps_y == 2 and taps_x == 3:
        sum_tile(out, sums, pitch, 2, 3)
    elif taps_y == 2 and taps_x == 2:
        sum_tile(out, sums, pitch, 2, 2)
    elif taps_y == 2:
        sum_tile(out, sums, pitch, 2, 1)
    elif taps_x == 3:
        sum_tile(out, sums, pitch, 1, 3)
    elif taps_x == 2:
        sum_tile(out, sums, pitch, 1, 2)
    else:
        sum_tile(out, sums, pitch, 1, 1)


cdef void winograd_input(const PixelJob *job, real *transformed, const real *buffer,
                         Py_ssize_t n_stacked, Py_ssize_t n_rows) noexcept nogil:
    """Transform the packed pixels of a unit: (phases, 16, stack, rows and halo, cols and halo,
    depth)."""
    cdef const Winograd *w = job.winograd
    cdef Py_ssize_t grid_rows = job.strip + w.y.halo, grid_cols = w.x.tiles + w.x.halo
    cdef Py_ssize_t img_rows = job.strip * job.in_step + job.in_extra
    cdef Py_ssize_t stride_y = w.y.pieces.stride, stride_x = w.x.pieces.stride
    cdef Py_ssize_t s, t, u, py, px
    for s in range(n_stacked):
        for t in range(n_rows + w.y.halo):
            for py in range(stride_y):
                for px in range(stride_x):
                    winograd_row(
                        job, transformed + 16 * (py * stride_x + px) * w.pitch
                        + (s * grid_rows + t) * grid_cols * job.depth,
                        buffer + job.depth * (
                            (s * img_rows + w.y.first[py]
                             + w.y.in_step * tile_start(t, w.y.dilation)) * job.cols
                            + w.x.first[px]),
                        longest_piece(&w.y.pieces, py), longest_piece(&w.x.pieces, px))


cdef inline void winograd_row(const PixelJob *job, real *dst, const real *src, Py_ssize_t taps_y,
                              Py_ssize_t taps_x) noexcept nogil:
    """A row of tiles."""
    cdef const Winograd *w = job.winograd
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t row = w.y.in_step * w.y.dilation * job.cols * job.depth
    cdef Py_ssize_t col = w.x.in_step * w.x.dilation * job.depth
    cdef Py_ssize_t u, c
    cdef const real *tile
    for u in range(w.x.tiles + w.x.halo):
        tile = src + w.x.in_step * tile_start(u, w.x.dilation) * job.depth
        for c in range(job.depth // lanes):
            transform_pixels(dst + u * job.depth + c * lanes, w.pitch, tile + c * lanes, row, col,
                             taps_y, taps_x)


cdef void winograd_block(
    const PixelJob *job, Py_ssize_t b, real *result, real *scratch, const real *bias,
    Py_ssize_t n_stacked, Py_ssize_t n_rows, Py_ssize_t out_rows, int n_vectors, Ahead *ahead,
) noexcept nogil:
    """One block of features of a unit whose pixels are transformed."""
    cdef const Winograd *w = job.winograd
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t n_tiles = n_stacked * n_rows * w.x.tiles
    cdef Py_ssize_t per_group = job.task.n_channels // job.task.groups
    cdef real *sums = scratch + 16 * w.y.pieces.stride * w.x.pieces.stride * w.pitch
    cdef const real *weights = <const real *>w.weights + w.n_all * padded_features(job, b, lanes)
    cdef Py_ssize_t e
    for e in range(16 * w.n_passes):
        if w.n_taps[e] > 0:
            correlate_features(
                sums + e % 16 * w.sums_pitch, w.dense_at,
                scratch + e % 16 * w.pitch + b // job.blocks_per_group * per_group, w.grid_at,
                job.depth, n_tiles, w.tap_at[e], weights, w.n_taps[e], <const real *>NULL, False,
                n_vectors, ahead,
            )
        weights += w.n_taps[e] * n_vectors * lanes
        if e % 16 == 15:
            winograd_output(job, e // 16, result, sums, bias, n_stacked, n_rows, out_rows,
                            n_vectors)


cdef void winograd_output(
    const PixelJob *job, Py_ssize_t run, real *result, const real *tile, const real *bias,
    Py_ssize_t n_stacked, Py_ssize_t n_rows, Py_ssize_t out_rows, int n_vectors,
) noexcept nogil:
    """The outputs of a pass."""
    cdef const Winograd *w = job.winograd
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t width = n_vectors * lanes
    cdef Py_ssize_t py = run // w.x.pieces.stride, px = run % w.x.pieces.stride
    cdef Py_ssize_t taps_y = taps_of_sums(&w.y, py), taps_x = taps_of_sums(&w.x, px)
    cdef Py_ssize_t step_y = w.y.out_step * w.y.dilation, step_x = w.x.out_step * w.x.dilation
    cdef Py_ssize_t s, t, u, v, y, x, i, j
    cdef real *pixel
    cdef real out[4 * LANES]
    for s in range(n_stacked):
        for t in range(n_rows):
            y = w.y.pixel[py] + w.y.out_step * tile_start(t, w.y.dilation)
            for u in range(w.x.tiles):
                x = w.x.pixel[px] + w.x.out_step * tile_start(u, w.x.dilation)
                pixel = result + ((s * job.task.out_h + y) * job.task.out_w + x) * width
                for v in range(n_vectors):
                    transform_sums(out, tile + v * lanes, w.sums_pitch, taps_y, taps_x)
                    for i in range(2):
                        for j in range(2):
                            if bias != NULL:
                                add(out + (2 * i + j) * lanes, out + (2 * i + j) * lanes,
                                    bias + v * lanes)
                            if job.task.with_relu:
                                relu(out + (2 * i + j) * lanes)
                            if y + i * step_y < out_rows and x + j * step_x < job.task.out_w:
                                store(
                                    pixel + v * lanes
                                    + width * (i * step_y * job.task.out_w + j * step_x),
                                    out + (2 * i + j) * lanes,
                                )
                tile += width
