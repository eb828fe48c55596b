"""The `nnet` command: train, predict, info.

Whatever the user can get wrong ends in one line on stderr and exit code 2.
"""

import argparse
import csv
import importlib
import math
import os
import signal
import sys
import tempfile
from contextlib import contextmanager, nullcontext

import numpy as np

import nnet
from nnet.files import datasets
from nnet.layers import spec as layer_spec
from nnet.training.data import as_images, as_labels, check_lengths

ERROR = 2
INTERRUPTED = 128 + signal.SIGINT  # what a shell reports for a program that Ctrl-C ended
BROKEN_PIPE = 128 + 13  # the same for SIGPIPE, which Windows does not name

# With the options' defaults, the first gets 99.0 % of the held-out 8x8 digits right, and at least
# 98.6 % (five seeds for each of three splits; the second: 98.4 % and 96.9 %). Of 5,000 MNIST images
# of 28x28, the second gets 97.3 % after 10 epochs, the first 95.3 % in three times the time.
SMALL_IMAGE_LAYERS = "conv16-3x3,relu,conv32-3x3,relu,pool2,conv64-3x3,relu,gap"
LARGE_IMAGE_LAYERS = "conv16-3x3,relu,pool2,conv32-3x3,relu,pool2,linear64,relu"
LARGE = 16  # pixels

TRAIN_HELP = """\
layers, separated by commas:
{syntax}
Pixel values are standardised before the first layer; behind the last one comes
a linear layer with one output for each class, with softmax. The default is
  {large}
or, for images of fewer than {pixels} pixels in height or width,
  {small}

data.npz, written by numpy.savez("data.npz", X=X, y=y):
  X  images, (n, height, width) if grey, else (n, channels, height, width) or
     (n, height, width, channels), of uint8 or any other real numbers
  y  (n,) labels, numbers or strings

The model of the epoch with the lowest training loss is written, after Ctrl-C
too. The test images have no influence on it.
"""


class CliError(Exception):
    """Something that the user can mend."""


@contextmanager
def refusals(prefix=""):
    """Turn what the library refuses into one line for the user."""
    try:
        yield
    except nnet.DivergedError as error:
        what, _, _ = str(error).partition(":")  # its advice is for users of Python
        raise CliError(f"{what}: try a smaller --learning-rate") from error
    except (ValueError, TypeError, ImportError) as error:
        raise CliError(f"{prefix}{error}") from error


