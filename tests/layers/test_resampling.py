"""Pad and Upsample: the plain loops, PyTorch, and what they do in networks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import same, stripes
from structures import as_network

import nnet
from nnet import Activation, Conv, NeuralNetwork, Pad, Parallel, Pool, Residual, Upsample
from nnet.geometry import BORDER_MODES
from nnet.reference import bprop_pad_bc01, bprop_upsample_bc01, pad_bc01, upsample_bc01

TORCH_PADS = dict(zip(BORDER_MODES, ("constant", "replicate", "reflect", "circular")))
small = st.integers(1, 5)


def whole(rng, shape, dtype):
    return rng.integers(-4, 5, shape).astype(dtype)


# --- Pad --------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    size=st.tuples(small, small),
    pads=st.tuples(*[st.tuples(st.integers(0, 5), st.integers(0, 5))] * 2),
    border_mode=st.sampled_from(BORDER_MODES),
    n_imgs=st.integers(0, 2),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_pad_equals_the_loops(size, pads, border_mode, n_imgs, dtype):
    limits = {"reflect": [n - 1 for n in size], "wrap": size, "symmetric": size}
    limits = limits.get(border_mode, (9, 9))
    pads = tuple(tuple(min(pad, most) for pad in pair) for pair, most in zip(pads, limits))
    rng = np.random.default_rng(0)
    x = whole(rng, (n_imgs, 2, *size), dtype)
    value = 3.0 if border_mode == "zeros" else 0.0
    layer = Pad(pads, border_mode, value)
    y = layer.fprop(x)
    assert y.dtype == dtype and y.shape == layer.output_shape(x.shape)
    assert np.array_equal(y, pad_bc01(x, pads, border_mode, value))
    output_grad = whole(rng, y.shape, dtype)
    before = output_grad.copy()
    assert np.array_equal(layer.bprop(output_grad), bprop_pad_bc01(output_grad, pads, border_mode))
    assert np.array_equal(output_grad, before)


@pytest.mark.parametrize("border_mode", TORCH_PADS)
def test_pad_equals_torch(border_mode, rng):
    torch = pytest.importorskip("torch")
    x = rng.normal(size=(2, 3, 5, 6))
    tensor = torch.tensor(x, requires_grad=True)
    layer = Pad(((1, 2), (3, 0)), border_mode)
    expected = torch.nn.functional.pad(tensor, (3, 0, 1, 2), TORCH_PADS[border_mode])
    y = layer.fprop(x)
    assert np.array_equal(y, expected.detach().numpy())
    output_grad = rng.normal(size=y.shape)
    expected.backward(torch.tensor(output_grad))
    np.testing.assert_allclose(layer.bprop(output_grad), tensor.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize("border_mode", BORDER_MODES)
def test_a_conv_after_pad_is_a_conv_that_pads(border_mode, rng):
    x = rng.normal(size=(2, 3, 6, 7))
    conv = Conv(4, 3, padding_mode=2, border_mode=border_mode)
    conv.dtype = np.dtype(np.float64)
    conv._setup(x.shape, rng)
    pad, valid = Pad(2, border_mode), Conv(4, 3, padding_mode="valid")
    valid.W, valid.b = conv.W, conv.b
    np.testing.assert_allclose(valid.fprop(pad.fprop(x)), conv.fprop(x), atol=1e-12)


def test_a_wide_border_adds_up_in_double():
    layer = Pad(((0, 200_000), (0, 0)), "nearest")
    layer.fprop(np.zeros((1, 1, 1, 2), np.float32))
    grad = layer.bprop(np.full((1, 1, 200_001, 2), 0.1, np.float32))
    np.testing.assert_allclose(grad, 20000.1, rtol=1e-6)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Pad(-1), "pads is -1, expected an int, .y, x. or"),
        (lambda: Pad(1, "same"), "border_mode is 'same', expected one of"),
        (lambda: Pad(1, "wrap", 2), "value is 2.0, expected 0 for border_mode 'wrap'"),
        (lambda: Pad(4, "reflect").output_shape((1, 2, 4, 9)), "height 4 by at most 3"),
        (lambda: Pad((0, 5), "wrap").output_shape((1, 2, 4, 4)), "width 4 by at most 4"),
        (lambda: Pad(1).output_shape((1, 2)), "expected 4 axes"),
        (lambda: Upsample(0), "factor is"),
        (lambda: Upsample(2, "cubic"), "mode is 'cubic', expected 'nearest' or 'bilinear'"),
        (lambda: Upsample(2).output_shape((1, 2)), "expected 4 axes"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- Upsample ---------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    size=st.tuples(small, small),
    factor=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    mode=st.sampled_from(["nearest", "bilinear"]),
    n_imgs=st.integers(0, 2),
)
def test_upsample_equals_the_loops(size, factor, mode, n_imgs):
    rng = np.random.default_rng(0)
    for dtype, rtol in ((np.float32, 1e-5), (np.float64, 1e-13)):
        x = rng.normal(size=(n_imgs, 2, *size)).astype(dtype)
        layer = Upsample(factor, mode)
        y = layer.fprop(x)
        assert y.dtype == dtype and y.shape == layer.output_shape(x.shape)
        assert not np.shares_memory(y, x)
        expected = upsample_bc01(x, factor, mode)
        output_grad = rng.normal(size=y.shape).astype(dtype)
        expected_grad = bprop_upsample_bc01(output_grad, factor, mode)
        grad = layer.bprop(output_grad)
        if mode == "nearest":
            assert np.array_equal(y, expected)
        np.testing.assert_allclose(y, expected, rtol=rtol, atol=rtol)
        np.testing.assert_allclose(grad, expected_grad, rtol=rtol, atol=10 * rtol)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("factor", [2, 3, (1, 4), (5, 2)])
def test_upsample_equals_torch(factor, mode, rng, dtype):
    torch = pytest.importorskip("torch")
    x = rng.normal(size=(2, 3, 5, 6)).astype(dtype)
    tensor = torch.tensor(x, requires_grad=True)
    options = {"align_corners": False} if mode == "bilinear" else {}
    scale = factor if isinstance(factor, tuple) else (factor, factor)
    expected = torch.nn.functional.interpolate(
        tensor, scale_factor=tuple(map(float, scale)), mode=mode, **options
    )
    layer = Upsample(factor, mode)
    y = layer.fprop(x)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(y, expected.detach().numpy(), atol=tolerance)
    output_grad = rng.normal(size=y.shape).astype(dtype)
    expected.backward(torch.tensor(output_grad))
    np.testing.assert_allclose(layer.bprop(output_grad), tensor.grad.numpy(), atol=10 * tolerance)


@pytest.mark.parametrize("factor", [40, 300, (1, 2000), (2000, 1), (33, 32)])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("kind", ["equal", "random"])
def test_many_gradients_add_up_in_double(factor, mode, kind, rng):
    layer = Upsample(factor, mode)
    shape = layer.fprop(np.zeros((2, 1, 2, 1), np.float32)).shape
    output_grad = np.full(shape, 0.1) if kind == "equal" else rng.random(shape)
    output_grad = output_grad.astype(np.float32)
    grad = layer.bprop(output_grad)
    assert grad.dtype == np.float32
    layer.fprop(np.zeros((2, 1, 2, 1)))
    np.testing.assert_allclose(grad, layer.bprop(output_grad.astype(float)), rtol=1e-7)


def test_known_values():
    """Keras's bilinear UpSampling2D of factor 2 gives quarters, and the edge at the ends."""
    x = np.array([0.0, 4.0, 8.0]).reshape(1, 1, 1, 3)
    assert Upsample((1, 2), "bilinear").fprop(x).ravel().tolist() == [0, 1, 3, 5, 7, 8]
    assert Upsample((1, 2)).fprop(x).ravel().tolist() == [0, 0, 4, 4, 8, 8]


