"""The kernels of dense layers and the like, against NumPy."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special
from test_conv_process import guarded

from nnet.dispatch import load

N_ROWS = [1, 2, 5, 6, 7, 8, 9, 13, 17]
N_COLS = [1, 3, 4, 7, 8, 9, 10, 15, 16, 17, 31, 33, 47, 48, 49, 65]
N_INNER = [1, 2, 10, 128, 129, 256, 257, 600]


def whole(rng, shape, dtype):
    """Small integers: their products add up without rounding."""
    return rng.integers(-4, 5, shape).astype(dtype)


# --- matrix products ----------------------------------------------------------------


@pytest.mark.parametrize("n_inner", N_INNER)
def test_products_of_integers_are_exact(kernels, dtype, rng, n_inner):
    for n_rows in N_ROWS:
        for n_cols in N_COLS:
            a, b = whole(rng, (n_rows, n_inner), dtype), whole(rng, (n_inner, n_cols), dtype)
            out = np.full((n_rows, n_cols), np.nan, dtype)
            assert kernels.matmul(a, b, out) is out
            assert_array_equal(out, a @ b)
            assert_array_equal(kernels.matmul(a, np.asfortranarray(b)), out)


LAYOUTS = {
    "rows": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "reversed": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
    "sliced": lambda a: np.repeat(np.repeat(a, 2, 0), 3, 1)[::2, ::3],
    "part of rows": lambda a: np.pad(a, ((0, 0), (0, 5)), constant_values=np.nan)[:, :-5],
    "one row": lambda a: np.broadcast_to(a[:1], a.shape),
    "bytes apart": lambda a: np.rec.fromarrays([a, a.astype("i1")], names="a, b")["a"],
}


@pytest.mark.parametrize("a_layout", LAYOUTS)
@pytest.mark.parametrize("b_layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(9, 20, 10), (3, 300, 35)])
def test_layouts(kernels, dtype, rng, a_layout, b_layout, shape):
    n_rows, n_inner, n_cols = shape
    a = LAYOUTS[a_layout](whole(rng, (n_rows, n_inner), dtype))
    b = LAYOUTS[b_layout](whole(rng, (n_inner, n_cols), dtype))
    a.flags.writeable = b.flags.writeable = False
    expected = np.array(a) @ np.array(b)
    assert_array_equal(kernels.matmul(a, b), expected)
    for layout in ("columns", "reversed", "sliced", "bytes apart"):
        out = LAYOUTS[layout](np.zeros((n_rows, n_cols), dtype))
        assert_array_equal(kernels.matmul(a, b, out), expected)
        assert_array_equal(out, expected)


def test_values_beside_the_matrix_do_not_matter(kernels, dtype, rng):
    """NaN next to the rows of b is read along with them, but goes nowhere."""
    memory = np.full((40, 24), np.nan, dtype)
    b = memory[:, :10]
    b[...] = whole(rng, b.shape, dtype)
    a = whole(rng, (9, 40), dtype)
    assert_array_equal(kernels.matmul(a, b), a @ b)
    assert np.isnan(memory[:, 10:]).all()


@pytest.mark.parametrize("n_cols", [1, 10, 16, 50])
def test_what_follows_the_sum(kernels, dtype, rng, n_cols):
    a, b = whole(rng, (11, 300), dtype), whole(rng, (300, n_cols), dtype)
    bias = whole(rng, n_cols, dtype)
    expected = a @ b / dtype.type(3) + bias
    assert_array_equal(kernels.matmul(a, b, bias=bias, divisor=3), expected)
    relu = kernels.matmul(a, b, bias=bias[::-1].copy()[::-1], divisor=3, activation="relu")
    assert_array_equal(relu, np.maximum(expected, 0))
    a[2, 3] = np.nan
    assert np.isnan(kernels.matmul(a, b, activation="relu")[2]).all()


def test_same_bits_for_any_number_of_threads(kernels, dtype, rng):
    for n_rows, n_inner, n_cols in ((64, 900, 10), (900, 64, 10), (64, 84, 300), (1, 900, 500)):
        a = rng.normal(size=(n_rows, n_inner)).astype(dtype)
        b = rng.normal(size=(n_inner, n_cols)).astype(dtype)
        for right in (b, np.asfortranarray(b)):
            one = kernels.matmul(a, right, n_threads=1)
            assert_allclose(one, a @ b, rtol=1e-4, atol=1e-4)
            for n_threads in (2, 3, 7):
                assert_array_equal(kernels.matmul(a, right, n_threads=n_threads), one)


def test_concurrent_calls(kernels, dtype, rng):
    """Python threads that call at the same time do not disturb each other."""
    a, b = rng.normal(size=(90, 300)).astype(dtype), rng.normal(size=(300, 90)).astype(dtype)
    expected = kernels.matmul(a, b, n_threads=1)
    with ThreadPoolExecutor(4) as pool:
        counts = [1 + i % 3 for i in range(60)]
        for got in pool.map(lambda n: kernels.matmul(a, b, n_threads=n), counts):
            assert_array_equal(got, expected)


@pytest.mark.parametrize("n_threads", [1, 2, None])
def test_forked_child_finishes(kernels, run_python, n_threads):
    """A child forked after a call on several threads neither hangs nor errs."""
    done = run_python(f"""
