"""Standardize: the arithmetic, and a place in a network."""

import numpy as np
import pytest

import nnet
from nnet import Standardize


def test_forward_and_backward(dtype, rng):
    x = rng.standard_normal((3, 2, 4, 5)).astype(dtype)
    layer = Standardize(2.5, 4.0)
    assert np.array_equal(layer.fprop(x), (x - dtype.type(2.5)) / dtype.type(4))
    assert layer.fprop(x).dtype == layer.bprop(x).dtype == dtype
    assert np.array_equal(layer.bprop(x), x / dtype.type(4))
    assert layer.output_shape((3, 2, 4, 5)) == (3, 2, 4, 5)


def test_standardises():
    x = np.random.default_rng(0).uniform(100, 200, (50, 1, 4, 4))
    y = Standardize(x.mean(), x.std()).fprop(x)
    np.testing.assert_allclose([y.mean(), y.std()], [0, 1], atol=1e-12)


@pytest.mark.parametrize("position", [0, 1])
def test_gradients_pass_through(position, rng):
    layers = [nnet.Conv(2, 3), nnet.Flatten(), nnet.Linear(3), nnet.LogRegression()]
    layers.insert(position, Standardize(0.3, 0.5))
    X, y = rng.standard_normal((4, 1, 5, 5)), [0, 1, 2, 0]
    errors = nnet.NeuralNetwork(layers, rng=0).check_gradients(X, y)
    assert max(error.rel_error for error in errors) < 1e-6


def test_saved_with_the_network(tmp_path, rng):
    X, y = rng.uniform(0, 255, (6, 1, 4, 4)), [0, 1, 0, 1, 0, 1]
    layers = [Standardize(-100.5, 73.0), nnet.Flatten(), nnet.Linear(2), nnet.LogRegression()]
    network = nnet.NeuralNetwork(layers, rng=0).fit(X, y, max_iter=1)
    network.save(tmp_path / "m")
    loaded = nnet.NeuralNetwork.load(tmp_path / "m")
    assert loaded.layers[0].config() == {"mean": -100.5, "scale": 73.0}
    assert np.array_equal(loaded.predict_proba(X), network.predict_proba(X))


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"scale": 0}, ValueError, "scale is 0, expected a finite number greater than 0"),
        ({"scale": -1.0}, ValueError, "scale is -1.0, expected a finite number greater than 0"),
        ({"scale": np.nan}, ValueError, "scale is nan, expected a finite number greater than 0"),
        ({"scale": np.inf}, ValueError, "scale is inf, expected a finite number greater than 0"),
        ({"mean": np.inf}, ValueError, "mean is inf, expected a finite number"),
        ({"mean": -np.inf}, ValueError, "mean is -inf, expected a finite number"),
        ({"mean": np.nan}, ValueError, "mean is nan, expected a finite number"),
        ({"mean": "1"}, TypeError, "mean is '1', expected a finite number"),
        ({"mean": None}, TypeError, "mean is None, expected a finite number"),
        ({"mean": [1.0]}, TypeError, r"mean is \[1.0\], expected a finite number"),
        ({"mean": 1j}, TypeError, "mean is 1j, expected a finite number"),
        ({"scale": True}, TypeError, "scale is True, expected a finite number greater than 0"),
    ],
)
def test_bad_numbers(arguments, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        Standardize(**arguments)
