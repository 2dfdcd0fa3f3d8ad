/* op_neg.c - y = -x. */
#include "grad/elementwise.h"
#include "src/real.h"

static void forward(real *y, const real *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = -x[i];
}

static void backward(real *dx, const real *dy, const real *x, const real *y, size_t n)
{
    (void)x, (void)y;
    for (size_t i = 0; i < n; i++) dx[i] += -dy[i];
}

static qkv_var apply(qkv_tape *tape, const qkv_var *x)
{
    return qkv_neg(tape, x[0]);
}

static const qkv_op_case cases[] = {
    {.n_input = 1, .input = {{2, {3, 4}}}, .apply = apply},
    {0},
};

static const FN(qkv_unary) kernel = {forward, backward};
const qkv_op FN(qkv_op_neg) = {"neg", qkv_shape_same, FN(qkv_unary_forward), FN(qkv_unary_backward),
                               cases, &kernel};
