"""nnet.zoo: networks that are what they are called, that train, and that files keep."""

import sys
from pathlib import Path

import numpy as np
import pytest
from networks import check, stripes

import nnet
from nnet import (
    Activation,
    Adam,
    BatchNorm,
    Conv,
    ConvTranspose,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Linear,
    LogRegression,
    NeuralNetwork,
    Parallel,
    Pool,
    Residual,
    Standardize,
    zoo,
)

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

# Small ones, for images of 8x8 or more.
SMALL = {
    "mnist_net": lambda n: zoo.mnist_net(n),
    "lenet5": lambda n: zoo.lenet5(n),
    "all_conv": lambda n: zoo.all_conv(n, n_feats=8, dropout=0.1),
    "mini_vgg": lambda n: zoo.mini_vgg(n, n_feats=4, n_blocks=2, dropout=0.1),
    "resnet8": lambda n: zoo.resnet8(n, n_feats=4),
    "mobile_small": lambda n: zoo.mobile_small(n, n_feats=4),
}


def images(n_imgs=60, side=16, dtype=np.float32):
    """Three classes of stripes, larger than those of the other tests."""
    X, y = stripes(n_imgs, np.random.default_rng(3), dtype)
    return np.kron(X, np.ones((3, 3), dtype))[..., :side, :side], y


def n_params(layers, input_shape, n_classes=10):
    network = NeuralNetwork(layers, rng=0).build(input_shape, n_classes)
    return sum(param.size for param in network.params())


def test_sizes_are_those_of_the_papers():
    """Of LeNet-5 with all channels for all features; of All-CNN-C the paper says 1.4 million."""
    assert n_params(zoo.lenet5(), (1, 28, 28)) == 61_706
    assert n_params(zoo.all_conv(), (3, 32, 32)) == 1_369_738
    assert n_params(zoo.mnist_net(), (1, 28, 28)) == 12 * 26 + 16 * 301 + 10 * (16 * 14 * 14 + 1)
    f = 16
    convs = 9 * (3 * f + 2 * f * f + 2 * f * f + 4 * f * f + 8 * f * f + 16 * f * f)
    shortcuts = 2 * f * f + 8 * f * f
    norms = 2 * (f + 2 * f + 3 * 2 * f + 3 * 4 * f)
    assert n_params(zoo.resnet8(), (3, 32, 32)) == convs + shortcuts + norms + 10 * (4 * f + 1)


def normed(width, size=3, stride=1):
    return [Conv(width, size, stride, use_bias=False), BatchNorm(), Activation("relu")]


def plain(*convs):
    return [each for conv in convs for each in (Conv(*conv), Activation("relu"))]


def depthwise(stride):
    return [DepthwiseConv(3, stride, use_bias=False), BatchNorm(), Activation("relu")]


def residual(width, stride):
    f = [*normed(width, 3, stride), *normed(width)[:-1]]
    shortcut = normed(width, 1, stride)[:-1] if stride > 1 else None
    return [Residual(f, shortcut), Activation("relu")]


def tanh(layer):
    return [layer, Activation("tanh")]


def unet(width, below):
    """Both ways go into the concatenation, the skip first."""
    row = [Pool(2, 2), *below, ConvTranspose(width, 2, 2)]
    twice = [*normed(width), *normed(width)]
    return [*twice, Parallel([[], row], "concat"), *normed(width), *normed(width)]


GLOROT = {"weight_scale": "glorot"}
HEAD = [GlobalAveragePool(), Linear(10, weight_scale=0.01), LogRegression()]
LAYERS = {
    "lenet5": [
        *tanh(Conv(6, 5, **GLOROT)),
        Pool(2, 2, "avg"),
        *tanh(Conv(16, 5, padding_mode="valid", **GLOROT)),
        Pool(2, 2, "avg"),
        Flatten(),
        *tanh(Linear(120, **GLOROT)),
        *tanh(Linear(84, **GLOROT)),
        Linear(10, **GLOROT),
        LogRegression(),
    ],
    "all_conv": [
        Dropout(0.2),
        *plain((96, 3), (96, 3), (96, 3, 2)),
        Dropout(0.5),
        *plain((192, 3), (192, 3), (192, 3, 2)),
        Dropout(0.5),
        *plain((192, 3), (192, 1)),
        Conv(10, 1),
        GlobalAveragePool(),
        LogRegression(),
    ],
    "mini_vgg": [
        *[*normed(32), *normed(32), Pool(2, 2), Dropout(0.3)],
        *[*normed(64), *normed(64), Pool(2, 2), Dropout(0.3)],
        *[*normed(128), *normed(128), Pool(2, 2), Dropout(0.3)],
        *HEAD,
    ],
    "resnet8": [*normed(16), *residual(16, 1), *residual(32, 2), *residual(64, 2), *HEAD],
    "mobile_small": [
        *normed(16),
        *[*depthwise(1), *normed(32, 1)],
        *[*depthwise(2), *normed(32, 1)],
        *[*depthwise(1), *normed(64, 1)],
        *[*depthwise(2), *normed(64, 1)],
        *HEAD,
    ],
    "small_unet": [
        *unet(16, unet(32, [*normed(64), *normed(64)])),
        Conv(2, 1),
        LogRegression(),
    ],
}