import multiprocessing, sys, warnings
import numpy as np
import nnet
from nnet.dispatch import load
warnings.simplefilter("ignore")  # newer Pythons warn of every fork beside threads
matmul, *_ = load("_dense", {kernels.target!r})
a = np.ones((300, 300), np.float32)
nnet.set_num_threads(2)
assert (matmul(a, a, n_threads=2) == 300).all()

def child():
    assert (matmul(a, a, n_threads={n_threads}) == 300).all()

process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(30)
if process.is_alive():
    process.kill()
    sys.exit("the child hangs")
assert (matmul(a, a, n_threads=3) == 300).all()
print("child's exit code", process.exitcode)
""")
    assert done.stdout == "child's exit code 0\n", done.stderr


def test_empty_products(kernels, dtype):
    for shape in ((0, 4, 3), (5, 0, 3), (5, 4, 0)):
        n_rows, n_inner, n_cols = shape
        a, b = np.ones((n_rows, n_inner), dtype), np.ones((n_inner, n_cols), dtype)
        assert_array_equal(kernels.matmul(a, b, n_threads=2), np.zeros((n_rows, n_cols), dtype))


def run_guarded(target):
    """All arrays beside guard pages: a stray access kills the process."""
    matmul, _, _, softmax, cross_entropy, all_finite, *_ = load("_dense", target)
    for dtype in (np.float32, np.float64):
        for at_end in (True, False):

            def ones(*shape):
                return guarded(np.ones(shape, dtype), at_end)  # noqa: B023

            for n_cols in N_COLS:
                for n_inner in (1, 3, 300):
                    a, b, out = ones(9, n_inner), ones(n_inner, n_cols), ones(9, n_cols)
                    matmul(a, b, out, bias=ones(n_cols))
                    matmul(ones(n_inner, 9).T, ones(n_cols, n_inner).T, out)
                target = guarded(np.zeros(3, np.intp), at_end)
                losses = guarded(np.zeros(3), at_end)
                outputs = ones(3, n_cols), losses, ones(3, n_cols)
                cross_entropy(ones(3, n_cols), target, *outputs)
                softmax(ones(3, n_cols), ones(3, n_cols))
                assert all_finite(ones(3, n_cols))
    print("in bounds")


def test_nothing_outside_the_arrays_is_touched(run_guarded_apart):
    done = run_guarded_apart()
    assert done.stdout == "in bounds\n", f"exit code {done.returncode}\n{done.stderr}"


# --- passes over memory ---------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [1, 2, 10, 33])
@pytest.mark.parametrize("scale", [1, 1000])
def test_cross_entropy(kernels, dtype, rng, n_classes, scale):
    scores = (rng.normal(size=(20, n_classes)) * scale).astype(dtype)
    target = rng.integers(0, n_classes, 20)
    exact = scores.astype(np.float64)
    log_probs = exact - special.logsumexp(exact, axis=1, keepdims=True)
    grad_expected = np.exp(log_probs)
    grad_expected[np.arange(20), target] -= 1
    for given in (scores, np.asfortranarray(scores)):
        probs, grad, losses = np.empty_like(scores), np.empty_like(scores), np.empty(20)
        loss_sum, n_right = kernels.cross_entropy(given, target, probs, losses, grad)
        assert_allclose(loss_sum, losses.sum(), rtol=1e-12)
        assert n_right == np.sum(np.argmax(probs, axis=1) == target)
        assert_allclose(losses, -log_probs[np.arange(20), target], rtol=1e-5, atol=1e-6)
        assert_array_equal(probs, kernels.softmax(scores))
        assert_allclose(grad, grad_expected, rtol=1e-4, atol=1e-6)
    nothing = kernels.cross_entropy(scores[:0], target[:0], probs[:0], losses[:0], grad[:0])
    assert nothing == (0.0, 0)


def test_of_equal_scores_the_first_wins(kernels, dtype):
    scores = np.zeros((3, 4), dtype)
    outputs = np.empty_like(scores), np.empty(3), np.empty_like(scores)
    loss_sum, n_right = kernels.cross_entropy(scores, np.array([0, 1, 3]), *outputs)
    assert n_right == 1
    assert loss_sum == pytest.approx(3 * np.log(4))


@pytest.mark.parametrize("n_classes", [1, 2, 10, 17])
@pytest.mark.parametrize("scale", [1, 1e4])
def test_softmax(kernels, dtype, rng, n_classes, scale):
    scores = (rng.normal(size=(20, n_classes)) * scale).astype(dtype)
    shifted = scores.astype(np.longdouble) - scores.max(axis=1, keepdims=True)
    expected = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    out = np.full((20, n_classes), np.nan, dtype)
    for given in (scores, np.asfortranarray(scores)):
        assert kernels.softmax(given, out) is out
        assert_allclose(out, expected, rtol=1e-5, atol=1e-30)
    assert_array_equal(kernels.softmax(scores), out)
    assert kernels.softmax(scores[:0]).shape == (0, n_classes)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_all_finite_sees_every_place(kernels, dtype, bad):
    assert kernels.all_finite(np.full(70, np.finfo(dtype).max, dtype))
    assert kernels.all_finite(np.ones((0, 3), dtype))
    for size in (1, 7, 16, 33, 70):
        for place in range(size):
            values = np.ones(size, dtype)
            values[place] = bad
            assert not kernels.all_finite(values)
    values = np.ones((6, 5), dtype)
    values[1, 2] = bad
    assert not kernels.all_finite(values.T) and kernels.all_finite(values[::2])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_shows(kernels, dtype, bad):
    scores = np.zeros((3, 4), dtype)
    scores[1, 2] = bad
    losses = np.empty(3)
    outputs = np.empty_like(scores), losses, np.empty_like(scores)
    kernels.cross_entropy(scores, np.array([0, 2, 3]), *outputs)
    assert_array_equal(np.isfinite(losses), [True, False, True])


# --- wrong calls ----------------------------------------------------------------------


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def product(kernels, **changes):
    call = {"a": ones(5, 4), "b": ones(4, 3), "out": ones(5, 3), "bias": ones(3), **changes}
    return kernels.matmul(**call)


def entropy(kernels, **changes):
    call = {"scores": ones(5, 4), "target": np.arange(5) % 4, "probs": ones(5, 4)}
    call |= {"losses": np.ones(5), "scores_grad": ones(5, 4), **changes}
    return kernels.cross_entropy(**call)


def probabilities(kernels, **changes):
    call = {"scores": ones(5, 4), "probs": ones(5, 4), **changes}
    return kernels.softmax(**call)


OVERLAPPING = ones(40)
WRONG = [
    (probabilities, {"scores": [[1.0]]}, TypeError, "scores is a list, expected a NumPy array"),
    (probabilities, {"scores": ones(5, 0)}, ValueError, "expected no empty axis"),
    (probabilities, {"probs": ones(4, 5)}, ValueError, r"probs has shape \(4, 5\), expected \(5"),
    (
        probabilities,
        {"scores": OVERLAPPING[:20].reshape(5, 4), "probs": OVERLAPPING[19:39].reshape(5, 4)},
        ValueError,
        "probs overlaps scores",
    ),
    (product, {"a": [[1.0]]}, TypeError, "a is a list, expected a NumPy array"),
    (product, {"a": ones(5, 4, dtype="f2")}, TypeError, "a has dtype float16, expected native"),
    (product, {"b": ones(4, 3, dtype="f8")}, TypeError, "b has dtype float64 but a has float32"),
    (product, {"a": ones(5)}, ValueError, r"a has shape \(5,\), expected 2 axes"),
    (product, {"b": ones(5, 3)}, ValueError, r"b has shape \(5, 3\), expected 4 rows"),
    (product, {"bias": ones(1)}, ValueError, r"bias has shape \(1,\), expected \(3,\)"),
    (product, {"out": ones(5, 4)}, ValueError, r"out has shape \(5, 4\), expected \(5, 3\)"),
    (product, {"out": ones(5, 3, dtype="f8")}, TypeError, "out has dtype float64"),
    (product, {"activation": "tanh"}, ValueError, "activation is 'tanh', expected None or 'relu'"),
    (product, {"activation": 1}, ValueError, "activation is 1, expected None or 'relu'"),
    (product, {"divisor": "2"}, TypeError, "must be real number"),
    (product, {"n_threads": 0}, ValueError, "n_threads is 0, expected at least 1"),
    (product, {"n_threads": 1.0}, TypeError, "n_threads is 1.0, expected an integer"),
    (
        product,
        {"a": OVERLAPPING[:20].reshape(5, 4), "out": OVERLAPPING[19:34].reshape(5, 3)},
        ValueError,
        "out overlaps a, expected arrays that share no memory",
    ),
    (
        product,
        {"bias": OVERLAPPING[14:17], "out": OVERLAPPING[:15].reshape(5, 3)},
        ValueError,
        "out overlaps bias",
    ),
    (entropy, {"scores": ones(5, 0)}, ValueError, "expected no empty axis"),
    (entropy, {"target": [0, 1, 2, 3, 0]}, TypeError, "target is a list"),
    (entropy, {"target": ones(5)}, TypeError, "target has dtype float32, expected int64"),
    (entropy, {"target": np.arange(4)}, ValueError, r"target has shape \(4,\), expected \(5,\)"),
    (entropy, {"target": np.arange(5)}, ValueError, r"target\[4\] is 4, expected one of 4"),
    (entropy, {"target": np.arange(5) - 1}, ValueError, r"target\[0\] is -1, expected one of 4"),
    (entropy, {"scores_grad": None}, TypeError, "scores_grad is None"),
    (entropy, {"scores_grad": ones(5, 3)}, ValueError, r"scores_grad has shape \(5, 3\)"),
]


@pytest.mark.parametrize("call, changes, error, message", WRONG)
def test_wrong_calls(kernels, call, changes, error, message):
    call(kernels)
    with pytest.raises(error, match=message):
        call(kernels, **changes)
    assert (OVERLAPPING == 1).all()
