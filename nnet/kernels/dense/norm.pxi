# Batch and group normalisation. Needs common/chunks, common/memory, common/simd, dense/norm.h.
#
# Forward, one pass takes moments and one normalises; backward, one takes two sums for each
# channel and one writes the gradient. What is put together, and in which order, follows from
# the shape alone: common/chunks.h says how sums over images do.

from libc.math cimport INFINITY

ctypedef void *Data
ctypedef double *Doubles

cdef extern from "dense/norm.h":
    enum NormPass:
        MOMENTS, NORMALIZE, SUMS, GRADIENT
    ctypedef struct Moments:
        double weight, mean, squares
    ctypedef struct Norm:
        bint is_float, with_relu, of_batch
        NormPass step "pass"
        Py_ssize_t n_imgs, n_channels, n_pixels, n_groups, n_rows, per_unit
        Data imgs, grad, out, gamma, beta, running_mean, running_var, gamma_grad, beta_grad
        Data center, scale, shift, slope, offset
        Doubles weights, mean, inv_std, sums
        double weight, count, eps, momentum
        Moments *moments
    enum: UNIT_SIZE
    void norm_unit(void *job, Py_ssize_t unit, int thread) noexcept nogil
    Py_ssize_t chunk_size(const Norm *job) noexcept nogil
    Py_ssize_t n_sums(const Norm *job) noexcept nogil
    void weigh(Norm *job, const double *weights, double *scaled) noexcept nogil
    void join_moments(const Norm *job) noexcept nogil
    void join_sums(const Norm *job) noexcept nogil
    void find_statistics(const Norm *job) noexcept nogil
    void use_averages(const Norm *job) noexcept nogil
    void move_averages(const Norm *job) noexcept nogil
    void set_coefficients(const Norm *job) noexcept nogil
    void find_gradients(const Norm *job) noexcept nogil
    void find_param_grads(const Norm *job) noexcept nogil


