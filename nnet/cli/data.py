"""The images, and their labels, that commands read: arrays of a file, or files of images."""

import os
from math import prod

import numpy as np

import nnet
from nnet._lazy import IMPORTS
from nnet.cli import arrays
from nnet.cli.errors import CliError, refusals, tell
from nnet.cli.images import as_bc01, as_model_images
from nnet.files import datasets
from nnet.files.folders import ONCE, ImageFolder, image_folder
from nnet.files.image_files import list_images
from nnet.training.data import as_images, as_labels, as_values, check_lengths

IN_MEMORY = 2**30  # bytes of floats: what takes more is read anew in each epoch
BATCH = 256  # images that are read at once


class Arrays:
    """Images and targets in memory.

    Parameters
    ----------
    X, y : arrays
        y may be None.
    names : None or list of str
        The files that the images are of; None: they are rows of an array.
    preparation : None or Preparation
        How these files became X.
    """

    def __init__(self, X, y=None, names=None, preparation=None):
        self.X, self.y, self.names, self.preparation = X, y, names, preparation

    def __len__(self):
        return len(self.X)

    @property
    def shape(self):
        return self.X.shape[1:]

    def part(self, rows):
        names = self.names and [self.names[row] for row in rows]
        return Arrays(self.X[rows], self.y[rows], names, self.preparation)

    def ready(self, quiet):
        return self

    def scaled(self, scale):
        """The same with other y, for None these."""
        if scale is None:
            return self
        return Arrays(self.X, scale.scaled(self.y), self.names, self.preparation)

    def given(self, batch_size):
        """The arguments of fit that give it these."""
        return {"X": self.X, "y": self.y, "batch_size": batch_size}

    def to_validate(self):
        return self.X, self.y

    def standardize(self):
        mean = self.X.mean(dtype=float)
        # X.std(dtype=float) would take twice the memory of X.
        squares = [np.square(image - mean).mean() for image in self.X]
        return nnet.Standardize(mean, float(np.sqrt(np.mean(squares))) or 1.0)

    def batches(self):
        yield self.X


class Files:
    """Image files that are read when they are needed.

    Parameters
    ----------
    names : list of str
    preparation : Preparation
    y : None or array of str
        The classes.
    seed : int
        Of the order to train in, which is the same in each epoch, as checkpoints need it.
    """

    def __init__(self, names, preparation, y=None, seed=0):
        self.names, self.preparation, self.y, self.seed = names, preparation, y, seed

    def __len__(self):
        return len(self.names)

    @property
    def shape(self):
        return self.preparation.shape

    def part(self, rows):
        return Files([self.names[row] for row in rows], self.preparation, self.y[rows], self.seed)

    def scaled(self, scale):
        return self

    def given(self, batch_size):
        return {"X": self._folder(batch_size, ONCE)}

    def to_validate(self):
        return self._folder(BATCH, False)

    def standardize(self):
        return nnet.Standardize()  # fit finds the numbers

    def batches(self):
        for rows in self._rows():
            yield self.preparation.read(self.names[rows])

    def _rows(self):
        return [slice(start, start + BATCH) for start in range(0, max(len(self), 1), BATCH)]

    def ready(self, quiet):
        """The same in memory, if that is not too much; a terminal sees how far the reading is."""
        n_bytes = 4 * len(self) * prod(self.shape)
        if n_bytes > IN_MEMORY:
            if not quiet:
                size = f"{n_bytes / 2**30:.1f} GiB"
                tell(f"{len(self)} images take {size}: all are checked now, and read in each epoch")
            return self
        with IMPORTS:
            from tqdm.auto import tqdm

        X = np.empty((len(self), *self.shape), np.float32)
        hidden = quiet or None  # None: unless it is a terminal
        with tqdm(total=len(X), desc="reading images", leave=False, disable=hidden) as bar:
            for rows, read in zip(self._rows(), self.batches()):
                X[rows] = read
                bar.update(len(read))
        return Arrays(X, self.y, self.names, self.preparation)

    def _folder(self, batch_size, shuffle):
        return ImageFolder(self.names, self.y, self.preparation, batch_size, shuffle, self.seed)


