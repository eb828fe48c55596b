# The plan of Winograd's algorithm: where tiles and phases lie, tables of taps and of tiles, and
# the transformed filters.

cdef void plan_axis(TiledAxis *w, Axis axis, Pieces pieces, Py_ssize_t dilation, Py_ssize_t size,
                    bint backward) noexcept:
    """Where the phases of an axis with `size` outputs start."""
    cdef Py_ssize_t q, last
    cdef Phase phase
    w.pieces, w.dilation = pieces, dilation
    w.in_step, w.out_step = pieces.stride, 1
    if backward:
        w.in_step, w.out_step = 1, pieces.stride
    for q in range(pieces.stride):
        w.first[q], w.pixel[q] = axis.first + q, 0
        if backward:
            w.first[q], w.pixel[q] = 0, size    # a phase that a single pixel does not have
            for phase in axis.phases:
                last = phase.n_taps - 1
                if phase.tap[last] == pieces.n_taps - 1 - q:    # the filter is flipped
                    w.first[q], w.pixel[q] = phase.first + phase.shift[last], phase.pixel
    w.tiles = ceil_div(ceil_div(size, w.out_step), 2 * dilation) * dilation
    w.halo = (pieces.n_shifts - 1) * dilation


cdef Py_ssize_t plan_tiles(PixelJob *job, Py_ssize_t lanes) noexcept nogil:
    """Rows of tiles take the place of rows of a pass; returns the values that one of them needs."""
    cdef Winograd *w = job.winograd
    w.n_passes = w.y.out_step * w.x.out_step
    job.pass_rows, job.pass_cols = w.y.tiles, w.x.tiles
    job.in_step, job.out_step = 2 * w.y.in_step, 2 * w.y.out_step
    job.in_extra = max(w.y.first[0], w.y.first[w.y.pieces.stride - 1]) + (
        2 * w.y.in_step * (w.y.halo + w.y.dilation))
    job.cols = max(w.x.first[0], w.x.first[w.x.pieces.stride - 1]) + (
        2 * w.x.in_step * (w.x.tiles + w.x.halo + w.x.dilation))
    return (w.y.pieces.n_elements * w.x.pieces.n_elements * (w.x.tiles + w.x.halo) * job.depth
            + 16 * w.x.tiles * job.block_vectors * lanes)


