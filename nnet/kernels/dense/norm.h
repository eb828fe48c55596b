/* The passes of batch and group normalisation: see norm.pxi. A template; needs simd.h, chunks.h.
 *
 * Far from zero, squares would lose what makes the variance: moments are taken of deviations from
 * a value near the mean, in runs short enough for one precision, and put together in double: Chan,
 * Golub and LeVeque 1983, "Algorithms for computing the sample variance", eq. 1.5.
 */
#if !defined(OF)

enum {
    NORM_CHAINS = 4,    /* vectors at a time: an addition waits for the one before it */
    PIXEL_RUN = 1024,   /* pixels whose sum is taken in one precision: an L1 cache holds them */
    COLUMNS = 256,      /* channels of one pixel that are summed side by side */
    UNIT_SIZE = 65536   /* values that one thread takes at a time */
};
enum NormPass { MOMENTS, NORMALIZE, SUMS, GRADIENT };

typedef struct { double weight, mean, squares; /* of the deviations from the mean */ } Moments;

typedef struct {
    int is_float, with_relu, of_batch;  /* else each image has statistics of its own */
    enum NormPass pass;
    Py_ssize_t n_imgs, n_channels, n_pixels;
    Py_ssize_t n_groups;                /* of channels that share statistics */
    Py_ssize_t n_rows;                  /* of statistics and coefficients: 1 or n_imgs */
    Py_ssize_t per_unit;                /* channels, or rows of groups: a thread's unit of work */
    const void *imgs, *grad;            /* (n_imgs, n_channels, n_pixels) */
    void *out;                          /* the same */
    const double *weights;              /* (n_imgs,), the largest is 1; or NULL */
    double weight, count;               /* of a group's values: the sum, and how many these are */
    double eps, momentum;
    const void *gamma, *beta;           /* (n_channels,), as all of these */
    void *running_mean, *running_var, *gamma_grad, *beta_grad;
    double *mean, *inv_std;             /* (n_rows, n_groups) */
    Moments *moments;                   /* (n_chunks or n_imgs, n_groups) */
    double *sums;                       /* (n_chunks or n_imgs, n_channels, 2) */
    /* (n_rows, n_channels): d = x - center; forward, d * scale + shift; backward,
       grad * scale + d * slope + offset, where the last two count as the image weighs */
    void *center, *scale, *shift, *slope, *offset;
} Norm;

static inline Py_ssize_t chunk_size(const Norm *job) { return job->of_batch ? CHUNK_IMGS : 1; }

static inline Py_ssize_t n_sums(const Norm *job) {
    return job->of_batch ? n_chunks_of(job->n_imgs) : job->n_imgs;
}

static inline double weight_of(const Norm *job, Py_ssize_t n) {
    return job->weights ? job->weights[n] : 1;
}

/* Put the moments of two sets together. */
static void add_moments(Moments *total, Moments other) {
    const double weight = total->weight + other.weight, distance = other.mean - total->mean;
    if (other.weight == 0) return;
    if (total->weight == 0) total->mean = other.mean;
    else {
        total->mean += distance * (other.weight / weight);
        other.squares += distance * distance * (total->weight * other.weight / weight);
    }
    total->squares += other.squares;
    total->weight = weight;
}

/* Add a set whose deviations from `center` have these sums. */
static void add_deviations(Moments *total, double weight, double center, double deviations,
                           double squares) {
    const double distance = weight > 0 ? deviations / weight : 0;
    squares -= distance * deviations;
    add_moments(total, (Moments){weight, center + distance, squares > 0 ? squares : 0});
}

/* Those of all chunks into those of the first, along the tree of chunks.h. */
static void join_moments(const Norm *job) {
    for (Py_ssize_t d = 1, n = n_sums(job), size = job->n_groups; d < n; d *= 2)
        for (Py_ssize_t k = 0; k + d < n; k += 2 * d)
            for (Py_ssize_t c = 0; c < size; c++)
                add_moments(job->moments + k * size + c, job->moments[(k + d) * size + c]);
}

static void join_sums(const Norm *job) {
    const Py_ssize_t n = n_sums(job), size = 2 * job->n_channels;
    const Py_ssize_t chunk = CHUNK_IMGS / chunk_size(job);
    double *const sums = job->sums;
    for (Py_ssize_t k = 0; k < n; k++)
        for (Py_ssize_t c = 0; c < size && k % chunk; c++)
            sums[(k - k % chunk) * size + c] += sums[k * size + c];
    for (Py_ssize_t d = chunk; d < n; d *= 2)
        for (Py_ssize_t k = 0; k + d < n; k += 2 * d)
            for (Py_ssize_t c = 0; c < size; c++)
                sums[k * size + c] += sums[(k + d) * size + c];
}

/* A single value is no sample to divide by the deviation of. */
static void find_statistics(const Norm *job) {
    for (Py_ssize_t i = 0; i < job->n_rows * job->n_groups; i++) {
        const Moments m = job->n_imgs ? job->moments[i] : (Moments){0};
        job->mean[i] = m.mean;
        job->inv_std[i] = job->count > 1 ? 1 / sqrt(m.squares / m.weight + job->eps) : 0;
    }
}

