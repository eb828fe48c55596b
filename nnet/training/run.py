"""TrainingRun: one call of fit, from its arguments to the last step."""

import time
from copy import copy
from functools import partial
from math import isfinite
from operator import is_

import numpy as np

from nnet._atomic import AtWork, Shared, Transaction, Work, all_writable, quietly
from nnet.layers.arguments import as_bool, as_count, as_float
from nnet.layers.base import ParamMixin
from nnet.layers.loss import sums_of
from nnet.layers.streams import as_streams
from nnet.layers.tree import collect, decaying, frozen_in, layers_in, numbered, trained_arrays
from nnet.training.clipping import Clipping
from nnet.training.data import Images, as_labels, as_values, check_lengths, encode
from nnet.training.optimizers import as_optimizer, check_decay
from nnet.training.progress import DivergedError, Progress, StopTraining, describe
from nnet.training.schedules import as_schedule
from nnet.training.setup import check_layers, publish, set_up

VALIDATION_BATCH = 256  # images, at most
ADVICE = "try a smaller learning_rate, or scale X to values around 1"


class TrainingRun:
    """One training of a network. Options are refused here, before anything changes.

    See `NeuralNetwork.fit` for the parameters.
    """

    def __init__(
        self,
        network,
        learning_rate,
        max_iter,
        batch_size,
        momentum,
        nesterov,
        shuffle,
        verbose,
        callback,
        optimizer,
        clip_norm,
        clip_value,
    ):
        self.network = network
        self.n_epochs = as_count(max_iter, "max_iter")
        self.batch_size = as_count(batch_size, "batch_size")
        self.shuffle, self.verbose = as_bool(shuffle, "shuffle"), as_bool(verbose, "verbose")
        self.optimizer = as_optimizer(optimizer, learning_rate, momentum, nesterov)
        self.schedule = copy(as_schedule(self.optimizer.learning_rate))
        self.clipping = Clipping(clip_norm, clip_value)
        if callback is not None and not callable(callback):
            raise TypeError(f"callback is {callback!r}, expected None or a callable")
        self.callback = callback

    def run(self, X, y, validation_data):
        """Train afresh; if that fails before the first step, all is as it was."""
        network = self.network
        check_layers(network.layers)
        self.images = Images(X)
        classes, target = self._targets(y)
        self.images.check_values()
        self.validation = self._validation(validation_data, classes)
        self.schedule.start(self.n_epochs, self._metrics(classes is not None))
        transaction = Transaction(network)
        try:
            transaction.begin()
            self.published = publish(network, transaction)
            self._set_up(transaction, classes, target)
            self._train()
        finally:
            transaction.end()

    # --- setting up -----------------------------------------------------------------

    def _targets(self, y):
        """The classes, and what the loss compares with: class indices or values."""
        check_lengths(self.images, y)
        if len(self.images) == 0:
            raise ValueError("X has no images, expected at least one")
        if not self.network.layers[-1].is_classifier:
            return None, as_values(y, self.images.dtype)
        labels = as_labels(y)
        classes = np.unique(labels)
        if len(classes) < 2:
            raise ValueError(f"y has only {classes.tolist()}, expected at least 2 classes")
        return classes, encode(labels, classes, "y")

    def _validation(self, validation_data, classes):
        """Images and targets, or None."""
        if validation_data is None:
            return None
        try:
            X, y = validation_data
        except (TypeError, ValueError):
            raise ValueError("validation_data is not a pair, expected None or (X, y)") from None
        images = Images(X, self.images.dtype, self.images.image_shape, name="validation X")
        check_lengths(images, y, "validation X", "validation y")
        if len(images) == 0:
            raise ValueError("validation_data has no images, expected at least one")
        images.check_values()
        if classes is None:
            return images, as_values(y, images.dtype, "validation y")
        return images, encode(as_labels(y, "validation y"), classes, "validation_data")

    def _metrics(self, is_classifier):
        """What a Progress has at the end of an epoch."""
        of_validation = () if self.validation is None else ("val_loss", "val_error")
        return ("loss", *["accuracy"] * is_classifier, *of_validation)

    def _set_up(self, transaction, classes, target):
        images, self.streams = self.images, as_streams(self.network.rng)
        n_imgs = min(self.batch_size, len(images))
        self.transaction = transaction
        self.model = set_up(
            self.network,
            self.streams,
            images.image_shape,
            images.dtype,
            classes,
            target.shape[1:],
            n_imgs,
            self.network._built_shape,
        )
        transaction.model = self.model
        self.target = self.model.as_target(target)
        if self.validation is not None:
            images, target = self.validation
            self.validation = images, self.model.as_target(target, "validation y")
        self.loans = []
        self._lend()
        self.params = collect(self.trained, "params")
        self.optimizer.bind(self.params, decaying(self.trained))
        self.shuffling = self.streams.named("shuffle")
        self.batches = Work(None, True, False, Shared())

    def _lend(self):
        """What the layers are lent for each step, by the plan of the model."""
        self.trace = self.model.trace
        self.loans = self.model.loans(training=True, streams=self.streams, before=self.loans)
        children = numbered(self.model.layers)
        frozen = frozen_in(children)
        layers = [layer for layer in layers_in(children) if id(layer) not in frozen]
        self.trained = [layer for layer in layers if isinstance(layer, ParamMixin)]
        self.names = list(trained_arrays(children, frozen))
        check_decay(self.optimizer, self.trained)

    # --- steps ----------------------------------------------------------------------

    def _train(self):
        for epoch in range(1, self.n_epochs + 1):
            n_imgs = len(self.images)
            order = self.shuffling.permutation(n_imgs) if self.shuffle else np.arange(n_imgs)
            for progress in self._epoch(epoch, order):
                if progress.epoch_done:
                    progress = self._end_epoch(progress)
                    if self.verbose:
                        print(describe(progress), flush=True)
                if self.callback is not None and self._is_stopped_by(progress):
                    return

    def _learning_rate(self, epoch, step_of_epoch):
        """Of a step; epochs count from 1."""
        n_steps = -(-len(self.images) // self.batch_size)
        step = (epoch - 1) * n_steps + step_of_epoch
        rate = self.schedule(step, epoch - 1, n_steps, self.n_epochs)
        return as_float(rate, "learning_rate")

    def _epoch(self, epoch, order):
        """Train for one epoch, and yield a Progress after each batch."""
        start = time.perf_counter()
        is_classifier = self.model.is_classifier
        loss_sum = n_right = n_seen = 0
        for first in range(0, len(order), self.batch_size):
            rows = order[first : first + self.batch_size]
            self.optimizer.learning_rate = self._learning_rate(epoch, first // self.batch_size)
            # A diverging loss is reported as such, not as a warning about some overflow.
            losses, right = quietly(partial(self._step, rows))
            if not isfinite(losses):
                self._diverge(
                    f"the loss became {losses / len(rows)} in epoch {epoch}: try a smaller "
                    f"learning_rate than {self.optimizer.learning_rate}, or scale X to values "
                    "around 1"
                )
            self.transaction.keep = True
            n_seen += len(rows)
            loss_sum += losses
            n_right += right
            yield Progress(
                self.network,
                epoch,
                self.n_epochs,
                n_seen,
                len(order),
                loss_sum / n_seen,
                n_right / n_seen if is_classifier else None,
                time.perf_counter() - start,
            )

    def _step(self, rows):
        """Train on a batch: the sum of its losses, and how many were right before the step."""
        model, target = self.model, self.target[rows]
        shape = len(rows), *self.images.image_shape
        images = self.images.batch(rows, self.batches.array("images", shape, model.dtype))
        at_work = AtWork(model)
        try:
            at_work.begin()
            at_work.lend(self.loans)
            scores = model.program.fprop(images.reshape(len(images), *model.image_shape))
            compared = model.loss.compare(scores, target)
            loss_sum, n_right = sums_of(compared, target, model.is_classifier)
            if isfinite(loss_sum):
                model.program.bprop(self._conform(compared.grad, scores.shape))
                self.optimizer.step(self.clipping.incs(self.trained))
        finally:
            at_work.end()
        return loss_sum, n_right

    def _conform(self, grad, shape):
        """The gradient that a loss of the user's own returned, in the network's dtype."""
        grad = np.asarray(grad, self.model.dtype)
        if grad.shape != shape:
            raise ValueError(
                f"{self.model.loss_name()}.input_grad returned shape {grad.shape}, expected {shape}"
            )
        return grad

    def _end_epoch(self, progress):
        if not all(np.isfinite(param).all() for param in self.params):
            self._diverge(f"a parameter became infinite or NaN in epoch {progress.epoch}: {ADVICE}")
        if self.validation is not None:
            val_loss, val_error = quietly(self._validate)
            if not isfinite(val_loss):
                self._diverge(
                    f"the validation loss became {val_loss} in epoch {progress.epoch}: {ADVICE}"
                )
            progress = progress._replace(val_loss=val_loss, val_error=val_error)
        self.model.history = self.model.history.plus(progress)
        self.schedule.end_epoch(progress)
        return progress

    def _diverge(self, message):
        """End the training: nothing of it is kept."""
        self.transaction.keep = False
        raise DivergedError(message)

    def _validate(self):
        return self.model.evaluate(
            *self.validation, VALIDATION_BATCH, lambda model: True, with_loss=True
        )

    def _is_stopped_by(self, progress):
        """Whether the callback wants that. While it runs, everyone sees the last step."""
        network = self.network
        network._model = self.model
        try:
            answer = self.callback(progress)
            self._take_up_changes()
        except StopTraining:
            return True
        finally:
            if network._transaction is not self.transaction:
                raise RuntimeError(
                    "this process was forked in a callback and trained the network anew, expected "
                    "it to end before the callback does"
                )
            network._model = self.published
        if not (answer is None or isinstance(answer, (bool, np.bool_))):
            raise TypeError(
                f"callback returned {answer!r}, expected None or False, or True to stop"
            )
        return bool(answer)

    def _take_up_changes(self):
        """Go on with what a callback has made of the layers; refuse it for other parameters."""
        model, before = self.network._fitted(), self.names
        if model.trace is not self.trace:
            self._lend()
        params = collect(self.trained, "params")
        is_same = len(params) == len(self.params) and all(map(is_, params, self.params))
        if is_same and all_writable(params):
            return
        if len(params) != len(self.params):
            raise ValueError(
                f"the callback left the parameters {self.names}, expected {before} as before"
            )
        model.check()
        self.optimizer.exchange(params, self.names)
        self.params = params