@pytest.mark.parametrize("name", LAYERS)
def test_their_layers(name):
    """One by one: without a paper's stride or dropout, some would learn just as well."""
    assert list(map(repr, getattr(zoo, name)())) == list(map(repr, LAYERS[name]))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_any_number_of_classes(name, shape, rng):
    for n_classes in (2, 10):
        network = NeuralNetwork(SMALL[name](n_classes), rng=0).build(shape, n_classes)
        assert network.predict_proba(rng.normal(size=(3, *shape))).shape == (3, n_classes)


@pytest.mark.parametrize("name", SMALL)
def test_they_learn(name, dtype):
    X, y = images(dtype=dtype)
    network = NeuralNetwork(SMALL[name](3), rng=0)
    network.fit(X, y, optimizer=Adam(learning_rate=0.01), max_iter=8, batch_size=20)
    assert network.dtype_ == dtype
    assert network.loss_history_[-1] < 0.6 * network.loss_history_[0]
    assert network.error(X, y) <= 0.2


@pytest.mark.parametrize("name", SMALL)
def test_files_keep_them(name, tmp_path):
    pytest.importorskip("safetensors")
    X, y = images()
    network = NeuralNetwork([Standardize(), *SMALL[name](3)], rng=0).fit(X, y, 0.01, max_iter=1)
    network.save(tmp_path / "network")
    loaded = NeuralNetwork.load(tmp_path / "network")
    assert repr(loaded.layers) == repr(network.layers)
    assert np.array_equal(loaded.predict_proba(X), network.predict_proba(X))


@pytest.mark.parametrize("name", ["resnet8", "mobile_small", "mini_vgg"])
def test_gradients(name):
    X, y = images(4, side=8, dtype=np.float64)
    network = NeuralNetwork(SMALL[name](3), rng=0)
    for _, layer in nnet.layers.tree.walk(nnet.layers.tree.numbered(network.layers)):
        if isinstance(layer, nnet.Activation):
            layer.type = "tanh"  # smooth
        if isinstance(layer, nnet.Pool):
            layer.mode = "avg"
    check(network.check_gradients(X, y, max_checks=3))


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_unet_labels_pixels(depth, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(24, 1, 16, 24)).astype(np.float32)
    y = (X[:, 0] > 0.3).astype(int) + 5
    network = NeuralNetwork(zoo.small_unet(2, n_feats=4, depth=depth), rng=0)
    network.fit(X, y, optimizer=Adam(learning_rate=0.02), max_iter=25, batch_size=8)
    assert network.predict(X).shape == y.shape
    assert set(np.unique(network.predict(X))) <= {5, 6}
    assert network.error(X, y) < 0.1
    if depth:
        with pytest.raises(ValueError, match=r"joins .* 'concat', .* multiples of .* 2\*\*depth"):
            NeuralNetwork(zoo.small_unet(depth=depth)).build((1, 17, 16), 2)


def test_a_unet_sees_as_far_as_its_depth():
    """What a pixel sees grows with the depth: by the levels inside, which are really used."""
    reach = []
    for depth in (0, 1, 2):
        layers = zoo.small_unet(2, n_feats=2, depth=depth)
        network = NeuralNetwork(layers, rng=0).build((1, 32, 32), 2, "float64")
        X = np.random.default_rng(0).normal(size=(1, 1, 32, 32))
        Z = X.copy()
        Z[0, 0, 16, 16] += 1
        different = (network.outputs(X) != network.outputs(Z)).any((0, 1))
        reach.append(np.flatnonzero(different.any(0)).size)
    assert reach[0] == 5 and reach == sorted(set(reach))


def test_the_example_is_in_the_zoo():
    if not EXAMPLES.is_dir():
        pytest.skip("the examples are not here")
    sys.path.insert(0, str(EXAMPLES))
    try:
        import mnist
    finally:
        sys.path.remove(str(EXAMPLES))
    assert repr(mnist.make_network().layers) == repr(zoo.mnist_net())


def test_each_call_makes_layers_of_its_own():
    first, second = zoo.resnet8(), zoo.resnet8()
    assert not set(map(id, first)) & set(map(id, second))
    NeuralNetwork(first).build((3, 32, 32))
    NeuralNetwork(second).build((3, 32, 32))
    assert isinstance(nnet.zoo.lenet5()[-2], Linear)


@pytest.mark.parametrize("make", [*SMALL.values(), zoo.small_unet], ids=[*SMALL, "small_unet"])
def test_numbers_of_classes_are_refused(make):
    for n_classes in (0, 1):
        with pytest.raises(ValueError, match=f"n_classes is {n_classes}, expected at least 2"):
            make(n_classes)
    with pytest.raises(TypeError, match="n_classes is 2.0, expected an integer"):
        make(2.0)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: zoo.mini_vgg(n_blocks=0), ValueError, "n_blocks is 0, expected at least 1"),
        (lambda: zoo.small_unet(depth=-1), ValueError, "depth is -1, expected at least 0"),
        (lambda: zoo.resnet8(n_feats=1.5), TypeError, "n_feats is 1.5, expected an integer"),
        (lambda: zoo.lenet5(activation="step"), ValueError, "activation is 'step'"),
        (lambda: zoo.all_conv(dropout=2), ValueError, "dropout is 2"),
        (lambda: zoo.mini_vgg(dropout=True), TypeError, "dropout is True"),
    ],
)
def test_options_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
