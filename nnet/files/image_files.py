"""Image files as arrays: one way of preparing them, which a saved network keeps.

Reading needs Pillow, which is loaded by the first image. Each file is turned as its EXIF tag says,
put on white where it is transparent, made grey or RGB, brought to one size, and divided by 255.
"""

import os
from collections.abc import Iterable
from operator import index

import numpy as np

from nnet._lazy import import_package
from nnet.files.regular import check_regular
from nnet.layers.arguments import as_bool, as_path, as_word
from nnet.layers.hints import with_hints

FILTER = "bilinear"  # Pillow's: see Preparation
MODES = "L", "RGB"
OTHER_MODES = {"grey": "L", "gray": "L", "grayscale": "L", "greyscale": "L", "rgb": "RGB"}
DEEP = 65535 // 255  # from 16 bits of grey to the 0 to 255 of 8: both ends stay ends
ORIENTATION = 0x0112  # the EXIF tag, and what turns an image that has it, in Pillow's words
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
SIDEWAYS = 5, 6, 7, 8  # exchange height and width
HIDDEN = "desktop.ini", "thumbs.db"  # what Windows hides
OTHER_ARGUMENTS = {  # of those who read folders with Keras
    **dict.fromkeys(("target_size", "image_size"), "size"),
    "color_mode": "mode",
    **dict.fromkeys(("keep_aspect_ratio", "crop_to_aspect_ratio"), "crop"),
    **dict.fromkeys(("classes", "class_names", "labels"), "none: the folders have their names"),
}
AN_IMAGE = "an image file"  # what is expected of a path


class Preparation:
    """How image files become arrays: the same for training and for prediction.

    Parameters
    ----------
    size : (int, int)
        Height and width.
    mode : {'L', 'RGB'}
    crop : bool
        Whether an image keeps its proportions: it is scaled until it covers the size, and what
        is too much at two sides is cut off. Otherwise it is stretched.

    Notes
    -----
    Scaling is Pillow's BILINEAR: a triangle as wide as two pixels of the smaller image, so that it
    is antialiased when it shrinks. It is what torchvision resizes with; sharper filters overshoot
    at edges, which would then be clipped.
    """

    def __init__(self, size, mode, crop=False):
        self.size, self.mode, self.crop = as_size(size), as_mode(mode), as_bool(crop, "crop")

    def __repr__(self):
        return f"Preparation(size={self.size}, mode={self.mode!r}, crop={self.crop})"

    def __eq__(self, other):
        return isinstance(other, Preparation) and self.config() == other.config()

    __hash__ = None  # type: ignore[assignment]

    def config(self):
        """What JSON holds of it."""
        return {"size": list(self.size), "mode": self.mode, "crop": self.crop, "filter": FILTER}

    @classmethod
    def from_config(cls, config):
        """The one that `config` told of; ValueError or TypeError for what makes no sense."""
        config = dict(config)
        as_word(config.pop("filter"), "filter", (FILTER, FILTER))
        return cls(**config)

    @property
    def shape(self):
        """Of one image: (n_channels, img_h, img_w)."""
        return (1 if self.mode == "L" else 3, *self.size)

    def read(self, paths):
        """Image files as one array (n_imgs, n_channels, img_h, img_w) of float32 from 0 to 1.

        Raises
        ------
        ImportError
            Without Pillow.
        OSError
            For a file that cannot be opened.
        ValueError
            For one that is no whole image; the message names it.
        """
        images = np.empty((len(paths), *self.shape), np.float32)
        for image, path in zip(images, paths):
            image[...] = self._prepared(path)
        return images

    def _prepared(self, path):
        with _opened(path) as (image, pillow):
            image.load()  # what is broken raises here
            image = _as_mode(_turned(image, pillow), self.mode, pillow)
            height, width = self.size
            if image.size != (width, height):
                box = self._box(*image.size)
                image = image.resize((width, height), pillow.Resampling.BILINEAR, box)
            pixels = np.asarray(image, np.float32) / np.float32(255)
        return np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels

    def _box(self, width, height):
        """What of an image is scaled: left, top, right, bottom."""
        if not self.crop:
            return 0, 0, width, height
        to_height, to_width = self.size
        # In integers: Pillow refuses a box that rounding puts outside of the image.
        left = max(0, width * to_height - height * to_width) / (2 * to_height)
        top = max(0, height * to_width - width * to_height) / (2 * to_width)
        return left, top, width - left, height - top


@with_hints(**OTHER_ARGUMENTS)
def load_images(path, size=None, mode=None, *, crop=False):
    """Image files as an array, as `fit` and `predict` take it.

    Parameters
    ----------
    path : str or path, or iterable of these
        An image file; a folder, whose files are sorted by name, hidden ones left out; or a list
        of files, or whatever else gives some.
    size : None, int or (int, int)
        Height and width, or one number for both. None: that of the images, which must be one.
    mode : None, 'L' or 'RGB'
        Grey, or colours. None: 'L' if all images are grey, else 'RGB'.
    crop : bool
        Whether images keep their proportions: what is too much at two sides is cut off. Otherwise
        they are stretched.

    Returns
    -------
    array (n_imgs, n_channels, img_h, img_w) of float32, 0 to 1

    Raises
    ------
    ImportError
        Without Pillow.
    OSError, ValueError
        For files that are missing or no whole images, and without a size for images of several.

    Notes
    -----
    EXIF turns are followed. Palettes and transparency become RGB on white, CMYK becomes RGB, 16
    bits of grey are divided by 257. Scaling is bilinear and antialiased (Pillow's BILINEAR).
    """
    paths = list_images(path)
    return prepare_for(paths, size, mode, crop).read(paths)


