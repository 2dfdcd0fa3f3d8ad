/* exponents.h - scores on their way to weights: rows of vectors, x = 2^(x - from - log_sum). They
 * are not turned all at once, but row by row between the multiply-adds of a product, which leave
 * the processor's other units idle. */
#ifndef QKV_SRC_EXPONENTS_H
#define QKV_SRC_EXPONENTS_H

#include "simd/exp.h"

/* x where the pair is seen, else other. */
INLINE vec if_seen(const uint8_t *seen, vec x, vec other)
{
    return choose(from_bytes(seen), x, other);
}

INLINE ivec is_finite(vec x)
{
    return (x >= -REAL_MAX) & (x <= REAL_MAX);
}

/* A score and a bias: of finite numbers a finite one, though their sum may be beyond. */
INLINE vec exponent(vec s, vec b)
{
    vec e = s + b;
    ivec finite = is_finite(s) & is_finite(b);
    e = choose(finite & (e > REAL_MAX), splat(REAL_MAX), e);
    return choose(finite & (e < -REAL_MAX), splat(-REAL_MAX), e);
}

typedef struct FN(qkv_exponents) {
    real *x;                    /* the next row; rows are QKV_LANES apart */
    int rows;                   /* that are left */
    const real *from, *log_sum; /* QKV_LANES each; log2 of the sum is read going backward only */
    real *sum;                  /* QKV_LANES, += the weights; forward only */
} FN(qkv_exponents);

INLINE void forward_weight(const FN(qkv_exponents) *e, int v)
{
    int at = v * QKV_VEC;
    vec w = exp2_weight(load(e->x + at) - load(e->from + at), opaque(exp_table));
    store(e->x + at, w);
    store(e->sum + at, load(e->sum + at) + w);
}

INLINE void backward_weight(const FN(qkv_exponents) *e, int v)
{
    int at = v * QKV_VEC;
    store(e->x + at, exp2_weight(load(e->x + at) - load(e->from + at) - load(e->log_sum + at),
                                 opaque(exp_table)));
}

INLINE void next_row(FN(qkv_exponents) *e)
{
    e->x += QKV_LANES;
    e->rows--;
}

/* All that are left. */
INLINE void forward_weights(FN(qkv_exponents) *e, const int vectors)
{
    for (; e->rows > 0; next_row(e)) UNROLL
    for (int v = 0; v < vectors; v++) forward_weight(e, v);
}

INLINE void backward_weights(FN(qkv_exponents) *e, const int vectors)
{
    for (; e->rows > 0; next_row(e)) UNROLL
    for (int v = 0; v < vectors; v++) backward_weight(e, v);
}

#endif
