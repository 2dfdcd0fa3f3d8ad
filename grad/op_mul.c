/* op_mul.c - y = a b, dy/da = b, dy/db = a. */
#include "grad/elementwise.h"
#include "grad/reverse.h"
#include "src/real.h"

static real value(real a, real b)
{
    return a * b;
}

static real slope_a(real a, real b, real y)
{
    (void)a, (void)y;
    return b;
}

static real slope_b(real a, real b, real y)
{
    (void)b, (void)y;
    return a;
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    return binary_forward(tape, node, value);
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    return binary_backward(tape, node, slope_a, slope_b);
}

const qkv_op FN(qkv_op_mul) = {
    .shape = qkv_shape_broadcast, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_mul(qkv_tape *t, const qkv_reverse *r)
{
    if (r->wanted[0]) r->dx[0] = qkv_sum_to(t, qkv_mul(t, r->dy, r->x[1]), r->x[0]);
    if (r->wanted[1]) r->dx[1] = qkv_sum_to(t, qkv_mul(t, r->dy, r->x[0]), r->x[1]);
}

qkv_var qkv_mul(qkv_tape *tape, qkv_var a, qkv_var b)
{
    return qkv_record(tape, QKV_OP_mul, (qkv_var[]){a, b}, 2, NULL);
}

const qkv_op_case qkv_cases_mul[] = {
    {.binary = qkv_mul, .n_input = 2, .input = {{2, {3, 4}}, {2, {3, 4}}}},
    {.binary = qkv_mul, .n_input = 2, .input = {{3, {2, 3, 4}}, {1, {4}}}},
    {.binary = qkv_mul, .n_input = 2, .input = {{3, {2, 1, 4}}, {2, {3, 1}}}},
    {.binary = qkv_mul, .n_input = 2, .input = {{0}, {2, {3, 4}}}},
    {0},
};
#endif
