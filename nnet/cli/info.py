"""`nnet info`."""

import sys

import nnet
from nnet.cli.errors import CliError


def add_info(commands):
    info = commands.add_parser("info", help="print version, instruction set, threads, compiler")
    info.set_defaults(run=run_info)


def run_info(_args):
    if sys.stdout is None:
        raise CliError("there is no standard output, expected one")
    nnet.show_config()
    return 0
