"""--augment: changes of the training images, as one line of text."""

import re

from nnet import Brightness, Crop, CutOut, Flip, Rotate, Shift, Zoom
from nnet.cli.errors import CliError

WORDS = {
    "shift": Shift,  # each takes one number
    "crop": Crop,
    "rotate": Rotate,
    "zoom": Zoom,
    "cutout": CutOut,
    "brightness": Brightness,
}
WHOLE = "shift", "crop", "cutout"  # pixels
FLIPS = {"flip": "horizontal", "flip-vertical": "vertical"}
AUGMENT_SYNTAX = """\
augmentations, separated by commas, anew for each image in each epoch:
  shift2        up to 2 pixels in every direction (crop2 likewise)
  rotate10      up to 10 degrees either way
  zoom0.1       up to a tenth smaller or larger
  flip          left and right exchanged in half of the images; flip-vertical
  cutout4       a square of 4 pixels hidden
  brightness0.2 up to a fifth darker or brighter"""


def parse_augment(text):
    """A list of augmentations."""
    return [_parse_piece(piece.strip()) for piece in text.split(",")]


def _parse_piece(piece):
    if piece in FLIPS:
        return Flip(FLIPS[piece])
    match = re.fullmatch(r"([a-z]+)([0-9]*\.?[0-9]+)", piece)
    if match is None or match[1] not in WORDS:
        expected = "shift2, crop2, rotate10, zoom0.1, flip, flip-vertical, cutout4 or brightness0.2"
        raise CliError(f"--augment: {piece!r}, expected {expected}")
    word, number = match.groups()
    try:
        return WORDS[word](int(number) if word in WHOLE else float(number))
    except (ValueError, TypeError) as error:
        raise CliError(f"--augment: {piece!r}: {error}") from error
