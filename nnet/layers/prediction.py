"""Prediction: what layers in a row compute, as compiled programs.

A program has the plans of its layers and their weights, packed; batch normalisation after a
convolution or a dense layer is part of these, a ReLU part of the layer before it. Layers of the
user's own, and what has no step, are called between programs.
"""

from collections.abc import Callable
from math import prod

from nnet import dispatch
from nnet._program import Program
from nnet.layers import fusion
from nnet.layers.activation import Activation
from nnet.layers.classification import BinaryCrossEntropy, LogRegression
from nnet.layers.containers import Residual
from nnet.layers.conv import Conv, DepthwiseConv
from nnet.layers.dropout import Dropout
from nnet.layers.linear import Flatten, Linear
from nnet.layers.norm import BatchNorm, GroupNorm
from nnet.layers.pool import GlobalAveragePool, GlobalMaxPool, Pool
from nnet.layers.program import lay_open
from nnet.layers.regression import ValueLoss
from nnet.layers.standardize import Standardize

INPUT, NOTHING = -1, -2  # what a step may read instead of another's value
ConvStep = dispatch.module("_conv").ConvStep
PoolStep = dispatch.module("_pool").PoolStep
LinearStep = dispatch.module("_dense").LinearStep
FunctionStep = dispatch.module("_dense").FunctionStep
NormStep = dispatch.module("_dense").NormStep
SoftmaxStep = dispatch.module("_dense").SoftmaxStep
StandardizeStep = dispatch.module("_dense").StandardizeStep


class Prediction:
    """The scores that layers in a row have for images, whatever the number of these.

    Parameters
    ----------
    program : nnet.layers.program.Program
        Of these layers: what is not compiled is called as it calls it.
    trace : Trace
        That has followed a batch through them.
    image_shape : tuple
    dtype : numpy.dtype
    loss : Layer
        The layer after them.

    Attributes
    ----------
    calls_layers : bool
        Whether there are layers that are called, and want what a network lends them.
    whole : nnet._program.Program or None
        All layers, if that and `last` are all that a prediction takes.
    last : nnet._program.Step or None
        What the loss makes of the scores, in their place; None if these are what it predicts.
    """

    def __init__(self, program, trace, image_shape, dtype, loss):
        self._parts, self.calls_layers = [], False
        steps, shape, i = Steps(trace, image_shape, dtype), image_shape, 0
        while i < len(program.groups):
            n = steps.add(program.groups, i)
            i += n or 1
            if n == 0:
                self._end(steps, shape)
                self._parts.append(program.forward[i - 1])
                self.calls_layers = True
            shape = trace.shapes[id(program.groups[i - 1][-1])][1]
            if n == 0:
                steps = Steps(trace, shape, dtype)
        self._end(steps, shape)
        self.whole = self.last = None
        make_last = LAST_STEPS.get(type(loss).fprop)
        if make_last and len(self._parts) == 1 and isinstance(self._parts[0], Program):
            self.whole = self._parts[0]
            self.last = make_last(trace.shapes[id(loss)][0], dtype)

    def _end(self, steps, shape):
        """A program of these steps, whose values have a shape."""
        if steps.steps:
            self._parts.append(Program(steps.steps, steps.sources, steps.shape, shape, steps.dtype))
        elif shape != steps.shape:  # a Flatten alone
            self._parts.append(lambda images: images.reshape(len(images), *shape))

    def __call__(self, images):
        for part in self._parts:
            images = part(images)
        return images


