"""Checkpoints: what a training keeps of itself, and how another goes on from there."""

from functools import partial

import numpy as np

from nnet._atomic import write_all
from nnet.layers.streams import Streams
from nnet.training.batches import digest_of
from nnet.training.callbacks import Callback, Checkpoint
from nnet.training.progress import History

# What fit is called with, as errors name it: another value would give other bits.
PLAIN = bool, int, float, str, type(None)


def save(run, path, is_stopped):
    """Keep a training at the end of an epoch."""
    from nnet.files import checkpoints  # only now: it needs modules that fit can do without

    description = {
        "n_done": run.n_done,
        "n_before": run.n_before,
        "n_epochs": run.n_epochs,
        "is_stopped": is_stopped,
        "seed": run.streams.seed,
        "as_random_state": run.streams.as_random_state,
        "call": run.call,
    }
    history = run.model.history
    parts = {
        "network": run.model.copied_arrays(),
        "optimizer": run.optimizer.state(),
        "history": history.values,
        "errors": {"val_error": history.val_error},
    }
    parts |= {f"callbacks.{i}": each.state() for i, each in enumerate(_with_state(run.callbacks))}
    arrays = {
        f"{part}.{name}": np.asarray(value)
        for part, state in parts.items()
        for name, value in state.items()
    }
    checkpoints.save(path, description, arrays)


def read(path):
    """What `save` has written: (path, description, arrays)."""
    from nnet.files import checkpoints

    return path, *checkpoints.load(path)


def streams_of(checkpoint):
    """The streams of the training that was kept."""
    _, description, _ = checkpoint
    return Streams(description["seed"], description["as_random_state"])


def load(run, checkpoint):
    """Put a training that is set up where another was: whether that one was stopped there.

    Raises
    ------
    ValueError
        For other data or options, before any change.
    """
    path, description, arrays = checkpoint
    _check_call(path, run.call, description["call"])
    if run.n_epochs < description["n_epochs"]:
        raise ValueError(
            f"max_iter is {run.n_epochs}, expected at least {description['n_epochs']} as in the "
            f"training of {path}"
        )
    part = partial(_part, arrays)
    targets, sources = run.model.matched(part("network"))
    run.optimizer.load_state(part("optimizer"))
    for i, callback in enumerate(_with_state(run.callbacks)):
        callback.load_state(part(f"callbacks.{i}"))
    run.n_done, run.n_before = description["n_done"], description["n_before"]
    values = {name: values.tolist() for name, values in part("history").items()}
    run.model.history = History(values, part("errors")["val_error"].tolist())
    write_all(targets, sources)
    return description["is_stopped"]


def call_of(run):
    """What a call of fit must be given again, in words that JSON can hold."""
    model, validation = run.model, run.validation
    return {
        "layers": [described(layer) for layer in model.layers],
        "the dtype of X": model.dtype.name,
        "classes": None if model.classes is None else digest_of(model.classes),
        "X, y or sample_weight": run.data.digest(),
        "validation data": None if validation is None else validation.digest(),
        "batch_size": run.batch_size,
        "shuffle": run.shuffle,
        "augment": [described(augmentation) for augmentation in run.augmentations],
        "optimizer": described(run.optimizer),
        "learning_rate": described(run.learning_rate),
        "metrics": run.metrics.names,
        "callbacks": [described(callback) for callback in _with_state(run.callbacks)],
    }


def described(value):
    """An option as text; of what is the user's own, only its name."""
    cls = type(value)
    is_own = cls.__module__.split(".")[0] == "nnet" and cls.__repr__ is not object.__repr__
    if isinstance(value, PLAIN) or is_own:
        return repr(value)
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _check_call(path, mine, theirs):
    for name, value in mine.items():
        if value != theirs.get(name):
            shown = "" if isinstance(value, str) and len(value) == 64 else f" ({value!r})"
            raise ValueError(
                f"resume is {path!r}, but {name}{shown} is not as in the training it is of, "
                f"expected the same call of fit: {theirs.get(name)!r}"
            )


def _with_state(callbacks):
    return [
        callback
        for callback in callbacks
        if isinstance(callback, Callback) and not isinstance(callback, Checkpoint)
    ]


def _part(arrays, name):
    """The arrays of a part of a checkpoint, by their own names."""
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)
    }
