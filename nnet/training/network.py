"""NeuralNetwork: layers that are trained together."""

import copy

from nnet._atomic import write_all
from nnet.layers.arguments import as_count, as_float
from nnet.layers.streams import as_generator
from nnet.layers.tree import numbered
from nnet.training.batches import read_known
from nnet.training.callbacks import as_callbacks
from nnet.training.data import Images
from nnet.training.inside import Inside
from nnet.training.model import NETWORKS, Model, remember
from nnet.training.run import TrainingRun
from nnet.training.setup import build, check_layers, claim


class NeuralNetwork(Inside):
    """A feed-forward network.

    Parameters
    ----------
    layers : list of Layer
        The last one is a loss: LogRegression for classification,
        MeanSquaredError for regression, or a class of your own with LossMixin.
        A layer belongs to one network: the first that trains or builds it.
    rng : None, int, numpy.random.Generator or numpy.random.RandomState
        Initial parameters, the order of the images and whatever else is drawn
        come from it. With an int every `fit` on the same data gives the same
        bits; of a Generator or RandomState each `fit` takes one number, so that
        a second `fit` gives others.

    Attributes
    ----------
    classes_ : array (n_classes,)
        The labels, sorted, as they occur in y; None for regression.
    dtype_ : numpy.dtype
        float32 or float64, of parameters and activations: the dtype of X in
        `fit` (integers, bools and half floats become float32).
    input_shape_ : tuple
        Shape of one image: X.shape[1:]; None before `fit` or `build`.
    history_ : dict of lists of float
        One value for each finished epoch: "loss", for classification "accuracy", the `metrics`
        of fit, and with validation data the same for these as "val_loss" and so on.
    loss_history_, val_loss_history_, val_error_history_ : list of float
        One value for each finished epoch; the latter two are empty without
        validation data.

    Notes
    -----
    Any number of threads may use a network. While `fit` runs, all others see the
    last training that has ended (before the first: a network that is not fitted);
    inside of a callback, and in whatever the callback waits for, everyone sees the
    last step. One prediction at a time is computed: a prediction waits for those
    before it, and after a callback for at most one step of the training, which in turn waits
    for predictions that have begun in the callback. A second `fit` meanwhile is refused.

    An exception at any moment, such as KeyboardInterrupt, leaves a network that can be used.
    """

    def __init__(self, layers, rng=None):
        self.layers = layers
        as_generator(rng)
        self.rng = rng
        self._start()

    def _start(self, model=None, built_shape=None):
        self._model = model  # what everyone sees, None before fit
        self._transaction = None  # of the fit that runs
        self._is_changed = False  # whether an option of a layer has
        self._built_shape = built_shape
        remember(NETWORKS, self)

    @property
    def layers(self):
        """A list; what is changed in it is taken up, or refused, by the next call."""
        return self._layers

    @layers.setter
    def layers(self, layers):
        self._layers = check_layers(layers)

    # --- training -------------------------------------------------------------

    def fit(
        self,
        X,
        y=None,
        learning_rate=None,
        max_iter=10,
        batch_size=None,
        momentum=0.0,
        nesterov=False,
        shuffle=True,
        validation_data=None,
        verbose=False,
        callback=None,
        optimizer=None,
        *,
        sample_weight=None,
        class_weight=None,
        validation_fraction=None,
        metrics=(),
        callbacks=(),
        warm_start=False,
        resume=None,
        augment=None,
    ):
        """Train on images X and targets y: afresh, unless `warm_start` or `resume` says else.

        Parameters
        ----------
        X : array (n_imgs, n_channels, img_h, img_w)
            Or (n_imgs, n_channels, length): signals, which train as images of
            height 1; all windows must have that height, or be given as one number, and
            n_channels and length differ: else they look like images without channels.
            A last axis of 1, 3 or 4 beside two of at least 8 looks like one of channels and is
            refused, unless `build` was given that shape; columns (n_channels, length, 1) pass
            where windows are so too, as (5, 1) is, and n_channels and length differ.
            Or (n_imgs, n_features), for networks without Conv and Pool.
            Converted to floats batch by batch; it may be a memory-mapped file.
            Or, without y, an iterable of batches (X, y) or (X, y, weights) that gives them anew
            in each epoch, such as a PyTorch DataLoader: in its own order. Once before the first
            epoch it is only looked at.
        y : array (n_imgs,) of labels of any one kind, or of floats for regression
            Regression targets may have more axes: those of the last layer's output. They
            are converted to the dtype of X batch by batch.
        learning_rate : float, or callable epoch -> float with epochs counted from 0
            Called once for each epoch. Default: 0.1, or that of the optimizer.
        max_iter : int
            Number of epochs. Each one uses every image once.
        batch_size : int
            Default: 64. The last batch of an epoch may be smaller.
        momentum, nesterov : float, bool
            See `SGD`.
        shuffle : bool
            Draw a new order of the images for each epoch.
        validation_data : None, (X, y), (X, y, weights) or an iterable of batches
            Evaluated after each epoch.
        verbose : bool
            Print one line after each epoch.
        callback : None or callable
            Called with a `Progress` after each batch. Training stops if it returns True or
            raises `StopTraining`, and goes on if it returns None or False.
        optimizer : None, 'sgd' or Optimizer
            None is SGD with the momentum given. An instance is copied, and starts afresh.
        sample_weight : None or array (n_imgs,)
            At least 0. The loss, its gradient and the accuracy are weighted means over a batch:
            an image of weight 2 counts as two. A batch of zeros changes nothing.
        class_weight : None, 'balanced' or dict of float by label
            Multiplies the weights of the images of each class; classes that are not named weigh
            1. 'balanced' is n_imgs / (n_classes * count).
        validation_fraction : None or float
            This part of the images is held back for validation, of each class the same.
        metrics : callables of (y, predictions)
            Such as those of sklearn.metrics: their values, for the training and the validation
            images of each epoch, stand in `history_`.
        callbacks : list of callables
            Like `callback`, and `Callback` objects such as `EarlyStopping` and `Checkpoint`.
        warm_start : bool
            Go on from the parameters there are, and add to the histories. A network that is not
            fitted starts afresh.
        resume : None or path
            A file that a `Checkpoint` of the same call has written: the training goes on from
            there, and ends with the bits of one that was never stopped. Only `max_iter` may be
            larger.
        augment : None, augmentation, callable, or list of these
            What is done at random to the training images, anew in each epoch, such as
            [Shift(2), Rotate(10)]. It follows from the seed, the epoch and which image of X it is:
            neither the order nor the batches matter. Or a function of a batch of images that
            returns changed ones; a parameter `rng` of it gets the epoch's random numbers.
            Validation images stay as they are.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For arrays, options or layers that do not fit together.
        DivergedError
            If the loss of a batch, or a parameter after an epoch, is not finite.
        RuntimeError
            While another `fit` of the network runs.

        Notes
        -----
        After a DivergedError, or any exception before the first step, the network, its
        parameters and its rng are what they were before the call. Any other exception,
        from a callback or by Ctrl-C, keeps the parameters of the last step.
        """
        TrainingRun(
            self,
            learning_rate=learning_rate,
            max_iter=max_iter,
            batch_size=batch_size,
            momentum=momentum,
            nesterov=nesterov,
            shuffle=shuffle,
            verbose=verbose,
            callbacks=as_callbacks(callbacks, callback),
            metrics=metrics,
            optimizer=optimizer,
            warm_start=warm_start,
            resume=resume,
            augment=augment,
        ).run(
            X,
            y,
            sample_weight=sample_weight,
            class_weight=class_weight,
            validation_data=validation_data,
            validation_fraction=validation_fraction,
        )
        return self

    def build(self, input_shape, n_outputs=None, dtype="float32"):
        """Set the layers up without data: parameters are drawn, and the network predicts.

        Parameters
        ----------
        input_shape : tuple
            Shape of one image: (n_channels, img_h, img_w), (n_channels, length) or
            (n_features,).
        n_outputs : None, int or tuple
            Number of classes, which get the labels 0, 1, ...; for regression the number of
            targets, or their shape. None: what the layers put out.
        dtype : {'float32', 'float64'}

        Returns
        -------
        self
        """
        check_layers(self.layers)
        build(self, input_shape, n_outputs, dtype)
        return self

    # --- prediction -----------------------------------------------------------

    def predict(self, X, batch_size=256):
        """Labels, or values of y's shape.

        Parameters
        ----------
        X : array (n_imgs, ...), each image of the shape that `fit` saw
            No images give an empty result. Converted to floats batch by batch.

        Returns
        -------
        array (n_imgs,) with the dtype of `classes_`
            For regression (n_imgs, ...) as y in `fit`, with the dtype of X there.

        Raises
        ------
        ValueError
            Before `fit`, and for images of another shape, or not finite.
        """
        model, predictions = self._predictions(X, batch_size)
        if model.is_classifier:
            return model.classes[predictions]
        return predictions.reshape(len(predictions), *model.target_shape)

    def predict_proba(self, X, batch_size=256):
        """Class probabilities, array (n_imgs, n_classes), columns in the order of `classes_`.

        Parameters and errors as for `predict`; TypeError for a regression network.
        """
        return self._predictions(X, batch_size, as_probabilities=True)[1]

    def _predictions(self, X, batch_size, as_probabilities=False):
        batch_size = as_count(batch_size, "batch_size")
        while True:
            model = self._fitted()
            if as_probabilities and not model.is_classifier:
                raise TypeError(
                    f"{model.loss_name()} predicts values, expected a classifier as last layer"
                )
            images = Images(X, model.dtype, model.input_shape)
            of_classes = model.is_classifier and not as_probabilities
            predictions = model.predictions(images, batch_size, self._is_current, of_classes)
            if predictions is not None:
                return model, predictions

    def error(self, X, y, batch_size=256):
        """Fraction of wrong labels; for regression, the mean squared error.

        Parameters
        ----------
        X : array (n_imgs, ...), each image of the shape that `fit` saw
            At least one image.
        y : array (n_imgs,) of labels, or for regression (n_imgs, ...) as y in `fit`
            Labels that `fit` did not see count as wrong. Values are converted to
            the dtype of X in `fit`, batch by batch as X is.

        Returns
        -------
        float

        Raises
        ------
        ValueError, TypeError
            As `predict` does, and for y of another shape or kind than in `fit`, or
            not finite.
        """
        batch_size = as_count(batch_size, "batch_size")
        while True:
            model = self._fitted()
            data = read_known(X, y, model)
            found = model.evaluate(data, batch_size, self._is_current)
            if found is not None:
                return found.error

    # --- parameters -----------------------------------------------------------

    def params(self):
        """All parameter arrays, first layer first: the live arrays, which may be written to."""
        return self._fitted().params()

    def state_dict(self):
        """Copies of all arrays by name: parameters such as "3.W" and "5.0.b", then state.

        A name is the numbers and names of the layers, one inside of the other, and that of
        the array: "5.shortcut.0.W" is W of the first layer of layer 5's shortcut.
        """
        return self._at_one_moment(Model.copied_arrays)

    def load_state_dict(self, state):
        """Copy arrays into the network, which `fit` or `build` has set up.

        Parameters
        ----------
        state : dict of str to array
            As from `state_dict`.

        Raises
        ------
        ValueError, TypeError
            Before any change, for names that are missing or unknown, and for other shapes
            and dtypes than the network's.
        """
        model = self._fitted()
        arrays, sources = model.matched(state)
        with model.lock:
            transaction = self._transaction
            if self._model is not model or transaction and transaction.model is not model:
                raise RuntimeError("this network is being trained, expected the end of fit first")
            write_all(arrays, sources)

    def check_gradients(self, X, y, eps=1e-6, max_checks=20):
        """Compare the layers' gradients with central differences, in float64.

        The network itself does not change. Before `fit`, freshly drawn
        parameters are used.

        Parameters
        ----------
        X, y : as for `fit`; a few images are enough
        eps : float, greater than 0
            Each checked parameter is moved by this much, both ways.
        max_checks : int or None
            At most so many elements of each array, drawn at random; None for all.

        Returns
        -------
        list of GradientError
            One (name, abs_error, rel_error) for each array of `params()` that is not frozen.
        """
        from nnet.training import gradients  # few programs need it

        eps = as_float(eps, "eps")
        if eps == 0:
            raise ValueError("eps is 0, expected a number greater than 0")
        if max_checks is not None:
            max_checks = as_count(max_checks, "max_checks")
        check_layers(self.layers)
        return gradients.check(self, X, y, eps, max_checks)

    # --- copies and files -------------------------------------------------------

    def __repr__(self):
        return f"{type(self).__name__}({self.layers!r}, rng={self.rng!r})"

    def __getstate__(self):
        """What copies and pickles hold: no memory of work at hand, and no training."""
        model, layers = None, self._unfitted_layers()
        if self._model is not None:  # also since the line before
            model = self._copied_model()
            layers = model.layers
        attributes = dict(vars(self))
        for name in ("_model", "_transaction", "_is_changed"):
            del attributes[name]
        return attributes | {"_layers": layers, "fitted": model and model.attributes()}

    def _unfitted_layers(self):
        """Copies of the layers as they were before the first training, if there is no Model."""
        while self._model is None:
            transaction = self._transaction
            layers = None if transaction is None else transaction.layers
            if layers is not None:
                return layers
            layers = copy.deepcopy(self.layers, {id(self): self})
            if self._transaction is transaction and not (transaction and transaction.layers):
                return layers
        return None

    def __setstate__(self, state):
        attributes = dict(state)
        fitted = attributes.pop("fitted")
        vars(self).update(attributes)
        self._start(built_shape=self._built_shape)
        if fitted is not None:
            self._take(Model(self.layers, **fitted))

    def save(self, path):
        """Write architecture and parameters to a safetensors file.

        An existing file is replaced in one step. Needs the extra nnet[train].

        Raises
        ------
        ValueError, TypeError
            Before `fit`, for layers that are not nnet's own, and for arrays that are not
            finite, or of another shape or dtype than the layers call for: before the old
            file is touched.
        """
        from nnet.files import saving  # only now: it needs modules that import nnet can do without

        saving.save(self._copied_model(), path)

    @classmethod
    def load(cls, path):
        """The network that `save` wrote: it predicts the same bits.

        Its rng is None and its histories are empty. No code of the file runs.

        Raises
        ------
        OSError
            If the file cannot be opened.
        ValueError, TypeError
            For a file that is truncated, changed, or not from `save`, and for what is no path.
        """
        from nnet.files import saving

        model = saving.load(path)
        network = cls(model.layers)
        network._built_shape = model.input_shape
        network._take(model)
        return network

    def _take(self, model):
        """Become fitted: the layers have their arrays."""
        claim(self, numbered(self.layers))
        self._model = model
        self._is_changed = False
