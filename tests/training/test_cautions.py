"""What a training warns of: values of bytes, other units, labels that are probabilities."""

import warnings

import numpy as np
import pytest
from trouble import cnn, images

from nnet import (
    Activation,
    BatchNorm,
    BinaryCrossEntropy,
    CNNClassifier,
    Conv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    GroupNorm,
    Linear,
    LogRegression,
    MeanSquaredError,
    NeuralNetwork,
    Residual,
    Sequential,
    Standardize,
)

X, Y = images()
LARGE = r"X has values up to .*: put Standardize\(\) as the first layer, or"


@pytest.mark.parametrize("layers", [[], [Flatten(), Linear(3)]])
def test_large_values_are_warned_of(layers):
    network = cnn()
    network.layers[:-1] = layers or network.layers[:-1]
    with pytest.warns(
        UserWarning, match=r"X has values up to .*: put Standardize\(\) as the first"
    ):
        network.fit(255 * abs(X), Y, 1e-9, max_iter=1)


@pytest.mark.parametrize("first", [Standardize(), BatchNorm()])
def test_values_that_a_layer_standardises(first):
    network = cnn()
    network.layers.insert(0, first)
    network.fit(255 * abs(X), Y, 1e-9, max_iter=1)
    network.fit(255 * abs(X), Y, 1e-9, max_iter=1, warm_start=True)


BYTES = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8))
CLASSES = np.arange(60) % 3


def conv(*first, loss=None):
    layers = [*first, Conv(3, 3), Activation("relu"), GlobalAveragePool(), Linear(3)]
    return NeuralNetwork([*layers, loss or LogRegression()], rng=0)


@pytest.mark.parametrize("dtype", ["u1", "i4", "i8", "f2", "f4", "f8"])
def test_bytes_of_any_dtype(dtype):
    images = BYTES.astype(dtype)
    images[:30] = 0  # the first ones tell nothing
    for train in (conv().fit, conv().partial_fit):
        with pytest.warns(UserWarning, match=f"{LARGE} X / 255 as X") as caught:
            train(images, CLASSES, learning_rate=1e-9)
        assert [warning.filename for warning in caught] == [__file__]
    batches = [(images[30:], CLASSES[30:]), (images[:30], CLASSES[:30])]
    with pytest.warns(UserWarning, match=LARGE):
        conv().fit(batches, learning_rate=1e-9)
    with pytest.warns(UserWarning, match=f"{LARGE} scale X"):
        conv().fit(9.0 * images, CLASSES, 1e-9)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_bytes_of_an_estimator(method):
    options = {} if method == "fit" else {"classes": range(3)}
    rows = BYTES.reshape(60, -1)
    layers = [Conv(3, 3), Activation("relu"), GlobalAveragePool()]
    with pytest.warns(UserWarning, match=LARGE) as caught:
        getattr(CNNClassifier(layers, max_iter=1), method)(rows, CLASSES, **options)
    assert [warning.filename for warning in caught] == [__file__]
    for made in (None, "conv4-3x3,relu,gap", [Standardize(), *layers]):
        getattr(CNNClassifier(made, max_iter=1), method)(rows, CLASSES, **options)


@pytest.mark.parametrize(
    "first, is_warned",
    [
        ([Dropout(0.1)], True),
        ([Residual([BatchNorm()])], True),  # whose shortcut has them as they are
        ([Conv(2, 3), Activation("relu"), BatchNorm()], True),
        ([Standardize(0, 255)], False),
        ([Dropout(0.1), BatchNorm()], False),
        ([Conv(2, 3), BatchNorm()], False),  # to which the scale of the weights does not matter
        ([Sequential([Conv(2, 3)]), GroupNorm(2)], False),
    ],
    ids=repr,
)
def test_layers_to_which_the_scale_matters(first, is_warned):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        conv(*first).fit(BYTES, CLASSES, 1e-9, 1)
    assert len(caught) == is_warned


