"""Training: images per second over whole epochs, against the same network in PyTorch."""

import math
import re
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from typing import NamedTuple
from unittest.mock import patch

import numpy as np

import bench_conv
import bench_pool
from common import Benchmark, Operation, Stopwatch, main, median_time
from nnet import NeuralNetwork, reference
from nnet.layers import (
    Activation,
    BatchNorm,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    Pool,
    Residual,
)
from nnet.layers.spec import complete, parse_layers
from nnet.layers.tree import layers_in, numbered

N_CLASSES = 10
NETS = {  # images of an epoch, and the layers before the last linear one
    "MNIST": ((1024, 1, 28, 28), "conv12-5,relu,pool2,conv16-5,relu"),
    "LeNet-5": (
        (2048, 1, 28, 28),
        "conv6-5,relu,pool2,conv16-5-valid,relu,pool2,linear120,relu,linear84,relu",
    ),
    "CIFAR": (
        (256, 3, 32, 32),
        "conv32-3,relu,conv32-3,relu,pool2,conv64-3,relu,conv64-3,relu,pool2,linear128,relu",
    ),
    "strided": (
        (1024, 3, 32, 32),
        "conv32-3-s2,relu,conv64-3-s2,relu,conv64-3-s2,relu,gap",
    ),
    "digits": ((1797, 1, 8, 8), "conv16-3,relu,conv32-3,relu,pool2"),
}
NORM_NETS = {  # with batch normalisation; for the pieces see `pieces_of`
    "VGG with batch norm": ((512, 3, 32, 32), "c32,c32,pool2,c64,c64,pool2,linear128,relu"),
    "ResNet": ((512, 3, 32, 32), "c16,res16,c32-s2,res32,c64-s2,res64,gap"),
    "mobile": ((512, 3, 32, 32), "c16,dw32,dw64-s2,dw64,dw128-s2,gap"),
}


