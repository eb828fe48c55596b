"""`nnet train`: images and labels in, a network out."""

import os
import tempfile
import textwrap

import numpy as np

import nnet
from nnet.cli.augmenting import AUGMENT_SYNTAX, parse_augment
from nnet.cli.checks import check_distinct, check_writable, memory, require
from nnet.cli.data import load_training_data
from nnet.cli.errors import CliError, refusals, tell
from nnet.cli.evaluate import value_scores
from nnet.cli.fitting import (
    N_EPOCHS,
    N_STEPS,
    Scale,
    check_optimizer,
    fit,
    layer_decay,
    n_epochs_for,
)
from nnet.cli.options import (
    FILES_HELP,
    add_command,
    add_common,
    add_preparation,
    integer,
    limit_threads,
    number,
    path,
)
from nnet.files import datasets
from nnet.layers.spec import SYNTAX, complete, default_spec, parse_layers
from nnet.training.optimizers import OPTIMIZERS

TRAIN_HELP = """\
examples:
  nnet train photos --size 64            photos/cat/1.jpg, photos/dog/2.jpg, ...
  nnet train data.npz --layers "conv16-3x3,bn,relu,pool2,linear64,relu"
  nnet train train-images-idx3-ubyte.gz --optimizer adam --augment shift2

DATA is a folder with one folder for each class, whose name is the label, and
whose files are images; or one or more

{files}
layers, separated by commas:
{syntax}
Pixel values are standardised before the first layer; behind the last one comes
a linear layer with one output for each class, with softmax, or for --regression
with one for each value of y. The default follows from the size of the images;
for those of 28x28 it is
{large}
and for those of fewer than 16 pixels in height or width
{small}

{augment}

The model of the epoch with the lowest training loss is written, or with
--early-stopping of the lowest loss on images that are held out for that, after
Ctrl-C too. The test images have no influence on it.
"""


def add_train(commands):
    train = add_command(
        commands,
        "train",
        run_train,
        help="train a network, write it to a file",
        description="Train a network on images, and write it to a safetensors file.",
        epilog=TRAIN_HELP.format(
            syntax=SYNTAX,
            files=FILES_HELP,
            augment=AUGMENT_SYNTAX,
            large=_wrapped(default_spec((1, 28, 28))),
            small=_wrapped(default_spec((1, 8, 8))),
        ),
    )
    add = train.add_argument
    add(
        "data",
        nargs="*",
        type=path,
        metavar="DATA",
        help="a folder of images, or files of arrays: see below; without: scikit-learn's digits",
    )
    add(
        "-o",
        "--output",
        type=path,
        default="model.safetensors",
        metavar="FILE",
        help="default: %(default)s",
    )
    add("-q", "--quiet", action="store_true", help="show no progress, only the result")
    add("--regression", action="store_true", help="y are values to predict, not labels")
    add("--layers", metavar="SPEC", help="see below")
    add("--seed", type=integer(0), default=0, metavar="N", help="same seed, same model; default: 0")
    add_preparation(train)
    add_common(train)
    _add_training(train.add_argument_group("training").add_argument)
    _add_held_out(train.add_argument_group("images that are held out").add_argument)


def _wrapped(spec):
    return textwrap.fill(spec.replace(",", ", "), 78, initial_indent="  ", subsequent_indent="  ")


def _add_training(add):
    add(
        "--epochs",
        type=integer(1),
        metavar="N",
        help=f"default: {N_EPOCHS}, or as many as give {N_STEPS} batches",
    )
    add("--batch-size", type=integer(1), default=32, metavar="N", help="default: %(default)s")
    add(
        "--optimizer",
        type=str.lower,
        choices=tuple(OPTIMIZERS),
        default="adam",
        help="default: %(default)s",
    )
    add(
        "--learning-rate",
        type=number(above=0),
        metavar="RATE",
        help="reached after a tenth of the training, from where it falls to 0 along a cosine; "
        "default: 0.002 for adam and adamw, 0.05 for sgd, 0.001 for rmsprop",
    )
    add("--momentum", type=number(below=1), metavar="M", help="of sgd; default: 0.9")
    add("--weight-decay", type=number(), default=0.0001, metavar="D", help="default: %(default)s")
    add("--augment", type=parse_augment, metavar="SPEC", help="see below")
    add(
        "--resume",
        type=path,
        metavar="FILE",
        help="keep the training in this file after each epoch, and go on from there if it exists; "
        "when the training has ended it is removed",
    )


def _add_held_out(add):
    add(
        "--test-fraction",
        type=number(below=1),
        default=0.2,
        metavar="F",
        help="share of each class that is held out to test on, always the same images; "
        "0: train on all; default: %(default)s",
    )
    add(
        "--early-stopping",
        type=integer(1),
        metavar="N",
        help="end the training after N epochs without a lower loss on images that are held out "
        "for this, and keep the best epoch; fewer than 10 may end it before the learning rate, "
        "which rises for a tenth of all epochs, has fallen",
    )
    add(
        "--validation-fraction",
        type=number(above=0, below=1),
        metavar="F",
        help="share of the other images that are held out for --early-stopping; default: 0.1",
    )


