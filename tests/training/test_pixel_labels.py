"""Targets with more axes: labels of pixels and signals, several labels at once."""

import copy

import numpy as np
import pytest
from networks import check
from numpy.testing import assert_allclose, assert_array_equal

from nnet import (
    Activation,
    BinaryCrossEntropy,
    Conv,
    Flatten,
    Huber,
    Layer,
    Linear,
    LogRegression,
    LossMixin,
    MeanSquaredError,
    NeuralNetwork,
)
from nnet.training.data import as_labels


def segmenter(n_classes=3, **options):
    layers = [Conv(8, 3), Activation("relu"), Conv(n_classes, 1)]
    return NeuralNetwork([*layers, LogRegression(**options)], rng=0)


def patches(n_imgs, rng, dtype=np.float32):
    """Images of one channel whose pixels are dark, grey or bright, and which they are."""
    y = rng.integers(0, 3, (n_imgs, 6, 7))
    return (y + rng.normal(scale=0.1, size=y.shape))[:, None].astype(dtype) - 1, y


# --- segmentation -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [[0, 1, 2], [-5, 3, 300], ["ground", "sky", "tree"], [b"a", b"b", b"cd"], [1.0, 2, 4]]
)
def test_labels_of_pixels(names, rng, dtype):
    X, indices = patches(40, rng, dtype)
    y = np.array(names)[indices]
    network = segmenter().fit(X, y, 0.5, 15, 8, momentum=0.9, validation_data=(X[:9], y[:9]))
    assert_array_equal(network.classes_, names)
    assert network.target_shape_ == (6, 7)
    labels, probabilities = network.predict(X), network.predict_proba(X)
    assert labels.shape == y.shape
    assert labels.dtype == network.classes_.dtype
    assert probabilities.shape == (40, 3, 6, 7)
    assert probabilities.dtype == dtype
    assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert_array_equal(network.classes_[probabilities.argmax(axis=1)], labels)
    error = np.mean(labels != y)
    assert error < 0.05
    assert network.error(X, y) == pytest.approx(error)
    assert network.score(X, y) == pytest.approx(1 - error)
    assert network.val_error_history_[-1] == pytest.approx(network.error(X[:9], y[:9]))
    assert network.history_["val_accuracy"][-1] == pytest.approx(network.score(X[:9], y[:9]))
    for batch_size in (1, 7):
        assert_array_equal(network.predict_proba(X, batch_size), probabilities)
    assert network.predict(X[:0]).shape == (0, 6, 7)
    assert network.predict_proba(X[:0]).shape == (0, 3, 6, 7)


def test_labels_that_fit_did_not_see(rng):
    X, y = patches(10, rng)
    network = segmenter().fit(X, y, max_iter=1)
    before = network.error(X, y)
    wrong = y.copy()
    wrong[3] = 7
    network_error = network.error(X, wrong)
    assert network_error == pytest.approx(before + np.mean(network.predict(X)[3] == y[3]) / 10)
    for refused in ({"validation_data": (X, wrong)}, {"warm_start": True}):
        with pytest.raises(ValueError, match="has the label 7, expected one of those of fit"):
            network.fit(X, y if "validation_data" in refused else wrong, **refused)


def test_labels_of_signals(rng):
    y = rng.integers(0, 3, (20, 9))
    X = np.stack([y, -y], axis=1) + rng.normal(scale=0.1, size=(20, 2, 9))
    network = NeuralNetwork([Conv(6, 3), Activation("relu"), Conv(3, 1), LogRegression()], rng=0)
    check(network.check_gradients(X, y))
    network.fit(X, y, 0.3, 30, 5, momentum=0.9)
    assert network.target_shape_ == (9,)
    assert network.predict(X).shape == (20, 9)
    assert network.predict_proba(X).shape == (20, 3, 9)
    assert network.predict_proba(X[:0]).shape == (0, 3, 9)
    assert network.error(X, y) == np.mean(network.predict(X) != y) < 0.1
    tall = copy.deepcopy(network).fit(X, y[:, None], 0.3, 30, 5, momentum=0.9)
    assert_array_equal(tall.predict(X), network.predict(X)[:, None])  # with their height of 1


