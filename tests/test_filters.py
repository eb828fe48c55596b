"""Filters of images: scipy.ndimage, mode by mode, and what the docstrings promise."""

import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import read_only
from numpy.testing import assert_allclose, assert_array_equal

import nnet
from nnet import correlate, maximum_filter, minimum_filter
from nnet.filters import GRID_MODES, MODES

DTYPES = {
    np.uint8: np.float32,
    np.bool_: np.float32,
    np.int16: np.float32,
    np.float16: np.float32,
    np.float32: np.float32,
    np.int32: np.float64,
    np.uint64: np.float64,
    np.float64: np.float64,
}
EXTREMES = {"maximum_filter": maximum_filter, "minimum_filter": minimum_filter}
ALL_MODES = [*MODES, *GRID_MODES]
small = st.integers(1, 9)


@pytest.fixture(scope="module")
def ndimage():
    return pytest.importorskip("scipy.ndimage", reason="SciPy is not installed")


def whole(rng, shape, dtype):
    return rng.integers(0, 2 if dtype == np.bool_ else 100, shape).astype(dtype)


# --- scipy.ndimage ------------------------------------------------------------


def border_index(i, n, mode):
    """The pixel of n at position i, which may be outside."""
    mode = GRID_MODES.get(mode, mode)
    if mode == "nearest":
        return min(max(i, 0), n - 1)
    if mode == "reflect":
        return min(i % (2 * n), 2 * n - 1 - i % (2 * n))
    if mode == "mirror":
        period = max(2 * (n - 1), 1)
        return min(i % period, period - i % period) if n > 1 else 0
    return i % n


