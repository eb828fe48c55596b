"""Batch and group normalisation, and the sum of two arrays, against the plain loops."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from test_conv_process import guarded

from nnet import reference
from nnet.dispatch import load

SHAPES = [
    (1, 1, 1, 1),
    (5, 3, 4, 5),
    (9, 2, 1, 17),
    (17, 5),
    (9, 300),  # more channels than columns side by side
    (2, 2, 33, 65),  # more pixels than a run
    (20, 6, 2, 2),
    (8, 4, 8, 8),
    (2, 3, 7),
    (0, 2, 3, 3),
    (0, 2),
]


def arrays(shape, rng, dtype, offset=0.0):
    """imgs, out_grad, gamma, beta, running_mean, running_var"""
    imgs = rng.normal(size=shape) + offset
    per_channel = rng.normal(size=(4, shape[1]))
    per_channel[3] = per_channel[3] ** 2 + 0.5
    found = imgs, rng.normal(size=shape), *per_channel
    return [array.astype(dtype) for array in found]


def close(got, expected, dtype, scale=1.0):
    tolerance = scale * (1e-5 if dtype == np.float32 else 1e-12)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1, np.abs(b).max(initial=0)))


def weights_of(shape, rng, weighted):
    return rng.integers(0, 4, shape[0]) / 2 if weighted else None


# --- against the loops ------------------------------------------------------------------


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_batch_norm(kernels, dtype, rng, shape, training, weighted, activation):
    imgs, grad, gamma, beta, *running = arrays(shape, rng, dtype)
    options = {"training": training, "weights": weights_of(shape, rng, weighted)}
    options["activation"] = activation
    others = [array.copy() for array in running]
    got = kernels.batch_norm(imgs, gamma, beta, *running, momentum=0.3, **options)
    wanted = reference.batch_norm(imgs, gamma, beta, *others, momentum=0.3, **options)
    close([*got, *running], [*wanted, *others], dtype)
    given = imgs, grad, gamma, beta, *wanted[1:]
    expected = reference.bprop_batch_norm(*given, **options)
    close(kernels.bprop_batch_norm(*given, **options), expected, dtype, 4)
    got = kernels.bprop_batch_norm(*given, need_imgs_grad=False, **options)
    assert got[0] is None
    close(got[1:], expected[1:], dtype, 4)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("shape", [*SHAPES, (3, 8, 16, 40)], ids=str)
def test_group_norm(kernels, dtype, rng, shape, activation):
    imgs, grad, gamma, beta, *_ = arrays(shape, rng, dtype)
    for n_groups in {1, np.gcd(shape[1], 2), shape[1]}:
        got = kernels.group_norm(imgs, gamma, beta, n_groups, activation=activation)
        wanted = reference.group_norm(imgs, gamma, beta, n_groups, activation=activation)
        close(got, wanted, dtype, 4)
        given = imgs, grad, gamma, beta, *wanted[1:]
        expected = reference.bprop_group_norm(*given, activation=activation)
        close(kernels.bprop_group_norm(*given, activation=activation), expected, dtype, 20)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, n) for n in (20, 9, 6, 40)]),
    groups=st.integers(1, 9),
    activation=st.sampled_from([None, "relu"]),
    seed=st.integers(0, 99),
)
def test_any_shape(kernels, shape, groups, activation, seed):
    """Integers: sums of them are exact."""
    rng = np.random.default_rng(seed)
    imgs, grad = rng.integers(-8, 9, (2, *shape)).astype(np.float32)
    gamma, beta = rng.normal(size=(2, shape[1])).astype(np.float32)
    running = np.zeros(shape[1], np.float32), np.ones(shape[1], np.float32)
    out, mean, inv_std = kernels.batch_norm(imgs, gamma, beta, *running, activation=activation)
    exact = imgs.astype(float)
    assert_allclose(mean, exact.mean(axis=(0, 2, 3)), rtol=1e-6, atol=1e-6)
    var = exact.var(axis=(0, 2, 3))
    if imgs[:, 0].size > 1:
        assert_allclose(inv_std, (var + 1e-5) ** -0.5, rtol=1e-6)
    _, _, beta_grad = kernels.bprop_batch_norm(imgs, grad, gamma, beta, mean, inv_std)
    assert_array_equal(
        beta_grad, (grad.astype(float).sum(axis=(0, 2, 3)) / shape[0]).astype(np.float32)
    )
    n_groups = np.gcd(groups, shape[1])
    _, mean, inv_std = kernels.group_norm(imgs, gamma, beta, n_groups)
    rows = exact.reshape(shape[0], n_groups, -1)
    assert_allclose(mean, rows.mean(axis=2), rtol=1e-6, atol=1e-6)
    if rows.shape[2] > 1:
        assert_allclose(inv_std, (rows.var(axis=2) + 1e-5) ** -0.5, rtol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e3, -1e4])
@pytest.mark.parametrize("shape", [(64, 3, 16, 16), (2, 2, 60, 70), (500, 3), (64, 3, 1, 3)])
def test_far_from_zero(kernels, dtype, rng, offset, shape):
    """What float32 has lost of the input is lost, and no more."""
    imgs, _, gamma, beta, *running = arrays(shape, rng, dtype, offset)
    exact = imgs.astype(float)
    axes = (0, *range(2, len(shape)))
    _, mean, inv_std = kernels.batch_norm(imgs, gamma, beta, *running)
    tolerance = 2e-7 if dtype == np.float32 else 1e-12
    assert_allclose(mean, exact.mean(axis=axes), rtol=1e-12, atol=tolerance)
    assert_allclose(inv_std, (exact.var(axis=axes) + 1e-5) ** -0.5, rtol=3e-7)
    ones, zeros = np.ones_like(gamma), np.zeros_like(beta)
    out, *_ = kernels.batch_norm(imgs, ones, zeros, *running)
    assert_allclose(out.mean(axis=axes), 0, atol=1e-6)
    assert_allclose(out.std(axis=axes), 1, rtol=1e-4)
    expected = reference.batch_norm(imgs, ones, zeros, *running)
    assert_allclose(out, expected[0], rtol=1e-5, atol=3e-6)
    out, mean, inv_std = kernels.group_norm(imgs, ones, zeros, 1)
    rows = exact.reshape(len(imgs), -1)
    assert_allclose(mean[:, 0], rows.mean(axis=1), rtol=1e-12, atol=tolerance)
    assert_allclose(inv_std[:, 0], (rows.var(axis=1) + 1e-5) ** -0.5, rtol=3e-7)


def test_images_far_from_each_other(kernels, dtype, rng):
    """The first one, and whole rows of pixels, are where no other value is."""
    imgs, _, gamma, beta, *running = arrays((24, 2, 40, 40), rng, dtype)
    imgs[0] += 3e4
    imgs[5, :, :20] -= 1e4
    exact = imgs.astype(float)
    _, mean, inv_std = kernels.batch_norm(imgs, gamma, beta, *running)
    assert_allclose(mean, exact.mean(axis=(0, 2, 3)), rtol=1e-6)
    assert_allclose(inv_std, exact.std(axis=(0, 2, 3)) ** -1, rtol=1e-6)
    weights = np.ones(24)
    weights[[0, 5]] = 0  # what does not count has no influence, not even by rounding
    imgs[0, 0, 0, 0] = np.inf
    _, mean, inv_std = kernels.batch_norm(imgs, gamma, beta, *running, weights=weights)
    exact = np.delete(exact, [0, 5], axis=0)
    assert_allclose(mean, exact.mean(axis=(0, 2, 3)), rtol=1e-6, atol=2e-7)
    assert_allclose(inv_std, (exact.var(axis=(0, 2, 3)) + 1e-5) ** -0.5, rtol=1e-6)


def test_constant_channels(kernels, dtype):
    imgs = np.full((20, 2, 9, 9), 1e4, dtype)
    gamma, beta = np.ones(2, dtype), np.array([0.25, -2], dtype)
    running = np.zeros(2, dtype), np.ones(2, dtype)
    for out, mean, inv_std in (
        kernels.batch_norm(imgs, gamma, beta, *running),
        kernels.group_norm(imgs, gamma, beta, 2),
    ):
        assert (mean == 1e4).all()
        assert_allclose(inv_std, 1e-5**-0.5)
        assert_array_equal(out, np.broadcast_to(beta[:, None, None], out.shape))


# --- weights and single values --------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12, 3, 4, 4), (12, 3)])
def test_a_weight_of_two_is_the_image_twice(kernels, dtype, rng, shape):
    imgs, grad, gamma, beta, *running = arrays(shape, rng, dtype)
    weights = rng.integers(0, 4, len(imgs)).astype(float)
    rows = np.repeat(np.arange(len(imgs)), weights.astype(int))
    others = [array.copy() for array in running]
    weighted = kernels.batch_norm(imgs, gamma, beta, *running, weights=weights)
    repeated = kernels.batch_norm(imgs[rows], gamma, beta, *others)
    close([weighted[0][rows], *weighted[1:], *running], [*repeated, *others], dtype)
    # The network multiplies the gradients: mean losses are sums of weights * losses / sum(weights).
    scale = (len(imgs) / weights.sum() * weights).astype(dtype)
    scaled = grad * scale.reshape(-1, *[1] * (grad.ndim - 1))
    ours = kernels.bprop_batch_norm(imgs, scaled, gamma, beta, *weighted[1:], weights=weights)
    theirs = kernels.bprop_batch_norm(imgs[rows], grad[rows], gamma, beta, *repeated[1:])
    close(ours[1:], theirs[1:], dtype, 4)
    per_copy = ours[0][rows] / scale[rows].reshape(-1, *[1] * (grad.ndim - 1))
    close([per_copy], [theirs[0]], dtype, 4)


@pytest.mark.parametrize("factor", [1e-320, 1e-300, 1 / 12, 0.3])
@pytest.mark.parametrize("shape", [(12, 3, 2, 2), (12, 3)])
def test_small_weights_count_by_their_ratios(kernels, dtype, rng, shape, factor):
    """Of equal ones there are as many as without any; the mean weighs, whatever their scale."""
    imgs, grad, gamma, beta, *running = arrays(shape, rng, dtype)

    def results(weights):
        state = [array.copy() for array in running]
        out = kernels.batch_norm(imgs, gamma, beta, *state, weights=weights)
        given = imgs, grad, gamma, beta, *out[1:]
        return [*out, *state, *kernels.bprop_batch_norm(*given, weights=weights)]

    close(results(np.full(12, factor)), results(None), dtype)
    weights = rng.integers(0, 4, 12) / 8
    rounding = 1e-2 if factor == 1e-320 else 1e-5  # a subnormal number
    for got, wanted in zip(results(weights * factor), results(weights), strict=True):
        assert_allclose(got, wanted, rtol=rounding, atol=rounding)


def test_two_halves_are_two_images(kernels, dtype, rng):
    """And others make the unbiased estimate for weights that say how sure a value is."""
    imgs, _, gamma, beta, *running = arrays((2, 3), rng, dtype)
    others = [array.copy() for array in running]
    got = kernels.batch_norm(imgs, gamma, beta, *running, weights=np.array([0.5, 0.5]))
    close([*got, *running], [*kernels.batch_norm(imgs, gamma, beta, *others), *others], dtype)
    assert got[2].all()
    weights = np.array([0.3, 0.1])
    kernels.batch_norm(imgs, gamma, beta, *running, weights=weights, momentum=1)
    var = np.cov(imgs.T.astype(float), aweights=weights).diagonal()
    assert_allclose(running[1], var, rtol=1e-5)


@pytest.mark.parametrize(
    "weights", [None, [0.5, 0.0], [1.0, 0.0], [3.0, 0.0], [0.0, 0.0], [0.0, 1e-320]]
)
def test_no_more_than_a_single_value(kernels, dtype, weights):
    n_imgs = 1 if weights is None else 2
    imgs, grad = np.arange(n_imgs * 6, dtype=dtype).reshape(2, n_imgs, 3, 1, 1)
    gamma, beta = np.arange(1, 4).astype(dtype), np.array([0.5, 0, -1], dtype)
    running = np.full(3, 7, dtype), np.full(3, 8, dtype)
    weights = weights and np.array(weights)
    for x, g in ((imgs, grad), (imgs[:, :, 0, 0], grad[:, :, 0, 0])):
        out, mean, inv_std = kernels.batch_norm(x, gamma, beta, *running, weights=weights)
        assert_array_equal(out.reshape(n_imgs, 3), np.broadcast_to(beta, (n_imgs, 3)))
        assert (running[0] == 7).all() and (running[1] == 8).all()
        grads = kernels.bprop_batch_norm(x, g, gamma, beta, mean, inv_std, weights=weights)
        assert not grads[0].any() and not grads[1].any()
        assert_array_equal(grads[2], g.reshape(n_imgs, 3).mean(axis=0))


# --- the ReLU, bits, memory -----------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9, 5, 7, 9), (40, 13), (3, 4, 40, 40)])
def test_the_relu_is_that_of_two_steps(kernels, dtype, rng, shape):
    """To the bits, at zero and for NaN too."""
    imgs, grad, gamma, beta, *running = arrays(shape, rng, dtype)
    imgs[:, 1] = 2  # constant: the output is beta
    beta[1] = 0
    imgs[0, -1] = np.nan
    kernels_of = {
        "batch": (kernels.batch_norm, kernels.bprop_batch_norm, running),
        "group": (kernels.group_norm, kernels.bprop_group_norm, [shape[1]]),
    }
    for fprop, bprop, more in kernels_of.values():
        plain, mean, inv_std = fprop(imgs, gamma, beta, *more)
        fused, *_ = fprop(imgs, gamma, beta, *more, activation="relu")
        assert_array_equal(fused, np.maximum(plain, 0))
        masked = kernels.bprop_activate(fused, grad, type="relu")
        two = bprop(imgs, masked, gamma, beta, mean, inv_std)
        one = bprop(imgs, grad, gamma, beta, mean, inv_std, activation="relu")
        for a, b in zip(one, two):
            assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(37, 11, 25, 30), (700, 401)])
def test_same_bits_for_any_number_of_threads(kernels, dtype, rng, shape):
    imgs, grad, gamma, beta, *running = arrays(shape, rng, dtype)
    weights = rng.uniform(size=len(imgs))

    def results(n_threads):
        options = {"n_threads": n_threads, "activation": "relu"}
        state = [array.copy() for array in running]
        out = kernels.batch_norm(imgs, gamma, beta, *state, weights=weights, **options)
        found = [*out, *state]
        found += kernels.bprop_batch_norm(
            imgs, grad, gamma, beta, *out[1:], weights=weights, **options
        )
        out = kernels.group_norm(imgs, gamma, beta, 1, **options)
        found += [*out, *kernels.bprop_group_norm(imgs, grad, gamma, beta, *out[1:], **options)]
        return [*found, kernels.add_arrays(imgs, grad, **options)]

    one = results(1)
    for n_threads in (2, 3):
        for a, b in zip(one, results(n_threads)):
            assert_array_equal(a, b)
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(results, [2, 1, 3]):
            for a, b in zip(one, found):
                assert_array_equal(a, b)


def test_an_image_alone_has_the_bits_that_it_has_in_a_batch(kernels, dtype, rng):
    for shape in ((9, 5, 7, 9), (40, 13)):
        imgs, _, gamma, beta, *running = arrays(shape, rng, dtype)
        fixed, *_ = kernels.batch_norm(imgs, gamma, beta, *running, training=False)
        groups, *_ = kernels.group_norm(imgs, gamma, beta, 1)
        for n in range(len(imgs)):
            one = imgs[n : n + 1]
            alone, *_ = kernels.batch_norm(one, gamma, beta, *running, training=False)
            assert_array_equal(alone[0], fixed[n])
            assert_array_equal(kernels.group_norm(one, gamma, beta, 1)[0][0], groups[n])


def test_any_layout(kernels, dtype, rng):
    imgs, grad, gamma, beta, *running = arrays((6, 4, 5, 7), rng, dtype)
    state = [array.copy() for array in running]
    expected = kernels.batch_norm(imgs, gamma, beta, *state)
    grads = kernels.bprop_batch_norm(imgs, grad, gamma, beta, *expected[1:])
    strided = [np.repeat(array, 2)[::2] for array in running]
    turned = np.asfortranarray(imgs)
    out = np.empty_like(turned)
    got = kernels.batch_norm(turned, gamma[::-1].copy()[::-1], beta, *strided, out)
    assert got[0] is out
    for a, b in zip([*got, *strided], [*expected, *state]):
        assert_array_equal(a, b)
    grad_given = np.empty((2, 4), dtype)[:, ::-1]
    got = kernels.bprop_batch_norm(
        turned, grad[:, :, ::-1][:, :, ::-1], gamma, beta, *expected[1:], None, *grad_given
    )
    for a, b in zip(got, grads):
        assert_array_equal(a, b)
    assert_array_equal(grad_given, grads[1:])


@pytest.mark.parametrize("size", [0, 1, 15, 33, 250_001])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_sum_of_two_arrays(kernels, dtype, rng, size, activation):
    a, b = rng.normal(size=(2, size)).astype(dtype)
    a[:2] = [np.nan, np.inf][:size]
    out = np.full(size, -1, dtype)
    expected = np.maximum(a + b, 0) if activation else a + b
    assert kernels.add_arrays(a, b, out, activation=activation) is out
    assert_array_equal(out, expected)
    assert_array_equal(kernels.add_arrays(a[::-1], b[::-1], activation=activation), expected[::-1])


def run_guarded(target):
    """All arrays beside guard pages: a stray access kills the process."""
    functions = {each.__name__: each for each in load("_dense", target)}
    for dtype in (np.float32, np.float64):
        for at_end in (True, False):

            def ones(*shape, dtype=dtype):
                return guarded(np.ones(shape, dtype), at_end)  # noqa: B023

            for shape in [(9, 3, 5, 5), (3, 17), (2, 2, 1, 1025), (17, 2, 1, 3), (2, 1, 8, 8)]:
                per_channel = [ones(shape[1]) for _ in range(4)]
                statistics = [ones(shape[1], dtype=float) for _ in "ab"]
                weights = ones(shape[0], dtype=float)
                imgs, out = ones(*shape), ones(*shape)
                for activation in (None, "relu"):
                    options = {"weights": weights, "activation": activation}
                    functions["batch_norm"](imgs, *per_channel, out, *statistics, **options)
                    given = imgs, ones(*shape), *per_channel[:2], *statistics, out
                    functions["bprop_batch_norm"](*given, *per_channel[2:], **options)
                    statistics = [ones(shape[0], 1, dtype=float) for _ in "ab"]
                    given = imgs, *per_channel[:2], 1, out, *statistics
                    functions["group_norm"](*given, activation=activation)
                    given = imgs, ones(*shape), *per_channel[:2], *statistics, out
                    functions["bprop_group_norm"](*given, *per_channel[2:], activation=activation)
                    functions["add_arrays"](imgs, ones(*shape), out, activation=activation)
                    statistics = [ones(shape[1], dtype=float) for _ in "ab"]
    print("in bounds")


def test_nothing_outside_the_arrays_is_touched(run_guarded_apart):
    done = run_guarded_apart()
    assert done.stdout == "in bounds\n", f"exit code {done.returncode}\n{done.stderr}"


# --- wrong calls ------------------------------------------------------------------------------


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def doubles(*shape):
    return ones(*shape, dtype=np.float64)


BATCH = {name: ones(3) for name in ("gamma", "beta", "running_mean", "running_var")}
BATCH = {"imgs": ones(5, 3, 2, 2), **BATCH}
BATCH_BACK = {"imgs": ones(5, 3, 2, 2), "out_grad": ones(5, 3, 2, 2), "gamma": ones(3)}
BATCH_BACK |= {"beta": ones(3), "mean": doubles(3), "inv_std": doubles(3)}
GROUP = {"imgs": ones(5, 4), "gamma": ones(4), "beta": ones(4), "n_groups": 2}
GROUP_BACK = {"imgs": ones(5, 4), "out_grad": ones(5, 4), "gamma": ones(4), "beta": ones(4)}
GROUP_BACK |= {"mean": doubles(5, 2), "inv_std": doubles(5, 2)}
CALLS = {
    "batch_norm": BATCH,
    "bprop_batch_norm": BATCH_BACK,
    "group_norm": GROUP,
    "bprop_group_norm": GROUP_BACK,
    "add_arrays": {"a": ones(5, 4), "b": ones(5, 4)},
}
FROZEN = ones(3)
FROZEN.flags.writeable = False
WRONG = [
    ("batch_norm", {"imgs": [[1.0]]}, TypeError, "imgs is a list, expected a NumPy array"),
    ("batch_norm", {"imgs": ones(5)}, ValueError, r"imgs has shape \(5,\), expected n_imgs, n_ch"),
    ("batch_norm", {"imgs": ones(5, 3, 0, 2)}, ValueError, "expected no empty axis but the images"),
    ("batch_norm", {"imgs": ones(5, 3, dtype="f2")}, TypeError, "imgs has dtype float16"),
    ("batch_norm", {"gamma": ones(4)}, ValueError, r"gamma has shape \(4,\), expected \(3,\)"),
    ("batch_norm", {"beta": doubles(3)}, TypeError, "beta has dtype float64 but imgs has float32"),
    ("batch_norm", {"running_mean": None}, TypeError, "running_mean is None, expected a NumPy arr"),
    ("batch_norm", {"running_var": FROZEN}, ValueError, "running_var is read-only"),
    ("batch_norm", {"running_var": BATCH["gamma"]}, ValueError, "running_var overlaps gamma"),
    ("batch_norm", {"out": BATCH["imgs"]}, ValueError, "out overlaps imgs"),
    ("batch_norm", {"out": ones(5, 3)}, ValueError, r"out has shape \(5, 3\), expected \(5, 3, 2"),
    ("batch_norm", {"mean": ones(3)}, TypeError, "mean has dtype float32, expected float64"),
    ("batch_norm", {"inv_std": doubles(4)}, ValueError, r"inv_std has shape \(4,\)"),
    ("batch_norm", {"momentum": 1.5}, ValueError, "momentum is 1.5, expected a number from 0 to 1"),
    ("batch_norm", {"eps": 0}, ValueError, "eps is 0, expected a finite number greater than 0"),
    ("batch_norm", {"eps": "1"}, TypeError, "must be real number"),
    ("batch_norm", {"weights": ones(5)}, TypeError, "weights has dtype float32, expected float64"),
    ("batch_norm", {"weights": doubles(4)}, ValueError, r"weights has shape \(4,\)"),
    ("batch_norm", {"weights": -doubles(5)}, ValueError, "weights has -1.0, expected finite"),
    ("batch_norm", {"weights": doubles(5) * np.inf}, ValueError, "weights has inf, expected"),
    ("batch_norm", {"activation": "tanh"}, ValueError, "activation is 'tanh', expected None or"),
    ("batch_norm", {"n_threads": 0}, ValueError, "n_threads is 0, expected at least 1"),
    ("bprop_batch_norm", {"out_grad": ones(5, 3)}, ValueError, r"out_grad has shape \(5, 3\)"),
    ("bprop_batch_norm", {"mean": ones(3)}, TypeError, "mean has dtype float32"),
    ("bprop_batch_norm", {"inv_std": None}, TypeError, "inv_std is None"),
    ("bprop_batch_norm", {"imgs_grad": BATCH_BACK["out_grad"]}, ValueError, "overlaps out_grad"),
    ("bprop_batch_norm", {"gamma_grad": ones(4)}, ValueError, r"gamma_grad has shape \(4,\)"),
    ("bprop_batch_norm", {"beta_grad": doubles(3)}, TypeError, "beta_grad has dtype float64"),
    (
        "bprop_batch_norm",
        {"imgs_grad": ones(5, 3, 2, 2), "need_imgs_grad": False},
        ValueError,
        "imgs_grad is an array, expected None",
    ),
    ("group_norm", {"n_groups": 3}, ValueError, "n_groups is 3, expected a divisor of 4 channels"),
    ("group_norm", {"n_groups": 0}, ValueError, "n_groups is 0, expected a divisor"),
    ("group_norm", {"n_groups": 2.0}, TypeError, "float"),
    ("group_norm", {"mean": doubles(5)}, ValueError, r"mean has shape \(5,\), expected \(5, 2\)"),
    ("bprop_group_norm", {"mean": doubles(5, 3)}, ValueError, r"mean has shape \(5, 3\)"),
    ("bprop_group_norm", {"mean": doubles(5)}, ValueError, r"mean has shape \(5,\)"),
    ("bprop_group_norm", {"inv_std": doubles(5, 1)}, ValueError, r"inv_std has shape \(5, 1\)"),
    ("add_arrays", {"b": ones(4, 5)}, ValueError, r"b has shape \(4, 5\), expected \(5, 4\)"),
    ("add_arrays", {"b": doubles(5, 4)}, TypeError, "b has dtype float64 but a has float32"),
    ("add_arrays", {"out": CALLS["add_arrays"]["a"]}, ValueError, "out overlaps a"),
    ("add_arrays", {"activation": 1}, ValueError, "activation is 1, expected None or 'relu'"),
]


@pytest.mark.parametrize("name, changes, error, message", WRONG, ids=lambda v: str(v)[:40])
def test_wrong_calls(kernels, name, changes, error, message):
    call, before = getattr(kernels, name), {k: np.array(v) for k, v in CALLS[name].items()}
    with pytest.raises(error, match=message):
        call(**{**CALLS[name], **changes})
    for key, value in before.items():
        assert_array_equal(CALLS[name][key], value)
    call(**{k: v if v.ndim else int(v) for k, v in before.items()})  # copies of the arrays
