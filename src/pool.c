/* pool.c - fourth stage: the weighted sum of the values. */
#include "simd/product.h"
#include "tile.h"

bool IN(qkv_rows_finite)(const FN(qkv_rows) *rows, int n, ptrdiff_t d)
{
    vec zeros = splat(0); /* a finite number times 0 is 0 */
    real zero = 0;
    for (int j = 0; j < n; j++) {
        const real *x = rows->data + j * rows->stride;
        ptrdiff_t c = 0;
        for (; c + QKV_VEC <= d; c += QKV_VEC) zeros += load_any(x + c) * 0;
        for (; c < d; c++) zero += x[c] * 0;
    }
    for (int i = 0; i < QKV_VEC; i++) zero += zeros[i];
    return zero == 0;
}

/* Two steps of the product for one vector of weights, until either runs out; the keys done. */
INLINE int add_columns_and_weights(accumulators c, const real *v, ptrdiff_t stride, const real *w,
                                   int n, FN(qkv_exponents) *e, const int m, const int nv)
{
    int j = 0;
    for (; j + 2 * nv <= n && e->rows > 0; j += 2 * nv, next_row(e)) {
        UNROLL
        for (int x = 0; x < nv; x++) {
            int row = j + 2 * x;
            add_product(c, v + row * stride, 1, w + row * QKV_LANES, m, nv);
            forward_weight(e, x);
            add_product(c, v + (row + 1) * stride, 1, w + (row + 1) * QKV_LANES, m, nv);
        }
    }
    return j;
}

/* o[c][i] = o[c][i] * rescale[i] + sum_j w[j][i] v[j][c] for m columns c. */
INLINE void pool_strip(const FN(qkv_pooling) *p, ptrdiff_t column, FN(qkv_exponents) *e,
                       const int m, const int nv)
{
    accumulators c;
    const real *v = p->v.data + column, *w = p->w;
    ptrdiff_t stride = p->v.stride;
    set(c, m, nv, splat(0));
    int j = e ? add_columns_and_weights(c, v, stride, w, p->n_k, e, m, nv) : 0;
    add_columns(c, v + j * stride, stride, w + j * QKV_LANES, QKV_LANES, p->n_k - j, m, nv);
    UNROLL
    for (int i = 0; i < m; i++) {
        UNROLL
        for (int x = 0; x < nv; x++) {
            real *o = p->o + (column + i) * QKV_LANES + x * QKV_VEC;
            store(o, load(o) * load(p->rescale + x * QKV_VEC) + c[i][x]);
        }
    }
}

INLINE void pool(const FN(qkv_pooling) *p, FN(qkv_exponents) *e, const int nv)
{
    ptrdiff_t d = p->d, c = 0;
    for (; c + QKV_ROWS <= d; c += QKV_ROWS) pool_strip(p, c, e, QKV_ROWS, nv);
    if (QKV_ROWS > 4 && d - c >= 4) {
        pool_strip(p, c, e, 4, nv);
        c += 4;
    }
    for (; c < d; c++) pool_strip(p, c, NULL, 1, nv);
    if (e) forward_weights(e, nv);
}

/* The same sum over the seen pairs only: 0 times a hidden NaN would be NaN. A hard choice hides all
 * but the winner. */
static void pool_seen(const FN(qkv_pooling) *p)
{
    const FN(qkv_block) *t = p->t;
    bool hard = t->in->a.normalize == QKV_HARD;
    for (ptrdiff_t c = 0; c < p->d; c++)
        for (int i = 0; i < t->n_q; i++) {
            real sum = 0;
            for (int j = 0; j < p->n_k; j++) {
                real w = p->w[j * QKV_LANES + i];
                if (FN(qkv_pair)(t, j, i) && !(hard && w == 0))
                    sum += w * p->v.data[j * p->v.stride + c];
            }
            real *o = &p->o[c * QKV_LANES + i];
            *o = *o * p->rescale[i] + sum;
        }
}

