# Winograd's minimal filtering F(2x2, 3x3): 16 multiplications for 2 x 2 outputs, where the direct
# sum takes 36. Needs conv/winograd.h, conv/pieces.pxi, conv/direct_features.pxi. (Lavin and Gray
# 2016, "Fast algorithms for convolutional neural networks", section 4.1, eqs. 7 to 12.)
#
#     out = A' [ (G g G') * (B' d B) ] A      d: 4 x 4 pixels, g: 3 x 3 taps, *: by elements
#
#          1  0 -1  0           1   0   0
#     B' = 0  1  1  0      G = 1/2 1/2 1/2      A' = 1  1  1  0
#          0 -1  1  0          1/2 -1/2 1/2          0  1 -1 -1
#          0  1  0 -1           0   0   1
#
# The sums over channels are 16 correlations of transformed pixels, one for each element, on the
# tile of direct_features. Their pixels are differences, so they are summed in shorter blocks.
# Larger filters, and strides of 2, are cut into pieces: see pieces.pxi. Back to the images the
# phases of a stride are outputs that read the same gradient: each is a pass of its own.
#
# With dilation d a tile's pixels are d apart; tile rows q*d to q*d + d - 1 lie within each other.

from libc.math cimport sqrt

cdef extern from "conv/winograd.h":
    void transform_pixels(...) noexcept nogil
    void transform_taps(...) noexcept nogil
    void transform_sums(...) noexcept nogil

cdef enum:
    # 64 channels of rectified normal pixels err by 1.6e-7 in blocks of 16, 2.3e-7 in one; longer
    # sums err least in as many blocks as each has terms.
    WINOGRAD_TERMS = 16
    # Products in the longest direct sums from which on Winograd's algorithm errs no more than
    # they do, by root mean square, also for rectified pixels; with 36 it errs 1.4 times as much.
    WINOGRAD_TAPS = 144

cdef struct TiledAxis:
    Pieces pieces
    Py_ssize_t dilation
    Py_ssize_t in_step, out_step        # between the pixels of a phase: 1, or the stride
    Py_ssize_t first[2]                 # the packed pixel that the first tap of a phase reads ...
    Py_ssize_t pixel[2]                 # ... for this output pixel, the first of the phase
    Py_ssize_t tiles                    # of outputs
    Py_ssize_t halo                     # tiles that only pieces read

cdef struct Winograd:
    TiledAxis y, x
    Py_ssize_t *grid_at                 # (stack, strip, x.tiles) where each tile is in the grid
    Py_ssize_t *dense_at                # 0, 1, 2, ...
    Py_ssize_t n_passes                 # phases of outputs
    Py_ssize_t n_taps[64]               # (passes, 16), channels and pieces
    Py_ssize_t *tap_at[64]
    Py_ssize_t n_all                    # of all passes and elements
    Py_ssize_t weights_at               # of (blocks) (passes) (16) (n_taps, width)
    Py_ssize_t pitch                    # from one element of the transformed pixels to the next
    Py_ssize_t sums_pitch               # from one element of their sums to the next


# --- what it costs ------------------------------------------------------------------

cdef bint winograd_accepts(const Correlation *task) noexcept nogil:
    return task.pieces_y.n > 0 and task.pieces_x.n > 0


cdef bint winograd_is_accurate(const Correlation *task) noexcept nogil:
    """Whether sums are so long that it errs no more than direct ones."""
    cdef Py_ssize_t longest = (task.n_channels // task.groups
                               * min(task.y.most_taps, task.packing.h)
                               * min(task.x.most_taps, task.packing.w))
    return longest >= WINOGRAD_TAPS


