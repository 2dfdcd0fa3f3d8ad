/* op_attend_weights.c - the weights of attention composed of operations of the tape: one function a
 * normaliser. Which keys are seen, and of those which are within a kernel's support, among the
 * largest or above a threshold, is asked of attention itself: to derivatives it is constant. */
#include <string.h>

#include "grad/op_attend.h"
#include "grad/reverse.h"
#include "src/inputs.h"
#include "src/real.h"
#include "src/size.h"

/* ---- Which keys, asked of attention ---- */

static bool is_kernel(const qkv_attention *a)
{
    return a->normalize == QKV_KERNEL_SUM || a->normalize == QKV_NONE_KERNEL;
}

/* Weights that do not move with the scores. */
static bool is_fixed(const qkv_attention *a)
{
    return a->normalize == QKV_HARD || a->normalize == QKV_UNIFORM ||
           a->normalize == QKV_TOP_K_UNIFORM;
}

/* The same mask with uniform weights, which are 0 only where it hides. */
static attend_state uniform_of(const attend_state *s)
{
    attend_state uniform = {
        .a = s->a, .ragged = s->ragged, .starts_q = s->starts_q, .starts_k = s->starts_k};
    uniform.a.score = QKV_SCORE_DOT;
    uniform.a.normalize = QKV_UNIFORM;
    uniform.a.d_k = uniform.a.bandwidths = uniform.a.top_k = 0;
    uniform.a.softcap = 0;
    uniform.in = (FN(qkv_operands)){.bias = s->in.bias,
                                    .relative = s->in.relative,
                                    .mask = s->in.mask,
                                    .mask_rule = s->in.mask_rule,
                                    .lengths = s->in.lengths,
                                    .causal_offsets = s->in.causal_offsets};
    return uniform;
}

/* Ragged batches are not asked for weights: they pool values e_j, row j of their item being 1 at j
 * and 0 elsewhere, and the answers [total_q, heads, n_k] go where the pairs of p are. */
static qkv_status ragged_weights(qkv_tape *tape, const qkv_node *node, attend_state *s,
                                 const attend_problem *p, real *weight)
{
    const size_t n_k = (size_t)p->a.n_k, heads = (size_t)p->a.heads;
    s->a.d_v = p->a.n_k;
    real *unit = qkv_node_take(tape, node, n_k * (size_t)s->a.n_k, sizeof *unit);
    real *o = unit ? qkv_node_take(tape, node, n_k * heads * (size_t)s->a.n_q, sizeof *o) : NULL;
    size_t bytes;
    void *memory = o ? FN(qkv_attend_workspace)(tape, node, s, QKV_FORWARD, &bytes) : NULL;
    if (!memory) return tape->status;
    memset(unit, 0, n_k * (size_t)s->a.n_k * sizeof *unit);
    for (ptrdiff_t b = 0; b < p->a.batch; b++)
        for (int64_t j = p->starts_k[b]; j < p->starts_k[b + 1]; j++)
            unit[(size_t)j * n_k + (size_t)(j - p->starts_k[b])] = 1;
    s->in.v = (FN(qkv_slot)){.data = unit, .strided = true, .stride = {0, 0, p->a.n_k, 1}};
    const FN(qkv_results) out = {.o = FN(qkv_attend_slot)(s, o, s->a.heads, s->a.d_v)};
    qkv_status status =
        FN(qkv_ragged_forward)(&s->a, s->starts_q, s->starts_k, &s->in, &out, memory, bytes);
    if (FN(qkv_attend_report)(tape, node, status)) return tape->status;
    memset(weight, 0, p->n * sizeof *weight);
    for (size_t b = 0; b < (size_t)p->a.batch; b++)
        for (int64_t i = p->starts_q[b]; i < p->starts_q[b + 1]; i++)
            for (size_t h = 0; h < heads; h++) {
                size_t row = (b * heads + h) * (size_t)p->a.n_q + (size_t)(i - p->starts_q[b]);
                memcpy(weight + row * n_k, o + ((size_t)i * heads + h) * n_k, n_k * sizeof *o);
            }
    return QKV_OK;
}