def windows(image, size, mode, cval):
    """What each pixel's window holds: (h, w, *size)."""
    mode = GRID_MODES.get(mode, mode)
    if mode == "constant":
        pads = [(n // 2, (n - 1) // 2) for n in size]
        padded = np.pad(image, pads, constant_values=cval)
    else:
        rows, cols = (
            [border_index(i, n, mode) for i in range(-(m // 2), n + (m - 1) // 2)]
            for n, m in zip(image.shape, size)
        )
        padded = image[np.ix_(rows, cols)]
    return np.lib.stride_tricks.sliding_window_view(padded, size)


@pytest.mark.parametrize("mode", ALL_MODES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    size=st.tuples(small, small),
    window=st.tuples(st.integers(1, 25), small),
    dtype=st.sampled_from(list(DTYPES)),
    cval=st.sampled_from([0, 3, -2.5]),
    seed=st.integers(0, 99),
)
def test_equals_ndimage(mode, size, window, dtype, cval, seed):
    ndimage = pytest.importorskip("scipy.ndimage", reason="SciPy is not installed")
    rng = np.random.default_rng(seed)
    image, kernel = whole(rng, size, dtype), rng.integers(-3, 4, window)
    options, real = {"mode": mode, "cval": cval}, image.astype(float)
    seen = windows(real, window, mode, cval)
    # SciPy 1.17 reads beyond the image where a mirror shows it more than once.
    wide = any(m // 2 >= 2 * n - 1 for n, m in zip(size, window))
    for function, argument, expected in (
        (correlate, kernel, (seen * kernel).sum((2, 3))),
        (maximum_filter, window, seen.max((2, 3))),
        (minimum_filter, window, seen.min((2, 3))),
    ):
        result = function(image, argument, **options)
        assert result.dtype == DTYPES[dtype] and result.shape == size
        assert_array_equal(result, expected)
        if not wide:
            theirs = getattr(ndimage, function.__name__)
            assert_array_equal(result, theirs(real, argument, **options))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_ndimage_on_large_images(ndimage, rng, mode, dtype):
    """In bands, and of fractions."""
    image = rng.standard_normal((300, 270)).astype(dtype)
    kernel = rng.standard_normal((7, 4)).astype(dtype)
    expected = ndimage.correlate(image.astype(float), kernel.astype(float), mode=mode, cval=0.5)
    tolerance = 40 * np.finfo(dtype).eps
    assert_allclose(correlate(image, kernel, mode=mode, cval=0.5), expected, atol=tolerance)
    for name, function in EXTREMES.items():
        for size in (3, 8, (1, 40), (41, 3)):
            expected = getattr(ndimage, name)(image, size, mode=mode, cval=0.5)
            assert_array_equal(function(image, size, mode=mode, cval=0.5), expected)


# --- axes -----------------------------------------------------------------------


@pytest.mark.parametrize("cval", [0, 2])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((9, 8, 3), None),
        ((9, 8, 1), None),
        ((40, 50, 4), None),
        ((9, 8, 7), (0, 1)),
        ((3, 9, 8), (1, 2)),
        ((3, 9, 8), (-2, -1)),
        ((2, 9, 8, 5), (1, 2)),
        ((2, 5, 9, 8), (2, 3)),
        ((2, 3, 9, 8, 2, 2), (2, 3)),
        ((9, 8), (1, 0)),
        ((9, 4, 8), (0, 2)),
        ((8, 2, 9, 3), (2, 0)),
    ],
)
def test_all_other_axes_are_filtered_one_by_one(rng, shape, axes, mode, cval):
    image, kernel = rng.integers(-9, 9, shape).astype(float), rng.integers(-3, 4, (3, 4))
    for function, argument in (
        (correlate, kernel),
        (maximum_filter, (3, 4)),
        (minimum_filter, (2, 5)),
    ):
        result = function(image, argument, mode=mode, cval=cval, axes=axes)
        assert result.shape == shape and result.flags.c_contiguous
        where = axes or (0, 1)
        planes = np.moveaxis(image, where, (-2, -1))
        results = np.moveaxis(result, where, (-2, -1))
        for i in np.ndindex(planes.shape[:-2]):
            assert_array_equal(results[i], function(planes[i], argument, mode=mode, cval=cval))


def test_no_images_give_no_results():
    for shape, axes in (((0, 5, 4), (1, 2)), ((5, 4, 0), (0, 1)), ((0, 3, 5, 4), (3, 2))):
        image = np.ones(shape, np.uint8)
        for result in (
            correlate(image, np.ones((3, 3)), axes=axes),
            maximum_filter(image, 3, axes=axes),
            minimum_filter(image, 3, axes=axes),
        ):
            assert result.shape == shape and result.dtype == np.float32


# --- promises ---------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("mode", MODES)
def test_nothing_reaches_beyond_its_window(rng, mode, value):
    clean = rng.random((120, 100)).astype(np.float32)
    image, inside = clean.copy(), np.zeros(clean.shape, bool)
    image[60, 50] = value
    inside[53:68, 43:58] = True
    kernel = rng.random((15, 15)) + 0.1
    for function, argument in ((correlate, kernel), (maximum_filter, 15), (minimum_filter, 15)):
        expected, result = (
            function(clean, argument, mode=mode),
            function(image, argument, mode=mode),
        )
        assert_array_equal(result[~inside], expected[~inside])
        if np.isnan(value) or function is correlate:
            assert_array_equal(result[inside], np.float32(value))


def test_kernels_are_not_flipped_and_even_ones_lean_to_the_top_left():
    image = np.zeros((5, 5))
    image[2, 2] = 1
    result = correlate(image, [[1, 2], [3, 4]])
    assert_array_equal(result[2:4, 2:4], [[4, 3], [2, 1]])
    assert result.sum() == 10


def test_kernels_take_the_type_of_the_image():
    image = np.ones((4, 4), np.float32)
    assert correlate(image, np.full((3, 3), 1 / 9)).dtype == np.float32
    assert correlate(image.astype(">f8"), np.ones((3, 3), np.float32)).dtype == np.float64


def test_arrays_of_any_kind(rng):
    image, kernel = rng.integers(0, 9, (12, 14)).astype(float), rng.integers(0, 3, (3, 2))
    expected = correlate(image, kernel)
    for same in (np.asfortranarray(image), read_only(image), image.tolist(), image[::-1][::-1]):
        assert_array_equal(correlate(same, kernel), expected)
        assert_array_equal(correlate(same, kernel.tolist()), expected)
        assert_array_equal(maximum_filter(same, 3), maximum_filter(image, (3, 3)))
    before = image.copy()
    for mode in MODES:
        for result in (
            correlate(image, [[1]], mode=mode),
            maximum_filter(image, 1, mode=mode),
            minimum_filter(image, 1, mode=mode),
        ):
            assert not np.shares_memory(result, image)
            assert_array_equal(result, before)
    assert_array_equal(image, before)


def test_the_same_bits_for_every_number_of_threads(rng):
    image, kernel = rng.random((4, 200, 300)), rng.random((5, 5))
    results = []
    for n in (1, 2, 3):
        with nnet.num_threads(n):
            results.append(correlate(image, kernel, axes=(1, 2)).tobytes())
            results.append(maximum_filter(image, 5, axes=(1, 2)).tobytes())
    assert len(set(results)) == 2


# --- errors -----------------------------------------------------------------------

IMAGE, KERNEL = np.ones((6, 7), np.float32), np.ones((3, 3))
IMAGES = [
    (np.ones(5), ValueError, r"image has shape \(5,\), expected at least 2 axes"),
    (3.0, ValueError, r"image has shape \(\), expected at least 2 axes"),
    (IMAGE * 1j, TypeError, "image has dtype complex64, expected integers or floats"),
    (IMAGE.astype(np.longdouble), TypeError, "image has dtype .*, expected integers or floats"),
    (np.array([["a", "b"]]), TypeError, "image has dtype <U1, expected integers or floats"),
    (IMAGE.astype(object), TypeError, "image has dtype object, expected integers or floats"),
    (None, TypeError, "image has dtype object, expected integers or floats"),
    ([[1, 2], [3]], ValueError, "image has items that differ in shape"),
    (np.ma.masked_less(IMAGE, 0), TypeError, "image is a MaskedArray, expected an array without"),
    (np.ones((0, 4)), ValueError, r"image has shape \(0, 4\), expected a height and a width of"),
    (np.ones((3, 0, 3)), ValueError, "image has shape .*, expected"),
    (np.ones((9, 8, 5)), ValueError, r"\(9, 8, 5\), expected \(h, w\) or .* axes=\(0, 1\) if"),
    (np.ones((3, 9, 8)), ValueError, r"or the axes of height and width: axes=\(0, 1\) if"),
    (np.ones((3, 9, 3)), ValueError, r"axes=\(1, 2\) for \(n, h, w\), axes=\(2, 3\) for"),
    (np.ones((2, 9, 8, 3)), ValueError, r"axes=\(2, 3\) for \(n, channels, h, w\)"),
]
KERNELS = [
    ("sobel", TypeError, "kernel has dtype <U5, expected integers or floats"),
    (KERNEL * 1j, TypeError, "kernel has dtype complex128, expected integers or floats"),
    (np.ones(3), ValueError, r"kernel has shape \(3,\), expected \(kernel_h, kernel_w\)"),
    (3, ValueError, r"kernel has shape \(\), expected \(kernel_h, kernel_w\)"),
    (np.ones((3, 0)), ValueError, r"kernel has shape \(3, 0\), expected \(kernel_h, kernel_w\)"),
    (np.ones((1, 1, 3, 3)), ValueError, "kernel has shape .*, expected"),
]
SIZES = [
    ("3", TypeError, "size is '3', expected an int or a pair of ints"),
    (3.0, TypeError, "size is 3.0, expected an int or a pair of ints"),
    (None, TypeError, "size is None, expected an int or a pair of ints"),
    ((3, 3, 1), ValueError, r"size is \(3, 3, 1\), expected an int or a pair of ints"),
    (0, ValueError, r"size is \(0, 0\), expected values of at least 1"),
    ((3, -1), ValueError, r"size is \(3, -1\), expected values of at least 1"),
]
OPTIONS = [
    ({"mode": "symmetric"}, ValueError, r"expected one of \('reflect', .*mean 'reflect'\?$"),
    ({"mode": "edge"}, ValueError, r"mode is 'edge', .*: did you mean 'nearest'\?$"),
    ({"mode": "zeros"}, ValueError, r": did you mean 'constant'\?$"),
    ({"mode": "circular"}, ValueError, r": did you mean 'wrap'\?$"),
    ({"mode": "valid"}, ValueError, r"mode is 'valid', expected one of \(.*\)$"),
    ({"mode": ["reflect", "wrap"]}, TypeError, r"mode is \['reflect', 'wrap'\], expected one of"),
    ({"mode": 0}, TypeError, "mode is 0, expected one of"),
    ({"mode": None}, TypeError, "mode is None, expected one of"),
    ({"cval": "0"}, TypeError, "cval is '0', expected a number"),
    ({"cval": 1j}, TypeError, "cval is 1j, expected a number"),
    ({"cval": None}, TypeError, "cval is None, expected a number"),
    ({"cval": 10**400}, ValueError, r"cval is 10{9}\S*, expected a number that a float can hold"),
    ({"axes": (0, 2)}, ValueError, r"axes is \(0, 2\), expected two of the 2 axes of image"),
    ({"axes": (1, -1)}, ValueError, r"axes is \(1, -1\), expected two of the 2 axes of image"),
    ({"axes": 1}, ValueError, "axes is 1, expected two of the 2 axes of image"),
    ({"axes": (-3, 0)}, ValueError, "axes is .*, expected"),
    ({"axes": (0, 1, 2)}, ValueError, "axes is .*, expected"),
    ({"axes": (0, 1.0)}, TypeError, "axes is .*, expected"),
    ({"axes": "hw"}, TypeError, "axes is 'hw', expected"),
]


def calls(**options):
    yield lambda image=IMAGE, kernel=KERNEL: correlate(image, kernel, **options)
    yield lambda image=IMAGE, size=3: maximum_filter(image, size, **options)
    yield lambda image=IMAGE, size=3: minimum_filter(image, size, **options)


@pytest.mark.parametrize(("image", "error", "message"), IMAGES)
def test_wrong_images(image, error, message):
    for call in calls():
        with pytest.raises(error, match=message):
            call(image)


@pytest.mark.parametrize(("options", "error", "message"), OPTIONS)
def test_wrong_options(options, error, message):
    for call in calls(**options):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize(("kernel", "error", "message"), KERNELS)
def test_wrong_kernels(kernel, error, message):
    with pytest.raises(error, match=message):
        correlate(IMAGE, kernel)


@pytest.mark.parametrize(("size", "error", "message"), SIZES)
def test_wrong_sizes(size, error, message):
    for function in EXTREMES.values():
        with pytest.raises(error, match=message):
            function(IMAGE, size)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: correlate(IMAGE, KERNEL, None, "nearest"),
            "None, 'nearest'), expected correlate(image, kernel, mode=, cval=, axes=)",
        ),
        (lambda: correlate(input=IMAGE, weights=KERNEL), "argument 'input', expected image"),
        (lambda: correlate(IMAGE, weights=KERNEL), "argument 'weights', expected kernel"),
        (lambda: correlate(IMAGE), "correlate lacks kernel, expected correlate(image, kernel, "),
        (lambda: correlate(IMAGE, KERNEL, output=IMAGE), "expected none: a new array is returned"),
        (lambda: correlate(IMAGE, KERNEL, origin=0), "zeros in the kernel move its centre"),
        (lambda: correlate(IMAGE, KERNEL, borderType=4), "argument 'borderType', expected mode"),
        (lambda: correlate(IMAGE, KERNEL, n_threads=1), "nnet.num_threads(n)` around it"),
        (
            lambda: maximum_filter(IMAGE, 3, None, None, "nearest"),
            "expected maximum_filter(image, size, mode=, cval=, axes=)",
        ),
        (lambda: maximum_filter(IMAGE, size=3, footprint=KERNEL), "'footprint', expected size:"),
        (lambda: minimum_filter(IMAGE, footprint=KERNEL), "all pixels of a rectangle count"),
        (lambda: minimum_filter(IMAGE, 3, origin=1), "none: windows are centred"),
        (lambda: maximum_filter(IMAGE, kernel_size=3), "'kernel_size', expected size"),
        (lambda: maximum_filter(IMAGE, 3, weights=3), "expected one of ('image', 'size', 'mode',"),
    ],
)
def test_calls_of_others(call, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        call()


def test_filters_of_others():
    for name, expected in (("filter2D", "correlate"), ("grey_erosion", "minimum_filter")):
        with pytest.raises(AttributeError, match=f"{name}', expected {expected}$"):
            getattr(nnet, name)


def test_a_huge_cval_is_infinite(recwarn):
    """As NumPy makes of it what the type of the image has, with one warning."""
    result = maximum_filter(IMAGE, 3, mode="constant", cval=1e300)
    assert len(recwarn) == 1
    assert np.isinf(result[[0, -1]]).all() and np.isinf(result[:, [0, -1]]).all()
    assert (result[1:-1, 1:-1] == 1).all()


def test_infinities_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = np.array([[np.inf, -np.inf], [np.nan, 1]])
        correlate(image, KERNEL)
        minimum_filter(image, 3, mode="constant", cval=np.nan)
