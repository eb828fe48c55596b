"""EarlyStopping and Callback: when a training ends, and what it leaves."""

from math import inf, nan

import numpy as np
import pytest
from checkpoints import network as with_state
from trouble import assert_nothing_lent, bits, cnn, everything, images

from nnet import Callback, DivergedError, EarlyStopping, Linear, StopTraining

X, Y = images()


def scripted(values):
    """A metric with these values, epoch by epoch."""
    left = list(values)

    def script(y, predictions):
        return left.pop(0)

    return script


def fit(network, values, mode="max", **options):
    """A training of which each epoch is as good as the values say."""
    stopping = EarlyStopping("script", mode=mode, **options)
    epochs = []

    def keep(progress):
        if progress.epoch_done:
            epochs.append(progress.network.state_dict())

    network.fit(X, Y, max_iter=len(values), metrics=scripted(values), callbacks=[keep, stopping])
    return stopping, epochs


def same(state, other):
    return state.keys() == other.keys() and all(np.array_equal(state[k], other[k]) for k in state)


@pytest.mark.parametrize(
    "values, patience, n_epochs, best",
    [
        ([1, 2, 3, 4], 1, 4, 4),
        ([4, 3, 2, 1], 1, 2, 1),
        ([4, 3, 2, 1], 3, 4, 1),
        ([1, 2, 1, 1, 3, 1], 2, 4, 2),
        ([1, 2, 1, 1, 3, 1], 3, 6, 5),
        ([2, 2, 2, 2], 2, 3, 1),  # what is equal is no better
        ([nan, nan, 1, nan, nan, 5], 2, 2, 0),
        ([nan, 1, nan, nan, nan], 3, 5, 2),
        ([nan, nan, nan], 9, 3, 0),
        ([-inf, 1, inf, inf, 3], 2, 5, 3),
    ],
)
@pytest.mark.parametrize("mode", ["min", "max"])
def test_when_it_stops(values, patience, n_epochs, best, mode):
    values = [value if mode == "max" else -value for value in values]
    network = with_state()
    stopping, epochs = fit(network, values, mode, patience=patience)
    assert len(network.loss_history_) == len(epochs) == n_epochs
    assert stopping.best_epoch == best
    if best:
        assert stopping.best == values[best - 1]
        assert same(network.state_dict(), epochs[best - 1])  # the running mean too
    else:
        assert abs(stopping.best) == inf and same(network.state_dict(), epochs[-1])
    assert_nothing_lent(network)


@pytest.mark.parametrize(
    "values, min_delta, best",
    [([1, 1.4, 1.8, 2.2], 0.5, 3), ([1, 1.5, 1.5], 0.5, 1), ([1, 9], 0, 2)],
)
def test_min_delta(values, min_delta, best):
    """What gains no more than that is not counted, however often."""
    stopping, _ = fit(cnn(), values, patience=9, min_delta=min_delta)
    assert stopping.best_epoch == best


def test_without_restoring():
    network = cnn()
    stopping, epochs = fit(network, [3, 2, 1], patience=2, restore_best=False)
    assert stopping.best_epoch == 1 and same(network.state_dict(), epochs[-1])
    assert stopping.state().keys() == {"best", "best_epoch", "n_epochs"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, StopTraining])
@pytest.mark.parametrize("where", ["before it", "after it", "in the middle"])
def test_the_best_epoch_is_restored_after_exceptions(error, where):
    states, stopping = [], EarlyStopping("script", patience=9, mode="max")

    def fail(progress):
        if progress.epoch == 3 and progress.epoch_done != (where == "in the middle"):
            raise error
        if progress.epoch_done:
            states.append(progress.network.state_dict())

    network = with_state()
    callbacks = [fail, stopping] if where == "before it" else [stopping, fail]
    options = {"max_iter": 4, "metrics": scripted([2, 1, 1, 1]), "callbacks": callbacks}
    if error is StopTraining:
        network.fit(X, Y, **options)
    else:
        with pytest.raises(error):
            network.fit(X, Y, **options)
    assert same(network.state_dict(), states[0])
    assert len(network.loss_history_) == (2 if where == "in the middle" else 3)
    assert_nothing_lent(network)


def test_an_exception_in_the_first_epoch_keeps_the_last_step():
    network, seen = cnn(), []

    def fail(progress):
        seen.append(bits(network))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        network.fit(X, Y, callbacks=[EarlyStopping("loss"), fail])
    assert bits(network) == seen[0]


def test_after_a_divergence_the_network_is_as_before():
    network = cnn().fit(X, Y, max_iter=1)
    before = everything(network, X)
    rates = [0.1, 0.1, 1e30, 1e30, 1e30]
    with pytest.raises(DivergedError):
        network.fit(X, Y, rates.__getitem__, max_iter=5, callbacks=[EarlyStopping("loss")])
    assert everything(network, X) == before


@pytest.mark.parametrize(
    "monitor, better",
    [
        ("loss", min),
        ("accuracy", max),
        ("val_loss", min),
        ("val_accuracy", max),
    ],
)
def test_monitors(monitor, better):
    stopping = EarlyStopping(monitor, patience=20)
    network = cnn().fit(X, Y, 0.3, max_iter=8, validation_data=(X, Y), callbacks=[stopping])
    values = network.history_[monitor]
    assert stopping.best == better(values) and stopping.best_epoch == 1 + values.index(
        stopping.best
    )
    if monitor.startswith("val_"):
        assert network.score(X, Y) == pytest.approx(
            network.history_["val_accuracy"][stopping.best_epoch - 1]
        )


