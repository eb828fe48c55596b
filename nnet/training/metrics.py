"""Metrics: what is reported of an epoch beside the loss, and R^2."""

from collections.abc import Iterable
from math import nan
from typing import Any

import numpy as np

from nnet.layers.arguments import as_real, as_word
from nnet.training.weights import that_weigh

TAKEN = "loss", "accuracy", "error"


def as_mode(mode, monitor):
    """'min' or 'max': whether less or more of a metric is better."""
    if mode is not None:
        return as_word(mode, "mode", ("min", "max"))
    kind = monitor.removeprefix("val_")
    if kind == "acc":
        raise ValueError(f"monitor is {monitor!r}, expected '{monitor}uracy'")
    if kind not in TAKEN:
        raise ValueError(f"mode is None, expected 'min' or 'max' for the monitor {monitor!r}")
    return "max" if kind == "accuracy" else "min"


def as_monitor(monitor):
    """The name of a metric."""
    if not isinstance(monitor, str):
        raise TypeError(f"monitor is {monitor!r}, expected a name such as 'val_loss'")
    return monitor


def check_monitor(monitor, monitors, who):
    """Refuse the name of a metric that is not among those there will be; `who` watches it."""
    if monitor in monitors:
        return
    if monitor.startswith("val_") and not any(name.startswith("val_") for name in monitors):
        raise ValueError(
            f"{who} needs validation_data or validation_fraction for {monitor}, expected one of "
            f"these given to fit, or a monitor of {monitors}"
        )
    raise ValueError(f"monitor is {monitor!r}, expected one of {monitors}")


class Metrics:
    """Functions of (targets, predictions), such as those of sklearn.metrics.

    Parameters
    ----------
    functions : None, callable, or list of callables
        Each is given all targets of an epoch as in y, and what the network predicted for them,
        as `predict` returns it, but for images of weight 0; it returns a number.
    """

    def __init__(self, functions):
        if functions is None:
            functions = []
        if callable(functions) or not isinstance(functions, Iterable) or isinstance(functions, str):
            functions = [functions]
        self._functions: dict[str, Any] = {}
        for function in functions:
            if isinstance(function, str) and function in TAKEN:
                always = "loss" if function == "loss" else "accuracy"
                raise TypeError(
                    f"metrics has {function!r}: {always} is always in history_, leave it out"
                )
            if not callable(function):
                raise TypeError(f"metrics has {function!r}, expected functions of (y, predictions)")
            name = getattr(function, "__name__", type(function).__name__)
            if name in (*TAKEN, *self._functions) or name.startswith("val_"):
                raise ValueError(
                    f"metrics has {function!r} by the name {name!r}, expected names that differ, "
                    f"other than {TAKEN}: set its __name__, or use a def"
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
            prefix + name: _value(name, function, y, predictions)
            for name, function in self._functions.items()
        }


def _value(name, function, y, predictions):
    """What a metric returns; what it raises names it."""
    try:
        value = function(y, predictions)
    except Exception as error:
        text, *others = error.args or ("it failed",)
        if isinstance(text, str):
            error.args = f"in the metric {name}: {text}", *others
        raise
    return as_real(value, f"{name}(y, predictions)", "expected a number")


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
