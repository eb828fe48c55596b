# What a call hands to the threads: units of work, each of some planes one after the other.

from nnet._runtime cimport parallel_for, unit_function

cdef enum:
    LONG_UNIT = 1 << 22         # of images: after a few ms of one thread, a look for signals

cdef struct PoolWork:
    const void *source            # imgs, or poolout_grad
    void *out                     # poolout, or imgs_grad
    bint is_max, is_float
    bint shared                   # gradients of maxima add up in double
    Switches switches
    uint8_t *places               # room for the places of pairs, or NULL
    Pooling job
    Plan plan                     # of the forward pass
    Values values                 # of one without switches
    Reach reach                   # of the backward pass
    Py_ssize_t n_planes, n_units
    ThreadMemory buffers
    bint wrong                    # set by any thread: there is a switch that is outside


cdef void share(PoolWork *work, unit_function run, Py_ssize_t buffer_size, int n_threads) except *:
    """Run a function on all units, with a buffer of so many bytes for each thread."""
    cdef Workspace space = acquire_workspace()
    work.buffers = take_for_threads(space, n_threads, buffer_size, 0)
    cdef Py_ssize_t n_pixels = work.n_planes * work.job.height.size * work.job.width.size
    work.n_units = 4 * n_threads if n_threads > 1 else 1
    work.n_units = min(work.n_planes, max(work.n_units, n_pixels // LONG_UNIT))
    with nogil:
        parallel_for(run, work, work.n_units, n_threads)
    space.release()


cdef inline void planes_of(const PoolWork *work, Py_ssize_t unit, Py_ssize_t *first,
                           Py_ssize_t *last) noexcept nogil:
    first[0] = unit * work.n_planes // work.n_units
    last[0] = (unit + 1) * work.n_planes // work.n_units


# --- forward ------------------------------------------------------------------------

cdef void run_forward(PoolWork *work, int n_threads) except *:
    cdef Py_ssize_t size = sizeof(float) if work.is_float else sizeof(double)
    cdef Py_ssize_t buffer_size = 0
    if not (are_twos(&work.job) or is_global(&work.job)):
        work.plan = plan_forward(&work.job, work.is_max, size)
        work.values = plan_values(&work.job, size)
        buffer_size = size * (
            2 * work.values.room if are_values(&work.job, work.is_max, switches_of(work))
            else work.plan.total)
    share(work, forward_float if work.is_float else forward_double, buffer_size, n_threads)


cdef inline const Switches *switches_of(const PoolWork *work) noexcept nogil:
    """NULL where there are none."""
    if work.switches.pairs == NULL and work.switches.places == NULL:
        return NULL
    return &work.switches


cdef void forward_unit(const PoolWork *work, Py_ssize_t unit, const real *imgs, real *poolout,
                       real *buffer) noexcept nogil:
    cdef const Switches *switches = switches_of(work)
    cdef Py_ssize_t first, last
    planes_of(work, unit, &first, &last)
    if are_twos(&work.job):
        pool_2x2_planes(imgs, poolout, switches, first, last, work.n_planes, work.job,
                        work.is_max)
    elif is_global(&work.job):
        pool_whole_planes(imgs, poolout, switches, first, last, &work.job, work.is_max)
    elif are_values(&work.job, work.is_max, switches):
        max_values_planes(imgs, poolout, first, last, work.job, work.values, buffer)
    else:
        pool_planes(imgs, poolout, switches, first, last, work.n_planes, work.job, work.plan,
                    work.is_max, buffer)


cdef void forward_float(void *context, Py_ssize_t unit, int thread) noexcept nogil:
    cdef PoolWork *work = <PoolWork *>context
    forward_unit(work, unit, <const float *>work.source, <float *>work.out,
                 <float *>piece_of(&work.buffers, thread))


cdef void forward_double(void *context, Py_ssize_t unit, int thread) noexcept nogil:
    cdef PoolWork *work = <PoolWork *>context
    forward_unit(work, unit, <const double *>work.source, <double *>work.out,
                 <double *>piece_of(&work.buffers, thread))


# --- backward ------------------------------------------------------------------------

cdef bint run_backward(PoolWork *work, int n_threads) except -1:
    """True, and nothing is written, if any switch is outside the images."""
    cdef Py_ssize_t size = sizeof(float) if work.is_float else sizeof(double)
    cdef bint threes = are_threes(&work.job)
    if work.is_max:
        if work.places != NULL:
            share(work, find_unit, 3 * round_up(work.job.width.out) * sizeof(float), n_threads)
            if not work.wrong:
                work.switches.pairs, work.switches.places = NULL, work.places
        if work.places == NULL or work.wrong:
            work.wrong = False
            share(work, check_unit, 0, n_threads)
            if work.wrong:
                return True
    work.reach = plan_backward(&work.job, size)
    cdef Py_ssize_t buffer_size = work.reach.total * size
    if work.shared:
        buffer_size = work.job.height.size * work.job.width.size * sizeof(double)
    elif are_twos(&work.job) or (work.is_max and not threes):
        buffer_size = 0
    share(work, backward_float if work.is_float else backward_double, buffer_size, n_threads)
    return False


cdef void find_unit(void *context, Py_ssize_t unit, int thread) noexcept nogil:
    cdef PoolWork *work = <PoolWork *>context
    cdef Py_ssize_t first, last
    planes_of(work, unit, &first, &last)
    if not find_places(work.switches.pairs, work.places, first, last, work.job,
                       <float *>piece_of(&work.buffers, thread)):
        work.wrong = True


cdef void check_unit(void *context, Py_ssize_t unit, int thread) noexcept nogil:
    cdef PoolWork *work = <PoolWork *>context
    cdef Py_ssize_t first, last
    planes_of(work, unit, &first, &last)
    if work.switches.pairs != NULL:
        if pairs_are_outside(work.switches.pairs, first, last, &work.job):
            work.wrong = True
    elif places_are_outside(work.switches.places, first, last, work.job):
        work.wrong = True


cdef void backward_unit(const PoolWork *work, Py_ssize_t unit, const real *poolout_grad,
                        real *imgs_grad, real *buffer) noexcept nogil:
    cdef const Switches *switches = &work.switches
    cdef bint in_places = switches.places != NULL
    cdef Py_ssize_t first, last
    planes_of(work, unit, &first, &last)
    if are_twos(&work.job) and (in_places or not work.is_max):
        unpool_2x2_planes(poolout_grad, switches.places, imgs_grad, first, last, work.job)
    elif work.is_max and not (in_places and are_threes(&work.job)):
        scatter_planes(poolout_grad, switches, imgs_grad,
                       <double *>buffer if work.shared else NULL, first, last, &work.job)
    elif is_global(&work.job):
        spread_whole_planes(poolout_grad, imgs_grad, first, last, &work.job)
    else:
        reach_planes(poolout_grad, switches.places, imgs_grad, first, last, work.n_planes,
                     work.job, work.reach, buffer)


cdef void backward_float(void *context, Py_ssize_t unit, int thread) noexcept nogil:
    cdef PoolWork *work = <PoolWork *>context
    backward_unit(work, unit, <const float *>work.source, <float *>work.out,
                  <float *>piece_of(&work.buffers, thread))


cdef void backward_double(void *context, Py_ssize_t unit, int thread) noexcept nogil:
    cdef PoolWork *work = <PoolWork *>context
    backward_unit(work, unit, <const double *>work.source, <double *>work.out,
                  <double *>piece_of(&work.buffers, thread))
