/* Softmax and the cross-entropies: see losses.pxi. A template; needs dense/exponential.h. */
#if !defined(OF)

enum {
    PIXELS = 64,        /* that are computed together: their sums stay in the L1 cache */
    FACTORS = 16,       /* whose product has one logarithm: of up to 2^64 classes, none overflows */
    ENTRIES = 256,      /* of a binary target that are computed together */
    LOSS_SUMS = 16      /* of entries: as many as a vector has lanes */
};

typedef struct {
    int is_float;
    const void *scores;         /* (n_imgs, n_classes, n_pixels), or (n_imgs, n_entries) */
    const void *target;         /* (n_imgs, n_pixels) of npy_intp, or NULL; or like scores */
    void *probs, *grad;         /* like scores */
    double *losses, *errors;    /* (n_imgs,) */
    Py_ssize_t n_classes, n_pixels;     /* n_entries: the pixels of 1 class */
    double smoothing;
} Loss;

#define TEMPLATE "dense/losses.h"
#include "for_reals.h"
UNIT_OF_REALS(entropy_unit, Loss)
UNIT_OF_REALS(binary_unit, Loss)

#else /* ---------------------------------------------- for float, and for double */

/* --- one label for each image ------------------------------------------------------- */

/* The probabilities of an image; returns the sum that they were divided by. */
static double OF(softmax_row)(const real *scores, real *probs, Py_ssize_t n_classes,
                              real *highest) {
    real most = scores[0];
    double total = 0;
    for (Py_ssize_t k = 1; k < n_classes; k++) most = scores[k] > most ? scores[k] : most;
    for (Py_ssize_t k = 0; k < n_classes; k++) probs[k] = OF(exponential)(scores[k] - most);
    for (Py_ssize_t k = 0; k < n_classes; k++) total += probs[k];
    for (Py_ssize_t k = 0; k < n_classes; k++) probs[k] /= (real)total;
    *highest = most;
    return total;
}

/* The loss and its gradient, the probabilities minus what they should be. Smoothing gives all
   classes a part of the target's one. An error is another class with the first largest one. */
static void OF(entropy_of_row)(const Loss *job, Py_ssize_t image) {
    const Py_ssize_t n_classes = job->n_classes, first = image * n_classes;
    const real *scores = (const real *)job->scores + first;
    const real each = job->smoothing / n_classes;
    real *probs = (real *)job->probs + first, *grad = (real *)job->grad + first, highest;
    const double total = OF(softmax_row)(scores, probs, n_classes, &highest);
    double by_all = 0;
    if (!job->target) return;
    const Py_ssize_t target = ((const npy_intp *)job->target)[image];
    int n_above = 0;
    for (Py_ssize_t k = 0; k < n_classes; k++) {
        n_above += probs[k] > probs[target] || (k < target && probs[k] == probs[target]);
        grad[k] = probs[k] - each;
    }
    grad[target] -= 1 - (real)job->smoothing;
    job->errors[image] = n_above > 0;
    job->losses[image] = log(total) + ((double)highest - scores[target]);
    for (Py_ssize_t k = 0; k < n_classes && job->smoothing > 0; k++)
        by_all += (double)scores[target] - scores[k];
    job->losses[image] += job->smoothing * (by_all / n_classes);
}

/* --- one label for each pixel ------------------------------------------------------- */

/* The probabilities of n pixels, their largest scores, and the sums that were divided by. */
static void OF(softmax_pixels)(const real *scores, real *probs, real *highest, double *totals,
                               Py_ssize_t n, Py_ssize_t n_classes, Py_ssize_t pitch) {
    const Py_ssize_t end = n_classes * pitch;
    for (Py_ssize_t i = 0; i < n; i++) highest[i] = scores[i], totals[i] = 0;
    for (Py_ssize_t k = pitch; k < end; k += pitch)
        for (Py_ssize_t i = 0; i < n; i++)
            highest[i] = scores[k + i] > highest[i] ? scores[k + i] : highest[i];
    for (Py_ssize_t k = 0; k < end; k += pitch) {
        for (Py_ssize_t i = 0; i < n; i++)
            probs[k + i] = OF(exponential)(scores[k + i] - highest[i]);
        for (Py_ssize_t i = 0; i < n; i++) totals[i] += probs[k + i];
    }
    for (Py_ssize_t k = 0; k < end; k += pitch)
        for (Py_ssize_t i = 0; i < n; i++) probs[k + i] /= (real)totals[i];
}

/* The sum of the losses of n pixels. */
static double OF(losses_of_pixels)(const real *scores, const npy_intp *target,
                                   const real *highest, const double *totals, Py_ssize_t n,
                                   const Loss *job) {
    const Py_ssize_t pitch = job->n_pixels;
    double loss = 0, product = 1, by_all = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        product *= totals[i];
        if (i % FACTORS == FACTORS - 1 || i == n - 1) {
            loss += log(product);
            product = 1;
        }
        loss += (1 - job->smoothing) * ((double)highest[i] - scores[target[i] * pitch + i]);
    }
    for (Py_ssize_t k = 0; k < job->n_classes && job->smoothing > 0; k++)
        for (Py_ssize_t i = 0; i < n; i++) by_all += (double)highest[i] - scores[k * pitch + i];
    return loss + job->smoothing * (by_all / job->n_classes);
}

