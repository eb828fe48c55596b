"""Every way to compute a convolution against the specification, for every target and dtype.

On whole numbers all of them are exact: Winograd's algorithm halves and quarters
weights, and small numbers keep their halves and quarters.
"""

import numpy as np
import pytest
from convolutions import (
    CASES,
    IM2COL,
    LARGE,
    any_case,
    assert_exact,
    compiled,
    expected_by_loops,
    make_arrays,
    run_all,
    whole,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from nnet._conv import ALGORITHMS
from nnet.geometry import conv_geometry

DIRECT = ["direct_pixels", "direct_features"]
LANE_EDGES = [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 49, 65]  # and of blocks of 2 or 3 vectors
WINOGRAD_TAPS = 144  # from which on Winograd's algorithm is as accurate as direct sums


def fits_winograd(case):
    steps = (np.broadcast_to(case[-1].get(name, 1), 2) for name in ("strides", "dilation"))
    return min(case[5:7]) > 1 and all(s == 1 or s == 2 and d == 1 for s, d in zip(*steps))


def algorithms_for(explain, case):
    """None, 'direct', and each that accepts the case in both directions."""
    n, c, h, w, k, fil_h, fil_w, options = case
    shapes = (n, c, h, w), (c // options.get("groups", 1), k, fil_h, fil_w)
    forward, backward = (
        [name for name, cycles, _ in explain(*shapes, backward=backward, **options) if cycles]
        for backward in (False, True)
    )
    return [None, "direct", *(name for name in forward if name in backward)]


def check_all(kernels, case, dtype, seed=0, threads=(None,)):
    """Bit for bit what the matrix products of the reference give, on whole numbers."""
    arrays = make_arrays(case, whole(case[0], seed))
    expected = run_all(IM2COL, arrays, case[-1])
    biased = np.maximum(expected[0] + arrays[3][:, None, None], 0)
    arrays = [a.astype(dtype) for a in arrays]
    for algorithm in algorithms_for(kernels.explain_conv, case):
        for n_threads in threads:
            options = {**case[-1], "algorithm": algorithm, "n_threads": n_threads}
            assert_exact(run_all(compiled(kernels), arrays, options), expected, dtype)
            fused = kernels.conv_bc01(*arrays[:2], bias=arrays[3], activation="relu", **options)
            assert_array_equal(fused, biased.astype(dtype), strict=True)


# --- against the reference ----------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_equals_plain_loops(kernels, dtype, name):
    case = CASES[name]
    arrays = make_arrays(case, whole(case[0]), dtype)
    for algorithm in algorithms_for(kernels.explain_conv, case):
        results = run_all(compiled(kernels), arrays, case[-1], algorithm=algorithm)
        assert_exact(results, expected_by_loops(name), dtype)


@pytest.mark.parametrize("count", LANE_EDGES)
def test_channels_and_features_around_lane_edges(kernels, dtype, count):
    check_all(kernels, (2, 3, 5, 6, count, 3, 3, {}), dtype)
    check_all(kernels, (2, count, 6, 5, 4, 3, 3, {}), dtype)
    check_all(kernels, (1, 2 * count, 4, 7, 2 * count, 2, 3, {"groups": 2}), dtype)
    check_all(kernels, (3, count, 4, 5, count, 1, 1, {}), dtype)
    check_all(kernels, (2, count, 7, 6, count, 3, 4, {"strides": (2, 1)}), dtype)
    check_all(kernels, (1, count, 6, 5, count, 3, 3, {"border_mode": "wrap"}), dtype)


@pytest.mark.parametrize("fil_w", range(1, 8))
@pytest.mark.parametrize("fil_h", range(1, 8))
def test_filters_of_all_shapes(kernels, dtype, fil_h, fil_w):
    """Winograd's algorithm cuts them into pieces of two or three taps."""
    check_all(kernels, (2, 3, 9, 8, 5, fil_h, fil_w, {}), dtype)
    check_all(kernels, (1, 2, 11, 10, 3, fil_h, fil_w, {"padding_mode": "full"}), dtype)
    check_all(kernels, (3, 2, 10, 13, 5, fil_h, fil_w, {"strides": (2, 2)}), dtype)
    check_all(kernels, (1, 3, 9, 11, 4, fil_h, fil_w, {"strides": (1, 2), "border_mode": "wrap",
                                                       "padding_mode": 1}), dtype)  # fmt: skip
    check_all(kernels, (1, 3, 15, 23, 2, fil_h, fil_w, {"dilation": (2, 3)}), dtype)
    check_all(kernels, (1, 2, 9, 8, 2, fil_h, fil_w, {"border_mode": "reflect"}), dtype)


@pytest.mark.parametrize("n_imgs", [1, 2, 3, 7, 33])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8])
def test_batches_of_tiny_planes(kernels, dtype, n_imgs, size):
    """Fewer pixels than lanes; several images in a unit, fewer of them in the last one."""
    check_all(kernels, (n_imgs, 5, size, size, 17, 3, 3, {}), dtype)
    check_all(kernels, (n_imgs, 3, 1, size, 4, 2, 2, {"padding_mode": 1}), dtype)
    check_all(kernels, (n_imgs, 4, size, size, 9, 3, 3, {"border_mode": "nearest"}), dtype)
    check_all(kernels, (n_imgs, 4, size, size, 9, 3, 3, {"strides": (2, 2)}), dtype)
    for pads in (0, 2), (2, 0):  # a row of one pixel has one of the two phases
        options = {"strides": (2, 2), "padding_mode": (pads, pads)}
        check_all(kernels, (n_imgs, 4, size, size, 9, 3, 3, options), dtype)
    check_all(kernels, (n_imgs, 4, size, size + 3, 9, 3, 3, {"dilation": (1, 2)}), dtype)


