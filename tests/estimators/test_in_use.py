"""The estimators as they are used: inside of what scikit-learn builds of estimators."""

import io
import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.6")

import joblib
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_digits
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import RFE
from sklearn.inspection import permutation_importance
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import (
    GridSearchCV,
    HalvingRandomSearchCV,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
    learning_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import ClassifierChain
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import LinearSVC

from nnet import Activation, CNNClassifier, CNNRegressor, Conv, Flatten, Linear, LogRegression

DIGITS = load_digits()
X, Y = DIGITS.data[:300].astype(np.float32), DIGITS.target[:300]
TEXT = "conv6-3x3,bn,relu,pool2"
GIVEN = [Conv(4, 3), Activation("relu"), Flatten(), Linear(10), LogRegression()]


def classifier(layers=TEXT, **options):
    options = {"max_iter": 6, "learning_rate_init": 0.01, "random_state": 0, **options}
    return CNNClassifier(layers, **options)


def regressor():
    return CNNRegressor(TEXT, max_iter=40, learning_rate_init=0.01, random_state=0)


@pytest.fixture(scope="module")
def fitted():
    return classifier(max_iter=15).fit(X[:200], Y[:200])


# --- alone ------------------------------------------------------------------------------


def test_clone():
    for layers in (None, TEXT, GIVEN, tuple(GIVEN), lambda shape: GIVEN):
        original = classifier(layers).fit(X, Y)
        twin = clone(original)
        assert repr(twin.get_params()) == repr(original.get_params())
        assert not hasattr(twin, "network_")
        assert np.array_equal(twin.fit(X, Y).predict_proba(X), original.predict_proba(X))


def test_pickle_and_joblib(fitted, tmp_path):
    joblib.dump(fitted, tmp_path / "model.joblib")
    copies = [
        pickle.loads(pickle.dumps(fitted)),
        joblib.load(tmp_path / "model.joblib"),
        joblib.load(tmp_path / "model.joblib", mmap_mode="r"),
    ]
    for twin in copies:
        assert np.array_equal(twin.predict_proba(X), fitted.predict_proba(X))
        assert twin.loss_curve_ == fitted.loss_curve_
        assert twin.partial_fit(X, Y).n_iter_ == fitted.n_iter_ + 1


def test_html(fitted):
    assert "CNNClassifier" in fitted._repr_html_()
    assert "CNNClassifier" in classifier(GIVEN)._repr_html_()


# --- pipelines --------------------------------------------------------------------------


def test_pipeline():
    model = make_pipeline(MinMaxScaler(), classifier(max_iter=15)).fit(X[:200], Y[:200])
    assert model.score(X[200:], Y[200:]) > 0.8
    assert model.predict_proba(X).shape == (300, 10)


def test_pipeline_of_images():
    def as_images(X):
        return X.reshape(-1, 8, 8, 1)

    model = make_pipeline(FunctionTransformer(as_images), classifier(max_iter=15))
    expected = classifier(max_iter=15).fit(X, Y).predict_proba(X)
    assert np.array_equal(model.fit(X, Y).predict_proba(X), expected)


def test_set_output():
    pytest.importorskip("pandas")
    scaled = make_pipeline(MinMaxScaler(), classifier())
    expected = scaled.fit(X, Y).predict_proba(X)
    framed = clone(scaled).set_output(transform="pandas").fit(X, Y)
    assert np.array_equal(framed.predict_proba(X), expected)
    assert len(framed[-1].feature_names_in_) == 64


def test_metadata_routing():
    weights = np.arange(300) % 2
    expected = classifier().fit(X, Y, sample_weight=weights)
    with config_context(enable_metadata_routing=True):
        model = classifier().set_fit_request(sample_weight=True)
        model.set_score_request(sample_weight=True).set_partial_fit_request(sample_weight=True)
        model = make_pipeline(MinMaxScaler(), model)
        model.fit(X, Y, sample_weight=weights)
        search = GridSearchCV(model[-1], {"alpha": [0.0001]}, cv=2)
        search.fit(X, Y, sample_weight=weights)
    scaled = MinMaxScaler().fit_transform(X)
    again = classifier().fit(scaled, Y, sample_weight=weights)
    assert np.array_equal(model.predict_proba(X), again.predict_proba(scaled))
    assert np.array_equal(search.predict_proba(X), expected.predict_proba(X))


def test_transformed_target():
    y = 100.0 * Y
    model = TransformedTargetRegressor(regressor(), transformer=MinMaxScaler())
    assert model.fit(X, y).score(X, y) > 0.5 and model.predict(X).max() > 700


# --- searches ---------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_searches_in_parallel_find_the_same_bits(backend):
    grid = {"layers": [TEXT, GIVEN, "linear16,relu"], "solver": ["adam", "sgd"]}
    serial = GridSearchCV(classifier(max_iter=3), grid, cv=2, n_jobs=1).fit(X, Y)
    with joblib.parallel_config(backend):
        found = GridSearchCV(classifier(max_iter=3), grid, cv=2, n_jobs=2).fit(X, Y)
        scores = cross_val_score(classifier(), X, Y, cv=3, n_jobs=2)
    for split in ("split0_test_score", "split1_test_score"):
        assert np.array_equal(found.cv_results_[split], serial.cv_results_[split])
    assert np.array_equal(found.predict_proba(X), serial.predict_proba(X))
    assert np.array_equal(scores, cross_val_score(classifier(), X, Y, cv=3))


def test_halving_search():
    grid = {"learning_rate_init": [0.0003, 0.001, 0.003], "batch_size": [16, 32]}
    search = HalvingRandomSearchCV(
        classifier(max_iter=3),
        grid,
        n_candidates=6,
        resource="max_iter",
        min_resources=1,
        max_resources=3,
        cv=2,
        random_state=0,
    )
    search.fit(X, Y)
    assert search.best_estimator_.max_iter == 3 and search.best_score_ > 0.3


def test_search_with_4_axes():
    images = X.reshape(-1, 8, 8, 1)
    search = GridSearchCV(classifier(), {"alpha": [0, 0.01]}, cv=2).fit(images, Y)
    flat = GridSearchCV(classifier(), {"alpha": [0, 0.01]}, cv=2).fit(X, Y)
    assert np.array_equal(
        search.cv_results_["mean_test_score"], flat.cv_results_["mean_test_score"]
    )


def test_early_stopping_in_a_search():
    search = GridSearchCV(classifier(early_stopping=True), {"tol": [0.0, 0.1]}, cv=2).fit(X, Y)
    assert search.best_estimator_.validation_scores_


# --- what wraps estimators --------------------------------------------------------------


def test_calibration():
    model = CalibratedClassifierCV(classifier(max_iter=15), cv=2).fit(X, Y)
    assert np.allclose(model.predict_proba(X).sum(axis=1), 1) and model.score(X, Y) > 0.8


def test_permutation_importance(fitted):
    found = [
        permutation_importance(fitted, X, Y, n_repeats=2, random_state=0, n_jobs=n_jobs)
        for n_jobs in (1, 2)
    ]
    assert np.array_equal(found[0].importances, found[1].importances)
    assert found[0].importances_mean[0] == 0  # the corner is always empty


def test_networks_that_joblib_maps_into_memory(fitted):
    """Arrays of more than a megabyte reach workers as read-only files."""
    large = classifier("linear4500,relu", max_iter=2).fit(X, Y)
    sizes = [param.nbytes for param in large.network_.params()]
    assert max(sizes) > 2**20
    options = {"n_repeats": 1, "random_state": 0}
    serial = permutation_importance(large, X, Y, **options).importances
    found = permutation_importance(large, X, Y, n_jobs=2, **options).importances
    assert np.array_equal(found, serial)


def test_learning_curve():
    sizes, train, test = learning_curve(classifier(), X, Y, cv=2, train_sizes=[0.5, 1.0], n_jobs=2)
    assert sizes.tolist() == [75, 150] and train.shape == test.shape == (2, 2)
    assert np.isfinite(train).all() and np.isfinite(test).all()


def test_confusion_matrix(fitted):
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot

    shown = ConfusionMatrixDisplay.from_estimator(fitted, X, Y, normalize="true")
    assert shown.confusion_matrix.shape == (10, 10)
    file = io.BytesIO()
    shown.figure_.savefig(file)
    assert file.getvalue()
    pyplot.close(shown.figure_)


@pytest.mark.parametrize(
    "make",
    [
        lambda: VotingClassifier(
            [("cnn", classifier()), ("near", KNeighborsClassifier())], voting="soft"
        ),
        lambda: StackingClassifier(
            [("cnn", classifier(max_iter=15))], KNeighborsClassifier(), cv=2
        ),
        lambda: BaggingClassifier(classifier(max_iter=15), n_estimators=2, random_state=0),
        lambda: AdaBoostClassifier(classifier(max_iter=15), n_estimators=2, random_state=0),
    ],
    ids=["voting", "stacking", "bagging", "boosting"],
)
def test_ensembles(make):
    assert make().fit(X[:200], Y[:200]).score(X[200:], Y[200:]) > 0.75


def test_ensembles_of_regressors():
    for model in (VotingRegressor([("cnn", regressor())]), BaggingRegressor(regressor(), 2)):
        assert model.fit(X, Y).score(X, Y) > 0.5


def test_one_for_each_class():
    model = OneVsRestClassifier(classifier(max_iter=3)).fit(X, Y)
    assert model.predict_proba(X).shape == (300, 10)
    stacked = StackingClassifier([("cnn", classifier(max_iter=3))], LinearSVC(), cv=2)
    assert stacked.fit(X, Y % 2).predict(X).shape == (300,)


def test_what_refuses_images_takes_rows():
    """Bagging above, these here: scikit-learn 1.9.1 wants 2 axes of them."""
    part = np.where(np.arange(300) % 3, Y, -1)
    model = SelfTrainingClassifier(classifier(max_iter=15), max_iter=1).fit(X, part)
    assert model.score(X, Y) > 0.75
    several = np.stack([Y % 2, Y < 5], axis=1)
    chain = ClassifierChain(classifier(None))  # which adds a feature to the 64: a table, no image
    assert chain.fit(X, several).predict(X).shape == (300, 2)


@pytest.mark.parametrize(
    "make",
    [
        BaggingClassifier,
        OneVsOneClassifier,
        lambda model: RFE(model, importance_getter=lambda fitted: np.ones(64)),
        SelfTrainingClassifier,
        ClassifierChain,
    ],
    ids=["bagging", "one vs one", "RFE", "self-training", "chain"],
)
def test_who_refuses_images(make):
    """These do themselves: rows, and `input_shape` if need be, are for them."""
    images = X.reshape(-1, 1, 8, 8)
    y = Y if make is not ClassifierChain else np.stack([Y % 2, Y < 5], axis=1)
    with pytest.raises(ValueError, match="Found array with dim 4|expected <= 2"):
        make(classifier(max_iter=1)).fit(images, y)


def test_one_against_one_takes_rows():
    part = Y < 3
    model = OneVsOneClassifier(classifier(max_iter=10)).fit(X[part], Y[part])
    assert model.score(X[part], Y[part]) > 0.75
    ranked = RFE(
        classifier("linear8,relu", max_iter=1),
        n_features_to_select=40,
        step=12,
        importance_getter=lambda fitted: np.arange(fitted.n_features_in_),
    ).fit(X, Y)
    assert ranked.predict(X).shape == (300,)


def test_threshold():
    model = TunedThresholdClassifierCV(classifier(max_iter=15), cv=2).fit(X, Y % 2)
    assert 0 < model.best_threshold_ < 1 and model.score(X, Y % 2) > 0.75


def test_images_that_are_not_flat_in_ensembles():
    images = X.reshape(-1, 8, 8)
    model = VotingClassifier([("cnn", classifier())], voting="soft").fit(images, Y)
    assert np.array_equal(model.predict_proba(images), classifier().fit(X, Y).predict_proba(X))
    assert cross_val_predict(classifier(), images, Y, cv=2, method="predict_proba").shape == (
        300,
        10,
    )
