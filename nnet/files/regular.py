"""Regular files: folders are none, nor devices and pipes, which may have no end."""

import os


def is_other(path):
    """Whether it is there, and no regular file."""
    return os.path.exists(path) and not os.path.isfile(path)


def check_regular(path, expected):
    """Refuse what is no regular file; a missing one is an OSError."""
    os.stat(path)
    if is_other(path):
        kind = "a folder" if os.path.isdir(path) else "not a regular file"
        raise ValueError(f"{path} is {kind}, expected {expected}")
