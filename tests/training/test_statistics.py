"""Statistics of the images that training has seen belong to the last step, as parameters do."""

import numpy as np
import pytest
from trouble import assert_nothing_lent, cnn, everything, images

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
)

X, Y = images()


def with_statistics(*more):
    layers = [Conv(4, 3, use_bias=False), BatchNorm(), Activation("relu"), *more, Flatten()]
    return NeuralNetwork([*layers, Linear(3), LogRegression()], rng=0)


class Failing(Layer):
    """Raises in its n-th backward pass."""

    at = 0

    def __init__(self, error):
        self.error, self.n_calls = error, 0

    def fprop(self, input):
        return input

    def bprop(self, output_grad):
        self.n_calls += 1
        if self.n_calls == self.at:
            raise self.error
        return output_grad

    def output_shape(self, input_shape):
        return input_shape


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), OSError()])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
def test_a_step_cut_short_leaves_the_statistics_of_the_last(error, optimizer):
    network, states = with_statistics(Failing(error)), []
    network.layers[3].at = 4

    def callback(progress):
        states.append(network.state_dict())

    with pytest.raises(type(error)):
        network.fit(X, Y, 0.01, 2, 32, optimizer=optimizer, callback=callback)
    assert len(states) == 3
    assert bits_of(network.state_dict()) == bits_of(states[-1])
    assert_nothing_lent(network)
    # Without the error, they move with each step.
    assert bits_of(states[0])["1.running_mean"] != bits_of(states[1])["1.running_mean"]


class Counting(Layer):
    """Multiplies something in each pass, which its output does not show."""

    def __init__(self, factor=1.0):
        self.factor, self.product = factor, np.ones(1)

    def state_names(self):
        return ["product"]

    def fprop(self, input):
        if self.training:
            self.product *= self.factor
        return input

    def bprop(self, output_grad):
        return output_grad

    def output_shape(self, input_shape):
        return input_shape


def test_infinite_statistics_are_a_divergence():
    network = with_statistics(Counting()).fit(X, Y, max_iter=1)
    before = everything(network, X)
    network.layers[3].factor = 1e200
    with np.errstate(over="ignore"), pytest.raises(DivergedError, match="parameter or statistic"):
        network.fit(X, Y, max_iter=2)
    assert everything(network, X) == before


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_what_a_warm_start_lacks_is_named(method):
    network = cnn().fit(X, Y, max_iter=1)
    before = everything(network, X)
    options = {"warm_start": True} if method == "fit" else {}
    added = BatchNorm()
    network.layers.insert(2, added)
    with pytest.raises(ValueError, match=r"layer 2 \(BatchNorm\)\.gamma is None, expected"):
        getattr(network, method)(X, Y, **options)
    network.layers.remove(added)
    network.layers[0].b, b = None, network.layers[0].b
    with pytest.raises(ValueError, match=r"layer 0 \(Conv\)\.b is None, expected an array"):
        getattr(network, method)(X, Y, **options)
    network.layers[0].b = b
    assert everything(network, X) == before


def bits_of(arrays):
    return {name: array.tobytes() for name, array in arrays.items()}
