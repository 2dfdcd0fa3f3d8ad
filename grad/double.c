/* double.c - the second backward pass: a first pass over the keys finds the rows' tangents (jvp.c),
 * a second one, tile by tile, what scores, values and their tangents are worth to phi. Blocks that
 * share keys and values add to dk and dv in turns (turn.h). */
#include "grad/second.h"
#include "src/turn.h"
#include "src/workspace.h"

typedef struct plan {
    const FN(qkv_inputs) *in;
    const FN(qkv_gradients) *u, *to;
    const FN(qkv_outputs) *out;
    ptrdiff_t items;
    real *partial;     /* [items][partials] */
    ptrdiff_t *passed; /* [items] */
    ptrdiff_t taken, through;
    bool in_turns;
} plan;

static size_t plan_layout(plan *p, const qkv_attention *a, void *memory)
{
    qkv_cursor c = {.base = memory};
    p->items = a->batch * a->heads * IN(qkv_blocks_of)(a);
    p->partial = qkv_take(&c, sizeof(real), IN(qkv_partials)(a), p->items);
    p->passed = qkv_take(&c, sizeof *p->passed, p->items, 1);
    return c.overflow ? SIZE_MAX : c.used;
}

size_t IN(qkv_double_common)(const qkv_attention *a)
{
    plan p;
    return plan_layout(&p, a, NULL);
}

size_t IN(qkv_double_share)(const qkv_attention *a)
{
    FN(qkv_second) x = {.scale_u = 0};
    return IN(qkv_second_layout)(&x, a, true, NULL);
}

/* Lanes as n_q padded rows, 0 for what is not finite; whether all of it is. */
static bool to_rows(const FN(qkv_block) *t, const real *lanes, ptrdiff_t d, real *rows)
{
    ptrdiff_t ld = IN(qkv_padded)(d);
    bool finite = true;
    for (int i = 0; i < t->n_q; i++)
        for (ptrdiff_t c = 0; c < ld; c++) {
            real y = c < d ? lanes[c * QKV_LANES + i] : 0;
            finite &= isfinite(y) != 0;
            rows[i * ld + c] = isfinite(y) ? y : 0;
        }
    return finite;
}

/* The cotangents of the block's rows, and what the first pass leaves for the second. */
static void load_cotangents(FN(qkv_second) *x)
{
    const FN(qkv_block) *t = &x->t;
    const FN(qkv_view) *d_o = &x->to->d_o, *d_lse = &x->to->d_lse, *o = &x->to->o;
    ptrdiff_t d = t->in->a.d_v;
    if (d) memset(x->d_o, 0, sizeof(real) * (size_t)d * QKV_LANES);
    if (d && d_o->data) IN(qkv_to_lanes)
    (x->d_o, FN(qkv_at)(d_o, t->batch, t->head, t->q0), d_o->stride[2], d_o->stride[3], t->n_q, d,
     t->vectors, 1);
    x->finite = to_rows(t, x->d_o, d, x->d_o_rows);
    x->finite &= to_rows(t, x->q, t->in->a.d_k, x->q_rows);
    x->finite &= to_rows(t, x->q_u, t->in->a.d_k, x->q_u_rows);
    if (d) IN(qkv_to_lanes)
    (t->o, FN(qkv_at)(o, t->batch, t->head, t->q0), o->stride[2], o->stride[3], t->n_q, d,
     t->vectors, 1);
    for (int i = 0; i < QKV_LANES; i += QKV_VEC) {
        vec delta = splat(0), row = splat(0);
        for (ptrdiff_t c = i; c < d * QKV_LANES; c += QKV_LANES) {
            delta += load(x->d_o + c) * load(t->o + c);
            row += load(x->d_o + c) * load(x->o_u + c);
        }
        store(x->delta + i, delta);
        store(x->row + i, row);
    }
    for (int i = 0; i < t->n_q && d_lse->data; i++)
        x->delta[i] -= *FN(qkv_at)(d_lse, t->batch, t->head, t->q0 + i);
}

