"""Memory: peak of a training, scratch of the kernels, and what a training step allocates."""

import resource
import statistics
import sys
import tracemalloc

import numpy as np

import bench_conv
import bench_pool
import bench_train
from bench_conv import named
from common import check, limit_threads, make_parser, matching, parse, run, run_child
from targets import PEAK, SCRATCH, STEADY

LIBRARIES = ("torch", "torch-channels-last")
NETS = {
    name: case for name, case in bench_train.BENCHMARK.cases.items() if name.endswith("batch 64")
}
BATCHES = 16, 64, 256
N_EPOCHS = 3  # of which the last one is looked at


def nets(options):
    return matching({"tiny": bench_train.BENCHMARK.tiny_case} if options.quick else NETS, options)


# --- a whole training ---------------------------------------------------------


def peak_bytes():
    """Of this process's memory, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def measure_peak(library, name, case, dtype):
    """Peak memory of a process that has imported the library, and of one that has trained."""
    operation = bench_train.operations(library, case, dtype)["epoch"]
    imported = peak_bytes()
    operation.seconds(0.0)
    return {"imported MB": 1e-6 * imported, "peak MB": 1e-6 * peak_bytes()}


# --- scratch ------------------------------------------------------------------


def scratch_cases(n):
    """Batches of n images: {name: (benchmark, case)}."""
    convs = [
        named(n, 1, 28, 28, 12, 5),
        named(n, 3, 64, 64, 16, 7, "stride 2", strides=(2, 2), padding_mode=3),
        named(n, 32, 32, 32, 32, 3),
        named(n, 64, 8, 8, 128, 3),
    ]
    found = {
        f"convolution n{name.removeprefix(str(n))}": (bench_conv, case) for name, case in convs
    }
    pool = bench_pool.Case((n, 32, 32, 32), "max", (3, 3, 1, 1), "centered")
    found["pooling n,32,32,32 max 3x3 stride 1"] = bench_pool, pool
    return found


def measure_scratch(n, options):
    """The peak of what the calls of a case allocate besides their results, which are given.

    The kernels take their scratch from NumPy, which tells tracemalloc.
    """
    bench, case = scratch_cases(int(n))[options.only]
    calls = bench.operations("nnet", case, np.dtype(options.dtype)).values()
    tracemalloc.start()
    for of in calls:
        of.call()
    return tracemalloc.get_traced_memory()[1]


# --- one step -----------------------------------------------------------------


class Watch:
    """What each step of a training allocates at most, and how many new pages it touches."""

    def __init__(self):
        self.allocated, self.faults = [], []
        self.start()

    def start(self):
        tracemalloc.reset_peak()
        self.size = tracemalloc.get_traced_memory()[0]
        self.n_faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    def lap(self, *_):
        n_faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        self.faults.append(n_faults - self.n_faults)
        self.allocated.append(tracemalloc.get_traced_memory()[1] - self.size)
        self.start()


def measure_step(library, name, case, dtype):
    """Of the last epoch, without its first and its last step: these do more than others."""
    check(bench_train.BENCHMARK, library, name, case, dtype)
    faults = watch_steps(library, case, dtype).faults
    found = {"allocated KB": "", "page faults": float(statistics.mean(faults))}
    if library == "nnet":
        tracemalloc.start()
        found["allocated KB"] = 1e-3 * max(watch_steps(library, case, dtype).allocated)
    return found


def watch_steps(library, case, dtype):
    watch = Watch()
    if library == "nnet":
        X, y = case.data(dtype)
        options = {"learning_rate": 0.01, "max_iter": N_EPOCHS, "callback": watch.lap}
        bench_train.fit(library, case, X, y, **options)
    else:
        training = bench_train.TorchTraining(library, case, dtype, 0.01)
        step = training.step
        training.step = lambda rows: (step(rows), watch.lap())
        for _ in range(N_EPOCHS):
            training.epoch()
    n_steps = len(watch.faults) // N_EPOCHS
    watch.faults, watch.allocated = (
        steps[-n_steps:][1:-1] or steps[-n_steps:] for steps in (watch.faults, watch.allocated)
    )
    return watch


# --- the program --------------------------------------------------------------


def measure(options):
    what, _, library = options.child.partition(" ")
    if what == "scratch":
        return measure_scratch(library, options)
    of_net = {"peak": measure_peak, "step": measure_step}[what]
    limit_threads(library, options.threads[0])
    ((name, case),) = nets(options).items()
    return of_net(library, name, case, np.dtype(options.dtype))


def collect(options):
    figures = {PEAK: [], STEADY: [], SCRATCH: []}
    for threads in options.threads:
        for name in nets(options):
            for library in [*options.compare, "nnet"]:
                row = {"case": name, "library": library, "threads": threads}
                for what, title in [("step", STEADY), ("peak", PEAK)]:
                    found = run_child(f"{what} {library}", threads, "--only", name)
                    figures[title].append({**row, **found})
        batches = (2, 4) if options.quick else BATCHES
        for name in matching(scratch_cases(1), options):
            sizes = {n: run_child(f"scratch {n}", threads, "--only", name) for n in batches}
            row = {"case": name, "threads": threads}
            row |= {f"KB for {n}": 1e-3 * size for n, size in sizes.items()}
            row["KB per thread"] = 1e-3 * max(sizes.values()) / threads
            figures[SCRATCH].append({**row, "growth": sizes[batches[-1]] / sizes[batches[-2]]})
    return {"figures": {name: lines for name, lines in figures.items() if lines}}


if __name__ == "__main__":
    run("memory", parse(make_parser("memory", LIBRARIES, threads=(2,))), measure, collect)
