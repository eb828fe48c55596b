"""partial_fit goes on with the optimizer and its schedule: steps and epochs are counted on."""

import numpy as np
import pytest
from trouble import assert_nothing_lent, bits, cnn, everything, images

from nnet import (
    SGD,
    Adam,
    CosineDecay,
    ExponentialDecay,
    OneCycle,
    ReduceOnPlateau,
    RMSprop,
    Schedule,
    StepDecay,
)

X, Y = images()
RATES: list = []

SCHEDULES = {
    "constant": lambda: 0.05,
    "function": lambda: halving,
    "exponential": lambda: ExponentialDecay(0.1, 0.5),
    "by step": lambda: StepDecay(0.1, 5, by="step"),
    "cosine": lambda: CosineDecay(0.1, warmup_epochs=1, n_epochs=6),
    "one cycle": lambda: OneCycle(0.1, n_epochs=3),
    "plateau": lambda: ReduceOnPlateau(0.1, 0.5, patience=0, threshold=0.3),
    "own": lambda: Remembering(),
}


def halving(epoch):
    return 0.1 / 2**epoch


class Remembering(Schedule):
    """Keeps how many epochs there were, and asks for nothing else."""

    depends_on_max_iter = False

    def __init__(self):
        self._n_ended = 0

    def start(self, n_epochs, metrics):
        self._n_ended = 0

    def __call__(self, step, epoch, n_steps_per_epoch, n_epochs):
        assert n_epochs > epoch
        return 0.1 / (1 + self._n_ended) / (1 + step)

    def end_epoch(self, progress):
        self._n_ended += 1

    def state(self):
        return {"n_ended": self._n_ended}

    def load_state(self, state):
        self._n_ended = int(state["n_ended"])


class Recording(SGD):
    """Keeps the rate of each step."""

    def step(self, incs):
        RATES.append(self.learning_rate)
        super().step(incs)


@pytest.fixture(autouse=True)
def no_rates():
    RATES.clear()


def taken():
    """The rates since the last call."""
    rates = RATES.copy()
    RATES.clear()
    return rates


@pytest.mark.parametrize("n_first", [0, 1, 2])
@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)
def test_calls_of_partial_fit_are_one_training(make, n_first):
    """Also after a fit of the first epochs."""
    if n_first and make is SCHEDULES["cosine"]:
        n_first = 2  # longer than the warm-up
    expected = cnn().fit(X, Y, max_iter=5, optimizer=Recording(make(), momentum=0.5))
    rates = taken()
    net = cnn()
    if n_first:
        net.fit(X, Y, max_iter=n_first, optimizer=Recording(make(), momentum=0.5))
    for _ in range(n_first, 5):
        net.partial_fit(X, Y, optimizer=Recording(momentum=0.5), learning_rate=make())
    assert taken() == rates and len(rates) == 10
    assert everything(net, X) == everything(expected, X)


@pytest.mark.parametrize("optimizer", [Adam, RMSprop])
def test_with_other_optimizers(optimizer):
    expected = cnn().fit(X, Y, max_iter=3, optimizer=optimizer(ExponentialDecay(0.01, 0.5)))
    net = cnn()
    for _ in range(3):
        net.partial_fit(X, Y, optimizer=optimizer(ExponentialDecay(0.01, 0.5)))
    assert bits(net) == bits(expected)


def test_steps_are_counted_whatever_the_batches():
    """Each call has as many as its images."""
    net, decay = cnn(), ExponentialDecay(0.1, 0.5, by="step")
    net.partial_fit(X, Y, optimizer=Recording(decay), batch_size=32)
    net.partial_fit(X[:20], Y[:20], optimizer=Recording(decay))
    net.partial_fit([(X[:5], Y[:5]), (X[5:9], Y[5:9])], optimizer=Recording(decay))
    assert taken() == [0.1 * 0.5**i for i in range(6)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: CosineDecay(0.1, n_epochs=4),
        lambda: CosineDecay(0.1, warmup_epochs=2, n_epochs=4),
        lambda: OneCycle(0.1, n_epochs=4),
    ],
)
def test_schedules_that_plan_epochs_are_where_these_are(make):
    """Each epoch has the rates of one training with as many batches throughout."""
    net, lengths = cnn(), [60, 10, 30, 60]
    for n_imgs in lengths:
        net.partial_fit(
            X[:n_imgs], Y[:n_imgs], [0, 1, 2], optimizer=Recording(make()), batch_size=10
        )
    rates, expected = taken(), []
    for epoch, n_imgs in enumerate(lengths):
        options = {"optimizer": Recording(make()), "batch_size": 10, "max_iter": 4}
        cnn().fit(X[:n_imgs], Y[:n_imgs], **options)
        expected += np.split(np.array(taken()), 4)[epoch].tolist()
    assert rates == expected and min(rates) > 0


