/* The register tiles of a correlation: sums over taps. A template; needs simd.h.
 *
 * A tap is a constant distance away from an output pixel: a table says where. Long sums are
 * taken in blocks of TERMS products, which lose less by rounding: with 576 products of rectified
 * normal pixels 1.55e-7 of the result instead of 3.0e-7.
 */
#if !defined(OF)
enum {
    MAX_VECTORS = 8,        /* of pixels in a tile */
    /* With 32 registers there is room for the sums of blocks too: 6 x 2 in blocks of 16 products
       reach 115 GFLOP/s, 6 x 4 with sums in memory 109, without blocks both 116. Eight pixels:
       gcc runs out of registers for their addresses. */
    TILE_PIXELS = 6,
    LAST_PIXELS = 4,        /* of the last tile, if there are no more left */
    MAX_FEATURE_VECTORS = 2,
    HAS_ROOM = MAX_ACCUMULATORS >= 2 * TILE_PIXELS * MAX_FEATURE_VECTORS,
    TERMS = 144,
};
#define TEMPLATE "conv/tiles.h"
#include "for_reals.h"
#define pixels_tiles(...) ON_REALS(pixels_tiles, __VA_ARGS__)
#define features_tiles(...) ON_REALS(features_tiles, __VA_ARGS__)

#else /* ---------------------------------------------- for float, and for double */

/* A block's sums to those of the blocks before, which are not kept in registers. */
INLINE void OF(end_block)(real *sums, vec *acc, int is_first, const int n) {
    if (is_first)
        UNROLL for (int i = 0; i < n; i++) OF(put)(sums + i * OF(N_LANES), acc[i]);
    else
        UNROLL for (int i = 0; i < n; i++)
            OF(put)(sums + i * OF(N_LANES), OF(get)(sums + i * OF(N_LANES)) + acc[i]);
    UNROLL for (int i = 0; i < n; i++) {
        acc[i] = (vec){0};
        KEEP(acc[i]);
    }
}

/* Pixels in the lanes: features x vectors of pixels. */
INLINE void OF(pixels_tile)(
    real *out,                      /* (n_features, ...), features out_pitch apart     OUT */
    Py_ssize_t out_pitch,
    const Py_ssize_t *out_at,       /* (n_vectors,) where each vector of pixels goes */
    const real *src,                /* the packed images */
    const Py_ssize_t *src_at,       /* (n_vectors,) where each vector's first tap is read */
    const Py_ssize_t *tap_at,       /* (n_taps,) where each tap is read, from there */
    const real *weights,            /* (n_taps, n_features) */
    Py_ssize_t n_taps,
    const real *bias,               /* (n_features,) */
    int with_relu, const int n_features, const int n_vectors) {
    enum { L = OF(N_LANES) };
    real memory[L * MAX_ACCUMULATORS], *sums = memory;
    const real *pixels[MAX_VECTORS];
    vec acc[MAX_ACCUMULATORS];
    int is_first = 1;
    if (n_features * n_vectors > MAX_ACCUMULATORS) return;  /* never asked for */
    __asm__("" : "+r"(sums));       /* memory indeed */
    UNROLL for (int v = 0; v < n_vectors; v++) pixels[v] = src + src_at[v];
    UNROLL for (int i = 0; i < n_features; i++)
        UNROLL for (int v = 0; v < n_vectors; v++) acc[i * n_vectors + v] = OF(every)(bias[i]);
    for (;;) {
        Py_ssize_t n = n_taps < TERMS ? n_taps : TERMS;
        for (Py_ssize_t t = 0; t < n; t++, weights += n_features) {
            const Py_ssize_t at = tap_at[t];
            /* Weights stay in registers and pixels pass by, or the other way round: beside 12
               sums 16 registers have no room for more than 3 (3 x 4, AVX2: 46 -> 92 GFLOP/s). */
            vec kept[MAX_VECTORS];
            if (n_features < n_vectors) {
                UNROLL for (int i = 0; i < n_features; i++) {
                    kept[i] = OF(every)(weights[i]);
                    KEEP(kept[i]);
                }
                UNROLL for (int v = 0; v < n_vectors; v++)
                    UNROLL for (int i = 0; i < n_features; i++)
                        acc[i * n_vectors + v] += kept[i] * OF(get)(pixels[v] + at);
            } else {
                UNROLL for (int v = 0; v < n_vectors; v++) {
                    kept[v] = OF(get)(pixels[v] + at);
                    KEEP(kept[v]);
                }
                UNROLL for (int i = 0; i < n_features; i++)
                    UNROLL for (int v = 0; v < n_vectors; v++)
                        acc[i * n_vectors + v] += weights[i] * kept[v];
            }
        }
        if (n == n_taps) break;
        OF(end_block)(sums, acc, is_first, n_features * n_vectors);
        n_taps -= n, tap_at += n, is_first = 0;
    }
    if (!is_first)
        UNROLL for (int i = 0; i < n_features * n_vectors; i++) acc[i] += OF(get)(sums + i * L);
    if (with_relu)
        UNROLL for (int i = 0; i < n_features * n_vectors; i++) acc[i] = OF(rectified)(acc[i]);
    UNROLL for (int i = 0; i < n_features; i++)
        UNROLL for (int v = 0; v < n_vectors; v++)
            OF(put)(out + i * out_pitch + out_at[v], acc[i * n_vectors + v]);
}

/* All n_at vectors of pixels of one block of 1 to MAX_FEATURES features, n_vectors at once. The
   tables have MAX_VECTORS entries more than that. */
