"""`nnet train` beyond the plain training: optimizers, early stopping, resuming, values."""

import copy
import csv
import io
import json
import signal
import tracemalloc
import warnings

import numpy as np
import pytest

import nnet
from nnet.cli import fitting
from nnet.cli.data import Arrays

SMALL = ["--layers", "conv4-3x3,relu,gap", "--epochs", "4"]


@pytest.fixture
def seen(monkeypatch):
    """What fit is called with."""
    seen = {}
    fit = nnet.NeuralNetwork.fit

    def spy(network, **options):
        seen.update(options, network=network)
        return fit(network, **options)

    monkeypatch.setattr(nnet.NeuralNetwork, "fit", spy)
    return seen


def decays(network):
    return [layer.weight_decay for layer in network.layers if hasattr(layer, "weight_decay")]


# --- optimizers, augmentation ---------------------------------------------------------------


@pytest.mark.parametrize("name, rate", [("adam", 0.002), ("rmsprop", 0.001), ("sgd", 0.05)])
def test_optimizers_have_their_own_rate(run_nnet, save_npz, tmp_path, seen, name, rate):
    options = [*SMALL, "--optimizer", name, "--weight-decay", "0.5"]
    assert run_nnet("train", save_npz(), "-o", tmp_path / "m", *options)[0] == 0
    assert seen.get("optimizer", "sgd") == name and seen.get("momentum") in (0.9, None)
    assert seen["learning_rate"].learning_rate == rate
    assert decays(seen["network"]) == [0.5, 0.5]


def test_adamw_has_the_decay_for_itself(run_nnet, save_npz, tmp_path, seen):
    options = [*SMALL, "--optimizer", "adamw", "--weight-decay", "0.5", "--learning-rate", "0.1"]
    assert run_nnet("train", save_npz(), "-o", tmp_path / "m", *options)[0] == 0
    assert seen["optimizer"].weight_decay == 0.5 and decays(seen["network"]) == [0, 0]
    assert seen["learning_rate"].learning_rate == 0.1


def test_augmentations(run_nnet, save_npz, tmp_path, seen):
    text = "shift2, crop1,rotate10,zoom0.1,flip,flip-vertical,cutout4,brightness0.2"
    options = [*SMALL, "--augment", text]
    assert run_nnet("train", save_npz(), "-o", tmp_path / "m", *options)[0] == 0
    assert list(map(repr, seen["augment"])) == list(
        map(
            repr,
            [
                nnet.Shift(2),
                nnet.Crop(1),
                nnet.Rotate(10.0),
                nnet.Zoom(0.1),
                nnet.Flip(),
                nnet.Flip("vertical"),
                nnet.CutOut(4),
                nnet.Brightness(0.2),
            ],
        )
    )


# --- standardisation --------------------------------------------------------------------------


def test_the_scale_of_images_is_found_without_a_copy_of_them():
    X = np.random.default_rng(0).normal(1000, 1, (500, 3, 8, 8)).astype(np.float32)
    expected, data = X.std(dtype=float), Arrays(X)
    tracemalloc.start()
    try:
        layer = data.standardize()
        assert tracemalloc.get_traced_memory()[1] < X.nbytes / 4
    finally:
        tracemalloc.stop()
    assert layer.scale == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("layer", [nnet.Standardize(), nnet.Standardize(mean=0.5)])
