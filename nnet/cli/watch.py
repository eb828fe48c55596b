"""What `nnet train` shows and remembers while it trains."""

import sys
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from nnet.training.callbacks import ProgressBar
from nnet.training.progress import shown_value


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
        self.quiet, self.monitor = quiet or sys.stderr is None, monitor
        self._has_heading = False

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
            self._show(progress)

    def _show(self, progress):
        """A row of a table; a heading comes before the first."""
        cells = cells_of(progress, "test_" if self.monitor == "loss" else "val_")
        widths = [max(len(name), 7) for name in cells]
        widths[0] = max(len("epoch"), 2 * len(str(progress.n_epochs)) + 1)
        rows = [cells.values()] if self._has_heading else [cells, cells.values()]
        self._has_heading = True
        with suppress(OSError):  # of a full disk, say: the training goes on
            for row in rows:
                self.write("  ".join(cell.rjust(width) for cell, width in zip(row, widths)))

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


def cells_of(progress, prefix):
    """What is shown of an epoch, as texts by their names; those of held out images begin so."""
    values = {
        name.replace("val_", prefix): shown_value(name, value).rpartition(" ")[2]
        for name, value in progress.metrics.items()
    }
    return {
        "epoch": f"{progress.epoch}/{progress.n_epochs}",
        **values,
        "learning_rate": f"{progress.learning_rate:.3g}",
        "images/s": f"{progress.n_imgs / progress.seconds:,.0f}",
    }
