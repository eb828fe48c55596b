"""The convolution kernels in a process: bounds of memory, denormals, threads, forks."""

import ctypes
import mmap
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from convolutions import CASES, LARGE, compiled, make_arrays, run_all, whole
from numpy.testing import assert_array_equal
from test_conv_algorithms import algorithms_for

from nnet.dispatch import load


def guarded(array, at_end):
    """A copy that ends, or starts, at the edge of memory that cannot be touched."""
    page = mmap.PAGESIZE
    size = -(-array.nbytes // page) * page
    memory = mmap.mmap(-1, size + 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for edge in (address, address + page + size):
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(edge), ctypes.c_size_t(page), 0) == 0
    start = page + (size - array.nbytes if at_end else 0)
    copy = np.frombuffer(memory, array.dtype, array.size, start).reshape(array.shape)
    copy[...] = array
    return copy


def run_guarded(target):
    """Every case with all its arrays beside guard pages: a stray access kills the process."""
    conv, bprop, explain = load("_conv", target)
    large = [case for case in LARGE.values() if case[0] * case[1] <= 100]
    widths = [(1, c, 3, w, 3, 3, 3, {}) for c in (2, 17) for w in range(1, 34)]
    pads = (0, 1), (2, 0)
    padded = [  # columns of taps that see only padding
        (1, 3, 7, 1, 51, 3, 5, {"groups": 3, "strides": (2, 1), "dilation": 2}),
        (1, 48, 9, 3, 10, 3, 5, {"groups": 2, "dilation": (2, 1), "padding_mode": pads}),
        (1, 1, 2, 8, 8, 1, 3, {"dilation": (1, 40), "padding_mode": ((0, 0), (40, 41))}),
    ]
    for case in [*CASES.values(), *large, *widths, *padded]:
        for dtype in (np.float32, np.float64):
            for at_end in (True, False):
                arrays = make_arrays(case, np.ones, dtype)
                imgs, filters, grad, bias = (guarded(array, at_end) for array in arrays)
                out = [guarded(array, at_end) for array in (grad, imgs, filters, bias)]
                for algorithm in algorithms_for(explain, case):
                    options = {**case[-1], "algorithm": algorithm}
                    conv(imgs, filters, out[0], bias=bias, activation="relu", **options)
                    bprop(imgs, grad, filters, out[1], out[2], bias_grad=out[3], **options)
    print("in bounds")


def test_nothing_outside_the_arrays_is_touched(run_guarded_apart):
    done = run_guarded_apart()
    assert done.stdout == "in bounds\n", f"exit code {done.returncode}\n{done.stderr}"


def test_denormals_survive(kernels, run_python):
    """Neither the import nor a call on any thread switches the processor to flush-to-zero."""
    done = run_python(f"""
import numpy as np
tiny = np.array([1e-310, 3e-308])
import nnet
from nnet.dispatch import load
conv, bprop, _ = load("_conv", {kernels.target!r})
for dtype, small in ((np.float64, 1e-310), (np.float32, 1e-40)):
    imgs, filters = np.full((8, 4, 16, 16), small, dtype), np.full((4, 8, 3, 3), 0.5, dtype)
    for n_threads in (1, 2):
        out = conv(imgs, filters, padding_mode="valid", n_threads=n_threads)
        assert np.allclose(out / dtype(small), 18, rtol=1e-3) and (out > 0).all(), out
        imgs_grad, filters_grad = bprop(imgs, out, filters, padding_mode="valid",
                                        n_threads=n_threads)
        assert (imgs_grad > 0).all()
        imgs_grad, filters_grad = bprop(imgs, np.ones_like(out), filters, padding_mode="valid",
                                        n_threads=n_threads)
        assert (filters_grad > 0).all()
assert (tiny * 0.5 > 0).all() and np.float64(2.0) ** -1074 > 0
print("kept")
""")
    assert done.stdout == "kept\n", done.stderr


def test_concurrent_calls(kernels, dtype):
    """Python threads that call at the same time do not disturb each other."""
    names = [*LARGE] * 3

    def results(name, n_threads):
        case = LARGE[name]
        arrays = make_arrays(case, whole(case[0]), dtype)
        return run_all(compiled(kernels), arrays, case[-1], n_threads=n_threads)

    serial = {name: results(name, 1) for name in LARGE}
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(results, names, [1 + i % 3 for i in range(len(names))]))
    for name, actual in zip(names, found):
        for a, b in zip(actual, serial[name]):
            assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("n_threads", [1, 2, None])