@pytest.mark.parametrize("shape", [(3, 6, 6), (8,)])
def test_predict_with_standardisation_of_every_kind(run_nnet, tmp_path, layer, shape):
    """Mean and scale of each channel, as fit finds them, or one of both given."""
    X = np.random.default_rng(0).random((40, *shape)) + 1000 * np.arange(shape[0]).reshape(
        -1, *[1] * (len(shape) - 1)
    )
    layers = [copy.deepcopy(layer), nnet.Flatten(), nnet.Linear(2), nnet.LogRegression()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large values
        nnet.NeuralNetwork(layers, rng=0).fit(X, np.arange(40) % 2, 1e-9, max_iter=1).save(
            tmp_path / "m"
        )
    for factor, is_warned in (1, False), (1 / 255, layer.mean is None):
        np.savez(tmp_path / "a.npz", X=X * factor)
        code, out, err = run_nnet("predict", tmp_path / "m", tmp_path / "a.npz")
        assert code == 0 and out.count("\n") == 41 and ("other units?" in err) == is_warned


# --- early stopping -------------------------------------------------------------------------


def test_early_stopping(run_nnet, save_npz, bright_rows, tmp_path):
    """Labels by chance: nothing gets better on images that are held out."""
    X, _ = bright_rows(n=100)
    y = np.random.default_rng(1).integers(0, 2, 100)
    options = ["--layers", "linear30,relu", "--epochs", "500", "--early-stopping", "3"]
    code, out, err = run_nnet("train", save_npz(X=X, y=y), "-o", tmp_path / "m", *options)
    assert code == 0 and out.startswith("test accuracy ") and "(of 20" not in out
    first, _, heading, *lines, last = err.splitlines()
    assert first == "72 images to train on, 8 to validate, 20 to test on: 6x6 grey, 2 classes"
    assert len(lines) < 400
    losses = [float(line.split()[heading.split().index("val_loss")]) for line in lines]
    assert len(losses) - 1 - int(np.argmin(losses)) == 3
    assert last == f"stopped early after epoch {len(losses)}: keeping epoch {len(losses) - 3}"


def test_early_stopping_keeps_the_best_epoch(run_nnet, save_npz, tmp_path, monkeypatch):
    watches = []
    monkeypatch.setattr(
        fitting, "Watch", lambda *args: watches.append(nnet.cli.watch.Watch(*args)) or watches[-1]
    )
    options = [*SMALL, "--early-stopping", "2", "--validation-fraction", "0.25", "-q"]
    assert run_nnet("train", save_npz(), "-o", tmp_path / "m", *options)[0] == 0
    (watch,) = watches
    assert watch.monitor == "val_loss"
    loaded = nnet.NeuralNetwork.load(tmp_path / "m").state_dict()
    assert all(np.array_equal(loaded[name], watch.best_state[name]) for name in loaded)


# --- resuming -------------------------------------------------------------------------------


def interrupt_after(monkeypatch, n_epochs):
    """Ctrl-C after so many epochs."""
    monkeypatch.setattr(signal, "signal", lambda *args: None)
    call = nnet.cli.watch.Watch.__call__

    def interrupted(watch, progress):
        if progress.epoch > n_epochs:
            raise KeyboardInterrupt
        return call(watch, progress)

    monkeypatch.setattr(nnet.cli.watch.Watch, "__call__", interrupted)


@pytest.mark.parametrize("more", [[], ["--early-stopping", "9"], ["--regression"]])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_resumed_training_ends_with_the_same_bits(
    run_nnet, save_npz, tmp_path, monkeypatch, more, optimizer
):
    data, kept = save_npz(), tmp_path / "kept"
    options = [*SMALL, "--augment", "shift1", "--optimizer", optimizer, *more]
    assert run_nnet("train", data, "-o", tmp_path / "a", *options)[0] == 0
    options += ["--resume", kept]
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        code, out, err = run_nnet("train", data, "-o", tmp_path / "b", *options)
        assert code == 130 and "nnet: interrupted: keeping epoch" in err and kept.exists()
        first = (tmp_path / "b").read_bytes()
    code, out, err = run_nnet("train", data, "-o", tmp_path / "b", *options)
    assert code == 0 and " 3/4 " in err and " 2/4 " not in err
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != first
    assert not kept.exists()


def test_a_resumed_folder_that_does_not_fit_in_memory(run_nnet, tmp_path, monkeypatch):
    pytest.importorskip("PIL")
    from pictures import colour_folder

    folder, kept = colour_folder(tmp_path / "colours"), tmp_path / "kept"
    monkeypatch.setattr(nnet.cli.data, "IN_MEMORY", 0)
    assert run_nnet("train", folder, "-o", tmp_path / "a", *SMALL)[0] == 0
    options = [*SMALL, "--resume", kept]
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        assert run_nnet("train", folder, "-o", tmp_path / "b", *options)[0] == 130
    assert run_nnet("train", folder, "-o", tmp_path / "b", *options)[0] == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            ["--epochs", "5"],
            "--learning-rate or --epochs: is 0.002 for 5 epochs, expected 0.0",
        ),
        (["--epochs", "3"], "--learning-rate or --epochs: is 0.002 for 3 epochs"),
        (["--learning-rate", "0.1"], "--learning-rate or --epochs: is 0.1 for 4 epochs"),
        (["--optimizer", "sgd", "--learning-rate", "0.002"], "--optimizer: is SGD"),
        (["--seed", "3"], "--seed: is 3, expected 0"),
        (["--batch-size", "3"], "--batch-size: is 3, expected 32"),
        (["--augment", "shift1"], "--augment: is "),
    ],
)
def test_a_training_that_is_resumed_otherwise(
    run_nnet, save_npz, tmp_path, monkeypatch, changes, message
):
    data, kept = save_npz(), tmp_path / "kept"
    options = ["train", data, "-o", tmp_path / "b", *SMALL, "--resume", kept, "-q"]
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        assert run_nnet(*options)[0] == 130
    before = kept.read_bytes()
    code, out, err = run_nnet(*options, *changes)
    assert code == 2 and out == "" and err.startswith(f"nnet: error: {message}")
    assert kept.read_bytes() == before


