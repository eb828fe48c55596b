"""Images and labels to train on: the digits of scikit-learn, and .npz files."""

import importlib
import warnings
import zipfile
from contextlib import contextmanager

import numpy as np

from nnet._lazy import IMPORTS

SPLIT_SEED = 0  # the same images are held out in every run, so that runs can be compared


def load_digits():
    """The 1,797 handwritten digits that scikit-learn ships.

    Returns
    -------
    X : array (1797, 8, 8) of float64, 0 to 16
    y : array (1797,) of the ints 0 to 9
    """
    digits = _import_sklearn("datasets").load_digits()
    return digits.images, digits.target


def load_arrays(path, *names):
    """Arrays of an .npz file, without unpickling anything.

    Returns
    -------
    list of arrays, one for each name

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is not a whole .npz file, lacks a name, or holds Python objects.
    """
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path} is not a complete .npz file, expected one from numpy.savez")
        file.seek(0)
        with damage_named(path):
            npz = np.load(file, allow_pickle=False)
            found = npz.files
            arrays = [npz[name] for name in names if name in found]
    if len(arrays) < len(names):
        raise ValueError(f"{path} holds {_enumerate(found)}, expected {_enumerate(names)}")
    for name, array in zip(names, arrays):
        if not isinstance(array, np.ndarray):
            raise ValueError(f"{path} is damaged: {name} is not an array")
    return arrays


@contextmanager
def damage_named(path):
    """A context in which NumPy reads a file: what is wrong is a ValueError that names it."""
    try:
        yield
    except MemoryError as error:
        raise MemoryError(f"{path}: {error}") from error
    except Exception as error:  # damaged zips and headers fail in more ways than are documented
        if isinstance(error, ValueError) and "allow_pickle" in str(error):
            raise ValueError(
                f"{path} holds Python objects, expected numbers or strings: loading objects can "
                "run code of the file"
            ) from error
        raise ValueError(f"{path} is damaged: {str(error) or type(error).__name__}") from error


def split(X, y, test_fraction):
    """Hold out some images of each class, always the same ones.

    Parameters
    ----------
    X : array
    y : None or array
        The classes; None: any of the images are held out.
    test_fraction : float

    Returns
    -------
    X_train, X_test, y_train, y_test : arrays (without y the first two)
        As scikit-learn's `train_test_split(X, y, test_size=test_fraction,
        stratify=y, random_state=0)` returns them.

    Raises
    ------
    ValueError
        If a class has too few images for both parts.
    """
    train_test_split = _import_sklearn("model_selection").train_test_split
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # many classes of few images: allowed
        try:
            arrays = [X] if y is None else [X, y]
            return train_test_split(
                *arrays, test_size=test_fraction, stratify=y, random_state=SPLIT_SEED
            )
        except ValueError as error:
            raise ValueError(f"cannot hold out {test_fraction:g} of the images: {error}") from error


def _import_sklearn(module):
    try:
        with IMPORTS:
            return importlib.import_module(f"sklearn.{module}")
    except ModuleNotFoundError as error:
        raise ImportError(
            "the digits and the test split need scikit-learn: pip install scikit-learn"
        ) from error


def _enumerate(names):
    return " and ".join(map(repr, names)) or "nothing"
