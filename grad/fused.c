/* fused.c - softmax of a dot score backward, from keys and values to w and ds in one go: what
 * score.c, mask.c, normalize.c and pool.c do in turn, for a few keys at a time, so that scores stay
 * in the cache next to the registers and exponentials run between the multiply-adds of dw. */
#include "grad/tile.h"
#include "src/ahead.h"
#include "src/simd/product.h"

INLINE void hide(accumulators c, const uint8_t *seen, const int m, const int nv)
{
    UNROLL
    for (int i = 0; i < m; i++) {
        UNROLL
        for (int v = 0; v < nv; v++)
            c[i][v] = if_seen(seen + i * QKV_LANES + v * QKV_VEC, c[i][v], splat((real)-INFINITY));
    }
}

/* w and ds are 0 there, even if they come from NaN. */
INLINE void clear_hidden(accumulators ds, real *w, const uint8_t *seen, const int m, const int nv)
{
    UNROLL
    for (int i = 0; i < m; i++) {
        UNROLL
        for (int v = 0; v < nv; v++) {
            int at = i * QKV_LANES + v * QKV_VEC;
            store(w + at, if_seen(seen + at, load(w + at), splat(0)));
            ds[i][v] = if_seen(seen + at, ds[i][v], splat(0));
        }
    }
}

INLINE void add_bias(accumulators c, const real *b, bool large, const int m, const int nv)
{
    UNROLL
    for (int i = 0; i < m; i++) {
        UNROLL
        for (int v = 0; v < nv; v++) {
            vec bias = load(b + i * QKV_LANES + v * QKV_VEC);
            c[i][v] = large ? exponent(c[i][v], bias) : c[i][v] + bias;
        }
    }
}

INLINE void put(accumulators c, real *to, const int m, const int nv)
{
    UNROLL
    for (int i = 0; i < m; i++) {
        UNROLL
        for (int v = 0; v < nv; v++) store(to + i * QKV_LANES + v * QKV_VEC, c[i][v]);
    }
}

/* c += the product, two columns for one vector of weights until either runs out. */
INLINE void add_rows_and_weights(accumulators c, const real *a, ptrdiff_t stride, const real *b,
                                 ptrdiff_t d, FN(qkv_exponents) *e, const int m, const int nv)
{
    ptrdiff_t r = 0;
    for (; r + 2 * nv <= d && e->rows > 0; r += 2 * nv, next_row(e)) UNROLL
    for (int v = 0; v < nv; v++) {
        ptrdiff_t x = r + 2 * v;
        add_product(c, a + x, stride, b + x * QKV_LANES, m, nv);
        backward_weight(e, v);
        add_product(c, a + x + 1, stride, b + (x + 1) * QKV_LANES, m, nv);
    }
    backward_weights(e, nv);
    add_rows(c, a + r, stride, b + r * QKV_LANES, QKV_LANES, d - r, m, nv);
}

/* c becomes c tanh(c / c0), through w; its slope is kept. */
INLINE void cap(FN(qkv_grad_block) *g, accumulators c, real *w, int j, const int m, const int nv)
{
    put(c, w, m, nv);
    IN(qkv_softcap)(&g->t, w, m, g->slope + j * QKV_LANES);
    UNROLL
    for (int i = 0; i < m; i++) {
        UNROLL
        for (int v = 0; v < nv; v++) c[i][v] = load(w + i * QKV_LANES + v * QKV_VEC);
    }
}

/* ds = slope db, but 0 stays 0 even if the slope comes from NaN. */
INLINE void times_slope(accumulators c, const real *slope, const int m, const int nv)
{
    UNROLL
    for (int i = 0; i < m; i++) {
        UNROLL
        for (int v = 0; v < nv; v++) {
            vec ds = c[i][v] * load(slope + i * QKV_LANES + v * QKV_VEC);
            c[i][v] = choose(c[i][v] == 0, splat(0), ds);
        }
    }
}

/* What is dropped has no gradient, NaN or not. */
INLINE void times_keep(accumulators c, const real *keep, const int m, const int nv)
{
    UNROLL
    for (int i = 0; i < m; i++) {
        UNROLL
        for (int v = 0; v < nv; v++) {
            vec f = load(keep + i * QKV_LANES + v * QKV_VEC);
            c[i][v] = choose(f == 0, splat(0), c[i][v] * f);
        }
    }
}

