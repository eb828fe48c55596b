"""What the axes of X are taken for: images with channels first, signals, or neither."""

import copy

import numpy as np
import pytest
from networks import check, same

import nnet
from nnet import (
    Activation,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dropout,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    GroupNorm,
    Linear,
    LogRegression,
    MeanSquaredError,
    NeuralNetwork,
    Pad,
    Parallel,
    Pool,
    Residual,
    SeparableConv,
    Sequential,
    Standardize,
    Upsample,
)

rng = np.random.default_rng(20150423)
SIGNALS = rng.normal(size=(9, 3, 20)).astype(np.float32)
y = np.arange(9) % 3


def network(*layers):
    return NeuralNetwork([*layers, Flatten(), Linear(3), LogRegression()], rng=0)


def images(*shape):
    return rng.normal(size=(9, *shape)).astype(np.float32)


# --- signals ----------------------------------------------------------------------------

# Layers with one number for a window, and those that mean the same for images of height 1
PADS = {
    "words": ["same", "valid", "full"],
    "numbers": [0, 1, 2, np.int64(2)],
    "pairs": [(0, 1), ((0, 0), (2, 1))],
}
SAME = {
    **{
        f"Conv, {pads}": ([Conv(4, 5, padding_mode=pads)], [Conv(4, (1, 5), padding_mode=explicit)])
        for kind, values in PADS.items()
        for pads in values
        for explicit in [(0, pads) if kind == "numbers" else pads]
    },
    **{
        f"Pool, {mode}, {pads}": (
            [Conv(4, 3), Pool(4, 2, mode, pads)],
            [Conv(4, (1, 3)), Pool((1, 4), (1, 2), mode, explicit)],
        )
        for kind, values in {**PADS, "centered": ["centered"]}.items()
        for pads in values
        for explicit in [(0, pads) if kind == "numbers" else pads]
        for mode in ("max", "avg")
    },
    "strides and dilation": (
        [Conv(4, 3, strides=2, dilation=2)],
        [Conv(4, (1, 3), strides=(1, 2), dilation=(1, 2))],
    ),
    "pairs and numbers": (
        [Conv(4, (1, 3), strides=2, padding_mode=1), Pool(3, (1, 2))],
        [Conv(4, (1, 3), strides=(1, 2), padding_mode=(0, 1)), Pool((1, 3), (1, 2))],
    ),
    "borders and groups": (
        [Conv(4, 3, border_mode="reflect"), Conv(4, 4, border_mode="wrap", groups=2)],
        [Conv(4, (1, 3), border_mode="reflect"), Conv(4, (1, 4), border_mode="wrap", groups=2)],
    ),
    "averages of padding": (
        [Conv(4, 3), Pool(3, 2, "avg", 1, count_include_pad=True)],
        [Conv(4, (1, 3)), Pool((1, 3), (1, 2), "avg", (0, 1), count_include_pad=True)],
    ),
    "containers": (
        [
            Conv(4, 3),
            Residual([Sequential([Conv(4, 3, padding_mode=1), Activation("tanh")])], [Conv(4, 1)]),
            Parallel([[Pool(2, 2)], Conv(4, 2, 2, padding_mode="valid")], "concat"),
        ],
        [
            Conv(4, (1, 3)),
            Residual(
                [Sequential([Conv(4, (1, 3), padding_mode=(0, 1)), Activation("tanh")])],
                [Conv(4, (1, 1))],
            ),
            Parallel(
                [[Pool((1, 2), (1, 2))], Conv(4, (1, 2), (1, 2), padding_mode="valid")], "concat"
            ),
        ],
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_signals_are_images_of_height_1(name, tmp_path):
    """An int is the length of a window; the same bits as with pairs on images."""
    pytest.importorskip("safetensors")
    with_ints, with_pairs = (network(*copy.deepcopy(layers)) for layers in SAME[name])
    options = {"learning_rate": 0.01, "max_iter": 2, "batch_size": 4}
    with_ints.fit(SIGNALS, y, validation_data=(SIGNALS, y), **options)
    with_pairs.fit(SIGNALS[:, :, None], y, validation_data=(SIGNALS[:, :, None], y), **options)
    probs = with_ints.predict_proba(SIGNALS)
    assert same(with_ints.params(), with_pairs.params())
    assert np.array_equal(probs, with_pairs.predict_proba(SIGNALS[:, :, None]))
    assert with_ints.error(SIGNALS, y) == with_pairs.error(SIGNALS[:, :, None], y)
    assert with_ints.val_loss_history_ == with_pairs.val_loss_history_

    with_ints.save(tmp_path / "file")
    loaded = NeuralNetwork.load(tmp_path / "file")
    assert str(loaded.layers) == str(with_ints.layers)
    for twin in (loaded, copy.deepcopy(with_ints)):
        assert np.array_equal(twin.predict_proba(SIGNALS), probs)
        check(twin.check_gradients(SIGNALS[:3], y[:3], max_checks=5))
    again = with_ints.fit(SIGNALS, y, **options).params()
    loaded.rng = 0
    assert same(loaded.fit(SIGNALS, y, **options).params(), again)  # ints are ints after the file


def test_layers_that_join_later_see_signals():
    trained = network(Conv(4, 3), Pool(2, 2)).fit(SIGNALS, y, 0.01, 1)
    trained.layers[1:2] = [Sequential([Pool(2, 2)])]
    probs = trained.predict_proba(SIGNALS)
    expected = network(Conv(4, 3), Pool(2, 2)).fit(SIGNALS, y, 0.01, 1)
    assert np.array_equal(probs, expected.predict_proba(SIGNALS))
    trained.layers[1].layers[0].pool_shape = (2, 2)
    for use in (lambda: trained.predict(SIGNALS), lambda: trained.check_gradients(SIGNALS, y)):
        with pytest.raises(ValueError, match=r"the windows of layer 1\.0 \(Pool\) are 2 high"):
            use()
    trained.layers[1].layers[0].pool_shape = 2
    assert np.array_equal(trained.predict_proba(SIGNALS), probs)


def test_the_same_layers_for_signals_and_then_images():
    both = network(Conv(4, 3, padding_mode=1), Pool(2, 2)).fit(SIGNALS, y, 0.01, 1)
    X = images(2, 6, 6)
    both.fit(X, y, 0.01, 1)
    expected = network(Conv(4, 3, padding_mode=1), Pool(2, 2)).fit(X, y, 0.01, 1)
    assert same(both.params(), expected.params())
    assert both.params()[0].shape == (2, 4, 3, 3)


def test_regression_on_signals():
    values = SIGNALS.mean(axis=2)[:, :2]
    layers = [Standardize(0.1, 2), Conv(4, 5), GlobalAveragePool(), Linear(2), MeanSquaredError()]
    trained = NeuralNetwork(layers, rng=0).fit(SIGNALS, values, 0.1, 3)
    assert trained.predict(SIGNALS).shape == (9, 2)
    assert trained.loss_history_[-1] < trained.loss_history_[0]


# --- refused ------------------------------------------------------------------------------

TWO_HIGH = {
    "Conv": ([Conv(4, (2, 3))], "layer 0 (Conv) are 2"),
    "Conv for images": ([Conv(8, (3, 3))], "layer 0 (Conv) are 3"),
    "Pool": ([Conv(4, 3), Pool((2, 2), 2)], "layer 1 (Pool) are 2"),
    "Pool by itself": ([Pool()], "layer 0 (Pool) are 3"),
    "nested": ([Residual([Sequential([Conv(3, (3, 3))])])], "layer 0.0.0 (Conv) are 3"),
    "shortcut": ([Residual([], [Conv(3, (3, 1))])], "layer 0.shortcut.0 (Conv) are 3"),
    "branch": ([Parallel([[], [Conv(3, 3), Pool((3, 1), 1)]])], "layer 0.1.1 (Pool) are 3"),
}


@pytest.mark.parametrize("name", TWO_HIGH)
def test_signals_have_no_height(name):
    layers, where = TWO_HIGH[name]
    for use in (lambda n: n.fit(SIGNALS, y), lambda n: n.build((3, 20))):
        with pytest.raises(ValueError, match="to_bc01") as caught:
            use(network(*copy.deepcopy(layers)))
        assert f"signals of 3 channels, but the windows of {where} high" in str(caught.value)


PAIRS = {
    "Upsample": ([Conv(4, 3), Upsample((2, 2))], r"factor of layer 1 \(Upsample\) is \(2, 2\)", 1),
    "Pad": ([Pad((1, 1))], r"pads of layer 0 \(Pad\) is \(1, 1\)", 0),
    "Pad below": ([Pad(((0, 1), (1, 1)))], r"pads of layer 0 \(Pad\) is \(\(0, 1\), \(1, 1\)\)", 0),
    "Conv": ([Conv(4, 3, padding_mode=(1, 1))], r"padding_mode of layer 0 \(Conv\) is \(1, 1\)", 0),
    "Pool": ([Pool(2, 2, "max", (1, 0))], r"padding_mode of layer 0 \(Pool\) is \(1, 0\)", 0),
    "SeparableConv": (
        [SeparableConv(4, 3, padding_mode=((1, 0), (1, 1)))],
        r"padding_mode of layer 0.depthwise \(DepthwiseConv\) is \(\(1, 0\), \(1, 1\)\)",
        0,
    ),
    "strides of ConvTranspose": (
        [Residual([Pool(2, 2), ConvTranspose(3, 2, (2, 2))])],
        r"strides of layer 0.1 \(ConvTranspose\) is \(2, 2\)",
        1,
    ),
    "output_padding": (
        [ConvTranspose(4, 2, 2, padding_mode=0, output_padding=(1, 1))],
        r"output_padding of layer 0 \(ConvTranspose\) is \(1, 1\)",
        0,
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_signals_stay_without_height(name):
    layers, text, most = PAIRS[name]
    for use in (lambda n: n.fit(SIGNALS, y), lambda n: n.build((3, 20))):
        with pytest.raises(ValueError, match=f"{text}, expected {most} along the height.*to_bc01"):
            use(network(*copy.deepcopy(layers)))
    network(*copy.deepcopy(layers)).build((3, 8, 20), 3)  # images may have it


@pytest.mark.parametrize(
    "layers",
    [
        [Upsample((1, 2))],
        [Pad((0, 1))],
        [Pad(((0, 0), (2, 1)))],
        [
            ConvTranspose(4, 3, (1, 2)),
            ConvTranspose(4, (1, 2), 2, padding_mode=0, output_padding=1),
        ],
        [ConvTranspose(4, 2, 3, padding_mode=(0, 1), output_padding=(0, 2))],
        [Conv(4, 3, strides=(2, 2)), Pool(2, (1, 2))],
    ],
    ids=str,
)
def test_pairs_that_are_meant_for_signals(layers):
    trained = network(*copy.deepcopy(layers)).fit(SIGNALS, y, 0.01, 1)
    assert trained.predict(SIGNALS).shape == (9,)


@pytest.mark.parametrize(
    "layers",
    [[Conv(8, 3)], [Conv(8, 1)], [Conv(8, (1, 3))], [Pool(2, 2)], [Residual([Conv(8, 3)])]],
    ids=str,
)
def test_square_images_without_a_channel_axis(layers):
    X = images(8, 8)
    with pytest.raises(ValueError, match=r"shape \(n_imgs, 8, 8\), square images .*to_bc01"):
        network(*copy.deepcopy(layers)).fit(X, y)


def test_the_ways_that_the_error_for_square_images_names():
    X = images(8, 8)
    assert network(Conv(4, 3)).fit(nnet.to_bc01(X), y, 0.01, 1).params()[0].shape == (1, 4, 3, 3)
    signals = network(Conv(4, (1, 3))).fit(X[:, :, None], y, 0.01, 1)
    assert signals.params()[0].shape == (8, 4, 1, 3)


@pytest.mark.parametrize(
    "shape", [(8, 8, 1), (8, 8, 3), (28, 28, 1), (28, 20, 1), (32, 32, 3), (9, 12, 4), (64, 8, 3)]
)
def test_channels_last(shape):
    X = images(*shape)
    for layers in (
        [Conv(4, 3), Pool(2, 2)],
        [Residual([Conv(shape[0], (3, 3))])],
        [Conv(4, (3, 1)), Pool((1, 2), 1)],
    ):
        refused = network(*layers)
        with pytest.raises(
            ValueError, match=rf"{shape[0]} channels .* {shape[2]} pixels wide.*to_bc01"
        ):
            refused.fit(X, y)
    network(Conv(4, 3), Pool(2, 2)).fit(nnet.to_bc01(X, "NHWC"), y, 0.01, 1)


@pytest.mark.parametrize("shape", [(16, 16, 3), (16, 12, 4), (28, 28, 1), (28, 20, 1)])
@pytest.mark.parametrize("layers", [[Conv(4, 1)], [GlobalAveragePool()]], ids=str)
def test_channels_last_without_wide_windows(layers, shape):
    with pytest.raises(ValueError, match="to_bc01"):
        network(*copy.deepcopy(layers)).fit(images(*shape), y)


def test_columns_that_are_square():
    X = images(16, 16, 1)
    with pytest.raises(ValueError, match="to_bc01"):
        network(Conv(4, (5, 1))).fit(X, y)
    network(Conv(4, (5, 1))).build((16, 16, 1), 3).fit(X, y, 0.01, 1)


@pytest.mark.parametrize(
    "layers, name",
    [
        ([Conv(4, 3)], "layer 0 (Conv)"),
        ([GlobalAveragePool()], "layer 0 (GlobalAveragePool)"),
        ([Standardize(0, 2), Activation("relu"), Pool(2, 2)], "layer 2 (Pool)"),
        ([Sequential([Residual([Conv(4, 3)])])], "layer 0.0.0 (Conv)"),
    ],
)
@pytest.mark.parametrize(
    "n_features, shape",
    [
        (784, "1, 28, 28"),
        (64, "1, 8, 8"),
        (3072, "3, 32, 32"),
        (128, "n_channels, img_h, img_w"),
        (27, "n_channels, img_h, img_w"),
    ],
)
def test_rows_of_pixels(layers, name, n_features, shape):
    for use in (lambda n: n.fit(images(n_features), y), lambda n: n.build((n_features,))):
        with pytest.raises(ValueError) as caught:
            use(network(*copy.deepcopy(layers)))
        assert str(caught.value) == (
            f"X has shape (n_imgs, {n_features}), expected (n_imgs, n_channels, img_h, img_w) for "
            f"{name}: X.reshape(-1, {shape}); for signals of one channel, X[:, None]"
        )


def test_rows_of_pixels_that_a_layer_makes_images_of():
    class Square(Flatten):
        def fprop(self, input):
            return input.reshape(self.output_shape(input.shape))

        def bprop(self, output_grad):
            return output_grad.reshape(len(output_grad), -1)

        def output_shape(self, input_shape):
            return (input_shape[0], 1, 8, 8)

    class OfRows(Conv):
        def fprop(self, input):
            return super().fprop(input.reshape(len(input), 1, 8, 8))

        def _setup(self, input_shape, rng):
            super()._setup((len(input_shape), 1, 8, 8), rng)

        def array_shapes(self, input_shape):
            return super().array_shapes((input_shape[0], 1, 8, 8))

        def output_shape(self, input_shape):
            return super().output_shape((input_shape[0], 1, 8, 8))

    for layers in ([Square(), Conv(4, 3)], [OfRows(4, 3)]):
        network(*layers).fit(images(64), y, 0.01, 1)
    with pytest.raises(ValueError, match=r"layer 1 \(Conv\) .*: expected 4 axes"):
        network(Linear(5), Conv(4, 3)).fit(images(64), y)


# --- accepted -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        (64, 4, 4),
        (64, 4, 3),
        (512, 7, 3),
        (16, 5, 4),
        (128, 2, 3),
        (3, 8, 8),
        (3, 4, 4),
        (8, 7, 3),
        (7, 9, 3),
        (32, 8, 2),
        (4, 9, 9),
    ],
)
def test_feature_maps(shape):
    X = images(*shape)
    trained = network(Conv(4, 3), Activation("relu"), Pool(2, 1)).fit(X, y, 0.01, 1)
    assert trained.params()[0].shape == (shape[0], 4, 3, 3)


@pytest.mark.parametrize(
    "shape, layers",
    [
        ((3, 1, 20), [Conv(4, (1, 5)), Pool((1, 2), (1, 2))]),
        ((16, 1, 3), [Conv(4, (1, 3))]),
        ((3, 20, 1), [Conv(4, (5, 1)), Pool((2, 1), (2, 1))]),
        ((16, 20, 1), [Conv(4, (5, 1)), Pool((2, 1), (2, 1))]),
        ((16, 20, 1), [Conv(4, 1), Pool((2, 1), (2, 1)), GlobalAveragePool()]),
        ((512, 7, 1), [Conv(4, 1)]),
        ((6, 6, 1), [Conv(4, 1)]),
        ((64, 1, 1), [Conv(4, 1)]),
        ((20, 5), [Conv(4, 3)]),
        ((7, 3), [Conv(4, 3)]),
        ((300, 50), [Conv(4, 9)]),
        ((28, 29), [Conv(4, 3)]),
    ],
    ids=str,
)
def test_signals_of_any_form(shape, layers):
    trained = network(*layers).fit(images(*shape), y, 0.01, 1)
    assert trained.params()[0].shape[0] == shape[0]


@pytest.mark.parametrize(
    "layer", [Pad(1), Upsample(2), GlobalMaxPool(), ConvTranspose(2, 1)], ids=repr
)
def test_other_layers_that_take_images(layer):
    """Square images without a channel axis are no signals, and rows no images."""
    with pytest.raises(ValueError, match="to_bc01"):
        network(layer).fit(images(8, 8), y)
    with pytest.raises(ValueError, match=r"X.reshape\(-1, 1, 8, 8\)"):
        network(Dropout(0.1), layer).fit(images(64), y)
    network(Dropout(0.1), layer).fit(images(3, 8), y, 0.01, 1)


@pytest.mark.parametrize("shape", [(8, 8), (28, 28, 3), (16, 16, 1), (2, 2), (20,)])
def test_networks_without_windows_take_anything(shape):
    network(Standardize(0, 2), Activation("tanh")).fit(images(*shape), y, 0.01, 1)


PER_CHANNEL = {
    "BatchNorm": [BatchNorm()],
    "GroupNorm": [GroupNorm(2)],
    "Standardize": [Standardize()],
    "Dropout": [Dropout(0.1, channels=True)],
    "softmax": [Activation("softmax")],
    "later": [Standardize(0, 2), Activation("relu"), Dropout(0.1), BatchNorm()],
    "nested": [Sequential([Residual([Activation("relu"), BatchNorm()])])],
    "shortcut": [Residual([], [BatchNorm()])],
    "branch": [Parallel([[Activation("relu")], [BatchNorm()]])],
    "beside rows": [Parallel([[Flatten(), Linear(4)], [BatchNorm(), Flatten()]], "concat")],
}


@pytest.mark.parametrize("name", PER_CHANNEL)
def test_channels_matter_without_windows_too(name):
    """Images need them in their place; rows of features, and signals, are fine."""
    layers = PER_CHANNEL[name]
    for shape in [(8, 8, 3), (8, 8, 1), (28, 20, 1), (8, 8)]:
        refused = network(*copy.deepcopy(layers))
        with pytest.raises(ValueError, match=r"nnet\.to_bc01\(X\) gives images their channel axis"):
            refused.fit(images(*shape), y)
        assert refused.input_shape_ is None
    rows = [] if name == "Dropout" else [(6,), (64,)]  # which are not for whole channels
    for shape in [(4, 8, 8), (8, 20), *rows]:
        network(*copy.deepcopy(layers)).fit(images(*shape), y, 0.01, 1)
    network(*copy.deepcopy(layers)).build((8, 8, 3), 3).fit(images(8, 8, 3), y, 0.01, 1)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3), (28, 28, 1)])
