"""NeuralNetwork: the labels and images that it takes, and what it refuses."""

import copy
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from networks import mlp, same, small_cnn, stripes

from nnet import (
    Activation,
    Conv,
    DivergedError,
    Flatten,
    GlobalAveragePool,
    Linear,
    LogRegression,
    MeanSquaredError,
    NeuralNetwork,
    Pool,
)

# --- labels -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["cat", "dog", "heron"]),
        np.array([b"cat", b"dog", b"heron"]),
        np.array([-5, 7, 1000]),
        np.array([3, 200, 7], np.uint8),
        np.array([2.0, 1.0, 9.0]),
        np.array([False, True]),
        np.array(["cat", "dog", "heron"], object),
        ["b", "a", ""],
    ],
)
def test_labels_of_any_kind(labels, rng):
    X, y = stripes(60, rng)
    y = np.asarray(labels)[y % len(labels)] if len(labels) == 3 else np.asarray(labels)[(y > 0) * 1]
    network = small_cnn(n_classes=len(labels))
    network.fit(X, y.tolist() if isinstance(labels, list) else y, max_iter=15, batch_size=10)
    predicted = network.predict(X)
    assert network.error(X, y) == 0
    assert np.array_equal(predicted, y)
    assert predicted.dtype.kind == ("U" if y.dtype.kind == "O" else y.dtype.kind)
    assert np.array_equal(network.classes_, np.unique(y))


def test_unseen_labels(rng):
    X, y = stripes(30, rng)
    network = small_cnn().fit(X, y)
    assert network.error(X[:3], [7, -1, 99]) == 1
    with pytest.raises(TypeError, match="y has dtype <U1, expected labels like int64"):
        network.error(X[:2], ["0", "1"])
    with pytest.raises(ValueError, match=r"validation_data has the label 7, .* fit: \[0, 1, 2\]$"):
        network.fit(X, y, validation_data=(X[:2], [0, 7]))


# --- what is refused ----------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(bad, rng):
    X, y = stripes(20, rng)
    network = small_cnn().fit(X, y, max_iter=1)
    spoilt = X.copy()
    spoilt[13, 0, 2, 2] = bad
    with pytest.raises(ValueError, match=r"X\[13\] has NaN, infinite or too large values"):
        small_cnn().fit(spoilt, y)
    with pytest.raises(ValueError, match=r"X\[13\] has NaN"):
        network.predict(spoilt)
    with pytest.raises(ValueError, match=r"X\[0\] has NaN"):
        network.fit(X, y, validation_data=(spoilt[13:], y[13:]))
    with pytest.raises(ValueError, match="y has NaN"):
        small_cnn().fit(X, np.where(y == 2, bad, y))
    with pytest.raises(ValueError, match=r"y\[2\] has NaN"):
        NeuralNetwork([Flatten(), Linear(1), MeanSquaredError()]).fit(X, np.where(y == 2, bad, y))


def test_too_large_for_float32(rng):
    X, y = stripes(20, rng)
    with pytest.raises(ValueError, match=r"X\[0\] has NaN, infinite or too large values"):
        small_cnn().fit(X, y).predict(np.full((1, 1, 6, 6), 1e300))


@pytest.mark.parametrize("learning_rate", [1e4, 1e30])
def test_divergence_names_the_epoch(learning_rate, rng):
    X, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    network = NeuralNetwork([Linear(4), Linear(1), MeanSquaredError()], rng=0)
    with pytest.raises(DivergedError, match=r"became .* in epoch \d+: try a smaller learning_rate"):
        network.fit(X, y, learning_rate, max_iter=100, batch_size=20)
    assert isinstance(DivergedError(), FloatingPointError)


def test_divergence_of_a_classifier(rng):
    X, y = stripes(40, rng)
    with pytest.raises(DivergedError, match=r"in epoch \d+"):
        small_cnn().fit(X, y, 1e38, max_iter=100)


def test_not_fitted(rng):
    X, y = stripes(20, rng)
    network = small_cnn()
    for method in (network.predict, network.predict_proba, lambda X: network.error(X, y)):
        with pytest.raises(ValueError, match="not fitted yet, expected a call of fit or build"):
            method(X)
    with pytest.raises(ValueError):
        network.fit(X, y, validation_data=(X, y[:3]))
    with pytest.raises(ValueError, match="not fitted yet"):
        network.predict(X)


