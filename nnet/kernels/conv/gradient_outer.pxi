# The filter gradient in outer form: lanes hold features, or taps.
#
# Images and output gradients are transposed: pixel by pixel, with the channels
# (features) of a pixel side by side. A tap needs no padding: it skips the output
# pixels whose image pixel would be outside.
#
# Few channels: in runs. The columns of the padding are there, and what a row of
# taps reads of an image, (column, channel), lies side by side, whatever the stride:
#
#     row of an image, 2 channels      . . a A b B c C d D . .     stride 1: 3 taps of
#     output pixel 0                   [. . a A b B]               the next pixel are 2
#     output pixel 1                       [a A b B c C]           values further on
#
# Such a run is one side of the outer product. Lanes hold whichever side wastes fewer.

cdef struct OuterLayout:
    bint in_runs                        # a row of taps at once, else one tap
    bint swapped                        # lanes hold a run, else features
    Py_ssize_t run                      # values of the image that meet a pixel's gradient
    Py_ssize_t c_pitch, k_pitch         # from one pixel to the next
    Py_ssize_t run_pitch                # in whole vectors
    Py_ssize_t band                     # output rows that are transposed at once
    Py_ssize_t img, grad_img            # from one image to the next
    Py_ssize_t grad_at, size            # where the gradients lie in the buffer; its size
    # The plane that taps read: the image itself, or padded by a border other than zeros
    bint padded
    Py_ssize_t h, w, top, left
    Py_ssize_t pitch                    # pixels from one row to the next, transposed
    Py_ssize_t row_size                 # sums of a row of taps of one group
    Py_ssize_t padded_at
    Py_ssize_t *pixel_at                # where each pixel of a band goes ...
    Py_ssize_t *grad_pixel_at           # ... and of its gradient