cdef double winograd_cycles(const Correlation *task) noexcept nogil:
    """About how long an image takes, the filters aside: batches transform them once."""
    cdef const Pieces *y = &task.pieces_y
    cdef const Pieces *x = &task.pieces_x
    cdef Py_ssize_t vectors = ceil_div(task.n_features // task.groups, task.lanes)
    cdef Py_ssize_t n_passes_y = task.y.n_phases, n_passes_x = task.x.n_phases
    cdef Py_ssize_t n_tiles = (ceil_div(task.out_h, 2 * n_passes_y)
                               * ceil_div(task.out_w, 2 * n_passes_x))
    cdef double n_sums = n_passes_y * n_passes_x * n_tiles
    cdef bint is_strided = y.stride > 1 or x.stride > 1
    return (
        task.groups * n_tiles_of(n_tiles) * tiles_cycles(
            vectors, task.n_channels // task.groups * <double>y.n_products * x.n_products,
            16 * n_passes_y * n_passes_x)
        + n_tiles * ceil_div(task.n_channels, task.lanes) * y.n_elements * x.n_elements * (
            8 if is_strided else 4)
        + n_sums * vectors * task.groups * 60
        + transposition_cycles(task, 4 * n_sums, vectors * task.groups, False)
    )


# --- the plan -----------------------------------------------------------------------

cdef void *winograd_plan(const Correlation *task, Workspace memory) except NULL:
    cdef Winograd *w = <Winograd *>memory.take(sizeof(Winograd))
    w.y = tiled_axis(&task.y, &task.pieces_y, task.dilation_y, task.out_h, task.backward)
    w.x = tiled_axis(&task.x, &task.pieces_x, task.dilation_x, task.out_w, task.backward)
    w.n_passes = w.y.out_step * w.x.out_step
    cdef Grid grid = winograd_grid(task, w)
    cdef Py_ssize_t tile_row = (
        w.y.pieces.n_elements * w.x.pieces.n_elements * (w.x.tiles + w.x.halo) * grid.depth
        + 16 * w.x.tiles * feature_blocks(task).widest * task.lanes)
    cdef Features *plan = features_begun(task, grid, tile_row, memory)
    # Rows of tiles within each other stay together.
    plan.strip = even_strip(grid.pass_rows, plan.strip, w.y.dilation)
    plan.img_pitch = (plan.strip * grid.in_step + grid.in_extra) * grid.cols
    plan.winograd, plan.n_passes = w, 0
    w.weights_at = plan.blocks.n * plan.blocks.widest * task.lanes
    winograd_tables(task, plan, w, memory)
    plan.scratch_size = 16 * (w.y.pieces.stride * w.x.pieces.stride * w.pitch + w.sums_pitch)
    plan.sizes.packed = w.weights_at + w.n_all * features_before(task, &plan.blocks, plan.blocks.n)
    features_sizes(task, plan)
    return plan


cdef TiledAxis tiled_axis(const Axis *axis, const Pieces *pieces, Py_ssize_t dilation,
                          Py_ssize_t size, bint backward) noexcept nogil:
    """Where the phases of an axis with `size` outputs start."""
    cdef TiledAxis w
    cdef Py_ssize_t q, k, last
    cdef const Phase *phase
    w.pieces, w.dilation = pieces[0], dilation
    w.in_step, w.out_step = pieces.stride, 1
    if backward:
        w.in_step, w.out_step = 1, pieces.stride
    for q in range(pieces.stride):
        w.first[q], w.pixel[q] = axis.first + q, 0
        if backward:
            w.first[q], w.pixel[q] = 0, size    # a phase that a single pixel does not have
            for k in range(axis.n_phases):
                phase = &axis.phases[k]
                last = phase.n_taps - 1
                if phase.n_taps and phase.tap[last] == pieces.n_taps - 1 - q:   # flipped
                    w.first[q], w.pixel[q] = phase.first + phase.shift[last], phase.pixel
    w.tiles = ceil_div(ceil_div(size, w.out_step), 2 * dilation) * dilation
    w.halo = (pieces.n_shifts - 1) * dilation
    return w


cdef Grid winograd_grid(const Correlation *task, const Winograd *w) noexcept nogil:
    """Rows of tiles take the place of rows of a pass."""
    cdef Grid grid
    grid.pass_rows, grid.pass_cols = w.y.tiles, w.x.tiles
    grid.in_step, grid.out_step = 2 * w.y.in_step, 2 * w.y.out_step
    grid.in_extra = max(w.y.first[0], w.y.first[w.y.pieces.stride - 1]) + (
        2 * w.y.in_step * (w.y.halo + w.y.dilation))
    grid.cols = max(w.x.first[0], w.x.first[w.x.pieces.stride - 1]) + (
        2 * w.x.in_step * (w.x.tiles + w.x.halo + w.x.dilation))
    return grid_around(task, grid, True)


cdef void winograd_tables(const Correlation *task, const Features *plan, Winograd *w,
                          Workspace memory) except *:
    """Tables of taps and tiles."""
    cdef Py_ssize_t channels = task.n_channels // task.groups, depth = plan.grid.depth
    cdef Py_ssize_t grid_rows = plan.strip + w.y.halo, grid_cols = w.x.tiles + w.x.halo
    cdef Py_ssize_t n = plan.stack * plan.strip * w.x.tiles, e, r, m, c, s, t, u, py, px
    cdef Piece y, x
    cdef int elements
    w.pitch = spread(plan.stack * grid_rows * grid_cols * depth, task.lanes)
    w.sums_pitch = spread(n * plan.blocks.widest * task.lanes, task.lanes)
    for r in range(16 * w.n_passes):
        w.tap_at[r] = <Py_ssize_t *>memory.take(
            w.y.pieces.n * w.x.pieces.n * channels * sizeof(Py_ssize_t))
        w.n_taps[r] = 0
    for py in range(w.y.pieces.n):
        y = axis_piece(&w.y.pieces, py)
        for px in range(w.x.pieces.n):
            x = axis_piece(&w.x.pieces, px)
            m = 16 * (y.phase * w.x.pieces.stride + x.phase) * w.pitch + depth * (
                y.shift * w.y.dilation * grid_cols + x.shift * w.x.dilation)
            elements = elements_of(y, x)
            for e in range(16):
                if elements >> e & 1:
                    r = 16 * pass_of(w, y, x) + e
                    for c in range(channels):
                        w.tap_at[r][w.n_taps[r] + c] = m + c
                    w.n_taps[r] += channels
    w.n_all = 0
    for r in range(16 * w.n_passes):
        w.n_all += w.n_taps[r]
    w.grid_at = <Py_ssize_t *>memory.take(n * sizeof(Py_ssize_t))
    w.dense_at = <Py_ssize_t *>memory.take(n * sizeof(Py_ssize_t))
    m = 0
    for s in range(plan.stack):
        for t in range(plan.strip):
            for u in range(w.x.tiles):
                w.grid_at[m] = ((s * grid_rows + t) * grid_cols + u) * depth
                w.dense_at[m] = m
                m += 1


cdef inline Py_ssize_t spread(Py_ssize_t size, Py_ssize_t lanes) noexcept nogil:
    """An odd number of vectors: powers of two would put all 16 into the same cache sets."""
    return (ceil_div(size, lanes) | 1) * lanes


cdef inline Py_ssize_t pass_of(const Winograd *w, Piece y, Piece x) noexcept nogil:
    return y.phase * w.x.pieces.stride + x.phase if w.n_passes > 1 else 0


# --- the run ------------------------------------------------------------------------

cdef void winograd_pack(const Correlation *task, const void *plan_, const real *filters,
                        const real *bias, real *packed) noexcept nogil:
    """Biases, and G g G' of all pieces of all filters, of each block in the order of its taps."""
    cdef const Features *plan = <const Features *>plan_
    cdef const Winograd *w = plan.winograd
    cdef Py_ssize_t b, e, py, px, width
    cdef real *rows[64]
    cdef real *out = packed + w.weights_at
    features_pack_bias(task, &plan.blocks, bias, packed)
    for b in range(plan.blocks.n):
        width = vectors_of(&plan.blocks, b) * task.lanes
        for e in range(16 * w.n_passes):
            rows[e] = out
            out += w.n_taps[e] * width
        for py in range(w.y.pieces.n):
            for px in range(w.x.pieces.n):
                winograd_pack_piece(task, plan, rows, filters, b, axis_piece(&w.y.pieces, py),
                                    axis_piece(&w.x.pieces, px))


cdef void winograd_pack_piece(
    const Correlation *task, const Features *plan, real **rows, const real *filters, Py_ssize_t b,
    Piece y, Piece x,
) noexcept nogil:
    """One piece of the filters of a block; `rows` go on behind it."""
    cdef const Winograd *w = plan.winograd
    cdef Py_ssize_t k = first_feature(task, &plan.blocks, b), lanes = task.lanes, c, v, e
    cdef Py_ssize_t n = first_feature(task, &plan.blocks, b + 1) - k
    cdef Py_ssize_t first = y.first * task.fil_w + x.first
    cdef Py_ssize_t step_y = w.y.pieces.stride * task.fil_w, step_x = w.x.pieces.stride
    cdef int elements = elements_of(y, x), n_vectors = vectors_of(&plan.blocks, b)
    if task.backward:   # the filter is flipped
        first = task.fil_h * task.fil_w - 1 - first
        step_y, step_x = -step_y, -step_x
    filters += filters_of(task, &plan.blocks, b) + first
    rows += 16 * pass_of(w, y, x)
    for c in range(task.n_channels // task.groups):
        for v in range(n_vectors):
            transform_taps(rows, v * lanes,
                           filters + c * task.pitch.channel + v * lanes * task.pitch.feature,
                           step_y, step_x, task.pitch.feature, min(lanes, n - v * lanes),
                           <int>y.n_taps, <int>x.n_taps)
        for e in range(16):
            if elements >> e & 1:
                rows[e] += n_vectors * lanes


cdef inline Py_ssize_t tile_start(Py_ssize_t t, Py_ssize_t dilation) noexcept nogil:
    """The first output pixel of tile t of an axis."""
    return t // dilation * 2 * dilation + t % dilation


cdef void winograd_input(const Correlation *task, const Features *plan, real *transformed,
                         const real *buffer, Py_ssize_t n, Py_ssize_t n_rows) noexcept nogil:
    """Transform the packed pixels of a unit: (phases, 16, stack, rows and halo, cols and halo,
    depth)."""
    cdef const Winograd *w = plan.winograd
    cdef Py_ssize_t depth = plan.grid.depth, lanes = task.lanes
    cdef Py_ssize_t grid_rows = plan.strip + w.y.halo, grid_cols = w.x.tiles + w.x.halo
    cdef Py_ssize_t row = plan.grid.cols * depth, s, t, u, py, px, c
    cdef real *dst
    cdef const real *src
    for s in range(n):
        for t in range(n_rows + w.y.halo):
            for py in range(w.y.pieces.stride):
                for px in range(w.x.pieces.stride):
                    dst = transformed + 16 * (py * w.x.pieces.stride + px) * w.pitch
                    dst += (s * grid_rows + t) * grid_cols * depth
                    for u in range(grid_cols):
                        src = buffer + s * plan.img_pitch * depth + row * (
                            w.y.first[py] + w.y.in_step * tile_start(t, w.y.dilation))
                        src += depth * (w.x.first[px] + w.x.in_step * tile_start(u, w.x.dilation))
                        for c in range(depth // lanes):
                            transform_pixels(
                                dst + c * lanes, w.pitch, src + c * lanes,
                                row * w.y.in_step * w.y.dilation,
                                depth * w.x.in_step * w.x.dilation,
                                longest_piece(&w.y.pieces, py), longest_piece(&w.x.pieces, px))
                        dst += depth


cdef void winograd_block(
    const Call *call, const Features *plan, Py_ssize_t b, real *result, real *scratch,
    const real *bias, const Strip *strip,
) noexcept nogil:
    """One block of features of a unit whose pixels are transformed."""
    cdef const Correlation *task = call.task
    cdef const Winograd *w = plan.winograd
    cdef Py_ssize_t n_tiles = strip.n * strip.n_rows * w.x.tiles, e
    cdef Py_ssize_t group = b // plan.blocks.per_group * (task.n_channels // task.groups)
    cdef int n_vectors = vectors_of(&plan.blocks, b)
    cdef real zeros[MAX_FEATURE_VECTORS * LANES]
    cdef real *sums = scratch + 16 * w.y.pieces.stride * w.x.pieces.stride * w.pitch
    cdef const real *weights = <const real *>call.packed + w.weights_at
    weights += w.n_all * features_before(task, &plan.blocks, b)
    memset(zeros, 0, sizeof(zeros))
    for e in range(16 * w.n_passes):
        if w.n_taps[e] > 0:
            features_tiles(
                sums + e % 16 * w.sums_pitch, w.dense_at, scratch + e % 16 * w.pitch + group,
                w.grid_at, n_tiles, w.tap_at[e], weights, w.n_taps[e],
                max(<Py_ssize_t>WINOGRAD_TERMS, <Py_ssize_t>sqrt(<double>w.n_taps[e])),
                <const real *>zeros, 0, n_vectors)
        weights += w.n_taps[e] * n_vectors * task.lanes
        if e % 16 == 15:
            winograd_output(call, plan, e // 16, result, sums, bias, strip, n_vectors)


cdef void winograd_output(
    const Call *call, const Features *plan, Py_ssize_t run, real *result, const real *tile,
    const real *bias, const Strip *strip, int n_vectors,
) noexcept nogil:
    """The outputs of a pass."""
    cdef const Correlation *task = call.task
    cdef const Winograd *w = plan.winograd
    cdef Py_ssize_t lanes = task.lanes, width = n_vectors * lanes, out_rows = strip.y1 - strip.y0
    cdef Py_ssize_t py = run // w.x.pieces.stride, px = run % w.x.pieces.stride
    cdef Py_ssize_t taps_y = taps_of_sums(&w.y, py), taps_x = taps_of_sums(&w.x, px)
    cdef Py_ssize_t step_y = w.y.out_step * w.y.dilation, step_x = w.x.out_step * w.x.dilation
    cdef Py_ssize_t s, t, u, v, y, x, i, j
    cdef real *pixel
    cdef real out[4 * LANES]
    for s in range(strip.n):
        for t in range(strip.n_rows):
            y = w.y.pixel[py] + w.y.out_step * tile_start(t, w.y.dilation)
            for u in range(w.x.tiles):
                x = w.x.pixel[px] + w.x.out_step * tile_start(u, w.x.dilation)
                pixel = result + ((s * task.out_h + y) * task.out_w + x) * width
                for v in range(n_vectors):
                    transform_sums(<real *>out, tile + v * lanes, w.sums_pitch, bias + v * lanes,
                                   call.with_relu, taps_y, taps_x)
                    for i in range(2):
                        for j in range(2):
                            if y + i * step_y < out_rows and x + j * step_x < task.out_w:
                                store(pixel + v * lanes
                                      + width * (i * step_y * task.out_w + j * step_x),
                                      out + (2 * i + j) * lanes)
                tile += width


cdef inline Py_ssize_t taps_of_sums(const TiledAxis *axis, Py_ssize_t phase) noexcept nogil:
    """Pieces of so many taps have the elements of a pass's sums: 3 for all of them."""
    cdef Py_ssize_t longest = longest_piece(&axis.pieces, phase)
    if axis.in_step > 1 and longest_piece(&axis.pieces, 1) != longest:
        return 3
    return longest
