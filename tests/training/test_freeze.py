"""Frozen layers: training leaves them as they are, and starts with the arrays they have."""

import copy
import pickle

import numpy as np
import pytest
from networks import check, walked
from structures import as_network
from test_outputs import Calls
from test_threads import Pausing
from trouble import alarms, assert_nothing_lent, bits, cnn, everything, images

from nnet import (
    Activation,
    BatchNorm,
    Conv,
    DivergedError,
    Flatten,
    Layer,
    Linear,
    LogRegression,
    NeuralNetwork,
    Parallel,
    ParamMixin,
    Pool,
    Residual,
    Sequential,
    Standardize,
)
from nnet.training import inside

X, Y = images()
HARD = {"learning_rate": 0.01, "momentum": 0.9, "nesterov": True, "max_iter": 3}


def nested(rng=0):
    """Weight decay everywhere, layers inside of layers."""
    decay = {"weight_decay": 0.1}
    return as_network(
        [
            Conv(4, 3, **decay),
            Activation("relu"),
            Residual([Conv(4, 3, **decay), Activation("tanh")], shortcut=[Conv(4, 1, **decay)]),
            Parallel([[Conv(2, 3, **decay)], Sequential([Conv(3, 1, **decay)])], "concat"),
            Pool(2, 2),
        ],
        rng,
    )


def state_bits(network):
    return {name: array.tobytes() for name, array in network.state_dict().items()}


def changed(before, after):
    """The layers of which arrays differ."""
    assert before.keys() == after.keys()
    return {name.rpartition(".")[0] for name in before if before[name] != after[name]}


def frozen(network):
    return {name for name, layer in walked(network) if not layer.trainable}


EVERY = {"0", "2.0", "2.shortcut.0", "3.0.0", "3.1.0", "6"}


# --- which ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "which, trained",
    [
        (0, EVERY - {"0"}),
        (-2, EVERY - {"6"}),
        ("2", EVERY - {"2.0", "2.shortcut.0"}),
        ("2.shortcut", EVERY - {"2.shortcut.0"}),
        (["3.1", 0], EVERY - {"3.1.0", "0"}),
        (range(4), {"6"}),
        (("2.0", "2.shortcut.0", "3"), {"0", "6"}),
        ([], EVERY),
    ],
)
@pytest.mark.parametrize("warm_start", [False, True])
def test_frozen_layers_change_no_bit(which, trained, warm_start):
    network = nested().fit(X, Y, max_iter=1)
    before = state_bits(network)
    assert network.freeze(which) is network
    network.fit(X, Y, **HARD, warm_start=warm_start)
    assert changed(before, state_bits(network)) == trained
    assert_nothing_lent(network)
    layer = network.layers[0]
    network.unfreeze()
    network.fit(X, Y, 0.01, max_iter=1, warm_start=True)
    assert changed(before, state_bits(network)) == EVERY
    assert network.layers[0] is layer


def test_layers_themselves_may_be_given():
    network = nested()
    network.freeze([*network.layers[:2], network.layers[2].shortcut[0]])
    assert frozen(network) == {"0", "1", "2.shortcut.0"}
    network.freeze(network.layers[3])
    assert {"3", "3.0", "3.0.0", "3.1", "3.1.0"} < frozen(network)


def test_what_is_unfrozen_inside_of_a_frozen_layer_trains_alone():
    network = nested().fit(X, Y, max_iter=1).freeze(range(7))
    network.unfreeze(["2.shortcut", "3.1.0"])
    before = state_bits(network)
    network.fit(X, Y, **HARD)
    assert changed(before, state_bits(network)) == {"2.shortcut.0", "3.1.0"}
    network.freeze("3").unfreeze(-2)
    before = state_bits(network)
    network.fit(X, Y, **HARD)
    assert changed(before, state_bits(network)) == {"2.shortcut.0", "6"}


def test_copies_are_frozen_too():
    network = nested().fit(X, Y, max_iter=1).freeze(["0", "3.1"])
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert frozen(twin) == frozen(network)
        before = state_bits(twin)
        twin.fit(X, Y, max_iter=1)
        assert changed(before, state_bits(twin)) == EVERY - {"0", "3.1.0"}


