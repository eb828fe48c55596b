/* Functions of each value by itself, and what they do to gradients. A template; needs
 * dense/exponential.h.
 *
 * Each has one of a number, which a loop takes: of sums, products, quotients and choices, without
 * a branch, so that compilers take a vector of values at a time. A gradient is made from what a
 * layer keeps: the output y where the slope follows from it, else the input x.
 */
#if !defined(OF)

/* First those without e^x, then those with it on the way forward only, then in both directions;
   the last two are sums of two arrays. */
#define FUNCTIONS(F)                                                                          \
    F(0, relu) F(1, leaky_relu) F(2, relu6) F(3, hard_sigmoid) F(4, hard_swish)               \
    F(5, sigmoid) F(6, tanh) F(7, elu) F(8, selu)                                             \
    F(9, softplus) F(10, silu) F(11, gelu) F(12, gelu_tanh)
enum { SIGMOID = 5, SOFTPLUS = 9, SUM = 13, SUM_RELU = 14 };
enum { PART_SIZE = 16384 };     /* values that one thread takes at a time */

typedef struct {
    int is_float, type;
    const void *values;         /* the input, or on the way back what is kept */
    const void *grad;           /* NULL on the way forward */
    void *out;
    Py_ssize_t size;
} Function;

#define LEAK 0.01  /* Maas et al. 2013 */
/* Klambauer et al. 2017, "Self-normalizing neural networks", eq. 14 */
#define SELU_SCALE 1.0507009873554804934193349852946
#define SELU_SLOPE (SELU_SCALE * 1.6732632423543772848170429916717)

