/* Pooling in strips as wide as a vector, from top to bottom. A template; needs plan.h and index.h.
 *
 * Lanes are neighbouring pixels, each the first of a window. The windows of a row of pixels are
 * reduced first, once for all rows of outputs that have them, then the rows of a window: so the
 * first maximum of a row, and then of the rows, is the first in row-major order. With a stride
 * along the rows the lanes between are left out when outputs are stored. Nothing is copied: what
 * a row lacks on either side is masked.
 *
 *     pixels    a b c d e        t0    . a b c        (a maximum of 3, the first window
 *                                t1    a b c d         starts in the padding)
 *                                t2    b c d e
 */
#if !defined(OF)
#define TEMPLATE "pool/strips.h"
enum { POOL_SUM, POOL_MAX, POOL_ARGMAX, MAX_STRIP_WIDTH = 64 };    /* taps along a row */
#define FEW _Pragma("GCC unroll 4")
#include "for_reals.h"

#else /* ---------------------------------------------- for float, and for double */

typedef struct {
    vec best;                       /* or the sum */
    OF(index) at;                   /* the argmax offset */
} OF(reduced);

typedef struct {                    /* what is the same for all rows of a strip */
    OF(lanes) kept[MAX_STRIP_WIDTH];    /* of each tap: those inside the image */
    OF(index) first;                /* tap that is */
    vec padding;
    vec counts, divisor;            /* of averages: along a row, and in windows of `rows` */
    Py_ssize_t rows, n;             /* n outputs */
} OF(strip);

INLINE void OF(take)(OF(reduced) *row, vec x, OF(index) at, const int op, const int exact) {
    if (op == POOL_SUM) {
        row->best += x;
        return;
    }
    OF(lanes) larger = OF(greater)(x, row->best);
    if (exact) larger |= OF(unordered)(x, x);
    if (op == POOL_ARGMAX) row->at = OF(index_choose)(larger, at, row->at);
    row->best = exact ? OF(choose)(larger, x, row->best) : OF(larger)(x, row->best);
}

/* A row's windows; notes in `nans` whether there is any NaN, unless it is looked for (exact). With
   a stride of 2 the second tap of every other lane is in the lane beside it. */
INLINE OF(reduced) OF(strip_row)(const real *pixels, const OF(strip) *s, OF(lanes) *nans,
                                 const int op, const int exact, const Py_ssize_t pool_w,
                                 const Py_ssize_t stride) {
    vec first = OF(get_lanes)(pixels, s->kept[0], s->padding), x = first;
    OF(reduced) row = {first, s->first};
    if (op == POOL_SUM && stride == 2 && pool_w == 2) return row;   /* added in strip_put */
#if defined(__AVX512F__)
    if (stride == 1 && pool_w == 3) {       /* of three loads that cross lines of the cache two */
        x = OF(get_lanes)(pixels + 2, s->kept[2], s->padding);
        const vec middle = SHUFFLE(first, x, OF(LIST_)(NEXT_LANE, 0));
        OF(take)(&row, middle, OF(index_every)(1), op, exact);
        OF(take)(&row, x, OF(index_every)(2), op, exact);
    } else
#endif
    FEW for (Py_ssize_t j = 1; j < pool_w; j++) {
        if (stride == 2 && j == 1) x = SHUFFLE(first, first, OF(LIST_)(SWAPPED, 0));
        else x = OF(get_lanes)(pixels + j, s->kept[j], s->padding);
        OF(take)(&row, x, OF(index_every)(j), op, exact);
    }
    if (op != POOL_SUM && !exact) *nans |= OF(unordered)(first, x);
    return row;
}

INLINE OF(strip) OF(strip_at)(const Pooling *p, Py_ssize_t x, const int op,
                              const Py_ssize_t pool_w, const Py_ssize_t stride_x) {
    const PoolAxis *width = &p->width;
    const Py_ssize_t col = x * stride_x + width->start;
    OF(strip) s;
    s.n = least((OF(N_LANES) + stride_x - 1) / stride_x, width->out - x);
    s.padding = OF(every)(op == POOL_SUM ? 0 : -INFINITY);
    s.first = OF(index_every)(0);
    FEW for (Py_ssize_t j = 0; j < pool_w; j++) {
        s.kept[j] = OF(lanes_between)(-col - j, width->size - col - j);
        s.first = OF(index_choose)(OF(lanes_between)(0, -col - j), OF(index_every)(j + 1), s.first);
    }
    s.counts = OF(every)(1);
    s.divisor = OF(every)(p->count ? (real)1 / p->count : 1);
    s.rows = 0;
    if (op == POOL_SUM && !p->count)
        for (Py_ssize_t i = 0; i < s.n; i++)
            s.counts[stride_x == 2 ? i : i * stride_x] = pool_count(width, x + i, p->include_pad);
    return s;
}

