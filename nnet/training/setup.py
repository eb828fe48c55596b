"""Setting a network's layers up, so that a failure leaves them as they were."""

import weakref
from contextlib import nullcontext

from nnet.layers.streams import saved_state
from nnet.layers.tree import is_own, numbered, walk
from nnet.training.layouts import check_layout
from nnet.training.model import Model


def publish(network, transaction):
    """Let everyone see the network as it is now, while its layers change: that Model, or None."""
    model = network._model
    children = numbered(network.layers)
    check_owners(network, children)
    with nullcontext() if model is None else model.lock:
        layers = [layer for _, layer in walk(children)]
        memo = {id(known): known for known in (network, *layers)}
        states = [
            # nnet's own layers never write to the arrays of an earlier training.
            (layer, dict(vars(layer)) if is_own(layer) else copied_state(layer, memo))
            for layer in layers
        ]
        published = None if model is None else model.copy(network)
        transaction.publish(published, states, saved_state(network.rng))
    return published


def copied_state(layer, memo):
    return vars(layer) | layer._copied_attributes(memo)


def set_up(network, streams, input_shape, dtype, classes, target_shape, n_imgs, built_shape=None):
    """Draw the parameters of all layers: the Model.

    An input of the `built_shape` is taken as it is; see `check_layout`.

    Raises
    ------
    ValueError, TypeError
        For layers that do not fit together, or belong to another network.
    """
    children = numbered(network.layers)
    layers = [layer for _, layer in walk(children)]
    claim(network, children)
    signals = check_layout(children, input_shape, built_shape)
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


def check_owners(network, children):
    """Refuse layers that another network has trained, and still has."""
    for name, layer in walk(children):
        owner = None if layer._owner is None else layer._owner()
        if owner not in (None, network) and any(
            layer is other for _, other in walk(numbered(owner.layers))
        ):
            raise ValueError(
                f"layer {name} ({type(layer).__name__}) belongs to another network, expected a "
                "layer of its own for each: copy.deepcopy(layers) makes some"
            )


def claim(network, children):
    """Make the layers the network's own, if no other has trained them."""
    check_owners(network, children)
    for _, layer in walk(children):
        layer._owner = weakref.ref(network)
