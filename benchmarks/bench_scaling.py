"""Scaling: with threads, with the size of the work, and beside a busy process.

Every call is timed on one thread and on more in the same process, by turns: so
small a difference as that of a call which stays on one thread would drown in
that between two processes.
"""

import math
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np

import bench_conv
import bench_pool
import bench_train
import nnet
from bench_conv import named
from common import (
    add,
    add_timing,
    check,
    limit_threads,
    make_parser,
    matching,
    medians,
    parse,
    run,
    run_child,
)
from targets import GROWTH, NEIGHBOUR

BENCHMARKS = bench_conv, bench_pool
LIBRARIES = ("torch", "torch-channels-last")
BLOCK_SECONDS = 5e-3  # of calls on one number of threads, then on the other
NETS = {
    name: case
    for name, case in bench_train.BENCHMARK.cases.items()
    if "batch 64" in name and ("MNIST" in name or "CIFAR" in name)
}


# --- one thread and more ------------------------------------------------------


def time_in_turns(call, n_threads, budget):
    """Median seconds of a call: {number of threads: seconds}."""
    times = {1: [], n_threads: []}
    end = time.perf_counter() + len(times) * budget
    for count in times:
        with nnet.num_threads(count):
            call()
    while True:
        for count, found in times.items():
            with nnet.num_threads(count):
                block_end = time.perf_counter() + min(BLOCK_SECONDS, budget)
                now = 0.0
                while now < block_end:
                    start = time.perf_counter()
                    call()
                    now = time.perf_counter()
                    found.append(now - start)
        if now > end:
            return {count: statistics.median(found) for count, found in times.items()}


def calls(options):
    """All calls that are timed: (benchmark, name, case, operations)."""
    for bench in BENCHMARKS:
        benchmark = bench.BENCHMARK
        cases = {"tiny": benchmark.tiny_case} if options.quick else benchmark.cases
        for name, case in matching(cases, options).items():
            operations = benchmark.operations("nnet", case, np.dtype(options.dtype))
            yield benchmark, name, case, operations


def measure_threads(options):
    """As `common.measure` does, for two libraries at once: nnet, and nnet on one thread."""
    n_threads = options.threads[0]
    results = {"one-thread": {}, "nnet": {}}
    for benchmark, name, case, operations in calls(options):
        for operation, of in operations.items():
            found = time_in_turns(of.call, n_threads, options.budget)
            for library, count in zip(results, (1, n_threads)):
                new = {"seconds": found[count], "rates": of.rates, "imgs": case.imgs}
                results[library].setdefault(f"{benchmark.name} {name}", {})[operation] = new
    return results


def measure_nothing(options):
    """Check all that is timed: against NumPy, and one number of threads against the other."""
    dtype = np.dtype(options.dtype)
    for benchmark, name, case, operations in calls(options):
        check(benchmark, "nnet", name, case, dtype)
        for operation, of in operations.items():
            with nnet.num_threads(1):
                expected = [array.copy() for array in of.result()]
            for a, b in zip(expected, of.result(), strict=True):
                if not np.array_equal(a, b):
                    sys.exit(f"other bits on other threads, not timed: {name}, {operation}")
    for (kind, what), cases in growing(options).items():
        for size, case in cases:
            check(bench_of(kind).BENCHMARK, "nnet", f"{kind}, {what} {size}", case, dtype)


# --- exponents of the time ----------------------------------------------------


def growing(options):
    """Cases of which one size grows: {(kind, what grows): [(size, case)]}."""
    sizes = 8, 16, 32, 64, 128
    conv = {
        "batch": [(n, named(n, 32, 16, 16, 32, 3)[1]) for n in sizes],
        "pixels": [(n * n, named(16, 32, n, n, 32, 3)[1]) for n in (8, 16, 32, 64)],
        "channels": [(n, named(16, n, 16, 16, 32, 3)[1]) for n in sizes],
        "features": [(n, named(16, 32, 16, 16, n, 3)[1]) for n in sizes],
    }
    pool = {
        mode: {
            "batch": [(n, (n, 32, 32, 32)) for n in sizes],
            "pixels": [(n * n, (16, 32, n, n)) for n in (8, 16, 32, 64)],
            "channels": [(n, (16, n, 32, 32)) for n in sizes],
        }
        for mode in ("max", "avg")
    }
    found = {("convolution", what): cases for what, cases in conv.items()}
    for mode, of_mode in pool.items():
        for what, cases in of_mode.items():
            found[f"{mode} pooling", what] = [
                (size, bench_pool.Case(imgs, mode, (2, 2, 2, 2), "centered"))
                for size, imgs in cases
            ]
    return {
        key: cases[:2] if options.quick else cases
        for key, cases in found.items()
        if options.only in " against ".join(key)
    }


