"""A fit or build that is refused or fails before its first step leaves all as it was."""

import copy
import gc
import operator
import os

import numpy as np
import pytest
from trouble import (
    RNGS,
    Moody,
    assert_nothing_lent,
    bits,
    cnn,
    everything,
    images,
    moody,
    raising,
    steps,
)

import nnet
from nnet import (
    SGD,
    Activation,
    DivergedError,
    Layer,
    Linear,
    LogRegression,
    NeuralNetwork,
    Parallel,
    ParamMixin,
    Residual,
    Sequential,
)

X, Y = images()
BAD = X.copy()
BAD[90, 0, 3, 3] = np.nan


def break_layer(network, monkeypatch):
    network.layers[3].error = OSError("half-way")


def break_another(network, monkeypatch):
    network.layers[3].error = KeyboardInterrupt()


def break_own(network, monkeypatch):
    monkeypatch.setattr(type(network.layers[5]), "_setup", raising(MemoryError()))


def break_the_first_pass(network, monkeypatch):
    network.layers[3].error_in_fprop = RuntimeError("first pass")


def break_reading(network, monkeypatch):
    monkeypatch.setattr("nnet.training.data.Images.batch", raising(OSError("disk")))


def break_memory(network, monkeypatch):
    monkeypatch.setattr("nnet.training.run.np.empty", raising(MemoryError()))


def break_copying(network, monkeypatch):
    monkeypatch.setattr("nnet.training.model.Model.copy", raising(MemoryError()))


def break_nothing(network, monkeypatch):
    pass


FAILURES = {
    "validation shape": ({"validation_data": (X[:, :, 1:], Y)}, ValueError, break_nothing),
    "validation label": ({"validation_data": (X, Y + 1)}, ValueError, break_nothing),
    "validation lengths": ({"validation_data": (X, Y[1:])}, ValueError, break_nothing),
    "validation values": ({"validation_data": (BAD, Y)}, ValueError, break_nothing),
    "validation pair": ({"validation_data": X}, ValueError, break_nothing),
    "classes": ({"y": np.arange(96) % 5}, ValueError, break_nothing),
    "one class": ({"y": np.zeros(96)}, ValueError, break_nothing),
    "lengths": ({"y": Y[1:]}, ValueError, break_nothing),
    "values": ({"X": BAD}, ValueError, break_nothing),
    "too small images": ({"X": X[:, :, :1, :1]}, ValueError, break_nothing),
    "axes": ({"X": X[:, 0, 0]}, ValueError, break_nothing),
    "rate": ({"learning_rate": raising(KeyError("rate"))}, KeyError, break_nothing),
    "rate's value": ({"learning_rate": lambda epoch: -1}, ValueError, break_nothing),
    "interrupt": (
        {"learning_rate": raising(KeyboardInterrupt())},
        KeyboardInterrupt,
        break_nothing,
    ),
    "optimizer": ({"optimizer": "adam?"}, ValueError, break_nothing),
    "custom layer": ({}, OSError, break_layer),
    "interrupted layer": ({}, KeyboardInterrupt, break_another),
    "own layer": ({}, MemoryError, break_own),
    "first pass": ({}, RuntimeError, break_the_first_pass),
    "reading": ({}, OSError, break_reading),
    "memory": ({}, MemoryError, break_memory),
    "copying": ({}, MemoryError, break_copying),
    "divergence": ({"learning_rate": 1e30, "max_iter": 9}, DivergedError, break_nothing),
}


@pytest.mark.parametrize("make_rng", RNGS)
@pytest.mark.parametrize("name", FAILURES)
def test_a_fitted_network_stays_what_it_was(name, make_rng, monkeypatch):
    options, error, break_it = FAILURES[name]
    network = moody(make_rng).fit(X, Y, max_iter=2, validation_data=(X, Y))
    before, rng = everything(network, X), network.rng
    attributes = {id(layer): set(vars(layer)) for layer in network.layers}
    with monkeypatch.context() as patch:
        break_it(network, patch)
        for _ in range(2):
            with pytest.raises(error):
                network.fit(**{"X": X, "y": Y, "batch_size": 32, **options})
    network.layers[3].error = network.layers[3].error_in_fprop = None
    assert network.rng is rng
    assert everything(network, X) == before
    assert {id(layer): set(vars(layer)) for layer in network.layers} == attributes
    assert [array is None for array in network.layers[3].inside["list"]] == [False, True]
    assert_nothing_lent(network)
    # It trains on as if nothing had been.
    twin = moody(make_rng).fit(X, Y, max_iter=2, validation_data=(X, Y))
    assert everything(network.fit(X, Y, max_iter=1), X) == everything(twin.fit(X, Y, max_iter=1), X)


