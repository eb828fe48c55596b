"""Training: images per second over whole epochs, against the same network in PyTorch."""

import math
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple
from unittest.mock import patch

import numpy as np

import bench_conv
import bench_pool
from common import Benchmark, Operation, Stopwatch, main, median_time
from nnet import NeuralNetwork
from nnet.layers import Activation, Conv, Flatten, Linear, LogRegression, Pool

NETS = {
    "MNIST": (
        (2048, 1, 28, 28),
        [("conv", 12, 5), ("relu",), ("pool",), ("conv", 16, 5), ("relu",), ("dense", 10)],
    ),
    "digits": (
        (1797, 1, 8, 8),
        [("conv", 16, 3), ("relu",), ("conv", 32, 3), ("relu",), ("pool",), ("dense", 10)],
    ),
    "CIFAR": (
        (512, 3, 32, 32),
        [("conv", 32, 3), ("relu",), ("conv", 32, 3), ("relu",), ("pool",)]
        + [("conv", 64, 3), ("relu",), ("conv", 64, 3), ("relu",), ("pool",)]
        + [("dense", 128), ("relu",), ("dense", 10)],
    ),
}


class Case(NamedTuple):
    imgs: tuple  # (n_imgs, n_channels, img_h, img_w)
    layers: list  # of (kind, number of features, filter size)
    batch_size: int

    def data(self, dtype):
        """Random images, and labels of which every batch has all."""
        X = np.random.default_rng(0).standard_normal(self.imgs).astype(dtype)
        return X, np.arange(len(X)) % self.layers[-1][1]

    def nnet_layers(self):
        layers = []
        for kind, *size in self.layers:
            if kind == "conv":
                layers.append(Conv(size[0], (size[1], size[1])))
            elif kind == "pool":
                layers.append(Pool((2, 2), (2, 2)))
            elif kind == "relu":
                layers.append(Activation("relu"))
            elif any(isinstance(layer, Linear) for layer in layers):
                layers.append(Linear(size[0]))
            else:
                layers += [Flatten(), Linear(size[0])]
        return [*layers, LogRegression()]

    def flops(self):
        """Of an epoch: the backward pass costs twice the forward pass, in the first layer once."""
        shape, total = self.imgs, 0
        for layer in self.nnet_layers():
            out_shape = layer.output_shape(shape)
            if isinstance(layer, (Conv, Linear)):
                n_weights = math.prod(layer.param_shapes(shape)["W"])
                work = 2 * shape[0] * n_weights * math.prod(out_shape[2:])
                total += work * (3 if total else 2)
            shape = out_shape
        return total


def small(case):
    """Four small images in one batch, two features everywhere, two classes."""
    layers = [(kind, *(min(k, 2) for k in size[:1]), *size[1:]) for kind, *size in case.layers]
    return Case((4, case.imgs[1], 8, 8), layers, 4)


def operations(library, case, dtype):
    """An epoch of training. What is checked is the step after the first batch."""
    on_torch = library.startswith("torch")
    run = (torch_seconds, torch_step) if on_torch else (nnet_seconds, nnet_step)
    seconds, step = (partial(function, library, case, dtype) for function in run)
    rates = {"images/s": case.imgs[0], "GFLOP/s": 1e-9 * case.flops()}
    return {"epoch": Operation(seconds=seconds, result=step, rates=rates)}


# --- nnet, with any kernels ---------------------------------------------------


def numpy_matmul(a, b, out, bias=None, divisor=1, activation=None):
    np.divide(a @ b, divisor, out=out)
    if bias is not None:
        out += bias
    return np.maximum(out, 0, out=out) if activation else out


def fit(library, case, X, y, **options):
    """nnet's network, trained on the kernels of a library: compiled, NumPy or loops."""
    conv, bprop_conv = bench_conv.KERNELS[library]
    pool, bprop_pool = bench_pool.KERNELS[library]
    with ExitStack() as stack:
        for module, functions in {
            "conv": {"conv_bc01": conv, "bprop_conv_bc01": bprop_conv},
            "pool": {"pool_bc01": pool, "bprop_pool_bc01": bprop_pool},
            **({} if library == "nnet" else {"linear": {"matmul": numpy_matmul}}),
        }.items():
            stack.enter_context(patch.multiple(f"nnet.layers.{module}", **functions))
        network = NeuralNetwork(case.nnet_layers(), rng=0)
        return network.fit(X, y, batch_size=case.batch_size, **options)


