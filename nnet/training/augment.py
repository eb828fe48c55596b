"""Augmentations: random changes of the images that a network is trained on."""

import numpy as np

from nnet.geometry import as_pair
from nnet.layers.arguments import as_float, as_int, as_word
from nnet.layers.hints import with_hints
from nnet.training.augmenting import NEAREST, Geometric, Pointwise, as_finite

DIRECTIONS = "horizontal", "vertical", "both"

# --- where the pixels are ---------------------------------------------------------------


class Shift(Geometric):
    """Moves images by whole pixels, and y where it has theirs.

    Parameters
    ----------
    pixels : int or (int, int)
        By at most so many, (up or down, left or right). For signals, give one.
    fill : float or 'nearest'
        What comes in: a value, or the nearest pixel of the image.
    """

    n_draws = 2

    @with_hints("Shift((2, 3)) is by at most 2 up or down, 3 left or right")
    def __init__(self, pixels, *, fill=NEAREST):
        self._take_fill(fill)
        self.pixels = as_size(pixels, "pixels", 0)

    def check(self, image_shape):
        super().check(image_shape)
        most = self._most(image_shape)
        if most[0] > 0:
            self._check_height(image_shape)
        for pixels, side in zip(most[::-1], image_shape[:0:-1]):
            if pixels >= side:
                raise ValueError(f"{self!r} moves all {side} pixels out, expected less than {side}")

    def _most(self, image_shape):
        """Down and right: nowhere along an axis of one pixel, if one number is given for both."""
        if isinstance(self.pixels, tuple):
            return self.pixels
        return tuple(self.pixels * (side > 1) for side in (1, *image_shape[1:])[-2:])

    def parameters(self, draws, image_shape):
        most = np.array(self._most(image_shape))
        return as_maps(np.eye(2), most - np.floor(draws * (2 * most + 1)))


class Crop(Shift):
    """Pads images and cuts a window of their own size out: He et al. 2016, section 4.2.

    The same as `Shift(padding)`, also for y, by the name that others give it.

    Parameters
    ----------
    padding : int or (int, int)
        On either side, (above and below, left and right). For signals, give one.
    fill : float or 'nearest'
        What padding holds: a value, or the nearest pixel of the image.
    """

    @with_hints("images keep their size", size="none: images keep their size")
    def __init__(self, padding, *, fill=NEAREST):
        self._take_fill(fill)
        self.padding = self.pixels = as_size(padding, "padding", 0)


class Flip(Geometric):
    """Mirrors images, and y where it has their pixels.

    Parameters
    ----------
    direction : {'horizontal', 'vertical', 'both'}
        'horizontal' exchanges left and right; 'both' decides about each by itself.
    p : float
        How probable it is, from 0 to 1.
    """

    n_draws = 2

    @with_hints("Flip('both') is in both directions", mode="direction", probability="p")
    def __init__(self, direction="horizontal", p=0.5):
        self.direction = as_word(direction, "direction", DIRECTIONS)
        self.p = as_part(p, "p")

    def check(self, image_shape):
        super().check(image_shape)
        if self.direction != "horizontal":
            self._check_height(image_shape)

    def parameters(self, draws, image_shape):
        vertical, horizontal = self.direction != "horizontal", self.direction != "vertical"
        mirrored = (draws < self.p) & [vertical, horizontal]
        return as_maps(np.eye(2) * np.where(mirrored, -1, 1)[:, None], np.zeros_like(draws))


class Rotate(Geometric):
    """Turns images around their centre, and y where it has their pixels.

    Parameters
    ----------
    degrees : float or (float, float)
        By at most so many, either way; or from one to the other, counter-clockwise.
    fill : float or 'nearest'
        What comes in: a value, or the nearest pixel of the image.
    """

    n_draws = 1

    @with_hints("Rotate((-10, 10)) is from one to the other", angle="degrees")
    def __init__(self, degrees, *, fill=NEAREST):
        self._take_fill(fill)
        self.degrees = as_range(degrees, "degrees", lambda most: (-most, most))

    def check(self, image_shape):
        super().check(image_shape)
        self._check_height(image_shape)

    def parameters(self, draws, image_shape):
        angles = np.radians(between(self.degrees, draws))
        cos, sin = np.cos(angles), np.sin(angles)
        return as_maps(np.stack([cos, sin, -sin, cos], 1).reshape(-1, 2, 2), [0, 0])


