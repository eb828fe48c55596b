"""Convolutions for the tests of the kernels, small and large, and how to compare the results."""

from functools import cache

import numpy as np
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from nnet import reference
from nnet.geometry import BORDER_MODES, conv_geometry

# n, c, h, w, k, filter h, filter w, options: small enough for plain loops
CASES = {
    "3x3": (2, 3, 5, 6, 4, 3, 3, {}),
    "3x3 one image": (1, 3, 8, 8, 8, 3, 3, {}),
    "3x3 valid": (2, 3, 5, 6, 4, 3, 3, {"padding_mode": "valid"}),
    "3x3 valid, 3 columns left": (2, 2, 9, 5, 3, 3, 3, {"padding_mode": "valid"}),
    "3x3 valid, 1 column left": (2, 2, 9, 3, 3, 3, 3, {"padding_mode": "valid"}),
    "3x3 full": (2, 3, 5, 6, 4, 3, 3, {"padding_mode": "full"}),
    "5x5 grey": (2, 1, 9, 8, 10, 5, 5, {"padding_mode": "valid"}),
    "7x7": (1, 2, 9, 9, 2, 7, 7, {}),
    "1x1": (2, 5, 4, 3, 7, 1, 1, {}),
    "1x1 stride 2": (2, 3, 5, 6, 4, 1, 1, {"strides": (2, 2)}),
    "even 2x2": (2, 2, 5, 4, 3, 2, 2, {}),
    "even 4x4": (1, 2, 6, 7, 3, 4, 4, {}),
    "wide 1x5": (2, 3, 4, 9, 2, 1, 5, {}),
    "tall 5x1": (2, 3, 9, 4, 2, 5, 1, {}),
    "2x3": (2, 2, 6, 7, 3, 2, 3, {}),
    "stride 2": (2, 3, 8, 7, 4, 3, 3, {"strides": (2, 2)}),
    "stride 2x1": (2, 3, 8, 7, 4, 3, 3, {"strides": (2, 1)}),
    "stride 1x3": (2, 3, 8, 7, 4, 3, 3, {"strides": (1, 3)}),
    "stride 3 valid": (2, 2, 11, 10, 3, 3, 3, {"strides": (3, 3), "padding_mode": "valid"}),
    "stride beyond filter": (2, 2, 9, 11, 3, 2, 2, {"strides": (4, 5)}),
    "stride beyond image": (2, 2, 3, 4, 3, 3, 3, {"strides": (7, 9)}),
    "dilation 2": (2, 2, 8, 9, 3, 3, 3, {"dilation": (2, 2)}),
    "dilation 1x3": (2, 2, 8, 9, 3, 3, 3, {"dilation": (1, 3)}),
    "dilation 2 stride 3": (2, 2, 9, 10, 3, 3, 3, {"dilation": (2, 2), "strides": (3, 3)}),
    "dilation 3 stride 2": (2, 2, 9, 10, 3, 3, 2, {"dilation": (3, 3), "strides": (2, 2)}),
    "two groups": (2, 4, 5, 6, 6, 3, 3, {"groups": 2}),
    "three groups stride 2": (2, 6, 7, 6, 3, 3, 3, {"groups": 3, "strides": (2, 2)}),
    "depthwise": (2, 5, 6, 5, 5, 3, 3, {"groups": 5}),
    "depthwise stride 2": (2, 4, 7, 8, 4, 3, 3, {"groups": 4, "strides": (2, 2)}),
    "depth multiplier": (2, 3, 6, 5, 9, 3, 3, {"groups": 3}),
    "one channel per group": (2, 4, 6, 5, 2, 3, 3, {"groups": 2}),
    "explicit pad": (2, 2, 5, 6, 3, 3, 3, {"padding_mode": 2}),
    "pad y x": (2, 2, 5, 6, 3, 3, 3, {"padding_mode": (0, 3)}),
    "pad four": (2, 2, 5, 6, 3, 3, 3, {"padding_mode": ((3, 0), (1, 2))}),
    "pad beyond filter": (1, 2, 3, 4, 3, 2, 3, {"padding_mode": ((5, 4), (7, 6))}),
    "pad beyond filter stride 2": (1, 2, 3, 4, 3, 3, 3, {"padding_mode": 6, "strides": (2, 2)}),
    "filter beyond image": (2, 2, 2, 3, 3, 5, 5, {}),
    "filter beyond image full": (2, 2, 2, 3, 3, 5, 7, {"padding_mode": "full"}),
    "one pixel": (3, 4, 1, 1, 5, 1, 1, {}),
    "one pixel 3x3": (3, 4, 1, 1, 5, 3, 3, {}),
    "one row": (2, 3, 1, 9, 4, 1, 3, {}),
    "one column": (2, 3, 9, 1, 4, 3, 1, {}),
    "nearest": (2, 2, 4, 5, 3, 3, 3, {"border_mode": "nearest"}),
    "nearest far": (2, 2, 2, 3, 3, 2, 2, {"border_mode": "nearest", "padding_mode": 5}),
    "reflect": (2, 2, 5, 4, 3, 5, 5, {"border_mode": "reflect"}),
    "reflect all": (1, 2, 4, 3, 2, 3, 3, {"border_mode": "reflect", "padding_mode": (3, 2)}),
    "wrap": (2, 2, 4, 5, 3, 3, 3, {"border_mode": "wrap"}),
    "wrap all": (1, 2, 3, 4, 2, 3, 3, {"border_mode": "wrap", "padding_mode": ((3, 1), (4, 4))}),
    "symmetric": (2, 2, 5, 4, 3, 5, 5, {"border_mode": "symmetric"}),
    "symmetric all": (1, 2, 4, 3, 2, 4, 2, {"border_mode": "symmetric", "padding_mode": (4, 3)}),
    "symmetric dilated": (
        2,
        4,
        5,
        6,
        4,
        3,
        3,
        {"border_mode": "symmetric", "dilation": 2, "groups": 2},
    ),
    "reflect stride 2": (2, 2, 7, 6, 3, 5, 3, {"border_mode": "reflect", "strides": (2, 2)}),
    "wrap dilated": (2, 4, 5, 6, 4, 3, 3, {"border_mode": "wrap", "dilation": 2, "groups": 2}),
}

