# Softmax and cross-entropy, of images and of each of their pixels. Included by _dense.pyx.

from libc.math cimport exp, expf, log
from libc.string cimport memcpy


cdef object FLOAT64 = np.dtype(np.float64)

cdef enum:
    SOFTMAX_RUN = 64        # classes whose probabilities add up one by one
    PIXELS = 64             # that are computed together: their sums stay in the L1 cache
    FACTORS = 16            # whose product has one logarithm: of up to 2^64 classes, none overflows

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


cdef list check_outputs(list outputs, list others):
    """The arrays that a loss fills, from (array, name, shape, dtype) for each; None is refused."""
    cdef list arrays = []
    for out, name, shape, dtype in outputs:
        if out is None:
            raise TypeError(f"{name} is None, expected a NumPy array")
        out = check_output(out, name, shape, dtype)
        for other, other_name in others:
            refuse_overlap(out, name, other, other_name)
        others.append((out, name))
        arrays.append(work_array(out))
    return arrays


cdef double sum_of(const double *values, Py_ssize_t n) noexcept nogil:
    cdef double total = 0
    cdef Py_ssize_t i
    for i in range(n):
        total += values[i]
    return total


# --- one label for each image -------------------------------------------------------

cdef real softmax_row(const real *scores, real *probs, Py_ssize_t n_classes,
                      real *highest) noexcept nogil:
    """The probabilities of one image, the largest score, and the sum they were divided by."""
    cdef Py_ssize_t k, end
    cdef double total = 0
    cdef real run, score
    highest[0] = scores[0]
    for k in range(1, n_classes):
        highest[0] = max(highest[0], scores[k])
    k = 0
    while k < n_classes:    # runs of one type, which add up in double
        end, run = min(k + SOFTMAX_RUN, n_classes), 0
        while k < end:
            # Without the maximum, no exponent is positive.
            score = scores[k] - highest[0]
            probs[k] = expf(score) if real is float else exp(score)
            run += probs[k]
            k += 1
        total += run
    for k in range(n_classes):
        probs[k] /= <real>total
    return <real>total


cdef void softmax_rows(const real *scores, real *probs, Py_ssize_t n_imgs,
                       Py_ssize_t n_classes) noexcept nogil:
    cdef real highest
    cdef Py_ssize_t n
    for n in range(n_imgs):
        softmax_row(scores + n * n_classes, probs + n * n_classes, n_classes, &highest)


cdef Py_ssize_t entropies(
    const real *scores, const cnp.npy_intp *target, real *probs, double *losses, real *grad,
    Py_ssize_t n_imgs, Py_ssize_t n_classes, double smoothing,
) noexcept nogil:
    """For each image the loss, and its gradient: the probabilities minus what they should be.

    Returns for how many the target has the largest probability, the first of equals.
    """
    cdef real highest, total
    cdef Py_ssize_t n, k, best, n_right = 0
    for n in range(n_imgs):
        total = softmax_row(scores, probs, n_classes, &highest)
        losses[n] = log(total) - (scores[target[n]] - highest)
        best = 0
        for k in range(n_classes):
            if probs[k] > probs[best]:
                best = k
        n_right += best == target[n]
        memcpy(grad, probs, n_classes * sizeof(real))
        grad[target[n]] -= 1
        if smoothing > 0:
            losses[n] += smooth(scores, grad, n_classes, target[n], smoothing)
        scores, probs, grad = scores + n_classes, probs + n_classes, grad + n_classes
    return n_right


cdef double smooth(const real *scores, real *grad, Py_ssize_t n_classes, Py_ssize_t target,
                   double smoothing) noexcept nogil:
    """Give all classes a part of the target's one, also in the gradient: what the loss grows by."""
    cdef double mean = 0
    cdef Py_ssize_t k
    for k in range(n_classes):
        mean += <double>scores[target] - scores[k]
        grad[k] -= <real>(smoothing / n_classes)
    grad[target] += <real>smoothing
    return smoothing * (mean / n_classes)


# --- one label for each pixel -------------------------------------------------------

cdef struct PixelJob:
    const void *scores          # (n_imgs, n_classes, n_pixels)
    const cnp.npy_intp *target  # (n_imgs, n_pixels); NULL: only the probabilities are wanted
    void *probs                 # (n_imgs, n_classes, n_pixels)
    void *grad                  # the same
    double *losses              # (n_imgs,)
    double *errors              # (n_imgs,)
    Py_ssize_t n_classes, n_pixels
    double smoothing


