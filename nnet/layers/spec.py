"""Layers as one line of text, such as "conv16-3x3,relu,pool2,linear64,relu"."""

import math
import re

from nnet.geometry import PADDING_WORDS
from nnet.layers import (
    Activation,
    BatchNorm,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    LogRegression,
    Pool,
)
from nnet.layers.activation import FUNCTIONS

SYNTAX = f"""\
  conv16-3x3   16 filters of 3x3 pixels; may be followed by -s2 (stride 2),
               -d2 (dilation 2), -g4 (4 groups), and -same (the default: zeros
               around the image keep its size), -valid (none) or -full
  pool2        maximum of 2x2 pixels, stride 2; pool3-s2: of 3x3, stride 2;
               may be followed by -same, -valid or -full
  avgpool2     average of 2x2 pixels, otherwise like pool2
  gap          average of each whole channel
  bn           batch normalisation, best between conv or linear and relu
  linear64     64 outputs, each of which sees every input
  {" ".join(FUNCTIONS)}
Sizes are HEIGHTxWIDTH, or one number for both: conv16-3, pool1x2, -s2x1."""

SIZE = re.compile("([0-9]{1,9})(?:x([0-9]{1,9}))?")
OPTION_NAMES = {"s": "strides", "d": "dilation", "g": "groups"}


def parse_layers(spec, weight_decay=0.0):
    """The layers that a text asks for.

    Parameters
    ----------
    spec : str
        See `SYNTAX`.
    weight_decay : float
        Of every layer with weights.

    Returns
    -------
    list of (str, Layer)
        Each layer with its piece of the text.

    Raises
    ------
    ValueError
        Naming the piece that makes no sense.
    """
    pieces = [piece.strip() for piece in spec.split(",")]
    layers = []
    for piece in pieces:
        try:
            layers.append((piece, _parse_piece(piece, weight_decay)))
        except ValueError as error:
            raise ValueError(f"layer {piece!r}: {error}") from error
    return layers


def complete(named_layers, image_shape, n_classes, weight_decay=0.0):
    """A classifier for images of one shape.

    Parameters
    ----------
    named_layers : list of (str, Layer)
        From `parse_layers`.
    image_shape : tuple
        (n_channels, img_h, img_w)
    n_classes : int
    weight_decay : float
        Of the last linear layer.

    Returns
    -------
    layers : list of Layer
        The given ones, a Flatten before the first that needs it, and a softmax
        of `n_classes` linear outputs.
    n_params : int
        The number of parameters that they will have.

    Raises
    ------
    ValueError
        Naming the first piece that cannot take what the one before it puts out.
    """
    last = [(f"linear{n_classes}", Linear(n_classes, weight_decay=weight_decay))]
    layers, shape, n_params = [], (1, *image_shape), 0
    before = "the images"
    for piece, layer in named_layers + last:
        if isinstance(layer, Linear) and len(shape) > 2:
            layers.append(Flatten())
            shape = layers[-1].output_shape(shape)
        try:
            shapes = layer.array_shapes(shape)
            n_params += sum(math.prod(shapes[name]) for name in layer.param_names())
            shape = layer.output_shape(shape)
        except ValueError as error:
            raise ValueError(f"layer {piece!r} after {before}: {error}") from error
        layers.append(layer)
        before = repr(piece)
    return [*layers, LogRegression()], n_params


def _parse_piece(piece, weight_decay):
    if piece in FUNCTIONS:
        return Activation(piece)
    if piece == "gap":
        return GlobalAveragePool()
    if piece == "bn":
        return BatchNorm()
    word, *options = piece.split("-")
    name = word.rstrip("0123456789x")
    size = word[len(name) :]
    if name == "conv":
        n_feats = _count(size, "a number of filters, as in conv16-3x3")
        if not options or not SIZE.fullmatch(options[0]):
            raise ValueError("expected the size of its filters, as in conv16-3x3")
        return Conv(
            n_feats,
            _size(options[0], "filters"),
            weight_decay=weight_decay,
            **_parse_options(options[1:], "sdg"),
        )
    if name in ("pool", "avgpool"):
        window = _size(size, f"a size, as in {name}2 or {name}2x2")
        options = {"strides": window, **_parse_options(options, "s")}
        return Pool(window, mode="avg" if name == "avgpool" else "max", **options)
    if name == "linear" and not options:
        return Linear(
            _count(size, "a number of outputs, as in linear64"), weight_decay=weight_decay
        )
    raise ValueError(
        f"expected conv16-3x3, pool2, avgpool2, gap, bn, linear64 or one of {', '.join(FUNCTIONS)}"
    )


def _parse_options(options, letters):
    """Keyword arguments from pieces such as 's2' and 'valid'."""
    arguments = {}
    for option in options:
        letter, size = option[:1], option[1:]
        if option in PADDING_WORDS:
            name, value = "padding_mode", option
        elif letter and letter in letters and SIZE.fullmatch(size):
            name = OPTION_NAMES[letter]
            value = _count(size, "a number of groups") if letter == "g" else _size(size, "a size")
        else:
            known = [f"-{letter}2" for letter in letters] + [f"-{word}" for word in PADDING_WORDS]
            raise ValueError(f"unknown option '-{option}', expected one of {', '.join(known)}")
        if name in arguments:
            raise ValueError(f"option '-{option}' sets {name} for a second time")
        arguments[name] = value
    return arguments


def _size(text, what):
    match = SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"expected {what}")
    height, width = match.groups()
    return int(height) if width is None else (int(height), int(width))


def _count(text, what):
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError(f"expected {what}")
    return int(text)
