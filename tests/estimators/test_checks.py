"""Every check of scikit-learn's, with no failure expected and none switched off."""

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.6")

from sklearn.base import is_classifier, is_regressor
from sklearn.utils import estimator_checks, get_tags

from nnet import CNNClassifier, CNNRegressor
from nnet.training import run

ESTIMATORS = [CNNClassifier(), CNNRegressor()]
ABSENT = "does not have a decision_function method", "SCIPY_ARRAY_API is not set"


def name_of_check(value):
    """What the ids of the test below have."""
    function = getattr(value, "func", value)
    options = getattr(value, "keywords", {}).values()
    return "-".join(map(str, [getattr(function, "__name__", type(value).__name__), *options]))


# parametrize_with_checks of scikit-learn 1.6 gives pytest a generator, which pytest 9 warns of.
@pytest.mark.parametrize(
    "estimator, check",
    [pair for each in ESTIMATORS for pair in estimator_checks.estimator_checks_generator(each)],
    ids=name_of_check,
)
def test_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_no_tag_switches_checks_off(estimator):
    tags = get_tags(estimator)
    assert tags.requires_fit and not tags.no_validation and not tags.non_deterministic
    assert tags.input_tags.two_d_array and tags.input_tags.three_d_array
    assert not tags.input_tags.allow_nan and not tags.input_tags.sparse
    kind = tags.classifier_tags or tags.regressor_tags
    assert not kind.poor_score and getattr(kind, "multi_class", True)
    assert tags.target_tags.required and tags.target_tags.single_output


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_only_what_is_absent_is_skipped(estimator):
    """Checks that skip themselves would pass unseen."""
    results = estimator_checks.check_estimator(estimator, on_fail=None, on_skip=None)
    assert len(results) >= 55
    for result in results:
        if result["status"] == "skipped":
            assert any(text in str(result["exception"]) for text in ABSENT)
        else:
            assert result["status"] == "passed", result["check_name"]


def test_several_labels_are_several_outputs():
    """A check that only estimators with a tag for targets of any kind get."""
    estimator_checks.check_classifier_multioutput("CNNClassifier", CNNClassifier())


def test_balanced_classes_count_by_sample_weight():
    estimator_checks.check_sample_weight_equivalence_on_dense_data(
        "CNNClassifier", CNNClassifier(class_weight="balanced")
    )


# --- what good guesses get wrong, with scikit-learn 1.6.1 and 1.9.1 ---------------------


def test_the_mixin_comes_first():
    """After BaseEstimator, `estimator_type` of the tags is None."""
    assert is_classifier(CNNClassifier()) and is_regressor(CNNRegressor())


def test_features_of_images_are_counted():
    """validate_data sets no n_features_in_ without `ensure_2d`, and counts the channels with it."""
    X, y = np.zeros((6, 3, 7, 8)), np.arange(6) % 2
    X[y == 1] = 1
    assert CNNClassifier(max_iter=1).fit(X, y).n_features_in_ == 3 * 7 * 8


def test_early_stopping_is_stratified_for_any_number_of_classes():
    """MLPClassifier of scikit-learn 1.9.1 does so for two classes alone."""
    y = np.repeat([0, 1, 2], [40, 20, 20])
    X = np.eye(3)[y] + np.arange(80)[:, None] * 1e-3
    fitted = CNNClassifier(
        early_stopping=True, validation_fraction=0.05, max_iter=2, random_state=0
    )
    held = []
    split = run.split

    def watched(*args):
        held.append(args[0][split(*args)[1]])
        return split(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "split", watched)
        fitted.fit(X, y)
    assert sorted(held[0].tolist()) == [0, 0, 1, 2]


def test_predictions_are_arrays():
    """Lists fail in check_classifiers_train and check_supervised_y_2d."""
    X, y = np.eye(8), np.arange(8) % 2
    assert type(CNNClassifier(max_iter=1).fit(X, y).predict(X)) is np.ndarray
    assert type(CNNRegressor(max_iter=1).fit(X, y).predict(X.tolist())) is np.ndarray
