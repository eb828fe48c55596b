# Correlation of single features, for depthwise filters and images of one channel. Needs
# conv/rows.h and conv/correlation.pxi.
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
# Large planes of single channels are packed a band of rows after the other: what is packed is
# still in the cache when it is read, and takes little memory. Of bands without a row in the
# border only the columns at both ends are packed, and those between them are read where they
# are: 3x3 taps take 0.113 ms for 512x512 pixels instead of 0.121.

cdef extern from "conv/rows.h":
    enum: MIN_ROWS
    enum: MAX_ROWS
    enum: MAX_COLUMN
    ctypedef struct Columns:
        Py_ssize_t n[6]
        Py_ssize_t *at
        Py_ssize_t every
        int tile_rows
    void rows_tiles(...) noexcept nogil

cdef enum:
    BAND_BYTES = 64 * 1024      # of packed rows: a part of L2
    ALIAS_BYTES = 4096          # rows that are so far apart share few sets of the L1 cache

cdef struct RowsPass:
    Py_ssize_t rows, cols               # its output pixels
    Py_ssize_t dst_at, dst_row, dst_col # where they go in the output plane
    Py_ssize_t src_at                   # where tap 0 of its first pixel may be read
    Py_ssize_t n_taps
    Py_ssize_t *source                  # (n_taps,) where in the filters of a feature each lies
    Py_ssize_t weights_at               # of (n_features, n_taps), column after column
    Columns columns                     # as read in the packed planes
    Columns in_place                    # ... and where the images are

cdef struct Rows:
    Sizes sizes
    Packing packing
    bint direct                         # tiles store to the output; else to a scratch buffer
    Py_ssize_t n_passes
    RowsPass *passes
    Py_ssize_t scratch_row, scratch_size
    Py_ssize_t odd_at                   # with a stride of 2: from even columns there to odd ones
    Py_ssize_t band                     # output rows that are packed at once; 0: all of a plane
    Py_ssize_t left, right              # columns of a band, whole vectors, that reach the border
    bint reads_in_place                 # those between them are not packed


cdef inline Py_ssize_t rows_every(const Correlation *task) noexcept nogil:
    """Rows between the taps of a phase."""
    cdef Py_ssize_t a = task.stride_y, b = task.dilation_y
    while b:
        a, b = b, a % b
    return task.dilation_y // a


