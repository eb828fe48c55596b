# The register tiles: the only code in which a convolution spends real time.
#
# A tile is a small block of accumulators that stays in vector registers while
# one long loop runs. Its sizes are constants after inlining, so the compiler
# unrolls the short loops below completely and gives every accumulator a
# register of its own. The primitives are GNU C vectors, which gcc and clang
# compile to the widest instructions of the target.

cdef extern from *:
    """
    #if defined(__AVX512F__)
    enum { VECTOR_BYTES = 64, MAX_ACCUMULATORS = 24, MAX_FEATURES = 8 };
    #elif defined(__AVX__)
    enum { VECTOR_BYTES = 32, MAX_ACCUMULATORS = 12, MAX_FEATURES = 6 };
    #elif defined(__aarch64__)
    enum { VECTOR_BYTES = 16, MAX_ACCUMULATORS = 24, MAX_FEATURES = 8 };
    #else
    enum { VECTOR_BYTES = 16, MAX_ACCUMULATORS = 12, MAX_FEATURES = 6 };
    #endif
    enum { TILE_BYTES = VECTOR_BYTES * MAX_ACCUMULATORS };

    #define INLINE static inline __attribute__((always_inline))
    #define LANES(bits, bytes) __attribute__((vector_size(bytes), aligned(bits / 8), may_alias))
    #define PRIMITIVES(real, bits, integer)                                                 \\
    typedef real vec##bits LANES(bits, VECTOR_BYTES);                                       \\
    typedef real half##bits LANES(bits, VECTOR_BYTES / 2);                                  \\
    typedef integer mask##bits LANES(bits, VECTOR_BYTES);                                   \\
    INLINE void fill##bits(real *acc, real value) {                                         \\
        *(vec##bits *)acc = value - (vec##bits){0}; }                                       \\
    INLINE void madd##bits(real *acc, real w, const real *x) {                              \\
        *(vec##bits *)acc += w * *(const vec##bits *)x; }                                   \\
    INLINE void maddv##bits(real *acc, const real *w, const real *x) {                      \\
        *(vec##bits *)acc += *(const vec##bits *)w * *(const vec##bits *)x; }               \\
    INLINE void store##bits(real *out, const real *acc) {                                   \\
        *(vec##bits *)out = *(const vec##bits *)acc; }                                      \\
    INLINE void relu##bits(real *acc) {                                                     \\
        mask##bits negative = *(vec##bits *)acc < (vec##bits){0};  /* not so of NaN: it stays */\\
        *(mask##bits *)acc &= ~negative; }                                                  \\
    INLINE real lane_sum##bits(const real *acc) {                                           \\
        enum { HALF = VECTOR_BYTES / 2 / sizeof(real) };                                    \\
        real lane[HALF], total = 0;                                                         \\
        *(half##bits *)lane = *(const half##bits *)acc + *(const half##bits *)(acc + HALF); \\
        for (int l = 0; l < HALF; l++) total += lane[l];                                    \\
        return total; }
    PRIMITIVES(float, 32, int)
    PRIMITIVES(double, 64, long long)
    """
    enum: VECTOR_BYTES
    enum: MAX_ACCUMULATORS
    enum: MAX_FEATURES
    enum: TILE_BYTES
    void fill32(float *acc, float value) noexcept nogil
    void fill64(double *acc, double value) noexcept nogil
    void madd32(float *acc, float w, const float *x) noexcept nogil
    void madd64(double *acc, double w, const double *x) noexcept nogil
    void maddv32(float *acc, const float *w, const float *x) noexcept nogil
    void maddv64(double *acc, const double *w, const double *x) noexcept nogil
    void store32(float *out, const float *acc) noexcept nogil
    void store64(double *out, const double *acc) noexcept nogil
    void relu32(float *acc) noexcept nogil
    void relu64(double *acc) noexcept nogil
    float lane_sum32(const float *acc) noexcept nogil
    double lane_sum64(const double *acc) noexcept nogil

