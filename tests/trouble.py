"""For the tests of what goes wrong: threads, interrupts, failures. A network, and what is whole."""

import gc
import signal
import sys
import threading
from contextlib import contextmanager

import numpy as np

from nnet import (
    Activation,
    Conv,
    Flatten,
    Layer,
    Linear,
    LogRegression,
    NeuralNetwork,
    ParamMixin,
    Pool,
)

PATIENCE = 60  # seconds; what takes longer hangs
RNGS = [lambda: 7, lambda: np.random.default_rng(7), lambda: np.random.RandomState(7)]


def images(n_imgs=96, n_classes=3, side=8, dtype=np.float32):
    X = np.random.default_rng(5).normal(size=(n_imgs, 1, side, side)).astype(dtype)
    y = np.arange(n_imgs) % n_classes
    X[np.arange(n_imgs), 0, 0, y] += 3
    return X, y


def cnn(n_classes=3, rng=0):
    layers = [Conv(8, (3, 3)), Activation("relu"), Pool((2, 2), (2, 2)), Flatten()]
    return NeuralNetwork([*layers, Linear(n_classes), LogRegression()], rng=rng)


class Moody(Layer, ParamMixin):
    """Writes to its arrays in place at each setup, and may then raise."""

    def __init__(self):
        self.scale, self.scale_grad = np.ones(1), np.zeros(1)
        self.inside = {"list": [np.zeros(3)]}
        self.error = self.error_in_fprop = None

    def _setup(self, input_shape, rng):
        self.scale[...] = 1 + rng.normal(scale=0.1)
        self.inside["list"][0] += 1
        self.inside["list"].append(None)
        self.extra = "half-way"
        if self.error is not None:
            raise self.error

    def fprop(self, input):
        if self.error_in_fprop is not None:
            raise self.error_in_fprop
        self.input = input
        return input * self.scale.astype(input.dtype)

    def bprop(self, output_grad):
        self.scale_grad[...] = np.mean(output_grad * self.input)
        return output_grad * self.scale.astype(output_grad.dtype)

    def params(self):
        return [self.scale]

    def param_grads(self):
        return [self.scale_grad]

    def output_shape(self, input_shape):
        return input_shape


def raising(error):
    def raise_it(*args):
        raise error

    return raise_it


def moody(make_rng):
    network = cnn()
    return NeuralNetwork([*network.layers[:3], Moody(), *network.layers[3:]], make_rng())


def bits(network):
    """All parameters, as something that compares and hashes."""
    return b"".join(param.tobytes() for param in network.params())


def rng_bits(rng):
    """Where a generator stands."""
    if isinstance(rng, np.random.RandomState):
        return repr(rng.get_state(legacy=False))
    return repr(rng.bit_generator.state if isinstance(rng, np.random.Generator) else rng)


def everything(network, X):
    """What a network that has been left alone keeps to the bit."""
    return (
        bits(network),
        network.predict_proba(X).tobytes(),
        {name: array.tobytes() for name, array in network.state_dict().items()},
        network.input_shape_,
        network.dtype_,
        None if network.classes_ is None else network.classes_.tolist(),
        network.target_shape_,
        list(network.loss_history_),
        list(network.val_loss_history_),
        list(network.val_error_history_),
        network.history_,
        rng_bits(network.rng),
    )


def steps(network, *args, **options):
    """The parameters before a fit, if there are any, and after each of its steps."""
    seen = [bits(network)] if network.input_shape_ is not None else []
    network.fit(*args, **options, callback=lambda progress: seen.append(bits(network)))
    return seen


def in_thread(function):
    """What a function returns, or raises, in a thread of its own; an error if it hangs."""
    outcome = []

    def target():
        try:
            outcome.append((function(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert outcome, "it hangs"
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def assert_nothing_lent(network):
    """No lock is taken, and layers are as they are outside of work."""
    model = network._model
    if model is not None:
        assert model.at_work is None
        assert in_thread(
            lambda: model.lock.acquire(blocking=False) and model.lock.release() is None
        )
    assert network._transaction is None
    for layer in network.layers:
        assert layer._work is None and layer._kept is None
        assert layer.training and layer.need_input_grad


class Interrupt(BaseException):
    """As KeyboardInterrupt, but nobody else's."""


@contextmanager
def losses_allowed():
    """What Python loses of an interrupt: one in a callback of its garbage collector, say, and
    the warning of a file that was opened when it came.
    """
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    try:
        yield
        gc.collect()
    finally:
        sys.unraisablehook = hook


@contextmanager
def alarms():
    """A function that calls another, and interrupts it after some seconds: whether it did.

    Without the interrupt the other's result is in `.result`.
    """
    armed = []

    def handler(signum, frame):
        if armed:
            armed.clear()
            raise Interrupt

    def interrupt(function, seconds):
        try:
            armed.append(True)
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
            interrupt.result = function()
            armed.clear()
        except Interrupt:
            return True
        finally:
            armed.clear()
            signal.setitimer(signal.ITIMER_REAL, 0)
        return False

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with losses_allowed():
            yield interrupt
    finally:
        signal.signal(signal.SIGALRM, before)
