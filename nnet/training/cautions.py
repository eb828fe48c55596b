"""Cautions: what a training warns of, as it can hardly be meant."""

import math
import sys
import warnings

import numpy as np

from nnet.layers.base import ParamMixin
from nnet.layers.classification import BinaryCrossEntropy
from nnet.layers.norm import BatchNorm, GroupNorm
from nnet.layers.program import lay_open
from nnet.layers.standardize import Standardize
from nnet.layers.tree import is_own, numbered
from nnet.training.batches import ArrayData
from nnet.training.remedies import sum_to_one

LARGE = 50  # values beyond are neither standardised nor fractions
BYTES = 128, 255  # what the largest pixel is between, where pixels are bytes
OTHER_SCALE = 20  # times as large: the images to validate are in other units
LEAST_IMAGES = 10  # whose labels sum to 1: fewer may do so by chance
LOOKED_AT = 1000  # images, for their labels
AFRESH = (
    "fit starts afresh: parameters that were loaded are gone, expected warm_start=True to go on "
    "from them, or freeze(...) to keep some"
)


def warn(message):
    """Warn of the line that calls nnet, however deep inside of it the warning is."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "nnet":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def warn_of_values(layers, data, validation):
    """Warn of images like those of bytes that no layer standardises, and of other units."""
    largest = largest_of(data)
    if largest > LARGE and not are_standardised(layers):
        scaled = "X / 255 as X" if BYTES[0] <= largest <= BYTES[1] else "scale X"
        warn(
            f"X has values up to {largest:.6g}, expected values around 0 to 1: put Standardize() "
            f"as the first layer, or {scaled}"
        )
    if validation is not None and OTHER_SCALE * largest < largest_of(validation) <= BYTES[1]:
        warn(
            f"validation_data has values up to {largest_of(validation):.6g} and X up to "
            f"{largest:.6g}, expected the same units for both"
        )


def largest_of(data):
    """The largest absolute value of some images; 0 if they are not finite."""
    largest = float(np.abs(data.some_images()).max(initial=0))
    return largest if math.isfinite(largest) else 0.0


def are_standardised(layers):
    """Whether the scale of the images matters to no layer: the first, or what follows it."""
    after_weights = False
    for _, layer in lay_open(numbered(layers), ""):
        if not is_own(layer) or isinstance(layer, (Standardize, BatchNorm, GroupNorm)):
            return True
        if after_weights or layer.children:
            return False
        after_weights = isinstance(layer, ParamMixin)
    return False


def warn_of_labels(model, data):
    """Warn of several labels for each image that look like probabilities of one of them.

    Not of pixels: the foreground and the background often are two masks.
    """
    if type(model.loss) is not BinaryCrossEntropy or not isinstance(data, ArrayData):
        return
    labels = data.target[data.spread(LOOKED_AT)]
    if labels.ndim == 2 and len(labels) >= LEAST_IMAGES and sum_to_one(labels, 1):
        warn(
            "the labels of each image sum to 1, as probabilities of classes do: for one class of "
            "many, the last layer is LogRegression(), and y.argmax(axis=1) has the labels"
        )
