# What the register tiles are made of, where a convolution spends its time.
#
# A tile is a small block of accumulators that stays in vector registers while
# one long loop runs. Its sizes are constants after inlining, so the compiler
# unrolls the short loops below completely and gives every accumulator a
# register of its own. The primitives are GNU C vectors, which gcc and clang
# compile to the widest instructions of the target.

cdef extern from *:
    """
    /* A multiply-add waits for the one before it on the same sum: so many sums hide that. */
    #if defined(__AVX512F__)
    enum { VECTOR_BYTES = 64, MAX_ACCUMULATORS = 24, MAX_FEATURES = 8, LATENCY = 5 };
    #define STAGES_32 STAGES16
    #define STAGES_64 STAGES8
    #elif defined(__AVX__)
    enum { VECTOR_BYTES = 32, MAX_ACCUMULATORS = 12, MAX_FEATURES = 6, LATENCY = 8 };
    #define STAGES_32 STAGES8
    #define STAGES_64 STAGES4
    #else
    #if defined(__aarch64__)
    enum { VECTOR_BYTES = 16, MAX_ACCUMULATORS = 24, MAX_FEATURES = 8, LATENCY = 8 };
    #else
    enum { VECTOR_BYTES = 16, MAX_ACCUMULATORS = 12, MAX_FEATURES = 6, LATENCY = 6 };
    #endif
    #define STAGES_32 STAGES4
    #define STAGES_64 STAGES2
    #endif
    enum { TILE_BYTES = VECTOR_BYTES * MAX_ACCUMULATORS };
    enum { LANES = VECTOR_BYTES / sizeof(float), LANES_SQUARED = LANES * LANES };
    /* Eight pixels and three vectors of features: gcc runs out of registers for their addresses. */
    enum { TILE_PIXELS = 6, MAX_FEATURE_VECTORS = MAX_ACCUMULATORS / TILE_PIXELS };
    enum { ROW_VECTORS = MAX_ACCUMULATORS / 12 };

    /* Transposition: for s = 1, 2, 4, ... exchange blocks of s x s lanes across the diagonal of
       each block of 2s x 2s. A shuffle of a and b takes lanes by number, b's after a's n. */
    #define EVEN(n, l, s) (((l) & s) ? n + (l) - s : (l))
    #define ODD(n, l, s) (((l) & s) ? n + (l) : (l) + s)
    #define LIST2(F, n, l, s) F(n, l, s), F(n, l + 1, s)
    #define LIST4(F, n, l, s) LIST2(F, n, l, s), LIST2(F, n, l + 2, s)
    #define LIST8(F, n, l, s) LIST4(F, n, l, s), LIST4(F, n, l + 4, s)
    #define LIST16(F, n, l, s) LIST8(F, n, l, s), LIST8(F, n, l + 8, s)
    #define STAGES2(E, bits) E(bits, 2, 1)
    #define STAGES4(E, bits) E(bits, 4, 1) E(bits, 4, 2)
    #define STAGES8(E, bits) E(bits, 8, 1) E(bits, 8, 2) E(bits, 8, 4)
    #define STAGES16(E, bits) E(bits, 16, 1) E(bits, 16, 2) E(bits, 16, 4) E(bits, 16, 8)
    #if defined(__clang__) || __GNUC__ >= 12
    #define SHUFFLE(bits, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
    #else
    #define SHUFFLE(bits, a, b, ...) __builtin_shuffle(a, b, (__typeof__(a < b)){__VA_ARGS__})
    #endif
    #define EXCHANGE_ROWS(bits, n, n_rows, s)                                               \\
        for (int i = 0; i < n_rows; i++)                                                    \\
            if (!(i & s)) {                                                                 \\
                vec##bits a = row[i], b = row[i + s];                                       \\
                row[i] = SHUFFLE(bits, a, b, LIST##n(EVEN, n, 0, s));                       \\
                row[i + s] = SHUFFLE(bits, a, b, LIST##n(ODD, n, 0, s));                    \\
            }
    #define EXCHANGE(bits, n, s) EXCHANGE_ROWS(bits, n, n, s)

    /* Two rows of `pairs` values each from and to one row that has them in turn, in the widest
       vectors that fit; the last ones are moved back to end with the rows. */
    #define DOUBLED(n, l, s) 2 * (l) + s
    #define ZIPPED(n, l, s) (l) / 2 + s + ((l) & 1 ? n : 0)
    #define IN_STEPS(real, bits, n, STEP)                                                   \\
        if (n <= VECTOR_BYTES / sizeof(real) && pairs >= n) {                               \\
            typedef real part ALIGNED(bits, n * sizeof(real));                              \\
            for (Py_ssize_t x = 0; x < pairs; x += n) {                                     \\
                if (x > pairs - n) x = pairs - n;                                           \\
                STEP(bits, n) }                                                             \\
        } else
    #define IN_VECTORS(real, bits, STEP)                                                    \\
        IN_STEPS(real, bits, 16, STEP) IN_STEPS(real, bits, 8, STEP)                        \\
        IN_STEPS(real, bits, 4, STEP) IN_STEPS(real, bits, 2, STEP)
    #define UNZIP(bits, n)                                                                  \\
        part a = *(const part *)(src + 2 * x), b = *(const part *)(src + 2 * x + n);        \\
        *(part *)(even + x) = SHUFFLE(bits, a, b, LIST##n(DOUBLED, n, 0, 0));               \\
        if (odd) *(part *)(odd + x) = SHUFFLE(bits, a, b, LIST##n(DOUBLED, n, 0, 1));
    #define ZIP(bits, n)                                                                    \\
        part a = *(const part *)(even + x), b = *(const part *)(odd + x);                   \\
        *(part *)(dst + 2 * x) = SHUFFLE(bits, a, b, LIST##n(ZIPPED, n, 0, 0));             \\
        *(part *)(dst + 2 * x + n) = SHUFFLE(bits, a, b, LIST##n(ZIPPED, n, 0, n / 2));

    #if defined(__clang__)
    #define UNROLL _Pragma("clang loop unroll(full)")
    #else
    #define UNROLL _Pragma("GCC unroll 16")
    #endif
    #if defined(__x86_64__)
    #define KEEP(x) __asm__("" : "+v"(x))
    #else
    #define KEEP(x)
    #endif

    /* acc[r] += w[i] * row[r + i]. gcc would load a row again for each use, unless told to keep
       it in a register; clang unrolls no condition early enough to keep acc in registers. */
    #if defined(__clang__)
    #define ADD_COLUMN(bits)                                                                \\
        UNROLL for (int r = 0; r < n_rows; r++)                                             \\
            UNROLL for (int v = 0; v < n_vectors; v++)                                      \\
                UNROLL for (int i = 0; i < length; i++)                                     \\
                    *((vec##bits *)acc + r * n_vectors + v) +=                              \\
                        w[i] * *(const vec##bits *)(row + (r + i) * pitch + v * second);
    #else
    #define ADD_COLUMN(bits)                                                                \\
        UNROLL for (int r = 0; r < n_rows + length - 1; r++, row += pitch)                  \\
            UNROLL for (int v = 0; v < n_vectors; v++) {                                    \\
                vec##bits x = *(const vec##bits *)(row + v * second);                       \\
                KEEP(x);                                                                    \\
                UNROLL for (int i = 0; i < length; i++)                                     \\
                    if (0 <= r - i && r - i < n_rows)                                       \\
                        *((vec##bits *)acc + (r - i) * n_vectors + v) += w[i] * x; }
    #endif

    #define INLINE static inline __attribute__((always_inline))
    #define ALIGNED(bits, bytes) __attribute__((vector_size(bytes), aligned(bits / 8), may_alias))
    #define PRIMITIVES(real, bits, integer)                                                 \\
    typedef real vec##bits ALIGNED(bits, VECTOR_BYTES);                                       \\
    typedef real half##bits ALIGNED(bits, VECTOR_BYTES / 2);                                  \\
    typedef integer mask##bits ALIGNED(bits, VECTOR_BYTES);                                   \\
    INLINE void fill##bits(real *acc, real value) {                                         \\
        *(vec##bits *)acc = value - (vec##bits){0}; }                                       \\
    INLINE void madd##bits(real *acc, real w, const real *x) {                              \\
        *(vec##bits *)acc += w * *(const vec##bits *)x; }                                   \\
    INLINE void maddv##bits(real *acc, const real *w, const real *x) {                      \\
        *(vec##bits *)acc += *(const vec##bits *)w * *(const vec##bits *)x; }               \\
    INLINE void add_column##bits(real *acc, const real *w, const real *row,                 \\
                                 Py_ssize_t pitch, Py_ssize_t second, const int length,     \\
                                 const int n_rows, const int n_vectors) {                   \\
        ADD_COLUMN(bits) }                                                                  \\
    INLINE void store##bits(real *out, const real *acc) {                                   \\
        *(vec##bits *)out = *(const vec##bits *)acc; }                                      \\
    INLINE void copy##bits(real *dst, const real *src, Py_ssize_t n) {                      \\
        enum { N = VECTOR_BYTES / sizeof(real), HALF = N / 2 };                             \\
        if (n >= N) {                                                                       \\
            for (Py_ssize_t x = 0; x < n - N; x += N) store##bits(dst + x, src + x);        \\
            store##bits(dst + n - N, src + n - N);                                          \\
        } else if (n >= HALF) {                                                             \\
            *(half##bits *)dst = *(const half##bits *)src;                                  \\
            *(half##bits *)(dst + n - HALF) = *(const half##bits *)(src + n - HALF);        \\
        } else {                                                                            \\
            for (Py_ssize_t x = 0; x < n; x++) dst[x] = src[x]; } }                         \\
    INLINE void unzip##bits(real *even, real *odd, const real *src, Py_ssize_t n,           \\
                            Py_ssize_t pairs) {                                             \\
        if (n > pairs) even[pairs] = src[2 * pairs];                                        \\
        IN_VECTORS(real, bits, UNZIP) if (pairs) {                                          \\
            even[0] = src[0];                                                               \\
            if (odd) odd[0] = src[1]; } }                                                   \\
    INLINE void zip##bits(real *dst, const real *even, const real *odd, Py_ssize_t n,       \\
                          Py_ssize_t pairs) {                                               \\
        if (n > pairs) dst[2 * pairs] = even[pairs];                                        \\
        IN_VECTORS(real, bits, ZIP) if (pairs) {                                            \\
            dst[0] = even[0];                                                               \\
            dst[1] = odd[0]; } }                                                            \\
    INLINE void add##bits(real *out, const real *a, const real *b) {                        \\
        *(vec##bits *)out = *(const vec##bits *)a + *(const vec##bits *)b; }                \\
    INLINE void divide##bits(real *a, const real *b) {                                      \\
        *(vec##bits *)a /= *(const vec##bits *)b; }                                         \\
    INLINE void add_exactly##bits(real *sum, real *error, const real *a) {                  \\
        vec##bits s = *(vec##bits *)sum, b = *(const vec##bits *)a, t = s + b, part = t - s; \\
        vec##bits lost = (s - (t - part)) + (b - part);                                     \\
        *(vec##bits *)sum = t;  /* what infinity has lost is no number */                   \\
        *(mask##bits *)&lost &= lost == lost;                                               \\
        *(vec##bits *)error += lost; }                                                      \\
    INLINE void subtract##bits(real *out, const real *a, const real *b) {                   \\
        *(vec##bits *)out = *(const vec##bits *)a - *(const vec##bits *)b; }                \\
    INLINE void transpose##bits(real *block) {                                              \\
        vec##bits *row = (vec##bits *)block;                                                \\
        STAGES_##bits(EXCHANGE, bits) }                                                     \\
    INLINE void relu##bits(real *acc) {                                                     \\
        mask##bits negative = *(vec##bits *)acc < (vec##bits){0};  /* not so of NaN: it stays */\\
        *(mask##bits *)acc &= ~negative; }                                                  \\
    INLINE real lane_sum##bits(const real *acc) {                                           \\
        enum { HALF = VECTOR_BYTES / 2 / sizeof(real) };                                    \\
        real lane[HALF];                                                                    \\
        *(half##bits *)lane = *(const half##bits *)acc + *(const half##bits *)(acc + HALF); \\
        for (int n = HALF / 2; n; n /= 2)                                                   \\
            for (int l = 0; l < n; l++) lane[l] += lane[l + n];                             \\
        return lane[0]; }
    PRIMITIVES(float, 32, int)
    PRIMITIVES(double, 64, long long)
    #define prefetch(address) __builtin_prefetch(address)
    #define prefetch_far(address) __builtin_prefetch(address, 0, 2)  /* to the L2 cache */
    """
    void prefetch(const void *) noexcept nogil
    void prefetch_far(const void *) noexcept nogil
    enum: VECTOR_BYTES
    enum: MAX_ACCUMULATORS
    enum: MAX_FEATURES
    enum: LATENCY
    enum: TILE_BYTES
    enum: LANES             # at most: of floats
    enum: LANES_SQUARED
    enum: TILE_PIXELS
    enum: MAX_FEATURE_VECTORS
    enum: ROW_VECTORS       # of each row in a tile of rows
    void fill32(float *acc, float value) noexcept nogil
    void fill64(double *acc, double value) noexcept nogil
    void madd32(float *acc, float w, const float *x) noexcept nogil
    void madd64(double *acc, double w, const double *x) noexcept nogil
    void maddv32(float *acc, const float *w, const float *x) noexcept nogil
    void maddv64(double *acc, const double *w, const double *x) noexcept nogil
    void add_column32(float *acc, const float *w, const float *row, Py_ssize_t pitch,
                      Py_ssize_t second, int length, int n_rows, int n_vectors) noexcept nogil
    void add_column64(double *acc, const double *w, const double *row, Py_ssize_t pitch,
                      Py_ssize_t second, int length, int n_rows, int n_vectors) noexcept nogil
    void store32(float *out, const float *acc) noexcept nogil
    void store64(double *out, const double *acc) noexcept nogil
    void copy32(float *dst, const float *src, Py_ssize_t n) noexcept nogil
    void copy64(double *dst, const double *src, Py_ssize_t n) noexcept nogil
    void unzip32(float *even, float *odd, const float *src, Py_ssize_t n,
                 Py_ssize_t pairs) noexcept nogil
    void unzip64(double *even, double *odd, const double *src, Py_ssize_t n,
                 Py_ssize_t pairs) noexcept nogil
    void zip32(float *dst, const float *even, const float *odd, Py_ssize_t n,
               Py_ssize_t pairs) noexcept nogil
    void zip64(double *dst, const double *even, const double *odd, Py_ssize_t n,
               Py_ssize_t pairs) noexcept nogil
    void add32(float *out, const float *a, const float *b) noexcept nogil
    void add64(double *out, const double *a, const double *b) noexcept nogil
    void divide32(float *a, const float *b) noexcept nogil
    void divide64(double *a, const double *b) noexcept nogil
    void add_exactly32(float *sum, float *error, const float *a) noexcept nogil
    void add_exactly64(double *sum, double *error, const double *a) noexcept nogil
    void subtract32(float *out, const float *a, const float *b) noexcept nogil
    void subtract64(double *out, const double *a, const double *b) noexcept nogil
    void transpose32(float *block) noexcept nogil
    void transpose64(double *block) noexcept nogil
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


