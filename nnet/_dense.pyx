"""What the layers besides convolution and pooling compute, compiled.

matmul is the work of a dense layer (its inner loops are in _matmul.pxi); the
others take one pass over memory, and one call, where NumPy would take several:
normalisation is in _norm_passes.pxi, _norm.pxi and _group_norm.pxi, gelu and its
gradient are in _gelu.pxi.
"""

from libc.math cimport exp, expf, log

from nnet import kernels
from nnet._cpu cimport parallel_for

include "_arrays.pxi"
include "_reuse.pxi"
include "_vectors.pxi"
include "_matmul.pxi"

cdef object FLOAT64 = np.dtype(np.float64)

cdef enum:
    SOFTMAX_RUN = 64        # classes whose probabilities add up one by one
    SMALL_SIZE = 200_000    # values below which a second thread saves no time in one pass


cdef cnp.ndarray readable(cnp.ndarray array):
    """The array itself if its elements are whole elements apart, else a copy."""
    cdef int axis
    for axis in range(cnp.PyArray_NDIM(array)):
        if cnp.PyArray_STRIDE(array, axis) % cnp.PyArray_ITEMSIZE(array):
            return contiguous(array)
    return array if cnp.PyArray_ISALIGNED(array) else contiguous(array)


cdef int threads_for(object n_threads, double work, double small) except 0:
    """The threads of one call: little work stays on one."""
    if n_threads is None and work < small:
        return 1
    n_threads = kernels.call_threads(n_threads)
    return 1 if work < small else n_threads


cdef cnp.ndarray check_matrix(object array, str name, str axes, cnp.ndarray like, str like_name):
    """Two axes, which may be empty: the sum over no images is 0."""
    cdef cnp.ndarray matrix = check_reals(array, name, like, like_name)
    if cnp.PyArray_NDIM(matrix) != 2:
        raise ValueError(f"{name} has shape {shape_of(matrix)}, expected 2 axes ({axes})")
    return matrix


cdef void *data_of(cnp.ndarray array) noexcept:
    """Its memory; none of None."""
    return NULL if array is None else cnp.PyArray_DATA(array)


def matmul(
    a,              # (n_rows, n_inner)                                     IN
    b,              # (n_inner, n_cols)                                     IN
    out=None,       # (n_rows, n_cols)                                      OUT
    *,
    bias=None,      # (n_cols,)                                             IN
    divisor=1,
    activation=None,
    n_threads=None,
):
    """The matrix product a @ b / divisor + bias.

    Unlike a BLAS it gives the same bits for every number of threads, and no
    second pool of threads competes for the cores.

    Parameters
    ----------
    a, b : ndarray (n_rows, n_inner) and (n_inner, n_cols), float32 or float64
        Transposed views are as good.
    out : ndarray (n_rows, n_cols), same dtype, optional
        Filled and returned; None allocates it. It may share memory with no input.
    bias : ndarray (n_cols,), same dtype, optional
    divisor : float
    activation : {None, 'relu'}
        Applied to the result.
    n_threads : int, optional
        Default: `nnet.get_num_threads()`. It changes no bit of the result.

    Returns
    -------
    out : ndarray

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit.
    """
    cdef cnp.ndarray a_ = check_matrix(a, "a", "n_rows, n_inner", None, "")
    cdef cnp.ndarray b_ = check_matrix(b, "b", "n_inner, n_cols", a_, "a")
    cdef cnp.ndarray bias_ = None
    cdef Product job
    job.n_rows, job.n_inner = cnp.PyArray_DIM(a_, 0), cnp.PyArray_DIM(a_, 1)
    job.n_cols = cnp.PyArray_DIM(b_, 1)
    if cnp.PyArray_DIM(b_, 0) != job.n_inner:
        raise ValueError(f"b has shape {shape_of(b_)}, expected {job.n_inner} rows")
    if bias is not None:
        bias_ = check_reals(bias, "bias", a_, "a")
        check_shape(bias_, "bias", (job.n_cols,))
    if activation is not None and activation != "relu":
        raise ValueError(f"activation is {activation!r}, expected None or 'relu'")
    job.with_relu = activation is not None
    cdef double divide_by = divisor, work = <double>job.n_rows * job.n_cols * job.n_inner
    cdef int threads = threads_for(n_threads, work, SMALL_WORK)
    cdef cnp.ndarray out_ = check_output(out, "out", (job.n_rows, job.n_cols), a_.dtype)
    refuse_overlap(out_, "out", a_, "a")
    refuse_overlap(out_, "out", b_, "b")
    refuse_overlap(out_, "out", bias_, "bias")
    if cnp.PyArray_SIZE(out_) == 0:
        return out_
    a_, b_ = readable(a_), readable(b_)
    bias_ = None if bias_ is None else contiguous(bias_)
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(a_)
    job.a_row, job.a_inner = cnp.PyArray_STRIDE(a_, 0) // size, cnp.PyArray_STRIDE(a_, 1) // size
    job.b_inner, job.b_col = cnp.PyArray_STRIDE(b_, 0) // size, cnp.PyArray_STRIDE(b_, 1) // size
    cdef cnp.ndarray product = work_array(out_)
    job.a, job.b, job.out = data_of(a_), data_of(b_), data_of(product)
    job.bias, job.divisor = data_of(bias_), divide_by
    cdef cnp.ndarray errors = None
    if job.n_inner > MAX_BLOCKS * BLOCK:
        errors = np.zeros((job.n_rows, job.n_cols), a_.dtype)
    job.errors = data_of(errors)
    cdef bint is_float = cnp.PyArray_TYPE(a_) == cnp.NPY_FLOAT
    with nogil:
        run_product(&job, is_float, threads)
    deliver(out_, product)
    return out_


