"""What a layer is: the bases of all layers, yours included."""

import inspect
import math
from abc import ABC, abstractmethod
from operator import index

import numpy as np


class Layer(ABC):
    """One step of a network. Shapes include the batch axis, which comes first.

    A layer of your own needs `fprop`, `bprop` and `output_shape`, and `_setup`
    if it has something to prepare. Batches differ in length: the last one of
    an epoch may be smaller than the `input_shape` that `_setup` saw.

    Attributes
    ----------
    dtype : numpy.dtype
        Of parameters and activations; a network sets it before `_setup`.
    training : bool
        A network sets it to False while it predicts: `fprop` then keeps
        nothing for `bprop`.
    need_input_grad : bool
        A network sets it to False for its first layer with parameters, whose
        `bprop` may then return None: nobody reads its input gradient.
    """

    dtype = np.dtype(np.float32)
    training = True
    need_input_grad = True

    _kept = None  # what fprop keeps for bprop; a network drops it after fit
    # A network lends a dict while it works: the arrays that _array hands out every step,
    # "output_shape", that of one image, "buffers", where _fleeting takes its arrays from, and
    # "fused", in which fusions the layer takes part.
    _lent = None

    @property
    def _fused_relu(self):
        """Of an Activation('relu') and of the layer before it that computes it."""
        return self._lent is not None and "relu" in self._lent["fused"]

    @property
    def _fused_relu_grad(self):
        """Of a max-Pool, and of the ReLU before it whose gradient it computes."""
        return self._lent is not None and "relu_grad" in self._lent["fused"]

    def _setup(self, input_shape, rng):
        """Check the input's shape and start afresh, with random numbers from `rng`."""

    @abstractmethod
    def fprop(self, input):
        """The output for a batch, which it must not write to."""

    @abstractmethod
    def bprop(self, output_grad):
        """The gradient by the last `fprop`'s input, from that by its output: per image, undivided.

        A layer with parameters computes their gradients too: means over the images.
        """

    @abstractmethod
    def output_shape(self, input_shape):
        """The shape of `fprop`'s output."""

    def config(self):
        """The constructor's arguments, by name: JSON can hold them."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def __repr__(self):
        arguments = [
            f"{name}={getattr(self, name)!r}"
            for name, parameter in inspect.signature(type(self)).parameters.items()
            if repr(getattr(self, name, parameter.default)) != repr(parameter.default)
        ]
        return f"{type(self).__name__}({', '.join(arguments)})"

    def _array(self, name, shape, dtype):
        """An uninitialised array: new, or inside a network's fit or predict the same every time."""
        if self._lent is None:
            return np.empty(shape, dtype)
        array = self._lent.get(name)
        if array is None or array.shape[1:] != shape[1:] or len(array) < shape[0]:
            array = self._lent[name] = np.empty(shape, dtype)
        return array if len(array) == shape[0] else array[: shape[0]]

    def _fleeting(self, shape, dtype):
        """An uninitialised array for what only the next pass reads: the next but one reuses it."""
        if self._lent is None:
            return np.empty(shape, dtype)
        return self._lent["buffers"].next_array(shape, dtype)

    def _output(self, input):
        """The array for the output of a batch; a network knows its shape."""
        if self._lent is None:
            return np.empty(self.output_shape(input.shape), input.dtype)
        return self._array("output", (len(input), *self._lent["output_shape"]), input.dtype)


NOTHING = np.empty(0, np.uint8)


class Buffers:
    """Two pieces of memory that take turns: a pass reads the one and writes the other."""

    def __init__(self):
        self._next, self._last = NOTHING, NOTHING

    def next_array(self, shape, dtype):
        n_bytes = math.prod(shape) * dtype.itemsize
        self._next, self._last = self._last, self._next
        if self._last.size < n_bytes:
            self._last = np.empty(n_bytes, np.uint8)
        return np.ndarray(shape, dtype, self._last)


class ParamMixin(ABC):
    """A layer with parameters: three lists of arrays in the same order."""

    @abstractmethod
    def params(self):
        """The parameters themselves: training changes these arrays in place."""

    @abstractmethod
    def param_grads(self):
        """The loss's gradients by the parameters, means over the last batch's images."""

    def param_incs(self):
        """The directions to step against: the gradients, and weight decay if the layer has it."""
        return self.param_grads()


