"""Activation: elementwise functions that cannot overflow."""

import numpy as np

from nnet._dense import bprop_relu
from nnet.layers.arguments import Option, as_word
from nnet.layers.base import Layer

LEAK = 0.01  # leaky_relu's slope below zero, as Maas et al. 2013 chose it

# Each function writes f(x) to y, and may use temp; each slope writes f'(x), found from y alone.


def relu(x, y, temp):
    np.maximum(x, 0, out=y)


def relu_slope(y, slope):
    np.greater(y, 0, out=slope)


def leaky_relu(x, y, temp):
    np.multiply(x, LEAK, out=y)
    np.maximum(x, y, out=y)


def leaky_relu_slope(y, slope):
    np.greater(y, 0, out=slope)
    slope *= 1 - LEAK
    slope += LEAK


def sigmoid(x, y, temp):
    # 1 / (1 + e^-x) for x >= 0, e^x / (1 + e^x) below: no exponent is positive.
    np.abs(x, out=temp)
    np.negative(temp, out=temp)
    np.exp(temp, out=temp)
    temp += 1
    np.minimum(x, 0, out=y)
    np.exp(y, out=y)
    y /= temp


def sigmoid_slope(y, slope):
    np.subtract(1, y, out=slope)
    slope *= y


def tanh(x, y, temp):
    np.tanh(x, out=y)


def tanh_slope(y, slope):
    np.multiply(y, y, out=slope)
    np.subtract(1, slope, out=slope)


def elu(x, y, temp):
    np.minimum(x, 0, out=y)
    np.expm1(y, out=y)
    np.maximum(x, 0, out=temp)
    y += temp


def elu_slope(y, slope):
    np.minimum(y, 0, out=slope)
    slope += 1


def softplus(x, y, temp):
    # log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)
    np.abs(x, out=y)
    np.negative(y, out=y)
    np.exp(y, out=y)
    np.log1p(y, out=y)
    np.maximum(x, 0, out=temp)
    y += temp


def softplus_slope(y, slope):
    np.negative(y, out=slope)
    np.expm1(slope, out=slope)
    np.negative(slope, out=slope)


FUNCTIONS = {
    "relu": (relu, relu_slope),
    "leaky_relu": (leaky_relu, leaky_relu_slope),
    "sigmoid": (sigmoid, sigmoid_slope),
    "tanh": (tanh, tanh_slope),
    "elu": (elu, elu_slope),
    "softplus": (softplus, softplus_slope),
}


class Activation(Layer):
    """An elementwise function.

    Parameters
    ----------
    type : {'relu', 'leaky_relu', 'sigmoid', 'tanh', 'elu', 'softplus'}
        leaky_relu has slope 0.01 below zero, elu (Clevert et al. 2016) alpha = 1.
    """

    type = Option(as_word, tuple(FUNCTIONS))

    def __init__(self, type):
        self.type = type

    def fprop(self, input):
        function, _ = FUNCTIONS[self.type]
        output = self._output(input)
        function(input, output, self._scratch(input.shape, input.dtype))
        return self.keep(output)

    def keep(self, output):
        """Take an output that another layer has computed."""
        if self.training:
            self._kept = output
        return output

    def bprop(self, output_grad):
        output = self._kept
        grad = self._scratch(output.shape, output.dtype)
        if self.type == "relu":
            return bprop_relu(output, output_grad, grad)
        _, slope = FUNCTIONS[self.type]
        slope(output, grad)
        return np.multiply(grad, output_grad, out=grad)

    def output_shape(self, input_shape):
        return tuple(input_shape)
