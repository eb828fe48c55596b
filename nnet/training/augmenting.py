"""What augmentations are made of, and how fit works with them.

An augmentation draws a few numbers for each image of an epoch, the rows of a table: so an image is
changed in the same way in whatever batch it is, and by whatever thread.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from nnet._atomic import quietly
from nnet._augment import warp
from nnet._dense import all_finite
from nnet.layers.arguments import as_call, as_real
from nnet.layers.classification import LogRegression
from nnet.layers.hints import with_hints
from nnet.layers.regression import MeanSquaredError
from nnet.layers.streams import as_streams
from nnet.training.data import (
    as_array,
    as_images,
    as_labels,
    as_reals,
    as_values,
    batch_of,
    check_lengths,
    encode,
)

NEAREST = "nearest"
EXPECTED = "an augmentation such as Shift(2), a function of a batch of images, or a list of these"


class Augmentation:
    """A random change of images: `fit(..., augment=)` takes one, a function, or a list.

    Called with images it returns changed copies, to look at: `Rotate(10)(X[:16], rng=0)`, or of
    both, `Rotate(10)(X[:16], y[:16], rng=0)`: where y has pixels, they move with those of X.
    """

    def __call__(self, images, y=None, rng=None):
        """Changed copies of images, and of their targets.

        Parameters
        ----------
        images : array (n_imgs, n_channels, img_h, img_w), or as X in `NeuralNetwork.fit`
        y : None or array (n_imgs, ...)
            Floats are taken for targets of regression, all else for labels.
        rng : None, int, numpy.random.Generator or numpy.random.RandomState

        Returns
        -------
        array of the shape of images, float32 or float64; with y, a pair of it and of changed y

        Raises
        ------
        ValueError, TypeError
            For images and targets that cannot be changed so, and what is no array of them.
        """
        images = as_images(images)
        if y is None:
            return self._changed(images, np.empty(len(images)), rng)[0]
        check_lengths(images, y, "images")
        if as_array(y, "y").dtype.kind == "f":
            return self._changed(images, as_values(y, None)[:], rng)
        labels = as_labels(y, target_shape=None)
        classes = np.unique(labels)
        images, indices = self._changed(images, encode(labels, classes), rng)
        return images, classes[indices]

    def _changed(self, images, target, rng):
        loss = MeanSquaredError() if target.dtype.kind == "f" else LogRegression()
        augmenter = Augmenter(self, images.shape[1:], target.shape[1:], loss)
        augmenter.restart(as_streams(rng), 0, len(images))
        rows = np.arange(len(images))
        changed = augmenter(images, target, rows, lambda name, *like: np.empty(*like))
        pairs = zip(changed, (images, target))
        return tuple(new.copy() if new is old else new for new, old in pairs)

    def __repr__(self):
        return as_call(self)


class Drawn(Augmentation, ABC):
    """Changes each image by random numbers of its own."""

    n_draws: int  # how many

    def check(self, image_shape):
        """Refuse images of a shape, as the user gives them, that cannot be changed so."""
        if len(image_shape) == 1:
            raise ValueError(f"X has shape {batch_of(image_shape)}, expected images for {self!r}")

    def _check_height(self, image_shape):
        if len(image_shape) == 2:
            raise ValueError(
                f"X has shape {batch_of(image_shape)}, expected images with a height for {self!r}"
            )

    @abstractmethod
    def parameters(self, draws, image_shape):
        """What to do to each image, array (n_imgs, ...).

        Parameters
        ----------
        draws : float64 array (n_imgs, n_draws)
            Uniform from 0 to 1, 1 excluded.
        image_shape : tuple (n_channels, img_h, img_w)
            Of one image, as the layers see it.
        """


class Geometric(Drawn):
    """Moves pixels by affine maps, with bilinear interpolation.

    Those that follow each other and have one `fill` are one map: nothing is blurred twice, and
    what one moves out of an image the next may move in again. Targets that have pixels where
    the images have theirs move by the same map: see `moves_target`.
    """

    fill: Any = None  # nothing comes in

    def _take_fill(self, fill):
        is_word = isinstance(fill, str) and fill == NEAREST
        self.fill = fill if is_word else as_finite(fill, "fill", " or 'nearest'")

    @abstractmethod
    def parameters(self, draws, image_shape):
        """Where each pixel comes from, float64 array (n_imgs, 2, 3).

        The maps take (row, column, 1) to (row, column), both seen from the centre of the image.
        """


def as_finite(value, name, alternatives=""):
    expected = f"expected a finite number{alternatives}"
    number = as_real(value, name, expected)
    if not math.isfinite(number):
        raise ValueError(f"{name} is {value!r}, {expected}")
    return number


class Pointwise(Drawn):
    """Changes what pixels hold, where they are."""

    @abstractmethod
    def change(self, images, parameters, out):
        """Write changed images to another array.

        Parameters
        ----------
        images, out : array (n_imgs, n_channels, img_h, img_w)
        parameters : array
            Theirs, as `parameters` returns them.
        """


# --- several in a row --------------------------------------------------------------------


class Compose(Augmentation):
    """Augmentations one after the other, as `fit(augment=[...])` makes of a list.

    Parameters
    ----------
    augmentations : list of augmentations, and of functions as for `NeuralNetwork.fit`
    """

    @with_hints("one list of them", transforms="augmentations")
    def __init__(self, augmentations):
        if isinstance(augmentations, str) or not isinstance(augmentations, Iterable):
            raise TypeError(f"augmentations is {augmentations!r}, expected a list of them")
        self.augmentations = list(augmentations)
        listed(self)


def listed(augment):
    """The parts of what `fit` is given, in turn: a list of Drawn and of functions."""
    if isinstance(augment, Compose):
        augment = augment.augmentations
    if isinstance(augment, (list, tuple)):
        return [each for part in augment for each in listed(part)]
    if isinstance(augment, type) and issubclass(augment, Augmentation):
        raise TypeError(f"augment has the class {augment.__name__}, expected {EXPECTED}")
    if not callable(augment):
        raise TypeError(f"augment has {augment!r}, expected {EXPECTED}")
    return [augment]


class Function:
    """A function of the user's in one epoch: what it returns is checked.

    Parameters
    ----------
    function : callable
        Of a batch of images, and of `rng` if it has a parameter of that name. It must not move
        pixels where y has some: it gets no y.
    rng : Generator or RandomState
    """

    def __init__(self, function, rng):
        self._call = partial(function, rng=rng) if takes_rng(function) else function

    def __call__(self, images, rows, out):
        """Changed images, and no maps: see `Table`."""
        np.copyto(out, images)  # it may write to that
        returned = self._call(out)
        if returned is None:
            raise TypeError("augment returned None, expected the images")
        changed = as_reals(returned, "what augment returned")
        if changed.shape != images.shape:
            raise ValueError(
                f"augment returned shape {changed.shape}, expected {images.shape} as it was given"
            )
        changed = quietly(partial(np.asarray, changed, images.dtype))
        if not all_finite(changed):
            raise ValueError("augment returned NaN, infinite or too large values, expected finite")
        return changed, None


def takes_rng(function):
    try:
        return "rng" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # of some compiled functions
        return False


# --- at work --------------------------------------------------------------------------------


class Augmenter:
    """Changes the batches of a training, each before its step.

    To prepare one while the batch before trains would gain nothing: moved, turned and zoomed, 64
    images of 28x28 take 2 % of a step of examples/mnist_recipe.py on one thread.

    Parameters
    ----------
    augment : augmentation, function, or list of these
    image_shape, target_shape : tuple
        Of one image and one target, as the user gives them.
    loss : LossMixin
        It tells labels, of which the nearest is taken, from values, which are interpolated.
    scores_shape : tuple, optional
        Of what the loss takes for one image, without which the shape of a target alone tells
        whether it has pixels.
    """

    def __init__(self, augment, image_shape, target_shape, loss, scores_shape=None):
        self._parts = listed(augment)
        for part in self._parts:
            if isinstance(part, Drawn):
                part.check(image_shape)
        self._moves_target = moves_target(
            self._parts, image_shape[1:], target_shape, loss.is_classifier, scores_shape
        )
        self._interpolate = not loss.has_probabilities
        n_channels, *sides = image_shape
        self._shape = (n_channels, *[1] * (2 - len(sides)), *sides)
        self._steps = []

    def restart(self, streams, epoch, n_imgs):
        """Begin an epoch, with random numbers of its own, of so many images or more."""
        makers = list(streams.of_layers(self._parts, "augment", epoch))
        self._steps = []
        for group in grouped(self._parts):
            rngs, makers = [make_rng() for make_rng in makers[: len(group)]], makers[len(group) :]
            if isinstance(group[0], Drawn):
                self._steps.append(Table(group, rngs, self._shape, n_imgs))
            else:
                self._steps.append(Function(*group, *rngs))

    def __call__(self, images, target, rows, make_array):
        """The images of a batch, changed, and their targets: other arrays, if they are.

        Parameters
        ----------
        images : array (n_imgs, ...)
        target : array (n_imgs, ...) of class indices or values
        rows : intp array (n_imgs,)
            Which images of the epoch they are: what is done to each follows from that.
        make_array : callable (name, shape, dtype) -> array
        """
        for i, step in enumerate(self._steps):
            out = make_array(f"augmented {i}", images.shape, images.dtype)
            images, maps = step(images, rows, out)
            if self._moves_target and maps is not None:
                out = make_array(f"moved {i}", target.shape, target.dtype)
                target = move(target, maps, out, self._shape[1:], interpolate=self._interpolate)
        return images, target


class Table:
    """What one pass over batches does to each image of an epoch.

    Only the draws of all images are kept: what follows from them takes more memory.

    Parameters
    ----------
    group : list of Drawn
        Geometric ones with one fill, or else a single one.
    rngs : list of Generator or RandomState
    shape : tuple
        Of one image, as the layers see it.
    n_imgs : int
        So many rows are drawn at first.
    """

    def __init__(self, group, rngs, shape, n_imgs):
        self._group, self._rngs, self._shape = group, rngs, shape
        self._n_rows, self._draws = n_imgs, quietly(partial(self._next_draws, n_imgs))

    def _next_draws(self, n_imgs):
        """They are the same whether they are drawn at once or in parts."""
        return [rng.random((n_imgs, part.n_draws)) for part, rng in zip(self._group, self._rngs)]

    def _draw_until(self, n_imgs):
        if n_imgs > self._n_rows:
            n_more = max(n_imgs - self._n_rows, self._n_rows)
            more = quietly(partial(self._next_draws, n_more))
            self._draws = [np.concatenate(parts) for parts in zip(self._draws, more)]
            self._n_rows += n_more

    def _parameters(self, rows):
        parameters = [
            part.parameters(draws[rows], self._shape)
            for part, draws in zip(self._group, self._draws)
        ]
        if isinstance(self._group[0], Geometric):
            return composed(parameters, self._shape)
        return parameters[0]

    def __call__(self, images, rows, out):
        """Changed images, and the maps that moved them, (n_imgs, 6); None if they did not move."""
        self._draw_until(rows.max(initial=-1) + 1)
        parameters = quietly(partial(self._parameters, rows))
        first = self._group[0]
        if isinstance(first, Geometric):
            fills = fills_of(self._group) - {NEAREST}
            fill = fills.pop() if fills else None
            return move(images, parameters, out, self._shape[1:], fill), parameters
        shape = len(images), *self._shape
        first.change(images.reshape(shape), parameters, out.reshape(shape))
        return out, None


def grouped(parts):
    """Lists of parts that take one pass."""
    groups: list[list] = []
    for part in parts:
        joined = [*groups[-1], part] if groups else [part]
        if all(isinstance(each, Geometric) for each in joined) and len(fills_of(joined)) <= 1:
            groups[-1:] = [joined]
        else:
            groups.append([part])
    return groups


def fills_of(group):
    """What comes in at the borders of images."""
    return {part.fill for part in group} - {None}


def moves_target(parts, sides, target_shape, is_classifier, scores_shape=None):
    """Whether targets are moved with the images: if their last axes are the sides of these.

    Others stay as they are: one label, a few numbers, and as many as a signal is long where the
    scores are a list of numbers.

    Raises
    ------
    ValueError
        For labels and values of pixels at other sides, and where pixels come in that have none.
    """
    moving = [part for part in parts if isinstance(part, Geometric)]
    if not moving or scores_shape is not None and len(scores_shape) == 1:
        return False
    given, ends = f"y has shape {batch_of(target_shape)}", target_shape[-len(sides) :]
    if ends != sides:
        has_pixels = len(target_shape) >= (len(sides) if is_classifier else 2) and prod(ends) > 1
        if has_pixels:
            raise ValueError(
                f"{given} and {moving[0]!r} moves pixels, expected those of the images: "
                + batch_of(("...", *sides))
            )
        return False
    for part in moving:
        if part.fill not in (None, NEAREST):
            raise ValueError(
                f"{given} and moves with the images, of which {part!r} fills in parts: y has "
                "nothing for these, expected fill='nearest'"
            )
    return True


def move(images, maps, out, sides, fill=None, interpolate=True):
    """Write images, or labels or values of their pixels, moved by maps, to another array."""
    shape = len(images), prod(images.shape[1:]) // prod(sides), *sides
    reals = f"f{images.itemsize}"  # as which labels are copied
    given, moved = (array.view(reals).reshape(shape) for array in (images, out))
    warp(given, maps, moved, fill=fill, interpolate=interpolate)
    return out


def composed(maps, shape):
    """Maps one after the other as one, and from row and column as they are counted: (n_imgs, 6)."""
    total, *others = maps
    for after in others:
        turns, moves = total[:, :, :2], total[:, :, 2:]
        total = np.concatenate([turns @ after[:, :, :2], turns @ after[:, :, 2:] + moves], 2)
    centre = (np.array(shape[1:]) - 1) / 2
    total[:, :, 2] += centre - total[:, :, :2] @ centre
    return total.reshape(-1, 6)
