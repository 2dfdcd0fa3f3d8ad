#include "grad/loops.h"

/* One loop more on the outside, or the outermost made longer where both operands go on evenly. */
static void add_loop(qkv_loops *l, size_t count, size_t stride_a, size_t stride_b)
{
    int last = l->rank - 1;
    if (count == 1) return;
    if (last >= 0 && stride_a == l->stride_a[last] * l->count[last] &&
        stride_b == l->stride_b[last] * l->count[last]) {
        l->count[last] *= count;
        return;
    }
    l->count[l->rank] = count;
    l->index[l->rank] = 0;
    l->stride_a[l->rank] = stride_a;
    l->stride_b[l->rank++] = stride_b;
}

/* The innermost loop becomes the row. */
static void take_row(qkv_loops *l)
{
    l->n = l->count[0];
    l->step_a = l->stride_a[0];
    l->step_b = l->stride_b[0];
    l->rank--;
    for (int i = 0; i < l->rank; i++) {
        l->count[i] = l->count[i + 1];
        l->stride_a[i] = l->stride_a[i + 1];
        l->stride_b[i] = l->stride_b[i + 1];
        l->rows *= l->count[i];
    }
}

/* One row of n, both operands evenly along it or, where they have one number, still. */
static qkv_loops single_row(size_t n, size_t step_a, size_t step_b)
{
    qkv_loops l; /* not zeroed as a whole: most nodes of a long chain are scalars */
    l.rows = 1;
    l.n = n;
    l.step_a = step_a;
    l.step_b = step_b;
    l.at_a = l.at_b = 0;
    l.rank = 0;
    return l;
}

qkv_loops qkv_loops_over(int rank, const ptrdiff_t *dim, const size_t *stride_a,
                         const size_t *stride_b)
{
    qkv_loops l = single_row(1, 1, 1);
    for (int i = rank - 1; i >= 0; i--) add_loop(&l, (size_t)dim[i], stride_a[i], stride_b[i]);
    if (l.rank) take_row(&l);
    return l;
}

void qkv_loops_next(qkv_loops *l)
{
    for (int i = 0; i < l->rank; i++) {
        l->at_a += l->stride_a[i];
        l->at_b += l->stride_b[i];
        if (++l->index[i] < l->count[i]) return;
        l->at_a -= l->stride_a[i] * l->count[i];
        l->at_b -= l->stride_b[i] * l->count[i];
        l->index[i] = 0;
    }
}

void qkv_stretched_strides(int rank, int x_rank, const ptrdiff_t *x_dim, size_t *stride)
{
    size_t total = 1;
    for (int i = rank - 1, j = x_rank - 1; i >= 0; i--, j--) {
        size_t n = j >= 0 ? (size_t)x_dim[j] : 1;
        stride[i] = n == 1 ? 0 : total;
        total *= n;
    }
}

qkv_loops qkv_loops_broadcast(const qkv_node *node, const qkv_node *a, const qkv_node *b)
{
    const bool whole_a = a->size == node->size, whole_b = b->size == node->size;
    if ((whole_a || a->size == 1) && (whole_b || b->size == 1))
        return single_row(node->size, whole_a, whole_b);
    size_t stride_a[QKV_MAX_RANK], stride_b[QKV_MAX_RANK];
    qkv_stretched_strides(node->rank, a->rank, a->dim, stride_a);
    qkv_stretched_strides(node->rank, b->rank, b->dim, stride_b);
    return qkv_loops_over(node->rank, node->dim, stride_a, stride_b);
}