/* The weights that pooled the values are those after dropout. */
INLINE void drop_weights(real *w, const real *keep, const int m, const int nv)
{
    UNROLL
    for (int i = 0; i < m * nv; i++) {
        int x = i / nv * QKV_LANES + i % nv * QKV_VEC;
        store(w + x, choose(load(keep + x) == 0, splat(0), load(w + x) * load(keep + x)));
    }
}

/* Keys j .. j + m - 1. */
INLINE void strip(FN(qkv_grad_block) *g, int j, const int m, const int nv)
{
    FN(qkv_block) *t = &g->t;
    const qkv_attention *a = &t->in->a;
    bool partial = t->coverage == QKV_SEES_SOME, drops = a->dropout > 0;
    const uint8_t *seen = t->seen + j * QKV_LANES;
    real *w = t->w + j * QKV_LANES;
    accumulators c;
    set(c, m, nv, splat(0));
    add_rows_ahead(c, t->k.data + j * t->k.stride, t->k.stride, t->q, a->d_k, m, nv, j, &t->next_b,
                   &g->d_bias);
    if (a->softcap > 0) cap(g, c, w, j, m, nv);
    if (IN(qkv_biased)(t->in)) add_bias(c, t->b + j * QKV_LANES, t->large_bias, m, nv);
    if (partial) hide(c, seen, m, nv);
    put(c, w, m, nv);
    set(c, m, nv, splat(0));
    FN(qkv_exponents) e = {.x = w, .rows = m, .from = t->from, .log_sum = t->tile_sum};
    add_rows_and_weights(c, t->v.data + j * t->v.stride, t->v.stride, g->d_o, a->d_v, &e, m, nv);
    if (drops) times_keep(c, g->keep + j * QKV_LANES, m, nv);
    UNROLL
    for (int i = 0; i < m; i++) {
        UNROLL
        for (int v = 0; v < nv; v++)
            c[i][v] =
                load(w + i * QKV_LANES + v * QKV_VEC) * (c[i][v] - load(g->delta + v * QKV_VEC));
    }
    if (drops) drop_weights(w, g->keep + j * QKV_LANES, m, nv);
    if (partial) clear_hidden(c, w, seen, m, nv);
    if (a->softcap > 0) {
        put(c, g->dw + j * QKV_LANES, m, nv);
        times_slope(c, g->slope + j * QKV_LANES, m, nv);
    }
    put(c, g->ds + j * QKV_LANES, m, nv);
}

INLINE void strips(FN(qkv_grad_block) *g, const int nv)
{
    int j = 0, n = g->t.n_k;
    for (; j + QKV_ROWS <= n; j += QKV_ROWS) strip(g, j, QKV_ROWS, nv);
    if (QKV_ROWS > 4 && n - j >= 4) {
        strip(g, j, 4, nv);
        j += 4;
    }
    for (; j < n; j++) strip(g, j, 1, nv);
}

static FN(qkv_ahead) bias_gradient(const FN(qkv_grad_block) *g)
{
    const FN(qkv_block) *t = &g->t;
    const FN(qkv_view) *to = &g->to->bias;
    if (!to->data || to->stride[3] != 1) return (FN(qkv_ahead)){0};
    return (FN(qkv_ahead)){.data = FN(qkv_at)(to, t->batch, t->head, t->q0) + t->k0,
                           .stride = to->stride[2],
                           .rows = t->n_q,
                           .columns = t->n_k};
}

void IN(qkv_softmax_dot_backward)(FN(qkv_grad_block) *g)
{
    FN(qkv_block) *t = &g->t;
    g->d_bias = bias_gradient(g);
    for (int i = 0; i < QKV_LANES; i++) {
        bool blind = t->max[i] == (real)-INFINITY; /* all its keys are hidden: count from 0 */
        t->from[i] = blind ? 0 : t->max[i];
        t->tile_sum[i] = blind ? 0 : t->log_sum[i];
    }
    if (t->in->a.dropout > 0) IN(qkv_dropout)(t, g->keep, NULL);
    switch (t->vectors) {
    case 1:
        strips(g, 1);
        break;
    case 2:
        strips(g, 2);
        break;
    default:
        strips(g, 3);
    }
}
