/* score.c - mirror of src/score.c: ds, 0 at every hidden pair, becomes dq, dk, dscale, dbandwidth.
 *
 *   dot       s = scale q'k
 *             dq = scale sum_j ds_j k_j
 *             dk = scale sum_i ds_i q_i
 *   gaussian  s = -scale / 2 sum_c (z_c / h_c)^2, z = q - k
 *             dq_c = -scale sum_j ds_j z_c / h_c^2
 *             dk_c = scale sum_i ds_i z_c / h_c^2
 *             dh_c = scale sum ds z_c^2 / h_c^3
 *   both      dscale = sum ds a, with a the score at scale 1
 *
 * A hidden pair takes no part even if its query or key is NaN, hence the pairs are asked where a
 * tile is partly hidden. */
#include "grad/tile.h"

/* dq[c][i] += scale sum_j ds[j][i] k[j][c]. */
static void dot_queries(FN(qkv_grad_block) *g)
{
    const FN(qkv_block) *t = &g->t;
    ptrdiff_t d = t->in->a.d_k;
    bool all = t->coverage == QKV_SEES_ALL || FN(qkv_rows_finite)(&t->k, t->n_k, d);
    for (ptrdiff_t c = 0; c < d; c++) {
        real sum[QKV_LANES] = {0};
        for (int j = 0; j < t->n_k; j++) {
            real k = t->k.data[j * t->k.stride + c];
            const real *ds = g->ds + j * QKV_LANES;
            if (all) {
                for (int i = 0; i < QKV_LANES; i++) sum[i] += ds[i] * k;
            } else {
                for (int i = 0; i < QKV_LANES; i++)
                    if (FN(qkv_pair)(t, j, i)) sum[i] += ds[i] * k;
            }
        }
        for (int i = 0; i < QKV_LANES; i++) g->dq[c * QKV_LANES + i] += t->scale * sum[i];
    }
}

static void dot_keys(FN(qkv_grad_block) *g)
{
    const FN(qkv_block) *t = &g->t;
    FN(qkv_outer)(t, g->ds, g->q_rows, g->q_finite, t->in->a.d_k, g->dk);
    for (ptrdiff_t x = 0; x < t->n_k * t->in->a.d_k; x++) g->dk[x] *= t->scale;
}

/* u = (q - k) / h of one coordinate of one key, 0 at hidden pairs. */
static void distances(const FN(qkv_block) *t, int j, ptrdiff_t c, real *u)
{
    real k = t->k.data[j * t->k.stride + c], inverse = t->inverse_bandwidth[c];
    const real *q = t->q + c * QKV_LANES;
    for (int i = 0; i < QKV_LANES; i++) u[i] = (q[i] - k) * inverse;
    if (t->coverage == QKV_SEES_ALL) return;
    for (int i = 0; i < QKV_LANES; i++)
        if (!FN(qkv_pair)(t, j, i)) u[i] = 0;
}

/* One coordinate of a tile: its dq and dk; returns the gradient of its bandwidth. */
static real gaussian_coordinate(FN(qkv_grad_block) *g, ptrdiff_t c)
{
    const FN(qkv_block) *t = &g->t;
    real inverse = t->inverse_bandwidth[c], total = 0;
    real dq[QKV_LANES] = {0}, dh[QKV_LANES] = {0};
    for (int j = 0; j < t->n_k; j++) {
        real u[QKV_LANES], slope[QKV_LANES], dk = 0;
        distances(t, j, c, u);
        for (int i = 0; i < QKV_LANES; i++) {
            slope[i] = t->scale * g->ds[j * QKV_LANES + i] * u[i];
            dq[i] -= slope[i];
            dh[i] += slope[i] * u[i];
        }
        for (int i = 0; i < t->n_q; i++) dk += slope[i];
        g->dk[j * t->in->a.d_k + c] = dk * inverse;
    }
    for (int i = 0; i < QKV_LANES; i++) g->dq[c * QKV_LANES + i] += dq[i] * inverse;
    for (int i = 0; i < t->n_q; i++) total += dh[i];
    return total * inverse;
}

static void gaussian(FN(qkv_grad_block) *g)
{
    const qkv_attention *a = &g->t.in->a;
    for (ptrdiff_t c = 0; c < a->d_k; c++)
        g->partial[1 + (a->bandwidths > 1 ? c : 0)] += gaussian_coordinate(g, c);
}

/* sum ds a. The tile's s is not needed any more, so it becomes a. */
static real scale_gradient(FN(qkv_grad_block) *g)
{
    FN(qkv_block) *t = &g->t;
    real scale = t->scale, sum = 0;
    t->scale = 1;
    FN(qkv_score_tile)(t);
    t->scale = scale;
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < t->n_q; i++)
            if (FN(qkv_pair)(t, j, i)) sum += g->ds[j * QKV_LANES + i] * t->s[j * QKV_LANES + i];
    return sum;
}

void FN(qkv_score_backward)(FN(qkv_grad_block) *g)
{
    if (g->t.in->a.score == QKV_SCORE_GAUSSIAN) {
        gaussian(g);
    } else {
        if (g->to->q.data) dot_queries(g);
        if (g->to->k.data) dot_keys(g);
    }
    if (g->to->scale.data) g->partial[0] += scale_gradient(g);
}
