"""Images as they are given: batches, what they cost, and what is refused."""

import tracemalloc
from collections import deque
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from nnet import Linear, MeanSquaredError, NeuralNetwork
from nnet.training.data import (
    Batches,
    Images,
    Values,
    as_images,
    as_labels,
    as_values,
    check_lengths,
    refuse_masks,
)


def peak_bytes(function):
    """The most that a call holds at once beside what there was before."""
    function()  # what is made once and kept does not count
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- batches of images ------------------------------------------------------------


def unaligned(X):
    memory = np.empty(X.nbytes + 1, np.uint8)
    array = memory[1:].view(X.dtype).reshape(X.shape)
    array[...] = X
    return array


def read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


SOURCES = {
    "float32": lambda X: X,
    "float64": lambda X: X.astype(np.float64),
    "float16": lambda X: X.astype(np.float16),
    "longdouble": lambda X: X.astype(np.longdouble),
    "byte-swapped": lambda X: X.astype(X.dtype.newbyteorder()),
    "uint8": lambda X: X.astype(np.uint8),
    "int64": lambda X: X.astype(np.int64),
    "bool": lambda X: X > 50,
    "object": lambda X: X.astype(object),
    "Fortran": np.asfortranarray,
    "Fortran uint8": lambda X: np.asfortranarray(X, np.uint8),
    "backwards": lambda X: X[::-1].copy()[::-1],
    "strided": lambda X: np.repeat(X, 2, axis=0)[::2],
    "transposed": lambda X: X.swapaxes(2, 3).copy().swapaxes(2, 3),
    "unaligned": unaligned,
    "read-only": read_only,
    "broadcast": lambda X: np.broadcast_to(X[:1], X.shape),
    "list": lambda X: X.tolist(),
    "list of arrays": list,
    "deque": deque,
}
ROWS = {
    "all": slice(None),
    "some": slice(3, 8),
    "beyond the end": slice(17, 30),
    "none": slice(4, 4),
    "every other": slice(1, None, 2),
    "backwards": slice(None, None, -1),
    "indices": np.array([7, 0, 19, 7]),
    "no indices": np.array([], np.intp),
}


@pytest.mark.parametrize("kind", [Images, Values])
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_batches(make, rows, kind, dtype, rng):
    X = make(rng.integers(0, 100, (20, 2, 4, 3)).astype(np.float32))
    expected = np.asarray(X)[rows].astype(dtype)
    images = kind(X, dtype)
    assert (len(images), images.shape, images.item_shape) == (20, (20, 2, 4, 3), (2, 4, 3))
    images.check_values()
    for out in (None, np.full((20, 2, 4, 3), -1, dtype), np.full((20, 24), -1, dtype)):
        for batch in (images.batch(rows, out), images.checked_batch(rows, out)):
            assert batch.dtype == images.dtype == dtype
            assert batch.dtype.isnative
            assert batch.flags.c_contiguous
            assert batch.flags.aligned
            assert np.array_equal(batch, expected)
            if out is not None:
                is_written = np.shares_memory(batch, out)
                assert (out[len(batch) if is_written else 0 :] == -1).all()
                is_view = np.shares_memory(batch, images.batch(rows))
                assert is_written or is_view or not batch.size


@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 3), (5, 2, 3, 4), (0, 3), (0, 1, 2, 3), (5, 0)])
def test_shapes(shape):
    images = Images(np.ones(shape, np.float32))
    images.check_values()
    assert images.batch(slice(0, 2)).shape == (min(shape[0], 2), *shape[1:])
    assert images.batch(np.arange(min(shape[0], 2))).shape == (min(shape[0], 2), *shape[1:])


