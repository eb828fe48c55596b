# The filter gradient by Winograd's F(2x2, 3x3). Needs winograd.h, pieces.pxi and
# gradient_features.pxi.
#
# A tile of 2x2 output pixels reads 4x4 pixels of the image; 16 products, one for
# each element e of the transformed tiles, do the work of 36:
#
#     V = B' d B, M = A g A',  filter gradient = G' (sum over tiles of V * M) G
#
# with the matrices of conv/winograd.pxi, of which this is the derivative by g. For each
# e the sum over tiles is a product in outer form, with tiles for pixels. The pieces of
# a larger filter read the same transformed images, some tiles further on.
#
# Against float64, on normal random data, the root mean square error in float32 is
# 2.4e-7 to 3.8e-7 of that of the gradient itself for nine shapes of 1 to 128 images
# and 16 to 128 channels; the direct outer form has 2.4e-7 to 5.8e-7 there. With
# filters of 2x2 to 7x7 it is 2.5e-7 to 3.5e-7, directly 2.7e-7 to 3.9e-7. Against the dot
# form, whose sums are shorter, or with rectified pixels it is more than that of direct
# sums: 1.1 to 1.6 times with 36 to 64 channels, up to 2 times with 16 and a stride of 2.

cdef enum:
    # Pixels of a batch below which a second thread takes as long to fetch the first one's sums
    # as it saves.
    SERIAL_PIXELS = 512

cdef struct WinogradLayout:
    Py_ssize_t c_pitch, k_pitch         # from one tile to the next
    Py_ssize_t cols                     # of tiles, in an output plane
    Pieces pieces_y, pieces_x           # of the filters
    Py_ssize_t grid_cols                # tiles in a row of a transformed image ...
    Py_ssize_t img_cols                 # ... and pixels of it
    Py_ssize_t band                     # rows of tiles that are transformed at once
    Py_ssize_t img_e, grad_e            # from one element of the transformed tiles to the next
    Py_ssize_t sums_e                   # ... and of the sums (pieces, 16, c, k_pitch)
    Py_ssize_t grad_at, pixels_at, sums_at      # where things lie in the buffer
    Py_ssize_t *pixel_at                # where each pixel of a padded band goes ...
    Py_ssize_t *grad_pixel_at           # ... and of its gradient


cdef bint transformed_accepts(const FilterGradient *job, Py_ssize_t lanes) noexcept nogil:
    return (cut_axis(job.fil_h, job.stride_y, job.dilation_y).n > 0
            and cut_axis(job.fil_w, job.stride_x, job.dilation_x).n > 0
            and job.dilation_y == 1 and job.dilation_x == 1)


cdef double transformed_cycles(const FilterGradient *job, Py_ssize_t lanes) noexcept nogil:
    """The products of a tile of 4 pixels, and the transforms of its vectors."""
    cdef Pieces y = cut_axis(job.fil_h, job.stride_y, job.dilation_y)
    cdef Pieces x = cut_axis(job.fil_w, job.stride_x, job.dilation_x)
    cdef double vectors = ceil_div(job.k_per_group, lanes)
    cdef double tiles = ceil_div(job.out_h, 2) * ceil_div(job.out_w, 2)
    cdef double products = y.n_products * x.n_products * max(
        job.c_per_group * used_vectors(job.k_per_group, lanes), 5.0)
    if y.n_shifts * x.n_shifts > 1:
        products *= 1.3     # a walk is as short as a row of tiles
    if y.stride * x.stride > 1:
        products *= 1.2     # ... and pieces are small
    return tiles / (job.out_h * job.out_w) * (
        products + 92 * vectors
        + 5.75 * y.n_elements * x.n_elements * ceil_div(job.c_per_group, lanes))


