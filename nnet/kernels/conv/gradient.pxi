# The backward pass to the filters: a correlation of images with output gradients,
# summed over pixels and images.
#
# The images are cut into chunks, by the shape alone; each chunk sums into a part
# of its own, and the parts are added in their order. So the result has the same
# bits for every number of threads. Sums of very many tiles keep what each addition
# loses by rounding, and add it in the end.

cdef enum:
    MAX_CHUNKS = 8
    BIAS_IMGS = 64      # whose gradients of the bias add up one by one
    # The forms of the sum, each in a file of its own
    DENSE = 0
    SHIFTED = 1
    OUTER = 2
    TRANSFORMED = 3
    STRIPS = 4

cdef struct FilterGradient:
    Py_ssize_t n_imgs, n_channels, n_features, groups
    Py_ssize_t c_per_group, k_per_group
    Py_ssize_t h, w, out_h, out_w, fil_h, fil_w
    Py_ssize_t stride_y, stride_x, dilation_y, dilation_x, top, left
    int border
    int form
    DotLayout dot
    OuterLayout outer
    WinogradLayout winograd
    Strips strips
    Py_ssize_t stack                    # images that a tile sums over at once
    Py_ssize_t n_stacks, n_chunks
    Py_ssize_t n_split, parts           # what is cut into parts: features (dot forms), channels
                                        # or, in runs, rows of taps
    Py_ssize_t part_size                # values of a chunk's partial sums
    Py_ssize_t errors                   # from sums to their rounding errors; 0: they keep none
    Py_ssize_t n_summed                 # parts that are added up: of chunks, and their errors
    Py_ssize_t n_combined               # pieces in which the parts are added up
    Py_ssize_t buffer_size              # values of a thread's own memory


cdef inline Py_ssize_t first_stack(const FilterGradient *job, Py_ssize_t chunk) noexcept nogil:
    return chunk * job.n_stacks // job.n_chunks


cdef void gradient_unit(
    const FilterGradient *job, Py_ssize_t unit, const real *imgs, const real *grad, real *part,
    double *bias_part, real *buffer,
) noexcept nogil:
    """One chunk of images and one part."""
    cdef Py_ssize_t chunk = unit // job.parts, i = unit % job.parts
    cdef Py_ssize_t first = i * job.n_split // job.parts, end = (i + 1) * job.n_split // job.parts
    part += chunk * job.part_size
    if job.form == OUTER:
        outer_unit(job, chunk, first, end, imgs, grad, part, buffer)
    elif job.form == TRANSFORMED:
        winograd_unit(job, chunk, first, end, imgs, grad, part, buffer)
    elif job.form == STRIPS:
        strips_unit(job, chunk, first, end, imgs, grad, part, buffer)
    else:
        dot_unit(job, chunk, first, end, imgs, grad, part, buffer)
    if bias_part != NULL:
        first, end = i * job.n_features // job.parts, (i + 1) * job.n_features // job.parts
        bias_unit(job, chunk, first, end, grad, bias_part + chunk * job.n_features)


cdef void bias_unit(const FilterGradient *job, Py_ssize_t chunk, Py_ssize_t k_first,
                    Py_ssize_t k_end, const real *grad, double *part) noexcept nogil:
    """One chunk of images and features [k_first, k_end): sums of a few images, in double."""
    cdef Py_ssize_t first = first_stack(job, chunk) * job.stack, size = job.out_h * job.out_w
    cdef Py_ssize_t end = min(job.n_imgs, first_stack(job, chunk + 1) * job.stack), last, n, k
    cdef real total
    memset(part + k_first, 0, (k_end - k_first) * sizeof(double))
    while first < end:
        last = min(first + BIAS_IMGS, end)
        for k in range(k_first, k_end):
            total = 0
            for n in range(first, last):
                total += plane_sum(grad + (n * job.n_features + k) * size, size)
            part[k] += total
        first = last


