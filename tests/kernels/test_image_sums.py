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