@pytest.mark.parametrize("n_values", [0, 1, 7, 100_000])
def test_values_without_further_axes(n_values, dtype):
    table = np.arange(2.0 * n_values).reshape(n_values, 2)
    order = np.arange(n_values)[::-1].copy()
    for y in (table[:, 1], table[:, 1].copy(), table[:, 1].astype(int), pd.Series(table[:, 1])):
        values = Values(y, dtype)
        values.check_values()
        assert np.array_equal(values[:], table[:, 1].astype(dtype))
        assert np.array_equal(values.batch(order, np.empty(n_values, dtype)), values[:][::-1])


@pytest.mark.parametrize(
    "given, expected",
    [("f4", "f4"), ("f8", "f8"), (">f8", "f8"), ("g", "f8"), ("f2", "f4"), ("u1", "f4")]
    + [("i8", "f4"), ("?", "f4")],
)
def test_the_dtype_of_batches_follows_X(given, expected):
    assert Images(np.zeros((2, 3), given)).dtype == np.dtype(expected)
    assert as_images(np.zeros((2, 3), given)).dtype == np.dtype(expected)


def test_a_slice_of_what_is_ready_is_a_view(dtype):
    X = np.ones((20, 1, 4, 4), dtype)
    assert np.shares_memory(Images(X).batch(slice(3, 9), np.empty_like(X)), X)
    assert np.shares_memory(as_images(X), X)
    assert not np.shares_memory(Images(X).batch(np.arange(3)), X)


def test_a_memory_map(tmp_path, rng):
    X = rng.random((50, 1, 4, 4)).astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    images = Images(np.load(tmp_path / "X.npy", mmap_mode="r"))
    images.check_values()
    assert np.array_equal(images.batch(slice(10, 20)), X[10:20])
    assert np.array_equal(images.batch(np.array([30, 2])), X[[30, 2]])


def test_errors_of_reading_propagate():
    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        Images(Broken())


# --- what batches cost ------------------------------------------------------------

N_IMGS, BATCH = 4096, 64
BATCH_BYTES = BATCH * 8 * 8 * 4


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(
    "make, limit",
    [
        (np.ascontiguousarray, 1.3),  # the work array, and no more
        (lambda X: X.astype(np.uint8), 2),  # and the rows picked, before they are converted
        (lambda X: X.astype(np.float64), 3.5),
        (np.asfortranarray, 2.5),
        (lambda X: X[::-1], 2.5),
        (lambda X: X.astype(">f8"), 3.5),
    ],
)
def test_all_batches_take_the_memory_of_one(make, limit, shuffled, rng):
    X = make(rng.integers(0, 100, (N_IMGS, 1, 8, 8)).astype(np.float32))
    order = rng.permutation(N_IMGS)

    def run():
        images = Images(X, np.float32)
        work = np.empty((BATCH, 1, 8, 8), np.float32)
        for start in range(0, N_IMGS, BATCH):
            end = start + BATCH
            images.checked_batch(order[start:end] if shuffled else slice(start, end), work)

    assert peak_bytes(run) < limit * BATCH_BYTES


@pytest.mark.parametrize("rows", [slice(10, 10 + BATCH), np.arange(BATCH)[::-1].copy()])
def test_a_steady_step_allocates_nothing(rows, dtype):
    images = Images(np.ones((N_IMGS, 1, 8, 8), dtype))
    work = np.empty((BATCH, 1, 8, 8), dtype)
    assert peak_bytes(lambda: images.checked_batch(rows, work)) < 2000


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_a_check_keeps_nothing(dtype):
    images = Images(np.ones((20 * N_IMGS, 1, 8, 8), dtype), np.float32)
    assert peak_bytes(images.check_values) < 200_000


@pytest.mark.parametrize("dtype", ["?", "u1", "i8", "u8"])
def test_what_cannot_be_bad_is_not_checked(dtype, monkeypatch):
    images = Images(np.full((20, 3), np.iinfo(dtype).max if dtype != "?" else True, dtype))
    assert np.isfinite(images.batch(slice(None))).all()
    monkeypatch.delattr(Batches, "batch")
    images.check_values()


