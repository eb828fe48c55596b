# Binary cross-entropy: an entry of the target is the probability of one thing of
# many, each by itself. Included by _dense.pyx.

from libc.math cimport log1p

cdef enum:
    ENTRIES = 256           # that are computed together
    LOSS_SUMS = 16          # of entries: as many as a vector has lanes


cdef struct BinaryJob:
    const void *scores      # (n_imgs, n_entries)
    const void *target      # the same
    void *probs             # the same
    void *grad              # the same
    double *losses          # (n_imgs,)
    double *errors          # (n_imgs,)
    Py_ssize_t n_entries
    double smoothing


cdef void sigmoids(const real *scores, real *probs, real *powers, Py_ssize_t n) noexcept nogil:
    """1 / (1 + e^-x), and e^-|x|, of n scores."""
    cdef Py_ssize_t i
    cdef real score
    for i in range(n):
        score = scores[i]
        powers[i] = exponential(score if score < 0 else -score)
    for i in range(n):
        probs[i] = logistic(scores[i], powers[i])


cdef double losses_of_entries(const real *scores, const real *target, const real *powers,
                              Py_ssize_t n, double smoothing) noexcept nogil:
    """The sum over n entries of max(x, 0) - x y + log(1 + e^-|x|)."""
    cdef double products[LOSS_SUMS]  # of 1 + e^-|x|, less 1: so the smallest are not lost
    cdef double linear[LOSS_SUMS]
    cdef double x, y, power, loss = 0
    cdef Py_ssize_t j, end, i = 0
    for j in range(LOSS_SUMS):
        products[j], linear[j] = 0, 0
    while i < n:
        end = min(LOSS_SUMS, n - i)
        for j in range(end):
            x, y, power = scores[i + j], target[i + j], powers[i + j]
            y += smoothing * (0.5 - y)
            linear[j] += (x if x > 0 else 0) - x * y
            products[j] += power + products[j] * power
        i += LOSS_SUMS
    for j in range(min(LOSS_SUMS, n)):
        loss += linear[j] + log1p(products[j])
    return loss


cdef void entries_of_image(const BinaryJob *job, Py_ssize_t image, real *probs) noexcept nogil:
    cdef real powers[ENTRIES]
    cdef Py_ssize_t i, n, first = 0, n_wrong = 0, start = image * job.n_entries
    cdef const real *scores = <const real *>job.scores + start
    cdef const real *target = <const real *>job.target + start
    cdef real *grad = <real *>job.grad + start
    cdef real part = <real>(1.0 / job.n_entries), smoothing = <real>job.smoothing
    cdef real half = <real>0.5
    cdef double loss = 0
    probs += start
    while first < job.n_entries:
        n = min(ENTRIES, job.n_entries - first)
        sigmoids(scores + first, probs + first, powers, n)
        loss += losses_of_entries(scores + first, target + first, powers, n, job.smoothing)
        for i in range(first, first + n):
            n_wrong += (probs[i] > half) != (target[i] > half)
        for i in range(first, first + n):
            grad[i] = (probs[i] - (target[i] + smoothing * (half - target[i]))) * part
        first += ENTRIES
    job.losses[image] = loss / job.n_entries
    job.errors[image] = <double>n_wrong / job.n_entries


cdef void float_entries(void *job, Py_ssize_t image, int thread) noexcept nogil:
    entries_of_image(<BinaryJob *>job, image, <float *>(<BinaryJob *>job).probs)


cdef void double_entries(void *job, Py_ssize_t image, int thread) noexcept nogil:
    entries_of_image(<BinaryJob *>job, image, <double *>(<BinaryJob *>job).probs)


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
    cdef BinaryJob job
    job.smoothing = as_smoothing(smoothing)
    cdef cnp.ndarray probs_, losses_, grad_, errors_
    probs_, losses_, grad_, errors_ = check_outputs(
        [
            (probs, "probs", shape, scores_.dtype), (losses, "losses", shape[:1], FLOAT64),
            (scores_grad, "scores_grad", shape, scores_.dtype),
            (errors, "errors", shape[:1], FLOAT64),
        ],
        [(scores_, "scores"), (target_, "target")],
    )
    cdef Py_ssize_t n_imgs = cnp.PyArray_DIM(scores_, 0), size = cnp.PyArray_SIZE(scores_)
    cdef int threads = threads_for(n_threads, size, SMALL_LOSS)
    cdef bint is_float = cnp.PyArray_TYPE(scores_) == cnp.NPY_FLOAT
    scores_, target_ = contiguous(scores_), contiguous(target_)
    job.target, job.grad = data_of(target_), data_of(grad_)
    job.losses, job.errors = <double *>data_of(losses_), <double *>data_of(errors_)
    job.scores, job.probs, job.n_entries = data_of(scores_), data_of(probs_), size // max(n_imgs, 1)
    with nogil:
        parallel_for(float_entries if is_float else double_entries, &job, n_imgs, threads)
    for out, work in ((probs, probs_), (losses, losses_), (scores_grad, grad_), (errors, errors_)):
        deliver(out, work)
