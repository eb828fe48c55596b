# Pooling as a step of a program: without argmax offsets. Needs pool/plan.pxi and pool/run.pxi.

from nnet._program cimport Step


cdef class PoolStep(Step):
    """Pooling of images of one shape.

    Parameters
    ----------
    imgs_shape : tuple
    sizes : tuple
        (pool_h, pool_w, stride_y, stride_x)
    options : dict
        mode and padding_mode, and count_include_pad and ceil_mode if they are true.
    itemsize : int
    """

    cdef KeptPlan kept

    def __init__(self, tuple imgs_shape, tuple sizes, dict options, int itemsize):
        self.kept = plan_call(
            imgs_shape[1:], (), sizes, options["padding_mode"], options.get("ceil_mode", False),
            options.get("count_include_pad", False), options["mode"] == "max", NO_SWITCHES,
            itemsize, False, None)
        self.out_bytes = itemsize
        for n in self.kept.out_axes:
            self.out_bytes *= n
        self.call.run, self.call.scratch = pool_step, pool_step_scratch
        self.call.plan = &self.kept.plan
        self.call.products = 4.0 * imgs_shape[1] * imgs_shape[2] * imgs_shape[3]


cdef void pool_step(const void *plan, const void *src, const void *other, void *dst,
                    Py_ssize_t n_imgs, void *scratch, int n_threads) noexcept nogil:
    run_pool(<const PoolPlan *>plan, n_imgs, src, dst, NULL, <char *>scratch, n_threads)


cdef Py_ssize_t pool_step_scratch(const void *plan, Py_ssize_t n_imgs,
                                  int n_threads) noexcept nogil:
    return pool_scratch(<const PoolPlan *>plan, n_imgs, n_threads)