cdef inline void add_column(
    real *acc, const real *w, const real *row, Py_ssize_t pitch, Py_ssize_t second,
    const int length, const int n_rows, const int n_vectors,
) noexcept nogil:
    """A column of taps on rows of pixels: acc[r - i, v] += w[i] * row[r, v]."""
    if real is float:
        add_column32(acc, w, row, pitch, second, length, n_rows, n_vectors)
    else:
        add_column64(acc, w, row, pitch, second, length, n_rows, n_vectors)


cdef inline void store(real *out, const real *acc) noexcept nogil:
    if real is float:
        store32(out, acc)
    else:
        store64(out, acc)


cdef inline void copy(real *dst, const real *src, Py_ssize_t n) noexcept nogil:
    """A few values: a call of memcpy takes longer."""
    if real is float:
        copy32(dst, src, n)
    else:
        copy64(dst, src, n)


cdef inline void unzip(real *even, real *odd, const real *src, Py_ssize_t n,
                       Py_ssize_t pairs) noexcept nogil:
    """Values in turn: n to `even`, `pairs` (n or n - 1) to `odd`, or nowhere if that is NULL."""
    if real is float:
        unzip32(even, odd, src, n, pairs)
    else:
        unzip64(even, odd, src, n, pairs)


cdef inline void zip_rows(real *dst, const real *even, const real *odd, Py_ssize_t n,
                          Py_ssize_t pairs) noexcept nogil:
    """The reverse: n values of `even`, with `pairs`, n or n - 1, of `odd` between them."""
    if real is float:
        zip32(dst, even, odd, n, pairs)
    else:
        zip64(dst, even, odd, n, pairs)


cdef inline void add(real *out, const real *a, const real *b) noexcept nogil:
    if real is float:
        add32(out, a, b)
    else:
        add64(out, a, b)


cdef inline void divide(real *a, const real *b) noexcept nogil:
    if real is float:
        divide32(a, b)
    else:
        divide64(a, b)


cdef inline void add_exactly(real *total, real *error, const real *a) noexcept nogil:
    """total += a, and error += what the rounding has lost."""
    if real is float:
        add_exactly32(total, error, a)
    else:
        add_exactly64(total, error, a)


cdef inline void subtract(real *out, const real *a, const real *b) noexcept nogil:
    if real is float:
        subtract32(out, a, b)
    else:
        subtract64(out, a, b)


cdef inline void transpose(real *block) noexcept nogil:
    """Transpose a block of as many vectors as one has lanes."""
    if real is float:
        transpose32(block)
    else:
        transpose64(block)


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
