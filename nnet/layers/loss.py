"""The last layers: LogRegression for classification, MeanSquaredError for regression."""

import numpy as np

from nnet._dense import cross_entropy, softmax
from nnet.layers.base import Layer, LossMixin, check_axes


class LogRegression(Layer, LossMixin):
    """Softmax with cross-entropy: (n_imgs, n_classes) scores to probabilities."""

    is_classifier = True

    def _setup(self, input_shape, rng):
        self.output_shape(input_shape)

    def fprop(self, input):
        probs = softmax(input)
        if self.training:
            self._kept = probs
        return probs

    def bprop(self, output_grad):
        """The gradient by the scores from one by the probabilities; training uses `input_grad`."""
        probs = self._kept
        return probs * (output_grad - np.sum(output_grad * probs, axis=1, keepdims=True))

    def loss(self, input, target):
        return -np.mean(log_softmax(input)[np.arange(len(target)), target])

    def input_grad(self, input, target):
        grad = np.exp(log_softmax(input))
        grad[np.arange(len(target)), target] -= 1
        return grad

    def loss_and_grad(self, input, target):
        """`loss`, for how many images `fprop` is right, and `input_grad`: all of one softmax."""
        grad = self._fleeting(input.shape, input.dtype)
        loss, n_right = cross_entropy(input, target, grad)
        return loss, n_right, grad

    def output_shape(self, input_shape):
        advice = "" if len(input_shape) < 3 else ": put a Flatten and a Linear layer before it"
        check_axes(input_shape, "n_imgs, n_classes", advice)
        return tuple(input_shape)


def log_softmax(scores):
    """Logarithms of softmax probabilities; subtracting the maximum, no exponent is positive."""
    shifted = scores - np.max(scores, axis=1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))


class MeanSquaredError(Layer, LossMixin):
    """Predicts its input; the loss is the mean squared difference over images and targets."""

    is_classifier = False

    def fprop(self, input):
        return input

    def bprop(self, output_grad):
        return output_grad

    def loss(self, input, target):
        return np.mean(np.square(input - target))

    def input_grad(self, input, target):
        n_targets = max(input[0].size, 1)
        return (input - target) * (2 / n_targets)

    def output_shape(self, input_shape):
        return tuple(input_shape)