/* g = d phi / ds, h = d phi / ds', p = what pools d_o into dv; all 0 where hidden. */
static void by_exponents(FN(qkv_second) *x)
{
    FN(qkv_block) *t = &x->t;
    const qkv_attention *a = &t->in->a;
    const FN(qkv_rows) v_u = {.data = x->v_u, .stride = a->d_v};
    bool drops = a->dropout > 0;
    IN(qkv_dot_tile)(&t->v, t->n_k, x->d_o, a->d_v, t->vectors, x->g, t->tile_max, NULL);
    IN(qkv_dot_tile)(&v_u, t->n_k, x->d_o, a->d_v, t->vectors, x->h, t->tile_max, NULL);
    if (drops) IN(qkv_times_keep)(t, x->keep, x->g);
    if (drops) IN(qkv_times_keep)(t, x->keep, x->h);
    for (int i = 0; i < t->vectors * QKV_VEC; i += QKV_VEC) {
        vec delta = load(x->delta + i), row = load(x->row + i), lse_u = load(x->lse_u + i);
        for (int y = i; y < t->n_k * QKV_LANES; y += QKV_LANES) {
            vec w = load(t->w + y), dw = load(x->g + y) - delta, away = load(x->s_u + y) - lse_u;
            store(x->g + y, w * (load(x->h + y) + away * dw - row));
            store(x->h + y, w * dw);
            store(x->p + y, w * away);
        }
    }
    if (drops) IN(qkv_times_keep)(t, x->keep, x->p);
    if (t->coverage == QKV_SEES_ALL && t->n_q == QKV_LANES) return;
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < QKV_LANES; i++) {
            int y = j * QKV_LANES + i;
            if (i >= t->n_q || !FN(qkv_pair)(t, j, i)) x->g[y] = x->h[y] = x->p[y] = 0;
        }
}

static real dslopes(const FN(qkv_second) *x)
{
    const FN(qkv_block) *t = &x->t;
    real sum = 0;
    for (int j = 0; j < t->n_k; j++) {
        real distance = IN(qkv_distance_of)(t, j);
        for (int i = 0; i < t->n_q; i++) sum += x->g[j * QKV_LANES + i] * (distance - (real)i);
    }
    return sum;
}

/* g and h become those of a and a'. Returns dscale. */
static real to_scores(FN(qkv_second) *x)
{
    const FN(qkv_block) *t = &x->t;
    bool capped = t->in->a.softcap > 0;
    vec sum = splat(0), zero = splat(0);
    for (int i = 0; i < t->vectors * QKV_VEC; i += QKV_VEC)
        for (int y = i; y < t->n_k * QKV_LANES; y += QKV_LANES) {
            vec g = load(x->g + y), h = load(x->h + y);
            ivec none = (g == 0) & (h == 0); /* the rest may be NaN there */
            if (capped) {
                vec slope = load(x->slope + y);
                g = g * slope + h * load(x->curve + y) * load(x->x_u + y);
                h *= slope;
            }
            sum += choose(none, zero, load(x->a + y) * g + load(x->a_u + y) * h);
            store(x->g + y, choose(none, zero, t->scale * g + x->scale_u * h));
            store(x->h + y, choose(none, zero, t->scale * h));
        }
    return sum_of_lanes(sum);
}

static void add_bias(const FN(qkv_second) *x)
{
    const FN(qkv_block) *t = &x->t;
    const FN(qkv_view) *to = &x->to->bias;
    real *bias = FN(qkv_at)(to, t->batch, t->head, t->q0) + t->k0 * to->stride[3];
    IN(qkv_from_lanes)(bias, to->stride[2], to->stride[3], t->n_q, t->n_k, x->r, x->ones, true);
}

static void backward_tile(FN(qkv_second) *x, ptrdiff_t k0, const qkv_turn *turn)
{
    FN(qkv_block) *t = &x->t;
    const qkv_attention *a = &t->in->a;
    ptrdiff_t ld_k = IN(qkv_padded)(a->d_k), ld_v = IN(qkv_padded)(a->d_v);
    bool seen = IN(qkv_second_tile)(x, k0);
    if (seen) {
        size_t k = sizeof(real) * (size_t)(t->n_k * ld_k),
               v = sizeof(real) * (size_t)(t->n_k * ld_v);
        by_exponents(x);
        memcpy(x->r, x->g, sizeof(real) * (size_t)(t->n_k * QKV_LANES));
        if (x->to->relative.data) IN(qkv_relative_backward)(t, x->r, x->table);
        if (x->to->slopes.data) x->partial[IN(qkv_at_slopes)(a)] += dslopes(x);
        x->partial[0] += to_scores(x);
        if (a->d_k) memset(x->dk, 0, k);
        if (a->d_k) memset(x->dk_u, 0, k);
        if (a->d_k) IN(qkv_second_chain)(x);
        if (a->d_v) memset(x->dv, 0, v);
        if (x->to->v.data && a->d_v)
            IN(qkv_second_outer)(x, x->p, x->d_o_rows, x->d_o, a->d_v, x->dv);
    }
    qkv_turn_wait(turn, k0 + QKV_BACK_KEYS);
    if (seen) {
        if (x->to->bias.data) add_bias(x);
        if (x->to->k.data && a->d_k) IN(qkv_add_rows)(&x->to->k, t, t->n_k, x->dk, ld_k, a->d_k);
        if (x->to->v.data && a->d_v) IN(qkv_add_rows)(&x->to->v, t, t->n_k, x->dv, ld_v, a->d_v);
    }
    qkv_turn_pass(turn, k0 + QKV_BACK_KEYS);
}

