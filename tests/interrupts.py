"""What is interrupted, at moments that chance picks, and what must hold after it."""

import ctypes
import pickle
import threading
import time
from copy import deepcopy

import numpy as np
from trouble import (
    PATIENCE,
    Interrupt,
    alarms,
    assert_nothing_lent,
    bits,
    cnn,
    everything,
    images,
    in_thread,
    losses_allowed,
    steps,
)

from nnet import Checkpoint, EarlyStopping, NeuralNetwork
from nnet.files import checkpoints

X, Y = images()
FIT = {"max_iter": 2, "batch_size": 32, "momentum": 0.9, "validation_data": (X[:30], Y[:30])}


class Case:
    """A fitted network, what is called, and the states that may be found after an interrupt."""

    def __init__(self, name, path=None):
        self.network = network = cnn().fit(X, Y, 0.1, max_iter=1)
        self.before, self.dumped = everything(network, X), pickle.dumps(network)
        self.state = network.state_dict()
        self.other = {key: array + 1 for key, array in self.state.items()}
        self.path, self.name = path, name
        self.checkpoint = b""
        self.call = getattr(self, name)
        self.allowed = {bits(network)} | set(getattr(self, f"after_{name}", list)())
        self.reset()

    def reset(self):
        self.network = cnn().fit(X, Y, 0.1, max_iter=1)
        if self.name == "resume":
            self.path.write_bytes(self.checkpoint)

    def predict(self):
        return self.network.predict(X)

    def predict_proba(self):
        return self.network.predict_proba(X, batch_size=20)

    def error(self):
        return self.network.error(X, Y)

    def state_dict(self):
        return self.network.state_dict()

    def copy(self):
        return bits(deepcopy(self.network))

    def check_gradients(self):
        return len(self.network.check_gradients(X[:4], Y[:4], max_checks=4))

    def save(self):
        self.network.save(self.path)

    def load_state_dict(self):
        self.network.load_state_dict(self.other)

    def after_load_state_dict(self):
        return [b"".join(array.tobytes() for array in self.other.values())]

    def fit(self):
        self.network.fit(X, Y, 0.05, **FIT)

    def after_fit(self):
        return steps(self.network, X, Y, 0.05, **FIT)

    def fitted_anew(self):
        """The network as it was: what goes on from it may be called on and on."""
        self.network = network = pickle.loads(self.dumped)
        return network

    def warm_start(self):
        self.fitted_anew().fit(X, Y, 0.05, **FIT, warm_start=True)

    def after_warm_start(self):
        return steps(self.network, X, Y, 0.05, **FIT, warm_start=True)

    def partial_fit(self):
        self.fitted_anew().partial_fit(X, Y, learning_rate=0.05, batch_size=32)

    def after_partial_fit(self):
        return steps(self.network, X, Y, 0.05, batch_size=32, max_iter=1, warm_start=True)

    def resume(self):
        """It goes on from its first epoch, and writes checkpoints over the one that it has."""
        callbacks = [EarlyStopping("val_loss"), Checkpoint(self.path)]
        self.network.fit(X, Y, 0.05, **FIT, callbacks=callbacks, resume=self.path)

    def after_resume(self):
        first = FIT | {"max_iter": 1}
        callbacks = [EarlyStopping("val_loss"), Checkpoint(self.path)]
        cnn().fit(X, Y, 0.05, **first, callbacks=callbacks)
        self.checkpoint = self.path.read_bytes()
        return steps(self.network, X, Y, 0.05, **FIT)

    def build(self):
        self.network.build((1, 8, 8), 3)

    def after_build(self):
        return [bits(self.network.build((1, 8, 8), 3))]

    def check(self):
        """After an interrupt, or none."""
        network = self.network
        assert_nothing_lent(network)
        now = bits(network)
        assert now in self.allowed, "not the parameters of a whole step"
        probs = in_thread(lambda: network.predict_proba(X))
        twin = NeuralNetwork(cnn().layers).build((1, 8, 8), 3)
        twin.load_state_dict(network.state_dict())
        assert np.array_equal(probs, twin.predict_proba(X))
        assert np.geterr()["over"] == "warn"
        assert len(network.val_loss_history_) == len(network.val_error_history_)
        if self.path is not None and self.path.exists():
            assert set(self.path.parent.iterdir()) == {self.path}
            if self.name == "resume":
                description, _ = checkpoints.load(self.path)
                assert description["n_done"] in (1, 2)
                self.path.write_bytes(self.checkpoint)
            else:
                assert bits(NeuralNetwork.load(self.path)) in self.allowed
        if len(self.allowed) == 1:
            assert everything(network, X) == self.before
        else:
            self.check_history()
            if now != self.before[0]:
                self.reset()

    def check_history(self):
        network = self.network
        if self.name == "fit" and bits(network) != self.before[0]:
            assert len(network.loss_history_) == len(network.val_loss_history_) <= FIT["max_iter"]
        if self.name not in GOING_ON:
            assert len(set(map(len, network.history_.values()))) <= 1


METHODS = [
    "predict",
    "predict_proba",
    "error",
    "state_dict",
    "copy",
    "check_gradients",
    "save",
    "load_state_dict",
    "fit",
    "warm_start",
    "partial_fit",
    "resume",
    "build",
]
NEED_A_FILE = "save", "resume"
GOING_ON = "warm_start", "partial_fit"


def seconds_of(function):
    """The least of a few."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def interrupt_by_signals(case, n_times, seed=0):
    """How many of the calls were interrupted. The clock decides which, and where."""
    rng, duration = np.random.default_rng(seed), seconds_of(case.call)
    case.reset()
    n_interrupted = 0
    with alarms() as interrupt:
        for _ in range(n_times):
            n_interrupted += interrupt(case.call, rng.uniform(0, duration))
            case.check()
    return n_interrupted


def interrupt_a_thread(case, n_times, seed=0):
    """The same by exceptions that Python raises in another thread, which calls on and on."""
    with losses_allowed():
        _interrupt_a_thread(case, n_times, seed)


def _interrupt_a_thread(case, n_times, seed):
    rng, duration = np.random.default_rng(seed), seconds_of(case.call)
    case.reset()
    for _ in range(n_times):
        ready = threading.Event()

        def target(ready=ready):
            try:
                ready.set()
                while True:
                    case.call()
            except Interrupt:
                pass

        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        assert ready.wait(PATIENCE)
        time.sleep(rng.uniform(0, 2 * duration))
        for _ in range(PATIENCE):  # once, if it is not lost
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(Interrupt)
            )
            thread.join(1)
            if not thread.is_alive():
                break
        assert not thread.is_alive(), "it hangs"
        case.check()
