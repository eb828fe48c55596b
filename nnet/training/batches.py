"""Where the batches of a training come from: arrays, or an iterable of batches."""

import hashlib
from collections.abc import Iterable, Iterator
from math import prod

import numpy as np

from nnet.training.data import (
    Images,
    as_labels,
    as_values,
    check_kind,
    check_lengths,
    encode,
    pandas_kind,
)
from nnet.training.weights import as_class_weights, as_weights

LOOKED_AT = 64  # images, to find out what they are like
SAMPLED = 64  # images that stand for all where data are compared
PAIRS = "expected pairs (X, y), or triples with the weights of the images"


class Encoding:
    """How X and y become what layers take.

    Parameters
    ----------
    loss : LossMixin
    dtype, image_shape, target_shape : optional
        Those of the network, if it has some already; else the first X and y tell.
    classes : None or array
        Likewise.

    Attributes
    ----------
    dtype, image_shape, target_shape, classes
    labels : None or array
        The last ones of y, or of a batch.
    """

    labels = None

    def __init__(self, loss, dtype=None, image_shape=None, target_shape=None, classes=None):
        self.is_classifier, self._target_range = loss.is_classifier, loss.target_range
        self.dtype, self.image_shape, self.target_shape = dtype, image_shape, target_shape
        self.classes = classes

    @classmethod
    def of(cls, model):
        """That of a network that is set up."""
        return cls(model.loss, model.dtype, model.input_shape, model.target_shape, model.classes)

    def images(self, X, name="X"):
        """X as Images, unchecked."""
        images = Images(X, self.dtype, self.image_shape, name)
        self.dtype, self.image_shape = images.dtype, images.item_shape
        return images

    def labels_or_values(self, y, name="y"):
        """y as an array of labels, or as Values that are finite."""
        if self.is_classifier:
            labels = as_labels(y, name, self.target_shape)
            self.labels, self.target_shape = labels, labels.shape[1:]
            return labels
        values = as_values(y, self.dtype, self.target_shape, name, self._target_range)
        self.target_shape = values.item_shape
        return values

    def find_classes(self, labels, name="y"):
        """Take the labels that occur as the classes, unless they are known."""
        if self.classes is None:
            classes = np.unique(labels)
            if len(classes) < 2:
                raise ValueError(f"{name} has only one class, {classes[0]}, expected at least 2")
            self.classes = classes

    def take_classes(self, classes):
        """Labels that may occur, before any does."""
        if not self.is_classifier:
            raise TypeError("classes is given, expected None for a network that predicts values")
        if np.ndim(classes) == 0:
            raise TypeError(f"classes is {classes!r}, expected a list of all labels")
        labels = np.unique(as_labels(classes, "classes"))
        if self.classes is not None and not np.array_equal(labels, self.classes):
            raise ValueError(
                f"classes is {labels.tolist()}, expected those of the network: "
                f"{self.classes.tolist()}"
            )
        if len(labels) < 2:
            raise ValueError(f"classes has only {labels.tolist()}, expected at least 2")
        self.classes = labels

    def target(self, labels_or_values, name="y", whole=None):
        """Class indices, or the Values as they are; errors of unknown labels name the whole."""
        if not self.is_classifier:
            return labels_or_values
        return encode(labels_or_values, self.classes, whole or name, name)