static void sink_backward(FN(qkv_second) *x)
{
    const FN(qkv_block) *t = &x->t;
    const FN(qkv_view) *tangent = &x->u->sink;
    real sink_u = tangent->data ? *FN(qkv_at)(tangent, t->batch, t->head, 0) : 0, sum = 0;
    for (int i = 0; i < t->n_q; i++) {
        real w = IN(qkv_sink_weight)(t, i);
        if (w != 0) sum += w * ((sink_u - x->lse_u[i]) * -x->delta[i] - x->row[i]);
    }
    x->partial[IN(qkv_at_sink)(&t->in->a)] += sum;
}

static void backward_block(plan *p, FN(qkv_second) *x, ptrdiff_t item)
{
    const qkv_attention *a = &p->in->a;
    ptrdiff_t blocks = IN(qkv_blocks_of)(a), row = item / blocks;
    ptrdiff_t group = a->heads / a->kv_heads * blocks;
    const qkv_turn turn = {
        .passed = p->in_turns ? p->passed : NULL, .item = item, .first = item % group == 0};
    x->partial = p->partial + item * IN(qkv_partials)(a);
    memset(x->partial, 0, sizeof(real) * (size_t)IN(qkv_partials)(a));
    IN(qkv_second_begin)(x, row / a->heads, row % a->heads, blocks - 1 - item % blocks);
    IN(qkv_second_rows)(x);
    IN(qkv_second_write)(x, &p->out->o, &p->out->lse, true);
    load_cotangents(x);
    if (p->in->sink.data) sink_backward(x);
    if (a->d_k) memset(x->dq, 0, sizeof(real) * (size_t)a->d_k * QKV_LANES);
    if (a->d_k) memset(x->dq_u, 0, sizeof(real) * (size_t)a->d_k * QKV_LANES);
    IN(qkv_span) span = IN(qkv_mask_span)(&x->t);
    for (ptrdiff_t k0 = span.first / QKV_BACK_KEYS * QKV_BACK_KEYS; k0 < span.end;
         k0 += QKV_BACK_KEYS)
        backward_tile(x, k0, &turn);
    qkv_turn_end(&turn);
    IN(qkv_second_chain_end)(x);
}

static void run(void *context, void *memory)
{
    plan *p = context;
    FN(qkv_second) x = {.t.in = p->in, .u = p->u, .to = p->to};
    IN(qkv_second_layout)(&x, &p->in->a, true, memory);
    ptrdiff_t groups = p->in->a.batch * p->in->a.kv_heads, group = p->items / groups;
    const FN(qkv_view) *table = &p->to->relative;
    size_t bytes = sizeof(real) * (size_t)qkv_relative_size(&p->in->a);
    for (ptrdiff_t i; (i = qkv_team_take(&p->taken)) < p->items;) {
        if (table->data) memset(x.table, 0, bytes);
        backward_block(p, &x, i % groups * group + i / groups);
        if (!table->data) continue;
        qkv_order_wait(&p->through, i);
        IN(qkv_relative_add)(table, &x.t, x.table);
        qkv_order_pass(&p->through, i);
    }
}

void IN(qkv_double_backward)(const FN(qkv_inputs) *in, const FN(qkv_gradients) *u,
                             const FN(qkv_gradients) *to, const FN(qkv_outputs) *dd_out,
                             const qkv_team *team)
{
    plan p = {.in = in, .u = u, .to = to, .out = dd_out};
    plan_layout(&p, &in->a, team->memory);
    int threads = IN(qkv_bias_is_shared)(&in->a, &to->bias) ? 1 : team->threads;
    p.in_turns = threads > 1;
    memset(p.passed, 0, sizeof *p.passed * (size_t)p.items);
    qkv_team_run(team, threads, run, &p);
    IN(qkv_add_partials)(&in->a, to, p.partial, IN(qkv_blocks_of)(&in->a), p.items);
}
