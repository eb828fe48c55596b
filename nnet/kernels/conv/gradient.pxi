# The backward pass to the filters: a correlation of images with output gradients, summed over
# pixels and images. Needs gradient_pixels.pxi, gradient_depthwise.pxi, gradient_features.pxi and
# gradient_winograd.pxi.
#
# A plan is found once for a call's shapes and options, but for the number of images. Its leaves
# are the nodes of one binary tree, whatever the length of the batch and the number of threads;
# a task sums a subtree of them, and the sums of the subtrees are added in the same order.

cdef struct FilterGradient:
    Py_ssize_t n_channels, n_features, groups
    Py_ssize_t c_per_group, k_per_group
    Py_ssize_t h, w, out_h, out_w, fil_h, fil_w
    Py_ssize_t stride_y, stride_x, dilation_y, dilation_x, top, left
    # A border of pixels: each leaf pads its images, of this size, to that of above.
    int border
    Py_ssize_t unpadded_h, unpadded_w, pad_top, pad_left
    int form                            # of GRADIENT_FORMS
    GradientSums sums
    DotLayout dot                       # of these, one
    OuterLayout outer
    WinogradLayout winograd
    Pair pair
    Py_ssize_t padded_at                # where a thread's memory has padded images
    Py_ssize_t bias_at, node_size       # of a node: where it has the bias; its values

ctypedef void (*leaf_float)(const FilterGradient *job, const GradientLeaf *leaf,
                            const float *imgs, const float *grad, float *node,
                            float *buffer) noexcept nogil
ctypedef void (*leaf_double)(const FilterGradient *job, const GradientLeaf *leaf,
                             const double *imgs, const double *grad, double *node,
                             double *buffer) noexcept nogil

cdef struct GradientForm:
    const char *name
    bint (*accepts)(const FilterGradient *job, Py_ssize_t lanes) noexcept nogil
    double (*cycles)(const FilterGradient *job, Py_ssize_t lanes) noexcept nogil
    int (*plan)(FilterGradient *job, Workspace tables, Py_ssize_t itemsize) except -1
    leaf_float run_float
    leaf_double run_double

cdef enum:
    N_GRADIENT_FORMS = 5

cdef GradientForm[N_GRADIENT_FORMS] GRADIENT_FORMS
GRADIENT_FORMS[0] = GradientForm(
    b"direct_pixels", gradient_accepts, dot_cycles, dot_plan, dot_leaf[float], dot_leaf[double])
GRADIENT_FORMS[1] = GradientForm(
    b"direct_features_plain", gradient_accepts, outer_cycles, outer_plan, outer_leaf[float],
    outer_leaf[double])
GRADIENT_FORMS[2] = GradientForm(
    b"direct_features_swapped", gradient_accepts, swapped_cycles, swapped_plan, outer_leaf[float],
    outer_leaf[double])
GRADIENT_FORMS[3] = GradientForm(
    b"winograd", transformed_accepts, transformed_cycles, transformed_plan,
    transformed_leaf[float], transformed_leaf[double])
GRADIENT_FORMS[4] = GradientForm(
    b"depthwise", pairs_accepts, pairs_cycles, pairs_plan, pairs_leaf[float], pairs_leaf[double])

cdef tuple GRADIENT_NAMES = tuple(
    [(<bytes>GRADIENT_FORMS[i].name).decode() for i in range(N_GRADIENT_FORMS)])
GRADIENT_ONLY = ("direct_features_plain", "direct_features_swapped")    # no names of correlations


# --- the plan -------------------------------------------------------------------