def test_what_is_no_checkpoint_stays(run_nnet, save_npz, tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("precious")
    code, _, err = run_nnet("train", save_npz(), "-o", tmp_path / "m", *SMALL, "--resume", kept)
    assert code == 2 and err.splitlines()[-1].startswith(f"nnet: error: {kept} is not a whole")
    assert kept.read_text() == "precious" and not (tmp_path / "m").exists()


# --- regression -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (2,)])
def test_regression(run_nnet, save_npz, tmp_path, shape):
    """Values far from 0 and of any unit come back in their own."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 6, 6))
    y = 5000 + 300 * X.mean(axis=(1, 2)).reshape(-1, *[1] * len(shape)) * np.ones(shape)
    data, model = save_npz(X=X, y=y), tmp_path / "m"
    options = ["--layers", "linear8", "--epochs", "60", "--regression", "--optimizer", "sgd"]
    code, out, err = run_nnet("train", data, "-o", model, *options)
    assert code == 0 and ("test R^2 0.99" in out or "test R^2 1.0" in out)
    n_values = shape[0] if shape else 1
    assert err.startswith(f"96 images to train on, 24 to test on: 6x6 grey, {n_values} value")
    network = nnet.NeuralNetwork.load(model)
    assert network.classes_ is None and network.target_shape_ == shape
    code, out, err = run_nnet("predict", model, data)
    rows = list(csv.reader(io.StringIO(out)))
    values = [f"value{i}" for i in range(n_values)] if shape else ["value"]
    assert rows[0] == ["row", *values]
    found = np.array([row[1:] for row in rows[1:]], float).reshape(y.shape)
    assert np.array_equal(found.astype(np.float32), network.predict(X[:, None]))
    found = json.loads(run_nnet("evaluate", model, data, "--format", "json", "--worst", "2")[1])
    assert found["r_squared"] > 0.99 and found["n_images"] == 120 and len(found["mistakes"]) == 2
    errors = np.abs(network.predict(X[:, None]) - y)
    assert found["mean_error"] == pytest.approx(errors.mean(), rel=1e-4)
    assert found["mistakes"][0]["row"] == errors.reshape(120, -1).max(axis=1).argmax()
    lines = run_nnet("evaluate", model, data, "--worst", "1")[1].splitlines()
    assert lines[0].startswith(("R^2 0.99", "R^2 1.0"))
    assert lines[-2].split() == ["row", "value", "predicted"]
    _, *values = lines[-1].split()
    assert len(values) == 2 * n_values and all(4 <= len(value) <= 6 for value in values)
    rows = list(csv.reader(io.StringIO(run_nnet("evaluate", model, data, "--format", "csv")[1])))
    assert rows[1][0] == "r_squared" and rows[-1][0] == "mistake"
    assert {len(row) for row in rows} == {4}


def test_test_values_have_no_influence(run_nnet, save_npz, bright_rows, tmp_path):
    X, y = bright_rows()
    rows = nnet.files.datasets.split(np.arange(30), None, 0.2)[1]
    other = y.astype(float)
    other[rows] += 1000
    for name, values in ("a", y.astype(float)), ("b", other):
        options = ["-o", tmp_path / name, *SMALL, "--regression"]
        assert run_nnet("train", save_npz(X=X, y=values), *options)[0] == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "y, message",
    [
        (np.full(30, np.nan), "y[0] has NaN, infinite or too large values"),
        (np.array(["a"] * 30), "y has dtype <U1, expected real numbers"),
        (np.ones(30), "expected at least 2 different values in y, got 1"),
        (np.ones((30, 2, 2)), "y has shape (30, 2, 2), expected one value, or a row of them"),
    ],
)
def test_values_that_are_none(run_nnet, save_npz, tmp_path, y, message):
    code, _, err = run_nnet("train", save_npz(y=y), "-o", tmp_path / "m", *SMALL, "--regression")
    assert code == 2 and message in err


def test_folders_have_labels(run_nnet, tmp_path):
    code, _, err = run_nnet("train", tmp_path, "--regression")
    assert code == 2 and "--regression needs values y, which a folder of images has not" in err
