/* Register tiles of single features, several rows of outputs at once: see rows.pxi. A template;
 * needs simd.h. */
#if !defined(OF)
enum {
    MIN_ROWS = 4,           /* of outputs in a tile */
    MAX_ROWS = 8,
    MAX_COLUMN = 5,         /* taps; longer columns are cut */
    ROW_VECTORS = MAX_ACCUMULATORS / 12,    /* of each row in a tile */
};
typedef struct {
    Py_ssize_t n[8];                /* how many columns there are of each length (of 7: strips) */
    Py_ssize_t *at;                 /* where their first taps are read, the longest first */
    Py_ssize_t every;               /* rows between the taps of a column */
    int tile_rows;
} Columns;
#define TEMPLATE "conv/rows.h"
#include "for_reals.h"
#define rows_tiles(...) ON_REALS(rows_tiles, __VA_ARGS__)

#else /* ---------------------------------------------- for float, and for double */

/* acc[r - i, v] += w[i] * row[r, v]. gcc would load a row again for each use, unless told to keep
   it in a register; clang unrolls no condition early enough to keep acc in registers. */
INLINE void OF(add_column)(vec *acc, const real *w, const real *row, Py_ssize_t pitch,
                           Py_ssize_t second, const int length, const int n_rows,
                           const int n_vectors) {
#if defined(__clang__)
    UNROLL for (int r = 0; r < n_rows; r++)
        UNROLL for (int v = 0; v < n_vectors; v++)
            UNROLL for (int i = 0; i < length; i++)
                acc[r * n_vectors + v] += w[i] * OF(get)(row + (r + i) * pitch + v * second);
#else
    UNROLL for (int r = 0; r < n_rows + length - 1; r++, row += pitch)
        UNROLL for (int v = 0; v < n_vectors; v++) {
            vec x = OF(get)(row + v * second);
            KEEP(x);
            UNROLL for (int i = 0; i < length; i++)
                if (0 <= r - i && r - i < n_rows) acc[(r - i) * n_vectors + v] += w[i] * x;
        }
#endif
}

INLINE void OF(rows_tile)(
    real *out,                      /* (n_rows, ...), rows out_pitch apart             OUT */
    Py_ssize_t out_pitch,
    const real *src,                /* the packed pixels, rows src_pitch apart */
    Py_ssize_t src_pitch,
    Py_ssize_t second,              /* from the first vector of a row to the second */
    const Columns *columns,
    const real *w, real bias, int with_relu, const int n_rows, const int n_vectors) {
    vec acc[MAX_ROWS * 2];
    const Py_ssize_t *at = columns->at;
    UNROLL for (int r = 0; r < n_rows * n_vectors; r++) acc[r] = OF(every)(bias);
#define COLUMNS(length)                                                                       \
    for (Py_ssize_t c = 0; c < columns->n[length]; c++, at++, w += length)                    \
        OF(add_column)(acc, w, src + *at, src_pitch, second, length, n_rows, n_vectors);
    COLUMNS(5) COLUMNS(4) COLUMNS(3) COLUMNS(2) COLUMNS(1)
#undef COLUMNS
    UNROLL for (int r = 0; r < n_rows; r++)
        UNROLL for (int v = 0; v < n_vectors; v++) {
            vec sum = acc[r * n_vectors + v];
            OF(put)(out + r * out_pitch + v * second, with_relu ? OF(rectified)(sum) : sum);
        }
}

/* One tile's rows of outputs, in all of their columns. */
INLINE void OF(rows_across)(real *out, Py_ssize_t out_pitch, const real *src, Py_ssize_t src_pitch,
                            Py_ssize_t cols, const Columns *columns, const real *weights,
                            real bias, int with_relu, const int n_rows) {
    enum { L = OF(N_LANES) };
    for (Py_ssize_t x = 0; x < cols;) {
        if (ROW_VECTORS == 2 && cols - x > L) {
            Py_ssize_t second = cols - x - L < L ? cols - x - L : L;
            OF(rows_tile)(out + x, out_pitch, src + x, src_pitch, second, columns, weights, bias,
                          with_relu, n_rows, 2);
            x += 2 * L;
        } else {
            /* The last vector of a row is moved back to end with it. */
            if (x > cols - L) x = cols > L ? cols - L : 0;
            OF(rows_tile)(out + x, out_pitch, src + x, src_pitch, 0, columns, weights, bias,
                          with_relu, n_rows, 1);
            x += L;
        }
    }
}

/* All output pixels of one feature. */
static void OF(rows_tiles)(real *out, Py_ssize_t out_pitch, const real *src, Py_ssize_t src_pitch,
                           Py_ssize_t rows, Py_ssize_t cols, const Columns *columns,
                           const real *weights, real bias, int with_relu) {
    const Py_ssize_t every = columns->every;
    for (Py_ssize_t first = 0; first < every; first++) {
        Py_ssize_t n = (rows - first + every - 1) / every;
        for (Py_ssize_t y = 0; y < n; y += columns->tile_rows) {
            if (y > n - columns->tile_rows) y = n - columns->tile_rows;
            real *to = out + (first + y * every) * out_pitch;
            const real *at = src + (first + y * every) * src_pitch;
#define ACROSS(n_rows)                                                                        \
            OF(rows_across)(to, every * out_pitch, at, every * src_pitch, cols, columns,      \
                            weights, bias, with_relu, n_rows)
            switch (columns->tile_rows) { CASE(4, ACROSS) CASE(5, ACROSS) CASE(6, ACROSS)
                CASE(7, ACROSS) CASE(8, ACROSS) }
#undef ACROSS
        }
    }
}

#endif
