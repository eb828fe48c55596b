"""Schedules: their values, those of PyTorch, and the rates at which fit steps."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
from networks import same, small_cnn, stripes

from nnet import (
    SGD,
    Adam,
    CosineDecay,
    ExponentialDecay,
    OneCycle,
    ReduceOnPlateau,
    Schedule,
    StepDecay,
)

N_STEPS, N_EPOCHS = 5, 8


def rates(schedule, n_epochs=N_EPOCHS, planned=N_EPOCHS, n_steps=N_STEPS):
    """Of all steps, an epoch a row."""
    schedule = copy.copy(schedule)
    schedule.start(planned, ("loss",))
    return np.array(
        [
            [schedule(epoch * n_steps + i, epoch, n_steps, planned) for i in range(n_steps)]
            for epoch in range(n_epochs)
        ]
    )


def rates_of_torch(make, n):
    """Of n steps of a scheduler that `make` makes of an optimizer with rate 0.4."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    scheduler, found = make(optimizer, torch.optim.lr_scheduler), []
    for i in range(n):
        if i > 0:
            optimizer.step()
            scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    return np.array(found)


def warm(n_warm, n, **options):
    """PyTorch's linear warm-up, then half a cosine: n steps in all."""
    return lambda optimizer, of: of.SequentialLR(
        optimizer,
        [
            of.LinearLR(optimizer, start_factor=1 / (n_warm + 1), total_iters=n_warm),
            of.CosineAnnealingLR(optimizer, n - n_warm, **options),
        ],
        [n_warm],
    )


