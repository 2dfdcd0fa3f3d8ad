/* normal.h - the standard normal distribution, for normal_cdf and gelu. */
#ifndef QKV_GRAD_NORMAL_H
#define QKV_GRAD_NORMAL_H

#include "grad/tape.h"
#include "src/real.h"

#define QKV_NORMAL_PEAK 0.3989422804014327 /* 1 / sqrt(2 pi) */

static inline real FN(qkv_normal_cdf)(real x)
{
    return (real)0.5 * erfc(x * (real)-0.7071067811865476);
}

static inline real FN(qkv_normal_density)(real x)
{
    return (real)QKV_NORMAL_PEAK * exp((real)-0.5 * x * x);
}

/* The density as operations of the tape. */
qkv_var qkv_normal_density_of(qkv_tape *tape, qkv_var x);

#endif
