# What the inner loops of pooling are made of: one vector at a time.
#
# Vectors are 32 bytes: small images fill no longer ones, and where there are vectors of
# 64 bytes, two of 32 are as fast. Without AVX2 they are 16: of longer ones than the target
# has gcc 12 makes scalar code (maxima of 3x3 took 5 to 10 times as long). Rows and columns
# are integers as wide as the reals; places in windows are what the target compares best.
# Both lie in arrays of reals, and are only ever touched as whole vectors. GNU C vectors
# become the target's instructions with gcc and clang alike, which loops over lanes do not.

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memcpy, memmove, memset

cdef extern from *:
    """
    #define INLINE static inline __attribute__((always_inline, unused))
    #define VECTOR(type, n) type __attribute__((vector_size(n), aligned(1), may_alias))
    #ifdef __clang__
    #define SHUFFLE(bits, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
    #else
    #define SHUFFLE(bits, a, b, ...) __builtin_shuffle(a, b, (ints##bits){__VA_ARGS__})
    #endif
    #ifdef __SSE2__
    #include <immintrin.h>
    #endif
    #ifdef __AVX2__
    #define VECTOR_BYTES 32
    #define EVEN32 0, 2, 4, 6, 8, 10, 12, 14
    #define ODD32 1, 3, 5, 7, 9, 11, 13, 15
    #define LOW32 0, 8, 1, 9, 2, 10, 3, 11
    #define HIGH32 4, 12, 5, 13, 6, 14, 7, 15
    #define EVEN64 0, 2, 4, 6
    #define ODD64 1, 3, 5, 7
    #define LOW64 0, 4, 1, 5
    #define HIGH64 2, 6, 3, 7
    #else
    #define VECTOR_BYTES 16
    #define EVEN32 0, 2, 4, 6
    #define ODD32 1, 3, 5, 7
    #define LOW32 0, 4, 1, 5
    #define HIGH32 2, 6, 3, 7
    #define EVEN64 0, 2
    #define ODD64 1, 3
    #define LOW64 0, 2
    #define HIGH64 1, 3
    #endif
    #define N(bits) (8 * VECTOR_BYTES / bits)    /* lanes */
    #define REALS(bits, p) (*(reals##bits *)(p))
    #define INTS(bits, p) (*(ints##bits *)(p))
    #define PLACES(p) (*(places_t *)(p))

    /* Of a choice between two vectors gcc 12 makes three instructions where there is one. */
    #ifdef __AVX2__
    #define ANY(mask) (!_mm256_testz_si256((__m256i)(mask), (__m256i)(mask)))
    #define UNORDERED(bits, ps, a) (ints##bits)_mm256_cmp_##ps(a, a, _CMP_UNORD_Q)
    #define MAXIMUM_OF(bits, ps, a, b) \\
        REALS(bits, a) = _mm256_max_##ps(REALS(bits, b), REALS(bits, a))
    #else
    typedef VECTOR(long long, 16) longs;
    #define ANY(mask) any_bit((longs)(mask))
    #define UNORDERED(bits, ps, a) ((a) != (a))
    INLINE int any_bit(longs a) { return (a[0] | a[1]) != 0; }
    #define MAXIMUM_OF(bits, ps, a, b) SELECT(bits, ps, a, REALS(bits, b) > REALS(bits, a), b)
    #endif
    #ifdef __AVX512VL__
    #define MASK(bits) __mmask8
    #define LARGER(v, best, ps) _mm256_cmp_##ps##_mask(v, best, _CMP_GT_OQ)
    #define LARGER_OR_NAN(v, best, ps) \\
        (_mm256_cmp_##ps##_mask(v, best, _CMP_GT_OQ) | _mm256_cmp_##ps##_mask(v, v, _CMP_UNORD_Q))
    #define SELECT(bits, ps, out, mask, a) \\
        REALS(bits, out) = _mm256_mask_blend_##ps(mask, REALS(bits, out), REALS(bits, a))
    typedef VECTOR(unsigned char, 16) bytes16;
    typedef bytes16 places_t;
    typedef unsigned char place_t;
    /* Masks of 8 lanes for 16 bytes: of casts gcc 12 and clang 14 make detours of their own. */
    #define ARE(bits, p, place) are_equal(PLACES(p), (bytes16)_mm_set1_epi8(place))
    #define SELECT_PLACES(bits, ps, out, mask, a) \\
        __asm__("vmovdqu8 %2, %0%{%1%}" \\
                : "+v"(PLACES(out)) : "Yk"(mask), "v"(PLACES(a)))
    INLINE __mmask8 are_equal(bytes16 a, bytes16 b) {
        __mmask8 mask;
        __asm__("vpcmpeqb %2, %1, %0" : "=k"(mask) : "v"(a), "v"(b));
        return mask; }
    #define KEEP(bits, ps, out, mask, a) \\
        REALS(bits, out) = _mm256_maskz_mov_##ps(mask, REALS(bits, a))
    #define ADD_WHERE(bits, ps, sum, mask, a) \\
        REALS(bits, sum) = \\
            _mm256_mask_add_##ps(REALS(bits, sum), mask, REALS(bits, sum), REALS(bits, a))
    #else
    /* Integers of 32 bits, two for each double: SSE2 compares no longer ones. */
    typedef VECTOR(int, VECTOR_BYTES) places_t;
    typedef int place_t;
    #define ARE(bits, p, place) (ints##bits)(PLACES(p) == place)
    #define SELECT_PLACES(bits, ps, out, mask, a) SELECT(bits, ps, out, mask, a)
    #define KEEP(bits, ps, out, mask, a) INTS(bits, out) = (mask) & INTS(bits, a)
    #define ADD_WHERE(bits, ps, sum, mask, a) \\
        REALS(bits, sum) += (reals##bits)((mask) & INTS(bits, a))
    #define MASK(bits) ints##bits
    #define LARGER(v, best, ps) v > best
    #define LARGER_OR_NAN(v, best, ps) (v > best) | (v != v)
    #ifdef __AVX2__
    #define SELECT(bits, ps, out, mask, a) \\
        REALS(bits, out) = _mm256_blendv_##ps(REALS(bits, out), REALS(bits, a), (reals##bits)mask)
    #else
    #define SELECT(bits, ps, out, mask, a) \\
        INTS(bits, out) = (INTS(bits, a) & (mask)) | (INTS(bits, out) & ~(mask))
    #endif
    #endif

    #define PRIMITIVES(real, bits, integer, ps)                                                  \\
    typedef VECTOR(real, VECTOR_BYTES) reals##bits;                                              \\
    typedef VECTOR(integer, VECTOR_BYTES) ints##bits;                                            \\
    typedef VECTOR(Py_intptr_t, N(bits) * sizeof(Py_intptr_t)) pairs##bits;                      \\
    INLINE void copy##bits(real *out, const real *a) { REALS(bits, out) = REALS(bits, a); }      \\
    INLINE void fill##bits(real *out, real value) {                                              \\
        REALS(bits, out) = value - (reals##bits){0}; }                                           \\
    INLINE void fill_int##bits(real *out, integer value) {                                       \\
        INTS(bits, out) = value + (ints##bits){0}; }                                             \\
    INLINE void add##bits(real *sum, const real *a) { REALS(bits, sum) += REALS(bits, a); }      \\
    INLINE void add_exactly##bits(real *sum, real *error, const real *a) {                       \\
        reals##bits s = REALS(bits, sum), b = REALS(bits, a), t = s + b, part = t - s;           \\
        reals##bits lost = (s - (t - part)) + (b - part);                                        \\
        ints##bits known = lost == lost;  /* what infinity has lost is no number */              \\
        REALS(bits, sum) = t;                                                                    \\
        REALS(bits, error) += (reals##bits)((ints##bits)lost & known); }                         \\
    INLINE void multiply##bits(real *a, const real *b) { REALS(bits, a) *= REALS(bits, b); }     \\
    INLINE void add_int##bits(real *sum, const real *a) { INTS(bits, sum) += INTS(bits, a); }    \\
    INLINE void divide##bits(real *a, const real *b) { REALS(bits, a) /= REALS(bits, b); }       \\
    INLINE void deinterleave##bits(real *even, real *odd, const real *a) {                       \\
        reals##bits low = REALS(bits, a), high = REALS(bits, a + N(bits));                       \\
        REALS(bits, even) = SHUFFLE(bits, low, high, EVEN##bits);                                \\
        REALS(bits, odd) = SHUFFLE(bits, low, high, ODD##bits); }                                \\
    INLINE void interleave##bits(real *out, const real *even, const real *odd) {                 \\
        reals##bits e = REALS(bits, even), o = REALS(bits, odd);                                 \\
        REALS(bits, out) = SHUFFLE(bits, e, o, LOW##bits);                                       \\
        REALS(bits, out + N(bits)) = SHUFFLE(bits, e, o, HIGH##bits); }                          \\
    INLINE void take_larger##bits(real *best, real *row, real *col,                              \\
                                  const real *value, const real *its_row, const real *its_col) { \\
        reals##bits v = REALS(bits, value);                                                      \\
        MASK(bits) larger = LARGER_OR_NAN(v, REALS(bits, best), ps);                             \\
        SELECT(bits, ps, best, larger, value);                                                   \\
        SELECT(bits, ps, row, larger, its_row);                                                  \\
        SELECT(bits, ps, col, larger, its_col); }                                                \\
    INLINE void take_value##bits(real *best, const real *value, int nans) {                      \\
        reals##bits v = REALS(bits, value);                                                      \\
        MASK(bits) larger = LARGER_OR_NAN(v, REALS(bits, best), ps);                             \\
        if (nans) { SELECT(bits, ps, best, larger, value); }                                     \\
        else { MAXIMUM_OF(bits, ps, best, value); } }                                            \\
    INLINE void take_place##bits(real *best, real *place, const real *value, const real *its,    \\
                                 int nans) {                                                     \\
        reals##bits v = REALS(bits, value);                                                      \\
        MASK(bits) larger = nans ? (MASK(bits))(LARGER_OR_NAN(v, REALS(bits, best), ps))         \\
                                 : (MASK(bits))(LARGER(v, REALS(bits, best), ps));               \\
        SELECT_PLACES(bits, ps, place, larger, its);                                             \\
        if (nans) { SELECT(bits, ps, best, larger, value); }                                     \\
        else { MAXIMUM_OF(bits, ps, best, value); } }                                            \\
    INLINE void fill_places##bits(real *out, place_t place) {                                    \\
        PLACES(out) = place + (places_t){0}; }                                                   \\
    INLINE void copy_places##bits(real *out, const real *a) { PLACES(out) = PLACES(a); }         \\
    INLINE void add_places##bits(real *sum, const real *a) { PLACES(sum) += PLACES(a); }         \\
    INLINE void max_places##bits(real *a, const real *b) {                                       \\
        places_t larger = (places_t)(PLACES(a) > PLACES(b));                                     \\
        PLACES(a) = (PLACES(a) & larger) | (PLACES(b) & ~larger); }                              \\
    INLINE void note_nans##bits(real *nans, const real *a) {                                     \\
        INTS(bits, nans) |= UNORDERED(bits, ps, REALS(bits, a)); }                               \\
    INLINE int any_nan##bits(const real *nans) { return ANY(INTS(bits, nans)); }                 \\
    INLINE void keep_if##bits(real *out, const real *places, place_t place, const real *a) {     \\
        KEEP(bits, ps, out, ARE(bits, places, place), a); }                                      \\
    INLINE void add_if##bits(real *sum, const real *places, place_t place, const real *a) {      \\
        ADD_WHERE(bits, ps, sum, ARE(bits, places, place), a); }                                 \\
    INLINE void move_right##bits(real *col, const real *by, const real *least) {                 \\
        ints##bits x = INTS(bits, col) + INTS(bits, by), inside = x > INTS(bits, least);         \\
        INTS(bits, col) = (x & inside) | (INTS(bits, least) & ~inside); }                        \\
    INLINE void to_pairs##bits(Py_intptr_t *out, const real *row, const real *col) {             \\
        ints##bits low = SHUFFLE(bits, INTS(bits, row), INTS(bits, col), LOW##bits);             \\
        ints##bits high = SHUFFLE(bits, INTS(bits, row), INTS(bits, col), HIGH##bits);           \\
        ((pairs##bits *)out)[0] = __builtin_convertvector(low, pairs##bits);                     \\
        ((pairs##bits *)out)[1] = __builtin_convertvector(high, pairs##bits); }                  \\
    INLINE void from_pairs##bits(real *row, real *col, Py_intptr_t *all, const Py_intptr_t *a) { \\
        pairs##bits low = ((const pairs##bits *)a)[0], high = ((const pairs##bits *)a)[1];       \\
        *(pairs##bits *)all |= low | high;                                                       \\
        ints##bits l = __builtin_convertvector(low, ints##bits);                                 \\
        ints##bits h = __builtin_convertvector(high, ints##bits);                                \\
        INTS(bits, row) = SHUFFLE(bits, l, h, EVEN##bits);                                       \\
        INTS(bits, col) = SHUFFLE(bits, l, h, ODD##bits); }                                      \\
    INLINE void note_outside##bits(real *outside, const real *a, const real *least,              \\
                                   const real *most) {                                           \\
        INTS(bits, outside) |= (INTS(bits, a) - INTS(bits, least))                               \\
                               | (INTS(bits, most) - INTS(bits, a)); }                           \\
    INLINE void maximum##bits(real *a, const real *b) { MAXIMUM_OF(bits, ps, a, b); }            \\
    INLINE int any_equal##bits(const real *a, const real *b, real value) {                       \\
        return ANY((REALS(bits, a) == value) | (REALS(bits, b) == value)); }                     \\
    INLINE real lane_max##bits(const real *a) {                                                  \\
        real lane[N(bits)];                                                                      \\
        REALS(bits, lane) = REALS(bits, a);                                                      \\
        for (int half = N(bits) / 2; half; half /= 2)                                            \\
            for (int i = 0; i < half; i++)                                                       \\
                lane[i] = lane[i + half] > lane[i] ? lane[i + half] : lane[i];                   \\
        return lane[0]; }                                                                        \\
    INLINE real lane_sum##bits(const real *a) {                                                  \\
        real lane[N(bits)];                                                                      \\
        REALS(bits, lane) = REALS(bits, a);                                                      \\
        for (int half = N(bits) / 2; half; half /= 2)                                            \\
            for (int i = 0; i < half; i++) lane[i] += lane[i + half];                            \\
        return lane[0]; }
    PRIMITIVES(float, 32, int, ps)
    PRIMITIVES(double, 64, long long, pd)

    /* Bytes and integers: gcc 12 makes scalar code of conversions between them. */
    #ifdef __SSE2__
    INLINE __m128i some_bytes(const void *bytes, int n) {    /* 8 or less */
        long long eight = 0;
        memcpy(&eight, bytes, n);
        return _mm_cvtsi64_si128(eight); }
    INLINE void store_bytes(void *out, __m128i bytes, int n) {
        long long eight = _mm_cvtsi128_si64(bytes);
        memcpy(out, &eight, n); }
    #ifdef __AVX2__
    #define WIDEN(bytes) (ints32)_mm256_cvtepu8_epi32(bytes)
    INLINE __m128i narrow(ints32 a) {
        __m256i b = (__m256i)a;
        __m128i c = _mm_packs_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
        return _mm_packus_epi16(c, c); }
    #else
    #define ZERO _mm_setzero_si128()
    #define WIDEN(bytes) (ints32)_mm_unpacklo_epi16(_mm_unpacklo_epi8(bytes, ZERO), ZERO)
    INLINE __m128i narrow(ints32 a) {
        __m128i c = _mm_packs_epi32((__m128i)a, (__m128i)a);
        return _mm_packus_epi16(c, c); }
    #endif
    INLINE ints32 wide32(const unsigned char *bytes) { return WIDEN(some_bytes(bytes, N(32))); }
    INLINE ints32 wide64(const unsigned char *bytes) {
        __m128i some = some_bytes(bytes, N(64));
        return WIDEN(_mm_unpacklo_epi8(some, some)); }
    INLINE void narrow32(unsigned char *out, ints32 a) { store_bytes(out, narrow(a), N(32)); }
    INLINE void narrow64(unsigned char *out, ints64 a) {
        ints32 place = (ints32)a;
        store_bytes(out, narrow(SHUFFLE(32, place, place, EVEN32)), N(64)); }
    #else
    #define WIDTHS(bits, twice)                                                                  \\
    typedef VECTOR(unsigned char, N(bits)) bytes##bits;                                          \\
    INLINE ints32 wide##bits(const unsigned char *bytes) {                                       \\
        ints##bits wide = __builtin_convertvector(*(const bytes##bits *)bytes, ints##bits);      \\
        return (ints32)(wide * twice); }                                                         \\
    INLINE void narrow##bits(unsigned char *out, ints##bits place) {                             \\
        *(bytes##bits *)out = __builtin_convertvector(place, bytes##bits); }
    WIDTHS(32, 1)
    WIDTHS(64, 0x100000001)
    #endif

    #ifdef __AVX512VL__
    #define FROM_BYTES(bits, p, bytes) PLACES(p) = (bytes16)some_bytes(bytes, N(bits))
    #define TO_BYTES(bits, bytes, p) store_bytes(bytes, (__m128i)PLACES(p), N(bits))
    #define AS_INTS(bits, p) ((ints##bits)_mm256_cvtepu8_epi##bits((__m128i)PLACES(p)))
    #else
    #define FROM_BYTES(bits, p, bytes) PLACES(p) = wide##bits(bytes)
    #define TO_BYTES(bits, bytes, p) narrow##bits(bytes, INTS(bits, p))
    #define AS_INTS(bits, p) as_ints##bits(p)
    INLINE ints32 as_ints32(const float *p) { return INTS(32, p); }
    INLINE ints64 as_ints64(const double *p) { return INTS(64, p) & 0xffffffff; }
    #endif
    #define PLACES_AND_BYTES(real, bits)                                                         \\
    INLINE void load_places##bits(real *p, const unsigned char *bytes) {                         \\
        FROM_BYTES(bits, p, bytes); }                                                            \\
    INLINE void store_places##bits(unsigned char *bytes, const real *p) {                        \\
        TO_BYTES(bits, bytes, p); }                                                              \\
    INLINE void to_places##bits(unsigned char *bytes, const real *row, const real *col,          \\
                                int width) {                                                     \\
        narrow##bits(bytes, INTS(bits, row) * width + INTS(bits, col)); }                        \\
    INLINE void split_places##bits(real *row, real *col, const real *p, int width) {             \\
        INTS(bits, row) = AS_INTS(bits, p) * ((31 + width) / width) >> 5;                        \\
        INTS(bits, col) = AS_INTS(bits, p) - INTS(bits, row) * width; }
    PLACES_AND_BYTES(float, 32)
    PLACES_AND_BYTES(double, 64)

    #define FOR(a, name) _Generic((a), float *: name##32, const float *: name##32, \\
                                       double *: name##64, const double *: name##64)
    #define COPY(out, a) FOR(out, copy)(out, a)
    #define FILL(out, value) FOR(out, fill)(out, value)
    #define FILL_INT(out, value) FOR(out, fill_int)(out, value)
    #define ADD(sum, a) FOR(sum, add)(sum, a)
    #define ADD_EXACTLY(sum, error, a) FOR(sum, add_exactly)(sum, error, a)
    #define ADD_INT(sum, a) FOR(sum, add_int)(sum, a)
    #define MULTIPLY(a, by) FOR(a, multiply)(a, by)
    #define DIVIDE(a, by) FOR(a, divide)(a, by)
    #define DEINTERLEAVE(even, odd, pixels) FOR(even, deinterleave)(even, odd, pixels)
    #define INTERLEAVE(pixels, even, odd) FOR(pixels, interleave)(pixels, even, odd)
    #define TAKE_LARGER(best, ...) FOR(best, take_larger)(best, __VA_ARGS__)
    #define TAKE_VALUE(best, ...) FOR(best, take_value)(best, __VA_ARGS__)
    #define KEEP_IF(out, ...) FOR(out, keep_if)(out, __VA_ARGS__)
    #define ADD_IF(sum, ...) FOR(sum, add_if)(sum, __VA_ARGS__)
    #define MOVE_RIGHT(col, by, least) FOR(col, move_right)(col, by, least)
    #define TO_PLACES(out, row, col, width) FOR(row, to_places)(out, row, col, width)
    #define LOAD_PLACES(p, bytes) FOR(p, load_places)(p, bytes)
    #define STORE_PLACES(bytes, p) FOR(p, store_places)(bytes, p)
    #define SPLIT_PLACES(row, ...) FOR(row, split_places)(row, __VA_ARGS__)
    #define FILL_PLACES(out, place) FOR(out, fill_places)(out, place)
    #define COPY_PLACES(out, a) FOR(out, copy_places)(out, a)
    #define ADD_PLACES(sum, a) FOR(sum, add_places)(sum, a)
    #define MAX_PLACES_OF(a, b) FOR(a, max_places)(a, b)
    #define TAKE_PLACE(best, ...) FOR(best, take_place)(best, __VA_ARGS__)
    #define NOTE_NANS(nans, a) FOR(nans, note_nans)(nans, a)
    #define ANY_NAN(nans) FOR(nans, any_nan)(nans)
    #define TO_PAIRS(out, row, col) FOR(row, to_pairs)(out, row, col)
    #define FROM_PAIRS(row, ...) FOR(row, from_pairs)(row, __VA_ARGS__)
    #define NOTE_OUTSIDE(outside, ...) FOR(outside, note_outside)(outside, __VA_ARGS__)
    #define MAXIMUM(a, b) FOR(a, maximum)(a, b)
    #define ANY_EQUAL(a, b, value) FOR(a, any_equal)(a, b, value)
    #define LANE_MAX(a) FOR(a, lane_max)(a)
    #define LANE_SUM(a) FOR(a, lane_sum)(a)
    """
    enum:
        VECTOR_BYTES
    # Every argument is one vector (of reals, or of integers in an array of reals) unless
    # it says otherwise. C picks the function for its type.
    void copy "COPY"(...) noexcept nogil            # (out, a)
    void fill "FILL"(...) noexcept nogil            # (out, value: a number)
    void fill_int "FILL_INT"(...) noexcept nogil    # (out, value: a number)
    void add "ADD"(...) noexcept nogil              # (sum, a): sum += a
    # (sum, error, a): sum += a, and error += what the rounding has lost
    void add_exactly "ADD_EXACTLY"(...) noexcept nogil
    void add_int "ADD_INT"(...) noexcept nogil      # (sum, a)
    void multiply "MULTIPLY"(...) noexcept nogil    # (a, by)
    void divide "DIVIDE"(...) noexcept nogil        # (a, by): a /= by
    # (even, odd, pixels: two vectors), (pixels, even, odd): by the lanes' parity
    void deinterleave "DEINTERLEAVE"(...) noexcept nogil
    void interleave "INTERLEAVE"(...) noexcept nogil
    # (best, row, col, value, its_row, its_col): take a value that is larger, and every NaN
    void take_larger "TAKE_LARGER"(...) noexcept nogil
    # (best, value, nans: a bint): as above, but for the places; NaN only counts if there may be any
    void take_value "TAKE_VALUE"(...) noexcept nogil
    # (out, places, place: a number, a): a where the places are that one, 0 elsewhere; and a sum
    void keep_if "KEEP_IF"(...) noexcept nogil
    void add_if "ADD_IF"(...) noexcept nogil
    # (col, by, least): col = max(col + by, least)
    void move_right "MOVE_RIGHT"(...) noexcept nogil
    # (bytes, row, col, width: a number): row * width + col
    void to_places "TO_PLACES"(...) noexcept nogil
    # Places up to 31 in vectors of their own kind, opaque: (places, bytes), (bytes, places),
    # (row, col, places, width: a number), (out, place: a number), (sum, a), (a, b)
    void load_places "LOAD_PLACES"(...) noexcept nogil
    void store_places "STORE_PLACES"(...) noexcept nogil
    void split_places "SPLIT_PLACES"(...) noexcept nogil
    void fill_places "FILL_PLACES"(...) noexcept nogil
    void copy_places "COPY_PLACES"(...) noexcept nogil
    void add_places "ADD_PLACES"(...) noexcept nogil
    void max_places "MAX_PLACES_OF"(...) noexcept nogil
    # (best, place, value, its_place, nans: a bint): as above; NaN only counts if there may be any
    void take_place "TAKE_PLACE"(...) noexcept nogil
    # (nans, a), (nans)
    void note_nans "NOTE_NANS"(...) noexcept nogil
    int any_nan "ANY_NAN"(...) noexcept nogil
    # (pairs, row, col), and (row, col, all, pairs); `all` |= pairs, 8 of them
    void to_pairs "TO_PAIRS"(...) noexcept nogil
    void from_pairs "FROM_PAIRS"(...) noexcept nogil
    # (outside, a, least, most): lanes of `outside` get negative unless least <= a <= most
    void note_outside "NOTE_OUTSIDE"(...) noexcept nogil
    # (a, b): a = max(a, b) but for NaN; (a, b, value: a number); (a): a number
    void maximum "MAXIMUM"(...) noexcept nogil
    int any_equal "ANY_EQUAL"(...) noexcept nogil
    double lane_max "LANE_MAX"(...) noexcept nogil
    double lane_sum "LANE_SUM"(...) noexcept nogil

