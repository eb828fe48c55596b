"""`nnet predict`: images in, labels and probabilities out."""

import csv
import sys

import numpy as np

from nnet import NeuralNetwork
from nnet.cli.checks import check_distinct
from nnet.cli.errors import CliError, refusals
from nnet.cli.images import as_model_images, warn_of_scale
from nnet.cli.options import add_common, limit_threads, path
from nnet.files import datasets
from nnet.files.tensors import OwnLayerError


def add_predict(commands):
    predict = commands.add_parser(
        "predict",
        help="label images with a trained network",
        description="Write labels and probabilities of the images X of an .npz file as CSV: "
        "one line for each image, with its label and one column for each class.",
        allow_abbrev=False,
    )
    predict.add_argument("model", type=path, help="what nnet train wrote")
    predict.add_argument(
        "data", type=path, metavar="images.npz", help="images X, of the kind trained on"
    )
    predict.add_argument(
        "-o", "--output", type=path, metavar="FILE", help="default: standard output"
    )
    add_common(predict)
    predict.set_defaults(run=run_predict)


def run_predict(args):
    if args.output is not None:
        check_distinct(args.output, args.model, args.data)
    with refusals():
        try:
            network = NeuralNetwork.load(args.model)
        except OwnLayerError as error:
            raise CliError(
                f"{args.model} has layers of your own, expected nnet's alone: such models are for "
                "Python, by NeuralNetwork.load(path, custom_objects=...)"
            ) from error
        (X,) = datasets.load_arrays(args.data, "X")
    if network.classes_ is None:
        raise CliError(f"{args.model} predicts values, expected a model that predicts classes")
    if network.target_shape_:
        raise CliError(f"{args.model} labels pixels, expected a model with one label per image")
    with refusals(f"{args.data}: "), limit_threads(args):
        X = as_model_images(X, network.input_shape_, args.layout)
        probabilities = network.predict_proba(X)
        warn_of_scale(X, network.layers[0])
    labels = network.classes_[np.argmax(probabilities, axis=1)]
    if args.output is None:
        _write_csv(sys.stdout, network.classes_, labels, probabilities)
        return 0
    with open(args.output, "w", encoding="utf-8", newline="") as file:
        _write_csv(file, network.classes_, labels, probabilities)
    return 0


def _write_csv(file, classes, labels, probabilities):
    writer = csv.writer(file, lineterminator="\n")
    try:
        writer.writerow(["label", *map(_text, classes)])
        for label, row in zip(labels, probabilities):
            writer.writerow([_text(label), *map(str, row)])
    except UnicodeEncodeError as error:
        raise CliError(f"cannot write the labels in {error.encoding}: use --output FILE") from error


def _text(label):
    return label.decode(errors="backslashreplace") if isinstance(label, bytes) else str(label)
