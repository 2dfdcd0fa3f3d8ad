/* multi_head.c - multi-head attention, composed of operations of the tape. */
#include "grad/tape.h"

static bool given(qkv_var x)
{
    return x.generation != 0;
}

static qkv_var product(qkv_tape *tape, qkv_var x, qkv_var w, qkv_var b)
{
    qkv_var y = qkv_matmul(tape, x, w);
    return given(b) ? qkv_add(tape, y, b) : y;
}

/* x w + b as [batch, heads, n, d], of a ragged batch [total, heads, d]. */
static qkv_var split(qkv_tape *tape, qkv_var x, qkv_var w, qkv_var b, ptrdiff_t heads, bool ragged,
                     const char *name)
{
    static const int swap[] = {0, 2, 1, 3};
    qkv_var y = product(tape, x, w, b);
    const qkv_shape s = qkv_shape_of(tape, y);
    if (s.rank < 2) return (qkv_var){0};
    ptrdiff_t width = s.dim[s.rank - 1], n = s.dim[s.rank - 2];
    if (heads < 1)
        return qkv_refuse(tape, QKV_OP_attend, QKV_E_SHAPE,
                          "multi-head: heads is %td, expected 1 or more", heads);
    if (width % heads)
        return qkv_refuse(tape, QKV_OP_attend, QKV_E_SHAPE,
                          "multi-head: %s has %td columns, expected a multiple of the number of "
                          "its heads, %td",
                          name, width, heads);
    if (ragged) return qkv_reshape(tape, y, qkv_shape3(n, heads, width / heads));
    y = qkv_reshape(tape, y, qkv_shape4(s.rank > 2 ? s.dim[0] : 1, n, heads, width / heads));
    return qkv_transpose(tape, y, swap);
}

/* [batch, heads, n, d] with the heads side by side, of the rank of x. */
static qkv_var join(qkv_tape *tape, qkv_var y, int rank, bool ragged)
{
    static const int swap[] = {0, 2, 1, 3};
    if (!ragged) y = qkv_transpose(tape, y, swap);
    const qkv_shape s = qkv_shape_of(tape, y);
    if (s.rank < 3) return (qkv_var){0};
    ptrdiff_t width = s.dim[s.rank - 1] * s.dim[s.rank - 2], n = s.dim[s.rank - 3];
    return qkv_reshape(tape, y, rank > 2 ? qkv_shape3(s.dim[0], n, width) : qkv_shape2(n, width));
}

qkv_var qkv_multi_head_attention(qkv_tape *tape, const qkv_attention *a,
                                 const qkv_multi_head_vars *in)
{
    if (!tape || !a || !in)
        return qkv_refuse(tape, QKV_OP_attend, QKV_E_ARG, "multi-head: %s is NULL", a ? "in" : "a");
    qkv_attend_vars x = in->attend;
    qkv_var x_k = given(in->x_k) ? in->x_k : in->x_q, x_v = given(in->x_v) ? in->x_v : x_k;
    bool ragged = x.starts_q || x.starts_k;
    ptrdiff_t kv_heads = a->kv_heads ? a->kv_heads : a->heads;
    int rank = qkv_shape_of(tape, in->x_q).rank;
    x.q = split(tape, in->x_q, in->w_q, in->b_q, a->heads, ragged, "w_q");
    x.k = split(tape, x_k, in->w_k, in->b_k, kv_heads, ragged, "w_k");
    x.v = split(tape, x_v, in->w_v, in->b_v, kv_heads, ragged, "w_v");
    x.m = x.w_q = x.w_k = (qkv_var){0};
    qkv_var o = join(tape, qkv_attend(tape, a, &x), rank, ragged);
    return product(tape, o, in->w_o, in->b_o);
}
