"""Optimizers and schedules, by the names of the estimators' parameters."""

import math
import sys
from numbers import Real

import numpy as np

from nnet.layers.arguments import as_bool, as_count, as_float, as_int, as_word
from nnet.training.optimizers import OPTIMIZERS, Optimizer
from nnet.training.schedules import (
    CosineDecay,
    ExponentialDecay,
    OneCycle,
    ReduceOnPlateau,
    StepDecay,
    as_rate,
)

SCHEDULES = ("constant", "cosine", "step", "exponential", "one_cycle", "plateau")
LEFT = 0.01  # of the rate, at the end of an exponential decay


def as_optimizer(estimator):
    """The Optimizer that an estimator's parameters ask for, with its learning rate."""
    solver = estimator.solver
    if isinstance(solver, Optimizer) or (
        isinstance(solver, type) and issubclass(solver, Optimizer)
    ):
        raise TypeError(
            f"solver is {solver!r}, expected its name, one of {tuple(OPTIMIZERS)}: its options are "
            "learning_rate_init, momentum of 'sgd' and alpha of 'adamw'"
        )
    solver = as_word(solver, "solver", tuple(OPTIMIZERS))
    options = {}
    if solver == "sgd":
        options["momentum"] = estimator.momentum
    if solver == "adamw":
        options["weight_decay"] = estimator.alpha
    optimizer = OPTIMIZERS[solver](**options)
    optimizer.learning_rate = _rate(estimator, optimizer)
    return optimizer


def layer_decay(estimator):
    """What is added to the weight decay of each layer: AdamW's own is apart from the gradient."""
    alpha = as_float(estimator.alpha, "alpha")
    return 0.0 if estimator.solver == "adamw" else alpha


def as_patience(n_iter_no_change):
    """A number of epochs; infinity, as in MLPClassifier, is more than any training has."""
    if isinstance(n_iter_no_change, Real) and n_iter_no_change == math.inf:
        return sys.maxsize
    return as_count(n_iter_no_change, "n_iter_no_change")


def is_constant(learning_rate):
    """Whether it is the same in all epochs: by name, or a number."""
    if isinstance(learning_rate, str):
        return learning_rate == "constant"
    return not callable(learning_rate)


def as_verbose(verbose):
    """A bool; any count says yes, as in MLPClassifier."""
    if isinstance(verbose, (int, np.integer)):
        return as_int(verbose, "verbose", 0) > 0
    return as_bool(verbose, "verbose")


def _rate(estimator, optimizer):
    """A number or a Schedule."""
    rate, schedule = estimator.learning_rate_init, estimator.learning_rate
    if not isinstance(schedule, str):
        schedule = as_rate(schedule, "learning_rate")
        if rate is not None:
            raise ValueError(
                f"learning_rate_init is {rate!r} and learning_rate is {schedule!r}, expected None "
                "for learning_rate_init beside a learning_rate that is no name"
            )
        return schedule
    if rate is None:
        rate = optimizer.DEFAULT_RATE * (1 - getattr(optimizer, "momentum", 0.0))
    rate = as_float(rate, "learning_rate_init")
    as_word(schedule, "learning_rate", SCHEDULES)
    n_epochs = as_count(estimator.max_iter, "max_iter")
    if schedule == "cosine":
        return CosineDecay(rate)
    if schedule == "step":
        return StepDecay(rate, max(n_epochs // 3, 1))
    if schedule == "exponential":
        return ExponentialDecay(rate, LEFT ** (1 / n_epochs))
    if schedule == "one_cycle":
        return OneCycle(rate)
    if schedule == "plateau":
        patience = as_patience(estimator.n_iter_no_change)
        return ReduceOnPlateau(rate, patience=max(patience // 2 - 1, 0))
    return rate
