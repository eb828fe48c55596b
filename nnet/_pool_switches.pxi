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
    cdef Py_ssize_t i, y, x, start, room
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
                if room - x >= LANES:
                    from_pairs(row, col, all, pairs + 2 * x)
                else:
                    memcpy(spare, pairs + 2 * x, 2 * (room - x) * sizeof(cnp.npy_intp))
                    from_pairs(row, col, all, spare)
                note_outside(outside, row, least, most)
                note_outside(outside, col, cols + x, cols + n_cols + x)
                add_int(row, up)
                add_int(col, cols + 2 * n_cols + x)
                if room - x >= LANES:
                    to_places(places + x, row, col, <int>job.width.pool)
                else:
                    to_places(spare_places, row, col, <int>job.width.pool)
                    memcpy(places + x, spare_places, room - x)
                x = next_vector(x, out_w, LANES)
            pairs, places, room = pairs + 2 * out_w, places + out_w, room - out_w
    for x in range(min(LANES, out_w)):    # the other lanes are of the rows that follow
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
    cdef Py_ssize_t out_w = job.width.out, out_h = job.height.out, out_size = out_h * out_w
    cdef Py_ssize_t i, end_y, end_x
    cdef uint8_t rows[256]        # of the places
    cdef uint8_t cols[256]
    cdef uint8_t most = 0
    cdef bint outside = False
    for i in range(first * out_size, last * out_size):
        most = max(most, places[i])
    if most >= job.height.pool * job.width.pool:
        return True
    for i in range(256):
        rows[i], cols[i] = <uint8_t>(i // job.width.pool), <uint8_t>(i % job.width.pool)
    end_y, end_x = end_inside(&job.height), end_inside(&job.width)
    for i in range(first, last):
        outside |= are_padding(places + i * out_size, out_w, out_w, 1, rows, &job.height, end_y)
        outside |= are_padding(places + i * out_size, 1, out_h, out_w, cols, &job.width, end_x)
    return outside


cdef inline Py_ssize_t end_inside(const Axis *axis) noexcept nogil:
    """The output after the last whose window ends in the image, along one axis; or less than 1."""
    cdef Py_ssize_t room = axis.size - axis.pool - axis.start
    return room // axis.stride + 1 if room >= 0 else 0


cdef inline bint are_padding(
    const uint8_t *places,        # (out_h, out_w)  IN
    Py_ssize_t pitch,             # from one line of outputs (a row, or a column) to the next
    Py_ssize_t n, Py_ssize_t step,        # outputs of a line, and from one to the next
    const uint8_t *lines,         # (256,)          IN  the row, or the column, of each place
    const Axis *axis, Py_ssize_t end,     # see end_inside
) noexcept nogil:
    """Whether any output has its maximum in the padding, along one axis."""
    cdef Py_ssize_t i, o = 0, start
    cdef uint8_t least, span
    cdef bint outside = False
    while o < axis.out:
        start = axis.start + o * axis.stride
        if start >= 0 and o < end:        # up to the last window without padding
            o = end
        else:
            least = <uint8_t>max(-start, 0)
            span = <uint8_t>(min(axis.size - start, axis.pool) - 1 - least)
            for i in range(n):
                outside |= <uint8_t>(lines[places[o * pitch + i * step]] - least) > span
            o += 1
    return outside
