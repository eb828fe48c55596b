"""Setting a network's layers up, so that a failure leaves them as they were."""

import weakref
from collections.abc import Iterable
from contextlib import nullcontext, suppress

from nnet.layers import Layer, LossMixin
from nnet.layers.streams import saved_state
from nnet.layers.tree import has_params, is_own, numbered, walk
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
        published = None
        if model is not None:
            with suppress(TypeError, ValueError):  # options that only the next training can take
                published = model.copy()
        transaction.publish(published, states, saved_state(network.rng))
    return published


def copied_state(layer, memo):
    return vars(layer) | layer._copied_attributes(memo)


def check_layers(layers):
    """The layers as a list, if they make a network."""
    if not isinstance(layers, Iterable):
        raise TypeError(f"layers is {layers!r}, expected a list of layers")
    layers = list(layers)
    for i, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise TypeError(f"layers[{i}] is {layer!r}, expected an instance of Layer")
        if isinstance(layer, LossMixin) != (layer is layers[-1]):
            raise ValueError(
                f"layers[{i}] is a {type(layer).__name__}, expected the last layer, and no "
                "other, to be a loss: LogRegression() or MeanSquaredError()"
            )
    every = [layer for _, layer in walk(numbered(layers))]
    if len(set(map(id, every))) < len(every):
        raise ValueError("layers has the same object twice, expected one object per layer")
    if not any(map(has_params, layers)):
        raise ValueError("no layer has parameters, expected at least one such as Linear(n_out)")
    return layers


def set_up(
    network,
    streams,
    input_shape,
    dtype,
    classes,
    target_shape,
    n_imgs=1,
    known_shape=None,
    signals=None,
):
    """Draw the parameters of all layers: the Model.

    For `known_shape` see `check_layout`, which finds out whether images are `signals` if that
    is not given.

    Raises
    ------
    ValueError, TypeError
        For layers that do not fit together, or belong to another network.
    """
    children = numbered(network.layers)
    layers = [layer for _, layer in walk(children)]
    claim(network, children)
    if signals is None:
        signals = check_layout(children, input_shape, known_shape)
    make_rngs = dict(zip(map(id, layers), streams.of_layers(layers, "layer")))

    def visit(name, layer, shape):
        layer._setup(shape, make_rngs[id(layer)]())

    model = Model(
        network.layers,
        input_shape,
        dtype,
        classes,
        target_shape,
        signals,
        visit=visit,
        n_imgs=n_imgs,
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
