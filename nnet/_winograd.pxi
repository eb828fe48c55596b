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
# With dilation d a tile's pixels are d apart; tile rows q*d to q*d + d - 1 lie
# within each other.

cdef struct Winograd:
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


cdef inline void transform_pixels(
    real *out,                  # (4, 4, ...), elements pitch apart                 OUT
    Py_ssize_t pitch,
    const real *src,            # 4 x 4 pixels
    Py_ssize_t row,             # from one to the next row of them
    Py_ssize_t col,
) noexcept nogil:
    """B' d B of one vector of channels."""
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real d[16 * LANES]
    cdef int i, j
    for i in range(4):
        subtract(d + (4 * i + 0) * lanes, src + i * row, src + i * row + 2 * col)
        add(d + (4 * i + 1) * lanes, src + i * row + col, src + i * row + 2 * col)
        subtract(d + (4 * i + 2) * lanes, src + i * row + 2 * col, src + i * row + col)
        subtract(d + (4 * i + 3) * lanes, src + i * row + col, src + i * row + 3 * col)
    for j in range(4):
        subtract(out + j * pitch, d + j * lanes, d + (8 + j) * lanes)
        add(out + (4 + j) * pitch, d + (4 + j) * lanes, d + (8 + j) * lanes)
        subtract(out + (8 + j) * pitch, d + (8 + j) * lanes, d + (4 + j) * lanes)
        subtract(out + (12 + j) * pitch, d + (4 + j) * lanes, d + (12 + j) * lanes)


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
    """Transform the packed pixels of a unit: (16, stack, rows and halo, cols and halo, depth)."""
    cdef const Winograd *w = job.winograd
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t grid_rows = job.strip + w.halo_y, grid_cols = w.tile_cols + w.halo_x
    cdef Py_ssize_t img_rows = job.strip * job.in_step + job.in_extra
    cdef Py_ssize_t s, t, u, c
    cdef const real *src
    cdef real *dst
    for s in range(n_stacked):
        for t in range(n_rows + w.halo_y):
            for u in range(grid_cols):
                src = buffer + job.depth * (
                    (s * img_rows + w.first_y + tile_start(t, w.dilation_y)) * job.cols
                    + w.first_x + tile_start(u, w.dilation_x)
                )
                dst = transformed + ((s * grid_rows + t) * grid_cols + u) * job.depth
                for c in range(job.depth // lanes):
                    transform_pixels(dst + c * lanes, w.pitch, src + c * lanes,
                                     w.dilation_y * job.cols * job.depth,
                                     w.dilation_x * job.depth)


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
    cdef real *sums = scratch + 16 * w.pitch
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


cdef Py_ssize_t plan_tiles(PixelJob *job, Py_ssize_t fil_h, Py_ssize_t fil_w,
                           Py_ssize_t lanes) noexcept nogil:
    """Rows of tiles take the place of rows of a pass; returns the values that one of them needs."""
    cdef Winograd *w = job.winograd
    w.tile_rows = ceil_div(job.task.out_h, 2 * w.dilation_y) * w.dilation_y
    w.tile_cols = ceil_div(job.task.out_w, 2 * w.dilation_x) * w.dilation_x
    w.halo_y, w.halo_x = (fil_h // 2 - 1) * w.dilation_y, (fil_w // 2 - 1) * w.dilation_x
    job.pass_rows, job.pass_cols = w.tile_rows, w.tile_cols
    job.in_step = job.out_step = 2
    job.in_extra = w.first_y + 2 * (w.halo_y + w.dilation_y)
    job.cols = w.first_x + 2 * (w.tile_cols + w.halo_x + w.dilation_x)
    return 16 * ((w.tile_cols + w.halo_x) * job.depth + w.tile_cols * job.block_vectors * lanes)


cdef void plan_winograd(
    PixelJob *job, const real *filters, Py_ssize_t fil_h, Py_ssize_t fil_w, bint flip,
    Workspace space,
) except *:
    """Tables of taps and tiles, and the transformed weights."""
    cdef Winograd *w = job.winograd
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t channels = job.task.n_channels // job.task.groups
    cdef Py_ssize_t grid_rows = job.strip + w.halo_y, grid_cols = w.tile_cols + w.halo_x
    cdef Py_ssize_t n = job.stack * job.strip * w.tile_cols
    cdef Py_ssize_t e, m, c, s, t, u, py, px
    w.n_all = 0
    for e in range(16):
        w.tap_at[e] = <Py_ssize_t *>space.take(
            (fil_h // 2) * (fil_w // 2) * channels * sizeof(Py_ssize_t))
        m = 0
        for py in range(fil_h // 2):
            for px in range(fil_w // 2):
                if has_element(e // 4, py, fil_h) and has_element(e % 4, px, fil_w):
                    for c in range(channels):
                        w.tap_at[e][m] = c + job.depth * (
                            py * w.dilation_y * grid_cols + px * w.dilation_x)
                        m += 1
        w.n_taps[e] = m
        w.n_all += m
    w.weights = space.take(w.n_all * padded_features(job, job.n_blocks, lanes) * sizeof(real))
    transform_filters(job, <real *>w.weights, filters, fil_h, fil_w, flip)
    w.grid_at = <Py_ssize_t *>space.take(n * sizeof(Py_ssize_t))
    w.dense_at = <Py_ssize_t *>space.take(n * sizeof(Py_ssize_t))
    m = 0
    for s in range(job.stack):
        for t in range(job.strip):
            for u in range(w.tile_cols):
                w.grid_at[m] = (s * grid_rows + t) * grid_cols + u
                w.dense_at[m] = m
                m += 1
    w.pitch = spread(job.stack * grid_rows * grid_cols * job.depth, lanes)
    w.sums_pitch = spread(n * job.block_vectors * lanes, lanes)
    job.scratch_size = 16 * (w.pitch + w.sums_pitch)


cdef void transform_filters(
    const PixelJob *job, real *out, const real *filters, Py_ssize_t fil_h, Py_ssize_t fil_w,
    bint flip,
) noexcept nogil:
    """G g G' of all pieces of all filters, for each block of features in the order of its taps."""
    cdef const Winograd *w = job.winograd
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t channels = job.task.n_channels // job.task.groups
    cdef FilterPitches pitch = filter_pitches(job.task, fil_h * fil_w, flip)
    cdef Py_ssize_t b, c, e, f, v, k, k_end, py, px, n_vectors
    cdef real *rows[16]
    cdef const real *source
    for b in range(job.n_blocks):
        n_vectors = vectors_of(job, b, lanes)
        k, k_end = first_feature(job, b, lanes), first_feature(job, b + 1, lanes)
        source = filters + filter_at(job, b, k, &pitch)
        for e in range(16):
            rows[e] = out
            out += w.n_taps[e] * n_vectors * lanes
        for py in range(fil_h // 2):
            for px in range(fil_w // 2):
                for c in range(channels):
                    for v in range(n_vectors):
                        transform_piece(
                            rows, v * lanes, source + c * pitch.channel + v * lanes * pitch.feature,
                            pitch.feature, min(lanes, k_end - k - v * lanes), fil_h, fil_w,
                            py, px, flip,
                        )
                    for e in range(16):
                        if has_element(e // 4, py, fil_h) and has_element(e % 4, px, fil_w):
                            rows[e] += n_vectors * lanes


cdef void transform_piece(
    real **out, Py_ssize_t at, const real *filters, Py_ssize_t feature_pitch, Py_ssize_t n_features,
    Py_ssize_t fil_h, Py_ssize_t fil_w, Py_ssize_t py, Py_ssize_t px, bint flip,
) noexcept nogil:
    """G g G' of a piece of a vector of filters: 16 vectors."""
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real g[9 * LANES]
    cdef real h[12 * LANES]
    cdef Py_ssize_t f, i, j, y, x
    memset(g, 0, sizeof(g))
    for i in range(2 + has_element(3, py, fil_h)):
        for j in range(2 + has_element(3, px, fil_w)):
            y, x = 2 * py + i, 2 * px + j
            if flip:
                y, x = fil_h - 1 - y, fil_w - 1 - x
            for f in range(n_features):
                g[(3 * i + j) * lanes + f] = filters[f * feature_pitch + y * fil_w + x]
    for j in range(3):
        transform_taps(h + j * lanes, 3 * lanes, g + j * lanes, 3 * lanes)
    for i in range(4):
        if has_element(i, py, fil_h):
            transform_taps(g, lanes, h + 3 * i * lanes, lanes)
            for j in range(4):
                if has_element(j, px, fil_w):
                    store(out[4 * i + j] + at, g + j * lanes)


cdef inline void transform_taps(real *out, Py_ssize_t out_pitch, const real *taps,
                                Py_ssize_t pitch) noexcept nogil:
    """G g of three vectors."""
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real outer[LANES]
    cdef real middle[LANES]
    fill(outer, <real>0)
    fill(middle, <real>0)
    madd(outer, <real>0.5, taps)
    madd(outer, <real>0.5, taps + 2 * pitch)
    madd(middle, <real>0.5, taps + pitch)
    store(out, taps)
    store(out + 3 * out_pitch, taps + 2 * pitch)
    add(out + out_pitch, outer, middle)
    subtract(out + 2 * out_pitch, outer, middle)


cdef inline Py_ssize_t spread(Py_ssize_t size, Py_ssize_t lanes) noexcept nogil:
    """An odd number of vectors: powers of two would put all 16 into the same cache sets."""
    return (ceil_div(size, lanes) | 1) * lanes


cdef inline bint has_element(Py_ssize_t e, Py_ssize_t piece, Py_ssize_t n_taps) noexcept nogil:
    """Whether a piece of an axis has an element e: the fourth one only with three taps."""
    return e < 3 or (n_taps % 2 == 1 and piece == n_taps // 2 - 1)
