"""Programs for prediction: the bits of the layers, whatever the batch, and weights of now."""

import sys
import threading
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nnet
import nnet.training.model
from nnet._atomic import AtWork
from nnet._dense import ACTIVATIONS
from nnet._program import Program
from nnet.layers import (
    Activation,
    BatchNorm,
    BinaryCrossEntropy,
    Conv,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    GroupNorm,
    Huber,
    Layer,
    Linear,
    LogRegression,
    MeanSquaredError,
    Parallel,
    Pool,
    Residual,
    Sequential,
    Standardize,
    Upsample,
)


def relu():
    return Activation("relu")


NETWORKS = {
    "convolutions": lambda: [
        Conv(9, 3), relu(), Pool(2, 2), Conv(20, 3, 2), relu(), Conv(33, 1), Flatten(), Linear(7),
    ],
    "all that has a step": lambda: [
        Standardize(0.5, 2.0), DepthwiseConv(3), relu(), Dropout(0.5), Conv(8, 5, padding_mode=0),
        relu(), relu(), Pool(3, 2, "avg"), Sequential([Conv(16, 3, border_mode="reflect")]),
        GlobalMaxPool(), Linear(300), relu(), Linear(150), Linear(5),
    ],
    "residuals": lambda: [
        Conv(6, 3), Residual([Conv(6, 3), relu(), Conv(6, 3)]), relu(),
        Residual([Conv(10, 3, 2), Residual([Conv(10, 3)])], shortcut=[Conv(10, 1, 2)]),
        Residual([]), GlobalAveragePool(),
    ],
    "functions": lambda: [
        layer for type in ACTIVATIONS for layer in (Conv(4, 1), Activation(type))
    ],
    "norms": lambda: [
        BatchNorm(), relu(), Conv(6, 3), relu(), BatchNorm(), GroupNorm(2), Conv(4, 1),
        GroupNorm(4), relu(), Residual([BatchNorm(), relu(), Conv(4, 3), GroupNorm(1)]), Flatten(),
        BatchNorm(),
    ],
    "a single layer": lambda: [Flatten()],
    "called in between": lambda: [
        Conv(4, 3), Activation("softmax"), Conv(5, 3), Upsample(2), Pool(2, 2), Twice(), Flatten(),
        Linear(3),
    ],
    "only called": lambda: [Parallel([[Conv(3, 3)], [Conv(2, 5)]], mode="concat"), Twice()],
}  # fmt: skip


class Twice(Layer):
    """A layer of the user's own."""

    def fprop(self, input):
        return 2 * input

    def bprop(self, output_grad):
        return 2 * output_grad

    def output_shape(self, input_shape):
        return input_shape


def build(layers, dtype, shape=(3, 14, 17)):
    scores = [] if isinstance(layers[-1], (Linear, GlobalAveragePool)) else [Flatten()]
    network = nnet.NeuralNetwork([*layers, *scores, Linear(4), LogRegression()], rng=1)
    return network.build(shape, 4, dtype=dtype)


def scores_of_layers(network, images):
    """What the layers compute one after the other."""
    model = network._fitted()
    at_work = AtWork(model)
    try:
        at_work.begin()
        at_work.lend(model.loans(training=False))
        return model.program.fprop(images).copy()
    finally:
        at_work.end()


def programs(network):
    """Those of its prediction, and how many parts are none."""
    model = network._fitted()
    parts = model._predicting()._parts
    return [part for part in parts if isinstance(part, Program)], len(parts)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_bits_of_the_layers(dtype, rng, name):
    network = build(NETWORKS[name](), dtype)
    images = rng.standard_normal((70, 3, 14, 17)).astype(dtype)
    arrays = network.state_dict()
    for key in arrays:
        if key.split(".")[-1] not in ("W", "b"):  # of normalisation
            arrays[key] = rng.uniform(0.5, 2, arrays[key].shape).astype(dtype)
    network.load_state_dict(arrays)
    expected = scores_of_layers(network, images)
    for n_threads in 1, 2, 3:
        with nnet.num_threads(n_threads):
            for n_imgs in 1, 2, 5, 70:
                found = network._fitted()._scores(images[:n_imgs])
                assert_array_equal(found, expected[:n_imgs], strict=True)


def test_all_is_one_program(dtype):
    for name in "convolutions", "all that has a step", "residuals", "functions", "norms":
        found, n_parts = programs(build(NETWORKS[name](), dtype))
        assert (len(found), n_parts) == (1, 1), name
    found, n_parts = programs(build(NETWORKS["called in between"](), dtype))
    assert len(found) == 4 and n_parts == 7