class Steps:
    """The steps of some layers in a row, which read images of a shape.

    Parameters
    ----------
    trace : Trace
    shape : tuple
    dtype : numpy.dtype

    Attributes
    ----------
    steps : list of nnet._program.Step
    sources : list of (int, int)
        What each of them reads.
    value : int
        The step whose value the next layer reads.
    """

    def __init__(self, trace, shape, dtype):
        self.trace, self.shape, self.dtype = trace, shape, dtype
        self.steps, self.sources, self.value = [], [], INPUT

    def add(self, groups, i):
        """Add what groups[i] and perhaps the next one do; how many of them: 0 if it cannot."""
        layer, with_relu = groups[i][0], len(groups[i]) == 2
        if type(layer) in (Conv, DepthwiseConv, Linear):
            norm, n = None, 1
            if not with_relu and i + 1 < len(groups) and type(groups[i + 1][0]) is BatchNorm:
                norm, n, with_relu = groups[i + 1][0], 2, len(groups[i + 1]) == 2
            self._append(self._weighted(layer, norm, with_relu))
            return n
        if type(layer) in (BatchNorm, GroupNorm):
            n_channels, *pixels = self.trace.shapes[id(layer)][0]
            n_groups = layer.n_groups if type(layer) is GroupNorm else 0
            self._append(NormStep(layer, n_channels, prod(pixels), n_groups, with_relu))
            return 1
        if type(layer) is Residual:
            return self._add_residual(layer, with_relu)
        make = STEPS.get(type(layer))
        if make is None or with_relu:
            return 0
        step = make(layer, *self.trace.shapes[id(layer)], self.dtype)
        if step is None:
            return 0
        if step is not SAME:
            self._append(step)
        return 1

    def _append(self, step, other=NOTHING):
        self.steps.append(step)
        self.sources.append((self.value, other))
        self.value = len(self.steps) - 1

    def _weighted(self, layer, norm, with_relu):
        if type(layer) is Linear:
            return LinearStep(layer, norm, with_relu)
        shape = (0, *self.trace.shapes[id(layer)][0])
        return ConvStep(layer, norm, shape, with_relu, layer._geometry())

    def _add_residual(self, layer, with_relu):
        """Both branches, and their sum; nothing at all if a layer inside has no step."""
        before = len(self.steps), self.value
        values = []
        for row in layer._rows():
            self.value = before[1]
            if not self._add_all([each for _, each in lay_open(row, "")]):
                del self.steps[before[0] :], self.sources[before[0] :]
                self.value = before[1]
                return 0
            values.append(self.value)
        size = prod(self.trace.shapes[id(layer)][1])
        self.value = values[0]
        step = FunctionStep(size, self.dtype, "relu" if with_relu else None, of_sum=True)
        self._append(step, values[1])
        return 1

    def _add_all(self, layers):
        groups = [group for group, _ in fusion.fuse(layers, fusion.FORWARD)]
        i = 0
        while i < len(groups):
            n = self.add(groups, i)
            if n == 0:
                return False
            i += n
        return True


SAME = object()  # instead of a step: the values stay as they are


def pool_step(layer, shape, out_shape, dtype):
    sizes, options = layer._geometry()
    return PoolStep((0, *shape), tuple(sizes), options, dtype.itemsize)


def global_pool_step(layer, shape, out_shape, dtype):
    return PoolStep((0, *shape), (*shape[1:], *shape[1:]), layer._WHOLE, dtype.itemsize)


def activation_step(layer, shape, out_shape, dtype):
    if layer.type == "softmax":
        return None
    return FunctionStep(prod(shape), dtype, layer.type)


def standardize_step(layer, shape, out_shape, dtype):
    size = prod(shape)
    return StandardizeStep(size, size // shape[0] if layer.adapts() else size, dtype, layer)


def no_step(layer, shape, out_shape, dtype):
    return SAME


STEPS: dict[type, Callable] = {
    Pool: pool_step,
    GlobalAveragePool: global_pool_step,
    GlobalMaxPool: global_pool_step,
    Activation: activation_step,
    Standardize: standardize_step,
    Flatten: no_step,
    Dropout: no_step,
}


# --- what losses predict --------------------------------------------------------------


def softmax_step(shape, dtype):
    return SoftmaxStep(shape[0], prod(shape[1:]), dtype)


def sigmoid_step(shape, dtype):
    return FunctionStep(prod(shape), dtype, "sigmoid")


def no_last_step(shape, dtype):
    return None


LAST_STEPS: dict[Callable, Callable] = {
    LogRegression.fprop: softmax_step,
    BinaryCrossEntropy.fprop: sigmoid_step,
    ValueLoss.fprop: no_last_step,
}
