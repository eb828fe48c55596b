/* What a pooling is, for all of its kernels. Needs simd.h. */
#include <math.h>
#include <stdint.h>

typedef struct {
    Py_ssize_t size, out;           /* pixels of the image, outputs */
    Py_ssize_t pool, stride;
    Py_ssize_t start;               /* where the first window starts: not after the first pixel */
    Py_ssize_t after;               /* padding after the image; what is beyond never counts */
} PoolAxis;

typedef struct {                    /* see doubling.h */
    PoolAxis height, width;
    Py_ssize_t spread_y, spread_x;  /* 1 but for gradients */
    Py_ssize_t cells;               /* of a row with its padding */
    Py_ssize_t line;                /* the same with room for whole vectors */
    Py_ssize_t pitch, rows;         /* of reduced rows in scratch, and how many */
    Py_ssize_t block;               /* output rows that are in scratch at a time */
} Doubling;

typedef struct {
    PoolAxis height, width;
    Py_ssize_t img_size, out_size;
    int is_max, include_pad;
    int tile;                       /* see TILE_POOL; 0: windows of any size */
    Py_ssize_t count;               /* of pixels in an average: one power of two, or 0 */
    int in_double;                  /* gradients of many windows add up in double */
    Doubling doubling;
    int32_t pixel[256];             /* of each argmax offset, from the first pixel of its window */
} Pooling;

#if defined(__AVX512F__)
enum { MASKED_READS = 1 };
#else
enum { MASKED_READS = 0 };          /* a vector reads the lanes too that are left out */
#endif

/* Windows that have register tiles of their own, numbered from 1: 2x2 two apart, 3x3 one and two
   apart. */
enum { N_TILES = 3 };
#define TILE_POOL(tile) ((tile) == 1 ? 2 : 3)
#define TILE_STRIDE(tile) ((tile) == 2 ? 1 : 2)

INLINE Py_ssize_t least(Py_ssize_t a, Py_ssize_t b) { return a < b ? a : b; }
INLINE Py_ssize_t most(Py_ssize_t a, Py_ssize_t b) { return a > b ? a : b; }

/* The first real pixel of a window along one axis, and the one after its last. */
INLINE Py_ssize_t first_pixel(const PoolAxis *axis, Py_ssize_t output) {
    return most(axis->start + output * axis->stride, 0);
}

INLINE Py_ssize_t end_pixel(const PoolAxis *axis, Py_ssize_t output) {
    return least(axis->start + output * axis->stride + axis->pool, axis->size);
}

/* Whether a window lacks a pixel. */
INLINE int pool_pads(const PoolAxis *axis) {
    return axis->start < 0
           || axis->start + (axis->out - 1) * axis->stride + axis->pool > axis->size;
}

/* The pixels along one axis that count in an average. */
INLINE Py_ssize_t pool_count(const PoolAxis *axis, Py_ssize_t output, int include_pad) {
    if (include_pad)
        return least(axis->pool, axis->size + axis->after - axis->start - output * axis->stride);
    return end_pixel(axis, output) - first_pixel(axis, output);
}

/* Where the last of n items of a row has to start the next `step`: moved back to end with it. */
INLINE Py_ssize_t next_step(Py_ssize_t x, Py_ssize_t n, Py_ssize_t step) {
    x += step;
    return x < n && n < x + step ? most(n - step, 0) : x;
}
