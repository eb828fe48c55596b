# One correlation, two uses: the forward pass, and the backward pass to the images.
#
# A plan turns strides, dilation, padding and groups into tables: where each tap
# is read, where each vector of pixels is read and stored. The loops that the
# threads share know nothing else.

cdef enum:
    SMALL_WORK = 300_000    # multiply-adds below which a second thread costs more than it saves
    # Products in a direct sum from which on Winograd's algorithm errs no more than it does, by
    # root mean square, also for rectified pixels; with 36 it errs 1.4 times as much.
    WINOGRAD_TAPS = 144


cdef struct Pass:
    # One stride-1 correlation. The forward pass is one; the gradient of strided
    # images is one for each phase of the stride.
    Py_ssize_t rows, cols               # its output pixels
    Py_ssize_t dst_at, dst_row, dst_col # where they go in the output plane
    Py_ssize_t src_at                   # where tap 0 of its first pixel may be read
    Py_ssize_t n_taps
    Py_ssize_t *tap_at
    void *weights                       # (n_features, n_taps), in blocks of features
    Py_ssize_t n_at                     # vectors of pixels
    Py_ssize_t *vector_src
    Py_ssize_t *vector_dst
    int tile[9]                         # vectors in a tile, by the number of features
    Columns *columns                    # not NULL: rows of single features instead

cdef struct Correlation:
    Packing packing
    Py_ssize_t n_imgs, n_channels, n_features, groups
    Py_ssize_t out_h, out_w             # an output plane (padded, if it is to be folded)
    Py_ssize_t block                    # features in a block; the last of a group may be smaller
    Py_ssize_t blocks_per_group, n_blocks
    Py_ssize_t n_passes
    Pass *passes
    bint by_rows                        # of single features: see _rows.pxi
    Py_ssize_t every                    # rows between the taps of a phase
    bint direct                         # tiles store to the output; else to a scratch buffer
    Packing *fold                       # not NULL: add up the padding of each output plane
    Py_ssize_t scratch_pitch            # from one feature to the next in the scratch buffer
    Py_ssize_t scratch_row              # from one row to the next
    Py_ssize_t n_stacks, parts          # units of work: stacks of images x parts of features
    bint with_relu


cdef inline Py_ssize_t block_start(const Correlation *job, Py_ssize_t b) noexcept nogil:
    """The first feature of a block; blocks are spread evenly over a group."""
    cdef Py_ssize_t per_group = job.n_features // job.groups
    return b // job.blocks_per_group * per_group + min(
        b % job.blocks_per_group * job.block, per_group
    )


cdef void plan_vectors(Correlation *job, Pass *run, Workspace space, Py_ssize_t lanes) except *:
    """The table of pixel vectors: where each is read and where it is stored."""
    cdef const Packing *p = &job.packing
    cdef Py_ssize_t rows = run.rows, cols = run.cols
    cdef Py_ssize_t extent, per_row, i, v, x, y
    if run.dst_col == 1 and p.pitch == cols and run.dst_row == cols and p.stack == 1:
        rows, cols = 1, rows * cols     # without gaps a plane is one long row
    extent = (p.stack - 1) * p.image_pitch + (run.rows - 1) * p.pitch + run.cols
    per_row = ceil_div(cols, lanes)
    run.columns = NULL
    if job.by_rows:
        run.n_at = ceil_div(run.rows * job.scratch_row, lanes) + 1
        return
    if job.direct:
        run.n_at = rows * per_row
    else:
        run.n_at = ceil_div(extent, lanes)
    # Tiles read up to MAX_VECTORS entries at once.
    run.vector_src = <Py_ssize_t *>space.take((run.n_at + MAX_VECTORS) * sizeof(Py_ssize_t))
    run.vector_dst = <Py_ssize_t *>space.take((run.n_at + MAX_VECTORS) * sizeof(Py_ssize_t))
    v = 0
    for y in range(rows if job.direct else 1):
        for i in range(per_row if job.direct else run.n_at):
            if job.direct:
                # The last vector of a row is moved back to end with it.
                x = min(i * lanes, cols - lanes)
                run.vector_src[v] = run.src_at + y * p.pitch + x
                run.vector_dst[v] = run.dst_at + y * run.dst_row + x
            else:
                x = i * lanes
                if extent >= lanes:
                    x = min(x, extent - lanes)
                run.vector_src[v] = run.src_at + x
                run.vector_dst[v] = x
            v += 1
    for v in range(run.n_at, run.n_at + MAX_VECTORS):
        run.vector_src[v] = run.vector_src[run.n_at - 1]
        run.vector_dst[v] = run.vector_dst[run.n_at - 1]
    for v in range(1, MAX_FEATURES + 1):
        run.tile[v] = best_vectors(<int>v, run.n_at)


