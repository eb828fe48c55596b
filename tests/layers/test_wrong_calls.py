"""Arrays that do not fit a layer are refused by their names, before any work."""

import copy
import re

import numpy as np
import pytest

from nnet import (
    Activation,
    BatchNorm,
    BinaryCrossEntropy,
    Conv,
    ConvTranspose,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    GroupNorm,
    Huber,
    Linear,
    LogRegression,
    MeanAbsoluteError,
    MeanSquaredError,
    Pad,
    Parallel,
    Pool,
    Residual,
    SeparableConv,
    Standardize,
    Upsample,
)

IMAGES = (2, 4, 6, 5)
LAYERS = [
    (ConvTranspose(3, 3, 2), IMAGES),
    (Linear(3), (2, 4)),
    (Dropout(), IMAGES),
    (Dropout(0.0), IMAGES),
    (Dropout(channels=True), IMAGES),
    (Pad(1), IMAGES),
    (Pad(1, "reflect"), IMAGES),
    (Upsample(2), IMAGES),
    (Upsample((1, 2), "bilinear"), IMAGES),
    (Activation("softmax"), IMAGES),
    (Pool(2, 2), IMAGES),
    (Pool(2, 2, mode="avg"), IMAGES),
    (GlobalMaxPool(), IMAGES),
    (GlobalAveragePool(), IMAGES),
    (Standardize(0.5, 2.0), IMAGES),
    (Standardize(), IMAGES),
    (Flatten(), IMAGES),
    (Parallel([[], []]), IMAGES),
    (Parallel([[], []], "concat"), IMAGES),
    (LogRegression(), IMAGES),
    (BinaryCrossEntropy(), IMAGES),
]
LOSSES = [MeanSquaredError(), MeanAbsoluteError(), Huber(0.5), BinaryCrossEntropy()]


def prepared(layer, shape):
    layer = copy.deepcopy(layer)
    layer._setup(shape, np.random.default_rng(0))
    return layer


def other_shapes(shape):
    """Of which some can be broadcast, have as many values, or have as many images."""
    n_imgs, n_channels, *rest = shape
    return [
        (1,) * len(shape),
        (n_imgs + 1, n_channels, *rest),
        (n_imgs, 1, *rest),
        (n_imgs // 2, 2 * n_channels, *rest),
        (*shape[:-1], 2 * shape[-1]),
        (*shape, 1),
        (n_imgs,),
    ]


@pytest.mark.parametrize("layer, shape", LAYERS, ids=lambda value: str(value))
def test_gradients_of_another_shape_or_dtype(layer, shape):
    layer = prepared(layer, shape)
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    output = layer.fprop(x)
    for other in other_shapes(output.shape):
        message = f"output_grad has shape {other}, expected {output.shape}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            layer.bprop(np.ones(other, np.float32))
    with pytest.raises(TypeError, match="^output_grad has dtype float64, expected float32$"):
        layer.bprop(np.ones(output.shape))
    with pytest.raises(TypeError, match="^output_grad is a list, expected a NumPy array$"):
        layer.bprop(output.tolist())
    assert layer.bprop(np.ones_like(output)).shape == shape


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_targets_of_another_shape(loss):
    x = np.zeros((2, 3), np.float32)
    for other in other_shapes(x.shape):
        message = f"^{re.escape(f'target has shape {other}, expected (2, 3)')}$"
        for method in (loss.compare, loss.loss, loss.input_grad, loss.errors):
            with pytest.raises(ValueError, match=message):
                method(x, np.zeros(other, np.float32))
    with pytest.raises(TypeError, match="target has dtype float64.* expected"):
        loss.compare(x, np.zeros((2, 3)))
    with pytest.raises(TypeError, match="has dtype int64, expected"):
        loss.compare(x.astype(np.int64), np.zeros((2, 3), np.int64))


def test_labels_of_another_shape():
    loss, probabilities = LogRegression(), np.ones((4, 3), np.float32)
    for shape in ((1,), (4, 1), (5,)):
        with pytest.raises(ValueError, match=r"^target has shape .*, expected \(4,\)$"):
            loss.errors(probabilities, np.zeros(shape, np.intp))


@pytest.mark.parametrize(
    "layer",
    [
        Dropout(),
        Dropout(0.0),
        Pad(1),
        Upsample(2),
        Upsample(2, "bilinear"),
        Standardize(0.5, 2.0),
        Standardize(),
        Activation("softmax"),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["int64", "float16", "complex64"])
def test_other_dtypes(layer, dtype):
    layer = prepared(layer, IMAGES)
    with pytest.raises(TypeError, match=f"^input has dtype {dtype}, expected float32 or float64$"):
        layer.fprop(np.ones(IMAGES, dtype))


@pytest.mark.parametrize(
    "layer",
    [*dict(LAYERS), Conv(3, 3), BatchNorm(), GroupNorm(2), SeparableConv(3, 3), Residual([Pad(0)])],
    ids=str,
)
def test_lists(layer):
    layer = prepared(layer, dict(LAYERS).get(layer, IMAGES))
    with pytest.raises(TypeError, match="^(input|scores) is a list, expected a NumPy array$"):
        layer.fprop([[1.0, 2.0]])


@pytest.mark.parametrize(
    "layer", [Pad(1), Upsample(2), ConvTranspose(3, 3), Dropout(channels=True)], ids=str
)
def test_axes(layer):
    layer = prepared(layer, IMAGES)
    with pytest.raises(ValueError, match=r"^expected 4 axes .*, got shape \(2, 4, 30\)$"):
        layer.fprop(np.ones((2, 4, 30), np.float32))


def test_what_a_transposed_convolution_is_given():
    layer = prepared(ConvTranspose(3, 3, 2), IMAGES)
    with pytest.raises(
        ValueError, match=r"^input has shape \(2, 5, 6, 5\), expected \(2, 4, 6, 5\)$"
    ):
        layer.fprop(np.ones((2, 5, 6, 5), np.float32))
    with pytest.raises(TypeError, match="^input has dtype float64, expected float32$"):
        layer.fprop(np.ones(IMAGES))


@pytest.mark.parametrize(
    "layer",
    [
        Conv(3, 3),
        ConvTranspose(3, 3),
        DepthwiseConv(3),
        SeparableConv(3, 3),
        BatchNorm(),
        GroupNorm(2),
        Linear(3),
        Standardize(),
    ],
    ids=str,
)
def test_layers_that_are_not_set_up(layer):
    shape = IMAGES[:2] if isinstance(layer, Linear) else IMAGES
    with pytest.raises(ValueError, match="has no .* yet, expected a call of fit"):
        copy.deepcopy(layer).fprop(np.ones(shape, np.float32))
