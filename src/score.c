/* score.c - first stage: how well does each key of the tile fit each query of the block? */
#include "tile.h"

/* s[j][i] = sum_c k[j][c] q[c][i]. */
static void dot(FN(qkv_block) *t)
{
    ptrdiff_t d = t->in->a.d_k;
    for (int j = 0; j < t->n_k; j++) {
        const real *k = t->k.data + j * t->k.stride;
        real sum[QKV_LANES] = {0};
        for (ptrdiff_t c = 0; c < d; c++)
            for (int i = 0; i < QKV_LANES; i++) sum[i] += k[c] * t->q[c * QKV_LANES + i];
        memcpy(t->s + j * QKV_LANES, sum, sizeof sum);
    }
}

/* s[j][i] = -1/2 sum_c ((q[c][i] - k[j][c]) / h[c])^2. Differences first: |q|^2 - 2 q'k + |k|^2
 * would cancel for keys with a large common offset. */
static void gaussian(FN(qkv_block) *t)
{
    ptrdiff_t d = t->in->a.d_k;
    for (int j = 0; j < t->n_k; j++) {
        const real *k = t->k.data + j * t->k.stride;
        real sum[QKV_LANES] = {0};
        for (ptrdiff_t c = 0; c < d; c++)
            for (int i = 0; i < QKV_LANES; i++) {
                real u = (t->q[c * QKV_LANES + i] - k[c]) * t->inverse_bandwidth[c];
                sum[i] += u * u;
            }
        for (int i = 0; i < QKV_LANES; i++) t->s[j * QKV_LANES + i] = sum[i] * (real)-0.5;
    }
}

void FN(qkv_score_tile)(FN(qkv_block) *t)
{
    if (t->in->a.score == QKV_SCORE_GAUSSIAN)
        gaussian(t);
    else
        dot(t);
    if (t->scale == 1) return;
    for (int x = 0; x < t->n_k * QKV_LANES; x++) t->s[x] *= t->scale;
}
