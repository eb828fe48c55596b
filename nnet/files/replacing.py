"""Files that are replaced in one step: whole, or not at all."""

import errno
import os
import stat
import sys
from contextlib import suppress
from glob import escape, glob

from nnet.files.regular import is_other

if sys.platform != "win32":
    import fcntl

SUFFIX = ".partial"  # of a file that is being written


def check_place(path):
    """Refuse a path whose folder is not there, and to replace a folder or a device."""
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "There is no such folder", folder)
    if is_other(path) or not os.path.basename(path):
        raise ValueError(f"{path} is not a regular file, expected one to replace, or a new name")


def check_writable(path):
    """Find out before any work whether `replace` could write a file: as `check_place`, or OSError.

    What writers that were killed have left of it goes: a large part of a disk, maybe.
    """
    check_place(path)
    given, path = os.fspath(path), os.path.realpath(path)
    remove_left_over(path)
    partial = _partial_of(path)
    try:
        with open(partial, "xb"):
            pass
        with suppress(FileNotFoundError):  # another writer has taken it for left over
            os.remove(partial)
    except OSError as error:
        error.filename = given
        raise


def replace(path, data):
    """Write a file; what writers that were killed have left of it goes. It keeps its mode."""
    check_place(path)
    given, path = os.fspath(path), os.path.realpath(path)
    partial = _partial_of(path)
    try:
        with open(partial, "xb") as file:
            if sys.platform != "win32":  # there nobody can remove an open file
                with suppress(OSError):  # where there are no locks, what is left stays
                    fcntl.flock(file, fcntl.LOCK_EX)  # ends with the process
            if not os.path.exists(partial):  # another writer has come before the lock
                return replace(path, data)
            if os.path.exists(path):
                with suppress(OSError):  # where there are no modes
                    os.chmod(partial, stat.S_IMODE(os.stat(path).st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if sys.platform != "win32":
                os.replace(partial, path)
        if sys.platform == "win32":  # there only a file that is closed
            os.replace(partial, path)
        remove_left_over(path)
    except BaseException as error:
        if os.path.exists(partial):
            os.remove(partial)
        if isinstance(error, OSError) and error.errno and error.filename in (partial, None):
            error.filename = given  # a full disk's error has no name
        raise


def _partial_of(path):
    return f"{path}.{os.urandom(4).hex()}{SUFFIX}"


def remove_left_over(path):
    """Remove what nobody is writing any more."""
    for partial in glob(f"{escape(path)}.{'[0-9a-f]' * 8}{SUFFIX}"):
        with suppress(OSError):  # that of a writer that lives, or one that has just gone
            if sys.platform == "win32":
                os.remove(partial)
            else:
                with open(partial, "r+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.remove(partial)
