/* op_sigmoid.c - y = 1 / (1 + exp(-x)), dy/dx = y (1 - y). */
#include "grad/elementwise.h"
#include "src/real.h"

/* The exponential is taken of a negative number on either side, so it never overflows. */
static void forward(real *y, const real *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        real e = exp(-fabs(x[i]));
        y[i] = (x[i] < 0 ? e : 1) / (1 + e);
    }
}

static void backward(real *dx, const real *dy, const real *x, const real *y, size_t n)
{
    (void)x;
    for (size_t i = 0; i < n; i++) dx[i] += dy[i] * y[i] * (1 - y[i]);
}

static qkv_var apply(qkv_tape *tape, const qkv_var *x)
{
    return qkv_sigmoid(tape, x[0]);
}

static const qkv_op_case cases[] = {
    {.n_input = 1, .input = {{2, {3, 4}}}, .lower = -4, .upper = 4, .apply = apply},
    {0},
};

static const FN(qkv_unary) kernel = {forward, backward};
const qkv_op FN(qkv_op_sigmoid) = {
    "sigmoid", qkv_shape_same, FN(qkv_unary_forward), FN(qkv_unary_backward), cases, &kernel};
