"""Activation: functions that cannot overflow, of each value by itself, and softmax."""

import numpy as np

from nnet._dense import ACTIVATIONS, activate, bprop_activate
from nnet.layers.arguments import Option, as_word, check_like, check_real
from nnet.layers.base import Layer
from nnet.layers.hints import with_hints

FUNCTIONS = (*ACTIVATIONS, "softmax")
KEEPING_INPUT = ("gelu", "gelu_tanh", "silu", "hard_swish")  # whose slope y does not tell
FLOAT64 = np.dtype(np.float64)


def softmax(x, y, scratch):
    shape = x.shape[0], 1, *x.shape[2:]
    highest, total = scratch(shape, x.dtype), scratch(shape, FLOAT64)
    np.maximum.reduce(x, axis=1, keepdims=True, out=highest)
    np.subtract(x, highest, out=y)
    np.exp(y, out=y)
    np.add.reduce(y, axis=1, keepdims=True, dtype=float, out=total)
    np.copyto(highest, total, "same_kind")
    y /= highest


def bprop_softmax(y, y_grad, x_grad, scratch):
    # y (g - sum over the channels of g y)
    shape = y.shape[0], 1, *y.shape[2:]
    total, rounded = scratch(shape, FLOAT64), scratch(shape, y.dtype)
    np.multiply(y_grad, y, out=x_grad)
    np.add.reduce(x_grad, axis=1, keepdims=True, dtype=float, out=total)
    np.copyto(rounded, total, "same_kind")
    np.subtract(y_grad, rounded, out=x_grad)
    x_grad *= y
    return x_grad


class Activation(Layer):
    """A function of each value, or of the values of all channels at a pixel.

    Parameters
    ----------
    type : str
        - 'relu', 'sigmoid', 'tanh', 'softplus'
        - 'leaky_relu', whose slope is 0.01 below zero
        - 'relu6', max(x, 0) up to 6
        - 'elu' (Clevert et al. 2016) with alpha = 1, and 'selu' (Klambauer et al. 2017)
        - 'gelu', x * (1 + erf(x / sqrt(2))) / 2, PyTorch's and Keras's default, and
          'gelu_tanh', its approximation (Hendrycks and Gimpel 2016, section 2)
        - 'silu' (or swish), x * sigmoid(x)
        - 'hard_sigmoid', x / 6 + 1 / 2 from 0 to 1, and 'hard_swish', x times that
          (Howard et al. 2019, "Searching for MobileNetV3", section 5.2)
        - 'softmax', over the channels (axis 1): not before LogRegression, which has its own
    """

    type = Option(as_word, FUNCTIONS)

    @with_hints("no function has an option", activation="type", negative_slope="none: it is 0.01")
    def __init__(self, type):
        self.type = type

    def fprop(self, input):
        output = self._output(input)
        if self.type == "softmax":
            check_real(input, "input")
            softmax(input, output, self._scratch)
        else:
            activate(input, output, type=self.type)
        self.keep(input if self.type in KEEPING_INPUT else output)
        return output

    def keep(self, values):
        """Take what `bprop` needs; of relu, another layer may have computed it."""
        if self.training:
            self._kept = values
        return values

    def bprop(self, output_grad):
        kept = self._kept
        grad = self._scratch(kept.shape, kept.dtype)
        if self.type == "softmax":
            check_like(output_grad, "output_grad", kept.shape, kept.dtype)
            return bprop_softmax(kept, output_grad, grad, self._scratch)
        return bprop_activate(kept, output_grad, grad, type=self.type)

    def output_shape(self, input_shape):
        if self.type == "softmax" and (len(input_shape) < 2 or input_shape[1] == 0):
            raise ValueError(f"expected channels, as in (n_imgs, n_channels), got {input_shape}")
        return tuple(input_shape)
