# The forward pass, row by row of an image plane. Pooling is separable. For maxima:
#
# 1. the rows that a block of outputs sees are copied to a buffer, with padding around; for
#    stride 2 even and odd columns lie apart, so that one tap of neighbouring outputs is
#    always a run of neighbouring cells;
# 2. each row's windows are folded along the row, all rows in one run;
# 3. the rows of each window are folded, and written to the output arrays.
#
# In this order the first maximum of a row, and then the first row, is the first in
# row-major order. Averages fold rows while they copy them (1), then fold along the row and
# write (2, 3). For wide strides, 2 is done window by window.

from libc.math cimport INFINITY

cdef enum:
    BLOCK_BYTES = 24 * 1024   # of a thread's buffer, where that is possible: L1 cache has 32

cdef struct Plan:
    bint by_windows           # along rows, not by vectors
    Py_ssize_t phases         # 2 for stride 2
    Py_ssize_t skipped, taps  # along a row, without those that meet nothing but padding
    Py_ssize_t lead           # cells of padding before a row's first pixel
    Py_ssize_t cells          # of a row of each phase
    Py_ssize_t block          # output rows of a block
    Py_ssize_t room           # of each part of a thread's buffer, in reals
    Py_ssize_t total


cdef struct Taps:
    Py_ssize_t skipped, n     # of a window along an axis: those before the first ...


cdef inline Taps taps_of(const Axis *axis) noexcept nogil:
    """... that meets a pixel for any output, and as many as do."""
    cdef Taps taps
    taps.skipped = max(0, -(axis.start + (axis.out - 1) * axis.stride))
    taps.n = min(axis.pool, axis.size - axis.start) - taps.skipped
    return taps


cdef Plan plan_forward(const Pooling *job, bint is_max, Py_ssize_t size) noexcept nogil:
    """`size` is that of a real."""
    cdef const Axis *width = &job.width
    cdef const Axis *height = &job.height
    cdef Py_ssize_t rows
    cdef Taps taps = taps_of(width)
    cdef Plan plan
    plan.by_windows = width.stride > 2 or width.out <= 2
    if plan.by_windows:
        plan.phases, plan.skipped, plan.taps, plan.lead = 1, 0, 1, 0
        plan.cells = width.out if is_max else width.size
    else:
        plan.phases = width.stride
        plan.skipped, plan.taps = taps.skipped, taps.n
        plan.lead = -width.start - plan.skipped
        plan.cells = width.out - 1 + (plan.taps + plan.phases - 1) // plan.phases
    if are_threes(job):
        plan.cells = round_up(plan.cells)     # vectors then lie in one line of the cache
    rows = BLOCK_BYTES // (
        size * plan.cells * (plan.phases + (2 if is_max and not are_threes(job) else 0)))
    if is_max or are_threes(job):     # not fewer rows than overlap from block to block
        rows = max(rows - height.pool, height.pool) // height.stride
    plan.block = max(1, min(rows, height.out))
    plan.block = (height.out - 1) // ((height.out - 1) // plan.block + 1) + 1    # all alike
    rows = plan.block
    if are_threes(job):
        rows = (rows - 1) * height.stride + 3
    elif is_max:
        rows = min(height.size, (rows - 1) * height.stride + height.pool)
    plan.room = round_up(rows * plan.cells + plan.taps) + 2 * LANES
    plan.total = (plan.phases + 2) * plan.room + 2 * round_up(width.out)
    return plan


# --- copying in -----------------------------------------------------------------------

