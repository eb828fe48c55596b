/* Backward, one gradient after the other to where it belongs. A template; needs plan.h. */
#if !defined(OF)
#define TEMPLATE "pool/scatter.h"

/* What one gradient does to the sums, which may be of double. */
#define SCATTER(sums) {                                                                       \
    for (Py_ssize_t y = 0; y < height->out; y++)                                              \
        for (Py_ssize_t x = 0; x < width->out; x++, grads++) {                                \
            Py_ssize_t top = height->start + y * height->stride;                              \
            if (pairs) {                                                                      \
                sums[pairs[0] * img_w + pairs[1]] += *grads;                                  \
                pairs += 2;                                                                   \
            } else if (offsets)                                                               \
                sums[top * img_w + width->start + x * width->stride + p->pixel[*offsets++]]   \
                    += *grads;                                                                \
            else {                                                                            \
                real part = *grads / ((real)pool_count(height, y, p->include_pad)             \
                                      * (real)pool_count(width, x, p->include_pad));          \
                for (Py_ssize_t r = first_pixel(height, y); r < end_pixel(height, y); r++)    \
                    for (Py_ssize_t c = first_pixel(width, x); c < end_pixel(width, x); c++)  \
                        sums[r * img_w + c] += part;                                          \
            } } }
#include "for_reals.h"

#else /* ---------------------------------------------- for float, and for double */

static void OF(unpool_scatter)(const Pooling *p, Py_ssize_t n_planes, const void *grads_,
                               void *img_, uint8_t *offsets, Py_intptr_t *pairs, void *scratch) {
    const PoolAxis *height = &p->height, *width = &p->width;
    const Py_ssize_t img_w = width->size, n = p->img_size;
    const real *grads = grads_;
    real *img = img_;
    double *sums = scratch;
    for (Py_ssize_t i = 0; i < n_planes; i++, img += n) {
        if (!p->in_double) {
            memset(img, 0, n * sizeof(real));
            SCATTER(img)
            continue;
        }
        memset(sums, 0, n * sizeof(double));
        SCATTER(sums)
        for (Py_ssize_t k = 0; k < n; k++) img[k] = (real)sums[k];
    }
}

#endif
