"""`nnet info`."""

import nnet


def add_info(commands):
    info = commands.add_parser("info", help="print version, instruction set, threads, compiler")
    info.set_defaults(run=run_info)


def run_info(_args):
    nnet.show_config()
    return 0
