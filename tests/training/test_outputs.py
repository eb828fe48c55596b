"""network.outputs: what single layers put out, wherever they are."""

import copy

import numpy as np
import pytest
from networks import small_cnn, stripes, walked
from numpy.testing import assert_array_equal
from structures import STRUCTURES, network_of
from trouble import assert_nothing_lent, everything, in_thread

import nnet
from nnet import (
    Activation,
    Conv,
    Flatten,
    Layer,
    Linear,
    LogRegression,
    MeanSquaredError,
    NeuralNetwork,
    Residual,
    Sequential,
)


def by_hand(layers, batch):
    """What layers put out that are called one by one, outside of a network."""
    outputs = []
    for layer in copy.deepcopy(layers):
        batch = np.array(layer.fprop(batch))
        outputs.append(batch)
    return outputs


@pytest.fixture
def network(dtype, rng):
    X, y = stripes(40, rng, dtype)
    return small_cnn().fit(X, y, max_iter=2), X


def test_it_is_what_the_layers_compute_one_by_one(network):
    """Convolution and ReLU are fused otherwise."""
    network, X = network
    outputs = by_hand(network.layers, X)
    for i, (layer, expected) in enumerate(zip(network.layers, outputs)):
        for which in (i, i - len(outputs), np.int64(i), str(i), layer):
            found = network.outputs(X, which)
            assert found.dtype == X.dtype
            assert_array_equal(found, expected)
    assert (network.outputs(X, 0) < 0).any()
    assert_array_equal(network.outputs(X), outputs[-2])
    assert_array_equal(network.outputs(X, layer=-1), network.predict_proba(X))
    assert_nothing_lent(network)


def test_batches_and_threads_change_no_bit(network):
    network, X = network
    for layer in (0, 2, "3", None):
        expected = network.outputs(X, layer)
        for batch_size in (1, 7, 1000):
            with nnet.num_threads(3):
                assert_array_equal(network.outputs(X, layer, batch_size=batch_size), expected)
        assert_array_equal(network.outputs(X[3:4], layer), expected[3:4])
        assert network.outputs(X[:0], layer).shape == (0, *expected.shape[1:])


def test_it_is_an_array_of_its_own(network):
    network, X = network
    first = network.outputs(X, 0)
    before = first.copy()
    network.outputs(-X, 0)
    network.predict(X)
    assert_array_equal(first, before)
    first[:] = 0
    assert_array_equal(network.outputs(X, 0), before)
    before = everything(network, X)
    network.outputs(X, 4)
    assert everything(network, X) == before


@pytest.mark.parametrize("name", STRUCTURES)
def test_layers_inside_of_containers(name, dtype, rng):
    network = network_of(name).build((1, 8, 8), 3, dtype)
    X = rng.normal(size=(20, 1, 8, 8)).astype(dtype)
    expected = {}

    def recording(which, layer):
        kind = type(layer)

        class Recording(kind):
            __module__ = kind.__module__  # nnet's own

            def fprop(self, *arguments):
                output = kind.fprop(self, *arguments)
                expected[which] = np.array(output)
                return output

        layer.__class__ = Recording  # it takes part in no fusion

    twin = network_of(name).build((1, 8, 8), 3, dtype)
    twin.load_state_dict(network.state_dict())
    for which, layer in walked(twin):
        recording(which, layer)
    by_hand(twin.layers, X)
    assert expected.keys() == {which for which, _ in walked(network)}
    for which, layer in walked(network):
        assert_array_equal(network.outputs(X, which, batch_size=6), expected[which], err_msg=which)
        assert_array_equal(network.outputs(X, layer), expected[which])


class Calls(Layer):
    """Calls a row of layers some times, in a way that nnet cannot know."""

    def __init__(self, layers, n_times):
        self.row, self.n_times = Sequential(layers), n_times

    @property
    def children(self):
        return {"row": self.row}

    def _setup(self, input_shape, rng):
        self.row._setup(input_shape, rng)

    def fprop(self, input):
        for _ in range(self.n_times):
            input = 2 * self.row.fprop(input)
        return input

    def bprop(self, output_grad):
        return output_grad

    def output_shape(self, input_shape):
        return input_shape


def test_layers_inside_of_the_users_own(rng, dtype):
    row = [Conv(1, 3), Activation("relu")]
    layers = [Residual([Calls(row, 2)]), Flatten(), Linear(2), MeanSquaredError()]
    network = NeuralNetwork(layers, rng=0).build((1, 5, 5), 2, dtype)
    X = rng.normal(size=(9, 1, 5, 5)).astype(dtype)
    conv, relu = row
    first = 2 * relu.fprop(np.array(conv.fprop(X)))
    second = np.array(conv.fprop(first))
    assert (second < 0).any()
    assert_array_equal(network.outputs(X, "0.0.row.0", batch_size=4), second)
    assert_array_equal(network.outputs(X, relu), relu.fprop(second))
    assert_array_equal(network.outputs(X, "0.0"), 2 * relu.fprop(second))
    layers[0].layers[0].n_times = 0
    with pytest.raises(ValueError, match=r"layer 0\.0\.row\.1 \(Activation\) was not called"):
        network.outputs(X, relu)
    assert_nothing_lent(network)


