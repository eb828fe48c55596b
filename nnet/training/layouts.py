"""Which axes of X are what: images with channels first, or signals."""

from math import isqrt

import numpy as np

from nnet.layers.activation import Activation
from nnet.layers.conv_transpose import ConvTranspose
from nnet.layers.dropout import Dropout
from nnet.layers.linear import Flatten, Linear
from nnet.layers.norm import Norm
from nnet.layers.pool import GlobalPool
from nnet.layers.resampling import Pad, Upsample
from nnet.layers.standardize import Standardize
from nnet.layers.tree import describe, held, is_own, walk
from nnet.layers.windows import WindowMixin

LAST_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA: an axis of so many at the end is one of channels
CHANNELS = (1, 2, 3, 4)  # of signals: one, stereo, or what sensors measure
GREY_OR_RGB = (1, 3)
LEAST_SIDE = 8  # pixels: of an image, if these are its height and width
# What options may be along the height of signals, which is 1 and stays so
HEIGHTS = {"pads": 0, "padding_mode": 0, "output_padding": 0, "factor": 1}
ADVICE = "nnet.to_bc01(X) gives images their channel axis, in its place"


def check_layout(children, input_shape, known_shape=None):
    """Whether X, of images of this shape, holds signals.

    3 axes are signals only where all windows have height 1, no padding or factor reaches along
    the height, and they are not square; else they are grey images without a channel axis. A last
    axis that looks like one of channels is refused too, unless this is the `known_shape`, or
    windows are columns for signals along the height; and so are rows of features for layers that
    take images. Signals look like that where they are at most as long as there are kinds of
    channels, or as the first wide window. To networks that see values only, not channels, any
    axes are the same.

    Raises
    ------
    ValueError
    """
    layers = list(walk(children))
    layers += [("", layer) for layer in held([layer for _, layer in layers])]
    images = [(name, layer) for name, layer in layers if sees_images(layer)]
    windows = [(name, layer) for name, layer in layers if isinstance(layer, WindowMixin)]
    n_axes = len(input_shape)
    if n_axes == 1:
        _check_rows(layers, windows, input_shape[0])
    if n_axes == 1 or not (images or any(map(sees_channels, unflattened(children)))):
        return n_axes == 2
    shape = f"({', '.join(map(str, ('n_imgs', *input_shape)))})"
    if n_axes == 2:
        _check_signals(images, input_shape, shape)
        if input_shape != known_shape:
            _check_length(windows, input_shape, shape)
        return True
    n_channels, height, width = input_shape
    if (
        width in LAST_CHANNELS
        and min(n_channels, height) >= LEAST_SIDE
        and input_shape != known_shape
        and not (width == 1 and n_channels != height and _are_columns(windows))
    ):
        raise ValueError(
            f"X has shape {shape}, images of {n_channels} channels that are {width} pixels wide, "
            f"expected (n_imgs, n_channels, img_h, img_w): {ADVICE}; if the channels do come "
            f"first, call network.build({input_shape}) before fit"
        )
    return False


def sees_images(layer):
    """Whether the layer takes images, not rows of features."""
    return isinstance(layer, WindowMixin | GlobalPool | Pad | Upsample)


def sees_channels(layer):
    """Whether the layer takes rows of features, but images by their channels."""
    return (
        isinstance(layer, Norm)
        or (isinstance(layer, Standardize) and layer.adapts())
        or (isinstance(layer, Dropout) and layer.channels)
        or (isinstance(layer, Activation) and layer.type == "softmax")
    )


def unflattened(children):
    """The layers, also inside of others, whose input has all axes of X."""
    found = []

    def pass_through(row):
        """Find those of a row: whether its output has all axes too."""
        for layer in row.values():
            found.append(layer)
            if layer._is_container:
                ends = [pass_through(inner) for inner in layer._rows()]
                keeps_axes = all(ends)
            else:  # a layer of the user's may do anything
                keeps_axes = is_own(layer) and not isinstance(layer, Flatten | GlobalPool | Linear)
            if not keeps_axes:
                return False
        return True

    pass_through(children)
    return found


def _check_rows(layers, windows, n_features):
    """Refuse rows of features where the first layer that does not keep shapes takes images."""
    for name, layer in layers:
        if not (is_own(layer) or layer._is_container):
            return  # a layer of the user's may take anything
        if sees_images(layer):
            raise ValueError(
                f"X has shape (n_imgs, {n_features}), expected (n_imgs, n_channels, img_h, img_w) "
                f"for {describe(name, layer)}: {_ways_of_rows(windows, n_features)}"
            )
        if not (layer._is_container or isinstance(layer, Activation | Dropout | Standardize)):
            return


def _ways_of_rows(windows, n_features):
    """The calls that make images, or signals where windows may be theirs, of rows."""
    shape = "n_channels, img_h, img_w"
    for n_channels in GREY_OR_RGB:
        side = isqrt(n_features // n_channels)
        if n_channels * side * side == n_features and (n_channels == 1 or side >= LEAST_SIDE):
            shape = f"{n_channels}, {side}, {side}"
            break
    ways = f"X.reshape(-1, {shape})"
    if any(layer.least_height() != 1 for _, layer in windows):
        return ways
    return f"{ways}; for signals of one channel, X[:, None]"


def _check_signals(layers, input_shape, shape):
    """Refuse what has more than one row to work on, and images without a channel axis."""
    signals = f"X has shape {shape}, signals of {input_shape[0]} channels, but"
    for name, layer in layers:
        if isinstance(layer, WindowMixin) and layer.least_height() != 1:
            raise ValueError(
                f"{signals} the windows of {describe(name, layer)} are {layer.least_height()} "
                f"high, expected 1: {ADVICE}; windows of signals are one number, or (1, width)"
            )
        for option, most in _heights(layer).items():
            value = getattr(layer, option)
            if np.max(value[0]) > most:
                raise ValueError(
                    f"{signals} {option} of {describe(name, layer)} is {value}, expected {most} "
                    f"along the height: {ADVICE}"
                )
    if input_shape[0] == input_shape[1]:
        raise ValueError(
            f"X has shape {shape}, square images without a channel axis or as many channels "
            f"of signals as values, expected 4 axes: {ADVICE}; for signals, X[:, :, None] "
            "and windows such as (1, 3)"
        )


def _check_length(windows, input_shape, shape):
    """Refuse signals whose last axis looks like one of channels."""
    n_channels, length = input_shape
    widths = [layer.width() for _, layer in windows if layer.width() > 1]
    if n_channels >= max(LEAST_SIDE, length + 1) and length <= max(*CHANNELS, *widths[:1]):
        raise ValueError(
            f"X has shape {shape}, signals of {n_channels} channels and the length {length}, "
            "expected (n_imgs, n_channels, length): X.transpose(0, 2, 1) puts channels first; if "
            f"they do come first, call network.build({input_shape}) before fit"
        )


def _heights(layer):
    """{option: what it may be along the height} of options that were given as pairs."""
    most = HEIGHTS | ({"strides": 1} if isinstance(layer, ConvTranspose) else {})
    given = vars(layer)
    numbers = given.get("_numbers", ())
    return {
        option: most[option]
        for option in most
        if option not in numbers and isinstance(given.get(option), tuple)
    }


def _are_columns(windows):
    """Whether windows are meant for signals along the height."""
    layers = [layer for _, layer in windows]
    return all(layer.width() == 1 for layer in layers) and any(
        layer.least_height() > 1 for layer in layers
    )
