/* The transforms of Winograd's algorithm: see winograd.pxi. A template; needs simd.h.
 *
 * A piece of n taps has the elements 0 and 3 (one tap), 0 to 2 (two) or 0 to 3 (three) an axis:
 * the others are neither read nor written.
 */
#if !defined(OF)
#define HAS_ELEMENT(e, n_taps) ((e) == 0 || ((e) == 3 ? (n_taps) != 2 : (n_taps) > 1))
#define TEMPLATE "conv/winograd.h"
#include "for_reals.h"
#define transform_pixels(...) ON_REALS(transform_pixels, __VA_ARGS__)
#define transform_taps(out, ...) \
    _Generic(**(out), float: transform_taps32, double: transform_taps64)(out, __VA_ARGS__)
#define transform_sums(...) ON_REALS(transform_sums, __VA_ARGS__)

#else /* ---------------------------------------------- for float, and for double */

typedef double OF(wide) __attribute__((vector_size(OF(N_LANES) * sizeof(double))));

/* B' d of n + 1 vectors. */
INLINE void OF(pixels_line)(vec *out, int pitch, const vec *d, int step, const int n_taps) {
    if (n_taps == 1) {
        out[0] = d[0], out[3 * pitch] = d[step];
        return;
    }
    out[0] = d[0] - d[2 * step];
    out[pitch] = d[step] + d[2 * step];
    out[2 * pitch] = d[2 * step] - d[step];
    if (n_taps == 3) out[3 * pitch] = d[step] - d[3 * step];
}

INLINE void OF(pixels_tile_of)(real *out, Py_ssize_t pitch, const real *src, Py_ssize_t row,
                               Py_ssize_t col, const int taps_y, const int taps_x) {
    vec line[4], half[16], done[16];
    UNROLL for (int i = 0; i <= taps_y; i++) {
        UNROLL for (int j = 0; j <= taps_x; j++) line[j] = OF(get)(src + i * row + j * col);
        OF(pixels_line)(half + 4 * i, 1, line, 1, taps_x);
    }
    UNROLL for (int j = 0; j < 4; j++) {
        if (!HAS_ELEMENT(j, taps_x)) continue;
        OF(pixels_line)(done + j, 4, half + j, 4, taps_y);
        UNROLL for (int i = 0; i < 4; i++)
            if (HAS_ELEMENT(i, taps_y)) OF(put)(out + (4 * i + j) * pitch, done[4 * i + j]);
    }
}

/* B' d B of one vector of channels, (taps_y + 1, taps_x + 1) pixels, to (4, 4, ...) elements
   pitch apart. */
static void OF(transform_pixels)(real *out, Py_ssize_t pitch, const real *src, Py_ssize_t row,
                                 Py_ssize_t col, Py_ssize_t taps_y, Py_ssize_t taps_x) {
#define TILE(y, x) case 4 * y + x: OF(pixels_tile_of)(out, pitch, src, row, col, y, x); break;
    switch (4 * taps_y + taps_x) { TILE(3, 3) TILE(3, 2) TILE(3, 1) TILE(2, 3) TILE(2, 2)
        TILE(2, 1) TILE(1, 3) TILE(1, 2) TILE(1, 1) }
#undef TILE
}

/* A' m of the elements of n taps. */
INLINE void OF(sums_line)(vec *out, int pitch, const vec *m, int step, const int n_taps) {
    if (n_taps == 1) {
        out[0] = m[0], out[pitch] = -m[3 * step];
        return;
    }
    out[0] = m[0] + (m[step] + m[2 * step]);
    out[pitch] = m[step] - m[2 * step];
    if (n_taps == 3) out[pitch] -= m[3 * step];
}

