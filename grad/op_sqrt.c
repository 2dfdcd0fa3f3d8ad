/* op_sqrt.c - y = sqrt x, dy/dx = 1/(2y). */
#include "grad/elementwise.h"
#include "grad/reverse.h"
#include "src/real.h"

static real value(real x)
{
    return sqrt(x);
}

static real slope(real x, real y)
{
    (void)x;
    return 1 / (2 * y);
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    return unary_forward(tape, node, value);
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    return unary_backward(tape, node, slope);
}

const qkv_op FN(qkv_op_sqrt) = {.shape = qkv_shape_same, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_sqrt(qkv_tape *t, const qkv_reverse *r)
{
    r->dx[0] = qkv_div(t, qkv_mul(t, qkv_constant(t, 0.5), r->dy), r->y);
}

qkv_var qkv_sqrt(qkv_tape *tape, qkv_var x)
{
    return qkv_record(tape, QKV_OP_sqrt, &x, 1, NULL);
}

const qkv_op_case qkv_cases_sqrt[] = {
    {.unary = qkv_sqrt, .n_input = 1, .input = {{2, {3, 4}}}, .lower = 0, .upper = 4},
    {0},
};
#endif
