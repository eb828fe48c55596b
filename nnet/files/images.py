"""Images of any common layout to BC01."""

import numpy as np

from nnet.training.data import as_array, pandas_kind

LAYOUTS = ("NCHW", "NHWC", "NHW", "CHW", "HWC", "HW")
CHANNELS = (1, 2, 3, 4)  # grey, grey with alpha, RGB, RGBA: what an axis of channels may count


def to_bc01(images, layout=None):
    """Images as an array (n_imgs, n_channels, img_h, img_w) of floats.

    Parameters
    ----------
    images : array, or list of arrays of one shape
        uint8 is divided by 255 and becomes float32, float32 and float64 stay as
        they are, bools, other integers and half floats become float32 unscaled.
    layout : None or {'NCHW', 'NHWC', 'NHW', 'CHW', 'HWC', 'HW'}
        The meaning of the axes: images, channels, height, width. None infers
        it. 2 axes are HW. 3 axes are HWC if the last counts 1 to 4, and NHW if
        not or for a list of arrays; but three at the front could be one CHW
        image's colours, and are refused. 4 axes are NCHW or NHWC, whichever
        has a channel axis that counts 1 to 4.

    Returns
    -------
    array (n_imgs, n_channels, img_h, img_w)
        C-contiguous; shares memory with `images` if there is nothing to change.

    Raises
    ------
    ValueError
        If the shape does not fit the layout, or could mean two of them.
    TypeError
        For an array of anything but real numbers, for masked arrays and for
        tables of pandas.
    """
    nested = isinstance(images, (list, tuple)) and images
    array_list = nested and not isinstance(images[0], (list, tuple))
    for table in filter(pandas_kind, [images, *images] if nested else [images]):
        kind = type(table).__name__
        raise TypeError(f"images is or has a {kind}, expected an array or a list of arrays")
    try:
        images = as_array(images, "images")
    except ValueError:  # a ragged list
        raise ValueError("images differ in shape, expected images of one shape") from None
    if images.ndim not in (2, 3, 4):
        raise ValueError(f"images have shape {images.shape}, expected 2, 3 or 4 axes")
    if layout is None:
        layout = "NHW" if images.ndim == 3 and array_list else infer_layout(images.shape)
    elif layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}, expected one of {LAYOUTS}")
    if len(layout) != images.ndim:
        raise ValueError(f"images have shape {images.shape}, expected the axes {layout}")
    if any(size == 0 for axis, size in zip(layout, images.shape) if axis != "N"):
        raise ValueError(f"images have shape {images.shape}, expected no empty axis but the first")

    for axis in "CN":  # a new axis comes first, and NCHW order is restored below
        if axis not in layout:
            images, layout = images[None], axis + layout
    images = images.transpose([layout.index(axis) for axis in "NCHW"])
    return np.ascontiguousarray(_as_floats(images))


def infer_layout(shape, remedy=None):
    """One of LAYOUTS, for images of this shape; ValueError, with what to pass, if it is unclear."""
    if len(shape) == 2:
        return "HW"
    if len(shape) == 3 and shape[0] != 3:
        return "HWC" if shape[2] in CHANNELS else "NHW"
    if len(shape) == 4 and (shape[1] in CHANNELS) != (shape[3] in CHANNELS):
        return "NCHW" if shape[1] in CHANNELS else "NHWC"
    possible = [layout for layout in LAYOUTS if len(layout) == len(shape)]
    raise ValueError(
        f"images of shape {shape} could mean several layouts, pass {remedy or f'one of {possible}'}"
    )


def _as_floats(images):
    kind = images.dtype.kind
    if images.dtype == np.uint8:
        return np.divide(images, 255, dtype=np.float32)
    if kind not in "biuf" or images.dtype.itemsize > 8:
        raise TypeError(f"images have dtype {images.dtype}, expected integers or floats")
    double = kind == "f" and images.dtype.itemsize == 8
    return images.astype(np.float64 if double else np.float32, copy=False)
