/* attention.c - mirror of src/attention.c: the same walk, with each tile's weights recomputed from
 * the row's max and sum (Dao et al. 2022, FlashAttention, algorithm 4). Nothing of size n_q x n_k
 * exists.
 *
 * One thread takes one key/value head, and with it all query heads and queries that add to its dk
 * and dv, in a fixed order: the bits do not depend on the number of threads. */
#include "grad/tile.h"
#include "src/team.h"
#include "src/workspace.h"

static size_t layout(FN(qkv_grad_block) *g, const qkv_attention *a, void *memory)
{
    size_t forward = FN(qkv_block_layout)(&g->t, a, memory);
    if (forward == SIZE_MAX) return SIZE_MAX;
    const size_t r = sizeof(real);
    qkv_cursor c = {.base = memory, .used = forward};
    g->d_o = qkv_take(&c, r, a->d_v, QKV_LANES);
    g->d_o_rows = qkv_take(&c, r, a->d_v, QKV_LANES);
    g->q_rows = qkv_take(&c, r, a->d_k, QKV_LANES);
    g->delta = qkv_take(&c, r, QKV_LANES, 1);
    g->dw = qkv_take(&c, r, QKV_TILE, 1);
    g->ds = qkv_take(&c, r, QKV_TILE, 1);
    g->dq = qkv_take(&c, r, a->d_k, QKV_LANES);
    g->dk = qkv_take(&c, r, a->d_k, QKV_KEYS);
    g->dv = qkv_take(&c, r, a->d_v, QKV_KEYS);
    return c.overflow ? SIZE_MAX : c.used;
}

size_t FN(qkv_backward_share)(const qkv_attention *a)
{
    FN(qkv_grad_block) g;
    return layout(&g, a, NULL);
}

size_t FN(qkv_backward_common)(const qkv_attention *a)
{
    qkv_cursor c = {0};
    qkv_take(&c, sizeof(real) * (size_t)(1 + a->bandwidths), a->batch, a->heads);
    return c.overflow ? SIZE_MAX : c.used;
}

ptrdiff_t FN(qkv_backward_work)(const qkv_attention *a)
{
    return a->n_q ? a->batch * a->kv_heads : 0;
}

static real read_row(const FN(qkv_view) *from, const FN(qkv_block) *t, int i)
{
    return from->data ? *FN(qkv_at)(from, t->batch, t->head, t->q0 + i) : 0;
}

/* rows[i][c] = lanes[c][i]; are all of them finite? */
static bool transpose(const real *lanes, ptrdiff_t d, real *rows)
{
    bool finite = true;
    for (int i = 0; i < QKV_LANES; i++)
        for (ptrdiff_t c = 0; c < d; c++) {
            rows[i * d + c] = lanes[c * QKV_LANES + i];
            finite = finite && isfinite(rows[i * d + c]);
        }
    return finite;
}

/* max, log_sum and delta of the block's rows. */
static void begin_rows(FN(qkv_grad_block) *g)
{
    FN(qkv_block) *t = &g->t;
    const FN(qkv_gradients) *to = g->to;
    ptrdiff_t d = t->in->a.d_v;
    for (int i = 0; i < QKV_LANES; i++) {
        bool used = i < t->n_q;
        t->max[i] = used ? read_row(&to->row_max, t, i) : 0;
        t->log_sum[i] = used ? read_row(&to->row_log_sum, t, i) : 0;
        g->delta[i] = used ? -read_row(&to->d_lse, t, i) : 0;
        if (!used || !to->o.data || !to->d_o.data) continue;
        const real *o = FN(qkv_at)(&to->o, t->batch, t->head, t->q0 + i);
        for (ptrdiff_t c = 0; c < d; c++)
            g->delta[i] += g->d_o_rows[i * d + c] * o[c * to->o.stride[3]];
    }
}

static void begin(FN(qkv_grad_block) *g, ptrdiff_t batch, ptrdiff_t head, ptrdiff_t q0)
{
    FN(qkv_block) *t = &g->t;
    const qkv_attention *a = &t->in->a;
    FN(qkv_block_begin)(t, batch, head, q0);
    FN(qkv_block_scan)(t);
    if (a->d_v) memset(g->d_o, 0, sizeof(real) * (size_t)a->d_v * QKV_LANES);
    if (a->d_v && g->to->d_o.data) FN(qkv_load_lanes)(g->d_o, &g->to->d_o, t, a->d_v);
    g->d_o_finite = transpose(g->d_o, a->d_v, g->d_o_rows);
    g->q_finite = transpose(t->q, a->d_k, g->q_rows);
    if (a->d_k) memset(g->dq, 0, sizeof(real) * (size_t)a->d_k * QKV_LANES);
    begin_rows(g);
}

/* x += the rows of a tile, in the key/value head. */
static void add_rows(const FN(qkv_view) *x, const FN(qkv_block) *t, const real *rows, ptrdiff_t d)
{
    if (!x->data || d == 0) return;
    real *to = FN(qkv_at)(x, t->batch, t->kv_head, t->k0);
    for (int j = 0; j < t->n_k; j++)
        for (ptrdiff_t c = 0; c < d; c++)
            to[j * x->stride[2] + c * x->stride[3]] += rows[j * d + c];
}

/* Rows that see keys, but none within the kernel's support: NaN, as their answer is, and no key's
 * business. (Rows that see no key have the same log_sum.) */