def nnet_seconds(library, case, dtype, budget):
    """Median seconds of an epoch; the first one, which sets up, is only to warm up."""
    stopwatch = Stopwatch(budget)

    def stop(progress):
        return progress.epoch_done and stopwatch.lap()

    fit(library, case, *case.data(dtype), learning_rate=0.01, max_iter=10**6, callback=stop)
    return stopwatch.median()


def nnet_step(library, case, dtype):
    """By how much one step at learning rate 1 changes each parameter."""
    X, y = (array[: case.batch_size] for array in case.data(dtype))
    before, after = (
        fit(library, case, X, y, learning_rate=rate, max_iter=1, shuffle=False).params()
        for rate in (0.0, 1.0)
    )
    return [b - a for b, a in zip(before, after)]


# --- PyTorch ------------------------------------------------------------------


class TorchTraining:
    """The same layers as an nn.Sequential, with the images in memory."""

    def __init__(self, library, case, dtype, learning_rate):
        import torch

        self.torch, self.case = torch, case
        last = library.endswith("last")
        self.order = torch.channels_last if last else torch.contiguous_format
        self.X, self.y = map(torch.tensor, case.data(dtype))
        self.X = self.X.contiguous(memory_format=self.order)
        self.net = self.sequential().to(self.X.dtype, memory_format=self.order)
        self.loss = torch.nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=learning_rate)

    def sequential(self):
        nn, shape, modules = self.torch.nn, self.case.imgs, []
        for layer in self.case.nnet_layers()[:-1]:
            if isinstance(layer, Conv):
                size = layer.filter_shape
                modules.append(nn.Conv2d(shape[1], layer.n_feats, size, padding=size[0] // 2))
            elif isinstance(layer, Linear):
                modules.append(nn.Linear(shape[1], layer.n_out))
            else:
                kinds = {Pool: lambda: nn.MaxPool2d(2), Flatten: nn.Flatten, Activation: nn.ReLU}
                modules.append(kinds[type(layer)]())
            shape = layer.output_shape(shape)
        return nn.Sequential(*modules)

    def step(self, rows):
        batch = self.X[rows].contiguous(memory_format=self.order)
        self.optimizer.zero_grad()
        self.loss(self.net(batch), self.y[rows]).backward()
        self.optimizer.step()

    def epoch(self):
        for rows in self.torch.randperm(len(self.X)).split(self.case.batch_size):
            self.step(rows)

    def params(self):
        """Copies, laid out as nnet's are."""
        arrays = [param.detach().numpy().copy() for param in self.net.parameters()]
        return [array.swapaxes(0, 1) if array.ndim > 1 else array for array in arrays]

    def set_params(self, arrays):
        with self.torch.no_grad():
            for param, array in zip(self.net.parameters(), arrays, strict=True):
                array = array.swapaxes(0, 1) if array.ndim > 1 else array
                param.copy_(self.torch.tensor(np.ascontiguousarray(array)))


def torch_seconds(library, case, dtype, budget):
    return median_time(TorchTraining(library, case, dtype, 0.01).epoch, budget)


def torch_step(library, case, dtype):
    training = TorchTraining(library, case, dtype, 1.0)
    X, y = (array[: case.batch_size] for array in case.data(dtype))
    training.set_params(fit("nnet", case, X, y, learning_rate=0.0, max_iter=1).params())
    before = training.params()
    training.step(training.torch.arange(case.batch_size))
    return [b - a for b, a in zip(before, training.params())]


BENCHMARK = Benchmark(
    name="training",
    libraries=("loops", "numpy", "torch", "torch-channels-last"),
    cases={
        f"{name} net, batch {batch_size}": Case(imgs, layers, batch_size)
        for name, (imgs, layers) in NETS.items()
        for batch_size in (16, 32, 64, 128)
    },
    loops_case=(
        "MNIST net, 2 images of 2 classes",
        Case((2, 1, 28, 28), [*NETS["MNIST"][1][:-1], ("dense", 2)], 2),
    ),
    tiny_case=Case((8, 1, 8, 8), [("conv", 2, 3), ("relu",), ("pool",), ("dense", 2)], 4),
    small=small,
    operations=operations,
    float32_tolerance=1e-3,  # rounding turns one of a million ReLUs or maxima the other way
)

if __name__ == "__main__":
    main(BENCHMARK)
