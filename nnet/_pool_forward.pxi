# The forward pass. Pooling is separable: the largest (or the sum) of a window is the
# largest of its columns' largest. A block of outputs of one image plane at a time:
#
# 1. the pixels that the block sees are copied to a buffer, with padding around, sorted by
#    stride phase: pixel p is in phase p % stride, cell p // stride, so that one tap of
#    neighbouring outputs is always a run of neighbouring cells;
# 2. the rows of each window are folded into one;
# 3. the columns of that one row are folded;
# 4. the results are written to the output arrays.

from libc.math cimport INFINITY

cdef enum:
    BLOCK = 1024              # outputs of a block: its buffers then fit in 32 KB of L1 cache

cdef struct Axis:
    Py_ssize_t size           # of the image
    Py_ssize_t out            # number of outputs
    Py_ssize_t block          # outputs of a block
    Py_ssize_t pool, stride
    Py_ssize_t start          # where the first window starts; negative in padding

cdef struct Pooling:
    Axis height, width
    bint include_pad          # an average divides by the window, not by its real pixels
    # Room in a thread's buffer, in units of the images' type
    Py_ssize_t linear, phases, rows, columns, total

cdef struct Span:             # a block, along one axis
    Py_ssize_t first, count   # outputs
    Py_ssize_t start          # where its first window starts
    Py_ssize_t taps, stride
    Py_ssize_t cells          # of each stride phase

cdef struct Block:
    Span rows, cols


# --- what a block of outputs sees ------------------------------------------------

