"""Image files as arrays: every kind of file becomes what its viewer shows."""

import itertools
import os
import struct
import sys

import numpy as np
import pytest

import nnet
from nnet.files.image_files import Preparation

Image = pytest.importorskip("PIL.Image")


def gradient(height=6, width=9, dtype=np.uint8, largest=255):
    return np.linspace(0, largest, height * width).reshape(height, width).astype(dtype)


@pytest.fixture
def save(tmp_path):
    """A function that writes an image, of Pillow or an array, and returns its path."""

    def save(image, name="image.png", **options):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        image.save(path, **options)
        return path

    return save


# --- what an image becomes ----------------------------------------------------------------


def test_grey_and_colour(save):
    grey = gradient()
    colour = np.stack([grey, grey[::-1], 255 - grey], axis=-1)
    X = nnet.load_images(save(grey))
    assert X.dtype == np.float32 and X.flags.c_contiguous
    assert np.array_equal(X, nnet.to_bc01(grey))
    assert np.array_equal(nnet.load_images(save(colour)), nnet.to_bc01(colour, "HWC"))


@pytest.mark.parametrize("mode, n_channels", [("L", 1), ("grey", 1), ("RGB", 3), ("rgb", 3)])
def test_mode(save, mode, n_channels):
    for image in gradient(), np.stack([gradient()] * 3, axis=-1):
        X = nnet.load_images(save(image), mode=mode)
        assert X.shape == (1, n_channels, 6, 9)
        assert np.array_equal(X[0, 0], nnet.to_bc01(gradient())[0, 0])


def test_grey_among_colours_becomes_colour(save, tmp_path):
    save(gradient(), "a.png")
    save(np.stack([gradient()] * 3, axis=-1), "b.png")
    assert nnet.load_images(tmp_path).shape == (2, 3, 6, 9)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("kind", ["png", "tiff", "pgm"])
def test_16_bits_of_grey_are_scaled_not_clipped(save, mode, kind):
    deep = gradient(dtype=np.uint16, largest=65535)
    X = nnet.load_images(save(deep, f"deep.{kind}"), mode=mode)
    np.testing.assert_allclose(X[0, 0], deep / 65535, rtol=1e-6)
    assert len(X[0]) == (1 if mode == "L" else 3) and (X[0] == X[0, :1]).all()


def test_16_bits_of_grey_are_resized_too(save):
    deep = np.repeat(gradient(4, 4, np.uint16, 65535), 2, axis=0)
    X = nnet.load_images(save(deep), size=4)
    assert X.shape == (1, 1, 4, 4) and 0 < X.max() <= 1 and X[0, 0, 1, 0] != X[0, 0, 2, 0]


def test_more_than_16_bits_are_refused(save):
    with pytest.raises(ValueError, match="big.tiff .*values from 0 to 70000, expected 16 bits"):
        nnet.load_images(save(gradient(dtype=np.int32, largest=70000), "big.tiff"))
    with pytest.raises(ValueError, match="float.tiff .*it holds floats, expected integers"):
        nnet.load_images(save(gradient(dtype=np.float32), "float.tiff"))


def test_palettes_are_colours_not_indices(save):
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[:2] = 250, 10, 20
    image = Image.fromarray(colour).convert("P", palette=Image.Palette.ADAPTIVE)
    assert np.array_equal(nnet.load_images(save(image)), nnet.to_bc01(colour, "HWC"))


def test_transparency_is_white(save):
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[..., 0], rgba[0, 0, 3], rgba[0, 1, 3] = 200, 255, 51
    X = nnet.load_images(save(rgba))
    expected = np.array([[[200, 244], [255, 255]], [[0, 204], [255, 255]], [[0, 204], [255, 255]]])
    assert X.shape == (1, 3, 2, 2)
    np.testing.assert_allclose(X[0] * 255, expected, atol=1)


def test_transparency_of_palettes_greys_and_single_colours(save):
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 0, 0, 0, 0, 200])
    palette.putdata([0, 1])
    X = nnet.load_images(save(palette, "p.png", transparency=1))
    np.testing.assert_allclose(X[0, :, 0] * 255, [[200, 255], [0, 255], [0, 255]], atol=1)
    grey = Image.fromarray(np.array([[10, 20]], np.uint8))
    assert nnet.load_images(save(grey, "l.png", transparency=10)).ravel()[0] == 1
    X = nnet.load_images(save(Image.merge("LA", [grey, grey.point([0, 255] * 128)]), "la.png"))
    assert X.shape == (1, 1, 1, 2) and X.ravel()[0] == 1
    deep = np.array([[7, 30000]], np.uint16)
    X = nnet.load_images(save(deep, "deep.png", transparency=7))
    np.testing.assert_allclose(X.ravel(), [1, 30000 / 65535], rtol=1e-6)


