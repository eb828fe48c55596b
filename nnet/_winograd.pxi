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
# takes: 3 x 3 taps, 2 + 1 an axis, take 5 x 5 multiplications instead of 36.
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


cdef struct Winograd:
    Pieces pieces_y, pieces_x
    Py_ssize_t dilation_y, dilation_x
    Py_ssize_t first_y, first_x         # the packed pixel that the first tap of output 0 reads
    Py_ssize_t tile_rows, tile_cols     # of outputs
    Py_ssize_t halo_y, halo_x           # tiles that only pieces read
    Py_ssize_t *grid_at                 # (stack, strip, tile_cols) where each tile is in the grid
    Py_ssize_t *dense_at                # 0, 1, 2, ...
    Py_ssize_t n_taps[16]               # channels and pieces
    Py_ssize_t *tap_at[16]
    Py_ssize_t n_all                    # of all 16 elements
    void *weights                       # (blocks) (16) (n_taps, width)
    Py_ssize_t pitch                    # from one element of the transformed pixels to the next
    Py_ssize_t sums_pitch               # from one element of their sums to the next


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


cdef inline void transform_sums(
    real *out,                  # (2, 2) vectors of features                        OUT
    const real *sums,           # (4, 4, ...), elements pitch apart
    Py_ssize_t pitch,
) noexcept nogil:
    """A' m A of one vector of features."""
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real a[8 * LANES]
    cdef real b[LANES]
    cdef int i, j
    for j in range(4):
        add(b, sums + (4 + j) * pitch, sums + (8 + j) * pitch)
        add(a + j * lanes, sums + j * pitch, b)
        subtract(b, sums + (4 + j) * pitch, sums + (8 + j) * pitch)
        subtract(a + (4 + j) * lanes, b, sums + (12 + j) * pitch)
    for i in range(2):
        add(b, a + (4 * i + 1) * lanes, a + (4 * i + 2) * lanes)
        add(out + 2 * i * lanes, a + 4 * i * lanes, b)
        subtract(b, a + (4 * i + 1) * lanes, a + (4 * i + 2) * lanes)
        subtract(out + (2 * i + 1) * lanes, b, a + (4 * i + 3) * lanes)


cdef void winograd_input(const PixelJob *job, real *transformed, const real *buffer,
                         Py_ssize_t n_stacked, Py_ssize_t n_rows) noexcept nogil:
    """Transform the packed pixels of a unit: (phases, 16, stack, rows and halo, cols and halo,
    depth)."""
    cdef const Winograd *w = job.winograd
    cdef Py_ssize_t grid_rows = job.strip + w.halo_y, grid_cols = w.tile_cols + w.halo_x
    cdef Py_ssize_t img_rows = job.strip * job.in_step + job.in_extra
    cdef Py_ssize_t stride_y = w.pieces_y.stride, stride_x = w.pieces_x.stride
    cdef Py_ssize_t s, t, u, py, px
    for s in range(n_stacked):
        for t in range(n_rows + w.halo_y):
            for py in range(stride_y):
                for px in range(stride_x):
                    winograd_row(
                        job, transformed + 16 * (py * stride_x + px) * w.pitch
                        + (s * grid_rows + t) * grid_cols * job.depth,
                        buffer + job.depth * (
                            (s * img_rows + w.first_y + py
                             + stride_y * tile_start(t, w.dilation_y)) * job.cols
                            + w.first_x + px),
                        longest_piece(&w.pieces_y, py), longest_piece(&w.pieces_x, px))


cdef inline void winograd_row(const PixelJob *job, real *dst, const real *src, Py_ssize_t taps_y,
                              Py_ssize_t taps_x) noexcept nogil:
    """A row of tiles."""
    cdef const Winograd *w = job.winograd
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t row = w.pieces_y.stride * w.dilation_y * job.cols * job.depth
    cdef Py_ssize_t col = w.pieces_x.stride * w.dilation_x * job.depth
    cdef Py_ssize_t u, c
    cdef const real *tile
    for u in range(w.tile_cols + w.halo_x):
        tile = src + w.pieces_x.stride * tile_start(u, w.dilation_x) * job.depth
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
    cdef Py_ssize_t width = n_vectors * lanes
    cdef Py_ssize_t n_tiles = n_stacked * n_rows * w.tile_cols
    cdef Py_ssize_t per_group = job.task.n_channels // job.task.groups
    cdef real *sums = scratch + 16 * w.pieces_y.stride * w.pieces_x.stride * w.pitch
    cdef const real *weights = <const real *>w.weights + w.n_all * padded_features(job, b, lanes)
    cdef Py_ssize_t e, s, t, u, v, y, x, i, j
    cdef real *pixel
    cdef real *tile = sums
    cdef real out[4 * LANES]
    for e in range(16):
        correlate_features(
            sums + e * w.sums_pitch, w.dense_at,
            scratch + e * w.pitch + b // job.blocks_per_group * per_group, w.grid_at, job.depth,
            n_tiles, w.tap_at[e], weights, w.n_taps[e], <const real *>NULL, False, n_vectors,
            ahead,
        )
        weights += w.n_taps[e] * width
    for s in range(n_stacked):
        for t in range(n_rows):
            y = tile_start(t, w.dilation_y)
            for u in range(w.tile_cols):
                x = tile_start(u, w.dilation_x)
                pixel = result + ((s * job.task.out_h + y) * job.task.out_w + x) * width
                for v in range(n_vectors):
                    transform_sums(out, tile + v * lanes, w.sums_pitch)
                    for i in range(2):
                        for j in range(2):
                            if bias != NULL:
                                add(out + (2 * i + j) * lanes, out + (2 * i + j) * lanes,
                                    bias + v * lanes)
                            if job.task.with_relu:
                                relu(out + (2 * i + j) * lanes)
                            if (y + i * w.dilation_y < out_rows
                                    and x + j * w.dilation_x < job.task.out_w):
                                store(
                                    pixel + v * lanes + width * (
                                        i * w.dilation_y * job.task.out_w + j * w.dilation_x),
                                    out + (2 * i + j) * lanes,
                                )
                tile += width


