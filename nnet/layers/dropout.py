"""Dropout: values left out at random while a network trains."""

import numpy as np

from nnet.layers.arguments import Option, as_bool, as_real, check_axes, check_like, check_real
from nnet.layers.base import Layer
from nnet.layers.hints import with_hints
from nnet.layers.streams import as_generator

BOOL, FLOAT32 = np.dtype(bool), np.dtype(np.float32)


def as_rate(value, name):
    expected = "expected a number of at least 0 and less than 1"
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}, {expected}")
    rate = as_real(value, name, expected)
    if not 0 <= rate < 1:
        raise ValueError(f"{name} is {value!r}, {expected}")
    return rate


class Dropout(Layer):
    """While training, zeros in place of some values, and the others divided by 1 - rate.

    Predictions pass values as they are: on average these are the same. Srivastava et al. 2014,
    "Dropout: a simple way to prevent neural networks from overfitting", section 10; whole
    channels: Tompson et al. 2015, "Efficient object localization using convolutional networks".

    Parameters
    ----------
    rate : float
        The probability that a value is left out: at least 0, less than 1. 0 changes nothing.
    channels : bool
        Whether all of a channel of an image goes, or none of it: PyTorch's Dropout2d, Keras's
        SpatialDropout2D.

    Notes
    -----
    A network has a stream of random numbers for each Dropout, which follows from its `rng`.
    Outside of a network `fprop` draws from the rng that `_setup` was given, or, where that was
    not called, from one that no seed repeats; `training = False` makes it predict.
    """

    _TRANSIENT = (*Layer._TRANSIENT, "_rng")

    rate = Option(as_rate)
    channels = Option(as_bool)
    _rng = None  # outside of a network

    @with_hints()
    def __init__(self, rate=0.5, *, channels=False):
        self.rate = rate
        self.channels = channels

    def _setup(self, input_shape, rng):
        self.output_shape(input_shape)
        self._rng = rng

    def fprop(self, input):
        if not self.training:
            return input
        check_real(input, "input")
        output = self._output(input) if self.rate > 0 else input
        mask = self._draw(input.shape) if self.rate > 0 else None
        self._kept = input.shape, input.dtype, mask
        return input if mask is None else self._masked(input, mask, output)

    def bprop(self, output_grad):
        if self._kept is None:  # a derived class has an fprop of its own
            return output_grad
        shape, dtype, mask = self._kept
        check_like(output_grad, "output_grad", shape, dtype)
        if mask is None:
            return output_grad
        return self._masked(output_grad, mask, self._scratch(shape, dtype))

    def _draw(self, shape):
        """What stays, as bytes."""
        if self.channels:
            shape = *shape[:2], *[1] * (len(shape) - 2)
        mask = self._array("mask", shape, BOOL)
        rng = self._stream()
        if isinstance(rng, np.random.RandomState):
            draws = rng.random_sample(shape)
        else:
            draws = rng.random(dtype=np.float32, out=self._scratch(shape, FLOAT32))
        return np.greater_equal(draws, self.rate, out=mask)

    def _stream(self):
        if self._work is not None:
            return self._work.rng
        if self._rng is None:
            self._rng = as_generator(None)
        return self._rng

    def _masked(self, array, mask, out):
        np.multiply(array, mask, out=out)
        out *= 1 / (1 - self.rate)
        return out

    def output_shape(self, input_shape):
        if self.channels:
            check_axes(input_shape, "n_imgs, n_channels, img_h, img_w")
        return tuple(input_shape)
