"""What the estimators refuse, in the words of their parameters, and what they take in its place."""

import re

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.6")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from nnet import CNNClassifier, CNNRegressor, Conv, DivergedError, StepDecay

N = 120
RNG = np.random.default_rng(3)
X = RNG.random((N, 64)).astype(np.float32)
Y = (X[:, :3].argmax(axis=1) * 2).astype(np.int32)  # labels 0, 2, 4
VALUES = X[:, 0] - X[:, 1]
TEXT = "conv4-3x3,relu"


def classifier(layers=TEXT, **options):
    return CNNClassifier(layers, **{"max_iter": 3, "random_state": 0, "alpha": 0, **options})


def probabilities(estimator):
    return estimator.predict_proba(X)


# --- failures ---------------------------------------------------------------------------


def test_a_refused_fit_leaves_the_estimator_as_it_was():
    fitted = classifier().fit(X, Y)
    before, first = dict(vars(fitted)), probabilities(fitted)
    for bad in (X[:, :60], X * np.nan, X[1:]):
        with pytest.raises(ValueError):
            fitted.fit(bad, Y)
    assert vars(fitted) == before and np.array_equal(probabilities(fitted), first)
    fitted.set_params(learning_rate_init=1e30)
    with pytest.raises(DivergedError), np.errstate(all="ignore"):
        fitted.fit(X, Y)
    assert np.array_equal(probabilities(fitted), first)


def test_an_interrupted_fit_keeps_the_last_step():
    def interrupt(epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        return 0.001

    fitted = classifier(learning_rate=interrupt)
    with pytest.raises(KeyboardInterrupt):
        fitted.fit(X, Y)
    assert fitted.n_iter_ == 2
    assert np.array_equal(probabilities(fitted), probabilities(classifier(max_iter=2).fit(X, Y)))


def test_interrupted_in_the_first_epoch():
    calls = []

    def interrupt(images):
        calls.append(images)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return images

    fitted = classifier(augment=interrupt)
    with pytest.raises(KeyboardInterrupt):
        fitted.fit(X, Y)
    assert (fitted.n_iter_, fitted.best_loss_, fitted.loss_curve_) == (0, None, [])
    assert fitted.predict(X).shape == (N,)


def test_predict_before_fit():
    for method in ("predict", "predict_proba", "predict_log_proba"):
        with pytest.raises(NotFittedError, match="CNNClassifier instance is not fitted"):
            getattr(classifier(), method)(X)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"solver": "lbfgs"}, ValueError, "solver is 'lbfgs', expected one of"),
        ({"learning_rate": "adaptive"}, ValueError, "learning_rate is 'adaptive', expected one of"),
        ({"learning_rate": -1}, ValueError, "learning_rate is -1, expected"),
        ({"learning_rate_init": -1}, ValueError, "learning_rate_init is -1, expected"),
        (
            {"learning_rate_init": 1, "learning_rate": StepDecay(1, 2)},
            ValueError,
            "learning_rate_init is 1 and learning_rate is StepDecay.*, expected None",
        ),
        (
            {"learning_rate_init": 1, "learning_rate": 0.1},
            ValueError,
            "learning_rate_init is 1 and learning_rate is 0.1, expected None",
        ),
        ({"alpha": -1}, ValueError, "alpha is -1, expected"),
        ({"alpha": -1, "solver": "adamw"}, ValueError, "alpha is -1, expected"),
        ({"momentum": 1, "solver": "sgd"}, ValueError, "momentum is 1, expected"),
        ({"batch_size": 0}, ValueError, "batch_size is 0, expected"),
        ({"batch_size": "all"}, TypeError, "batch_size is 'all', expected"),
        ({"max_iter": 0}, ValueError, "max_iter is 0, expected"),
        ({"max_iter": 0, "learning_rate": "exponential"}, ValueError, "max_iter is 0, expected"),
        ({"early_stopping": "yes"}, TypeError, "early_stopping is 'yes', expected"),
        ({"early_stopping": True, "validation_fraction": 2}, ValueError, "validation_fraction is"),
        (
            {"early_stopping": True, "validation_fraction": None},
            ValueError,
            "validation_fraction is None, expected a number between 0 and 1 beside",
        ),
        ({"early_stopping": 2}, TypeError, "early_stopping is 2, expected True or False"),
        ({"n_iter_no_change": 0}, ValueError, "n_iter_no_change is 0, expected"),
        ({"n_iter_no_change": "3"}, TypeError, "n_iter_no_change is '3', expected"),
        ({"n_iter_no_change": 2.5}, TypeError, "n_iter_no_change is 2.5, expected"),
        ({"tol": -1}, ValueError, "tol is -1, expected"),
        ({"class_weight": {9: 1.0}}, ValueError, "class_weight has the label 9, expected"),
        ({"warm_start": "yes"}, TypeError, "warm_start is 'yes', expected"),
        ({"verbose": "yes"}, TypeError, "verbose is 'yes', expected"),
        ({"verbose": -1}, ValueError, "verbose is -1, expected"),
        ({"random_state": -1}, ValueError, "random_state is -1, expected"),
        ({"random_state": "a"}, TypeError, "random_state is 'a', expected"),
        ({"n_threads": 0}, ValueError, "n_threads is 0, expected"),
        ({"input_shape": (3, 3)}, ValueError, r"X has shape \(120, 64\), expected .n_imgs, 3, 3"),
    ],
)
def test_wrong_parameters(options, error, message):
    estimator = classifier(**options)
    with pytest.raises(error, match=f"^{message}"):
        estimator.fit(X, Y)
    assert not hasattr(estimator, "n_features_in_")