# sizes of the size that training uses: where tiles, blocks and threads really cut
LARGE = {
    "3x3": (6, 16, 16, 16, 24, 3, 3, {}),
    "3x3 odd": (5, 13, 15, 17, 19, 3, 3, {}),
    "3x3 one image": (1, 32, 24, 24, 40, 3, 3, {}),
    "5x5 grey": (16, 1, 28, 28, 12, 5, 5, {"padding_mode": "valid"}),
    "5x5 rgb": (3, 3, 32, 32, 12, 5, 5, {}),
    "7x7": (4, 8, 20, 20, 8, 7, 7, {}),
    "1x1": (7, 32, 12, 12, 32, 1, 1, {}),
    "stride 2": (6, 16, 17, 16, 32, 3, 3, {"strides": (2, 2)}),
    "stride 3x1": (4, 8, 20, 21, 16, 4, 4, {"strides": (3, 1)}),
    "depthwise": (6, 32, 16, 16, 32, 3, 3, {"groups": 32}),
    "groups": (6, 16, 16, 16, 32, 3, 3, {"groups": 4, "strides": (1, 2)}),
    "dilation": (6, 16, 16, 16, 16, 3, 3, {"dilation": (2, 2)}),
    "reflect": (6, 8, 16, 16, 16, 5, 5, {"border_mode": "reflect"}),
    "symmetric stride 2": (6, 8, 16, 16, 16, 5, 5, {"border_mode": "symmetric", "strides": (2, 2)}),
    "wrap stride 2": (6, 8, 16, 16, 16, 5, 5, {"border_mode": "wrap", "strides": (2, 2)}),
    "many small images": (33, 16, 4, 4, 24, 3, 3, {}),
}