cdef void plan_winograd(
    PixelJob *job, const real *filters, bint flip, Workspace space,
) except *:
    """Tables of taps and tiles, and the transformed weights."""
    cdef Winograd *w = job.winograd
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t channels = job.task.n_channels // job.task.groups
    cdef Py_ssize_t grid_rows = job.strip + w.y.halo, grid_cols = w.x.tiles + w.x.halo
    cdef Py_ssize_t n_phases = w.y.pieces.stride * w.x.pieces.stride
    cdef Py_ssize_t n = job.stack * job.strip * w.x.tiles
    cdef Py_ssize_t e, r, m, c, s, t, u, py, px
    cdef Piece y, x
    cdef int elements
    w.pitch = spread(job.stack * grid_rows * grid_cols * job.depth, lanes)
    w.sums_pitch = spread(n * job.block_vectors * lanes, lanes)
    job.scratch_size = 16 * (n_phases * w.pitch + w.sums_pitch)
    for r in range(16 * w.n_passes):
        w.tap_at[r] = <Py_ssize_t *>space.take(
            w.y.pieces.n * w.x.pieces.n * channels * sizeof(Py_ssize_t))
        w.n_taps[r] = 0
    for py in range(w.y.pieces.n):
        y = axis_piece(&w.y.pieces, py)
        for px in range(w.x.pieces.n):
            x = axis_piece(&w.x.pieces, px)
            m = 16 * (y.phase * w.x.pieces.stride + x.phase) * w.pitch + job.depth * (
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
    w.weights = space.take(w.n_all * padded_features(job, job.n_blocks, lanes) * sizeof(real))
    transform_filters(job, <real *>w.weights, filters, flip)
    w.grid_at = <Py_ssize_t *>space.take(n * sizeof(Py_ssize_t))
    w.dense_at = <Py_ssize_t *>space.take(n * sizeof(Py_ssize_t))
    m = 0
    for s in range(job.stack):
        for t in range(job.strip):
            for u in range(w.x.tiles):
                w.grid_at[m] = (s * grid_rows + t) * grid_cols + u
                w.dense_at[m] = m
                m += 1


cdef void transform_filters(
    const PixelJob *job, real *out, const real *filters, bint flip,
) noexcept nogil:
    """G g G' of all pieces of all filters, for each block of features in the order of its taps."""
    cdef const Winograd *w = job.winograd
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t channels = job.task.n_channels // job.task.groups
    cdef FilterPitches pitch = filter_pitches(
        job.task, w.y.pieces.n_taps * w.x.pieces.n_taps, flip)
    cdef Py_ssize_t b, c, e, f, v, k, k_end, py, px, n_vectors
    cdef real *rows[64]
    cdef real **pass_rows
    cdef const real *source
    cdef Piece y, x
    cdef int elements
    for b in range(job.n_blocks):
        n_vectors = vectors_of(job, b, lanes)
        k, k_end = first_feature(job, b, lanes), first_feature(job, b + 1, lanes)
        source = filters + filter_at(job, b, k, &pitch)
        for e in range(16 * w.n_passes):
            rows[e] = out
            out += w.n_taps[e] * n_vectors * lanes
        for py in range(w.y.pieces.n):
            y = axis_piece(&w.y.pieces, py)
            for px in range(w.x.pieces.n):
                x = axis_piece(&w.x.pieces, px)
                elements = elements_of(y, x)
                pass_rows = rows + 16 * pass_of(w, y, x)
                for c in range(channels):
                    for v in range(n_vectors):
                        transform_piece(
                            w, pass_rows, v * lanes,
                            source + c * pitch.channel + v * lanes * pitch.feature,
                            pitch.feature, min(lanes, k_end - k - v * lanes), y, x, flip,
                        )
                    for e in range(16):
                        if elements >> e & 1:
                            pass_rows[e] += n_vectors * lanes


cdef void transform_piece(
    const Winograd *w, real **out, Py_ssize_t at, const real *filters, Py_ssize_t feature_pitch,
    Py_ssize_t n_features, Piece piece_y, Piece piece_x, bint flip,
) noexcept nogil:
    """G g G' of a piece of a vector of filters: 16 vectors."""
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t fil_w = w.x.pieces.n_taps
    cdef Py_ssize_t first = piece_y.first * fil_w + piece_x.first
    cdef Py_ssize_t step_y = w.y.pieces.stride * fil_w, step_x = w.x.pieces.stride
    if flip:
        first = w.y.pieces.n_taps * fil_w - 1 - first
        step_y, step_x = -step_y, -step_x
    filters += first
    cdef int taps_y = <int>piece_y.n_taps, taps_x = <int>piece_x.n_taps
    # Constants are worth code of their own: 3x3 filters, with and without a stride.
    cdef bint whole = n_features == lanes
    if whole and taps_y == 3 and taps_x == 3:
        transform_whole(out, at, filters, step_y, step_x, feature_pitch, 3, 3)
    elif whole and taps_y == 2 and taps_x == 2:
        transform_whole(out, at, filters, step_y, step_x, feature_pitch, 2, 2)
    elif whole and taps_y == 2 and taps_x == 1:
        transform_whole(out, at, filters, step_y, step_x, feature_pitch, 2, 1)
    elif whole and taps_y == 1 and taps_x == 2:
        transform_whole(out, at, filters, step_y, step_x, feature_pitch, 1, 2)
    elif whole and taps_y == 1 and taps_x == 1:
        transform_whole(out, at, filters, step_y, step_x, feature_pitch, 1, 1)
    else:
        transform_its_taps(out, at, filters, step_y, step_x, feature_pitch, n_features, taps_y,
                           taps_x)


cdef inline void transform_whole(
    real **out, Py_ssize_t at, const real *filters, Py_ssize_t step_y, Py_ssize_t step_x,
    Py_ssize_t feature_pitch, const int taps_y, const int taps_x,
) noexcept nogil:
    transform_its_taps(out, at, filters, step_y, step_x, feature_pitch,
                       VECTOR_BYTES // sizeof(real), taps_y, taps_x)


cdef inline void transform_its_taps(
    real **out, Py_ssize_t at, const real *filters, Py_ssize_t step_y, Py_ssize_t step_x,
    Py_ssize_t feature_pitch, const Py_ssize_t n_features, const int taps_y, const int taps_x,
) noexcept nogil:
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real g[9 * LANES]
    cdef real h[12 * LANES]
    cdef real *tap
    cdef int f, i, j
    for i in range(9):
        clear(g + i * lanes)
    for i in range(taps_y):
        for j in range(taps_x):
            tap = g + (3 * i + j) * lanes
            for f in range(n_features):
                tap[f] = filters[f * feature_pitch + i * step_y + j * step_x]
    for j in range(3):
        transform_taps(h + j * lanes, 3 * lanes, g + j * lanes, 3 * lanes, taps_y)
    for i in range(4):
        if has_element(i, taps_y):
            transform_taps(g, lanes, h + 3 * i * lanes, lanes, taps_x)
            for j in range(4):
                if has_element(j, taps_x):
                    store(out[4 * i + j] + at, g + j * lanes)


cdef inline void transform_taps(real *out, Py_ssize_t out_pitch, const real *taps,
                                Py_ssize_t pitch, Py_ssize_t n_taps) noexcept nogil:
    """G g of so many vectors, and zeros up to three."""
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real outer[LANES]
    cdef real middle[LANES]
    store(out, taps)
    if n_taps == 1:
        clear(outer)
        subtract(out + 3 * out_pitch, outer, taps)
        return
    fill(outer, <real>0)
    fill(middle, <real>0)
    madd(outer, <real>0.5, taps)
    madd(outer, <real>0.5, taps + 2 * pitch)
    madd(middle, <real>0.5, taps + pitch)
    store(out + 3 * out_pitch, taps + 2 * pitch)
    add(out + out_pitch, outer, middle)
    subtract(out + 2 * out_pitch, outer, middle)


cdef inline Py_ssize_t spread(Py_ssize_t size, Py_ssize_t lanes) noexcept nogil:
    """An odd number of vectors: powers of two would put all 16 into the same cache sets."""
    return (ceil_div(size, lanes) | 1) * lanes
