"""An exception that arrives at any moment: Ctrl-C, or what another thread raises in this one."""

import gc
import signal
import sys

import numpy as np
import pytest
from interrupts import METHODS, NEED_A_FILE, Case, interrupt_a_thread, interrupt_by_signals
from trouble import Interrupt, bits, cnn, images

from nnet import _runtime
from nnet._atomic import (
    AtWork,
    Transaction,
    adam_step,
    clamp_all,
    norm_of,
    quietly,
    rmsprop_step,
    scale_all,
    sgd_step,
    write_all,
)
from nnet.layers.streams import saved_state

needs_alarms = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")


@pytest.fixture(params=METHODS)
def case(request, tmp_path):
    return Case(request.param, tmp_path / "network" if request.param in NEED_A_FILE else None)


@needs_alarms
def test_signals(case):
    interrupt_by_signals(case, 50)


@needs_alarms
@pytest.mark.parametrize("method", ["fit", "partial_fit", "predict_proba", "check_gradients"])
def test_signals_within_kernels(method):
    """As in calls that last: here every call asks for signals between its units of work."""
    _runtime.set_patience(0)
    try:
        interrupt_by_signals(Case(method), 50)
    finally:
        _runtime.set_patience(1)


def python_in(function):
    """The functions of Python's that it calls: an interrupt may arrive in them, or after."""
    called = []
    gc.disable()  # which may call some
    sys.setprofile(
        lambda frame, event, arg: event == "call" and called.append(frame.f_code.co_name)
    )
    try:
        function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return called


@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.9, False), (0.9, True)])
def test_nothing_can_arrive_in_the_middle_of_a_step(momentum, nesterov):
    arrays = some_arrays(3)
    assert python_in(lambda: sgd_step(*arrays, 0.1, momentum, nesterov)) == ["<lambda>"]
    assert python_in(lambda: write_all(*arrays[:2])) == ["<lambda>"]


def some_arrays(n):
    return [[np.ones(3), np.ones((2, 2), np.float32), np.ones((4, 4))[::2]] for _ in range(n)]


def test_nothing_can_arrive_in_the_middle_of_other_steps():
    arrays, n_steps = some_arrays(5), np.zeros((), np.int64)
    calls = (
        lambda: adam_step(*arrays[:4], n_steps, 0.1, 0.9, 0.999, 1e-8, [1.0] * 3),
        lambda: rmsprop_step(*arrays, 0.1, 0.9, 1e-8, 0.9),
        lambda: norm_of(arrays[0]),
        lambda: scale_all(arrays[0], 0.5),
        lambda: clamp_all(arrays[0], 0.5),
    )
    for call in calls:
        assert python_in(call) == ["<lambda>"]
    assert n_steps == 1


def test_nothing_can_arrive_while_layers_are_lent_or_taken_back():
    X, y = images()
    network = cnn().fit(X, y, max_iter=1)
    model = network._model
    at_work, loans = AtWork(model), model.loans(training=True)
    for method, arguments in ((at_work.begin, ()), (at_work.lend, (loans,)), (at_work.end, ())):
        assert python_in(lambda m=method, a=arguments: m(*a)) == ["<lambda>"]


@pytest.mark.parametrize("rng", [0, np.random.default_rng(0), np.random.RandomState(0)])
@pytest.mark.parametrize("keep", [False, True])
def test_nothing_can_arrive_while_a_training_begins_or_ends(keep, rng):
    X, y = images()
    network = cnn(rng=rng).fit(X, y, max_iter=1)
    before, transaction = bits(network), Transaction(network)
    transaction.model, transaction.keep = network._model, keep
    states = [(layer, dict(vars(layer))) for layer in network.layers]
    calls = (
        (transaction.begin, ()),
        (transaction.publish, (network._model.copy(network), states, saved_state(rng))),
        (transaction.end, ()),
    )
    for method, arguments in calls:
        assert python_in(lambda m=method, a=arguments: m(*a)) == ["<lambda>"]
    assert bits(network) == before


def leaving_warnings_off(*args, **options):
    """As NumPy's functions do that an interrupt cuts short."""
    np.seterr(all="ignore")
    raise Interrupt


def test_an_interrupt_leaves_the_warnings_on():
    before = np.geterr()
    with pytest.raises(Interrupt):
        quietly(leaving_warnings_off)
    assert np.geterr() == before


@pytest.mark.parametrize("name", ["SeedSequence", "default_rng"])
def test_an_interrupt_while_a_seed_is_used_leaves_the_warnings_on(name, monkeypatch):
    X, y = images()
    network, before = cnn(), np.geterr()
    with monkeypatch.context() as patch:
        patch.setattr(np.random, name, leaving_warnings_off)
        with pytest.raises(Interrupt):
            network.fit(X, y)
    assert np.geterr() == before


def test_exceptions_from_another_thread(case):
    interrupt_a_thread(case, 10)
