"""The pooling kernels in a process: bounds of memory, threads, forks."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from test_conv_process import guarded
from test_pool import CASES, compiled, run

from nnet.dispatch import load
from nnet.geometry import pool_geometry

WIDTHS = [
    ((1, 2, 3, w), windows, padding_mode)
    for w in range(3, 36)
    for windows in ((2, 2, 2, 2), (3, 3, 1, 1), (3, 3, 2, 2), (3, w, 3, w))
    for padding_mode in ("centered", "valid")
]


def run_guarded(target):
    """Every case with all its arrays beside guard pages: a stray access kills the process."""
    pool, bprop = load("_pool", target)
    for shape, windows, padding_mode in [*CASES.values(), *WIDTHS]:
        where = pool_geometry(*shape[2:], *windows, padding_mode)
        out_shape = (*shape[:2], where.out_h, where.out_w)
        for dtype in (np.float32, np.float64):
            for at_end in (True, False):
                imgs, imgs_grad = (guarded(np.ones(shape, dtype), at_end) for _ in "12")
                out, grad = (guarded(np.ones(out_shape, dtype), at_end) for _ in "12")
                switches = guarded(np.zeros((*out_shape, 2), np.intp), at_end)
                places = guarded(np.zeros(out_shape, np.uint8), at_end)
                calls = [("max", switches), ("avg", None)]
                if windows[0] * windows[1] <= 256:
                    calls.append(("max", places))
                for mode, given in calls:
                    options = {"mode": mode, "padding_mode": padding_mode}
                    pool(imgs, out, given, *windows, **options)
                    bprop(grad, given, imgs_grad, *windows, **options)
    print("in bounds")


def test_nothing_outside_the_arrays_is_touched(run_guarded_apart):
    done = run_guarded_apart()
    assert done.stdout == "in bounds\n", f"exit code {done.returncode}\n{done.stderr}"


def test_concurrent_calls(kernels, dtype, rng):
    """Python threads that call at the same time do not disturb each other."""
    imgs = rng.standard_normal((80, 3, 16, 18)).astype(dtype)
    calls = [
        (windows, mode, n_threads)
        for windows in ((2, 2, 2, 2), (3, 3, 1, 1), (3, 3, 3, 3))
        for mode in ("max", "avg")
        for n_threads in (1, 2)
    ]

    def results(windows, mode, n_threads):
        where = pool_geometry(16, 18, *windows)
        grad = np.ones((80, 3, where.out_h, where.out_w), dtype)
        return run(compiled(kernels), imgs, grad, windows, mode=mode, n_threads=n_threads)

    serial = [results(*call) for call in calls]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda call: results(*call), calls * 3))
    for actual, wanted in zip(found, serial * 3):
        for a, b in zip(actual, wanted):
            assert (a is None and b is None) or assert_array_equal(a, b) is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_forked_child_finishes(kernels, run_python):
    """A child forked after a parallel call does not wait for threads that it does not have."""
    done = run_python(
        f"""
import os, warnings
import numpy as np
from nnet.dispatch import load
warnings.simplefilter("ignore")  # Python's own, about forks of processes with threads
pool, bprop = load("_pool", {kernels.target!r})
imgs = np.random.default_rng(0).standard_normal((64, 4, 32, 32))
wanted, switches = pool(imgs, None, None, 3, 3, 1, 1, n_threads=2)
child = os.fork()
found, _ = pool(imgs, None, None, 3, 3, 1, 1, n_threads=2)
bprop(wanted, switches, np.empty_like(imgs), n_threads=2)
assert (found == wanted).all()
if child == 0:
    os._exit(0)
print(os.waitpid(child, 0)[1])
""",
        timeout=60,
    )
    assert done.stdout == "0\n", done.stderr
