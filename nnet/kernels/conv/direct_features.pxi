# Correlation with features in the lanes: where there are enough of them to fill vectors, no lane
# is lost to the shape of an image. Needs conv/tiles.h, conv/correlation.pxi, conv/transpose.pxi.
#
# A thread copies its images pixel by pixel, with all channels of a pixel side by
# side, and padding around them (4 x 4 pixels of 3 channels a, b, c, padded by 1):
#
#     0 0 0 .  0 0 0 .   0 0 0 .  ...       depth: channels, rounded up to vectors
#     0 0 0 .  a b c .   a b c .  ...
#     0 0 0 .  a b c .   ...                cols: pixels in a row
#
# Every tap (i, j, c) is a constant distance away from an output pixel, for all
# strides; a tile takes any pixels whatever and all of their features. The results
# are pixels with their features side by side, and are transposed to planes at last.

cdef enum:
    UNIT_BYTES = 524288     # for a unit of work: half of an L2 cache of 1 MB
    UNIT_PIXELS = 64        # that it has at least: some ten tiles

cdef struct Winograd                    # in winograd.pxi

cdef struct FeaturesPass:               # one correlation of the packed pixels
    Py_ssize_t rows, cols               # its output pixels
    Py_ssize_t n_ij, n_taps             # taps of a filter, and of all channels of a group
    Py_ssize_t *ij                      # (n_ij,) where in a filter they lie
    Py_ssize_t *tap_at                  # (n_taps,)
    Py_ssize_t weights_at               # of (n_taps, width) of each block
    Py_ssize_t *src_at                  # (stack, strip, cols) where tap 0 is read
    Py_ssize_t *dst_at                  # (stack, strip, cols) which output pixel it is

cdef struct FeatureBlocks:              # whole vectors of features, spread evenly over a group
    Py_ssize_t vectors                  # of a group
    Py_ssize_t per_group, n
    int widest                          # vectors, at most, in a block

cdef struct Grid:                       # how rows of a pass and packed pixels lie
    Py_ssize_t pass_rows, pass_cols     # of the longest pass (of Winograd's algorithm: tiles)
    Py_ssize_t in_step, in_extra        # n rows of it read n * in_step + in_extra packed rows ...
    Py_ssize_t out_step                 # ... and are n * out_step rows of the output plane
    Py_ssize_t rows, cols               # the packed plane: padded, as far as tiles read
    Py_ssize_t read_rows, read_cols     # of these as far as taps read: what is beyond stays zero
    bint in_place                       # the images serve as they are: nothing is packed
    Py_ssize_t depth                    # from one packed pixel to the next ...
    Py_ssize_t channel_pitch            # ... one channel to the next

cdef struct Features:
    Sizes sizes
    FeatureBlocks blocks
    Grid grid
    Py_ssize_t stack, strip             # at most, images and rows of a pass in a unit
    Py_ssize_t img_pitch                # from one image of a unit to the next, in packed pixels
    Py_ssize_t *pixel_at                # (h, w) which packed pixel each pixel becomes
    Py_ssize_t n_passes
    FeaturesPass *passes
    Winograd *winograd                  # not NULL: instead of the passes
    Py_ssize_t scratch_size             # of a thread, for Winograd's algorithm

cdef struct Strip:                      # what belongs to a unit of work
    Py_ssize_t n0, n                    # images
    Py_ssize_t row, n_rows              # of a pass
    Py_ssize_t first, end               # packed rows that they read
    Py_ssize_t y0, y1                   # rows of the output plane


# --- what it costs ------------------------------------------------------------------

