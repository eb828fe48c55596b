"""Which axes of X are what: images with channels first, or signals."""

from nnet.layers.pool import GlobalAveragePool
from nnet.layers.tree import describe, held, walk
from nnet.layers.windows import WindowMixin

LAST_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA: an axis of so many at the end is one of channels
LEAST_SIDE = 8  # pixels: of an image, if these are its height and width
ADVICE = "nnet.to_bc01(X) gives images their channel axis, in its place"


def check_layout(children, input_shape, known_shape=None):
    """Whether X, of images of this shape, holds signals.

    3 axes are signals only where all windows have height 1, and where they are not square; else
    they are grey images without a channel axis. A last axis that looks like one of channels
    is refused too, unless this is the `known_shape`.

    Raises
    ------
    ValueError
    """
    layers = list(walk(children))
    layers += [("", layer) for layer in held([layer for _, layer in layers])]
    windows = [(name, layer) for name, layer in layers if isinstance(layer, WindowMixin)]
    n_axes = len(input_shape)
    if n_axes == 1 or not any(
        isinstance(layer, WindowMixin | GlobalAveragePool) for _, layer in layers
    ):
        return n_axes == 2
    shape = f"({', '.join(map(str, ('n_imgs', *input_shape)))})"
    if n_axes == 2:
        for name, layer in windows:
            if layer.least_height() != 1:
                raise ValueError(
                    f"X has shape {shape}, signals of {input_shape[0]} channels, but the windows "
                    f"of {describe(name, layer)} are {layer.least_height()} high, expected 1: "
                    f"{ADVICE}"
                )
        if input_shape[0] == input_shape[1]:
            raise ValueError(
                f"X has shape {shape}, square images without a channel axis or as many channels "
                f"of signals as values, expected 4 axes: {ADVICE}; for signals, X[:, :, None]"
            )
        return True
    n_channels, height, width = input_shape
    if (
        width in LAST_CHANNELS
        and min(n_channels, height) >= LEAST_SIDE
        and input_shape != known_shape
        and (width > 1 or any(layer.width() > 1 for _, layer in windows))  # else signals
    ):
        raise ValueError(
            f"X has shape {shape}, images of {n_channels} channels that are {width} pixels wide, "
            f"expected (n_imgs, n_channels, img_h, img_w): {ADVICE}; if the channels do come "
            f"first, call network.build({input_shape}) before fit"
        )
    return False
