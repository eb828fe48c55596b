"""Functions of the user's as augmentations."""

import numpy as np
import pytest
from networks import seen_by
from numpy.testing import assert_allclose, assert_array_equal
from trouble import assert_nothing_lent, cnn, everything, images, in_thread

from nnet import Flip, Shift

X, Y = images()


def noisy(images, rng):
    images += 0.1 * rng.standard_normal(images.shape)
    return images


def test_functions(dtype):
    values, before = X.astype(dtype), X.astype(dtype)
    seen = seen_by(cnn(), values, Y, shuffle=False, augment=lambda images: 2 * images, max_iter=1)
    assert_array_equal(np.concatenate(seen), 2 * before)
    assert seen[0].dtype == dtype
    runs = [
        np.concatenate(seen_by(cnn(), values, Y, shuffle=False, augment=noisy, max_iter=2))
        for _ in range(2)
    ]
    assert_array_equal(*runs)
    first, second = np.split(runs[0], 2)
    assert not np.array_equal(first, second)
    assert_allclose([np.std(first - X), np.std(second - X)], 0.1, rtol=0.05)
    assert_array_equal(values, before)


def test_functions_among_others():
    seen = []

    def look(images):
        seen.append(images.copy())
        return images

    augment = [Shift(2), look, Flip(p=1.0)]
    given = np.concatenate(seen_by(cnn(), X, Y, shuffle=False, augment=augment, max_iter=1))
    looked = np.concatenate(seen)
    assert_array_equal(given, looked[..., ::-1])
    assert not np.array_equal(looked, X)


@pytest.mark.parametrize(
    "function, error, message",
    [
        (lambda images: None, TypeError, "augment returned None, expected the images"),
        (lambda images: images[:, 0], ValueError, r"returned shape \(64, 8, 8\), expected \(64, 1"),
        (lambda images: images[1:], ValueError, r"returned shape \(63, 1, 8, 8\)"),
        (lambda images: images / 0, ValueError, "returned NaN, infinite or too large"),
        (lambda images: 1e300 * images.astype(float), ValueError, "infinite or too large"),
        (lambda images: images * 1j, TypeError, "what augment returned has dtype complex"),
        (lambda images: 1 // 0, ZeroDivisionError, "division"),
    ],
)
def test_a_function_that_fails_leaves_the_network_as_it_was(function, error, message):
    network = cnn().fit(X, Y, max_iter=1)
    before = everything(network, X)
    with pytest.raises(error, match=message):
        network.fit(X, Y, augment=function)
    assert everything(network, X) == before
    assert_nothing_lent(network)


def test_a_function_may_use_the_network():
    """It runs before the step, while nobody works with the layers."""
    network = cnn().fit(X, Y, max_iter=1)
    labels = network.predict(X)
    seen = []

    def ask(images):
        seen.append(in_thread(lambda: network.predict(X)))
        return images

    network.fit(X, Y, max_iter=1, augment=ask)
    assert all(np.array_equal(each, labels) for each in seen) and len(seen) == 2
