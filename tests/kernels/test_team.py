"""The threads of kernel calls, and calls that last: signals reach Python, and end them."""

import signal
import sys
import time
import traceback
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
from trouble import Interrupt

from nnet import _augment, _runtime

alarm = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
threads = pytest.mark.skipif(not _runtime.THREADS, reason="built without threads")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")


# --- workers ------------------------------------------------------------------


@linux
@threads
def test_workers_block_all_signals_but_faults(run_python):
    done = run_python("""
import signal, time
from pathlib import Path
import numpy as np
import nnet

before = set(Path("/proc/self/task").iterdir())
nnet.conv_bc01(np.ones((64, 8, 32, 32), np.float32), np.ones((8, 8, 5, 5), np.float32), n_threads=3)
workers = set(Path("/proc/self/task").iterdir()) - before
assert len(workers) == 2, workers

def free(worker):
    status = (worker / "status").read_text()
    blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
    return {s for s in range(1, 32) if not blocked >> (s - 1) & 1}

never_blocked = {signal.SIGKILL, signal.SIGSTOP}
faults = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
for worker in workers:
    while free(worker) == never_blocked:  # the system has not let it run yet
        time.sleep(0.01)
    assert free(worker) == faults | never_blocked, free(worker)
assert not signal.pthread_sigmask(signal.SIG_BLOCK, []), "the caller's own mask is as it was"
print("done")
""")
    assert done.stdout == "done\n", done.stderr


# --- interrupts ---------------------------------------------------------------

LONG = """
import os, signal, sys, threading, traceback
import numpy as np
import nnet

imgs, filters = np.ones((8, 64, 64, 64)), np.ones((64, 256, 23, 23))  # 0.5 Tflop
out = np.full((8, 256, 64, 64), np.nan)
timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
timer.start()
try:
    nnet.conv_bc01(imgs, filters, out, n_threads=int(sys.argv[1]))
except KeyboardInterrupt as error:
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    assert files[-1].endswith((".pyx", ".pxi")), files
    assert np.isnan(out).any(), "the call has done all of its work"
    print("interrupted")
small = nnet.conv_bc01(imgs[:2, :, :8, :8], filters[:, :, :3, :3], n_threads=int(sys.argv[1]))
assert small.max() == 64 * 9
print("goes on")
"""


@pytest.mark.parametrize("n_threads", [1, 2])
def test_ctrl_c_ends_a_call_that_lasts(run_python, n_threads):
    done = run_python(f"import sys; sys.argv = ['', '{n_threads}']\n{LONG}")
    assert done.stdout.splitlines() == ["interrupted", "goes on"], done.stderr


def of_units(kernels):
    """For each kernel that has units of work: a call of some milliseconds on one thread."""
    rng = np.random.default_rng(0)
    imgs, wide = (rng.normal(size=(64, 16, n, n)).astype(np.float32) for n in (48, 96))
    filters = rng.normal(size=(16, 32, 3, 3)).astype(np.float32)
    grad = rng.normal(size=(64, 32, 48, 48)).astype(np.float32)
    rows = wide.reshape(64, -1)[:, :20000]
    params = np.ones(16, np.float32), np.zeros(16, np.float32)
    classes, ones = rng.integers(0, 16, (64, 48, 48)), np.ones_like(imgs)
    probs, scores_grad, losses, errors = ones, ones.copy(), np.ones(64), np.ones(64)
    moments = np.zeros(16), np.ones(16)
    of_groups = np.zeros((64, 4)), np.ones((64, 4))
    poolout, switches = kernels.pool_bc01(wide, None, None, 3, 3, 1, 1)
    running = params[0].copy(), params[1].copy()
    maps = np.tile([1.0, 0, 0.5, 0, 1, 0.5], (64, 1))
    table = [
        (kernels.conv_bc01, imgs, filters),
        (kernels.bprop_conv_bc01, imgs, grad, filters),
        (kernels.pool_bc01, wide, None, None, 3, 3, 1, 1),
        (kernels.bprop_pool_bc01, poolout, switches, np.empty_like(wide)),
        (kernels.matmul, rows, np.ones((20000, 64), np.float32)),
        (kernels.activate, wide),
        (kernels.bprop_activate, wide, wide),
        (kernels.softmax, imgs),
        (kernels.cross_entropy, imgs, classes, probs, losses, scores_grad, errors),
        (kernels.binary_cross_entropy, imgs, ones, probs.copy(), losses, scores_grad, errors),
        (kernels.batch_norm, wide, *params, *running),
        (kernels.bprop_batch_norm, wide, wide, *params, *moments),
        (kernels.group_norm, wide, *params, 4),
        (kernels.bprop_group_norm, wide, wide, *params, *of_groups),
        (kernels.add_arrays, wide, wide),
        (_augment.warp, wide, maps),
    ]
    options = {"activate": {"type": "tanh"}, "bprop_activate": {"type": "gelu"}}
    return {
        function.__name__: partial(function, *args, **options.get(function.__name__, {}))
        for function, *args in table
    }