/* Set what depends on the weights of images, or on there being none.
   An image of weight 2 is two; weights that are small for their number count by their ratios, as
   sum(w)^2 / sum(w^2) images: Kish 1965, "Survey sampling". */
static void weigh(Norm *job, const double *weights, double *scaled) {
    double largest = 0, total = 0, squares = 0;
    Py_ssize_t n_values = 0;
    for (Py_ssize_t n = 0; n < job->n_imgs; n++)
        if (weights[n] > largest) largest = weights[n];
    for (Py_ssize_t n = 0; n < job->n_imgs; n++) {
        scaled[n] = largest > 0 ? weights[n] / largest : 0;     /* any scale: sums are finite */
        total += scaled[n];
        squares += scaled[n] * scaled[n];
        n_values += scaled[n] > 0 ? job->n_pixels : 0;
    }
    const double n_alike = total > 0 ? total * total / squares : 0;
    job->weights = scaled;
    job->weight = total * job->n_pixels;
    job->count = 0;
    if (n_values > 1)   /* a single value is no sample, whatever it weighs */
        job->count = (total * largest > n_alike ? total * largest : n_alike) * job->n_pixels;
}

#define TEMPLATE "dense/norm.h"
#include "for_reals.h"
UNIT_OF_REALS(norm_unit, Norm)
#define set_coefficients(job) OF_JOB(set_coefficients, job)
#define use_averages(job) OF_JOB(use_averages, job)
#define move_averages(job) OF_JOB(move_averages, job)
#define find_gradients(job) OF_JOB(find_gradients, job)
#define find_param_grads(job) OF_JOB(find_param_grads, job)

#else /* ---------------------------------------------- for float, and for double */

#include "dense/norm_passes.h"

/* --- between the passes --------------------------------------------------------------- */

static void OF(use_averages)(const Norm *job) {
    for (Py_ssize_t c = 0; c < job->n_channels; c++) {
        job->mean[c] = ((real *)job->running_mean)[c];
        job->inv_std[c] = 1 / sqrt(((real *)job->running_var)[c] + job->eps);
    }
}

static void OF(move_averages)(const Norm *job) {
    const double weight = job->weight - job->weight / job->count;   /* of a sample: one less */
    real *mean = job->running_mean, *var = job->running_var;
    for (Py_ssize_t c = 0; c < job->n_channels && job->count > 1; c++) {
        const Moments m = job->moments[c];
        mean[c] = (1 - job->momentum) * mean[c] + job->momentum * m.mean;
        var[c] = (1 - job->momentum) * var[c] + job->momentum * (m.squares / weight);
    }
}

/* Of the output, from the statistics. */
static void OF(set_coefficients)(const Norm *job) {
    const Py_ssize_t per_group = job->n_channels / job->n_groups;
    real *center = job->center, *scale = job->scale, *shift = job->shift;
    for (Py_ssize_t g = 0; g < job->n_rows * job->n_groups; g++) {
        const Py_ssize_t first = g % job->n_groups * per_group;
        const real *gamma = (const real *)job->gamma + first;
        const real *beta = (const real *)job->beta + first;
        const double mean = job->mean[g], inv_std = job->inv_std[g];
        for (Py_ssize_t c = 0; c < per_group; c++) {
            *center++ = mean;
            *scale++ = gamma[c] * inv_std;
            /* The mean is subtracted first; what the center has lost of it by rounding, last. */
            *shift++ = beta[c] - (mean - (real)mean) * (gamma[c] * inv_std);
        }
    }
}

/* The coefficients of the images' gradient; sums[1] become those of grad with normalised images. */
static void OF(find_gradients)(const Norm *job) {
    const Py_ssize_t per_group = job->n_channels / job->n_groups;
    real *slope = job->slope, *offset = job->offset;
    double *sums = job->sums;
    for (Py_ssize_t g = 0; g < job->n_rows * job->n_groups; g++, sums += 2 * per_group) {
        const real *gamma = (const real *)job->gamma + g % job->n_groups * per_group;
        const double inv_std = job->inv_std[g], distance = job->mean[g] - (real)job->mean[g];
        const double share = job->count > 1 ? inv_std / job->weight : 0;
        double total = 0, products = 0;
        for (Py_ssize_t c = 0; c < per_group; c++) {
            sums[2 * c + 1] = inv_std * (sums[2 * c + 1] - distance * sums[2 * c]);
            total += gamma[c] * sums[2 * c];
            products += gamma[c] * sums[2 * c + 1];
        }
        for (Py_ssize_t c = 0; c < per_group; c++) {
            *slope++ = -share * inv_std * products;
            *offset++ = share * (distance * inv_std * products - total);
        }
    }
}

static void OF(find_param_grads)(const Norm *job) {
    const double n_imgs = job->n_imgs ? job->n_imgs : 1;
    for (Py_ssize_t c = 0; c < job->n_channels; c++) {
        ((real *)job->beta_grad)[c] = job->sums[2 * c] / n_imgs;
        ((real *)job->gamma_grad)[c] = job->sums[2 * c + 1] / n_imgs;
    }
}

#endif
