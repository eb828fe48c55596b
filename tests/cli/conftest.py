"""Fixtures of the tests of the command."""

import re

import pytest

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")  # all control characters but \n
SMALL = ["--layers", "conv4-3x3,relu,gap", "--epochs", "2", "-q"]


@pytest.fixture
def refused(run_nnet):
    """A function that checks that the command fails as it should, and returns its one line."""

    def refused(*args):
        code, out, err = run_nnet(*args)
        assert code == 2 and out == ""
        line = err.splitlines()[-1]
        assert line.startswith("nnet: error: ") and err.count("error") == 1, err
        assert not CONTROL.search(err)
        return line.removeprefix("nnet: error: ")

    return refused


@pytest.fixture
def model(run_nnet, save_npz, tmp_path):
    """A model for grey images of 6x6."""
    assert run_nnet("train", save_npz(), "-o", tmp_path / "model", *SMALL)[0] == 0
    return tmp_path / "model"
