"""Parameters and attributes of the estimators: what they do is what the network does."""

import inspect

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.6")

from sklearn.metrics import accuracy_score, r2_score

from nnet import (
    SGD,
    Activation,
    Adam,
    AdamW,
    CNNClassifier,
    CNNRegressor,
    Conv,
    CosineDecay,
    ExponentialDecay,
    Flatten,
    Linear,
    LogRegression,
    NeuralNetwork,
    OneCycle,
    ReduceOnPlateau,
    RMSprop,
    Shift,
    Standardize,
    StepDecay,
)

N = 120
RNG = np.random.default_rng(3)
X = RNG.random((N, 64)).astype(np.float32)
Y = (X[:, :3].argmax(axis=1) * 2).astype(np.int32)  # labels 0, 2, 4
VALUES = X[:, 0] - X[:, 1]
TEXT = "conv4-3x3,relu"


def layers():
    last = Linear(3, weight_scale=0.01)
    return [Standardize(), Conv(4, 3), Activation("relu"), Flatten(), last, LogRegression()]


def network_fit(rng=0, **options):
    options = {"max_iter": 3, **options}
    return NeuralNetwork(layers(), rng=rng).fit(X.reshape(N, 1, 8, 8), Y, **options)


def classifier(layers=TEXT, **options):
    return CNNClassifier(layers, **{"max_iter": 3, "random_state": 0, "alpha": 0, **options})


def probabilities(estimator):
    if isinstance(estimator, NeuralNetwork):
        return estimator.predict_proba(X.reshape(N, 1, 8, 8))
    return estimator.predict_proba(X)


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, {"optimizer": Adam()}),
        ({"solver": "adamw"}, {"optimizer": AdamW(weight_decay=0)}),
        ({"solver": "rmsprop"}, {"optimizer": RMSprop()}),
        ({"solver": "sgd"}, {"optimizer": SGD(0.1 * (1 - 0.9), momentum=0.9)}),
        ({"solver": "sgd", "momentum": 0}, {"optimizer": SGD(0.1)}),
        ({"learning_rate_init": 0.002}, {"optimizer": Adam(0.002)}),
        ({"learning_rate": "cosine"}, {"optimizer": Adam(CosineDecay(0.001))}),
        ({"learning_rate": "step"}, {"optimizer": Adam(StepDecay(0.001, 1))}),
        (
            {"learning_rate": "step", "max_iter": 7},
            {"optimizer": Adam(StepDecay(0.001, 2)), "max_iter": 7},
        ),
        (
            {"learning_rate": "exponential"},
            {"optimizer": Adam(ExponentialDecay(0.001, 0.01 ** (1 / 3)))},
        ),
        ({"learning_rate": "one_cycle"}, {"optimizer": Adam(OneCycle(0.001))}),
        ({"learning_rate": "plateau"}, {"optimizer": Adam(ReduceOnPlateau(0.001, patience=4))}),
        (
            {  # 1e-7 is too little for the loss to fall, and rounds no parameter away
                "learning_rate": "plateau",
                "learning_rate_init": 1e-7,
                "n_iter_no_change": 6,
                "max_iter": 6,
            },
            {"optimizer": Adam(ReduceOnPlateau(1e-7, patience=2)), "max_iter": 6},
        ),
        ({"learning_rate": StepDecay(0.01, 2)}, {"optimizer": Adam(StepDecay(0.01, 2))}),
        ({"batch_size": 7}, {"optimizer": Adam(), "batch_size": 7}),
        ({"max_iter": 5}, {"optimizer": Adam(), "max_iter": 5}),
        ({"random_state": 4}, {"optimizer": Adam(), "rng": 4}),
        ({"augment": Shift(1)}, {"optimizer": Adam(), "augment": Shift(1)}),
        ({"class_weight": "balanced"}, {"optimizer": Adam(), "class_weight": "balanced"}),
        ({"class_weight": {0: 3.0}}, {"optimizer": Adam(), "class_weight": {0: 3.0}}),
        ({"n_threads": 1}, {"optimizer": Adam()}),
    ],
)
def test_bits_are_those_of_the_network(options, expected):
    fitted, network = classifier(**options).fit(X, Y), network_fit(**expected)
    assert np.array_equal(probabilities(fitted), probabilities(network))
    assert fitted.loss_curve_ == network.loss_history_
    assert fitted.n_iter_ == len(fitted.loss_curve_)


