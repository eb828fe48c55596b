"""Activation functions of one number, and softmax of a list: as books write them.

They are computed in double, and none of them for numbers so large that exp overflows: the
layers take care of these.
"""

import math

import numpy as np

SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def gelu(x):
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


def gelu_tanh(x):
    return x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def elu(x):
    return x if x > 0 else math.exp(x) - 1


def selu(x):
    return SELU_SCALE * (x if x > 0 else SELU_ALPHA * (math.exp(x) - 1))


def hard_sigmoid(x):
    return min(max(x / 6 + 1 / 2, 0), 1)


FUNCTIONS = {
    "relu": lambda x: max(x, 0),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "relu6": lambda x: min(max(x, 0), 6),
    "sigmoid": sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "tanh": math.tanh,
    "elu": elu,
    "selu": selu,
    "softplus": lambda x: math.log(1 + math.exp(x)),
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": lambda x: x * sigmoid(x),
    "hard_swish": lambda x: x * hard_sigmoid(x),
}


def softmax(scores):
    """exp of each score over the sum of these."""
    exps = [math.exp(score) for score in scores]
    return [exp / sum(exps) for exp in exps]


def activation(x, type):
    """The output of `nnet.Activation(type)`, value by value.

    Parameters
    ----------
    x : ndarray (n_imgs, n_channels, ...)
    type : str
        'softmax' is over the channels.

    Returns
    -------
    ndarray
    """
    y = np.empty(x.shape)
    if type == "softmax":
        for n, *pixel in np.ndindex(x.shape[:1] + x.shape[2:]):
            channels = (n, slice(None), *pixel)
            y[channels] = softmax([float(value) for value in x[channels]])
    else:
        for i in np.ndindex(x.shape):
            y[i] = FUNCTIONS[type](float(x[i]))
    return y.astype(x.dtype)
