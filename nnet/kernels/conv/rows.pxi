# Correlation of single features, for depthwise filters and images of one channel.
#
# With one feature at a time, the usual tile would load a vector of pixels for each
# multiply-add. This one keeps several rows of outputs in registers: a row of pixels,
# once loaded, serves all taps of a column of the filter, each for another output row.
#
#     column of taps: w0     row 0 of pixels:  outputs 0 += w0
#                     w1     row 1             outputs 1 += w0,  outputs 0 += w1
#                     w2     row 2             outputs 2 += w0,  outputs 1 += w1,  outputs 0 += w2
#                            ...
#
# With strides and dilation the taps of a column are those of one phase: `every`
# rows apart, as the output rows of a tile then are.

cdef extern from "conv/rows.h":
    void add_column(...) noexcept nogil

cdef enum:
    MIN_ROWS = 4            # of outputs in a tile
    MAX_ROWS = 8
    MAX_COLUMN = 5          # taps; longer columns are cut

cdef struct Columns:
    Py_ssize_t n[MAX_COLUMN + 1]        # how many columns there are of each length
    Py_ssize_t *at                      # where their first taps are read, the longest columns first
    void *weights                       # (n_features, n_taps) of the columns, one after another
    Py_ssize_t every
    int tile_rows


cdef inline void add_columns(
    real *acc,                          # (n_rows, n_vectors, lanes)                IN/OUT
    const Py_ssize_t *at, Py_ssize_t n_columns, const real *weights, const real *src,
    Py_ssize_t src_pitch, Py_ssize_t second, const int length, const int n_rows,
    const int n_vectors,
) noexcept nogil:
    cdef Py_ssize_t c
    for c in range(n_columns):
        add_column(acc, weights + c * length, src + at[c], src_pitch, second, length, n_rows,
                   n_vectors)


cdef inline void rows_tile(
    real *out,                          # (n_rows, ...), rows out_pitch apart       OUT
    Py_ssize_t out_pitch,
    const real *src,                    # the packed pixels, rows src_pitch apart
    Py_ssize_t src_pitch,
    Py_ssize_t second,                  # from the first vector of a row to the second
    const Columns *columns,
    const real *weights,
    real bias,
    bint with_relu,
    const int n_rows,
    const int n_vectors,
) noexcept nogil:
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real acc[MAX_ROWS * 2 * LANES]
    cdef const Py_ssize_t *at = columns.at
    cdef int r, v
    if n_vectors > ROW_VECTORS:
        return  # never asked for
    for r in range(n_rows * n_vectors):
        fill(acc + r * lanes, bias)
    add_columns(acc, at, columns.n[5], weights, src, src_pitch, second, 5, n_rows, n_vectors)
    at, weights = at + columns.n[5], weights + 5 * columns.n[5]
    add_columns(acc, at, columns.n[4], weights, src, src_pitch, second, 4, n_rows, n_vectors)
    at, weights = at + columns.n[4], weights + 4 * columns.n[4]
    add_columns(acc, at, columns.n[3], weights, src, src_pitch, second, 3, n_rows, n_vectors)
    at, weights = at + columns.n[3], weights + 3 * columns.n[3]
    add_columns(acc, at, columns.n[2], weights, src, src_pitch, second, 2, n_rows, n_vectors)
    at, weights = at + columns.n[2], weights + 2 * columns.n[2]
    add_columns(acc, at, columns.n[1], weights, src, src_pitch, second, 1, n_rows, n_vectors)
    for r in range(n_rows):
        for v in range(n_vectors):
            if with_relu:
                relu(acc + (r * n_vectors + v) * lanes)
            store(out + r * out_pitch + v * second, acc + (r * n_vectors + v) * lanes)


