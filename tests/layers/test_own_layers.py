"""Layers and losses of the user's own, against the bases alone, in a NeuralNetwork."""

import copy

import numpy as np
import pytest
from networks import check, small_cnn, stripes

from nnet import (
    Activation,
    Conv,
    Flatten,
    Layer,
    Linear,
    LogRegression,
    LossMixin,
    MeanSquaredError,
    NeuralNetwork,
    ParamMixin,
    Pool,
)


class Scale(Layer, ParamMixin):
    """What the documentation asks for, and nothing more."""

    def _setup(self, input_shape, rng):
        self.factor = 1 + rng.normal(scale=0.1, size=input_shape[1:])

    def fprop(self, input):
        self.input = input
        return input * self.factor

    def bprop(self, output_grad):
        self.factor_grad = np.mean(output_grad * self.input, axis=0)
        return output_grad * self.factor

    def params(self):
        return [self.factor]

    def param_grads(self):
        return [self.factor_grad]

    def output_shape(self, input_shape):
        return input_shape


class Hinge(Layer, LossMixin):
    """Multi-class hinge loss (Weston and Watkins 1999)."""

    def fprop(self, input):
        return input

    def bprop(self, output_grad):
        return output_grad

    def margins(self, input, target):
        rows = np.arange(len(target))
        margins = np.maximum(input - input[rows, target][:, None] + 1, 0)
        margins[rows, target] = 0
        return rows, margins

    def loss(self, input, target):
        return np.mean(np.sum(self.margins(input, target)[1], axis=1))

    def input_grad(self, input, target):
        rows, margins = self.margins(input, target)
        grad = (margins > 0).astype(input.dtype)
        grad[rows, target] = -np.sum(grad, axis=1)
        return grad

    def output_shape(self, input_shape):
        return input_shape


class LateScale(Scale):
    """Keeps what it is given until its gradient is asked for."""

    def bprop(self, output_grad):
        self.output_grad = output_grad
        return output_grad * self.factor

    def param_grads(self):
        return [np.mean(self.output_grad * self.input, axis=0)]


def test_own_layer_may_keep_the_gradient(rng):
    """nnet's own layers use the memory of gradients again."""
    X, y = rng.standard_normal((20, 6)), rng.integers(0, 3, 20)
    for position in range(7):
        layers = [Linear(6), Activation("tanh"), Linear(6), Activation("tanh"), Linear(3)]
        layers[position:position] = [LateScale()]
        network = NeuralNetwork([*layers, LogRegression()], rng=0)
        check(network.check_gradients(X, y))


@pytest.mark.parametrize("position", [0, 1, 4, 6, 7])
def test_own_layer_trains_anywhere(position, rng):
    X, y = stripes(60, rng)
    network = small_cnn()
    scale = Scale()
    network = NeuralNetwork([*network.layers[:position], scale, *network.layers[position:]], rng=0)
    network.fit(X, y, max_iter=1)
    before = scale.factor.copy()
    network.fit(X, y, max_iter=15, batch_size=10)
    assert not np.array_equal(scale.factor, before)
    assert network.error(X, y) == 0
    check(network.check_gradients(X[:4], y[:4]))


class Relu(Activation):
    """A subclass, which no other layer may take the work of."""


class Smooth(LogRegression):
    """Label smoothing: a subclass with a loss of its own."""

    def input_grad(self, input, target):
        return 0.9 * super().input_grad(input, target)


def test_what_a_network_fuses_changes_no_bit(rng):
    X, y = stripes(50, rng)

    def trained(relu):
        layers = [Conv(3, 3), relu("relu"), Pool((2, 2), (1, 1)), Conv(4, 3), relu("relu")]
        layers += [Pool(3, 2), Flatten(), Linear(7), relu("relu"), Linear(3), LogRegression()]
        return NeuralNetwork(layers, rng=0).fit(X, y, 0.05, max_iter=3, batch_size=16)

    fused, apart = trained(Activation), trained(Relu)
    for a, b in zip(fused.params(), apart.params()):
        assert np.array_equal(a, b)
    assert np.array_equal(fused.predict_proba(X), apart.predict_proba(X))
    assert fused.loss_history_ == apart.loss_history_


def test_a_loss_derived_from_another_is_asked_for_its_gradient(rng):
    X, y = stripes(50, rng)
    layers = [Flatten(), Linear(3)]
    plain, smooth = (
        NeuralNetwork([*copy.deepcopy(layers), loss()], rng=0).fit(X, y, rate, max_iter=1)
        for loss, rate in ((LogRegression, 0.09), (Smooth, 0.1))
    )
    for a, b in zip(plain.params(), smooth.params()):
        assert np.allclose(a, b, rtol=1e-5, atol=1e-7)


def test_own_loss_trains(rng):
    X, y = stripes(60, rng)
    network = NeuralNetwork([*small_cnn().layers[:-1], Hinge()], rng=0)
    assert network.fit(X, y, max_iter=15, batch_size=10).error(X, y) == 0
    check(network.check_gradients(X[:4], y[:4]))


def test_own_loss_of_wrong_shape(rng):
    X, y = stripes(12, rng)
    loss = Hinge()
    loss.input_grad = lambda scores, target: scores[:, :1]
    network = NeuralNetwork([*small_cnn().layers[:-1], loss], rng=0)
    with pytest.raises(ValueError, match=r"\(Hinge\).input_grad returned shape .*, expected"):
        network.fit(X, y)


def test_predictions_share_no_memory(rng):
    """Not even if a layer of one's own returns the same array every time."""

    class Same(Flatten):
        output = np.empty((4, 1), np.float32)

        def fprop(self, input):
            self.output[: len(input)] = input
            return self.output[: len(input)]

    X, y = rng.normal(size=(4, 3)).astype(np.float32), np.arange(4.0)
    for layers in ([Linear(1)], [Linear(1), Same()]):
        network = NeuralNetwork([*layers, MeanSquaredError()], rng=0).fit(X, y, 0.01, max_iter=1)
        first = network.predict(X)
        before = first.copy()
        network.predict(-X)
        assert np.array_equal(first, before)


@pytest.mark.parametrize("method", ["fprop", "bprop"])
def test_own_layer_of_wrong_shape(method, rng):
    X, y = stripes(12, rng)
    layer = Scale()
    right = getattr(layer, method)
    setattr(layer, method, lambda array: right(array)[:, :1])
    network = NeuralNetwork([Conv(2, 3), layer, Flatten(), Linear(3), LogRegression()], rng=0)
    with pytest.raises(
        ValueError, match=rf"layer 1 \(Scale\).{method} returned shape .*, expected"
    ):
        network.fit(X, y)


def test_check_gradients_finds_a_wrong_one(rng):
    class Wrong(Scale):
        def bprop(self, output_grad):
            super().bprop(output_grad)
            return output_grad * 1.1

    X, y = rng.normal(size=(5, 4)), np.arange(5) % 2
    errors = NeuralNetwork([Linear(3), Wrong(), Linear(2), LogRegression()], rng=0).check_gradients(
        X, y
    )
    wrong, right = errors[:2], errors[2:]
    assert min(error.rel_error for error in wrong) > 0.05
    check(right)