@pytest.mark.parametrize(
    "name",  # before the first fit there is nothing to copy
    [name for name, (*_, break_it) in FAILURES.items() if break_it is not break_copying],
)
def test_an_unfitted_network_stays_unfitted(name, monkeypatch):
    options, error, break_it = FAILURES[name]
    network = moody(RNGS[1])
    rng, attributes = str(network.rng.bit_generator.state), [set(vars(v)) for v in network.layers]
    with monkeypatch.context() as patch:
        break_it(network, patch)
        with pytest.raises(error):
            network.fit(**{"X": X, "y": Y, **options})
    assert network.input_shape_ is None
    assert str(network.rng.bit_generator.state) == rng
    assert [set(vars(layer)) for layer in network.layers] == attributes
    with pytest.raises(ValueError, match="not fitted"):
        network.predict(X)
    network.layers[3].error = network.layers[3].error_in_fprop = None
    # Nobody has trained its layers: another network may have them.
    assert bits(NeuralNetwork(network.layers, 0).fit(X, Y)) == bits(moody(lambda: 0).fit(X, Y))


@pytest.mark.parametrize("make_rng", RNGS)
@pytest.mark.parametrize(
    "args, error",
    [(((1, 8, 8), 5), ValueError), (((1, 1, 1), 3), ValueError), (((30, 30, 3), 3), OSError)],
)
def test_a_refused_build(args, error, make_rng):
    network = moody(make_rng).fit(X, Y, max_iter=1)
    before = everything(network, X)
    network.layers[3].error = OSError() if error is OSError else None
    with pytest.raises(error):
        network.build(*args)
    network.layers[3].error = None
    assert everything(network, X) == before
    with pytest.raises(ValueError, match="call network.build"):  # as it would have without
        network.fit(np.zeros((4, 30, 30, 3)), [0, 1, 2, 0])


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MemoryError])
@pytest.mark.parametrize("step", [1, 2, 4, 6])
def test_after_the_first_step_an_exception_keeps_the_last(error, step):
    options = {"max_iter": 2, "batch_size": 32, "momentum": 0.5, "validation_data": (X, Y)}
    expected = steps(cnn(), X, Y, **options)
    for network in (cnn(), cnn(rng=1).fit(X, Y)):
        network.rng, calls = 0, []

        def callback(progress, calls=calls):
            calls.append(progress)
            if len(calls) == step:
                raise error

        with pytest.raises(error):
            network.fit(X, Y, callback=callback, **options)
        assert bits(network) == expected[step - 1]
        assert len(network.loss_history_) == len(network.val_loss_history_) == step // 3
        assert_nothing_lent(network)
        network.predict(X)


def test_an_exception_in_a_learning_rate_after_the_first_epoch_keeps_it():
    network = cnn()
    with pytest.raises(ZeroDivisionError):
        network.fit(X, Y, lambda epoch: 0.1 / (1 - epoch), max_iter=3)
    assert bits(network) == bits(cnn().fit(X, Y, 0.1, max_iter=1))


@pytest.mark.parametrize("rng", RNGS)
@pytest.mark.parametrize("where", ["first step", "later step", "epoch", "validation"])
@pytest.mark.parametrize("fitted", [True, False])
def test_a_divergence_restores_what_was_there(where, rng, fitted):
    network = cnn(rng=rng())
    if fitted:
        network.fit(X, Y, max_iter=1, validation_data=(X, Y))
    before = everything(network, X) if fitted else str(vars(network))
    rate = {"later step": 1e15, "epoch": 1e300}.get(where, 0.1)
    huge = X.copy()
    huge[:] = 3e38 if where in ("first step", "validation") else 1
    options = {"validation_data": (huge, Y)} if where == "validation" else {}
    with pytest.raises(DivergedError):
        network.fit(
            huge if where == "first step" else X,
            Y,
            rate,
            max_iter=1 if where == "epoch" else 20,
            batch_size=96 if where == "epoch" else 8,
            **options,
        )
    assert (everything(network, X) if fitted else str(vars(network))) == before


def test_a_numpy_that_raises_is_not_asked_in_a_step():
    """Nothing stops half of a step, whatever np.seterr says."""
    with np.errstate(all="raise"):
        network = cnn().fit(X * 1e-3, Y, 1e-30, max_iter=1, momentum=0.9)
        assert bits(network) == bits(cnn().fit(X * 1e-3, Y, 1e-30, max_iter=1, momentum=0.9))
        assert np.geterr()["under"] == "raise"


