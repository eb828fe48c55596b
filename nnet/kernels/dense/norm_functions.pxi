# The public functions of batch and group normalisation. Needs dense/norm.pxi.

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
    cdef NormCall call = NormCall(imgs, gamma, beta, weights, activation, n_threads, True)
    cdef Norm *job = &call.job
    cdef bint is_training = training
    job.eps, job.momentum = as_epsilon(eps), momentum
    if not 0 <= job.momentum <= 1:
        raise ValueError(f"momentum is {momentum!r}, expected a number from 0 to 1")
    cdef tuple per_channel = (job.n_channels,)
    job.out = call.output(out, "out", call.shape, call.dtype)
    job.mean = <double *>call.output(mean, "mean", per_channel, FLOAT64)
    job.inv_std = <double *>call.output(inv_std, "inv_std", per_channel, FLOAT64)
    cdef list running = []
    for array, name in ((running_mean, "running_mean"), (running_var, "running_var")):
        if is_training and array is not None:
            call.output(array, name, per_channel, call.dtype)
        running.append(call.of_channels(array, name))
    job.running_mean, job.running_var = data_of(running[0]), data_of(running[1])
    call.start()
    if is_training:
        with nogil:
            run_pass(job, MOMENTS, call.n_threads)
            join_moments(job)
            find_statistics(job)
        end_call()      # running averages move after whole sums, or not at all
        move_averages(job)
        call.outputs[3:] = [(running_mean, running[0]), (running_var, running[1])]
    else:
        use_averages(job)
    return call.forward()[:3]


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
    cdef NormCall call = NormCall(imgs, gamma, beta, weights, activation, n_threads, True)
    cdef bint is_training = training, need = need_imgs_grad
    call.take_statistics(mean, inv_std, (call.job.n_channels,))
    call.gradients(out_grad, imgs_grad, gamma_grad, beta_grad, need)
    call.start()
    if not is_training:
        call.job.count = 0
    return call.backward(need)


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
    cdef NormCall call = NormCall(imgs, gamma, beta, None, activation, n_threads, False)
    cdef Norm *job = &call.job
    job.eps = as_epsilon(eps)
    if not call.group(n_groups):
        raise ValueError(f"n_groups is {n_groups}, expected a divisor of {job.n_channels} channels")
    cdef tuple per_group = (job.n_imgs, job.n_groups)
    job.out = call.output(out, "out", call.shape, call.dtype)
    job.mean = <double *>call.output(mean, "mean", per_group, FLOAT64)
    job.inv_std = <double *>call.output(inv_std, "inv_std", per_group, FLOAT64)
    call.start()
    with nogil:
        run_pass(job, MOMENTS, call.n_threads)
        find_statistics(job)
    return call.forward()


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
    imgs, gamma, beta, activation, mean, inv_std
        As `group_norm` was given them, and as it returned them.
    out_grad, imgs_grad, gamma_grad, beta_grad, need_imgs_grad, n_threads
        As of `bprop_batch_norm`.

    Returns
    -------
    imgs_grad, gamma_grad, beta_grad : ndarray
        Those of the parameters are means over the images.

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit.
    """
    cdef NormCall call = NormCall(imgs, gamma, beta, None, activation, n_threads, False)
    cdef bint need = need_imgs_grad
    check_ndarray(mean, "mean", "a NumPy array")
    if mean.ndim != 2 or not call.group(mean.shape[1]):
        raise ValueError(f"mean has shape {mean.shape}, expected n_imgs, n_groups for "
                         f"{call.job.n_channels} channels")
    call.take_statistics(mean, inv_std, (call.job.n_imgs, call.job.n_groups))
    call.gradients(out_grad, imgs_grad, gamma_grad, beta_grad, need)
    call.start()
    return call.backward(need)
