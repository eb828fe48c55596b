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
loss.py         LossMixin: what a loss is
classification.py  LogRegression, BinaryCrossEntropy
regression.py   MeanSquaredError, MeanAbsoluteError, Huber
containers.py   Sequential, Residual, Parallel
program.py      Program: the passes through layers in a row; custom layers
fusion.py       which neighbours are computed as one
tree.py         walks through layers of layers: names, arrays, shapes
streams.py      random numbers
spec.py         layers as one line of text
"""

from nnet.layers.activation import Activation
from nnet.layers.base import Layer, ParamMixin
from nnet.layers.classification import BinaryCrossEntropy, LogRegression
from nnet.layers.containers import Parallel, Residual, Sequential
from nnet.layers.conv import Conv
from nnet.layers.linear import Flatten, Linear
from nnet.layers.loss import Compared, LossMixin
from nnet.layers.pool import GlobalAveragePool, Pool
from nnet.layers.regression import Huber, MeanAbsoluteError, MeanSquaredError
from nnet.layers.standardize import Standardize

__all__ = [
    "Activation",
    "BinaryCrossEntropy",
    "Compared",
    "Conv",
    "Flatten",
    "GlobalAveragePool",
    "Huber",
    "Layer",
    "Linear",
    "LogRegression",
    "LossMixin",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Parallel",
    "ParamMixin",
    "Pool",
    "Residual",
    "Sequential",
    "Standardize",
]
