"""The convolution kernels with arrays of every kind: layouts, given outputs, empty batches."""

import numpy as np
import pytest
from convolutions import CASES, IM2COL, assert_exact, compiled, make_arrays, run_all, whole
from layouts import misaligned, read_only
from numpy.testing import assert_array_equal


def channels_last(array):
    if array.ndim < 4:
        return array
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


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
