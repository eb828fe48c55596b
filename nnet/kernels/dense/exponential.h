/* e^x and its kin, for loops that take a vector at a time, where libm's functions take one value.
 * A template; needs simd.h.
 *
 * x = n ln 2 + r with |r| <= ln(2) / 2, so that e^x = 2^n e^r: Muller et al., Handbook of
 * Floating-Point Arithmetic, 2nd ed., section 10.2 (additive range reduction; ln 2 in two
 * parts, after Cody and Waite). A series ends where its terms are below the rounding.
 */
#if !defined(OF)
#define EXP_SERIES_7(c) (1 + r * (c(2) + r * (c(6) + r * (c(24) + r * (c(120) + r * (c(720)       \
    + r * c(5040)))))))
#define EXP_SERIES_13(c) (1 + r * (c(2) + r * (c(6) + r * (c(24) + r * (c(120) + r * (c(720)      \
    + r * (c(5040) + r * (c(40320) + r * (c(362880) + r * (c(3628800) + r * (c(39916800)      \
    + r * (c(479001600) + r * c(6227020800)))))))))))))
#define RECIPROCAL(n) ((real)1 / (real)n)
#define TEMPLATE "dense/exponential.h"
#include "for_reals.h"

#else /* ---------------------------------------------- for float, and for double */

/* MAGIC is 1.5 * 2^mantissa: what is added to it is rounded to an integer, in its lowest bits.
   `t` below is n + MAGIC. From LEAST on and below, e^x is 0. */
#if BITS == 32
#define MANTISSA 23
#define MAGIC 12582912.0f
#define BIAS 127
#define LN2_HIGH 0.693359375f
#define LN2_LOW -2.12194440e-4f
#define SERIES EXP_SERIES_7(RECIPROCAL)
#define LEAST -104
typedef uint32_t OF(bits);
#else
#define MANTISSA 52
#define MAGIC 6755399441055744.0
#define BIAS 1023
#define LN2_HIGH 0.693147180369123816490
#define LN2_LOW 1.90821492927058770002e-10
#define SERIES EXP_SERIES_13(RECIPROCAL)
#define LEAST -746
typedef uint64_t OF(bits);
#endif

INLINE real OF(least_exponent)(void) { return LEAST; }

/* 2^(n + more) */
INLINE real OF(power_of_2)(real t, int more) {
    integer pattern;
    memcpy(&pattern, &t, sizeof(t));
    pattern = (integer)(((OF(bits))pattern + (OF(bits))(BIAS + more)) << MANTISSA);
    memcpy(&t, &pattern, sizeof(t));
    return t;
}

/* e^r - 1 */
INLINE real OF(rest_of_exp)(real x, real low, real t) {
    const real n = t - MAGIC, r = x - n * LN2_HIGH - n * LN2_LOW + low;
    return r * SERIES;
}

/* e^(x + low), of the sum unrounded, for x from the least exponent to 0 and |low| < 1/2. */
INLINE real OF(exp_of_sum)(real x, real low) {
    const real t = x * (real)1.4426950408889634 + MAGIC;
    /* Only the last product may be a denormal number. */
    return (1 + OF(rest_of_exp)(x, low, t)) * OF(power_of_2)(t, 64) * (real)5.421010862427522e-20;
}

/* e^x for x <= 0; NaN for NaN. */
INLINE real OF(exponential)(real x) { return OF(exp_of_sum)(x < LEAST ? LEAST : x, 0); }

/* e^x - 1 for x <= 0, without its cancellation; NaN for NaN. */
INLINE real OF(exp_minus_1)(real x) {
    x = x < -50 ? -50 : x;  /* -1 */
    const real t = x * (real)1.4426950408889634 + MAGIC, power = OF(power_of_2)(t, 0);
    return power * OF(rest_of_exp)(x, 0, t) + (power - 1);
}

/* e**(-x**2 / 2), from the exact square of x's higher bits, and what that lacks. */
INLINE real OF(bell)(real x) {
    integer pattern;
    real high;
    memcpy(&pattern, &x, sizeof(x));
    pattern &= (integer)(~(OF(bits))0 << (MANTISSA + 2) / 2);
    memcpy(&high, &pattern, sizeof(x));
    const real half = (real)-0.5 * high;
    return OF(exp_of_sum)(half * high, (x - high) * (half - (real)0.5 * x));
}

/* 1 / (1 + e^-x), where power is e^-|x|: no exponent is positive. */
INLINE real OF(logistic)(real x, real power) { return (x < 0 ? power : 1) / (1 + power); }

#undef MANTISSA
#undef MAGIC
#undef BIAS
#undef LN2_HIGH
#undef LN2_LOW
#undef SERIES
#undef LEAST
#endif
