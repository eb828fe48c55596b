"""What callbacks may do: watch, stop, copy, and change what is trained. And schedules."""

import copy
import io
import pickle

import numpy as np
import pytest
from trouble import assert_nothing_lent, bits, cnn, everything, images, steps

from nnet import (
    Activation,
    Conv,
    GlobalAveragePool,
    Linear,
    LogRegression,
    NeuralNetwork,
    Sequential,
    StopTraining,
)

X, Y = images()
FIT = {"max_iter": 2, "batch_size": 32}


# --- stopping --------------------------------------------------------------------------


def stopping(progress):
    raise StopTraining


@pytest.mark.parametrize("callback", [lambda p: True, lambda p: np.True_, stopping])
def test_only_an_explicit_stop_stops(callback):
    expected = steps(cnn(), X, Y, **FIT)
    network, calls = cnn(), []
    network.fit(
        X, Y, **FIT, callback=lambda p: calls.append(p) or (len(calls) == 4 and callback(p))
    )
    assert bits(network) == expected[3]
    assert len(network.loss_history_) == 1
    assert_nothing_lent(network)


@pytest.mark.parametrize("answer", [None, False, np.False_])
def test_these_go_on(answer):
    assert bits(cnn().fit(X, Y, **FIT, callback=lambda p: answer)) == bits(cnn().fit(X, Y, **FIT))


FILE = io.StringIO()


@pytest.mark.parametrize(
    "callback",
    [
        lambda p: p.loss,
        lambda p: FILE.write(f"{p.loss}\n"),
        lambda p: p,
        lambda p: 0,
        lambda p: 1,
        lambda p: "",
        lambda p: np.zeros(2),
        lambda p: np.float32(0),
    ],
)
def test_anything_else_is_refused_at_the_first_call(callback):
    calls, network = [], cnn()
    with pytest.raises(TypeError, match="(?s)callback returned .*, expected None or Fa"):
        network.fit(X, Y, **FIT, callback=lambda p: calls.append(p) or callback(p))
    assert len(calls) == 1
    assert bits(network) == steps(cnn(), X, Y, **FIT)[0]


# --- copies ------------------------------------------------------------------------------


def test_a_copy_in_a_callback_is_a_copy_of_the_last_step(tmp_path):
    pytest.importorskip("safetensors")
    network, sizes = cnn(), []

    def callback(progress):
        path = tmp_path / "network"
        progress.network.save(path)
        dumped = pickle.dumps(network)
        sizes.append(len(dumped))
        for twin in (copy.deepcopy(network), pickle.loads(dumped), NeuralNetwork.load(path)):
            assert bits(twin) == bits(network)
            assert np.array_equal(twin.predict_proba(X), network.predict_proba(X))
            assert_nothing_lent(twin)
            assert len(pickle.dumps(twin)) <= len(dumped) + 100
        assert copy.deepcopy(network).loss_history_ == network.loss_history_
        for layer in copy.deepcopy(network.layers):
            assert not vars(layer).keys() & {"_work", "_kept", "training", "need_input_grad"}

    network.fit(X, Y, callback=callback, momentum=0.9, **FIT)
    assert max(sizes) < 8000
    assert bits(network) == bits(cnn().fit(X, Y, momentum=0.9, **FIT))


def test_a_copy_goes_its_own_way():
    network, twins = cnn(rng=np.random.default_rng(3)), []
    network.fit(X, Y, callback=lambda p: twins.append(copy.deepcopy(network)), **FIT)
    before = everything(network, X)
    third = everything(twins[2], X)
    twins[2].fit(X, Y, max_iter=1)
    assert everything(network, X) == before
    assert everything(twins[2], X) != third
    twins[3].params()[0][:] = 0
    assert everything(network, X) == before


def test_a_copy_has_the_attributes_that_others_have_set():
    class Named(NeuralNetwork):
        pass

    network = Named(cnn().layers, rng=0)
    network.name = "of a class of the user's"
    for twin in (copy.deepcopy(network), copy.deepcopy(network.fit(X, Y, max_iter=1))):
        assert type(twin) is Named
        assert twin.name == network.name
        twin.fit(X, Y, max_iter=1)
    assert bits(twin) == bits(network)


class Knowing(Activation):
    """A layer that knows its network."""


def test_layers_may_know_their_network():
    network = cnn()
    network.layers[1] = Knowing("relu")
    network.layers[1].network = network
    for _ in range(2):
        assert bits(network.fit(X, Y, max_iter=1)) == bits(cnn().fit(X, Y, max_iter=1))
        for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert everything(twin, X) == everything(network, X)
            assert twin.layers[1].network is twin
        assert len(network.check_gradients(X[:2], Y[:2], max_checks=1)) == 4


# --- changes -----------------------------------------------------------------------------


def test_a_new_array_is_trained_on():
    """As if its values had been written to the old one."""
    networks = cnn(), cnn()

    def write(p):
        if p.epoch == 1 and p.n_seen == 64:
            p.network.layers[0].W[...] *= 2

    def replace(p):
        if p.epoch == 1 and p.n_seen == 64:
            p.network.layers[0].W = p.network.layers[0].W * 2

    for network, callback in zip(networks, (write, replace)):
        network.fit(X, Y, **FIT, momentum=0.9, callback=callback)
    assert bits(networks[0]) == bits(networks[1]) != bits(cnn().fit(X, Y, **FIT, momentum=0.9))


