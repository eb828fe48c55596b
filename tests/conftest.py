"""Fixtures shared by the tests: every built target in turn, fixed seeds, a fresh interpreter."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import nnet
from nnet import _runtime
from nnet.cli import main
from nnet.dispatch import TARGETS, built_targets, load


@pytest.fixture(scope="session", params=TARGETS)
def kernels(request):
    """The compiled functions of one target."""
    target = request.param
    if target not in built_targets():
        pytest.skip(f"the {target} target is not built")
    if not _runtime.supports(target):
        pytest.skip(f"this CPU lacks what the {target} target needs")
    functions = [each for module in ("_conv", "_pool", "_dense") for each in load(module, target)]
    return SimpleNamespace(target=target, **{each.__name__: each for each in functions})


@pytest.fixture(scope="session", params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    """Both types that the kernels compute in."""
    return np.dtype(request.param)


@pytest.fixture
def rng():
    """Random numbers, the same in every run."""
    return np.random.default_rng(20150423)


@pytest.fixture(scope="session", autouse=True)
def empty_folder(tmp_path_factory):
    """Tests run outside the clone: in it, children would find sources, not what is installed."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("empty"))
    yield
    os.chdir(before)


@pytest.fixture(scope="session")
def run_python(tmp_path_factory):
    """A function that runs code in a fresh interpreter, and returns what came of it.

    Neither the variables that steer nnet nor the current folder reach it; keyword
    arguments become environment variables.
    """
    folder = tmp_path_factory.mktemp("cwd")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("NNET_", "OMP_", "GOMP_"))}
    paths = [str(Path(nnet.__file__).resolve().parents[1]), clean.get("PYTHONPATH")]
    clean["PYTHONPATH"] = os.pathsep.join(filter(None, paths))

    def run(code, *, timeout=120, **variables):
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            env={**clean, **variables},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def run_guarded_apart(request, kernels, run_python):
    """A function that calls `run_guarded` of the test's own file in a process of its own."""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs Linux's mprotect")
    folders = [str(Path(__file__).parent), str(Path(request.module.__file__).parent)]
    module = request.module.__name__
    return lambda: run_python(
        f"import sys; sys.path[:0] = {folders!r}\n"
        f"import {module} as t; t.run_guarded({kernels.target!r})"
    )


# --- the command line -------------------------------------------------------------


@pytest.fixture
def run_nnet(capsys):
    """A function that runs `nnet` in this process, on one thread: exit code, stdout, stderr."""

    def run(*args):
        code = main([str(arg) for arg in args])
        return code, *capsys.readouterr()

    with nnet.num_threads(1):
        yield run


@pytest.fixture
def bright_rows():
    """A function that makes images of three classes, which differ in the row that is bright."""

    def make(n=30, shape=(6, 6), dtype=np.float64):
        y = np.arange(n) % 3
        X = np.random.default_rng(7).uniform(0, 50, (n, *shape))
        for image, label in zip(X, y):
            image[2 * label] += 200
        return X.astype(dtype), y

    return make


@pytest.fixture
def save_npz(tmp_path, bright_rows):
    """A function that writes an .npz file: those images and labels, but for what is given."""

    def save(**arrays):
        arrays = dict(zip("Xy", bright_rows())) | arrays
        np.savez(tmp_path / "data.npz", **{k: v for k, v in arrays.items() if v is not None})
        return tmp_path / "data.npz"

    return save