/* [batch, heads, n_q, n_k] as attention weighs them, without values. */
static real *weights_of(qkv_tape *tape, const qkv_node *node, attend_state s,
                        const attend_problem *p, double dropout)
{
    s.a.dropout = dropout;
    s.a.d_v = 0;
    s.in.v = (FN(qkv_slot)){.data = NULL};
    real *weight = qkv_node_take(tape, node, p->n, sizeof *weight);
    if (!weight) return NULL;
    if (s.ragged) return ragged_weights(tape, node, &s, p, weight) ? NULL : weight;
    size_t bytes;
    void *memory = FN(qkv_attend_workspace)(tape, node, &s, QKV_FORWARD, &bytes);
    if (!memory) return NULL;
    const FN(qkv_results) out = {.weights.data = weight};
    qkv_status status = FN(qkv_attention_forward)(&s.a, &s.in, &out, memory, bytes);
    return FN(qkv_attend_report)(tape, node, status) ? NULL : weight;
}

/* Rows that see keys but none within their kernel's support have weights NaN, unless they take
 * their nearest: seen and rows are of those then. */
static qkv_status find_support(qkv_tape *tape, const qkv_node *node, attend_state s,
                               attend_problem *p)
{
    const size_t n_k = (size_t)p->a.n_k;
    const bool nearest = s.a.empty == QKV_EMPTY_NEAREST;
    s.a.empty = QKV_EMPTY_NAN;
    const real *weight = weights_of(tape, node, s, p, 0), *near = weight;
    s.a.empty = QKV_EMPTY_NEAREST;
    if (weight && nearest) near = weights_of(tape, node, s, p, 0);
    p->rows = near ? qkv_node_take(tape, node, p->n / n_k, sizeof *p->rows) : NULL;
    if (!p->rows) return tape->status;
    const bool step = s.a.kernel == QKV_KERNEL_BOXCAR || s.a.kernel == QKV_KERNEL_CONSTANT;
    for (size_t i = 0; i < p->n; i++) {
        attend_row *row = &p->rows[i / n_k];
        if (i % n_k == 0) *row = step ? QKV_ROW_FLAT : QKV_ROW_USUAL;
        if (weight[i] != weight[i]) *row = nearest ? QKV_ROW_FLAT : QKV_ROW_EMPTY;
        p->seen[i] = near[i] == near[i] && near[i] != 0;
        p->any_empty |= *row == QKV_ROW_EMPTY;
        p->any_flat |= *row == QKV_ROW_FLAT;
    }
    return QKV_OK;
}

static qkv_status find_seen(qkv_tape *tape, const qkv_node *node, const attend_state *s,
                            attend_problem *p)
{
    if (is_kernel(&s->a)) return find_support(tape, node, *s, p);
    const real *weight = weights_of(tape, node, qkv_selects(&s->a) ? *s : uniform_of(s), p, 0);
    for (size_t i = 0; i < p->n && weight; i++) p->seen[i] = weight[i] != 0;
    return tape->status;
}

/* Would marks without dropout change any weight? A softmax has zeros where it does not see, unless
 * that is everywhere. */
static bool marks_matter(const attend_problem *p)
{
    const size_t n_k = (size_t)p->a.n_k;
    if (!qkv_is_softmax(&p->a)) return memchr(p->seen, false, p->n);
    for (size_t i = 0; i < p->n; i += n_k)
        if (!memchr(p->seen + i, true, n_k)) return true;
    return false;
}

static qkv_status find_marks(qkv_tape *tape, const qkv_node *node, const attend_state *s,
                             attend_problem *p)
{
    const double dropout = s->a.dropout;
    const real *weight = NULL;
    if (is_fixed(&s->a))
        weight = weights_of(tape, node, *s, p, dropout);
    else if (dropout > 0)
        weight = weights_of(tape, node, uniform_of(s), p, dropout);
    p->marked = weight || marks_matter(p);
    for (size_t i = 0; i < p->n && !tape->status; i++) {
        const bool kept = p->seen[i] && (!weight || weight[i] != 0);
        p->mark[i] = is_fixed(&s->a) ? (double)weight[i] : kept ? 1 / (1 - dropout) : 0;
    }
    return tape->status;
}

static ptrdiff_t longest_of(const int64_t *starts, ptrdiff_t n)
{
    int64_t longest = 0;
    for (ptrdiff_t b = 0; b < n; b++)
        if (starts[b + 1] - starts[b] > longest) longest = starts[b + 1] - starts[b];
    return (ptrdiff_t)longest;
}