@pytest.mark.parametrize(
    "which, error, message",
    [
        ("7.0", ValueError, r"layers is '7.0', expected one of the network's: 0 \(Conv\), .*2\.sh"),
        ("0.W", ValueError, "layers is '0.W'"),
        (["0", 8], ValueError, "layers is 8, expected -8 to 7"),
        (["0", Conv(4, 3)], ValueError, "expected one of the network's"),
        (None, TypeError, "layers is None, expected a number, a name or a layer"),
        ([0, True], TypeError, "layers is True"),
        (1.5, TypeError, "layers is 1.5"),
    ],
)
def test_what_is_no_layer_is_refused_and_nothing_changes(which, error, message):
    network = nested()
    with pytest.raises(error, match=message):
        network.freeze(which)
    assert frozen(network) == set()
    if which is not None:
        network.freeze(0)
        with pytest.raises(error, match=message):
            network.unfreeze(which)
        assert frozen(network) == {"0"}


# --- what is the same -----------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, HARD, {"batch_size": 7, "sample_weight": 1.0 + Y}])
def test_a_head_trains_as_on_the_features(options, dtype):
    network = cnn().fit(X.astype(dtype), Y, max_iter=2)
    features = network.outputs(X, 3)
    head = NeuralNetwork([Linear(3), LogRegression()], rng=0).fit(features, Y, **options)
    network.freeze([0, 1, 2, 3]).fit(X.astype(dtype), Y, **options)
    assert bits(head) == b"".join(array.tobytes() for array in network.params()[2:])
    assert head.loss_history_ == network.loss_history_


def test_a_frozen_layer_passes_gradients_on():
    """With a learning rate of 0 for it, as it were."""
    network, twin = (nested().build((1, 8, 8), 3) for _ in range(2))
    network.freeze("2")
    network.fit(X, Y, 0.05, batch_size=len(X), max_iter=1, warm_start=True)
    twin.fit(X, Y, 0.05, batch_size=len(X), max_iter=1, warm_start=True)
    state, other = network.state_dict(), twin.state_dict()
    for name in state:
        assert np.array_equal(state[name], other[name]) == (not name.startswith("2."))


def test_freezing_what_is_not_set_up_leaves_it_as_it_is_drawn():
    drawn = state_bits(nested().build((1, 8, 8), 3))
    network = nested().freeze(["0", "2.0"]).fit(X, Y, max_iter=2)
    assert changed(drawn, state_bits(network)) == EVERY - {"0", "2.0"}


def test_what_else_is_drawn_stays_the_same():
    network = nested().fit(X, Y, max_iter=1).freeze(0)
    before = state_bits(network)
    drawn = state_bits(nested().build((1, 8, 8), 3))
    network.build((1, 8, 8), 3)
    assert changed(before, state_bits(network)) == EVERY - {"0"}
    assert changed(drawn, state_bits(network)) == {"0"}


@pytest.mark.parametrize("fitted", [False, True])
def test_gradients_are_checked_of_what_trains(fitted):
    network = nested()
    if fitted:
        network.fit(X, Y, max_iter=1)
    network.layers[1].type = "tanh"  # smooth
    network.layers[4].mode = "avg"
    network.freeze(["2", "3.0"])
    before = state_bits(network) if fitted else None
    errors = network.check_gradients(X[:3], Y[:3], max_checks=5)
    assert len(errors) == 2 * 3
    check(errors)
    assert not fitted or state_bits(network) == before


# --- what fails -------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [range(7), ["0", "2", "3", "6"]])
def test_everything_frozen_is_refused(which):
    network = nested().fit(X, Y, max_iter=1)
    before = everything(network, X)
    network.freeze(which)
    for options in ({}, {"warm_start": True}):
        with pytest.raises(ValueError, match=r"all layers .* frozen, .*network\.unfreeze\(\)"):
            network.fit(X, Y, **options)
    assert everything(network, X) == before


def test_a_fit_that_fails_leaves_all_as_it_was():
    network = nested().fit(X, Y, max_iter=1).freeze(["0", "3"])
    before = everything(network, X)
    with pytest.raises(DivergedError):
        network.fit(X, Y, 1e30)
    assert everything(network, X) == before
    assert frozen(network) == {"0", "3", "3.0", "3.0.0", "3.1", "3.1.0"}
    network.layers[6] = Linear(5)  # for other classes
    with pytest.raises(DivergedError):
        network.fit(X, np.arange(len(X)) % 5, 1e30)
    assert network.layers[6].W is None
    assert state_bits(network.fit(X, np.arange(len(X)) % 5, max_iter=1))["0.W"] == before[2]["0.W"]