cdef void run_pass(Norm *job, NormPass step, int n_threads) noexcept nogil:
    cdef Py_ssize_t n_units, size
    job.step = step
    if step == MOMENTS and not job.of_batch:
        size = job.n_channels // job.n_groups * job.n_pixels
        n_units = job.n_imgs * job.n_groups
    else:
        size = chunk_size(job) * job.n_pixels
        n_units = job.n_channels
    job.per_unit = max(<Py_ssize_t>1, UNIT_SIZE // size)
    n_units = (n_units + job.per_unit - 1) // job.per_unit
    if step != MOMENTS or job.of_batch:
        n_units *= n_sums(job)
    parallel_for(norm_unit, job, n_units, n_threads)


cdef class NormCall:
    """One call: its arrays, checked, and its job."""

    cdef Norm job
    cdef Workspace space
    cdef int n_threads
    cdef tuple shape
    cdef object dtype
    cdef cnp.ndarray imgs, grad, weights
    cdef list others        # (array, name): no output overlaps one of them
    cdef list outputs       # (array, what the kernel writes)
    cdef list kept          # arrays that the job points to

    def __init__(self, imgs, gamma, beta, weights, activation, n_threads, bint of_batch):
        cdef cnp.ndarray imgs_ = check_reals(imgs, "imgs", None, "")
        if cnp.PyArray_NDIM(imgs_) < 2:
            raise ValueError(f"imgs has shape {shape_of(imgs_)}, expected n_imgs, n_channels, ...")
        self.imgs, self.shape, self.dtype = imgs_, shape_of(imgs_), imgs_.dtype
        self.others, self.outputs, self.kept = [(imgs_, "imgs")], [], []
        if 0 in self.shape[1:]:
            raise ValueError(f"imgs has shape {self.shape}, expected no empty axis but the images'")
        self.job.n_imgs, self.job.n_channels = self.shape[0], self.shape[1]
        self.job.n_pixels = 1
        for length in self.shape[2:]:
            self.job.n_pixels *= length
        self.job.with_relu = check_activation(activation)
        self.job.gamma = data_of(self.of_channels(gamma, "gamma"))
        self.job.beta = data_of(self.of_channels(beta, "beta"))
        if weights is not None:
            self.weights = contiguous(check_doubles(weights, "weights", (self.job.n_imgs,)))
            check_weights(self.weights)
        self.n_threads = threads_for(n_threads, cnp.PyArray_SIZE(imgs_), SMALL_SIZE)
        self.job.is_float = cnp.PyArray_TYPE(imgs_) == cnp.NPY_FLOAT
        self.job.of_batch, self.job.n_rows = of_batch, 1 if of_batch else self.job.n_imgs
        self.job.n_groups = self.job.n_channels
        self.job.weight = self.job.count = <double>self.job.n_imgs * self.job.n_pixels

    cdef int group(self, Py_ssize_t n_groups) except -1:
        """Statistics of each group and image; whether there can be so many groups."""
        if n_groups < 1 or self.job.n_channels % n_groups:
            return False
        self.job.n_groups = n_groups
        self.job.weight = self.job.count = self.job.n_channels // n_groups * self.job.n_pixels
        return True

    cdef cnp.ndarray of_channels(self, object array, str name):
        cdef cnp.ndarray checked = check_reals(array, name, self.imgs, "imgs")
        check_shape(checked, name, (self.job.n_channels,))
        self.others.append((checked, name))
        if not cnp.PyArray_ISCARRAY_RO(checked):
            checked = contiguous(checked)
            self.kept.append(checked)
        return checked

    cdef void take_statistics(self, object mean, object inv_std, tuple shape) except *:
        """Those that an earlier call has found."""
        cdef cnp.ndarray mean_ = contiguous(check_doubles(mean, "mean", shape))
        cdef cnp.ndarray inv_std_ = contiguous(check_doubles(inv_std, "inv_std", shape))
        self.job.mean, self.job.inv_std = doubles(mean_), doubles(inv_std_)
        self.kept += [mean_, inv_std_]

    cdef void *output(self, object array, str name, tuple shape, object dtype) except? NULL:
        """Memory of an array that the kernel may write to: `finish` delivers it."""
        cdef cnp.ndarray out = check_output(array, name, shape, dtype)
        refuse_overlaps(out, name, self.others)
        self.others.append((out, name))
        cdef cnp.ndarray work = work_array(out)
        self.outputs.append((out, work))
        return data_of(work)

    cdef void gradients(self, object out_grad, object imgs_grad, object gamma_grad,
                        object beta_grad, bint need_imgs_grad) except *:
        """Check them, and take their memory."""
        cdef tuple per_channel = (self.job.n_channels,)
        self.grad = check_reals(out_grad, "out_grad", self.imgs, "imgs")
        check_shape(self.grad, "out_grad", self.shape)
        self.others.append((self.grad, "out_grad"))
        if not need_imgs_grad and imgs_grad is not None:
            raise ValueError("imgs_grad is an array, expected None as need_imgs_grad is False")
        self.job.gamma_grad = self.output(gamma_grad, "gamma_grad", per_channel, self.dtype)
        self.job.beta_grad = self.output(beta_grad, "beta_grad", per_channel, self.dtype)
        if need_imgs_grad:
            self.job.out = self.output(imgs_grad, "imgs_grad", self.shape, self.dtype)

    cdef void start(self) except *:
        """Take memory for coefficients, moments and sums. From here on nothing is refused."""
        cdef Norm *job = &self.job
        cdef Py_ssize_t size = job.n_rows * job.n_channels * self.imgs.itemsize
        cdef Py_ssize_t sums_size = max(n_sums(job), <Py_ssize_t>1) * job.n_channels * 2 * 8
        self.imgs = contiguous(self.imgs)
        self.grad = None if self.grad is None else contiguous(self.grad)
        job.imgs, job.grad = data_of(self.imgs), data_of(self.grad)
        self.space = acquire_workspace()
        job.weights = NULL
        if self.weights is not None:
            weigh(job, doubles(self.weights), <double *>self.space.take(job.n_imgs * 8))
        job.center, job.scale = self.space.take(size), self.space.take(size)
        job.shift, job.slope = self.space.take(size), self.space.take(size)
        job.offset = self.space.take(size)
        if self.grad is None:
            job.moments = <Moments *>self.space.take(n_sums(job) * job.n_groups * sizeof(Moments))
            return
        job.sums = <double *>self.space.take(sums_size)
        if job.n_imgs == 0:
            memset(job.sums, 0, sums_size)

    cdef tuple forward(self):
        """Normalise by the statistics, which are found."""
        set_coefficients(&self.job)
        with nogil:
            run_pass(&self.job, NORMALIZE, self.n_threads)
        return self.finish()

    cdef tuple backward(self, bint need_imgs_grad):
        set_coefficients(&self.job)
        with nogil:
            run_pass(&self.job, SUMS, self.n_threads)
            if self.job.of_batch:
                join_sums(&self.job)
            find_gradients(&self.job)
            if not self.job.of_batch:
                join_sums(&self.job)
            find_param_grads(&self.job)
            if need_imgs_grad:
                run_pass(&self.job, GRADIENT, self.n_threads)
        gamma_grad, beta_grad, *imgs_grad = self.finish()
        return imgs_grad[0] if need_imgs_grad else None, gamma_grad, beta_grad

    cdef tuple finish(self):
        self.space.release()
        for out, work in self.outputs:
            deliver(out, work)
        return tuple([out for out, _ in self.outputs])


cdef cnp.ndarray check_doubles(object array, str name, tuple shape):
    check_ndarray(array, name, "a NumPy array")
    if array.dtype != FLOAT64:
        raise TypeError(f"{name} has dtype {array.dtype}, expected {FLOAT64}")
    check_shape(array, name, shape)
    return array


cdef void check_weights(cnp.ndarray weights) except *:
    cdef Py_ssize_t n
    for n in range(cnp.PyArray_SIZE(weights)):
        if not 0 <= doubles(weights)[n] < INFINITY:
            raise ValueError(
                f"weights has {doubles(weights)[n]}, expected finite numbers of at least 0")


cdef double as_epsilon(object value) except -1:
    cdef double eps = value
    if not 0 < eps < INFINITY:
        raise ValueError(f"eps is {value!r}, expected a finite number greater than 0")
    return eps


cdef double *doubles(cnp.ndarray array) noexcept:
    return <double *>cnp.PyArray_DATA(array)
