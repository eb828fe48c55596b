# How steps of a program follow the arrays of their layers. Needs common/arrays.pxi.

from libc.string cimport memcmp

from nnet._program cimport Step


cdef bint has_changed(object layer, object norm, list seen) except -1:
    """Whether the arrays of a layer, and of one after it, are others than those `seen`.

    If so, copies of them take their place. Comparing reads them once: nothing else would find
    out what is written to an array.
    """
    cdef list arrays = [layer.W, layer.b if layer.use_bias else None]
    if norm is not None:
        arrays += [norm.gamma, norm.beta, norm.running_mean, norm.running_var,
                   np.float64(norm.eps)]
    if len(seen) == len(arrays) and all([are_same(a, b) for a, b in zip(arrays, seen)]):
        return False
    seen[:] = [None if array is None else np.array(array, order="C") for array in arrays]
    return True


cdef bint are_same(object array, object before) except -1:
    cdef cnp.ndarray a, b
    if not (isinstance(array, np.ndarray) and isinstance(before, np.ndarray)):
        return array is before or (array is not None and before is not None and array == before)
    a, b = array, before
    return (
        cnp.PyArray_IS_C_CONTIGUOUS(a) and cnp.PyArray_NBYTES(a) == cnp.PyArray_NBYTES(b)
        and memcmp(cnp.PyArray_DATA(a), cnp.PyArray_DATA(b), cnp.PyArray_NBYTES(a)) == 0
    )


cdef void check_followed(list seen, tuple shape, object dtype, Py_ssize_t n_features) except *:
    """Of arrays that are new: weights of a shape, and a value of each feature."""
    names = ("W", "b", "gamma", "beta", "running_mean", "running_var")
    for name, array in zip(names, seen):
        expected = shape if name == "W" else (n_features,)
        if array is not None and (array.shape != expected or array.dtype != dtype):
            raise ValueError(f"{name} has shape {array.shape} and dtype {array.dtype}, expected "
                             f"{expected} and {dtype}")


cdef tuple folded(list seen, tuple shape):
    """Weights and biases, with the normalisation after them as part: scaled in double precision.

    (W * x + b - mean) * gamma / sqrt(var + eps) + beta; `shape` is that of a vector of features
    beside weights.
    """
    W, b = seen[:2]
    if len(seen) == 2:
        return W, b
    gamma, beta, mean, var, eps = [array.astype(float) for array in seen[2:]]
    scale = gamma / np.sqrt(var + eps)
    bias = ((0.0 if b is None else b) - mean) * scale + beta
    return (W * scale.reshape(shape)).astype(W.dtype, order="C"), bias.astype(W.dtype)
