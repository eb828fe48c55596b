"""The fusions of neighbouring layers: one computes what two ask for, to the same bits.

They are applied once, when a network is set up. Only nnet's own classes take part: a
class derived from one may do something else.
"""

from nnet.layers.activation import Activation
from nnet.layers.norm import BatchNorm, GroupNorm
from nnet.layers.pool import Pool


def computes_relu(layer):
    """Whether its class says so of itself: a container may, which cannot be imported here."""
    return "_COMPUTES_RELU" in vars(type(layer))


def is_norm(layer):
    return type(layer) in (BatchNorm, GroupNorm)


def is_relu(layer):
    return type(layer) is Activation and layer.type == "relu"


def is_max_pool(layer):
    return type(layer) is Pool and layer.mode == "max"


def with_relu(layer, relu):
    """The layer computes the ReLU while it has its own output in registers."""
    return lambda input: relu.keep(layer.fprop(input, "relu"))


def norm_relu(norm, relu):
    """The normalisation computes the gradient of the ReLU in the passes that it takes anyway."""
    return lambda output_grad: norm.bprop(output_grad, "relu")


def relu_max_pool(relu, pool):
    """The pooling computes the gradient of the ReLU: on fewer values."""
    return pool.bprop_relu


# (what the layers are, the function that stands for them), the first that fits counts
FORWARD = (((computes_relu, is_relu), with_relu),)
BACKWARD = (
    ((is_norm, is_relu), norm_relu),
    ((is_relu, is_max_pool), relu_max_pool),
)


def fuse(layers, rules):
    """(layers of a group, function or None) for each group that is called as one, in order."""
    i = 0
    while i < len(layers):
        group, function = layers[i : i + 1], None
        for pattern, make in rules:
            candidates = layers[i : i + len(pattern)]
            if len(candidates) == len(pattern) and all(
                fits(layer) for fits, layer in zip(pattern, candidates)
            ):
                group, function = candidates, make(*candidates)
                break
        yield group, function
        i += len(group)
