/* op_mean.c - y = mean of x along axes; every x gets 1/count of its mean's cotangent. */
#include "grad/reduce.h"
#include "grad/reverse.h"
#include "src/real.h"

static real count_of(const qkv_node *node)
{
    return (real)((const qkv_reduction *)node->state)->count;
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    FN(qkv_sum_axes)(tape, node);
    real *y = node->value;
    for (size_t i = 0; i < node->size; i++) y[i] /= count_of(node);
    return QKV_OK;
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    FN(qkv_spread_over_axes)(tape, node, 1 / count_of(node));
    return QKV_OK;
}

const qkv_op FN(qkv_op_mean) = {
    .shape = qkv_reduce_shape_of_some, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_mean(qkv_tape *t, const qkv_reverse *r)
{
    double count = (double)((const qkv_reduction *)qkv_state_of(t, r->y))->count;
    r->dx[0] = qkv_mul(t, qkv_constant(t, 1 / count), qkv_spread(t, r));
}

qkv_var qkv_mean(qkv_tape *tape, qkv_var x, const int *axes, int n_axes, bool keep)
{
    return qkv_record_reduction(tape, QKV_OP_mean, x, axes, n_axes, keep);
}

static qkv_var all(qkv_tape *tape, qkv_var x)
{
    return qkv_mean(tape, x, NULL, 0, false);
}

static qkv_var middle(qkv_tape *tape, qkv_var x)
{
    return qkv_mean(tape, x, (int[]){1}, 1, false);
}

static qkv_var ends(qkv_tape *tape, qkv_var x)
{
    return qkv_mean(tape, x, (int[]){-1, 0}, 2, true);
}

const qkv_op_case qkv_cases_mean[] = {
    {.unary = all, .n_input = 1, .input = {{3, {2, 3, 4}}}},
    {.label = "mean over the middle axis",
     .unary = middle,
     .n_input = 1,
     .input = {{3, {2, 3, 4}}}},
    {.label = "mean over the outer axes", .unary = ends, .n_input = 1, .input = {{3, {2, 3, 4}}}},
    {0},
};
#endif
