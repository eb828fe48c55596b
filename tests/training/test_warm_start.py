"""warm_start and partial_fit: trainings that go on from the parameters there are."""

import copy
import os
import pickle

import numpy as np
import pytest
from checkpoints import network as with_state
from test_threads import paused_between_steps
from trouble import (
    RNGS,
    assert_nothing_lent,
    bits,
    cnn,
    everything,
    images,
    in_thread,
    moody,
    raising,
    steps,
)

from nnet import (
    SGD,
    Callback,
    DivergedError,
    Layer,
    Linear,
    MeanSquaredError,
    NeuralNetwork,
)

X, Y = images()
BAD = X.copy()
BAD[90, 0, 3, 3] = np.nan


def test_a_loaded_network_that_starts_afresh_is_warned_of(tmp_path, recwarn):
    pytest.importorskip("safetensors")
    cnn().fit(X, Y, max_iter=1).save(tmp_path / "model")

    def loaded():
        return NeuralNetwork.load(tmp_path / "model")

    network = loaded()
    with pytest.warns(UserWarning, match="fit starts afresh: .* expected warm_start=True"):
        network.fit(X, Y, max_iter=1)
    recwarn.clear()
    network.fit(X, Y, max_iter=1)
    loaded().fit(X, Y, max_iter=1, warm_start=True)
    loaded().partial_fit(X, Y)
    network = loaded()
    network.freeze(network.layers[:-2])
    network.layers[-2] = Linear(3)  # which holds nothing yet
    network.fit(X, Y, max_iter=1)
    assert not recwarn.list


@pytest.mark.parametrize(
    "change",
    [
        lambda network: network.freeze(0),
        lambda network: network.layers.__setitem__(-2, Linear(3)),
        copy.deepcopy,
        lambda network: pickle.loads(pickle.dumps(network)),
        lambda network: network.load_state_dict(network.state_dict()),
        lambda network: failing(network),
    ],
)
def test_it_is_warned_of_whatever_was_done_since(change, tmp_path):
    pytest.importorskip("safetensors")
    cnn().build(X.shape[1:], 3).save(tmp_path / "model")
    network = NeuralNetwork.load(tmp_path / "model")
    network = change(network) or network
    with pytest.warns(UserWarning, match="parameters that were loaded are gone"):
        network.fit(X, Y, max_iter=1)


def failing(network):
    """Before the first step, when all is set up."""
    with pytest.warns(UserWarning), pytest.raises(ZeroDivisionError):
        network.fit(X, Y, augment=lambda images: 1 / 0)


def test_a_state_dict_that_fit_draws_anew_is_warned_of(recwarn):
    network = cnn().build(X.shape[1:], 3)
    network.load_state_dict(network.state_dict())
    with pytest.warns(UserWarning, match="parameters that were loaded are gone"):
        network.fit(X, Y, max_iter=1)
    recwarn.clear()
    network.fit(X, Y, max_iter=1, callback=lambda p: network.load_state_dict(network.state_dict()))
    network.fit(X, Y, max_iter=1)
    network.load_state_dict(network.state_dict())
    network.build(X.shape[1:], 3).fit(X, Y, max_iter=1)
    assert not recwarn.list


# --- warm_start ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [cnn, with_state])
@pytest.mark.parametrize("rng", [0, np.random.default_rng(5), np.random.RandomState(5)])
def test_it_goes_on_where_the_last_fit_ended(make, rng):
    """Without momentum, and with a seed, as if nobody had stopped."""
    options = {"learning_rate": 0.05, "validation_data": (X, Y)}
    network = make(rng=copy.deepcopy(rng)).fit(X, Y, max_iter=2, **options)
    first = network.history_
    network.fit(X, Y, max_iter=3, warm_start=True, **options)
    assert {name: values[:2] for name, values in network.history_.items()} == first
    assert {len(values) for values in network.history_.values()} == {5}
    if rng == 0:
        assert everything(network, X) == everything(make().fit(X, Y, max_iter=5, **options), X)