@pytest.mark.parametrize(
    "change, error, message",
    [
        (
            lambda X: X.astype(np.float64),
            TypeError,
            r"^X has dtype float64, expected float32 as layer 0 \(Conv\) has, which is frozen: "
            r"X.astype\(\"float32\"\)$",
        ),
        (
            lambda X: np.concatenate([X, X], 1),
            ValueError,
            r"layer 0 \(Conv\)\.W has shape \(1, 4, 3, 3\), expected \(2, 4, 3, 3\); it is frozen",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, error, message):
    network = nested().fit(X, Y, max_iter=1).freeze(0)
    before = everything(network, X)
    with pytest.raises(error, match=message):
        network.fit(change(X), Y)
    assert everything(network, X) == before
    network.unfreeze().fit(change(X), Y, max_iter=1)


def test_another_dtype_than_that_of_frozen_layers():
    network = nested().fit(X.astype(np.float64), Y, max_iter=1).freeze("2.0")
    before = everything(network, X)
    message = r"expected float64 as layer 2.0 \(Conv\) has, which is frozen"
    for values in (X, (9 * X).astype(int)):
        with pytest.raises(TypeError, match=rf"^X counts as float32, {message}: X.astype"):
            network.fit(values, Y)
    with pytest.raises(TypeError, match=rf"^dtype is float32, {message}$"):
        network.build(X.shape[1:], 3)
    assert everything(network, X) == before
    network.fit((9 * X).astype(int).astype("float64"), Y, max_iter=1)
    layers = [Flatten(), Projection(), Linear(3), LogRegression()]
    network = NeuralNetwork(layers).fit(X, Y, max_iter=1).freeze(1)
    with pytest.raises(TypeError, match=r"expected float32 as layer 1 \(Projection\) has"):
        network.fit(X.astype(np.float64), Y)


def test_freezing_in_a_training_is_refused():
    network, calls = nested(), []

    def callback(progress):
        for method in (network.freeze, network.unfreeze):
            with pytest.raises(RuntimeError, match="is being trained"):
                method(0)
        for layer in (network.layers[0], network.layers[1], network.layers[2].layers[0]):
            with pytest.raises(RuntimeError, match="is being trained, expected the end of fit"):
                layer.trainable = False
            layer.trainable = True
        calls.append(progress)

    network.fit(X, Y, max_iter=1, callback=callback)
    assert calls and bits(network) == bits(nested().fit(X, Y, max_iter=1))


class Failing:
    """Batches that keep a training waiting, and then end it."""

    def __init__(self, pausing):
        self.pausing = pausing

    def __iter__(self):
        self.pausing.pause()
        yield X * np.nan, Y


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("method", ["freeze", "unfreeze"])
def test_a_training_that_begins_meanwhile_is_not_changed(method, fitted, monkeypatch):
    """Had it been, the end of a training that fails would undo it."""
    network, begun = nested(), []
    if fitted:
        network.fit(X, Y, max_iter=1)
    network.layers[0].trainable = method == "freeze"

    def begin(children):
        if not begun:  # in the middle of the call
            begun.append(Pausing(lambda pausing: network.fit(Failing(pausing))))
        return frozen_in(children)

    frozen_in = inside.frozen_in
    monkeypatch.setattr(inside, "frozen_in", begin)
    with pytest.raises(RuntimeError, match="is being trained"):
        getattr(network, method)(0)
    begun[0].end()
    assert isinstance(begun[0].error, ValueError)
    assert network.layers[0].trainable == (method == "freeze")


def test_an_interrupt_freezes_all_or_none():
    network = nested().fit(X, Y, max_iter=1)
    every = {name for name, _ in walked(network)} - {"7"}
    found, rng = set(), np.random.default_rng(0)
    with alarms() as interrupt:
        for _ in range(80):
            network.unfreeze()
            interrupt(lambda: network.freeze(range(7)), rng.uniform(0, 1e-3))
            now = frozen(network)
            assert now in (set(), every)
            assert now == set() or network._is_changed
            found.add(len(now))
    assert found == {0, len(every)}


# --- layers with state ------------------------------------------------------------------------


@pytest.mark.parametrize("around", [list, lambda layers: [Sequential(layers)]])
def test_statistics_of_frozen_layers_stay(around, dtype):
    """Those of a first Standardize, and of BatchNorm, which uses them then as in prediction."""
    features = [Standardize(), Conv(4, 3), BatchNorm(), Activation("relu"), Flatten()]
    layers = [*around(features), Linear(3), LogRegression()]
    values = X.astype(dtype)
    network = NeuralNetwork(layers, rng=0).fit(5 + values, Y, max_iter=2)
    before, other = state_bits(network), 3 * values - 1
    head = NeuralNetwork([Linear(3), LogRegression()], rng=0)
    head.fit(network.outputs(other, -3), Y, **HARD)
    network.freeze(range(len(layers) - 2)).fit(other, Y, **HARD)
    assert changed(before, state_bits(network)) == {str(len(layers) - 2)}
    assert bits(head) == b"".join(array.tobytes() for array in network.params()[-2:])
    network.unfreeze().fit(other, Y, max_iter=1)
    assert len(changed(before, state_bits(network))) == 4


def test_a_frozen_standardize_finds_out_what_it_does_not_know():
    network = NeuralNetwork([Standardize(), Flatten(), Linear(3), LogRegression()], rng=0)
    network.freeze(0).fit(5 + X, Y, max_iter=1)
    assert abs(network.layers[0].mean_ - 5 - X.mean()) < 1e-5


# --- layers of the user's own ---------------------------------------------------------------


class Projection(Layer, ParamMixin):
    """A random matrix, and a trained one that it says nothing more of."""

    def _setup(self, input_shape, rng):
        self.fixed = rng.standard_normal((input_shape[1], 4)).astype(self.dtype)
        self.V = rng.standard_normal((4, 5)).astype(self.dtype)

    def fprop(self, input):
        self.input = input
        return input @ self.fixed @ self.V

    def bprop(self, output_grad):
        self.V_grad = (self.input @ self.fixed).T @ output_grad / len(self.input)
        return output_grad @ self.V.T @ self.fixed.T

    def params(self):
        return [self.V]

    def param_grads(self):
        return [self.V_grad]

    def output_shape(self, input_shape):
        return input_shape[0], 5


def test_a_layer_of_the_users_own_is_set_up_once():
    layers = [Flatten(), Projection(), Linear(3), LogRegression()]
    network = NeuralNetwork(layers, rng=0).fit(X, Y, 0.01, max_iter=1)
    own = layers[1]
    before = own.fixed.tobytes(), own.V.tobytes()
    network.freeze(1)
    network.rng = 1
    head = network.fit(X, Y, 0.01, max_iter=1).params()[-2].tobytes()
    assert (own.fixed.tobytes(), own.V.tobytes()) == before
    twin = NeuralNetwork([*copy.deepcopy(layers[:2]), Linear(2), LogRegression()], rng=0)
    twin.fit(X, Y % 2, 0.01, max_iter=1)
    assert (twin.layers[1].fixed.tobytes(), twin.layers[1].V.tobytes()) == before
    with pytest.raises(ValueError, match=r"it is frozen, and was set up for \(64,\) and float32"):
        network.fit(X[:, :, 1:], Y)
    assert network.params()[-2].tobytes() == head
    network.unfreeze().fit(X, Y, 0.01, max_iter=1)
    assert own.fixed.tobytes() != before[0]


def test_frozen_layers_inside_of_a_trained_one_of_the_users_own():
    conv, projection = Conv(1, 3), Projection()
    calls = Calls([conv, Activation("tanh")], 1)
    calls.bprop = lambda grad: 2 * calls.row.bprop(grad)
    layers = [calls, Flatten(), projection, Linear(3), LogRegression()]
    network = NeuralNetwork(layers, rng=0).fit(X, Y, 0.01, max_iter=1)
    network.freeze(conv)
    before = state_bits(network)
    network.rng = 1
    network.fit(X, Y, 0.01, max_iter=1)
    assert changed(before, state_bits(network)) == {"2", "3"}
    network.fit(X.astype(np.float32)[:, :, :, 2:], Y, 0.01, max_iter=1)
    assert changed(before, state_bits(network)) == {"2", "3"}
    with pytest.raises(ValueError, match=r"layer 0\.row\.0 \(Conv\), which is frozen: params\(\)"):
        network.fit(np.concatenate([X, X], 1), Y, 0.01)


# --- fine-tuning ---------------------------------------------------------------------------


def test_a_loaded_network_gets_a_new_last_layer(tmp_path):
    pytest.importorskip("safetensors")
    cnn().fit(X, Y, max_iter=2).save(tmp_path / "network")
    network = NeuralNetwork.load(tmp_path / "network")
    before, labels = state_bits(network), np.arange(len(X)) % 5
    network.layers[-2] = Linear(5)
    network.freeze(network.layers[:-2])
    network.fit(X, labels, max_iter=2)
    assert network.classes_.tolist() == [0, 1, 2, 3, 4]
    after = state_bits(network)
    assert [after[name] == before[name] for name in ("0.W", "0.b")] == [True, True]
    network.unfreeze()
    network.fit(X, labels, 0.01, max_iter=1, warm_start=True)
    assert changed(after, state_bits(network)) == {"0", "4"}
    assert len(network.loss_history_) == 3
    network.save(tmp_path / "other")
    assert state_bits(NeuralNetwork.load(tmp_path / "other")) == state_bits(network)
