"""What a loss is: the last layer, which compares scores with targets."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np

from nnet.layers.arguments import check_like
from nnet.layers.base import Layer

FLOAT64 = np.dtype(np.float64)


class Compared(NamedTuple):
    """What a loss finds in one pass over a batch of scores."""

    predictions: np.ndarray  # what the network predicts: see LossMixin
    losses: np.ndarray  # (n_imgs,) float64: the loss of each image
    grad: np.ndarray  # of each image's loss by its scores: per image, undivided
    loss_sum: float | None = None  # over the images, where it is known already
    n_right: int | None = None  # for how many the largest prediction is that of the target
    errors: np.ndarray | None = None  # (n_imgs,) float64, as `errors` gives them, if known already


class Totals(NamedTuple):
    """Sums over a batch, in which an image of weight 2 counts as two."""

    loss: float
    error: float
    weight: float

    def plus(self, other):
        return Totals(self.loss + other.loss, self.error + other.error, self.weight + other.weight)


def totals(loss, compared, input, target, weights=None, with_error=True):
    """The Totals of what a loss found in one pass."""
    if weights is None and compared.loss_sum is not None and not loss._recounts:
        n_imgs = len(target)
        return Totals(compared.loss_sum, float(n_imgs - compared.n_right), float(n_imgs))
    losses, error = compared.losses, 0.0
    if weights is not None and type(loss).compare is LossMixin.compare:
        losses = loss.image_losses(input, target)
    if with_error:
        errors = compared.errors
        if errors is None or loss._recounts:
            errors = loss.errors(compared.predictions, target)
        error = weighted_sum(errors, weights)
    weight = float(len(target) if weights is None else np.add.reduce(weights))
    return Totals(weighted_sum(losses, weights), error, weight)


def weighted_sum(values, weights):
    return float(np.add.reduce(values if weights is None else weights * values))


class LossMixin(ABC):
    """The last layer: compares its input, the scores, with the target.

    `fprop` turns the scores into what the network predicts. If `is_classifier`,
    that is one value per class, the largest wins, and the target is an array
    (n_imgs,) of class indices; scores (n_imgs, n_classes, ...) have a class in each
    place, and the target is (n_imgs, ...). Otherwise the target is an array of the scores'
    shape and dtype.

    A loss of your own derives from `Layer` and `LossMixin`: it needs `fprop`, `loss`,
    `input_grad` and `output_shape`, and a `bprop`, which training does not call. For values
    in place of classes it sets `is_classifier = False`.

    Attributes
    ----------
    is_classifier : bool
        Whether targets are labels of any kind, which become class indices.
    target_range : None or (float, float)
        From where to where values may be that are targets.
    """

    is_classifier = True
    target_range: tuple[float, float] | None = None
    fprop: Any  # of the Layer
    _one_pass: Any  # the `compare` of the nearest class that has one of its own
    _recounts = False  # whether errors are not those that `compare` counts

    def __init_subclass__(cls, **options):
        """A class that redefines a part of what `compare` computes is asked for all parts."""
        super().__init_subclass__(**options)
        own = vars(cls)
        if own.keys() & {"compare", "decide", "errors"}:
            cls._recounts = "compare" not in own
        if "compare" in own:
            cls._one_pass = own["compare"]
        elif own.keys() & {"fprop", "loss", "input_grad"}:
            cls.compare = LossMixin.compare  # type: ignore[method-assign]

    @property
    def has_probabilities(self):
        """Whether `decide` makes labels of what is predicted, of which `errors` counts the wrong.

        Then `predict_proba` returns what is predicted, and the accuracy is 1 - the error.
        """
        return self.is_classifier

    @abstractmethod
    def loss(self, input, target):
        """The mean loss over the batch.

        Parameters
        ----------
        input : array (n_imgs, ...) of the network's dtype
            The scores.
        target : intp array (n_imgs, ...) of class indices, or array like `input` of values
            Its memory may serve the next batch again.

        Returns
        -------
        float
        """

    @abstractmethod
    def input_grad(self, input, target):
        """The gradient of each image's loss by its scores: per image, undivided.

        Parameters
        ----------
        input, target : as for `loss`

        Returns
        -------
        array of the shape and dtype of `input`
        """

    def image_losses(self, input, target):
        """The loss of each image, array (n_imgs,): one call for each, where `loss` is all there is.

        Parameters
        ----------
        input, target : as for `loss`
        """
        each = [slice(i, i + 1) for i in range(len(input))]
        return np.array([self.loss(input[i], target[i]) for i in each], float)

    def decide(self, predictions):
        """What `predict` makes of them: the index of the largest, or the values themselves."""
        return predictions.argmax(axis=1) if self.is_classifier else predictions

    def errors(self, predictions, target):
        """The error of each image, float64 array (n_imgs,): which labels are wrong, mean squares.

        Parameters
        ----------
        predictions : array (n_imgs, ...), from `fprop`
        target : as for `loss`; class indices may be -1, which is always wrong
        """
        decided = self.decide(predictions) if self.is_classifier else predictions
        check_like(target, "target", decided.shape)
        if self.is_classifier:
            errors = np.asarray(decided != target, float)
        else:
            errors = np.square(np.subtract(predictions, target, dtype=float))
        return np.mean(errors.reshape(len(target), -1), axis=1, dtype=float)

    def compare(self, input, target):
        """Predictions, the loss of each image and its gradient, in one pass: training calls this.

        Parameters
        ----------
        input, target : as for `loss`

        Returns
        -------
        Compared
            Here `losses` repeats the mean, which is all that `loss` tells.
        """
        losses = np.full(len(input), self.loss(input, target), float)
        return Compared(self.fprop(input), losses, self.input_grad(input, target))


class Loss(Layer, LossMixin):
    """A loss that computes all in one pass."""

    @abstractmethod
    def compare(self, input, target):
        """Predictions, the loss of each image and its gradient: a `Compared`."""

    def loss(self, input, target):
        return np.mean(self._one_pass(input, target).losses)

    def input_grad(self, input, target):
        return self._one_pass(input, target).grad