ctypedef fused real:
    float
    double

cdef enum:
    LANES = 8                 # at most: of the narrowest reals in the longest vector


cdef inline Py_ssize_t round_up(Py_ssize_t n) noexcept nogil:
    """To whole vectors."""
    return (n + LANES - 1) // LANES * LANES


cdef inline void set_int(real *place, Py_ssize_t value) noexcept nogil:
    """One integer of a vector."""
    if real is float:
        (<int32_t *>place)[0] = <int32_t>value
    else:
        (<int64_t *>place)[0] = value


cdef inline void fill_run(real *cells, real value, Py_ssize_t n) noexcept nogil:
    """And what whole vectors spill over."""
    cdef Py_ssize_t i = VECTOR_BYTES // sizeof(real)
    if n > 0:                 # most runs are short: no call of memset for them
        fill(cells, value)
    while i < n:
        fill(cells + i, value)
        i += VECTOR_BYTES // sizeof(real)


cdef inline void fill_pixels(real *img, real value, Py_ssize_t n) noexcept nogil:
    """And nothing else."""
    cdef Py_ssize_t i = 0, lanes = VECTOR_BYTES // sizeof(real)
    while i + lanes <= n:
        fill(img + i, value)
        i += lanes
    while i < n:
        img[i] = value
        i += 1
