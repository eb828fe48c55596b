"""Files of arrays: .npz and .npy, MNIST's IDX files, CIFAR's binary files, CSV with pixel columns.

`read` gives X and y of whichever it is: as the file has them, but for what CSV and CIFAR have flat.
"""

import csv
import gzip
import os
import reprlib
import warnings
import zlib
from contextlib import contextmanager
from math import isqrt, prod

import numpy as np

from nnet.files.datasets import damage_named, load_arrays
from nnet.files.images import are_bytes
from nnet.files.regular import check_regular

KNOWN = "a folder of images, or .npz, .npy, IDX (plain or .gz), .csv, .tsv, CIFAR's .bin"
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
CIFAR = 3 * 32 * 32  # bytes of an image, behind those of its labels
CIFAR_LABELS = {1: ("label",), 2: ("coarse", "fine")}  # of CIFAR-10 and CIFAR-100
LABEL_COLUMNS = "label", "labels", "class", "target", "y"
GZIP = b"\x1f\x8b"


def kind_of(path):
    """'npz', 'npy', 'idx', 'csv' or 'cifar', or None for all else, images among them.

    Raises
    ------
    OSError, ValueError
        For a file that cannot be opened, and for devices and pipes, which may have no end.
    """
    check_regular(path, "one of images or arrays")
    suffix = os.path.splitext(path)[1].lower()
    with open(path, "rb") as file:
        magic = file.read(6)
        if magic[:2] == GZIP:
            return "idx" if _is_idx(_unpacked(file)) else None
    if suffix == ".npz" or magic[:4] == b"PK\x03\x04":
        return "npz"
    if magic == b"\x93NUMPY":
        return "npy"
    if _is_idx(magic):
        return "idx"
    return {".csv": "csv", ".tsv": "csv", ".bin": "cifar", ".npy": "npy"}.get(suffix)


def read(path, x=None, y=None, with_labels=True, layout=None):
    """(X, y) of a file of arrays; y is None without labels.

    Parameters
    ----------
    path : str
    x, y : None or str
        Names of arrays in an .npz (default: 'X' and 'y'). Of a CSV file: how the names of the
        pixel columns begin, and the name or number of the column of labels. Of CIFAR-100: y is
        'fine' (the default) or 'coarse'. For .npy and IDX, y is the file of the labels; that of
        MNIST's images is found by its name.
    layout : None, 'NCHW' or 'NHWC'
        Of the pixels of colour images in CSV.

    Raises
    ------
    OSError, ValueError
    """
    kind = kind_of(path)
    if kind == "npz":
        names = [x or "X", *[y or "y"] * with_labels]
        try:
            return (*load_arrays(path, *names), None)[:2]
        except ValueError as error:
            if "holds" in str(error) and "objects" not in str(error) and not (x or y):
                raise ValueError(f"{error}: name others by --x and --y") from error
            raise
    if kind == "csv":
        return read_csv(path, x, y, with_labels, layout)
    if x is not None:
        raise ValueError(f"{path} has one array of images, expected no name for it")
    if kind == "cifar":
        return read_cifar(path, y)
    if kind is None:
        raise ValueError(f"{path} is of no known kind, expected {KNOWN}")
    X = _read_array(path, kind)
    if not with_labels:
        return X, None
    labels = _labels_of(path, kind, y)
    return X, _read_array(labels, kind_of(labels))


def _read_array(path, kind):
    """The one array of an .npy or IDX file."""
    if kind == "idx":
        return read_idx(path)
    if kind != "npy":
        raise ValueError(f"{path} is not an .npy or IDX file, expected one array")
    with open(path, "rb") as file, damage_named(path):
        return np.lib.format.read_array(file, allow_pickle=False)


