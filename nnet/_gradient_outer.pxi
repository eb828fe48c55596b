# The filter gradient in outer form: lanes hold features.
#
# Images and output gradients are transposed: pixel by pixel, with the channels
# (features) of a pixel side by side. A tap needs no padding: it skips the output
# pixels whose image pixel would be outside.

cdef struct OuterLayout:
    Py_ssize_t c_pitch, k_pitch         # from one pixel to the next
    Py_ssize_t band                     # output rows that are transposed at once
    Py_ssize_t img, grad_img            # from one image to the next
    Py_ssize_t grad_at, size            # where the gradients lie in the buffer; its size
    # The plane that taps read: the image itself, or padded by a border other than zeros
    bint padded
    Py_ssize_t h, w, top, left
    Py_ssize_t padded_at
    Py_ssize_t *pixel_at                # where each pixel of a band goes ...
    Py_ssize_t *grad_pixel_at           # ... and of its gradient


cdef void plan_outer(FilterGradient *job, Py_ssize_t lanes, Py_ssize_t itemsize) noexcept nogil:
    """Bands of rows and stacks of images: about 256 pixels for a tile, within a cache."""
    cdef OuterLayout *o = &job.outer
    cdef Py_ssize_t band_rows, reach
    o.c_pitch = ceil_div(job.c_per_group, lanes) * lanes
    o.k_pitch = ceil_div(job.k_per_group, lanes) * lanes
    o.padded = job.border != BORDER_ZEROS
    o.h, o.w, o.top, o.left = job.h, job.w, job.top, job.left
    if o.padded:
        o.h = (job.out_h - 1) * job.stride_y + (job.fil_h - 1) * job.dilation_y + 1
        o.w = (job.out_w - 1) * job.stride_x + (job.fil_w - 1) * job.dilation_x + 1
        o.top = o.left = 0
    reach = (job.fil_h - 1) * job.dilation_y + 1
    o.band = job.out_h
    while o.band > 1:
        band_rows = min(o.h, (o.band - 1) * job.stride_y + reach)
        if (band_rows * o.w * o.c_pitch + o.band * job.out_w * o.k_pitch) * itemsize <= 393216:
            break
        o.band = ceil_div(o.band, 2)
    band_rows = min(o.h, (o.band - 1) * job.stride_y + reach)
    o.img = max(band_rows * o.w, lanes) * o.c_pitch
    o.grad_img = max(o.band * job.out_w, lanes) * o.k_pitch
    job.stack = 1
    while (job.stack * job.out_h * job.out_w < 256 and 2 * job.stack <= job.n_imgs
           and 2 * job.stack * (o.img + o.grad_img) * itemsize <= 393216):
        job.stack *= 2
    o.grad_at = job.stack * o.img
    o.padded_at = o.size = o.grad_at + job.stack * o.grad_img
    if o.padded:
        o.size += job.c_per_group * (o.h * o.w + 2 * lanes)


cdef void plan_outer_tables(FilterGradient *job, Workspace space) except *:
    cdef OuterLayout *o = &job.outer
    cdef Py_ssize_t size = o.img // o.c_pitch, grad_size = o.grad_img // o.k_pitch, x
    o.pixel_at = <Py_ssize_t *>space.take(size * sizeof(Py_ssize_t))
    o.grad_pixel_at = <Py_ssize_t *>space.take(grad_size * sizeof(Py_ssize_t))
    for x in range(size):
        o.pixel_at[x] = x * o.c_pitch
    for x in range(grad_size):
        o.grad_pixel_at[x] = x * o.k_pitch


cdef void pixel_major(real *dst, const Py_ssize_t *at, const real *planes, Py_ssize_t plane_pitch,
                      Py_ssize_t n_planes, Py_ssize_t size) noexcept nogil:
    """Transpose (n_planes, size): value x of each plane goes to `dst + at[x]`, side by side.

    They are filled up with zeros to whole vectors.
    """
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef real zeros[VECTOR_BYTES]
    cdef const real *rows[VECTOR_BYTES]
    cdef Py_ssize_t b, k, i, x
    if size < lanes:
        for x in range(size):
            for k in range(n_planes):
                dst[at[x] + k] = planes[k * plane_pitch + x]
            for k in range(n_planes, ceil_div(n_planes, lanes) * lanes):
                dst[at[x] + k] = 0
        return
    clear(zeros)
    for b in range(ceil_div(n_planes, lanes)):
        k = b * lanes
        x = 0
        while x < size:
            x = min(x, size - lanes)  # the last vectors are moved back to end with the planes
            for i in range(lanes):
                rows[i] = planes + (k + i) * plane_pitch + x if k + i < n_planes else zeros
            transpose_rows(dst + k, at + x, rows)
            x += lanes