STRIPS = {  # of one image, which does not fit into the cache of a thread
    "3x3": (1, 64, 70, 70, 33, 3, 3, {}),
    "5x4 far padded": (1, 16, 61, 90, 20, 5, 4, {"padding_mode": ((30, 7), (3, 40))}),
    "3x3 dilated": (1, 48, 50, 70, 17, 3, 3, {"dilation": (3, 2), "groups": 1}),
    "3x3 stride 2": (1, 64, 71, 70, 16, 3, 3, {"strides": (2, 2)}),
    "2x2 stride 3": (1, 32, 90, 70, 16, 2, 2, {"strides": (3, 3), "padding_mode": 4}),
    "1x1": (2, 64, 40, 60, 40, 1, 1, {}),
    "reflect": (1, 32, 50, 40, 16, 3, 3, {"border_mode": "reflect"}),
    "tall": (1, 64, 400, 3, 16, 3, 3, {}),
}


@pytest.mark.parametrize("name", STRIPS)
def test_strips_of_large_images(kernels, dtype, name):
    check_all(kernels, STRIPS[name], dtype, threads=(1, 2, 3))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=any_case(max_feats=49, max_filter=7), seed=st.integers(0, 9))
def test_any_geometry(kernels, dtype, case, seed):
    check_all(kernels, case, dtype, seed)


@pytest.mark.parametrize("algorithm", [None, "direct", *ALGORITHMS])
@pytest.mark.parametrize("name", LARGE)
def test_thread_counts_give_the_same_bits(kernels, dtype, rng, name, algorithm):
    case = LARGE[name]
    if algorithm not in algorithms_for(kernels.explain_conv, case):
        algorithm = None
    imgs, filters, grad, bias = make_arrays(case, rng.standard_normal, dtype)

    def results(n_threads):
        options = {**case[-1], "algorithm": algorithm, "n_threads": n_threads}
        convout = kernels.conv_bc01(imgs, filters, bias=bias, activation="relu", **options)
        grads = kernels.bprop_conv_bc01(imgs, grad, filters, **options)
        return [array.tobytes() for array in (convout, *grads)]

    serial = results(1)
    for n_threads in (2, 3, 5):
        assert results(n_threads) == serial, f"{n_threads} threads"


@pytest.mark.parametrize("n_imgs, groups", [(1, 1), (2, 1), (1, 3)])
def test_threads_that_share_out_features(kernels, dtype, n_imgs, groups):
    """One unit of pixels: its threads take a block of features or more each, with leftovers."""
    case = (n_imgs, 4 * groups, 6, 6, 90 * groups, 3, 3, {"groups": groups})
    check_all(kernels, case, dtype, threads=(1, 2, 3, 4, 7))


