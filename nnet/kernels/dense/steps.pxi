# The steps of the optimizers, and the clipping of gradients: each reads and writes every array
# once. Arrays that are not plain ones (the user's own, in any layout) take a path through NumPy.

from libc.math cimport pow, sqrt, sqrtf


ctypedef fused real:
    float
    double


cdef int plain_type(object array) noexcept:
    """The type number of a C-contiguous array; -1 for anything else."""
    if isinstance(array, np.ndarray) and cnp.PyArray_IS_C_CONTIGUOUS(array) and (
            cnp.PyArray_ISBEHAVED(array)):
        return cnp.PyArray_TYPE(array)
    return -1


cdef int common_type(tuple arrays) noexcept:
    """The type number of plain arrays of one type, None aside; -1 for any others."""
    cdef int kind = plain_type(arrays[0])
    for array in arrays:
        if array is not None and plain_type(array) != kind:
            return -1
    return kind


cdef void *data_of(object array) noexcept:
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline real root(real x) noexcept nogil:
    if real is float:
        return sqrtf(x)
    else:
        return sqrt(x)


def as_incs(list params, incs):
    """What parameters are to step against, as arrays; ValueError for other shapes than theirs."""
    cdef list arrays = list(map(np.asarray, incs))
    cdef cnp.ndarray param, inc
    cdef bint fits = len(arrays) == len(params)
    for inc, param in zip(arrays, params):
        fits &= cnp.PyArray_SAMESHAPE(inc, param)
    if not fits:
        shapes, expected = [np.shape(inc) for inc in arrays], [np.shape(param) for param in params]
        raise ValueError(f"incs have shapes {shapes}, expected the parameters' {expected}")
    return arrays


# --- SGD ----------------------------------------------------------------------------


cdef void sgd_values(real *param, const real *inc, real *velocity, Py_ssize_t size,
                     real learning_rate, real momentum, bint nesterov) noexcept nogil:
    """The step of one array; velocity is NULL without momentum."""
    cdef Py_ssize_t i
    if velocity == NULL:
        for i in range(size):
            param[i] -= learning_rate * inc[i]
    elif nesterov:
        for i in range(size):
            velocity[i] = momentum * velocity[i] + inc[i]
            param[i] -= learning_rate * (momentum * velocity[i] + inc[i])
    else:
        for i in range(size):
            velocity[i] = momentum * velocity[i] + inc[i]
            param[i] -= learning_rate * velocity[i]


def sgd_step(list params, list incs, list velocities, double learning_rate, double momentum,
             bint nesterov):
    """One step of `SGD` for all parameters; there are velocities if there is momentum."""
    cdef Py_ssize_t i
    cdef int kind
    for i in range(len(params)):
        param, inc, velocity = params[i], incs[i], velocities[i] if momentum else None
        kind = common_type((param, inc, velocity))
        if kind == cnp.NPY_FLOAT:
            sgd_values[float](
                <float *>data_of(param), <float *>data_of(inc), <float *>data_of(velocity),
                param.size, learning_rate, momentum, nesterov)
        elif kind == cnp.NPY_DOUBLE:
            sgd_values[double](
                <double *>data_of(param), <double *>data_of(inc), <double *>data_of(velocity),
                param.size, learning_rate, momentum, nesterov)
        else:
            if velocity is not None:
                np.multiply(velocity, momentum, velocity)
                np.add(velocity, inc, velocity)
                inc = np.add(np.multiply(velocity, momentum), inc) if nesterov else velocity
            np.subtract(param, np.multiply(inc, learning_rate), param, casting="same_kind")
    note_step()


# --- Adam ---------------------------------------------------------------------------


cdef void adam_values(real *param, const real *inc, real *mean, real *square, Py_ssize_t size,
                      real rate, real shrink, real beta1, real beta2, real rise1, real rise2,
                      real scale, real eps) noexcept nogil:
    """The step of one array. rise is 1 - beta, scale corrects the root for the first steps."""
    cdef Py_ssize_t i
    for i in range(size):
        mean[i] = beta1 * mean[i] + rise1 * inc[i]
        square[i] = beta2 * square[i] + rise2 * inc[i] * inc[i]
        param[i] = shrink * param[i] - rate * mean[i] / (root(square[i]) * scale + eps)


