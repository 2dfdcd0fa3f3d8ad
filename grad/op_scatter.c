/* op_scatter.c - the mirror of gather: y is 0 but for rows index[i] of one axis, to which row i of
 * x is added. */
#include <string.h>

#include "grad/reverse.h"
#include "grad/rows.h"
#include "src/real.h"

typedef struct call {
    int axis;
    const ptrdiff_t *index;
    ptrdiff_t n, size;
} call;

/* The state's view is y's. */
static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    const call *a = arguments;
    const qkv_node *x = qkv_input(tape, node, 0);
    int axis;
    qkv_status status = qkv_node_axis(tape, node, x->rank, a->axis, &axis);
    if (status) return status;
    if (a->n != x->dim[axis])
        return qkv_node_fail(tape, node, QKV_E_ARG, "n is %td, expected %td, the size of axis %d",
                             a->n, x->dim[axis], axis);
    if (a->size < 0)
        return qkv_node_fail(tape, node, QKV_E_SHAPE, "size is %td, expected 0 or more", a->size);
    status = FN(qkv_rows_index)(tape, node, axis, a->index, a->n, a->size);
    if (status) return status;
    qkv_rows_state *s = node->state;
    ptrdiff_t dim[QKV_MAX_RANK];
    for (int i = 0; i < x->rank; i++) dim[i] = i == axis ? a->size : x->dim[i];
    status = qkv_node_shape(tape, node, x->rank, dim);
    if (!status) s->x = qkv_view_axis(node, axis);
    return status;
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    const qkv_rows_state *s = node->state;
    if (node->size) memset(node->value, 0, node->size * sizeof(real));
    FN(qkv_rows_add)(s, qkv_input(tape, node, 0)->value, node->value);
    return QKV_OK;
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    const qkv_rows_state *s = node->state;
    const real *dy = node->gradient;
    real *dx = qkv_input_gradient(tape, node, 0);
    for (size_t o = 0; o < s->x.outer; o++)
        for (size_t i = 0; i < s->n; i++, dx += s->x.inner)
            for (size_t c = 0; c < s->x.inner; c++)
                dx[c] += dy[(o * s->x.n + (size_t)s->index[i]) * s->x.inner + c];
    return QKV_OK;
}

const qkv_op FN(qkv_op_scatter) = {.shape = shape, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_scatter(qkv_tape *t, const qkv_reverse *r)
{
    const qkv_rows_state *s = qkv_state_of(t, r->y);
    r->dx[0] = qkv_gather(t, r->dy, s->axis, s->index, (ptrdiff_t)s->n);
}

qkv_var qkv_scatter(qkv_tape *tape, qkv_var x, int axis, const ptrdiff_t *index, ptrdiff_t n,
                    ptrdiff_t size)
{
    return qkv_record(tape, QKV_OP_scatter, &x, 1,
                      &(call){.axis = axis, .index = index, .n = n, .size = size});
}

static qkv_var rows(qkv_tape *tape, const qkv_var *x)
{
    return qkv_scatter(tape, x[0], 0, (ptrdiff_t[]){2, 0, 2, 3}, 4, 5);
}

static qkv_var middle(qkv_tape *tape, const qkv_var *x)
{
    return qkv_scatter(tape, x[0], 1, (ptrdiff_t[]){4, 1, 0}, 3, 6);
}

const qkv_op_case qkv_cases_scatter[] = {
    {.n_input = 1, .input = {{2, {4, 3}}}, .apply = rows},
    {.label = "scatter to the middle axis",
     .n_input = 1,
     .input = {{3, {2, 3, 2}}},
     .apply = middle},
    {0},
};
#endif