def test_cmyk_becomes_rgb(save):
    image = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    X = nnet.load_images(save(image, "c.tiff"))
    assert X.shape == (1, 3, 4, 4)
    np.testing.assert_allclose(X[0, :, 0, 0], [1, 0, 0], atol=0.01)


def test_bits_are_black_and_white(save):
    image = Image.fromarray(gradient() > 100)
    assert image.mode == "1"
    assert np.array_equal(nnet.load_images(save(image))[0, 0], gradient() > 100)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("size", [None, (6, 9), (9, 6)])
@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
def test_exif_turns_are_followed(save, turn, size, kind):
    exif = Image.Exif()
    exif[0x0112] = turn
    shown = {
        1: lambda x: x,
        2: np.fliplr,
        3: lambda x: np.rot90(x, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda x: np.rot90(x, -1),
        7: lambda x: np.rot90(x, 2).T,
        8: np.rot90,
    }[turn](gradient())
    options = {"lossless": True} if kind == "webp" else {}
    X = nnet.load_images(save(gradient(), f"image.{kind}", exif=exif, **options), size, "L")
    assert X.shape[2:] == (size or shown.shape)
    if X.shape[2:] == shown.shape:
        assert np.array_equal(X[0], nnet.to_bc01(np.ascontiguousarray(shown))[0])


@pytest.mark.parametrize("turn", [0, 9, 65535])
def test_turns_that_are_none_are_left_out(save, turn):
    """As viewers do: the picture itself is whole."""
    exif = Image.Exif()
    exif[0x0112] = turn
    X = nnet.load_images(save(gradient(), exif=exif))
    assert np.array_equal(X, nnet.to_bc01(gradient()))


def test_a_turn_among_damaged_tags_is_followed(save, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6

    def fail(*args):  # as Pillow does where a tag has another type than is usual
        raise struct.error("'H' format requires 0 <= number <= 65535")

    path = save(gradient(), exif=exif)
    monkeypatch.setattr(Image.Exif, "tobytes", fail)
    assert nnet.load_images(path).shape == (1, 1, 9, 6)
    monkeypatch.setattr(Image.Exif, "get", fail)
    assert nnet.load_images(path).shape == (1, 1, 6, 9)


# --- sizes --------------------------------------------------------------------------------


def test_shrinking_is_antialiased(save):
    """Lines of one pixel, black and white, become grey: to pick some would make them all one."""
    lines = np.zeros((64, 64), np.uint8)
    lines[::2] = 255
    X = nnet.load_images(save(lines), size=8)
    assert X.shape == (1, 1, 8, 8)
    np.testing.assert_allclose(X, 0.5, atol=0.05)


def test_the_filter_is_pillows_bilinear(save):
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    X = nnet.load_images(save(image), (11, 13))
    expected = Image.fromarray(image).resize((13, 11), Image.Resampling.BILINEAR)
    assert np.array_equal(X, nnet.to_bc01(np.asarray(expected), "HWC"))


@pytest.mark.parametrize("size", [(28, 28), (20, 28), (28, 20), (64, 43)])
def test_crop_stays_within_the_image(size):
    """Whatever is lost by rounding: Pillow refuses other boxes."""
    preparation = Preparation(size, "L", crop=True)
    for width, height in itertools.product(range(1, 130), range(1, 130, 4)):
        left, top, right, bottom = preparation._box(width, height)
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert (right - left) * size[0] == pytest.approx((bottom - top) * size[1])


def test_crop_keeps_proportions(save):
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 200
    X = nnet.load_images(save(wide), size=4, crop=True)
    assert np.array_equal(X[0, 0] * 255, np.full((4, 4), 200))
    assert nnet.load_images(save(wide), size=4).min() == 0
    assert np.array_equal(
        nnet.load_images(save(wide.T), size=(4, 4), crop=True)[0, 0] * 255, np.full((4, 4), 200)
    )


def test_images_of_several_sizes_need_one(save, tmp_path):
    save(gradient(6, 9), "a.png")
    save(gradient(9, 6), "b.png")
    with pytest.raises(ValueError, match=r"b.png has 9x6 pixels and .*a.png 6x9 .*a size for all"):
        nnet.load_images(tmp_path)
    assert nnet.load_images(tmp_path, size=5).shape == (2, 1, 5, 5)


@pytest.mark.parametrize("size", ["8", 2.5, (1, 2, 3), (4,), (2.5, 3), None])
def test_sizes_that_are_none(tmp_path, size):
    if size is None:
        with pytest.raises(ValueError, match="no images and no size"):
            nnet.load_images([])
    else:
        with pytest.raises(TypeError, match="size is .*, expected a number of pixels, or"):
            nnet.load_images([], size=size)


def test_other_arguments_that_are_none():
    with pytest.raises(ValueError, match="size is 0, .*at least 1"):
        nnet.load_images([], size=0)
    with pytest.raises(ValueError, match="mode is 'RGBA', expected 'L' or 'RGB'"):
        nnet.load_images([], mode="RGBA")
    with pytest.raises(TypeError, match="crop is 'center', expected True or False"):
        nnet.load_images([], 3, "L", crop="center")


def test_nothing_is_an_empty_batch():
    assert nnet.load_images([], 5, "RGB").shape == (0, 3, 5, 5)


# --- files --------------------------------------------------------------------------------


def test_files_of_a_folder_come_by_name(save, tmp_path):
    for i in 9, 10, 2:
        save(np.full((2, 2), i, np.uint8), f"{i}.png")
    (tmp_path / ".hidden").write_text("no image")
    (tmp_path / ".folder").mkdir()
    (tmp_path / "Thumbs.db").write_text("no image")
    (tmp_path / "Desktop.ini").write_text("no image")
    X = nnet.load_images(tmp_path)
    assert (X[:, 0, 0, 0] * 255).round().tolist() == [10, 2, 9]  # as strings are sorted
    some = [tmp_path / "9.png", str(tmp_path / "2.png")]
    for paths in some, iter(some), np.array(list(map(str, some))):
        X = nnet.load_images(paths)
        assert (X[:, 0, 0, 0] * 255).round().tolist() == [9, 2]


def broken_files(whole):
    yield "empty", b""
    yield "text", b"no image"
    yield "cut off", whole[: len(whole) // 2]
    yield "changed", whole[:60] + bytes(len(whole) - 70) + whole[-10:]


@pytest.mark.parametrize("size", [None, 4])
@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "bmp", "tiff", "webp"])
def test_broken_files_are_named(save, tmp_path, kind, size):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40)).astype(np.uint8)
    whole = save(noise, f"whole.{kind}").read_bytes()
    for name, contents in list(broken_files(whole))[: 4 if kind == "png" else 3]:
        path = tmp_path / f"{name}.{kind}"
        path.write_bytes(contents)
        with pytest.raises(ValueError, match=f"{path} is not a whole image that Pillow reads: "):
            nnet.load_images([tmp_path / f"whole.{kind}", path], size)


