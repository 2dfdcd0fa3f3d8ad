/* covariance.c - Cov_p[v, k] under the weights p of each query, in one pass over the keys.
 *
 * Each tile's means and centred co-moment are merged into those of the tiles before (Chan, Golub &
 * LeVeque 1983, eq. 2.1; weighted as in Pebay 2008):
 *
 *     C = C_a + C_b + (v_b - v_a)(k_b - k_a)' W_a W_b / (W_a + W_b)
 *
 * Means are taken relative to the tile's first seen key, so that one key, or a common offset, costs
 * no digit. */
#include "kernels.h"
#include "tile.h"
#include "workspace.h"

/* The moments so far of one query. */
typedef struct moments {
    real *v, *k; /* means */
    real *c;     /* d_v x d_k, the sum of w (v - mean v)(k - mean k)' */
} moments;

typedef struct covariance_block {
    FN(qkv_block) t;
    real *lanes;           /* QKV_LANES times (d_v + d_k + d_v * d_k): the moments of each query */
    real *tile_v, *tile_k; /* the means of a tile */
} covariance_block;

static size_t moments_size(const qkv_attention *a)
{
    return (size_t)(a->d_v + a->d_k + a->d_v * a->d_k);
}

static size_t layout(covariance_block *x, const qkv_attention *a, void *memory)
{
    size_t forward = IN(qkv_blocks_layout)(&x->t, 1, a, memory), matrix = sizeof(real);
    bool fits = qkv_size_mul(&matrix, a->d_v) && qkv_size_mul(&matrix, a->d_k);
    if (forward == SIZE_MAX || !fits || matrix > PTRDIFF_MAX) return SIZE_MAX;
    qkv_cursor c = {.base = memory, .used = forward};
    x->lanes = qkv_take(&c, sizeof(real), (ptrdiff_t)moments_size(a), QKV_LANES);
    x->tile_v = qkv_take(&c, sizeof(real), a->d_v, 1);
    x->tile_k = qkv_take(&c, sizeof(real), a->d_k, 1);
    return c.overflow ? SIZE_MAX : c.used;
}

size_t IN(qkv_covariance_share)(const qkv_attention *a)
{
    covariance_block x;
    return layout(&x, a, NULL);
}

static moments moments_of(const covariance_block *x, int i)
{
    const qkv_attention *a = &x->t.in->a;
    real *v = x->lanes + (size_t)i * moments_size(a);
    return (moments){.v = v, .k = v + a->d_v, .c = v + a->d_v + a->d_k};
}

/* Weighted mean of rows over the tile, around its first seen row. */
static void tile_mean(const FN(qkv_block) *t, int i, const FN(qkv_rows) *rows, ptrdiff_t d,
                      real weight, real *mean)
{
    int first = 0;
    while (!FN(qkv_pair)(t, first, i)) first++;
    const real *origin = rows->data + first * rows->stride;
    for (ptrdiff_t c = 0; c < d; c++) mean[c] = 0;
    for (int j = first; j < t->n_k; j++) {
        if (!FN(qkv_pair)(t, j, i)) continue;
        const real *row = rows->data + j * rows->stride;
        for (ptrdiff_t c = 0; c < d; c++) mean[c] += t->w[j * QKV_LANES + i] * (row[c] - origin[c]);
    }
    for (ptrdiff_t c = 0; c < d; c++) mean[c] = origin[c] + mean[c] / weight;
}

/* c += sum_j w_j (v_j - mean v)(k_j - mean k)' over the tile. */
static void add_centred(covariance_block *x, int i, real *c)
{
    const FN(qkv_block) *t = &x->t;
    ptrdiff_t d_v = t->in->a.d_v, d_k = t->in->a.d_k;
    for (int j = 0; j < t->n_k; j++) {
        if (!FN(qkv_pair)(t, j, i)) continue;
        const real *v = t->v.data + j * t->v.stride, *k = t->k.data + j * t->k.stride;
        for (ptrdiff_t m = 0; m < d_v; m++) {
            real wv = t->w[j * QKV_LANES + i] * (v[m] - x->tile_v[m]);
            for (ptrdiff_t n = 0; n < d_k; n++) c[m * d_k + n] += wv * (k[n] - x->tile_k[n]);
        }
    }
}

