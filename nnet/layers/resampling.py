"""Pad and Upsample: images with a border, and larger ones."""

import math

import numpy as np

from nnet.geometry import BORDER_MODES, as_padding, conv_geometry
from nnet.layers.arguments import Option, PairOption, as_finite, as_word, check_axes
from nnet.layers.base import Layer
from nnet.layers.windows import as_plain


def as_pads(value, name):
    """Explicit padding as it was given, in ints and tuples."""
    expected = "expected an int, (y, x) or ((top, bottom), (left, right)), of at least 0"
    try:
        as_padding(value, ())
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} is {value!r}, {expected}") from None
    return as_plain(value)


class Pad(Layer):
    """Images with a border around.

    Parameters
    ----------
    pads : int, (y, x) or ((top, bottom), (left, right))
        Pixels. For signals, which have no height, an int is meant for their length.
    border_mode : {'zeros', 'nearest', 'reflect', 'wrap'}
        As for `Conv`: PyTorch calls them 'constant', 'replicate', 'reflect' and 'circular'.
    value : float
        What 'zeros' puts there; only there may it be another than 0.
    """

    pads = Option(as_pads)
    border_mode = Option(as_word, BORDER_MODES)
    value = Option(as_finite, -math.inf, "expected a finite number")

    def __init__(self, pads, border_mode="zeros", value=0.0):
        self.pads = pads
        self.border_mode = border_mode
        self.value = value
        self._check_value()

    def _check_value(self):
        if self.value != 0.0 and self.border_mode != "zeros":
            raise ValueError(
                f"value is {self.value}, expected 0 for border_mode {self.border_mode!r}"
            )

    def _setup(self, input_shape, rng):
        self.output_shape(input_shape)

    def _where(self, input_shape):
        """The geometry of a convolution with this padding and filters of one pixel."""
        pads = (0, self.pads) if self.signals and isinstance(self.pads, int) else self.pads
        img_h, img_w = input_shape[2:]
        return conv_geometry(img_h, img_w, 1, 1, (1, 1), pads, self.border_mode)

    def fprop(self, input):
        if self.training:
            self._kept = input.shape
        g, (img_h, img_w) = self._where(input.shape), input.shape[2:]
        output = self._output(input)
        rows, cols = slice(g.top, g.top + img_h), slice(g.left, g.left + img_w)
        output[:, :, rows, cols] = input
        # Rows first; columns then go over all of them, and fill the corners.
        for axis, n, before in ((2, img_h, g.top), (3, img_w, g.left)):
            inside = output if axis == 3 else output[..., cols]
            for border, source in borders(inside, axis, n, before, self.border_mode):
                border[...] = self.value if self.border_mode == "zeros" else source
        return output

    def bprop(self, output_grad):
        input_shape = self._kept
        g, (img_h, img_w) = self._where(input_shape), input_shape[2:]
        rows, cols = slice(g.top, g.top + img_h), slice(g.left, g.left + img_w)
        grad = self._scratch(output_grad.shape, output_grad.dtype)
        np.copyto(grad, output_grad)
        if self.border_mode != "zeros":
            for axis, n, before in ((3, img_w, g.left), (2, img_h, g.top)):
                inside = grad if axis == 3 else grad[..., cols]
                for border, source in borders(inside, axis, n, before, self.border_mode):
                    if source.shape[axis] == 1:  # one pixel for all of the border
                        border = np.add.reduce(border, axis=axis, dtype=float, keepdims=True)
                    np.add(source, border, out=source, casting="same_kind")
        input_grad = self._scratch(input_shape, output_grad.dtype)
        np.copyto(input_grad, grad[:, :, rows, cols])
        return input_grad

    def output_shape(self, input_shape):
        self._check_value()
        check_axes(input_shape, "n_imgs, n_channels, img_h, img_w")
        g = self._where(input_shape)
        return *input_shape[:2], g.out_h, g.out_w


def borders(padded, axis, n, before, border_mode):
    """(border, source): views of the two borders along an axis, and of what they repeat.

    n pixels of the image start at `before`.
    """
    end, length = before + n, padded.shape[axis]
    after = length - end
    for border, first, step in (
        (slice(0, before), {"nearest": before, "reflect": 2 * before, "wrap": n}, before),
        (slice(end, length), {"nearest": end - 1, "reflect": end - 2, "wrap": before}, after),
    ):
        if step == 0:
            continue
        view, start = padded.swapaxes(axis, -1), first.get(border_mode, 0)
        if border_mode == "reflect":
            source = view[..., start - step + 1 : start + 1][..., ::-1]
        else:
            source = view[..., start : start + (1 if border_mode == "nearest" else step)]
        yield view[..., border].swapaxes(axis, -1), source.swapaxes(axis, -1)


