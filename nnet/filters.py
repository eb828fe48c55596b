"""Filters of images in NumPy arrays: the kernels, by the words of scipy.ndimage."""

import math
import reprlib
from numbers import Real
from typing import Any

import numpy as np

from nnet._conv import conv_bc01
from nnet._pool import pool_bc01
from nnet.files.images import CHANNELS
from nnet.geometry import as_pair
from nnet.layers.arguments import as_word
from nnet.layers.hints import with_hints
from nnet.training.data import as_array

# What scipy.ndimage calls a border, by what the kernels and np.pad call it.
MODES: dict[str, tuple[str, Any]] = {
    "reflect": ("symmetric", "symmetric"),
    "mirror": ("reflect", "reflect"),
    "nearest": ("nearest", "edge"),
    "wrap": ("wrap", "wrap"),
    "constant": ("zeros", "constant"),
}
GRID_MODES = {"grid-mirror": "reflect", "grid-wrap": "wrap", "grid-constant": "constant"}
WORDS = (*MODES, *GRID_MODES)
REALS = np.dtype(np.float32), np.dtype(np.float64)

HINTS = {
    "input": "image",
    "output": "none: a new array is returned",
    **dict.fromkeys(("border_mode", "padding_mode", "padding", "borderType"), "mode"),
    **dict.fromkeys(("n_threads", "workers"), "none: it is `with nnet.num_threads(n)` around it"),
}
OF_KERNELS = {
    "weights": "kernel",
    "origin": "none: rows or columns of zeros in the kernel move its centre",
}
OF_WINDOWS = {
    **dict.fromkeys(("footprint", "structure"), "size: all pixels of a rectangle count"),
    **dict.fromkeys(("kernel_size", "pool_size", "ksize"), "size"),
    "origin": "none: windows are centred on their pixels",
}


@with_hints(**HINTS, **OF_KERNELS)
def correlate(image, kernel, *, mode="reflect", cval=0.0, axes=None):
    """Weighted sums of the neighbours of each pixel, as `scipy.ndimage.correlate` has them.

    Parameters
    ----------
    image : array (h, w), (h, w, channels) or with any other axes: see `axes`
        float32 and float64 are computed in their own precision. Bools, half floats and integers
        of up to 16 bits become float32, longer integers float64.
    kernel : array (kernel_h, kernel_w)
        The weights, not flipped. Pixel (kernel_h // 2, kernel_w // 2) of it lies on the pixel that
        is computed. It may be wider than the image.
    mode : {'reflect', 'mirror', 'nearest', 'wrap', 'constant'}
        What is beyond the image, for pixels a b c d: its mirror image d c b a | a b c d | d c b a
        or without the edge d c b | a b c d | c b a, the edge, the other side, or `cval`.
    cval : float
        For mode 'constant' alone.
    axes : (int, int), optional
        The axes of height and width; all the other axes are of images or channels, which do not
        see each other. None means (0, 1) for an image (h, w), and for (h, w, channels) of 1 to 4
        channels. Everything else has to say: (0, 1) for images of more channels, (1, 2) for a
        batch (n, h, w) or (n, h, w, channels), (2, 3) for (n, channels, h, w).

    Returns
    -------
    array of the image's shape, float32 or float64

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit.

    Notes
    -----
    A pixel that is infinite or NaN reaches those results whose kernel lies on it, and no other:
    also where the weight is 0, which SciPy leaves out as it does weights of up to 2e-16.
    """
    image, axes = as_image(image, axes)
    kernel = as_kernel(kernel, image.dtype)
    mode, cval = as_border(mode, cval)
    return filtered(image, axes, lambda rows: correlated(rows, kernel, mode, cval))


@with_hints(**HINTS, **OF_WINDOWS)
def maximum_filter(image, size, *, mode="reflect", cval=0.0, axes=None):
    """The maximum of the neighbours of each pixel, as `scipy.ndimage.maximum_filter` has it.

    Parameters
    ----------
    image : array (h, w), (h, w, channels) or with any other axes
        As for `correlate`, and so are `mode`, `cval` and `axes`.
    size : int or (int, int)
        Of the windows: (y, x). They may be wider than the image. Pixel (y // 2, x // 2) of a
        window lies on the pixel that is computed.

    Returns
    -------
    array of the image's shape, float32 or float64

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit.

    Notes
    -----
    NaN is larger than any number, in those windows that have one, and in no other.
    """
    image, axes = as_image(image, axes)
    size = as_pair(size, "size")
    mode, cval = as_border(mode, cval)
    return filtered(image, axes, lambda rows: maxima(rows, size, mode, cval))


@with_hints(**HINTS, **OF_WINDOWS)
def minimum_filter(image, size, *, mode="reflect", cval=0.0, axes=None):
    """The minimum of the neighbours of each pixel, as `scipy.ndimage.minimum_filter` has it.

    Parameters, results and errors are those of `maximum_filter`. NaN is smaller than any number.
    """
    image, axes = as_image(image, axes)
    size = as_pair(size, "size")
    mode, cval = as_border(mode, cval)
    out = filtered(np.negative(image), axes, lambda rows: maxima(rows, size, mode, -cval))
    return np.negative(out, out=out)


# --- images (n, h, w, n_channels) ---------------------------------------------------


