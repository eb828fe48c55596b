# Windows of 3x3 pixels, one or two pixels apart, forward and backward: vertical strips as
# wide as a vector of outputs (forward) or of pixels (backward), row by row from top to
# bottom. What a row has in common with the next one stays in registers.

cdef bint are_threes(const Pooling *job) noexcept nogil:
    cdef const Axis *height = &job.height
    cdef const Axis *width = &job.width
    return (
        height.pool == 3 and width.pool == 3 and height.stride == width.stride
        and width.stride <= 2 and width.out > 2 and width.size >= 3
        # no tap along the rows meets nothing but padding
        and width.start + (width.out - 1) * width.stride >= 0 and width.size - width.start >= 3
    )


# --- forward ------------------------------------------------------------------------

cdef void prepare_3x3_columns(real *lefts, uint8_t *least, const Axis *width) noexcept nogil:
    """Of each window the first column, and the first that is a real pixel's in the window."""
    cdef Py_ssize_t x, start
    for x in range(width.out):
        start = width.start + x * width.stride
        set_int(lefts + x, start)
        least[x] = <uint8_t>max(-start, 0)


cdef inline void max_of_row(
    const real *cells,            # (lanes,)  IN   see read_row
    real *best, real *place,      # (lanes,)  OUT
    Py_ssize_t phases, Py_ssize_t room, bint nans,
) noexcept nogil:
    cdef real one[LANES]
    cdef real two[LANES]
    fill_places(one, 1)
    fill_places(two, 2)
    copy(best, cells)
    fill_places(place, 0)
    take_place(best, place, cells + (room if phases == 2 else 1), one, nans)
    take_place(best, place, cells + (1 if phases == 2 else 2), two, nans)


cdef inline void max_3x3_strip(
    const real *cells,            # (phases, n_rows, cells)  IN   from the strip's first on
    Py_ssize_t first, Py_ssize_t done,    # output rows
    const real *lefts, const uint8_t *least,    # (lanes,)   IN   see prepare_3x3_columns
    real *poolout, const Switches *switches, Py_ssize_t at, Py_ssize_t room,
    const Pooling *job, const Plan *plan, Py_ssize_t stride, bint placed, bint nans, bint edge,
) noexcept nogil:
    cdef Py_ssize_t y, start, pitch = plan.cells
    cdef real b0[LANES]           # of three rows of a window
    cdef real b1[LANES]
    cdef real b2[LANES]
    cdef real p0[LANES]           # and their places in that row
    cdef real p1[LANES]
    cdef real p2[LANES]
    cdef real best[LANES]
    cdef real place[LANES]
    cdef real its_place[LANES]
    cdef real three[LANES]
    cdef real least_col[LANES]
    fill_places(three, 3)
    load_places(least_col, least)
    max_of_row(cells, b0, p0, stride, plan.room, nans)
    max_of_row(cells + pitch, b1, p1, stride, plan.room, nans)    # again below for stride 2
    for y in range(first, done):
        if stride == 2:
            max_of_row(cells + pitch, b1, p1, stride, plan.room, nans)
        max_of_row(cells + 2 * pitch, b2, p2, stride, plan.room, nans)
        cells += stride * pitch
        copy(best, b0)
        copy_places(place, p0)
        copy_places(its_place, p1)
        add_places(its_place, three)
        take_place(best, place, b1, its_place, nans)
        copy_places(its_place, p2)
        add_places(its_place, three)
        add_places(its_place, three)
        take_place(best, place, b2, its_place, nans)
        if stride == 1:
            copy(b0, b1)
            copy_places(p0, p1)
            copy(b1, b2)
            copy_places(p1, p2)
        else:
            copy(b0, b2)
            copy_places(p0, p2)
        # nothing but -inf: the first real pixel, not padding
        start = job.height.start + y * stride
        fill_places(its_place, 3 * max(-start, 0))
        add_places(its_place, least_col)
        max_places(place, its_place)
        put(poolout + at, best, room, edge)
        if placed:
            put_places(switches, at, place, 3, start, lefts, room, edge)
        at, room = at + job.width.out, room - job.width.out


cdef inline void sum_of_row(const real *cells, real *total, Py_ssize_t phases,
                            Py_ssize_t room) noexcept nogil:
    copy(total, cells)
    add(total, cells + (room if phases == 2 else 1))
    add(total, cells + (1 if phases == 2 else 2))


