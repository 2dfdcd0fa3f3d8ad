/* exp.h - the exponential on vectors, for weights.
 *
 * x = n + f with n the nearest integer and |f| <= 1/2; 2^f by the polynomial with p(0) = 1 whose
 * largest relative error is least (Remez 1934; the float coefficients then chosen among their
 * neighbours for the least error of the rounded evaluation); n added to the exponent. The largest
 * errors are measured by tests/test_exp.c over the whole range: of exp2_weight 0.86 ulp, or
 * 1.2 ulp without fused multiply-adds. exp_weight rounds x log2(e) once more: a relative error of
 * at most |x| times half an ulp, of a weight e^x less than a quarter of an ulp of 1. */
#ifndef QKV_SIMD_EXP_H
#define QKV_SIMD_EXP_H

#include "vector.h"

static const double LOG2E = 1.4426950408889634;

/* The polynomial from its highest power down; a constant whose addition rounds to an integer, which
 * then stands in the low bits; the least x whose power is a normal number. */
#if QKV_REAL == 32
enum { EXP_DEGREE = 6 };
static const real exp_table[] = {0x1.4220e4p-13f,
                                 0x1.5f3168p-10f,
                                 0x1.3b2cdep-7f,
                                 0x1.c6af44p-5f,
                                 0x1.ebfbep-3f,
                                 0x1.62e43p-1f,
                                 1,
                                 0x1.8p23f,
                                 -126};
#else
enum { EXP_DEGREE = 11 };
static const real exp_table[] = {4.4347712982003767083e-10,
                                 7.0737832485031332991e-9,
                                 1.0178199571842137974e-7,
                                 1.3215435282308487999e-6,
                                 1.5252733493127489347e-5,
                                 1.540353045705211e-4,
                                 1.3333558146774620517e-3,
                                 9.6181291075941200896e-3,
                                 5.5504108664820083227e-2,
                                 0.2402265069591013126,
                                 0.69314718055994532581,
                                 1,
                                 0x1.8p52,
                                 -1022};
#endif

/* Constants kept in registers would push the accumulators of a product out of theirs: behind an
 * opaque pointer they stay in memory, where a broadcast load is free. */
INLINE const real *opaque(const real *x)
{
    __asm__ volatile("" : "+r"(x));
    return x;
}

/* x minus the nearest integer n (0 for an infinity), and p 2^n; c is exp_table. AVX-512 has
 * instructions for both, off the units that multiply and add: 1 % of the whole forward pass. */
#ifdef __AVX512F__
INLINE vec beyond_nearest(vec x, const real *c)
{
    (void)c;
#if QKV_REAL == 32
    return (vec)_mm512_reduce_ps((__m512)x, 0);
#else
    return (vec)_mm512_reduce_pd((__m512d)x, 0);
#endif
}

INLINE vec times_power_of_2(vec p, vec x, const real *c)
{
    (void)c;
#if QKV_REAL == 32
    return (vec)_mm512_scalef_ps((__m512)p, _mm512_roundscale_ps((__m512)x, 0));
#else
    return (vec)_mm512_scalef_pd((__m512d)p, _mm512_roundscale_pd((__m512d)x, 0));
#endif
}
#else
INLINE vec beyond_nearest(vec x, const real *c)
{
    return x - ((x + c[EXP_DEGREE + 1]) - c[EXP_DEGREE + 1]);
}

INLINE vec times_power_of_2(vec p, vec x, const real *c)
{
    ivec y = (ivec)((uvec)p + ((uvec)(x + c[EXP_DEGREE + 1]) << MANTISSA_BITS));
    return (vec)((y & ~(x < c[EXP_DEGREE + 2])) | (x != x));
}
#endif

/* 2^x of n <= 6 vectors, side by side: alone, each would wait for itself most of the time. x <= 127
 * (double: 1023); NaN for NaN. What would be subnormal may be 0. c is exp_table, through opaque
 * where registers are scarce. */
INLINE void exp2_weights(vec x[], const int n, const real *c)
{
    vec f[6], p[6];
    UNROLL
    for (int i = 0; i < n; i++) {
        f[i] = beyond_nearest(x[i], c);
        p[i] = f[i] * c[0] + c[1];
    }
    UNROLL
    for (int y = 2; y <= EXP_DEGREE; y++) {
        UNROLL
        for (int i = 0; i < n; i++) p[i] = p[i] * f[i] + c[y];
    }
    UNROLL
    for (int i = 0; i < n; i++) x[i] = times_power_of_2(p[i], x[i], c);
}

INLINE vec exp2_weight(vec x, const real *c)
{
    exp2_weights(&x, 1, c);
    return x;
}

/* e^x, the same otherwise. */
INLINE vec exp_weight(vec x, const real *c)
{
    return exp2_weight(x * (real)LOG2E, c);
}

#endif
