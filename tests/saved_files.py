"""A network to save, and the check of what load refuses."""

import numpy as np
import pytest

from nnet import (
    Activation,
    Conv,
    Flatten,
    Linear,
    LogRegression,
    NeuralNetwork,
    Pool,
    Standardize,
)

LABELS = {
    "strings": np.array(["ä", "b\0c", "long label"]),
    "bytes": np.array([b"\xff", b"b", b"c"]),
    "ints": np.array([-5, 7, 2**62]),
    "uint8": np.array([3, 200, 7], np.uint8),
    "float64": np.array([1.0, -2.0, 1e300]),
    "float32": np.array([1.0, -2.0, 1e30], np.float32),
    "bools": np.array([False, True]),
}


def fitted(labels=LABELS["ints"], dtype=np.float32):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 2, 6, 7)).astype(dtype)
    layers = [
        Standardize(0.5, 2.0),
        Conv(4, (3, 2), padding_mode=((1, 0), (2, 1)), border_mode="reflect", weight_decay=0.01),
        Activation("elu"),
        Pool((2, 3), (2, 1), padding_mode="same"),
        Conv(4, 3, groups=2, dilation=(1, 2), use_bias=False, weight_scale=0.3),
        Pool(2, 1, mode="avg", count_include_pad=True, padding_mode=(1, 1)),
        Flatten(),
        Linear(len(labels), weight_scale="glorot"),
        LogRegression(),
    ]
    return NeuralNetwork(layers, rng=0).fit(X, labels[np.arange(12) % len(labels)], 0.01, 1), X


def refused(path, match=None):
    with pytest.raises(ValueError, match=match) as caught:
        NeuralNetwork.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