def test_no_epoch_has_the_random_numbers_of_another():
    network, seen = with_state(), []

    def keep(progress):
        seen.append(network.layers[3].factors.tobytes())

    for warm_start in (False, True):
        network.fit(X, Y, max_iter=2, batch_size=48, callback=keep, warm_start=warm_start)
    network.partial_fit(X, Y, batch_size=48)
    seen.append(network.layers[3].factors.tobytes())
    assert len(set(seen)) == len(seen) == 9


def test_a_network_that_is_not_fitted_starts_afresh():
    assert bits(cnn().fit(X, Y, warm_start=True)) == bits(cnn().fit(X, Y))


def test_it_goes_on_from_build_load_and_arrays_of_the_users(tmp_path):
    pytest.importorskip("safetensors")
    network = cnn().fit(X, Y, max_iter=2)
    network.save(tmp_path / "m")
    expected = cnn().build((1, 8, 8), 3)
    expected.load_state_dict(network.state_dict())
    twins = [NeuralNetwork.load(tmp_path / "m"), pickle.loads(pickle.dumps(expected)), expected]
    for twin in twins:
        twin.rng = 3
        twin.fit(X, Y, max_iter=2, warm_start=True)
    assert len({bits(twin) for twin in twins}) == 1
    assert bits(twins[0]) != bits(cnn(rng=3).fit(X, Y, max_iter=2))


def test_without_it_every_fit_starts_afresh():
    network = cnn().fit(X, Y, max_iter=2)
    assert bits(network.fit(X, Y, max_iter=2)) == bits(cnn().fit(X, Y, max_iter=2))
    assert len(network.loss_history_) == 2


def test_classes_may_be_missing_and_the_dtype_stays():
    network = cnn().fit(X, np.array(["a", "b", "c"])[Y], max_iter=1)
    few = Y > 0
    network.fit(X[few].astype(float), np.array(["a", "b", "c"])[Y[few]], warm_start=True)
    assert network.classes_.tolist() == ["a", "b", "c"] and network.dtype_ == np.float32


def test_an_option_may_change_and_a_layer_freeze():
    network = cnn().fit(X, Y, max_iter=1)
    W = network.layers[0].W.copy()
    network.layers[0].trainable, network.layers[1].type = False, "tanh"
    network.fit(X, Y, max_iter=2, momentum=0.9, warm_start=True)
    assert np.array_equal(network.layers[0].W, W)
    network.layers[4].n_out = 5
    before = bits_of(network)
    with pytest.raises(ValueError, match=r"layer 4 \(Linear\)"):
        network.fit(X, Y, warm_start=True)
    assert bits_of(network) == before


def bits_of(network):
    """Also of one whose layers do not fit together."""
    return b"".join(array.tobytes() for layer in network.layers for array in vars_of(layer))


def vars_of(layer):
    return [value for value in vars(layer).values() if isinstance(value, np.ndarray)]


class Failing(Callback):
    def on_fit_begin(self, network, monitors):
        raise OSError("begin")


FAILURES = {
    "label": ({"y": Y + 1}, ValueError),
    "labels of another kind": ({"y": Y.astype(str)}, TypeError),
    "shape": ({"X": X[:, :, 1:]}, ValueError),
    "values": ({"X": BAD}, ValueError),
    "lengths": ({"y": Y[1:]}, ValueError),
    "weights": ({"sample_weight": np.ones(3)}, ValueError),
    "zeros": ({"sample_weight": np.zeros(96)}, ValueError),
    "class_weight": ({"class_weight": {7: 1}}, ValueError),
    "fraction": ({"validation_fraction": 2}, ValueError),
    "metrics": ({"metrics": ["accuracy"]}, TypeError),
    "callback": ({"callbacks": [3]}, TypeError),
    "rate": ({"learning_rate": raising(KeyError("rate"))}, KeyError),
    "interrupt": ({"learning_rate": raising(KeyboardInterrupt())}, KeyboardInterrupt),
    "divergence": ({"learning_rate": 1e30, "max_iter": 9}, DivergedError),
    "optimizer": ({"optimizer": "adam?"}, ValueError),
    "batches": ({"X": iter([(X, Y)]), "y": None, "batch_size": None}, TypeError),
    "resume": ({"resume": "/nothing/there"}, OSError),
    "first pass": ({}, RuntimeError),
    "begin": ({"callbacks": [Failing()]}, OSError),
}


