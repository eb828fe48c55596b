"""What `nnet` has besides the kernels: layers, networks and what belongs to them."""

from nnet.files.images import to_bc01
from nnet.layers import (
    Activation,
    Compared,
    Conv,
    Flatten,
    GlobalAveragePool,
    Layer,
    Linear,
    LogRegression,
    LossMixin,
    MeanSquaredError,
    Parallel,
    ParamMixin,
    Pool,
    Residual,
    Sequential,
    Standardize,
)
from nnet.training.callbacks import Callback, Checkpoint, EarlyStopping, ProgressBar
from nnet.training.network import NeuralNetwork
from nnet.training.optimizers import SGD, Optimizer
from nnet.training.progress import DivergedError, Progress, StopTraining

__all__ = [
    "SGD",
    "Activation",
    "Callback",
    "Checkpoint",
    "Compared",
    "Conv",
    "DivergedError",
    "EarlyStopping",
    "Flatten",
    "GlobalAveragePool",
    "Layer",
    "Linear",
    "LogRegression",
    "LossMixin",
    "MeanSquaredError",
    "NeuralNetwork",
    "Optimizer",
    "Parallel",
    "ParamMixin",
    "Pool",
    "Progress",
    "ProgressBar",
    "Residual",
    "Sequential",
    "Standardize",
    "StopTraining",
    "to_bc01",
]
