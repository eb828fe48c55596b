"""What the benchmarks share: options, checks, timing, and the rounds of child processes.

A benchmark describes its cases, and what each library does with one of them.
`main` then runs every library in processes of its own, in turn, several rounds:
two libraries in one process would disturb each other's threads. A process first
checks all that it is about to time, and stops if a result is wrong. Programs that
measure something else than ratios use `run` alone.
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
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import machine
import plot
import report

THREAD_VARIABLES = (
    "NNET_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# What --target asks for: nnet's build, and the same limit for oneDNN and for PyTorch's own loops.
TARGET_VARIABLES = {
    "baseline": ("baseline", "SSE41", "default"),
    "avx2": ("avx2", "AVX2", "avx2"),
    "avx512": ("avx512", "AVX512_CORE", "avx512"),
}
TARGET_NAMES = ("NNET_TARGET", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
MODULES = {
    "torch": ("torch",),
    "torch-channels-last": ("torch",),
    "onnxruntime": ("onnxruntime", "onnx"),
    "network": ("sklearn", "mlxtend"),
    "scipy": ("scipy",),
    "opencv": ("cv2",),
    "MLPClassifier": ("sklearn", "mlxtend"),
    "openvino": ("openvino", "onnx"),
    "jax": ("jax",),
    "logistic": ("sklearn",),
    "estimator": ("sklearn",),
    "skorch": ("skorch", "torch"),
}
BEFORE = "before"  # another nnet, which the interpreter of --before has


@dataclass(frozen=True)
class Operation:
    """One thing that a library does with a case."""

    seconds: Callable  # budget in seconds -> median time of one run
    result: Callable | None  # () -> list of arrays, laid out as nnet's; None: nothing to check
    rates: dict  # {unit: amount of it in one run}, such as {"GFLOP/s": 1.2}
    tolerance: float | None = None  # of the largest value in an array; None: the benchmark's

    @property
    def call(self):
        """What is timed, where that is `median_time` of one call."""
        return self.seconds.args[0]


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
    dtypes: tuple = ("float32", "float64")
    threads: tuple = (1, 2)


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
        allowed = tolerance if got.tolerance is None else got.tolerance
        for a, b in zip(got.result(), expected[operation].result(), strict=True):
            same_shape = a.shape == b.shape
            scale = max(np.max(np.abs(b)), np.finfo(dtype).tiny)
            error = np.max(np.abs(a - b)) / scale if same_shape else np.inf
            if not error <= allowed:
                sys.exit(
                    f"{library} is wrong and was not timed: {name}, {operation}: "
                    f"relative error {error:.1e}"
                )


def measure(benchmark, options):
    """Check a library, or time it: {case: {operation: {seconds, rates}}}."""
    library = "nnet" if options.child == BEFORE else options.child
    dtype = np.dtype(options.dtype)
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
            operation: {"seconds": op.seconds(options.budget), "rates": op.rates, "imgs": case.imgs}
            for operation, op in operations.items()
        }
    return results


def selected(benchmark, options):
    """Of the cases, and of the one for the loops, those that --quick and --only leave."""
    cases, loops_case = benchmark.cases, dict([benchmark.loops_case])
    if options.quick:
        cases, loops_case = {"tiny": benchmark.tiny_case}, {"tiny, loops": benchmark.tiny_case}
    return matching(cases, options), matching(loops_case, options)


def matching(cases, options):
    """The cases that --only leaves."""
    return {name: case for name, case in cases.items() if options.only in name}


def limit_threads(library, n_threads):
    """What the environment cannot tell PyTorch for sure."""
    if library.startswith("torch"):
        import torch

        torch.set_num_threads(n_threads)


# --- in the parent ------------------------------------------------------------


def run_child(library, n_threads, *more, python=sys.executable):
    """What the program's `measure` returns in a process of its own."""
    what = f"{library}, {n_threads} thread{'s' * (n_threads > 1)}"
    print(what, *more, file=sys.stderr, flush=True)
    command = [python, *sys.argv, "--child", library, "--threads", str(n_threads), *more]
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
    libraries = [*options.compare, *[BEFORE] * bool(options.before), "nnet"]
    pythons = {**dict.fromkeys(libraries, sys.executable), BEFORE: options.before}
    for n_threads, library in itertools.product(options.threads, libraries):
        if library != "loops":
            run_child(library, n_threads, "--check", python=pythons[library])
    rows = {}
    for turn in itertools.product(range(options.rounds), options.threads, libraries):
        _, n_threads, library = turn
        if library == "loops" and turn[:2] != (0, options.threads[0]):
            continue
        add(rows, library, n_threads, run_child(library, n_threads, python=pythons[library]))
    return {"results": medians(rows)}


