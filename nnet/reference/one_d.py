"""First steps: convolution of signals and single-channel images, as plain loops.

`conv_1d` slides a short `param` along a signal and writes one sum per element.
The signal counts as zero beyond its ends, and the output is as long as the
input; of an even-length param the larger half looks ahead, as with
padding_mode='same'.

`input_..._grads` and `param_..._grads` are the gradients of a loss with respect
to input and param, given its gradient with respect to the output; without one
it is all ones: the loss is the sum of the output.

The `_batch` forms take a stack of inputs. One param serves them all, so its
gradients add up over the batch (here a sum; the kernels take the mean).

All functions take lists or arrays, and compute integers as integers. They raise
ValueError for shapes that do not fit, and TypeError for what is not numbers.
"""

import numpy as np

# --- one dimension ------------------------------------------------------------


def conv_1d(inp, param):
    """out[o] = sum over p of inp[o + p - before] * param[p].

    Parameters
    ----------
    inp : array_like, shape (size,)
    param : array_like, shape (param_size,)

    Returns
    -------
    ndarray, shape (size,)

    Examples
    --------
    >>> conv_1d([1, 2, 3, 4, 5], [1, 1, 1])
    array([ 3,  6,  9, 12,  9])
    """
    inp, param = _arrays(1, inp, param)
    before = (len(param) - 1) // 2
    out = np.zeros_like(inp)
    for o in range(len(inp)):
        for p in range(len(param)):
            i = o + p - before
            if 0 <= i < len(inp):
                out[o] += inp[i] * param[p]
    return out


def input_1d_grads(inp, param, output_grad=None):
    """Gradient with respect to the input of `conv_1d`, shape (size,)."""
    inp, param, output_grad = _arrays(1, inp, param, output_grad)
    before = (len(param) - 1) // 2
    input_grad = np.zeros_like(inp)
    for o in range(len(inp)):
        for p in range(len(param)):
            i = o + p - before
            if 0 <= i < len(inp):
                input_grad[i] += output_grad[o] * param[p]
    return input_grad


def param_1d_grads(inp, param, output_grad=None):
    """Gradient with respect to the param of `conv_1d`, shape (param_size,)."""
    inp, param, output_grad = _arrays(1, inp, param, output_grad)
    before = (len(param) - 1) // 2
    param_grad = np.zeros_like(param)
    for o in range(len(inp)):
        for p in range(len(param)):
            i = o + p - before
            if 0 <= i < len(inp):
                param_grad[p] += output_grad[o] * inp[i]
    return param_grad


def conv_1d_batch(inp, param):
    """`conv_1d` of each row: (n, size) to (n, size)."""
    inp, param = _arrays(2, inp, param)
    out = np.zeros_like(inp)
    for n in range(len(inp)):
        out[n] = conv_1d(inp[n], param)
    return out


def input_1d_grads_batch(inp, param, output_grad=None):
    """Gradient with respect to the input of `conv_1d_batch`, shape (n, size)."""
    inp, param, output_grad = _arrays(2, inp, param, output_grad)
    input_grad = np.zeros_like(inp)
    for n in range(len(inp)):
        input_grad[n] = input_1d_grads(inp[n], param, output_grad[n])
    return input_grad


def param_1d_grads_batch(inp, param, output_grad=None):
    """Gradient with respect to the param of `conv_1d_batch`, shape (param_size,): a sum."""
    inp, param, output_grad = _arrays(2, inp, param, output_grad)
    param_grad = np.zeros_like(param)
    for n in range(len(inp)):
        param_grad += param_1d_grads(inp[n], param, output_grad[n])
    return param_grad


# --- two dimensions -----------------------------------------------------------


def conv_2d(inp, param):
    """out[y, x] = sum over p, q of inp[y + p - above, x + q - left] * param[p, q].

    Parameters
    ----------
    inp : array_like, shape (height, width)
    param : array_like, shape (param_height, param_width)

    Returns
    -------
    ndarray, shape (height, width)
    """
    inp, param = _arrays(2, inp, param, param_axes=2)
    out = np.zeros_like(inp)
    for y, x, p, q, row, col in _taps_2d(inp.shape, param.shape):
        out[y, x] += inp[row, col] * param[p, q]
    return out


