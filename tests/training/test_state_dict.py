"""state_dict and load_state_dict: arrays by name."""

import numpy as np
import pytest
from networks import same, stripes
from structures import STRUCTURES, as_network, network_of

from nnet import (
    Activation,
    BatchNorm,
    Checkpoint,
    Conv,
    Layer,
    Linear,
    NeuralNetwork,
    Parallel,
    ParamMixin,
    Residual,
    Sequential,
    Standardize,
)


class Centre(Layer, ParamMixin):
    """Subtracts the mean of what it has seen, and adds parameters of several kinds."""

    def _setup(self, input_shape, rng):
        self.mean = np.zeros(input_shape[1:], self.dtype)
        self.shift = np.zeros(input_shape[1:])  # float64, whatever the network's
        self.both = rng.normal(size=(2, *input_shape[1:])).astype(self.dtype)

    def fprop(self, input):
        if self.training:
            self.mean += 0.1 * (input.mean(axis=0) - self.mean)
        return (input - self.mean + self.shift + self.both.sum(axis=0)).astype(input.dtype)

    def bprop(self, output_grad):
        self.grad = output_grad.mean(axis=0)
        return output_grad

    def params(self):
        return self.shift, self.both[0], self.both[1]

    def param_grads(self):
        return self.grad, self.grad, self.grad

    def state_names(self):
        return ["mean"]

    def output_shape(self, input_shape):
        return input_shape


def nested():
    return as_network(
        [
            Conv(2, 3),
            Sequential([Activation("relu"), Conv(2, 3, use_bias=False)]),
            Residual([Conv(3, 3)], shortcut=[Conv(3, 1), Centre()]),
            Parallel([[], [Conv(3, 1)], Centre()]),
        ]
    )


NAMES = [
    *("0.W", "0.b", "1.1.W", "2.0.W", "2.0.b", "2.shortcut.0.W", "2.shortcut.0.b"),
    *("2.shortcut.1.shift", "2.shortcut.1.param1", "2.shortcut.1.param2"),
    *("3.1.0.W", "3.1.0.b", "3.2.shift", "3.2.param1", "3.2.param2", "5.W", "5.b"),
    *("2.shortcut.1.mean", "3.2.mean"),
]


@pytest.fixture
def network(rng):
    X, y = stripes(30, rng)
    return nested().fit(X, y, 0.01, max_iter=2)


def test_names(network):
    state = network.state_dict()
    assert list(state) == NAMES
    assert same(list(state.values())[: len(network.params())], network.params())
    assert network.layers[2].shortcut[1].mean.any()
    assert np.array_equal(state["2.shortcut.1.mean"], network.layers[2].shortcut[1].mean)
    assert network.build((1, 6, 6), 3).state_dict().keys() == state.keys()


def test_names_of_arrays_that_cannot_be_told_apart(rng):
    class Odd(Centre):
        def _setup(self, input_shape, rng):
            super()._setup(input_shape, rng)
            self.param2 = self.shift

        def params(self):
            return self.param2, self.both[0], self.both[1]

    X, y = stripes(30, rng)
    network = as_network([Residual([Odd()])]).fit(X, y, 0.01, max_iter=1)
    names = ["0.0.param0", "0.0.param1", "0.0.param2", "2.W", "2.b", "0.0.mean"]
    assert list(network.state_dict()) == names
    assert len(network.params()) == 5


def test_the_arrays_are_copies(network, rng):
    X, _ = stripes(9, rng)
    probs = network.predict_proba(X)
    state = network.state_dict()
    for array in state.values():
        array[...] = 9
    assert np.array_equal(network.predict_proba(X), probs)
    before = [array.copy() for array in network.state_dict().values()]
    network.fit(*stripes(30, rng), 0.01, max_iter=1)
    assert all((array == 9).all() for array in state.values())
    assert not same(before, list(network.state_dict().values()))


@pytest.mark.parametrize("name", STRUCTURES)
def test_round_trip(name, rng, dtype):
    X, y = stripes(30, rng, dtype)
    network = network_of(name).fit(X, y, max_iter=1)
    other = network_of(name, rng=1).fit(X, y, max_iter=2)
    other.load_state_dict(network.state_dict())
    assert np.array_equal(other.predict_proba(X), network.predict_proba(X))
    assert same(list(other.state_dict().values()), list(network.state_dict().values()))


