"""What CNNClassifier and CNNRegressor share: training, and what is shown of it."""

import warnings
from math import prod
from numbers import Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from nnet.estimators.choosing import make_layers, wants_table
from nnet.estimators.hints import HINTS, check_names, in_own_words
from nnet.estimators.inputs import caution, find_inputs
from nnet.estimators.options import (
    as_optimizer,
    as_patience,
    as_verbose,
    is_constant,
    layer_decay,
)
from nnet.estimators.threads import is_no_worker, use_threads
from nnet.layers.arguments import as_bool, as_float, as_int
from nnet.training.callbacks import EarlyStopping
from nnet.training.network import NeuralNetwork
from nnet.training.progress import shown_value
from nnet.training.weights import as_weights

LARGEST_SEED = 2**31 - 1


class CNN(BaseEstimator):
    """An estimator over a NeuralNetwork. A subclass has the parameters, and reads y.

    Attributes
    ----------
    network_ : NeuralNetwork
        What has been trained.
    n_features_in_ : int
        Of one image: its pixels, times its channels.
    """

    _inputs: Any  # since fit
    _views: Any = {}  # see Inputs.views; none where names of features are to be compared
    _SCORE: str  # of history_, what early stopping monitors: more is better
    _METRICS: tuple = ()
    _NUMERIC_TARGETS = False
    _SCALING = "scale X to values around 1"
    HINTS = HINTS  # see with_hints

    def fit(self, X, y, sample_weight=None):
        """Train on images X and targets y: afresh, unless `warm_start` says else.

        Parameters
        ----------
        X : array (n_imgs, n_features), (n_imgs, img_h, img_w) or of 4 axes
            See the class; bools, integers and half floats become float32 batch by batch.
        y : array (n_imgs,) or (n_imgs, n_outputs)
        sample_weight : None, number or array (n_imgs,)
            At least 0; an image of weight 2 counts as two. A number is for all the same.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For arrays and parameters that do not fit together: the estimator is then as before.
        nnet.DivergedError
            Likewise, if the loss does not stay finite.
        """
        is_warm = as_bool(self.warm_start, "warm_start") and hasattr(self, "network_")
        return self._trained(self._fit, X, y, sample_weight, goes_on=is_warm)

    def set_params(self, **params):
        """Set parameters of this estimator: self. ValueError for others, with what to type."""
        check_names(self, params)
        return super().set_params(**params)

    def predict(self, X):
        """Labels, or values, of y's kind and shape.

        Parameters
        ----------
        X : array, each image of as many pixels as in `fit`
            Rows of pixels, or axes as there.

        Returns
        -------
        array (n_imgs,) or (n_imgs, n_outputs)
        """
        return self._predicted("predict", X)

    def _caution_of_targets(self, y):
        """What y will hardly be learned for, and what to do about it; "" for most."""
        return ""

    # --- training -----------------------------------------------------------------------

    def _trained(self, train, X, y, sample_weight, goes_on, **options):
        """self, after `train(network, images, y, sample_weight)`.

        If that fails before the first step, all is as it was; an interrupted training stays.
        """
        before, network, n_before = dict(vars(self)), None, 0
        try:
            X, y = self._validated(X, y=y, reset=not goes_on)
            if sample_weight is not None:
                if isinstance(sample_weight, Real):
                    sample_weight = np.full(len(X), sample_weight)
                sample_weight = as_weights(sample_weight, len(X))
            y = self._read_targets(y, sample_weight, **options)
            if goes_on:
                network = self.network_
                images = self._inputs(X)
            else:
                is_table = X.ndim == 2 and wants_table(self.layers, X.shape[1])
                self._inputs = find_inputs(X.shape, self.input_shape, is_table)
                images = self._inputs(X)
                self._tell(X.shape, y)
                network = self._new_network(y, **options)
            n_before = len(network.loss_history_) if goes_on and train == self._fit else 0
            with use_threads(self.n_threads), in_own_words(self, self._inputs.image_shape):
                train(network, images, y, sample_weight, **options)
        except BaseException:
            if network is None or network.input_shape_ is None:
                self.__dict__ = before
            else:
                self._show(network, n_before)
            raise
        self._show(network, n_before)
        return self

    def _tell(self, shape, y):
        """Say how X of a shape is read: what is looked for where nothing is learned."""
        doubt = caution(shape, self._inputs, self.input_shape, self.layers)
        for text in filter(None, (doubt, self._caution_of_targets(y))):
            warnings.warn(text, UserWarning, stacklevel=4)
        if as_verbose(self.verbose):
            print(f"X of shape {shape} is read as {self._inputs}", flush=True)

    def _new_network(self, y, **options):
        n_outputs, loss = self._outputs(y, **options)
        layers = make_layers(
            self.layers, self._inputs.image_shape, n_outputs, loss, layer_decay(self)
        )
        seed = self.random_state
        if seed is None or isinstance(seed, np.random.RandomState):
            seed = check_random_state(seed).randint(LARGEST_SEED)
        elif not isinstance(seed, np.random.Generator):
            seed = as_int(seed, "random_state", 0)
        return NeuralNetwork(layers, rng=seed)

    def _fit(self, network, X, y, sample_weight):
        stops_early = as_bool(self.early_stopping, "early_stopping")
        if stops_early:
            self._check_validation(len(X))
        stopping = EarlyStopping(
            self._SCORE if stops_early else "loss",
            patience=as_patience(self.n_iter_no_change),
            min_delta=as_float(self.tol, "tol"),
            mode="max" if stops_early else "min",
            restore_best=stops_early,
        )
        network.fit(
            X,
            y,
            max_iter=self.max_iter,
            optimizer=as_optimizer(self),
            verbose=as_verbose(self.verbose),
            sample_weight=sample_weight,
            validation_fraction=self.validation_fraction if stops_early else None,
            metrics=self._METRICS if stops_early else (),
            callbacks=[stopping],
            warm_start=network.input_shape_ is not None,
            **self._batch_options(),
        )

    def _check_validation(self, n_imgs):
        """Refuse to hold back what no score can be of."""
        if self.validation_fraction is None:
            raise ValueError(
                "validation_fraction is None, expected a number between 0 and 1 beside "
                "early_stopping=True"
            )

    def _fit_part(self, network, X, y, sample_weight, **options):
        verbose = as_verbose(self.verbose)
        if as_bool(self.early_stopping, "early_stopping"):
            raise ValueError("early_stopping is True, expected False for partial_fit")
        if not is_constant(self.learning_rate):
            raise ValueError(
                f"learning_rate is {self.learning_rate!r}, expected 'constant' for partial_fit, "
                "which does not know how many epochs there will be"
            )
        network.partial_fit(
            X,
            y,
            optimizer=as_optimizer(self),
            sample_weight=sample_weight,
            **options,
            **self._batch_options(),
        )
        if verbose:
            values = {name: values[-1] for name, values in network.history_.items()}
            shown = ", ".join(shown_value(*item) for item in values.items())
            print(f"epoch {len(network.loss_history_)}: {shown}", flush=True)

    def _batch_options(self):
        is_auto = isinstance(self.batch_size, str) and self.batch_size == "auto"
        return {"batch_size": None if is_auto else self.batch_size, "augment": self.augment}

    def _show(self, network, n_before):
        """The attributes that say how the training went, after so many epochs of others."""
        history = network.history_
        scores = np.array(history.get(self._SCORE, [])[n_before:])
        self.loss_curve_ = history.get("loss", [])
        losses = np.array(self.loss_curve_[n_before:])
        is_scored = not np.isnan(scores).all()
        self.network_ = network
        self._views = {} if hasattr(self, "feature_names_in_") else self._inputs.views()
        self.n_iter_ = len(self.loss_curve_)
        self.validation_scores_ = history[self._SCORE] if is_scored else None
        self.best_validation_score_ = float(np.nanmax(scores)) if is_scored else None
        self.best_loss_ = None
        if not is_scored and not np.isnan(losses).all():
            self.best_loss_ = float(np.nanmin(losses))

    # --- arrays -------------------------------------------------------------------------

    def _validated(self, X, reset=False, **options):
        """X as an array, of the features that `fit` saw; its values are checked by the network."""
        n_axes = X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim
        if "y" in options:
            options["multi_output"] = True
            options["y_numeric"] = self._NUMERIC_TARGETS
        found = validate_data(
            self,
            X,
            reset=reset,
            ensure_all_finite=False,
            allow_nd=True,
            ensure_2d=n_axes < 3,
            **options,
        )
        images = found[0] if "y" in options else found
        if reset and images.ndim > 2:
            self.n_features_in_ = prod(images.shape[1:])
        return found

    def _predicted(self, method, X):
        """What a method of the network returns for X.

        A plain array needs no check but the network's: others take as long as one image.
        """
        view = self._views.get(X.shape[1:]) if type(X) is np.ndarray else None
        if view is not None and X.dtype.kind in "biuf" and len(X):
            images = X.reshape(view) if view else X
        else:
            check_is_fitted(self)
            images = self._inputs(self._validated(X))
        if self.n_threads is None and is_no_worker():
            return getattr(self.network_, method)(images)
        with use_threads(self.n_threads):
            return getattr(self.network_, method)(images)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def as_targets(y):
    """y as an array; a column is made one value per image, with a warning."""
    if hasattr(y, "toarray"):  # a sparse array
        y = y.toarray()
    return column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