qkv_status FN(qkv_attend_problem)(qkv_tape *tape, const qkv_node *node, const attend_state *s,
                                  attend_problem *p)
{
    *p = (attend_problem){.a = s->a, .causal_offsets = s->in.causal_offsets};
    memcpy(p->input, s->input, sizeof p->input);
    if (s->ragged) {
        p->starts_q = s->starts_q;
        p->starts_k = s->starts_k;
        p->a.n_q = longest_of(s->starts_q, s->a.batch);
        p->a.n_k = s->columns;
    }
    p->n = 1;
    if (!qkv_size_mul(&p->n, p->a.batch) || !qkv_size_mul(&p->n, p->a.heads) ||
        !qkv_size_mul(&p->n, p->a.n_q) || !qkv_size_mul(&p->n, p->a.n_k))
        return qkv_node_fail(tape, node, QKV_E_OVERFLOW, "the number of pairs overflows");
    if (p->n == 0) return QKV_OK;
    p->seen = qkv_node_take(tape, node, p->n, sizeof *p->seen);
    p->mark = p->seen ? qkv_node_take(tape, node, p->n, sizeof *p->mark) : NULL;
    if (!p->mark || find_seen(tape, node, s, p)) return tape->status;
    return find_marks(tape, node, s, p);
}

#if QKV_REAL == 64 /* what has no dtype is compiled once */
/* ---- What the normalisers are made of ---- */

static double is_zero(double x)
{
    return x == 0;
}

static qkv_var one(qkv_tape *t)
{
    return qkv_constant(t, 1);
}

static qkv_var times(qkv_tape *t, qkv_var x, double factor)
{
    return qkv_mul(t, x, qkv_constant(t, factor));
}

/* Over the keys, which stay as an axis of size 1. */
static qkv_var sum_keys(qkv_tape *t, qkv_var x)
{
    return qkv_sum(t, x, (const int[]){3}, 1, true);
}

/* What becomes of the pairs that are not seen, of all in rows that see nothing, and of those seen
 * in flat rows (NaN: nothing). */
typedef struct fill {
    double hidden, blind, flat;
} fill;

/* x [batch, heads, n_q, n_k], where it is seen; elsewhere it has no gradient, whatever it was. */
static qkv_var where_seen(qkv_tape *t, const attend_problem *p, qkv_var x, const fill *f)
{
    const bool flat = p->any_flat && f->flat == f->flat;
    if (!flat && !memchr(p->seen, false, p->n)) return x;
    const qkv_node *node = qkv_node_of(t, x, "qkv_grad");
    ptrdiff_t *index = node ? qkv_node_take(t, node, p->n, sizeof *index) : NULL;
    if (!index) return x;
    const size_t n = p->n, n_k = (size_t)p->a.n_k;
    for (size_t i = 0, hidden = n; i < n; i++) {
        if (i % n_k == 0) hidden = memchr(p->seen + i, true, n_k) ? n : n + 1;
        size_t at = flat && p->rows[i / n_k] == QKV_ROW_FLAT ? n + 2 : i;
        index[i] = (ptrdiff_t)(p->seen[i] ? at : hidden);
    }
    const qkv_shape number = qkv_shape1(1), shape = qkv_shape_of(t, x);
    qkv_var parts[] = {qkv_reshape(t, x, qkv_shape1((ptrdiff_t)n)),
                       qkv_reshape(t, qkv_constant(t, f->hidden), number),
                       qkv_reshape(t, qkv_constant(t, f->blind), number),
                       qkv_reshape(t, qkv_constant(t, flat ? f->flat : 0), number)};
    return qkv_reshape(t, qkv_gather(t, qkv_concat(t, parts, 4, 0), 0, index, (ptrdiff_t)n), shape);
}

static const fill minus_infinity = {-INFINITY, 0, NAN}, zero = {0, 0, NAN};

static void mark_kept(const void *problem, double *x)
{
    const attend_problem *p = problem;
    memcpy(x, p->mark, p->n * sizeof *x);
}

static void mark_seen(const void *problem, double *x)
{
    const attend_problem *p = problem;
    for (size_t i = 0; i < p->n; i++) x[i] = p->seen[i];
}

