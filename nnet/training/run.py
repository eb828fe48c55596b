"""TrainingRun: one call of fit, from its arguments to the last step."""

import time
from math import isfinite

import numpy as np

from nnet._atomic import AtWork, Work
from nnet.layers.arguments import as_bool, as_count, as_float
from nnet.layers.base import ParamMixin
from nnet.layers.streams import as_streams
from nnet.layers.tree import collect, numbered, walk
from nnet.training.data import Images, as_labels, as_values, check_lengths, encode
from nnet.training.optimizers import as_optimizer
from nnet.training.progress import DivergedError, Progress, StopTraining, describe
from nnet.training.setup import change_of, set_up

LEARNING_RATE = 0.1
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
    ):
        self.network = network
        self.n_epochs = as_count(max_iter, "max_iter")
        self.batch_size = as_count(batch_size, "batch_size")
        self.shuffle, self.verbose = as_bool(shuffle, "shuffle"), as_bool(verbose, "verbose")
        if learning_rate is None:
            learning_rate = getattr(optimizer, "learning_rate", LEARNING_RATE)
        self.optimizer = as_optimizer(optimizer, learning_rate, momentum, nesterov)
        self.learning_rate = learning_rate
        if not callable(learning_rate):
            as_float(learning_rate, "learning_rate")
        if callback is not None and not callable(callback):
            raise TypeError(f"callback is {callback!r}, expected None or a callable")
        self.callback = callback

    def run(self, X, y, validation_data):
        """Train afresh; if that fails before the first step, all is as it was."""
        network = self.network
        self.images = Images(X)
        classes, target = self._targets(y)
        self.images.check_values()
        self.validation = self._validation(validation_data, classes)
        transaction, self.published = change_of(network)
        try:
            transaction.begin(self.published)
            self._set_up(transaction, classes, target)
            self._train()
        except DivergedError:
            transaction.keep = False
            raise
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

    def _set_up(self, transaction, classes, target):
        images, streams = self.images, as_streams(self.network.rng)
        n_imgs = min(self.batch_size, len(images))
        self.transaction = transaction
        self.model = set_up(
            self.network,
            streams,
            images.image_shape,
            images.dtype,
            classes,
            target.shape[1:],
            n_imgs,
        )
        transaction.model = self.model
        self.target = self.model.as_target(target)
        if self.validation is not None:
            images, target = self.validation
            self.validation = images, self.model.as_target(target, "validation y")
        self.loans = self.model.loans(training=True, streams=streams)
        layers = [layer for _, layer in walk(numbered(self.model.layers))]
        self.trained = [layer for layer in layers if isinstance(layer, ParamMixin)]
        self.optimizer.bind(self.model.params())
        self.shuffling = streams.named("shuffle")
        self.batches = Work(None, True, False, [])

    # --- steps ----------------------------------------------------------------------

    def _train(self):
        for epoch in range(1, self.n_epochs + 1):
            self.optimizer.learning_rate = self._learning_rate(epoch)
            n_imgs = len(self.images)
            order = self.shuffling.permutation(n_imgs) if self.shuffle else np.arange(n_imgs)
            for progress in self._epoch(epoch, order):
                if progress.epoch_done:
                    progress = self._end_epoch(progress)
                    if self.verbose:
                        print(describe(progress), flush=True)
                if self.callback is not None and self._is_stopped_by(progress):
                    return

    def _learning_rate(self, epoch):
        if not callable(self.learning_rate):
            return as_float(self.learning_rate, "learning_rate")
        return as_float(self.learning_rate(epoch - 1), "learning_rate")

    def _epoch(self, epoch, order):
        """Train for one epoch, and yield a Progress after each batch."""
        start = time.perf_counter()
        is_classifier = self.model.is_classifier
        loss_sum = n_right = n_seen = 0
        for first in range(0, len(order), self.batch_size):
            rows = order[first : first + self.batch_size]
            losses, right = self._step(rows)
            if not isfinite(losses):
                raise DivergedError(
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
        batch = self.batches.array("batch", (len(rows), *self.images.image_shape), model.dtype)
        images = self.images.batch(rows, batch)
        at_work = AtWork(model, self.loans)
        # A diverging loss is reported as such, not as a warning about some overflow.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            try:
                at_work.begin()
                scores = model.program.fprop(images.reshape(len(images), *model.image_shape))
                predictions, losses, grad = model.loss.compare(scores, target)
                total, right = float(np.add.reduce(losses)), 0
                if model.is_classifier:
                    right = int(np.count_nonzero(predictions.argmax(axis=1) == target))
                if isfinite(total):
                    model.program.bprop(self._conform(grad, scores.shape))
                    self.optimizer.step(collect(self.trained, "param_incs"))
            finally:
                at_work.end()
        return total, right

    def _conform(self, grad, shape):
        """The gradient that a loss of the user's own returned, in the network's dtype."""
        grad = np.asarray(grad, self.model.dtype)
        if grad.shape != shape:
            raise ValueError(
                f"{self.model.loss_name()}.input_grad returned shape {grad.shape}, expected {shape}"
            )
        return grad

    def _end_epoch(self, progress):
        if not all(np.isfinite(param).all() for param in self.model.params()):
            raise DivergedError(
                f"a parameter became infinite or NaN in epoch {progress.epoch}: {ADVICE}"
            )
        history = self.model.history
        history.loss.append(progress.loss)
        if self.validation is None:
            return progress
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            val_loss, val_error = self.model.evaluate(
                *self.validation, VALIDATION_BATCH, lambda model: True, with_loss=True
            )
        if not isfinite(val_loss):
            raise DivergedError(
                f"the validation loss became {val_loss} in epoch {progress.epoch}: {ADVICE}"
            )
        history.val_loss.append(val_loss)
        history.val_error.append(val_error)
        return progress._replace(val_loss=val_loss, val_error=val_error)

    def _is_stopped_by(self, progress):
        """Whether the callback wants that. While it runs, everyone sees the last step."""
        network = self.network
        network._model = self.model
        try:
            answer = self.callback(progress)
            network._fitted()  # takes changed options up
        except StopTraining:
            return True
        finally:
            network._model = self.published
        if not (answer is None or isinstance(answer, (bool, np.bool_))):
            raise TypeError(
                f"callback returned {answer!r}, expected None or False, or True to stop"
            )
        params = self.model.params()
        if any(new is not old for new, old in zip(params, self.optimizer.params)):
            self.optimizer.exchange(params)
        return bool(answer)
