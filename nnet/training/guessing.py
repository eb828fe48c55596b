"""Guessing: how well a network does that puts the same out for all images."""

from math import prod
from typing import NamedTuple

import numpy as np

from nnet.layers.classification import BinaryCrossEntropy, LogRegression
from nnet.layers.regression import Huber, MeanAbsoluteError, MeanSquaredError
from nnet.training.batches import ArrayData

LOOKED_AT = 2**22  # values of y: more take longer than they are worth


class Guess(NamedTuple):
    """What guessing would reach, by the proportions of the targets alone."""

    loss: float  # NaN: not known, for losses of the user's own
    accuracy: float | None  # None for regression
    loss_of_zeros: float  # of a network that has only begun, and puts out about 0
    is_far: bool = False  # whether values are far from 0, or from a deviation of 1
    least: float = 0.0  # the loss of perfect predictions: of labels that are no certainties


def guess_of(model, data, is_weighted):
    """The Guess for the targets that a network is trained on, or None where nobody knows.

    Parameters
    ----------
    model : Model
    data : ArrayData or IterableData
    is_weighted : bool
        Whether images, or classes, have weights.
    """
    loss = model.loss
    if not isinstance(data, ArrayData):
        if is_weighted or not model.is_classifier:
            return None
        return _of_shares(loss, data.counts(model.classes))
    rows = data.spread(max(LOOKED_AT // max(prod(model.target_shape or ()), 1), 1))
    weights = data.weights_of(rows)
    if weights is not None and not weights.any():
        return None
    target = model.as_target(data.target[rows])
    if model.is_classifier:
        if weights is not None:
            weights = np.repeat(weights, prod(target.shape[1:]))
        return _of_shares(loss, np.bincount(target.ravel(), weights, len(model.classes)))
    if type(loss) is BinaryCrossEntropy:
        return _of_things(loss, target, weights)
    if type(loss) in (MeanSquaredError, MeanAbsoluteError, Huber):
        return _of_values(loss, target, weights)
    return None


def _of_shares(loss, counts):
    """One label of many: the class that occurs most, with the shares as probabilities."""
    if not counts.sum():
        return None
    shares = counts / counts.sum()
    if type(loss) is not LogRegression:
        return Guess(np.nan, shares.max(), np.nan)
    n_classes, smoothing = len(shares), loss.label_smoothing
    learned, one_label = (
        (1 - smoothing) * each + smoothing / n_classes for each in (shares, np.eye(n_classes)[0])
    )
    return Guess(entropy(learned), shares.max(), np.log(n_classes), least=entropy(one_label))


def _of_things(loss, target, weights):
    """Several labels: each as it mostly is."""

    def means(values):
        return np.average(values, 0, weights).reshape(values.shape[1], -1).mean(axis=1)

    learned = (1 - loss.label_smoothing) * target + loss.label_smoothing / 2
    majorities = means(target > 0.5)
    return Guess(
        np.mean(binary_entropies(means(learned))),
        np.maximum(majorities, 1 - majorities).mean(),
        np.log(2),
        least=np.mean(means(binary_entropies(learned))),
    )


def _of_values(loss, target, weights):
    """Values: the mean, or the median, of each output over images and pixels."""
    axes = (0, *range(2, target.ndim))

    def loss_of(values):
        scores = np.broadcast_to(np.asarray(values, target.dtype), target.shape)
        losses = loss.compare(np.ascontiguousarray(scores), target).losses
        return np.average(losses, weights=weights)

    centres = [function(target, axis=axes, keepdims=True) for function in (np.mean, np.median)]
    deviation = target.std(dtype=float)
    is_far = np.abs(centres[0]).max() > 3 * deviation or not 0.1 < deviation < 10
    return Guess(min(map(loss_of, centres)), None, loss_of(0), bool(is_far and deviation))


def entropy(shares):
    """Of a distribution, in nats."""
    shares = shares[shares > 0]
    return float(-np.sum(shares * np.log(shares)))


def binary_entropies(shares):
    """Of things that are there with these probabilities."""
    both = np.stack([shares, 1 - shares]).clip(np.finfo(float).tiny, 1)
    return -np.sum(both * np.log(both), axis=0)