class Case(NamedTuple):
    imgs: tuple  # (n_imgs, n_channels, img_h, img_w)
    layers: str  # see `pieces_of`
    batch_size: int
    n_classes: int = N_CLASSES
    momentum: float = 0.0

    def data(self, dtype):
        """Random images, and labels of which every batch has all."""
        X = np.random.default_rng(0).standard_normal(self.imgs).astype(dtype)
        return X, np.arange(len(X)) % self.n_classes

    def nnet_layers(self):
        layers, _ = complete(pieces_of(self.layers), self.imgs[1:], self.n_classes)
        layers[-2].weight_scale = "he"  # with smaller ones, an epoch in float32 hardly moves others
        for layer in layers_in(numbered(layers)):
            if isinstance(layer, Conv):  # with a stride 'same' pads one side more: others cannot
                same = layer.padding_mode == "same"
                layer.padding_mode = tuple(size // 2 * same for size in layer.filter_shape)
        return layers

    def flops(self):
        """Of an epoch: the backward pass costs twice the forward pass, in the first layer once."""
        shape, total = self.imgs, 0
        layers = []
        for layer in self.nnet_layers():  # a residual's layers give the shape that they get
            layers += layer.layers if isinstance(layer, Residual) else [layer]
        for layer in layers:
            out_shape = layer.output_shape(shape)
            if isinstance(layer, (Conv, Linear)):
                n_weights = math.prod(layer.array_shapes(shape)["W"])
                work = 2 * shape[0] * n_weights * math.prod(out_shape[2:])
                total += work * (3 if total else 2)
            shape = out_shape
        return total


def pieces_of(spec):
    """(piece, layer) of a text, as `parse_layers` gives them, which knows but three of these:

    c16-s2, a convolution 3x3 without bias, batch norm and ReLU; res16, the sum of its input
    and of c16, a convolution and batch norm, then ReLU; dw32-s2, a c of one group for each
    channel with that stride, then one of 1x1 to 32 channels; whatever `parse_layers` knows.
    """
    named, n_channels = [], None
    for piece in spec.split(","):
        kind, count, stride = re.fullmatch(r"(\D*)(\d*)(?:-s(\d))?.*", piece).groups()
        n_feats, stride = int(count or 0), int(stride or 1)
        layers = {
            "c": lambda n=n_feats, s=stride: block(n, 3, s),
            "res": lambda n=n_feats: [
                Residual([*block(n, 3), *block(n, 3)[:2]]),
                Activation("relu"),
            ],
            "dw": lambda n=n_feats, s=stride, c=n_channels: [*block(c, 3, s, c), *block(n, 1)],
        }
        if kind in layers:
            named += [(piece, layer) for layer in layers[kind]()]
            n_channels = n_feats
        else:
            named += parse_layers(piece)
    return named


def has_norms(case):
    return any(isinstance(layer, BatchNorm) for layer in case.nnet_layers())


def block(n_feats, size, stride=1, groups=1):
    conv = Conv(n_feats, size, stride, groups=groups, use_bias=False)
    return [conv, BatchNorm(), Activation("relu")]


def small(case):
    """Four small images in one batch, two features everywhere, two classes."""
    side = 16 if "valid" in case.layers else 8
    layers = re.sub(r"\b(conv|linear|c|res|dw)[0-9]+", r"\g<1>2", case.layers)
    return Case((4, case.imgs[1], side, side), layers, 4, 2)


def operations(library, case, dtype):
    """An epoch of training. What is checked is the step after the first batch."""
    on_torch = library.startswith("torch")
    run = (torch_seconds, torch_step) if on_torch else (nnet_seconds, nnet_step)
    seconds, step = (partial(function, library, case, dtype) for function in run)
    rates = {"images/s": case.imgs[0], "GFLOP/s": 1e-9 * case.flops()}
    tolerance = None
    if dtype == np.float32 and has_norms(case):  # whose ReLUs turn more easily
        tolerance = 5e-3
    elif dtype == np.float32 and case.layers == NETS["CIFAR"][1]:
        tolerance = 2e-2  # one of a million maxima that turns is 1e-2 of a step of 16 images
    return {"epoch": Operation(seconds=seconds, result=step, rates=rates, tolerance=tolerance)}


# --- nnet, with any kernels ---------------------------------------------------


@contextmanager
def kernels_of(library):
    """A context in which nnet's layers run on a library's kernels: compiled, NumPy or loops."""
    names = "conv_bc01", "bprop_conv_bc01", "pool_bc01", "bprop_pool_bc01", "matmul"
    names += "batch_norm", "bprop_batch_norm"
    norms = numpy_batch_norm, numpy_bprop_batch_norm
    if library == "loops":
        norms = reference.batch_norm, reference.bprop_batch_norm
    functions = *bench_conv.KERNELS[library], *bench_pool.KERNELS[library], numpy_matmul, *norms
    with ExitStack() as stack:
        for kind in ("conv", "pool", "linear", "norm") if library != "nnet" else ():
            module = import_module(f"nnet.layers.{kind}")
            for name, function in zip(names, functions):
                if hasattr(module, name):
                    stack.enter_context(patch.object(module, name, function))
        yield


def numpy_matmul(
    a, b, out, bias=None, divisor=1, activation=None, over_images=False, column_sums=None
):
    np.divide(a @ b, divisor, out=out)
    if column_sums is not None:
        np.divide(b.sum(axis=0), divisor, out=column_sums)
    if bias is not None:
        out += bias
    return np.maximum(out, 0, out=out) if activation else out


def numpy_batch_norm(
    imgs, gamma, beta, running_mean, running_var, out, mean, inv_std, *, eps, activation, **options
):
    """In training, without weights; the running statistics stay as they are: nothing predicts."""
    axes = (0, *range(2, imgs.ndim))
    np.mean(imgs, axis=axes, dtype=float, out=mean)
    deviations = imgs - per_channel(mean, imgs)
    np.power(np.mean(deviations**2, axis=axes, dtype=float) + eps, -0.5, out=inv_std)
    np.multiply(deviations, per_channel(inv_std * gamma, imgs), out=out)
    out += per_channel(beta, imgs)
    if activation:
        np.maximum(out, 0, out=out)
    return out, mean, inv_std


def numpy_bprop_batch_norm(
    imgs,
    out_grad,
    gamma,
    beta,
    mean,
    inv_std,
    imgs_grad,
    gamma_grad,
    beta_grad,
    *,
    activation=None,
    **options,
):
    axes = (0, *range(2, imgs.ndim))
    normalised = (imgs - per_channel(mean, imgs)) * per_channel(inv_std, imgs)
    if activation:
        y = normalised * per_channel(gamma, imgs) + per_channel(beta, imgs)
        out_grad = np.where(y > 0, out_grad, 0)
    count = imgs.size / len(gamma)
    total = np.sum(out_grad, axis=axes, dtype=float)
    products = np.sum(out_grad * normalised, axis=axes, dtype=float)
    gamma_grad[...], beta_grad[...] = products / len(imgs), total / len(imgs)
    means = per_channel(total, imgs) + normalised * per_channel(products, imgs)
    imgs_grad[...] = per_channel(gamma * inv_std, imgs) * (out_grad - means / count)
    return imgs_grad, gamma_grad, beta_grad


def per_channel(values, imgs):
    return values.reshape(-1, *[1] * (imgs.ndim - 2))


def fit(library, case, X, y, **options):
    """nnet's network, trained on the kernels of a library."""
    with kernels_of(library):
        network = NeuralNetwork(case.nnet_layers(), rng=0)
        return network.fit(X, y, batch_size=case.batch_size, **options)


def nnet_seconds(library, case, dtype, budget):
    """Median seconds of an epoch; the first one, which sets up, is only to warm up."""
    stopwatch = Stopwatch(budget)

    def stop(progress):
        return progress.epoch_done and stopwatch.lap()

    options = {"learning_rate": 0.01, "momentum": case.momentum}
    fit(library, case, *case.data(dtype), max_iter=10**6, callback=stop, **options)
    return stopwatch.median()


def nnet_step(library, case, dtype):
    """By how much one step at learning rate 1 changes each parameter."""
    X, y = (array[: case.batch_size] for array in case.data(dtype))
    before, after = (
        fit(library, case, X, y, learning_rate=rate, max_iter=1, shuffle=False).params()
        for rate in (0.0, 1.0)
    )
    return changes(case, before, after)


def changes(case, before, after):
    """One array for each parameter; with batch norm one for all.

    There the gradients of some scales are about zero, and what is left of them is rounding.
    """
    differences = [b - a for b, a in zip(before, after, strict=True)]
    if not has_norms(case):
        return differences
    return [np.concatenate([difference.ravel() for difference in differences])]


# --- PyTorch ------------------------------------------------------------------


class TorchNet:
    """The same layers as an nn.Sequential, and its parameters laid out as nnet's are."""

    def __init__(self, library, case, dtype):
        import torch

        self.torch = torch
        self.last = library.endswith("last")
        order = torch.channels_last if self.last else torch.contiguous_format
        self.net = self.sequential(case).to(getattr(torch, dtype.name), memory_format=order)

    def sequential(self, case):
        return self.modules(case.nnet_layers()[:-1], case.imgs)

    def modules(self, layers, shape):
        nn, modules = self.torch.nn, []
        make = {
            Conv: lambda layer: nn.Conv2d(
                shape[1],
                layer.n_feats,
                layer.filter_shape,
                layer.strides,
                layer.padding_mode,
                groups=layer.groups,
                bias=layer.use_bias,
            ),
            BatchNorm: lambda layer: nn.BatchNorm2d(shape[1], layer.eps, layer.momentum),
            Residual: lambda layer: residual_module(nn, self.modules(layer.layers, shape)),
            Linear: lambda layer: nn.Linear(shape[1], layer.n_out),
            Pool: lambda layer: nn.MaxPool2d(2),
            GlobalAveragePool: lambda layer: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            Activation: lambda layer: nn.ReLU(),
            Flatten: lambda layer: nn.Flatten(),
        }
        for layer in layers:
            modules.append(make[type(layer)](layer))
            shape = layer.output_shape(shape)
        return nn.Sequential(*modules)

    def params(self):
        """Copies."""
        arrays = [param.detach().numpy().copy() for param in self.net.parameters()]
        return [array.swapaxes(0, 1) if array.ndim > 1 else array for array in arrays]

    def set_params(self, arrays):
        with self.torch.no_grad():
            for param, array in zip(self.net.parameters(), arrays, strict=True):
                array = array.swapaxes(0, 1) if array.ndim > 1 else array
                param.copy_(self.torch.tensor(np.ascontiguousarray(array)))


def residual_module(nn, f):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = f

        def forward(self, x):
            return x + self.f(x)

    return Sum()


class TorchTraining(TorchNet):
    """As a competent user writes it: images in memory, batches picked from a permutation."""

    def __init__(self, library, case, dtype, learning_rate):
        super().__init__(library, case, dtype)
        self.case = case
        self.X, self.y = map(self.torch.tensor, case.data(dtype))
        if self.last:  # whole images in one piece: picking a batch is 4 times as fast
            self.X = self.X.permute(0, 2, 3, 1).contiguous()
        self.loss = self.torch.nn.CrossEntropyLoss()
        self.optimizer = self.torch.optim.SGD(
            self.net.parameters(), lr=learning_rate, momentum=case.momentum
        )

    def step(self, rows):
        batch = self.X.index_select(0, rows)
        if self.last:
            batch = batch.permute(0, 3, 1, 2)
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.net(batch), self.y.index_select(0, rows)).backward()
        self.optimizer.step()

    def epoch(self):
        for rows in self.torch.randperm(len(self.X)).split(self.case.batch_size):
            self.step(rows)