def test_a_batch_norm_after_weights_takes_any_scale():
    """So the same is learned of bytes."""
    losses = [
        conv(Conv(4, 3), BatchNorm()).fit(scale * BYTES, CLASSES, 0.1, 5).loss_history_
        for scale in (1 / 255, 1.0)
    ]
    np.testing.assert_allclose(*losses, rtol=0.05)


def test_validation_in_other_units():
    fractions = BYTES / 255
    with pytest.warns(UserWarning, match="validation_data has values up to 255 and X up to 1, exp"):
        conv().fit(fractions, CLASSES, 0.01, 1, validation_data=(BYTES, CLASSES))
    with pytest.warns(UserWarning, match="validation_data has values up to 255"):
        conv().fit(fractions, CLASSES, 0.01, 1, validation_data=[(BYTES, CLASSES)] * 2)
    conv(Standardize()).fit(BYTES, CLASSES, 0.01, 1, validation_data=(BYTES, CLASSES))
    conv().fit(fractions, CLASSES, 0.01, 1, validation_data=(4 * fractions, CLASSES))


ONE_HOT = np.eye(3)[CLASSES]
SOFT = np.random.default_rng(0).dirichlet([1, 1, 1], 60).astype("f4")
IN_PIXELS = np.random.default_rng(0).dirichlet([1, 1, 1], (60, 8, 8))


@pytest.mark.parametrize("labels", [ONE_HOT, ONE_HOT.astype(int), SOFT, ONE_HOT.astype(bool)])
def test_several_labels_that_are_probabilities(labels):
    message = r"the labels of each image sum to 1, .* LogRegression\(\), and y.argmax\(axis=1\)"
    with pytest.warns(UserWarning, match=message):
        conv(loss=BinaryCrossEntropy()).fit(BYTES / 255, labels, 0.1, 1)
    others = np.array(labels)
    others[30] = 1
    conv(loss=BinaryCrossEntropy()).fit(BYTES / 255, others, 0.1, 1)
    conv(loss=BinaryCrossEntropy()).fit(BYTES[:9] / 255, labels[:9], 0.1, 1)  # by chance
    conv(loss=MeanSquaredError()).fit(BYTES / 255, labels, 0.1, 1)


def test_masks_that_complete_each_other():
    network = NeuralNetwork([Conv(3, 3), BinaryCrossEntropy()], rng=0)
    network.fit(BYTES / 255, IN_PIXELS.transpose(0, 3, 1, 2), 0.1, 1)


@pytest.mark.parametrize(
    "labels, remedy",
    [
        (SOFT, r", as y\.argmax\(axis=1\) of probabilities$"),
        (SOFT[:, :, None, None] * np.ones((8, 8)), r", as y\.argmax\(axis=1\) of probabilities$"),
        (IN_PIXELS, r", as y\.argmax\(axis=-1\) of probabilities$"),
        (SOFT[:, 0], r" \(for probabilities of one thing, .* BinaryCrossEntropy\(\); for regr"),
        (SOFT[:, :2], r" \(for probabilities of one thing, .* BinaryCrossEntropy\(\); for regr"),
        (3 * SOFT, r" \(for regression, the last layer is MeanSquaredError\(\)\)$"),
    ],
)
def test_one_label_that_is_a_probability(labels, remedy):
    match = f"^y has fractional values, expected labels{remedy}"
    for call in (conv().fit, conv().partial_fit):
        with pytest.raises(ValueError, match=match):
            call(BYTES / 255, labels)


def test_probabilities_for_an_estimator():
    rows = BYTES.reshape(60, -1)
    estimator = CNNClassifier("linear4", max_iter=1)
    with pytest.raises(ValueError, match=r"sum to 1, .*one class .* as y\.argmax\(axis=1\)$"):
        estimator.fit(rows, SOFT)
    with pytest.warns(UserWarning, match=r"sum to 1, .*y\.argmax\(axis=1\)"):
        estimator.fit(rows, ONE_HOT.astype(int))