cdef void outer_unit(const FilterGradient *job, Py_ssize_t chunk, Py_ssize_t c_first,
                     Py_ssize_t c_end, const real *imgs, const real *grad, real *part,
                     real *buffer) noexcept nogil:
    """One chunk of images and channels [c_first, c_end): (c, i, j, k_pitch) into `part`."""
    cdef const OuterLayout *o = &job.outer
    cdef Py_ssize_t taps = job.fil_h * job.fil_w
    cdef Py_ssize_t stack, n, n_stacked, g, c0, c1, b, y
    memset(part + c_first * taps * o.k_pitch, 0,
           (c_end - c_first) * taps * o.k_pitch * sizeof(real))
    for stack in range(first_stack(job, chunk), first_stack(job, chunk + 1)):
        n = stack * job.stack
        n_stacked = min(job.stack, job.n_imgs - n)
        for g in range(c_first // job.c_per_group, (c_end - 1) // job.c_per_group + 1):
            c0 = max(c_first, g * job.c_per_group)
            c1 = min(c_end, (g + 1) * job.c_per_group)
            for b in range(ceil_div(job.out_h, o.band)):
                y = b * o.band
                outer_band(job, part + c0 * taps * o.k_pitch, imgs, grad, buffer, n, n_stacked,
                           g, c0, c1, y, min(y + o.band, job.out_h))


cdef void fetch_next(const FilterGradient *job, Walk *walk, const real *imgs, const real *grad,
                     Py_ssize_t n, bint whole) noexcept nogil:
    """Tiles fetch the stack of images from n on, if `whole` images are worked on at once.

    The next band of rows would lie in pieces, a plane each.
    """
    cdef Py_ssize_t s = min(job.stack, job.n_imgs - n) if whole else 0
    cdef Py_ssize_t size = job.n_channels * job.h * job.w
    cdef Py_ssize_t grad_size = job.n_features * job.out_h * job.out_w
    walk.next_imgs = <const char *>(imgs + n * size)
    walk.next_imgs_end = walk.next_imgs + s * size * sizeof(real)
    walk.next_grad = <const char *>(grad + n * grad_size)
    walk.next_grad_end = walk.next_grad + s * grad_size * sizeof(real)


cdef void outer_band(
    const FilterGradient *job, real *part, const real *imgs, const real *grad, real *buffer,
    Py_ssize_t n, Py_ssize_t n_stacked, Py_ssize_t g, Py_ssize_t c0, Py_ssize_t c1,
    Py_ssize_t y0, Py_ssize_t y1,
) noexcept nogil:
    """Output rows [y0, y1) of one stack of images, one group's channels [c0, c1)."""
    cdef const OuterLayout *o = &job.outer
    cdef Py_ssize_t size = job.out_h * job.out_w
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t row0, row1, i, j, s, ya, yb, xa, xb, y, x
    cdef real *grads = buffer + o.grad_at
    cdef Walk walk
    row0 = clip(y0 * job.stride_y - o.top, 0, o.h)
    row1 = clip((y1 - 1) * job.stride_y + (job.fil_h - 1) * job.dilation_y + 1 - o.top, row0, o.h)
    for s in range(n_stacked):
        transpose_image(job, buffer + s * o.img, imgs, buffer + o.padded_at, n + s, c0, c1,
                        row0, row1)
        pixel_major(
            grads + s * o.grad_img, o.grad_pixel_at,
            grad + ((n + s) * job.n_features + g * job.k_per_group) * size + y0 * job.out_w, size,
            job.k_per_group, (y1 - y0) * job.out_w,
        )
    walk.src_col, walk.src_row = job.stride_x * o.c_pitch, job.stride_y * o.w * o.c_pitch
    walk.grad_col, walk.grad_row = o.k_pitch, job.out_w * o.k_pitch
    walk.src_img, walk.grad_img = o.img, o.grad_img
    fetch_next(job, &walk, imgs, grad, n + n_stacked, o.band == job.out_h)
    for i in range(job.fil_h):
        y = i * job.dilation_y - o.top
        ya = clip(ceil_div(-y, job.stride_y), y0, y1)
        yb = clip(ceil_div(o.h - y, job.stride_y), ya, y1)
        for j in range(job.fil_w):
            x = j * job.dilation_x - o.left
            xa = clip(ceil_div(-x, job.stride_x), 0, job.out_w)
            xb = clip(ceil_div(o.w - x, job.stride_x), xa, job.out_w)
            walk.n_imgs, walk.rows, walk.cols = n_stacked, yb - ya, xb - xa
            if walk.cols == job.out_w and job.out_w * walk.src_col == walk.src_row:
                walk.rows, walk.cols = 1, walk.rows * walk.cols
                if walk.cols * walk.src_col == o.img and walk.cols * o.k_pitch == o.grad_img:
                    walk.n_imgs, walk.cols = 1, n_stacked * walk.cols
            if ya < yb and xa < xb:
                outer_gradient(
                    part + (i * job.fil_w + j) * o.k_pitch, job.fil_h * job.fil_w * o.k_pitch,
                    buffer + ((ya * job.stride_y + y - row0) * o.w + xa * job.stride_x + x)
                    * o.c_pitch,
                    grads + ((ya - y0) * job.out_w + xa) * o.k_pitch, &walk, c1 - c0,
                    o.k_pitch // lanes,
                )


cdef void transpose_image(
    const FilterGradient *job, real *dst, const real *imgs, real *padded, Py_ssize_t n,
    Py_ssize_t c0, Py_ssize_t c1, Py_ssize_t row0, Py_ssize_t row1,
) noexcept nogil:
    """Rows [row0, row1) of channels [c0, c1) of image n."""
    cdef const OuterLayout *o = &job.outer
    cdef const real *planes = imgs + (n * job.n_channels + c0) * job.h * job.w
    cdef Py_ssize_t plane = job.h * job.w, c, rows = row1 - row0
    if o.padded:
        plane = o.h * o.w
        for c in range(c1 - c0):
            copy_rows(padded + c * plane, rows, o.w, planes + c * job.h * job.w, job.h,
                      job.w, row0 - job.top, 1, -job.left, 1, job.border)
        planes, row0 = padded, 0
    pixel_major(dst, o.pixel_at, planes + row0 * o.w, plane, c1 - c0, rows * o.w)