def main(argv=None):
    """Run the command, and return the exit code."""
    try:
        args = _parser().parse_args(argv)
        code = args.run(args)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        _discard_stdout()
        return BROKEN_PIPE
    except KeyboardInterrupt as error:
        return _complain(f"interrupted {error}", INTERRUPTED)
    except MemoryError as error:
        return _complain(f"error: out of memory: {error}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        _discard_stdout()
        return _complain(f"error: {where}{error.strerror or error}")
    except CliError as error:
        return _complain(f"error: {error}")


def _complain(message, code=ERROR):
    print("nnet:", " ".join(message.split()), file=sys.stderr)
    return code


def _discard_stdout():
    """Let Python's last flush succeed, if stdout cannot be written to."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):  # no stdout, or not one of the system's
        pass


# --- the command line -------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise CliError(message)


def _parser():
    parser = Parser(
        prog="nnet", description="Train small convolutional networks on images.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"nnet {nnet.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_predict(commands)
    info = commands.add_parser("info", help="print version, instruction set, threads, compiler")
    info.set_defaults(run=info_command)
    return parser


def _add_train(commands):
    train = commands.add_parser(
        "train",
        help="train a network, write it to a file",
        description="Train a network on images, and write it to a safetensors file.",
        epilog=TRAIN_HELP.format(
            syntax=layer_spec.SYNTAX,
            large=LARGE_IMAGE_LAYERS,
            small=SMALL_IMAGE_LAYERS,
            pixels=LARGE,
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = train.add_argument
    add(
        "data",
        nargs="?",
        metavar="data.npz",
        help="images X and labels y; without: scikit-learn's digits",
    )
    add("-o", "--output", default="model.safetensors", metavar="FILE", help="default: %(default)s")
    add("--layers", metavar="SPEC", help="see below")
    add("--epochs", type=_integer(1), default=20, metavar="N", help="default: %(default)s")
    add("--batch-size", type=_integer(1), default=32, metavar="N", help="default: %(default)s")
    add(
        "--learning-rate",
        type=_number(above=0),
        default=0.05,
        metavar="RATE",
        help="at the start, falls in a straight line to 0 at the end; default: %(default)s",
    )
    add("--momentum", type=_number(below=1), default=0.9, metavar="M", help="default: %(default)s")
    add("--weight-decay", type=_number(), default=0.003, metavar="D", help="default: %(default)s")
    add(
        "--seed", type=_integer(0), default=0, metavar="N", help="same seed, same model; default: 0"
    )
    add(
        "--test-fraction",
        type=_number(below=1),
        default=0.2,
        metavar="F",
        help="share of each class that is held out to test on, always the same images; "
        "0: train on all; default: %(default)s",
    )
    _add_common(train)
    add("-q", "--quiet", action="store_true", help="show no progress, only the result")
    train.set_defaults(run=train_command)


def _add_predict(commands):
    predict = commands.add_parser(
        "predict",
        help="label images with a trained network",
        description="Write labels and probabilities of the images X of an .npz file as CSV: "
        "one line for each image, with its label and one column for each class.",
        allow_abbrev=False,
    )
    predict.add_argument("model", help="what nnet train wrote")
    predict.add_argument("data", metavar="images.npz", help="images X, of the kind trained on")
    predict.add_argument("-o", "--output", metavar="FILE", help="default: standard output")
    _add_common(predict)
    predict.set_defaults(run=predict_command)


def _add_common(command):
    command.add_argument(
        "--layout",
        choices=("NCHW", "NHWC", "NHW"),
        help="axes of X: images, channels, height, width; only needed where several would fit",
    )
    command.add_argument("--threads", type=_integer(1), metavar="N", help="default: see nnet info")


def _integer(minimum):
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


def _number(above=None, below=math.inf):
    """A finite float: greater than `above`, or at least 0; less than `below`."""
    expected = "a number of at least 0" if above is None else f"a number greater than {above}"
    if below < math.inf:
        expected += f" and less than {below}"

    def parse(text):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (0 <= value if above is None else above < value) or not value < below:
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return value

    return parse


# --- nnet info --------------------------------------------------------------------


def info_command(args):
    nnet.show_config()
    return 0


# --- nnet train -------------------------------------------------------------------


def train_command(args):
    for package in ("safetensors", "tqdm"):
        _require(package)
    _check_writable(args.output)
    _check_distinct(args.output, args.data)
    X, y = _load_training_data(args)
    n_classes, test = len(np.unique(y)), None
    if args.test_fraction > 0:
        with refusals(f"--test-fraction {args.test_fraction:g}: "):
            X, X_test, y, y_test = datasets.split(X, y, args.test_fraction)
        test = X_test, y_test
    network, n_params = _build_network(args, X, n_classes)

    with refusals(), _threads(args):
        if not args.quiet:
            _introduce(X, test, n_classes, n_params)
        watch = Watch(args.epochs * len(X), args.quiet)
        interrupted = _fit(network, X, y, test, watch, args)
    network.save(args.output)
    if test:
        n_test = len(y_test)
        n_right = n_test - round(watch.best.val_error * n_test)
        print(f"test accuracy {n_right / n_test:.2%} ({n_right} of {n_test} images)")
    print(f"wrote {args.output}")
    return INTERRUPTED if interrupted else 0


def _require(package):
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise CliError(f'this needs the package {package}: pip install "nnet[train]"') from error


def _check_distinct(output, *inputs):
    for path in filter(None, inputs):
        if os.path.exists(path) and os.path.exists(output) and os.path.samefile(path, output):
            raise CliError(f"cannot write {output}: it is an input")


def _check_writable(path):
    """Find out before training whether the model can be written."""
    folder, name = os.path.split(os.path.realpath(path))
    if os.path.exists(path) and not os.path.isfile(path):
        raise CliError(f"cannot write {path}: it is not a regular file")
    try:  # saving writes a file beside it, then renames that
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f"{name}.", suffix=".partial"):
            pass
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror}") from error


def _load_training_data(args):
    """X as BC01 floats, and y."""
    if args.data is None:
        if args.layout is not None:
            raise CliError("--layout is for a data.npz, the digits need none")
        with refusals():
            X, y = datasets.load_digits()
            return as_images(_as_bc01(X, "NHW"), np.float32), y
    with refusals():
        X, y = datasets.load_arrays(args.data, "X", "y")
    with refusals(f"{args.data}: "):
        X, y = as_images(_as_bc01(X, args.layout), np.float32), as_labels(y)
        check_lengths(X, y)
        n_classes = len(np.unique(y))
        if n_classes < 2:
            raise ValueError(f"expected at least 2 different labels in y, got {n_classes}")
    return X, y


def _as_bc01(X, layout=None):
    """X as BC01 floats; without a layout, it is inferred."""
    if X.ndim not in (3, 4):
        raise ValueError(
            f"X has shape {X.shape}, expected (n, height, width), (n, channels, height, width) "
            "or (n, height, width, channels)"
        )
    if layout is None and X.ndim == 3:
        layout = "NHW"  # the first axis counts images, even where it is as short as one of channels
    try:
        return nnet.to_bc01(X, layout)
    except (ValueError, TypeError) as error:
        raise ValueError(f"X: {error}") from error


def _build_network(args, X, n_classes):
    """The network to train on X, and its number of parameters."""
    spec = args.layers
    if spec is None:
        spec = LARGE_IMAGE_LAYERS if min(X.shape[2:]) >= LARGE else SMALL_IMAGE_LAYERS
    with refusals("--layers: "):
        named_layers = layer_spec.parse_layers(spec, args.weight_decay)
        layers, n_params = layer_spec.complete(
            named_layers, X.shape[1:], n_classes, args.weight_decay
        )
    standardize = nnet.Standardize(X.mean(dtype=float), X.std(dtype=float) or 1.0)
    return nnet.NeuralNetwork([standardize, *layers], rng=args.seed), n_params


def _threads(args):
    return nnet.num_threads(args.threads) if args.threads else nullcontext()


def _introduce(X, test, n_classes, n_params):
    _, n_channels, height, width = X.shape
    kind = "grey" if n_channels == 1 else f"{n_channels}-channel"
    n_threads = nnet.get_num_threads()
    print(
        f"{len(X)} images to train on, {len(test[0]) if test else 0} to test on: "
        f"{height}x{width} {kind}, {n_classes} classes\n"
        f"{n_params} parameters, {n_threads} thread{'s' * (n_threads > 1)}",
        file=sys.stderr,
    )


def _fit(network, X, y, test, watch, args):
    """Train, leave the network with its best parameters, and return whether Ctrl-C ended it."""
    interrupted = False
    with watch:
        try:
            network.fit(
                X,
                y,
                learning_rate=lambda epoch: args.learning_rate * (1 - epoch / args.epochs),
                max_iter=args.epochs,
                batch_size=args.batch_size,
                momentum=args.momentum,
                validation_data=test,
                callback=watch,
            )
        except KeyboardInterrupt:
            if watch.best is None:
                raise KeyboardInterrupt("in the first epoch: no model was written") from None
            signal.signal(
                signal.SIGINT, signal.SIG_IGN
            )  # a second Ctrl-C must not stop the writing
            interrupted = True
    if interrupted:
        print(f"nnet: interrupted: keeping epoch {watch.best.epoch}", file=sys.stderr)
    for param, value in zip(network.params(), watch.best_params):
        param[...] = value
    return interrupted


class Watch:
    """The callback of a training: shows its progress and remembers its best epoch."""

    def __init__(self, n_imgs, quiet):
        from tqdm import tqdm

        self.best = self.best_params = None
        self.quiet = quiet
        self.bar = tqdm(
            desc="starting",
            total=n_imgs,
            unit=" images",
            unit_scale=True,
            leave=False,
            dynamic_ncols=True,
            file=sys.stderr,
            disable=True if quiet else None,  # None: unless it is a terminal
            bar_format="{desc}, {rate_noinv_fmt} |{bar}| {remaining} left",
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bar.close()

    def __call__(self, progress):
        line = f"epoch {progress.epoch:{len(str(progress.n_epochs))}}/{progress.n_epochs}: "
        line += f"loss {progress.loss:.4f}, accuracy {progress.accuracy:.2%}"
        n_done = (progress.epoch - 1) * progress.n_imgs + progress.n_seen
        self.bar.set_description_str(line, refresh=False)
        self.bar.update(n_done - self.bar.n)
        if not progress.epoch_done:
            return
        if self.best is None or progress.loss < self.best.loss:
            best_params = [param.copy() for param in progress.network.params()]
            self.best, self.best_params = progress, best_params
        if not self.quiet:
            if progress.val_error is not None:
                line += f", test accuracy {1 - progress.val_error:.2%}"
            line += f", {progress.n_imgs / progress.seconds:.0f} images/s"
            self.bar.write(line, file=sys.stderr)


# --- nnet predict -----------------------------------------------------------------


def predict_command(args):
    if args.output is not None:
        _check_distinct(args.output, args.model, args.data)
    with refusals():
        network = nnet.NeuralNetwork.load(args.model)
        (X,) = datasets.load_arrays(args.data, "X")
    if network.classes_ is None:
        raise CliError(f"{args.model} predicts values, expected a model that predicts classes")
    with refusals(f"{args.data}: "), _threads(args):
        X = _as_model_images(X, network.input_shape_, args.layout)
        probabilities = network.predict_proba(X)
        _warn_of_scale(X, network.layers[0])
    labels = network.classes_[np.argmax(probabilities, axis=1)]
    if args.output is None:
        _write_csv(sys.stdout, network.classes_, labels, probabilities)
        return 0
    with open(args.output, "w", encoding="utf-8", newline="") as file:
        _write_csv(file, network.classes_, labels, probabilities)
    return 0


def _as_model_images(X, shape, layout):
    """X as a network for images of this shape takes it; without a layout, the one that fits."""
    if len(shape) == 3:
        if layout is None and X.ndim == 4:
            a, b, c = X.shape[1:]
            fitting = [
                name for name, axes in (("NCHW", (a, b, c)), ("NHWC", (c, a, b))) if axes == shape
            ]
            layout = fitting[0] if len(fitting) == 1 else None
        X = _as_bc01(X, layout)
    if X.shape[1:] != shape:
        raise ValueError(f"X has images of shape {X.shape[1:]}, expected {shape} as in training")
    return X


def _warn_of_scale(X, layer):
    """Say so if the images are hardly of the kind that the network was trained on."""
    if isinstance(layer, nnet.Standardize) and X.size:
        ratio = X.std(dtype=float) / layer.scale
        if not 0.1 < ratio < 10:
            print(
                f"nnet: warning: the values of X vary {ratio:.2g} times as much as in training: "
                "are they in other units?",
                file=sys.stderr,
            )


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
