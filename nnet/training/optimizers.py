"""Stochastic gradient descent."""

import numpy as np

from nnet.layers.base import as_bool, as_float


class SGD:
    """Steps with momentum, in place.

    With v = momentum * v + inc, a step is param -= learning_rate * v, and with
    `nesterov` param -= learning_rate * (inc + momentum * v): Sutskever et al.
    2013, "On the importance of initialization and momentum in deep learning",
    in the form that PyTorch uses, where the learning rate is outside of v.

    Parameters
    ----------
    params : list of arrays
        Changed in place by `step`.
    learning_rate : float
        May be changed between steps.
    momentum : float
        At least 0 and less than 1.
    nesterov : bool
        Needs a momentum greater than 0.
    """

    def __init__(self, params, learning_rate=0.1, momentum=0.0, nesterov=False):
        self.params = list(params)
        self.learning_rate = as_float(learning_rate, "learning_rate")
        self.momentum = as_float(momentum, "momentum")
        if self.momentum >= 1:
            raise ValueError(f"momentum is {momentum!r}, expected less than 1")
        self.nesterov = as_bool(nesterov, "nesterov")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov is True, expected a momentum greater than 0 with it")
        self._velocities = [np.zeros_like(param) for param in self.params if self.momentum]
        self._temps = [np.empty_like(param) for param in self.params]

    def step(self, incs):
        """Step against `incs`, one array for each parameter."""
        incs = list(incs)
        shapes = [np.shape(inc) for inc in incs]
        expected = [param.shape for param in self.params]
        if shapes != expected:
            raise ValueError(f"incs have shapes {shapes}, expected the parameters' {expected}")
        for i, (param, inc, temp) in enumerate(zip(self.params, incs, self._temps)):
            if self.momentum:
                velocity = self._velocities[i]
                velocity *= self.momentum
                velocity += inc
                if self.nesterov:
                    np.multiply(velocity, self.momentum, out=temp)
                    temp += inc
                    inc = temp
                else:
                    inc = velocity
            np.multiply(inc, self.learning_rate, out=temp)
            param -= temp
