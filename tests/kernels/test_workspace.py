"""Memory that runs out: a call raises before it has results, or returns them."""

import os

import pytest

# In forks, as only the first call of a process asks for all the memory that it uses.
CODE = """
import os
import numpy as np
from nnet.dispatch import load

conv, bprop, _ = load("_conv", {target!r})
pool, unpool = load("_pool", {target!r})
rng = np.random.default_rng(0)
imgs, filters, grad = (rng.random(s) for s in ((4, 3, 12, 12), (3, 5, 3, 3), (4, 5, 12, 12)))
pooled = rng.random((4, 3, 5, 5))
calls = [
    lambda: [conv(imgs, filters)],
    lambda: bprop(imgs, grad, filters),
    lambda: pool(imgs, None, None, 4, 4, 2, 2, padding_mode="valid"),
    lambda: [unpool(pooled, None, np.zeros_like(imgs), 4, 4, 2, 2, mode="avg",
                    padding_mode="valid")],
]
empty, n_calls, failed = np.empty, 0, False

def scarce(*args, **kwargs):
    global n_calls, failed
    n_calls += 1
    if n_calls == fail_at:
        failed = True
        raise MemoryError
    return empty(*args, **kwargs)

def outcome(call):
    global n_calls
    np.empty = scarce
    try:
        result = call()
    except MemoryError:
        result = None
    np.empty = empty
    again = [array.tobytes() for array in call()]
    if result is None:
        return 1
    return 2 * failed if again == [array.tobytes() for array in result] else 9

for call in calls:
    codes = []
    while not codes or codes[-1]:
        fail_at = len(codes) + 1
        child = os.fork()
        if child == 0:
            os._exit(outcome(call))
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(*codes)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_finished_calls_return(kernels, run_python):
    """Each allocation of a call fails in turn: all but a last one for the next call, if any."""
    done = run_python(CODE.format(target=kernels.target), NNET_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    rows = [[int(code) for code in line.split()] for line in done.stdout.splitlines()]
    assert len(rows) == 4
    for row in rows:
        codes = row[:-1]
        assert set(codes[:-1]) <= {1} and codes[-1] in (1, 2) and row[-1] == 0, rows
