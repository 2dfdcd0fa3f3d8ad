/* attention.c - mirror of src/attention.c: the same walks over the keys, with each tile's weights
 * recomputed from the row's max and sum (Dao et al. 2022, FlashAttention, algorithm 4). Nothing of
 * size n_q x n_k exists.
 *
 * All walks of one key/value head add to the same dk and dv. They do so in a fixed order, key tile
 * by key tile: a walk adds to a tile when the walk before has passed it (turn.h). The threads
 * follow each other through the keys, one tile apart, and the bits do not depend on how many there
 * are. */
#include "grad/kernels.h"
#include "grad/tile.h"
#include "src/turn.h"
#include "src/workspace.h"

typedef struct walk {
    FN(qkv_grad_block) g[QKV_BLOCKS];
    int blocks;
    real *q_rows, *d_o_rows; /* QKV_BLOCKS x QKV_LANES padded rows */
    real *scratch;           /* QKV_BACK_KEYS padded rows */
    real *table;             /* the gradient of relative */
} walk;

/* All walks of a call. */
typedef struct plan {
    const FN(qkv_inputs) *in;
    const FN(qkv_gradients) *to;
    ptrdiff_t walks;   /* of a head */
    ptrdiff_t items;   /* of all heads */
    real *partial;     /* [items][partials] */
    ptrdiff_t *passed; /* [items]: keys whose dk and dv the walk has added to */
    ptrdiff_t taken;   /* how many items threads have begun */
    ptrdiff_t through; /* how many have added their table, in the order in which they were begun */
    bool in_turns;     /* more than one thread */
} plan;

static size_t layout(walk *w, const qkv_attention *a, void *memory)
{
    const size_t r = sizeof(real);
    int blocks = IN(qkv_blocks_of_walk)(a);
    FN(qkv_block) t[QKV_BLOCKS] = {{0}};
    size_t forward = IN(qkv_blocks_layout)(t, blocks, a, memory);
    if (forward == SIZE_MAX) return SIZE_MAX;
    ptrdiff_t k = IN(qkv_padded)(a->d_k), v = IN(qkv_padded)(a->d_v), d = k > v ? k : v;
    qkv_cursor c = {.base = memory, .used = forward};
    w->q_rows = qkv_take(&c, r, k, blocks * QKV_LANES);
    w->d_o_rows = qkv_take(&c, r, v, blocks * QKV_LANES);
    w->scratch = qkv_take(&c, r, d, QKV_BACK_KEYS);
    real *dk = qkv_take(&c, r, a->d_k, QKV_BACK_KEYS);
    w->table = qkv_take(&c, r, qkv_relative_size(a), 1);
    real *weights = qkv_take(&c, r, QKV_BACK_TILE, blocks);
    real *ds = qkv_take(&c, r, QKV_BACK_TILE, blocks);
    real *slope = qkv_take(&c, r, a->softcap > 0 ? QKV_BACK_TILE : 0, 1);
    real *keep = qkv_take(&c, r, a->dropout > 0 ? QKV_BACK_TILE : 0, 1);
    for (int i = 0; i < blocks; i++) {
        FN(qkv_grad_block) *g = &w->g[i];
        const FN(qkv_inputs) *in = g->t.in;
        g->t = t[i];
        g->t.in = in;
        g->t.seen = qkv_take(&c, 1, QKV_BACK_TILE, 1);
        g->t.s = g->t.w = memory ? weights + i * QKV_BACK_TILE : NULL;
        g->ds = memory ? ds + i * QKV_BACK_TILE : NULL;
        g->dw = qkv_take(&c, r, QKV_BACK_TILE, 1);
        g->dk = dk;
        g->slope = slope;
        g->keep = keep;
        g->table = w->table;
        g->d_o = qkv_take(&c, r, a->d_v, QKV_LANES);
        g->dq = qkv_take(&c, r, a->d_k, QKV_LANES);
        g->delta = qkv_take(&c, r, QKV_LANES, 1);
    }
    return c.overflow ? SIZE_MAX : c.used;
}

static size_t share(const qkv_attention *a)
{
    walk w = {.blocks = 0};
    return layout(&w, a, NULL);
}

/* Walks are long while many blocks are left and short at the end, so that threads finish together.
 * They depend on n_q alone: the bits of dk and dv depend on them. */
static ptrdiff_t long_walks(ptrdiff_t blocks)
{
    return blocks > 8 ? (blocks - 8) / QKV_BLOCKS : 0;
}

static ptrdiff_t walks_of(const qkv_attention *a)
{
    ptrdiff_t blocks = IN(qkv_blocks_of)(a), longs = long_walks(blocks);
    return longs + (blocks - longs * QKV_BLOCKS + 1) / 2;
}