INLINE void OF(sums_tile)(real *out, const real *sums, Py_ssize_t pitch, const real *bias,
                          int with_relu, const int taps_y, const int taps_x) {
    vec m[16], half[8], done[4];
    UNROLL for (int j = 0; j < 4; j++) {
        if (!HAS_ELEMENT(j, taps_x)) continue;
        UNROLL for (int i = 0; i < 4; i++)
            if (HAS_ELEMENT(i, taps_y)) m[4 * i + j] = OF(get)(sums + (4 * i + j) * pitch);
        OF(sums_line)(half + j, 4, m + j, 4, taps_y);
    }
    UNROLL for (int i = 0; i < 2; i++) OF(sums_line)(done + 2 * i, 1, half + 4 * i, 1, taps_x);
    UNROLL for (int i = 0; i < 4; i++) {
        vec value = done[i] + OF(get)(bias);
        if (with_relu) value = OF(rectified)(value);
        OF(put)(out + i * OF(N_LANES), value);
    }
}

/* A' m A + bias, rectified or not: (2, 2) outputs of one vector of features. */
static void OF(transform_sums)(real *out, const real *sums, Py_ssize_t pitch, const real *bias,
                               int with_relu, Py_ssize_t taps_y, Py_ssize_t taps_x) {
#define TILE(y, x) case 4 * y + x: \
    OF(sums_tile)(out, sums, pitch, bias, with_relu, y, x); break;
    switch (4 * taps_y + taps_x) { TILE(3, 3) TILE(3, 2) TILE(3, 1) TILE(2, 3) TILE(2, 2)
        TILE(2, 1) TILE(1, 3) TILE(1, 2) TILE(1, 1) }
#undef TILE
}

/* G g of n vectors of taps. */
INLINE void OF(taps_line)(OF(wide) *out, int pitch, const OF(wide) *g, int step,
                          const int n_taps) {
    out[0] = g[0];
    if (n_taps == 1) {
        out[3 * pitch] = -g[0];
        return;
    }
    OF(wide) outer = 0.5 * g[0], middle = 0.5 * g[step];
    if (n_taps == 3) {
        outer += 0.5 * g[2 * step];
        out[3 * pitch] = g[2 * step];
    }
    out[pitch] = outer + middle;
    out[2 * pitch] = outer - middle;
}

/* G g G' of (taps_y, taps_x) taps, step_y and step_x apart, of n features, pitch apart: its
   elements go to out[e] + at, a vector each. In double, so that they are rounded once. */
INLINE void OF(taps_tile)(real **out, Py_ssize_t at, const real *filters, Py_ssize_t step_y,
                          Py_ssize_t step_x, Py_ssize_t pitch, const Py_ssize_t n,
                          const int taps_y, const int taps_x) {
    OF(wide) g[9], half[12], done[16];
    UNROLL for (int i = 0; i < 3; i++)
        UNROLL for (int j = 0; j < 3; j++) {
            vec taps = {0};
            if (i < taps_y && j < taps_x)
                for (Py_ssize_t f = 0; f < n; f++)
                    ((real *)&taps)[f] = filters[f * pitch + i * step_y + j * step_x];
            g[3 * i + j] = __builtin_convertvector(taps, OF(wide));
        }
    UNROLL for (int j = 0; j < 3; j++) OF(taps_line)(half + j, 3, g + j, 3, taps_y);
    UNROLL for (int i = 0; i < 4; i++) {
        if (!HAS_ELEMENT(i, taps_y)) continue;
        OF(taps_line)(done + 4 * i, 1, half + 3 * i, 1, taps_x);
        UNROLL for (int j = 0; j < 4; j++)
            if (HAS_ELEMENT(j, taps_x))
                OF(put)(out[4 * i + j] + at, __builtin_convertvector(done[4 * i + j], vec));
    }
}

static void OF(transform_taps)(real **out, Py_ssize_t at, const real *filters, Py_ssize_t step_y,
                               Py_ssize_t step_x, Py_ssize_t pitch, Py_ssize_t n, int taps_y,
                               int taps_x) {
    if (n == OF(N_LANES) && taps_y == 3 && taps_x == 3)     /* constants are worth their code */
        OF(taps_tile)(out, at, filters, step_y, step_x, pitch, OF(N_LANES), 3, 3);
    else
        OF(taps_tile)(out, at, filters, step_y, step_x, pitch, n, taps_y, taps_x);
}

#endif
