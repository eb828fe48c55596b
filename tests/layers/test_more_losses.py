"""The losses one by one: as plain loops and as PyTorch have them, with weights, at extremes."""

import tracemalloc

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
    Linear,
    LogRegression,
    MeanAbsoluteError,
    MeanSquaredError,
    NeuralNetwork,
    Residual,
    reference,
)

N_IMGS, N_CLASSES, IMG = 6, 3, (5, 4)
LOSSES = {
    "labels": lambda: LogRegression(),
    "smooth labels": lambda: LogRegression(label_smoothing=0.2),
    "pixels": lambda: LogRegression(),
    "smooth pixels": lambda: LogRegression(label_smoothing=0.2),
    "binary": BinaryCrossEntropy,
    "smooth binary": lambda: BinaryCrossEntropy(label_smoothing=0.2),
    "binary pixels": BinaryCrossEntropy,
    "absolute": MeanAbsoluteError,
    "huber": Huber,
    "huber 0.3": lambda: Huber(delta=0.3),
    "squared": MeanSquaredError,
}


def drawn(name, rng, dtype=np.float64, n_imgs=N_IMGS):
    """Scores, and a target to compare with."""
    shape = (N_CLASSES, *IMG) if "pixels" in name else (N_CLASSES,)
    scores = rng.normal(size=(n_imgs, *shape)).astype(dtype)
    if "labels" in name or name in ("pixels", "smooth pixels"):
        return scores, rng.integers(0, N_CLASSES, (n_imgs, *shape[1:]))
    target = rng.normal(size=scores.shape)
    return scores, (target > 0 if "binary" in name else target).astype(dtype)


def network_for(name, rng_seed=0):
    """Layers whose scores suit the loss, for images of 2 channels."""
    layers = [Conv(4, 3), Residual([Conv(4, 3), Activation("tanh")])]
    layers += [Conv(N_CLASSES, 1)] if "pixels" in name else [Flatten(), Linear(N_CLASSES)]
    return NeuralNetwork([*layers, LOSSES[name]()], rng=rng_seed)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["absolute", "huber"])
def test_errors_of_large_values(name):
    """Their squares are beyond float32."""
    X, y = np.ones((4, 2), np.float32), np.array([1e20, -1e20, 2e20, 0], np.float32)
    network = NeuralNetwork([Linear(1), LOSSES[name]()], rng=0).fit(X, y, max_iter=1)
    expected = np.mean(np.square(network.predict(X).astype(float) - y.astype(float)))
    assert network.error(X, y) == pytest.approx(expected)
    assert 1e39 < expected < 1e41


# --- what they compute ------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_as_plain_loops(name, dtype, rng):
    loss, (scores, target) = LOSSES[name](), drawn(name, rng, dtype)
    compared = loss.compare(scores, target)
    if "labels" in name or name in ("pixels", "smooth pixels"):
        expected = reference.cross_entropy(scores, target, loss.label_smoothing)
    elif "binary" in name:
        expected = reference.binary_cross_entropy(scores, target, loss.label_smoothing)
    else:
        errors = np.square(scores - target, dtype=float).mean(axis=1)
        losses, grad = {
            "absolute": lambda: reference.absolute_error(scores, target),
            "squared": lambda: (errors, 2 * (scores - target) / N_CLASSES),
        }.get(name, lambda: reference.huber(scores, target, loss.delta))()
        expected = scores, losses, grad, errors
    tolerance = {"rtol": 1e-5 if dtype == np.float32 else 1e-12, "atol": 1e-6}
    errors = loss.errors(compared.predictions, target)
    for a, b in zip((*compared[:3], errors), expected):
        assert_allclose(a, b, **tolerance)
    if compared.errors is not None:
        assert_array_equal(compared.errors, errors)
    assert compared.losses.dtype == errors.dtype == np.float64
    assert compared.grad.dtype == dtype
    assert_array_equal(loss.fprop(scores), compared.predictions)


