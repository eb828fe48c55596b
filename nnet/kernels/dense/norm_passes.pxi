# The passes over memory of batch and group normalisation, and of a residual sum.
#
# Forward, one pass takes moments and one normalises; backward, one takes two sums for each
# channel and one writes the gradient. The ReLU after the layer is computed in these passes:
# backward, whether it let a value through is found from the input again, which is read anyway.
#
# Far from zero, squares would lose what makes the variance: moments are taken of deviations
# from a value near the mean, in runs short enough for one precision, and put together in double:
# Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance", eq. 1.5.
# What is put together, and in which order, follows from the shape alone: chunks of images, then
# a binary tree.

cdef extern from *:
    """
    enum { NORM_CHAINS = 4 };  /* vectors at a time: an addition waits for the one before it */
    #define NORM_LOOP(bits, n, whole, rest)                                                 \\
        enum { N = VECTOR_BYTES * 8 / bits, STEP = N * NORM_CHAINS };                       \\
        Py_ssize_t i = 0;                                                                   \\
        for (; i + STEP <= n; i += STEP)                                                    \\
            UNROLL for (int v = 0; v < NORM_CHAINS; v++) { whole(bits, i + v * N, v) }      \\
        for (; i + N <= n; i += N) { whole(bits, i, 0) }                                    \\
        if (i < n) { rest(bits, i) }
    #define NORM_FOLD(bits, acc) (acc[0] += acc[1], acc[2] += acc[3], acc[0] += acc[2],     \\
                                  lane_sum##bits((const void *)acc))

    #define ADD_VALUES(bits, at, v) sum[v] += *(const vec##bits *)(x + at);
    #define ADD_LAST_VALUES(bits, at)                                                       \\
        vec##bits a = {0};                                                                  \\
        memcpy(&a, x + at, (n - at) * sizeof(*x));                                          \\
        sum[0] += a;
    #define ADD_DEVIATION(bits, a, v) { vec##bits d = a - c; sum[v] += d; squares[v] += d * d; }
    #define ADD_DEVIATIONS(bits, at, v) ADD_DEVIATION(bits, *(const vec##bits *)(x + at), v)
    #define ADD_LAST_DEVIATIONS(bits, at)  /* lanes beyond them deviate by 0 */             \\
        vec##bits a = c;                                                                    \\
        memcpy(&a, x + at, (n - at) * sizeof(*x));                                          \\
        ADD_DEVIATION(bits, a, 0)
    #define ADD_PRODUCT(bits, a, b, v) {                                                    \\
        vec##bits d = a - c, g = b;                                                         \\
        if (with_relu) {                                                                    \\
            vec##bits y = d * scale + shift;                                                \\
            *(mask##bits *)&g &= y > 0; }                                                   \\
        sum[v] += g; products[v] += g * d; }
    #define ADD_PRODUCTS(bits, at, v)                                                       \\
        ADD_PRODUCT(bits, *(const vec##bits *)(x + at), *(const vec##bits *)(grad + at), v)
    #define ADD_LAST_PRODUCTS(bits, at)                                                     \\
        vec##bits a = c, b = {0};                                                           \\
        memcpy(&a, x + at, (n - at) * sizeof(*x));                                          \\
        memcpy(&b, grad + at, (n - at) * sizeof(*x));                                       \\
        ADD_PRODUCT(bits, a, b, 0)

    #define NORM_SUMS(real, bits)                                                           \\
    INLINE real run_sum##bits(const real *x, Py_ssize_t n) {                                \\
        vec##bits sum[NORM_CHAINS] = {{0}};                                                 \\
        NORM_LOOP(bits, n, ADD_VALUES, ADD_LAST_VALUES)                                     \\
        return NORM_FOLD(bits, sum); }                                                      \\
    INLINE void deviations##bits(const real *x, Py_ssize_t n, real center,                  \\
                                 double *total, double *total_squares) {                    \\
        vec##bits c = center - (vec##bits){0};                                              \\
        vec##bits sum[NORM_CHAINS] = {{0}}, squares[NORM_CHAINS] = {{0}};                   \\
        NORM_LOOP(bits, n, ADD_DEVIATIONS, ADD_LAST_DEVIATIONS)                             \\
        *total = NORM_FOLD(bits, sum);                                                      \\
        *total_squares = NORM_FOLD(bits, squares); }                                        \\
    INLINE void products##bits(const real *x, const real *grad, Py_ssize_t n, real center,  \\
                               real scale, real shift, const int with_relu,                 \\
                               double *total, double *total_products) {                     \\
        vec##bits c = center - (vec##bits){0};                                              \\
        vec##bits sum[NORM_CHAINS] = {{0}}, products[NORM_CHAINS] = {{0}};                  \\
        NORM_LOOP(bits, n, ADD_PRODUCTS, ADD_LAST_PRODUCTS)                                 \\
        *total = NORM_FOLD(bits, sum);                                                      \\
        *total_products = NORM_FOLD(bits, products); }
    NORM_SUMS(float, 32)
    NORM_SUMS(double, 64)
    """
    float run_sum32(const float *, Py_ssize_t) noexcept nogil
    double run_sum64(const double *, Py_ssize_t) noexcept nogil
    void deviations32(const float *, Py_ssize_t, float, double *, double *) noexcept nogil
    void deviations64(const double *, Py_ssize_t, double, double *, double *) noexcept nogil
    void products32(const float *, const float *, Py_ssize_t, float, float, float, bint,
                    double *, double *) noexcept nogil
    void products64(const double *, const double *, Py_ssize_t, double, double, double, bint,
                    double *, double *) noexcept nogil

