"""ConvTranspose: PyTorch's and Keras's geometry, the plain loops, and what a convolution says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import same, stripes
from structures import as_network

import nnet
from nnet import Activation, ConvTranspose, NeuralNetwork, conv_bc01
from nnet.geometry import conv_geometry, conv_transpose_geometry
from nnet.reference import conv_transpose_bc01


def set_up(layer, input_shape, rng, dtype=np.float64):
    layer.dtype = np.dtype(dtype)
    layer._setup(input_shape, rng)
    if layer.use_bias:
        layer.b[:] = rng.normal(size=layer.b.shape)
    return layer


# --- geometry ---------------------------------------------------------------------------

small = st.integers(1, 6)
pads = st.integers(0, 4)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    img=st.tuples(small, small),
    fil=st.tuples(small, small),
    strides=st.tuples(small, small),
    dilation=st.tuples(*[st.integers(1, 3)] * 2),
    padding_mode=st.sampled_from(["same", "valid", "full"])
    | st.tuples(st.tuples(pads, pads), st.tuples(pads, pads)),
    extra=st.tuples(st.integers(0, 5), st.integers(0, 5)),
)
def test_the_convolution_of_the_output_has_the_size_of_the_input(
    img, fil, strides, dilation, padding_mode, extra
):
    most = map(max, strides, dilation)
    if isinstance(padding_mode, str) or max(e - m for e, m in zip(extra, most)) >= 0:
        extra = (0, 0)
    try:
        g = conv_transpose_geometry(*img, *fil, strides, padding_mode, extra, dilation)
    except ValueError as error:
        assert "leaves nothing" in str(error) and padding_mode not in ("same", "valid")
        return
    words = padding_mode if isinstance(padding_mode, str) else None
    mode = words or ((g.top, max(g.bottom, 0)), (g.left, max(g.right, 0)))
    reached = g.out_h + min(g.bottom, 0), g.out_w + min(g.right, 0)
    back = conv_geometry(*reached, *fil, strides, mode, "zeros", dilation)
    assert (back.out_h, back.out_w) == img
    if reached == (g.out_h, g.out_w):
        assert back[2:] == g[2:]


@pytest.mark.parametrize(
    "n, fil, stride, padding, extra, dilation, out",
    [
        (5, 3, 2, "same", 0, 1, 10),
        (5, 3, 2, "valid", 0, 1, 11),
        (4, 2, 3, "same", 0, 1, 12),  # a stride above the kernel
        (4, 2, 3, "valid", 0, 1, 12),
        (4, 2, 3, 0, 0, 1, 11),
        (5, 3, 2, "full", 0, 1, 7),
        (5, 3, 2, 1, 0, 1, 9),
        (5, 3, 2, 1, 1, 1, 10),
        (1, 1, 1, "valid", 0, 1, 1),
        (5, 3, 1, "same", 0, 2, 5),
    ],
)
def test_known_sizes(n, fil, stride, padding, extra, dilation, out):
    pads = padding if isinstance(padding, str) else (padding, 0)
    g = conv_transpose_geometry(n, 7, fil, 1, (stride, 1), pads, (extra, 0), (dilation, 1))
    assert g.out_h == out
    assert g.out_w == 7


@pytest.mark.parametrize(
    "options, message",
    [
        ({"output_padding": 1}, r"output_padding is \(1, 1\), expected 0 for padding_mode 'same'"),
        ({"padding_mode": "valid", "output_padding": (0, 1), "strides": 2}, "'valid'"),
        (
            {"padding_mode": 0, "output_padding": 2, "strides": 2},
            r"output_padding is \(2, 2\), expected less than strides = \(2, 2\) or than dilation = "
            r"\(1, 1\)$",
        ),
        ({"padding_mode": 4}, "padding .4, 4. leaves nothing of an output of height 7"),
        ({"padding_mode": 2**31}, "must be at most|leaves nothing"),
    ],
)
def test_refused(options, message):
    layer = ConvTranspose(2, 3, **options)
    with pytest.raises(ValueError, match=message):
        layer.output_shape((1, 2, 5, 5))


def test_channels_that_groups_do_not_divide():
    with pytest.raises(ValueError, match="n_feats is 3, expected a multiple of groups = 2"):
        ConvTranspose(3, 3, groups=2)
    with pytest.raises(ValueError, match="channel count that groups = 2 divides, got 3"):
        ConvTranspose(2, 3, groups=2).array_shapes((1, 3, 5, 5))


# --- values -----------------------------------------------------------------------------

CASES = [
    ((2, 4, 5, 6), {"filter_shape": 3}),
    ((2, 4, 4, 3), {"filter_shape": (3, 2), "strides": 2}),
    ((2, 4, 4, 3), {"filter_shape": 2, "strides": 3, "padding_mode": "valid"}),
    ((1, 4, 3, 3), {"filter_shape": 3, "strides": (1, 2), "padding_mode": "full"}),
    ((2, 4, 3, 4), {"filter_shape": 3, "strides": 2, "padding_mode": 1, "output_padding": 1}),
    ((2, 4, 3, 2), {"filter_shape": 2, "dilation": 3, "padding_mode": 0, "output_padding": 2}),
    ((2, 4, 3, 4), {"filter_shape": 3, "padding_mode": ((2, 0), (1, 0)), "dilation": (2, 1)}),
    ((2, 4, 3, 4), {"filter_shape": 3, "strides": 2, "groups": 2}),
    ((2, 4, 3, 4), {"filter_shape": (2, 3), "groups": 4, "use_bias": False}),
    ((2, 1, 1, 9), {"filter_shape": (1, 5), "strides": (1, 2)}),
    ((0, 4, 3, 4), {"filter_shape": 3, "strides": 2}),
]
LOOPS = "strides", "padding_mode", "output_padding", "dilation", "groups"


@pytest.mark.parametrize("input_shape, options", CASES)
def test_equals_the_loops(input_shape, options, rng, dtype):
    layer = set_up(ConvTranspose(4, **options), input_shape, rng, dtype)
    layer.W = rng.integers(-3, 4, layer.W.shape).astype(dtype)  # whole: no rounding
    if layer.use_bias:
        layer.b = rng.integers(-3, 4, 4).astype(dtype)
    x = rng.integers(-3, 4, input_shape).astype(dtype)
    geometry = {name: getattr(layer, name) for name in LOOPS}
    expected = conv_transpose_bc01(x, layer.W, bias=layer.b, **geometry)
    for n_threads in (1, 3):
        with nnet.num_threads(n_threads):
            assert np.array_equal(layer.fprop(x), expected)
    assert expected.shape == layer.output_shape(input_shape)


@pytest.mark.parametrize("input_shape, options", CASES[:-1])
def test_is_the_transpose_of_the_convolution(input_shape, options, rng):
    """<conv(y), x> = <y, conv_transpose(x)>, and so for the gradients."""
    layer = set_up(ConvTranspose(4, **options), input_shape, rng)
    if layer.use_bias:
        layer.b[:] = 0
    x, y = rng.normal(size=input_shape), rng.normal(size=layer.output_shape(input_shape))
    reached = layer._reached(y, x.shape)
    conv = conv_bc01(
        reached, np.ascontiguousarray(layer.W.swapaxes(0, 1)), **layer._options(x.shape)
    )
    assert np.sum(conv * x) == pytest.approx(np.sum(y * layer.fprop(x)))
    np.testing.assert_array_equal(layer.bprop(y), conv)
    assert np.sum(layer.W_grad * layer.W) == pytest.approx(np.sum(conv * x) / len(x))


@pytest.mark.parametrize(
    "strides, pads, extra, dilation, groups",
    [
        ((2, 2), 1, 1, (1, 1), 1),
        ((3, 2), (0, 1), (2, 0), (1, 1), 2),
        ((1, 1), 0, 0, (2, 3), 4),
        ((2, 3), (1, 0), (1, 2), (2, 1), 2),
        ((4, 5), 0, 0, (1, 1), 1),
        ((1, 1), 0, (1, 2), (2, 3), 1),  # rows that no pixel reaches
        ((1, 2), 1, 3, (4, 4), 2),
        ((1, 1), 2, 1, (2, 2), 1),
        ((2, 2), (0, 2), (0, 3), (1, 4), 1),
    ],
)
def test_equals_torch(strides, pads, extra, dilation, groups, rng, dtype):
    torch = pytest.importorskip("torch")
    layer = ConvTranspose(
        8, 3, strides, padding_mode=pads, output_padding=extra, dilation=dilation, groups=groups
    )
    x = rng.normal(size=(3, 4, 5, 6)).astype(dtype)
    set_up(layer, x.shape, rng, dtype)
    tensors = [torch.tensor(array, requires_grad=True) for array in (x, layer.W, layer.b)]
    expected = torch.nn.functional.conv_transpose2d(
        *tensors, strides, pads, extra, groups, dilation
    )
    y = layer.fprop(x)
    output_grad = rng.normal(size=y.shape).astype(dtype)
    expected.backward(torch.tensor(output_grad))
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-10}
    np.testing.assert_allclose(y, expected.detach().numpy(), **tolerance)
    for actual, tensor in zip(
        (layer.bprop(output_grad), layer.W_grad * 3, layer.b_grad * 3), tensors, strict=True
    ):
        np.testing.assert_allclose(actual, tensor.grad.numpy(), **tolerance)


def test_same_leaves_out_the_last_value_where_torch_leaves_out_the_first(rng):
    """Keras 3.15.1's Conv2DTranspose: kernel 3, stride 2; torch: padding=1, output_padding=1."""
    x = rng.normal(size=(1, 1, 1, 5))
    full, same, explicit = (
        set_up(
            ConvTranspose(1, (1, 3), (1, 2), padding_mode=pads, output_padding=extra),
            x.shape,
            np.random.default_rng(0),
        )
        for pads, extra in [("valid", 0), ("same", 0), ((0, 1), (0, 1))]
    )
    outputs = [layer.fprop(x) for layer in (full, same, explicit)]
    for layer in (same, explicit):
        assert np.array_equal(layer.W, full.W)
    assert np.array_equal(outputs[1] - same.b, outputs[0][..., :-1] - full.b)
    assert np.array_equal(outputs[2] - explicit.b, outputs[0][..., 1:] - full.b)


