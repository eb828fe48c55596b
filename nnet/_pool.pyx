"""Pooling of BC01 images, forward and backward: the compiled kernels.

Pooling is separable: the largest (or the sum) of a window is the largest of its
columns' largest. So the forward pass takes a block of outputs of one image plane and

1. copies the pixels they see into a scratch buffer with padding around, split into
   stride phases: pixel p goes to phase p % stride, cell p // stride, so that one tap
   of neighbouring outputs is always one run of neighbouring cells;
2. folds the rows of each window into one;
3. folds the columns of that row;
4. writes the results to the output arrays.

The loops of 2 and 3 walk LANES outputs at once, without branches, and the compiler
makes vector instructions of them. The threads share out the planes.
"""

from cython.parallel cimport prange
from libc.math cimport INFINITY
from libc.stdint cimport int32_t
from libc.string cimport memcpy, memset

from nnet import kernels
from nnet.geometry import pool_geometry

include "_arrays.pxi"

ctypedef fused real:
    float
    double

cdef enum:
    # gcc unrolls constant loops of up to 16 turns before it looks for vectors, and then finds none.
    LANES = 32
    BLOCK = 1024          # outputs of one block: its buffers stay in 32 KB of L1 cache
    SMALL_WORK = 30_000   # outputs times taps below which a second thread costs more than it saves


# --- geometry: what a block of outputs sees ------------------------------------

cdef struct Axis:
    Py_ssize_t size           # of the image
    Py_ssize_t out            # number of outputs
    Py_ssize_t block          # outputs of one block
    Py_ssize_t pool, stride
    Py_ssize_t start          # where the first window starts: negative in padding

cdef struct Span:             # of one block, along one axis
    Py_ssize_t first, count   # outputs
    Py_ssize_t start          # where its first window starts in the image
    Py_ssize_t taps, stride
    Py_ssize_t cells          # scratch cells of each stride phase

cdef struct Buffers:          # of one thread, in units of the kernel's real type
    Py_ssize_t scratch, rows, columns, total


cdef inline Py_ssize_t round_up(Py_ssize_t n) noexcept nogil:
    return (n + LANES - 1) // LANES * LANES


