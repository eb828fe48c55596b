"""The convolution kernels against their specification, for every built target and dtype.

Most of the data is whole numbers: every sum is then exact in any order, so the
kernels must agree with the plain loops of `nnet.reference` bit for bit.
"""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import nnet
from nnet import reference
from nnet.geometry import conv_geometry

# n, c, h, w, k, filter h, filter w, options: small enough for plain loops
CASES = {
    "3x3": (2, 3, 5, 6, 4, 3, 3, {}),
    "3x3 one image": (1, 3, 8, 8, 8, 3, 3, {}),
    "3x3 valid": (2, 3, 5, 6, 4, 3, 3, {"padding_mode": "valid"}),
    "3x3 valid, 3 columns left": (2, 2, 9, 5, 3, 3, 3, {"padding_mode": "valid"}),
    "3x3 valid, 1 column left": (2, 2, 9, 3, 3, 3, 3, {"padding_mode": "valid"}),
    "3x3 full": (2, 3, 5, 6, 4, 3, 3, {"padding_mode": "full"}),
    "5x5 grey": (2, 1, 9, 8, 10, 5, 5, {"padding_mode": "valid"}),
    "7x7": (1, 2, 9, 9, 2, 7, 7, {}),
    "1x1": (2, 5, 4, 3, 7, 1, 1, {}),
    "1x1 stride 2": (2, 3, 5, 6, 4, 1, 1, {"strides": (2, 2)}),
    "even 2x2": (2, 2, 5, 4, 3, 2, 2, {}),
    "even 4x4": (1, 2, 6, 7, 3, 4, 4, {}),
    "wide 1x5": (2, 3, 4, 9, 2, 1, 5, {}),
    "tall 5x1": (2, 3, 9, 4, 2, 5, 1, {}),
    "2x3": (2, 2, 6, 7, 3, 2, 3, {}),
    "stride 2": (2, 3, 8, 7, 4, 3, 3, {"strides": (2, 2)}),
    "stride 2x1": (2, 3, 8, 7, 4, 3, 3, {"strides": (2, 1)}),
    "stride 1x3": (2, 3, 8, 7, 4, 3, 3, {"strides": (1, 3)}),
    "stride 3 valid": (2, 2, 11, 10, 3, 3, 3, {"strides": (3, 3), "padding_mode": "valid"}),
    "stride beyond filter": (2, 2, 9, 11, 3, 2, 2, {"strides": (4, 5)}),
    "stride beyond image": (2, 2, 3, 4, 3, 3, 3, {"strides": (7, 9)}),
    "dilation 2": (2, 2, 8, 9, 3, 3, 3, {"dilation": (2, 2)}),
    "dilation 1x3": (2, 2, 8, 9, 3, 3, 3, {"dilation": (1, 3)}),
    "dilation 2 stride 3": (2, 2, 9, 10, 3, 3, 3, {"dilation": (2, 2), "strides": (3, 3)}),
    "dilation 3 stride 2": (2, 2, 9, 10, 3, 3, 2, {"dilation": (3, 3), "strides": (2, 2)}),
    "two groups": (2, 4, 5, 6, 6, 3, 3, {"groups": 2}),
    "three groups stride 2": (2, 6, 7, 6, 3, 3, 3, {"groups": 3, "strides": (2, 2)}),
    "depthwise": (2, 5, 6, 5, 5, 3, 3, {"groups": 5}),
    "depthwise stride 2": (2, 4, 7, 8, 4, 3, 3, {"groups": 4, "strides": (2, 2)}),
    "depth multiplier": (2, 3, 6, 5, 9, 3, 3, {"groups": 3}),
    "one channel per group": (2, 4, 6, 5, 2, 3, 3, {"groups": 2}),
    "explicit pad": (2, 2, 5, 6, 3, 3, 3, {"padding_mode": 2}),
    "pad y x": (2, 2, 5, 6, 3, 3, 3, {"padding_mode": (0, 3)}),
    "pad four": (2, 2, 5, 6, 3, 3, 3, {"padding_mode": ((3, 0), (1, 2))}),
    "pad beyond filter": (1, 2, 3, 4, 3, 2, 3, {"padding_mode": ((5, 4), (7, 6))}),
    "pad beyond filter stride 2": (1, 2, 3, 4, 3, 3, 3, {"padding_mode": 6, "strides": (2, 2)}),
    "filter beyond image": (2, 2, 2, 3, 3, 5, 5, {}),
    "filter beyond image full": (2, 2, 2, 3, 3, 5, 7, {"padding_mode": "full"}),
    "one pixel": (3, 4, 1, 1, 5, 1, 1, {}),
    "one pixel 3x3": (3, 4, 1, 1, 5, 3, 3, {}),
    "one row": (2, 3, 1, 9, 4, 1, 3, {}),
    "one column": (2, 3, 9, 1, 4, 3, 1, {}),
    "nearest": (2, 2, 4, 5, 3, 3, 3, {"border_mode": "nearest"}),
    "nearest far": (2, 2, 2, 3, 3, 2, 2, {"border_mode": "nearest", "padding_mode": 5}),
    "reflect": (2, 2, 5, 4, 3, 5, 5, {"border_mode": "reflect"}),
    "reflect all": (1, 2, 4, 3, 2, 3, 3, {"border_mode": "reflect", "padding_mode": (3, 2)}),
    "wrap": (2, 2, 4, 5, 3, 3, 3, {"border_mode": "wrap"}),
    "wrap all": (1, 2, 3, 4, 2, 3, 3, {"border_mode": "wrap", "padding_mode": ((3, 1), (4, 4))}),
    "reflect stride 2": (2, 2, 7, 6, 3, 5, 3, {"border_mode": "reflect", "strides": (2, 2)}),
    "wrap dilated": (2, 4, 5, 6, 4, 3, 3, {"border_mode": "wrap", "dilation": 2, "groups": 2}),
}