cdef inline void average_3x3_strip(
    const real *cells,            # (phases, n_rows, cells)  IN   from the strip's first on
    Py_ssize_t first, Py_ssize_t done,    # output rows
    const real *counts,           # (lanes,)                 IN   of columns in a window
    real *poolout, Py_ssize_t room,
    const Pooling *job, const Plan *plan, Py_ssize_t stride, bint edge,
) noexcept nogil:
    cdef Py_ssize_t y, pitch = plan.cells
    cdef real top[LANES]
    cdef real middle[LANES]
    cdef real bottom[LANES]
    cdef real divisors[LANES]
    sum_of_row(cells, top, stride, plan.room)
    sum_of_row(cells + pitch, middle, stride, plan.room)    # again below for stride 2
    for y in range(first, done):
        if stride == 2:
            sum_of_row(cells + pitch, middle, stride, plan.room)
        sum_of_row(cells + 2 * pitch, bottom, stride, plan.room)
        cells += stride * pitch
        add(top, middle)
        add(top, bottom)
        fill(divisors, <real>divisor(&job.height, y, job.include_pad))
        multiply(divisors, counts)
        divide(top, divisors)
        put(poolout, top, room, edge)
        if stride == 1:
            copy(top, middle)
            copy(middle, bottom)
        else:
            copy(top, bottom)
        poolout, room = poolout + job.width.out, room - job.width.out


