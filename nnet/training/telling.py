"""Telling: what a verbose training prints."""

import math
from contextlib import ExitStack
from typing import Any

import numpy as np

from nnet.layers.activation import Activation
from nnet.layers.standardize import Standardize
from nnet.layers.tree import describe, numbered, walk
from nnet.training.callbacks import Callback, ProgressBar
from nnet.training.data import Images
from nnet.training.guessing import guess_of
from nnet.training.inside import outputs_of
from nnet.training.optimizers import SGD
from nnet.training.progress import line_of, shown_value
from nnet.training.schedules import Constant

PATIENCE, STEPS = 3, 20  # epochs and steps in which nothing may be learned
NEARLY = 0.98  # of the loss of guessing, above the least that there can be
FALLING = 0.02  # times that: what falls so much from PATIENCE epochs ago is still on its way
FAR = 10  # times that
UNLIKE = 3  # times the default learning rate, or a part of it: hardly by intention
MOSTLY = 0.8  # of the images: one class
DEAD = 0.9  # of the outputs of a ReLU
ALIKE = 1e-3  # of the largest output: the differences between images
SMALLER = "a smaller"


class Telling:
    """Prints lines about a training, above its progress bars.

    Parameters
    ----------
    callbacks : list of callables
    """

    def __init__(self, callbacks):
        self._callbacks = callbacks
        self._guess: Any = None  # a Guess, where that is known
        self._losses: list[float] = []
        self._is_said: set[str] = set()

    def begin(self, network, model, data, stepping, is_weighted):
        """Take note of what is trained."""
        self._network, self._model, self._data, self._stepping = network, model, data, stepping
        self._is_weighted = is_weighted
        self._guess = guess_of(model, data, is_weighted)

    def epoch(self, progress):
        """After each epoch."""
        self._print(line_of(progress, not isinstance(self._stepping.schedule, Constant)))
        self._losses.append(progress.loss)
        advice = "" if self._guess is None else self._advice(progress)
        if advice:
            self._print(f"after epoch {progress.epoch}/{progress.n_epochs}: {advice}")

    def end(self, n_done, n_epochs):
        for callback in self._callbacks:
            if isinstance(callback, Callback) and callback.outcome():
                self._print(f"after epoch {n_done}/{n_epochs}: {callback.outcome()}")

    def _print(self, line):
        with ExitStack() as stack:
            for callback in self._callbacks:
                if isinstance(callback, ProgressBar):
                    stack.enter_context(callback.hidden())
            print(line, flush=True)

    # --- advice -----------------------------------------------------------------------------

    def _advice(self, progress):
        """What to do about a training that learns nothing, said once; nothing about others."""
        guess, rate = self._guess, f"learning_rate than {progress.learning_rate:.3g}"
        of_guessing = "that of guessing"
        if guess.accuracy is None:
            of_guessing = "that of the same values for all images"
        if progress.loss > FAR * max(guess.loss, guess.loss_of_zeros):
            if "explodes" in self._is_said:
                return ""
            self._is_said.add("explodes")
            problem = f"the loss is far above {shown(guess.loss)}, {of_guessing}"
            return advised(problem, f"{SMALLER} {rate}", *self._remedies())
        if "learns nothing" in self._is_said or not self._learns_nothing(progress):
            return ""
        self._is_said.add("learns nothing")
        problem = f"nothing is learned yet, {guess.accuracy or 0:.2%} are right by guessing"
        if guess.accuracy is None:
            problem = f"nothing is learned yet, the loss is not below {shown(guess.loss)}, "
            problem += of_guessing
        change, default = "another", type(self._stepping.optimizer)().learning_rate
        idle, remedy = self._idle_layer()
        if remedy == SMALLER or progress.learning_rate > UNLIKE * default:
            change = SMALLER
        elif progress.learning_rate < default / UNLIKE:
            change = "a larger"
        if idle:
            remedies = [remedy] if remedy not in ("", SMALLER) else []
            return advised(f"{problem}; {idle}", *remedies, f"{change} {rate}", *self._remedies())
        remedies = [f"{change} {rate}", *self._remedies()]
        has_classes = self._model.is_classifier and not self._model.target_shape
        if has_classes and guess.accuracy > MOSTLY and not self._is_weighted:
            remedies.append("class_weight='balanced'")
        return advised(problem, *remedies) + "; or are X and y in different orders?"

    def _learns_nothing(self, progress):
        """Whether guessing does as well, and the loss does not fall any more."""
        guess, losses = self._guess, self._losses
        if len(losses) < PATIENCE or self._stepping.n_steps < STEPS:
            return False
        loss, least = progress.loss, guess.least
        if loss - least < NEARLY * (guess.loss - least):
            return False
        if losses[-PATIENCE] - loss > FALLING * (max(guess.loss, loss) - least):
            return False
        share = guess.accuracy
        if share is None:
            return True
        luck = max(0.02, 2 * math.sqrt(share * (1 - share) / progress.n_imgs))  # 2 deviations
        return progress.accuracy <= share + luck

    def _remedies(self):
        layers = [layer for _, layer in walk(numbered(self._model.layers))]
        if self._guess.is_far:
            yield "(y - y.mean()) / y.std() as y"
        if isinstance(self._stepping.optimizer, SGD):
            yield "optimizer='adam'"
        if not any(isinstance(layer, Standardize) for layer in layers):
            yield "Standardize() as the first layer"

    def _idle_layer(self):
        """(what is wrong with the first activation that hardly tells images apart, remedy)."""
        X = self._data.some_images()
        if len(X) < 2 or are_alike(X):
            return "the images of X hardly differ" * (len(X) > 1), ""
        images = Images(X, self._model.dtype)
        for name, layer in walk(numbered(self._model.layers)):
            if type(layer) is not Activation:
                continue
            outputs = outputs_of(self._model.copy(self._network), name, images, len(images))
            which = describe(name, layer)
            if layer.type in ("relu", "relu6"):
                dead = 1 - outputs.any(axis=(0, *range(2, outputs.ndim))).mean()
                if dead >= DEAD:
                    some = "all" if dead == 1 else f"{dead:.0%} of the"
                    return f"{some} outputs of {which} are 0", SMALLER
            if are_alike(outputs):
                remedy = "BatchNorm() before it"
                return f"the outputs of {which} hardly differ between images", remedy
        return "", ""


def are_alike(values):
    """Whether those of all images are the same, or nearly so."""
    return np.ptp(values, axis=0).max() <= ALIKE * np.abs(values).max()


def advised(problem, *remedies):
    return f"{problem}: try {', or '.join(remedies)}"


def shown(loss):
    return shown_value("", loss).strip()