@pytest.mark.parametrize("first", [
    lambda: [Conv(7, 3), BatchNorm(), relu()], lambda: [Conv(7, 3, use_bias=False), BatchNorm()],
    lambda: [DepthwiseConv(3), BatchNorm(), relu()],
    lambda: [Flatten(), Linear(30), BatchNorm(), relu()],
    lambda: [Residual([Conv(3, 3), BatchNorm()]), relu()],
])  # fmt: skip
def test_batch_norm_is_part_of_the_weights(dtype, rng, first):
    network = build([*first(), Flatten()], dtype)
    arrays = network.state_dict()
    for name, array in arrays.items():
        arrays[name] = (array + rng.uniform(0.1, 1, array.shape)).astype(dtype)
    network.load_state_dict(arrays)
    images = rng.standard_normal((9, 3, 14, 17)).astype(dtype)
    expected = scores_of_layers(network, images)
    found = network._fitted()._scores(images)
    eps = np.finfo(dtype).eps
    assert_allclose(found, expected, rtol=100 * eps, atol=100 * eps * np.abs(expected).max())
    assert len(programs(network)[0]) == 1
    names = {type(step).__name__ for step in programs(network)[0][0].steps}
    assert names <= {"ConvStep", "LinearStep", "FunctionStep"}


def test_arrays_are_those_of_now(dtype, rng):
    network = build([Conv(5, 3), BatchNorm(), relu(), Conv(6, 3), Flatten(), Linear(8)], dtype)
    images = rng.standard_normal((3, 3, 14, 17)).astype(dtype)
    seen = [network.predict_proba(images)]
    layers = network.layers

    def changes():
        layers[0].W[0, 0, 0, 0] += 1
        yield
        layers[0].b[1] = 2
        yield
        layers[1].running_var[2] = 7
        yield
        layers[1].gamma[...] = 3
        yield
        layers[3].W = layers[3].W[::-1] * 2
        yield
        layers[5].W[7, 7] = -9
        yield
        layers[5].b = layers[5].b + np.arange(8).astype(dtype)
        yield
        layers[3].strides = 2
        with pytest.raises(ValueError):
            network.predict_proba(images)
        layers[3].strides = 1
        layers[0].weight_decay = 0.5

    for _ in changes():
        found = network.predict_proba(images)
        assert not any(np.array_equal(found, before) for before in seen)
        assert_allclose(found, softmax(scores_of_layers(network, images)), rtol=1e-4, atol=1e-6)
        seen.append(found)
    assert_array_equal(network.predict_proba(images), seen[-1])


