"""TrainingRun: one call of fit, from its arguments to the last step."""

import time
from functools import partial
from math import isfinite
from operator import is_
from typing import Any

import numpy as np

from nnet._atomic import AtWork, Shared, Transaction, Work, all_writable, quietly
from nnet.layers.arguments import as_bool, as_count, as_float
from nnet.layers.base import ParamMixin
from nnet.layers.loss import Totals, totals
from nnet.layers.program import lay_open
from nnet.layers.standardize import Standardize
from nnet.layers.streams import as_streams
from nnet.layers.tree import collect, describe, frozen_in, layers_in, numbered, trained_arrays, walk
from nnet.training import batches, resuming
from nnet.training.augmenting import Augmenter, listed
from nnet.training.callbacks import Callback, Checkpoint
from nnet.training.metrics import Metrics
from nnet.training.optimizers import as_optimizer
from nnet.training.progress import DivergedError, Progress, StopTraining, line_of
from nnet.training.setup import check_layers, go_on, publish, set_up
from nnet.training.weights import as_fraction, split

LEARNING_RATE = 0.1
BATCH_SIZE = 64
VALIDATION_BATCH = 256  # images, at most
ADVICE = "try a smaller learning_rate, or scale X to values around 1"


class TrainingRun:
    """One training of a network. Options are refused here, before anything changes.

    See `NeuralNetwork.fit` for the parameters.

    Attributes
    ----------
    n_done : int
        How many epochs of this training have ended.
    n_before : int
        How many epochs other trainings had before, from which this one goes on: no epoch has the
        random numbers of another.
    """

    data: batches.ArrayData | batches.IterableData
    validation: batches.ArrayData | batches.IterableData | None
    published: Any
    transaction: Transaction
    model: Any

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
        callbacks,
        metrics,
        optimizer,
        warm_start,
        resume=None,
        augment=None,
        keep_optimizer=False,
    ):
        self.network = network
        self.n_epochs = as_count(max_iter, "max_iter")
        self.batch_size = None if batch_size is None else as_count(batch_size, "batch_size")
        self.shuffle, self.verbose = as_bool(shuffle, "shuffle"), as_bool(verbose, "verbose")
        if learning_rate is None:
            learning_rate = getattr(optimizer, "learning_rate", LEARNING_RATE)
        if not callable(learning_rate):
            as_float(learning_rate, "learning_rate", ", or a function of the epoch")
        self.optimizer = as_optimizer(optimizer, learning_rate, momentum, nesterov)
        self.learning_rate = learning_rate
        self.callbacks = callbacks
        self.metrics = Metrics(metrics)
        self.augmentations = [] if augment is None else listed(augment)
        self.is_warm = as_bool(warm_start, "warm_start")
        self.checkpoint = None if resume is None else resuming.read(resume)
        self.keep_optimizer = keep_optimizer  # whether it goes on where the last training left it
        self.n_done = self.n_before = 0
        self.is_stopped = False

    def run(self, X, y, **options):
        """Train; if that fails before the first step, all is as it was.

        The options are those of `_read`.
        """
        network = self.network
        check_layers(network.layers)
        self.transaction = transaction = Transaction(network)
        try:
            transaction.begin()
            self._read(X, y, **options)
            self.published = publish(network, transaction)
            self._set_up()
            self._train()
        finally:
            try:
                if transaction.keep:
                    self._seen_by_all(self._end)
            finally:
                transaction.end()

    # --- setting up -----------------------------------------------------------------

    def _read(
        self,
        X,
        y,
        sample_weight=None,
        class_weight=None,
        validation_data=None,
        validation_fraction=None,
        classes=None,
    ):
        """Check the data, and find out what they are like."""
        network = self.network
        model = network._fitted() if self.is_warm and network._model is not None else None
        is_classifier = network.layers[-1].is_classifier
        self.encoding = encoding = (
            batches.Encoding(is_classifier) if model is None else batches.Encoding.of(model)
        )
        if classes is not None:
            encoding.take_classes(classes)
        self.data = batches.read(X, y, encoding, sample_weight, class_weight)
        if y is not None:
            self.batch_size = self.batch_size or BATCH_SIZE
        elif self.batch_size is not None:
            raise ValueError("batch_size is given beside batches, expected None")
        self.augment = Augmenter(self.augmentations, encoding.image_shape)
        self.validation = None
        if validation_data is not None and validation_fraction is not None:
            raise ValueError("validation_data and validation_fraction are given, expected one")
        if validation_data is not None:
            self.validation = batches.read_validation(validation_data, encoding)
        self.fraction = as_fraction(validation_fraction)
        if self.fraction is not None and y is None:
            raise ValueError("validation_fraction is given beside batches, expected arrays")
        self.warm_model = model

    def _set_up(self):
        network, encoding = self.network, self.encoding
        if self.checkpoint is None:
            self.streams = as_streams(network.rng)
        else:
            self.streams = resuming.streams_of(self.checkpoint)
        if self.warm_model is not None:
            self.model = go_on(network, self.warm_model)
            self.n_before = len(self.model.history)
        else:
            self.model = set_up(
                network,
                self.streams,
                encoding.image_shape,
                encoding.dtype,
                encoding.classes,
                encoding.target_shape,
                min(self.batch_size or len(self.data), len(self.data)),
                network._built_shape,
            )
        self.transaction.model = self.model
        if self.fraction is not None:
            self._hold_images_back()
        if self.warm_model is None and self.checkpoint is None:
            self._adapt()
        self.loans = []
        self._lend()
        self.params = collect(self.trained, "params")
        self.optimizer.bind(self.params)
        if self.keep_optimizer and self.warm_model is not None:
            self.optimizer.go_on(self.warm_model.optimizer)
        self.model.optimizer = self.optimizer
        self.memory = Work(None, True, False, Shared())
        self.call = resuming.call_of(self)
        monitors = self.metrics.monitors(self.model.is_classifier, self.validation is not None)
        for callback in self.callbacks:
            if isinstance(callback, Callback):
                callback.on_fit_begin(network, monitors)
        if self.checkpoint is not None:
            self.is_stopped = resuming.load(self, self.checkpoint)
            self.transaction.keep = True

    def _hold_images_back(self):
        data = self.data
        assert isinstance(data, batches.ArrayData)  # see _read
        rng = self.streams.named("validation")
        rows, held = split(data.target, self.fraction, self.encoding.classes, rng)
        self.data, self.validation = data.part(rows), data.part(held)

    def _adapt(self):
        """Let a first Standardize find out what the images are like."""
        row = lay_open(numbered(self.model.layers), "")
        first = next(layer for _, layer in row)
        for name, layer in walk(numbered(self.model.layers)):
            if isinstance(layer, Standardize) and layer.adapts():
                if layer is not first:
                    raise ValueError(
                        f"{describe(name, layer)} has no mean and scale, expected some for "
                        "any but the first layer"
                    )
                shape = self.model.image_shape
                layer.adapt(
                    (images.reshape(len(images), *shape), weights)
                    for images, _, weights in self.data.in_turn(VALIDATION_BATCH)
                )

    def _lend(self):
        """What the layers are lent for each step, by the plan of the model."""
        self.trace = self.model.trace
        self.loans = self.model.loans(training=True, streams=self.streams, before=self.loans)
        self.shared = self.loans[0][1].shared
        children = numbered(self.model.layers)
        frozen = frozen_in(children)
        layers = [layer for layer in layers_in(children) if id(layer) not in frozen]
        self.trained = [layer for layer in layers if isinstance(layer, ParamMixin)]
        self.names = list(trained_arrays(children, frozen))

    # --- epochs ---------------------------------------------------------------------

    def _train(self):
        while self.n_done < self.n_epochs and not self.is_stopped:
            epoch = self.n_done + 1
            self.optimizer.learning_rate = self._learning_rate(epoch)
            number = self.n_before + epoch
            self._start_streams(number)
            self.augment.restart(self.streams, number, self.data.n_rows)
            order = None
            if self.shuffle:
                order = self.streams.named("shuffle", number).permutation(len(self.data))
            for progress in self._epoch(epoch, order):
                if progress.epoch_done:
                    progress = self._end_epoch(progress)
                    if self.verbose:
                        print(line_of(progress), flush=True)
                self.is_stopped = bool(self.callbacks) and self._is_stopped_by(progress)
                if progress.epoch_done:
                    self._keep()
                if self.is_stopped:
                    return

    def _keep(self):
        """Write the checkpoints that are due."""
        is_last = self.is_stopped or self.n_done == self.n_epochs
        for callback in self.callbacks:
            is_due = isinstance(callback, Checkpoint) and (
                is_last or self.n_done % callback.every == 0
            )
            if is_due:
                resuming.save(self, callback.path, self.is_stopped)

    def _learning_rate(self, epoch):
        if not callable(self.learning_rate):
            return as_float(self.learning_rate, "learning_rate")
        return as_float(self.learning_rate(epoch - 1), "learning_rate")

    def _start_streams(self, number):
        """Each epoch has streams of its own: to go on there, no state of theirs is needed."""
        layers = [layer for layer, _ in self.loans]
        makers = self.streams.of_layers(layers, "work", number)
        for (_, work), make_rng in zip(self.loans, makers, strict=True):
            work.restart(make_rng)

    def _epoch(self, epoch, order):
        """Train for one epoch, and yield a Progress after each batch."""
        start = time.perf_counter()
        is_classifier = self.model.is_classifier
        sums, n_seen = Totals(0.0, 0.0, 0.0), 0
        self.metrics.restart()
        for images, *others in self.data.batches(order, self.batch_size, self._convert):
            # A diverging loss is reported as such, not as a warning about some overflow.
            found = quietly(partial(self._step, images, *others))
            if not isfinite(found.loss):
                self._diverge(
                    f"the loss became {found.loss / found.weight} in epoch {epoch}: try a smaller "
                    f"learning_rate than {self.optimizer.learning_rate}, or scale X to values "
                    "around 1"
                )
            self.transaction.keep = True
            n_seen += len(images)
            sums = Totals(*map(sum, zip(sums, found)))
            weight = sums.weight or 1.0  # all weights may be 0 so far
            yield Progress(
                self.network,
                epoch,
                self.n_epochs,
                n_seen,
                len(self.data),
                sums.loss / weight,
                (weight - sums.error) / weight if is_classifier else None,
                time.perf_counter() - start,
            )

    def _convert(self, values, rows):
        """A batch, in memory that the next one takes again."""
        shape = len(rows), *values.item_shape
        return values.batch(rows, self.memory.array(values.name, shape, values.dtype))

    def _step(self, images, target, weights, rows):
        """Train on a batch: the Totals before the step."""
        model = self.model
        if weights is not None and not weights.any():
            return Totals(0.0, 0.0, 0.0)
        images = self.augment(images, rows, self.memory.array)
        at_work = AtWork(model)
        try:
            at_work.begin()
            self.shared.weights = weights
            at_work.lend(self.loans)
            target = model.as_target(target)
            scores = model.program.fprop(images.reshape(len(images), *model.image_shape))
            compared = model.loss.compare(scores, target)
            found = totals(
                model.loss, compared, scores, target, weights, with_error=model.is_classifier
            )
            if isfinite(found.loss):
                self.metrics.add(model, compared.predictions, target)
                model.program.bprop(self._output_grad(compared.grad, scores.shape, weights))
                self.optimizer.step(collect(self.trained, "param_incs"))
        finally:
            at_work.end()
        return found

    def _output_grad(self, grad, shape, weights):
        """The gradient that the loss returned, in the network's dtype, times the weights."""
        grad = np.asarray(grad, self.model.dtype)
        if grad.shape != shape:
            raise ValueError(
                f"{self.model.loss_name()}.input_grad returned shape {grad.shape}, expected {shape}"
            )
        if weights is None:
            return grad
        factors = (weights * (len(weights) / weights.sum())).astype(grad.dtype)
        factors = factors.reshape(-1, *[1] * (grad.ndim - 1))
        return np.multiply(grad, factors, out=self.memory.array("grad", shape, grad.dtype))

    def _end_epoch(self, progress):
        if not all(np.isfinite(param).all() for param in self.params):
            self._diverge(f"a parameter became infinite or NaN in epoch {progress.epoch}: {ADVICE}")
        found = None
        if self.validation is not None:
            found = quietly(self._validate)
            if not isfinite(found.loss):
                self._diverge(
                    f"the validation loss became {found.loss} in epoch {progress.epoch}: {ADVICE}"
                )
            progress = progress._replace(val_loss=found.loss, val_error=found.error)
        progress = progress._replace(metrics=self.metrics.of_epoch(self.model, progress, found))
        self.model.history = self.model.history.plus(progress)
        self.n_done = progress.epoch
        return progress

    def _validate(self):
        return self.model.evaluate(
            self.validation,
            VALIDATION_BATCH,
            lambda model: True,
            with_loss=True,
            keep_decisions=bool(self.metrics),
        )

    def _diverge(self, message):
        """End the training: nothing of it is kept."""
        self.transaction.keep = False
        raise DivergedError(message)

    # --- callbacks --------------------------------------------------------------------

    def _is_stopped_by(self, progress):
        """Whether a callback wants that. While they run, everyone sees the last step."""
        return self._seen_by_all(self._call_back, progress)

    def _seen_by_all(self, function, *args):
        """What a function returns, during which everyone sees the last step."""
        network = self.network
        network._model = self.model
        try:
            return function(*args)
        finally:
            if network._transaction is not self.transaction:
                raise RuntimeError(
                    "this process was forked in a callback and trained the network anew, expected "
                    "it to end before the callback does"
                )
            network._model = self.published

    def _call_back(self, progress):
        is_stopped = False
        for callback in self.callbacks:
            try:
                answer = callback(progress)
            except StopTraining:
                answer = True
            self._take_up_changes()
            if not (answer is None or isinstance(answer, (bool, np.bool_))):
                raise TypeError(
                    f"callback returned {answer!r}, expected None or False, or True to stop"
                )
            is_stopped |= bool(answer)
        return is_stopped

    def _end(self):
        for callback in self.callbacks:
            if isinstance(callback, Callback):
                callback.on_fit_end(self.network)

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
