"""ConvTranspose: the gradient of a convolution by its images, as a layer."""

import math
from fractions import Fraction

import numpy as np

from nnet._conv import bprop_conv_bc01, conv_bc01
from nnet.geometry import PADDING_WORDS, conv_transpose_geometry
from nnet.layers.arguments import Option, PairOption, as_count, check_axes, check_like
from nnet.layers.conv import check_groups
from nnet.layers.hints import CHANNELS_ARE_FOUND, with_hints
from nnet.layers.weighted import WeightedLayer
from nnet.layers.windows import WindowMixin, as_padding_mode


class ConvTranspose(WindowMixin, WeightedLayer):
    """Each pixel adds its value times a filter to the output, which is larger by the strides.

    out[n, k, y*sy + i*dy - top, x*sx + j*dx - left] is bias[k] plus the sum over c, y, x, i, j of
    imgs[n, c, y, x] * W[c, k, i, j]: what `bprop_conv_bc01` gives as gradient of the images.

    Parameters
    ----------
    n_feats : int
        Number of output channels.
    filter_shape, strides, dilation : int or (int, int)
        (height, width), as for `Conv`.
    padding_mode : {'same', 'valid', 'full'}, int, (y, x) or ((top, bottom), (left, right))
        What is cut from the full output. 'same' and 'valid' are Keras's: 'same' leaves
        n * stride of n pixels, and cuts the smaller half first, so that of a filter of 3 and
        stride 2 the full output stays but for its last value. 'valid' cuts nothing, and adds
        zeros at the end if strides are larger than filters, up to n * stride values. 'full' is
        the reverse of a Conv's. Explicit padding is PyTorch's: it cuts just that, and
        padding_mode=0 nothing.
    output_padding : int or (int, int)
        With explicit padding, rows and columns that are cut less at the end, or added where
        none are cut; fewer than the strides or the dilation. padding_mode=1, output_padding=1
        of a filter of 3 and stride 2 leaves out the first value, where 'same' leaves out the
        last.
    groups : int
        Features of a group see only the channels of that group.
    use_bias : bool
    weight_scale : float, 'he' or 'glorot'
        Standard deviation of the initial weights.
    weight_decay : float
        Shrinks the weights, not the biases: adds weight_decay * W to the step.

    Attributes
    ----------
    W : array (n_channels, n_feats // groups, fil_h, fil_w)
    b : array (n_feats,), or None

    Notes
    -----
    Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep learning", chapter 4.
    """

    _WINDOW = "filter_shape"
    n_feats = Option(as_count)
    filter_shape = PairOption()
    strides = PairOption()
    padding_mode = Option(as_padding_mode, PADDING_WORDS)
    output_padding = PairOption(0)
    dilation = PairOption()
    groups = Option(as_count)

    @with_hints(CHANNELS_ARE_FOUND)
    def __init__(
        self,
        n_feats,
        filter_shape,
        strides=(1, 1),
        *,
        padding_mode="same",
        output_padding=(0, 0),
        dilation=(1, 1),
        groups=1,
        use_bias=True,
        weight_scale="he",
        weight_decay=0.0,
    ):
        super().__init__(weight_scale, weight_decay, use_bias)
        self.n_feats = n_feats
        self.filter_shape = filter_shape
        self.strides = strides
        self.padding_mode = padding_mode
        self.output_padding = output_padding
        self.dilation = dilation
        self.groups = groups
        check_groups(self.n_feats, self.groups)

    def array_shapes(self, input_shape):
        check_groups(self.n_feats, self.groups)
        self.output_shape(input_shape)
        n_channels = input_shape[1]
        if n_channels % self.groups:
            raise ValueError(
                f"expected a channel count that groups = {self.groups} divides, got {n_channels}"
            )
        group_feats = self.n_feats // self.groups
        shapes = {"W": (n_channels, group_feats, *self._window("filter_shape"))}
        return shapes | ({"b": (self.n_feats,)} if self.use_bias else {})

    def _fans(self, W_shape):
        n_channels, group_feats, *fil_shape = W_shape
        # With strides an output sees a part of the taps: so many on average.
        seen = math.prod(max(n / s, 1) for n, s in zip(fil_shape, self._window("strides")))
        return n_channels // self.groups * seen, group_feats * math.prod(fil_shape)

    def _find_geometry(self):
        return self._window("strides"), self._pads(), self._extra(), self._window("dilation")

    def _extra(self):
        """The output's padding: signals have none along their height."""
        if self.signals and "output_padding" in vars(self)["_numbers"]:
            return 0, vars(self)["_numbers"]["output_padding"]
        return self.output_padding

    def _where(self, input_shape):
        """The geometry of the convolution of which this is the gradient."""
        window = self._window("filter_shape")
        return conv_transpose_geometry(*input_shape[2:], *window, *self._geometry())

    def _options(self, input_shape):
        """The same, and groups, as keyword arguments."""
        g = self._where(input_shape)
        return {
            "strides": (g.stride_y, g.stride_x),
            "padding_mode": ((g.top, max(g.bottom, 0)), (g.left, max(g.right, 0))),
            "dilation": (g.dilation_y, g.dilation_x),
            "groups": self.groups,
        }

    def _reached(self, output, input_shape):
        """The part of an output that pixels reach: a larger output_padding adds some behind it."""
        g = self._where(input_shape)
        return output[:, :, : g.out_h + min(g.bottom, 0), : g.out_w + min(g.right, 0)]

    def _filters(self):
        """W as the filters of that convolution, whose features are this layer's channels."""
        W, *_ = self.params()
        n_channels, group_feats, *fil_shape = W.shape
        filters = self._array("filters", (group_feats, n_channels, *fil_shape), W.dtype)
        np.copyto(filters, W.swapaxes(0, 1))
        return filters

    def fprop(self, input):
        output, filters = self._output(input), self._filters()
        check_like(input, "input", (len(input), len(self.W), *input.shape[2:]), self.W.dtype)
        if self.training:
            self._kept = input, filters
        reached = self._reached(output, input.shape)
        if reached.shape != output.shape:
            output.fill(0)
        bprop_conv_bc01(
            None, input, filters, reached, need_filters_grad=False, **self._options(input.shape)
        )
        if self.use_bias:
            output += self.b[:, None, None]
        return output

    def bprop(self, output_grad):
        input, filters = self._kept
        check_like(output_grad, "output_grad", self.output_shape(input.shape), input.dtype)
        options, reached = self._options(input.shape), self._reached(output_grad, input.shape)
        if self._learns():
            self._filters_grad(input, reached, filters, options)
            if self.use_bias:
                sums = np.add.reduce(output_grad, axis=(2, 3), dtype=float).sum(axis=0)
                np.divide(sums, max(len(input), 1), out=self.b_grad, casting="same_kind")
        if not self.need_input_grad:
            return None
        return conv_bc01(reached, filters, self._scratch(input.shape, self.W.dtype), **options)

    def _filters_grad(self, input, output_grad, filters, options):
        """The convolution sees the roles of images and gradient exchanged."""
        filters_grad = self._array("filters_grad", filters.shape, filters.dtype)
        bprop_conv_bc01(
            output_grad, input, filters, None, filters_grad, need_imgs_grad=False, **options
        )
        np.copyto(self.W_grad, filters_grad.swapaxes(0, 1))

    def multiply_adds(self, input_shape, output_shape):
        """All weights, once for each pixel of the input."""
        W_shape = self.array_shapes(input_shape)["W"]
        return math.prod(W_shape) * math.prod(input_shape[2:]) * input_shape[0]

    def reach(self):
        """Of the output that sees most: taps a stride apart, from one input pixel to the next."""
        strides = self._window("strides")
        sizes = zip(self._window("filter_shape"), self._window("dilation"), strides)
        extents = tuple(step * (taps - 1) // stride + 1 for taps, step, stride in sizes)
        return extents, tuple(Fraction(1, stride) for stride in strides)

    def output_shape(self, input_shape):
        check_axes(input_shape, "n_imgs, n_channels, img_h, img_w")
        where = self._where(input_shape)
        return input_shape[0], self.n_feats, where.out_h, where.out_w
