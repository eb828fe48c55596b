/* What the processor runs, and which compiler made this. Needs nothing. */
#if !defined(NNET_CPU_H)
#define NNET_CPU_H

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

#endif
