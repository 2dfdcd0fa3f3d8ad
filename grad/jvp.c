/* jvp.c - forward mode: each block of queries passes over the keys once, with the weights
 * recomputed from the rows' max and sum, and pools the tangents' share beside that of the
 * values. */
#include "grad/second.h"
#include "src/workspace.h"

enum { TILE = QKV_BACK_TILE };

size_t IN(qkv_second_layout)(FN(qkv_second) *x, const qkv_attention *a, bool backward, void *memory)
{
    const size_t r = sizeof(real);
    size_t used = IN(qkv_blocks_layout)(&x->t, 1, a, memory);
    if (used == SIZE_MAX) return SIZE_MAX;
    qkv_cursor c = {.base = memory, .used = used};
    ptrdiff_t parameters = a->bandwidths > a->d_k ? a->bandwidths : a->d_k;
    x->parameters_u = qkv_take(&c, r, parameters, 1);
    real **const lanes_k[] = {&x->q, &x->q_u, &x->dq, &x->dq_u};
    real **const rows_k[] = {&x->q_rows, &x->q_u_rows};
    real **const keys_k[] = {&x->dk, &x->dk_u};
    ptrdiff_t padded_k = IN(qkv_padded)(a->d_k), padded_v = IN(qkv_padded)(a->d_v);
    real **const lanes_v[] = {&x->o_u, &x->d_o};
    real **const tiles[] = {&x->a, &x->a_u, &x->x_u, &x->s_u, &x->p, &x->r, &x->g, &x->h};
    real **const rows[] = {&x->lse_u, &x->ones, &x->q_along, &x->delta, &x->row};
    for (int i = 0; i < (backward ? 4 : 2); i++) *lanes_k[i] = qkv_take(&c, r, a->d_k, QKV_LANES);
    for (int i = 0; i < (backward ? 2 : 0); i++) *rows_k[i] = qkv_take(&c, r, padded_k, QKV_LANES);
    for (int i = 0; i < (backward ? 2 : 0); i++)
        *keys_k[i] = qkv_take(&c, r, padded_k, QKV_BACK_KEYS);
    x->k_u = qkv_take(&c, r, a->d_k, QKV_BACK_KEYS);
    for (int i = 0; i < (backward ? 2 : 1); i++) *lanes_v[i] = qkv_take(&c, r, a->d_v, QKV_LANES);
    for (int i = 0; i < (backward ? 8 : 6); i++) *tiles[i] = qkv_take(&c, r, TILE, 1);
    for (int i = 0; i < 5; i++) *rows[i] = qkv_take(&c, r, QKV_LANES, 1);
    x->v_u = qkv_take(&c, r, a->d_v, QKV_BACK_KEYS);
    x->dv = qkv_take(&c, r, backward ? padded_v : 0, QKV_BACK_KEYS);
    x->d_o_rows = qkv_take(&c, r, backward ? padded_v : 0, QKV_LANES);
    x->table = qkv_take(&c, r, backward ? qkv_relative_size(a) : 0, 1);
    x->k_along = qkv_take(&c, r, QKV_BACK_KEYS, 1);
    x->slope = qkv_take(&c, r, a->softcap > 0 ? TILE : 0, 1);
    x->curve = qkv_take(&c, r, a->softcap > 0 ? TILE : 0, 1);
    x->keep = qkv_take(&c, r, a->dropout > 0 ? TILE : 0, 1);
    /* A tile's own memory holds what fits a small problem; here they have one size. */
    x->t.s = x->t.w = qkv_take(&c, r, TILE, 1);
    x->t.b = qkv_take(&c, r, TILE, 1);
    x->t.seen = qkv_take(&c, 1, TILE, 1);
    return c.overflow ? SIZE_MAX : c.used;
}

/* The tangents of scale and parameters, of this head. */
static void load_parameters(FN(qkv_second) *x)
{
    const FN(qkv_block) *t = &x->t;
    const qkv_attention *a = &t->in->a;
    const FN(qkv_view) *from = &x->u->parameters, *scale = &x->u->scale;
    x->scale_u = scale->data ? *FN(qkv_at)(scale, t->batch, t->head, 0) : 0;
    ptrdiff_t n = qkv_is_dot(a) ? 0 : a->d_k;
    for (ptrdiff_t c = 0; c < n; c++) {
        ptrdiff_t at = a->bandwidths > 1 ? c * from->stride[3] : 0;
        x->parameters_u[c] = from->data ? FN(qkv_at)(from, t->batch, t->head, 0)[at] : 0;
    }
}