ctypedef fused real:
    float
    double

cdef enum:
    MAX_VECTORS = 8  # of pixels in one tile


# --- one vector at a time -----------------------------------------------------

cdef inline void fill(real *acc, real value) noexcept nogil:
    if real is float:
        fill32(acc, value)
    else:
        fill64(acc, value)


cdef inline void madd(real *acc, real w, const real *x) noexcept nogil:
    if real is float:
        madd32(acc, w, x)
    else:
        madd64(acc, w, x)


cdef inline void maddv(real *acc, const real *w, const real *x) noexcept nogil:
    if real is float:
        maddv32(acc, w, x)
    else:
        maddv64(acc, w, x)


cdef inline void store(real *out, const real *acc) noexcept nogil:
    if real is float:
        store32(out, acc)
    else:
        store64(out, acc)


cdef inline void relu(real *acc) noexcept nogil:
    if real is float:
        relu32(acc)
    else:
        relu64(acc)


cdef inline real lane_sum(const real *acc) noexcept nogil:
    """The sum of a vector's lanes, always in the same order."""
    if real is float:
        return lane_sum32(acc)
    else:
        return lane_sum64(acc)


# --- correlation: features x pixels, summed over taps -------------------------

cdef inline void correlation_tile(
    real *out,                      # (n_features, ...), features out_pitch apart   OUT
    Py_ssize_t out_pitch,
    const Py_ssize_t *out_at,       # (n_vectors,) where each vector of pixels goes
    const real *src,                # the packed images
    const Py_ssize_t *src_at,       # (n_vectors,) where each vector's first tap is read
    const Py_ssize_t *tap_at,       # (n_taps,) where each tap is read, from there
    const real *weights,            # (n_taps, n_features)
    Py_ssize_t n_taps,
    const real *bias,               # (n_features,) or NULL
    bint with_relu,
    const int n_features,
    const int n_vectors,
) noexcept nogil:
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real acc[TILE_BYTES]
    cdef const real *pixels[MAX_VECTORS]
    cdef Py_ssize_t t
    cdef int i, v
    for v in range(n_vectors):
        pixels[v] = src + src_at[v]
    for i in range(n_features):
        for v in range(n_vectors):
            fill(acc + (i * n_vectors + v) * lanes, bias[i] if bias != NULL else <real>0)
    for t in range(n_taps):
        for i in range(n_features):
            for v in range(n_vectors):
                madd(
                    acc + (i * n_vectors + v) * lanes,
                    weights[t * n_features + i],
                    pixels[v] + tap_at[t],
                )
    if with_relu:
        for i in range(n_features * n_vectors):
            relu(acc + i * lanes)
    for i in range(n_features):
        for v in range(n_vectors):
            store(out + i * out_pitch + out_at[v], acc + (i * n_vectors + v) * lanes)


cdef inline void correlate_vectors(
    real *out, Py_ssize_t out_pitch, const Py_ssize_t *out_at,
    const real *src, const Py_ssize_t *src_at, Py_ssize_t n_at,
    const Py_ssize_t *tap_at, const real *weights, Py_ssize_t n_taps,
    const real *bias, bint with_relu, int n_vectors, const int n_features,
) noexcept nogil:
    """All pixels of one block of features, with tiles of `n_vectors` vectors."""
    cdef Py_ssize_t v = 0
    while v < n_at:
        if n_vectors == 1:
            correlation_tile(out, out_pitch, out_at + v, src, src_at + v, tap_at, weights,
                             n_taps, bias, with_relu, n_features, 1)
        elif n_vectors == 2:
            correlation_tile(out, out_pitch, out_at + v, src, src_at + v, tap_at, weights,
                             n_taps, bias, with_relu, n_features, 2)
        elif n_vectors == 3 and n_features * 3 <= MAX_ACCUMULATORS:
            correlation_tile(out, out_pitch, out_at + v, src, src_at + v, tap_at, weights,
                             n_taps, bias, with_relu, n_features, 3)
        elif n_vectors == 4 and n_features * 4 <= MAX_ACCUMULATORS:
            correlation_tile(out, out_pitch, out_at + v, src, src_at + v, tap_at, weights,
                             n_taps, bias, with_relu, n_features, 4)
        elif n_vectors == 6 and n_features * 6 <= MAX_ACCUMULATORS:
            correlation_tile(out, out_pitch, out_at + v, src, src_at + v, tap_at, weights,
                             n_taps, bias, with_relu, n_features, 6)
        elif n_vectors == 8 and n_features * 8 <= MAX_ACCUMULATORS:
            correlation_tile(out, out_pitch, out_at + v, src, src_at + v, tap_at, weights,
                             n_taps, bias, with_relu, n_features, 8)
        v += n_vectors


