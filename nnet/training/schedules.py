"""Schedules: learning rates that change during a training."""

import math
from abc import ABC, abstractmethod

from nnet.layers.arguments import (
    as_call,
    as_count,
    as_float,
    as_int,
    as_positive,
    as_word,
)
from nnet.layers.hints import with_hints
from nnet.training.metrics import as_mode, as_monitor, check_monitor


class Schedule(ABC):
    """A learning rate that changes during a training: `learning_rate` of fit or an optimizer.

    `fit` trains with a copy. One of your own needs `__call__`, and if it remembers anything
    `start`, `state` and `load_state`.

    Attributes
    ----------
    depends_on_max_iter : bool
        Whether the rates of the first epochs depend on how many are to follow, as is assumed of
        those of your own: then a training cannot go on for longer than it was planned.
    step_follows_epoch : bool
        Whether the steps before are `epoch * n_steps_per_epoch`, also where calls of
        `partial_fit` had other numbers of batches; otherwise all that there were.
    """

    step_follows_epoch = False

    def __repr__(self):
        return as_call(self)

    @property
    def depends_on_max_iter(self):
        return True

    def start(self, n_epochs, metrics):
        """Begin a training.

        Parameters
        ----------
        n_epochs : int
            That are planned.
        metrics : list of str
            What `Progress.metrics` will have, such as "val_loss".

        Raises
        ------
        ValueError
            For what cannot work with these.
        """

    @abstractmethod
    def __call__(self, step, epoch, n_steps_per_epoch, n_epochs):
        """The learning rate of a step. All count from 0: `step` since the training began.

        See `step_follows_epoch`.
        """

    def end_epoch(self, progress):
        """Take note of an epoch that has ended: `progress` is a `Progress`."""

    def state(self):
        """All that it remembers, numbers by name; nothing if the rate follows from the step."""
        return {}

    def load_state(self, state):
        """Take over what `state` returned."""
        if state.keys() != self.state().keys():
            raise ValueError(f"state has {sorted(state)}, expected {sorted(self.state())}")


def as_by(value, name):
    return as_word(value, name, ("epoch", "step"))


class StepDecay(Schedule):
    """The rate times gamma after every `step_size` epochs: PyTorch's StepLR.

    Parameters
    ----------
    learning_rate : float
        The first one.
    step_size : int
    gamma : float
    by : {'epoch', 'step'}
        What step_size counts.
    """

    depends_on_max_iter = False

    @with_hints()
    def __init__(self, learning_rate, step_size, gamma=0.1, by="epoch"):
        self.learning_rate = as_float(learning_rate, "learning_rate")
        self.step_size = as_count(step_size, "step_size")
        self.gamma = as_float(gamma, "gamma")
        self.by = as_by(by, "by")

    def __call__(self, step, epoch, n_steps_per_epoch, n_epochs):
        time = epoch if self.by == "epoch" else step
        return self.learning_rate * self.gamma ** (time // self.step_size)


class ExponentialDecay(Schedule):
    """The rate times gamma after every epoch: PyTorch's ExponentialLR.

    Parameters
    ----------
    learning_rate : float
        The first one.
    gamma : float
    by : {'epoch', 'step'}
        After what the rate changes.
    """

    depends_on_max_iter = False

    @with_hints(decay_rate="gamma")
    def __init__(self, learning_rate, gamma, by="epoch"):
        self.learning_rate = as_float(learning_rate, "learning_rate")
        self.gamma = as_float(gamma, "gamma")
        self.by = as_by(by, "by")

    def __call__(self, step, epoch, n_steps_per_epoch, n_epochs):
        return self.learning_rate * self.gamma ** (epoch if self.by == "epoch" else step)


class CosineDecay(Schedule):
    """Half a period of a cosine, from the rate down, after a linear warm-up.

    Loshchilov and Hutter 2017, "SGDR: stochastic gradient descent with warm restarts", eq. 5,
    without restarts: PyTorch's CosineAnnealingLR. Of w steps of warm-up, step i (from 0) has
    (i + 1) / (w + 1) of the rate: PyTorch's LinearLR(start_factor=1 / (w + 1), total_iters=w)
    before it in a SequentialLR.

    Parameters
    ----------
    learning_rate : float
        The largest one.
    min_learning_rate : float
        Where the cosine would end one step after the last, and what is left from then on.
    warmup_epochs : float
        A whole number if the rate changes by the epoch.
    n_epochs : None or int
        With the warm-up; None: max_iter of `fit`.
    by : {'step', 'epoch'}
        After what the rate changes.
    """

    step_follows_epoch = True

    @with_hints(alpha="min_learning_rate", warmup_steps="warmup_epochs")
    def __init__(
        self, learning_rate, min_learning_rate=0.0, warmup_epochs=0, n_epochs=None, by="step"
    ):
        self.learning_rate = as_float(learning_rate, "learning_rate")
        self.min_learning_rate = as_least(min_learning_rate, self.learning_rate)
        self.warmup_epochs = as_float(warmup_epochs, "warmup_epochs")
        self.n_epochs = n_epochs if n_epochs is None else as_count(n_epochs, "n_epochs")
        self.by = as_by(by, "by")
        if self.by == "epoch" and self.warmup_epochs % 1:
            raise ValueError(
                f"warmup_epochs is {warmup_epochs!r}, expected a whole number with by='epoch'"
            )

    @property
    def depends_on_max_iter(self):
        return self.n_epochs is None

    def start(self, n_epochs, metrics):
        n_epochs = self.n_epochs or n_epochs
        if self.warmup_epochs >= n_epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs:g}, expected less than the {n_epochs} epochs"
            )

    def __call__(self, step, epoch, n_steps_per_epoch, n_epochs):
        time, unit = (epoch, 1) if self.by == "epoch" else (step, n_steps_per_epoch)
        total, warmup = (self.n_epochs or n_epochs) * unit, round(self.warmup_epochs * unit)
        if time < warmup:
            return self.learning_rate * (time + 1) / (warmup + 1)
        done = min((time - warmup) / max(total - warmup, 1), 1)
        return cosine_between(self.learning_rate, self.min_learning_rate, done)


