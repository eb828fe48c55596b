"""What commands write: to standard output, or to a file that is replaced in one step."""

import csv
import io
import sys
from unicodedata import combining, east_asian_width

from nnet.cli.errors import CliError, one_line
from nnet.files.regular import is_other
from nnet.files.replacing import replace

WIDTH = 80  # of a terminal


def write_text(path, text):
    """Write a text to a file, or for None to standard output.

    A regular file is whole or left as it was; devices and pipes are written to.
    """
    if path is None:
        if sys.stdout is None:
            raise CliError("there is no standard output, expected --output FILE")
        try:
            sys.stdout.writelines(text.splitlines(keepends=True))  # a closed pipe ends it early
        except UnicodeEncodeError as error:
            raise CliError(
                f"cannot write labels or names of files in {error.encoding}: use --output FILE"
            ) from error
        return
    data = text.encode("utf-8", "surrogateescape")  # as names of files have been read
    try:
        if is_other(path):
            with open(path, "wb", buffering=0) as file:
                file.write(data)
        else:
            replace(path, data)
    except OSError as error:
        error.filename = path  # the writing of a full disk does not name it
        raise


def csv_text(rows):
    """Rows as the text of a CSV file."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def table_text(rows, left=1):
    """Rows as aligned text: so many columns at the left are aligned there, all others right."""
    rows = [[one_line(str(cell)) for cell in row] for row in rows]
    widths = [max(map(_n_columns, column)) for column in zip(*rows)]
    lines = []
    for row in rows:
        spaces = [" " * (width - _n_columns(cell)) for cell, width in zip(row, widths)]
        cells = [
            cell + space if i < left else space + cell
            for i, (cell, space) in enumerate(zip(row, spaces))
        ]
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)


def _n_columns(text):
    """How wide a terminal shows it."""
    return sum((1 + (east_asian_width(char) in "WF")) * (not combining(char)) for char in text)


def label_text(label):
    """A label as people read it."""
    return label.decode(errors="backslashreplace") if isinstance(label, bytes) else str(label)