def test_upsample_keeps_what_is_large():
    largest = np.finfo(np.float32).max
    x = np.array([largest, -largest, np.inf, 1], np.float32).reshape(1, 1, 2, 2)
    with np.errstate(over="raise", invalid="raise"):
        y = Upsample(2, "bilinear").fprop(x)
    assert np.isfinite(y[0, 0, 0]).all() and np.isinf(y[0, 0, 3, :3]).all()


# --- in networks ------------------------------------------------------------------------


def layers():
    """A small U: down, up, and beside itself."""
    return [
        Pad(1, "reflect"),
        Conv(3, 3, padding_mode="valid"),
        Parallel(
            [
                [],
                [Pool(2, 2), Conv(3, 3), Upsample(2, "bilinear")],
                [Pool(2, 2), Upsample(2)],
            ]
        ),
        Residual(
            [
                Pad((1, 0), "wrap"),
                Activation("relu"),
                Pad(((0, 0), (2, 0)), value=0.5),
                Conv(3, 3, padding_mode="valid"),
            ]
        ),
    ]


def test_in_a_network(rng, tmp_path):
    X, y = stripes(24, rng)
    networks = []
    for n_threads in (1, 3):
        with nnet.num_threads(n_threads):
            networks.append(as_network(layers()).fit(X, y, 0.02, 2, batch_size=7))
    network, twin = networks
    assert same(network.params(), twin.params())
    for error in network.check_gradients(X[:4], y[:4], max_checks=10):
        assert error.rel_error < 1e-3, error
    assert network.predict_proba(X[:0]).shape == (0, 3)
    pytest.importorskip("safetensors")
    network.save(tmp_path / "file")
    loaded = NeuralNetwork.load(tmp_path / "file")
    assert np.array_equal(loaded.predict_proba(X), network.predict_proba(X))


