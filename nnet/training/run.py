"""TrainingRun: one call of fit, from its arguments to the last step."""

import time
from contextlib import ExitStack
from functools import partial
from math import isfinite, isnan, nan
from operator import is_
from typing import Any

import numpy as np

from nnet._atomic import AtWork, Shared, Transaction, Work, all_writable, quietly
from nnet.files.folders import ImageFolder
from nnet.layers.arguments import as_bool, as_count
from nnet.layers.base import ParamMixin
from nnet.layers.loss import Totals, totals
from nnet.layers.streams import as_streams
from nnet.layers.tree import (
    collect,
    decaying,
    frozen_in,
    layers_in,
    numbered,
    trained_arrays,
)
from nnet.training import batches, resuming
from nnet.training.augmenting import Augmenter, listed
from nnet.training.callbacks import Callback, Checkpoint
from nnet.training.cautions import AFRESH, warn, warn_of_labels, warn_of_values
from nnet.training.clipping import Clipping
from nnet.training.metrics import Metrics
from nnet.training.model import with_items
from nnet.training.optimizers import as_optimizer, check_decay
from nnet.training.progress import DivergedError, Progress, StopTraining
from nnet.training.setup import (
    adapt,
    check_layers,
    check_trained,
    draws_anew,
    go_on,
    publish,
    set_up,
)
from nnet.training.states import States
from nnet.training.stepping import Stepping
from nnet.training.telling import Telling
from nnet.training.weights import as_fraction, split

BATCH_SIZE = 64
VALIDATION_BATCH = 256  # images, at most


