"""Losses: one pass for all that is asked of them, those of the user's own too."""

import numpy as np
import pytest
from networks import check, stripes
from structures import as_network

from nnet import (
    Activation,
    Compared,
    Conv,
    Flatten,
    Layer,
    Linear,
    LogRegression,
    LossMixin,
    MeanSquaredError,
    NeuralNetwork,
    Residual,
)
from nnet.layers import classification


@pytest.fixture
def calls(monkeypatch):
    """How often the two kernels of a softmax are called."""
    counts = {}

    def count(name):
        function = getattr(classification, name)

        def counting(*args, **options):
            counts[name] = counts.get(name, 0) + 1
            return function(*args, **options)

        monkeypatch.setattr(classification, name, counting)

    count("softmax")
    count("cross_entropy")
    return counts


def test_one_softmax_for_each_batch(rng, calls):
    X, y = stripes(40, rng)
    network = as_network([Residual([Conv(1, 3)])])
    network.fit(X, y, max_iter=3, batch_size=16)
    assert calls == {"cross_entropy": 9}
    calls.clear()
    network.fit(X, y, max_iter=2, batch_size=16, validation_data=(X, y))
    assert calls == {"cross_entropy": 6 + 2}
    for call, n_batches in [
        (lambda: network.error(X, y, batch_size=10), 4),
        (lambda: network.predict_proba(X, batch_size=20), 2),
        (lambda: network.predict(X[::-1]), 1),
    ]:
        calls.clear()
        call()
        assert calls == {"softmax": n_batches}
    calls.clear()
    network.predict(X)  # the program's last step
    assert not calls


def test_compare_gives_all_in_one_pass(rng, dtype):
    scores, y = rng.normal(size=(5, 3)).astype(dtype), np.array([0, 2, 1, 1, 0])
    values = rng.normal(size=(5, 3)).astype(dtype)
    for loss, target in [(LogRegression(), y), (MeanSquaredError(), values)]:
        predictions, losses, grad, *_ = loss.compare(scores, target)
        np.testing.assert_allclose(predictions, loss.fprop(scores), rtol=1e-6)
        assert losses.shape == (5,)
        assert losses.dtype == np.float64
        assert loss.loss(scores, target) == pytest.approx(losses.mean())
        assert np.array_equal(loss.input_grad(scores, target), grad)
        for i in range(5):
            alone = loss.compare(scores[i : i + 1], target[i : i + 1])
            np.testing.assert_allclose(alone.losses, losses[i : i + 1], rtol=1e-6)
            np.testing.assert_allclose(alone.grad, grad[i : i + 1], rtol=1e-6)


class Absolute(Layer, LossMixin):
    """The three methods that a loss of one's own needs."""

    is_classifier = False

    def fprop(self, input):
        return input

    def bprop(self, output_grad):
        return output_grad

    def loss(self, input, target):
        return np.mean(np.abs(input - target))

    def input_grad(self, input, target):
        return np.sign(input - target) / input[0].size

    def output_shape(self, input_shape):
        return input_shape


class AtOnce(Absolute):
    """The one that computes all."""

    calls = 0

    def compare(self, input, target):
        self.calls += 1
        difference = input - target
        losses = np.abs(difference).reshape(len(input), -1).mean(axis=1)
        return Compared(input, losses, np.sign(difference) / input[0].size)

    def loss(self, input, target):
        raise AssertionError("asked apart")

    input_grad = loss


class Halved(MeanSquaredError):
    """Redefines two of the parts, by those of its base."""

    def loss(self, input, target):
        return super().loss(input, target) / 2

    def input_grad(self, input, target):
        return super().input_grad(input, target) / 2


class HalvedAtOnce(MeanSquaredError):
    def compare(self, input, target):
        compared = super().compare(input, target)
        return compared._replace(losses=compared.losses / 2, grad=compared.grad / 2)


def test_losses_of_ones_own(rng):
    X, y = rng.normal(size=(24, 4)), rng.normal(size=(24, 2))

    def fitted(loss):
        layers = [Linear(5), Residual([Linear(5), Activation("tanh")]), Linear(2), loss]
        network = NeuralNetwork(layers, rng=0)
        check(network.check_gradients(X, y))
        return network.fit(X, y, 0.05, max_iter=3, batch_size=8, validation_data=(X, y))

    parts, at_once = fitted(Absolute()), fitted(AtOnce())
    halves, halves_at_once = fitted(Halved()), fitted(HalvedAtOnce())
    for a, b in [(parts, at_once), (halves, halves_at_once)]:
        for p, q in zip(a.params(), b.params()):
            np.testing.assert_allclose(p, q, rtol=1e-10)
        np.testing.assert_allclose(a.loss_history_, b.loss_history_, rtol=1e-10)
        np.testing.assert_allclose(a.val_loss_history_, b.val_loss_history_, rtol=1e-10)
    assert at_once.layers[-1].calls == 3 * (3 + 1)


def test_a_loss_that_counts_is_believed(rng):
    """Nobody looks for the largest of its predictions again, neither while it trains nor after."""

    class Counts(LogRegression):
        def compare(self, input, target):
            return super().compare(input, target)._replace(predictions=None)

    X, y = stripes(40, rng)
    plain, counts = (
        NeuralNetwork([Flatten(), Linear(3), loss], rng=0).fit(
            X, y, max_iter=2, batch_size=16, validation_data=(X[:9], y[:9])
        )
        for loss in (LogRegression(), Counts())
    )
    assert counts.val_error_history_ == plain.val_error_history_
    assert counts.val_error_history_[-1] == counts.error(X[:9], y[:9])
