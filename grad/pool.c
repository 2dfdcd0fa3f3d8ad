/* pool.c - mirror of src/pool.c: o = sum_j w_j v_j. */
#include "grad/tile.h"

/* dw[j][i] = sum_c v[j][c] d_o[c][i]. A hidden pair may get NaN here; normalize.c drops it. */
static void weights(FN(qkv_grad_block) *g)
{
    const FN(qkv_block) *t = &g->t;
    for (int j = 0; j < t->n_k; j++) {
        const real *v = t->v.data + j * t->v.stride;
        real sum[QKV_LANES] = {0};
        for (ptrdiff_t c = 0; c < t->in->a.d_v; c++)
            for (int i = 0; i < QKV_LANES; i++) sum[i] += v[c] * g->d_o[c * QKV_LANES + i];
        memcpy(g->dw + j * QKV_LANES, sum, sizeof sum);
    }
}

void FN(qkv_outer)(const FN(qkv_block) *t, const real *p, const real *rows, bool rows_finite,
                   ptrdiff_t d, real *dx)
{
    bool all = t->coverage == QKV_SEES_ALL || rows_finite;
    if (d == 0) return;
    memset(dx, 0, sizeof(real) * (size_t)(t->n_k * d));
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < t->n_q; i++) {
            if (!all && !FN(qkv_pair)(t, j, i)) continue; /* 0 times a hidden NaN would be NaN */
            real x = p[j * QKV_LANES + i];
            for (ptrdiff_t c = 0; c < d; c++) dx[j * d + c] += x * rows[i * d + c];
        }
}

void FN(qkv_pool_backward)(FN(qkv_grad_block) *g)
{
    const FN(qkv_block) *t = &g->t;
    weights(g);
    if (g->to->v.data) FN(qkv_outer)(t, t->w, g->d_o_rows, g->d_o_finite, t->in->a.d_v, g->dv);
}
