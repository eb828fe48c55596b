"""Standardize: raw pixel values to about zero mean and unit variance."""

import math

import numpy as np

from nnet.layers.arguments import Option, as_real
from nnet.layers.base import Layer


def as_finite(value, name, above, expected):
    """A float between `above` and infinity, both excluded."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}, {expected}")
    number = as_real(value, name, expected)
    if not above < number < math.inf:
        raise ValueError(f"{name} is {value!r}, {expected}")
    return number


class Standardize(Layer):
    """(input - mean) / scale, with two fixed numbers.

    As a first layer it keeps the scale of the training images with the network,
    which then takes raw images: `Standardize(X.mean(), X.std())`.

    Parameters
    ----------
    mean : float
        Finite.
    scale : float
        Finite and greater than 0.
    """

    mean = Option(as_finite, -math.inf, "expected a finite number")
    scale = Option(as_finite, 0.0, "expected a finite number greater than 0")

    def __init__(self, mean=0.0, scale=1.0):
        self.mean, self.scale = mean, scale

    def fprop(self, input):
        output = self._output(input)
        np.subtract(input, self.mean, out=output)
        output /= self.scale
        return output

    def bprop(self, output_grad):
        input_grad = self._scratch(output_grad.shape, output_grad.dtype)
        return np.divide(output_grad, self.scale, out=input_grad)

    def output_shape(self, input_shape):
        return tuple(input_shape)
