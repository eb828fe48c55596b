"""GlobalMaxPool, and pooling in ceil mode: kernels, plain loops, PyTorch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import same, stripes
from structures import as_network

import nnet
from nnet import Conv, GlobalMaxPool, NeuralNetwork, Pool, Residual, reference
from nnet.geometry import pool_geometry

small = st.integers(1, 7)


def poolings(kernels, x, grad, sizes, options):
    """out, switches and imgs_grad of one implementation, for both forms of switches."""
    results = []
    for places in (False, True) if options["mode"] == "max" else (False,):
        switches = np.zeros(grad.shape, np.uint8) if places else None
        out, switches = kernels.pool_bc01(x, None, switches, *sizes, **options)
        imgs_grad = kernels.bprop_pool_bc01(grad, switches, np.empty_like(x), *sizes, **options)
        results += [out, imgs_grad] if switches is None else [out, switches, imgs_grad]
    return results


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    img=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    pool=st.tuples(small, small),
    strides=st.tuples(small, small),
    pads=st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2),
    mode=st.sampled_from(["max", "avg", "counted"]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_ceil_mode_equals_the_loops(kernels, img, pool, strides, pads, mode, dtype):
    pads = tuple(tuple(min(pad, n - 1) for pad in pair) for pair, n in zip(pads, pool))
    options = {"mode": mode[:3] if mode != "counted" else "avg", "padding_mode": pads}
    options |= {"count_include_pad": mode == "counted", "ceil_mode": True}
    sizes = *pool, *strides
    try:
        g = pool_geometry(*img, *sizes, pads, True)
    except ValueError as error:
        assert "larger than the padded image" in str(error)
        with pytest.raises(ValueError, match="larger than the padded image"):
            kernels.pool_bc01(np.ones((1, 1, *img), dtype), None, None, *sizes, **options)
        return
    for out, n, window, stride, (before, after) in zip(
        (g.out_h, g.out_w), img, pool, strides, pads
    ):
        plain = max((n + before + after - window) // stride + 1, 0)
        assert plain <= out <= plain + 1 and (out - 1) * stride < n + before
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 10, (2, 3, *img)).astype(dtype)
    grad = rng.integers(-3, 4, (2, 3, g.out_h, g.out_w)).astype(dtype)
    for actual, expected in zip(
        poolings(kernels, x, grad, sizes, options),
        poolings(reference, x, grad, sizes, options),
        strict=True,
    ):
        if mode == "max":
            np.testing.assert_array_equal(actual, expected)
        else:
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["max", "avg", "counted"])
@pytest.mark.parametrize(
    "window, stride, pad", [(2, 2, 0), (3, 2, 1), (3, 2, 0), (2, 3, 1), (4, 3, 2), (9, 2, 1)]
)
def test_ceil_mode_equals_torch(mode, window, stride, pad, rng, dtype):
    torch = pytest.importorskip("torch")
    counted = mode == "counted"
    layer = Pool(window, stride, "max" if mode == "max" else "avg", pad, counted, True)
    for size in ((7, 8), (9, 10), (8, 8)):
        x = rng.normal(size=(2, 3, *size)).astype(dtype)
        tensor = torch.tensor(x, requires_grad=True)
        if mode == "max":
            expected = torch.nn.functional.max_pool2d(tensor, window, stride, pad, ceil_mode=True)
        else:
            expected = torch.nn.functional.avg_pool2d(tensor, window, stride, pad, True, counted)
        y = layer.fprop(x)
        assert y.shape == layer.output_shape(x.shape)
        np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
        output_grad = rng.normal(size=y.shape).astype(dtype)
        expected.backward(torch.tensor(output_grad))
        np.testing.assert_allclose(
            layer.bprop(output_grad), tensor.grad.numpy(), rtol=1e-5, atol=1e-6
        )


def test_what_hangs_over_the_edge_counts_nowhere():
    """Explicit padding counts: 1 + 2 of 4 real and padded pixels, then 3 of 2, or of 1 real one."""
    x = np.array([1.0, 2.0, 3.0]).reshape(1, 1, 1, 3)
    for counted, expected in ((True, [1 / 2, 5 / 2]), (False, [1, 5 / 2])):
        layer = Pool((1, 2), (1, 2), "avg", ((0, 0), (1, 0)), counted, True)
        assert layer.fprop(x).ravel().tolist() == expected
    for counted, expected in ((True, [3 / 2, 3]), (False, [3 / 2, 3])):
        layer = Pool((1, 2), (1, 2), "avg", 0, counted, True)
        assert layer.fprop(x).ravel().tolist() == expected
    counted = Pool((1, 3), (1, 3), "avg", ((0, 0), (0, 1)), True, True)
    x = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4)
    assert counted.fprop(x).ravel().tolist() == [2, 4 / 2]


def test_ceil_mode_wants_explicit_padding(kernels):
    message = "ceil_mode is True, expected explicit padding such as padding_mode=0, got 'valid'"
    with pytest.raises(ValueError, match=message):
        Pool(2, 2, padding_mode="valid", ceil_mode=True)
    x = np.ones((1, 1, 5, 5))
    for mode in ("centered", "same", "valid", "full"):
        with pytest.raises(ValueError, match="expected explicit padding"):
            kernels.pool_bc01(x, None, None, 2, 2, 2, 2, padding_mode=mode, ceil_mode=True)
    for call in (
        lambda: kernels.pool_bc01(x, None, None, 2, 2, 2, 2, padding_mode=0, ceil_mode=2),
        lambda: kernels.bprop_pool_bc01(x, None, x.copy(), mode="avg", ceil_mode="yes"),
        lambda: pool_geometry(5, 5, 2, 2, 2, 2, 0, None),
    ):
        with pytest.raises(TypeError, match="ceil_mode is .*, expected True or False"):
            call()


# --- GlobalMaxPool ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (5, 6), (17, 19)])
def test_global_max_pool(size, rng, dtype):
    x = rng.permutation(2 * 3 * np.prod(size)).reshape(2, 3, *size).astype(dtype)
    layer = GlobalMaxPool()
    y = layer.fprop(x)
    assert np.array_equal(y, x.max(axis=(2, 3))) and y.dtype == dtype
    output_grad = rng.normal(size=y.shape).astype(dtype)
    assert np.array_equal(
        layer.bprop(output_grad), (x == y[:, :, None, None]) * output_grad[:, :, None, None]
    )
    assert layer.fprop(x[:0]).shape == (0, 3)
    assert layer.bprop(output_grad[:0]).shape == (0, 3, *size)


def test_global_max_pool_equals_torch(rng):
    """The first of equal maxima, and NaN, win."""
    torch = pytest.importorskip("torch")
    x = rng.integers(0, 3, (4, 5, 6, 7)).astype(float)
    x[0, 0, 3, 3] = np.nan
    tensor = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.adaptive_max_pool2d(tensor, 1)
    layer = GlobalMaxPool()
    assert np.array_equal(layer.fprop(x), expected.detach().numpy()[:, :, 0, 0], equal_nan=True)
    output_grad = rng.normal(size=(4, 5))
    expected.backward(torch.tensor(output_grad[:, :, None, None]))
    assert np.array_equal(layer.bprop(output_grad), tensor.grad.numpy())


def test_in_a_network(rng, tmp_path):
    X, y = stripes(24, rng)

    def layers():
        pool = Pool(2, 1, padding_mode=((0, 1), (1, 0)), ceil_mode=True)
        return [Conv(4, 3), Residual([pool]), Pool(3, 2, "avg", 0, ceil_mode=True), GlobalMaxPool()]

    networks = []
    for n_threads in (1, 3):
        with nnet.num_threads(n_threads):
            networks.append(as_network(layers()).fit(X, y, 0.02, 2, batch_size=7))
    network, twin = networks
    assert same(network.params(), twin.params())
    for error in network.check_gradients(X[:4], y[:4], max_checks=10):
        assert error.rel_error < 1e-3, error
    pytest.importorskip("safetensors")
    network.save(tmp_path / "file")
    loaded = NeuralNetwork.load(tmp_path / "file")
    assert np.array_equal(loaded.predict_proba(X), network.predict_proba(X))
    assert loaded.layers[2].ceil_mode is True


def test_signals(rng):
    X = rng.normal(size=(12, 2, 15)).astype(np.float32)
    layers = [Pool(4, 3, "avg", 1, True, True), GlobalMaxPool()]
    network = as_network(layers).fit(X, np.arange(12) % 3, 0.01, 1)
    assert layers[0].output_shape((5, 2, 1, 15)) == (5, 2, 1, 6)
    assert network.predict(X).shape == (12,)


@pytest.mark.parametrize("layer", [Pool(2, 2), Pool(3, 1), Pool(20, 1), GlobalMaxPool()])
def test_prediction_computes_no_switches(layer, rng, monkeypatch):
    needs = []

    def pool_bc01(imgs, poolout, switches, *sizes, need_switches, **options):
        needs.append(need_switches)
        assert (switches is not None) == need_switches
        return nnet.pool_bc01(
            imgs, poolout, switches, *sizes, need_switches=need_switches, **options
        )

    monkeypatch.setattr("nnet.layers.pool.pool_bc01", pool_bc01)
    x = rng.normal(size=(3, 2, 8, 9)).astype(np.float32)
    results = []
    for layer.training in (True, False):
        results.append(layer.fprop(x).copy())
    layer.training = True
    assert needs == [True, False]
    assert results[0].tobytes() == results[1].tobytes()
