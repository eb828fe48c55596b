"""Which axes of X are what."""

from math import isqrt, prod
from typing import NamedTuple

from nnet.files.images import CHANNELS, infer_layout
from nnet.training.remedies import image_remedy
from nnet.training.setup import as_shape


class Inputs(NamedTuple):
    """How the images of X lie there.

    Attributes
    ----------
    shape : tuple
        Of one image in X, or what a row of X is reshaped to.
    image_shape : tuple
        Of one image, signal or row of features, as the network takes it.
    """

    shape: tuple[int, ...]
    image_shape: tuple[int, ...]

    def shapes(self):
        """Those that one image may have in X: a row; one channel may come last, or be left out."""
        n_channels, *sides = self.image_shape
        shapes = [self.shape, (prod(self.shape),)]
        if n_channels == 1 and sides:
            shapes.append((*sides, 1))
            if len(sides) == 2:
                shapes.append(tuple(sides))
        return shapes

    def __call__(self, X):
        """X as the network takes it: a view, if the memory of X allows one."""
        shapes = self.shapes()
        if X.shape[1:] not in shapes:
            expected = " or ".join(f"(n_imgs, {', '.join(map(str, shape))})" for shape in shapes)
            remedy = image_remedy(X.shape, self.image_shape)
            raise ValueError(f"X has shape {X.shape}, expected {expected}{remedy}")
        images = X.reshape(len(X), *self.shape)
        return images if self.shape == self.image_shape else images.transpose(0, 3, 1, 2)


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
    if input_shape is not None:
        return _given(as_shape(input_shape, "input_shape"))
    item = shape[1:]
    if 0 in item:
        raise ValueError(f"X has shape {shape}, expected no empty axis but the first")
    if len(item) == 1 and not is_table:
        side = isqrt(item[0])
        item = (1, side, side) if side * side == item[0] else (1, *item)
    elif len(item) == 2:
        item = (1, *item)
    elif len(item) == 3:
        return _given(item, infer_layout(shape, "input_shape=(n_channels, img_h, img_w)"))
    elif len(item) > 3:
        raise ValueError(f"X has shape {shape}, expected 2 to 4 axes")
    return Inputs(item, item)


def _given(shape, layout=None):
    """Inputs of this shape: channels come last where only that axis can be theirs."""
    if len(shape) > 3:
        raise ValueError(f"input_shape is {shape}, expected 1 to 3 lengths, of one image")
    if layout is None and len(shape) == 3:
        is_last = shape[2] in CHANNELS and shape[0] not in CHANNELS
        layout = "NHWC" if is_last else "NCHW"
    return Inputs(shape, (shape[2], *shape[:2]) if layout == "NHWC" else shape)
