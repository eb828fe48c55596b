"""Batch and group normalisation as plain loops: those of nnet._dense, by the same names."""

import numpy as np


def batch_norm(
    imgs,
    gamma,
    beta,
    running_mean,
    running_var,
    out=None,
    mean=None,
    inv_std=None,
    *,
    training=True,
    momentum=0.1,
    eps=1e-5,
    weights=None,
    activation=None,
):
    """(imgs - mean) / sqrt(var + eps) * gamma + beta, for each channel.

    Ioffe and Szegedy 2015, "Batch normalization", algorithms 1 and 2.

    Parameters
    ----------
    imgs : ndarray (n_imgs, n_channels, ...)
    gamma, beta, running_mean, running_var : ndarray (n_channels,)
        The running statistics change in training: by `momentum` of the batch's.
    out : ndarray of the shape of imgs, optional
    mean, inv_std : ndarray (n_channels,), float64, optional
    weights : ndarray (n_imgs,), optional
        An image of weight 2 counts as two.
    activation : {None, 'relu'}

    Returns
    -------
    out, mean, inv_std : ndarray
        inv_std is 0 for a batch that has no more than one value for a channel whose weight is
        above 0.
    """
    n_imgs, n_channels = imgs.shape[:2]
    x, weights = _planes(imgs), _weights(weights, n_imgs)
    weight, count = sum(weights) * x.shape[2], _count(weights, x.shape[2])
    out, mean = _given(out, imgs.shape, imgs.dtype), _given(mean, n_channels, float)
    inv_std = _given(inv_std, n_channels, float)
    y = np.empty(x.shape)
    for c in range(n_channels):
        if training:
            total = squares = 0.0
            for n in range(n_imgs):
                for value in x[n, c]:
                    total += weights[n] * value
            mean[c] = total / weight if weight > 0 else 0.0
            for n in range(n_imgs):
                for value in x[n, c]:
                    squares += weights[n] * (value - mean[c]) ** 2
            inv_std[c] = (squares / weight + eps) ** -0.5 if count > 1 else 0.0
            if count > 1:
                running_mean[c] = (1 - momentum) * running_mean[c] + momentum * mean[c]
                var = squares / weight * count / (count - 1)
                running_var[c] = (1 - momentum) * running_var[c] + momentum * var
        else:
            mean[c], inv_std[c] = running_mean[c], (float(running_var[c]) + eps) ** -0.5
        for n in range(n_imgs):
            for i, value in enumerate(x[n, c]):
                y[n, c, i] = (value - mean[c]) * inv_std[c] * gamma[c] + beta[c]
    out[...] = _activated(y, activation).reshape(imgs.shape)
    return out, mean, inv_std


def bprop_batch_norm(
    imgs,
    out_grad,
    gamma,
    beta,
    mean,
    inv_std,
    imgs_grad=None,
    gamma_grad=None,
    beta_grad=None,
    *,
    training=True,
    weights=None,
    activation=None,
    need_imgs_grad=True,
):
    """Back-propagate through `batch_norm`, and the ReLU after it.

    Parameters
    ----------
    imgs, gamma, beta, training, weights, activation
        As `batch_norm` was given them.
    out_grad : ndarray of the shape of imgs
        The gradient of each image's loss, multiplied by the image's weight.
    mean, inv_std : ndarray (n_channels,)
        As `batch_norm` returned them.

    Returns
    -------
    imgs_grad, gamma_grad, beta_grad : ndarray
        imgs_grad is None without `need_imgs_grad`; the others are means over the images.
    """
    n_imgs, n_channels = imgs.shape[:2]
    x, grad, weights = _planes(imgs), _planes(out_grad), _weights(weights, n_imgs)
    weight, count = sum(weights) * x.shape[2], _count(weights, x.shape[2])
    gamma_grad = _given(gamma_grad, n_channels, imgs.dtype)
    beta_grad = _given(beta_grad, n_channels, imgs.dtype)
    result = np.empty(x.shape)
    for c in range(n_channels):
        normalised = (x[:, c] - mean[c]) * inv_std[c]
        grad[:, c] = _activated_grad(normalised * gamma[c] + beta[c], grad[:, c], activation)
        total = products = 0.0
        for n in range(n_imgs):
            for i in range(x.shape[2]):
                total += grad[n, c, i]
                products += grad[n, c, i] * normalised[n, i]
        gamma_grad[c], beta_grad[c] = products / max(n_imgs, 1), total / max(n_imgs, 1)
        for n in range(n_imgs):
            for i in range(x.shape[2]):
                g = grad[n, c, i]
                if training and count > 1:
                    g -= weights[n] / weight * (total + normalised[n, i] * products)
                result[n, c, i] = gamma[c] * inv_std[c] * g
    return _delivered(result, imgs_grad, imgs, need_imgs_grad), gamma_grad, beta_grad


