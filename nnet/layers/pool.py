"""Pool, GlobalAveragePool and GlobalMaxPool: summaries of neighbouring pixels."""

from typing import Any

import numpy as np

from nnet._dense import bprop_activate
from nnet._pool import bprop_pool_bc01, pool_bc01
from nnet.geometry import PADDING_WORDS, pool_geometry
from nnet.layers.arguments import Option, PairOption, as_bool, as_word, check_axes, check_like
from nnet.layers.base import Layer, sees_all
from nnet.layers.hints import with_hints
from nnet.layers.windows import WindowMixin, as_padding_mode

MAX_PLACES = 256  # pixels of a window: the kernels keep a place among them in a byte


class Pool(WindowMixin, Layer):
    """Maximum or average of windows.

    Parameters
    ----------
    pool_shape, strides : int or (int, int)
        (height, width). Signals are images of height 1: for them give (1, length), or the
        length alone, as in Pool(2, 2).
    mode : {'max', 'avg'}
    padding_mode : {'centered', 'same', 'valid', 'full'} or pads
        'centered': output size = image size // stride, and windows start at
        i * stride - (pool - 1) // 2. Pads as for Conv: an int, (y, x) or
        ((top, bottom), (left, right)).
    count_include_pad : bool
        Whether an average divides by the window's size or by the number of its
        real pixels. For averages only.
    ceil_mode : bool
        With explicit padding, whether a last window may hang over the edge, as PyTorch has it:
        the output's size is rounded up. What is beyond the padding is not counted.
    """

    _WINDOW = "pool_shape"
    pool_shape = PairOption()
    strides = PairOption()
    mode = Option(as_word, ("max", "avg"))
    padding_mode = Option(as_padding_mode, ("centered", *PADDING_WORDS))
    count_include_pad = Option(as_bool)
    ceil_mode = Option(as_bool)

    @with_hints()
    def __init__(
        self,
        pool_shape=(3, 3),
        strides=(1, 1),
        mode="max",
        padding_mode="centered",
        count_include_pad=False,
        ceil_mode=False,
    ):
        self.pool_shape = pool_shape
        self.strides = strides
        self.mode = mode
        self.padding_mode = padding_mode
        self.count_include_pad = count_include_pad
        self.ceil_mode = ceil_mode
        self._check_options()

    def _check_options(self):
        if self.mode == "max" and self.count_include_pad:
            raise ValueError("count_include_pad is True, expected False for mode 'max'")
        if self.ceil_mode and isinstance(self.padding_mode, str):
            raise ValueError(
                "ceil_mode is True, expected explicit padding such as padding_mode=0, got "
                f"{self.padding_mode!r}"
            )

    def _setup(self, input_shape, rng):
        self.output_shape(input_shape)

    def _find_geometry(self):
        sizes = *self._window("pool_shape"), *self._window("strides")
        options = {
            "mode": self.mode,
            "padding_mode": self._pads(),
            "count_include_pad": self.count_include_pad,
            "ceil_mode": self.ceil_mode,
        }
        return sizes, options

    def fprop(self, input):
        output, switches = self._output(input), None
        need = bool(self.training)
        if self.mode == "max" and need:
            switches = self._switches(output.shape)
        sizes, options = self._found_geometry or self._geometry()
        pool_bc01(input, output, switches, *sizes, need_switches=need, **options)
        if self.training:
            self._kept = input.shape, output, switches
        return output

    def bprop(self, output_grad):
        input_shape, output, switches = self._kept
        if self._work is None:
            check_like(output_grad, "output_grad", output.shape, output.dtype)
        imgs_grad = self._scratch(input_shape, output_grad.dtype)
        sizes, options = self._geometry()
        return bprop_pool_bc01(output_grad, switches, imgs_grad, *sizes, **options)

    def bprop_relu(self, output_grad):
        """`bprop`, and that of a ReLU before this layer: here there are fewer values."""
        output = self._kept[1]
        masked = self._scratch(output.shape, output.dtype)
        return self.bprop(bprop_activate(output, output_grad, masked, type="relu"))

    def output_shape(self, input_shape):
        self._check_options()
        check_axes(input_shape, "n_imgs, n_channels, img_h, img_w")
        sizes, options = self._geometry()
        windows = *sizes, options["padding_mode"], options["ceil_mode"]
        where = pool_geometry(*input_shape[2:], *windows)
        return *input_shape[:2], where.out_h, where.out_w

    def reach(self):
        return self._window("pool_shape"), self._window("strides")

    def _switches(self, out_shape):
        """Places in windows, or for large windows rows and columns in images."""
        pool_h, pool_w = self._window("pool_shape")
        if pool_h * pool_w > MAX_PLACES:
            return self._array("switches", (*out_shape, 2), INTP)
        return self._array("switches", out_shape, UINT8)


INTP, UINT8 = np.dtype(np.intp), np.dtype(np.uint8)


class GlobalPool(Layer):
    """A summary of each channel: (n_imgs, n_channels, img_h, img_w) -> (n_imgs, n_channels)."""

    _WHOLE: dict[str, Any]  # how to pool windows of the image's size
    reach = sees_all

    def _setup(self, input_shape, rng):
        self.output_shape(input_shape)

    def fprop(self, input):
        output, size = self._output(input), input.shape[2:]
        switches, need = None, bool(self.training)
        if self._WHOLE["mode"] == "max" and need:
            switches = self._array("switches", (*output.shape, 1, 1, 2), INTP)
        pooled = output[:, :, None, None]
        pool_bc01(input, pooled, switches, *size, *size, need_switches=need, **self._WHOLE)
        if self.training:
            self._kept = input.shape, input.dtype, switches
        return output

    def bprop(self, output_grad):
        input_shape, dtype, switches = self._kept
        check_like(output_grad, "output_grad", input_shape[:2], dtype)
        imgs_grad = self._scratch(input_shape, dtype)
        size = input_shape[2:]
        output_grad = output_grad[:, :, None, None]
        return bprop_pool_bc01(output_grad, switches, imgs_grad, *size, *size, **self._WHOLE)

    def output_shape(self, input_shape):
        check_axes(input_shape, "n_imgs, n_channels, img_h, img_w")
        return tuple(input_shape[:2])


class GlobalAveragePool(GlobalPool):
    """The average of each channel: (n_imgs, n_channels, img_h, img_w) -> (n_imgs, n_channels)."""

    _WHOLE = {"mode": "avg", "padding_mode": "valid"}


class GlobalMaxPool(GlobalPool):
    """The maximum of each channel: (n_imgs, n_channels, img_h, img_w) -> (n_imgs, n_channels).

    The gradient goes to the first of equal maxima, as PyTorch's AdaptiveMaxPool2d(1) has it.
    """

    _WHOLE = {"mode": "max", "padding_mode": "valid"}
