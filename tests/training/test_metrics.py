"""Metrics, histories by Keras's names, and score."""

import copy
import tracemalloc
from functools import partial

import numpy as np
import pytest
from trouble import assert_nothing_lent, bits, cnn, images

from nnet import (
    Flatten,
    Linear,
    LogRegression,
    MeanSquaredError,
    NeuralNetwork,
)

X, Y = images()
WORDS = np.array(["cat", "dog", "eel"])[Y]


def right(y, predictions):
    return np.mean(y == predictions)


def regression(n_out=1):
    return NeuralNetwork([Flatten(), Linear(n_out), MeanSquaredError()], rng=0)


# --- metrics -----------------------------------------------------------------------------


def test_metrics_of_labels():
    seen = []

    def keep(y, predictions):
        seen.append((y, predictions))
        return len(seen)

    network = cnn().fit(X, WORDS, max_iter=2, metrics=[right, keep], validation_data=(X, WORDS))
    history = network.history_
    names = ["loss", "accuracy", "right", "keep"]
    assert list(history) == names + [f"val_{name}" for name in names]
    assert history["right"] == pytest.approx(history["accuracy"])
    assert history["val_right"] == pytest.approx(history["val_accuracy"])
    assert history["keep"] == [1, 3] and history["val_keep"] == [2, 4]
    assert all(y.dtype == p.dtype == WORDS.dtype and len(y) == len(p) == 96 for y, p in seen)
    assert np.array_equal(seen[3][1], network.predict(X)) and np.array_equal(seen[3][0], WORDS)


@pytest.mark.parametrize("n_targets", [0, 1, 2])
def test_metrics_of_values_have_the_shape_of_y(n_targets):
    shape = (96, n_targets) if n_targets else (96,)
    y = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    shapes = []

    def worst(targets, predictions):
        shapes.append((targets.shape, predictions.shape))
        return np.abs(targets - predictions).max()

    network = regression(max(n_targets, 1))
    network.fit(X, y, 0.01, max_iter=2, metrics=worst, validation_data=(X, y))
    assert shapes == [(shape, shape)] * 4
    expected = np.abs(y - network.predict(X)).max()
    assert network.history_["val_worst"][-1] == pytest.approx(expected, rel=1e-6)
    assert list(network.history_) == ["loss", "worst", "val_loss", "val_worst"]


def test_metrics_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    f1 = partial(metrics.f1_score, average="macro")
    f1.__name__ = "f1"
    functions = [metrics.balanced_accuracy_score, f1]
    network = cnn().fit(X, Y, max_iter=2, metrics=functions, validation_data=(X, Y))
    predicted = network.predict(X)
    for name, function in [("val_balanced_accuracy_score", functions[0]), ("val_f1", f1)]:
        assert network.history_[name][-1] == function(Y, predicted)


def test_metrics_change_no_bit():
    assert bits(cnn().fit(X, Y, metrics=[right])) == bits(cnn().fit(X, Y))


def test_images_of_weight_zero_are_left_out_of_metrics():
    """Wherever the shuffling puts them."""
    seen = []

    def keep(y, predictions):
        seen.append(y)
        return 0

    weights = (np.arange(96) >= 60).astype(int)
    options = {"batch_size": 16, "shuffle": False, "max_iter": 1}
    cnn().fit(X, Y, sample_weight=weights, metrics=keep, **options)
    cnn().fit(X, Y, metrics=keep, validation_data=(X, Y, weights), **options)
    assert np.array_equal(seen[0], Y[60:]) and np.array_equal(seen[2], Y[60:])
    assert len(seen[1]) == 96


@pytest.mark.parametrize(
    "metrics, error, message",
    [
        ("accuracy", TypeError, "has 'accuracy': accuracy is always in history_, leave it out$"),
        (["accuracy"], TypeError, "has 'accuracy': accuracy is always in history_, leave it out$"),
        (["loss"], TypeError, "metrics has 'loss': loss is always in history_, leave it out$"),
        (["mse"], TypeError, r"metrics has 'mse', expected functions of \(y, predictions\)$"),
        ([None], TypeError, "metrics has None"),
        ([right, right], ValueError, "by the name 'right', expected names that differ"),
        ([lambda y, p: 0, lambda y, p: 1], ValueError, "'<lambda>', .*: set its __name__, or use"),
        ([partial(right), partial(right)], ValueError, "'partial', .*: set its __name__, or use"),
        ([lambda y, p: "high"], TypeError, r"<lambda>\(y, predictions\) is 'high', expected a num"),
        ([lambda y, p: np.ones(2)], TypeError, "expected a number"),
        ([lambda y, p: None], TypeError, "is None, expected a number"),
    ],
)
def test_other_metrics_are_refused(metrics, error, message):
    with pytest.raises(error, match=message):
        cnn().fit(X, Y, metrics=metrics)


