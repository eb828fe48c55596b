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
from nnet.training.network import NeuralNetwork
from nnet.training.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from nnet.training.progress import DivergedError, Progress, StopTraining
from nnet.training.schedules import (
    CosineDecay,
    ExponentialDecay,
    OneCycle,
    ReduceOnPlateau,
    Schedule,
    StepDecay,
)

__all__ = [
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "Compared",
    "Conv",
    "CosineDecay",
    "DivergedError",
    "ExponentialDecay",
    "Flatten",
    "GlobalAveragePool",
    "Layer",
    "Linear",
    "LogRegression",
    "LossMixin",
    "MeanSquaredError",
    "NeuralNetwork",
    "OneCycle",
    "Optimizer",
    "Parallel",
    "ParamMixin",
    "Pool",
    "Progress",
    "RMSprop",
    "ReduceOnPlateau",
    "Residual",
    "Schedule",
    "Sequential",
    "Standardize",
    "StepDecay",
    "StopTraining",
    "to_bc01",
]
