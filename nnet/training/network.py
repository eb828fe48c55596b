"""NeuralNetwork: a list of layers, trained by stochastic gradient descent."""

import time
from math import isfinite, prod
from threading import RLock

import numpy as np

from nnet.training import gradients
from nnet._dense import all_finite
from nnet.training.data import as_images, as_labels, as_values, batch_of, bc01_shape, check_lengths, encode
from nnet.layers import Layer, LogRegression, LossMixin, ParamMixin
from nnet.layers.base import as_bool, as_float, as_generator, as_int
from nnet.training.optimizers import SGD
from nnet.training.progress import Progress, describe
from nnet.work import AtWork, find_foreign, find_fusions

FEW_IMAGES = 16  # at once are always as fast as fewer
CACHE_BYTES = 2**20  # with more, 256 images through the MNIST network took twice as long
ADVICE = "try a smaller learning_rate, or scale X to values around 1"


class DivergedError(FloatingPointError):
    """The training loss or the parameters became NaN or infinite."""


class NeuralNetwork:
    """A feed-forward network.

    Parameters
    ----------
    layers : list of Layer
        The last one is a loss: LogRegression for classification,
        MeanSquaredError for regression, or a class of your own with LossMixin.
    rng : None, int, numpy.random.Generator or numpy.random.RandomState
        Initial parameters and the order of the images come from it. With an
        int every `fit` on the same data gives the same bits; a Generator or
        RandomState is consumed, so that a second `fit` gives others.

    Attributes
    ----------
    classes_ : array (n_classes,)
        The labels, sorted, as they occur in y; None for regression.
    dtype_ : numpy.dtype
        float32 or float64, of parameters and activations: the dtype of X in
        `fit` (integers, bools and half floats become float32).
    input_shape_ : tuple
        Shape of one image: X.shape[1:].
    loss_history_, val_loss_history_, val_error_history_ : list of float
        One value for each finished epoch; the latter two are empty without
        validation data.
    """

    def __init__(self, layers, rng=None):
        self.layers = list(layers)
        for i, layer in enumerate(self.layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"layers[{i}] is {layer!r}, expected an instance of Layer")
            if isinstance(layer, LossMixin) != (layer is self.layers[-1]):
                raise ValueError(
                    f"layers[{i}] is a {type(layer).__name__}, expected the last layer, and no "
                    "other, to be a loss: LogRegression() or MeanSquaredError()"
                )
        if len(set(map(id, self.layers))) < len(self.layers):
            raise ValueError("layers has the same object twice, expected one object per layer")
        self._sort_layers()
        if not self._trained:
            raise ValueError("no layer has parameters, expected at least one such as Linear(n_out)")
        self.rng = rng
        as_generator(rng)
        self.input_shape_ = None
        self._lock = RLock()

    def _sort_layers(self):
        self._trained = [i for i, a in enumerate(self.layers) if isinstance(a, ParamMixin)]
        self._foreign = find_foreign(self.layers)
        self._fusions = find_fusions(self.layers)

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state):
        vars(self).update(state)
        self._lock = RLock()

    # --- training -------------------------------------------------------------

    def fit(
        self,
        X,
        y,
        learning_rate=0.1,
        max_iter=10,
        batch_size=64,
        momentum=0.0,
        nesterov=False,
        shuffle=True,
        validation_data=None,
        verbose=False,
        callback=None,
    ):
        """Train afresh on images X and targets y.

        Parameters
        ----------
        X : array (n_imgs, n_channels, img_h, img_w)
            Or (n_imgs, n_channels, length): signals, which train as images of
            height 1. Or (n_imgs, n_features), for networks without Conv and Pool.
        y : array (n_imgs,) of labels of any one kind, or of floats for regression
            Regression targets may have more axes: those of the last layer's output.
        learning_rate : float, or callable epoch -> float with epochs counted from 0
        max_iter : int
            Number of epochs. Each one uses every image once.
        batch_size : int
            The last batch of an epoch may be smaller.
        momentum, nesterov : float, bool
            See `SGD`.
        shuffle : bool
            Draw a new order of the images for each epoch.
        validation_data : None or (X, y)
            Evaluated after each epoch.
        verbose : bool
            Print one line after each epoch.
        callback : None or callable
            Called with a `Progress` after each batch; training stops if it
            returns true. An exception that it raises, or a KeyboardInterrupt,
            leaves the network usable with the parameters of the last step.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For arrays, options or layers that do not fit together.
        DivergedError
            If the loss of a batch, or a parameter after an epoch, is not finite.
            The network then counts as not fitted.
        """
        n_epochs, batch_size = as_int(max_iter, "max_iter", 1), as_int(batch_size, "batch_size", 1)
        shuffle, verbose = as_bool(shuffle, "shuffle"), as_bool(verbose, "verbose")
        rate = learning_rate if callable(learning_rate) else lambda epoch: learning_rate
        SGD([], rate(0), momentum, nesterov)  # refuses bad options before any work
        if callback is not None and not callable(callback):
            raise TypeError(f"callback is {callback!r}, expected None or a callable")
        X = np.ascontiguousarray(as_images(X))  # np.take would copy it for every batch
        rng = as_generator(self.rng)
        target = self._setup(X, y, batch_size, rng)
        try:
            validation_data = self._as_validation(validation_data)
        except (TypeError, ValueError):
            self.input_shape_ = None  # set up, but not fitted
            raise
        optimizer = SGD(self.params(), rate(0), momentum, nesterov)

        try:
            with self._at_work(training=True):
                for epoch in range(1, n_epochs + 1):
                    optimizer.learning_rate = as_float(rate(epoch - 1), "learning_rate(epoch)")
                    order = rng.permutation(len(X)) if shuffle else np.arange(len(X))
                    epochs = epoch, n_epochs
                    for progress in self._epoch(X, target, order, batch_size, optimizer, epochs):
                        if progress.epoch_done:
                            progress = self._end_epoch(progress, validation_data)
                            if verbose:
                                print(describe(progress), flush=True)
                        if callback is not None and callback(progress):
                            return self
        except DivergedError:
            self.input_shape_ = None  # its parameters are of no use
            raise
        return self

    def _setup(self, X, y, batch_size, rng, classes=None):
        """Set up the layers and everything that follows from X and y; return the target."""
        check_lengths(X, y)
        if len(X) == 0:
            raise ValueError("X has no images, expected at least one")
        if self.layers[-1].is_classifier:
            labels = as_labels(y)
            classes = np.unique(labels) if classes is None else classes
            if len(classes) < 2:
                raise ValueError(f"y has only {classes.tolist()}, expected at least 2 classes")
            target = encode(labels, classes, "y")
            target_shape, output_shape = (), (len(classes),)
        else:
            target = as_values(y, X.dtype)
            target_shape, output_shape = target.shape[1:], target.shape[1:] or (1,)
            target = target.reshape(len(X), *output_shape)

        self.input_shape_ = None  # not fitted, should a layer refuse its input
        self._setup_layers((min(batch_size, len(X)), *bc01_shape(X.shape[1:])), X.dtype, rng)
        if self._shapes[-1] != output_shape:
            what = "the targets" if classes is None else f"the {len(classes)} classes"
            raise ValueError(
                f"{self._name(-1)} gets {self._shapes[-1]} values for each image, "
                f"expected {output_shape} for {what} of y"
            )
        self.classes_, self.target_shape_ = classes, target_shape
        self.dtype_, self.input_shape_ = X.dtype, X.shape[1:]
        self.loss_history_, self.val_loss_history_, self.val_error_history_ = [], [], []
        return target

    def _setup_layers(self, shape, dtype, rng):
        self._sort_layers()  # the list may have changed since __init__
        self._shapes = [shape[1:]]  # of one image, before each layer and after the last
        for i, layer in enumerate(self.layers):
            layer.dtype = dtype
            try:
                layer._setup(shape, rng)
                shape = tuple(layer.output_shape(shape))
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                message = f"{self._name(i)} cannot take an input of shape {shape}: {error}"
                raise kind(message) from error
            self._shapes.append(shape[1:])

    def _name(self, i):
        return f"layer {i % len(self.layers)} ({type(self.layers[i]).__name__})"

    def _epoch(self, X, target, order, batch_size, optimizer, epochs):
        """Train for one epoch, and yield a Progress after each batch."""
        start = time.perf_counter()
        images = X.reshape(len(X), *self._shapes[0])
        work = np.empty((min(batch_size, len(X)), *self._shapes[0]), X.dtype)
        loss_sum = n_right = n_seen = 0
        for first in range(0, len(X), batch_size):
            rows = order[first : first + batch_size]
            # With mode='raise', take would first copy to a buffer of its own.
            batch = images.take(rows, 0, work[: len(rows)], "clip")
            loss, right = self._step(batch, target[rows], optimizer)
            if not isfinite(loss):
                raise DivergedError(
                    f"the loss became {loss} in epoch {epochs[0]}: try a smaller learning_rate "
                    f"than {optimizer.learning_rate}, or scale X to values around 1"
                )
            n_seen += len(rows)
            loss_sum += loss * len(rows)
            n_right += right
            accuracy = n_right / n_seen if self.layers[-1].is_classifier else None
            seconds = time.perf_counter() - start
            yield Progress(self, *epochs, n_seen, len(X), loss_sum / n_seen, accuracy, seconds)

    def _step(self, batch, target, optimizer):
        """Train on one batch: its mean loss, and how many images were right before the step."""
        loss_layer = self.layers[-1]
        # A diverging loss is reported as such, not as a warning about some overflow.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            scores = self._forward(batch)
            if type(loss_layer) is LogRegression:  # a subclass may have another loss or gradient
                loss, n_right, grad = loss_layer.loss_and_grad(scores, target)
            else:
                loss, n_right = float(loss_layer.loss(scores, target)), 0
                if loss_layer.is_classifier:
                    n_right = int(np.sum(np.argmax(loss_layer.fprop(scores), axis=1) == target))
                grad = loss_layer.input_grad(scores, target)
                grad = self._conform(grad, scores.shape, -1, "input_grad")
            if isfinite(loss):
                self._backward(grad)
                optimizer.step(self._collect("param_incs"))
        return loss, n_right

    def _end_epoch(self, progress, validation_data):
        if not all(np.isfinite(param).all() for param in self.params()):
            raise DivergedError(
                f"a parameter became infinite or NaN in epoch {progress.epoch}: {ADVICE}"
            )
        self.loss_history_.append(progress.loss)
        if validation_data is None:
            return progress
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            val_loss, val_error = self._evaluate(*validation_data)
        if not np.isfinite(val_loss):
            raise DivergedError(
                f"the validation loss became {val_loss} in epoch {progress.epoch}: {ADVICE}"
            )
        self.val_loss_history_.append(val_loss)
        self.val_error_history_.append(val_error)
        return progress._replace(val_loss=val_loss, val_error=val_error)

    # --- the two directions ---------------------------------------------------

    def _at_work(self, training):
        """A context for all that layers compute. Another thread that wants to predict waits."""
        first = self.layers[self._trained[0]]
        return AtWork(self.layers, self._shapes, self._fusions, first, training, self._lock)

    def _forward(self, batch):
        """The scores: what the last layer, the loss, takes."""
        n_imgs = len(batch)
        for i, layer in enumerate(self.layers[:-1]):
            batch = layer.fprop(batch)
            if i in self._foreign:
                batch = self._conform(batch, (n_imgs, *self._shapes[i + 1]), i, "fprop")
        return batch

    def _backward(self, grad):
        """Let the layers compute their parameters' gradients, down to the first that has any."""
        n_imgs = len(grad)
        for i in range(len(self.layers) - 2, self._trained[0] - 1, -1):
            # Another's layer may keep it, while nnet's own layers use the memory again.
            grad = self.layers[i].bprop(grad.copy() if i in self._foreign else grad)
            if i in self._foreign and self.layers[i].need_input_grad:
                grad = self._conform(grad, (n_imgs, *self._shapes[i]), i, "bprop")

    def _conform(self, array, shape, i, method):
        """What a layer returned, in the network's dtype; refused if of a wrong shape."""
        array = np.asarray(array, self.dtype_)
        if array.shape != shape:
            raise ValueError(
                f"{self._name(i)}.{method} returned shape {array.shape}, expected {shape}"
            )
        return array

    def _collect(self, method):
        """The lists that a method of all layers with parameters returns, as one list."""
        return [array for i in self._trained for array in getattr(self.layers[i], method)()]

    # --- prediction -----------------------------------------------------------

    def predict(self, X, batch_size=256):
        """Labels, or values of y's shape.

        Parameters
        ----------
        X : array (n_imgs, ...), each image of the shape that `fit` saw
            No images give an empty result.

        Returns
        -------
        array (n_imgs,) with the dtype of `classes_`
            For regression (n_imgs, ...) as y in `fit`, with the dtype of X there.

        Raises
        ------
        ValueError
            Before `fit`, and for images of another shape, or not finite.
        """
        predictions = self._predictions(self._as_fitted(X), batch_size)
        if self.layers[-1].is_classifier:
            return self.classes_[np.argmax(predictions, axis=1)]
        return predictions.reshape(len(predictions), *self.target_shape_)

    def predict_proba(self, X, batch_size=256):
        """Class probabilities, array (n_imgs, n_classes), columns in the order of `classes_`.

        Parameters and errors as for `predict`; TypeError for a regression network.
        """
        if not self.layers[-1].is_classifier:
            raise TypeError(
                f"{self._name(-1)} predicts values, expected a classifier as last layer"
            )
        return self._predictions(self._as_fitted(X), batch_size)

    def error(self, X, y, batch_size=256):
        """Fraction of wrong labels; for regression, the mean squared error.

        Labels that `fit` did not see count as wrong.
        """
        X = self._as_fitted(X)
        check_lengths(X, y)
        if len(X) == 0:
            raise ValueError("X has no images, expected at least one")
        return self._evaluate(X, self._as_target(y), batch_size)[1]

    def _as_fitted(self, X):
        """X as `fit` would take it, refused if its images have another shape."""
        if self.input_shape_ is None:
            raise ValueError("this network is not fitted yet, expected a call of fit first")
        X = as_images(X, self.dtype_)
        if X.shape[1:] != self.input_shape_:
            raise ValueError(f"X has shape {X.shape}, expected {batch_of(self.input_shape_)}")
        return X

    def _as_target(self, y, strict_name=None):
        """What the loss compares with: class indices or values."""
        if self.layers[-1].is_classifier:
            return encode(as_labels(y), self.classes_, strict_name)
        y = as_values(y, self.dtype_)
        if y.shape[1:] != self.target_shape_:
            raise ValueError(f"y has shape {y.shape}, expected {batch_of(self.target_shape_)}")
        return y.reshape(len(y), *self._shapes[-1])

    def _as_validation(self, validation_data):
        """What `_evaluate` takes, from what `fit` takes."""
        if validation_data is None:
            return None
        try:
            X, y = validation_data
        except (TypeError, ValueError):
            raise ValueError("validation_data is not a pair, expected None or (X, y)") from None
        X = self._as_fitted(X)
        check_lengths(X, y)
        if len(X) == 0:
            raise ValueError("validation_data has no images, expected at least one")
        return X, self._as_target(y, "validation_data")

    def _scores(self, X, batch_size):
        batch_size = as_int(batch_size, "batch_size", 1)
        if len(X) > FEW_IMAGES:
            batch_size = min(batch_size, self._images_in_cache())
        images = X.reshape(len(X), *self._shapes[0])
        if len(X) <= batch_size and not self._foreign:  # another's layer may return its own array
            return self._forward(images)
        scores = np.empty((len(X), *self._shapes[-2]), self.dtype_)
        for start in range(0, len(X), batch_size):
            scores[start : start + batch_size] = self._forward(images[start : start + batch_size])
        return scores

    def _images_in_cache(self):
        """As many as leave the next layer the largest activation in the L2 cache."""
        return max(FEW_IMAGES, CACHE_BYTES // (self.dtype_.itemsize * max(map(prod, self._shapes))))

    def _predictions(self, X, batch_size):
        with self._at_work(training=False):
            scores = self._scores(X, batch_size)
            if not all_finite(scores):
                raise DivergedError(
                    "the last layer gets NaN or infinite values: the training diverged, or X is "
                    "far larger than in training"
                )
            return self.layers[-1].fprop(scores)

    def _evaluate(self, X, target, batch_size=256):
        """Mean loss and error."""
        loss_layer = self.layers[-1]
        with self._at_work(training=False):
            scores = self._scores(X, batch_size)
            predictions = loss_layer.fprop(scores)
            loss = float(loss_layer.loss(scores, target))
        if loss_layer.is_classifier:
            return loss, float(np.mean(np.argmax(predictions, axis=1) != target))
        return loss, float(np.mean(np.square(predictions - target)))

    # --- parameters -----------------------------------------------------------

    def params(self):
        """All parameter arrays, first layer first: the live arrays, which may be written to."""
        return self._collect("params")

    def check_gradients(self, X, y, eps=1e-6, max_checks=20):
        """Compare the layers' gradients with central differences, in float64.

        The network itself does not change. Before `fit`, freshly drawn
        parameters are used.

        Parameters
        ----------
        X, y : as for `fit`; a few images are enough
        eps : float
            Each checked parameter is moved by this much, both ways.
        max_checks : int or None
            At most so many elements of each array, drawn at random; None for all.

        Returns
        -------
        list of GradientError
            One (name, abs_error, rel_error) for each array of `params()`.
        """
        return gradients.check(self, X, y, eps, max_checks)

    # --- files ----------------------------------------------------------------

    def save(self, path):
        """Write architecture and parameters to a safetensors file.

        An existing file is replaced in one step. Needs the extra nnet[train].

        Raises
        ------
        ValueError
            Before `fit`, and for layers that are not nnet's own.
        """
        if self.input_shape_ is None:
            raise ValueError("this network is not fitted yet, expected a call of fit first")
        from nnet.files import saving  # only now: it needs modules that import nnet can do without

        saving.save(self, path)

    @classmethod
    def load(cls, path):
        """The network that `save` wrote: it predicts the same bits.

        Its rng is None and its histories are empty. No code of the file runs.

        Raises
        ------
        ValueError
            For a file that is truncated, changed, or not from `save`.
        """
        from nnet.files import saving

        layers, fitted = saving.load(path)
        network = cls(layers)
        vars(network).update(fitted)
        return network
