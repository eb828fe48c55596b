"""How far a training is: what callbacks are told, and what ends it."""

from collections.abc import Mapping
from math import nan
from typing import Any, NamedTuple


class DivergedError(FloatingPointError):
    """The training loss or the parameters became NaN or infinite."""


class StopTraining(Exception):
    """Raised by a callback, it ends the training as if this had been its last step."""


class Progress(NamedTuple):
    """What a `fit` callback is given after each batch.

    The last batch of an epoch is reported after validation: there `epoch_done`
    is true and, with validation data, `val_loss` and `val_error` are set.
    """

    network: Any  # the NeuralNetwork, usable as it is: predict, params, save
    epoch: int  # counts from 1
    n_epochs: int
    n_seen: int  # images of this epoch that were trained on
    n_imgs: int  # images of an epoch
    loss: float  # mean over the images seen in this epoch
    accuracy: float | None  # fraction of them classified correctly; None for regression
    seconds: float  # since the epoch began
    val_loss: float | None = None
    val_error: float | None = None
    metrics: Mapping[str, float] = {}  # of the epoch, once it is done: by the names of `history_`
    learning_rate: float = nan  # of the last step

    @property
    def epoch_done(self):
        return self.n_seen == self.n_imgs


class History:
    """One value for each finished epoch. It never changes: `plus` makes another.

    Parameters
    ----------
    values : dict of str to list of float
        By the names that Keras has for them: "loss", "accuracy", "val_loss", "val_accuracy";
        and metrics by their own names.
    val_error : list of float
    """

    def __init__(self, values=None, val_error=()):
        self.values, self.val_error = dict(values or {}), list(val_error)

    def __len__(self):
        return len(self["loss"])

    def __deepcopy__(self, memo):
        return self

    def __getitem__(self, name):
        return list(self.values.get(name, ()))

    def plus(self, progress):
        """With the values of an epoch that has ended. What an epoch does not have is NaN."""
        unknown = dict.fromkeys(progress.metrics, [nan] * len(self))
        values = {
            name: [*before, progress.metrics.get(name, nan)]
            for name, before in (unknown | self.values).items()
        }
        errors, error = self.val_error, progress.val_error
        if errors or error is not None:
            errors = [*(errors or [nan] * len(self)), nan if error is None else error]
        return History(values, errors)


def counted(progress):
    """How far a training is."""
    width = len(str(progress.n_epochs))
    return f"epoch {progress.epoch:{width}}/{progress.n_epochs}"


def headline(progress):
    """How far a training is, and how well it does: validation once there is some."""
    values = progress.metrics or {"loss": progress.loss, "accuracy": progress.accuracy}
    shown = [shown_value(*item) for item in values.items() if item[1] is not None]
    return f"{counted(progress)}: {', '.join(shown)}"


def shown_value(name, value, digits=2):
    """A value of `history_` as it is printed: accuracies in per cent."""
    if name in ("accuracy", "val_accuracy"):
        return f"{name} {value:.{digits}%}"
    return f"{name} {value:.4f}" if 1e-3 <= abs(value) < 1e4 else f"{name} {value:.4g}"


def line_of(progress, with_rate=False):
    """An epoch in one line."""
    rate = f", learning_rate {progress.learning_rate:.3g}" if with_rate else ""
    return f"{headline(progress)}{rate}, {progress.n_imgs / progress.seconds:,.0f} images/s"