class Doubling(Layer):
    """Gives float64, whatever it takes."""

    def fprop(self, input):
        return 2.0 * input.astype(np.float64)

    def bprop(self, output_grad):
        return 2.0 * output_grad

    def output_shape(self, input_shape):
        return input_shape


def test_layers_of_the_users_own(rng):
    X = rng.normal(size=(5, 4)).astype(np.float32)
    network = NeuralNetwork([Doubling(), Linear(2), LogRegression()], rng=0).build((4,), 2)
    found = network.outputs(X, 0)
    assert found.dtype == np.float32
    assert_array_equal(found, 2 * X)


def test_not_finite_is_no_error(rng):
    network = NeuralNetwork([Linear(3), LogRegression()], rng=0).build((4,), 3)
    network.layers[0].W[:] = np.inf
    assert not np.isfinite(network.outputs(rng.normal(size=(5, 4)))).any()


@pytest.mark.parametrize(
    "layer, error, message",
    [
        (8, ValueError, "layer is 8, expected -8 to 7"),
        (-9, ValueError, "layer is -9, expected -8 to 7"),
        ("8", ValueError, r"layer is '8', expected one of the network's: 0 \(Conv\), 1 \(Act"),
        ("0.W", ValueError, "layer is '0.W', expected one of"),
        (Conv(4, 3), ValueError, r"layer is Conv\(.*\), expected one of the network's: 0 \(Conv"),
        (1.0, TypeError, "layer is 1.0, expected a number, a name or a layer of the network"),
        (True, TypeError, "layer is True"),
        ([0, 1], TypeError, r"layer is \[0, 1\]"),
    ],
)
def test_what_is_no_layer_is_refused(network, layer, error, message):
    with pytest.raises(error, match=message):
        network[0].outputs(network[1], layer)


@pytest.mark.parametrize("scores", [[], [Conv(3, 1)]], ids=["label", "labels along"])
def test_signals_have_no_height(scores, rng):
    X = rng.normal(size=(20, 2, 50)).astype(np.float32)
    layers = [Sequential([Conv(4, 5), Activation("relu")]), *copy.deepcopy(scores)]
    layers += [] if scores else [Flatten(), Linear(3)]
    y = rng.integers(0, 3, (20, 50) if scores else 20)
    network = NeuralNetwork([*layers, LogRegression()], rng=0).fit(X, y, max_iter=1)
    expected = by_hand(network.layers, X[:, :, None])
    for i in (0, "0.0", "0.1"):
        assert network.outputs(X, i).shape == (20, 4, 50)
    assert_array_equal(network.outputs(X, 0), expected[0][:, :, 0])
    assert_array_equal(network.outputs(X, -1), network.predict_proba(X))
    assert network.outputs(X).shape == ((20, 3, 50) if scores else (20, 3))
    high = NeuralNetwork(copy.deepcopy(network.layers), rng=0).build((2, 1, 50), 3)
    assert high.outputs(X[:, :, None], 0).shape == (20, 4, 1, 50)  # images of height 1 have one


def test_images_are_checked_as_for_predict(network):
    network, X = network
    with pytest.raises(ValueError, match=r"X has shape \(40, 6, 6\), expected \(n_imgs, 1, 6, 6\)"):
        network.outputs(X[:, 0])
    X[3, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"X\[3\] has NaN"):
        network.outputs(X, 0)
    with pytest.raises(ValueError, match="batch_size is 0"):
        network.outputs(X, 0, batch_size=0)
    with pytest.raises(ValueError, match="not fitted"):
        small_cnn().outputs(X)


def test_arrays_that_do_not_fit_are_named(network):
    """Also one that has changed in place, which no layer is told of."""
    network, X = network
    before, W = network.outputs(X), network.layers[0].W
    shape = W.shape
    for change in (lambda: setattr(W, "shape", shape[::-1]), lambda: setattr(W, "shape", (-1,))):
        change()
        for which in (0, 3, None):
            with pytest.raises(ValueError, match=r"^layer 0 \(Conv\)\.W has shape .*, expected "):
                network.outputs(X, which)
        W.shape = shape
    assert_array_equal(network.outputs(X), before)
    assert_nothing_lent(network)


def test_changes_are_taken_up(network):
    network, X = network
    network.layers[1].type = "tanh"
    assert_array_equal(network.outputs(X, 1), by_hand(network.layers, X)[1])
    network.layers[0].strides = (2, 2)
    with pytest.raises(ValueError, match="layer 6"):
        network.outputs(X, 1)


def test_beside_a_training_and_inside_of_it(network, rng):
    """As predict: others see the last training, a callback the last step."""
    network, X = network
    y, before, inside = np.arange(40) % 3, network.outputs(X, 0), []
    conv = network.layers[0]

    def schedule(epoch):
        assert_array_equal(in_thread(lambda: network.outputs(X, conv)), before)
        return 0.1

    def callback(progress):
        found = in_thread(lambda: network.outputs(X, conv))
        assert_array_equal(found, network.outputs(X, "0"))
        inside.append(found)

    network.fit(X, y, schedule, max_iter=2, callback=callback)
    assert not np.array_equal(inside[0], before)
    assert_array_equal(network.outputs(X, 0), inside[-1])
