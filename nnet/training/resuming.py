"""Checkpoints: what a training keeps of itself, and how another goes on from there."""

from functools import partial
from operator import index

import numpy as np

from nnet._atomic import write_all
from nnet._lazy import IMPORTS
from nnet.layers.streams import Streams, is_generator
from nnet.layers.tree import check_values, numbered, walk
from nnet.training.batches import digest_of_targets
from nnet.training.callbacks import Callback
from nnet.training.progress import History
from nnet.training.schedules import Constant, FunctionOfEpoch

# What fit is called with, as errors name it: another value would give other bits.
PLAIN = bool, int, float, str, type(None)


def save(run, path, is_stopped):
    """Keep a training at the end of an epoch."""
    with IMPORTS:  # only now: it needs modules that fit can do without
        from nnet.files import checkpoints

    history, network = run.model.history, run.model.copied_arrays()
    check_values(numbered(run.model.layers), network)
    description = {
        "n_done": run.n_done,
        "n_before": run.n_before,
        "n_epochs": run.n_epochs,
        "is_stopped": is_stopped,
        "seed": run.streams.seed,
        "as_random_state": run.streams.as_random_state,
        "call": run.call,
        "history": list(history.values),  # the order of its names
    }
    parts = {
        "network": network,
        "optimizer": run.stepping.optimizer.state(),
        "schedule": run.stepping.schedule.state(),
        "history": history.values,
        "errors": {"val_error": history.val_error},
    }
    for i, callback in enumerate(_with_state(run.callbacks)):
        parts[f"callbacks.{i}"] = state = callback.state()
        for name, value in state.items():
            if np.asarray(value).dtype.kind not in "biuf":
                raise TypeError(f"{callback!r}.state() has {name}={value!r}, expected numbers")
    arrays = {
        f"{part}.{name}": np.asarray(value)
        for part, state in parts.items()
        for name, value in state.items()
    }
    checkpoints.save(path, description, arrays)


def read(path):
    """What `save` has written: (path, description, arrays)."""
    with IMPORTS:
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
            f"max_iter is {run.n_epochs}, expected at least {description['n_epochs']}, as in the "
            f"training of {path}"
        )
    schedule = run.stepping.schedule
    if run.n_epochs > description["n_epochs"] and schedule.depends_on_max_iter:
        raise ValueError(
            f"max_iter is {run.n_epochs}, expected {description['n_epochs']} as in the training of "
            f"{path}: {type(schedule).__name__} was planned for that"
        )
    part = partial(_part, arrays)
    targets, sources = run.model.matched(part("network"))
    run.stepping.resume(description["n_done"], part("optimizer"), part("schedule"))
    for i, callback in enumerate(_with_state(run.callbacks)):
        callback.load_state(part(f"callbacks.{i}"))
    run.n_done, run.n_before = description["n_done"], description["n_before"]
    values = part("history")
    values = {name: values[name].tolist() for name in description["history"]}
    run.model.history = History(values, part("errors")["val_error"].tolist())
    write_all(targets, sources)
    return description["is_stopped"]


def call_of(run):
    """What a call of fit must be given again, as texts by the names that errors have for it.

    Of data they are checksums.
    """
    model, rng = run.model, run.network.rng
    is_given = run.validation is not None and run.fraction is None
    validation = run.validation.digests() if is_given else {}
    if rng is not None:
        rng = type(rng).__name__ if is_generator(rng) else index(rng)
    return {
        "rng": rng,
        **{name: described(layer) for name, layer in walk(numbered(model.layers))},
        "what is trained": listing(run.names),
        "the dtype of X": model.dtype.name,
        "the number of classes": None if model.classes is None else len(model.classes),
        "classes": None if model.classes is None else digest_of_targets(model.classes),
        **run.given.digests(),
        "validation_data": "given" if is_given else None,
        **{f"{name} of validation_data": digest for name, digest in validation.items()},
        "validation_fraction": run.fraction,
        "batch_size": run.batch_size,
        "shuffle": run.shuffle,
        "augment": listing(map(described, run.augmentations)),
        "optimizer": described(run.stepping.optimizer.without_rate()),
        "learning_rate": described(run.stepping.schedule),
        "clip_norm": run.clipping.norm,
        "clip_value": run.clipping.value,
        "metrics": listing(run.metrics.names),
        "callbacks": listing(map(described, _with_state(run.callbacks))),
    }


def listing(texts):
    """Some texts as one, or None."""
    return ", ".join(texts) or None


def described(value):
    """An option as text; of what is the user's own, only its name."""
    if isinstance(value, Constant):
        value = value.learning_rate
    if isinstance(value, FunctionOfEpoch):
        value = value.function
    cls = type(value)
    is_own = cls.__module__.split(".")[0] == "nnet" and cls.__repr__ is not object.__repr__
    if isinstance(value, PLAIN) or is_own:
        return repr(value)
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _check_call(path, mine, theirs):
    for name in [*mine, *theirs]:
        one, other = mine.get(name), theirs.get(name)
        if one != other:
            what = f"layer {name}" if name[0].isdigit() else name
            if any(isinstance(value, str) and len(value) == 64 for value in (one, other)):
                raise ValueError(  # there are checksums
                    f"{what} differs from that in the training of {path}, expected the same"
                )
            raise ValueError(f"{what} is {one}, expected {other}, as in the training of {path}")


def _with_state(callbacks):
    """Those whose class says what their next calls depend on."""
    return [
        callback
        for callback in callbacks
        if isinstance(callback, Callback) and type(callback).state is not Callback.state
    ]


def _part(arrays, name):
    """The arrays of a part of a checkpoint, by their own names."""
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)
    }
