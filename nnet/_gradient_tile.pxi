# The register tiles of a filter gradient: taps x features, summed over pixels.

cdef inline void dot_tile(
    real *part,                     # (n_taps, ...), taps part_pitch apart          IN/OUT
    Py_ssize_t part_pitch,
    const real *src,                # the packed images
    Py_ssize_t src_pitch,
    const Py_ssize_t *tap_at,       # (n_taps,) where each tap of the first pixel is read
    const real *grad,               # (n_features, rows, cols), cols whole vectors, gaps zero
    Py_ssize_t grad_pitch,
    Py_ssize_t rows,
    Py_ssize_t cols,
    const int n_taps,
    const int n_features,
) noexcept nogil:
    """Lanes hold pixels; each accumulator's lanes are summed at the end."""
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real acc[TILE_BYTES]
    cdef const real *taps[8]
    cdef Py_ssize_t y, x
    cdef int i, f
    for i in range(n_taps * n_features):
        fill(acc + i * lanes, <real>0)
    for y in range(rows):
        for i in range(n_taps):
            taps[i] = src + tap_at[i] + y * src_pitch
        x = 0
        while x < cols:
            for i in range(n_taps):
                for f in range(n_features):
                    maddv(
                        acc + (i * n_features + f) * lanes,
                        taps[i] + x,
                        grad + f * grad_pitch + y * cols + x,
                    )
            x += lanes
    for i in range(n_taps):
        for f in range(n_features):
            part[i * part_pitch + f] += lane_sum(acc + (i * n_features + f) * lanes)


cdef inline void outer_tile(
    real *part,                     # (n_taps, n_vectors, lanes), taps part_pitch apart  IN/OUT
    Py_ssize_t part_pitch,
    const real *src,                # the packed images
    Py_ssize_t src_pitch,
    const Py_ssize_t *tap_at,       # (n_taps,) where each tap of the first pixel is read
    const real *grad,               # (rows, cols, ...), pixels grad_pitch apart
    Py_ssize_t grad_pitch,
    Py_ssize_t rows,
    Py_ssize_t cols,
    const int n_taps,
    const int n_vectors,
) noexcept nogil:
    """Lanes hold features; each pixel adds an outer product of taps and features."""
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real acc[TILE_BYTES]
    cdef const real *taps[8]
    cdef const real *pixel = grad
    cdef Py_ssize_t y, x
    cdef int i, v
    for i in range(n_taps * n_vectors):
        fill(acc + i * lanes, <real>0)
    for y in range(rows):
        for i in range(n_taps):
            taps[i] = src + tap_at[i] + y * src_pitch
        for x in range(cols):
            for i in range(n_taps):
                for v in range(n_vectors):
                    madd(acc + (i * n_vectors + v) * lanes, taps[i][x], pixel + v * lanes)
            pixel += grad_pitch
    for i in range(n_taps):
        for v in range(n_vectors):
            madd(acc + (i * n_vectors + v) * lanes, <real>1, part + i * part_pitch + v * lanes)
            store(part + i * part_pitch + v * lanes, acc + (i * n_vectors + v) * lanes)


cdef inline void gradient_taps(
    const bint outer, real *part, Py_ssize_t part_pitch, const real *src, Py_ssize_t src_pitch,
    const Py_ssize_t *tap_at, const real *grad, Py_ssize_t grad_pitch,
    Py_ssize_t rows, Py_ssize_t cols, const int n_taps, const int n,
) noexcept nogil:
    if n_taps * n > MAX_ACCUMULATORS:
        return  # never asked for; keeps tiles that would not fit from being compiled
    if outer:
        outer_tile(part, part_pitch, src, src_pitch, tap_at, grad, grad_pitch, rows, cols,
                   n_taps, n)
    else:
        dot_tile(part, part_pitch, src, src_pitch, tap_at, grad, grad_pitch, rows, cols,
                 n_taps, n)


