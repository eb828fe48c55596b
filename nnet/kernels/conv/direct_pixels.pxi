# Correlation with pixels in the lanes of vectors: where there are few features.
#
# A plan turns strides, dilation, padding and groups into tables: where each tap
# is read, where each vector of pixels is read and stored. The loops that the
# threads share know nothing else.

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
    Columns *in_place                   # not NULL: the same for planes that are not packed

cdef struct Correlation:
    Packing packing
    Py_ssize_t n_imgs, n_channels, n_features, groups
    Py_ssize_t out_h, out_w             # an output plane (padded, if it is to be folded)
    Py_ssize_t block                    # features in a block; the last of a group may be smaller
    Py_ssize_t blocks_per_group, n_blocks
    Py_ssize_t n_passes
    Pass *passes
    bint by_rows                        # of single features: see conv/rows.pxi
    Strips *strips                      # not NULL: and of single channels: see conv/strips.pxi
    Py_ssize_t every                    # rows between the taps of a phase
    Py_ssize_t band                     # output rows that are packed at once; 0: all of a plane
    bint direct                         # tiles store to the output; else to a scratch buffer
    Packing *fold                       # not NULL: add up the padding of each output plane
    Py_ssize_t scratch_pitch            # from one feature to the next in the scratch buffer
    Py_ssize_t scratch_row              # from one row to the next
    Py_ssize_t odd_at                   # with a stride of 2: from even columns there to odd ones
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
    run.columns = run.in_place = NULL
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
    cdef real *to
    cdef const Pass *run
    imgs += n0 * job.n_channels * p.h * p.w
    if job.strips != NULL:
        strips_of_image(job, n0, first, last, imgs, out, bias, padded)
        return
    g, q = first // job.blocks_per_group, first % job.blocks_per_group
    for b in range(first, last):
        if p.in_place or job.band:
            group = imgs + g * per_group * p.h * p.w
        elif b == first or q == 0:
            pack_stack(buffer, imgs, n_stacked, job.n_channels, g * per_group, per_group, p)
        # block_start of this block and the next, without divisions
        k = g * k_per_group + min(q * job.block, k_per_group)
        k_end = g * k_per_group + min((q + 1) * job.block, k_per_group)
        q += 1
        if q == job.blocks_per_group:
            g, q = g + 1, 0
        dst = padded if job.fold != NULL else out + (n0 * job.n_features + k) * out_size
        if job.band:
            correlate_bands(job, dst, group, buffer, k, bias)
        for i in range(0 if job.band else job.n_passes):
            run = job.passes + i
            to = scratch + (i & 1) * job.odd_at
            if run.columns != NULL:
                correlate_rows(
                    dst + run.dst_at if job.direct else to,
                    run.dst_row if job.direct else job.scratch_row,
                    group + run.src_at, p.pitch, run.rows, run.cols, run.columns,
                    <const real *>run.columns.weights + k * run.n_taps,
                    bias[k] if bias != NULL else <real>0, job.with_relu,
                )
            else:
                correlate(
                    dst if job.direct else to,
                    out_size if job.direct else job.scratch_pitch,
                    run.vector_dst,
                    group, run.vector_src, run.n_at,
                    run.tap_at, <const real *>run.weights + k * run.n_taps, run.n_taps,
                    bias + k if bias != NULL else NULL, job.with_relu,
                    run.tile[k_end - k], <int>(k_end - k),
                )
            if not job.direct and (i & 1 or job.odd_at == 0):
                for s in range(n_stacked):
                    unpack_planes(job, dst + s * job.n_features * out_size,
                                  scratch + s * p.image_pitch, k_end - k, run)
        if job.fold != NULL:
            for c in range(k, k_end):
                fold_plane(
                    out + (n0 * job.n_features + c) * job.fold.h * job.fold.w,
                    padded + (c - k) * out_size, job.out_h, job.out_w, job.fold,
                )


cdef void strips_of_image(const Correlation *job, Py_ssize_t n, Py_ssize_t first, Py_ssize_t last,
                          const real *imgs, real *out, const real *bias,
                          real *padded) noexcept nogil:
    """The same for planes in strips: features [first, last) of image n, whose pixels are given."""
    cdef Py_ssize_t size = job.out_h * job.out_w, k
    cdef real *dst
    if job.fold != NULL:
        size = job.fold.h * job.fold.w
    out += n * job.n_features * size
    for k in range(first, last):
        dst = padded if job.fold != NULL else out + k * size
        correlate_strips(dst, imgs + k * job.packing.h * job.packing.w, job.strips, k,
                         bias[k] if bias != NULL else <real>0, job.with_relu)
        if job.fold != NULL:
            fold_plane(out + k * size, padded, job.out_h, job.out_w, job.fold)


