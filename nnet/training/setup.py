"""Setting a network's layers up, so that a failure leaves them as they were."""

import copy
import weakref
from collections.abc import Iterable
from contextlib import nullcontext, suppress

import numpy as np

from nnet._atomic import Transaction
from nnet.layers import (
    Activation,
    BinaryCrossEntropy,
    Layer,
    LogRegression,
    LossMixin,
    ParamMixin,
)
from nnet.layers.arguments import as_count, as_int
from nnet.layers.hints import layer_for
from nnet.layers.program import lay_open
from nnet.layers.standardize import Standardize
from nnet.layers.streams import as_streams, saved_state
from nnet.layers.tree import (
    check_all_arrays,
    check_array,
    check_arrays,
    check_inside,
    describe,
    frozen_in,
    has_params,
    held,
    inner_name,
    is_own,
    layers_in,
    learns,
    numbered,
    trained_arrays,
    walk,
)
from nnet.training.batches import Encoding
from nnet.training.layouts import check_layout
from nnet.training.model import Model
from nnet.training.targets import target_shapes

FLOATS = {np.dtype(np.float32), np.dtype(np.float64)}
OF_LOSSES = {LogRegression: "softmax", BinaryCrossEntropy: "sigmoid"}
ADAPTED = 256  # images at once


def publish(network, transaction):
    """Let everyone see the network as it is now, while its layers change: that Model, or None."""
    model = network._model
    children = numbered(network.layers)
    check_owners(network, children)
    with nullcontext() if model is None else model.lock:
        layers = layers_in(children)
        layers += held(layers)
        memo = {id(known): known for known in (network, *layers)}
        states = [
            # nnet's own layers never write to the arrays of an earlier training.
            (layer, dict(vars(layer)) if is_own(layer) else copied_state(layer, memo))
            for layer in layers
        ]
        published = None
        if model is None:
            transaction.layers = copy.deepcopy(network.layers, {id(network): network})
        else:
            with suppress(TypeError, ValueError):  # options that only the next training can take
                published = model.copy(network)
        transaction.publish(published, states, saved_state(network.rng))
    return published


def copied_state(layer, memo):
    return vars(layer) | layer._copied_attributes(memo)


def check_layers(layers):
    """The layers as a list, if they make a network."""
    if not isinstance(layers, Iterable) or isinstance(layers, str):
        raise TypeError(f"layers is {layers!r}, expected a list of layers")
    layers = list(layers)
    for i, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise TypeError(f"layers[{i}] is {layer!r}, expected {layer_for(layer)}")
        if isinstance(layer, LossMixin) != (layer is layers[-1]):
            raise ValueError(
                f"layers[{i}] is a {type(layer).__name__}, expected the last layer, and no "
                "other, to be a loss such as LogRegression() or MeanSquaredError()"
            )
    seen: dict[int, str] = {}
    for name, layer in numbered(layers).items():
        check_inside(layer, name, seen)
    for name, layer in walk(numbered(layers)):
        if callable(getattr(layer, "params", None)) and not isinstance(layer, ParamMixin):
            raise TypeError(
                f"{describe(name, layer)} has params() but is no ParamMixin, expected "
                f"class {type(layer).__name__}(Layer, ParamMixin)"
            )
    check_activation_of_loss(layers)
    if not any(map(has_params, layers)):
        raise ValueError("no layer has parameters, expected at least one such as Linear(n_out)")
    return layers


def check_activation_of_loss(layers):
    """Refuse before a loss what it does itself: what trains would be the softmax of a softmax."""
    loss = layers[-1] if layers else None
    for name, last in [*lay_open(numbered(layers[:-1]), "")][-1:]:
        if isinstance(last, Activation) and last.type == OF_LOSSES.get(type(loss)):
            refuse_activation(name, last, loss)


def refuse_activation(name, last, loss):
    raise ValueError(
        f"{describe(name, last)} is a {last.type} right before {loss!r}, which has its own, "
        "expected the scores themselves: leave the Activation out"
    )


