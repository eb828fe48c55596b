"""Arrays of images, and how they become BC01."""

import numpy as np

from nnet import Standardize, to_bc01
from nnet.cli.errors import tell

LOOKED_AT = 1000  # images, for their scale


def as_bc01(X, layout=None):
    """X as BC01 floats; without a layout, it is inferred."""
    if X.ndim not in (3, 4):
        raise ValueError(
            f"X has shape {X.shape}, expected (n, height, width), (n, channels, height, width) "
            "or (n, height, width, channels)"
        )
    if layout is None and X.ndim == 3:
        layout = "NHW"  # the first axis counts images, even where it is as short as one of channels
    try:
        return to_bc01(X, layout, scale=X.dtype == np.uint8)  # as in training, whatever the values
    except (ValueError, TypeError) as error:
        raise ValueError(f"X: {error}") from error


def as_model_images(X, shape, layout):
    """X as a network for images of this shape takes it; without a layout, the one that fits."""
    if len(shape) == 3:
        if layout is None and X.ndim == 4:
            a, b, c = X.shape[1:]
            fitting = [
                name for name, axes in (("NCHW", (a, b, c)), ("NHWC", (c, a, b))) if axes == shape
            ]
            layout = fitting[0] if len(fitting) == 1 else None
        X = as_bc01(X, layout)
    if X.shape[1:] != shape:
        raise ValueError(f"X has images of shape {X.shape[1:]}, expected {shape} as in training")
    return X


def warn_of_scale(X, layer):
    """Say so if the images are hardly of the kind that the network was trained on."""
    if not (isinstance(layer, Standardize) and X.size):
        return
    axes, scale = None, layer.scale
    if layer.adapts():
        axes, scale = (0, *range(2, X.ndim)), layer.scale_  # of each channel
    if scale is None:
        return
    some = X[:: -(-len(X) // LOOKED_AT)]
    ratio = float(np.sqrt(np.mean((some.std(axis=axes, dtype=float) / scale) ** 2)))
    if not 0.1 < ratio < 10:
        tell(
            f"nnet: warning: the values of X vary {ratio:.2g} times as much as in training: "
            "are they in other units? Bytes (uint8, or whole numbers up to 255 in CSV) are divided "
            "by 255, other numbers are not"
        )