cdef bint rows_fill_vectors(const Packing *p, Py_ssize_t rows, Py_ssize_t cols,
                            Py_ssize_t lanes) noexcept nogil:
    """Whether vectors within rows waste no more lanes than a run across all rows."""
    if p.pitch == cols:
        return rows * cols >= lanes
    if cols < lanes:
        return False
    # The run needs another pass to copy its rows to the output.
    return rows * ceil_div(cols, lanes) <= 1.1 * ceil_div((rows - 1) * p.pitch + cols, lanes)


cdef Py_ssize_t best_stack(Packing *p, Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t lanes,
                           Py_ssize_t n_imgs, Py_ssize_t n_channels, Py_ssize_t n_features,
                           Py_ssize_t itemsize) noexcept nogil:
    """How many images side by side, all channels within a cache of 256 KB, fill the tiles best."""
    cdef Py_ssize_t stack, power, n_at, best = 1
    cdef int n, block = <int>min(n_features, <Py_ssize_t>MAX_FEATURES)
    cdef double cycles, least = 0
    for power in range(4):
        stack = 1 << power  # divides the usual batches
        lay_out(p, rows, cols, stack, lanes)
        if stack > 1 and (stack > n_imgs or n_channels * p.channel_pitch * itemsize > 262144):
            break
        n_at = ceil_div((stack - 1) * p.image_pitch + (rows - 1) * p.pitch + cols, lanes)
        n = best_vectors(block, n_at)
        cycles = tile_cycles(block, n) * ceil_div(n_at, n) / stack
        if stack == 1 or cycles < 0.97 * least:
            best, least = stack, cycles
    return best


cdef void plan_blocks(Correlation *job, int n_threads) noexcept nogil:
    """Blocks of features, all of about one size, and units of work for the threads."""
    cdef Py_ssize_t per_group = job.n_features // job.groups
    job.blocks_per_group = per_group if job.by_rows else ceil_div(per_group, MAX_FEATURES)
    job.block = ceil_div(per_group, job.blocks_per_group)
    job.blocks_per_group = ceil_div(per_group, job.block)
    job.n_blocks = job.blocks_per_group * job.groups
    job.n_stacks = ceil_div(job.n_imgs, job.packing.stack)
    job.parts = 1
    if n_threads > 1 and job.n_stacks < 2 * n_threads:
        job.parts = min(job.n_blocks, ceil_div(2 * n_threads, job.n_stacks))


