"""nnet: small convolutional neural networks on a CPU.

Where things are:

_conv.pyx, _pool.pyx   the four compiled kernels
_dense.pyx             matrix products, and what else the layers need compiled
kernels.py             which instruction set and how many threads
geometry.py            output sizes and padding
reference.py           the same kernels as plain Python loops: the specification
layers/                Conv, Pool, Linear, ...: thin classes over the kernels
network.py             NeuralNetwork: fit, predict, check_gradients, save, load
work.py                what its layers share while it trains or predicts
data.py                the checks of the X and y that it is given
optimizers.py          SGD: stochastic gradient descent
gradients.py           gradients by central differences
progress.py            what the callbacks of fit are told
saving.py              networks as safetensors files
images.py              to_bc01
cli.py                 the `nnet` command
layer_spec.py          layers as one line of text
datasets.py            digits, .npz files, the test split
"""

__version__ = "0.1.0"

from nnet import kernels  # isort: skip  # first: it says what to do where nothing is compiled
from nnet._conv import bprop_conv_bc01, conv_bc01
from nnet._pool import bprop_pool_bc01, pool_bc01
from nnet.files.images import to_bc01
from nnet.kernels import get_num_threads, num_threads, set_num_threads, show_config
from nnet.layers import (
    Activation,
    Conv,
    Flatten,
    GlobalAveragePool,
    Layer,
    Linear,
    LogRegression,
    LossMixin,
    MeanSquaredError,
    ParamMixin,
    Pool,
    Standardize,
)
from nnet.training.network import DivergedError, NeuralNetwork
from nnet.training.optimizers import SGD
