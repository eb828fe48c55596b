"""What a training may be resumed with, and what is refused by its name."""

import re

import numpy as np
import pytest
from checkpoints import WEIGHTS, X, Y, call, n_right, network, stopping
from trouble import assert_nothing_lent, cnn, everything

from nnet import (
    SGD,
    Checkpoint,
    CosineDecay,
    Flatten,
    Flip,
    Linear,
    MeanSquaredError,
    NeuralNetwork,
    OneCycle,
    Schedule,
    Shift,
)

pytest.importorskip("safetensors")


def len_of(y, predictions):
    return len(y)


def save(path, net, **options):
    """The network after a training that has written a checkpoint."""
    return net.fit(**options, callbacks=[stopping(), Checkpoint(path)])


def refuses(path, message, make=network, **options):
    """A fit that is resumed is refused, and changes nothing."""
    net = make().fit(**call(max_iter=1))
    before = everything(net, X)
    with pytest.raises(ValueError, match=message) as caught:
        net.fit(**{"callbacks": [stopping()]} | options, resume=path)
    assert everything(net, X) == before
    assert_nothing_lent(net)
    return str(caught.value)


# --- lengths ----------------------------------------------------------------------------------


class Planned(Schedule):
    """It says nothing of max_iter, and depends on it."""

    def __call__(self, step, epoch, n_steps_per_epoch, n_epochs):
        return 0.05 / n_epochs


class Unplanned(Planned):
    depends_on_max_iter = False

    def __call__(self, step, epoch, n_steps_per_epoch, n_epochs):
        return 0.05 / (1 + step)


def scheduled(schedule, **options):
    return call(**options, learning_rate=None, momentum=0.0, optimizer=SGD(schedule))


@pytest.mark.parametrize("schedule", [Planned(), CosineDecay(0.1), OneCycle(0.1)])
def test_max_iter_may_not_grow_where_the_rates_depend_on_it(schedule, tmp_path):
    path = tmp_path / "c"
    expected = everything(save(path, network(), **scheduled(schedule)), X)
    name = type(schedule).__name__
    message = f"max_iter is 5, expected 4 as in the training of {path}: {name} was planned for that"
    refuses(path, message, **scheduled(schedule, max_iter=5))
    same = network().fit(**scheduled(schedule), callbacks=[stopping()], resume=path)
    assert everything(same, X) == expected


@pytest.mark.parametrize(
    "schedule", [Unplanned(), CosineDecay(0.1, n_epochs=4), OneCycle(0.1, n_epochs=6)]
)
def test_max_iter_may_grow_where_they_do_not(schedule, tmp_path):
    save(tmp_path / "c", network(), **scheduled(schedule, max_iter=3))
    longer = scheduled(schedule, max_iter=5)
    expected = network().fit(**longer, callbacks=[stopping()])
    found = network().fit(**longer, callbacks=[stopping()], resume=tmp_path / "c")
    assert everything(found, X) == everything(expected, X)


# --- data ---------------------------------------------------------------------------------------


def regression():
    return NeuralNetwork([Flatten(), Linear(1), MeanSquaredError()], rng=0)


@pytest.mark.parametrize("make", [cnn, regression])
@pytest.mark.parametrize("as_batches", [False, True])
def test_every_target_is_compared(make, as_batches, tmp_path):
    y = Y if make is cnn else np.linspace(-1, 1, len(X))

    def data(y):
        return {"X": [(X[:50], y[:50]), (X[50:], y[50:])]} if as_batches else {"X": X, "y": y}

    save(tmp_path / "c", make(), **data(y), max_iter=2, metrics=[n_right])
    for row in (0, 2, 7, 49, 50, 95):
        changed = y.copy()
        changed[row] = (y[row] + 1) % 2
        net = make()
        with pytest.raises(ValueError, match="^y differs from that in the training of"):
            options = {"max_iter": 3, "metrics": [n_right], "callbacks": [stopping()]}
            net.fit(**data(changed), **options, resume=tmp_path / "c")
        assert net.input_shape_ is None


@pytest.mark.parametrize(
    "given, again",
    [
        (np.array(["a", "b", "c"]), np.array(["a", "b", "c"], "U9")),
        (np.array([b"a", b"b", b"c"], "S7"), np.array([b"a", b"b", b"c"])),
        (np.arange(3, dtype=np.int8), np.arange(3)),
        (np.arange(3), np.arange(3.0)),
    ],
)
@pytest.mark.parametrize("as_batches", [False, True])
def test_labels_are_compared_by_value(given, again, as_batches, tmp_path):
    def fit(labels, max_iter, **options):
        y = labels[Y]
        data = {"X": [(X[:50], y[:50]), (X[50:], y[50:])]} if as_batches else {"X": X, "y": y}
        return cnn().fit(**data, max_iter=max_iter, **options)

    fit(given, 2, callbacks=[Checkpoint(tmp_path / "c")])
    found, expected = fit(again, 4, resume=tmp_path / "c"), fit(given, 4)
    assert everything(found, X) == everything(expected, X)
    with pytest.raises(ValueError, match="^classes differs from that in the training"):
        fit(np.array(["a", "b", "d"]), 4, resume=tmp_path / "c")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"validation_fraction": 0.25}, "^validation_fraction is 0.25, expected 0.2, as in the tr"),
        ({"validation_fraction": None}, "^validation_fraction is None, expected 0.2"),
        (
            {"validation_fraction": None, "validation_data": (X, Y)},
            "^validation_data is given, exp",
        ),
        ({"y": np.where(np.arange(96) == 2, 0, Y)}, "^y differs from that in the training"),
        ({"X": np.where(np.arange(96) == 3, 0, X.T).T}, "^X differs from that in the training"),
        ({"sample_weight": WEIGHTS + (np.arange(96) == 2)}, "^sample_weight or class_weight diff"),
    ],
)
def test_with_images_held_back_what_differs_is_named(options, message, tmp_path):
    """Not what follows from it: other images are held back then."""
    save(tmp_path / "c", network(), **call(max_iter=2))
    refuses(tmp_path / "c", message, **call(**options))


def test_other_validation_data_are_named(tmp_path):
    options = {"X": X, "y": Y, "metrics": [n_right], "max_iter": 2}
    save(tmp_path / "c", network(), **options, validation_data=(X, Y))
    for data, message in [
        ((X, Y[::-1]), "^y of validation_data differs from that in the training"),
        ((X[:9], Y[:9]), r"^the shape of X of validation_data is \(9, 1, 8, 8\), expected \(96, 1"),
        ((X, Y, WEIGHTS), "^sample_weight or class_weight of validation_data differs"),
        (None, "^validation_data is None, expected given"),
    ]:
        refuses(tmp_path / "c", message, **options, validation_data=data, callbacks=[])


# --- words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"callbacks": []}, "callbacks is None, expected EarlyStopping(monitor='n_right', "),
        ({"augment": None}, "augment is None, expected Shift("),
        ({"augment": [Shift(1), Flip()]}, ", Flip("),
        ({"metrics": [n_right, len_of]}, "metrics is n_right, len_of, expected n_right, as in"),
    ],
)
def test_refusals_are_read_like_what_was_typed(options, message, tmp_path):
    path = tmp_path / "c"
    save(path, network(), **call(max_iter=2, augment=[Shift(1)]))
    text = refuses(path, re.escape(message), **call(augment=[Shift(1)]) | options)
    assert "[" not in text and '"' not in text
