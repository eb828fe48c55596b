"""SeparableConv: a convolution of each channel by itself, then one that mixes channels."""

from nnet.layers.arguments import PassedOption
from nnet.layers.containers import Container
from nnet.layers.conv import Conv, DepthwiseConv
from nnet.layers.hints import CHANNELS_ARE_FOUND, with_hints


class SeparableConv(Container):
    """A DepthwiseConv without bias, then a Conv of 1x1 that mixes its channels.

    Chollet 2017, "Xception: Deep learning with depthwise separable convolutions", section 1.

    Parameters
    ----------
    n_feats : int
        Number of output channels.
    filter_shape, strides, padding_mode, dilation, depth_multiplier, border_mode
        Of the `DepthwiseConv`.
    use_bias : bool
        Of the Conv.
    weight_scale, weight_decay
        Of both.

    Attributes
    ----------
    depthwise : DepthwiseConv
    pointwise : Conv
    """

    n_feats = PassedOption("pointwise")
    filter_shape = PassedOption("depthwise")
    strides = PassedOption("depthwise")
    padding_mode = PassedOption("depthwise")
    dilation = PassedOption("depthwise")
    depth_multiplier = PassedOption("depthwise")
    use_bias = PassedOption("pointwise")
    border_mode = PassedOption("depthwise")
    weight_scale = PassedOption("depthwise", "pointwise")
    weight_decay = PassedOption("depthwise", "pointwise")

    @with_hints(CHANNELS_ARE_FOUND)
    def __init__(
        self,
        n_feats,
        filter_shape,
        strides=(1, 1),
        *,
        padding_mode="same",
        dilation=(1, 1),
        depth_multiplier=1,
        use_bias=True,
        border_mode="zeros",
        weight_scale="he",
        weight_decay=0.0,
    ):
        self.depthwise = DepthwiseConv(
            filter_shape,
            strides,
            padding_mode=padding_mode,
            depth_multiplier=depth_multiplier,
            dilation=dilation,
            use_bias=False,
            border_mode=border_mode,
            weight_scale=weight_scale,
            weight_decay=weight_decay,
        )
        self.pointwise = Conv(
            n_feats, 1, 1, weight_scale=weight_scale, weight_decay=weight_decay, use_bias=use_bias
        )

    def _is_row(self):
        return type(self) is SeparableConv

    @property
    def children(self):
        return {"depthwise": self.depthwise, "pointwise": self.pointwise}

    def config(self):
        return {name: getattr(type(self), name).given(self) for name in super().config()}

    def fprop(self, input):
        return self._start(input)[0].fprop(input)

    def bprop(self, output_grad):
        return self._running[0].bprop(output_grad)