def test_one_object_starts_afresh_with_each_fit():
    stopping = EarlyStopping("loss", patience=9)
    for scale in (1, 9, 1):
        network = cnn().fit(X * scale, Y, 0.01, max_iter=3, callbacks=stopping)
        again = EarlyStopping("loss", patience=9)
        assert bits(network) == bits(cnn().fit(X * scale, Y, 0.01, max_iter=3, callbacks=again))
        assert stopping.best == again.best == min(network.loss_history_)


def test_it_goes_on_from_the_best_epoch():
    network = cnn().fit(X, Y, max_iter=2)
    stopping = EarlyStopping("loss", patience=2)
    network.fit(X, Y, 0.05, max_iter=20, warm_start=True, callbacks=[stopping])
    assert stopping.best_epoch == 1 + int(np.argmin(network.loss_history_[2:]))


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"monitor": 3}, TypeError, "monitor is 3"),
        ({"monitor": "val_acc"}, ValueError, "monitor is 'val_acc', expected 'val_accuracy'"),
        ({"mode": "auto"}, ValueError, "mode is 'auto', expected 'min' or 'max'"),
        ({"patience": 0}, ValueError, "patience is 0, expected at least 1"),
        ({"patience": 1.5}, TypeError, "patience is 1.5"),
        ({"min_delta": -1}, ValueError, "min_delta is -1"),
        ({"restore_best": "yes"}, TypeError, "restore_best is 'yes'"),
    ],
)
def test_other_options(options, error, message):
    with pytest.raises(error, match=message):
        EarlyStopping(**options)


@pytest.mark.parametrize(
    "stopping, message",
    [
        (
            EarlyStopping(),
            "needs validation_data or validation_fraction for val_loss, expected one",
        ),
        (
            EarlyStopping("f1", mode="max"),
            r"monitor is 'f1', expected one of \['loss', 'accuracy'\]",
        ),
        (EarlyStopping("error"), r"monitor is 'error', expected one of"),
    ],
)
def test_a_monitor_that_is_not_there_is_refused_before_any_work(stopping, message):
    network = cnn()
    with pytest.raises(ValueError, match=message):
        network.fit(X, Y, callbacks=[stopping])
    assert network.input_shape_ is None


@pytest.mark.parametrize(
    "callbacks, message",
    [
        ([EarlyStopping], r"the class EarlyStopping, expected an object such as EarlyStopping\(\)"),
        (["early"], "callback is 'early'"),
        ("early", "callbacks is 'early', expected a list"),
        ([None], "callback is None"),
    ],
)
def test_other_callbacks_are_refused(callbacks, message):
    with pytest.raises(TypeError, match=message):
        cnn().fit(X, Y, callbacks=callbacks)


def test_none_is_no_callback():
    assert bits(cnn().fit(X, Y, max_iter=1, callbacks=None)) == bits(cnn().fit(X, Y, max_iter=1))


# --- Callback ------------------------------------------------------------------------------------


class Telling(Callback):
    """Notes what it is told, and may raise in a method."""

    def __init__(self, log, error=None, where=None):
        self.log, self.error, self.where = log, error, where

    def note(self, what):
        self.log.append(what)
        if what == self.where:
            raise self.error

    def on_fit_begin(self, network, monitors):
        self.monitors = monitors
        self.note("begin")

    def __call__(self, progress):
        self.note(f"{progress.epoch}")

    def on_fit_end(self, network):
        network.predict(X)
        self.note("end")

    def close(self):
        self.note("close")


def test_what_a_callback_is_told():
    log = []
    callback = Telling(log)
    cnn().fit(X, Y, max_iter=2, batch_size=48, callbacks=[callback], validation_data=(X, Y))
    assert log == ["begin", "1", "1", "2", "2", "end", "close"]
    assert callback.monitors == ["loss", "accuracy", "val_loss", "val_accuracy"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("where", ["begin", "1", "end", "close"])
@pytest.mark.parametrize("fitted", [False, True])
def test_exceptions_in_callbacks(error, where, fitted):
    """All others are told of the end; the network is that of the last step, or as before."""
    network, logs = cnn(), ([], [], [])
    if fitted:
        network.fit(X, Y, max_iter=1)
    before = everything(network, X) if fitted else str(vars(network))
    callbacks = [Telling(logs[0]), Telling(logs[1], error, where), Telling(logs[2])]
    with pytest.raises(error):
        network.fit(X, Y, max_iter=2, batch_size=96, callbacks=callbacks)
    assert_nothing_lent(network)
    if where == "begin":
        assert (everything(network, X) if fitted else str(vars(network))) == before
        assert logs == (["begin", "close"], ["begin", "close"], ["close"])
    else:
        n_epochs = 1 if where == "1" else 2
        assert bits(network) == bits(cnn().fit(X, Y, max_iter=n_epochs, batch_size=96))
        for log in logs:
            assert log[-2:] == ["end", "close"]


def test_a_divergence_is_no_end_but_closes():
    log = []
    with pytest.raises(DivergedError):
        cnn().fit(X, Y, 1e30, callbacks=[Telling(log)])
    assert log[-1] == "close" and "end" not in log


def test_what_the_end_makes_of_a_network_is_kept():
    class Doubling(Callback):
        def on_fit_end(self, network):
            network.load_state_dict({k: 2 * v for k, v in network.state_dict().items()})

    network = cnn().fit(X, Y, max_iter=1, callbacks=[Doubling()])
    expected = cnn().fit(X, Y, max_iter=1)
    assert all(np.array_equal(a, 2 * b) for a, b in zip(network.params(), expected.params()))


def test_a_layer_put_in_at_the_end_is_refused_by_the_next_call():
    class Replacing(Callback):
        def on_fit_end(self, network):
            network.layers[4] = Linear(5)

    network = cnn().fit(X, Y, max_iter=1, callbacks=[Replacing()])
    with pytest.raises(ValueError, match=r"layer \d \((Linear|LogRegression)\)"):
        network.predict(X)
