"""nnet: small convolutional neural networks on a CPU.

Where things are:

_conv.pyx, _pool.pyx   the four compiled kernels
kernels.py             which instruction set and how many threads
geometry.py            output sizes and padding
reference.py           the same kernels as plain Python loops: the specification
layers/                Conv, Pool, Linear, ...: thin classes over the kernels
network.py             NeuralNetwork: fit, predict, save, load
optimizers.py          stochastic gradient descent
images.py              to_bc01
cli.py                 the `nnet` command
"""

__version__ = "0.1.0"

from nnet._conv import bprop_conv_bc01, conv_bc01
from nnet._pool import bprop_pool_bc01, pool_bc01
from nnet.kernels import get_num_threads, num_threads, set_num_threads, show_config
