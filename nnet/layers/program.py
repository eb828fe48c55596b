"""Program: the forward and the backward pass of layers in a row."""

import numpy as np

from nnet.layers import fusion
from nnet.layers.tree import describe, is_own, learns


class Program:
    """Which functions a batch passes through, and its gradient on the way back.

    Sequentials inside of the row are laid open, so that fusions go across their ends.

    Parameters
    ----------
    children : dict of str to Layer
    prefix : str
        What stands before their names.
    trace : Trace
        That has followed a batch through them.
    need_input_grad : bool
        Without, the backward pass ends at the first layer that learns.
    alone : bool
        Whether containers inside of the row find programs for themselves.
    """

    def __init__(self, children, prefix, trace, need_input_grad=True, alone=False):
        row = list(lay_open(children, prefix))
        layers = [layer for _, layer in row]
        self.need_input_grad = need_input_grad
        start = 0
        if not need_input_grad:
            start = next((i for i, layer in enumerate(layers) if learns(layer)), len(layers))
        customs = {}
        for i, (name, layer) in enumerate(row):
            need = trace.needs[id(layer)] = i > start or need_input_grad
            if layer._is_container and not alone:
                layer._compile(f"{name}.", trace, need)
            if not is_own(layer):
                customs[id(layer)] = Custom(layer, name, trace.shapes[id(layer)], need)
        fused = list(fusion.fuse(layers, fusion.FORWARD))
        self.groups = [group for group, _ in fused]
        self.forward = [
            function or customs.get(id(group[0]), group[0]).fprop for group, function in fused
        ]
        self.backward = [
            function or customs.get(id(group[0]), group[0]).bprop
            for group, function in fusion.fuse(layers[start:], fusion.BACKWARD)
        ][::-1]

    def fprop(self, batch):
        for function in self.forward:
            batch = function(batch)
        return batch

    def bprop(self, grad):
        """The gradient by the input, or None if nobody needs it."""
        for function in self.backward:
            grad = function(grad)
        return grad if self.need_input_grad else None


def lay_open(children, prefix):
    """(name, layer) of the layers in a row, with those of a Sequential in its place."""
    for key, layer in children.items():
        if layer._is_row():
            yield from lay_open(layer.children, f"{prefix}{key}.")
        else:
            yield prefix + key, layer


class Custom:
    """A layer of the user's own: what it returns is checked, and has the network's dtype.

    A layer that refuses float32, as one may whose own arrays are all float64, is given float64.
    """

    def __init__(self, layer, name, shapes, need_input_grad):
        self.layer, self.name = layer, describe(name, layer)
        self.input_shape, self.output_shape = shapes
        self.dtype = self.network_dtype = layer.dtype
        self.need_input_grad = need_input_grad

    def fprop(self, input):
        output, self.dtype = self.call(self.layer.fprop, input, copy=False)
        return self.conform(output, (len(input), *self.output_shape), "fprop")

    def bprop(self, output_grad):
        grad, _ = self.call(self.layer.bprop, output_grad, copy=True)  # it may write to the copy
        if self.need_input_grad:
            return self.conform(grad, (len(output_grad), *self.input_shape), "bprop")
        return None

    def call(self, method, array, copy):
        """What a method returns, and the dtype that it has taken the array in."""
        try:
            return method(array.astype(self.dtype, copy=copy)), self.dtype
        except TypeError:
            if self.dtype == np.float64:
                raise
            return method(array.astype(np.float64)), np.dtype(np.float64)

    def conform(self, array, shape, method):
        """What a method has returned, in the network's dtype; refused if of a wrong shape."""
        array = np.asarray(array, self.network_dtype)
        if array.shape != shape:
            raise ValueError(f"{self.name}.{method} returned shape {array.shape}, expected {shape}")
        return array
