"""The loops of normalisation, against numbers worked out by hand and central differences."""

import numpy as np
import pytest

from nnet.reference import batch_norm, bprop_batch_norm, bprop_group_norm, group_norm


def test_batch_statistics_by_hand():
    """1, 2, 3, 6: the mean is 3, the variance 3.5, that of a sample 14 / 3."""
    imgs = np.array([1.0, 2, 3, 6]).reshape(2, 1, 1, 2)
    running_mean, running_var = np.zeros(1), np.ones(1)
    out, mean, inv_std = batch_norm(
        imgs, np.array([2.0]), np.array([5.0]), running_mean, running_var, eps=0.5
    )
    assert mean == 3 and inv_std == 0.5
    assert out.ravel().tolist() == [3, 4, 5, 8]
    np.testing.assert_allclose([running_mean[0], running_var[0]], [0.3, 0.9 + 0.1 * 14 / 3])
    out, mean, inv_std = batch_norm(
        imgs, np.ones(1), np.zeros(1), np.array([2.0]), np.array([3.5]), eps=0.5, training=False
    )
    assert out.ravel().tolist() == [-0.5, 0, 0.5, 2]


def test_group_statistics_by_hand():
    imgs = np.array([[1.0, 3, 10, 20], [5, 5, 0, 2]])
    out, mean, inv_std = group_norm(imgs, np.ones(4), np.zeros(4), 2, eps=1e-30)
    assert mean.tolist() == [[2, 15], [5, 1]]
    np.testing.assert_allclose(out, [[-1, 1, -1, 1], [0, 0, -1, 1]], rtol=1e-15)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 0.0, 2.0]])
@pytest.mark.parametrize("kind", ["batch", "fixed", "group"])
def test_gradients_are_those_of_central_differences(kind, weights, activation, rng):
    """Of the weighted sum of the images' losses, each a weighted sum of outputs."""
    imgs, grad = rng.normal(size=(2, 4, 4, 2, 3))
    gamma, beta = rng.normal(size=(2, 4))
    if kind == "group" and weights:
        pytest.skip("an image is by itself")
    w = np.ones(4) if weights is None else np.array(weights)
    options = {} if kind == "group" else {"weights": weights, "training": kind == "batch"}

    def forward():
        if kind == "group":
            return group_norm(imgs, gamma, beta, 2, activation=activation)
        running = np.full(4, 0.3), np.full(4, 0.7)
        return batch_norm(imgs, gamma, beta, *running, activation=activation, **options)

    def loss():
        return np.sum(w[:, None, None, None] * grad * forward()[0])

    bprop = bprop_group_norm if kind == "group" else bprop_batch_norm
    out_grad = w[:, None, None, None] * grad
    found = bprop(imgs, out_grad, gamma, beta, *forward()[1:], activation=activation, **options)
    for array, gradient, divisor in zip((imgs, gamma, beta), found, (1, 4, 4)):
        for index in np.ndindex(array.shape):
            value = array[index]
            array[index] = value + 1e-6
            above = loss()
            array[index] = value - 1e-6
            below = loss()
            array[index] = value
            difference = (above - below) / 2e-6 / divisor
            np.testing.assert_allclose(gradient[index], difference, rtol=1e-5, atol=1e-7)


def test_a_single_value_gives_beta():
    imgs, beta = np.array([[7.0, -3.0]]), np.array([0.5, 1.5])
    running = np.zeros(2), np.ones(2)
    out, mean, inv_std = batch_norm(imgs, np.ones(2), beta, *running)
    assert out.tolist() == [[0.5, 1.5]] and not inv_std.any()
    assert not running[0].any() and (running[1] == 1).all()
    grads = bprop_batch_norm(imgs, np.ones((1, 2)), np.ones(2), beta, mean, inv_std)
    assert [grad.tolist() for grad in grads] == [[[0, 0]], [0, 0], [1, 1]]
    assert group_norm(imgs, np.ones(2), beta, 2)[0].tolist() == [[0.5, 1.5]]