def adam_step(list params, list incs, list means, list squares, cnp.ndarray n_steps,
              double learning_rate, double beta1, double beta2, double eps, list shrinks):
    """One step of `Adam` for all parameters, each of which is first multiplied by its `shrink`.

    `n_steps` (int64, no axes) counts the steps.
    """
    cdef cnp.int64_t *n = <cnp.int64_t *>cnp.PyArray_DATA(n_steps)
    cdef double rate = learning_rate / (1 - pow(beta1, <double>(n[0] + 1)))
    cdef double scale = 1 / sqrt(1 - pow(beta2, <double>(n[0] + 1)))
    cdef double shrink
    cdef Py_ssize_t i
    cdef int kind
    for i in range(len(params)):
        param, inc, mean, square, shrink = params[i], incs[i], means[i], squares[i], shrinks[i]
        kind = common_type((param, inc, mean, square))
        if kind == cnp.NPY_FLOAT:
            adam_values[float](
                <float *>data_of(param), <float *>data_of(inc), <float *>data_of(mean),
                <float *>data_of(square), param.size,
                rate, shrink, beta1, beta2, 1 - beta1, 1 - beta2, scale, eps)
        elif kind == cnp.NPY_DOUBLE:
            adam_values[double](
                <double *>data_of(param), <double *>data_of(inc), <double *>data_of(mean),
                <double *>data_of(square), param.size,
                rate, shrink, beta1, beta2, 1 - beta1, 1 - beta2, scale, eps)
        else:
            approach(mean, inc, beta1)
            approach(square, np.multiply(inc, inc), beta2)
            root_of = np.add(np.multiply(np.sqrt(square), scale), eps)
            np.multiply(param, shrink, param)
            np.subtract(param, np.divide(np.multiply(mean, rate), root_of), param,
                        casting="same_kind")
    n[0] += 1
    note_step()


cdef approach(average, values, double beta):
    """average = beta * average + (1 - beta) * values"""
    np.multiply(average, beta, average)
    np.add(average, np.multiply(values, 1 - beta), average, casting="same_kind")


# --- RMSprop ------------------------------------------------------------------------


cdef inline real rmsprop_value(real inc, real *square, real *mean, real alpha, real rise, real eps,
                               bint centered) noexcept nogil:
    cdef real variance
    square[0] = alpha * square[0] + rise * inc * inc
    variance = square[0]
    if centered:
        mean[0] = alpha * mean[0] + rise * inc
        variance -= mean[0] * mean[0]
        variance = variance if variance > 0 else 0      # rounding may have left less
    return inc / (root(variance) + eps)


cdef void rmsprop_values(real *param, const real *inc, real *square, real *mean, real *velocity,
                         Py_ssize_t size, real learning_rate, real alpha, real rise, real eps,
                         real momentum) noexcept nogil:
    """The step of one array; velocity is NULL without momentum, mean if it is not centered."""
    cdef Py_ssize_t i
    if velocity == NULL and mean == NULL:
        for i in range(size):
            param[i] -= learning_rate * rmsprop_value(
                inc[i], &square[i], NULL, alpha, rise, eps, False)
    elif velocity == NULL:
        for i in range(size):
            param[i] -= learning_rate * rmsprop_value(
                inc[i], &square[i], &mean[i], alpha, rise, eps, True)
    elif mean == NULL:
        for i in range(size):
            velocity[i] = momentum * velocity[i] + rmsprop_value(
                inc[i], &square[i], NULL, alpha, rise, eps, False)
            param[i] -= learning_rate * velocity[i]
    else:
        for i in range(size):
            velocity[i] = momentum * velocity[i] + rmsprop_value(
                inc[i], &square[i], &mean[i], alpha, rise, eps, True)
            param[i] -= learning_rate * velocity[i]