def test_load_writes_into_the_live_arrays(network, rng):
    X, y = stripes(30, rng)
    params, state = network.params(), network.state_dict()
    mean = network.layers[3].branches[2].mean
    network.fit(X, y, 0.02, max_iter=1)
    params = network.params()
    network.load_state_dict(dict(reversed(state.items())))  # in any order
    assert all(new is old or new.base is old.base for new, old in zip(network.params(), params))
    assert same(network.params(), list(state.values())[: len(params)])
    assert np.array_equal(network.layers[3].branches[2].mean, state["3.2.mean"])
    assert mean.shape == state["3.2.mean"].shape


def test_any_layout_and_ones_own_arrays(rng):
    network = as_network([Sequential([Conv(1, 3), Conv(1, 3)])]).build((1, 6, 6), 3)
    first, second = network.layers[0].layers
    before = first.W.copy(), second.W.copy()
    state = network.state_dict()
    network.load_state_dict(state | {"0.0.W": second.W, "0.1.W": first.W, "2.W": state["2.W"]})
    assert same([second.W, first.W], list(before))
    W = rng.normal(size=(3, 36)).astype(np.float32)
    network.load_state_dict(state | {"2.W": W.T})
    assert np.array_equal(network.layers[2].W, W.T)
    frozen = state["2.W"].copy()
    frozen.flags.writeable = False
    network.load_state_dict(state | {"2.W": frozen})
    assert np.array_equal(network.layers[2].W, frozen)


def without(state, *names):
    return {name: array for name, array in state.items() if name not in names}


@pytest.mark.parametrize(
    "change, error, message",
    [
        (lambda s: without(s, "2.shortcut.0.W"), ValueError, r"lacks \['2.shortcut.0.W'\]"),
        (lambda s: without(s, "3.2.mean"), ValueError, r"lacks \['3.2.mean'\] and has"),
        (lambda s: {}, ValueError, r"lacks \['0.W', .*expected \['0.W'"),
        (lambda s: s | {"7.W": s["0.W"]}, ValueError, r"has the unknown \['7.W'\], expected"),
        (lambda s: s | {"1.1.b": s["0.b"]}, ValueError, r"the unknown \['1.1.b'\]"),
        (lambda s: s | {3: s["0.b"]}, ValueError, r"the unknown \[3\]"),
        (
            lambda s: without(s, "0.b") | {"0.c": s["0.b"]},
            ValueError,
            r"lacks \['0.b'\] and has the unknown \['0.c'\]",
        ),
        (
            lambda s: s | {"2.shortcut.0.W": s["2.shortcut.0.W"][:, :1]},
            ValueError,
            r"state\['2.shortcut.0.W'\] has shape \(2, 1, 1, 1\), expected \(2, 3, 1, 1\)",
        ),
        (lambda s: s | {"5.b": s["5.b"][0]}, ValueError, r"state\['5.b'\] has shape \(\), expec"),
        (lambda s: s | {"5.b": s["5.b"][None]}, ValueError, r"state\['5.b'\] has shape \(1, 3\)"),
        (
            lambda s: s | {"3.1.0.W": s["3.1.0.W"].astype(float)},
            TypeError,
            r"state\['3.1.0.W'\] has dtype <f8, expected <f4: float32",
        ),
        (
            lambda s: s | {"2.shortcut.1.shift": s["2.shortcut.1.shift"].astype(np.float32)},
            TypeError,
            r"state\['2.shortcut.1.shift'\] has dtype <f4, expected <f8: float64",
        ),
        (lambda s: s | {"5.W": s["5.W"].astype(">f4")}, TypeError, r"state\['5.W'\] has dtype >f4"),
        (lambda s: s | {"5.b": [0, 1, 2]}, TypeError, r"state\['5.b'\] has dtype <i8, expected"),
        (lambda s: s | {"5.b": None}, ValueError, r"state\['5.b'\] has shape \(\), expected \(3,"),
        (lambda s: s | {"3.2.mean": s["3.2.mean"].T[:1]}, ValueError, r"state\['3.2.mean'\] has"),
    ],
)
def test_what_does_not_fit_changes_nothing(change, error, message, network):
    state = network.state_dict()
    other = {name: array + 1 for name, array in state.items()}
    with pytest.raises(error, match=message):
        network.load_state_dict(change(other))
    assert same(list(network.state_dict().values()), list(state.values()))


def test_before_fit():
    for call in (lambda n: n.state_dict(), lambda n: n.load_state_dict({})):
        with pytest.raises(ValueError, match="not fitted yet, expected a call of fit or build"):
            call(nested())