cdef inline void read_row(
    const real *img,              # (n_rows, img_w)   IN
    Py_ssize_t n_rows,
    real *cells,                  # (phases, cells)   OUT
    real *nans,                   # (lanes,)          INOUT  not zero where any was seen, or NULL
    real padding, const Pooling *job, const Plan *plan, const real *end,
    Py_ssize_t phases, bint edge, bint in_runs,
) noexcept nogil:
    """The sum of some rows; of many `in_runs`. The padding on the left is there already.

    `phases` and `in_runs` may be constants.
    """
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t n = min(job.width.size, plan.cells * phases - plan.lead)
    cdef Py_ssize_t whole = n + (n & (phases - 1))
    cdef Py_ssize_t step = phases * lanes, lead = plan.lead // phases
    cdef Py_ssize_t x = 0, i
    cdef real low[LANES]
    cdef real high[LANES]
    cdef real pair[2 * LANES]
    cdef real spare[2 * LANES]
    cdef const real *pixels
    cdef real *even = cells + lead
    cdef real *odd = cells + plan.room + lead
    if plan.lead % phases:
        even, odd = odd, even + 1
    fill(high, <real>0)
    while x < whole:
        if in_runs:
            sum_vectors(low, img + x, job.width.size, n_rows, end, edge)
            if phases == 2:
                sum_vectors(high, img + x + lanes, job.width.size, n_rows, end, edge)
        else:
            pixels = readable(img + x, step, end, spare, edge)
            copy(low, pixels)
            if phases == 2:
                copy(high, pixels + lanes)
            for i in range(1, n_rows):
                pixels = readable(img + i * job.width.size + x, step, end, spare, edge)
                add(low, pixels)
                if phases == 2:
                    add(high, pixels + lanes)
        if nans != NULL:
            note_nans(nans, low)
            note_nans(nans, high)
        if phases == 2:
            copy(pair, low)
            copy(pair + lanes, high)
            deinterleave(even + (x >> 1), odd + (x >> 1), pair)
        else:
            copy(even + x, low)
        x = next_vector(x, whole, step)
    if n < step or n < whole:     # this row's padding on the right, and the next one's on the left
        fill_run(even + whole // phases, padding, plan.cells - whole // phases)
        if phases == 2:
            fill_run(odd + n // 2, padding, plan.cells - n // 2)


cdef inline Py_ssize_t tap_place(Py_ssize_t tap, const Plan *plan) noexcept nogil:
    """Where the first window has it."""
    return (tap & (plan.phases - 1)) * plan.room + (tap >> (plan.phases - 1))


# --- maxima -----------------------------------------------------------------------------

cdef inline void max_along_rows(
    const real *cells,            # (phases, n)  IN
    real *best,                   # (n,)         OUT
    real *cols,                   # (n,)         OUT  their taps
    Py_ssize_t n, const Plan *plan,
) noexcept nogil:
    cdef Py_ssize_t i = 0, tap
    cdef real b[LANES]
    cdef real c[LANES]
    cdef real its_col[LANES]
    cdef real unused[LANES]
    fill(unused, <real>0)
    while i < n:
        copy(b, cells + i)
        fill_int(c, 0)
        for tap in range(1, plan.taps):
            fill_int(its_col, tap)
            take_larger(b, unused, c, cells + tap_place(tap, plan) + i, unused, its_col)
        copy(best + i, b)
        copy(cols + i, c)
        i += VECTOR_BYTES // sizeof(real)


cdef inline void max_by_windows(
    const real *img,              # (img_w,)  IN
    real *best,                   # (out_w,)  OUT
    real *cols,                   # (out_w,)  OUT  their taps
    const Axis *width,
) noexcept nogil:
    cdef Py_ssize_t x, i, start, col
    cdef real v, b
    for x in range(width.out):
        start = first_pixel(width, x)
        b, col = img[start], start
        for i in range(start + 1, end_pixel(width, x)):
            v = img[i]
            if (v > b) | (v != v):
                b, col = v, i
        best[x] = b
        set_int(cols + x, col - width.start - x * width.stride)


cdef inline void write_maxima(
    const real *best,             # (n_rows, cells)  IN
    const real *cols,             # (n_rows, cells)  IN
    Py_ssize_t n_rows, Py_ssize_t first_row,
    const real *shift,            # (out_w,)         IN  from taps to columns in the output
    const real *least,            # (out_w,)         IN  the first pixel's column
    real *poolout, const Switches *switches, Py_ssize_t at, Py_ssize_t room,
    const Pooling *job, Py_ssize_t cells, bint edge,
) noexcept nogil:
    """A row of outputs. A window of nothing but -inf has its maximum in the first real pixel."""
    cdef Py_ssize_t x = 0, i
    cdef real b[LANES]
    cdef real r[LANES]
    cdef real c[LANES]
    cdef real its_row[LANES]
    while x < job.width.out:
        copy(b, best + x)
        copy(c, cols + x)
        fill_int(r, first_row)
        for i in range(1, n_rows):
            fill_int(its_row, first_row + i)
            take_larger(b, r, c, best + i * cells + x, its_row, cols + i * cells + x)
        move_right(c, shift + x, least + x)
        put(poolout + at + x, b, room - x, edge)
        if switches != NULL:
            put_switches(switches, at + x, r, c, job.width.pool, room - x, edge)
        x = next_vector(x, job.width.out, VECTOR_BYTES // sizeof(real))


cdef void prepare_columns(real *shift, real *least, const Pooling *job, const Plan *plan,
                          bint in_image) noexcept nogil:
    cdef const Axis *width = &job.width
    cdef Py_ssize_t x, start
    for x in range(width.out):
        start = width.start + x * width.stride
        set_int(shift + x, plan.skipped + (start if in_image else 0))
        set_int(least + x, first_pixel(width, x) - (0 if in_image else start))


cdef inline void max_plane(
    const real *img, const real *end, real *poolout, const Switches *switches, Py_ssize_t at,
    Py_ssize_t room, const Pooling *job, const Plan *plan, real *buffer, bint edge,
) noexcept nogil:
    cdef const Axis *height = &job.height
    cdef Py_ssize_t img_w = job.width.size, out_w = job.width.out
    cdef real *best = buffer + plan.phases * plan.room
    cdef real *cols = best + plan.room
    cdef real *shift = cols + plan.room
    cdef real *least = shift + round_up(out_w)
    cdef Py_ssize_t first = 0, y, row, top, bottom, done
    while first < height.out:
        done = min(first + plan.block, height.out)
        top, bottom = first_pixel(height, first), end_pixel(height, done - 1)
        for y in range(top, bottom):
            if plan.by_windows:
                max_by_windows(img + y * img_w, best + (y - top) * plan.cells,
                               cols + (y - top) * plan.cells, &job.width)
            else:
                read_row(img + y * img_w, 1, buffer + (y - top) * plan.cells,
                         <real *>NULL, <real>-INFINITY, job, plan, end, plan.phases, edge, False)
        if not plan.by_windows:
            max_along_rows(buffer, best, cols, (bottom - top) * plan.cells, plan)
        for y in range(first, done):
            row = first_pixel(height, y)
            write_maxima(
                best + (row - top) * plan.cells, cols + (row - top) * plan.cells,
                end_pixel(height, y) - row,
                row if switches == NULL or switches.pairs != NULL else row - height.start - y * height.stride,
                shift, least, poolout, switches, at + y * out_w,
                room - y * out_w, job, plan.cells, edge,
            )
        first = done


# --- averages ---------------------------------------------------------------------------

cdef inline void write_averages(
    const real *sums,             # (phases, cells)  IN
    const real *counts,           # (out_w,)         IN   of columns in a window
    real rows,                    # in a window
    real *poolout,                # (out_w,)         OUT
    Py_ssize_t room, const Pooling *job, const Plan *plan, bint edge, bint in_runs,
) noexcept nogil:
    """A row of outputs; of many taps `in_runs`."""
    cdef const Axis *width = &job.width
    cdef Py_ssize_t x = 0, i
    cdef real total[LANES]
    cdef real divisors[LANES]
    while x < width.out:
        copy(total, sums + x)
        if in_runs:
            sum_taps(total, sums + x, plan)
        else:
            for i in range(1, plan.taps):
                add(total, sums + tap_place(i, plan) + x)
        fill(divisors, rows)
        multiply(divisors, counts + x)
        divide(total, divisors)
        put(poolout + x, total, room - x, edge)
        x = next_vector(x, width.out, VECTOR_BYTES // sizeof(real))


cdef void sum_taps(real *total, const real *sums, const Plan *plan) noexcept nogil:
    """Many taps of one vector of windows, phase by phase."""
    cdef Py_ssize_t phases = plan.phases
    cdef real odd[LANES]
    sum_vectors(total, sums, 1, (plan.taps + phases - 1) // phases, <const real *>NULL, False)
    if phases == 2:
        sum_vectors(odd, sums + plan.room, 1, plan.taps // 2, <const real *>NULL, False)
        add(total, odd)


cdef inline void average_windows(const real *sums, const real *counts, real rows, real *poolout,
                                 const Axis *width) noexcept nogil:
    cdef Py_ssize_t x, i
    cdef real total
    if width.pool > MAX_RUN:
        average_wide_windows(sums, counts, rows, poolout, width)
        return
    for x in range(width.out):
        total = 0
        for i in range(first_pixel(width, x), end_pixel(width, x)):
            total += sums[i]
        poolout[x] = total / (rows * counts[x])


cdef void average_wide_windows(const real *sums, const real *counts, real rows, real *poolout,
                               const Axis *width) noexcept nogil:
    cdef Py_ssize_t x, first
    for x in range(width.out):
        first = first_pixel(width, x)
        poolout[x] = sum_cells(sums + first, end_pixel(width, x) - first) / (rows * counts[x])


cdef inline void average_plane(
    const real *img, const real *end, real *poolout, Py_ssize_t room,
    const Pooling *job, const Plan *plan, real *buffer, bint edge,
) noexcept nogil:
    cdef const Axis *height = &job.height
    cdef Py_ssize_t img_w = job.width.size, out_w = job.width.out
    cdef real *counts = buffer + (plan.phases + 2) * plan.room + round_up(out_w)
    cdef real *cells
    cdef Py_ssize_t first = 0, y, row, done
    cdef real rows
    while first < height.out:
        done = min(first + plan.block, height.out)
        for y in range(first, done):
            row = first_pixel(height, y)
            cells = buffer + (y - first) * plan.cells
            if end_pixel(height, y) - row > MAX_RUN:    # usual windows pay nothing for tall ones
                read_row(img + row * img_w, end_pixel(height, y) - row, cells, <real *>NULL,
                         <real>0, job, plan, end, plan.phases, edge, True)
            else:
                read_row(img + row * img_w, end_pixel(height, y) - row, cells, <real *>NULL,
                         <real>0, job, plan, end, plan.phases, edge, False)
        for y in range(first, done):
            rows = <real>divisor(height, y, job.include_pad)
            cells = buffer + (y - first) * plan.cells
            if plan.by_windows:
                average_windows(cells, counts, rows, poolout + y * out_w, &job.width)
            elif plan.taps > MAX_RUN:
                write_averages(cells, counts, rows, poolout + y * out_w, room - y * out_w,
                               job, plan, edge, True)
            else:
                write_averages(cells, counts, rows, poolout + y * out_w, room - y * out_w,
                               job, plan, edge, False)
        first = done


# --- planes -------------------------------------------------------------------------

cdef void pool_planes(
    const real *imgs, real *poolout, const Switches *switches,
    Py_ssize_t first, Py_ssize_t last, Py_ssize_t n_planes, Pooling job_, Plan plan_,
    bint is_max, real *buffer,
) noexcept nogil:
    """Planes first to last; `switches` is NULL for averages and where nobody wants them."""
    cdef const Pooling *job = &job_     # copies: C then knows that no vector overwrites them
    cdef const Plan *plan = &plan_
    cdef Py_ssize_t img_size = job.height.size * job.width.size
    cdef Py_ssize_t out_size = job.height.out * job.width.out
    cdef const real *end = imgs + n_planes * img_size
    cdef real *columns = buffer + (plan.phases + 2) * plan.room
    cdef bint spills = (plan.phases > 1 or job.width.out < LANES
                        or min(job.width.size, plan.cells - plan.lead) < LANES)
    cdef Py_ssize_t i
    fill_run(buffer, <real>(-INFINITY if is_max else 0), plan.total - LANES)
    if is_max and are_threes(job):
        prepare_3x3_columns(columns, <uint8_t *>(columns + round_up(job.width.out)), &job.width)
    elif is_max:
        prepare_columns(columns, columns + round_up(job.width.out), job, plan,
                        switches != NULL and switches.pairs != NULL)
    else:
        for i in range(job.width.out):
            columns[round_up(job.width.out) + i] = <real>divisor(&job.width, i, job.include_pad)
    for i in range(first, last):
        pool_plane(imgs + i * img_size, end, poolout, switches, i * out_size,
                   (last - i) * out_size, job, plan, is_max, buffer,
                   spills and is_edge(i, last, job))


cdef inline void pool_plane(
    const real *img, const real *end, real *poolout, const Switches *switches, Py_ssize_t at,
    Py_ssize_t room, const Pooling *job, const Plan *plan, bint is_max, real *buffer, bint edge,
) noexcept nogil:
    if are_threes(job) and edge:
        pool_3x3_plane(img, end, poolout, switches, at, room, job, plan, buffer, plan.phases,
                       is_max, switches != NULL, True)
    elif are_threes(job) and plan.phases == 1:    # constants are worth code of its own
        pool_3x3(img, end, poolout, switches, at, room, job, plan, buffer, 1, is_max)
    elif are_threes(job):
        pool_3x3(img, end, poolout, switches, at, room, job, plan, buffer, 2, is_max)
    elif is_max:
        max_plane(img, end, poolout, switches, at, room, job, plan, buffer, edge)
    else:
        average_plane(img, end, poolout + at, room, job, plan, buffer, edge)


cdef inline void pool_3x3(
    const real *img, const real *end, real *poolout, const Switches *switches, Py_ssize_t at,
    Py_ssize_t room, const Pooling *job, const Plan *plan, real *buffer, Py_ssize_t stride,
    bint is_max,
) noexcept nogil:
    if switches != NULL:
        pool_3x3_plane(img, end, poolout, switches, at, room, job, plan, buffer, stride,
                       True, True, False)
    elif is_max:
        pool_3x3_plane(img, end, poolout, switches, at, room, job, plan, buffer, stride,
                       True, False, False)
    else:
        pool_3x3_plane(img, end, poolout, switches, at, room, job, plan, buffer, stride,
                       False, False, False)
