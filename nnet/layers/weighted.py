"""WeightedLayer: the common half of convolutions and Linear."""

import math
from abc import abstractmethod

import numpy as np

from nnet.layers.arguments import ArrayOption, Option, as_bool, as_float
from nnet.layers.base import Layer, ParamMixin


def as_weight_scale(value, name):
    if isinstance(value, str) and value in ("he", "glorot"):
        return value
    return as_float(value, name, " or 'he' or 'glorot'")


class WeightedLayer(Layer, ParamMixin):
    """Weights W, biases b, and their gradients."""

    W_grad: np.ndarray
    b_grad: np.ndarray

    W = ArrayOption()
    b = ArrayOption()
    weight_scale = Option(as_weight_scale)
    weight_decay = Option(as_float)
    use_bias = Option(as_bool)

    def __init__(self, weight_scale, weight_decay, use_bias):
        self.weight_scale = weight_scale
        self.weight_decay = weight_decay
        self.use_bias = use_bias
        self.W = self.b = None

    def _setup(self, input_shape, rng):
        shapes = self.array_shapes(input_shape)
        std = self.weight_scale
        if std == "he":  # He et al. 2015, "Delving deep into rectifiers", eq. 10
            std = math.sqrt(2 / self._fans(shapes["W"])[0])
        elif std == "glorot":  # Glorot and Bengio 2010, eq. 12: a normal of this variance
            std = math.sqrt(2 / sum(self._fans(shapes["W"])))
        arrays = {"W": (std * rng.standard_normal(shapes["W"])).astype(self.dtype), "b": None}
        if self.use_bias:
            arrays["b"] = np.zeros(shapes["b"], self.dtype)
        self._set_arrays(arrays)

    @abstractmethod
    def _fans(self, W_shape):
        """Inputs that one output sees, and outputs that one input reaches."""

    def multiply_adds(self, input_shape, output_shape):
        """All weights, once for each pixel of the output."""
        W_shape = self.array_shapes(input_shape)["W"]
        return math.prod(W_shape) * math.prod(output_shape[2:]) * output_shape[0]

    def param_names(self):
        return ["W", "b"] if self.use_bias else ["W"]

    def decaying_names(self):
        return ["W"]

    def params(self):
        if self.W is None:
            raise ValueError(f"{self!r} has no parameters yet, expected a call of fit or build")
        return [self.W, self.b] if self.use_bias else [self.W]

    def param_grads(self):
        return [self.W_grad, self.b_grad] if self.use_bias else [self.W_grad]

    def param_incs(self):
        grads = self.param_grads()
        if self.weight_decay == 0.0:
            return grads
        W_inc = self._array("W_inc", self.W.shape, self.W.dtype)
        np.multiply(self.W, self.weight_decay, out=W_inc)
        W_inc += grads[0]
        return [W_inc, *grads[1:]]

    def _learns(self):
        """Whether anybody reads the gradients of its parameters: not if it is frozen."""
        return self.trainable if self._work is None else self._work.trainable

    def _bias_grad(self):
        return self.b_grad if self.use_bias else None
