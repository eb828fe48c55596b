# The two commonest poolings, forward and backward: windows of 2x2 pixels side by side,
# and one window of the whole image.

# --- 2x2 ----------------------------------------------------------------------------

cdef inline void max_2x2(
    const real *top,              # (2 * lanes,)  IN
    const real *bottom,           # (2 * lanes,)  IN
    real *best, real *place,      # (lanes,)      OUT
) noexcept nogil:
    cdef real even[LANES]
    cdef real odd[LANES]
    cdef real its_place[LANES]
    fill_places(place, 0)
    deinterleave(best, odd, top)
    fill_places(its_place, 1)
    take_place(best, place, odd, its_place, True)
    deinterleave(even, odd, bottom)
    fill_places(its_place, 2)
    take_place(best, place, even, its_place, True)
    fill_places(its_place, 3)
    take_place(best, place, odd, its_place, True)


cdef inline void mean_2x2(const real *top, const real *bottom, real *total) noexcept nogil:
    cdef real odd[LANES]
    cdef real even[LANES]
    deinterleave(total, odd, top)
    add(total, odd)
    deinterleave(even, odd, bottom)
    add(total, even)
    add(total, odd)
    fill(even, <real>0.25)
    multiply(total, even)


cdef inline void pool_2x2_plane(
    const real *img,              # (img_h, img_w)  IN
    const real *end, real *poolout, const Switches *switches, Py_ssize_t at, Py_ssize_t room,
    const Pooling *job, bint is_max, bint placed, bint edge,
) noexcept nogil:
    """`placed`: the places of the maxima are wanted."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t img_w = job.width.size, out_w = job.width.out, y, x, i
    cdef real best[LANES]
    cdef real place[LANES]
    cdef real steps[LANES]        # the columns of a vector's windows
    cdef real lefts[LANES]
    cdef real spare[2 * LANES]
    cdef real spare_below[2 * LANES]
    cdef const real *top
    cdef const real *bottom
    for i in range(LANES if placed else 0):
        set_int(steps + i % lanes, 2 * (i % lanes))
    for y in range(job.height.out):
        x = 0
        while x < out_w:
            top = img + 2 * y * img_w + 2 * x
            bottom = readable(top + img_w, 2 * lanes, end, spare_below, edge)
            top = readable(top, 2 * lanes, end, spare, edge)
            if not is_max:
                mean_2x2(top, bottom, best)
            else:
                max_2x2(top, bottom, best, place)
            if placed:
                fill_int(lefts, 2 * x)
                add_int(lefts, steps)
                put_places(switches, at + x, place, 2, 2 * y, lefts, room - x, edge)
            put(poolout + at + x, best, room - x, edge)
            x = next_vector(x, out_w, lanes)
        at, room = at + out_w, room - out_w


cdef void pool_2x2_planes(
    const real *imgs,             # (n_planes, img_h, img_w)  IN
    real *poolout,                # (n_planes, out_h, out_w)  OUT
    const Switches *switches,     # OUT, or NULL
    Py_ssize_t first, Py_ssize_t last, Py_ssize_t n_planes, Pooling job_, bint is_max,
) noexcept nogil:
    cdef const Pooling *job = &job_     # a copy: see pool_planes
    cdef Py_ssize_t img_size = job.height.size * job.width.size, i, at, room
    cdef Py_ssize_t out_size = job.height.out * job.width.out
    cdef const real *end = imgs + n_planes * img_size
    for i in range(first, last):
        at, room = i * out_size, (last - i) * out_size
        if job.width.out < LANES and is_edge(i, last, job):
            pool_2x2_plane(imgs + i * img_size, end, poolout, switches, at, room, job,
                           is_max, switches != NULL, True)
        elif switches != NULL:
            pool_2x2_plane(imgs + i * img_size, end, poolout, switches, at, room, job,
                           True, True, False)
        elif is_max:
            pool_2x2_plane(imgs + i * img_size, end, poolout, switches, at, room, job,
                           True, False, False)
        else:
            pool_2x2_plane(imgs + i * img_size, end, poolout, switches, at, room, job,
                           False, False, False)


cdef inline void unpool_2x2(
    const real *grad,             # (lanes,)      IN
    const uint8_t *places,        # (lanes,)      IN, not for averages
    real *top,                    # (2 * lanes,)  OUT
    real *bottom,                 # (2 * lanes,)  OUT
    bint is_max,
) noexcept nogil:
    cdef real even[LANES]
    cdef real odd[LANES]
    cdef real where[LANES]
    if is_max:
        load_places(where, places)
        keep_if(even, where, 0, grad)
        keep_if(odd, where, 1, grad)
        interleave(top, even, odd)
        keep_if(even, where, 2, grad)
        keep_if(odd, where, 3, grad)
        interleave(bottom, even, odd)
    else:
        copy(even, grad)
        fill(odd, <real>0.25)
        multiply(even, odd)
        interleave(top, even, even)
        interleave(bottom, even, even)


cdef inline void unpool_2x2_plane(
    const real *grads,            # (out_h, out_w)  IN
    const uint8_t *places,        # (out_h, out_w)  IN, not for averages
    real *img,                    # (img_h, img_w)  OUT
    const Pooling *job, bint is_max, bint edge,
) noexcept nogil:
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t img_w = job.width.size, out_w = job.width.out, y, x, n
    cdef real grad[LANES]
    cdef uint8_t spare_places[LANES]
    cdef real top[2 * LANES]
    cdef real bottom[2 * LANES]
    for y in range(job.height.out):
        if edge and out_w < lanes:
            memcpy(grad, grads, out_w * sizeof(real))
            if is_max:
                memcpy(spare_places, places, out_w)
            unpool_2x2(grad, spare_places, top, bottom, is_max)
            memcpy(img, top, 2 * out_w * sizeof(real))
            memcpy(img + img_w, bottom, 2 * out_w * sizeof(real))
        else:
            x = 0
            while x < out_w:
                unpool_2x2(grads + x, places + x, img + 2 * x, img + img_w + 2 * x, is_max)
                x = next_vector(x, out_w, lanes)
        if img_w > 2 * out_w:
            fill_pixels(img + 2 * out_w, <real>0, img_w - 2 * out_w)
            fill_pixels(img + img_w + 2 * out_w, <real>0, img_w - 2 * out_w)
        grads, places, img = grads + out_w, places + out_w, img + 2 * img_w
    fill_pixels(img, <real>0, (job.height.size - 2 * job.height.out) * img_w)


cdef void unpool_2x2_planes(
    const real *poolout_grad,     # (n_planes, out_h, out_w)  IN
    const uint8_t *places,        # (n_planes, out_h, out_w)  IN, NULL for averages
    real *imgs_grad,              # (n_planes, img_h, img_w)  OUT
    Py_ssize_t first, Py_ssize_t last, Pooling job_,
) noexcept nogil:
    """Every gradient to its maximum, or in equal parts to the pixels of its window."""
    cdef const Pooling *job = &job_     # a copy: see pool_planes
    cdef Py_ssize_t img_size = job.height.size * job.width.size, i
    cdef Py_ssize_t out_size = job.height.out * job.width.out
    cdef const real *grads
    cdef real *img
    for i in range(first, last):
        grads, img = poolout_grad + i * out_size, imgs_grad + i * img_size
        if is_edge(i, last, job):
            unpool_2x2_plane(grads, places + i * out_size, img, job, places != NULL, True)
        elif places != NULL:
            unpool_2x2_plane(grads, places + i * out_size, img, job, True, False)
        else:
            unpool_2x2_plane(grads, places, img, job, False, False)


# --- the whole image ----------------------------------------------------------------

cdef enum:
    MAX_BYTES = 4 * MAX_RUN * VECTOR_BYTES    # of a plane whose sums of vectors are short


cdef inline real sum_run(const real *pixels, Py_ssize_t n) noexcept nogil:
    """Four sums of vectors, then the rest."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t i = 0, k
    cdef real a[LANES]
    cdef real b[LANES]
    cdef real c[LANES]
    cdef real d[LANES]
    cdef real total = 0
    fill(a, <real>0)
    fill(b, <real>0)
    fill(c, <real>0)
    fill(d, <real>0)
    while i + 4 * lanes <= n:
        add(a, pixels + i)
        add(b, pixels + i + lanes)
        add(c, pixels + i + 2 * lanes)
        add(d, pixels + i + 3 * lanes)
        i += 4 * lanes
    while i + lanes <= n:
        add(a, pixels + i)
        i += lanes
    add(a, b)
    add(c, d)
    add(a, c)
    total = lane_sum(a)
    for k in range(i, n):
        total += pixels[k]
    return total


