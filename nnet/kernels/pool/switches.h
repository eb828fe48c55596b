/* Where maxima are: rows and columns in the image (pairs), or offsets in the window. Needs index.h.
 *
 * Pairs are 16 bytes for each output, so that what they are converted to and from should take no
 * longer than to read them. As rows of outputs are short, some of them are taken at once.
 */
enum { RUN_OUTPUTS = 1024, PAIRS_AHEAD = 128 };    /* to fetch ahead gains 10 to 20 % */

typedef struct {                    /* outputs that are converted at once */
    Py_ssize_t rows, cols;          /* some rows, or a part of a row */
    Py_ssize_t y, x;                /* the first one */
    int32_t top[RUN_OUTPUTS], left[RUN_OUTPUTS];    /* of their windows */
} PoolRun;

INLINE void set_run(const Pooling *p, PoolRun *run, Py_ssize_t y, Py_ssize_t x) {
    if (y == run->y && x == run->x) return;
    run->y = y;
    run->x = x;
    for (Py_ssize_t i = 0; i < run->rows; i++)
        for (Py_ssize_t k = 0; k < run->cols; k++) {
            run->top[i * run->cols + k] = p->height.start + (y + i) * p->height.stride;
            run->left[i * run->cols + k] = p->width.start + (x + k) * p->width.stride;
        }
}

/* The pairs of a run's n offsets; or, without pairs, whether they are in the image. */
INLINE int run_to_pairs(const Pooling *p, const PoolRun *run, Py_ssize_t n, const uint8_t *offsets,
                        Py_intptr_t *pairs) {
    const int32_t pool_w = p->width.pool, img_h = p->height.size, img_w = p->width.size;
    const int32_t inverse = 65535 / pool_w + 1;     /* exact for numbers up to 255 */
    const ints zero = {0};
    ints beyond = {0};
    int inside = 1;
    Py_ssize_t i = 0;
    for (; n >= N_INTS && i < n; i = next_step(i, n, N_INTS)) {
        ints at = ints_of_bytes(offsets + i), row = at * inverse >> 16;
        ints col = at - row * pool_w + *(const ints *)(run->left + i);
        row += *(const ints *)(run->top + i);
        beyond |= row | (img_h - 1 - row) | col | (img_w - 1 - col);
        UNROLL for (int half = 0; pairs && half < 2; half++) {
            ints both = half ? SHUFFLE(row, col, LIST_32(ZIPPED, N_INTS / 2))
                             : SHUFFLE(row, col, LIST_32(ZIPPED, 0));
            ints *to = (ints *)(pairs + 2 * i + half * N_INTS);
            to[0] = SHUFFLE(both, zero, LIST_32(ZIPPED, 0));
            to[1] = SHUFFLE(both, zero, LIST_32(ZIPPED, N_INTS / 2));
        }
    }
    for (; i < n; i++) {
        const int32_t tap_y = offsets[i] * inverse >> 16, row = run->top[i] + tap_y;
        const int32_t col = run->left[i] + offsets[i] - tap_y * pool_w;
        inside &= 0 <= row && row < img_h && 0 <= col && col < img_w;
        if (pairs) {
            pairs[2 * i] = row;
            pairs[2 * i + 1] = col;
        }
    }
    for (int l = 0; l < N_INTS; l++) inside &= beyond[l] >= 0;
    return inside;
}

