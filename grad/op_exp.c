/* op_exp.c - y = exp x, dy/dx = y. */
#include "grad/elementwise.h"
#include "grad/reverse.h"
#include "src/real.h"

static real value(real x)
{
    return exp(x);
}

static real slope(real x, real y)
{
    (void)x;
    return y;
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    return unary_forward(tape, node, value);
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    return unary_backward(tape, node, slope);
}

const qkv_op FN(qkv_op_exp) = {.shape = qkv_shape_same, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_exp(qkv_tape *t, const qkv_reverse *r)
{
    r->dx[0] = qkv_mul(t, r->dy, r->y);
}

qkv_var qkv_exp(qkv_tape *tape, qkv_var x)
{
    return qkv_record(tape, QKV_OP_exp, &x, 1, NULL);
}

const qkv_op_case qkv_cases_exp[] = {
    {.unary = qkv_exp, .n_input = 1, .input = {{2, {3, 4}}}, .lower = -2, .upper = 2},
    {0},
};
#endif
