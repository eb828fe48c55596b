# Weights and images packed for features in the lanes, and features back to planes. Needs
# conv/direct_features.pxi and conv/transpose.pxi.

cdef void features_pack(const Correlation *task, const void *plan_, const real *filters,
                        const real *bias, real *packed) noexcept nogil:
    """Biases, and the weights (n_ij, channels, width) of each pass and block."""
    cdef const Features *plan = <const Features *>plan_
    cdef Py_ssize_t channels = task.n_channels // task.groups, i, b, k, n, m, c
    cdef Py_ssize_t width
    cdef const FeaturesPass *run
    cdef real *row
    cdef const real *source
    features_pack_bias(task, &plan.blocks, bias, packed)
    for i in range(plan.n_passes):
        run = &plan.passes[i]
        row = packed + run.weights_at
        for b in range(plan.blocks.n):
            width = vectors_of(&plan.blocks, b) * task.lanes
            k = first_feature(task, &plan.blocks, b)
            n = first_feature(task, &plan.blocks, b + 1) - k
            source = filters + filters_of(task, &plan.blocks, b)
            if n < width:
                memset(row, 0, run.n_taps * width * sizeof(real))
            for m in range(run.n_ij):
                if task.pitch.channel == 1:     # channels side by side: 1x1 filters, backward
                    transpose_planes(row, NULL, width, source, task.pitch.feature, n, channels)
                    row += channels * width
                    continue
                for c in range(channels):
                    pack_row(row, source + c * task.pitch.channel + run.ij[m],
                             task.pitch.feature, n)
                    row += width


cdef inline void pack_row(real *row, const real *source, Py_ssize_t pitch,
                          Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t k
    if pitch == 1:
        copy(row, source, n)
        return
    for k in range(n // 4):     # by hand: gcc leaves four loads in turn
        row[4 * k] = source[0]
        row[4 * k + 1] = source[pitch]
        row[4 * k + 2] = source[2 * pitch]
        row[4 * k + 3] = source[3 * pitch]
        source += 4 * pitch
    for k in range(n // 4 * 4, n):
        row[k] = source[0]
        source += pitch


cdef void features_pack_bias(const Correlation *task, const FeatureBlocks *blocks,
                             const real *bias, real *packed) noexcept nogil:
    """(blocks, widest * lanes), with zeros where there are none."""
    cdef Py_ssize_t pitch = blocks.widest * task.lanes, b, k
    memset(packed, 0, blocks.n * pitch * sizeof(real))
    for b in range(blocks.n if bias != NULL else 0):
        k = first_feature(task, blocks, b)
        memcpy(packed + b * pitch, bias + k,
               (first_feature(task, blocks, b + 1) - k) * sizeof(real))


cdef inline Py_ssize_t filters_of(const Correlation *task, const FeatureBlocks *blocks,
                                  Py_ssize_t b) noexcept nogil:
    """Where the filters of block b start."""
    cdef Py_ssize_t group = b // blocks.per_group
    cdef Py_ssize_t k = first_feature(task, blocks, b) - group * (task.n_features // task.groups)
    return group * task.pitch.group + k * task.pitch.feature


cdef void features_output(const Call *call, const Features *plan, Py_ssize_t b, real *result,
                          const Strip *strip) noexcept nogil:
    """One block of features to planes."""
    cdef const Correlation *task = call.task
    cdef Py_ssize_t width = vectors_of(&plan.blocks, b) * task.lanes, s
    cdef Py_ssize_t k = first_feature(task, &plan.blocks, b)
    cdef Py_ssize_t n = first_feature(task, &plan.blocks, b + 1) - k, size = task.out_h * task.out_w
    cdef real *out = <real *>call.out + (strip.n0 * task.n_features + k) * task.out_size
    cdef real *folded = result + plan.stack * size * width
    for s in range(strip.n):
        if task.folds:
            fold_pixels(task, folded, result + s * size * width, width)
            untranspose_planes(out, task.out_size, n, folded, width, task.out_size)
        else:
            untranspose_planes(out + strip.y0 * task.out_w, size, n, result + s * size * width,
                               width, (strip.y1 - strip.y0) * task.out_w)
        out += task.n_features * task.out_size


cdef void pack_image(const Correlation *task, const Features *plan, real *dst, const real *img,
                     const Strip *strip) noexcept nogil:
    """The rows of a padded image that a strip reads."""
    cdef const Packing *p = &task.packing
    cdef const Grid *grid = &plan.grid
    cdef Py_ssize_t row_size = grid.cols * grid.depth, first = strip.first, end = strip.end
    cdef Py_ssize_t y0 = clip(first - p.top, 0, p.h), y1 = clip(end - p.top, 0, p.h), r, x, y
    dst -= first * row_size
    if y1 > y0:
        transpose_planes(dst, plan.pixel_at + y0 * p.w, grid.depth, img + y0 * p.w, p.h * p.w,
                         task.n_channels, (y1 - y0) * p.w)
    if p.border == BORDER_ZEROS:
        # The columns beside the image stay zero; other strips had pixels in these rows.
        for r in range(first, end if plan.grid.pass_rows > strip.n_rows else first):
            if r < p.top or r >= p.top + p.h:
                memset(dst + r * row_size, 0, row_size * sizeof(real))
        if p.top + p.h <= grid.read_rows and p.left + p.w <= grid.read_cols:
            return
    for r in range(first, end if p.border != BORDER_ZEROS else first):     # all rows
        y = border_index(r - p.top, p.h, p.border)
        for x in range(grid.cols):
            if r < p.top or r >= p.top + p.h or x < p.left or x >= p.left + p.w:
                memcpy(dst + r * row_size + x * grid.depth,
                       dst + plan.pixel_at[y * p.w + border_index(x - p.left, p.w, p.border)],
                       grid.depth * sizeof(real))
    # What no output reads must not spoil others of its tile.
    for r in range(first, end):
        x = 0 if r >= grid.read_rows else min(grid.read_cols, grid.cols)
        memset(dst + r * row_size + x * grid.depth, 0,
               (grid.cols - x) * grid.depth * sizeof(real))


cdef void fold_pixels(const Correlation *task, real *dst, const real *src,
                      Py_ssize_t width) noexcept nogil:
    """Add the values of padding to those of the pixels that it was made of."""
    cdef const Packing *p = &task.fold
    cdef Py_ssize_t r, x, f
    cdef real *pixel
    memset(dst, 0, p.h * p.w * width * sizeof(real))
    for r in range(task.out_h):
        for x in range(task.out_w):
            pixel = dst + width * (border_index(r - p.top, p.h, p.border) * p.w
                                   + border_index(x - p.left, p.w, p.border))
            for f in range(width):
                pixel[f] += src[(r * task.out_w + x) * width + f]
