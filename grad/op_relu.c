/* op_relu.c - y = max(x, 0), dy/dx = 1 where x > 0, else 0; NaN stays NaN. */
#include "grad/elementwise.h"
#include "grad/reverse.h"
#include "src/real.h"

static real value(real x)
{
    return x < 0 ? 0 : x;
}

static real slope(real x, real y)
{
    (void)y;
    return x > 0;
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    return unary_forward(tape, node, value);
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    return unary_backward(tape, node, slope);
}

static uint64_t branches(const qkv_tape *tape, const qkv_node *node)
{
    const real *x = qkv_input(tape, node, 0)->value;
    uint64_t hash = 0;
    for (size_t i = 0; i < node->size; i++) hash = hash * 31 + (x[i] > 0);
    return hash;
}

const qkv_op FN(qkv_op_relu) = {
    .shape = qkv_shape_same, .forward = forward, .backward = backward, .branches = branches};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
static double is_positive(double x)
{
    return x > 0;
}

void qkv_differentiate_relu(qkv_tape *t, const qkv_reverse *r)
{
    r->dx[0] = qkv_mul(t, r->dy, qkv_constant_map(t, r->x[0], is_positive));
}

qkv_var qkv_relu(qkv_tape *tape, qkv_var x)
{
    return qkv_record(tape, QKV_OP_relu, &x, 1, NULL);
}

const qkv_op_case qkv_cases_relu[] = {
    {.unary = qkv_relu, .n_input = 1, .input = {{2, {3, 4}}}, .lower = -2, .upper = 2},
    {0},
};
#endif
