/* The inner loop of correlation_rows: see rows.pxi. A template; needs simd.h. */
#if !defined(OF)
#define TEMPLATE "conv/rows.h"
#include "for_reals.h"
#define add_column(...) ON_REALS(add_column, __VA_ARGS__)

#else /* ---------------------------------------------- for float, and for double */

/* acc[r - i, v] += w[i] * row[r, v]. gcc would load a row again for each use, unless told to keep
   it in a register; clang unrolls no condition early enough to keep acc in registers. */
INLINE void OF(add_column)(real *acc, const real *w, const real *row, Py_ssize_t pitch,
                           Py_ssize_t second, const int length, const int n_rows,
                           const int n_vectors) {
    vec *sums = (vec *)acc;
#if defined(__clang__)
    UNROLL for (int r = 0; r < n_rows; r++)
        UNROLL for (int v = 0; v < n_vectors; v++)
            UNROLL for (int i = 0; i < length; i++)
                sums[r * n_vectors + v] += w[i] * OF(get)(row + (r + i) * pitch + v * second);
#else
    UNROLL for (int r = 0; r < n_rows + length - 1; r++, row += pitch)
        UNROLL for (int v = 0; v < n_vectors; v++) {
            vec x = OF(get)(row + v * second);
            KEEP(x);
            UNROLL for (int i = 0; i < length; i++)
                if (0 <= r - i && r - i < n_rows) sums[(r - i) * n_vectors + v] += w[i] * x;
        }
#endif
}

#endif
