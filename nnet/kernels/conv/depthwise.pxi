# Correlation of depthwise filters without any copy, in strips: see strips.pxi. Needs
# conv/strips.pxi and conv/correlation.pxi.

cdef struct Depthwise:
    Sizes sizes
    Strips strips


cdef bint depthwise_accepts(const Correlation *task) noexcept nogil:
    return (
        rows_accept(task) and task.n_channels == task.groups
        and task.packing.border == BORDER_ZEROS and task.dilation_y == 1
        and task.stride_y == 1 and task.stride_x == 1
        and task.fil_w <= 2 * task.fil_h      # 3x9 taps: more loads than the copies cost
        and strips_cover(task.packing.h, task.y.longest, depthwise_top(task), task.fil_h)
    )


cdef inline Py_ssize_t depthwise_top(const Correlation *task) noexcept nogil:
    return task.packing.top - task.y.first


cdef double depthwise_cycles(const Correlation *task) noexcept nogil:
    """About how long an image takes: nothing is packed."""
    return task.n_features * task.y.longest * ceil_div(task.x.longest, task.lanes) * (
        1.1 * task.n_taps + 4)


cdef void *depthwise_plan(const Correlation *task, Workspace memory) except NULL:
    cdef Depthwise *plan = <Depthwise *>memory.take(sizeof(Depthwise))
    cdef Py_ssize_t start = (task.x.last if task.backward else task.x.first) - task.packing.left
    plan_strips(&plan.strips, task.packing.h, task.packing.w, task.y.longest, task.x.longest,
                depthwise_top(task), start, -task.dilation_x if task.backward else task.dilation_x,
                task.fil_h, task.fil_w, memory, task.lanes)
    plan.sizes.packed = task.n_features * (1 + task.fil_h * task.fil_w)
    plan.sizes.buffer, plan.sizes.thread = 0, task.out_h * task.out_w if task.folds else 0
    return plan


cdef void depthwise_pack(const Correlation *task, const void *plan, const real *filters,
                         const real *bias, real *packed) noexcept nogil:
    """Biases, and weights (n_features, fil_w, fil_h); backward, columns are read from below."""
    cdef Py_ssize_t k, i, j, n = task.fil_h
    pack_bias(packed, bias, task.n_features)
    packed += task.n_features
    for k in range(task.n_features):
        for j in range(task.fil_w):
            for i in range(n):
                packed[0] = filters[(n - 1 - i if task.backward else i) * task.fil_w + j]
                packed += 1
        filters += n * task.fil_w


cdef void depthwise_unit(real *padded, const Call *call, Py_ssize_t unit) noexcept nogil:
    """One image and one part of the features."""
    cdef const Correlation *task = call.task
    cdef const Depthwise *plan = <const Depthwise *>call.plan
    cdef Py_ssize_t n0 = unit // call.share.parts, part = unit % call.share.parts, k
    cdef Py_ssize_t size = task.packing.h * task.packing.w, taps = task.fil_h * task.fil_w
    cdef const real *packed = <const real *>call.packed
    cdef const real *imgs = <const real *>call.imgs + n0 * task.n_channels * size
    cdef real *out = <real *>call.out + n0 * task.n_features * task.out_size
    for k in range(part * task.n_features // call.share.parts,
                   (part + 1) * task.n_features // call.share.parts):
        strips_plane(padded if task.folds else out + k * task.out_size, imgs + k * size,
                     &plan.strips, packed + task.n_features + k * taps, packed[k],
                     call.with_relu)
        if task.folds:
            fold_plane(out + k * task.out_size, padded, task.out_h, task.out_w, &task.fold)