def load_training_data(args):
    """Arrays or Files with labels of at least two classes."""
    for path in args.data:
        if os.path.isdir(path):
            if len(args.data) > 1:
                raise CliError(f"{path} is given beside others, expected one folder alone")
            if args.regression:
                raise CliError("--regression needs values y, which a folder of images has not")
            return _labelled_folder(args, path)
    for name in ("size", "mode", "crop"):
        if getattr(args, name):
            raise CliError(f"--{name} is for a folder of images, expected one")
    if not args.data:
        _refuse_names(args)
        with refusals():
            X, y = datasets.load_digits()
            y = y.astype(float) if args.regression else y
            return Arrays(as_images(as_bc01(X, "NHW"), np.float32), y)
    return _labelled_arrays(args)


def _labelled_folder(args, path):
    _refuse_names(args)
    with refusals():
        folder = image_folder(path, args.size, args.mode, crop=args.crop)
        if len(folder.classes) < 2:
            raise ValueError(
                f"{path} has one folder, {folder.classes[0]}, expected one for each class"
            )
    return Files(folder.paths, folder.preparation, folder.labels, args.seed)


def _refuse_names(args):
    for name in ("layout", "x", "y"):
        if getattr(args, name) is not None:
            raise CliError(f"--{name} is for a data.npz or the like, expected none here")


def _labelled_arrays(args):
    parts = []
    for path in args.data:
        with refusals():
            X, y = arrays.read(path, args.x, args.y, layout=args.layout)
        with refusals(f"{path}: "):
            X = as_images(as_bc01(X, args.layout), np.float32)
            if not args.regression and y.dtype.kind == "f" and np.any(y % 1 > 0):
                raise ValueError("y has fractional values, expected labels, or --regression")
            y = as_values(y, None)[:] if args.regression else as_labels(y)
            if y.ndim > 2:
                raise ValueError(f"y has shape {y.shape}, expected one value, or a row of them")
            check_lengths(X, y)
        parts.append((X, y))
    with refusals():
        X, y = (arrays.joined(each, args.data) for each in zip(*parts))
    n_different = len(np.unique(y))
    if n_different < 2:
        path, what = " ".join(args.data), "values" if args.regression else "labels"
        raise CliError(f"{path}: expected at least 2 different {what} in y, got {n_different}")
    return Arrays(X, y)


def load_for_model(args, network, paths, with_labels=False):
    """The data that a network predicts from: prepared as those that it was trained on.

    Parameters
    ----------
    args : with layout
    network : NeuralNetwork
    paths : list of str
        A data file; or image files, and folders of them.
    with_labels : bool
        Whether y is wanted too: of a folder, the names of the folders in it.
    """
    with refusals():
        is_array = not os.path.isdir(paths[0]) and arrays.kind_of(paths[0]) is not None
    if is_array:
        if len(paths) > 1:
            raise CliError(f"{paths[0]} is given beside others, expected one file of arrays alone")
        return _model_arrays(args, network, paths[0], with_labels)
    _refuse_names(args)
    preparation = network.preparation
    if preparation is None:
        for path in paths:
            os.stat(path)  # what is missing is told first
        raise CliError(
            f"{args.model} was trained on arrays, expected a file such as images.npz: how "
            "image files become such arrays is not known"
        )
    with refusals():
        if with_labels:
            # The size and mode that are known: no file is looked at for them.
            folder = image_folder(paths[0], preparation.size, preparation.mode)
            return Files(folder.paths, preparation, folder.labels)
        names = [name for path in paths for name in list_images(path)]
    return Files(names, preparation)


def _model_arrays(args, network, path, with_labels):
    with refusals():
        X, y = arrays.read(path, args.x, args.y, with_labels, args.layout)
    with refusals(f"{path}: "):
        X = as_model_images(X, network.input_shape_, args.layout)
        if with_labels:
            check_lengths(X, y)
    return Arrays(X, y)
