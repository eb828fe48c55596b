"""What `nnet train` shows and remembers while it trains."""

import sys


class Watch:
    """The callback of a training: shows its progress and remembers its best epoch."""

    def __init__(self, n_imgs, quiet):
        from tqdm import tqdm

        self.best = self.best_params = None
        self.quiet = quiet
        self.bar = tqdm(
            desc="starting",
            total=n_imgs,
            unit=" images",
            unit_scale=True,
            leave=False,
            dynamic_ncols=True,
            file=sys.stderr,
            disable=True if quiet else None,  # None: unless it is a terminal
            bar_format="{desc}, {rate_noinv_fmt} |{bar}| {remaining} left",
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bar.close()

    def __call__(self, progress):
        line = f"epoch {progress.epoch:{len(str(progress.n_epochs))}}/{progress.n_epochs}: "
        line += f"loss {progress.loss:.4f}, accuracy {progress.accuracy:.2%}"
        n_done = (progress.epoch - 1) * progress.n_imgs + progress.n_seen
        self.bar.set_description_str(line, refresh=False)
        self.bar.update(n_done - self.bar.n)
        if not progress.epoch_done:
            return
        if self.best is None or progress.loss < self.best.loss:
            best_params = [param.copy() for param in progress.network.params()]
            self.best, self.best_params = progress, best_params
        if not self.quiet:
            if progress.val_error is not None:
                line += f", test accuracy {1 - progress.val_error:.2%}"
            line += f", {progress.n_imgs / progress.seconds:.0f} images/s"
            self.bar.write(line, file=sys.stderr)
