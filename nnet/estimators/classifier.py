"""CNNClassifier: a network as one of scikit-learn's classifiers."""

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from nnet.estimators.base import CNN, as_targets
from nnet.estimators.hints import HINTS
from nnet.layers import BinaryCrossEntropy, LogRegression
from nnet.layers.hints import with_hints
from nnet.training.remedies import sum_to_one


class CNNClassifier(ClassifierMixin, CNN):
    """A convolutional network as a classifier of scikit-learn's kind.

    It takes rows of pixels or images, of any range: float64 trains in float64, at half the speed.
    Parameters are named as in `MLPClassifier` where it has them.

    Parameters
    ----------
    layers : None, list of Layer, callable, or str
        None: chosen by the size of the images: convolutions with batch normalisation; one hidden
        layer of 100 units for images with a side of 2 to 5 pixels, and for tables.
        A list, which is copied and stays unfitted, or a function that returns one for the shape
        of an image, (n_channels, img_h, img_w). Without a loss at the end one is added, before
        it a Linear layer unless the layers end in one of as many outputs, and a Flatten before a
        Linear layer that needs one. The loss takes scores: no softmax before it.
        A text such as "conv16-3x3,bn,relu,pool2,linear64,relu", as the command `nnet train`
        takes, or a name of `nnet.zoo`: 'lenet5', 'mnist_net', 'all_conv', 'mini_vgg', 'resnet8'
        or 'mobile_small'. For these, and for None, a `Standardize()` comes first: pixels may
        have any range.
    input_shape : None or tuple
        Of one image: (n_channels, img_h, img_w), or with the channels, 1 to 4, at the end;
        (n_channels, length) of a signal; (n_features,) of a row of a table. X of more axes may
        have the channels at the other end; rows are in the order that is given.
        None: X of 3 axes are grey images; of 4 axes the channels are those that count 1 to 4, as
        in `nnet.to_bc01`. Rows are square images if they can be, else signals; but tables if the
        first layer is Linear, and with layers=None if they have neither sides of at least 6
        pixels nor 128 values. What could mean something else is warned of.
    solver : {'adam', 'adamw', 'sgd', 'rmsprop'}
        See `nnet.Adam` and so on.
    learning_rate_init : None or float
        None: 0.001 for 'adam' and 'adamw', 0.01 for 'rmsprop', 0.1 * (1 - momentum) for 'sgd'.
    learning_rate : str, float, Schedule or callable
        How it goes on: 'constant'; 'cosine', down to 0; 'step', a tenth after each third of the
        epochs; 'exponential', down to a hundredth; 'one_cycle'; 'plateau', a tenth where the
        loss no longer falls. A Schedule, a function of the epoch, or a number, which is the rate
        of all epochs, stand in place of `learning_rate_init`.
    momentum : float
        For 'sgd' alone.
    alpha : float
        Decay of the weights: `weight_decay` of all layers, added to that of layers which are
        given; for 'adamw' that of the optimizer. (MLPClassifier divides it by the images of a
        batch.)
    batch_size : 'auto' or int
        'auto' is 64.
    max_iter : int
        Number of epochs, at most.
    early_stopping : bool
        Hold back `validation_fraction` of the images, of each class the same, stop when their
        score no longer rises, and go back to the best epoch. False: stop when the loss no longer
        falls.
    validation_fraction : float
    n_iter_no_change, tol : int, float
        Training stops after so many epochs in a row without an improvement by more than tol;
        with infinitely many, never before max_iter.
    class_weight : None, 'balanced' or dict of float by label
        Times `sample_weight`, by which 'balanced' counts the images; not for several labels.
    warm_start : bool
        `fit` goes on from the parameters there are; `layers`, `alpha` (but for 'adamw') and
        `random_state` stay those of the first.
    augment : None, augmentation, callable, or list of these
        As for `NeuralNetwork.fit`.
    random_state : None, int or RandomState
        An int gives the same bits every time.
    verbose : bool or int
        Print how X is read, and one line after each epoch.
    n_threads : None or int
        None: `nnet.get_num_threads()`; in a worker of joblib or Dask no more than its share of
        the processors.

    Attributes
    ----------
    classes_ : array (n_classes,)
        Sorted; the columns of `predict_proba`. For several labels the numbers of the columns.
    n_features_in_ : int
        Of one image.
    loss_curve_ : list of float
        For each epoch.
    n_iter_ : int
        How many epochs there were, those before a warm start included.
    validation_scores_ : None or list of float
        Accuracy after each epoch, with early stopping; of each label apart, if there are several.
        NaN for epochs without it, before a warm start.
    best_validation_score_ : None or float
        Of the last `fit`, with early stopping.
    best_loss_ : None or float
        Likewise, without early stopping.
    network_ : NeuralNetwork
        To save, export, or look into.
    """

    _SCORE = "val_accuracy"

    @with_hints(**HINTS)
    def __init__(
        self,
        layers=None,
        *,
        input_shape=None,
        solver="adam",
        learning_rate_init=None,
        learning_rate="constant",
        momentum=0.9,
        alpha=0.0001,
        batch_size="auto",
        max_iter=200,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-4,
        class_weight=None,
        warm_start=False,
        augment=None,
        random_state=None,
        verbose=False,
        n_threads=None,
    ):
        self.layers = layers
        self.input_shape = input_shape
        self.solver = solver
        self.learning_rate_init = learning_rate_init
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.alpha = alpha
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.augment = augment
        self.random_state = random_state
        self.verbose = verbose
        self.n_threads = n_threads

    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train for one epoch, from the parameters there are.

        Parameters
        ----------
        X, y, sample_weight : as for `fit`
        classes : array
            All labels that any call will have: for the first call, and the same later. None, if
            y has several labels for each image.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            As for `fit`; for early stopping, and learning rates that follow from the epoch.
        """
        goes_on = hasattr(self, "network_")
        several = np.ndim(y) == 2 and np.shape(y)[1] > 1
        if several and classes is not None:
            if not np.array_equal(classes, np.arange(np.shape(y)[1])):
                raise ValueError(
                    f"classes is {classes!r}, expected None for y of {np.shape(y)[1]} labels"
                )
            classes = None
        if classes is None and not several and not goes_on:
            raise ValueError("classes is None, expected all classes for the first partial_fit")
        return self._trained(self._fit_part, X, y, sample_weight, goes_on=goes_on, classes=classes)

    def predict_proba(self, X):
        """Probabilities (n_imgs, n_classes), columns as `classes_`; for several labels, of 1."""
        return self._predicted("predict_proba", X)

    def predict_log_proba(self, X):
        """Logarithms of `predict_proba`; those of 0 are -inf."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    # --- what the base asks for ---------------------------------------------------------

    def _read_targets(self, y, sample_weight, classes=None):
        y = as_targets(y)
        if y.ndim == 2 and y.dtype.kind == "f" and (y % 1).any() and sum_to_one(y, 1):
            raise ValueError(
                "y has rows that sum to 1, as probabilities of classes do, expected one class for "
                "each image, as y.argmax(axis=1)"
            )
        check_classification_targets(y)
        if y.ndim == 2:
            if type_of_target(y) != "multilabel-indicator":
                raise ValueError(
                    f"y has shape {y.shape}, expected one class for each image, or 0 and 1 for "
                    "each of several labels"
                )
            return y
        if sample_weight is not None and classes is None and sample_weight.shape == y.shape:
            weighing = np.unique(y[sample_weight > 0])
            if len(weighing) == 1:
                raise ValueError(
                    f"y has only the class {weighing[0]} where sample_weight is more than 0, "
                    "expected at least 2 classes"
                )
        return y

    def _outputs(self, y, classes=None):
        if y.ndim == 2:
            return y.shape[1], BinaryCrossEntropy()
        return len(np.unique(y if classes is None else classes)), LogRegression()

    def _batch_options(self):
        return {**super()._batch_options(), "class_weight": self.class_weight}

    def _show(self, network, n_before):
        super()._show(network, n_before)
        classes = network.classes_
        n_labels = network.target_shape_
        self.classes_ = np.arange(*n_labels) if classes is None else np.array(classes)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