def test_none_is_no_metric():
    assert list(cnn().fit(X, Y, max_iter=1, metrics=None).history_) == ["loss", "accuracy"]


class Telling(Exception):
    def __init__(self, code, what):
        super().__init__(code, what)
        self.code = code


RAISED = {
    "text": (ValueError("too few"), "in the metric raising: too few"),
    "nothing": (ZeroDivisionError(), "in the metric raising: it failed"),
    "a key": (KeyError("cat"), "'in the metric raising: cat'"),
    "own": (Telling(3, "x"), "(3, 'x')"),
    "a file": (OSError(2, "no file"), "[Errno 2] no file"),
}


@pytest.mark.parametrize("error, message", RAISED.values(), ids=RAISED)
@pytest.mark.parametrize("prefix", ["", "val_"])
def test_what_a_metric_raises_names_it(error, message, prefix):
    error, calls = copy.copy(error), []

    def raising(y, predictions):
        calls.append(1)
        if len(calls) > bool(prefix):
            raise error
        return 1.0

    with pytest.raises(type(error)) as caught:
        cnn().fit(X, Y, max_iter=1, metrics=[right, raising], validation_data=(X, Y))
    assert caught.value is error and str(error) == message


def test_what_a_metric_of_scikit_learn_raises_names_it():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    with pytest.raises(ValueError, match="in the metric f1_score: Target is multiclass but averag"):
        cnn().fit(X, Y, max_iter=1, metrics=[sklearn_metrics.f1_score])


@pytest.mark.parametrize("name", ["loss", "accuracy", "error", "val_anything"])
def test_names_that_are_taken(name):
    def function(y, predictions):
        return 0

    function.__name__ = name
    with pytest.raises(ValueError, match=f"by the name '{name}'"):
        cnn().fit(X, Y, metrics=[function])


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_exception_in_a_metric_keeps_the_last_step(error):
    """The epoch has not ended then."""
    calls = []

    def metric(y, predictions):
        calls.append(1)
        if len(calls) == 4:
            raise error
        return 1.0

    network = cnn()
    with pytest.raises(error):
        network.fit(X, Y, max_iter=4, metrics=metric, validation_data=(X, Y))
    assert bits(network) == bits(cnn().fit(X, Y, max_iter=2))
    assert {len(values) for values in network.history_.values()} == {1}
    assert len(network.val_error_history_) == 1
    assert_nothing_lent(network)


# --- histories ----------------------------------------------------------------------------


