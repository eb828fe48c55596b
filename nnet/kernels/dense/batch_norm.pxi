# Batch normalisation: checks, and what lies between the passes of dense/norm_passes.pxi.

from libc.math cimport INFINITY, sqrt


cdef class NormCall:
    """One call: its arrays, checked, and its job."""

    cdef Norm job
    cdef Workspace space
    cdef bint is_float
    cdef int n_threads
    cdef tuple shape
    cdef object dtype
    cdef cnp.ndarray imgs, gamma, beta, weights, grad
    cdef list outputs       # (array, what the kernel writes)

    def __init__(self, imgs, gamma, beta, weights, activation, n_threads):
        cdef cnp.ndarray imgs_ = check_reals(imgs, "imgs", None, "")
        if cnp.PyArray_NDIM(imgs_) < 2:
            raise ValueError(f"imgs has shape {shape_of(imgs_)}, expected n_imgs, n_channels, ...")
        self.shape, self.dtype, self.outputs = shape_of(imgs_), imgs_.dtype, []
        if 0 in self.shape[1:]:
            raise ValueError(f"imgs has shape {self.shape}, expected no empty axis but the images'")
        self.job.n_imgs, self.job.n_channels = self.shape[0], self.shape[1]
        self.job.n_pixels = 1
        for length in self.shape[2:]:
            self.job.n_pixels *= length
        if activation is not None and activation != "relu":
            raise ValueError(f"activation is {activation!r}, expected None or 'relu'")
        self.job.with_relu = activation is not None
        self.gamma = self.of_channels(gamma, "gamma", imgs_)
        self.beta = self.of_channels(beta, "beta", imgs_)
        if weights is not None:
            self.weights = contiguous(check_doubles(weights, "weights", (self.job.n_imgs,)))
            check_weights(self.weights)
        self.n_threads = threads_for(n_threads, cnp.PyArray_SIZE(imgs_), SMALL_SIZE)
        self.is_float = cnp.PyArray_TYPE(imgs_) == cnp.NPY_FLOAT
        self.imgs, self.grad = imgs_, None

    cdef cnp.ndarray of_channels(self, object array, str name, cnp.ndarray imgs):
        cdef cnp.ndarray checked = check_reals(array, name, imgs, "imgs")
        check_shape(checked, name, (self.job.n_channels,))
        return contiguous(checked)

    cdef cnp.ndarray output(self, object array, str name, tuple shape, object dtype):
        """An array that the kernel may write to: `finish` delivers it."""
        cdef cnp.ndarray out = check_output(array, name, shape, dtype), work
        refuse_overlap(out, name, self.imgs, "imgs")
        refuse_overlap(out, name, self.grad, "out_grad")
        refuse_overlap(out, name, self.gamma, "gamma")
        refuse_overlap(out, name, self.beta, "beta")
        for other, _, other_name in self.outputs:
            refuse_overlap(out, name, other, other_name)
        work = work_array(out)
        self.outputs.append((out, work, name))
        return work

    cdef void start(self, Py_ssize_t n_rows, Py_ssize_t chunk, Py_ssize_t n_moments) except *:
        """Take memory for coefficients, moments and sums. From here on nothing is refused."""
        cdef Py_ssize_t size = n_rows * self.job.n_channels * self.imgs.itemsize
        cdef Py_ssize_t n_chunks = (self.job.n_imgs + chunk - 1) // chunk
        self.imgs = contiguous(self.imgs)
        self.grad = None if self.grad is None else contiguous(self.grad)
        self.job.imgs, self.job.grad = data_of(self.imgs), data_of(self.grad)
        self.job.chunk, self.job.per_image = chunk, self.job.n_channels if n_rows > 1 else 0
        self.space = acquire_workspace()
        weigh(&self.job, <double *>data_of(self.weights),
              <double *>self.space.take(self.job.n_imgs * 8))
        self.job.center, self.job.scale = self.space.take(size), self.space.take(size)
        self.job.shift, self.job.slope = self.space.take(size), self.space.take(size)
        self.job.offset = self.space.take(size)
        self.job.moments = <Moments *>self.space.take(n_moments * sizeof(Moments))
        self.job.sums = <double *>self.space.take(n_chunks * self.job.n_channels * 2 * 8)

    cdef void finish(self) except *:
        self.space.release()
        for out, work, _ in self.outputs:
            deliver(out, work)


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