cdef void softmax_pixels(const real *scores, real *probs, real *highest, double *totals,
                         Py_ssize_t n, Py_ssize_t n_classes, Py_ssize_t pitch) noexcept nogil:
    """The probabilities of n pixels, their largest scores, and the sums that were divided by."""
    cdef const real *plane
    cdef real *out
    cdef Py_ssize_t i, k
    for i in range(n):
        highest[i], totals[i] = scores[i], 0
    for k in range(1, n_classes):
        plane = scores + k * pitch
        for i in range(n):
            highest[i] = plane[i] if plane[i] > highest[i] else highest[i]
    for k in range(n_classes):
        plane, out = scores + k * pitch, probs + k * pitch
        for i in range(n):
            out[i] = exponential(plane[i] - highest[i])
        for i in range(n):
            totals[i] += out[i]
    for k in range(n_classes):
        out = probs + k * pitch
        for i in range(n):
            out[i] /= <real>totals[i]


cdef double losses_of_pixels(
    const real *scores, const cnp.npy_intp *target, const real *highest, const double *totals,
    Py_ssize_t n, Py_ssize_t n_classes, Py_ssize_t pitch, double smoothing,
) noexcept nogil:
    """The sum of the losses of n pixels."""
    cdef double loss = 0, product = 1, by_all = 0
    cdef Py_ssize_t i, k
    for i in range(n):
        product *= totals[i]
        if i % FACTORS == FACTORS - 1 or i == n - 1:
            loss += log(product)
            product = 1
        loss += (1 - smoothing) * (<double>highest[i] - scores[target[i] * pitch + i])
    if smoothing > 0:
        for k in range(n_classes):
            for i in range(n):
                by_all += <double>highest[i] - scores[k * pitch + i]
        loss += smoothing * (by_all / n_classes)
    return loss


cdef Py_ssize_t count_wrong(const real *probs, const cnp.npy_intp *target, Py_ssize_t n,
                            Py_ssize_t n_classes, Py_ssize_t pitch) noexcept nogil:
    """For how many of n pixels another class than the target has the first largest probability."""
    cdef real right[PIXELS]
    cdef real wrong[PIXELS]
    cdef real before[PIXELS]    # whether the class comes before the target's
    cdef const real *plane
    cdef Py_ssize_t i, k, n_wrong = 0
    for i in range(n):
        right[i], wrong[i] = probs[target[i] * pitch + i], 0
    for k in range(n_classes):
        plane = probs + k * pitch
        for i in range(n):
            before[i] = 1 if k < target[i] else 0
        for i in range(n):
            wrong[i] = 1 if plane[i] > right[i] else wrong[i]
            wrong[i] = before[i] if plane[i] == right[i] and before[i] > wrong[i] else wrong[i]
    for i in range(n):
        n_wrong += wrong[i] > 0
    return n_wrong


cdef void gradient_of_pixels(const real *probs, const cnp.npy_intp *target, real *grad,
                             Py_ssize_t n, const PixelJob *job) noexcept nogil:
    """By the scores of n pixels: the probabilities minus what they should be, as part of a mean."""
    cdef real part = <real>(1.0 / job.n_pixels), each = <real>(job.smoothing / job.n_classes)
    cdef real right = <real>(1 - job.smoothing)
    cdef Py_ssize_t i, k, place, pitch = job.n_pixels
    for k in range(job.n_classes):
        for i in range(n):
            grad[k * pitch + i] = (probs[k * pitch + i] - each) * part
    for i in range(n):
        place = target[i] * pitch + i
        grad[place] = (probs[place] - each - right) * part


cdef void pixels_of_image(const PixelJob *job, Py_ssize_t image, real *probs) noexcept nogil:
    cdef real highest[PIXELS]
    cdef double totals[PIXELS]
    cdef Py_ssize_t n, first = 0, pitch = job.n_pixels, start = image * job.n_classes * pitch
    cdef const real *scores = <const real *>job.scores + start
    cdef real *grad = <real *>job.grad + start
    cdef const cnp.npy_intp *target = job.target + image * pitch
    cdef double loss = 0
    cdef Py_ssize_t n_wrong = 0
    probs += start
    while first < pitch:
        n = min(PIXELS, pitch - first)
        softmax_pixels(scores + first, probs + first, highest, totals, n, job.n_classes, pitch)
        if job.target != NULL:
            loss += losses_of_pixels(scores + first, target + first, highest, totals, n,
                                     job.n_classes, pitch, job.smoothing)
            n_wrong += count_wrong(probs + first, target + first, n, job.n_classes, pitch)
            gradient_of_pixels(probs + first, target + first, grad + first, n, job)
        first += PIXELS
    if job.target != NULL:
        job.losses[image], job.errors[image] = loss / pitch, <double>n_wrong / pitch


