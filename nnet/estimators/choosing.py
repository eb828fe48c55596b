"""The layers of an estimator: from a name, a text, a function, a list, or the shape of X."""

import copy
from math import isqrt

from nnet import zoo
from nnet.layers import Activation, Flatten, Layer, Linear, LossMixin, Standardize
from nnet.layers.hints import did_you_mean
from nnet.layers.linear import scores_layer
from nnet.layers.program import lay_open
from nnet.layers.spec import LEAST_SIDE, default_spec, parse_layers
from nnet.layers.tree import Trace, layers_in, numbered
from nnet.training.data import bc01_shape
from nnet.training.setup import check_layers, refuse_activation

ZOO = ("lenet5", "mnist_net", "all_conv", "mini_vgg", "resnet8", "mobile_small")
LEAST_LENGTH = 128  # of a signal; what has fewer values is a table more often


def wants_table(layers, n_features):
    """Whether rows of X are features, not pixels: by the first layer, or how many there are.

    Parameters
    ----------
    layers : as for the estimators
    n_features : int
    """
    if layers is None:
        side = isqrt(n_features)
        is_image = side * side == n_features and side >= LEAST_SIDE
        return not is_image and n_features < LEAST_LENGTH
    if isinstance(layers, str):
        return layers.strip().startswith("linear")
    if not isinstance(layers, (list, tuple)):
        return False
    first = next((each for each in layers if not isinstance(each, Standardize)), None)
    return isinstance(first, Linear)


def make_layers(layers, image_shape, n_outputs, loss, decay):
    """Layers for a network of an estimator's own, the loss included.

    Parameters
    ----------
    layers : as for the estimators
    image_shape : tuple
        Of one image, signal or row of features.
    n_outputs : int
        How many scores the loss takes.
    loss : LossMixin
        For layers that have none.
    decay : float
        Of the weights: of layers that are given, added to their own.

    Raises
    ------
    ValueError, TypeError
        For names that don't exist, and layers that can't follow each other.
    """
    is_named = layers is None or isinstance(layers, str)
    if is_named:
        made = [Standardize(), *_named(layers, image_shape, n_outputs, loss)]
    else:
        made = _given(layers(image_shape) if callable(layers) else layers)
    last = made[-1] if made else None
    if not isinstance(last, LossMixin):
        _check_end(made[is_named:], n_outputs, loss)
        if not (isinstance(last, Linear) and last.n_out == n_outputs):
            made.append(scores_layer(n_outputs))
        made = _completed(made, image_shape, loss)
    elif _targets_of(last) != _targets_of(loss):
        raise ValueError(f"layers end in {last!r}, expected a loss such as {loss!r} for this y")
    for layer in layers_in(numbered(check_layers(made))):
        if hasattr(layer, "weight_decay"):
            layer.weight_decay = decay + (0.0 if is_named else layer.weight_decay)
    return made


def _named(layers, image_shape, n_outputs, loss):
    """Layers, those of the zoo with the loss."""
    if layers in ZOO:
        return [*getattr(zoo, layers)(n_outputs)[:-1], loss]
    spec = default_spec(image_shape) if layers is None else layers
    try:
        parsed = parse_layers(spec)
    except ValueError as error:
        advice = did_you_mean(layers, ZOO)
        raise ValueError(f"layers is {layers!r}: {error}; or one of {ZOO}{advice}") from None
    return [layer for _, layer in parsed]


def _given(layers):
    """Copies of layers of the user's."""
    if not isinstance(layers, (list, tuple)):
        raise TypeError(
            f"layers is {layers!r}, expected None, a list of layers, a function of the input's "
            f"shape that returns one, a text such as 'conv16-3x3,relu,gap', or one of {ZOO}"
        )
    return list(copy.deepcopy(layers))


def _check_end(layers, n_outputs, loss):
    """Refuse as the last of a classifier's layers what its loss does itself.

    One more Linear would follow, and learn little from probabilities. A sigmoid is one of the
    hidden layers, unless there are as many as outputs.
    """
    if not loss.has_probabilities or not all(isinstance(each, Layer) for each in layers):
        return
    opened = [*lay_open(numbered(layers), "")]
    for name, last in opened[-1:]:
        before = opened[-2][1] if len(opened) > 1 else None
        puts_out = isinstance(before, Linear) and before.n_out == n_outputs
        kind = last.type if isinstance(last, Activation) else None
        if kind == "softmax" or (kind == "sigmoid" and puts_out):
            refuse_activation(name, last, loss)


def _targets_of(loss):
    """What tells apart the losses for one class, for several labels, and for values."""
    return loss.is_classifier, loss.has_probabilities


def _completed(layers, image_shape, loss):
    """The layers, with a Flatten where the first Linear needs one, and the loss."""
    check_layers([*layers, loss])
    made, shape = [], (1, *bc01_shape(image_shape))
    trace = Trace()
    for layer in layers:
        if isinstance(layer, Linear) and len(shape) > 2:
            made.append(Flatten())
            shape = made[-1].output_shape(shape)
        for each in layers_in({"": layer}):
            each.signals = len(image_shape) == 2
        shape = trace(str(len(made)), layer, shape)
        made.append(layer)
    return [*made, loss]