def test_sample_weight():
    weights = np.arange(N) % 3
    fitted = classifier().fit(X, Y, sample_weight=weights)
    network = network_fit(optimizer="adam", sample_weight=weights)
    assert np.array_equal(probabilities(fitted), probabilities(network))


def test_predictions():
    names = np.array(["one", "two", "three"])
    for y in (Y, Y.astype(float), names[Y // 2], names.astype(object)[Y // 2]):
        fitted = classifier(max_iter=60).fit(X, y)
        assert np.array_equal(fitted.classes_, np.unique(y))
        columns = fitted.predict_proba(X).argmax(axis=1)
        assert np.array_equal(fitted.predict(X), fitted.classes_[columns])
        assert fitted.score(X, y) == accuracy_score(y, fitted.predict(X)) > 0.6
        log = fitted.predict_log_proba(X)
        assert np.array_equal(log, np.log(fitted.predict_proba(X)))
    assert classifier().fit(X, Y).predict(X).dtype == Y.dtype


def test_log_of_certainty_is_no_warning():
    fitted = classifier().fit(X, Y)
    fitted.network_.params()[-1][:] = [1000, 0, 0]
    assert fitted.predict_log_proba(X[:1]).tolist() == [[0, -np.inf, -np.inf]]


def test_several_labels():
    several = np.stack([X[:, 0] > 0.5, X[:, 1] > 0.5, X[:, 2] > 2], axis=1).astype(int)
    fitted = CNNClassifier(random_state=0, max_iter=60).fit(X, several)
    assert fitted.classes_.tolist() == [0, 1, 2]
    assert fitted.predict_proba(X).shape == several.shape
    assert np.array_equal(fitted.predict(X), fitted.predict_proba(X) > 0.5)
    assert fitted.score(X, several) > 0.8
    sparse = pytest.importorskip("scipy.sparse")
    again = CNNClassifier(random_state=0, max_iter=60).fit(X, sparse.csr_array(several))
    assert np.array_equal(again.predict_proba(X), fitted.predict_proba(X))


def test_values():
    fitted = CNNRegressor(random_state=0, max_iter=60).fit(X, VALUES)
    assert fitted.predict(X).shape == VALUES.shape
    assert fitted.score(X, VALUES) == r2_score(VALUES, fitted.predict(X)) > 0.8
    several = np.stack([VALUES, -VALUES], axis=1)
    assert CNNRegressor(max_iter=1).fit(X, several).predict(X).shape == (N, 2)


# --- when training ends -----------------------------------------------------------------


def test_training_ends_when_the_loss_does_not_fall():
    fitted = classifier(max_iter=50, tol=10.0, n_iter_no_change=4).fit(X, Y)
    assert fitted.n_iter_ == 5  # the first is an improvement, over nothing
    assert fitted.validation_scores_ is fitted.best_validation_score_ is None
    assert fitted.best_loss_ == min(fitted.loss_curve_)


def test_early_stopping_goes_back_to_the_best_epoch():
    fitted = classifier(max_iter=80, early_stopping=True, n_iter_no_change=3).fit(X, Y)
    scores = fitted.validation_scores_
    assert fitted.n_iter_ == len(scores) < 80
    assert fitted.best_validation_score_ == max(scores) and fitted.best_loss_ is None
    best = int(np.argmax(scores)) + 1
    network = network_fit(optimizer="adam", max_iter=best, validation_fraction=0.1)
    assert np.array_equal(probabilities(fitted), probabilities(network))


def test_early_stopping_holds_back_of_each_class():
    y = np.array([0] * 90 + [1] * 27 + [2] * 3)
    fitted = classifier(early_stopping=True, validation_fraction=0.2).fit(X, y)
    assert len(fitted.validation_scores_) == 3
    y[-3:] = [0, 0, 2]
    with pytest.raises(ValueError, match="y has 1 image of the class 2, expected at least 2"):
        classifier(early_stopping=True).fit(X, y)


def test_early_stopping_of_regression_scores_by_r2():
    fitted = CNNRegressor(random_state=0, early_stopping=True, max_iter=5).fit(X, VALUES)
    assert len(fitted.validation_scores_) == 5
    assert fitted.best_validation_score_ == max(fitted.validation_scores_) <= 1
    assert fitted.network_.history_["val_r2_score"] == fitted.validation_scores_


# --- going on ---------------------------------------------------------------------------


def test_partial_fit_goes_on():
    parts, network = classifier(), NeuralNetwork(layers(), rng=0)
    for _ in range(3):
        parts.partial_fit(X, Y, classes=[0, 2, 4])
        network.partial_fit(X.reshape(N, 1, 8, 8), Y, optimizer=Adam(0.001))
    assert np.array_equal(probabilities(parts), probabilities(network))
    assert parts.n_iter_ == 3 and parts.loss_curve_ == network.loss_history_


def test_partial_fit_knows_classes_before_they_come():
    parts = classifier().partial_fit(X[Y < 4], Y[Y < 4], classes=[4, 2, 0])
    assert parts.classes_.tolist() == [0, 2, 4]
    parts.partial_fit(X[Y == 4], Y[Y == 4])
    assert parts.predict_proba(X).shape == (N, 3)
    with pytest.raises(ValueError, match="label 7"):
        parts.partial_fit(X[:1], [7])
    with pytest.raises(ValueError, match="classes"):
        parts.partial_fit(X, Y, classes=[0, 2, 4, 6])


def test_partial_fit_of_several_labels_and_values():
    several = np.stack([X[:, 0] > 0.5, X[:, 1] > 0.5], axis=1).astype(int)
    for classes in (None, [0, 1]):
        parts = classifier().partial_fit(X, several, classes=classes)
        assert parts.classes_.tolist() == [0, 1] and parts.predict(X).shape == (N, 2)
    with pytest.raises(ValueError, match=r"classes is \[0, 2\], expected None"):
        classifier().partial_fit(X, several, classes=[0, 2])
    assert CNNRegressor().partial_fit(X, VALUES).partial_fit(X, VALUES).n_iter_ == 2


@pytest.mark.parametrize(
    "options, message",
    [
        ({"early_stopping": True}, "early_stopping is True, expected False"),
        ({"learning_rate": "cosine"}, "learning_rate is 'cosine', expected 'constant'"),
        ({"learning_rate": StepDecay(1, 2)}, "learning_rate is StepDecay.*, expected 'constant'"),
    ],
)
def test_what_partial_fit_cannot_know(options, message):
    with pytest.raises(ValueError, match=message):
        classifier(**options).partial_fit(X, Y, classes=[0, 2, 4])
    with pytest.raises(ValueError, match="classes is None, expected all classes"):
        classifier().partial_fit(X, Y)


def test_partial_fit_augments():
    parts = classifier(augment=Shift(2)).partial_fit(X, Y, classes=[0, 2, 4])
    assert np.array_equal(
        probabilities(parts), probabilities(classifier(augment=Shift(2), max_iter=1).fit(X, Y))
    )
    plain = classifier().partial_fit(X, Y, classes=[0, 2, 4])
    assert not np.array_equal(probabilities(parts), probabilities(plain))


def test_early_stopping_may_come_with_a_warm_start():
    warm = classifier(warm_start=True).fit(X, Y).set_params(early_stopping=True).fit(X, Y)
    assert warm.n_iter_ == 6
    assert warm.best_validation_score_ == max(warm.validation_scores_[-3:])
    assert warm.best_loss_ is None


def test_what_was_best_is_of_the_last_fit():
    """That of a fit before, which had other images, is none that the network has now."""
    warm = classifier(warm_start=True, early_stopping=True, max_iter=20).fit(X, Y)
    best = warm.best_validation_score_
    warm.set_params(max_iter=2, learning_rate_init=10.0).fit(X, np.roll(Y, 7))
    assert warm.best_validation_score_ == max(warm.validation_scores_[-2:]) < best
    warm.set_params(early_stopping=False, learning_rate_init=1e-9).fit(X, Y)
    assert warm.best_validation_score_ is warm.validation_scores_ is None
    assert warm.best_loss_ == min(warm.loss_curve_[-2:]) > min(warm.loss_curve_)


def test_partial_fits_are_one_training():
    parts = classifier().partial_fit(X, Y, [0, 2, 4])
    worst = np.argsort(parts.predict_proba(X)[np.arange(N), Y // 2])[:9]
    parts.set_params(learning_rate_init=1e-9).partial_fit(X[worst], Y[worst])
    assert parts.best_loss_ == min(parts.loss_curve_) < parts.loss_curve_[-1]
    parts.partial_fit(X, Y, sample_weight=0)
    assert np.isnan(parts.loss_curve_[-1]) and parts.best_loss_ == min(parts.loss_curve_[:2])


def test_partial_fit_prints_its_epoch(capsys):
    parts = classifier(verbose=True).partial_fit(X, Y, [0, 2, 4])
    parts.partial_fit(X, Y)
    lines = capsys.readouterr().out.splitlines()
    loss, accuracy = (parts.network_.history_[name][-1] for name in ("loss", "accuracy"))
    assert len(lines) == 3 and lines[1].startswith("epoch 1: loss ")
    assert lines[2] == f"epoch 2: loss {loss:.4f}, accuracy {accuracy:.2%}"


def test_warm_start():
    warm = classifier(warm_start=True).fit(X, Y)
    first = probabilities(warm)
    network = warm.network_
    warm.set_params(max_iter=2).fit(X, Y)
    assert warm.network_ is network and warm.n_iter_ == 5
    assert not np.array_equal(probabilities(warm), first)
    cold = classifier().fit(X, Y)
    assert np.array_equal(probabilities(cold.fit(X, Y)), first) and cold.n_iter_ == 3
    with pytest.raises(ValueError, match="63 features"):
        warm.fit(X[:, 1:], Y)
    assert warm.n_iter_ == 5


# --- random numbers ---------------------------------------------------------------------


def test_random_state():
    first = probabilities(classifier().fit(X, Y))
    assert np.array_equal(probabilities(classifier().fit(X, Y)), first)
    state = np.random.RandomState(0)
    drawn = [probabilities(classifier(random_state=state).fit(X, Y)) for _ in range(2)]
    assert not np.array_equal(*drawn)
    again = probabilities(classifier(random_state=np.random.RandomState(0)).fit(X, Y))
    assert np.array_equal(again, drawn[0])
    none = [probabilities(classifier(random_state=None).fit(X, Y)) for _ in range(2)]
    assert not np.array_equal(*none)


def test_none_draws_from_numpys_global_state():
    found = []
    for _ in range(2):
        np.random.seed(5)  # noqa: NPY002
        found.append(probabilities(classifier(random_state=None).fit(X, Y)))
    assert np.array_equal(*found)


# --- what is shown ---------------------------------------------------------------------


def test_parameters_are_the_same_for_both():
    of_classifier = inspect.signature(CNNClassifier).parameters
    of_regressor = inspect.signature(CNNRegressor).parameters
    expected = [each for name, each in of_classifier.items() if name != "class_weight"]
    assert list(of_regressor.values()) == expected


def test_verbose(capsys):
    classifier(verbose=True).fit(X, Y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 4 and "loss" in lines[1]