def test_it_starts_afresh_with_other_options():
    net = cnn()

    def partial_fit(schedule, **options):
        net.partial_fit(X[:9], Y[:9], optimizer=Recording(schedule, **options))
        return taken()

    assert [partial_fit(ExponentialDecay(0.1, 0.5)) for _ in "12"] == [[0.1], [0.05]]
    assert partial_fit(ExponentialDecay(0.2, 0.5)) == [0.2]  # another schedule
    assert [partial_fit(ExponentialDecay(0.1, 0.5)) for _ in "12"] == [[0.1], [0.05]]
    assert partial_fit(ExponentialDecay(0.1, 0.5), momentum=0.5) == [0.1]
    assert partial_fit(ExponentialDecay(0.1, 0.5), momentum=0.5) == [0.05]
    net.layers[0].trainable = False
    assert partial_fit(ExponentialDecay(0.1, 0.5), momentum=0.5) == [0.1]
    net.fit(X[:9], Y[:9], max_iter=2, optimizer=Recording(ExponentialDecay(0.1, 0.5)))
    assert taken() == [0.1, 0.05]
    options = {
        "max_iter": 2,
        "warm_start": True,
        "optimizer": Recording(ExponentialDecay(0.1, 0.5)),
    }
    net.fit(X[:9], Y[:9], **options)
    assert taken() == [0.1, 0.05]


def test_a_plateau_that_watches_something_else_starts_afresh():
    """After a fit with validation data, which is what it watched."""
    net, plateau = cnn(), ReduceOnPlateau(0.1, 0.5, patience=0, threshold=0.9)
    net.fit(X, Y, max_iter=3, optimizer=Recording(plateau), validation_data=(X, Y))
    assert taken() == [0.1] * 4 + [0.05] * 2
    for rate in (0.1, 0.1, 0.05):
        net.partial_fit(X, Y, optimizer=Recording(plateau))
        assert taken() == [rate] * 2


@pytest.mark.parametrize("how", ["refused", "raised", "weight 0"])
def test_what_is_not_an_epoch_is_not_counted(how):
    net = cnn()
    optimizer = Recording(ReduceOnPlateau(0.1, 0.5, patience=0, threshold=0.9))
    for i in range(3):
        net.partial_fit(X, Y, optimizer=optimizer)
        assert taken() == [[0.1, 0.1, 0.05][i]] * 2
        if how == "weight 0":
            net.partial_fit(X, Y, optimizer=optimizer, sample_weight=0 * Y)
        elif how == "refused":
            with pytest.raises(ValueError, match="NaN"):
                net.partial_fit(X * np.nan, Y, optimizer=optimizer)
        else:
            with pytest.raises(ValueError, match="more images"):
                net.partial_fit(Growing(), optimizer=optimizer)
            taken()


class Growing:
    """One batch when it is looked at, then two."""

    n_passes = 0

    def __iter__(self):
        self.n_passes += 1
        return iter([(X, Y)] * self.n_passes)


class Own(Schedule):
    def __call__(self, step, epoch, n_steps_per_epoch, n_epochs):
        return 0.1 / n_epochs


@pytest.mark.parametrize(
    "schedule, message",
    [
        (CosineDecay(0.1), "learning_rate is a CosineDecay that depends on max_iter, .*n_epochs="),
        (OneCycle(0.1), "learning_rate is a OneCycle that depends on max_iter, .*n_epochs="),
        (Own(), "learning_rate is a Own that depends on max_iter, .*depends_on_max_iter to be Fa"),
    ],
)
@pytest.mark.parametrize("fitted", [False, True])
def test_a_schedule_whose_length_is_max_iter_is_refused(schedule, message, fitted):
    net = cnn()
    if fitted:
        net.fit(X, Y, max_iter=1, optimizer=SGD(schedule))
    before = everything(net, X) if fitted else None
    for options in ({"learning_rate": schedule}, {"optimizer": SGD(schedule)}):
        with pytest.raises(ValueError, match=message):
            net.partial_fit(X, Y, **options)
    assert (everything(net, X) if fitted else net.input_shape_) == before
    assert_nothing_lent(net)
