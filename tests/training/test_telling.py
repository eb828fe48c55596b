"""What a verbose training says to do about one that learns nothing, and warnings of X."""

import numpy as np
import pytest
from trouble import cnn, images

from nnet import (
    Activation,
    BinaryCrossEntropy,
    DivergedError,
    Flatten,
    Huber,
    Linear,
    LogRegression,
    MeanAbsoluteError,
    MeanSquaredError,
    NeuralNetwork,
    Standardize,
)

X, Y = images()


def advice(capsys, *arguments, layers=(), max_iter=4, **options):
    """The lines about epochs that a training prints, but for those of each epoch."""
    network = cnn()
    network.layers[:0] = layers
    network.fit(*arguments, max_iter=max_iter, verbose=True, **options)
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("after")]


def test_a_training_that_learns_says_nothing_more(capsys):
    assert advice(capsys, X, Y, 0.01, max_iter=5) == []
    assert advice(capsys, X, Y, 0.01, max_iter=20, optimizer="adam", batch_size=16) == []


ORDER = "; or are X and y in different orders?"


def test_nothing_is_learned(capsys):
    (line,) = advice(capsys, X, Y, 1e-9, batch_size=8)
    assert line == (
        "after epoch 3/4: nothing is learned yet, 33.33% are right by guessing: try a larger "
        "learning_rate than 1e-09, or optimizer='adam', or Standardize() as the first layer" + ORDER
    )
    assert advice(capsys, X, Y, 1e-9, max_iter=2, batch_size=8) == []
    assert advice(capsys, X, Y, 1e-9, max_iter=4) == []  # in 8 steps
    options = {"layers": [Standardize()], "optimizer": "adam", "batch_size": 8}
    (line,) = advice(capsys, X, Y, 1e-9, **options)
    assert line.endswith("by guessing: try a larger learning_rate than 1e-09" + ORDER)
    batches = [(X[i::12], Y[i::12]) for i in range(12)]
    assert len(advice(capsys, batches, learning_rate=1e-9)) == 1
    weighted = [(*batch, np.ones(8)) for batch in batches]
    assert len(advice(capsys, weighted, learning_rate=1e-9)) == 1


def test_labels_of_other_images(capsys):
    """Which nobody can learn: the learning rate is what it should be."""
    y = np.random.default_rng(0).permutation(np.arange(len(X)) % 3)
    layers = [Flatten(), Linear(3), LogRegression()]
    noise = np.random.default_rng(1).normal(size=(3000, 4))
    network = NeuralNetwork(layers, rng=0).fit(noise, np.resize(y, 3000), max_iter=10, verbose=True)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line[0] == "a"]
    assert "by guessing: try another learning_rate than 0.1, or optimizer='adam', or" in line
    assert line.endswith(ORDER) and network.dtype_ == np.float64


def test_weights_say_what_guessing_is(capsys):
    options = {"batch_size": 8, "sample_weight": np.where(Y == 1, 8.0, 1.0)}
    (line,) = advice(capsys, X, Y, 1e-9, **options)
    assert "80.00% are right by guessing" in line
    (line,) = advice(capsys, X, Y, 1e-9, batch_size=8, class_weight={0: 2.0})
    assert "50.00% are right by guessing" in line and "balanced" not in line


def test_one_class_of_most_images(capsys):
    y = np.where(np.arange(len(X)) % 12, "most", "few")
    network = NeuralNetwork([Flatten(), Linear(2), LogRegression()], rng=0)
    network.fit(X, y, 1e-9, max_iter=3, batch_size=8, verbose=True)
    assert "91.67% are right by guessing: " in (line := capsys.readouterr().out)
    assert f", or class_weight='balanced'{ORDER}" in line


def hidden(values, loss, **options):
    network = NeuralNetwork([Flatten(), Linear(values.shape[1]), loss], rng=0)
    network.fit(X, values, max_iter=3, batch_size=8, verbose=True, **options)
    return network