cdef void plan_outer(FilterGradient *job, Py_ssize_t lanes, Py_ssize_t itemsize) noexcept nogil:
    """Bands of rows and stacks of images: about 256 pixels for a tile, within a cache."""
    cdef OuterLayout *o = &job.outer
    cdef Py_ssize_t band_rows, reach
    o.k_pitch = ceil_div(job.k_per_group, lanes) * lanes
    if o.swapped and job.k_per_group <= 8 < lanes:
        o.k_pitch = 8   # as pixel_major fills them up
    o.padded = job.border != BORDER_ZEROS
    o.h, o.w, o.top, o.left = job.h, job.w, job.top, job.left
    if o.padded:
        o.h = (job.out_h - 1) * job.stride_y + (job.fil_h - 1) * job.dilation_y + 1
        o.w = (job.out_w - 1) * job.stride_x + (job.fil_w - 1) * job.dilation_x + 1
        o.top = o.left = 0
    o.run, o.pitch = job.c_per_group, o.w
    o.c_pitch = ceil_div(job.c_per_group, lanes) * lanes
    if o.in_runs:
        o.run, o.c_pitch = job.fil_w * job.c_per_group, job.c_per_group
        o.pitch = max((job.out_w - 1) * job.stride_x + job.fil_w, o.left + o.w)
    o.run_pitch = ceil_div(o.run, lanes) * lanes
    o.row_size = (job.k_per_group * o.run_pitch if o.swapped
                  else job.fil_w * job.c_per_group * o.k_pitch)
    reach = (job.fil_h - 1) * job.dilation_y + 1
    o.band = job.out_h
    while o.band > 1:
        band_rows = min(o.h, (o.band - 1) * job.stride_y + reach)
        if (band_rows * o.pitch * o.c_pitch + o.band * job.out_w * o.k_pitch) * itemsize <= 393216:
            break
        o.band = ceil_div(o.band, 2)
    band_rows = min(o.h, (o.band - 1) * job.stride_y + reach)
    # A pixel is written, and a run read, in whole vectors.
    o.img = max(band_rows * o.pitch, lanes) * o.c_pitch + 2 * lanes * o.in_runs
    o.grad_img = max(o.band * job.out_w, lanes) * o.k_pitch + lanes * o.in_runs
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
    cdef Py_ssize_t reach = (job.fil_h - 1) * job.dilation_y + 1
    cdef Py_ssize_t rows = min(o.h, (o.band - 1) * job.stride_y + reach)
    cdef Py_ssize_t size = rows * o.w, grad_size = o.band * job.out_w, x
    o.pixel_at = <Py_ssize_t *>space.take(size * sizeof(Py_ssize_t))
    o.grad_pixel_at = <Py_ssize_t *>space.take(grad_size * sizeof(Py_ssize_t))
    for x in range(size):
        o.pixel_at[x] = (x // o.w * o.pitch + x % o.w + o.left * o.in_runs) * o.c_pitch
    for x in range(grad_size):
        o.grad_pixel_at[x] = x * o.k_pitch


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


cdef void outer_unit(const FilterGradient *job, Py_ssize_t chunk, Py_ssize_t first,
                     Py_ssize_t end, const real *imgs, const real *grad, real *part,
                     real *buffer) noexcept nogil:
    """One chunk of images, channels [first, end) or, in runs, rows of taps, into `part`."""
    cdef const OuterLayout *o = &job.outer
    cdef Py_ssize_t per_group = job.fil_h if o.in_runs else job.c_per_group
    cdef Py_ssize_t stack, n, n_stacked, g, i0, i1, b, y, t
    cdef real *rows
    if o.in_runs:
        memset(buffer, 0, o.padded_at * sizeof(real))
        clear_sums(job, part + first * o.row_size, (end - first) * o.row_size)
    for stack in range(first_stack(job, chunk), first_stack(job, chunk + 1)):
        n = stack * job.stack
        n_stacked = min(job.stack, job.n_imgs - n)
        for g in range(first // per_group, (end - 1) // per_group + 1):
            i0 = max(first - g * per_group, 0)
            i1 = min(end - g * per_group, per_group)
            rows = part + g * job.fil_h * o.row_size
            if not o.in_runs and stack == first_stack(job, chunk):
                for t in range(job.fil_h * job.fil_w):
                    clear_sums(job, rows + (t * job.c_per_group + i0) * o.k_pitch,
                               (i1 - i0) * o.k_pitch)
            for b in range(ceil_div(job.out_h, o.band)):
                y = b * o.band
                outer_band(job, rows, imgs, grad, buffer, n, n_stacked, g, i0, i1, y,
                           min(y + o.band, job.out_h))


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
    Py_ssize_t n, Py_ssize_t n_stacked, Py_ssize_t g, Py_ssize_t i0, Py_ssize_t i1,
    Py_ssize_t y0, Py_ssize_t y1,
) noexcept nogil:
    """Output rows [y0, y1) of one stack of images, channels or rows [i0, i1) of one group."""
    cdef const OuterLayout *o = &job.outer
    cdef Py_ssize_t size = job.out_h * job.out_w
    cdef Py_ssize_t c0 = 0 if o.in_runs else i0, c1 = job.c_per_group if o.in_runs else i1
    cdef Py_ssize_t row0, row1, i, j, s, ya, yb, xa, xb, y, x
    cdef real *grads = buffer + o.grad_at
    cdef const real *pixels
    cdef const real *values
    cdef Walk walk
    row0 = clip(y0 * job.stride_y - o.top, 0, o.h)
    row1 = clip((y1 - 1) * job.stride_y + (job.fil_h - 1) * job.dilation_y + 1 - o.top, row0, o.h)
    for s in range(n_stacked):
        transpose_image(job, buffer + s * o.img, imgs, buffer + o.padded_at, n + s,
                        g * job.c_per_group + c0, c1 - c0, row0, row1)
        pixel_major(
            grads + s * o.grad_img, o.grad_pixel_at,
            grad + ((n + s) * job.n_features + g * job.k_per_group) * size + y0 * job.out_w, size,
            job.k_per_group, (y1 - y0) * job.out_w,
        )
    walk.errors = job.errors
    fetch_next(job, &walk, imgs, grad, n + n_stacked, o.band == job.out_h)
    for i in range(i0 if o.in_runs else 0, i1 if o.in_runs else job.fil_h):
        y = i * job.dilation_y - o.top
        ya = clip(ceil_div(-y, job.stride_y), y0, y1)
        yb = clip(ceil_div(o.h - y, job.stride_y), ya, y1)
        for j in range(1 if o.in_runs else job.fil_w):
            x, xa, xb = 0, 0, job.out_w
            if not o.in_runs:
                x = j * job.dilation_x - o.left
                xa = clip(ceil_div(-x, job.stride_x), 0, job.out_w)
                xb = clip(ceil_div(o.w - x, job.stride_x), xa, job.out_w)
            if ya < yb and xa < xb:
                lay_walk(job, &walk, n_stacked, yb - ya, xb - xa)
                pixels = buffer + o.c_pitch * (
                    (ya * job.stride_y + y - row0) * o.pitch + xa * job.stride_x + x)
                values = grads + ((ya - y0) * job.out_w + xa) * o.k_pitch
                outer_product(job, part + i * o.row_size
                              + (j * job.c_per_group + c0) * o.k_pitch,
                              pixels, values, &walk, o.run if o.in_runs else c1 - c0)


cdef void lay_walk(const FilterGradient *job, Walk *walk, Py_ssize_t n_imgs, Py_ssize_t rows,
                   Py_ssize_t cols) noexcept nogil:
    """Rows without gaps are one row, and so are images."""
    cdef const OuterLayout *o = &job.outer
    walk.src_col, walk.src_row = job.stride_x * o.c_pitch, job.stride_y * o.pitch * o.c_pitch
    walk.grad_col, walk.grad_row = o.k_pitch, job.out_w * o.k_pitch
    walk.src_img, walk.grad_img = o.img, o.grad_img
    walk.n_imgs, walk.rows, walk.cols = n_imgs, rows, cols
    if cols == job.out_w and cols * walk.src_col == walk.src_row:
        walk.rows, walk.cols = 1, rows * cols
        if walk.cols * walk.src_col == o.img and walk.cols * o.k_pitch == o.grad_img:
            walk.n_imgs, walk.cols = 1, n_imgs * walk.cols


cdef void outer_product(const FilterGradient *job, real *part, const real *pixels,
                        const real *values, Walk *walk, Py_ssize_t n) noexcept nogil:
    """n values of each pixel with all features of the group."""
    cdef const OuterLayout *o = &job.outer
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    if not o.swapped:
        outer_gradient(part, o.k_pitch, pixels, values, walk, n, o.k_pitch // lanes)
        return
    walk.src_img, walk.grad_img = walk.grad_img, walk.src_img
    walk.src_row, walk.grad_row = walk.grad_row, walk.src_row
    walk.src_col, walk.grad_col = walk.grad_col, walk.src_col
    outer_gradient(part, o.run_pitch, values, pixels, walk, job.k_per_group, o.run_pitch // lanes)


cdef void transpose_image(
    const FilterGradient *job, real *dst, const real *imgs, real *padded, Py_ssize_t n,
    Py_ssize_t c0, Py_ssize_t n_channels, Py_ssize_t row0, Py_ssize_t row1,
) noexcept nogil:
    """Rows [row0, row1) of n_channels channels of image n, from c0 on."""
    cdef const OuterLayout *o = &job.outer
    cdef const real *planes = imgs + (n * job.n_channels + c0) * job.h * job.w
    cdef Py_ssize_t plane = job.h * job.w, c, rows = row1 - row0
    if o.padded:
        plane = o.h * o.w
        for c in range(n_channels):
            copy_rows(padded + c * plane, rows, o.w, planes + c * job.h * job.w, job.h,
                      job.w, row0 - job.top, 1, -job.left, 1, job.border)
        planes, row0 = padded, 0
    pixel_major(dst, o.pixel_at, planes + row0 * o.w, plane, n_channels, rows * o.w)


cdef void combine_features(const FilterGradient *job, Py_ssize_t i, const real *part,
                           real *filters_grad) noexcept nogil:
    """The mean over the images of one vector of features, the chunks in their order."""
    cdef const OuterLayout *o = &job.outer
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real), taps = job.fil_h * job.fil_w
    cdef Py_ssize_t g = i // (o.k_pitch // lanes), k = i % (o.k_pitch // lanes) * lanes, c, t, l
    cdef real sums[LANES]
    part += g * job.fil_h * o.row_size + k
    filters_grad += (g * job.k_per_group + k) * taps
    for t in range(taps):
        for c in range(job.c_per_group):
            clear(sums)
            for i in range(job.n_summed):
                add(sums, sums, part + i * job.part_size)
            for l in range(min(lanes, job.k_per_group - k)):
                filters_grad[(c * job.n_features + l) * taps + t] = sums[l] / job.n_imgs
            part += o.k_pitch


cdef void combine_runs(const FilterGradient *job, Py_ssize_t k, const real *part,
                       real *filters_grad) noexcept nogil:
    """The same for one feature, with runs in the lanes."""
    cdef const OuterLayout *o = &job.outer
    cdef Py_ssize_t c, i, t
    cdef real total
    cdef const real *source
    part += (k // job.k_per_group * job.fil_h * o.row_size
             + k % job.k_per_group * o.run_pitch)
    filters_grad += k * job.fil_h * job.fil_w
    for t in range(job.fil_h * job.fil_w):
        source = part + t // job.fil_w * o.row_size + t % job.fil_w * job.c_per_group
        for c in range(job.c_per_group):
            total = 0
            for i in range(job.n_summed):
                total += source[i * job.part_size + c]
            filters_grad[c * job.n_features * job.fil_h * job.fil_w + t] = total / job.n_imgs
