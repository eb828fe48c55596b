# The filter gradient with features, or taps, in the lanes: outer tiles. Needs gradient_leaf.pxi.
#
# Images and output gradients are transposed: pixel by pixel, with the channels (features) of a
# pixel side by side, and the columns of the padding between them. What a row of taps reads of
# an image, (column, channel), lies side by side, whatever the stride:
#
#     row of an image, 2 channels      . . a A b B c C d D . .     stride 1: 3 taps of
#     output pixel 0                   [. . a A b B]               the next pixel are 2
#     output pixel 1                       [a A b B c C]           values further on
#
# Such a run (with dilation one of each tap) is one side of the outer product. Lanes hold
# features or, swapped, a run: whichever side wastes fewer. Rows of padding are skipped.

cdef enum:
    OUTER_BYTES = 393216    # of pixels that are transposed at once: they stay in the L2 cache
    OUTER_PIXELS = 256      # that make a tile worth its while

cdef struct OuterLayout:
    bint swapped
    Py_ssize_t run, n_runs              # values of a run; runs of a row of taps
    Py_ssize_t c_pitch, k_pitch         # from one pixel to the next
    Py_ssize_t pitch                    # pixels from one row to the next
    Py_ssize_t band                     # output rows that are transposed at once
    Py_ssize_t img, grad_img, grad_at   # from one image to the next; where the gradients lie
    Py_ssize_t n_rows, row              # of sums: their values, whole vectors, in a tile
    Py_ssize_t *pixel_at                # where each pixel of a band goes ...
    Py_ssize_t *grad_pixel_at           # ... and of its gradient


cdef inline Py_ssize_t outer_pitch(Py_ssize_t n_channels, Py_ssize_t lanes) noexcept nogil:
    """Few channels lie without gaps; more are filled up as `pixel_major` fills them up."""
    cdef Py_ssize_t block = lanes // 2 if lanes > 4 else lanes
    return n_channels if n_channels <= lanes else ceil_div(n_channels, block) * block


cdef double outer_cycles(const FilterGradient *job, Py_ssize_t lanes) noexcept nogil:
    return run_cycles(job, False, lanes)


cdef double swapped_cycles(const FilterGradient *job, Py_ssize_t lanes) noexcept nogil:
    return run_cycles(job, True, lanes)


cdef double run_cycles(const FilterGradient *job, bint swapped, Py_ssize_t lanes) noexcept nogil:
    """Turns of 8; 8 cycles transpose a vector, 3 half of one, 2 a quarter."""
    cdef double pixels = <double>(job.h * job.w) / (job.out_h * job.out_w)
    cdef Py_ssize_t c = outer_pitch(job.c_per_group, lanes), n = 1
    cdef Py_ssize_t run = c * job.fil_w, vectors = ceil_div(job.k_per_group, lanes)
    if job.dilation_x > 1:
        run, n = c, job.fil_w
    cdef double sums = run * used_vectors(job.k_per_group, lanes)
    if swapped:
        sums = job.k_per_group * used_vectors(run, lanes)
    return (job.fil_h * n * max(sums + 0.5, 8.5)
            + (3 if job.k_per_group <= 8 < lanes else 8 * vectors)
            + (2 if c <= 4 < lanes else 3 if c <= 8 < lanes else 6 * ceil_div(c, lanes)) * pixels)


cdef int outer_plan(FilterGradient *job, Workspace tables, Py_ssize_t itemsize) except -1:
    return run_plan(job, tables, itemsize, False)


cdef int swapped_plan(FilterGradient *job, Workspace tables, Py_ssize_t itemsize) except -1:
    return run_plan(job, tables, itemsize, True)