cdef inline void rows_tiles(
    real *out, Py_ssize_t out_pitch, const real *src, Py_ssize_t src_pitch, Py_ssize_t cols,
    const Columns *columns, const real *weights, real bias, bint with_relu, const int n_rows,
) noexcept nogil:
    """One tile's rows of outputs, in all of their columns."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t x = 0
    while x < cols:
        if ROW_VECTORS == 2 and cols - x > lanes:
            rows_tile(out + x, out_pitch, src + x, src_pitch,
                      min(lanes, cols - x - lanes), columns, weights, bias, with_relu, n_rows, 2)
            x += 2 * lanes
        else:
            # The last vector of a row is moved back to end with it.
            x = max(<Py_ssize_t>0, min(x, cols - lanes))
            rows_tile(out + x, out_pitch, src + x, src_pitch, 0, columns, weights, bias,
                      with_relu, n_rows, 1)
            x += lanes


cdef void correlate_rows(
    real *out, Py_ssize_t out_pitch, const real *src, Py_ssize_t src_pitch, Py_ssize_t rows,
    Py_ssize_t cols, const Columns *columns, const real *weights, real bias, bint with_relu,
) noexcept nogil:
    """All output pixels of one feature."""
    cdef Py_ssize_t first, n, y, every = columns.every
    cdef real *to
    cdef const real *at
    for first in range(every):
        n = ceil_div(rows - first, every)
        y = 0
        while y < n:
            y = min(y, n - columns.tile_rows)
            to = out + (first + y * every) * out_pitch
            at = src + (first + y * every) * src_pitch
            if columns.tile_rows == 4:
                rows_tiles(to, every * out_pitch, at, every * src_pitch, cols, columns, weights,
                           bias, with_relu, 4)
            elif columns.tile_rows == 5:
                rows_tiles(to, every * out_pitch, at, every * src_pitch, cols, columns, weights,
                           bias, with_relu, 5)
            elif columns.tile_rows == 6:
                rows_tiles(to, every * out_pitch, at, every * src_pitch, cols, columns, weights,
                           bias, with_relu, 6)
            elif columns.tile_rows == 7:
                rows_tiles(to, every * out_pitch, at, every * src_pitch, cols, columns, weights,
                           bias, with_relu, 7)
            else:
                rows_tiles(to, every * out_pitch, at, every * src_pitch, cols, columns, weights,
                           bias, with_relu, 8)
            y += columns.tile_rows


cdef int best_tile_rows(Py_ssize_t rows) noexcept nogil:
    """The tile height that walks the fewest rows, with two more at the ends of each tile."""
    cdef int n, best = MIN_ROWS
    for n in range(MIN_ROWS + 1, min(rows, MAX_ROWS) + 1):
        if ceil_div(rows, n) * (n + 2) <= ceil_div(rows, best) * (best + 2):
            best = n
    return best


cdef Columns *plan_columns(
    const real *weights, Py_ssize_t n_features, const Py_ssize_t *tap_at, Py_ssize_t n_taps,
    Py_ssize_t n_i, Py_ssize_t n_j, Py_ssize_t step, Py_ssize_t every, Py_ssize_t rows,
    Workspace space,
) except NULL:
    """The taps (c, i, j) of a pass as columns, every |step|-th row of taps in the same one.

    A negative step says that later rows of taps read earlier rows of pixels.
    """
    cdef Columns *columns = <Columns *>space.take(sizeof(Columns))
    cdef Py_ssize_t stride = step if step > 0 else -step
    cdef Py_ssize_t length, c, j, phase, n, cut, k, f, i, m = 0, t = 0
    cdef real *packed
    columns.every = every
    columns.tile_rows = best_tile_rows(rows // every)
    columns.at = <Py_ssize_t *>space.take(n_taps * sizeof(Py_ssize_t))
    cdef Py_ssize_t *first = <Py_ssize_t *>space.take(n_taps * sizeof(Py_ssize_t))
    for length in range(MAX_COLUMN, 0, -1):
        columns.n[length] = 0
        for c in range(n_taps // max(n_i * n_j, <Py_ssize_t>1)):
            for phase in range(min(stride, n_i)):
                n = ceil_div(n_i - phase, stride)
                for cut in range(ceil_div(n, MAX_COLUMN)):
                    k = ceil_div(n, MAX_COLUMN)
                    i = cut * n // k
                    if (cut + 1) * n // k - i != length:
                        continue
                    # Tap i of the column, counted from the one that reads the first row.
                    i = phase + i * stride if step > 0 else phase + (n - 1 - i) * stride
                    for j in range(n_j):
                        first[m] = (c * n_i + i) * n_j + j
                        columns.at[m] = tap_at[first[m]]
                        columns.n[length] += 1
                        m += 1
    packed = <real *>space.take(n_features * n_taps * sizeof(real))
    columns.weights = packed
    for f in range(n_features):
        m = 0
        for length in range(MAX_COLUMN, 0, -1):
            for c in range(columns.n[length]):
                for i in range(length):
                    packed[t] = weights[f * n_taps + first[m] + i * step * n_j]
                    t += 1
                m += 1
    return columns
