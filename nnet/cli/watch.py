"""What `nnet train` shows and remembers while it trains."""

from nnet.training.callbacks import ProgressBar
from nnet.training.progress import headline


class Watch(ProgressBar):
    """The callback of a training: shows its progress and remembers its best epoch."""

    def __init__(self, quiet):
        super().__init__(leave=False)
        self.best = self.best_params = None
        self.quiet = quiet

    def __call__(self, progress):
        if not self.quiet:
            super().__call__(progress)
        if not progress.epoch_done:
            return
        if self.best is None or progress.loss < self.best.loss:
            best_params = [param.copy() for param in progress.network.params()]
            self.best, self.best_params = progress, best_params
        if not self.quiet:
            line = headline(progress)
            if progress.val_error is not None:
                line += f", test accuracy {1 - progress.val_error:.2%}"
            self.write(f"{line}, {progress.n_imgs / progress.seconds:.0f} images/s")
