"""Targets and tables as they are given: labels of one kind, values, columns of pandas."""

import ctypes
from array import array
from collections import UserDict, UserList, UserString, deque
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
from networks import mlp

from nnet.training.data import Images, as_images, as_labels, as_values, check_lengths, encode

# --- labels -----------------------------------------------------------------------


class Sequence:
    """No class of Python's own, but NumPy asks it for its items."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Once(Sequence):
    """As a file may be: its items are there once."""

    def __iter__(self):
        items, self.items = self.items, [None] * len(self.items)
        return iter(items)


class ByName(Sequence):
    """NumPy takes what has keys for one object."""

    def __getitem__(self, index):
        raise KeyError(index)


@pytest.mark.parametrize(
    "y, types",
    [
        (["a", 1, "b"], ["int", "str"]),
        ([True, 2], ["bool", "int"]),
        ([np.True_, 2], [np.bool_.__name__, "int"]),
        ([True, 1.0], ["bool", "float"]),
        ([1, 2.5, "x"], ["float", "int", "str"]),
        ([b"a", "a"], ["bytes", "str"]),
        ([1, b"a"], ["bytes", "int"]),
        ([np.str_("a"), 1], ["int", "str_"]),
        ([np.float32(1), "a"], ["float32", "str"]),
        ([None, "a"], ["NoneType", "str"]),
        ([None, 1], ["NoneType", "int"]),
        (["a", np.nan], ["float", "str"]),
        ([1, pd.NA], ["NAType", "int"]),
        (["a", pd.NaT], ["NaTType", "str"]),
        ([pd.NA, pd.NA], ["NAType"]),
        ([1, 1j], ["complex", "int"]),
        ([np.datetime64(0, "s"), 1], ["datetime64", "int"]),
        ([np.array(1), np.array("a")], ["int64", "str_"]),
        ([np.array(1), True], ["bool", "int64"]),
    ],
)
def test_labels_of_several_types(y, types):
    objects = np.empty(len(y), object)
    objects[:] = y
    for given in (y, tuple(y), deque(y), UserList(y), Sequence(y), Once(y), y * 1000, objects):
        with pytest.raises(TypeError) as caught:
            as_labels(given, "validation y")
        assert str(caught.value) == (
            f"validation y has labels of types {types}, expected all bools, numbers or strings"
        )


@pytest.mark.parametrize(
    "y, dtype",
    [
        ([1, 2], "i8"),
        ([1, 2.0], "f8"),
        ([np.int8(1), 2], "i8"),
        ([np.int8(1), np.int8(2)], "i1"),
        ([np.int8(1), 2, np.float32(3)], "f8"),
        ([True, np.False_], "?"),
        (["a", np.str_("bc")], "U2"),
        ([b"a", np.bytes_(b"bc")], "S2"),
        ([np.array(1), np.array(2)], "i8"),
        ([2**63, 2**63 + 1], "u8"),
        ([2**53 + 1, 2], "i8"),
        (range(3), "i8"),
        (deque(["a", "b"]), "U1"),
        (Sequence(["a", "b"]), "U1"),
        (Sequence([np.int8(1), np.int8(2)]), "i1"),
        (UserDict(a=1, b=2), "U1"),
        (array("f", [1, 2]), "f4"),
        (array("h", [1, 2]), "i2"),
        ((ctypes.c_int16 * 2)(1, 2), "i2"),
        (memoryview(b"ab"), "u1"),
        (bytearray(b"ab"), "u1"),
        ([], "f8"),
        (np.array([np.str_("a"), "b"], object), "U1"),
        (np.array([1, 2.0], object), "f8"),
        (np.array(["a", "b"], np.dtypes.StringDType()), "U1"),
    ],
)
def test_labels_of_one_kind(y, dtype):
    labels = as_labels(y)
    assert labels.dtype == np.dtype(dtype)
    assert labels.tolist() == list(y)


@pytest.mark.parametrize(
    "y, error, message",
    [
        ([[1], [2]], ValueError, r"^y has shape \(2, 1\), .* image: \(n_imgs,\), as y\.ravel\(\)$"),
        (np.eye(2), ValueError, r"image: \(n_imgs,\), as y\.argmax\(axis=1\) of one-hot rows$"),
        ([["a", "b"]], ValueError, r"^y has shape \(1, 2\), .* per image: \(n_imgs,\)$"),
        (np.zeros((2, 2, 2)), ValueError, r"^y has shape \(2, 2, 2\), .* image: \(n_imgs,\)$"),
        ([[1], ["a"]], ValueError, r"^y has shape \(2, 1\)"),
        ([[1], [2, 3]], ValueError, "^y has items that differ in shape"),
        ([1, [2]], ValueError, "^y has items that differ in shape"),
        ("abc", ValueError, r"^y has shape \(\)"),
        ({1, 2}, ValueError, r"^y has shape \(\)"),
        ({1: 2}, ValueError, r"^y has shape \(\)"),
        ({1: 2}.values(), ValueError, r"^y has shape \(\)"),
        (MappingProxyType({1: 2}), ValueError, r"^y has shape \(\)"),
        (iter([1, 2]), ValueError, r"^y has shape \(\)"),
        (ByName([1, 2]), ValueError, r"^y has shape \(\)"),
        ([UserString("a")] * 2, ValueError, "^y has items that differ in shape"),
        (UserDict({1: 2, "a": 3}), TypeError, r"^y has labels of types \['int', 'str'\]"),
        (Sequence([[1], [2, 3]]), ValueError, "^y has items that differ in shape"),
        ([Sequence([1]), Sequence([2])], ValueError, r"^y has shape \(2, 1\)"),
        ([1, np.nan], ValueError, "^y has NaN or infinite values, expected finite labels"),
        ([1, 2.5], ValueError, "^y has fractional values"),
        ([2**53 + 1, 1.0], ValueError, "^y has integers that float64 cannot tell apart"),
        ([2**63, -1], ValueError, "^y has integers that float64 cannot tell apart"),
        ([2**64], TypeError, "^y has dtype object"),
        ([1j], TypeError, r"^y has labels of types \['complex'\]"),
        (np.zeros(2, "M8[s]"), TypeError, r"^y has dtype datetime64\[s\]"),
    ],
)
def test_what_is_no_labels(y, error, message):
    with pytest.raises(error, match=message):
        as_labels(y)


def test_a_network_refuses_mixed_labels_and_masks():
    with pytest.raises(TypeError, match="y has labels of types"):
        mlp().fit(np.eye(3), ["a", 1, "b"])
    with pytest.raises(TypeError, match="X.* is a MaskedArray, expected an array without a mask"):
        mlp().fit(np.ma.array(np.eye(3)), [0, 1, 2])


# --- the other checks of targets ------------------------------------------------------


def test_values():
    assert as_values([1, 2], np.float32).dtype == np.float32
    assert as_values(np.array([[1, 2.5]], object), np.float64)[:].tolist() == [[1, 2.5]]
    with pytest.raises(
        ValueError, match=r"^validation y\[1\] has NaN, infinite or too large values"
    ):
        as_values([0, 1e300, np.nan], np.float32, name="validation y")
    with pytest.raises(ValueError, match=r"^y has shape \(\), expected \(n_imgs, \.\.\.\)"):
        as_values(1, np.float32)
    with pytest.raises(ValueError, match=r"^y has shape \(3,\), expected \(n_imgs, 2\)$"):
        as_values([1, 2, 3], np.float32, (2,))
    with pytest.raises(TypeError, match="^y has dtype <U1, expected real numbers"):
        as_values(["a"], np.float32)


@pytest.mark.parametrize(
    "y, shape",
    [
        ([0, 1], r"\(2,\)"),
        ([[0, 1]], r"\(1, 2\)"),
        (np.zeros((2, 3)), r"\(2, 3\)"),
        (pd.Series([1]), r"\(1,\)"),
        (1, r"\(\)"),
        ("abc", r"\(\)"),
        (None, r"\(\)"),
        ({1, 2, 3}, r"\(\)"),
        (iter([1, 2, 3]), r"\(\)"),
        (Sequence([1, 2]), r"\(2,\)"),
    ],
)
def test_lengths(y, shape):
    X = Images(np.zeros((3, 4)))
    with pytest.raises(ValueError, match=f"^X has 3 images and y has shape {shape}, expected as"):
        check_lengths(X, y)
    with pytest.raises(ValueError, match="^validation X has 3 images and validation y has shape"):
        check_lengths(X, y, "validation X", "validation y")


def test_a_memory_without_axes_has_no_length():
    with pytest.raises(ValueError, match=r"^X has 1 images and y has shape \(\)"):
        check_lengths(np.zeros((1, 4)), memoryview(np.array(1)))


def test_lengths_that_agree():
    sequence = Sequence([1, 2, 3])
    for y in ([1, 2, 3], [[1], [2], [3]], sequence, np.zeros((3, 2)), range(3), pd.Series([1] * 3)):
        check_lengths(Images(np.zeros((3, 4))), y)
        check_lengths(np.zeros((3, 4)), y)


def test_items_are_asked_for_once():
    labels = Once(["a", "b", "c"])
    check_lengths(np.eye(3), labels)
    assert as_labels(labels).tolist() == ["a", "b", "c"]
    assert as_values(Once([1, 2]), np.float32)[:].tolist() == [1, 2]
    assert as_images(Once([[1, 2], [3, 4]])).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match="^X has items that differ in shape, expected one shape"):
        as_images(Sequence([[1, 2], [3]]))
    mlp().fit(Once(np.eye(3).tolist()), Once(["a", "b", "c"]), max_iter=1)


def test_encode_names_its_labels():
    with pytest.raises(TypeError, match="^validation y has dtype <U1, expected labels like int64"):
        encode(np.array(["a"]), np.array([1, 2]), name="validation y")
    message = r"^here has the label 7, expected one of those of fit: \[0, 1, 2, 3, 4, 5, \.\.\.\]$"
    with pytest.raises(ValueError, match=message):
        encode(np.array([1, 7]), np.arange(7), "here")


# --- pandas -----------------------------------------------------------------------

NUMBERS = ["int64", "float32", "Int64", "Float64", "UInt8", "boolean", "category", "object"]
NULLABLE = ["Int64", "Float64", "boolean", "category", "object"]


@pytest.mark.parametrize("kind", NUMBERS)
def test_columns_of_numbers(kind):
    numbers = pd.Series([1, 0, 1], name="age").astype(kind)
    frame = pd.DataFrame({"a": numbers, "b": [0.5, 1.5, 2.5]})
    assert as_images(frame).tolist() == [[1, 0.5], [0, 1.5], [1, 2.5]]
    assert as_images(numbers.to_frame()).tolist() == [[1], [0], [1]]
    assert as_values(numbers, np.float32)[:].tolist() == [1, 0, 1]
    assert as_values(numbers.to_frame(), np.float32)[:].tolist() == [[1], [0], [1]]
    assert as_values(numbers.array, np.float32)[:].tolist() == [1, 0, 1]
    for y in (numbers, numbers.to_frame(), numbers.array, pd.Index(numbers)):
        assert as_labels(y).tolist() == [1, 0, 1]


@pytest.mark.parametrize("kind", NULLABLE)
def test_a_missing_value_names_its_column(kind):
    numbers = pd.Series([1, None, 1], dtype="Int64", name="age").astype(kind)
    frame = pd.DataFrame({"a": [0, 1, 2], "age": numbers})
    message = "^column 'age' of {} has a missing value in row 1, expected none$"
    with pytest.raises(ValueError, match=message.format("validation X")):
        Images(frame, name="validation X")
    with pytest.raises(ValueError, match=message.format("y")):
        as_labels(numbers)
    with pytest.raises(ValueError, match=message.format("y")):
        as_labels(frame[["age"]])
    with pytest.raises(ValueError, match=message.format("y")):
        as_values(numbers, np.float32)
    with pytest.raises(ValueError, match="^y has a missing value in row 1, expected none$"):
        as_labels(numbers.rename(None))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_value_names_its_column(bad):
    frame = pd.DataFrame({"a": [0.0, 1], "age": [1, bad]})
    with pytest.raises(ValueError, match=r"^X\[1\] has NaN, .* values in column 'age', expected"):
        Images(frame).check_values()
    with pytest.raises(ValueError, match=r"^X\[1\] has NaN, .* values in column 'age', expected"):
        as_images(frame.assign(a=pd.array([1, 2])))


@pytest.mark.parametrize(
    "column, message",
    [
        (pd.array(["x", "y"], dtype="string"), "dtype object with 'x' at .0."),
        (pd.Categorical(["x", "y"]), "dtype object with 'x' at .0."),
        (pd.array([1, "y"], dtype=object), "dtype object with 'y' at .1."),
        (pd.date_range("2000", periods=2), "dtype datetime64"),
    ],
)
def test_a_column_of_no_numbers_is_named(column, message):
    frame = pd.DataFrame({"a": [1, 2], "b": column})
    with pytest.raises(TypeError, match=f"^column 'b' of X has {message}.*, expected real numbers"):
        Images(frame)
    with pytest.raises(TypeError, match="^column 'b' of y has .*, expected real numbers"):
        as_values(frame["b"], np.float32)


@pytest.mark.parametrize("kind", ["object", "string", "category", "str"])
def test_labels_keep_their_strings(kind):
    labels = pd.Series(["b", "a", "b"], name="animal").astype(kind)
    for y in (labels, labels.to_frame(), labels.array, pd.Index(labels), labels.tolist()):
        assert as_labels(y).dtype == np.dtype("U1")
        assert as_labels(y).tolist() == ["b", "a", "b"]


@pytest.mark.parametrize("kind", ["object", "category"])
def test_mixed_labels_of_a_series(kind):
    with pytest.raises(TypeError, match=r"^y has labels of types \['int', 'str'\]"):
        as_labels(pd.Series([1, "a"], name="t").astype(kind))


class Bare(pd.api.extensions.ExtensionArray):
    """What pandas asks of a column's array, and no __array__."""

    dtype = pd.Int64Dtype()

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]

    def isna(self):
        return pd.isna(np.array(self.items, object))

    def to_numpy(self):
        return np.array(self.items)


