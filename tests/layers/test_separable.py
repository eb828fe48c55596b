"""DepthwiseConv and SeparableConv: as Conv layers and PyTorch compute them."""

import json

import numpy as np
import pytest
from networks import same, stripes
from structures import as_network

import nnet
from nnet import Activation, Conv, DepthwiseConv, NeuralNetwork, SeparableConv, Sequential


@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("options", [{}, {"strides": 2, "padding_mode": 1}, {"dilation": 2}])
def test_depthwise_is_a_conv_with_a_group_for_each_channel(multiplier, options, rng, dtype):
    x = rng.normal(size=(3, 4, 8, 9)).astype(dtype)
    layer = DepthwiseConv((3, 2), depth_multiplier=multiplier, **options)
    twin = Conv(4 * multiplier, (3, 2), groups=4, **options)
    outputs, grads = [], []
    for each in (layer, twin):
        each.dtype = dtype
        each._setup(x.shape, np.random.default_rng(1))
        assert each.W.shape == (1, 4 * multiplier, 3, 2)
        outputs.append(each.fprop(x))
        grads.append([each.bprop(outputs[0]), each.W_grad, each.b_grad])
    assert np.array_equal(*outputs)
    assert same(*grads)
    assert layer.output_shape(x.shape) == outputs[0].shape


def test_depthwise_equals_torch(rng):
    torch = pytest.importorskip("torch")
    x = rng.normal(size=(3, 4, 8, 9))
    layer = DepthwiseConv(3, 2, padding_mode=1, depth_multiplier=2)
    module = torch.nn.Conv2d(4, 8, 3, 2, 1, groups=4, dtype=torch.float64)
    layer.dtype = np.dtype(np.float64)
    layer._setup(x.shape, rng)
    module.weight.data = torch.tensor(np.ascontiguousarray(layer.W.swapaxes(0, 1)))
    module.bias.data = torch.tensor(layer.b)
    tensor = torch.tensor(x, requires_grad=True)
    expected = module(tensor)
    np.testing.assert_allclose(layer.fprop(x), expected.detach().numpy(), atol=1e-12)
    output_grad = rng.normal(size=expected.shape)
    expected.backward(torch.tensor(output_grad))
    np.testing.assert_allclose(layer.bprop(output_grad), tensor.grad.numpy(), atol=1e-12)
    W_grad = module.weight.grad.numpy().swapaxes(0, 1) / len(x)
    np.testing.assert_allclose(layer.W_grad, W_grad, atol=1e-12)
    np.testing.assert_allclose(layer.b_grad, module.bias.grad.numpy() / len(x), atol=1e-12)


@pytest.mark.parametrize("use_bias", [True, False])
def test_only_the_pointwise_convolution_has_a_bias(use_bias, rng):
    layer = SeparableConv(5, 3, use_bias=use_bias)
    layer._setup((2, 3, 6, 6), rng)
    assert layer.depthwise.b is None and layer.depthwise.param_names() == ["W"]
    assert layer.pointwise.param_names() == (["W", "b"] if use_bias else ["W"])
    assert (layer.pointwise.b is not None) == layer.use_bias == use_bias
    assert SeparableConv(5, 3).use_bias
    layer.use_bias = not use_bias
    assert layer.pointwise.use_bias == (not use_bias) and not layer.depthwise.use_bias


def test_separable_is_a_depthwise_and_a_pointwise_conv(rng):
    options = {"strides": 2, "padding_mode": "valid", "dilation": (1, 2), "depth_multiplier": 2}
    layer = SeparableConv(5, (3, 2), **options, weight_scale="glorot", weight_decay=0.1)
    assert layer.depthwise.config() == {
        **DepthwiseConv((3, 2), use_bias=False, **options).config(),
        "weight_scale": "glorot",
        "weight_decay": 0.1,
    }
    pointwise = Conv(5, 1, 1, weight_scale="glorot", weight_decay=0.1)
    assert layer.pointwise.config() == pointwise.config()
    row = Sequential([layer.depthwise, layer.pointwise])
    x = rng.normal(size=(2, 3, 9, 9)).astype(np.float32)
    layer._setup(x.shape, np.random.default_rng(3))
    y = layer.fprop(x)
    grads = [layer.bprop(y), layer.depthwise.W_grad.copy(), layer.pointwise.W_grad.copy()]
    assert y.shape == layer.output_shape(x.shape) == (2, 5, 4, 4)
    assert np.array_equal(row.fprop(x), y)
    assert same([row.bprop(y), layer.depthwise.W_grad, layer.pointwise.W_grad], grads)
    assert not hasattr(layer, "W") and layer.depthwise.b is None


