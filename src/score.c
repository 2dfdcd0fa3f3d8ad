/* score.c - first stage: how well does each key of the tile fit each query of the block? */
#include "ahead.h"
#include "simd/log.h"
#include "simd/product.h"
#include "simd/tanh.h"
#include "tile.h"

/* m rows of scores leave the registers; max follows. */
INLINE void put_scores(accumulators c, real *s, vec max[QKV_VECTORS], const int m, const int nv)
{
    UNROLL
    for (int i = 0; i < m; i++) {
        UNROLL
        for (int v = 0; v < nv; v++) {
            max[v] = larger(c[i][v], max[v]);
            store(s + i * QKV_LANES + v * QKV_VEC, c[i][v]);
        }
    }
}

INLINE void load_lanes(const real *x, vec y[QKV_VECTORS], const int nv)
{
    UNROLL
    for (int v = 0; v < nv; v++) y[v] = load(x + v * QKV_VEC);
}

INLINE void store_lanes(real *x, const vec y[QKV_VECTORS], const int nv)
{
    UNROLL
    for (int v = 0; v < nv; v++) store(x + v * QKV_VEC, y[v]);
}

INLINE void dot_strip(const FN(qkv_rows) *x, int j, const real *lanes, ptrdiff_t d, real *s,
                      vec max[QKV_VECTORS], const FN(qkv_ahead) *ahead, const int m, const int nv)
{
    accumulators c;
    const real *rows = x->data + j * x->stride;
    set(c, m, nv, splat(0));
    if (ahead && ahead->data)
        add_rows_ahead(c, rows, x->stride, lanes, d, m, nv, j, ahead, NULL);
    else
        add_rows(c, rows, x->stride, lanes, QKV_LANES, d, m, nv);
    put_scores(c, s + j * QKV_LANES, max, m, nv);
}

INLINE void dot(const FN(qkv_rows) *x, int n, const real *lanes, ptrdiff_t d, real *s,
                real *maximum, const FN(qkv_ahead) *ahead, const int nv)
{
    int j = 0;
    vec max[QKV_VECTORS];
    UNROLL
    for (int v = 0; v < nv; v++) max[v] = splat((real)-INFINITY);
    for (; j + QKV_ROWS <= n; j += QKV_ROWS) dot_strip(x, j, lanes, d, s, max, ahead, QKV_ROWS, nv);
    if (QKV_ROWS > 4 && n - j >= 4) {
        dot_strip(x, j, lanes, d, s, max, NULL, 4, nv);
        j += 4;
    }
    for (; j < n; j++) dot_strip(x, j, lanes, d, s, max, NULL, 1, nv);
    store_lanes(maximum, max, nv);
}

void IN(qkv_dot_tile)(const FN(qkv_rows) *x, int n, const real *lanes, ptrdiff_t d, int vectors,
                      real *s, real *max, const FN(qkv_ahead) *ahead)
{
    switch (vectors) {
    case 1:
        dot(x, n, lanes, d, s, max, ahead, 1);
        break;
    case 2:
        dot(x, n, lanes, d, s, max, ahead, 2);
        break;
    default:
        dot(x, n, lanes, d, s, max, ahead, 3);
    }
}

/* s[j][i] = -scale/2 sum_c u^2 with u = (q[c][i] - k[j][c]) / h[c], or its relatives; of the
 * Gaussian in base 2, all of scale but its sign is in the bandwidth. Differences first:
 * |q|^2 - 2 q'k + |k|^2 would cancel for keys with a large common offset. */
