"""Conv: a convolution with bias."""

from nnet._conv import bprop_conv_bc01, conv_bc01
from nnet.geometry import BORDER_MODES, as_pair, conv_geometry
from nnet.layers.base import WeightedLayer, as_int, check_axes


class Conv(WeightedLayer):
    """Convolve images with learned filters.

    Parameters
    ----------
    n_feats : int
        Number of output channels.
    filter_shape, strides, dilation : int or (int, int)
        (height, width). Signals are images of height 1: give (1, length).
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
        self.n_feats = as_int(n_feats, "n_feats", 1)
        self.filter_shape = as_pair(filter_shape, "filter_shape")
        self.strides = as_pair(strides, "strides")
        self.padding_mode = padding_mode
        self.border_mode = border_mode
        if border_mode not in BORDER_MODES:
            raise ValueError(f"border_mode is {border_mode!r}, expected one of {BORDER_MODES}")
        self.dilation = as_pair(dilation, "dilation")
        self.groups = as_int(groups, "groups", 1)
        if self.n_feats % self.groups:
            raise ValueError(f"n_feats is {n_feats}, expected a multiple of groups = {groups}")

    def param_shapes(self, input_shape):
        """Shapes of the parameters W and b for this input."""
        self.output_shape(input_shape)
        n_channels = input_shape[1]
        if n_channels % self.groups:
            raise ValueError(
                f"expected a channel count that groups = {self.groups} divides, got {n_channels}"
            )
        return {
            "W": (n_channels // self.groups, self.n_feats, *self.filter_shape),
            "b": (self.n_feats,),
        }

    def _fans(self, W_shape):
        """Inputs that one output pixel sees, and outputs that one input pixel reaches."""
        group_channels, n_feats, fil_h, fil_w = W_shape
        return group_channels * fil_h * fil_w, n_feats // self.groups * fil_h * fil_w

    def fprop(self, input):
        if self.training:
            self._kept = input
        return conv_bc01(
            input,
            self.W,
            self._output(input),
            bias=self.b,
            activation="relu" if self._fused_relu else None,
            strides=self.strides,
            padding_mode=self.padding_mode,
            border_mode=self.border_mode,
            dilation=self.dilation,
            groups=self.groups,
        )

    def bprop(self, output_grad):
        imgs = self._kept
        imgs_grad = None
        if self.need_input_grad:
            imgs_grad = self._fleeting(imgs.shape, self.W.dtype)
        return bprop_conv_bc01(
            imgs,
            output_grad,
            self.W,
            imgs_grad,
            self.W_grad,
            need_imgs_grad=self.need_input_grad,
            bias_grad=self.b_grad,
            strides=self.strides,
            padding_mode=self.padding_mode,
            border_mode=self.border_mode,
            dilation=self.dilation,
            groups=self.groups,
        )[0]

    def output_shape(self, input_shape):
        check_axes(input_shape, "n_imgs, n_channels, img_h, img_w")
        where = conv_geometry(
            *input_shape[2:],
            *self.filter_shape,
            self.strides,
            self.padding_mode,
            self.border_mode,
            self.dilation,
        )
        return input_shape[0], self.n_feats, where.out_h, where.out_w
