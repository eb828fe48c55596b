/* Pooling along rows and then along columns, by doubling. A template; needs plan.h and strips.h.
 *
 * Of windows of 1, 2, 4, ... pixels each is reduced from two that lie side by side, and a window of
 * any size from some of them: as many steps as the size has bits, and sums that are accurate. For
 * large windows one pixel apart, and for the gradients of averages, which are sums of the outputs
 * whose windows have a pixel: sums of gradients that lie a stride apart, with zeros between.
 *
 *     taps 0 to 6    = 1 of tap 0, 2 from tap 1, 4 from tap 3           for sums
 *                    = 4 from tap 0 and 4 from tap 3                    for maxima
 */
#if !defined(OF)
#define TEMPLATE "pool/doubling.h"
#include "for_reals.h"

#else /* ---------------------------------------------- for float, and for double */

INLINE vec OF(reduced_of)(vec a, vec b, const int op, const int exact) {
    if (op == POOL_SUM) return a + b;
    if (exact) return OF(choose)(OF(greater)(b, a) | OF(unordered)(b, b), b, a);
    return OF(larger)(b, a);
}

/* out = a and b together, n values and what whole vectors add to them. */
INLINE void OF(reduce)(real *out, const real *a, const real *b, Py_ssize_t n, const int op,
                       const int exact) {
    for (Py_ssize_t i = 0; i < n; i += OF(N_LANES))
        OF(put)(out + i, OF(reduced_of)(OF(get)(a + i), OF(get)(b + i), op, exact));
}

/* n windows of `taps` values, `step` apart: of `values`, which are lost, to `out`.
   Of maxima the last step is left: what it returns is how far the values are apart of which each is
   the larger of two. */
INLINE Py_ssize_t OF(double_up)(real *out, real *values, Py_ssize_t n, Py_ssize_t taps,
                                Py_ssize_t step, const int op, const int exact) {
    Py_ssize_t width = 1, done = 0;
    if (op != POOL_SUM) {
        for (; 2 * width < taps; width *= 2)
            OF(reduce)(values, values, values + width * step, n + (taps - 2 * width) * step, op,
                       exact);
        return (taps - width) * step;
    }
    for (;; width *= 2) {
        if (taps & width) {
            if (done) OF(reduce)(out, out, values + done * step, n, op, exact);
            else memcpy(out, values, n * sizeof(real));
            done += width;
        }
        if (done == taps) return 0;
        OF(reduce)(values, values, values + width * step, n + (taps - 2 * width) * step, op, exact);
    }
}

/* A row with its padding, and zeros between pixels that are spread; whether it has NaN. */
INLINE int OF(pad_row)(const Doubling *d, const real *img, real *cells, real padding) {
    const Py_ssize_t lead = -d->width.start, every = d->spread_x;
    const Py_ssize_t n = least(d->width.size, d->cells - lead);
    OF(lanes) nans = {0};
    for (Py_ssize_t x = 0; x < (every > 1 ? d->cells : lead); x += OF(N_LANES))
        OF(fill)(cells + x, padding);
    if (every > 1) {
        for (Py_ssize_t x = 0; x * every < n; x++) cells[lead + x * every] = img[x];
        return 0;
    }
    for (Py_ssize_t x = 0; x < n; x += OF(N_LANES)) {
        if (x + OF(N_LANES) > n) x = most(n - OF(N_LANES), 0);
        vec v = OF(every)(padding);
        if (n >= OF(N_LANES)) v = OF(get)(img + x);
        else for (Py_ssize_t l = 0; l < n; l++) v[l] = img[l];
        OF(put)(cells + lead + x, v);
        nans |= OF(unordered)(v, v);
    }
    for (Py_ssize_t x = lead + n; x < d->cells; x += OF(N_LANES)) OF(fill)(cells + x, padding);
    return OF(any)(nans);
}

/* The windows of row r, or what padding makes of a row: (out_w,). */
INLINE int OF(double_row)(const Doubling *d, const real *img, Py_ssize_t r, real *cells, real *out,
                          const int op, const int exact) {
    const real padding = op == POOL_SUM ? 0 : -INFINITY;
    const Py_ssize_t out_w = d->width.out, stride = d->width.stride;
    const Py_ssize_t n = (out_w - 1) * stride + 1;
    real *sums = stride > 1 ? cells + d->line : out;
    if (r < 0 || r >= d->height.size || r % d->spread_y) {
        for (Py_ssize_t x = 0; x < out_w; x += OF(N_LANES)) OF(fill)(out + x, padding);
        return 0;
    }
    Py_ssize_t pixels = (d->width.size - 1) / d->spread_x + 1;
    int nans = OF(pad_row)(d, img + r / d->spread_y * pixels, cells, padding);
    Py_ssize_t apart = OF(double_up)(sums, cells, n, d->width.pool, 1, op, exact);
    if (op != POOL_SUM) OF(reduce)(sums, cells, cells + apart, n, op, exact);
    for (Py_ssize_t x = 0; stride > 1 && x < out_w; x++) out[x] = sums[x * stride];
    return nans;
}