cdef Axis axis_of(Py_ssize_t size, Py_ssize_t out, Py_ssize_t pool, Py_ssize_t stride,
                  Py_ssize_t before) noexcept nogil:
    cdef Axis axis
    axis.size, axis.out, axis.pool, axis.stride, axis.start = size, out, pool, stride, -before
    # Windows far larger than the image would otherwise need far larger buffers than it.
    axis.block = min(out, 2 * size // stride + 1)
    return axis


cdef inline Span span_of(const Axis *axis, Py_ssize_t first) noexcept nogil:
    """The block of outputs from `first` on, without the taps that meet padding only."""
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


cdef Buffers buffers_of(Axis *rows, Axis *cols) noexcept nogil:
    """Choose the number of rows of a block, and the room that the largest block needs."""
    cdef Buffers room
    cdef Py_ssize_t taps_y, taps_x, cells_y, cells_x, stride_y, stride_x
    taps_x = min(cols.pool, cols.size + (cols.block - 1) * cols.stride)
    stride_x = cols.stride if cols.block > 1 else 1
    cells_x = cols.block + (taps_x - 1) // stride_x
    rows.block = min(rows.block, max(BLOCK // cells_x, rows.pool // rows.stride, 1))
    taps_y = min(rows.pool, rows.size + (rows.block - 1) * rows.stride)
    stride_y = rows.stride if rows.block > 1 else 1
    cells_y = rows.block + (taps_y - 1) // stride_y
    room.scratch = round_up(stride_y * stride_x * cells_y * cells_x + LANES)
    room.columns = round_up(rows.block * cells_x) + LANES
    room.rows = stride_x * room.columns + round_up(cells_x)
    # best and row of `rows`; best, row and column of `columns`; counts; two tables of offsets
    room.total = room.scratch + 2 * room.rows + 3 * room.columns + round_up(cols.block)
    room.total += 2 * round_up(taps_y + taps_x)
    return room


cdef inline Py_ssize_t real_pixels(const Axis *axis, Py_ssize_t output) noexcept nogil:
    """How many pixels of the image a window covers along one axis."""
    cdef Py_ssize_t start = axis.start + output * axis.stride
    return min(start + axis.pool, axis.size) - max(start, 0)


# --- inner loops -----------------------------------------------------------------

cdef inline void max_rows(
    const real *pixels,           # (..., LANES)   IN
    const Py_ssize_t *offsets,    # (n_taps,)      IN
    Py_ssize_t n_taps,
    real *best,                   # (LANES,)       OUT
    int32_t *row,                 # (LANES,)       OUT
) noexcept nogil:
    """The largest of each column of a window, and its row: the first, or the last NaN."""
    cdef real b[LANES]
    cdef int32_t r[LANES]
    cdef const real *tap = pixels + offsets[0]
    cdef real v
    cdef int32_t i
    cdef int k
    cdef bint better
    for k in range(LANES):
        b[k] = tap[k]
        r[k] = 0
    for i in range(1, <int32_t>n_taps):
        tap = pixels + offsets[i]
        for k in range(LANES):
            v = tap[k]
            better = (v > b[k]) | (v != v)
            b[k] = v if better else b[k]
            r[k] = i if better else r[k]
    for k in range(LANES):
        best[k] = b[k]
    for k in range(LANES):
        row[k] = r[k]


cdef inline void max_columns(
    const real *rows_best,        # (..., n_lanes)  IN
    const int32_t *rows_row,      # (..., n_lanes)  IN
    const Py_ssize_t *offsets,    # (n_taps,)       IN
    Py_ssize_t n_taps,
    real *best,                   # (n_lanes,)      OUT
    int32_t *row,                 # (n_lanes,)      OUT
    int32_t *column,              # (n_lanes,)      OUT
    int n_lanes,
) noexcept nogil:
    """The largest of a row of column maxima, and where it is.

    Of equal ones the highest row wins, and there the first column; of NaNs the
    lowest row, and there the last column.
    """
    cdef real b[LANES]
    cdef int32_t r[LANES]
    cdef int32_t c[LANES]
    cdef const real *tap = rows_best + offsets[0]
    cdef const int32_t *tap_row = rows_row + offsets[0]
    cdef real v
    cdef int32_t u, j
    cdef int k
    cdef bint better
    for k in range(n_lanes):
        b[k] = tap[k]
        r[k] = tap_row[k]
        c[k] = 0
    for j in range(1, <int32_t>n_taps):
        tap = rows_best + offsets[j]
        tap_row = rows_row + offsets[j]
        for k in range(n_lanes):
            v = tap[k]
            u = tap_row[k]
            better = (
                (v > b[k])
                | ((v == b[k]) & (u < r[k]))
                | ((v != v) & ((b[k] == b[k]) | (u >= r[k])))
            )
            b[k] = v if better else b[k]
            r[k] = u if better else r[k]
            c[k] = j if better else c[k]
    for k in range(n_lanes):
        best[k] = b[k]
    for k in range(n_lanes):
        row[k] = r[k]
    for k in range(n_lanes):
        column[k] = c[k]


cdef inline void sum_taps(
    const real *values,           # (..., LANES)   IN
    const Py_ssize_t *offsets,    # (n_taps,)      IN
    Py_ssize_t n_taps,
    real *total,                  # (LANES,)       OUT
) noexcept nogil:
    cdef real t[LANES]
    cdef const real *tap = values + offsets[0]
    cdef Py_ssize_t i
    cdef int k
    for k in range(LANES):
        t[k] = tap[k]
    for i in range(1, n_taps):
        tap = values + offsets[i]
        for k in range(LANES):
            t[k] += tap[k]
    for k in range(LANES):
        total[k] = t[k]


# --- forward ----------------------------------------------------------------------

cdef void copy_row(
    const real *pixels,           # (img_w,)             IN
    real *scratch,                # (stride, ..., cells) OUT
    Py_ssize_t phase_size,        # from phase to phase
    Py_ssize_t size,
    const Span *cols,
) noexcept nogil:
    """Copy the pixels of a row that lie in the span, split into stride phases."""
    cdef Py_ssize_t x = max(0, cols.start), end = min(size, cols.start + cols.cells * cols.stride)
    cdef Py_ssize_t cell = (x - cols.start) // cols.stride
    cdef Py_ssize_t phase = (x - cols.start) - cell * cols.stride
    cdef Py_ssize_t i
    cdef const real *pairs
    cdef real *even
    cdef real *odd
    if cols.stride == 1:
        memcpy(scratch + cell, pixels + x, (end - x) * sizeof(real))
    elif cols.stride == 2:
        if phase == 1:
            scratch[phase_size + cell] = pixels[x]
            x, cell = x + 1, cell + 1
        pairs, even, odd = pixels + x, scratch + cell, scratch + phase_size + cell
        for i in range((end - x) // 2):
            even[i] = pairs[2 * i]
            odd[i] = pairs[2 * i + 1]
        if (end - x) % 2:
            even[(end - x) // 2] = pixels[end - 1]
    else:
        for i in range(x, end):
            scratch[phase * phase_size + cell] = pixels[i]
            phase += 1
            if phase == cols.stride:
                phase, cell = 0, cell + 1


cdef void copy_plane(const real *pixels, real *scratch, const Axis *height, const Axis *width,
                     const Span *rows, const Span *cols) noexcept nogil:
    cdef Py_ssize_t phase_size = rows.cells * cols.cells
    cdef Py_ssize_t y, phase, cell
    for y in range(max(0, rows.start), min(height.size, rows.start + rows.cells * rows.stride)):
        cell = (y - rows.start) // rows.stride
        phase = (y - rows.start) - cell * rows.stride
        copy_row(
            pixels + y * width.size,
            scratch + phase * cols.stride * phase_size + cell * cols.cells,
            phase_size, width.size, cols,
        )


cdef void write_maxima(
    const real *best, const int32_t *row, const int32_t *column,    # (rows.count, cols.cells) IN
    real *poolout,                # (out_h, out_w)     OUT
    cnp.npy_intp *switches,       # (out_h, out_w, 2)  OUT
    const Axis *height, const Axis *width, const Span *rows, const Span *cols,
) noexcept nogil:
    cdef Py_ssize_t y, i, n, place
    cdef int32_t top, stride = <int32_t>cols.stride, left = <int32_t>cols.start
    for y in range(rows.count):
        place = (rows.first + y) * width.out + cols.first
        n = cols.count
        # Whole vectors: what spills over is overwritten by the rows that follow.
        if n > 4 and n == width.out and place + round_up(n) <= height.out * width.out:
            n = round_up(n)
        top = <int32_t>(rows.start + y * rows.stride)
        for i in range(n):
            poolout[place + i] = best[y * cols.cells + i]
        # A window of nothing but -inf keeps its first tap, perhaps in the padding:
        # the pixel nearest to that is its first real one.
        for i in range(n):
            switches[2 * (place + i)] = max(row[y * cols.cells + i] + top, 0)
            switches[2 * (place + i) + 1] = max(
                column[y * cols.cells + i] + (<int32_t>i * stride + left), 0
            )


cdef void write_averages(
    const real *total,            # (rows.count, cols.cells)  IN
    const real *pixels_x,         # (cols.count,)             IN
    real *poolout,                # (out_h, out_w)            OUT
    bint include_pad,
    const Axis *height, const Axis *width, const Span *rows, const Span *cols,
) noexcept nogil:
    cdef Py_ssize_t y, i, n, place
    cdef real pixels_y
    for y in range(rows.count):
        place = (rows.first + y) * width.out + cols.first
        n = cols.count
        pixels_y = <real>(height.pool if include_pad else real_pixels(height, rows.first + y))
        for i in range(n):
            poolout[place + i] = total[y * cols.cells + i] / (pixels_y * pixels_x[i])


cdef void tap_offsets(const Span *rows, const Span *cols, Py_ssize_t columns_size,
                      Py_ssize_t *row_offsets, Py_ssize_t *col_offsets) noexcept nogil:
    """Where the value of each tap stands, from the place of its output on."""
    cdef Py_ssize_t i
    for i in range(rows.taps):
        row_offsets[i] = (
            (i % rows.stride) * cols.stride * rows.cells + i // rows.stride
        ) * cols.cells
    for i in range(cols.taps):
        col_offsets[i] = (i % cols.stride) * columns_size + i // cols.stride


cdef void pool_block(
    const real *pixels,           # (img_h, img_w) or scratch  IN
    real *poolout,                # (out_h, out_w)             OUT
    cnp.npy_intp *switches,       # (out_h, out_w, 2)          OUT, NULL for averages
    bint include_pad,
    const Axis *height, const Axis *width, const Span *rows, const Span *cols,
    const Buffers *room,
    real *buffer,                 # (room.total - room.scratch,)
) noexcept nogil:
    """The outputs of one block."""
    cdef real *rows_best = buffer
    cdef real *best = buffer + 2 * room.rows
    cdef int32_t *rows_row = <int32_t *>(buffer + room.rows)
    cdef int32_t *row = <int32_t *>(best + room.columns)
    cdef int32_t *column = <int32_t *>(best + 2 * room.columns)
    cdef real *pixels_x = best + 3 * room.columns
    cdef Py_ssize_t *row_offsets = <Py_ssize_t *>(pixels_x + round_up(width.block))
    cdef Py_ssize_t *col_offsets = row_offsets + rows.taps
    cdef Py_ssize_t n_runs = round_up(rows.count * cols.cells) // LANES
    cdef Py_ssize_t phase, i, x, at
    for phase in range(cols.stride):
        for i in range(n_runs):
            x = phase * rows.cells * cols.cells + i * LANES
            at = phase * room.columns + i * LANES
            if switches != NULL:
                max_rows(pixels + x, row_offsets, rows.taps, rows_best + at, rows_row + at)
            else:
                sum_taps(pixels + x, row_offsets, rows.taps, rows_best + at)
    if switches == NULL:
        for i in range(n_runs):
            sum_taps(rows_best + i * LANES, col_offsets, cols.taps, best + i * LANES)
        write_averages(best, pixels_x, poolout, include_pad, height, width, rows, cols)
        return
    if cols.count <= 2:           # one by one is cheaper than LANES at once
        for i in range(rows.count):
            for at in range(i * cols.cells, i * cols.cells + cols.count):
                max_columns(rows_best + at, rows_row + at, col_offsets, cols.taps,
                            best + at, row + at, column + at, 1)
    else:
        for i in range(n_runs):
            at = i * LANES
            max_columns(rows_best + at, rows_row + at, col_offsets, cols.taps,
                        best + at, row + at, column + at, LANES)
    write_maxima(best, row, column, poolout, switches, height, width, rows, cols)


cdef void pool_planes(
    const real *imgs,             # (n_planes, img_h, img_w)     IN
    real *poolout,                # (n_planes, out_h, out_w)     OUT
    cnp.npy_intp *switches,       # (n_planes, out_h, out_w, 2)  OUT, NULL for averages
    Py_ssize_t first, Py_ssize_t last, Py_ssize_t n_planes,
    const Axis *height, const Axis *width, bint include_pad, const Buffers *room,
    real *buffer,                 # (room.total,)
) noexcept nogil:
    """Planes first to last, block by block: every plane has the same blocks."""
    cdef Py_ssize_t img_size = height.size * width.size, out_size = height.out * width.out
    cdef Py_ssize_t y, x, i, n_direct
    cdef real *pixels_x = buffer + room.scratch + 2 * room.rows + 3 * room.columns
    cdef Py_ssize_t *offsets = <Py_ssize_t *>(pixels_x + round_up(width.block))
    cdef Span rows, cols
    memset(buffer, 0, room.total * sizeof(real))
    for y in range((height.out + height.block - 1) // height.block):
        rows = span_of(height, y * height.block)
        for x in range((width.out + width.block - 1) // width.block):
            cols = span_of(width, x * width.block)
            tap_offsets(&rows, &cols, room.columns, offsets, offsets + rows.taps)
            for i in range(room.scratch):
                buffer[i] = <real>(-INFINITY if switches != NULL else 0)
            for i in range(cols.count):
                pixels_x[i] = <real>(width.pool if include_pad else real_pixels(width, cols.first + i))
            # A block without padding and strides needs no copy, unless its last vector
            # would read over the end of the images.
            n_direct = 0
            if (rows.stride == 1 and cols.stride == 1 and rows.start >= 0 and cols.start == 0
                    and cols.cells == width.size and rows.start + rows.cells <= height.size):
                n_direct = n_planes - 1 - (LANES - 1) // img_size
            for i in range(first, last):
                if i < n_direct:
                    pool_block(
                        imgs + i * img_size + rows.start * width.size, poolout + i * out_size,
                        switches + 2 * i * out_size if switches != NULL else NULL,
                        include_pad, height, width, &rows, &cols, room, buffer + room.scratch,
                    )
                else:
                    copy_plane(imgs + i * img_size, buffer, height, width, &rows, &cols)
                    pool_block(
                        buffer, poolout + i * out_size,
                        switches + 2 * i * out_size if switches != NULL else NULL,
                        include_pad, height, width, &rows, &cols, room, buffer + room.scratch,
                    )


cdef void max_2x2(
    const real *top,              # (2 * n,)  IN
    const real *bottom,           # (2 * n,)  IN
    real *poolout,                # (n,)      OUT
    cnp.npy_intp *switches,       # (n, 2)    OUT
    Py_ssize_t n, int32_t row,
) noexcept nogil:
    """A row of outputs of non-overlapping 2x2 windows without padding."""
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


cdef void max_2x2_planes(
    const real *imgs, real *poolout, cnp.npy_intp *switches,
    Py_ssize_t first, Py_ssize_t last, const Axis *height, const Axis *width,
) noexcept nogil:
    cdef Py_ssize_t i, y, n, place, out_size = height.out * width.out
    cdef const real *img
    for i in range(first, last):
        img = imgs + i * height.size * width.size
        for y in range(height.out):
            place = y * width.out
            n = width.out
            # Whole vectors: what spills over is overwritten by the rows that follow.
            if n > 4 and place + (n + 15) // 16 * 16 <= out_size - width.out:
                n = (n + 15) // 16 * 16
            place += i * out_size
            max_2x2(img + 2 * y * width.size, img + (2 * y + 1) * width.size,
                    poolout + place, switches + 2 * place, n, <int32_t>(2 * y))


# --- backward ---------------------------------------------------------------------

cdef bint switches_outside(const cnp.npy_intp *switches, Py_ssize_t n,
                           Py_ssize_t img_h, Py_ssize_t img_w) noexcept nogil:
    """Whether any of n switches is outside the image: its sign bit, or that of what is left, is set."""
    cdef size_t bad = 0
    cdef Py_ssize_t i
    for i in range(n):
        bad |= <size_t>switches[2 * i] | (<size_t>(img_h - 1) - <size_t>switches[2 * i])
        bad |= <size_t>switches[2 * i + 1] | (<size_t>(img_w - 1) - <size_t>switches[2 * i + 1])
    return <cnp.npy_intp>bad < 0


cdef void scatter_planes(
    const real *poolout_grad,     # (n_planes, out_size)      IN
    const cnp.npy_intp *switches, # (n_planes, out_size, 2)   IN
    real *imgs_grad,              # (n_planes, img_h, img_w)  OUT
    Py_ssize_t first, Py_ssize_t last, Py_ssize_t out_size, Py_ssize_t img_h, Py_ssize_t img_w,
) noexcept nogil:
    """Each output's gradient goes to its maximum."""
    cdef Py_ssize_t i, o
    cdef real *img
    for i in range(first, last):
        img = imgs_grad + i * img_h * img_w
        memset(img, 0, img_h * img_w * sizeof(real))
        for o in range(i * out_size, (i + 1) * out_size):
            img[switches[2 * o] * img_w + switches[2 * o + 1]] += poolout_grad[o]


cdef void spread_planes(
    const real *poolout_grad,     # (n_planes, out_h, out_w)  IN
    real *imgs_grad,              # (n_planes, img_h, img_w)  OUT
    Py_ssize_t first, Py_ssize_t last, const Axis *height, const Axis *width, bint include_pad,
    real *spread,                 # (out_h, img_w)
) noexcept nogil:
    """Each output's gradient goes in equal parts to its window: first along rows, then columns."""
    cdef Py_ssize_t i, y, x, start, col, top, bottom, img_w = width.size
    cdef real part
    cdef Py_ssize_t pixels_y
    cdef real *row
    for i in range(first, last):
        memset(spread, 0, height.out * img_w * sizeof(real))
        for y in range(height.out):
            row = spread + y * img_w
            pixels_y = height.pool if include_pad else real_pixels(height, y)
            for x in range(width.out):
                start = width.start + x * width.stride
                part = poolout_grad[(i * height.out + y) * width.out + x] / <real>(
                    pixels_y * (width.pool if include_pad else real_pixels(width, x))
                )
                for col in range(max(start, 0), min(start + width.pool, img_w)):
                    row[col] += part
        for y in range(height.size):
            row = imgs_grad + (i * height.size + y) * img_w
            # the windows that cover this row
            top = max(0, (y - height.start - height.pool + height.stride) // height.stride)
            bottom = min(height.out, (y - height.start) // height.stride + 1)
            if top >= bottom:
                memset(row, 0, img_w * sizeof(real))
                continue
            memcpy(row, spread + top * img_w, img_w * sizeof(real))
            for x in range(top + 1, bottom):
                for col in range(img_w):
                    row[col] += spread[x * img_w + col]


# --- threads ----------------------------------------------------------------------

cdef void run_forward(
    const real *imgs, real *poolout, cnp.npy_intp *switches, Py_ssize_t n_planes,
    Axis height, Axis width, bint include_pad, int n_threads,
) except *:
    cdef bint twos = (
        switches != NULL and height.pool == 2 and width.pool == 2
        and height.stride == 2 and width.stride == 2 and height.start == 0 and width.start == 0
        and 2 * height.out <= height.size and 2 * width.out <= width.size
    )
    cdef Buffers room = buffers_of(&height, &width)
    cdef cnp.ndarray buffers = np.empty(0 if twos else n_threads * room.total + 16, c_type(imgs))
    cdef size_t start = <size_t>cnp.PyArray_DATA(buffers)
    cdef real *buffer = <real *>((start + 63) // 64 * 64)    # aligned for vectors
    cdef Py_ssize_t t, first, last
    for t in prange(n_threads, num_threads=n_threads, schedule="static", nogil=True):
        first, last = t * n_planes // n_threads, (t + 1) * n_planes // n_threads
        if twos:
            max_2x2_planes(imgs, poolout, switches, first, last, &height, &width)
        else:
            pool_planes(imgs, poolout, switches, first, last, n_planes, &height, &width,
                        include_pad, &room, buffer + t * room.total)


cdef void run_spread(
    const real *poolout_grad, real *imgs_grad, Py_ssize_t n_planes,
    Axis height, Axis width, bint include_pad, int n_threads,
) except *:
    cdef Py_ssize_t size = height.out * width.size
    cdef cnp.ndarray buffers = np.empty((n_threads, size), c_type(imgs_grad))
    cdef real *buffer = <real *>cnp.PyArray_DATA(buffers)
    cdef Py_ssize_t t
    for t in prange(n_threads, num_threads=n_threads, schedule="static", nogil=True):
        spread_planes(poolout_grad, imgs_grad, t * n_planes // n_threads,
                      (t + 1) * n_planes // n_threads, &height, &width, include_pad,
                      buffer + t * size)


cdef void run_scatter(
    const real *poolout_grad, const cnp.npy_intp *switches, real *imgs_grad,
    Py_ssize_t n_planes, Py_ssize_t out_size, Py_ssize_t img_h, Py_ssize_t img_w, int n_threads,
) noexcept:
    cdef Py_ssize_t t
    for t in prange(n_threads, num_threads=n_threads, schedule="static", nogil=True):
        scatter_planes(poolout_grad, switches, imgs_grad, t * n_planes // n_threads,
                       (t + 1) * n_planes // n_threads, out_size, img_h, img_w)


cdef object c_type(const real *unused):
    """The dtype of a kernel's arrays."""
    return np.float32 if real is float else np.float64


# --- the public functions ----------------------------------------------------------

cdef str IMG_AXES = "n_imgs, n_channels, img_h, img_w"
cdef str OUT_AXES = "n_imgs, n_channels, out_h, out_w"


cdef bint check_options(object mode, object count_include_pad) except -1:
    """Whether the maximum is asked for."""
    if not isinstance(mode, str):
        raise TypeError(f"mode is {mode!r}, expected 'max' or 'avg'")
    if mode != "max" and mode != "avg":
        raise ValueError(f"mode is {mode!r}, expected 'max' or 'avg'")
    if not isinstance(count_include_pad, (bool, np.bool_)):
        raise TypeError(f"count_include_pad is {count_include_pad!r}, expected True or False")
    return mode == "max"


cdef void refuse_switches(object switches) except *:
    if switches is not None:
        raise TypeError(f"switches is {describe(switches)}, expected None for mode 'avg'")


cdef int threads_for(object n_threads, Py_ssize_t n_planes, double work) except 0:
    """The threads of one call: little work stays on one."""
    n_threads = kernels.call_threads(n_threads)
    return 1 if work < SMALL_WORK else max(1, min(<Py_ssize_t>n_threads, n_planes))


def pool_bc01(
    imgs,           # (n_imgs, n_channels, img_h, img_w)              IN
    poolout,        # (n_imgs, n_channels, out_h, out_w)              OUT
    switches,       # (n_imgs, n_channels, out_h, out_w, 2)           OUT
    pool_h,
    pool_w,
    stride_y,
    stride_x,
    *,
    mode="max",
    padding_mode="centered",
    count_include_pad=False,
    n_threads=None,
):
    """Summarise windows of images by their maximum or their average.

    Parameters
    ----------
    imgs : ndarray (n_imgs, n_channels, img_h, img_w), float32 or float64
    poolout : ndarray (n_imgs, n_channels, out_h, out_w), same dtype, or None
        Filled and returned; None allocates it. It may share memory with no other array.
    switches : ndarray (n_imgs, n_channels, out_h, out_w, 2), intp, or None
        Filled with the row and the column of each maximum in its image; None allocates it.
        For averages there are none: it must be None, and None is returned.
    pool_h, pool_w, stride_y, stride_x : int
        Size of the windows, and steps between them, in pixels.
    mode : {'max', 'avg'}
        Of equal maxima the first in row-major order counts. NaN is larger than any number,
        and the last of several counts (both as in PyTorch).
    padding_mode : {'centered', 'valid', 'same', 'full'}, int, (y, x) or ((top, bottom), (left, right))
        'centered': out = img // stride, and windows start at i * stride - (pool - 1) // 2.
        The others as for `conv_bc01`. Padding is never a maximum and adds nothing to a sum.
    count_include_pad : bool
        Divide sums by pool_h * pool_w, not by the number of real pixels in the window.
    n_threads : int, optional
        Default: `nnet.get_num_threads()`. It changes no bit of the result.

    Returns
    -------
    poolout : ndarray
    switches : ndarray, or None for averages

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit.
    """
    cdef cnp.ndarray imgs_ = check_array(imgs, "imgs", IMG_AXES, None, "")
    cdef bint is_max = check_options(mode, count_include_pad)
    cdef bint include_pad = count_include_pad
    cdef cnp.ndarray where = None, where_work = None
    cdef cnp.npy_intp *where_data = NULL
    geometry = pool_geometry(
        *shape_of(imgs_)[2:], pool_h, pool_w, stride_y, stride_x, padding_mode
    )
    shape = (*shape_of(imgs_)[:2], geometry.out_h, geometry.out_w)
    cdef Axis height = axis_of(
        cnp.PyArray_DIM(imgs_, 2), geometry.out_h, pool_h, geometry.stride_y, geometry.top
    )
    cdef Axis width = axis_of(
        cnp.PyArray_DIM(imgs_, 3), geometry.out_w, pool_w, geometry.stride_x, geometry.left
    )
    cdef Py_ssize_t n_planes = cnp.PyArray_DIM(imgs_, 0) * cnp.PyArray_DIM(imgs_, 1)
    cdef int threads = threads_for(
        n_threads, n_planes, <double>n_planes * height.out * width.out * height.pool * width.pool
    )
    if not is_max:
        refuse_switches(switches)
    cdef cnp.ndarray out = check_output(poolout, "poolout", shape, imgs_.dtype)
    if is_max:
        where = check_output(switches, "switches", (*shape, 2), INTP)
        refuse_overlap(where, "switches", imgs, "imgs")
        refuse_overlap(where, "switches", out, "poolout")
    refuse_overlap(out, "poolout", imgs, "imgs")
    if n_planes == 0:
        return out, where
    imgs_ = contiguous(imgs_)
    cdef cnp.ndarray work = work_array(out)
    if is_max:
        where_work = work_array(where)
        where_data = <cnp.npy_intp *>cnp.PyArray_DATA(where_work)
    if cnp.PyArray_TYPE(imgs_) == cnp.NPY_FLOAT:
        run_forward[float](
            <const float *>cnp.PyArray_DATA(imgs_), <float *>cnp.PyArray_DATA(work), where_data,
            n_planes, height, width, include_pad, threads,
        )
    else:
        run_forward[double](
            <const double *>cnp.PyArray_DATA(imgs_), <double *>cnp.PyArray_DATA(work), where_data,
            n_planes, height, width, include_pad, threads,
        )
    deliver(out, work)
    if is_max:
        deliver(where, where_work)
    return out, where


def bprop_pool_bc01(
    poolout_grad,   # (n_imgs, n_channels, out_h, out_w)              IN
    switches,       # (n_imgs, n_channels, out_h, out_w, 2)           IN
    imgs_grad,      # (n_imgs, n_channels, img_h, img_w)              OUT
    pool_h=None,
    pool_w=None,
    stride_y=None,
    stride_x=None,
    *,
    mode="max",
    padding_mode="centered",
    count_include_pad=False,
    n_threads=None,
):
    """Carry the gradient of `pool_bc01` back to its images.

    Where windows overlap, their gradients add up.

    Parameters
    ----------
    poolout_grad : ndarray (n_imgs, n_channels, out_h, out_w), float32 or float64
    switches : ndarray (n_imgs, n_channels, out_h, out_w, 2), intp, or None
        Where the maxima are, as `pool_bc01` gave them; None for averages.
    imgs_grad : ndarray (n_imgs, n_channels, img_h, img_w), same dtype
        Filled and returned. It cannot be None: poolout_grad does not tell the size of the
        images. It may share memory with no other array.
    pool_h, pool_w, stride_y, stride_x : int
        As in `pool_bc01`. Averages need them. Maxima do not: give all, and they are checked
        against the shapes, or none.
    mode, padding_mode, count_include_pad, n_threads
        As in `pool_bc01`.

    Returns
    -------
    imgs_grad : ndarray

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit; also for
        switches that are outside the images.
    """
    cdef cnp.ndarray grad = check_array(poolout_grad, "poolout_grad", OUT_AXES, None, "")
    cdef bint is_max = check_options(mode, count_include_pad)
    cdef bint include_pad = count_include_pad
    cdef cnp.ndarray where = None
    if imgs_grad is None:
        raise TypeError("imgs_grad is None, expected an array of the images' shape")
    cdef cnp.ndarray out = check_array(imgs_grad, "imgs_grad", IMG_AXES, grad, "poolout_grad")
    geometry = check_backward_geometry(
        shape_of(out), pool_h, pool_w, stride_y, stride_x, padding_mode, is_max
    )
    out_h, out_w = (geometry.out_h, geometry.out_w) if geometry else shape_of(grad)[2:]
    check_shape(grad, "poolout_grad", (*shape_of(out)[:2], out_h, out_w))
    cdef Py_ssize_t n_planes = cnp.PyArray_DIM(out, 0) * cnp.PyArray_DIM(out, 1)
    cdef int threads = threads_for(n_threads, n_planes, <double>cnp.PyArray_SIZE(out))
    check_output(imgs_grad, "imgs_grad", shape_of(out), grad.dtype)
    refuse_overlap(out, "imgs_grad", poolout_grad, "poolout_grad")
    if is_max:
        where = check_switches(switches, shape_of(grad), shape_of(out))
        refuse_overlap(out, "imgs_grad", switches, "switches")
    else:
        refuse_switches(switches)
    if n_planes == 0:
        return out
    grad = contiguous(grad)
    cdef cnp.ndarray work = work_array(out)
    if cnp.PyArray_TYPE(grad) == cnp.NPY_FLOAT:
        backward[float](
            <const float *>cnp.PyArray_DATA(grad), where, <float *>cnp.PyArray_DATA(work),
            n_planes, shape_of(grad), shape_of(out), geometry, pool_h, pool_w, include_pad, threads,
        )
    else:
        backward[double](
            <const double *>cnp.PyArray_DATA(grad), where, <double *>cnp.PyArray_DATA(work),
            n_planes, shape_of(grad), shape_of(out), geometry, pool_h, pool_w, include_pad, threads,
        )
    deliver(out, work)
    return out


cdef void backward(
    const real *poolout_grad, cnp.ndarray switches, real *imgs_grad, Py_ssize_t n_planes,
    tuple out_shape, tuple img_shape, object geometry, object pool_h, object pool_w,
    bint include_pad, int threads,
) except *:
    cdef Axis height, width
    if switches is not None:
        run_scatter[real](
            poolout_grad, <const cnp.npy_intp *>cnp.PyArray_DATA(switches), imgs_grad, n_planes,
            out_shape[2] * out_shape[3], img_shape[2], img_shape[3], threads,
        )
    else:
        height = axis_of(
            img_shape[2], geometry.out_h, pool_h, geometry.stride_y, geometry.top
        )
        width = axis_of(
            img_shape[3], geometry.out_w, pool_w, geometry.stride_x, geometry.left
        )
        run_spread[real](poolout_grad, imgs_grad, n_planes, height, width, include_pad, threads)


cdef object check_backward_geometry(tuple img_shape, object pool_h, object pool_w, object stride_y,
                                    object stride_x, object padding_mode, bint is_max):
    """The geometry, or None for maxima without one."""
    sizes = pool_h, pool_w, stride_y, stride_x
    if None not in sizes:
        return pool_geometry(*img_shape[2:], *sizes, padding_mode)
    if not is_max:
        raise TypeError(
            f"(pool_h, pool_w, stride_y, stride_x) is {sizes}, expected four ints for mode 'avg'"
        )
    if sizes.count(None) < 4:
        raise TypeError(
            f"(pool_h, pool_w, stride_y, stride_x) is {sizes}, expected four ints or four times None"
        )


cdef cnp.ndarray check_switches(object switches, tuple out_shape, tuple img_shape):
    """Switches, contiguous, all of them inside the images."""
    if not isinstance(switches, np.ndarray):
        raise TypeError(f"switches is {describe(switches)}, expected a NumPy array for mode 'max'")
    if switches.dtype != INTP:
        raise TypeError(f"switches has dtype {switches.dtype}, expected {INTP}")
    check_shape(switches, "switches", (*out_shape, 2))
    cdef cnp.ndarray where = contiguous(switches)
    cdef Py_ssize_t img_h = img_shape[2], img_w = img_shape[3]
    cdef bint outside
    with nogil:
        outside = switches_outside(
            <const cnp.npy_intp *>cnp.PyArray_DATA(where), cnp.PyArray_SIZE(where) // 2,
            img_h, img_w,
        )
    if outside:
        wrong = ((where < 0) | (where >= np.array(img_shape[2:]))).any(axis=-1)
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"switches{list(place)} is {tuple(where[place].tolist())}, expected a row and a column "
            f"of images of size {img_shape[2:]}"
        )
    return where


INTP = np.dtype(np.intp)
KERNELS = (pool_bc01, bprop_pool_bc01)    # of this very target

# Whoever comes through this door gets the functions of the chosen target.
if __name__ == "nnet._pool" and kernels.TARGET != "baseline":
    pool_bc01, bprop_pool_bc01 = kernels.load("_pool")