@pytest.mark.parametrize("algorithm", [None, "direct", *ALGORITHMS])
def test_leftovers_of_earlier_calls_do_not_matter(kernels, dtype, algorithm):
    """Work memory full of NaN from one call never shows in the next."""
    cases = [*CASES.values(), STRIPS["5x4 far padded"], STRIPS["3x3 stride 2"]]
    for case in cases:
        if algorithm not in algorithms_for(kernels.explain_conv, case):
            continue
        arrays = make_arrays(case, whole(case[0]), dtype)
        clean = run_all(compiled(kernels), arrays, case[-1], algorithm=algorithm)
        poison = [np.full_like(a, np.nan) for a in arrays]
        run_all(compiled(kernels), poison, case[-1], algorithm=algorithm)
        again = run_all(compiled(kernels), arrays, case[-1], algorithm=algorithm)
        assert_exact(again, clean, dtype)


# --- accuracy -----------------------------------------------------------------


def errors(results, expected):
    """Root of the mean square, and maximum, of each result's errors."""
    differences = [np.abs(a - b) for a, b in zip(results, expected)]
    return np.array([(np.sqrt(np.mean(d**2)), d.max()) for d in differences])


@pytest.mark.parametrize("size", [2, 3, 5, 7])
@pytest.mark.parametrize("n_channels", [3, 16, 64, 256])
@pytest.mark.parametrize("rectified", [False, True], ids=["normal", "rectified"])
@pytest.mark.parametrize("stride", [1, 2])
def test_winograd_is_about_as_accurate(kernels, n_channels, size, stride, rectified):
    """Against float64, both passes.

    A long sum loses more than the transforms: an element sums the channels of a pixel, and
    no taps. Measured root mean squares are at most 0.9 of those of direct sums from
    WINOGRAD_TAPS on, 1.1 with rectified pixels, and 1.7 with few taps.
    """
    rng = np.random.default_rng(5)
    options = {"strides": stride}
    n_imgs = 16 // n_channels + 1  # enough values for a maximum that tells something
    case = (n_imgs, n_channels, 13 * stride, 13 * stride, n_channels, size, size, options)
    imgs, filters, grad, _ = make_arrays(case, rng.standard_normal, np.float32)
    if rectified:
        imgs = np.maximum(imgs, 0)
    exact = run_all(IM2COL, [a.astype(np.float64) for a in (imgs, filters, grad)], options)[:2]

    def errors_of(algorithm):
        results = run_all(compiled(kernels), (imgs, filters, grad), options, algorithm=algorithm)
        return errors(results[:2], exact)

    ratios = errors_of("winograd") / np.minimum(*[errors_of(name) for name in DIRECT])
    root_mean_square, maximum = ratios.T
    # Those of an output and, back to the images, those of a pixel that most outputs read.
    n_products = n_channels * np.array([size**2, (-(-size // stride)) ** 2])
    long = n_products >= WINOGRAD_TAPS
    assert (root_mean_square < np.where(long, 1.15, 2)).all(), ratios
    # one value of thousands: it varies
    assert (maximum < np.where(long, 1.5, 2 if stride == 1 else 2.5)).all(), ratios


def assert_direct_unasked(kernels, arrays, options, result):
    automatic, direct = (
        run_all(compiled(kernels), arrays, options, algorithm=name)[result]
        for name in (None, "direct")
    )
    assert_array_equal(automatic, direct)


@pytest.mark.parametrize("size", [2, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_no_winograd_unasked_where_it_is_less_accurate(kernels, dtype, rng, size, stride):
    """Few products in a sum: of an output, and of a pixel that most outputs read."""
    options = {"strides": stride}
    taps = -(-size // stride)
    for n_channels in (WINOGRAD_TAPS - 1) // size**2, 8, 2, 1:
        if n_channels * size * size < WINOGRAD_TAPS:
            case = (4, n_channels, 12, 12, 64, size, size, options)
            arrays = make_arrays(case, rng.standard_normal, dtype)
            assert_direct_unasked(kernels, arrays, options, 0)
    for n_feats in (WINOGRAD_TAPS - 1) // taps**2, 8, 2, 1:
        if n_feats * taps * taps < WINOGRAD_TAPS:
            case = (4, 64, 12, 12, n_feats, size, size, options)
            arrays = make_arrays(case, rng.standard_normal, dtype)
            assert_direct_unasked(kernels, arrays, options, 1)


@pytest.mark.parametrize("case", [
    (8, 16, 5, 5, 120, 5, 5, {"padding_mode": "valid"}),
    (8, 48, 6, 4, 64, 6, 6, {"strides": (2, 1), "padding_mode": 1}),
])  # fmt: skip
def test_no_winograd_unasked_where_few_outputs_read_a_pixel(kernels, dtype, rng, case):
    """A pixel's sum has no more products than there are outputs."""
    assert_direct_unasked(kernels, make_arrays(case, rng.standard_normal, dtype), case[-1], 1)


# --- infinities and NaN ---------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [2, 3, 4, 5])
@pytest.mark.parametrize("stride, dilation", [(1, 1), (1, 2), (2, 1)])
def test_what_an_infinite_or_nan_pixel_spoils(kernels, dtype, value, size, stride, dilation):
    """The outputs that read it; in Winograd's algorithm, even filters, its tile as well."""
    options = {
        "strides": stride, "dilation": dilation, "padding_mode": (size - 1) * dilation // 2
    }  # fmt: skip
    case = (2, 9, 11, 12, 18, size, size, options)
    ones = make_arrays(case, np.ones, dtype)[:3]

    def spoil(array, value):
        spoilt = array.copy()
        spoilt[1, 3, 4, 3] += value
        return spoilt

    for i, result in ((0, 0), (2, 1)):
        arrays = [*ones[:i], spoil(ones[i], value), *ones[i + 1 :]]
        marked = [*ones[:i], spoil(ones[i], 1), *ones[i + 1 :]]
        reads = run_all(IM2COL, marked, options)[result] > run_all(IM2COL, ones, options)[result]
        for algorithm in DIRECT:
            found = run_all(compiled(kernels), arrays, options, algorithm=algorithm)[result]
            assert_array_equal(found[reads], value)
            assert np.isfinite(found[~reads]).all()
        found = run_all(compiled(kernels), arrays, options, algorithm="winograd")[result]
        assert not np.isfinite(found[reads]).any()
        if size % 2 == 0 or stride > 1:  # neighbours of a tile are a dilation apart,
            step = dilation * stride**result  # or back to the images a stride
            steps = (-step, 0, step)
            reads = np.any([np.roll(reads, (y, x), (2, 3)) for y in steps for x in steps], 0)
        assert np.isfinite(found[~reads]).all()


@pytest.mark.parametrize("algorithm", [None, "direct", *ALGORITHMS])
@pytest.mark.parametrize("size, fil_size", [(17, 4), (14, 3), (13, 2), (10, 5)])
@pytest.mark.parametrize("border", ["zeros", "nearest"])
def test_pixels_that_no_output_reads_spoil_nothing(
    kernels, dtype, rng, algorithm, size, fil_size, border
):
    """With a stride the last row and column may be left over, and tiles reach beyond outputs."""
    options = {"strides": 2, "padding_mode": ((1, 0), (0, 0)), "border_mode": border}
    case = (3, 40, size + (size - fil_size) % 2, size, 20, fil_size, fil_size, options)
    if algorithm not in algorithms_for(kernels.explain_conv, case):
        return
    arrays = make_arrays(case, rng.standard_normal, dtype)
    geometry = conv_geometry(*case[2:4], fil_size, fil_size, 2, ((1, 0), (0, 0)), border)
    spoilt = arrays[0].copy()
    spoilt[:, :, 2 * (geometry.out_h - 1) + fil_size - 1 :] = np.nan
    spoilt[..., 2 * (geometry.out_w - 1) + fil_size :] = np.nan
    assert np.isnan(spoilt).any()
    expected, found = (
        run_all(compiled(kernels), [imgs, *arrays[1:]], options, algorithm=algorithm)
        for imgs in (arrays[0], spoilt)
    )
    assert_array_equal(found[0], expected[0])
    if algorithm == "winograd" and border == "zeros":
        assert_array_equal(found[2], expected[2])
