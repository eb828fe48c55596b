/* Backward in strips of pixels, which gather what is theirs. A template; needs plan.h and index.h.
 *
 * Of a row of outputs, lane l of a strip sees those whose windows have its pixel: at t, t + stride,
 * ... along the row. With a stride of 2 each output is loaded once and its lane is doubled:
 *
 *     outputs    g0  g1  g2  g3            (windows of 3)
 *     pixels     g0  g0  g1  g1  g2  g2    taps 0 1 0 1 0 1
 *                .   .   g0  .   g1  .     taps 2   2   2
 *
 * As many rows of pixels as a window has are in the making.
 */
#if !defined(OF)
#define TEMPLATE "pool/gather.h"
enum { NO_OFFSET = 255 };
#include "for_reals.h"

#else /* ---------------------------------------------- for float, and for double */

typedef struct {                    /* of each tap of a row ... */
    OF(lanes) kept[3];              /* the outputs that there are */
    vec parts[3];                   /* what is one in so many along the row, for averages */
    Py_ssize_t n;                   /* pixels */
} OF(gathered);

typedef struct {                    /* the same for all strips */
    OF(lanes) valid[3];             /* pixels that may be this tap */
    OF(index) wanted[3][3];         /* which argmax offsets are theirs, for each row of a window */
} OF(taps);

INLINE OF(taps) OF(taps_of)(const int pool, const int stride, const int odd) {
    OF(taps) taps;
    UNROLL for (int t = 0; t * stride < pool; t++) {
        const int tap = t * stride, next = tap + 1 < pool ? tap + 1 : NO_OFFSET;
        const OF(lanes) second = stride == 2 ? OF(lanes_odd)(odd) : OF(lanes_between)(0, 0);
        taps.valid[t] = next == NO_OFFSET ? (OF(lanes))~second : OF(lanes_between)(0, OF(N_LANES));
        UNROLL for (int i = 0; i < pool; i++)
            taps.wanted[i][t] = OF(index_choose)(
                second, OF(index_every)(next == NO_OFFSET ? next : i * pool + next),
                OF(index_every)(i * pool + tap));
    }
    return taps;
}

INLINE OF(gathered) OF(gathered_at)(const Pooling *p, Py_ssize_t x, const int is_max,
                                    const int n_taps, const int stride) {
    const Py_ssize_t base = (x - p->width.start) / stride, out_w = p->width.out;
    OF(gathered) s;
    s.n = p->width.size - x;
    UNROLL for (int t = 0; t < n_taps; t++) {
        s.kept[t] = OF(lanes_between)(t - base, out_w + t - base);
        s.parts[t] = OF(every)(p->count ? (real)1 / p->count : 0);
        for (Py_ssize_t l = 0; !is_max && !p->count && l < OF(N_LANES); l++)
            if (0 <= base - t + l && base - t + l < out_w)
                s.parts[t][l] = (real)1 / pool_count(&p->width, base - t + l, p->include_pad);
    }
    return s;
}

/* One or two strips of a plane, the second one `second` pixels further. */
INLINE void OF(gather_rows)(const Pooling *p, const OF(gathered) *s, const int n_strips,
                            Py_ssize_t second, const OF(taps) *taps, const real *grads,
                            const uint8_t *offsets, real *img, const int is_max, const int pool,
                            const int stride, const int odd) {
    const int n_taps = (pool + stride - 1) / stride;
    const Py_ssize_t img_h = p->height.size, img_w = p->width.size;
    const Py_ssize_t out_h = p->height.out, out_w = p->width.out;
    vec sum[2][3] = {{{0}, {0}, {0}}, {{0}, {0}, {0}}}, share = OF(every)(1);
    Py_ssize_t y = p->height.start, count = 0;
    for (Py_ssize_t o = 0; o < out_h; o++, y += stride) {
        if (!is_max && !p->count && count != pool_count(&p->height, o, p->include_pad)) {
            count = pool_count(&p->height, o, p->include_pad);
            share = OF(every)((real)1 / count);
        }
        UNROLL for (int v = 0; v < n_strips; v++) {
            const real *from = grads + v * second / stride;
            vec g[3];
            UNROLL for (int t = 0; t < n_taps; t++) {
                g[t] = OF(get_lanes)(from - t, s[v].kept[t], (vec){0});
                if (!is_max) g[t] *= s[v].parts[t] * share;
                if (stride == 2) g[t] = OF(twice)(g[t], odd);
                if (!is_max && t > 0) g[0] = OF(add_where)(g[0], taps->valid[t], g[t]);
            }
            UNROLL for (int t = 0; t < n_taps && is_max; t++) {
                OF(index) at = OF(index_get)(offsets + v * second / stride - t, s[v].kept[t]);
                if (stride == 2) at = OF(index_twice)(at, odd);
                UNROLL for (int i = 0; i < pool; i++)
                    sum[v][i] = OF(add_where)(
                        sum[v][i], OF(index_equal)(at, taps->wanted[i][t]), g[t]);
            }
            UNROLL for (int i = 0; i < pool && !is_max; i++) sum[v][i] += g[0];
            UNROLL for (int i = 0; i < stride; i++)
                if (0 <= y + i && y + i < img_h)
                    OF(put_first)(img + (y + i) * img_w + v * second, sum[v][i], s[v].n);
            UNROLL for (int i = 0; i < pool; i++)
                sum[v][i] = i + stride < pool ? sum[v][i + stride] : (vec){0};
        }
        grads += out_w;
        if (is_max) offsets += out_w;
    }
    for (; y < img_h; y++)
        UNROLL for (int v = 0; v < n_strips; v++) {
            OF(put_first)(img + y * img_w + v * second, sum[v][0], s[v].n);
            UNROLL for (int i = 0; i < pool; i++)
                sum[v][i] = i + 1 < pool ? sum[v][i + 1] : (vec){0};
        }
}