def rmsprop_step(list params, list incs, list squares, list means, list velocities,
                 double learning_rate, double alpha, double eps, double momentum):
    """One step of `RMSprop`; there are means if it is centered, velocities with momentum."""
    cdef Py_ssize_t i
    cdef int kind
    for i in range(len(params)):
        param, inc, square = params[i], incs[i], squares[i]
        mean, velocity = means[i] if means else None, velocities[i] if velocities else None
        kind = common_type((param, inc, square, mean, velocity))
        if kind == cnp.NPY_FLOAT:
            rmsprop_values[float](
                <float *>data_of(param), <float *>data_of(inc), <float *>data_of(square),
                <float *>data_of(mean), <float *>data_of(velocity), param.size,
                learning_rate, alpha, 1 - alpha, eps, momentum)
        elif kind == cnp.NPY_DOUBLE:
            rmsprop_values[double](
                <double *>data_of(param), <double *>data_of(inc), <double *>data_of(square),
                <double *>data_of(mean), <double *>data_of(velocity), param.size,
                learning_rate, alpha, 1 - alpha, eps, momentum)
        else:
            approach(square, np.multiply(inc, inc), alpha)
            variance = square
            if mean is not None:
                approach(mean, inc, alpha)
                variance = np.maximum(np.subtract(square, np.multiply(mean, mean)), 0)
            inc = np.divide(inc, np.add(np.sqrt(variance), eps))
            if velocity is not None:
                np.multiply(velocity, momentum, velocity)
                inc = np.add(velocity, inc, velocity, casting="same_kind")
            np.subtract(param, np.multiply(inc, learning_rate), param, casting="same_kind")
    note_step()


# --- gradient clipping ----------------------------------------------------------------


cdef double sum_of_squares(const real *values, Py_ssize_t size) noexcept nogil:
    """In double precision, in an order that only the size decides."""
    cdef double sums[8]          # side by side: one alone waits for each addition
    cdef double x
    cdef Py_ssize_t i, k
    for k in range(8):
        sums[k] = 0
    for i in range(0, size - 7, 8):
        for k in range(8):
            x = values[i + k]
            sums[k] += x * x
    for i in range(size - size % 8, size):
        x = values[i]
        sums[i % 8] += x * x
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + (
        (sums[4] + sums[5]) + (sums[6] + sums[7]))


cdef void scale_values(real *values, Py_ssize_t size, real factor) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        values[i] *= factor


cdef void clamp_values(real *values, Py_ssize_t size, real limit) noexcept nogil:
    cdef Py_ssize_t i
    cdef real x
    for i in range(size):       # NaN stays
        x = values[i]
        x = limit if x > limit else x
        values[i] = -limit if x < -limit else x


def norm_of(list arrays):
    """The Euclidean norm of all values together."""
    cdef double total = 0
    cdef int kind
    for array in arrays:
        kind = plain_type(array)
        if kind == cnp.NPY_FLOAT:
            total += sum_of_squares[float](<float *>data_of(array), array.size)
        elif kind == cnp.NPY_DOUBLE:
            total += sum_of_squares[double](<double *>data_of(array), array.size)
        else:
            total += np.add.reduce(np.multiply(array, array, dtype=float), axis=None)
    return sqrt(total)


def scale_all(list arrays, double factor):
    """array *= factor for all of them."""
    cdef int kind
    for array in arrays:
        kind = plain_type(array)
        if kind == cnp.NPY_FLOAT:
            scale_values[float](<float *>data_of(array), array.size, factor)
        elif kind == cnp.NPY_DOUBLE:
            scale_values[double](<double *>data_of(array), array.size, factor)
        else:
            np.multiply(array, factor, array)


def clamp_all(list arrays, double limit):
    """What is above `limit` becomes it, what is below -limit becomes that."""
    cdef int kind
    for array in arrays:
        kind = plain_type(array)
        if kind == cnp.NPY_FLOAT:
            clamp_values[float](<float *>data_of(array), array.size, limit)
        elif kind == cnp.NPY_DOUBLE:
            clamp_values[double](<double *>data_of(array), array.size, limit)
        else:
            np.minimum(array, limit, out=array)
            np.maximum(array, -limit, out=array)
