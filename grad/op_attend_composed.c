/* op_attend_composed.c - attention composed of operations of the tape, which have derivatives of
 * every order: what op_attend_second.c, where the fused forms end, is differentiated as. All pairs
 * of queries and keys are kept. */
#include <string.h>

#include "grad/op_attend.h"
#include "grad/reverse.h"
#include "src/inputs.h"
#include "src/real.h"
#include "src/size.h"

/* Which keys a query sees, and dropout keeps: [batch, heads, n_q, n_k], asked of attention itself,
 * whose uniform weights of those are not 0. */
static bool *seen_of(qkv_tape *tape, const qkv_node *node, const attend_state *s, size_t n,
                     double dropout)
{
    attend_state uniform = {.a = s->a};
    uniform.a.score = QKV_SCORE_DOT;
    uniform.a.normalize = QKV_UNIFORM;
    uniform.a.d_k = uniform.a.d_v = 0;
    uniform.a.bandwidths = 0;
    uniform.a.softcap = 0;
    uniform.a.dropout = dropout;
    const FN(qkv_operands) in = {.bias = s->in.bias,
                                 .relative = s->in.relative,
                                 .mask = s->in.mask,
                                 .mask_rule = s->in.mask_rule,
                                 .lengths = s->in.lengths,
                                 .causal_offsets = s->in.causal_offsets};
    bool *seen = qkv_node_take(tape, node, n, sizeof *seen);
    real *weight = seen ? qkv_node_take(tape, node, n, sizeof *weight) : NULL;
    size_t bytes;
    void *memory =
        weight ? FN(qkv_attend_workspace)(tape, node, &uniform, QKV_FORWARD, &bytes) : NULL;
    if (!memory) return NULL;
    const FN(qkv_results) out = {.weights.data = weight};
    if (FN(qkv_attend_report)(tape, node,
                              FN(qkv_attention_forward)(&uniform.a, &in, &out, memory, bytes)))
        return NULL;
    for (size_t i = 0; i < n; i++) seen[i] = weight[i] != 0;
    return seen;
}

qkv_status FN(qkv_attend_problem)(qkv_tape *tape, const qkv_node *node, const attend_state *s,
                                  attend_problem *p)
{
    *p = (attend_problem){.a = s->a, .causal_offsets = s->in.causal_offsets};
    memcpy(p->input, s->input, sizeof p->input);
    p->n = 1;
    if (!qkv_size_mul(&p->n, s->a.batch) || !qkv_size_mul(&p->n, s->a.heads) ||
        !qkv_size_mul(&p->n, s->a.n_q) || !qkv_size_mul(&p->n, s->a.n_k))
        return qkv_node_fail(tape, node, QKV_E_OVERFLOW, "the number of pairs overflows");
    p->seen = seen_of(tape, node, s, p->n, 0);
    p->kept = p->seen && s->a.dropout > 0 ? seen_of(tape, node, s, p->n, s->a.dropout) : p->seen;
    return tape->status;
}

#if QKV_REAL == 64 /* what has no dtype is compiled once */
/* ---- Shapes ---- */

static double is_zero(double x)
{
    return x == 0;
}

static double sign(double x)
{
    return (x > 0) - (x < 0);
}

static qkv_var times(qkv_tape *t, qkv_var x, double factor)
{
    return qkv_mul(t, x, qkv_constant(t, factor));
}

/* Over the last axis, which stays. */
static qkv_var sum_last(qkv_tape *t, qkv_var x)
{
    return qkv_sum(t, x, (const int[]){-1}, 1, true);
}

static qkv_var turned(qkv_tape *t, qkv_var x)
{
    return qkv_transpose(t, x, (const int[]){0, 1, 3, 2});
}

/* One number, or one a head, to go with [batch, heads, n_q, n_k]. */
static qkv_var by_head(qkv_tape *t, qkv_var x)
{
    return qkv_reshape(t, x, qkv_shape3((ptrdiff_t)qkv_size_of(t, x), 1, 1));
}

