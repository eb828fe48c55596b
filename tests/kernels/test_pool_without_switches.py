"""Maxima without switches: those with them, bit for bit, and nothing else is written."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from test_pool import CASES, KINDS, draw

from nnet import reference
from nnet.geometry import pool_geometry


def check(kernels, imgs, sizes, **options):
    """The same poolout, zeros with their signs, and None for switches."""
    expected, _ = kernels.pool_bc01(imgs, None, None, *sizes, **options)
    out = np.empty_like(expected)
    poolout, switches = kernels.pool_bc01(imgs, out, None, *sizes, need_switches=False, **options)
    assert poolout is out and switches is None
    assert_array_equal(poolout, expected)
    assert_array_equal(np.signbit(poolout)[expected == 0], np.signbit(expected)[expected == 0])


@pytest.mark.parametrize("kind", [*KINDS, "zeros"])
@pytest.mark.parametrize("name", CASES)
def test_the_same_maxima(kernels, dtype, name, kind):
    shape, sizes, padding_mode = CASES[name]
    rng = np.random.default_rng(len(name))
    imgs = rng.choice([0.0, -0.0], shape) if kind == "zeros" else draw(shape, kind, rng)
    check(kernels, imgs.astype(dtype), sizes, padding_mode=padding_mode)


@pytest.mark.parametrize("kind", ["real", "nan"])
@pytest.mark.parametrize("sizes", [(7, 7, 1, 1), (2, 30, 1, 1), (40, 3, 1, 1), (9, 5, 2, 2),
                                   (5, 4, 7, 1), (6, 6, 5, 5), (3, 3, 1, 1), (1, 9, 1, 2)]
)  # fmt: skip
def test_images_of_many_blocks(kernels, dtype, sizes, kind):
    """Each block of rows takes over what the one before has seen."""
    imgs = draw((2, 1, 101, 600), kind, np.random.default_rng(7)).astype(dtype)
    check(kernels, imgs, sizes, padding_mode=((sizes[0] // 2,) * 2, (sizes[1] // 2,) * 2))


@pytest.mark.parametrize("row", [0, 60, 99])
@pytest.mark.parametrize("size", [2, 3, 5])
def test_one_nan_stays_in_its_windows(kernels, dtype, size, row):
    imgs = np.zeros((1, 1, 100, 300), dtype)
    imgs[0, 0, row, 150] = np.nan
    for strides in (1, size):
        check(kernels, imgs, (size, size, strides, strides), padding_mode="same")


sizes = st.integers(1, 6)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 12), st.integers(1, 45)),
    windows=st.tuples(sizes, sizes, sizes, sizes),
    padding_mode=st.sampled_from(["centered", "valid", "same", "full"]),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 99),
)
def test_any_geometry(kernels, shape, windows, padding_mode, kind, seed):
    try:
        pool_geometry(*shape[2:], *windows, padding_mode)
    except ValueError:
        return
    imgs = draw(shape, kind, np.random.default_rng(seed)).astype([np.float32, float][seed % 2])
    check(kernels, imgs, windows, padding_mode=padding_mode, n_threads=1 + seed % 3)


def test_averages_have_none_anyway(kernels, dtype):
    imgs = np.ones((1, 2, 4, 5), dtype)
    options = {"mode": "avg", "need_switches": False}
    poolout, switches = kernels.pool_bc01(imgs, None, None, 2, 2, 1, 1, **options)
    assert switches is None
    assert_array_equal(poolout, kernels.pool_bc01(imgs, None, None, 2, 2, 1, 1, mode="avg")[0])


def test_the_specification_has_none_either(dtype):
    imgs = np.arange(12, dtype=dtype).reshape(1, 1, 3, 4)
    poolout, switches = reference.pool_bc01(imgs, None, None, 2, 2, 1, 1, need_switches=False)
    assert switches is None
    assert_array_equal(poolout, reference.pool_bc01(imgs, None, None, 2, 2, 1, 1)[0])
    with pytest.raises(ValueError, match="switches is given, expected None"):
        places = np.zeros(poolout.shape, np.uint8)
        reference.pool_bc01(imgs, None, places, 2, 2, 1, 1, need_switches=False)


def test_wrong_calls_write_nothing(kernels, dtype):
    imgs, out = np.ones((1, 1, 4, 4), dtype), np.full((1, 1, 2, 2), -7, dtype)
    switches = np.full(out.shape, 7, np.uint8)
    with pytest.raises(ValueError, match="switches is given, expected None when need_switches"):
        kernels.pool_bc01(imgs, out, switches, 2, 2, 2, 2, need_switches=False)
    for wrong in (None, 0, "no"):
        with pytest.raises(TypeError, match="need_switches is .*, expected True or False"):
            kernels.pool_bc01(imgs, out, None, 2, 2, 2, 2, need_switches=wrong)
    assert (out == -7).all() and (switches == 7).all()
