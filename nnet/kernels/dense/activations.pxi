# Functions of each value by itself, and what they do to gradients. Included by _dense.pyx.
#
# Each has one of a number, which `apply` makes into a loop: of sums, products, quotients and
# choices, without a branch, so that compilers take a vector of values at a time. Numbers are
# cast, for Cython would have float computed with doubles. A gradient is made from what a layer
# keeps: the output y where the slope follows from it, else the input x.

from libc.math cimport copysign, copysignf

cdef extern from *:
    """
    #define NNET_LEAK 0.01  /* Maas et al. 2013 */
    /* Klambauer et al. 2017, "Self-normalizing neural networks", eq. 14 */
    #define NNET_SELU_SCALE 1.0507009873554804934193349852946
    #define NNET_SELU_SLOPE (NNET_SELU_SCALE * 1.6732632423543772848170429916717)
    """
    const double LEAK "NNET_LEAK", SELU_SCALE "NNET_SELU_SCALE", SELU_SLOPE "NNET_SELU_SLOPE"


cdef inline real clip(real x, real low, real high) noexcept nogil:
    """NaN stays."""
    x = low if x < low else x
    return high if x > high else x


# --- straight lines -----------------------------------------------------------------------


cdef inline real relu_value(real x) noexcept nogil:
    return <real>0 if x < 0 else x


cdef inline real relu_gradient(real y, real grad) noexcept nogil:
    return grad if y > 0 else <real>0


cdef inline real leaky_relu_value(real x) noexcept nogil:
    return <real>LEAK * x if x < 0 else x


cdef inline real leaky_relu_gradient(real y, real grad) noexcept nogil:
    return grad if y > 0 else <real>LEAK * grad


cdef inline real relu6_value(real x) noexcept nogil:
    return clip(x, <real>0, <real>6)


cdef inline real relu6_gradient(real y, real grad) noexcept nogil:
    return grad if y > 0 and y < 6 else <real>0


cdef inline real hard_sigmoid_value(real x) noexcept nogil:
    return (clip(x, <real>-3, <real>3) + <real>3) * <real>(1.0 / 6)


cdef inline real hard_sigmoid_gradient(real y, real grad) noexcept nogil:
    return grad * <real>(1.0 / 6) if y > 0 and y < 1 else <real>0


cdef inline real hard_swish_value(real x) noexcept nogil:
    return (<real>-3 if x < -3 else x) * hard_sigmoid_value(x)


cdef inline real hard_swish_gradient(real x, real grad) noexcept nogil:
    cdef real inside = grad * (x * <real>(1.0 / 3) + <real>0.5)   # with a jump at both ends
    inside = <real>0 if x <= -3 else inside
    return grad if x >= 3 else inside


# --- of e^x -------------------------------------------------------------------------------


cdef inline real sigmoid_value(real x) noexcept nogil:
    return logistic(x, exponential(-abs(x)))


cdef inline real sigmoid_gradient(real y, real grad) noexcept nogil:
    return grad * ((<real>1 - y) * y)


cdef inline real tanh_value(real x) noexcept nogil:
    cdef real power = exponential_minus_1(<real>-2 * abs(x))
    cdef real y = power / (<real>2 + power)
    if real is float:
        return copysignf(y, x)
    else:
        return copysign(y, x)


cdef inline real tanh_gradient(real y, real grad) noexcept nogil:
    return grad * (<real>1 - y * y)


cdef inline real elu_value(real x) noexcept nogil:
    return x if x > 0 else exponential_minus_1(x)


cdef inline real elu_gradient(real y, real grad) noexcept nogil:
    return grad if y > 0 else grad * (y + <real>1)


cdef inline real selu_value(real x) noexcept nogil:
    return <real>SELU_SCALE * x if x > 0 else <real>SELU_SLOPE * exponential_minus_1(x)


cdef inline real selu_gradient(real y, real grad) noexcept nogil:
    return grad * (<real>SELU_SCALE if y > 0 else y + <real>SELU_SLOPE)


cdef inline real softplus_value(real x) noexcept nogil:
    """log(1 + e^x) = max(x, 0) + log(1 + p), p = e^-|x|; log(1 + p) = 2 artanh(p / (2 + p))."""
    cdef real power = exponential(-abs(x)), s = power / (<real>2 + power)
    cdef real square = s * s, series = 0
    cdef int k
    for k in range(15 if real is float else 31, 1, -2):
        series = series * square + <real>(1.0 / k)
    return (<real>0 if x < 0 else x) + <real>2 * (s + s * square * series)


cdef inline real softplus_gradient(real y, real grad) noexcept nogil:
    return grad * -exponential_minus_1(-y)


cdef inline real silu_value(real x) noexcept nogil:
    cdef real least = least_exponent(x)     # minus infinity times 0 would be NaN
    return (least if x < least else x) * sigmoid_value(x)


cdef inline real silu_gradient(real x, real grad) noexcept nogil:
    """s + x s (1 - s) = s (1 + x (1 - s)), where 1 - s is the sigmoid of -x."""
    x = clip(x, least_exponent(x), -least_exponent(x))
    cdef real power = exponential_of_sum(-abs(x), <real>0)
    return grad * (logistic(x, power) * (<real>1 + x * logistic(-x, power)))