INLINE void distance_strip(const FN(qkv_block) *t, int j, vec max[QKV_VECTORS], const int m,
                           const int nv, const qkv_score kind)
{
    accumulators s;
    ptrdiff_t stride = t->k.stride, d = t->in->a.d_k;
    const real *k = t->k.data + j * stride;
    set(s, m, nv, splat(0));
    for (ptrdiff_t c = 0; c < d; c++) {
        vec q[QKV_VECTORS];
        real inverse = t->score_bandwidth[c];
        load_lanes(t->q + c * QKV_LANES, q, nv);
        UNROLL
        for (int i = 0; i < m; i++) {
            UNROLL
            for (int v = 0; v < nv; v++) {
                vec u = (q[v] - k[i * stride + c]) * inverse;
                s[i][v] -= kind == QKV_SCORE_LAPLACE ? magnitude(u) : u * u;
            }
        }
    }
    real factor = t->scale * (kind == QKV_SCORE_GAUSSIAN ? (real)0.5 : 1);
    if (t->base_2) factor *= (real)LOG2E;
    if (t->base_2 && kind == QKV_SCORE_GAUSSIAN) factor = t->scale < 0 ? -1 : 1;
    UNROLL
    for (int i = 0; i < m && kind == QKV_SCORE_CAUCHY; i++) {
        UNROLL
        for (int v = 0; v < nv; v++) s[i][v] = -log_of(1 - s[i][v]);
    }
    if (factor != 1) {
        UNROLL
        for (int i = 0; i < m; i++) {
            UNROLL
            for (int v = 0; v < nv; v++) s[i][v] *= factor;
        }
    }
    put_scores(s, t->s + j * QKV_LANES, max, m, nv);
}

INLINE void distance(FN(qkv_block) *t, const int nv, const qkv_score kind)
{
    int j = 0;
    vec max[QKV_VECTORS];
    UNROLL
    for (int v = 0; v < nv; v++) max[v] = splat((real)-INFINITY);
    for (; j + 4 <= t->n_k; j += 4) distance_strip(t, j, max, 4, nv, kind);
    for (; j < t->n_k; j++) distance_strip(t, j, max, 1, nv, kind);
    store_lanes(t->tile_max, max, nv);
}

/* The Gaussian is made for narrow blocks too, since regression has many of them. */
static void score_distances(FN(qkv_block) *t)
{
    qkv_score kind = t->in->a.score;
    if (kind == QKV_SCORE_LAPLACE)
        distance(t, QKV_VECTORS, QKV_SCORE_LAPLACE);
    else if (kind == QKV_SCORE_CAUCHY)
        distance(t, QKV_VECTORS, QKV_SCORE_CAUCHY);
    else if (t->vectors == 1)
        distance(t, 1, QKV_SCORE_GAUSSIAN);
    else if (t->vectors == 2)
        distance(t, 2, QKV_SCORE_GAUSSIAN);
    else
        distance(t, 3, QKV_SCORE_GAUSSIAN);
}

/* s[j][i] = scale sum_c w[c] tanh(q[c][i] + k[j][c]) */
static void score_additive(FN(qkv_block) *t)
{
    real factor = t->base_2 ? t->scale * (real)LOG2E : t->scale;
    for (int lane = 0; lane < t->vectors * QKV_VEC; lane += QKV_VEC) {
        vec max = splat((real)-INFINITY);
        for (int j = 0; j < t->n_k; j++) {
            const real *k = t->k.data + j * t->k.stride;
            vec s = splat(0);
            for (ptrdiff_t c = 0; c < t->in->a.d_k; c++)
                s += t->parameters[c] * tanh_of(load(t->q + c * QKV_LANES + lane) + k[c]);
            s *= factor;
            max = larger(s, max);
            store(t->s + j * QKV_LANES + lane, s);
        }
        store(t->tile_max + lane, max);
    }
}

FN(qkv_score_tile) IN(qkv_score_tile_of)(const FN(qkv_block) *t)
{
    return (FN(qkv_score_tile)){.batch = t->batch,
                                .head = t->head,
                                .query = t->q0,
                                .key = t->k0,
                                .n_q = t->n_q,
                                .n_k = t->n_k,
                                .d_k = t->in->a.d_k,
                                .lanes = QKV_LANES,
                                .q = t->q,
                                .k = t->k.data,
                                .k_stride = t->k.stride,
                                .w = t->parameters};
}