HOLDERS = {
    "the array": lambda array: array,
    "a view": lambda array: array[::-1].T,
    "its memory": lambda array: memoryview(array),
    "a view of a view": lambda array: np.asarray(memoryview(array))[:],
    "a view without a base of its own": lambda array: np.frombuffer(array, array.dtype),
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("place, name", [
    (0, "W"), (0, "b"), (1, "gamma"), (1, "beta"), (1, "running_mean"), (1, "running_var"),
    (4, "W"), (4, "b"), (5, "beta"),
])  # fmt: skip
def test_what_others_write_later_is_followed(dtype, rng, holder, place, name):
    layers = [Conv(5, 3), BatchNorm(), relu(), Flatten(), Linear(8), BatchNorm()]
    network = build([*layers, relu(), Linear(6)], dtype)
    images = rng.standard_normal((3, 3, 14, 17)).astype(dtype)
    before = [network.predict_proba(images) for _ in range(3)]
    held = HOLDERS[holder](getattr(network.layers[place], name))
    before += [network.predict_proba(images) for _ in range(3)]
    array = np.asarray(held)
    array[...] = array + np.linspace(0.5, 1, array.size).reshape(array.shape).astype(dtype)
    found = network.predict_proba(images)
    assert not any(np.array_equal(found, each) for each in before)
    assert_allclose(found, softmax(scores_of_layers(network, images)), rtol=1e-4, atol=1e-6)
    del held, array
    assert_array_equal([network.predict_proba(images) for _ in range(2)], [found, found])


def test_arrays_that_others_own_are_followed(dtype, rng):
    network = build([Conv(5, 3), BatchNorm(), Flatten()], dtype)
    images = rng.standard_normal((3, 3, 14, 17)).astype(dtype)
    owner = np.zeros((2, *network.layers[0].W.shape), dtype)
    network.layers[0].W = owner[1]
    before = [network.predict_proba(images) for _ in range(3)][-1]
    owner[1, 0, 0, 0] = 1
    assert not np.array_equal(network.predict_proba(images), before)


def test_after_a_training_nobody_else_holds_the_arrays(rng):
    X = rng.standard_normal((24, 1, 8, 8)).astype(np.float32)
    layers = [Conv(4, 3), BatchNorm(), relu(), Flatten(), Linear(3), BatchNorm(), LogRegression()]
    network = nnet.NeuralNetwork(layers, rng=0)
    for fit in network.fit, network.partial_fit:
        fit(X, np.arange(24) % 3, optimizer=nnet.Adam())
        for _ in range(2):
            network.predict(X)
        for layer in network.layers[:2]:
            for name in layer.param_names():
                n_references = sys.getrefcount(vars(layer)[name])
                assert n_references == 3  # the layer's, the step's and the argument


def softmax(scores):
    e = np.exp(scores.astype(float) - scores.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_the_scale_of_images_is_that_of_now(dtype, rng):
    network = build([Standardize(), Conv(5, 3), Flatten()], dtype)
    images = rng.standard_normal((3, 3, 14, 17)).astype(dtype)
    layer, before = network.layers[0], network.predict_proba(images)
    layer.mean_[1] = 2
    layer.scale_ = np.array([1, 2, 3], dtype)
    found = network._fitted()._scores(images)
    assert_array_equal(found, scores_of_layers(network, images))
    assert not np.array_equal(network.predict_proba(images), before)
    layer.scale_ = np.ones(4, dtype)
    with pytest.raises(ValueError, match="shape"):
        network.predict_proba(images)


@pytest.mark.parametrize("layer", [lambda: BatchNorm(), lambda: GroupNorm(3)])
def test_normalisation_is_that_of_now(dtype, rng, layer):
    network = build([layer(), relu()], dtype)
    images = rng.standard_normal((3, 3, 14, 17)).astype(dtype)
    before, norm = network.predict_proba(images), network.layers[0]
    norm.beta[1] = 2
    norm.gamma = np.array([1, 2, 3], dtype)
    found = network.predict_proba(images)
    assert_array_equal(network._fitted()._scores(images), scores_of_layers(network, images))
    assert not np.array_equal(found, before)
    norm.gamma = np.ones(4, dtype)
    for _ in range(2):
        with pytest.raises(ValueError, match="gamma"):
            network.predict_proba(images)


@pytest.mark.parametrize("name, array", [
    ("W", np.zeros((3, 5, 3, 4))), ("W", np.zeros((3, 6, 3, 3))), ("b", np.zeros(4)),
])  # fmt: skip
def test_arrays_of_other_shapes_are_refused(dtype, name, array):
    network = build([Conv(5, 3), Flatten()], dtype)
    images = np.zeros((2, 3, 14, 17), dtype)
    before = network.predict_proba(images)
    fits = getattr(network.layers[0], name)
    setattr(network.layers[0], name, array.astype(dtype))
    for _ in range(2):  # each time
        with pytest.raises(ValueError, match="shape"):
            network.predict_proba(images)
    setattr(network.layers[0], name, fits)
    assert_array_equal(network.predict_proba(images), before)


def test_no_images_and_views_of_images(dtype, rng):
    network = build([Conv(5, 3), Flatten()], dtype)
    images = rng.standard_normal((6, 14, 17, 3)).astype(dtype).transpose(0, 3, 1, 2)
    assert network.predict_proba(images[:0]).shape == (0, 4)
    expected = network.predict_proba(np.ascontiguousarray(images))
    assert_array_equal(network.predict_proba(images), expected)
    assert_array_equal(network.predict_proba(images[::-2]), expected[::-2])


def test_a_program_follows_while_a_training_validates(rng):
    X = rng.standard_normal((24, 1, 8, 8)).astype(np.float32)
    y = np.arange(24) % 3
    layers = [Conv(4, 3), BatchNorm(), relu(), Flatten(), Linear(3), LogRegression()]
    network = nnet.NeuralNetwork(layers, rng=0)
    network.fit(X, y, validation_data=(X, y), max_iter=3, batch_size=8)
    assert network.error(X, y) == np.mean(network.predict(X) != y)
    assert network.history_["val_accuracy"][-1] == pytest.approx(1 - network.error(X, y))


# --- predictions at once ----------------------------------------------------------------

LOSSES = {
    "labels": (lambda: [Flatten(), Linear(4), LogRegression()], np.arange(12) % 4),
    "labels of pixels": (
        lambda: [Conv(4, 3), LogRegression()],
        np.arange(576).reshape(12, 8, 6) % 4,
    ),
    "many labels": (lambda: [Flatten(), Linear(5), BinaryCrossEntropy()], np.eye(12, 5)),
    "one label": (lambda: [Flatten(), Linear(1), BinaryCrossEntropy()], np.arange(12) % 2),
    "values": (lambda: [Flatten(), Linear(2), MeanSquaredError()], np.ones((12, 2))),
    "a value": (lambda: [Flatten(), Linear(1), Huber()], np.ones(12)),
}


def counted(monkeypatch):
    """Counts predictions that are made at once: a list with an item for each that was asked for."""
    calls, found_at_once = [], nnet.training.model.Model.predictions_at_once

    def predictions_at_once(*arguments):
        predictions = found_at_once(*arguments)
        calls.append(predictions is not None)
        return predictions

    monkeypatch.setattr(nnet.training.model.Model, "predictions_at_once", predictions_at_once)
    return calls


@pytest.mark.parametrize("loss", LOSSES)
def test_predictions_at_once_are_those_of_the_layers(dtype, rng, loss, monkeypatch):
    make, y = LOSSES[loss]
    X = rng.standard_normal((12, 3, 8, 6)).astype(dtype)
    network = nnet.NeuralNetwork([Conv(4, 3), Activation("elu"), *make()], rng=0)
    network.fit(X, y, max_iter=1)
    outputs = [network.predict]
    if network.layers[-1].has_probabilities:
        outputs.append(network.predict_proba)
    for predict in outputs:
        in_steps = predict(list(X))  # has to be converted
        calls = counted(monkeypatch)
        assert_array_equal(predict(X), in_steps, strict=True)
        assert_array_equal(predict(X[3:4]), in_steps[3:4], strict=True)
        assert calls == [True, True]
        assert_array_equal(predict(X, batch_size=5), in_steps, strict=True)
        assert calls == [True, True, False]


@pytest.mark.parametrize("what", [
    lambda X: X.astype(np.float64), lambda X: X.astype(">f4"), lambda X: X[::-1],
    lambda X: np.asfortranarray(X), lambda X: np.ma.array(X), lambda X: X.tolist(),
    lambda X: X[:0], lambda X: X.astype(int),
])  # fmt: skip
def test_other_images_are_predicted_step_by_step(rng, what, monkeypatch):
    network = build([Conv(5, 3), Flatten()], "float32")
    X = rng.integers(0, 9, (6, 3, 14, 17)).astype(np.float32)
    expected = network.predict_proba(X)
    calls = counted(monkeypatch)
    images = what(X)
    if np.ma.isMaskedArray(images):
        with pytest.raises(TypeError, match="mask"):
            network.predict_proba(images)
    else:
        order = slice(None, None, -1) if np.array_equal(images, X[::-1]) else slice(len(images))
        assert_array_equal(network.predict_proba(images), expected[order])
    assert calls == [False]


def test_what_is_wrong_is_said(rng):
    network = build([Conv(5, 3), Flatten()], "float32")
    X = rng.standard_normal((6, 3, 14, 17)).astype(np.float32)
    network.predict_proba(X)
    with pytest.raises(ValueError, match="shape"):
        network.predict_proba(X[:, :2])
    for bad in np.nan, np.inf:
        wrong = X.copy()
        wrong[4, 1, 2, 3] = bad
        with pytest.raises(ValueError, match=r"X\[4\]"):
            network.predict_proba(wrong)
    network.layers[-2].b[:] = [0, 0, -np.inf, 0]  # a probability of 0, which is finite
    with pytest.raises(nnet.DivergedError):
        network.predict_proba(X)
    network.layers[-2].b = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="b has shape|4"):
        network.predict_proba(X)


def test_a_loss_of_ones_own_predicts_step_by_step(rng, monkeypatch):
    class Cold(LogRegression):
        def fprop(self, input):
            return super().fprop(4 * input)

    X = rng.standard_normal((6, 3, 8, 8)).astype(np.float32)
    network = nnet.NeuralNetwork([Flatten(), Linear(3), Cold()], rng=0).build((3, 8, 8), 3)
    network.predict_proba(X)
    calls = counted(monkeypatch)
    scores = network._fitted()._scores(X)
    assert_allclose(network.predict_proba(X), softmax(4 * scores), rtol=1e-5)
    assert calls == [False]


def test_predictions_at_once_wait_for_whoever_works_with_the_layers(rng):
    network = build([Conv(5, 3), Flatten()], "float32")
    X = rng.standard_normal((2, 3, 14, 17)).astype(np.float32)
    expected = network.predict_proba(X)
    found = []
    at_work = AtWork(network._fitted())
    at_work.begin()
    thread = threading.Thread(target=lambda: found.append(network.predict_proba(X)))
    thread.start()
    thread.join(0.2)
    assert not found
    at_work.end()
    thread.join(30)
    assert_array_equal(found[0], expected)


def test_memory_does_not_grow_with_the_number_of_large_images():
    network = nnet.NeuralNetwork([Conv(8, 3), Flatten(), Linear(2), LogRegression()], rng=0)
    network.build((1, 512, 512), 2)
    X = np.zeros((48, 1, 512, 512), np.float32)  # 8 MB each after the convolution
    network.predict(X[:1])
    tracemalloc.start()
    network.predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 8 * 2**20  # of 16 images, and what threads pack
