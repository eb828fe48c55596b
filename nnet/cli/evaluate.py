"""`nnet evaluate`: how right a network is on images whose labels are known."""

import json
from collections import namedtuple
from typing import NamedTuple

import numpy as np

from nnet.cli.checks import check_distinct, check_output
from nnet.cli.data import load_for_model
from nnet.cli.errors import refusals
from nnet.cli.options import (
    FILES_HELP,
    add_command,
    add_common,
    add_model,
    integer,
    limit_threads,
    path,
)
from nnet.cli.output import WIDTH, csv_text, label_text, table_text, write_text
from nnet.cli.predict import load_model, predictions
from nnet.training.data import Values, as_labels, as_values, encode
from nnet.training.metrics import RSquared

MANY = 20  # pairs of classes that are confused
FORMATS = "table", "csv", "json"
Mistake = namedtuple("Mistake", "place label predicted probability")

EVALUATE_HELP = """\
DATA is a folder with one folder for each class, for a model that was trained
on such a folder; or a file of arrays.

{files}
The worst mistakes are those that the network is surest of. The CSV is one table
of all: accuracy, then for each pair of classes how many images of the first
were taken for the second, then the mistakes.
"""


def add_evaluate(commands):
    evaluate = add_command(
        commands,
        "evaluate",
        run_evaluate,
        help="compare what a trained network says with labels",
        description="Show accuracy, confusion matrix and worst mistakes of a trained network.",
        epilog=EVALUATE_HELP.format(files=FILES_HELP),
    )
    add_model(evaluate)
    add = evaluate.add_argument
    add("data", type=path, metavar="DATA", help="see below")
    add(
        "--format",
        type=str.lower,
        choices=FORMATS,
        default="table",
        help="default: %(default)s",
    )
    add(
        "--worst",
        type=integer(0),
        default=10,
        metavar="N",
        help="how many mistakes to show; default: %(default)s",
    )
    add_common(evaluate)


def run_evaluate(args):
    if args.output is not None:
        check_distinct(args.output, args.model, args.data)
        check_output(args.output)
    network = load_model(args.model)
    data = load_for_model(args, network, [args.data], with_labels=True)
    check_distinct(args.output, *(data.names or ()))
    with refusals(f"{args.data}: "):
        if len(data) == 0:
            raise ValueError("there are no images, expected some")
        is_classifier = network.classes_ is not None
        if is_classifier:
            target = encode(as_labels(data.y), network.classes_, "y")
        elif data.names is None:
            target = as_values(data.y, None, network.target_shape_)[:]
        else:
            raise ValueError("a folder has labels, expected values of y")
    with limit_threads(args):
        predicted = predictions(network, data, args.data)
    if is_classifier:
        found = Found(network.classes_, target, predicted, data.names, args.worst)
    else:
        found = value_scores(target, predicted, args.worst)
    write_text(args.output, found.shown(args.format))
    return 0


class Scores(NamedTuple):
    """How well values are predicted.

    Attributes
    ----------
    mistakes : list of dict
        The images with the largest errors.
    """

    n_images: int
    r_squared: float
    rms_error: float
    mean_error: float
    mistakes: list

    def shown(self, form):
        if form == "json":
            return json.dumps(self._asdict(), indent=2) + "\n"
        names = ["row", "value", "predicted"]
        rows = [[each[name] for name in names] for each in self.mistakes]
        if form == "csv":
            numbers = [[name, "", getattr(self, name), ""] for name in self._fields[1:4]]
            return csv_text([["what", *names], *numbers, *(["mistake", *row] for row in rows)])
        rows = [[row, *map(_shown_values, values)] for row, *values in rows]
        text = f"R^2 {self.r_squared:.4f}, {self.n_images} images\n"
        text += f"root mean squared error {self.rms_error:.4g}, mean error {self.mean_error:.4g}\n"
        return text + ("\nthe worst mistakes\n" + table_text([names, *rows]) if rows else "")


def _shown_values(values):
    return " ".join(f"{value:.5g}" for value in np.ravel(values))


