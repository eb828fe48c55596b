"""Standardize: raw pixel values to about zero mean and unit variance."""

import math

import numpy as np

from nnet.layers.arguments import Option, as_finite, check_like, check_real
from nnet.layers.base import Layer
from nnet.layers.hints import with_hints

ROUNDING = 10 * np.finfo(float).eps  # of a mean: less is no deviation


def as_known(value, name, above, expected):
    """The same, or None."""
    return None if value is None else as_finite(value, name, above, expected)


class Standardize(Layer):
    """(input - mean) / scale.

    As a first layer it keeps the scale of the training images with the network, which then
    takes raw images.

    Parameters
    ----------
    mean, scale : None or float
        Finite, and the scale greater than 0: `Standardize(X.mean(), X.std())`; if one is given,
        the other is 0 or 1. None, for both: those of each channel, or feature, of the images
        that fit trains on, their weights included; for this it has to be the first layer.

    Attributes
    ----------
    mean_, scale_ : array (n_channels,)
        What fit has found: means and standard deviations, or 1 for channels that are constant.
    """

    mean_: np.ndarray
    scale_: np.ndarray

    mean = Option(as_known, -math.inf, "expected None or a finite number")
    scale = Option(as_known, 0.0, "expected None or a finite number greater than 0")

    @with_hints()
    def __init__(self, mean=None, scale=None):
        self.mean, self.scale = mean, scale

    def adapts(self):
        """Whether mean and scale are those of the images of fit."""
        return self.mean is None and self.scale is None

    def state_names(self):
        return ["mean_", "scale_"] if self.adapts() else []

    def nonnegative_names(self):
        return self.state_names()[1:]

    def array_shapes(self, input_shape):
        return dict.fromkeys(self.state_names(), (input_shape[1],))

    def _setup(self, input_shape, rng):
        if self.adapts():
            n_channels = (input_shape[1],)
            arrays = {"mean_": np.zeros(n_channels), "scale_": np.ones(n_channels)}
            self._set_arrays({name: array.astype(self.dtype) for name, array in arrays.items()})

    def adapt(self, batches):
        """Find mean and scale, in double precision and in one pass.

        Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance", eq. 1.5:
        sums of squares are those of differences from the mean of their batch.

        Parameters
        ----------
        batches : iterable of (images, weights)
            Weights are None or an array (n_imgs,).
        """
        count = mean = squares = 0.0
        for images, weights in batches:
            weights = np.ones(len(images)) if weights is None else weights
            values = np.moveaxis(images.astype(float), 1, -1)
            weights = np.broadcast_to(
                weights.reshape(-1, *[1] * (values.ndim - 2)), values.shape[:-1]
            )
            values, weights = values.reshape(-1, values.shape[-1]), weights.reshape(-1, 1)
            n_new = weights.sum()
            if n_new == 0:
                continue
            new_mean = (weights * values).sum(axis=0) / n_new
            values -= new_mean
            difference, share = new_mean - mean, n_new / (count + n_new)
            squares += (weights * values * values).sum(axis=0) + difference**2 * count * share
            mean, count = mean + difference * share, count + n_new
        if count == 0:
            raise ValueError("the weights of all images are zero, expected some more")
        scale = np.sqrt(squares / count)
        self.mean_[...] = mean
        self.scale_[...] = np.where(scale > ROUNDING * np.abs(mean), scale, 1)

    def _constants(self, n_axes):
        """Mean and scale, with as many axes as the input."""
        if not self.adapts():
            return self.mean or 0.0, self.scale or 1.0
        if not hasattr(self, "mean_"):
            raise ValueError(f"{self!r} has no mean_ and scale_ yet, expected a call of fit")
        shape = (-1, *[1] * (n_axes - 2))
        return self.mean_.reshape(shape), self.scale_.reshape(shape)

    def fprop(self, input):
        check_real(input, "input")
        mean, scale = self._constants(input.ndim)
        output = self._output(input)
        if self.training:
            self._kept = input.shape, input.dtype
        np.subtract(input, mean, out=output)
        output /= scale
        return output

    def bprop(self, output_grad):
        if self._kept is not None:  # a derived class may have an fprop of its own
            check_like(output_grad, "output_grad", *self._kept)
        input_grad = self._scratch(output_grad.shape, output_grad.dtype)
        return np.divide(output_grad, self._constants(output_grad.ndim)[1], out=input_grad)

    def output_shape(self, input_shape):
        return tuple(input_shape)
