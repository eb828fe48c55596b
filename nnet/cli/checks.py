"""What a command checks before it works: packages and output files."""

import math
import os

from nnet._lazy import import_package
from nnet.cli.errors import CliError, refusals
from nnet.files import replacing
from nnet.files.regular import is_other


def require(package):
    with refusals():
        import_package(package, package, "this")


def memory():
    """Bytes of memory of this machine, where it tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return math.inf


def check_distinct(output, *inputs):
    if output is None or not os.path.exists(output):
        return
    for path in filter(None, inputs):
        if os.path.exists(path) and os.path.samefile(path, output):
            raise CliError(f"cannot write {output}: it is an input")


def check_output(path):
    """Find out before any work whether a text can be written; devices and pipes can."""
    if os.path.isdir(path) or not is_other(path):
        check_writable(path)


def check_writable(path):
    """Find out before any work whether a file can be written, or replaced."""
    try:
        replacing.check_writable(path)
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror}") from error
    except ValueError as error:
        raise CliError(f"cannot write: {error}") from error