cdef double features_cycles(const Correlation *task) noexcept nogil:
    """About how long an image takes."""
    cdef Py_ssize_t n_pixels = task.out_h * task.out_w
    cdef Py_ssize_t vectors = ceil_div(task.n_features // task.groups, task.lanes)
    cdef Grid grid = features_grid(task)
    return (task.groups * n_tiles_of(n_pixels) * tiles_cycles(vectors, task.n_taps, 1)
            + transposition_cycles(task, n_pixels, vectors * task.groups, grid.in_place))


cdef inline double n_tiles_of(Py_ssize_t n_pixels) noexcept nogil:
    """Tiles, of which the last may be smaller."""
    cdef Py_ssize_t left = n_pixels % TILE_PIXELS
    return n_pixels // TILE_PIXELS + (
        0 if left == 0 else 1 if left > LAST_PIXELS else LAST_PIXELS / <double>TILE_PIXELS)


cdef double tiles_cycles(Py_ssize_t n_vectors, double n_taps, Py_ssize_t n_sums) noexcept nogil:
    """About how long TILE_PIXELS pixels take, for all vectors of the features of a group.

    Each of n_sums sums, which have so many taps together, begins and ends its tiles.
    """
    cdef Py_ssize_t blocks = ceil_div(n_vectors, <Py_ssize_t>MAX_FEATURE_VECTORS)
    # A block of one vector waits for its own sums.
    cdef double tap = TILE_PIXELS * n_vectors
    if n_vectors % MAX_FEATURE_VECTORS:
        tap += max(0, LATENCY - TILE_PIXELS)
    return 1.03 * tap * n_taps + 40 * blocks * n_sums


cdef double transposition_cycles(const Correlation *task, double n_pixels, Py_ssize_t vectors,
                                 bint in_place) noexcept nogil:
    """About how long planes to pixels, and back, takes: one vector and one pixel after another."""
    cdef Py_ssize_t n_read = 0 if in_place else task.packing.h * task.packing.w
    return 8 * (n_read * ceil_div(task.n_channels, task.lanes) + n_pixels * vectors)


# --- the plan -----------------------------------------------------------------------

