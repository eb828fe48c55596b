/* Pooling of one window at a time, its rows in vectors. A template; needs plan.h.
 *
 * For windows that are as large as the image or nearly so, and all that nothing else accepts.
 */
#if !defined(OF)
#define TEMPLATE "pool/windows.h"
enum { MAX_RUN = 64 };              /* vectors added one after the other that lose little */
#if defined(__AVX__)
#define RUN_LIST_32(F, s) LIST8(F, 8, 0, s)
#define RUN_LIST_64(F, s) LIST4(F, 4, 0, s)
#else
#define RUN_LIST_32(F, s) LIST4(F, 4, 0, s)
#define RUN_LIST_64(F, s) LIST2(F, 2, 0, s)
#endif
#define REDUCE_MIN_32 _mm512_reduce_min_epi32
#define MIN_32 _mm512_min_epi32
#define MIN_64 _mm512_min_epi64
#define REDUCE_MIN_64 _mm512_reduce_min_epi64
#include "for_reals.h"

#else /* ---------------------------------------------- for float, and for double */

/* The sum of n pixels, in blocks whose sums add up in double. Where they start is not aligned, and
   an order that depends on that would change the sum: so with AVX-512 half vectors, of which fewer
   lie in two lines of the cache (30 % faster for 16x16 pixels). */
#if defined(__AVX512F__)
typedef OF(half) OF(run);
#else
typedef vec OF(run);
#endif

INLINE double OF(run_sum)(const real *x, Py_ssize_t n) {
    enum { N = sizeof(OF(run)) / sizeof(real) };
    double total = 0;
    for (Py_ssize_t end, i = 0; i < n; i = end) {
        OF(run) sum[4] = {{0}, {0}, {0}, {0}};
        real last = 0;
        end = least(n, i + 4 * MAX_RUN * N);
        for (; i + 4 * N <= end; i += 4 * N)
            UNROLL for (int k = 0; k < 4; k++) sum[k] += *(const OF(run) *)(x + i + k * N);
        for (; i + N <= end; i += N) sum[0] += *(const OF(run) *)(x + i);
        sum[0] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        if (N > 4) sum[0] += SHUFFLE(sum[0], sum[0], OF(RUN_LIST_)(ROTATED, 4));
        if (N > 2) sum[0] += SHUFFLE(sum[0], sum[0], OF(RUN_LIST_)(ROTATED, 2));
        sum[0] += SHUFFLE(sum[0], sum[0], OF(RUN_LIST_)(ROTATED, 1));
        for (; i < end; i++) last += x[i];
        total += sum[0][0] + last;
    }
    return total;
}

/* The maximum of n pixels and, if `with_place`, where it is: the first that has its value, or the
   last NaN. Each lane keeps where its own is: a search afterwards is a branch that cannot be
   predicted (1.8 times as long for 16x16 pixels). */
INLINE Py_ssize_t OF(run_max)(const real *x, Py_ssize_t n, real *max, const int with_place) {
    enum { N = OF(N_LANES) };
    Py_ssize_t found = 0;
    OF(lanes) nans = {0};
    OF(mask) at[2] = {{0}, {0}}, lane;
    vec best[2];
    if (n < N) {
        for (Py_ssize_t i = 1; i < n; i++) found = x[i] > x[found] || x[i] != x[i] ? i : found;
        *max = x[found];
        return found;
    }
    for (int l = 0; l < N; l++) lane[l] = l;
    best[0] = best[1] = OF(get)(x);
    for (Py_ssize_t i = 0; i < n; i += 2 * N)
        UNROLL for (int k = 0; k < 2; k++) {
            const Py_ssize_t start = least(i + k * N, n - N);
            const vec v = OF(get)(x + start), its = (vec)((integer)start - (OF(mask)){0});
            if (with_place) at[k] = (OF(mask))OF(choose)(OF(greater)(v, best[k]), its, (vec)at[k]);
            best[k] = OF(larger)(v, best[k]);
            nans |= OF(unordered)(v, v);
        }
    if (OF(any)(nans)) {
        for (found = n - 1; x[found] == x[found];) found--;
        *max = x[found];
        return found;
    }
#if defined(__AVX512F__)
    const vec none = (vec)(INT32_MAX - (OF(mask)){0});
    const real m = *max = OF(X86_)(reduce_max)(OF(larger)(best[1], best[0]));
    if (!with_place) return 0;
    UNROLL for (int k = 0; k < 2; k++)
        at[k] = (OF(mask))OF(choose)(OF(greater)(OF(every)(m), best[k]), none, (vec)(at[k] + lane));
    return OF(REDUCE_MIN_)((__m512i)OF(MIN_)((__m512i)at[0], (__m512i)at[1]));
#else
    *max = best[0][0];
    for (int l = 0; l < 2 * N; l++) {
        const real m = best[l / N][l % N];
        const Py_ssize_t place = at[l / N][l % N] + l % N;
        if (l == 0 || m > *max || (m == *max && place < found)) found = place;
        *max = m > *max ? m : *max;
    }
    return found;
#endif
}

