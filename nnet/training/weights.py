"""Weights of images and classes, and the images that are held back for validation."""

import reprlib
from collections.abc import Mapping

import numpy as np

from nnet._atomic import quietly
from nnet.layers.arguments import as_real
from nnet.training.data import as_reals


def as_weights(weights, n_imgs, name="sample_weight"):
    """A float64 array (n_imgs,) of finite numbers, none of them negative."""
    weights = as_reals(weights, name).astype(float)
    if weights.shape != (n_imgs,):
        raise ValueError(f"{name} has shape {weights.shape}, expected ({n_imgs},)")
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError(f"{name} has negative, NaN or infinite values, expected none")
    if not np.isfinite(quietly(weights.sum)):
        raise ValueError(f"{name} has too large values, expected a sum that is finite")
    return weights


def as_class_weights(class_weight, classes, counts):
    """The weight of each class, from a dict by label or 'balanced'; absent labels weigh 1.

    'balanced' is n_imgs / (n_classes * count), as in scikit-learn: counts are sums of weights.
    """
    if isinstance(class_weight, str) and class_weight == "balanced":
        return np.divide(
            counts.sum(), len(classes) * counts, where=counts > 0, out=np.ones(len(counts))
        )
    if not isinstance(class_weight, Mapping):
        raise TypeError(
            f"class_weight is {class_weight!r}, expected None, 'balanced' or a dict of weights by "
            "label"
        )
    labels = classes.tolist()
    weights = np.ones(len(labels))
    for label, weight in class_weight.items():
        if label not in labels:
            known = reprlib.repr(labels)
            raise ValueError(f"class_weight has the label {label!r}, expected some of {known}")
        name = f"class_weight[{label!r}]"
        expected = "expected a finite number of at least 0"
        weights[labels.index(label)] = as_real(weight, name, expected)
        if not 0 <= weights[labels.index(label)] < np.inf:
            raise ValueError(f"{name} is {weight!r}, {expected}")
    return weights


def that_weigh(weights, *arrays):
    """Copies of what these arrays have for images whose weight is not 0."""
    rows = slice(None) if weights is None else weights > 0
    return [np.array(array[rows]) for array in arrays]


def as_fraction(value):
    """None, or a float between 0 and 1, both excluded."""
    if value is None:
        return None
    expected = "expected None or a number between 0 and 1"
    number = as_real(value, "validation_fraction", expected)
    if isinstance(value, bool) or not 0 < number < 1:
        raise ValueError(f"validation_fraction is {value!r}, {expected}")
    return number


def split(target, fraction, classes, rng):
    """(rows that train, rows that validate): of each class the same fraction, if there are some.

    Parameters
    ----------
    target : array of class indices (n_imgs,), or Values
    fraction : float
        Greater than 0 and less than 1.
    classes : None or array
    rng : Generator or RandomState

    Raises
    ------
    ValueError
        Where a class, which it names, or all images would have none on one side.
    """
    n_imgs = len(target)
    if classes is None or target.ndim > 1:
        groups = {"": np.arange(n_imgs)}
    else:
        groups = {repr(c): np.flatnonzero(target == i) for i, c in enumerate(classes.tolist())}
        groups = {name: rows for name, rows in groups.items() if len(rows)}
    for name, rows in groups.items():
        if len(rows) < 2:
            of = f" of the class {name}" if name else ""
            raise ValueError(
                f"validation_fraction is {fraction}, but y has {len(rows)} image{of}, expected at "
                "least 2: one to train on, one to validate"
            )
    parts = []
    for rows in groups.values():
        n_held = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        parts.append(rng.permutation(rows)[:n_held])
    held = np.zeros(n_imgs, bool)
    held[np.concatenate(parts)] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
