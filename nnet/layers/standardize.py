"""Standardize: raw pixel values to about zero mean and unit variance."""

import math

import numpy as np

from nnet.layers.base import Layer


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

    def __init__(self, mean=0.0, scale=1.0):
        self.mean = _as_finite(mean, "mean", -math.inf, "a finite number")
        self.scale = _as_finite(scale, "scale", 0.0, "a finite number greater than 0")

    def fprop(self, input):
        output = self._array("output", input.shape, input.dtype)
        np.subtract(input, self.mean, out=output)
        output /= self.scale
        return output

    def bprop(self, output_grad):
        input_grad = self._fleeting(output_grad.shape, output_grad.dtype)
        return np.divide(output_grad, self.scale, out=input_grad)

    def output_shape(self, input_shape):
        return tuple(input_shape)


def _as_finite(value, name, above, expected):
    """A float between `above` and infinity, both excluded."""
    if isinstance(value, (str, bytes, bool)) or not np.isscalar(value) or np.iscomplexobj(value):
        raise TypeError(f"{name} is {value!r}, expected {expected}")
    if not above < value < math.inf:
        raise ValueError(f"{name} is {value!r}, expected {expected}")
    return float(value)