/* 1 / how many keys a row sees, 1 if that is none. */
static void mark_shares(const void *problem, double *x)
{
    const attend_problem *p = problem;
    const size_t n_k = (size_t)p->a.n_k;
    for (size_t row = 0; row < p->n / n_k; row++) {
        size_t count = 0;
        for (size_t j = 0; j < n_k; j++) count += p->seen[row * n_k + j];
        x[row] = 1 / (double)(count ? count : 1);
    }
}

static void mark_blind(const void *problem, double *x)
{
    const attend_problem *p = problem;
    const size_t n_k = (size_t)p->a.n_k;
    for (size_t row = 0; row < p->n / n_k; row++) x[row] = !memchr(p->seen + row * n_k, true, n_k);
}

/* ---- Normalisers: [batch, heads, n_q, n_k]; of pairs that are not seen, anything finite ---- */

static qkv_var biased(qkv_tape *t, const attend_scores *x)
{
    return x->b.generation ? qkv_add(t, x->s, x->b) : x->s;
}

/* Of top-k as well: the others are not seen. */
static qkv_var softmax(qkv_tape *t, const attend_problem *p, const attend_scores *x)
{
    const qkv_attention *a = &p->a;
    qkv_var s = where_seen(t, p, biased(t, x), &minus_infinity), sink = x->sink;
    if (!sink.generation) return qkv_softmax(t, s, 3);
    sink = qkv_broadcast(t, sink, qkv_shape4(a->batch, a->heads, a->n_q, 1));
    s = qkv_softmax(t, qkv_concat(t, (qkv_var[]){s, sink}, 2, 3), 3);
    return qkv_slice(t, s, 3, 0, a->n_k, 1);
}

/* The square root, without a gradient at 0: the corner of the triangle. */
static qkv_var root(qkv_tape *t, qkv_var x)
{
    qkv_var corner = qkv_constant_map(t, x, is_zero);
    return qkv_mul(t, qkv_sqrt(t, qkv_add(t, x, corner)), qkv_sub(t, one(t), corner));
}

/* cos(pi u / 2) by its series in u^2, whose derivatives exist at u = 0 too: for u <= 1 what is left
 * out is below 1e-21, and of its eighth derivative 1e-12. */
static qkv_var cosine(qkv_tape *t, qkv_var u2)
{
    enum { DEGREE = 12 };
    double c[DEGREE + 1] = {1};
    for (int i = 1; i <= DEGREE; i++) c[i] = -c[i - 1] * M_PI * M_PI / (8.0 * i * (2 * i - 1));
    qkv_var sum = qkv_constant(t, c[DEGREE]);
    for (int i = DEGREE - 1; i >= 0; i--)
        sum = qkv_add(t, qkv_mul(t, sum, u2), qkv_constant(t, c[i]));
    return sum;
}

/* K within its support, as a function of u^2; the flat ones, whose u is 0, are 1. */
static qkv_var kernel_of(qkv_tape *t, qkv_kernel kernel, qkv_var u2)
{
    if (kernel == QKV_KERNEL_COSINE) return cosine(t, u2);
    if (kernel == QKV_KERNEL_TRIANGULAR) return qkv_sub(t, one(t), root(t, u2));
    if (kernel == QKV_KERNEL_TRICUBE) u2 = qkv_mul(t, u2, root(t, u2)); /* u^3 */
    qkv_var rest = qkv_sub(t, one(t), u2);
    if (kernel == QKV_KERNEL_BIWEIGHT) return qkv_mul(t, rest, rest);
    if (kernel != QKV_KERNEL_TRIWEIGHT && kernel != QKV_KERNEL_TRICUBE) return rest;
    return qkv_mul(t, rest, qkv_mul(t, rest, rest));
}

/* K(u) e^b. At the edge, u = 1, and where it is flat, u = 0, u is a constant. */
static qkv_var none_kernel(qkv_tape *t, const attend_problem *p, const attend_scores *x)
{
    qkv_var u2 = where_seen(t, p, times(t, x->s, -2), &(fill){1, 1, 0});
    qkv_var k = kernel_of(t, p->a.kernel, u2);
    if (!x->b.generation) return k;
    const qkv_shape pairs = qkv_shape_of(t, x->s);
    qkv_var b = where_seen(t, p, qkv_broadcast(t, x->b, pairs), &minus_infinity);
    if (p->a.normalize == QKV_KERNEL_SUM) /* the largest bias cancels */
        b = qkv_sub(t, b, qkv_detach(t, qkv_max(t, b, (const int[]){3}, 1, true)));
    return qkv_mul(t, k, qkv_exp(t, b));
}

