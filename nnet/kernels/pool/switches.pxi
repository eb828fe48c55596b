# Where the maxima are, checked before anything is written: rows and columns in the image
# (pairs), or places in the window. Pairs become places on the way, which are a sixteenth of
# the memory to read again.

cdef void set_columns(float *cols, Py_ssize_t n_cols, const Axis *width) noexcept nogil:
    """Of each window the first column, the last, and the way from the image to the window."""
    cdef Py_ssize_t x
    memset(cols, 0, 3 * n_cols * sizeof(float))
    for x in range(width.out):
        set_int(cols + x, first_pixel(width, x))
        set_int(cols + n_cols + x, end_pixel(width, x) - 1)
        set_int(cols + 2 * n_cols + x, -(width.start + x * width.stride))


cdef bint find_places(
    const cnp.npy_intp *pairs,    # (n_planes, out_h, out_w, 2)  IN
    uint8_t *places,              # (n_planes, out_h, out_w)     OUT
    Py_ssize_t first, Py_ssize_t last, Pooling job_,
    float *cols,                  # (3, round_up(out_w))         scratch
) noexcept nogil:
    """Whether all pairs of these planes are in their windows; if so, where."""
    cdef const Pooling *job = &job_     # a copy: see pool_planes
    cdef Py_ssize_t out_w = job.width.out, out_h = job.height.out, n_cols = round_up(out_w)
    cdef Py_ssize_t i, y, x, start, room, lanes = VECTOR_BYTES // sizeof(float)
    cdef cnp.npy_intp all[2 * LANES]
    cdef cnp.npy_intp spare[2 * LANES]
    cdef uint8_t spare_places[LANES]
    cdef float least[LANES]
    cdef float most[LANES]
    cdef float up[LANES]
    cdef float row[LANES]
    cdef float col[LANES]
    cdef float outside[LANES]
    cdef bint inside = True
    memset(all, 0, sizeof(all))
    memset(outside, 0, sizeof(outside))
    memset(spare, 0, sizeof(spare))
    set_columns(cols, n_cols, &job.width)
    room = (last - first) * out_h * out_w
    pairs, places = pairs + 2 * first * out_h * out_w, places + first * out_h * out_w
    for i in range(first, last):
        for y in range(out_h):
            start = job.height.start + y * job.height.stride
            fill_int(least, <int>max(start, 0))
            fill_int(most, <int>min(start + job.height.pool, job.height.size) - 1)
            fill_int(up, <int>-start)
            x = 0
            while x < out_w:
                if room - x >= lanes:
                    from_pairs(row, col, all, pairs + 2 * x)
                else:
                    memcpy(spare, pairs + 2 * x, 2 * (room - x) * sizeof(cnp.npy_intp))
                    from_pairs(row, col, all, spare)
                note_outside(outside, row, least, most)
                note_outside(outside, col, cols + x, cols + n_cols + x)
                add_int(row, up)
                add_int(col, cols + 2 * n_cols + x)
                if room - x >= lanes:
                    to_places(places + x, row, col, <int>job.width.pool)
                else:
                    to_places(spare_places, row, col, <int>job.width.pool)
                    memcpy(places + x, spare_places, room - x)
                x = next_vector(x, out_w, lanes)
            pairs, places, room = pairs + 2 * out_w, places + out_w, room - out_w
    for x in range(min(lanes, out_w)):    # the other lanes are of the rows that follow
        inside &= (<int32_t *>outside)[x] >= 0
    for x in range(2 * LANES):
        inside &= (all[x] >> 31) == 0
    return inside


