/* op_mean.c - y = mean of x along axes; every x gets 1/count of its mean's cotangent. */
#include "grad/reduce.h"
#include "src/real.h"

static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    qkv_status status = qkv_reduce_shape(tape, node, arguments);
    if (status) return status;
    if (((const qkv_reduction *)node->state)->count == 0)
        return qkv_node_fail(tape, node, QKV_E_SHAPE, "the mean of nothing");
    return QKV_OK;
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    const qkv_node *x = qkv_input(tape, node, 0);
    const qkv_reduction *r = node->state;
    const real *from = x->value;
    real *y = node->value;
    for (size_t i = 0; i < node->size; i++) y[i] = 0;
    qkv_odometer o = qkv_reduce_walk(tape, node);
    for (size_t i = 0; i < x->size; i++, qkv_odometer_next(&o)) y[o.at] += from[i];
    for (size_t i = 0; i < node->size; i++) y[i] /= (real)r->count;
    return QKV_OK;
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    const qkv_node *x = qkv_input(tape, node, 0);
    const qkv_reduction *r = node->state;
    const real *dy = node->gradient;
    real *dx = x->gradient;
    qkv_odometer o = qkv_reduce_walk(tape, node);
    for (size_t i = 0; i < x->size; i++, qkv_odometer_next(&o)) dx[i] += dy[o.at] / (real)r->count;
    return QKV_OK;
}

static qkv_var all(qkv_tape *tape, const qkv_var *x)
{
    return qkv_mean(tape, x[0], NULL, 0, true);
}

static qkv_var rows(qkv_tape *tape, const qkv_var *x)
{
    return qkv_mean(tape, x[0], (int[]){-1}, 1, false);
}

static const qkv_op_case cases[] = {
    {.n_input = 1, .input = {{3, {2, 3, 4}}}, .apply = all},
    {.label = "mean of rows", .n_input = 1, .input = {{3, {2, 3, 4}}}, .apply = rows},
    {0},
};

const qkv_op FN(qkv_op_mean) = {"mean", shape, forward, backward, cases, NULL};