def _labels_of(path, kind, y):
    """The file of the labels of images that are in a file of their own."""
    if y is not None:
        if not os.path.exists(y):
            raise ValueError(f"y is {y!r}, expected the file of the labels of {path}")
        return y
    folder, name = os.path.split(path)
    other = name.replace("images", "labels").replace("idx3", "idx1")
    if kind == "npy" or other == name:
        raise ValueError(f"{path} has images alone, expected --y FILE with their labels")
    labels = os.path.join(folder, other)
    if not os.path.exists(labels):
        raise ValueError(f"{path} has images alone, expected {labels}, or --y FILE with the labels")
    return labels


# --- MNIST, CIFAR -------------------------------------------------------------------------


def _is_idx(magic):
    return magic[:2] == b"\0\0" and len(magic) > 2 and magic[2] in IDX_TYPES


def _unpacked(file):
    """The first bytes of what a gzip file holds; if it is damaged, such as an IDX file has."""
    file.seek(0)
    try:
        return gzip.GzipFile(fileobj=file).read(6)
    except (OSError, EOFError, zlib.error):
        return bytes([0, 0, 8, 1, 0, 0])  # reading it will say what is wrong


@contextmanager
def _opened(path):
    with open(path, "rb") as file:
        is_packed = file.read(2) == GZIP
        file.seek(0)
        yield gzip.GzipFile(fileobj=file) if is_packed else file


