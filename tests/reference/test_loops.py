"""The specification itself: two ways of computing, numerical gradients, SciPy, known faults."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import signal

import nnet
from nnet import reference
from nnet.geometry import conv_geometry, pool_geometry

BORDERS = ["zeros", "nearest", "reflect", "wrap", "symmetric"]

# name: n, c, h, w, k, filter h, filter w, options
CASES = {
    "3x3": (2, 2, 4, 5, 2, 3, 3, {}),
    "valid": (1, 2, 4, 5, 3, 3, 2, {"padding_mode": "valid"}),
    "full": (1, 1, 3, 4, 2, 2, 3, {"padding_mode": "full"}),
    "even, not square": (1, 2, 4, 5, 2, 2, 4, {}),
    "tall filter": (2, 1, 7, 3, 2, 5, 1, {}),
    "strides": (1, 2, 6, 7, 2, 3, 3, {"strides": (2, 3)}),
    "dilation": (1, 1, 6, 7, 2, 2, 3, {"dilation": (3, 2)}),
    "stride 2 dilation 3": (1, 2, 7, 8, 1, 2, 3, {"strides": (2, 2), "dilation": (3, 3)}),
    "groups": (2, 4, 4, 3, 6, 3, 3, {"groups": 2}),
    "depthwise": (1, 3, 4, 5, 3, 3, 3, {"groups": 3}),
    "four pads": (1, 1, 4, 3, 2, 3, 2, {"padding_mode": ((3, 0), (1, 2))}),
    "nearest": (1, 1, 4, 3, 2, 3, 5, {"border_mode": "nearest"}),
    "reflect": (1, 2, 4, 5, 1, 5, 3, {"border_mode": "reflect"}),
    "wrap": (1, 1, 4, 3, 2, 4, 5, {"border_mode": "wrap"}),
    "symmetric": (1, 2, 4, 3, 1, 4, 5, {"border_mode": "symmetric", "padding_mode": (4, 3)}),
    "wrap strided": (1, 2, 5, 6, 2, 3, 3, {"border_mode": "wrap", "strides": (2, 2)}),
}


def make_arrays(case, draw):
    """Images, filters and output gradient of a case; `draw(shape)` makes the values."""
    n, c, h, w, k, fil_h, fil_w, options = case
    spatial = {name: value for name, value in options.items() if name != "groups"}
    out = conv_geometry(h, w, fil_h, fil_w, **spatial)
    filters_shape = (c // options.get("groups", 1), k, fil_h, fil_w)
    return draw((n, c, h, w)), draw(filters_shape), draw((n, k, out.out_h, out.out_w))


def integers(rng, dtype=np.float64):
    return lambda shape: rng.integers(-4, 5, shape).astype(dtype)


def slopes(loss, array, eps=1e-6):
    """The gradient of loss() with respect to an array, by central differences."""
    grad = np.empty_like(array)
    for i in np.ndindex(array.shape):
        value = array[i]
        array[i] = value + eps
        above = loss()
        array[i] = value - eps
        grad[i] = (above - loss()) / (2 * eps)
        array[i] = value
    return grad


def assert_slopes(grad, loss, array):
    assert_allclose(grad, slopes(loss, array), atol=1e-5, rtol=1e-3)


# --- convolution --------------------------------------------------------------


@pytest.mark.parametrize(
    ("border_mode", "expected"),
    [
        ("zeros", [None, None, None, 0, 1, 2, 3, None, None, None]),
        ("nearest", [0, 0, 0, 0, 1, 2, 3, 3, 3, 3]),
        ("reflect", [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]),
        ("wrap", [1, 2, 3, 0, 1, 2, 3, 0, 1, 2]),
        ("symmetric", [2, 1, 0, 0, 1, 2, 3, 3, 2, 1]),
    ],
)
def test_border_index(border_mode, expected):
    assert [reference.border_index(i, 4, border_mode) for i in range(-3, 7)] == expected


@st.composite
def any_case(draw):
    """A random small convolution; what cannot be is brought back by zeros, then 'same' padding."""
    pair, pad = st.tuples(*[st.integers(1, 3)] * 2), st.integers(0, 4)
    groups = draw(st.integers(1, 3))
    channels, feats = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    fil_h, fil_w = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    words = st.sampled_from(["same", "valid", "full"])
    options = {
        "strides": draw(pair),
        "dilation": draw(pair),
        "padding_mode": draw(
            st.one_of(words, pad, st.tuples(pad, pad), st.tuples(*[st.tuples(pad, pad)] * 2))
        ),
        "border_mode": draw(st.sampled_from(BORDERS)),
    }
    for repair in ({}, {"border_mode": "zeros"}, {"padding_mode": "same"}):
        options.update(repair)
        try:
            conv_geometry(height, width, fil_h, fil_w, **options)
        except ValueError:
            continue
        n_imgs = draw(st.integers(0, 3))
        options["groups"] = groups
        return (n_imgs, channels, height, width, feats, fil_h, fil_w, options)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(case=any_case(), seed=st.integers(0, 9))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_loops_equal_matrix_products(dtype, case, seed):
    draw = integers(np.random.default_rng(seed), dtype)
    imgs, filters, convout_grad = make_arrays(case, draw)
    bias, options = draw(case[4]), case[-1]
    bias_grads = np.full((2, case[4]), np.nan, dtype)
    results = [
        (
            conv(imgs, filters, **options),
            conv(imgs, filters, bias=bias, activation="relu", **options),
            *bprop(imgs, convout_grad, filters, bias_grad=bias_grad, **options),
            bias_grad,
        )
        for conv, bprop, bias_grad in (
            (reference.conv_bc01, reference.bprop_conv_bc01, bias_grads[0]),
            (reference.conv_bc01_im2col, reference.bprop_conv_bc01_im2col, bias_grads[1]),
        )
    ]
    for loops, matrices in zip(*results):
        assert loops.dtype == dtype
        assert_array_equal(loops, matrices, strict=True)


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_slopes(rng, name):
    case = CASES[name]
    imgs, filters, convout_grad = make_arrays(case, rng.standard_normal)
    bias, bias_grad = rng.standard_normal(case[4]), np.empty(case[4])
    imgs_grad, filters_grad = reference.bprop_conv_bc01(
        imgs, convout_grad, filters, bias_grad=bias_grad, **case[-1]
    )

    def loss():  # of the batch: the mean over the images
        convout = reference.conv_bc01(imgs, filters, bias=bias, **case[-1])
        return np.vdot(convout, convout_grad) / len(imgs)

    assert_slopes(imgs_grad / len(imgs), loss, imgs)
    assert_slopes(filters_grad, loss, filters)
    assert_slopes(bias_grad, loss, bias)


@pytest.mark.parametrize("functions", ["", "_im2col"])
def test_outputs_are_filled_and_returned(rng, functions):
    conv = getattr(reference, "conv_bc01" + functions)
    bprop = getattr(reference, "bprop_conv_bc01" + functions)
    arrays = make_arrays(CASES["groups"], integers(rng, np.float32))
    imgs, filters, convout_grad = arrays
    expected = (conv(imgs, filters, groups=2), *bprop(imgs, convout_grad, filters, groups=2))
    convout, imgs_grad, filters_grad = (
        np.full_like(array, np.nan) for array in (convout_grad, imgs, filters)
    )
    assert conv(imgs, filters, convout, groups=2) is convout
    returned = bprop(imgs, convout_grad, filters, imgs_grad, filters_grad, groups=2)
    assert returned[0] is imgs_grad and returned[1] is filters_grad
    for actual, values in zip((convout, imgs_grad, filters_grad), expected):
        assert_array_equal(actual, values)
    alone = bprop(imgs, convout_grad, filters, groups=2, need_imgs_grad=False)
    assert alone[0] is None
    assert_array_equal(alone[1], filters_grad)
    for unread in (imgs, None):
        into = np.full_like(imgs, np.nan)
        alone = bprop(unread, convout_grad, filters, into, groups=2, need_filters_grad=False)
        assert alone[0] is into and alone[1] is None
        assert_array_equal(into, imgs_grad)


@pytest.mark.parametrize("functions", ["", "_im2col"])
def test_convolution_refuses_what_does_not_fit(functions):
    conv = getattr(reference, "conv_bc01" + functions)
    bprop = getattr(reference, "bprop_conv_bc01" + functions)
    imgs, filters, convout = (np.zeros(s) for s in ((2, 4, 5, 6), (4, 3, 3, 3), (2, 3, 5, 6)))
    for call, message in (
        (lambda: conv(imgs[0], filters), r"imgs has shape \(4, 5, 6\), expected 4 axes"),
        (lambda: conv(imgs, filters[0]), r"filters has shape \(3, 3, 3\), expected 4 axes"),
        (
            lambda: conv(imgs, filters[:3]),
            r"filters has shape \(3, 3, 3, 3\), expected \(4, 3, 3, 3\)",
        ),
        (
            lambda: conv(imgs, filters, groups=2),
            "groups is 2, expected a divisor of 4 channels and 3",
        ),
        (lambda: conv(imgs, filters, groups=0), "groups is 0"),
        (
            lambda: conv(imgs, filters, np.zeros((2, 3, 5, 5))),
            r"convout .* expected \(2, 3, 5, 6\)",
        ),
        (lambda: conv(imgs, filters, bias=np.zeros(4)), r"bias has shape \(4,\), expected \(3,\)"),
        (lambda: conv(imgs, filters, activation="tanh"), "activation is 'tanh'"),
        (lambda: conv(imgs, filters, padding_mode="best"), "padding_mode is 'best'"),
        (lambda: bprop(imgs, imgs, filters), r"convout_grad .* expected \(2, 3, 5, 6\)"),
        (lambda: bprop(imgs, convout, filters, imgs, need_imgs_grad=False), "imgs_grad is given"),
        (
            lambda: bprop(imgs, convout, filters, None, filters, need_filters_grad=False),
            "filters_grad is given",
        ),
        (
            lambda: bprop(imgs, convout, filters, need_filters_grad=False, bias_grad=np.zeros(3)),
            "bias_grad is given",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_nan_and_infinity_pass_through():
    imgs = np.array([np.nan, np.inf, -np.inf, -1, 1], np.float32).reshape(1, 1, 1, 5)
    filters = np.ones((1, 1, 1, 1), np.float32)
    convout = reference.conv_bc01(imgs, filters, activation="relu")
    assert_array_equal(convout.ravel(), [np.nan, np.inf, 0, 0, 1])
    _, filters_grad = reference.bprop_conv_bc01(imgs, imgs, filters)
    assert np.isnan(filters_grad).all()
    big = np.full((1, 1, 1, 1), 1e30, np.float32)
    assert np.isposinf(reference.conv_bc01(big, big)).all()


# What the 2015 kernels of the same names got wrong.


@pytest.mark.parametrize("fil_shape", [(1, 5), (5, 1), (2, 3), (3, 2), (4, 1)])
@pytest.mark.parametrize("img_shape", [(4, 6), (7, 3)])
def test_heights_and_widths_are_not_swapped(rng, img_shape, fil_shape):
    img, filter_, grad = (rng.standard_normal(s) for s in (img_shape, fil_shape, img_shape))
    pads = [((size - 1) // 2, size // 2) for size in fil_shape]
    padded = np.pad(img, pads)
    convout = reference.conv_bc01(img[None, None], filter_[None, None])
    assert_allclose(convout[0, 0], signal.correlate2d(padded, filter_, "valid"))
    imgs_grad, filters_grad = reference.bprop_conv_bc01(
        img[None, None], grad[None, None], filter_[None, None]
    )
    assert_allclose(filters_grad[0, 0], signal.correlate2d(padded, grad, "valid"))
    full = signal.convolve2d(grad, filter_)
    (top, bottom), (left, right) = pads
    inner = full[top : full.shape[0] - bottom, left : full.shape[1] - right]
    assert_allclose(imgs_grad[0, 0], inner)


@pytest.mark.parametrize("strides", [(2, 1), (1, 3), (3, 2)])
def test_strides_are_honoured(rng, strides):
    """A strided convolution computes every second or third pixel of the dense one."""
    img, filter_ = rng.standard_normal((7, 8)), rng.standard_normal((3, 3))
    options = {"strides": strides, "padding_mode": 1}
    convout = reference.conv_bc01(img[None, None], filter_[None, None], **options)
    dense = signal.correlate2d(img, filter_, "same")
    assert_allclose(convout[0, 0], dense[:: strides[0], :: strides[1]])
    sparse = np.zeros((7, 8))
    grad = rng.standard_normal(convout.shape)
    sparse[:: strides[0], :: strides[1]] = grad[0, 0]
    imgs_grad, filters_grad = reference.bprop_conv_bc01(
        img[None, None], grad, filter_[None, None], **options
    )
    assert_allclose(imgs_grad[0, 0], signal.convolve2d(sparse, filter_, "same"), atol=1e-12)
    expected = signal.correlate2d(np.pad(img, 1), sparse, "valid")
    assert_allclose(filters_grad[0, 0], expected, atol=1e-12)


# --- convolution as one dense matrix ------------------------------------------


def test_conv_matrix_of_a_3x3_filter_on_a_4x4_image(rng):
    filter_, img = np.arange(1, 10).reshape(3, 3), rng.integers(-9, 9, (4, 4))
    matrix = reference.conv_matrix(filter_, (4, 4))
    assert matrix.shape == (4, 16) and matrix.dtype == filter_.dtype
    assert_array_equal(matrix[0], [1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0, 0])
    expected = signal.correlate2d(img, filter_, "valid")
    assert_array_equal((matrix @ img.ravel()).reshape(2, 2), expected)


@pytest.mark.parametrize("border_mode", BORDERS)
@pytest.mark.parametrize("padding_mode", ["same", "valid", ((2, 1), (0, 1))])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize("dilation", [(1, 1), (1, 2)])
def test_conv_matrix_is_the_convolution(rng, strides, padding_mode, border_mode, dilation):
    options = {
        "strides": strides,
        "padding_mode": padding_mode,
        "border_mode": border_mode,
        "dilation": dilation,
    }
    draw = integers(rng)
    imgs, filters = draw((1, 1, 5, 6)), draw((1, 1, 3, 2))
    matrix = reference.conv_matrix(filters[0, 0], (5, 6), **options)
    convout = reference.conv_bc01(imgs, filters, **options)
    assert_array_equal(matrix @ imgs.ravel(), convout.ravel())
    convout_grad = draw(convout.shape)
    imgs_grad, _ = reference.bprop_conv_bc01(imgs, convout_grad, filters, **options)
    assert_array_equal(matrix.T @ convout_grad.ravel(), imgs_grad.ravel())


def test_conv_matrix_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"filter has shape \(3,\), expected 2 axes"):
        reference.conv_matrix([1, 2, 3], (4, 4))
    with pytest.raises(ValueError, match="larger than the padded image"):
        reference.conv_matrix(np.ones((3, 3)), (2, 4))


# --- pooling ------------------------------------------------------------------

POOLS = {  # image h, w, pool h, w, stride y, x, padding
    "2x2": (6, 8, 2, 2, 2, 2, "centered"),
    "2x2 odd": (5, 7, 2, 2, 2, 2, "centered"),
    "3x3 stride 1": (5, 6, 3, 3, 1, 1, "centered"),
    "3x3 stride 2": (6, 7, 3, 3, 2, 2, "centered"),
    "not square": (6, 9, 4, 3, 2, 3, "centered"),
    "gaps": (9, 8, 1, 2, 3, 4, "centered"),
    "larger than the image": (2, 3, 7, 8, 1, 2, "centered"),
    "valid": (7, 8, 3, 2, 2, 1, "valid"),
    "same": (7, 8, 3, 4, 2, 3, "same"),
    "full": (4, 3, 2, 3, 1, 2, "full"),
    "padded": (6, 7, 3, 4, 2, 2, (1, 2)),
    "four pads": (6, 7, 3, 4, 2, 2, ((2, 0), (1, 3))),
}


def windows(pool):
    """Slices of the real pixels of each window: y, x, rows, columns."""
    h, w, pool_h, pool_w, stride_y, stride_x, padding_mode = pool
    g = pool_geometry(h, w, pool_h, pool_w, stride_y, stride_x, padding_mode)
    for y in range(g.out_h):
        for x in range(g.out_w):
            top, left = y * stride_y - g.top, x * stride_x - g.left
            rows = slice(max(top, 0), min(top + pool_h, h))
            yield y, x, rows, slice(max(left, 0), min(left + pool_w, w))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", POOLS)
def test_max_pooling(rng, name, dtype):
    pool = POOLS[name]
    imgs = rng.integers(0, 4, (2, 3, *pool[:2])).astype(dtype)  # many ties
    poolout, switches = reference.pool_bc01(imgs, None, None, *pool[2:6], padding_mode=pool[6])
    assert poolout.dtype == dtype and switches.dtype == np.intp
    assert switches.shape == poolout.shape + (2,)
    poolout_grad = rng.integers(-9, 9, poolout.shape).astype(dtype)
    imgs_grad, expected_grad = np.full_like(imgs, np.nan), np.zeros_like(imgs)
    for n, c in np.ndindex(2, 3):
        for y, x, rows, cols in windows(pool):
            window = imgs[n, c, rows, cols]
            row, col = np.unravel_index(window.argmax(), window.shape)  # the first of equals
            row, col = row + rows.start, col + cols.start
            assert poolout[n, c, y, x] == window.max()
            assert tuple(switches[n, c, y, x]) == (row, col)
            expected_grad[n, c, row, col] += poolout_grad[n, c, y, x]
    assert reference.bprop_pool_bc01(poolout_grad, switches, imgs_grad) is imgs_grad
    assert_array_equal(imgs_grad, expected_grad)


@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("name", POOLS)
def test_average_pooling(rng, name, count_include_pad):
    pool = POOLS[name]
    options = {"mode": "avg", "padding_mode": pool[6], "count_include_pad": count_include_pad}
    imgs = rng.standard_normal((2, 2, *pool[:2]))
    poolout, switches = reference.pool_bc01(imgs, None, None, *pool[2:6], **options)
    assert switches is None
    poolout_grad = rng.standard_normal(poolout.shape)
    expected, expected_grad = np.empty_like(poolout), np.zeros_like(imgs)
    for y, x, rows, cols in windows(pool):
        real = imgs[:, :, rows, cols]
        count = pool[2] * pool[3] if count_include_pad else real[0, 0].size
        expected[:, :, y, x] = real.sum((2, 3)) / count
        expected_grad[:, :, rows, cols] += poolout_grad[:, :, y, x, None, None] / count
    assert_allclose(poolout, expected, atol=1e-14)
    imgs_grad = np.full_like(imgs, np.nan)
    assert (
        reference.bprop_pool_bc01(poolout_grad, None, imgs_grad, *pool[2:6], **options) is imgs_grad
    )
    assert_allclose(imgs_grad, expected_grad, atol=1e-14)


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("name", ["3x3 stride 1", "same", "four pads", "gaps"])
def test_pooling_gradients_equal_slopes(rng, name, mode):
    pool = POOLS[name]
    size = pool[0] * pool[1]
    imgs = rng.permutation(size).reshape(1, 1, *pool[:2]) / 8.0  # no ties: max has slopes
    options = {"mode": mode, "padding_mode": pool[6]}
    poolout, switches = reference.pool_bc01(imgs, None, None, *pool[2:6], **options)
    grad = rng.standard_normal(poolout.shape)
    imgs_grad = reference.bprop_pool_bc01(
        grad, switches, np.empty_like(imgs), *pool[2:6], **options
    )

    def loss():
        return np.vdot(reference.pool_bc01(imgs, None, None, *pool[2:6], **options)[0], grad)

    assert_slopes(imgs_grad, loss, imgs)


def test_gradients_of_overlapping_windows_add_up():
    """The 2015 kernels assigned them, so that only the last window's gradient was left."""
    imgs = np.zeros((1, 1, 3, 3))
    imgs[0, 0, 1, 1] = 1
    _, switches = reference.pool_bc01(imgs, None, None, 3, 3, 1, 1)
    grad = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    imgs_grad = reference.bprop_pool_bc01(grad, switches, np.empty_like(imgs))
    assert_array_equal(imgs_grad, 45 * imgs)  # the middle pixel won in all nine windows
    ones = np.ones_like(grad)
    imgs_grad = reference.bprop_pool_bc01(
        ones, None, np.empty_like(imgs), 3, 3, 1, 1, mode="avg", count_include_pad=True
    )
    assert_allclose(9 * imgs_grad[0, 0], [[4, 6, 4], [6, 9, 6], [4, 6, 4]])