# --- between the passes ---------------------------------------------------------------

cdef void weigh(Norm *job, const double *weights, double *scaled) noexcept nogil:
    """Set what depends on the weights of images, or on there being none.

    An image of weight 2 is two; weights that are small for their number count by their ratios,
    as sum(w)^2 / sum(w^2) images: Kish 1965, "Survey sampling".
    """
    cdef double largest = 0, total = 0, squares = 0
    cdef Py_ssize_t n, n_values = 0
    job.weights = NULL
    job.weight = job.count = <double>job.n_imgs * job.n_pixels
    if weights == NULL:
        return
    for n in range(job.n_imgs):
        largest = max(largest, weights[n])
    for n in range(job.n_imgs):
        scaled[n] = weights[n] / largest if largest > 0 else 0  # any scale: sums are finite
        total += scaled[n]
        squares += scaled[n] * scaled[n]
        n_values += job.n_pixels if scaled[n] > 0 else 0
    job.weights = scaled
    job.weight = total * job.n_pixels
    job.count = 0
    if n_values > 1:    # a single value is no sample, whatever it weighs
        job.count = max(total * largest, total * total / squares) * job.n_pixels


cdef void join_chunks(const Norm *job) noexcept nogil:
    """The moments and sums of all chunks into those of the first, along a binary tree."""
    cdef Py_ssize_t n_chunks = (job.n_imgs + job.chunk - 1) // job.chunk, distance = 1, k, c
    cdef Py_ssize_t n_channels = job.n_channels
    cdef Moments *other
    while distance < n_chunks:
        k = 0
        while k + distance < n_chunks:
            if job.step == SUMS:
                for c in range(2 * n_channels):
                    job.sums[2 * k * n_channels + c] += (
                        job.sums[2 * (k + distance) * n_channels + c])
            else:
                for c in range(n_channels):
                    other = job.moments + (k + distance) * n_channels + c
                    add_moments(job.moments + k * n_channels + c, other.weight, other.mean,
                                other.squares)
            k += 2 * distance
        distance *= 2


cdef void set_coefficients(const Norm *job, Py_ssize_t n_rows, const real *gamma,
                           const real *beta, const double *mean,
                           const double *inv_std) noexcept nogil:
    """Of the output, from the statistics of each channel, or of each group and image."""
    cdef real *center = <real *>job.center
    cdef real *scale = <real *>job.scale
    cdef real *shift = <real *>job.shift
    cdef Py_ssize_t n_groups = max(job.n_groups, 1), n, c, group, i = 0
    cdef Py_ssize_t per_group = job.n_channels // n_groups
    for n in range(n_rows):
        for c in range(job.n_channels):
            group = n * n_groups + c // per_group if job.n_groups > 0 else c
            center[i] = <real>mean[group]
            scale[i] = <real>(gamma[c] * inv_std[group])
            # The mean is subtracted first; what the center has lost of it by rounding, last.
            shift[i] = <real>(
                beta[c] - (mean[group] - center[i]) * (gamma[c] * inv_std[group]))
            i += 1


cdef void prepare(NormCall call, Py_ssize_t n_rows, cnp.ndarray mean, cnp.ndarray inv_std):
    if call.is_float:
        set_coefficients[float](&call.job, n_rows, <float *>data_of(call.gamma),
                                <float *>data_of(call.beta), doubles(mean), doubles(inv_std))
    else:
        set_coefficients[double](&call.job, n_rows, <double *>data_of(call.gamma),
                                 <double *>data_of(call.beta), doubles(mean), doubles(inv_std))


