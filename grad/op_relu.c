/* op_relu.c - y = max(0, x); derivative 0 at 0, and NaN stays NaN. */
#include "grad/elementwise.h"
#include "src/real.h"

static void forward(real *y, const real *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = x[i] < 0 ? 0 : x[i];
}

static void backward(real *dx, const real *dy, const real *x, const real *y, size_t n)
{
    (void)y;
    for (size_t i = 0; i < n; i++) dx[i] += x[i] > 0 ? dy[i] : x[i] != x[i] ? x[i] : 0;
}

static qkv_var apply(qkv_tape *tape, const qkv_var *x)
{
    return qkv_relu(tape, x[0]);
}

static const qkv_op_case cases[] = {
    {.n_input = 1, .input = {{2, {3, 4}}}, .spread = true, .apply = apply},
    {0},
};

static const FN(qkv_unary) kernel = {forward, backward};
const qkv_op FN(qkv_op_relu) = {
    "relu", qkv_shape_same, FN(qkv_unary_forward), FN(qkv_unary_backward), cases, &kernel};
