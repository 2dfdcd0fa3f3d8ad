/* op_tanh.c - y = tanh x, dy/dx = 1 - y^2. */
#include "grad/elementwise.h"
#include "grad/reverse.h"
#include "src/real.h"

static real value(real x)
{
    return tanh(x);
}

static real slope(real x, real y)
{
    (void)x;
    return 1 - y * y;
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    return unary_forward(tape, node, value);
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    return unary_backward(tape, node, slope);
}

const qkv_op FN(qkv_op_tanh) = {.shape = qkv_shape_same, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_tanh(qkv_tape *t, const qkv_reverse *r)
{
    qkv_var slope = qkv_sub(t, qkv_constant(t, 1), qkv_mul(t, r->y, r->y));
    r->dx[0] = qkv_mul(t, r->dy, slope);
}

qkv_var qkv_tanh(qkv_tape *tape, qkv_var x)
{
    return qkv_record(tape, QKV_OP_tanh, &x, 1, NULL);
}

const qkv_op_case qkv_cases_tanh[] = {
    {.unary = qkv_tanh, .n_input = 1, .input = {{2, {3, 4}}}, .lower = -2, .upper = 2},
    {0},
};
#endif
