/* tanh.h - the hyperbolic tangent on vectors, for softcap.
 *
 * With t = e^(2|x|) - 1, tanh |x| = t / (t + 2). t = 2^n (p(f) - 1) + (2^n - 1) with the n, f and p
 * of exp.h, whose p(0) is exactly 1: for small x, n is 0 and t is a product, so that no digit is
 * lost. The largest error over the whole range, measured by tests/test_exp.c: 3.7 ulp. */
#ifndef QKV_SIMD_TANH_H
#define QKV_SIMD_TANH_H

#include "exp.h"

/* Whatever is larger than this has tanh 1; times 2 log2(e), it is a power that is a number. */
enum { TANH_IS_1 = QKV_REAL == 32 ? 10 : 20 };

/* NaN for NaN; odd to the bit. */
INLINE vec tanh_of(vec x)
{
    const real *c = opaque(exp_table);
    vec a = magnitude(x), most = splat(TANH_IS_1);
    a = choose(a > most, most, a) * (real)(2 * LOG2E);
    vec f = beyond_nearest(a, c), p = f * c[0] + c[1];
    UNROLL
    for (int i = 2; i < EXP_DEGREE; i++) p = p * f + c[i];
    vec power = times_power_of_2(splat(1), a, c); /* 2^n */
    vec t = power * (p * f) + (power - 1);
    return (vec)((ivec)(t / (t + 2)) | ((ivec)x & (ivec)splat((real)-0.0)));
}

#endif
