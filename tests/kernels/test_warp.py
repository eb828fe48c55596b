"""warp: images through affine maps, against plain loops, SciPy and PyTorch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from nnet import reference
from nnet._augment import warp


def random_maps(rng, n_imgs, spread=1.0):
    maps = np.tile([1.0, 0, 0, 0, 1, 0], (n_imgs, 1))
    return maps + spread * rng.normal(size=maps.shape) * [0.3, 0.3, 2, 0.3, 0.3, 2]


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(*[st.integers(1, top) for top in (3, 3, 9, 9)]),
    fill=st.sampled_from([None, 0.0, -2.5]),
    interpolate=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_is_the_loops(shape, fill, interpolate, dtype, seed):
    rng = np.random.default_rng(seed)
    values, maps = rng.normal(size=shape).astype(dtype), random_maps(rng, shape[0])
    tolerance = 2e-6 if dtype == np.float32 else 1e-14
    found = warp(values, maps, fill=fill, interpolate=interpolate)
    assert found.dtype == dtype
    expected = reference.warp(values, maps, fill, interpolate)
    assert_allclose(found, expected, atol=4 * tolerance * interpolate)
    whole = np.round(maps)
    assert_array_equal(
        warp(values, whole, fill=fill, interpolate=interpolate),
        reference.warp(values, whole, fill),
    )


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("fill", [None, 0.0, 3.0])
def test_it_is_scipys(dtype, rng, fill, order):
    ndimage = pytest.importorskip("scipy.ndimage")
    values, maps = rng.normal(size=(5, 2, 12, 9)).astype(dtype), random_maps(rng, 5)
    mode = {"mode": "nearest"} if fill is None else {"mode": "grid-constant", "cval": fill}
    expected = [
        [
            ndimage.affine_transform(plane, [[a, b], [e, f]], [d, g], order=order, **mode)
            for plane in image
        ]
        for image, (a, b, d, e, f, g) in zip(values, maps)
    ]
    found = warp(values, maps, fill=fill, interpolate=order == 1)
    assert_allclose(found, expected, atol=1e-5 * order)


def test_nearest_pixels_are_copied_bit_for_bit(rng):
    """So that integers may be seen as floats: as subnormal ones, and as NaN of any kind."""
    labels = rng.choice([0, 1, 7, -1, 0x7FF0_0000_0000_0001, -(2**63)], (3, 1, 8, 9))
    mirror = np.tile([1.0, 0, 0, 0, -1, 8], (3, 1))
    found = warp(labels.view(float), mirror, interpolate=False).view(np.int64)
    assert_array_equal(found, labels[..., ::-1])


@pytest.mark.parametrize("fill, mode", [(None, "border"), (0.0, "zeros")])
def test_it_is_torchs(rng, fill, mode):
    torch = pytest.importorskip("torch")
    values, maps = rng.normal(size=(4, 3, 8, 8)), random_maps(rng, 4)
    y, x = np.mgrid[:8, :8]
    rows, columns = (
        a[:, None, None] * y + b[:, None, None] * x + d[:, None, None]
        for a, b, d in (maps[:, :3].T, maps[:, 3:].T)
    )
    grid = torch.tensor(np.stack([columns, rows], -1) / 3.5 - 1)
    sample = torch.nn.functional.grid_sample
    expected = sample(torch.tensor(values), grid, padding_mode=mode, align_corners=True)
    assert_allclose(warp(values, maps, fill=fill), expected.numpy(), atol=1e-12)


def test_it_has_the_same_bits_for_any_threads_alone_and_in_a_batch(dtype, rng):
    values, maps = rng.normal(size=(80, 2, 30, 31)).astype(dtype), random_maps(rng, 80)
    found = warp(values, maps, n_threads=1)
    assert_array_equal(warp(values, maps, n_threads=4), found)
    assert_array_equal(warp(values[7:8], maps[7:8]), found[7:8])
    wide = np.zeros((80, 2, 30, 62), dtype)[..., ::2]
    assert warp(values[::-1][::-1], maps, wide, n_threads=2) is wide
    assert_array_equal(wide, found)


def test_no_images_and_of_maps_that_make_no_sense(dtype):
    assert warp(np.empty((0, 1, 3, 3), dtype), np.empty((0, 6))).shape == (0, 1, 3, 3)
    values = np.arange(24, dtype=dtype).reshape(1, 1, 4, 6)
    for bad in (np.nan, np.inf, -np.inf, 1e300):
        found = warp(values, np.full((1, 6), bad))
        assert np.isin(found, values).all()


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((np.zeros((1, 3, 3)), np.zeros((1, 6))), ValueError, "expected 4 axes"),
        ((np.zeros((1, 1, 3, 3)), np.zeros((2, 6))), ValueError, r"maps has shape .*\(1, 6\)"),
        ((np.zeros((1, 1, 3, 3)), np.zeros((1, 6), "f4")), TypeError, "maps has dtype float32"),
        ((np.zeros((1, 1, 3, 3), int), np.zeros((1, 6))), TypeError, "images has dtype int64"),
        ((np.zeros((1, 1, 3, 3)), np.zeros((1, 6)), np.zeros((1, 1, 3, 4))), ValueError, "out has"),
    ],
)
def test_it_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        warp(*arguments)
    shared = np.zeros((2, 1, 3, 3))
    with pytest.raises(ValueError, match="out overlaps images"):
        warp(shared, np.zeros((2, 6)), shared)
