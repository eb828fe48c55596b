# Group normalisation by the same passes as batch normalisation, and the sum of a residual layer.

def group_norm(
    imgs,           # (n_imgs, n_channels, ...)                             IN
    gamma,          # (n_channels,)                                         IN
    beta,           # (n_channels,)                                         IN
    n_groups,
    out=None,       # (n_imgs, n_channels, ...)                             OUT
    mean=None,      # (n_imgs, n_groups)                                    OUT
    inv_std=None,   # (n_imgs, n_groups)                                    OUT
    *,
    eps=1e-5,
    activation=None,
    n_threads=None,
):
    """`batch_norm` by the statistics of each group of channels in each image.

    Wu and He 2018, "Group normalization", eqs. 1 to 3 and 7. Group g has the channels from
    g * n_channels // n_groups on.

    Parameters
    ----------
    imgs, gamma, beta, out, eps, activation, n_threads
        As of `batch_norm`.
    n_groups : int
        Divides n_channels.
    mean, inv_std : ndarray (n_imgs, n_groups), float64, optional
        Filled with what the images were normalised by, for the backward pass: inv_std is
        1 / sqrt(var + eps), or 0 for groups of a single value.

    Returns
    -------
    out, mean, inv_std : ndarray

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit.
    """
    cdef NormCall call = NormCall(imgs, gamma, beta, None, activation, n_threads)
    cdef Norm *job = &call.job
    cdef double eps_ = as_epsilon(eps)
    job.n_groups = n_groups
    if job.n_groups < 1 or job.n_channels % job.n_groups:
        raise ValueError(f"n_groups is {n_groups}, expected a divisor of {job.n_channels} channels")
    cdef tuple per_group = (job.n_imgs, job.n_groups)
    cdef cnp.ndarray out_ = call.output(out, "out", call.shape, call.dtype)
    cdef cnp.ndarray mean_ = call.output(mean, "mean", per_group, FLOAT64)
    cdef cnp.ndarray inv_std_ = call.output(inv_std, "inv_std", per_group, FLOAT64)
    call.start(job.n_imgs, 1, job.n_imgs * job.n_groups)
    job.out = data_of(out_)
    cdef Py_ssize_t i, size = job.n_channels // job.n_groups * job.n_pixels
    with nogil:
        run_pass(job, GROUP_MOMENTS, call.is_float, call.n_threads)
    for i in range(job.n_imgs * job.n_groups):
        doubles(mean_)[i] = job.moments[i].mean
        doubles(inv_std_)[i] = 1 / sqrt(job.moments[i].squares / size + eps_) if size > 1 else 0
    prepare(call, job.n_imgs, mean_, inv_std_)
    with nogil:
        run_pass(job, NORMALIZE, call.is_float, call.n_threads)
    call.finish()
    return call.outputs[0][0], call.outputs[1][0], call.outputs[2][0]


cdef void group_gradients(const Norm *job, const real *gamma, const double *mean,
                          const double *inv_std, real *gamma_grad,
                          real *beta_grad) noexcept nogil:
    """Those of the parameters, and the coefficients of that of the images."""
    cdef Py_ssize_t per_group = job.n_channels // job.n_groups, n, c, g, i
    cdef double count = per_group * job.n_pixels, n_imgs = max(job.n_imgs, <Py_ssize_t>1)
    cdef double total, products, distance, gamma_sum, beta_sum
    for n in range(job.n_imgs):
        for g in range(n * job.n_groups, (n + 1) * job.n_groups):
            i = g * per_group       # its first channel, among those of all images
            distance = mean[g] - (<const real *>job.center)[i]
            total = products = 0
            for i in range(g * per_group, (g + 1) * per_group):
                # the second sum: of grad with the normalised images
                job.sums[2 * i + 1] = inv_std[g] * (
                    job.sums[2 * i + 1] - distance * job.sums[2 * i])
                total += gamma[i % job.n_channels] * job.sums[2 * i]
                products += gamma[i % job.n_channels] * job.sums[2 * i + 1]
            for i in range(g * per_group, (g + 1) * per_group):
                (<real *>job.slope)[i] = <real>(-inv_std[g] / count * inv_std[g] * products)
                (<real *>job.offset)[i] = <real>(
                    inv_std[g] / count * (distance * inv_std[g] * products - total))
    for c in range(job.n_channels):
        gamma_sum = beta_sum = 0
        for n in range(job.n_imgs):
            beta_sum += job.sums[2 * (n * job.n_channels + c)]
            gamma_sum += job.sums[2 * (n * job.n_channels + c) + 1]
        gamma_grad[c], beta_grad[c] = <real>(gamma_sum / n_imgs), <real>(beta_sum / n_imgs)