static qkv_var kernel_sum(qkv_tape *t, const attend_problem *p, const attend_scores *x)
{
    qkv_var k = none_kernel(t, p, x);
    if (p->marked) k = qkv_mul(t, k, qkv_constant_marks(t, k, mark_seen, p));
    qkv_var sum = sum_keys(t, k), blind = qkv_constant_marks(t, sum, mark_blind, p);
    return qkv_div(t, k, qkv_add(t, sum, blind));
}

/* (s - t)+, with t = the mean of the s that are above it, less 1 / their number. */
static qkv_var sparsemax(qkv_tape *t, const attend_problem *p, const attend_scores *x)
{
    qkv_var s = where_seen(t, p, biased(t, x), &zero), sum = sum_keys(t, s);
    qkv_var share = qkv_constant_marks(t, sum, mark_shares, p);
    return qkv_add(t, qkv_sub(t, s, qkv_mul(t, sum, share)), share);
}

/* (s/2 - t)+^2: n (mean - t)^2 + the sum of the squares from the mean is 1. */
static qkv_var entmax_15(qkv_tape *t, const attend_problem *p, const attend_scores *x)
{
    qkv_var s = where_seen(t, p, times(t, biased(t, x), 0.5), &zero), sum = sum_keys(t, s);
    qkv_var share = qkv_constant_marks(t, sum, mark_shares, p);
    qkv_var from_mean =
        qkv_mul(t, qkv_sub(t, s, qkv_mul(t, sum, share)), qkv_constant_marks(t, s, mark_seen, p));
    qkv_var squares = sum_keys(t, qkv_mul(t, from_mean, from_mean));
    qkv_var mean = qkv_sqrt(t, qkv_mul(t, qkv_sub(t, one(t), squares), share));
    qkv_var w = qkv_add(t, from_mean, mean);
    return qkv_mul(t, w, w);
}

static qkv_var none_exp(qkv_tape *t, const attend_problem *p, const attend_scores *x)
{
    return qkv_exp(t, where_seen(t, p, biased(t, x), &minus_infinity));
}

static qkv_var none_sigmoid(qkv_tape *t, const attend_problem *p, const attend_scores *x)
{
    return qkv_sigmoid(t, where_seen(t, p, biased(t, x), &zero));
}

static qkv_var none_identity(qkv_tape *t, const attend_problem *p, const attend_scores *x)
{
    return where_seen(t, p, biased(t, x), &zero);
}

static qkv_var (*const normalisers[])(qkv_tape *t, const attend_problem *p,
                                      const attend_scores *x) = {
    [QKV_SOFTMAX] = softmax,
    [QKV_TOP_K] = softmax,
    [QKV_KERNEL_SUM] = kernel_sum,
    [QKV_SPARSEMAX] = sparsemax,
    [QKV_ENTMAX_15] = entmax_15,
    [QKV_NONE_EXP] = none_exp,
    [QKV_NONE_SIGMOID] = none_sigmoid,
    [QKV_NONE_KERNEL] = none_kernel,
    [QKV_NONE_IDENTITY] = none_identity,
};

bool qkv_attend_reads_scores(const attend_problem *p)
{
    return !is_fixed(&p->a);
}

/* Of fixed weights the marks are all there is. */
qkv_var qkv_attend_weights(qkv_tape *t, const attend_problem *p, const attend_scores *x)
{
    if (is_fixed(&p->a)) {
        const qkv_shape pairs = qkv_shape4(p->a.batch, p->a.heads, p->a.n_q, p->a.n_k);
        qkv_var like = qkv_broadcast(t, qkv_constant(t, 0), pairs);
        return qkv_constant_marks(t, like, mark_kept, p);
    }
    qkv_var w = normalisers[p->a.normalize](t, p, x);
    return p->marked ? qkv_mul(t, w, qkv_constant_marks(t, w, mark_kept, p)) : w;
}
#endif
