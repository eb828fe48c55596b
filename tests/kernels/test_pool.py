"""The pooling kernels against their specification, for every built target and dtype.

Maxima and switches must agree with the plain loops of `nnet.reference` exactly, and so
must averages of whole numbers; other averages are sums in another order.
"""

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import misaligned, read_only
from numpy.testing import assert_allclose, assert_array_equal

import nnet
from nnet import reference
from nnet.geometry import pool_geometry

# image shape, (pool_h, pool_w, stride_y, stride_x), padding_mode
CASES = {
    "2x2": ((2, 3, 6, 8), (2, 2, 2, 2), "centered"),
    "2x2 of 33 columns": ((1, 2, 6, 33), (2, 2, 2, 2), "centered"),
    "2x2 of 34 columns": ((2, 1, 5, 34), (2, 2, 2, 2), "valid"),
    "2x2 of 96 columns": ((1, 2, 4, 96), (2, 2, 2, 2), "valid"),
    "2x2 clipped": ((2, 2, 5, 7), (2, 2, 2, 2), "same"),
    "2x2 stride 1": ((2, 2, 5, 7), (2, 2, 1, 1), "centered"),
    "3x3 stride 1": ((2, 2, 5, 6), (3, 3, 1, 1), "centered"),
    "3x3 stride 1 valid": ((2, 2, 5, 36), (3, 3, 1, 1), "valid"),
    "3x3 stride 1 full": ((2, 2, 5, 6), (3, 3, 1, 1), "full"),
    "3x3 stride 1 of 65 columns": ((1, 1, 3, 65), (3, 3, 1, 1), "centered"),
    "3x3 stride 1 of few columns": ((3, 2, 4, 3), (3, 3, 1, 1), "same"),
    "3x3 stride 2": ((2, 2, 9, 8), (3, 3, 2, 2), "centered"),
    "3x3 stride 2 same": ((2, 2, 8, 9), (3, 3, 2, 2), "same"),
    "3x3 stride 2 of 70 columns": ((1, 2, 7, 70), (3, 3, 2, 2), 1),
    "3x3 stride 2 of 71 columns": ((2, 1, 5, 71), (3, 3, 2, 2), "valid"),
    "3x3 stride 2 full": ((2, 2, 6, 37), (3, 3, 2, 2), "full"),
    "3x3 stride 2 of few columns": ((3, 2, 7, 7), (3, 3, 2, 2), "same"),
    "3x3 stride 2 of many rows": ((2, 1, 120, 33), (3, 3, 2, 2), "centered"),
    "3x3 stride 2x1": ((2, 2, 9, 20), (3, 3, 2, 1), "same"),
    "3x3 stride 3": ((1, 2, 9, 70), (3, 3, 3, 3), "valid"),
    "3x3 stride 3 clipped": ((1, 2, 8, 16), (3, 3, 3, 3), "full"),
    "4x5 stride 3x2": ((2, 1, 11, 12), (4, 5, 3, 2), "centered"),
    "5x5 stride 1": ((2, 2, 9, 21), (5, 5, 1, 1), "same"),
    "5x5 stride 2": ((2, 2, 11, 34), (5, 5, 2, 2), "centered"),
    "5x5 stride 4": ((1, 2, 12, 23), (5, 5, 4, 4), "same"),
    "7x1": ((1, 2, 9, 5), (7, 1, 1, 1), "centered"),
    "1x7 stride 1x2": ((1, 2, 3, 21), (1, 7, 1, 2), "same"),
    "1x1": ((2, 2, 3, 5), (1, 1, 1, 1), "centered"),
    "stride beyond window": ((2, 2, 11, 13), (2, 2, 5, 4), "centered"),
    "1x1 stride 2": ((2, 2, 6, 40), (1, 1, 2, 2), "valid"),
    "pads": ((2, 2, 5, 6), (3, 4, 2, 1), ((2, 0), (1, 3))),
    "global": ((3, 2, 7, 5), (7, 5, 7, 5), "valid"),
    "global of 40 columns": ((3, 2, 4, 40), (4, 40, 1, 1), "valid"),
    "global clipped": ((2, 2, 4, 5), (9, 11, 4, 5), "centered"),
    "window beyond image": ((2, 2, 4, 5), (7, 9, 1, 1), "centered"),
    "window beyond image full": ((1, 2, 3, 2), (5, 4, 2, 1), "full"),
    "stride beyond image full": ((1, 2, 3, 4), (50, 60, 45, 40), "full"),
    "two columns": ((2, 2, 6, 4), (3, 3, 2, 2), "centered"),
    "one pixel": ((2, 3, 1, 1), (1, 1, 1, 1), "centered"),
    "one pixel 3x3": ((2, 3, 1, 1), (3, 3, 1, 1), "centered"),
    "one row": ((2, 2, 1, 50), (1, 3, 1, 2), "centered"),
    "one column": ((2, 2, 50, 1), (3, 1, 2, 1), "centered"),
    "many rows": ((1, 1, 90, 33), (3, 3, 1, 1), "centered"),
    "many rows stride 2": ((1, 1, 110, 40), (3, 2, 2, 2), "full"),
}
KINDS = ("whole", "real", "ties", "nan", "minus infinity")
LOOPS = reference.pool_bc01, reference.bprop_pool_bc01


