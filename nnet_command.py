"""The `nnet` command's first lines: outside of the package, which says by exceptions what is wrong
while it is imported. Here that is one line too, and so is Ctrl-C.
"""

import os
import signal
import sys

ERROR, INTERRUPTED = 2, 130
REFUSALS = ImportError, RuntimeError, ValueError  # of an environment variable, say


def main():
    begin()
    from nnet.cli import main

    end()
    try:
        return main()
    finally:
        give_up_stderr()


def begin():
    """Until `end`, what modules raise while they are imported is one line, and so is Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
    sys.excepthook = _refused


def end():
    if signal.getsignal(signal.SIGINT) is _interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.excepthook = sys.__excepthook__


def give_up_stderr():
    """Forget what standard error has not taken: Python would end with code 120 for it."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        sys.stderr = None


def _interrupted(*_):
    # Not by an exception: modules of others would make another of it. Nothing is to be undone yet.
    os._exit(_complain("interrupted", INTERRUPTED))


def _refused(kind, error, traceback):
    if not issubclass(kind, REFUSALS):
        return sys.__excepthook__(kind, error, traceback)
    sys.exit(_complain(f"error: {error}", ERROR))


def _complain(message, code):
    if sys.stderr is not None:  # else print would take standard output
        print("nnet:", " ".join(message.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