/* First block of a walk, and one past its last. */
static void blocks_of_walk(const qkv_attention *a, ptrdiff_t index, ptrdiff_t *first,
                           ptrdiff_t *end)
{
    ptrdiff_t blocks = IN(qkv_blocks_of)(a), longs = long_walks(blocks);
    bool is_long = index < longs;
    *first = is_long ? index * QKV_BLOCKS : longs * QKV_BLOCKS + (index - longs) * 2;
    *end = *first + (is_long ? QKV_BLOCKS : 2);
    if (*end > blocks) *end = blocks;
}

static size_t plan_layout(plan *p, const qkv_attention *a, void *memory)
{
    qkv_cursor c = {.base = memory};
    size_t partial = sizeof(real);
    p->walks = walks_of(a);
    p->items = a->batch * a->heads * p->walks;
    if (!qkv_size_mul(&partial, IN(qkv_partials)(a))) return SIZE_MAX;
    p->partial = qkv_take(&c, partial, p->items, 1);
    p->passed = qkv_take(&c, sizeof *p->passed, p->items, 1);
    return c.overflow ? SIZE_MAX : c.used;
}

static size_t common(const qkv_attention *a)
{
    plan p;
    return plan_layout(&p, a, NULL);
}

/* Padded rows of a block, each times a factor. What is not finite becomes 0 and is added by
 * outer.c; true if everything is finite. */
static bool load_padded(real *rows, const FN(qkv_view) *from, const FN(qkv_block) *t, ptrdiff_t d,
                        const real *factors)
{
    ptrdiff_t ld = IN(qkv_padded)(d);
    if (ld) memset(rows, 0, sizeof(real) * (size_t)(t->n_q * ld));
    for (int i = 0; i < t->n_q && from->data; i++) {
        const real *x = FN(qkv_at)(from, t->batch, t->head, t->q0 + i), factor = factors[i];
        if (from->stride[3] == 1)
            for (ptrdiff_t c = 0; c < d; c++) rows[i * ld + c] = x[c] * factor;
        else
            for (ptrdiff_t c = 0; c < d; c++) rows[i * ld + c] = x[c * from->stride[3]] * factor;
    }
    if (IN(qkv_rows_finite)(&(FN(qkv_rows)){.data = rows, .stride = ld}, t->n_q, ld)) return true;
    for (ptrdiff_t x = 0; x < t->n_q * ld; x++) rows[x] = isfinite(rows[x]) ? rows[x] : 0;
    return false;
}

static real read_row(const FN(qkv_view) *from, const FN(qkv_block) *t, int i)
{
    return from->data ? *FN(qkv_at)(from, t->batch, t->head, t->q0 + i) : 0;
}

/* max, log_sum and delta of the block's rows. delta is summed in the order in which dw will be, so
 * that a weight of exactly 1 gets a gradient of exactly 0. */
static void load_rows(FN(qkv_grad_block) *g)
{
    FN(qkv_block) *t = &g->t;
    const FN(qkv_gradients) *to = g->to;
    const FN(qkv_view) *o = &to->o;
    ptrdiff_t d = t->in->a.d_v;
    bool sums = qkv_has_sum(&t->in->a), pooled = sums && o->data && to->d_o.data && d;
    if (pooled) IN(qkv_to_lanes)
    (t->o, FN(qkv_at)(o, t->batch, t->head, t->q0), o->stride[2], o->stride[3], t->n_q, d,
     t->vectors, 1);
    for (int x = 0; x < QKV_LANES; x += QKV_VEC) {
        vec sum = splat(0);
        for (ptrdiff_t c = 0; c < d && pooled; c++)
            sum += load(g->d_o + c * QKV_LANES + x) * load(t->o + c * QKV_LANES + x);
        store(g->delta + x, sum);
    }
    for (int i = 0; i < QKV_LANES; i++) {
        bool used = i < t->n_q;
        t->max[i] = used ? read_row(&to->row_max, t, i) : 0;
        t->log_sum[i] = used ? read_row(&to->row_log_sum, t, i) : 0;
        if (t->base_2) t->log_sum[i] *= (real)LOG2E;
        if (used && sums) g->delta[i] -= read_row(&to->d_lse, t, i);
    }
}