def test_nan_wins_and_of_several_the_last():
    nan = np.nan
    img = np.array([[nan, 5, 1, nan], [nan, 1, 9, 2], [-np.inf, -np.inf, 0, 0]])
    poolout, switches = reference.pool_bc01(
        img[None, None], None, None, 2, 2, 1, 2, padding_mode="valid"
    )
    assert_array_equal(poolout[0, 0], [[nan, nan], [nan, 9]])
    assert_array_equal(switches[0, 0], [[[1, 0], [0, 3]], [[1, 0], [1, 2]]])
    poolout, switches = reference.pool_bc01(img[None, None, 2:, :2], None, None, 1, 2, 1, 2)
    assert poolout == -np.inf and switches.ravel().tolist() == [0, 0]


def test_pooling_outputs_are_filled_and_returned(rng):
    imgs = rng.standard_normal((1, 2, 4, 6))
    poolout, switches = np.full((1, 2, 2, 3), np.nan), np.full((1, 2, 2, 3, 2), -1, np.intp)
    returned = reference.pool_bc01(imgs, poolout, switches, 2, 2, 2, 2)
    assert returned[0] is poolout and returned[1] is switches
    new = reference.pool_bc01(imgs, None, None, 2, 2, 2, 2)
    assert_array_equal(poolout, new[0])
    assert_array_equal(switches, new[1])
    empty, none = reference.pool_bc01(imgs[:0], None, None, 2, 2, 2, 2)
    assert empty.shape == (0, 2, 2, 3) and none.shape == (0, 2, 2, 3, 2)
    assert reference.bprop_pool_bc01(empty, none, imgs[:0]).shape == (0, 2, 4, 6)