def test_the_history_is_a_dict_of_lists():
    network = cnn().fit(X, Y, max_iter=3, validation_data=(X[:50], Y[:50]))
    history = network.history_
    assert type(history) is dict
    assert list(history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert all(type(v) is list and [type(x) for x in v] == [float] * 3 for v in history.values())
    assert history["loss"] == network.loss_history_
    assert history["val_loss"] == network.val_loss_history_
    assert history["val_accuracy"] == pytest.approx([1 - e for e in network.val_error_history_])
    history["loss"].clear()
    assert network.history_["loss"] == network.loss_history_ != []
    assert copy.deepcopy(network).history_ == network.history_
    with pytest.raises(AttributeError, match="not fitted"):
        cnn().history_  # noqa: B018
    assert network.fit(X, Y, max_iter=1).history_.keys() == {"loss", "accuracy"}


def test_what_epochs_of_a_warm_start_do_not_have_is_nan():
    network, seen = cnn(), []
    for options in ({}, {"validation_data": (X, Y), "metrics": right}, {"metrics": right}):
        network.fit(X, Y, max_iter=2, warm_start=True, **options)
        seen.append(network.history_)
    missing = {name: np.isnan(values).tolist() for name, values in network.history_.items()}
    none, first, ends = [False] * 6, [True] * 2 + [False] * 4, [True] * 2 + [False] * 2 + [True] * 2
    assert missing == {
        "loss": none,
        "accuracy": none,
        "right": first,
        **dict.fromkeys(("val_loss", "val_accuracy", "val_right"), ends),
    }
    assert network.val_loss_history_[2:4] == seen[1]["val_loss"][2:]
    assert np.isnan(network.val_error_history_).tolist() == ends
    for before, after in zip(seen, seen[1:]):
        for name, values in before.items():
            np.testing.assert_array_equal(after[name][: len(values)], values)


def test_callbacks_are_told_the_values_of_the_epoch():
    seen = []
    network = cnn()
    network.fit(X, Y, max_iter=2, metrics=right, validation_data=(X, Y), callback=seen.append)
    done = [progress.metrics for progress in seen if progress.epoch_done]
    history = network.history_
    assert done == [{name: values[i] for name, values in history.items()} for i in range(2)]
    assert all(not progress.metrics for progress in seen if not progress.epoch_done)


# --- score ---------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_score_is_the_accuracy(batch_size):
    accuracy_score = pytest.importorskip("sklearn.metrics").accuracy_score
    network = cnn().fit(X, WORDS, max_iter=1)
    for y in (WORDS, WORDS[::-1], np.full(96, "gnu")):
        assert network.score(X, y, batch_size) == accuracy_score(y, network.predict(X))


@pytest.mark.parametrize("shape", [(96,), (96, 1), (96, 3)])
@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_score_is_r_squared(shape, batch_size):
    r2_score = pytest.importorskip("sklearn.metrics").r2_score
    y = np.random.default_rng(0).normal(100, size=shape)
    X64 = X.astype(float)
    network = regression(1 if len(shape) == 1 else shape[1]).fit(X64, y, 0.005, max_iter=20)
    constant, predicted = np.full(shape, 3.0), network.predict(X64)
    partly = y.copy()
    partly.reshape(96, -1)[:, 0] = 5
    for target in (y, 1e6 + y, constant, predicted, partly):
        expected = r2_score(target, predicted)
        assert network.score(X64, target, batch_size) == pytest.approx(expected, rel=1e-9)
    equal = np.full(shape, predicted.flat[0])  # scikit-learn may find that their mean is another
    assert network.score(X64, equal, batch_size) == 0


def test_score_is_r_squared_of_many_values(dtype):
    """In blocks; y are as the network sees them."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(70_000, 2)).astype(dtype)
    network = NeuralNetwork([Linear(2), MeanSquaredError()], rng=0).build((2,), dtype=dtype)
    network.params()[0][...] = [[1, 0], [0, 0.5]]
    y = 1000 + rows + rng.normal(size=rows.shape)
    predicted, seen = network.predict(rows).astype(float), y.astype(dtype).astype(float)
    left, total = (np.square(seen - of).sum(0) for of in (predicted, seen.mean(0)))
    assert network.score(rows, y) == pytest.approx(np.mean(1 - left / total), rel=1e-9)


def test_score_keeps_neither_targets_nor_predictions(dtype):
    rows, y = np.zeros((2, 150_000, 2))
    network = NeuralNetwork([Linear(2), MeanSquaredError()], rng=0).build((2,), dtype=dtype)
    network.score(rows, y)
    tracemalloc.start()
    try:
        network.score(rows, y)
        assert tracemalloc.get_traced_memory()[1] < y.nbytes // 2
    finally:
        tracemalloc.stop()


def test_scores_that_are_refused():
    network = cnn()
    with pytest.raises(ValueError, match="not fitted"):
        network.score(X, Y)
    network.fit(X, Y, max_iter=1)
    for data, message in [((X[:0], Y[:0]), "no images"), ((X, Y[1:]), "as many of both")]:
        with pytest.raises(ValueError, match=message):
            network.score(*data)


def test_networks_without_metrics_keep_nothing_of_an_epoch():
    seen = []

    def watch(progress):
        seen.append(progress.metrics)

    NeuralNetwork([Flatten(), Linear(3), LogRegression()], 0).fit(X, Y, max_iter=1, callback=watch)
    assert seen[0] == {} and list(seen[-1]) == ["loss", "accuracy"]