cdef void *features_plan(const Correlation *task, Workspace memory) except NULL:
    cdef Grid grid = features_grid(task)
    cdef Features *plan = features_begun(task, grid, 0, memory)
    cdef Py_ssize_t i, at = plan.blocks.n * plan.blocks.widest * task.lanes
    plan.winograd, plan.scratch_size = NULL, 0
    plan.n_passes = task.y.n_phases * task.x.n_phases
    plan.passes = <FeaturesPass *>memory.take(plan.n_passes * sizeof(FeaturesPass))
    for i in range(plan.n_passes):
        plan.passes[i] = features_pass(
            task, plan, &task.y.phases[i // task.x.n_phases],
            &task.x.phases[i % task.x.n_phases], at, memory)
        at += plan.passes[i].n_taps * features_before(task, &plan.blocks, plan.blocks.n)
    plan.sizes.packed = at
    features_sizes(task, plan)
    return plan


cdef Grid features_grid(const Correlation *task) noexcept nogil:
    cdef const Packing *p = &task.packing
    cdef Grid grid
    grid.pass_rows, grid.pass_cols = task.y.longest, task.x.longest
    grid.in_step, grid.out_step = task.y.in_step, task.y.out_step
    grid.in_extra = task.y.last + 1 - grid.in_step
    grid.cols = (grid.pass_cols - 1) * task.x.in_step + task.x.last + 1
    return grid_around(task, grid, False)


cdef Grid grid_around(const Correlation *task, Grid grid, bint packs) noexcept nogil:
    """Large enough for all pixels; in place if they are all there is."""
    cdef const Packing *p = &task.packing
    grid.read_rows = (task.y.longest - 1) * task.y.in_step + task.y.last + 1
    grid.read_cols = (task.x.longest - 1) * task.x.in_step + task.x.last + 1
    grid.rows = grid.pass_rows * grid.in_step + grid.in_extra
    if p.border != BORDER_ZEROS:
        grid.rows = max(grid.rows, p.top + p.h)     # padding is made of all rows
        grid.in_extra = grid.rows - grid.pass_rows * grid.in_step
    grid.cols = max(grid.cols, p.left + p.w)
    grid.in_place = not packs and p.top == 0 and p.left == 0 and grid.rows <= p.h and (
        grid.cols == p.w)
    grid.depth, grid.channel_pitch = ceil_div(task.n_channels, task.lanes) * task.lanes, 1
    if grid.in_place:
        grid.depth, grid.channel_pitch = 1, p.h * p.w
    return grid


cdef FeatureBlocks feature_blocks(const Correlation *task) noexcept nogil:
    cdef FeatureBlocks blocks
    blocks.vectors = ceil_div(task.n_features // task.groups, task.lanes)
    blocks.per_group = ceil_div(blocks.vectors, <Py_ssize_t>MAX_FEATURE_VECTORS)
    blocks.n = blocks.per_group * task.groups
    blocks.widest = <int>ceil_div(blocks.vectors, blocks.per_group)
    return blocks


cdef inline int vectors_of(const FeatureBlocks *blocks, Py_ssize_t b) noexcept nogil:
    """Vectors in a block."""
    b %= blocks.per_group
    return <int>((b + 1) * blocks.vectors // blocks.per_group
                 - b * blocks.vectors // blocks.per_group)


cdef inline Py_ssize_t first_feature(const Correlation *task, const FeatureBlocks *blocks,
                                     Py_ssize_t b) noexcept nogil:
    cdef Py_ssize_t per_group = task.n_features // task.groups
    return b // blocks.per_group * per_group + min(
        b % blocks.per_group * blocks.vectors // blocks.per_group * task.lanes, per_group)


cdef inline Py_ssize_t features_before(const Correlation *task, const FeatureBlocks *blocks,
                                       Py_ssize_t b) noexcept nogil:
    """Features before block b, with each group rounded up to whole vectors."""
    return task.lanes * (b // blocks.per_group * blocks.vectors
                         + b % blocks.per_group * blocks.vectors // blocks.per_group)


cdef Features *features_begun(const Correlation *task, Grid grid, Py_ssize_t row_values,
                              Workspace memory) except NULL:
    """A plan with its blocks, units and packed pixels.

    A thread keeps `row_values` and what is packed for each row of a pass, which should stay in
    the L2 cache. A unit should fill some tiles.
    """
    cdef Features *plan = <Features *>memory.take(sizeof(Features))
    cdef const Packing *p = &task.packing
    cdef Py_ssize_t most, enough = ceil_div(UNIT_PIXELS, grid.pass_cols), y, x
    plan.grid, plan.blocks = grid, feature_blocks(task)
    row_values += grid.in_step * grid.cols * grid.depth
    row_values += task.out_w * grid.out_step * plan.blocks.widest * task.lanes
    most = max(<Py_ssize_t>1, UNIT_BYTES // (row_values * task.itemsize))   # rows
    plan.stack, plan.strip = 1, grid.pass_rows
    if grid.pass_rows < enough:
        plan.stack = max(<Py_ssize_t>1, min(most, enough) // grid.pass_rows)
        plan.stack = fullest_stack(grid.pass_rows * grid.pass_cols, plan.stack)
    elif p.border == BORDER_ZEROS and not task.folds:
        plan.strip = even_strip(grid.pass_rows, max(most, enough), 1)
    plan.img_pitch = (plan.strip * grid.in_step + grid.in_extra) * grid.cols
    plan.pixel_at = NULL
    if grid.in_place:
        plan.img_pitch = task.n_channels * p.h * p.w
        return plan
    plan.pixel_at = <Py_ssize_t *>memory.take(p.h * p.w * sizeof(Py_ssize_t))
    for y in range(p.h):
        for x in range(p.w):
            plan.pixel_at[y * p.w + x] = ((y + p.top) * grid.cols + x + p.left) * grid.depth
    return plan


cdef Py_ssize_t fullest_stack(Py_ssize_t n_pixels, Py_ssize_t most) noexcept nogil:
    """How many images, up to `most`, leave the fewest pixels of their last tile empty."""
    cdef Py_ssize_t stack, best = 1
    for stack in range(2, most + 1):
        if (ceil_div(stack * n_pixels, TILE_PIXELS) * best
                <= ceil_div(best * n_pixels, TILE_PIXELS) * stack):
            best = stack
    return best


cdef Py_ssize_t even_strip(Py_ssize_t n_rows, Py_ssize_t strip, Py_ssize_t multiple) noexcept nogil:
    """About `strip` of n_rows rows, so that all strips are as long, a multiple of something."""
    strip = ceil_div(n_rows, ceil_div(n_rows, strip))
    return min(ceil_div(strip, multiple) * multiple, n_rows)


cdef FeaturesPass features_pass(
    const Correlation *task, const Features *plan, const Phase *y, const Phase *x,
    Py_ssize_t weights_at, Workspace memory,
) except *:
    """The tables of one pass: its taps and its pixels."""
    cdef FeaturesPass run
    cdef const Grid *grid = &plan.grid
    cdef Py_ssize_t channels = task.n_channels // task.groups
    cdef Py_ssize_t c, i, j, s, r, k, m = 0, src, dst, n
    run.rows, run.cols = y.count, x.count
    run.n_ij, run.n_taps = y.n_taps * x.n_taps, y.n_taps * x.n_taps * channels
    run.weights_at = weights_at
    run.ij = <Py_ssize_t *>memory.take(run.n_ij * sizeof(Py_ssize_t))
    run.tap_at = <Py_ssize_t *>memory.take(run.n_taps * sizeof(Py_ssize_t))
    for i in range(y.n_taps):
        for j in range(x.n_taps):
            run.ij[m] = y.tap[i] * task.fil_w + x.tap[j]
            k = (y.shift[i] * grid.cols + x.shift[j]) * grid.depth
            for c in range(channels):
                run.tap_at[m * channels + c] = k + c * grid.channel_pitch
            m += 1
    n = plan.stack * min(run.rows, plan.strip) * run.cols
    run.src_at = <Py_ssize_t *>memory.take(n * sizeof(Py_ssize_t))
    run.dst_at = <Py_ssize_t *>memory.take(n * sizeof(Py_ssize_t))
    m = 0
    for s in range(plan.stack):
        for r in range(min(run.rows, plan.strip)):
            src = s * plan.img_pitch + (r * grid.in_step + y.first) * grid.cols + x.first
            dst = (s * task.out_h + r * grid.out_step + y.pixel) * task.out_w + x.pixel
            for k in range(run.cols):
                run.src_at[m] = (src + k * task.x.in_step) * grid.depth
                run.dst_at[m] = dst + k * task.x.out_step
                m += 1
    return run


cdef void features_sizes(const Correlation *task, Features *plan) noexcept nogil:
    """What a thread needs for a unit."""
    cdef Py_ssize_t n_pixels = plan.stack * task.out_h * task.out_w
    if plan.strip < plan.grid.pass_rows:
        n_pixels = plan.strip * plan.grid.out_step * task.out_w
    if task.folds:
        n_pixels += task.out_size
    plan.sizes.buffer = 0 if plan.grid.in_place else plan.stack * plan.img_pitch * plan.grid.depth
    plan.sizes.thread = plan.sizes.buffer + plan.scratch_size + (
        n_pixels * plan.blocks.widest * task.lanes)


cdef Share features_share(const Correlation *task, const void *plan_, Py_ssize_t n_imgs,
                          int n_threads) noexcept nogil:
    """Stacks of images or strips of one, a few for every thread; or blocks of features."""
    cdef const Features *plan = <const Features *>plan_
    cdef Share share
    cdef Py_ssize_t rows = plan.grid.pass_rows
    cdef Py_ssize_t enough = ceil_div(UNIT_PIXELS, plan.grid.pass_cols)
    share.stack, share.rows, share.n_threads = plan.stack, plan.strip, n_threads
    if plan.stack > 1:
        share.stack = fullest_stack(
            rows * plan.grid.pass_cols, min(plan.stack, ceil_div(n_imgs, 2 * n_threads)))
    elif (n_threads > 1 and n_imgs < 2 * n_threads and rows > enough
          and task.packing.border == BORDER_ZEROS and not task.folds):
        # Winograd tiles of different rows lie within each other.
        share.rows = min(plan.strip, even_strip(
            rows, max(enough, ceil_div(rows * n_imgs, 2 * n_threads)),
            plan.winograd.y.dilation if plan.winograd != NULL else 1))
    share.zeros = 0
    if not plan.grid.in_place:
        share.zeros = plan.grid.depth * (
            share.stack * plan.img_pitch if share.rows == rows
            else (share.rows * plan.grid.in_step + plan.grid.in_extra) * plan.grid.cols)
    share.parts = ceil_div(rows, share.rows)
    share.n_units = ceil_div(n_imgs, share.stack) * share.parts
    share.splits = 1
    if share.n_units < n_threads:
        share.splits = min(plan.blocks.n, n_threads)
        share.n_units *= share.splits
    return share


# --- the run ------------------------------------------------------------------------

cdef Strip strip_of(const Call *call, const Features *plan, Py_ssize_t unit) noexcept nogil:
    cdef const Share *share = &call.share
    cdef const Grid *grid = &plan.grid
    cdef Strip strip
    unit //= share.splits
    strip.row = unit % share.parts * share.rows
    strip.n0 = unit // share.parts * share.stack
    strip.n = stacked_images(call, strip.n0)
    strip.n_rows = min(share.rows, grid.pass_rows - strip.row)
    strip.first = strip.row * grid.in_step
    strip.end = min(strip.first + strip.n_rows * grid.in_step + grid.in_extra, grid.rows)
    strip.y0 = strip.row * grid.out_step
    strip.y1 = min((strip.row + strip.n_rows) * grid.out_step, call.task.out_h)
    return strip


cdef void features_unit(real *buffer, const Call *call, Py_ssize_t unit) noexcept nogil:
    """A stack of images or a strip of one, and some blocks of features."""
    cdef const Correlation *task = call.task
    cdef const Features *plan = <const Features *>call.plan
    cdef const Grid *grid = &plan.grid
    cdef Strip strip = strip_of(call, plan, unit)
    cdef Py_ssize_t img_size = task.n_channels * task.packing.h * task.packing.w, b, s, i, rows
    cdef Py_ssize_t channels = task.n_channels // task.groups, split = unit % call.share.splits
    cdef const real *imgs = <const real *>call.imgs + strip.n0 * img_size
    cdef const real *bias
    cdef const real *src = buffer
    cdef const FeaturesPass *run
    cdef real *scratch = buffer + plan.sizes.buffer
    cdef real *result = scratch + plan.scratch_size
    if grid.in_place:
        src = imgs + strip.first * grid.cols
    for s in range(0 if grid.in_place else strip.n):
        pack_image(task, plan, buffer + s * plan.img_pitch * grid.depth, imgs + s * img_size,
                   &strip)
    if plan.winograd != NULL:
        winograd_input(task, plan, scratch, buffer, strip.n, strip.n_rows)
    for b in range(split * plan.blocks.n // call.share.splits,
                   (split + 1) * plan.blocks.n // call.share.splits):
        bias = <const real *>call.packed + b * plan.blocks.widest * task.lanes
        if plan.winograd != NULL:
            winograd_block(call, plan, b, result, scratch, bias, &strip)
        for i in range(plan.n_passes):
            run = &plan.passes[i]
            rows = clip(run.rows - strip.row, 0, strip.n_rows)
            features_tiles(
                result, run.dst_at, src + b // plan.blocks.per_group * channels * grid.channel_pitch,
                run.src_at, strip.n * rows * run.cols, run.tap_at,
                <const real *>call.packed + run.weights_at
                + run.n_taps * features_before(task, &plan.blocks, b),
                run.n_taps, <Py_ssize_t>TERMS, bias, call.with_relu, vectors_of(&plan.blocks, b))
        features_output(call, plan, b, result, &strip)