cdef class GradientPlan:
    """What follows from shapes and options; it owns its tables."""

    cdef FilterGradient job
    cdef Workspace tables
    cdef Py_ssize_t itemsize

    def __init__(self, tuple img_shape, tuple filters_shape, groups, geometry, border, algorithm,
                 itemsize):
        cdef FilterGradient *job = &self.job
        cdef Py_ssize_t lanes = VECTOR_BYTES // <Py_ssize_t>itemsize
        job.n_channels, job.h, job.w = img_shape
        job.c_per_group, job.n_features, job.fil_h, job.fil_w = filters_shape
        job.groups, job.k_per_group = groups, job.n_features // groups
        job.out_h, job.out_w, job.top, _, job.left, _ = geometry[:6]
        job.stride_y, job.stride_x, job.dilation_y, job.dilation_x = geometry[6:]
        job.border = border
        if border != BORDER_ZEROS:
            job.unpadded_h, job.unpadded_w = job.h, job.w
            job.pad_top, job.pad_left, job.top, job.left = job.top, job.left, 0, 0
            job.h = (job.out_h - 1) * job.stride_y + (job.fil_h - 1) * job.dilation_y + 1
            job.w = (job.out_w - 1) * job.stride_x + (job.fil_w - 1) * job.dilation_x + 1
        elif job.h == job.out_h == job.fil_h == job.stride_x == 1:
            # A row is a column, which can be cut into bands.
            job.h, job.out_h, job.fil_h = job.w, job.out_w, job.fil_w
            job.w = job.out_w = job.fil_w = 1
            job.top, job.left = job.left, job.top
            job.dilation_y, job.stride_y, job.dilation_x = job.dilation_x, 1, 1
        self.tables, self.itemsize = Workspace(), itemsize
        job.form = choose_gradient(job, algorithm, lanes)
        GRADIENT_FORMS[job.form].plan(job, self.tables, itemsize)
        if border != BORDER_ZEROS:
            job.padded_at = job.sums.buffer_size
            job.sums.buffer_size += job.sums.chunk * job.n_channels * job.h * job.w
        job.bias_at = ceil_div(job.sums.n_split * job.sums.split_size, lanes) * lanes
        job.node_size = ceil_div(job.bias_at + job.n_features, lanes) * lanes


cdef str gradient_algorithm(object algorithm):
    """A name of a form, of a family or None."""
    is_own = isinstance(algorithm, str) and algorithm in GRADIENT_ONLY
    return algorithm if is_own else algorithm_of(algorithm)


cdef int choose_gradient(const FilterGradient *job, object algorithm, Py_ssize_t lanes) except -1:
    """The cheapest form that accepts the call, of the family that was asked for if one does."""
    cdef int i, best = -1
    cdef double cycles, fewest = 0
    for family in (algorithm, "direct"):
        for i in range(N_GRADIENT_FORMS):
            name = GRADIENT_NAMES[i]
            if not (family is None or family == name or name.startswith(family + "_")
                    or family == "direct" and name != "winograd"):
                continue
            cycles = GRADIENT_FORMS[i].cycles(job, lanes)
            if GRADIENT_FORMS[i].accepts(job, lanes) and (best < 0 or cycles < fewest):
                best, fewest = i, cycles
        if best >= 0:
            return best


cdef GradientPlan gradient_plan(tuple img_shape, tuple filters_shape, object groups,
                                object geometry, int border, object algorithm,
                                Py_ssize_t itemsize):
    """The plan of a call, made now or before; img_shape: of one image."""
    cdef tuple key = ("filters", img_shape, filters_shape, groups, tuple(geometry), border,
                      algorithm or "", itemsize)
    cdef GradientPlan plan = recent_plan(key)
    if plan is None:
        plan = GradientPlan(img_shape, filters_shape, groups, geometry, border, algorithm, itemsize)
        remember_plan(key, plan, plan.tables.total)
    return plan