/* Tangents of rows of unit length, in place: (x' - x x'x') / |x|; along: x'x'. */
static real unit_tangent(const real *x, real *x_u, ptrdiff_t step, ptrdiff_t d, real inverse)
{
    real along = 0;
    for (ptrdiff_t c = 0; c < d; c++) along += x[c * step] * x_u[c * step];
    for (ptrdiff_t c = 0; c < d; c++)
        x_u[c * step] = (x_u[c * step] - x[c * step] * along) * inverse;
    return along;
}

static void load_queries(FN(qkv_second) *x)
{
    const FN(qkv_block) *t = &x->t;
    const FN(qkv_view) *q = &t->in->q, *q_u = &x->u->q;
    ptrdiff_t d = t->in->a.d_k;
    if (!d) return;
    IN(qkv_to_lanes)
    (x->q, FN(qkv_at)(q, t->batch, t->head, t->q0), q->stride[2], q->stride[3], t->n_q, d,
     t->vectors, 1);
    memset(x->q_u, 0, sizeof(real) * (size_t)d * QKV_LANES);
    if (q_u->data) IN(qkv_to_lanes)
    (x->q_u, FN(qkv_at)(q_u, t->batch, t->head, t->q0), q_u->stride[2], q_u->stride[3], t->n_q, d,
     t->vectors, 1);
    for (int i = 0; x->unit && i < t->n_q; i++) {
        for (ptrdiff_t c = 0; c < d; c++) x->q[c * QKV_LANES + i] *= t->q_inverse[i];
        x->q_along[i] = unit_tangent(x->q + i, x->q_u + i, QKV_LANES, d, t->q_inverse[i]);
    }
}

void IN(qkv_second_begin)(FN(qkv_second) *x, ptrdiff_t batch, ptrdiff_t head, ptrdiff_t index)
{
    FN(qkv_block) *t = &x->t;
    IN(qkv_block_begin)(t, batch, head, index);
    x->unit = t->in->a.score == QKV_SCORE_COSINE;
    load_parameters(x);
    load_queries(x);
    for (int i = 0; i < QKV_LANES; i++) {
        bool used = i < t->n_q;
        t->max[i] = used ? *FN(qkv_at)(&x->to->row_max, batch, head, t->q0 + i) : 0;
        t->log_sum[i] = used ? *FN(qkv_at)(&x->to->row_log_sum, batch, head, t->q0 + i) : 0;
        t->log_sum[i] *= (real)LOG2E;
        x->ones[i] = 1;
        x->lse_u[i] = 0;
    }
    if (t->in->a.d_v) memset(x->o_u, 0, sizeof(real) * (size_t)t->in->a.d_v * QKV_LANES);
}

/* Rows of a tangent's view, packed; 0 if it is absent. */
static void load_rows(const FN(qkv_block) *t, const FN(qkv_view) *from, ptrdiff_t d, real *to)
{
    if (!d) return;
    memset(to, 0, sizeof(real) * (size_t)(t->n_k * d));
    for (int j = 0; j < t->n_k && from->data; j++) {
        const real *y = FN(qkv_at)(from, t->batch, t->kv_head, t->k0 + j);
        for (ptrdiff_t c = 0; c < d; c++) to[j * d + c] = y[c * from->stride[3]];
    }
}

static void load_keys(FN(qkv_second) *x)
{
    const FN(qkv_block) *t = &x->t;
    ptrdiff_t d = t->in->a.d_k;
    load_rows(t, &x->u->k, d, x->k_u);
    load_rows(t, &x->u->v, t->in->a.d_v, x->v_u);
    for (int j = 0; x->unit && j < t->n_k; j++)
        x->k_along[j] =
            unit_tangent(t->k.data + j * t->k.stride, x->k_u + j * d, 1, d, t->k_inverse[j]);
}

/* d2y/dx2 = -2 y (dy/dx) / c^2, from y itself while it is there. */
static void find_curve(FN(qkv_second) *x)
{
    const FN(qkv_block) *t = &x->t;
    double c = t->in->a.softcap;
    real factor = (real)(-2 / (c * c * LOG2E));
    for (int i = 0; i < t->n_k * QKV_LANES && c > 0; i++)
        x->curve[i] = factor * t->s[i] * x->slope[i];
}

