"""Which axes of X are what."""

from math import isqrt, prod

import numpy as np

from nnet.files.images import CHANNELS, infer_layout
from nnet.layers.spec import LEAST_SIDE, default_spec
from nnet.training.remedies import image_remedy
from nnet.training.setup import as_shape
from nnet.training.targets import batch_of

LEAST_COLOURED = 8  # pixels of the sides of images with colours, of which rows may be
AS_LONG = 2  # times the channels: shorter signals look like grey images


class Inputs:
    """How the images of X lie there.

    Parameters
    ----------
    shape : tuple
        What a row of X is reshaped to: the shape of one image in X, if that has more axes.
    image_shape : tuple
        Of one image, signal or row of features, as the network takes it.

    Attributes
    ----------
    shapes : list of tuple
        Those that one image may have in X: a row; channels may come last, and a single one of an
        image may be left out.
    """

    def __init__(self, shape, image_shape):
        self.shape, self.image_shape = shape, image_shape
        shapes = [shape, (prod(shape),), image_shape, channels_last(image_shape)]
        if len(image_shape) == 3 and image_shape[0] == 1:
            shapes.append(image_shape[1:])
        self.shapes = list(dict.fromkeys(shapes))

    def __call__(self, X):
        """X as the network takes it: a view, if the memory of X allows one."""
        if X.shape[1:] not in self.shapes:
            expected = " or ".join(map(batch_of, self.shapes))
            remedy = image_remedy(X.shape, self.image_shape)
            raise ValueError(f"X has shape {X.shape}, expected {expected}{remedy}")
        if X.ndim == 2:
            X = X.reshape(len(X), *self.shape)
        if X.shape[1:] == self.image_shape:
            return X
        if X.shape[1:] == channels_last(self.image_shape):
            return np.moveaxis(X, -1, 1)
        return X.reshape(len(X), *self.image_shape)

    def views(self):
        """{shape: what to reshape X to} of those that need no more; () for the network's own."""
        reshaped = self.shapes if self.image_shape[0] == 1 else [(prod(self.shape),)]
        if self.image_shape[0] > 1 and self.shape != self.image_shape:
            reshaped = []  # the channels are to be moved
        return dict.fromkeys(reshaped, (-1, *self.image_shape)) | {self.image_shape: ()}

    def __str__(self):
        """What the images are, in words."""
        n_channels, *sides = self.image_shape
        if not sides:
            return f"rows of {n_channels} features"
        of_channels = "1 channel" if n_channels == 1 else f"{n_channels} channels"
        if len(sides) == 1:
            return f"signals of {of_channels} and {sides[0]} values"
        return f"images of {of_channels} and {sides[0]} x {sides[1]} pixels"


def find_inputs(shape, input_shape, is_table):
    """The Inputs for X of a shape.

    Parameters
    ----------
    shape : tuple
        Of X.
    input_shape : None, int or tuple
        As for the estimators.
    is_table : bool
        Whether the network wants rows of X as they are.

    Raises
    ------
    ValueError
        For axes that could mean several things.
    """
    item = shape[1:]
    if input_shape is not None:
        return _given(as_shape(input_shape, "input_shape"), item)
    if 0 in item:
        raise ValueError(f"X has shape {shape}, expected no empty axis but the first")
    if len(item) == 1 and not is_table:
        side = isqrt(item[0])
        item = (1, side, side) if side * side == item[0] else (1, *item)
    elif len(item) == 2:
        item = (1, *item)
    elif len(item) == 3:
        last = channels_first(item)
        layout = infer_layout(
            shape,
            f"input_shape={item} if the channels come first, input_shape={last} if they come last "
            "(np.moveaxis(X, -1, 1) puts them first)",
        )
        return Inputs(item, last if layout == "NHWC" else item)
    elif len(item) > 3:
        raise ValueError(f"X has shape {shape}, expected 2 to 4 axes")
    return Inputs(item, item)


def _given(shape, item):
    """Inputs by an input_shape: channels come last where only that axis can be theirs."""
    if not 1 <= len(shape) <= 3:
        raise ValueError(f"input_shape is {shape}, expected 1 to 3 lengths, of one image")
    is_last = len(shape) == 3 and shape[2] in CHANNELS and shape[0] not in CHANNELS
    inputs = Inputs(shape, channels_first(shape) if is_last else shape)
    if item in inputs.shapes and len(shape) == 2 and shape[0] == shape[1]:
        raise ValueError(
            f"input_shape is {shape}, as many channels of signals as values, expected "
            f"input_shape={(1, *shape)} for grey images; for signals, "
            f"X.reshape{(-1, shape[0], 1, shape[1])} and windows such as (1, 3)"
        )
    if len(item) > 1 and item in inputs.shapes and len(item) == len(shape):
        return Inputs(item, inputs.image_shape)
    return inputs


def caution(shape, inputs, input_shape, layers):
    """What to look at twice in how X was read, and how to say otherwise; "" for most X.

    Parameters
    ----------
    shape : tuple
        Of X.
    inputs : Inputs
    input_shape, layers : as for the estimators
    """
    said = f"X of shape {shape} is read as {inputs}"
    item, found = shape[1:], inputs.image_shape
    if input_shape is not None:
        return _caution_of_given(said, found)
    if len(item) == 1:
        side = isqrt(item[0] // 3)
        if len(found) == 2 and side >= LEAST_COLOURED and 3 * side * side == item[0]:
            return (
                f"{said}: for colour images input_shape={(3, side, side)}, or "
                f"{(side, side, 3)} where the channels come last; for signals {(1, *item)}"
            )
        return ""
    if min(found[1:]) >= LEAST_SIDE or (len(item) == 3 and layers is not None):
        return ""
    is_dense = layers is None and "conv" not in default_spec(found)
    without = ", and trained without convolutions" if is_dense else ""
    if len(item) == 2:
        return (
            f"{said}{without}: for signals input_shape={item} with channels first, or "
            f"{item[::-1]} with channels last; for images {(1, *item)}"
        )
    return f"{said}{without}: if that is meant, input_shape={found}"


def _caution_of_given(said, found):
    """The same where there is an input_shape."""
    if len(found) == 2 and len(CHANNELS) < found[0] and found[1] < AS_LONG * found[0]:
        return (
            f"{said}: for grey images input_shape={(1, *found)}; for signals with channels last "
            f"{found[::-1]}, and X of shape {batch_of(found)}"
        )
    if len(found) == 3 and found[0] not in CHANNELS and found[2] * 2 <= min(found[:2]):
        last = channels_first(found)
        return (
            f"{said}: where channels come last input_shape={last}, and X of shape {batch_of(found)}"
        )
    return ""


def channels_last(image_shape):
    return (*image_shape[1:], image_shape[0])


def channels_first(shape):
    return (shape[-1], *shape[:-1])
