/* shape.c - shapes: as arguments, and those that many operations share. */
#include "grad/tape.h"

qkv_shape qkv_scalar(void)
{
    return (qkv_shape){0};
}

qkv_shape qkv_shape1(ptrdiff_t a)
{
    return (qkv_shape){.rank = 1, .dim = {a}};
}

qkv_shape qkv_shape2(ptrdiff_t a, ptrdiff_t b)
{
    return (qkv_shape){.rank = 2, .dim = {a, b}};
}

qkv_shape qkv_shape3(ptrdiff_t a, ptrdiff_t b, ptrdiff_t c)
{
    return (qkv_shape){.rank = 3, .dim = {a, b, c}};
}

qkv_shape qkv_shape4(ptrdiff_t a, ptrdiff_t b, ptrdiff_t c, ptrdiff_t d)
{
    return (qkv_shape){.rank = 4, .dim = {a, b, c, d}};
}

/* x's shape is checked, and never changes: no copy is needed. */
static qkv_status share_shape(qkv_node *node, const qkv_node *x)
{
    node->rank = x->rank;
    node->dim = x->dim;
    node->size = x->size;
    return QKV_OK;
}

qkv_status qkv_shape_same(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    (void)arguments;
    return share_shape(node, qkv_input(tape, node, 0));
}

qkv_status qkv_shape_broadcast_pair(qkv_tape *tape, const qkv_node *node, int rank_a,
                                    const ptrdiff_t *a, int rank_b, const ptrdiff_t *b,
                                    qkv_shape *result)
{
    result->rank = rank_a > rank_b ? rank_a : rank_b;
    for (int i = 1; i <= result->rank; i++) {
        ptrdiff_t x = i <= rank_a ? a[rank_a - i] : 1, y = i <= rank_b ? b[rank_b - i] : 1;
        result->dim[result->rank - i] = x == 1 ? y : x;
        if (x == y || x == 1 || y == 1) continue;
        char left[128], right[128];
        qkv_shape_describe(rank_a, a, left, sizeof left);
        qkv_shape_describe(rank_b, b, right, sizeof right);
        return qkv_node_fail(tape, node, QKV_E_SHAPE,
                             "shapes %s and %s do not broadcast: sizes %td and %td differ", left,
                             right, x, y);
    }
    return QKV_OK;
}

qkv_status qkv_shape_broadcast(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    (void)arguments;
    const qkv_node *a = qkv_input(tape, node, 0), *b = qkv_input(tape, node, 1);
    if (qkv_same_shape(a, b)) return share_shape(node, a);
    qkv_shape shape;
    qkv_status status =
        qkv_shape_broadcast_pair(tape, node, a->rank, a->dim, b->rank, b->dim, &shape);
    return status ? status : qkv_node_shape(tape, node, shape.rank, shape.dim);
}
