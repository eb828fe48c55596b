"""Layers as one line of text, such as "conv16-3x3,relu,pool2,linear64,relu"."""

import math
import re
import textwrap
from typing import Any

from nnet.geometry import BORDER_MODES, PADDING_WORDS
from nnet.layers import (
    Activation,
    BatchNorm,
    Conv,
    ConvTranspose,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    Linear,
    LogRegression,
    Pad,
    Pool,
    SeparableConv,
    Upsample,
)
from nnet.layers.activation import FUNCTIONS
from nnet.layers.hints import did_you_mean
from nnet.layers.linear import scores_layer
from nnet.layers.tree import Trace

LEAST_SIDE = 6  # pixels of an image for convolutions: 3 are left of them after one pooling

SYNTAX = f"""\
  conv16-3x3   16 filters of 3x3 pixels; may be followed by -s2 (stride 2),
               -d2 (dilation 2), -g4 (4 groups), and -same (the default: zeros
               around the image keep its size), -valid (none), -full or -p1
               (1 on each side)
  dw3x3        filters of 3x3 for each channel by itself; -m2: 2 for each;
               otherwise like conv16-3x3, but without -g
  sep16-3x3    dw3x3 without bias, then conv16-1x1; options like dw3x3
  convt16-3x3  transposed: -s2 doubles the size; otherwise like conv16-3x3, and
               -o1 (output padding) after -p1
  pool2        maximum of 2x2 pixels, stride 2; pool3-s2: of 3x3, stride 2;
               may be followed by -same, -valid, -full or -p1, and -ceil
               after -p1
  avgpool2     average of 2x2 pixels, otherwise like pool2
  gap gmp      average or maximum of each whole channel
  bn           batch normalisation, best between conv or linear and relu
  pad1         a border of 1 pixel: zeros, or -nearest, -reflect, -wrap or
               -symmetric
  up2          twice the size: pixels repeated, or -bilinear
  dropout0.5   leave out half of the values in training; -channels: of the
               channels
  linear64     64 outputs, each of which sees every input
{textwrap.fill(" ".join(FUNCTIONS), 78, initial_indent="  ", subsequent_indent="  ")}
Sizes are HEIGHTxWIDTH, or one number for both: conv16-3, pool1x2, -s2x1."""

SIZE = re.compile("([0-9]{1,9})(?:x([0-9]{1,9}))?")
PIECES = (
    "conv16-3x3, pool2, avgpool2, gap, gmp, bn, linear64, dw3x3, sep16-3x3, convt16-3x3, pad1, "
    f"up2, dropout0.5 or one of {', '.join(FUNCTIONS)}"
)

# What options set: a letter is followed by a size, or for those in COUNTS by one number.
LETTERS = {
    "s": "strides",
    "d": "dilation",
    "g": "groups",
    "m": "depth_multiplier",
    "p": "padding_mode",
    "o": "output_padding",
}
PLAIN = {"gap": GlobalAveragePool, "gmp": GlobalMaxPool, "bn": BatchNorm}
COUNTS = {"g": "a number of groups", "m": "a number of filters for each channel"}
PADDINGS = {word: ("padding_mode", word) for word in PADDING_WORDS}
BORDERS = {word: ("border_mode", word) for word in BORDER_MODES}


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


def default_spec(image_shape):
    """Layers as a text, for images, signals or rows of this shape: those of estimators and `nnet`.

    What is left of an image after the halvings keeps its place: an average of all of it in that
    stead got 55 % of a hundred patterns of 12x20 right, and this 99 %. Without the batch
    normalisation, two classes of colour patches ended at 50 % or a loss of NaN. docs/defaults.md
    has the figures.

    Parameters
    ----------
    image_shape : tuple
        (n_channels, img_h, img_w), (n_channels, length) or (n_features,); images of one row or
        column are signals.
    """
    sides = image_shape[1:]
    long = [side for side in sides if side > 1]
    if not long or min(long) < LEAST_SIDE:
        return "linear100,relu"
    if len(long) == 1:
        least, window, pool, last = (
            2 * LEAST_SIDE,
            _along(sides, 9),
            f"avgpool{_along(sides, 2)}",
            [],
        )
    elif min(long) < 16:
        return "conv16-3x3,bn,relu,conv32-3x3,bn,relu,pool2,conv64-3x3,bn,relu,avgpool2"
    else:
        least, window, pool, last = LEAST_SIDE, "3x3", "pool2", ["linear64,relu"]
    pieces: list[str] = []
    side, width = min(long), 16
    while side >= least or not pieces:
        pieces.append(f"conv{width}-{window},bn,relu,{pool}")
        side, width = side // 2, min(2 * width, 128)
    return ",".join([*pieces, *last])


def _along(sides, size):
    """A size for each side, 1 for those of 1."""
    return "x".join(str(size if side > 1 else 1) for side in sides)


