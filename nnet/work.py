"""What layers lend each other while a network works: arrays to reuse, and each other's passes."""

from contextlib import contextmanager
from typing import NamedTuple

from nnet import layers as own
from nnet.layers import Activation, Conv, Linear, Pool

OWN = {getattr(own, name) for name in own.__all__}


class Fusions(NamedTuple):
    """Layers of which one does the work of the other: both are in the list."""

    relu: list  # a Conv or a Linear computes the ReLU after it, while it has its own output
    relu_grad: list  # a max-Pool computes the gradient of the ReLU before it: on fewer values


def find_foreign(layers):
    """Which layers are not of nnet's own classes: what they return is to be checked."""
    return {i for i, layer in enumerate(layers) if type(layer) not in OWN}


def find_fusions(layers):
    """Only of nnet's own classes: a class derived from one may do something else."""
    found = Fusions([], [])
    for layer, after in zip(layers, layers[1:]):
        if type(layer) in (Conv, Linear) and _is_relu(after):
            found.relu.extend([layer, after])
        if _is_relu(layer) and type(after) is Pool and after.mode == "max":
            found.relu_grad.extend([layer, after])
    return found


def _is_relu(layer):
    return type(layer) is Activation and layer.type == "relu"


@contextmanager
def at_work(layers, shapes, fusions, first_trained, training, lock):
    """Lend the layers arrays to reuse, and fuse what can be fused; one thread at a time.

    At the end the arrays are taken back, and all activations with them.
    """
    with lock:
        before = [(a.training, a._lent, a._kept) for a in layers]
        need_input_grad = layers[first_trained].need_input_grad
        try:
            for layer, output_shape in zip(layers, shapes[1:]):
                layer.training, layer._lent = training, {"output_shape": output_shape}
            for layer in fusions.relu:
                layer._lent["fused_relu"] = True
            for layer in fusions.relu_grad:
                layer._lent["fused_relu_grad"] = True
            layers[first_trained].need_input_grad = False
            yield
        finally:
            layers[first_trained].need_input_grad = need_input_grad
            for a, (training, lent, kept) in zip(layers, before):
                a.training, a._lent, a._kept = training, lent, kept
