# The filter gradient by Winograd's F(2x2, 3x3).
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

cdef inline void transform_gradient(
    real *out,                  # (4, 4, ...), elements pitch apart                 OUT
    Py_ssize_t pitch,
    const real *src,            # 2 x 2 pixels
    Py_ssize_t row,             # from one to the next row of them
    Py_ssize_t col,
) noexcept nogil:
    """A g A' of one vector of features."""
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real g[8 * LANES]
    cdef real zeros[LANES]
    cdef int i, j
    clear(zeros)
    for j in range(2):
        store(g + j * lanes, src + j * col)
        add(g + (2 + j) * lanes, src + j * col, src + row + j * col)
        subtract(g + (4 + j) * lanes, src + j * col, src + row + j * col)
        subtract(g + (6 + j) * lanes, zeros, src + row + j * col)
    for i in range(4):
        store(out + 4 * i * pitch, g + 2 * i * lanes)
        add(out + (4 * i + 1) * pitch, g + 2 * i * lanes, g + (2 * i + 1) * lanes)
        subtract(out + (4 * i + 2) * pitch, g + 2 * i * lanes, g + (2 * i + 1) * lanes)
        subtract(out + (4 * i + 3) * pitch, zeros, g + (2 * i + 1) * lanes)


cdef inline void transform_axis(real *out, Py_ssize_t out_pitch, const real *m,
                                Py_ssize_t pitch, Py_ssize_t n_taps) noexcept nogil:
    """G' m of four vectors: the first so many of three are of use."""
    cdef int i
    for i in range(3):
        fill(out + i * out_pitch, <real>0)
        madd(out + i * out_pitch, <real>0.5, m + pitch)
        madd(out + i * out_pitch, <real>(-0.5 if i == 1 else 0.5), m + 2 * pitch)
    add(out, out, m)
    if n_taps == 1:
        subtract(out, m, m + 3 * pitch)
    add(out + 2 * out_pitch, out + 2 * out_pitch, m + 3 * pitch)


cdef inline void transform_filter(real *out, const real *sums, Py_ssize_t taps_y,
                                  Py_ssize_t taps_x) noexcept nogil:
    """G' m G of one vector of features: (3, 3) of (4, 4)."""
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real t[12 * LANES]
    cdef int i
    for i in range(4):
        transform_axis(t + i * lanes, 4 * lanes, sums + i * lanes, 4 * lanes, taps_y)
    for i in range(3):
        transform_axis(out + 3 * i * lanes, lanes, t + 4 * i * lanes, lanes, taps_x)


cdef struct WinogradLayout:
    Py_ssize_t c_pitch, k_pitch         # from one tile to the next
    Py_ssize_t rows, cols               # of tiles, in an output plane
    Pieces pieces_y, pieces_x           # of the filters
    Py_ssize_t grid_cols                # tiles in a row of a transformed image ...
    Py_ssize_t img_cols                 # ... and pixels of it
    Py_ssize_t band                     # rows of tiles that are transformed at once
    Py_ssize_t img_e, grad_e            # from one element of the transformed tiles to the next
    Py_ssize_t grad_at, pixels_at       # where things lie in the buffer
    Py_ssize_t *pixel_at                # where each pixel of a padded band goes ...
    Py_ssize_t *grad_pixel_at           # ... and of its gradient