INLINE void OF(gather_strips)(const Pooling *p, Py_ssize_t n, const OF(gathered) *s,
                              const int n_strips, Py_ssize_t x, Py_ssize_t second,
                              const real *grads, const uint8_t *offsets, real *img,
                              const int is_max, const int pool, const int stride, const int odd) {
    const OF(taps) taps = OF(taps_of)(pool, stride, odd);
    const Py_ssize_t base = (x - p->width.start) / stride;
    for (Py_ssize_t i = 0; i < n; i++)
        OF(gather_rows)(p, s, n_strips, second, &taps, grads + i * p->out_size + base,
                        is_max ? offsets + i * p->out_size + base : NULL,
                        img + i * p->img_size + x, is_max, pool, stride, odd);
}

INLINE void OF(gather_tile)(const Pooling *p, Py_ssize_t n, const real *grads,
                            const uint8_t *offsets, real *img, const int is_max, const int pool,
                            const int stride) {
    const int n_taps = (pool + stride - 1) / stride;
    const Py_ssize_t img_w = p->width.size;
    for (Py_ssize_t x = 0; x < img_w;) {
        const Py_ssize_t next = next_step(x, img_w, OF(N_LANES)), second = next - x;
        const int odd = stride == 2 && (x - p->width.start) % 2;
        const int is_pair = MASKED_READS && next < img_w && second % stride == 0;
        OF(gathered) s[2] = {OF(gathered_at)(p, x, is_max, n_taps, stride)};
        if (is_pair) s[1] = OF(gathered_at)(p, next, is_max, n_taps, stride);
#define STRIPS(n_strips, odd) \
    OF(gather_strips)(p, n, s, n_strips, x, second, grads, offsets, img, is_max, pool, stride, odd)
        if (is_pair && odd) STRIPS(2, 1);
        else if (is_pair) STRIPS(2, 0);
        else if (odd) STRIPS(1, 1);
        else STRIPS(1, 0);
#undef STRIPS
        x = is_pair ? next_step(next, img_w, OF(N_LANES)) : next;
    }
}

static void OF(unpool_gather)(const Pooling *p, Py_ssize_t n, const void *grads, void *img,
                              uint8_t *offsets, Py_intptr_t *pairs, void *scratch) {
#define GATHER_MAX(t) \
    OF(gather_tile)(p, n, grads, offsets, img, 1, TILE_POOL(t), TILE_STRIDE(t))
#define GATHER_SUM(t) \
    OF(gather_tile)(p, n, grads, NULL, img, 0, TILE_POOL(t), TILE_STRIDE(t))
    (void)pairs, (void)scratch;
    if (p->is_max) switch (p->tile) { CASE(1, GATHER_MAX) CASE(2, GATHER_MAX) CASE(3, GATHER_MAX) }
    else switch (p->tile) { CASE(1, GATHER_SUM) CASE(2, GATHER_SUM) CASE(3, GATHER_SUM) }
#undef GATHER_MAX
#undef GATHER_SUM
}

#endif
