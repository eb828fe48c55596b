"""The arrays X and y that a network is given, checked before any work."""

import numpy as np

from nnet._dense import all_finite


def as_images(X, dtype=None):
    """X as an array of finite floats; by default float64 stays, everything else becomes float32."""
    X = np.asarray(X)
    if X.dtype.kind not in "biuf":
        raise TypeError(f"X has dtype {X.dtype}, expected real numbers")
    if X.ndim not in (2, 3, 4):
        raise ValueError(
            f"X has shape {X.shape}, expected (n_imgs, n_channels, img_h, img_w), "
            "(n_imgs, n_channels, length) or (n_imgs, n_features)"
        )
    if dtype is None:
        dtype = np.float64 if X.dtype.kind == "f" and X.dtype.itemsize >= 8 else np.float32
    if X.dtype != dtype:
        with np.errstate(over="ignore"):  # what overflows is found below
            X = X.astype(dtype)
    if not all_finite(X):
        bad = int(np.argmin(np.isfinite(X).all(axis=tuple(range(1, X.ndim)))))
        raise ValueError(
            f"X[{bad}] has NaN, infinite or too large values, expected finite {X.dtype}"
        )
    return X


def bc01_shape(image_shape):
    """The shape of an image as the layers see it: a signal has height 1."""
    return (image_shape[0], 1, image_shape[1]) if len(image_shape) == 2 else image_shape


def as_labels(y):
    """y as a 1-D array of bools, numbers or strings."""
    y = np.asarray(y)
    if y.ndim != 1:
        raise ValueError(f"y has shape {y.shape}, expected one label per image: (n_imgs,)")
    if y.dtype.kind in "OT":
        values = [v.item() if isinstance(v, np.generic) else v for v in y.tolist()]
        kinds = {type(value) for value in values}
        if len(kinds) > 1 or not kinds <= {str, bytes, bool, int, float}:
            names = sorted(kind.__name__ for kind in kinds)
            raise TypeError(
                f"y has labels of types {names}, expected all bools, numbers or strings"
            )
        y = np.array(values)
    if y.dtype.kind not in "biufUS" or y.dtype.kind == "f" and y.dtype.itemsize > 8:
        raise TypeError(f"y has dtype {y.dtype}, expected bools, numbers or strings")
    if y.dtype.kind == "f":
        if not np.isfinite(y).all():
            raise ValueError("y has NaN or infinite values, expected finite labels")
        if (y != np.floor(y)).any():
            raise ValueError(
                "y has fractional values, expected labels "
                "(for regression, the last layer is MeanSquaredError())"
            )
    return y


def encode(labels, classes, strict_name=None):
    """The index of each label in the sorted classes.

    A label that is not there gives -1, or with a `strict_name` an error.
    """
    kinds = labels.dtype.kind, classes.dtype.kind
    if kinds[0] != kinds[1] and ("U" in kinds or "S" in kinds):
        raise TypeError(f"y has dtype {labels.dtype}, expected labels like {classes.dtype}")
    indices = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    indices[classes[indices] != labels] = -1
    if strict_name is not None and (indices < 0).any():
        unknown = labels[indices < 0].tolist()[0]
        raise ValueError(f"{strict_name} has the label {unknown!r}, expected one of those of fit")
    return indices


def as_values(y, dtype):
    """y as an array of finite floats: regression targets."""
    y = np.asarray(y)
    if y.dtype.kind not in "biuf":
        raise TypeError(f"y has dtype {y.dtype}, expected real numbers")
    with np.errstate(over="ignore"):
        y = y.astype(dtype, copy=False)
    if not np.isfinite(y).all():
        raise ValueError(f"y has NaN, infinite or too large values, expected finite {y.dtype}")
    return y


def check_lengths(X, y):
    """As many targets as images."""
    y_shape = np.shape(y)
    if not y_shape or y_shape[0] != len(X):
        raise ValueError(
            f"X has {len(X)} images and y has shape {y_shape}, expected as many of both"
        )


def batch_of(shape):
    """The shape of any number of images of one shape, as errors show it."""
    return f"({', '.join(map(str, ('n_imgs', *shape)))}{'' if shape else ','})"