def run_train(args):
    _check(args)
    data = load_training_data(args)
    for output in args.output, args.resume:
        check_distinct(output, *(data.names or ()))
    data, test = _hold_out(data, args.test_fraction, "--test-fraction", args.regression)
    data, validation = _hold_out(
        data, args.validation_fraction, "--validation-fraction", args.regression
    )
    with refusals():
        data, test, validation = (
            part and part.ready(args.quiet) for part in (data, test, validation)
        )
    n_outputs = int(np.prod(data.y.shape[1:])) if args.regression else len(np.unique(data.y))
    network, n_params = _build_network(args, data, n_outputs)
    args.epochs = args.epochs or n_epochs_for(len(data), args.batch_size)
    with refusals(), limit_threads(args):
        if not args.quiet:
            what = "classes" if not args.regression else "values" if n_outputs > 1 else "value"
            _introduce(data, validation, test, f"{n_outputs} {what}", n_params)
        scale = Scale(data.y) if args.regression else None
        parts = [part and part.scaled(scale) for part in (data, test, validation)]
        code = fit(network, args, *parts)
        if scale is not None:
            scale.into(network)
        network.preparation = data.preparation
        _save(network, args.output)
        try:
            if test:
                print(_test_result(network, test))
        finally:  # also where the images to test on have gone
            print(f"wrote {args.output}")
    if args.resume is not None and code == 0 and os.path.exists(args.resume):
        os.remove(args.resume)
    return code


def _save(network, path):
    """Write the model; where that fails, keep it elsewhere: a training may have taken hours."""
    try:
        network.save(path)
    except OSError as error:
        reason = f"cannot write {path}: {error.strerror or error}"
        handle, kept = tempfile.mkstemp(".safetensors", "nnet-")
        os.close(handle)
        try:
            network.save(kept)
        except OSError:
            os.remove(kept)
            raise CliError(reason) from error
        raise CliError(f"{reason}; the model is kept in {kept}") from error


def _check(args):
    """Refuse what can be refused before the data are read."""
    for package in ("safetensors", "tqdm"):
        require(package)
    for output in filter(None, (args.output, args.resume)):
        check_writable(output)
        check_distinct(output, *args.data)
    if args.resume is not None and os.path.realpath(args.resume) == os.path.realpath(args.output):
        raise CliError("--resume and --output name one file, expected two")
    if args.validation_fraction is not None and args.early_stopping is None:
        raise CliError("--validation-fraction is for --early-stopping, expected both")
    if args.early_stopping is not None and args.validation_fraction is None:
        args.validation_fraction = 0.1
    check_optimizer(args)


def _hold_out(data, fraction, option, is_regression):
    """(data to train on, data that are held out or None)"""
    if not fraction:
        return data, None
    with refusals(f"{option} {fraction:g}: "):
        labels = None if is_regression else data.y
        train, held = datasets.split(np.arange(len(data)), labels, fraction)[:2]
    return data.part(train), data.part(held)


def _build_network(args, data, n_outputs):
    """The network to train on the data, and its number of parameters."""
    spec, decay = args.layers, layer_decay(args)
    size = "x".join(map(str, data.shape[1:]))
    where = f"images of {size}" if spec is None else "--layers"
    if spec is None:
        spec = default_spec(data.shape)
    with refusals(f"{where}: "):
        named_layers = parse_layers(spec, decay)
        layers, n_params = complete(
            named_layers,
            data.shape,
            n_outputs,
            decay,
            n_imgs=min(args.batch_size, len(data)),
            memory=memory(),
        )
    if args.regression:
        layers[-1] = nnet.MeanSquaredError()
    return nnet.NeuralNetwork([data.standardize(), *layers], rng=args.seed), n_params


def _introduce(data, validation, test, outputs, n_params):
    n_channels, height, width = data.shape
    kind = "grey" if n_channels == 1 else f"{n_channels}-channel"
    n_threads = nnet.get_num_threads()
    validated = f", {len(validation)} to validate" if validation else ""
    tell(
        f"{len(data)} images to train on{validated}, {len(test) if test else 0} to test on: "
        f"{height}x{width} {kind}, {outputs}"
    )
    tell(f"{n_params} parameters, {n_threads} thread{'s' * (n_threads > 1)}")


def _test_result(network, test):
    found = np.concatenate([network.predict(X) for X in test.batches()])
    if network.classes_ is not None:
        n_right, n_test = int(np.sum(found == test.y)), len(test)
        return f"test accuracy {n_right / n_test:.2%} ({n_right} of {n_test} images)"
    scores = value_scores(test.y, found)
    return f"test R^2 {scores.r_squared:.4f}, root mean squared error {scores.rms_error:.4g}"
