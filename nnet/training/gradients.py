"""Gradients by central differences: the check of every layer's bprop."""

import copy
from typing import NamedTuple

import numpy as np

from nnet.training.data import as_images
from nnet.layers import ParamMixin
from nnet.layers.base import as_generator


class GradientError(NamedTuple):
    """How far one parameter array's gradient is from central differences."""

    name: str
    abs_error: float  # largest absolute difference
    rel_error: float  # the same, divided by the largest absolute gradient


def check(network, X, y, eps, max_checks):
    """One GradientError for each array of `network.params()`, measured on a copy."""
    X = as_images(X, np.float64)
    twin = copy.deepcopy(network)
    fitted = network.input_shape_ is not None
    target = twin._setup(X, y, len(X), as_generator(twin.rng), network.classes_ if fitted else None)
    for param, value in zip(twin.params(), network.params() if fitted else []):
        param[...] = value
    names = [
        f"{twin._name(i)}.params()[{j}]"
        for i, layer in enumerate(twin.layers)
        if isinstance(layer, ParamMixin)
        for j in range(len(layer.params()))
    ]
    images = X.reshape(len(X), *twin._shapes[0])
    loss_layer = twin.layers[-1]

    def loss():
        return float(loss_layer.loss(twin._forward(images), target))

    with twin._at_work(training=True):
        twin._backward(loss_layer.input_grad(twin._forward(images), target))
        grads = [np.array(grad) for grad in twin._collect("param_grads")]
        return [
            _compare(name, param, grad, loss, eps, max_checks)
            for name, param, grad in zip(names, twin.params(), grads, strict=True)
        ]


def _compare(name, param, grad, loss, eps, max_checks):
    if param.dtype != np.float64:
        raise TypeError(f"{name} has dtype {param.dtype}, expected the layer's dtype, now float64")
    picks = np.arange(param.size)
    if max_checks is not None and max_checks < param.size:
        picks = np.random.default_rng(0).choice(param.size, max_checks, replace=False)
    differences = np.empty(len(picks))
    for i, pick in enumerate(picks):
        value = param.flat[pick]
        param.flat[pick] = value + eps
        above = loss()
        param.flat[pick] = value - eps
        below = loss()
        param.flat[pick] = value
        differences[i] = (above - below) / (2 * eps)
    gradients = grad.flat[picks]
    abs_error = np.max(np.abs(gradients - differences))
    largest = max(np.max(np.abs(gradients)), np.max(np.abs(differences)))
    return GradientError(name, float(abs_error), float(abs_error / largest) if largest else 0.0)
