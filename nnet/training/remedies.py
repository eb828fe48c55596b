"""Remedies: what to do about X and y of another shape or kind, as the end of an error."""

from math import prod

import numpy as np

SHARES = 1e-3  # what sums of probabilities may be off 1: they are rounded


def image_remedy(shape, image_shape):
    """What makes images of this shape of an array, or nothing.

    Parameters
    ----------
    shape : tuple
        Of the array.
    image_shape : tuple
        Of one image.
    """
    if shape == image_shape:
        return ": X[None] is a batch of one image"
    given = shape[1:]
    if len(image_shape) == 3:
        n_channels, *sides = image_shape
        if given == (*sides, n_channels):
            return ": np.moveaxis(X, -1, 1) puts channels first"
        if (1, *given) == image_shape:
            return ": X[:, None] gives images their channel axis"
    if given == (prod(image_shape),) or without_ones(given) == without_ones(image_shape):
        return f": X.reshape{(-1, *image_shape)}"
    if len(image_shape) == 2 and given == image_shape[::-1]:
        return ": X.transpose(0, 2, 1) puts channels first"
    return ""


def without_ones(shape):
    """The lengths of axes that a reshape cannot add or drop."""
    return [length for length in shape if length != 1]


def sum_to_one(labels, axis):
    """Whether an array of labels has probabilities of at least 2 classes along an axis."""
    if labels.ndim <= max(axis, 1) or labels.shape[axis] < 2 or labels.dtype.kind not in "biuf":
        return False
    is_share = labels.size and labels.min() >= 0
    return bool(is_share and np.allclose(labels.sum(axis=axis, dtype=float), 1, atol=SHARES))


def fraction_remedy(labels):
    """What is meant by labels that are fractions, as the end of an error."""
    for axis in (1, -1):
        if sum_to_one(labels, axis):
            return f", as y.argmax(axis={axis}) of probabilities"
    if labels.size and labels.min() >= 0 and labels.max() <= 1:
        return (
            " (for probabilities of one thing, or of several at once, the last layer is "
            "BinaryCrossEntropy(); for regression, MeanSquaredError())"
        )
    return " (for regression, the last layer is MeanSquaredError())"