static void OF(pixels_tiles)(
    real *out, Py_ssize_t out_pitch, const Py_ssize_t *out_at, const real *src,
    const Py_ssize_t *src_at, Py_ssize_t n_at, const Py_ssize_t *tap_at, const real *weights,
    Py_ssize_t n_taps, const real *bias, int with_relu, int n_vectors, int n_features) {
#define TILES(f, n)                                                                           \
    for (Py_ssize_t v = 0; v < n_at; v += n)                                                  \
        OF(pixels_tile)(out, out_pitch, out_at + v, src, src_at + v, tap_at, weights, n_taps, \
                        bias, with_relu, f, n)
#define WIDTHS(f)                                                                             \
    switch (n_vectors) { case 1: TILES(f, 1); break; case 2: TILES(f, 2); break;              \
        case 3: TILES(f, 3); break; case 4: TILES(f, 4); break; case 6: TILES(f, 6); break;   \
        case 8: TILES(f, 8); break; }
#if defined(__AVX512F__) || defined(__aarch64__)
    CASES8(n_features, WIDTHS)
#else
    switch (n_features) { CASE(1, WIDTHS) CASE(2, WIDTHS) CASE(3, WIDTHS) CASE(4, WIDTHS)
        CASE(5, WIDTHS) CASE(6, WIDTHS) }
#endif
#undef TILES
#undef WIDTHS
}

/* Features in the lanes: pixels x vectors of features. */
INLINE void OF(features_tile)(
    real *out,                      /* (..., n_vectors * lanes)                        OUT */
    const Py_ssize_t *out_at,       /* (n_pixels,) which pixel of `out` each of them is */
    const real *src,                /* the packed pixels */
    const Py_ssize_t *src_at,       /* (n_pixels,) where its first tap is read */
    const Py_ssize_t n_left,        /* pixels there are: the last one is computed again */
    const Py_ssize_t *tap_at,       /* (n_taps,) where each tap is read, from there */
    const real *weights,            /* (n_taps, n_vectors * lanes) */
    Py_ssize_t n_taps, Py_ssize_t terms,
    const real *bias,               /* (n_vectors * lanes,) */
    int with_relu, const int P, const int n_vectors) {
    enum { L = OF(N_LANES), SUMS = TILE_PIXELS * MAX_FEATURE_VECTORS };
    real memory[L * SUMS], *sums = memory;
    const real *pixels[TILE_PIXELS];
    vec acc[SUMS], total[SUMS];
    int is_first = 1;
    __asm__("" : "+r"(sums));
    UNROLL for (int p = 0; p < P; p++) pixels[p] = src + src_at[p < n_left ? p : n_left - 1];
    UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int v = 0; v < n_vectors; v++) {
            acc[p * n_vectors + v] = OF(get)(bias + v * L);
            total[p * n_vectors + v] = (vec){0};
        }
    for (;;) {
        Py_ssize_t n = n_taps < terms ? n_taps : terms;
        for (Py_ssize_t t = 0; t < n; t++, weights += n_vectors * L) {
            const Py_ssize_t at = tap_at[t];
            UNROLL for (int p = 0; p < P; p++)
                UNROLL for (int v = 0; v < n_vectors; v++)
                    acc[p * n_vectors + v] += pixels[p][at] * OF(get)(weights + v * L);
        }
        if (n == n_taps) break;
        if (HAS_ROOM)
            UNROLL for (int i = 0; i < P * n_vectors; i++) {
                total[i] += acc[i];
                acc[i] = (vec){0};
                KEEP(acc[i]);
            }
        else OF(end_block)(sums, acc, is_first, P * n_vectors);
        n_taps -= n, tap_at += n, is_first = 0;
    }
    UNROLL for (int p = 0; p < P; p++)
        UNROLL for (int v = 0; v < n_vectors; v++) {
            vec sum = acc[p * n_vectors + v];
            if (HAS_ROOM) sum += total[p * n_vectors + v];
            else if (!is_first) sum += OF(get)(sums + (p * n_vectors + v) * L);
            if (with_relu) sum = OF(rectified)(sum);
            OF(put)(out + (out_at[p < n_left ? p : n_left - 1] * n_vectors + v) * L, sum);
        }
}

/* All n_at pixels of one block of 1 to MAX_FEATURE_VECTORS vectors of features. */
static void OF(features_tiles)(
    real *out, const Py_ssize_t *out_at, const real *src, const Py_ssize_t *src_at,
    Py_ssize_t n_at, const Py_ssize_t *tap_at, const real *weights, Py_ssize_t n_taps,
    Py_ssize_t terms, const real *bias, int with_relu, int n_vectors) {
    Py_ssize_t p = 0;
#define TILE(pixels, n)                                                                       \
    OF(features_tile)(out, out_at + p, src, src_at + p, n_at - p, tap_at, weights, n_taps,    \
                      terms, bias, with_relu, pixels, n)
#define TILES(n)                                                                              \
    for (; p + TILE_PIXELS <= n_at; p += TILE_PIXELS)                                         \
        TILE(TILE_PIXELS, n);                                                                 \
    if (p + LAST_PIXELS < n_at) TILE(TILE_PIXELS, n);                                         \
    else if (p < n_at) TILE(LAST_PIXELS, n)
    switch (n_vectors) { CASE(1, TILES) CASE(2, TILES) }
#undef TILES
#undef TILE
}

#endif
