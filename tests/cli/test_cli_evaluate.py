"""`nnet evaluate`: accuracy, confusion matrix and worst mistakes, in three forms."""

import csv
import io
import json
import shutil

import numpy as np
import pytest

import nnet
from nnet.cli.output import table_text

pytest.importorskip("PIL")
from pictures import colour_folder

SMALL = ["--layers", "conv4-3x3,relu,gap", "--epochs", "20", "--batch-size", "8"]


@pytest.fixture
def model(run_nnet, save_npz, tmp_path):
    assert run_nnet("train", save_npz(), "-o", tmp_path / "model", *SMALL)[0] == 0
    return tmp_path / "model"


@pytest.fixture
def data(save_npz, bright_rows, model):
    """Images of which the network knows all, and labels of which three are wrong."""
    X, _ = bright_rows()
    y = nnet.NeuralNetwork.load(model).predict(X[:, None].astype(np.float32))
    y[[4, 7, 9]] = (y[[4, 7, 9]] + 1) % 3
    return save_npz(y=y)


def test_json(run_nnet, model, data, tmp_path):
    code, out, err = run_nnet("evaluate", model, data, "--format", "json")
    found = json.loads(out)
    assert code == 0 and err == ""
    assert found["accuracy"] == 0.9 and found["n_images"] == 30 and found["n_right"] == 27
    assert found["classes"] == ["0", "1", "2"]
    y = np.load(data)["y"]
    network = nnet.NeuralNetwork.load(model)
    probabilities = network.predict_proba(np.load(data)["X"][:, None])
    decided = probabilities.argmax(axis=1)
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (y, decided), 1)
    assert found["confusion"] == expected.tolist()
    assert sorted(each["row"] for each in found["mistakes"]) == [4, 7, 9]
    sure = [each["probability"] for each in found["mistakes"]]
    assert sure == sorted(sure, reverse=True)
    for each in found["mistakes"]:
        i = each["row"]
        assert (each["label"], each["predicted"]) == (str(y[i]), str(decided[i]))
        assert each["probability"] == pytest.approx(probabilities[i].max())


def test_csv_is_one_table_of_the_same(run_nnet, model, data):
    found = json.loads(run_nnet("evaluate", model, data, "--format", "json")[1])
    rows = list(csv.reader(io.StringIO(run_nnet("evaluate", model, data, "--format", "csv")[1])))
    assert rows[0] == ["what", "label", "predicted", "value", "row"]
    assert rows[1] == ["accuracy", "", "", "0.9", ""]
    counts = [int(row[3]) for row in rows if row[0] == "confusion"]
    assert np.reshape(counts, (3, 3)).tolist() == found["confusion"]
    mistakes = [[m["label"], m["predicted"], m["row"]] for m in found["mistakes"]]
    assert [[row[1], row[2], int(row[4])] for row in rows if row[0] == "mistake"] == mistakes


def test_table(run_nnet, model, data, tmp_path):
    code, out, _ = run_nnet("evaluate", model, data)
    lines = out.splitlines()
    assert code == 0 and lines[0] == "accuracy 90.00% (27 of 30 images)"
    assert lines[3].split() == ["label", "0", "1", "2", "accuracy"]
    assert lines[-4].split() == ["row", "label", "predicted", "probability"]
    assert {line.split()[0] for line in lines[-3:]} == {"4", "7", "9"}
    file = tmp_path / "out.txt"
    assert run_nnet("evaluate", model, data, "-o", file) == (0, "", "")
    assert file.read_text() == out
    few = run_nnet("evaluate", model, data, "--worst", "1")[1]
    assert few.splitlines() == lines[:-2]
    assert "worst" not in run_nnet("evaluate", model, data, "--worst", "0")[1]


def test_tables_are_aligned_whatever_the_names_are():
    """Characters of other widths, and names of files that would move the cursor."""
    rows = [["a", "日本", "e\u0301"], ["bb", "\x1b[2J", "\n"], ["c", "x", "y"]]
    expected = "a   日本     e\u0301\nbb  \\x1b[2J  \nc   x        y\n".replace("  \n", "\n")
    assert table_text(rows, left=3) == expected


def test_many_classes_are_a_list_of_confusions(run_nnet, save_npz, tmp_path):
    X, y = np.random.default_rng(0).normal(size=(60, 6, 6)), np.arange(60) % 30
    options = ["--layers", "gap", "--epochs", "1", "--test-fraction", "0"]
    assert run_nnet("train", save_npz(X=X, y=y), "-o", tmp_path / "m", *options)[0] == 0
    _, out, _ = run_nnet("evaluate", tmp_path / "m", save_npz(X=X, y=y))
    lines = out.splitlines()
    assert lines[2] == "images of each label" and lines[3].split() == [
        "label",
        "images",
        "accuracy",
    ]
    assert [line.split()[:2] for line in lines[4:34]] == [[str(i), "2"] for i in range(30)]
    assert max(map(len, lines)) <= 80
    assert lines[35:37] == [
        "labels that were taken for others most often",
        "label  predicted  images",
    ]


def test_folders(run_nnet, tmp_path):
    folder = colour_folder(tmp_path / "colours")
    assert run_nnet("train", folder, "-o", tmp_path / "m", *SMALL)[0] == 0
    shutil.move(folder / "red" / "0.png", folder / "blue" / "wrong.png")
    shutil.rmtree(folder / "green")  # what is missing is no mistake
    code, out, _ = run_nnet("evaluate", tmp_path / "m", folder, "--format", "json")
    found = json.loads(out)
    assert code == 0 and found["n_images"] == 16 and found["classes"] == ["blue", "green", "red"]
    assert found["confusion"] == [[8, 0, 1], [0, 0, 0], [0, 0, 7]]
    (mistake,) = found["mistakes"]
    assert mistake["file"] == f"{folder}/blue/wrong.png"
    assert (mistake["label"], mistake["predicted"]) == ("blue", "red")
    (folder / "red").rename(folder / "orange")
    code, out, err = run_nnet("evaluate", tmp_path / "m", folder)
    assert code == 2 and "y has the label 'orange', expected one of those of fit" in err


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"y": None}, "holds 'X', expected 'X' and 'y'"),
        ({"y": np.arange(30)}, "y has the label 3, expected one of those of fit"),
        ({"y": np.array(["a"] * 30)}, "y has dtype <U1, expected labels like int64"),
        ({"y": np.ones(29)}, "X has 30 images and y has shape (29,)"),
        ({"X": np.ones((0, 6, 6)), "y": np.ones(0)}, "there are no images, expected some"),
        ({"X": np.ones((30, 7, 6))}, "X has images of shape (1, 7, 6), expected (1, 6, 6)"),
    ],
)
def test_data_that_do_not_fit(run_nnet, model, save_npz, changes, message):
    data = save_npz(**changes)
    code, out, err = run_nnet("evaluate", model, data)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert message in err and str(data) in err
