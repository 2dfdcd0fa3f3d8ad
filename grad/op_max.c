/* op_max.c - y = the largest x along axes, NaN above all; the first of equals gets the cotangent.
 */
#include "grad/reduce.h"
#include "src/real.h"

static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    qkv_status status = qkv_reduce_shape(tape, node, arguments);
    if (status) return status;
    qkv_reduction *r = node->state;
    if (r->count == 0) return qkv_node_fail(tape, node, QKV_E_SHAPE, "the maximum of nothing");
    r->winner = qkv_node_take(tape, node, node->size, sizeof *r->winner);
    return r->winner ? QKV_OK : QKV_E_NOMEM;
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    const qkv_node *x = qkv_input(tape, node, 0);
    qkv_reduction *r = node->state;
    const real *from = x->value;
    real *y = node->value;
    for (size_t i = 0; i < node->size; i++) r->winner[i] = SIZE_MAX;
    qkv_odometer o = qkv_reduce_walk(tape, node);
    for (size_t i = 0; i < x->size; i++, qkv_odometer_next(&o)) {
        bool first = r->winner[o.at] == SIZE_MAX;
        bool wins = from[i] > y[o.at] || (from[i] != from[i] && y[o.at] == y[o.at]);
        if (!first && !wins) continue;
        y[o.at] = from[i];
        r->winner[o.at] = i;
    }
    return QKV_OK;
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    const qkv_reduction *r = node->state;
    const real *dy = node->gradient;
    real *dx = qkv_input_gradient(tape, node, 0);
    for (size_t i = 0; i < node->size; i++) dx[r->winner[i]] += dy[i];
    return QKV_OK;
}

static qkv_var all(qkv_tape *tape, const qkv_var *x)
{
    return qkv_max(tape, x[0], NULL, 0, false);
}

static qkv_var columns(qkv_tape *tape, const qkv_var *x)
{
    return qkv_max(tape, x[0], (int[]){1}, 1, false);
}

static const qkv_op_case cases[] = {
    {.n_input = 1, .input = {{3, {2, 3, 4}}}, .spread = true, .apply = all},
    {.label = "max of the middle axis",
     .n_input = 1,
     .input = {{3, {2, 3, 4}}},
     .spread = true,
     .apply = columns},
    {0},
};

const qkv_op FN(qkv_op_max) = {"max", shape, forward, backward, cases, NULL};
