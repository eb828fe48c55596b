"""The convolution kernels against their specification, for every built target and dtype.

Most of the data is whole numbers: every sum is then exact in any order, so the
kernels must agree with the plain loops of `nnet.reference` bit for bit.
"""

import numpy as np
import pytest
from convolutions import (
    CASES,
    IM2COL,
    LARGE,
    any_case,
    assert_exact,
    check_exact,
    compiled,
    expected_by_loops,
    make_arrays,
    run_all,
    whole,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import nnet

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


@pytest.mark.parametrize(
    "name",
    ["3x3", "stride 2x1", "dilation 2 stride 3", "depth multiplier", "pad beyond filter"]
    + ["reflect", "wrap all", "nearest"],
)
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
    imgs_grad = np.full_like(imgs, np.nan)
    alone = kernels.bprop_conv_bc01(
        None, convout_grad, filters, imgs_grad, need_filters_grad=False, **case[-1]
    )
    assert alone[0] is imgs_grad and alone[1] is None
    assert_array_equal(imgs_grad, both[0], strict=True)


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
