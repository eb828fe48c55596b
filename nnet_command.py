"""The `nnet` command's first lines: outside of the package, which says by exceptions what is wrong
while it is imported. Here that is one line too, and so is Ctrl-C.
"""

import sys

ERROR, INTERRUPTED = 2, 130


def main():
    try:
        from nnet.cli import main
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except (ImportError, RuntimeError, ValueError) as error:  # of an environment variable, say
        return _complain(f"error: {error}", ERROR)
    return main()


def _complain(message, code):
    if sys.stderr is not None:  # else print would take standard output
        print("nnet:", " ".join(message.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
