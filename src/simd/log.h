/* log.h - the logarithm on vectors, for the Cauchy score and for entropies.
 *
 * x = 2^e m with m from sqrt(1/2) to sqrt(2), and with r = (m - 1) / (m + 1),
 * log m = 2 (r + r^3/3 + r^5/5 + ..), cut off where what is left is below half an ulp of r. The
 * error, measured by tests/test_exp.c: 2 ulp of the result, or of 1 if that is more. */
#ifndef QKV_SIMD_LOG_H
#define QKV_SIMD_LOG_H

#include "vector.h"

enum { LOG_TERMS = QKV_REAL == 32 ? 5 : 11 };

/* log x of a positive normal number, inf for inf, NaN for NaN. */
INLINE vec log_of(vec x)
{
    const uvec one = (uvec)splat(1), half_root = (uvec)splat((real)0.70710678118654752);
    /* The exponent of x, one more where the mantissa is beyond sqrt(2). */
    ivec e = (ivec)((uvec)x + (one - half_root)) >> MANTISSA_BITS;
    e -= (ivec)one >> MANTISSA_BITS;
    vec m = (vec)((uvec)x - ((uvec)e << MANTISSA_BITS));
    vec r = (m - 1) / (m + 1), r2 = r * r, sum = splat((real)1 / (2 * LOG_TERMS - 1));
    UNROLL
    for (int i = LOG_TERMS - 1; i >= 1; i--) sum = sum * r2 + (real)1 / (real)(2 * i - 1);
    vec y = __builtin_convertvector(e, vec) * (real)0.69314718055994531 + 2 * r * sum;
    return choose(x <= REAL_MAX, y, x);
}

#endif