def value_scores(y, predicted, n_worst=0):
    """The Scores of predicted values (n_imgs,) or (n_imgs, n_values)."""
    r_squared = RSquared(Values(y))
    r_squared.add(y, predicted)
    errors = np.abs(np.subtract(predicted, y, dtype=float)).reshape(len(y), -1)
    worst = np.argsort(-errors.max(axis=1), kind="stable")[:n_worst].tolist()
    return Scores(
        len(y),
        r_squared.value(),
        float(np.sqrt(np.mean(errors**2))),
        float(errors.mean()),
        [{"row": i, "value": y[i].tolist(), "predicted": predicted[i].tolist()} for i in worst],
    )


class Found:
    """What an evaluation of a classifier found.

    Attributes
    ----------
    confusion : int array (n_classes, n_classes)
        How many images of a class, the row, were taken for a class, the column.
    mistakes : list of Mistake
        The surest first.
    place : str
        What the place of a mistake is: 'file' or 'row'.
    """

    def __init__(self, classes, target, probabilities, names, n_worst):
        decided = np.argmax(probabilities, axis=1)
        n_classes = len(classes)
        pairs = np.bincount(target * n_classes + decided, minlength=n_classes**2)
        self.confusion = pairs.reshape(n_classes, n_classes)
        self.n_imgs, self.n_right = len(target), int(np.trace(self.confusion))
        self.accuracy = self.n_right / self.n_imgs
        self.labels = [label_text(label) for label in classes]
        self.place = "row" if names is None else "file"
        sure = probabilities[np.arange(len(target)), decided]
        wrong = np.flatnonzero(decided != target)
        worst = wrong[np.argsort(-sure[wrong], kind="stable")][:n_worst]
        self.mistakes = [
            Mistake(
                int(i) if names is None else names[i],
                self.labels[target[i]],
                self.labels[decided[i]],
                float(sure[i]),
            )
            for i in worst
        ]

    def shown(self, form):
        return {"table": as_table, "csv": as_csv, "json": as_json}[form](self)


def as_table(found):
    """What people read."""
    text = f"accuracy {found.accuracy:.2%} ({found.n_right} of {found.n_imgs} images)\n\n"
    text += _confusion_table(found)
    if found.mistakes:
        rows = [[*each[:3], f"{each.probability:.2%}"] for each in found.mistakes]
        text += "\nthe worst mistakes\n"
        text += table_text([[found.place, "label", "predicted", "probability"], *rows], left=3)
    return text


def _confusion_table(found):
    labels, totals = found.labels, found.confusion.sum(axis=1)
    n_right = np.diag(found.confusion)
    shares = [f"{n / total:.2%}" if total else "-" for n, total in zip(n_right, totals)]
    counts = zip(labels, found.confusion, shares)
    rows = [[label, *of_label, share] for label, of_label, share in counts]
    table = table_text([["label", *labels, "accuracy"], *rows])
    if table.index("\n") <= WIDTH:
        return "images of each label (rows) by what is predicted (columns)\n" + table
    rows = [list(row) for row in zip(labels, totals, shares)]
    table = table_text([["label", "images", "accuracy"], *rows])
    return "images of each label\n" + table + _most_confused(found)


def _most_confused(found):
    counts = found.confusion - np.diag(np.diag(found.confusion))
    places = np.argsort(-counts, axis=None, kind="stable")[: min(MANY, np.count_nonzero(counts))]
    rows = [
        [found.labels[i], found.labels[j], counts[i, j]]
        for i, j in zip(*np.unravel_index(places, counts.shape))
    ]
    heading = "\nlabels that were taken for others most often\n"
    table = table_text([["label", "predicted", "images"], *rows], left=2)
    return heading + table if rows else ""


def as_csv(found):
    """One table of all."""
    rows = [["what", "label", "predicted", "value", found.place]]
    rows.append(["accuracy", "", "", found.accuracy, ""])
    for label, counts in zip(found.labels, found.confusion.tolist()):
        rows += [
            ["confusion", label, other, count, ""] for other, count in zip(found.labels, counts)
        ]
    rows += [["mistake", *each[1:], each.place] for each in found.mistakes]
    return csv_text(rows)


def as_json(found):
    content = {
        "accuracy": found.accuracy,
        "n_images": found.n_imgs,
        "n_right": found.n_right,
        "classes": found.labels,
        "confusion": found.confusion.tolist(),
        "mistakes": [
            {found.place: each.place, **{name: getattr(each, name) for name in Mistake._fields[1:]}}
            for each in found.mistakes
        ],
    }
    return json.dumps(content, indent=2) + "\n"
