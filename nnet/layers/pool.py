"""Pool and GlobalAveragePool: summaries of neighbouring pixels."""

import numpy as np

from nnet._dense import bprop_relu
from nnet._pool import bprop_pool_bc01, pool_bc01
from nnet.geometry import as_pair, pool_geometry
from nnet.layers.base import Layer, as_bool, check_axes

MAX_PLACES = 256  # pixels of a window: the kernels keep a place among them in a byte


class Pool(Layer):
    """Maximum or average of windows.

    Parameters
    ----------
    pool_shape, strides : int or (int, int)
        (height, width). Signals are images of height 1: give (1, length).
    mode : {'max', 'avg'}
    padding_mode : {'centered', 'same', 'valid', 'full'} or pads
        'centered': output size = image size // stride, and windows start at
        i * stride - (pool - 1) // 2. Pads as for Conv: an int, (y, x) or
        ((top, bottom), (left, right)).
    count_include_pad : bool
        Whether an average divides by the window's size or by the number of its
        real pixels. For averages only.
    """

    def __init__(
        self,
        pool_shape=(3, 3),
        strides=(1, 1),
        mode="max",
        padding_mode="centered",
        count_include_pad=False,
    ):
        if mode not in ("max", "avg"):
            raise ValueError(f"mode is {mode!r}, expected 'max' or 'avg'")
        self.pool_shape = as_pair(pool_shape, "pool_shape")
        self.strides = as_pair(strides, "strides")
        self.mode = mode
        self.padding_mode = padding_mode
        self.count_include_pad = as_bool(count_include_pad, "count_include_pad")
        if mode == "max" and self.count_include_pad:
            raise ValueError("count_include_pad is True, expected False for mode 'max'")

    def _setup(self, input_shape, rng):
        self.output_shape(input_shape)

    def fprop(self, input):
        output, switches = self._output(input), None
        if self.mode == "max":
            switches = self._switches(output.shape)
        pool_bc01(
            input,
            output,
            switches,
            *self.pool_shape,
            *self.strides,
            mode=self.mode,
            padding_mode=self.padding_mode,
            count_include_pad=self.count_include_pad,
        )
        if self.training:
            self._kept = input.shape, output, switches
        return output

    def bprop(self, output_grad):
        input_shape, output, switches = self._kept
        if self._fused_relu_grad:  # here there are fewer values than before the pooling
            masked = self._fleeting(output.shape, output.dtype)
            output_grad = bprop_relu(output, output_grad, masked)
        imgs_grad = self._fleeting(input_shape, output_grad.dtype)
        return bprop_pool_bc01(
            output_grad,
            switches,
            imgs_grad,
            *self.pool_shape,
            *self.strides,
            mode=self.mode,
            padding_mode=self.padding_mode,
            count_include_pad=self.count_include_pad,
        )

    def output_shape(self, input_shape):
        check_axes(input_shape, "n_imgs, n_channels, img_h, img_w")
        where = pool_geometry(*input_shape[2:], *self.pool_shape, *self.strides, self.padding_mode)
        return *input_shape[:2], where.out_h, where.out_w

    def _switches(self, out_shape):
        """Places in windows, or for large windows rows and columns in images."""
        if self.pool_shape[0] * self.pool_shape[1] > MAX_PLACES:
            return self._array("switches", (*out_shape, 2), np.intp)
        return self._array("switches", out_shape, np.uint8)


WHOLE = {"mode": "avg", "padding_mode": "valid"}  # with a window of the image's size


class GlobalAveragePool(Layer):
    """The average of each channel: (n_imgs, n_channels, img_h, img_w) -> (n_imgs, n_channels)."""

    def _setup(self, input_shape, rng):
        self.output_shape(input_shape)

    def fprop(self, input):
        if self.training:
            self._kept = input.shape
        output, size = self._output(input), input.shape[2:]
        pool_bc01(input, output[:, :, None, None], None, *size, *size, **WHOLE)
        return output

    def bprop(self, output_grad):
        input_shape = self._kept
        imgs_grad = self._fleeting(input_shape, output_grad.dtype)
        size = input_shape[2:]
        output_grad = output_grad[:, :, None, None]
        return bprop_pool_bc01(output_grad, None, imgs_grad, *size, *size, **WHOLE)

    def output_shape(self, input_shape):
        check_axes(input_shape, "n_imgs, n_channels, img_h, img_w")
        return tuple(input_shape[:2])