def read_idx(path):
    """The array of an IDX file, plain or packed with gzip."""
    try:
        with _opened(path) as file:
            _, _, kind, n_axes = [*file.read(4), 0, 0, 0, 0][:4]
            lengths = file.read(4 * n_axes)
            if kind not in IDX_TYPES or len(lengths) != 4 * n_axes or n_axes == 0:
                raise ValueError(f"{path} is not an IDX file, as those of MNIST are")
            shape = np.frombuffer(lengths, ">u4").tolist()
            dtype = np.dtype(IDX_TYPES[kind])
            n_bytes = prod(shape) * dtype.itemsize
            data = _up_to(file, n_bytes + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if len(data) != n_bytes:
        found = "more" if len(data) > n_bytes else len(data)
        raise ValueError(f"{path} is damaged: it has {found} bytes of data, expected {n_bytes}")
    array = np.frombuffer(data, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def _up_to(file, n_bytes):
    """Bytes of a file: memory is taken by what it holds, not by a number that it names."""
    pieces: list[bytes] = []
    while n_bytes > 0 and (piece := file.read(min(n_bytes, 2**20))):
        pieces.append(piece)
        n_bytes -= len(piece)
    return b"".join(pieces)


def read_cifar(path, y=None):
    """(X, labels) of a binary file of CIFAR-10 or CIFAR-100: X is (n, 3, 32, 32) of uint8."""
    size = os.path.getsize(path)
    fitting = [n for n in CIFAR_LABELS if size and size % (CIFAR + n) == 0]
    if not fitting:
        raise ValueError(
            f"{path} has {size} bytes, expected a multiple of {CIFAR + 1} or {CIFAR + 2}, as "
            "CIFAR's files have"
        )
    n_labels = fitting[0]
    names = CIFAR_LABELS[n_labels]
    if (y or names[-1]) not in names:
        raise ValueError(f"y is {y!r}, expected one of {names} for {path}")
    records = np.fromfile(path, np.uint8).reshape(-1, CIFAR + n_labels)
    X = records[:, n_labels:].reshape(-1, 3, 32, 32)
    return X, records[:, names.index(y or names[-1])].astype(np.int64)


# --- CSV ----------------------------------------------------------------------------------


def read_csv(path, x=None, y=None, with_labels=True, layout=None):
    """(X, y) of a CSV file with a column for each pixel, and one for the label."""
    first, delimiter = _first_line(path)
    numbers = [str(i) for i in range(len(first))]  # as pandas names columns that have no names
    has_header = first == numbers or not all(map(_is_number, first))
    label = _label_column(path, first, has_header, y, with_labels)
    columns = [i for i, name in enumerate(first) if name and i != label]  # its index has no name
    if x is not None:
        columns = [i for i in columns if has_header and first[i].startswith(x)]
    if not columns:
        raise ValueError(f"{path} has no columns of pixels, expected some beside the labels")
    options = {
        "delimiter": delimiter,
        "skiprows": int(has_header),
        "comments": None,
        "quotechar": '"',
        "encoding": "utf-8-sig",
    }
    labels = None
    with _csv_errors(path):
        X = np.loadtxt(path, np.float32, usecols=columns, ndmin=2, **options)
        X = X.astype(np.uint8) if are_bytes(X) else X  # a text has no types
        if with_labels:
            labels = _as_numbers(np.loadtxt(path, str, usecols=label, ndmin=1, **options))
    return _unflattened(path, X, layout), labels


@contextmanager
def _csv_errors(path):
    """A context in which NumPy reads a text: what it says is for users of NumPy."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lines without data
            yield
    except ValueError as error:
        text = str(error).partition(";")[0].rstrip(".")  # the rest advises to use its arguments
        raise ValueError(f"{path}: {text}, expected numbers in every column of pixels") from error


def _first_line(path):
    """(cells, delimiter)"""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            line = file.readline(2**24)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text in UTF-8: {error.reason}") from error
    if not line.strip():
        raise ValueError(f"{path} has no first line, expected numbers, or the names of columns")
    delimiter = max(",;\t", key=line.count)
    try:
        cells = next(csv.reader([line], delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(f"{path} is not a CSV file: {error}") from error
    return [cell.strip() for cell in cells], delimiter


def _label_column(path, first, has_header, y, is_needed):
    """The number of the column of labels; None if there is none, and none is needed."""
    if y is not None:
        if has_header and first.count(y) == 1:
            return first.index(y)
        if y.isdecimal() and int(y) < len(first):
            return int(y)
        raise ValueError(f"{path} has no column {y!r}, expected one of {_few(first)}")
    found = [i for i, name in enumerate(first) if name.lower() in LABEL_COLUMNS]
    if has_header and len(found) == 1:
        return found[0]
    if not is_needed:
        return None
    if not has_header:
        raise ValueError(
            f"{path} has no line of names, expected --y with the number of the column of labels, "
            "such as --y 0 for the first"
        )
    raise ValueError(
        f"{path} has columns {_few(first)}, expected one of {LABEL_COLUMNS}, or --y with the name "
        "of the column of labels"
    )


def _few(names):
    return ", ".join(map(reprlib.repr, names[:4])) + (", ..." if len(names) > 4 else "")


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _as_numbers(labels):
    """Labels as ints or floats, if all of them are such."""
    for dtype in np.int64, np.float64:
        try:
            return labels.astype(dtype)
        except (ValueError, OverflowError):
            continue
    return labels


def _unflattened(path, X, layout):
    """Rows of pixels as square images."""
    n_pixels = X.shape[1]
    for n_channels in 1, 3:
        side = isqrt(n_pixels // n_channels)
        if n_channels * side * side != n_pixels:
            continue
        if n_channels == 1:
            return X.reshape(-1, side, side)
        if layout not in ("NCHW", "NHWC"):
            raise ValueError(
                f"{path} has {n_pixels} columns of pixels, {side}x{side} in colours, expected "
                "--layout NCHW if all of one colour come first, or NHWC if those of one pixel do"
            )
        return X.reshape(-1, *((3, side, side) if layout == "NCHW" else (side, side, 3)))
    raise ValueError(
        f"{path} has {n_pixels} columns of pixels, expected those of square images, such as 784: "
        "--y NUMBER names one of labels, --x PREFIX the pixels"
    )


def joined(arrays, paths):
    """The arrays of several files as one."""
    for array, path in zip(arrays, paths):
        if array.shape[1:] != arrays[0].shape[1:] or array.dtype.kind != arrays[0].dtype.kind:
            raise ValueError(
                f"{path} has shape {array.shape} of {array.dtype}, expected it like {paths[0]}: "
                f"{arrays[0].shape} of {arrays[0].dtype}"
            )
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