def add(rows, library, n_threads, results):
    """Add to the rows what `measure` returned."""
    for case, operations in results.items():
        for operation, result in operations.items():
            key = {"case": case, "operation": operation, "threads": n_threads}
            new = {**key, "imgs": result["imgs"], "rates": result["rates"], "rounds": {}}
            row = rows.setdefault(tuple(key.values()), new)
            row["rounds"].setdefault(library, []).append(result["seconds"])


def medians(rows):
    for row in rows.values():
        row["seconds"] = {lib: statistics.median(times) for lib, times in row["rounds"].items()}
    return list(rows.values())


# --- options ------------------------------------------------------------------


def make_parser(name, libraries, threads=(1, 2), dtypes=("float32", "float64")):
    """The options that every program here has."""
    parser = argparse.ArgumentParser(description=f"Benchmark of nnet: {name}.")
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=list(threads),
        metavar="N",
        help=f"default: {' '.join(map(str, threads))}",
    )
    parser.add_argument("--dtype", choices=dtypes, default="float32")
    parser.add_argument(
        "--target",
        choices=TARGET_VARIABLES,
        help="limit nnet and PyTorch to an instruction set; default: the best one for each",
    )
    parser.add_argument(
        "--only", default="", metavar="SUBSTR", help="only the cases whose name has it"
    )
    parser.add_argument(
        "--compare",
        nargs="*",
        choices=libraries,
        default=libraries,
        help="what to measure besides nnet; default: all of these that are installed",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all the results")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument("--quick", action="store_true", help="a tiny case, once: only a trial")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def add_timing(parser):
    """The options of programs that repeat what they time."""
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument(
        "--budget", type=float, default=0.25, metavar="SECONDS", help="for each time; default: 0.25"
    )


def parse(parser):
    """The options, without the libraries that cannot run: says why."""
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.threads, options.budget = 1, options.threads[:1], 0.0
    if min(*options.threads, getattr(options, "rounds", 1)) < 1:
        parser.error("--rounds and --threads must be at least 1")
    libraries, options.compare = options.compare, []
    for library in libraries:
        missing = [module for module in MODULES.get(library, ()) if not find_spec(module)]
        if not missing:
            options.compare.append(library)
        elif not options.child:
            print(f"{library} is skipped: no module {missing[0]}", file=sys.stderr)
    if options.target:
        os.environ.update(zip(TARGET_NAMES, TARGET_VARIABLES[options.target]))
    return options


def parse_options(benchmark):
    parser = make_parser(benchmark.name, benchmark.libraries, benchmark.threads, benchmark.dtypes)
    add_timing(parser)
    parser.add_argument(
        "--before", metavar="PYTHON", help="measure the nnet of another interpreter too"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios (matplotlib)")
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    options = parse(parser)
    if not any(selected(benchmark, options)):
        parser.error(f"no case has {options.only!r} in its name")
    if options.plot and not {"numpy", "torch"} & set(options.compare):
        parser.error("--plot draws ratios to torch or numpy: --compare one of them")
    return options


def run(name, options, measure, collect):
    """In a child, print what `measure` returns; else show and write what `collect` returns."""
    if options.child:
        json.dump(measure(options), sys.stdout)
        return None
    peak_seconds = 0.0 if options.quick else 0.5
    data = {
        "benchmark": name,
        "date": time.strftime("%Y-%m-%d"),
        "dtype": options.dtype,
        "limited to": options.target,
        "machine": machine.describe(options.target),
        "fma_peak_gflops": machine.fma_peak(
            options.dtype, options.threads, peak_seconds, options.target
        ),
        **collect(options),
    }
    report.show(data, options.markdown)
    if options.json:
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    return data


def main(benchmark):
    """Run a benchmark as its command line says."""
    options = parse_options(benchmark)
    parts = partial(measure, benchmark), partial(collect, benchmark)
    data = run(benchmark.name, options, *parts)
    if data and options.plot:
        plot.plot(data, options.plot)
