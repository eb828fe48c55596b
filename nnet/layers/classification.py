"""The last layers of classifiers: LogRegression for one label of many, BinaryCrossEntropy."""

import numpy as np

from nnet._dense import activate, binary_cross_entropy, cross_entropy, softmax
from nnet.layers.arguments import Option, as_share, check_axes, check_like
from nnet.layers.hints import with_hints
from nnet.layers.loss import FLOAT64, Compared, Loss


class LogRegression(Loss):
    """Softmax with cross-entropy: one label for each image, or for each pixel (segmentation).

    Scores (n_imgs, n_classes) are for labels (n_imgs,); scores (n_imgs, n_classes, img_h, img_w),
    from a Conv(n_classes, 1) for example, for labels (n_imgs, img_h, img_w), and those of signals
    (n_imgs, n_classes, length) for labels (n_imgs, length). The loss of an image, and its error,
    is then the mean over its pixels.

    Parameters
    ----------
    label_smoothing : float, from 0 to 1
        The probabilities to learn are label_smoothing / n_classes for each class, and
        1 - label_smoothing more for the right one: Szegedy et al. 2016, section 7. The
        class_weight of fit multiplies all of an image's loss by the weight of its label;
        PyTorch's multiplies the share of each class by the weight of that class.
    """

    label_smoothing = Option(as_share)

    @with_hints()
    def __init__(self, label_smoothing=0.0):
        self.label_smoothing = label_smoothing

    def _setup(self, input_shape, rng):
        self.output_shape(input_shape)

    def fprop(self, input):
        probs = softmax(input)
        if self.training:
            self._kept = probs
        return probs

    def bprop(self, output_grad):
        """The gradient by the scores from one by the probabilities; training uses `compare`."""
        probs = self._kept
        check_like(output_grad, "output_grad", probs.shape, probs.dtype)
        return probs * (output_grad - np.sum(output_grad * probs, axis=1, keepdims=True))

    def compare(self, input, target):
        probs = self._array("probs", input.shape, input.dtype)
        grad = self._scratch(input.shape, input.dtype)
        losses = self._array("losses", (len(input),), FLOAT64)
        if input.ndim == 2:
            sums = cross_entropy(input, target, probs, losses, grad, smoothing=self.label_smoothing)
            return Compared(probs, losses, grad, *sums)
        errors = self._array("errors", (len(input),), FLOAT64)
        cross_entropy(input, target, probs, losses, grad, errors, smoothing=self.label_smoothing)
        return Compared(probs, losses, grad, errors=errors)

    def output_shape(self, input_shape):
        n_axes = len(input_shape)
        axes = {3: "n_imgs, n_classes, length", 4: "n_imgs, n_classes, img_h, img_w"}
        check_axes(input_shape, axes.get(n_axes, "n_imgs, n_classes"))
        return tuple(input_shape)


class BinaryCrossEntropy(Loss):
    """Sigmoid with cross-entropy: each score is for one thing that is there or is not.

    The targets are 0 and 1, or bools, in the shape of the scores: (n_imgs, n_things) for
    multi-label classification, (n_imgs,) where there is one score for each image. Numbers
    between them are probabilities; for the error they count as 1 above 1/2. `predict`
    gives 0 and 1 as integers, `predict_proba` the probabilities of 1; the error is the
    fraction of wrong ones. The loss of an image is the mean over its scores.

    Parameters
    ----------
    label_smoothing : float, from 0 to 1
        Each target moves so much of its way to 1/2: 0 and 1 become label_smoothing / 2 and
        1 - label_smoothing / 2.
    """

    is_classifier = False
    has_probabilities = True
    target_range = 0.0, 1.0
    label_smoothing = Option(as_share)

    @with_hints()
    def __init__(self, label_smoothing=0.0):
        self.label_smoothing = label_smoothing

    def fprop(self, input):
        probs = activate(input, type="sigmoid")
        if self.training:
            self._kept = probs
        return probs

    def bprop(self, output_grad):
        """The gradient by the scores from one by the probabilities; training uses `compare`."""
        probs = self._kept
        check_like(output_grad, "output_grad", probs.shape, probs.dtype)
        return output_grad * probs * (1 - probs)

    def compare(self, input, target):
        probs = self._array("probs", input.shape, input.dtype)
        grad = self._scratch(input.shape, input.dtype)
        losses = self._array("losses", (len(input),), FLOAT64)
        errors = self._array("errors", (len(input),), FLOAT64)
        binary_cross_entropy(
            input, target, probs, losses, grad, errors, smoothing=self.label_smoothing
        )
        return Compared(probs, losses, grad, errors=errors)

    def decide(self, predictions):
        return (predictions > 0.5).astype(int)

    def errors(self, predictions, target):
        check_like(target, "target", predictions.shape)
        wrong = (predictions > 0.5) != (target > 0.5)
        return np.mean(wrong, axis=tuple(range(1, wrong.ndim)), dtype=float)

    def output_shape(self, input_shape):
        return tuple(input_shape)
