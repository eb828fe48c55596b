# The backward pass to the filters: a correlation of images with output gradients,
# summed over pixels and images.
#
# The images are cut into chunks, by the shape alone; each chunk sums into a part
# of its own, and the parts are added in their order. So the result has the same
# bits for every number of threads.

cdef enum:
    MAX_CHUNKS = 8


cdef struct FilterGradient:
    Packing packing
    Py_ssize_t n_imgs, n_channels, n_features, groups
    Py_ssize_t out_h, out_w
    Py_ssize_t taps_per_filter
    Py_ssize_t *tap_at                  # (channels of a group, taps_per_filter)
    bint outer                          # lanes hold features, else pixels
    Py_ssize_t rows, cols               # of the packed output gradient
    Py_ssize_t row_block                # rows that all tiles walk before the next ones
    Py_ssize_t grad_pitch               # between its features (dot form) or pixels (outer form)
    Py_ssize_t grad_row                 # between its rows (dot form)
    Py_ssize_t part_pitch               # between the taps of a partial sum
    Py_ssize_t n_stacks, n_chunks, parts


cdef void pack_grad(const FilterGradient *job, real *dst, const real *grad, Py_ssize_t group,
                    Py_ssize_t n_stacked) noexcept nogil:
    """One group's output gradient of one stack of images, as the tiles read it."""
    cdef Py_ssize_t per_group = job.n_features // job.groups
    cdef Py_ssize_t size = job.out_h * job.out_w
    cdef Py_ssize_t pitch = job.grad_pitch
    cdef Py_ssize_t b, s, k, y, x, pixel, start, end, absent
    cdef const real *source
    cdef real *row
    if job.outer:
        dst += group * size * pitch
        for b in range(ceil_div(size, 64)):  # a block of pixels whose lines stay in the L1 cache
            start, end = 64 * b, min(64 * b + 64, size)
            for k in range(per_group):
                source = grad + (group * per_group + k) * size
                for pixel in range(start, end):
                    dst[pixel * pitch + k] = source[pixel]
        return
    for k in range(group * per_group, (group + 1) * per_group):
        for s in range(n_stacked):
            source = grad + (s * job.n_features + k) * size
            row = dst + k * pitch + s * job.packing.image_pitch
            for y in range(job.out_h):
                for x in range(job.out_w):
                    row[y * job.grad_row + x] = source[y * job.out_w + x]
        if n_stacked < job.packing.stack:  # the place of images that are not there
            absent = n_stacked * job.packing.image_pitch
            memset(dst + k * pitch + absent, 0, (pitch - absent) * sizeof(real))