cdef Py_ssize_t plan_tiles(PixelJob *job, Py_ssize_t lanes) noexcept nogil:
    """Rows of tiles take the place of rows of a pass; returns the values that one of them needs."""
    cdef Winograd *w = job.winograd
    cdef Py_ssize_t stride_y = w.pieces_y.stride, stride_x = w.pieces_x.stride
    w.tile_rows = ceil_div(job.task.out_h, 2 * w.dilation_y) * w.dilation_y
    w.tile_cols = ceil_div(job.task.out_w, 2 * w.dilation_x) * w.dilation_x
    w.halo_y = (w.pieces_y.n_shifts - 1) * w.dilation_y
    w.halo_x = (w.pieces_x.n_shifts - 1) * w.dilation_x
    job.pass_rows, job.pass_cols = w.tile_rows, w.tile_cols
    job.in_step, job.out_step = 2 * stride_y, 2
    job.in_extra = w.first_y + 2 * stride_y * (w.halo_y + w.dilation_y)
    job.cols = w.first_x + 2 * stride_x * (w.tile_cols + w.halo_x + w.dilation_x)
    return (w.pieces_y.n_elements * w.pieces_x.n_elements * (w.tile_cols + w.halo_x) * job.depth
            + 16 * w.tile_cols * job.block_vectors * lanes)


cdef void plan_winograd(
    PixelJob *job, const real *filters, bint flip, Workspace space,
) except *:
    """Tables of taps and tiles, and the transformed weights."""
    cdef Winograd *w = job.winograd
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t channels = job.task.n_channels // job.task.groups
    cdef Py_ssize_t grid_rows = job.strip + w.halo_y, grid_cols = w.tile_cols + w.halo_x
    cdef Py_ssize_t n_phases = w.pieces_y.stride * w.pieces_x.stride
    cdef Py_ssize_t n = job.stack * job.strip * w.tile_cols
    cdef Py_ssize_t e, m, c, s, t, u, py, px
    cdef Piece y, x
    w.pitch = spread(job.stack * grid_rows * grid_cols * job.depth, lanes)
    w.sums_pitch = spread(n * job.block_vectors * lanes, lanes)
    job.scratch_size = 16 * (n_phases * w.pitch + w.sums_pitch)
    w.n_all = 0
    for e in range(16):
        w.tap_at[e] = <Py_ssize_t *>space.take(
            w.pieces_y.n * w.pieces_x.n * channels * sizeof(Py_ssize_t))
        m = 0
        for py in range(w.pieces_y.n):
            y = axis_piece(&w.pieces_y, py)
            for px in range(w.pieces_x.n):
                x = axis_piece(&w.pieces_x, px)
                if elements_of(y, x) >> e & 1:
                    for c in range(channels):
                        w.tap_at[e][m] = (
                            c + 16 * (y.phase * w.pieces_x.stride + x.phase) * w.pitch
                            + job.depth * (y.shift * w.dilation_y * grid_cols
                                           + x.shift * w.dilation_x))
                        m += 1
        w.n_taps[e] = m
        w.n_all += m
    w.weights = space.take(w.n_all * padded_features(job, job.n_blocks, lanes) * sizeof(real))
    transform_filters(job, <real *>w.weights, filters, flip)
    w.grid_at = <Py_ssize_t *>space.take(n * sizeof(Py_ssize_t))
    w.dense_at = <Py_ssize_t *>space.take(n * sizeof(Py_ssize_t))
    m = 0
    for s in range(job.stack):
        for t in range(job.strip):
            for u in range(w.tile_cols):
                w.grid_at[m] = (s * grid_rows + t) * grid_cols + u
                w.dense_at[m] = m
                m += 1


