"""Checkpoints: all that a training needs to go on, as one safetensors file without code.

The file's metadata has one entry, "nnet_checkpoint": a JSON object with the keys

format        1
sha256        of the description and of all tensors
description   what fit must be called with again, and how far it was

Its tensors are the arrays of the network, the optimizer, the schedule and the callbacks, and
the history.
"""

import json
import os

import numpy as np

from nnet.files.saving import digest, dumps, import_safetensors, open_file, replace

FORMAT = 1
KEY = "nnet_checkpoint"


def save(path, description, arrays):
    """Write a checkpoint: whole, or not at all.

    Parameters
    ----------
    path : str
    description : dict
        What JSON can hold.
    arrays : dict of str to array
    """
    safetensors = import_safetensors()
    tensors = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    content = {
        "format": FORMAT,
        "sha256": digest(description, tensors),
        "description": description,
    }
    replace(os.path.realpath(path), safetensors.numpy.save(tensors, {KEY: dumps(content)}))


def load(path):
    """(description, arrays) of a checkpoint.

    Raises
    ------
    ValueError
        For a file that is truncated, changed, or no checkpoint.
    """
    with open_file(path) as file:
        content = (file.metadata() or {}).get(KEY)
        if content is None:
            raise ValueError(f"{path} is no checkpoint of a training, expected one of Checkpoint")
        content = json.loads(content)
        if content["format"] != FORMAT:
            raise ValueError(
                f"{path} has the format {content['format']!r}, this version reads {FORMAT}"
            )
        arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}
    if digest(content["description"], arrays) != content["sha256"]:
        raise ValueError(f"{path} is damaged or was changed: its checksum is wrong")
    return content["description"], arrays