cdef void plan_transformed(FilterGradient *job, Py_ssize_t lanes,
                           Py_ssize_t itemsize) noexcept nogil:
    """Bands of rows and stacks of images: up to about 128 tiles, within the L2 cache."""
    cdef WinogradLayout *w = &job.winograd
    cdef Py_ssize_t tiles, most
    w.c_pitch = ceil_div(job.c_per_group, lanes) * lanes
    w.k_pitch = ceil_div(job.k_per_group, lanes) * lanes
    w.rows, w.cols = ceil_div(job.out_h, 2), ceil_div(job.out_w, 2)
    w.grid_cols = w.cols + w.pieces_x.n_shifts - 1
    most = clip(
        655360 // ((w.pieces_y.n_elements * w.pieces_x.n_elements * w.c_pitch
                    + 16 * w.k_pitch) * itemsize), 1, 128)
    w.band = ceil_div(w.rows, ceil_div(w.rows * w.cols, most))
    job.stack = clip(most // (w.rows * w.cols), 1, job.n_imgs)
    # Not a power of two: all elements of a tile would compete for one set of the L1 cache.
    tiles = job.stack * (w.band + w.pieces_y.n_shifts - 1) * w.grid_cols
    w.img_e = tiles * w.c_pitch + lanes
    w.grad_e = job.stack * w.band * w.cols * w.k_pitch + lanes
    w.grad_at = 16 * w.pieces_y.stride * w.pieces_x.stride * w.img_e
    w.pixels_at = w.grad_at + 16 * w.grad_e
    # A stride may leave the last column of the images unread.
    w.img_cols = max(2 * w.pieces_x.stride * (w.grid_cols + 1), job.left + job.w)
    job.buffer_size = w.pixels_at + lanes * w.img_cols * (
        2 * w.pieces_y.stride * (w.band + w.pieces_y.n_shifts))
    job.part_size = 16 * w.pieces_y.n * w.pieces_x.n * job.n_channels * w.k_pitch


cdef void plan_transformed_tables(FilterGradient *job, Workspace space, Py_ssize_t lanes) except *:
    cdef WinogradLayout *w = &job.winograd
    cdef Py_ssize_t size = 2 * w.pieces_y.stride * (w.band + w.pieces_y.n_shifts) * job.w, x
    cdef Py_ssize_t grad_size = 2 * w.band * job.out_w
    w.pixel_at = <Py_ssize_t *>space.take(size * sizeof(Py_ssize_t))
    w.grad_pixel_at = <Py_ssize_t *>space.take(grad_size * sizeof(Py_ssize_t))
    for x in range(size):
        w.pixel_at[x] = (x // job.w * w.img_cols + x % job.w + job.left) * lanes
    for x in range(grad_size):
        w.grad_pixel_at[x] = (x // job.out_w * 2 * w.cols + x % job.out_w) * lanes


cdef void winograd_unit(const FilterGradient *job, Py_ssize_t chunk, Py_ssize_t c_first,
                        Py_ssize_t c_end, const real *imgs, const real *grad, real *part,
                        real *buffer) noexcept nogil:
    """One chunk of images and channels [c_first, c_end): (pieces, 16, c, k_pitch) into `part`."""
    cdef const WinogradLayout *w = &job.winograd
    cdef Py_ssize_t e, i, stack, n, n_stacked, g, c0, c1, b, band
    cdef int elements
    cdef Py_ssize_t part_e = job.n_channels * w.k_pitch
    for i in range(w.pieces_y.n * w.pieces_x.n):
        elements = elements_of(axis_piece(&w.pieces_y, i // w.pieces_x.n),
                               axis_piece(&w.pieces_x, i % w.pieces_x.n))
        for e in range(16):
            if elements >> e & 1:
                clear_sums(job, part + (16 * i + e) * part_e + c_first * w.k_pitch,
                           (c_end - c_first) * w.k_pitch)
    for stack in range(first_stack(job, chunk), first_stack(job, chunk + 1)):
        n = stack * job.stack
        n_stacked = min(job.stack, job.n_imgs - n)
        for g in range(c_first // job.c_per_group, (c_end - 1) // job.c_per_group + 1):
            c0 = max(c_first, g * job.c_per_group)
            c1 = min(c_end, (g + 1) * job.c_per_group)
            for b in range(ceil_div(w.rows, w.band)):
                band = min(w.band, w.rows - b * w.band)
                winograd_band(job, part + c0 * w.k_pitch, part_e, imgs, grad, buffer, n,
                              n_stacked, g, c0, c1, b * w.band, band)


cdef void winograd_band(
    const FilterGradient *job, real *part, Py_ssize_t part_e, const real *imgs, const real *grad,
    real *buffer, Py_ssize_t n, Py_ssize_t n_stacked, Py_ssize_t g, Py_ssize_t c0, Py_ssize_t c1,
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
        walk.n_imgs, walk.rows, walk.cols = 1, 1, n_stacked * tiles
    else:
        walk.n_imgs, walk.rows, walk.cols = n_stacked, n_rows, w.cols
    walk.errors = job.errors
    fetch_next(job, &walk, imgs, grad, n + n_stacked, w.band == w.rows)
    walk.src_img, walk.src_row, walk.src_col = grid * w.c_pitch, w.grid_cols * w.c_pitch, w.c_pitch
    walk.grad_img, walk.grad_row, walk.grad_col = tiles * w.k_pitch, w.cols * w.k_pitch, w.k_pitch
    for i in range(w.pieces_y.n * w.pieces_x.n):
        y = axis_piece(&w.pieces_y, i // w.pieces_x.n)
        x = axis_piece(&w.pieces_x, i % w.pieces_x.n)
        elements = elements_of(y, x)
        for e in range(16):
            if elements >> e & 1:
                outer_gradient(
                    part + (16 * i + e) * part_e, w.k_pitch,
                    buffer + (16 * (y.phase * stride_x + x.phase) + e) * w.img_e
                    + (y.shift * w.grid_cols + x.shift) * w.c_pitch,
                    buffer + w.grad_at + e * w.grad_e, &walk, c1 - c0, w.k_pitch // lanes)


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
                transform_gradient(out + (ty * tile_cols + tx) * out_pitch + b * lanes, out_e,
                                   pixels + 2 * ty * row + 2 * tx * lanes, row, lanes)


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


cdef void combine_winograd(const FilterGradient *job, Py_ssize_t c, const real *part,
                           real *filters_grad) noexcept nogil:
    """The mean over the images of one channel's filters, the chunks in their order."""
    cdef const WinogradLayout *w = &job.winograd
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t taps = job.fil_h * job.fil_w, b, i
    cdef Piece y, x
    cdef int elements
    cdef real sums[16 * LANES]
    cdef real piece[9 * LANES]
    part += c * w.k_pitch
    filters_grad += taps * (c % job.c_per_group * job.n_features
                            + c // job.c_per_group * job.k_per_group)
    for i in range(w.pieces_y.n * w.pieces_x.n):
        y = axis_piece(&w.pieces_y, i // w.pieces_x.n)
        x = axis_piece(&w.pieces_x, i % w.pieces_x.n)
        elements = elements_of(y, x)
        for b in range(w.k_pitch // lanes):
            sum_chunks(job, sums, part + b * lanes, i, elements)
            transform_filter(piece, sums, y.n_taps, x.n_taps)
            write_piece(job, filters_grad + b * lanes * taps, piece, y, x,
                        min(lanes, job.k_per_group - b * lanes))


cdef inline void sum_chunks(const FilterGradient *job, real *sums, const real *part,
                            Py_ssize_t piece, int elements) noexcept nogil:
    """The elements of a piece; those that it does not have are 0."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t e, i
    part += 16 * piece * job.n_channels * job.winograd.k_pitch
    for e in range(16):
        clear(sums + e * lanes)
        for i in range(job.n_summed if elements >> e & 1 else 0):
            add(sums + e * lanes, sums + e * lanes,
                part + i * job.part_size + e * job.n_channels * job.winograd.k_pitch)


cdef inline void write_piece(
    const FilterGradient *job, real *filters_grad, const real *piece, Piece y, Piece x,
    Py_ssize_t n_features,
) noexcept nogil:
    """The taps of a piece, (3, 3, lanes), to their places in the filters."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t row = job.stride_y * job.fil_w, f, i, j
    cdef real *to
    for f in range(n_features):
        to = filters_grad + (f * job.fil_h + y.first) * job.fil_w + x.first
        for i in range(y.n_taps):
            for j in range(x.n_taps):
                to[i * row + j * job.stride_x] = piece[(3 * i + j) * lanes + f] / job.n_imgs