cdef void transform_filters(
    const PixelJob *job, real *out, const real *filters, bint flip,
) noexcept nogil:
    """G g G' of all pieces of all filters, for each block of features in the order of its taps."""
    cdef const Winograd *w = job.winograd
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t channels = job.task.n_channels // job.task.groups
    cdef FilterPitches pitch = filter_pitches(
        job.task, w.pieces_y.n_taps * w.pieces_x.n_taps, flip)
    cdef Py_ssize_t b, c, e, f, v, k, k_end, py, px, n_vectors
    cdef real *rows[16]
    cdef const real *source
    cdef Piece y, x
    cdef int elements
    for b in range(job.n_blocks):
        n_vectors = vectors_of(job, b, lanes)
        k, k_end = first_feature(job, b, lanes), first_feature(job, b + 1, lanes)
        source = filters + filter_at(job, b, k, &pitch)
        for e in range(16):
            rows[e] = out
            out += w.n_taps[e] * n_vectors * lanes
        for py in range(w.pieces_y.n):
            y = axis_piece(&w.pieces_y, py)
            for px in range(w.pieces_x.n):
                x = axis_piece(&w.pieces_x, px)
                elements = elements_of(y, x)
                for c in range(channels):
                    for v in range(n_vectors):
                        transform_piece(
                            w, rows, v * lanes,
                            source + c * pitch.channel + v * lanes * pitch.feature,
                            pitch.feature, min(lanes, k_end - k - v * lanes), y, x, flip,
                        )
                    for e in range(16):
                        if elements >> e & 1:
                            rows[e] += n_vectors * lanes


cdef void transform_piece(
    const Winograd *w, real **out, Py_ssize_t at, const real *filters, Py_ssize_t feature_pitch,
    Py_ssize_t n_features, Piece piece_y, Piece piece_x, bint flip,
) noexcept nogil:
    """G g G' of a piece of a vector of filters: 16 vectors."""
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real g[9 * LANES]
    cdef real h[12 * LANES]
    cdef real *tap
    cdef Py_ssize_t f, i, j, y, x
    memset(g, 0, sizeof(g))
    for i in range(piece_y.n_taps):
        for j in range(piece_x.n_taps):
            y = piece_y.first + i * w.pieces_y.stride
            x = piece_x.first + j * w.pieces_x.stride
            if flip:
                y, x = w.pieces_y.n_taps - 1 - y, w.pieces_x.n_taps - 1 - x
            tap = g + (3 * i + j) * lanes
            for f in range(n_features):
                tap[f] = filters[f * feature_pitch + y * w.pieces_x.n_taps + x]
    for j in range(3):
        transform_taps(h + j * lanes, 3 * lanes, g + j * lanes, 3 * lanes, piece_y.n_taps)
    for i in range(4):
        if has_element(i, piece_y.n_taps):
            transform_taps(g, lanes, h + 3 * i * lanes, lanes, piece_x.n_taps)
            for j in range(4):
                if has_element(j, piece_x.n_taps):
                    store(out[4 * i + j] + at, g + j * lanes)


cdef inline void transform_taps(real *out, Py_ssize_t out_pitch, const real *taps,
                                Py_ssize_t pitch, Py_ssize_t n_taps) noexcept nogil:
    """G g of so many vectors, and zeros up to three."""
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real outer[LANES]
    cdef real middle[LANES]
    store(out, taps)
    if n_taps == 1:
        clear(outer)
        subtract(out + 3 * out_pitch, outer, taps)
        return
    fill(outer, <real>0)
    fill(middle, <real>0)
    madd(outer, <real>0.5, taps)
    madd(outer, <real>0.5, taps + 2 * pitch)
    madd(middle, <real>0.5, taps + pitch)
    store(out + 3 * out_pitch, taps + 2 * pitch)
    add(out + out_pitch, outer, middle)
    subtract(out + 2 * out_pitch, outer, middle)


cdef inline Py_ssize_t spread(Py_ssize_t size, Py_ssize_t lanes) noexcept nogil:
    """An odd number of vectors: powers of two would put all 16 into the same cache sets."""
    return (ceil_div(size, lanes) | 1) * lanes


cdef inline bint has_element(Py_ssize_t e, Py_ssize_t n_taps) noexcept nogil:
    """Whether a piece of so many taps has an element e, along its axis."""
    return e == 0 or e == 3 and n_taps != 2 or 0 < e < 3 and n_taps > 1


cdef inline int elements_of(Piece y, Piece x) noexcept nogil:
    """Which elements a piece of both axes has: 16 bits."""
    cdef int e, bits = 0
    for e in range(16):
        if has_element(e // 4, y.n_taps) and has_element(e % 4, x.n_taps):
            bits |= 1 << e
    return bits
