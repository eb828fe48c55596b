"""Accuracy: error against float64, an image alone and in a batch, one thread and two.

Each library computes the same float32 convolution and the same dense layer; nnet also with each
of its algorithms. Nothing is timed.
"""

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

import nnet
from bench_predict import onnx_run, openvino_run
from common import limit_threads, make_parser, matching, parse, run, run_child
from nnet import Conv, Linear
from nnet._dense import matmul
from targets import ACCURACY

LIBRARIES = ("numpy", "torch", "torch-channels-last", "onnxruntime", "openvino", "jax")
OFFSETS = 0, 100, 10_000
N_ALONE = 4  # images that are computed by themselves too


class Case(NamedTuple):
    operation: str
    inputs: tuple  # (n_imgs, n_channels, img_h, img_w), or (n_imgs, n_inputs)
    n_outputs: int
    offset: float = 0.0

    def data(self):
        """Rectified normal pixels, normal weights; and the outputs in float64."""
        rng = np.random.default_rng(0)
        size = (3, 3) if self.operation == "convolution" else ()
        X = np.maximum(rng.standard_normal(self.inputs), 0) + self.offset
        W = rng.standard_normal((self.inputs[1], self.n_outputs, *size))
        X, W = X.astype(np.float32), W.astype(np.float32)
        X_, W_ = X.astype(np.float64), W.astype(np.float64)
        if self.operation == "dense":
            return X, W, X_ @ W_
        padded = np.pad(X_, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
        return X, W, np.einsum("ncyxij,ckij->nkyx", windows, W_, optimize=True)


def cases(options):
    sizes = {
        "3x3 convolution of 64 channels, 16x16": Case("convolution", (16, 64, 16, 16), 64),
        "Linear of 3,136 inputs": Case("dense", (256, 3136), 10),
    }
    if options.quick:
        sizes = {"tiny convolution": Case("convolution", (5, 4, 5, 6), 6)}
    offsets = {0: "", **{offset: f", pixels + {offset:,}" for offset in OFFSETS[1:]}}
    return {
        name + text: case._replace(offset=float(offset))
        for name, case in matching(sizes, options).items()
        for offset, text in offsets.items()
    }


# --- what each library computes -------------------------------------------------


def nnet_run(case, W, X, algorithm):
    if case.operation == "dense":
        return lambda: matmul(X, W, n_threads=nnet.get_num_threads())
    options = {"algorithm": algorithm, "n_threads": nnet.get_num_threads()}
    return lambda: nnet.conv_bc01(X, W, **options)


def numpy_run(case, W, X):
    """One matrix product, in float32."""
    if case.operation == "dense":
        return lambda: X @ W
    padded = np.pad(X, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 9 * X.shape[1])
    matrix = W.transpose(0, 2, 3, 1).reshape(-1, W.shape[1])
    shape = len(X), *X.shape[2:], W.shape[1]
    return lambda: (rows @ matrix).reshape(shape).transpose(0, 3, 1, 2)


def torch_run(channels_last, case, W, X):
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    batch, weights = torch.tensor(X), torch.tensor(W.swapaxes(0, 1).copy())
    if case.operation == "dense":
        return lambda: torch.nn.functional.linear(batch, weights).numpy()
    batch, weights = (each.contiguous(memory_format=layout) for each in (batch, weights))
    return lambda: torch.nn.functional.conv2d(batch, weights, padding=1).numpy()


def exported_run(run_of, case, W, X):
    """By the graph of a network of this one layer, without bias."""
    layer = Linear(case.n_outputs)
    if case.operation == "convolution":
        layer = Conv(case.n_outputs, (3, 3), padding_mode=(1, 1))
    layer.W, layer.b = W, np.zeros(case.n_outputs, np.float32)
    return run_of("", case, SimpleNamespace(layers=[layer]), X)


def jax_run(case, W, X):
    import jax

    @jax.jit
    def outputs(X):
        if case.operation == "dense":
            return jax.numpy.matmul(X, W, precision="highest")
        axes = "NCHW", "IOHW", "NCHW"
        options = {"dimension_numbers": axes, "precision": "highest"}
        return jax.lax.conv_general_dilated(X, W, (1, 1), "SAME", **options)

    return lambda: np.asarray(outputs(X))


RUNS = {
    "numpy": numpy_run,
    "torch": partial(torch_run, False),
    "torch-channels-last": partial(torch_run, True),
    "onnxruntime": partial(exported_run, onnx_run),
    "openvino": partial(exported_run, openvino_run),
    "jax": jax_run,
}


def runs(library, case):
    """{what it is called in the tables: a function of weights and images that makes a run}."""
    if library != "nnet":
        return {library: partial(RUNS[library], case)}
    found = {"nnet": partial(nnet_run, case, algorithm=None)}
    if case.operation == "convolution":
        shape = case.inputs[1], case.n_outputs, 3, 3
        for row in nnet.explain(nnet.conv_bc01, case.inputs, shape).rows:
            if row.cycles is not None:
                name = row.implementation
                found[f"nnet, {name}"] = partial(nnet_run, case, algorithm=name)
    return found


# --- figures --------------------------------------------------------------------


def error_of(found, exact):
    """The relative Frobenius norm, in 1e-7."""
    return 1e7 * float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def difference(found, other):
    """Of the same outputs, over their standard deviation, in 1e-7; or that there is none."""
    if np.array_equal(found, other):
        return "same bits"
    return 1e7 * float(np.max(np.abs(found.astype(np.float64) - other)) / np.std(other))


def limit_processors(library, n_threads):
    """JAX has as many threads as it finds processors, and no option."""
    if library == "jax" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n_threads])


def measure(options):
    """Errors on so many threads; outputs stay in a folder, for a comparison."""
    library, n_threads = options.child, options.threads[0]
    limit_processors(library, n_threads)
    limit_threads(library, n_threads)
    rows = []
    for name, case in cases(options).items():
        X, W, exact = case.data()
        for what, make in runs(library, case).items():
            found = make(W, X)()
            path = f"{len(rows)} {n_threads}.npy"
            np.save(options.arrays / f"{library} {path}", found)
            alone = np.concatenate([make(W, X[i : i + 1])() for i in range(N_ALONE)])
            rows.append(
                {
                    "case": name,
                    "library": what,
                    "error": error_of(found, exact),
                    "alone and in a batch": difference(alone, found[:N_ALONE]),
                }
            )
    return rows


def collect(options):
    """Each library in a process of its own, for each number of threads."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for library in ["nnet", *options.compare]:
            found = {
                n: run_child(library, n, "--arrays", folder) for n in dict.fromkeys(options.threads)
            }
            first, *others = found
            for i, row in enumerate(found[first]):
                arrays = {n: np.load(Path(folder, f"{library} {i} {n}.npy")) for n in found}
                for n in others:
                    column = f"{first} and {n} threads"
                    row[column] = difference(arrays[n], arrays[first])
                rows.append(row)
    rows.sort(key=lambda row: list(cases(options)).index(row["case"]))
    return {"figures": {ACCURACY: rows}}


if __name__ == "__main__":
    parser = make_parser("accuracy", LIBRARIES, dtypes=("float32",))
    parser.add_argument("--arrays", type=Path, help=argparse.SUPPRESS)
    run("accuracy", parse(parser), measure, collect)