cdef inline void pool_3x3_plane(
    const real *img,              # (img_h, img_w)  IN
    const real *end, real *poolout, const Switches *switches, Py_ssize_t at, Py_ssize_t room,
    const Pooling *job, const Plan *plan, real *buffer,
    Py_ssize_t stride, bint is_max, bint placed, bint edge,
) noexcept nogil:
    """`stride`, `is_max`, `placed` (the places of maxima are wanted) and `edge` may be constants."""
    cdef const Axis *height = &job.height
    cdef Py_ssize_t out_w = job.width.out, first = 0, done, x, y, top, bottom
    cdef real padding = <real>(-INFINITY if is_max else 0)
    cdef real *columns = buffer + (plan.phases + 2) * plan.room    # see pool_planes
    cdef const uint8_t *least = <uint8_t *>(columns + round_up(out_w))
    cdef real nans[LANES]
    fill_int(nans, 0)
    while first < height.out:
        done = min(first + plan.block, height.out)
        top = height.start + first * stride
        bottom = height.start + (done - 1) * stride + 3
        for y in range(top, min(bottom, height.size)):
            if y < 0:
                fill_run(buffer + (y - top) * plan.cells, padding, plan.cells)
                if stride == 2:
                    fill_run(buffer + plan.room + (y - top) * plan.cells, padding, plan.cells)
            else:
                read_row(img + y * job.width.size, 1, buffer + (y - top) * plan.cells,
                         <real *>nans if is_max else NULL, padding, job, plan, end, stride, edge,
                         False)
        for y in range(height.size, bottom):
            fill_run(buffer + (y - top) * plan.cells, padding, plan.cells)
            if stride == 2:
                fill_run(buffer + plan.room + (y - top) * plan.cells, padding, plan.cells)
        x = 0
        while x < out_w:
            if is_max and any_nan(nans):
                max_3x3_strip(
                    buffer + x, first, done, columns + x, least + x, poolout, switches, at + x,
                    room - x, job, plan, stride, placed, True, edge,
                )
            elif is_max:
                max_3x3_strip(
                    buffer + x, first, done, columns + x, least + x, poolout, switches, at + x,
                    room - x, job, plan, stride, placed, False, edge,
                )
            else:
                average_3x3_strip(
                    buffer + x, first, done, columns + round_up(out_w) + x, poolout + at + x,
                    room - x, job, plan, stride, edge,
                )
            x = next_vector(x, out_w, VECTOR_BYTES // sizeof(real))
        at, room = at + (done - first) * out_w, room - (done - first) * out_w
        first = done


# --- backward ------------------------------------------------------------------------

cdef inline void reach_of_row(
    const real *g0, const real *g1, const real *g2,   # (lanes,)  IN   for each tap along a row
    const real *w0, const real *w1, const real *w2,   # (lanes,)  IN   not for averages
    Py_ssize_t tap,               # along a column
    real *low, real *high,        # (lanes,)  OUT  for stride 2: of pixels of either parity
    Py_ssize_t stride, Py_ssize_t even, bint is_max,
) noexcept nogil:
    """What pixels get from a row of outputs. `even` is the phase of the first pixel."""
    cdef real left[LANES]
    cdef real right[LANES]
    if is_max:
        keep_if(left, w0, 3 * tap, g0)
        add_if(left, w2, 3 * tap + 2, g2)
        if stride == 1:
            add_if(left, w1, 3 * tap + 1, g1)
        else:
            keep_if(right, w1, 3 * tap + 1, g1)
    else:
        copy(left, g0)
        add(left, g2)
        if stride == 1:
            add(left, g1)
        else:
            copy(right, g1)
    if stride == 1:
        copy(low, left)
        fill(high, <real>0)
    else:
        copy(low if even == 0 else high, left)
        copy(high if even == 0 else low, right)


cdef inline void reach_strip(
    const real *grads,            # (n_rows, cells)  IN   from the strip's first on
    const uint8_t *where,         # (n_rows, cells)  IN   not for averages
    Py_ssize_t n_rows, Py_ssize_t y,      # the first output's first row of pixels
    real *img,                    # (img_h, img_w)   OUT  from the strip's first on
    Py_ssize_t first, Py_ssize_t done,    # rows of pixels to write
    Py_ssize_t room, Py_ssize_t img_w, Py_ssize_t pitch,
    Py_ssize_t stride, Py_ssize_t even, bint is_max, bint edge,
) noexcept nogil:
    """Write a strip of pixels."""
    cdef Py_ssize_t i
    cdef real low[LANES]          # what this row of pixels has got so far
    cdef real high[LANES]
    cdef real next_low[LANES]     # and the one after it, for stride 1
    cdef real new[LANES]
    cdef real more[LANES]
    cdef real g0[LANES]
    cdef real g1[LANES]
    cdef real g2[LANES]
    cdef real w0[LANES]
    cdef real w1[LANES]
    cdef real w2[LANES]
    cdef Py_ssize_t first_tap = even, second_tap = stride - 2
    cdef Py_ssize_t third_tap = -2 if stride == 1 else even - 1
    fill(low, <real>0)
    fill(high, <real>0)
    fill(next_low, <real>0)
    for i in range(n_rows):
        copy(g0, grads + first_tap)
        copy(g1, grads + second_tap)
        copy(g2, grads + third_tap)
        if is_max:
            load_places(w0, where + first_tap)
            load_places(w1, where + second_tap)
            load_places(w2, where + third_tap)
        reach_of_row(g0, g1, g2, w0, w1, w2, 0, new, more, stride, even, is_max)
        add(low, new)
        add(high, more)
        if first <= y < done:
            write_pixels(img + y * img_w, low, high, stride, room - y * img_w, edge)
        if is_max:
            reach_of_row(g0, g1, g2, w0, w1, w2, 1, new, more, stride, even, is_max)
        if stride == 1:
            copy(low, next_low)
            add(low, new)
        elif first <= y + 1 < done:
            write_pixels(img + (y + 1) * img_w, new, more, stride, room - (y + 1) * img_w, edge)
        if is_max:
            reach_of_row(g0, g1, g2, w0, w1, w2, 2, new, more, stride, even, is_max)
        copy(<real *>next_low if stride == 1 else <real *>low, new)
        copy(high, more)
        grads, where, y = grads + pitch, where + pitch, y + stride
    for y in range(y, done):
        if y >= first:
            write_pixels(img + y * img_w, low, high, stride, room - y * img_w, edge)
        copy(low, next_low)
        fill(high, <real>0)
        fill(next_low, <real>0)


cdef inline void reach_3x3_plane(
    const real *poolout_grad,     # (out_h, out_w)  IN
    const uint8_t *places,        # (out_h, out_w)  IN, not for averages
    Py_ssize_t n_out,             # that may be read
    real *img,                    # (img_h, img_w)  OUT
    Py_ssize_t room, const Pooling *job, const Reach *plan, real *buffer,
    Py_ssize_t stride, Py_ssize_t even, bint edge,
) noexcept nogil:
    """`stride`, `even` (the phase of the first pixel) and `edge` may be constants."""
    cdef const Axis *height = &job.height
    cdef Py_ssize_t img_w = job.width.size, out_w = job.width.out
    cdef Py_ssize_t first = 0, done, o, top, x, y, at, n_rows
    cdef Py_ssize_t step = stride * (VECTOR_BYTES // sizeof(real))
    cdef Py_ssize_t whole = img_w + (img_w & (stride - 1))
    cdef Py_ssize_t pitch
    cdef const real *grads
    cdef const uint8_t *where
    # A neighbour's maximum is not here if it is of another row, and all of a row's are in it.
    cdef bint direct = not edge and places != NULL and img_w <= stride * out_w
    while first < height.size:
        done = min(first + plan.block, height.size)
        top = first_output(height, first)
        n_rows = end_output(height, done - 1) - top
        grads, where, pitch = buffer, <uint8_t *>(buffer + plan.room), plan.cells
        if direct:
            grads, pitch = poolout_grad + top * out_w - plan.lead, out_w
            where = places + top * out_w - plan.lead
        for o in range(top, top if direct else top + n_rows):
            at = (o - top) * plan.cells
            if places != NULL:
                read_outputs(poolout_grad + o * out_w, places + o * out_w, n_out - o * out_w,
                             buffer + at, <uint8_t *>where + at, job, plan, edge)
            else:
                read_parts(poolout_grad + o * out_w, buffer + 2 * plan.room,
                           <real>divisor(height, o, job.include_pad), n_out - o * out_w,
                           buffer + at, job, plan, edge)
        x = max(whole - step, 0)  # leftwards: what spills over on the right is written later
        while x >= 0:
            at = plan.lead + ((x - job.width.start) >> (stride - 1))
            y = height.start + top * stride
            if places != NULL:
                reach_strip(grads + at, where + at, n_rows, y, img + x, first, done, room - x,
                            img_w, pitch, stride, even, True, edge)
            else:
                reach_strip(grads + at, where + at, n_rows, y, img + x, first, done, room - x,
                            img_w, pitch, stride, even, False, edge)
            x = max(x - step, 0) if x > 0 else -1
        first = done
