"""The `nnet` command: train, predict, evaluate, info.

train.py, predict.py, evaluate.py, info.py   one command each: its options, then what it does
watch.py                        progress of a training, and its best epoch
data.py                         the images and labels that commands read
arrays.py                       files of arrays: .npz, .npy, IDX, CIFAR, CSV
images.py                       arrays of images as BC01
output.py                       texts and tables to standard output, or to a file
checks.py                       packages and output files, checked before any work
options.py                      the parser, and the options that commands share
spellings.py                    what options are called elsewhere
fitting.py                      the training of `nnet train`
augmenting.py                   --augment
errors.py                       errors that the user can mend, exit codes

Whatever the user can get wrong ends in one line on stderr and exit code 2.
"""

import os
import sys
from contextlib import suppress

from nnet import __version__
from nnet.cli.errors import BROKEN_PIPE, ERROR, INTERRUPTED, CliError
from nnet.cli.evaluate import add_evaluate
from nnet.cli.info import add_info
from nnet.cli.options import Parser
from nnet.cli.predict import add_predict
from nnet.cli.spellings import usual
from nnet.cli.train import add_train


def main(argv=None):
    """Run the command, and return the exit code."""
    try:
        args = _parser().parse_args(map(usual, sys.argv[1:] if argv is None else argv))
        code = args.run(args)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        _discard_stdout()
        return BROKEN_PIPE
    except KeyboardInterrupt as error:
        return _complain(f"interrupted {error}", INTERRUPTED)
    except MemoryError as error:
        return _complain(f"error: out of memory: {error}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        _discard_stdout()
        return _complain(f"error: {where}{error.strerror or error}")
    except CliError as error:
        return _complain(f"error: {error}")


def _parser():
    parser = Parser(
        prog="nnet", description="Train small convolutional networks on images.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"nnet {__version__}")
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", dest="command"
    )
    for add_command in add_train, add_predict, add_evaluate, add_info:
        add_command(commands)
    parser.commands = commands.choices
    return parser


def _complain(message, code=ERROR):
    if sys.stderr is not None:  # else print would take standard output
        print("nnet:", " ".join(message.split()), file=sys.stderr)
    return code


def _discard_stdout():
    """Let Python's last flush succeed, if stdout cannot be written to."""
    # Nothing to do where there is no stdout, or not one of the system's.
    with suppress(AttributeError, OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
