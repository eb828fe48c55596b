"""Setting a network's layers up, so that a failure leaves them as they were."""

import weakref
from contextlib import nullcontext

from nnet._atomic import Transaction
from nnet.layers.streams import saved_state
from nnet.layers.tree import is_own, numbered, walk
from nnet.training.layouts import check_layout
from nnet.training.model import Model


def change_of(network):
    """A Transaction, and the model that other threads see meanwhile: None, or as it is now."""
    model = network._model
    children = numbered(network.layers)
    with nullcontext() if model is None else model.lock:
        layers = [layer for _, layer in walk(children)]
        memo = {id(layer): layer for layer in layers}
        states = [
            # nnet's own layers never write to the arrays of an earlier training.
            (layer, dict(vars(layer)) if is_own(layer) else layer._copied_attributes(dict(memo)))
            for layer in layers
        ]
        published = None if model is None else model.copy()
    return Transaction(network, states, saved_state(network.rng)), published


def set_up(network, streams, input_shape, dtype, classes, target_shape, n_imgs=1, known_shape=None):
    """Draw the parameters of all layers: the Model. For `known_shape` see `check_layout`.

    Raises
    ------
    ValueError, TypeError
        For layers that do not fit together, or belong to another network.
    """
    children = numbered(network.layers)
    layers = [layer for _, layer in walk(children)]
    claim(network, children)
    signals = check_layout(children, input_shape, known_shape)
    make_rngs = dict(zip(map(id, layers), streams.of_layers(layers, "layer")))
    for layer in layers:
        layer.dtype, layer.signals = dtype, signals
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
    network._is_changed = False
    return model


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
