# Correlation with pixels in the lanes of vectors: where there are few features. Needs
# conv/tiles.h and conv/correlation.pxi.
#
# A plan turns strides, dilation, padding and groups into tables: where each tap is read, where
# each vector of pixels is read and stored. The loops that the threads share know nothing else.

cdef struct PixelsPass:                 # one correlation without a stride: all phases of y and x
    Outputs outputs
    Py_ssize_t n_ij, n_taps             # taps of a filter, and of all channels of a group
    Py_ssize_t *ij                      # (n_ij,) where in a filter they lie
    Py_ssize_t *tap_at                  # (n_taps,)
    Py_ssize_t weights_at               # of (n_features, n_taps), in blocks of features
    Py_ssize_t n_at                     # vectors of pixels
    Py_ssize_t *src_at
    Py_ssize_t *dst_at_of
    int tile[9]                         # vectors in a tile, by the number of features

cdef struct PixelsLayout:
    Packing packing
    bint direct                         # tiles store to the output; else to a scratch buffer

cdef struct Pixels:
    Sizes sizes
    PixelsLayout layout
    Py_ssize_t block                    # features in a block; the last of a group may be smaller
    Py_ssize_t blocks_per_group, n_blocks
    Py_ssize_t n_passes
    PixelsPass *passes
    Py_ssize_t scratch_pitch            # from one feature to the next in the scratch buffer
    Py_ssize_t scratch_size
    Py_ssize_t odd_at                   # with a stride of 2: from even columns there to odd ones


# --- what it costs ------------------------------------------------------------------

cdef PixelsLayout pixels_layout(const Correlation *task) noexcept nogil:
    """Packed or in place, direct or by way of a scratch buffer, and how many images at once."""
    cdef PixelsLayout layout
    cdef Packing p
    cdef Py_ssize_t rows = task.y.longest, cols = task.x.longest, lanes = task.lanes
    cdef bint is_dense = task.y.out_step == 1 and task.x.out_step == 1
    if is_dense and pack_is_needless(&task.packing, rows, cols, lanes):
        p = pack_in_place(task.packing)
    else:
        p = pack_laid_out(task.packing, rows, cols, 1, lanes)
    layout.direct = is_dense and rows_fill_vectors(&p, rows, cols, lanes)
    if not (layout.direct or p.in_place or task.folds):
        p = best_stack(task)
    layout.packing = p
    return layout


cdef bint rows_fill_vectors(const Packing *p, Py_ssize_t rows, Py_ssize_t cols,
                            Py_ssize_t lanes) noexcept nogil:
    """Whether vectors within rows waste no more lanes than a run across all rows."""
    if p.pitch == cols:
        return rows * cols >= lanes
    if cols < lanes:
        return False
    # The run needs another pass to copy its rows to the output.
    return rows * ceil_div(cols, lanes) <= 1.1 * ceil_div((rows - 1) * p.pitch + cols, lanes)


