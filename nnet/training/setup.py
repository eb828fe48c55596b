"""Setting a network's layers up, so that a failure leaves them as they were."""

import weakref
from contextlib import nullcontext

from nnet._atomic import Transaction
from nnet.layers.base import ParamMixin
from nnet.layers.streams import saved_state
from nnet.layers.tree import describe, held, is_own, numbered, trained_arrays, walk
from nnet.training.layouts import check_layout
from nnet.training.model import Model


def change_of(network):
    """A Transaction, and the model that other threads see meanwhile: None, or as it is now."""
    model = network._model
    children = numbered(network.layers)
    with nullcontext() if model is None else model.lock:
        layers = [layer for _, layer in walk(children)]
        memo = {id(layer): layer for layer in layers}
        # nnet's own layers never write to the arrays of an earlier training.
        states = [
            (
                layer,
                {**vars(layer), **({} if is_own(layer) else layer._copied_attributes(dict(memo)))},
            )
            for layer in layers
        ]
        published = None if model is None else model.copy()
    return Transaction(network, states, saved_state(network.rng)), published


def set_up(network, streams, input_shape, dtype, classes, target_shape, n_imgs):
    """Draw the parameters of all layers: the Model.

    Raises
    ------
    ValueError, TypeError
        For layers that do not fit together, or belong to another network.
    """
    children = numbered(network.layers)
    layers = [layer for _, layer in walk(children)]
    claim(network, children)
    signals = check_layout(children, input_shape, network._built_shape)
    make_rngs = dict(zip(map(id, layers), streams.of_layers(layers, "layer")))
    prepare(children, dtype, signals)
    for layer in layers:
        layer._option_changed()

    def visit(name, layer, shape):
        layer._setup(shape, make_rngs[id(layer)]())

    model = Model(
        network.layers, input_shape, dtype, classes, target_shape, visit=visit, n_imgs=n_imgs
    )
    expected = (len(classes),) if classes is not None else target_shape or (1,)
    if target_shape is not None and model.scores_shape != expected:
        what = "the targets" if classes is None else f"the {len(classes)} classes"
        raise ValueError(
            f"{model.loss_name()} gets {model.scores_shape} values for each image, "
            f"expected {expected} for {what} of y"
        )
    check_params(children)
    network._is_changed = False
    return model


def prepare(children, dtype, signals):
    """Tell all layers what they are to compute with."""
    layers = [layer for _, layer in walk(children)]
    for layer in layers + held(layers):
        layer.dtype, layer.signals = dtype, signals


def check_params(children):
    """Refuse a layer whose parameters are also those of a layer inside: each would step twice."""
    for name, layer in walk(children):
        if isinstance(layer, ParamMixin) and layer.children:
            inside = trained_arrays(layer.children)
            names = {id(array): inner for inner, array in inside.items()}
            for array in layer.params():
                if id(array) in names:
                    raise ValueError(
                        f"{describe(name, layer)}.params() has {names[id(array)]} of its children, "
                        "expected its own parameters only"
                    )


def claim(network, children):
    """Make the layers the network's own, if no other has trained them."""
    for name, layer in walk(children):
        owner = None if layer._owner is None else layer._owner()
        if owner not in (None, network) and any(
            layer is other for _, other in walk(numbered(owner.layers))
        ):
            raise ValueError(
                f"layer {name} ({type(layer).__name__}) belongs to another network, expected a "
                "layer of its own for each: copy.deepcopy(layers) makes some"
            )
    for _, layer in walk(children):
        layer._owner = weakref.ref(network)
