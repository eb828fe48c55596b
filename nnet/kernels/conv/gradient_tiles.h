/* The register tiles of a filter gradient, summed over pixels. A template; needs simd.h.
 *
 * Dot tiles: lanes hold pixels. Each vector of the image meets several features, each vector of
 * the output gradient several taps; the lanes are summed at the end.
 *
 * Outer tiles: lanes hold features. Images and gradients lie pixel by pixel, with the channels
 * (features) of a pixel side by side; each pixel adds an outer product.
 *
 * Pairs of planes: lanes hold pixels, which are read where they are, row by row, without those
 * lanes that lie outside of the image. A pair has a sum for each tap.
 *
 * Walks of more than MAX_RUN terms are cut into halves: so few lose little by rounding.
 */
#if !defined(OF)

#if defined(__AVX512F__) || defined(__aarch64__)
enum { DOT_ACCUMULATORS = 25, DOT_FEATURES = 5, MAX_PAIR_SUMS = 15 };
#else
enum { DOT_ACCUMULATORS = 12, DOT_FEATURES = 3, MAX_PAIR_SUMS = 10 };
#endif
/* Of a tile, at most: taps, channels, taps of a column of the filter, columns of it. */
enum { DOT_TAPS = 8, OUTER_CHANNELS = 16, PAIR_TAPS = 7, PAIR_COLUMNS = 3, MAX_RUN = 400 };

typedef struct {            /* the pixels that a tile sums over, and how far apart they lie */
    Py_ssize_t n[3], src[3], grad[3];   /* of images, rows, pixels or vectors (dot tiles) */
    /* What comes next is fetched meanwhile, a cache line for every pixel or vector of pixels. */
    const char *next_imgs, *next_grad, *next_imgs_end, *next_grad_end;
} Walk;

static Walk half_of(const Walk *walk, int second, Py_ssize_t *src_at, Py_ssize_t *grad_at) {
    Walk half = *walk;
    const int axis = walk->n[0] > 1 ? 0 : walk->n[1] > 1 ? 1 : 2;
    const Py_ssize_t first = walk->n[axis] / 2, at = second ? first : 0;
    half.n[axis] = second ? walk->n[axis] - first : first;
    *src_at = at * walk->src[axis];
    *grad_at = at * walk->grad[axis];
    return half;
}

typedef struct {            /* pairs of planes */
    Py_ssize_t h, w, rows, cols;                /* of a plane of the image, of the gradient */
    Py_ssize_t top, left, stride, dilation_x;
    Py_ssize_t n_taps, n_columns;               /* of a column; of the filter */
    unsigned short *lanes;  /* (vectors of a row, n_columns, stride) the lanes that are pixels */
} Pair;

#if defined(__AVX512F__)
#include <immintrin.h>
enum { HAS_PAIRS = 1 };
#define PART32 __mmask16
#define PART64 __mmask8
#define PART_OF32(bits) (__mmask16)(bits)
#define PART_OF64(bits) (__mmask8)(bits)
#define GET_PART32 _mm512_maskz_loadu_ps
#define GET_PART64 _mm512_maskz_loadu_pd
#define EVEN_LANES32(a, b) SHUFFLE(a, b, LIST16(DOUBLED, 16, 0, 0))
#define EVEN_LANES64(a, b) SHUFFLE(a, b, LIST8(DOUBLED, 8, 0, 0))
#elif defined(__AVX2__)
#include <immintrin.h>
enum { HAS_PAIRS = 1 };
#define PART32 __m256i
#define PART64 __m256i
INLINE __m256i PART_OF32(int bits) {
    __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits), lane), lane);
}
INLINE __m256i PART_OF64(int bits) {
    __m256i lane = _mm256_setr_epi64x(1, 2, 4, 8);
    return _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(bits), lane), lane);
}
#define GET_PART32(part, from) _mm256_maskload_ps(from, part)
#define GET_PART64(part, from) _mm256_maskload_pd(from, part)
#define EVEN_LANES32(a, b) SHUFFLE(a, b, LIST8(DOUBLED, 8, 0, 0))
#define EVEN_LANES64(a, b) SHUFFLE(a, b, LIST4(DOUBLED, 4, 0, 0))
#else
enum { HAS_PAIRS = 0 };
#endif