FN(qkv_pooling) IN(qkv_pooling_of)(const FN(qkv_block) *t)
{
    const qkv_attention *a = &t->in->a;
    bool partial = t->coverage == QKV_SEES_SOME || a->normalize == QKV_HARD;
    return (FN(qkv_pooling)){.t = t,
                             .v = t->v,
                             .d = a->d_v,
                             .n_k = t->n_k,
                             .vectors = t->vectors,
                             .w = t->w,
                             .rescale = t->rescale,
                             .o = t->o,
                             .by_pairs = partial && !IN(qkv_rows_finite)(&t->v, t->n_k, a->d_v)};
}

void IN(qkv_pool_tile)(const FN(qkv_pooling) *p, FN(qkv_exponents) *e)
{
    if (p->by_pairs) {
        pool_seen(p);
        return;
    }
    switch (p->vectors) {
    case 1:
        pool(p, e, 1);
        break;
    case 2:
        pool(p, e, 2);
        break;
    default:
        pool(p, e, 3);
    }
}

void IN(qkv_add_leg)(real *sums, real *earlier, const real *factor, ptrdiff_t d, bool last)
{
    for (int v = 0; v < QKV_LANES; v += QKV_VEC)
        for (ptrdiff_t x = v; x < d * QKV_LANES; x += QKV_LANES) {
            vec all = load(earlier + x) * load(factor + v) + load(sums + x);
            store(earlier + x, all);
            store(sums + x, last ? all : splat(0));
        }
}

/* Rows j .. j + m - 1. */
INLINE void weigh_rows(const FN(qkv_block) *t, const FN(qkv_exponents) *e, int j, const int m,
                       const int d, const int nv, const vec from[QKV_VECTORS], vec sum[QKV_VECTORS],
                       vec o[2][QKV_VECTORS])
{
    vec w[2 * QKV_VECTORS];
    UNROLL
    for (int i = 0; i < m * nv; i++)
        w[i] = load(e->x + (j + i / nv) * QKV_LANES + i % nv * QKV_VEC) - from[i % nv];
    exp2_weights(w, m * nv, exp_table);
    UNROLL
    for (int i = 0; i < m * nv; i++) {
        const real *v = t->v.data + (j + i / nv) * t->v.stride;
        sum[i % nv] += w[i];
        UNROLL
        for (int c = 0; c < d; c++) o[c][i % nv] += w[i] * v[c];
    }
}

/* Exponents become weights that are pooled at once and never stored: for values of one or two
 * numbers, whose product alone would keep nothing busy. */
INLINE void weigh_and_pool(FN(qkv_block) *t, FN(qkv_exponents) *e, const int d, const int nv)
{
    vec from[QKV_VECTORS], sum[QKV_VECTORS], o[2][QKV_VECTORS];
    UNROLL
    for (int x = 0; x < nv; x++) {
        from[x] = load(e->from + x * QKV_VEC);
        sum[x] = o[0][x] = o[1][x] = splat(0);
    }
    int j = 0;
    for (; j + 2 <= t->n_k; j += 2) weigh_rows(t, e, j, 2, d, nv, from, sum, o);
    if (j < t->n_k) weigh_rows(t, e, j, 1, d, nv, from, sum, o);
    UNROLL
    for (int x = 0; x < nv; x++) {
        int at = x * QKV_VEC;
        store(e->sum + at, sum[x]);
        UNROLL
        for (int c = 0; c < d; c++) {
            real *to = t->o + c * QKV_LANES + at;
            store(to, load(to) * load(t->rescale + at) + o[c][x]);
        }
    }
}

void IN(qkv_pool_narrow)(FN(qkv_block) *t, FN(qkv_exponents) *e)
{
    switch ((t->in->a.d_v - 1) * 3 + t->vectors - 1) {
    case 0:
        weigh_and_pool(t, e, 1, 1);
        break;
    case 1:
        weigh_and_pool(t, e, 1, 2);
        break;
    case 2:
        weigh_and_pool(t, e, 1, 3);
        break;
    case 3:
        weigh_and_pool(t, e, 2, 1);
        break;
    case 4:
        weigh_and_pool(t, e, 2, 2);
        break;
    default:
        weigh_and_pool(t, e, 2, 3);
    }
}