static void score_user(FN(qkv_block) *t)
{
    const FN(qkv_user_score) *user = t->in->user_score;
    const FN(qkv_score_tile) tile = IN(qkv_score_tile_of)(t);
    real factor = t->base_2 ? t->scale * (real)LOG2E : t->scale;
    user->forward(user->context, &tile, t->s);
    for (int lane = 0; lane < t->vectors * QKV_VEC; lane += QKV_VEC) {
        vec max = splat((real)-INFINITY);
        for (int x = lane; x < t->n_k * QKV_LANES; x += QKV_LANES) {
            vec s = load(t->s + x) * factor;
            max = larger(s, max);
            store(t->s + x, s);
        }
        store(t->tile_max + lane, max);
    }
}

/* A power of 2 that brings numbers of up to most to about 1, so that squares neither overflow nor
 * vanish, without rounding; at NaN and infinity 1. */
static real unit_power(real most)
{
    FN(natural) bits, bias = QKV_REAL == 32 ? 127 : 1023;
    if (!(most <= REAL_MAX)) return 1;
    memcpy(&bits, &most, sizeof bits);
    FN(natural) exponent = 2 * bias - (bits >> MANTISSA_BITS);
    bits = (exponent > 0 ? exponent : 1) << MANTISSA_BITS;
    real power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

static real inverse_of(real squares, real power)
{
    real inverse = power / sqrt(squares);
    return squares == 0 ? 0 : inverse > REAL_MAX ? REAL_MAX : inverse;
}

real IN(qkv_inverse_norm)(const real *x, ptrdiff_t n)
{
    ptrdiff_t whole = n / QKV_VEC * QKV_VEC;
    vec most = splat(0), sum = splat(0);
    for (ptrdiff_t c = 0; c < whole; c += QKV_VEC) most = larger(magnitude(load_any(x + c)), most);
    real largest = 0;
    for (int i = 0; i < QKV_VEC; i++) largest = most[i] > largest ? most[i] : largest;
    for (ptrdiff_t c = whole; c < n; c++) largest = fabs(x[c]) > largest ? fabs(x[c]) : largest;
    real power = unit_power(largest), squares = 0;
    for (ptrdiff_t c = 0; c < whole; c += QKV_VEC) {
        vec y = load_any(x + c) * power;
        sum += y * y;
    }
    for (ptrdiff_t c = whole; c < n; c++) squares += x[c] * power * (x[c] * power);
    return inverse_of(sum_of_lanes(sum) + squares, power);
}

void IN(qkv_inverse_norms)(const real *lanes, ptrdiff_t n, int vectors, real *inverse)
{
    for (int i = 0; i < vectors * QKV_VEC; i += QKV_VEC) {
        vec most = splat(0), power, squares = splat(0);
        for (ptrdiff_t c = i; c < n * QKV_LANES; c += QKV_LANES)
            most = larger(magnitude(load(lanes + c)), most);
        for (int v = 0; v < QKV_VEC; v++) power[v] = unit_power(most[v]);
        for (ptrdiff_t c = i; c < n * QKV_LANES; c += QKV_LANES) {
            vec y = load(lanes + c) * power;
            squares += y * y;
        }
        for (int v = 0; v < QKV_VEC; v++) inverse[i + v] = inverse_of(squares[v], power[v]);
    }
}

void IN(qkv_score_tile)(FN(qkv_block) *t)
{
    if (qkv_is_distance(&t->in->a))
        score_distances(t);
    else if (t->in->a.score == QKV_SCORE_ADDITIVE)
        score_additive(t);
    else if (t->in->a.score == QKV_SCORE_USER)
        score_user(t);
    else
        IN(qkv_dot_tile)
    (&t->k, t->n_k, t->q, t->in->a.d_k, t->vectors, t->s, t->tile_max, &t->next_b);
}
