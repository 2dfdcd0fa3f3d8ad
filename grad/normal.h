/* normal.h - the standard normal distribution, for normal_cdf and gelu.
 *
 * Left of 0, Phi(-a) = e^(-a^2 / 2) R(a), where R is Mills' ratio over sqrt(2 pi). It varies
 * slowly: here it is the quotient of polynomials that meets it at 0 and at Chebyshev's points of
 * (a - 4) / (a + 4), to 4e-8 in float and 6e-17 in double. All coefficients are positive, so that
 * no digit is lost. e^r beside the power of 2 is 1 + r + r^2 p(r), p of Chebyshev's points too.
 *
 * The exponent a^2 / 2 is not rounded, which would cost Phi as many ulp as it is large; to write
 * erfc(a / sqrt 2) / 2 costs twice that. Without branches and calls, loops over these vectorise.
 * The errors that tape.h names are measured by tests/test_op_layers.c over the whole range. */
#ifndef QKV_GRAD_NORMAL_H
#define QKV_GRAD_NORMAL_H

#include <stdint.h>
#include <string.h>

#include "grad/tape.h"
#include "src/real.h"

#define QKV_NORMAL_PEAK 0.3989422804014327 /* 1 / sqrt(2 pi) */

/* Polynomials, from the highest power down. Beyond END the density is 0. To add and subtract SPLIT
 * leaves a multiple of 2^-8 (double: 2^-20), whose square is exact; ROUND, an integer, which after
 * the addition stands in the low bits. BIAS is the exponent's and half of that, UNBIAS undoes the
 * half: so a power is a normal number where the density is not. */
#if QKV_REAL == 32
typedef uint32_t qkv_normal_bits;
enum { NORMAL_MANTISSA = 23, NORMAL_BIAS = 127 + 64 };
static const real NORMAL_END = 14.5f, NORMAL_SPLIT = 0x1.8p15f, NORMAL_ROUND = 0x1.8p23f,
                  NORMAL_UNBIAS = 0x1p-64f, LOG_2_HIGH = 0x1.62e4p-1f, LOG_2_LOW = 1.42860682e-6f;
static const real normal_p[] = {0.00385779005f, 0.039007291f, 0.178599308f, 0.432336624f, 0.5f};
static const real normal_q[] = {0.00966990509f, 0.0977842538f, 0.457181282f,
                                1.18372705f,    1.66255782f,   1};
static const real normal_e[] = {0.00139327872f, 0.00836846576f, 0.0416665115f, 0.166665424f, 0.5f};
#else
typedef uint64_t qkv_normal_bits;
enum { NORMAL_MANTISSA = 52, NORMAL_BIAS = 1023 + 512 };
static const real NORMAL_END = 38.6, NORMAL_SPLIT = 0x1.8p32, NORMAL_ROUND = 0x1.8p52,
                  NORMAL_UNBIAS = 0x1p-512, LOG_2_HIGH = 0x1.62e42fefa2p-1,
                  LOG_2_LOW = 7.3710025651677989e-13;
static const real normal_p[] = {1.8845775889670023e-07,
                                6.0398373815716313e-06,
                                9.4495051701986329e-05,
                                0.0009406945867406172,
                                0.0065592189975068188,
                                0.033367022512837616,
                                0.12531407359686456,
                                0.34367910443870231,
                                0.66198246992613574,
                                0.81668956573304596,
                                0.5};
static const real normal_q[] = {
    4.7239354702381143e-07, 1.5139627154876722e-05, 0.00023733636195021697, 0.0023731112764263009,
    0.016677442964898394,   0.085966414932555565,   0.33008830883277435,    0.94055014147063387,
    1.9429073254993676,     2.7638327031542413,     2.4312636922689572,     1};
static const real normal_e[] = {
    2.51004110820149e-08,   2.7620121717381933e-07, 2.7557268406190795e-06, 2.4801521225986432e-05,
    0.00019841269863088255, 0.0013888888917258759,  0.0083333333333300546,  0.041666666666624039,
    0.16666666666666669,    0.50000000000000011};
#endif

static inline real FN(qkv_polynomial)(const real *c, const int n, real x)
{
    real y = c[0];
    for (int i = 1; i < n; i++) y = y * x + c[i];
    return y;
}

#define QKV_POLYNOMIAL(c, x) FN(qkv_polynomial)(c, sizeof(c) / sizeof *(c), x)

/* Where beyond the end nothing changes: |x|, no more than that; NaN for NaN. */
static inline real FN(qkv_normal_size)(real x)
{
    return fabs(x) > NORMAL_END ? NORMAL_END : fabs(x);
}

/* e^(-a^2 / 2) / NORMAL_UNBIAS, a normal number, of 0 <= a <= NORMAL_END. */
static inline real FN(qkv_normal_exp)(real a)
{
    const real high = (a + NORMAL_SPLIT) - NORMAL_SPLIT, u = (real)-0.5 * high * high;
    const real k = u * (real)M_LOG2E + NORMAL_ROUND, n = k - NORMAL_ROUND;
    const real rest = (real)-0.5 * (a - high) * (a + high); /* u and this are -a^2 / 2 */
    const real r = ((u - n * LOG_2_HIGH) - n * LOG_2_LOW) + rest;
    qkv_normal_bits bits;
    real power; /* 2^n, so far */
    memcpy(&bits, &k, sizeof bits);
    bits = (bits + NORMAL_BIAS) << NORMAL_MANTISSA;
    memcpy(&power, &bits, sizeof power);
    return power * (1 + (r + r * r * QKV_POLYNOMIAL(normal_e, r)));
}

static inline real FN(qkv_normal_density)(real x)
{
    return (real)QKV_NORMAL_PEAK * FN(qkv_normal_exp)(FN(qkv_normal_size)(x)) * NORMAL_UNBIAS;
}

static inline real FN(qkv_normal_cdf)(real x)
{
    const real a = FN(qkv_normal_size)(x);
    const real ratio = QKV_POLYNOMIAL(normal_p, a) / QKV_POLYNOMIAL(normal_q, a);
    const real tail = FN(qkv_normal_exp)(a) * ratio * NORMAL_UNBIAS;
    const real from = x > 0 ? 1 : 0, sign = x > 0 ? -1 : 1;
    return from + sign * tail;
}

/* The density as operations of the tape. */
qkv_var qkv_normal_density_of(qkv_tape *tape, qkv_var x);

/* x, but for an infinity a number where the density is 0 as well: of infinity times 0 a derivative
 * would be NaN. */
qkv_var qkv_normal_near(qkv_tape *tape, qkv_var x);

#endif