def test_images_that_are_too_large(save, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="a.png is too large, Pillow reads 2,000 pixels at most"):
        nnet.load_images(save(gradient(100, 100), "a.png"))


def test_what_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.png"):
        nnet.load_images(tmp_path / "missing.png", 3)
    with pytest.raises(ValueError, match="has no images"):
        nnet.load_images(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="folder is a folder, expected nothing but images in"):
        nnet.load_images(tmp_path)
    with pytest.raises(ValueError, match="folder is a folder, expected an image file"):
        nnet.load_images([tmp_path / "folder"])
    with pytest.raises(TypeError, match="path is 3, expected a string or a path"):
        nnet.load_images(3)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")
def test_devices_are_refused():
    with pytest.raises(ValueError, match="/dev/zero is not a regular file, expected an image"):
        nnet.load_images("/dev/zero", 3)


@pytest.mark.parametrize("size", [None, 4])
def test_a_missing_pillow_is_named(save, monkeypatch, size):
    path = save(gradient())
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="needs the package Pillow: pip install pillow"):
        nnet.load_images(path, size)


def test_no_import_of_pillow_before_it_is_needed(run_python):
    done = run_python("import sys, nnet; nnet.load_images; print('PIL' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


# --- the preparation ----------------------------------------------------------------------


def test_preparations_come_back_from_their_config():
    preparation = Preparation((3, 4), "RGB", crop=True)
    assert preparation.shape == (3, 3, 4)
    assert Preparation.from_config(preparation.config()) == preparation
    assert preparation != Preparation((3, 4), "RGB")
    with pytest.raises(ValueError, match="filter is 'nearest'"):
        Preparation.from_config(preparation.config() | {"filter": "nearest"})
