"""`nnet train FOLDER`, `nnet predict MODEL IMAGES...`: image files in, labels out."""

import csv
import io
import shutil

import numpy as np
import pytest

import nnet
from nnet.cli import data

Image = pytest.importorskip("PIL.Image")
from pictures import COLOURS, colour_folder  # noqa: E402

SMALL = ["--layers", "conv4-3x3,relu,gap", "--epochs", "20", "--batch-size", "8"]


@pytest.fixture
def folder(tmp_path):
    return colour_folder(tmp_path / "colours")


@pytest.fixture
def model(run_nnet, folder, tmp_path):
    code, out, err = run_nnet("train", folder, "-o", tmp_path / "model", *SMALL)
    assert code == 0 and out.startswith("test accuracy 100.00% (5 of 5 images)\n")
    assert err.startswith("19 images to train on, 5 to test on: 12x12 3-channel, 3 classes\n")
    return tmp_path / "model"


def rows_of(out):
    return list(csv.reader(io.StringIO(out)))


def test_classes_and_preparation_stand_in_the_model(model):
    network = nnet.NeuralNetwork.load(model)
    assert network.classes_.tolist() == sorted(COLOURS)
    assert network.preparation.config() == {
        "size": [12, 12],
        "mode": "RGB",
        "crop": False,
        "filter": "bilinear",
    }


def test_predict_names_the_files(run_nnet, folder, model):
    files = [folder / "red" / "1.png", folder / "blue" / "0.png"]
    code, out, err = run_nnet("predict", model, *files)
    assert code == 0 and err == ""
    rows = rows_of(out)
    assert rows[0] == ["file", "label", *sorted(COLOURS)]
    assert [row[:2] for row in rows[1:]] == [[str(files[0]), "red"], [str(files[1]), "blue"]]
    X = nnet.load_images(files)
    expected = nnet.NeuralNetwork.load(model).predict_proba(X)
    assert np.array_equal(np.array([row[2:] for row in rows[1:]], np.float32), expected)


def test_predict_takes_folders(run_nnet, folder, model):
    code, out, _ = run_nnet("predict", model, folder / "red", folder / "green" / "7.png")
    rows = rows_of(out)[1:]
    assert code == 0 and [row[1] for row in rows] == ["red"] * 8 + ["green"]
    assert [row[0] for row in rows[:2]] == [f"{folder}/red/0.png", f"{folder}/red/1.png"]


def test_predict_prepares_images_as_training_did(run_nnet, folder, tmp_path):
    """Grey, cut and of another size, whatever comes."""
    options = [*SMALL, "--size", "6x5", "--mode", "L", "--crop"]
    assert run_nnet("train", folder, "-o", tmp_path / "m", *options)[0] == 0
    image = np.random.default_rng(0).integers(0, 256, (40, 90, 3)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "wide.png")
    _, out, _ = run_nnet("predict", tmp_path / "m", tmp_path / "wide.png")
    X = nnet.load_images(tmp_path / "wide.png", (6, 5), "L", crop=True)
    expected = nnet.NeuralNetwork.load(tmp_path / "m").predict_proba(X)
    assert np.array_equal(np.array(rows_of(out)[1][2:], np.float32), expected[0])


def test_what_does_not_fit_in_memory_is_read_again(run_nnet, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "IN_MEMORY", 100)
    code, out, err = run_nnet("train", folder, "-o", tmp_path / "m", *SMALL)
    assert code == 0 and out.startswith("test accuracy 100.00% (5 of 5 images)\n")
    line = "19 images take 0.0 GiB: all are checked now, and read in each epoch"
    assert err.startswith(f"{line}\n")
    network = nnet.NeuralNetwork.load(tmp_path / "m")
    assert network.classes_.tolist() == sorted(COLOURS) and network.preparation is not None


def test_predict_reads_some_at_once(run_nnet, folder, model, monkeypatch):
    _, expected, _ = run_nnet("predict", model, folder / "red")
    monkeypatch.setattr(data, "BATCH", 3)
    assert run_nnet("predict", model, folder / "red") == (0, expected, "")


