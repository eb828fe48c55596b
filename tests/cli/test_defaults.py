"""What is trained without an option: what docs/defaults.md says, and that it learns."""

import ast
import re
import shlex
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from nnet import cli
from nnet.cli import fitting
from nnet.cli.data import Arrays
from nnet.layers.spec import default_spec
from nnet.training.run import BATCH_SIZE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "defaults.md"
TEXT = PAGE.read_text() if PAGE.is_file() else ""
page = pytest.mark.skipif(not TEXT, reason="the page is not here")


@page
def test_page_spells_out_the_options_of_the_command():
    (command,) = re.findall(r"```sh\nnnet (.*)\n```", TEXT)
    spelled, plain = (cli._parser().parse_args(shlex.split(each)) for each in (command, "train d"))
    fitting.check_optimizer(plain)
    assert vars(spelled) == {**vars(plain), "data": spelled.data}
    assert spelled.learning_rate == plain.learning_rate is not None
    steps = f"{fitting.N_EPOCHS} epochs, or as many as give {fitting.N_STEPS} batches"
    assert steps in TEXT and fitting.WARM_UP == 0.1 and "a tenth of the training" in TEXT


@page
@pytest.mark.parametrize("name", ["CNNClassifier", "CNNRegressor"])
def test_page_spells_out_the_parameters_of_estimators(name):
    pytest.importorskip("sklearn", "1.6")
    import nnet

    (call,) = re.findall(r"CNNClassifier\((solver=.*?)\)\n", TEXT, re.S)
    keywords = ast.parse(f"dict({call})", mode="eval").body.keywords
    spelled = {each.arg: ast.literal_eval(each.value) for each in keywords}
    given = spelled.pop("learning_rate_init"), spelled.pop("batch_size")
    assert given == (nnet.Adam.DEFAULT_RATE, BATCH_SIZE)
    parameters = getattr(nnet, name)().get_params()
    assert spelled == {each: parameters[each] for each in spelled}
    assert parameters["learning_rate_init"] is None and parameters["batch_size"] == "auto"


@page
def test_page_has_the_layers_by_size():
    rows = re.findall(r"^\| `(\(.*?\))` \| `(.*?)` \|$", TEXT, re.M)
    assert len(rows) == 7
    assert [default_spec(ast.literal_eval(shape)) for shape, _ in rows] == [s for _, s in rows]


@pytest.mark.parametrize("step, seed", [(32, 0), (24, 1)])
def test_patches_of_photographs_are_told_apart(run_nnet, tmp_path, step, seed):
    """Half of them, or a loss of NaN, without the batch normalisation."""
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    pytest.importorskip("PIL")
    photographs = sklearn_datasets.load_sample_images().images
    windows = [
        np.lib.stride_tricks.sliding_window_view(each, (32, 32), (0, 1))[::step, ::step]
        for each in photographs
    ]
    X = np.concatenate([each.reshape(-1, 3, 32, 32) for each in windows])
    path = tmp_path / "patches.npz"
    np.savez(path, X=X, y=np.arange(len(X)) * 2 // len(X))
    code, out, err = run_nnet("train", path, "-q", "-o", tmp_path / "m", "--seed", seed)
    assert code == 0, err
    assert float(re.match(r"test accuracy ([\d.]+)%", out)[1]) > 99


def test_signals_are_images_of_one_row(run_nnet, tmp_path, rng):
    """Saws that rise or fall, of any phase and period: without convolutions, 58 % were right."""
    y = np.arange(200) % 2
    saws = (np.arange(64) / rng.uniform(8, 16, (200, 1)) + rng.random((200, 1))) % 1 - 0.5
    X = (1 - 2 * y[:, None]) * saws + rng.normal(0, 0.1, saws.shape)
    path = tmp_path / "saws.npz"
    np.savez(path, X=X.astype(np.float32)[:, None, None], y=y)
    options = ["--epochs", "10", "--layout", "NCHW", "-q", "-o", tmp_path / "m"]
    code, out, err = run_nnet("train", path, *options)
    assert code == 0, err
    assert float(re.match(r"test accuracy ([\d.]+)%", out)[1]) > 95


def test_scale_of_the_pixels_takes_no_copy_of_them(rng):
    X = rng.normal(3, 2, (4000, 1, 16, 16)).astype(np.float32)
    tracemalloc.start()
    found = Arrays(X).standardize()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < X.nbytes / 2
    assert found.mean == X.mean(dtype=float)
    assert found.scale == pytest.approx(X.std(dtype=float), rel=1e-12)
    assert Arrays(np.ones((4, 1, 2, 2))).standardize().scale == 1
