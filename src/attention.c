/* attention.c - forward: every walk of queries passes over the keys once and pools as it goes,
 * keeping per query only the largest exponent and the sum (Dao et al. 2022, FlashAttention,
 * algorithm 1, with queries outside).
 *
 * Of softmax, the weights of one tile are taken while the tile before is pooled. */
#include "kernels.h"
#include "tile.h"
#include "workspace.h"

/* One thread's blocks, and the second of everything that the tile before still needs. */
typedef struct walk {
    FN(qkv_block) t[QKV_BLOCKS];
    int blocks;
    real *other_tile, *other_rescale;
    FN(qkv_pooling) pending; /* o NULL: none */
} walk;

static size_t layout(walk *w, const qkv_attention *a, void *memory)
{
    size_t used = IN(qkv_blocks_layout)(w->t, IN(qkv_blocks_of_walk)(a), a, memory);
    if (used == SIZE_MAX) return SIZE_MAX;
    qkv_cursor c = {.base = memory, .used = used};
    w->other_tile = qkv_take(&c, sizeof(real), IN(qkv_keys_of)(a), QKV_LANES);
    w->other_rescale = qkv_take(&c, sizeof(real), QKV_LANES, 1);
    return c.overflow ? SIZE_MAX : c.used;
}

static size_t forward_share(const qkv_attention *a)
{
    walk w;
    size_t tiles = layout(&w, a, NULL);
    size_t decode = IN(qkv_decode_suits)(a) ? IN(qkv_decode_share)(a) : 0;
    return tiles > decode ? tiles : decode;
}

static size_t forward_common(const qkv_attention *a)
{
    return IN(qkv_decode_suits)(a) ? IN(qkv_decode_common)(a) : 0;
}

static ptrdiff_t pieces(const qkv_attention *a)
{
    return a->batch * a->heads * IN(qkv_blocks_of)(a);
}

static ptrdiff_t forward_pieces(const qkv_attention *a)
{
    return IN(qkv_decode_suits)(a) ? IN(qkv_decode_pieces)(a) : pieces(a);
}

static void write_row(const FN(qkv_view) *to, const FN(qkv_block) *t, int i, real x)
{
    if (to->data) *FN(qkv_at)(to, t->batch, t->head, t->q0 + i) = x;
}

/* 1 over what o is divided by. A row that sees keys but has no weight is 0 / 0, and says so. */
static void invert_sums(const FN(qkv_block) *t, bool sums)
{
    const real *sum = t->sum, *any = t->any;
    real *restrict rescale = t->rescale;
    for (int i = 0; i < QKV_LANES; i++) {
        real x = sum[i];
        rescale[i] = 1 / (!sums || any[i] == 0 ? 1 : x);
    }
}

/* The pooled sums become outputs; the number of rows of the block whose kernel support is empty. */
static ptrdiff_t finish(FN(qkv_block) *t, const FN(qkv_outputs) *out)
{
    ptrdiff_t d = t->in->a.d_v, empty = 0;
    bool sums = qkv_has_sum(&t->in->a);
    bool logs = out->row_log_sum.data || out->lse.data || out->weights.data;
    invert_sums(t, sums);
    for (int i = 0; i < t->n_q; i++) {
        real log_sum = sums && logs ? log(t->sum[i]) : 0, max = sums ? t->max[i] : 0;
        empty += sums && t->any[i] != 0 && t->sum[i] == 0;
        write_row(&out->row_max, t, i, max);
        write_row(&out->row_log_sum, t, i, log_sum);
        real natural = t->base_2 ? max * (real)(1 / LOG2E) : max, lse = natural + log_sum;
        if (!sums && out->lse.data) lse = -log(t->threshold[i]);
        bool nothing = sums ? t->sum[i] == 0 : t->any[i] == 0;
        write_row(&out->lse, t, i, nothing ? (real)-INFINITY : lse);
        t->max[i] = max;
        t->log_sum[i] = t->base_2 ? log_sum * (real)LOG2E : log_sum; /* as backward reads it */
    }
    if (d) IN(qkv_from_lanes)
    (FN(qkv_at)(&out->o, t->batch, t->head, t->q0), out->o.stride[2], out->o.stride[3], t->n_q, d,
     t->o, t->rescale, false);
    return empty;
}

