"""Small networks, images and checks for the tests of NeuralNetwork."""

import numpy as np

from nnet import (
    Activation,
    Conv,
    Flatten,
    Linear,
    LogRegression,
    NeuralNetwork,
    Pool,
)
from nnet.layers.tree import numbered, walk


def small_cnn(rng=0, n_classes=3, **options):
    return NeuralNetwork(
        [
            Conv(4, 3, **options),
            Activation("relu"),
            Pool(2, 2),
            Conv(3, (2, 3), **options),
            Activation("relu"),
            Flatten(),
            Linear(n_classes, **options),
            LogRegression(),
        ],
        rng=rng,
    )


def mlp(rng=0, n_classes=3):
    return NeuralNetwork([Linear(8), Activation("tanh"), Linear(n_classes), LogRegression()], rng)


def stripes(n_imgs, rng, dtype=np.float32):
    """Images whose class, 0 to 2, says where they have a bright stripe."""
    y = np.arange(n_imgs) % 3
    X = rng.normal(scale=0.2, size=(n_imgs, 1, 6, 6))
    X[y == 0, 0, 2] += 1
    X[y == 1, 0, :, 3] += 1
    return X.astype(dtype), y


def same(arrays, others):
    return len(arrays) == len(others) and all(map(np.array_equal, arrays, others))


def walked(network):
    """(name, layer) of all its layers, depth first."""
    return list(walk(numbered(network.layers)))


def seen_by(network, *data, **options):
    """All batches that a network is trained on, one after the other."""
    seen = []
    first = network.layers[0].fprop

    def fprop(input, *args):
        if network.layers[0].training:
            seen.append(input.copy())
        return first(input, *args)

    network.layers[0].fprop = fprop
    network.fit(*data, **options)
    return seen


def check(errors):
    """What check_gradients returned."""
    for error in errors:
        assert error.rel_error < 1e-3, error
        assert error.abs_error < 1e-5, error
