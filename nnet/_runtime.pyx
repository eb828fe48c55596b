"""What the processor and the compiler can do: asked before any faster module is loaded.

And the threads of all kernels, and what limits their number. The C of this is in kernels/cpu.h,
kernels/team.h and kernels/openmp.h.
"""

cdef extern from "cpu.h":
    const char *NNET_COMPILER
    int nnet_has_avx2()
    int nnet_has_avx512()

cdef extern from "openmp.h":
    int nnet_find_openmp()
    int nnet_openmp_limit(int usual)
    const char *nnet_openmp_path(int i)

cdef extern from "team.h":
    enum: NNET_THREADS
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
