/* op_attend_ragged.c - a ragged batch composed of operations of the tape: all items at once, as if
 * they were as long as the longest. What is filled in is somebody's row, which is seen by nobody
 * and whose answer is not taken. */
#include "grad/op_attend.h"
#include "grad/reverse.h"
#include "src/real.h"

#if QKV_REAL == 64 /* what has no dtype is compiled once */
/* Where row i of item b is, for `rows` rows an item; row 0 for those that it does not have. */
static ptrdiff_t *rows_of(qkv_tape *t, qkv_var x, const int64_t *starts, ptrdiff_t batch,
                          ptrdiff_t rows)
{
    const qkv_node *node = qkv_node_of(t, x, "qkv_grad");
    const size_t n = (size_t)batch * (size_t)rows;
    ptrdiff_t *index = node ? qkv_node_take(t, node, n, sizeof *index) : NULL;
    for (ptrdiff_t b = 0; b < batch && index; b++)
        for (ptrdiff_t i = 0; i < rows; i++)
            index[b * rows + i] = i < starts[b + 1] - starts[b] ? (ptrdiff_t)starts[b] + i : 0;
    return index;
}

qkv_var qkv_attend_pad(qkv_tape *t, const int64_t *starts, ptrdiff_t batch, ptrdiff_t rows,
                       qkv_var x, ptrdiff_t heads, ptrdiff_t d)
{
    const ptrdiff_t *index = rows_of(t, x, starts, batch, rows);
    if (!index) return x;
    x = qkv_gather(t, x, 0, index, batch * rows);
    x = qkv_reshape(t, x, qkv_shape4(batch, rows, heads, d));
    return qkv_transpose(t, x, (const int[]){0, 2, 1, 3});
}

/* [.., heads or 1, total_q or 1, n_k or 1]; of one row for all, as it is. */
qkv_var qkv_attend_pad_bias(qkv_tape *t, const attend_problem *p, qkv_var bias)
{
    const qkv_shape s = qkv_shape_of(t, bias);
    const ptrdiff_t batch = p->a.batch, rows = p->a.n_q;
    if (s.rank < 2 || s.dim[s.rank - 2] == 1) return bias;
    const ptrdiff_t heads = s.rank < 3 ? 1 : s.dim[s.rank - 3], columns = s.dim[s.rank - 1];
    const ptrdiff_t *index = rows_of(t, bias, p->starts_q, batch, rows);
    if (!index) return bias;
    bias = qkv_gather(t, bias, -2, index, batch * rows);
    bias = qkv_reshape(t, bias, qkv_shape4(heads, batch, rows, columns));
    return qkv_transpose(t, bias, (const int[]){1, 0, 2, 3});
}

/* [batch, heads, rows, d_v] as [total_q, heads, d_v]. */
qkv_var qkv_attend_unpad(qkv_tape *t, const attend_problem *p, qkv_var o)
{
    const ptrdiff_t batch = p->a.batch, rows = p->a.n_q;
    const qkv_node *node = qkv_node_of(t, o, "qkv_grad");
    const ptrdiff_t total = (ptrdiff_t)p->starts_q[batch];
    ptrdiff_t *index = node ? qkv_node_take(t, node, (size_t)total, sizeof *index) : NULL;
    if (!index) return o;
    for (ptrdiff_t b = 0; b < batch; b++)
        for (int64_t i = p->starts_q[b]; i < p->starts_q[b + 1]; i++)
            index[i] = b * rows + (ptrdiff_t)(i - p->starts_q[b]);
    o = qkv_transpose(t, o, (const int[]){0, 2, 1, 3});
    o = qkv_reshape(t, o, qkv_shape3(batch * rows, p->a.heads, p->a.d_v));
    return qkv_gather(t, o, 0, index, total);
}
#endif
