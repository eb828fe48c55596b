"""What `nnet train` shows and remembers while it trains."""

from nnet.training.callbacks import ProgressBar
from nnet.training.progress import line_of


class Watch(ProgressBar):
    """The callback of a training: shows its progress and remembers its best epoch."""

    def __init__(self, quiet):
        super().__init__(leave=False)
        self.best = self.best_state = None
        self.quiet = quiet

    def __call__(self, progress):
        if not self.quiet:
            super().__call__(progress)
        if not progress.epoch_done:
            return
        if self.best is None or progress.loss < self.best.loss:
            self.best, self.best_state = progress, progress.network.state_dict()
        if not self.quiet:
            self.write(line_of(progress, with_rate=True).replace("val_", "test_"))