cdef enum:
    PART_SIZE = 16384       # values that one thread takes at a time

cdef struct ReluGradient:
    const void *output
    const void *output_grad
    void *input_grad
    Py_ssize_t size


cdef void relu_gradient(const ReluGradient *job, Py_ssize_t part, real *input_grad) noexcept nogil:
    cdef const real *output = <const real *>job.output
    cdef const real *output_grad = <const real *>job.output_grad
    cdef Py_ssize_t i
    for i in range(part * PART_SIZE, min((part + 1) * PART_SIZE, job.size)):
        input_grad[i] = output_grad[i] if output[i] > 0 else <real>0


cdef void float_part(void *job, Py_ssize_t part, int thread) noexcept nogil:
    relu_gradient(<ReluGradient *>job, part, <float *>(<ReluGradient *>job).input_grad)


cdef void double_part(void *job, Py_ssize_t part, int thread) noexcept nogil:
    relu_gradient(<ReluGradient *>job, part, <double *>(<ReluGradient *>job).input_grad)


def bprop_relu(
    output,         # any shape                                             IN
    output_grad,    # the same                                              IN
    input_grad,     # the same                                              OUT
    *,
    n_threads=None,
):
    """Back-propagate through max(x, 0): the gradient where the output is positive, else 0.

    Parameters
    ----------
    output, output_grad : ndarray of one shape and dtype, float32 or float64
    input_grad : ndarray of that shape and dtype
        Filled and returned. It may share memory with no other array.
    n_threads : int, optional
        Default: `nnet.get_num_threads()`.

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and types that do not fit.
    """
    cdef cnp.ndarray y = check_reals(output, "output", None, "")
    cdef cnp.ndarray grad = check_reals(output_grad, "output_grad", y, "output")
    check_shape(grad, "output_grad", shape_of(y))
    if input_grad is None:
        raise TypeError("input_grad is None, expected a NumPy array")
    cdef cnp.ndarray out = check_output(input_grad, "input_grad", shape_of(y), y.dtype)
    refuse_overlap(out, "input_grad", y, "output")
    refuse_overlap(out, "input_grad", grad, "output_grad")
    cdef Py_ssize_t size = cnp.PyArray_SIZE(y)
    cdef int threads = threads_for(n_threads, size, SMALL_SIZE)
    y, grad = contiguous(y), contiguous(grad)
    cdef cnp.ndarray work = work_array(out)
    cdef ReluGradient job = [data_of(y), data_of(grad), data_of(work), size]
    cdef bint is_float = cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT
    with nogil:
        parallel_for(float_part if is_float else double_part, &job,
                     (size + PART_SIZE - 1) // PART_SIZE, threads)
    deliver(out, work)
    return out


include "_gelu.pxi"


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


def softmax(
    scores,         # (n_imgs, n_classes)                                   IN
    probs=None,     # (n_imgs, n_classes)                                   OUT
):
    """Probabilities: exp(scores), divided by their sum over the classes.

    Parameters
    ----------
    scores : ndarray (n_imgs, n_classes), float32 or float64
    probs : ndarray (n_imgs, n_classes), same dtype, optional
        Filled and returned; None allocates it. It may not share memory with scores.

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and types that do not fit.
    """
    cdef cnp.ndarray scores_ = check_array(scores, "scores", "n_imgs, n_classes", None, "")
    cdef cnp.ndarray out = check_output(probs, "probs", shape_of(scores_), scores_.dtype)
    refuse_overlap(out, "probs", scores_, "scores")
    cdef Py_ssize_t n_imgs = cnp.PyArray_DIM(scores_, 0), n_classes = cnp.PyArray_DIM(scores_, 1)
    scores_ = contiguous(scores_)
    cdef cnp.ndarray work = work_array(out)
    if cnp.PyArray_TYPE(scores_) == cnp.NPY_FLOAT:
        softmax_rows[float](<const float *>cnp.PyArray_DATA(scores_),
                            <float *>cnp.PyArray_DATA(work), n_imgs, n_classes)
    else:
        softmax_rows[double](<const double *>cnp.PyArray_DATA(scores_),
                             <double *>cnp.PyArray_DATA(work), n_imgs, n_classes)
    deliver(out, work)
    return out


cdef Py_ssize_t entropies(
    const real *scores, const cnp.npy_intp *target, real *probs, double *losses, real *grad,
    Py_ssize_t n_imgs, Py_ssize_t n_classes,
) noexcept nogil:
    """For each image the loss, and its gradient: the probabilities minus one at the target.

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
        scores, probs, grad = scores + n_classes, probs + n_classes, grad + n_classes
    return n_right


cdef double sum_of(const double *values, Py_ssize_t n) noexcept nogil:
    cdef double total = 0
    cdef Py_ssize_t i
    for i in range(n):
        total += values[i]
    return total


def cross_entropy(
    scores,         # (n_imgs, n_classes)                                   IN
    target,         # (n_imgs,)                                             IN
    probs,          # (n_imgs, n_classes)                                   OUT
    losses,         # (n_imgs,)                                             OUT
    scores_grad,    # (n_imgs, n_classes)                                   OUT
):
    """The cross-entropy of softmax(scores), and what else a training step needs of it.

    Parameters
    ----------
    scores : ndarray (n_imgs, n_classes), float32 or float64
    target : ndarray (n_imgs,), intp
        The right class of each image.
    probs : ndarray (n_imgs, n_classes), same dtype
        Filled with softmax(scores).
    losses : ndarray (n_imgs,), float64
        Filled with the loss of each image.
    scores_grad : ndarray (n_imgs, n_classes), same dtype
        Filled with the gradient of each image's loss.

    Returns
    -------
    loss_sum : float
        Over the images.
    n_right : int
        For how many images the right class has the largest probability, as numpy.argmax sees it.

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit.
    """
    cdef cnp.ndarray scores_ = check_array(scores, "scores", "n_imgs, n_classes", None, "")
    cdef Py_ssize_t n_imgs = cnp.PyArray_DIM(scores_, 0), n_classes = cnp.PyArray_DIM(scores_, 1)
    check_ndarray(target, "target", "a NumPy array")
    if target.dtype != np.intp:
        raise TypeError(f"target has dtype {target.dtype}, expected {np.dtype(np.intp)}")
    check_shape(target, "target", (n_imgs,))
    cdef cnp.ndarray target_ = contiguous(target)
    cdef const cnp.npy_intp *classes = <const cnp.npy_intp *>cnp.PyArray_DATA(target_)
    cdef Py_ssize_t n, n_right
    for n in range(n_imgs):
        if not 0 <= classes[n] < n_classes:
            raise ValueError(f"target[{n}] is {classes[n]}, expected one of {n_classes} classes")
    cdef tuple shape = shape_of(scores_)
    cdef list outputs = [
        (probs, "probs", shape, scores_.dtype), (losses, "losses", (n_imgs,), FLOAT64),
        (scores_grad, "scores_grad", shape, scores_.dtype),
    ]
    cdef list others = [(scores_, "scores"), (target, "target")]
    for out, name, out_shape, dtype in outputs:
        if out is None:
            raise TypeError(f"{name} is None, expected a NumPy array")
        out = check_output(out, name, out_shape, dtype)
        for other, other_name in others:
            refuse_overlap(out, name, other, other_name)
        others.append((out, name))
    scores_ = contiguous(scores_)
    cdef cnp.ndarray probs_ = work_array(probs), losses_ = work_array(losses)
    cdef cnp.ndarray grad_ = work_array(scores_grad)
    if cnp.PyArray_TYPE(scores_) == cnp.NPY_FLOAT:
        n_right = entropies[float](
            <const float *>cnp.PyArray_DATA(scores_), classes, <float *>cnp.PyArray_DATA(probs_),
            <double *>cnp.PyArray_DATA(losses_), <float *>cnp.PyArray_DATA(grad_), n_imgs,
            n_classes,
        )
    else:
        n_right = entropies[double](
            <const double *>cnp.PyArray_DATA(scores_), classes,
            <double *>cnp.PyArray_DATA(probs_), <double *>cnp.PyArray_DATA(losses_),
            <double *>cnp.PyArray_DATA(grad_), n_imgs, n_classes,
        )
    deliver(probs, probs_)
    deliver(losses, losses_)
    deliver(scores_grad, grad_)
    return sum_of(<const double *>cnp.PyArray_DATA(losses_), n_imgs), n_right


cdef bint are_finite(const real *values, Py_ssize_t n) noexcept nogil:
    """The difference of any of them from itself is 0, but of NaN and infinity it is NaN."""
    cdef int wrong = 0      # no early exit: the loop takes a vector at a time
    cdef Py_ssize_t i
    for i in range(n):
        wrong |= values[i] - values[i] != 0
    return not wrong


def all_finite(
    array,          # any shape                                             IN
):
    """Whether no value of a float32 or float64 array is NaN or infinite."""
    cdef cnp.ndarray values = contiguous(check_reals(array, "array", None, ""))
    cdef Py_ssize_t size = cnp.PyArray_SIZE(values)
    if cnp.PyArray_TYPE(values) == cnp.NPY_FLOAT:
        return are_finite[float](<const float *>cnp.PyArray_DATA(values), size)
    return are_finite[double](<const double *>cnp.PyArray_DATA(values), size)


include "_norm.pxi"
include "_group_norm.pxi"

KERNELS = (     # of this very target
    matmul, bprop_relu, softmax, cross_entropy, all_finite, gelu, bprop_gelu, batch_norm,
    bprop_batch_norm, group_norm, bprop_group_norm, add_arrays,
)
if __name__ == "nnet._dense" and kernels.TARGET != "baseline":
    # The public door leads to the chosen target.
    (
        matmul, bprop_relu, softmax, cross_entropy, all_finite, gelu, bprop_gelu, batch_norm,
        bprop_batch_norm, group_norm, bprop_group_norm, add_arrays,
    ) = kernels.load("_dense")