def test_what_is_wrong_with_a_window_names_input_shape():
    """Rows of pixels were signals of as many channels as the images are high."""
    message = (
        r"windows of layer 0 \(Conv\) are 3 high, expected 1: input_shape=\(1, 4, 16\) for grey"
    )
    with pytest.raises(ValueError, match=message) as caught:
        classifier([Conv(4, (3, 3))], input_shape=(4, 16)).fit(X, Y)
    assert "to_bc01" not in str(caught.value)


@pytest.mark.parametrize("estimator", [classifier(), CNNRegressor(TEXT, max_iter=3)], ids=repr)
@pytest.mark.parametrize("solver, rate", [("sgd", 1e30), ("sgd", 1e29 / 3)])
def test_divergence_names_the_learning_rate(estimator, solver, rate):
    estimator = clone(estimator).set_params(solver=solver, learning_rate_init=rate)
    message = f"try a smaller learning_rate_init than {rate:.3g}, or scale X to values around 1"
    with (
        pytest.raises(DivergedError, match=re.escape(message)) as caught,
        np.errstate(all="ignore"),
    ):
        estimator.fit(X, Y.astype(float))
    has_advice = "TransformedTargetRegressor" in str(caught.value)
    assert has_advice == isinstance(estimator, CNNRegressor)


@pytest.mark.parametrize(
    "options, same",
    [
        ({"verbose": 10}, {"verbose": True}),
        ({"verbose": np.int64(1)}, {"verbose": True}),
        ({"early_stopping": np.int64(1)}, {"early_stopping": True}),
        ({"learning_rate": 0.01}, {"learning_rate_init": 0.01}),
        ({"random_state": np.int64(0)}, {}),
        ({"n_iter_no_change": np.int64(3)}, {"n_iter_no_change": 3}),
    ],
)
def test_other_ways_to_say_it(options, same):
    expected = probabilities(classifier(**same).fit(X, Y))
    assert np.array_equal(probabilities(classifier(**options).fit(X, Y)), expected)
    if "early_stopping" not in options:
        parts = [classifier(**each).partial_fit(X, Y, [0, 2, 4]) for each in (options, same)]
        assert np.array_equal(*map(probabilities, parts))


@pytest.mark.parametrize("learning_rate", ["constant", "plateau"])
def test_infinite_patience_never_stops(learning_rate):
    options = {"max_iter": 12, "tol": 10.0, "learning_rate": learning_rate}
    assert classifier(n_iter_no_change=2, **options).fit(X, Y).n_iter_ < 12
    assert classifier(n_iter_no_change=np.inf, **options).fit(X, Y).n_iter_ == 12


def test_weights_that_are_one_number():
    expected = probabilities(classifier().fit(X, Y, sample_weight=np.full(N, 2.0)))
    for weight in (2.0, 2, np.float64(2)):
        assert np.array_equal(probabilities(classifier().fit(X, Y, weight)), expected)


@pytest.mark.parametrize(
    "weights, error, message",
    [
        (np.full(N, "a"), TypeError, "sample_weight has dtype <U1, expected real numbers"),
        ("balanced", TypeError, "sample_weight has dtype <U8, expected real numbers"),
        (np.ones(3), ValueError, r"sample_weight has shape \(3,\), expected \(120,\)"),
        (-1.0, ValueError, "sample_weight has negative, NaN or infinite values"),
    ],
)
def test_wrong_weights(weights, error, message):
    for train in (classifier().fit, CNNRegressor(TEXT).fit):
        with pytest.raises(error, match=f"^{message}"):
            train(X, Y, sample_weight=weights)


def test_a_single_number_is_no_image():
    fitted = classifier().fit(X, Y)
    with pytest.raises(ValueError, match="got scalar array|scalar"):
        fitted.predict(np.array(3.0))


def test_wrong_targets():
    with pytest.raises(ValueError, match="Unknown label type"):
        classifier().fit(X, VALUES)
    with pytest.raises(ValueError, match="multiclass-multioutput|expected one class"):
        classifier().fit(X, np.stack([Y, Y], axis=1))
    with pytest.raises(ValueError, match="only one class, 3"):
        classifier().fit(X, np.full(N, 3))
    with pytest.raises(ValueError, match="only the class 2 where sample_weight"):
        classifier().fit(X, Y, sample_weight=Y == 2)
    with pytest.raises(ValueError, match="weights of all images are zero"):
        classifier().fit(X, Y, sample_weight=np.zeros(N))
