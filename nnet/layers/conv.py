"""Conv: a convolution with bias."""

from nnet._conv import bprop_conv_bc01, conv_bc01
from nnet.geometry import BORDER_MODES, PADDING_WORDS, conv_geometry
from nnet.layers.arguments import Option, PairOption, as_count, as_word, check_axes
from nnet.layers.weighted import WeightedLayer
from nnet.layers.windows import WindowMixin, as_padding_mode


class Conv(WindowMixin, WeightedLayer):
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
    border_mode : {'zeros', 'nearest', 'reflect', 'wrap'}
    groups : int
        Features of a group see only the channels of that group.
    use_bias : bool

    Attributes
    ----------
    W : array (n_channels // groups, n_feats, fil_h, fil_w)
    b : array (n_feats,), or None
    """

    _WINDOW = "filter_shape"
    _COMPUTES_RELU = True
    n_feats = Option(as_count)
    filter_shape = PairOption()
    strides = PairOption()
    padding_mode = Option(as_padding_mode, PADDING_WORDS)
    border_mode = Option(as_word, BORDER_MODES)
    dilation = PairOption()
    groups = Option(as_count)

    def __init__(
        self,
        n_feats,
        filter_shape,
        strides=(1, 1),
        weight_scale="he",
        weight_decay=0.0,
        padding_mode="same",
        border_mode="zeros",
        dilation=(1, 1),
        groups=1,
        use_bias=True,
    ):
        super().__init__(weight_scale, weight_decay, use_bias)
        self.n_feats = n_feats
        self.filter_shape = filter_shape
        self.strides = strides
        self.padding_mode = padding_mode
        self.border_mode = border_mode
        self.dilation = dilation
        self.groups = groups
        self._check_groups()

    def _check_groups(self):
        if self.n_feats % self.groups:
            raise ValueError(
                f"n_feats is {self.n_feats}, expected a multiple of groups = {self.groups}"
            )

    def array_shapes(self, input_shape):
        self._check_groups()
        self.output_shape(input_shape)
        n_channels = input_shape[1]
        if n_channels % self.groups:
            raise ValueError(
                f"expected a channel count that groups = {self.groups} divides, got {n_channels}"
            )
        shapes = {"W": (n_channels // self.groups, self.n_feats, *self._window("filter_shape"))}
        return shapes | ({"b": (self.n_feats,)} if self.use_bias else {})

    def _fans(self, W_shape):
        group_channels, n_feats, fil_h, fil_w = W_shape
        return group_channels * fil_h * fil_w, n_feats // self.groups * fil_h * fil_w

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
        return conv_bc01(
            input,
            self.W,
            self._output(input),
            bias=self.b if self.use_bias else None,
            activation=activation,
            groups=self.groups,
            **(self._found_geometry or self._geometry()),
        )

    def bprop(self, output_grad):
        imgs = self._kept
        imgs_grad = None
        if self.need_input_grad:
            imgs_grad = self._scratch(imgs.shape, self.W.dtype)
        return bprop_conv_bc01(
            imgs,
            output_grad,
            self.W,
            imgs_grad,
            self.W_grad,
            need_imgs_grad=self.need_input_grad,
            bias_grad=self._bias_grad(),
            groups=self.groups,
            **self._geometry(),
        )[0]

    def output_shape(self, input_shape):
        check_axes(input_shape, "n_imgs, n_channels, img_h, img_w")
        window = self._window("filter_shape")
        where = conv_geometry(*input_shape[2:], *window, **self._geometry())
        return input_shape[0], self.n_feats, where.out_h, where.out_w
