"""Checks of arguments: each returns the value in its one form, or says what was expected."""

import inspect
import math
import os
from contextlib import suppress
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from nnet._program import Watched
from nnet.geometry import as_pair
from nnet.layers.hints import did_you_mean

REAL = np.dtype(np.float32), np.dtype(np.float64)


def as_int(value, name, minimum):
    """An int of at least `minimum`."""
    try:
        value = index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, expected an integer") from None
    if value < minimum:
        raise ValueError(f"{name} is {value}, expected at least {minimum}")
    return value


def as_count(value, name):
    """An int of at least 1."""
    return as_int(value, name, 1)


def as_bool(value, name):
    is_integer = isinstance(value, (int, np.integer))
    if not isinstance(value, (bool, np.bool_)) and not (is_integer and value in (0, 1)):
        raise TypeError(f"{name} is {value!r}, expected True or False")
    return bool(value)


def as_float(value, name, alternatives=""):
    """A finite float of at least 0."""
    expected = f"expected a finite number of at least 0{alternatives}"
    number = as_real(value, name, expected)
    if not (0 <= number < math.inf):
        raise ValueError(f"{name} is {value!r}, {expected}")
    return number


def as_share(value, name):
    """A float from 0 to 1."""
    expected = "expected a number from 0 to 1"
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}, {expected}")
    number = as_real(value, name, expected)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} is {value!r}, {expected}")
    return number


def as_positive(value, name):
    """A finite float greater than 0."""
    number = as_float(value, name)
    if number == 0:
        raise ValueError(f"{name} is {value!r}, expected more than 0")
    return number


def as_real(value, name, expected):
    """A float from one real number of any type, or from an array without axes of one."""
    if type(value) is float:  # the hot path
        return value
    array = value if np.isscalar(value) else np.asarray(value)
    if isinstance(value, (str, bytes)) or np.ndim(array) > 0 or np.iscomplexobj(array):
        raise TypeError(f"{name} is {value!r}, {expected}")
    try:
        return float(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, {expected}") from None
    except (ValueError, OverflowError):  # text in an array; an int larger than any float
        raise ValueError(f"{name} is {value!r}, {expected}") from None


def as_finite(value, name, above, expected):
    """A float between `above` and infinity, both excluded."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}, {expected}")
    number = as_real(value, name, expected)
    if not above < number < math.inf:
        raise ValueError(f"{name} is {value!r}, {expected}")
    return number


def as_word(value, name, words):
    """One of some strings."""
    expected = " or ".join(map(repr, words)) if len(words) == 2 else f"one of {words}"
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}, expected {expected}")
    if value not in words:
        raise ValueError(f"{name} is {value!r}, expected {expected}{did_you_mean(value, words)}")
    return value


def as_path(value, name):
    """The name of a file, as a string."""
    try:
        path = os.fsdecode(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, expected a string or a path") from None
    if not path or "\0" in path:
        raise ValueError(f"{name} is {value!r}, expected the name of a file")
    return path


def check_axes(input_shape, axes, advice=""):
    """Refuse an input without the named axes, or with nothing along one of them."""
    n_axes = axes.count(",") + 1
    if len(input_shape) != n_axes:
        raise ValueError(f"expected {n_axes} axes ({axes}), got shape {tuple(input_shape)}{advice}")
    if 0 in input_shape[1:]:
        raise ValueError(f"expected no empty axis in ({axes}), got shape {tuple(input_shape)}")


def check_is_array(value, name):
    """Refuse what is no NumPy array."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} is a {type(value).__name__}, expected a NumPy array")


def check_real(array, name):
    """Refuse what is no array of float32 or float64."""
    check_is_array(array, name)
    if array.dtype not in REAL:
        raise TypeError(f"{name} has dtype {array.dtype}, expected float32 or float64")


def check_like(array, name, shape, dtype=None):
    """Refuse an array of another shape, or dtype if that is given, and what is none."""
    check_is_array(array, name)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    if dtype is not None and array.dtype != dtype:
        raise TypeError(f"{name} has dtype {array.dtype}, expected {dtype}")


class Option:
    """A constructor's argument: checked when it is set, also later.

    A network takes the change of a layer's option up at its next call, or refuses it there
    if the layer's arrays don't fit. (Reading needs no help: the value is a plain attribute.)

    Parameters
    ----------
    check : callable (value, name, *arguments) -> value
    """

    def __init__(self, check, *arguments):
        self.check, self.arguments = check, arguments

    def __set_name__(self, owner, name):
        self.name = name

    if TYPE_CHECKING:

        def __get__(self, layer, owner) -> Any: ...

    def __set__(self, layer, value):
        vars(layer)[self.name] = self.check(value, self.name, *self.arguments)
        layer._option_changed()


class ArrayOption(Watched, Option):
    """An array, of which programs know whether somebody may have written to it."""

    def __init__(self):
        super().__init__(as_given)


def as_given(value, name):
    """Any value: whether an array fits is found out when it is used."""
    return value


class PairOption(Option):
    """A pair (y, x) of ints, or one int for both; for signals, which have no y, for x alone."""

    def __init__(self, minimum=1):
        super().__init__(as_pair, minimum)

    def __set__(self, layer, value):
        super().__set__(layer, value)
        numbers = vars(layer).setdefault("_numbers", {})
        numbers.pop(self.name, None)
        with suppress(TypeError):
            numbers[self.name] = index(value)


class PassedOption:
    """An option that layers inside of one have by the same name: it is theirs.

    Parameters
    ----------
    keys : str
        The attributes that hold these layers.
    """

    def __init__(self, *keys):
        self.keys = keys

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, layer, owner):
        return self if layer is None else getattr(vars(layer)[self.keys[0]], self.name)

    def __set__(self, layer, value):
        for key in self.keys:
            setattr(vars(layer)[key], self.name, value)

    def given(self, layer):
        """The value as a constructor takes it."""
        return vars(layer)[self.keys[0]].config()[self.name]


def as_call(instance, leave_out=()):
    """The call that makes an object whose constructor's arguments are its attributes."""
    arguments = [
        f"{name}={getattr(instance, name)!r}"
        for name in inspect.signature(type(instance)).parameters
        if name not in leave_out
    ]
    return f"{type(instance).__name__}({', '.join(arguments)})"
