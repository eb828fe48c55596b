# What all forms of the filter gradient share: the call, the leaves of its sums, and how a form
# keeps them. Needs common/simd.pxi, common/chunks.h, conv/packing.pxi and gradient_tiles.h.
#
# A leaf is what one task sums over, by the shape alone: a chunk of images, or a band of rows of
# one large image. Its sums are a node of the tree in common/chunks.h:
#
#     (n_split, split_size)   the filters, in an order of the form's own
#     (n_features)            the bias

cdef extern from "common/chunks.h":
    int n_joins(Py_ssize_t i, Py_ssize_t n) noexcept nogil
    int stack_depth(Py_ssize_t n) noexcept nogil
    Py_ssize_t node_size(Py_ssize_t n, Py_ssize_t most) noexcept nogil

cdef extern from "conv/gradient_tiles.h":
    enum: DOT_ACCUMULATORS
    enum: DOT_FEATURES
    enum: DOT_TAPS
    enum: HAS_PAIRS
    enum: MAX_PAIR_SUMS
    enum: PAIR_TAPS
    enum: PAIR_COLUMNS
    enum: MAX_RUN
    ctypedef struct Walk:
        Py_ssize_t n[3]
        Py_ssize_t src[3]
        Py_ssize_t grad[3]
        const char *next_imgs
        const char *next_grad
        const char *next_imgs_end
        const char *next_grad_end
    ctypedef struct Pair:
        Py_ssize_t h, w, rows, cols
        Py_ssize_t top, left, stride, dilation_x
        Py_ssize_t n_taps, n_columns
        unsigned short *lanes
    void gradient_dot(...) noexcept nogil
    void gradient_outer(...) noexcept nogil
    void gradient_pair(...) noexcept nogil
    void gradient_tile(...) noexcept nogil
    void gradient_taps(...) noexcept nogil
    void sums_of_lanes(...) noexcept nogil
    double plane_sum(...) noexcept nogil
    void add_node(...) noexcept nogil
    void divide_node(...) noexcept nogil

cdef enum:
    MAX_CHUNK = 128     # images

cdef struct FilterGradient     # in gradient.pxi

cdef struct GradientLeaf:
    Py_ssize_t n, n_end                 # images
    Py_ssize_t y, y_end                 # rows of outputs
    Py_ssize_t first, end               # of n_split
    Py_ssize_t n_imgs                   # of the call

cdef struct GradientSums:
    Py_ssize_t chunk, n_bands           # images of a leaf; leaves of an image: powers of two
    Py_ssize_t stack                    # images that a tile sums over at once
    Py_ssize_t n_split, split_size      # tasks may share a leaf's sums: so many of this size
    Py_ssize_t group, channel, feature, row, col    # from one sum to the next
    Py_ssize_t serial                   # pixels of a batch below which one thread is enough
    Py_ssize_t n_zeros                  # values of an image that start as zeros, one after another
    Py_ssize_t buffer_size              # ... in a thread's memory of so many


cdef bint gradient_accepts(const FilterGradient *job, Py_ssize_t lanes) noexcept nogil:
    """Most forms do."""
    return True


cdef GradientSums cut_leaves(Py_ssize_t size, Py_ssize_t out_h, Py_ssize_t wanted,
                             Py_ssize_t most) noexcept nogil:
    """Leaves of images of that size each: `wanted` at least, or bands of at most `most`."""
    cdef GradientSums sums
    sums.chunk = sums.n_bands = 1
    while sums.chunk * size < wanted and sums.chunk < MAX_CHUNK:
        sums.chunk *= 2
    while size > most * sums.n_bands and 4 * sums.n_bands <= out_h:
        sums.n_bands *= 2
    sums.n_zeros = sums.serial = 0
    return sums


cdef inline double used_vectors(Py_ssize_t n, Py_ssize_t lanes) noexcept nogil:
    """Of n values, as outer tiles count them."""
    return ceil_div(2 * n, lanes) / 2.0 if VECTOR_BYTES == 64 and n > lanes else ceil_div(n, lanes)


cdef inline Py_ssize_t band_rows(const GradientSums *sums, Py_ssize_t out_h) noexcept nogil:
    """The most output rows of a leaf."""
    return min(out_h, 2 * ceil_div(ceil_div(out_h, 2), sums.n_bands))


cdef inline Py_ssize_t band_start(const GradientSums *sums, Py_ssize_t out_h,
                                  Py_ssize_t band) noexcept nogil:
    """The first output row of a band, an even one."""
    return min(out_h, 2 * (band * ceil_div(out_h, 2) // sums.n_bands))


cdef inline Py_ssize_t next_stack(const FilterGradient *job, Py_ssize_t n) noexcept nogil:
    """Of the last n images of a leaf: stacks are about equal."""
    return ceil_div(n, ceil_div(n, job.sums.stack))


cdef void fetch_next(const FilterGradient *job, Walk *walk, const real *imgs, const real *grad,
                     Py_ssize_t n, Py_ssize_t n_imgs, bint whole) noexcept nogil:
    """Tiles fetch the stack of images from n on, if `whole` images are worked on at once.

    The next band of rows would lie in pieces, a plane each.
    """
    cdef Py_ssize_t s = min(job.sums.stack, n_imgs - n) if whole else 0
    cdef Py_ssize_t size = job.n_channels * job.h * job.w
    cdef Py_ssize_t grad_size = job.n_features * job.out_h * job.out_w
    walk.next_imgs = <const char *>(imgs + n * size)
    walk.next_imgs_end = walk.next_imgs + s * size * sizeof(real)
    walk.next_grad = <const char *>(grad + n * grad_size)
    walk.next_grad_end = walk.next_grad + s * grad_size * sizeof(real)


cdef void sum_bias(const FilterGradient *job, const GradientLeaf *leaf, const real *grad,
                   real *sums, Py_ssize_t k, Py_ssize_t k_end) noexcept nogil:
    """The bias of features [k, k_end)."""
    cdef Py_ssize_t rows = (leaf.y_end - leaf.y) * job.out_w, n
    cdef double total
    for k in range(k, k_end):
        total = 0
        for n in range(leaf.n, leaf.n_end):
            total += plane_sum(
                grad + ((n * job.n_features + k) * job.out_h + leaf.y) * job.out_w, rows)
        sums[k] = <real>total
