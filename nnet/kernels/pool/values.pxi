# Maxima without their places, of windows one pixel apart: of 1, 2, 4, ... pixels, each of two
# that lie side by side, and at last two that overlap. It takes as many steps as the window's
# size has bits. First along the rows of a block, then down the columns: of equal maxima (zeros
# of either sign) the first in row-major order is taken, as where there are places.

cdef enum:
    VALUES_BYTES = 192 * 1024  # of a thread's buffer, where that is possible: a part of L2

cdef struct Values:
    Taps height, width
    Py_ssize_t cells          # of a row in the buffer, with padding
    Py_ssize_t block          # output rows of a block
    Py_ssize_t room           # of each half of a thread's buffer, in reals


cdef bint are_values(const Pooling *job, bint is_max, const Switches *switches) noexcept nogil:
    return (is_max and switches == NULL and job.height.stride == 1 and job.width.stride == 1
            and job.width.out > 2 and not are_threes(job))


cdef Values plan_values(const Pooling *job, Py_ssize_t size) noexcept nogil:
    """`size` is that of a real."""
    cdef Values plan
    plan.height, plan.width = taps_of(&job.height), taps_of(&job.width)
    plan.cells = job.width.out - 1 + plan.width.n
    plan.block = max(VALUES_BYTES // (2 * size * plan.cells) - plan.height.n, plan.height.n)
    plan.block = min(plan.block, job.height.out)
    plan.room = (plan.block - 1 + plan.height.n) * plan.cells + round_up(plan.width.n) + 2 * LANES
    return plan


cdef inline void read_padded(
    const real *img,              # (img_w,)  IN
    real *cells,                  # (cells,)  OUT
    real *nans,                   # (lanes,)  INOUT  not zero where any was seen
    const Pooling *job, const Values *plan,
) noexcept nogil:
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real), x = 0
    cdef Py_ssize_t lead = -job.width.start - plan.width.skipped
    cdef Py_ssize_t n = min(job.width.size, plan.cells - lead)
    cdef real pixels[LANES]
    fill_run(cells, <real>-INFINITY, lead)
    cells += lead
    if n < lanes:
        fill(pixels, <real>-INFINITY)
        memcpy(pixels, img, n * sizeof(real))
        note_nans(nans, pixels)
        copy(cells, pixels)
    else:
        while x < n:
            note_nans(nans, img + x)
            copy(cells + x, img + x)
            x = next_vector(x, n, lanes)
    fill_run(cells + n, <real>-INFINITY, plan.cells - lead - n)


cdef inline void take_values(
    const real *one, const real *other,       # (n,)  IN
    real *best,                   # (n,)      OUT     and what whole vectors spill over
    Py_ssize_t n, bint nans,
) noexcept nogil:
    cdef Py_ssize_t i = 0
    cdef real b[LANES]
    while i < n:
        copy(b, one + i)
        take_value(b, other + i, nans)
        copy(best + i, b)
        i += VECTOR_BYTES // sizeof(real)


cdef inline void max_of_cells(real *cells, const Values *plan, bint nans) noexcept nogil:
    """The windows of a row that is padded, in its place."""
    cdef Py_ssize_t taps = plan.width.n, width = 1, other, n = plan.cells
    while width < taps:
        other = min(width, taps - width)
        n -= other
        take_values(cells, cells + other, cells, n, nans)
        width += other


cdef inline void max_of_rows(
    const real *best,             # (n_out - 1 + taps, cells)  IN
    real *tall,                   # the same                   scratch
    real *poolout,                # (n_out, out_w)             OUT
    Py_ssize_t n_out, Py_ssize_t out_w, const Values *plan, bint nans,
) noexcept nogil:
    cdef Py_ssize_t taps = plan.height.n, cells = plan.cells, width = 1, x, y
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real), rows = n_out - 1 + taps
    cdef const real *row
    cdef real b[LANES]
    while 2 * width < taps:
        rows -= width
        take_values(best, best + width * cells, tall, rows * cells, nans)
        best, width = tall, 2 * width
    for y in range(n_out):
        row, x = best + y * cells, 0
        while x < out_w:
            copy(b, row + x)
            take_value(b, row + (taps - width) * cells + x, nans)
            put(poolout + y * out_w + x, b, out_w - x, out_w < lanes)
            x = next_vector(x, out_w, lanes)


cdef void max_values_planes(
    const real *imgs,             # (n_planes, img_h, img_w)  IN
    real *poolout,                # (n_planes, out_h, out_w)  OUT
    Py_ssize_t first, Py_ssize_t last, Pooling job_, Values plan_, real *buffer,
) noexcept nogil:
    cdef const Pooling *job = &job_     # copies: see pool_planes
    cdef const Values *plan = &plan_
    cdef Py_ssize_t i
    fill_run(buffer, <real>-INFINITY, 2 * plan.room - LANES)
    for i in range(first, last):
        max_values_plane(imgs + i * job.height.size * job.width.size,
                         poolout + i * job.height.out * job.width.out, job, plan, buffer)


cdef inline void max_values_plane(
    const real *img, real *poolout, const Pooling *job, const Values *plan, real *best,
) noexcept nogil:
    """Rows that one block of outputs has in common with the next are kept."""
    cdef Py_ssize_t out_w = job.width.out, cells = plan.cells
    cdef Py_ssize_t first = 0, done, kept = 0, n_rows, y, row
    cdef real *tall = best + plan.room
    cdef real nans[LANES]
    fill_int(nans, 0)
    while first < job.height.out:
        done = min(first + plan.block, job.height.out)
        n_rows = done - first + plan.height.n - 1
        for y in range(kept, n_rows):
            row = job.height.start + plan.height.skipped + first + y
            if row < 0 or row >= job.height.size:
                fill_run(best + y * cells, <real>-INFINITY, cells)
                continue
            read_padded(img + row * job.width.size, best + y * cells, nans, job, plan)
            if any_nan(nans):
                max_of_cells(best + y * cells, plan, True)
            else:
                max_of_cells(best + y * cells, plan, False)
        if any_nan(nans):
            max_of_rows(best, tall, poolout + first * out_w, done - first, out_w, plan, True)
        else:
            max_of_rows(best, tall, poolout + first * out_w, done - first, out_w, plan, False)
        kept = plan.height.n - 1
        memmove(best, best + (done - first) * cells, kept * cells * sizeof(real))
        first = done
