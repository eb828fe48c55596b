"""Optimizers: how parameters change, given the directions to step against."""

from abc import ABC, abstractmethod
from copy import copy
from typing import Any

import numpy as np

from nnet._atomic import adam_step, as_incs, rmsprop_step, sgd_step, write_all
from nnet.layers.arguments import as_bool, as_call, as_float, as_int
from nnet.layers.hints import with_hints
from nnet.layers.tree import check_array
from nnet.training.schedules import as_rate

# What other libraries have, or call, otherwise.
CLIPPING = "fit(clip_norm=...), which is of all gradients together, or fit(clip_value=...)"
HINTS = {
    "decay": "a schedule as learning_rate, such as ExponentialDecay",
    **dict.fromkeys(
        ("clipnorm", "clipvalue", "global_clipnorm", "clip_norm", "clip_value"), CLIPPING
    ),
}
OF_BETAS = {
    "betas": "beta1 and beta2",
    "beta_1": "beta1",
    "beta_2": "beta2",
    "momentum": "beta1 in its place",
}


class Optimizer(ABC):
    """Changes parameters in place, step by step.

    One of your own needs `bind`, `step` and `state_arrays`.

    Attributes
    ----------
    learning_rate : float, Schedule, or callable epoch -> float
        May be changed between steps. `fit`, which does so before each, asks schedules and
        functions for a number; `step` by itself takes numbers only.
    weight_decay : float
        How much of each weight a step takes off, times the learning rate: see `AdamW`.
    params : list of arrays
        What `step` changes.
    """

    DEFAULT_RATE = 0.1
    weight_decay = 0.0
    params: list

    _given_rate: Any = None

    def __repr__(self):
        return as_call(self, leave_out=["params"])

    @property
    def learning_rate(self):
        return self.DEFAULT_RATE if self._given_rate is None else self._given_rate

    @learning_rate.setter
    def learning_rate(self, rate):
        self._given_rate = as_rate(rate, "learning_rate")

    def without_rate(self):
        """A copy that has no learning rate of its own."""
        twin = copy(self)
        twin._given_rate = None
        return twin

    def _number(self):
        """The learning rate of a step."""
        rate = self.learning_rate
        if callable(rate):
            raise TypeError(
                f"learning_rate is {rate!r}, expected a number: only fit asks schedules for one"
            )
        return rate

    @abstractmethod
    def bind(self, params, decays=None):
        """Start afresh, on these parameters, with new arrays of state.

        `fit` does so with a copy of the optimizer that it is given.

        Parameters
        ----------
        params : list of arrays
        decays : None or list of bool
            Which of them are weights, as opposed to biases and the like: weight decay is for
            these. None: those that have two axes or more.
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
        TypeError
            Likewise, if the learning rate is no number.
        """

    def goes_on(self, other):
        """Whether the other is of the same kind with the same options, but the learning rate."""
        is_same_kind = type(other) is type(self)
        return is_same_kind and repr(other.without_rate()) == repr(self.without_rate())

    # --- state ------------------------------------------------------------------------

    @abstractmethod
    def state_arrays(self):
        """The arrays that the next step depends on, by name; a count is one of no axes."""

    def state(self):
        """Copies of these arrays, and counts as ints."""
        return {
            name: int(array) if is_count(array) else array.copy()
            for name, array in self.state_arrays().items()
        }

    def load_state(self, state):
        """Take over what `state` returned.

        Raises
        ------
        ValueError, TypeError
            Before any change, for other names, shapes or dtypes.
        """
        mine = self.state_arrays()
        if state.keys() != mine.keys():
            raise ValueError(f"state has {sorted(state)}, expected {sorted(mine)}")
        for name, array in mine.items():
            if is_count(array):
                as_int(state[name], f"state[{name!r}]", 0)
            else:
                check_array(state[name], f"state[{name!r}]", array.shape, array.dtype)
        write_all(list(mine.values()), [state[name] for name in mine])

    def _begin(self, learning_rate, params):
        if np.iterable(learning_rate) and not isinstance(learning_rate, str):
            name = type(self).__name__
            raise TypeError(
                f"learning_rate is a {type(learning_rate).__name__}, expected a number: fit knows "
                f"the parameters, as in fit(X, y, optimizer={name}()); else {name}(params=...)"
            )
        if learning_rate is not None:
            self.learning_rate = learning_rate
        self.bind(params)


def is_count(array):
    return array.ndim == 0 and array.dtype == np.int64


