"""Images of any common layout to BC01."""

import numpy as np

from nnet.layers.arguments import as_bool
from nnet.training.cautions import warn
from nnet.training.data import as_array, pandas_kind

LAYOUTS = ("NCHW", "NHWC", "NHW", "CHW", "HWC", "HW")
ROWS = 16  # images that are looked at at once: those of fractions are known after the first ones
WHITE, BRIGHT = 255, 128  # of bytes: the largest, and what only few images are darker than
LEVELS = 16  # of grey: as many, such as those of scikit-learn's digits, are no bytes
CHANNELS = (1, 2, 3, 4)  # grey, grey with alpha, RGB, RGBA: what an axis of channels may count


def to_bc01(images, layout=None, *, scale=None):
    """Images as an array (n_imgs, n_channels, img_h, img_w) of floats, bytes as fractions.

    Parameters
    ----------
    images : array, or list of arrays of one shape
        float32 and float64 keep their dtype; bools, integers and half floats become float32.
    layout : None or {'NCHW', 'NHWC', 'NHW', 'CHW', 'HWC', 'HW'}
        The meaning of the axes: images, channels, height, width. None infers
        it. 2 axes are HW. 3 axes are HWC if the last counts 1 to 4, and NHW if
        not or for a list of arrays; but three at the front could be one CHW
        image's colours, and are refused. 4 axes are NCHW or NHWC, whichever
        has a channel axis that counts 1 to 4.
    scale : None or bool
        Whether to divide by 255. None: uint8 always; floats, and integers of 32 or 64 bits, where
        all are whole numbers from 0 to 255 and the largest is at least 128, so that they can only
        be bytes in another dtype. That is up to the values: of a set that is scaled, a dark image
        alone would not be, which is warned of. True or False is the same for all images.

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

    Warns
    -----
    UserWarning
        For whole numbers up to 17 to 127, which are left as they are, if scale is None.
    """
    if scale is not None:
        scale = as_bool(scale, "scale")
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
    return np.ascontiguousarray(_as_floats(images, scale))


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


def _as_floats(images, scale):
    kind, itemsize = images.dtype.kind, images.dtype.itemsize
    if kind not in "biuf" or itemsize > 8:
        raise TypeError(f"images have dtype {images.dtype}, expected integers or floats")
    dtype = np.float64 if kind == "f" and itemsize == 8 else np.float32
    if scale is None:
        scale = images.dtype == np.uint8
        if kind == "f" or kind in "iu" and itemsize >= 4:
            scale = are_bytes(images)
    if scale:
        return np.divide(images, 255, dtype=dtype)
    return images.astype(dtype, copy=False)


def are_bytes(images):
    """Whether the values of a wider dtype are plainly those of bytes."""
    largest = 0
    for rows in range(0, len(images), ROWS):
        part = images[rows : rows + ROWS]
        if part.size == 0:
            continue
        largest = max(largest, part.max())
        if not (part.min() >= 0 and largest <= WHITE and (part == np.floor(part)).all()):
            return False
    if LEVELS < largest < BRIGHT:
        warn(
            f"images are whole numbers up to {largest:g}, as bytes of dark images may be, and are "
            "left as they are: scale=True divides by 255, scale=False does not"
        )
    return largest >= BRIGHT