N = N_STEPS * N_EPOCHS
OF_TORCH = {  # ours, theirs, whether they are asked once for each epoch
    "step": (StepDecay(0.4, 3, 0.5), lambda o, of: of.StepLR(o, 3, 0.5), True),
    "step, default": (StepDecay(0.4, 2), lambda o, of: of.StepLR(o, 2), True),
    "step, steps": (StepDecay(0.4, 7, by="step"), lambda o, of: of.StepLR(o, 7), False),
    "exponential": (ExponentialDecay(0.4, 0.9), lambda o, of: of.ExponentialLR(o, 0.9), True),
    "exponential, steps": (
        ExponentialDecay(0.4, 0.9, by="step"),
        lambda o, of: of.ExponentialLR(o, 0.9),
        False,
    ),
    "cosine": (CosineDecay(0.4), lambda o, of: of.CosineAnnealingLR(o, N), False),
    "cosine, epochs": (
        CosineDecay(0.4, 0.1, by="epoch"),
        lambda o, of: of.CosineAnnealingLR(o, N_EPOCHS, eta_min=0.1),
        True,
    ),
    "cosine, warm": (CosineDecay(0.4, 0.1, 2), warm(10, N, eta_min=0.1), False),
    "cosine, part of an epoch": (CosineDecay(0.4, warmup_epochs=0.6), warm(3, N), False),
    "cosine, warm epochs": (
        CosineDecay(0.4, warmup_epochs=3, by="epoch"),
        warm(3, N_EPOCHS),
        True,
    ),
    "one cycle": (OneCycle(0.4), lambda o, of: of.OneCycleLR(o, 0.4, N, **STILL), False),
    "one cycle, options": (
        OneCycle(0.4, 0.45, "linear", 10, 100),
        lambda o, of: of.OneCycleLR(o, 0.4, N, None, None, 0.45, "linear", False, 0, 0, 10, 100),
        False,
    ),
    "one cycle, a given length": (
        OneCycle(0.4, n_epochs=4),
        lambda o, of: of.OneCycleLR(o, 0.4, N // 2, **STILL),
        False,
    ),
}
STILL = {"cycle_momentum": False}


@pytest.mark.parametrize("name", OF_TORCH)
def test_torch(name):
    ours, theirs, by_epoch = OF_TORCH[name]
    found = rates(ours)
    if by_epoch:
        assert (found == found[:, :1]).all()
    found = found[:, 0] if by_epoch else found.ravel()
    length = N // 2 if name.endswith("length") else len(found)
    expected = rates_of_torch(theirs, length)
    np.testing.assert_allclose(found[:length], expected, rtol=1e-12, atol=1e-15)
    assert len(set(expected)) > 2


def test_values_by_hand():
    assert rates(StepDecay(1.0, 2, 0.5))[:, 0].tolist() == [
        1,
        1,
        0.5,
        0.5,
        0.25,
        0.25,
        0.125,
        0.125,
    ]
    assert rates(ExponentialDecay(1.0, 0.5))[:3, -1].tolist() == [1, 0.5, 0.25]
    cosine = rates(CosineDecay(1.0, by="epoch", n_epochs=4))[:, 0]
    half = math.sqrt(0.5) / 2
    np.testing.assert_allclose(cosine, [1, 0.5 + half, 0.5, 0.5 - half, 0, 0, 0, 0], atol=1e-15)
    warm = rates(CosineDecay(1.0, warmup_epochs=3, by="epoch"))[:4, 0]
    np.testing.assert_allclose(warm, [0.25, 0.5, 0.75, 1], rtol=1e-15)
    cycle = rates(OneCycle(1.0, 0.25, "linear", 4, 10))
    np.testing.assert_allclose(cycle.ravel()[[0, 9, -1]], [0.25, 1, 0.025], rtol=1e-12)


@pytest.mark.parametrize("warmup_epochs", [0.2, 1, 3])
def test_warmup_starts_above_zero_and_ends_at_the_rate(warmup_epochs):
    found = rates(CosineDecay(0.4, warmup_epochs=warmup_epochs)).ravel()
    n_warm = round(warmup_epochs * N_STEPS)
    assert found[0] == 0.4 / (n_warm + 1) and found[n_warm] == 0.4 == found.max()
    assert (np.diff(found[: n_warm + 1]) > 0).all() and (np.diff(found[n_warm:]) < 0).all()


EVERY = {
    "step": (StepDecay(0.4, 3), False),
    "exponential": (ExponentialDecay(0.4, 0.9), False),
    "cosine": (CosineDecay(0.4, warmup_epochs=1), True),
    "cosine, a given length": (CosineDecay(0.4, 0.1, 1, n_epochs=6), False),
    "one cycle": (OneCycle(0.4), True),
    "one cycle, a given length": (OneCycle(0.4, n_epochs=6), False),
    "plateau": (ReduceOnPlateau(0.4), False),
}


@pytest.mark.parametrize("name", EVERY)
def test_which_depend_on_the_planned_length(name):
    schedule, depends = EVERY[name]
    assert schedule.depends_on_max_iter is depends
    planned, longer = rates(schedule, 12, planned=N_EPOCHS), rates(schedule, 12, planned=12)
    assert np.array_equal(planned, longer) is not depends
    assert (planned[N_EPOCHS:] >= 0).all()
    if name.startswith(("cosine", "one")):  # the last rate is left
        assert len(set(planned[N_EPOCHS:].ravel())) == 1


@pytest.mark.parametrize("n_steps, n_epochs", [(1, 1), (1, 2), (2, 1), (3, 1), (10, 1)])
@pytest.mark.parametrize("pct_start", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_short_cycles(n_steps, n_epochs, pct_start):
    """PyTorch divides by zero in some of them."""
    found = rates(OneCycle(0.4, pct_start), n_epochs, n_epochs, n_steps)
    assert np.isfinite(found).all() and (found >= 0).all() and (found <= 0.4).all()


# --- a plateau ------------------------------------------------------------------------------


def plateau_rates(schedule, values, metric):
    """After each of some epochs."""
    schedule = copy.copy(schedule)
    schedule.start(len(values), (metric,))
    found = []
    for value in values:
        schedule.end_epoch(SimpleNamespace(metrics={metric: value}))
        found.append(schedule(0, 0, 1, 1))
    return found


@pytest.mark.parametrize("monitor", ["loss", "accuracy"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"factor": 0.5, "patience": 0},
        {"factor": 0.5, "patience": 2, "cooldown": 3},
        {"factor": 0.5, "patience": 1, "threshold": 0.2},
        {"factor": 0.5, "patience": 1, "threshold": 0.05, "threshold_mode": "abs"},
        {"factor": 0.3, "patience": 1, "min_learning_rate": 0.01},
    ],
)
def test_plateaus_of_torch(options, monitor, rng):
    torch = pytest.importorskip("torch")
    values = 0.5 + 0.5 * 0.9 ** np.arange(60) + 0.02 * rng.standard_normal(60)
    values = values if monitor == "loss" else 1.6 - values
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    theirs = {"min_lr" if name.startswith("min") else name: v for name, v in options.items()}
    mode = "min" if monitor == "loss" else "max"
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode, eps=0, **theirs)
    expected = []
    for value in values:
        scheduler.step(value)
        expected.append(optimizer.param_groups[0]["lr"])
    found = plateau_rates(ReduceOnPlateau(0.4, monitor=monitor, **options), values, monitor)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert len(set(found)) > 1


def test_a_plateau_below_zero():
    """Where PyTorch takes what is a little worse for an improvement."""
    values = [-1.0, -0.99999, -0.99998, -0.99997]
    assert plateau_rates(ReduceOnPlateau(0.4, 0.5, 1), values, "loss") == [0.4, 0.4, 0.2, 0.2]