N_TARGETS = 16 * N_IMGS
TARGETS = {
    "uint8": lambda y: y.astype(np.uint8),
    "float64": lambda y: y.astype(np.float64),
    "float16": lambda y: y.astype(np.float16),
    "Fortran": np.asfortranarray,
    "strided": lambda y: np.repeat(y, 2, axis=0)[::2],
    "frame": lambda y: pd.DataFrame(y.astype(np.uint8)),
}


def regression(n_targets):
    return NeuralNetwork([Linear(n_targets), MeanSquaredError()], rng=0)


@pytest.mark.parametrize("make", TARGETS.values(), ids=TARGETS)
def test_targets_are_converted_by_batch(make, rng):
    """In training, validation and error: what is held is far less than all of them as floats."""
    X = rng.integers(0, 2, (N_TARGETS, 1)).astype(np.float32)
    values = rng.integers(0, 100, (N_TARGETS, 32)).astype(np.float32)
    y = make(values)
    X_val, y_val = X[:BATCH], values[:BATCH]
    networks = {}

    def fit(validation_data=None):
        networks["y"] = regression(32).fit(X, y, 1e-4, 1, BATCH, validation_data=validation_data)

    def validate():
        regression(32).fit(X_val, y_val, 1e-4, 1, BATCH, validation_data=(X, y))

    for function in (fit, validate, lambda: networks["y"].error(X, y)):
        assert peak_bytes(function) < values.nbytes / 5
    expected = regression(32).fit(X, values, 1e-4, 1, BATCH)
    assert np.array_equal(networks["y"].params()[0], expected.params()[0])
    assert networks["y"].error(X, y) == expected.error(X, values)


@pytest.mark.parametrize("given", ["f4", "f8", "u1"])
def test_steps_reuse_the_memory_of_targets(given, rng):
    X = np.ones((8 * BATCH, 1), np.float32)
    y = rng.integers(0, 100, (8 * BATCH, 1000)).astype(given)
    peaks = []

    def callback(progress):
        now, peak = tracemalloc.get_traced_memory()
        peaks.append(peak - now)
        tracemalloc.reset_peak()

    tracemalloc.start()
    try:
        regression(1000).fit(X, y, 1e-4, 2, BATCH, callback=callback)
    finally:
        tracemalloc.stop()
    picked = 0 if given == "f4" else BATCH * y[0].nbytes  # rows, before they are converted
    assert max(peaks[2:]) < picked + BATCH * 1000 * 4 / 3


def test_a_frame_of_one_dtype_is_not_copied():
    frame = pd.DataFrame(np.ones((4096, 64)))
    assert peak_bytes(lambda: Images(frame).checked_batch(slice(0, 10))) < 50_000


def test_long_lists_cost_one_array():
    y = [1, 2] * 50_000
    assert peak_bytes(lambda: check_lengths(y, y)) < 2000
    assert peak_bytes(lambda: as_labels(y)) < 1.5 * 8 * len(y)  # the array and little else


# --- bad values, types and shapes of images -------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 13, 699, 999])
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_first_bad_image_is_named(bad, row, order, dtype):
    X = np.zeros((1000, 1, 16, 16), dtype, order)
    X[row, 0, 2, 3] = bad
    X[row + 1 :, 0, 0, 0] = bad
    images = Images(X)
    message = rf"^X\[{row}\] has NaN, infinite or too large values, expected finite {dtype}$"
    with pytest.raises(ValueError, match=message):
        images.check_values()
    with pytest.raises(ValueError, match=message):
        as_images(X)
    for rows in (
        slice(row, None),
        np.arange(row, 1000),
        slice(row, row - 5 if row > 5 else None, -1),
    ):
        with pytest.raises(ValueError, match=message):
            images.checked_batch(rows)
    images.checked_batch(slice(0, row))
    images.batch(slice(None))


