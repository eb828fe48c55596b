# Runs plans on batches: units of work for the threads, of some planes each. Needs pool/plan.pxi.
#
# Nothing here needs Python or memory of its own. A thread's scratch has, one after the other, room
# for planes with what vectors read around them, for their offsets, and the implementation's own.

from nnet._runtime cimport parallel_for

cdef enum:
    LONG_UNIT = 1 << 22       # pixels: after a few ms of one thread, a look for signals

cdef struct PoolWork:
    const PoolPlan *plan
    const char *source        # imgs, or poolout_grad
    char *out                 # poolout, or imgs_grad
    uint8_t *offsets          # (n_planes, out_h, out_w), one of these, or neither
    Py_ssize_t *pairs         # (n_planes, out_h, out_w, 2)
    uint8_t *from_pairs       # (n_planes, out_h, out_w), to be filled
    char *scratch
    Py_ssize_t n_planes, n_units
    bint is_outside           # set by any thread: there is a switch that is
    bint is_elsewhere         # or not in its window


cdef extern from *:
    void pool_to_pairs(const Pooling *, Py_ssize_t, const uint8_t *, Py_ssize_t *) nogil
    bint pool_to_offsets(const Pooling *, Py_ssize_t, const Py_ssize_t *, uint8_t *) nogil
    bint pool_pairs_inside(const Pooling *, Py_ssize_t, const Py_ssize_t *) nogil
    bint pool_offsets_inside(const Pooling *, Py_ssize_t, const uint8_t *) nogil


cdef inline Py_ssize_t round_up(Py_ssize_t n_bytes) noexcept nogil:
    return (n_bytes + 63) // 64 * 64


cdef Py_ssize_t source_scratch(const PoolPlan *plan) noexcept nogil:
    return round_up((plan.group * plan.source_size + 2 * plan.slack) * plan.itemsize)


cdef Py_ssize_t offset_scratch(const PoolPlan *plan) noexcept nogil:
    return round_up(plan.group * plan.pooling.out_size + 2 * plan.slack)


cdef Py_ssize_t thread_scratch(const PoolPlan *plan) noexcept nogil:
    return source_scratch(plan) + offset_scratch(plan) + round_up(plan.scratch)


cdef Py_ssize_t pool_scratch(const PoolPlan *plan, Py_ssize_t n_imgs,
                             int n_threads) noexcept nogil:
    """Bytes of scratch for a call; backward, pairs become offsets there before they are used."""
    cdef Py_ssize_t size = n_threads * thread_scratch(plan)
    if plan.is_backward and plan.switches == PAIRS and plan.by_offsets:
        size += round_up(n_imgs * plan.n_channels * plan.pooling.out_size)
    return size


cdef inline const char *with_room(const char *planes, Py_ssize_t size, Py_ssize_t slack,
                                  char *room) noexcept nogil:
    """The planes, or a copy of them in which vectors may read what is around."""
    if slack == 0 or planes == NULL:
        return planes
    memcpy(room + slack, planes, size)
    return room + slack