@pytest.mark.parametrize("loss", [MeanSquaredError, Huber, BinaryCrossEntropy])
def test_values_of_signals(loss, rng):
    X, y = rng.normal(size=(8, 2, 9)), rng.integers(0, 2, (8, 3, 9))
    network = NeuralNetwork([Conv(3, 3), loss()], rng=0).fit(X, y, max_iter=1)
    assert network.predict(X).shape == (8, 3, 9)
    assert network.error(X, y) == network.error(X, y)
    tall = NeuralNetwork([Conv(3, 3), loss()], rng=0).fit(X, y[:, :, None], max_iter=1)
    assert_array_equal(tall.predict(X)[:, :, 0], network.predict(X))
    built = NeuralNetwork([Conv(1, 3), loss()], rng=0).build((2, 9))
    assert built.target_shape_ == (1, 9)
    assert built.predict(X).shape == (8, 1, 9)
    flat = NeuralNetwork([Conv(1, 3), loss()], rng=0).fit(X, y[:, 0], max_iter=1)
    assert flat.predict(X).shape == (8, 9)


def test_metrics_see_labels_of_pixels(rng):
    X, indices = patches(12, rng)
    y = np.array(["a", "b", "c"])[indices]
    seen = []

    def share_of_a(y, predictions):
        seen.append((y, predictions))
        return np.mean(predictions == "a")

    network = segmenter().fit(X, y, 0.1, 1, 5, shuffle=False, metrics=[share_of_a])
    ((targets, predictions),) = seen
    assert_array_equal(targets, y)
    assert predictions.shape == y.shape
    assert predictions.dtype == y.dtype
    assert network.history_["share_of_a"] == [np.mean(predictions == "a")]


def test_weights_of_classes_and_parts(rng):
    X, y = patches(12, rng)
    for class_weight in ("balanced", {0: 2}):
        with pytest.raises(ValueError, match="class_weight is given, expected one label per image"):
            segmenter().fit(X, y, class_weight=class_weight)
    network = segmenter().fit(X, y, max_iter=1, validation_fraction=0.25)
    assert len(network.val_loss_history_) == 1
    batches = [(X[:5], y[:5]), (X[5:], y[5:])]
    by_batch = segmenter().fit(batches, max_iter=2)
    for a, b in zip(by_batch.params(), segmenter().fit(X, y, None, 2, 12).params()):
        assert a.shape == b.shape
    assert by_batch.target_shape_ == (6, 7)
    with pytest.raises(ValueError, match=r"y of batch 1 has shape \(7, 7, 6\), expected \(n_imgs"):
        segmenter().fit([batches[0], (X[5:], y[5:].swapaxes(1, 2))])


def test_partial_fit(rng):
    X, y = patches(12, rng)
    network = segmenter(4)
    for _ in range(2):
        network.partial_fit(X, y, classes=[0, 1, 2, 9])
    assert network.classes_.tolist() == [0, 1, 2, 9]
    assert network.predict(X).shape == y.shape


# --- shapes that do not fit ---------------------------------------------------------------


@pytest.mark.parametrize(
    "y, message",
    [
        (
            lambda y: y[:, 0, 0],
            r"gets \(3, 6, 7\) .* expected \(3,\) for the 3 classes of y: put a F",
        ),
        (lambda y: y[:, :, :5], r"expected \(3, 6, 5\) for the 3 classes of y$"),
        (lambda y: y[:, 0], r"gets \(3, 6, 7\) .* expected \(3, 7\) for the 3 classes of y$"),
        (lambda y: np.minimum(y, 1), r"gets \(3, 6, 7\) .* expected \(2, 6, 7\) for the 2 classes"),
        (lambda y: y[:5], r"X has 12 images and y has shape \(5, 6, 7\)"),
        (lambda y: y * 0, r"y has only one class, 0, expected at least 2"),
        (lambda y: y + 0.5, "y has fractional values, expected labels"),
        (lambda y: np.where(y == 1, np.nan, y), "y has NaN or infinite values"),
    ],
)
def test_labels_that_do_not_fit(y, message, rng):
    X, labels = patches(12, rng)
    network = segmenter().fit(X, labels, max_iter=1)
    before = network.predict_proba(X)
    with pytest.raises(ValueError, match=message):
        network.fit(X, y(labels))
    assert_array_equal(network.predict_proba(X), before)


SEVERAL = r"; for several labels at once, the last layer is BinaryCrossEntropy\(\)$"


