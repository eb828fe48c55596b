# Softmax, and the cross-entropies of images, of pixels, and of entries that are each by themselves.
# Needs common/arrays, dense/losses.h.

cdef extern from "dense/exponential.h":
    pass

cdef extern from "dense/losses.h":
    ctypedef struct Loss:
        bint is_float
        const void *scores
        const void *target
        void *probs
        void *grad
        double *losses
        double *errors
        Py_ssize_t n_classes, n_pixels
        double smoothing
    void entropy_unit(void *job, Py_ssize_t unit, int thread) noexcept nogil
    void binary_unit(void *job, Py_ssize_t unit, int thread) noexcept nogil


cdef object FLOAT64 = np.dtype(np.float64)

cdef dict SCORES = {
    2: "n_imgs, n_classes", 3: "n_imgs, n_classes, length", 4: "n_imgs, n_classes, img_h, img_w",
}


cdef cnp.ndarray check_scores(object scores):
    """One score for each class, of each image or of each of its pixels."""
    check_ndarray(scores, "scores", "a NumPy array")
    cdef int n_axes = cnp.PyArray_NDIM(scores)
    cdef str axes = "n_imgs, n_classes" if n_axes == 2 else SCORES.get(n_axes, SCORES[2])
    return check_array(scores, "scores", axes, None, "")


cdef double as_smoothing(object smoothing) except -1:
    cdef double value = smoothing
    if not 0 <= value <= 1:
        raise ValueError(f"smoothing is {smoothing!r}, expected a number from 0 to 1")
    return value


cdef void run_loss(cnp.ndarray scores, cnp.ndarray target, list outputs, Py_ssize_t n_classes,
                   double smoothing, bint is_binary, object n_threads) except *:
    """On arrays that are checked: outputs are probs, losses, grad, errors, or only the first."""
    cdef Py_ssize_t n_imgs = cnp.PyArray_DIM(scores, 0), size = cnp.PyArray_SIZE(scores), i
    cdef int threads = threads_for(n_threads, size, SMALL_LOSS)
    cdef list work = [work_array(out) for out in outputs]
    cdef Loss job
    scores, target = contiguous(scores), None if target is None else contiguous(target)
    job.is_float, job.smoothing = cnp.PyArray_TYPE(scores) == cnp.NPY_FLOAT, smoothing
    job.scores, job.target, job.probs = data_of(scores), data_of(target), data_of(work[0])
    job.n_classes, job.n_pixels = n_classes, size // max(n_imgs * n_classes, 1)
    job.grad = NULL
    if target is not None:
        job.losses, job.errors = <double *>data_of(work[1]), <double *>data_of(work[3])
        job.grad = data_of(work[2])
    with nogil:
        parallel_for(binary_unit if is_binary else entropy_unit, &job, n_imgs, threads)
    for i in range(len(work)):
        deliver(outputs[i], work[i])


cdef void check_outputs(list outputs, cnp.ndarray scores, object target) except *:
    """The arrays that a loss fills: probs, losses, scores_grad, errors; None is refused."""
    cdef list others = [(scores, "scores"), (target, "target")]
    cdef tuple shape = shape_of(scores), per_image = shape[:1]
    cdef bint is_mean
    cdef int i
    for i in range(4):
        out, name, is_mean = outputs[i], OUTPUTS[i], i % 2
        if out is None:
            raise TypeError(f"{name} is None, expected a NumPy array")
        check_output(out, name, per_image if is_mean else shape, FLOAT64 if is_mean else scores.dtype)
        refuse_overlaps(out, name, others)
        others.append((out, name))


cdef list OUTPUTS = ["probs", "losses", "scores_grad", "errors"]


cdef double sum_of(cnp.ndarray values) except? -1:
    """Of float64 values in any layout."""
    cdef cnp.ndarray side_by_side = contiguous(values)
    cdef const double *value = <const double *>cnp.PyArray_DATA(side_by_side)
    cdef double total = 0
    cdef Py_ssize_t i
    for i in range(cnp.PyArray_SIZE(side_by_side)):
        total += value[i]
    return total


def softmax(
    scores,         # (n_imgs, n_classes, ...)                              IN
    probs=None,     # (n_imgs, n_classes, ...)                              OUT
    *,
    n_threads=None,
):
    """Probabilities: exp(scores), divided by their sum over the classes.

    Parameters
    ----------
    scores : ndarray (n_imgs, n_classes), float32 or float64
        Or, of pixels, (n_imgs, n_classes, length) or (n_imgs, n_classes, img_h, img_w).
    probs : ndarray like scores, optional
        Filled and returned; None allocates it. It may not share memory with scores.
    n_threads : int, optional
        For pixels; default: `nnet.get_num_threads()`. It changes no bit of the result.

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and types that do not fit.
    """
    cdef cnp.ndarray scores_ = check_scores(scores)
    cdef cnp.ndarray out = check_output(probs, "probs", shape_of(scores_), scores_.dtype)
    refuse_overlap(out, "probs", scores_, "scores")
    run_loss(scores_, None, [out], cnp.PyArray_DIM(scores_, 1), 0, False, n_threads)
    return out