#define TEMPLATE "conv/gradient_tiles.h"
#include "for_reals.h"
#define gradient_dot(...) ON_REALS(gradient_dot, __VA_ARGS__)
#define gradient_outer(...) ON_REALS(gradient_outer, __VA_ARGS__)
#define gradient_pair(...) ON_REALS(gradient_pair, __VA_ARGS__)
#define gradient_tile(...) ON_REALS(gradient_tile, __VA_ARGS__)
#define gradient_taps(...) ON_REALS(gradient_taps, __VA_ARGS__)
#define sums_of_lanes(...) ON_REALS(sums_of_lanes, __VA_ARGS__)
#define plane_sum(...) ON_REALS(plane_sum, __VA_ARGS__)
#define add_node(...) ON_REALS(add_node, __VA_ARGS__)
#define divide_node(...) ON_REALS(divide_node, __VA_ARGS__)

#else /* ---------------------------------------------- for float, and for double */

INLINE void OF(add_dots)(vec *acc, const real *const *taps, const real *const *grads, Py_ssize_t x,
                         const int n_taps, const int n_features) {
    vec g[DOT_FEATURES];
    UNROLL for (int f = 0; f < n_features; f++) {
        g[f] = OF(get)(grads[f] + x);
        KEEP(g[f]);
    }
    UNROLL for (int i = 0; i < n_taps; i++) {
        vec pixels = OF(get)(taps[i] + x);
        KEEP(pixels);
        UNROLL for (int f = 0; f < n_features; f++) acc[i * n_features + f] += pixels * g[f];
    }
}

INLINE void OF(dot_tile)(real *sums, Py_ssize_t feature, const real *src,
                         const Py_ssize_t *tap_at, const real *grad, Py_ssize_t plane,
                         const real *tails, Py_ssize_t tails_img, Walk *walk, const int n_taps,
                         const int n_features) {
    enum { N = OF(N_LANES) };
    const Py_ssize_t cols = walk->n[2];
    const char *next_grad = walk->next_grad;
    /* Only for vectors of a whole cache line: shorter tiles wait for their loads. */
    const int fetching = VECTOR_BYTES == 64 && next_grad < walk->next_grad_end;
    const real *taps[DOT_TAPS], *grads[DOT_FEATURES];
    vec acc[DOT_ACCUMULATORS];
    UNROLL for (int i = 0; i < n_taps * n_features; i++) acc[i] = (vec){0};
    for (Py_ssize_t s = 0; s < walk->n[0]; s++) {
        UNROLL for (int i = 0; i < n_taps; i++) taps[i] = src + tap_at[i] + s * walk->src[0];
        UNROLL for (int f = 0; f < n_features; f++)
            grads[f] = grad + f * plane + s * walk->grad[0];
        for (Py_ssize_t x = 0; x < cols; x++) {
            if (fetching) {
                prefetch_far(next_grad);
                next_grad += 64;
            }
            OF(add_dots)(acc, taps, grads, x * N, n_taps, n_features);
        }
        if (tails) {
            UNROLL for (int f = 0; f < n_features; f++)
                grads[f] = tails + s * tails_img + f * N - cols * N;
            OF(add_dots)(acc, taps, grads, cols * N, n_taps, n_features);
        }
    }
    UNROLL for (int i = 0; i < n_taps; i++)
        UNROLL for (int f = 0; f < n_features; f++) {
            real *sum = sums + i * N + f * feature;
            OF(put)(sum, OF(get)(sum) + acc[i * n_features + f]);
        }
    walk->next_grad = next_grad;
}

/* sums[f, t] += pixels that tap t reads * gradient of feature f, for 1 to DOT_TAPS taps and 1 to
   DOT_FEATURES features, DOT_ACCUMULATORS together; `tails`: the rest of a plane, or NULL. */
static void OF(gradient_dot)(real *sums, Py_ssize_t feature, const real *src,
                             const Py_ssize_t *tap_at, const real *grad, Py_ssize_t plane,
                             const real *tails, Py_ssize_t tails_img, Walk *walk, int n_taps,
                             int n_features) {
    if (walk->n[0] * walk->n[2] > MAX_RUN) {
        for (int second = 0; second < 2; second++) {
            Py_ssize_t src_at, grad_at;
            Walk half = half_of(walk, second, &src_at, &grad_at);
            const real *ends = second || walk->n[0] > 1 ? tails : NULL;
            if (ends && second) ends += walk->n[0] / 2 * tails_img;
            OF(gradient_dot)(sums, feature, src + src_at, tap_at, grad + grad_at, plane, ends,
                             tails_img, &half, n_taps, n_features);
            walk->next_grad = half.next_grad;
        }
        return;
    }
#define DOT(t)                                                                                \
    if (t * F <= DOT_ACCUMULATORS)                                                            \
        OF(dot_tile)(sums, feature, src, tap_at, grad, plane, tails, tails_img, walk, t, F);
#define DOTS(f)                                                                               \
    case f: { enum { F = f < DOT_FEATURES ? f : DOT_FEATURES }; CASES8(n_taps, DOT) break; }
    switch (n_features) { DOTS(1) DOTS(2) DOTS(3) DOTS(4) DOTS(5) }
}

