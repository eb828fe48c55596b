# Functions of each value by itself, and the sum of two arrays. Needs common/arrays, dense/functions.h.

cdef extern from "dense/functions.h":
    ctypedef struct Function:
        bint is_float
        int type
        const void *values
        const void *grad
        void *out
        Py_ssize_t size
    enum: SIGMOID, SOFTPLUS, SUM, SUM_RELU
    enum: PART_SIZE
    void function_unit(void *job, Py_ssize_t unit, int thread) noexcept nogil

# by their numbers in functions.h
ACTIVATIONS = (
    "relu", "leaky_relu", "relu6", "hard_sigmoid", "hard_swish", "sigmoid", "tanh", "elu", "selu",
    "softplus", "silu", "gelu", "gelu_tanh",
)
cdef dict TYPES = {name: number for number, name in enumerate(ACTIVATIONS)}


cdef int number_of(object type) except -1:
    if not isinstance(type, str) or type not in TYPES:
        raise ValueError(f"type is {type!r}, expected one of {ACTIVATIONS}")
    return TYPES[type]


cdef cnp.ndarray run_function(int type, object array, str name, object grad, str grad_name,
                              object output, str output_name, object n_threads):
    """On arrays that are checked here; grad_name is None on the way forward."""
    cdef cnp.ndarray values = check_reals(array, name, None, ""), second = None
    cdef list others = [(values, name)]
    if grad_name is not None:
        second = check_reals(grad, grad_name, values, name)
        check_shape(second, grad_name, shape_of(values))
        others.append((second, grad_name))
    cdef cnp.ndarray out = check_output(output, output_name, shape_of(values), values.dtype)
    refuse_overlaps(out, output_name, others)
    cdef Py_ssize_t size = cnp.PyArray_SIZE(values)
    cdef bint has_exponential = SIGMOID <= type < SUM if second is None else SOFTPLUS <= type < SUM
    cdef int threads = threads_for(n_threads, size, SMALL_LOSS if has_exponential else SMALL_SIZE)
    values, second = contiguous(values), None if second is None else contiguous(second)
    cdef cnp.ndarray work = work_array(out)
    cdef Function job = [cnp.PyArray_TYPE(values) == cnp.NPY_FLOAT, type, data_of(values),
                         data_of(second), data_of(work), size]
    with nogil:
        parallel_for(function_unit, &job, (size + PART_SIZE - 1) // PART_SIZE, threads)
    deliver(out, work)
    return out


def activate(
    input,          # any shape                                             IN
    output=None,    # the same                                              OUT
    *,
    type,
    n_threads=None,
):
    """A function of each value.

    Parameters
    ----------
    input : ndarray, float32 or float64
    output : ndarray of that shape and dtype, optional
        Filled and returned; None allocates it. It may not share memory with input.
    type : str
        One of `ACTIVATIONS`, as `nnet.Activation` describes them.
    n_threads : int, optional
        Default: `nnet.get_num_threads()`. It changes no bit of the result.

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit.
    """
    return run_function(number_of(type), input, "input", None, None, output, "output", n_threads)


def bprop_activate(
    kept,               # any shape                                         IN
    output_grad,        # the same                                          IN
    input_grad=None,    # the same                                          OUT
    *,
    type,
    n_threads=None,
):
    """Back-propagate through `activate`: output_grad times the function's slope.

    Parameters
    ----------
    kept : ndarray, float32 or float64
        The input of 'gelu', 'gelu_tanh', 'silu' and 'hard_swish', else the output.
    output_grad : ndarray of that shape and dtype
    input_grad : ndarray of that shape and dtype, optional
        Filled and returned; None allocates it. It may share memory with no other array.
    type : str
    n_threads : int, optional
        Default: `nnet.get_num_threads()`. It changes no bit of the result.

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit.
    """
    return run_function(number_of(type), kept, "kept", output_grad, "output_grad", input_grad,
                        "input_grad", n_threads)


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
    return run_function(SUM_RELU if check_activation(activation) else SUM, a, "a", b, "b", out, "out",
                        n_threads)
