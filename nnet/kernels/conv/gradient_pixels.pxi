# The filter gradient with pixels in the lanes: dot tiles. Needs gradient_leaf.pxi.
#
# One copy of the image for each column of taps, cut to the columns that this tap
# reads, so that an output plane and what a tap reads of it are runs of pixels
# without gaps. The output gradient is read where it is.
#
#     image, padded by 1      copy j = 0   copy j = 1   copy j = 2    tap (i, j) starts
#     . . . . .               . . .        . . .        . . .         in row i of copy j
#     . a b c .               . a b        a b c        b c .
#     . d e f .               . d e        d e f        e f .
#     . . . . .               . . .        . . .        . . .

cdef void copy_rows(
    real *dst, Py_ssize_t n_rows, Py_ssize_t n_cols, const real *plane, Py_ssize_t h, Py_ssize_t w,
    Py_ssize_t first_row, Py_ssize_t row_step, Py_ssize_t first_col, Py_ssize_t col_step,
) noexcept nogil:
    """Every row_step-th row and col_step-th column of a plane; zeros around them are there."""
    # Rows [r0, r1) and columns [x0, x1) are pixels.
    cdef Py_ssize_t r0 = clip(ceil_div(-first_row, row_step), 0, n_rows)
    cdef Py_ssize_t r1 = clip(ceil_div(h - first_row, row_step), r0, n_rows)
    cdef Py_ssize_t x0 = clip(ceil_div(-first_col, col_step), 0, n_cols)
    cdef Py_ssize_t x1 = clip(ceil_div(w - first_col, col_step), x0, n_cols)
    cdef Py_ssize_t at = first_row * w + first_col, r, x, i, end
    if n_cols == w and row_step == 1 and col_step == 1:
        # One long run; what it takes from the other ends of rows becomes zeros again.
        i, end = max(r0 * w, -at), min(r1 * w, h * w - at)
        for r in range(h * w * <Py_ssize_t>sizeof(real) // 64):
            prefetch(<const char *>(plane + h * w) + 64 * r)
        copy(dst + i, plane + at + i, max(end - i, <Py_ssize_t>0))
        for x in range(w):
            for r in range(r0, r0 if x0 <= x < x1 else r1):
                dst[r * w + x] = 0
        return
    for r in range(r0, r1 if x0 < x1 else r0):
        i = at + r * row_step * w + x0 * col_step
        prefetch(plane + i + h * w)
        if col_step == 1:
            copy(dst + r * n_cols + x0, plane + i, x1 - x0)
        elif col_step == 2:
            unzip(dst + r * n_cols + x0, <real *>NULL, plane + i, x1 - x0, x1 - x0 - 1)
        else:
            for x in range(x0, x1):
                dst[r * n_cols + x] = plane[i + (x - x0) * col_step]


cdef struct DotLayout:
    Py_ssize_t n_phases                 # of the rows, as in conv/packing.pxi
    Py_ssize_t rows, plane, img         # of a copy; from one copy, one image to the next
    Py_ssize_t tails_at, sums_at        # where the tails of planes lie in the buffer, and the sums
    Py_ssize_t *tap_at                  # (fil_w, fil_h) where each tap is read


cdef double dot_cycles(const FilterGradient *job, Py_ssize_t lanes) noexcept nogil:
    """What one pixel costs; a multiply-add of a vector of pixels is one cycle."""
    cdef double size = job.out_h * job.out_w, taps = job.fil_h * job.fil_w
    cdef double rows = min(job.stride_y, job.fil_h) * (
        job.out_h + (job.fil_h - 1) * job.dilation_y // job.stride_y)
    # 8 cycles copy a vector of one long run, 12 one of a row; 60 more for each run
    cdef double copies = 8.0 * rows * job.out_w / lanes
    if job.stride_y > 1 or job.out_w != job.w:
        copies = 12.0 * rows * ceil_div(job.out_w, lanes)
    copies += 60 * min(job.stride_y, job.fil_h)
    # A tile of 1 tap and 5 features waits for its loads; the last vector is not full.
    cdef double product = max(1.1, (min(taps, 5.0) + 14) / (5 * min(taps, 5.0)))
    return job.c_per_group * (product * taps * job.k_per_group / lanes * (1 + 1.5 * lanes / size)
                              + job.fil_w * copies / size)


cdef int dot_plan(FilterGradient *job, Workspace tables, Py_ssize_t itemsize) except -1:
    cdef DotLayout *d = &job.dot
    cdef Py_ssize_t lanes = VECTOR_BYTES // itemsize, size = job.out_h * job.out_w, i, j
    cdef Py_ssize_t taps = job.fil_h * job.fil_w, rows
    cdef GradientSums sums = cut_leaves(size, job.out_h, 4096, 16384)
    rows = band_rows(&sums, job.out_h)
    d.n_phases = 1
    while d.n_phases < job.fil_h and d.n_phases * job.dilation_y % job.stride_y:
        d.n_phases += 1
    d.rows = rows + (job.fil_h - 1) * job.dilation_y // job.stride_y
    d.plane = ceil_div(d.rows * job.out_w + 2 * lanes, lanes) * lanes
    d.img = job.fil_w * d.n_phases * d.plane
    # Each tile costs some 100 cycles to enter and leave; the gradients stay in the L2 cache.
    sums.stack = min(sums.chunk, ceil_div(clip(8192 // job.n_features, 64, 256),
                                          max(rows * job.out_w // lanes, <Py_ssize_t>1)))
    d.tails_at = sums.stack * d.img
    d.sums_at = d.tails_at + sums.stack * job.n_features * lanes
    sums.n_zeros = d.img
    sums.buffer_size = d.sums_at + job.n_features * job.c_per_group * taps * lanes
    sums.n_split, sums.split_size = job.n_features, job.c_per_group * taps
    sums.group, sums.feature = job.k_per_group * sums.split_size, sums.split_size
    sums.channel, sums.row, sums.col = taps, 1, job.fil_h
    d.tap_at = <Py_ssize_t *>tables.take(taps * sizeof(Py_ssize_t))
    for i in range(job.fil_h):
        for j in range(job.fil_w):
            d.tap_at[j * job.fil_h + i] = (
                (i % d.n_phases * job.fil_w + j) * d.plane
                + i * job.dilation_y // job.stride_y * job.out_w)
    job.sums = sums
    return 0


cdef void dot_leaf(const FilterGradient *job, const GradientLeaf *leaf, const real *imgs,
                   const real *grad, real *node, real *buffer) noexcept nogil:
    """Features [first, end): (k, c, j, i)."""
    cdef const DotLayout *d = &job.dot
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real), taps = job.fil_h * job.fil_w
    cdef Py_ssize_t pitch = job.c_per_group * taps, first = leaf.first, end = leaf.end
    cdef Py_ssize_t n = leaf.n, n_stacked, g, c, k0, k1
    cdef real *sums = buffer + d.sums_at    # a vector each
    cdef Walk walk
    if job.sums.n_bands > 1:    # whose padding lies elsewhere in each of them
        memset(buffer, 0, job.sums.n_zeros * sizeof(real))
    memset(sums, 0, (end - first) * pitch * lanes * sizeof(real))
    while n < leaf.n_end:
        n_stacked = next_stack(job, leaf.n_end - n)
        fetch_next(job, &walk, imgs, grad, n + n_stacked, leaf.n_imgs,
                   job.sums.n_bands == 1 and end - first == job.n_features)
        copy_tails(job, leaf, buffer + d.tails_at, grad, n, n_stacked)
        for g in range(first // job.k_per_group, (end - 1) // job.k_per_group + 1):
            k0 = max(first, g * job.k_per_group)
            k1 = min(end, (g + 1) * job.k_per_group)
            for c in range(job.c_per_group):
                copy_channel(job, leaf, buffer, imgs, n, n_stacked, g * job.c_per_group + c)
                dot_channel(job, leaf, sums + ((k0 - first) * pitch + c * taps) * lanes,
                            buffer, grad, n, n_stacked, k0, k1, &walk)
        n += n_stacked
    sums_of_lanes(node + first * pitch, sums, (end - first) * pitch)


cdef void copy_channel(const FilterGradient *job, const GradientLeaf *leaf, real *buffer,
                       const real *imgs, Py_ssize_t n, Py_ssize_t n_stacked,
                       Py_ssize_t c) noexcept nogil:
    """All copies of one channel of images [n, n + n_stacked)."""
    cdef const DotLayout *d = &job.dot
    cdef Py_ssize_t s, j, phase
    for s in range(n_stacked):
        for phase in range(d.n_phases):
            for j in range(job.fil_w):
                copy_rows(
                    buffer + s * d.img + (phase * job.fil_w + j) * d.plane, d.rows, job.out_w,
                    imgs + ((n + s) * job.n_channels + c) * job.h * job.w, job.h, job.w,
                    leaf.y * job.stride_y + phase * job.dilation_y % job.stride_y - job.top,
                    job.stride_y, j * job.dilation_x - job.left, job.stride_x,
                )


cdef void copy_tails(const FilterGradient *job, const GradientLeaf *leaf, real *tails,
                     const real *grad, Py_ssize_t n, Py_ssize_t n_stacked) noexcept nogil:
    """What does not fill a vector at the end of each output plane, and zeros."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real), s, k, x
    cdef Py_ssize_t rest = (leaf.y_end - leaf.y) * job.out_w % lanes
    cdef const real *end
    if rest == 0:
        return
    for s in range(n_stacked):
        for k in range(leaf.first, leaf.end):
            end = grad + (((n + s) * job.n_features + k) * job.out_h + leaf.y_end) * job.out_w
            clear(tails)
            for x in range(rest):
                tails[x] = end[x - rest]
            tails += lanes


cdef void dot_channel(
    const FilterGradient *job, const GradientLeaf *leaf, real *sums, real *buffer,
    const real *grad, Py_ssize_t n, Py_ssize_t n_stacked, Py_ssize_t k0, Py_ssize_t k1, Walk *walk,
) noexcept nogil:
    """One channel, features [k0, k1) of the channel's group."""
    cdef const DotLayout *d = &job.dot
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real), size = job.out_h * job.out_w
    cdef Py_ssize_t rows = (leaf.y_end - leaf.y) * job.out_w, n_taps = job.fil_h * job.fil_w
    cdef Py_ssize_t pitch = job.c_per_group * n_taps * lanes
    cdef Py_ssize_t blocks = ceil_div(k1 - k0, DOT_FEATURES), b, t, k, first, width, tap_blocks
    cdef const real *tails = NULL
    walk.n[0], walk.n[1], walk.n[2] = n_stacked, 1, rows // lanes
    walk.src[0], walk.grad[0] = d.img, job.n_features * size
    walk.src[2] = walk.grad[2] = lanes
    for b in range(blocks):
        k = k0 + b * (k1 - k0) // blocks
        width = k0 + (b + 1) * (k1 - k0) // blocks - k
        tap_blocks = ceil_div(n_taps, min(<Py_ssize_t>DOT_TAPS, DOT_ACCUMULATORS // width))
        if rows % lanes:
            tails = buffer + d.tails_at + (k - leaf.first) * lanes
        for t in range(tap_blocks):
            first = t * n_taps // tap_blocks
            gradient_dot(
                sums + (k - k0) * pitch + first * lanes, pitch, <const real *>buffer,
                d.tap_at + first,
                grad + (n * job.n_features + k) * size + leaf.y * job.out_w, size, tails,
                (leaf.end - leaf.first) * lanes, walk,
                <int>((t + 1) * n_taps // tap_blocks - first), <int>width,
            )