def group_norm(
    imgs,
    gamma,
    beta,
    n_groups,
    out=None,
    mean=None,
    inv_std=None,
    *,
    eps=1e-5,
    activation=None,
):
    """`batch_norm` by the statistics of each group of channels in each image.

    Wu and He 2018, "Group normalization", eqs. 1 to 3 and 7.

    Parameters
    ----------
    imgs, gamma, beta, out, activation
        As of `batch_norm`.
    mean, inv_std : ndarray (n_imgs, n_groups), float64, optional

    Returns
    -------
    out, mean, inv_std : ndarray
        inv_std is 0 for groups of a single value.
    """
    n_imgs, n_channels = imgs.shape[:2]
    x, size = _planes(imgs), n_channels // n_groups
    out, mean = _given(out, imgs.shape, imgs.dtype), _given(mean, (n_imgs, n_groups), float)
    inv_std = _given(inv_std, (n_imgs, n_groups), float)
    y = np.empty(x.shape)
    for n in range(n_imgs):
        for g in range(n_groups):
            values = x[n, g * size : (g + 1) * size].ravel()
            total = squares = 0.0
            for value in values:
                total += value
            mean[n, g] = total / len(values)
            for value in values:
                squares += (value - mean[n, g]) ** 2
            inv_std[n, g] = (squares / len(values) + eps) ** -0.5 if len(values) > 1 else 0.0
            for c in range(g * size, (g + 1) * size):
                y[n, c] = (x[n, c] - mean[n, g]) * inv_std[n, g] * gamma[c] + beta[c]
    out[...] = _activated(y, activation).reshape(imgs.shape)
    return out, mean, inv_std


def bprop_group_norm(
    imgs,
    out_grad,
    gamma,
    beta,
    mean,
    inv_std,
    imgs_grad=None,
    gamma_grad=None,
    beta_grad=None,
    *,
    activation=None,
    need_imgs_grad=True,
):
    """Back-propagate through `group_norm`, and the ReLU after it: see `bprop_batch_norm`."""
    n_imgs, n_channels = imgs.shape[:2]
    x, grad, n_groups = _planes(imgs), _planes(out_grad), mean.shape[1]
    size = n_channels // n_groups
    gamma_grad = _given(gamma_grad, n_channels, imgs.dtype)
    beta_grad = _given(beta_grad, n_channels, imgs.dtype)
    gamma_sums, beta_sums = np.zeros(n_channels), np.zeros(n_channels)
    result = np.empty(x.shape)
    for n in range(n_imgs):
        for g in range(n_groups):
            channels = range(g * size, (g + 1) * size)
            total = products = 0.0
            normalised = (x[n] - mean[n, g]) * inv_std[n, g]
            for c in channels:
                y = normalised[c] * gamma[c] + beta[c]
                grad[n, c] = _activated_grad(y, grad[n, c], activation)
                for i in range(x.shape[2]):
                    beta_sums[c] += grad[n, c, i]
                    gamma_sums[c] += grad[n, c, i] * normalised[c, i]
                    total += gamma[c] * grad[n, c, i]
                    products += gamma[c] * grad[n, c, i] * normalised[c, i]
            count = size * x.shape[2]
            for c in channels:
                mean_terms = (total + normalised[c] * products) / count
                result[n, c] = inv_std[n, g] * (gamma[c] * grad[n, c] - mean_terms)
    gamma_grad[...], beta_grad[...] = gamma_sums / max(n_imgs, 1), beta_sums / max(n_imgs, 1)
    return _delivered(result, imgs_grad, imgs, need_imgs_grad), gamma_grad, beta_grad


def _planes(imgs):
    """(n_imgs, n_channels, n_pixels) in float64: a copy."""
    return np.array(imgs, float).reshape(*imgs.shape[:2], np.prod(imgs.shape[2:], dtype=int))


def _weights(weights, n_imgs):
    return [1.0] * n_imgs if weights is None else list(map(float, weights))


def _count(weights, n_pixels):
    """How many values these are: an image of weight 2 is two, small weights count by their ratios.

    sum(w)^2 / sum(w^2): Kish 1965, "Survey sampling". A single value is none, whatever it weighs.
    """
    if sum(weight > 0 for weight in weights) * n_pixels <= 1:
        return 0.0
    squares = sum(weight * weight for weight in weights)
    return max(sum(weights), sum(weights) ** 2 / squares) * n_pixels


def _given(array, shape, dtype):
    return np.empty(shape, dtype) if array is None else array


def _activated(y, activation):
    return np.maximum(y, 0) if activation == "relu" else y


def _activated_grad(y, grad, activation):
    return np.where(y > 0, grad, 0) if activation == "relu" else grad


def _delivered(result, imgs_grad, imgs, need_imgs_grad):
    if not need_imgs_grad:
        return None
    imgs_grad = _given(imgs_grad, imgs.shape, imgs.dtype)
    imgs_grad[...] = result.reshape(imgs.shape)
    return imgs_grad