VALUES = np.random.default_rng(0).normal(size=(len(X), 2)) * 0.3 + [0, 1]


@pytest.mark.parametrize(
    "loss, guessed",
    [
        (MeanSquaredError(), VALUES.var(axis=0).mean()),
        (MeanAbsoluteError(), np.abs(VALUES - np.median(VALUES, axis=0)).mean()),
        (Huber(), VALUES.var(axis=0).mean() / 2),
    ],
    ids=repr,
)
def test_values_that_are_not_learned(loss, guessed, capsys):
    hidden(VALUES, loss, learning_rate=1e-9)
    *_, line = capsys.readouterr().out.splitlines()
    assert "nothing is learned yet, the loss is not below " in line
    told = float(line.partition("below ")[2].partition(",")[0])
    assert told == pytest.approx(guessed, rel=0.01)
    assert ", that of the same values for all images: try a larger learning_rate than" in line
    assert "y.std()" not in line and line.endswith(ORDER)
    hidden(1000 + VALUES, loss, learning_rate=1e-9)
    *_, line = capsys.readouterr().out.splitlines()
    assert ", or (y - y.mean()) / y.std() as y, or" in line


def test_values_that_are_learned(capsys):
    values = X.reshape(len(X), -1)[:, :2]
    hidden(values, MeanSquaredError(), learning_rate=0.05)
    hidden(values + 50, MeanSquaredError(), learning_rate=0.02)  # still on its way
    assert "after" not in capsys.readouterr().out


def test_values_that_explode(capsys):
    hidden(VALUES, MeanSquaredError(), learning_rate=0.3)
    first = capsys.readouterr().out.splitlines()[1]
    assert "the loss is far above" in first and ": try a smaller learning_rate than 0.3" in first
    hidden(1000 + VALUES, MeanSquaredError(), learning_rate=1e-4)
    assert "far above" not in capsys.readouterr().out  # than it was before a step


def test_several_labels_that_are_not_learned(capsys):
    labels = np.stack([np.arange(len(X)) % 4 == 0, np.arange(len(X)) % 2], axis=1).astype(int)
    hidden(labels, BinaryCrossEntropy(), learning_rate=1e-9)
    *_, line = capsys.readouterr().out.splitlines()
    assert "62.50% are right by guessing: try a larger learning_rate" in line
    assert "balanced" not in line
    hidden(0.5 + 0.4 * (labels - 0.5), BinaryCrossEntropy(), learning_rate=1e-9)  # uncertain
    assert "62.50% are right by guessing" in capsys.readouterr().out
    labels = (X.reshape(len(X), -1)[:, :2] > 0).astype(int)
    hidden(0.5 + 0.4 * (labels - 0.5), BinaryCrossEntropy(), learning_rate=0.03)
    hidden(labels, BinaryCrossEntropy(), learning_rate=0.3)
    assert "after" not in capsys.readouterr().out


class Margins(LogRegression):
    """A loss whose values nobody can compare with those of LogRegression."""

    def compare(self, input, target):
        found = super().compare(input, target)
        return found._replace(losses=100 * found.losses, loss_sum=100 * found.loss_sum)


def test_a_loss_of_ones_own(capsys):
    network = cnn()
    network.layers[-1] = Margins()
    network.fit(X, Y, 1e-9, max_iter=3, batch_size=8, verbose=True)
    *_, line = capsys.readouterr().out.splitlines()
    assert "33.33% are right by guessing" in line and "far above" not in line
    network.fit(X, Y, 0.01, max_iter=5, verbose=True)
    assert "after" not in capsys.readouterr().out


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_smoothed_labels_and_rare_classes_are_learned(smoothing, capsys):
    """Slowly: the loss begins above that of guessing, and the accuracy is that of guessing."""
    rng = np.random.default_rng(1)
    y = (rng.random(2000) < 0.05).astype(int)
    images = rng.normal(size=(2000, 64))
    images[y == 1] += 0.2
    layers = [Linear(16), Activation("relu"), Linear(2), LogRegression(smoothing)]
    network = NeuralNetwork(layers, rng=0).fit(images, y, 0.01, max_iter=8, verbose=True)
    assert "after" not in capsys.readouterr().out
    assert network.history_["accuracy"][3] < 0.96