def compiled(kernels):
    return kernels.pool_bc01, kernels.bprop_pool_bc01


def draw(shape, kind, rng):
    """Values that try a tie-break, NaN, infinities or plain sums."""
    if kind == "real":
        return rng.standard_normal(shape)
    values = rng.integers(-9, 10, shape).astype(np.float64)
    if kind == "ties":
        values = values % 2
    if kind == "nan":
        values[rng.random(shape) < 0.25] = np.nan
    if kind in ("nan", "minus infinity"):
        values[rng.random(shape) < 0.3] = -np.inf
    if kind == "minus infinity":
        values[rng.random(shape) < 0.7] = -np.inf
    return values


def run(functions, imgs, poolout_grad, sizes, places=False, **options):
    """poolout, switches (as places in windows, if asked for) and imgs_grad of an implementation."""
    pool, bprop = functions
    switches = np.full(poolout_grad.shape, 255, np.uint8) if places else None
    poolout, switches = pool(imgs, None, switches, *sizes, **options)
    imgs_grad = np.full(imgs.shape, np.nan, imgs.dtype)
    assert bprop(poolout_grad, switches, imgs_grad, *sizes, **options) is imgs_grad
    return poolout, switches, imgs_grad


@cache  # the loops are slow: once for all targets
def expected(name, kind, mode, include_pad, dtype):
    """Images, output gradient, and what the specification makes of them."""
    shape, sizes, padding_mode = CASES[name]
    rng = np.random.default_rng(len(name))
    where = pool_geometry(*shape[2:], *sizes, padding_mode)
    imgs = draw(shape, kind, rng).astype(dtype)
    grad = rng.integers(-3, 4, (*shape[:2], where.out_h, where.out_w)).astype(dtype)
    options = {
        "mode": mode,
        "padding_mode": padding_mode,
        "count_include_pad": include_pad and mode == "avg",
    }
    return imgs, grad, sizes, options, run(LOOPS, imgs, grad, sizes, **options)


# --- against the specification --------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_maxima(kernels, dtype, name, kind):
    imgs, grad, sizes, options, found = expected(name, kind, "max", False, dtype)
    poolout, switches, imgs_grad = run(compiled(kernels), imgs, grad, sizes, **options)
    assert poolout.dtype == dtype and switches.dtype == np.intp
    assert_array_equal(switches, found[1])
    assert_array_equal(poolout, found[0])
    assert_array_equal(imgs_grad, found[2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in CASES if np.prod(CASES[name][1][:2]) <= 256])
def test_maxima_by_their_places_in_windows(kernels, dtype, name, kind):
    imgs, grad, sizes, options, found = expected(name, kind, "max", False, dtype)
    poolout, places, imgs_grad = run(compiled(kernels), imgs, grad, sizes, places=True, **options)
    assert places.dtype == np.uint8
    assert_array_equal(places, places_of(found[1], imgs.shape, sizes, options["padding_mode"]))
    assert_array_equal(poolout, found[0])
    assert_array_equal(imgs_grad, found[2])


def places_of(switches, img_shape, sizes, padding_mode):
    """Rows and columns in the image as places in the window."""
    where = pool_geometry(*img_shape[2:], *sizes, padding_mode)
    tops = np.arange(where.out_h) * where.stride_y - where.top
    lefts = np.arange(where.out_w) * where.stride_x - where.left
    return (switches[..., 0] - tops[:, None]) * sizes[1] + switches[..., 1] - lefts