@pytest.mark.parametrize(
    "layers",
    [
        [Flatten(), Linear(6), BatchNorm(), GroupNorm(2), Activation("softmax")],
        [Activation("relu"), Sequential([Sequential([Flatten()]), BatchNorm()]), BatchNorm()],
        [Parallel([[Flatten(), BatchNorm()], [Flatten(), Linear(4)]], "concat"), BatchNorm()],
    ],
    ids=str,
)
def test_features_of_flattened_images_are_no_channels(layers, shape):
    network(*copy.deepcopy(layers)).fit(images(*shape), y, 0.01, 1)


def test_what_a_network_was_built_for(tmp_path):
    pytest.importorskip("safetensors")
    X = images(16, 9, 4)
    built = network(Conv(4, 3), Pool(2, 2)).build((16, 9, 4), 3)
    built.save(tmp_path / "file")
    for trained in (built, copy.deepcopy(built), NeuralNetwork.load(tmp_path / "file")):
        trained.check_gradients(X[:2], y[:2], max_checks=1)
        assert trained.fit(X, y, 0.01, 1).predict(X).shape == (9,)
        with pytest.raises(ValueError, match="to_bc01"):
            trained.fit(images(16, 9, 3), y)
        with pytest.raises(ValueError, match="to_bc01"):
            trained.fit(images(17, 9, 4), y)