cdef int run_plan(FilterGradient *job, Workspace tables, Py_ssize_t itemsize,
                  bint swapped) except -1:
    """Bands of rows and stacks of images: about OUTER_PIXELS for a tile, within a cache."""
    cdef OuterLayout *o = &job.outer
    cdef Py_ssize_t lanes = VECTOR_BYTES // itemsize, size = job.out_h * job.out_w
    cdef Py_ssize_t extent = (job.fil_h - 1) * job.dilation_y + 1, rows, x
    cdef GradientSums sums = cut_leaves(size, job.out_h, 1536, 8192)
    o.swapped, o.c_pitch = swapped, outer_pitch(job.c_per_group, lanes)
    o.k_pitch = ceil_div(job.k_per_group, lanes) * lanes
    if swapped and job.k_per_group <= 8 < lanes:
        o.k_pitch = 8   # as pixel_major fills them up
    o.run, o.n_runs = job.fil_w * o.c_pitch, 1
    if job.dilation_x > 1:
        o.run, o.n_runs = o.c_pitch, job.fil_w
    o.pitch = max((job.out_w - 1) * job.stride_x + (job.fil_w - 1) * job.dilation_x + 1,
                  job.left + job.w)
    o.band = band_rows(&sums, job.out_h)
    while True:
        rows = min(job.h, (o.band - 1) * job.stride_y + extent)
        # A pixel is written, and a run read, in whole vectors.
        o.img = max(rows * o.pitch, lanes) * o.c_pitch + 2 * lanes
        o.grad_img = max(o.band * job.out_w, lanes) * o.k_pitch + lanes
        if o.band == 1 or (o.img + o.grad_img) * itemsize <= OUTER_BYTES:
            break
        o.band = ceil_div(o.band, 2)
    sums.stack = 1
    while (sums.stack * size < OUTER_PIXELS and sums.stack < sums.chunk
           and 2 * sums.stack * (o.img + o.grad_img) * itemsize <= OUTER_BYTES):
        sums.stack *= 2
    sums.n_zeros, o.grad_at = o.img, sums.stack * o.img
    sums.buffer_size = o.grad_at + sums.stack * o.grad_img
    if swapped:         # (i, k, j, c)
        o.n_rows, o.row = job.k_per_group, ceil_div(o.run, lanes) * lanes
        sums.feature, sums.channel, sums.col = o.row, 1, o.c_pitch
    else:               # (i, j, c, k)
        o.n_rows, o.row = o.run, o.k_pitch
        sums.feature, sums.channel, sums.col = 1, o.row, o.c_pitch * o.row
    if o.n_runs > 1:
        sums.col = o.n_rows * o.row
    sums.n_split, sums.split_size = job.groups * job.fil_h, o.n_runs * o.n_rows * o.row
    sums.row, sums.group = sums.split_size, job.fil_h * sums.split_size
    job.sums = sums
    o.pixel_at = <Py_ssize_t *>tables.take(rows * job.w * sizeof(Py_ssize_t))
    o.grad_pixel_at = <Py_ssize_t *>tables.take(o.band * job.out_w * sizeof(Py_ssize_t))
    for x in range(rows * job.w):
        o.pixel_at[x] = (x // job.w * o.pitch + x % job.w + job.left) * o.c_pitch
    for x in range(o.band * job.out_w):
        o.grad_pixel_at[x] = x * o.k_pitch
    return 0


cdef void pixel_major(real *dst, const Py_ssize_t *at, const real *planes, Py_ssize_t plane_pitch,
                      Py_ssize_t n_planes, Py_ssize_t size) noexcept nogil:
    """Transpose (n_planes, size): value x of each plane goes to `dst + at[x]`, side by side.

    They are filled up with zeros to 4, 8 or whole vectors.
    """
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t k, x, n
    if size < lanes:
        for x in range(size):
            for k in range(n_planes):
                dst[at[x] + k] = planes[k * plane_pitch + x]
            for k in range(n_planes, ceil_div(n_planes, lanes) * lanes):
                dst[at[x] + k] = 0
        return
    k = 0
    while k < n_planes:
        n = min(n_planes - k, lanes)
        if n <= 4 < lanes:
            pixel_rows(dst + k, at, planes + k * plane_pitch, plane_pitch, n, size, 4)
        elif n <= 8 < lanes:
            pixel_rows(dst + k, at, planes + k * plane_pitch, plane_pitch, n, size, 8)
        else:
            pixel_rows(dst + k, at, planes + k * plane_pitch, plane_pitch, n, size, <int>lanes)
        k += n


cdef inline void pixel_rows(real *dst, const Py_ssize_t *at, const real *planes,
                            Py_ssize_t plane_pitch, Py_ssize_t n_planes, Py_ssize_t size,
                            const int n_rows) noexcept nogil:
    """The same for n_rows planes, of which n_planes are there."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef real zeros[VECTOR_BYTES]
    cdef const real *rows[VECTOR_BYTES]
    cdef Py_ssize_t x = 0, i
    clear(zeros)
    while x < size:
        x = min(x, size - lanes)  # the last vectors are moved back to end with the planes
        for i in range(n_rows):
            rows[i] = planes + i * plane_pitch + x if i < n_planes else zeros
        transpose_rows(dst, at + x, rows, n_rows)
        x += lanes


cdef void outer_leaf(const FilterGradient *job, const GradientLeaf *leaf, const real *imgs,
                     const real *grad, real *node, real *buffer) noexcept nogil:
    """Rows [first, end) of taps, of all groups."""
    cdef Py_ssize_t size = job.sums.split_size, n = leaf.n, n_stacked, g, y
    memset(node + leaf.first * size, 0, (leaf.end - leaf.first) * size * sizeof(real))
    while n < leaf.n_end:
        n_stacked = next_stack(job, leaf.n_end - n)
        for g in range(leaf.first // job.fil_h, (leaf.end - 1) // job.fil_h + 1):
            y = leaf.y
            while y < leaf.y_end:
                outer_band(job, leaf, imgs, grad, node, buffer, n, n_stacked, g, y,
                           min(y + job.outer.band, leaf.y_end))
                y += job.outer.band
        n += n_stacked


cdef void outer_band(
    const FilterGradient *job, const GradientLeaf *leaf, const real *imgs, const real *grad,
    real *node, real *buffer, Py_ssize_t n, Py_ssize_t n_stacked, Py_ssize_t g, Py_ssize_t y0,
    Py_ssize_t y1,
) noexcept nogil:
    """Output rows [y0, y1) of one stack of images and one group."""
    cdef const OuterLayout *o = &job.outer
    cdef Py_ssize_t size = job.out_h * job.out_w
    cdef Py_ssize_t row0 = clip(y0 * job.stride_y - job.top, 0, job.h)
    cdef Py_ssize_t row1 = clip((y1 - 1) * job.stride_y + (job.fil_h - 1) * job.dilation_y + 1
                                - job.top, row0, job.h)
    cdef Py_ssize_t s, i, j, y, ya, yb
    cdef real *sums
    cdef const real *pixels
    cdef const real *values
    cdef Walk walk
    for s in range(n_stacked):
        pixel_major(buffer + s * o.img, o.pixel_at,
                    imgs + ((n + s) * job.n_channels + g * job.c_per_group) * job.h * job.w
                    + row0 * job.w, job.h * job.w, job.c_per_group, (row1 - row0) * job.w)
        pixel_major(buffer + o.grad_at + s * o.grad_img, o.grad_pixel_at,
                    grad + ((n + s) * job.n_features + g * job.k_per_group) * size
                    + y0 * job.out_w, size, job.k_per_group, (y1 - y0) * job.out_w)
    fetch_next(job, &walk, imgs, grad, n + n_stacked, leaf.n_imgs, o.band == job.out_h)
    for i in range(max(leaf.first - g * job.fil_h, 0), min(leaf.end - g * job.fil_h, job.fil_h)):
        y = i * job.dilation_y - job.top
        ya = clip(ceil_div(-y, job.stride_y), y0, y1)
        yb = clip(ceil_div(job.h - y, job.stride_y), ya, y1)
        sums = node + g * job.sums.group + i * job.sums.row
        values = buffer + o.grad_at + (ya - y0) * job.out_w * o.k_pitch
        for j in range(o.n_runs if ya < yb else 0):
            pixels = buffer + o.c_pitch * (
                (ya * job.stride_y + y - row0) * o.pitch + j * job.dilation_x)
            lay_walk(job, &walk, n_stacked, yb - ya)
            gradient_outer(sums + j * job.sums.col, o.row, values if o.swapped else pixels,
                           pixels if o.swapped else values, &walk, o.n_rows,
                           o.run if o.swapped else job.k_per_group)


cdef void lay_walk(const FilterGradient *job, Walk *walk, Py_ssize_t n_imgs,
                   Py_ssize_t rows) noexcept nogil:
    """Rows without gaps are one row."""
    cdef const OuterLayout *o = &job.outer
    cdef Py_ssize_t *img = walk.src
    cdef Py_ssize_t *grad = walk.grad
    if o.swapped:
        img, grad = grad, img
    img[0], img[1], img[2] = o.img, job.stride_y * o.pitch * o.c_pitch, job.stride_x * o.c_pitch
    grad[0], grad[1], grad[2] = o.grad_img, job.out_w * o.k_pitch, o.k_pitch
    walk.n[0], walk.n[1], walk.n[2] = n_imgs, rows, job.out_w
    if job.out_w * img[2] == img[1]:
        walk.n[1], walk.n[2] = 1, rows * job.out_w
