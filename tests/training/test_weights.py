"""Weights of images and classes: what they change, what they leave alone, what is refused."""

import tracemalloc

import numpy as np
import pytest
from trouble import bits, cnn, images

from nnet import (
    Activation,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    Huber,
    Layer,
    Linear,
    LogRegression,
    LossMixin,
    MeanAbsoluteError,
    MeanSquaredError,
    NeuralNetwork,
    Rotate,
    Shift,
    Standardize,
)

X, Y = images()
X64, Y64 = images(dtype=np.float64)
ONE_STEP = {"max_iter": 1, "batch_size": 1000, "shuffle": False}


def arrays(network):
    return list(network.state_dict().values())


def assert_close(network, other, rtol=1e-10):
    for one, two in zip(arrays(network), arrays(other), strict=True):
        np.testing.assert_allclose(one, two, rtol=rtol, atol=1e-12)


class Absolute(Layer, LossMixin):
    """A loss of the user's own, which knows nothing of weights."""

    is_classifier = False

    def fprop(self, input):
        return input

    def bprop(self, output_grad):
        return output_grad

    def loss(self, input, target):
        return np.abs(input - target).mean()

    def input_grad(self, input, target):
        return np.sign(input - target) / input[0].size

    def output_shape(self, input_shape):
        return input_shape


def regression(loss):
    return NeuralNetwork([Flatten(), Linear(4), Activation("tanh"), Linear(2), loss], rng=0)


def normed():
    """Batch norms over pixels and over images alone."""
    layers = [Standardize(), Conv(3, 3), BatchNorm(), Activation("tanh"), Flatten(), Linear(4)]
    return NeuralNetwork([*layers, BatchNorm(), Linear(3), LogRegression()], rng=0)


def normalising():
    """Statistics of the data set, of batches with pixels, and of batches without."""
    layers = [Standardize(), Conv(4, 3, use_bias=False), BatchNorm(), Activation("relu")]
    layers += [Flatten(), Linear(5), BatchNorm(momentum=0.3), Linear(3), LogRegression()]
    return NeuralNetwork(layers, rng=0)


