# Dense layers, sums and what is done to single values, as steps of a program. Needs
# dense/matmul.pxi and common/follow.pxi.

cdef enum:
    LARGE_WEIGHTS = 1 << 17     # bytes, which are read once for all images rather than for some

cdef struct LinearCall:
    ProductPlan product
    const void *W
    const void *b
    bint with_relu


cdef class LinearStep(Step):
    """A Linear for rows of n_in values; its arrays are read where they are.

    Parameters
    ----------
    layer : Linear
        That has weights.
    norm : BatchNorm or None
        Whose running statistics, gamma and beta become part of the weights.
    with_relu : bool
    """

    cdef LinearCall job
    cdef object layer, norm, dtype
    cdef tuple shape
    cdef cnp.ndarray W, b
    cdef list seen

    def __init__(self, layer, norm, bint with_relu):
        cdef Py_ssize_t n_in, n_out, itemsize = layer.W.itemsize
        self.layer, self.norm, self.seen = layer, norm, []
        self.shape, self.dtype = layer.W.shape, layer.W.dtype
        n_in, n_out = self.shape
        self.job.product = plan_product(n_in, n_out, n_in, 1, n_out, 1, TERMS, itemsize == 4)
        self.job.with_relu = with_relu
        self.out_bytes = n_out * itemsize
        self.wants_all = n_in * n_out * itemsize > LARGE_WEIGHTS
        self.call.run, self.call.scratch, self.call.plan = linear_run, linear_scratch, &self.job
        self.call.products = <double>n_in * n_out

    cdef int follow(self) except -1:
        if self.norm is None:
            W, b = self.layer.W, self.layer.b if self.layer.use_bias else None
            if W is self.W and b is self.b:
                return 0
            check_followed([W, b], self.shape, self.dtype, self.shape[1])
            self.W, self.b = contiguous(W), None if b is None else contiguous(b)
        elif has_changed(self.layer, self.norm, self.seen):
            check_followed(self.seen, self.shape, self.dtype, self.shape[1])
            self.W, self.b = folded(self.seen, (-1,))
        self.job.W, self.job.b = data_of(self.W), data_of(self.b)
        return 0


cdef void linear_run(const void *plan, const void *src, const void *other, void *dst,
                     Py_ssize_t n_imgs, void *scratch, int n_threads) noexcept nogil:
    cdef const LinearCall *job = <const LinearCall *>plan
    run_product(&job.product, src, job.W, job.b, dst, n_imgs, 1, job.with_relu, scratch, n_threads)


cdef Py_ssize_t linear_scratch(const void *plan, Py_ssize_t n_imgs, int n_threads) noexcept nogil:
    return n_threads * product_scratch(&(<const LinearCall *>plan).product, n_imgs)


# --- value by value -----------------------------------------------------------------

cdef struct ValuesCall:         # out = (src [+ other]) [- mean] [/ scale], rectified or not
    Py_ssize_t size             # of an image
    Py_ssize_t channel_size     # values with the same mean and scale
    bint is_float, with_relu
    const void *mean            # (size / channel_size,) or NULL, and so is scale
    const void *scale


cdef class ValuesStep(Step):
    """Of each value; or of the sum of two.

    Parameters
    ----------
    size, channel_size : int
        Values of an image, and of a channel of it.
    is_float, with_relu : bool
    layer : Standardize, optional
        Whose mean and scale there are.
    """

    cdef ValuesCall job
    cdef object layer
    cdef cnp.ndarray mean, scale

    def __init__(self, Py_ssize_t size, Py_ssize_t channel_size, bint is_float, bint with_relu,
                 layer=None):
        self.layer = layer
        self.job = [size, channel_size, is_float, with_relu, NULL, NULL]
        self.out_bytes = size * (4 if is_float else 8)
        self.call.run, self.call.scratch, self.call.plan = values_run, NULL, &self.job
        self.call.products = size
        if layer is not None and not layer.adapts():    # numbers: another one is another step
            dtype = np.float32 if is_float else np.float64
            self.mean, self.scale = [np.full(1, value, dtype) for value in layer._constants(2)]
            self.job.mean, self.job.scale = data_of(self.mean), data_of(self.scale)

    cdef int follow(self) except -1:
        if self.layer is None or not self.layer.adapts():
            return 0
        mean, scale = self.layer.mean_, self.layer.scale_
        if mean is self.mean and scale is self.scale:
            return 0
        shape = (self.job.size // self.job.channel_size,)
        dtype = np.dtype(np.float32 if self.job.is_float else np.float64)
        for name, array in (("mean_", mean), ("scale_", scale)):
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"{name} has shape {array.shape} and dtype {array.dtype}, "
                                 f"expected {shape} and {dtype}")
        self.mean, self.scale = contiguous(mean), contiguous(scale)
        self.job.mean, self.job.scale = data_of(self.mean), data_of(self.scale)
        return 0


cdef void values_run(const void *plan, const void *src, const void *other, void *dst,
                     Py_ssize_t n_imgs, void *scratch, int n_threads) noexcept nogil:
    cdef const ValuesCall *job = <const ValuesCall *>plan
    if job.is_float:
        values_of(job, <const float *>src, <const float *>other, <float *>dst, n_imgs)
    else:
        values_of(job, <const double *>src, <const double *>other, <double *>dst, n_imgs)


cdef void values_of(const ValuesCall *job, const real *src, const real *other, real *dst,
                    Py_ssize_t n_imgs) noexcept nogil:
    cdef Py_ssize_t i, c, n, n_channels = job.size // job.channel_size
    cdef real mean, scale, x
    if job.mean == NULL:
        for i in range(n_imgs * job.size):
            x = src[i]
            if other != NULL:
                x += other[i]
            dst[i] = <real>0 if job.with_relu and x < 0 else x
        return
    for n in range(n_imgs):
        for c in range(n_channels):
            mean, scale = (<const real *>job.mean)[c], (<const real *>job.scale)[c]
            for i in range(job.channel_size):
                dst[i] = (src[i] - mean) / scale
            src += job.channel_size
            dst += job.channel_size