#define VALUE(name, expression) INLINE real OF(name##_value)(real x) { return expression; }
#define GRADIENT_OF_Y(name, expression)                                                       \
    INLINE real OF(name##_gradient)(real y, real grad) { return expression; }
#define R(number) ((real)(number))

#define TEMPLATE "dense/functions.h"
#include "for_reals.h"
UNIT_OF_REALS(function_unit, Function)

#else /* ---------------------------------------------- for float, and for double */

/* NaN stays. */
INLINE real OF(clip)(real x, real low, real high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

/* Not a choice by the sign, which compilers would hand on: products that they fuse would differ. */
INLINE real OF(magnitude)(real x) { return BITS == 32 ? fabsf(x) : fabs(x); }

/* --- straight lines ----------------------------------------------------------------- */

VALUE(relu, x < 0 ? 0 : x)
GRADIENT_OF_Y(relu, y > 0 ? grad : 0)
VALUE(leaky_relu, x < 0 ? R(LEAK) * x : x)
GRADIENT_OF_Y(leaky_relu, y > 0 ? grad : R(LEAK) * grad)
VALUE(relu6, OF(clip)(x, 0, 6))
GRADIENT_OF_Y(relu6, y > 0 && y < 6 ? grad : 0)
VALUE(hard_sigmoid, (OF(clip)(x, -3, 3) + 3) * R(1.0 / 6))
GRADIENT_OF_Y(hard_sigmoid, y > 0 && y < 1 ? grad * R(1.0 / 6) : 0)
VALUE(hard_swish, (x < -3 ? -3 : x) * OF(hard_sigmoid_value)(x))

INLINE real OF(hard_swish_gradient)(real x, real grad) {
    real inside = grad * (x * R(1.0 / 3) + R(0.5));     /* with a jump at both ends */
    inside = x <= -3 ? 0 : inside;
    return x >= 3 ? grad : inside;
}

/* --- of e^x ------------------------------------------------------------------------- */

VALUE(sigmoid, OF(logistic)(x, OF(exponential)(-OF(magnitude)(x))))
GRADIENT_OF_Y(sigmoid, grad * ((1 - y) * y))

INLINE real OF(tanh_value)(real x) {
    const real power = OF(exp_minus_1)(-2 * OF(magnitude)(x)), y = power / (2 + power);
    return BITS == 32 ? copysignf(y, x) : copysign(y, x);
}

GRADIENT_OF_Y(tanh, grad * (1 - y * y))
VALUE(elu, x > 0 ? x : OF(exp_minus_1)(x))
GRADIENT_OF_Y(elu, y > 0 ? grad : grad * (y + 1))
VALUE(selu, x > 0 ? R(SELU_SCALE) * x : R(SELU_SLOPE) * OF(exp_minus_1)(x))
GRADIENT_OF_Y(selu, grad * (y > 0 ? R(SELU_SCALE) : y + R(SELU_SLOPE)))

/* log(1 + e^x) = max(x, 0) + log(1 + p), p = e^-|x|; log(1 + p) = 2 artanh(p / (2 + p)). */
INLINE real OF(softplus_value)(real x) {
    const real power = OF(exponential)(-OF(magnitude)(x)), s = power / (2 + power), square = s * s;
    real series = 0;
    UNROLL for (int k = BITS == 32 ? 15 : 31; k > 1; k -= 2) series = series * square + R(1.0 / k);
    return (x < 0 ? 0 : x) + 2 * (s + s * square * series);
}

GRADIENT_OF_Y(softplus, grad * -OF(exp_minus_1)(-y))

/* Minus infinity times 0 would be NaN. */
VALUE(silu, (x < OF(least_exponent)() ? OF(least_exponent)() : x) * OF(sigmoid_value)(x))

/* s + x s (1 - s) = s (1 + x (1 - s)), where 1 - s is the sigmoid of -x. */
INLINE real OF(silu_gradient)(real x, real grad) {
    x = OF(clip)(x, OF(least_exponent)(), -OF(least_exponent)());
    const real power = OF(exp_of_sum)(-OF(magnitude)(x), 0);
    return grad * (OF(logistic)(x, power) * (1 + x * OF(logistic)(-x, power)));
}

/* --- of the normal distribution ------------------------------------------------------ */

/* How much of the normal distribution is above x >= 0, divided by e**(-x**2 / 2); FAR on, the
   density is 0.

   In float p / ((2 + sqrt(2 pi) x) p + x r), fitted up to 14.422: the largest part of the
   quotient does not depend on p, nor on its rounding. In double a polynomial in
   (x - 5) / (x + 5) over x + 5, made as Shepherd and Laframboise 1981 made theirs for
   exp(x**2) * erfc(x): a Chebyshev series over all of x >= 0. Their relative errors are at
   most 1e-8 and 6e-16. */
#if BITS == 32
#define FAR 14.422f
INLINE real OF(tail_over_density)(real x) {
    real p = 0.008159229f, r = -0.016302755f;
    p = p * x + 0.08080276f;
    p = p * x + 0.3651401f;
    p = p * x + 0.87486535f;
    p = p * x + 1;
    r = r * x - 0.14144894f;
    r = r * x - 0.5236205f;
    r = r * x - 0.9108283f;
    return p / ((2.506598f * x + 2) * p + x * r);
}
#else
#define FAR 38.61
#define TERM(c) p = p * t + c;
INLINE real OF(tail_over_density)(real x) {
    const real inverse = 1 / (x + 5), t = 1 - 10 * inverse;
    real p = -7.854458583247658e-10;
    TERM(5.059297487966696e-10) TERM(9.275082241537343e-09) TERM(-5.027231930966982e-09)
    TERM(-6.741689051823604e-08) TERM(3.5844546560871596e-08) TERM(4.3347664285137567e-07)
    TERM(-3.311028544331811e-07) TERM(-2.7688787836720915e-06) TERM(3.977938262343427e-06)
    TERM(1.6680852719925394e-05) TERM(-4.976178374018789e-05) TERM(-5.937558833377767e-05)
    TERM(0.0005448988347568596) TERM(-0.0007978694277475297) TERM(-0.0029933767389359726)
    TERM(0.02079506680323404) TERM(-0.06911863870874183) TERM(0.16502036617019517)
    TERM(-0.3135331566712172) TERM(0.4953056159699805) TERM(-0.6653825028900576)
    TERM(0.769193049750063)
    return p * inverse;
}
#undef TERM
#endif

/* max(x, 0) - |x| tail(|x|) */
INLINE real OF(gelu_value)(real x) {
    const real size = OF(magnitude)(x), near = size > FAR ? FAR : size;
    return OF(relu_value)(x) - near * OF(tail_over_density)(near) * OF(bell)(near);
}

INLINE real OF(gelu_gradient)(real x, real grad) {
    x = OF(clip)(x, -FAR, FAR);
    const real size = OF(magnitude)(x), density = OF(bell)(size);
    const real tail = density * OF(tail_over_density)(size);
    return grad * ((x < 0 ? tail : 1 - tail) + x * density * R(0.3989422804014327));
}
#undef FAR

/* Its approximation is computed in double: an error of the exponent, 2u, is one of the power.
   (1 + tanh(u)) / 2 = sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3); beyond 21.52, e^-|2u| is 0. */
INLINE real OF(gelu_tanh_value)(real x) {
    const double near = x < -21.52 ? -21.52 : x > 21.52 ? 21.52 : x;
    const double twice_u = 1.5957691216057308 * near * (1 + 0.044715 * near * near);
    const double power = exp_of_sum64(-fabs(twice_u), 0);
    return (x < 0 ? near : x) * logistic64(twice_u, power);
}

/* s + x s (1 - s) (2u)' */
INLINE real OF(gelu_tanh_gradient)(real x, real grad) {
    const double near = x < -21.52 ? -21.52 : x > 21.52 ? 21.52 : x;
    const double twice_u = 1.5957691216057308 * near * (1 + 0.044715 * near * near);
    const double power = exp_of_sum64(-fabs(twice_u), 0);
    const double slope = 1.5957691216057308 * (1 + 3 * 0.044715 * near * near);
    return grad * (logistic64(twice_u, power)
                   * (1 + near * logistic64(-twice_u, power) * slope));
}

/* --- the loops ------------------------------------------------------------------------ */

/* An output is its own array, or the very values it is made from. */
#define EACH _Pragma("GCC ivdep") for (Py_ssize_t i = 0; i < n; i++)
#define UNARY(number, name)                                                                   \
    case number:                                                                              \
        if (!grad) EACH out[i] = OF(name##_value)(x[i]);                                      \
        else EACH out[i] = OF(name##_gradient)(x[i], grad[i]);                                \
        break;

static void OF(function_unit)(const Function *job, Py_ssize_t unit) {
    const Py_ssize_t first = unit * PART_SIZE, left = job->size - first;
    const Py_ssize_t n = left < PART_SIZE ? left : PART_SIZE;
    const real *x = (const real *)job->values + first;
    const real *grad = job->grad ? (const real *)job->grad + first : NULL;
    real *out = (real *)job->out + first;
    switch (job->type) {
        FUNCTIONS(UNARY)
        case SUM: EACH out[i] = x[i] + grad[i]; break;
        case SUM_RELU: EACH out[i] = OF(relu_value)(x[i] + grad[i]);
    }
}
#undef UNARY
#undef EACH

#endif