/* Row y of outputs. With a stride of 2 their lanes are moved together. Averages that all count the
   same power of two (even) are multiplied by its inverse. */
INLINE void OF(strip_put)(const Pooling *p, OF(strip) *s, OF(reduced) r, Py_ssize_t y, real *out,
                          uint8_t *offsets, const int even, const int op,
                          const Py_ssize_t pool_w, const Py_ssize_t stride_x) {
    if (op == POOL_SUM && stride_x == 2 && pool_w == 2)
        r.best += SHUFFLE(r.best, r.best, OF(LIST_)(SWAPPED, 0));
    if (stride_x == 2) r.best = SHUFFLE(r.best, r.best, OF(LIST_)(DOUBLED, 0));
    if (op == POOL_SUM && even) r.best *= s->divisor;
    else if (op == POOL_SUM) {
        const Py_ssize_t rows = pool_count(&p->height, y, p->include_pad);
        if (rows != s->rows) {
            s->rows = rows;
            s->divisor = s->counts * (real)rows;
        }
        if (stride_x == 2) *(OF(half) *)&r.best /= *(OF(half) *)&s->divisor;
        else r.best /= s->divisor;
    }
    if (stride_x == 2 && s->n == OF(N_LANES) / 2) *(OF(half) *)out = *(OF(half) *)&r.best;
    else if (stride_x <= 2) OF(put_first)(out, r.best, s->n);
    else for (Py_ssize_t i = 0; i < s->n; i++) out[i] = r.best[i * stride_x];
    if (op != POOL_ARGMAX) return;
    if (stride_x == 2) r.at = OF(index_even)(r.at);
    if (stride_x <= 2) OF(index_put)(offsets, r.at, s->n);
    else for (Py_ssize_t i = 0; i < s->n; i++) offsets[i] = (uint8_t)r.at[i * stride_x];
}

/* One or two strips side by side, the second one `second` outputs further, of windows whose sizes
   are constants: their rows stay in registers. */
INLINE void OF(strip_tile)(const Pooling *p, OF(strip) *s, const int n_strips, Py_ssize_t second,
                           const real *img, real *out, uint8_t *offsets, OF(lanes) *nans,
                           const int even, const int op, const int exact, const int pool,
                           const int stride) {
    const Py_ssize_t img_h = p->height.size, img_w = p->width.size, start = p->height.start;
    const Py_ssize_t out_h = p->height.out, out_w = p->width.out;
    OF(reduced) row[2][3];
    UNROLL for (int v = 0; v < n_strips; v++)
        UNROLL for (int i = 0; i < pool; i++) {
            const Py_ssize_t r = start - stride + i;
            row[v][i] = (OF(reduced)){s[v].padding, s[v].first};
            if (i >= stride && r >= 0)
                row[v][i] = OF(strip_row)(img + v * second * stride + r * img_w, s + v, nans, op,
                                          exact, pool, stride);
        }
    for (Py_ssize_t y = 0, top = start; y < out_h; y++, top += stride) {
        UNROLL for (int i = 0; i < pool; i++) {
            const int is_padding = top + i < 0 || top + i >= img_h;
            const real *pixels = img + (top + i) * img_w;
            UNROLL for (int v = 0; v < n_strips; v++)
                if (i + stride < pool) row[v][i] = row[v][i + stride];
                else if (is_padding) row[v][i] = (OF(reduced)){s[v].padding, s[v].first};
                else row[v][i] = OF(strip_row)(pixels + v * second * stride, s + v, nans, op, exact,
                                               pool, stride);
        }
        UNROLL for (int v = 0; v < n_strips; v++) {
            OF(reduced) r = row[v][0];
            if (op == POOL_ARGMAX && top < 0) r.at += OF(index_every)(-top * pool);
            UNROLL for (int i = 1; i < pool; i++)
                OF(take)(&r, row[v][i].best, row[v][i].at + OF(index_every)(i * pool), op, exact);
            OF(strip_put)(p, s + v, r, y, out + v * second,
                          op == POOL_ARGMAX ? offsets + v * second : NULL, even, op, pool, stride);
        }
        out += out_w;
        if (op == POOL_ARGMAX) offsets += out_w;
    }
}

