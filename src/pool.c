/* pool.c - fourth stage: the weighted sum of the values. */
#include "tile.h"

bool FN(qkv_rows_finite)(const FN(qkv_rows) *rows, int n, ptrdiff_t d)
{
    for (int j = 0; j < n; j++)
        for (ptrdiff_t c = 0; c < d; c++)
            if (!isfinite(rows->data[j * rows->stride + c])) return false;
    return true;
}

static void rescale(FN(qkv_block) *t)
{
    bool all_one = true;
    for (int i = 0; i < QKV_LANES; i++) all_one = all_one && t->rescale[i] == 1;
    if (all_one) return;
    for (ptrdiff_t c = 0; c < t->in->a.d_v; c++)
        for (int i = 0; i < QKV_LANES; i++) t->o[c * QKV_LANES + i] *= t->rescale[i];
}

/* o[c][i] += sum_j w[j][i] v[j][c], four columns at a time so that a weight is loaded once for
 * four. */
static void pool(FN(qkv_block) *t, ptrdiff_t c, int columns)
{
    real sum[4][QKV_LANES] = {{0}};
    for (int j = 0; j < t->n_k; j++) {
        const real *v = t->v.data + j * t->v.stride + c;
        const real *w = t->w + j * QKV_LANES;
        for (int m = 0; m < columns; m++)
            for (int i = 0; i < QKV_LANES; i++) sum[m][i] += w[i] * v[m];
    }
    for (int m = 0; m < columns; m++)
        for (int i = 0; i < QKV_LANES; i++) t->o[(c + m) * QKV_LANES + i] += sum[m][i];
}

/* The same sum over the seen pairs only: 0 times a hidden NaN would be NaN. A hard choice hides all
 * but the winner. */
static void pool_seen(FN(qkv_block) *t)
{
    bool hard = t->in->a.normalize == QKV_HARD;
    for (ptrdiff_t c = 0; c < t->in->a.d_v; c++)
        for (int i = 0; i < QKV_LANES; i++) {
            real sum = 0;
            for (int j = 0; j < t->n_k; j++) {
                int x = j * QKV_LANES + i;
                bool seen = FN(qkv_pair)(t, j, i);
                if (seen && !(hard && t->w[x] == 0))
                    sum += t->w[x] * t->v.data[j * t->v.stride + c];
            }
            t->o[c * QKV_LANES + i] += sum;
        }
}

void FN(qkv_pool_tile)(FN(qkv_block) *t)
{
    ptrdiff_t d = t->in->a.d_v, c = 0;
    rescale(t);
    bool partial = t->coverage == QKV_SEES_SOME || t->in->a.normalize == QKV_HARD;
    if (partial && !FN(qkv_rows_finite)(&t->v, t->n_k, d)) {
        pool_seen(t);
        return;
    }
    for (; c + 4 <= d; c += 4) pool(t, c, 4);
    for (; c < d; c++) pool(t, c, 1);
}
