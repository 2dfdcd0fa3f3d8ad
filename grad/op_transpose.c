/* op_transpose.c - axis i of y is axis permutation[i] of x. */
#include "grad/axes.h"
#include "src/real.h"

/* state: for each axis of y, its stride in x. */
static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    const qkv_node *x = qkv_input(tape, node, 0);
    const int *permutation = arguments;
    ptrdiff_t dim[QKV_MAX_RANK], packed[QKV_MAX_RANK];
    bool used[QKV_MAX_RANK] = {false};
    ptrdiff_t *stride = qkv_node_take(tape, node, x->rank, sizeof *stride);
    if (!stride) return QKV_E_NOMEM;
    qkv_packed_strides(x->rank, x->dim, packed);
    for (int i = 0; i < x->rank; i++) {
        int axis;
        qkv_status status = qkv_node_axis(tape, node, x->rank,
                                          permutation ? permutation[i] : x->rank - 1 - i, &axis);
        if (status) return status;
        if (used[axis])
            return qkv_node_fail(tape, node, QKV_E_ARG, "axis %d stands twice in the permutation",
                                 axis);
        used[axis] = true;
        dim[i] = x->dim[axis];
        stride[i] = packed[axis];
    }
    node->state = stride;
    return qkv_node_shape(tape, node, x->rank, dim);
}

static qkv_odometer walk(const qkv_node *node)
{
    qkv_odometer o = {.rank = node->rank, .dim = node->dim};
    for (int i = 0; i < node->rank; i++) o.stride[i] = ((const ptrdiff_t *)node->state)[i];
    return o;
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    const real *x = qkv_input(tape, node, 0)->value;
    real *y = node->value;
    qkv_odometer o = walk(node);
    for (size_t i = 0; i < node->size; i++, qkv_odometer_next(&o)) y[i] = x[o.at];
    return QKV_OK;
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    real *dx = qkv_input_gradient(tape, node, 0);
    const real *dy = node->gradient;
    qkv_odometer o = walk(node);
    for (size_t i = 0; i < node->size; i++, qkv_odometer_next(&o)) dx[o.at] += dy[i];
    return QKV_OK;
}

static qkv_var reversed(qkv_tape *tape, const qkv_var *x)
{
    return qkv_transpose(tape, x[0], NULL);
}

static qkv_var permuted(qkv_tape *tape, const qkv_var *x)
{
    return qkv_transpose(tape, x[0], (int[]){1, 2, 0});
}

static const qkv_op_case cases[] = {
    {.n_input = 1, .input = {{2, {3, 4}}}, .apply = reversed},
    {.label = "transpose of three axes",
     .n_input = 1,
     .input = {{3, {2, 3, 4}}},
     .apply = permuted},
    {0},
};

const qkv_op FN(qkv_op_transpose) = {"transpose", shape, forward, backward, cases, NULL};
