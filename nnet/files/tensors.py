"""Arrays and their description in one safetensors file, which is whole or not there: no code.

The file's metadata has one entry: a JSON object with the keys

format    1
sha256    of the description and of all tensors
...       the description
"""

import hashlib
import json
from operator import index

import numpy as np

from nnet._lazy import import_package
from nnet.files.replacing import replace

FORMAT = 1
KINDS = {  # what a file with a key is, as errors say it
    "nnet": "a saved network, which NeuralNetwork.load(path) reads",
    "nnet_checkpoint": "a Checkpoint, from which fit(..., resume=path) goes on",
}
MAX_MESSAGE = 500  # characters: what is wrong may be as large as the file
MISFITS = KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError


class OwnLayerError(ValueError):
    """A whole file has layers of the user's own, whose classes are missing or others."""


def write(path, key, name, description, arrays):
    """Write a file; an old one is replaced in one step.

    Parameters
    ----------
    path : str
    key : str
        Of the file's metadata.
    name : str
        That the description has in them.
    description : what JSON can hold
    arrays : dict of str to array
    """
    safetensors = import_safetensors()
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    content = {"format": FORMAT, "sha256": digest(description, arrays), name: description}
    replace(path, safetensors.numpy.save(arrays, {key: dumps(content)}))


def read(path, key, otherwise, read_content):
    """What `read_content(content, file)` makes of a file; any error there is a ValueError here.

    Parameters
    ----------
    path, key : str
        As for `write`.
    otherwise : str
        What a safetensors file with none of the `KINDS` of keys is.
    read_content : callable
    """
    safetensors = import_safetensors()
    with open(path, "rb"):
        pass  # a missing or unreadable file is an OSError, as always
    try:
        file = safetensors.safe_open(path, framework="numpy")
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    with file:
        metadata = file.metadata() or {}
        content = metadata.get(key)
        if content is None:
            kinds = [kind for other, kind in KINDS.items() if other in metadata]
            raise ValueError(f"{path} is {[*kinds, otherwise][0]}")
        try:
            content = json.loads(content, parse_constant=_refuse_constant)
            if content["format"] != FORMAT:
                raise ValueError(
                    f"its format is {content['format']!r}, this version reads {FORMAT}"
                )
            return read_content(content, file)
        except OwnLayerError as error:
            raise OwnLayerError(f"{path} {brief(error)}") from error
        except MISFITS as error:
            raise ValueError(f"{path} is damaged or was changed: {brief(error)}") from error


def check(description, arrays, content):
    """Refuse what is not as it was written."""
    if digest(description, arrays) != content["sha256"]:
        raise ValueError("its checksum is wrong")


def digest(description, arrays):
    """A checksum of all that a file holds: it finds accidents, not forgeries."""
    digest = hashlib.sha256(dumps(description).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape} ".encode())
        digest.update(arrays[name])
    return digest.hexdigest()


def dumps(value, default=index):
    return json.dumps(value, sort_keys=True, allow_nan=False, default=default)


def import_safetensors():
    what = "saving and loading networks"
    import_package("safetensors.numpy", "safetensors", what)
    return import_package("safetensors", "safetensors", what)


def brief(error):
    """What an error says, in one line."""
    text = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}..."


def _refuse_constant(name):
    raise ValueError(f"it has the number {name}")
