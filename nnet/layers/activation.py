"""Activation: functions that cannot overflow, of each value by itself, and softmax."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nnet._dense import bprop_gelu, bprop_relu, gelu
from nnet.layers.arguments import Option, as_word
from nnet.layers.base import Layer

LEAK = 0.01  # leaky_relu's slope below zero, as Maas et al. 2013 chose it
# Klambauer et al. 2017, "Self-normalizing neural networks", eq. 14:
SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
FLOAT64 = np.dtype(np.float64)


class Function(NamedTuple):
    """How to compute a function and its gradient. `scratch(shape, dtype)` gives arrays."""

    fprop: Callable  # (x, y, scratch): writes f(x) to y
    bprop: Callable  # (kept, y_grad, x_grad, scratch): writes y_grad * f'(x) to x_grad
    keeps_input: bool = False  # whether `kept` is x or y


def by_slope(slope):
    """The gradient of a function of one value; `slope(kept, out, scratch)` writes f' to out."""

    def bprop(kept, y_grad, x_grad, scratch):
        slope(kept, x_grad, scratch)
        np.multiply(x_grad, y_grad, out=x_grad)

    return bprop


# --- of one value, whose slope follows from y ---------------------------------------------


def relu(x, y, scratch):
    np.maximum(x, 0, out=y)


def relu_bprop(y, y_grad, x_grad, scratch):
    bprop_relu(y, y_grad, x_grad)


def leaky_relu(x, y, scratch):
    np.multiply(x, LEAK, out=y)
    np.maximum(x, y, out=y)


def leaky_relu_slope(y, slope, scratch):
    np.greater(y, 0, out=slope)
    slope *= 1 - LEAK
    slope += LEAK


def relu6(x, y, scratch):
    np.clip(x, 0, 6, out=y)


def relu6_slope(y, slope, scratch):
    between(y, 0, 6, slope, scratch)


def between(values, low, high, out, scratch):
    """1 where values are between two numbers, and neither of them, else 0."""
    below = scratch(values.shape, values.dtype)
    np.less(values, high, out=below)
    np.greater(values, low, out=out)
    out *= below


def sigmoid(x, y, scratch):
    # 1 / (1 + e^-x) for x >= 0, e^x / (1 + e^x) below: no exponent is positive.
    temp = scratch(x.shape, x.dtype)
    np.abs(x, out=temp)
    np.negative(temp, out=temp)
    np.exp(temp, out=temp)
    temp += 1
    np.minimum(x, 0, out=y)
    np.exp(y, out=y)
    y /= temp


def sigmoid_slope(y, slope, scratch):
    np.subtract(1, y, out=slope)
    slope *= y


def hard_sigmoid(x, y, scratch):
    # Clipped first: x of any size has a sixth.
    np.clip(x, -3, 3, out=y)
    y += 3
    y /= 6


def hard_sigmoid_slope(y, slope, scratch):
    between(y, 0, 1, slope, scratch)
    slope /= 6


def tanh(x, y, scratch):
    np.tanh(x, out=y)


def tanh_slope(y, slope, scratch):
    np.multiply(y, y, out=slope)
    np.subtract(1, slope, out=slope)


def elu(x, y, scratch, alpha=1.0):
    temp = scratch(x.shape, x.dtype)
    np.minimum(x, 0, out=y)
    np.expm1(y, out=y)
    y *= alpha
    np.maximum(x, 0, out=temp)
    y += temp


def elu_slope(y, slope, scratch):
    np.minimum(y, 0, out=slope)
    slope += 1


def selu(x, y, scratch):
    elu(x, y, scratch, SELU_ALPHA)
    y *= SELU_SCALE


def selu_slope(y, slope, scratch):
    # scale where y > 0, else scale * alpha * e^x = y + scale * alpha
    positive = scratch(y.shape, y.dtype)
    np.greater(y, 0, out=positive)
    positive *= SELU_SCALE * (1 - SELU_ALPHA)
    np.minimum(y, 0, out=slope)
    slope += SELU_SCALE * SELU_ALPHA
    slope += positive


def softplus(x, y, scratch):
    # log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)
    temp = scratch(x.shape, x.dtype)
    np.abs(x, out=y)
    np.negative(y, out=y)
    np.exp(y, out=y)
    np.log1p(y, out=y)
    np.maximum(x, 0, out=temp)
    y += temp


def softplus_slope(y, slope, scratch):
    np.negative(y, out=slope)
    np.expm1(slope, out=slope)
    np.negative(slope, out=slope)


# --- of one value, whose slope follows from x ---------------------------------------------


def silu(x, y, scratch):
    clipped = scratch(x.shape, x.dtype)
    sigmoid(x, y, scratch)
    np.maximum(x, -FLAT, out=clipped)  # minus infinity times 0 is NaN
    y *= clipped


def silu_slope(x, slope, scratch):
    # s + x s (1 - s) = s (1 + x (1 - s))
    s, clipped = scratch(x.shape, x.dtype), scratch(x.shape, x.dtype)
    np.clip(x, -FLAT, FLAT, out=clipped)
    sigmoid(clipped, s, scratch)
    np.subtract(1, s, out=slope)
    slope *= clipped
    slope += 1
    slope *= s


FLAT = 800.0  # beyond, sigmoid is 0 or 1 in double


def hard_swish(x, y, scratch):
    part = scratch(x.shape, x.dtype)
    hard_sigmoid(x, part, scratch)
    np.maximum(x, -3, out=y)
    y *= part