@pytest.mark.parametrize("name", LOSSES)
def test_as_pytorch(name, rng):
    torch = pytest.importorskip("torch")
    loss, (scores, target) = LOSSES[name](), drawn(name, rng)
    smoothing = getattr(loss, "label_smoothing", 0.0)
    wanted = torch.tensor(target)
    if "binary" in name:
        twin, wanted = torch.nn.BCEWithLogitsLoss(), wanted * (1 - smoothing) + smoothing / 2
    elif "labels" in name or "pixels" in name:
        twin = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)
    else:
        twin = {
            "absolute": torch.nn.L1Loss(),
            "squared": torch.nn.MSELoss(),
            "huber": torch.nn.HuberLoss(),
            "huber 0.3": torch.nn.HuberLoss(delta=0.3),
        }[name]
    given = torch.tensor(scores, requires_grad=True)
    expected = twin(given, wanted)
    expected.backward()
    assert_allclose(loss.loss(scores, target), expected.item(), rtol=1e-12)
    assert_allclose(loss.input_grad(scores, target) / N_IMGS, given.grad.numpy(), atol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name, rng):
    X, (_, target) = rng.normal(size=(N_IMGS, 2, *IMG)), drawn(name, rng)
    network = network_for(name)
    check(network.check_gradients(X, target))
    network.fit(X, target, 0.01, max_iter=1)
    check(network.check_gradients(X, target))


@pytest.mark.parametrize("name", LOSSES)
def test_bprop_is_the_slope_of_what_is_predicted(name, rng):
    loss, (scores, _) = LOSSES[name](), drawn(name, rng)
    output_grad = rng.normal(size=scores.shape)
    predictions = loss.fprop(scores)
    found = loss.bprop(output_grad)
    step = 1e-6 * rng.normal(size=scores.shape)
    change = loss.fprop(scores + step) - predictions
    assert np.sum(change * output_grad) == pytest.approx(np.sum(step * found), rel=1e-4)


# --- weights --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_an_image_of_weight_2_counts_as_two(name, rng):
    X, (_, target) = rng.normal(size=(N_IMGS, 2, *IMG)), drawn(name, rng)
    weights = np.array([1, 2, 0, 1, 3, 1.0])
    rows = np.repeat(np.arange(N_IMGS), weights.astype(int))
    weighted = network_for(name).fit(
        X,
        target,
        0.1,
        3,
        shuffle=False,
        sample_weight=weights,
        validation_data=(X, target, weights),
    )
    repeated = network_for(name).fit(
        X[rows], target[rows], 0.1, 3, shuffle=False, validation_data=(X[rows], target[rows])
    )
    for a, b in zip(weighted.params(), repeated.params()):
        assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    assert weighted.history_.keys() == repeated.history_.keys()
    for key, values in weighted.history_.items():
        assert_allclose(values, repeated.history_[key], rtol=1e-10, err_msg=key)
    assert_allclose(weighted.val_error_history_, repeated.val_error_history_, rtol=1e-10)


# --- extremes -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_extreme_values(size, dtype):
    scores, target = np.array([[size, -size, 0]], dtype), np.zeros((1, 3), dtype)
    with np.errstate(all="raise"):
        _, losses, grad, *_ = MeanAbsoluteError().compare(scores, target)
        assert_allclose(losses, size * 2 / 3, rtol=1e-6)
        assert_allclose(grad, [[1 / 3, -1 / 3, 0]], rtol=1e-6)
        _, losses, grad, *_ = Huber(delta=2).compare(scores, target)
        assert_allclose(losses, size * 4 / 3, rtol=1e-3)
        assert_allclose(grad, [[2 / 3, -2 / 3, 0]], rtol=1e-6)
        _, losses, grad, *_ = Huber(delta=1e300).compare(scores / 1e15, target)
        assert_allclose(losses, (size / 1e15) ** 2 / 3, rtol=1e-5)
        for pixels in ((), (1, 1)):
            loss, given = LogRegression(label_smoothing=0.3), scores.reshape(1, 3, *pixels)
            losses = loss.compare(given, np.zeros((1, *pixels), np.intp)).losses
            assert_allclose(losses, 0.1 * size * 3, rtol=1e-5)
        losses = BinaryCrossEntropy(label_smoothing=0.2).compare(scores, target).losses
        assert_allclose(losses, (0.9 * size + 0.1 * size + np.log(2)) / 3, rtol=1e-5)


