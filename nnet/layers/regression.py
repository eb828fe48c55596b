"""The last layers of networks that predict values."""

from abc import abstractmethod
from math import prod

import numpy as np

from nnet.layers.arguments import Option, as_positive, check_like, check_real
from nnet.layers.hints import with_hints
from nnet.layers.loss import FLOAT64, Compared, Loss


class ValueLoss(Loss):
    """Predicts its input, the scores; the loss of an image is a mean over its values."""

    is_classifier = False
    _slope = 1

    def fprop(self, input):
        return input

    def bprop(self, output_grad):
        return output_grad

    def compare(self, input, target):
        check_real(input, "input")
        check_like(target, "target", input.shape, input.dtype)
        n_values = max(prod(input.shape[1:]), 1)
        grad = np.subtract(input, target, out=self._scratch(input.shape, input.dtype))
        each = self._losses(grad, self._scratch(input.shape, input.dtype))
        losses = self._array("losses", (len(input),), FLOAT64)
        np.mean(each.reshape(len(input), n_values), axis=1, dtype=float, out=losses)
        grad *= self._slope / n_values
        return Compared(input, losses, grad)

    @abstractmethod
    def _losses(self, differences, out):
        """The loss of each value, in `out`; the differences become its gradient / `_slope`."""

    def output_shape(self, input_shape):
        return tuple(input_shape)


class MeanSquaredError(ValueLoss):
    """Predicts its input; the loss is the mean squared difference over images and targets."""

    _slope = 2

    def _losses(self, differences, out):
        return np.square(differences, out=out)


class MeanAbsoluteError(ValueLoss):
    """Predicts its input; the loss is the mean absolute difference over images and targets.

    Its gradient is 0 where there is no difference.
    """

    def _losses(self, differences, out):
        np.abs(differences, out=out)
        np.sign(differences, out=differences)
        return out


class Huber(ValueLoss):
    r"""Predicts its input; the loss is a mean over images and targets of a function of d.

    For differences d up to `delta` that is d^2 / 2, beyond it grows as a line,
    delta (\|d\| - delta / 2): Huber 1964.

    Parameters
    ----------
    delta : float, greater than 0
    """

    delta = Option(as_positive)

    @with_hints()
    def __init__(self, delta=1.0):
        self.delta = delta

    def _losses(self, differences, out):
        # With the slope g, d cut to -delta .. delta, both are g (d - g / 2).
        slopes = self._scratch(differences.shape, differences.dtype)
        cut = min(self.delta, float(np.finfo(differences.dtype).max))
        np.clip(differences, -cut, cut, out=slopes)
        np.multiply(slopes, 0.5, out=out)
        np.subtract(differences, out, out=out)
        out *= slopes
        differences[...] = slopes
        return out
