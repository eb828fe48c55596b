"""The first steps: known numbers, SciPy, and the kernels' specification on the same data."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import signal

from nnet import reference


def gains(loss, array):
    """What loss() gains when each element in turn grows by one: the slope, if loss is linear."""
    before, gain = loss(), np.empty_like(array)
    for i in np.ndindex(array.shape):
        array[i] += 1
        gain[i] = loss() - before
        array[i] -= 1
    return gain


def test_known_numbers_in_1d():
    inp, param = [1, 2, 3, 4, 5], [1, 1, 1]
    assert_array_equal(reference.conv_1d(inp, param), [3, 6, 9, 12, 9])
    for output_grad in (None, np.ones(5)):
        assert_array_equal(reference.input_1d_grads(inp, param, output_grad), [2, 3, 3, 3, 2])
        assert_array_equal(reference.param_1d_grads(inp, param, output_grad), [10, 15, 14])


def test_known_numbers_of_a_batch():
    batch, param = [[1, 2, 3, 4, 5], [0, 1, 2, 3, 4]], [1, 1, 1]
    assert_array_equal(reference.conv_1d_batch(batch, param), [[3, 6, 9, 12, 9], [1, 3, 6, 9, 7]])
    assert_array_equal(reference.input_1d_grads_batch(batch, param), [[2, 3, 3, 3, 2]] * 2)
    # A sum over the batch: [10, 15, 14] and [6, 10, 10].
    param_grad = reference.param_1d_grads_batch(batch, param)
    assert_array_equal(param_grad, [16, 25, 24])
    param = np.array(param)
    assert_array_equal(
        param_grad, gains(lambda: reference.conv_1d_batch(batch, param).sum(), param)
    )


def test_known_numbers_in_2d():
    inp = np.arange(1, 10).reshape(3, 3)
    ones = np.ones((3, 3))
    assert_array_equal(reference.conv_2d(inp, ones), [[12, 21, 16], [27, 45, 33], [24, 39, 28]])
    assert_array_equal(reference.input_2d_grads(inp, ones), [[4, 6, 4], [6, 9, 6], [4, 6, 4]])
    sums = [[12, 21, 16], [27, 45, 33], [24, 39, 28]]  # of the image shifted each way
    assert_array_equal(reference.param_2d_grads(inp, ones), sums)
    batch = np.stack([inp, 10 * inp])
    assert_array_equal(reference.conv_2d_batch(batch, ones)[1], 10 * np.array(sums))
    assert_array_equal(reference.param_2d_grads_batch(batch, ones), 11 * np.array(sums))
    assert_array_equal(
        reference.input_2d_grads_batch(batch, ones)[1], [[4, 6, 4], [6, 9, 6], [4, 6, 4]]
    )


@pytest.mark.parametrize("size", [1, 2, 5, 8])
@pytest.mark.parametrize("param_size", [1, 2, 3, 4, 5, 7])
def test_1d_equals_scipy_and_its_own_gains(rng, size, param_size):
    """Even lengths too: padding is split with the smaller half first."""
    inp, param, output_grad = (rng.integers(-9, 9, s) for s in (size, param_size, size))
    before = (param_size - 1) // 2
    padded = np.pad(inp, (before, param_size - 1 - before))
    expected = signal.correlate(padded, param, "valid", method="direct")
    assert_array_equal(reference.conv_1d(inp, param), expected)

    def loss():
        return reference.conv_1d(inp, param) @ output_grad

    assert_array_equal(reference.input_1d_grads(inp, param, output_grad), gains(loss, inp))
    assert_array_equal(reference.param_1d_grads(inp, param, output_grad), gains(loss, param))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (5, 2), (4, 4)])
@pytest.mark.parametrize("param_shape", [(1, 1), (3, 3), (2, 3), (1, 4), (5, 2)])
def test_2d_equals_scipy_and_its_own_gains(rng, shape, param_shape):
    inp, param, output_grad = (rng.integers(-9, 9, s) for s in (shape, param_shape, shape))
    pads = [((p - 1) // 2, p // 2) for p in param_shape]
    expected = signal.correlate2d(np.pad(inp, pads), param, "valid")
    assert_array_equal(reference.conv_2d(inp, param), expected)

    def loss():
        return np.vdot(reference.conv_2d(inp, param), output_grad)

    assert_array_equal(reference.input_2d_grads(inp, param, output_grad), gains(loss, inp))
    assert_array_equal(reference.param_2d_grads(inp, param, output_grad), gains(loss, param))


@pytest.mark.parametrize("param_shape", [(1, 3), (1, 2), (1, 4), (1, 5)])
def test_the_first_steps_agree_with_the_kernels(rng, param_shape):
    """A signal is an image of height 1; where kernels take a mean, the batch forms sum."""
    inp, param, grad = (rng.integers(-4, 5, s) * 1.0 for s in ((3, 6), param_shape, (3, 6)))
    arrays = inp[:, None, None], grad[:, None, None], param[None, None]
    imgs_grad, filters_grad = reference.bprop_conv_bc01(*arrays)
    convout = reference.conv_bc01(arrays[0], arrays[2])
    assert_array_equal(reference.conv_1d_batch(inp, param[0]), convout[:, 0, 0])
    assert_array_equal(reference.input_1d_grads_batch(inp, param[0], grad), imgs_grad[:, 0, 0])
    param_grad = reference.param_1d_grads_batch(inp, param[0], grad)
    assert_allclose(param_grad, 3 * filters_grad[0, 0, 0])

    assert_array_equal(reference.conv_2d_batch(inp[:, None], param), convout[:, 0])
    imgs_2d_grad = reference.input_2d_grads_batch(inp[:, None], param, grad[:, None])
    assert_array_equal(imgs_2d_grad, imgs_grad[:, 0])
    param_2d_grad = reference.param_2d_grads_batch(inp[:, None], param, grad[:, None])
    assert_array_equal(param_2d_grad, param_grad[None])


def test_first_steps_keep_dtypes_and_do_not_overflow():
    assert reference.conv_1d(np.ones(3, np.float32), np.ones(3, np.float32)).dtype == np.float32
    assert reference.conv_1d([1.5, 2], [1]).dtype == np.float64
    assert_array_equal(reference.conv_1d(np.full(3, 200, np.uint8), [1, 1, 1]), [400, 600, 400])
    assert_array_equal(reference.conv_1d([True, True], [True]), [1, 1])
    assert reference.conv_1d_batch(np.ones((0, 4)), [1]).shape == (0, 4)
    assert_array_equal(reference.param_1d_grads_batch(np.ones((0, 4)), [1, 2]), [0, 0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: reference.conv_1d([[1, 2]], [1]),
            ValueError,
            r"inp has shape \(1, 2\), expected 1",
        ),
        (
            lambda: reference.conv_1d_batch([1, 2], [1]),
            ValueError,
            r"inp has shape \(2,\), expected 2",
        ),
        (
            lambda: reference.conv_2d([[1]], [1]),
            ValueError,
            r"param has shape \(1,\), expected 2",
        ),
        (lambda: reference.conv_1d([1, 2], []), ValueError, "no empty axis"),
        (lambda: reference.conv_1d(["a"], [1]), TypeError, "expected real numbers"),
        (lambda: reference.conv_1d([1j], [1]), TypeError, "expected real numbers"),
        (
            lambda: reference.input_1d_grads([1, 2], [1], [1]),
            ValueError,
            r"output_grad .*expected \(2,\)",
        ),
        (lambda: reference.param_2d_grads([[1]], [[1]], [1]), ValueError, "output_grad"),
    ],
)
def test_first_steps_refuse_what_does_not_fit(call, error, message):
    with pytest.raises(error, match=message):
        call()