class ArrayData:
    """Images, targets and weights in arrays.

    Parameters
    ----------
    images : Images
    target : array of class indices, or Values
    weights : None or float64 array (n_imgs,)
    rows : None or array of intp
        Of the images that take part.
    class_weights : None or float64 array (n_classes,)
        What multiplies the weights of the images of each class.
    """

    def __init__(self, images, target, weights=None, rows=None, class_weights=None):
        self.images, self.target, self.weights, self._rows = images, target, weights, rows
        self._class_weights = class_weights

    def __len__(self):
        return len(self.images) if self._rows is None else len(self._rows)

    @property
    def n_rows(self):
        """Of X, also those that do not take part."""
        return len(self.images)

    def n_batches(self, batch_size):
        return -(-len(self) // batch_size)

    def parts(self, rows, held):
        """Some of the images to train on, and others to validate: those by their own weights."""
        return (
            ArrayData(self.images, self.target, self.weights, rows, self._class_weights),
            ArrayData(self.images, self.target, self.weights, held),
        )

    def counts(self, classes):
        """How many images each class has: one of weight 2 counts as two."""
        return counts_of(self.target, self.weights, len(classes))

    def weigh(self, class_weights):
        """Multiply the weight of each image by that of its class."""
        self._class_weights = class_weights

    def weighs_nothing(self):
        """Whether the weights of all images, but for those of classes, are 0."""
        return self.weights is not None and not self.weights[self._every()].any()

    def _every(self):
        return slice(None) if self._rows is None else self._rows

    def spread(self, n_most):
        """The rows of so many images at most, from the first to the last one."""
        places = np.linspace(0, len(self) - 1, min(n_most, len(self))).astype(np.intp)
        return places if self._rows is None else self._rows[places]

    def some_images(self):
        """A few images, to look at."""
        return self.images.batch(self.spread(LOOKED_AT))

    def batches(self, order, batch_size, convert):
        """(images, target, weights, rows) for each batch, unchecked.

        Rows are those of X.

        Parameters
        ----------
        order : None or array of intp
            Of the images; None: one after the other.
        batch_size : int
        convert : callable (Batches, rows) -> array
        """
        if order is None:
            order = np.arange(len(self))
        rows = order if self._rows is None else self._rows[order]
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            images, target = convert(self.images, batch), convert(self.target, batch)
            yield images, target, self.weights_of(batch), batch

    def in_turn(self, batch_size):
        """(images, target, weights) for each batch, checked, one after the other."""
        for start in range(0, len(self), batch_size):
            rows = slice(start, min(start + batch_size, len(self)))
            if self._rows is not None:
                rows = self._rows[rows]
            yield self.images.checked_batch(rows), self.target[rows], self.weights_of(rows)

    def weights_of(self, rows):
        """Those of some images, times those of their classes, or None."""
        weights = None if self.weights is None else self.weights[rows]
        return times_class_weights(weights, self._class_weights, self.target, rows)

    def digests(self):
        """What tells other data from these: checksums, of sampled images and of all else."""
        rows = np.unique(np.linspace(0, len(self) - 1, SAMPLED).astype(np.intp))
        return {
            "the shape of X": str(self.images.shape),
            "X": digest_of(self.images.batch(rows)),
            "y": digest_of_targets(self.target),
            "sample_weight or class_weight": digest_of(self.weights_of(slice(None))),
        }


class IterableData:
    """Batches from an iterable, which is asked for them anew in each epoch.

    The first time it is only looked at: every value is checked before training begins.

    Parameters
    ----------
    batches : iterable of (X, y) or (X, y, weights)
        Such as a list of them, or a PyTorch DataLoader.
    encoding : Encoding
    name : str
        What messages call it.
    """

    def __init__(self, batches, encoding, name="X"):
        if isinstance(batches, Iterator):
            raise TypeError(
                f"{name} is a {type(batches).__name__}, which gives its batches once, expected an "
                "array, or what gives them in each epoch, such as a list or a DataLoader"
            )
        self._batches, self.encoding, self._name = batches, encoding, name
        self._class_weights, self._n_imgs, self._n_batches = None, 0, 0
        self._label_dtype = None
        self._counts: dict[object, float] = {}
        self._samples, self._weighs_nothing = [], True
        self._must_repeat = False
        for images, labels, weights, y_name in self._read():
            images.check_values()
            if self._n_imgs == 0:
                self._first_images = images.batch(slice(0, LOOKED_AT)).copy()
            if encoding.classes is not None:  # else these batches tell
                encoding.target(labels, y_name)
            self._n_imgs += len(images)
            self._n_batches += 1
            if encoding.is_classifier:
                found, places = np.unique(labels, return_inverse=True)
                counts = counts_of(places.reshape(labels.shape), weights, len(found))
                for label, count in zip(found.tolist(), counts.tolist()):
                    self._counts[label] = self._counts.get(label, 0) + count
            self._samples.append(sample_of(images, labels, weights))
            self._weighs_nothing &= weights is not None and not weights.any()
        if self._n_imgs == 0:
            raise ValueError(f"{name} has no images, expected at least one")
        if encoding.is_classifier:
            encoding.find_classes(np.array(list(self._counts)), f"y of {name}")

    def __len__(self):
        return self._n_imgs

    def n_batches(self, batch_size):
        return self._n_batches

    @property
    def n_rows(self):
        """Of all batches."""
        return self._n_imgs

    def counts(self, classes):
        """How many images each class has: one of weight 2 counts as two."""
        return np.array([self._counts.get(label, 0) for label in classes.tolist()])

    def weigh(self, class_weights):
        """Multiply the weight of each image by that of its class."""
        self._class_weights = class_weights

    def weighs_nothing(self):
        """Whether the weights of all images, but for those of classes, are 0."""
        return self._weighs_nothing

    def some_images(self):
        """A few images, to look at."""
        return self._first_images

    def must_repeat(self):
        """Refuse other batches than those that were looked at: the first one now."""
        self._must_repeat = True
        next(self.in_turn(None), None)

    def _read(self):
        """(Images, labels or Values, weights or None, name of y) for each batch with images."""
        whose = "" if self._name == "X" else f"{self._name}: "
        for i, batch in enumerate(self._batches):
            if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
                kind = type(batch).__name__
                raise TypeError(f"{self._name} gives a {kind} as batch {i}, {PAIRS}")
            names = [f"{whose}{what} of batch {i}" for what in ("X", "y", "sample_weight")]
            images = self.encoding.images(batch[0], names[0])
            check_lengths(images, batch[1], *names[:2])
            labels = self.encoding.labels_or_values(batch[1], names[1])
            if self.encoding.is_classifier:
                self._label_dtype = check_kind(labels, self._label_dtype, names[1], "USb")
            weights = batch[2] if len(batch) == 3 else None
            if weights is not None:
                weights = as_weights(weights, len(images), names[2])
            if len(images):
                yield images, labels, weights, names[1]

    def batches(self, order, batch_size, convert):
        """(images, target, weights, rows) for each batch, as it comes: rows count the images."""
        n_seen = 0
        for images, target, weights in self.in_turn(None):
            yield images, target, weights, np.arange(n_seen, n_seen + len(images))
            n_seen += len(images)

    def in_turn(self, batch_size):
        """(images, target, weights) for each batch, checked."""
        i = -1
        for i, (images, labels, weights, y_name) in enumerate(self._read()):
            if self._must_repeat:
                self._compare(self._samples[i : i + 1], [sample_of(images, labels, weights)])
            target = self.encoding.target(labels, y_name)
            weights = times_class_weights(weights, self._class_weights, target)
            step = batch_size or len(images)
            for start in range(0, len(images), step):
                rows = slice(start, min(start + step, len(images)))
                part = None if weights is None else weights[rows]
                yield images.checked_batch(rows), target[rows], part
        if self._must_repeat:
            self._compare(self._samples[i + 1 :], [])

    def _compare(self, expected, found):
        """Refuse batches by samples of them."""
        if found != expected:
            raise ValueError(
                f"{self._name} gives other batches in each epoch, expected the same ones for a "
                "Checkpoint (as from a DataLoader that does not shuffle): a training that is "
                "resumed could not be given them again"
            )

    def digests(self):
        """What tells other batches from these: lengths, labels, weights and first images."""
        lengths, *digests = zip(*self._samples)
        names = "X", "y", "sample_weight or class_weight"
        return {"the shape of X": str((sum(lengths), *self.encoding.image_shape))} | {
            name: digest_of(lengths, digest) for name, digest in zip(names, digests)
        }


def counts_of(target, weights, n_classes):
    """How many images, or pixels of them, each class index has, by the weights of the images."""
    if weights is not None:
        weights = np.repeat(weights, prod(target.shape[1:]))
    return np.bincount(np.ravel(target), weights, n_classes)


def sample_of(images, labels, weights):
    """What tells a batch from others: its length, checksums of an image, labels and weights."""
    image = images.batch(slice(0, 1))
    return len(images), digest_of(image), digest_of_targets(labels), digest_of(weights)


def times_class_weights(weights, class_weights, target, rows=slice(None)):
    """The weights of some images, times those of their classes; None is 1."""
    if class_weights is None:
        return weights
    class_weights = class_weights[target[rows]]
    return class_weights if weights is None else weights * class_weights


def digest_of_targets(targets):
    """A checksum of labels, by their values, or of Values."""
    if isinstance(targets, np.ndarray):
        return digest_of(by_value(targets))
    return digest_of(*(digest_of(targets.batch(rows, work)) for rows, work in targets.blocks()))


def by_value(labels):
    """In one dtype for each kind, texts as wide as the longest: equal labels have equal bytes."""
    return np.array(labels.tolist()) if labels.dtype.kind in "US" else labels.astype(float)


def digest_of(*items):
    digest = hashlib.sha256()
    for item in items:
        if isinstance(item, np.ndarray):
            digest.update(f"{item.shape} {item.dtype.str}".encode())
            digest.update(item.tobytes())
        else:
            digest.update(repr(item).encode())
    return digest.hexdigest()


# --- what fit is given ------------------------------------------------------------------


def read(X, y, encoding, sample_weight=None, class_weight=None):
    """The data to train on: all of them are checked, and the encoding is complete then."""
    if y is None:
        if hasattr(X, "__array__") or pandas_kind(X) is not None:
            raise TypeError(f"y is None and X is a {type(X).__name__}, expected y too, or batches")
        if not isinstance(X, Iterable):
            raise TypeError(
                f"X is a {type(X).__name__}, expected an array with y, or batches such as a "
                "DataLoader"
            )
        if sample_weight is not None:
            raise ValueError(f"sample_weight is given beside batches, {PAIRS}")
        data = IterableData(X, encoding)
    else:
        data = _read_arrays(X, y, encoding, sample_weight)
    if class_weight is not None:
        if not encoding.is_classifier or encoding.target_shape:
            raise ValueError("class_weight is given, expected one label per image then")
        data.weigh(as_class_weights(class_weight, encoding.classes, data.counts(encoding.classes)))
    return data


def _read_arrays(X, y, encoding, sample_weight=None, names=("X", "y", "sample_weight"), whole="y"):
    images = encoding.images(X, names[0])
    check_lengths(images, y, *names[:2])
    if len(images) == 0:
        raise ValueError(f"{names[0]} has no images, expected at least one")
    labels = encoding.labels_or_values(y, names[1])
    if encoding.is_classifier:
        encoding.find_classes(labels, names[1])
    target = encoding.target(labels, names[1], whole)
    weights = None if sample_weight is None else as_weights(sample_weight, len(images), names[2])
    images.check_values()
    return ArrayData(images, target, weights)


def read_known(X, y, model):
    """Data of a network that is set up: labels that it does not know are wrong, not refused."""
    encoding = Encoding.of(model)
    images = encoding.images(X)
    check_lengths(images, y)
    if len(images) == 0:
        raise ValueError("X has no images, expected at least one")
    labels = encoding.labels_or_values(y)
    return ArrayData(images, encode(labels, model.classes) if model.is_classifier else labels)


def read_validation(validation_data, encoding):
    """The data of fit's `validation_data`: (X, y), (X, y, weights) or an iterable of batches."""
    if _is_pair(validation_data):
        whole = "validation_data"
        names = [f"{whole}: {what}" for what in ("X", "y", "sample_weight")]
        X, y, *weights = validation_data
        data = _read_arrays(X, y, encoding, weights[0] if weights else None, names, whole)
    elif isinstance(validation_data, Iterable) and not hasattr(validation_data, "__array__"):
        data = IterableData(validation_data, encoding, "validation_data")
    else:
        raise ValueError(
            "validation_data is not a pair, expected None, (X, y), (X, y, weights) or batches"
        )
    return data


def _is_pair(validation_data):
    """Whether it is (X, y) or the like, not a few batches, such as list(loader) gives."""
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
        return False
    if isinstance(validation_data, tuple):
        return not all(isinstance(item, tuple) for item in validation_data)
    return not all(
        isinstance(item, (tuple, list)) and all(getattr(part, "ndim", 0) for part in item)
        for item in validation_data
    )
