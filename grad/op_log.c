/* op_log.c - y = log x, dy/dx = 1/x. */
#include "grad/elementwise.h"
#include "src/real.h"

static void forward(real *y, const real *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = log(x[i]);
}

static void backward(real *dx, const real *dy, const real *x, const real *y, size_t n)
{
    (void)y;
    for (size_t i = 0; i < n; i++) dx[i] += dy[i] / x[i];
}

static qkv_var apply(qkv_tape *tape, const qkv_var *x)
{
    return qkv_log(tape, x[0]);
}

static const qkv_op_case cases[] = {
    {.n_input = 1, .input = {{2, {3, 4}}}, .lower = 0.2, .upper = 4, .apply = apply},
    {0},
};

static const FN(qkv_unary) kernel = {forward, backward};
const qkv_op FN(qkv_op_log) = {"log", qkv_shape_same, FN(qkv_unary_forward), FN(qkv_unary_backward),
                               cases, &kernel};