def bench_of(kind):
    return bench_pool if "pooling" in kind else bench_conv


def measure_growth(options):
    """Seconds on one thread: {'kind against what': {operation: {size: seconds}}}."""
    results, dtype = {}, np.dtype(options.dtype)
    for key, cases in growing(options).items():
        of_key = results.setdefault(" against ".join(key), {})
        for size, case in cases:
            for operation, of in bench_of(key[0]).operations("nnet", case, dtype).items():
                of_key.setdefault(operation, {})[size] = of.seconds(options.budget)
    return results


def exponents(rounds):
    """Slopes of lines through the medians, in logarithms of size and seconds."""
    rows = []
    for name, operations in rounds[0].items():
        for operation, sizes in operations.items():
            seconds = [
                statistics.median(r[name][operation][size] for r in rounds) for size in sizes
            ]
            logs = [[math.log(float(value)) for value in values] for values in (sizes, seconds)]
            slope = statistics.linear_regression(*logs).slope
            span = f"{min(sizes, key=int)} to {max(sizes, key=int)}"
            rows.append({"case": name, "operation": operation, "sizes": span, "exponent": slope})
    return rows


# --- a busy process -----------------------------------------------------------

BUSY = "import os; os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\nwhile True: pass"


@contextmanager
def busy_process():
    """A process that keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        time.sleep(0.2)  # until it is
        yield
    finally:
        process.kill()
        process.wait()


def measure_neighbour(options):
    """Seconds of an epoch alone and beside a busy process: {net: [alone, beside]}."""
    results, dtype, library = {}, np.dtype(options.dtype), options.child
    limit_threads(library, options.threads[0])
    nets = {"tiny": bench_train.BENCHMARK.tiny_case} if options.quick else NETS
    for name, case in matching(nets, options).items():
        seconds = bench_train.operations(library, case, dtype)["epoch"].seconds
        results[name] = [seconds(4 * options.budget)]
        with busy_process():
            results[name].append(seconds(4 * options.budget))
    return results


def compare_neighbours(rounds):
    """Rows of a table from {(library, threads): [results of a round]}.

    Where every core has a thread, one of them gives up half of its core: of the
    time of n cores n - 1/2 are left.
    """
    rows, n_cores = [], len(os.sched_getaffinity(0)) if rounds else 0
    for (library, threads), results in rounds.items():
        fair = n_cores / (n_cores - 0.5) if threads >= n_cores else 1.0
        for case in results[0]:
            alone, beside = map(statistics.median, zip(*(r[case] for r in results)))
            rows.append(
                {
                    "case": case,
                    "library": library,
                    "threads": threads,
                    "ms alone": 1e3 * alone,
                    "ms beside": 1e3 * beside,
                    "slow-down": beside / alone,
                    "fair": fair,
                }
            )
    return rows


# --- the program --------------------------------------------------------------


def measure(options):
    own = {"check": measure_nothing, "threads": measure_threads, "growth": measure_growth}
    return own.get(options.child, measure_neighbour)(options)


def collect(options):
    rows, growth, neighbours = {}, [], {}
    for n_threads in options.threads:
        run_child("check", n_threads)
    for _ in range(options.rounds):
        for n_threads in options.threads:
            for library, results in run_child("threads", n_threads).items():
                add(rows, library, n_threads, results)
        growth.append(run_child("growth", 1))
        if not hasattr(os, "sched_setaffinity"):
            print("no busy process: this system pins none to a core", file=sys.stderr)
            continue
        for n_threads in options.threads:
            for library in [*options.compare, "nnet"]:
                found = neighbours.setdefault((library, n_threads), [])
                found.append(run_child(library, n_threads))
    figures = {GROWTH: exponents(growth), NEIGHBOUR: compare_neighbours(neighbours)}
    return {
        "results": medians(rows),
        "figures": {name: lines for name, lines in figures.items() if lines},
    }


if __name__ == "__main__":
    parser = make_parser("scaling", LIBRARIES, threads=(2,))
    add_timing(parser)
    run("scaling", parse(parser), measure, collect)
