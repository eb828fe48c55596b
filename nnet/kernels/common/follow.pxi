# How steps of a program follow the arrays of their layers. Needs common/arrays.pxi.
#
# Nobody says when an array is written to, and to compare all weights takes as long as to multiply
# a small image with them. So they are compared only if somebody may have written to them: layers
# note when they are asked for an array, and while others hold it, or a view of it, it has more
# references than those of the layer and of the step.

from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from libc.string cimport memcmp

from nnet._program cimport Step

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *object)


cdef class Followed:
    """The arrays of a layer, and of a normalisation after it.

    Parameters
    ----------
    layer : Conv, DepthwiseConv or Linear
    norm : BatchNorm or None
    shape : tuple
        Of the weights.
    features_shape : tuple
        Of a vector of features beside weights.
    """

    cdef object layer, norm, dtype
    cdef tuple shape, features_shape
    cdef list holders               # (attributes of a layer, name) of each array
    cdef list arrays                # as they were found last ...
    cdef list copies                # ... and what was in them
    cdef object settled             # `access` then

    def __init__(self, layer, norm, tuple shape, tuple features_shape):
        self.layer, self.norm, self.dtype = layer, norm, layer.W.dtype
        self.shape, self.features_shape = shape, features_shape
        self.arrays, self.copies, self.settled = [], [], None
        self.holders = [(layer.__dict__, name) for name in layer.param_names()]
        if norm is not None:
            self.holders += [(norm.__dict__, name)
                             for name in norm.param_names() + norm.state_names()]

    cdef tuple changed(self):
        """Weights and biases if they are others than at the last call, as the step needs them."""
        cdef object access = self.access()
        if access is not None and access == self.settled:
            return None
        cdef list arrays = [attributes[name] for attributes, name in self.holders]
        cdef bint is_same = len(self.copies) == len(arrays) and all([
            are_same(array, copy) for array, copy in zip(arrays, self.copies)])
        if not is_same:
            self.check(arrays)
            self.copies = [array.copy() for array in arrays]
        self.arrays = arrays
        arrays = None
        self.settled = self.access()
        return None if is_same else self.folded()

    cdef object access(self):
        """When one was last asked for; None if others hold one now, or its memory."""
        cdef PyObject *array
        cdef Py_ssize_t i, latest = 0
        cdef dict attributes
        for i in range(len(self.holders)):
            attributes, name = <tuple>self.holders[i]
            array = PyDict_GetItem(attributes, name)
            if (i >= len(self.arrays) or array != <PyObject *>self.arrays[i]
                    or Py_REFCNT(array) != 2
                    or not cnp.PyArray_CHKFLAGS(<cnp.ndarray>array, cnp.NPY_ARRAY_OWNDATA)):
                return None
            latest = max(latest, <Py_ssize_t>attributes.get("_access", 0))
        return latest

    cdef void check(self, list arrays) except *:
        for (_, name), array in zip(self.holders, arrays):
            check_followed(array, name, self.shape if name == "W" else self.shape[1:2], self.dtype)

    cdef tuple folded(self):
        """With the normalisation after them as part, which is scaled in double precision.

        (W * x + b - mean) * gamma / sqrt(var + eps) + beta
        """
        W, b, *others = self.copies if self.layer.use_bias else [
            self.copies[0], None, *self.copies[1:]]
        if self.norm is None:
            return W, b
        gamma, beta, mean, var = [array.astype(float) for array in others]
        scale = gamma / np.sqrt(var + self.norm.eps)
        bias = ((0.0 if b is None else b) - mean) * scale + beta
        W = (W * scale.reshape(self.features_shape)).astype(self.dtype, order="C")
        return W, bias.astype(self.dtype)


cdef void check_followed(object array, str name, tuple shape, object dtype) except *:
    check_ndarray(array, name, "a NumPy array")
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name} has shape {array.shape} and dtype {array.dtype}, "
                         f"expected {shape} and {dtype}")


cdef bint are_same(object array, cnp.ndarray before) except -1:
    if not isinstance(array, np.ndarray):
        return False
    cdef cnp.ndarray a = array
    return (
        cnp.PyArray_IS_C_CONTIGUOUS(a) and cnp.PyArray_NBYTES(a) == cnp.PyArray_NBYTES(before)
        and memcmp(cnp.PyArray_DATA(a), cnp.PyArray_DATA(before), cnp.PyArray_NBYTES(a)) == 0
    )
