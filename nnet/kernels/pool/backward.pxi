# The backward passes of windows without code of their own.
#
# Averages, a block of image rows at a time: every pixel sums up the parts of the outputs
# that it reaches.
#
# 1. the outputs that reach the block are copied to a buffer, divided, with padding around;
# 2. for each row of pixels, the rows of outputs that reach it are summed;
# 3. pixels sum up along that row: even and odd ones apart for stride 2, window by window
#    for wider strides.
#
# Maxima: gradients are scattered into an image of zeros. (In pool/window3.pxi pixels look for
# the gradients that are theirs.)

cdef enum:
    NO_PLACE = 255            # of the padding around switches

ctypedef fused summed:        # what gradients of one type add up in
    float
    double

cdef struct Reach:            # outputs that reach pixels, and the buffer for them
    bint by_windows           # along rows, not by vectors
    Py_ssize_t phases         # 2 for stride 2
    Py_ssize_t lead           # cells of padding before a row's first output
    Py_ssize_t cells          # of a row of outputs, with padding
    Py_ssize_t block          # image rows of a block
    Py_ssize_t room           # of each part of a thread's buffer, in reals
    Py_ssize_t total


cdef Reach plan_backward(const Pooling *job, Py_ssize_t size) noexcept nogil:
    """`size` is that of a real."""
    cdef const Axis *width = &job.width
    cdef const Axis *height = &job.height
    cdef Reach plan
    cdef Py_ssize_t rows
    plan.by_windows = width.stride > 2 or width.out <= 2 or width.pool > width.size
    if plan.by_windows:
        plan.phases, plan.lead, plan.cells = 1, 0, width.out
    else:
        plan.phases = width.stride
        plan.lead = (width.pool - 1) // plan.phases
        plan.cells = plan.lead + max(
            width.out, (width.size - 1 - width.start) // plan.phases + 1
        )
    rows = BLOCK_BYTES // (2 * size * plan.cells)
    plan.block = max(rows, 2 * min(height.pool, height.size))
    plan.block = (height.size - 1) // ((height.size - 1) // plan.block + 1) + 1    # all alike
    rows = max(min(height.out, (plan.block + height.pool) // height.stride + 1), plan.block)
    plan.room = round_up(rows * plan.cells + plan.lead) + 2 * LANES
    plan.total = 2 * plan.room + round_up(width.out)
    return plan


cdef inline Py_ssize_t first_output(const Axis *axis, Py_ssize_t pixel) noexcept nogil:
    """The first output that reaches a pixel, along one axis."""
    return max(0, (pixel - axis.start - axis.pool + axis.stride) // axis.stride)


cdef inline Py_ssize_t end_output(const Axis *axis, Py_ssize_t pixel) noexcept nogil:
    """The one after its last."""
    return min(axis.out, (pixel - axis.start) // axis.stride + 1)


cdef inline void write_pixels(
    real *img, const real *even, const real *odd, Py_ssize_t phases, Py_ssize_t room, bint edge,
) noexcept nogil:
    """One vector of pixels, or two from two phases."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef real pair[2 * LANES]
    if phases == 1:
        put(img, even, room, edge)
    elif not edge or room >= 2 * lanes:
        interleave(img, even, odd)
    else:
        interleave(pair, even, odd)
        memcpy(img, pair, room * sizeof(real))


# --- maxima ---------------------------------------------------------------------------

cdef inline void read_outputs(
    const real *poolout_grad,     # (out_w,)   IN
    const uint8_t *places,        # (out_w,)   IN
    Py_ssize_t n_out,             # that may be read
    real *grads, uint8_t *where,  # (cells,)   OUT
    const Pooling *job, const Reach *plan, bint edge,
) noexcept nogil:
    """The padding on the left is there already."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t x = 0, out_w = job.width.out
    grads += plan.lead
    where += plan.lead
    while x < out_w:
        if not edge or x + lanes <= n_out:
            copy(grads + x, poolout_grad + x)
            memcpy(where + x, places + x, lanes)
        else:
            memcpy(grads + x, poolout_grad + x, (n_out - x) * sizeof(real))
            memcpy(where + x, places + x, n_out - x)
        x = next_vector(x, out_w, lanes)
    if out_w < lanes:             # elsewhere nothing has spilled over
        memset(where + out_w, NO_PLACE, plan.cells + lanes - out_w)


cdef bint are_shared(const Pooling *job) noexcept nogil:
    """Whether a pixel may get more gradients than add up well in their own type."""
    return windows_of_pixel(&job.height) * windows_of_pixel(&job.width) > MAX_RUN


cdef inline Py_ssize_t windows_of_pixel(const Axis *axis) noexcept nogil:
    return min(axis.out, (axis.pool - 1) // axis.stride + 1)


cdef inline void scatter_places(
    const real *poolout_grad,     # (out_h, out_w)  IN
    const uint8_t *places,        # (out_h, out_w)  IN
    const Py_ssize_t *offsets,    # (256,)          IN  of each place in a window
    summed *img,                  # (img_h, img_w)  OUT
    const Pooling *job,
) noexcept nogil:
    cdef const Axis *width = &job.width
    cdef Py_ssize_t x, y, start, o
    memset(img, 0, job.height.size * width.size * sizeof(summed))
    for y in range(job.height.out):
        start = (job.height.start + y * job.height.stride) * width.size + width.start
        for x in range(width.out):
            o = y * width.out + x
            img[start + x * width.stride + offsets[places[o]]] += poolout_grad[o]


cdef inline void scatter_pairs(
    const real *poolout_grad,     # (out_size,)     IN
    const cnp.npy_intp *pairs,    # (out_size, 2)   IN
    summed *img,                  # (img_h, img_w)  OUT
    Py_ssize_t out_size, Py_ssize_t img_h, Py_ssize_t img_w,
) noexcept nogil:
    cdef Py_ssize_t i
    memset(img, 0, img_h * img_w * sizeof(summed))
    for i in range(out_size):
        img[pairs[2 * i] * img_w + pairs[2 * i + 1]] += poolout_grad[i]


cdef inline void scatter_plane(
    const real *poolout_grad, const Switches *switches, Py_ssize_t i, const Py_ssize_t *offsets,
    summed *img, const Pooling *job,
) noexcept nogil:
    """Plane i."""
    cdef Py_ssize_t size = job.height.out * job.width.out
    if switches.pairs != NULL:
        scatter_pairs(poolout_grad + i * size, switches.pairs + 2 * i * size, img, size,
                      job.height.size, job.width.size)
    else:
        scatter_places(poolout_grad + i * size, switches.places + i * size, offsets, img, job)


cdef void scatter_planes(
    const real *poolout_grad,     # (n_planes, out_h, out_w)  IN
    const Switches *switches,     # IN
    real *imgs_grad,              # (n_planes, img_h, img_w)  OUT
    double *sums,                 # (img_h, img_w)            for sums in double, or NULL
    Py_ssize_t first, Py_ssize_t last, const Pooling *job,
) noexcept nogil:
    cdef Py_ssize_t img_w = job.width.size, img_size = job.height.size * img_w, i, x
    cdef Py_ssize_t offsets[256]
    for i in range(256):
        offsets[i] = i // job.width.pool * img_w + i % job.width.pool
    for i in range(first, last):
        if sums == NULL:
            scatter_plane(poolout_grad, switches, i, offsets, imgs_grad + i * img_size, job)
            continue
        scatter_plane(poolout_grad, switches, i, offsets, sums, job)
        for x in range(img_size):
            imgs_grad[i * img_size + x] = <real>sums[x]


# --- averages ------------------------------------------------------------------------------

cdef inline void read_parts(
    const real *poolout_grad,     # (out_w,)   IN
    const real *counts,           # (out_w,)   IN   of columns in a window
    real rows,                    # in a window
    Py_ssize_t n_out,             # that may be read
    real *parts,                  # (cells,)   OUT
    const Pooling *job, const Reach *plan, bint edge,
) noexcept nogil:
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t x = 0
    cdef real spare[LANES]
    cdef real part[LANES]
    cdef real divisors[LANES]
    parts += plan.lead
    while x < job.width.out:
        copy(part, readable(poolout_grad + x, lanes, poolout_grad + n_out, spare, edge))
        fill(divisors, rows)
        multiply(divisors, counts + x)
        divide(part, divisors)
        copy(parts + x, part)
        x = next_vector(x, job.width.out, lanes)
    if job.width.out < lanes:     # elsewhere nothing has spilled over
        fill_run(parts + job.width.out, <real>0, plan.cells - job.width.out)


cdef inline void sum_rows(const real *parts, Py_ssize_t n_rows, real *sums,
                          Py_ssize_t cells, bint in_runs) noexcept nogil:
    cdef Py_ssize_t x = 0, i
    cdef real total[LANES]
    while x < cells:
        if in_runs:
            sum_vectors(total, parts + x, cells, n_rows, <const real *>NULL, False)
        else:
            fill(total, <real>0)
            for i in range(n_rows):
                add(total, parts + i * cells + x)
        copy(sums + x, total)
        x += VECTOR_BYTES // sizeof(real)


cdef inline void sum_back(real *total, const real *last, Py_ssize_t n) noexcept nogil:
    """The n vectors of which each begins a cell before the one before it."""
    cdef Py_ssize_t t
    fill(total, <real>0)
    if n > MAX_RUN:
        sum_vectors(total, last, -1, n, <const real *>NULL, False)
        return
    for t in range(n):
        add(total, last - t)


cdef inline void sum_along_row(
    const real *sums,             # (cells,)  IN
    real *img,                    # (img_w,)  OUT
    Py_ssize_t room, const Pooling *job, const Reach *plan, bint edge,
) noexcept nogil:
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t lead = -job.width.start, x = 0, at
    cdef Py_ssize_t phases = plan.phases, pool_w = job.width.pool
    cdef Py_ssize_t even = lead & (phases - 1), odd = even ^ 1    # their phases
    cdef Py_ssize_t n = job.width.size + (job.width.size & (phases - 1))
    cdef real low[LANES]
    cdef real high[LANES]
    fill(high, <real>0)       # unused for one phase
    while x < n:
        at = plan.lead + ((lead + x) >> (phases - 1))
        sum_back(low, sums + at, (pool_w - even + phases - 1) >> (phases - 1))
        if phases == 2:
            at = plan.lead + ((lead + x + 1) >> 1)
            sum_back(high, sums + at, (pool_w - odd + 1) >> 1)
        write_pixels(img + x, low, high, phases, room - x, edge)
        x = next_vector(x, n, phases * lanes)


cdef inline void spread_windows(const real *sums, real *img, const Axis *width) noexcept nogil:
    cdef Py_ssize_t x, i
    if width.pool > MAX_RUN * width.stride:     # a pixel is in many windows
        for i in range(width.size):
            x = first_output(width, i)
            img[i] = sum_cells(sums + x, end_output(width, i) - x)
        return
    memset(img, 0, width.size * sizeof(real))
    for x in range(width.out):
        for i in range(first_pixel(width, x), end_pixel(width, x)):
            img[i] += sums[x]


cdef inline void spread_plane(
    const real *poolout_grad, Py_ssize_t n_out, real *img, Py_ssize_t room,
    const Pooling *job, const Reach *plan, real *buffer, bint edge,
) noexcept nogil:
    cdef const Axis *height = &job.height
    cdef Py_ssize_t img_w = job.width.size, out_w = job.width.out
    cdef real *sums = buffer + plan.room
    cdef real *counts = sums + plan.room
    cdef Py_ssize_t first = 0, done, y, o, top
    while first < height.size:
        done = min(first + plan.block, height.size)
        top = first_output(height, first)
        for o in range(top, end_output(height, done - 1)):
            read_parts(poolout_grad + o * out_w, counts, <real>divisor(height, o, job.include_pad),
                       n_out - o * out_w, buffer + (o - top) * plan.cells, job, plan, edge)
        for y in range(first, done):
            o = first_output(height, y)
            if end_output(height, y) - o > MAX_RUN:
                sum_rows(buffer + (o - top) * plan.cells, end_output(height, y) - o,
                         sums + (y - first) * plan.cells, plan.cells, True)
            else:
                sum_rows(buffer + (o - top) * plan.cells, end_output(height, y) - o,
                         sums + (y - first) * plan.cells, plan.cells, False)
        for y in range(first, done):
            if plan.by_windows:
                spread_windows(sums + (y - first) * plan.cells, img + y * img_w, &job.width)
            else:
                sum_along_row(sums + (y - first) * plan.cells, img + y * img_w, room - y * img_w,
                              job, plan, edge)
        first = done


# --- planes -------------------------------------------------------------------------

cdef void reach_planes(
    const real *poolout_grad,     # (n_planes, out_h, out_w)  IN
    const uint8_t *places,        # (n_planes, out_h, out_w)  IN, NULL for averages
    real *imgs_grad,              # (n_planes, img_h, img_w)  OUT
    Py_ssize_t first, Py_ssize_t last, Py_ssize_t n_planes, Pooling job_, Reach plan_,
    real *buffer,
) noexcept nogil:
    """Planes first to last."""
    cdef const Pooling *job = &job_     # copies: see pool_planes
    cdef const Reach *plan = &plan_
    cdef Py_ssize_t img_size = job.height.size * job.width.size
    cdef Py_ssize_t out_size = job.height.out * job.width.out, i
    cdef real *counts = buffer + 2 * plan.room
    if places != NULL:            # padding is no place, and its gradient is 0
        memset(buffer, NO_PLACE, plan.total * sizeof(real))
    else:
        fill_run(buffer, <real>0, plan.total - LANES)
    for i in range(job.width.out):
        counts[i] = <real>divisor(&job.width, i, job.include_pad)
    for i in range(first, last):
        reach_plane(poolout_grad + i * out_size,
                    places + i * out_size if places != NULL else NULL, (n_planes - i) * out_size,
                    imgs_grad + i * img_size, (last - i) * img_size, job, plan, buffer,
                    i == 0 or is_edge(i, last, job))


cdef inline void reach_plane(
    const real *grads, const uint8_t *places, Py_ssize_t n_out, real *img, Py_ssize_t room,
    const Pooling *job, const Reach *plan, real *buffer, bint edge,
) noexcept nogil:
    cdef Py_ssize_t even = job.width.start & (plan.phases - 1)    # the phase of the first pixel
    if not are_threes(job):
        spread_plane(grads, n_out, img, room, job, plan, buffer, edge)
    elif edge:
        reach_3x3_plane(grads, places, n_out, img, room, job, plan, buffer, plan.phases, even,
                        True)
    elif plan.phases == 1:    # constants are worth code of its own
        reach_3x3_plane(grads, places, n_out, img, room, job, plan, buffer, 1, 0, False)
    elif even == 1:
        reach_3x3_plane(grads, places, n_out, img, room, job, plan, buffer, 2, 1, False)
    else:
        reach_3x3_plane(grads, places, n_out, img, room, job, plan, buffer, 2, 0, False)