@pytest.mark.parametrize(
    "y, message",
    [
        (np.arange(8)[:, None] % 2, r", as y\.ravel\(\)$"),
        (np.eye(8), r", as y\.argmax\(axis=1\) of one-hot rows$"),
        (np.eye(8, dtype=bool), r", as y\.argmax\(axis=1\) of one-hot rows$"),
        (np.triu(np.ones((8, 8), int)), SEVERAL),
        (np.arange(64).reshape(8, 8) % 3, "$"),
        (np.eye(8)[:, :, None], "$"),
    ],
)
def test_one_label_for_each_image(y, message, rng):
    X = rng.normal(size=(8, 4))
    network = NeuralNetwork([Linear(8), LogRegression()], rng=0)
    message = rf"\(n_imgs,\){message}"
    with pytest.raises(ValueError, match="expected one label per image: .*" + message):
        network.fit(X, y)
    network.fit(X, np.arange(8), max_iter=1)
    for call in (network.error, lambda X, y: network.fit(X, np.arange(8), validation_data=(X, y))):
        with pytest.raises(ValueError, match=r"y has shape \(8, .*per image: .*" + message):
            call(X, y)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda y: y[:, None], r"as y\[:, 0\]$"),
        (lambda y: y[..., None], r"as y\[\.\.\., 0\]$"),
        (lambda y: np.moveaxis(np.eye(3)[y], -1, 1), r"as y\.argmax\(axis=1\) of one-hot pixels$"),
        (lambda y: np.eye(3, dtype=int)[y], r"as y\.argmax\(axis=-1\) of one-hot pixels$"),
        (lambda y: np.eye(2)[y % 2], r"as y\.argmax\(axis=-1\) of one-hot pixels$"),
        (lambda y: np.stack([y > 0, y > 1], 1), SEVERAL),
        (lambda y: np.stack([y, y], 1), r"for the 3 classes of y$|7\)$"),
    ],
)
def test_one_label_for_each_pixel(change, message, rng):
    X, y = patches(12, rng)
    with pytest.raises(
        ValueError, match=r"^layer . \(LogRegression\) gets \(3, 6, 7\) .*" + message
    ):
        segmenter().fit(X, change(y), max_iter=1)
    with pytest.raises(ValueError, match="gets .*" + message):
        segmenter().fit([(X, change(y))], max_iter=1)
    network = segmenter().fit(X, y, max_iter=1)
    for call in (network.error, lambda X, Y: network.fit(X, y, validation_data=(X, Y))):
        with pytest.raises(ValueError, match=r"y has shape .*\(n_imgs, 6, 7\).*" + message):
            call(X, change(y))


def test_later_shapes_are_those_of_fit(rng):
    X, y = patches(12, rng)
    network = segmenter().fit(X, y, max_iter=1)
    for call in (network.error, network.partial_fit):
        with pytest.raises(ValueError, match=r"y has shape \(12, 6\), expected \(n_imgs, 6, 7\)"):
            call(X, y[:, :, 0])
    network.layers[-2:-2] = [Activation("tanh")]
    assert network.predict(X).shape == y.shape
    network.layers[-1:] = [Flatten(), LogRegression()]
    with pytest.raises(ValueError, match=r"gets \(126,\) .* y has shape \(n_imgs, 6, 7\)"):
        network.predict(X)


# --- labels in lists ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "y, dtype",
    [
        ([[1, 2], [3, 4]], "i8"),
        ([[[True], [False]]], "?"),
        ([(1, 2.0), [3, 4]], "f8"),
        ([["a", "bc"], ["d", np.str_("e")]], "U2"),
        ([[b"a"], [b"bc"]], "S2"),
        ([np.array([1, 2], np.int8), np.array([3, 4], np.int8)], "i1"),
        ([np.array([1, 2], np.int8), [3, 4]], "i8"),
        (np.array([["a", "b"], ["c", "d"]], object), "U1"),
        ([np.array(["a", "b"], object), ["c", "d"]], "U1"),
        (np.array([[1, 2]], object), "i8"),
    ],
)
def test_labels_in_lists_of_lists(y, dtype):
    labels = as_labels(y, target_shape=None)
    assert labels.dtype == np.dtype(dtype)
    assert labels.tolist() == [list(row) for row in np.asarray(y).tolist()]


@pytest.mark.parametrize(
    "y, error, message",
    [
        ([[1, 2], ["a", "b"]], TypeError, r"types \['int', 'str'\]"),
        ([[True, 1]], TypeError, r"types \['bool', 'int'\]"),
        ([np.array([1, 2]), np.array(["a", "b"])], TypeError, r"types \['int64', 'str_'\]"),
        ([np.array([True, True]), [1, 2]], TypeError, r"types \['bool', 'int'\]"),
        (np.array([[1, "a"]], object), TypeError, r"types \['int', 'str'\]"),
        ([[1, None]], TypeError, r"types \['NoneType', 'int'\]"),
        ([[1, 2], [3]], ValueError, "items that differ in shape"),
        ([["a\0", "b"]], ValueError, "end in a null character"),
        ([[2**53 + 1, 1.0]], ValueError, "integers that float64 cannot tell apart"),
        ([np.ma.array([1, 2]), [3, 4]], TypeError, r"y\[0\] is a MaskedArray"),
        (np.ma.array([[1, 2]]), TypeError, "y is a MaskedArray"),
        ([[1, np.nan]], ValueError, "NaN or infinite"),
        (5, ValueError, r"y has shape \(\), expected one label per image"),
    ],
)
def test_what_is_no_labels_in_lists_of_lists(y, error, message):
    with pytest.raises(error, match=message):
        as_labels(y, target_shape=None)