def test_an_option_that_no_longer_fits_does_not_stop_a_fit():
    network = cnn().fit(X, Y, max_iter=1)
    network.layers[0].n_feats, network.layers[4].n_out = 5, 4
    fresh = cnn(n_classes=4)
    fresh.layers[0].n_feats = 5
    X4, y4 = images(n_classes=4)
    assert bits(network.fit(X4, y4, max_iter=1)) == bits(fresh.fit(X4, y4, max_iter=1))


# --- layers of two networks ----------------------------------------------------------


def nested(inside):
    return [Linear(4), *inside, Linear(3), LogRegression()]


INSIDE = {
    "flat": lambda layer: [layer],
    "Sequential": lambda layer: [Sequential([Activation("tanh"), layer])],
    "Residual": lambda layer: [Residual([layer])],
    "shortcut": lambda layer: [Residual([Linear(4)], shortcut=[layer])],
    "Parallel": lambda layer: [Parallel([[Sequential([layer])], []])],
}
F = X.reshape(96, -1)


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("method", ["fit", "build", "failed fit"])
def test_a_layer_belongs_to_one_network(name, method):
    shared = Moody() if method == "failed fit" else Linear(4)
    first = NeuralNetwork(nested([shared]), rng=0).fit(F, Y, max_iter=1)
    if method == "failed fit":  # this changes no owner
        shared.error = OSError()
        with pytest.raises(OSError):
            first.fit(F, Y)
        first.layers[1].error = None
    before = everything(first, F)
    second = NeuralNetwork(nested(INSIDE[name](shared)), rng=1)
    with pytest.raises(ValueError, match=r"layer 1.* \(\w+\) belongs to another network"):
        if method == "build":
            second.build((64,), 3)
        else:
            second.fit(F, Y)
    assert everything(first, F) == before
    second = NeuralNetwork(copy.deepcopy(second.layers), rng=1).fit(F, Y, max_iter=1)
    assert everything(first, F) == before
    del first
    gc.collect()
    NeuralNetwork(nested(INSIDE[name](shared)), rng=1).fit(F, Y, max_iter=1)


class Keeping(Layer, ParamMixin):
    """Works with a layer that it keeps in an attribute, and does not name as a child."""

    def __init__(self, inner):
        self.kept = {"layers": inner} if isinstance(inner, list) else inner

    @property
    def inner(self):
        return self.kept["layers"][0] if isinstance(self.kept, dict) else self.kept

    def _setup(self, input_shape, rng):
        self.inner._setup(input_shape, rng)

    def fprop(self, input):
        return self.inner.fprop(input)

    def bprop(self, output_grad):
        return self.inner.bprop(output_grad)

    def params(self):
        return self.inner.params() if isinstance(self.inner, ParamMixin) else []

    def param_grads(self):
        return self.inner.param_grads() if isinstance(self.inner, ParamMixin) else []

    def output_shape(self, input_shape):
        return self.inner.output_shape(input_shape)


@pytest.mark.parametrize(
    "first, second",
    [
        (Keeping, Keeping),
        (Keeping, lambda layer: layer),
        (Keeping, lambda layer: Residual([layer])),
        (lambda layer: Keeping([layer]), lambda layer: Sequential([Keeping(layer)])),
        (lambda layer: Keeping(Keeping(layer)), lambda layer: Keeping(Residual([layer]))),
    ],
)
def test_a_layer_kept_in_an_attribute_belongs_to_one_network(first, second):
    shared = Linear(4)
    network = NeuralNetwork(nested([first(shared)]), rng=0).fit(F, Y, max_iter=1)
    before = everything(network, F)
    other = NeuralNetwork(nested([second(shared)]), rng=1)
    with pytest.raises(ValueError, match=r"Linear\).* belongs to another network|Linear, which"):
        other.fit(F, Y)
    assert everything(network, F) == before
    NeuralNetwork(copy.deepcopy(other.layers), rng=1).fit(F, Y, max_iter=1)
    assert everything(network.fit(F, Y, max_iter=1), F) == before


def test_a_layer_may_read_what_another_network_has_trained():
    """Features of a fixed network, as in a perceptual loss."""

    class Reading(Layer):
        def __init__(self, known):
            self.known = known

        def fprop(self, input):
            return input @ self.known.W

        def bprop(self, output_grad):
            return output_grad @ self.known.W.T

        def output_shape(self, input_shape):
            return input_shape[0], self.known.W.shape[1]

    first = NeuralNetwork(nested([Linear(4)]), rng=0).fit(F, Y, max_iter=1)
    before = everything(first, F)
    second = NeuralNetwork([Reading(first.layers[0]), Linear(3), LogRegression()], rng=1)
    second.fit(F, Y, max_iter=1)
    assert everything(first, F) == before
    assert everything(first.fit(F, Y, max_iter=1), F) == before
    assert not np.isnan(second.predict_proba(F)).any()


