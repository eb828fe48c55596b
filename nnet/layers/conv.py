"""Conv and DepthwiseConv: convolutions with bias."""

from abc import abstractmethod
from typing import Any

from nnet._conv import bprop_conv_bc01, conv_bc01
from nnet.geometry import BORDER_MODES, PADDING_WORDS, conv_geometry
from nnet.layers.arguments import Option, PairOption, as_count, as_word, check_axes
from nnet.layers.hints import CHANNELS_ARE_FOUND, with_hints
from nnet.layers.weighted import WeightedLayer
from nnet.layers.windows import WindowMixin, as_padding_mode


class ConvLayer(WindowMixin, WeightedLayer):
    """What convolutions share, however many features and groups they have."""

    _WINDOW = "filter_shape"
    filter_shape = PairOption()
    strides = PairOption()
    padding_mode = Option(as_padding_mode, PADDING_WORDS)
    border_mode = Option(as_word, BORDER_MODES)
    dilation = PairOption()

    def __init__(
        self,
        filter_shape,
        strides,
        padding_mode,
        border_mode,
        dilation,
        use_bias,
        weight_scale,
        weight_decay,
    ):
        super().__init__(weight_scale, weight_decay, use_bias)
        self.filter_shape = filter_shape
        self.strides = strides
        self.padding_mode = padding_mode
        self.border_mode = border_mode
        self.dilation = dilation

    groups: Any  # as many as channels in a DepthwiseConv, once it has weights

    @abstractmethod
    def _counts(self, n_channels):
        """(n_feats, groups) for images of so many channels."""

    def array_shapes(self, input_shape):
        self.output_shape(input_shape)
        n_channels = input_shape[1]
        n_feats, groups = self._counts(n_channels)
        if n_channels % groups:
            raise ValueError(
                f"expected a channel count that groups = {groups} divides, got {n_channels}"
            )
        shapes = {"W": (n_channels // groups, n_feats, *self._window("filter_shape"))}
        return shapes | ({"b": (n_feats,)} if self.use_bias else {})

    def _fans(self, W_shape):
        group_channels, n_feats, fil_h, fil_w = W_shape
        group_feats = self._group_feats(n_feats)
        return group_channels * fil_h * fil_w, group_feats * fil_h * fil_w

    @abstractmethod
    def _group_feats(self, n_feats):
        """How many features see a channel."""

    def _find_geometry(self):
        return {
            "strides": self._window("strides"),
            "padding_mode": self._pads(),
            "border_mode": self.border_mode,
            "dilation": self._window("dilation"),
        }

    def fprop(self, input, activation=None):
        if self.training:
            self._kept = input
        try:
            return conv_bc01(
                input,
                self.W,
                self._output(input),
                bias=self.b if self.use_bias else None,
                activation=activation,
                groups=self.groups,
                **(self._found_geometry or self._geometry()),
            )
        except TypeError:
            self.params()  # says so if there are none yet
            raise

    def bprop(self, output_grad):
        imgs = self._kept
        learns = self._learns()
        imgs_grad = None
        if self.need_input_grad:
            imgs_grad = self._scratch(imgs.shape, self.W.dtype)
        return bprop_conv_bc01(
            imgs,
            output_grad,
            self.W,
            imgs_grad,
            self.W_grad if learns else None,
            need_imgs_grad=self.need_input_grad,
            need_filters_grad=learns,
            bias_grad=self._bias_grad() if learns else None,
            groups=self.groups,
            **self._geometry(),
        )[0]

    def output_shape(self, input_shape):
        check_axes(input_shape, "n_imgs, n_channels, img_h, img_w")
        n_feats, _ = self._counts(input_shape[1])
        window = self._window("filter_shape")
        where = conv_geometry(*input_shape[2:], *window, **self._geometry())
        return input_shape[0], n_feats, where.out_h, where.out_w

    def reach(self):
        sizes = zip(self._window("filter_shape"), self._window("dilation"))
        return tuple(step * (taps - 1) + 1 for taps, step in sizes), self._window("strides")


class Conv(ConvLayer):
    """Convolve images with learned filters.

    Parameters
    ----------
    n_feats : int
        Number of output channels.
    filter_shape, strides, dilation : int or (int, int)
        (height, width). Signals are images of height 1: for them give (1, length), or the
        length alone, as in Conv(16, 9).
    weight_scale : float, 'he' or 'glorot'
        Standard deviation of the initial weights.
    weight_decay : float
        Shrinks the weights, not the biases: adds weight_decay * W to the step.
    padding_mode : {'same', 'valid', 'full'}, int, (y, x) or ((top, bottom), (left, right))
    border_mode : {'zeros', 'nearest', 'reflect', 'wrap', 'symmetric'}
    groups : int
        Features of a group see only the channels of that group.
    use_bias : bool

    Attributes
    ----------
    W : array (n_channels // groups, n_feats, fil_h, fil_w)
    b : array (n_feats,), or None
    """

    _COMPUTES_RELU = True
    n_feats = Option(as_count)
    groups = Option(as_count)

    @with_hints(CHANNELS_ARE_FOUND)
    def __init__(
        self,
        n_feats,
        filter_shape,
        strides=(1, 1),
        *,
        weight_scale="he",
        weight_decay=0.0,
        padding_mode="same",
        border_mode="zeros",
        dilation=(1, 1),
        groups=1,
        use_bias=True,
    ):
        super().__init__(
            filter_shape,
            strides,
            padding_mode,
            border_mode,
            dilation,
            use_bias,
            weight_scale,
            weight_decay,
        )
        self.n_feats = n_feats
        self.groups = groups
        check_groups(self.n_feats, self.groups)

    def _counts(self, n_channels):
        return self.n_feats, self.groups

    def _group_feats(self, n_feats):
        return n_feats // self.groups

    def array_shapes(self, input_shape):
        check_groups(self.n_feats, self.groups)
        return super().array_shapes(input_shape)


def check_groups(n_feats, groups):
    if n_feats % groups:
        raise ValueError(f"n_feats is {n_feats}, expected a multiple of groups = {groups}")


class DepthwiseConv(ConvLayer):
    """Convolve each channel with filters of its own: a Conv of as many groups as channels.

    Parameters
    ----------
    filter_shape, strides, padding_mode, dilation, border_mode, use_bias, weight_scale, weight_decay
        As for `Conv`.
    depth_multiplier : int
        Number of output channels for each input channel: channel c gives those from
        c * depth_multiplier on.

    Attributes
    ----------
    W : array (1, n_channels * depth_multiplier, fil_h, fil_w)
    b : array (n_channels * depth_multiplier,), or None
    """

    _COMPUTES_RELU = True
    depth_multiplier = Option(as_count)

    @with_hints(CHANNELS_ARE_FOUND)
    def __init__(
        self,
        filter_shape,
        strides=(1, 1),
        *,
        padding_mode="same",
        depth_multiplier=1,
        dilation=(1, 1),
        use_bias=True,
        border_mode="zeros",
        weight_scale="he",
        weight_decay=0.0,
    ):
        super().__init__(
            filter_shape,
            strides,
            padding_mode,
            border_mode,
            dilation,
            use_bias,
            weight_scale,
            weight_decay,
        )
        self.depth_multiplier = depth_multiplier

    @property
    def groups(self):
        return self.params()[0].shape[1] // self.depth_multiplier

    def _counts(self, n_channels):
        return n_channels * self.depth_multiplier, n_channels

    def _group_feats(self, n_feats):
        return self.depth_multiplier