def test_in_a_callback(rng):
    """The best step may be put back while the training goes on."""
    X, y = stripes(30, rng)
    states = []

    def callback(progress):
        states.append(progress.network.state_dict())
        progress.network.load_state_dict(states[0])

    network = nested().fit(X, y, 0.05, max_iter=2, batch_size=10, callback=callback)
    assert same(list(network.state_dict().values()), list(states[0].values()))
    assert not same(list(states[0].values()), list(states[1].values()))
    assert len(states) == 6


def test_linear_networks_too(rng):
    X, y = rng.normal(size=(20, 4)), np.arange(20) % 3
    network = as_network([Residual([Linear(4), Activation("tanh")])]).fit(X, y, max_iter=1)
    state = network.state_dict()
    assert {name: array.shape for name, array in state.items()} == {
        "0.0.W": (4, 4),
        "0.0.b": (4,),
        "2.W": (4, 3),
        "2.b": (3,),
    }


def test_masked_arrays_are_refused(rng):
    network = nested().fit(*stripes(30, rng), 0.01, max_iter=1)
    state = network.state_dict()
    name = next(iter(state))
    state[name] = np.ma.array(state[name], mask=True)
    with pytest.raises(TypeError, match="expected an array without a mask"):
        network.load_state_dict(state)


# --- values that no training leaves ------------------------------------------------------------

BAD_VALUES = {
    "NaN": ("2.W", np.nan, "has NaN or infinite values, expected finite ones"),
    "inf": ("1.beta", np.inf, "has NaN or infinite values, expected finite ones"),
    "a mean": ("1.running_mean", -np.inf, "has NaN or infinite values, expected finite ones"),
    "a variance": ("1.running_var", -1e-9, "has negative values, expected at least 0"),
    "a scale": ("0.scale_", -1.0, "has negative values, expected at least 0"),
}


def with_statistics(rng):
    network = as_network([Standardize(), BatchNorm(), Conv(2, 3)])
    return network.fit(*stripes(30, rng), 0.01, max_iter=1)


def spoil(network, name, value):
    number, _, attribute = name.partition(".")
    getattr(network.layers[int(number)], attribute)[...].flat[0] = value


@pytest.mark.parametrize("name, value, message", BAD_VALUES.values(), ids=BAD_VALUES)
def test_such_values_are_not_loaded(name, value, message, rng):
    network = with_statistics(rng)
    before = network.state_dict()
    state = network.state_dict()
    state[name].flat[0] = value
    with pytest.raises(ValueError, match=rf"^state\['{name}'\] {message}$"):
        network.load_state_dict(state)
    assert same(list(network.state_dict().values()), list(before.values()))
    state[name].flat[0] = 0.0
    network.load_state_dict(state)


@pytest.mark.parametrize("name, value, message", BAD_VALUES.values(), ids=BAD_VALUES)
def test_such_values_are_not_saved(name, value, message, rng, tmp_path):
    pytest.importorskip("safetensors")
    network = with_statistics(rng)
    network.save(tmp_path / "file")
    before = (tmp_path / "file").read_bytes()
    spoil(network, name, value)
    layer, attribute = name.split(".")
    with pytest.raises(ValueError, match=rf"^layer {layer} \(\w+\)\.{attribute} {message}$"):
        network.save(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == before


@pytest.mark.parametrize("name, value, message", BAD_VALUES.values(), ids=BAD_VALUES)
def test_such_values_reach_no_checkpoint(name, value, message, rng, tmp_path):
    """A callback writes them in the last epoch."""
    pytest.importorskip("safetensors")

    def watch(progress):
        if progress.epoch == 2 and progress.epoch_done:
            kept.append((tmp_path / "file").read_bytes())
            spoil(network, name, value)

    kept, network = [], with_statistics(rng)
    layer, attribute = name.split(".")
    with pytest.raises(ValueError, match=rf"^layer {layer} \(\w+\)\.{attribute} {message}$"):
        callbacks = [watch, Checkpoint(tmp_path / "file")]
        network.fit(*stripes(30, rng), 0.01, max_iter=2, callbacks=callbacks)
    assert (tmp_path / "file").read_bytes() == kept[0]


def test_such_files_are_refused(rng, tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    from nnet.files import saving

    network = with_statistics(rng)
    spoil(network, "1.running_var", -1.0)
    with monkeypatch.context() as patch:
        patch.setattr(saving, "check_values", lambda *arguments: None)
        network.save(tmp_path / "file")
    with pytest.raises(
        ValueError, match=r"was changed: layer 1 \(BatchNorm\)\.running_var has neg"
    ):
        NeuralNetwork.load(tmp_path / "file")