cdef inline real max_run(const real *pixels, Py_ssize_t n) noexcept nogil:
    """NaN if there is any; perhaps also for infinities of both signs."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t i = 0, k
    cdef real best, total
    cdef real a[LANES]            # maxima
    cdef real b[LANES]
    cdef real c[LANES]
    cdef real d[LANES]
    cdef real s[LANES]            # sums: NaN if there is any
    cdef real t[LANES]
    cdef real u[LANES]
    cdef real v[LANES]
    fill(a, pixels[0])
    fill(b, pixels[0])
    fill(c, pixels[0])
    fill(d, pixels[0])
    fill(s, <real>0)
    fill(t, <real>0)
    fill(u, <real>0)
    fill(v, <real>0)
    while i + 4 * lanes <= n:
        maximum(a, pixels + i)
        maximum(b, pixels + i + lanes)
        maximum(c, pixels + i + 2 * lanes)
        maximum(d, pixels + i + 3 * lanes)
        add(s, pixels + i)
        add(t, pixels + i + lanes)
        add(u, pixels + i + 2 * lanes)
        add(v, pixels + i + 3 * lanes)
        i += 4 * lanes
    while i + lanes <= n:
        maximum(a, pixels + i)
        add(s, pixels + i)
        i += lanes
    maximum(a, b)
    maximum(c, d)
    maximum(a, c)
    add(s, t)
    add(u, v)
    add(s, u)
    best, total = lane_max(a), lane_sum(s)
    for k in range(i, n):
        best = pixels[k] if pixels[k] > best else best
        total += pixels[k]
    return best if total == total else total


cdef inline Py_ssize_t find_max(const real *pixels, Py_ssize_t n) noexcept nogil:
    """The first maximum, or the last NaN."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t i = 0, k
    cdef real best = max_run(pixels, n)
    if best != best:
        i, best = 0, pixels[0]
        for k in range(1, n):
            if (pixels[k] > best) | (pixels[k] != pixels[k]):
                i, best = k, pixels[k]
        return i
    while i + 2 * lanes <= n and not any_equal(pixels + i, pixels + i + lanes, best):
        i += 2 * lanes
    while pixels[i] != best:
        i += 1
    return i


