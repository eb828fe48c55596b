"""Fixtures for files: a name for one, and a network that is saved under it."""

import pytest
from saved_files import fitted


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def saved(path):
    fitted()[0].save(path)
    return path