FIT_ERRORS = [
    ({"y": [0, 1]}, ValueError, r"X has 20 images and y has shape \(2,\)"),
    ({"y": 1}, ValueError, r"y has shape \(\)"),
    ({"X": np.zeros((0, 1, 6, 6)), "y": []}, ValueError, "X has no images"),
    ({"X": np.zeros(20)}, ValueError, r"X has shape \(20,\), expected"),
    ({"X": np.zeros((20, 1, 6, 6), complex)}, TypeError, "X has dtype complex128"),
    ({"X": np.full((20, 4), "a")}, TypeError, "X has dtype <U1"),
    ({"X": np.full((20, 4), None)}, TypeError, "X has dtype object"),
    (
        {"X": np.zeros((20, 36))},
        ValueError,
        r"X has shape \(n_imgs, 36\), .* for layer 0 \(Conv\): X\.reshape\(-1, 1, 6, 6\)$",
    ),
    ({"y": np.zeros(20)}, ValueError, "y has only one class, .*, expected at least 2"),
    (
        {"y": np.arange(20) % 4},
        ValueError,
        r"layer 7 \(LogRegression\) gets \(3,\) .*expected \(4,\) for the 4 classes",
    ),
    ({"y": np.arange(20) / 4}, ValueError, "y has fractional values.*MeanSquaredError"),
    (
        {"y": np.eye(20)},
        ValueError,
        r"y has shape \(n_imgs, 20\), .*y\.argmax\(axis=1\) of one-hot rows",
    ),
    ({"y": [None, "a"] * 10}, TypeError, "y has labels of types .*NoneType"),
    ({"y": np.full(20, np.datetime64(0, "s"))}, TypeError, "y has dtype datetime64"),
    ({"max_iter": 0}, ValueError, "max_iter is 0, expected at least 1"),
    ({"max_iter": 1.5}, TypeError, "max_iter is 1.5"),
    ({"batch_size": 0}, ValueError, "batch_size is 0"),
    ({"learning_rate": np.nan}, ValueError, "learning_rate is nan"),
    (
        {"learning_rate": "0.1"},
        TypeError,
        "learning_rate is '0.1', .*, or a function of the epoch$",
    ),
    ({"learning_rate": lambda epoch: -1}, ValueError, "learning_rate is -1, .* of at least 0$"),
    ({"momentum": 1}, ValueError, "momentum is 1"),
    ({"nesterov": True}, ValueError, "expected a momentum greater than 0"),
    ({"shuffle": "yes"}, TypeError, "shuffle is 'yes'"),
    ({"verbose": 3}, TypeError, "verbose is 3"),
    ({"validation_data": 3}, ValueError, "validation_data is not a pair"),
    (
        {"validation_data": (np.zeros((2, 1, 5, 5)), [0, 1])},
        ValueError,
        r"X has shape \(2, 1, 5, 5\), expected",
    ),
    (
        {"validation_data": (np.zeros((0, 1, 6, 6)), [])},
        ValueError,
        "validation_data: X has no images",
    ),
]


@pytest.mark.parametrize("changes, error, message", FIT_ERRORS)
def test_fit_errors(changes, error, message, rng):
    X, y = stripes(20, rng)
    network = small_cnn()
    with pytest.raises(error, match=message):
        network.fit(**{"X": X, "y": y, **changes})
    assert network.input_shape_ is None


def test_errors_before_any_work_keep_the_old_network(rng):
    X, y = stripes(20, rng)
    network = small_cnn().fit(X, y, max_iter=1)
    probs = network.predict_proba(X)
    for changes in ({"max_iter": 0}, {"y": y[:3]}, {"X": X * np.nan}, {"momentum": 2}):
        with pytest.raises(ValueError):
            network.fit(**{"X": X, "y": y, **changes})
    assert np.array_equal(network.predict_proba(X), probs)


def test_prediction_errors(rng):
    X, y = stripes(20, rng)
    network = small_cnn().fit(X, y, max_iter=1)
    with pytest.raises(
        ValueError, match=r"X has shape \(20, 1, 6, 5\), expected \(n_imgs, 1, 6, 6\)"
    ):
        network.predict(X[..., :5])
    for use in (network.predict, lambda X: network.error(X, y)):
        with pytest.raises(ValueError, match=r"\(n_imgs, 1, 6, 6\): np\.moveaxis\(X, -1, 1\) puts"):
            use(X.transpose(0, 2, 3, 1))
    with pytest.raises(ValueError, match="batch_size is 0"):
        network.predict(X, batch_size=0)
    with pytest.raises(ValueError, match="X has 20 images and y"):
        network.error(X, y[:4])
    with pytest.raises(ValueError, match="X has no images"):
        network.error(X[:0], y[:0])
    regression = NeuralNetwork([Flatten(), Linear(2), MeanSquaredError()]).fit(
        X, X[:, 0, 0, :2], 0.01, 1
    )
    with pytest.raises(ValueError, match=r"y has shape \(20,\), expected \(n_imgs, 2\)"):
        regression.error(X, y)
    with pytest.raises(
        ValueError, match=r"^validation_data: y has shape \(20, 3\), expected \(n_imgs, 2\)"
    ):
        regression.fit(X, X[:, 0, 0, :2], validation_data=(X, X[:, 0, 0, :3]))
    with pytest.raises(ValueError, match=r"^y\[7\] has NaN, infinite or too large values"):
        regression.error(X, np.where(np.arange(20) == 7, 1e300, np.zeros((2, 20))).T)


