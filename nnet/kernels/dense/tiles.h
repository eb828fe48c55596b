/* The register tile of the matrix product: see matmul.pxi. A template; needs simd.h. */
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
enum { N_CHAINS = 4 };  /* chunks that a single row takes at once: its additions would wait */

#define TEMPLATE "dense/tiles.h"
#include "for_reals.h"
#define product_tile(...) ON_REALS(product_tile, __VA_ARGS__)

#else /* ---------------------------------------------- for float, and for double */

/* Where vector v begins. The last one ends with the row: it overlaps the one before. */
INLINE Py_ssize_t OF(column)(int v, const int n_vectors, const ProductTiles *tiles) {
    return 0 < v && v == n_vectors - 1 ? tiles->n_cols - OF(N_LANES) : v * OF(N_LANES);
}

/* What follows the sums of a tile, and out[i, j]. */
INLINE void OF(end_tile)(vec *acc, real *out, const ProductTiles *tiles, const int n_rows,
                         const int n_vectors) {
    const real *bias = tiles->bias;
    real divisor = tiles->divisor;
    for (int i = 0; i < n_rows; i++, out += tiles->out_row, acc += n_vectors)
        for (int v = 0; v < n_vectors; v++) {
            const Py_ssize_t j = OF(column)(v, n_vectors, tiles);
            vec y = acc[v];
            if (divisor != 1) y /= divisor;
            if (bias && tiles->n_cols < OF(N_LANES)) {
                vec b = {0};
                memcpy(&b, bias, tiles->n_cols * sizeof(real));
                y += b;
            } else if (bias)
                y += OF(get)(bias + j);
            if (tiles->with_relu) y = OF(rectified)(y);
            if (tiles->n_cols < OF(N_LANES)) OF(copy)(out, (real *)&y, tiles->n_cols);
            else OF(put)(out + j, y);
        }
}

/* n_chains chunks from `chunk` on, for some rows and columns; they join the stack one by one. */
INLINE void OF(chunks)(const real *a, const real *b, vec *stack, Py_ssize_t chunk, real *out,
                       const ProductTiles *tiles, const int n_rows, const int n_vectors,
                       const int n_chains) {
    const int n_sums = n_rows * n_vectors, n_lines = n_rows * n_chains;
    const Py_ssize_t a_next = n_rows > 1 ? tiles->a_row : tiles->chunk * tiles->a_inner;
    const Py_ssize_t a_inner = tiles->a_inner, b_inner = tiles->b_inner;
    const Py_ssize_t b_next = n_rows > 1 ? 0 : tiles->chunk * b_inner;
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
        vec *const sums = acc + k * n_sums, *top = stack + n_ones(chunk) * n_sums;
        for (int joins = n_joins(chunk, tiles->n_chunks); joins > 0; joins--) {
            top -= n_sums;
            UNROLL for (int i = 0; i < n_sums; i++) sums[i] += top[i];
        }
        if (chunk + 1 == tiles->n_chunks) OF(end_tile)(sums, out, tiles, n_rows, n_vectors);
        else UNROLL for (int i = 0; i < n_sums; i++) top[i] = sums[i];
    }
}

/* Chunks `chunk` to `end` of 1 to MAX_FEATURES rows and 1 to MAX_COLUMNS vectors of columns. */
static void OF(product_tile)(const real *a, const real *b, real *stack, Py_ssize_t chunk,
                             Py_ssize_t end, real *out, const ProductTiles *tiles,
                             const int n_rows, const int n_vectors) {
    const Py_ssize_t a_step = tiles->chunk * tiles->a_inner;
    const Py_ssize_t b_step = tiles->chunk * tiles->b_inner;
#define CHUNKS(n_rows, n_vectors, n_chains)                                                   \
    for (; chunk + n_chains <= end; chunk += n_chains) {                                      \
        if (n_chains > 1 && (chunk + n_chains) * tiles->chunk > tiles->n_inner) break;        \
        OF(chunks)(a, b, (vec *)stack, chunk, out, tiles, n_rows, n_vectors, n_chains);       \
        a += n_chains * a_step;                                                               \
        b += n_chains * b_step;                                                               \
    }
#define ROWS(n_rows) if (n_rows <= MAX_FEATURES) CHUNKS(n_rows, N_VECTORS, 1)
#define VECTORS(n_vectors)                                                                    \
    if (n_vectors <= MAX_COLUMNS) {                                                           \
        enum { N_VECTORS = n_vectors };                                                       \
        if (n_rows == 1) CHUNKS(1, N_VECTORS, N_CHAINS)                                       \
        CASES8(n_rows, ROWS)                                                                  \
    }
    CASES4(n_vectors, VECTORS)
#undef VECTORS
#undef ROWS
#undef CHUNKS
}

#endif