cdef enum:
    CHUNK = 8               # images whose deviations are from one value
    PIXEL_RUN = 1024        # pixels whose sum is taken in one precision: an L1 cache holds them
    COLUMNS = 256           # channels of one pixel that are summed side by side
    UNIT_SIZE = 32768       # values that one thread takes at a time

cdef enum NormPass:
    BATCH_MOMENTS, GROUP_MOMENTS, NORMALIZE, SUMS, GRADIENT

cdef struct Moments:
    double weight, mean, squares        # of the deviations from the mean

cdef struct Norm:
    NormPass step
    bint with_relu
    Py_ssize_t n_imgs, n_channels, n_pixels, n_groups
    Py_ssize_t chunk                    # images whose sums are one
    Py_ssize_t per_unit                 # channels of a chunk, or groups: a unit of work
    Py_ssize_t per_image                # from one image's coefficients to the next: 0 if shared
    const void *imgs                    # (n_imgs, n_channels, n_pixels), and so are these two
    const void *grad
    void *out
    const double *weights               # (n_imgs,), the largest is 1; or NULL
    double weight, count                # of a channel's values: the sum, and how many these are
    Moments *moments                    # (n_chunks, n_channels) or (n_imgs, n_groups)
    double *sums                        # (n_chunks, n_channels, 2)
    # (1 or n_imgs, n_channels): d = x - center; forward, d * scale + shift; backward,
    # grad * scale + d * slope + offset, where the last two count as the image weighs
    void *center
    void *scale
    void *shift
    void *slope
    void *offset


# --- moments --------------------------------------------------------------------

cdef inline double weight_of(const Norm *job, Py_ssize_t n) noexcept nogil:
    return 1 if job.weights == NULL else job.weights[n]


cdef inline real mean_of(const real *x, Py_ssize_t n) noexcept nogil:
    """About the mean of a run."""
    if real is float:
        return run_sum32(x, n) / n
    else:
        return run_sum64(x, n) / n


cdef inline void add_moments(Moments *total, double weight, double mean,
                             double squares) noexcept nogil:
    """Put the moments of two sets together."""
    cdef double sum_of_both = total.weight + weight, distance = mean - total.mean
    if weight == 0:
        return
    if total.weight == 0:
        total.mean = mean
    else:
        total.mean += distance * (weight / sum_of_both)
        squares += distance * distance * (total.weight * weight / sum_of_both)
    total.squares += squares
    total.weight = sum_of_both


cdef inline void add_deviations(Moments *total, double weight, double center, double deviations,
                                double squares) noexcept nogil:
    """Add a set whose deviations from `center` have these sums."""
    cdef double distance = deviations / weight if weight > 0 else 0
    add_moments(total, weight, center + distance, max(squares - distance * deviations, 0.0))


