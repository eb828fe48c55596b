# The steps of the optimizers, and the clipping of gradients: each reads and writes every array
# once. Arrays that are not plain ones (the user's own, in any layout) take a path through NumPy.
# Needs dense/steps.h.

from libc.math cimport pow, sqrt

cdef extern from "dense/steps.h":
    enum Rule:
        SGD, ADAM, RMSPROP, NORM, SCALE, CLAMP
    ctypedef struct Step:
        double rate, momentum, nesterov, beta1, beta2, eps, shrink, root_scale
        double factor, limit, total
    void step_arrays(Rule rule, bint is_float, void **arrays, Py_ssize_t n, Step *s) noexcept


cdef int plain_type(object array) noexcept:
    """The type number of a C-contiguous array; -1 for anything else."""
    if isinstance(array, np.ndarray) and cnp.PyArray_IS_C_CONTIGUOUS(array) and (
            cnp.PyArray_ISBEHAVED(array)):
        return cnp.PyArray_TYPE(array)
    return -1


cdef bint step_plain(Rule rule, tuple arrays, Step *s):
    """Whether they are plain arrays of one type, float32 or float64; then the step is done."""
    cdef void *pointers[5]
    cdef int kind = plain_type(arrays[0])
    cdef Py_ssize_t i
    if kind != cnp.NPY_FLOAT and kind != cnp.NPY_DOUBLE:
        return False
    for i in range(len(arrays)):
        pointers[i] = NULL
        if arrays[i] is not None:
            if plain_type(arrays[i]) != kind:
                return False
            pointers[i] = cnp.PyArray_DATA(<cnp.ndarray>arrays[i])
    step_arrays(rule, kind == cnp.NPY_FLOAT, pointers, cnp.PyArray_SIZE(<cnp.ndarray>arrays[0]), s)
    return True


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


cdef approach(average, values, double beta):
    """average = beta * average + (1 - beta) * values"""
    np.multiply(average, beta, average)
    np.add(average, np.multiply(values, 1 - beta), average, casting="same_kind")


def sgd_step(list params, list incs, list velocities, double learning_rate, double momentum,
             bint nesterov):
    """One step of `SGD` for all parameters; there are velocities if there is momentum."""
    cdef Step s
    cdef Py_ssize_t i
    s.rate, s.momentum, s.nesterov = learning_rate, momentum, nesterov
    for i in range(len(params)):
        param, inc, velocity = params[i], incs[i], velocities[i] if momentum else None
        if step_plain(SGD, (param, inc, velocity), &s):
            continue
        if velocity is not None:
            np.multiply(velocity, momentum, velocity)
            np.add(velocity, inc, velocity)
            inc = np.add(np.multiply(velocity, momentum), inc) if nesterov else velocity
        np.subtract(param, np.multiply(inc, learning_rate), param, casting="same_kind")
    note_step()


def adam_step(list params, list incs, list means, list squares, cnp.ndarray n_steps,
              double learning_rate, double beta1, double beta2, double eps, list shrinks):
    """One step of `Adam` for all parameters, each of which is first multiplied by its `shrink`.

    `n_steps` (int64, no axes) counts the steps.
    """
    cdef cnp.int64_t *n = <cnp.int64_t *>cnp.PyArray_DATA(n_steps)
    cdef Step s
    cdef Py_ssize_t i
    s.beta1, s.beta2, s.eps = beta1, beta2, eps
    s.rate = learning_rate / (1 - pow(beta1, <double>(n[0] + 1)))
    s.root_scale = 1 / sqrt(1 - pow(beta2, <double>(n[0] + 1)))
    for i in range(len(params)):
        param, inc, mean, square, s.shrink = params[i], incs[i], means[i], squares[i], shrinks[i]
        if step_plain(ADAM, (param, inc, mean, square), &s):
            continue
        approach(mean, inc, beta1)
        approach(square, np.multiply(inc, inc), beta2)
        root_of = np.add(np.multiply(np.sqrt(square), s.root_scale), eps)
        np.multiply(param, s.shrink, param)
        np.subtract(param, np.divide(np.multiply(mean, s.rate), root_of), param,
                    casting="same_kind")
    n[0] += 1
    note_step()


def rmsprop_step(list params, list incs, list squares, list means, list velocities,
                 double learning_rate, double alpha, double eps, double momentum):
    """One step of `RMSprop`; there are means if it is centered, velocities with momentum."""
    cdef Step s
    cdef Py_ssize_t i
    s.rate, s.beta1, s.eps, s.momentum = learning_rate, alpha, eps, momentum
    for i in range(len(params)):
        param, inc, square = params[i], incs[i], squares[i]
        mean, velocity = means[i] if means else None, velocities[i] if velocities else None
        if step_plain(RMSPROP, (param, inc, square, mean, velocity), &s):
            continue
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


def norm_of(list arrays):
    """The Euclidean norm of all values together."""
    cdef Step s
    s.total = 0
    for array in arrays:
        if not step_plain(NORM, (array,), &s):
            s.total += np.add.reduce(np.multiply(array, array, dtype=float), axis=None)
    return sqrt(s.total)


def scale_all(list arrays, double factor):
    """array *= factor for all of them."""
    cdef Step s
    s.factor = factor
    for array in arrays:
        if not step_plain(SCALE, (array,), &s):
            np.multiply(array, factor, array)


def clamp_all(list arrays, double limit):
    """What is above `limit` becomes it, what is below -limit becomes that."""
    cdef Step s
    s.limit = limit
    for array in arrays:
        if not step_plain(CLAMP, (array,), &s):
            np.minimum(array, limit, out=array)
            np.maximum(array, -limit, out=array)
