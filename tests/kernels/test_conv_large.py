"""Large planes: many tiles and strips, and rows that lie a page apart."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from nnet import reference
from nnet.geometry import BORDER_MODES

SHAPES = {  # imgs, filters, groups
    "grey": ((2, 1, 131, 500), (1, 1, 3, 3), 1),
    "even filter": ((1, 1, 150, 400), (1, 1, 6, 4), 1),
    "tall filter": ((1, 1, 240, 400), (1, 1, 41, 3), 1),
    "depthwise": ((2, 3, 100, 450), (1, 3, 5, 5), 3),
    "rows a page apart": ((1, 1, 150, 1024), (1, 1, 3, 3), 1),
    "narrow": ((1, 1, 1900, 36), (1, 1, 3, 15), 1),
    "depth multiplier": ((1, 2, 140, 333), (1, 4, 4, 2), 2),
}
OPTIONS = {
    "same": {},
    "full": {"padding_mode": "full"},
    "wide pads": {"padding_mode": ((7, 50), (9, 0))},
    "no pad above": {"padding_mode": ((0, 3), (1, 2))},
    "one column": {"padding_mode": ((0, 0), (1, 0))},
    "dilation along rows": {"dilation": (1, 3)},
    "dilation": {"dilation": (2, 1)},
    "strides": {"strides": (1, 2)},
}


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize(
    ("options", "border_mode"),
    [
        *(("same", border_mode) for border_mode in BORDER_MODES),
        *((options, "zeros") for options in list(OPTIONS)[1:]),
        ("wide pads", "symmetric"),
        ("one column", "nearest"),
    ],
)
def test_equals_the_matrix_product(kernels, dtype, rng, shapes, options, border_mode):
    imgs_shape, filters_shape, groups = SHAPES[shapes]
    options = {**OPTIONS[options], "border_mode": border_mode, "groups": groups}
    imgs = rng.integers(-3, 4, imgs_shape).astype(dtype)
    filters = rng.integers(-3, 4, filters_shape).astype(dtype)
    bias = rng.integers(-9, 9, filters_shape[1]).astype(dtype)
    more = {"bias": bias, "activation": "relu"}
    expected = reference.conv_bc01_im2col(imgs, filters, **options, **more)
    for algorithm in (None, "direct"):
        found = kernels.conv_bc01(imgs, filters, **options, **more, algorithm=algorithm)
        assert_array_equal(found, expected)
    grad = rng.integers(-3, 4, expected.shape).astype(dtype)
    expected, _ = reference.bprop_conv_bc01_im2col(imgs, grad, filters, **options)
    found, _ = kernels.bprop_conv_bc01(imgs, grad, filters, **options, need_filters_grad=False)
    assert_array_equal(found, expected)


def test_one_infinity_stays_in_its_windows(kernels, dtype):
    imgs = np.zeros((1, 1, 200, 400), dtype)
    for y in (0, 31, 100, 199):
        imgs[0, 0, y, 200] = np.inf
    for border_mode in BORDER_MODES:
        found = kernels.conv_bc01(imgs, np.ones((1, 1, 3, 3), dtype), border_mode=border_mode)
        rows, cols = np.nonzero(found[0, 0])
        assert set(cols) == {199, 200, 201}
        near = {0, 1, 30, 31, 32, 99, 100, 101, 198, 199}
        assert set(rows) == (near | ({0, 199} if border_mode == "wrap" else set()))
