"""What `nnet train` does with a network: optimizer, early stopping, checkpoints, Ctrl-C."""

import os
import re
import signal
from contextlib import contextmanager

import numpy as np

import nnet
from nnet.cli.errors import ERROR, INTERRUPTED, CliError, reason, tell
from nnet.cli.watch import Watch

RATES = {"adam": 0.002, "adamw": 0.002, "sgd": 0.05, "rmsprop": 0.001}
MOMENTUM = 0.9
WARM_UP = 0.1  # of a training
N_EPOCHS, N_STEPS = 20, 600  # at least, of each: few images need more epochs
OPTIONS = {  # what fit calls them, in what it says of a checkpoint
    "batch_size": "--batch-size",
    "learning_rate": "--learning-rate or --epochs",
    "optimizer": "--optimizer",
    "augment": "--augment",
    "rng": "--seed",
    "callbacks": "--early-stopping",
}


def n_epochs_for(n_imgs, batch_size):
    """How many epochs train well, for so many images."""
    n_batches = -(-n_imgs // batch_size)
    return max(N_EPOCHS, -(-N_STEPS // n_batches))


class Decay(nnet.CosineDecay):
    """A learning rate that rises for a tenth of the training, and falls to 0 along a cosine."""

    def __init__(self, rate, n_epochs):
        super().__init__(rate, warmup_epochs=WARM_UP * n_epochs, n_epochs=n_epochs)

    def __repr__(self):  # checkpoints know it by this
        return f"{self.learning_rate:g} for {self.n_epochs} epochs"


def check_optimizer(args):
    """Refuse options of other optimizers, and fill in defaults."""
    if args.momentum is not None and args.optimizer != "sgd":
        raise CliError(f"--momentum is for --optimizer sgd, expected none for {args.optimizer}")
    if args.momentum is None and args.optimizer == "sgd":
        args.momentum = MOMENTUM
    if args.learning_rate is None:
        args.learning_rate = RATES[args.optimizer]


def layer_decay(args):
    """The weight decay of the layers: AdamW has its own."""
    return 0.0 if args.optimizer == "adamw" else args.weight_decay


def _optimizer(args):
    if args.optimizer == "adamw":
        return {"optimizer": nnet.AdamW(weight_decay=args.weight_decay)}
    if args.optimizer == "sgd":
        return {"momentum": args.momentum}
    return {"optimizer": args.optimizer}


def fit(network, args, data, test=None, validation=None):
    """Train, and leave the network with the arrays of its best epoch.

    That is the one of the lowest loss: of the training images, or of those to validate, if there
    are some. The test images are only shown.

    Returns
    -------
    exit code : not 0 if Ctrl-C ended the training, or a file that could not be read or written,
        such as an image that is no longer whole
    """
    watch = Watch(args.quiet, "loss" if validation is None else "val_loss")
    callbacks, resume = [], None
    if validation is not None:
        patience = args.early_stopping
        callbacks.append(nnet.EarlyStopping(patience=patience, restore_best=False))
    if args.resume is not None:
        callbacks.append(nnet.Checkpoint(args.resume))
        resume = args.resume if os.path.exists(args.resume) else None
    shown = test if validation is None else validation
    code = 0
    try:
        network.build(data.shape)  # X has its channels where they belong: no more guesses
        with _in_words_of_options():
            network.fit(
                **data.given(args.batch_size),
                **_optimizer(args),
                learning_rate=Decay(args.learning_rate, args.epochs),
                max_iter=args.epochs,
                validation_data=None if shown is None else shown.to_validate(),
                augment=args.augment,
                callbacks=callbacks,
                callback=watch,
                resume=resume,
            )
        n_epochs = len(network.loss_history_)
        if n_epochs < args.epochs and not args.quiet:
            tell(f"stopped early after epoch {n_epochs}: keeping epoch {watch.best.epoch}")
    except KeyboardInterrupt:
        if watch.best is None:
            raise KeyboardInterrupt("in the first epoch: no model was written") from None
        # A second Ctrl-C must not stop the writing.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code, what = INTERRUPTED, "interrupted"
    except (OSError, ValueError) as error:
        if watch.best is None:
            raise
        code, what = ERROR, f"error: {reason(error)}"
    if code:
        tell(f"nnet: {what}: keeping epoch {watch.best.epoch}")
    network.load_state_dict(watch.best_state)
    return code


@contextmanager
def _in_words_of_options():
    try:
        yield
    except ValueError as error:
        name = re.match(r"\w+", str(error))
        if name is None or name[0] not in OPTIONS or "in the training of" not in str(error):
            raise
        raise ValueError(f"{OPTIONS[name[0]]}: {str(error)[name.end() :].strip()}") from error


class Scale:
    """Regression targets are trained on as numbers around 0: the last layer scales them back.

    Parameters
    ----------
    y : array (n_imgs, ...)
        Of the training images.
    """

    def __init__(self, y):
        self.mean, self.std = y.mean(axis=0, dtype=float), y.std(axis=0, dtype=float)
        self.std = np.where(self.std > 0, self.std, 1.0)

    def scaled(self, y):
        return ((y - self.mean) / self.std).astype(np.float32)

    def into(self, network):
        """Let the last Linear put out values as they were before."""
        state, name = network.state_dict(), f"{len(network.layers) - 2}."
        for key in "W", "b":
            array = state[name + key]
            shift = np.ravel(self.mean) if key == "b" else 0.0
            state[name + key] = (array * np.ravel(self.std) + shift).astype(array.dtype)
        network.load_state_dict(state)
