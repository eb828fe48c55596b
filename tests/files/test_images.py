"""to_bc01: layouts, dtypes, and what it refuses."""

import numpy as np
import pandas as pd
import pytest

from nnet import to_bc01


def image_array(layout, sizes):
    """Values that tell where they belong: n, c, y, x as decimal digits; none are bytes."""
    n, c, y, x = np.ogrid[: sizes["N"], : sizes["C"], : sizes["H"], : sizes["W"]]
    bc01 = 0.5 + 1000.0 * n + 100 * c + 10 * y + x
    missing = tuple("NCHW".index(axis) for axis in "NC" if axis not in layout)
    kept = [axis for axis in "NCHW" if axis in layout]
    return bc01, bc01.squeeze(missing).transpose([kept.index(axis) for axis in layout])


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NHW", "HWC", "HW"])
def test_layouts(layout, given):
    sizes = {"N": 5 if "N" in layout else 1, "C": 3 if "C" in layout else 1, "H": 7, "W": 6}
    bc01, images = image_array(layout, sizes)
    result = to_bc01(images, layout if given else None)
    assert np.array_equal(result, bc01)
    assert result.flags.c_contiguous


def test_chw_must_be_named():
    bc01, images = image_array("CHW", {"N": 1, "C": 3, "H": 7, "W": 6})
    assert np.array_equal(to_bc01(images, "CHW"), bc01)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_inferred_channels(channels):
    assert to_bc01(np.zeros((10, 8, 9, channels))).shape == (10, channels, 8, 9)
    assert to_bc01(np.zeros((10, channels, 8, 9))).shape == (10, channels, 8, 9)
    assert to_bc01(np.zeros((8, 9, channels))).shape == (1, channels, 8, 9)


@pytest.mark.parametrize("n_imgs", [1, 2, 4, 100])
def test_grey_images(n_imgs):
    assert to_bc01(np.zeros((n_imgs, 8, 9))).shape == (n_imgs, 1, 8, 9)
    assert to_bc01([np.zeros((8, 3))] * n_imgs).shape == (n_imgs, 1, 8, 3)


def test_uint8_becomes_a_fraction():
    images = np.array([[0, 51], [255, 128]], np.uint8)
    result = to_bc01(images)
    assert result.dtype == np.float32
    assert np.array_equal(
        result[0, 0], np.array([[0, 51], [255, 128]], np.float32) / np.float32(255)
    )


@pytest.mark.parametrize(
    "given, expected",
    [
        ("float32", "float32"),
        ("float64", "float64"),
        (">f8", "float64"),
        ("float16", "float32"),
        ("int64", "float32"),
        ("uint16", "float32"),
        ("bool", "float32"),
    ],
)
def test_other_dtypes_keep_their_values(given, expected):
    images = np.array([[0, 1], [1, 0]]).astype(given)
    result = to_bc01(images)
    assert result.dtype == np.dtype(expected)
    assert np.array_equal(result[0, 0], [[0, 1], [1, 0]])


WHOLE = np.random.default_rng(0).integers(0, 256, (40, 6, 7))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f8", "i4", "i8", "u4"])
def test_bytes_in_a_wider_dtype_become_fractions(dtype):
    result = to_bc01(WHOLE.astype(dtype))
    expected = to_bc01(WHOLE.astype(np.uint8))
    if np.dtype(dtype) in (np.float64, np.dtype(">f8")):
        assert result.dtype == np.float64
        assert np.array_equal(result.astype(np.float32), expected)
    else:
        assert result.dtype == np.float32 and np.array_equal(result, expected)
    assert np.array_equal(to_bc01(WHOLE.astype(dtype), scale=False)[:, 0], WHOLE)
    assert to_bc01(WHOLE.astype(dtype)[:, ::-1, ::2].transpose(0, 2, 1)).max() <= 1


@pytest.mark.parametrize(
    "images",
    [
        WHOLE + 0.5,
        WHOLE - 1.0,
        WHOLE + 1.0,
        np.where(np.arange(40)[:, None, None] == 39, np.nan, WHOLE),
        np.where(np.arange(40)[:, None, None] == 39, 300.0, WHOLE),
        WHOLE / 255,
        WHOLE // 16 * 1.0,  # as scikit-learn's digits, 0 to 15
        (WHOLE > 128).astype(float),
        np.zeros((3, 6, 7, 1)),
        WHOLE.astype(np.uint16),  # the darkest images of 16 bits
        WHOLE.astype(np.int16),
        np.zeros((0, 6, 7)),
    ],
    ids=lambda images: f"{images.dtype}, {np.max(images, initial=0):.5g}",
)
def test_what_is_not_plainly_bytes_stays(images):
    result = to_bc01(images)
    assert np.array_equal(result.reshape(images.shape), images.astype(result.dtype), equal_nan=True)