def make_arrays(case, draw, dtype=np.float64):
    """Images, filters, output gradient and bias for a case; `draw(shape)` makes the values."""
    n, c, h, w, k, fil_h, fil_w, options = case
    spatial = {name: value for name, value in options.items() if name != "groups"}
    out = conv_geometry(h, w, fil_h, fil_w, **spatial)
    shapes = (
        (n, c, h, w),
        (c // options.get("groups", 1), k, fil_h, fil_w),
        (n, k, out.out_h, out.out_w),
        (k,),
    )
    return [draw(shape).astype(dtype) for shape in shapes]


def whole(n_imgs, seed=0):
    """Draws small multiples of n_imgs, so that a mean over the images is whole too."""
    rng = np.random.default_rng(seed)
    return lambda shape: rng.integers(-3, 4, shape) * float(max(n_imgs, 1))


def run_all(functions, arrays, options, **keywords):
    """convout, imgs_grad, filters_grad of one implementation."""
    conv, bprop = functions
    imgs, filters, convout_grad = arrays[:3]
    convout = conv(imgs, filters, **options, **keywords)
    return (convout, *bprop(imgs, convout_grad, filters, **options, **keywords))


def compiled(kernels):
    return kernels.conv_bc01, kernels.bprop_conv_bc01


LOOPS = reference.conv_bc01, reference.bprop_conv_bc01
IM2COL = reference.conv_bc01_im2col, reference.bprop_conv_bc01_im2col


@cache  # the loops are slow: once for all targets and dtypes
def expected_by_loops(name):
    case = CASES[name]
    return run_all(LOOPS, make_arrays(case, whole(case[0])), case[-1])


def assert_exact(actual, expected, dtype):
    for array, values in zip(actual, expected, strict=True):
        assert array.dtype == dtype and array.flags.c_contiguous and array.flags.writeable
        assert_array_equal(array, values.astype(dtype), strict=True)


def check_exact(kernels, case, dtype, seed=0):
    """Bit for bit what the matrix products of the reference give, on whole numbers."""
    arrays = make_arrays(case, whole(case[0], seed))
    expected = run_all(IM2COL, arrays, case[-1])
    actual = run_all(compiled(kernels), [a.astype(dtype) for a in arrays], case[-1])
    assert_exact(actual, expected, dtype)


# --- against the reference ----------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_equals_plain_loops(kernels, dtype, name):
    case = CASES[name]
    arrays = make_arrays(case, whole(case[0]), dtype)
    assert_exact(run_all(compiled(kernels), arrays, case[-1]), expected_by_loops(name), dtype)


@pytest.mark.parametrize("width", range(1, 41))
def test_widths_around_vector_edges(kernels, dtype, width):
    check_exact(kernels, (2, 3, 4, width, 5, 3, 3, {}), dtype)
    check_exact(kernels, (1, 1, width, 7, 9, 5, 5, {}), dtype)
    check_exact(kernels, (2, 2, 3, width, 3, 2, 2, {"strides": (1, 2)}), dtype)


@pytest.mark.parametrize("count", range(1, 21))
def test_channels_and_features_around_tile_edges(kernels, dtype, count):
    check_exact(kernels, (2, 3, 6, 7, count, 3, 3, {}), dtype)
    check_exact(kernels, (2, count, 7, 6, 5, 3, 3, {}), dtype)
    check_exact(kernels, (1, count, 8, 8, count, 3, 3, {}), dtype)
    check_exact(kernels, (2, 4, 4, 5, count, 1, 1, {}), dtype)
    check_exact(kernels, (1, count, 5, 9, count, 3, 3, {"groups": count}), dtype)
    check_exact(kernels, (1, 2, 9, 9, count, 3, 3, {"strides": (2, 2)}), dtype)


@pytest.mark.parametrize("width", [1, 3, 7, 8, 9, 14, 15, 16, 17, 31, 32, 33, 50])
@pytest.mark.parametrize("fil_h", range(2, 9))
def test_depthwise_around_vector_edges(kernels, dtype, width, fil_h):
    """One load is a row; taps of a column, columns and padding on both sides of each limit."""
    size = (3, 2, 9, width, 2)
    check_exact(kernels, (*size, fil_h, fil_h, {"groups": 2}), dtype)
    check_exact(kernels, (*size, fil_h, 1, {"groups": 2, "padding_mode": "full"}), dtype)
    top = {"groups": 2, "padding_mode": ((fil_h - 1, 0), (2, 5))}
    check_exact(kernels, (*size, fil_h, 4, top), dtype)
    bottom = {"groups": 2, "padding_mode": ((0, fil_h), (5, 2)), "dilation": (1, 2)}
    check_exact(kernels, (*size, fil_h, 3, bottom), dtype)
    check_exact(kernels, (*size, fil_h, 5, {"groups": 2, "border_mode": "nearest"}), dtype)


@pytest.mark.parametrize("n_imgs", [1, 2, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("size", [*range(1, 13)])
def test_batches_of_small_images(kernels, dtype, n_imgs, size):
    """Several images side by side fill a vector; the last stack of them may be smaller."""
    check_exact(kernels, (n_imgs, 9, size, size, 17, 3, 3, {}), dtype)
    check_exact(kernels, (n_imgs, 2, size, size, 1, 5, 5, {}), dtype)
    check_exact(kernels, (n_imgs, 1, size, size, 2, 3, 3, {}), dtype)
    check_exact(kernels, (n_imgs, 2, size, size, 3, 2, 2, {"strides": (2, 2)}), dtype)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129])
@pytest.mark.parametrize("n_feats", [1, 6, 7, 8, 9, 13, 16, 17, 33])
def test_wide_tiles(kernels, dtype, width, n_feats):
    check_exact(kernels, (1, 2, 3, width, n_feats, 3, 3, {}), dtype)


@pytest.mark.parametrize("n_channels", [31, 64, 130, 300])
def test_many_channels(kernels, dtype, n_channels):
    check_exact(kernels, (1, n_channels, 6, 6, 33, 3, 3, {}), dtype)
    check_exact(kernels, (1, 5, 6, 6, n_channels, 3, 3, {"strides": (2, 1)}), dtype)
    check_exact(kernels, (3, n_channels, 3, 3, 8, 1, 1, {}), dtype)


@st.composite
def any_case(draw, max_feats=9, max_filter=6):
    """A random convolution; one that cannot be is brought back by zeros, then 'same' padding."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 5]))
    per_group = st.integers(1, (max_feats - 1) // 2 if groups > 1 else max_feats)
    pad = st.integers(0, 8)
    sizes = [draw(st.integers(0, 4)), groups * draw(per_group)]
    sizes += [draw(st.integers(1, 14)), draw(st.integers(1, 20)), groups * draw(per_group)]
    sizes += [draw(st.integers(1, max_filter)), draw(st.integers(1, max_filter))]
    words = st.sampled_from(["same", "valid", "full"])
    options = {
        "strides": draw(st.one_of(st.just((1, 1)), st.tuples(*[st.integers(1, 7)] * 2))),
        "dilation": draw(st.one_of(st.just((1, 1)), st.tuples(*[st.integers(1, 3)] * 2))),
        "padding_mode": draw(
            st.one_of(words, pad, st.tuples(pad, pad), st.tuples(*[st.tuples(pad, pad)] * 2))
        ),
        "border_mode": draw(st.sampled_from(["zeros", "nearest", "reflect", "wrap"])),
    }
    for repair in ({}, {"border_mode": "zeros"}, {"padding_mode": "same"}):
        options.update(repair)
        try:
            conv_geometry(*sizes[2:4], *sizes[5:7], **options)
        except ValueError:
            continue
        return (*sizes, {**options, "groups": groups})


@settings(max_examples=100, deadline=None, derandomize=True)
@given(case=any_case(), seed=st.integers(0, 9))
def test_any_geometry(kernels, dtype, case, seed):
    check_exact(kernels, case, dtype, seed)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(case=any_case())
def test_gradients_are_adjoint(kernels, case):
    """<conv(x, w), g> = <x, imgs_grad> = n <w, filters_grad>, exactly, on whole numbers."""
    arrays = make_arrays(case, whole(case[0]))
    convout, imgs_grad, filters_grad = run_all(compiled(kernels), arrays, case[-1])
    imgs, filters, convout_grad = arrays[:3]
    product = np.vdot(convout, convout_grad)
    assert np.vdot(imgs, imgs_grad) == product
    assert len(imgs) * np.vdot(filters, filters_grad) == product


# sizes of the size that training uses: where tiles, blocks and threads really cut
LARGE = {
    "3x3": (6, 16, 16, 16, 24, 3, 3, {}),
    "3x3 odd": (5, 13, 15, 17, 19, 3, 3, {}),
    "3x3 one image": (1, 32, 24, 24, 40, 3, 3, {}),
    "5x5 grey": (16, 1, 28, 28, 12, 5, 5, {"padding_mode": "valid"}),
    "5x5 rgb": (3, 3, 32, 32, 12, 5, 5, {}),
    "7x7": (4, 8, 20, 20, 8, 7, 7, {}),
    "1x1": (7, 32, 12, 12, 32, 1, 1, {}),
    "stride 2": (6, 16, 17, 16, 32, 3, 3, {"strides": (2, 2)}),
    "stride 3x1": (4, 8, 20, 21, 16, 4, 4, {"strides": (3, 1)}),
    "depthwise": (6, 32, 16, 16, 32, 3, 3, {"groups": 32}),
    "groups": (6, 16, 16, 16, 32, 3, 3, {"groups": 4, "strides": (1, 2)}),
    "dilation": (6, 16, 16, 16, 16, 3, 3, {"dilation": (2, 2)}),
    "reflect": (6, 8, 16, 16, 16, 5, 5, {"border_mode": "reflect"}),
    "wrap stride 2": (6, 8, 16, 16, 16, 5, 5, {"border_mode": "wrap", "strides": (2, 2)}),
    "many small images": (33, 16, 4, 4, 24, 3, 3, {}),
}


@pytest.mark.parametrize("name", LARGE)
def test_random_data_is_accurate(kernels, dtype, rng, name):
    """Errors stay within a few rounding units of the sums of magnitudes."""
    case = LARGE[name]
    arrays = make_arrays(case, rng.standard_normal, dtype)
    expected = run_all(IM2COL, [a.astype(np.float64) for a in arrays], case[-1])
    sizes = run_all(IM2COL, [np.abs(a, dtype=np.float64) for a in arrays], case[-1])
    actual = run_all(compiled(kernels), arrays, case[-1])
    for array, values, size in zip(actual, expected, sizes, strict=True):
        assert_allclose(array, values, rtol=0, atol=4 * np.finfo(dtype).eps * size.max())


@pytest.mark.parametrize("name", LARGE)
def test_thread_counts_give_the_same_bits(kernels, dtype, rng, name):
    case = LARGE[name]
    imgs, filters, convout_grad, bias = make_arrays(case, rng.standard_normal, dtype)

    def results(n_threads):
        bias_grad = np.empty_like(bias)
        options = {**case[-1], "n_threads": n_threads}
        convout = kernels.conv_bc01(imgs, filters, bias=bias, activation="relu", **options)
        grads = kernels.bprop_conv_bc01(imgs, convout_grad, filters, bias_grad=bias_grad, **options)
        return [array.tobytes() for array in (convout, *grads, bias_grad)]

    serial = results(1)
    for n_threads in (2, 3, 5):
        assert results(n_threads) == serial, f"{n_threads} threads"
    with nnet.num_threads(2):
        assert results(None) == serial


@pytest.mark.parametrize("name", ["3x3", "stride 2x1", "dilation 2 stride 3", "depth multiplier",
                                  "pad beyond filter", "reflect", "wrap all", "nearest"])  # fmt: skip
def test_gradients_by_finite_differences(kernels, rng, name):
    case = CASES[name]
    imgs, filters, convout_grad, _ = make_arrays(case, rng.standard_normal)
    imgs_grad, filters_grad = kernels.bprop_conv_bc01(imgs, convout_grad, filters, **case[-1])

    def loss():
        return np.vdot(kernels.conv_bc01(imgs, filters, **case[-1]), convout_grad)

    eps = 1e-6
    for array, grad in ((imgs, imgs_grad), (filters, filters_grad * len(imgs))):
        for i in rng.permutation(array.size)[:60]:
            value = array.flat[i]
            array.flat[i] = value + eps
            above = loss()
            array.flat[i] = value - eps
            slope = (above - loss()) / (2 * eps)
            array.flat[i] = value
            assert_allclose(grad.flat[i], slope, atol=1e-5, rtol=1e-3)


# --- bias, activation, gradients on request -----------------------------------


@pytest.mark.parametrize("name", ["3x3", "5x5 grey", "1x1", "stride 2", "depthwise", "one pixel",
                                  "two groups", "wrap"])  # fmt: skip
def test_fused_bias_and_relu(kernels, dtype, name):
    case = CASES[name]
    imgs, filters, _, bias = make_arrays(case, whole(case[0]), dtype)
    plain = kernels.conv_bc01(imgs, filters, **case[-1])
    biased = plain + bias[:, None, None]
    for activation, expected in ((None, plain), ("relu", np.maximum(plain, 0))):
        actual = kernels.conv_bc01(imgs, filters, activation=activation, **case[-1])
        assert_array_equal(actual, expected, strict=True)
    for activation, expected in ((None, biased), ("relu", np.maximum(biased, 0))):
        actual = kernels.conv_bc01(imgs, filters, bias=bias, activation=activation, **case[-1])
        assert_array_equal(actual, expected, strict=True)
    strided = np.repeat(bias, 2)[::2]
    assert_array_equal(kernels.conv_bc01(imgs, filters, bias=strided, **case[-1]), biased)


@pytest.mark.parametrize("name", LARGE)
def test_bias_grad_and_filters_grad_alone(kernels, dtype, name):
    case = LARGE[name]
    imgs, filters, convout_grad, bias = make_arrays(case, whole(case[0]), dtype)
    both = kernels.bprop_conv_bc01(imgs, convout_grad, filters, **case[-1])
    bias_grad = np.full_like(bias, np.nan)
    imgs_grad, filters_grad = kernels.bprop_conv_bc01(
        imgs, convout_grad, filters, need_imgs_grad=False, bias_grad=bias_grad, **case[-1]
    )
    assert imgs_grad is None
    assert_array_equal(filters_grad, both[1], strict=True)
    assert_array_equal(bias_grad, convout_grad.sum((0, 2, 3)) / len(imgs))


@pytest.mark.parametrize("algorithm", ["planes", "pixels"])
@pytest.mark.parametrize("name", CASES)
def test_nan_spoils_only_what_sees_it(kernels, dtype, name, algorithm):
    """A NaN pixel or gradient spoils exactly the pixels it feeds.

    Where a NaN meets zero padding, other outputs of its channel or feature may be NaN too.
    """
    case = CASES[name]
    ones = make_arrays(case, np.ones, dtype)[:3]

    def fed(i, where):
        """Which elements of the three results depend on this part of array i."""
        marks = [*ones[:i], np.zeros_like(ones[i]), *ones[i + 1 :]]
        marks[i][where] = 1
        results = run_all(IM2COL, marks, case[-1])
        # imgs_grad does not depend on imgs, nor filters_grad on filters, ...
        return [(values > 0) & (j != (1, 2, 0)[i]) for j, values in enumerate(results)]

    for i in range(3):
        where = np.unravel_index(ones[i].size // 2, ones[i].shape)
        exact, plane = fed(i, where), fed(i, where[:2])
        spoiled = [array.copy() for array in ones]
        spoiled[i][where] = np.nan
        results = run_all(compiled(kernels), spoiled, case[-1], algorithm=algorithm)
        found = [np.isnan(values) for values in results]
        for j, axes in enumerate([(0, 2, 3), (0, 2, 3), (2, 3)]):
            assert found[j][exact[j]].all()
            strict = (i, j) in ((0, 0), (2, 1))
            allowed = exact[j] if strict else plane[j].any(axes, keepdims=True)
            assert not (found[j] & ~allowed).any()


def test_nan_and_infinity_pass_through_relu(kernels, dtype):
    imgs = np.array([np.nan, np.inf, -np.inf, -1, 1], dtype).reshape(1, 1, 1, 5)
    filters = np.ones((1, 1, 1, 1), dtype)
    expected = np.array([np.nan, np.inf, 0, 0, 1], dtype).reshape(1, 1, 1, 5)
    assert_array_equal(kernels.conv_bc01(imgs, filters, activation="relu"), expected)
    bias = np.full(1, np.nan, dtype)
    assert np.isnan(kernels.conv_bc01(imgs, filters, bias=bias, activation="relu")).all()


# --- arrays of every kind -----------------------------------------------------


def channels_last(array):
    if array.ndim < 4:
        return array
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def misaligned(array):
    copy = np.ndarray(array.shape, array.dtype, bytearray(array.nbytes + 1), offset=1)
    copy[...] = array
    return copy


def read_only(array):
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def every_second(array):
    wide = np.full([2 * size for size in array.shape], np.nan, array.dtype)
    view = wide[tuple([slice(None, None, 2)] * array.ndim)]
    view[...] = array
    return view


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "channels last": channels_last,
    "negative strides": lambda array: np.flip(np.flip(array).copy()),
    "every second element": every_second,
    "misaligned": misaligned,
}


@pytest.mark.parametrize("layout", [*LAYOUTS, "read-only", "broadcast"])
@pytest.mark.parametrize("name", ["3x3", "1x1", "stride 2x1", "two groups", "reflect"])
def test_inputs_in_any_layout(kernels, dtype, name, layout):
    case = CASES[name]
    arrays = make_arrays(case, whole(case[0]), dtype)
    if layout == "broadcast":
        arrays = [np.broadcast_to(a[(slice(0, 1),) * a.ndim], a.shape) for a in arrays]
    change = {**LAYOUTS, "read-only": read_only, "broadcast": lambda array: array}[layout]
    changed = [change(array) for array in arrays]
    before = [array.copy() for array in changed]
    expected = run_all(IM2COL, [a.astype(np.float64) for a in arrays], case[-1])
    assert_exact(run_all(compiled(kernels), changed, case[-1]), expected, dtype)
    for array, values in zip(changed, before):
        assert_array_equal(array, values)


@pytest.mark.parametrize("layout", ["plain", *LAYOUTS])
@pytest.mark.parametrize("name", ["3x3", "1x1", "stride 2x1", "stride beyond filter", "two groups"])
def test_outputs_given_are_filled_and_returned(kernels, dtype, name, layout):
    case = CASES[name]
    imgs, filters, convout_grad, bias = make_arrays(case, whole(case[0]), dtype)
    change = LAYOUTS.get(layout, np.copy)
    shapes = convout_grad, imgs, filters, bias
    outputs = [change(np.full_like(like, np.nan)) for like in shapes]
    convout, imgs_grad, filters_grad, bias_grad = outputs
    returned = (
        kernels.conv_bc01(imgs, filters, convout, **case[-1]),
        *kernels.bprop_conv_bc01(
            imgs, convout_grad, filters, imgs_grad, filters_grad, bias_grad=bias_grad, **case[-1]
        ),
    )
    assert all(a is b for a, b in zip(returned, outputs))
    arrays = [a.astype(np.float64) for a in (imgs, filters, convout_grad)]
    for actual, expected in zip(outputs, run_all(IM2COL, arrays, case[-1])):
        assert_array_equal(actual, expected)
    assert_array_equal(bias_grad, convout_grad.sum((0, 2, 3)) / len(imgs))


def test_positional_outputs_and_new_ones_agree(kernels, dtype, rng):
    """A view into a larger array is written within its bounds only."""
    case = CASES["3x3"]
    imgs, filters, convout_grad, _ = make_arrays(case, rng.standard_normal, dtype)
    whole_outputs = [np.full(like.size + 128, 7, dtype) for like in (convout_grad, imgs, filters)]
    convout, imgs_grad, filters_grad = (
        memory[64:-64].reshape(like.shape)
        for memory, like in zip(whole_outputs, (convout_grad, imgs, filters))
    )
    assert kernels.conv_bc01(imgs, filters, convout) is convout
    kernels.bprop_conv_bc01(imgs, convout_grad, filters, imgs_grad, filters_grad)
    for memory in whole_outputs:
        assert (memory[:64] == 7).all() and (memory[-64:] == 7).all()
    expected = run_all(compiled(kernels), (imgs, filters, convout_grad), {})
    for actual, values in zip((convout, imgs_grad, filters_grad), expected):
        assert_array_equal(actual, values)


def test_empty_batch(kernels, dtype):
    for options in ({}, {"strides": (2, 2)}, {"border_mode": "wrap"}):
        imgs, filters = np.ones((0, 4, 6, 5), dtype), np.ones((4, 3, 3, 3), dtype)
        bias_grad = np.full(3, np.nan, dtype)
        convout = kernels.conv_bc01(imgs, filters, bias=bias_grad, activation="relu", **options)
        assert convout.shape[:2] == (0, 3) and convout.dtype == dtype
        filters_grad = np.full_like(filters, np.nan)
        imgs_grad, returned = kernels.bprop_conv_bc01(
            imgs, convout, filters, None, filters_grad, bias_grad=bias_grad, **options
        )
        assert imgs_grad.shape == imgs.shape and imgs_grad.dtype == dtype
        assert returned is filters_grad and not filters_grad.any() and not bias_grad.any()


def test_options_as_lists_ints_and_numpy_integers(kernels, rng):
    imgs, filters = rng.standard_normal((2, 2, 7, 8)), rng.standard_normal((1, 4, 3, 3))
    plain = {"strides": (2, 2), "padding_mode": (1, 1), "dilation": (2, 2), "groups": 2}
    expected = kernels.conv_bc01(imgs, filters, **plain)
    for options in (
        {"strides": 2, "padding_mode": 1, "dilation": 2, "groups": np.int64(2)},
        {"strides": [2, 2], "padding_mode": [[1, 1], [1, 1]], "dilation": np.array([2, 2])},
        {"strides": np.int32(2), "padding_mode": np.array([1, 1]), "dilation": 2},
    ):
        assert_array_equal(kernels.conv_bc01(imgs, filters, **{**plain, **options}), expected)


def test_leftovers_of_earlier_calls_do_not_matter(kernels, dtype):
    """Work memory full of NaN from one call never shows in the next."""
    for name, case in CASES.items():
        arrays = make_arrays(case, whole(case[0]), dtype)
        clean = run_all(compiled(kernels), arrays, case[-1])
        run_all(compiled(kernels), [np.full_like(a, np.nan) for a in arrays], case[-1])
        poison = [np.full(1 << size, np.nan, dtype) for size in range(4, 16)]
        del poison
        for a, b in zip(run_all(compiled(kernels), arrays, case[-1]), clean):
            assert_array_equal(a, b, err_msg=name)


def test_infinite_pixels_leave_the_same_bits_on_all_threads(kernels):
    """Small images are stacked; what an earlier stack left must not reach an incomplete one."""
    rng = np.random.default_rng(1)
    imgs, filters = rng.normal(size=(17, 8, 12, 12)), rng.normal(size=(8, 2, 3, 3))
    grad = rng.normal(size=(17, 2, 12, 12))
    for image in range(17):
        spoilt = imgs.astype(np.float32)
        spoilt[image, :, 6, 6] = np.inf
        results = {
            kernels.bprop_conv_bc01(
                spoilt,
                grad.astype(np.float32),
                filters.astype(np.float32),
                need_imgs_grad=False,
                n_threads=n_threads,
            )[1].tobytes()
            for n_threads in (1, 2, 3, 8, 8)
        }
        assert len(results) == 1, image
