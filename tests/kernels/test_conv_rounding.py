"""How far convolutions in float32 are from float64: a table by implementation.

The relative Frobenius norm of the error for 3x3 filters of 64 channels on 16x16 rectified normal
pixels, which lie `offset` away from zero, with normal weights. PyTorch's contiguous convolution
and onnxruntime's err by 1.5e-7 without an offset. Bounds are a tenth above the largest of what
baseline, AVX2 and AVX-512 were measured to have.
"""

import numpy as np
import pytest

# offset: error of the outputs, of the images' gradient and of the filters', in 1e-7
BOUNDS = {
    "direct_pixels": {0: (1.7, 2.4, 1.7), 100: (2.2, 2.4, 2.1), 10_000: (2.2, 2.4, 2.5)},
    "direct_features": {0: (1.7, 2.4, 2.2), 100: (2.2, 2.4, 3.1), 10_000: (2.1, 2.4, 3.4)},
    "winograd": {0: (1.7, 2.0, 2.7), 100: (1.2, 2.0, 2.1), 10_000: (1.3, 2.0, 2.2)},
}


def error(found, exact):
    return 1e7 * np.linalg.norm(found - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize("offset", [0, 100, 10_000])
@pytest.mark.parametrize("algorithm", BOUNDS)
def test_errors_of_single_precision(kernels, algorithm, offset):
    rng = np.random.default_rng(0)
    filters = rng.standard_normal((64, 64, 3, 3)).astype(np.float32)
    imgs = (np.maximum(rng.standard_normal((4, 64, 16, 16)), 0) + offset).astype(np.float32)
    grad = rng.standard_normal(imgs.shape).astype(np.float32)
    found = [
        kernels.conv_bc01(imgs, filters, algorithm=algorithm),
        *kernels.bprop_conv_bc01(imgs, grad, filters, algorithm=algorithm),
    ]
    imgs, grad, filters = imgs.astype(float), grad.astype(float), filters.astype(float)
    exact = kernels.conv_bc01(imgs, filters), *kernels.bprop_conv_bc01(imgs, grad, filters)
    errors = list(map(error, found, exact))
    assert all(0.2 < e <= bound for e, bound in zip(errors, BOUNDS[algorithm][offset])), errors
