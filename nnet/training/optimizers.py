"""Optimizers: how parameters change, given the directions to step against."""

import inspect
from abc import ABC, abstractmethod
from copy import copy

import numpy as np

from nnet._atomic import sgd_step, write_all
from nnet.layers.arguments import as_bool, as_float


class Optimizer(ABC):
    """Changes parameters in place, step by step.

    Attributes
    ----------
    learning_rate : float
        May be changed between steps; a network sets it for each epoch.
    params : list of arrays
        What `step` changes.
    """

    learning_rate: float
    params: list

    def __repr__(self):
        options = [
            f"{name}={getattr(self, name)!r}"
            for name in inspect.signature(type(self)).parameters
            if name != "params"
        ]
        return f"{type(self).__name__}({', '.join(options)})"

    @abstractmethod
    def bind(self, params):
        """Start afresh, on these parameters, with new arrays of state.

        `fit` does so with a copy of the optimizer that it is given.
        """

    def exchange(self, params, names=None):
        """Go on with other arrays of the same shapes and dtypes in place of the parameters."""
        names = names or [f"parameter {i}" for i in range(len(self.params))]
        for name, new, old in zip(names, params, self.params, strict=True):
            if new.shape != old.shape or new.dtype != old.dtype:
                raise ValueError(
                    f"{name} became an array of shape {new.shape} and dtype {new.dtype}, "
                    f"expected {old.shape} and {old.dtype}"
                )
            if not new.flags.writeable:
                raise ValueError(f"{name} is read-only, expected a writable array")
        self.params = list(params)

    @abstractmethod
    def step(self, incs):
        """Change `params` in place, against `incs`.

        Parameters
        ----------
        incs : list of arrays, one of each parameter's shape and dtype
            What the layers' `param_incs` return: they are not written to.

        Raises
        ------
        ValueError
            Before any change, for other shapes than the parameters'.
        """

    def go_on(self, other):
        """Take over the state of an optimizer of the same kind, if this is one."""
        if type(other) is type(self):
            twin = copy(other)
            twin.learning_rate = self.learning_rate
            if repr(twin) == repr(self):
                self.load_state(other.state())

    def _check(self, incs):
        incs = list(map(np.asarray, incs))
        shapes = [inc.shape for inc in incs]
        expected = [param.shape for param in self.params]
        if shapes != expected:
            raise ValueError(f"incs have shapes {shapes}, expected the parameters' {expected}")
        return incs

    @abstractmethod
    def state(self):
        """All arrays that the next step depends on, by name."""

    def load_state(self, state):
        """Take over what `state` returned."""
        mine = self.state()
        if state.keys() != mine.keys():
            raise ValueError(f"state has {sorted(state)}, expected {sorted(mine)}")
        write_all(list(mine.values()), [state[name] for name in mine])


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    With v = momentum * v + inc, a step is param -= learning_rate * v, and with
    `nesterov` param -= learning_rate * (inc + momentum * v): Sutskever et al.
    2013, "On the importance of initialization and momentum in deep learning",
    in the form that PyTorch uses, where the learning rate is outside of v.

    Parameters
    ----------
    params : list of arrays, optional
        Changed in place by `step`. `fit` binds a copy to those of the network.
    learning_rate : float
    momentum : float
        At least 0 and less than 1.
    nesterov : bool
        Needs a momentum greater than 0.
    """

    def __init__(self, params=(), learning_rate=0.1, momentum=0.0, nesterov=False):
        if not np.iterable(params):
            raise TypeError(
                f"params is {params!r}, expected a list of arrays; a rate by its name, as in "
                "SGD(learning_rate=0.1)"
            )
        self.learning_rate = as_float(learning_rate, "learning_rate")
        self.momentum = as_float(momentum, "momentum")
        if self.momentum >= 1:
            raise ValueError(f"momentum is {momentum!r}, expected less than 1")
        self.nesterov = as_bool(nesterov, "nesterov")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov is True, expected a momentum greater than 0 with it")
        self.bind(params)

    def bind(self, params):
        self.params = list(params)
        self._velocities = [np.zeros_like(param) for param in self.params if self.momentum]

    def step(self, incs):
        sgd_step(
            self.params,
            self._check(incs),
            self._velocities,
            self.learning_rate,
            self.momentum,
            self.nesterov,
        )

    def state(self):
        return {f"velocity.{i}": velocity for i, velocity in enumerate(self._velocities)}


OPTIMIZERS = {"sgd": SGD}


def as_optimizer(optimizer, learning_rate, momentum, nesterov):
    """What `fit` is given, as an Optimizer of its own: its parameters are yet to be bound."""
    if isinstance(optimizer, Optimizer):
        if momentum or nesterov:
            raise ValueError("momentum or nesterov is given, expected them in the optimizer alone")
        return copy(optimizer)
    if optimizer is not None and not isinstance(optimizer, str):
        raise TypeError(
            f"optimizer is {optimizer!r}, expected one of {tuple(OPTIMIZERS)} or an Optimizer"
        )
    if optimizer is not None and optimizer not in OPTIMIZERS:
        raise ValueError(
            f"optimizer is {optimizer!r}, expected one of {tuple(OPTIMIZERS)} or an Optimizer"
        )
    return SGD((), 0.0 if callable(learning_rate) else learning_rate, momentum, nesterov)
