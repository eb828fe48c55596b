"""The parser, and the options and values that several commands have."""

import argparse
import math
from collections.abc import Mapping
from contextlib import nullcontext

from nnet import num_threads
from nnet.cli.errors import CliError
from nnet.cli.spellings import near
from nnet.files.image_files import as_mode, as_size
from nnet.layers.arguments import as_path


class Parser(argparse.ArgumentParser):
    commands: Mapping[str, argparse.ArgumentParser] = {}  # those of the whole parser

    def error(self, message):
        raise CliError(message)

    def parse_args(self, args):  # type: ignore[override]
        """The arguments; of those that are unknown, it says which might be meant."""
        found, unknown = self.parse_known_args(list(args))
        if unknown:
            hint = near(unknown, self.commands[found.command]._option_string_actions)
            raise CliError(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return found


FILES_HELP = """\
files of arrays:
  .npz         images X and labels y, or as --x KEY and --y KEY name them:
               X  (n, height, width) if grey, else (n, channels, height, width)
                  or (n, height, width, channels), of uint8 or other numbers
               y  (n,) labels, numbers or strings
  .npy         images; --y FILE: an .npy with their labels
  IDX or .gz   MNIST's images; the labels are found by the name, or --y FILE
  .bin         CIFAR's binary files; --y coarse: those labels of CIFAR-100
  .csv .tsv    a column for each pixel of square images, and one of labels:
               named label, class, target or y, or --y NAME, or --y NUMBER
               counted from 0; --x PREFIX: pixels are the columns that begin so
"""


def add_command(commands, name, run, **texts):
    """The parser of one command."""
    command = commands.add_parser(
        name,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **texts,
    )
    command.set_defaults(run=run)
    return command


def add_model(command):
    """What commands have that use a model."""
    command.add_argument("model", type=path, help="what nnet train wrote")
    command.add_argument(
        "-o", "--output", type=path, metavar="FILE", help="default: standard output"
    )


def add_common(command):
    add = command.add_argument_group("files of arrays").add_argument
    add("--x", metavar="KEY", help="name of the images in an .npz (default: X), or see below")
    add("--y", metavar="KEY", help="name of the labels (default: y), or see below")
    add(
        "--layout",
        choices=("NCHW", "NHWC", "NHW"),
        help="axes of X: images, channels, height, width; only needed where several would fit",
    )
    command.add_argument("--threads", type=integer(1), metavar="N", help="default: see nnet info")


def add_preparation(command):
    add = command.add_argument_group("images of a folder").add_argument
    add(
        "--size",
        type=size,
        metavar="PIXELS",
        help="of all images: 64, or HEIGHTxWIDTH; needed where they differ",
    )
    add(
        "--mode",
        type=mode,
        choices=("L", "RGB"),
        help="grey or colours; default: L if all images are grey",
    )
    add("--crop", action="store_true", help="cut images to the size, in place of stretching them")


def limit_threads(args):
    """A context in which kernels use as many threads as --threads says."""
    return num_threads(args.threads) if args.threads else nullcontext()


def path(text):
    try:
        return as_path(text, "path")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def size(text):
    """(height, width) from 64 or 48x64."""
    try:
        return as_size([int(each) for each in text.split("x")] if "x" in text else int(text))
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError(
            f"expected pixels as in 64, or HEIGHTxWIDTH as in 48x64, got {text!r}"
        ) from None


def mode(text):
    try:
        return as_mode(text.lower() if text != "L" else text)
    except ValueError:
        return text  # no choice


def integer(minimum):
    def parse(text):
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < minimum:
            raise argparse.ArgumentTypeError(
                f"expected a whole number of at least {minimum}, got {text!r}"
            )
        return value

    return parse


def number(above=None, below=math.inf):
    """A finite float: greater than `above`, or at least 0; less than `below`."""
    expected = "a number of at least 0" if above is None else f"a number greater than {above}"
    if below < math.inf:
        expected += f" and less than {below}"

    def parse(text):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        large_enough = value >= 0 if above is None else value > above
        if not (large_enough and value < below):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return value

    return parse