def test_a_stride_above_the_kernel_leaves_zeros(rng):
    """n * stride values, also for 'valid', as in Keras."""
    x = rng.normal(size=(1, 2, 4, 4))
    for mode in ("same", "valid"):
        layer = ConvTranspose(1, 2, 3, padding_mode=mode, use_bias=False)
        y = set_up(layer, x.shape, rng).fprop(x)
        assert y.shape == (1, 1, 12, 12)
        rows = np.abs(y).sum(axis=(0, 1, 3)) > 0
        first = 0  # 'same' has no padding here
        assert rows.tolist() == [i % 3 in (first, first + 1) for i in range(12)]


def test_initial_weights(rng):
    layer = ConvTranspose(64, 4, 2, weight_scale="he")
    layer._setup((1, 32, 4, 4), rng)
    np.testing.assert_allclose(np.std(layer.W), np.sqrt(2 / (32 * 4)), rtol=0.05)
    output = layer.fprop(rng.normal(size=(20, 32, 6, 6)).astype(np.float32))
    np.testing.assert_allclose(np.var(output), 2, rtol=0.2)  # He: twice that of the input


# --- in networks ------------------------------------------------------------------------


def autoencoder():
    return [
        nnet.Conv(4, 3, 2),
        Activation("relu"),
        ConvTranspose(4, 3, 2, weight_decay=0.01),
        Activation("relu"),
        nnet.Residual([ConvTranspose(4, 3, padding_mode=1)]),
    ]