/* The queries of all heads that share keys, one head's after another's: products with keys and
 * values then need no copies of these. */
static qkv_var by_query(qkv_tape *t, const attend_problem *p, qkv_var x, ptrdiff_t d)
{
    const ptrdiff_t rows = p->a.heads / p->a.kv_heads * p->a.n_q;
    return qkv_reshape(t, x, qkv_shape4(p->a.batch, p->a.kv_heads, rows, d));
}

static qkv_var by_key(qkv_tape *t, const attend_problem *p, qkv_var x, ptrdiff_t d)
{
    return qkv_reshape(t, x, qkv_shape4(p->a.batch, p->a.kv_heads, p->a.n_k, d));
}

/* With an axis of size 1 before this one. */
static qkv_var with_axis(qkv_tape *t, qkv_var x, int axis)
{
    qkv_shape s = qkv_shape_of(t, x);
    for (int i = s.rank++; i > axis; i--) s.dim[i] = s.dim[i - 1];
    s.dim[axis] = 1;
    return qkv_reshape(t, x, s);
}

/* ---- Scores: a(q, k), [batch, kv_heads, rows, n_k] ---- */

/* Rows of length 1; one of length 0 stays, without a gradient. */
static qkv_var unit_rows(qkv_tape *t, qkv_var x)
{
    qkv_var square = sum_last(t, qkv_mul(t, x, x)), zero = qkv_constant_map(t, square, is_zero);
    qkv_var live = qkv_sub(t, qkv_constant(t, 1), zero);
    return qkv_div(t, qkv_mul(t, x, live), qkv_sqrt(t, qkv_add(t, square, zero)));
}

static qkv_var dot(qkv_tape *t, qkv_var q, qkv_var k)
{
    return qkv_matmul(t, q, turned(t, k));
}

/* ||q||^2 + ||k||^2 - 2 q'k, all of them counted from the mean key. */
static qkv_var square_distance(qkv_tape *t, qkv_var q, qkv_var k)
{
    qkv_var middle = qkv_detach(t, qkv_mean(t, k, (const int[]){2}, 1, true));
    q = qkv_sub(t, q, middle);
    k = qkv_sub(t, k, middle);
    qkv_var qq = sum_last(t, qkv_mul(t, q, q)), kk = sum_last(t, qkv_mul(t, k, k));
    return qkv_sub(t, qkv_add(t, qq, turned(t, kk)), times(t, dot(t, q, k), 2));
}

/* sum_c |q_c - k_c|, straight on both sides of its corners. */
static qkv_var absolute_distance(qkv_tape *t, qkv_var q, qkv_var k)
{
    qkv_var u = qkv_sub(t, with_axis(t, q, 3), with_axis(t, k, 2));
    return qkv_sum(t, qkv_mul(t, u, qkv_constant_map(t, u, sign)), (const int[]){4}, 1, false);
}

static qkv_var additive(qkv_tape *t, qkv_var q, qkv_var k, qkv_var w)
{
    qkv_var z = qkv_add(t, with_axis(t, q, 3), with_axis(t, k, 2));
    return qkv_matmul(t, qkv_tanh(t, z), w);
}

static qkv_var operand(const attend_problem *p, const qkv_var *x, int which)
{
    return p->input[which] < 0 ? (qkv_var){0} : x[p->input[which]];
}

/* Times the scale of each head: x [batch, heads, ..]. */
static qkv_var scaled(qkv_tape *t, const attend_problem *p, const qkv_var *given, qkv_var x)
{
    qkv_var scale = operand(p, given, SCALE);
    if (scale.generation) return qkv_mul(t, x, by_head(t, scale));
    return p->a.score == QKV_SCORE_SCALED_DOT ? times(t, x, 1 / sqrt((double)p->a.d_k)) : x;
}

