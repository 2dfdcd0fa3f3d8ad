/* block.c - blocks of queries are loaded, and walk from tile to tile: the loop's own parts, the
 * same forward, backward and for the covariance. */
#include "simd/exp.h"
#include "tile.h"
#include "workspace.h"

/* Row i of those that were taken together: many small pieces take longer to cut than a small
 * problem to solve. */
static real *row_of(real *rows, int i)
{
    return rows ? rows + i * QKV_LANES : NULL;
}

static ptrdiff_t earlier_rows(const qkv_attention *a)
{
    return a->d_k > a->d_v ? a->d_k : a->d_v;
}

static void legs_layout(FN(qkv_block) *t, qkv_cursor *c, const qkv_attention *a)
{
    t->earlier = qkv_take(c, sizeof(real), earlier_rows(a), QKV_LANES);
    real *rows = qkv_take(c, sizeof(real), 2, QKV_LANES);
    t->earlier_sum = row_of(rows, 0);
    t->earlier_max = row_of(rows, 1);
}

void IN(qkv_legs_begin)(FN(qkv_block) *t, IN(qkv_span) keys)
{
    ptrdiff_t d = earlier_rows(&t->in->a);
    t->legs = keys.first < keys.end && keys.first / QKV_LEG < (keys.end - 1) / QKV_LEG;
    if (t->legs) memset(t->earlier, 0, sizeof(real) * (size_t)d * QKV_LANES);
}

static void rows_layout(FN(qkv_block) *t, qkv_cursor *c)
{
    enum { ROWS = 7 };
    real *rows = qkv_take(c, sizeof(real), QKV_LANES, ROWS);
    real **const to[ROWS] = {&t->max,  &t->sum,       &t->log_sum,  &t->any,
                             &t->best, &t->threshold, &t->q_inverse};
    for (int i = 0; i < ROWS; i++) *to[i] = row_of(rows, i);
    t->winner = qkv_take(c, sizeof *t->winner, QKV_LANES, 1);
}

size_t IN(qkv_blocks_layout)(FN(qkv_block) *t, int blocks, const qkv_attention *a, void *memory)
{
    qkv_cursor c = {.base = memory};
    const size_t r = sizeof(real);
    ptrdiff_t keys = IN(qkv_keys_of)(a);
    bool dot = qkv_is_dot(a);
    t->parameters = dot ? NULL : qkv_take(&c, r, a->bandwidths, 1);
    t->inverse_bandwidth = dot ? NULL : qkv_take(&c, r, a->d_k, 1);
    t->score_bandwidth = dot ? NULL : qkv_take(&c, r, a->d_k, 1);
    t->k_inverse = a->score == QKV_SCORE_COSINE ? qkv_take(&c, r, keys, 1) : NULL;
    t->k.packed = qkv_take(&c, r, a->d_k, keys);
    t->v.packed = qkv_take(&c, r, a->d_v, keys);
    t->seen = qkv_take(&c, 1, keys, QKV_LANES);
    t->b = qkv_take(&c, r, keys, QKV_LANES);
    t->s = t->w = qkv_take(&c, r, keys, QKV_LANES);
    t->exponents = qkv_selects(a) ? qkv_take(&c, r, a->n_k, QKV_LANES) : NULL;
    if (a->top_k) qkv_take(&c, r, a->n_k, QKV_LANES); /* follow the exponents */
    real *rows = qkv_take(&c, r, QKV_LANES, 4);
    t->from = row_of(rows, 0);
    t->tile_max = row_of(rows, 1);
    t->tile_sum = row_of(rows, 2);
    t->rescale = row_of(rows, 3);
    for (int i = 0; i < blocks; i++) {
        if (i) t[i] = t[0];
        t[i].q = qkv_take(&c, r, a->d_k, QKV_LANES);
        t[i].o = qkv_take(&c, r, a->d_v, QKV_LANES);
        rows_layout(&t[i], &c);
    }
    for (int i = 0; i < blocks && a->n_k > QKV_LEG; i++) legs_layout(&t[i], &c, a);
    return c.overflow ? SIZE_MAX : c.used;
}