cdef inline void gradient_columns(
    const bint outer, real *part, Py_ssize_t part_pitch, const real *src, Py_ssize_t src_pitch,
    const Py_ssize_t *tap_at, const real *grad, Py_ssize_t grad_pitch,
    Py_ssize_t rows, Py_ssize_t cols, int n_taps, const int n,
) noexcept nogil:
    if n_taps == 1:
        gradient_taps(outer, part, part_pitch, src, src_pitch, tap_at, grad, grad_pitch,
                      rows, cols, 1, n)
    elif n_taps == 2:
        gradient_taps(outer, part, part_pitch, src, src_pitch, tap_at, grad, grad_pitch,
                      rows, cols, 2, n)
    elif n_taps == 3:
        gradient_taps(outer, part, part_pitch, src, src_pitch, tap_at, grad, grad_pitch,
                      rows, cols, 3, n)
    elif n_taps == 4:
        gradient_taps(outer, part, part_pitch, src, src_pitch, tap_at, grad, grad_pitch,
                      rows, cols, 4, n)
    elif n_taps == 5:
        gradient_taps(outer, part, part_pitch, src, src_pitch, tap_at, grad, grad_pitch,
                      rows, cols, 5, n)
    elif n_taps == 6:
        gradient_taps(outer, part, part_pitch, src, src_pitch, tap_at, grad, grad_pitch,
                      rows, cols, 6, n)
    elif n_taps == 7 and MAX_FEATURES >= 7:
        gradient_taps(outer, part, part_pitch, src, src_pitch, tap_at, grad, grad_pitch,
                      rows, cols, 7, n)
    elif n_taps == 8 and MAX_FEATURES >= 8:
        gradient_taps(outer, part, part_pitch, src, src_pitch, tap_at, grad, grad_pitch,
                      rows, cols, 8, n)


cdef void filter_gradient(
    bint outer, real *part, Py_ssize_t part_pitch, const real *src, Py_ssize_t src_pitch,
    const Py_ssize_t *tap_at, Py_ssize_t n_taps, const real *grad, Py_ssize_t grad_pitch,
    Py_ssize_t rows, Py_ssize_t cols, int n,
) noexcept nogil:
    """All taps for a block of `n` features (dot form) or vectors of features (outer form)."""
    cdef Py_ssize_t most = min(<Py_ssize_t>MAX_FEATURES, <Py_ssize_t>(MAX_ACCUMULATORS // n))
    cdef Py_ssize_t n_blocks = (n_taps + most - 1) // most
    cdef Py_ssize_t b, t
    cdef int m
    for b in range(n_blocks):
        t = b * n_taps // n_blocks
        m = <int>((b + 1) * n_taps // n_blocks - t)
        if outer and n == 1:
            gradient_columns(True, part + t * part_pitch, part_pitch, src, src_pitch, tap_at + t,
                             grad, grad_pitch, rows, cols, m, 1)
        elif outer and n == 2:
            gradient_columns(True, part + t * part_pitch, part_pitch, src, src_pitch, tap_at + t,
                             grad, grad_pitch, rows, cols, m, 2)
        elif outer and n == 3:
            gradient_columns(True, part + t * part_pitch, part_pitch, src, src_pitch, tap_at + t,
                             grad, grad_pitch, rows, cols, m, 3)
        elif outer and n == 4:
            gradient_columns(True, part + t * part_pitch, part_pitch, src, src_pitch, tap_at + t,
                             grad, grad_pitch, rows, cols, m, 4)
        elif n == 1:
            gradient_columns(False, part + t * part_pitch, part_pitch, src, src_pitch, tap_at + t,
                             grad, grad_pitch, rows, cols, m, 1)
        elif n == 2:
            gradient_columns(False, part + t * part_pitch, part_pitch, src, src_pitch, tap_at + t,
                             grad, grad_pitch, rows, cols, m, 2)
        elif n == 3:
            gradient_columns(False, part + t * part_pitch, part_pitch, src, src_pitch, tap_at + t,
                             grad, grad_pitch, rows, cols, m, 3)
        elif n == 4:
            gradient_columns(False, part + t * part_pitch, part_pitch, src, src_pitch, tap_at + t,
                             grad, grad_pitch, rows, cols, m, 4)


cdef real plane_sum(const real *plane, Py_ssize_t n) noexcept nogil:
    """The sum of n values: whole vectors in four accumulators, then the rest."""
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real acc[4 * VECTOR_BYTES]
    cdef real total = 0
    cdef Py_ssize_t x, whole = n - n % (4 * lanes)
    cdef int v
    for v in range(4):
        fill(acc + v * lanes, <real>0)
    x = 0
    while x < whole:
        for v in range(4):
            madd(acc + v * lanes, <real>1, plane + x + v * lanes)
        x += 4 * lanes
    for x in range(whole, n):
        total += plane[x]
    for v in range(4):
        total += lane_sum(acc + v * lanes)
    return total
