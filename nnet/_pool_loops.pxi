# The inner loops of pooling: LANES outputs at once, without branches, so that the
# compiler makes vector instructions of them. One value of each output is one tap; the
# taps stand at `offsets` from the place of the first output on.
#
# Why they look as they do, for gcc 12: a constant loop of up to 16 turns is unrolled
# before the search for vectors, which then finds none; and a loop over taps with a single
# loop over lanes inside is unrolled and jammed, with the same end. So LANES is 32, and
# there are two loops inside. Their comparisons are done once: they merge again later.

from libc.stdint cimport int32_t
from libc.string cimport memcpy

ctypedef fused real:
    float
    double

cdef enum:
    LANES = 32


cdef inline Py_ssize_t round_up(Py_ssize_t n) noexcept nogil:
    return (n + LANES - 1) // LANES * LANES


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
            r[k] = i if better else r[k]
        for k in range(LANES):
            v = tap[k]
            better = (v > b[k]) | (v != v)
            b[k] = v if better else b[k]
    for k in range(LANES):
        best[k] = b[k]
    for k in range(LANES):
        row[k] = r[k]


cdef inline bint beats(real v, int32_t row, real best, int32_t best_row) noexcept nogil:
    """Whether v, one column further right, is the new maximum.

    Of equal values the one in the higher row stays, and there the first; of NaNs
    the one in the lower row, and there the last.
    """
    return (
        (v > best)
        | ((v == best) & (row < best_row))
        | ((v != v) & ((best == best) | (row >= best_row)))
    )


cdef inline void max_columns(
    const real *rows_best,        # (..., LANES)  IN
    const int32_t *rows_row,      # (..., LANES)  IN
    const Py_ssize_t *offsets,    # (n_taps,)     IN
    Py_ssize_t n_taps,
    real *best,                   # (LANES,)      OUT
    int32_t *row,                 # (LANES,)      OUT
    int32_t *column,              # (LANES,)      OUT
) noexcept nogil:
    """The largest of a row of column maxima, and where it is in its window."""
    cdef real b[LANES]
    cdef int32_t r[LANES]
    cdef int32_t c[LANES]
    cdef const real *tap = rows_best + offsets[0]
    cdef const int32_t *tap_row = rows_row + offsets[0]
    cdef real v
    cdef int32_t u, j
    cdef int k
    cdef bint better
    for k in range(LANES):
        b[k] = tap[k]
        r[k] = tap_row[k]
        c[k] = 0
    for j in range(1, <int32_t>n_taps):
        tap = rows_best + offsets[j]
        tap_row = rows_row + offsets[j]
        for k in range(LANES):
            c[k] = j if beats(tap[k], tap_row[k], b[k], r[k]) else c[k]
        for k in range(LANES):
            v = tap[k]
            u = tap_row[k]
            better = beats(v, u, b[k], r[k])
            b[k] = v if better else b[k]
            r[k] = u if better else r[k]
    for k in range(LANES):
        best[k] = b[k]
    for k in range(LANES):
        row[k] = r[k]
    for k in range(LANES):
        column[k] = c[k]


cdef inline void max_columns_of_one(
    const real *rows_best, const int32_t *rows_row, const Py_ssize_t *offsets, Py_ssize_t n_taps,
    real *best, int32_t *row, int32_t *column,
) noexcept nogil:
    """The same for a single output."""
    cdef real v, b = rows_best[offsets[0]]
    cdef int32_t u, r = rows_row[offsets[0]]
    cdef int32_t j, c = 0
    for j in range(1, <int32_t>n_taps):
        v = rows_best[offsets[j]]
        if v < b:                 # a branch that is seldom wrong
            continue
        u = rows_row[offsets[j]]
        if beats(v, u, b, r):
            b, r, c = v, u, j
    best[0], row[0], column[0] = b, r, c


cdef inline void sum_taps(
    const real *values,           # (..., LANES)   IN
    const Py_ssize_t *offsets,    # (n_taps,)      IN
    Py_ssize_t n_taps,
    real *total,                  # (LANES,)       OUT
) noexcept nogil:
    cdef real even[LANES]
    cdef real odd[LANES]
    cdef const real *a
    cdef const real *b
    cdef const real *c
    cdef Py_ssize_t i
    cdef int k
    if n_taps == 1:
        memcpy(total, values + offsets[0], LANES * sizeof(real))
        return
    if n_taps == 2:
        a, b = values + offsets[0], values + offsets[1]
        for k in range(LANES):
            total[k] = a[k] + b[k]
        return
    if n_taps == 3:
        a, b, c = values + offsets[0], values + offsets[1], values + offsets[2]
        for k in range(LANES):
            total[k] = a[k] + b[k] + c[k]
        return
    for k in range(LANES):
        even[k] = 0
        odd[k] = 0
    for i in range(n_taps // 2):
        a, b = values + offsets[2 * i], values + offsets[2 * i + 1]
        for k in range(LANES):
            even[k] += a[k]
        for k in range(LANES):
            odd[k] += b[k]
    if n_taps % 2:
        a = values + offsets[n_taps - 1]
        for k in range(LANES):
            even[k] += a[k]
    for k in range(LANES):
        total[k] = even[k] + odd[k]