/* n_vectors and, with `and_half`, the half of one more. */
INLINE void OF(outer_tile)(real *sums, Py_ssize_t pitch, const real *src, const real *grad,
                           Walk *walk, const int n_channels, const int n_vectors,
                           const int and_half) {
    enum { N = OF(N_LANES) };
    const Py_ssize_t src_col = walk->src[2], grad_col = walk->grad[2];
    const char *next_imgs = walk->next_imgs, *next_grad = walk->next_grad;
    const Py_ssize_t imgs_step = next_imgs < walk->next_imgs_end ? 64 : 0;
    const Py_ssize_t grad_step = next_grad < walk->next_grad_end ? 64 : 0;
    const int fetching = imgs_step + grad_step > 0;
    vec acc[MAX_ACCUMULATORS];
    OF(half) half[OUTER_CHANNELS];
    UNROLL for (int i = 0; i < n_channels * n_vectors; i++) acc[i] = (vec){0};
    UNROLL for (int i = 0; i < n_channels && and_half; i++) half[i] = (OF(half)){0};
    for (Py_ssize_t s = 0; s < walk->n[0]; s++)
        for (Py_ssize_t y = 0; y < walk->n[1]; y++) {
            const real *pixel = src + s * walk->src[0] + y * walk->src[1];
            const real *values = grad + s * walk->grad[0] + y * walk->grad[1];
            for (Py_ssize_t x = 0; x < walk->n[2]; x++) {
                UNROLL for (int i = 0; i < n_channels; i++) {
                    UNROLL for (int v = 0; v < n_vectors; v++)
                        acc[i * n_vectors + v] += pixel[i] * OF(get)(values + v * N);
                    if (and_half)
                        half[i] += pixel[i] * *(const OF(half) *)(values + n_vectors * N);
                }
                if (fetching) {
                    prefetch_far(next_imgs);
                    prefetch_far(next_grad);
                    next_imgs += imgs_step;
                    next_grad += grad_step;
                }
                pixel += src_col;
                values += grad_col;
            }
        }
    UNROLL for (int i = 0; i < n_channels; i++) {
        real *sum = sums + i * pitch;
        UNROLL for (int v = 0; v < n_vectors; v++, sum += N)
            OF(put)(sum, OF(get)(sum) + acc[i * n_vectors + v]);
        if (and_half) *(OF(half) *)sum += half[i];
    }
    walk->next_imgs = next_imgs;
    walk->next_grad = next_grad;
}

/* sums[c, k] += channel c of each pixel * its gradient k, `pitch` from one channel's sums to the
   next: whole vectors, of which the last may be half used. */
static void OF(gradient_outer)(real *sums, Py_ssize_t pitch, const real *src, const real *grad,
                               Walk *walk, Py_ssize_t n_channels, Py_ssize_t n_values) {
    enum { N = OF(N_LANES) };
    if (walk->n[0] * walk->n[1] * walk->n[2] > MAX_RUN) {
        for (int second = 0; second < 2; second++) {
            Py_ssize_t src_at, grad_at;
            Walk half = half_of(walk, second, &src_at, &grad_at);
            OF(gradient_outer)(sums, pitch, src + src_at, grad + grad_at, &half, n_channels,
                               n_values);
            walk->next_imgs = half.next_imgs;
            walk->next_grad = half.next_grad;
        }
        return;
    }
    Py_ssize_t n_vectors = (n_values + N - 1) / N;
    /* A half takes half the time where wide vectors are worked on in two halves. */
    const int and_half = VECTOR_BYTES == 64 && n_vectors > 1 && (n_values - 1) % N < N / 2;
    n_vectors -= and_half;
    for (Py_ssize_t v = 0, width; v < n_vectors; v += width) {
        const int last = and_half && n_vectors - v == 1;
        width = n_vectors - v > 1 + (and_half && n_vectors - v == 2) ? 2 : 1;
        const Py_ssize_t most = MAX_ACCUMULATORS / (width + last);
        const Py_ssize_t size = most < OUTER_CHANNELS ? most : OUTER_CHANNELS;
        const Py_ssize_t n_blocks = (n_channels + size - 1) / size;
        for (Py_ssize_t b = 0; b < n_blocks; b++) {
            const Py_ssize_t c = b * n_channels / n_blocks;
            const Py_ssize_t end = (b + 1) * n_channels / n_blocks;
#define OUTER(n, width, half)                                                                 \
    if (n * (width + half) <= MAX_ACCUMULATORS)                                               \
        OF(outer_tile)(sums + c * pitch + v * N, pitch, src + c, grad + v * N, walk, n, width, \
                       half);
#define OUTER_1(n) OUTER(n, 1, 0)
#define OUTER_2(n) OUTER(n, 2, 0)
#define OUTER_3(n) OUTER(n, 1, 1)
            if (VECTOR_BYTES == 64 && last) CASES16(end - c, OUTER_3)
            else if (width == 1) CASES16(end - c, OUTER_1)
            else CASES16(end - c, OUTER_2)
        }
    }
}