def explain_filters_gradient(
    tuple imgs_shape, tuple filters_shape, dtype="float32", *, strides=(1, 1),
    padding_mode="same", border_mode="zeros", dilation=(1, 1), groups=1, algorithm=None,
):
    """The forms of the gradient of the filters: as `explain_conv` says it."""
    geometry = check_arguments(
        imgs_shape, filters_shape, groups, strides, padding_mode, border_mode, dilation)
    cdef Py_ssize_t itemsize = np.dtype(dtype).itemsize, lanes = VECTOR_BYTES // itemsize
    cdef GradientPlan plan = gradient_plan(
        imgs_shape[1:], filters_shape, groups, geometry, BORDER_MODES.index(border_mode),
        gradient_algorithm(algorithm), itemsize)
    cdef double pixels = plan.job.out_h * plan.job.out_w * plan.job.groups
    rows = []
    for i in range(N_GRADIENT_FORMS):
        accepts = GRADIENT_FORMS[i].accepts(&plan.job, lanes)
        cycles = pixels * GRADIENT_FORMS[i].cycles(&plan.job, lanes) if accepts else None
        rows.append((GRADIENT_NAMES[i], cycles, i == plan.job.form))
    return rows


# --- the run --------------------------------------------------------------------

cdef struct GradientRun:                # what the threads share
    const FilterGradient *job
    Py_ssize_t itemsize
    Py_ssize_t n_imgs, n_leaves
    Py_ssize_t n_nodes, leaves_per_node, parts      # units of work: nodes x parts of their sums,
    int n_pieces                        # ... and pieces of the sum of all nodes
    const void *imgs
    const void *grad
    void *filters_grad
    void *bias_grad                     # or NULL
    void *nodes
    ThreadMemory memory
    int stage                           # 0: sums of nodes, 1: their sum, 2: the filters


cdef GradientRun plan_run(const FilterGradient *job, Py_ssize_t n_imgs, int n_threads,
                          Py_ssize_t itemsize) noexcept nogil:
    """Units of work for so many threads, and the memory of each: they move no sum."""
    cdef GradientRun run
    cdef double work = <double>n_imgs * job.out_h * job.out_w * job.n_features * (
        job.c_per_group * job.fil_h * job.fil_w)
    # Between the tasks of a long call there are interrupts, on one thread as well.
    cdef Py_ssize_t most = max(<Py_ssize_t>(min(work / 1e9, 16.0)),
                               <Py_ssize_t>(4 * n_threads if n_threads > 1 else 1))
    run.job, run.n_imgs, run.itemsize = job, n_imgs, itemsize
    run.n_leaves = ceil_div(n_imgs, job.sums.chunk) * job.sums.n_bands
    run.leaves_per_node = node_size(run.n_leaves, most)
    run.n_nodes = ceil_div(run.n_leaves, run.leaves_per_node)
    run.n_pieces = n_threads if job.node_size >= 16384 else 1
    run.parts = 1
    if run.n_nodes < n_threads:     # every part copies or transforms what it reads
        run.parts = min(job.sums.n_split, ceil_div(n_threads, run.n_nodes))
    run.memory.n_zeros = min(n_imgs, job.sums.stack) * job.sums.n_zeros * itemsize
    run.memory.size = ceil_div(itemsize * (
        job.sums.buffer_size + (stack_depth(run.leaves_per_node) - 1) * job.node_size), 64) * 64
    return run


cdef Py_ssize_t gradient_scratch(const FilterGradient *job, Py_ssize_t n_imgs, int n_threads,
                                 Py_ssize_t itemsize) noexcept nogil:
    """The bytes that `run_gradient` needs."""
    cdef GradientRun run = plan_run(job, n_imgs, n_threads, itemsize)
    return (ceil_div(run.n_nodes * job.node_size * itemsize, 64) * 64
            + bytes_for_threads(n_threads, run.memory.size))


