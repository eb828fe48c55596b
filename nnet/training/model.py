"""Model: layers that are set up for images of one shape, and what they compute."""

import copy
import os
import threading
import weakref
from collections.abc import Mapping
from functools import partial
from math import nan, prod
from operator import is_
from typing import Any, NamedTuple

import numpy as np

from nnet._atomic import AtWork, Shared, Work
from nnet._dense import all_finite
from nnet._program import predict_at_once
from nnet.layers.base import Layer
from nnet.layers.classification import BinaryCrossEntropy, LogRegression
from nnet.layers.loss import Totals, totals
from nnet.layers.prediction import Prediction
from nnet.layers.program import Program
from nnet.layers.tree import (
    Trace,
    check_all_arrays,
    check_array,
    check_arrays,
    check_values,
    describe,
    follow,
    frozen_in,
    held,
    is_own,
    layers_in,
    named_arrays,
    numbered,
    trained_arrays,
)
from nnet.training.data import as_array, bc01_shape
from nnet.training.progress import DivergedError, History
from nnet.training.targets import check_targets

FEW_IMAGES = 16  # at once are always as fast as fewer
CACHE_BYTES = 2**20  # with more, 256 images through the MNIST network took twice as long
ONE_IMAGE = [slice(0, 1)]
KEPT_BYTES = 2**25  # activations of one prediction whose memory serves the next


class Evaluation(NamedTuple):
    """How well a model does: weighted means over the images."""

    loss: float
    error: float
    accuracy: float