real IN(qkv_scale_of)(const FN(qkv_inputs) *in, ptrdiff_t batch, ptrdiff_t head)
{
    const qkv_attention *a = &in->a;
    if (in->scale.data) return *FN(qkv_at)(&in->scale, batch, head, 0);
    return a->score == QKV_SCORE_SCALED_DOT ? 1 / sqrt((real)a->d_k) : 1;
}

static void load_parameters(FN(qkv_block) *t)
{
    const FN(qkv_view) *w = &t->in->parameters;
    if (!w->data) return;
    const real *x = FN(qkv_at)(w, t->batch, t->head, 0);
    for (ptrdiff_t c = 0; c < t->in->a.bandwidths; c++) t->parameters[c] = x[c * w->stride[3]];
}

static void load_bandwidth(FN(qkv_block) *t)
{
    const FN(qkv_view) *h = &t->in->parameters;
    const real *x = h->data ? FN(qkv_at)(h, t->batch, t->head, 0) : NULL;
    ptrdiff_t step = t->in->a.bandwidths > 1 ? h->stride[3] : 0;
    bool folded = t->base_2 && t->in->a.score == QKV_SCORE_GAUSSIAN;
    real factor = folded ? sqrt(fabs(t->scale) * (real)(LOG2E / 2)) : 1;
    for (ptrdiff_t c = 0; c < t->in->a.d_k; c++) {
        t->inverse_bandwidth[c] = x ? 1 / x[c * step] : 1;
        t->score_bandwidth[c] = t->inverse_bandwidth[c] * factor;
    }
}

static void load_queries(FN(qkv_block) *t)
{
    const FN(qkv_view) *q = &t->in->q;
    const qkv_attention *a = &t->in->a;
    if (!a->d_k) return;
    real factor = !qkv_is_dot(a) ? 1 : t->base_2 ? t->scale * (real)LOG2E : t->scale;
    const real *x = FN(qkv_at)(q, t->batch, t->head, t->q0);
    bool unit = a->score == QKV_SCORE_COSINE;
    IN(qkv_to_lanes)
    (t->q, x, q->stride[2], q->stride[3], t->n_q, a->d_k, t->vectors, unit ? 1 : factor);
    if (!unit) return;
    IN(qkv_inverse_norms)(t->q, a->d_k, t->vectors, t->q_inverse);
    for (int i = 0; i < t->vectors * QKV_VEC; i += QKV_VEC) {
        vec inverse = load(t->q_inverse + i);
        for (real *y = t->q + i; y < t->q + a->d_k * QKV_LANES; y += QKV_LANES)
            store(y, load(y) * inverse * factor);
    }
}

/* First query of a block: all have three vectors, but the last one or two have two if that is how
 * the queries come out, since one vector alone would keep too few multiply-adds in flight. */
static ptrdiff_t first_query(const qkv_attention *a, ptrdiff_t index)
{
    ptrdiff_t vectors = (a->n_q + QKV_VEC - 1) / QKV_VEC, blocks = IN(qkv_blocks_of)(a);
    ptrdiff_t narrow = vectors > 1 ? blocks * QKV_VECTORS - vectors : 0, wide = blocks - narrow;
    ptrdiff_t first = (index * QKV_VECTORS - (index > wide ? index - wide : 0)) * QKV_VEC;
    return first < a->n_q ? first : a->n_q;
}

