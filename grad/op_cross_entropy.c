/* op_cross_entropy.c - y = mean over n rows of -log softmax(x)[label].
 *
 *     dx = (softmax(x) - onehot(label)) dy / n */
#include "grad/softmax.h"
#include "grad/sum_of.h"
#include "grad/reverse.h"
#include "src/real.h"

typedef struct call {
    const ptrdiff_t *label;
    ptrdiff_t n;
} call;

/* state: the labels. */
static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    const call *a = arguments;
    const qkv_node *x = qkv_input(tape, node, 0);
    if (x->rank != 2 || x->dim[0] != a->n)
        return qkv_node_fail(tape, node, QKV_E_SHAPE,
                             "the logits have rank %d and %td rows, expected [%td, classes]",
                             x->rank, x->rank ? x->dim[0] : 0, a->n);
    if (a->n == 0) return qkv_node_fail(tape, node, QKV_E_SHAPE, "the mean of nothing");
    if (!a->label) return qkv_node_fail(tape, node, QKV_E_ARG, "label is NULL");
    ptrdiff_t *label = qkv_node_take(tape, node, (size_t)a->n, sizeof *label);
    if (!label) return QKV_E_NOMEM;
    for (ptrdiff_t i = 0; i < a->n; i++) {
        label[i] = a->label[i];
        if (label[i] < 0 || label[i] >= x->dim[1])
            return qkv_node_fail(tape, node, QKV_E_ARG, "label[%td] is %td, expected 0 to %td", i,
                                 label[i], x->dim[1] - 1);
    }
    node->state = label;
    return qkv_node_shape(tape, node, 0, NULL);
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    const qkv_node *x = qkv_input(tape, node, 0);
    const ptrdiff_t *label = node->state;
    size_t n = (size_t)x->dim[0], classes = (size_t)x->dim[1];
    real *surprise = qkv_node_workspace(tape, node, n * sizeof *surprise);
    if (!surprise) return QKV_E_NOMEM;
    for (size_t i = 0; i < n; i++) {
        const real *row = (const real *)x->value + i * classes;
        FN(qkv_row_sum) r = FN(qkv_sum_row)(row, classes, 1);
        surprise[i] = r.log_sum - (row[label[i]] - r.max);
    }
    *(real *)node->value = FN(qkv_sum_of)(surprise, n) / (real)n;
    return QKV_OK;
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    const qkv_node *x = qkv_input(tape, node, 0);
    const ptrdiff_t *label = node->state;
    size_t n = (size_t)x->dim[0], classes = (size_t)x->dim[1];
    real factor = *(const real *)node->gradient / (real)n;
    for (size_t i = 0; i < n; i++) {
        const real *row = (const real *)x->value + i * classes;
        real *dx = (real *)x->gradient + i * classes;
        FN(qkv_row_sum) r = FN(qkv_sum_row)(row, classes, 1);
        for (size_t c = 0; c < classes; c++) dx[c] += factor * exp(row[c] - r.max - r.log_sum);
        dx[label[i]] -= factor;
    }
    return QKV_OK;
}

const qkv_op FN(qkv_op_cross_entropy) = {.shape = shape, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
typedef struct labels {
    const ptrdiff_t *label;
    ptrdiff_t n, classes;
} labels;

static void mark(const void *of, double *x)
{
    const labels *l = of;
    for (ptrdiff_t i = 0; i < l->n; i++) x[i * l->classes + l->label[i]] = 1;
}

void qkv_differentiate_cross_entropy(qkv_tape *t, const qkv_reverse *r)
{
    const qkv_shape s = qkv_shape_of(t, r->x[0]);
    const labels l = {qkv_state_of(t, r->y), s.dim[0], s.dim[1]};
    qkv_var truth = qkv_constant_marks(t, r->x[0], mark, &l);
    qkv_var each = qkv_mul(t, qkv_constant(t, 1 / (double)s.dim[0]), r->dy);
    r->dx[0] = qkv_mul(t, each, qkv_sub(t, qkv_softmax(t, r->x[0], 1), truth));
}

qkv_var qkv_cross_entropy(qkv_tape *tape, qkv_var logits, const ptrdiff_t *label, ptrdiff_t n)
{
    return qkv_record(tape, QKV_OP_cross_entropy, &logits, 1, &(call){.label = label, .n = n});
}

static qkv_var apply(qkv_tape *tape, const qkv_var *x)
{
    return qkv_cross_entropy(tape, x[0], (ptrdiff_t[]){2, 0, 2, 4}, 4);
}

const qkv_op_case qkv_cases_cross_entropy[] = {
    {.n_input = 1, .input = {{2, {4, 5}}}, .lower = -3, .upper = 3, .apply = apply},
    {0},
};
#endif