@pytest.mark.parametrize("make_rng", RNGS)
@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_before_the_first_step_leaves_all_as_it_was(name, make_rng):
    options, error = FAILURES[name]
    network = moody(make_rng).fit(X, Y, max_iter=2, validation_data=(X, Y))
    before = everything(network, X)
    network.layers[3].error_in_fprop = RuntimeError() if name == "first pass" else None
    for _ in range(2):
        with pytest.raises(error):
            network.fit(**{"X": X, "y": Y, "batch_size": 32, "warm_start": True, **options})
    network.layers[3].error_in_fprop = None
    assert everything(network, X) == before
    assert_nothing_lent(network)
    # It trains on as if nothing had been.
    twin = moody(make_rng).fit(X, Y, max_iter=2, validation_data=(X, Y))
    networks = [each.fit(X, Y, max_iter=1, warm_start=True) for each in (network, twin)]
    assert everything(networks[0], X) == everything(networks[1], X)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("step", [1, 2, 4])
def test_an_exception_keeps_the_last_step(error, step):
    def network():
        return with_state().fit(X, Y, max_iter=1)

    options = {"max_iter": 2, "batch_size": 48, "momentum": 0.5, "warm_start": True}
    expected = steps(network(), X, Y, **options)
    stopped, calls = network(), []

    def callback(progress):
        calls.append(progress)
        if len(calls) == step:
            raise error

    with pytest.raises(error):
        stopped.fit(X, Y, callback=callback, **options)
    assert bits(stopped) == expected[step]
    assert len(stopped.loss_history_) == 1 + step // 2
    assert_nothing_lent(stopped)


# --- partial_fit ------------------------------------------------------------------------------


def test_each_call_is_an_epoch():
    network, expected = with_state(), with_state()
    for _ in range(3):
        assert network.partial_fit(X, Y, learning_rate=0.05) is network
    expected.fit(X, Y, 0.05, max_iter=3)
    assert everything(network, X) == everything(expected, X)


@pytest.mark.parametrize(
    "options", [{"momentum": 0.9}, {"optimizer": SGD(learning_rate=0.05, momentum=0.9)}]
)
def test_the_momentum_goes_on(options):
    rate = {} if "optimizer" in options else {"learning_rate": 0.05}
    network, expected = cnn(), cnn().fit(X, Y, max_iter=3, **options, **rate)
    network.fit(X, Y, max_iter=1, **options, **rate)
    for _ in range(2):
        network.partial_fit(X, Y, **options, **rate)
    assert bits(network) == bits(expected)
    # With other options, another rate aside, it starts afresh.
    twins = [copy.deepcopy(network) for _ in range(2)]
    twins[0].partial_fit(X, Y, learning_rate=0.05, momentum=0.5)
    network.partial_fit(X, Y, learning_rate=0.05, momentum=0.5)
    assert bits(network) == bits(twins[0])


@pytest.mark.parametrize("frozen", [0, 4])
def test_momentum_starts_afresh_where_other_layers_are_trained(frozen):
    network = cnn().partial_fit(X, Y, momentum=0.9)
    network.layers[frozen].trainable = False
    twin = copy.deepcopy(network)
    for each in (network, twin):
        each.partial_fit(X, Y, momentum=0.9)
    assert bits(network) == bits(twin)
    network.layers[frozen].trainable = True
    network.partial_fit(X, Y, momentum=0.9)