cdef void correlate_unit(
    const Correlation *job, Py_ssize_t unit, const real *imgs, real *out, const real *bias,
    real *buffer, real *scratch, real *padded,
) noexcept nogil:
    """One stack of images and one part of the features."""
    cdef const Packing *p = &job.packing
    cdef Py_ssize_t n0 = unit // job.parts * p.stack
    cdef Py_ssize_t n_stacked = min(p.stack, job.n_imgs - n0)
    cdef Py_ssize_t first = unit % job.parts * job.n_blocks // job.parts
    cdef Py_ssize_t last = (unit % job.parts + 1) * job.n_blocks // job.parts
    cdef Py_ssize_t per_group = job.n_channels // job.groups
    cdef Py_ssize_t k_per_group = job.n_features // job.groups
    cdef Py_ssize_t out_size = job.out_h * job.out_w
    cdef Py_ssize_t b, c, g, i, k, k_end, q, s
    cdef const real *group = buffer
    cdef real *dst
    cdef const Pass *run
    imgs += n0 * job.n_channels * p.h * p.w
    g, q = first // job.blocks_per_group, first % job.blocks_per_group
    for b in range(first, last):
        if p.in_place:
            group = imgs + g * per_group * p.channel_pitch
        elif b == first or q == 0:
            pack_stack(buffer, imgs, n_stacked, job.n_channels, g * per_group, per_group, p)
        # block_start of this block and the next, without divisions
        k = g * k_per_group + min(q * job.block, k_per_group)
        k_end = g * k_per_group + min((q + 1) * job.block, k_per_group)
        q += 1
        if q == job.blocks_per_group:
            g, q = g + 1, 0
        dst = padded if job.fold != NULL else out + (n0 * job.n_features + k) * out_size
        for i in range(job.n_passes):
            run = job.passes + i
            if run.columns != NULL:
                correlate_rows(
                    dst + run.dst_at if job.direct else scratch,
                    run.dst_row if job.direct else job.scratch_row,
                    group + run.src_at, p.pitch, run.rows, run.cols, run.columns,
                    <const real *>run.columns.weights + k * run.n_taps,
                    bias[k] if bias != NULL else <real>0, job.with_relu,
                )
            else:
                correlate(
                    dst if job.direct else scratch,
                    out_size if job.direct else job.scratch_pitch,
                    run.vector_dst,
                    group, run.vector_src, run.n_at,
                    run.tap_at, <const real *>run.weights + k * run.n_taps, run.n_taps,
                    bias + k if bias != NULL else NULL, job.with_relu,
                    run.tile[k_end - k], <int>(k_end - k),
                )
            if not job.direct:
                for s in range(n_stacked):
                    unpack_planes(
                        dst + s * job.n_features * out_size, out_size,
                        scratch + s * p.image_pitch, job.scratch_pitch,
                        k_end - k, run, job.scratch_row,
                    )
        if job.fold != NULL:
            for c in range(k, k_end):
                fold_plane(
                    out + (n0 * job.n_features + c) * job.fold.h * job.fold.w,
                    padded + (c - k) * out_size, job.out_h, job.out_w, job.fold,
                )


cdef void unpack_planes(real *dst, Py_ssize_t dst_pitch, const real *scratch,
                        Py_ssize_t scratch_pitch, Py_ssize_t n_planes, const Pass *run,
                        Py_ssize_t row_pitch) noexcept nogil:
    """The rows of a scratch buffer, without the gaps between them, to their place."""
    cdef Py_ssize_t f, y, x
    cdef real *row
    cdef const real *source
    for f in range(n_planes):
        for y in range(run.rows):
            row = dst + f * dst_pitch + run.dst_at + y * run.dst_row
            source = scratch + f * scratch_pitch + y * row_pitch
            if run.dst_col == 1:
                copy(row, source, run.cols)
            else:
                for x in range(run.cols):
                    row[x * run.dst_col] = source[x]


cdef struct CorrelationWork:            # what the threads share
    const Correlation *job
    const void *imgs
    void *out
    const void *bias
    ThreadMemory memory                 # packed images, scratch, padded output planes
    Py_ssize_t buffer_size, scratch_size