cdef Packing best_stack(const Correlation *task) noexcept nogil:
    """As many images side by side, all channels within a cache of 256 KB, as fill tiles best."""
    cdef Packing p, best = pack_laid_out(task.packing, task.y.longest, task.x.longest, 1, task.lanes)
    cdef Py_ssize_t stack = 1, n_at
    cdef int n, block = <int>min(task.n_features // task.groups, <Py_ssize_t>MAX_FEATURES)
    cdef double cycles, least = 0
    while stack <= 8:
        p = pack_laid_out(task.packing, task.y.longest, task.x.longest, stack, task.lanes)
        if stack > 1 and task.n_channels * p.channel_pitch * task.itemsize > 262144:
            break
        n_at = ceil_div(run_of(&p, stack, task.y.longest, task.x.longest), task.lanes)
        n = best_vectors(block, n_at)
        cycles = tile_cycles(block, n) * ceil_div(n_at, n) / stack
        if stack == 1 or cycles < 0.97 * least:
            best, least = p, cycles
        stack *= 2      # divides the usual batches
    return best


cdef inline Py_ssize_t run_of(const Packing *p, Py_ssize_t stack, Py_ssize_t rows,
                              Py_ssize_t cols) noexcept nogil:
    """Pixels from the first output of a stack to its last."""
    return (stack - 1) * p.image_pitch + (rows - 1) * p.pitch + cols


cdef double pixels_cycles(const Correlation *task) noexcept nogil:
    """About how long an image takes."""
    cdef PixelsLayout layout = pixels_layout(task)
    cdef const Packing *p = &layout.packing
    cdef Py_ssize_t rows = task.y.longest, cols = task.x.longest, lanes = task.lanes, n_at
    cdef Py_ssize_t n_phases = task.y.n_phases * task.x.n_phases
    cdef Py_ssize_t per_group = task.n_features // task.groups
    cdef int block = <int>ceil_div(per_group, ceil_div(per_group, MAX_FEATURES))
    if layout.direct and p.pitch == cols and p.stack == 1:
        n_at = ceil_div(rows * cols, lanes)
    elif layout.direct:
        n_at = rows * ceil_div(cols, lanes)
    else:
        n_at = ceil_div(run_of(p, p.stack, rows, cols), lanes)
    cdef int n = best_vectors(block, n_at)
    cdef double n_tiles = n_phases * ceil_div(n_at, n) / <double>p.stack
    n_tiles *= ceil_div(per_group, block) * task.groups
    # Vectors go straight to the output; by way of a buffer; or value by value, with gaps.
    cdef bint zipped = task.x.n_phases == 2
    cdef double storing = 2 if layout.direct else 4 if n_phases == 1 or zipped else lanes
    cdef double cycles = n_tiles * (
        tile_cycles(block, n) * task.n_taps + storing * block * n + 20)
    if zipped:
        cycles += 25 * task.n_features * task.out_h
    if p.stride_x > 1:
        # Measured with rows of 4 to 28 pixels; without a stride it is a few cycles.
        cycles += (25 if p.stride_x == 2 == p.n_phases_x else 40) * (
            task.n_channels * p.rows * p.n_phases_y * p.n_phases_x)
    if p.in_place:
        # Every block of features reads all channels again, whole planes apart: often from the
        # L2 cache, 3 cycles a line. Measured with 1x1 filters of 32 to 128 channels.
        cycles += n_tiles * n * (task.n_channels // task.groups) * 3 * VECTOR_BYTES / 64
    # Where a core has two units for such vectors, these tiles gain more than others: they load
    # least. 16 channels to 16 features, 3x3 of 32x32: 22 us, Winograd 24; 1x1 of 64: 283 and 303.
    return cycles * (0.87 if VECTOR_BYTES == 64 else 1)


cdef double tile_cycles(int n_features, int n_vectors) noexcept nogil:
    """About how many cycles a tap costs a tile.

    One a multiply-add or, where that is more, two a vector of pixels (loads
    across cache lines) and half a cycle a weight; few accumulators wait for
    the latency of their own sums. And one for the loop itself.
    """
    return 1.0 + max(
        <double>(n_features * n_vectors), 2.0 * n_vectors + 0.5 * n_features, <double>LATENCY)


cdef int best_vectors(int n_features, Py_ssize_t n_at) noexcept nogil:
    """The tile width that takes the fewest cycles for n_at vectors of pixels."""
    cdef int n, best = 1
    cdef double cycles, fewest = n_at * tile_cycles(n_features, 1)
    for n in range(2, MAX_VECTORS + 1):
        if n == 5 or n == 7 or n * n_features > MAX_ACCUMULATORS:
            continue
        cycles = tile_cycles(n_features, n) * ((n_at + n - 1) // n)
        if cycles < fewest:
            best, fewest = n, cycles
    return best


# --- the plan -----------------------------------------------------------------------

cdef void *pixels_plan(const Correlation *task, Workspace memory) except NULL:
    cdef Pixels *plan = <Pixels *>memory.take(sizeof(Pixels))
    cdef Py_ssize_t per_group = task.n_features // task.groups, lanes = task.lanes, i, at
    plan.layout = pixels_layout(task)
    plan.blocks_per_group = ceil_div(per_group, MAX_FEATURES)
    plan.block = ceil_div(per_group, plan.blocks_per_group)     # all of about one size
    plan.blocks_per_group = ceil_div(per_group, plan.block)
    plan.n_blocks = plan.blocks_per_group * task.groups
    plan.n_passes = task.y.n_phases * task.x.n_phases
    plan.passes = <PixelsPass *>memory.take(plan.n_passes * sizeof(PixelsPass))
    plan.scratch_pitch, at = 0, task.n_features     # the biases come first
    for i in range(plan.n_passes):
        plan.passes[i] = pixels_pass(
            task, &plan.layout, &task.y.phases[i // task.x.n_phases],
            &task.x.phases[i % task.x.n_phases], at, memory)
        at += task.n_features * plan.passes[i].n_taps
        plan.scratch_pitch = max(plan.scratch_pitch, plan.passes[i].n_at * lanes)
    plan.sizes.packed = at
    plan.sizes.buffer = pack_buffer(
        &plan.layout.packing, task.n_channels // task.groups, lanes)
    plan.scratch_size = 0 if plan.layout.direct else plan.scratch_pitch * plan.block
    plan.odd_at = 0
    if plan.n_passes > 1 and task.x.out_step == 2 and task.out_w > 1:
        plan.odd_at = plan.scratch_size
        plan.scratch_size *= 2
    plan.sizes.thread = plan.sizes.buffer + plan.scratch_size
    if task.folds:
        plan.sizes.thread += plan.block * task.out_h * task.out_w
    return plan


cdef PixelsPass pixels_pass(
    const Correlation *task, const PixelsLayout *layout, const Phase *y, const Phase *x,
    Py_ssize_t weights_at, Workspace memory,
) except *:
    """The tables of taps and of vectors of one pass."""
    cdef PixelsPass run
    cdef const Packing *p = &layout.packing
    cdef Py_ssize_t i, j, m = 0
    run.outputs = outputs_of(task, y, x)
    run.n_ij = y.n_taps * x.n_taps
    run.n_taps = run.n_ij * (task.n_channels // task.groups)
    run.ij = <Py_ssize_t *>memory.take(run.n_ij * sizeof(Py_ssize_t))
    run.tap_at = <Py_ssize_t *>memory.take(run.n_taps * sizeof(Py_ssize_t))
    run.weights_at = weights_at
    for i in range(y.n_taps):
        for j in range(x.n_taps):
            run.ij[m] = y.tap[i] * task.fil_w + x.tap[j]
            run.tap_at[m] = pack_tap_at(p, y, x, i, j)
            m += 1
    for m in range(run.n_ij, run.n_taps):
        run.tap_at[m] = run.tap_at[m - run.n_ij] + p.channel_pitch
    pixels_vectors(&run, layout, y.first * p.pitch + x.first, task.lanes, memory)
    for m in range(1, MAX_FEATURES + 1):
        run.tile[m] = best_vectors(<int>m, run.n_at)
    return run


cdef void pixels_vectors(PixelsPass *run, const PixelsLayout *layout, Py_ssize_t first,
                         Py_ssize_t lanes, Workspace memory) except *:
    """The table of pixel vectors: where each is read, from `first` on, and where it is stored."""
    cdef const Packing *p = &layout.packing
    cdef const Outputs *to = &run.outputs
    cdef Py_ssize_t rows = to.rows, cols = to.cols, per_row, extent, i, v = 0, x, y
    if to.col == 1 and p.pitch == cols and to.row == cols and p.stack == 1:
        rows, cols = 1, rows * cols     # without gaps a plane is one long row
    extent, per_row = run_of(p, p.stack, to.rows, to.cols), ceil_div(cols, lanes)
    if not layout.direct:
        rows, per_row = 1, ceil_div(extent, lanes)
    run.n_at = rows * per_row
    # Tiles read up to MAX_VECTORS entries at once.
    run.src_at = <Py_ssize_t *>memory.take((run.n_at + MAX_VECTORS) * sizeof(Py_ssize_t))
    run.dst_at_of = <Py_ssize_t *>memory.take((run.n_at + MAX_VECTORS) * sizeof(Py_ssize_t))
    for y in range(rows):
        for i in range(per_row):
            x = i * lanes
            if layout.direct:
                x = min(x, cols - lanes)    # the last vector of a row ends with it
                run.src_at[v] = first + y * p.pitch + x
                run.dst_at_of[v] = to.at + y * to.row + x
            else:
                if extent >= lanes:
                    x = min(x, extent - lanes)
                run.src_at[v] = first + x
                run.dst_at_of[v] = x
            v += 1
    for v in range(run.n_at, run.n_at + MAX_VECTORS):
        run.src_at[v] = run.src_at[run.n_at - 1]
        run.dst_at_of[v] = run.dst_at_of[run.n_at - 1]


cdef inline Py_ssize_t pixels_block(const Correlation *task, const Pixels *plan,
                                    Py_ssize_t b) noexcept nogil:
    """The first feature of a block; blocks are spread evenly over a group."""
    cdef Py_ssize_t per_group = task.n_features // task.groups
    return b // plan.blocks_per_group * per_group + min(
        b % plan.blocks_per_group * plan.block, per_group
    )


cdef Share pixels_share(const Correlation *task, const void *plan_, Py_ssize_t n_imgs,
                        int n_threads) noexcept nogil:
    """Stacks of images, each in parts of features where stacks are few."""
    cdef const Pixels *plan = <const Pixels *>plan_
    cdef Share share
    cdef Py_ssize_t stack = plan.layout.packing.stack
    share.stack, share.rows, share.parts, share.n_threads = stack, task.out_h, 1, n_threads
    share.n_units, share.zeros = ceil_div(n_imgs, stack), plan.sizes.buffer
    if n_threads > 1 and share.n_units < 2 * n_threads:
        share.parts = min(plan.n_blocks, ceil_div(2 * n_threads, share.n_units))
    share.n_units *= share.parts
    return share


# --- the run ------------------------------------------------------------------------

cdef void pixels_pack(const Correlation *task, const void *plan_, const real *filters,
                      const real *bias, real *packed) noexcept nogil:
    """Biases, and the weights of all features in the order in which the tiles read them."""
    cdef const Pixels *plan = <const Pixels *>plan_
    cdef Py_ssize_t per_group = task.n_features // task.groups
    cdef Py_ssize_t channels = task.n_channels // task.groups
    cdef Py_ssize_t i, b, f, first, width, group, c, m
    cdef const PixelsPass *run
    cdef real *column
    cdef const real *source
    pack_bias(packed, bias, task.n_features)
    for i in range(plan.n_passes):
        run = &plan.passes[i]
        for b in range(plan.n_blocks):
            first = pixels_block(task, plan, b)
            width = pixels_block(task, plan, b + 1) - first
            group = b // plan.blocks_per_group
            for f in range(first, first + width):
                column = packed + run.weights_at + first * run.n_taps + f - first
                source = filters + group * task.pitch.group
                source += (f - group * per_group) * task.pitch.feature
                for c in range(channels):
                    for m in range(run.n_ij):
                        column[0] = source[c * task.pitch.channel + run.ij[m]]
                        column += width


cdef inline void pack_bias(real *packed, const real *bias, Py_ssize_t n) noexcept nogil:
    if bias == NULL:
        memset(packed, 0, n * sizeof(real))
    else:
        memcpy(packed, bias, n * sizeof(real))


cdef void pixels_unit(real *buffer, const Call *call, Py_ssize_t unit) noexcept nogil:
    """One stack of images and one part of the features."""
    cdef const Correlation *task = call.task
    cdef const Pixels *plan = <const Pixels *>call.plan
    cdef const Packing *p = &plan.layout.packing
    cdef Py_ssize_t n0 = unit // call.share.parts * p.stack, part = unit % call.share.parts
    cdef Py_ssize_t n = stacked_images(call, n0), channels = task.n_channels // task.groups
    cdef Py_ssize_t first = part * plan.n_blocks // call.share.parts
    cdef Py_ssize_t last = (part + 1) * plan.n_blocks // call.share.parts
    cdef Py_ssize_t b, k, k_end, g
    cdef const real *imgs = <const real *>call.imgs + n0 * task.n_channels * p.h * p.w
    cdef const real *group = buffer
    cdef real *out = <real *>call.out + n0 * task.n_features * task.out_size
    for b in range(first, last):
        g = b // plan.blocks_per_group
        if p.in_place:
            group = imgs + g * channels * p.h * p.w
        elif b == first or b % plan.blocks_per_group == 0:
            pack_stack(buffer, imgs, n, task.n_channels, g * channels, channels, p)
        k, k_end = pixels_block(task, plan, b), pixels_block(task, plan, b + 1)
        pixels_features(call, group, buffer + plan.sizes.buffer, out, n, k, k_end)


cdef void pixels_features(const Call *call, const real *group, real *scratch, real *out,
                          Py_ssize_t n, Py_ssize_t k, Py_ssize_t k_end) noexcept nogil:
    """One block of features of n images, whose channels are packed."""
    cdef const Correlation *task = call.task
    cdef const Pixels *plan = <const Pixels *>call.plan
    cdef const Packing *p = &plan.layout.packing
    cdef const PixelsPass *run
    cdef const real *packed = <const real *>call.packed
    cdef Py_ssize_t plane = task.out_h * task.out_w, i, s, f, n_at
    cdef real *padded = scratch + plan.scratch_size
    cdef real *dst = padded if task.folds else out + k * plane
    cdef real *to
    for i in range(plan.n_passes):
        run = &plan.passes[i]
        to = dst if plan.layout.direct else scratch + (i & 1) * plan.odd_at
        n_at = run.n_at
        if n < p.stack:
            n_at = ceil_div(run_of(p, n, run.outputs.rows, run.outputs.cols), task.lanes)
        pixels_tiles(
            to, plane if plan.layout.direct else plan.scratch_pitch, run.dst_at_of, group,
            run.src_at, n_at, run.tap_at, packed + run.weights_at + k * run.n_taps, run.n_taps,
            packed + k, call.with_relu, run.tile[k_end - k], <int>(k_end - k))
        if not plan.layout.direct and (i & 1 or plan.odd_at == 0):
            for s in range(n):
                for f in range(k_end - k):
                    unpack_phase(dst + (s * task.n_features + f) * plane,
                                 scratch + s * p.image_pitch + f * plan.scratch_pitch, p.pitch,
                                 &run.outputs, plan.odd_at,
                                 &plan.passes[i - (plan.odd_at > 0)].outputs)
    for i in range(k, k_end if task.folds else k):
        fold_plane(out + i * task.out_size, padded + (i - k) * plane, task.out_h, task.out_w,
                   &task.fold)