def test_what_overflows_is_bad_without_a_warning():
    X = np.ones((20, 3))
    X[:, 0] = 1e-300
    with np.errstate(all="raise"):
        Images(X, np.float32).check_values()
        X[4] = 1e300
        images = Images(X, np.float32, name="validation X")
        for check in (images.check_values, lambda: images.checked_batch(np.array([5, 4]))):
            with pytest.raises(
                ValueError, match=r"^validation X\[4\] has .* too large values, expected .*float32"
            ):
                check()
    Images(X).check_values()


@pytest.mark.parametrize(
    "X, error, message",
    [
        (np.zeros((2, 3), complex), TypeError, "X has dtype complex128, expected real numbers"),
        (np.full((2, 3), "a"), TypeError, "X has dtype <U1, expected real numbers"),
        ([[1, "2"]], TypeError, "X has dtype <U21"),
        (np.zeros((2, 3), "m8[s]"), TypeError, "X has dtype timedelta64"),
        ([[np.timedelta64(1, "s"), None]], TypeError, "X has dtype object with None at "),
        (None, TypeError, "X is a NoneType, expected real numbers"),
        (np.zeros(3), ValueError, r"X has shape \(3,\), expected \(n_imgs, n_channels, img_h"),
        (np.zeros((1,) * 5), ValueError, r"X has shape \(1, 1, 1, 1, 1\), expected"),
        ([[1, 2], [3]], ValueError, "X has items that differ in shape, expected one shape"),
        ([np.eye(2), np.eye(3)], ValueError, "X has items that differ in shape"),
    ],
)
def test_what_is_no_images(X, error, message):
    with pytest.raises(error, match=message):
        Images(X)


@pytest.mark.parametrize(
    "shape, expected, remedy",
    [
        ((20, 1, 6, 5), (1, 6, 6), ""),
        ((20,), (1, 6, 6), ""),
        ((20, 35), (1, 6, 6), ""),
        ((20, 6, 6, 3), (1, 6, 6), ""),
        ((20, 6, 6), (3, 6, 6), ""),
        ((20, 3), (3, 20), ""),
        ((20, 20, 3), (3, 20), ": X.transpose(0, 2, 1) puts channels first"),  # signals
        ((20, 50, 1), (1, 50), ": X.reshape(-1, 1, 50)"),
        ((20, 1, 1, 50), (1, 50), ": X.reshape(-1, 1, 50)"),
        ((20, 3, 1, 50), (3, 50), ": X.reshape(-1, 3, 50)"),
        ((20, 3, 50, 1), (3, 1, 50), ": X.reshape(-1, 3, 1, 50)"),
        ((20, 50, 3), (3, 51), ""),
        ((20, 6, 5, 1), (1, 6, 5), ": np.moveaxis(X, -1, 1) puts channels first"),
        ((20, 8, 6, 3), (3, 8, 6), ": np.moveaxis(X, -1, 1) puts channels first"),
        ((20, 6, 6), (1, 6, 6), ": X[:, None] gives images their channel axis"),
        ((1, 6, 6), (1, 6, 6), ": X[None] is a batch of one image"),
        ((3, 8, 6), (3, 8, 6), ": X[None] is a batch of one image"),
        ((36,), (36,), ": X[None] is a batch of one image"),
        ((20, 36), (1, 6, 6), ": X.reshape(-1, 1, 6, 6)"),
        ((20, 60), (3, 20), ": X.reshape(-1, 3, 20)"),
    ],
)
def test_images_of_another_shape(shape, expected, remedy):
    with pytest.raises(ValueError) as caught:
        Images(np.zeros(shape), None, expected, "validation X")
    wanted = f"(n_imgs, {', '.join(map(str, expected))})"
    assert str(caught.value) == f"validation X has shape {shape}, expected {wanted}{remedy}"


def test_images_of_the_same_shape():
    Images(np.zeros((20, 1, 6, 6)), None, (1, 6, 6))


# --- masks ------------------------------------------------------------------------

MASKED = np.ma.array(np.ones((2, 3)), mask=[[True, False, False], [False, False, False]])


