"""What the benchmarks share: options, checks, timing, and the rounds of child processes.

A benchmark describes its cases, and what each library does with one of them.
`main` then runs every library in processes of its own, in turn, several rounds:
two libraries in one process would disturb each other's threads. A process first
checks all that it is about to time, and stops if a result is wrong.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import machine
import report

THREAD_VARIABLES = (
    "NNET_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@dataclass(frozen=True)
class Operation:
    """One thing that a library does with a case."""

    seconds: Callable  # budget in seconds -> median time of one run
    result: Callable | None  # () -> list of arrays, laid out as nnet's; None: nothing to check
    rates: dict  # {unit: amount of it in one run}, such as {"GFLOP/s": 1.2}


@dataclass(frozen=True)
class Benchmark:
    """What differs from one benchmark to the next.

    The library 'loops' is the specification, nnet.reference. It checks 'numpy'
    on a small version of each case, and 'numpy' checks all others on the case itself.
    """

    name: str
    libraries: tuple  # besides 'nnet'
    cases: dict  # {name: case}
    loops_case: tuple  # (name, case): the one on which the loops are timed, and nnet too
    tiny_case: object  # what --quick times instead of all of these
    small: Callable  # case -> a version of it that loops can do in a moment
    operations: Callable  # library, case, dtype -> {name: Operation}
    float32_tolerance: float = 1e-4  # of the largest value in an array
    float64_tolerance: float = 1e-10


# --- in the child process -----------------------------------------------------


class Stopwatch:
    """Times of runs: one to warm up, then as many as the budget holds; three, or one if long."""

    def __init__(self, budget):
        self.budget, self.times = budget, []
        self.start = self.last = time.perf_counter()

    def lap(self):
        """Note the time since the last call; return whether there were enough."""
        now = time.perf_counter()
        self.times.append(now - self.last)
        at_least = 3 if self.times[0] < 8 * self.budget else 1
        enough = now - self.start > self.times[0] + self.budget and len(self.times) > at_least
        self.last = time.perf_counter()
        return enough

    def median(self):
        return statistics.median(self.times[1:])


def median_time(run, budget):
    """Median seconds of a call."""
    stopwatch = Stopwatch(budget)
    enough = False
    while not enough:
        run()
        enough = stopwatch.lap()
    return stopwatch.median()


def check(benchmark, library, name, case, dtype):
    """Leave the program if a library computes something else than the reference."""
    reference = "numpy"
    if library == "numpy":
        reference, case = "loops", benchmark.small(case)
    expected = benchmark.operations(reference, case, dtype)
    tolerance = getattr(benchmark, f"{dtype.name}_tolerance")
    for operation, got in benchmark.operations(library, case, dtype).items():
        if got.result is None:
            continue
        for a, b in zip(got.result(), expected[operation].result(), strict=True):
            same_shape = a.shape == b.shape
            scale = max(np.max(np.abs(b)), np.finfo(dtype).tiny)
            error = np.max(np.abs(a - b)) / scale if same_shape else np.inf
            if not error <= tolerance:
                sys.exit(
                    f"{library} is wrong and was not timed: {name}, {operation}: "
                    f"relative error {error:.1e}"
                )


def measure(benchmark, options):
    """Check a library, or time it: {case: {operation: {seconds, rates}}}."""
    library, dtype = options.child, np.dtype(options.dtype)
    limit_threads(library, options.threads[0])
    cases, loops_case = selected(benchmark, options)
    if library == "loops":
        cases = loops_case
    elif library == "nnet" and "loops" in options.compare:
        cases = {**cases, **loops_case}
    results = {}
    if options.check:
        for name, case in cases.items():
            check(benchmark, library, name, case, dtype)
        return results
    for name, case in cases.items():
        operations = benchmark.operations(library, case, dtype)
        results[name] = {
            operation: {"seconds": op.seconds(budget(options)), "rates": op.rates}
            for operation, op in operations.items()
        }
    return results


def budget(options):
    return 0.0 if options.quick else 0.25


def selected(benchmark, options):
    """Of the cases, and of the one for the loops, those that --quick and --only leave."""
    cases, loops_case = benchmark.cases, dict([benchmark.loops_case])
    if options.quick:
        cases, loops_case = {"tiny": benchmark.tiny_case}, {"tiny, loops": benchmark.tiny_case}
    return [
        {name: case for name, case in part.items() if options.only in name}
        for part in (cases, loops_case)
    ]


def limit_threads(library, n_threads):
    """What the environment cannot tell PyTorch for sure."""
    if library.startswith("torch"):
        import torch

        torch.set_num_threads(n_threads)


# --- in the parent ------------------------------------------------------------


def run_child(library, n_threads, *more):
    """The results of `measure` in a process of its own."""
    what = f"{library}, {n_threads} threads"
    print(what, *more, file=sys.stderr, flush=True)
    command = [sys.executable, *sys.argv, "--child", library, "--threads", str(n_threads), *more]
    env = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(n_threads))}
    child = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=False)
    if child.returncode:
        sys.exit(f"the process for {what} ended with code {child.returncode}")
    return json.loads(child.stdout)


def collect(benchmark, options):
    """Rows of results: medians over the rounds' medians.

    The checks have processes of their own too: they load other libraries. The
    loops are timed only once, because they take so long.
    """
    libraries = [*[lib for lib in benchmark.libraries if lib in options.compare], "nnet"]
    for n_threads, library in itertools.product(options.threads, libraries):
        if library != "loops":
            run_child(library, n_threads, "--check")
    rows = {}
    for turn in itertools.product(range(options.rounds), options.threads, libraries):
        _, n_threads, library = turn
        if library == "loops" and turn[:2] != (0, options.threads[0]):
            continue
        results = run_child(library, n_threads)
        for case, operations in results.items():
            for operation, result in operations.items():
                key = {"case": case, "operation": operation, "threads": n_threads}
                new = {**key, "rates": result["rates"], "rounds": {}}
                row = rows.setdefault(tuple(key.values()), new)
                row["rounds"].setdefault(library, []).append(result["seconds"])
    for row in rows.values():
        row["seconds"] = {lib: statistics.median(times) for lib, times in row["rounds"].items()}
    return list(rows.values())


def parse_options(benchmark):
    parser = argparse.ArgumentParser(description=f"Benchmark of nnet: {benchmark.name}.")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="default: 1 2"
    )
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument(
        "--only", default="", metavar="SUBSTR", help="only the cases whose name has it"
    )
    parser.add_argument(
        "--compare",
        nargs="*",
        choices=benchmark.libraries,
        default=benchmark.libraries,
        help="what to measure besides nnet; default: all of these that are installed",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all the results")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios (matplotlib)")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument("--quick", action="store_true", help="a tiny case, once: only a trial")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if min(options.rounds, *options.threads) < 1:
        parser.error("--rounds and --threads must be at least 1")
    if options.quick:
        options.rounds, options.threads = 1, options.threads[:1]
    if not any(selected(benchmark, options)):
        parser.error(f"no case has {options.only!r} in its name")
    if not machine.torch_version():
        options.compare = [lib for lib in options.compare if not lib.startswith("torch")]
    if options.plot and not {"numpy", "torch"} & set(options.compare):
        parser.error("--plot draws ratios to torch or numpy: --compare one of them")
    return options


def main(benchmark):
    """Run a benchmark as its command line says."""
    options = parse_options(benchmark)
    if options.child:
        json.dump(measure(benchmark, options), sys.stdout)
        return
    peak = machine.fma_peak(options.dtype, options.threads, 2 * budget(options))
    data = {
        "benchmark": benchmark.name,
        "date": time.strftime("%Y-%m-%d"),
        "dtype": options.dtype,
        "machine": machine.describe(),
        "fma_peak_gflops": peak,
        "results": collect(benchmark, options),
    }
    report.show(data, options.markdown)
    if options.json:
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    if options.plot:
        report.plot(data, options.plot)