def test_regression_target_of_wrong_width(rng):
    X, y = stripes(20, rng)
    with pytest.raises(
        ValueError, match=r"layer 2 \(MeanSquaredError\) gets \(2,\) values .*expected \(1,\)"
    ):
        NeuralNetwork([Flatten(), Linear(2), MeanSquaredError()]).fit(X, y)


@pytest.mark.parametrize(
    "layers, error, message",
    [
        ([], ValueError, "no layer has parameters"),
        (
            [Linear(2)],
            ValueError,
            r"layers\[0\] is a Linear, expected the last layer.* to be a loss",
        ),
        (
            [LogRegression(), Linear(2)],
            ValueError,
            r"layers\[0\] is a LogRegression, expected the last",
        ),
        ([Flatten(), LogRegression()], ValueError, "no layer has parameters"),
        (
            [Linear(2), "relu", LogRegression()],
            TypeError,
            r"layers\[1\] is 'relu', expected a layer such as Activation",
        ),
        (
            [Linear, LogRegression()],
            TypeError,
            r"layers\[0\] is .*, expected an object",
        ),
        ([Linear(2), *[Activation("relu")] * 2, LogRegression()], ValueError, "same object twice"),
    ],
)
def test_wrong_lists_of_layers(layers, error, message):
    with pytest.raises(error, match=message):
        NeuralNetwork(layers)


@pytest.mark.parametrize("rng", ["0", 0.5, [1, 2]])
def test_wrong_rng(rng):
    with pytest.raises(
        TypeError, match="rng is .*, expected None, an int, a Generator or a RandomState"
    ):
        mlp(rng)


@pytest.mark.parametrize(
    "layers, message",
    [
        (
            [Linear(2)],
            r"layer 0 \(Linear\) cannot take an input of shape \(20, 1, 6, 6\).*Flatten\(\)",
        ),
        (
            [Conv(2, 3), Linear(2)],
            r"layer 1 \(Linear\) cannot take an input of shape \(20, 2, 6, 6\)",
        ),
        ([Conv(2, 3)], r"layer 1 \(LogRegression\) .* put a Flatten and a Linear layer before it"),
        ([Conv(2, 3, groups=2)], r"layer 0 \(Conv\) .*groups = 2 divides, got 1"),
        ([Conv(2, 9, padding_mode="valid")], r"layer 0 \(Conv\) .*larger than the padded image"),
        ([Conv(2, 3), Pool(2, 7)], r"layer 1 \(Pool\) .*stride 7 is larger than the image"),
        ([Flatten(), Linear(3), Conv(2, 3)], r"layer 2 \(Conv\) .*\(20, 3\): expected 4 axes"),
    ],
)
def test_setup_errors_name_the_layer(layers, message, rng):
    X, y = stripes(20, rng)
    with pytest.raises(ValueError, match=message):
        NeuralNetwork([*layers, LogRegression()]).fit(X, y)


# --- inputs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, expected",
    [
        ("f4", "f4"),
        ("f8", "f8"),
        (">f8", "f8"),
        ("f2", "f4"),
        ("u1", "f4"),
        ("i8", "f4"),
        ("?", "f4"),
    ],
)
def test_parameters_take_the_dtype_of_X(given, expected, rng):
    X, y = stripes(20, rng)
    network = small_cnn().fit((X > 0.5).astype(given), y, max_iter=1)
    assert network.dtype_ == np.dtype(expected)
    assert {param.dtype for param in network.params()} == {np.dtype(expected)}
    assert network.predict_proba(X > 0.5).dtype == np.dtype(expected)


def test_views_read_only_arrays_and_lists(rng):
    X, y = stripes(20, rng)
    expected = small_cnn().fit(X, y, max_iter=2).params()
    backwards = X[::-1, :, ::-1].copy()[::-1, :, ::-1]
    backwards.flags.writeable = False
    for same_X in (backwards, np.asfortranarray(X)):
        assert same(small_cnn().fit(same_X, y, max_iter=2).params(), expected)
    small_cnn().fit(X.tolist(), y.tolist(), max_iter=1)


def test_fit_and_predict_leave_their_arrays_alone(rng):
    X, y = stripes(20, rng)
    X_before, y_before = X.copy(), y.copy()
    small_cnn().fit(X, y, max_iter=1).predict(X)
    assert np.array_equal(X, X_before)
    assert np.array_equal(y, y_before)


def test_predicting_nothing(rng):
    X, y = stripes(20, rng)
    network = small_cnn().fit(X, np.array(["a", "b", "c"])[y], max_iter=1)
    assert network.predict(X[:0]).shape == (0,)
    assert network.predict(X[:0]).dtype == np.dtype("<U1")
    assert network.predict_proba(X[:0]).shape == (0, 3)


