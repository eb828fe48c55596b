"""Pad and Upsample: images with a border, and larger ones."""

import math
from fractions import Fraction

import numpy as np

from nnet._conv import bprop_conv_bc01, conv_bc01
from nnet.geometry import BORDER_MODES, as_padding, conv_geometry
from nnet.layers.arguments import (
    Option,
    PairOption,
    as_finite,
    as_word,
    check_axes,
    check_like,
    check_real,
)
from nnet.layers.base import Layer
from nnet.layers.hints import with_hints
from nnet.layers.windows import as_plain

FLOAT64 = np.dtype(np.float64)
LONG_SUM = 32  # values in a row: gradients of larger factors add up in double


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
    border_mode : {'zeros', 'nearest', 'reflect', 'wrap', 'symmetric'}
        As for `Conv`: PyTorch calls them 'constant', 'replicate', 'reflect' and 'circular', and
        has no 'symmetric', which is NumPy's.
    value : float
        What 'zeros' puts there; only there may it be another than 0.
    """

    pads = Option(as_pads)
    border_mode = Option(as_word, BORDER_MODES)
    value = Option(as_finite, -math.inf, "expected a finite number")

    @with_hints()
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
        check_real(input, "input")
        output = self._output(input)
        if self.training:
            self._kept = input.shape, input.dtype
        g = self._where(input.shape)
        pad(input, output, (g.top, g.left), self.border_mode, self.value)
        return output

    def bprop(self, output_grad):
        input_shape, dtype = self._kept
        g = self._where(input_shape)
        check_like(output_grad, "output_grad", (*input_shape[:2], g.out_h, g.out_w), dtype)
        grad = self._scratch(output_grad.shape, dtype)
        np.copyto(grad, output_grad)
        input_grad = self._scratch(input_shape, dtype)
        fold(grad, input_grad, (g.top, g.left), self.border_mode)
        return input_grad

    def output_shape(self, input_shape):
        self._check_value()
        check_axes(input_shape, "n_imgs, n_channels, img_h, img_w")
        g = self._where(input_shape)
        return *input_shape[:2], g.out_h, g.out_w


def pad(imgs, padded, starts, border_mode, value=0.0):
    """Images into larger ones, where they begin at `starts` = (top, left)."""
    inside(padded, imgs, starts)[...] = imgs
    # Rows first; columns then go over all of them, and fill the corners.
    for axis, view in ((2, inside(padded, imgs, starts, rows=False)), (3, padded)):
        for border, source in borders(view, axis, imgs.shape[axis], starts[axis - 2], border_mode):
            border[...] = value if border_mode == "zeros" else source


def fold(padded_grad, imgs_grad, starts, border_mode):
    """The gradient of `pad`: what was copied adds up where it came from. It writes to both."""
    middle = inside(padded_grad, imgs_grad, starts, rows=False)
    for axis, view in () if border_mode == "zeros" else ((3, padded_grad), (2, middle)):
        for border, source in borders(
            view, axis, imgs_grad.shape[axis], starts[axis - 2], border_mode
        ):
            if source.shape[axis] == 1:  # one pixel for all of the border
                border = np.add.reduce(border, axis=axis, dtype=float, keepdims=True)
            np.add(source, border, out=source, casting="same_kind")
    np.copyto(imgs_grad, inside(padded_grad, imgs_grad, starts))


def inside(padded, imgs, starts, rows=True):
    """A view of the columns, and rows, where images are."""
    (top, left), (img_h, img_w) = starts, imgs.shape[2:]
    cols = padded[..., left : left + img_w]
    return cols[:, :, top : top + img_h] if rows else cols


def borders(padded, axis, n, before, border_mode):
    """(border, source): views of the two borders along an axis, and of what they repeat.

    n pixels of the image start at `before`.
    """
    end, length = before + n, padded.shape[axis]
    after = length - end
    firsts_before = {
        "nearest": before,
        "reflect": 2 * before,
        "symmetric": 2 * before - 1,
        "wrap": n,
    }
    firsts_after = {"nearest": end - 1, "reflect": end - 2, "symmetric": end - 1, "wrap": before}
    for border, first, step in (
        (slice(0, before), firsts_before, before),
        (slice(end, length), firsts_after, after),
    ):
        if step == 0:
            continue
        view, start = padded.swapaxes(axis, -1), first.get(border_mode, 0)
        if border_mode in ("reflect", "symmetric"):
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

    @with_hints()
    def __init__(self, factor, mode="nearest"):
        self.factor = factor
        self.mode = mode

    def _setup(self, input_shape, rng):
        self.output_shape(input_shape)

    def _factors(self):
        numbers = vars(self)["_numbers"]
        return (1, numbers["factor"]) if self.signals and "factor" in numbers else self.factor

    def fprop(self, input):
        check_real(input, "input")
        output = self._output(input)
        if self.training:
            self._kept = input.shape, input.dtype
        if self.mode == "nearest":
            self._repeat(input, output)
            return output
        starts, filters, options = self._triangles(input.shape, input.dtype)
        padded = self._padded(input.shape, starts, input.dtype)
        pad(input, padded, starts, "nearest")
        bprop_conv_bc01(None, padded, filters, output, need_filters_grad=False, **options)
        return output

    def bprop(self, output_grad):
        input_shape, dtype = self._kept
        check_like(output_grad, "output_grad", self.output_shape(input_shape), dtype)
        input_grad = self._scratch(input_shape, dtype)
        sums = input_grad
        if dtype != FLOAT64 and max(self._factors()) > LONG_SUM:
            sums = self._scratch(input_shape, FLOAT64)
        (self._add_up if self.mode == "nearest" else self._weigh_up)(output_grad, sums)
        if sums is not input_grad:
            np.copyto(input_grad, sums, casting="same_kind")
        return input_grad

    # --- nearest: first along the rows, then rows are put between these -----------------

    def _between(self, input_shape, dtype):
        n_imgs, n_channels, img_h, img_w = input_shape
        return self._scratch((n_imgs, n_channels, img_h, img_w * self._factors()[1]), dtype)

    def _repeat(self, input, output):
        y, x = self._factors()
        rows = self._between(input.shape, input.dtype) if y > 1 else output
        for i in range(x):
            np.copyto(rows[..., i::x], input)
        for i in range(y if y > 1 else 0):
            np.copyto(output[:, :, i::y], rows)

    def _add_up(self, output_grad, input_grad):
        y, x = self._factors()
        rows = self._between(input_grad.shape, input_grad.dtype)
        np.copyto(rows, output_grad[:, :, ::y])
        for i in range(1, y):
            rows += output_grad[:, :, i::y]
        np.copyto(input_grad, rows[..., ::x])
        for i in range(1, x):
            input_grad += rows[..., i::x]

    # --- bilinear: each pixel adds a pyramid to the output, as in a ConvTranspose ----------

    def _triangles(self, input_shape, dtype):
        """Where the image starts in one with an edge around, filters, and how to convolve.

        Interpolation of the edge needs another pixel beyond it, which has the edge's value.
        """
        factors = self._factors()
        starts = tuple(int(factor > 1) for factor in factors)
        y, x = map(triangle, factors)
        filters = self._array("filters", (1, input_shape[1], len(y), len(x)), dtype)
        filters[...] = y[:, None] * x
        cuts = [
            start * factor + (len(taps) - factor) // 2
            for start, factor, taps in zip(starts, factors, (y, x))
        ]
        return (
            starts,
            filters,
            {
                "strides": factors,
                "padding_mode": tuple(cuts),
                "groups": input_shape[1],
                "algorithm": "direct",  # an infinite pixel stays where it is
            },
        )

    def _weigh_up(self, output_grad, input_grad):
        """In the dtype of input_grad."""
        dtype = input_grad.dtype
        starts, filters, options = self._triangles(input_grad.shape, dtype)
        padded_grad = self._padded(input_grad.shape, starts, dtype)
        if dtype == output_grad.dtype:
            conv_bc01(output_grad, filters, padded_grad, **options)
        else:
            wide = self._scratch((1, *output_grad.shape[1:]), dtype)
            for i in range(len(output_grad)):  # all at once would take much memory
                np.copyto(wide, output_grad[i])
                conv_bc01(wide, filters, padded_grad[i : i + 1], **options)
        fold(padded_grad, input_grad, starts, "nearest")

    def _padded(self, input_shape, starts, dtype):
        n_imgs, n_channels, img_h, img_w = input_shape
        shape = n_imgs, n_channels, img_h + 2 * starts[0], img_w + 2 * starts[1]
        return self._scratch(shape, dtype)

    def reach(self):
        y, x = factors = self._factors()
        taps = 2 if self.mode == "bilinear" else 1
        extents = tuple(min(taps, factor) for factor in factors)
        return extents, (Fraction(1, y), Fraction(1, x))

    def output_shape(self, input_shape):
        check_axes(input_shape, "n_imgs, n_channels, img_h, img_w")
        y, x = self._factors()
        return *input_shape[:2], input_shape[2] * y, input_shape[3] * x


def triangle(factor):
    """How much of a pixel the output takes along an axis, from its centre on in both ways."""
    n_taps = 2 * factor - factor % 2
    return 1 - np.abs(np.arange(n_taps) - (n_taps - 1) / 2) / factor