cdef real plane_sum(const real *plane, Py_ssize_t n) noexcept nogil:
    """The sum of n values; those of many blocks add up in double."""
    cdef Py_ssize_t block = RUN * (VECTOR_BYTES // sizeof(real))
    cdef double total = 0
    while n > block:
        total += block_sum(plane, block)
        plane, n = plane + block, n - block
    return <real>(total + block_sum(plane, n))


cdef real block_sum(const real *plane, Py_ssize_t n) noexcept nogil:
    """Whole vectors in four accumulators, then the rest."""
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real acc[4 * LANES]
    cdef real total = 0
    cdef Py_ssize_t x = 0
    cdef int v
    if n >= lanes:
        for v in range(4):
            clear(acc + v * lanes)
        while x + 4 * lanes <= n:
            for v in range(4):
                add(acc + v * lanes, acc + v * lanes, plane + x + v * lanes)
            x += 4 * lanes
        while x + lanes <= n:
            add(acc, acc, plane + x)
            x += lanes
        for v in range(1, 4):
            add(acc, acc, acc + v * lanes)
        total = lane_sum(acc)
    for x in range(x, n):
        total += plane[x]
    return total


cdef void combine_feature(const FilterGradient *job, Py_ssize_t k, const real *part,
                          real *filters_grad) noexcept nogil:
    """The mean over the images of one feature's filters, the chunks in their order."""
    cdef Py_ssize_t taps = job.fil_h * job.fil_w, c, t, i
    cdef real total
    cdef const real *source
    for c in range(job.c_per_group):
        for t in range(taps):
            source = part + (k * job.c_per_group + c) * taps + t
            total = 0
            for i in range(job.n_summed):
                total += source[i * job.part_size]
            filters_grad[(c * job.n_features + k) * taps + t] = total / job.n_imgs


cdef double dense_cycles(const FilterGradient *job, Py_ssize_t lanes) noexcept nogil:
    """What one pixel costs in dot form; a multiply-add of a vector of pixels is one cycle."""
    cdef double size = job.out_h * job.out_w, taps = job.fil_h * job.fil_w
    cdef double rows = min(job.stride_y, job.fil_h) * (
        job.out_h + (job.fil_h - 1) * job.dilation_y // job.stride_y)
    # 8 cycles copy a vector of one long run, 12 one of a row; 60 more for each run
    cdef double copies = 8.0 * rows * job.out_w / lanes
    if job.stride_y > 1 or job.out_w != job.w:
        copies = 12.0 * rows * ceil_div(job.out_w, lanes)
    copies += 60 * min(job.stride_y, job.fil_h)
    # A tile of 1 tap and 5 features waits for its loads; the last vector is not full.
    cdef double product = max(1.1, (min(taps, 5.0) + 14) / (5 * min(taps, 5.0)))
    return job.c_per_group * (product * taps * job.k_per_group / lanes * (1 + 1.5 * lanes / size)
                              + job.fil_w * copies / size)


cdef double outer_cycles(const FilterGradient *job, Py_ssize_t lanes) noexcept nogil:
    """... in outer form, tap by tap: turns of 5 multiply-adds; 12 cycles transpose a vector."""
    cdef Py_ssize_t right = max(job.out_w - 1 + job.fil_w - job.left - job.w, <Py_ssize_t>0)
    cdef double taps = job.fil_h * job.fil_w, vectors = ceil_div(job.k_per_group, lanes)
    if job.border == BORDER_ZEROS and job.stride_x == 1 and job.dilation_x == 1:
        # Columns of padding are skipped.
        taps -= job.fil_h * (job.left * (job.left + 1) + right * (right + 1)) / (2.0 * job.out_w)
    return (taps * max(job.c_per_group * vectors, 5.0)
            + 12 * (vectors + ceil_div(job.c_per_group, lanes)))


cdef double run_cycles(const FilterGradient *job, bint swapped, Py_ssize_t lanes) noexcept nogil:
    """... in runs: turns of 8; 8 cycles transpose a vector, 3 half of one, 2 a quarter."""
    cdef double run = job.c_per_group * job.fil_w
    cdef double pixels = <double>(job.h * job.w) / (job.out_h * job.out_w)
    cdef double sums = run * ceil_div(job.k_per_group, lanes)
    if swapped:
        sums = job.k_per_group * ceil_div(job.c_per_group * job.fil_w, lanes)
    return (job.fil_h * max(sums + 0.5, 8.5)
            + (3 if job.k_per_group <= 8 < lanes else 8 * ceil_div(job.k_per_group, lanes))
            + (2 if job.c_per_group <= 4 < lanes else 3 if job.c_per_group <= 8 < lanes else 6)
            * pixels)


cdef double transformed_cycles(const FilterGradient *job, Py_ssize_t lanes) noexcept nogil:
    """... transformed: the products of a tile of 4 pixels, and the transforms of its vectors."""
    cdef const Pieces *y = &job.winograd.pieces_y
    cdef const Pieces *x = &job.winograd.pieces_x
    cdef double vectors = ceil_div(job.k_per_group, lanes)
    cdef double tiles = ceil_div(job.out_h, 2) * ceil_div(job.out_w, 2)
    cdef double products = y.n_products * x.n_products * max(job.c_per_group * vectors, 5.0)
    if y.n_shifts * x.n_shifts > 1:
        products *= 1.3     # a walk is as short as a row of tiles
    return tiles / (job.out_h * job.out_w) * (
        products + 92 * vectors
        + 5.75 * y.n_elements * x.n_elements * ceil_div(job.c_per_group, lanes))


cdef int cheapest_form(FilterGradient *job, int algorithm, Py_ssize_t lanes) noexcept nogil:
    """The form that takes the fewest cycles.

    Fitted to measurements with 3x3 filters (1 to 32 channels, 4 to 32 features, images of
    7x7 and 16x16) and of the few-channel shapes of the benchmark, on AVX-512.
    """
    # One copy for few features is up to twice as fast as one for each column of taps.
    cdef bint few = 2 * job.k_per_group <= job.fil_h
    cdef double dense = dense_cycles(job, lanes), outer = outer_cycles(job, lanes)
    cdef double runs = run_cycles(job, False, lanes), swapped = run_cycles(job, True, lanes)
    cdef double winograd = transformed_cycles(job, lanes)
    job.outer.in_runs = (job.dilation_x == 1 and job.c_per_group <= lanes
                         and min(runs, swapped) < outer)
    job.outer.swapped = job.outer.in_runs and swapped < runs
    if job.outer.in_runs:
        outer = min(runs, swapped)
    if (
        job.winograd.pieces_y.n > 0 and job.winograd.pieces_x.n > 0 and job.border == BORDER_ZEROS
        and job.dilation_y == 1 and job.dilation_x == 1
        and (algorithm == WINOGRAD
             or algorithm == FASTEST and not few and winograd < min(dense, outer))
    ):
        return TRANSFORMED
    if algorithm == PIXELS or algorithm != PLANES and not few and outer < dense:
        return OUTER
    return SHIFTED if few else DENSE


cdef bint strips_fit(FilterGradient *job, int algorithm, Workspace space,
                     Py_ssize_t lanes) except -1:
    """Whether the sums need no copies of images; if so, they are planned."""
    return (
        algorithm != PIXELS and algorithm != WINOGRAD and job.border == BORDER_ZEROS
        and job.c_per_group == 1 and job.k_per_group == 1
        and job.stride_y == 1 and job.stride_x == 1 and job.dilation_y == 1
        and job.fil_w <= 16     # measured: wide filters lose
        and plan_strips(&job.strips, job.h, job.w, job.out_h, job.out_w, job.top, -job.left,
                        job.dilation_x, job.fil_h, job.fil_w, space, lanes)
    )


cdef int plan_filters_gradient(FilterGradient *job, int algorithm, int n_threads,
                               Workspace space, Py_ssize_t itemsize) except 0:
    """Which form, how many images at once, and units of work for how many threads.

    Only the number of parts depends on the threads: it moves no sum.
    """
    cdef Py_ssize_t lanes = VECTOR_BYTES // itemsize
    cdef Py_ssize_t taps = job.fil_h * job.fil_w, size = job.out_h * job.out_w
    job.winograd.pieces_y = cut_axis(job.fil_h, job.stride_y, job.dilation_y)
    job.winograd.pieces_x = cut_axis(job.fil_w, job.stride_x, job.dilation_x)
    job.form = STRIPS
    if not strips_fit(job, algorithm, space, lanes):
        job.form = cheapest_form(job, algorithm, lanes)
    if job.form == OUTER:
        plan_outer(job, lanes, itemsize)
        job.buffer_size = job.outer.size
        job.part_size = job.groups * job.fil_h * job.outer.row_size
        job.n_split = job.groups * job.fil_h if job.outer.in_runs else job.n_channels
        job.n_combined = (job.n_features if job.outer.swapped
                          else job.groups * job.outer.k_pitch // lanes)
    elif job.form == TRANSFORMED:
        plan_transformed(job, lanes, itemsize)
        job.n_split = job.n_combined = job.n_channels
        if job.n_imgs * job.winograd.rows * job.winograd.cols < SMALL_TILES:
            n_threads = 1
    else:
        if job.form == STRIPS:
            job.stack, job.buffer_size = 1, job.n_features * taps * lanes
        else:
            plan_dot(job, job.form == SHIFTED, lanes)
        job.part_size = job.n_features * job.c_per_group * taps
        job.n_split = job.n_combined = job.n_features
    job.n_stacks = ceil_div(job.n_imgs, job.stack)
    # A chunk's part is cleared and added up: about 1000 pixels make that worth their while.
    job.n_chunks = clip(job.n_imgs * size // 1024, 1, min(job.n_stacks, <Py_ssize_t>MAX_CHUNKS))
    plan_errors(job, lanes)
    job.parts = 1
    if job.n_chunks < n_threads:    # every part copies or transforms what it reads
        job.parts = min(job.n_split, ceil_div(n_threads, job.n_chunks))
    return n_threads


cdef void plan_errors(FilterGradient *job, Py_ssize_t lanes) noexcept nogil:
    """Whether a chunk's sums keep their rounding errors, and where."""
    cdef Py_ssize_t size = job.out_h * job.out_w, tiles = ceil_div(job.n_stacks, job.n_chunks)
    cdef Py_ssize_t sums = job.part_size * lanes
    job.errors, job.n_summed = 0, job.n_chunks
    if job.form == STRIPS:
        tiles *= job.strips.rows * ceil_div(job.out_w, lanes)
        tiles = MAX_TILES * ceil_div(tiles, MAX_RUN)    # one run, or more
    elif job.form == OUTER:
        tiles *= (ceil_div(job.out_h, job.outer.band)
                  * ceil_div(job.stack * job.outer.band * job.out_w, RUN))
    elif job.form == TRANSFORMED:
        tiles *= ceil_div(job.winograd.rows, job.winograd.band)
    else:
        tiles *= ceil_div(job.stack * size, RUN * lanes)
    if tiles <= MAX_TILES:
        return
    if job.form == OUTER or job.form == TRANSFORMED:
        job.errors, job.n_summed = job.n_chunks * job.part_size, 2 * job.n_chunks
    else:
        job.errors = sums
        job.buffer_size += (2 if job.form == STRIPS else 1) * sums


cdef struct GradientWork:               # what the threads share
    const FilterGradient *job
    const void *imgs
    const void *grad
    void *part
    double *bias_part
    void *filters_grad
    ThreadMemory memory


cdef void sum_float(void *context, Py_ssize_t unit, int thread) noexcept nogil:
    cdef GradientWork *work = <GradientWork *>context
    gradient_unit(work.job, unit, <const float *>work.imgs, <const float *>work.grad,
                  <float *>work.part, work.bias_part,
                  <float *>piece_of(&work.memory, thread))


cdef void sum_double(void *context, Py_ssize_t unit, int thread) noexcept nogil:
    cdef GradientWork *work = <GradientWork *>context
    gradient_unit(work.job, unit, <const double *>work.imgs, <const double *>work.grad,
                  <double *>work.part, work.bias_part,
                  <double *>piece_of(&work.memory, thread))


cdef void combine_float(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef GradientWork *work = <GradientWork *>context
    combine(work.job, i, <const float *>work.part, <float *>work.filters_grad)


cdef void combine_double(void *context, Py_ssize_t i, int thread) noexcept nogil:
    cdef GradientWork *work = <GradientWork *>context
    combine(work.job, i, <const double *>work.part, <double *>work.filters_grad)


cdef void combine(const FilterGradient *job, Py_ssize_t i, const real *part,
                  real *filters_grad) noexcept nogil:
    """The filters of one channel (Winograd's form), vector of features (outer form) or feature."""
    if job.form == TRANSFORMED:
        combine_winograd(job, i, part, filters_grad)
    elif job.form == OUTER and job.outer.swapped:
        combine_runs(job, i, part, filters_grad)
    elif job.form == OUTER:
        combine_features(job, i, part, filters_grad)
    else:
        combine_feature(job, i, part, filters_grad)


cdef void conv_filters_gradient(
    const real *imgs, const real *grad, real *filters_grad, real *bias_grad,
    tuple imgs_shape, tuple filters_shape, Py_ssize_t groups, object geometry, int border,
    int algorithm, int n_threads, Workspace space,
) except *:
    cdef FilterGradient job
    cdef GradientWork work
    cdef Py_ssize_t k, i
    cdef real total
    job.n_imgs, job.n_channels, job.h, job.w = imgs_shape
    job.c_per_group, job.n_features, job.fil_h, job.fil_w = filters_shape
    job.groups = groups
    job.k_per_group = job.n_features // groups
    job.out_h, job.out_w = geometry.out_h, geometry.out_w
    job.stride_y, job.stride_x = geometry.stride_y, geometry.stride_x
    job.dilation_y, job.dilation_x = geometry.dilation_y, geometry.dilation_x
    job.top, job.left, job.border = geometry.top, geometry.left, border
    n_threads = plan_filters_gradient(&job, algorithm, n_threads, space, sizeof(real))
    if job.form == OUTER:
        plan_outer_tables(&job, space)
    elif job.form == TRANSFORMED:
        plan_transformed_tables(&job, space, VECTOR_BYTES // sizeof(real))
    elif job.form != STRIPS:
        plan_dot_tables(&job, space)

    work.memory = take_for_threads(space, n_threads, job.buffer_size * sizeof(real), 0)
    cdef double *bias_part = NULL
    if bias_grad != NULL:
        bias_part = <double *>space.take(job.n_chunks * job.n_features * sizeof(double))
    work.job, work.imgs, work.grad, work.filters_grad = &job, imgs, grad, filters_grad
    work.part = space.take(job.n_summed * job.part_size * sizeof(real))
    work.bias_part = bias_part
    with nogil:
        parallel_for(sum_float if real is float else sum_double, &work, job.n_chunks * job.parts,
                     n_threads)
        parallel_for(combine_float if real is float else combine_double, &work,
                     job.n_combined, n_threads)
    if bias_grad != NULL:
        for k in range(job.n_features):
            total = 0
            for i in range(job.n_chunks):
                total += <real>bias_part[i * job.n_features + k]
            bias_grad[k] = total / job.n_imgs