static void drop_strays(FN(qkv_grad_block) *g)
{
    FN(qkv_block) *t = &g->t;
    for (int i = 0; i < t->n_q; i++) {
        if (t->log_sum[i] != (real)-INFINITY) continue;
        bool sees = false;
        for (int j = 0; j < t->n_k; j++) {
            t->w[j * QKV_LANES + i] = 0;
            sees = sees || FN(qkv_pair)(t, j, i);
        }
        for (ptrdiff_t c = 0; sees && c < t->in->a.d_k; c++) g->dq[c * QKV_LANES + i] = (real)NAN;
    }
}

static void backward_tile(FN(qkv_grad_block) *g)
{
    FN(qkv_block) *t = &g->t;
    const qkv_attention *a = &t->in->a;
    bool moves = a->normalize != QKV_UNIFORM && a->normalize != QKV_HARD;
    if (moves) memcpy(g->ds, t->s, sizeof(real) * (size_t)(t->n_k * QKV_LANES));
    FN(qkv_normalize_weights)(t); /* may overwrite s */
    if (a->normalize == QKV_KERNEL_SUM) drop_strays(g);
    FN(qkv_pool_backward)(g);
    add_rows(&g->to->v, t, g->dv, a->d_v);
    if (!moves) return;
    FN(qkv_normalize_backward)(g);
    FN(qkv_mask_backward)(g);
    FN(qkv_score_backward)(g);
    add_rows(&g->to->k, t, g->dk, a->d_k);
}

static void backward_block(FN(qkv_grad_block) *g)
{
    FN(qkv_block) *t = &g->t;
    ptrdiff_t last = FN(qkv_mask_last)(t), d = t->in->a.d_k;
    for (ptrdiff_t k0 = 0; k0 < last; k0 += QKV_KEYS)
        if (FN(qkv_block_tile)(t, k0)) backward_tile(g);
    const FN(qkv_view) *to = &g->to->q;
    if (!to->data || d == 0) return;
    for (int i = 0; i < t->n_q; i++) {
        real *dq = FN(qkv_at)(to, t->batch, t->head, t->q0 + i);
        for (ptrdiff_t c = 0; c < d; c++) dq[c * to->stride[3]] += g->dq[c * QKV_LANES + i];
    }
}

/* All query heads of one key/value head. */
static void backward_group(FN(qkv_grad_block) *g, ptrdiff_t batch, ptrdiff_t kv_head)
{
    const qkv_attention *a = &g->t.in->a;
    ptrdiff_t group = a->heads / a->kv_heads;
    for (ptrdiff_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
        g->partial = g->to->partial + (batch * a->heads + head) * (1 + a->bandwidths);
        memset(g->partial, 0, sizeof(real) * (size_t)(1 + a->bandwidths));
        for (ptrdiff_t q0 = 0; q0 < a->n_q; q0 += QKV_LANES) {
            begin(g, batch, head, q0);
            backward_block(g);
        }
    }
}

/* The heads' sums, in order, into dscale and dbandwidth. */
static void add_parameters(const qkv_attention *a, const FN(qkv_gradients) *to)
{
    for (ptrdiff_t b = 0; b < a->batch; b++)
        for (ptrdiff_t h = 0; h < a->heads; h++) {
            const real *partial = to->partial + (b * a->heads + h) * (1 + a->bandwidths);
            if (to->scale.data) *FN(qkv_at)(&to->scale, b, h, 0) += partial[0];
            if (!to->bandwidth.data) continue;
            real *dh = FN(qkv_at)(&to->bandwidth, b, h, 0);
            for (ptrdiff_t c = 0; c < a->bandwidths; c++)
                dh[c * to->bandwidth.stride[3]] += partial[1 + c];
        }
}

/* Heads that add to the same element of dbias cannot run side by side. */
static bool heads_share_bias(const qkv_attention *a, const FN(qkv_view) *bias)
{
    return bias->data &&
           ((bias->stride[0] == 0 && a->batch > 1) || (bias->stride[1] == 0 && a->heads > 1));
}

qkv_status FN(qkv_attention_backward)(const qkv_attention *a, const FN(qkv_operands) *in,
                                      const FN(qkv_results) *saved, const FN(qkv_results) *d_out,
                                      const FN(qkv_operands) *d_in, void *workspace,
                                      size_t workspace_bytes)
{
    FN(qkv_inputs) inputs;
    FN(qkv_gradients) to;
    qkv_slot_list list;
    qkv_status status = FN(qkv_inputs_resolve)("qkv_attention_backward", a, in, &inputs, &list);
    a = &inputs.a;
    if (!status) status = FN(qkv_cotangents_resolve)(a, saved, d_out, &to, &list);
    if (!status) status = FN(qkv_gradients_resolve)(a, d_in, &to, &list);
    if (!status) status = qkv_slot_list_check(&list);
    ptrdiff_t work = status ? 0 : FN(qkv_backward_work)(a);
    if (work == 0) return status;
    qkv_team team;
    status = qkv_team_of(list.who, FN(qkv_backward_share)(a), FN(qkv_backward_common)(a), work,
                         workspace, workspace_bytes, &team);
    if (status) return status;
    to.partial = (real *)team.memory;
    if (heads_share_bias(a, &to.bias)) team.threads = 1;
#pragma omp parallel num_threads(team.threads) if (team.threads > 1)
    {
        FN(qkv_grad_block) g = {.t.in = &inputs, .to = &to};
        layout(&g, a, qkv_team_share(&team));
#pragma omp for schedule(dynamic)
        for (ptrdiff_t i = 0; i < work; i++) backward_group(&g, i / a->kv_heads, i % a->kv_heads);
    }
    add_parameters(a, &to);
    return QKV_OK;
}
