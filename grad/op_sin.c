/* op_sin.c - y = sin x, dy/dx = cos x. */
#include "grad/elementwise.h"
#include "grad/reverse.h"
#include "src/real.h"

static real value(real x)
{
    return sin(x);
}

static real slope(real x, real y)
{
    (void)y;
    return cos(x);
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    return unary_forward(tape, node, value);
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    return unary_backward(tape, node, slope);
}

const qkv_op FN(qkv_op_sin) = {.shape = qkv_shape_same, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_sin(qkv_tape *t, const qkv_reverse *r)
{
    r->dx[0] = qkv_mul(t, r->dy, qkv_cos(t, r->x[0]));
}

qkv_var qkv_sin(qkv_tape *tape, qkv_var x)
{
    return qkv_record(tape, QKV_OP_sin, &x, 1, NULL);
}

const qkv_op_case qkv_cases_sin[] = {
    {.unary = qkv_sin, .n_input = 1, .input = {{2, {3, 4}}}, .lower = -4, .upper = 4},
    {0},
};
#endif
