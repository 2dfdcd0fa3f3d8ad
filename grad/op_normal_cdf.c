/* op_normal_cdf.c - y = Phi(x), dy/dx = exp(-x^2 / 2) / sqrt(2 pi), of normal.h. */
#include "grad/elementwise.h"
#include "grad/normal.h"
#include "grad/reverse.h"
#include "src/real.h"

static real value(real x)
{
    return FN(qkv_normal_cdf)(x);
}

static real slope(real x, real y)
{
    (void)y;
    return FN(qkv_normal_density)(x);
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    return unary_forward(tape, node, value);
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    return unary_backward(tape, node, slope);
}

const qkv_op FN(qkv_op_normal_cdf) = {
    .shape = qkv_shape_same, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_normal_cdf(qkv_tape *t, const qkv_reverse *r)
{
    r->dx[0] = qkv_mul(t, r->dy, qkv_normal_density_of(t, r->x[0]));
}

qkv_var qkv_normal_density_of(qkv_tape *t, qkv_var x)
{
    qkv_var half_square = qkv_mul(t, qkv_mul(t, x, x), qkv_constant(t, -0.5));
    return qkv_mul(t, qkv_exp(t, half_square), qkv_constant(t, QKV_NORMAL_PEAK));
}

qkv_var qkv_normal_cdf(qkv_tape *tape, qkv_var x)
{
    return qkv_record(tape, QKV_OP_normal_cdf, &x, 1, NULL);
}

const qkv_op_case qkv_cases_normal_cdf[] = {
    {.unary = qkv_normal_cdf, .n_input = 1, .input = {{2, {3, 4}}}, .lower = -3, .upper = 3},
    {0},
};
#endif