def test_classes_that_come_later():
    order = np.argsort(Y, kind="stable")
    network = cnn()
    for rows in np.split(order, 3):
        network.partial_fit(X[rows], Y[rows], classes=[2, 0, 1])
    assert network.classes_.tolist() == [0, 1, 2] and len(network.loss_history_) == 3
    one = cnn().partial_fit(X[:1], Y[:1], range(3))
    assert np.isfinite(one.predict_proba(X)).all()


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((X, Y * 0), ValueError, "y has only one class, 0, expected"),
        ((X, Y, [0, 1]), ValueError, "y has the label 2, expected one of"),
        ((X, Y, [0]), ValueError, "classes has only .0., expected at least 2"),
        ((X, Y, 3), TypeError, "classes is 3, expected a list of all labels"),
        ((X, Y, ["a", "b"]), TypeError, "expected labels like"),
        ((X, Y[1:]), ValueError, "expected as many of both"),
        ((X,), TypeError, "y is None"),
    ],
)
def test_a_first_call_that_is_refused(arguments, error, message):
    network = cnn()
    with pytest.raises(error, match=message):
        network.partial_fit(*arguments)
    assert network.input_shape_ is None


def test_later_calls_that_are_refused():
    network = cnn().partial_fit(X, Y)
    before = everything(network, X)
    for arguments, message in [
        ((X, Y, [0, 1]), r"classes is \[0, 1\], expected those of the network: \[0, 1, 2\]"),
        ((X, Y + 1), "y has the label 3"),
        ((X[:, :, 1:], Y), "X has shape"),
        ((BAD, Y), r"X\[90\] has NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            network.partial_fit(*arguments)
    assert everything(network, X) == before
    network.partial_fit(X[:5], Y[:5], classes=[0, 1, 2])


def test_regression_and_batches():
    y = np.random.default_rng(0).normal(size=96).astype(np.float32)
    network = NeuralNetwork([Linear(1), MeanSquaredError()], rng=0)
    F = X.reshape(96, -1)
    network.partial_fit(F, y, learning_rate=0.01)
    network.partial_fit([(F[:50], y[:50]), (F[50:], y[50:])], learning_rate=0.01)
    assert len(network.loss_history_) == 2
    with pytest.raises(TypeError, match="classes is given, expected None for a network that pred"):
        network.partial_fit(F, y, classes=[0, 1])


# --- threads and forks ------------------------------------------------------------------


@pytest.mark.parametrize("make", [cnn, with_state])
@pytest.mark.parametrize("after", [0, 1])
def test_everyone_sees_the_last_finished_fit(make, after, tmp_path):
    network = make().fit(X, Y, max_iter=2)
    before = everything(network, X)
    with paused_between_steps(network, X, Y, after=after, warm_start=True) as pausing:
        for see in (lambda f: f(), in_thread):
            assert see(lambda: everything(network, X)) == before
        for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert everything(twin, X) == before
        for call in (network.partial_fit, lambda X, y: network.fit(X, y, warm_start=True)):
            with pytest.raises(RuntimeError, match="is being trained"):
                call(X, Y)
        with pytest.raises(RuntimeError, match="is being trained"):
            network.load_state_dict(network.state_dict())
        pausing.end()
        assert pausing.error is None
    assert everything(network, X) == everything(make().fit(X, Y, max_iter=5), X)


class Pausing(Layer):
    """Calls a function in its forward pass, while the network trains."""

    function = None

    def fprop(self, input):
        if self.training and self.function is not None:
            self.function()
        return input

    def bprop(self, output_grad):
        return output_grad

    def output_shape(self, input_shape):
        return input_shape


def test_everyone_sees_the_last_finished_fit_during_partial_fit():
    layer = Pausing()
    network = NeuralNetwork([layer, *cnn().layers], rng=0).fit(X, Y, max_iter=1)
    before, seen = everything(network, X), []

    def look():
        seen.append(in_thread(lambda: everything(network, X)))
        with pytest.raises(RuntimeError, match="is being trained"):
            network.partial_fit(X, Y)

    layer.function = look
    network.partial_fit(X, Y, batch_size=48)
    assert seen == [before, before] and everything(network, X) != before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_a_fork_trains_on():
    """The parent is in the middle of a warm start, in another thread."""
    network = cnn().fit(X, Y, max_iter=1)
    expected = bits(cnn().fit(X, Y, max_iter=1).partial_fit(X, Y))
    with paused_between_steps(network, X, Y, warm_start=True):
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if bits(network.partial_fit(X, Y)) == expected else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        assert status == 0
    assert bits(network) == bits(cnn().fit(X, Y, max_iter=4))