/* All strips of n planes; whether they have any NaN, unless that is looked for. */
INLINE int OF(strips_pass)(const Pooling *p, Py_ssize_t n, const real *img, real *out,
                           uint8_t *offsets, const int even, const int op, const int exact,
                           const int pool, const int stride) {
    const Py_ssize_t step = OF(N_LANES) / stride, out_w = p->width.out;
    OF(lanes) nans = {0};
    for (Py_ssize_t x = 0; x < out_w;) {
        const Py_ssize_t next = next_step(x, out_w, step);
        OF(strip) s[2] = {OF(strip_at)(p, x, op, pool, stride)};
        const int is_pair = next < out_w && !exact && (MASKED_READS || op != POOL_ARGMAX);
        if (is_pair) s[1] = OF(strip_at)(p, next, op, pool, stride);
        for (Py_ssize_t i = 0; i < n; i++) {
            const real *from = img + i * p->img_size + x * stride + p->width.start;
            real *to = out + i * p->out_size + x;
            uint8_t *at = op == POOL_ARGMAX ? offsets + i * p->out_size + x : NULL;
            if (is_pair)
                OF(strip_tile)(p, s, 2, next - x, from, to, at, &nans, even, op, exact, pool,
                               stride);
            else OF(strip_tile)(p, s, 1, 0, from, to, at, &nans, even, op, exact, pool, stride);
        }
        x = is_pair ? next_step(next, out_w, step) : next;
    }
    return OF(any)(nans);
}

INLINE void OF(strips_tile)(const Pooling *p, Py_ssize_t n, const real *img, real *out,
                            uint8_t *offsets, const int op, const int pool, const int stride) {
    if (op == POOL_SUM && p->count)
        OF(strips_pass)(p, n, img, out, offsets, 1, op, 0, pool, stride);
    else if (OF(strips_pass)(p, n, img, out, offsets, 0, op, 0, pool, stride) && op != POOL_SUM)
        OF(strips_pass)(p, n, img, out, offsets, 0, op, 1, pool, stride);
}

/* Windows of any size: a strip's rows lie in scratch. */
INLINE void OF(strips_any)(const Pooling *p, Py_ssize_t n, const real *img, real *out,
                           uint8_t *offsets, OF(reduced) *rows, const int op) {
    const PoolAxis *height = &p->height, *width = &p->width;
    const Py_ssize_t step = (OF(N_LANES) + width->stride - 1) / width->stride;
    OF(lanes) nans;
    for (Py_ssize_t x = 0; x < width->out; x = next_step(x, width->out, step)) {
        OF(strip) s = OF(strip_at)(p, x, op, width->pool, width->stride);
        const real *pixels = img + x * width->stride + width->start;
        Py_ssize_t o = x;
        for (Py_ssize_t i = 0; i < n; i++, pixels += p->img_size) {
            for (Py_ssize_t r = 0; r < end_pixel(height, height->out - 1); r++)
                rows[r] = OF(strip_row)(pixels + r * width->size, &s, &nans, op, 1, width->pool,
                                        width->stride);
            for (Py_ssize_t y = 0; y < height->out; y++, o += width->out) {
                Py_ssize_t first = first_pixel(height, y), end = end_pixel(height, y);
                Py_ssize_t at = (first - height->start - y * height->stride) * width->pool;
                OF(reduced) r = rows[first];
                r.at += OF(index_every)(at);
                for (Py_ssize_t k = first + 1; k < end; k++)
                    OF(take)(&r, rows[k].best,
                             rows[k].at + OF(index_every)(at += width->pool), op, 1);
                OF(strip_put)(p, &s, r, y, out + o, op == POOL_ARGMAX ? offsets + o : NULL,
                              p->count != 0, op, width->pool, width->stride);
            }
        }
    }
}

/* Planes; offsets (n, out_h, out_w) are of maxima, or NULL. */
static void OF(pool_strips)(const Pooling *p, Py_ssize_t n, const void *img, void *out,
                            uint8_t *offsets, Py_intptr_t *pairs, void *scratch) {
#define STRIPS_OF(t, op) \
    OF(strips_tile)(p, n, img, out, offsets, op, TILE_POOL(t), TILE_STRIDE(t))
#define SUMS(t) STRIPS_OF(t, POOL_SUM)
#define MAXIMA(t) STRIPS_OF(t, POOL_MAX)
#define ARGMAXIMA(t) STRIPS_OF(t, POOL_ARGMAX)
    (void)pairs;
    if (!p->is_max) {
        switch (p->tile) { CASE(1, SUMS) CASE(2, SUMS) CASE(3, SUMS)
        default: OF(strips_any)(p, n, img, out, offsets, scratch, POOL_SUM); }
    } else if (!offsets) {
        switch (p->tile) { CASE(1, MAXIMA) CASE(2, MAXIMA) CASE(3, MAXIMA)
        default: OF(strips_any)(p, n, img, out, offsets, scratch, POOL_MAX); }
    } else {
        switch (p->tile) { CASE(1, ARGMAXIMA) CASE(2, ARGMAXIMA) CASE(3, ARGMAXIMA)
        default: OF(strips_any)(p, n, img, out, offsets, scratch, POOL_ARGMAX); }
    }
#undef STRIPS_OF
#undef SUMS
#undef MAXIMA
#undef ARGMAXIMA
}

#endif