cdef void run_gradient(
    const FilterGradient *job, const real *imgs, const real *grad, real *filters_grad,
    real *bias_grad, Py_ssize_t n_imgs, int n_threads, void *scratch,
) noexcept nogil:
    """The gradients of n_imgs images; that of the bias, if it is not NULL. scratch: aligned."""
    cdef GradientRun run = plan_run(job, n_imgs, n_threads, sizeof(real))
    run.imgs, run.grad, run.filters_grad, run.bias_grad = imgs, grad, filters_grad, bias_grad
    run.nodes = scratch
    run.memory = thread_memory(
        <char *>scratch + ceil_div(run.n_nodes * job.node_size * sizeof(real), 64) * 64,
        n_threads, run.memory.size, run.memory.n_zeros)
    run.stage = 0
    parallel_for(gradient_task, &run, run.n_nodes * run.parts, n_threads)
    run.stage = 1
    parallel_for(gradient_task, &run, run.n_pieces, n_threads)
    run.stage = 2
    parallel_for(gradient_task, &run, job.c_per_group, run.n_pieces)


cdef void conv_filters_gradient(
    const real *imgs, const real *grad, real *filters_grad, real *bias_grad, Py_ssize_t n_imgs,
    GradientPlan plan, int n_threads, Workspace space,
) except *:
    cdef const FilterGradient *job = &plan.job
    if n_imgs * job.out_h * job.out_w < job.sums.serial:
        n_threads = 1
    cdef void *scratch = space.take(gradient_scratch(job, n_imgs, n_threads, sizeof(real)))
    with nogil:
        run_gradient(job, imgs, grad, filters_grad, bias_grad, n_imgs, n_threads, scratch)


cdef void gradient_task(void *context, Py_ssize_t unit, int thread) noexcept nogil:
    cdef GradientRun *run = <GradientRun *>context
    if run.itemsize == sizeof(float):
        run_unit(run, unit, <float *>piece_of(&run.memory, thread), <float *>run.nodes)
    else:
        run_unit(run, unit, <double *>piece_of(&run.memory, thread), <double *>run.nodes)


