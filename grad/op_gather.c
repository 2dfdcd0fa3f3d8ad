/* op_gather.c - rows of one axis by index; an index that stands twice gets both cotangents. */
#include "grad/rows.h"
#include "grad/reverse.h"
#include "src/real.h"

typedef struct call {
    int axis;
    const ptrdiff_t *index;
    ptrdiff_t n;
} call;

static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    const call *a = arguments;
    const qkv_node *x = qkv_input(tape, node, 0);
    int axis;
    qkv_status status = qkv_node_axis(tape, node, x->rank, a->axis, &axis);
    if (status) return status;
    if (a->n < 0) return qkv_node_fail(tape, node, QKV_E_ARG, "n is %td, expected 0 or more", a->n);
    return FN(qkv_rows_index)(tape, node, axis, a->index, a->n, x->dim[axis]);
}

const qkv_op FN(qkv_op_gather) = {
    .shape = shape, .forward = FN(qkv_rows_forward), .backward = FN(qkv_rows_backward)};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_gather(qkv_tape *t, const qkv_reverse *r)
{
    const qkv_rows_state *s = qkv_state_of(t, r->y);
    r->dx[0] = qkv_scatter(t, r->dy, s->axis, s->index, (ptrdiff_t)s->n, (ptrdiff_t)s->x.n);
}

qkv_var qkv_gather(qkv_tape *tape, qkv_var x, int axis, const ptrdiff_t *index, ptrdiff_t n)
{
    return qkv_record(tape, QKV_OP_gather, &x, 1, &(call){.axis = axis, .index = index, .n = n});
}

static qkv_var rows(qkv_tape *tape, const qkv_var *x)
{
    return qkv_gather(tape, x[0], 0, (ptrdiff_t[]){2, 0, 2, 3}, 4);
}

static qkv_var middle(qkv_tape *tape, const qkv_var *x)
{
    return qkv_gather(tape, x[0], 1, (ptrdiff_t[]){1, 1, 0}, 3);
}

const qkv_op_case qkv_cases_gather[] = {
    {.n_input = 1, .input = {{2, {4, 3}}}, .apply = rows},
    {.label = "gather of the middle axis",
     .n_input = 1,
     .input = {{3, {2, 3, 2}}},
     .apply = middle},
    {0},
};
#endif