def test_in_a_network(rng, tmp_path):
    X, y = stripes(24, rng)
    networks = []
    for n_threads in (1, 3):
        with nnet.num_threads(n_threads):
            networks.append(as_network(autoencoder()).fit(X, y, 0.02, 2, batch_size=7))
    network, twin = networks
    assert same(network.params(), twin.params())
    for error in network.check_gradients(X[:4], y[:4], max_checks=10):
        assert error.rel_error < 1e-3, error
    pytest.importorskip("safetensors")
    network.save(tmp_path / "file")
    loaded = NeuralNetwork.load(tmp_path / "file")
    assert np.array_equal(loaded.predict_proba(X), network.predict_proba(X))
    assert loaded.state_dict().keys() == network.state_dict().keys()
    assert network.predict_proba(X[:0]).shape == (0, 3)


def test_signals(rng):
    X = rng.normal(size=(12, 2, 15)).astype(np.float32)
    layer = ConvTranspose(3, 4, 2, padding_mode=1, output_padding=1)
    network = as_network([layer]).fit(X, np.arange(12) % 3, 0.01, 1)
    assert layer.W.shape == (2, 3, 1, 4)
    assert layer.output_shape((5, 2, 1, 15)) == (5, 3, 1, 31)
    assert network.predict(X).shape == (12,)


