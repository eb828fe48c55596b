"""A training of which every part must survive: the network, the call, processes that are killed."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from trouble import PATIENCE, images

import nnet
from nnet import (
    SGD,
    Activation,
    Checkpoint,
    Conv,
    EarlyStopping,
    Flatten,
    Layer,
    Linear,
    LogRegression,
    NeuralNetwork,
)

X, Y = images()
WEIGHTS = np.random.default_rng(3).integers(0, 3, len(X))
WEIGHTS[:8] = 0

OPTIMIZERS = {
    "SGD": lambda: {"learning_rate": 0.05},
    "momentum": lambda: {"learning_rate": 0.05, "momentum": 0.9},
    "Nesterov": lambda: {"optimizer": SGD(learning_rate=0.05, momentum=0.9, nesterov=True)},
    "a schedule": lambda: {"learning_rate": falling, "momentum": 0.5},
}


def falling(epoch):
    return 0.05 / (1 + epoch)


class Noise(Layer):
    """Multiplies by random numbers, as dropout does."""

    def fprop(self, input):
        if not self.training:
            return input
        self.factors = self._work.rng.uniform(0.5, 1.5, input.shape).astype(input.dtype)
        return input * self.factors

    def bprop(self, output_grad):
        return output_grad * self.factors

    def output_shape(self, input_shape):
        return input_shape


class RunningMean(Layer):
    """Subtracts a mean over the batches, as a batch norm does."""

    def _setup(self, input_shape, rng):
        self.mean = np.zeros(input_shape[1:], self.dtype)

    def fprop(self, input):
        if self.training:
            self.mean = (0.9 * self.mean + 0.1 * input.mean(axis=0)).astype(self.dtype)
        return input - self.mean

    def bprop(self, output_grad):
        return output_grad

    def output_shape(self, input_shape):
        return input_shape

    def state_names(self):
        return ["mean"]


def network(rng=0):
    layers = [Conv(4, 3), RunningMean(), Activation("relu"), Noise(), Flatten(), Linear(6)]
    return NeuralNetwork([*layers, Noise(), Linear(3), LogRegression()], rng)


def n_right(y, predictions):
    return float(np.sum(y == predictions))


def call(how="momentum", **options):
    """What fit is called with, but for its callbacks: something of everything."""
    return {
        "X": X,
        "y": Y,
        "max_iter": 4,
        "batch_size": 32,
        "sample_weight": WEIGHTS,
        "class_weight": {0: 2.0},
        "validation_fraction": 0.2,
        "metrics": [n_right],
        **OPTIMIZERS[how](),
        **options,
    }


def stopping():
    """It restores the best epoch at the end, but doesn't stop."""
    return EarlyStopping("n_right", patience=99, mode="max")


# --- processes that are killed ------------------------------------------------------------


def train(path, max_iter):
    """Train, or go on with a training, and print what came of it."""
    print("begins", flush=True)
    trained = network().fit(
        **call(max_iter=int(max_iter)),
        callbacks=[stopping(), Checkpoint(path)],
        resume=path if os.path.exists(path) else None,
    )
    print(summary(trained))


def summary(trained):
    state = b"".join(array.tobytes() for array in trained.state_dict().values())
    return hashlib.sha256(state + repr(trained.history_).encode()).hexdigest()


def start(path, max_iter):
    code = f"import sys; sys.path[:0] = {sys.path!r}; import checkpoints; checkpoints.train"
    folder = Path(nnet.__file__).resolve().parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}({str(path)!r}, {max_iter})"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begins\n"
    return process


def kill_at_random(path, n_times, max_iter, seed=0):
    """How many were killed before they ended; what the last one printed, which was not killed.

    Parameters
    ----------
    path : pathlib.Path
        Of the checkpoint: a training that begins anew removes it.
    """
    began = time.perf_counter()
    network().fit(**call(max_iter=max_iter), callbacks=[stopping(), Checkpoint(path)])
    duration = time.perf_counter() - began
    path.unlink()
    rng, n_killed = np.random.default_rng(seed), 0
    for _ in range(n_times):
        process = start(path, max_iter)
        time.sleep(rng.uniform(0, 0.7 * duration))
        process.kill()
        process.communicate(timeout=PATIENCE)
        n_killed += process.returncode != 0
        if process.returncode == 0:
            path.unlink()
    out, _ = start(path, max_iter).communicate(timeout=PATIENCE)
    return n_killed, out.strip()