#if defined(PART32)
/* Columns of taps of a filter, and one vector of each output row in [first, end). */
INLINE void OF(pair_tile)(real *sums, const real *pixels, const real *grad, const Pair *p,
                          const unsigned short *lanes, unsigned n_cols, Py_ssize_t first,
                          Py_ssize_t end, const int n_taps, const int n_columns,
                          const int stride) {
    enum { N = OF(N_LANES) };
    const Py_ssize_t step = p->dilation_x, last = end + (n_taps - 1) / stride;
    const OF(PART) outputs = OF(PART_OF)((1u << n_cols) - 1);
    OF(PART) part[2 * PAIR_COLUMNS];
    vec acc[MAX_PAIR_SUMS], g[PAIR_TAPS] = {0};     /* g[m]: the gradient of the row m before */
    UNROLL for (int j = 0; j < stride * n_columns; j++) part[j] = OF(PART_OF)(lanes[j]);
    UNROLL for (int t = 0; t < n_taps * n_columns; t++) acc[t] = (vec){0};
    for (Py_ssize_t y = first; y < last; y++) {
        UNROLL for (int m = (n_taps - 1) / stride; m > 0; m--) {
            g[m] = g[m - 1];
            KEEP(g[m]);
        }
        g[0] = (vec){0};
        if (y < end) g[0] = OF(GET_PART)(outputs, grad + y * p->cols);
        UNROLL for (int phase = 0; phase < stride; phase++) {
            const Py_ssize_t r = y * stride + phase - p->top;
            if (r < 0 || r >= p->h) continue;
            UNROLL for (int j = 0; j < n_columns; j++) {
                const real *at = pixels + r * p->w + j * step;
                vec x = OF(GET_PART)(part[j * stride], at);
                if (stride == 2) {
                    vec more = OF(GET_PART)(part[2 * j + 1], at + N);
                    x = OF(EVEN_LANES)(x, more);
                }
                UNROLL for (int i = phase; i < n_taps; i += stride)
                    acc[j * n_taps + i] += g[i / stride] * x;
            }
        }
    }
    UNROLL for (int t = 0; t < n_taps * n_columns; t++)     /* short sums first: less rounding */
        OF(put)(sums + t * N, OF(get)(sums + t * N) + acc[t]);
}

/* sums[j, i] += what output rows [first, end) of a plane of gradients and one of pixels add. */
static void OF(gradient_pair)(real *sums, const real *pixels, const real *grad, const Pair *p,
                              Py_ssize_t first, Py_ssize_t end) {
    enum { N = OF(N_LANES) };
    const int n_taps = p->n_taps, most = MAX_PAIR_SUMS / n_taps;
    const int n = p->n_columns, size = most < PAIR_COLUMNS ? most : PAIR_COLUMNS;
    const int n_parts = (n + size - 1) / size;
    const unsigned short *lanes = p->lanes;
    for (Py_ssize_t x = 0; x < p->cols; x += N, lanes += n * p->stride)
        for (int i = 0; i < n_parts; i++) {
            const int j = i * n / n_parts, width = (i + 1) * n / n_parts - j;
            const unsigned n_cols = p->cols - x < N ? p->cols - x : N;
#define PAIR(t)                                                                               \
    if (t <= PAIR_TAPS && t * COLUMNS <= MAX_PAIR_SUMS)                                       \
        OF(pair_tile)(sums + j * t * N,                                                       \
                      pixels + x * STRIDE - p->left + j * p->dilation_x, grad + x, p,         \
                      lanes + j * STRIDE, n_cols, first, end, t, COLUMNS, STRIDE);
#define PAIRS(n, stride)                                                                      \
    case 10 * n + stride: { enum { COLUMNS = n, STRIDE = stride }; CASES8(n_taps, PAIR) break; }
            switch (10 * width + p->stride) {
                PAIRS(1, 1) PAIRS(2, 1) PAIRS(3, 1) PAIRS(1, 2) PAIRS(2, 2) PAIRS(3, 2)
            }
        }
}
#else
static void OF(gradient_pair)(real *sums, const real *pixels, const real *grad, const Pair *p,
                              Py_ssize_t first, Py_ssize_t end) {}