def zeros_like(params, wanted=True):
    """An array of zeros for each parameter, or none at all."""
    return [np.zeros_like(param) for param in params if wanted]


def indexed(name, arrays):
    return {f"{name}.{i}": array for i, array in enumerate(arrays)}


def as_fraction(value, name):
    """A float of at least 0 and less than 1."""
    number = as_float(value, name)
    if number >= 1:
        raise ValueError(f"{name} is {value!r}, expected less than 1")
    return number


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    With v = momentum * v + inc, a step is param -= learning_rate * v, and with
    `nesterov` param -= learning_rate * (inc + momentum * v): Sutskever et al.
    2013, "On the importance of initialization and momentum in deep learning",
    in the form that PyTorch uses, where the learning rate is outside of v.

    Parameters
    ----------
    learning_rate : None, float, Schedule, or callable epoch -> float
        None: what `fit` is given, or 0.1.
    momentum : float
        At least 0 and less than 1.
    nesterov : bool
        Needs a momentum greater than 0.
    params : list of arrays, optional
        Changed in place by `step`. `fit` binds a copy to those of the network.
    """

    @with_hints(**HINTS)
    def __init__(self, learning_rate=None, momentum=0.0, nesterov=False, *, params=()):
        self.momentum = as_fraction(momentum, "momentum")
        self.nesterov = as_bool(nesterov, "nesterov")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov is True, expected a momentum greater than 0 with it")
        self._begin(learning_rate, params)

    def bind(self, params, decays=None):
        self.params = list(params)
        self._velocities = zeros_like(self.params, self.momentum > 0)

    def step(self, incs):
        sgd_step(
            self.params,
            as_incs(self.params, incs),
            self._velocities,
            self._number(),
            self.momentum,
            self.nesterov,
        )

    def state_arrays(self):
        return indexed("velocity", self._velocities)


class Adam(Optimizer):
    """Steps by averages of gradients over roots of averages of their squares.

    Kingma and Ba 2015, "Adam: a method for stochastic optimization", algorithm 1. As there
    and in PyTorch, eps is added to the root after the correction of its bias. (Keras adds it
    before, and has an eps of 1e-7.)

    Parameters
    ----------
    learning_rate : None, float, Schedule, or callable epoch -> float
        None: what `fit` is given, or 0.001.
    beta1, beta2 : float
        What a step leaves of the averages of gradients and of squares; less than 1.
    eps : float
        Added to the root.
    params : list of arrays, optional
        Changed in place by `step`. `fit` binds a copy to those of the network.
    """

    DEFAULT_RATE = 0.001

    @with_hints(**HINTS, **OF_BETAS)
    def __init__(self, learning_rate=None, beta1=0.9, beta2=0.999, eps=1e-8, *, params=()):
        self.beta1 = as_fraction(beta1, "beta1")
        self.beta2 = as_fraction(beta2, "beta2")
        self.eps = as_float(eps, "eps")
        self._begin(learning_rate, params)

    def bind(self, params, decays=None):
        self.params = list(params)
        self._decays = [param.ndim >= 2 for param in self.params] if decays is None else decays
        self._means, self._squares = zeros_like(self.params), zeros_like(self.params)
        self._n_steps = np.zeros((), np.int64)

    def step(self, incs):
        rate = self._number()
        shrink = 1 - rate * self.weight_decay
        adam_step(
            self.params,
            as_incs(self.params, incs),
            self._means,
            self._squares,
            self._n_steps,
            rate,
            self.beta1,
            self.beta2,
            self.eps,
            [shrink if decays else 1.0 for decays in self._decays],
        )

    def state_arrays(self):
        averages = indexed("exp_avg", self._means) | indexed("exp_avg_sq", self._squares)
        return {"step": self._n_steps} | averages


class AdamW(Adam):
    """Adam with decoupled weight decay: each weight is first multiplied by 1 - rate * decay.

    Loshchilov and Hutter 2019, "Decoupled weight decay regularization", algorithm 2, as in
    PyTorch. Only weights decay, biases and the parameters of norms don't: a layer says which
    are which by `decaying_names`. Layers with a `weight_decay` of their own are refused.

    Parameters
    ----------
    learning_rate, beta1, beta2, eps, params
        See `Adam`.
    weight_decay : float
    """

    @with_hints(**HINTS, **OF_BETAS)
    def __init__(
        self,
        learning_rate=None,
        *,
        beta1=0.9,
        beta2=0.999,
        eps=1e-8,
        weight_decay=0.01,
        params=(),
    ):
        self.weight_decay = as_float(weight_decay, "weight_decay")
        super().__init__(learning_rate, beta1, beta2, eps, params=params)


class RMSprop(Optimizer):
    """Steps by gradients over roots of averages of their squares.

    Tieleman and Hinton 2012, Coursera lecture 6.5; `centered` and `momentum` as in Graves
    2013, "Generating sequences with recurrent neural networks", eqs. 38 to 41, in the form
    that PyTorch uses, where eps is added to the root and the rate is outside of the momentum.

    Parameters
    ----------
    learning_rate : None, float, Schedule, or callable epoch -> float
        None: what `fit` is given, or 0.01.
    alpha : float
        What a step leaves of the averages; less than 1. (Keras's rho, 0.9 there.)
    eps : float
        Added to the root.
    momentum : float
        At least 0 and less than 1.
    centered : bool
        Subtract the square of the average gradient: the root is a standard deviation.
    params : list of arrays, optional
        Changed in place by `step`. `fit` binds a copy to those of the network.
    """

    DEFAULT_RATE = 0.01

    @with_hints(**HINTS, rho="alpha")
    def __init__(
        self,
        learning_rate=None,
        alpha=0.99,
        eps=1e-8,
        momentum=0.0,
        centered=False,
        *,
        params=(),
    ):
        self.alpha = as_fraction(alpha, "alpha")
        self.eps = as_float(eps, "eps")
        self.momentum = as_fraction(momentum, "momentum")
        self.centered = as_bool(centered, "centered")
        self._begin(learning_rate, params)

    def bind(self, params, decays=None):
        self.params = list(params)
        self._squares = zeros_like(self.params)
        self._means = zeros_like(self.params, self.centered)
        self._velocities = zeros_like(self.params, self.momentum > 0)

    def step(self, incs):
        rmsprop_step(
            self.params,
            as_incs(self.params, incs),
            self._squares,
            self._means,
            self._velocities,
            self._number(),
            self.alpha,
            self.eps,
            self.momentum,
        )

    def state_arrays(self):
        return (
            indexed("square_avg", self._squares)
            | indexed("grad_avg", self._means)
            | indexed("velocity", self._velocities)
        )


# --- given to fit -----------------------------------------------------------------------

OPTIMIZERS = {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop}


def as_optimizer(optimizer, learning_rate, momentum, nesterov):
    """What `fit` is given, as an Optimizer of its own: its parameters are yet to be bound."""
    if isinstance(optimizer, Optimizer):
        if momentum or nesterov:
            raise ValueError("momentum or nesterov is given, expected them in the optimizer alone")
        found = copy(optimizer)
    else:
        found = named_optimizer(optimizer, momentum, nesterov)
    if learning_rate is not None:
        if found._given_rate is not None:
            raise ValueError(
                f"learning_rate is {learning_rate!r} and that of the optimizer is "
                f"{found.learning_rate!r}, expected one of the two"
            )
        found.learning_rate = as_rate(learning_rate, "learning_rate")
    return found


def named_optimizer(name, momentum, nesterov):
    expected = f"expected one of {tuple(OPTIMIZERS)} or an Optimizer"
    if isinstance(name, type) and issubclass(name, Optimizer):
        name = name.__name__
        raise TypeError(f"optimizer is the class {name}, expected an object such as {name}()")
    if not isinstance(name, str):
        raise TypeError(f"optimizer has the type {type(name).__name__}, {expected}")
    name = name.lower()
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer is {name!r}, {expected}")
    if name == "sgd":
        return SGD(None, momentum, nesterov)
    if momentum or nesterov:
        instance = "RMSprop(momentum=...)" if name == "rmsprop" else "beta1, as in Adam(beta1=...)"
        raise ValueError(
            f"momentum or nesterov is given with optimizer {name!r}, expected them with 'sgd' "
            f"alone: what {name!r} has of the kind is {instance}"
        )
    return OPTIMIZERS[name]()


def check_decay(optimizer, layers):
    """Refuse weights that would decay twice: by the optimizer, and by their layer."""
    for layer in layers if optimizer.weight_decay else ():
        decay = getattr(layer, "weight_decay", 0.0)
        if isinstance(decay, (int, float, np.number)) and decay > 0:
            raise ValueError(
                f"{layer!r} and {type(optimizer).__name__} with weight_decay="
                f"{optimizer.weight_decay} both shrink the weights, expected one of the two"
            )
