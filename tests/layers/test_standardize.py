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
        ({"scale": 0}, ValueError, "scale is 0, expected None or a finite number greater than 0"),
        (
            {"scale": -1.0},
            ValueError,
            "scale is -1.0, expected None or a finite number greater than 0",
        ),
        (
            {"scale": np.nan},
            ValueError,
            "scale is nan, expected None or a finite number greater than 0",
        ),
        (
            {"scale": np.inf},
            ValueError,
            "scale is inf, expected None or a finite number greater than 0",
        ),
        ({"mean": np.inf}, ValueError, "mean is inf, expected None or a finite number"),
        ({"mean": -np.inf}, ValueError, "mean is -inf, expected None or a finite number"),
        ({"mean": np.nan}, ValueError, "mean is nan, expected None or a finite number"),
        ({"mean": "1"}, TypeError, "mean is '1', expected None or a finite number"),
        (
            {"mean": [1.0], "scale": 1},
            TypeError,
            r"mean is \[1.0\], expected None or a finite number",
        ),
        ({"mean": 1j, "scale": 1}, TypeError, "mean is 1j, expected None or a finite number"),
        (
            {"scale": True},
            TypeError,
            "scale is True, expected None or a finite number greater than 0",
        ),
    ],
)
def test_bad_numbers(arguments, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        Standardize(**arguments)


# --- what fit finds ---------------------------------------------------------------------------


def adapting(first=None, rng=0):
    row = [first or Standardize(), nnet.Conv(4, 3), nnet.Activation("relu"), nnet.Flatten()]
    return nnet.NeuralNetwork([*row, nnet.Linear(3), nnet.LogRegression()], rng=rng)


def pictures(rng, dtype=np.float32, offset=0.0):
    X = rng.normal(size=(50, 2, 6, 6)) * [[[3.0]], [[0.5]]] + [[[offset - 40]], [[offset + 7]]]
    return X.astype(dtype), np.arange(50) % 3


@pytest.mark.parametrize("offset", [0, 1e4])
def test_fit_finds_mean_and_scale(rng, dtype, offset):
    X, y = pictures(rng, dtype, offset)
    network = adapting().fit(X, y, 0.0, max_iter=1, batch_size=7)
    layer = network.layers[0]
    exact = X.astype(float)
    assert layer.mean_.dtype == layer.scale_.dtype == dtype
    np.testing.assert_allclose(layer.mean_, exact.mean((0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(layer.scale_, exact.std((0, 2, 3)), rtol=1e-7)
    out = layer.fprop(X).astype(float)
    np.testing.assert_allclose(out.std((0, 2, 3)), 1, rtol=1e-6)
    assert list(network.state_dict())[-2:] == ["0.mean_", "0.scale_"]
    assert len(network.params()) == 4


def test_they_are_those_of_the_images_that_train(rng):
    X, y = pictures(rng)
    weights = np.arange(50) % 4
    layer = adapting().fit(X, y, 0.0, max_iter=1, sample_weight=weights).layers[0]
    repeated = (
        adapting().fit(np.repeat(X, weights, axis=0), np.repeat(y, weights), 0.0, 1).layers[0]
    )
    np.testing.assert_allclose(layer.mean_, repeated.mean_, rtol=1e-6)
    np.testing.assert_allclose(layer.scale_, repeated.scale_, rtol=1e-6)
    inside = nnet.Sequential([Standardize()])
    adapting(inside).fit(X, y, 0.0, max_iter=1, validation_data=(X * 9, y))
    expected = adapting().fit(X, y, 0.0, max_iter=1).layers[0]
    assert np.array_equal(inside.layers[0].mean_, expected.mean_)
    batches = [(X[:20], y[:20]), (X[20:], y[20:])]
    assert np.allclose(adapting().fit(batches, max_iter=1).layers[0].scale_, expected.scale_)


def test_features_and_constant_channels(rng):
    X = rng.normal(size=(40, 3))
    X[:, 1] = 0.1
    layers = [Standardize(), nnet.Linear(2), nnet.LogRegression()]
    nnet.NeuralNetwork(layers, rng=0).fit(X, np.arange(40) % 2, max_iter=1)
    assert layers[0].scale_[1] == 1 and abs(layers[0].mean_[1] - 0.1) < 1e-15
    np.testing.assert_allclose(layers[0].scale_[::2], X[:, ::2].std(0))


def test_what_was_found_is_kept(rng, tmp_path):
    X, y = pictures(rng)
    network = adapting().fit(X, y, 0.01, max_iter=1)
    found = network.layers[0].mean_.copy()
    network.save(tmp_path / "network")
    loaded = nnet.NeuralNetwork.load(tmp_path / "network")
    assert np.array_equal(loaded.predict_proba(X), network.predict_proba(X))
    network.fit(X * 5, y, 0.0, max_iter=1, warm_start=True)
    assert np.array_equal(network.layers[0].mean_, found)
    with pytest.raises(ValueError, match="NaN"):
        network.fit(np.full_like(X, np.nan), y)
    assert np.array_equal(network.layers[0].mean_, found)
    network.freeze(0)
    network.fit(X * 5, y, 0.0, max_iter=1)
    assert np.array_equal(network.layers[0].mean_, found)
    network.unfreeze()
    network.fit(X * 5, y, 0.0, max_iter=1)
    assert np.allclose(network.layers[0].mean_, 5 * found, rtol=1e-5)


@pytest.mark.parametrize(
    "layers",
    [
        [nnet.Conv(2, 3), Standardize()],
        [nnet.Sequential([nnet.Activation("relu"), Standardize()])],
        [nnet.Residual([Standardize()])],
    ],
)
def test_any_but_the_first_layer_needs_numbers(layers, rng):
    X, y = pictures(rng)
    layers = [*layers, nnet.Flatten(), nnet.Linear(3), nnet.LogRegression()]
    with pytest.raises(ValueError, match=r"\(Standardize\) has no mean and scale, expected some"):
        nnet.NeuralNetwork(layers, rng=0).fit(X, y)


@pytest.mark.parametrize("call", ["fit", "partial_fit"])
def test_images_that_weigh_nothing_have_no_mean(call, rng):
    X, y = pictures(rng)
    with pytest.raises(ValueError, match="weights of all images are zero, expected some more"):
        getattr(adapting(), call)(X, y, sample_weight=np.zeros(len(X)))


def test_one_number_without_the_other():
    x = np.ones((2, 3))
    assert np.array_equal(Standardize(0.25).fprop(x), 0.75 * x)
    assert np.array_equal(Standardize(scale=4).fprop(x), x / 4)
