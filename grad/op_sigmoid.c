/* op_sigmoid.c - y = 1 / (1 + exp(-x)), dy/dx = y (1 - y). */
#include "grad/elementwise.h"
#include "grad/reverse.h"
#include "src/real.h"

static real value(real x)
{
    real e = exp(-fabs(x)); /* of a negative number on either side: it never overflows */
    return (x < 0 ? e : 1) / (1 + e);
}

static real slope(real x, real y)
{
    (void)y;
    real e = exp(-fabs(x)); /* y (1 - y), without the cancellation in 1 - y */
    return e / ((1 + e) * (1 + e));
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    return unary_forward(tape, node, value);
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    return unary_backward(tape, node, slope);
}

const qkv_op FN(qkv_op_sigmoid) = {
    .shape = qkv_shape_same, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_sigmoid(qkv_tape *t, const qkv_reverse *r)
{
    qkv_var slope = qkv_mul(t, r->y, qkv_sub(t, qkv_constant(t, 1), r->y));
    r->dx[0] = qkv_mul(t, r->dy, slope);
}

qkv_var qkv_sigmoid(qkv_tape *tape, qkv_var x)
{
    return qkv_record(tape, QKV_OP_sigmoid, &x, 1, NULL);
}

const qkv_op_case qkv_cases_sigmoid[] = {
    {.unary = qkv_sigmoid, .n_input = 1, .input = {{2, {3, 4}}}, .lower = -4, .upper = 4},
    {0},
};
#endif
