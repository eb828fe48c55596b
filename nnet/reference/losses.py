"""Losses as plain Python loops: for each image its loss, and the gradient by its scores.

They are computed in double, without regard to scores so large that exp overflows: the layers
take care of these.
"""

import math

import numpy as np

from nnet.reference.activations import sigmoid


def softmax(scores):
    """The probabilities of a list of scores."""
    highest = max(scores)
    powers = [math.exp(score - highest) for score in scores]
    return [power / sum(powers) for power in powers]


def cross_entropy(scores, target, smoothing=0.0):
    """The cross-entropy of softmax(scores), the mean over the pixels of an image.

    Parameters
    ----------
    scores : array (n_imgs, n_classes), or (n_imgs, n_classes, ...) with a class in each pixel
    target : array (n_imgs, ...) of class indices
    smoothing : float
        The probabilities to learn are smoothing / n_classes for all classes, and
        1 - smoothing more for the right one: Szegedy et al. 2016, section 7.

    Returns
    -------
    probs : array like scores
    losses, errors : arrays (n_imgs,)
        An error is the fraction of pixels where another class has the first largest probability.
    grad : array like scores
    """
    n_imgs, n_classes = scores.shape[:2]
    n_pixels = math.prod(scores.shape[2:])
    rows, labels = scores.reshape(n_imgs, n_classes, n_pixels), target.reshape(n_imgs, n_pixels)
    probs, grad = np.empty(rows.shape), np.empty(rows.shape)
    losses, errors = np.zeros(n_imgs), np.zeros(n_imgs)
    for n in range(n_imgs):
        for i in range(n_pixels):
            p = softmax([float(rows[n, k, i]) for k in range(n_classes)])
            for k in range(n_classes):
                wanted = smoothing / n_classes + (1 - smoothing if k == labels[n, i] else 0)
                probs[n, k, i] = p[k]
                grad[n, k, i] = (p[k] - wanted) / n_pixels
                losses[n] -= wanted * math.log(p[k]) / n_pixels
            errors[n] += (p.index(max(p)) != labels[n, i]) / n_pixels
    return probs.reshape(scores.shape), losses, grad.reshape(scores.shape), errors


def binary_cross_entropy(scores, target, smoothing=0.0):
    """The binary cross-entropy of sigmoid(scores), the mean over the entries of an image.

    Parameters
    ----------
    scores, target : arrays (n_imgs, ...)
        A target is the probability to learn.
    smoothing : float
        Each target moves so much of its way to 1/2.

    Returns
    -------
    probs : array like scores
    losses, errors : arrays (n_imgs,)
        An entry is wrong if one of probability and target is greater than 1/2, the other not.
    grad : array like scores
    """
    probs, grad = np.empty(scores.shape), np.empty(scores.shape)
    losses, errors = np.zeros(len(scores)), np.zeros(len(scores))
    n_entries = math.prod(scores.shape[1:])
    for place in np.ndindex(scores.shape):
        p = sigmoid(float(scores[place]))
        y = (1 - smoothing) * float(target[place]) + smoothing / 2
        probs[place], grad[place] = p, (p - y) / n_entries
        losses[place[0]] -= (y * math.log(p) + (1 - y) * math.log(1 - p)) / n_entries
        errors[place[0]] += ((p > 0.5) != (target[place] > 0.5)) / n_entries
    return probs, losses, grad, errors


def absolute_error(scores, target):
    """The mean of |score - target| over the values of an image: (losses, grad)."""
    return _mean_of(lambda d: (abs(d), (d > 0) - (d < 0)), scores, target)


def huber(scores, target, delta=1.0):
    """The mean over the values of an image of Huber's function (1964): (losses, grad).

    d^2 / 2 for differences up to delta, delta (|d| - delta / 2) beyond.
    """

    def function(d):
        if abs(d) <= delta:
            return d * d / 2, d
        return delta * (abs(d) - delta / 2), math.copysign(delta, d)

    return _mean_of(function, scores, target)


def _mean_of(function, scores, target):
    """The mean of a function of the differences, which returns its slope too."""
    losses, grad = np.zeros(len(scores)), np.empty(scores.shape)
    n_values = math.prod(scores.shape[1:])
    for place in np.ndindex(scores.shape):
        loss, slope = function(float(scores[place]) - float(target[place]))
        losses[place[0]] += loss / n_values
        grad[place] = slope / n_values
    return losses, grad