class WithMask:
    """Any object that gives NumPy a masked array."""

    def __array__(self, dtype=None, copy=None):
        return MASKED


class Sequence:
    """No class of Python's own, but NumPy asks it for its items."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


MASKS = {
    "array": MASKED,
    "without a masked value": np.ma.array(np.ones((2, 3))),
    "integers": MASKED.astype(int),
    "list": [MASKED, MASKED],
    "one of a list": [np.ones((2, 3)), MASKED],
    "tuple": (MASKED,),
    "deque": deque([MASKED]),
    "sequence": Sequence(MASKED, MASKED),
    "sequence in a list": [Sequence(MASKED[0])],
    "sequence of sequences": Sequence(Sequence(1, np.ma.masked)),
    "list of lists": [[MASKED[0]], [MASKED[1]]],
    "lists with the constant": [[1, 2], [1, np.ma.masked]],
    "a scalar": [[1, 2], [1, np.ma.array(1, mask=True)]],
    "object array": np.array([[1, np.ma.masked]], object),
    "object array in a list": [np.array([1, np.ma.masked], object)],
    "another object": WithMask(),
}


@pytest.mark.parametrize("masked", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize(
    "take",
    [Images, as_images, lambda y: as_values(y, "f4", name="X"), lambda y: as_labels(y, "X")],
)
def test_masks_are_refused(take, masked):
    with pytest.raises(
        TypeError,
        match=r"^X(\[\d\])* is a Masked(Array|Constant), expected .* without a mask: \.filled\(",
    ):
        take(masked)


def test_the_masked_item_is_named():
    with pytest.raises(TypeError, match=r"^validation y\[2\]\[1\] is a MaskedConstant"):
        refuse_masks([[1, 2], (3, 4), [5, np.ma.masked]], "validation y")


def test_masked_labels_are_refused():
    series = pd.Series([np.ma.array(1, mask=True), np.ma.array(0)], dtype=object)
    for y in (np.ma.array([0, 1]), [0, np.ma.masked], [np.ma.array(1), 0], series):
        with pytest.raises(TypeError, match="y.* is a Masked"):
            as_labels(y)


# --- object arrays ----------------------------------------------------------------


@pytest.mark.parametrize(
    "values, expected",
    [
        ([[1, 2]], "f4"),
        ([[True, 2]], "f4"),
        ([[1, 2.5]], "f8"),
        ([[np.float32(1), np.float32(2)]], "f4"),
        ([[Decimal("0.5"), 2]], "f8"),
        ([[2**70, 1]], "f8"),
    ],
)
def test_objects_that_are_numbers(values, expected):
    images = as_images(np.array(values, object))
    assert images.dtype == np.dtype(expected)
    assert images.tolist() == values


@pytest.mark.parametrize(
    "bad, error, message",
    [
        (None, TypeError, r"^X has dtype object with None at \[1, 2\], expected real numbers$"),
        ("1", TypeError, r"^X has dtype object with '1' at \[1, 2\]"),
        (pd.NA, TypeError, r"^X has dtype object with <NA> at \[1, 2\]"),
        (pd.NaT, TypeError, r"^X has dtype object with NaT at \[1, 2\]"),
        (1j, TypeError, r"^X has dtype object with 1j at \[1, 2\]"),
        ([1], TypeError, r"^X has dtype object with \[1\] at \[1, 2\]"),
        (np.nan, ValueError, r"^X has NaN at \[1, 2\], expected no missing value"),
        pytest.param(
            10**400, ValueError, "^X has too large values, expected finite float64", id="10**400"
        ),
        (np.inf, ValueError, r"^X\[1\] has NaN, infinite or too large values"),
    ],
)
def test_objects_that_are_not_numbers(bad, error, message):
    X = np.full((4, 3), 1, object)
    X[1, 2] = bad
    with pytest.raises(error, match=message):
        as_images(X)
