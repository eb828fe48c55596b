"""A table of rounding errors: Linear layers against float64, by the Frobenius norm.

As the layers of networks have them: rectified normal inputs, also far from zero, and normal
weights. For 3136 inputs NumPy's OpenBLAS errs by 2.7e-7 and, far from zero, by 3.8e-7.
"""

import numpy as np
import pytest

OFFSETS = 0, 100, 10_000
TABLE = {  # what is summed, how many: the largest errors of float32, by the offset of the inputs
    ("inputs", 100): (1.1e-7, 1.5e-7, 1.5e-7),
    ("inputs", 576): (1.4e-7, 2.1e-7, 2.2e-7),
    ("inputs", 3136): (1.4e-7, 2.0e-7, 2.0e-7),
    ("inputs", 100_000): (1.6e-7, 2.2e-7, 2.2e-7),
    ("images", 100): (0.9e-7, 1.1e-7, 1.1e-7),
    ("images", 576): (1.0e-7, 1.4e-7, 1.4e-7),
    ("images", 3136): (1.1e-7, 1.4e-7, 1.4e-7),
    ("images", 100_000): (1.3e-7, 1.7e-7, 1.7e-7),
}


@pytest.mark.parametrize("summed, n", TABLE)
def test_errors(kernels, dtype, summed, n):
    rng = np.random.default_rng(5)
    for offset, limit in zip(OFFSETS, TABLE[summed, n], strict=True):
        a = (np.maximum(rng.normal(size=(24, n)), 0) + offset).astype(dtype)
        b = rng.normal(size=(n, 48)).astype(dtype)
        exact = np.longdouble(a) @ np.longdouble(b)
        for b_ in (b, np.asfortranarray(b)):
            out = kernels.matmul(a, b_, over_images=summed == "images")
            error = np.linalg.norm((out - exact).astype(float)) / np.linalg.norm(
                exact.astype(float)
            )
            assert error <= limit * np.finfo(dtype).eps / np.finfo(np.float32).eps
