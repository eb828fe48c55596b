"""Gradients by central differences: the check of every layer's bprop."""

from typing import NamedTuple

import numpy as np

from nnet.layers import ParamMixin


class GradientError(NamedTuple):
    """How far one parameter array's gradient is from central differences."""

    name: str
    abs_error: float  # largest absolute difference
    rel_error: float  # the same, divided by the largest absolute gradient


def compare(network, X, target, eps, max_checks):
    """One GradientError for each array of a float64 network's `params()`."""
    images = X.reshape(len(X), *network._shapes[0])
    loss_layer = network.layers[-1]
    network._backward(loss_layer.input_grad(network._forward(images), target))
    grads = [np.array(grad) for grad in network._collect("param_grads")]

    def loss():
        return float(loss_layer.loss(network._forward(images), target))

    names = [
        f"{network._name(i)}.params()[{j}]"
        for i, layer in enumerate(network.layers)
        if isinstance(layer, ParamMixin)
        for j in range(len(layer.params()))
    ]
    return [
        _compare(name, param, grad, loss, eps, max_checks)
        for name, param, grad in zip(names, network.params(), grads, strict=True)
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
