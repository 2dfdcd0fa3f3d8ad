/* op_cos.c - y = cos x, dy/dx = -sin x. */
#include "grad/elementwise.h"
#include "grad/reverse.h"
#include "src/real.h"

static real value(real x)
{
    return cos(x);
}

static real slope(real x, real y)
{
    (void)y;
    return -sin(x);
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    return unary_forward(tape, node, value);
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    return unary_backward(tape, node, slope);
}

const qkv_op FN(qkv_op_cos) = {.shape = qkv_shape_same, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_cos(qkv_tape *t, const qkv_reverse *r)
{
    r->dx[0] = qkv_neg(t, qkv_mul(t, r->dy, qkv_sin(t, r->x[0])));
}

qkv_var qkv_cos(qkv_tape *tape, qkv_var x)
{
    return qkv_record(tape, QKV_OP_cos, &x, 1, NULL);
}

const qkv_op_case qkv_cases_cos[] = {
    {.unary = qkv_cos, .n_input = 1, .input = {{2, {3, 4}}}, .lower = -4, .upper = 4},
    {0},
};
#endif