T64 = np.random.default_rng(2).normal(size=(len(X), 2))
NETWORKS = {
    "LogRegression": (cnn, Y),
    "BatchNorm": (normed, Y),
    "MeanSquaredError": (lambda: regression(MeanSquaredError()), T64),
    "BatchNorm and Standardize": (normalising, Y),
    "a loss of one's own": (lambda: regression(Absolute()), T64),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_weight_of_two_is_the_image_twice(name):
    make, y = NETWORKS[name]
    weights = np.random.default_rng(0).integers(0, 4, len(X64))
    rows = np.repeat(np.arange(len(X64)), weights)
    options = {"learning_rate": 0.05, "momentum": 0.9} | ONE_STEP | {"max_iter": 3}
    weighted = make().fit(X64, y, sample_weight=weights, **options)
    repeated = make().fit(X64[rows], y[rows], **options)
    assert_close(weighted, repeated)
    if make is normalising:  # all counted as one image each would be others
        plain = make().fit(X64[weights > 0], y[weights > 0], **options)
        for name in ("0.mean_", "0.scale_", "2.running_mean", "2.running_var", "6.running_var"):
            assert not np.allclose(plain.state_dict()[name], weighted.state_dict()[name], 1e-4)
    for one, two in zip(weighted.history_.values(), repeated.history_.values(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-10)


@pytest.mark.parametrize("factor", [1e-320, 1e-200, 3.0, 1e300])
def test_only_the_ratios_of_weights_matter(factor):
    weights = np.random.default_rng(0).integers(0, 4, len(X))
    expected = cnn().fit(X64, Y, sample_weight=weights, max_iter=2)
    network = cnn().fit(X64, Y, sample_weight=weights * factor, max_iter=2)
    assert_close(network, expected, 1e-3 if factor == 1e-320 else 1e-10)  # a subnormal number


@pytest.mark.parametrize("factor", [1e-310, 1e-200, 1 / len(X), 0.2])
def test_only_the_ratios_of_small_weights_matter_to_batch_norm(factor):
    """Those above 1 say how many images there are, for the running variance alone."""
    weights = np.random.default_rng(0).integers(0, 4, len(X)) / 3
    expected = normed().fit(X64, Y, sample_weight=weights, max_iter=2)
    network = normed().fit(X64, Y, sample_weight=weights * factor, max_iter=2)
    assert_close(network, expected, 1e-7 if factor == 1e-310 else 1e-10)
    assert not np.allclose(network.layers[6].running_var, 1)


def test_weights_that_sum_to_one():
    expected = normed().fit(X64, Y, max_iter=2)
    network = normed().fit(X64, Y, max_iter=2, sample_weight=np.full(len(X), 1 / len(X)))
    assert_close(network, expected)


def test_weights_of_one_change_nothing_but_the_rounding():
    assert_close(
        cnn().fit(X64, Y, max_iter=2),
        cnn().fit(X64, Y, max_iter=2, sample_weight=np.full(len(X), 7)),
    )


def test_torch():
    """The weighted cross-entropy of PyTorch divides by the weights' sum too."""
    torch = pytest.importorskip("torch")
    F, weights = X64.reshape(len(X), -1), np.random.default_rng(1).uniform(0, 2, len(X))
    class_weights = {0: 0.5, 1: 1.0, 2: 3.0}
    network = NeuralNetwork([Linear(3), LogRegression()], rng=0).build((64,), 3, "float64")
    W, b = (torch.tensor(array, requires_grad=True) for array in network.params())
    optimizer = torch.optim.SGD([W, b], 0.1, momentum=0.5)
    network.fit(
        F,
        Y,
        0.1,
        **{**ONE_STEP, "max_iter": 4},
        momentum=0.5,
        sample_weight=weights,
        class_weight=class_weights,
        warm_start=True,
    )
    together = torch.tensor(weights * np.array(list(class_weights.values()))[Y])
    for _ in range(4):
        optimizer.zero_grad()
        scores = torch.tensor(F) @ W + b
        losses = torch.nn.functional.cross_entropy(scores, torch.tensor(Y), reduction="none")
        ((losses * together).sum() / together.sum()).backward()
        optimizer.step()
    for array, tensor in zip(network.params(), (W, b)):
        np.testing.assert_allclose(array, tensor.detach().numpy(), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    "loss, expected", [(MeanSquaredError, 5.25), (MeanAbsoluteError, 2.25), (Huber, 1.75)]
)
def test_every_loss_divides_by_the_sum_of_weights(loss, expected):
    """By hand. PyTorch 2.13.0 has 5.25, 2.25 and 3.5: huber_loss divides by their number."""
    network = NeuralNetwork([Linear(1), loss()]).build((1,), 1, "float64")
    network.layers[0].W[...] = 1
    options = ONE_STEP | {"sample_weight": [3.0, 1.0], "warm_start": True}
    network.fit([[1.0], [3.0]], [-1.0, 0.0], 1e-300, **options)
    assert network.loss_history_ == [pytest.approx(expected, rel=1e-12)]


@pytest.mark.parametrize("shuffle", [False, True])
def test_images_of_weight_zero_are_not_seen(shuffle):
    """Whatever they hold, and whatever their labels are."""
    weights = (np.arange(len(X)) % 3 > 0).astype(float)
    odd, other = X.copy(), Y.copy()
    odd[weights == 0], other[weights == 0] = 9, 0
    options = {"max_iter": 3, "batch_size": 16, "shuffle": shuffle, "sample_weight": weights}
    networks = cnn().fit(X, Y, **options), cnn().fit(odd, other, **options)
    assert bits(networks[0]) == bits(networks[1])
    assert networks[0].history_ == networks[1].history_


class Counting(Layer):
    """Counts the batches that it trains on: a state."""

    def _setup(self, input_shape, rng):
        self.count = np.zeros(1, self.dtype)

    def fprop(self, input):
        self.count += self.training
        return input

    def bprop(self, output_grad):
        return output_grad

    def output_shape(self, input_shape):
        return input_shape

    def state_names(self):
        return ["count"]


def test_a_batch_of_zeros_touches_nothing():
    """No decay, momentum, step or running statistics."""

    def network():
        layers = [Counting(), Conv(4, 3, weight_decay=0.1), Activation("relu"), Flatten()]
        return NeuralNetwork([*layers, Linear(3, weight_decay=0.1), LogRegression()], rng=0)

    some = [(X[:40], Y[:40], np.ones(40)), (X[60:], Y[60:], np.ones(36))]
    zeros = (X[40:60], Y[40:60], np.zeros(20))
    options = {"learning_rate": 0.05, "momentum": 0.9, "max_iter": 3}
    with_zeros = network().fit([some[0], zeros, some[1]], **options)
    without = network().fit(some, **options)
    assert bits(with_zeros) == bits(without)
    assert with_zeros.history_ == without.history_
    assert with_zeros.layers[0].count == 6


def with_statistics():
    layers = [Conv(4, 3), BatchNorm(), Activation("relu"), Dropout(0.3), Flatten(), Linear(3)]
    return NeuralNetwork([*layers, LogRegression()], rng=0)


def noise(images, rng):
    return images + rng.normal(size=images.shape)


@pytest.mark.parametrize("augment", [None, [Shift(1), Rotate(10)], noise])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_batches_of_zeros_touch_nothing_of_all_there_is(optimizer, augment):
    """Steps that are counted, running statistics and whatever draws random numbers included."""
    options = {"optimizer": optimizer, "augment": augment, "max_iter": 3}
    some = [(X[:40], Y[:40], np.ones(40)), (X[40:76], Y[40:76], np.ones(36))]
    zeros = [(X[76:], Y[76:], np.zeros(20))]
    with_zeros = with_statistics().fit([*some, *zeros], **options)
    without = with_statistics().fit(some, **options)
    assert all(
        one.tobytes() == two.tobytes() for one, two in zip(*map(arrays, (with_zeros, without)))
    )
    assert with_zeros.history_ == without.history_
    states = [net._model.stepping.optimizer.state() for net in (with_zeros, without)]
    assert repr(states[0]) == repr(states[1])
    # In the middle: what is done to an image may follow from where it is in X.
    if not isinstance(augment, list):
        between = with_statistics().fit([some[0], *zeros, some[1]], **options)
        assert bits(between) == bits(without)
    else:
        others = [(X[:20] + 1, Y[:20], np.zeros(20))]
        between = [
            with_statistics().fit([some[0], *z, some[1]], **options) for z in (zeros, others)
        ]
        assert bits(between[0]) == bits(between[1])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_partial_fit_on_zeros_touches_nothing(optimizer):
    network = with_statistics().fit(X, Y, max_iter=1, optimizer=optimizer)
    before = [array.tobytes() for array in arrays(network)]
    network.partial_fit(X, Y, sample_weight=np.zeros(len(X)), optimizer=optimizer)
    assert [array.tobytes() for array in arrays(network)] == before
    assert np.isnan(network.loss_history_[-1]) and np.isnan(network.history_["accuracy"][-1])


def test_the_history_is_of_weighted_means():
    weights = np.random.default_rng(1).uniform(0, 2, len(X))
    network = cnn().fit(X64, Y, max_iter=1)
    probs, y = network.predict_proba(X64), Y
    losses, right = -np.log(probs[np.arange(len(X)), y]), network.predict(X64) == y
    network.fit(
        X64,
        y,
        1e-300,
        max_iter=1,
        sample_weight=weights,
        warm_start=True,
        validation_data=(X64, y, weights**2),
    )
    history = {name: values[-1] for name, values in network.history_.items()}
    expected = {
        "loss": np.average(losses, weights=weights),
        "accuracy": np.average(right, weights=weights),
        "val_loss": np.average(losses, weights=weights**2),
        "val_accuracy": np.average(right, weights=weights**2),
    }
    assert list(history) == list(expected)
    for name, value in expected.items():
        assert history[name] == pytest.approx(value, rel=1e-9), name
    assert network.val_error_history_[-1] == pytest.approx(1 - expected["val_accuracy"])


# --- classes ---------------------------------------------------------------------------------


def test_class_weights_multiply_those_of_images():
    weights = np.random.default_rng(1).uniform(0, 2, len(X))
    words = np.array(["a", "b", "c"])[Y]
    network = cnn().fit(X, words, class_weight={"a": 2, "c": 0.5}, sample_weight=weights)
    expected = cnn().fit(X, words, sample_weight=weights * np.array([2, 1, 0.5])[Y])
    assert bits(network) == bits(expected)


@pytest.mark.parametrize(
    "smoothing, ours, theirs", [(0.0, 1.1021408, 1.1021408), (0.3, 1.1799185, 1.1709988)]
)
def test_class_weights_and_label_smoothing(smoothing, ours, theirs):
    """Each image has one weight, where PyTorch gives the share of each class its own."""
    torch = pytest.importorskip("torch")
    weights, scores = [0.5, 1.0, 3.0], np.array([[2.0, 1, 0], [0, 1, 3], [1, 0, 1]])
    network = NeuralNetwork([Linear(3), LogRegression(smoothing)]).build((3,), 3, "float64")
    network.layers[0].W[...] = scores
    options = ONE_STEP | {"class_weight": dict(enumerate(weights)), "warm_start": True}
    network.fit(np.eye(3), [0, 1, 2], 1e-300, **options)
    assert network.loss_history_ == [pytest.approx(ours, rel=1e-6)]
    loss = torch.nn.CrossEntropyLoss(torch.tensor(weights), label_smoothing=smoothing)
    found = loss(torch.tensor(scores, dtype=torch.float32), torch.tensor([0, 1, 2]))
    assert found.item() == pytest.approx(theirs, rel=1e-6)


def test_balanced_is_as_in_scikit_learn():
    compute = pytest.importorskip("sklearn.utils.class_weight").compute_class_weight
    y = np.minimum(np.arange(len(X)) % 10, 2)
    weights = dict(enumerate(compute("balanced", classes=np.arange(3), y=y)))
    expected = cnn().fit(X, y, max_iter=2, class_weight=weights)
    assert bits(cnn().fit(X, y, max_iter=2, class_weight="balanced")) == bits(expected)
    batches = [(X[:50], y[:50]), (X[50:], y[50:])]
    networks = [cnn().fit(batches, max_iter=2, class_weight=w) for w in ("balanced", weights)]
    assert bits(networks[0]) == bits(networks[1])


@pytest.mark.parametrize("in_batches", [False, True])
def test_balanced_counts_by_weight(in_batches):
    """As scikit-learn 1.9 does: what weighs nothing might as well be left out."""
    y, weights = np.minimum(np.arange(len(X)) % 10, 2), np.arange(len(X)) % 4
    rows = np.repeat(np.arange(len(X)), weights)
    counts = np.bincount(y[rows])
    by_hand = dict(enumerate(len(rows) / (3 * counts)))
    assert len({*counts}) > 1
    data = X, y
    options = {"max_iter": 2, "sample_weight": weights}
    if in_batches:
        data = ([(X[:20], y[:20], weights[:20]), (X[20:], y[20:], weights[20:])],)
        del options["sample_weight"]
    network = cnn().fit(*data, **options, class_weight="balanced")
    assert bits(network) == bits(cnn().fit(*data, **options, class_weight=by_hand))


def test_balanced_with_a_class_that_is_not_there():
    network = cnn().partial_fit(X, np.minimum(Y, 1), [0, 1, 2], class_weight="balanced")
    assert network.classes_.tolist() == [0, 1, 2] and np.isfinite(network.loss_history_).all()


def test_class_weights_are_not_those_of_validation():
    """As in Keras, also for the images that are held back: their own weights count."""
    weights = np.random.default_rng(1).integers(1, 3, len(X))
    options = {"max_iter": 1, "learning_rate": 1e-300, "validation_fraction": 0.25}
    plain = cnn().fit(X, Y, **options, sample_weight=weights)
    weighted = cnn().fit(X, Y, **options, sample_weight=weights, class_weight={0: 9})
    assert plain.val_loss_history_ == weighted.val_loss_history_
    assert plain.loss_history_ != weighted.loss_history_
    assert cnn().fit(X, Y, **options).val_loss_history_ != plain.val_loss_history_


# --- what is refused ---------------------------------------------------------------------------

ZEROS = np.zeros(len(X))
BAD = np.ones(len(X))
BAD[5] = np.nan
REFUSED = [
    ({"sample_weight": np.ones(5)}, ValueError, r"sample_weight has shape \(5,\), expected \(96,"),
    ({"sample_weight": 2.0}, ValueError, r"sample_weight has shape \(\), expected \(96,\)"),
    ({"sample_weight": ZEROS - 1}, ValueError, "sample_weight has negative, NaN or infinite"),
    ({"sample_weight": BAD}, ValueError, "sample_weight has negative, NaN or infinite"),
    ({"sample_weight": BAD * np.inf}, ValueError, "sample_weight has negative, NaN or infinite"),
    ({"sample_weight": ZEROS + 1e308}, ValueError, "sample_weight has too large values"),
    ({"sample_weight": "balanced"}, TypeError, "sample_weight (is a dict|has dtype)"),
    ({"sample_weight": {0: 1}}, TypeError, "sample_weight (is a dict|has dtype)"),
    ({"sample_weight": ZEROS}, ValueError, "the weights of all images are zero"),
    ({"class_weight": {0: 0, 1: 0, 2: 0}}, ValueError, "the weights of all images are zero"),
    ({"class_weight": {3: 1.0}}, ValueError, r"the label 3, expected some of \[0, 1, 2\]"),
    ({"class_weight": {"0": 1.0}}, ValueError, "class_weight has the label '0'"),
    ({"class_weight": {0: -1}}, ValueError, r"class_weight\[0\] is -1"),
    ({"class_weight": {0: np.nan}}, ValueError, r"class_weight\[0\] is nan"),
    ({"class_weight": {0: "much"}}, TypeError, r"class_weight\[0\] is 'much'"),
    ({"class_weight": [1, 2, 3]}, TypeError, "class_weight is .* expected None, 'balanced' or a"),
    ({"class_weight": "balance"}, TypeError, "class_weight is 'balance'"),
    ({"validation_data": (X, Y, ZEROS)}, ValueError, "images to validate are zero"),
    ({"validation_data": [(X, Y, ZEROS)]}, ValueError, "images to validate are zero"),
    ({"validation_data": (X, Y, BAD)}, ValueError, "^validation_data: sample_weight has negative"),
]


@pytest.mark.parametrize("options, error, message", REFUSED)
def test_refused(options, error, message):
    network = cnn()
    with pytest.raises(error, match=message):
        network.fit(X, Y, **options)
    assert network.input_shape_ is None


def test_class_weights_need_classes():
    network = NeuralNetwork([Flatten(), Linear(1), MeanSquaredError()], rng=0)
    with pytest.raises(ValueError, match="class_weight is given, expected one label per image"):
        network.fit(X, np.ones(len(X)), class_weight="balanced")


def test_unknown_labels_are_refused_beside_weights():
    network = cnn().fit(X, Y, max_iter=1)
    for call in (network.partial_fit, lambda *args, **w: network.fit(*args, **w, warm_start=True)):
        with pytest.raises(ValueError, match="y has the label 3, expected one of those of fit"):
            call(X, Y + 1, sample_weight=np.ones(len(X)))


# --- images held back -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "fraction, expected",
    [
        (0.2, [10, 4, 2, 1]),
        (0.5, [25, 10, 5, 2]),
        (0.03, [2, 1, 1, 1]),
        (0.97, [48, 19, 9, 3]),
    ],
)
def test_a_fraction_of_each_class_is_held_back(fraction, expected):
    y = np.repeat(["d", "c", "b", "a"], [50, 20, 10, 4])
    F = np.random.default_rng(0).normal(size=(len(y), 5))
    held = []

    def labels(targets, predictions):
        held.append(targets)
        return 0.0

    network = NeuralNetwork([Linear(4), LogRegression()], rng=0)
    network.fit(F, y, max_iter=1, validation_fraction=fraction, metrics=[labels])
    assert [int(np.sum(held[1] == label)) for label in "dcba"] == expected
    assert len(held[0]) + len(held[1]) == len(y)
    again = NeuralNetwork([Linear(4), LogRegression()], rng=0)
    again.fit(F, y, max_iter=1, validation_fraction=fraction)
    assert bits(again) == bits(network)


def test_a_class_of_one_image_is_named():
    y = np.array(["many"] * 95 + ["rare"])
    with pytest.raises(ValueError, match="but y has 1 image of the class 'rare', expected at"):
        cnn(n_classes=2).fit(X, y, validation_fraction=0.1)


@pytest.mark.parametrize("value", [0, 1, 1.5, -0.1, True, float("nan")])
def test_other_fractions_are_refused(value):
    with pytest.raises(ValueError, match="validation_fraction is .* between 0 and 1"):
        cnn().fit(X, Y, validation_fraction=value)
    with pytest.raises(TypeError, match="validation_fraction is 'half'"):
        cnn().fit(X, Y, validation_fraction="half")


def test_a_fraction_and_data_are_one_too_many():
    with pytest.raises(ValueError, match="validation_data and validation_fraction are given"):
        cnn().fit(X, Y, validation_fraction=0.1, validation_data=(X, Y))


def test_regression_holds_any_images_back():
    network = regression(MeanSquaredError())
    network.fit(X64, T64, 0.05, max_iter=2, validation_fraction=0.25)
    assert len(network.val_loss_history_) == 2


# --- memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, np.linspace(0.5, 1, 640)])
def test_a_steady_step_allocates_nothing_of_note(weights):
    many, y = images(640, side=16)
    growth, marks = [], []

    def watch(progress):
        if progress.epoch > 1:
            now, peak = tracemalloc.get_traced_memory()
            if marks:
                growth.append(peak - marks[-1])
            tracemalloc.reset_peak()
            marks.append(now)

    tracemalloc.start()
    try:
        cnn().fit(many, y, max_iter=3, batch_size=128, callback=watch, sample_weight=weights)
    finally:
        tracemalloc.stop()
    assert sorted(growth)[len(growth) // 2] < 16_000  # one batch of images has 131,072 bytes
