# The filter gradient of pairs of planes, for depthwise filters and single features. Needs
# gradient_leaf.pxi.
#
# Nothing is copied: a row of pixels is loaded from the image once for each column of taps,
# without the lanes that lie outside of it. As many rows of the gradient as a column has taps
# are kept, each in a vector; from row to row they move on by one.
#
#     row r of pixels    a b c d        sum[0, j] += loaded[j] * row r of the gradient
#     column j = 0       . a b c        sum[1, j] += loaded[j] * row r - 1
#            j = 1       a b c d        sum[2, j] += loaded[j] * row r - 2
#            j = 2       b c d .        ...
#
# This is for vectors of which some lanes can be loaded: AVX-512 and AVX2.

cdef bint pairs_accepts(const FilterGradient *job, Py_ssize_t lanes) noexcept nogil:
    return (HAS_PAIRS and job.dilation_y == 1 and job.stride_y == job.stride_x
            and job.stride_y <= 2 and job.fil_h <= PAIR_TAPS)


cdef double pairs_cycles(const FilterGradient *job, Py_ssize_t lanes) noexcept nogil:
    """Fitted to 3x3 and 5x5 filters on 8x8 to 32x32 pixels; AVX2 has no masks of its own."""
    cdef double scale = 0.75 if VECTOR_BYTES == 64 else 1.3
    cdef double vectors = ceil_div(job.out_w, lanes), rows = job.out_h + job.fil_h - 1
    cdef double loads = 2.0 * job.fil_w * job.stride_x * job.stride_x
    return (scale * job.c_per_group * job.k_per_group * vectors / (job.out_h * job.out_w)
            * (rows * (1.1 * job.fil_h * job.fil_w / job.stride_y + loads) + 60))


cdef int pairs_plan(FilterGradient *job, Workspace tables, Py_ssize_t itemsize) except -1:
    cdef Pair *p = &job.pair
    cdef Py_ssize_t lanes = VECTOR_BYTES // itemsize, taps = job.fil_h * job.fil_w, s, j, m, x, l
    cdef Py_ssize_t vectors = ceil_div(job.out_w, lanes)
    cdef GradientSums sums = cut_leaves(job.out_h * vectors, job.out_h, MAX_RUN // 2, MAX_RUN // 2)
    p.h, p.w, p.rows, p.cols = job.h, job.w, job.out_h, job.out_w
    p.top, p.left, p.stride, p.dilation_x = job.top, job.left, job.stride_x, job.dilation_x
    p.n_taps, p.n_columns = job.fil_h, job.fil_w
    p.lanes = <unsigned short *>tables.take(
        vectors * job.fil_w * job.stride_x * sizeof(unsigned short))
    for s in range(vectors):
        for j in range(job.fil_w):
            for m in range(job.stride_x):
                # which pixel lane 0 reads, and which lanes are pixels that an output reads
                x = (s * job.stride_x + m) * lanes + j * job.dilation_x - job.left
                l = clip(min(job.w - x, (job.out_w - s * lanes) * job.stride_x - m * lanes), 0,
                         lanes)
                p.lanes[(s * job.fil_w + j) * job.stride_x + m] = <unsigned short>(
                    (1 << l) - (1 << clip(-x, 0, l)))
    sums.stack = 1
    sums.buffer_size = job.n_features * job.c_per_group * taps * lanes
    sums.n_split, sums.split_size = job.n_features, job.c_per_group * taps
    sums.group, sums.feature = job.k_per_group * sums.split_size, sums.split_size
    sums.channel, sums.row, sums.col = taps, 1, job.fil_h
    job.sums = sums
    return 0


cdef void pairs_leaf(const FilterGradient *job, const GradientLeaf *leaf, const real *imgs,
                     const real *grad, real *node, real *buffer) noexcept nogil:
    """Features [first, end): (k, c, j, i)."""
    cdef Py_ssize_t size = job.fil_h * job.fil_w, first = leaf.first * job.c_per_group, n, k, c
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t n_sums = (leaf.end * job.c_per_group - first) * size
    cdef real *sums
    memset(buffer, 0, n_sums * lanes * sizeof(real))
    for n in range(leaf.n, leaf.n_end):
        sums = buffer
        for k in range(leaf.first, leaf.end):
            c = n * job.n_channels + k // job.k_per_group * job.c_per_group
            for c in range(c, c + job.c_per_group):
                gradient_pair(sums, imgs + c * job.h * job.w,
                              grad + (n * job.n_features + k) * job.out_h * job.out_w, &job.pair,
                              leaf.y, leaf.y_end)
                sums += size * lanes
    sums_of_lanes(node + first * size, <const real *>buffer, n_sums)