cdef bint rows_accept(const Correlation *task) noexcept nogil:
    return (task.n_features == task.groups and task.fil_h > task.stride_y
            and task.y.shortest // rows_every(task) >= MIN_ROWS)


cdef double rows_cycles(const Correlation *task) noexcept nogil:
    """About how long an image takes: each vector of outputs, and of what is packed."""
    cdef double vectors = task.n_features * task.y.n_phases * task.x.n_phases * (
        task.y.longest * ceil_div(task.x.longest, task.lanes))
    return vectors * (1.2 * task.n_taps + 4) + 8.0 * task.n_channels * task.packing.rows * ceil_div(
        task.packing.cols, task.lanes)


cdef void *rows_plan(const Correlation *task, Workspace memory) except NULL:
    cdef Rows *plan = <Rows *>memory.take(sizeof(Rows))
    cdef const Packing *p = &plan.packing
    cdef Py_ssize_t lanes = task.lanes, rows = task.y.longest, cols = task.x.longest, i, at
    cdef bint is_dense = task.y.out_step == 1 and task.x.out_step == 1
    plan.direct = is_dense and cols >= lanes
    # Vectors read past the ends of short rows.
    if is_dense and pack_is_needless(&task.packing, rows, cols, lanes) and cols >= lanes:
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
    rows_bands(task, plan, memory)
    plan.sizes.buffer = pack_buffer(p, task.n_channels // task.groups, lanes)
    if plan.band:
        plan.sizes.buffer = ceil_div(
            (plan.band + p.rows - plan.passes.rows + 1) * p.pitch + 2 * lanes, lanes) * lanes
    plan.sizes.thread = plan.sizes.buffer + 2 * plan.scratch_size
    if task.folds:
        plan.sizes.thread += task.out_h * task.out_w
    return plan


cdef RowsPass rows_pass(const Correlation *task, const Rows *plan, const Phase *y, const Phase *x,
                        Py_ssize_t weights_at, Workspace memory) except *:
    cdef RowsPass run
    cdef Py_ssize_t n = y.n_taps * x.n_taps * (task.n_channels // task.groups)
    run.rows, run.cols, run.n_taps, run.weights_at = y.count, x.count, n, weights_at
    run.dst_at = y.pixel * task.out_w + x.pixel
    run.dst_row, run.dst_col = task.y.out_step * task.out_w, task.x.out_step
    run.src_at = y.first * plan.packing.pitch + x.first
    run.source = <Py_ssize_t *>memory.take(n * sizeof(Py_ssize_t))
    run.columns = rows_columns(task, &plan.packing, y, x, run.source, memory)
    return run


cdef Columns rows_columns(const Correlation *task, const Packing *p, const Phase *y,
                          const Phase *x, Py_ssize_t *source, Workspace memory) except *:
    """The taps (c, i, j) as columns, and where in a feature's filters they lie, in that order.

    Forward, every n_phases-th row of taps is in the same column; backward, later rows of taps
    read earlier rows of pixels.
    """
    cdef Columns columns
    cdef Py_ssize_t step = 1 if task.backward else p.n_phases_y, channels, n_columns = 0
    cdef Py_ssize_t length, c, j, phase, n, cut, k, i, m, t = 0
    channels = task.n_channels // task.groups
    columns.every = rows_every(task)
    columns.tile_rows = best_tile_rows(y.count // columns.every)
    columns.at = <Py_ssize_t *>memory.take(
        y.n_taps * x.n_taps * channels * sizeof(Py_ssize_t))
    for length in range(MAX_COLUMN, 0, -1):
        columns.n[length] = 0
        for c in range(channels):
            for phase in range(min(step, y.n_taps)):
                n = ceil_div(y.n_taps - phase, step)
                k = ceil_div(n, MAX_COLUMN)
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


cdef void rows_bands(const Correlation *task, Rows *plan, Workspace memory) except *:
    """Whether planes are packed in bands of whole tiles of rows, and partly read in place."""
    cdef const Packing *p = &plan.packing
    cdef RowsPass *run = plan.passes
    cdef Packing unpacked
    cdef Py_ssize_t lanes = task.lanes, more = p.rows - run.rows, n
    plan.band, plan.reads_in_place = 0, False
    if not (plan.n_passes == 1 and plan.direct and not task.folds and not p.in_place
            and task.n_channels == task.groups and run.columns.every == 1
            and p.n_phases_y == 1 and p.n_phases_x == 1):
        return
    n = max(BAND_BYTES // task.itemsize // p.pitch - more, more)
    n = ceil_div(n, run.columns.tile_rows) * run.columns.tile_rows
    if 2 * n >= run.rows:
        return
    plan.band = n
    plan.left = ceil_div(p.left, lanes) * lanes
    plan.right = ceil_div(max(<Py_ssize_t>0, p.cols - p.left - p.w), lanes) * lanes
    plan.reads_in_place = (2 * (plan.left + plan.right) <= run.cols
                           and p.w * task.itemsize % ALIAS_BYTES != 0)
    unpacked = p[0]
    unpacked.pitch = p.w
    run.in_place = rows_columns(task, &unpacked, task.y.phases, task.x.phases, run.source, memory)
    for n in range(run.n_taps):     # there are at most so many columns
        run.in_place.at[n] += task.y.phases.first * p.w + task.x.phases.first


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
    cdef const real *planes
    cdef real *out = <real *>call.out + n0 * task.n_features * task.out_size
    cdef real *padded = buffer + plan.sizes.buffer + 2 * plan.scratch_size
    for k in range(part * task.n_features // call.share.parts,
                   (part + 1) * task.n_features // call.share.parts):
        planes = imgs + k * channels * size
        if plan.band:
            rows_in_bands(call, plan, out + k * task.out_size, planes, buffer, k)
            continue
        if not p.in_place:
            pack_stack(buffer, imgs, 1, task.n_channels, k * channels, channels, p)
            planes = buffer
        rows_feature(call, plan, padded if task.folds else out + k * task.out_size, planes,
                     buffer + plan.sizes.buffer, k)
        if task.folds:
            fold_plane(out + k * task.out_size, padded, task.out_h, task.out_w, &task.fold)


cdef void rows_feature(const Call *call, const Rows *plan, real *dst, const real *planes,
                       real *scratch, Py_ssize_t k) noexcept nogil:
    """All outputs of feature k from its planes."""
    cdef const Correlation *task = call.task
    cdef const real *packed = <const real *>call.packed
    cdef const RowsPass *run
    cdef const RowsPass *even
    cdef const real *source = scratch
    cdef Py_ssize_t i, y, x
    cdef real *to
    for i in range(plan.n_passes):
        run = &plan.passes[i]
        to = dst + run.dst_at if plan.direct else scratch + (i & 1) * plan.odd_at
        rows_tiles(to, run.dst_row if plan.direct else plan.scratch_row, planes + run.src_at,
                   plan.packing.pitch, run.rows, run.cols, &run.columns,
                   packed + run.weights_at + k * run.n_taps, packed[k], call.with_relu)
        if plan.direct or not i & 1 and plan.odd_at:
            continue
        even = run - 1 if plan.odd_at else run
        to, source = dst + even.dst_at, scratch
        for y in range(run.rows):
            if run.dst_col == 1:
                copy(to, source, run.cols)
            elif plan.odd_at:
                zip_rows(to, source, source + plan.odd_at, even.cols, run.cols)
            else:
                for x in range(run.cols):
                    to[x * run.dst_col] = source[x]
            to += run.dst_row
            source += plan.scratch_row


cdef void rows_in_bands(const Call *call, const Rows *plan, real *dst, const real *plane,
                        real *buffer, Py_ssize_t k) noexcept nogil:
    """The same for large planes."""
    cdef const RowsPass *run = plan.passes
    cdef const real *packed = <const real *>call.packed
    cdef Packing part = plan.packing
    cdef Py_ssize_t y = 0
    part.rows = plan.band + plan.packing.rows - run.rows
    while y < run.rows:
        y = min(y, run.rows - plan.band)
        part.top = plan.packing.top - y
        if not plan.reads_in_place or part.top > 0 or part.rows - part.top > part.h:
            rows_band(call, plan, dst, plane, buffer, &part, y, 0, run.cols, k)
        else:
            rows_band(call, plan, dst, plane, buffer, &part, y, 0, plan.left, k)
            rows_band(call, plan, dst, plane, buffer, &part, y, run.cols - plan.right,
                      plan.right, k)
            rows_tiles(dst + run.dst_at + y * run.dst_row + plan.left, run.dst_row,
                       plane - part.top * part.w + plan.left - part.left, part.w, plan.band,
                       run.cols - plan.left - plan.right, &run.in_place,
                       packed + run.weights_at + k * run.n_taps, packed[k], call.with_relu)
        y += plan.band


cdef void rows_band(
    const Call *call, const Rows *plan, real *dst, const real *plane, real *buffer,
    const Packing *part, Py_ssize_t y, Py_ssize_t x, Py_ssize_t cols, Py_ssize_t k,
) noexcept nogil:
    """Columns [x, x + cols) of the band of outputs that starts at row y."""
    cdef const RowsPass *run = plan.passes
    cdef const real *packed = <const real *>call.packed
    cdef Packing piece = part[0]
    cdef Py_ssize_t r
    piece.left -= x
    piece.cols += cols - run.cols
    buffer += x
    pack_plane(buffer, plane, &piece)
    for r in range(piece.rows if piece.border == BORDER_ZEROS else 0):
        if r < piece.top or r >= piece.top + piece.h:
            memset(buffer + r * piece.pitch, 0, piece.cols * sizeof(real))
    rows_tiles(dst + run.dst_at + y * run.dst_row + x, run.dst_row, buffer + run.src_at,
               piece.pitch, plan.band, cols, &run.columns,
               packed + run.weights_at + k * run.n_taps, packed[k], call.with_relu)
