"""Layers: thin classes over the kernels.

base.py         Layer, ParamMixin, LossMixin; WeightedLayer, the ancestor of Conv and Linear
conv.py         Conv
pool.py         Pool, GlobalAveragePool
linear.py       Linear, Flatten
activation.py   Activation
loss.py         LogRegression, MeanSquaredError
standardize.py  Standardize
"""

from nnet.layers.activation import Activation
from nnet.layers.base import Layer, LossMixin, ParamMixin
from nnet.layers.conv import Conv
from nnet.layers.linear import Flatten, Linear
from nnet.layers.loss import LogRegression, MeanSquaredError
from nnet.layers.pool import GlobalAveragePool, Pool
from nnet.layers.standardize import Standardize

__all__ = [
    "Activation",
    "Conv",
    "Flatten",
    "GlobalAveragePool",
    "Layer",
    "Linear",
    "LogRegression",
    "LossMixin",
    "MeanSquaredError",
    "ParamMixin",
    "Pool",
    "Standardize",
]