@pytest.mark.parametrize("batch_size", [1, 7, 20, 1000])
def test_batch_size_of_predictions(batch_size, rng):
    X, y = stripes(20, rng)
    network = small_cnn().fit(X, y, max_iter=1)
    np.testing.assert_allclose(
        network.predict_proba(X, batch_size), network.predict_proba(X), rtol=1e-5
    )


def test_threads_may_predict_at_the_same_time(rng):
    X, y = stripes(300, rng)
    network = small_cnn().fit(X, y, max_iter=1)
    halves = [X[:150], X[150:]] * 20
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(network.predict_proba, halves))
    assert same(results, [network.predict_proba(half) for half in halves[:2]] * 20)


def test_second_fit_may_see_other_shapes(rng):
    X, y = stripes(20, rng)
    network = small_cnn().fit(X, y, max_iter=1)
    X = np.concatenate([X, X], axis=3)
    network.fit(X.astype(np.float64), np.array(["a", "b", "c"])[y], max_iter=1)
    assert network.predict(X).dtype == np.dtype("<U1")
    assert network.dtype_ == np.float64


def test_a_network_can_be_copied_and_pickled(rng):
    X, y = stripes(20, rng)
    network = small_cnn().fit(X, y, max_iter=1)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert np.array_equal(twin.predict_proba(X), network.predict_proba(X))


def test_a_diverged_network_counts_as_not_fitted():
    X, y = np.random.default_rng(0).standard_normal((200, 6)), np.arange(200) % 2
    network = NeuralNetwork([Linear(2), LogRegression()], rng=0)
    with pytest.raises(DivergedError, match="in epoch 1"):
        network.fit(
            X, y, learning_rate=1e308, max_iter=1, batch_size=100, validation_data=(X * 1e9, y)
        )
    with pytest.raises(ValueError, match="not fitted"):
        network.predict(X)


def test_predictions_that_are_not_finite_are_reported():
    X, y = np.random.default_rng(0).standard_normal((20, 6)), np.arange(20) % 2
    network = NeuralNetwork([Linear(2), LogRegression()], rng=0).fit(X, y, max_iter=1)
    network.params()[0][:] = np.nan
    with pytest.raises(DivergedError, match="NaN or infinite"):
        network.predict(X)


def test_a_callback_that_cannot_be_called_is_refused_first():
    with pytest.raises(TypeError, match="callback is 3, expected"):
        NeuralNetwork([Linear(2), LogRegression()]).fit(np.eye(4), [0, 1, 0, 1], callback=3)


def test_numpy_scalars_in_an_object_array_are_labels():
    X, y = np.eye(4), np.array([np.str_("a"), np.str_("b")] * 2, dtype=object)
    network = NeuralNetwork([Linear(2), LogRegression()], rng=0).fit(X, y)
    assert network.classes_.tolist() == ["a", "b"]


def test_parameters_without_the_mixin_are_refused():
    """They would not be trained."""

    class Half(Flatten):
        def params(self):
            return [np.ones(1)]

    with pytest.raises(TypeError, match=r"layer 0 \(Half\) has params\(\) but is no ParamMixin"):
        NeuralNetwork([Half(), Linear(2), LogRegression()])


@pytest.mark.parametrize("labels", [["a\0", "a"], [b"a\0", b"a"]])
def test_labels_that_numpy_would_cut_are_refused(labels):
    with pytest.raises(ValueError, match="end in a null character"):
        NeuralNetwork([Linear(2), LogRegression()]).fit(np.eye(4), labels * 2)


@pytest.mark.parametrize("options", [{"eps": 0}, {"eps": -1}, {"max_checks": 0}])
def test_checks_of_gradients_that_check_nothing(options, rng):
    X, y = stripes(6, rng)
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        small_cnn().check_gradients(X, y, **options)


def test_one_large_image_leaves_no_memory_behind():
    layers = [Conv(8, 3), Activation("relu"), GlobalAveragePool(), Linear(2), LogRegression()]
    network = NeuralNetwork(layers, rng=0).build((1, 1200, 1200))
    image = np.zeros((1, 1, 1200, 1200), np.float32)
    tracemalloc.start()
    try:
        network.predict(image)
        activation = 8 * image.nbytes  # the kernels keep less, for the next call
        assert tracemalloc.get_traced_memory()[0] < activation // 2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["epochs", "lr", "validation_split", "early_stopping"])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_names_of_other_libraries(name, method, rng):
    X, y = stripes(20, rng)
    with pytest.raises(TypeError, match=f"^{method} has no argument '{name}', expected [a-z]"):
        getattr(small_cnn(), method)(X, y, **{name: 5})