class Zoom(Geometric):
    """Enlarges or shrinks what is in an image around its centre; images keep their size.

    y does likewise where it has their pixels.

    Parameters
    ----------
    scale : float or (float, float)
        (0.9, 1.1) is from 0.9 to 1.1 times as large, and 0.1 the same: by at most this part.
    fill : float or 'nearest'
        What comes in: a value, or the nearest pixel of the image.
    """

    n_draws = 1

    @with_hints("Zoom((0.9, 1.1)) is from one to the other", factor="scale")
    def __init__(self, scale, *, fill=NEAREST):
        self._take_fill(fill)
        self.scale = as_range(scale, "scale", lambda part: (1 - part, 1 + part))
        if self.scale[0] <= 0:
            raise ValueError(f"scale is {scale!r}, expected scales greater than 0")

    def parameters(self, draws, image_shape):
        return as_maps(np.eye(2) / between(self.scale, draws)[:, None, None], [0, 0])


# --- what the pixels hold -----------------------------------------------------------------


class CutOut(Pointwise):
    """Hides a rectangle of each image, in all channels; y keeps the labels of hidden pixels.

    DeVries and Taylor 2017, "Improved regularization of convolutional neural networks with
    cutout": its centre is any pixel, so that a part may be outside of the image.

    Parameters
    ----------
    size : int or (int, int)
        (height, width), or both; for signals the length.
    fill : float
        What it holds.
    """

    n_draws = 2

    @with_hints("CutOut((2, 3)) is 2 high and 3 wide", length="size")
    def __init__(self, size, *, fill=0.0):
        self.size = as_size(size, "size", 1)
        self.fill = as_finite(fill, "fill")

    def parameters(self, draws, image_shape):
        sides = np.array(image_shape[1:])
        starts = np.floor(draws * sides).astype(np.intp) - np.array(self.size) // 2
        return np.concatenate([np.maximum(starts, 0), np.minimum(starts + self.size, sides)], 1)

    def change(self, images, parameters, out):
        np.copyto(out, images)
        for image, (top, left, bottom, right) in zip(out, parameters.tolist()):
            image[:, top:bottom, left:right] = self.fill


class Brightness(Pointwise):
    """Makes images brighter or darker, factor * image + delta; y stays as it is.

    Parameters
    ----------
    factor : float
        From 0 to 1: 0.2 stands for factors from 0.8 to 1.2.
    delta : float
        At most this is added or subtracted: for images around 0, of which a factor changes the
        contrast.
    """

    n_draws = 2

    @with_hints("Brightness(0.2) is by factors from 0.8 to 1.2")
    def __init__(self, factor=0.0, *, delta=0.0):
        self.factor, self.delta = as_part(factor, "factor"), as_float(delta, "delta")

    def check(self, image_shape):
        """Any images will do."""

    def parameters(self, draws, image_shape):
        return (2 * draws - 1) * [self.factor, self.delta] + [1, 0]

    def change(self, images, parameters, out):
        factors, deltas = parameters.T.astype(images.dtype)[:, :, None, None, None]
        np.multiply(images, factors, out=out)
        out += deltas


# --- maps and arguments ------------------------------------------------------------------


def as_maps(turns, moves):
    """(n_imgs, 2, 3) from (n_imgs, 2, 2) and (n_imgs, 2); one of them may be the same for all."""
    maps = np.empty((max(np.shape(turns)[:-2], np.shape(moves)[:-1])[0], 2, 3))
    maps[:, :, :2], maps[:, :, 2] = turns, moves
    return maps


def as_size(value, name, minimum):
    """An int, or a pair of ints."""
    return as_pair(value, name, minimum) if np.iterable(value) else as_int(value, name, minimum)


def as_part(value, name):
    """A float from 0 to 1."""
    number = as_float(value, name)
    if number > 1:
        raise ValueError(f"{name} is {value!r}, expected at most 1")
    return number


def as_range(value, name, around):
    """(low, high), or what a function makes of one number."""
    if isinstance(value, str) or not np.iterable(value):
        return around(as_float(value, name, " or a pair (low, high)"))
    pair = tuple(as_finite(each, name) for each in value)
    if len(pair) != 2 or pair[0] > pair[1]:
        raise ValueError(f"{name} is {value!r}, expected a number or a pair (low, high)")
    return pair


def between(ends, draws):
    """Numbers from the first to the last, (n_imgs,)."""
    low, high = ends
    return low + draws[:, 0] * (high - low)
