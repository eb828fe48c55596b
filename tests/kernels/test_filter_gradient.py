"""The gradient of the filters in each of its forms, whatever the library would choose.

Whole numbers again, so that all forms agree bit for bit: 'planes' keeps pixels in
the lanes, 'pixels' features, 'winograd' transforms.
"""

import numpy as np
import pytest
from convolutions import CASES, LARGE, any_case, make_arrays, whole
from hypothesis import given, settings
from numpy.testing import assert_array_equal
from test_conv_algorithms import fits_winograd

from nnet import reference

FORMS = ["direct", "planes", "pixels", "winograd"]

# sizes at which bands of rows, stacks of images and blocks of taps end unevenly
UNEVEN = {
    "bands of tiles": (2, 40, 37, 29, 40, 3, 3, {}),
    "bands of pixels": (1, 48, 61, 50, 48, 2, 3, {"strides": (1, 2)}),
    "stacks of one pixel": (70, 9, 1, 1, 33, 1, 1, {}),
    "stacks of tiles": (19, 33, 5, 3, 17, 3, 3, {"padding_mode": "full"}),
    "pieces of filters": (3, 9, 13, 27, 19, 5, 7, {}),
    "pieces in bands": (2, 40, 29, 33, 40, 4, 5, {"padding_mode": "full"}),
    "pieces in stacks": (19, 33, 5, 3, 17, 7, 2, {"padding_mode": "full"}),
    "phases in bands": (2, 40, 45, 67, 40, 3, 5, {"strides": (2, 2)}),
    "phases in stacks": (19, 33, 7, 5, 17, 4, 7, {"strides": (2, 2), "padding_mode": "full"}),
    "a column never read": (6, 32, 17, 17, 32, 6, 6, {"strides": (2, 2), "padding_mode": "valid"}),
    "the same, padded": (5, 9, 19, 19, 17, 6, 10, {"strides": 2, "padding_mode": ((2, 0), (2, 0))}),
    "pieces in groups": (3, 34, 9, 8, 38, 5, 4, {"groups": 2}),
    "stacks of planes": (37, 2, 7, 5, 11, 3, 3, {}),
    "a long row": (5, 2, 1, 301, 7, 1, 9, {}),
    "a long column": (5, 2, 301, 1, 7, 9, 1, {}),
    "depthwise 5x5": (9, 6, 13, 29, 6, 5, 5, {"groups": 6}),
    "depthwise 7x7 stride 2": (5, 4, 31, 33, 12, 7, 7, {"groups": 4, "strides": (2, 2)}),
    "depthwise dilated": (5, 4, 18, 16, 4, 5, 3, {"groups": 4, "dilation": (2, 3)}),
    "bands of runs": (2, 3, 190, 97, 17, 3, 3, {"strides": (1, 2)}),
    "a run of several vectors": (3, 5, 40, 61, 3, 3, 7, {"padding_mode": ((3, 0), (1, 4))}),
    "runs of groups": (5, 6, 17, 23, 14, 3, 5, {"groups": 2, "border_mode": "reflect"}),
    "runs of a cut image": (2, 4, 23, 31, 9, 2, 4, {"strides": (3, 3), "padding_mode": "valid"}),
    "wide groups": (3, 34, 9, 8, 38, 3, 3, {"groups": 2}),
}


def check_form(kernels, case, dtype, form, seed=0, **options):
    imgs, filters, grad, _ = make_arrays(case, whole(case[0], seed))
    expected = reference.bprop_conv_bc01_im2col(imgs, grad, filters, **case[-1])[1]
    if form == "winograd" and not fits_winograd(case):
        form = None
    actual = kernels.bprop_conv_bc01(
        *(array.astype(dtype) for array in (imgs, grad, filters)),
        need_imgs_grad=False, algorithm=form, **case[-1], **options,
    )[1]  # fmt: skip
    assert_array_equal(actual, expected.astype(dtype), strict=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_every_form_equals_the_reference(kernels, dtype, name, form):
    check_form(kernels, CASES[name], dtype, form)


@pytest.mark.parametrize("form", [None, *FORMS])
@pytest.mark.parametrize("name", UNEVEN)
def test_uneven_bands_stacks_and_blocks(kernels, dtype, name, form):
    check_form(kernels, UNEVEN[name], dtype, form)
    check_form(kernels, UNEVEN[name], dtype, form, n_threads=3)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=any_case())
def test_every_form_of_any_geometry(kernels, dtype, case):
    for form in FORMS:
        check_form(kernels, case, dtype, form)


@pytest.mark.parametrize("form", FORMS[1:3])
@pytest.mark.parametrize("name", LARGE)
def test_thread_counts_give_the_same_bits(kernels, dtype, rng, name, form):
    imgs, filters, grad, _ = make_arrays(LARGE[name], rng.standard_normal, dtype)
    results = {
        kernels.bprop_conv_bc01(
            imgs,
            grad,
            filters,
            need_imgs_grad=False,
            algorithm=form,
            n_threads=n,
            **LARGE[name][-1],
        )[1].tobytes()
        for n in (1, 2, 3, 5)
    }
    assert len(results) == 1


@pytest.mark.parametrize(
    "case",
    [
        (16, 32, 16, 16, 32, 3, 3, {}),
        (32, 64, 8, 8, 16, 3, 3, {}),
        (5, 16, 13, 27, 48, 3, 3, {}),
        (64, 32, 4, 4, 32, 3, 3, {}),
        (32, 12, 14, 14, 16, 5, 5, {}),
        (16, 32, 16, 16, 32, 7, 7, {}),
        (16, 32, 16, 16, 32, 3, 3, {"strides": (2, 2)}),
    ],
)
def test_winograd_is_about_as_accurate_as_the_direct_sum(kernels, rng, case):
    imgs, filters, grad, _ = make_arrays(case, rng.standard_normal, np.float32)
    exact = reference.bprop_conv_bc01_im2col(
        *(array.astype(np.float64) for array in (imgs, grad, filters)), **case[-1]
    )[1]
    errors = []
    for form in ("winograd", "pixels"):
        result = kernels.bprop_conv_bc01(imgs, grad, filters, algorithm=form, **case[-1])[1]
        errors.append(np.sqrt(np.mean((result - exact) ** 2)))
    assert errors[0] < 2 * errors[1]
