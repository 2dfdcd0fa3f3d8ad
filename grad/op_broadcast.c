/* op_broadcast.c - y = x, stretched to a shape; each x gets the sum of what it became. */
#include "grad/reverse.h"
#include "grad/strided.h"
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
    qkv_strided *s = status ? NULL : qkv_node_take(tape, node, 1, sizeof *s);
    if (!s) return tape->status;
    qkv_stretched_strides(node->rank, x->rank, x->dim, s->stride);
    node->state = s;
    return QKV_OK;
}

const qkv_op FN(qkv_op_broadcast) = {
    .shape = shape, .forward = FN(qkv_strided_forward), .backward = FN(qkv_strided_backward)};

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
