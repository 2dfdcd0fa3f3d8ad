#include "grad/reduce.h"

#include <string.h>

#include "grad/arguments.h"

/* reduced[i]: does axis i go? */
static qkv_status read_axes(qkv_tape *tape, const qkv_node *node, int rank,
                            const qkv_reduce_arguments *a, bool *reduced)
{
    for (int i = 0; i < rank; i++) reduced[i] = a->axes == NULL;
    for (int i = 0; a->axes && i < a->n_axes; i++) {
        int axis;
        qkv_status status = qkv_node_axis(tape, node, rank, a->axes[i], &axis);
        if (status) return status;
        if (reduced[axis])
            return qkv_node_fail(tape, node, QKV_E_ARG, "axis %d is named twice", a->axes[i]);
        reduced[axis] = true;
    }
    return QKV_OK;
}

qkv_status qkv_reduce_shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    const qkv_reduce_arguments *a = arguments;
    const qkv_node *x = qkv_input(tape, node, 0);
    bool reduced[QKV_MAX_RANK];
    qkv_status status = read_axes(tape, node, x->rank, a, reduced);
    if (status) return status;
    qkv_reduction *r = qkv_node_take(tape, node, 1, sizeof *r);
    if (!r) return QKV_E_NOMEM;
    *r = (qkv_reduction){.count = 1};
    ptrdiff_t dim[QKV_MAX_RANK], n = 1;
    int rank = 0;
    for (int i = 0; i < x->rank; i++) {
        if (reduced[i]) r->count *= (size_t)x->dim[i];
        if (!reduced[i] || a->keep) dim[rank++] = reduced[i] ? 1 : x->dim[i];
    }
    for (int i = x->rank - 1; i >= 0; i--) {
        r->stride[i] = reduced[i] ? 0 : n;
        if (!reduced[i]) n *= x->dim[i];
    }
    node->state = r;
    return qkv_node_shape(tape, node, rank, dim);
}

qkv_odometer qkv_reduce_walk(const qkv_tape *tape, const qkv_node *node)
{
    const qkv_node *x = qkv_input(tape, node, 0);
    const qkv_reduction *r = node->state;
    qkv_odometer o = {.rank = x->rank, .dim = x->dim};
    memcpy(o.stride, r->stride, sizeof o.stride);
    return o;
}