def hard_swish_slope(x, slope, scratch):
    # 0 below -3, x / 3 + 1 / 2 up to 3, 1 above: the clipped sixth's line, and its jumps.
    part = scratch(x.shape, x.dtype)
    between(x, -3, 3, part, scratch)
    np.clip(x, -3, 3, out=slope)
    slope *= part
    slope /= 3
    part *= 0.5
    slope += part
    np.greater_equal(x, 3, out=part)
    slope += part


def gelu_tanh(x, y, scratch):
    # (1 + tanh(u)) / 2 = sigmoid(2u)
    clipped, twice_u = scratch(x.shape, x.dtype), scratch(x.shape, x.dtype)
    np.clip(x, -GELU_FLAT, GELU_FLAT, out=clipped)
    gelu_argument(clipped, twice_u)
    sigmoid(twice_u, y, scratch)
    np.maximum(x, -GELU_FLAT, out=clipped)
    y *= clipped


def gelu_tanh_slope(x, slope, scratch):
    # s + x s (1 - s) (2u)', where (2u)' = 2 sqrt(2 / pi) (1 + 3 * 0.044715 x^2)
    clipped, s, part = (scratch(x.shape, x.dtype) for _ in range(3))
    np.clip(x, -GELU_FLAT, GELU_FLAT, out=clipped)
    gelu_argument(clipped, part)
    sigmoid(part, s, scratch)
    np.subtract(1, s, out=slope)
    slope *= clipped
    np.multiply(clipped, clipped, out=part)
    part *= 2 * GELU_ROOT * 3 * GELU_CUBE
    part += 2 * GELU_ROOT
    slope *= part
    slope += 1
    slope *= s


def gelu_argument(x, twice_u):
    """2u = 2 sqrt(2 / pi) (x + 0.044715 x^3)."""
    np.multiply(x, x, out=twice_u)
    twice_u *= GELU_CUBE
    twice_u += 1
    twice_u *= x
    twice_u *= 2 * GELU_ROOT


GELU_ROOT, GELU_CUBE = np.sqrt(2 / np.pi).item(), 0.044715
GELU_FLAT = 30.0  # beyond, u is so large that the function is 0 or x


def gelu_fprop(x, y, scratch):
    gelu(x, y)


def gelu_bprop(x, y_grad, x_grad, scratch):
    bprop_gelu(x, y_grad, x_grad)


# --- of all channels ----------------------------------------------------------------------


def softmax(x, y, scratch):
    shape = x.shape[0], 1, *x.shape[2:]
    highest, total = scratch(shape, x.dtype), scratch(shape, FLOAT64)
    np.maximum.reduce(x, axis=1, keepdims=True, out=highest)
    np.subtract(x, highest, out=y)
    np.exp(y, out=y)
    np.add.reduce(y, axis=1, keepdims=True, dtype=float, out=total)
    np.copyto(highest, total, "same_kind")
    y /= highest


def softmax_bprop(y, y_grad, x_grad, scratch):
    # y (g - sum over the channels of g y)
    shape = y.shape[0], 1, *y.shape[2:]
    total, rounded = scratch(shape, FLOAT64), scratch(shape, y.dtype)
    np.multiply(y_grad, y, out=x_grad)
    np.add.reduce(x_grad, axis=1, keepdims=True, dtype=float, out=total)
    np.copyto(rounded, total, "same_kind")
    np.subtract(y_grad, rounded, out=x_grad)
    x_grad *= y


FUNCTIONS = {
    "relu": Function(relu, relu_bprop),
    "leaky_relu": Function(leaky_relu, by_slope(leaky_relu_slope)),
    "relu6": Function(relu6, by_slope(relu6_slope)),
    "sigmoid": Function(sigmoid, by_slope(sigmoid_slope)),
    "hard_sigmoid": Function(hard_sigmoid, by_slope(hard_sigmoid_slope)),
    "tanh": Function(tanh, by_slope(tanh_slope)),
    "elu": Function(elu, by_slope(elu_slope)),
    "selu": Function(selu, by_slope(selu_slope)),
    "softplus": Function(softplus, by_slope(softplus_slope)),
    "gelu": Function(gelu_fprop, gelu_bprop, keeps_input=True),
    "gelu_tanh": Function(gelu_tanh, by_slope(gelu_tanh_slope), keeps_input=True),
    "silu": Function(silu, by_slope(silu_slope), keeps_input=True),
    "hard_swish": Function(hard_swish, by_slope(hard_swish_slope), keeps_input=True),
    "softmax": Function(softmax, softmax_bprop),
}


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

    type = Option(as_word, tuple(FUNCTIONS))

    def __init__(self, type):
        self.type = type

    def fprop(self, input):
        function = FUNCTIONS[self.type]
        output = self._output(input)
        function.fprop(input, output, self._scratch)
        if function.keeps_input:
            self.keep(input)
            return output
        return self.keep(output)

    def keep(self, output):
        """Take an output that another layer has computed."""
        if self.training:
            self._kept = output
        return output

    def bprop(self, output_grad):
        kept = self._kept
        grad = self._scratch(kept.shape, kept.dtype)
        FUNCTIONS[self.type].bprop(kept, output_grad, grad, self._scratch)
        return grad

    def output_shape(self, input_shape):
        if self.type == "softmax" and (len(input_shape) < 2 or input_shape[1] == 0):
            raise ValueError(f"expected channels, as in (n_imgs, n_channels), got {input_shape}")
        return tuple(input_shape)
