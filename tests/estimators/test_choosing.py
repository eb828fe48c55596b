"""The layers that an estimator trains."""

import copy
import inspect

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.6")

from nnet import (
    Activation,
    BatchNorm,
    BinaryCrossEntropy,
    CNNClassifier,
    CNNRegressor,
    Conv,
    Flatten,
    Huber,
    Linear,
    LogRegression,
    MeanSquaredError,
    NeuralNetwork,
    Pool,
    Residual,
    Standardize,
    zoo,
)
from nnet.estimators.choosing import ZOO, make_layers

N = 30
X = np.random.default_rng(1).random((N, 1, 12, 12)).astype(np.float32)
Y = np.arange(N) % 3


def kinds(layers):
    return [type(layer) for layer in layers]


def classifier(layers=None, **options):
    return CNNClassifier(layers, random_state=0, **{"max_iter": 1, **options})


def made(image_shape, layers=None):
    return make_layers(layers, image_shape, 3, LogRegression(), 0.0)


@pytest.mark.parametrize(
    "image_shape, n_convs, n_pools",
    [
        ((3, 6, 6), 3, 2),
        ((1, 8, 8), 3, 2),
        ((1, 15, 40), 3, 2),
        ((1, 16, 16), 2, 2),
        ((1, 28, 28), 3, 3),
        ((3, 32, 32), 3, 3),
        ((3, 128, 128), 5, 5),
        ((3, 1000, 1000), 8, 8),
        ((1, 128), 4, 4),
        ((2, 5000), 9, 9),
        ((2, 1, 100), 4, 4),
        ((1, 6, 1), 1, 1),
        ((1, 5, 28), 0, 0),
        ((1, 4), 0, 0),
        ((10,), 0, 0),
    ],
)
def test_size_chooses(image_shape, n_convs, n_pools):
    layers = made(image_shape)
    found = kinds(layers)
    assert (found.count(Conv), found.count(Pool), found[0]) == (n_convs, n_pools, Standardize)
    assert found.count(BatchNorm) == n_convs and found[-2:] == [Linear, LogRegression]
    NeuralNetwork(layers).build(image_shape, 3)


@pytest.mark.parametrize("name", ZOO)
def test_names_of_the_zoo(name):
    layers = made((3, 32, 32), name)
    network = NeuralNetwork(layers).build((3, 32, 32), 3)
    expected = kinds(getattr(zoo, name)(3))
    assert kinds(layers) == [Standardize, *expected]
    assert network.classes_.tolist() == [0, 1, 2]


def test_the_zoo_is_whole():
    """But for what labels each pixel."""
    functions = {name for name, each in vars(zoo).items() if inspect.isfunction(each)}
    ours = {name for name in functions if getattr(zoo, name).__module__ == "nnet.zoo"}
    assert {name for name in ours if not name.startswith("_")} == {*ZOO, "small_unet"}


def test_texts():
    fitted = classifier("conv4-3x3,relu,pool2,linear8,relu").fit(X, Y)
    expected = [Standardize, Conv, Activation, Pool, Flatten, Linear, Activation, Linear]
    assert kinds(fitted.network_.layers) == [*expected, LogRegression]
    for text, n_linear in (("conv4-3x3,linear3", 1), ("conv4-3x3,linear4", 2), ("linear3", 1)):
        assert kinds(classifier(text).fit(X, Y).network_.layers).count(Linear) == n_linear


@pytest.mark.parametrize(
    "layers, y, message",
    [
        ([Flatten(), Linear(3), Activation("softmax")], Y, "layer 2 .* a softmax .*LogRegression"),
        ("linear8,relu,linear3,softmax", Y, "layer 3 .* a softmax .*LogRegression"),
        ("linear3,sigmoid", Y, "layer 1 .* a sigmoid .*LogRegression"),
        ("linear2,sigmoid", np.eye(2, dtype=int)[Y % 2], "layer 1 .* sigmoid .*BinaryCross"),
        ("linear2,softmax", np.eye(2, dtype=int)[Y % 2], "layer 1 .* softmax .*BinaryCross"),
        (lambda shape: [Flatten(), Linear(3), Activation("softmax")], Y, "layer 2 .* a softmax"),
    ],
)
def test_what_the_loss_does_is_refused_at_the_end(layers, y, message):
    """A Linear layer behind a softmax hid it: 8 of 10 digits were wrong, without a word."""
    with pytest.raises(ValueError, match=f"^{message}.* leave the Activation out$"):
        classifier(layers).fit(X.reshape(N, -1), y)


def test_hidden_sigmoids_and_those_of_regression_stay():
    several = np.stack([Y % 2, Y > 0], axis=1).astype(int)
    for text, y in (("linear8,sigmoid", Y), ("linear8,sigmoid", several)):
        assert kinds(classifier(text).fit(X, y).network_.layers).count(Linear) == 2
    layers = [Flatten(), Linear(1), Activation("sigmoid")]
    assert kinds(CNNRegressor(layers, max_iter=1).fit(X, Y).network_.layers).count(Linear) == 2


def is_set_up(layer):
    return getattr(layer, "W", None) is not None


LISTED = [Conv(4, 3), Activation("relu"), Pool(2, 2)]