cdef bint pairs_are_outside(
    const cnp.npy_intp *pairs,    # (n_planes, out_h, out_w, 2)  IN
    Py_ssize_t first, Py_ssize_t last, const Pooling *job,
) noexcept nogil:
    """Whether any pair of these planes is outside its image."""
    cdef Py_ssize_t out_size = job.height.out * job.width.out, i
    cdef size_t outside = 0, y, x, img_h = job.height.size, img_w = job.width.size
    for i in range(first * out_size, last * out_size):
        y, x = <size_t>pairs[2 * i], <size_t>pairs[2 * i + 1]
        outside |= y | x | (img_h - 1 - y) | (img_w - 1 - x)    # one of these is negative
    return <Py_ssize_t>outside < 0


cdef bint places_are_outside(
    const uint8_t *places,        # (n_planes, out_h, out_w)  IN
    Py_ssize_t first, Py_ssize_t last, Pooling job_,
) noexcept nogil:
    """Whether any place of these planes is outside its window, or the image."""
    cdef const Pooling *job = &job_     # a copy: see pool_planes
    cdef Py_ssize_t out_size = job.height.out * job.width.out, i, end_y, end_x
    cdef int pool_w = <int>job.width.pool
    cdef uint8_t cols[256]        # of the places
    cdef uint8_t most = 0
    cdef bint outside = False
    for i in range(first * out_size, last * out_size):
        most = max(most, places[i])
    if most >= job.height.pool * pool_w:
        return True
    for i in range(256):
        cols[i] = <uint8_t>(i % pool_w)
    end_y, end_x = end_inside(&job.height), end_inside(&job.width)
    for i in range(first, last):
        outside |= rows_are_padding(places + i * out_size, job, end_y)
        outside |= columns_are_padding(places + i * out_size, cols, job, end_x)
    return outside


cdef inline Py_ssize_t end_inside(const Axis *axis) noexcept nogil:
    """The output after the last whose window ends in the image, along one axis; or less than 1."""
    cdef Py_ssize_t room = axis.size - axis.pool - axis.start
    return room // axis.stride + 1 if room >= 0 else 0


cdef inline Py_ssize_t next_padded(const Axis *axis, Py_ssize_t o, Py_ssize_t end) noexcept nogil:
    """The output after o - 1 whose window has padding. `end`: see end_inside."""
    return max(o, end) if axis.start + o * axis.stride >= 0 else o


cdef inline bint rows_are_padding(
    const uint8_t *places,        # (out_h, out_w)  IN
    const Pooling *job, Py_ssize_t end,
) noexcept nogil:
    """Whether any output has its maximum above or below the image."""
    cdef const Axis *height = &job.height
    cdef Py_ssize_t out_w = job.width.out, pool_w = job.width.pool, x, start
    cdef Py_ssize_t o = next_padded(height, 0, end)
    cdef uint8_t least, span, most
    cdef bint outside = False
    while o < height.out:
        most = 0
        start = height.start + o * height.stride
        least = <uint8_t>(max(-start, 0) * pool_w)
        span = <uint8_t>(min(height.size - start, height.pool) * pool_w - 1 - least)
        for x in range(out_w):
            most = max(most, <uint8_t>(places[o * out_w + x] - least))
        outside |= most > span
        o = next_padded(height, o + 1, end)
    return outside


cdef inline bint columns_are_padding(
    const uint8_t *places,        # (out_h, out_w)  IN
    const uint8_t *cols,          # (256,)          IN  of the places
    const Pooling *job, Py_ssize_t end,
) noexcept nogil:
    """Whether any output has its maximum beside the image."""
    cdef const Axis *width = &job.width
    cdef Py_ssize_t out_w = width.out, y, start
    cdef Py_ssize_t o = next_padded(width, 0, end)
    cdef uint8_t least, span, most
    cdef bint outside = False
    while o < out_w:
        most = 0
        start = width.start + o * width.stride
        least = <uint8_t>max(-start, 0)
        span = <uint8_t>(min(width.size - start, width.pool) - 1 - least)
        for y in range(job.height.out):
            most = max(most, <uint8_t>(cols[places[y * out_w + o]] - least))
        outside |= most > span
        o = next_padded(width, o + 1, end)
    return outside
