/* The steps of optimizers, and clipping: see steps.pxi. A template; needs Python.h. */
#if !defined(OF)
#include <math.h>
#include <stdint.h>

enum Rule { SGD, ADAM, RMSPROP, NORM, SCALE, CLAMP };

typedef struct {
    double rate, momentum, nesterov;
    double beta1, beta2, eps;           /* of averages, of what is divided by */
    double shrink, root_scale;          /* of Adam: for parameters, and for its first steps */
    double factor, limit, total;        /* of clipping; the sum of squares of all values */
} Step;

#define TEMPLATE "dense/steps.h"
#include "for_reals.h"

/* A rule for arrays of n values each; NULL for those that there are not. */
static void step_arrays(enum Rule rule, int is_float, void *const *arrays, Py_ssize_t n, Step *s) {
    if (is_float) step_arrays32(rule, (float *const *)arrays, n, s);
    else step_arrays64(rule, (double *const *)arrays, n, s);
}

#else /* ---------------------------------------------- for float, and for double */

static void OF(sgd)(real *param, const real *inc, real *velocity, Py_ssize_t n, const Step *s) {
    const real rate = s->rate, momentum = s->momentum;
    if (!velocity)
        for (Py_ssize_t i = 0; i < n; i++) param[i] -= rate * inc[i];
    else if (s->nesterov)
        for (Py_ssize_t i = 0; i < n; i++) {
            velocity[i] = momentum * velocity[i] + inc[i];
            param[i] -= rate * (momentum * velocity[i] + inc[i]);
        }
    else
        for (Py_ssize_t i = 0; i < n; i++) {
            velocity[i] = momentum * velocity[i] + inc[i];
            param[i] -= rate * velocity[i];
        }
}

static void OF(adam)(real *param, const real *inc, real *mean, real *square, Py_ssize_t n,
                     const Step *s) {
    const real rate = s->rate, shrink = s->shrink, scale = s->root_scale, eps = s->eps;
    const real beta1 = s->beta1, beta2 = s->beta2, rise1 = 1 - s->beta1, rise2 = 1 - s->beta2;
    for (Py_ssize_t i = 0; i < n; i++) {
        mean[i] = beta1 * mean[i] + rise1 * inc[i];
        square[i] = beta2 * square[i] + rise2 * inc[i] * inc[i];
        const real root = BITS == 32 ? sqrtf(square[i]) : sqrt(square[i]);
        param[i] = shrink * param[i] - rate * mean[i] / (root * scale + eps);
    }
}

static inline __attribute__((always_inline)) void OF(rmsprop)(
    real *param, const real *inc, real *square, real *mean, real *velocity, Py_ssize_t n,
    const Step *s, const int centered, const int with_momentum) {
    const real rate = s->rate, beta = s->beta1, rise = 1 - s->beta1, eps = s->eps;
    const real momentum = s->momentum;
    for (Py_ssize_t i = 0; i < n; i++) {
        square[i] = beta * square[i] + rise * inc[i] * inc[i];
        real variance = square[i];
        if (centered) {
            mean[i] = beta * mean[i] + rise * inc[i];
            variance -= mean[i] * mean[i];
            variance = variance > 0 ? variance : 0;     /* rounding may have left less */
        }
        real step = inc[i] / ((BITS == 32 ? sqrtf(variance) : sqrt(variance)) + eps);
        if (with_momentum) step = velocity[i] = momentum * velocity[i] + step;
        param[i] -= rate * step;
    }
}

/* In double precision, in an order that only the size decides. */
static double OF(sum_of_squares)(const real *values, Py_ssize_t n) {
    double sums[8] = {0};       /* side by side: one alone waits for each addition */
    Py_ssize_t i = 0;
    for (; i < n - 7; i += 8)
        for (int k = 0; k < 8; k++) sums[k] += (double)values[i + k] * values[i + k];
    for (; i < n; i++) sums[i % 8] += (double)values[i] * values[i];
    return ((sums[0] + sums[1]) + (sums[2] + sums[3]))
           + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

static void OF(step_arrays)(enum Rule rule, real *const *a, Py_ssize_t n, Step *s) {
    real *values = a[0], limit;
    switch (rule) {
        case SGD: OF(sgd)(a[0], a[1], a[2], n, s); break;
        case ADAM: OF(adam)(a[0], a[1], a[2], a[3], n, s); break;
        case RMSPROP:
            if (a[3] && a[4]) OF(rmsprop)(a[0], a[1], a[2], a[3], a[4], n, s, 1, 1);
            else if (a[3]) OF(rmsprop)(a[0], a[1], a[2], a[3], a[4], n, s, 1, 0);
            else if (a[4]) OF(rmsprop)(a[0], a[1], a[2], a[3], a[4], n, s, 0, 1);
            else OF(rmsprop)(a[0], a[1], a[2], a[3], a[4], n, s, 0, 0);
            break;
        case NORM: s->total += OF(sum_of_squares)(values, n); break;
        case SCALE: for (Py_ssize_t i = 0; i < n; i++) values[i] *= (real)s->factor; break;
        case CLAMP:
            limit = s->limit;
            for (Py_ssize_t i = 0; i < n; i++) {    /* NaN stays */
                const real x = values[i] > limit ? limit : values[i];
                values[i] = x < -limit ? -limit : x;
            }
    }
}

#endif