@pytest.mark.parametrize(
    "layers, expected",
    [
        (LISTED, [Conv, Activation, Pool, Flatten, Linear, LogRegression]),
        ([*LISTED, Flatten()], [Conv, Activation, Pool, Flatten, Linear, LogRegression]),
        ([*LISTED, Linear(3)], [Conv, Activation, Pool, Flatten, Linear, LogRegression]),
        ([*LISTED, Linear(4)], [Conv, Activation, Pool, Flatten, Linear, Linear, LogRegression]),
        ((Flatten(), Linear(3), LogRegression()), [Flatten, Linear, LogRegression]),
        ([], [Flatten, Linear, LogRegression]),
    ],
)
def test_lists(layers, expected):
    before = repr(layers)
    fitted = classifier(layers).fit(X, Y)
    assert kinds(fitted.network_.layers) == expected
    assert repr(layers) == before and not any(map(is_set_up, layers))
    assert fitted.layers is layers


def test_functions_see_the_shape_of_an_image():
    seen = []

    def layers(shape):
        seen.append(shape)
        return [Conv(shape[0], 3)]

    fitted = classifier(layers).fit(X.reshape(N, -1), Y)
    assert seen == [(1, 12, 12)]
    assert kinds(fitted.network_.layers) == [Conv, Flatten, Linear, LogRegression]


def test_layers_of_a_fitted_network_are_copied():
    network = NeuralNetwork([Flatten(), Linear(3), LogRegression()], rng=0).fit(X, Y)
    W = network.params()[0].copy()
    fitted = classifier(network.layers).fit(X, Y)
    assert np.array_equal(network.params()[0], W)
    assert not np.shares_memory(fitted.network_.params()[0], network.params()[0])


def test_frozen_layers_keep_what_they_have_learnt():
    network = NeuralNetwork([Conv(4, 3), Flatten(), Linear(3), LogRegression()], rng=0).fit(X, Y)
    network.layers[0].trainable = False
    fitted = classifier([network.layers[0], Activation("relu")]).fit(X, Y)
    assert np.array_equal(fitted.network_.layers[0].W, network.layers[0].W)


def decays(layers):
    return [layer.weight_decay for layer in layers if hasattr(layer, "weight_decay")]


def test_alpha_is_added_to_the_decay_of_given_layers():
    inside = Residual([Conv(1, 3, weight_decay=0.25)])
    layers = [inside, Flatten(), Linear(3, weight_decay=0.5), LogRegression()]
    fitted = classifier(layers, alpha=0.125).fit(X, Y)
    assert fitted.network_.layers[2].weight_decay == 0.625
    assert fitted.network_.layers[0].children["0"].weight_decay == 0.375
    assert (layers[2].weight_decay, inside.children["0"].weight_decay) == (0.5, 0.25)
    assert decays(classifier("mnist_net", alpha=0.125).fit(X, Y).network_.layers) == [0.125] * 3


def test_alpha_is_adamws_own_decay():
    def expected(X, Y):
        layers = [Flatten(), Linear(3), LogRegression()]
        from nnet import AdamW

        return NeuralNetwork(layers, rng=0).fit(
            X, Y, max_iter=2, optimizer=AdamW(0.001, weight_decay=0.5)
        )

    layers = [Flatten(), Linear(3), LogRegression()]
    fitted = classifier(layers, alpha=0.5, solver="adamw", max_iter=2).fit(X, Y)
    assert np.array_equal(fitted.predict_proba(X), expected(X, Y).predict_proba(X))
    with pytest.raises(ValueError, match="both shrink the weights"):
        classifier([Linear(3, weight_decay=0.5)], solver="adamw").fit(X.reshape(N, -1), Y)


def test_losses():
    several = np.stack([Y == 0, Y == 1], axis=1).astype(int)
    assert isinstance(classifier().fit(X, several).network_.layers[-1], BinaryCrossEntropy)
    regressor = CNNRegressor(max_iter=1).fit(X, Y)
    assert isinstance(regressor.network_.layers[-1], MeanSquaredError)
    regressor = CNNRegressor([Flatten(), Linear(1), Huber()], max_iter=1).fit(X, Y)
    assert isinstance(regressor.network_.layers[-1], Huber)
    regressor = CNNRegressor("resnet8", max_iter=1).fit(X, np.stack([Y, Y], axis=1))
    assert regressor.predict(X).shape == (N, 2)


@pytest.mark.parametrize(
    "layers, error, message",
    [
        ("resnet", ValueError, "layers is 'resnet': layer 'resnet': .*; or one of .*'resnet8'"),
        ("small_unet", ValueError, "expected .*; or one of"),
        (3, TypeError, "layers is 3, expected None, a list of layers"),
        ([3], TypeError, r"layers\[0\] is 3, expected a layer"),
        (lambda shape: None, TypeError, "layers is None, expected None, a list"),
        ([Conv(2, 30, padding_mode="valid")], ValueError, r"layer 0 \(Conv\) cannot take"),
        ([Flatten(), Linear(2), LogRegression()], ValueError, "expected .* for the 3 classes"),
        ([Flatten(), Linear(3), MeanSquaredError()], ValueError, "expected a loss such as LogReg"),
        (
            [Flatten(), Linear(1), BinaryCrossEntropy()],
            ValueError,
            "expected a loss such as LogReg",
        ),
    ],
)
def test_refused(layers, error, message):
    with pytest.raises(error, match=message):
        classifier(copy.copy(layers)).fit(X, Y)
