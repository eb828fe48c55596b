"""Every check of scikit-learn's, with no failure expected and none switched off."""

import pytest

pytest.importorskip("sklearn", "1.6")

from sklearn.utils import estimator_checks, get_tags

from nnet import CNNClassifier, CNNRegressor

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
