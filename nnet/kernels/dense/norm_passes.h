/* The half of norm.h that passes over images, for float and for double. Needs norm.h:
 * which includes it.
 *
 * The ReLU after the layer is computed here: backward, whether it let a value through is found
 * from the input again, which is read anyway.
 */

/* --- sums of a run of pixels -------------------------------------------------------- */

/* The last n values of a run, less than a vector, in its last lanes; in the others `rest`. What
   comes before them is loaded with them: what was just stored would be waited for. */
INLINE vec OF(get_last)(const real *x, Py_ssize_t n, vec rest, int follow) {
    enum { N = OF(N_LANES) };
    static const integer lane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    if (follow) {
        const OF(mask) among = *(const OF(mask) *)lane >= (integer)(N - n);
        const OF(mask) last = (OF(mask))OF(get)(x + n - N);
        return (vec)((last & among) | ((OF(mask))rest & ~among));
    }
    memcpy((real *)&rest + N - n, x, n * sizeof(real));
    return rest;
}

#define IN_CHAINS(n, BODY) {                                                                  \
    enum { N = OF(N_LANES), STEP = N * NORM_CHAINS };                                         \
    Py_ssize_t i = 0;                                                                         \
    enum { whole = 1 };                                                                       \
    for (; i + STEP <= n; i += STEP)                                                          \
        UNROLL for (int v = 0; v < NORM_CHAINS; v++) { const Py_ssize_t at = i + v * N; BODY } \
    for (; i + N <= n; i += N) { enum { v = 0 }; const Py_ssize_t at = i; BODY }              \
    if (i < n) { enum { whole = 0, v = 0 }; const Py_ssize_t at = i; BODY }                   \
}
#define VALUES(x, rest) (whole ? OF(get)(x + at) : OF(get_last)(x + at, n - at, rest, at > 0))

INLINE real OF(fold)(vec *acc) {
    acc[0] = (acc[0] + acc[1]) + (acc[2] + acc[3]);
    return OF(lane_sum)((real *)acc);
}

INLINE real OF(mean_of)(const real *x, Py_ssize_t n) {
    vec sum[NORM_CHAINS] = {{0}};
    IN_CHAINS(n, sum[v] += VALUES(x, (vec){0});)
    return OF(fold)(sum) / n;
}

INLINE void OF(deviations)(const real *x, Py_ssize_t n, real center, double *total,
                           double *total_squares) {
    vec sum[NORM_CHAINS] = {{0}}, squares[NORM_CHAINS] = {{0}};
    const vec c = OF(every)(center);    /* lanes beyond the values deviate by 0 */
    IN_CHAINS(n, vec d = VALUES(x, c) - c; sum[v] += d; squares[v] += d * d;)
    *total = OF(fold)(sum);
    *total_squares = OF(fold)(squares);
}

INLINE void OF(products)(const real *x, const real *grad, Py_ssize_t n, real center, real scale,
                         real shift, const int with_relu, double *sums) {
    vec sum[NORM_CHAINS] = {{0}}, products[NORM_CHAINS] = {{0}};
    const vec c = OF(every)(center);
    IN_CHAINS(n,
        vec d = VALUES(x, c) - c; vec g = VALUES(grad, (vec){0});
        if (with_relu) g = (vec)((OF(mask))g & (d * scale + shift > 0));
        sum[v] += g; products[v] += g * d;)
    sums[0] += OF(fold)(sum);
    sums[1] += OF(fold)(products);
}
#undef IN_CHAINS
#undef VALUES

/* --- moments ------------------------------------------------------------------------ */

/* Of one channel in images first to last; x is that of image 0, `image` apart. */
static void OF(run_moments)(Moments *total, const real *x, Py_ssize_t n_pixels, Py_ssize_t image,
                            const Norm *job, Py_ssize_t first, Py_ssize_t last,
                            Py_ssize_t heaviest) {
    for (Py_ssize_t start = 0; start < n_pixels; start += PIXEL_RUN) {
        const Py_ssize_t length = n_pixels - start < PIXEL_RUN ? n_pixels - start : PIXEL_RUN;
        /* The mean of one image: the others make a variance no smaller than a chunk's share of
           their distance from it, so that no more than that is lost. */
        const real center = OF(mean_of)(x + heaviest * image + start, length);
        double deviations = 0, squares = 0, weights = 0, sum_of_run, squares_of_run;
        for (Py_ssize_t n = first; n < last; n++) {
            const double weight = weight_of(job, n);
            if (weight == 0) continue;
            OF(deviations)(x + n * image + start, length, center, &sum_of_run, &squares_of_run);
            deviations += weight * sum_of_run;
            squares += weight * squares_of_run;
            weights += weight;
        }
        add_deviations(total, weights * length, center, deviations, squares);
    }
}

