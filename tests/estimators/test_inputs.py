"""Which axes of X are what."""

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.6")

from nnet import Activation, CNNClassifier, Conv, Linear, LogRegression
from nnet.estimators.inputs import find_inputs

N = 40
Y = np.arange(N) % 2


def images(*shape, dtype=np.float32):
    return (np.random.default_rng(0).random((N, *shape)) * 255).astype(dtype)


def fitted(X, layers=None, **options):
    return CNNClassifier(layers, max_iter=2, random_state=0, **options).fit(X, Y)


@pytest.mark.parametrize(
    "shape, layers, input_shape, image_shape",
    [
        ((64,), None, None, (1, 8, 8)),
        ((36,), None, None, (1, 6, 6)),
        ((25,), None, None, (25,)),
        ((9,), "conv4-3x3", None, (1, 3, 3)),
        ((3,), None, None, (3,)),
        ((30,), None, None, (30,)),
        ((30,), "conv4-9", None, (1, 30)),
        ((1,), None, None, (1,)),
        ((130,), None, None, (1, 130)),
        ((64,), "linear8,relu", None, (64,)),
        ((64,), [Linear(4), Activation("relu")], None, (64,)),
        ((64,), None, (64,), (64,)),
        ((64,), None, 64, (64,)),
        ((64,), None, (4, 16), (4, 16)),
        ((64,), None, (4, 4, 4), (4, 4, 4)),
        ((7, 9), None, None, (1, 7, 9)),
        ((7, 9), None, (1, 7, 9), (1, 7, 9)),
        ((7, 9), None, (7, 9), (7, 9)),
        ((3, 8, 7), None, None, (3, 8, 7)),
        ((8, 7, 3), None, None, (3, 8, 7)),
        ((9, 8, 7), None, (9, 8, 7), (9, 8, 7)),
        ((147,), None, (7, 7, 3), (3, 7, 7)),
        ((147,), None, (3, 7, 7), (3, 7, 7)),
    ],
)
def test_shapes(shape, layers, input_shape, image_shape):
    X = images(*shape)
    classifier = fitted(X, layers, input_shape=input_shape)
    assert classifier.network_.input_shape_ == image_shape
    assert classifier.n_features_in_ == X[0].size
    flat = X.reshape(N, -1)
    assert np.array_equal(classifier.predict_proba(flat), classifier.predict_proba(X))


def test_channels_at_the_end_are_those_in_front():
    X = images(3, 8, 7)
    last = np.ascontiguousarray(X.transpose(0, 2, 3, 1))
    expected = fitted(X).predict_proba(X)
    assert np.array_equal(fitted(last).predict_proba(last), expected)
    flat = last.reshape(N, -1)
    assert np.array_equal(fitted(flat, input_shape=(8, 7, 3)).predict_proba(flat), expected)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32", "float64"])
def test_dtypes_are_those_of_the_network(dtype):
    X = images(8, 8, dtype=dtype)
    classifier = fitted(X)
    expected = np.float64 if dtype == "float64" else np.float32
    assert classifier.network_.dtype_ == classifier.predict_proba(X).dtype == expected


def test_pixels_have_any_range():
    """Powers of two: the standardised values have the same bits."""
    X = images(8, 8)
    expected = fitted(X).predict_proba(X)
    assert np.array_equal(fitted(X / 256).predict_proba(X / 256), expected)


def test_data_frames():
    pandas = pytest.importorskip("pandas")
    X = images(36)
    frame = pandas.DataFrame(X, columns=[f"pixel {i}" for i in range(36)])
    y = pandas.Series(np.array(["left", "right"])[Y])
    classifier = CNNClassifier(max_iter=2, random_state=0).fit(frame, y)
    assert list(classifier.feature_names_in_) == list(frame.columns)
    assert np.array_equal(classifier.predict_proba(frame), fitted(X).predict_proba(X))
    with pytest.raises(ValueError, match="feature names"):
        classifier.predict(frame[frame.columns[::-1]])


@pytest.mark.parametrize(
    "X, options, message",
    [
        (images(64), {"input_shape": (3, 3)}, r"X has shape .40, 64., expected .n_imgs, 3, 3. or"),
        (images(3, 8, 3), {}, r"several layouts, pass input_shape=\(n_channels, img_h, img_w\)"),
        (images(9, 8, 7), {}, "several layouts"),
        (images(2, 2, 2, 2), {}, "expected 2 to 4 axes"),
        (images(0, 2), {}, "no empty axis"),
        (images(16), {"input_shape": (2, 2, 2, 2)}, "expected 1 to 3 lengths"),
        (images(8, 8) * np.nan, {}, r"X\[0\] has NaN"),
        (images(12) * np.inf, {}, r"X\[0\] has NaN, infinite"),
    ],
)
def test_refused(X, options, message):
    classifier = CNNClassifier(**options)
    before = dict(vars(classifier))
    with pytest.raises(ValueError, match=message):
        classifier.fit(X, Y)
    assert vars(classifier) == before


@pytest.mark.parametrize("shape", [(63,), (8, 7), (1, 8, 7), (3, 8, 8)])
def test_prediction_wants_the_same_pixels(shape):
    classifier = fitted(images(8, 8))
    with pytest.raises(ValueError, match=r"expecting 64 features|expected .n_imgs, 1, 8, 8. or"):
        classifier.predict(images(*shape))


def test_views_are_not_copied():
    X = images(3, 8, 7)
    assert np.shares_memory(find_inputs(X.shape, None, False)(X), X)
    last = X.transpose(0, 2, 3, 1)
    assert np.shares_memory(find_inputs(last.shape, None, False)(last), X)


def test_given_layers_see_signals():
    layers = [Conv(4, 5), Activation("relu"), Linear(2), LogRegression()]
    X = images(3, 20)
    classifier = fitted(X, [*layers[:2]], input_shape=(3, 20))
    assert classifier.network_.layers[0].W.shape == (3, 4, 1, 5)
    assert layers[0].W is None
