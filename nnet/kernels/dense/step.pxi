# Dense layers, normalisation, and what is done to single values, as steps of a program. Needs
# dense/matmul.pxi, dense/activations.pxi, dense/losses.pxi, dense/norm.pxi and common/follow.pxi.

cdef enum:
    LARGE_WEIGHTS = 1 << 17     # bytes, which are read once for all images rather than for some
    WEIGHT_PRODUCTS = 4         # multiply-adds that it takes as long as to read one of these
    FUNCTION_PRODUCTS = 8       # multiply-adds that an exponential takes as long as

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
    cdef object layer
    cdef Followed followed
    cdef cnp.ndarray W, b

    def __init__(self, layer, norm, bint with_relu):
        cdef Py_ssize_t n_in, n_out, itemsize = layer.W.itemsize
        n_in, n_out = layer.W.shape
        self.layer, self.followed = layer, Followed(layer, norm, layer.W.shape, (-1,))
        self.job.product = plan_product(n_in, n_out, n_in, 1, n_out, 1, TERMS, itemsize == 4)
        self.job.with_relu = with_relu
        self.out_bytes = n_out * itemsize
        self.wants_all = n_in * n_out * itemsize > LARGE_WEIGHTS
        self.call.run, self.call.scratch, self.call.plan = linear_run, linear_scratch, &self.job
        self.call.products = <double>n_in * n_out * (WEIGHT_PRODUCTS if self.wants_all else 1)

    cdef int follow(self) except -1:
        cdef tuple arrays
        if self.followed.norm is None:
            W, b = self.layer.W, self.layer.b if self.layer.use_bias else None
            if W is self.W and b is self.b:
                return 0
            self.followed.check([W, b] if self.layer.use_bias else [W])
            self.W, self.b = contiguous(W), None if b is None else contiguous(b)
        else:
            arrays = self.followed.changed()
            if arrays is None:
                return 0
            self.W, self.b = arrays
        self.job.W, self.job.b = data_of(self.W), data_of(self.b)
        return 0


cdef void linear_run(const void *plan, const void *src, const void *other, void *dst,
                     Py_ssize_t n_imgs, void *scratch, int n_threads) noexcept nogil:
    cdef const LinearCall *job = <const LinearCall *>plan
    run_product(&job.product, src, job.W, job.b, dst, n_imgs, 1, job.with_relu, scratch, n_threads)


cdef Py_ssize_t linear_scratch(const void *plan, Py_ssize_t n_imgs, int n_threads) noexcept nogil:
    return n_threads * product_scratch(&(<const LinearCall *>plan).product, n_imgs)


# --- value by value -----------------------------------------------------------------

cdef class FunctionStep(Step):
    """A function of each value; or the sum of two values, rectified or not.

    Parameters
    ----------
    size : int
        Values of an image.
    dtype : numpy.dtype
    type : str or None
        One of `ACTIVATIONS`; of a sum 'relu' or None.
    of_sum : bool
    """

    cdef Function job

    def __init__(self, Py_ssize_t size, dtype, type, bint of_sum=False):
        cdef int number = SUM
        if type is not None:
            number = SUM_RELU if of_sum else number_of(type)
        self.job = [dtype.itemsize == 4, number, NULL, NULL, NULL, size]
        self.out_bytes = size * dtype.itemsize
        self.call.run, self.call.scratch, self.call.plan = function_run, NULL, &self.job
        self.call.products = size * (FUNCTION_PRODUCTS if SIGMOID <= number < SUM else 1)