/* delta of sparsemax and entmax, which o does not tell. */
static void find_row_terms(FN(qkv_grad_block) *g)
{
    FN(qkv_block) *t = &g->t;
    real g_dw[QKV_LANES] __attribute__((aligned(QKV_VECTOR_BYTES))) = {0};
    real sum[QKV_LANES] __attribute__((aligned(QKV_VECTOR_BYTES))) = {0};
    IN(qkv_span) span = IN(qkv_mask_span)(t);
    for (ptrdiff_t k0 = span.first / QKV_BACK_KEYS * QKV_BACK_KEYS; k0 < span.end;
         k0 += QKV_BACK_KEYS) {
        if (!IN(qkv_block_tile)(t, k0, QKV_BACK_KEYS)) continue;
        IN(qkv_normalize_weights)(t);
        IN(qkv_pool_backward)(g);
        if (t->in->a.dropout > 0) IN(qkv_dropout)(t, NULL, g->dw);
        IN(qkv_sparse_row_terms)(g, g_dw, sum);
    }
    for (int i = 0; i < QKV_LANES; i++) g->delta[i] = sum[i] == 0 ? 0 : g_dw[i] / sum[i];
}

static void begin_block(walk *w, int i, ptrdiff_t batch, ptrdiff_t head, ptrdiff_t index)
{
    FN(qkv_grad_block) *g = &w->g[i];
    FN(qkv_block) *t = &g->t;
    const qkv_attention *a = &t->in->a;
    IN(qkv_block_begin)(t, batch, head, index);
    ptrdiff_t d_k = a->d_k, d_v = a->d_v, row = t->q0 - w->g[0].t.q0;
    IN(qkv_block_scan)(t, QKV_BACK_KEYS);
    real *q = w->q_rows + row * IN(qkv_padded)(d_k), *d_o = w->d_o_rows + row * IN(qkv_padded)(d_v);
    g->q_rows = q;
    g->d_o_rows = d_o;
    real factors[QKV_LANES];
    for (int x = 0; x < t->n_q; x++)
        factors[x] = a->score == QKV_SCORE_COSINE ? t->scale * t->q_inverse[x] : t->scale;
    g->q_finite = load_padded(q, &t->in->q, t, d_k, factors);
    for (int x = 0; x < t->n_q; x++) factors[x] = 1;
    g->d_o_finite = load_padded(d_o, &g->to->d_o, t, d_v, factors);
    const FN(qkv_view) *from = &g->to->d_o;
    if (from->data && d_v) IN(qkv_to_lanes)
    (g->d_o, FN(qkv_at)(from, batch, head, t->q0), from->stride[2], from->stride[3], t->n_q, d_v,
     t->vectors, 1);
    else if (d_v) memset(g->d_o, 0, sizeof(real) * (size_t)d_v * QKV_LANES);
    if (d_k) memset(g->dq, 0, sizeof(real) * (size_t)d_k * QKV_LANES);
    load_rows(g);
    if (qkv_has_row_pass(a)) find_row_terms(g);
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

static bool scores_move(const qkv_attention *a)
{
    return a->normalize != QKV_UNIFORM && a->normalize != QKV_HARD &&
           a->normalize != QKV_TOP_K_UNIFORM;
}

/* From a tile's scores to w and ds, stage by stage. */
static void stages(FN(qkv_grad_block) *g)
{
    FN(qkv_block) *t = &g->t;
    const qkv_attention *a = &t->in->a;
    if (scores_move(a)) memcpy(g->ds, t->s, sizeof(real) * (size_t)(t->n_k * QKV_LANES));
    IN(qkv_normalize_weights)(t); /* overwrites s */
    if (a->normalize == QKV_KERNEL_SUM) drop_strays(g);
    bool drops = a->dropout > 0;
    if (drops) IN(qkv_dropout)(t, g->keep, NULL);
    if (scores_move(a)) {
        IN(qkv_pool_backward)(g);
        if (drops) IN(qkv_times_keep)(t, g->keep, g->dw);
        IN(qkv_normalize_backward)(g);
    }
    if (drops) IN(qkv_times_keep)(t, g->keep, t->w);
    if (!scores_move(a)) return;
    for (int x = 0; x < t->n_k * QKV_LANES && a->softcap > 0; x++)
        g->ds[x] = g->ds[x] == 0 ? 0 : g->ds[x] * g->slope[x]; /* hidden: 0, the slope NaN maybe */
}

/* Then walks take turns at dbias; else it is written while db is in the cache (5 %). */
static bool queries_share_bias(const FN(qkv_grad_block) *g)
{
    return g->to->bias.stride[2] == 0;
}

/* One block against one tile of keys: all but dk and dv. */
static void backward_tile(FN(qkv_grad_block) *g, ptrdiff_t k0)
{
    FN(qkv_block) *t = &g->t;
    const qkv_attention *a = &t->in->a;
    bool fused = a->normalize == QKV_SOFTMAX && qkv_is_dot(a);
    g->seen = IN(qkv_block_mask)(t, k0, QKV_BACK_KEYS);
    if (!g->seen) return;
    if (fused) {
        IN(qkv_softmax_dot_backward)(g);
    } else {
        g->seen = IN(qkv_block_score)(t, g->slope);
        if (!g->seen) return;
        stages(g);
    }
    g->db = fused && a->softcap == 0 ? g->ds : g->dw;
    if (!scores_move(a)) return;
    if (g->to->bias.data && !queries_share_bias(g)) IN(qkv_mask_backward)(g);
    IN(qkv_score_backward)(g);
    if (g->to->slopes.data) IN(qkv_slopes_backward)(g);
    if (g->to->relative.data) IN(qkv_relative_backward)(t, g->db, g->table);
}

/* dk, dv and shared dbias of the tile, in turn. A block that sees fewer of its keys than others of
 * the walk has weight 0 for the rest. */
static void add_keys(walk *w)
{
    const qkv_attention *a = &w->g[0].t.in->a;
    int n_k = 0, last = 0;
    for (int i = 0; i < w->blocks; i++)
        if (w->g[i].seen && w->g[i].t.n_k >= n_k) n_k = w->g[last = i].t.n_k;
    if (n_k == 0) return;
    for (int i = 0; i < w->blocks; i++) {
        FN(qkv_grad_block) *g = &w->g[i];
        if (!g->seen) continue;
        int at = g->t.n_k * QKV_LANES;
        memset(g->t.w + at, 0, sizeof(real) * (size_t)(n_k * QKV_LANES - at));
        memset(g->ds + at, 0, sizeof(real) * (size_t)(n_k * QKV_LANES - at));
        if (g->to->bias.data && scores_move(a) && queries_share_bias(g)) IN(qkv_mask_backward)(g);
    }
    const FN(qkv_gradients) *to = w->g[0].to;
    const FN(qkv_block) *t = &w->g[last].t;
    if (to->v.data && a->d_v) IN(qkv_outer_add)(w->g, w->blocks, n_k, QKV_OUTER_DV, w->scratch);
    if (!to->k.data || a->d_k == 0 || !scores_move(a)) return;
    if (!qkv_is_dot(a))
        IN(qkv_add_rows)(&to->k, t, n_k, w->g[0].dk, a->d_k, a->d_k);
    else
        IN(qkv_outer_add)(w->g, w->blocks, n_k, QKV_OUTER_DK, w->scratch);
}

/* dq does not count from a max. */
static void end_leg(walk *w, bool last)
{
    real ones[QKV_LANES] __attribute__((aligned(QKV_VECTOR_BYTES)));
    for (int i = 0; i < QKV_LANES; i++) ones[i] = 1;
    for (int i = 0; i < w->blocks; i++) {
        FN(qkv_grad_block) *g = &w->g[i];
        IN(qkv_add_leg)(g->dq, g->t.earlier, ones, g->t.in->a.d_k, last);
    }
}

/* Item i of the plan: heads of one key/value head and their walks follow each other. Walks from the
 * last one down, since under a causal mask the last is the longest. */
static void backward_walk(plan *p, walk *w, ptrdiff_t item)
{
    const qkv_attention *a = &p->in->a;
    ptrdiff_t row = item / p->walks, first, end;
    IN(qkv_span) keys = {.first = PTRDIFF_MAX};          /* that some block may see */
    ptrdiff_t group = a->heads / a->kv_heads * p->walks; /* items that share dk and dv */
    qkv_turn turn = {
        .passed = p->in_turns ? p->passed : NULL, .item = item, .first = item % group == 0};
    blocks_of_walk(a, p->walks - 1 - item % p->walks, &first, &end);
    w->blocks = (int)(end - first);
    real *partial = p->partial + item * IN(qkv_partials)(a);
    memset(partial, 0, sizeof(real) * (size_t)IN(qkv_partials)(a));
    for (int i = 0; i < w->blocks; i++) {
        begin_block(w, i, row / a->heads, row % a->heads, first + i);
        w->g[i].partial = partial;
        if (p->to->sink.data) IN(qkv_sink_backward)(&w->g[i]);
        IN(qkv_span) span = IN(qkv_mask_span)(&w->g[i].t);
        keys.first = smaller(keys.first, span.first);
        keys.end = span.end > keys.end ? span.end : keys.end;
    }
    for (int i = 0; i < w->blocks; i++) IN(qkv_legs_begin)(&w->g[i].t, keys);
    for (ptrdiff_t k0 = keys.first / QKV_BACK_KEYS * QKV_BACK_KEYS; k0 < keys.end;
         k0 += QKV_BACK_KEYS) {
        if (w->g[0].t.legs && k0 % QKV_LEG == 0) end_leg(w, false);
        if (a->d_k) memset(w->g[0].dk, 0, sizeof(real) * (size_t)a->d_k * QKV_BACK_KEYS);
        for (int i = 0; i < w->blocks; i++) backward_tile(&w->g[i], k0);
        qkv_turn_wait(&turn, k0 + QKV_BACK_KEYS);
        add_keys(w);
        qkv_turn_pass(&turn, k0 + QKV_BACK_KEYS);
    }
    qkv_turn_end(&turn);
    if (w->g[0].t.legs) end_leg(w, true);
    for (int i = 0; i < w->blocks; i++) IN(qkv_score_backward_end)(&w->g[i]);
}

void IN(qkv_add_partials)(const qkv_attention *a, const FN(qkv_gradients) *to, const real *partials,
                          ptrdiff_t walks, ptrdiff_t items)
{
    for (ptrdiff_t i = 0; i < items; i++) {
        const real *partial = partials + i * IN(qkv_partials)(a);
        ptrdiff_t row = i / walks, b = row / a->heads, h = row % a->heads;
        if (to->scale.data) *FN(qkv_at)(&to->scale, b, h, 0) += partial[0];
        if (to->slopes.data) *FN(qkv_at)(&to->slopes, b, h, 0) += partial[IN(qkv_at_slopes)(a)];
        if (to->sink.data) *FN(qkv_at)(&to->sink, b, h, 0) += partial[IN(qkv_at_sink)(a)];
        if (!to->parameters.data) continue;
        real *dp = FN(qkv_at)(&to->parameters, b, h, 0);
        for (ptrdiff_t c = 0; c < a->bandwidths; c++)
            dp[c * to->parameters.stride[3]] += partial[1 + c];
    }
}

static void add_parameters(const FN(qkv_inputs) *in, const FN(qkv_gradients) *to, void *memory)
{
    plan p = {.in = in};
    plan_layout(&p, &in->a, memory);
    IN(qkv_add_partials)(&in->a, to, p.partial, p.walks, p.items);
}

bool IN(qkv_bias_is_shared)(const qkv_attention *a, const FN(qkv_view) *bias)
{
    const ptrdiff_t n[4] = {a->batch, a->heads, 1, a->n_k};
    for (int axis = 0; axis < 4; axis++)
        if (bias->data && bias->stride[axis] == 0 && n[axis] > 1) return true;
    return false;
}

/* The key/value heads in turn, so that neighbours in time need not wait for each other; within one,
 * in ascending order, so that whom a walk waits for has been taken. */
static ptrdiff_t item_of(const plan *p, ptrdiff_t taken)
{
    ptrdiff_t groups = p->in->a.batch * p->in->a.kv_heads, group = p->items / groups;
    return taken % groups * group + taken / groups;
}

static ptrdiff_t pieces(const qkv_attention *a)
{
    return a->batch * a->heads * walks_of(a);
}

static void run(void *context, void *memory)
{
    plan *p = context;
    walk w;
    for (int i = 0; i < QKV_BLOCKS; i++) w.g[i] = (FN(qkv_grad_block)){.t.in = p->in, .to = p->to};
    layout(&w, &p->in->a, memory);
    const FN(qkv_view) *table = &p->to->relative;
    size_t bytes = sizeof(real) * (size_t)qkv_relative_size(&p->in->a);
    for (ptrdiff_t i; (i = qkv_team_take(&p->taken)) < p->items;) {
        if (table->data) memset(w.table, 0, bytes);
        backward_walk(p, &w, item_of(p, i));
        if (!table->data) continue;
        qkv_order_wait(&p->through, i);
        IN(qkv_relative_add)(table, &w.g[0].t, w.table);
        qkv_order_pass(&p->through, i);
    }
}

static void backward(const FN(qkv_inputs) *in, const FN(qkv_gradients) *to, const qkv_team *team)
{
    plan p = {.in = in, .to = to};
    plan_layout(&p, &in->a, team->memory);
    int threads = IN(qkv_bias_is_shared)(&in->a, &to->bias) ? 1 : team->threads;
    p.in_turns = threads > 1;
    memset(p.passed, 0, sizeof *p.passed * (size_t)p.items);
    qkv_team_run(team, threads, run, &p);
}

const FN(qkv_backward_kernels) IN(qkv_backward_kernels) = {
    .pieces = pieces,
    .share = share,
    .common = common,
    .backward = backward,
    .add_parameters = add_parameters,
};
