"""Layers nested as deep as they may be work everywhere; deeper ones are refused by name."""

import copy
import io
import pickle
import sys

import numpy as np
import pytest
from networks import same

from nnet import (
    Activation,
    Flatten,
    Layer,
    Linear,
    LogRegression,
    NeuralNetwork,
    Parallel,
    Residual,
    Sequential,
)
from nnet.layers.tree import MAX_DEPTH, layers_in, numbered

N_FRAMES = 150  # that a notebook, or a test, has on the stack already
X, y = np.eye(4, dtype=np.float32), np.arange(4) % 2


class Own(Layer):
    """A container of the user's own."""

    def __init__(self, inner):
        self.inner = inner

    @property
    def children(self):
        return {"inner": self.inner}

    def _setup(self, input_shape, rng):
        self.inner._setup(input_shape, rng)

    def fprop(self, input):
        return self.inner.fprop(input)

    def bprop(self, output_grad):
        return self.inner.bprop(output_grad)

    def output_shape(self, input_shape):
        return self.inner.output_shape(input_shape)


# What puts a layer one level deeper, or two.
KINDS = {
    "Sequential": (1, lambda layer: Sequential([layer])),
    "Residual": (1, lambda layer: Residual([layer])),
    "shortcut": (2, lambda layer: Residual([Flatten()], shortcut=[layer])),
    "Parallel": (1, lambda layer: Parallel([layer, []], "mul")),
    "branches": (2, lambda layer: Parallel([[layer]])),
    "Own": (1, Own),
    "Own in Sequential": (2, lambda layer: Sequential([Own(layer)])),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def nested(kind, depth):
    """A layer so many levels deep, inside of others: the outermost of these."""
    levels, wrap = KINDS[kind]
    layer = Linear(3)
    if (depth - 1) % levels:
        layer = Sequential([layer])
    for _ in range((depth - 1) // levels):
        layer = wrap(layer)
    return layer


def network_of(kind, depth=MAX_DEPTH):
    layers = [Linear(3), nested(kind, depth), Activation("tanh"), Linear(2), LogRegression()]
    return NeuralNetwork(layers, rng=0)


def fitted(kind):
    return network_of(kind).fit(X, y, 0.01, 1)


def on_a_deep_stack(function, *arguments):
    """What a function returns that is called from `N_FRAMES` others."""
    n_frames, frame = 0, sys._getframe()
    while frame is not None:
        n_frames, frame = n_frames + 1, frame.f_back

    def call(n):
        return call(n - 1) if n > 0 else function(*arguments)

    return call(N_FRAMES - n_frames)


def check_copy(network, other):
    """It has the same bits, and no layer and no array of the network's."""
    assert np.array_equal(other.predict_proba(X), network.predict_proba(X))
    assert same(other.params(), network.params())
    layers, others = (layers_in(numbered(each.layers)) for each in (network, other))
    assert list(map(type, others)) == list(map(type, layers))
    assert not set(map(id, others)) & set(map(id, layers))
    assert not any(map(np.shares_memory, other.params(), network.params()))


# --- as deep as they may be -----------------------------------------------------------


def test_a_real_depth():
    network = network_of("Sequential")
    network.build((4,), 2)
    assert max(name.count(".") for name in network.state_dict()) == MAX_DEPTH


@kinds
def test_the_deepest_network_trains_and_predicts(kind):
    def use():
        network = network_of(kind)
        network.fit(X, y, 0.01, 2, validation_data=(X, y), callback=lambda p: None)
        network.fit(X, y, 0.01, 1)
        network.load_state_dict(network.state_dict())
        assert network.predict(X).shape == (4,)
        assert len(network.check_gradients(X, y, max_checks=1)) == 6
        assert "Linear(n_out=3)" in repr(network.layers[1])
        network.layers[2].type = "relu"
        network.predict(X)
        network.build((4,), 2)

    on_a_deep_stack(use)


@kinds
def test_the_deepest_layers_work_alone(kind):
    def use():
        layer = nested(kind, MAX_DEPTH)
        layer._setup((4, 3), np.random.default_rng(0))
        assert layer.bprop(layer.fprop(X[:, :3])).shape == layer.output_shape((4, 3)) == (4, 3)

    on_a_deep_stack(use)


class PythonPickler(pickle._Pickler):
    """As joblib's: a dozen calls for each object inside of another."""

    def save(self, obj, *options):
        return super().save(obj, *options)


def pickled_by_python(network):
    file = io.BytesIO()
    PythonPickler(file).dump(network)
    return pickle._loads(file.getvalue())


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda network: pickle.loads(pickle.dumps(network)),
    "pickle in Python": pickled_by_python,
}


@pytest.mark.parametrize("way", COPIES)
@kinds
def test_the_deepest_network_is_copied(kind, way):
    network = fitted(kind)
    check_copy(network, on_a_deep_stack(COPIES[way], network))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("Own")])
def test_the_deepest_network_is_saved_and_loaded(kind, tmp_path):
    pytest.importorskip("safetensors")
    network, path = fitted(kind), tmp_path / "network"
    on_a_deep_stack(network.save, path)
    loaded = on_a_deep_stack(NeuralNetwork.load, path)
    check_copy(network, loaded)
    assert repr(loaded.layers) == repr(network.layers)


# --- deeper -----------------------------------------------------------------------------

TOO_DEEP = rf"is {MAX_DEPTH + 1} levels deep, expected at most {MAX_DEPTH}$"


@kinds
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 5_000])
def test_a_deeper_network_is_refused(kind, depth):
    deep = nested(kind, depth)
    with pytest.raises(ValueError, match=rf"^layer 1\.[0\w.]+ \(\w+\) {TOO_DEEP}"):
        NeuralNetwork([Linear(3), deep, LogRegression()])
    network = NeuralNetwork([Sequential([Linear(2)]), LogRegression()]).fit(X, y, 0.01, 1)
    before = network.predict_proba(X)
    network.layers[0].layers.append(deep)
    for call in (
        lambda: network.fit(X, y),
        lambda: network.build((4,)),
        lambda: network.predict(X),
        lambda: network.check_gradients(X, y),
        lambda: copy.deepcopy(network),
        lambda: network.save("never"),
    ):
        with pytest.raises(ValueError, match=TOO_DEEP):
            call()
    network.layers[0].layers.pop()
    assert np.array_equal(network.predict_proba(X), before)


def test_deeper_layers_alone_are_refused():
    for kind in ("Sequential", "Residual", "shortcut", "Parallel", "branches"):
        layer = nested(kind, 5_000)
        for call in (
            lambda layer=layer: layer._setup((4, 3), 0),
            lambda layer=layer: layer.output_shape((4, 3)),
            lambda layer=layer: layer.fprop(X),
            lambda layer=layer: copy.deepcopy(layer),
            lambda layer=layer: pickle.dumps(layer),
        ):
            with pytest.raises(ValueError, match=TOO_DEEP):
                call()
        assert repr(layer).endswith(")")


def test_a_deep_layer_has_a_repr():
    """Once it took 2**depth calls."""
    layer = Activation("relu")
    for _ in range(60):
        layer = Sequential([layer])
    assert repr(layer).count("Sequential") == 60


def test_a_layer_inside_of_itself_has_a_repr():
    layer = Sequential([Flatten()])
    layer.layers += [layer, layer]
    assert repr(layer) == "Sequential(layers=[Flatten(), ..., ...])"
