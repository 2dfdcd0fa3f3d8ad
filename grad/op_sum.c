/* op_sum.c - y = sum of x along axes; every x gets its sum's cotangent. */
#include "grad/reduce.h"
#include "src/real.h"

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    const qkv_node *x = qkv_input(tape, node, 0);
    const real *from = x->value;
    real *y = node->value;
    for (size_t i = 0; i < node->size; i++) y[i] = 0;
    qkv_odometer o = qkv_reduce_walk(tape, node);
    for (size_t i = 0; i < x->size; i++, qkv_odometer_next(&o)) y[o.at] += from[i];
    return QKV_OK;
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    const qkv_node *x = qkv_input(tape, node, 0);
    const real *dy = node->gradient;
    real *dx = x->gradient;
    qkv_odometer o = qkv_reduce_walk(tape, node);
    for (size_t i = 0; i < x->size; i++, qkv_odometer_next(&o)) dx[i] += dy[o.at];
    return QKV_OK;
}

static qkv_var all(qkv_tape *tape, const qkv_var *x)
{
    return qkv_sum(tape, x[0], NULL, 0, false);
}

static qkv_var middle(qkv_tape *tape, const qkv_var *x)
{
    return qkv_sum(tape, x[0], (int[]){1}, 1, false);
}

static qkv_var ends(qkv_tape *tape, const qkv_var *x)
{
    return qkv_sum(tape, x[0], (int[]){-1, 0}, 2, true);
}

static const qkv_op_case cases[] = {
    {.n_input = 1, .input = {{3, {2, 3, 4}}}, .apply = all},
    {.label = "sum of the middle axis", .n_input = 1, .input = {{3, {2, 3, 4}}}, .apply = middle},
    {.label = "sum of the outer axes", .n_input = 1, .input = {{3, {2, 3, 4}}}, .apply = ends},
    {0},
};

const qkv_op FN(qkv_op_sum) = {"sum", qkv_reduce_shape, forward, backward, cases, NULL};
