/* op_softmax.c - y = exp(x) / sum exp(x) along an axis, dx = y (dy - sum y dy).
 *
 * A row of -inf alone is NaN. */
#include "grad/softmax.h"
#include "grad/reverse.h"
#include "src/real.h"

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    qkv_axis_view v = qkv_view_axis(node, *(const int *)node->state);
    const real *x = qkv_input(tape, node, 0)->value;
    real *y = node->value;
    for (size_t o = 0; o < v.outer; o++)
        for (size_t c = 0; c < v.inner; c++) {
            size_t at = o * v.n * v.inner + c;
            FN(qkv_row_sum) r = FN(qkv_sum_row)(x + at, v.n, v.inner);
            for (size_t i = 0; i < v.n; i++, at += v.inner) y[at] = exp(x[at] - r.max - r.log_sum);
        }
    return QKV_OK;
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    qkv_axis_view v = qkv_view_axis(node, *(const int *)node->state);
    const real *y = node->value, *dy = node->gradient;
    real *dx = qkv_input_gradient(tape, node, 0);
    for (size_t o = 0; o < v.outer; o++)
        for (size_t c = 0; c < v.inner; c++) {
            size_t at = o * v.n * v.inner + c;
            real sum = 0;
            for (size_t i = 0; i < v.n; i++) sum += y[at + i * v.inner] * dy[at + i * v.inner];
            for (size_t i = 0; i < v.n; i++)
                dx[at + i * v.inner] += y[at + i * v.inner] * (dy[at + i * v.inner] - sum);
        }
    return QKV_OK;
}

const qkv_op FN(qkv_op_softmax) = {
    .shape = FN(qkv_softmax_shape), .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_softmax(qkv_tape *t, const qkv_reverse *r)
{
    int axis = *(const int *)qkv_state_of(t, r->y);
    qkv_var sum = qkv_sum(t, qkv_mul(t, r->y, r->dy), &axis, 1, true);
    r->dx[0] = qkv_mul(t, r->y, qkv_sub(t, r->dy, sum));
}

qkv_var qkv_softmax(qkv_tape *tape, qkv_var x, int axis)
{
    return qkv_record(tape, QKV_OP_softmax, &x, 1, &axis);
}

static qkv_var rows(qkv_tape *tape, const qkv_var *x)
{
    return qkv_softmax(tape, x[0], -1);
}

static qkv_var middle(qkv_tape *tape, const qkv_var *x)
{
    return qkv_softmax(tape, x[0], 1);
}

const qkv_op_case qkv_cases_softmax[] = {
    {.n_input = 1, .input = {{2, {3, 5}}}, .lower = -3, .upper = 3, .apply = rows},
    {.label = "softmax of the middle axis",
     .n_input = 1,
     .input = {{3, {2, 4, 3}}},
     .lower = -3,
     .upper = 3,
     .apply = middle},
    {0},
};
#endif
