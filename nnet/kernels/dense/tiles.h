/* The register tile of the matrix product: see matmul.pxi. A template; needs simd.h, chunks.h. */
#if !defined(OF)

typedef struct {
    Py_ssize_t n_inner, chunk, n_chunks;    /* terms of a sum, of a chunk; chunks of the sum */
    Py_ssize_t a_row, a_inner, b_inner;     /* from one element to the next */
    Py_ssize_t out_row, n_cols;             /* n_cols: of this block of columns */
    const void *bias;                       /* of its first column on, or NULL */
    double divisor;
    int with_relu;
} ProductTiles;

enum { MAX_COLUMNS = MAX_ACCUMULATORS / MAX_FEATURES };  /* vectors of columns in a tile */
enum { N_CHAINS = 4 };  /* chunks that a single row sums side by side: LATENCY */

#define TEMPLATE "dense/tiles.h"
#include "for_reals.h"
#define product_tile(...) ON_REALS(product_tile, __VA_ARGS__)

#else /* ---------------------------------------------- for float, and for double */

/* Where vector v begins. The last one ends with the row: it overlaps the one before. */
INLINE Py_ssize_t OF(column)(int v, int n_vectors, const ProductTiles *tiles) {
    return 0 < v && v == n_vectors - 1 ? tiles->n_cols - OF(N_LANES) : v * OF(N_LANES);
}

/* From the sums of a tile to out[i, j]. */
INLINE void OF(end_tile)(vec *acc, real *out, const ProductTiles *tiles, const int n_rows,
                         const int n_vectors) {
    const int n_sums = n_rows * n_vectors;
    if (tiles->divisor != 1) {
        const vec divisor = OF(every)(tiles->divisor);
        UNROLL for (int i = 0; i < n_sums; i++) acc[i] /= divisor;
    }
    if (tiles->bias) {
        const real *bias = tiles->bias;
        UNROLL for (int v = 0; v < n_vectors; v++) {
            const vec shift = OF(get)(bias + OF(column)(v, n_vectors, tiles));
            UNROLL for (int i = 0; i < n_rows; i++) acc[i * n_vectors + v] += shift;
        }
    }
    if (tiles->with_relu)
        UNROLL for (int i = 0; i < n_sums; i++) acc[i] = OF(rectified)(acc[i]);
    /* What less than a vector of columns writes beyond its row, the rows below overwrite. */
    const Py_ssize_t beyond = n_vectors == 1 ? OF(N_LANES) - tiles->n_cols : 0;
    UNROLL for (int i = 0; i < n_rows; i++, out += tiles->out_row)
        if (beyond > (n_rows - 1 - i) * tiles->out_row) {
            vec y = acc[i];
            OF(copy)(out, (real *)&y, tiles->n_cols);
        } else
            UNROLL for (int v = 0; v < n_vectors; v++)
                OF(put)(out + OF(column)(v, n_vectors, tiles), acc[i * n_vectors + v]);
}

/* n_chains chunks of some rows and columns, from `chunk` on; one by one they join the stack. */
INLINE void OF(add_chunks)(const real *a, const real *b, vec *stack, Py_ssize_t chunk, real *out,
                           const ProductTiles *tiles, const int n_rows, const int n_vectors,
                           const int n_chains) {
    const int n_lines = n_rows * n_chains, n_sums = n_rows * n_vectors;
    const Py_ssize_t a_inner = tiles->a_inner, b_inner = tiles->b_inner;
    const Py_ssize_t a_next = n_chains > 1 ? tiles->chunk * a_inner : tiles->a_row;
    const Py_ssize_t b_next = n_chains > 1 ? tiles->chunk * b_inner : 0;
    const Py_ssize_t left = tiles->n_inner - chunk * tiles->chunk;
    vec acc[MAX_ACCUMULATORS];
    UNROLL for (int i = 0; i < n_lines * n_vectors; i++) acc[i] = (vec){0};
    for (Py_ssize_t t = left < tiles->chunk ? left : tiles->chunk; t > 0; t--) {
        UNROLL for (int i = 0; i < n_lines; i++)
            UNROLL for (int v = 0; v < n_vectors; v++)
                acc[i * n_vectors + v] += a[i * a_next]
                    * OF(get)(b + i * b_next + OF(column)(v, n_vectors, tiles));
        a += a_inner;
        b += b_inner;
    }
    UNROLL for (int k = 0; k < n_chains; k++, chunk++) {
        vec *sums = acc + k * n_sums, *top = stack + n_stacked(chunk) * n_sums;
        for (int joins = n_joins(chunk, tiles->n_chunks); joins > 0; joins--) {
            top -= n_sums;
            UNROLL for (int i = 0; i < n_sums; i++) sums[i] += top[i];
        }
        if (chunk + 1 == tiles->n_chunks) OF(end_tile)(sums, out, tiles, n_rows, n_vectors);
        else UNROLL for (int i = 0; i < n_sums; i++) top[i] = sums[i];
    }
}

/* Chunks `chunk` to `end` of 1 to MAX_FEATURES rows. */
INLINE void OF(add_rows)(const real *a, const real *b, vec *stack, Py_ssize_t chunk,
                         Py_ssize_t end, real *out, const ProductTiles *tiles,
                         const int n_rows, const int n_vectors) {
    const Py_ssize_t n_whole = tiles->n_inner / tiles->chunk;
#define CHUNKS(n_rows, n_chains, end)                                                         \
    for (; chunk + n_chains <= end; chunk += n_chains) {                                      \
        OF(add_chunks)(a, b, stack, chunk, out, tiles, n_rows, n_vectors, n_chains);          \
        a += n_chains * tiles->chunk * tiles->a_inner;                                        \
        b += n_chains * tiles->chunk * tiles->b_inner;                                        \
    }
#define ROWS(n) if (n <= MAX_FEATURES) CHUNKS(n, 1, end)
    if (n_rows == 1) CHUNKS(1, N_CHAINS, (end < n_whole ? end : n_whole))
    CASES8(n_rows, ROWS)
#undef ROWS
#undef CHUNKS
}

/* The same of 1 to MAX_COLUMNS vectors of columns. */
static void OF(product_tile)(const real *a, const real *b, real *stack, Py_ssize_t chunk,
                             Py_ssize_t end, real *out, const ProductTiles *tiles,
                             int n_rows, int n_vectors) {
#define VECTORS(n)                                                                            \
    if (n <= MAX_COLUMNS)                                                                     \
        OF(add_rows)(a, b, (vec *)stack, chunk, end, out, tiles, n_rows, n)
    CASES4(n_vectors, VECTORS)
#undef VECTORS
}

#endif