/* Where the maximum of a window is in its image, as one number; its value. */
INLINE Py_ssize_t OF(window_max)(const real *img, Py_ssize_t first, Py_ssize_t n_rows, Py_ssize_t n,
                                 Py_ssize_t img_w, real *best, int with_place) {
    Py_ssize_t at = first;
    for (Py_ssize_t r = 0; r < n_rows; r++, first += img_w) {
        real m;
        Py_ssize_t i = with_place ? OF(run_max)(img + first, n, &m, 1)
                                  : OF(run_max)(img + first, n, &m, 0);
        if (r > 0 && !(m > *best || m != m)) continue;
        if (m == 0) i = OF(run_max)(img + first, n, &m, 1);     /* the first zero's sign */
        *best = m == 0 ? img[first + i] : m;
        at = first + i;
    }
    return at;
}

static void OF(pool_windows)(const Pooling *p, Py_ssize_t n_planes, const void *imgs, void *out_,
                             uint8_t *offsets, Py_intptr_t *pairs, void *scratch) {
    const PoolAxis *height = &p->height, *width = &p->width;
    const Py_ssize_t img_w = width->size, out_size = p->out_size;
    (void)scratch;
    for (Py_ssize_t o = 0; o < out_size; o++) {
        const Py_ssize_t y = o / width->out, x = o % width->out;
        const Py_ssize_t top = first_pixel(height, y), left = first_pixel(width, x);
        const Py_ssize_t row = height->start + y * height->stride;
        const Py_ssize_t col = width->start + x * width->stride;
        const real *img = imgs;
        real *out = (real *)out_ + o;
        const real count = (real)pool_count(height, y, p->include_pad)
                           * (real)pool_count(width, x, p->include_pad);
        Py_ssize_t n_rows = end_pixel(height, y) - top, n = end_pixel(width, x) - left;
        if (n == img_w) n *= n_rows, n_rows = 1;
        for (Py_ssize_t i = 0; i < n_planes; i++, img += p->img_size, out += out_size) {
            if (!p->is_max) {
                double sum = 0;
                for (Py_ssize_t r = 0; r < n_rows; r++)
                    sum += OF(run_sum)(img + (top + r) * img_w + left, n);
                *out = (real)sum / count;
                continue;
            }
            const Py_ssize_t at = OF(window_max)(img, top * img_w + left, n_rows, n, img_w, out,
                                                 offsets || pairs);
            if (pairs) {
                pairs[2 * (i * out_size + o)] = at / img_w;
                pairs[2 * (i * out_size + o) + 1] = at % img_w;
            } else if (offsets)
                offsets[i * out_size + o] =
                    (uint8_t)((at / img_w - row) * width->pool + at % img_w - col);
        }
    }
}

/* Backward, of a single window of all pixels: zeros, and the gradient for the maximum. */
static void OF(unpool_whole)(const Pooling *p, Py_ssize_t n_planes, const void *grads_, void *img_,
                             uint8_t *offsets, Py_intptr_t *pairs, void *scratch) {
    const Py_ssize_t n = p->img_size, img_w = p->width.size;
    const Py_ssize_t first = p->height.start * img_w + p->width.start;
    const real count = (real)pool_count(&p->height, 0, p->include_pad)
                       * (real)pool_count(&p->width, 0, p->include_pad);
    const real *grads = grads_;
    real *img = img_;
    (void)scratch;
    for (Py_ssize_t i = 0; i < n_planes; i++, img += n) {
        const vec value = OF(every)(p->is_max ? 0 : grads[i] / count);
        OF(put_first)(img, value, n);
        for (real *x = (real *)((uintptr_t)(img + OF(N_LANES)) & ~(uintptr_t)(VECTOR_BYTES - 1));
             x < img + n - OF(N_LANES); x += OF(N_LANES)) OF(put)(x, value);
        if (n > OF(N_LANES)) OF(put)(img + n - OF(N_LANES), value);
        if (pairs) img[pairs[2 * i] * img_w + pairs[2 * i + 1]] += grads[i];
        else if (offsets) img[first + p->pixel[offsets[i]]] += grads[i];
    }
}

#endif