/* The matrix, since it was asked for: a second pass, now that max and sum are known. */
static void write_weights(FN(qkv_block) *t, const FN(qkv_view) *weights)
{
    ptrdiff_t n = t->in->a.n_k;
    for (ptrdiff_t k0 = 0; k0 < n; k0 += QKV_KEYS) {
        bool seen = IN(qkv_block_tile)(t, k0, QKV_KEYS);
        if (seen) IN(qkv_normalize_weights)(t);
        if (seen && t->in->a.dropout > 0) IN(qkv_dropout)(t, NULL, t->w);
        for (int i = 0; i < t->n_q; i++) {
            real *row = FN(qkv_at)(weights, t->batch, t->head, t->q0 + i);
            for (int j = 0; j < QKV_KEYS && k0 + j < n; j++)
                row[(k0 + j) * weights->stride[3]] =
                    seen && j < t->n_k ? t->w[j * QKV_LANES + i] : 0;
        }
    }
}

static void pool_pending(walk *w)
{
    if (w->pending.o) IN(qkv_pool_tile)(&w->pending, NULL);
    w->pending.o = NULL;
}

/* What t holds is pooled with the next tile; that one uses the other memory. */
static void keep_pending(walk *w, const FN(qkv_block) *t, const FN(qkv_pooling) *p)
{
    w->pending = *p;
    real *tile = t->s, *rescale = t->rescale;
    for (int i = 0; i < w->blocks; i++) {
        w->t[i].s = w->t[i].w = w->other_tile;
        w->t[i].rescale = w->other_rescale;
    }
    w->other_tile = tile;
    w->other_rescale = rescale;
}

static void softmax_tile(walk *w, FN(qkv_block) *t)
{
    FN(qkv_exponents) e = IN(qkv_softmax_begin)(t);
    FN(qkv_pooling) p = IN(qkv_pooling_of)(t);
    bool drops = t->in->a.dropout > 0;
    if (p.d > 0 && p.d <= 2 && !p.by_pairs && !drops) {
        IN(qkv_pool_narrow)(t, &e);
        IN(qkv_softmax_end)(t);
        return;
    }
    if (w->pending.o && w->pending.vectors == p.vectors) {
        IN(qkv_pool_tile)(&w->pending, &e);
        w->pending.o = NULL;
    } else {
        pool_pending(w);
        IN(qkv_softmax_weigh)(&e, t->vectors);
    }
    IN(qkv_softmax_end)(t);
    if (drops) IN(qkv_dropout)(t, NULL, t->w);
    if (p.by_pairs)
        IN(qkv_pool_tile)(&p, NULL);
    else
        keep_pending(w, t, &p);
}

static void forward_tile(walk *w, FN(qkv_block) *t)
{
    if (qkv_is_softmax(&t->in->a)) {
        softmax_tile(w, t);
        return;
    }
    IN(qkv_normalize_online)(t);
    if (t->in->a.dropout > 0) IN(qkv_dropout)(t, NULL, t->w);
    FN(qkv_pooling) p = IN(qkv_pooling_of)(t);
    IN(qkv_pool_tile)(&p, NULL);
}

static void end_leg(walk *w, bool last)
{
    pool_pending(w);
    for (int i = 0; i < w->blocks; i++) IN(qkv_normalize_leg)(&w->t[i], last);
}

/* One walk: blocks of one head, from the one of this index on. */
static ptrdiff_t forward_walk(walk *w, ptrdiff_t batch, ptrdiff_t head, ptrdiff_t first,
                              const FN(qkv_outputs) *out)
{
    const FN(qkv_inputs) *in = w->t[0].in;
    IN(qkv_span) keys = {.first = PTRDIFF_MAX}; /* that some block may see */
    ptrdiff_t empty = 0;
    /* Rows that had to be packed are gone with the next tile. */
    bool packed = in->v.stride[3] != 1 && in->a.d_v > 1;
    for (int i = 0; i < w->blocks; i++) {
        FN(qkv_block) *t = &w->t[i];
        IN(qkv_block_begin)(t, batch, head, first + i);
        IN(qkv_block_scan)(t, QKV_KEYS);
        if (in->a.d_v) memset(t->o, 0, sizeof(real) * (size_t)in->a.d_v * QKV_LANES);
        IN(qkv_span) span = IN(qkv_mask_span)(t);
        keys.first = smaller(keys.first, span.first);
        keys.end = span.end > keys.end ? span.end : keys.end;
    }
    bool many = in->a.n_k > QKV_LEG;
    for (int i = 0; i < w->blocks && many; i++) IN(qkv_legs_begin)(&w->t[i], keys);
    for (ptrdiff_t k0 = keys.first / QKV_KEYS * QKV_KEYS; k0 < keys.end; k0 += QKV_KEYS) {
        if (many && w->t[0].legs && k0 % QKV_LEG == 0) end_leg(w, false);
        for (int i = 0; i < w->blocks; i++) {
            /* What is before the block's first key would only be hidden. */
            ptrdiff_t seen = IN(qkv_mask_span)(&w->t[i]).first;
            ptrdiff_t from = seen > k0 ? smaller(seen, k0 + QKV_KEYS) : k0;
            if (packed) pool_pending(w);
            if (IN(qkv_block_tile)(&w->t[i], from, (int)(k0 + QKV_KEYS - from)))
                forward_tile(w, &w->t[i]);
        }
    }
    pool_pending(w);
    if (many) end_leg(w, true); /* a sink may have waited */
    for (int i = 0; i < w->blocks; i++) {
        empty += finish(&w->t[i], out);
        if (out->weights.data) write_weights(&w->t[i], &out->weights);
    }
    return empty;
}

