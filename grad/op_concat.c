/* op_concat.c - arrays one after another along an axis; all other sizes are equal. */
#include <string.h>

#include "grad/axes.h"
#include "grad/reverse.h"
#include "src/real.h"

/* state: the axis. */
static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    const qkv_node *first = qkv_input(tape, node, 0);
    int *axis = qkv_node_take(tape, node, 1, sizeof *axis);
    if (!axis) return QKV_E_NOMEM;
    qkv_status status = qkv_node_axis(tape, node, first->rank, *(const int *)arguments, axis);
    if (status) return status;
    ptrdiff_t dim[QKV_MAX_RANK], total = 0;
    for (int i = 0; i < first->rank; i++) dim[i] = first->dim[i];
    for (int m = 0; m < node->n_input; m++) {
        const qkv_node *x = qkv_input(tape, node, m);
        bool fits = x->rank == first->rank;
        for (int i = 0; i < first->rank && fits; i++) fits = i == *axis || x->dim[i] == dim[i];
        if (!fits) {
            char found[128], expected[128];
            qkv_shape_describe(x->rank, x->dim, found, sizeof found);
            qkv_shape_describe(first->rank, first->dim, expected, sizeof expected);
            return qkv_node_fail(tape, node, QKV_E_SHAPE,
                                 "input %d is %s, expected %s but for axis %d", m, found, expected,
                                 *axis);
        }
        if (__builtin_add_overflow(total, x->dim[*axis], &total))
            return qkv_node_fail(tape, node, QKV_E_OVERFLOW, "the sum of the sizes overflows");
    }
    dim[*axis] = total;
    node->state = axis;
    return qkv_node_shape(tape, node, first->rank, dim);
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    int axis = *(const int *)node->state;
    qkv_axis_view y = qkv_view_axis(node, axis);
    size_t row = y.n * y.inner, before = 0;
    for (int m = 0; m < node->n_input; m++) {
        const qkv_node *x = qkv_input(tape, node, m);
        size_t part = (size_t)x->dim[axis] * y.inner;
        for (size_t o = 0; o < y.outer && part; o++)
            memcpy((real *)node->value + o * row + before, (const real *)x->value + o * part,
                   part * sizeof(real));
        before += part;
    }
    return QKV_OK;
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    int axis = *(const int *)node->state;
    qkv_axis_view y = qkv_view_axis(node, axis);
    size_t row = y.n * y.inner, before = 0;
    for (int m = 0; m < node->n_input; m++) {
        const qkv_node *x = qkv_input(tape, node, m);
        size_t part = (size_t)x->dim[axis] * y.inner;
        const real *dy = (const real *)node->gradient + before;
        real *dx = x->gradient;
        for (size_t o = 0; o < y.outer && dx; o++)
            for (size_t i = 0; i < part; i++) dx[o * part + i] += dy[o * row + i];
        before += part;
    }
    return QKV_OK;
}

const qkv_op FN(qkv_op_concat) = {.shape = shape, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_concat(qkv_tape *t, const qkv_reverse *r)
{
    int axis = *(const int *)qkv_state_of(t, r->y);
    ptrdiff_t at = 0;
    for (int i = 0; i < r->n; i++) {
        ptrdiff_t n = qkv_shape_of(t, r->x[i]).dim[axis];
        if (r->wanted[i]) r->dx[i] = qkv_slice(t, r->dy, axis, at, at + n, 1);
        at += n;
    }
}

qkv_var qkv_concat(qkv_tape *tape, const qkv_var *xs, int n, int axis)
{
    if (!xs) return qkv_refuse(tape, QKV_OP_concat, QKV_E_ARG, "xs is NULL");
    if (n < 1 || n > UINT16_MAX)
        return qkv_refuse(tape, QKV_OP_concat, QKV_E_ARG, "n is %d, expected 1 to %d arrays", n,
                          UINT16_MAX);
    return qkv_record(tape, QKV_OP_concat, xs, n, &axis);
}

static qkv_var columns(qkv_tape *tape, const qkv_var *x)
{
    return qkv_concat(tape, x, 3, -1);
}

static qkv_var twice(qkv_tape *tape, const qkv_var *x)
{
    return qkv_concat(tape, (qkv_var[]){x[0], x[1], x[0]}, 3, 0);
}

const qkv_op_case qkv_cases_concat[] = {
    {.n_input = 3, .input = {{2, {3, 2}}, {2, {3, 1}}, {2, {3, 4}}}, .apply = columns},
    {.label = "concat of an array with itself",
     .n_input = 2,
     .input = {{3, {2, 2, 2}}, {3, {1, 2, 2}}},
     .apply = twice},
    {0},
};
#endif
