"""What `nnet train` shows and remembers while it trains."""

from typing import Any, NamedTuple

import numpy as np

from nnet.training.callbacks import ProgressBar
from nnet.training.progress import line_of


class Best(NamedTuple):
    """The best epoch so far, and its loss."""

    epoch: int
    loss: float


class Watch(ProgressBar):
    """The callback of a training: shows its progress and remembers its best epoch.

    Parameters
    ----------
    quiet : bool
    monitor : {'loss', 'val_loss'}
        What is lowest in the best epoch.
    """

    best: Any = None  # before the first epoch has ended

    def __init__(self, quiet, monitor="loss"):
        super().__init__(leave=False)
        self.best_state = {}
        self.quiet, self.monitor = quiet, monitor

    def __repr__(self):  # checkpoints know it by this
        return f"Watch({self.monitor!r})"

    def __call__(self, progress):
        if not self.quiet:
            super().__call__(progress)
        if not progress.epoch_done:
            return
        loss = getattr(progress, self.monitor)
        if self.best is None or loss < self.best.loss:
            self.best, self.best_state = Best(progress.epoch, loss), progress.network.state_dict()
        if not self.quiet:
            line = line_of(progress, with_rate=True)
            self.write(line.replace("val_", "test_") if self.monitor == "loss" else line)

    def state(self):
        epoch, loss = self.best
        return {"epoch": epoch, "loss": loss} | {
            f"arrays.{name}": array for name, array in self.best_state.items()
        }

    def load_state(self, state):
        self.best = Best(int(state["epoch"]), float(state["loss"]))
        self.best_state = {
            name.removeprefix("arrays."): np.array(array)
            for name, array in state.items()
            if name.startswith("arrays.")
        }
