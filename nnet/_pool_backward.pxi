# The backward passes. Each output's gradient goes to its maximum, or in equal parts to
# the pixels of its window.

from libc.stdint cimport INT32_MAX, int64_t


# --- to the maxima ---------------------------------------------------------------

ctypedef fused place:             # of a pixel in its plane
    int32_t
    int64_t


cdef bint find_places(
    const cnp.npy_intp *switches, # (n, 2)  IN
    place *places,                # (n,)    OUT
    Py_ssize_t n, Py_ssize_t img_h, Py_ssize_t img_w,
) noexcept nogil:
    """Turn rows and columns into places, and tell whether any is outside the image."""
    cdef size_t outside = 0, y, x
    cdef Py_ssize_t i
    for i in range(n):
        y, x = <size_t>switches[2 * i], <size_t>switches[2 * i + 1]
        # the sign bit of one of these is set
        outside |= y | x | (<size_t>(img_h - 1) - y) | (<size_t>(img_w - 1) - x)
        places[i] = <place>y * <place>img_w + <place>x
    return <Py_ssize_t>outside < 0


cdef void scatter_planes(
    const real *poolout_grad,     # (n_planes, out_size)  IN
    const place *places,          # (n_planes, out_size)  IN
    real *imgs_grad,              # (n_planes, img_size)  OUT
    Py_ssize_t first, Py_ssize_t last, Py_ssize_t out_size, Py_ssize_t img_size,
) noexcept nogil:
    cdef Py_ssize_t i, o, a, b, c, d
    cdef const place *at
    cdef const real *grad
    cdef real *img
    for i in range(first, last):
        img, grad, at = imgs_grad + i * img_size, poolout_grad + i * out_size, places + i * out_size
        memset(img, 0, img_size * sizeof(real))
        for o in range(out_size // 4):    # four places are known before the first sum waits
            a, b, c, d = at[0], at[1], at[2], at[3]
            img[a] += grad[0]
            img[b] += grad[1]
            img[c] += grad[2]
            img[d] += grad[3]
            at, grad = at + 4, grad + 4
        for o in range(out_size % 4):
            img[at[o]] += grad[o]


cdef bint scatter(
    const real *poolout_grad,     # (n_planes, out_size)      IN
    const cnp.npy_intp *switches, # (n_planes, out_size, 2)   IN
    real *imgs_grad,              # (n_planes, img_h, img_w)  OUT
    place *places,                # (n_planes, out_size)      scratch
    Py_ssize_t n_planes, Py_ssize_t out_size, Py_ssize_t img_h, Py_ssize_t img_w, int n_threads,
) noexcept:
    """Gradients to maxima, unless any is outside the images: then True, and nothing is written."""
    cdef Py_ssize_t t, first, last
    cdef int outside = 0
    for t in prange(n_threads, num_threads=n_threads, schedule="static", nogil=True):
        first, last = t * n_planes // n_threads, (t + 1) * n_planes // n_threads
        outside |= find_places(switches + 2 * first * out_size, places + first * out_size,
                               (last - first) * out_size, img_h, img_w)
    if outside:
        return True
    for t in prange(n_threads, num_threads=n_threads, schedule="static", nogil=True):
        first, last = t * n_planes // n_threads, (t + 1) * n_planes // n_threads
        scatter_planes(poolout_grad, places, imgs_grad, first, last, out_size, img_h * img_w)
    return False


cdef bint run_scatter(
    const real *poolout_grad,     # (n_imgs, n_channels, out_h, out_w)     IN
    cnp.ndarray switches,         # (n_imgs, n_channels, out_h, out_w, 2)  IN
    real *imgs_grad,              # (n_imgs, n_channels, img_h, img_w)     OUT
    tuple img_shape, int n_threads,
) except -1:
    """As `scatter`, with the smallest type for the places."""
    cdef Py_ssize_t n_imgs, n_channels, img_h, img_w
    n_imgs, n_channels, img_h, img_w = img_shape
    cdef Py_ssize_t out_size = cnp.PyArray_DIM(switches, 2) * cnp.PyArray_DIM(switches, 3)
    cdef bint small = img_h * img_w <= INT32_MAX
    cdef cnp.ndarray places = np.empty(
        n_imgs * n_channels * out_size, np.int32 if small else np.int64
    )
    cdef const cnp.npy_intp *switches_data = <const cnp.npy_intp *>cnp.PyArray_DATA(switches)
    if small:
        return scatter[real, int32_t](
            poolout_grad, switches_data, imgs_grad, <int32_t *>cnp.PyArray_DATA(places),
            n_imgs * n_channels, out_size, img_h, img_w, n_threads,
        )
    return scatter[real, int64_t](
        poolout_grad, switches_data, imgs_grad, <int64_t *>cnp.PyArray_DATA(places),
        n_imgs * n_channels, out_size, img_h, img_w, n_threads,
    )


# --- to whole windows ---------------------------------------------------------------

cdef struct Spread:           # how the gradients of a plane are spread along rows
    Py_ssize_t stride         # 1 or 2: LANES pixels of a stride phase at once; 0: by windows
    Py_ssize_t taps           # outputs that reach one pixel
    Py_ssize_t cells          # of a row of each phase
    Py_ssize_t pitch          # of a row of pixels
    # Room in a thread's buffer, in units of the gradients' type
    Py_ssize_t parts, phases, pixels, divisors, total


cdef Spread plan_spread(const Pooling *job) noexcept nogil:
    cdef const Axis *width = &job.width
    cdef Spread plan
    plan.stride, plan.taps, plan.cells, plan.pitch = 0, 0, 0, width.size
    if width.stride <= 2 and width.out > 4 and width.pool <= width.size:
        plan.stride = width.stride
        plan.taps = (width.pool + width.stride - 1) // width.stride
        plan.cells = plan.taps - 1 + max(
            width.out, (width.size - 1 - width.start) // width.stride + 1
        )
        plan.pitch = plan.stride * plan.cells
    plan.parts = round_up(job.height.out * plan.cells + plan.taps + LANES)
    plan.phases = round_up(job.height.out * plan.cells) + LANES
    plan.pixels = round_up(job.height.out * plan.pitch + LANES)
    plan.divisors = round_up(width.out)
    # last the offsets of taps and rows, and for each row of pixels the outputs that reach it
    plan.total = (
        plan.parts + plan.stride * plan.phases + plan.pixels + plan.divisors
        + 2 * round_up(plan.taps + job.height.out + 2 * job.height.size)
    )
    return plan


cdef inline void spread_windows(
    const real *poolout_grad,     # (out_h, out_w)  IN
    const real *divisors,         # (out_w,)        IN
    real *pixels,                 # (out_h, img_w)  OUT
    const Pooling *job,
) noexcept nogil:
    """Along rows, window by window: for large strides, and for few outputs."""
    cdef Py_ssize_t y, x, i, start
    cdef real part, rows
    memset(pixels, 0, job.height.out * job.width.size * sizeof(real))
    for y in range(job.height.out):
        rows = <real>divisor(&job.height, y, job.include_pad)
        for x in range(job.width.out):
            part = poolout_grad[y * job.width.out + x] / (rows * divisors[x])
            start = job.width.start + x * job.width.stride
            for i in range(max(start, 0), min(start + job.width.pool, job.width.size)):
                pixels[y * job.width.size + i] += part


cdef inline void spread_lanes(
    const real *poolout_grad,     # (out_h, out_w)          IN
    const real *divisors,         # (out_w,)                IN
    real *parts,                  # (out_h, cells)          scratch, zero between the rows
    real *phases,                 # (stride, out_h, cells)  scratch
    real *pixels,                 # (out_h, pitch)          OUT
    const Py_ssize_t *offsets,    # (taps,)                 IN
    const Pooling *job, const Spread *plan,
) noexcept nogil:
    """Along rows, LANES pixels at once: each is a sum of few outputs."""
    cdef Py_ssize_t y, i, phase, out_w = job.width.out, n = job.height.out * plan.cells
    cdef real rows
    cdef real *row
    cdef real *odd = phases + plan.phases
    for y in range(job.height.out):
        rows = <real>divisor(&job.height, y, job.include_pad)
        row = parts + y * plan.cells + plan.taps - 1
        for i in range(out_w):
            row[i] = poolout_grad[y * out_w + i] / (rows * divisors[i])
    for phase in range(plan.stride):
        for i in range(round_up(n) // LANES):
            sum_taps(
                parts + i * LANES, offsets,
                (job.width.pool - phase + plan.stride - 1) // plan.stride,
                (pixels if plan.stride == 1 else phases + phase * plan.phases) + i * LANES,
            )
    if plan.stride == 2:
        for i in range(n):
            pixels[2 * i] = phases[i]
            pixels[2 * i + 1] = odd[i]


cdef inline void sum_rows(
    const real *rows,             # (..., n)     IN
    const Py_ssize_t *offsets,    # (n_rows,)    IN
    Py_ssize_t n_rows,
    real *img,                    # (img_size,)  OUT
    Py_ssize_t start, Py_ssize_t n, Py_ssize_t img_size,
) noexcept nogil:
    """Write n pixels of an image. What spills over is overwritten by the rows that follow."""
    cdef real tail[LANES]
    cdef Py_ssize_t i = 0
    while i < n:
        if start + i + LANES <= img_size:
            sum_taps(rows + i, offsets, n_rows, img + start + i)
        else:
            sum_taps(rows + i, offsets, n_rows, tail)
            memcpy(img + start + i, tail, (n - i) * sizeof(real))
        i += LANES


cdef inline Py_ssize_t repeat_row(
    real *img, Py_ssize_t n, Py_ssize_t y, Py_ssize_t img_h,
    const Py_ssize_t *top, const Py_ssize_t *n_rows,
) noexcept nogil:
    """Copy row y to those that follow and see the same outputs. Returns the first that does not."""
    cdef Py_ssize_t done = 1, todo = 1
    while y + todo < img_h and top[y + todo] == top[y] and n_rows[y + todo] == n_rows[y]:
        todo += 1
    while done < todo:
        memcpy(img + (y + done) * n, img + y * n, min(done, todo - done) * n * sizeof(real))
        done *= 2
    return y + todo


cdef void spread_planes(
    const real *poolout_grad,     # (n_planes, out_h, out_w)  IN
    real *imgs_grad,              # (n_planes, img_h, img_w)  OUT
    Py_ssize_t first, Py_ssize_t last, const Pooling *job, const Spread *plan,
    real *buffer,                 # (plan.total,)
) noexcept nogil:
    """First along rows, then along columns."""
    cdef const Axis *height = &job.height
    cdef Py_ssize_t img_w = job.width.size, img_size = height.size * img_w
    cdef Py_ssize_t out_size = height.out * job.width.out
    cdef real *phases = buffer + plan.parts
    cdef real *pixels = phases + plan.stride * plan.phases
    cdef real *divisors = pixels + plan.pixels
    cdef Py_ssize_t *offsets = <Py_ssize_t *>(divisors + plan.divisors)
    cdef Py_ssize_t *row_offsets = offsets + plan.taps
    cdef Py_ssize_t *top = row_offsets + height.out
    cdef Py_ssize_t *n_rows = top + height.size
    cdef Py_ssize_t i, y
    cdef real *img
    memset(buffer, 0, plan.total * sizeof(real))
    for i in range(job.width.out):
        divisors[i] = <real>divisor(&job.width, i, job.include_pad)
    for i in range(plan.taps):
        offsets[i] = plan.taps - 1 - i
    for y in range(height.out):
        row_offsets[y] = y * plan.pitch - (job.width.start if plan.stride else 0)
    for y in range(height.size):
        top[y] = max(0, (y - height.start - height.pool + height.stride) // height.stride)
        n_rows[y] = max(0, min(height.out, (y - height.start) // height.stride + 1) - top[y])
    for i in range(first, last):
        if plan.stride:
            spread_lanes(poolout_grad + i * out_size, divisors, buffer, phases, pixels, offsets,
                         job, plan)
        else:
            spread_windows(poolout_grad + i * out_size, divisors, pixels, job)
        img = imgs_grad + i * img_size
        y = 0
        while y < height.size:
            sum_rows(pixels, row_offsets + top[y], n_rows[y], img, y * img_w, img_w, img_size)
            y = repeat_row(img, img_w, y, height.size, top, n_rows)


cdef void spread_2x2_planes(
    const real *poolout_grad,     # (n_planes, out_h, out_w)  IN
    real *imgs_grad,              # (n_planes, img_h, img_w)  OUT
    Py_ssize_t first, Py_ssize_t last, const Pooling *job,
) noexcept nogil:
    """The commonest windows: 2x2, side by side."""
    cdef Py_ssize_t img_w = job.width.size, out_w = job.width.out
    cdef Py_ssize_t i, x, y, n, done = 2 * job.height.out * img_w
    cdef real part
    cdef real *img
    cdef real *row
    cdef const real *grad
    for i in range(first, last):
        img = imgs_grad + i * job.height.size * img_w
        for y in range(job.height.out):
            row, grad = img + 2 * y * img_w, poolout_grad + (i * job.height.out + y) * out_w
            n = whole_vectors(out_w, out_w, (job.height.out - y) * out_w)    # see pool_2x2_planes
            for x in range(n):
                part = grad[x] / 4
                row[2 * x] = part
                row[2 * x + 1] = part
            memset(row + 2 * out_w, 0, (img_w - 2 * out_w) * sizeof(real))
            memcpy(row + img_w, row, img_w * sizeof(real))
        memset(img + done, 0, (job.height.size * img_w - done) * sizeof(real))


cdef void run_spread(
    const real *poolout_grad,     # (n_planes, out_h, out_w)  IN
    real *imgs_grad,              # (n_planes, img_h, img_w)  OUT
    Py_ssize_t n_planes, Pooling job, int n_threads,
) except *:
    cdef bint twos = are_twos(&job.height) and are_twos(&job.width)
    cdef Spread plan = plan_spread(&job)
    cdef cnp.ndarray memory = real_array(0 if twos else n_threads * plan.total, imgs_grad)
    cdef real *buffers = <real *>aligned(memory)
    cdef Py_ssize_t t, first, last
    for t in prange(n_threads, num_threads=n_threads, schedule="static", nogil=True):
        first, last = t * n_planes // n_threads, (t + 1) * n_planes // n_threads
        if twos:
            spread_2x2_planes(poolout_grad, imgs_grad, first, last, &job)
        else:
            spread_planes(poolout_grad, imgs_grad, first, last, &job, &plan,
                          buffers + t * plan.total)
