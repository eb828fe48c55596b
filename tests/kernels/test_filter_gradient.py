"""The gradient of the filters in each of its forms, whatever the library would choose.

Whole numbers again, so that all forms agree bit for bit.
"""

import tracemalloc
from importlib import import_module

import numpy as np
import pytest
from convolutions import CASES, LARGE, any_case, make_arrays, whole
from hypothesis import given, settings
from numpy.testing import assert_array_equal
from test_conv_algorithms import fits_winograd

from nnet import reference

FORMS = [
    "direct_pixels",
    "direct_features_plain",
    "direct_features_swapped",
    "winograd",
    "depthwise",
]
FAMILIES = [None, "direct", "planes", "pixels", "winograd"]

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


def explain(kernels, case, dtype=np.float32, algorithm=None):
    """(name, cycles or None, taken) of each form for a case."""
    name = "nnet._conv" if kernels.target == "baseline" else f"nnet._conv_{kernels.target}"
    imgs, filters = make_arrays(case, np.zeros)[:2]
    function = import_module(name).explain_filters_gradient
    return function(imgs.shape, filters.shape, dtype, algorithm=algorithm, **case[-1])


def forms_for(kernels, case, dtype):
    return [name for name, cycles, _ in explain(kernels, case, dtype) if cycles is not None]


def check_forms(kernels, case, dtype, names=None, seed=0, threads=(None,)):
    """Every form that accepts a case, or the algorithms of these names."""
    imgs, filters, grad, _ = make_arrays(case, whole(case[0], seed))
    expected = reference.bprop_conv_bc01_im2col(imgs, grad, filters, **case[-1])[1]
    bias = grad.sum((0, 2, 3)) / max(case[0], 1)
    arrays = [array.astype(dtype) for array in (imgs, grad, filters)]
    for name in names or forms_for(kernels, case, dtype):
        if name == "winograd" and not fits_winograd(case):
            continue
        for n_threads in threads:
            bias_grad = np.empty(case[4], dtype)
            actual = kernels.bprop_conv_bc01(
                *arrays, need_imgs_grad=False, bias_grad=bias_grad, algorithm=name,
                n_threads=n_threads, **case[-1],
            )[1]  # fmt: skip
            assert_array_equal(actual, expected.astype(dtype), strict=True, err_msg=name)
            assert_array_equal(bias_grad, bias.astype(dtype), strict=True, err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_every_form_equals_the_reference(kernels, dtype, name):
    check_forms(kernels, CASES[name], dtype)
    check_forms(kernels, CASES[name], dtype, FAMILIES)


@pytest.mark.parametrize("name", UNEVEN)
def test_uneven_bands_stacks_and_blocks(kernels, dtype, name):
    check_forms(kernels, UNEVEN[name], dtype, threads=(1, 2, 3))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=any_case())
def test_every_form_of_any_geometry(kernels, dtype, case):
    check_forms(kernels, case, dtype)


# --- the choice ---------------------------------------------------------------


def test_forms_are_listed(kernels, dtype):
    for case in CASES.values():
        forms = explain(kernels, case, dtype)
        assert [name for name, _, _ in forms] == FORMS
        fewest = min(cycles for _, cycles, _ in forms if cycles is not None)
        assert [cycles for _, cycles, taken in forms if taken] == [fewest]
        for name in forms_for(kernels, case, dtype):
            forced = explain(kernels, case, dtype, name)
            assert [form for form, _, taken in forced if taken] == [name]


def test_the_number_of_images_does_not_choose(kernels):
    for case in LARGE.values():
        assert explain(kernels, case) == explain(kernels, (1000, *case[1:]))


# --- sums over images ---------------------------------------------------------

TREES = {  # of an image and its filters; a leaf has at most 128 images, in any form
    "3x3": (5, 7, 6, 9, 3, 3, {}),
    "stride 2": (6, 9, 9, 5, 3, 3, {"strides": 2}),
    "depthwise": (4, 8, 12, 4, 3, 3, {"groups": 4}),
    "1x1": (17, 3, 3, 18, 1, 1, {}),
    "symmetric": (3, 6, 5, 4, 3, 3, {"border_mode": "symmetric"}),
}


@pytest.mark.parametrize("parts", [(128, 128), (256, 256), (256, 128), (512, 256, 64), (128, 8)])
@pytest.mark.parametrize("name", TREES)
def test_parts_of_a_batch_add_up_to_its_bits(kernels, dtype, rng, name, parts):
    """The last two first: each node is the left half plus the right one, as far as there is one."""
    case = (sum(parts), *TREES[name])
    imgs, filters, grad, _ = make_arrays(case, rng.standard_normal, dtype)

    def means(form, first, n, n_threads=None):
        bias = np.empty(case[4], dtype)
        mean = kernels.bprop_conv_bc01(
            imgs[first : first + n], grad[first : first + n], filters, need_imgs_grad=False,
            bias_grad=bias, algorithm=form, n_threads=n_threads, **case[-1],
        )[1]  # fmt: skip
        return mean, bias

    def sums(form, first, n):
        return [mean * dtype.type(n) for mean in means(form, first, n)]  # exact: a power of two

    for form in forms_for(kernels, case, dtype):
        *nodes, total = [sums(form, sum(parts[:i]), n) for i, n in enumerate(parts)]
        for node in nodes[::-1]:
            total = [left + right for left, right in zip(node, total)]
        for n_threads in (1, 2, 3):
            for mean, summed in zip(means(form, 0, case[0], n_threads), total):
                assert_array_equal(mean, summed / dtype.type(case[0]), err_msg=form)


def test_memory_does_not_grow_with_the_batch(kernels):
    def peak(n_imgs, form):
        imgs, grad = (np.ones((n_imgs, 16, 4, 4), np.float32) for _ in range(2))
        filters = np.ones((16, 16, 3, 3), np.float32)
        options = {"need_imgs_grad": False, "algorithm": form, "n_threads": 2}
        tracemalloc.start()
        kernels.bprop_conv_bc01(imgs, grad, filters, **options)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    for form in FORMS[:4]:  # the largest first: memory is kept for later calls
        assert peak(10_000, form) < 3e6, form


@pytest.mark.parametrize("form", [None, *FORMS[:4]])
@pytest.mark.parametrize("name", LARGE)
def test_thread_counts_give_the_same_bits(kernels, dtype, rng, name, form):
    if form not in [None, *forms_for(kernels, LARGE[name], dtype)]:
        return
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
