"""The images X that the commands read, and how they become BC01."""

import sys

import numpy as np

from nnet import Standardize, to_bc01
from nnet.cli.errors import CliError, refusals
from nnet.files import datasets
from nnet.training.data import as_images, as_labels, check_lengths


def load_training_data(args):
    """X as BC01 floats, and y."""
    if args.data is None:
        if args.layout is not None:
            raise CliError("--layout is for a data.npz, the digits need none")
        with refusals():
            X, y = datasets.load_digits()
            return as_images(as_bc01(X, "NHW"), np.float32), y
    with refusals():
        X, y = datasets.load_arrays(args.data, "X", "y")
    with refusals(f"{args.data}: "):
        X, y = as_images(as_bc01(X, args.layout), np.float32), as_labels(y)
        check_lengths(X, y)
        n_classes = len(np.unique(y))
        if n_classes < 2:
            raise ValueError(f"expected at least 2 different labels in y, got {n_classes}")
    return X, y


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
    if isinstance(layer, Standardize) and X.size:
        ratio = X.std(dtype=float) / layer.scale
        if not 0.1 < ratio < 10:
            print(
                f"nnet: warning: the values of X vary {ratio:.2g} times as much as in training: "
                "are they in other units?",
                file=sys.stderr,
            )