class OneCycle(Schedule):
    """Up to a rate that is high, then down to nearly nothing, step by step.

    Smith and Topin 2018, "Super-convergence": PyTorch's OneCycleLR with cycle_momentum=False.

    Parameters
    ----------
    max_learning_rate : float
    pct_start : float
        The part of all steps, from 0 to 1, in which the rate rises.
    anneal_strategy : {'cos', 'linear'}
    div_factor : float
        The first rate is max_learning_rate / div_factor.
    final_div_factor : float
        The last one is the first / final_div_factor.
    n_epochs : None or int
        None: max_iter of `fit`. The last rate is left from then on.
    """

    step_follows_epoch = True

    @with_hints()
    def __init__(
        self,
        max_learning_rate,
        pct_start=0.3,
        anneal_strategy="cos",
        div_factor=25.0,
        final_div_factor=1e4,
        n_epochs=None,
    ):
        self.max_learning_rate = as_float(max_learning_rate, "max_learning_rate")
        self.pct_start = as_float(pct_start, "pct_start")
        if self.pct_start > 1:
            raise ValueError(f"pct_start is {pct_start!r}, expected at most 1")
        self.anneal_strategy = as_word(anneal_strategy, "anneal_strategy", ("cos", "linear"))
        self.div_factor = as_positive(div_factor, "div_factor")
        self.final_div_factor = as_positive(final_div_factor, "final_div_factor")
        self.n_epochs = n_epochs if n_epochs is None else as_count(n_epochs, "n_epochs")

    @property
    def depends_on_max_iter(self):
        return self.n_epochs is None

    def __call__(self, step, epoch, n_steps_per_epoch, n_epochs):
        total = (self.n_epochs or n_epochs) * n_steps_per_epoch
        first = self.max_learning_rate / self.div_factor
        peak = self.pct_start * total - 1  # the step, not always a whole number
        between = cosine_between if self.anneal_strategy == "cos" else line_between
        if step <= peak:
            return between(first, self.max_learning_rate, step / peak if peak else 1)
        done = min((step - peak) / max(total - 1 - peak, 1e-9), 1)
        return between(self.max_learning_rate, first / self.final_div_factor, done)