def set_up(
    network,
    streams,
    encoding,
    n_imgs=1,
    known_shape=None,
    signals=None,
    keep_frozen=True,
    from_X=True,
):
    """Draw the parameters of all layers, but of frozen ones that have some: the Model.

    For `known_shape` see `check_layout`, which finds out whether images are `signals` if that
    is not given. `from_X`: whether the `Encoding` has its dtype from X, which errors are to say.

    Raises
    ------
    ValueError, TypeError
        For layers that do not fit together, or belong to another network.
    """
    children = numbered(network.layers)
    layers = layers_in(children)
    claim(network, children)
    if signals is None:
        signals = check_layout(children, encoding.image_shape, known_shape)
    make_rngs = dict(zip(map(id, layers), streams.of_layers(layers, "layer")))
    frozen, kept = frozen_in(children) if keep_frozen else set(), set()
    check_frozen_dtypes(children, frozen, encoding.dtype, from_X)

    def visit(name, layer, shape):
        if id(layer) in frozen and is_set_up(name, layer, shape):
            kept.add(id(layer))
        else:
            set_layer_up(name, layer, shape, make_rngs[id(layer)](), frozen)

    model = Model(
        network.layers,
        encoding.image_shape,
        encoding.dtype,
        encoding.classes,
        encoding.target_shape,
        signals,
        visit=visit,
        n_imgs=n_imgs,
        labels=encoding.labels,
    )
    model.kept = kept
    check_params(children)
    network._is_changed = False
    return model


def check_frozen_dtypes(children, frozen, dtype, from_X):
    """Refuse a dtype that is not that of the arrays which frozen layers keep."""
    for name, layer in walk(children):
        if id(layer) not in frozen:
            continue
        known = {vars(layer)["_set_up_for"][1]} if "_set_up_for" in vars(layer) else set()
        if is_own(layer):
            known = {array.dtype for array in arrays_of(layer).values()}
        for other in known & FLOATS - {dtype}:
            if from_X:  # integers count as float32
                got = f"X {'has dtype' if dtype == np.float64 else 'counts as'} {dtype}"
            else:
                got = f"dtype is {dtype}"
            raise TypeError(
                f"{got}, expected {other} as {describe(name, layer)} has, which is frozen"
                + (f': X.astype("{other}")' if from_X else "")
            )


def is_set_up(name, layer, input_shape):
    """Whether a frozen layer has what it takes for this input; refused if it was for another."""
    if not is_own(layer):
        before, now = vars(layer).get("_set_up_for"), (tuple(input_shape[1:]), layer.dtype)
        if before not in (None, now):
            raise ValueError(
                f"it is frozen, and was set up for {before[0]} and {before[1]}, expected {now[0]} "
                f"and {now[1]} as then"
            )
        return before is not None
    if all(getattr(layer, key, None) is None for key in layer.array_shapes(input_shape)):
        return False
    try:
        check_arrays(name, layer, input_shape)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error}; it is frozen, so that fit keeps its arrays") from None
    layer._make_grads()
    return True


def set_layer_up(name, layer, input_shape, rng, frozen):
    """Set one layer up. If it sets others up itself, frozen ones among them keep their arrays."""
    inside = [(inner_name(name, key), each) for key, each in walk(layer.children)]
    kept = [
        (key, each, {which: np.array(array) for which, array in arrays_of(each).items()})
        for key, each in inside
        if id(each) in frozen
    ]
    layer._setup(input_shape, rng)
    for key, each, arrays in kept:
        now = arrays_of(each)
        for which, array in arrays.items():
            what = f"{describe(key, each)}, which is frozen: {which}"
            check_array(array, what, now[which].shape, now[which].dtype)
            now[which][...] = array
    if not is_own(layer):
        vars(layer)["_set_up_for"] = tuple(input_shape[1:]), layer.dtype


def arrays_of(layer):
    """{name: array} of one layer without those inside; nothing if it is not set up."""
    arrays = {}
    with suppress(AttributeError, TypeError, ValueError):
        arrays = {name: getattr(layer, name) for name in layer.state_names()}
        if isinstance(layer, ParamMixin):
            arrays |= {f"params()[{i}]": array for i, array in enumerate(layer.params())}
    is_whole = all(isinstance(array, np.ndarray) for array in arrays.values())
    return arrays if is_whole else {}


def draws_anew(layers):
    """Whether some layers have arrays that `set_up` will replace, as they are not frozen."""
    children = numbered(layers)
    frozen = frozen_in(children)
    return any(arrays_of(layer) for layer in layers_in(children) if id(layer) not in frozen)


def check_trained(layers):
    """Refuse layers of which training would change none."""
    if not any(map(learns, layers)):
        raise ValueError(
            "all layers with parameters are frozen, expected one at least that training changes: "
            "network.unfreeze() makes all of them so"
        )