def test_layers_of_a_network_that_trains_are_refused_without_a_trace():
    """In the callback, in the middle of a training."""

    class Watching(Moody):
        """Counts what it has been through."""

        n_passes = 0

        def fprop(self, input):
            self.n_passes += self.training
            return super().fprop(input)

    layers = nested([Watching(), Linear(4)])

    def callback(progress):
        arrays = network.params()
        with pytest.raises(ValueError, match="belongs to another network"):
            NeuralNetwork(nested(layers[1:3]), rng=1).fit(F, Y)
        assert all(map(operator.is_, network.params(), arrays))

    network = NeuralNetwork(layers, rng=0)
    network.fit(F, Y, max_iter=2, batch_size=32, callback=callback)
    alone = NeuralNetwork(nested([Watching(), Linear(4)]), rng=0)
    alone.fit(F, Y, max_iter=2, batch_size=32)
    assert bits(network) == bits(alone)
    assert layers[1].n_passes == 6
    assert_nothing_lent(network)


def test_layers_move_to_a_new_network_when_the_old_one_is_gone_or_was_never_trained():
    layers = cnn().layers
    NeuralNetwork(layers)
    network = NeuralNetwork(layers, rng=0).fit(X, Y, max_iter=1)
    del network
    gc.collect()
    network = NeuralNetwork(layers, rng=0).fit(X, Y, max_iter=1)
    assert bits(network) == bits(cnn().fit(X, Y, max_iter=1))
    replaced, network.layers[4] = network.layers[4], Linear(3)
    NeuralNetwork([Linear(5), replaced, LogRegression()], rng=0).fit(F, Y, max_iter=1)


def test_fit_leaves_the_optimizer_as_it_is():
    """What an own training has left in it, say, to be saved."""
    params = [np.ones(3)]
    optimizer = SGD(momentum=0.9, params=params)
    optimizer.step([np.ones(3)])
    velocity = optimizer.state()["velocity.0"].copy()
    network = cnn()
    for rate, error in [(raising(KeyError()), KeyError), (1e30, DivergedError)]:
        with pytest.raises(error):
            network.fit(X, Y, rate, optimizer=optimizer)
    network.fit(X, Y, 0.05, max_iter=2, optimizer=optimizer)
    assert bits(network) == bits(cnn().fit(X, Y, 0.05, max_iter=2, momentum=0.9))
    assert optimizer.params[0] is params[0] and optimizer.learning_rate == 0.1
    assert np.array_equal(optimizer.state()["velocity.0"], velocity)


# --- what is no failure of this training ----------------------------------------------------


@pytest.mark.parametrize("what", ["another network's training", "a prediction"])
def test_a_divergence_inside_of_a_callback_keeps_the_last_step(what):
    network, other, seen = cnn().fit(X, Y, max_iter=1), cnn(rng=1), []

    def callback(progress):
        seen.append(bits(network))
        if what == "a prediction":
            network.predict(np.full_like(X, 3e38))
        other.fit(X * 1e15, Y, learning_rate=1e30, max_iter=5)

    with pytest.raises(DivergedError):
        network.fit(X, Y, max_iter=2, callback=callback)
    assert bits(network) == seen[-1]


def test_an_option_changed_before_a_failing_fit_is_taken_up():
    network = cnn().fit(X, Y, max_iter=1)
    before = network.predict_proba(X)
    network.layers[1].type = "tanh"
    with pytest.raises(OSError):
        network.fit(X, Y, learning_rate=lambda epoch: os.stat("/nothing/there"))
    assert not np.array_equal(network.predict_proba(X), before)
    assert np.array_equal(network.predict_proba(X), copy.deepcopy(network).predict_proba(X))


class Stubborn(nnet.Flatten):
    """Holds something whose copy fails in a way of its own."""

    class Pointer:
        def __deepcopy__(self, memo):
            raise ValueError("pointers cannot be copied")

    def _setup(self, input_shape, rng):
        self.pointer = self.Pointer()


def test_a_layer_that_holds_what_cannot_be_copied_trains_again():
    network = nnet.NeuralNetwork([Stubborn(), nnet.Linear(3), nnet.LogRegression()], rng=0)
    first = bits(network.fit(X, Y, max_iter=1))
    assert bits(network.fit(X, Y, max_iter=1)) == first
