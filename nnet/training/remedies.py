"""Remedies: which call makes an array of another shape, as the end of an error."""

from math import prod


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
        if given == (*sides, n_channels) or (1, *given) == image_shape:
            return ": nnet.to_bc01(X) puts channels first"
    if given == (prod(image_shape),) or without_ones(given) == without_ones(image_shape):
        return f": X.reshape{(-1, *image_shape)}"
    if len(image_shape) == 2 and given == image_shape[::-1]:
        return ": X.transpose(0, 2, 1) puts channels first"
    return ""


def without_ones(shape):
    """The lengths of axes that a reshape cannot add or drop."""
    return [length for length in shape if length != 1]