#endif

/* Winograd's A g A' of 2 x 2 pixels, a vector of features each: (4, 4), `pitch` apart. */
INLINE void OF(gradient_tile)(real *out, Py_ssize_t pitch, const real *src, Py_ssize_t row) {
    vec g[4][2];
    UNROLL for (int j = 0; j < 2; j++) {
        vec a = OF(get)(src + j * OF(N_LANES)), b = OF(get)(src + row + j * OF(N_LANES));
        g[0][j] = a;
        g[1][j] = a + b;
        g[2][j] = a - b;
        g[3][j] = -b;
    }
    UNROLL for (int i = 0; i < 4; i++, out += 4 * pitch) {
        OF(put)(out, g[i][0]);
        OF(put)(out + pitch, g[i][0] + g[i][1]);
        OF(put)(out + 2 * pitch, g[i][0] - g[i][1]);
        OF(put)(out + 3 * pitch, -g[i][1]);
    }
}

/* G' m of four vectors: the first so many of three are of use. */
INLINE void OF(taps_of_sums)(vec *out, const vec *m, const int step, int n_taps) {
    vec sum = (real)0.5 * m[step] + (real)0.5 * m[2 * step];
    out[0] = n_taps == 1 ? m[0] - m[3 * step] : m[0] + sum;
    out[1] = (real)0.5 * m[step] - (real)0.5 * m[2 * step];
    out[2] = sum + m[3 * step];
}

/* G' m G of the elements that there are: the taps of a piece, a vector of features each. */
static void OF(gradient_taps)(real *out, Py_ssize_t row, Py_ssize_t col, const real *sums,
                              Py_ssize_t pitch, int elements, int n_rows, int n_cols) {
    vec m[16], columns[4][3], taps[3];
    for (int e = 0; e < 16; e++)
        m[e] = elements >> e & 1 ? OF(get)(sums + e * pitch) : (vec){0};
    for (int j = 0; j < 4; j++) OF(taps_of_sums)(columns[j], m + j, 4, n_rows);
    for (int i = 0; i < n_rows; i++) {
        OF(taps_of_sums)(taps, columns[0] + i, 3, n_cols);
        for (int j = 0; j < n_cols; j++) OF(put)(out + i * row + j * col, taps[j]);
    }
}

/* Vectors to the sums of their lanes. */
static void OF(sums_of_lanes)(real *out, const real *vectors, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) out[i] = OF(lane_sum)(vectors + i * OF(N_LANES));
}

/* Of n values; blocks of them add up in double. */
static double OF(plane_sum)(const real *plane, Py_ssize_t n) {
    enum { N = OF(N_LANES), BLOCK = MAX_RUN * N };
    double total = 0;
    for (; n > 0; plane += BLOCK, n -= BLOCK) {
        const Py_ssize_t size = n < BLOCK ? n : BLOCK;
        Py_ssize_t x = 0;
        real rest = 0;
        if (size >= N) {
            vec acc[4] = {0};
            for (; x + 4 * N <= size; x += 4 * N)
                UNROLL for (int v = 0; v < 4; v++) acc[v] += OF(get)(plane + x + v * N);
            for (; x + N <= size; x += N) acc[0] += OF(get)(plane + x);
            acc[0] += acc[1] + (acc[2] + acc[3]);
            rest = OF(lane_sum)((real *)acc);
        }
        for (; x < size; x++) rest += plane[x];
        total += rest;
    }
    return total;
}

static void OF(add_node)(real *node, const real *other, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) node[i] += other[i];
}

static void OF(divide_node)(real *node, real divisor, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) node[i] /= divisor;
}

#endif
