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

/* 2^x for x <= 127 (double: 1023); NaN for NaN. What would be subnormal may be 0. c is exp_table,
 * through opaque where registers are scarce. */
INLINE vec exp2_weight(vec x, const real *c)
{
#ifdef HAS_SCALE
    /* One instruction for the exponent, subnormals and NaN: 3 % of the whole forward pass. */
    x = larger(splat(2 * c[EXP_DEGREE + 2]), x);
#endif
    vec shifted = x + c[EXP_DEGREE + 1], n = shifted - c[EXP_DEGREE + 1], f = x - n;
    vec p = f * c[0] + c[1];
    UNROLL
    for (int i = 2; i <= EXP_DEGREE; i++) p = p * f + c[i];
#ifdef HAS_SCALE
    return scale_by_power_of_2(p, n);
#else
    ivec y = (ivec)((uvec)p + ((uvec)shifted << MANTISSA_BITS));
    return (vec)((y & ~(x < c[EXP_DEGREE + 2])) | (x != x));
#endif
}

/* e^x, the same otherwise. */
INLINE vec exp_weight(vec x, const real *c)
{
    return exp2_weight(x * (real)1.4426950408889634, c);
}

/* e^x of n vectors, side by side: alone, each would wait for itself most of the time. */
INLINE void exp_weights(vec x[], const int n)
{
    const real *c = opaque(exp_table);
    vec shifted[6], p[6];
    UNROLL
    for (int i = 0; i < n; i++) x[i] *= (real)1.4426950408889634;
#ifdef HAS_SCALE
    UNROLL
    for (int i = 0; i < n; i++) x[i] = larger(splat(2 * exp_table[EXP_DEGREE + 2]), x[i]);
#endif
    UNROLL
    for (int i = 0; i < n; i++) shifted[i] = x[i] + c[EXP_DEGREE + 1];
    UNROLL
    for (int i = 0; i < n; i++) p[i] = shifted[i] - c[EXP_DEGREE + 1];
#ifndef HAS_SCALE
    ivec normal[6], nan[6];
    UNROLL
    for (int i = 0; i < n; i++) normal[i] = ~(x[i] < c[EXP_DEGREE + 2]);
    UNROLL
    for (int i = 0; i < n; i++) nan[i] = x[i] != x[i];
#else
    UNROLL
    for (int i = 0; i < n; i++) shifted[i] = p[i];
#endif
    UNROLL
    for (int i = 0; i < n; i++) x[i] -= p[i];
    UNROLL
    for (int i = 0; i < n; i++) p[i] = x[i] * c[0] + c[1];
    UNROLL
    for (int y = 2; y <= EXP_DEGREE; y++) {
        UNROLL
        for (int i = 0; i < n; i++) p[i] = p[i] * x[i] + c[y];
    }
    UNROLL
    for (int i = 0; i < n; i++)
#ifdef HAS_SCALE
        x[i] = scale_by_power_of_2(p[i], shifted[i]);
#else
        x[i] =
            (vec)(((ivec)((uvec)p[i] + ((uvec)shifted[i] << MANTISSA_BITS)) & normal[i]) | nan[i]);
#endif
}

#endif
