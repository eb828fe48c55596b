"""What layers lend each other while a network works: arrays to reuse, and each other's passes."""

from nnet import layers as own
from nnet.layers import Activation, Conv, Linear, Pool
from nnet.layers.base import Buffers

OWN = {getattr(own, name) for name in own.__all__}


def find_foreign(layers):
    """Which layers are not of nnet's own classes: what they return is to be checked."""
    return {i for i, layer in enumerate(layers) if type(layer) not in OWN}


def find_fusions(layers):
    """For each layer, in which fusions of two it takes part: one does the work of the other.

    Only nnet's own classes do: a class derived from one may do something else.
    """
    found = [set() for _ in layers]
    for i, (layer, after) in enumerate(zip(layers, layers[1:])):
        if type(layer) in (Conv, Linear) and _is_relu(after):
            # The former computes the ReLU, while it has its own output.
            found[i].add("relu")
            found[i + 1].add("relu")
        if _is_relu(layer) and type(after) is Pool and after.mode == "max":
            # The latter computes the gradient of the ReLU: on fewer values.
            found[i].add("relu_grad")
            found[i + 1].add("relu_grad")
    return found


def _is_relu(layer):
    return type(layer) is Activation and layer.type == "relu"


class AtWork:
    """A context that lends the layers arrays to reuse, and fuses them; one thread at a time.

    At the end the arrays are taken back, and all activations with them. (A class: the
    generator of a contextlib.contextmanager takes a microsecond of every prediction.)
    """

    def __init__(self, layers, shapes, fusions, first_trained, training, lock):
        self.layers, self.shapes, self.fusions = layers, shapes, fusions
        self.first_trained, self.training, self.lock = first_trained, training, lock

    def __enter__(self):
        self.lock.acquire()
        self.before = [(layer.training, layer._lent) for layer in self.layers]
        self.need_input_grad = self.first_trained.need_input_grad
        buffers = Buffers()
        for layer, output_shape, fused in zip(self.layers, self.shapes[1:], self.fusions):
            layer.training = self.training
            layer._lent = {"output_shape": output_shape, "buffers": buffers, "fused": fused}
        self.first_trained.need_input_grad = False

    def __exit__(self, *error):
        self.first_trained.need_input_grad = self.need_input_grad
        for layer, (training, lent) in zip(self.layers, self.before):
            layer.training, layer._lent = training, lent
            if self.training:
                layer._kept = None
        self.lock.release()