/* A plane, a block of rows of outputs at a time; of averages forward, with what windows count. */
INLINE int OF(double_plane)(const Pooling *p, const real *img, real *out, real *scratch,
                            const int op, const int exact, const int divided) {
    const Doubling *d = &p->doubling;
    const PoolAxis *height = &d->height;
    const Py_ssize_t out_w = d->width.out, pitch = d->pitch, pool = height->pool;
    real *cells = scratch, *counts = cells + 2 * d->line;
    real *rows = counts + d->line, *kept = rows + d->rows * pitch;
    real *sums = op == POOL_SUM ? kept + (pool - 1) * pitch : rows;
    Py_ssize_t n_kept = 0;
    int nans = 0;
    for (Py_ssize_t x = 0; divided && x < out_w; x++)
        counts[x] = pool_count(&p->width, x, p->include_pad);
    for (Py_ssize_t end, first = 0; first < height->out; first = end) {
        end = least(first + d->block, height->out);
        Py_ssize_t top = height->start + first * height->stride;
        Py_ssize_t n_rows = (end - first - 1) * height->stride + pool;
        Py_ssize_t next = (end - first) * height->stride;      /* the next block's first */
        memcpy(rows, kept, n_kept * pitch * sizeof(real));
        for (Py_ssize_t i = n_kept; i < n_rows; i++)
            nans |= OF(double_row)(d, img, top + i, cells, rows + i * pitch, op, exact);
        n_kept = most(n_rows - next, 0);
        memcpy(kept, rows + next * pitch, n_kept * pitch * sizeof(real));
        Py_ssize_t apart =
            OF(double_up)(sums, rows, (n_rows - pool + 1) * pitch, pool, pitch, op, exact);
        for (Py_ssize_t y = first; y < end; y++, out += out_w) {
            const real *row = sums + (y - first) * height->stride * pitch;
            const real n = divided ? pool_count(&p->height, y, p->include_pad) : 0;
            if (divided) for (Py_ssize_t x = 0; x < out_w; x++) out[x] = row[x] / (n * counts[x]);
            else if (op == POOL_SUM) OF(copy)(out, row, out_w);
            else for (Py_ssize_t x = 0; x < out_w; x = next_step(x, out_w, OF(N_LANES)))
                OF(put_first)(out + x, OF(reduced_of)(OF(get)(row + x), OF(get)(row + apart + x),
                                                      op, exact), out_w - x);
        }
    }
    return nans;
}

static void OF(pool_doubling)(const Pooling *p, Py_ssize_t n, const void *img_, void *out_,
                              uint8_t *offsets, Py_intptr_t *pairs, void *scratch) {
    const real *img = img_;
    real *out = out_;
    (void)offsets, (void)pairs;
    for (Py_ssize_t i = 0; i < n; i++, img += p->img_size, out += p->out_size)
        if (!p->is_max) OF(double_plane)(p, img, out, scratch, POOL_SUM, 1, 1);
        else if (OF(double_plane)(p, img, out, scratch, POOL_MAX, 0, 0))
            OF(double_plane)(p, img, out, scratch, POOL_MAX, 1, 0);
}

/* A plane of gradients of averages, divided by what their windows count. */
INLINE void OF(divide_gradients)(const Pooling *p, const real *grads, real *parts) {
    const Py_ssize_t out_w = p->width.out;
    for (Py_ssize_t y = 0; y < p->height.out; y++) {
        const real rows = pool_count(&p->height, y, p->include_pad);
        for (Py_ssize_t x = 0; x < out_w; x++)
            parts[x] = p->count ? grads[x] * ((real)1 / p->count)
                                : grads[x] / (rows * pool_count(&p->width, x, p->include_pad));
        grads += out_w;
        parts += out_w;
    }
}

static void OF(unpool_doubling)(const Pooling *p, Py_ssize_t n, const void *grads_, void *img_,
                                uint8_t *offsets, Py_intptr_t *pairs, void *scratch) {
    const real *grads = grads_;
    real *img = img_, *parts = scratch, *rest = parts + (p->out_size + 15) / 16 * 16;
    (void)offsets, (void)pairs;
    for (Py_ssize_t i = 0; i < n; i++, img += p->img_size, grads += p->out_size) {
        OF(divide_gradients)(p, grads, parts);
        OF(double_plane)(p, parts, img, rest, POOL_SUM, 1, 0);
    }
}

#endif