cdef void run_units(void (*run)(void *, Py_ssize_t, int) noexcept nogil, PoolWork *work,
                    int n_threads) noexcept nogil:
    cdef Py_ssize_t n_pixels = work.n_planes * work.plan.pooling.img_size
    work.n_units = 4 * n_threads if n_threads > 1 else 1
    work.n_units = min(work.n_planes, max(work.n_units, n_pixels // LONG_UNIT))
    parallel_for(run, work, work.n_units, n_threads)


cdef inline Py_ssize_t unit_start(const PoolWork *work, Py_ssize_t unit) noexcept nogil:
    """Its first plane."""
    return unit * work.n_planes // work.n_units


cdef void plane_unit(void *context, Py_ssize_t unit, int thread) noexcept nogil:
    cdef const PoolWork *work = <PoolWork *>context
    cdef const PoolPlan *plan = work.plan
    cdef Py_ssize_t source_size = plan.source_size * plan.itemsize, out_size = plan.pooling.out_size
    cdef Py_ssize_t i = unit_start(work, unit), end = unit_start(work, unit + 1), n
    cdef char *room = work.scratch + thread * thread_scratch(plan)
    cdef char *found = room + source_scratch(plan)
    cdef char *scratch = found + offset_scratch(plan)
    cdef const char *source
    cdef const char *offsets = NULL
    cdef Py_ssize_t *pairs = NULL
    while i < end:
        n = min(plan.group, end - i)
        source = with_room(work.source + i * source_size, n * source_size,
                           plan.slack * plan.itemsize, room)
        if work.pairs != NULL:
            pairs = work.pairs + 2 * i * out_size
        if work.offsets != NULL:
            offsets = <const char *>work.offsets + i * out_size
            if plan.is_backward:
                offsets = with_room(offsets, n * out_size, plan.slack, found)
        elif work.pairs != NULL and plan.by_offsets:
            offsets = found
        plan.run(&plan.pooling, n, source, work.out + i * plan.target_size * plan.itemsize,
                 <uint8_t *>offsets, pairs, scratch)
        if work.pairs != NULL and plan.by_offsets:
            pool_to_pairs(&plan.pooling, n, <uint8_t *>found, pairs)
        i += n


cdef void check_unit(void *context, Py_ssize_t unit, int thread) noexcept nogil:
    cdef PoolWork *work = <PoolWork *>context
    cdef const Pooling *p = &work.plan.pooling
    cdef Py_ssize_t first = unit_start(work, unit), n = unit_start(work, unit + 1) - first
    cdef Py_ssize_t o = first * p.out_size
    if work.from_pairs != NULL:
        if not pool_to_offsets(p, n, work.pairs + 2 * o, work.from_pairs + o):
            work.is_elsewhere = True
    elif work.pairs != NULL:
        if not pool_pairs_inside(p, n, work.pairs + 2 * o):
            work.is_outside = True
    elif not pool_offsets_inside(p, n, work.offsets + o):
        work.is_outside = True


cdef PoolWork work_of(const PoolPlan *plan, Py_ssize_t n_imgs, const void *source, void *out,
                      const void *switches, char *scratch) noexcept nogil:
    cdef PoolWork work
    memset(&work, 0, sizeof(work))
    work.plan, work.n_planes, work.scratch = plan, n_imgs * plan.n_channels, scratch
    work.source, work.out = <const char *>source, <char *>out
    if plan.switches == OFFSETS:
        work.offsets = <uint8_t *>switches
    elif plan.switches == PAIRS:
        work.pairs = <Py_ssize_t *>switches
    return work


cdef void run_pool(const PoolPlan *plan, Py_ssize_t n_imgs, const void *imgs, void *poolout,
                   void *switches, char *scratch, int n_threads) noexcept nogil:
    """Forward; switches are what the plan says, or NULL where it says that there are none."""
    cdef PoolWork work = work_of(plan, n_imgs, imgs, poolout, switches, scratch)
    run_units(plane_unit, &work, n_threads)


cdef bint run_unpool(const PoolPlan *plan, const PoolPlan *elsewhere, Py_ssize_t n_imgs,
                     const void *grads, const void *switches, void *imgs_grad, char *scratch,
                     int n_threads) noexcept nogil:
    """Backward; True, and nothing is written, if any switch is outside of the images.

    `elsewhere` is a plan for pairs that are not in their windows.
    """
    cdef PoolWork work = work_of(plan, n_imgs, grads, imgs_grad, switches, scratch)
    if plan.switches == PAIRS and plan.by_offsets:
        work.from_pairs = <uint8_t *>scratch + n_threads * thread_scratch(plan)
    if plan.switches != NO_SWITCHES:
        run_units(check_unit, &work, n_threads)
        if work.is_elsewhere:
            return run_unpool(elsewhere, NULL, n_imgs, grads, switches, imgs_grad, scratch,
                              n_threads)
        if work.is_outside:
            return True
    if work.from_pairs != NULL:
        work.offsets, work.pairs = work.from_pairs, NULL
    run_units(plane_unit, &work, n_threads)
    return False