/* s_u += the tangents of bias, slopes and relative; r is used. */
static void add_bias(FN(qkv_second) *x)
{
    const FN(qkv_block) *t = &x->t;
    const FN(qkv_view) *bias = &x->u->bias, *slopes = &x->u->slopes;
    int n = t->n_k * QKV_LANES;
    if (bias->data) {
        IN(qkv_to_lanes)
        (x->r, FN(qkv_at)(bias, t->batch, t->head, t->q0) + t->k0 * bias->stride[3],
         bias->stride[2], bias->stride[3], t->n_q, t->n_k, QKV_VECTORS, 1);
        for (int i = 0; i < n; i++) x->s_u[i] += x->r[i];
    }
    if (x->u->relative.data) {
        real segment[QKV_SEGMENT];
        IN(qkv_relative_segment)(t, &x->u->relative, segment);
        for (int j = 0; j < t->n_k; j++)
            for (int i = 0; i < QKV_LANES; i++)
                x->s_u[j * QKV_LANES + i] += segment[t->n_k - 1 - j + i];
    }
    if (!slopes->data) return;
    real slope = *FN(qkv_at)(slopes, t->batch, t->head, 0);
    for (int j = 0; j < t->n_k; j++) {
        real distance = IN(qkv_distance_of)(t, j);
        for (int i = 0; i < QKV_LANES; i++)
            x->s_u[j * QKV_LANES + i] += slope * (distance - (real)i);
    }
}

bool IN(qkv_second_tile)(FN(qkv_second) *x, ptrdiff_t k0)
{
    FN(qkv_block) *t = &x->t;
    if (!IN(qkv_block_mask)(t, k0, QKV_BACK_KEYS)) return false;
    IN(qkv_block_score)(t, t->in->a.softcap > 0 ? x->slope : NULL);
    find_curve(x);
    IN(qkv_normalize_weights)(t);
    load_keys(x);
    IN(qkv_second_score)(x);
    bool capped = t->in->a.softcap > 0, partial = t->coverage == QKV_SEES_SOME;
    int n = t->n_k * QKV_LANES;
    for (int i = 0; i < n; i++) {
        x->x_u[i] =
            x->scale_u == 0 ? t->scale * x->a_u[i] : x->scale_u * x->a[i] + t->scale * x->a_u[i];
        x->s_u[i] = capped ? x->slope[i] * x->x_u[i] : x->x_u[i];
    }
    add_bias(x);
    for (int i = 0; i < n && partial; i++)
        if (!t->seen[i]) x->a[i] = x->a_u[i] = x->x_u[i] = x->s_u[i] = 0;
    if (t->in->a.dropout > 0) IN(qkv_dropout)(t, x->keep, NULL);
    return true;
}

void IN(qkv_second_pool)(const FN(qkv_second) *x, FN(qkv_rows) rows, ptrdiff_t d, const real *p,
                         real *to)
{
    const FN(qkv_block) *t = &x->t;
    const FN(qkv_pooling) y = {.t = t,
                               .v = rows,
                               .d = d,
                               .n_k = t->n_k,
                               .vectors = t->vectors,
                               .w = p,
                               .rescale = x->ones,
                               .o = to,
                               .by_pairs = t->coverage == QKV_SEES_SOME &&
                                           !IN(qkv_rows_finite)(&rows, t->n_k, d)};
    IN(qkv_pool_tile)(&y, NULL);
}

real IN(qkv_sink_weight)(const FN(qkv_block) *t, int i)
{
    if (!t->in->sink.data) return 0;
    real sink = *FN(qkv_at)(&t->in->sink, t->batch, t->head, 0) * (real)LOG2E;
    return sink == (real)-INFINITY ? 0 : exp2(sink - t->max[i] - t->log_sum[i]);
}

static real sink_tangent(const FN(qkv_second) *x)
{
    const FN(qkv_view) *sink = &x->u->sink;
    return sink->data ? *FN(qkv_at)(sink, x->t.batch, x->t.head, 0) : 0;
}

