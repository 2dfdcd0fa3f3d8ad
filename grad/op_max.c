/* op_max.c - y = the largest x along axes, NaN above all; the first of equals gets dy. */
#include "grad/reduce.h"
#include "grad/reverse.h"
#include "src/real.h"

static const size_t NONE = SIZE_MAX;

static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    qkv_status status = qkv_reduce_shape_of_some(tape, node, arguments);
    if (status) return status;
    qkv_reduction *r = node->state;
    r->winner = qkv_node_take(tape, node, node->size, sizeof *r->winner);
    return r->winner ? QKV_OK : QKV_E_NOMEM;
}

/* y = max(y, x), one by one; without branches, so that compilers make it wide. */
static void keep_larger(real *restrict y, const real *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const bool wins = !(x[i] <= y[i]) & (y[i] == y[i]);
        y[i] = wins ? x[i] : y[i];
    }
}

/* For each result the first input that it equals; only a gradient asks for it. */
static void find_winners(const qkv_tape *tape, const qkv_node *node)
{
    size_t *winner = ((qkv_reduction *)node->state)->winner;
    const real *x = qkv_input(tape, node, 0)->value, *y = node->value;
    for (size_t i = 0; i < node->size; i++) winner[i] = NONE;
    qkv_loops l = qkv_reduce_loops(tape, node);
    for (size_t row = 0, at = 0; row < l.rows; row++, qkv_loops_next(&l))
        for (size_t i = 0; i < l.n; i++, at++) {
            size_t j = l.at_a + i * l.step_a;
            if (winner[j] == NONE && (x[at] == y[j] || isnan(x[at]))) winner[j] = at;
        }
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    const qkv_node *in = qkv_input(tape, node, 0);
    const real *x = in->value;
    real *y = node->value;
    for (size_t i = 0; i < node->size; i++) y[i] = -INFINITY;
    if (!in->size) return QKV_OK;
    qkv_loops l = qkv_reduce_loops(tape, node);
    for (size_t row = 0; row < l.rows; row++, x += l.n, qkv_loops_next(&l))
        if (l.step_a)
            keep_larger(y + l.at_a, x, l.n);
        else
            for (size_t i = 0; i < l.n; i++) keep_larger(y + l.at_a, x + i, 1);
    if (node->needs_gradient) find_winners(tape, node);
    return QKV_OK;
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    const size_t *winner = ((const qkv_reduction *)node->state)->winner;
    const real *dy = node->gradient;
    real *dx = qkv_input_gradient(tape, node, 0);
    for (size_t i = 0; i < node->size; i++) dx[winner[i]] += dy[i];
    return QKV_OK;
}

static uint64_t branches(const qkv_tape *tape, const qkv_node *node)
{
    (void)tape;
    const size_t *winner = ((const qkv_reduction *)node->state)->winner;
    uint64_t hash = 0;
    if (!node->needs_gradient) return hash;
    for (size_t i = 0; i < node->size; i++) hash = hash * 31 + winner[i];
    return hash;
}

const qkv_op FN(qkv_op_max) = {
    .shape = shape, .forward = forward, .backward = backward, .branches = branches};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
typedef struct winners {
    const size_t *winner;
    size_t n;
} winners;

static void mark(const void *of, double *x)
{
    const winners *w = of;
    for (size_t i = 0; i < w->n; i++) x[w->winner[i]] = 1;
}

void qkv_differentiate_max(qkv_tape *t, const qkv_reverse *r)
{
    const qkv_reduction *s = qkv_state_of(t, r->y);
    const winners w = {s->winner, qkv_size_of(t, r->y)};
    r->dx[0] = qkv_mul(t, qkv_spread(t, r), qkv_constant_marks(t, r->x[0], mark, &w));
}

qkv_var qkv_max(qkv_tape *tape, qkv_var x, const int *axes, int n_axes, bool keep)
{
    return qkv_record_reduction(tape, QKV_OP_max, x, axes, n_axes, keep);
}

static qkv_var all(qkv_tape *tape, qkv_var x)
{
    return qkv_max(tape, x, NULL, 0, false);
}

static qkv_var middle(qkv_tape *tape, qkv_var x)
{
    return qkv_max(tape, x, (int[]){1}, 1, false);
}

static qkv_var ends(qkv_tape *tape, qkv_var x)
{
    return qkv_max(tape, x, (int[]){-1, 0}, 2, true);
}

const qkv_op_case qkv_cases_max[] = {
    {.unary = all, .n_input = 1, .input = {{3, {2, 3, 4}}}},
    {.label = "max over the middle axis", .unary = middle, .n_input = 1, .input = {{3, {2, 3, 4}}}},
    {.label = "max over the outer axes", .unary = ends, .n_input = 1, .input = {{3, {2, 3, 4}}}},
    {0},
};
#endif
