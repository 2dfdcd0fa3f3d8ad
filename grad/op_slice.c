/* op_slice.c - y = x[start:stop:step] on one axis. */
#include "grad/rows.h"
#include "grad/reverse.h"
#include "src/real.h"

typedef struct call {
    int axis;
    ptrdiff_t start, stop, step;
} call;

static ptrdiff_t from_end(ptrdiff_t at, ptrdiff_t n)
{
    return at < 0 ? at + n : at;
}

static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    const call *a = arguments;
    const qkv_node *x = qkv_input(tape, node, 0);
    int axis;
    qkv_status status = qkv_node_axis(tape, node, x->rank, a->axis, &axis);
    if (status) return status;
    ptrdiff_t size = x->dim[axis];
    ptrdiff_t start = from_end(a->start, size), stop = from_end(a->stop, size);
    if (a->step < 1)
        return qkv_node_fail(tape, node, QKV_E_ARG, "the step is %td, expected 1 or more", a->step);
    if (start < 0 || stop > size || start > stop)
        return qkv_node_fail(tape, node, QKV_E_SHAPE,
                             "%td to %td is no range of axis %d, which has size %td", a->start,
                             a->stop, axis, size);
    ptrdiff_t n = (stop - start) / a->step + ((stop - start) % a->step != 0);
    status = FN(qkv_rows_shape)(tape, node, axis, n);
    if (status) return status;
    ptrdiff_t *index = ((qkv_rows_state *)node->state)->index;
    for (ptrdiff_t i = 0; i < n; i++) index[i] = start + i * a->step;
    return QKV_OK;
}

const qkv_op FN(qkv_op_slice) = {
    .shape = shape, .forward = FN(qkv_rows_forward), .backward = FN(qkv_rows_backward)};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_slice(qkv_tape *t, const qkv_reverse *r)
{
    const qkv_rows_state *s = qkv_state_of(t, r->y);
    r->dx[0] = qkv_scatter(t, r->dy, s->axis, s->index, (ptrdiff_t)s->n, (ptrdiff_t)s->x.n);
}

qkv_var qkv_slice(qkv_tape *tape, qkv_var x, int axis, ptrdiff_t start, ptrdiff_t stop,
                  ptrdiff_t step)
{
    return qkv_record(tape, QKV_OP_slice, &x, 1,
                      &(call){.axis = axis, .start = start, .stop = stop, .step = step});
}

static qkv_var rows(qkv_tape *tape, const qkv_var *x)
{
    return qkv_slice(tape, x[0], 0, 1, 3, 1);
}

static qkv_var stepped(qkv_tape *tape, const qkv_var *x)
{
    return qkv_slice(tape, x[0], 1, 1, -1, 2);
}

const qkv_op_case qkv_cases_slice[] = {
    {.n_input = 1, .input = {{2, {4, 3}}}, .apply = rows},
    {.label = "slice of the middle axis, step 2",
     .n_input = 1,
     .input = {{3, {2, 6, 3}}},
     .apply = stepped},
    {0},
};
#endif