@pytest.mark.parametrize("include_pad", [False, True])
@pytest.mark.parametrize("kind", ["whole", "real"])
@pytest.mark.parametrize("name", CASES)
def test_averages(kernels, dtype, name, kind, include_pad):
    imgs, grad, sizes, options, found = expected(name, kind, "avg", include_pad, dtype)
    poolout, switches, imgs_grad = run(compiled(kernels), imgs, grad, sizes, **options)
    assert switches is None and poolout.dtype == dtype
    if kind == "whole":
        assert_array_equal(poolout, found[0])
    tolerance = 8 * np.finfo(dtype).eps
    assert_allclose(poolout, found[0], rtol=tolerance, atol=4 * tolerance)
    assert_allclose(imgs_grad, found[2], rtol=tolerance, atol=8 * tolerance)


def test_infinities_and_nan_in_averages_stay_in_their_windows(kernels, dtype):
    imgs = np.zeros((1, 1, 6, 40), dtype)
    imgs[0, 0, 2, 3], imgs[0, 0, 5, 30], imgs[0, 0, 0, 20] = np.inf, np.nan, -np.inf
    poolout, _ = kernels.pool_bc01(imgs, None, None, 3, 3, 1, 1, mode="avg")
    rows, columns = np.nonzero(poolout[0, 0])
    assert set(zip(rows.tolist(), columns.tolist())) == {
        *((y, x) for y in (1, 2, 3) for x in (2, 3, 4)),
        *((y, x) for y in (4, 5) for x in (29, 30, 31)),
        *((y, x) for y in (0, 1) for x in (19, 20, 21)),
    }


sizes = st.integers(1, 6)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 9), st.integers(1, 45)),
    windows=st.tuples(sizes, sizes, sizes, sizes)
    | st.sampled_from([(2, 2, 2, 2), (3, 3, 1, 1), (3, 3, 2, 2)]),
    padding_mode=st.sampled_from(["centered", "valid", "same", "full"])
    | st.tuples(st.tuples(*[st.integers(0, 3)] * 2), st.tuples(*[st.integers(0, 3)] * 2)),
    mode=st.sampled_from(["max", "avg"]),
    kind=st.sampled_from(KINDS),
    include_pad=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_geometry(kernels, shape, windows, padding_mode, mode, kind, include_pad, seed):
    try:
        where = pool_geometry(*shape[2:], *windows, padding_mode)
    except ValueError:
        with pytest.raises(ValueError, match="pool|padding"):
            kernels.pool_bc01(np.ones(shape), None, None, *windows, padding_mode=padding_mode)
        return
    rng = np.random.default_rng(seed)
    imgs = draw(shape, kind if mode == "max" else "whole", rng).astype(
        [np.float32, float][seed % 2]
    )
    grad = rng.integers(-3, 4, (*shape[:2], where.out_h, where.out_w)).astype(imgs.dtype)
    options = {
        "mode": mode,
        "padding_mode": padding_mode,
        "count_include_pad": include_pad and mode == "avg",
    }
    loops = run(LOOPS, imgs, grad, windows, **options)
    options["n_threads"] = 1 + seed % 3
    found = run(compiled(kernels), imgs, grad, windows, **options)
    assert_array_equal(found[0], loops[0])
    assert_allclose(found[2], loops[2], rtol=1e-6, atol=1e-5)
    if mode == "max":
        assert_array_equal(found[1], loops[1])
        poolout, places, imgs_grad = run(
            compiled(kernels), imgs, grad, windows, places=True, **options
        )
        assert_array_equal(poolout, found[0])
        assert_array_equal(places, places_of(found[1], shape, windows, padding_mode))
        assert_allclose(imgs_grad, found[2], rtol=1e-6, atol=1e-5)


# --- what the conventions promise -------------------------------------------------