cdef int transformed_plan(FilterGradient *job, Workspace tables, Py_ssize_t itemsize) except -1:
    """Bands of rows and stacks of images: up to about 128 tiles, within the L2 cache."""
    cdef WinogradLayout *w = &job.winograd
    cdef Py_ssize_t lanes = VECTOR_BYTES // itemsize, taps = job.fil_h * job.fil_w
    cdef Py_ssize_t tiles, most, rows, size, grad_size, x
    cdef GradientSums sums = cut_leaves(job.out_h * job.out_w, job.out_h, 1536, 8192)
    w.pieces_y = cut_axis(job.fil_h, job.stride_y, job.dilation_y)
    w.pieces_x = cut_axis(job.fil_w, job.stride_x, job.dilation_x)
    w.c_pitch = ceil_div(job.c_per_group, lanes) * lanes
    w.k_pitch = ceil_div(job.k_per_group, lanes) * lanes
    rows, w.cols = ceil_div(band_rows(&sums, job.out_h), 2), ceil_div(job.out_w, 2)
    w.grid_cols = w.cols + w.pieces_x.n_shifts - 1
    most = clip(
        655360 // ((w.pieces_y.n_elements * w.pieces_x.n_elements * w.c_pitch
                    + 16 * w.k_pitch) * itemsize), 1, 128)
    w.band = ceil_div(rows, ceil_div(rows * w.cols, most))
    sums.stack = clip(most // (rows * w.cols), 1, sums.chunk)
    # Not a power of two: all elements of a tile would compete for one set of the L1 cache.
    tiles = sums.stack * (w.band + w.pieces_y.n_shifts - 1) * w.grid_cols
    w.img_e = tiles * w.c_pitch + lanes
    w.grad_e = sums.stack * w.band * w.cols * w.k_pitch + lanes
    w.sums_e = job.n_channels * w.k_pitch
    w.grad_at = 16 * w.pieces_y.stride * w.pieces_x.stride * w.img_e
    w.pixels_at = w.grad_at + 16 * w.grad_e
    # A stride may leave the last column of the images unread.
    w.img_cols = max(2 * w.pieces_x.stride * (w.grid_cols + 1), job.left + job.w)
    w.sums_at = w.pixels_at + lanes * w.img_cols * (
        2 * w.pieces_y.stride * (w.band + w.pieces_y.n_shifts))
    sums.buffer_size = w.sums_at + 16 * w.pieces_y.n * w.pieces_x.n * w.sums_e
    sums.serial = SERIAL_PIXELS
    sums.n_split, sums.split_size = job.n_channels, taps * w.k_pitch
    sums.channel, sums.group = sums.split_size, job.c_per_group * sums.split_size
    sums.feature, sums.col, sums.row = 1, w.k_pitch, job.fil_w * w.k_pitch
    job.sums = sums
    size = 2 * w.pieces_y.stride * (w.band + w.pieces_y.n_shifts) * job.w
    grad_size = 2 * w.band * job.out_w
    w.pixel_at = <Py_ssize_t *>tables.take(size * sizeof(Py_ssize_t))
    w.grad_pixel_at = <Py_ssize_t *>tables.take(grad_size * sizeof(Py_ssize_t))
    for x in range(size):
        w.pixel_at[x] = (x // job.w * w.img_cols + x % job.w + job.left) * lanes
    for x in range(grad_size):
        w.grad_pixel_at[x] = (x // job.out_w * 2 * w.cols + x % job.out_w) * lanes
    return 0


cdef void transformed_leaf(const FilterGradient *job, const GradientLeaf *leaf, const real *imgs,
                        const real *grad, real *node, real *buffer) noexcept nogil:
    """Channels [first, end): (c, i, j, k)."""
    cdef const WinogradLayout *w = &job.winograd
    cdef Py_ssize_t first = leaf.first, end = leaf.end, n = leaf.n, e, n_stacked, g, c0, c1, row
    cdef Py_ssize_t row_end = ceil_div(leaf.y_end, 2), lanes = VECTOR_BYTES // sizeof(real), p, v
    cdef Piece y, x
    for e in range(16 * w.pieces_y.n * w.pieces_x.n):
        memset(buffer + w.sums_at + e * w.sums_e + first * w.k_pitch, 0,
               (end - first) * w.k_pitch * sizeof(real))
    while n < leaf.n_end:
        n_stacked = next_stack(job, leaf.n_end - n)
        for g in range(first // job.c_per_group, (end - 1) // job.c_per_group + 1):
            c0 = max(first, g * job.c_per_group)
            c1 = min(end, (g + 1) * job.c_per_group)
            row = leaf.y // 2
            while row < row_end:
                transformed_band(job, imgs, grad, buffer, n, n_stacked, leaf.n_imgs, g, c0, c1, row,
                              min(w.band, row_end - row))
                row += w.band
        n += n_stacked
    for p in range(w.pieces_y.n * w.pieces_x.n):
        y, x = axis_piece(&w.pieces_y, p // w.pieces_x.n), axis_piece(&w.pieces_x, p % w.pieces_x.n)
        for c0 in range(first, end):
            for v in range(w.k_pitch // lanes):
                gradient_taps(
                    node + c0 * job.sums.channel + y.first * job.sums.row + x.first * job.sums.col
                    + v * lanes, job.stride_y * job.sums.row, job.stride_x * job.sums.col,
                    <const real *>buffer + w.sums_at + 16 * p * w.sums_e + c0 * w.k_pitch
                    + v * lanes,
                    w.sums_e, elements_of(y, x), <int>y.n_taps, <int>x.n_taps)


cdef void transformed_band(
    const FilterGradient *job, const real *imgs, const real *grad, real *buffer, Py_ssize_t n,
    Py_ssize_t n_stacked, Py_ssize_t n_imgs, Py_ssize_t g, Py_ssize_t c0, Py_ssize_t c1,
    Py_ssize_t row, Py_ssize_t n_rows,
) noexcept nogil:
    """n_rows rows of tiles from `row` on, of one stack of images, one group's channels [c0, c1)."""
    cdef const WinogradLayout *w = &job.winograd
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t size = job.out_h * job.out_w, tiles = n_rows * w.cols
    cdef Py_ssize_t grid_rows = n_rows + w.pieces_y.n_shifts - 1, grid = grid_rows * w.grid_cols
    cdef Py_ssize_t stride_y = w.pieces_y.stride, stride_x = w.pieces_x.stride
    cdef Py_ssize_t s, e, i
    cdef Piece y, x
    cdef int elements
    cdef Walk walk
    for s in range(n_stacked):
        transform_planes(
            job, True, buffer + s * grid * w.c_pitch, w.img_e, w.c_pitch,
            imgs + ((n + s) * job.n_channels + c0) * job.h * job.w, c1 - c0, job.h, job.w,
            2 * stride_y * row - job.top, 2 * stride_y * (grid_rows + 1), w.img_cols, w.pixel_at,
            grid_rows, w.grid_cols, buffer + w.pixels_at,
        )
        transform_planes(
            job, False, buffer + w.grad_at + s * tiles * w.k_pitch, w.grad_e, w.k_pitch,
            grad + ((n + s) * job.n_features + g * job.k_per_group) * size, job.k_per_group,
            job.out_h, job.out_w, 2 * row, 2 * n_rows, 2 * w.cols, w.grad_pixel_at, n_rows,
            w.cols, buffer + w.pixels_at,
        )
    if grid == tiles:   # one long row
        walk.n[0], walk.n[1], walk.n[2] = 1, 1, n_stacked * tiles
    else:
        walk.n[0], walk.n[1], walk.n[2] = n_stacked, n_rows, w.cols
    fetch_next(job, &walk, imgs, grad, n + n_stacked, n_imgs, w.band == ceil_div(job.out_h, 2))
    walk.src[0], walk.src[1], walk.src[2] = grid * w.c_pitch, w.grid_cols * w.c_pitch, w.c_pitch
    walk.grad[0], walk.grad[1], walk.grad[2] = tiles * w.k_pitch, w.cols * w.k_pitch, w.k_pitch
    for i in range(w.pieces_y.n * w.pieces_x.n):
        y = axis_piece(&w.pieces_y, i // w.pieces_x.n)
        x = axis_piece(&w.pieces_x, i % w.pieces_x.n)
        elements = elements_of(y, x)
        for e in range(16):
            if elements >> e & 1:
                gradient_outer(
                    buffer + w.sums_at + (16 * i + e) * w.sums_e + c0 * w.k_pitch, w.k_pitch,
                    buffer + (16 * (y.phase * stride_x + x.phase) + e) * w.img_e
                    + (y.shift * w.grid_cols + x.shift) * w.c_pitch,
                    buffer + w.grad_at + e * w.grad_e, &walk, c1 - c0, job.k_per_group)


cdef void transform_planes(
    const FilterGradient *job, bint imgs, real *out, Py_ssize_t out_e, Py_ssize_t out_pitch,
    const real *planes, Py_ssize_t n_planes, Py_ssize_t h, Py_ssize_t w, Py_ssize_t first_row,
    Py_ssize_t n_rows, Py_ssize_t n_cols, const Py_ssize_t *pixel_at, Py_ssize_t tile_rows,
    Py_ssize_t tile_cols, real *pixels,
) noexcept nogil:
    """Planes of an image or of a gradient to (phases, 16, tiles, planes), a vector of planes at
    once."""
    cdef const Pieces *y = &job.winograd.pieces_y
    cdef const Pieces *x = &job.winograd.pieces_x
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real), row = n_cols * lanes
    cdef Py_ssize_t read_h = h, read_w = w, r0, r1, r, b, ty, tx, py, px
    if imgs:    # pixels that no output reads stay zero: they must not spoil others
        read_h = min(h, (job.out_h - 1) * job.stride_y + job.fil_h - job.top)
        read_w = clip((job.out_w - 1) * job.stride_x + job.fil_w - job.left, 0, w)
    r0 = clip(-first_row, 0, n_rows)
    r1 = clip(read_h - first_row, r0, n_rows)
    memset(pixels, 0, n_rows * row * sizeof(real))
    for b in range(ceil_div(n_planes, lanes)):
        pixel_major(pixels + r0 * row, pixel_at, planes + b * lanes * h * w + (first_row + r0) * w,
                    h * w, min(lanes, n_planes - b * lanes), (r1 - r0) * w)
        for r in range(r0, r1 if read_w < w else r0):
            memset(pixels + r * row + (job.left + read_w) * lanes, 0,
                   (w - read_w) * lanes * sizeof(real))
        if imgs:
            for py in range(y.stride):
                for px in range(x.stride):
                    transform_phase(
                        out + 16 * (py * x.stride + px) * out_e + b * lanes, out_e, out_pitch,
                        pixels + py * row + px * lanes, y.stride * row, x.stride * lanes,
                        longest_piece(y, py), longest_piece(x, px), tile_rows, tile_cols)
            continue
        for ty in range(tile_rows):
            for tx in range(tile_cols):
                gradient_tile(out + (ty * tile_cols + tx) * out_pitch + b * lanes, out_e,
                              pixels + 2 * ty * row + 2 * tx * lanes, row)


cdef inline void transform_phase(
    real *out, Py_ssize_t out_e, Py_ssize_t out_pitch, const real *pixels, Py_ssize_t row,
    Py_ssize_t col, Py_ssize_t taps_y, Py_ssize_t taps_x, Py_ssize_t tile_rows,
    Py_ssize_t tile_cols,
) noexcept nogil:
    """The tiles of one phase of an image, for one vector of channels."""
    cdef Py_ssize_t ty, tx
    for ty in range(tile_rows):
        for tx in range(tile_cols):
            transform_pixels(out + (ty * tile_cols + tx) * out_pitch, out_e,
                             pixels + 2 * ty * row + 2 * tx * col, row, col, taps_y, taps_x)