cdef void filters_gradient_unit(
    const FilterGradient *job, Py_ssize_t unit, const real *imgs, const real *grad,
    real *part, real *bias_part, real *buffer, real *grad_buffer,
) noexcept nogil:
    """One chunk of images and one part of the channels."""
    cdef const Packing *p = &job.packing
    cdef Py_ssize_t chunk = unit // job.parts
    cdef Py_ssize_t c_first = unit % job.parts * job.n_channels // job.parts
    cdef Py_ssize_t c_end = (unit % job.parts + 1) * job.n_channels // job.parts
    cdef Py_ssize_t c_per_group = job.n_channels // job.groups
    cdef Py_ssize_t k_per_group = job.n_features // job.groups
    cdef Py_ssize_t size = job.out_h * job.out_w
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t stack, stack_end, n0, n_stacked, s, c, k, g, c0, c1, b, k0, k1, y
    cdef Py_ssize_t width, n_blocks
    cdef const real *src
    part += chunk * job.n_channels * job.taps_per_filter * job.part_pitch
    memset(part + c_first * job.taps_per_filter * job.part_pitch, 0,
           (c_end - c_first) * job.taps_per_filter * job.part_pitch * sizeof(real))
    if bias_part != NULL and unit % job.parts == 0:
        bias_part += chunk * job.n_features
        memset(bias_part, 0, job.n_features * sizeof(real))
    # Columns of a tile: vectors of features (outer form) or single features (dot form).
    width = lanes if job.outer else 1
    n_blocks = ceil_div(ceil_div(k_per_group, width), 4)
    stack_end = (chunk + 1) * job.n_stacks // job.n_chunks
    for stack in range(chunk * job.n_stacks // job.n_chunks, stack_end):
        n0 = stack * p.stack
        n_stacked = min(p.stack, job.n_imgs - n0)
        src = buffer
        if p.in_place:
            src = imgs + n0 * job.n_channels * p.channel_pitch
        else:
            if n_stacked < p.stack:
                # Absent images have zero gradients, but infinities left from others would make
                # that NaN.
                memset(buffer + c_first * p.channel_pitch, 0,
                       (c_end - c_first) * p.channel_pitch * sizeof(real))
            pack_stack(buffer, imgs + n0 * job.n_channels * p.h * p.w, n_stacked, job.n_channels,
                       c_first, c_end, p)
        if bias_part != NULL and unit % job.parts == 0:
            for s in range(n_stacked):
                for k in range(job.n_features):
                    bias_part[k] += plane_sum(grad + ((n0 + s) * job.n_features + k) * size, size)
        for g in range(c_first // c_per_group, (c_end - 1) // c_per_group + 1):
            c0 = max(c_first, g * c_per_group)
            c1 = min(c_end, (g + 1) * c_per_group)
            pack_grad(job, grad_buffer, grad + n0 * job.n_features * size, g, n_stacked)
            y = 0
            while y < job.rows:
                for b in range(n_blocks):
                    k0 = b * ceil_div(k_per_group, width) // n_blocks
                    k1 = (b + 1) * ceil_div(k_per_group, width) // n_blocks
                    filter_gradient(
                        job.outer,
                        part + c0 * job.taps_per_filter * job.part_pitch + k0 * width,
                        job.part_pitch,
                        src + g * c_per_group * p.channel_pitch + y * p.pitch,
                        p.pitch,
                        job.tap_at + (c0 - g * c_per_group) * job.taps_per_filter,
                        (c1 - c0) * job.taps_per_filter,
                        grad_buffer + (
                            (g * size + y * job.cols) * job.grad_pitch + k0 * width if job.outer
                            else (g * k_per_group + k0) * job.grad_pitch
                        ),
                        job.grad_pitch, min(job.row_block, job.rows - y), job.cols, <int>(k1 - k0),
                    )
                y += job.row_block


cdef void combine_channel(const FilterGradient *job, Py_ssize_t c, const real *part,
                          real *filters_grad) noexcept nogil:
    """The mean over the images of one channel's filters, the chunks in their order."""
    cdef Py_ssize_t c_per_group = job.n_channels // job.groups
    cdef Py_ssize_t k_per_group = job.n_features // job.groups
    cdef Py_ssize_t chunk_size = job.n_channels * job.taps_per_filter * job.part_pitch
    cdef Py_ssize_t k, t, i
    cdef real total
    cdef const real *source
    filters_grad += job.taps_per_filter * (
        c % c_per_group * job.n_features + c // c_per_group * k_per_group
    )
    for t in range(job.taps_per_filter):
        source = part + (c * job.taps_per_filter + t) * job.part_pitch
        for k in range(k_per_group):
            total = 0
            for i in range(job.n_chunks):
                total += source[i * chunk_size + k]
            filters_grad[k * job.taps_per_filter + t] = total / job.n_imgs


cdef void plan_filters_gradient(FilterGradient *job, int n_threads, Py_ssize_t itemsize) except *:
    """Which form of tile, how many images at once, and units of work for the threads.

    Only the number of parts depends on the threads: it moves no sum.
    """
    cdef Packing *p = &job.packing
    cdef Py_ssize_t lanes = VECTOR_BYTES // itemsize
    cdef Py_ssize_t k_per_group = job.n_features // job.groups
    cdef Py_ssize_t n_taps = job.n_channels // job.groups * job.taps_per_filter
    cdef Py_ssize_t size = job.out_h * job.out_w
    cdef Py_ssize_t per_row = ceil_div(job.out_w, lanes), run
    cdef double dot_cycles, outer_cycles
    lay_out(p, job.out_h, job.out_w, 1, lanes)
    run = ceil_div((job.out_h - 1) * p.pitch + job.out_w, lanes)
    # Loads across cache lines make a vector of pixels dearer than one of features, and
    # in the end its lanes must be summed; the other form pays to transpose the gradient.
    dot_cycles = n_taps * k_per_group * (1.3 * min(run, job.out_h * per_row) + 12)
    outer_cycles = n_taps * ceil_div(k_per_group, lanes) * size + 1.2 * k_per_group * size
    job.outer = outer_cycles < dot_cycles
    if job.outer:
        job.rows, job.cols = job.out_h, job.out_w
        job.grad_pitch = job.part_pitch = ceil_div(k_per_group, lanes) * lanes
        # All tiles read the same rows of the output gradient: half of a 32 KB L1 cache.
        job.row_block = max(<Py_ssize_t>1, 16384 // (job.cols * job.grad_pitch * itemsize))
        if needs_no_packing(p, job.out_h, job.out_w, 1):
            read_in_place(p)
    else:
        job.part_pitch = k_per_group
        if job.out_h * per_row <= run:
            job.rows, job.cols = job.out_h, per_row * lanes
            job.grad_row = job.cols
            job.grad_pitch = job.rows * job.cols
        else:
            lay_out(p, job.out_h, job.out_w,
                    best_stack(p, job.out_h, job.out_w, lanes, job.n_imgs, job.n_channels,
                               k_per_group, itemsize),
                    lanes)
            run = (p.stack - 1) * p.image_pitch + (job.out_h - 1) * p.pitch + job.out_w
            job.rows, job.cols = 1, ceil_div(run, lanes) * lanes
            job.grad_row = p.pitch
            job.grad_pitch = job.cols
        job.row_block = job.rows
    job.n_stacks = ceil_div(job.n_imgs, p.stack)
    job.n_chunks = min(job.n_stacks, <Py_ssize_t>MAX_CHUNKS)
    job.parts = 1
    if n_threads > 1 and job.n_chunks < 2 * n_threads:
        job.parts = min(job.n_channels, ceil_div(2 * n_threads, job.n_chunks))


cdef void conv_filters_gradient(
    const real *imgs, const real *grad, real *filters_grad, real *bias_grad,
    tuple imgs_shape, tuple filters_shape, Py_ssize_t groups, object geometry, int border,
    int n_threads, Workspace space,
) except *:
    cdef FilterGradient job
    cdef Packing *p = &job.packing
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t c, k, i, unit, n_units, buffer_size, grad_size, thread_size
    cdef real total
    job.n_imgs, job.n_channels = imgs_shape[:2]
    job.n_features, job.groups = filters_shape[1], groups
    job.out_h, job.out_w = geometry.out_h, geometry.out_w
    job.taps_per_filter = filters_shape[2] * filters_shape[3]
    plan_packing(p, geometry, imgs_shape[2], imgs_shape[3], filters_shape[2], filters_shape[3],
                 border)
    plan_filters_gradient(&job, n_threads, sizeof(real))
    job.tap_at = <Py_ssize_t *>space.take(
        filters_shape[0] * job.taps_per_filter * sizeof(Py_ssize_t)
    )
    tap_offsets(job.tap_at, filters_shape[0], filters_shape[2], filters_shape[3], p)

    n_units = job.n_chunks * job.parts
    n_threads = <int>min(n_threads, n_units)
    buffer_size = 0 if p.in_place else job.n_channels * p.channel_pitch + 2 * lanes
    if job.outer:
        grad_size = job.groups * job.out_h * job.out_w * job.grad_pitch
    else:
        grad_size = job.n_features * job.grad_pitch
    buffer_size = ceil_div(buffer_size, 16) * 16
    thread_size = buffer_size + ceil_div(grad_size, 16) * 16
    cdef real *buffers = <real *>space.take(n_threads * thread_size * sizeof(real))
    cdef real *part = <real *>space.take(
        job.n_chunks * job.n_channels * job.taps_per_filter * job.part_pitch * sizeof(real))
    cdef real *bias_part = NULL
    if bias_grad != NULL:
        bias_part = <real *>space.take(job.n_chunks * job.n_features * sizeof(real))
    with nogil, parallel(num_threads=n_threads):
        memset(buffers + threadid() * thread_size, 0, thread_size * sizeof(real))
        for unit in prange(n_units, schedule="dynamic"):
            filters_gradient_unit(
                &job, unit, imgs, grad, part, bias_part, buffers + threadid() * thread_size,
                buffers + threadid() * thread_size + buffer_size,
            )
        for c in prange(job.n_channels, schedule="static"):
            combine_channel(&job, c, part, filters_grad)
    if bias_grad != NULL:
        for k in range(job.n_features):
            total = 0
            for i in range(job.n_chunks):
                total += bias_part[i * job.n_features + k]
            bias_grad[k] = total / job.n_imgs