def test_known_numbers(kernels, dtype):
    imgs = np.arange(16, dtype=dtype).reshape(1, 1, 4, 4)
    poolout, switches = kernels.pool_bc01(imgs, None, None, 2, 2, 2, 2)
    assert poolout.tolist() == [[[[5, 7], [13, 15]]]]
    assert switches.tolist() == [[[[[1, 1], [1, 3]], [[3, 1], [3, 3]]]]]
    averages, _ = kernels.pool_bc01(imgs, None, None, 2, 2, 2, 2, mode="avg")
    assert averages.tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    corner, _ = kernels.pool_bc01(imgs, None, None, 3, 3, 1, 1, mode="avg")
    assert corner[0, 0, 0, 0] == np.mean([0, 1, 4, 5]).astype(dtype)
    corner, _ = kernels.pool_bc01(imgs, None, None, 3, 3, 1, 1, mode="avg", count_include_pad=True)
    assert corner[0, 0, 0, 0] == dtype.type(10) / dtype.type(9)


def test_places_of_the_specification(dtype):
    imgs, grad, sizes, options, found = expected("3x3 stride 2 full", "ties", "max", False, dtype)
    poolout, places, imgs_grad = run(LOOPS, imgs, grad, sizes, places=True, **options)
    assert_array_equal(poolout, found[0])
    assert_array_equal(places, places_of(found[1], imgs.shape, sizes, "full"))
    assert_array_equal(imgs_grad, found[2])


def test_gradients_add_up_where_windows_overlap(kernels, dtype):
    imgs = np.zeros((1, 1, 3, 40), dtype)
    imgs[0, 0, 1, 20] = 1
    _, switches = kernels.pool_bc01(imgs, None, None, 3, 3, 1, 1)
    imgs_grad = kernels.bprop_pool_bc01(np.ones_like(imgs), switches, np.empty_like(imgs))
    assert imgs_grad[0, 0, 1, 20] == 9
    assert imgs_grad.sum() == imgs.size


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("shape", [(70, 3, 16, 16), (35, 5, 9, 35)])
@pytest.mark.parametrize("windows", [(2, 2, 2, 2), (3, 3, 1, 1), (3, 3, 2, 2), (4, 3, 3, 3)])
def test_thread_counts_give_the_same_bits(kernels, dtype, rng, windows, shape, mode):
    assert math.prod(shape) > 50_000  # enough work for threads
    imgs = rng.standard_normal(shape).astype(dtype)
    where = pool_geometry(*shape[2:], *windows)
    grad = rng.standard_normal((*shape[:2], where.out_h, where.out_w)).astype(dtype)
    for places in (False, True)[: 1 + (mode == "max")]:
        found = [
            run(compiled(kernels), imgs, grad, windows, places=places, mode=mode, n_threads=n)
            for n in (1, 2, 3, None)
        ]
        for other in found[1:]:
            for one, two in zip(found[0], other):
                assert (one is None and two is None) or one.tobytes() == two.tobytes()


def test_float64_gradients_are_differences(kernels, rng):
    for windows, mode in [((2, 2, 2, 2), "max"), ((3, 3, 1, 1), "max"), ((3, 2, 2, 1), "avg")]:
        imgs = rng.permutation(np.arange(192.0)).reshape(2, 2, 6, 8)  # no ties within the step
        poolout, switches = kernels.pool_bc01(imgs, None, None, *windows, mode=mode)
        grad = rng.standard_normal(poolout.shape)
        imgs_grad = kernels.bprop_pool_bc01(
            grad, switches, np.empty_like(imgs), *windows, mode=mode
        )
        numeric = np.empty_like(imgs)
        for place in np.ndindex(imgs.shape):
            step = np.zeros_like(imgs)
            step[place] = 0.25
            up, _ = kernels.pool_bc01(imgs + step, None, None, *windows, mode=mode)
            down, _ = kernels.pool_bc01(imgs - step, None, None, *windows, mode=mode)
            numeric[place] = ((up - down) * grad).sum() / 0.5
        assert_allclose(imgs_grad, numeric, atol=1e-12)


def test_backward_maxima_need_no_geometry(kernels, dtype, rng):
    imgs = rng.standard_normal((2, 3, 9, 8)).astype(dtype)
    poolout, switches = kernels.pool_bc01(imgs, None, None, 3, 3, 2, 2)
    given = kernels.bprop_pool_bc01(poolout, switches, np.empty_like(imgs), 3, 3, 2, 2)
    assert_array_equal(kernels.bprop_pool_bc01(poolout, switches, np.empty_like(imgs)), given)