void IN(qkv_second_rows)(FN(qkv_second) *x)
{
    FN(qkv_block) *t = &x->t;
    const FN(qkv_view) *o = &x->to->o;
    ptrdiff_t d_v = t->in->a.d_v;
    IN(qkv_span) span = IN(qkv_mask_span)(t);
    for (ptrdiff_t k0 = span.first / QKV_BACK_KEYS * QKV_BACK_KEYS; k0 < span.end;
         k0 += QKV_BACK_KEYS) {
        if (!IN(qkv_second_tile)(x, k0)) continue;
        for (int i = 0; i < t->n_k * QKV_LANES; i++) {
            x->p[i] = t->w[i] * x->s_u[i];
            x->lse_u[i % QKV_LANES] += x->p[i];
        }
        if (t->in->a.dropout > 0) {
            IN(qkv_times_keep)(t, x->keep, x->p);
            IN(qkv_times_keep)(t, x->keep, t->w);
        }
        IN(qkv_second_pool)(x, t->v, d_v, x->p, x->o_u);
        const FN(qkv_rows) v_u = {.data = x->v_u, .stride = d_v};
        if (x->u->v.data) IN(qkv_second_pool)(x, v_u, d_v, t->w, x->o_u);
    }
    for (int i = 0; i < t->n_q; i++) {
        real weight = IN(qkv_sink_weight)(t, i);
        if (weight != 0) x->lse_u[i] += weight * sink_tangent(x);
        if (x->lse_u[i] == 0) continue;
        const real *row = FN(qkv_at)(o, t->batch, t->head, t->q0 + i);
        for (ptrdiff_t c = 0; c < d_v; c++)
            x->o_u[c * QKV_LANES + i] -= x->lse_u[i] * row[c * o->stride[3]];
    }
}

void IN(qkv_second_write)(const FN(qkv_second) *x, const FN(qkv_view) *o, const FN(qkv_view) *lse,
                          bool add)
{
    const FN(qkv_block) *t = &x->t;
    if (o->data && t->in->a.d_v) IN(qkv_from_lanes)
    (FN(qkv_at)(o, t->batch, t->head, t->q0), o->stride[2], o->stride[3], t->n_q, t->in->a.d_v,
     x->o_u, x->ones, add);
    for (int i = 0; i < t->n_q && lse->data; i++) {
        real *to = FN(qkv_at)(lse, t->batch, t->head, t->q0 + i);
        *to = add ? *to + x->lse_u[i] : x->lse_u[i];
    }
}

typedef struct job {
    const FN(qkv_inputs) *in;
    const FN(qkv_gradients) *u, *to;
    const FN(qkv_outputs) *out;
    ptrdiff_t taken;
} job;

static void run(void *context, void *memory)
{
    job *y = context;
    const qkv_attention *a = &y->in->a;
    ptrdiff_t blocks = IN(qkv_blocks_of)(a), work = a->batch * a->heads * blocks;
    FN(qkv_second) x = {.t.in = y->in, .u = y->u, .to = y->to};
    IN(qkv_second_layout)(&x, a, false, memory);
    for (ptrdiff_t i; (i = qkv_team_take(&y->taken)) < work;) {
        ptrdiff_t row = i / blocks;
        IN(qkv_second_begin)(&x, row / a->heads, row % a->heads, i % blocks);
        IN(qkv_second_rows)(&x);
        IN(qkv_second_write)(&x, &y->out->o, &y->out->lse, false);
    }
}

static void jvp(const FN(qkv_inputs) *in, const FN(qkv_gradients) *u, const FN(qkv_gradients) *to,
                const FN(qkv_outputs) *out, const qkv_team *team)
{
    job x = {.in = in, .u = u, .to = to, .out = out};
    qkv_team_run(team, team->threads, run, &x);
}

static size_t jvp_share(const qkv_attention *a)
{
    FN(qkv_second) x = {.scale_u = 0};
    return IN(qkv_second_layout)(&x, a, false, NULL);
}

static ptrdiff_t pieces(const qkv_attention *a)
{
    return a->batch * a->heads * IN(qkv_blocks_of)(a);
}

const FN(qkv_second_kernels) IN(qkv_second_kernels) = {
    .pieces = pieces,
    .jvp_share = jvp_share,
    .jvp = jvp,
    .share = IN(qkv_double_share),
    .common = IN(qkv_double_common),
    .backward = IN(qkv_double_backward),
};
