# The table of implementations of a correlation, the choice among them, and plans. Needs
# conv/direct_pixels.pxi, conv/direct_features.pxi, conv/winograd.pxi and conv/rows.pxi.

ctypedef bint (*task_accepts)(const Correlation *task) noexcept nogil
ctypedef double (*task_cycles)(const Correlation *task) noexcept nogil
ctypedef void *(*task_plan)(const Correlation *task, Workspace memory) except NULL
ctypedef Share (*task_share)(const Correlation *task, const void *plan, Py_ssize_t n_imgs,
                             int n_threads) noexcept nogil
ctypedef void (*task_pack)(const Correlation *task, const void *plan, const void *filters,
                           const void *bias, void *packed) noexcept nogil
ctypedef void (*task_unit)(void *memory, const Call *call, Py_ssize_t unit) noexcept nogil

cdef struct Implementation:
    const char *name
    const char *wants           # what it accepts
    task_accepts accepts
    task_cycles cycles          # of an image, about
    task_plan plan
    task_share share
    task_pack pack[2]           # for float and double: what they take as pointers to reals
    task_unit unit[2]           # comes as void *


cdef bint accepts_all(const Correlation *task) noexcept nogil:
    return True


cdef Implementation entry(
    const char *name, const char *wants, task_accepts accepts, task_cycles cycles, task_plan plan,
    task_share share, task_pack pack32, task_pack pack64, task_unit unit32, task_unit unit64,
) noexcept:
    cdef Implementation made
    made.name, made.wants = name, wants
    made.accepts, made.cycles, made.plan, made.share = accepts, cycles, plan, share
    made.pack[0], made.pack[1], made.unit[0], made.unit[1] = pack32, pack64, unit32, unit64
    return made


cdef enum:
    N_IMPLEMENTATIONS = 4

cdef Implementation[N_IMPLEMENTATIONS] CORRELATIONS
CORRELATIONS[0] = entry(
    "direct_pixels", "anything", accepts_all, pixels_cycles, pixels_plan, pixels_share,
    <task_pack>pixels_pack[float], <task_pack>pixels_pack[double],
    <task_unit>pixels_unit[float], <task_unit>pixels_unit[double])
CORRELATIONS[1] = entry(
    "direct_features", "anything", accepts_all, features_cycles, features_plan, features_share,
    <task_pack>features_pack[float], <task_pack>features_pack[double],
    <task_unit>features_unit[float], <task_unit>features_unit[double])
CORRELATIONS[2] = entry(
    "winograd", "filters of at least 2 x 2, and strides of 1, or 2 without dilation",
    winograd_accepts, winograd_cycles, winograd_plan, features_share,
    <task_pack>winograd_pack[float], <task_pack>winograd_pack[double],
    <task_unit>features_unit[float], <task_unit>features_unit[double])
CORRELATIONS[3] = entry(
    "depthwise", "one feature a group, filters higher than the stride, and some rows of outputs",
    rows_accept, rows_cycles, rows_plan, rows_share,
    <task_pack>rows_pack[float], <task_pack>rows_pack[double],
    <task_unit>rows_unit[float], <task_unit>rows_unit[double])


# --- the choice ---------------------------------------------------------------------

# 'direct' is the fastest that multiplies each pixel with each tap.
cdef dict ALIASES = {"planes": "direct_pixels", "pixels": "direct_features"}
ALGORITHMS = ("direct_pixels", "direct_features", "winograd", "depthwise")


cdef str algorithm_of(object algorithm):
    """A name of the table, 'direct' or None."""
    if algorithm is None:
        return None
    if not isinstance(algorithm, str):
        raise TypeError(f"algorithm is {algorithm!r}, expected None or one of {ALGORITHMS}")
    algorithm = ALIASES.get(algorithm, algorithm)
    if algorithm != "direct" and algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm is {algorithm!r}, expected None or one of {ALGORITHMS}")
    return algorithm


cdef const Implementation *implementation_for(const Correlation *task, str algorithm) except NULL:
    """The one that was asked for, or the fastest; as long as it is accurate."""
    cdef const Implementation *best = NULL
    cdef const Implementation *each
    cdef double fewest = 0, cycles
    cdef int i
    if algorithm is not None and algorithm != "direct":
        each = &CORRELATIONS[ALGORITHMS.index(algorithm)]
        if not each.accepts(task):
            raise ValueError(
                f"algorithm is {algorithm!r}, expected {each.wants.decode()}; got filters of "
                f"{(task.fil_h, task.fil_w)}, {task.n_channels} channels and {task.n_features} "
                f"features in {task.groups} groups, strides {(task.stride_y, task.stride_x)}, "
                f"dilation {(task.dilation_y, task.dilation_x)}"
                + (", on the way back" if task.backward else ""))
        return each
    for i in range(N_IMPLEMENTATIONS):
        each = &CORRELATIONS[i]
        if is_eligible(task, each, algorithm):
            cycles = each.cycles(task)
            if best == NULL or cycles < fewest:
                best, fewest = each, cycles
    return best


cdef bint is_eligible(const Correlation *task, const Implementation *each, str algorithm) noexcept:
    """Whether it may be chosen: Winograd's algorithm only for sums long enough."""
    if not each.accepts(task):
        return False
    return each.plan != winograd_plan or algorithm is None and winograd_is_accurate(task)


# --- plans --------------------------------------------------------------------------