def test_windows_and_strides_of_a_million_pixels(kernels, dtype):
    """They take no more memory than the image."""
    imgs = np.arange(12, dtype=dtype).reshape(1, 1, 3, 4)
    million = (10**6,) * 4
    for mode, fold in (("max", np.max), ("avg", np.mean)):
        poolout, switches = kernels.pool_bc01(
            imgs, None, None, *million, mode=mode, padding_mode="full"
        )
        parts = [[imgs[..., rows, cols] for cols in (slice(1), slice(1, 4))]
                 for rows in (slice(1), slice(1, 3))]  # fmt: skip
        assert_allclose(poolout[0, 0], [[fold(part) for part in row] for row in parts], rtol=1e-6)
        imgs_grad = kernels.bprop_pool_bc01(
            np.ones_like(poolout), switches, np.empty_like(imgs), *million,
            mode=mode, padding_mode="full",
        )  # fmt: skip
        assert_allclose(imgs_grad.sum(), 4, rtol=1e-6)


@pytest.mark.parametrize("out_size", [(1, 1), (5, 1), (2, 7), (8, 8)])
def test_switches_may_point_anywhere_in_the_image(kernels, dtype, rng, out_size):
    grad = rng.integers(-3, 4, (3, 2, *out_size)).astype(dtype)
    switches = rng.integers(0, (3, 4), (3, 2, *out_size, 2)).astype(np.intp)
    imgs_grad = kernels.bprop_pool_bc01(grad, switches, np.empty((3, 2, 3, 4), dtype))
    wanted = np.zeros((3, 2, 3, 4), dtype)
    for place in np.ndindex(grad.shape):
        wanted[(*place[:2], *switches[place])] += grad[place]
    assert_array_equal(imgs_grad, wanted)


# --- arrays of any kind -----------------------------------------------------------

VIEWS = {
    "sliced": lambda a: np.repeat(np.repeat(a, 2, axis=-1), 3, axis=1)[:, ::3, ..., ::2],
    "negative strides": lambda a: np.ascontiguousarray(a[::-1, :, ::-1])[::-1, :, ::-1],
    "Fortran order": np.asfortranarray,
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "misaligned": misaligned,
    "subclass": lambda a: a.view(type("Mine", (np.ndarray,), {})),
}


@pytest.mark.parametrize("mode, places", [("max", False), ("max", True), ("avg", False)])
@pytest.mark.parametrize("view", VIEWS)
def test_strange_arrays(kernels, dtype, rng, view, mode, places):
    view = VIEWS[view]
    imgs = rng.integers(-9, 10, (2, 3, 6, 8)).astype(dtype)
    grad = rng.integers(-9, 10, (2, 3, 3, 4)).astype(dtype)
    windows = (2, 3, 2, 2)
    poolout, switches, imgs_grad = run(
        compiled(kernels), imgs, grad, windows, places=places, mode=mode
    )

    given_out = view(np.zeros_like(poolout))
    given_switches = None if mode == "avg" else view(np.zeros_like(switches))
    found = kernels.pool_bc01(read_only(view(imgs)), given_out, given_switches, *windows, mode=mode)
    assert found[0] is given_out and found[1] is given_switches
    assert_array_equal(given_out, poolout)
    if mode == "max":
        assert_array_equal(given_switches, switches)
        given_switches = read_only(given_switches)
    given_grad = view(np.zeros_like(imgs))
    found = kernels.bprop_pool_bc01(
        read_only(view(grad)), given_switches, given_grad, *windows, mode=mode
    )
    assert found is given_grad
    assert_array_equal(given_grad, imgs_grad)


def test_broadcast_images(kernels, dtype):
    imgs = np.broadcast_to(np.arange(8, dtype=dtype), (2, 3, 4, 8))
    poolout, _ = kernels.pool_bc01(imgs, None, None, 2, 2, 2, 2)
    assert_array_equal(poolout, np.broadcast_to(np.arange(1, 8, 2), (2, 3, 2, 4)))


@pytest.mark.parametrize("mode", ["max", "avg"])
def test_empty_batch(kernels, dtype, mode):
    imgs = np.empty((0, 3, 6, 8), dtype)
    poolout, switches = kernels.pool_bc01(imgs, None, None, 3, 3, 2, 2, mode=mode)
    assert poolout.shape == (0, 3, 3, 4) and poolout.dtype == dtype
    assert (switches is None) if mode == "avg" else switches.shape == (0, 3, 3, 4, 2)
    imgs_grad = np.empty_like(imgs)
    assert kernels.bprop_pool_bc01(poolout, switches, imgs_grad, 3, 3, 2, 2, mode=mode) is imgs_grad