cdef void unpack_planes(const Correlation *job, real *dst, const real *scratch,
                        Py_ssize_t n_planes, const Pass *run) noexcept nogil:
    """The rows of a scratch buffer, without the gaps between them, to their place.

    With job.odd_at, `run` has the odd columns, the pass before it the even ones.
    """
    cdef Py_ssize_t f, y, x, n = run.cols, step = run.dst_col, odd_at = job.odd_at
    cdef const Pass *even = run - 1 if odd_at else run
    cdef real *row
    cdef const real *source
    for f in range(n_planes):
        row = dst + f * job.out_h * job.out_w + even.dst_at
        source = scratch + f * job.scratch_pitch
        for y in range(run.rows):
            if step == 1:
                copy(row, source, n)
            elif odd_at:
                zip_rows(row, source, source + odd_at, even.cols, n)
            else:
                for x in range(n):
                    row[x * step] = source[x]
            row += run.dst_row
            source += job.scratch_row


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
    job.band = band_of(job, lanes)
    if job.band:
        work.buffer_size = ceil_div(
            (job.band + job.packing.rows - job.passes.rows + 1) * job.packing.pitch + 2 * lanes,
            lanes) * lanes
    elif not job.packing.in_place:
        work.buffer_size = ceil_div(
            job.n_channels // job.groups * job.packing.channel_pitch + 2 * lanes, lanes) * lanes
    if not job.direct:
        for i in range(job.n_passes):
            job.scratch_pitch = max(job.scratch_pitch, job.passes[i].n_at * lanes)
    work.scratch_size = job.scratch_pitch * job.block
    job.odd_at = 0
    if job.n_passes > 1 and job.passes.dst_col == 2 and job.out_w > 1:
        job.odd_at = work.scratch_size
        work.scratch_size *= 2
    if job.fold != NULL:
        padded_size = job.block * job.out_h * job.out_w
    work.memory = take_for_threads(
        space, n_threads, (work.buffer_size + work.scratch_size + padded_size) * sizeof(real),
        work.buffer_size * sizeof(real))
    with nogil:
        parallel_for(correlate_float if real is float else correlate_double, &work,
                     job.n_stacks * job.parts, n_threads)


cdef void correlate_in_strips(Correlation *job, const real *imgs, const real *filters,
                              bint backward, real *out, const real *bias, Workspace space,
                              int n_threads) except *:
    job.n_passes = 0
    pack_strips(job.strips, filters, job.n_features, backward, space)
    correlate_images(job, imgs, out, bias, space, n_threads)


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


cdef void plan_rows(Correlation *job, Axis axis_y, Axis axis_x, Py_ssize_t fil_h,
                    Py_ssize_t fil_w, object geometry, bint backward, Workspace space,
                    Py_ssize_t lanes) except *:
    """Whether to keep rows of single features in the registers, and not to copy them at all."""
    cdef const Packing *p = &job.packing
    cdef Py_ssize_t stride = geometry.stride_y, dilation = geometry.dilation_y
    cdef Py_ssize_t rows = axis_y.shortest, step = geometry.dilation_x
    cdef Py_ssize_t start = (axis_x.last if backward else axis_x.first) - p.left
    job.every = dilation // <Py_ssize_t>gcd(stride, dilation)
    job.by_rows = (
        job.n_features == job.groups and fil_h > stride and rows // job.every >= MIN_ROWS
    )
    job.strips = <Strips *>space.take(sizeof(Strips))
    if not (
        job.by_rows and job.n_channels == job.groups and p.border == BORDER_ZEROS
        and dilation == 1 and stride == 1 and geometry.stride_x == 1
        and fil_w <= 2 * fil_h      # 3x9 taps: more loads than the copies cost
        and plan_strips(job.strips, p.h, p.w, rows, axis_x.longest, p.top - axis_y.first, start,
                        -step if backward else step, fil_h, fil_w, space, lanes)
    ):
        job.strips = NULL


cdef void plan_layout(Correlation *job, Py_ssize_t rows, Py_ssize_t cols, bint dense,
                      Py_ssize_t lanes) noexcept nogil:
    """Packed or in place, direct or by way of a scratch buffer, and how many images at once.

    `dense`: the output has its pixels side by side, without a stride between them.
    """
    cdef Packing *p = &job.packing
    if job.strips != NULL or dense and needs_no_packing(p, rows, cols, lanes):
        read_in_place(p)
    else:
        lay_out(p, rows, cols, 1, lanes)
    job.scratch_row = p.pitch
    if job.strips != NULL:
        job.direct = True
        return
    if job.by_rows:
        job.direct = dense and cols >= lanes
        if cols < lanes:
            lay_out(p, rows, cols, 1, lanes)    # vectors read past the ends of rows, ...
            p.in_place = False
        if not job.direct:
            job.scratch_row = ceil_div(p.pitch, lanes) * lanes  # ... and write there
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