cdef void run_unit(const GradientRun *run, Py_ssize_t unit, real *memory,
                   real *nodes) noexcept nogil:
    if run.stage == 0:
        sum_node(run, unit // run.parts, unit % run.parts, memory, nodes)
    elif run.stage == 1:
        sum_nodes(run, unit, nodes)
    else:
        write_filters(run, unit, nodes)


cdef void sum_node(const GradientRun *run, Py_ssize_t i, Py_ssize_t part, real *memory,
                   real *nodes) noexcept nogil:
    """One part of the sums of one node's leaves, which are put on a stack."""
    cdef const FilterGradient *job = run.job
    cdef Py_ssize_t first = i * run.leaves_per_node, l, depth = 0, k, k_end
    cdef Py_ssize_t n = min(run.leaves_per_node, run.n_leaves - first), begin, size
    cdef GradientLeaf leaf
    cdef real *top = nodes + i * job.node_size
    cdef real *stack = memory + job.sums.buffer_size
    cdef real *below
    leaf.n_imgs = run.n_imgs
    leaf.first = part * job.sums.n_split // run.parts
    leaf.end = (part + 1) * job.sums.n_split // run.parts
    k, k_end = part * job.n_features // run.parts, (part + 1) * job.n_features // run.parts
    begin, size = leaf.first * job.sums.split_size, (leaf.end - leaf.first) * job.sums.split_size
    for l in range(n):
        take_leaf(run, &leaf, first + l)
        top = nodes + i * job.node_size if depth == 0 else stack + (depth - 1) * job.node_size
        sum_leaf(run, &leaf, top, memory)
        if run.bias_grad != NULL:
            sum_bias(job, &leaf, <const real *>run.grad, top + job.bias_at, k, k_end)
        depth += 1
        for _ in range(n_joins(l, n)):
            depth -= 1
            top = stack + (depth - 1) * job.node_size
            below = nodes + i * job.node_size if depth == 1 else top - job.node_size
            add_node(below + begin, <const real *>top + begin, size)
            if run.bias_grad != NULL:
                add_node(below + job.bias_at + k, <const real *>top + job.bias_at + k, k_end - k)


cdef void take_leaf(const GradientRun *run, GradientLeaf *leaf, Py_ssize_t i) noexcept nogil:
    """The images and rows of leaf i."""
    cdef const FilterGradient *job = run.job
    leaf.n = i // job.sums.n_bands * job.sums.chunk
    leaf.n_end = min(leaf.n + job.sums.chunk, run.n_imgs)
    leaf.y = band_start(&job.sums, job.out_h, i % job.sums.n_bands)
    leaf.y_end = band_start(&job.sums, job.out_h, i % job.sums.n_bands + 1)


cdef void sum_leaf(const GradientRun *run, const GradientLeaf *leaf, real *node,
                   real *buffer) noexcept nogil:
    cdef const FilterGradient *job = run.job
    cdef const real *imgs = <const real *>run.imgs
    cdef const real *grad = <const real *>run.grad
    if job.border != BORDER_ZEROS:
        pad_images(job, leaf, buffer + job.padded_at, imgs)
        imgs = buffer + job.padded_at - leaf.n * job.n_channels * job.h * job.w
    if real is float:
        GRADIENT_FORMS[job.form].run_float(job, leaf, imgs, grad, node, buffer)
    else:
        GRADIENT_FORMS[job.form].run_double(job, leaf, imgs, grad, node, buffer)


cdef void pad_images(const FilterGradient *job, const GradientLeaf *leaf, real *padded,
                     const real *imgs) noexcept nogil:
    """A leaf's images with a border of pixels: the rows that it reads."""
    cdef Py_ssize_t h = job.unpadded_h, w = job.unpadded_w, left = job.pad_left, plane, y, x
    cdef Py_ssize_t y_end = (leaf.y_end - 1) * job.stride_y + (job.fil_h - 1) * job.dilation_y + 1
    cdef Py_ssize_t middle = clip(job.w - left, 0, w)
    cdef const real *source
    cdef real *row
    for plane in range(leaf.n * job.n_channels, leaf.n_end * job.n_channels):
        for y in range(leaf.y * job.stride_y, y_end):
            source = imgs + (plane * h + border_index(y - job.pad_top, h, job.border)) * w
            row = padded + y * job.w
            for x in range(min(left, job.w)):
                row[x] = source[border_index(x - left, w, job.border)]
            for x in range(middle):
                row[left + x] = source[x]
            for x in range(left + middle, job.w):
                row[x] = source[border_index(x - left, w, job.border)]
        padded += job.h * job.w


cdef void sum_nodes(const GradientRun *run, Py_ssize_t piece, real *nodes) noexcept nogil:
    """A piece of the mean over the images, into the first node."""
    cdef Py_ssize_t size = run.job.node_size, n_pieces = run.n_pieces
    cdef Py_ssize_t first = piece * size // n_pieces, n = (piece + 1) * size // n_pieces - first
    cdef Py_ssize_t step = 1, i
    while step < run.n_nodes:
        i = 0
        while i + step < run.n_nodes:
            add_node(nodes + i * size + first, <const real *>nodes + (i + step) * size + first, n)
            i += 2 * step
        step *= 2
    divide_node(nodes + first, <real>run.n_imgs, n)


cdef void write_filters(const GradientRun *run, Py_ssize_t c, const real *node) noexcept nogil:
    """The filters of one channel of each group, and with the first one's the bias."""
    cdef const FilterGradient *job = run.job
    cdef const GradientSums *sums = &job.sums
    cdef Py_ssize_t g, k, i, j
    cdef const real *source
    cdef real *out = <real *>run.filters_grad + c * job.n_features * job.fil_h * job.fil_w
    for g in range(job.groups):
        source = node + g * sums.group + c * sums.channel
        for k in range(job.k_per_group):
            for i in range(job.fil_h):
                for j in range(job.fil_w):
                    out[j] = source[i * sums.row + j * sums.col]
                out += job.fil_w
            source += sums.feature
    if c == 0 and run.bias_grad != NULL:
        memcpy(run.bias_grad, node + job.bias_at, job.n_features * sizeof(real))
