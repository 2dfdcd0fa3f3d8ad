/* summary.c - each block of queries passes over the keys once more, now that the rows' max and sum
 * are known, and keeps what the weights say. Blocks of a head add to its column sums in turns
 * (turn.h).
 *
 *     entropy = log W - sum w log w / W,  W = sum w */
#include "kernels.h"
#include "simd/log.h"
#include "tile.h"
#include "turn.h"
#include "workspace.h"

typedef struct summary {
    FN(qkv_block) t;
    const FN(qkv_summary_views) *out;
    real *sum, *squares, *logs; /* QKV_LANES: W, sum w^2, sum w log w */
    real *least;                /* QKV_LANES: what is not above is not among the largest */
} summary;

static size_t layout(summary *x, const qkv_attention *a, void *memory)
{
    size_t used = IN(qkv_blocks_layout)(&x->t, 1, a, memory);
    if (used == SIZE_MAX) return SIZE_MAX;
    qkv_cursor c = {.base = memory, .used = used};
    real **const rows[] = {&x->sum, &x->squares, &x->logs, &x->least};
    for (int i = 0; i < 4; i++) *rows[i] = qkv_take(&c, sizeof(real), QKV_LANES, 1);
    return c.overflow ? SIZE_MAX : c.used;
}

size_t IN(qkv_summary_share)(const qkv_attention *a)
{
    summary x;
    return layout(&x, a, NULL);
}

size_t IN(qkv_summary_common)(const qkv_attention *a)
{
    qkv_cursor c = {0};
    qkv_take(&c, sizeof(ptrdiff_t), a->batch * a->heads * IN(qkv_blocks_of)(a), 1);
    return c.overflow ? SIZE_MAX : c.used;
}

static int64_t *keys_of(const summary *x, ptrdiff_t row)
{
    const qkv_attention *a = &x->t.in->a;
    if (!x->out->top_keys) return NULL;
    return x->out->top_keys + ((x->t.batch * a->heads + x->t.head) * a->n_q + row) * x->out->top;
}

static void begin(summary *x, ptrdiff_t batch, ptrdiff_t head, ptrdiff_t index)
{
    FN(qkv_block) *t = &x->t;
    const FN(qkv_summary_views) *out = x->out;
    IN(qkv_block_begin)(t, batch, head, index);
    IN(qkv_block_scan)(t, QKV_KEYS);
    for (int i = 0; i < QKV_LANES; i++) {
        bool used = i < t->n_q && qkv_has_sum(&t->in->a);
        t->max[i] = used ? *FN(qkv_at)(&out->row_max, batch, head, t->q0 + i) : 0;
        t->log_sum[i] = used ? *FN(qkv_at)(&out->row_log_sum, batch, head, t->q0 + i) : 0;
        if (t->base_2) t->log_sum[i] *= (real)LOG2E;
        x->sum[i] = x->squares[i] = x->logs[i] = x->least[i] = 0;
    }
    for (int i = 0; i < t->n_q && out->top_weights.data; i++) {
        real *top = FN(qkv_at)(&out->top_weights, batch, head, t->q0 + i);
        int64_t *keys = keys_of(x, t->q0 + i);
        for (ptrdiff_t n = 0; n < out->top; n++) top[n * out->top_weights.stride[3]] = 0;
        for (ptrdiff_t n = 0; n < out->top && keys; n++) keys[n] = -1;
    }
}

static void add_moments(summary *x)
{
    const FN(qkv_block) *t = &x->t;
    for (int lane = 0; lane < t->vectors * QKV_VEC; lane += QKV_VEC) {
        vec sum = splat(0), squares = splat(0), logs = splat(0);
        for (int y = lane; y < t->n_k * QKV_LANES; y += QKV_LANES) {
            vec w = load(t->w + y);
            sum += w;
            squares += w * w;
            logs += choose(w < REAL_MIN, splat(0), w * log_of(w));
        }
        store(x->sum + lane, load(x->sum + lane) + sum);
        store(x->squares + lane, load(x->squares + lane) + squares);
        store(x->logs + lane, load(x->logs + lane) + logs);
    }
}

/* Among the largest of its query. */
static void insert(summary *x, int i, real w, ptrdiff_t key)
{
    const FN(qkv_view) *view = &x->out->top_weights;
    ptrdiff_t step = view->stride[3], at = x->out->top - 1, row = x->t.q0 + i;
    real *top = FN(qkv_at)(view, x->t.batch, x->t.head, row);
    int64_t *keys = keys_of(x, row);
    for (; at > 0; at--) {
        real before = top[(at - 1) * step];
        if (before != before || (w == w && w <= before)) break;
        top[at * step] = before;
        if (keys) keys[at] = keys[at - 1];
    }
    top[at * step] = w;
    if (keys) keys[at] = key;
    x->least[i] = top[(x->out->top - 1) * step];
}

