"""Activation: values and slopes, at both ends of the floats too, and what fprop keeps."""

import numpy as np
import pytest
from networks import check, same, stripes
from scipy import special
from structures import as_network

import nnet
from nnet import Activation, Conv, NeuralNetwork, Parallel, Residual, reference
from nnet.layers.activation import FUNCTIONS

ELEMENTWISE = [type for type in FUNCTIONS if type != "softmax"]
SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
# The least and the largest slope: where they are not 0 and 1.
SLOPES = {
    "hard_sigmoid": (0, 1 / 6),
    "selu": (0, 1.7581),
    "gelu": (-0.1290, 1.1290),
    "gelu_tanh": (-0.1295, 1.1295),
    "silu": (-0.0999, 1.0999),
    "hard_swish": (-0.5, 1.5),
}


@pytest.mark.parametrize("type", FUNCTIONS)
def test_equals_the_loops(type, rng, dtype):
    x = (3 * rng.normal(size=(3, 4, 2, 3))).astype(dtype)
    rtol = 1e-5 if dtype == "f4" else 1e-12
    np.testing.assert_allclose(
        Activation(type).fprop(x), reference.activation(x, type), rtol=rtol, atol=rtol
    )


@pytest.mark.parametrize("type", ELEMENTWISE)
def test_nothing_overflows(type, dtype):
    largest = np.finfo(dtype).max
    if type == "selu":  # times its scale
        largest /= 2
    x = np.array([-np.inf, -largest, -1e30, -1e4, -0.0, 0.0, 1e4, 1e30, largest, np.inf], dtype)
    layer = Activation(type)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y = layer.fprop(x.copy())
        slope = layer.bprop(np.ones_like(x))
    assert y.dtype == slope.dtype == dtype
    assert not np.isnan(y).any()
    low, high = SLOPES.get(type, (0, 1))
    assert np.all((slope >= low) & (slope <= high))
    if type in ("sigmoid", "tanh", "hard_sigmoid"):
        assert np.all(np.abs(y) <= 1)
    if type in ("gelu", "gelu_tanh", "silu", "hard_swish"):
        assert np.array_equal(y, np.maximum(x, 0)) and np.array_equal(slope[[0, -1]], [0, 1])


@pytest.mark.parametrize("type", SLOPES)
def test_the_least_and_the_largest_slope(type):
    x = np.linspace(-6, 6, 24001)
    layer = Activation(type)
    layer.fprop(x)
    slope = layer.bprop(np.ones_like(x))
    if type == "selu":
        assert slope.max() == pytest.approx(SELU_SCALE * SELU_ALPHA)
    else:
        np.testing.assert_allclose([slope.min(), slope.max()], SLOPES[type], atol=6e-4)


@pytest.mark.parametrize("type", FUNCTIONS)
def test_nan_stays(type):
    y = Activation(type).fprop(np.array([[np.nan, 1.0], [1.0, 2.0]]))
    assert np.isnan(y[0, 0]) and np.isfinite(y[1]).all()


@pytest.mark.parametrize("type", FUNCTIONS)
def test_the_input_is_left_alone(type, rng):
    x, output_grad = rng.normal(size=(2, 4, 5))
    before = x.copy(), output_grad.copy()
    layer = Activation(type)
    layer.fprop(x)
    layer.bprop(output_grad)
    assert same((x, output_grad), before)


@pytest.mark.parametrize("type", FUNCTIONS)
def test_equals_torch(type, rng, dtype):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    function = {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "hard_sigmoid": F.hardsigmoid,
        "hard_swish": F.hardswish,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "softmax": lambda x: F.softmax(x, 1),
    }.get(type) or getattr(F, type)
    x = (4 * rng.normal(size=(3, 5, 4, 7))).astype(dtype)
    x[0, 0, 0, :3] = 0, 6, -6
    tensor = torch.tensor(x, requires_grad=True)
    expected = function(tensor)
    layer = Activation(type)
    atol = 5e-6 if dtype == "f4" else 2e-8 if type == "hard_sigmoid" else 1e-13
    np.testing.assert_allclose(layer.fprop(x), expected.detach().numpy(), rtol=1e-6, atol=atol)
    output_grad = rng.normal(size=x.shape).astype(dtype)
    expected.backward(torch.tensor(output_grad))
    np.testing.assert_allclose(layer.bprop(output_grad), tensor.grad.numpy(), rtol=1e-6, atol=atol)


# --- softmax ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3, 2), (0, 5, 2, 2), (2, 1, 2, 2)])
def test_softmax_is_over_the_channels(shape, rng, dtype):
    x = rng.normal(size=shape).astype(dtype)
    y = Activation("softmax").fprop(x)
    np.testing.assert_allclose(y, special.softmax(x, axis=1), rtol=1e-5)
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-6)


def test_softmax_of_large_scores(dtype):
    x = np.array([[0, 1e4, -1e4], [-1e30, 0, 1e30], [-np.inf, 3, 3]], dtype)
    layer = Activation("softmax")
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y = layer.fprop(x)
        grad = layer.bprop(np.ones_like(x))
    assert np.array_equal(y, [[0, 1, 0], [0, 0, 1], [0, 0.5, 0.5]])
    assert not grad.any()


def test_softmax_of_many_channels():
    x = np.zeros((1, 300_000, 1, 1), np.float32)
    np.testing.assert_allclose(Activation("softmax").fprop(x), 1 / 300_000, rtol=1e-6)


def test_softmax_wants_channels():
    with pytest.raises(ValueError, match=r"expected channels, as in .*, got \(3,\)"):
        Activation("softmax").output_shape((3,))
    Activation("gelu").output_shape((3,))


# --- in networks ------------------------------------------------------------------------


def layers():
    every = [Activation(type) for type in FUNCTIONS]
    return [
        Conv(4, 3),
        Parallel([[layer] for layer in every[:7]], "concat"),
        Conv(4, 1, weight_scale=0.1),
        Residual([Conv(4, 1), Activation("softmax")]),
        Parallel([[Residual([layer])] for layer in every[7:]], "concat"),
        Conv(2, 1, weight_scale=0.1),
    ]


def test_in_a_network(rng, tmp_path):
    X, y = stripes(24, rng)
    networks = []
    for n_threads in (1, 3):
        with nnet.num_threads(n_threads):
            networks.append(as_network(layers()).fit(X, y, 0.01, 2, batch_size=7))
    network, twin = networks
    assert same(network.params(), twin.params())
    check(network.check_gradients(X[:4], y[:4], max_checks=10))
    assert network.predict_proba(X[:0]).shape == (0, 3)
    pytest.importorskip("safetensors")
    network.save(tmp_path / "file")
    loaded = NeuralNetwork.load(tmp_path / "file")
    assert np.array_equal(loaded.predict_proba(X), network.predict_proba(X))
