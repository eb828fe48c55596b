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
        ((4, 9), None, (4, 9), (4, 9)),
        ((9, 4), None, (4, 9), (4, 9)),
        ((130, 1), None, (1, 130), (1, 130)),
        ((3, 8, 7), None, (8, 7, 3), (3, 8, 7)),
        ((8, 7, 3), None, (3, 8, 7), (3, 8, 7)),
        ((8, 7, 5), None, (5, 8, 7), (5, 8, 7)),
        ((3, 8, 3), None, (3, 3, 8), (3, 3, 8)),
        ((3, 8, 3), None, (3, 8, 3), (3, 8, 3)),
        ((7, 9, 1), None, (1, 7, 9), (1, 7, 9)),
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
    for method in ("predict", "predict_proba"):
        with pytest.warns(UserWarning, match="X does not have valid feature names, but CNNClass"):
            getattr(classifier, method)(X)


@pytest.mark.parametrize(
    "shape, input_shape", [((64,), None), ((8, 7, 3), None), ((8, 7), None), ((30,), None)]
)
def test_plain_arrays_are_checked_by_the_network_alone(shape, input_shape, monkeypatch):
    """scikit-learn's checks take as long as a prediction."""
    X = images(*shape)
    classifier = fitted(X)
    expected = classifier.predict_proba(X.tolist())
    item = classifier.network_.input_shape_
    plain = [classifier._inputs(X)]
    if item[0] == 1 or len(shape) == 1:
        plain += [X, X.reshape(N, -1)]
    monkeypatch.setattr(CNNClassifier, "_validated", None)
    for each in plain:
        assert np.allclose(classifier.predict_proba(each), expected, rtol=1e-5)
    monkeypatch.undo()
    for each in (X, X.reshape(N, -1)):
        assert np.allclose(classifier.predict_proba(each), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="0 sample"):
        classifier.predict(X[:0])


@pytest.mark.parametrize(
    "X, options, message",
    [
        (images(64), {"input_shape": (3, 3)}, r"X has shape .40, 64., expected .n_imgs, 3, 3. or"),
        (
            images(3, 8, 3),
            {},
            r"several layouts, pass input_shape=\(3, 8, 3\) if the channels come first, "
            r"input_shape=\(3, 3, 8\) if they come last .np.moveaxis\(X, -1, 1\) puts",
        ),
        (images(9, 8, 7), {}, r"input_shape=\(9, 8, 7\) if .* first, input_shape=\(7, 9, 8\)"),
        (images(8, 8), {"input_shape": (8, 8)}, r"expected input_shape=\(1, 8, 8\) for grey"),
        (images(64), {"input_shape": (8, 8)}, r"expected input_shape=\(1, 8, 8\) for grey"),
        (images(16), {"input_shape": ()}, r"input_shape is \(\), expected 1 to 3 lengths"),
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


def test_rows_are_in_the_order_of_what_fit_had():
    X = images(8, 7, 5)
    moved = fitted(X, input_shape=(5, 8, 7))
    expected = moved.predict_proba(X)
    first = np.ascontiguousarray(np.moveaxis(X, -1, 1))
    assert np.array_equal(fitted(first, input_shape=(5, 8, 7)).predict_proba(first), expected)
    assert np.array_equal(moved.predict_proba(first), expected)
    assert np.array_equal(moved.predict_proba(X.reshape(N, -1)), expected)
    rows = first.reshape(N, -1)
    assert np.array_equal(fitted(rows, input_shape=(5, 8, 7)).predict_proba(X), expected)


@pytest.mark.parametrize(
    "shape, options, message",
    [
        ((12, 14), {"input_shape": (12, 14)}, r"12 channels and 14 values: .*=\(1, 12, 14\);"),
        ((168,), {"input_shape": (12, 14)}, r"12 channels and 14 values: .*=\(1, 12, 14\);"),
        ((40, 22), {"input_shape": (40, 22)}, r"signals with channels last \(22, 40\), and X of"),
        ((40, 3), {}, r"without convolutions: for signals input_shape=\(40, 3\) .*\(3, 40\) with"),
        ((40, 3), {"layers": "conv4-3x3"}, r"images of 1 channel and 40 x 3 pixels: for signals"),
        ((5, 28), {}, r"without convolutions: .*; for images \(1, 5, 28\)"),
        ((2, 5, 28), {}, r"without convolutions: if that is meant, input_shape=\(2, 5, 28\)"),
        ((1, 28), {}, r"1 x 28 pixels: for signals input_shape=\(1, 28\)"),
        ((12, 12, 5), {"input_shape": (12, 12, 5)}, r"come last input_shape=\(5, 12, 12\), and X"),
        ((720,), {"input_shape": (12, 12, 5)}, r"\(5, 12, 12\), and X of shape \(n_imgs, 12, 12,"),
        ((192,), {}, r"colour images input_shape=\(3, 8, 8\), or \(8, 8, 3\) .*signals \(1, 192\)"),
        ((3072,), {}, r"signals of 1 channel and 3072 values: .* input_shape=\(3, 32, 32\)"),
    ],
)
def test_what_could_mean_something_else_is_warned_of(shape, options, message):
    """All these trained something else than was meant, without a word."""
    with pytest.warns(UserWarning, match=rf"^X of shape \(40, {shape[0]}.*{message}") as caught:
        fitted(images(*shape), **options)
    assert len(caught) == 1 and caught[0].filename == __file__


@pytest.mark.parametrize(
    "shape, options",
    [
        ((12, 14), {"input_shape": (1, 12, 14)}),
        ((40, 3), {"input_shape": (3, 40)}),
        ((40, 3), {"layers": "linear8,relu", "input_shape": (1, 40, 3)}),
        ((2, 5, 28), {"input_shape": (2, 5, 28)}),
        ((2, 5, 28), {"layers": "linear8,relu"}),
        ((12, 12, 5), {"input_shape": (5, 12, 12)}),
        ((192,), {"input_shape": (8, 8, 3)}),
        ((192,), {"input_shape": (1, 192)}),
        ((192,), {"layers": "linear8,relu"}),
        ((147,), {}),
    ],
)
def test_what_the_warning_says_is_taken(shape, options):
    fitted(images(*shape), **options)


@pytest.mark.parametrize(
    "shape, input_shape, text",
    [
        ((64,), None, "images of 1 channel and 8 x 8 pixels"),
        ((30,), None, "rows of 30 features"),
        ((130,), (2, 65), "signals of 2 channels and 65 values"),
        ((8, 7, 3), None, "images of 3 channels and 8 x 7 pixels"),
    ],
)
def test_verbose_says_how_X_is_read(shape, input_shape, text, capsys):
    fitted(images(*shape), input_shape=input_shape, verbose=True)
    line = capsys.readouterr().out.splitlines()[0]
    assert line == f"X of shape {(N, *shape)} is read as {text}"


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