def test_frozen_layers_spare_their_gradients(rng, monkeypatch):
    """Not a bit changes, and what the kernels need not compute they are not asked for."""
    calls = []
    bprop = nnet.layers.conv.bprop_conv_bc01

    def spy(*args, **options):
        calls.append(options["need_filters_grad"])
        return bprop(*args, **options)

    monkeypatch.setattr(nnet.layers.conv, "bprop_conv_bc01", spy)
    X, y = stripes(12, rng)
    frozen = [nnet.DepthwiseConv(3), ConvTranspose(2, 3), nnet.Flatten(), nnet.Linear(3)]
    network = NeuralNetwork(
        [nnet.Conv(2, 3), *frozen, nnet.Linear(3), nnet.LogRegression()], rng=0
    ).build((1, 6, 6), 3)
    before = network.state_dict()

    def spoil(progress):
        for layer in (frozen[0], frozen[1], frozen[3]):
            layer.W_grad[...] = layer.b_grad[...] = np.nan

    for layer in frozen:
        layer.trainable = False
    network.fit(X, y, max_iter=1, batch_size=6, callback=spoil)
    assert calls == [False, True] * 2
    after = network.state_dict()
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    assert changed == ["0.W", "0.b", "5.W", "5.b"]
    for layer in (frozen[0], frozen[1], frozen[3]):
        assert np.isnan(layer.W_grad).all() and np.isnan(layer.b_grad).all()
    errors = network.check_gradients(X[:2], y[:2], max_checks=5)
    assert len(errors) == 4 and max(error.rel_error for error in errors) < 1e-3
    frozen[1].trainable = True
    errors = network.check_gradients(X[:2], y[:2], max_checks=5)
    assert len(errors) == 6 and max(error.rel_error for error in errors) < 1e-3


def test_the_gradient_of_the_bias_adds_up_in_double():
    layer, shape = ConvTranspose(2, 3), (40, 1, 48, 64)
    set_up(layer, shape, np.random.default_rng(0), np.float32)
    layer.fprop(np.zeros(shape, np.float32))
    output_grad = np.random.default_rng(1).random((40, 2, 48, 64), np.float32)
    layer.bprop(output_grad)
    exact = output_grad.sum(axis=(0, 2, 3), dtype=float) / 40
    np.testing.assert_array_equal(layer.b_grad, exact.astype(np.float32))