def test_what_is_said_of_the_scale_holds_for_all_values():
    dark = WHOLE // 4 * 1.0
    with pytest.warns(UserWarning, match="whole numbers up to 63, .*scale=True divides") as caught:
        assert np.array_equal(to_bc01(dark)[:, 0], dark)
    assert caught[0].filename == __file__
    for images in (dark, WHOLE * 1.0, dark.astype(np.uint8), WHOLE.astype(np.uint16), WHOLE / 255):
        assert np.array_equal(
            to_bc01(images, scale=False)[:, 0],
            images.astype(float).astype("f4") if images.dtype != float else images,
        )
        whole = to_bc01(images, scale=True)
        np.testing.assert_allclose(whole[:, 0], images / 255, rtol=1e-6)
        assert whole.dtype == (np.float64 if images.dtype == float else np.float32)
    with pytest.raises(TypeError, match="scale is 255"):
        to_bc01(WHOLE, scale=255)


def test_lists_and_views():
    images = [np.eye(5), np.ones((5, 5))]
    assert np.array_equal(to_bc01(images), np.stack(images)[:, None])
    assert np.array_equal(to_bc01([[[1, 2, 3], [4, 5, 6]]])[0, :, 0], [[1, 4], [2, 5], [3, 6]])
    backwards = 0.5 + np.arange(2 * 5 * 6 * 3.0).reshape(2, 5, 6, 3)[:, ::-1, ::2]
    assert np.array_equal(to_bc01(backwards, "NHWC"), backwards.transpose(0, 3, 1, 2))


def test_no_images():
    assert to_bc01(np.zeros((0, 8, 9, 3))).shape == (0, 3, 8, 9)


@pytest.mark.parametrize(
    "shape, message",
    [
        ((3, 8, 9), "could mean several layouts, pass one of .*'NHW', 'CHW', 'HWC'"),
        ((3, 8, 3), "could mean several layouts"),
        ((10, 3, 9, 3), "could mean several layouts, pass one of .*'NCHW', 'NHWC'"),
        ((10, 12, 28, 28), "could mean several layouts"),
        ((8,), r"images have shape \(8,\), expected 2, 3 or 4 axes"),
        ((1, 2, 3, 4, 5), "expected 2, 3 or 4 axes"),
        ((0, 5), "expected no empty axis but the first"),
        ((10, 0, 8, 3), "expected no empty axis but the first"),
    ],
)
def test_shapes_it_cannot_interpret(shape, message):
    with pytest.raises(ValueError, match=message):
        to_bc01(np.zeros(shape))


def test_other_errors():
    with pytest.raises(ValueError, match="layout is 'BC01', expected one of"):
        to_bc01(np.zeros((2, 2)), "BC01")
    with pytest.raises(ValueError, match=r"images have shape \(2, 2\), expected the axes NHWC"):
        to_bc01(np.zeros((2, 2)), "NHWC")
    with pytest.raises(ValueError, match="differ in shape"):
        to_bc01([np.zeros((2, 2)), np.zeros((3, 3))])
    for images in (np.zeros((2, 2), complex), np.full((2, 2), "a"), np.full((2, 2), None)):
        with pytest.raises(TypeError, match="expected integers or floats"):
            to_bc01(images)


MASKED = np.ma.array(np.ones((2, 3)), mask=[[True, False, False], [False, False, False]])


@pytest.mark.parametrize("layout", [None, "HW", "NHW"])
@pytest.mark.parametrize(
    "images",
    [
        MASKED,
        np.ma.array(np.ones((2, 3))),
        MASKED.astype(np.uint8),
        [MASKED, MASKED],
        (np.ones((2, 3)), MASKED),
        [[MASKED[0]], [MASKED[1]]],
        [[1, np.ma.masked], [2, 3]],
    ],
)
def test_masks_are_refused(images, layout):
    with pytest.raises(
        TypeError,
        match=r"^images(\[\d\])* is a Masked(Array|Constant), expected an array without a mask: ",
    ):
        to_bc01(images, layout)


def test_tables_are_no_images():
    frame = pd.DataFrame(np.ones((4, 3)))
    for images in (frame, frame[0], [frame, frame], [np.ones((4, 3)), frame], [frame[0], frame[1]]):
        with pytest.raises(TypeError, match="is or has a (DataFrame|Series), expected an array"):
            to_bc01(images)


def test_ragged_lists():
    for images in ([[[1, 2], [3]]], [np.ones((2, 3)), np.ones((2, 4))]):
        with pytest.raises(ValueError, match="^images differ in shape, expected images of one"):
            to_bc01(images)