cdef void correlate_images(Correlation *job, const real *imgs, real *out, const real *bias,
                           Workspace space, int n_threads) except *:
    """Run a planned correlation on `n_threads` threads."""
    cdef CorrelationWork work
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t padded_size = 0, i
    job.scratch_pitch = 0
    work.job, work.imgs, work.out, work.bias = job, imgs, out, bias
    work.buffer_size = 0
    if not job.packing.in_place:
        work.buffer_size = ceil_div(
            job.n_channels // job.groups * job.packing.channel_pitch + 2 * lanes, lanes) * lanes
    if not job.direct:
        for i in range(job.n_passes):
            job.scratch_pitch = max(job.scratch_pitch, job.passes[i].n_at * lanes)
    work.scratch_size = job.scratch_pitch * job.block
    if job.fold != NULL:
        padded_size = job.block * job.out_h * job.out_w
    work.memory = take_for_threads(
        space, n_threads, (work.buffer_size + work.scratch_size + padded_size) * sizeof(real),
        work.buffer_size * sizeof(real))
    with nogil:
        parallel_for(correlate_float if real is float else correlate_double, &work,
                     job.n_stacks * job.parts, n_threads)


cdef void correlate_float(void *context, Py_ssize_t unit, int thread) noexcept nogil:
    cdef CorrelationWork *work = <CorrelationWork *>context
    cdef float *buffer = <float *>piece_of(&work.memory, thread)
    correlate_unit(
        work.job, unit, <const float *>work.imgs, <float *>work.out, <const float *>work.bias,
        buffer, buffer + work.buffer_size, buffer + work.buffer_size + work.scratch_size,
    )


cdef void correlate_double(void *context, Py_ssize_t unit, int thread) noexcept nogil:
    cdef CorrelationWork *work = <CorrelationWork *>context
    cdef double *buffer = <double *>piece_of(&work.memory, thread)
    correlate_unit(
        work.job, unit, <const double *>work.imgs, <double *>work.out, <const double *>work.bias,
        buffer, buffer + work.buffer_size, buffer + work.buffer_size + work.scratch_size,
    )


cdef void tap_offsets(Py_ssize_t *tap_at, Py_ssize_t n_channels, Py_ssize_t fil_h,
                      Py_ssize_t fil_w, const Packing *p) noexcept nogil:
    """Where the taps (c, i, j) of a forward pass are read, from an output pixel's first."""
    cdef Py_ssize_t c, i, j, t = 0
    for c in range(n_channels):
        for i in range(fil_h):
            for j in range(fil_w):
                # Phases come back after n_phases taps, one stride or more further on.
                tap_at[t] = (
                    c * p.channel_pitch
                    + (i % p.n_phases_y * p.n_phases_x + j % p.n_phases_x) * p.phase_pitch
                    + i * p.dilation_y // p.stride_y * p.pitch
                    + j * p.dilation_x // p.stride_x
                )
                t += 1


cdef void plan_packing(Packing *p, object geometry, Py_ssize_t h, Py_ssize_t w,
                       Py_ssize_t fil_h, Py_ssize_t fil_w, int border) except *:
    """How a forward convolution wants its images packed (without pitches)."""
    p.h, p.w = h, w
    p.top, p.left = geometry.top, geometry.left
    p.stride_y, p.stride_x = geometry.stride_y, geometry.stride_x
    p.dilation_y, p.dilation_x = geometry.dilation_y, geometry.dilation_x
    p.border = border
    p.n_phases_y = min(fil_h, p.stride_y // <Py_ssize_t>gcd(p.stride_y, p.dilation_y))
    p.n_phases_x = min(fil_w, p.stride_x // <Py_ssize_t>gcd(p.stride_x, p.dilation_x))
    p.rows = geometry.out_h + (fil_h - 1) * p.dilation_y // p.stride_y
    p.cols = geometry.out_w + (fil_w - 1) * p.dilation_x // p.stride_x
    p.in_place = False


cdef bint needs_no_packing(const Packing *p, Py_ssize_t out_h, Py_ssize_t out_w,
                           Py_ssize_t lanes) noexcept nogil:
    """Without padding and strides the images can be read where they are.

    A run of pixels is moved back at its end, so that no vector reads past the
    image; it must hold at least one vector for that.
    """
    return (
        p.stride_y == 1 and p.stride_x == 1 and p.rows == p.h and p.cols == p.w
        and p.top == 0 and p.left == 0 and (out_h - 1) * p.w + out_w >= lanes
    )


cdef void read_in_place(Packing *p) noexcept nogil:
    p.in_place = True
    p.stack = 1
    p.pitch = p.w
    p.image_pitch = p.phase_pitch = p.channel_pitch = p.h * p.w


cdef void plan_rows(Correlation *job, Py_ssize_t rows, Py_ssize_t fil_h,
                    object geometry) except *:
    """Whether to keep rows of single features in the registers; the shortest pass has so many."""
    cdef Py_ssize_t stride = geometry.stride_y, dilation = geometry.dilation_y
    job.every = dilation // <Py_ssize_t>gcd(stride, dilation)
    job.by_rows = (
        job.n_features == job.groups and fil_h > stride and rows // job.every >= MIN_ROWS
    )


cdef void plan_layout(Correlation *job, Py_ssize_t rows, Py_ssize_t cols, bint dense,
                      Py_ssize_t lanes) noexcept nogil:
    """Packed or in place, direct or by way of a scratch buffer, and how many images at once.

    `dense`: the output has its pixels side by side, without a stride between them.
    """
    cdef Packing *p = &job.packing
    if dense and needs_no_packing(p, rows, cols, lanes):
        read_in_place(p)
    else:
        lay_out(p, rows, cols, 1, lanes)
    job.scratch_row = p.pitch
    if job.by_rows:
        job.direct = dense and cols >= lanes
        if cols < lanes:
            lay_out(p, rows, cols, 1, lanes)    # vectors read past the ends of rows, ...
            p.in_place = False
            job.scratch_row = max(p.pitch, lanes)   # ... and write there
        return
    job.direct = dense and rows_fill_vectors(p, rows, cols, lanes)
    if not (job.direct or p.in_place or job.fold != NULL):
        lay_out(
            p, rows, cols,
            best_stack(p, rows, cols, lanes, job.n_imgs, job.n_channels,
                       job.n_features // job.groups, VECTOR_BYTES // lanes),
            lanes,
        )


cdef struct FilterPitches:
    # How far apart the features, the channels of a group and the groups of a
    # correlation lie in the filters; backward, features and channels change places.
    Py_ssize_t feature, channel, group


cdef FilterPitches filter_pitches(const Correlation *job, Py_ssize_t fil_size,
                                  bint backward) noexcept nogil:
    cdef FilterPitches pitch
    if backward:
        pitch.feature, pitch.channel = job.n_channels * fil_size, fil_size
        pitch.group = job.n_channels // job.groups * fil_size
    else:
        pitch.feature, pitch.channel = fil_size, job.n_features * fil_size
        pitch.group = job.n_features // job.groups * fil_size
    return pitch


cdef void pack_weights(
    const Correlation *job, real *packed, const real *filters, Py_ssize_t fil_size, bint backward,
    const Py_ssize_t *ij, Py_ssize_t n_ij,
) noexcept nogil:
    """The weights of all features, in the order in which the tiles read them.

    `ij` says where in a filter the taps lie that are wanted.
    """
    cdef FilterPitches pitch = filter_pitches(job, fil_size, backward)
    cdef Py_ssize_t per_group = job.n_features // job.groups
    cdef Py_ssize_t channels = job.n_channels // job.groups
    cdef Py_ssize_t b, f, first, width, group, c, m
    cdef real *column
    cdef const real *source
    for b in range(job.n_blocks):
        first, width = block_start(job, b), block_start(job, b + 1) - block_start(job, b)
        group = b // job.blocks_per_group
        for f in range(first, first + width):
            column = packed + first * channels * n_ij + f - first
            source = filters + group * pitch.group + (f - group * per_group) * pitch.feature
            for c in range(channels):
                for m in range(n_ij):
                    column[0] = source[c * pitch.channel + ij[m]]
                    column += width


cdef enum:
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
    cdef double storing = 2 if job.direct else 4 if n_phases == 1 else lanes
    cdef double cycles = n_tiles * (tile_cycles(block, n) * n_taps + storing * block * n + 20)
    if p.stride_x > 1:
        # Measured with rows of 9 to 13 pixels; without a stride it is a few cycles.
        cycles += 40 * job.n_channels * p.rows * p.n_phases_y * p.n_phases_x
    return cycles


cdef double pixels_cycles(const Correlation *job, double n_pixels, double n_taps,
                          Py_ssize_t lanes) noexcept nogil:
    """About how long an image takes with features in the lanes."""
    cdef Py_ssize_t vectors = ceil_div(job.n_features // job.groups, lanes) * job.groups
    return (
        n_pixels * n_taps * job.groups * feature_vectors_cycles(vectors // job.groups)
        + transposition_cycles(job, n_pixels, vectors, lanes)
    )


cdef double winograd_cycles(const Correlation *job, Py_ssize_t fil_h, Py_ssize_t fil_w,
                            Py_ssize_t lanes) noexcept nogil:
    """About how long an image takes with Winograd's algorithm."""
    cdef Py_ssize_t vectors = ceil_div(job.n_features // job.groups, lanes) * job.groups
    cdef Py_ssize_t channels = job.n_channels // job.groups
    cdef double n_tiles = ceil_div(job.out_h, 2) * ceil_div(job.out_w, 2)
    cdef double n_taps = channels * (fil_h // 2 * 3 + fil_h % 2) * (fil_w // 2 * 3 + fil_w % 2)
    return (
        n_tiles * n_taps * job.groups * feature_vectors_cycles(vectors // job.groups)
        + n_tiles * (ceil_div(job.n_channels, lanes) + vectors) * 60
        + transposition_cycles(job, 4 * n_tiles, vectors, lanes)
        # The filters are transformed once for all images.
        + 200 * (fil_h // 2) * (fil_w // 2) * channels * vectors / <double>job.n_imgs
    )


cdef double transposition_cycles(const Correlation *job, double n_pixels, Py_ssize_t vectors,
                                 Py_ssize_t lanes) noexcept nogil:
    """About how long planes to pixels, and back, takes: one vector and one pixel after another."""
    return 8 * (
        job.packing.h * job.packing.w * ceil_div(job.n_channels, lanes) + n_pixels * vectors)


cdef int choose_algorithm(
    const Correlation *job, int algorithm, Axis axis_y, Axis axis_x, Py_ssize_t fil_h,
    Py_ssize_t fil_w, bint strided, Py_ssize_t lanes,
) noexcept:
    """PLANES, PIXELS or WINOGRAD: what takes the fewest cycles, or what was asked for."""
    cdef double n_pixels = job.out_h * job.out_w
    cdef double n_taps = job.n_channels // job.groups * (
        axis_y.n_products * axis_x.n_products) / n_pixels
    cdef double cycles, fewest
    if algorithm > DIRECT:
        return algorithm
    if job.by_rows:
        return PLANES
    fewest = planes_cycles(job, axis_y, axis_x, n_taps, lanes)
    cdef int best = PLANES
    cycles = pixels_cycles(job, n_pixels, n_taps, lanes)
    if cycles < fewest:
        best, fewest = PIXELS, cycles
    if (algorithm == FASTEST and not strided and fil_h > 1 and fil_w > 1
            and n_taps >= WINOGRAD_TAPS):
        cycles = winograd_cycles(job, fil_h, fil_w, lanes)
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
    plan_rows(&job, job.out_h, fil_h, geometry)
    plan_layout(&job, job.out_h, job.out_w, True, lanes)
    algorithm = choose_algorithm(&job, algorithm, axis_y, axis_x, fil_h, fil_w,
                                 p.stride_y > 1 or p.stride_x > 1, lanes)
    if algorithm != PLANES:
        correlate_by_pixels(&job, algorithm == WINOGRAD, geometry, False, axis_y, axis_x, fil_h,
                            fil_w, imgs, filters, convout, bias, space, n_threads)
        return
    plan_blocks(&job, n_threads)

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
    plan_rows(&job, axis_y.shortest, fil_h, geometry)
    plan_layout(&job, axis_y.longest, axis_x.longest, sy == 1 and sx == 1, lanes)
    algorithm = choose_algorithm(&job, algorithm, axis_y, axis_x, fil_h, fil_w,
                                 sy > 1 or sx > 1, lanes)
    if algorithm != PLANES:
        correlate_by_pixels(&job, algorithm == WINOGRAD, geometry, True, axis_y, axis_x, fil_h,
                            fil_w, grad, filters, imgs_grad, <const real *>NULL, space, n_threads)
        return
    plan_blocks(&job, n_threads)

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


cdef void plan_gradient_taps(
    const Correlation *job, Pass *run, const real *filters, Py_ssize_t fil_size, Py_ssize_t fil_w,
    Phase phase_y, Phase phase_x, Workspace space,
) except *:
    """Offsets and weights of one phase: its taps (k, i, j)."""
    cdef Py_ssize_t n_ij = phase_y.n_taps * phase_x.n_taps, m = 0, i, j
    cdef Py_ssize_t *ij = <Py_ssize_t *>space.take(n_ij * sizeof(Py_ssize_t))
    cdef real *packed
    run.n_taps = job.n_channels // job.groups * n_ij
    run.tap_at = <Py_ssize_t *>space.take(run.n_taps * sizeof(Py_ssize_t))
    for i in range(phase_y.n_taps):
        for j in range(phase_x.n_taps):
            ij[m] = phase_y.tap[i] * fil_w + phase_x.tap[j]
            run.tap_at[m] = phase_y.shift[i] * job.packing.pitch + phase_x.shift[j]
            m += 1
    for m in range(n_ij, run.n_taps):
        run.tap_at[m] = run.tap_at[m - n_ij] + job.packing.channel_pitch
    packed = <real *>space.take(run.n_taps * job.n_features * sizeof(real))
    run.weights = packed
    pack_weights(job, packed, filters, fil_size, True, ij, n_ij)
    if job.by_rows:
        run.columns = plan_columns(packed, job.n_features, run.tap_at, run.n_taps, phase_y.n_taps,
                                   phase_x.n_taps, -1, job.every, run.rows, space)


cdef class Phase:
    """Outputs of one axis, a step apart, that are the same correlation."""

    cdef Py_ssize_t pixel       # the first of them in the output
    cdef Py_ssize_t first       # the padded input pixel that a tap with shift 0 reads for it
    cdef Py_ssize_t count
    cdef Py_ssize_t n_taps
    cdef Py_ssize_t *tap        # (n_taps,) which taps of the filter
    cdef Py_ssize_t *shift      # (n_taps,) how far from `first` each one reads

    def __cinit__(self, pixel, first, count, taps):
        cdef Py_ssize_t t = 0
        self.pixel, self.first, self.count, self.n_taps = pixel, first, count, len(taps)
        self.tap = <Py_ssize_t *>PyMem_Malloc((2 * self.n_taps + 1) * sizeof(Py_ssize_t))
        if self.tap == NULL:
            raise MemoryError
        self.shift = self.tap + self.n_taps
        for self.tap[t], self.shift[t] in taps:
            t += 1

    def __dealloc__(self):
        PyMem_Free(self.tap)


cdef class Axis:
    """One axis of a correlation: its phases, and what it reads of its padded input."""

    cdef list phases
    cdef Py_ssize_t before, padded      # padding before the input; its size with padding
    cdef Py_ssize_t longest, shortest   # phase
    cdef Py_ssize_t n_products          # of an output line with a line of taps
    cdef Py_ssize_t first, last         # padded pixels that output 0 of any phase reads

    def __init__(self, phases, before, padded):
        """phases: (pixel, first, count, taps) of each."""
        reads = [first + shift for _, first, _, taps in phases for _, shift in taps]
        counts = [count for _, _, count, _ in phases]
        self.phases = [Phase(*phase) for phase in phases]
        self.before, self.padded = before, padded
        self.longest, self.shortest = max(counts), min(counts)
        self.n_products = sum([count * len(taps) for _, _, count, taps in phases])
        self.first, self.last = min(reads, default=0), max(reads, default=0)


@lru_cache(maxsize=1024)
def _forward_axis(size, before, stride, n_taps, dilation):
    taps = [(i, i * dilation) for i in range(n_taps)]
    return Axis([(0, 0, size, taps)], before, (size - 1) * stride + (n_taps - 1) * dilation + 1)


@lru_cache(maxsize=1024)
def _gradient_axis(size, before, stride, n_taps, dilation):
    """The axis of an image of `size` pixels with `before` pixels of padding.

    A phase is what reaches pixels a stride apart in the backward pass; padding is
    that of the output gradient.
    """
    phases = []
    for pixel in range(min(stride, size)):
        first, r = divmod(pixel + before, stride)
        count = (size - pixel + stride - 1) // stride
        taps = [(i, -(i * dilation // stride)) for i in range(n_taps) if i * dilation % stride == r]
        phases.append((pixel, first, count, taps))
    reads = [first + shift for _, first, _, taps in phases for _, shift in taps]
    ends = [first + count + shift for _, first, count, taps in phases for _, shift in taps]
    before = max([0] + [-read for read in reads])
    padded = max([1] + [end + before for end in ends])
    phases = [(pixel, first + before, count, taps) for pixel, first, count, taps in phases]
    return Axis(phases, before, padded)