# --- in one pass ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_a_steady_step_allocates_nothing(name, rng):
    """Of the size of the scores; what belongs to Python is small."""
    n_imgs, peaks = 200, []
    X = rng.normal(size=(2 * n_imgs, 2, *IMG)).astype(np.float32)
    _, target = drawn(name, rng, np.float32, len(X))

    def callback(progress):
        now, peak = tracemalloc.get_traced_memory()
        peaks.append(peak - now)
        tracemalloc.reset_peak()

    network = network_for(name)
    tracemalloc.start()
    try:
        network.fit(X, target, 0.01, 4, n_imgs, callback=callback)
    finally:
        tracemalloc.stop()
    pixels = IMG[0] * IMG[1] if "pixels" in name else 1
    assert min(peaks[3:]) < 20_000 + 4 * n_imgs * pixels


def test_a_subclass_that_decides_otherwise_counts_its_own_errors(rng):
    class Cautious(LogRegression):
        def decide(self, predictions):
            return np.where(predictions[:, 1] > 2, 1, 0)

    class Sure(BinaryCrossEntropy):
        def errors(self, predictions, target):
            return np.full(len(target), 0.25)

    class Again(Cautious):
        def compare(self, input, target):
            return super().compare(input, target)._replace(loss_sum=None, errors=np.ones(40))

    X = rng.normal(size=(40, 3))
    y = (X[:, 0] > 0).astype(int)
    accuracies = []
    for loss in (Cautious(), Again(), LogRegression()):
        network = NeuralNetwork([Linear(2), loss], rng=0)
        network.fit(X, y, 0.01, 1, 40, validation_data=(X, y))
        accuracies.append(network.history_["accuracy"][0])
        if type(loss) is not Again:
            assert network.val_error_history_[0] == pytest.approx(network.error(X, y))
            assert network.error(X, y) == np.mean(network.predict(X) != y)
    assert accuracies[0] == np.mean(y == 0) != accuracies[2]
    assert accuracies[1] == 0
    network = NeuralNetwork([Linear(1), Sure()], rng=0).fit(X, y, 0.01, 1)
    assert network.history_["accuracy"] == [0.75]


@pytest.mark.parametrize("name", ["absolute", "huber", "squared"])
def test_means_over_values_are_in_double(name, rng):
    scores, target = rng.random((2, 3, 5000), np.float32)
    loss = LOSSES[name]()
    d = scores - target
    each = {"absolute": np.abs(d), "squared": d * d, "huber": d * (d - d * np.float32(0.5))}[name]
    losses = loss.compare(scores, target).losses
    assert_allclose(losses, each.astype(float).mean(axis=1), rtol=1e-12)
    wanted = np.square(d, dtype=float).mean(axis=1)
    assert_allclose(loss.errors(scores, target), wanted, rtol=1e-6)


def test_a_target_of_one_half_counts_as_0():
    loss, scores = BinaryCrossEntropy(), np.array([[1.0], [-1.0], [0.0]], np.float32)
    target = np.full((3, 1), 0.5, np.float32)
    compared = loss.compare(scores, target)
    for errors in (compared.errors, loss.errors(compared.predictions, target)):
        assert_array_equal(errors, [1, 0, 0])
    above = np.nextafter(target, np.float32(1))
    compared = loss.compare(scores, above)
    for errors in (compared.errors, loss.errors(compared.predictions, above)):
        assert_array_equal(errors, [0, 1, 1])