/* Of grouped q and k. */
static qkv_var distance_score(qkv_tape *t, const attend_problem *p, qkv_var h, qkv_var q, qkv_var k)
{
    if (h.generation) {
        h = qkv_reshape(t, h, qkv_shape1((ptrdiff_t)qkv_size_of(t, h)));
        q = qkv_div(t, q, h);
        k = qkv_div(t, k, h);
    }
    if (p->a.score == QKV_SCORE_LAPLACE) return qkv_neg(t, absolute_distance(t, q, k));
    qkv_var square = square_distance(t, q, k);
    if (p->a.score == QKV_SCORE_GAUSSIAN) return times(t, square, -0.5);
    return qkv_neg(t, qkv_log(t, qkv_add(t, qkv_constant(t, 1), square)));
}

/* scale a(q, k), [batch, heads, n_q, n_k]. Where that is linear in q, q is scaled: less memory. */
static qkv_var score(qkv_tape *t, const attend_problem *p, const qkv_var *x)
{
    const qkv_attention *a = &p->a;
    const qkv_shape pairs = qkv_shape4(a->batch, a->heads, a->n_q, a->n_k);
    qkv_var q = qkv_reshape(t, x[Q], qkv_shape4(a->batch, a->heads, a->n_q, a->d_k));
    qkv_var k = by_key(t, p, x[K], a->d_k);
    if (a->score <= QKV_SCORE_COSINE) {
        if (a->score == QKV_SCORE_COSINE) {
            q = unit_rows(t, q);
            k = unit_rows(t, k);
        }
        q = by_query(t, p, scaled(t, p, x, q), a->d_k);
        return qkv_reshape(t, dot(t, q, k), pairs);
    }
    q = by_query(t, p, q, a->d_k);
    qkv_var s = a->score == QKV_SCORE_ADDITIVE
                    ? additive(t, q, k, operand(p, x, W))
                    : distance_score(t, p, operand(p, x, BANDWIDTH), q, k);
    return scaled(t, p, x, qkv_reshape(t, s, pairs));
}

/* ---- Biases: what is added to [batch, heads, n_q, n_k] ---- */

/* j - i - causal_offset for each batch item that has one of its own, query and key. */
static void mark_distances(const void *problem, double *x)
{
    const attend_problem *p = problem;
    for (ptrdiff_t b = 0; b < (p->causal_offsets ? p->a.batch : 1); b++) {
        const double offset =
            p->causal_offsets ? (double)p->causal_offsets[b] : (double)p->a.mask.causal_offset;
        for (ptrdiff_t i = 0; i < p->a.n_q; i++)
            for (ptrdiff_t j = 0; j < p->a.n_k; j++) *x++ = (double)(j - i) - offset;
    }
}

static qkv_shape distances_shape(const attend_problem *p)
{
    return qkv_shape4(p->causal_offsets ? p->a.batch : 1, 1, p->a.n_q, p->a.n_k);
}

static qkv_var distances(qkv_tape *t, const attend_problem *p)
{
    qkv_var like = qkv_broadcast(t, qkv_constant(t, 0), distances_shape(p));
    return qkv_constant_marks(t, like, mark_distances, p);
}

/* The table's entry for each distance, the outermost for those beyond. */
static qkv_var relative(qkv_tape *t, const attend_problem *p, qkv_var table)
{
    const qkv_shape s = distances_shape(p);
    const ptrdiff_t n = s.dim[0] * p->a.n_q * p->a.n_k, entries = qkv_relative_size(&p->a);
    const qkv_node *node = qkv_node_of(t, table, "qkv_grad");
    double *distance = node ? qkv_node_take(t, node, (size_t)n, sizeof *distance) : NULL;
    ptrdiff_t *index = distance ? qkv_node_take(t, node, (size_t)n, sizeof *index) : NULL;
    if (!index) return table;
    mark_distances(p, distance);
    for (ptrdiff_t i = 0; i < n; i++) {
        double at = distance[i] + (double)p->a.relative_left;
        index[i] = at < 0 ? 0 : at < (double)entries ? (ptrdiff_t)at : entries - 1;
    }
    const ptrdiff_t heads = (ptrdiff_t)node->size / entries;
    qkv_var all = qkv_gather(t, table, -1, index, n);
    all = qkv_reshape(t, all, qkv_shape4(heads, s.dim[0], p->a.n_q, p->a.n_k));
    return qkv_transpose(t, all, (const int[]){1, 0, 2, 3});
}

