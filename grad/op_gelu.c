/* op_gelu.c - y = x Phi(x), dy/dx = Phi(x) + x phi(x): the exact GELU (Hendrycks & Gimpel 2016),
 * not its approximation by tanh. */
#include "grad/elementwise.h"
#include "grad/normal.h"
#include "grad/reverse.h"
#include "src/real.h"

/* x weight, but 0 where the weight has vanished: at -inf too. */
static real times(real x, real weight)
{
    return (weight == 0 ? 0 : x) * weight;
}

static real value(real x)
{
    return times(x, FN(qkv_normal_cdf)(x));
}

static real slope(real x, real y)
{
    (void)y;
    return FN(qkv_normal_cdf)(x) + times(x, FN(qkv_normal_density)(x));
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    return unary_forward(tape, node, value);
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    return unary_backward(tape, node, slope);
}

const qkv_op FN(qkv_op_gelu) = {.shape = qkv_shape_same, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_gelu(qkv_tape *t, const qkv_reverse *r)
{
    qkv_var near = qkv_normal_near(t, r->x[0]);
    qkv_var rising = qkv_mul(t, near, qkv_normal_density_of(t, near));
    r->dx[0] = qkv_mul(t, r->dy, qkv_add(t, qkv_normal_cdf(t, r->x[0]), rising));
}

qkv_var qkv_gelu(qkv_tape *tape, qkv_var x)
{
    return qkv_record(tape, QKV_OP_gelu, &x, 1, NULL);
}

const qkv_op_case qkv_cases_gelu[] = {
    {.unary = qkv_gelu, .n_input = 1, .input = {{2, {3, 4}}}, .lower = -3, .upper = 3},
    {0},
};
#endif
