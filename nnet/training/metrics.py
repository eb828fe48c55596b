"""Metrics: what is reported of an epoch beside the loss, and R^2."""

from collections.abc import Iterable
from math import nan
from typing import Any

import numpy as np

from nnet.layers.arguments import as_real
from nnet.training.weights import that_weigh

TAKEN = "loss", "accuracy", "error"


class Metrics:
    """Functions of (targets, predictions), such as those of sklearn.metrics.

    Parameters
    ----------
    functions : callable, or list of callables
        Each is given all targets of an epoch as in y, and what the network predicted for them,
        as `predict` returns it, but for images of weight 0; it returns a number.
    """

    def __init__(self, functions):
        if callable(functions) or not isinstance(functions, Iterable) or isinstance(functions, str):
            functions = [functions]
        self._functions: dict[str, Any] = {}
        for function in functions:
            if not callable(function):
                advice = ": it is in history_ without" if function == "accuracy" else ""
                raise TypeError(
                    f"metrics has {function!r}, expected functions of (y, predictions){advice}"
                )
            name = getattr(function, "__name__", type(function).__name__)
            if name in (*TAKEN, *self._functions) or name.startswith("val_"):
                raise ValueError(
                    f"metrics has {function!r} by the name {name!r}, expected names that differ, "
                    f"other than {TAKEN}"
                )
            self._functions[name] = function
        self.names = list(self._functions)
        self.restart()

    def __bool__(self):
        return bool(self._functions)

    def monitors(self, has_accuracy, has_validation):
        """The names of an epoch's values."""
        names = ["loss", *["accuracy"] * has_accuracy, *self.names]
        return names + [f"val_{name}" for name in names] * has_validation

    def restart(self):
        """Begin an epoch."""
        self._trained, self._validated = [], []

    def add(self, model, predictions, target, weights=None):
        """Keep what a batch of the epoch had predicted, before its step."""
        if self._functions:
            decisions = model.loss.decide(predictions)
            self._trained.append(that_weigh(weights, target, decisions))

    def add_validated(self, target, decisions, weights=None):
        """Keep what was decided about a batch of the validation after the epoch."""
        self._validated.append(that_weigh(weights, target, decisions))

    def of_epoch(self, model, progress, found=None):
        """{name: value} of an epoch: its training, and the `Evaluation` found for validation."""
        values = {"loss": progress.loss}
        if model.loss.has_probabilities:
            values["accuracy"] = progress.accuracy
        values |= self._values(model, "", self._trained)
        if found is not None:
            values["val_loss"] = found.loss
            if model.loss.has_probabilities:
                values["val_accuracy"] = found.accuracy
            values |= self._values(model, "val_", self._validated)
        return values

    def _values(self, model, prefix, kept):
        if not self._functions:
            return {}
        if not any(len(targets) for targets, _ in kept):  # all images have the weight 0
            return dict.fromkeys((prefix + name for name in self._functions), nan)
        y, predictions = (model.as_y(np.concatenate(parts)) for parts in zip(*kept))
        return {
            prefix + name: as_real(
                function(y, predictions), f"{name}(y, predictions)", "expected a number"
            )
            for name, function in self._functions.items()
        }


class RSquared:
    """1 - sum of (y - predictions)^2 / sum of (y - mean of y)^2, a mean over the targets.

    Where all y are equal it is 1 if they are predicted exactly, else 0.

    Parameters
    ----------
    values : Values
        All y.
    """

    def __init__(self, values):
        self._mean = mean_of(values).ravel()
        self._left, self._total = np.zeros((2, len(self._mean)))

    def add(self, target, predictions, weights=None):
        """Count a batch; each image as one."""
        y, predictions = (array.reshape(len(array), -1) for array in (target, predictions))
        self._left += np.square(np.subtract(y, predictions, dtype=float)).sum(axis=0)
        self._total += np.square(y - self._mean).sum(axis=0)

    def value(self):
        scores = np.where(self._left == 0, 1.0, 0.0)
        varies = self._total > 0
        scores[varies] = 1 - self._left[varies] / self._total[varies]
        return float(scores.mean())


def mean_of(values):
    """The float64 mean of each target: of equal ones it is their value exactly."""
    first, total = values[:1][0].astype(float), np.zeros(values.item_shape)
    for rows, work in values.blocks():
        total += np.add.reduce(values.batch(rows, work) - first, axis=0)
    return first + total / len(values)