@pytest.fixture
def interrupt():
    """A function that calls another until an alarm has ended one of its calls, within its units."""

    def handler(signum, frame):
        raise Interrupt

    rng = np.random.default_rng(0)

    def interrupt(call, prepare=lambda: None):
        for _ in range(1000):
            prepare()
            start = time.perf_counter()
            call()
            seconds = time.perf_counter() - start
            prepare()
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.1, 0.9) * seconds)
                call()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupt as error:
                frames = traceback.extract_tb(error.__traceback__)
                if any(frame.filename.endswith((".pyx", ".pxi")) for frame in frames):
                    return
        raise AssertionError("no call is interrupted")

    before = signal.signal(signal.SIGALRM, handler)
    _runtime.set_patience(0)  # every unit of the calling thread asks for signals
    yield interrupt
    _runtime.set_patience(1)
    signal.signal(signal.SIGALRM, before)


@alarm
@pytest.mark.parametrize("n_threads", [1, 2])
def test_every_kernel_with_units_of_work_answers(kernels, interrupt, n_threads):
    table = of_units(kernels)
    working = {name for name in vars(kernels) if not name.startswith("explain_")}
    assert working - {"target", "all_finite"} == set(table) - {"warp"}, "all are here"
    for name, call in table.items():
        call = partial(call, n_threads=n_threads)
        expected = call()
        interrupt(call)
        if name != "batch_norm":  # whose running averages went on
            np.testing.assert_equal(call(), expected, err_msg=name)


@alarm
def test_running_averages_move_both_or_neither(kernels, interrupt):
    imgs = np.random.default_rng(0).normal(1, 2, (64, 16, 96, 96)).astype(np.float32)
    gamma, beta = np.ones(16, np.float32), np.zeros(16, np.float32)
    running = gamma.copy(), beta.copy()

    def call():
        kernels.batch_norm(imgs, gamma, beta, *running, n_threads=1)

    def prepare():
        running[0][...], running[1][...] = 0, 1

    prepare()
    before = np.copy(running)
    call()
    after = np.copy(running)
    found = set()
    for _ in range(20):
        interrupt(call, prepare)
        found.add((np.array_equal(running, before), np.array_equal(running, after)))
    assert found <= {(True, False), (False, True)}


@alarm
def test_a_call_is_whole_that_takes_less_than_a_second(kernels):
    """Short ones end, and then the handler runs."""
    imgs, filters = np.ones((64, 8, 32, 32), np.float32), np.ones((8, 16, 5, 5), np.float32)
    expected = kernels.conv_bc01(imgs, filters)

    def handler(signum, frame):
        raise Interrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for i in range(200):
            out = np.zeros_like(expected)
            with suppress(Interrupt):
                signal.setitimer(signal.ITIMER_REAL, 1e-6 + 1e-5 * i)
                kernels.conv_bc01(imgs, filters, out)
                signal.setitimer(signal.ITIMER_REAL, 0)
            assert not out.any() or np.array_equal(out, expected)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@alarm
def test_handlers_may_call_kernels(kernels, interrupt):
    """On the thread that has a job of its own; and one that raises nothing changes nothing."""
    imgs, filters = np.ones((64, 8, 32, 32), np.float32), np.ones((8, 16, 5, 5), np.float32)
    expected = kernels.conv_bc01(imgs, filters, n_threads=2)
    inner = []

    def handler(signum, frame):
        inner.append(np.array_equal(kernels.conv_bc01(imgs, filters, n_threads=2), expected))

    signal.signal(signal.SIGALRM, handler)  # which the fixture undoes
    for i in range(200):
        signal.setitimer(signal.ITIMER_REAL, 1e-6 + 1e-5 * i)
        assert np.array_equal(kernels.conv_bc01(imgs, filters, n_threads=2), expected)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert inner and all(inner)
