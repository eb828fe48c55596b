"""Telling: what a verbose training prints, and what a training warns of."""

import math
import warnings
from contextlib import ExitStack
from typing import Any

import numpy as np

from nnet.layers.activation import Activation
from nnet.layers.base import ParamMixin
from nnet.layers.norm import BatchNorm, GroupNorm
from nnet.layers.program import lay_open
from nnet.layers.standardize import Standardize
from nnet.layers.tree import describe, is_own, numbered, walk
from nnet.training.batches import ArrayData
from nnet.training.callbacks import Callback, ProgressBar
from nnet.training.data import Images
from nnet.training.inside import outputs_of
from nnet.training.optimizers import SGD
from nnet.training.progress import line_of
from nnet.training.schedules import Constant

PATIENCE, STEPS = 3, 20  # epochs and steps in which nothing may be learned
NEARLY = 0.98  # of the loss of guessing
FAR = 10  # times that
LOOKED_AT = 64  # images
LARGE = 50  # values beyond are neither standardised nor fractions
AFRESH = (
    "fit starts afresh: parameters that were loaded are gone, expected warm_start=True to go on "
    "from them, or freeze(...) to keep some"
)


class Telling:
    """Prints lines about a training, above its progress bars.

    Parameters
    ----------
    callbacks : list of callables
    """

    def __init__(self, callbacks):
        self._callbacks = callbacks
        self._guessing: Any = None  # (share of right labels, loss) of it, where that is known
        self._is_said = False

    def begin(self, network, model, data, stepping, is_weighted):
        """Take note of what is trained."""
        self._network, self._model, self._data, self._stepping = network, model, data, stepping
        if model.is_classifier and not is_weighted:
            counts = data.counts(model.classes)
            shares = counts[counts > 0] / counts.sum()
            self._guessing = shares.max(), -np.sum(shares * np.log(shares))

    def epoch(self, progress):
        """After each epoch."""
        self._print(line_of(progress, not isinstance(self._stepping.schedule, Constant)))
        advice = "" if self._guessing is None else self._advice(progress)
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
        share, loss = self._guessing
        rate = f"learning_rate than {progress.learning_rate:.3g}"
        if progress.epoch == 1 and progress.loss > FAR * loss:
            problem = f"the loss is far above {loss:.4f}, that of guessing"
            return f"{problem}: try {', or '.join([f'a smaller {rate}', *self._remedies()])}"
        luck = max(0.02, 2 * math.sqrt(share * (1 - share) / progress.n_imgs))  # 2 deviations
        guesses = progress.loss >= NEARLY * loss and progress.accuracy <= share + luck
        is_early = progress.epoch < PATIENCE or self._stepping.n_steps < STEPS
        if is_early or self._is_said or not guesses:
            return ""
        self._is_said = True
        problem = f"nothing is learned yet, {share:.2%} are right by guessing"
        dead = self._dead_layer()
        if dead:
            problem += f"; all outputs of {dead} are 0"
        change = "a smaller" if dead else "another"
        return f"{problem}: try {', or '.join([f'{change} {rate}', *self._remedies()])}"

    def _remedies(self):
        layers = [layer for _, layer in walk(numbered(self._model.layers))]
        if isinstance(self._stepping.optimizer, SGD):
            yield "optimizer='adam'"
        if not any(isinstance(layer, Standardize) for layer in layers):
            yield "Standardize() as the first layer"

    def _dead_layer(self):
        """The first ReLU that puts nothing but 0 out, as errors name it; "" if none does."""
        if not isinstance(self._data, ArrayData):
            return ""
        images = Images(self._data.images[:LOOKED_AT], self._model.dtype)
        for name, layer in walk(numbered(self._model.layers)):
            if type(layer) is Activation and layer.type in ("relu", "relu6"):
                model = self._model.copy(self._network)
                if not outputs_of(model, name, images, LOOKED_AT).any():
                    return describe(name, layer)
        return ""


def warn_of_values(layers, data):
    """Warn of images like those of bytes that no layer standardises."""
    if not isinstance(data, ArrayData):
        return
    for _, layer in lay_open(numbered(layers), ""):
        if not is_own(layer) or isinstance(layer, (Standardize, BatchNorm, GroupNorm)):
            return
        if isinstance(layer, ParamMixin) or layer.children:
            break
    largest = np.abs(data.images[:LOOKED_AT]).max(initial=0)
    if math.isfinite(largest) and largest > LARGE:
        warnings.warn(
            f"X has values up to {largest:.6g}, expected values around 0 to 1: put Standardize() "
            "as the first layer, or scale X",
            UserWarning,
            stacklevel=6,
        )
