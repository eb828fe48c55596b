"""Checkpoints: all that a training needs to go on, as one safetensors file without code."""

import numpy as np

from nnet.files import tensors
from nnet.layers.arguments import as_path

KEY, NAME = "nnet_checkpoint", "training"


def save(path, description, arrays):
    """Write a checkpoint: whole, or not at all.

    Parameters
    ----------
    path : str
    description : dict
        What JSON can hold: how far the training is, and what fit must be called with again.
    arrays : dict of str to array
    """
    tensors.write(path, KEY, NAME, description, arrays)


def load(path):
    """(description, arrays) of a checkpoint.

    Raises
    ------
    ValueError
        For a file that is truncated, changed, or no checkpoint.
    """
    return tensors.read(as_path(path, "resume"), KEY, "no checkpoint of a training", _read)


def _read(content, file):
    description = content[NAME]
    arrays = {name: np.array(file.get_tensor(name)) for name in list(file.keys())}
    tensors.check(description, arrays, content)
    return description, arrays