def test_names_that_are_no_text(run_nnet, folder, model, tmp_path):
    name = b"\xff.png".decode("utf-8", "surrogateescape")
    try:
        shutil.copy(folder / "red" / "1.png", tmp_path / name)
    except OSError:
        pytest.skip("this file system has names of text alone")
    out = tmp_path / "out.csv"
    assert run_nnet("predict", model, tmp_path / name, "-o", out) == (0, "", "")
    assert b"\xff.png,red," in out.read_bytes()


# --- what is refused ----------------------------------------------------------------------


def test_a_broken_file_is_named_before_training(run_nnet, refused, folder, tmp_path):
    (folder / "red" / "3.png").write_bytes(b"no image")
    line = refused("train", folder, "-o", tmp_path / "m", "-q")
    assert line.startswith(f"{folder}/red/3.png is not a whole image that Pillow reads")
    assert not (tmp_path / "m").exists()


def test_huge_images_pass_without_a_word(run_nnet, refused, folder, tmp_path, monkeypatch):
    """Pillow warns of many pixels, and refuses twice as many."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert run_nnet("train", folder, "-o", tmp_path / "m", *SMALL, "-q")[2] == ""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    line = refused("train", folder, "-o", tmp_path / "m", *SMALL, "-q")
    assert line == f"{folder}/blue/0.png is too large, Pillow reads 20 pixels at most"


def test_folders_that_cannot_be_trained_on(run_nnet, refused, folder, tmp_path):
    (folder / "yellow").mkdir()
    line = refused("train", folder)
    assert line == f"{folder}/yellow has no images, expected some for each class"
    line = refused("train", folder / "red")
    assert line == f"{folder}/red has no folders in it, expected one for each class of images"
    shutil.rmtree(folder / "yellow")
    shutil.rmtree(folder / "red")
    shutil.rmtree(folder / "blue")
    line = refused("train", folder)
    assert line == f"{folder} has one folder, green, expected one for each class"


def test_images_of_several_sizes_need_one(run_nnet, refused, folder, tmp_path):
    Image.new("RGB", (5, 4)).save(folder / "red" / "8.png")
    line = refused("train", folder)
    assert line.startswith(f"{folder}/red/8.png has 4x5 pixels and {folder}/blue/0.png 12x12")
    assert line.endswith("or a size for all: size=64 in Python, --size 64 else")
    assert run_nnet("train", folder, "-o", tmp_path / "m", *SMALL, "--size", "10")[0] == 0


def test_models_of_arrays_take_no_files(run_nnet, refused, folder, save_npz, tmp_path):
    few = ["--layers", "gap", "--epochs", "1"]
    assert run_nnet("train", save_npz(), "-o", tmp_path / "m", *few)[0] == 0
    line = refused("predict", tmp_path / "m", folder / "red")
    assert line.startswith(f"{tmp_path / 'm'} was trained on arrays, expected a file such as")
    line = refused("predict", tmp_path / "m", tmp_path / "missing.png")
    assert line == f"{tmp_path}/missing.png: No such file or directory"


def test_predict_names_what_is_no_image(run_nnet, refused, folder, model, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    line = refused("predict", model, folder / "red" / "0.png", tmp_path / "text.png")
    assert line.startswith(f"{tmp_path}/text.png is not a whole image")
    line = refused("predict", model, "/dev/zero")
    assert line.startswith("/dev/zero is not a regular file, expected")


def test_arrays_and_files_do_not_mix(run_nnet, refused, folder, model, save_npz):
    line = refused("predict", model, save_npz(), folder / "red" / "0.png")
    assert line.endswith("is given beside others, expected one file of arrays alone")


def test_no_command_overwrites_an_image(run_nnet, refused, folder, model):
    image = folder / "red" / "0.png"
    line = refused("predict", model, folder / "blue", image, "-o", image)
    assert line == f"cannot write {image}: it is an input"
    for command in (
        ["predict", model, folder / "red"],
        ["evaluate", model, folder],
        ["train", folder],
    ):
        assert refused(*command, "-o", image) == line
    assert refused("train", folder, "--resume", image) == line


def test_options_for_folders_alone(run_nnet, refused, save_npz, folder):
    assert refused("train", save_npz(), "--crop").startswith("--crop is for a folder")
    assert refused("train", folder, "--layout", "NHW").startswith("--layout is for a")
