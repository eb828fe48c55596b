"""An exception that arrives at any moment: Ctrl-C, or what another thread raises in this one."""

import signal

import pytest
from interrupts import METHODS, Case, interrupt_a_thread, interrupt_by_signals

needs_alarms = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")


@pytest.fixture(params=METHODS)
def case(request, tmp_path):
    return Case(request.param, tmp_path / "network" if request.param == "save" else None)


@needs_alarms
def test_signals(case):
    interrupt_by_signals(case, 50)


def test_exceptions_from_another_thread(case):
    interrupt_a_thread(case, 10)
