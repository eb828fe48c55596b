# e^x for loops that take a vector at a time, where libm's functions take one value.
#
# x = n ln 2 + r with |r| <= ln(2) / 2, so that e^x = 2^n e^r: Muller et al., Handbook of
# Floating-Point Arithmetic, 2nd ed., section 10.2 (additive range reduction; ln 2 in two
# parts, after Cody and Waite). The series of e^r ends where its terms are below the rounding.

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* 1.5 * 2^mantissa: what is added to it is rounded to an integer, in its lowest bits. */
    #define DEFINE_EXPONENTIAL(suffix, real, bits, MANTISSA, MAGIC, BIAS, LOWEST, LN2_HIGH,     \\
                               LN2_LOW, SERIES)                                                 \\
        static inline real nnet_power_of_2##suffix(real n) {                                    \\
            bits pattern;                                                                       \\
            n += MAGIC;                                                                         \\
            memcpy(&pattern, &n, sizeof(n));                                                    \\
            pattern = (pattern + BIAS) << MANTISSA;                                             \\
            memcpy(&n, &pattern, sizeof(n));                                                    \\
            return n;                                                                           \\
        }                                                                                       \\
        static inline real nnet_exp##suffix(real x) {                                           \\
            const real least = 3 - BIAS;  /* exponents below make denormal numbers */           \\
            real n, normal, r, series;                                                          \\
            x = x < LOWEST ? LOWEST : x;  /* 0; NaN stays NaN */                                \\
            n = (x * (real)1.4426950408889634 + MAGIC) - MAGIC;                                 \\
            r = x - n * LN2_HIGH - n * LN2_LOW;                                                 \\
            series = SERIES;                                                                    \\
            normal = n < least ? least : n;                                                     \\
            return series * nnet_power_of_2##suffix(normal)                                     \\
                   * nnet_power_of_2##suffix(n - normal);                                       \\
        }

    #define SERIES_7(c) (1 + r * (1 + r * (c(1, 2) + r * (c(1, 6) + r * (c(1, 24)               \\
        + r * (c(1, 120) + r * (c(1, 720) + r * c(1, 5040))))))))
    #define SERIES_13(c) (1 + r * (1 + r * (c(1, 2) + r * (c(1, 6) + r * (c(1, 24)              \\
        + r * (c(1, 120) + r * (c(1, 720) + r * (c(1, 5040) + r * (c(1, 40320)                  \\
        + r * (c(1, 362880) + r * (c(1, 3628800) + r * (c(1, 39916800)                          \\
        + r * (c(1, 479001600) + r * c(1, 6227020800))))))))))))))
    #define RATIO_FLOAT(a, b) ((float)a / (float)b)
    #define RATIO(a, b) ((double)a / (double)b)

    DEFINE_EXPONENTIAL(_float, float, uint32_t, 23, 12582912.0f, 127, -104.0f,
                       0.693359375f, -2.12194440e-4f, SERIES_7(RATIO_FLOAT))
    DEFINE_EXPONENTIAL(_double, double, uint64_t, 52, 6755399441055744.0, 1023, -746.0,
                       0.693147180369123816490, 1.90821492927058770002e-10,
                       SERIES_13(RATIO))
    """
    float nnet_exp_float(float x) noexcept nogil
    double nnet_exp_double(double x) noexcept nogil


cdef inline real exponential(real x) noexcept nogil:
    """e^x for x <= 0; NaN for NaN."""
    if real is float:
        return nnet_exp_float(x)
    else:
        return nnet_exp_double(x)