cdef void average_large_planes(
    const real *imgs, real *poolout, Py_ssize_t first, Py_ssize_t last, Py_ssize_t n, real count,
) noexcept nogil:
    """Blocks of n pixels add up in double."""
    cdef Py_ssize_t block = MAX_BYTES // sizeof(real), i, k
    cdef double total
    for i in range(first, last):
        total, k = 0, 0
        while k < n:
            total += sum_run(imgs + i * n + k, min(n - k, block))
            k += block
        poolout[i] = <real>total / count


cdef void pool_whole_planes(
    const real *imgs,             # (n_planes, img_h, img_w)  IN
    real *poolout,                # (n_planes,)               OUT
    const Switches *switches,     # OUT, or NULL
    Py_ssize_t first, Py_ssize_t last, const Pooling *job, bint is_max,
) noexcept nogil:
    cdef Py_ssize_t img_w = job.width.size, n = job.height.size * img_w
    cdef real count = (
        <real>divisor(&job.height, 0, job.include_pad)
        * <real>divisor(&job.width, 0, job.include_pad)
    )
    cdef Py_ssize_t i, at, row, col
    if not is_max and n * <Py_ssize_t>sizeof(real) > MAX_BYTES:
        average_large_planes(imgs, poolout, first, last, n, count)
        return
    for i in range(first, last):
        if not is_max:
            poolout[i] = sum_run(imgs + i * n, n) / count
            continue
        if switches == NULL:
            poolout[i] = max_run(imgs + i * n, n)
            if poolout[i] < 0 or poolout[i] > 0:    # else NaN and zeros of either sign: the first
                continue
        at = find_max(imgs + i * n, n)
        poolout[i] = imgs[i * n + at]
        if switches == NULL:
            continue
        row, col = at // img_w, at % img_w
        if switches.pairs != NULL:
            switches.pairs[2 * i], switches.pairs[2 * i + 1] = row, col
        else:
            switches.places[i] = <uint8_t>(
                (row - job.height.start) * job.width.pool + col - job.width.start
            )


cdef void spread_whole_planes(
    const real *poolout_grad,     # (n_planes,)               IN
    real *imgs_grad,              # (n_planes, img_h, img_w)  OUT
    Py_ssize_t first, Py_ssize_t last, const Pooling *job,
) noexcept nogil:
    cdef Py_ssize_t n = job.height.size * job.width.size, i
    cdef real count = (
        <real>divisor(&job.height, 0, job.include_pad)
        * <real>divisor(&job.width, 0, job.include_pad)
    )
    for i in range(first, last):
        fill_pixels(imgs_grad + i * n, poolout_grad[i] / count, n)