cdef void correlate(
    real *out, Py_ssize_t out_pitch, const Py_ssize_t *out_at,
    const real *src, const Py_ssize_t *src_at, Py_ssize_t n_at,
    const Py_ssize_t *tap_at, const real *weights, Py_ssize_t n_taps,
    const real *bias, bint with_relu, int n, int n_features,
) noexcept nogil:
    """All pixels of one block of 1 to MAX_FEATURES features, `n` vectors at once."""
    if n_features == 1:
        correlate_vectors(out, out_pitch, out_at, src, src_at, n_at, tap_at, weights, n_taps,
                          bias, with_relu, n, 1)
    elif n_features == 2:
        correlate_vectors(out, out_pitch, out_at, src, src_at, n_at, tap_at, weights, n_taps,
                          bias, with_relu, n, 2)
    elif n_features == 3:
        correlate_vectors(out, out_pitch, out_at, src, src_at, n_at, tap_at, weights, n_taps,
                          bias, with_relu, n, 3)
    elif n_features == 4:
        correlate_vectors(out, out_pitch, out_at, src, src_at, n_at, tap_at, weights, n_taps,
                          bias, with_relu, n, 4)
    elif n_features == 5:
        correlate_vectors(out, out_pitch, out_at, src, src_at, n_at, tap_at, weights, n_taps,
                          bias, with_relu, n, 5)
    elif n_features == 6:
        correlate_vectors(out, out_pitch, out_at, src, src_at, n_at, tap_at, weights, n_taps,
                          bias, with_relu, n, 6)
    elif n_features == 7 and MAX_FEATURES >= 7:
        correlate_vectors(out, out_pitch, out_at, src, src_at, n_at, tap_at, weights, n_taps,
                          bias, with_relu, n, 7)
    elif n_features == 8 and MAX_FEATURES >= 8:
        correlate_vectors(out, out_pitch, out_at, src, src_at, n_at, tap_at, weights, n_taps,
                          bias, with_relu, n, 8)


cdef double tile_cycles(int n_features, int n_vectors) noexcept nogil:
    """About how many cycles a tap costs a tile.

    One a multiply-add or, where that is more, two a vector of pixels (loads
    across cache lines) and half a cycle a weight; fewer than 5 accumulators
    wait for the latency of their own sums. And one for the loop itself.
    """
    return 1.0 + max(<double>(n_features * n_vectors), 2.0 * n_vectors + 0.5 * n_features, 5.0)


cdef int best_vectors(int n_features, Py_ssize_t n_at) noexcept nogil:
    """The tile width that takes the fewest cycles for n_at vectors of pixels."""
    cdef int n, best = 1
    cdef double cycles, fewest = n_at * tile_cycles(n_features, 1)
    for n in range(2, MAX_VECTORS + 1):
        if n == 5 or n == 7 or n * n_features > MAX_ACCUMULATORS:
            continue
        cycles = tile_cycles(n_features, n) * ((n_at + n - 1) // n)
        if cycles < fewest:
            best, fewest = n, cycles
    return best


# --- filter gradient: taps x features, summed over pixels ---------------------

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
