# Checks of array arguments, before any work, and what delivers outputs. Needs NumPy.

cimport numpy as cnp
import numpy as np

from nnet._runtime cimport end_call

cnp.import_array()

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX


cdef str describe(object array):
    """What came instead of an array."""
    return f"a {type(array).__name__}" if array is not None else "None"


cdef void check_ndarray(object array, str name, str expected) except *:
    """A NumPy array, and no mask that the kernels would ignore."""
    if cnp.PyArray_CheckExact(array):
        return
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} is {describe(array)}, expected {expected}")
    if hasattr(array, "mask"):
        raise TypeError(f"{name} is {describe(array)}, expected an array without a mask")


cdef cnp.ndarray check_array(object array, str name, str axes, cnp.ndarray like, str like_name):
    """An array of 4 or so named axes, float32 or float64 in native byte order.

    `like`, if given, is an array whose dtype it must share.
    """
    cdef cnp.ndarray checked = check_reals(array, name, like, like_name)
    check_axes(checked, name, axes)
    return checked


cdef cnp.ndarray check_reals(object array, str name, cnp.ndarray like, str like_name):
    """The same for an array of any shape."""
    check_ndarray(array, name, "a NumPy array")
    cdef cnp.ndarray checked = array
    cdef int kind = cnp.PyArray_TYPE(checked)
    if (kind != cnp.NPY_FLOAT and kind != cnp.NPY_DOUBLE) or not cnp.PyArray_ISNOTSWAPPED(checked):
        raise TypeError(f"{name} has dtype {checked.dtype}, expected native float32 or float64")
    if like is not None and kind != cnp.PyArray_TYPE(like):
        raise TypeError(
            f"{name} has dtype {checked.dtype} but {like_name} has {like.dtype}, "
            "expected one dtype for all arrays of a call"
        )
    return checked


cdef void check_axes(cnp.ndarray array, str name, str axes) except *:
    """The number of axes, and at least one element along each but the images'."""
    cdef int n_axes = axes.count(",") + 1
    cdef int axis
    if cnp.PyArray_NDIM(array) != n_axes:
        raise ValueError(f"{name} has shape {shape_of(array)}, expected {n_axes} axes ({axes})")
    for axis in range(n_axes):
        if cnp.PyArray_DIM(array, axis) == 0 and not (axis == 0 and axes.startswith("n_imgs")):
            raise ValueError(
                f"{name} has shape {shape_of(array)}, expected no empty axis in ({axes})"
            )


cdef tuple shape_of(cnp.ndarray array):
    # Not the attribute: a subclass may make that anything.
    return cnp.PyArray_IntTupleFromIntp(cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array))


cdef void check_shape(cnp.ndarray array, str name, tuple shape) except *:
    if shape_of(array) != shape:
        raise ValueError(f"{name} has shape {shape_of(array)}, expected {shape}")


cdef cnp.ndarray contiguous(cnp.ndarray array):
    """The array itself if the kernels can read it as it lies in memory, else a copy."""
    if cnp.PyArray_IS_C_CONTIGUOUS(array) and cnp.PyArray_ISALIGNED(array):
        return array
    return np.array(array, order="C", copy=True, subok=False)


cdef cnp.ndarray check_output(object array, str name, tuple shape, object dtype):
    """The output array itself, or a new one for None."""
    if array is None:
        # Python integers: the product of absurd sizes must not wrap around.
        size = dtype.itemsize
        for length in shape:
            size *= length
        if size > PY_SSIZE_T_MAX:
            raise ValueError(f"{name} would have shape {shape}, which is too large for any memory")
        return np.empty(shape, dtype)
    check_ndarray(array, name, "a NumPy array or None")
    cdef cnp.ndarray out = array
    if out.dtype is not dtype and out.dtype != dtype:
        raise TypeError(f"{name} has dtype {out.dtype}, expected {dtype}")
    check_shape(out, name, shape)
    if not cnp.PyArray_ISWRITEABLE(out):
        raise ValueError(f"{name} is read-only, expected a writable array")
    if not cnp.PyArray_IS_C_CONTIGUOUS(out) and overlaps_itself(out):
        raise ValueError(f"{name} has elements that share memory, expected an array without")
    return out


cdef bint overlaps_itself(cnp.ndarray array) except -1:
    """Whether two elements may share memory; never true of what slicing or transposing makes."""
    extent = array.itemsize
    strides = [cnp.PyArray_STRIDE(array, axis) for axis in range(cnp.PyArray_NDIM(array))]
    axes = [(abs(s), n) for s, n in zip(strides, shape_of(array)) if n > 1]
    for stride, length in sorted(axes):
        if stride < extent:
            return True
        extent += stride * (length - 1)
    return False


cdef cnp.ndarray work_array(cnp.ndarray out):
    """What the kernel writes: the output array itself if it is contiguous, else a stand-in."""
    if out is None or cnp.PyArray_IS_C_CONTIGUOUS(out) and cnp.PyArray_ISALIGNED(out):
        return out
    return np.empty(shape_of(out), out.dtype)


cdef void deliver(cnp.ndarray out, cnp.ndarray work) except *:
    """The end of a call, for each of its outputs; of one that was interrupted, an exception."""
    end_call()
    if out is not work:
        (<object>out)[...] = work


cdef void memory_of(cnp.ndarray array, char **first, char **end) noexcept:
    """From where to where an array's elements lie."""
    cdef Py_ssize_t reach
    cdef int axis
    first[0] = cnp.PyArray_BYTES(array)
    end[0] = first[0] + cnp.PyArray_ITEMSIZE(array)
    for axis in range(cnp.PyArray_NDIM(array)):
        reach = cnp.PyArray_STRIDE(array, axis) * (cnp.PyArray_DIM(array, axis) - 1)
        if reach < 0:
            first[0] += reach
        else:
            end[0] += reach


cdef bint may_overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    cdef char *a_first
    cdef char *a_end
    cdef char *b_first
    cdef char *b_end
    if cnp.PyArray_SIZE(a) == 0 or cnp.PyArray_SIZE(b) == 0:
        return False
    memory_of(a, &a_first, &a_end)
    memory_of(b, &b_first, &b_end)
    return a_first < b_end and b_first < a_end


cdef void refuse_overlap(cnp.ndarray out, str name, cnp.ndarray other, str other_name) except *:
    """Outputs share no memory with an input or with each other."""
    if other is None or not may_overlap(out, other):
        return
    try:
        overlap = np.shares_memory(out, other, max_work=100_000)
    except np.exceptions.TooHardError:
        overlap = True
    if overlap:
        raise ValueError(f"{name} overlaps {other_name}, expected arrays that share no memory")