def bprop_group_norm(
    imgs,               # (n_imgs, n_channels, ...)                         IN
    out_grad,           # (n_imgs, n_channels, ...)                         IN
    gamma,              # (n_channels,)                                     IN
    beta,               # (n_channels,)                                     IN
    mean,               # (n_imgs, n_groups)                                IN
    inv_std,            # (n_imgs, n_groups)                                IN
    imgs_grad=None,     # (n_imgs, n_channels, ...)                         OUT
    gamma_grad=None,    # (n_channels,)                                     OUT
    beta_grad=None,     # (n_channels,)                                     OUT
    *,
    activation=None,
    need_imgs_grad=True,
    n_threads=None,
):
    """Back-propagate through `group_norm`, and the ReLU after it.

    Parameters
    ----------
    imgs, gamma, beta, activation, n_threads
        As `group_norm` was given them.
    out_grad : ndarray of the shape and dtype of imgs
        The gradient of each image's loss.
    mean, inv_std : ndarray (n_imgs, n_groups), float64
        As `group_norm` returned them.
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
    cdef NormCall call = NormCall(imgs, gamma, beta, None, activation, n_threads)
    cdef Norm *job = &call.job
    cdef bint need = need_imgs_grad
    check_ndarray(mean, "mean", "a NumPy array")
    job.n_groups = mean.shape[1] if mean.ndim == 2 else 0
    if job.n_groups < 1 or job.n_channels % job.n_groups:
        raise ValueError(
            f"mean has shape {mean.shape}, expected n_imgs, n_groups for {job.n_channels} channels")
    cdef tuple per_group = (job.n_imgs, job.n_groups)
    cdef cnp.ndarray mean_ = contiguous(check_doubles(mean, "mean", per_group))
    cdef cnp.ndarray inv_std_ = contiguous(check_doubles(inv_std, "inv_std", per_group))
    imgs_work, gamma_work, beta_work = gradient_arrays(call, out_grad, imgs_grad, gamma_grad,
                                                       beta_grad, need)
    call.start(job.n_imgs, 1, 0)
    job.out = data_of(imgs_work)
    prepare(call, job.n_imgs, mean_, inv_std_)
    with nogil:
        run_pass(job, SUMS, call.is_float, call.n_threads)
    if call.is_float:
        group_gradients[float](job, <float *>data_of(call.gamma), doubles(mean_),
                               doubles(inv_std_), <float *>data_of(gamma_work),
                               <float *>data_of(beta_work))
    else:
        group_gradients[double](job, <double *>data_of(call.gamma), doubles(mean_),
                                doubles(inv_std_), <double *>data_of(gamma_work),
                                <double *>data_of(beta_work))
    if need:
        with nogil:
            run_pass(job, GRADIENT, call.is_float, call.n_threads)
    call.finish()
    return gradients_of(call)


# --- a sum of two arrays ----------------------------------------------------------------

cdef struct Sum:
    const void *a
    const void *b
    void *out
    Py_ssize_t size
    bint with_relu


cdef void sum_part(const Sum *job, Py_ssize_t part, real *out) noexcept nogil:
    cdef const real *a = <const real *>job.a
    cdef const real *b = <const real *>job.b
    cdef Py_ssize_t i, end = min((part + 1) * PART_SIZE, job.size)
    cdef real y
    if job.with_relu:
        for i in range(part * PART_SIZE, end):
            y = a[i] + b[i]
            out[i] = <real>0 if y < 0 else y    # NaN stays
    else:
        for i in range(part * PART_SIZE, end):
            out[i] = a[i] + b[i]


cdef void float_sum_part(void *job, Py_ssize_t part, int thread) noexcept nogil:
    sum_part(<Sum *>job, part, <float *>(<Sum *>job).out)


cdef void double_sum_part(void *job, Py_ssize_t part, int thread) noexcept nogil:
    sum_part(<Sum *>job, part, <double *>(<Sum *>job).out)


def add_arrays(
    a,              # any shape                                             IN
    b,              # the same                                              IN
    out=None,       # the same                                              OUT
    *,
    activation=None,
    n_threads=None,
):
    """a + b, and the ReLU after it.

    Parameters
    ----------
    a, b : ndarray of one shape and dtype, float32 or float64
    out : ndarray of that shape and dtype, optional
        Filled and returned; None allocates it. It may share memory with no other array.
    activation : {None, 'relu'}
        Applied to the result.
    n_threads : int, optional
        Default: `nnet.get_num_threads()`.

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit.
    """
    cdef cnp.ndarray a_ = check_reals(a, "a", None, "")
    cdef cnp.ndarray b_ = check_reals(b, "b", a_, "a")
    check_shape(b_, "b", shape_of(a_))
    if activation is not None and activation != "relu":
        raise ValueError(f"activation is {activation!r}, expected None or 'relu'")
    cdef cnp.ndarray out_ = check_output(out, "out", shape_of(a_), a_.dtype)
    refuse_overlap(out_, "out", a_, "a")
    refuse_overlap(out_, "out", b_, "b")
    cdef Py_ssize_t size = cnp.PyArray_SIZE(a_)
    cdef int threads = threads_for(n_threads, size, SMALL_SIZE)
    a_, b_ = contiguous(a_), contiguous(b_)
    cdef cnp.ndarray work = work_array(out_)
    cdef Sum job = [data_of(a_), data_of(b_), data_of(work), size, activation is not None]
    cdef bint is_float = cnp.PyArray_TYPE(a_) == cnp.NPY_FLOAT
    with nogil:
        parallel_for(float_sum_part if is_float else double_sum_part, &job,
                     (size + PART_SIZE - 1) // PART_SIZE, threads)
    deliver(out_, work)
    return out_