/* The tile's moments of query i join m. */
static void merge(covariance_block *x, int i, real *weight)
{
    const FN(qkv_block) *t = &x->t;
    ptrdiff_t d_v = t->in->a.d_v, d_k = t->in->a.d_k;
    moments m = moments_of(x, i);
    real old = *weight * t->rescale[i], added = 0;
    for (int j = 0; j < t->n_k; j++) added += t->w[j * QKV_LANES + i];
    *weight = old + added;
    if (t->rescale[i] != 1)
        for (ptrdiff_t n = 0; n < d_v * d_k; n++) m.c[n] *= t->rescale[i];
    if (added == 0) return;
    tile_mean(t, i, &t->v, d_v, added, x->tile_v);
    tile_mean(t, i, &t->k, d_k, added, x->tile_k);
    add_centred(x, i, m.c);
    real share = old == 0 ? 1 : added / *weight;
    for (ptrdiff_t r = 0; r < d_v && old != 0; r++)
        for (ptrdiff_t n = 0; n < d_k; n++)
            m.c[r * d_k + n] += (x->tile_v[r] - m.v[r]) * (x->tile_k[n] - m.k[n]) * old * share;
    for (ptrdiff_t r = 0; r < d_v; r++)
        m.v[r] = old == 0 ? x->tile_v[r] : m.v[r] + (x->tile_v[r] - m.v[r]) * share;
    for (ptrdiff_t n = 0; n < d_k; n++)
        m.k[n] = old == 0 ? x->tile_k[n] : m.k[n] + (x->tile_k[n] - m.k[n]) * share;
}

/* One block; returns how many of its rows see keys but have no weight: they are NaN, as 0 / 0. */
static ptrdiff_t covariance(covariance_block *x, const FN(qkv_view) *to)
{
    FN(qkv_block) *t = &x->t;
    const qkv_attention *a = &t->in->a;
    real weight[QKV_LANES] = {0};
    memset(x->lanes, 0, sizeof(real) * moments_size(a) * QKV_LANES);
    IN(qkv_block_scan)(t, QKV_KEYS);
    IN(qkv_span) span = IN(qkv_mask_span)(t);
    ptrdiff_t empty = 0;
    for (ptrdiff_t k0 = span.first / QKV_KEYS * QKV_KEYS; k0 < span.end; k0 += QKV_KEYS) {
        if (!IN(qkv_block_tile)(t, k0, QKV_KEYS)) continue;
        IN(qkv_normalize_online)(t);
        IN(qkv_block_keys)(t); /* the cosine has made them unit vectors */
        for (int i = 0; i < t->n_q; i++) merge(x, i, &weight[i]);
    }
    for (int i = 0; i < t->n_q; i++) {
        real *row = FN(qkv_at)(to, t->batch, t->head, t->q0 + i);
        const real *c = moments_of(x, i).c;
        empty += t->any[i] != 0 && weight[i] == 0;
        for (ptrdiff_t n = 0; n < a->d_v * a->d_k; n++)
            row[n * to->stride[3]] = t->any[i] == 0 ? 0 : c[n] / weight[i];
    }
    return empty;
}

typedef struct job {
    const FN(qkv_inputs) *in;
    const FN(qkv_view) *to;
    ptrdiff_t taken, empty;
} job;

static void run(void *context, void *memory)
{
    job *y = context;
    const qkv_attention *a = &y->in->a;
    ptrdiff_t blocks = IN(qkv_blocks_of)(a), work = a->batch * a->heads * blocks, empty = 0;
    covariance_block x = {.t.in = y->in};
    layout(&x, a, memory);
    for (ptrdiff_t i; (i = qkv_team_take(&y->taken)) < work;) {
        ptrdiff_t row = i / blocks;
        IN(qkv_block_begin)(&x.t, row / a->heads, row % a->heads, i % blocks);
        empty += covariance(&x, y->to);
    }
    __atomic_fetch_add(&y->empty, empty, __ATOMIC_RELAXED);
}

ptrdiff_t IN(qkv_covariance)(const FN(qkv_inputs) *in, const FN(qkv_view) *to, const qkv_team *team)
{
    job x = {.in = in, .to = to};
    qkv_team_run(team, team->threads, run, &x);
    return x.empty;
}