def go_on(network, before):
    """A Model like the one `before`, over the same layers with copies of their arrays.

    So a training that goes on and fails leaves those of before.
    """
    check_all_arrays(network.layers, before.image_shape)
    for layer in filter(is_own, layers_in(numbered(network.layers))):
        names = [*layer.param_names(), *layer.state_names()]
        if names:
            layer._set_arrays({name: getattr(layer, name).copy() for name in names})
    return Model(network.layers, **(before.attributes() | {"is_loaded": False}))


def adapt(model, data):
    """Let a first Standardize find out what the images are like."""
    children = numbered(model.layers)
    _, first = next(lay_open(children, ""))
    for name, layer in walk(children):
        if not isinstance(layer, Standardize) or not layer.adapts() or id(layer) in model.kept:
            continue
        if layer is not first:
            raise ValueError(
                f"{describe(name, layer)} has no mean and scale, expected some for any but the "
                "first layer"
            )
        layer.adapt(
            (images.reshape(len(images), *model.image_shape), weights)
            for images, _, weights in data.in_turn(ADAPTED)
        )


def build(network, input_shape, n_outputs, dtype):
    """Set the network up without data: see `NeuralNetwork.build`."""
    input_shape = as_shape(input_shape, "input_shape")
    if not 1 <= len(input_shape) <= 3:
        raise ValueError(f"input_shape is {input_shape}, expected 1 to 3 lengths, of one image")
    dtype = as_dtype(dtype, "dtype")
    encoding = Encoding(check_layers(network.layers)[-1], dtype, input_shape)
    if n_outputs is not None and encoding.is_classifier:
        encoding.classes = np.arange(as_int(n_outputs, "n_outputs", 2))
    elif n_outputs is not None:
        target_shape = as_shape(n_outputs, "n_outputs")
        encoding.target_shape = () if target_shape == (1,) else target_shape
    transaction = Transaction(network)
    try:
        transaction.begin()
        publish(network, transaction)
        streams = as_streams(network.rng)
        model = set_up(network, streams, encoding, known_shape=input_shape, from_X=False)
        if encoding.is_classifier:
            n_classes = as_int(model.scores_shape[0], f"n_outputs of {model.loss_name()}", 2)
            model.classes = np.arange(n_classes)
        if model.target_shape is None:
            model.target_shape = target_shapes(model.loss, model.scores_shape, model.signals)[0]
        network._built_shape = input_shape
        transaction.model, transaction.keep = model, True
    finally:
        transaction.end()


def as_shape(value, name):
    """A tuple of ints of at least 1; one int for a single axis."""
    lengths = tuple(value) if np.iterable(value) else (value,)
    return tuple(as_count(length, name) for length in lengths)


def as_dtype(value, name):
    """float32 or float64."""
    with suppress(TypeError):
        dtype = np.dtype("object" if value is None else value)
        if dtype in (np.float32, np.float64):
            return dtype
    raise TypeError(f"{name} is {value!r}, expected float32 or float64")


def check_params(children):
    """Refuse a layer whose parameters are also those of a layer inside: each would step twice."""
    for name, layer in walk(children):
        inner = layer.children
        if isinstance(layer, ParamMixin) and inner:
            inside = trained_arrays(inner)
            names = {id(array): key for key, array in inside.items()}
            for array in layer.params():
                if id(array) in names:
                    raise ValueError(
                        f"{describe(name, layer)}.params() has {names[id(array)]} of its children, "
                        "expected its own parameters only"
                    )


def check_owners(network, children):
    """Refuse layers that another network has trained, and still has."""
    listed = list(walk(children))
    inside = held([layer for _, layer in listed])
    for name, layer in [*listed, *[("", layer) for layer in inside]]:
        owner = layer._network()
        if owner in (None, network):
            continue
        others = layers_in(numbered(owner.layers))
        if any(layer is other for other in others + held(others)):
            where = "" if name else ", which a layer of yours keeps,"
            raise ValueError(
                f"{describe(name, layer)}{where} belongs to another network, expected a "
                "layer of its own for each: copy.deepcopy(layers) makes some"
            )


def claim(network, children):
    """Make the layers the network's own, if no other has trained them."""
    check_owners(network, children)
    layers = layers_in(children)
    for layer in layers + held(layers):
        layer._owner = weakref.ref(network)