# --- several labels at once -----------------------------------------------------------------


@pytest.mark.parametrize("kind", [bool, int, np.uint8, float])
def test_several_labels(kind, rng, dtype):
    X = rng.normal(size=(60, 4)).astype(dtype)
    y = (X[:, :3] > 0).astype(kind)
    network = NeuralNetwork([Linear(3), BinaryCrossEntropy()], rng=0)
    network.fit(X, y, 1, 30, 10, validation_data=(X[:20], y[:20]))
    labels, probabilities = network.predict(X), network.predict_proba(X)
    assert labels.dtype == np.int64
    assert probabilities.dtype == dtype
    assert labels.shape == probabilities.shape == y.shape
    assert_array_equal(labels, probabilities > 0.5)
    error = np.mean(labels != y)
    assert error < 0.05
    assert network.error(X, y) == pytest.approx(error)
    assert network.score(X, y) == pytest.approx(1 - error)
    assert network.history_["val_accuracy"][-1] == pytest.approx(network.score(X[:20], y[:20]))
    assert network.classes_ is None
    assert network.predict(X[:0]).shape == network.predict_proba(X[:0]).shape == (0, 3)
    for batch_size in (1, 7):
        assert_array_equal(network.predict(X, batch_size), labels)
        assert_array_equal(network.predict_proba(X, batch_size), probabilities)
    again = network.predict_proba(X)
    network.predict_proba(X[::-1])
    assert_array_equal(again, probabilities)  # its memory is the caller's


def test_one_label_of_two(rng):
    X = rng.normal(size=(40, 4))
    y = X[:, 0] > 0
    network = NeuralNetwork([Linear(1), BinaryCrossEntropy()], rng=0).fit(X, y, 1, 20)
    assert network.predict(X).shape == network.predict_proba(X).shape == (40,)
    column = NeuralNetwork([Linear(1), BinaryCrossEntropy()], rng=0).fit(X, y[:, None], 1, 20)
    assert_array_equal(column.predict(X), network.predict(X)[:, None])
    masks = rng.integers(0, 2, (6, 5, 4))
    X = rng.normal(size=(6, 2, 5, 4))
    network = NeuralNetwork([Conv(1, 3), BinaryCrossEntropy()], rng=0).fit(X, masks, max_iter=1)
    assert network.predict(X).shape == network.predict_proba(X).shape == masks.shape
    assert network.error(X, masks) == pytest.approx(np.mean(network.predict(X) != masks))


