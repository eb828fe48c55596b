# Correlation of single features, for depthwise filters and images of one channel. Needs
# conv/rows.h, conv/strips.pxi and conv/correlation.pxi.
#
# With one feature at a time, the usual tile would load a vector of pixels for each
# multiply-add. This one keeps several rows of outputs in registers: a row of pixels,
# once loaded, serves all taps of a column of the filter, each for another output row.
#
#     column of taps: w0     row 0 of pixels:  outputs 0 += w0
#                     w1     row 1             outputs 1 += w0,  outputs 0 += w1
#                     w2     row 2             outputs 2 += w0,  outputs 1 += w1,  outputs 0 += w2
#                            ...
#
# With strides and dilation the taps of a column are those of one phase: `every`
# rows apart, as the output rows of a tile then are.
#
# Where strips accept a task they are faster, but for large planes with many taps.

cdef extern from "conv/rows.h":
    enum: MIN_ROWS
    enum: MAX_ROWS
    enum: MAX_COLUMN
    ctypedef struct Columns:
        Py_ssize_t n[8]
        Py_ssize_t *at
        Py_ssize_t every
        int tile_rows
    void rows_tiles(...) noexcept nogil

cdef enum:
    ALIAS_BYTES = 2048          # rows that are so far apart share few sets of the L1 cache

cdef struct RowsPass:
    Outputs outputs
    Py_ssize_t src_at                   # where tap 0 of its first pixel may be read
    Py_ssize_t n_taps
    Py_ssize_t *source                  # (n_taps,) where in the filters of a feature each lies
    Py_ssize_t weights_at               # of (n_features, n_taps), column after column
    Columns columns

cdef struct Rows:
    Sizes sizes
    bint in_strips
    Strips strips
    Packing packing
    bint direct                         # tiles store to the output; else to a scratch buffer
    Py_ssize_t n_passes
    RowsPass *passes
    Py_ssize_t scratch_row, scratch_size
    Py_ssize_t odd_at                   # with a stride of 2: from even columns there to odd ones


cdef inline Py_ssize_t rows_every(const Correlation *task) noexcept nogil:
    """Rows between the taps of a phase."""
    cdef Py_ssize_t a = task.stride_y, b = task.dilation_y
    while b:
        a, b = b, a % b
    return task.dilation_y // a


