"""What `nnet` has besides the kernels: layers, networks and what belongs to them."""

from nnet.files.images import to_bc01
from nnet.layers import (
    Activation,
    BinaryCrossEntropy,
    Compared,
    Conv,
    Flatten,
    GlobalAveragePool,
    Huber,
    Layer,
    Linear,
    LogRegression,
    LossMixin,
    MeanAbsoluteError,
    MeanSquaredError,
    Parallel,
    ParamMixin,
    Pool,
    Residual,
    Sequential,
    Standardize,
)
from nnet.training.callbacks import Callback, Checkpoint, EarlyStopping
from nnet.training.network import NeuralNetwork
from nnet.training.optimizers import SGD, Optimizer
from nnet.training.progress import DivergedError, Progress, StopTraining

__all__ = [
    "SGD",
    "Activation",
    "BinaryCrossEntropy",
    "Callback",
    "Checkpoint",
    "Compared",
    "Conv",
    "DivergedError",
    "EarlyStopping",
    "Flatten",
    "GlobalAveragePool",
    "Huber",
    "Layer",
    "Linear",
    "LogRegression",
    "LossMixin",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "NeuralNetwork",
    "Optimizer",
    "Parallel",
    "ParamMixin",
    "Pool",
    "Progress",
    "Residual",
    "Sequential",
    "Standardize",
    "StopTraining",
    "to_bc01",
]