cdef void run_moments(Moments *total, const real *x, Py_ssize_t n_pixels, Py_ssize_t image,
                      const Norm *job, Py_ssize_t first, Py_ssize_t last,
                      Py_ssize_t heaviest) noexcept nogil:
    """Of one channel in images first to last; x is that of image 0, `image` apart."""
    cdef Py_ssize_t start = 0, length, n
    cdef double deviations, squares, sum_of_run, squares_of_run, weight, weights
    cdef real center
    while start < n_pixels:
        length = min(<Py_ssize_t>PIXEL_RUN, n_pixels - start)
        # The mean of one image: the others make a variance no smaller than a chunk's share of
        # their distance from it, so that no more than that is lost.
        center = mean_of(x + heaviest * image + start, length)
        deviations = squares = weights = 0
        for n in range(first, last):
            weight = weight_of(job, n)
            if weight == 0:
                continue
            if real is float:
                deviations32(x + n * image + start, length, center, &sum_of_run, &squares_of_run)
            else:
                deviations64(x + n * image + start, length, center, &sum_of_run, &squares_of_run)
            deviations += weight * sum_of_run
            squares += weight * squares_of_run
            weights += weight
        add_deviations(total, weights * length, center, deviations, squares)
        start += length


cdef void column_moments(Moments *moments, const real *x, Py_ssize_t n_columns, Py_ssize_t row,
                         const Norm *job, Py_ssize_t first, Py_ssize_t last,
                         Py_ssize_t heaviest) noexcept nogil:
    """The same for channels of one pixel, which lie side by side."""
    cdef double deviations[COLUMNS]
    cdef double squares[COLUMNS]
    cdef double deviation, weight, weights = 0
    cdef const real *center = x + heaviest * row
    cdef Py_ssize_t n, c
    for c in range(n_columns):
        deviations[c] = squares[c] = 0
    for n in range(first, last):
        weight = weight_of(job, n)
        if weight == 0:
            continue
        weights += weight
        for c in range(n_columns):
            deviation = <double>x[n * row + c] - <double>center[c]
            deviations[c] += weight * deviation
            squares[c] += weight * deviation * deviation
    for c in range(n_columns):
        add_deviations(moments + c, weights, center[c], deviations[c], squares[c])


cdef void batch_moments(const Norm *job, Py_ssize_t chunk, Py_ssize_t c, Py_ssize_t end,
                        const real *imgs) noexcept nogil:
    """Of channels c to end in a chunk of images."""
    cdef Py_ssize_t first = chunk * job.chunk, last = min(first + job.chunk, job.n_imgs)
    cdef Py_ssize_t image = job.n_channels * job.n_pixels, heaviest = first, n
    cdef Moments *moments = job.moments + chunk * job.n_channels
    for n in range(first, last):
        if weight_of(job, n) > weight_of(job, heaviest):
            heaviest = n
    memset(moments + c, 0, (end - c) * sizeof(Moments))
    while c < end:
        if job.n_pixels > 1:
            run_moments(moments + c, imgs + c * job.n_pixels, job.n_pixels, image, job, first,
                        last, heaviest)
            c += 1
        else:
            n = min(<Py_ssize_t>COLUMNS, end - c)
            column_moments(moments + c, imgs + c, n, image, job, first, last, heaviest)
            c += n


cdef void group_moments(const Norm *job, Py_ssize_t unit, const real *imgs) noexcept nogil:
    """Of groups of channels in one image each: these values lie side by side."""
    cdef Py_ssize_t size = job.n_channels // job.n_groups * job.n_pixels, row, start
    cdef Py_ssize_t n_rows = job.n_imgs * job.n_groups
    cdef Norm unweighted = job[0]
    unweighted.weights = NULL
    for row in range(unit * job.per_unit, min((unit + 1) * job.per_unit, n_rows)):
        job.moments[row] = [0, 0, 0]
        run_moments(job.moments + row, imgs + row * size, size, 0, &unweighted, 0, 1, 0)


# --- passes that write ------------------------------------------------------------

