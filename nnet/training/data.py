"""The arrays X and y that a network is given: types and shapes checked at once, values by batch."""

import reprlib
from collections import UserString
from collections.abc import Container
from contextlib import suppress
from functools import partial
from math import prod
from numbers import Real
from types import MappingProxyType

import numpy as np

from nnet._atomic import quietly
from nnet._dense import all_finite
from nnet._lazy import IMPORTS
from nnet.training.remedies import fraction_remedy, image_remedy
from nnet.training.targets import batch_of, check_label_shape

CHECK_BYTES = 2**17  # of values that are checked at once: they stay in the L2 cache
PLAIN_TYPES = {bool, int, float, str}  # nothing can be inside
EXACT_INTEGERS = 2**53  # float64 cannot tell it from the next one
PANDAS_KINDS = "DataFrame", "Series", "MultiIndex", "Index", "ExtensionArray"
NO_SEQUENCES = str, bytes, UserString, memoryview, dict, MappingProxyType
ARRAY_PROTOCOLS = "__array__", "__array_interface__", "__array_struct__"
LABEL_TYPES = (bool, np.bool_), (int, float, np.integer, np.floating), (str,), (bytes,)
LEAVES = sum(LABEL_TYPES, ())


class Batches:
    """What a call is given for its images: type and shape are checked at once, values by batch.

    It is neither changed nor converted as a whole.

    Parameters
    ----------
    values : array (n_imgs, ...), or anything that np.asarray or pandas makes one of real numbers
    dtype : None, float32 or float64
        Of the batches. None: float64 and wider floats become float64,
        everything else float32.
    item_shape : None or tuple
        The shape that the item of each image must have.
    name : None or str
        What messages call it. None: what the class does.
    value_range : None or (float, float)
        From where to where all values must be.

    Attributes
    ----------
    shape, item_shape : tuple
        Of all, and of the item of one image: shape[1:].
    dtype : numpy.dtype
        Of the batches.

    Raises
    ------
    TypeError
        For anything but real numbers, and for masked arrays.
    ValueError
        For a wrong shape, and for missing values in columns of a DataFrame.
    """

    NAME: str
    N_AXES: Container[int]
    AXES: str  # as errors show them

    def __init__(self, values, dtype=None, item_shape=None, name=None, value_range=None):
        self.name = name = name or self.NAME
        self._range = value_range
        self._array = array = as_reals(values, name)
        self._columns = None
        if array is not values and pandas_kind(values) == "DataFrame":
            self._columns = values.columns.tolist()
        self.shape, self.item_shape = array.shape, array.shape[1:]
        if item_shape is not None and self.item_shape != tuple(item_shape):
            raise ValueError(
                f"{name} has shape {self.shape}, expected {batch_of(item_shape)}"
                + self._remedy(tuple(item_shape))
            )
        if array.ndim not in self.N_AXES:
            raise ValueError(f"{name} has shape {self.shape}, expected {self.AXES}")
        is_float = array.dtype.kind == "f"
        if dtype is None:
            dtype = np.float64 if is_float and array.dtype.itemsize >= 8 else np.float32
        self.dtype = np.dtype(dtype)
        self._may_be_bad = is_float  # the largest integer is far from float32's largest value
        self._is_ready = array.dtype == self.dtype and array.flags.aligned

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        return self.batch(rows)

    def batch(self, rows, out=None):
        """The items of some of the images, unchecked.

        Parameters
        ----------
        rows : slice, or intp array of indices from 0 to len(self) - 1
        out : None or array
            Where to write them, if they have to be copied: C-contiguous, of
            `dtype`, for at least so many images. None allocates.

        Returns
        -------
        array (n_rows, *item_shape)
            C-contiguous and of `dtype`: a view if a slice is that already.
        """
        array = self._array
        if isinstance(rows, slice):
            items = array[rows]
            if self._is_ready and items.flags.c_contiguous:
                return items
            out = self._first(len(items), out)
        else:
            out = self._first(len(rows), out)
            if self._is_ready and array.flags.c_contiguous:  # else take would copy all of them
                # With mode='raise', it would first copy to a buffer of its own.
                return array.take(rows, 0, out, "clip")
            items = array[rows]
        quietly(partial(out.__setitem__, ..., items))  # what overflows is found by the check
        return out

    def checked_batch(self, rows, out=None):
        """The same; ValueError that names the first of these images with a bad value."""
        items = self.batch(rows, out)
        if self._may_be_bad and not all_finite(items):
            raise ValueError(self._complaint(items, rows))
        if self._range is not None:
            self._check_range(items, rows)
        return items

    def _check_range(self, items, rows):
        """ValueError that names the first image with a value outside of the range."""
        low, high = self._range
        if items.size == 0 or (items.min() >= low and items.max() <= high):
            return
        first = int(np.argmax((items < low) | (items > high)))
        value = items.flat[first]
        masks = "; for masks of bytes, y > 0" if value == 255 else ""
        labels = f" (for one label of many, the last layer is LogRegression(){masks})"
        raise ValueError(
            f"{self.name}[{self._row(first, rows)}] has {value:g}, expected values from {low:g} "
            f"to {high:g}{'' if value % 1 else labels}"
        )

    def check_values(self):
        """ValueError that names the first image with a NaN, infinite or too large value.

        One pass over all, unless their dtype cannot hold such a value; nothing is kept.
        """
        if not self._may_be_bad and self._range is None:
            return
        for rows, work in self.blocks():
            self.checked_batch(rows, work)

    def blocks(self):
        """(rows, work array for them): of all images, a few at once."""
        item_bytes = prod(self.item_shape) * self.dtype.itemsize
        n_rows = min(max(CHECK_BYTES // max(item_bytes, 1), 1), max(len(self), 1))
        work = self._first(n_rows)
        for start in range(0, len(self), n_rows):
            yield slice(start, start + n_rows), work

    def _first(self, n_imgs, out=None):
        """The part of a work array for so many images."""
        shape = (n_imgs, *self.item_shape)
        return np.empty(shape, self.dtype) if out is None else out[:n_imgs].reshape(shape)

    def _remedy(self, item_shape):
        """What makes items of this shape, as the end of an error."""
        return ""

    def _complaint(self, items, rows):
        first = int(np.argmin(np.isfinite(items)))  # of all values
        column = first % prod(self.item_shape)
        where = "" if self._columns is None else f" in column {self._columns[column]!r}"
        return (
            f"{self.name}[{self._row(first, rows)}] has NaN, infinite or too large values{where}, "
            f"expected finite {self.dtype}"
        )

    def _row(self, place, rows):
        """Which image the value at a place in a batch belongs to."""
        item = place // prod(self.item_shape)
        return range(len(self))[rows][item] if isinstance(rows, slice) else rows[item]


class Images(Batches):
    """The images X: (n_imgs, n_channels, img_h, img_w), or as AXES says."""

    NAME = "X"
    N_AXES = 2, 3, 4
    AXES = (
        "(n_imgs, n_channels, img_h, img_w), (n_imgs, n_channels, length) or (n_imgs, n_features)"
    )

    def _remedy(self, image_shape):
        return image_remedy(self.shape, image_shape)


class Values(Batches):
    """The targets y of regression."""

    NAME = "y"
    N_AXES = range(1, 65)
    AXES = "(n_imgs, ...)"


def as_values(y, dtype, target_shape=None, name=None, value_range=None):
    """y as `Values`, all of them finite and within the range."""
    values = Values(y, dtype, target_shape, name, value_range)
    values.check_values()
    return values


def as_images(X, dtype=None):
    """X as a C-contiguous array of finite floats of the dtype that `Images` has."""
    return Images(X, dtype).checked_batch(slice(None))


def bc01_shape(image_shape):
    """The shape of an image as the layers see it: a signal has height 1."""
    return (image_shape[0], 1, image_shape[1]) if len(image_shape) == 2 else image_shape


def check_lengths(X, y, X_name="X", y_name="y"):
    """As many targets as images."""
    if _is_sequence(type(y)) and len(y) == len(X):
        return  # the shape of a list would be found by converting it
    y_shape = y.shape if hasattr(y, "shape") else as_array(y, y_name).shape
    if not y_shape or y_shape[0] != len(X):
        raise ValueError(
            f"{X_name} has {len(X)} images and {y_name} has shape {y_shape}, "
            "expected as many of both"
        )


# --- labels -----------------------------------------------------------------------


def as_labels(y, name="y", target_shape=()):
    """y as an array of bools, numbers or strings.

    Parameters
    ----------
    y : array (n_imgs, ...), or anything that np.asarray or pandas makes one of labels
    name : str
        What messages call it.
    target_shape : None or tuple
        The shape that the labels of each image must have; None for any.

    Raises
    ------
    TypeError
        For labels of several kinds, for what is none, and for masked arrays.
    ValueError
        For another shape, and for labels that are missing, not finite or fractional.
    """
    kind = pandas_kind(y)
    if kind == "DataFrame" and y.shape[1] == 1:
        y = y.iloc[:, 0]
    elif kind is None:
        y = listed(y)
    labels = as_array(y, name)
    check_label_shape(name, labels, target_shape)
    if labels.dtype.kind in "OT":
        labels = _of_one_kind(labels.ravel().tolist(), labels, name)
    elif isinstance(y, (list, tuple)):
        labels = _of_one_kind(y if labels.ndim == 1 else list(_leaves(y)), labels, name)
    kind, itemsize = labels.dtype.kind, labels.dtype.itemsize
    if kind not in "biufUS" or kind == "f" and itemsize > 8:
        raise TypeError(f"{name} has dtype {labels.dtype}, expected bools, numbers or strings")
    if kind == "f":
        if not np.isfinite(labels).all():
            raise ValueError(f"{name} has NaN or infinite values, expected finite labels")
        if (labels != np.floor(labels)).any():
            remedy = fraction_remedy(labels)
            raise ValueError(f"{name} has fractional values, expected labels{remedy}")
    return labels


def _leaves(values):
    """The labels in lists of lists; of an array of one kind, its first stands for all."""
    for value in map(listed, values):
        if isinstance(value, LEAVES):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _leaves(value)
        else:
            array = np.asarray(value)
            yield from array.ravel().tolist() if array.dtype.kind in "OT" else array.flat[:1]


def _of_one_kind(values, labels, name):
    """The array of a list of labels of one kind: of 1 and 'a', NumPy would make two strings."""
    kinds = set(map(type, values))
    if any(hasattr(kind, "__array__") and not issubclass(kind, np.generic) for kind in kinds):
        values = [np.asarray(value)[()] for value in values]  # arrays without axes
        kinds = set(map(type, values))
    found = {
        next((types for types in LABEL_TYPES if issubclass(kind, types)), None) for kind in kinds
    }
    if len(found) > 1 or None in found:
        names = sorted(kind.__name__ for kind in kinds)
        raise TypeError(
            f"{name} has labels of types {names}, expected all bools, numbers or strings"
        )
    if any(value[-1:] in ("\0", b"\0") for value in set(values) if isinstance(value, (str, bytes))):
        raise ValueError(f"{name} has labels that end in a null character, which NumPy drops")
    if labels.dtype.kind in "OT":
        labels = np.array(values).reshape(labels.shape)
    has_integers = any(issubclass(kind, (int, np.integer)) for kind in kinds)
    if labels.dtype.kind == "f" and has_integers and np.abs(labels).max() >= EXACT_INTEGERS:
        raise ValueError(
            f"{name} has integers that {labels.dtype} cannot tell apart, expected all within int64"
        )
    return labels


def check_kind(labels, dtype, name, apart="US"):
    """Refuse texts beside numbers, as `apart` says. None is any dtype; the labels' is returned."""
    if dtype is not None:
        kinds = {labels.dtype.kind, dtype.kind}
        if len(kinds) > 1 and kinds & set(apart):
            raise TypeError(f"{name} has dtype {labels.dtype}, expected labels like {dtype}")
    return labels.dtype


def encode(labels, classes, strict_name=None, name="y"):
    """The index of each label in the sorted classes.

    A label that is not there gives -1, or with a `strict_name` an error.
    """
    check_kind(labels, classes.dtype, name)
    indices = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    indices[classes[indices] != labels] = -1
    if strict_name is not None and (indices < 0).any():
        unknown = labels[indices < 0].tolist()[0]
        raise ValueError(
            f"{strict_name} has the label {unknown!r}, expected one of those of fit: "
            + reprlib.repr(classes.tolist())
        )
    return indices


# --- whatever was given, as an array ----------------------------------------------


def as_reals(values, name):
    """An array of bools, integers or floats; its values may still be NaN or infinite."""
    if type(values) is np.ndarray and values.dtype.kind in "biuf":  # the hot path
        return values
    if pandas_kind(values) == "DataFrame":
        return _frame_reals(values, name)
    array = as_array(values, name)
    if array.dtype.kind == "O":
        array = _object_reals(array, _column_name(values, name))
    if array.dtype.kind not in "biuf":
        where = _column_name(values, name)
        raise TypeError(f"{where} has dtype {array.dtype}, expected real numbers")
    return array


def as_array(values, name):
    """A plain ndarray of what np.asarray takes: nothing in it is masked, or missing for pandas."""
    if pandas_kind(values) in ("Series", "Index", "ExtensionArray"):
        values = _column_array(values, name)
    values = listed(values)
    refuse_masks(values, name)
    try:
        array = np.asanyarray(values)
    except ValueError:
        if not isinstance(values, (list, tuple)):
            raise
        raise ValueError(f"{name} has items that differ in shape, expected one shape") from None
    refuse_masks(array, name)  # what an __array__ returned may have one
    return np.asarray(array)


def refuse_masks(values, name):
    """TypeError for a masked array, also inside lists: np.asarray would use what it hides."""
    if isinstance(values, np.ndarray):
        if hasattr(values, "mask"):
            kind = type(values).__name__
            raise TypeError(
                f"{name} is a {kind}, expected an array without a mask: .filled(value) makes one"
            )
        if values.dtype.kind != "O":
            return
        values = values.tolist()
    values = listed(values)
    if not isinstance(values, (list, tuple)):
        return
    # Numbers and strings are not looked at one by one, so that long lists take little time.
    kinds = set(map(type, values)) - PLAIN_TYPES
    if any(issubclass(kind, np.ndarray) or _is_sequence(kind) for kind in kinds):
        for i, value in enumerate(values):
            refuse_masks(value, f"{name}[{i}]")


def listed(values):
    """The items as a list, if NumPy would ask for them one by one; else what was given."""
    kind = type(values)
    if issubclass(kind, (list, tuple)) or not _is_sequence(kind):
        return values
    with suppress(TypeError):
        memoryview(values)
        return values  # NumPy reads its memory
    try:
        return list(values)
    except KeyError:  # it has keys in place of indices: one object for NumPy as well
        return values


def _is_sequence(kind):
    """Whether NumPy asks such an object for its items: two methods are enough."""
    return (
        hasattr(kind, "__len__")
        and hasattr(kind, "__getitem__")
        and not issubclass(kind, NO_SEQUENCES)
        and not any(hasattr(kind, name) for name in ARRAY_PROTOCOLS)
    )


def _object_reals(array, name):
    """Python objects as numbers, if all of them are."""
    with IMPORTS:
        from decimal import Decimal  # a millisecond, and rare

    kinds = set(map(type, array.flat))
    others = {kind for kind in kinds if not issubclass(kind, (Real, np.bool_, Decimal))}
    if others:
        place, value = next(item for item in np.ndenumerate(array) if type(item[1]) in others)
        what = f"has dtype object with {reprlib.repr(value)} at {list(place)}"
        if not place:
            what = f"is a {type(value).__name__}"
        advice = " (fit(batches), without y, takes batches)" if name == "X" and not place else ""
        raise TypeError(f"{name} {what}, expected real numbers{advice}")
    numbers = np.array(array.tolist()).reshape(array.shape)
    if numbers.dtype.kind == "O":  # fractions, or integers beyond 64 bits
        try:
            numbers = array.astype(np.float64)
        except OverflowError:
            raise ValueError(f"{name} has too large values, expected finite float64") from None
    if numbers.dtype.kind == "f" and np.isnan(numbers).any():
        place = [int(i) for i in np.unravel_index(np.argmax(np.isnan(numbers)), numbers.shape)]
        raise ValueError(f"{name} has NaN at {place}, expected no missing value")
    return numbers


# --- pandas, which is never imported here: its objects bring what is needed -----------


def pandas_kind(values):
    """One of PANDAS_KINDS for pandas' objects, also of subclasses; None for all else."""
    for kind in type(values).__mro__:
        if kind.__name__ in PANDAS_KINDS and kind.__module__.partition(".")[0] == "pandas":
            return kind.__name__
    return None


def _column_name(values, name):
    """What messages call a Series."""
    label = values.name if pandas_kind(values) in ("Series", "Index") else None
    return name if label is None else f"column {label!r} of {name}"


def _column_array(column, name):
    """A Series or its like as an array of what it holds; ValueError for a missing value."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind != "O":
        return np.asarray(column)  # NaN is found by whoever checks its values
    missing = np.asarray(column.isna())
    if missing.any():
        where, row = _column_name(column, name), np.argmax(missing)
        raise ValueError(f"{where} has a missing value in row {row}, expected none")
    return column.to_numpy()


def _frame_reals(frame, name):
    """A DataFrame of numbers as an array: the very same memory if it has one NumPy dtype."""
    dtypes = set(frame.dtypes)
    if len(dtypes) == 1 and isinstance(dtype := dtypes.pop(), np.dtype) and dtype.kind in "biuf":
        return frame.to_numpy()
    columns = [as_reals(frame.iloc[:, i], name) for i in range(frame.shape[1])]
    dtype = np.result_type(*columns) if columns else np.float32
    array = np.empty(frame.shape, dtype)
    for i, column in enumerate(columns):
        array[:, i] = column
    return array