cdef void function_run(const void *plan, const void *src, const void *other, void *dst,
                       Py_ssize_t n_imgs, void *scratch, int n_threads) noexcept nogil:
    cdef Function job = (<const Function *>plan)[0]
    job.values, job.grad, job.out, job.size = src, other, dst, job.size * n_imgs
    parallel_for(function_unit, &job, (job.size + PART_SIZE - 1) // PART_SIZE, n_threads)


cdef class SoftmaxStep(Step):
    """Probabilities of the classes of each image, or of each of its pixels; in place too.

    Parameters
    ----------
    n_classes, n_pixels : int
    dtype : numpy.dtype
    """

    cdef Loss job

    def __init__(self, Py_ssize_t n_classes, Py_ssize_t n_pixels, dtype):
        memset(&self.job, 0, sizeof(Loss))
        self.job.is_float = dtype.itemsize == 4
        self.job.n_classes, self.job.n_pixels = n_classes, n_pixels
        self.out_bytes = n_classes * n_pixels * dtype.itemsize
        self.call.run, self.call.scratch, self.call.plan = softmax_run, NULL, &self.job
        self.call.products = n_classes * n_pixels * <double>FUNCTION_PRODUCTS


cdef void softmax_run(const void *plan, const void *src, const void *other, void *dst,
                      Py_ssize_t n_imgs, void *scratch, int n_threads) noexcept nogil:
    cdef Loss job = (<const Loss *>plan)[0]
    job.scores, job.probs = src, dst
    parallel_for(entropy_unit, &job, n_imgs, n_threads)


cdef struct StandardizeCall:
    Py_ssize_t size, channel_size
    bint is_float
    const void *mean            # (size / channel_size,), and so is scale
    const void *scale


cdef class StandardizeStep(Step):
    """(x - mean) / scale.

    Parameters
    ----------
    size, channel_size : int
        Values of an image, and those that share mean and scale.
    dtype : numpy.dtype
    layer : Standardize
    """

    cdef StandardizeCall job
    cdef object layer, dtype
    cdef cnp.ndarray mean, scale

    def __init__(self, Py_ssize_t size, Py_ssize_t channel_size, dtype, layer):
        self.layer, self.dtype = layer, dtype
        self.job = [size, channel_size, dtype.itemsize == 4, NULL, NULL]
        self.out_bytes = size * dtype.itemsize
        self.call.run, self.call.scratch, self.call.plan = standardize_run, NULL, &self.job
        self.call.products = size
        if not layer.adapts():      # numbers: another one is another step
            mean, scale = layer._constants(2)
            self.take(np.full(1, mean, dtype), np.full(1, scale, dtype))

    cdef int take(self, mean, scale) except -1:
        self.mean, self.scale = contiguous(mean), contiguous(scale)
        self.job.mean, self.job.scale = data_of(self.mean), data_of(self.scale)
        return 0

    cdef int follow(self) except -1:
        if not self.layer.adapts():
            return 0
        mean, scale = self.layer.mean_, self.layer.scale_
        if mean is self.mean and scale is self.scale:
            return 0
        shape = (self.job.size // self.job.channel_size,)
        check_followed(mean, "mean_", shape, self.dtype)
        check_followed(scale, "scale_", shape, self.dtype)
        return self.take(mean, scale)


cdef void standardize_run(const void *plan, const void *src, const void *other, void *dst,
                          Py_ssize_t n_imgs, void *scratch, int n_threads) noexcept nogil:
    cdef const StandardizeCall *job = <const StandardizeCall *>plan
    if job.is_float:
        standardize(job, <const float *>src, <float *>dst, n_imgs)
    else:
        standardize(job, <const double *>src, <double *>dst, n_imgs)


cdef void standardize(const StandardizeCall *job, const real *src, real *dst,
                      Py_ssize_t n_imgs) noexcept nogil:
    cdef Py_ssize_t i, c, n
    cdef real mean, scale
    for n in range(n_imgs):
        for c in range(job.size // job.channel_size):
            mean, scale = (<const real *>job.mean)[c], (<const real *>job.scale)[c]
            for i in range(job.channel_size):
                dst[i] = (src[i] - mean) / scale
            src += job.channel_size
            dst += job.channel_size


# --- normalisation ------------------------------------------------------------------

cdef class NormStep(Step):
    """Batch normalisation by the running statistics, or group normalisation.

    Parameters
    ----------
    layer : BatchNorm or GroupNorm
    n_channels, n_pixels : int
    n_groups : int
        0: batch normalisation.
    with_relu : bool
    """

    cdef Norm job
    cdef object layer, dtype
    cdef tuple names
    cdef list arrays

    def __init__(self, layer, Py_ssize_t n_channels, Py_ssize_t n_pixels, Py_ssize_t n_groups,
                 bint with_relu):
        self.layer, self.dtype = layer, layer.gamma.dtype
        self.names = (*layer.param_names(), *layer.state_names())
        memset(&self.job, 0, sizeof(Norm))
        self.job.is_float, self.job.of_batch = self.dtype.itemsize == 4, n_groups == 0
        self.job.with_relu, self.job.eps = with_relu, layer.eps
        self.job.n_channels, self.job.n_pixels = n_channels, n_pixels
        self.job.n_groups = n_groups or n_channels
        self.job.weight = self.job.count = n_channels // self.job.n_groups * n_pixels
        self.out_bytes = n_channels * n_pixels * self.dtype.itemsize
        self.call.run, self.call.scratch, self.call.plan = norm_run, norm_scratch, &self.job
        self.call.products = 2.0 * n_channels * n_pixels

    cdef int follow(self) except -1:
        self.arrays = []
        for name in self.names:
            array = getattr(self.layer, name)
            check_followed(array, name, (self.job.n_channels,), self.dtype)
            self.arrays.append(contiguous(array))
        self.job.gamma, self.job.beta = data_of(self.arrays[0]), data_of(self.arrays[1])
        if self.job.of_batch:
            self.job.running_mean = data_of(self.arrays[2])
            self.job.running_var = data_of(self.arrays[3])
        return 0


cdef void norm_run(const void *plan, const void *src, const void *other, void *dst,
                   Py_ssize_t n_imgs, void *scratch, int n_threads) noexcept nogil:
    cdef Norm job = (<const Norm *>plan)[0]
    cdef Py_ssize_t n_rows = 1 if job.of_batch else n_imgs
    cdef Py_ssize_t size = norm_bytes(&job, n_rows)
    job.imgs, job.out, job.n_imgs, job.n_rows = <Data>src, dst, n_imgs, n_rows
    job.center, job.scale = scratch, <char *>scratch + size
    job.shift, job.mean = <char *>scratch + 2 * size, <double *>(<char *>scratch + 3 * size)
    job.inv_std = job.mean + n_rows * job.n_groups
    job.moments = <Moments *>(job.inv_std + n_rows * job.n_groups)
    if job.of_batch:
        use_averages(&job)
    else:
        run_pass(&job, MOMENTS, n_threads)
        find_statistics(&job)
    set_coefficients(&job)
    run_pass(&job, NORMALIZE, n_threads)


cdef inline Py_ssize_t norm_bytes(const Norm *job, Py_ssize_t n_rows) noexcept nogil:
    """Of a coefficient of each channel, in whole vectors."""
    return (n_rows * job.n_channels * (4 if job.is_float else 8) + 63) // 64 * 64


cdef Py_ssize_t norm_scratch(const void *plan, Py_ssize_t n_imgs, int n_threads) noexcept nogil:
    cdef const Norm *job = <const Norm *>plan
    cdef Py_ssize_t n_rows = 1 if job.of_batch else n_imgs
    return 3 * norm_bytes(job, n_rows) + n_rows * job.n_groups * (
        2 * <Py_ssize_t>sizeof(double) + <Py_ssize_t>sizeof(Moments))
