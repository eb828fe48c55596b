"""NeuralNetwork: layers that are trained together."""

import copy
from typing import TYPE_CHECKING, Any

from nnet._atomic import write_all
from nnet._lazy import IMPORTS
from nnet.layers.arguments import as_count, as_float
from nnet.layers.hints import OTHER_METHODS, with_hints
from nnet.layers.streams import as_generator
from nnet.layers.tree import numbered
from nnet.training.batches import read_known
from nnet.training.data import Images
from nnet.training.fitting import Fitting
from nnet.training.inside import Inside
from nnet.training.metrics import RSquared
from nnet.training.model import NETWORKS, Model, remember
from nnet.training.setup import build, check_layers, claim

if TYPE_CHECKING:
    class_only = classmethod
else:

    class class_only(classmethod):
        """A class method that instances do not have: what it returns would be dropped there."""

        def __get__(self, instance, owner=None):
            if instance is not None:
                call = f"NeuralNetwork.{self.__name__}(path)"
                raise AttributeError(
                    f"{self.__name__} makes another network, expected network = {call}"
                )
            return super().__get__(instance, owner)


class NeuralNetwork(Fitting, Inside):
    """A feed-forward network.

    Parameters
    ----------
    layers : list of Layer
        The last one is a loss: LogRegression or BinaryCrossEntropy for classification,
        MeanSquaredError and the like for regression, or a class of your own with LossMixin.
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
        of fit, and with validation data the same for these as "val_loss" and so on. NaN where a
        `warm_start` has others than the epochs before.
    loss_history_, val_loss_history_, val_error_history_ : list of float
        One value for each finished epoch; the latter two are empty without
        validation data.

    preparation : None or Preparation
        How image files become X: `save` keeps it, and `nnet predict` reads files in this way.
        A `fit` on an `ImageFolder` takes that of the folder; where its arrays were loaded before,
        `network.preparation = folder.preparation`.

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

    preparation: Any = None

    @with_hints()
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

    # --- setting up -----------------------------------------------------------

    @with_hints()
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
            Or (n_imgs, ...) as y in `fit`: for regression with the dtype of X there, for
            `BinaryCrossEntropy` 0 and 1 as int64.

        Raises
        ------
        ValueError
            Before `fit`, and for images of another shape, or not finite.
        """
        model, decisions = self._predictions(X, batch_size)
        return model.as_y(decisions)

    def predict_proba(self, X, batch_size=256):
        """Probabilities: of classes (n_imgs, n_classes), columns in the order of `classes_`.

        For labels of pixels (n_imgs, n_classes, img_h, img_w); for `BinaryCrossEntropy` those
        of 1, in the shape of y. Parameters and errors as for `predict`; TypeError for a
        regression network.
        """
        model, predictions = self._predictions(X, batch_size, as_probabilities=True)
        return model.as_probabilities(predictions)

    def _predictions(self, X, batch_size, as_probabilities=False):
        batch_size = as_count(batch_size, "batch_size")
        while True:
            model = self._fitted()
            if as_probabilities and not model.loss.has_probabilities:
                raise TypeError(
                    f"{model.loss_name()} predicts values, expected a classifier as last layer"
                )
            decided = not as_probabilities
            options = batch_size, self._is_current, decided
            predictions = model.predictions_at_once(X, *options)
            if predictions is None:
                images = Images(X, model.dtype, model.input_shape)
                predictions = model.predictions(images, *options)
            if predictions is not None:
                return model, predictions

    def error(self, X, y, batch_size=256):
        """Fraction of wrong labels; for regression, the mean squared error, whatever the loss.

        Parameters
        ----------
        X : array (n_imgs, ...), each image of the shape that `fit` saw
            At least one image.
        y : array (n_imgs, ...) of labels or values, as y in `fit`
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
        return self._evaluation(X, y, batch_size)[0].error

    def _evaluation(self, X, y, batch_size, with_r_squared=False):
        """(Evaluation, RSquared or None): for regression, if it is wanted."""
        batch_size = as_count(batch_size, "batch_size")
        while True:
            model = self._fitted()
            data = read_known(X, y, model)
            r_squared = watch = None
            if with_r_squared and not model.loss.has_probabilities:
                r_squared = RSquared(data.target)
                watch = r_squared.add
            found = model.evaluate(data, batch_size, self._is_current, watch=watch)
            if found is not None:
                return found, r_squared

    def score(self, X, y, batch_size=256):
        """Accuracy, 1 - `error`; for regression R^2, the part of y's variance that is predicted.

        Parameters and errors as for `error`. R^2 is the mean over the targets of an image, 1
        for perfect predictions, 0 for the mean of y, as scikit-learn's `r2_score`.
        """
        found, r_squared = self._evaluation(X, y, batch_size, with_r_squared=True)
        return found.accuracy if r_squared is None else r_squared.value()

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
            Before any change, for names that are missing or unknown, for other shapes and
            dtypes than the network's, and for values that are not finite.
        """
        model = self._fitted()
        arrays, sources = model.matched(state)
        with model.lock:
            transaction = self._transaction
            if self._model is not model or transaction and transaction.model is not model:
                raise RuntimeError("this network is being trained, expected the end of fit first")
            write_all(arrays, sources)
            model.is_loaded |= transaction is None

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
        with IMPORTS:
            from nnet.training import gradients  # few programs need it

        eps = as_float(eps, "eps")
        if eps == 0:
            raise ValueError("eps is 0, expected a number greater than 0")
        if max_checks is not None:
            max_checks = as_count(max_checks, "max_checks")
        check_layers(self.layers)
        return gradients.check(self, X, y, eps, max_checks)

    # --- copies and files -------------------------------------------------------

    def summary(self):
        """The layers as a table: what they put out, what they hold, what they cost and see.

        Returns
        -------
        Summary
            Shown as a table; `rows`, `n_params`, `n_state`, `multiply_adds` are it as data.

        Raises
        ------
        ValueError
            Before `fit` or `build`.
        """
        with IMPORTS:
            from nnet.training.summary import Summary  # few programs need it

        return self._at_one_moment(Summary)

    def __str__(self):
        try:
            return repr(self.summary())
        except (TypeError, ValueError) as error:  # not fitted, or layers that have changed since
            with IMPORTS:
                from nnet.training.summary import outline
            try:
                return outline(self.layers, error)
            except (TypeError, ValueError):  # no tree
                return repr(self)

    def __repr__(self):
        layers = "".join(f"    {layer!r},\n" for layer in self.layers)
        return f"{type(self).__name__}([\n{layers}], rng={self.rng!r})"

    def __getattr__(self, name):
        if name in OTHER_METHODS:
            expected = OTHER_METHODS[name]
            raise AttributeError(f"a network has no attribute {name!r}, expected {expected}")
        return object.__getattribute__(self, name)  # raises what it did before

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
        """Write architecture and parameters to a safetensors file, and which layers are frozen.

        An existing file is replaced in one step. Needs the package safetensors. Of a layer of your
        own it holds the name of its class, its arrays, and the arguments of its constructor: they
        are attributes of the same names, or what a method `config()` returns as a dict. JSON
        holds them, so that a list is a tuple afterwards.

        Raises
        ------
        ValueError, TypeError
            Before `fit`, for layers of your own without such attributes, and for arrays that are
            not finite, or of another shape or dtype than the layers call for: before the old file
            is touched.
        """
        with IMPORTS:  # only now: it needs modules that import nnet can do without
            from nnet.files import saving

        saving.save(self._copied_model(), path, self.preparation)

    @class_only
    def load(cls, path, custom_objects=None):
        """The network that `save` wrote: it predicts the same bits, and the same layers are frozen.

        Its rng is None and its histories are empty. No code of the file runs. To train it
        further: `fit(..., warm_start=True)`; `fit` alone starts afresh, and warns of that where
        layers have arrays of the file and are not frozen.

        Parameters
        ----------
        path : str or path
        custom_objects : None or dict of str to class
            Classes of layers of your own, by their names: their constructors and `_setup` are
            called, then their arrays get the values of the file.

        Raises
        ------
        OSError
            If the file cannot be opened.
        ValueError, TypeError
            For a file that is truncated, changed, or not from `save`, and for what is no path.
        """
        with IMPORTS:
            from nnet.files import saving

        model = saving.load(path, custom_objects)
        network = cls(model.layers)
        network._built_shape, network.preparation = model.input_shape, model.preparation
        model.is_loaded = True
        network._take(model)
        return network

    def _take(self, model):
        """Become fitted: the layers have their arrays."""
        claim(self, numbered(self.layers))
        self._model = model
        self._is_changed = False
