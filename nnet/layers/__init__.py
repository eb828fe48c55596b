"""Layers: thin classes over the kernels.

base.py         Layer, ParamMixin: what a layer is
arguments.py    checks of options
weighted.py     WeightedLayer, the ancestor of Conv and Linear
windows.py      WindowMixin, what Conv and Pool share
conv.py         Conv
pool.py         Pool, GlobalAveragePool
linear.py       Linear, Flatten
activation.py   Activation
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
from nnet.layers.conv import Conv
from nnet.layers.linear import Flatten, Linear
from nnet.layers.loss import Compared, LogRegression, LossMixin, MeanSquaredError
from nnet.layers.norm import BatchNorm, GroupNorm
from nnet.layers.pool import GlobalAveragePool, Pool
from nnet.layers.standardize import Standardize

__all__ = [
    "Activation",
    "BatchNorm",
    "Compared",
    "Conv",
    "Flatten",
    "GlobalAveragePool",
    "GroupNorm",
    "Layer",
    "Linear",
    "LogRegression",
    "LossMixin",
    "MeanSquaredError",
    "Parallel",
    "ParamMixin",
    "Pool",
    "Residual",
    "Sequential",
    "Standardize",
]