cdef void float_pixels(void *job, Py_ssize_t image, int thread) noexcept nogil:
    pixels_of_image(<PixelJob *>job, image, <float *>(<PixelJob *>job).probs)


cdef void double_pixels(void *job, Py_ssize_t image, int thread) noexcept nogil:
    pixels_of_image(<PixelJob *>job, image, <double *>(<PixelJob *>job).probs)


cdef void run_pixels(PixelJob *job, cnp.ndarray scores, cnp.ndarray probs, object n_threads) except *:
    """On arrays that are checked: n_imgs x n_classes x pixels."""
    cdef Py_ssize_t n_imgs = cnp.PyArray_DIM(scores, 0), size = cnp.PyArray_SIZE(scores)
    cdef int threads = threads_for(n_threads, size, SMALL_LOSS)
    cdef bint is_float = cnp.PyArray_TYPE(scores) == cnp.NPY_FLOAT
    job.scores, job.probs = data_of(scores), data_of(probs)
    job.n_classes = cnp.PyArray_DIM(scores, 1)
    job.n_pixels = size // max(n_imgs * job.n_classes, 1)
    with nogil:
        parallel_for(float_pixels if is_float else double_pixels, job, n_imgs, threads)


# --- softmax and cross-entropy ------------------------------------------------------

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
    cdef Py_ssize_t n_imgs = cnp.PyArray_DIM(scores_, 0), n_classes = cnp.PyArray_DIM(scores_, 1)
    cdef PixelJob job
    scores_ = contiguous(scores_)
    cdef cnp.ndarray work = work_array(out)
    if cnp.PyArray_NDIM(scores_) > 2:
        job.target, job.grad = NULL, NULL
        run_pixels(&job, scores_, work, n_threads)
    elif cnp.PyArray_TYPE(scores_) == cnp.NPY_FLOAT:
        softmax_rows[float](<const float *>cnp.PyArray_DATA(scores_),
                            <float *>cnp.PyArray_DATA(work), n_imgs, n_classes)
    else:
        softmax_rows[double](<const double *>cnp.PyArray_DATA(scores_),
                             <double *>cnp.PyArray_DATA(work), n_imgs, n_classes)
    deliver(out, work)
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
    cdef tuple target_shape = (n_imgs, *shape[2:]) if of_pixels else (n_imgs,)
    cdef cnp.ndarray target_ = check_classes(target, target_shape, n_classes)
    cdef const cnp.npy_intp *classes = <const cnp.npy_intp *>cnp.PyArray_DATA(target_)
    cdef list outputs = [
        (probs, "probs", shape, scores_.dtype), (losses, "losses", (n_imgs,), FLOAT64),
        (scores_grad, "scores_grad", shape, scores_.dtype),
    ]
    if of_pixels:
        outputs.append((errors, "errors", (n_imgs,), FLOAT64))
    elif errors is not None:
        raise ValueError(f"errors is given, expected None for scores of shape {shape}")
    cdef double smoothing_ = as_smoothing(smoothing)
    cdef list arrays = check_outputs(outputs, [(scores_, "scores"), (target, "target")])
    cdef cnp.ndarray probs_ = arrays[0], losses_ = arrays[1], grad_ = arrays[2]
    scores_ = contiguous(scores_)
    cdef PixelJob job
    n_right = None
    if of_pixels:
        job.target, job.grad, job.smoothing = classes, data_of(grad_), smoothing_
        job.losses, job.errors = <double *>data_of(losses_), <double *>data_of(arrays[3])
        run_pixels(&job, scores_, probs_, n_threads)
        deliver(errors, arrays[3])
    elif cnp.PyArray_TYPE(scores_) == cnp.NPY_FLOAT:
        n_right = entropies[float](
            <const float *>cnp.PyArray_DATA(scores_), classes, <float *>cnp.PyArray_DATA(probs_),
            <double *>cnp.PyArray_DATA(losses_), <float *>cnp.PyArray_DATA(grad_), n_imgs,
            n_classes, smoothing_,
        )
    else:
        n_right = entropies[double](
            <const double *>cnp.PyArray_DATA(scores_), classes,
            <double *>cnp.PyArray_DATA(probs_), <double *>cnp.PyArray_DATA(losses_),
            <double *>cnp.PyArray_DATA(grad_), n_imgs, n_classes, smoothing_,
        )
    deliver(probs, probs_)
    deliver(losses, losses_)
    deliver(scores_grad, grad_)
    return sum_of(<const double *>cnp.PyArray_DATA(losses_), n_imgs), n_right
