"""Sums over images: those of parts of a batch, put together, have the bits of the whole batch.

Parts start at multiples of 16 * 2^l images, of which each has 2^l chunks: nodes of the tree
that nnet/kernels/common/chunks.h describes.
"""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

N_IMGS = [16, 17, 31, 32, 64, 65, 100, 128, 300]


def put_together(parts):
    """Along a binary tree: the left half plus the right one, if there is one."""
    while len(parts) > 1:
        parts = [sum(parts[i + 1 : i + 2], parts[i]) for i in range(0, len(parts), 2)]
    return parts[0]


def parts_of(n_imgs, size):
    return [slice(first, first + size) for first in range(0, n_imgs, size)]


@pytest.mark.parametrize("size", [16, 32, 64])
def test_gradients_of_a_dense_layer(kernels, dtype, rng, size):
    for n_imgs in N_IMGS:
        for n_in, n_out in ((1, 1), (5, 10), (20, 33), (9, 100)):
            imgs = rng.normal(size=(n_imgs, n_in)).astype(dtype)
            grad = rng.normal(size=(n_imgs, n_out)).astype(dtype)

            def sums(part, divisor=1, n_threads=1):
                bias_grad = np.empty(n_out, dtype)  # noqa: B023
                W_grad = kernels.matmul(
                    imgs[part].T,  # noqa: B023
                    grad[part],  # noqa: B023
                    divisor=divisor,
                    over_images=True,
                    column_sums=bias_grad,
                    n_threads=n_threads,
                )
                return np.vstack([W_grad, bias_grad])

            whole = sums(slice(None))
            np.testing.assert_allclose(
                whole, np.vstack([imgs.T @ grad, grad.sum(0)]), rtol=1e-4, atol=1e-4
            )
            assert_array_equal(put_together([sums(part) for part in parts_of(n_imgs, size)]), whole)
            assert_array_equal(sums(slice(None), 3, n_threads=3), whole / dtype.type(3))


def test_sums_of_columns(kernels, dtype):
    """Of integers they are exact, in any layout; of no images they are 0."""
    grad = np.arange(600, dtype=dtype).reshape(50, 12)
    memory = np.zeros((12, 2), dtype)
    for given in (grad, np.asfortranarray(grad)):
        kernels.matmul(grad.T, given, over_images=True, column_sums=memory[:, 1])
        assert_array_equal(memory[:, 1], grad.sum(0))
    kernels.matmul(grad[:0].T, grad[:0], over_images=True, column_sums=memory[:, 1])
    assert_array_equal(memory, 0)
    with pytest.raises(ValueError, match="column_sums has shape"):
        kernels.matmul(grad.T, grad, column_sums=memory[:, 0][:5])
    other = grad.copy()
    with pytest.raises(ValueError, match="column_sums overlaps b"):
        kernels.matmul(grad.T, other, column_sums=other[0])
    out = np.empty((12, 12), dtype)
    with pytest.raises(ValueError, match="column_sums overlaps out"):
        kernels.matmul(grad.T, grad, out, column_sums=out[0])


@pytest.mark.parametrize("shape", [(3,), (40, 1, 1), (5, 8, 16)])
@pytest.mark.parametrize("n_imgs", [32, 64, 80, 256])
def test_statistics_of_batches(kernels, rng, shape, n_imgs):
    """Halves of 2^k images make the whole, to the bit: in float64, as nothing is rounded after."""
    imgs = rng.normal(3, 2, (n_imgs, *shape))
    ones = np.ones(shape[0])

    def moments(part):
        """The mean, and the sum of squared deviations; nothing but powers of 2 divides it."""
        n_values = imgs[part].size // shape[0]
        mean, squares = np.zeros((2, shape[0]))
        # images of weight w count for n * w values: the variance is squares / (n - 1 / w)
        weights = np.full(len(imgs[part]), 2.0**60)
        kernels.batch_norm(imgs[part], ones, ones, mean, squares, momentum=1, weights=weights)
        return n_values, mean, squares * n_values

    def join(left, right):
        (n, mean, squares), (m, other_mean, other_squares) = left, right
        distance = other_mean - mean
        squares = squares + (other_squares + distance * distance * (n * m / (n + m)))
        return n + m, mean + distance * (m / (n + m)), squares

    half = 1 << (n_imgs - 1).bit_length() - 1
    parts = slice(half), slice(half, n_imgs)
    n, mean, squares = moments(slice(None))
    expected_n, expected_mean, expected_squares = join(*map(moments, parts))
    assert n == expected_n
    compare = assert_array_equal if n_imgs == 2 * half else nearly_equal
    compare(mean, expected_mean)
    compare(squares, expected_squares)


def nearly_equal(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-14)


@pytest.mark.parametrize("shape", [(3,), (40, 1, 1), (4, 7, 9)])
@pytest.mark.parametrize("n_imgs", [16, 31, 64, 65, 100, 300])
@pytest.mark.parametrize("n_groups", [None, 1])
def test_sums_of_gradients_of_norms(kernels, rng, shape, n_imgs, n_groups):
    """Of batch norm and of group norm; scales are powers of 2, so that they round nothing."""
    imgs, grad = rng.normal(size=(2, n_imgs, *shape))
    ones = np.ones(shape[0])
    statistics_shape = (shape[0],) if n_groups is None else (n_imgs, n_groups)
    mean, inv_std = np.full(statistics_shape, 0.25), np.full(statistics_shape, 0.5)

    def sums(part, n_threads=1):
        rows = slice(None) if n_groups is None else part
        call = kernels.bprop_batch_norm if n_groups is None else kernels.bprop_group_norm
        given = imgs[part], grad[part], ones, ones, mean[rows], inv_std[rows]
        _, *grads = call(*given, n_threads=n_threads)
        return np.array(grads) * len(imgs[part])

    whole = sums(slice(None))
    np.testing.assert_allclose(
        whole[1] * n_imgs, grad.sum(axis=(0, *range(2, grad.ndim))) * n_imgs, rtol=1e-9, atol=1e-9
    )
    for size in (16, 32, 128):
        parts = [sums(part) for part in parts_of(n_imgs, size)]
        together = put_together(parts) / n_imgs * n_imgs
        if n_imgs & (n_imgs - 1) == 0:
            assert_array_equal(together, whole)
        nearly_equal(together, whole)
    assert_array_equal(sums(slice(None), 3), whole)
