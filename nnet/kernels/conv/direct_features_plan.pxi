# The plan of a correlation with features in the lanes: blocks of features, units of work,
# tables of taps and of pixels.

cdef void plan_feature_blocks(PixelJob *job, const real *bias, Workspace space) except *:
    """Blocks of features, and their biases."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t total = ceil_div(job.task.n_features // job.task.groups, lanes)
    cdef Py_ssize_t b, k, first, pitch
    cdef real *padded
    job.blocks_per_group = ceil_div(total, <Py_ssize_t>MAX_FEATURE_VECTORS)
    job.block_vectors = <int>ceil_div(total, job.blocks_per_group)
    job.n_blocks = job.blocks_per_group * job.task.groups
    job.bias = NULL
    if bias != NULL:
        pitch = job.block_vectors * lanes
        padded = <real *>space.take(job.n_blocks * pitch * sizeof(real))
        memset(padded, 0, job.n_blocks * pitch * sizeof(real))
        for b in range(job.n_blocks):
            first = first_feature(job, b, lanes)
            for k in range(first, first_feature(job, b + 1, lanes)):
                padded[b * pitch + k - first] = bias[k]
        job.bias = padded


cdef Py_ssize_t fullest_stack(Py_ssize_t n_pixels, Py_ssize_t most) noexcept nogil:
    """How many images, up to `most`, leave the fewest places of their last tile empty."""
    cdef Py_ssize_t stack, best = 1
    for stack in range(2, most + 1):
        if (ceil_div(stack * n_pixels, TILE_PIXELS) * best
                <= ceil_div(best * n_pixels, TILE_PIXELS) * stack):
            best = stack
    return best


cdef void plan_units(PixelJob *job, Py_ssize_t row_values, Py_ssize_t itemsize,
                     int n_threads) noexcept nogil:
    """How many images, or how many rows of one, make a unit of work.

    A thread keeps `row_values` for each row of a pass, which should stay in the L2
    cache. A unit should fill some tiles, and every thread should have a few units.
    """
    # Winograd tiles of different rows lie within each other.
    cdef Py_ssize_t multiple = job.winograd.y.dilation if job.winograd != NULL else 1
    cdef Py_ssize_t most = max(<Py_ssize_t>1, UNIT_BYTES // (row_values * itemsize))  # rows
    cdef Py_ssize_t enough = ceil_div(UNIT_PIXELS, job.pass_cols)
    job.stack, job.strip = 1, job.pass_rows
    if job.pass_rows < enough:
        job.stack = min(max(<Py_ssize_t>1, most // job.pass_rows), enough // job.pass_rows)
        job.stack = max(<Py_ssize_t>1, min(job.stack, ceil_div(job.task.n_imgs, 2 * n_threads)))
        job.stack = fullest_stack(job.pass_rows * job.pass_cols, job.stack)
    elif job.task.packing.border == BORDER_ZEROS and job.task.fold == NULL:
        job.strip = max(most, enough)
        if n_threads > 1 and job.task.n_imgs < 2 * n_threads:
            job.strip = min(job.strip, ceil_div(job.pass_rows * job.task.n_imgs, 2 * n_threads))
        job.strip = ceil_div(job.pass_rows, ceil_div(job.pass_rows, job.strip))
        job.strip = min(ceil_div(job.strip, multiple) * multiple, job.pass_rows)
    job.n_strips = ceil_div(job.pass_rows, job.strip)
    job.n_units = ceil_div(job.task.n_imgs, job.stack) * job.n_strips


cdef void plan_pixel_table(PixelJob *job, Workspace space) except *:
    cdef const Packing *p = &job.task.packing
    cdef Py_ssize_t y, x
    job.pixel_at = <Py_ssize_t *>space.take(p.h * p.w * sizeof(Py_ssize_t))
    for y in range(p.h):
        for x in range(p.w):
            job.pixel_at[y * p.w + x] = (y + p.top) * job.cols + x + p.left


cdef inline Py_ssize_t filter_at(const PixelJob *job, Py_ssize_t b, Py_ssize_t k,
                                 const FilterPitches *pitch) noexcept nogil:
    """Where the filters of feature k, in block b, start."""
    cdef Py_ssize_t group = b // job.blocks_per_group
    k -= group * (job.task.n_features // job.task.groups)
    return group * pitch.group + k * pitch.feature


cdef void pack_block(
    real *row, Py_ssize_t width, const real *filters, Py_ssize_t n_features, Py_ssize_t channels,
    const FilterPitches *pitch, const Py_ssize_t *ij, Py_ssize_t n_ij,
) noexcept nogil:
    """The weights of a block of features, (ij, channels, width), with zeros behind the last."""
    cdef Py_ssize_t m, c, k, pitch_of = pitch.feature
    cdef const real *source
    if n_features < width:
        memset(row, 0, n_ij * channels * width * sizeof(real))
    for m in range(n_ij):
        if pitch.channel == 1:
            pack_pixels(row, NULL, 0, width, filters, pitch.feature, n_features, channels)
            continue
        for c in range(channels):
            if pitch.feature == 1:
                copy(row, filters + c * pitch.channel, n_features)
            else:
                source = filters + c * pitch.channel + ij[m]
                for k in range(n_features // 4):    # by hand: gcc leaves four loads in turn
                    row[4 * k] = source[0]
                    row[4 * k + 1] = source[pitch_of]
                    row[4 * k + 2] = source[2 * pitch_of]
                    row[4 * k + 3] = source[3 * pitch_of]
                    source += 4 * pitch_of
                for k in range(n_features // 4 * 4, n_features):
                    row[k] = source[0]
                    source += pitch_of
            row += width


cdef void plan_pixel_pass(
    const PixelJob *job, PixelPass *run, const real *filters, Py_ssize_t fil_size, Py_ssize_t fil_w,
    bint backward, Phase phase_y, Phase phase_x, Py_ssize_t step_x, Py_ssize_t out_step_x,
    Workspace space,
) except *:
    """The tables of one pass: its taps, its weights and its pixels.

    The phases of the two axes say which outputs it computes, and of which taps.
    """
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t channels = job.task.n_channels // job.task.groups
    cdef FilterPitches pitch = filter_pitches(job.task, fil_size, backward)
    cdef Py_ssize_t n_ij = phase_y.n_taps * phase_x.n_taps
    cdef Py_ssize_t b, c, f, i, j, k, m, s, r, x, width, rows
    cdef Py_ssize_t first_y = phase_y.first, first_x = phase_x.first
    cdef Py_ssize_t pixel_y = phase_y.pixel, pixel_x = phase_x.pixel
    cdef real *row
    cdef const real *source
    cdef Py_ssize_t *ij = <Py_ssize_t *>space.take(n_ij * sizeof(Py_ssize_t))
    run.rows, run.cols = phase_y.count, phase_x.count
    run.n_taps = n_ij * channels
    run.tap_at = <Py_ssize_t *>space.take(run.n_taps * sizeof(Py_ssize_t))
    m = 0
    for i in range(phase_y.n_taps):
        for j in range(phase_x.n_taps):
            ij[m] = phase_y.tap[i] * fil_w + phase_x.tap[j]
            k = phase_y.shift[i] * job.cols + phase_x.shift[j]
            for c in range(channels):
                run.tap_at[m * channels + c] = k * job.depth + c * job.channel_pitch
            m += 1
    row = <real *>space.take(
        run.n_taps * padded_features(job, job.n_blocks, lanes) * sizeof(real))
    run.weights = row
    for b in range(job.n_blocks):
        width = vectors_of(job, b, lanes) * lanes
        k = first_feature(job, b, lanes)
        f = first_feature(job, b + 1, lanes) - k
        source = filters + filter_at(job, b, k, &pitch)
        pack_block(row, width, source, f, channels, &pitch, ij, n_ij)
        row += run.n_taps * width
    rows = min(run.rows, job.strip)
    run.src_at = <Py_ssize_t *>space.take(job.stack * rows * run.cols * sizeof(Py_ssize_t))
    run.dst_at = <Py_ssize_t *>space.take(job.stack * rows * run.cols * sizeof(Py_ssize_t))
    m = 0
    for s in range(job.stack):
        for r in range(rows):
            k = s * job.img_pitch + (r * job.in_step + first_y) * job.cols + first_x
            f = (s * job.task.out_h + r * job.out_step + pixel_y) * job.task.out_w + pixel_x
            for x in range(run.cols):
                run.src_at[m] = k + x * step_x
                run.dst_at[m] = f + x * out_step_x
                m += 1


cdef void plan_memory(PixelJob *job, Py_ssize_t lanes) noexcept nogil:
    """What a thread needs for a unit, and how many tiles a unit has."""
    cdef const Correlation *task = job.task
    cdef Py_ssize_t n_pixels = job.stack * task.out_h * task.out_w
    if job.n_strips > 1:
        n_pixels = job.strip * job.out_step * task.out_w
    if task.fold != NULL:
        n_pixels += task.fold.h * task.fold.w
    job.result_size = n_pixels * job.block_vectors * lanes
    job.buffer_size = 0 if job.in_place else job.stack * job.img_pitch * job.depth
    n_pixels = job.stack * job.strip * job.pass_cols
    job.unit_tiles = job.n_blocks * ceil_div(n_pixels, TILE_PIXELS) * (
        16 * job.winograd.n_passes if job.winograd != NULL else job.n_passes)


cdef void correlate_by_pixels(
    const Correlation *task, bint with_winograd, object geometry, bint backward, Axis axis_y,
    Axis axis_x, Pieces pieces_y, Pieces pieces_x, const real *imgs, const real *filters,
    real *out, const real *bias, Workspace space, int n_threads,
) except *:
    """Plan and run a correlation with features in the lanes."""
    cdef PixelJob job
    cdef Winograd winograd
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t step_x = 1 if backward else geometry.stride_x
    cdef Py_ssize_t out_step_x = geometry.stride_x if backward else 1
    cdef Py_ssize_t fil_h = pieces_y.n_taps, fil_w = pieces_x.n_taps, row_values
    cdef Phase phase_y, phase_x
    job.task = task
    job.depth = ceil_div(task.n_channels, lanes) * lanes
    job.channel_pitch = 1
    plan_feature_blocks(&job, bias, space)
    job.pass_rows, job.pass_cols = axis_y.longest, axis_x.longest
    job.in_step = 1 if backward else geometry.stride_y
    job.out_step = geometry.stride_y if backward else 1
    job.in_extra = axis_y.last + 1 - job.in_step
    job.read_rows = (job.pass_rows - 1) * job.in_step + axis_y.last + 1
    job.read_cols = job.cols = (job.pass_cols - 1) * step_x + axis_x.last + 1
    row_values = task.out_w * job.out_step * job.block_vectors * lanes
    job.winograd = NULL
    if with_winograd:
        job.winograd = &winograd
        plan_axis(&winograd.y, axis_y, pieces_y, geometry.dilation_y, task.out_h, backward)
        plan_axis(&winograd.x, axis_x, pieces_x, geometry.dilation_x, task.out_w, backward)
        row_values += plan_tiles(&job, lanes)
        if task.n_imgs * winograd.y.tiles * winograd.x.tiles < SMALL_TILES:
            n_threads = 1
    job.rows = job.pass_rows * job.in_step + job.in_extra
    if task.packing.border != BORDER_ZEROS:
        job.rows = max(job.rows, task.packing.top + task.packing.h)  # padding is made of all rows
        job.in_extra = job.rows - job.pass_rows * job.in_step
    job.cols = max(job.cols, task.packing.left + task.packing.w)
    row_values += job.in_step * job.cols * job.depth
    plan_units(&job, row_values, sizeof(real), n_threads)
    job.img_pitch = (job.strip * job.in_step + job.in_extra) * job.cols
    job.in_place = (
        not with_winograd and task.packing.top == 0 and task.packing.left == 0
        and job.rows <= task.packing.h and job.cols == task.packing.w
    )
    if job.in_place:
        job.depth = 1
        job.channel_pitch = task.packing.h * task.packing.w
        job.img_pitch = task.n_channels * job.channel_pitch
    else:
        plan_pixel_table(&job, space)
    job.scratch_size = 0
    job.n_passes = 0
    if with_winograd:
        plan_winograd(&job, filters, backward, space)
    else:
        job.passes = <PixelPass *>space.take(
            len(axis_y.phases) * len(axis_x.phases) * sizeof(PixelPass))
        for phase_y in axis_y.phases:
            for phase_x in axis_x.phases:
                plan_pixel_pass(&job, job.passes + job.n_passes, filters, fil_h * fil_w, fil_w,
                                backward, phase_y, phase_x, step_x, out_step_x, space)
                job.n_passes += 1
    job.n_threads = n_threads
    plan_memory(&job, lanes)
    run_pixels(&job, imgs, out, space, n_threads)
