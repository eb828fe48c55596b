"""Callbacks: what watches a training, shows it, ends it in time, and keeps it on disk."""

import os
import sys
from contextlib import contextmanager
from math import inf

import numpy as np

from nnet._lazy import IMPORTS, import_package
from nnet.layers.arguments import as_bool, as_call, as_count, as_float, as_int, as_path
from nnet.layers.hints import with_hints
from nnet.training.metrics import as_mode, as_monitor, check_monitor
from nnet.training.progress import counted, shown_value
from nnet.training.schedules import Schedule


class Callback:
    """Is told of a training: any function of a `Progress` is one too.

    Returning True, or raising `StopTraining`, ends the training.
    """

    def on_fit_begin(self, network, monitors):
        """Before the first step. `monitors` are the names that `Progress.metrics` will have."""

    def __call__(self, progress):
        """After each batch; the last one of an epoch is reported after validation."""

    def on_fit_end(self, network):
        """After the last step, also where an exception ends the training; not if it diverges."""

    def close(self):
        """After all that, however it went: also if the training was refused, or diverged."""

    def outcome(self):
        """What a verbose training prints at its end."""
        return ""

    def state(self):
        """What the next calls depend on: arrays and numbers by name, for a `Checkpoint`."""
        return {}

    def load_state(self, state):
        """Take over what `state` returned."""


class EarlyStopping(Callback):
    """Ends a training that no longer improves, and goes back to the best epoch.

    Parameters
    ----------
    monitor : str
        A name of `Progress.metrics`: "loss", "accuracy", one of the `metrics` given to fit, or
        "val_" and one of these.
    patience : int
        After so many epochs without an improvement in a row the training ends.
    min_delta : float
        What improves by less does not count.
    mode : None, 'min' or 'max'
        Whether less or more is better. None: more for accuracies, less for losses; metrics of
        your own need a mode.
    restore_best : bool
        Whether the network gets the arrays of the best epoch, running statistics included: at
        the end of fit, however it ends.

    Attributes
    ----------
    best, best_epoch : float, int
        The best value, and the epoch that it is of, counted from 1; NaN is never best. inf or
        -inf, and 0, before the first.

    Notes
    -----
    It starts afresh with each fit.
    """

    @with_hints()
    def __init__(self, monitor="val_loss", patience=5, min_delta=0.0, mode=None, restore_best=True):
        self.monitor = as_monitor(monitor)
        self.patience = as_count(patience, "patience")
        self.min_delta = as_float(min_delta, "min_delta")
        self.mode = as_mode(mode, monitor)
        self.restore_best = as_bool(restore_best, "restore_best")
        self._start()

    def __repr__(self):
        return as_call(self)

    def _start(self):
        self.best = -inf if self.mode == "max" else inf
        self.best_epoch = self._n_epochs = 0
        self._arrays = {}

    def on_fit_begin(self, network, monitors):
        check_monitor(self.monitor, monitors, "EarlyStopping")
        self._start()

    def __call__(self, progress):
        if not progress.epoch_done:
            return False
        self._n_epochs += 1
        value = progress.metrics[self.monitor]
        gain = self.best - value if self.mode == "min" else value - self.best
        if gain > self.min_delta:
            self.best, self.best_epoch = value, self._n_epochs
            if self.restore_best:
                self._arrays = progress.network.state_dict()
        return self._n_epochs - self.best_epoch >= self.patience

    def on_fit_end(self, network):
        if self._arrays:
            network.load_state_dict(self._arrays)

    def outcome(self):
        if self.best_epoch == 0:
            return ""
        restored = ", whose arrays are restored" if self.restore_best else ""
        value = shown_value(self.monitor, self.best)
        return f"{value} was best, in epoch {self.best_epoch}{restored}"

    def state(self):
        numbers = {"best": self.best, "best_epoch": self.best_epoch, "n_epochs": self._n_epochs}
        return numbers | {f"arrays.{name}": array for name, array in self._arrays.items()}

    def load_state(self, state):
        self.best, self.best_epoch = float(state["best"]), int(state["best_epoch"])
        self._n_epochs = int(state["n_epochs"])
        self._arrays = {
            name.removeprefix("arrays."): np.array(array)
            for name, array in state.items()
            if name.startswith("arrays.")
        }


