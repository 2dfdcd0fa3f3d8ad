/* op_exp.c - y = exp x, dy/dx = y. */
#include "grad/elementwise.h"
#include "src/real.h"

static void forward(real *y, const real *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = exp(x[i]);
}

static void backward(real *dx, const real *dy, const real *x, const real *y, size_t n)
{
    (void)x;
    for (size_t i = 0; i < n; i++) dx[i] += dy[i] * y[i];
}

static qkv_var apply(qkv_tape *tape, const qkv_var *x)
{
    return qkv_exp(tape, x[0]);
}

static const qkv_op_case cases[] = {
    {.n_input = 1, .input = {{2, {3, 4}}}, .lower = -3, .upper = 2, .apply = apply},
    {0},
};

static const FN(qkv_unary) kernel = {forward, backward};
const qkv_op FN(qkv_op_exp) = {"exp", qkv_shape_same, FN(qkv_unary_forward), FN(qkv_unary_backward),
                               cases, &kernel};
