"""Layers: thin classes over the kernels.

base.py         Layer, ParamMixin: what a layer is
arguments.py    checks of options
weighted.py     WeightedLayer, the ancestor of convolutions and Linear
windows.py      WindowMixin, what convolutions and Pool share
conv.py         Conv, DepthwiseConv
conv_transpose.py  ConvTranspose
separable.py    SeparableConv
pool.py         Pool, GlobalAveragePool, GlobalMaxPool
resampling.py   Pad, Upsample
linear.py       Linear, Flatten
activation.py   Activation
dropout.py      Dropout
standardize.py  Standardize
norm.py         BatchNorm, GroupNorm
loss.py         LossMixin, LogRegression, MeanSquaredError
containers.py   Sequential, Residual, Parallel
program.py      Program: the passes through layers in a row; custom layers
fusion.py       which neighbours are computed as one
tree.py         walks through layers of layers: names, arrays, shapes
streams.py      random numbers
spec.py         layers as one line of text
"""

from nnet.layers.activation import Activation
from nnet.layers.base import Layer, ParamMixin
from nnet.layers.containers import Parallel, Residual, Sequential
from nnet.layers.conv import Conv, DepthwiseConv
from nnet.layers.conv_transpose import ConvTranspose
from nnet.layers.dropout import Dropout
from nnet.layers.linear import Flatten, Linear
from nnet.layers.loss import Compared, LogRegression, LossMixin, MeanSquaredError
from nnet.layers.norm import BatchNorm, GroupNorm
from nnet.layers.pool import GlobalAveragePool, GlobalMaxPool, Pool
from nnet.layers.resampling import Pad, Upsample
from nnet.layers.separable import SeparableConv
from nnet.layers.standardize import Standardize

__all__ = [
    "Activation",
    "BatchNorm",
    "Compared",
    "Conv",
    "ConvTranspose",
    "DepthwiseConv",
    "Dropout",
    "Flatten",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNorm",
    "Layer",
    "Linear",
    "LogRegression",
    "LossMixin",
    "MeanSquaredError",
    "Pad",
    "Parallel",
    "ParamMixin",
    "Pool",
    "Residual",
    "SeparableConv",
    "Sequential",
    "Standardize",
    "Upsample",
]
