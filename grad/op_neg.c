/* op_neg.c - y = -x, dy/dx = -1. */
#include "grad/elementwise.h"
#include "grad/reverse.h"
#include "src/real.h"

static real value(real x)
{
    return -x;
}

static real slope(real x, real y)
{
    (void)x, (void)y;
    return -1;
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    return unary_forward(tape, node, value);
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    return unary_backward(tape, node, slope);
}

const qkv_op FN(qkv_op_neg) = {.shape = qkv_shape_same, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_neg(qkv_tape *t, const qkv_reverse *r)
{
    r->dx[0] = qkv_neg(t, r->dy);
}

qkv_var qkv_neg(qkv_tape *tape, qkv_var x)
{
    return qkv_record(tape, QKV_OP_neg, &x, 1, NULL);
}

const qkv_op_case qkv_cases_neg[] = {
    {.unary = qkv_neg, .n_input = 1, .input = {{2, {3, 4}}}, .lower = -2, .upper = 2},
    {0},
};
#endif
