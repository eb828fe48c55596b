"""Optimizers: an epoch with Adam, AdamW or RMSprop beside one with SGD and momentum."""

import statistics

import numpy as np

import bench_train
from common import (
    Stopwatch,
    add_timing,
    limit_threads,
    make_parser,
    matching,
    parse,
    run,
    run_child,
)
from nnet import SGD, Adam, AdamW, RMSprop
from targets import OPTIMIZERS

RATE = 1e-4
SETTINGS = {  # as the networks are trained, and the first step that each makes of a gradient
    "sgd": (lambda: SGD(RATE, 0.9), lambda g, w: g),
    "adam": (lambda: Adam(RATE), lambda g, w: g / (np.abs(g) + 1e-8)),
    "adamw": (lambda: AdamW(RATE), lambda g, w: g / (np.abs(g) + 1e-8) + 0.01 * w),
    "rmsprop": (lambda: RMSprop(RATE), lambda g, w: g / (np.sqrt(0.01 * g * g) + 1e-8)),
}
N_BATCHES = 4  # of an epoch


def nets(options):
    cases = bench_train.BENCHMARK.cases
    return matching({"tiny": bench_train.BENCHMARK.tiny_case} if options.quick else cases, options)


def verify(optimizer):
    """Stop if the first step is not what the formulas say."""
    make, first = SETTINGS[optimizer]
    w, g = np.random.default_rng(0).normal(size=(2, 50, 40))
    stepped = w.copy()
    bound = make()
    bound.bind([stepped])
    bound.step([g])
    np.testing.assert_allclose(stepped, w - RATE * first(g, w), rtol=1e-12, atol=1e-12)


def seconds_of_epoch(case, optimizer, budget, dtype):
    """The median."""
    stopwatch = Stopwatch(budget)
    n_imgs = N_BATCHES * case.batch_size
    X, y = (array[:n_imgs] for array in case.data(dtype))

    def stop(progress):
        return progress.epoch_done and stopwatch.lap()

    make, _ = SETTINGS[optimizer]
    options = {"optimizer": make(), "max_iter": 10**6, "callback": stop}
    bench_train.fit("nnet", case, X, y, **options)
    return stopwatch.median()


def measure(options):
    limit_threads("nnet", options.threads[0])
    verify(options.child)
    return {
        name: seconds_of_epoch(case, options.child, options.budget, np.dtype(options.dtype))
        for name, case in nets(options).items()
    }


def collect(options):
    """All optimizers in turn, round by round, each in a process of its own."""
    rows = []
    for threads in options.threads:
        times: dict[str, dict[str, list]] = {name: {} for name in nets(options)}
        for _ in range(options.rounds):
            for optimizer in SETTINGS:
                for name, seconds in run_child(optimizer, threads).items():
                    times[name].setdefault(optimizer, []).append(seconds)
        for name, found in times.items():
            of = {optimizer: statistics.median(seconds) for optimizer, seconds in found.items()}
            row = {"case": name, "threads": threads, "sgd ms": 1e3 * of["sgd"]}
            rows.append(row | {f"{o} / sgd": of[o] / of["sgd"] for o in SETTINGS if o != "sgd"})
    return {"figures": {OPTIMIZERS: rows}}


if __name__ == "__main__":
    parser = make_parser("optimizers", ())
    add_timing(parser)
    run("optimizers", parse(parser), measure, collect)
