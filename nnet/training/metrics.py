"""Metrics: what is reported of an epoch beside the loss."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from nnet.layers.arguments import as_real

TAKEN = "loss", "accuracy", "error"


class Metrics:
    """Functions of (targets, predictions), such as those of sklearn.metrics.

    Parameters
    ----------
    functions : callable, or list of callables
        Each is given all targets of an epoch as in y, and what the network predicted for them,
        as `predict` returns it; it returns a number.
    """

    def __init__(self, functions):
        if callable(functions) or not isinstance(functions, Iterable):
            functions = [functions]
        self._functions: dict[str, Any] = {}
        for function in functions:
            if not callable(function):
                raise TypeError(f"metrics has {function!r}, expected functions of (y, predictions)")
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

    def monitors(self, is_classifier, has_validation):
        """The names of an epoch's values."""
        names = ["loss", *["accuracy"] * is_classifier, *self.names]
        return names + [f"val_{name}" for name in names] * has_validation

    def restart(self):
        """Begin an epoch."""
        self._targets, self._decisions = [], []

    def add(self, model, predictions, target):
        """Keep what a batch of the epoch had predicted, before its step."""
        if self._functions:
            self._targets.append(np.array(target))
            self._decisions.append(np.array(model.loss.decide(predictions)))

    def of_epoch(self, model, progress, found=None):
        """{name: value} of an epoch: its training, and the `Evaluation` found for validation."""
        values = {"loss": progress.loss}
        if model.is_classifier:
            values["accuracy"] = progress.accuracy
        values |= self._values(model, "", self._targets, self._decisions)
        if found is not None:
            values["val_loss"] = found.loss
            if model.is_classifier:
                values["val_accuracy"] = found.accuracy
            values |= self._values(model, "val_", found.targets, found.decisions)
        return values

    def _values(self, model, prefix, targets, decisions):
        if not self._functions:
            return {}
        y, predictions = (model.as_y(np.concatenate(parts)) for parts in (targets, decisions))
        return {
            prefix + name: as_real(
                function(y, predictions), f"{name}(y, predictions)", "expected a number"
            )
            for name, function in self._functions.items()
        }