cdef inline void normalize_run(const real *x, real *out, Py_ssize_t n, real center, real scale,
                               real shift, bint with_relu) noexcept nogil:
    cdef Py_ssize_t i
    cdef real y
    if with_relu:
        for i in range(n):
            y = (x[i] - center) * scale + shift
            out[i] = <real>0 if y < 0 else y    # NaN stays
    else:
        for i in range(n):
            out[i] = (x[i] - center) * scale + shift


cdef inline void gradient_run(const real *x, const real *grad, real *out, Py_ssize_t n,
                              real center, real scale, real shift, real slope, real offset,
                              bint with_relu) noexcept nogil:
    cdef Py_ssize_t i
    cdef real d, g
    if with_relu:
        for i in range(n):
            d = x[i] - center
            g = grad[i] if d * scale + shift > 0 else <real>0
            out[i] = g * scale + (d * slope + offset)
    else:
        for i in range(n):
            d = x[i] - center
            out[i] = grad[i] * scale + (d * slope + offset)


cdef void write_pixels(const Norm *job, Py_ssize_t n, Py_ssize_t c, Py_ssize_t n_columns,
                       const real *imgs) noexcept nogil:
    """`write_planes` for channels of one pixel."""
    cdef Py_ssize_t at = n * job.n_channels + c, i
    cdef const real *grad = <const real *>job.grad + at
    cdef real *out = <real *>job.out + at
    cdef const real *center = <const real *>job.center + n * job.per_image + c
    cdef const real *scale = <const real *>job.scale + n * job.per_image + c
    cdef const real *shift = <const real *>job.shift + n * job.per_image + c
    cdef const real *slope = <const real *>job.slope + n * job.per_image + c
    cdef const real *offset = <const real *>job.offset + n * job.per_image + c
    cdef real weight = <real>weight_of(job, n), d, y
    imgs += at
    if job.step == GRADIENT:
        for i in range(n_columns):
            d = imgs[i] - center[i]
            y = grad[i] if not job.with_relu or d * scale[i] + shift[i] > 0 else <real>0
            out[i] = y * scale[i] + (d * (weight * slope[i]) + weight * offset[i])
        return
    for i in range(n_columns):
        y = (imgs[i] - center[i]) * scale[i] + shift[i]
        out[i] = <real>0 if job.with_relu and y < 0 else y


cdef void write_planes(const Norm *job, Py_ssize_t n, Py_ssize_t c, Py_ssize_t end,
                       const real *imgs) noexcept nogil:
    """The output, or the gradient, of channels c to end of an image."""
    cdef Py_ssize_t size = job.n_pixels, at = (n * job.n_channels + c) * size, i
    cdef const real *grad = <const real *>job.grad
    cdef real *out = <real *>job.out
    cdef const real *center = <const real *>job.center + n * job.per_image
    cdef const real *scale = <const real *>job.scale + n * job.per_image
    cdef const real *shift = <const real *>job.shift + n * job.per_image
    cdef const real *slope = <const real *>job.slope + n * job.per_image
    cdef const real *offset = <const real *>job.offset + n * job.per_image
    cdef real weight = <real>weight_of(job, n)
    if size == 1:
        write_pixels(job, n, c, end - c, imgs)
        return
    for i in range(c, end):
        if job.step == NORMALIZE:
            normalize_run(imgs + at, out + at, size, center[i], scale[i], shift[i], job.with_relu)
        else:
            gradient_run(imgs + at, grad + at, out + at, size, center[i], scale[i], shift[i],
                         weight * slope[i], weight * offset[i], job.with_relu)
        at += size


# --- sums of gradients --------------------------------------------------------------

cdef void add_column_products(const Norm *job, double *sums, Py_ssize_t n, Py_ssize_t c,
                              Py_ssize_t end, const real *imgs) noexcept nogil:
    """`add_products` for channels c to end, of one pixel each."""
    cdef Py_ssize_t image = n * job.n_channels, row = n * job.per_image
    cdef const real *center = <const real *>job.center + row
    cdef const real *scale = <const real *>job.scale + row
    cdef const real *shift = <const real *>job.shift + row
    cdef const real *grad = <const real *>job.grad + image
    cdef real d, g
    imgs += image
    for c in range(c, end):
        d = imgs[c] - center[c]
        g = grad[c] if not job.with_relu or d * scale[c] + shift[c] > 0 else <real>0
        sums[2 * c] += g
        sums[2 * c + 1] += <double>g * <double>d


