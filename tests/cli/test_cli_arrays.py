"""Files of arrays that the `nnet` command reads: .npy, .npz, IDX, CIFAR, CSV."""

import csv
import gzip
import io
import struct

import numpy as np
import pandas
import pytest

import nnet
from nnet.cli.arrays import kind_of, read, read_csv, read_idx

SMALL = ["--layers", "conv4-3x3,relu,gap", "--epochs", "2"]
CODES = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}


def write_idx(path, array, dtype="u1", packed=False):
    data = bytes([0, 0, CODES[dtype], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    data += array.astype(dtype).tobytes()
    path.write_bytes(gzip.compress(data) if packed else data)
    return path


def write_csv(path, rows, delimiter=","):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def labels_of(out):
    return [row[1] for row in csv.reader(io.StringIO(out))][1:]


# --- one data set in every form gives one model ---------------------------------------------


def forms(folder, X, y):
    """(name, arguments of train, arguments of predict) for grey images of bytes."""
    np.savez(folder / "data.npz", X=X, y=y)
    yield "npz", ["data.npz"], ["data.npz"]
    np.savez(folder / "other.npz", x_train=X, y_train=y)
    keys = ["--x", "x_train"]
    yield "keys", ["other.npz", *keys, "--y", "y_train"], ["other.npz", *keys]
    np.save(folder / "x.npy", X)
    np.save(folder / "labels.npy", y)
    yield "npy", ["x.npy", "--y", "labels.npy"], ["x.npy"]
    for packed, suffix in (False, ""), (True, ".gz"):
        write_idx(folder / f"some-images-idx3-ubyte{suffix}", X, packed=packed)
        write_idx(folder / f"some-labels-idx1-ubyte{suffix}", y, packed=packed)
        name = f"some-images-idx3-ubyte{suffix}"
        yield f"idx{suffix}", [name], [name]
    write_idx(folder / "x.idx", X)
    yield "idx-npy", ["x.idx", "--y", "labels.npy"], ["x.idx"]


def test_one_model_from_every_form(run_nnet, bright_rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X, y = bright_rows(dtype=np.uint8)
    y = y.astype(np.uint8)  # as IDX has them: classes keep their dtype
    models, tables = set(), set()
    for name, train, predict in forms(tmp_path, X, y):
        assert run_nnet("train", *train, "-o", "m", *SMALL)[0] == 0, name
        models.add((tmp_path / "m").read_bytes())
        tables.add(run_nnet("predict", "m", *predict))
        assert run_nnet("evaluate", "m", *train)[0] == 0, name
    assert len(models) == 1 and len(tables) == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv(run_nnet, bright_rows, tmp_path, monkeypatch, delimiter):
    monkeypatch.chdir(tmp_path)
    X, y = bright_rows(dtype=np.uint8)
    np.savez("data.npz", X=X, y=y)
    names = ["label", *(f"pixel{i}" for i in range(36))]
    rows = [[label, *x.ravel()] for label, x in zip(y, X)]
    write_csv("first.csv", [names, *rows], delimiter)
    write_csv("last.csv", [[*row[1:], row[0]] for row in [names, *rows]], delimiter)
    write_csv("none.csv", rows, delimiter)
    write_csv("more.csv", [["id", "kind", *names[1:]], *([7, *row] for row in rows)], delimiter)
    runs = [["data.npz"], ["first.csv"], ["last.csv"], ["none.csv", "--y", "0"]]
    runs.append(["more.csv", "--y", "kind", "--x", "pixel"])
    models = set()
    for run in runs:
        assert run_nnet("train", *run, "-o", "m", *SMALL)[0] == 0
        models.add((tmp_path / "m").read_bytes())
    assert len(models) == 1
    write_csv("pixels.csv", [names[1:], *(row[1:] for row in rows)], delimiter)
    tables = {run_nnet("predict", "m", *run) for run in [*runs, ["pixels.csv"]]}
    assert len(tables) == 1


@pytest.mark.parametrize("names", ["numbers", "texts", "index"])
def test_csv_as_pandas_writes_it(run_nnet, tmp_path, monkeypatch, names):
    """Numbers as names of columns are no image, and the index is no pixel."""
    monkeypatch.chdir(tmp_path)
    frame = pandas.DataFrame(np.arange(30 * 5).reshape(30, 5) % 3)
    if names != "numbers":
        frame.columns = ["label", *"abcd"]
    frame.to_csv("a.csv", index=names == "index")
    y = ["--y", "0"] if names == "numbers" else []
    X, labels = read_csv("a.csv", y="0" if y else None)
    assert X.shape == (30, 2, 2) and labels.tolist() == frame.iloc[:, 0].tolist()
    assert run_nnet("train", "a.csv", *y, "-o", "m", "--layers", "gap", "--epochs", "1")[0] == 0
    frame.iloc[:, 1:].set_axis(frame.columns[:-1] if y else [*"abcd"], axis=1).to_csv(
        "b.csv", index=names == "index"
    )
    assert run_nnet("predict", "m", "b.csv") == run_nnet("predict", "m", "a.csv", *y)


def test_csv_with_lines_that_are_blank(run_nnet, tmp_path, refused):
    """They are left out without a word."""
    lines = ["label,a", *(f"{i % 2},{i}" for i in range(30))]
    (tmp_path / "a.csv").write_text("\n".join([*lines, "", "", ""]))
    assert read_csv(tmp_path / "a.csv")[0].shape == (30, 1, 1)
    (tmp_path / "a.csv").write_text(lines[0])
    assert "expected at least 2 different labels" in refused("train", tmp_path / "a.csv")


def test_columns_of_labels_among_those_of_pixels(run_nnet, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "a.csv", [[i % 2, i, 2, 3, 4] for i in range(30)])
    options = ["--y", "0", "-o", "m", "--layers", "gap", "--epochs", "1"]
    assert run_nnet("train", "a.csv", *options)[0] == 0
    assert refused("predict", "m", "a.csv") == (
        "a.csv has 5 columns of pixels, expected those of square images, such as 784: "
        "--y NUMBER names one of labels, --x PREFIX the pixels"
    )


def test_labels_of_csv_may_be_texts(tmp_path):
    rows = [["class", "a", "b", "c", "d"], ["one, two", 1, 2, 3, 4], ['"x"', 5, 6, 7, 8.5]]
    X, y = read_csv(write_csv(tmp_path / "a.csv", rows))
    assert y.tolist() == ["one, two", '"x"'] and X.shape == (2, 2, 2) and X[1, 1, 1] == 8.5
    assert read_csv(write_csv(tmp_path / "a.csv", rows), with_labels=False)[1] is None
    rows = [["y", "a"], [1.5, 0], [-2, 1]]
    assert read_csv(write_csv(tmp_path / "a.csv", rows))[1].tolist() == [1.5, -2]


@pytest.mark.parametrize("layout, shape", [("NCHW", (2, 3, 2, 2)), ("NHWC", (2, 2, 2, 3))])
def test_colours_of_csv(tmp_path, layout, shape):
    rows = [["y", *range(12)], *([label, *range(12)] for label in "ab")]
    X, _ = read_csv(write_csv(tmp_path / "a.csv", rows), layout=layout)
    assert np.array_equal(X, np.tile(np.arange(12), 2).reshape(shape))
    with pytest.raises(ValueError, match="2x2 in colours, expected --layout NCHW if all of one"):
        read_csv(tmp_path / "a.csv")


@pytest.mark.parametrize("n_labels", [1, 2])
def test_cifar(run_nnet, tmp_path, n_labels):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 3, 32, 32)).astype(np.uint8)
    labels = np.stack([np.arange(40) % 2, np.arange(40) % 5], axis=1).astype(np.uint8)
    records = np.concatenate([labels[:, :n_labels], images.reshape(40, -1)], axis=1)
    for i in range(2):
        (tmp_path / f"{i}.bin").write_bytes(records[20 * i : 20 * i + 20].tobytes())
    X, y = read(str(tmp_path / "0.bin"))
    assert np.array_equal(X, images[:20]) and np.array_equal(y, labels[:20, n_labels - 1])
    few = ["--layers", "pool8,gap", "--epochs", "1", "-o", tmp_path / "m"]
    code, _, err = run_nnet("train", tmp_path / "0.bin", tmp_path / "1.bin", *few)
    assert code == 0
    n_classes = 2 if n_labels == 1 else 5
    assert err.startswith(f"32 images to train on, 8 to test on: 32x32 3-channel, {n_classes}")
    assert len(labels_of(run_nnet("predict", tmp_path / "m", tmp_path / "0.bin")[1])) == 20
    if n_labels == 2:
        assert np.array_equal(read(str(tmp_path / "0.bin"), y="coarse")[1], labels[:20, 0])


@pytest.mark.parametrize("dtype", CODES)
def test_every_type_of_idx(tmp_path, dtype):
    array = np.arange(24).reshape(2, 3, 4)
    for packed in False, True:
        found = read_idx(write_idx(tmp_path / "a", array, dtype, packed))
        assert np.array_equal(found, array) and found.dtype == np.dtype(dtype).newbyteorder("=")


def test_images_are_no_arrays(tmp_path):
    for data in b"\x89PNG\r\n\x1a\n", b"", b"\0", b"\0\0", gzip.compress(b"text"):
        (tmp_path / "a.png").write_bytes(data)
        assert kind_of(tmp_path / "a.png") is None


# --- what is refused ------------------------------------------------------------------------


def test_files_that_are_damaged(refused, tmp_path):
    whole = write_idx(tmp_path / "x-images-idx3", np.zeros((30, 6, 6))).read_bytes()
    labels = tmp_path / "y.npy"
    np.save(labels, np.arange(30) % 3)
    packed = gzip.compress(whole)
    forged = whole[:4] + struct.pack(">3I", *[2**32 - 1] * 3) + whole[16:]
    for data, message in [
        (whole[:-1], "is damaged: it has 1079 bytes of data, expected 1080"),
        (whole + b"0", "is damaged: it has more bytes of data, expected 1080"),
        (forged, "is damaged: it has 1080 bytes of data, expected "),
        (whole[:9], "is not an IDX file"),
        (packed[:-20], "is damaged: "),
        (packed[:30] + bytes(20) + packed[50:], "is damaged: "),
        (b"\x93NUMPY\1\0", "is damaged: "),
        (
            b"\x93NUMPY\1\0v\0{'descr': '<f8', 'fortran_order': False, 'shape': (3,)}",
            "is damaged: ",
        ),
        (gzip.compress(b"text"), "is of no known kind, expected a folder of images, or .npz"),
        (b"", "is of no known kind"),
        (b"text", "is of no known kind"),
    ]:
        path = tmp_path / "x"
        path.write_bytes(data)
        line = refused("train", path, "--y", labels, "-o", tmp_path / "m")
        assert line.startswith(f"{path} {message}")


def test_an_npy_in_name_alone(refused, tmp_path):
    (tmp_path / "x.npy").write_bytes(bytes(100))
    line = refused("train", tmp_path / "x.npy", "--y", tmp_path / "x.npy")
    assert line.startswith(f"{tmp_path}/x.npy is damaged: the magic string is not correct")


def test_labels_that_are_missing(refused, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((30, 6, 6)))
    line = refused("train", tmp_path / "x.npy")
    assert line == f"{tmp_path}/x.npy has images alone, expected --y FILE with their labels"
    line = refused("train", tmp_path / "x.npy", "--y", "y")
    assert line == f"y is 'y', expected the file of the labels of {tmp_path}/x.npy"
    line = refused("train", tmp_path / "x.npy", "--x", "y")
    assert line.endswith("has one array of images, expected no name for it")
    path = write_idx(tmp_path / "t-images-idx3", np.zeros((30, 6, 6)))
    line = refused("train", path)
    assert line == (
        f"{path} has images alone, expected {tmp_path}/t-labels-idx1, or --y FILE with the labels"
    )
    (tmp_path / "y.txt").write_text("1")
    line = refused("train", path, "--y", tmp_path / "y.txt")
    assert line == f"{tmp_path}/y.txt is not an .npy or IDX file, expected one array"


@pytest.mark.parametrize(
    "text, args, message",
    [
        ("", "", "has no first line, expected numbers, or the names"),
        ("1,2,3,4,5\n", "", "has no line of names, expected --y with the number of the column"),
        ("a,b,c,d,e\n1,2,3,4,5\n", "", "has columns 'a', 'b', 'c', 'd', ..., expected one of ("),
        ("a,b\n1,2\n", "--y z", "has no column 'z', expected one of 'a', 'b'"),
        ("1,2\n", "--y 7", "has no column '7', expected one of '1', '2'"),
        ("y\n1\n", "", "has no columns of pixels, expected some beside the labels"),
        ("y,a\n1,x\n", "", "could not convert string 'x' to float32 at row 0, column 2"),
        ("y,a\n1,2\n3\n", "", "invalid column index 1 at row 2"),
        ("y,a,b\n1,2,3\n", "", "has 2 columns of pixels, expected those of square images"),
        ("y,a\n1,\xff\n", "", "could not convert"),
        ("y,a\n0,1\n1,nan\n", "", "X[1] has NaN"),
        (f"y,{'a' * 200000}\n0,1\n", "", "is not a CSV file: field larger than field limit"),
        (f"{'a' * 20000}\n0\n", "", "has columns 'aaaaaaaaaaaa...aaaaaaaaaaaaa', expected one"),
    ],
)
def test_csv_that_makes_no_sense(refused, tmp_path, text, args, message):
    path = tmp_path / "a.csv"
    path.write_text(text, encoding="utf-8")
    line = refused("train", path, *args.split(), "-o", tmp_path / "m", "-q")
    assert line.startswith(str(path)) and message in line


def test_cifar_of_another_size(refused, tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(3000))
    line = refused("train", tmp_path / "a.bin")
    assert line.endswith(
        "has 3000 bytes, expected a multiple of 3073 or 3074, as CIFAR's files have"
    )
    (tmp_path / "a.bin").write_bytes(bytes(3073))
    assert "y is 'fine', expected one of ('label',)" in refused(
        "train", tmp_path / "a.bin", "--y", "fine"
    )


def test_files_that_do_not_go_together(refused, save_npz, tmp_path):
    np.savez(tmp_path / "b.npz", X=np.ones((5, 7, 7)), y=np.arange(5))
    line = refused("train", save_npz(), tmp_path / "b.npz")
    assert line.startswith(f"{tmp_path}/b.npz has shape (5, 1, 7, 7) of float32, expected it like")
    line = refused("train", save_npz(), tmp_path)
    assert line == f"{tmp_path} is given beside others, expected one folder alone"


def test_names_of_others_are_hinted_at(refused, save_npz, tmp_path):
    line = refused("train", save_npz(X=None, x_train=np.ones(3)))
    assert line.endswith("expected 'X' and 'y': name others by --x and --y")
    assert nnet.cli.main(["train", "--x", "a"]) == 2  # the digits have no names


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom"])
@pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
def test_endless_devices_are_refused_at_once(
    refused, save_npz, run_nnet, tmp_path, device, command
):
    args = [command, device]
    if command != "train":
        assert run_nnet("train", save_npz(), "-o", tmp_path / "m", *SMALL)[0] == 0
        args.insert(1, tmp_path / "m")
    assert refused(*args) == f"{device} is not a regular file, expected one of images or arrays"
