"""What the processor and the compiler can do: asked before any faster module is loaded.

And the threads of all kernels, and what limits their number: kernels/team.h, kernels/openmp.h.
"""

cdef extern from *:
    """
    #include "openmp.h"
    #include "team.h"

    #if defined(NNET_NO_THREADS)
    #define NNET_THREADS 0
    #else
    #define NNET_THREADS 1
    #endif

    #if defined(__x86_64__)
    static int nnet_has_avx2(void) {
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    }
    static int nnet_has_avx512(void) {
        return nnet_has_avx2()
            && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    }
    #else
    static int nnet_has_avx2(void) { return 0; }
    static int nnet_has_avx512(void) { return 0; }
    #endif

    #if defined(__clang__)
    #define NNET_COMPILER "clang " __clang_version__
    #else
    #define NNET_COMPILER "gcc " __VERSION__
    #endif
    """
    const char *NNET_COMPILER
    const bint NNET_THREADS
    int nnet_has_avx2()
    int nnet_has_avx512()
    int nnet_find_openmp()
    int nnet_openmp_limit(int usual)
    const char *nnet_openmp_path(int i)
    long long nnet_patience, nnet_interval
    int nnet_end_call() except -1
    void nnet_parallel_for(unit_function run, void *context, Py_ssize_t n_units,
                           int n_threads) nogil

COMPILER = NNET_COMPILER.decode().strip()
THREADS = bool(NNET_THREADS)  # False in a build without


def supports(str target):
    """Whether this processor runs the code of a target."""
    return bool({"baseline": 1, "avx2": nnet_has_avx2(), "avx512": nnet_has_avx512()}[target])


# --- OpenMP -------------------------------------------------------------------------


def openmp_limit(int usual):
    """The number of threads that threadpoolctl or omp_set_num_threads allow here; 0: any.

    `usual` is what OMP_NUM_THREADS says, or 0. It is what runtimes start with, so no limit.
    """
    return nnet_openmp_limit(usual)


def openmp_runtimes():
    """The paths of the OpenMP runtimes that the process has loaded; nnet has none of its own."""
    return [nnet_openmp_path(i).decode(errors="replace") for i in range(nnet_find_openmp())]


# --- threads ------------------------------------------------------------------------


cdef void parallel_for(unit_function run, void *context, Py_ssize_t n_units,
                       int n_threads) noexcept nogil:
    """Call run(context, unit, thread) for each unit, on at most n_threads threads.

    The calling thread is thread 0. No two calls that run at a time have the same thread.
    In a kernel call that lasts, Python's signal handlers run between units; if one raises, no
    further unit of the call is run, and `end_call` raises it.
    """
    nnet_parallel_for(run, context, n_units, n_threads)


cdef int end_call() except -1:
    """Raise what a signal handler has raised during the jobs of this call.

    Each kernel call ends so, before it delivers; and before it changes what it was given on the
    strength of what units have computed.
    """
    return nnet_end_call()


def set_patience(double seconds):
    """How long a call may last until it asks for signals; then it does ten times a second."""
    global nnet_patience, nnet_interval
    nnet_patience = <long long>(seconds * 1e9)
    nnet_interval = min(nnet_patience, <long long>100_000_000)