cdef bint rows_accept(const Correlation *task) noexcept nogil:
    return (task.n_features == task.groups and task.fil_h > task.stride_y
            and task.y.shortest // rows_every(task) >= MIN_ROWS)


cdef inline Py_ssize_t rows_top(const Correlation *task) noexcept nogil:
    return task.packing.top - task.y.first


cdef bint rows_in_strips(const Correlation *task) noexcept nogil:
    """Strips take 3.8 us for 3x3 taps on 32 x 28 x 28 pixels, rows 6.4; 5x5 taps 9.6 and 9.8."""
    cdef const Packing *p = &task.packing
    return (
        task.n_channels == task.groups and p.border == BORDER_ZEROS and task.dilation_y == 1
        and task.stride_y == 1 and task.stride_x == 1
        and strips_cover(p.h, task.y.longest, rows_top(task), task.fil_h)
        and task.fil_w <= 2 * task.fil_h      # 3x9 taps: more loads than the copies cost
        and (task.fil_h < 4 or task.x.longest <= 2 * task.lanes)
        and p.w * task.itemsize % ALIAS_BYTES != 0
    )


cdef double rows_cycles(const Correlation *task) noexcept nogil:
    """About how long an image takes: each vector of outputs, and of what is packed."""
    cdef const Packing *p = &task.packing
    cdef double vectors = task.n_features * task.y.n_phases * task.x.n_phases * (
        task.y.longest * ceil_div(task.x.longest, task.lanes))
    if rows_in_strips(task):
        return vectors * (0.7 * task.n_taps + 2)
    return vectors * (1.2 * task.n_taps + 4) + 4.0 * task.n_channels * p.n_phases_y * (
        p.n_phases_x * p.rows * ceil_div(p.cols, task.lanes))


cdef void *rows_plan(const Correlation *task, Workspace memory) except NULL:
    cdef Rows *plan = <Rows *>memory.take(sizeof(Rows))
    cdef const Packing *p = &plan.packing
    cdef Py_ssize_t lanes = task.lanes, rows = task.y.longest, cols = task.x.longest, i, at
    plan.in_strips = rows_in_strips(task)
    plan.direct = plan.in_strips or task.x.out_step == 1 and cols >= lanes
    # Vectors read past the ends of short rows.
    if plan.in_strips or plan.direct and pack_is_needless(&task.packing, rows, cols, lanes):
        plan.packing = pack_in_place(task.packing)
    else:
        plan.packing = pack_laid_out(task.packing, rows, cols, 1, lanes)
    plan.scratch_row = p.pitch if plan.direct else ceil_div(p.pitch, lanes) * lanes
    plan.scratch_size = 0 if plan.direct else (rows * plan.scratch_row + 2 * lanes)
    plan.scratch_size = ceil_div(plan.scratch_size, lanes) * lanes
    plan.n_passes = task.y.n_phases * task.x.n_phases
    plan.odd_at = 0
    if plan.n_passes > 1 and task.x.out_step == 2 and task.out_w > 1:
        plan.odd_at = plan.scratch_size
    plan.passes = <RowsPass *>memory.take(plan.n_passes * sizeof(RowsPass))
    at = task.n_features    # the biases come first
    for i in range(plan.n_passes):
        plan.passes[i] = rows_pass(task, plan, &task.y.phases[i // task.x.n_phases],
                                   &task.x.phases[i % task.x.n_phases], at, memory)
        at += task.n_features * plan.passes[i].n_taps
    plan.sizes.packed = at
    if plan.in_strips:
        i = (task.x.last if task.backward else task.x.first) - p.left
        plan_strips(&plan.strips, p.h, p.w, rows, cols, rows_top(task), i,
                    -task.dilation_x if task.backward else task.dilation_x, task.fil_h,
                    task.fil_w, memory, lanes)
    plan.sizes.buffer = pack_buffer(p, task.n_channels // task.groups, lanes)
    plan.sizes.thread = plan.sizes.buffer + 2 * plan.scratch_size
    if task.folds:
        plan.sizes.thread += task.out_h * task.out_w
    return plan


cdef RowsPass rows_pass(const Correlation *task, const Rows *plan, const Phase *y, const Phase *x,
                        Py_ssize_t weights_at, Workspace memory) except *:
    cdef RowsPass run
    cdef Py_ssize_t n = y.n_taps * x.n_taps * (task.n_channels // task.groups)
    run.outputs, run.n_taps, run.weights_at = outputs_of(task, y, x), n, weights_at
    run.src_at = y.first * plan.packing.pitch + x.first
    run.source = <Py_ssize_t *>memory.take(n * sizeof(Py_ssize_t))
    run.columns = rows_columns(task, plan, y, x, run.source, memory)
    return run


cdef Columns rows_columns(const Correlation *task, const Rows *plan, const Phase *y,
                          const Phase *x, Py_ssize_t *source, Workspace memory) except *:
    """The taps (c, i, j) as columns, and where in a feature's filters they lie, in that order.

    Forward, every n_phases-th row of taps is in the same column; backward, later rows of taps
    read earlier rows of pixels.
    """
    cdef Columns columns
    cdef const Packing *p = &plan.packing
    cdef int most = MAX_STRIP_TAPS if plan.in_strips else MAX_COLUMN
    cdef Py_ssize_t step = 1 if task.backward else p.n_phases_y, channels, n_columns = 0
    cdef Py_ssize_t length, c, j, phase, n, cut, k, i, m, t = 0
    channels = task.n_channels // task.groups
    columns.every = rows_every(task)
    columns.tile_rows = best_tile_rows(y.count // columns.every)
    columns.at = <Py_ssize_t *>memory.take(
        y.n_taps * x.n_taps * channels * sizeof(Py_ssize_t))
    for length in range(most, 0, -1):
        columns.n[length] = 0
        for c in range(channels):
            for phase in range(min(step, y.n_taps)):
                n = ceil_div(y.n_taps - phase, step)
                k = ceil_div(n, most)
                for cut in range(k):
                    i = cut * n // k
                    if (cut + 1) * n // k - i != length:
                        continue
                    for j in range(x.n_taps):
                        for m in range(length):     # from the one that reads the first row on
                            i = phase + (cut * n // k + m) * step
                            if task.backward:
                                i = y.n_taps - 1 - i
                            if m == 0:
                                columns.at[n_columns] = (
                                    c * p.channel_pitch + pack_tap_at(p, y, x, i, j))
                            source[t] = c * task.pitch.channel + y.tap[i] * task.fil_w + x.tap[j]
                            t += 1
                        n_columns += 1
                        columns.n[length] += 1
    return columns


cdef int best_tile_rows(Py_ssize_t rows) noexcept nogil:
    """The tile height that walks the fewest rows, with two more at the ends of each tile."""
    cdef int n, best = MIN_ROWS
    for n in range(MIN_ROWS + 1, min(rows, MAX_ROWS) + 1):
        if ceil_div(rows, n) * (n + 2) <= ceil_div(rows, best) * (best + 2):
            best = n
    return best


cdef Share rows_share(const Correlation *task, const void *plan, Py_ssize_t n_imgs,
                      int n_threads) noexcept nogil:
    """An image, in parts of features where images are few."""
    cdef Share share
    share.stack, share.rows, share.parts, share.n_threads = 1, task.out_h, 1, n_threads
    share.zeros = (<const Sizes *>plan).buffer
    if n_threads > 1 and n_imgs < 2 * n_threads:
        share.parts = min(task.n_features, ceil_div(2 * n_threads, n_imgs))
    share.n_units = n_imgs * share.parts
    return share


# --- the run ------------------------------------------------------------------------

cdef void rows_pack(const Correlation *task, const void *plan_, const real *filters,
                    const real *bias, real *packed) noexcept nogil:
    cdef const Rows *plan = <const Rows *>plan_
    cdef const RowsPass *run
    cdef Py_ssize_t i, f, t
    cdef real *to
    pack_bias(packed, bias, task.n_features)
    for i in range(plan.n_passes):
        run = &plan.passes[i]
        to = packed + run.weights_at
        for f in range(task.n_features):
            for t in range(run.n_taps):
                to[t] = filters[f * task.pitch.group + run.source[t]]
            to += run.n_taps


cdef void rows_unit(real *buffer, const Call *call, Py_ssize_t unit) noexcept nogil:
    """One image and one part of the features."""
    cdef const Correlation *task = call.task
    cdef const Rows *plan = <const Rows *>call.plan
    cdef const Packing *p = &plan.packing
    cdef Py_ssize_t n0 = unit // call.share.parts, part = unit % call.share.parts
    cdef Py_ssize_t channels = task.n_channels // task.groups, size = p.h * p.w, k
    cdef const real *imgs = <const real *>call.imgs + n0 * task.n_channels * size
    cdef const real *packed = <const real *>call.packed
    cdef const real *planes
    cdef real *dst
    cdef real *out = <real *>call.out + n0 * task.n_features * task.out_size
    cdef real *padded = buffer + plan.sizes.buffer + 2 * plan.scratch_size
    for k in range(part * task.n_features // call.share.parts,
                   (part + 1) * task.n_features // call.share.parts):
        planes = imgs + k * channels * size
        if not p.in_place:
            pack_stack(buffer, imgs, 1, task.n_channels, k * channels, channels, p)
            planes = buffer
        dst = padded if task.folds else out + k * task.out_size
        if plan.in_strips:
            strips_plane(dst, planes, &plan.strips,
                         packed + plan.passes.weights_at + k * plan.passes.n_taps, packed[k],
                         call.with_relu)
        else:
            rows_feature(call, plan, dst, planes, buffer + plan.sizes.buffer, k)
        if task.folds:
            fold_plane(out + k * task.out_size, padded, task.out_h, task.out_w, &task.fold)


cdef void rows_feature(const Call *call, const Rows *plan, real *dst, const real *planes,
                       real *scratch, Py_ssize_t k) noexcept nogil:
    """All outputs of feature k from its planes."""
    cdef const real *packed = <const real *>call.packed
    cdef const RowsPass *run
    cdef const Outputs *to
    cdef Py_ssize_t i
    for i in range(plan.n_passes):
        run, to = &plan.passes[i], &plan.passes[i].outputs
        rows_tiles(dst + to.at if plan.direct else scratch + (i & 1) * plan.odd_at,
                   to.row if plan.direct else plan.scratch_row, planes + run.src_at,
                   plan.packing.pitch, to.rows, to.cols, &run.columns,
                   packed + run.weights_at + k * run.n_taps, packed[k], call.with_relu)
        if not plan.direct and (i & 1 or plan.odd_at == 0):
            unpack_phase(dst, scratch, plan.scratch_row, to, plan.odd_at,
                         &plan.passes[i - (plan.odd_at > 0)].outputs)
