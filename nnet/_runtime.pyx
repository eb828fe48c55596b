"""What the processor, the compiler and OpenMP can do: asked before any faster module is loaded.

And the threads of all kernels, which are in common/team.pxi.
"""

include "kernels/common/team.pxi"

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define NNET_OPENMP _OPENMP
    #else
    #define NNET_OPENMP 0
    static int omp_get_max_threads(void) { return 1; }
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
    const int NNET_OPENMP
    int nnet_has_avx2()
    int nnet_has_avx512()
    int omp_get_max_threads() nogil

COMPILER = NNET_COMPILER.decode().strip()
OPENMP = NNET_OPENMP  # the specification's date, yyyymm; 0 in a serial build


def supports(str target):
    """Whether this processor runs the code of a target."""
    return bool({"baseline": 1, "avx2": nnet_has_avx2(), "avx512": nnet_has_avx512()}[target])


def max_threads():
    """OpenMP's own thread limit now: what OMP_NUM_THREADS or threadpoolctl set."""
    return omp_get_max_threads()
