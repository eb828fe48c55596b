"""CNNRegressor: scores of what is held back, and targets of any scale."""

import re
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.6")

from sklearn.compose import TransformedTargetRegressor
from sklearn.preprocessing import StandardScaler

from nnet import CNNRegressor

N = 120
X = np.random.default_rng(3).random((N, 64)).astype(np.float32)
VALUES = X[:, 0] - X[:, 1]
TEXT = "conv4-3x3,relu"


@pytest.mark.parametrize("n_imgs, fraction", [(12, 0.1), (2, 0.9), (14, 0.1), (30, 0.01)])
def test_early_stopping_of_regression_needs_two_images(n_imgs, fraction):
    """R^2 of one is NaN, and nothing was ever the best epoch."""
    estimator = CNNRegressor(TEXT, early_stopping=True, validation_fraction=fraction)
    with pytest.raises(ValueError, match=f"validation_fraction is {fraction}, .* R.2 needs 2"):
        estimator.fit(X[:n_imgs], VALUES[:n_imgs])
    assert not hasattr(estimator, "network_")
    estimator.set_params(validation_fraction=0.05, max_iter=1).fit(X, VALUES)
    assert np.isfinite(estimator.validation_scores_).all()


def test_early_stopping_of_regression_needs_two_images_that_weigh():
    options = {"early_stopping": True, "validation_fraction": 0.5, "max_iter": 1}
    weights, refused = np.arange(N) < 3, []
    for seed in range(6):  # none of them, one, or all may be held back
        estimator = CNNRegressor(TEXT, random_state=seed, **options)
        try:
            estimator.fit(X, VALUES, sample_weight=weights)
            assert np.isfinite(estimator.validation_scores_).all()
        except ValueError as error:
            refused.append(str(error))
    assert any("1 of the images have a weight, expected 2 at least" in each for each in refused)
    assert all(re.search("expected 2 at least|images.* are zero", each) for each in refused)


@pytest.mark.parametrize(
    "mean, deviation, is_far",
    [
        (0, 1, 0),
        (10, 0.1, 0),
        (30, 10, 0),
        (0, 200, 0),
        (200, 100, 0),
        (30, 1, 1),
        (0, 400, 1),
        (1e5, 1e3, 1),
    ],
)
def test_targets_that_are_far_from_1_are_warned_of(mean, deviation, is_far):
    """With 1e5 + 1e3 * y, R^2 was -1222 without a word."""
    y = mean + deviation * (VALUES - VALUES.mean()) / VALUES.std()
    estimator = CNNRegressor(TEXT, max_iter=1)
    for targets in (y, np.stack([VALUES, y], axis=1)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            estimator.fit(X, targets)
        assert len(caught) == is_far
        for each in caught:
            assert "TransformedTargetRegressor(CNNRegressor(...)" in str(each.message)
            assert each.filename == __file__
    inside = TransformedTargetRegressor(estimator, transformer=StandardScaler())
    inside.fit(X, y)