static qkv_var biased(qkv_tape *t, const attend_problem *p, const qkv_var *x, qkv_var s)
{
    qkv_var bias = operand(p, x, BIAS), slopes = operand(p, x, SLOPES),
            table = operand(p, x, RELATIVE);
    if (bias.generation) s = qkv_add(t, s, bias);
    if (slopes.generation) s = qkv_add(t, s, qkv_mul(t, by_head(t, slopes), distances(t, p)));
    if (table.generation) s = qkv_add(t, s, relative(t, p, table));
    return s;
}

/* ---- Weights ---- */

/* The exponents of hidden keys become -inf, whatever they were; 0 where all are (*blind), so that
 * the softmax is one: mark_kept has the last word. */
static qkv_var hide(qkv_tape *t, const attend_problem *p, qkv_var s, bool *blind)
{
    const qkv_node *node = qkv_node_of(t, s, "qkv_grad");
    ptrdiff_t *index = node ? qkv_node_take(t, node, p->n, sizeof *index) : NULL;
    if (!index) return s;
    const size_t n_k = (size_t)p->a.n_k;
    for (size_t row = 0; row < p->n; row += n_k) {
        bool any = memchr(p->seen + row, true, n_k);
        *blind |= !any;
        for (size_t i = row; i < row + n_k; i++)
            index[i] = (ptrdiff_t)(p->seen[i] ? i : any ? p->n : p->n + 1);
    }
    const qkv_shape one = qkv_shape1(1), shape = qkv_shape_of(t, s);
    qkv_var parts[] = {qkv_reshape(t, s, qkv_shape1((ptrdiff_t)p->n)),
                       qkv_reshape(t, qkv_constant(t, (double)-INFINITY), one),
                       qkv_reshape(t, qkv_constant(t, 0), one)};
    qkv_var seen = qkv_gather(t, qkv_concat(t, parts, 3, 0), 0, index, (ptrdiff_t)p->n);
    return qkv_reshape(t, seen, shape);
}

static void mark_kept(const void *problem, double *x)
{
    const attend_problem *p = problem;
    for (size_t i = 0; i < p->n; i++) x[i] = p->kept[i] ? 1 / (1 - p->a.dropout) : 0;
}

static qkv_var weights(qkv_tape *t, const attend_problem *p, qkv_var s, qkv_var sink)
{
    const qkv_attention *a = &p->a;
    bool blind = false;
    if (memchr(p->seen, false, p->n)) s = hide(t, p, s, &blind);
    if (sink.generation) {
        const qkv_shape column = qkv_shape4(a->batch, a->heads, a->n_q, 1);
        sink = qkv_broadcast(t, by_head(t, sink), column);
        s = qkv_concat(t, (qkv_var[]){s, sink}, 2, 3);
    }
    qkv_var w = qkv_softmax(t, s, 3);
    if (sink.generation) w = qkv_slice(t, w, 3, 0, a->n_k, 1);
    if (!blind && a->dropout == 0) return w;
    return qkv_mul(t, w, qkv_constant_marks(t, w, mark_kept, p));
}

qkv_var qkv_attend_composed(qkv_tape *t, const attend_problem *p, const qkv_var *x)
{
    const qkv_attention *a = &p->a;
    qkv_var s = score(t, p, x);
    if (a->softcap > 0) s = times(t, qkv_tanh(t, times(t, s, 1 / a->softcap)), a->softcap);
    qkv_var w = weights(t, p, biased(t, p, x, s), operand(p, x, SINK));
    qkv_shape shape = qkv_shape_of(t, x[Q]);
    if (shape.rank < 1) return w; /* in error */
    shape.dim[shape.rank - 1] = a->d_v;
    qkv_var o = qkv_matmul(t, by_query(t, p, w, a->n_k), by_key(t, p, x[V], a->d_v));
    return qkv_reshape(t, o, shape);
}
#endif
