/* op_broadcast.c - y = x, stretched to a shape; each x gets the sum of what it became. */
#include "grad/loops.h"
#include "grad/reverse.h"
#include "src/real.h"

static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    const qkv_shape *to = arguments;
    const qkv_node *x = qkv_input(tape, node, 0);
    qkv_shape found;
    qkv_status status = qkv_node_shape(tape, node, to->rank, to->dim);
    if (status) return status;
    status = qkv_shape_broadcast_pair(tape, node, x->rank, x->dim, to->rank, to->dim, &found);
    for (int i = 0; i < found.rank && !status; i++)
        if (found.rank != to->rank || found.dim[i] != to->dim[i])
            status =
                qkv_node_fail(tape, node, QKV_E_SHAPE,
                              "x has rank %d and more elements than the shape asked for", x->rank);
    return status;
}

static qkv_loops over(const qkv_tape *tape, const qkv_node *node)
{
    const qkv_node *x = qkv_input(tape, node, 0);
    size_t stride[QKV_MAX_RANK];
    qkv_stretched_strides(node->rank, x->rank, x->dim, stride);
    return qkv_loops_over(node->rank, node->dim, stride, stride);
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    real *restrict y = node->value;
    if (!node->size) return QKV_OK;
    qkv_loops l = over(tape, node);
    for (size_t row = 0; row < l.rows; row++, y += l.n, qkv_loops_next(&l)) {
        const real *x = (const real *)qkv_input(tape, node, 0)->value + l.at_a;
        for (size_t i = 0; i < l.n; i++) y[i] = x[i * l.step_a];
    }
    return QKV_OK;
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    const real *dy = node->gradient;
    if (!node->size) return QKV_OK;
    qkv_loops l = over(tape, node);
    for (size_t row = 0; row < l.rows; row++, dy += l.n, qkv_loops_next(&l)) {
        real *dx = (real *)qkv_input_gradient(tape, node, 0) + l.at_a;
        for (size_t i = 0; i < l.n; i++) dx[i * l.step_a] += dy[i];
    }
    return QKV_OK;
}

const qkv_op FN(qkv_op_broadcast) = {.shape = shape, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_broadcast(qkv_tape *t, const qkv_reverse *r)
{
    r->dx[0] = qkv_sum_to(t, r->dy, r->x[0]);
}

qkv_var qkv_broadcast(qkv_tape *tape, qkv_var x, qkv_shape to)
{
    return qkv_record(tape, QKV_OP_broadcast, &x, 1, &to);
}

static qkv_var middle(qkv_tape *tape, const qkv_var *x)
{
    return qkv_broadcast(tape, x[0], qkv_shape4(2, 3, 4, 2));
}

static qkv_var scalar(qkv_tape *tape, const qkv_var *x)
{
    return qkv_broadcast(tape, x[0], qkv_shape2(3, 5));
}

const qkv_op_case qkv_cases_broadcast[] = {
    {.n_input = 1, .input = {{3, {3, 1, 2}}}, .apply = middle},
    {.label = "broadcast of a scalar", .n_input = 1, .input = {{0}}, .apply = scalar},
    {0},
};
#endif
