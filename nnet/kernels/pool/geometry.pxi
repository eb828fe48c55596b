# What a pooling is, and where its results go.

cdef struct Axis:
    Py_ssize_t size           # of the image
    Py_ssize_t out            # number of outputs
    Py_ssize_t pool, stride
    Py_ssize_t start          # where the first window starts; negative in padding
    Py_ssize_t after          # padding after the image: what is beyond counts in no average

cdef struct Pooling:
    Axis height, width
    bint include_pad          # an average divides by the window, not by its real pixels

cdef struct Switches:         # where the maxima are; the form that is not in use is NULL
    cnp.npy_intp *pairs       # (n_planes, out_h, out_w, 2): row and column in the image
    uint8_t *places           # (n_planes, out_h, out_w): row * pool_w + column in the window


cdef Axis axis_of(Py_ssize_t size, Py_ssize_t out, Py_ssize_t pool, Py_ssize_t stride,
                  Py_ssize_t before, Py_ssize_t after) noexcept nogil:
    cdef Axis axis
    axis.size, axis.out, axis.pool, axis.stride = size, out, pool, stride
    axis.start, axis.after = -before, after
    return axis


cdef inline Py_ssize_t first_pixel(const Axis *axis, Py_ssize_t output) noexcept nogil:
    """The first real pixel of a window, along one axis."""
    return max(axis.start + output * axis.stride, 0)


cdef inline Py_ssize_t end_pixel(const Axis *axis, Py_ssize_t output) noexcept nogil:
    """The one after its last."""
    return min(axis.start + output * axis.stride + axis.pool, axis.size)


cdef inline Py_ssize_t divisor(const Axis *axis, Py_ssize_t output,
                               bint include_pad) noexcept nogil:
    """The pixels that count in an average, along one axis."""
    if include_pad:
        return min(axis.pool, axis.size + axis.after - axis.start - output * axis.stride)
    return end_pixel(axis, output) - first_pixel(axis, output)


cdef bint are_twos(const Pooling *job) noexcept nogil:
    """Windows of 2x2 pixels side by side, without padding."""
    cdef const Axis *height = &job.height
    cdef const Axis *width = &job.width
    return (
        height.pool == 2 and height.stride == 2 and height.start == 0
        and 2 * height.out <= height.size
        and width.pool == 2 and width.stride == 2 and width.start == 0
        and 2 * width.out <= width.size
    )


cdef bint is_global(const Pooling *job) noexcept nogil:
    """A single window, of all pixels."""
    return (
        job.height.out == 1 and end_pixel(&job.height, 0) - first_pixel(&job.height, 0)
        == job.height.size
        and job.width.out == 1 and end_pixel(&job.width, 0) - first_pixel(&job.width, 0)
        == job.width.size
    )


# --- rows of vectors ---------------------------------------------------------------
#
# The last vector of a row ends where the row does, and overlaps the one before. Only rows
# shorter than a vector spill over into the row that follows: what is read of that is not
# used, and what is written there is overwritten later, as rows are written in order. In
# the last planes, where the arrays or a thread's part of them may end, there is a detour:
# they are called with `edge`.

cdef inline Py_ssize_t next_vector(Py_ssize_t x, Py_ssize_t n, Py_ssize_t step) noexcept nogil:
    """Where the vector after that at x begins, in a row of n."""
    x += step
    return n - step if x < n < x + step else x


cdef inline bint is_edge(Py_ssize_t plane, Py_ssize_t last, const Pooling *job) noexcept nogil:
    """Whether the planes that follow, before the last, are less than what spills over."""
    cdef Py_ssize_t least = min(job.height.size * job.width.size, job.height.out * job.width.out)
    return (last - 1 - plane) * least < 2 * LANES


cdef inline const real *readable(const real *pixels, Py_ssize_t n, const real *end,
                                 real *spare, bint edge) noexcept nogil:
    """n pixels, or what there is of them before the end, with room for n."""
    if not edge or pixels + n <= end:
        return pixels
    memcpy(spare, pixels, (end - pixels) * sizeof(real))
    return spare


# --- sums ---------------------------------------------------------------------------

cdef enum:
    MAX_RUN = 64  # terms of a sum, one after the other, that lose little by rounding


cdef real sum_cells(const real *cells, Py_ssize_t n) noexcept nogil:
    """One after the other; runs of them add up in double."""
    cdef double total = 0
    cdef real run
    cdef Py_ssize_t i = 0, end
    while i < n:
        end, run = min(i + MAX_RUN, n), 0
        while i < end:
            run += cells[i]
            i += 1
        total += run
    return <real>total


cdef void sum_vectors(
    real *total,                  # (lanes,)  OUT
    const real *first,            # (lanes,)  IN   the first vector of n, pitch apart
    Py_ssize_t pitch, Py_ssize_t n,
    const real *end,              # of what may be read, if there is an `edge`
    bint edge,
) noexcept nogil:
    """Many vectors, in runs whose rounding errors add up apart."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real), i = 0, stop
    cdef real run[LANES]
    cdef real error[LANES]
    cdef real spare[LANES]
    cdef const real *vector
    fill(total, <real>0)
    fill(error, <real>0)
    while i < n:
        stop = min(i + MAX_RUN, n)
        fill(run, <real>0)
        while i < stop:
            vector = first + i * pitch
            add(run, readable(vector, lanes, max(end, vector), spare, edge))
            i += 1
        add_exactly(total, error, run)
    add(total, error)


cdef inline void put(real *out, const real *vector, Py_ssize_t room, bint edge) noexcept nogil:
    """Write a vector, but no more than there is room for."""
    if not edge or room >= VECTOR_BYTES // <Py_ssize_t>sizeof(real):
        copy(out, vector)
    else:
        memcpy(out, vector, room * sizeof(real))


cdef inline void put_switches(
    const Switches *switches, Py_ssize_t at,
    real *row,                    # (lanes,)  of each maximum, where `switches` wants them
    real *col,                    # (lanes,)
    int pool_w, Py_ssize_t room, bint edge,
) noexcept nogil:
    cdef cnp.npy_intp pairs[2 * LANES]
    cdef uint8_t places[LANES]
    edge = edge and room < VECTOR_BYTES // <Py_ssize_t>sizeof(real)
    if switches.pairs != NULL:
        to_pairs(<cnp.npy_intp *>pairs if edge else switches.pairs + 2 * at, row, col)
        if edge:
            memcpy(switches.pairs + 2 * at, pairs, 2 * room * sizeof(cnp.npy_intp))
    else:
        to_places(<uint8_t *>places if edge else switches.places + at, row, col, pool_w)
        if edge:
            memcpy(switches.places + at, places, room)


cdef inline void put_places(
    const Switches *switches, Py_ssize_t at,
    const real *place,            # (lanes,)  in the window
    int pool_w, Py_ssize_t top,   # the windows' first row
    const real *lefts,            # (lanes,)  their first columns
    Py_ssize_t room, bint edge,
) noexcept nogil:
    cdef real row[LANES]
    cdef real col[LANES]
    cdef real tops[LANES]
    cdef uint8_t places[LANES]
    if switches.pairs != NULL:
        split_places(row, col, place, pool_w)
        fill_int(tops, top)
        add_int(row, tops)
        add_int(col, lefts)
        put_switches(switches, at, row, col, pool_w, room, edge)
    elif edge and room < VECTOR_BYTES // <Py_ssize_t>sizeof(real):
        store_places(<uint8_t *>places, place)
        memcpy(switches.places + at, places, room)
    else:
        store_places(switches.places + at, place)
