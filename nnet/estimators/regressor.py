"""CNNRegressor: a network as one of scikit-learn's regressors."""

import numpy as np
from sklearn import metrics
from sklearn.base import RegressorMixin

from nnet.estimators.base import CNN, as_targets
from nnet.estimators.hints import HINTS
from nnet.layers import MeanSquaredError
from nnet.layers.hints import with_hints
from nnet.training.weights import as_fraction

# Of 400 digits after 60 epochs R^2 was 0.61; with a mean of 10 deviations 0.25, of 30 -1.0; with
# deviations of 30, 300 and 1000 it was 0.76, 0.71 and 0.68, for means of 0.
N_DEVIATIONS, LEAST = 10, 10  # means of less than LEAST are no harder to learn
LARGE = 300


def r2_score(y, predictions):
    """That of scikit-learn, for what is held back; of images that weigh more than 0."""
    if len(y) < 2:
        raise ValueError(
            f"{len(y)} of the images have a weight, expected 2 at least: R^2 is of no fewer; where "
            "they are held back, increase validation_fraction"
        )
    return metrics.r2_score(y, predictions)


class CNNRegressor(RegressorMixin, CNN):
    """A convolutional network as a regressor of scikit-learn's kind.

    y has one value for each image, or several: (n_imgs, n_outputs). It is not scaled: values far
    from 0, or of thousands, train better inside of a `TransformedTargetRegressor`, as a warning
    says. The loss is the mean squared
    error, unless `layers` end in another.

    Parameters
    ----------
    layers and the others : as for `CNNClassifier`, which has a `class_weight` more
        With early stopping the score is R^2.

    Attributes
    ----------
    n_features_in_, loss_curve_, n_iter_, network_ : as for `CNNClassifier`
    validation_scores_ : None or list of float
        R^2 after each epoch, with early stopping.
    best_validation_score_, best_loss_ : None or float
    """

    _SCORE = "val_r2_score"
    _METRICS = (r2_score,)
    _SCALING = (
        "scale X to values around 1, and y by TransformedTargetRegressor(..., "
        "transformer=StandardScaler())"
    )
    _NUMERIC_TARGETS = True

    HINTS = {**HINTS, "class_weight": "sample_weight of fit"}

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
        self.warm_start = warm_start
        self.augment = augment
        self.random_state = random_state
        self.verbose = verbose
        self.n_threads = n_threads

    def partial_fit(self, X, y, sample_weight=None):
        """Train for one epoch, from the parameters there are.

        Parameters
        ----------
        X, y, sample_weight : as for `fit`

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            As for `fit`; for early stopping, and learning rates that follow from the epoch.
        """
        return self._trained(self._fit_part, X, y, sample_weight, goes_on=hasattr(self, "network_"))

    # --- what the base asks for ---------------------------------------------------------

    def _caution_of_targets(self, y):
        with np.errstate(over="ignore"):
            means, deviations = np.abs(y.mean(axis=0, dtype=float)), y.std(axis=0, dtype=float)
        is_far = means > np.maximum(N_DEVIATIONS * deviations, LEAST)
        if not np.any(is_far | (deviations > LARGE)):
            return ""
        return (
            f"y has means up to {means.max():.4g} and deviations up to {deviations.max():.4g}, "
            "expected values around 0 and 1: TransformedTargetRegressor(CNNRegressor(...), "
            "transformer=StandardScaler()) scales y, and predictions back"
        )

    def _check_validation(self, n_imgs):
        super()._check_validation(n_imgs)
        fraction = as_fraction(self.validation_fraction)
        n_held = min(round(fraction * n_imgs), n_imgs - 1)
        if n_held < 2:
            raise ValueError(
                f"validation_fraction is {fraction}, which holds back fewer than 2 of {n_imgs} "
                "images, expected more of them: R^2 needs 2"
            )

    def _read_targets(self, y, sample_weight):
        return as_targets(y)

    def _outputs(self, y):
        return 1 if y.ndim == 1 else y.shape[1], MeanSquaredError()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
