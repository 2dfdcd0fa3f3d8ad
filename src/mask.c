/* mask.c - second stage: which keys of the tile may each query of the block see at all? The bias
 * belongs here, since -inf hides a key. */
#include "tile.h"

static ptrdiff_t between(ptrdiff_t lower, ptrdiff_t x, ptrdiff_t upper)
{
    return x < lower ? lower : smaller(x, upper);
}

ptrdiff_t IN(qkv_causal_last)(const qkv_attention *a, ptrdiff_t query)
{
    return a->mask.causal ? between(0, query + 1 + a->mask.causal_offset, a->n_k) : a->n_k;
}

ptrdiff_t IN(qkv_mask_last)(const FN(qkv_block) *t)
{
    return IN(qkv_causal_last)(&t->in->a, t->q0 + t->n_q - 1);
}

/* Every pair of the tile is seen, by the rules alone. */
static bool rules_hide_nothing(const FN(qkv_block) *t)
{
    const qkv_mask *m = &t->in->a.mask;
    bool causal = m->causal && t->k0 + t->n_k - 1 > t->q0 + m->causal_offset;
    bool diagonal = m->leave_one_out && t->k0 < t->q0 + t->n_q && t->q0 < t->k0 + t->n_k;
    return !causal && !diagonal;
}

static void apply_rules(FN(qkv_block) *t)
{
    const qkv_mask *m = &t->in->a.mask;
    for (int j = 0; j < t->n_k; j++) {
        uint8_t *seen = t->seen + j * QKV_LANES;
        ptrdiff_t own = t->k0 + j - t->q0; /* the lane of the query with the key's number */
        ptrdiff_t first = m->causal ? between(0, own - m->causal_offset, QKV_LANES) : 0;
        memset(seen, 0, (size_t)first);
        memset(seen + first, 1, (size_t)(QKV_LANES - first));
        if (m->leave_one_out && own >= 0 && own < QKV_LANES) seen[own] = 0;
    }
}

static void apply_boolean(FN(qkv_block) *t)
{
    const qkv_slot_bool *mask = &t->in->mask;
    const uint8_t *m = mask->data + t->batch * mask->stride[0] + t->head * mask->stride[1] +
                       t->q0 * mask->stride[2] + t->k0 * mask->stride[3];
    for (int i = 0; i < t->n_q; i++)
        for (int j = 0; j < t->n_k; j++)
            if (!m[i * mask->stride[2] + j * mask->stride[3]]) t->seen[j * QKV_LANES + i] = 0;
}

/* Times log2(e); of a finite number a finite one. */
static real in_base_2(real x)
{
    real y = x * (real)LOG2E;
    if (fabs(x) > REAL_MAX) return y;
    return y > REAL_MAX ? REAL_MAX : y < -REAL_MAX ? -REAL_MAX : y;
}

/* Loads the bias into b, 0 in the unused lanes; true if some of it is -inf. */
static bool load_bias(FN(qkv_block) *t)
{
    const FN(qkv_view) *bias = &t->in->bias;
    const real *x = FN(qkv_at)(bias, t->batch, t->head, t->q0) + t->k0 * bias->stride[3];
    IN(qkv_to_lanes)(t->b, x, bias->stride[2], bias->stride[3], t->n_q, t->n_k, QKV_VECTORS, 1);
    bool hides = false;
    for (int y = 0; y < t->n_k * QKV_LANES; y++) {
        hides |= t->b[y] == (real)-INFINITY;
        if (t->base_2) t->b[y] = in_base_2(t->b[y]);
    }
    return hides;
}

static qkv_coverage count_seen(const FN(qkv_block) *t)
{
    int seen = 0;
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < t->n_q; i++) seen += t->seen[j * QKV_LANES + i];
    return seen == 0 ? QKV_SEES_NONE : seen == t->n_q * t->n_k ? QKV_SEES_ALL : QKV_SEES_SOME;
}

void IN(qkv_mask_tile)(FN(qkv_block) *t)
{
    bool bias_hides = t->in->bias.data && load_bias(t);
    if (rules_hide_nothing(t) && !t->in->mask.data && !bias_hides) {
        t->coverage = QKV_SEES_ALL;
        return;
    }
    apply_rules(t);
    if (t->in->mask.data) apply_boolean(t);
    if (bias_hides)
        for (int x = 0; x < t->n_k * QKV_LANES; x++)
            if (t->b[x] == (real)-INFINITY) t->seen[x] = 0;
    t->coverage = count_seen(t);
}
