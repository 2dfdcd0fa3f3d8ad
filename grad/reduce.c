/* reduce.c - which axes go, and sums over them. A result stretches to its input, so a reduction is
 * the loop of a broadcast, read the other way. */
#include "grad/reduce.h"

#include <string.h>

#include "grad/sum_of.h"
#include "src/real.h"

void FN(qkv_sum_axes)(const qkv_tape *tape, const qkv_node *node)
{
    const qkv_node *in = qkv_input(tape, node, 0);
    const real *x = in->value;
    memset(node->value, 0, node->size * sizeof *x);
    if (!in->size) return;
    qkv_loops l = qkv_reduce_loops(tape, node);
    for (size_t row = 0; row < l.rows; row++, x += l.n, qkv_loops_next(&l)) {
        real *restrict y = (real *)node->value + l.at_a;
        if (l.step_a)
            for (size_t i = 0; i < l.n; i++) y[i] += x[i];
        else
            *y += FN(qkv_sum_of)(x, l.n);
    }
}

void FN(qkv_spread_over_axes)(const qkv_tape *tape, const qkv_node *node, real factor)
{
    const qkv_node *in = qkv_input(tape, node, 0);
    if (!in->size) return;
    qkv_loops l = qkv_reduce_loops(tape, node);
    real *restrict dx = in->gradient;
    for (size_t row = 0; row < l.rows; row++, dx += l.n, qkv_loops_next(&l)) {
        const real *dy = (const real *)node->gradient + l.at_a;
        if (l.step_a)
            for (size_t i = 0; i < l.n; i++) dx[i] += factor * dy[i];
        else
            for (size_t i = 0; i < l.n; i++) dx[i] += factor * *dy;
    }
}

#if QKV_REAL == 64 /* what has no dtype is compiled once */
typedef struct call {
    const int *axes; /* NULL: all */
    int n_axes;
    bool keep;
} call;

/* reduced[i]: does axis i go? */
static qkv_status read_axes(qkv_tape *tape, const qkv_node *node, int rank, const call *a,
                            bool *reduced)
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
    const call *a = arguments;
    const qkv_node *x = qkv_input(tape, node, 0);
    bool reduced[QKV_MAX_RANK];
    qkv_status status = read_axes(tape, node, x->rank, a, reduced);
    if (status) return status;
    qkv_reduction *r = node->state = qkv_node_take(tape, node, 1, sizeof *r);
    if (!r) return QKV_E_NOMEM;
    for (int i = 0; i < x->rank; i++) r->reduced[i] = reduced[i];
    r->count = 1;
    ptrdiff_t dim[QKV_MAX_RANK];
    size_t total = 1;
    int rank = 0;
    for (int i = 0; i < x->rank; i++) {
        if (reduced[i]) r->count *= (size_t)x->dim[i];
        if (!reduced[i] || a->keep) dim[rank++] = reduced[i] ? 1 : x->dim[i];
    }
    for (int i = x->rank - 1; i >= 0; i--) {
        r->stride[i] = reduced[i] ? 0 : total;
        if (!reduced[i]) total *= (size_t)x->dim[i];
    }
    return qkv_node_shape(tape, node, rank, dim);
}

qkv_status qkv_reduce_shape_of_some(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    qkv_status status = qkv_reduce_shape(tape, node, arguments);
    if (status || ((const qkv_reduction *)node->state)->count > 0) return status;
    return qkv_node_fail(tape, node, QKV_E_SHAPE, "of no elements");
}

qkv_loops qkv_reduce_loops(const qkv_tape *tape, const qkv_node *node)
{
    const qkv_node *x = qkv_input(tape, node, 0);
    const qkv_reduction *r = node->state;
    return qkv_loops_over(x->rank, x->dim, r->stride, r->stride);
}

qkv_var qkv_record_reduction(qkv_tape *tape, qkv_op_id op, qkv_var x, const int *axes, int n_axes,
                             bool keep)
{
    return qkv_record(tape, op, &x, 1, &(call){.axes = axes, .n_axes = n_axes, .keep = keep});
}
#endif
