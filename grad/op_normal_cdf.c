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
static bool has_infinity(qkv_tape *t, qkv_var x)
{
    const qkv_node *node = qkv_node_of(t, x, "qkv_grad");
    bool found = false;
    for (size_t i = 0; node && i < node->size; i++)
        found |= t->dtype == QKV_F32 ? isinf(((const float *)node->value)[i])
                                     : isinf(((const double *)node->value)[i]);
    return found;
}

/* max(x, least) of each element. */
static qkv_var at_least(qkv_tape *t, qkv_var x, double least)
{
    const qkv_shape row = qkv_shape2(1, (ptrdiff_t)qkv_size_of(t, x));
    const qkv_var rows[] = {qkv_reshape(t, x, row), qkv_broadcast(t, qkv_constant(t, least), row)};
    qkv_var larger = qkv_max(t, qkv_concat(t, rows, 2, 0), (const int[]){0}, 1, false);
    return qkv_reshape(t, larger, qkv_shape_of(t, x));
}

qkv_var qkv_normal_near(qkv_tape *t, qkv_var x)
{
    const double end = 40; /* here the density is 0 in either dtype */
    if (!has_infinity(t, x)) return x;
    return qkv_neg(t, at_least(t, qkv_neg(t, at_least(t, x, -end)), -end));
}

void qkv_differentiate_normal_cdf(qkv_tape *t, const qkv_reverse *r)
{
    r->dx[0] = qkv_mul(t, r->dy, qkv_normal_density_of(t, qkv_normal_near(t, r->x[0])));
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