cdef cnp.ndarray check_classes(object target, tuple shape, Py_ssize_t n_classes):
    """The classes of images or of pixels, each of them one that there is."""
    check_ndarray(target, "target", "a NumPy array")
    if target.dtype != np.intp:
        raise TypeError(f"target has dtype {target.dtype}, expected {np.dtype(np.intp)}")
    check_shape(target, "target", shape)
    cdef cnp.ndarray target_ = contiguous(target)
    cdef const cnp.npy_intp *classes = <const cnp.npy_intp *>cnp.PyArray_DATA(target_)
    cdef Py_ssize_t i, size = cnp.PyArray_SIZE(target_)
    cdef int wrong = 0      # no early exit: the loop takes a vector at a time
    for i in range(size):
        wrong |= (classes[i] < 0) | (classes[i] >= n_classes)
    if wrong:
        for i in range(size):
            if not 0 <= classes[i] < n_classes:
                place = ", ".join(map(str, np.unravel_index(i, shape)))
                raise ValueError(
                    f"target[{place}] is {classes[i]}, expected one of {n_classes} classes"
                )
    return target_


def cross_entropy(
    scores,         # (n_imgs, n_classes, ...)                              IN
    target,         # (n_imgs, ...)                                         IN
    probs,          # (n_imgs, n_classes, ...)                              OUT
    losses,         # (n_imgs,)                                             OUT
    scores_grad,    # (n_imgs, n_classes, ...)                              OUT
    errors=None,    # (n_imgs,)                                             OUT
    *,
    smoothing=0.0,
    n_threads=None,
):
    """The cross-entropy of softmax(scores), and what else a training step needs of it.

    Parameters
    ----------
    scores : ndarray (n_imgs, n_classes), float32 or float64
        Or, of pixels, (n_imgs, n_classes, length) or (n_imgs, n_classes, img_h, img_w).
    target : ndarray (n_imgs,), intp
        The right class of each image; for pixels (n_imgs, length) or (n_imgs, img_h, img_w).
    probs : ndarray like scores
        Filled with softmax(scores).
    losses : ndarray (n_imgs,), float64
        Filled with the loss of each image, the mean over its pixels.
    scores_grad : ndarray like scores
        Filled with the gradient of each image's loss.
    errors : ndarray (n_imgs,), float64
        For pixels, and filled with the fraction of each image where another class than the
        right one has the largest probability, as numpy.argmax sees it.
    smoothing : float, from 0 to 1
        The probabilities to learn are smoothing / n_classes for all classes, and
        1 - smoothing more for the right one: Szegedy et al. 2016, section 7.
    n_threads : int, optional
        For pixels; default: `nnet.get_num_threads()`. It changes no bit of the result.

    Returns
    -------
    loss_sum : float
        Over the images.
    n_right : int
        For how many images the right class has the largest probability; for pixels None.

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit.
    """
    cdef cnp.ndarray scores_ = check_scores(scores)
    cdef Py_ssize_t n_imgs = cnp.PyArray_DIM(scores_, 0), n_classes = cnp.PyArray_DIM(scores_, 1)
    cdef tuple shape = shape_of(scores_)
    cdef bint of_pixels = cnp.PyArray_NDIM(scores_) > 2
    cdef cnp.ndarray target_ = check_classes(target, (n_imgs, *shape[2:]), n_classes)
    cdef double smoothing_ = as_smoothing(smoothing)
    if not of_pixels:
        if errors is not None:
            raise ValueError(f"errors is given, expected None for scores of shape {shape}")
        errors = np.empty(n_imgs)
    cdef list outputs = [probs, losses, scores_grad, errors]
    check_outputs(outputs, scores_, target)
    run_loss(scores_, target_, outputs, n_classes, smoothing_, False, n_threads)
    return sum_of(losses), None if of_pixels else n_imgs - <Py_ssize_t>sum_of(errors)


def binary_cross_entropy(
    scores,         # (n_imgs, ...)                                         IN
    target,         # (n_imgs, ...)                                         IN
    probs,          # (n_imgs, ...)                                         OUT
    losses,         # (n_imgs,)                                             OUT
    scores_grad,    # (n_imgs, ...)                                         OUT
    errors,         # (n_imgs,)                                             OUT
    *,
    smoothing=0.0,
    n_threads=None,
):
    """The binary cross-entropy of sigmoid(scores), and what else a training step needs of it.

    Parameters
    ----------
    scores : ndarray (n_imgs, ...), float32 or float64
    target : ndarray like scores
        The probability to learn of each entry, from 0 to 1.
    probs : ndarray like scores
        Filled with sigmoid(scores).
    losses : ndarray (n_imgs,), float64
        Filled with the loss of each image, the mean over its entries.
    scores_grad : ndarray like scores
        Filled with the gradient of each image's loss.
    errors : ndarray (n_imgs,), float64
        Filled with the fraction of each image's entries of which not both, or neither, of
        probability and target are greater than 1/2.
    smoothing : float, from 0 to 1
        Each target moves so much of its way to 1/2.
    n_threads : int, optional
        Default: `nnet.get_num_threads()`. It changes no bit of the result.

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit.
    """
    cdef cnp.ndarray scores_ = check_reals(scores, "scores", None, "")
    cdef tuple shape = shape_of(scores_)
    if not shape or 0 in shape[1:]:
        raise ValueError(f"scores has shape {shape}, expected (n_imgs, ...) with no empty axis")
    cdef cnp.ndarray target_ = check_reals(target, "target", scores_, "scores")
    check_shape(target_, "target", shape)
    cdef double smoothing_ = as_smoothing(smoothing)
    cdef list outputs = [probs, losses, scores_grad, errors]
    check_outputs(outputs, scores_, target)
    run_loss(scores_, target_, outputs, 1, smoothing_, True, n_threads)