def filtered(image, axes, function):
    """What a function makes of an image whose height and width are these axes.

    The function gets, and returns, an array (n, h, w, n_channels).
    """
    y, x = axes
    if x != y + 1:
        moved = np.moveaxis(image, axes, (-2, -1))
        out = filtered(moved, (image.ndim - 2, image.ndim - 1), function)
        return np.ascontiguousarray(np.moveaxis(out, (-2, -1), axes))
    shape = image.shape
    if image.size == 0:
        return np.empty_like(image)
    rows = image.reshape(math.prod(shape[:y]), shape[y], shape[x], math.prod(shape[x + 1 :]))
    return function(rows).reshape(shape)


def correlated(rows, kernel, mode, cval):
    n, h, w, n_channels = rows.shape
    pads = centred(kernel.shape)
    border: Any = MODES[mode][0]
    if not kernels_pad((h, w), n_channels, pads, mode, cval):
        rows, pads = padded(rows, pads, mode, cval), ((0, 0), (0, 0))
        border = "zeros"
    # Channels stay where they are: a neighbour in the same row is n_channels values away.
    above, (left, right) = pads
    out = conv_bc01(
        rows.reshape(n, 1, rows.shape[1], rows.shape[2] * n_channels),
        kernel[np.newaxis, np.newaxis],
        padding_mode=(above, (left * n_channels, right * n_channels)),
        border_mode=border,
        dilation=(1, n_channels),
        algorithm="direct",
    )
    return out.reshape(n, h, w, n_channels)


def maxima(rows, size, mode, cval):
    n, h, w, n_channels = rows.shape
    pads: Any = centred(size)
    odd = all(before == after for before, after in pads)
    # Some borders show a window nothing that it does not have in the image.
    if not (mode in ("reflect", "nearest") or mode == "mirror" and odd):
        rows, pads = padded(rows, pads, mode, cval), 0
    imgs = rows.transpose(0, 3, 1, 2)
    pool_h, pool_w = size
    planes, _ = pool_bc01(
        imgs, None, None, pool_h, pool_w, 1, 1, padding_mode=pads, need_switches=False
    )
    if n_channels == 1:
        return planes.reshape(n, h, w, 1)
    out = np.empty((n, h, w, n_channels), rows.dtype)
    for channel in range(n_channels):  # all at once, NumPy takes five times as long
        out[..., channel] = planes[:, channel]
    return out


def centred(size):
    """Pixels before and after each pixel along both axes."""
    return tuple((n // 2, (n - 1) // 2) for n in size)


def kernels_pad(img_size, n_channels, pads, mode, cval):
    """Whether `conv_bc01` has this border."""
    if mode == "constant":
        return cval == 0
    if n_channels > 1:  # it would take the last channel of a row for its edge
        return False
    room = math.inf if mode == "nearest" else -1 if mode == "mirror" else 0
    return all(before <= n + room for n, (before, _) in zip(img_size, pads))


def padded(rows, pads, mode, cval):
    pads = (0, 0), *pads, (0, 0)
    if mode == "constant":
        return np.pad(rows, pads, constant_values=rows.dtype.type(cval))
    return np.pad(rows, pads, MODES[mode][1])


# --- arguments -----------------------------------------------------------------------


def as_image(image, axes):
    """An array of float32 or float64, and its axes of height and width."""
    image = as_real(image, "image")
    shape, n_axes = image.shape, image.ndim
    if n_axes < 2:
        raise ValueError(f"image has shape {shape}, expected at least 2 axes")
    if axes is None:
        colours = n_axes == 3 and shape[2] in CHANNELS and shape[0] not in CHANNELS
        if n_axes > 2 and not colours:
            raise ValueError(
                f"image has shape {shape}, expected (h, w) or (h, w, channels) of 1 to 4 channels, "
                "or the axes of height and width: axes=(0, 1) if channels are last, axes=(1, 2) "
                "for (n, h, w), axes=(2, 3) for (n, channels, h, w)"
            )
        y, x = 0, 1
    else:
        y, x = as_pair(axes, "axes", -n_axes)
        if max(y, x) >= n_axes or y % n_axes == x % n_axes:
            raise ValueError(f"axes is {axes!r}, expected two of the {n_axes} axes of image")
        y, x = y % n_axes, x % n_axes
    if 0 in (shape[y], shape[x]):
        raise ValueError(f"image has shape {shape}, expected a height and a width of at least 1")
    if image.dtype not in REALS:
        image = image.astype(np.result_type(image.dtype, np.float32))
    return image, (y, x)


def as_kernel(kernel, dtype):
    kernel = as_real(kernel, "kernel")
    if kernel.ndim != 2 or kernel.size == 0:
        raise ValueError(f"kernel has shape {kernel.shape}, expected (kernel_h, kernel_w)")
    return kernel.astype(dtype, copy=False)


def as_real(values, name):
    array = values if type(values) is np.ndarray else as_array(values, name)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(f"{name} has dtype {array.dtype}, expected integers or floats")
    return array


def as_border(mode, cval):
    """One of `MODES`, and a float."""
    mode = as_word(mode, "mode", WORDS)
    if type(cval) is not float:
        if not isinstance(cval, Real):
            raise TypeError(f"cval is {cval!r}, expected a number")
        try:
            cval = float(cval)
        except OverflowError:
            raise ValueError(
                f"cval is {reprlib.repr(cval)}, expected a number that a float can hold"
            ) from None
    return GRID_MODES.get(mode, mode), cval