class TrainingRun:
    """One training of a network. Options are refused here, before anything changes.

    See `NeuralNetwork.fit` for the parameters.

    Attributes
    ----------
    given, data : ArrayData or IterableData
        What fit was given to train on; without the images that are held back.
    n_done : int
        How many epochs of this training have ended.
    n_before : int
        How many epochs other trainings had before, from which this one goes on: no epoch has the
        random numbers of another.
    """

    given: batches.ArrayData | batches.IterableData
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
        clip_norm=None,
        clip_value=None,
        keep_optimizer=False,
    ):
        self.network = network
        self.n_epochs = as_count(max_iter, "max_iter")
        self.batch_size = None if batch_size is None else as_count(batch_size, "batch_size")
        self.shuffle = as_bool(shuffle, "shuffle")
        self.verbose = as_bool(1 if verbose == 2 else verbose, "verbose")  # Keras's, of one line
        self.stepping = Stepping(as_optimizer(optimizer, learning_rate, momentum, nesterov))
        self.clipping = Clipping(clip_norm, clip_value)
        self.callbacks, self.telling = callbacks, Telling(callbacks)
        self.metrics = Metrics(metrics)
        self.augmentations = [] if augment is None else listed(augment)
        self.is_warm = as_bool(warm_start, "warm_start")
        self.checkpoint = None if resume is None else resuming.read(resume)
        self.keep_optimizer = keep_optimizer  # whether it goes on where the last training left it
        if keep_optimizer:
            self.stepping.check_open_end()
        self.n_done = self.n_before = 0
        self.is_stopped = False

    def run(self, X, y, **options):
        """Train; if that fails before the first step, all is as it was.

        The options are those of `_read`.
        """
        network = self.network
        check_trained(check_layers(network.layers))
        self.transaction = transaction = Transaction(network)
        try:
            transaction.begin()
            self._read(X, y, **options)
            self.published = publish(network, transaction)
            self._set_up()
            self._train()
        finally:
            try:
                try:
                    if transaction.keep:
                        if isinstance(X, ImageFolder):
                            network.preparation = X.preparation
                        self._seen_by_all(self._call_all, "on_fit_end", network)
                        if self.verbose:
                            self.telling.end(self.n_done, self.n_epochs)
                finally:
                    transaction.end()
                    self.stepping.end()
            finally:
                self._call_all("close")

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
        self.encoding = encoding = (
            batches.Encoding(network.layers[-1]) if model is None else batches.Encoding.of(model)
        )
        if classes is not None:
            encoding.take_classes(classes)
        self.is_weighted = sample_weight is not None or class_weight is not None
        self.given = self.data = batches.read(X, y, encoding, sample_weight, class_weight)
        if y is not None:
            self.batch_size = self.batch_size or BATCH_SIZE
        elif self.batch_size is not None:
            raise ValueError("batch_size is given beside batches, expected None")
        self.validation = None
        if validation_data is not None and validation_fraction is not None:
            raise ValueError("validation_data and validation_fraction are given, expected one")
        if validation_data is not None:
            self.validation = batches.read_validation(validation_data, encoding)
        self.fraction = as_fraction(validation_fraction)
        if self.fraction is not None and y is None:
            raise ValueError("validation_fraction is given beside batches, expected arrays")
        self.warm_model = model
        starts_afresh = model is None and self.checkpoint is None
        is_loaded = network._model is not None and network._model.is_loaded
        self.loses_loaded = starts_afresh and is_loaded and draws_anew(network.layers)

    def _set_up(self):
        network, encoding = self.network, self.encoding
        self.streams = as_streams(network.rng)
        if self.checkpoint is not None:
            self.streams = resuming.streams_of(self.checkpoint)
        if self.warm_model is not None:
            self.model = go_on(network, self.warm_model)
            self.n_before = len(self.model.history)
        else:
            self.model = set_up(
                network,
                self.streams,
                encoding,
                min(self.batch_size or len(self.data), len(self.data)),
                network._built_shape,
            )
            if self.loses_loaded:
                warn(AFRESH)
        self.transaction.model = model = self.model
        shapes = model.input_shape, model.target_shape
        self.augment = Augmenter(self.augmentations, *shapes, model.loss, model.scores_shape)
        if self.fraction is not None:
            self._hold_images_back()
        if self.validation is not None and self.validation.weighs_nothing():
            raise ValueError("the weights of all images to validate are zero, expected some more")
        if self.warm_model is None and self.checkpoint is None:
            warn_of_values(network.layers, self.data, self.validation)
            warn_of_labels(self.model, self.data)
            adapt(self.model, self.data)
        self.loans = []
        self._lend()
        self.params = collect(self.trained, "params")
        self.memory = Work(None, True, False, Shared())
        monitors = self.metrics.monitors(
            self.model.loss.has_probabilities, self.validation is not None
        )
        self.stepping.begin(
            dict(zip(self.names, self.params)),
            decaying(self.trained),
            self.n_epochs,
            self.data.n_batches(self.batch_size),
            monitors,
            self.warm_model.stepping if self.keep_optimizer and self.warm_model else None,
        )
        self.model.stepping = self.stepping
        if self.checkpoint is not None or self._checkpoints():
            for data in (self.data, self.validation):
                if isinstance(data, batches.IterableData):
                    data.must_repeat()
            self.call = resuming.call_of(self)
        for callback in self.callbacks:
            if isinstance(callback, Callback):
                callback.on_fit_begin(network, monitors)
        if self.verbose:
            self.telling.begin(network, self.model, self.data, self.stepping, self.is_weighted)
        if self.checkpoint is not None:
            self.is_stopped = resuming.load(self, self.checkpoint)
            self.transaction.keep = True

    def _hold_images_back(self):
        assert isinstance(self.given, batches.ArrayData)  # see _read
        rng = self.streams.named("validation")
        rows, held = split(self.given.target, self.fraction, self.encoding.classes, rng)
        self.data, self.validation = self.given.parts(rows, held)

    def _checkpoints(self):
        return [callback for callback in self.callbacks if isinstance(callback, Checkpoint)]

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
        self.states = States(children, frozen)
        check_decay(self.stepping.optimizer, self.trained)

    # --- epochs ---------------------------------------------------------------------

    def _train(self):
        while self.n_done < self.n_epochs and not self.is_stopped:
            epoch = self.n_done + 1
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
                        self.telling.epoch(progress)
                self.is_stopped = bool(self.callbacks) and self._is_stopped_by(progress)
                if progress.epoch_done:
                    self._keep()
                if self.is_stopped:
                    return

    def _keep(self):
        """Write the checkpoints that are due."""
        is_last = self.is_stopped or self.n_done == self.n_epochs
        for checkpoint in self._checkpoints():
            if is_last or self.n_done % checkpoint.every == 0:
                resuming.save(self, checkpoint.path, self.is_stopped)

    def _start_streams(self, number):
        """Each epoch has streams of its own: to go on there, no state of theirs is needed."""
        layers = [layer for layer, _ in self.loans]
        makers = self.streams.of_layers(layers, "work", number)
        for (_, work), make_rng in zip(self.loans, makers, strict=True):
            work.restart(make_rng)

    def _epoch(self, epoch, order):
        """Train for one epoch, and yield a Progress after each batch."""
        start = time.perf_counter()
        has_accuracy = self.model.loss.has_probabilities
        sums, n_seen = Totals(0.0, 0.0, 0.0), 0
        self.metrics.restart()
        of_epoch = self.data.batches(order, self.batch_size, self._convert)
        for i, (images, *others) in enumerate(of_epoch):
            self.stepping.begin_step(i)
            # A diverging loss is reported as such, not as a warning about some overflow.
            found = quietly(partial(self._step, images, *others))
            if not isfinite(found.loss):
                rate = self.stepping.optimizer.learning_rate
                self._diverge(
                    f"the loss became {found.loss / found.weight} in epoch {epoch}",
                    f"learning_rate than {rate}",
                )
            self.transaction.keep = True
            n_seen += len(images)
            sums = sums.plus(found)
            if n_seen >= len(self.data):
                self._check_end(epoch, n_seen, of_epoch, sums.weight)
            weight = sums.weight or nan  # all weights may be 0 so far
            yield Progress(
                self.network,
                epoch,
                self.n_epochs,
                n_seen,
                len(self.data),
                sums.loss / weight,
                (weight - sums.error) / weight if has_accuracy else None,
                time.perf_counter() - start,
                learning_rate=self.stepping.optimizer.learning_rate,
            )
        if n_seen < len(self.data):
            self._refuse_length(epoch, f"only {n_seen}")

    def _check_end(self, epoch, n_seen, of_epoch, weight):
        """Refuse images beyond the last one, and a fit whose images weigh nothing."""
        if n_seen > len(self.data) or next(of_epoch, None) is not None:
            self._refuse_length(epoch, "more")
        if weight == 0 and self.n_done == 0 and not self.keep_optimizer:
            self.transaction.keep = False
            raise ValueError("the weights of all images are zero, expected some more")

    def _refuse_length(self, epoch, how_many):
        raise ValueError(
            f"X gave {how_many} images in epoch {epoch}, expected {len(self.data)}, as when it "
            "was looked at: the same number in each epoch"
        )

    def _convert(self, values, rows):
        """A batch, in memory that the next one takes again."""
        if isinstance(values, np.ndarray):  # class indices
            shape = len(rows), *values.shape[1:]
            return values.take(rows, 0, self.memory.array("labels", shape, values.dtype), "clip")
        shape = len(rows), *values.item_shape
        return values.batch(rows, self.memory.array(values.name, shape, values.dtype))

    def _step(self, images, target, weights, rows):
        """Train on a batch: the Totals before the step."""
        model = self.model
        if weights is not None and not weights.any():
            return Totals(0.0, 0.0, 0.0)
        if self.augmentations:
            images, target = self.augment(images, target, rows, self.memory.array)
        at_work = AtWork(model)
        try:
            at_work.begin()
            self.shared.weights = weights
            if self.states:  # what a step that is cut short has changed is put back
                at_work.guard(self.states.pairs)
            at_work.lend(self.loans)
            target = model.as_target(target)
            scores = model.program.fprop(with_items(images, model.image_shape))
            compared = model.loss.compare(scores, target)
            with_error = model.loss.has_probabilities
            found = totals(model.loss, compared, scores, target, weights, with_error)
            if isfinite(found.loss):
                self.metrics.add(model, compared.predictions, target, weights)
                model.program.bprop(self._output_grad(compared.grad, scores.shape, weights))
                incs = self.clipping.incs(self.trained)
                self.states.check()
                self.stepping.optimizer.step(incs)
                at_work.stepped = True  # nnet's own optimizers have said so themselves
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
        factors = weights / weights.max()  # so that no weights are too small or too large
        factors = (factors * (len(weights) / factors.sum())).astype(grad.dtype)
        factors = factors.reshape(-1, *[1] * (grad.ndim - 1))
        return np.multiply(grad, factors, out=self.memory.array("grad", shape, grad.dtype))

    def _end_epoch(self, progress):
        if not all(np.isfinite(array).all() for array in [*self.params, *self.states.arrays()]):
            self._diverge(
                f"a parameter or statistic became infinite or NaN in epoch {progress.epoch}"
            )
        found = None
        if self.validation is not None:
            found = quietly(self._validate)
            if not isfinite(found.loss):
                self._diverge(f"the validation loss became {found.loss} in epoch {progress.epoch}")
            progress = progress._replace(val_loss=found.loss, val_error=found.error)
        progress = progress._replace(metrics=self.metrics.of_epoch(self.model, progress, found))
        self.model.history = self.model.history.plus(progress)
        if not isnan(progress.loss):  # all weights are 0: nothing changes
            self.stepping.end_epoch(progress)
        self.n_done = progress.epoch
        return progress

    def _validate(self):
        return self.model.evaluate(
            self.validation,
            VALIDATION_BATCH,
            lambda model: True,
            with_loss=True,
            watch=self.metrics.add_validated if self.metrics else None,
        )

    def _diverge(self, message, rate="learning_rate"):
        """End the training: nothing of it is kept."""
        self.transaction.keep = False
        what = "X" if self.model.loss.has_probabilities else "X and y"
        raise DivergedError(f"{message}: try a smaller {rate}, or scale {what} to values around 1")

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
                kind = type(answer).__name__
                raise TypeError(
                    f"callback returned a {kind}, expected None or False, or True to stop"
                )
            is_stopped |= bool(answer)
        return is_stopped

    def _call_all(self, method, *args):
        """Call a method of all callbacks that have it, also where one of them raises."""
        with ExitStack() as stack:
            for callback in reversed(self.callbacks):  # the stack is emptied from its end
                if isinstance(callback, Callback):
                    stack.callback(getattr(callback, method), *args)

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
        self.stepping.optimizer.exchange(params, self.names)
        self.params = params
