/* op_mse.c - y = mean((a - b)^2), da = 2 (a - b) dy / n, db = -da. */
#include "grad/sum_of.h"
#include "grad/tape.h"
#include "grad/reverse.h"
#include "src/real.h"

static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    (void)arguments;
    const qkv_node *a = qkv_input(tape, node, 0), *b = qkv_input(tape, node, 1);
    if (!qkv_same_shape(a, b)) {
        char left[128], right[128];
        qkv_shape_describe(a->rank, a->dim, left, sizeof left);
        qkv_shape_describe(b->rank, b->dim, right, sizeof right);
        return qkv_node_fail(tape, node, QKV_E_SHAPE, "shapes %s and %s differ", left, right);
    }
    if (a->size == 0) return qkv_node_fail(tape, node, QKV_E_SHAPE, "the mean of nothing");
    return qkv_node_shape(tape, node, 0, NULL);
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    const qkv_node *x = qkv_input(tape, node, 0);
    const real *a = x->value, *b = qkv_input(tape, node, 1)->value;
    real *square = qkv_node_workspace(tape, node, x->size * sizeof *square);
    if (!square) return QKV_E_NOMEM;
    for (size_t i = 0; i < x->size; i++) square[i] = (a[i] - b[i]) * (a[i] - b[i]);
    *(real *)node->value = FN(qkv_sum_of)(square, x->size) / (real)x->size;
    return QKV_OK;
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    const qkv_node *x = qkv_input(tape, node, 0);
    const real *a = x->value, *b = qkv_input(tape, node, 1)->value;
    real *da = x->gradient, *db = qkv_input_gradient(tape, node, 1);
    real factor = 2 * *(const real *)node->gradient / (real)x->size;
    for (size_t i = 0; i < x->size; i++) {
        if (da) da[i] += factor * (a[i] - b[i]);
        if (db) db[i] -= factor * (a[i] - b[i]);
    }
    return QKV_OK;
}

const qkv_op FN(qkv_op_mse) = {.shape = shape, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_mse(qkv_tape *t, const qkv_reverse *r)
{
    qkv_var twice = qkv_mul(t, qkv_constant(t, 2 / (double)qkv_size_of(t, r->x[0])), r->dy);
    qkv_var da = qkv_mul(t, twice, qkv_sub(t, r->x[0], r->x[1]));
    r->dx[0] = da;
    if (r->wanted[1]) r->dx[1] = qkv_neg(t, da);
}

qkv_var qkv_mse(qkv_tape *tape, qkv_var y, qkv_var target)
{
    return qkv_record(tape, QKV_OP_mse, (qkv_var[]){y, target}, 2, NULL);
}

static qkv_var apply(qkv_tape *tape, const qkv_var *x)
{
    return qkv_mse(tape, x[0], x[1]);
}

const qkv_op_case qkv_cases_mse[] = {
    {.n_input = 2, .input = {{2, {3, 4}}, {2, {3, 4}}}, .apply = apply},
    {0},
};
#endif
