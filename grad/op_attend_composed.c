/* op_attend_composed.c - attention composed of operations of the tape, which have derivatives of
 * every order: what the nodes of its gradients, where the fused forms end, are differentiated as.
 * Here scores and biases, in op_attend_weights.c what becomes of them. All pairs of queries and
 * keys are kept. */
#include "grad/op_attend.h"
#include "grad/reverse.h"
#include "src/inputs.h"
#include "src/real.h"

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

/* sum_c (q_c - k_c)^2, differences first: compact kernels are used with neighbours that are near
 * each other and far from the mean. */
static qkv_var near_distance(qkv_tape *t, qkv_var q, qkv_var k)
{
    qkv_var u = qkv_sub(t, with_axis(t, q, 3), with_axis(t, k, 2));
    return qkv_sum(t, qkv_mul(t, u, u), (const int[]){4}, 1, false);
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
    const bool compact = p->a.normalize == QKV_KERNEL_SUM || p->a.normalize == QKV_NONE_KERNEL;
    qkv_var square = compact ? near_distance(t, q, k) : square_distance(t, q, k);
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

static qkv_var sum_of(qkv_tape *t, qkv_var a, qkv_var b)
{
    return a.generation ? qkv_add(t, a, b) : b;
}

/* Of all kinds; {0}: none. */
static qkv_var biases(qkv_tape *t, const attend_problem *p, const qkv_var *x)
{
    qkv_var b = operand(p, x, BIAS), slopes = operand(p, x, SLOPES),
            table = operand(p, x, RELATIVE);
    if (slopes.generation) b = sum_of(t, b, qkv_mul(t, by_head(t, slopes), distances(t, p)));
    return table.generation ? sum_of(t, b, relative(t, p, table)) : b;
}

/* ---- All of it ---- */

/* NaN for the rows whose kernel's support is empty. */
static void mark_empty(const void *problem, double *x)
{
    const attend_problem *p = problem;
    for (size_t row = 0; row < p->n / (size_t)p->a.n_k; row++)
        x[row] = p->rows[row] == QKV_ROW_EMPTY ? NAN : 0;
}

/* Added to o: such a row and the gradient of its query are NaN, and nothing else is. */
static qkv_var spoiled(qkv_tape *t, const attend_problem *p, qkv_var q)
{
    q = qkv_reshape(t, q, qkv_shape4(p->a.batch, p->a.heads, p->a.n_q, p->a.d_k));
    qkv_var square = sum_last(t, qkv_mul(t, q, q));
    return qkv_mul(t, square, qkv_constant_marks(t, square, mark_empty, p));
}

static qkv_var weights(qkv_tape *t, const attend_problem *p, const qkv_var *x)
{
    const qkv_attention *a = &p->a;
    attend_scores of = {.s = {0}};
    if (qkv_attend_reads_scores(p)) {
        of =
            (attend_scores){.s = score(t, p, x), .b = biases(t, p, x), .sink = operand(p, x, SINK)};
        if (a->softcap > 0)
            of.s = times(t, qkv_tanh(t, times(t, of.s, 1 / a->softcap)), a->softcap);
        if (of.sink.generation) of.sink = by_head(t, of.sink);
    }
    return qkv_attend_weights(t, p, &of);
}

/* o [batch, heads, n_q, d_v] of q, k and v with these axes. */
static qkv_var pooled(qkv_tape *t, const attend_problem *p, const qkv_var *x)
{
    const qkv_attention *a = &p->a;
    qkv_var w = by_query(t, p, weights(t, p, x), a->n_k);
    qkv_var o = qkv_matmul(t, w, by_key(t, p, x[V], a->d_v));
    o = qkv_reshape(t, o, qkv_shape4(a->batch, a->heads, a->n_q, a->d_v));
    return p->any_empty ? qkv_add(t, o, spoiled(t, p, x[Q])) : o;
}

static qkv_var pooled_ragged(qkv_tape *t, const attend_problem *p, const qkv_var *x)
{
    const qkv_attention *a = &p->a;
    qkv_var in[INPUTS];
    for (int i = 0; i < INPUTS; i++)
        if (p->input[i] >= 0) in[p->input[i]] = x[p->input[i]];
    in[Q] = qkv_attend_pad(t, p->starts_q, a->batch, a->n_q, x[Q], a->heads, a->d_k);
    in[K] = qkv_attend_pad(t, p->starts_k, a->batch, a->n_k, x[K], a->kv_heads, a->d_k);
    in[V] = qkv_attend_pad(t, p->starts_k, a->batch, a->n_k, x[V], a->kv_heads, a->d_v);
    if (p->input[BIAS] >= 0) in[p->input[BIAS]] = qkv_attend_pad_bias(t, p, operand(p, x, BIAS));
    return qkv_attend_unpad(t, p, pooled(t, p, in));
}

qkv_var qkv_attend_composed(qkv_tape *t, const attend_problem *p, const qkv_var *x)
{
    qkv_var o = p->starts_q ? pooled_ragged(t, p, x) : pooled(t, p, x);
    qkv_shape shape = qkv_shape_of(t, x[Q]);
    if (shape.rank < 1) return o; /* in error */
    shape.dim[shape.rank - 1] = p->a.d_v;
    return qkv_reshape(t, o, shape);
}
#endif