def test_a_plateau_goes_on_where_it_was(rng):
    values = rng.uniform(size=30).tolist()
    schedule = ReduceOnPlateau(0.4, 0.5, patience=2, cooldown=1)
    expected = plateau_rates(schedule, values, "loss")
    for first in (0, 7, 20):
        half, other = copy.copy(schedule), copy.copy(schedule)
        half.start(30, ("loss",))
        for value in values[:first]:
            half.end_epoch(SimpleNamespace(metrics={"loss": value}))
        other.start(30, ("loss",))
        other.load_state(half.state())
        for value, rate in zip(values[first:], expected[first:]):
            other.end_epoch(SimpleNamespace(metrics={"loss": value}))
            assert other(0, 0, 1, 1) == rate
    with pytest.raises(ValueError, match="state has .*, expected"):
        schedule.load_state({})
    with pytest.raises(TypeError, match=r"state\['n_cooling'\] is 0.5, expected an integer"):
        schedule.load_state(schedule.state() | {"n_cooling": 0.5})
    assert CosineDecay(0.1).state() == {}
    with pytest.raises(ValueError, match="state has"):
        CosineDecay(0.1).load_state({"rate": 0.1})


# --- given to fit -----------------------------------------------------------------------------


class Recording(SGD):
    """Keeps the rate of each step."""

    def bind(self, params, decays=None):
        super().bind(params, decays)
        RATES.clear()

    def step(self, incs):
        RATES.append(self.learning_rate)
        super().step(incs)


RATES: list = []


def fit(network=None, **options):
    X, y = stripes(50, np.random.default_rng(1))
    options = {"max_iter": 4, "batch_size": 20} | options
    return (network or small_cnn()).fit(X, y, **options)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("in_optimizer", [False, True])
def test_the_rates_of_a_fit(name, in_optimizer):
    schedule = EVERY[name][0]
    if in_optimizer:
        fit(optimizer=Recording(learning_rate=schedule))
    else:
        fit(optimizer=Recording(), learning_rate=schedule)
    assert rates(schedule, 4, 4, n_steps=3).ravel().tolist() == RATES


def test_a_function_is_called_once_for_each_epoch():
    epochs = []
    fit(optimizer=Recording(learning_rate=lambda epoch: epochs.append(epoch) or 0.1 / (epoch + 1)))
    assert epochs == [0, 1, 2, 3]
    assert [rate for epoch in epochs for rate in [0.1 / (epoch + 1)] * 3] == RATES


def test_bits_of_a_constant():
    expected = fit(learning_rate=0.05).params()
    assert same(fit(learning_rate=StepDecay(0.05, 10)).params(), expected)
    assert same(fit(learning_rate=ExponentialDecay(0.05, 1.0, by="step")).params(), expected)
    assert not same(fit(learning_rate=ExponentialDecay(0.05, 0.5)).params(), expected)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_every_optimizer_takes_schedules(name):
    by_schedule = fit(optimizer=name, learning_rate=ExponentialDecay(0.01, 0.5)).params()
    by_function = fit(optimizer=name, learning_rate=lambda epoch: 0.01 * 0.5**epoch).params()
    assert same(by_schedule, by_function)


@pytest.mark.parametrize("monitor", [None, "loss", "accuracy", "val_loss", "val_accuracy"])
def test_what_a_plateau_watches(monitor):
    """The rate is halved after an epoch that did not improve on the best one."""
    seen, X, y = [], *stripes(20, np.random.default_rng(2))
    name = monitor or "val_loss"

    def callback(progress):
        if progress.epoch_done:
            seen.append(progress.metrics[name])

    schedule = ReduceOnPlateau(0.5, 0.5, patience=0, monitor=monitor, threshold=0.25)
    options = {"max_iter": 12, "callback": callback, "validation_data": (X, y)}
    fit(optimizer=Recording(learning_rate=schedule), **options)
    rate, expected, best = 0.5, [], None
    for value in seen:
        expected += [rate] * 3
        if best is None or (
            value > 1.25 * best if name.endswith("accuracy") else value < 0.75 * best
        ):
            best = value
        else:
            rate /= 2
    assert expected == RATES and RATES[-1] < 0.5
    assert schedule.state()["learning_rate"] == 0.5  # fit has a copy
    assert fit(learning_rate=schedule, validation_data=(X, y)).loss_history_


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("prefix", ["", "val_"])
def test_a_plateau_watches_any_metric(mode, prefix):
    """It rises by a tenth in each epoch."""
    counts = iter(np.repeat(np.arange(8), 2))

    def rising(y, predictions):
        return 1 + next(counts) / 10

    schedule = ReduceOnPlateau(0.5, 0.5, patience=1, monitor=f"{prefix}rising", mode=mode)
    data = stripes(20, np.random.default_rng(2))
    options = {"max_iter": 6, "metrics": rising, "validation_data": data}
    fit(optimizer=Recording(learning_rate=schedule), **options)
    rates = [0.5] * 6 if mode == "max" else [0.5] * 3 + [0.25] * 2 + [0.125]
    assert np.repeat(rates, 3).tolist() == RATES