class ReduceOnPlateau(Schedule):
    """The rate times `factor` whenever a metric has not improved for more than `patience` epochs.

    PyTorch's ReduceLROnPlateau with eps=0, looked at after each epoch.

    Parameters
    ----------
    learning_rate : float
        The first one.
    factor : float
        Less than 1.
    patience : int
        Epochs without improvement that are let pass.
    monitor : None or str
        A name of `Progress.metrics`, as for `EarlyStopping`. None: 'val_loss', or 'loss'
        without validation data.
    threshold : float
        What counts as an improvement: more than this part of the best value.
    threshold_mode : {'rel', 'abs'}
        'abs': more than this difference to it.
    cooldown : int
        Epochs after a change in which none counts.
    min_learning_rate : float
    mode : None, 'min' or 'max'
        Whether less or more is better, as for `EarlyStopping`: metrics of your own need one.
    """

    depends_on_max_iter = False

    @with_hints(min_delta="threshold")
    def __init__(
        self,
        learning_rate,
        factor=0.1,
        patience=10,
        monitor=None,
        threshold=1e-4,
        threshold_mode="rel",
        cooldown=0,
        min_learning_rate=0.0,
        mode=None,
    ):
        self.learning_rate = as_float(learning_rate, "learning_rate")
        self.factor = as_float(factor, "factor")
        if self.factor >= 1:
            raise ValueError(f"factor is {factor!r}, expected less than 1")
        self.patience = as_int(patience, "patience", 0)
        self.monitor = monitor if monitor is None else as_monitor(monitor)
        self.mode = as_mode(mode, monitor or "loss")
        self.threshold = as_float(threshold, "threshold")
        self.threshold_mode = as_word(threshold_mode, "threshold_mode", ("rel", "abs"))
        self.cooldown = as_int(cooldown, "cooldown", 0)
        self.min_learning_rate = as_least(min_learning_rate, self.learning_rate)
        self._begin()

    def _begin(self):
        self._rate, self._best = self.learning_rate, math.inf
        self._n_bad_epochs = self._n_cooling = 0

    def start(self, n_epochs, metrics):
        self._metric = self.monitor or ("val_loss" if "val_loss" in metrics else "loss")
        check_monitor(self._metric, metrics, "ReduceOnPlateau")
        self._begin()

    def __call__(self, step, epoch, n_steps_per_epoch, n_epochs):
        return self._rate

    def end_epoch(self, progress):
        value = progress.metrics[self._metric]
        value = -value if self.mode == "max" else value
        margin = self.threshold
        if self.threshold_mode == "rel" and math.isfinite(self._best):
            margin *= abs(self._best)
        if value < self._best - margin:
            self._best, self._n_bad_epochs = value, 0
        else:
            self._n_bad_epochs += 1
        if self._n_cooling > 0:
            self._n_cooling -= 1
            self._n_bad_epochs = 0
        if self._n_bad_epochs > self.patience:
            self._rate = max(self._rate * self.factor, self.min_learning_rate)
            self._n_bad_epochs, self._n_cooling = 0, self.cooldown

    def state(self):
        return {
            "learning_rate": self._rate,
            "best": self._best,
            "n_bad_epochs": self._n_bad_epochs,
            "n_cooling": self._n_cooling,
        }

    def load_state(self, state):
        super().load_state(state)
        rate = as_float(state["learning_rate"], "state['learning_rate']")
        n_bad_epochs = as_int(state["n_bad_epochs"], "state['n_bad_epochs']", 0)
        n_cooling = as_int(state["n_cooling"], "state['n_cooling']", 0)
        self._rate, self._best = rate, float(state["best"])
        self._n_bad_epochs, self._n_cooling = n_bad_epochs, n_cooling


def as_least(value, learning_rate):
    number = as_float(value, "min_learning_rate")
    if number > learning_rate:
        raise ValueError(
            f"min_learning_rate is {value!r}, expected at most the learning_rate, {learning_rate}"
        )
    return number


def line_between(start, end, done):
    return start + (end - start) * done


def cosine_between(start, end, done):
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


# --- whatever a learning_rate may be ------------------------------------------------------


class Constant(Schedule):
    """The same rate for every step."""

    depends_on_max_iter = False

    def __init__(self, learning_rate):
        self.learning_rate = learning_rate

    def __call__(self, step, epoch, n_steps_per_epoch, n_epochs):
        return self.learning_rate


class FunctionOfEpoch(Schedule):
    """Calls a function once for each epoch."""

    depends_on_max_iter = False

    def __init__(self, function):
        self.function, self.epoch = function, None

    def __call__(self, step, epoch, n_steps_per_epoch, n_epochs):
        if epoch != self.epoch:
            self.rate, self.epoch = self.function(epoch), epoch
        return self.rate


def as_rate(value, name):
    """A float, or a Schedule or other callable as it is."""
    if isinstance(value, type):
        raise TypeError(f"{name} is {value!r}, expected an instance of it")
    if callable(value):
        return value
    return as_float(value, name, ", a Schedule, or a function of the epoch")


def as_schedule(rate):
    """A Schedule of what `as_rate` returned."""
    if isinstance(rate, Schedule):
        return rate
    return FunctionOfEpoch(rate) if callable(rate) else Constant(rate)