def list_images(path):
    """The files that `load_images` reads for a path, as a list of str."""
    if isinstance(path, Iterable) and not isinstance(path, (str, bytes)):
        paths = [as_path(each, f"path[{i}]") for i, each in enumerate(path)]
    else:
        path = as_path(path, "path")
        paths = files_in(path) if os.path.isdir(path) else [path]
        if not paths:
            raise ValueError(f"{path} has no images, expected some")
    for each in paths:
        check_regular(each, AN_IMAGE)
    return paths


def files_in(folder):
    """Its files by name, without hidden ones. A folder in it is refused."""
    files = []
    for name in visible(folder):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            raise ValueError(f"{path} is a folder, expected nothing but images in {folder}")
        files.append(path)
    return files


def visible(folder):
    """The sorted names in a folder that are not hidden, in the order of Python's strings."""
    return sorted(
        name
        for name in os.listdir(folder)
        if not name.startswith(".") and name.lower() not in HIDDEN
    )


def prepare_for(paths, size=None, mode=None, crop=False):
    """The Preparation for some files; they are looked at for a size or mode that is None."""
    if size is not None and mode is not None:
        return Preparation(size, mode, crop)
    size = None if size is None else as_size(size)
    mode = None if mode is None else as_mode(mode)
    is_sized, is_grey, first = size is not None, True, None
    for path in paths:
        found, grey = _look_at(path)
        is_grey &= grey
        if is_sized:
            continue
        if size is None:
            size, first = found, path
        elif size != found:
            (h, w), (other_h, other_w) = found, size
            raise ValueError(
                f"{path} has {h}x{w} pixels and {first} {other_h}x{other_w} (height x width), "
                "expected images of one size, or a size for all: size=64 in Python, --size 64 else"
            )
    if size is None:
        raise ValueError("there are no images and no size, expected one of both")
    return Preparation(size, mode or ("L" if is_grey else "RGB"), crop)


def as_size(size):
    """(height, width)"""
    expected = "expected a number of pixels, or (height, width)"
    try:
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        height, width = index(height), index(width)
    except (TypeError, ValueError):
        raise TypeError(f"size is {size!r}, {expected}") from None
    if height < 1 or width < 1:
        raise ValueError(f"size is {size!r}, {expected}: at least 1")
    return height, width


def as_mode(mode):
    return as_word(OTHER_MODES.get(mode, mode) if isinstance(mode, str) else mode, "mode", MODES)


# --- one image ----------------------------------------------------------------------------


def _import_pillow():
    return import_package("PIL.Image", "Pillow", "reading image files")


class _opened:
    """A context with (image, pillow): whatever a broken file raises in it is a ValueError."""

    def __init__(self, path):
        self.path, self.pillow = path, _import_pillow()

    def __enter__(self):
        check_regular(self.path, AN_IMAGE)
        self.file = open(self.path, "rb")
        try:
            return self.pillow.open(self.file), self.pillow
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise

    def __exit__(self, kind, error, traceback):
        self.file.close()
        is_broken = isinstance(error, Exception) and not isinstance(error, MemoryError)
        if is_broken and getattr(error, "errno", None) is None:
            if isinstance(error, self.pillow.DecompressionBombError):
                most = 2 * self.pillow.MAX_IMAGE_PIXELS
                raise ValueError(f"{self.path} is too large, Pillow reads {most:,} pixels at most")
            # Damaged files fail in more ways than are documented.
            is_unknown = isinstance(error, self.pillow.UnidentifiedImageError)
            what = "its kind is unknown" if is_unknown else str(error) or kind.__name__
            raise ValueError(
                f"{self.path} is not a whole image that Pillow reads: {what}"
            ) from error


def _look_at(path):
    """((height, width), whether it is grey) of an image file, as it is when it is turned."""
    with _opened(path) as (image, _):
        is_square = image.width == image.height
        turn = None if is_square else _orientation(image)  # some are read as a whole for it
        size = image.size if turn in SIDEWAYS else image.size[::-1]
        return size, image.mode in ("1", "L", "LA") or image.mode.startswith("I")


def _orientation(image):
    """Its EXIF tag; None without it, and where it is damaged."""
    if image.format == "TIFF":
        image.load()  # Pillow itself turns it
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # in more ways than are documented: the image itself may be whole
        return None


def _turned(image, pillow):
    turn = TURNS.get(_orientation(image))
    return image.transpose(pillow.Transpose[turn]) if turn else image


def _as_mode(image, mode, pillow):
    """An image of Pillow in 'L' or 'RGB'; of 16 bits in 'F', with values from 0 to 255."""
    if image.mode.startswith("I"):
        return _deep_grey(image, mode, pillow)
    if image.mode == "F":
        raise ValueError("it holds floats, expected integers")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = pillow.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white
    for each in ["RGB"] * (image.mode not in ("1", "L")) + [mode]:
        if image.mode != each:  # convert copies even if there is nothing to do
            image = image.convert(each)
    return image


def _deep_grey(image, mode, pillow):
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if low < 0 or high > 65535:
        raise ValueError(f"it has values from {low} to {high}, expected 16 bits: 0 to 65535")
    values = values.astype(np.float32) / DEEP
    key = image.info.get("transparency")
    if isinstance(key, int):
        values[values == np.float32(key) / DEEP] = 255
    return pillow.fromarray(values)
