"""The kernels of losses: softmax and cross-entropy of pixels, binary cross-entropy."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from test_conv_process import guarded

from nnet import reference
from nnet.dispatch import load

PIXELS = [(1,), (63,), (65,), (1, 1), (3, 5), (8, 8), (7, 19)]  # 64 are taken at a time
ENTRIES = [(), (1,), (15,), (17,), (255,), (257,), (3, 4, 5)]  # 16 and 256 are
SMOOTHING = [0, 0.1, 1]


def tolerances(dtype):
    return {"rtol": 1e-5, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-13, "atol": 1e-15}


def of_pixels(kernels, scores, target, **options):
    n_imgs = len(scores)
    probs, grad = np.full_like(scores, np.nan), np.full_like(scores, np.nan)
    losses, errors = np.full(n_imgs, np.nan), np.full(n_imgs, np.nan)
    loss_sum, n_right = kernels.cross_entropy(
        scores, target, probs, losses, grad, errors, **options
    )
    assert_array_equal(loss_sum, sum(losses.tolist()))
    assert n_right is None
    return probs, losses, grad, errors


def of_entries(kernels, scores, target, **options):
    n_imgs = len(scores)
    probs, grad = np.full_like(scores, np.nan), np.full_like(scores, np.nan)
    losses, errors = np.full(n_imgs, np.nan), np.full(n_imgs, np.nan)
    kernels.binary_cross_entropy(scores, target, probs, losses, grad, errors, **options)
    return probs, losses, grad, errors


def drawn(rng, shape, n_classes, dtype, n_imgs=3):
    scores = (2 * rng.normal(size=(n_imgs, n_classes, *shape))).astype(dtype)
    return scores, rng.integers(0, n_classes, (n_imgs, *shape))


# --- labels of pixels -----------------------------------------------------------------


@pytest.mark.parametrize("shape", PIXELS, ids=str)
@pytest.mark.parametrize("n_classes", [1, 2, 5, 33])
def test_cross_entropy_of_pixels(kernels, dtype, rng, shape, n_classes):
    scores, target = drawn(rng, shape, n_classes, dtype, n_imgs=2)
    for smoothing in SMOOTHING:
        found = of_pixels(kernels, scores, target, smoothing=smoothing)
        expected = reference.cross_entropy(scores, target, smoothing)
        for a, b in zip(found, expected):
            assert_allclose(a, b, **tolerances(dtype))
    assert_array_equal(kernels.softmax(scores), found[0])


@pytest.mark.parametrize("n_classes", [1, 2, 10])
def test_smoothing_of_one_label_for_each_image(kernels, dtype, rng, n_classes):
    scores, target = drawn(rng, (), n_classes, dtype, n_imgs=20)

    def found(*options, **named):
        probs, losses, grad = np.empty_like(scores), np.empty(20), np.empty_like(scores)
        sums = kernels.cross_entropy(scores, target, probs, losses, grad, *options, **named)
        return probs, losses, grad, *sums

    for smoothing in SMOOTHING:
        probs, losses, grad, loss_sum, n_right = found(smoothing=smoothing)
        expected = reference.cross_entropy(scores, target, smoothing)
        for a, b in zip((probs, losses, grad), expected):
            assert_allclose(a, b, **tolerances(dtype))
        assert loss_sum == pytest.approx(losses.sum())
        assert n_right == pytest.approx(20 - expected[3].sum())
    for a, b in zip(found(), found(smoothing=0)):
        assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"errors is given, expected None .* \(20, "):
        found(np.empty(20))


def test_of_equal_pixels_the_first_class_wins(kernels, dtype):
    scores = np.zeros((1, 3, 70), dtype)
    scores[0, 2, 35:] = scores[0, 1, 35:] = 1
    target = np.arange(70)[None] % 3
    probs, _, _, errors = of_pixels(kernels, scores, target)
    assert errors[0] == np.mean(probs.argmax(axis=1) != target)


# --- binary -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ENTRIES, ids=str)
@pytest.mark.parametrize("soft", [False, True])
def test_binary_cross_entropy(kernels, dtype, rng, shape, soft):
    scores = (3 * rng.normal(size=(4, *shape))).astype(dtype)
    target = rng.random(scores.shape).astype(dtype)
    target = target if soft else target.round()
    for smoothing in SMOOTHING:
        found = of_entries(kernels, scores, target, smoothing=smoothing)
        expected = reference.binary_cross_entropy(scores, target, smoothing)
        for a, b in zip(found, expected):
            assert_allclose(a, b, **tolerances(dtype))
    assert_array_equal(kernels.activate(scores, type="sigmoid"), found[0])


def test_sigmoid_to_the_last_bits(kernels, dtype):
    """Over all scores, down to denormal probabilities: they are e^x there."""
    scores = np.linspace(-760, 40, 100_001).astype(dtype)
    probs = kernels.activate(scores, type="sigmoid")
    powers = np.exp(-np.abs(scores).astype(np.longdouble))
    exact = np.where(scores < 0, powers, 1) / (1 + powers)
    limits = np.finfo(dtype)
    error = np.abs(probs - exact) / np.maximum(exact, limits.tiny)
    assert error.max() < 2.5 * limits.eps
    assert (probs[scores < np.log(limits.smallest_subnormal) - 1] == 0).all()
    assert 0 < probs[scores > np.log(limits.smallest_subnormal) + 1].min() < limits.tiny


def test_the_smallest_losses_are_kept(kernels):
    scores = np.array([[50.0, -60.0], [700.0, 700.0]])
    losses = of_entries(kernels, scores, np.array([[1.0, 0], [1, 1]]))[1]
    assert_allclose(losses, [(np.exp(-50) + np.exp(-60)) / 2, np.exp(-700)], rtol=1e-14)


# --- both -------------------------------------------------------------------------------

LOSSES = [of_pixels, of_entries]


def case(loss, rng, dtype, n_imgs=5):
    if loss is of_pixels:
        return drawn(rng, (9, 23), 7, dtype, n_imgs)
    return [rng.normal(size=(n_imgs, 7, 9, 23)).astype(dtype) for _ in range(2)]


@pytest.mark.parametrize("loss", LOSSES)
def test_same_bits_alone_and_for_any_number_of_threads(kernels, dtype, rng, loss):
    scores, target = case(loss, rng, dtype, n_imgs=40)
    expected = loss(kernels, scores, target, n_threads=1, smoothing=0.2)
    for n_threads in (2, 3, None):
        found = loss(kernels, scores, target, n_threads=n_threads, smoothing=0.2)
        for a, b in zip(found, expected):
            assert_array_equal(a, b)
    memory = np.empty(scores[0].size + 1, dtype)[1:].reshape(scores[:1].shape)  # elsewhere
    memory[...] = scores[7]
    for a, b in zip(loss(kernels, memory, target[7:8], smoothing=0.2), expected):
        assert_array_equal(a[0], b[7])
    probabilities = partial(kernels.activate, type="sigmoid")
    if loss is of_pixels:
        probabilities = kernels.softmax
    for n_threads in (1, 2, None):
        assert_array_equal(probabilities(scores, n_threads=n_threads), expected[0])


@pytest.mark.parametrize("loss", LOSSES)
def test_any_layout_and_no_images(kernels, dtype, rng, loss):
    scores, target = case(loss, rng, dtype)
    expected = loss(kernels, scores, target)
    for a, b in zip(loss(kernels, np.asfortranarray(scores), target), expected):
        assert_array_equal(a, b)
    sliced = np.repeat(scores, 2, axis=2)[:, :, ::2], np.repeat(target, 2, axis=-1)[..., ::2]
    for a, b in zip(loss(kernels, *sliced), expected):
        assert_array_equal(a, b)
    probs, losses, grad, errors = loss(kernels, scores[:0], target[:0])
    assert probs.shape == grad.shape == (0, 7, 9, 23)
    assert losses.shape == errors.shape == (0,)


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_extreme_scores(kernels, dtype, size):
    scores = np.array([[size, -size], [-size, size], [size, size]], dtype)
    _, losses, grad, errors = of_pixels(kernels, scores[:, :, None], np.zeros((3, 1), np.intp))
    assert_allclose(losses, [0, 2 * size, np.log(2)], rtol=1e-6)
    assert_array_equal(grad[:, :, 0], [[0, 0], [-1, 1], [-0.5, 0.5]])
    assert_array_equal(errors, [0, 1, 0])
    target = np.array([[1, 0], [1, 0], [0, 1]], dtype)
    _, losses, grad, errors = of_entries(kernels, scores, target)
    assert_allclose(losses, [0, size, size / 2], rtol=1e-6)
    assert_array_equal(grad, [[0, 0], [-0.5, 0.5], [0.5, 0]])
    assert_array_equal(errors, [0, 1, 0.5])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_shows(kernels, dtype, rng, loss, bad):
    scores, target = case(loss, rng, dtype)
    if loss is of_entries:
        target[...] = 0
    scores[2, 3, 4, 5] = bad
    losses = loss(kernels, scores, target)[1]
    assert_array_equal(np.isfinite(losses), [True, True, False, True, True])


def run_guarded(target):
    """All arrays beside guard pages: a stray access kills the process."""
    functions = {each.__name__: each for each in load("_dense", target)}
    for dtype in (np.float32, np.float64):
        for at_end in (True, False):
            for n in (1, 15, 64, 65, 257):

                def ones(*shape):
                    return guarded(np.ones(shape, dtype), at_end)  # noqa: B023

                def doubles():
                    return guarded(np.ones(2), at_end)  # noqa: B023

                classes = guarded(np.ones((2, n), np.intp), at_end)
                arrays = [ones(2, 3, n) for _ in range(3)]
                functions["cross_entropy"](
                    arrays[0], classes, arrays[1], doubles(), arrays[2], doubles(), smoothing=0.1
                )
                functions["softmax"](ones(2, 3, n), ones(2, 3, n))
                scores, y, probs, grad = (ones(2, n) for _ in range(4))
                functions["binary_cross_entropy"](scores, y, probs, doubles(), grad, doubles())
    print("in bounds")


def test_nothing_outside_the_arrays_is_touched(run_guarded_apart):
    done = run_guarded_apart()
    assert done.stdout == "in bounds\n", f"exit code {done.returncode}\n{done.stderr}"


# --- wrong calls ------------------------------------------------------------------------


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def pixels(kernels, **changes):
    call = {"scores": ones(2, 3, 4, 5), "target": np.zeros((2, 4, 5), np.intp)}
    call |= {"probs": ones(2, 3, 4, 5), "losses": np.ones(2), "scores_grad": ones(2, 3, 4, 5)}
    return kernels.cross_entropy(**call | {"errors": np.ones(2)} | changes)


def entries(kernels, **changes):
    call = {"scores": ones(2, 3), "target": ones(2, 3), "probs": ones(2, 3)}
    call |= {"losses": np.ones(2), "scores_grad": ones(2, 3), "errors": np.ones(2)}
    return kernels.binary_cross_entropy(**call | changes)


ONES = ones(20)
WRONG = [
    (pixels, {"scores": ones(2, 3, 4, 5, 1)}, ValueError, r"expected 2 axes \(n_imgs, n_cl"),
    (pixels, {"scores": ones(2, 3, 0, 5)}, ValueError, "expected no empty axis in .*, img_w"),
    (pixels, {"scores": [[1.0]]}, TypeError, "scores is a list, expected a NumPy array"),
    (pixels, {"target": np.zeros(2, np.intp)}, ValueError, r"target has .*expected \(2, 4, 5\)"),
    (pixels, {"target": ones(2, 4, 5)}, TypeError, "target has dtype float32"),
    (
        pixels,
        {"target": np.arange(40).reshape(2, 4, 5) // 20 * 3},
        ValueError,
        r"target\[1, 0, 0\] is 3, expected one of 3 classes",
    ),
    (
        pixels,
        {"target": np.arange(40).reshape(2, 4, 5) // 39 * -1},
        ValueError,
        r"target\[1, 3, 4\] is -1",
    ),
    (pixels, {"errors": None}, TypeError, "errors is None, expected a NumPy array"),
    (pixels, {"errors": ones(2)}, TypeError, "errors has dtype float32, expected float64"),
    (pixels, {"smoothing": -0.1}, ValueError, "smoothing is -0.1, expected a number from 0 to 1"),
    (pixels, {"smoothing": np.nan}, ValueError, "smoothing is nan"),
    (pixels, {"smoothing": "1"}, TypeError, "must be real number"),
    (pixels, {"n_threads": 0}, ValueError, "n_threads is 0, expected at least 1"),
    (entries, {"scores": np.array(np.float32(1))}, ValueError, r"scores has shape \(\), expected"),
    (entries, {"scores": ones(2, 0)}, ValueError, r"scores has shape \(2, 0\), .* no empty axis"),
    (entries, {"target": ones(2, 1)}, ValueError, r"target has shape \(2, 1\), expected \(2, 3\)"),
    (entries, {"target": np.ones((2, 3))}, TypeError, "target has dtype float64 but scores has"),
    (entries, {"losses": np.ones(3)}, ValueError, r"losses has shape \(3,\), expected \(2,\)"),
    (entries, {"errors": None}, TypeError, "errors is None"),
    (entries, {"smoothing": 2}, ValueError, "smoothing is 2"),
    (
        entries,
        {"target": ONES[:6].reshape(2, 3), "scores_grad": ONES[5:11].reshape(2, 3)},
        ValueError,
        "scores_grad overlaps target",
    ),
]


@pytest.mark.parametrize("call, changes, error, message", WRONG)
def test_wrong_calls(kernels, call, changes, error, message):
    call(kernels)
    with pytest.raises(error, match=message):
        call(kernels, **changes)
    assert (ONES == 1).all()