cdef void add_products(const Norm *job, double *sums, Py_ssize_t n, Py_ssize_t c,
                       const real *imgs) noexcept nogil:
    """sums += (sum of grad, sum of grad * d) over one channel of one image."""
    cdef Py_ssize_t start = 0, length, at = (n * job.n_channels + c) * job.n_pixels
    cdef Py_ssize_t i = n * job.per_image + c
    cdef const real *grad = <const real *>job.grad + at
    cdef real center = (<const real *>job.center)[i], scale = (<const real *>job.scale)[i]
    cdef real shift = (<const real *>job.shift)[i]
    cdef double total, products
    imgs += at
    while start < job.n_pixels:
        length = min(<Py_ssize_t>PIXEL_RUN, job.n_pixels - start)
        if real is float:
            if job.with_relu:
                products32(imgs + start, grad + start, length, center, scale, shift, True, &total,
                           &products)
            else:
                products32(imgs + start, grad + start, length, center, scale, shift, False, &total,
                           &products)
        else:
            if job.with_relu:
                products64(imgs + start, grad + start, length, center, scale, shift, True, &total,
                           &products)
            else:
                products64(imgs + start, grad + start, length, center, scale, shift, False, &total,
                           &products)
        sums[0] += total
        sums[1] += products
        start += length


# --- units of work --------------------------------------------------------------------

cdef void norm_unit(const Norm *job, Py_ssize_t unit, const real *imgs) noexcept nogil:
    cdef Py_ssize_t n_blocks = (job.n_channels + job.per_unit - 1) // job.per_unit
    cdef Py_ssize_t chunk = unit // n_blocks, first = unit % n_blocks * job.per_unit
    cdef Py_ssize_t end = min(first + job.per_unit, job.n_channels), n, c
    cdef double *sums
    if job.step == GROUP_MOMENTS:
        group_moments(job, unit, imgs)
        return
    if job.step == BATCH_MOMENTS:
        batch_moments(job, chunk, first, end, imgs)
        return
    if job.step == SUMS:
        sums = job.sums + 2 * chunk * job.n_channels
        memset(sums + 2 * first, 0, 2 * (end - first) * sizeof(double))
    for n in range(chunk * job.chunk, min((chunk + 1) * job.chunk, job.n_imgs)):
        if job.step == SUMS and job.n_pixels == 1:
            add_column_products(job, sums, n, first, end, imgs)
        elif job.step == SUMS:
            for c in range(first, end):
                add_products(job, sums + 2 * c, n, c, imgs)
        else:
            write_planes(job, n, first, end, imgs)


cdef void float_norm_unit(void *job, Py_ssize_t unit, int thread) noexcept nogil:
    norm_unit(<Norm *>job, unit, <const float *>(<Norm *>job).imgs)


cdef void double_norm_unit(void *job, Py_ssize_t unit, int thread) noexcept nogil:
    norm_unit(<Norm *>job, unit, <const double *>(<Norm *>job).imgs)


cdef void run_pass(Norm *job, NormPass step, bint is_float, int n_threads) noexcept nogil:
    cdef Py_ssize_t n_units, group
    job.step = step
    if step == GROUP_MOMENTS:
        group = job.n_channels // job.n_groups * job.n_pixels
        job.per_unit = max(<Py_ssize_t>1, UNIT_SIZE // group)
        n_units = (job.n_imgs * job.n_groups + job.per_unit - 1) // job.per_unit
    else:
        job.per_unit = max(<Py_ssize_t>1, UNIT_SIZE // (job.chunk * job.n_pixels))
        n_units = (job.n_imgs + job.chunk - 1) // job.chunk
        n_units *= (job.n_channels + job.per_unit - 1) // job.per_unit
    parallel_for(float_norm_unit if is_float else double_norm_unit, job, n_units, n_threads)
