"""Signals as Keras has them, channels last, and rows that may be signals: the call to make."""

import copy

import numpy as np
import pytest

from nnet import (
    Activation,
    BatchNorm,
    CNNClassifier,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    LogRegression,
    NeuralNetwork,
    Pool,
    Residual,
)

y = np.arange(9) % 3


def network(*layers):
    return NeuralNetwork([*layers, Flatten(), Linear(3), LogRegression()], rng=0)


def images(*shape):
    return np.random.default_rng(0).normal(size=(9, *shape)).astype(np.float32)


def test_rows_are_no_signals_for_windows_of_more_rows():
    with pytest.raises(ValueError, match=r"X\.reshape\(-1, 1, 8, 8\)$"):
        network(Conv(4, 3), Pool((2, 2), 2)).fit(images(64), y)


@pytest.mark.parametrize(
    "shape, layers",
    [
        ((128, 1), [Conv(4, 9)]),
        ((128, 2), [Conv(4, 9), Pool(2, 2)]),
        ((128, 4), [Conv(4, 1)]),
        ((128, 9), [Conv(4, 1), Residual([Conv(4, 9)])]),
        ((128, 1), [BatchNorm()]),
        ((20, 3), [Conv(4, 3)]),
        ((8, 1), [GlobalAveragePool()]),
    ],
    ids=str,
)
def test_signals_with_channels_last(shape, layers, tmp_path):
    """As Keras has them: features of as many channels as the signal is long, if not refused."""
    length, n_channels = shape
    X = images(*shape)
    for use in (lambda n: n.fit(X, y), lambda n: n.partial_fit(X, y)):
        with pytest.raises(ValueError) as caught:
            use(network(*copy.deepcopy(layers)))
        assert str(caught.value) == (
            f"X has shape (n_imgs, {length}, {n_channels}), signals of {length} channels and the "
            f"length {n_channels}, expected (n_imgs, n_channels, length): X.transpose(0, 2, 1) "
            f"puts channels first; if they do come first, call network.build({shape}) before fit"
        )
    first = network(*copy.deepcopy(layers)).fit(X.transpose(0, 2, 1), y, 0.01, 1)
    for use in (first.predict, first.outputs, lambda X: first.score(X, y)):
        with pytest.raises(ValueError, match=r"X\.(reshape\(-1, 1, |transpose\(0, 2, 1\) puts)"):
            use(X)
    built = network(*copy.deepcopy(layers)).build(shape, 3).fit(X, y, 0.01, 1)
    built.layers.insert(0, Activation("relu"))
    assert built.predict(X).shape == (9,)  # which is planned anew


LAYERS = [Conv(4, 9), Activation("relu"), GlobalAveragePool()]


def test_an_estimator_takes_signals_of_one_channel_as_they_lie():
    X = images(60)
    estimator = CNNClassifier(LAYERS, input_shape=(1, 60), max_iter=2, random_state=0)
    expected = estimator.fit(X[:, None], y).predict_proba(X[:, None])
    for given in (X, X[:, :, None]):
        assert np.array_equal(estimator.fit(given, y).predict_proba(given), expected)


def test_an_estimator_refuses_as_many_channels():
    estimator = CNNClassifier(LAYERS, input_shape=(60, 2))
    cautions = pytest.warns(UserWarning, match=r"signals with channels last \(2, 60\)")
    with cautions, pytest.raises(ValueError, match=r"X\.transpose\(0, 2, 1\) puts channels first"):
        estimator.fit(images(60, 2), y)