def read_only(W):
    W = W.copy()
    W.flags.writeable = False
    return W


@pytest.mark.parametrize(
    "change, error, message",
    [
        (
            lambda W: W[:, :4],
            ValueError,
            r"0 \(Conv\)\.W has shape \(1, 4, 3, 3\), expected \(1, 8, 3",
        ),
        (lambda W: W.astype(np.float64), TypeError, r"0 \(Conv\)\.W has dtype <f8, expected <f4"),
        (lambda W: None, ValueError, r"0 \(Conv\)\.W is None"),
        (lambda W: W.tolist(), TypeError, r"0 \(Conv\)\.W is a list"),
        (read_only, ValueError, r"0\.W is read-only"),
    ],
)
@pytest.mark.parametrize("answer", [None, True])
def test_an_array_that_does_not_fit_is_refused_by_name(change, error, message, answer):
    def callback(p):
        p.network.layers[0].W = change(p.network.layers[0].W)
        return answer

    with pytest.raises(error, match=message):
        cnn().fit(X, Y, **FIT, callback=callback)


def test_a_layer_may_not_gain_or_lose_parameters():
    def callback(p):
        p.network.layers[0].use_bias = False

    with pytest.raises(ValueError, match=r"the callback left the parameters .*, expected .*0\.b"):
        cnn().fit(X, Y, **FIT, callback=callback)


def test_an_option_is_taken_up_with_the_next_step():
    def network(strides):
        layers = [Conv(4, (3, 3), strides=strides), Activation("relu"), GlobalAveragePool()]
        return NeuralNetwork([*layers, Linear(3), LogRegression()], rng=0)

    def callback(p):
        if p.epoch_done and p.epoch == 1:
            p.network.layers[0].strides = (2, 2)
            p.network.layers[1].type = "tanh"
            p.network.layers[1] = Activation("elu")
            assert p.network.predict(X).shape == (96,)

    changed = network((1, 1)).fit(X, Y, max_iter=2, callback=callback, shuffle=False)
    # The same by hand: the first epoch, then another network from its parameters.
    first = network((1, 1)).fit(X, Y, max_iter=1, shuffle=False)
    second = network((2, 2))
    second.layers[1] = Activation("elu")

    def start(p):
        if p.epoch_done and p.epoch == 1:
            p.network.load_state_dict(first.state_dict())

    second.fit(X, Y, max_iter=2, callback=start, shuffle=False)
    assert bits(changed) == bits(second)
    assert_nothing_lent(changed)


def test_arrays_may_be_loaded():
    state = cnn(rng=1).fit(X, Y, max_iter=1).state_dict()

    def callback(p):
        p.network.load_state_dict(state)

    network = cnn().fit(X, Y, **FIT, callback=callback)
    assert all(np.array_equal(network.state_dict()[name], state[name]) for name in state)


@pytest.mark.parametrize("method", ["fit", "build"])
def test_training_in_a_callback_is_refused_and_changes_nothing(method):
    def callback(p):
        with pytest.raises(RuntimeError, match="is being trained"):
            p.network.fit(X, Y) if method == "fit" else p.network.build((1, 8, 8), 3)

    assert bits(cnn().fit(X, Y, **FIT, callback=callback)) == bits(cnn().fit(X, Y, **FIT))


def test_another_network_may_train_in_a_callback():
    others = []
    network = cnn().fit(X, Y, **FIT, callback=lambda p: others.append(cnn(rng=1).fit(X, Y, **FIT)))
    assert bits(network) == bits(cnn().fit(X, Y, **FIT))
    assert {bits(other) for other in others} == {bits(cnn(rng=1).fit(X, Y, **FIT))}


def test_histories_in_a_callback():
    seen = []

    def callback(p):
        if p.epoch_done:
            network = p.network
            seen.append(p.loss)
            assert network.loss_history_ == seen
            assert network.val_loss_history_[-1] == p.val_loss
            assert len(network.val_error_history_) == p.epoch

    cnn().fit(X, Y, max_iter=3, validation_data=(X, Y), callback=callback)
    assert len(seen) == 3


# --- schedules -----------------------------------------------------------------------------


def test_a_schedule_with_a_memory_is_asked_once_an_epoch():
    rates, asked = iter([0.1, 0.05, 0.025]), []

    def schedule(epoch):
        asked.append(epoch)
        return next(rates)

    network = cnn().fit(X, Y, schedule, max_iter=3)
    assert asked == [0, 1, 2]
    assert bits(network) == bits(cnn().fit(X, Y, lambda epoch: 0.1 / 2**epoch, max_iter=3))


@pytest.mark.parametrize("inside", [False, True])
def test_a_callback_may_put_a_layer_with_arrays_of_its_own_in_place_of_another(inside):
    def callback(progress):
        if progress.epoch == 1 and progress.epoch_done:
            new = Linear(3)
            new.W, new.b = (array.copy() for array in old.params())
            layers = row.layers if inside else network.layers
            layers[layers.index(old)] = new

    expected = bits(cnn().fit(X, Y, max_iter=2))
    network = cnn()
    old = network.layers[4]
    row = Sequential([old])
    if inside:
        network.layers[4] = row
    network.fit(X, Y, max_iter=2, callback=callback)
    assert bits(network) == expected
    assert (row if inside else network).layers[-1 if inside else 4] is not old