/* For how many of n pixels another class than the target has the first largest probability. */
static Py_ssize_t OF(count_wrong)(const real *probs, const npy_intp *target, Py_ssize_t n,
                                  Py_ssize_t n_classes, Py_ssize_t pitch) {
    real right[PIXELS], wrong[PIXELS], before[PIXELS];  /* the class comes before the target's */
    Py_ssize_t n_wrong = 0;
    for (Py_ssize_t i = 0; i < n; i++) right[i] = probs[target[i] * pitch + i], wrong[i] = 0;
    for (Py_ssize_t k = 0; k < n_classes; k++, probs += pitch) {
        for (Py_ssize_t i = 0; i < n; i++) before[i] = k < target[i] ? 1 : 0;
        for (Py_ssize_t i = 0; i < n; i++) {
            const real equal = probs[i] == right[i] ? before[i] : 0;
            wrong[i] = probs[i] > right[i] || equal > wrong[i] ? 1 : wrong[i];
        }
    }
    for (Py_ssize_t i = 0; i < n; i++) n_wrong += wrong[i] > 0;
    return n_wrong;
}

/* By the scores of n pixels: the probabilities minus what they should be, as part of a mean. */
static void OF(gradient_of_pixels)(const real *probs, const npy_intp *target, real *grad,
                                   Py_ssize_t n, const Loss *job) {
    const real part = 1.0 / job->n_pixels, each = job->smoothing / job->n_classes;
    const real right = 1 - job->smoothing;
    const Py_ssize_t pitch = job->n_pixels;
    for (Py_ssize_t k = 0; k < job->n_classes * pitch; k += pitch)
        for (Py_ssize_t i = 0; i < n; i++) grad[k + i] = (probs[k + i] - each) * part;
    for (Py_ssize_t i = 0; i < n; i++) {
        const Py_ssize_t at = target[i] * pitch + i;
        grad[at] = (probs[at] - each - right) * part;
    }
}

static void OF(entropy_unit)(const Loss *job, Py_ssize_t image) {
    const Py_ssize_t pitch = job->n_pixels, n_classes = job->n_classes;
    const real *scores = (const real *)job->scores + image * n_classes * pitch;
    const npy_intp *target = job->target ? (const npy_intp *)job->target + image * pitch : NULL;
    real *probs = (real *)job->probs + image * n_classes * pitch, highest[PIXELS];
    real *grad = job->target ? (real *)job->grad + image * n_classes * pitch : NULL;
    double totals[PIXELS], loss = 0, n_wrong = 0;
    if (pitch == 1) {
        OF(entropy_of_row)(job, image);
        return;
    }
    for (Py_ssize_t i = 0; i < pitch; i += PIXELS) {
        const Py_ssize_t n = pitch - i < PIXELS ? pitch - i : PIXELS;
        OF(softmax_pixels)(scores + i, probs + i, highest, totals, n, n_classes, pitch);
        if (!target) continue;
        loss += OF(losses_of_pixels)(scores + i, target + i, highest, totals, n, job);
        n_wrong += OF(count_wrong)(probs + i, target + i, n, n_classes, pitch);
        OF(gradient_of_pixels)(probs + i, target + i, grad + i, n, job);
    }
    if (target) job->losses[image] = loss / pitch, job->errors[image] = n_wrong / pitch;
}

/* --- a probability for each entry ----------------------------------------------------- */

/* The sum over n entries of max(x, 0) - x y + log(1 + e^-|x|). */
static double OF(losses_of_entries)(const real *scores, const real *target, const real *powers,
                                    Py_ssize_t n, double smoothing) {
    /* of 1 + e^-|x|, less 1: so the smallest are not lost */
    double products[LOSS_SUMS] = {0}, linear[LOSS_SUMS] = {0}, loss = 0;
    for (Py_ssize_t i = 0; i < n; i += LOSS_SUMS)
        for (Py_ssize_t j = 0; j < (n - i < LOSS_SUMS ? n - i : LOSS_SUMS); j++) {
            const double x = scores[i + j], power = powers[i + j];
            double y = target[i + j];
            y += smoothing * (0.5 - y);
            linear[j] += (x > 0 ? x : 0) - x * y;
            products[j] += power + products[j] * power;
        }
    for (Py_ssize_t j = 0; j < LOSS_SUMS; j++) loss += linear[j] + log1p(products[j]);
    return loss;
}

static void OF(binary_unit)(const Loss *job, Py_ssize_t image) {
    const Py_ssize_t n_entries = job->n_pixels, start = image * n_entries;
    const real part = 1.0 / n_entries, smoothing = job->smoothing, half = 0.5;
    real powers[ENTRIES];
    double loss = 0;
    Py_ssize_t n_wrong = 0;
    for (Py_ssize_t first = 0; first < n_entries; first += ENTRIES) {
        const Py_ssize_t n = n_entries - first < ENTRIES ? n_entries - first : ENTRIES;
        const real *scores = (const real *)job->scores + start + first;
        const real *target = (const real *)job->target + start + first;
        real *probs = (real *)job->probs + start + first, *grad = (real *)job->grad + start + first;
        for (Py_ssize_t i = 0; i < n; i++)
            powers[i] = OF(exponential)(scores[i] < 0 ? scores[i] : -scores[i]);
        for (Py_ssize_t i = 0; i < n; i++) probs[i] = OF(logistic)(scores[i], powers[i]);
        loss += OF(losses_of_entries)(scores, target, powers, n, job->smoothing);
        for (Py_ssize_t i = 0; i < n; i++) n_wrong += (probs[i] > half) != (target[i] > half);
        for (Py_ssize_t i = 0; i < n; i++)
            grad[i] = (probs[i] - (target[i] + smoothing * (half - target[i]))) * part;
    }
    job->losses[image] = loss / n_entries;
    job->errors[image] = (double)n_wrong / n_entries;
}

#endif