# --- batch normalisation ----------------------------------------------------------------

cdef void batch_statistics(const Norm *job, double *mean, double *inv_std,
                           double eps) noexcept nogil:
    """From the moments; a single value is no sample to divide by the deviation of."""
    cdef Py_ssize_t c
    for c in range(job.n_channels):
        mean[c] = job.moments[c].mean if job.n_imgs > 0 else 0
        inv_std[c] = 0
        if job.count > 1:
            inv_std[c] = 1 / sqrt(job.moments[c].squares / job.moments[c].weight + eps)


cdef void move_average(real *average, const Norm *job, double momentum,
                       bint of_variance) noexcept nogil:
    cdef double value, weight = job.weight - job.weight / job.count  # of a sample: one value less
    cdef Py_ssize_t c
    for c in range(job.n_channels):
        value = job.moments[c].squares / weight if of_variance else job.moments[c].mean
        average[c] = <real>((1 - momentum) * average[c] + momentum * value)


cdef void fixed_statistics(const real *running_mean, const real *running_var, double *mean,
                           double *inv_std, Py_ssize_t n_channels, double eps) noexcept nogil:
    cdef Py_ssize_t c
    for c in range(n_channels):
        mean[c], inv_std[c] = running_mean[c], 1 / sqrt(running_var[c] + eps)


