"""Statistics of the images that training has seen belong to the last step, as parameters do."""

import re
import tracemalloc

import numpy as np
import pytest
from trouble import assert_nothing_lent, cnn, everything, images

from nnet import (
    Activation,
    BatchNorm,
    Conv,
    DivergedError,
    EarlyStopping,
    Flatten,
    Layer,
    Linear,
    LogRegression,
    NeuralNetwork,
    Standardize,
)
from nnet.training import batches
from nnet.training.setup import adapt

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


# --- layers of one's own that make other arrays of theirs -----------------------------------------


class Making(Counting):
    """Makes a new array in each pass, by a function."""

    def __init__(self, make, start=0.0):
        self.make, self.start = make, start

    def _setup(self, input_shape, rng):
        self.product = np.asarray(self.start)

    def fprop(self, input):
        if self.training:
            self.product = self.make(self.product)
        return input


OTHERS = {
    "a scalar": (lambda a: a + 1, "is a float64, expected a NumPy array of shape ()"),
    "a float": (lambda a: 1.0, "is a float, expected a NumPy array of shape ()"),
    "a dtype": (lambda a: np.asarray(a + 1, np.float32), "has dtype <f4, expected <f8"),
    "a shape": (lambda a: np.ones(1), r"has shape (1,), expected ()"),
}


@pytest.mark.parametrize("make, message", OTHERS.values(), ids=OTHERS)
def test_what_is_no_such_array_is_named_by_the_step_that_made_it(make, message):
    """Not at the end, by EarlyStopping, in place of another exception."""
    network, seen = with_statistics(Making(make)), []
    message = re.escape(f"layer 3 (Making).product {message}") + ".*: self.product.* changes it"
    with pytest.raises((TypeError, ValueError), match=message):
        network.fit(X, Y, callbacks=[EarlyStopping("loss"), seen.append])
    assert seen == [] and network.input_shape_ is None
    # In a later step: the one before stays.
    network.layers[3].make = lambda a: make(a) if len(seen) == 4 else np.asarray(a + 1)
    callbacks = [EarlyStopping("loss"), lambda progress: seen.append(network.state_dict())]
    with pytest.raises((TypeError, ValueError), match=message):
        network.fit(X, Y, batch_size=32, callbacks=callbacks)
    assert len(seen) == 4 and network.layers[3].product.shape == ()
    assert bits_of(network.state_dict()) == bits_of(seen[2])  # the best epoch's


def test_what_is_no_array_to_begin_with():
    network = with_statistics(Counting())
    network.layers[3].product = 1
    with pytest.raises(
        TypeError, match=r"layer 3 \(Counting\).product is a int, expected a NumPy a"
    ):
        network.fit(X, Y)
    assert network.input_shape_ is None


def test_a_step_cut_short_leaves_new_arrays_of_the_last():
    network = with_statistics(Failing(OSError()), Making(lambda a: a + np.ones(2), np.zeros(2)))
    network.layers[3].at, arrays = 4, []
    with pytest.raises(OSError):
        network.fit(X, Y, 0.01, 2, 32, callback=lambda p: arrays.append(network.layers[4].product))
    assert network.layers[4].product is arrays[-1]
    assert arrays[-1].tolist() == [3, 3]


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


# --- of a data set --------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 1000])
def test_those_of_a_data_set_are_as_exact_as_of_one_image(offset):
    """50,000 images, which are the same one: a sum of float32 would be off by far more."""
    n_imgs = 50_000
    image = np.random.default_rng(0).uniform(size=(1, 1, 32, 32)).astype(np.float32) + offset
    X = np.broadcast_to(image, (n_imgs, 1, 32, 32))
    network = NeuralNetwork([Standardize(), Flatten(), Linear(2), LogRegression()], rng=0)
    model = network.build((1, 32, 32), 2)._model
    tracemalloc.start()
    try:
        adapt(model, batches.read(X, np.arange(n_imgs) % 2, batches.Encoding.of(model)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    exact = image.astype(float)
    np.testing.assert_allclose(network.layers[0].mean_, exact.mean(), rtol=6e-8)
    np.testing.assert_allclose(network.layers[0].scale_, exact.std(), rtol=6e-8)
    assert peak < X.size * 4 / 10


def bits_of(arrays):
    return {name: array.tobytes() for name, array in arrays.items()}