class Upsample(Layer):
    """Images that are larger by whole factors.

    Parameters
    ----------
    factor : int or (int, int)
        (y, x). For signals, which have no height, an int is meant for their length.
    mode : {'nearest', 'bilinear'}
        'nearest' repeats pixels. 'bilinear' interpolates between their centres, as PyTorch does
        with align_corners=False and Keras's UpSampling2D: beyond the outermost centres the
        edge goes on.
    """

    factor = PairOption()
    mode = Option(as_word, ("nearest", "bilinear"))

    def __init__(self, factor, mode="nearest"):
        self.factor = factor
        self.mode = mode

    def _setup(self, input_shape, rng):
        self.output_shape(input_shape)

    def _factors(self):
        numbers = vars(self)["_numbers"]
        return (1, numbers["factor"]) if self.signals and "factor" in numbers else self.factor

    def fprop(self, input):
        if self.training:
            self._kept = input.shape
        n_imgs, n_channels, img_h, img_w = input.shape
        y, x = self._factors()
        output = self._output(input)
        # Each row becomes one of the output's, then rows are put between these.
        rows = input
        if x > 1:
            rows = output
            if y > 1:
                rows = self._scratch((n_imgs, n_channels, img_h, img_w * x), input.dtype)
            self._enlarge(input, rows, x)
        if y > 1:
            self._enlarge(rows.swapaxes(2, 3), output.swapaxes(2, 3), y)
        elif x == 1:
            np.copyto(output, input)
        return output

    def _enlarge(self, input, output, factor):
        """The last axis, by a factor."""
        taps = phases(factor) if self.mode == "bilinear" else [(0, 0.0)] * factor
        for p, (side, weight) in enumerate(taps):
            out = output[..., p::factor]
            if side == 0:
                np.copyto(out, input)
                continue
            near, far, edge = sides(side)
            part = self._scratch(input.shape, input.dtype)[..., near]
            np.multiply(input[..., far], weight, out=part)
            np.multiply(input[..., near], 1 - weight, out=out[..., near])
            out[..., near] += part
            np.copyto(out[..., edge], input[..., edge])

    def bprop(self, output_grad):
        n_imgs, n_channels, img_h, img_w = self._kept
        y, x = self._factors()
        grad = output_grad
        if y > 1:
            grad = self._scratch((n_imgs, n_channels, img_h, img_w * x), output_grad.dtype)
            self._reduce(output_grad.swapaxes(2, 3), grad.swapaxes(2, 3), y)
        if x > 1:
            input_grad = self._scratch(self._kept, output_grad.dtype)
            self._reduce(grad, input_grad, x)
            return input_grad
        return grad

    def _reduce(self, output_grad, input_grad, factor):
        """The reverse of `_enlarge`."""
        taps = phases(factor) if self.mode == "bilinear" else [(0, 0.0)] * factor
        part = self._scratch(input_grad.shape, input_grad.dtype)
        input_grad[...] = 0
        for p, (side, weight) in enumerate(taps):
            grad = output_grad[..., p::factor]
            input_grad += grad
            if side == 0:
                continue
            near, far, _ = sides(side)
            moved = part[..., near]
            np.multiply(grad[..., near], weight, out=moved)
            input_grad[..., near] -= moved
            input_grad[..., far] += moved

    def output_shape(self, input_shape):
        check_axes(input_shape, "n_imgs, n_channels, img_h, img_w")
        y, x = self._factors()
        return *input_shape[:2], input_shape[2] * y, input_shape[3] * x


def phases(factor):
    """(side, weight) of each of the pixels that one becomes: how much they take of a neighbour."""
    offsets = [(2 * p + 1 - factor) / (2 * factor) for p in range(factor)]
    return [((offset > 0) - (offset < 0), abs(offset)) for offset in offsets]


def sides(side):
    """Of the last axis: all pixels with a neighbour at that side, these, and the one without."""
    if side < 0:
        return slice(1, None), slice(None, -1), slice(None, 1)
    return slice(None, -1), slice(1, None), slice(-1, None)