def test_numbers_of_any_integer_type(kernels, dtype):
    imgs = np.ones((1, 1, 4, 4), dtype)
    windows = np.int64(2), np.uint8(2), np.int16(2), True + 1
    poolout, _ = kernels.pool_bc01(imgs, None, None, *windows, n_threads=np.int32(2))
    assert poolout.shape == (1, 1, 2, 2)


def test_nothing_around_the_outputs_is_written(kernels, dtype, rng):
    """Rows are written in whole vectors: they must not pass the end of a plane."""
    for h, w, *windows in [
        (4, 10, 2, 2, 2, 2), (5, 9, 3, 3, 1, 1), (5, 9, 3, 3, 2, 2), (4, 35, 3, 3, 2, 2),
        (3, 11, 3, 2, 1, 2), (4, 9, 4, 9, 4, 9),
    ]:  # fmt: skip
        imgs = rng.standard_normal((3, 2, h, w)).astype(dtype)
        for mode, places in (("max", False), ("max", True), ("avg", False)):
            grad = np.ones_like(nnet.pool_bc01(imgs, None, None, *windows)[0])
            out, switches, _ = outputs = run(
                compiled(kernels), imgs, grad, windows, places=places, mode=mode
            )
            guarded = [a if a is None else with_guards(a.shape, a.dtype) for a in outputs]
            inner = [a if a is None else a[1:-1] for a in guarded]
            kernels.pool_bc01(imgs, inner[0], inner[1], *windows, mode=mode)
            kernels.bprop_pool_bc01(np.ones_like(out), switches, inner[2], *windows, mode=mode)
            for whole, right in zip(guarded, outputs):
                if whole is not None:
                    assert_array_equal(whole[1:-1], right)
                    assert (whole[0] == 77).all() and (whole[-1] == 77).all()


def with_guards(shape, dtype):
    return np.full((shape[0] + 2, *shape[1:]), 77, dtype)


# --- PyTorch ------------------------------------------------------------------------


@pytest.mark.parametrize("windows", [(2, 2, 0), (3, 2, 1), (3, 1, 1), (5, 3, 2), (16, 16, 0)])
def test_pytorch_agrees(kernels, dtype, rng, windows):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    functional = torch.nn.functional
    pool, stride, pad = windows
    imgs = draw((3, 2, 16, 35), "ties", rng).astype(dtype)
    imgs[rng.random(imgs.shape) < 0.1] = np.nan
    imgs[rng.random(imgs.shape) < 0.3] = -np.inf
    best, index = functional.max_pool2d(torch.tensor(imgs), pool, stride, pad, return_indices=True)
    poolout, switches = kernels.pool_bc01(
        imgs, None, None, pool, pool, stride, stride, padding_mode=pad
    )
    assert_array_equal(poolout, best.numpy())
    assert_array_equal(switches[..., 0] * 35 + switches[..., 1], index.numpy())

    for include_pad in (False, True):
        values = torch.tensor(rng.standard_normal(imgs.shape).astype(dtype), requires_grad=True)
        wanted = functional.avg_pool2d(values, pool, stride, pad, count_include_pad=include_pad)
        grad = rng.standard_normal(wanted.shape).astype(dtype)
        wanted.backward(torch.tensor(grad))
        poolout, _, imgs_grad = run(
            compiled(kernels), values.detach().numpy(), grad, (pool, pool, stride, stride),
            mode="avg", padding_mode=pad, count_include_pad=include_pad,
        )  # fmt: skip
        tolerance = 100 * np.finfo(dtype).eps
        assert_allclose(poolout, wanted.detach().numpy(), rtol=tolerance, atol=tolerance)
        assert_allclose(imgs_grad, values.grad.numpy(), rtol=tolerance, atol=tolerance)


def test_the_public_functions_are_of_the_chosen_target():
    chosen = nnet.dispatch.load("_pool")
    assert (nnet.pool_bc01, nnet.bprop_pool_bc01) == chosen
    assert (nnet._pool.pool_bc01, nnet._pool.bprop_pool_bc01) == chosen
    assert math.prod(nnet.pool_bc01(np.ones((1, 1, 4, 4)), None, None, 2, 2, 2, 2)[0].shape) == 4