class LossMixin(ABC):
    """The last layer: compares its input, the scores, with the target.

    `fprop` turns the scores into what the network predicts. If `is_classifier`,
    that is one value per class, the largest wins, and the target is an array
    (n_imgs,) of class indices. Otherwise the target is an array of the scores'
    shape and dtype.
    """

    is_classifier = True

    @abstractmethod
    def loss(self, input, target):
        """The mean loss over the batch."""

    @abstractmethod
    def input_grad(self, input, target):
        """The gradient of each image's loss by its scores: per image, undivided."""


class WeightedLayer(Layer, ParamMixin):
    """The common half of Conv and Linear: weights W, biases b, and their gradients."""

    def __init__(self, weight_scale, weight_decay, use_bias):
        if weight_scale not in ("he", "glorot"):
            weight_scale = as_float(weight_scale, "weight_scale", " or 'he' or 'glorot'")
        self.weight_scale = weight_scale
        self.weight_decay = as_float(weight_decay, "weight_decay")
        self.use_bias = as_bool(use_bias, "use_bias")
        self.W = self.b = None

    def _setup(self, input_shape, rng):
        shapes = self.param_shapes(input_shape)
        std = self.weight_scale
        if std == "he":  # He et al. 2015, "Delving deep into rectifiers", eq. 10
            std = math.sqrt(2 / self._fans(shapes["W"])[0])
        elif std == "glorot":  # Glorot and Bengio 2010, eq. 12: a normal of this variance
            std = math.sqrt(2 / sum(self._fans(shapes["W"])))
        arrays = {"W": (std * rng.standard_normal(shapes["W"])).astype(self.dtype)}
        if self.use_bias:
            arrays["b"] = np.zeros(shapes["b"], self.dtype)
        self._set_params(arrays)

    def _set_params(self, arrays):
        self.W, self.b = arrays["W"], arrays.get("b")
        self.W_grad = np.zeros_like(self.W)
        self.b_grad = None if self.b is None else np.zeros_like(self.b)

    def param_names(self):
        return ["W", "b"] if self.use_bias else ["W"]

    def params(self):
        return [getattr(self, name) for name in self.param_names()]

    def param_grads(self):
        return [getattr(self, name + "_grad") for name in self.param_names()]

    def param_incs(self):
        W_grad, *b_grad = self.param_grads()
        if self.weight_decay == 0.0:
            return [W_grad, *b_grad]
        W_inc = self._array("W_inc", self.W.shape, self.W.dtype)
        np.multiply(self.W, self.weight_decay, out=W_inc)
        W_inc += W_grad
        return [W_inc, *b_grad]


def check_axes(input_shape, axes, advice=""):
    """Refuse an input without the named axes, or with nothing along one of them."""
    n_axes = axes.count(",") + 1
    if len(input_shape) != n_axes:
        raise ValueError(f"expected {n_axes} axes ({axes}), got shape {tuple(input_shape)}{advice}")
    if 0 in input_shape[1:]:
        raise ValueError(f"expected no empty axis in ({axes}), got shape {tuple(input_shape)}")


def as_int(value, name, minimum):
    """An int of at least `minimum`."""
    try:
        value = index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, expected an integer") from None
    if value < minimum:
        raise ValueError(f"{name} is {value}, expected at least {minimum}")
    return value


def as_bool(value, name):
    if not isinstance(value, (bool, np.bool_)) and not (isinstance(value, int) and value in (0, 1)):
        raise TypeError(f"{name} is {value!r}, expected True or False")
    return bool(value)


def as_float(value, name, alternatives=""):
    """A finite float of at least 0."""
    expected = f"expected a finite number of at least 0{alternatives}"
    if isinstance(value, str) or not np.isscalar(value):
        raise TypeError(f"{name} is {value!r}, {expected}")
    if not (0 <= value < math.inf):
        raise ValueError(f"{name} is {value!r}, {expected}")
    return float(value)


def as_generator(rng):
    """The source of random numbers that an `rng` stands for."""
    if isinstance(rng, (np.random.Generator, np.random.RandomState)):
        return rng
    try:
        return np.random.default_rng(rng if rng is None else index(rng))
    except TypeError:
        raise TypeError(
            f"rng is {rng!r}, expected None, an int, a Generator or a RandomState"
        ) from None