def input_2d_grads(inp, param, output_grad=None):
    """Gradient with respect to the input of `conv_2d`, shape (height, width)."""
    inp, param, output_grad = _arrays(2, inp, param, output_grad, param_axes=2)
    input_grad = np.zeros_like(inp)
    for y, x, p, q, row, col in _taps_2d(inp.shape, param.shape):
        input_grad[row, col] += output_grad[y, x] * param[p, q]
    return input_grad


def param_2d_grads(inp, param, output_grad=None):
    """Gradient with respect to the param of `conv_2d`, shape (param_height, param_width)."""
    inp, param, output_grad = _arrays(2, inp, param, output_grad, param_axes=2)
    param_grad = np.zeros_like(param)
    for y, x, p, q, row, col in _taps_2d(inp.shape, param.shape):
        param_grad[p, q] += output_grad[y, x] * inp[row, col]
    return param_grad


def _taps_2d(inp_shape, param_shape):
    """All (y, x, p, q, row, col): at output (y, x), param (p, q) lies on input (row, col).

    The bounds of each axis come from that axis: mixing up heights and widths
    goes unnoticed as long as everything is square.
    """
    height, width = inp_shape
    above, left = (param_shape[0] - 1) // 2, (param_shape[1] - 1) // 2
    for y in range(height):
        for x in range(width):
            for p in range(param_shape[0]):
                for q in range(param_shape[1]):
                    row, col = y + p - above, x + q - left
                    if 0 <= row < height and 0 <= col < width:
                        yield y, x, p, q, row, col


def conv_2d_batch(inp, param):
    """`conv_2d` of each image: (n, height, width) to (n, height, width)."""
    inp, param = _arrays(3, inp, param, param_axes=2)
    out = np.zeros_like(inp)
    for n in range(len(inp)):
        out[n] = conv_2d(inp[n], param)
    return out


def input_2d_grads_batch(inp, param, output_grad=None):
    """Gradient with respect to the input of `conv_2d_batch`, shape (n, height, width)."""
    inp, param, output_grad = _arrays(3, inp, param, output_grad, param_axes=2)
    input_grad = np.zeros_like(inp)
    for n in range(len(inp)):
        input_grad[n] = input_2d_grads(inp[n], param, output_grad[n])
    return input_grad


def param_2d_grads_batch(inp, param, output_grad=None):
    """Gradient with respect to the param of `conv_2d_batch`, summed over the images."""
    inp, param, output_grad = _arrays(3, inp, param, output_grad, param_axes=2)
    param_grad = np.zeros_like(param)
    for n in range(len(inp)):
        param_grad += param_2d_grads(inp[n], param, output_grad[n])
    return param_grad


# --- arguments ----------------------------------------------------------------


def _arrays(inp_axes, inp, param, *output_grad, param_axes=1):
    """The arguments as arrays of one dtype that sums fit in; ones for an output_grad of None."""
    inp, param = _array(inp, "inp", inp_axes), _array(param, "param", param_axes)
    if param.size == 0:
        raise ValueError(f"param has shape {param.shape}, expected no empty axis")
    arrays = [inp, param]
    for grad in output_grad:
        grad = np.ones_like(inp) if grad is None else _array(grad, "output_grad", inp_axes)
        if grad.shape != inp.shape:
            raise ValueError(f"output_grad has shape {grad.shape}, expected {inp.shape}")
        arrays.append(grad)
    dtype = np.result_type(*arrays)
    if dtype.kind in "bui":  # uint8 images would overflow
        dtype = np.dtype(np.int64)
    return [array.astype(dtype) for array in arrays]


def _array(values, name, n_axes):
    """An array of real numbers with a given number of axes."""
    array = np.asarray(values)
    if array.ndim != n_axes:
        raise ValueError(f"{name} has shape {array.shape}, expected {n_axes} axes")
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name} has dtype {array.dtype}, expected real numbers")
    return array
