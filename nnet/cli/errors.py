"""Errors that the user can mend, what is told on standard error, and the exit codes."""

import re
import signal
import sys
from contextlib import contextmanager, suppress

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


def reason(error):
    """What an error says: of one of the system, with the file that it is about."""
    if not isinstance(error, OSError):
        return str(error)
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror or error}"


def tell(text):
    """A line on standard error, if that can be written to: work goes on without."""
    if sys.stderr is not None:  # else print would take standard output
        with suppress(OSError):
            print(one_line(text), file=sys.stderr, flush=True)


def one_line(text):
    """A text that stays in its line, whatever is in the names of files: no terminal obeys it."""
    text = re.sub(r"\s*[\r\n]\s*", " ", text.strip())
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
