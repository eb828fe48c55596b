"""What commands write: to standard output, or to a file that is replaced in one step."""

import csv
import io
import os
import sys

from nnet.cli.errors import CliError
from nnet.files.replacing import replace


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
                f"cannot write the labels in {error.encoding}: use --output FILE"
            ) from error
        return
    data = text.encode("utf-8", "surrogateescape")  # as names of files have been read
    try:
        if os.path.exists(path) and not os.path.isfile(path):
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
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        + "\n"
        for row in rows
    )


def label_text(label):
    """A label as people read it."""
    return label.decode(errors="backslashreplace") if isinstance(label, bytes) else str(label)
