/* op_reshape.c - the same elements under other sizes; the value is shared, not copied. */
#include "grad/tape.h"
#include "grad/reverse.h"
#include "src/real.h"

/* Fills in the one size that may be -1. */
static qkv_status complete(qkv_tape *tape, const qkv_node *node, qkv_shape *to, size_t size)
{
    int open = -1;
    size_t known = 1;
    for (int i = 0; i < to->rank; i++) {
        if (to->dim[i] == -1 && open >= 0)
            return qkv_node_fail(tape, node, QKV_E_SHAPE, "sizes %d and %d are both -1", open, i);
        if (to->dim[i] == -1)
            open = i;
        else
            known *= (size_t)to->dim[i];
    }
    if (open < 0) return QKV_OK;
    if (known == 0 || size % known)
        return qkv_node_fail(tape, node, QKV_E_SHAPE,
                             "%zu elements do not divide by the %zu of the known sizes", size,
                             known);
    to->dim[open] = (ptrdiff_t)(size / known);
    return QKV_OK;
}

static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    qkv_shape to = *(const qkv_shape *)arguments;
    const qkv_node *x = qkv_input(tape, node, 0);
    if (to.rank < 0 || to.rank > QKV_MAX_RANK)
        return qkv_node_fail(tape, node, QKV_E_SHAPE, "the rank is %d, expected 0 to %d", to.rank,
                             QKV_MAX_RANK);
    qkv_status status = complete(tape, node, &to, x->size);
    if (!status) status = qkv_node_shape(tape, node, to.rank, to.dim);
    if (status) return status;
    if (node->size != x->size)
        return qkv_node_fail(tape, node, QKV_E_SHAPE, "%zu elements cannot become %zu", x->size,
                             node->size);
    node->value = x->value;
    return QKV_OK;
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    real *dx = qkv_input_gradient(tape, node, 0);
    const real *dy = node->gradient;
    for (size_t i = 0; i < node->size; i++) dx[i] += dy[i];
    return QKV_OK;
}

const qkv_op FN(qkv_op_reshape) = {.shape = shape, .forward = NULL, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_reshape(qkv_tape *t, const qkv_reverse *r)
{
    r->dx[0] = qkv_reshape(t, r->dy, qkv_shape_of(t, r->x[0]));
}

qkv_var qkv_reshape(qkv_tape *tape, qkv_var x, qkv_shape shape)
{
    return qkv_record(tape, QKV_OP_reshape, &x, 1, &shape);
}

static qkv_var apply(qkv_tape *tape, const qkv_var *x)
{
    return qkv_reshape(tape, x[0], qkv_shape3(2, -1, 2));
}

const qkv_op_case qkv_cases_reshape[] = {
    {.n_input = 1, .input = {{2, {3, 4}}}, .apply = apply},
    {0},
};
#endif