def test_pooling_refuses_what_does_not_fit():
    pool, bprop, imgs = reference.pool_bc01, reference.bprop_pool_bc01, np.zeros((1, 1, 4, 4))
    for call, error, message in (
        (lambda: pool(imgs, None, None, 2, 2, 2, 2, mode="min"), ValueError, "mode is 'min'"),
        (lambda: pool(imgs[0], None, None, 2, 2, 2, 2), ValueError, "expected 4 axes"),
        (lambda: pool(imgs, imgs, None, 2, 2, 2, 2), ValueError, "poolout has shape"),
        (lambda: pool(imgs, None, imgs, 2, 2, 2, 2), ValueError, "switches has shape"),
        (lambda: bprop(imgs, imgs, imgs), ValueError, "switches has shape"),
        (lambda: bprop(imgs, imgs, imgs, 2, 2, 2, 2), ValueError, "poolout_grad has shape"),
        (lambda: bprop(imgs, None, imgs, 2, 2, 2, 2, mode="avg"), ValueError, "poolout_grad has"),
        (lambda: bprop(imgs, None, imgs, mode="avg"), TypeError, r"\(pool_h, pool_w\) is \(None"),
        (lambda: bprop(imgs, None, imgs, 2, 2, 2, 2, mode="min"), ValueError, "mode is 'min'"),
        (lambda: bprop(imgs, None, None, 2, 2, 2, 2, mode="avg"), TypeError, "imgs_grad is None"),
        (lambda: pool(imgs, None, imgs, 2, 2, 2, 2, mode="avg"), TypeError, "switches is given"),
        (lambda: bprop(imgs, imgs, imgs, 2, 2, 2, 2, mode="avg"), TypeError, "switches is given"),
    ):
        with pytest.raises(error, match=message):
            call()


# --- the compiled kernels' twin -----------------------------------------------


def test_names_and_arguments_are_those_of_the_compiled_kernels():
    for name in ("conv_bc01", "bprop_conv_bc01", "pool_bc01", "bprop_pool_bc01"):
        compiled = inspect.signature(getattr(nnet, name)).parameters
        plain = inspect.signature(getattr(reference, name)).parameters
        # The compiled ones have ways to compute the same: loops have one.
        same = [p for p in compiled if p not in ("algorithm", "n_threads")]
        assert same == list(plain), name
        for parameter in plain.values():
            twin = compiled[parameter.name]
            assert (twin.kind, twin.default) == (parameter.kind, parameter.default), parameter
