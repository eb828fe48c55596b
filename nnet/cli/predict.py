"""`nnet predict`: images in, labels and probabilities out."""

import numpy as np

from nnet import NeuralNetwork
from nnet.cli.checks import check_distinct, check_output
from nnet.cli.data import load_for_model
from nnet.cli.errors import CliError, refusals
from nnet.cli.images import warn_of_scale
from nnet.cli.options import FILES_HELP, add_command, add_common, add_model, limit_threads, path
from nnet.cli.output import csv_text, label_text, write_text
from nnet.files.regular import check_regular
from nnet.files.tensors import OwnLayerError

PREDICT_HELP = """\
examples:
  nnet predict model.safetensors new/*.jpg
  nnet predict model.safetensors data.npz -o labels.csv

IMAGES are either image files and folders of them, for a model that was trained
on a folder: they are prepared as those were; or one file of arrays, whose
labels are left out.

{files}
The CSV has one line for each image: its file or its row in X, counted from 0,
its label, and one column for each class with its probability; of a model that
was trained with --regression, its values.
"""


def add_predict(commands):
    predict = add_command(
        commands,
        "predict",
        run_predict,
        help="label images with a trained network",
        description="Write labels and probabilities of images as CSV.",
        epilog=PREDICT_HELP.format(files=FILES_HELP),
    )
    add_model(predict)
    predict.add_argument("data", nargs="+", type=path, metavar="IMAGES", help="see below")
    add_common(predict)


def run_predict(args):
    if args.output is not None:
        check_distinct(args.output, args.model, *args.data)
        check_output(args.output)
    network = load_model(args.model)
    data = load_for_model(args, network, args.data)
    check_distinct(args.output, *(data.names or ()))
    with limit_threads(args):
        found = predictions(network, data, args.data[0])
    write_text(args.output, csv_text(_rows(network.classes_, data.names, found)))
    return 0


def load_model(model):
    """A network that predicts one label, or a few values, for each image."""
    with refusals():
        check_regular(model, "a model")
        try:
            network = NeuralNetwork.load(model)
        except OwnLayerError as error:
            raise CliError(
                f"{model} has layers of your own, expected nnet's alone: such models are for "
                "Python, by NeuralNetwork.load(path, custom_objects=...)"
            ) from error
    shape = network.target_shape_
    if network.classes_ is not None and shape:
        raise CliError(f"{model} labels pixels, expected a model with one label per image")
    if network.classes_ is None and (len(shape) > 1 or network.layers[-1].has_probabilities):
        raise CliError(f"{model} predicts an array of shape {shape}, expected one label or value")
    return network


def predictions(network, data, path):
    """Of all images the probabilities (n_imgs, n_classes), or the values as y has them."""
    predict = network.predict if network.classes_ is None else network.predict_proba
    prefix = f"{path}: " if data.names is None else ""
    found = []
    with refusals(prefix):
        for X in data.batches():
            found.append(predict(X))
            if data.names is None:
                warn_of_scale(X, network.layers[0])
    return np.concatenate(found)


def _rows(classes, names, found):
    place = "row" if names is None else "file"
    places = range(len(found)) if names is None else names
    if classes is None:
        n_values = found.shape[1] if found.ndim > 1 else 0
        yield [place, *([f"value{i}" for i in range(n_values)] or ["value"])]
        for where, row in zip(places, found):
            yield [where, *map(str, np.ravel(row))]
        return
    yield [place, "label", *map(label_text, classes)]
    labels = classes[np.argmax(found, axis=1)]
    for where, label, row in zip(places, labels, found):
        yield [where, label_text(label), *map(str, row)]
