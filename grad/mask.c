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

void IN(qkv_relative_backward)(const FN(qkv_block) *t, const real *db, real *table)
{
    real r[QKV_SEGMENT] = {0};
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < t->n_q; i++) r[t->n_k - 1 - j + i] += db[j * QKV_LANES + i];
    for (int m = 0; m < t->n_k + t->n_q - 1; m++) table[IN(qkv_relative_entry)(t, m)] += r[m];
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
    if (!to->data) return;
    for (int i = 0; i < QKV_LANES; i++) ones[i] = 1;
    real *bias = FN(qkv_at)(to, t->batch, t->head, t->q0) + t->k0 * to->stride[3];
    IN(qkv_from_lanes)(bias, to->stride[2], to->stride[3], t->n_q, t->n_k, g->db, ones, true);
}