/* The same for channels of one pixel, which lie side by side. */
static void OF(column_moments)(Moments *moments, const real *x, Py_ssize_t n_columns,
                               Py_ssize_t row, const Norm *job, Py_ssize_t first,
                               Py_ssize_t last, Py_ssize_t heaviest) {
    double deviations[COLUMNS] = {0}, squares[COLUMNS] = {0}, weights = 0;
    const real *center = x + heaviest * row;
    for (Py_ssize_t n = first; n < last; n++) {
        const double weight = weight_of(job, n);
        if (weight == 0) continue;
        weights += weight;
        for (Py_ssize_t c = 0; c < n_columns; c++) {
            const double deviation = (double)x[n * row + c] - (double)center[c];
            deviations[c] += weight * deviation;
            squares[c] += weight * deviation * deviation;
        }
    }
    for (Py_ssize_t c = 0; c < n_columns; c++)
        add_deviations(moments + c, weights, center[c], deviations[c], squares[c]);
}

/* Of channels c to end in images first to last. */
static void OF(batch_moments)(const Norm *job, Py_ssize_t first, Py_ssize_t last, Py_ssize_t c,
                              Py_ssize_t end) {
    const Py_ssize_t image = job->n_channels * job->n_pixels;
    const real *imgs = job->imgs;
    Moments *moments = job->moments + first / CHUNK_IMGS * job->n_channels;
    Py_ssize_t heaviest = first;
    for (Py_ssize_t n = first; n < last; n++)
        if (weight_of(job, n) > weight_of(job, heaviest)) heaviest = n;
    memset(moments + c, 0, (end - c) * sizeof(Moments));
    if (job->n_pixels > 1)
        for (; c < end; c++)
            OF(run_moments)(moments + c, imgs + c * job->n_pixels, job->n_pixels, image, job,
                            first, last, heaviest);
    for (; c < end; c += COLUMNS)
        OF(column_moments)(moments + c, imgs + c, end - c < COLUMNS ? end - c : COLUMNS, image,
                           job, first, last, heaviest);
}

/* Of rows of groups: a group's values in an image lie side by side. */
static void OF(group_moments)(const Norm *job, Py_ssize_t row, Py_ssize_t end) {
    const Py_ssize_t size = job->n_channels / job->n_groups * job->n_pixels;
    memset(job->moments + row, 0, (end - row) * sizeof(Moments));
    for (; row < end; row++)
        OF(run_moments)(job->moments + row, (const real *)job->imgs + row * size, size, 0, job, 0,
                        1, 0);
}

/* --- passes over channels c to end of image n ----------------------------------------- */

/* Values with coefficients of their own (step 1), or with one of each for all (step 0). */
INLINE void OF(normalize)(const real *x, real *out, Py_ssize_t n, const real *center,
                          const real *scale, const real *shift, const int step,
                          const int with_relu) {
    const real c = *center, s = *scale, t = *shift;
    for (Py_ssize_t i = 0; i < n; i++) {
        const real y = step ? (x[i] - center[i]) * scale[i] + shift[i] : (x[i] - c) * s + t;
        out[i] = with_relu && y < 0 ? 0 : y;    /* NaN stays */
    }
}

INLINE void OF(gradient)(const real *x, const real *grad, real *out, Py_ssize_t n,
                         const real *center, const real *scale, const real *shift,
                         const real *slope, const real *offset, real weight, const int step,
                         const int with_relu) {
    const real c = *center, s = *scale, t = *shift, m0 = weight * *slope, o0 = weight * *offset;
    real weighted[2][COLUMNS];
    if (step && weight != 1) {      /* before: so it is clear which products are fused */
        for (Py_ssize_t i = 0; i < n; i++) {
            weighted[0][i] = weight * slope[i];
            weighted[1][i] = weight * offset[i];
        }
        slope = weighted[0];
        offset = weighted[1];
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        const real d = x[i] - (step ? center[i] : c);
        const real y = step ? d * scale[i] + shift[i] : d * s + t;
        const real g = !with_relu || y > 0 ? grad[i] : 0;
        out[i] = step ? g * scale[i] + (d * slope[i] + offset[i]) : g * s + (d * m0 + o0);
    }
}