def make_arrays(case, draw, dtype=np.float64):
    """Images, filters, output gradient and bias for a case; `draw(shape)` makes the values."""
    n, c, h, w, k, fil_h, fil_w, options = case
    spatial = {name: value for name, value in options.items() if name != "groups"}
    out = conv_geometry(h, w, fil_h, fil_w, **spatial)
    shapes = (
        (n, c, h, w),
        (c // options.get("groups", 1), k, fil_h, fil_w),
        (n, k, out.out_h, out.out_w),
        (k,),
    )
    return [draw(shape).astype(dtype) for shape in shapes]


def whole(n_imgs, seed=0):
    """Draws small multiples of n_imgs, so that a mean over the images is whole too."""
    rng = np.random.default_rng(seed)
    return lambda shape: rng.integers(-3, 4, shape) * float(max(n_imgs, 1))


def run_all(functions, arrays, options, **keywords):
    """convout, imgs_grad, filters_grad of one implementation."""
    conv, bprop = functions
    imgs, filters, convout_grad = arrays[:3]
    convout = conv(imgs, filters, **options, **keywords)
    return (convout, *bprop(imgs, convout_grad, filters, **options, **keywords))


def compiled(kernels):
    return kernels.conv_bc01, kernels.bprop_conv_bc01


LOOPS = reference.conv_bc01, reference.bprop_conv_bc01
IM2COL = reference.conv_bc01_im2col, reference.bprop_conv_bc01_im2col


@cache  # the loops are slow: once for all targets and dtypes
def expected_by_loops(name):
    case = CASES[name]
    return run_all(LOOPS, make_arrays(case, whole(case[0])), case[-1])


def assert_exact(actual, expected, dtype):
    for array, values in zip(actual, expected, strict=True):
        assert array.dtype == dtype and array.flags.c_contiguous and array.flags.writeable
        assert_array_equal(array, values.astype(dtype), strict=True)


def check_exact(kernels, case, dtype, seed=0):
    """Bit for bit what the matrix products of the reference give, on whole numbers."""
    arrays = make_arrays(case, whole(case[0], seed))
    expected = run_all(IM2COL, arrays, case[-1])
    actual = run_all(compiled(kernels), [a.astype(dtype) for a in arrays], case[-1])
    assert_exact(actual, expected, dtype)


@st.composite
def any_case(draw, max_feats=9, max_filter=6):
    """A random convolution; one that cannot be is brought back by zeros, then 'same' padding."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 5]))
    per_group = st.integers(1, (max_feats - 1) // 2 if groups > 1 else max_feats)
    pad = st.integers(0, 8)
    sizes = [draw(st.integers(0, 4)), groups * draw(per_group)]
    sizes += [draw(st.integers(1, 14)), draw(st.integers(1, 20)), groups * draw(per_group)]
    sizes += [draw(st.integers(1, max_filter)), draw(st.integers(1, max_filter))]
    words = st.sampled_from(["same", "valid", "full"])
    options = {
        "strides": draw(st.one_of(st.just((1, 1)), st.tuples(*[st.integers(1, 7)] * 2))),
        "dilation": draw(st.one_of(st.just((1, 1)), st.tuples(*[st.integers(1, 3)] * 2))),
        "padding_mode": draw(
            st.one_of(words, pad, st.tuples(pad, pad), st.tuples(*[st.tuples(pad, pad)] * 2))
        ),
        "border_mode": draw(st.sampled_from(BORDER_MODES)),
    }
    for repair in ({}, {"border_mode": "zeros"}, {"padding_mode": "same"}):
        options.update(repair)
        try:
            conv_geometry(*sizes[2:4], *sizes[5:7], **options)
        except ValueError:
            continue
        return (*sizes, {**options, "groups": groups})