def test_options_are_those_of_the_layers_inside():
    layer = SeparableConv(5, 3)
    layer.strides, layer.n_feats, layer.weight_decay = 2, 7, 0.5
    assert layer.depthwise.strides == layer.strides == (2, 2)
    assert layer.pointwise.n_feats == layer.n_feats == 7
    assert layer.depthwise.weight_decay == layer.pointwise.weight_decay == layer.weight_decay == 0.5
    assert repr(layer) == (
        "SeparableConv(n_feats=7, filter_shape=(3, 3), strides=(2, 2), weight_decay=0.5)"
    )
    config = json.loads(json.dumps(layer.config()))
    assert config["filter_shape"] == 3 and SeparableConv(**config).config() == layer.config()
    layer.depthwise.dilation = (2, 1)
    assert layer.dilation == (2, 1)


def test_in_a_network(rng, tmp_path):
    X, y = stripes(24, rng)

    def layers():
        return [
            SeparableConv(4, 3, depth_multiplier=2),
            Activation("relu"),
            nnet.Residual([SeparableConv(4, 3), DepthwiseConv(3), Activation("relu")]),
        ]

    networks = []
    for n_threads in (1, 3):
        with nnet.num_threads(n_threads):
            networks.append(as_network(layers()).fit(X, y, 0.05, 2, batch_size=7))
    network, twin = networks
    assert same(network.params(), twin.params())
    assert list(network.state_dict())[:6] == [
        "0.depthwise.W", "0.pointwise.W", "0.pointwise.b",
        "2.0.depthwise.W", "2.0.pointwise.W", "2.0.pointwise.b",
    ]  # fmt: skip
    for error in network.check_gradients(X[:4], y[:4], max_checks=10):
        assert error.rel_error < 1e-3, error
    pytest.importorskip("safetensors")
    network.save(tmp_path / "file")
    loaded = NeuralNetwork.load(tmp_path / "file")
    assert np.array_equal(loaded.predict_proba(X), network.predict_proba(X))
    assert loaded.layers[0].config() == network.layers[0].config()
    assert network.predict_proba(X[:0]).shape == (0, 3)
    network.layers[0].strides = 2
    with pytest.raises(ValueError, match=r"layer 4 \(Linear\)\.W has shape"):
        network.predict(X)


def test_frozen_as_one(rng):
    X, y = stripes(24, rng)
    network = as_network([Conv(2, 3), SeparableConv(4, 3)])
    network.layers[1].trainable = False
    network.build((1, 6, 6), 3)
    before = network.state_dict()
    after = network.fit(X, y, max_iter=1).state_dict()
    assert [name for name in before if np.array_equal(before[name], after[name])] == [
        "1.depthwise.W", "1.pointwise.W", "1.pointwise.b"
    ]  # fmt: skip


def test_fused_activations_change_no_bit(rng):
    """A separable convolution's row is laid open: its last layer computes the ReLU."""
    layers = [SeparableConv(4, 3), Activation("relu"), DepthwiseConv(3), Activation("relu")]
    network = as_network(layers).build((1, 6, 6), 3)
    X, _ = stripes(5, rng)
    y = X
    for layer in layers:
        y = layer.fprop(y)
    called = [getattr(f, "__self__", None) for f in network._model.program.forward]
    assert not {layers[0], layers[1], layers[3]} & set(called)
    scores = network.layers[-2].fprop(y.reshape(5, -1))
    assert np.array_equal(network.predict_proba(X), network.layers[-1].fprop(scores))


def test_signals(rng):
    X = rng.normal(size=(12, 2, 15)).astype(np.float32)
    layers = [SeparableConv(3, 5, 2), DepthwiseConv(3)]
    network = as_network(layers).fit(X, np.arange(12) % 3, 0.01, 1)
    assert layers[0].depthwise.W.shape == (1, 2, 1, 5)
    assert layers[1].W.shape == (1, 3, 1, 3)
    assert network.predict(X).shape == (12,)