def test_forked_child_finishes(kernels, run_python, n_threads):
    """A child forked after a parallel call neither hangs nor errs, whatever it asks for."""
    done = run_python(f"""
import multiprocessing, sys, warnings
import numpy as np
import nnet
from nnet.dispatch import load
warnings.simplefilter("ignore")  # newer Pythons warn of every fork beside threads
conv, bprop, _ = load("_conv", {kernels.target!r})
imgs, filters = np.ones((8, 8, 16, 16), np.float32), np.ones((8, 16, 3, 3), np.float32)

def work(n_threads):
    out = conv(imgs, filters, n_threads=n_threads)
    return [out, *bprop(imgs, out, filters, n_threads=n_threads)]

nnet.set_num_threads(2)
expected = work(2)

def child():
    for a, b in zip(work({n_threads}), expected):
        np.testing.assert_array_equal(a, b)

process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(30)
if process.is_alive():
    process.kill()
    sys.exit("the child hangs")
for a, b in zip(work(2), expected):
    np.testing.assert_array_equal(a, b)
print("child's exit code", process.exitcode)
""")
    assert done.stdout == "child's exit code 0\n", done.stderr


def test_strides_far_beyond_the_image(kernels, run_python):
    """All the same to the result, to the time and to the memory."""
    done = run_python(
        f"""
import numpy as np
from nnet.dispatch import load
conv, bprop, _ = load("_conv", {kernels.target!r})
imgs, filters = np.arange(36.0).reshape(2, 2, 3, 3), np.ones((2, 3, 2, 2))
grad = np.ones((2, 3, 1, 1))
for border in ("zeros", "nearest", "wrap"):
    for padding in ("same", "valid", ((1, 0), (0, 1))):
        options = {{"padding_mode": padding, "border_mode": border}}
        for near, far in ((50, 2**30), ((50, 1), (2**31 - 1, 1)), ((2, 50), (2, 2**30))):
            if padding != "same" and near != 50:
                continue
            a = conv(imgs, filters, strides=near, **options)
            b = conv(imgs, filters, strides=far, **options)
            np.testing.assert_array_equal(a, b)
            grad = np.ones_like(a)
            for a, b in zip(bprop(imgs, grad, filters, strides=near, **options),
                            bprop(imgs, grad, filters, strides=far, **options)):
                np.testing.assert_array_equal(a, b)
print("right")
""",
        timeout=30,
    )
    assert done.stdout == "right\n", f"exit code {done.returncode}\n{done.stderr}"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's resource limits")
def test_work_memory_that_overflows(kernels, run_python):
    """Tiny arrays, but padding or dilation that would fill any memory: an error, never a crash.

    Each size is chosen to be small again where a 64-bit product wraps around.
    """
    done = run_python(
        f"""
import itertools, resource
import numpy as np
from nnet.dispatch import load
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
conv, bprop, _ = load("_conv", {kernels.target!r})
for channels, border, stride in itertools.product((1, 4, 16), ("zeros", "nearest"), (1, 2**30)):
    imgs = np.ones((1, channels, 1, 1), np.float32)
    for filters, dilation, padding in (
        (np.ones((channels, 4, 2, 2), np.float32), 2**30 - 1, "same"),
        (np.ones((channels, 4, 2, 2), np.float32), 2**30, 2**29),
        (np.ones((channels, 4, 3, 3), np.float32), 2**29, "same"),
        (np.ones((channels, 4, 1, 1), np.float32), 1, 2**30 - 1),
    ):
        options = {{"dilation": dilation, "padding_mode": padding, "border_mode": border,
                   "strides": stride}}
        grad = np.ones((1, 4, 1, 1), np.float32)
        for call in (conv, bprop):
            try:
                call(*(imgs, filters) if call is conv else (imgs, grad, filters), **options)
            except (ValueError, MemoryError):
                pass
print("alive")
""",
        timeout=60,
    )
    assert done.stdout == "alive\n", f"exit code {done.returncode}\n{done.stderr}"
