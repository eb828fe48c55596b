"""nnet: small convolutional neural networks on a CPU.

Where things are, from the top down (imports go no other way):

cli/                   the `nnet` command
estimators/            CNNClassifier, CNNRegressor: needs scikit-learn
training/              NeuralNetwork: fit, predict, check_gradients, save, load
zoo.py                 well-known small networks
explaining.py          explain: which implementations are taken, and what they should cost
filters.py             correlate, maximum_filter, minimum_filter: by the words of scipy.ndimage
files/                 networks as files, data sets, images
layers/                Conv, Pool, Linear, ...: thin classes over the kernels
reference/             the kernels as plain Python loops: the specification
_conv.pyx, _pool.pyx   the four compiled kernels
_dense.pyx             matrix products, and what else the layers need compiled
_program.pyx           layers in a row as one call, for predictions
_augment.pyx           images moved, turned and scaled
_atomic.pyx            what an interrupt must not cut in two
_api.py                what `nnet` has besides the kernels; loaded when it is first asked for
dispatch.py            which instruction set and how many threads
geometry.py            output sizes and padding
_lazy.py               imports that wait, and forks that wait for these
"""

# ruff: noqa: F405  # of the star import that type checkers see
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)] == "nnet":
    import nnet_command  # `python -m nnet` comes here before nnet/__main__.py

    nnet_command.begin()

from nnet import dispatch  # isort: skip  # first: it says what to do where nothing is compiled
from nnet._conv import bprop_conv_bc01, conv_bc01
from nnet._lazy import IMPORTS
from nnet._pool import bprop_pool_bc01, pool_bc01
from nnet.dispatch import get_num_threads, num_threads, set_num_threads, show_config

if TYPE_CHECKING:
    from nnet._api import *  # noqa: F403
    from nnet.estimators import CNNClassifier as CNNClassifier
    from nnet.estimators import CNNRegressor as CNNRegressor

__version__ = "0.2.0"

__all__ = [
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "Augmentation",
    "BatchNorm",
    "BinaryCrossEntropy",
    "Brightness",
    "Callback",
    "Checkpoint",
    "Compared",
    "Compose",
    "Conv",
    "ConvTranspose",
    "CosineDecay",
    "Crop",
    "CutOut",
    "DepthwiseConv",
    "DivergedError",
    "Dropout",
    "EarlyStopping",
    "ExponentialDecay",
    "Flatten",
    "Flip",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNorm",
    "Huber",
    "Layer",
    "Linear",
    "LogRegression",
    "LossMixin",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "NeuralNetwork",
    "OneCycle",
    "Optimizer",
    "Pad",
    "Parallel",
    "ParamMixin",
    "Pool",
    "Progress",
    "ProgressBar",
    "RMSprop",
    "ReduceOnPlateau",
    "Residual",
    "Rotate",
    "Schedule",
    "SeparableConv",
    "Sequential",
    "Shift",
    "Standardize",
    "StepDecay",
    "StopTraining",
    "Upsample",
    "Zoom",
    "__version__",
    "bprop_conv_bc01",
    "bprop_pool_bc01",
    "conv_bc01",
    "correlate",
    "dispatch",
    "explain",
    "get_num_threads",
    "image_folder",
    "load_images",
    "maximum_filter",
    "minimum_filter",
    "num_threads",
    "pool_bc01",
    "set_num_threads",
    "show_config",
    "to_bc01",
]

ESTIMATORS = ("CNNClassifier", "CNNRegressor")  # not for `from nnet import *`: they need more
ROOMS = ("cli", "estimators", "files", "layers", "reference", "training", "zoo")


def __getattr__(name):
    if name in ROOMS:
        with IMPORTS:
            return import_module(f"nnet.{name}")
    if name in ESTIMATORS:
        with IMPORTS:
            return globals().setdefault(name, getattr(import_module("nnet.estimators"), name))
    if name in __all__:
        with IMPORTS:
            return globals().setdefault(name, getattr(import_module("nnet._api"), name))
    message = f"module 'nnet' has no attribute {name!r}"
    if not name.startswith("_"):
        with IMPORTS:
            from nnet.layers.hints import OTHER_CLASSES
        if name in OTHER_CLASSES:
            message = f"{message}, expected {OTHER_CLASSES[name]}"
    raise AttributeError(message)


def __dir__():
    estimators = ESTIMATORS if find_spec("sklearn") else ()
    hidden = (name for name in globals() if name.startswith("__"))
    return sorted({*__all__, *ROOMS, *estimators, *hidden})