INLINE void OF(sum)(const real *x, const real *grad, Py_ssize_t n, const real *center,
                    const real *scale, const real *shift, double *sums, const int step,
                    const int with_relu) {
    if (!step) {
        for (Py_ssize_t i = 0; i < n; i += PIXEL_RUN)
            OF(products)(x + i, grad + i, n - i < PIXEL_RUN ? n - i : PIXEL_RUN, *center, *scale,
                         *shift, with_relu, sums);
        return;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        const real d = x[i] - center[i];
        const real g = !with_relu || d * scale[i] + shift[i] > 0 ? grad[i] : 0;
        sums[2 * i] += g;
        sums[2 * i + 1] += (double)g * (double)d;
    }
}

INLINE void OF(pass_over)(const Norm *job, Py_ssize_t n, Py_ssize_t c, Py_ssize_t end,
                          const int step, const int with_relu) {
    const Py_ssize_t at = (n * job->n_channels + c) * job->n_pixels;
    const Py_ssize_t row = job->n_rows > 1 ? n * job->n_channels : 0;
    const real *x = (const real *)job->imgs + at, *grad = (const real *)job->grad + at;
    const real *center = (real *)job->center + row, *scale = (real *)job->scale + row;
    const real *shift = (real *)job->shift + row, *slope = (real *)job->slope + row;
    const real *offset = (real *)job->offset + row;
    real *out = (real *)job->out + at;
    double *sums = job->sums + n / chunk_size(job) * 2 * job->n_channels;
    const real weight = weight_of(job, n);
    for (Py_ssize_t size = job->n_pixels; c < end; c += step ? COLUMNS : 1) {
        if (step) size = end - c < COLUMNS ? end - c : COLUMNS;
        if (job->pass == NORMALIZE)
            OF(normalize)(x, out, size, center + c, scale + c, shift + c, step, with_relu);
        else if (job->pass == SUMS)
            OF(sum)(x, grad, size, center + c, scale + c, shift + c, sums + 2 * c, step,
                    with_relu);
        else
            OF(gradient)(x, grad, out, size, center + c, scale + c, shift + c, slope + c,
                         offset + c, weight, step, with_relu);
        x += size;
        grad += size;
        out += size;
    }
}

static void OF(norm_unit)(const Norm *job, Py_ssize_t unit) {
    const Py_ssize_t per_unit = job->per_unit, n_channels = job->n_channels;
    const Py_ssize_t n_blocks = (n_channels + per_unit - 1) / per_unit;
    const Py_ssize_t chunk = unit / n_blocks, c = unit % n_blocks * per_unit;
    const Py_ssize_t end = n_channels - c < per_unit ? n_channels : c + per_unit;
    const Py_ssize_t first = chunk * chunk_size(job);
    const Py_ssize_t last = job->n_imgs - first < chunk_size(job) ? job->n_imgs
                                                                  : first + chunk_size(job);
    if (job->pass == MOMENTS && job->of_batch) {
        OF(batch_moments)(job, first, last, c, end);
        return;
    }
    if (job->pass == MOMENTS) {
        const Py_ssize_t row = unit * per_unit, n_rows = job->n_imgs * job->n_groups;
        OF(group_moments)(job, row, n_rows - row < per_unit ? n_rows : row + per_unit);
        return;
    }
    if (job->pass == SUMS)
        memset(job->sums + 2 * (chunk * n_channels + c), 0, 2 * (end - c) * sizeof(double));
    for (Py_ssize_t n = first; n < last; n++)
        if (job->n_pixels == 1 && job->with_relu) OF(pass_over)(job, n, c, end, 1, 1);
        else if (job->n_pixels == 1) OF(pass_over)(job, n, c, end, 1, 0);
        else if (job->with_relu) OF(pass_over)(job, n, c, end, 0, 1);
        else OF(pass_over)(job, n, c, end, 0, 0);
}
