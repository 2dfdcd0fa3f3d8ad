/* op_add.c - y = a + b. */
#include "grad/elementwise.h"
#include "grad/reverse.h"
#include "src/real.h"

static real value(real a, real b)
{
    return a + b;
}

static real slope_a(real a, real b, real y)
{
    (void)a, (void)b, (void)y;
    return 1;
}

static real slope_b(real a, real b, real y)
{
    (void)a, (void)b, (void)y;
    return 1;
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    return binary_forward(tape, node, value);
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    return binary_backward(tape, node, slope_a, slope_b);
}

const qkv_op FN(qkv_op_add) = {
    .shape = qkv_shape_broadcast, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_add(qkv_tape *t, const qkv_reverse *r)
{
    r->dx[0] = qkv_sum_to(t, r->dy, r->x[0]);
    r->dx[1] = qkv_sum_to(t, r->dy, r->x[1]);
}

qkv_var qkv_add(qkv_tape *tape, qkv_var a, qkv_var b)
{
    return qkv_record(tape, QKV_OP_add, (qkv_var[]){a, b}, 2, NULL);
}

const qkv_op_case qkv_cases_add[] = {
    {.binary = qkv_add, .n_input = 2, .input = {{2, {3, 4}}, {2, {3, 4}}}},
    {.binary = qkv_add, .n_input = 2, .input = {{3, {2, 3, 4}}, {1, {4}}}},
    {.binary = qkv_add, .n_input = 2, .input = {{3, {2, 1, 4}}, {2, {3, 1}}}},
    {.binary = qkv_add, .n_input = 2, .input = {{0}, {2, {3, 4}}}},
    {.binary = qkv_add, .n_input = 2, .input = {{2, {3, 4}}, {1, {1}}}},
    {0},
};
#endif
