"""Errors that the user can mend, and the exit codes of the command."""

import signal
from contextlib import contextmanager

from nnet import DivergedError

ERROR = 2
INTERRUPTED = 128 + signal.SIGINT  # what a shell reports for a program that Ctrl-C ended
BROKEN_PIPE = 128 + 13  # the same for SIGPIPE, which Windows does not name


class CliError(Exception):
    """Something that the user can mend."""


@contextmanager
def refusals(prefix=""):
    """Turn what the library refuses into one line for the user."""
    try:
        yield
    except DivergedError as error:
        what, _, _ = str(error).partition(":")  # its advice is for users of Python
        raise CliError(f"{what}: try a smaller --learning-rate") from error
    except (ValueError, TypeError, ImportError) as error:
        raise CliError(f"{prefix}{error}") from error
