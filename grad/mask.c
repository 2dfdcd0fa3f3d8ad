/* mask.c - mirror of src/mask.c: the bias is added, so its gradient is that of the exponent, and 0
 * where hidden. */
#include "grad/tile.h"

void IN(qkv_slopes_backward)(const FN(qkv_grad_block) *g)
{
    const FN(qkv_block) *t = &g->t;
    real lanes[QKV_LANES] = {0}, sum = 0;
    for (int j = 0; j < t->n_k; j++) {
        real distance = IN(qkv_distance_of)(t, j);
        const real *db = g->db + j * QKV_LANES;
        for (int i = 0; i < QKV_LANES; i++) lanes[i] += db[i] * (distance - (real)i);
    }
    for (int i = 0; i < t->n_q; i++) sum += lanes[i];
    g->partial[IN(qkv_at_slopes)(&t->in->a)] += sum;
}

/* r[m] = the sum of db over the m-th diagonal, from the last key and the first query on. The sums
 * of QKV_LANES diagonals move through registers, one lane on with each key: in memory they would
 * wait for each other (of forward and backward 5 %). */
static void sum_diagonals(const FN(qkv_block) *t, const real *db, real r[QKV_SEGMENT])
{
    vec sum[QKV_VECTORS] = {{0}};
    ivec used[QKV_VECTORS];
    for (int i = 0; i < QKV_LANES; i++) used[i / QKV_VEC][i % QKV_VEC] = i < t->n_q ? -1 : 0;
    for (int j = t->n_k - 1; j >= 0; j--, r++) {
        UNROLL
        for (int v = 0; v < QKV_VECTORS; v++)
            sum[v] += choose(used[v], load(db + j * QKV_LANES + v * QKV_VEC), splat(0));
        store_any(r, sum[0]); /* lane 0 is complete; the others are written again */
        UNROLL
        for (int v = 0; v < QKV_VECTORS; v++)
            sum[v] = one_lane_on(sum[v], v + 1 < QKV_VECTORS ? sum[v + 1] : splat(0));
    }
    UNROLL
    for (int v = 0; v < QKV_VECTORS; v++) store_any(r + v * QKV_VEC, sum[v]);
}

void IN(qkv_relative_backward)(const FN(qkv_block) *t, const real *db, real *table)
{
    real r[QKV_SEGMENT];
    ptrdiff_t last = qkv_relative_size(&t->in->a) - 1;
    int n = t->n_k + t->n_q - 1;
    IN(qkv_diagonals) d = IN(qkv_diagonals_of)(t, n);
    sum_diagonals(t, db, r);
    table[last] += sum_of(r, d.last);
    for (int m = d.last; m < d.first; m++) table[d.at - m] += r[m];
    table[0] += sum_of(r + d.first, n - d.first);
}

void IN(qkv_relative_add)(const FN(qkv_view) *to, const FN(qkv_block) *t, const real *table)
{
    real *x = FN(qkv_at)(to, t->batch, t->head, 0);
    for (ptrdiff_t e = 0; e < qkv_relative_size(&t->in->a); e++) x[e * to->stride[3]] += table[e];
}

void IN(qkv_mask_backward)(const FN(qkv_grad_block) *g)
{
    const FN(qkv_block) *t = &g->t;
    const FN(qkv_view) *to = &g->to->bias;
    real ones[QKV_LANES] __attribute__((aligned(QKV_VECTOR_BYTES)));
    for (int i = 0; i < QKV_LANES; i++) ones[i] = 1;
    real *bias = FN(qkv_at)(to, t->batch, t->head, t->q0) + t->k0 * to->stride[3];
    IN(qkv_from_lanes)(bias, to->stride[2], to->stride[3], t->n_q, t->n_k, g->db, ones, true);
}
