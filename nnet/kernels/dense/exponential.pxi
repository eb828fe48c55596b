# e^x and its kin, for loops that take a vector at a time, where libm's functions take one value.
#
# x = n ln 2 + r with |r| <= ln(2) / 2, so that e^x = 2^n e^r: Muller et al., Handbook of
# Floating-Point Arithmetic, 2nd ed., section 10.2 (additive range reduction; ln 2 in two
# parts, after Cody and Waite). A series ends where its terms are below the rounding.

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* MAGIC is 1.5 * 2^mantissa: what is added to it is rounded to an integer, in its lowest
       bits. `t` below is n + MAGIC. */
    #define DEFINE_EXPONENTIAL(suffix, real, bits, MANTISSA, MAGIC, BIAS, LN2_HIGH, LN2_LOW,    \\
                               SERIES)                                                          \\
        static inline real nnet_power_of_2##suffix(real t, int more) {  /* 2^(n + more) */      \\
            bits pattern;                                                                       \\
            memcpy(&pattern, &t, sizeof(t));                                                    \\
            pattern = (pattern + (BIAS + more)) << MANTISSA;                                    \\
            memcpy(&t, &pattern, sizeof(t));                                                    \\
            return t;                                                                           \\
        }                                                                                       \\
        static inline real nnet_rest##suffix(real x, real low, real t) {  /* e^r - 1 */         \\
            const real n = t - MAGIC, r = x - n * LN2_HIGH - n * LN2_LOW + low;                 \\
            return r * (SERIES);                                                                \\
        }                                                                                       \\
        static inline real nnet_exp##suffix(real x, real low) {                                 \\
            const real t = x * (real)1.4426950408889634 + MAGIC;                                \\
            /* Only the last product may be a denormal number. */                               \\
            return (1 + nnet_rest##suffix(x, low, t)) * nnet_power_of_2##suffix(t, 64)          \\
                   * (real)5.421010862427522e-20;                                               \\
        }                                                                                       \\
        static inline real nnet_expm1##suffix(real x) {                                         \\
            real t, power;                                                                      \\
            x = x < -50 ? -50 : x;  /* -1 */                                                    \\
            t = x * (real)1.4426950408889634 + MAGIC;                                           \\
            power = nnet_power_of_2##suffix(t, 0);                                              \\
            return power * nnet_rest##suffix(x, 0, t) + (power - 1);                            \\
        }                                                                                       \\
        static inline real nnet_high##suffix(real x) {                                          \\
            bits pattern;                                                                       \\
            memcpy(&pattern, &x, sizeof(x));                                                    \\
            pattern &= ~(bits)0 << (MANTISSA + 2) / 2;                                          \\
            memcpy(&x, &pattern, sizeof(x));                                                    \\
            return x;                                                                           \\
        }

    #define SERIES_7(c) (1 + r * (c(1, 2) + r * (c(1, 6) + r * (c(1, 24)                        \\
        + r * (c(1, 120) + r * (c(1, 720) + r * c(1, 5040)))))))
    #define SERIES_13(c) (1 + r * (c(1, 2) + r * (c(1, 6) + r * (c(1, 24)                       \\
        + r * (c(1, 120) + r * (c(1, 720) + r * (c(1, 5040) + r * (c(1, 40320)                  \\
        + r * (c(1, 362880) + r * (c(1, 3628800) + r * (c(1, 39916800)                          \\
        + r * (c(1, 479001600) + r * c(1, 6227020800)))))))))))))
    #define RATIO_FLOAT(a, b) ((float)a / (float)b)
    #define RATIO(a, b) ((double)a / (double)b)

    DEFINE_EXPONENTIAL(_float, float, uint32_t, 23, 12582912.0f, 127,
                       0.693359375f, -2.12194440e-4f, SERIES_7(RATIO_FLOAT))
    DEFINE_EXPONENTIAL(_double, double, uint64_t, 52, 6755399441055744.0, 1023,
                       0.693147180369123816490, 1.90821492927058770002e-10,
                       SERIES_13(RATIO))
    """
    float nnet_exp_float(float x, float low) noexcept nogil
    double nnet_exp_double(double x, double low) noexcept nogil
    float nnet_expm1_float(float x) noexcept nogil
    double nnet_expm1_double(double x) noexcept nogil
    float nnet_high_float(float x) noexcept nogil
    double nnet_high_double(double x) noexcept nogil


cdef inline real least_exponent(real like) noexcept nogil:
    """e^x is 0 there, and below."""
    return <real>(-104 if real is float else -746)


cdef inline real exponential_of_sum(real x, real low) noexcept nogil:
    """e^(x + low), of the sum unrounded, for x from the least exponent to 0 and |low| < 1/2."""
    if real is float:
        return nnet_exp_float(x, low)
    else:
        return nnet_exp_double(x, low)


cdef inline real exponential(real x) noexcept nogil:
    """e^x for x <= 0; NaN for NaN."""
    cdef real least = least_exponent(x)
    return exponential_of_sum(least if x < least else x, <real>0)


cdef inline real exponential_minus_1(real x) noexcept nogil:
    """e^x - 1 for x <= 0, without its cancellation; NaN for NaN."""
    if real is float:
        return nnet_expm1_float(x)
    else:
        return nnet_expm1_double(x)


cdef inline real bell(real x) noexcept nogil:
    """e**(-x**2 / 2), from the exact square of x's higher bits, and what that lacks."""
    cdef real high, half
    if real is float:
        high = nnet_high_float(x)
    else:
        high = nnet_high_double(x)
    half = <real>-0.5 * high
    return exponential_of_sum(half * high, (x - high) * (half - <real>0.5 * x))


cdef inline real logistic(real x, real power) noexcept nogil:
    """1 / (1 + e^-x), where power is e^-|x|: no exponent is positive."""
    return (power if x < 0 else <real>1) / (<real>1 + power)
