# The primitives of simd.h, for values of either type. Needs nothing.
#
# They take any pointers to reals, which only the C compiler checks: (...) stands for what
# simd.h says.

cdef extern from *:
    """
    #include "simd.h"
    #define simd_fill(...) ON_REALS(fill, __VA_ARGS__)
    #define simd_store(...) ON_REALS(store, __VA_ARGS__)
    #define simd_clear(...) ON_REALS(clear, __VA_ARGS__)
    #define simd_copy(...) ON_REALS(copy, __VA_ARGS__)
    #define simd_unzip(...) ON_REALS(unzip, __VA_ARGS__)
    #define simd_zip(...) ON_REALS(zip, __VA_ARGS__)
    #define simd_transpose(...) ON_REALS(transpose, __VA_ARGS__)
    #define simd_transpose_rows(...) ON_REALS(transpose_rows, __VA_ARGS__)
    """
    enum: VECTOR_BYTES
    enum: MAX_ACCUMULATORS  # vectors of sums in a tile
    enum: MAX_FEATURES
    enum: LATENCY
    enum: LANES             # at most: of floats
    enum: LANES_SQUARED
    enum: TILE_VALUES       # at most: of floats
    void prefetch(const void *) noexcept nogil
    void fill "simd_fill" (...) noexcept nogil
    void store "simd_store" (...) noexcept nogil
    void clear "simd_clear" (...) noexcept nogil
    void copy "simd_copy" (...) noexcept nogil
    void unzip "simd_unzip" (...) noexcept nogil
    void zip_rows "simd_zip" (...) noexcept nogil
    void transpose "simd_transpose" (...) noexcept nogil
    void transpose_rows "simd_transpose_rows" (...) noexcept nogil

ctypedef fused real:
    float
    double