void IN(qkv_block_begin)(FN(qkv_block) *t, ptrdiff_t batch, ptrdiff_t head, ptrdiff_t index)
{
    const qkv_attention *a = &t->in->a;
    t->batch = batch;
    t->head = head;
    t->kv_head = head / (a->heads / a->kv_heads);
    t->q0 = first_query(a, index);
    t->n_q = (int)(first_query(a, index + 1) - t->q0);
    t->vectors = (t->n_q + QKV_VEC - 1) / QKV_VEC;
    t->scale = IN(qkv_scale_of)(t->in, batch, head);
    t->base_2 = qkv_is_softmax(a);
    if (qkv_is_distance(a))
        load_bandwidth(t);
    else
        load_parameters(t);
    load_queries(t);
    IN(qkv_normalize_begin)(t);
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

void IN(qkv_block_keys)(FN(qkv_block) *t)
{
    load_rows(&t->k, &t->in->k, t, t->in->a.d_k);
}

/* Keys of unit length, for the cosine. */
static void load_unit_keys(FN(qkv_block) *t)
{
    const FN(qkv_view) *k = &t->in->k;
    ptrdiff_t d = t->in->a.d_k;
    const real *x = FN(qkv_at)(k, t->batch, t->kv_head, t->k0);
    for (int j = 0; j < t->n_k; j++, x += k->stride[2]) {
        real *row = t->k.packed + j * d;
        if (k->stride[3] == 1)
            memcpy(row, x, sizeof(real) * (size_t)d);
        else
            for (ptrdiff_t c = 0; c < d; c++) row[c] = x[c * k->stride[3]];
        t->k_inverse[j] = IN(qkv_inverse_norm)(row, d);
        for (ptrdiff_t c = 0; c < d; c++) row[c] *= t->k_inverse[j];
    }
    t->k.data = t->k.packed;
    t->k.stride = d;
}

bool IN(qkv_block_mask)(FN(qkv_block) *t, ptrdiff_t k0, int n)
{
    const qkv_attention *a = &t->in->a;
    IN(qkv_span) span = IN(qkv_mask_span)(t);
    t->k0 = k0;
    t->n_k = span.end - k0 < n ? (int)(span.end - k0) : n;
    t->coverage = QKV_SEES_NONE;
    if (t->n_k <= 0 || k0 + t->n_k <= span.first) return false;
    IN(qkv_mask_tile)(t);
    if (t->coverage == QKV_SEES_NONE) return false;
    if (a->score == QKV_SCORE_COSINE)
        load_unit_keys(t);
    else
        IN(qkv_block_keys)(t);
    load_rows(&t->v, &t->in->v, t, a->d_v);
    return true;
}

static void score(FN(qkv_block) *t, real *slope)
{
    if (t->in->a.normalize == QKV_UNIFORM) return;
    IN(qkv_score_tile)(t);
    IN(qkv_softcap)(t, t->s, t->n_k, slope);
    IN(qkv_softcap)(t, t->tile_max, 1, NULL);
}

bool IN(qkv_block_score)(FN(qkv_block) *t, real *slope)
{
    score(t, slope);
    if (qkv_selects(&t->in->a)) IN(qkv_select_tile)(t);
    return t->coverage != QKV_SEES_NONE;
}

bool IN(qkv_block_tile)(FN(qkv_block) *t, ptrdiff_t k0, int n)
{
    return IN(qkv_block_mask)(t, k0, n) && IN(qkv_block_score)(t, NULL);
}

void IN(qkv_block_scan)(FN(qkv_block) *t, int keys)
{
    if (!qkv_needs_scan(&t->in->a)) return;
    bool selects = qkv_selects(&t->in->a), again = false;
    IN(qkv_span) span = IN(qkv_mask_span)(t);
    do {
        for (ptrdiff_t k0 = span.first / keys * keys; k0 < span.end; k0 += keys) {
            bool seen = IN(qkv_block_mask)(t, k0, keys);
            if (seen) score(t, NULL);
            if (selects && !again)
                IN(qkv_select_keep)(t, seen);
            else if (seen)
                (selects ? IN(qkv_select_find) : IN(qkv_normalize_scan))(t);
        }
        again = selects && !again && !IN(qkv_select_end)(t);
    } while (again);
}