# --- of the normal distribution -----------------------------------------------------------


cdef inline real tail_over_density(real x) noexcept nogil:
    """How much of the normal distribution is above x >= 0, divided by e**(-x**2 / 2).

    In float p / ((2 + sqrt(2 pi) x) p + x r), fitted up to 14.422: the largest part of the
    quotient does not depend on p, nor on its rounding. In double a polynomial in
    (x - 5) / (x + 5) over x + 5, made as Shepherd and Laframboise 1981 made theirs for
    exp(x**2) * erfc(x): a Chebyshev series over all of x >= 0. Their relative errors are at
    most 1e-8 and 6e-16.
    """
    cdef real inverse, t, p, r
    if real is float:
        p = <real>0.008159229
        p = p * x + <real>0.08080276
        p = p * x + <real>0.3651401
        p = p * x + <real>0.87486535
        p = p * x + <real>1
        r = <real>-0.016302755
        r = r * x - <real>0.14144894
        r = r * x - <real>0.5236205
        r = r * x - <real>0.9108283
        return p / ((<real>2.506598 * x + <real>2) * p + x * r)
    else:
        inverse = 1 / (x + 5)
        t = 1 - 10 * inverse
        p = -7.854458583247658e-10
        p = p * t + 5.059297487966696e-10
        p = p * t + 9.275082241537343e-09
        p = p * t - 5.027231930966982e-09
        p = p * t - 6.741689051823604e-08
        p = p * t + 3.5844546560871596e-08
        p = p * t + 4.3347664285137567e-07
        p = p * t - 3.311028544331811e-07
        p = p * t - 2.7688787836720915e-06
        p = p * t + 3.977938262343427e-06
        p = p * t + 1.6680852719925394e-05
        p = p * t - 4.976178374018789e-05
        p = p * t - 5.937558833377767e-05
        p = p * t + 0.0005448988347568596
        p = p * t - 0.0007978694277475297
        p = p * t - 0.0029933767389359726
        p = p * t + 0.02079506680323404
        p = p * t - 0.06911863870874183
        p = p * t + 0.16502036617019517
        p = p * t - 0.3135331566712172
        p = p * t + 0.4953056159699805
        p = p * t - 0.6653825028900576
        p = p * t + 0.769193049750063
        return p * inverse


cdef inline real far(real like) noexcept nogil:
    """From there on, the normal density is 0."""
    return <real>(14.422 if real is float else 38.61)


cdef inline real gelu_value(real x) noexcept nogil:
    """max(x, 0) - |x| tail(|x|)"""
    cdef real near = far(x) if abs(x) > far(x) else abs(x)
    return relu_value(x) - near * tail_over_density(near) * bell(near)


cdef inline real gelu_gradient(real x, real grad) noexcept nogil:
    x = clip(x, -far(x), far(x))
    cdef real density = bell(abs(x)), tail = density * tail_over_density(abs(x))
    return grad * ((tail if x < 0 else <real>1 - tail) + x * density * <real>0.3989422804014327)


# Its approximation is computed in double: an error of the exponent, 2u, is one of the power.
# Beyond 21.52, e^-|2u| is 0.


cdef inline double gelu_argument(double x) noexcept nogil:
    """2u = 2 sqrt(2 / pi) (x + 0.044715 x^3), where (1 + tanh(u)) / 2 = sigmoid(2u)."""
    return 1.5957691216057308 * x * (1 + 0.044715 * x * x)


cdef inline real gelu_tanh_value(real x) noexcept nogil:
    cdef double near = clip[double](x, -21.52, 21.52), twice_u = gelu_argument(near)
    cdef double power = exponential_of_sum[double](-abs(twice_u), 0)
    return <real>((near if x < 0 else x) * logistic(twice_u, power))


cdef inline real gelu_tanh_gradient(real x, real grad) noexcept nogil:
    """s + x s (1 - s) (2u)'."""
    cdef double near = clip[double](x, -21.52, 21.52), twice_u = gelu_argument(near)
    cdef double power = exponential_of_sum[double](-abs(twice_u), 0)
    cdef double slope = 1.5957691216057308 * (1 + 3 * 0.044715 * near * near)
    return <real>(grad * (
        logistic(twice_u, power) * (1 + near * logistic(-twice_u, power) * slope)
    ))


# --- the loops ----------------------------------------------------------------------------

cdef enum:
    PART_SIZE = 16384       # values that one thread takes at a time

cdef enum:                  # first those without e^x, then those with it on the way forward only
    RELU, LEAKY_RELU, RELU6, HARD_SIGMOID, HARD_SWISH,
    SIGMOID, TANH, ELU, SELU,
    SOFTPLUS, SILU, GELU, GELU_TANH