def test_what_cannot_be_watched_is_refused_before_any_work():
    network = fit()
    before = [param.copy() for param in network.params()]
    for schedule, message in (
        (
            ReduceOnPlateau(0.1, monitor="val_loss"),
            "ReduceOnPlateau needs validation_data or validation_fraction for val_loss, expected",
        ),
        (ReduceOnPlateau(0.1, monitor="f1", mode="max"), "monitor is 'f1', expected one of"),
        (CosineDecay(0.1, warmup_epochs=4), "warmup_epochs is 4, expected less than the 4 epochs"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(network, learning_rate=schedule)
    assert same(network.params(), before)


def test_a_schedule_of_ones_own():
    class Sawtooth(Schedule):
        def __call__(self, step, epoch, n_steps_per_epoch, n_epochs):
            return 0.1 * (1 + step - epoch * n_steps_per_epoch) / n_epochs

    fit(optimizer=Recording(), learning_rate=Sawtooth())
    np.testing.assert_allclose(RATES, [0.025, 0.05, 0.075] * 4)

    class Wrong(Sawtooth):
        def __call__(self, step, epoch, n_steps_per_epoch, n_epochs):
            return -1 if step == 4 else 0.1

    with pytest.raises(ValueError, match="learning_rate is -1, expected"):
        fit(learning_rate=Wrong())


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: StepDecay(0.1, 0), ValueError, "step_size is 0, expected at least 1"),
        (lambda: StepDecay(-1, 2), ValueError, "learning_rate is -1"),
        (lambda: StepDecay(0.1, 2, by="batch"), ValueError, "by is 'batch', expected 'epoch' or"),
        (lambda: StepDecay(lr=0.1, step_size=2), TypeError, "no argument 'lr', expected learning_"),
        (lambda: ExponentialDecay(0.1, "fast"), TypeError, "gamma is 'fast'"),
        (lambda: ExponentialDecay(0.1, decay_rate=2), TypeError, "expected gamma"),
        (lambda: CosineDecay(0.1, 0.2), ValueError, "min_learning_rate is 0.2, expected at most"),
        (lambda: CosineDecay(0.1, T_max=5), TypeError, "no argument 'T_max', expected n_epochs"),
        (lambda: CosineDecay(0.1, alpha=0), TypeError, "expected min_learning_rate"),
        (lambda: CosineDecay(0.1, n_epochs=0), ValueError, "n_epochs is 0"),
        (
            lambda: CosineDecay(0.1, warmup_epochs=0.5, by="epoch"),
            ValueError,
            "warmup_epochs is 0.5, expected a whole number",
        ),
        (lambda: OneCycle(max_lr=0.1), TypeError, "expected max_learning_rate"),
        (lambda: OneCycle(0.1, 1.5), ValueError, "pct_start is 1.5, expected at most 1"),
        (lambda: OneCycle(0.1, div_factor=0), ValueError, "div_factor is 0, expected more than 0"),
        (lambda: OneCycle(0.1, anneal_strategy="log"), ValueError, "anneal_strategy is 'log'"),
        (lambda: ReduceOnPlateau(0.1, 1.0), ValueError, "factor is 1.0, expected less than 1"),
        (lambda: ReduceOnPlateau(0.1, monitor="f1"), ValueError, "'max' for the monitor 'f1'"),
        (lambda: ReduceOnPlateau(0.1, monitor=3), TypeError, "monitor is 3, expected a name"),
        (lambda: ReduceOnPlateau(0.1, mode="auto"), ValueError, "mode is 'auto', expected 'min'"),
        (lambda: ReduceOnPlateau(0.1, patience=-1), ValueError, "patience is -1"),
        (lambda: fit(learning_rate=OneCycle), TypeError, "OneCycle.*, expected an instance"),
        (
            lambda: fit(learning_rate=0.1, optimizer=Adam(learning_rate=OneCycle(0.1))),
            ValueError,
            "learning_rate is 0.1 and that of the optimizer is .*OneCycle",
        ),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()
