"""What the `nnet` command refuses: one line on stderr, exit code 2, nothing written."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import nnet

SMALL = ["--layers", "conv4-3x3,relu,gap", "--epochs", "2"]


def objects():
    """An array that NumPy pickles."""
    array = np.empty(30, object)
    array[:] = "x"
    return array


@pytest.mark.parametrize(
    "args, message",
    [
        ("", "the following arguments are required: COMMAND"),
        ("tarin", "invalid choice: 'tarin'"),
        ("predict", "the following arguments are required: model, IMAGES"),
        ("train --epoch=3", "unrecognized arguments: --epoch=3"),
        ("train --epochs 0", "--epochs: expected a whole number of at least 1, got '0'"),
        ("train --batch-size 2.5", "--batch-size: expected a whole number of at least 1"),
        ("train --seed -1", "--seed: expected a whole number of at least 0, got '-1'"),
        ("train --threads 0", "--threads: expected a whole number of at least 1, got '0'"),
        ("train --threads 1000000", "n_threads is 1000000"),
        ("train --learning-rate 0", "--learning-rate: expected a number greater than 0, got '0'"),
        ("train --learning-rate nan", "--learning-rate: expected a number greater than 0"),
        ("train --learning-rate inf", "--learning-rate: expected a number greater than 0"),
        ("train --learning-rate 1e9", "in epoch 1: try a smaller --learning-rate"),
        ("train --momentum 1", "--momentum: expected a number of at least 0 and less than 1"),
        ("train --weight-decay -1", "--weight-decay: expected a number of at least 0, got '-1'"),
        ("train --test-fraction 1", "expected a number of at least 0 and less than 1, got '1'"),
        ("train --test-fraction x", "expected a number of at least 0 and less than 1, got 'x'"),
        ("train --test-fraction 0.001", "--test-fraction 0.001: cannot hold out 0.001 of the"),
        ("train --optimizer adm", "--optimizer: invalid choice: 'adm'"),
        ("train --optimizer adam --momentum 0.5", "--momentum is for --optimizer sgd, expected"),
        ("train --augment shift", "--augment: 'shift', expected shift2, crop2, rotate10"),
        ("train --augment flip,shift1.5", "--augment: 'shift1.5': "),
        ("train --augment zoom2", "--augment: 'zoom2': scale is 2.0"),
        ("train --early-stopping 0", "--early-stopping: expected a whole number of at least 1"),
        ("train --validation-fraction 0.1", "--validation-fraction is for --early-stopping"),
        ("train --resume no/c", "cannot write no/c: There is no such folder"),
        ("train --resume m -o m", "--resume and --output name one file, expected two"),
        ("train --layout CHWN", "--layout: invalid choice: 'CHWN'"),
        ("train --layout NHW", "--layout is for a data.npz"),
        ("train --size 8", "--size is for a folder of images, expected one"),
        ("train --size 8x", "--size: expected pixels as in 64, or HEIGHTxWIDTH as in 48x64"),
        ("train --size 0", "--size: expected pixels as in 64"),
        ("train --layers conv8-3x3,poool2", "--layers: layer 'poool2': expected conv16-3x3, pool2"),
        ("train --layers pool5,pool5", "--layers: layer 'pool5' after 'pool5': pooling"),
        ("train --layers linear4,conv8-3", "--layers: layer 'conv8-3' after 'linear4': expected 4"),
    ],
)
def test_bad_options(refused, args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*args.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["", "a\0b"])
@pytest.mark.parametrize(
    "args, name",
    [
        (["train", "-o", None], "-o/--output"),
        (["train", None], "DATA"),
        (["predict", None, "images.npz"], "model"),
        (["predict", "model", None], "IMAGES"),
        (["predict", "model", "images.npz", "-o", None], "-o/--output"),
    ],
)
def test_what_names_no_file(refused, path, args, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(*[path if arg is None else arg for arg in args])
    assert line == f"argument {name}: path is {path!r}, expected the name of a file"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"y": None}, "holds 'X', expected 'X' and 'y'"),
        ({"X": None, "images": np.ones(3)}, "holds 'y' and 'images', expected 'X' and 'y'"),
        ({"X": None, "y": None}, "holds nothing, expected 'X' and 'y'"),
        ({"X": np.ones((30, 36))}, "X has shape (30, 36), expected (n, height, width)"),
        ({"X": np.ones((30, 1, 1, 6, 6))}, "X has shape (30, 1, 1, 6, 6), expected (n, height"),
        ({"X": np.float64(3)}, "X has shape (), expected (n, height, width)"),
        ({"X": np.ones((30, 6, 0))}, "X: images have shape (30, 6, 0), expected no empty axis"),
        ({"X": np.ones((30, 3, 6, 3))}, "could mean several layouts, pass one of ['NCHW', 'NHWC']"),
        ({"X": np.full((30, 6, 6), "a")}, "X: images have dtype <U1, expected integers or floats"),
        ({"X": np.ones((30, 6, 6), complex)}, "X: images have dtype complex128, expected integers"),
        ({"X": np.where(np.arange(6) == 2, np.nan, np.ones((30, 6, 6)))}, "X[0] has NaN, infinite"),
        ({"X": np.full((30, 6, 6), np.inf)}, "X[0] has NaN, infinite or too large values"),
        ({"X": np.full((30, 6, 6), 1e300)}, "X[0] has NaN, infinite or too large values"),
        ({"X": objects()}, "holds Python objects, expected numbers or strings"),
        ({"y": objects()}, "holds Python objects, expected numbers or strings"),
        ({"y": np.arange(29)}, "X has 30 images and y has shape (29,), expected as many of both"),
        ({"y": np.eye(30)}, "y has shape (30, 30), expected one label per image"),
        ({"y": np.arange(30) / 2}, "y has fractional values, expected labels, or --regression"),
        ({"y": np.full(30, np.nan)}, "y has NaN or infinite values, expected finite labels"),
        ({"y": np.ones(30)}, "expected at least 2 different labels in y, got 1"),
        (
            {"X": np.ones((0, 6, 6)), "y": np.ones(0)},
            "expected at least 2 different labels in y, got 0",
        ),
        ({"y": np.arange(30)}, "--test-fraction 0.2: cannot hold out 0.2 of the images"),
    ],
)
def test_bad_arrays(save_npz, refused, tmp_path, changes, message):
    data = save_npz(**changes)
    line = refused("train", data, "-o", tmp_path / "m", *SMALL)
    assert message in line
    assert str(data) in line or line.startswith("--test-fraction")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda whole: b"", "is not a complete .npz file"),
        (lambda whole: b"X,y\n1,2\n", "is not a complete .npz file"),
        (lambda whole: whole[whole.index(b"\x93NUMPY") :][:9000], "is not a complete .npz file"),
        (lambda whole: whole[:-100], "is not a complete .npz file"),
        (
            lambda whole: whole[:500] + bytes([~whole[500] & 255]) + whole[501:],
            "is damaged: Bad CRC",
        ),
    ],
    ids=["empty", "text", "npy", "truncated", "changed"],
)
def test_files_that_are_no_npz(refused, save_npz, tmp_path, damage, message):
    data = save_npz()
    data.write_bytes(damage(data.read_bytes()))
    assert refused("train", data, "-o", tmp_path / "m").startswith(f"{data} {message}")


@pytest.mark.parametrize(
    "name, message", [("missing", ": No such file"), ("", " is a folder, expected a model")]
)
def test_files_that_cannot_be_opened(refused, save_npz, model, tmp_path, name, message):
    path = tmp_path / name
    if name:  # a folder may hold images
        assert refused("train", path, "-o", tmp_path / "m").startswith(f"{path}{message}")
        assert refused("predict", model, path).startswith(f"{path}{message}")
    assert refused("predict", path, save_npz()).startswith(f"{path}{message}")


def test_outputs_that_cannot_be_written(save_npz, refused, tmp_path, monkeypatch):
    """Found before training: it never starts."""
    monkeypatch.setattr(nnet.NeuralNetwork, "fit", None)
    data = save_npz()
    outputs = {
        tmp_path / "missing" / "m": "There is no such folder",
        tmp_path / ("n" * 250): "File name too long",
        data / "m": "There is no such folder",
        data: "it is an input",
    }
    for output, message in outputs.items():
        assert refused("train", data, "-o", output) == f"cannot write {output}: {message}"
    for output in tmp_path, Path(os.devnull):
        line = refused("train", data, "-o", output)
        assert line.startswith(f"cannot write: {output} is not a regular file")
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]  # no trial file is left


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_output_in_a_read_only_folder(save_npz, refused, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "Permission denied" in refused("train", save_npz(), "-o", tmp_path / "locked" / "m")


def test_predict_does_not_overwrite_its_inputs(refused, save_npz, model):
    for path in model, save_npz():
        before = path.read_bytes()
        line = refused("predict", model, save_npz(), "-o", path)
        assert line == f"cannot write {path}: it is an input"
        assert path.read_bytes() == before


def test_an_existing_model_survives_a_failed_training(save_npz, refused, tmp_path):
    (tmp_path / "m").write_text("precious")
    refused("train", save_npz(y=np.ones(30)), "-o", tmp_path / "m", *SMALL)
    diverging = ["--layers", "conv4-3x3,linear4", "--learning-rate", "1e9"]
    diverging += ["--optimizer", "sgd"]
    line = refused("train", save_npz(), "-o", tmp_path / "m", *diverging)
    assert re.fullmatch(r".* in epoch \d+: try a smaller --learning-rate", line)
    assert (tmp_path / "m").read_text() == "precious"


@pytest.mark.parametrize(
    "X, message",
    [
        (np.ones((5, 7, 6)), "X has images of shape (1, 7, 6), expected (1, 6, 6) as in training"),
        (np.ones((5, 3, 6, 6)), "X has images of shape (3, 6, 6), expected (1, 6, 6)"),
        (np.ones((5, 6, 6, 3)), "X has images of shape (3, 6, 6), expected (1, 6, 6)"),
        (np.ones((5, 36)), "X has shape (5, 36), expected (n, height, width)"),
        (np.full((5, 6, 6), np.nan), "X[0] has NaN"),
        (np.full((5, 6, 6), "a"), "X: images have dtype <U1, expected integers or floats"),
        (objects(), "holds Python objects"),
        (None, "holds 'y', expected 'X'"),
    ],
)
def test_images_that_do_not_fit_the_model(refused, save_npz, model, X, message):
    data = save_npz(X=X)
    line = refused("predict", model, data)
    assert message in line and str(data) in line


def test_models_that_are_none(refused, save_npz, model, tmp_path):
    data, whole = save_npz(), model.read_bytes()
    for contents in b"", b"no model", data.read_bytes(), whole[:-1], whole[:-4] + b"abcd":
        (tmp_path / "m").write_bytes(contents)
        assert refused("predict", tmp_path / "m", data).startswith(str(tmp_path / "m"))


def test_models_that_predict_more_than_a_row(refused, save_npz, tmp_path):
    for loss, y in (
        (nnet.MeanSquaredError(), np.ones((4, 1, 6, 6))),
        (
            nnet.BinaryCrossEntropy(),
            np.ones((4, 1, 6, 6), int),
        ),
    ):
        network = nnet.NeuralNetwork([nnet.Conv(1, 3), loss], rng=0)
        network.fit(np.ones((4, 1, 6, 6)), y, max_iter=1).save(tmp_path / "m")
        line = refused("predict", tmp_path / "m", save_npz())
        expected = "predicts an array of shape (1, 6, 6), expected one label or value"
        assert line == f"{tmp_path / 'm'} {expected}"


def test_models_that_label_pixels(refused, save_npz, tmp_path):
    network = nnet.NeuralNetwork([nnet.Conv(2, 1), nnet.LogRegression()], rng=0)
    network.build((1, 6, 6)).save(tmp_path / "m")
    line = refused("predict", tmp_path / "m", save_npz())
    assert line == f"{tmp_path / 'm'} labels pixels, expected a model with one label per image"


@pytest.mark.parametrize("package", ["tqdm", "safetensors", "sklearn.model_selection"])
def test_train_names_missing_extras(refused, save_npz, monkeypatch, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    line = refused("train", save_npz(), "-o", tmp_path / "m")
    name = "scikit-learn" if "sklearn" in package else package
    assert name in line and line.endswith(f": pip install {name}")


def test_a_package_that_cannot_be_imported_is_named(refused, save_npz, monkeypatch, tmp_path):
    (tmp_path / "tqdm.py").write_text("raise ImportError('half of it is missing')")
    monkeypatch.delitem(sys.modules, "tqdm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    line = refused("train", save_npz(), "-o", tmp_path / "m")
    assert line == "this needs the package tqdm: pip install tqdm"


def test_bare_train_names_scikit_learn(refused, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    line = refused("train", "-o", tmp_path / "m")
    assert line.endswith(": pip install scikit-learn")


def test_predict_names_missing_extras(refused, save_npz, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    line = refused("predict", model, save_npz())
    assert line.endswith("needs the package safetensors: pip install safetensors")


class Doubled(nnet.Flatten):
    """A layer of one's own."""


def test_models_with_layers_of_ones_own_are_for_python(refused, save_npz, tmp_path):
    layers = [Doubled(), nnet.Linear(3), nnet.LogRegression()]
    nnet.NeuralNetwork(layers, rng=0).build((1, 6, 6)).save(tmp_path / "own")
    line = refused("predict", tmp_path / "own", save_npz())
    assert line.startswith(f"{tmp_path / 'own'} has layers of your own") and "Python" in line