def test_columns_that_are_no_arrays():
    assert as_labels(Bare(1, 2)).tolist() == [1, 2]
    with pytest.raises(ValueError, match="^y has a missing value in row 1, expected none$"):
        as_labels(Bare(1, None))


def test_other_tables():
    twice = pd.DataFrame([[1, 2.5]], columns=["a", "a"]).astype({"a": "Float64"})
    assert as_images(twice).tolist() == [[1, 2.5]]
    assert as_images(pd.DataFrame({"a": [True], "b": [2]})).dtype == np.float32
    assert Images(pd.DataFrame(index=range(3))).shape == (3, 0)
    with pytest.raises(ValueError, match=r"^y has shape \(1, 2\), expected one label per image"):
        as_labels(twice)
    with pytest.raises(ValueError, match=r"^X has shape \(2,\), expected"):
        Images(pd.Series([1, 2]))
    with pytest.raises(TypeError, match=r"^y has labels of types \['tuple'\]"):
        as_labels(pd.MultiIndex.from_tuples([(1, 2)]))


def test_a_network_learns_from_a_table(rng):
    X, y = rng.random((30, 4)).astype(np.float32), np.array(["a", "b", "c"] * 10)
    frame = pd.DataFrame(X).astype("Float32").assign(**{"0": pd.array([1] * 30)})
    same_X = np.column_stack([X, np.ones(30, np.float32)])
    network = mlp().fit(frame, pd.DataFrame({"label": pd.Categorical(y)}), max_iter=2)
    assert np.array_equal(network.predict(frame), mlp().fit(same_X, y, max_iter=2).predict(same_X))
    assert network.classes_.tolist() == ["a", "b", "c"]


def test_pandas_is_not_imported(run_python):
    done = run_python(
        "import sys, nnet\n"
        "from nnet.training.data import as_images, as_labels\n"
        "as_images([[1, 2.5]]), as_labels(['a', 'b'])\n"
        "assert 'pandas' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr
