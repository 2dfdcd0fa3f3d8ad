/* op_sum.c - y = sum of x along axes; every x gets its sum's cotangent. */
#include "grad/reduce.h"
#include "grad/reverse.h"
#include "src/real.h"

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    FN(qkv_sum_axes)(tape, node);
    return QKV_OK;
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    FN(qkv_spread_over_axes)(tape, node, 1);
    return QKV_OK;
}

const qkv_op FN(qkv_op_sum) = {.shape = qkv_reduce_shape, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_sum(qkv_tape *t, const qkv_reverse *r)
{
    r->dx[0] = qkv_spread(t, r);
}

qkv_var qkv_sum(qkv_tape *tape, qkv_var x, const int *axes, int n_axes, bool keep)
{
    return qkv_record_reduction(tape, QKV_OP_sum, x, axes, n_axes, keep);
}

static qkv_var all(qkv_tape *tape, qkv_var x)
{
    return qkv_sum(tape, x, NULL, 0, false);
}

static qkv_var middle(qkv_tape *tape, qkv_var x)
{
    return qkv_sum(tape, x, (int[]){1}, 1, false);
}

static qkv_var ends(qkv_tape *tape, qkv_var x)
{
    return qkv_sum(tape, x, (int[]){-1, 0}, 2, true);
}

const qkv_op_case qkv_cases_sum[] = {
    {.unary = all, .n_input = 1, .input = {{3, {2, 3, 4}}}},
    {.label = "sum over the middle axis", .unary = middle, .n_input = 1, .input = {{3, {2, 3, 4}}}},
    {.label = "sum over the outer axes", .unary = ends, .n_input = 1, .input = {{3, {2, 3, 4}}}},
    {0},
};
#endif