static void find_top(summary *x)
{
    const FN(qkv_block) *t = &x->t;
    if (!x->out->top_weights.data || !x->out->top) return;
    for (int j = 0; j < t->n_k; j++)
        for (int lane = 0; lane < t->vectors * QKV_VEC; lane += QKV_VEC) {
            const vec w = load(t->w + j * QKV_LANES + lane), least = load(x->least + lane);
            for (unsigned m = which(~(w <= least) & (least == least)); m; m &= m - 1) {
                int i = lane + __builtin_ctz(m);
                if (i < t->n_q) insert(x, i, w[i - lane], t->k0 + j);
            }
        }
}

static void write_rows(const summary *x, bool seen, ptrdiff_t k0)
{
    const FN(qkv_block) *t = &x->t;
    const FN(qkv_view) *view = &x->out->row_weights;
    ptrdiff_t n = smaller(QKV_KEYS, t->in->a.n_k - k0);
    for (ptrdiff_t r = 0; r < x->out->n_rows && view->data; r++) {
        ptrdiff_t i = x->out->rows[r] - t->q0;
        if (i < 0 || i >= t->n_q) continue;
        real *to = FN(qkv_at)(view, t->batch, t->head, r) + k0 * view->stride[3];
        for (ptrdiff_t j = 0; j < n; j++)
            to[j * view->stride[3]] = seen && j < t->n_k ? t->w[j * QKV_LANES + i] : 0;
    }
}

static void add_columns(const summary *x)
{
    const FN(qkv_block) *t = &x->t;
    const FN(qkv_view) *view = &x->out->column_sums;
    if (!view->data) return;
    real *to = FN(qkv_at)(view, t->batch, t->head, 0) + t->k0 * view->stride[3];
    for (int j = 0; j < t->n_k; j++) {
        real sum = 0;
        for (int i = 0; i < t->n_q; i++) sum += t->w[j * QKV_LANES + i];
        to[j * view->stride[3]] += sum;
    }
}

static void finish(const summary *x)
{
    const FN(qkv_block) *t = &x->t;
    const FN(qkv_view) *entropy = &x->out->entropy, *effective = &x->out->effective_keys;
    for (int i = 0; i < t->n_q; i++) {
        real sum = x->sum[i], h = sum == 0 ? 0 : log(sum) - x->logs[i] / sum;
        if (h < 0) h = 0; /* by rounding */
        if (entropy->data) *FN(qkv_at)(entropy, t->batch, t->head, t->q0 + i) = h;
        real keys = sum == 0 ? 0 : sum / x->squares[i] * sum;
        if (effective->data) *FN(qkv_at)(effective, t->batch, t->head, t->q0 + i) = keys;
    }
}

typedef struct job {
    const FN(qkv_inputs) *in;
    const FN(qkv_summary_views) *out;
    ptrdiff_t *passed, taken;
} job;

static void block(const job *y, summary *x, ptrdiff_t item)
{
    const qkv_attention *a = &y->in->a;
    ptrdiff_t blocks = IN(qkv_blocks_of)(a), row = item / blocks;
    const qkv_turn turn = {.passed = y->passed, .item = item, .first = item % blocks == 0};
    FN(qkv_block) *t = &x->t;
    begin(x, row / a->heads, row % a->heads, item % blocks);
    for (ptrdiff_t k0 = 0; k0 < a->n_k; k0 += QKV_KEYS) {
        bool seen = IN(qkv_block_tile)(t, k0, QKV_KEYS);
        if (seen) IN(qkv_normalize_weights)(t);
        write_rows(x, seen, k0);
        if (seen) add_moments(x);
        if (seen) find_top(x);
        qkv_turn_wait(&turn, k0 + QKV_KEYS);
        if (seen) add_columns(x);
        qkv_turn_pass(&turn, k0 + QKV_KEYS);
    }
    qkv_turn_end(&turn);
    finish(x);
}

static void run(void *context, void *memory)
{
    job *y = context;
    const qkv_attention *a = &y->in->a;
    ptrdiff_t work = a->batch * a->heads * IN(qkv_blocks_of)(a);
    summary x = {.t.in = y->in, .out = y->out};
    layout(&x, a, memory);
    for (ptrdiff_t i; (i = qkv_team_take(&y->taken)) < work;) block(y, &x, i);
}

void IN(qkv_summarize)(const FN(qkv_inputs) *in, const FN(qkv_summary_views) *out,
                       const qkv_team *team)
{
    const qkv_attention *a = &in->a;
    const FN(qkv_view) *columns = &out->column_sums;
    ptrdiff_t items = a->batch * a->heads * IN(qkv_blocks_of)(a);
    job x = {.in = in, .out = out, .passed = (ptrdiff_t *)(void *)team->memory};
    memset(x.passed, 0, sizeof *x.passed * (size_t)items);
    for (ptrdiff_t row = 0; row < a->batch * a->heads && columns->data; row++)
        for (ptrdiff_t j = 0; j < a->n_k; j++)
            FN(qkv_at)(columns, row / a->heads, row % a->heads, 0)[j * columns->stride[3]] = 0;
    if (team->threads == 1) x.passed = NULL;
    qkv_team_run(team, team->threads, run, &x);
}
