"""What the layers besides convolution and pooling compute, compiled.

matmul is the work of a dense layer; the others take one pass over memory, and one call, where
NumPy would take several. Each check is here or in a .pxi, each loop in a .h of kernels/dense.
"""

from libc.string cimport memset

from nnet import dispatch
from nnet._runtime cimport parallel_for

include "kernels/common/arrays.pxi"
include "kernels/common/memory.pxi"
include "kernels/common/simd.pxi"
include "kernels/common/chunks.pxi"
include "kernels/dense/matmul.pxi"
include "kernels/dense/losses.pxi"
include "kernels/dense/activations.pxi"
include "kernels/dense/norm.pxi"
include "kernels/dense/norm_functions.pxi"
include "kernels/common/follow.pxi"
include "kernels/dense/step.pxi"

cdef enum:
    SMALL_SIZE = 200_000    # values below which a second thread saves no time in one pass
    SMALL_LOSS = 20_000     # the same where each has an exponential


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
    n_threads = dispatch.call_threads(n_threads)
    return 1 if work < small else n_threads


cdef cnp.ndarray check_matrix(object array, str name, str axes, cnp.ndarray like, str like_name):
    """Two axes, which may be empty: the sum over no images is 0."""
    cdef cnp.ndarray matrix = check_reals(array, name, like, like_name)
    if cnp.PyArray_NDIM(matrix) != 2:
        raise ValueError(f"{name} has shape {shape_of(matrix)}, expected 2 axes ({axes})")
    return matrix


cdef void refuse_overlaps(cnp.ndarray out, str name, list others) except *:
    """That with none of the others, a list of (array or None, name)."""
    cdef tuple other
    for other in others:
        refuse_overlap(out, name, other[0], other[1])


cdef bint check_activation(object activation) except -1:
    """Whether there is one."""
    if activation is not None and activation != "relu":
        raise ValueError(f"activation is {activation!r}, expected None or 'relu'")
    return activation is not None


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
    over_images=False,
    column_sums=None,   # (n_cols,)                                         OUT
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
    over_images : bool
        Whether the inner axis is that of images: their products are then added in chunks of 16
        and along a fixed tree, so that the sums of parts of a batch can be put together.
    column_sums : ndarray (n_cols,), same dtype, optional
        Filled with b.sum(axis=0) / divisor: the gradient of a bias.
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
    cdef Py_ssize_t n_rows = cnp.PyArray_DIM(a_, 0), n_inner = cnp.PyArray_DIM(a_, 1)
    cdef Py_ssize_t n_cols = cnp.PyArray_DIM(b_, 1)
    if cnp.PyArray_DIM(b_, 0) != n_inner:
        raise ValueError(f"b has shape {shape_of(b_)}, expected {n_inner} rows")
    if bias is not None:
        bias_ = check_reals(bias, "bias", a_, "a")
        check_shape(bias_, "bias", (n_cols,))
    cdef bint with_relu = check_activation(activation)
    cdef double divide_by = divisor, work = <double>n_rows * n_cols * n_inner
    cdef int threads = threads_for(n_threads, work, SMALL_WORK)
    cdef cnp.ndarray out_ = check_output(out, "out", (n_rows, n_cols), a_.dtype), sums = None
    cdef list others = [(a_, "a"), (b_, "b"), (bias_, "bias")]
    refuse_overlaps(out_, "out", others)
    if column_sums is not None:
        sums = check_output(column_sums, "column_sums", (n_cols,), a_.dtype)
        refuse_overlaps(sums, "column_sums", [(out_, "out"), *others])
    a_, b_ = readable(a_), readable(b_)
    bias_ = None if bias_ is None else contiguous(bias_)
    cdef cnp.ndarray out_work = work_array(out_), sums_work = work_array(sums)
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(a_)
    cdef ProductPlan plan = plan_product(
        n_inner, n_cols, cnp.PyArray_STRIDE(a_, 0) // size, cnp.PyArray_STRIDE(a_, 1) // size,
        cnp.PyArray_STRIDE(b_, 0) // size, cnp.PyArray_STRIDE(b_, 1) // size,
        CHUNK_IMGS if over_images else TERMS, size == 4)
    multiply(&plan, data_of(a_), data_of(b_), data_of(bias_), data_of(out_work), n_rows, divide_by,
             with_relu, threads)
    deliver(out_, out_work)
    if sums is not None:    # those of a product by a row of ones
        plan.tiles.a_inner = 0
        multiply(&plan, &FLOAT_1 if size == 4 else <void *>&DOUBLE_1, data_of(b_), NULL,
                 data_of(sums_work), 1, divide_by, False, 1)
        deliver(sums, sums_work)
    return out_


cdef float FLOAT_1 = 1
cdef double DOUBLE_1 = 1


cdef void multiply(
    const ProductPlan *plan, const void *a, const void *b, const void *bias, void *out,
    Py_ssize_t n_rows, double divisor, bint with_relu, int n_threads,
) except *:
    """`run_product` with scratch of its own."""
    cdef char small[SMALL_SCRATCH + VECTOR_BYTES]
    cdef void *scratch = small + VECTOR_BYTES - <size_t>small % VECTOR_BYTES
    cdef Py_ssize_t n_bytes = n_threads * product_scratch(plan, n_rows)
    cdef Workspace space = None
    if n_rows == 0 or plan.n_cols == 0:
        return
    if n_bytes > SMALL_SCRATCH:
        space = acquire_workspace()
        scratch = space.take(n_bytes)
    with nogil:
        run_product(plan, a, b, bias, out, n_rows, divisor, with_relu, scratch, n_threads)
    if space is not None:
        space.release()


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


KERNELS = (     # of this very target
    matmul, activate, bprop_activate, softmax, cross_entropy, all_finite, batch_norm,
    bprop_batch_norm, group_norm, bprop_group_norm, add_arrays, binary_cross_entropy,
)
if __name__ == "nnet._dense" and dispatch.TARGET != "baseline":
    # The public door leads to the chosen target.
    (
        matmul, activate, bprop_activate, softmax, cross_entropy, all_finite, batch_norm,
        bprop_batch_norm, group_norm, bprop_group_norm, add_arrays, binary_cross_entropy,
    ) = dispatch.load("_dense")