cdef dict TYPES = {
    "relu": RELU, "leaky_relu": LEAKY_RELU, "relu6": RELU6, "hard_sigmoid": HARD_SIGMOID,
    "hard_swish": HARD_SWISH, "sigmoid": SIGMOID, "tanh": TANH, "elu": ELU, "selu": SELU,
    "softplus": SOFTPLUS, "silu": SILU, "gelu": GELU, "gelu_tanh": GELU_TANH,
}
ACTIVATIONS = tuple(TYPES)

cdef struct Activation:
    int type
    const void *values          # the input, or on the way back what is kept
    const void *output_grad     # NULL on the way forward
    void *out
    Py_ssize_t size


cdef inline void apply(
    const Activation *job, Py_ssize_t part, real *out,
    real (*value)(real) noexcept nogil, real (*gradient)(real, real) noexcept nogil,
) noexcept nogil:
    """One part of the values, or of their gradients. The functions are constants once inlined."""
    cdef const real *values = <const real *>job.values
    cdef const real *output_grad = <const real *>job.output_grad
    cdef Py_ssize_t i, first = part * PART_SIZE, end = min(first + PART_SIZE, job.size)
    if output_grad == NULL:
        for i in range(first, end):
            out[i] = value(values[i])
    else:
        for i in range(first, end):
            out[i] = gradient(values[i], output_grad[i])


cdef inline void apply_type(const Activation *job, Py_ssize_t part, real *out) noexcept nogil:
    if job.type == RELU:
        apply(job, part, out, relu_value[real], relu_gradient[real])
    elif job.type == LEAKY_RELU:
        apply(job, part, out, leaky_relu_value[real], leaky_relu_gradient[real])
    elif job.type == RELU6:
        apply(job, part, out, relu6_value[real], relu6_gradient[real])
    elif job.type == HARD_SIGMOID:
        apply(job, part, out, hard_sigmoid_value[real], hard_sigmoid_gradient[real])
    elif job.type == HARD_SWISH:
        apply(job, part, out, hard_swish_value[real], hard_swish_gradient[real])
    elif job.type == SIGMOID:
        apply(job, part, out, sigmoid_value[real], sigmoid_gradient[real])
    elif job.type == TANH:
        apply(job, part, out, tanh_value[real], tanh_gradient[real])
    elif job.type == ELU:
        apply(job, part, out, elu_value[real], elu_gradient[real])
    elif job.type == SELU:
        apply(job, part, out, selu_value[real], selu_gradient[real])
    elif job.type == SOFTPLUS:
        apply(job, part, out, softplus_value[real], softplus_gradient[real])
    elif job.type == SILU:
        apply(job, part, out, silu_value[real], silu_gradient[real])
    elif job.type == GELU:
        apply(job, part, out, gelu_value[real], gelu_gradient[real])
    elif job.type == GELU_TANH:
        apply(job, part, out, gelu_tanh_value[real], gelu_tanh_gradient[real])


cdef void float_part(void *job, Py_ssize_t part, int thread) noexcept nogil:
    apply_type(<Activation *>job, part, <float *>(<Activation *>job).out)


cdef void double_part(void *job, Py_ssize_t part, int thread) noexcept nogil:
    apply_type(<Activation *>job, part, <double *>(<Activation *>job).out)


cdef int number_of(object type) except -1:
    if not isinstance(type, str) or type not in TYPES:
        raise ValueError(f"type is {type!r}, expected one of {ACTIVATIONS}")
    return TYPES[type]


cdef void run_activation(int type, cnp.ndarray values, cnp.ndarray grad, cnp.ndarray out,
                         object n_threads) except *:
    """On arrays that fit each other; grad is None on the way forward."""
    cdef Py_ssize_t size = cnp.PyArray_SIZE(values)
    cdef bint has_exponential = type >= (SIGMOID if grad is None else SOFTPLUS)
    cdef int threads = threads_for(n_threads, size, SMALL_LOSS if has_exponential else SMALL_SIZE)
    values, grad = contiguous(values), None if grad is None else contiguous(grad)
    cdef cnp.ndarray work = work_array(out)
    cdef Activation job = [type, data_of(values), data_of(grad), data_of(work), size]
    cdef bint is_float = cnp.PyArray_TYPE(values) == cnp.NPY_FLOAT
    with nogil:
        parallel_for(float_part if is_float else double_part, &job,
                     (size + PART_SIZE - 1) // PART_SIZE, threads)
    deliver(out, work)


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
    cdef int number = number_of(type)
    cdef cnp.ndarray x = check_reals(input, "input", None, "")
    cdef cnp.ndarray out = check_output(output, "output", shape_of(x), x.dtype)
    refuse_overlap(out, "output", x, "input")
    run_activation(number, x, None, out, n_threads)
    return out


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
    cdef int number = number_of(type)
    cdef cnp.ndarray values = check_reals(kept, "kept", None, "")
    cdef cnp.ndarray grad = check_reals(output_grad, "output_grad", values, "kept")
    check_shape(grad, "output_grad", shape_of(values))
    cdef cnp.ndarray out = check_output(input_grad, "input_grad", shape_of(values), values.dtype)
    refuse_overlap(out, "input_grad", values, "kept")
    refuse_overlap(out, "input_grad", grad, "output_grad")
    run_activation(number, values, grad, out, n_threads)
    return out
