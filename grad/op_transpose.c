/* op_transpose.c - axis i of y is axis permutation[i] of x. */
#include "grad/reverse.h"
#include "grad/strided.h"
#include "src/real.h"

static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    const qkv_node *x = qkv_input(tape, node, 0);
    const int *permutation = arguments;
    ptrdiff_t dim[QKV_MAX_RANK];
    size_t packed[QKV_MAX_RANK], total = 1;
    bool used[QKV_MAX_RANK] = {false};
    qkv_strided *o = qkv_node_take(tape, node, 1, sizeof *o);
    if (!o) return QKV_E_NOMEM;
    for (int i = x->rank - 1; i >= 0; i--) {
        packed[i] = total;
        total *= (size_t)x->dim[i];
    }
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
        o->stride[i] = packed[axis];
        o->axis[i] = axis;
    }
    node->state = o;
    return qkv_node_shape(tape, node, x->rank, dim);
}

const qkv_op FN(qkv_op_transpose) = {
    .shape = shape, .forward = FN(qkv_strided_forward), .backward = FN(qkv_strided_backward)};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_transpose(qkv_tape *t, const qkv_reverse *r)
{
    const qkv_strided *o = qkv_state_of(t, r->y);
    int back[QKV_MAX_RANK], rank = qkv_shape_of(t, r->y).rank;
    for (int i = 0; i < rank; i++) back[o->axis[i]] = i;
    r->dx[0] = qkv_transpose(t, r->dy, back);
}

qkv_var qkv_transpose(qkv_tape *tape, qkv_var x, const int *permutation)
{
    return qkv_record(tape, QKV_OP_transpose, &x, 1, permutation);
}

static qkv_var reversed(qkv_tape *tape, const qkv_var *x)
{
    return qkv_transpose(tape, x[0], NULL);
}

static qkv_var permuted(qkv_tape *tape, const qkv_var *x)
{
    return qkv_transpose(tape, x[0], (int[]){1, 2, 0});
}

const qkv_op_case qkv_cases_transpose[] = {
    {.n_input = 1, .input = {{2, {3, 4}}}, .apply = reversed},
    {.label = "transpose of three axes",
     .n_input = 1,
     .input = {{3, {2, 3, 4}}},
     .apply = permuted},
    {0},
};
#endif