/* The reverse; whether all pairs are in their windows and in the image. */
INLINE int run_to_offsets(const Pooling *p, const PoolRun *run, Py_ssize_t n,
                          const Py_intptr_t *pairs, uint8_t *offsets) {
    const int32_t pool_w = p->width.pool, pool_h = p->height.pool;
    const int32_t img_h = p->height.size, img_w = p->width.size;
    ints all = {0}, beyond = {0};   /* the low halves of pairs are not negative, the high ones 0 */
    ints last_y = img_h - 1 - all, last_x = img_w - 1 - all;
    ints last_tap_y = pool_h - 1 - all, last_tap_x = pool_w - 1 - all;
    int inside = 1;
    Py_ssize_t i = 0;
    KEEP(last_y);
    KEEP(last_x);
    KEEP(last_tap_y);
    KEEP(last_tap_x);
    for (; n >= N_INTS && i < n; i = next_step(i, n, N_INTS)) {
        const ints *from = (const ints *)(pairs + 2 * i);
        UNROLL for (int k = 0; k < 4; k++) prefetch(from + k + PAIRS_AHEAD / 4);
        all |= from[0] | from[1] | from[2] | from[3];
        ints first = SHUFFLE(from[0], from[1], LIST_32(DOUBLED, 0));
        ints second = SHUFFLE(from[2], from[3], LIST_32(DOUBLED, 0));
        ints row = SHUFFLE(first, second, LIST_32(DOUBLED, 0));
        ints col = SHUFFLE(first, second, LIST_32(DOUBLED, 1));
        ints tap_y = row - *(const ints *)(run->top + i);
        ints tap_x = col - *(const ints *)(run->left + i);
        beyond |= (last_y - row) | (last_x - col);
        beyond |= tap_y | (last_tap_y - tap_y);
        beyond |= tap_x | (last_tap_x - tap_x);
        bytes_of_ints(offsets + i, tap_y * pool_w + tap_x);
    }
    for (; i < n; i++) {
        const size_t row = pairs[2 * i], col = pairs[2 * i + 1];
        const size_t tap_y = row - run->top[i], tap_x = col - run->left[i];
        inside &= row < (size_t)img_h && col < (size_t)img_w && tap_y < (size_t)pool_h
                  && tap_x < (size_t)pool_w;
        offsets[i] = (uint8_t)(tap_y * pool_w + tap_x);
    }
    for (int l = 0; l < N_INTS; l++)
        inside &= beyond[l] >= 0 && (l % 2 ? all[l] == 0 : all[l] >= 0);
    return inside;
}

/* Of n planes the pairs, or the offsets, from the other; whether all of those are right. */
enum { TO_PAIRS, TO_OFFSETS, CHECK_OFFSETS };

INLINE int pool_convert(const Pooling *p, Py_ssize_t n, uint8_t *offsets, Py_intptr_t *pairs,
                        const int what) {
    const Py_ssize_t out_h = p->height.out, out_w = p->width.out;
    int inside = 1;
    PoolRun run;
    run.cols = least(out_w, RUN_OUTPUTS);
    run.rows = least(RUN_OUTPUTS / run.cols, out_h);
    run.y = -1;
    for (Py_ssize_t i = 0; i < n; i++)
    for (Py_ssize_t y = 0; y < out_h; y += run.rows)
    for (Py_ssize_t x = 0; x < out_w; x += run.cols) {
        const Py_ssize_t m = run.cols < out_w ? least(run.cols, out_w - x)
                                              : least(run.rows, out_h - y) * out_w;
        set_run(p, &run, y, x);
        if (what == TO_OFFSETS) inside &= run_to_offsets(p, &run, m, pairs, offsets);
        else inside &= run_to_pairs(p, &run, m, offsets, what == TO_PAIRS ? pairs : NULL);
        offsets += m;
        if (what != CHECK_OFFSETS) pairs += 2 * m;
    }
    return inside;
}

static void pool_to_pairs(const Pooling *p, Py_ssize_t n, const uint8_t *offsets,
                          Py_intptr_t *pairs) {
    pool_convert(p, n, (uint8_t *)offsets, pairs, TO_PAIRS);
}

static int pool_to_offsets(const Pooling *p, Py_ssize_t n, const Py_intptr_t *pairs,
                           uint8_t *offsets) {
    return pool_convert(p, n, offsets, (Py_intptr_t *)pairs, TO_OFFSETS);
}

/* Whether all pairs of n planes are in the image. */
static int pool_pairs_inside(const Pooling *p, Py_ssize_t n, const Py_intptr_t *pairs) {
    const size_t img_h = p->height.size, img_w = p->width.size;
    size_t outside = 0;
    for (Py_ssize_t i = 0; i < n * p->out_size; i++) {
        const size_t row = pairs[2 * i], col = pairs[2 * i + 1];
        outside |= row | col | (img_h - 1 - row) | (img_w - 1 - col);   /* one is negative */
    }
    return (Py_ssize_t)outside >= 0;
}

/* Whether all offsets of n planes are in their windows and in the image. */
static int pool_offsets_inside(const Pooling *p, Py_ssize_t n, const uint8_t *offsets) {
    uint8_t largest = 0;
    for (Py_ssize_t i = 0; i < n * p->out_size; i++)
        largest = offsets[i] > largest ? offsets[i] : largest;
    return largest < p->height.pool * p->width.pool
           && (!(pool_pads(&p->height) || pool_pads(&p->width))
               || pool_convert(p, n, (uint8_t *)offsets, NULL, CHECK_OFFSETS));
}
