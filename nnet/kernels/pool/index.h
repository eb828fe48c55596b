/* Argmax offsets in the lanes of a vector. A template; needs simd.h.
 *
 * With AVX-512 a lane's offset is a byte, as it is in memory; elsewhere it is an integer as wide as
 * the reals, which compares to them.
 */
#if !defined(OF)
#define TEMPLATE "pool/index.h"
typedef int32_t ints ALIGNED(32, VECTOR_BYTES);
enum { N_INTS = VECTOR_BYTES / sizeof(int32_t) };

/* Bytes and integers: gcc 12 makes scalar code of conversions between them. */
INLINE ints ints_of_bytes(const uint8_t *bytes) {
#if defined(__AVX512F__)
    return (ints)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)bytes));
#elif defined(__AVX2__)
    return (ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)bytes));
#else
    ints a;
    for (int l = 0; l < N_INTS; l++) a[l] = bytes[l];
    return a;
#endif
}

INLINE void bytes_of_ints(uint8_t *bytes, ints a) {
#if defined(__AVX512F__)
    _mm_storeu_si128((__m128i *)bytes, _mm512_cvtepi32_epi8((__m512i)a));
#elif defined(__AVX2__)
    __m256i b = (__m256i)a;
    __m128i c = _mm_packs_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    _mm_storel_epi64((__m128i *)bytes, _mm_packus_epi16(c, c));
#else
    for (int l = 0; l < N_INTS; l++) bytes[l] = (uint8_t)a[l];
#endif
}
#include "for_reals.h"

#else /* ---------------------------------------------- for float, and for double */

#if defined(__AVX512F__)
typedef uint8_t OF(index) __attribute__((vector_size(16)));
#define INDEX_LIST(F, s) LIST16(F, 16, 0, s)

INLINE OF(index) OF(index_every)(Py_ssize_t i) { return (OF(index))_mm_set1_epi8((char)i); }

INLINE OF(index) OF(index_choose)(OF(lanes) which, OF(index) a, OF(index) b) {
    return (OF(index))_mm_mask_blend_epi8(which, (__m128i)b, (__m128i)a);
}

INLINE OF(lanes) OF(index_equal)(OF(index) a, OF(index) b) {
    return (OF(lanes))_mm_cmpeq_epi8_mask((__m128i)a, (__m128i)b);
}

INLINE OF(index) OF(index_get)(const uint8_t *offsets, OF(lanes) which) {
    return (OF(index))_mm_maskz_loadu_epi8(which, offsets);
}

INLINE void OF(index_put)(uint8_t *offsets, OF(index) a, Py_ssize_t n) {
    _mm_mask_storeu_epi8(offsets, OF(lanes_between)(0, n), (__m128i)a);
}

INLINE vec OF(add_where)(vec sum, OF(lanes) which, vec a) {
    return OF(X86_)(mask_add)(sum, which, sum, a);
}
#else
typedef OF(mask) OF(index);
#define INDEX_LIST OF(LIST_)

INLINE OF(index) OF(index_every)(Py_ssize_t i) { return (integer)i - (OF(index)){0}; }

INLINE OF(index) OF(index_choose)(OF(lanes) which, OF(index) a, OF(index) b) {
    return (OF(index))OF(choose)(which, (vec)a, (vec)b);
}

INLINE OF(lanes) OF(index_equal)(OF(index) a, OF(index) b) { return a == b; }

INLINE OF(index) OF(index_get)(const uint8_t *offsets, OF(lanes) which) {
    OF(index) a;
    (void)which;
    if (BITS == 32) return (OF(index))ints_of_bytes(offsets);
    for (int l = 0; l < OF(N_LANES); l++) a[l] = offsets[l];
    return a;
}

INLINE void OF(index_put)(uint8_t *offsets, OF(index) a, Py_ssize_t n) {
    uint8_t lane[N_INTS];
    if (BITS == 32) bytes_of_ints(lane, (ints)a);
    else for (int l = 0; l < OF(N_LANES); l++) lane[l] = (uint8_t)a[l];
    if (n >= OF(N_LANES)) memcpy(offsets, lane, OF(N_LANES));
    else for (Py_ssize_t l = 0; l < n; l++) offsets[l] = lane[l];
}

INLINE vec OF(add_where)(vec sum, OF(lanes) which, vec a) {
    return sum + (vec)((OF(mask))a & which);
}
#endif

INLINE OF(index) OF(index_even)(OF(index) a) { return SHUFFLE(a, a, INDEX_LIST(DOUBLED, 0)); }

/* The first half's lanes twice each, the first one once if odd. */
INLINE OF(index) OF(index_twice)(OF(index) a, const int odd) {
    return odd ? SHUFFLE(a, a, INDEX_LIST(TWICE, 1)) : SHUFFLE(a, a, INDEX_LIST(TWICE, 0));
}

INLINE vec OF(twice)(vec a, const int odd) {
    return odd ? SHUFFLE(a, a, OF(LIST_)(TWICE, 1)) : SHUFFLE(a, a, OF(LIST_)(TWICE, 0));
}

/* Every other lane, the first one among them if odd. */
INLINE OF(lanes) OF(lanes_odd)(const int odd) {
#if defined(__AVX512F__)
    return (OF(lanes))(odd ? 0x5555 : 0xaaaa);
#else
    const OF(mask) none = {0}, all = ~none;
    return odd ? SHUFFLE(all, none, OF(LIST_)(ZIPPED, 0))
               : SHUFFLE(none, all, OF(LIST_)(ZIPPED, 0));
#endif
}
#undef INDEX_LIST

#endif