def test_signals(rng):
    X = rng.normal(size=(12, 2, 15)).astype(np.float32)
    shapes = [Pad(2, "reflect"), Upsample(3), Pad((0, 2))]
    network = as_network([Conv(2, 3), *shapes]).fit(X, np.arange(12) % 3, 0.01, 1)
    assert network.predict(X).shape == (12,)
    assert shapes[0].output_shape((5, 2, 1, 15)) == (5, 2, 1, 19)
    assert shapes[1].output_shape((5, 2, 1, 15)) == (5, 2, 1, 45)
    assert shapes[2].output_shape((5, 2, 1, 15)) == (5, 2, 1, 19)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("n_channels", [1, 16, 64])
@pytest.mark.parametrize("factor", [(1, 1), 2, 3, (1, 2)])
def test_what_is_not_finite_stays_in_its_channel_and_window(factor, n_channels, bad, rng, dtype):
    """Which a kernel that mixes pixels, or channels whose weight is 0, would not do."""
    layer = Upsample(factor, "bilinear")
    x = rng.normal(size=(2, n_channels, 9, 10)).astype(dtype)
    y, y_factor, x_factor = layer.fprop(x), *layer.factor
    output_grad = rng.normal(size=y.shape).astype(dtype)
    grad = layer.bprop(output_grad)
    x[1, -1, 4, 5] = bad
    changed = layer.fprop(x)
    rows, cols = np.nonzero(~np.isfinite(changed[1, -1]))
    assert len(rows) > 0
    assert abs((rows + 0.5) / y_factor - 4.5).max() < 1
    assert abs((cols + 0.5) / x_factor - 5.5).max() < 1
    assert np.isfinite(np.delete(changed.reshape(-1, *y.shape[2:]), -1, axis=0)).all()
    far = np.isfinite(changed)
    np.testing.assert_allclose(changed[far], y[far], rtol=1e-5, atol=1e-6)
    output_grad[0, 0, y_factor * 4, x_factor * 5] = bad
    found = layer.bprop(output_grad)
    places = np.argwhere(~np.isfinite(found))
    assert len(places) and (places[:, :2] == 0).all()
    assert (abs(places[:, 2:] - [4, 5]) <= 1).all()
    near = np.isfinite(found)
    np.testing.assert_allclose(found[near], grad[near], rtol=1e-5, atol=1e-5)
