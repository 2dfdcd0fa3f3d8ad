/* op_pow.c - y = a^b, dy/da = b a^(b-1), dy/db = y log a.
 *
 * dy/db is 0 at a = 0 <= b, where a^b is flat in b. */
#include "grad/elementwise.h"
#include "grad/reverse.h"
#include "src/real.h"

static real value(real a, real b)
{
    return pow(a, b);
}

static real slope_a(real a, real b, real y)
{
    (void)y;
    return b == 0 ? 0 : b * pow(a, b - 1);
}

static real slope_b(real a, real b, real y)
{
    return a == 0 && b >= 0 ? 0 : y * log(a);
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    return binary_forward(tape, node, value);
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    return binary_backward(tape, node, slope_a, slope_b);
}

const qkv_op FN(qkv_op_pow) = {
    .shape = qkv_shape_broadcast, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
static double is_zero(double x)
{
    return x == 0;
}

/* 1 is added where a factor of 0 follows, so that no 0 meets an infinity. */
void qkv_differentiate_pow(qkv_tape *t, const qkv_reverse *r)
{
    qkv_var a = r->x[0], b = r->x[1], one = qkv_constant(t, 1);
    if (r->wanted[0]) {
        qkv_var flat = qkv_constant_map(t, b, is_zero);
        qkv_var less = qkv_sub(t, qkv_add(t, b, flat), one);
        r->dx[0] = qkv_sum_to(t, qkv_mul(t, r->dy, qkv_mul(t, b, qkv_pow(t, a, less))), a);
    }
    if (r->wanted[1]) {
        qkv_var safe = qkv_add(t, a, qkv_constant_map(t, a, is_zero));
        r->dx[1] = qkv_sum_to(t, qkv_mul(t, r->dy, qkv_mul(t, r->y, qkv_log(t, safe))), b);
    }
}

qkv_var qkv_pow(qkv_tape *tape, qkv_var a, qkv_var b)
{
    return qkv_record(tape, QKV_OP_pow, (qkv_var[]){a, b}, 2, NULL);
}

const qkv_op_case qkv_cases_pow[] = {
    {.binary = qkv_pow,
     .n_input = 2,
     .input = {{2, {3, 4}}, {2, {3, 4}}},
     .lower = 0.5,
     .upper = 2},
    {.binary = qkv_pow,
     .n_input = 2,
     .input = {{3, {2, 3, 4}}, {1, {4}}},
     .lower = 0.5,
     .upper = 2},
    {.binary = qkv_pow,
     .n_input = 2,
     .input = {{3, {2, 1, 4}}, {2, {3, 1}}},
     .lower = 0.5,
     .upper = 2},
    {.binary = qkv_pow, .n_input = 2, .input = {{0}, {2, {3, 4}}}, .lower = 0.5, .upper = 2},
    {0},
};
#endif