cdef Axis axis_of(Py_ssize_t size, Py_ssize_t out, Py_ssize_t pool, Py_ssize_t stride,
                  Py_ssize_t before) noexcept nogil:
    cdef Axis axis
    axis.size, axis.out, axis.pool, axis.stride, axis.start = size, out, pool, stride, -before
    # Strides far larger than the image would otherwise need buffers far larger than it.
    axis.block = min(out, 2 * size // stride + 1)
    return axis


cdef Span span_of(const Axis *axis, Py_ssize_t first) noexcept nogil:
    """The outputs from `first` on, without the taps that meet nothing but padding."""
    cdef Span span
    cdef Py_ssize_t skip
    span.first, span.count = first, min(axis.block, axis.out - first)
    span.start = axis.start + first * axis.stride
    skip = max(0, -(span.start + (span.count - 1) * axis.stride))
    span.taps = min(axis.pool, axis.size - span.start) - skip
    span.start += skip
    span.stride = axis.stride if axis.block > 1 else 1
    span.cells = span.count + (span.taps - 1) // span.stride
    return span


cdef void plan_blocks(Pooling *job) noexcept nogil:
    """Choose the rows of a block, and the room that the largest block needs."""
    cdef Axis *height = &job.height
    cdef Axis *width = &job.width
    cdef Py_ssize_t taps_y, taps_x, cells_y, cells_x, stride_y, stride_x
    taps_x = min(width.pool, width.size + (width.block - 1) * width.stride)
    stride_x = width.stride if width.block > 1 else 1
    cells_x = width.block + (taps_x - 1) // stride_x
    # Not fewer rows than overlap from block to block, which are copied twice.
    height.block = min(height.block, max(BLOCK // cells_x, 2 * height.pool // height.stride, 1))
    taps_y = min(height.pool, height.size + (height.block - 1) * height.stride)
    stride_y = height.stride if height.block > 1 else 1
    cells_y = height.block + (taps_y - 1) // stride_y
    job.linear = round_up(stride_y * stride_x * cells_y * cells_x + LANES)
    job.phases = job.linear if stride_x > 1 else 0
    job.columns = round_up(height.block * cells_x) + LANES
    job.rows = stride_x * job.columns + round_up(cells_x)
    # Value and row of `rows`; value, row and column of `columns`; divisors; tap offsets.
    job.total = (
        job.linear + job.phases + 2 * job.rows + 3 * job.columns + round_up(width.block)
        + 2 * round_up(taps_y + taps_x)
    )


cdef inline Py_ssize_t divisor(const Axis *axis, Py_ssize_t output,
                               bint include_pad) noexcept nogil:
    """The pixels that count in an average, along one axis."""
    cdef Py_ssize_t start = axis.start + output * axis.stride
    return axis.pool if include_pad else min(start + axis.pool, axis.size) - max(start, 0)


# --- copying in -------------------------------------------------------------------

cdef void copy_plane(
    const real *img,              # (img_h, img_w)                                IN
    real *linear,                 # (stride_y, rows.cells, cols.cells * stride_x) OUT
    const Pooling *job, const Block *block,
) noexcept nogil:
    """Copy the pixels that a block sees. The padding around them is there already."""
    cdef const Span *rows = &block.rows
    cdef Py_ssize_t pitch = block.cols.cells * block.cols.stride
    cdef Py_ssize_t x = max(0, block.cols.start), y = max(0, rows.start)
    cdef Py_ssize_t n = min(job.width.size, block.cols.start + pitch) - x
    cdef Py_ssize_t end = min(job.height.size, rows.start + rows.cells * rows.stride)
    cdef Py_ssize_t cell = (y - rows.start) // rows.stride
    cdef Py_ssize_t phase = (y - rows.start) - cell * rows.stride
    linear += x - block.cols.start
    for y in range(y, end):
        memcpy(
            linear + (phase * rows.cells + cell) * pitch, img + y * job.width.size + x,
            n * sizeof(real),
        )
        phase += 1
        if phase == rows.stride:
            phase, cell = 0, cell + 1


cdef void split_columns(
    const real *linear,           # (n, stride)  IN
    real *phases,                 # (stride, n)  OUT
    Py_ssize_t n, Py_ssize_t stride,
) noexcept nogil:
    """Sort pixels by their stride phase."""
    cdef Py_ssize_t i, phase
    cdef real *odd = phases + n
    if stride == 2:               # the compiler knows a shuffle for this one
        for i in range(n):
            phases[i] = linear[2 * i]
            odd[i] = linear[2 * i + 1]
        return
    for phase in range(stride):
        for i in range(n):
            phases[phase * n + i] = linear[i * stride + phase]


cdef void tap_offsets(const Block *block, Py_ssize_t columns,
                      Py_ssize_t *row_offsets, Py_ssize_t *col_offsets) noexcept nogil:
    """Where the taps of the first output stand; those of the others are as far from it."""
    cdef const Span *rows = &block.rows
    cdef Py_ssize_t i
    for i in range(rows.taps):
        row_offsets[i] = (i % rows.stride * rows.cells + i // rows.stride) * block.cols.cells
    for i in range(block.cols.taps):
        col_offsets[i] = i % block.cols.stride * columns + i // block.cols.stride


# --- writing out -------------------------------------------------------------------

cdef inline Py_ssize_t whole_vectors(Py_ssize_t n, Py_ssize_t out_w,
                                     Py_ssize_t left) noexcept nogil:
    """How many outputs to write so that a row of n of them leaves no vector partly filled.

    What spills over is overwritten by the rows that follow, as long as any are left.
    """
    cdef Py_ssize_t whole = (n + 7) // 8 * 8
    return n if n <= 4 or n < out_w or whole > left else whole


cdef inline void write_switches(
    const int32_t *row,           # (n,)    IN
    const int32_t *column,        # (n,)    IN
    cnp.npy_intp *switches,       # (n, 2)  OUT
    Py_ssize_t n, int32_t top, int32_t left, int32_t stride,
) noexcept nogil:
    """From places in windows to places in the image.

    A window of nothing but -inf keeps its first tap, which may be padding: then the
    pixel nearest to it is the window's first real one.
    """
    cdef Py_ssize_t i
    cdef int32_t y, x
    for i in range(n):
        y = row[i] + top
        x = column[i] + (<int32_t>i * stride + left)
        switches[2 * i] = y if y > 0 else 0
        switches[2 * i + 1] = x if x > 0 else 0


cdef void write_maxima(
    const real *best, const int32_t *row, const int32_t *column,    # (rows.count, cols.cells) IN
    real *poolout,                # (out_h, out_w)     OUT
    cnp.npy_intp *switches,       # (out_h, out_w, 2)  OUT
    const Pooling *job, const Block *block,
) noexcept nogil:
    cdef Py_ssize_t y, i, n, at, place, out_size = job.height.out * job.width.out
    for y in range(block.rows.count):
        at = y * block.cols.cells
        place = (block.rows.first + y) * job.width.out + block.cols.first
        n = whole_vectors(block.cols.count, job.width.out, out_size - place)
        for i in range(n):
            poolout[place + i] = best[at + i]
        write_switches(
            row + at, column + at, switches + 2 * place, n,
            <int32_t>(block.rows.start + y * block.rows.stride),
            <int32_t>block.cols.start, <int32_t>block.cols.stride,
        )


cdef void write_averages(
    const real *total,            # (rows.count, cols.cells)  IN
    const real *divisors,         # (cols.count,)             IN
    real *poolout,                # (out_h, out_w)            OUT
    const Pooling *job, const Block *block,
) noexcept nogil:
    cdef Py_ssize_t y, i, n, at, place, out_size = job.height.out * job.width.out
    cdef real rows
    for y in range(block.rows.count):
        at = y * block.cols.cells
        place = (block.rows.first + y) * job.width.out + block.cols.first
        n = whole_vectors(block.cols.count, job.width.out, out_size - place)
        rows = <real>divisor(&job.height, block.rows.first + y, job.include_pad)
        for i in range(n):
            poolout[place + i] = total[at + i] / (rows * divisors[i])


# --- blocks and planes --------------------------------------------------------------

cdef void pool_block(
    const real *pixels,           # (stride_x, stride_y, rows.cells, cols.cells)  IN
    real *poolout,                # (out_h, out_w)     OUT
    cnp.npy_intp *switches,       # (out_h, out_w, 2)  OUT, NULL for averages
    const Pooling *job, const Block *block,
    real *buffer,                 # what is left of it
) noexcept nogil:
    cdef real *rows_best = buffer
    cdef real *best = buffer + 2 * job.rows
    cdef real *divisors = best + 3 * job.columns
    cdef int32_t *rows_row = <int32_t *>(rows_best + job.rows)
    cdef int32_t *row = <int32_t *>(best + job.columns)
    cdef int32_t *column = <int32_t *>(best + 2 * job.columns)
    cdef Py_ssize_t *row_offsets = <Py_ssize_t *>(divisors + round_up(job.width.block))
    cdef Py_ssize_t *col_offsets = row_offsets + block.rows.taps
    cdef Py_ssize_t taps_y = block.rows.taps, taps_x = block.cols.taps, cells = block.cols.cells
    cdef Py_ssize_t n_runs = round_up(block.rows.count * cells) // LANES
    cdef Py_ssize_t phase, i, x, at
    for phase in range(block.cols.stride):
        for i in range(n_runs):
            x = phase * block.rows.stride * block.rows.cells * cells + i * LANES
            at = phase * job.columns + i * LANES
            if switches != NULL:
                max_rows(pixels + x, row_offsets, taps_y, rows_best + at, rows_row + at)
            else:
                sum_taps(pixels + x, row_offsets, taps_y, rows_best + at)
    if switches == NULL:
        for i in range(n_runs):
            sum_taps(rows_best + i * LANES, col_offsets, taps_x, best + i * LANES)
        write_averages(best, divisors, poolout, job, block)
        return
    if block.cols.count <= 2:     # one by one is cheaper than LANES at once
        for i in range(block.rows.count):
            for at in range(i * cells, i * cells + block.cols.count):
                max_columns_of_one(rows_best + at, rows_row + at, col_offsets, taps_x,
                                   best + at, row + at, column + at)
    else:
        for i in range(n_runs):
            at = i * LANES
            max_columns(rows_best + at, rows_row + at, col_offsets, taps_x,
                        best + at, row + at, column + at)
    write_maxima(best, row, column, poolout, switches, job, block)


cdef void prepare_block(const Pooling *job, const Block *block, bint is_max,
                        real *buffer) noexcept nogil:
    """What all planes share: padding, divisors and offsets."""
    cdef real *divisors = buffer + job.linear + job.phases + 2 * job.rows + 3 * job.columns
    cdef Py_ssize_t *offsets = <Py_ssize_t *>(divisors + round_up(job.width.block))
    cdef real padding = <real>(-INFINITY if is_max else 0)
    cdef Py_ssize_t i
    for i in range(job.linear):
        buffer[i] = padding
    for i in range(block.cols.count):
        divisors[i] = <real>divisor(&job.width, block.cols.first + i, job.include_pad)
    tap_offsets(block, job.columns, offsets, offsets + block.rows.taps)


cdef inline Py_ssize_t planes_to_read_in_place(const Pooling *job, const Block *block,
                                               Py_ssize_t n_planes) noexcept nogil:
    """Without padding and strides there is nothing to copy.

    Only the last planes: there the last run of LANES would pass the end of the images.
    """
    if (block.rows.stride > 1 or block.rows.start < 0
            or block.rows.start + block.rows.cells > job.height.size
            or block.cols.stride > 1 or block.cols.start != 0
            or block.cols.cells != job.width.size):
        return 0
    return n_planes - 1 - (LANES - 1) // (job.height.size * job.width.size)


cdef void pool_planes(
    const real *imgs,             # (n_planes, img_h, img_w)     IN
    real *poolout,                # (n_planes, out_h, out_w)     OUT
    cnp.npy_intp *switches,       # (n_planes, out_h, out_w, 2)  OUT, NULL for averages
    Py_ssize_t first, Py_ssize_t last, Py_ssize_t n_planes,
    const Pooling *job,
    real *buffer,                 # (job.total,)
) noexcept nogil:
    """Planes first to last, block by block: every plane has the same blocks."""
    cdef Py_ssize_t img_size = job.height.size * job.width.size
    cdef Py_ssize_t out_size = job.height.out * job.width.out
    cdef Py_ssize_t y, x, i, in_place
    cdef real *phases = buffer + job.linear
    cdef const real *pixels
    cdef Block block
    memset(buffer, 0, job.total * sizeof(real))
    for y in range((job.height.out + job.height.block - 1) // job.height.block):
        for x in range((job.width.out + job.width.block - 1) // job.width.block):
            block.rows = span_of(&job.height, y * job.height.block)
            block.cols = span_of(&job.width, x * job.width.block)
            prepare_block(job, &block, switches != NULL, buffer)
            in_place = planes_to_read_in_place(job, &block, n_planes)
            for i in range(first, last):
                if i < in_place:
                    pixels = imgs + i * img_size + block.rows.start * job.width.size
                else:
                    copy_plane(imgs + i * img_size, buffer, job, &block)
                    pixels = buffer
                if block.cols.stride > 1:
                    split_columns(buffer, phases,
                                  block.rows.stride * block.rows.cells * block.cols.cells,
                                  block.cols.stride)
                    pixels = phases
                pool_block(
                    pixels, poolout + i * out_size,
                    switches + 2 * i * out_size if switches != NULL else NULL,
                    job, &block, phases + job.phases,
                )


# --- 2x2 windows, the commonest ----------------------------------------------------------

cdef bint are_twos(const Axis *axis) noexcept nogil:
    """Windows of two pixels side by side, without padding."""
    return (
        axis.pool == 2 and axis.stride == 2 and axis.start == 0 and 2 * axis.out <= axis.size
    )


cdef inline void max_2x2(
    const real *top,              # (2 * n,)  IN
    const real *bottom,           # (2 * n,)  IN
    real *poolout,                # (n,)      OUT
    cnp.npy_intp *switches,       # (n, 2)    OUT
    Py_ssize_t n, int32_t row,
) noexcept nogil:
    """A row of outputs."""
    cdef Py_ssize_t i
    cdef real v, b
    cdef int32_t c
    cdef bint better
    for i in range(n):
        b = top[2 * i]
        v = top[2 * i + 1]
        better = (v > b) | (v != v)
        b = v if better else b
        c = 1 if better else 0
        v = bottom[2 * i]
        better = (v > b) | (v != v)
        b = v if better else b
        c = 2 if better else c
        v = bottom[2 * i + 1]
        better = (v > b) | (v != v)
        b = v if better else b
        c = 3 if better else c
        poolout[i] = b
        switches[2 * i] = row + (c >> 1)
        switches[2 * i + 1] = 2 * <int32_t>i + (c & 1)


cdef inline void mean_2x2(
    const real *top,              # (2 * n,)  IN
    const real *bottom,           # (2 * n,)  IN
    real *poolout,                # (n,)      OUT
    Py_ssize_t n,
) noexcept nogil:
    """A row of outputs."""
    cdef Py_ssize_t i
    for i in range(n):
        poolout[i] = (top[2 * i] + top[2 * i + 1] + bottom[2 * i] + bottom[2 * i + 1]) / 4


cdef void pool_2x2_planes(
    const real *imgs,             # (n_planes, img_h, img_w)     IN
    real *poolout,                # (n_planes, out_h, out_w)     OUT
    cnp.npy_intp *switches,       # (n_planes, out_h, out_w, 2)  OUT, NULL for averages
    Py_ssize_t first, Py_ssize_t last, const Pooling *job,
) noexcept nogil:
    cdef Py_ssize_t img_w = job.width.size, out_w = job.width.out, out_h = job.height.out
    cdef Py_ssize_t img_size = job.height.size * img_w, out_size = out_h * out_w
    cdef Py_ssize_t i, y, n
    cdef const real *top
    cdef real *out
    for i in range(first, last):
        top, out = imgs + i * img_size, poolout + i * out_size
        for y in range(out_h):
            # What spills over reads no further than the image: two rows for each that follows.
            n = whole_vectors(out_w, out_w, out_size - y * out_w)
            if switches == NULL:
                mean_2x2(top, top + img_w, out, n)
            else:
                max_2x2(top, top + img_w, out, switches + 2 * (out - poolout), n, <int32_t>(2 * y))
            top, out = top + 2 * img_w, out + out_w


# --- threads ------------------------------------------------------------------------

cdef void run_forward(
    const real *imgs,             # (n_planes, img_h, img_w)     IN
    real *poolout,                # (n_planes, out_h, out_w)     OUT
    cnp.npy_intp *switches,       # (n_planes, out_h, out_w, 2)  OUT, NULL for averages
    Py_ssize_t n_planes, Pooling job, int n_threads,
) except *:
    cdef bint twos = are_twos(&job.height) and are_twos(&job.width)
    plan_blocks(&job)
    cdef cnp.ndarray memory = real_array(0 if twos else n_threads * job.total, imgs)
    cdef real *buffers = <real *>aligned(memory)
    cdef Py_ssize_t t, first, last
    for t in prange(n_threads, num_threads=n_threads, schedule="static", nogil=True):
        first, last = t * n_planes // n_threads, (t + 1) * n_planes // n_threads
        if twos:
            pool_2x2_planes(imgs, poolout, switches, first, last, &job)
        else:
            pool_planes(imgs, poolout, switches, first, last, n_planes, &job,
                        buffers + t * job.total)
