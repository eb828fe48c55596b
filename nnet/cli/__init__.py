"""The `nnet` command: train, predict, evaluate, explain, info.

train.py, predict.py, evaluate.py, explain.py, info.py   one command each
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
import warnings
from contextlib import suppress

from nnet import __version__
from nnet.cli.errors import BROKEN_PIPE, ERROR, INTERRUPTED, CliError, reason, tell
from nnet.cli.evaluate import add_evaluate
from nnet.cli.explain import add_explain
from nnet.cli.info import add_info
from nnet.cli.options import Parser
from nnet.cli.predict import add_predict
from nnet.cli.spellings import usual
from nnet.cli.train import add_train


def main(argv=None):
    """Run the command, and return the exit code."""
    try:
        args = _parser().parse_args(map(usual, sys.argv[1:] if argv is None else argv))
        with warnings.catch_warnings():
            warnings.showwarning = _tell_of
            warnings.filterwarnings("ignore", module="PIL")  # of files that it reads all the same
            code = args.run(args)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        _flush_or_discard()
        return BROKEN_PIPE
    except KeyboardInterrupt as error:
        tell(f"nnet: interrupted {error}")
        return INTERRUPTED
    except MemoryError as error:
        tell(f"nnet: error: out of memory: {error}")
    except (CliError, OSError) as error:
        tell(f"nnet: error: {reason(error)}")
    _flush_or_discard()
    return ERROR


def _parser():
    parser = Parser(
        prog="nnet", description="Train small convolutional networks on images.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"nnet {__version__}")
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", dest="command"
    )
    for add_command in add_train, add_predict, add_evaluate, add_explain, add_info:
        add_command(commands)
    parser.commands = commands.choices
    return parser


def _tell_of(message, *_):
    tell(f"nnet: warning: {message}")


def _flush_or_discard():
    """Let Python's last flush succeed, also if stdout cannot be written to."""
    with suppress(AttributeError, ValueError):  # there is none, or not one of the system's
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