cdef struct Correlating:        # a plan and what it works with, whatever the images
    const Correlation *task
    const void *plan
    const Implementation *taken
    const void *packed
    bint with_relu


cdef class CorrelationPlan:
    """What follows from the shapes and options of a correlation of images of one type."""

    cdef Correlation task
    cdef const Implementation *taken
    cdef void *plan
    cdef Workspace memory
    cdef readonly object geometry
    cdef readonly tuple img_shape, filters_shape, out_shape     # without the images
    cdef readonly Py_ssize_t groups
    cdef readonly int border
    cdef readonly double products       # of an image

    def __init__(self, bint backward, tuple imgs_shape, tuple filters_shape, groups, geometry,
                 int border, Py_ssize_t itemsize, str algorithm):
        self.memory = Workspace()
        self.products = <double>geometry.out_h * geometry.out_w
        for n in filters_shape:
            self.products *= n
        self.geometry, self.groups, self.border = geometry, groups, border
        self.img_shape, self.filters_shape = imgs_shape[1:], filters_shape
        self.out_shape = (filters_shape[1], geometry.out_h, geometry.out_w)
        self.task = correlation_of(backward, imgs_shape, filters_shape, groups, geometry, border,
                                   itemsize, self.memory)
        self.taken = implementation_for(&self.task, algorithm)
        self.plan = self.taken.plan(&self.task, self.memory)

    cdef Py_ssize_t packed_bytes(self) noexcept:
        return (<const Sizes *>self.plan).packed * self.task.itemsize

    cdef void pack(self, const void *filters, const void *bias, void *packed) noexcept nogil:
        """Biases, if there are any, and weights, as `run` takes them."""
        self.taken.pack[self.task.itemsize // 8](&self.task, self.plan, filters, bias, packed)

    cdef Correlating correlating(self) noexcept:
        """What `correlate` takes."""
        cdef Correlating job
        job.task, job.plan, job.taken = &self.task, self.plan, self.taken
        job.with_relu, job.packed = False, NULL
        return job


cdef Py_ssize_t correlation_scratch(const Correlating *job, int n_threads) noexcept nogil:
    """Bytes."""
    return bytes_for_threads(
        n_threads, (<const Sizes *>job.plan).thread * job.task.itemsize)


cdef void correlate(const Correlating *job, const void *imgs, void *out, Py_ssize_t n_imgs,
                    void *scratch, int n_threads) noexcept nogil:
    cdef Call call
    cdef const Sizes *sizes = <const Sizes *>job.plan
    cdef Py_ssize_t itemsize = job.task.itemsize
    call.task, call.plan, call.packed = job.task, job.plan, job.packed
    call.imgs, call.out, call.n_imgs, call.with_relu = imgs, out, n_imgs, job.with_relu
    call.share = job.taken.share(job.task, job.plan, n_imgs, n_threads)
    call.unit = <void *>job.taken.unit[itemsize // 8]
    call.memory = thread_memory(scratch, n_threads, sizes.thread * itemsize,
                                call.share.zeros * itemsize)
    parallel_for(correlation_unit, &call, call.share.n_units, call.share.n_threads)


cdef void correlation_unit(void *context, Py_ssize_t unit, int thread) noexcept nogil:
    cdef const Call *call = <const Call *>context
    (<task_unit>call.unit)(piece_of(&call.memory, thread), call, unit)


cdef CorrelationPlan correlation_plan(
    bint backward, cnp.ndarray imgs, cnp.ndarray filters, object groups, object strides,
    object padding_mode, object border_mode, object dilation, object algorithm,
):
    """The plan of these arguments, which are checked if it is a new one."""
    cdef tuple imgs_shape = shape_of(imgs), filters_shape = shape_of(filters)
    cdef str name = algorithm_of(algorithm)
    cdef tuple key = (
        <int>backward, imgs_shape[1:], filters_shape, groups, strides, padding_mode, border_mode,
        dilation, name or "", cnp.PyArray_TYPE(imgs))
    found = recent_plan(key)
    if found is not None:
        return found
    groups = as_count(groups, "groups")
    geometry = check_arguments(
        imgs_shape, filters_shape, groups, strides, padding_mode, border_mode, dilation)
    cdef CorrelationPlan plan = CorrelationPlan(
        backward, imgs_shape, filters_shape, groups, geometry, BORDER_MODES.index(border_mode),
        cnp.PyArray_ITEMSIZE(imgs), name)
    remember_plan(key, plan, plan.memory.total)
    return plan


def explain_conv(tuple imgs_shape, tuple filters_shape, dtype="float32", *, bint backward=False,
                 strides=(1, 1), padding_mode="same", border_mode="zeros", dilation=(1, 1),
                 groups=1, algorithm=None):
    """The implementations of the forward pass, or of the backward pass to the images.

    Returns
    -------
    list of (str, float or None, bool)
        Of each its name, about how many cycles an image takes, None where it does not accept
        the call, and whether it is taken.
    """
    cdef CorrelationPlan plan = correlation_plan(
        backward, np.empty((0, *imgs_shape[1:]), dtype), np.empty(filters_shape, dtype), groups,
        strides, padding_mode, border_mode, dilation, algorithm)
    cdef const Implementation *each
    cdef int i
    rows = []
    for i in range(N_IMPLEMENTATIONS):
        each = &CORRELATIONS[i]
        cycles = each.cycles(&plan.task) if each.accepts(&plan.task) else None
        rows.append((each.name.decode(), cycles, each == plan.taken))
    return rows
