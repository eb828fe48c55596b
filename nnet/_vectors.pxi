# What the register tiles are made of, where a convolution spends its time.
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
