/* The primitives of all kernels: vectors as wide as the target has them. Needs Python.h.
 *
 * GNU C vectors, which gcc and clang compile to the widest instructions of the target. A register
 * tile is a small array of them that stays in registers while one long loop runs: its sizes are
 * constants after inlining, so that the short loops are unrolled and every sum has a register.
 *
 * Its second half is a template, as all of tiles are: for_reals.h includes it once for float and
 * once for double. Cython calls a function of either type by ON_REALS.
 */
#if !defined(NNET_SIMD_H)
#define NNET_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* LATENCY: a multiply-add waits for the one before on the same sum; so many sums hide that. */
#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64, MAX_ACCUMULATORS = 24, MAX_FEATURES = 8, LATENCY = 5 };
#define STAGES_32 STAGES16(16)
#define STAGES_64 STAGES8(8)
#define LIST_32(F, s) LIST16(F, 16, 0, s)
#define LIST_64(F, s) LIST8(F, 8, 0, s)
#elif defined(__AVX__)
enum { VECTOR_BYTES = 32, MAX_ACCUMULATORS = 12, MAX_FEATURES = 6, LATENCY = 8 };
#define STAGES_32 STAGES8(8)
#define STAGES_64 STAGES4(4)
#define LIST_32(F, s) LIST8(F, 8, 0, s)
#define LIST_64(F, s) LIST4(F, 4, 0, s)
#elif defined(__aarch64__)
enum { VECTOR_BYTES = 16, MAX_ACCUMULATORS = 24, MAX_FEATURES = 8, LATENCY = 8 };
#define STAGES_32 STAGES4(4)
#define STAGES_64 STAGES2(2)
#else
enum { VECTOR_BYTES = 16, MAX_ACCUMULATORS = 12, MAX_FEATURES = 6, LATENCY = 6 };
#define STAGES_32 STAGES4(4)
#define STAGES_64 STAGES2(2)
#define LIST_32(F, s) LIST4(F, 4, 0, s)
#define LIST_64(F, s) LIST2(F, 2, 0, s)
#endif
enum { LANES = VECTOR_BYTES / sizeof(float), LANES_SQUARED = LANES * LANES };
/* The same enumerators count values of a tile: of floats, the most there are. */
enum { TILE_VALUES = LANES * MAX_ACCUMULATORS };

#define INLINE static inline __attribute__((always_inline, unused))
#define ALIGNED(bits, bytes) __attribute__((vector_size(bytes), aligned(bits / 8), may_alias))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
/* Keeps a vector in a register, where the compiler would load it again for each use. */
#if defined(__x86_64__)
#define KEEP(x) __asm__("" : "+v"(x))
#else
#define KEEP(x)
#endif

/* The function of one type, by the type that the first argument points to. */
#define ON_REALS(name, p, ...) \
    _Generic(*(p), float: name##32, double: name##64)(p __VA_OPT__(,) __VA_ARGS__)

/* Of a job that has a field is_float: the function of its type, and one for parallel_for. */
#define OF_JOB(name, job) ((job)->is_float ? name##32(job) : name##64(job))
#define UNIT_OF_REALS(name, Job)                                                              \
    static void name(void *job, Py_ssize_t unit, int thread) {                                \
        (void)thread;                                                                         \
        if (((const Job *)job)->is_float) name##32(job, unit);                                \
        else name##64(job, unit);                                                             \
    }

/* CALL(n) with n as a constant: what else would be a ladder of conditions. */
#define CASE(n, CALL) case n: CALL(n); break;
#define CASES4(n, CALL) switch (n) { CASE(1, CALL) CASE(2, CALL) CASE(3, CALL) CASE(4, CALL) }
#define CASES8(n, CALL) switch (n) { CASE(1, CALL) CASE(2, CALL) CASE(3, CALL) CASE(4, CALL) \
    CASE(5, CALL) CASE(6, CALL) CASE(7, CALL) CASE(8, CALL) }
#define CASES16(n, CALL) switch (n) { CASE(1, CALL) CASE(2, CALL) CASE(3, CALL) CASE(4, CALL) \
    CASE(5, CALL) CASE(6, CALL) CASE(7, CALL) CASE(8, CALL) CASE(9, CALL) CASE(10, CALL) \
    CASE(11, CALL) CASE(12, CALL) CASE(13, CALL) CASE(14, CALL) CASE(15, CALL) CASE(16, CALL) }