class Model:
    """Layers that are set up. One thread at a time works with them.

    Parameters
    ----------
    layers : list of Layer
        The last one is a loss.
    input_shape : tuple
        Of one image, as the user gives it.
    dtype : numpy.dtype
    classes : array (n_classes,), or None for regression
    target_shape : tuple
        Of one target. None while neither it nor the classes are known.
    signals : bool
        See `Layer`.
    history : History, optional
    visit : callable (name, layer, input_shape), or None
        See `Trace`. By default arrays are checked.
    n_imgs : int
        The length of a batch, as far as the layers' `_setup` sees one.
    labels : array, optional
        See `check_targets`.
    is_loaded : bool
        Whether its arrays are those of a file or a state dict, and not trained since.

    Attributes
    ----------
    image_shape : tuple
        Of one image, as the layers see it.
    scores_shape, output_shape : tuple
        Of what the loss takes and predicts, for one image.
    program : Program
        The passes through all layers but the loss.
    trace : Trace
        The shapes: another one after each change of the plan.
    preparation : None or Preparation
        Of a file that was loaded, for its network.
    kept : set of int
        The ids of the frozen layers that had arrays before they were set up, and have them still.
    """

    layers: list[Any]
    loss: Any
    scores_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    program: Program
    trace: Trace
    preparation: Any = None
    _families: list[tuple[Layer, dict[str, Layer]]]  # the layers that have some inside
    _predicts_new_arrays: bool  # whether nobody else holds what the loss predicts
    _loans_of_predictions: Any
    prediction: Any  # None until it is first asked for
    _image_bytes: int  # of one image's largest array

    def __init__(
        self,
        layers,
        input_shape,
        dtype,
        classes,
        target_shape,
        signals,
        history=None,
        visit=check_arrays,
        n_imgs=1,
        labels=None,
        is_loaded=False,
    ):
        self.input_shape, self.dtype = tuple(input_shape), dtype
        self.image_shape = bc01_shape(self.input_shape)
        self.classes, self.target_shape = classes, target_shape
        self.signals, self.is_loaded = signals, is_loaded
        self.history = history or History()
        self.stepping = None  # of the last training
        self.lock = threading.RLock()
        self.at_work = None  # whoever holds the lock
        self.kept = set()
        self.plan(layers, visit, n_imgs, labels)
        remember(MODELS, self)

    def plan(self, layers, visit=check_arrays, n_imgs=1, labels=None):
        """Find the shapes and the passes that follow from the layers and their options."""
        every = layers_in(numbered(layers))
        for layer in every:
            vars(layer).pop("_programs", None)
        for layer in every + held(every):
            layer.dtype, layer.signals = self.dtype, self.signals
            layer._option_changed()
        trace = Trace(visit)
        layers = list(layers)
        shape = follow(numbered(layers), "", trace, (n_imgs, *self.image_shape))
        if visit is check_arrays:  # they may be the user's, put in place of others
            for layer in filter(is_own, every):
                layer._make_grads()
        loss, scores_shape = layers[-1], trace.shapes[id(layers[-1])][0]
        name = describe(len(layers) - 1, loss)
        targets = self.classes, self.target_shape, labels
        check_targets(name, loss, scores_shape, self.signals, *targets)
        largest = max(prod(shape) for shapes in trace.shapes.values() for shape in shapes)
        plan = {
            "layers": layers,
            "loss": loss,
            "scores_shape": scores_shape,
            "output_shape": shape[1:],
            "_families": [
                (layer, layer.children)
                for layer in every
                if type(layer).children is not Layer.children
            ],
            "_predicts_new_arrays": type(loss) in (LogRegression, BinaryCrossEntropy),
            "program": Program(numbered(layers[:-1]), "", trace, need_input_grad=False),
            "trace": trace,
            "_loans_of_predictions": None,
            "prediction": None,
            "_image_bytes": self.dtype.itemsize * max(largest, prod(self.image_shape)),
        }
        vars(self).update(plan)  # all at once: an interrupt leaves the old plan, or the new one

    def is_of(self, layers):
        """Whether these are the layers, outside and inside, that it was planned for."""
        if len(layers) != len(self.layers) or not all(map(is_, layers, self.layers)):
            return False
        return not self._families or all(
            layer.children == children for layer, children in self._families
        )

    def check(self):
        """Refuse arrays that do not fit, such as one that the user has put in a layer."""
        check_all_arrays(self.layers, self.image_shape)

    def copy(self, network):
        """The same with arrays of its own; nobody may work with the layers meanwhile.

        Layers of the user's own may know their network: it is not copied with them.
        """
        layers = copy.deepcopy(self.layers, {id(network): network})
        return Model(layers, **copy.deepcopy(self.attributes()), visit=None)

    def attributes(self):
        """The arguments that make it, but the layers."""
        names = "input_shape dtype classes target_shape signals history is_loaded".split()
        return {name: getattr(self, name) for name in names}

    @property
    def is_classifier(self):
        return self.loss.is_classifier

    def loss_name(self):
        return describe(len(self.layers) - 1, self.loss)

    def as_target(self, target):
        """A batch of targets in the shape that the loss compares with its scores."""
        shape = self.scores_shape[1:] if self.is_classifier else self.output_shape
        return with_items(target, shape)

    def as_y(self, decisions):
        """What the loss decides, or is to decide, as the user gives and gets it."""
        y = self.classes[decisions] if self.is_classifier else decisions
        return y.reshape(len(y), *self.target_shape)

    def as_probabilities(self, predictions):
        """What the loss predicts, in the shape that y has, and with the axis of the classes."""
        if self.is_classifier and not self.target_shape:
            return predictions
        n_classes = predictions.shape[1:2] if self.is_classifier else ()
        return predictions.reshape(len(predictions), *n_classes, *self.target_shape)

    def params(self):
        """All trained arrays, first layer first."""
        return list(trained_arrays(numbered(self.layers)).values())

    def copied_arrays(self):
        """Copies of all trained arrays and of all state, by name."""
        arrays = named_arrays(numbered(self.layers))
        return {name: copy.deepcopy(array) for name, array in arrays.items()}

    def matched(self, state):
        """All arrays, and copies of those of a state dict that are to replace their values.

        Errors are those of `NeuralNetwork.load_state_dict`.
        """
        self.check()
        if not isinstance(state, Mapping):
            raise TypeError(f"state is a {type(state).__name__}, expected a dict of arrays by name")
        arrays = named_arrays(numbered(self.layers))
        missing = [name for name in arrays if name not in state]
        unknown = [name for name in state if name not in arrays]
        if missing or unknown:
            raise ValueError(
                f"state lacks {missing} and has the unknown {unknown}, expected {list(arrays)}"
            )
        sources = [as_array(state[name], f"state[{name!r}]") for name in arrays]
        for (name, array), source in zip(arrays.items(), sources):
            check_array(source, f"state[{name!r}]", array.shape, array.dtype)
            if not array.flags.writeable:
                raise ValueError(f"{name} of the network is read-only, expected a writable array")
        given = dict(zip(arrays, sources))
        check_values(numbered(self.layers), given, lambda name: f"state[{name!r}]")
        return list(arrays.values()), [source.copy() for source in sources]

    # --- work ---------------------------------------------------------------------

    def loans(self, training, streams=None, before=()):
        """(layer, Work) for all layers: what an AtWork lends them.

        Random numbers go on where those of the loans `before` are.
        """
        shared = Shared()
        children = numbered(self.layers)
        layers, frozen = layers_in(children), frozen_in(children)
        layers += held(layers)
        makers = streams.of_layers(layers, "work") if streams else [None] * len(layers)
        rngs = {id(layer): partial(getattr, work, "rng") for layer, work in before}
        shapes, needs = self.trace.shapes, self.trace.needs
        return [
            (
                layer,
                Work(
                    shapes.get(id(layer), (None, None))[1],
                    training,
                    needs.get(id(layer), True),
                    shared,
                    rngs.get(id(layer), make_rng),
                    id(layer) not in frozen,
                ),
            )
            for layer, make_rng in zip(layers, makers)
        ]

    def _lent_for_predictions(self):
        """To all layers that are called: programs want nothing."""
        if self._loans_of_predictions is None:
            loans = self.loans(training=False)
            if not self._predicting().calls_layers:
                loans = [(layer, work) for layer, work in loans if layer is self.loss]
            self._loans_of_predictions = loans
        return self._loans_of_predictions

    def predictions_at_once(self, X, batch_size, is_current, decided=False):
        """What `predictions` returns, where one program finds it from X as it is; else None."""
        try:
            n_imgs = min(batch_size, self._images_within(KEPT_BYTES))
            predicted = predict_at_once(self, X, n_imgs, all_finite, is_current)
        except (TypeError, ValueError):
            self.check()
            raise
        return self.loss.decide(predicted) if decided and predicted is not None else predicted

    def predictions(self, images, batch_size, is_current, decided=False):
        """What the loss predicts from images, or None if the model `is_current` no more.

        What it decides is found batch by batch, which takes less memory.
        """
        results = None
        at_work = AtWork(self)
        try:
            at_work.begin()
            if not is_current(self):
                return None
            at_work.lend(self._lent_for_predictions())
            n_imgs = len(images)
            for rows in self.batches(n_imgs, batch_size):
                scores = self._scores(images.checked_batch(rows))
                if not all_finite(scores):
                    raise DivergedError(
                        "the last layer gets NaN or infinite values: the training diverged, or X "
                        "is far larger than in training"
                    )
                predicted = self.loss.fprop(scores)
                if decided:
                    predicted = self.loss.decide(predicted)
                if results is None:
                    is_new = self._predicts_new_arrays or (decided and self.is_classifier)
                    if len(scores) == n_imgs and is_new:
                        return predicted
                    results = np.empty((n_imgs, *predicted.shape[1:]), predicted.dtype)
                results[rows] = predicted
            return results
        except (TypeError, ValueError):
            self.check()
            raise
        finally:
            at_work.end()

    def evaluate(self, data, batch_size, is_current, with_loss=False, watch=None):
        """An `Evaluation` of `ArrayData` or the like, or None if the model `is_current` no more.

        Without the loss, which is 0 then, nothing is weighted, and class indices may be -1:
        unknown and wrong. `watch` is called with (target, decisions, weights) of each batch, whose
        memory serves the next.
        """
        found = Totals(0.0, 0.0, 0.0)
        at_work = AtWork(self)
        try:
            at_work.begin()
            if not is_current(self):
                return None
            at_work.lend(self._lent_for_predictions())
            for images, target, weights in data.in_turn(self._batch_length(len(data), batch_size)):
                scores, target = self._scores(images), self.as_target(target)
                if with_loss:
                    compared = self.loss.compare(scores, target)
                    predictions = compared.predictions
                    sums = totals(self.loss, compared, scores, target, weights)
                else:
                    predictions = self.loss.fprop(scores)
                    errors = self.loss.errors(predictions, target)
                    sums = Totals(0.0, float(np.add.reduce(errors)), float(len(errors)))
                found = found.plus(sums)
                if watch is not None:
                    watch(target, self.loss.decide(predictions), weights)
        except (TypeError, ValueError):
            self.check()
            raise
        finally:
            at_work.end()
        weight = found.weight or nan
        accuracy = (weight - found.error) / weight
        return Evaluation(found.loss / weight, found.error / weight, accuracy)

    def batches(self, n_imgs, batch_size):
        """The rows of one batch after the other; of none there is one, which is empty."""
        if n_imgs == 1 and self._image_bytes <= KEPT_BYTES:  # the hot path
            return ONE_IMAGE
        batch_size = self._batch_length(n_imgs, batch_size)
        starts = range(0, max(n_imgs, 1), batch_size)
        return [slice(start, min(start + batch_size, n_imgs)) for start in starts]

    def _batch_length(self, n_imgs, batch_size):
        """At most so many images at once: more than fit into the cache take longer.

        Programs see to that by themselves, but keep what dense layers read of all images.
        """
        if n_imgs > FEW_IMAGES:
            most_bytes = CACHE_BYTES if self._predicting().calls_layers else KEPT_BYTES
            batch_size = min(batch_size, self._images_within(most_bytes))
        if min(batch_size, n_imgs) * self._image_bytes > KEPT_BYTES:
            self._loans_of_predictions = None  # its memory is freed after this call
        return batch_size

    def _images_within(self, n_bytes):
        """How many images' activations so many bytes hold; a few are always taken at once."""
        return max(FEW_IMAGES, n_bytes // self._image_bytes)

    def _scores(self, images):
        """What the loss takes, for a batch."""
        return self._predicting()(with_items(images, self.image_shape))

    def _predicting(self):
        """The `Prediction` of the layers; of one that is never asked for there is none."""
        if self.prediction is None:
            self.prediction = Prediction(
                self.program, self.trace, self.image_shape, self.dtype, self.loss
            )
        return self.prediction


# --- forks --------------------------------------------------------------------------

# Not WeakSets: an interrupt that arrives while one of theirs removes an object is lost.
MODELS: set[weakref.ref[Any]] = set()
NETWORKS: set[weakref.ref[Any]] = set()


def with_items(batch, shape):
    """A batch of items of that shape."""
    return batch if batch.shape[1:] == shape else batch.reshape(len(batch), *shape)


def remember(objects, new):
    """Add a weak reference, which goes with what it refers to."""
    objects.add(weakref.ref(new, objects.discard))


def living(objects):
    return [each for reference in list(objects) if (each := reference()) is not None]


def forget_other_threads():
    """In a forked child no thread goes on but the one that forked: undo what others were at.

    A training of another thread keeps its last step if a callback showed it to everyone; one
    of this thread, which forked in a callback, ends if the child begins another.
    """
    thread = threading.get_ident()
    for network in living(NETWORKS):
        transaction = network._transaction
        if transaction is None:
            continue
        if transaction.thread == thread:
            transaction.is_forked = True
        else:
            model = transaction.model
            transaction.keep = model is not None and network._model is model
            transaction.end()
    for model in living(MODELS):
        while model.at_work is not None and model.at_work.thread != thread:
            model.at_work.take_back()
            model.at_work = model.at_work.outer
        if model.at_work is None:
            model.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_other_threads)
