"""What a benchmark ran on: processor, versions, and the peak of its multiply-adds."""

import os
import platform
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

import nnet

try:
    from nnet import _runtime, dispatch
except ImportError:  # of a version before 0.2, which --before measures
    from nnet import _cpu as _runtime
    from nnet import kernels as dispatch

# One process per thread. Enough independent accumulators hide the latency of a
# multiply-add, and few enough stay in registers. Of many short runs the best counts.
PEAK_SOURCE = """
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#if defined(__AVX512F__)
enum { BYTES = 64, N = 24 };
#elif defined(__AVX__)
enum { BYTES = 32, N = 12 };
#elif defined(__aarch64__)
enum { BYTES = 16, N = 24 };
#else
enum { BYTES = 16, N = 12 };
#endif
typedef REAL vec __attribute__((vector_size(BYTES)));

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

int main(int argc, char **argv) {
    volatile REAL half = 0.5;
    vec factor = {0}, acc[N] = {{0}};
    double best = 0, end = now() + atof(argv[argc - 1]);
    factor += half;
    do {
        double start = now();
        for (int i = 0; i < 100000; i++)
            #pragma GCC unroll 24
            for (int j = 0; j < N; j++) acc[j] = acc[j] * factor + factor;
        double rate = 2e-4 * N * BYTES / sizeof(REAL) / (now() - start);
        if (rate > best) best = rate;
    } while (now() < end);
    for (int j = 1; j < N; j++) acc[0] += acc[j];
    half = acc[0][0];
    printf("%f\\n", best);
    return 0;
}
"""


# What the compiler may use of this processor; without a target, all of it.
PEAK_FLAGS = {
    None: (["-march=native"], ["-mcpu=native"]),
    "baseline": ([],),
    "avx2": (["-mavx2", "-mfma"],),
    "avx512": (["-mavx512f", "-mfma"],),
}


def fma_peak(dtype, thread_counts, seconds, target=None):
    """GFLOP/s of independent multiply-adds on so many threads: {count: rate}, empty if unknown.

    The counts are text, as JSON has them. It takes a C compiler: that in CC, or
    the one that built Python, or cc, gcc or clang.
    """
    with tempfile.TemporaryDirectory() as folder:
        program = _compile_peak(Path(folder), np.dtype(dtype), PEAK_FLAGS[target])
        if program is None:
            return {}
        peaks = {}
        for count in thread_counts:
            command = [str(program), str(seconds)]
            running = [
                subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)
            ]
            peaks[str(count)] = sum(float(process.communicate()[0]) for process in running)
    return peaks


def _compile_peak(folder, dtype, choices):
    """The program, or None where no compiler makes it."""
    source, program = folder / "peak.c", folder / "peak"
    source.write_text(PEAK_SOURCE)
    real = {"float32": "float", "float64": "double"}[dtype.name]
    own = [os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang"]
    for compiler in filter(None, own):
        for flags in choices:
            command = shlex.split(compiler)
            command += ["-O3", *flags, "-ffp-contract=fast", f"-DREAL={real}"]
            command += [str(source), "-o", str(program)]
            if not shutil.which(command[0]):
                continue
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return program
    return None


def describe(target=None):
    """What the results depend on, by name; the target is that of the child processes."""
    return {
        "CPU": _cpu_model(),
        "cores": os.cpu_count(),
        "OS": platform.platform(),
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "PyTorch": _version("torch"),
        "onnxruntime": _version("onnxruntime"),
        "scikit-learn": _version("scikit-learn"),
        "skorch": _version("skorch"),
        "nnet": nnet.__version__,
        "nnet's compiler": _runtime.COMPILER,
        "nnet's target": target or dispatch.TARGET,
    }


def _version(package):
    """Without the seconds of an import."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cpu_model():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line for line in lines if line.startswith("model name"))
        return name.split(":", 1)[1].strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
