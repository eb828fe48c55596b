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
from nnet.training.augment import Brightness, Crop, CutOut, Flip, Rotate, Shift, Zoom
from nnet.training.augmenting import Augmentation, Compose
from nnet.training.network import NeuralNetwork
from nnet.training.optimizers import SGD, Optimizer
from nnet.training.progress import DivergedError, Progress, StopTraining

__all__ = [
    "SGD",
    "Activation",
    "Augmentation",
    "Brightness",
    "Compared",
    "Compose",
    "Conv",
    "Crop",
    "CutOut",
    "DivergedError",
    "Flatten",
    "Flip",
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
    "Residual",
    "Rotate",
    "Sequential",
    "Shift",
    "Standardize",
    "StopTraining",
    "Zoom",
    "to_bc01",
]
