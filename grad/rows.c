#include "grad/rows.h"

#include <string.h>

#include "src/real.h"

qkv_status FN(qkv_rows_shape)(qkv_tape *tape, qkv_node *node, int axis, ptrdiff_t n)
{
    const qkv_node *x = qkv_input(tape, node, 0);
    qkv_rows_state *s = qkv_node_take(tape, node, 1, sizeof *s);
    ptrdiff_t *index = s ? qkv_node_take(tape, node, (size_t)n, sizeof *index) : NULL;
    if (!index) return QKV_E_NOMEM;
    *s =
        (qkv_rows_state){.x = qkv_view_axis(x, axis), .axis = axis, .index = index, .n = (size_t)n};
    node->state = s;
    ptrdiff_t dim[QKV_MAX_RANK];
    for (int i = 0; i < x->rank; i++) dim[i] = i == axis ? n : x->dim[i];
    return qkv_node_shape(tape, node, x->rank, dim);
}

qkv_status FN(qkv_rows_index)(qkv_tape *tape, qkv_node *node, int axis, const ptrdiff_t *index,
                              ptrdiff_t n, ptrdiff_t size)
{
    if (n && !index)
        return qkv_node_fail(tape, node, QKV_E_ARG, "index is NULL, expected %td numbers", n);
    qkv_status status = FN(qkv_rows_shape)(tape, node, axis, n);
    if (status) return status;
    ptrdiff_t *to = ((qkv_rows_state *)node->state)->index;
    for (ptrdiff_t i = 0; i < n; i++) {
        to[i] = index[i];
        if (index[i] < 0 || index[i] >= size)
            return qkv_node_fail(tape, node, QKV_E_ARG, "index[%td] is %td, expected 0 to %td", i,
                                 index[i], size - 1);
    }
    return QKV_OK;
}

/* Where row i of outer block o begins in x. */
static size_t at(const qkv_rows_state *s, size_t o, size_t i)
{
    return (o * s->x.n + (size_t)s->index[i]) * s->x.inner;
}

qkv_status FN(qkv_rows_forward)(qkv_tape *tape, qkv_node *node)
{
    const qkv_rows_state *s = node->state;
    const real *x = qkv_input(tape, node, 0)->value;
    real *y = node->value;
    if (node->size == 0) return QKV_OK;
    for (size_t o = 0; o < s->x.outer; o++)
        for (size_t i = 0; i < s->n; i++, y += s->x.inner)
            memcpy(y, x + at(s, o, i), s->x.inner * sizeof *y);
    return QKV_OK;
}

void FN(qkv_rows_add)(const qkv_rows_state *s, const real *rows, real *whole)
{
    for (size_t o = 0; o < s->x.outer; o++)
        for (size_t i = 0; i < s->n; i++, rows += s->x.inner)
            for (size_t c = 0; c < s->x.inner; c++) whole[at(s, o, i) + c] += rows[c];
}

qkv_status FN(qkv_rows_backward)(qkv_tape *tape, qkv_node *node)
{
    FN(qkv_rows_add)(node->state, node->gradient, qkv_input_gradient(tape, node, 0));
    return QKV_OK;
}
