"""Arrays of other layouts than the usual, for the tests of the kernels."""

import numpy as np


def misaligned(array):
    copy = np.ndarray(array.shape, array.dtype, bytearray(array.nbytes + 1), offset=1)
    copy[...] = array
    return copy


def read_only(array):
    view = array.view()
    view.flags.writeable = False
    return view