/* Blocks of a walk: as many as possible share keys, if the threads then still finish together. */
static ptrdiff_t blocks_of_walk(const qkv_attention *a, int threads)
{
    ptrdiff_t blocks = IN(qkv_blocks_of)(a), rows = a->batch * a->heads, best = QKV_BLOCKS;
    double least = INFINITY;
    for (ptrdiff_t size = QKV_BLOCKS; size >= 1; size--) {
        ptrdiff_t walks = rows * ((blocks + size - 1) / size);
        double longest = (double)((walks + threads - 1) / threads * size);
        double cost = longest * (1 + 0.03 / (double)size); /* of fetching keys again, about */
        if (cost < least) best = size;
        least = cost < least ? cost : least;
    }
    return best;
}

/* A call: its walks go to whichever thread is free. */
typedef struct job {
    const FN(qkv_inputs) *in;
    const FN(qkv_outputs) *out;
    ptrdiff_t size, walks; /* blocks of a walk, walks of a head */
    ptrdiff_t taken, empty;
} job;

static void run(void *context, void *memory)
{
    job *x = context;
    const qkv_attention *a = &x->in->a;
    ptrdiff_t blocks = IN(qkv_blocks_of)(a), work = a->batch * a->heads * x->walks, empty = 0;
    walk w; /* where one block is all, zeros for four would be 3 % of a small problem */
    w.t[0] = (FN(qkv_block)){.in = x->in}; /* layout gives it to the others */
    w.pending.o = NULL;
    layout(&w, a, memory);
    for (ptrdiff_t i; (i = qkv_team_take(&x->taken)) < work;) {
        ptrdiff_t row = i / x->walks, first = (x->walks - 1 - i % x->walks) * x->size;
        w.blocks = (int)smaller(blocks - first, x->size);
        empty += forward_walk(&w, row / a->heads, row % a->heads, first, x->out);
    }
    __atomic_fetch_add(&x->empty, empty, __ATOMIC_RELAXED);
}

static ptrdiff_t forward(const FN(qkv_inputs) *in, const FN(qkv_outputs) *out, const qkv_team *team)
{
    const qkv_attention *a = &in->a;
    bool masked = in->mask.data || in->mask_rule.fill;
    bool plain = !IN(qkv_biased)(in) && !in->sink.data && !masked && !out->weights.data;
    if (plain && IN(qkv_decode_suits)(a)) {
        IN(qkv_decode)(in, out, team);
        return 0;
    }
    job x = {.in = in, .out = out, .size = blocks_of_walk(a, team->threads)};
    x.walks = (IN(qkv_blocks_of)(a) + x.size - 1) / x.size;
    qkv_team_run(team, team->threads, run, &x);
    return x.empty;
}

const FN(qkv_forward_kernels) IN(qkv_forward_kernels) = {
    .forward_pieces = forward_pieces,
    .forward_common = forward_common,
    .covariance_pieces = pieces,
    .forward_share = forward_share,
    .forward = forward,
    .covariance_share = IN(qkv_covariance_share),
    .covariance = IN(qkv_covariance),
    .summary_share = IN(qkv_summary_share),
    .summary_common = IN(qkv_summary_common),
    .summarize = IN(qkv_summarize),
};