def batch_norm(
    imgs,           # (n_imgs, n_channels, ...)                             IN
    gamma,          # (n_channels,)                                         IN
    beta,           # (n_channels,)                                         IN
    running_mean,   # (n_channels,)                                         IN/OUT
    running_var,    # (n_channels,)                                         IN/OUT
    out=None,       # (n_imgs, n_channels, ...)                             OUT
    mean=None,      # (n_channels,)                                         OUT
    inv_std=None,   # (n_channels,)                                         OUT
    *,
    training=True,
    momentum=0.1,
    eps=1e-5,
    weights=None,   # (n_imgs,)                                             IN
    activation=None,
    n_threads=None,
):
    """(imgs - mean) / sqrt(var + eps) * gamma + beta, for each channel.

    Ioffe and Szegedy 2015, "Batch normalization", algorithms 1 and 2, with the conventions of
    PyTorch: the running variance is that of a sample, divided by one less than the values.

    Parameters
    ----------
    imgs : ndarray (n_imgs, n_channels, ...), float32 or float64
    gamma, beta, running_mean, running_var : ndarray (n_channels,), same dtype
    out : ndarray of the shape and dtype of imgs, optional
        Filled and returned; None allocates it. It may share memory with no input.
    mean, inv_std : ndarray (n_channels,), float64, optional
        Filled with what the images were normalised by, for the backward pass: inv_std is
        1 / sqrt(var + eps), or 0 where the batch has no more than one value for a channel whose
        weight is above 0.
    training : bool
        Whether by the statistics of the batch, which then change the running ones, or by those.
        A batch of a single value for each channel gives beta, and changes none.
    momentum : float
        The share of the batch in the new running statistics.
    eps : float
        Greater than 0.
    weights : ndarray (n_imgs,), float64, optional
        An image of weight 2 counts as two. How many values there are, for the running variance,
        is max(sum(w), sum(w)^2 / sum(w^2)) for each pixel: weights that are small count by their
        ratios.
    activation : {None, 'relu'}
        Applied to the result.
    n_threads : int, optional
        Default: `nnet.get_num_threads()`. It changes no bit of the result.

    Returns
    -------
    out, mean, inv_std : ndarray

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit.
    """
    cdef NormCall call = NormCall(imgs, gamma, beta, weights, activation, n_threads)
    cdef Norm *job = &call.job
    cdef double eps_ = as_epsilon(eps), momentum_ = momentum
    cdef bint is_training = training
    if not 0 <= momentum_ <= 1:
        raise ValueError(f"momentum is {momentum!r}, expected a number from 0 to 1")
    cdef tuple per_channel = (job.n_channels,)
    cdef cnp.ndarray out_ = call.output(out, "out", call.shape, call.dtype)
    cdef cnp.ndarray mean_ = call.output(mean, "mean", per_channel, FLOAT64)
    cdef cnp.ndarray inv_std_ = call.output(inv_std, "inv_std", per_channel, FLOAT64)
    cdef list running = []
    for array, name in ((running_mean, "running_mean"), (running_var, "running_var")):
        if is_training and array is not None:
            call.output(array, name, per_channel, call.dtype)
        running.append(call.of_channels(array, name, call.imgs))
    cdef cnp.ndarray run_mean = running[0], run_var = running[1]
    cdef Py_ssize_t n_chunks = (job.n_imgs + CHUNK - 1) // CHUNK
    call.start(1, CHUNK, n_chunks * job.n_channels if is_training else 0)
    job.out = data_of(out_)
    if is_training:
        with nogil:
            run_pass(job, BATCH_MOMENTS, call.is_float, call.n_threads)
            join_chunks(job)
        end_call()      # running averages move after whole sums, or not at all
        batch_statistics(job, doubles(mean_), doubles(inv_std_), eps_)
        if job.count > 1 and call.is_float:
            move_average[float](<float *>data_of(run_mean), job, momentum_, False)
            move_average[float](<float *>data_of(run_var), job, momentum_, True)
        elif job.count > 1:
            move_average[double](<double *>data_of(run_mean), job, momentum_, False)
            move_average[double](<double *>data_of(run_var), job, momentum_, True)
        call.outputs[3:] = [(running_mean, run_mean, ""), (running_var, run_var, "")]
    elif call.is_float:
        fixed_statistics[float](<float *>data_of(run_mean), <float *>data_of(run_var),
                                doubles(mean_), doubles(inv_std_), job.n_channels, eps_)
    else:
        fixed_statistics[double](<double *>data_of(run_mean), <double *>data_of(run_var),
                                 doubles(mean_), doubles(inv_std_), job.n_channels, eps_)
    prepare(call, 1, mean_, inv_std_)
    with nogil:
        run_pass(job, NORMALIZE, call.is_float, call.n_threads)
    call.finish()
    return call.outputs[0][0], call.outputs[1][0], call.outputs[2][0]


cdef void batch_gradients(const Norm *job, bint is_training, const real *gamma,
                          const double *mean, const double *inv_std, real *gamma_grad,
                          real *beta_grad) noexcept nogil:
    """Those of the parameters, and the coefficients of that of the images."""
    cdef const real *center = <const real *>job.center
    cdef double n_imgs = max(job.n_imgs, <Py_ssize_t>1), scale, total, products
    cdef Py_ssize_t c
    for c in range(job.n_channels):
        total = job.sums[2 * c] if job.n_imgs > 0 else 0
        products = job.sums[2 * c + 1] if job.n_imgs > 0 else 0
        # of grad with the normalised images
        products = inv_std[c] * (products - (mean[c] - center[c]) * total)
        beta_grad[c] = <real>(total / n_imgs)
        gamma_grad[c] = <real>(products / n_imgs)
        scale = gamma[c] * inv_std[c] / job.weight if is_training and job.count > 1 else 0
        (<real *>job.slope)[c] = <real>(-scale * inv_std[c] * products)
        (<real *>job.offset)[c] = <real>(
            scale * ((mean[c] - center[c]) * inv_std[c] * products - total))


