# x times the normal distribution's function of x, and the slope of that. (Hendrycks and Gimpel
# 2016, "Gaussian error linear units", section 2.)
#
# Both types are computed in double, by nothing but sums, products and one quotient, without a
# branch: so compilers take a vector of values at a time, which no erf or exp of theirs allows.

from libc.math cimport fabs
from libc.stdint cimport uint64_t

cdef enum:
    FAR = 40                # beyond it the normal density is 0 in double


cdef inline double power_of_half(uint64_t n) noexcept nogil:
    """2**-n, for n up to 1022."""
    cdef uint64_t bits = (1023 - n) << 52
    cdef double power
    memcpy(&power, &bits, sizeof(double))
    return power


cdef inline double exp_of_minus(double u) noexcept nogil:
    """e**-u, for u from 0 to 1400: 2**-n * e**r, with r of at most log(2) / 2 either way."""
    # 1.5 * 2**52, added to a number, leaves its nearest integer, in the last bits.
    cdef double shift = 6755399441055744.0, shifted = u * 1.4426950408889634 + shift
    cdef double n = shifted - shift, r = (n * 0.693147180369123816490 - u) + (
        n * 1.90821492927058770002e-10)     # log(2) in two parts: the first times n is exact
    cdef double p = 1.6059043836821613e-10
    cdef uint64_t bits, zero
    memcpy(&bits, &shifted, sizeof(double))
    memcpy(&zero, &shift, sizeof(double))
    bits -= zero
    p = p * r + 2.08767569878681e-09
    p = p * r + 2.505210838544172e-08
    p = p * r + 2.755731922398589e-07
    p = p * r + 2.7557319223985893e-06
    p = p * r + 2.48015873015873e-05
    p = p * r + 0.0001984126984126984
    p = p * r + 0.001388888888888889
    p = p * r + 0.008333333333333333
    p = p * r + 0.041666666666666664
    p = p * r + 0.16666666666666666
    p = p * r + 0.5
    p = p * r + 1
    p = p * r + 1
    return p * power_of_half(bits >> 1) * power_of_half(bits - (bits >> 1))  # either is normal


cdef inline double tail_over_density(double x) noexcept nogil:
    """How much of the normal distribution is above x >= 0, divided by e**(-x**2 / 2).

    A polynomial in (x - 5) / (x + 5) over x + 5, made as Shepherd and Laframboise 1981 made
    theirs for exp(x**2) * erfc(x): a Chebyshev series over all of x >= 0. Its relative error
    is at most 6e-16.
    """
    cdef double inverse = 1 / (x + 5), t = 1 - 10 * inverse
    cdef double p = -7.854458583247658e-10
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


cdef void gelu_values(const real *x, real *y, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef double value, near, tail
    for i in range(n):
        value = x[i]
        near = FAR if fabs(value) > FAR else fabs(value)    # NaN is not
        tail = exp_of_minus(near * near * 0.5) * tail_over_density(near)
        tail = tail if value < 0 else 1 - tail
        value = -FAR if value < -FAR else value
        y[i] = <real>(value * tail)


cdef void gelu_slopes(const real *x, const real *y_grad, real *x_grad, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef double value, near, density, tail
    for i in range(n):
        value = x[i]
        near = FAR if fabs(value) > FAR else fabs(value)
        density = exp_of_minus(near * near * 0.5)
        tail = density * tail_over_density(near)
        tail = tail if value < 0 else 1 - tail
        near = -near if value < 0 else near
        x_grad[i] = <real>(y_grad[i] * (tail + near * density * 0.3989422804014327))


cdef struct Gelu:
    const void *input
    const void *output_grad     # NULL on the way forward
    void *out
    Py_ssize_t size


cdef inline void gelu_part(const Gelu *job, Py_ssize_t part, real *out) noexcept nogil:
    cdef Py_ssize_t first = part * PART_SIZE
    cdef Py_ssize_t n = min(<Py_ssize_t>PART_SIZE, job.size - first)
    cdef const real *x = <const real *>job.input + first
    if job.output_grad == NULL:
        gelu_values(x, out + first, n)
    else:
        gelu_slopes(x, <const real *>job.output_grad + first, out + first, n)


cdef void float_gelu(void *job, Py_ssize_t part, int thread) noexcept nogil:
    gelu_part(<Gelu *>job, part, <float *>(<Gelu *>job).out)


cdef void double_gelu(void *job, Py_ssize_t part, int thread) noexcept nogil:
    gelu_part(<Gelu *>job, part, <double *>(<Gelu *>job).out)


cdef void run_gelu(cnp.ndarray x, cnp.ndarray grad, cnp.ndarray out, object n_threads) except *:
    """Arrays that fit each other; grad is None on the way forward."""
    cdef Py_ssize_t size = cnp.PyArray_SIZE(x)
    cdef int threads = threads_for(n_threads, size, SMALL_SIZE // 10)
    x, grad = contiguous(x), None if grad is None else contiguous(grad)
    cdef cnp.ndarray work = work_array(out)
    cdef Gelu job = [data_of(x), data_of(grad), data_of(work), size]
    cdef bint is_float = cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT
    with nogil:
        parallel_for(float_gelu if is_float else double_gelu, &job,
                     (size + PART_SIZE - 1) // PART_SIZE, threads)
    deliver(out, work)


def gelu(
    input,          # any shape                                             IN
    output=None,    # the same                                              OUT
    *,
    n_threads=None,
):
    """input * (1 + erf(input / sqrt(2))) / 2: GELU, exact.

    Parameters
    ----------
    input : ndarray, float32 or float64
    output : ndarray of that shape and dtype, optional
        Filled and returned; None allocates it. It may not share memory with input.
    n_threads : int, optional
        Default: `nnet.get_num_threads()`.

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and types that do not fit.
    """
    cdef cnp.ndarray x = check_reals(input, "input", None, "")
    cdef cnp.ndarray out = check_output(output, "output", shape_of(x), x.dtype)
    refuse_overlap(out, "output", x, "input")
    run_gelu(x, None, out, n_threads)
    return out


def bprop_gelu(
    input,          # any shape                                             IN
    output_grad,    # the same                                              IN
    input_grad,     # the same                                              OUT
    *,
    n_threads=None,
):
    """Back-propagate through `gelu`, from its input.

    Parameters
    ----------
    input, output_grad : ndarray of one shape and dtype, float32 or float64
    input_grad : ndarray of that shape and dtype, or None
        Filled and returned; None allocates it. It may share memory with no other array.
    n_threads : int, optional
        Default: `nnet.get_num_threads()`.

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and types that do not fit.
    """
    cdef cnp.ndarray x = check_reals(input, "input", None, "")
    cdef cnp.ndarray grad = check_reals(output_grad, "output_grad", x, "input")
    check_shape(grad, "output_grad", shape_of(x))
    cdef cnp.ndarray out = check_output(input_grad, "input_grad", shape_of(x), x.dtype)
    refuse_overlap(out, "input_grad", x, "input")
    refuse_overlap(out, "input_grad", grad, "output_grad")
    run_gelu(x, grad, out, n_threads)
    return out