def complete(named_layers, image_shape, n_classes, weight_decay=0.0, *, n_imgs=1, memory=math.inf):
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
    n_imgs : int
        Of a batch.
    memory : float
        Bytes that there are: no layer may take more for float32 outputs of a batch, or for
        parameters and their gradients.

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
        Naming the first piece that cannot take what the one before it puts out, or takes more
        memory than there is.
    """
    last = [(f"linear{n_classes}", scores_layer(n_classes, weight_decay))]
    layers, shape, n_params = [], (1, *image_shape), 0
    before = "the images"
    for piece, layer in named_layers + last:
        if isinstance(layer, Linear) and len(shape) > 2:
            layers.append(Flatten())
            shape = layers[-1].output_shape(shape)
        try:
            n_own = count_params(layer, shape)
            shape = layer.output_shape(shape)
            n_bytes = 4 * max(2 * n_own, n_imgs * math.prod(shape[1:]))
            if n_bytes > memory:
                raise ValueError(
                    f"it takes at least {n_bytes / 1e9:,.1f} GB of memory, expected no more than "
                    f"the {memory / 1e9:,.1f} GB that there are"
                )
        except ValueError as error:
            raise ValueError(f"layer {piece!r} after {before}: {error}") from error
        layers.append(layer)
        before, n_params = repr(piece), n_params + n_own
    return [*layers, LogRegression()], n_params


def count_params(layer, input_shape):
    """How many parameters a layer, and those inside of it, will have."""
    if layer.children:
        counts = []
        Trace(lambda _, inner, shape: counts.append(count_params(inner, shape)))(
            "", layer, input_shape
        )
        return sum(counts)
    shapes = layer.array_shapes(input_shape)
    return sum(math.prod(shapes[name]) for name in layer.param_names())


# --- pieces -------------------------------------------------------------------------------


def _parse_piece(piece, weight_decay):
    if piece in FUNCTIONS:
        return Activation(piece)
    word, *options = piece.split("-")
    match = re.fullmatch("([a-z]+)([0-9x.]*)", word)
    name, size = match.groups() if match else ("", "")
    if piece in PLAIN:
        return PLAIN[piece]()
    if name == "linear" and not options:
        return Linear(
            _count(size, "a number of outputs, as in linear64"), weight_decay=weight_decay
        )
    if name in MAKERS:
        make, *arguments = MAKERS[name]
        return make(name, size, options, weight_decay, *arguments)
    known = (*FUNCTIONS, *PLAIN)
    advice = did_you_mean(piece, known) if piece.isalpha() else did_you_mean(name, tuple(MAKERS))
    raise ValueError(f"expected {PIECES}{advice}")


def _filters(name, size, options, weight_decay, layer, letters):
    """Layers with a number of features."""
    n_feats = _count(size, f"a number of filters, as in {name}16-3x3")
    if not options or not SIZE.fullmatch(options[0]):
        raise ValueError(f"expected the size of its filters, as in {name}16-3x3")
    arguments = _parse_options(options[1:], letters, PADDINGS)
    return layer(n_feats, _size(options[0], "filters"), weight_decay=weight_decay, **arguments)


def _depthwise(name, size, options, weight_decay):
    window = _size(size, "the size of its filters, as in dw3x3")
    arguments = _parse_options(options, "sdmp", PADDINGS)
    return DepthwiseConv(window, weight_decay=weight_decay, **arguments)


def _pool(name, size, options, weight_decay, mode):
    window = _size(size, f"a size, as in {name}2 or {name}2x2")
    arguments = _parse_options(options, "sp", PADDINGS | {"ceil": ("ceil_mode", True)})
    return Pool(window, mode=mode, **{"strides": window, **arguments})


def _pad(name, size, options, weight_decay):
    return Pad(_size(size, "a size, as in pad1 or pad1x2"), **_parse_options(options, "", BORDERS))


def _upsample(name, size, options, weight_decay):
    words = {word: ("mode", word) for word in ("nearest", "bilinear")}
    factor = _size(size, "a factor, as in up2 or up2x1")
    return Upsample(factor, **_parse_options(options, "", words))


def _dropout(name, size, options, weight_decay):
    if not re.fullmatch(r"[0-9]{0,9}\.?[0-9]{1,9}", size):
        raise ValueError("expected a rate, as in dropout0.5")
    arguments = _parse_options(options, "", {"channels": ("channels", True)})
    return Dropout(float(size), **arguments)


MAKERS: dict[str, tuple[Any, ...]] = {
    "conv": (_filters, Conv, "sdgp"),
    "convt": (_filters, ConvTranspose, "sdgpo"),
    "sep": (_filters, SeparableConv, "sdmp"),
    "dw": (_depthwise,),
    "pool": (_pool, "max"),
    "avgpool": (_pool, "avg"),
    "pad": (_pad,),
    "up": (_upsample,),
    "dropout": (_dropout,),
}


def _parse_options(options, letters, words):
    """Keyword arguments from pieces such as 's2' and 'valid'."""
    arguments = {}
    for option in options:
        letter, size = option[:1], option[1:]
        if option in words:
            name, value = words[option]
        elif letter and letter in letters and SIZE.fullmatch(size):
            name = LETTERS[letter]
            value = _count(size, COUNTS[letter]) if letter in COUNTS else _size(size, "a size")
        else:
            known = [f"-{letter}2" for letter in letters] + [f"-{word}" for word in words]
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