cdef tuple gradient_arrays(NormCall call, object out_grad, object imgs_grad, object gamma_grad,
                           object beta_grad, bint need_imgs_grad):
    """(what to write for imgs or None, for gamma, for beta); checks all of them."""
    cdef cnp.ndarray grad = check_reals(out_grad, "out_grad", call.imgs, "imgs")
    cdef tuple per_channel = (call.job.n_channels,)
    check_shape(grad, "out_grad", call.shape)
    call.grad = grad
    if not need_imgs_grad and imgs_grad is not None:
        raise ValueError("imgs_grad is an array, expected None as need_imgs_grad is False")
    gamma_work = call.output(gamma_grad, "gamma_grad", per_channel, call.dtype)
    beta_work = call.output(beta_grad, "beta_grad", per_channel, call.dtype)
    imgs_work = None
    if need_imgs_grad:
        imgs_work = call.output(imgs_grad, "imgs_grad", call.shape, call.dtype)
    return imgs_work, gamma_work, beta_work


cdef tuple gradients_of(NormCall call):
    imgs_grad = call.outputs[2][0] if len(call.outputs) > 2 else None
    return imgs_grad, call.outputs[0][0], call.outputs[1][0]


def bprop_batch_norm(
    imgs,               # (n_imgs, n_channels, ...)                         IN
    out_grad,           # (n_imgs, n_channels, ...)                         IN
    gamma,              # (n_channels,)                                     IN
    beta,               # (n_channels,)                                     IN
    mean,               # (n_channels,)                                     IN
    inv_std,            # (n_channels,)                                     IN
    imgs_grad=None,     # (n_imgs, n_channels, ...)                         OUT
    gamma_grad=None,    # (n_channels,)                                     OUT
    beta_grad=None,     # (n_channels,)                                     OUT
    *,
    training=True,
    weights=None,       # (n_imgs,)                                         IN
    activation=None,
    need_imgs_grad=True,
    n_threads=None,
):
    """Back-propagate through `batch_norm`, and the ReLU after it.

    Parameters
    ----------
    imgs, gamma, beta, training, weights, activation, n_threads
        As `batch_norm` was given them.
    out_grad : ndarray of the shape and dtype of imgs
        The gradient of each image's loss, multiplied by the image's weight.
    mean, inv_std : ndarray (n_channels,), float64
        As `batch_norm` returned them.
    imgs_grad, gamma_grad, beta_grad : ndarray, optional
        Filled and returned; None allocates them.
    need_imgs_grad : bool
        Without, imgs_grad is None.

    Returns
    -------
    imgs_grad, gamma_grad, beta_grad : ndarray
        Those of the parameters are means over the images.

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit.
    """
    cdef NormCall call = NormCall(imgs, gamma, beta, weights, activation, n_threads)
    cdef Norm *job = &call.job
    cdef bint is_training = training, need = need_imgs_grad
    cdef tuple per_channel = (job.n_channels,)
    cdef cnp.ndarray mean_ = contiguous(check_doubles(mean, "mean", per_channel))
    cdef cnp.ndarray inv_std_ = contiguous(check_doubles(inv_std, "inv_std", per_channel))
    imgs_work, gamma_work, beta_work = gradient_arrays(call, out_grad, imgs_grad, gamma_grad,
                                                       beta_grad, need)
    call.start(1, CHUNK, 0)
    job.out = data_of(imgs_work)
    prepare(call, 1, mean_, inv_std_)
    with nogil:
        run_pass(job, SUMS, call.is_float, call.n_threads)
        join_chunks(job)
    if call.is_float:
        batch_gradients[float](job, is_training, <float *>data_of(call.gamma),
                               doubles(mean_), doubles(inv_std_), <float *>data_of(gamma_work),
                               <float *>data_of(beta_work))
    else:
        batch_gradients[double](job, is_training, <double *>data_of(call.gamma),
                                doubles(mean_), doubles(inv_std_), <double *>data_of(gamma_work),
                                <double *>data_of(beta_work))
    if need:
        with nogil:
            run_pass(job, GRADIENT, call.is_float, call.n_threads)
    call.finish()
    return gradients_of(call)
