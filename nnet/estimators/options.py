"""Optimizers and schedules, by the names of the estimators' parameters."""

from nnet.layers.arguments import as_count, as_float, as_word
from nnet.training.optimizers import OPTIMIZERS, Optimizer
from nnet.training.schedules import (
    CosineDecay,
    ExponentialDecay,
    OneCycle,
    ReduceOnPlateau,
    StepDecay,
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


def _rate(estimator, optimizer):
    """A number or a Schedule."""
    rate, schedule = estimator.learning_rate_init, estimator.learning_rate
    if not isinstance(schedule, str):
        if rate is not None:
            raise ValueError(
                f"learning_rate_init is {rate!r} and learning_rate is {schedule!r}, expected None "
                "beside a schedule that has its rates"
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
        patience = as_count(estimator.n_iter_no_change, "n_iter_no_change")
        return ReduceOnPlateau(rate, patience=max(patience // 2 - 1, 0))
    return rate