@pytest.mark.parametrize("bad", [-1, 2, 1.001, 255])
def test_targets_out_of_range(bad, rng):
    X, y = rng.normal(size=(9, 4)), np.zeros((9, 3))
    network = NeuralNetwork([Linear(3), BinaryCrossEntropy()], rng=0).fit(X, y, max_iter=1)
    y[7, 1] = bad
    advice = "$" if bad == 1.001 else r" \(for one label of many, the last layer is LogRegression"
    message = rf"\[7\] has {bad}, expected values from 0 to 1{advice}"
    calls = [
        lambda y: network.fit(X, y),
        lambda y: network.error(X, y),
        lambda y: network.check_gradients(X, y),
        lambda y: network.fit([(X, y)]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="^y( of batch 0)?" + message):
            call(y)
    if bad != 1.001:
        with pytest.raises(ValueError, match="^y" + message):
            network.fit(X, y.astype(int))
    with pytest.raises(ValueError, match=f"^validation_data: y{message}"):
        network.fit(X, y * 0, validation_data=(X, y))


def test_soft_targets(rng):
    X, y = rng.normal(size=(40, 4)), rng.random((40, 3))
    network = NeuralNetwork([Linear(3), BinaryCrossEntropy()], rng=0).fit(X, y, max_iter=2)
    assert network.error(X, y) == pytest.approx(np.mean(network.predict(X) != (y > 0.5)))


def test_metrics_of_several_labels(rng):
    f1_score = pytest.importorskip("sklearn.metrics").f1_score

    def f1(y, predictions):
        return f1_score(y, predictions, average="macro")

    X = rng.normal(size=(40, 4))
    y = (X[:, :3] > 0).astype(int)
    network = NeuralNetwork([Linear(3), BinaryCrossEntropy()], rng=0)
    network.fit(X, y, 0.1, 2, metrics=[f1], validation_data=(X, y))
    assert network.history_["val_f1"][-1] == f1(y, network.predict(X))


# --- build, save, load ------------------------------------------------------------------------


def test_build(rng):
    X, _ = patches(4, rng)
    for n_outputs in (None, 3):
        network = segmenter().build((1, 6, 7), n_outputs)
        assert network.classes_.tolist() == [0, 1, 2]
        assert network.target_shape_ == (6, 7)
        assert network.predict(X).shape == (4, 6, 7)
    with pytest.raises(ValueError, match=r"gets \(3, 6, 7\) .* expected \(4, 6, 7\) for the 4 cl"):
        segmenter().build((1, 6, 7), 4)
    signals = NeuralNetwork([Conv(3, 3), LogRegression()], rng=0).build((2, 9), 3)
    assert signals.target_shape_ == (9,)
    several = NeuralNetwork([Linear(3), BinaryCrossEntropy()], rng=0)
    assert several.build((4,), 3).target_shape_ == (3,)
    one = NeuralNetwork([Linear(1), BinaryCrossEntropy()], rng=0)
    assert one.build((4,)).target_shape_ == ()
    assert one.predict(np.ones((2, 4))).shape == (2,)
    masks = NeuralNetwork([Conv(1, 3), BinaryCrossEntropy()], rng=0)
    assert masks.build((1, 6, 7)).target_shape_ == (1, 6, 7)
    assert masks.build((1, 6, 7), (6, 7)).target_shape_ == (6, 7)


@pytest.mark.parametrize(
    "loss", [LogRegression(0.1), BinaryCrossEntropy(0.2), Huber(0.5), LogRegression()], ids=repr
)
def test_saved_and_loaded(loss, rng, tmp_path):
    X, y = patches(8, rng)
    n_feats = 3 if loss.is_classifier else 1
    y = y if loss.is_classifier else y > 0
    layers = [Conv(4, 3), Activation("relu"), Conv(n_feats, 1), copy.deepcopy(loss)]
    network = NeuralNetwork(layers, rng=0).fit(X, y, max_iter=2)
    network.save(tmp_path / "network.safetensors")
    loaded = NeuralNetwork.load(tmp_path / "network.safetensors")
    assert repr(loaded.layers[-1]) == repr(loss)
    assert loaded.target_shape_ == (6, 7)
    for twin in (loaded, copy.deepcopy(network)):
        assert_array_equal(twin.predict(X), network.predict(X))
        assert twin.error(X, y) == network.error(X, y)
        if not isinstance(loss, Huber):
            assert_array_equal(twin.predict_proba(X), network.predict_proba(X))
    with pytest.raises(ValueError, match=r"expected \(n_imgs, 6, 7\)"):
        loaded.error(X, y[:, 0])


def test_options_may_change(rng):
    X, y = patches(8, rng)
    network = segmenter().fit(X, y, max_iter=1)
    plain = segmenter().fit(X, y, max_iter=1)
    network.layers[-1].label_smoothing = 0.3
    assert_array_equal(network.predict_proba(X), plain.predict_proba(X))
    smooth = segmenter(label_smoothing=0.3).fit(X, y, max_iter=1)
    assert network.fit(X, y, max_iter=1).loss_history_ == smooth.loss_history_
    assert smooth.loss_history_ != plain.loss_history_


# --- losses of one's own ------------------------------------------------------------------------


def test_a_loss_of_ones_own_for_pixels(rng):
    """Its three methods are enough, and what it decides has y's shape."""

    class Squares(Layer, LossMixin):
        def fprop(self, input):
            return input

        def bprop(self, output_grad):
            return output_grad

        def differences(self, input, target):
            one_hot = np.eye(input.shape[1])[target]
            return input - np.moveaxis(one_hot, -1, 1)

        def loss(self, input, target):
            return np.mean(np.square(self.differences(input, target)))

        def input_grad(self, input, target):
            return 2 * self.differences(input, target) / input[0].size

        def output_shape(self, input_shape):
            return input_shape

    X, y = patches(30, rng, np.float64)
    network = NeuralNetwork([Conv(8, 3), Activation("relu"), Conv(3, 1), Squares()], rng=0)
    check(network.check_gradients(X, y))
    network.fit(X, y, 0.3, 20, 5, momentum=0.9, sample_weight=np.ones(30))
    assert network.predict(X).shape == y.shape
    assert network.error(X, y) == pytest.approx(np.mean(network.predict(X) != y))
    assert network.error(X, y) < 0.3
    assert network.predict_proba(X).shape == (30, 3, 6, 7)
