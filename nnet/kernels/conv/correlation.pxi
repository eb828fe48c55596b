# One correlation, two uses: the forward pass, and the backward pass to the images.
#
# There are three ways to compute it: with pixels in the lanes of vectors
# (conv/direct_pixels.pxi), with features there (conv/direct_features.pxi), and the latter with Winograd's
# algorithm (conv/winograd.pxi). Which one is the fastest, a count of cycles decides.

cdef enum:
    SMALL_WORK = 1_000_000    # multiply-adds below which a second thread costs more than it saves
    # Products in the longest direct sums from which on Winograd's algorithm errs no more than
    # they do, by root mean square, also for rectified pixels; with 36 it errs 1.4 times as much.
    WINOGRAD_TAPS = 144
    # How a correlation is computed.
    FASTEST = 0
    DIRECT = 1              # the better one of the next two
    PLANES = 2              # pixels in the lanes of vectors
    PIXELS = 3              # features in the lanes
    WINOGRAD = 4            # features in the lanes, fewer multiplications


cdef double planes_cycles(const Correlation *job, Axis axis_y, Axis axis_x, double n_taps,
                          Py_ssize_t lanes) noexcept:
    """About how long an image takes with pixels in the lanes."""
    cdef const Packing *p = &job.packing
    cdef Py_ssize_t rows = axis_y.longest, cols = axis_x.longest
    cdef Py_ssize_t n_phases = len(axis_y.phases) * len(axis_x.phases), n_at
    cdef Py_ssize_t per_group = job.n_features // job.groups
    cdef int block = <int>ceil_div(per_group, ceil_div(per_group, MAX_FEATURES))
    if job.direct and p.pitch == cols and p.stack == 1:
        n_at = ceil_div(rows * cols, lanes)
    elif job.direct:
        n_at = rows * ceil_div(cols, lanes)
    else:
        n_at = ceil_div((p.stack - 1) * p.image_pitch + (rows - 1) * p.pitch + cols, lanes)
    cdef int n = best_vectors(block, n_at)
    cdef double n_tiles = n_phases * ceil_div(n_at, n) / <double>p.stack
    n_tiles *= ceil_div(per_group, block) * job.groups
    # Vectors go straight to the output; by way of a buffer; or value by value, with gaps.
    cdef bint zipped = len(axis_x.phases) == 2
    cdef double storing = 2 if job.direct else 4 if n_phases == 1 or zipped else lanes
    cdef double cycles = n_tiles * (tile_cycles(block, n) * n_taps + storing * block * n + 20)
    if zipped:
        cycles += 25 * job.n_features * job.out_h
    if p.stride_x > 1:
        # Measured with rows of 4 to 28 pixels; without a stride it is a few cycles.
        cycles += (25 if p.stride_x == 2 == p.n_phases_x else 40) * (
            job.n_channels * p.rows * p.n_phases_y * p.n_phases_x)
    if p.in_place:
        # Every block of features reads all channels again, whole planes apart: often from the
        # L2 cache, 3 cycles a line. Measured with 1x1 filters of 32 to 128 channels.
        cycles += n_tiles * n * (job.n_channels // job.groups) * 3 * VECTOR_BYTES / 64
    return cycles


cdef double pixels_cycles(const Correlation *job, double n_pixels, double n_taps,
                          Py_ssize_t lanes) noexcept nogil:
    """About how long an image takes with features in the lanes."""
    cdef Py_ssize_t vectors = ceil_div(job.n_features // job.groups, lanes) * job.groups
    return (
        n_pixels * n_taps * job.groups * feature_vectors_cycles(vectors // job.groups)
        + transposition_cycles(job, n_pixels, vectors, lanes, job.packing.in_place)
    )


cdef double winograd_cycles(const Correlation *job, const Pieces *y, const Pieces *x,
                            Py_ssize_t n_passes_y, Py_ssize_t n_passes_x,
                            Py_ssize_t lanes) noexcept nogil:
    """About how long an image takes with Winograd's algorithm."""
    cdef Py_ssize_t vectors = ceil_div(job.n_features // job.groups, lanes) * job.groups
    cdef Py_ssize_t channels = job.n_channels // job.groups
    cdef double n_tiles = (ceil_div(job.out_h, 2 * n_passes_y)
                           * ceil_div(job.out_w, 2 * n_passes_x))
    cdef double n_sums = n_passes_y * n_passes_x * n_tiles
    cdef bint strided = y.stride > 1 or x.stride > 1
    return (
        n_tiles * channels * y.n_products * x.n_products * job.groups
        * feature_vectors_cycles(vectors // job.groups)
        + n_tiles * ceil_div(job.n_channels, lanes) * y.n_elements * x.n_elements * (
            8 if strided else 4)
        + n_sums * vectors * 60
        + transposition_cycles(job, 4 * n_sums, vectors, lanes, False)
        # The filters are transformed once for all images.
        + 200 * y.n * x.n * channels * vectors / <double>job.n_imgs
    )


cdef double transposition_cycles(const Correlation *job, double n_pixels, Py_ssize_t vectors,
                                 Py_ssize_t lanes, bint in_place) noexcept nogil:
    """About how long planes to pixels, and back, takes: one vector and one pixel after another."""
    cdef Py_ssize_t n_read = 0 if in_place else job.packing.h * job.packing.w
    return 8 * (n_read * ceil_div(job.n_channels, lanes) + n_pixels * vectors)


cdef int choose_algorithm(
    const Correlation *job, int algorithm, Axis axis_y, Axis axis_x, const Pieces *pieces_y,
    const Pieces *pieces_x, Py_ssize_t lanes,
) noexcept:
    """PLANES, PIXELS or WINOGRAD: what takes the fewest cycles, or what was asked for."""
    cdef double n_pixels = job.out_h * job.out_w
    cdef double n_taps = job.n_channels // job.groups * (
        axis_y.n_products * axis_x.n_products) / n_pixels
    cdef double cycles, fewest
    cdef bint has_pieces = pieces_y.n > 0 and pieces_x.n > 0
    if algorithm > DIRECT and (algorithm != WINOGRAD or has_pieces):
        return algorithm
    if job.by_rows:
        return PLANES
    fewest = planes_cycles(job, axis_y, axis_x, n_taps, lanes)
    cdef int best = PLANES
    cycles = pixels_cycles(job, n_pixels, n_taps, lanes)
    if cycles < fewest:
        best, fewest = PIXELS, cycles
    cdef Py_ssize_t longest = job.n_channels // job.groups * (
        min(axis_y.most_taps, job.packing.h) * min(axis_x.most_taps, job.packing.w))
    if algorithm == FASTEST and has_pieces and longest >= WINOGRAD_TAPS:
        cycles = winograd_cycles(job, pieces_y, pieces_x, len(axis_y.phases), len(axis_x.phases),
                                 lanes)
        if cycles < fewest:
            best = WINOGRAD
    return best


cdef void conv_forward(
    const real *imgs, const real *filters, real *convout, const real *bias, bint with_relu,
    tuple imgs_shape, tuple filters_shape, Py_ssize_t groups, object geometry, int border,
    int algorithm, int n_threads, Workspace space,
) except *:
    cdef Correlation job
    cdef Pass run
    cdef Packing *p = &job.packing
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t n_taps, t
    cdef Py_ssize_t *ij
    cdef Py_ssize_t n_features = filters_shape[1]
    cdef Py_ssize_t fil_h = filters_shape[2], fil_w = filters_shape[3]
    cdef real *packed
    job.n_imgs, job.n_channels = imgs_shape[:2]
    job.n_features, job.groups = n_features, groups
    job.out_h, job.out_w = geometry.out_h, geometry.out_w
    job.n_passes, job.passes = 1, &run
    job.fold = NULL
    job.with_relu = with_relu
    cdef Axis axis_y = _forward_axis(
        geometry.out_h, geometry.top, geometry.stride_y, fil_h, geometry.dilation_y)
    cdef Axis axis_x = _forward_axis(
        geometry.out_w, geometry.left, geometry.stride_x, fil_w, geometry.dilation_x)
    plan_packing(p, geometry, imgs_shape[2], imgs_shape[3], fil_h, fil_w, border)
    plan_rows(&job, axis_y, axis_x, fil_h, fil_w, geometry, False, space, lanes)
    plan_layout(&job, job.out_h, job.out_w, True, lanes)
    cdef Pieces pieces_y = cut_axis(fil_h, geometry.stride_y, geometry.dilation_y)
    cdef Pieces pieces_x = cut_axis(fil_w, geometry.stride_x, geometry.dilation_x)
    algorithm = choose_algorithm(&job, algorithm, axis_y, axis_x, &pieces_y, &pieces_x, lanes)
    if algorithm != PLANES:
        correlate_by_pixels(&job, algorithm == WINOGRAD, geometry, False, axis_y, axis_x, pieces_y,
                            pieces_x, imgs, filters, convout, bias, space, n_threads)
        return
    plan_blocks(&job, n_threads)
    if job.strips != NULL:
        correlate_in_strips(&job, imgs, filters, False, convout, bias, space, n_threads)
        return

    n_taps = filters_shape[0] * fil_h * fil_w
    run.rows, run.cols = job.out_h, job.out_w
    run.dst_at, run.dst_row, run.dst_col, run.src_at = 0, job.out_w, 1, 0
    run.n_taps = n_taps
    run.tap_at = <Py_ssize_t *>space.take(n_taps * sizeof(Py_ssize_t))
    tap_offsets(run.tap_at, filters_shape[0], fil_h, fil_w, p)
    plan_vectors(&job, &run, space, lanes)
    ij = <Py_ssize_t *>space.take(fil_h * fil_w * sizeof(Py_ssize_t))
    for t in range(fil_h * fil_w):
        ij[t] = t
    packed = <real *>space.take(n_features * n_taps * sizeof(real))
    run.weights = packed
    pack_weights(&job, packed, filters, fil_h * fil_w, False, ij, fil_h * fil_w)
    if job.by_rows:
        run.columns = plan_columns(packed, n_features, run.tap_at, n_taps, fil_h, fil_w,
                                   p.n_phases_y, job.every, run.rows, space)
        run.in_place = plan_in_place(&job, packed, fil_h, fil_w, space)
    correlate_images(&job, imgs, convout, bias, space, n_threads)


cdef void conv_imgs_gradient(
    const real *grad, const real *filters, real *imgs_grad,
    tuple imgs_shape, tuple filters_shape, Py_ssize_t groups, object geometry, int border,
    int algorithm, int n_threads, Workspace space,
) except *:
    """The forward pass of convout_grad with flipped, transposed filters.

    With a stride the gradient splits into phases, pixels a stride apart: each
    is a stride-1 correlation with those taps that ever reach it.
    """
    cdef Correlation job
    cdef Packing fold
    cdef Packing *p = &job.packing
    cdef Pass *run
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t sy = geometry.stride_y, sx = geometry.stride_x
    cdef Py_ssize_t top = geometry.top, left = geometry.left
    cdef Py_ssize_t fil_h = filters_shape[2], fil_w = filters_shape[3]
    cdef Axis axis_y, axis_x
    cdef Phase phase_y, phase_x
    job.n_imgs, job.groups = imgs_shape[0], groups
    job.n_channels, job.n_features = filters_shape[1], imgs_shape[1]
    job.out_h, job.out_w = imgs_shape[2], imgs_shape[3]
    job.with_relu = False
    job.fold = NULL
    if border != BORDER_ZEROS and any(geometry[2:6]):
        fold.h, fold.w = imgs_shape[2:]
        fold.top, fold.left, fold.border = top, left, border
        job.fold = &fold
        job.out_h += top + geometry.bottom
        job.out_w += left + geometry.right
        top = left = 0

    p.h, p.w = geometry.out_h, geometry.out_w
    p.stride_y = p.stride_x = p.dilation_y = p.dilation_x = p.n_phases_y = p.n_phases_x = 1
    p.border = BORDER_ZEROS
    p.in_place = False
    axis_y = _gradient_axis(job.out_h, top, sy, fil_h, geometry.dilation_y)
    axis_x = _gradient_axis(job.out_w, left, sx, fil_w, geometry.dilation_x)
    p.top, p.rows, p.left, p.cols = axis_y.before, axis_y.padded, axis_x.before, axis_x.padded
    plan_rows(&job, axis_y, axis_x, fil_h, fil_w, geometry, True, space, lanes)
    plan_layout(&job, axis_y.longest, axis_x.longest, sy == 1 and sx == 1, lanes)
    cdef Pieces pieces_y = cut_axis(fil_h, sy, geometry.dilation_y)
    cdef Pieces pieces_x = cut_axis(fil_w, sx, geometry.dilation_x)
    algorithm = choose_algorithm(&job, algorithm, axis_y, axis_x, &pieces_y, &pieces_x, lanes)
    if algorithm != PLANES:
        correlate_by_pixels(&job, algorithm == WINOGRAD, geometry, True, axis_y, axis_x, pieces_y,
                            pieces_x, grad, filters, imgs_grad, <const real *>NULL, space,
                            n_threads)
        return
    plan_blocks(&job, n_threads)

    if job.strips != NULL:
        correlate_in_strips(&job, grad, filters, True, imgs_grad, <const real *>NULL, space,
                            n_threads)
        return
    job.n_passes = 0
    job.passes = <Pass *>space.take(
        len(axis_y.phases) * len(axis_x.phases) * sizeof(Pass))
    for phase_y in axis_y.phases:
        for phase_x in axis_x.phases:
            run = &job.passes[job.n_passes]
            job.n_passes += 1
            run.rows, run.cols = phase_y.count, phase_x.count
            run.dst_at = phase_y.pixel * job.out_w + phase_x.pixel
            run.dst_row, run.dst_col = sy * job.out_w, sx
            run.src_at = phase_y.first * p.pitch + phase_x.first
            plan_vectors(&job, run, space, lanes)
            plan_gradient_taps(&job, run, filters, fil_h * fil_w, fil_w, phase_y, phase_x, space)
    correlate_images(&job, grad, imgs_grad, <const real *>NULL, space, n_threads)