/* Lists of lanes for SHUFFLE: a shuffle of a and b takes lanes by number, b's after a's n. */
#define LIST2(F, n, l, s) F(n, l, s), F(n, l + 1, s)
#define LIST4(F, n, l, s) LIST2(F, n, l, s), LIST2(F, n, l + 2, s)
#define LIST8(F, n, l, s) LIST4(F, n, l, s), LIST4(F, n, l + 4, s)
#define LIST16(F, n, l, s) LIST8(F, n, l, s), LIST8(F, n, l + 8, s)
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (__typeof__(a < b)){__VA_ARGS__})
#endif

/* Transposition: for s = 1, 2, 4, ... exchange blocks of s x s lanes across the diagonal of
   each block of 2s x 2s. */
#define EVEN(n, l, s) (((l) & s) ? n + (l) - s : (l))
#define ODD(n, l, s) (((l) & s) ? n + (l) : (l) + s)
#define EXCHANGE(n, s)                                                                        \
    if (n_rows > s)                                                                           \
        UNROLL for (int i = 0; i < n_rows; i++)                                               \
            if (!(i & s)) {                                                                   \
                vec a = row[i], b = row[i + s];                                               \
                row[i] = SHUFFLE(a, b, LIST##n(EVEN, n, 0, s));                               \
                row[i + s] = SHUFFLE(a, b, LIST##n(ODD, n, 0, s));                            \
            }
#define STAGES2(n) EXCHANGE(n, 1)
#define STAGES4(n) STAGES2(n) EXCHANGE(n, 2)
#define STAGES8(n) STAGES4(n) EXCHANGE(n, 4)
#define STAGES16(n) STAGES8(n) EXCHANGE(n, 8)
#define PUT_COLUMNS(n) {                                                                      \
    typedef real part __attribute__((                                                         \
        vector_size(n * sizeof(real)), aligned(sizeof(real)), may_alias));                    \
    UNROLL for (int i = 0; i < OF(N_LANES); i++)                                              \
        *(part *)(to + at[i]) = ((part *)(row + i % n))[i / n]; }

/* Two rows of `pairs` values each from and to one row that has them in turn, in the widest
   vectors that fit; the last ones are moved back to end with the rows. */
#define DOUBLED(n, l, s) 2 * (l) + s
#define ZIPPED(n, l, s) (l) / 2 + s + ((l) & 1 ? n : 0)
#define IN_STEPS(n, STEP)                                                                     \
    if (n <= VECTOR_BYTES / sizeof(real) && pairs >= n) {                                     \
        typedef real part __attribute__((                                                     \
            vector_size(n * sizeof(real)), aligned(sizeof(real)), may_alias));                \
        for (Py_ssize_t x = 0; x < pairs; x += n) {                                           \
            if (x > pairs - n) x = pairs - n;                                                 \
            STEP(n) }                                                                         \
    } else
#define IN_VECTORS(STEP) IN_STEPS(16, STEP) IN_STEPS(8, STEP) IN_STEPS(4, STEP) IN_STEPS(2, STEP)
#define UNZIP(n)                                                                              \
    part a = *(const part *)(src + 2 * x), b = *(const part *)(src + 2 * x + n);              \
    *(part *)(even + x) = SHUFFLE(a, b, LIST##n(DOUBLED, n, 0, 0));                           \
    if (odd) *(part *)(odd + x) = SHUFFLE(a, b, LIST##n(DOUBLED, n, 0, 1));
#define ZIP(n)                                                                                \
    part a = *(const part *)(even + x), b = *(const part *)(odd + x);                         \
    *(part *)(dst + 2 * x) = SHUFFLE(a, b, LIST##n(ZIPPED, n, 0, 0));                         \
    *(part *)(dst + 2 * x + n) = SHUFFLE(a, b, LIST##n(ZIPPED, n, 0, n / 2));

/* For SHUFFLE by OF(LIST_): each lane of the first half twice, from its second time on if s is 1;
   neighbours exchanged; from lane s on and around; a lane further, and the last but one of b. */
#define TWICE(n, l, s) ((l) + s) / 2
#define SWAPPED(n, l, s) (l) ^ 1
#define ROTATED(n, l, s) ((l) + s) % n
#define NEXT_LANE(n, l, s) (l) + 1 < n ? (l) + 1 : 2 * n - 2

/* Instructions by the name that they have for either type, and for each length of vectors. */
#if defined(__AVX512F__)
typedef __mmask16 lanes32;
typedef __mmask8 lanes64;
#define X86_32(name) _mm512_##name##_ps
#define X86_64(name) _mm512_##name##_pd
#define COMPARE_32 _mm512_cmp_ps_mask
#define COMPARE_64 _mm512_cmp_pd_mask
#elif defined(__AVX__)
#define X86_32(name) _mm256_##name##_ps
#define X86_64(name) _mm256_##name##_pd
#elif defined(__SSE2__)
#define X86_32(name) _mm_##name##_ps
#define X86_64(name) _mm_##name##_pd
#endif

#define prefetch(address) __builtin_prefetch(address)
#define prefetch_far(address) __builtin_prefetch(address, 0, 2)  /* to the L2 cache */

#define TEMPLATE "simd.h"
#include "for_reals.h"

#else /* ---------------------------------------------- for float, and for double */

typedef real vec ALIGNED(BITS, VECTOR_BYTES);
typedef real OF(half) ALIGNED(BITS, VECTOR_BYTES / 2);
typedef integer OF(mask) ALIGNED(BITS, VECTOR_BYTES);
enum { OF(N_LANES) = VECTOR_BYTES / sizeof(real) };

INLINE vec OF(get)(const real *x) { return *(const vec *)x; }
INLINE void OF(put)(real *x, vec value) { *(vec *)x = value; }
INLINE vec OF(every)(real value) { return value - (vec){0}; }

/* Not so of NaN: it stays. */
INLINE vec OF(rectified)(vec x) {
    OF(mask) negative = x < (vec){0};
    return (vec)((OF(mask))x & ~negative);
}

INLINE void OF(fill)(real *acc, real value) { OF(put)(acc, OF(every)(value)); }

/* Not seen as a loop that zeroes memory. */
INLINE void OF(clear)(real *acc) {
    vec value = {0};
    KEEP(value);
    OF(put)(acc, value);
}

INLINE void OF(store)(real *out, const real *acc) { OF(put)(out, OF(get)(acc)); }

/* The sum of the lanes, always in the same order. */
INLINE real OF(lane_sum)(const real *acc) {
#if defined(__AVX512F__)
    return OF(X86_)(reduce_add)(OF(get)(acc));
#else
    enum { HALF = OF(N_LANES) / 2 };
    real lane[HALF];
    *(OF(half) *)lane = *(const OF(half) *)acc + *(const OF(half) *)(acc + HALF);
    for (int n = HALF / 2; n; n /= 2)
        for (int l = 0; l < n; l++) lane[l] += lane[l + n];
    return lane[0];
#endif
}

/* A few values: a call of memcpy takes longer. */
INLINE void OF(copy)(real *dst, const real *src, Py_ssize_t n) {
    enum { N = OF(N_LANES), HALF = N / 2 };
    if (n >= N) {
        for (Py_ssize_t x = 0; x < n - N; x += N) OF(store)(dst + x, src + x);
        OF(store)(dst + n - N, src + n - N);
    } else if (n >= HALF) {
        OF(half) first = *(const OF(half) *)src, last = *(const OF(half) *)(src + n - HALF);
        *(OF(half) *)dst = first;
        *(OF(half) *)(dst + n - HALF) = last;
    } else {
        for (Py_ssize_t x = 0; x < n; x++) dst[x] = src[x];
    }
}

/* Values in turn: n to `even`, `pairs` (n or n - 1) to `odd`, or nowhere if that is NULL. */
INLINE void OF(unzip)(real *even, real *odd, const real *src, Py_ssize_t n, Py_ssize_t pairs) {
    if (n > pairs) even[pairs] = src[2 * pairs];
    IN_VECTORS(UNZIP) if (pairs) {
        even[0] = src[0];
        if (odd) odd[0] = src[1];
    }
}

/* The reverse: n values of `even`, with `pairs`, n or n - 1, of `odd` between them. */
INLINE void OF(zip)(real *dst, const real *even, const real *odd, Py_ssize_t n,
                    Py_ssize_t pairs) {
    if (n > pairs) dst[2 * pairs] = even[pairs];
    IN_VECTORS(ZIP) if (pairs) {
        dst[0] = even[0];
        dst[1] = odd[0];
    }
}

/* One vector of n_rows rows, 4, 8 or as many as it has lanes: column i goes to `to + at[i]`.
   After as many stages as the rows need, row r holds column r, then column r + n_rows, ... */
INLINE void OF(transpose_rows)(real *to, const Py_ssize_t *at, const real **rows,
                               const int n_rows) {
    vec row[OF(N_LANES)];
    UNROLL for (int r = 0; r < n_rows; r++) row[r] = OF(get)(rows[r]);
    STAGES
    if (n_rows == OF(N_LANES))
        UNROLL for (int i = 0; i < n_rows; i++) OF(put)(to + at[i], row[i]);
    else if (n_rows == 4) PUT_COLUMNS(4)
    else PUT_COLUMNS(8)
}

/* A block of as many vectors as one has lanes. */
INLINE void OF(transpose)(real *block) {
    enum { n_rows = OF(N_LANES) };
    vec *row = (vec *)block;
    STAGES
}

/* --- lanes: a bit for each with AVX-512, elsewhere each all of its bits --- */

INLINE Py_ssize_t OF(lane_of)(Py_ssize_t i) {
    return i < 0 ? 0 : i < OF(N_LANES) ? i : OF(N_LANES);
}

#if defined(__AVX512F__)
INLINE OF(lanes) OF(lanes_between)(Py_ssize_t first, Py_ssize_t end) {
    return (OF(lanes))(((1u << OF(lane_of)(end)) - 1) & ~((1u << OF(lane_of)(first)) - 1));
}

INLINE OF(lanes) OF(greater)(vec a, vec b) { return OF(COMPARE_)(a, b, _CMP_GT_OQ); }
INLINE OF(lanes) OF(unordered)(vec a, vec b) { return OF(COMPARE_)(a, b, _CMP_UNORD_Q); }
INLINE vec OF(choose)(OF(lanes) which, vec a, vec b) { return OF(X86_)(mask_blend)(which, b, a); }
INLINE int OF(any)(OF(lanes) which) { return which != 0; }

/* The lanes of x that are chosen, no other memory is read; elsewhere those of `other`. */
INLINE vec OF(get_lanes)(const real *x, OF(lanes) which, vec other) {
    return OF(X86_)(mask_loadu)(other, which, x);
}

INLINE void OF(put_first)(real *x, vec value, Py_ssize_t n) {
    OF(X86_)(mask_storeu)(x, OF(lanes_between)(0, n), value);
}
#else
typedef OF(mask) OF(lanes);

INLINE OF(lanes) OF(lanes_between)(Py_ssize_t first, Py_ssize_t end) {
    OF(lanes) which;
    for (int l = 0; l < OF(N_LANES); l++) which[l] = -(first <= l && l < end);
    return which;
}

INLINE OF(lanes) OF(greater)(vec a, vec b) { return a > b; }
INLINE OF(lanes) OF(unordered)(vec a, vec b) { return (a != a) | (b != b); }

INLINE vec OF(choose)(OF(lanes) which, vec a, vec b) {
#if defined(__AVX__)
    return OF(X86_)(blendv)(b, a, (vec)which);
#else
    return (vec)(((OF(mask))a & which) | ((OF(mask))b & ~which));
#endif
}

INLINE int OF(any)(OF(lanes) which) {
    integer found = 0;
    for (int l = 0; l < OF(N_LANES); l++) found |= which[l];
    return found != 0;
}

/* The lanes of x that are chosen, elsewhere those of `other`; all of x can be read. */
INLINE vec OF(get_lanes)(const real *x, OF(lanes) which, vec other) {
    return OF(choose)(which, OF(get)(x), other);
}

INLINE void OF(put_first)(real *x, vec value, Py_ssize_t n) {
    real lane[OF(N_LANES)];
    if (n >= OF(N_LANES)) {
        OF(put)(x, value);
        return;
    }
    OF(put)(lane, value);
    OF(copy)(x, lane, n);
}
#endif

/* a where it is greater than b, else b: also where one is NaN. */
INLINE vec OF(larger)(vec a, vec b) {
#if defined(__SSE2__)
    return OF(X86_)(max)(a, b);
#else
    return OF(choose)(OF(greater)(a, b), a, b);
#endif
}

#endif