def test_dead_layers(capsys):
    shifted = Standardize(1e4, 1.0)  # so that all that a ReLU gets is negative, or positive
    network = NeuralNetwork(
        [shifted, Flatten(), Linear(4), Activation("relu"), Linear(3), LogRegression()], rng=0
    ).build(X.shape[1:], 3)
    network.layers[2].W[...] = 1
    network.freeze(network.layers[2])
    network.fit(X, Y, 1e-9, max_iter=3, batch_size=8, verbose=True)
    line = capsys.readouterr().out.splitlines()[-1]
    assert "; all outputs of layer 3 (Activation) are 0: try a smaller learning_rate than" in line


def test_nearly_dead_layers(capsys):
    network = cnn().build(X.shape[1:], 3)
    network.freeze(network.layers[0])
    network.layers[0].b[...] = -1e4
    network.fit(X, Y, 1e-9, max_iter=3, batch_size=8, verbose=True)
    assert "; all outputs of layer 1 (Activation) are 0: try a smaller" in capsys.readouterr().out
    wide = NeuralNetwork(
        [Flatten(), Linear(20), Activation("relu"), Linear(3), LogRegression()], rng=0
    ).build(X.shape[1:], 3)
    wide.freeze(1).layers[1].b[:19] = -1e4
    wide.fit(X, Y, 1e-9, max_iter=3, batch_size=8, verbose=True)
    assert "; 95% of the outputs of layer 2 (Activation) are 0: try" in capsys.readouterr().out
    batches = [(X[i::12], Y[i::12]) for i in range(12)]
    wide.fit(batches, learning_rate=1e-9, max_iter=3, verbose=True)
    assert "; 95% of the outputs of layer 2 (Activation) are 0: try" in capsys.readouterr().out


def test_layers_that_tell_no_images_apart(capsys):
    layers = [Flatten()]
    for _ in range(12):
        layers += [Linear(8), Activation("sigmoid")]
    network = NeuralNetwork([*layers, Linear(3), LogRegression()], rng=0)
    network.fit(X, Y, 1e-9, max_iter=3, batch_size=8, verbose=True)
    line = capsys.readouterr().out
    assert "(Activation) hardly differ between images: try BatchNorm() before it, or a" in line
    cnn().fit(np.ones_like(X), Y, max_iter=6, batch_size=8, verbose=True)
    assert "by guessing; the images of X hardly differ: try" in capsys.readouterr().out


def test_a_loss_that_explodes(capsys):
    line, *_ = advice(capsys, 5 * X, Y, 3.0, max_iter=2)
    assert line.startswith(
        "after epoch 1/2: the loss is far above 1.0986, that of guessing: try a smaller learning"
    )


def test_a_loss_that_explodes_later(capsys):
    line, *_ = advice(capsys, X, Y, lambda epoch: 30.0 if epoch else 0.01, max_iter=3)
    assert line.startswith("after epoch 2/3: the loss is far above 1.0986, that of guessing: try")
    assert len(advice(capsys, 5 * X, Y, 3.0, max_iter=2)) == 1  # said once


@pytest.mark.parametrize("loss, what", [(LogRegression(), "X"), (MeanSquaredError(), "X and y")])
def test_a_training_that_diverges(loss, what):
    y = Y if what == "X" else VALUES
    layers = [Flatten(), Linear(3 if what == "X" else 2), loss]
    with pytest.raises(DivergedError, match=f"a smaller .*, or scale {what} to values around 1$"):
        NeuralNetwork(layers, rng=0).fit(1e10 * X, y, 1e30)