class Checkpoint(Callback):
    """Writes all that a training needs to go on, after epochs: see fit's `resume`.

    The file is replaced in one step, so that at any moment there is a whole one. Needs the
    package safetensors.

    Parameters
    ----------
    path : str or path
    every : int
        Epochs from one to the next; the last epoch is kept too.
    """

    @with_hints()
    def __init__(self, path, every=1):
        self.path = as_path(path, "path")
        self.every = as_int(every, "every", 1)

    def __repr__(self):
        return f"Checkpoint({self.path!r}, every={self.every})"

    def on_fit_begin(self, network, monitors):
        with IMPORTS:
            from nnet.files import replacing, tensors  # only now: fit can do without

        tensors.import_safetensors()
        replacing.check_place(self.path)


class ProgressBar(Callback):
    """A bar that shows how far a training is: in terminals and notebooks, nowhere else.

    Needs the package tqdm.

    Parameters
    ----------
    file : None or text stream
        Where it is shown, if that is a terminal. None: sys.stderr, or the notebook.
    leave : bool
        Whether it stays there at the end.
    """

    @with_hints()
    def __init__(self, file=None, leave=True):
        if file is not None and not hasattr(file, "write"):
            raise TypeError(f"file is {file!r}, expected None or a text stream")
        self.file, self.leave = file, as_bool(leave, "leave")
        self._bar, self._validated = None, {}

    def __repr__(self):
        return as_call(self)

    def on_fit_begin(self, network, monitors):
        import_tqdm()
        self._validated = {}

    def __call__(self, progress):
        if progress.metrics:  # only accuracy, if there is one: a line is short
            found = [name for name in ("val_accuracy", "val_loss") if name in progress.metrics]
            self._validated = {name: progress.metrics[name] for name in found[:1]}
        if self._bar is None:
            self._bar = self._open(progress)
        values = {"loss": progress.loss, "accuracy": progress.accuracy, **self._validated}
        shown = [shown_value(*item, 1) for item in values.items() if item[1] is not None]
        self._bar.set_description_str(counted(progress), refresh=False)
        self._bar.set_postfix_str(", ".join(shown), refresh=False)
        n_done = (progress.epoch - 1) * progress.n_imgs + progress.n_seen
        self._bar.update(n_done - self._bar.n)

    def _open(self, progress):
        tqdm = import_tqdm()
        is_notebook = any(cls.__module__ == "tqdm.notebook" for cls in tqdm.__mro__)
        bar = "{bar}" if is_notebook else "{bar:10}"  # so wide that values have room in a terminal
        is_without_width = has_no_width(self.file or sys.stderr)
        return tqdm(
            desc=counted(progress),
            total=progress.n_epochs * progress.n_imgs,
            initial=(progress.epoch - 1) * progress.n_imgs,
            unit=" images",
            unit_scale=True,
            leave=self.leave,
            **({"ncols": 80, "nrows": 24} if is_without_width else {"dynamic_ncols": True}),
            file=self.file,
            disable=None,  # unless it is a terminal
            bar_format=f"{{desc}} |{bar}| {{remaining}}{{postfix}}, {{rate_noinv_fmt}}",
        )

    @contextmanager
    def hidden(self):
        """A context in which other things are printed: the bar is shown again below them."""
        if self._bar is None or self._bar.disable:
            yield
        else:
            with self._bar.external_write_mode(file=self.file or sys.stderr):
                yield

    def write(self, line):
        """Print a line above the bar."""
        with self.hidden():
            print(line, file=self.file or sys.stderr, flush=True)

    def close(self):
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()


def has_no_width(stream):
    """Whether it is a terminal that does not say how wide it is."""
    try:
        return os.get_terminal_size(stream.fileno()).columns == 0
    except (OSError, ValueError, AttributeError):
        return False


def import_tqdm():
    return import_package("tqdm.auto", "tqdm", "a progress bar").tqdm


def as_callbacks(callbacks, callback=None):
    """A list of callables."""
    if callbacks is None:
        callbacks = []
    if callable(callbacks):
        callbacks = [callbacks]
    if not isinstance(callbacks, (list, tuple)):
        raise TypeError(f"callbacks is {callbacks!r}, expected a list of callables")
    callbacks = [*callbacks, *[callback] * (callback is not None)]
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(f"callback is {callback!r}, expected None or a callable")
        if isinstance(callback, Schedule):
            raise TypeError(
                f"callback is {callback!r}, expected it as learning_rate: fit(X, y, "
                f"{type(callback).__name__}(...))"
            )
        if isinstance(callback, type) and issubclass(callback, Callback):
            name = callback.__name__
            raise TypeError(f"callback is the class {name}, expected an object such as {name}()")
    return callbacks
