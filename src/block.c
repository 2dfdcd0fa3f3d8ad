/* block.c - a block of queries is loaded, and walks from tile to tile: the loop's own parts, the
 * same forward, backward and for the covariance. */
#include "tile.h"
#include "workspace.h"

size_t FN(qkv_block_layout)(FN(qkv_block) *t, const qkv_attention *a, void *memory)
{
    qkv_cursor c = {.base = memory};
    const size_t r = sizeof(real);
    t->inverse_bandwidth = qkv_take(&c, r, a->d_k, 1);
    t->q = qkv_take(&c, r, a->d_k, QKV_LANES);
    t->k.packed = qkv_take(&c, r, a->d_k, QKV_KEYS);
    t->v.packed = qkv_take(&c, r, a->d_v, QKV_KEYS);
    t->seen = qkv_take(&c, 1, QKV_TILE, 1);
    t->s = qkv_take(&c, r, QKV_TILE, 1);
    t->b = qkv_take(&c, r, QKV_TILE, 1);
    t->w = qkv_take(&c, r, QKV_TILE, 1);
    t->max = qkv_take(&c, r, QKV_LANES, 1);
    t->sum = qkv_take(&c, r, QKV_LANES, 1);
    t->log_sum = qkv_take(&c, r, QKV_LANES, 1);
    t->rescale = qkv_take(&c, r, QKV_LANES, 1);
    t->any = qkv_take(&c, r, QKV_LANES, 1);
    t->best = qkv_take(&c, r, QKV_LANES, 1);
    t->winner = qkv_take(&c, sizeof *t->winner, QKV_LANES, 1);
    t->o = qkv_take(&c, r, a->d_v, QKV_LANES);
    return c.overflow ? SIZE_MAX : c.used;
}

void FN(qkv_load_lanes)(real *to, const FN(qkv_view) *from, const FN(qkv_block) *t, ptrdiff_t d)
{
    const real *x = FN(qkv_at)(from, t->batch, t->head, t->q0);
    memset(to, 0, sizeof(real) * (size_t)d * QKV_LANES);
    for (int i = 0; i < t->n_q; i++)
        for (ptrdiff_t c = 0; c < d; c++)
            to[c * QKV_LANES + i] = x[i * from->stride[2] + c * from->stride[3]];
}

static real scale_of(const FN(qkv_block) *t)
{
    const qkv_attention *a = &t->in->a;
    if (t->in->scale.data) return *FN(qkv_at)(&t->in->scale, t->batch, t->head, 0);
    return a->score == QKV_SCORE_SCALED_DOT ? 1 / sqrt((real)a->d_k) : 1;
}

static void load_bandwidth(FN(qkv_block) *t)
{
    const FN(qkv_view) *h = &t->in->bandwidth;
    const real *x = h->data ? FN(qkv_at)(h, t->batch, t->head, 0) : NULL;
    ptrdiff_t step = t->in->a.bandwidths > 1 ? h->stride[3] : 0;
    for (ptrdiff_t c = 0; c < t->in->a.d_k; c++) t->inverse_bandwidth[c] = x ? 1 / x[c * step] : 1;
}

void FN(qkv_block_begin)(FN(qkv_block) *t, ptrdiff_t batch, ptrdiff_t head, ptrdiff_t q0)
{
    const qkv_attention *a = &t->in->a;
    t->batch = batch;
    t->head = head;
    t->kv_head = head / (a->heads / a->kv_heads);
    t->q0 = q0;
    t->n_q = a->n_q - q0 < QKV_LANES ? (int)(a->n_q - q0) : QKV_LANES;
    t->scale = scale_of(t);
    if (a->score == QKV_SCORE_GAUSSIAN) load_bandwidth(t);
    if (a->d_k) FN(qkv_load_lanes)(t->q, &t->in->q, t, a->d_k);
    FN(qkv_normalize_begin)(t);
}

/* Rows in place where their columns are neighbours, packed otherwise: the bits are the same. */
static void load_rows(FN(qkv_rows) *rows, const FN(qkv_view) *from, const FN(qkv_block) *t,
                      ptrdiff_t d)
{
    if (d == 0) return;
    const real *x = FN(qkv_at)(from, t->batch, t->kv_head, t->k0);
    rows->data = x;
    rows->stride = from->stride[2];
    if (from->stride[3] == 1 || d == 1) return;
    for (int j = 0; j < t->n_k; j++)
        for (ptrdiff_t c = 0; c < d; c++)
            rows->packed[j * d + c] = x[j * from->stride[2] + c * from->stride[3]];
    rows->data = rows->packed;
    rows->stride = d;
}

bool FN(qkv_block_tile)(FN(qkv_block) *t, ptrdiff_t k0)
{
    const qkv_attention *a = &t->in->a;
    t->k0 = k0;
    t->n_k = a->n_k - k0 < QKV_KEYS ? (int)(a->n_k - k0) : QKV_KEYS;
    FN(qkv_mask_tile)(t);
    if (t->coverage == QKV_SEES_NONE) return false;
    load_rows(&t->k, &t->in->k, t, a->d_k);
    load_rows(&t->v, &t->in->v, t, a->d_v);
    if (a->normalize != QKV_UNIFORM) FN(qkv_score_tile)(t);
    return true;
}

void FN(qkv_block_scan)(FN(qkv_block) *t)
{
    if (!qkv_needs_scan(&t->in->a)) return;
    ptrdiff_t last = FN(qkv_mask_last)(t);
    for (ptrdiff_t k0 = 0; k0 < last; k0 += QKV_KEYS)
        if (FN(qkv_block_tile)(t, k0)) FN(qkv_normalize_scan)(t);
}