def torch_seconds(library, case, dtype, budget):
    return median_time(TorchTraining(library, case, dtype, 0.01).epoch, budget)


def torch_step(library, case, dtype):
    training = TorchTraining(library, case, dtype, 1.0)
    X, y = (array[: case.batch_size] for array in case.data(dtype))
    training.set_params(fit("nnet", case, X, y, learning_rate=0.0, max_iter=1).params())
    before = training.params()
    training.step(training.torch.arange(case.batch_size))
    return changes(case, before, training.params())


BENCHMARK = Benchmark(
    name="training",
    libraries=("loops", "numpy", "torch", "torch-channels-last"),
    cases={
        f"{name} net, batch {batch_size}": Case(imgs, layers, batch_size)
        for name, (imgs, layers) in NETS.items()
        for batch_size in (16, 32, 64, 128)
    }
    | {
        f"{name} net, batch {batch_size}": Case(imgs, layers, batch_size, momentum=0.9)
        for name, (imgs, layers) in NORM_NETS.items()
        for batch_size in (32, 128)
    },
    loops_case=(
        "MNIST net, 2 images of 2 classes",
        Case((2, 1, 28, 28), NETS["MNIST"][1], 2, 2),
    ),
    tiny_case=Case((8, 1, 8, 8), "conv2-3,relu,pool2", 4, 2),
    small=small,
    operations=operations,
    float32_tolerance=1e-3,  # rounding turns one of a million ReLUs or maxima the other way
)

if __name__ == "__main__":
    main(BENCHMARK)
