/* moments.c - variance and covariance of the values under the weights, composed of operations of
 * the tape. */
#include "grad/tape.h"

/* QKV_E_ARG unless the weights of a query add up to 1. */
static qkv_status check(qkv_tape *tape, const qkv_attention *a, const qkv_attend_vars *in)
{
    if (!tape || !a || !in) {
        qkv_refuse(tape, QKV_OP_attend, QKV_E_ARG, "moments: %s is NULL", a ? "in" : "a");
        return QKV_E_ARG;
    }
    if (a->normalize < QKV_NONE_EXP && !(a->dropout > 0) && !in->sink.generation) return QKV_OK;
    qkv_refuse(tape, QKV_OP_attend, QKV_E_ARG,
               "moments do not go with weights that are no distribution over the keys (%s)",
               in->sink.generation ? "a sink"
               : a->dropout > 0    ? "dropout"
                                   : "QKV_NONE_..");
    return QKV_E_ARG;
}

/* The values from their mean over the keys, a constant: moments about the mean do not see it. */
static qkv_var centred(qkv_tape *tape, const qkv_attend_vars *in)
{
    /* Of a ragged batch keys are the first axis, of others the last but one. */
    bool ragged = in->starts_q || in->starts_k;
    const int axis = ragged ? 0 : -2;
    const qkv_shape s = qkv_shape_of(tape, in->v);
    if (s.rank < 2 || s.dim[ragged ? 0 : s.rank - 2] == 0) return in->v;
    return qkv_sub(tape, in->v, qkv_detach(tape, qkv_mean(tape, in->v, &axis, 1, true)));
}

/* x [.., d] as [.., d, 1] and [.., 1, d], and their product. */
static qkv_var outer(qkv_tape *tape, qkv_var x)
{
    qkv_shape column = qkv_shape_of(tape, x), row = column;
    if (column.rank < 1) return (qkv_var){0};
    ptrdiff_t d = column.dim[column.rank - 1];
    column.dim[column.rank++] = 1;
    row.dim[row.rank - 1] = 1;
    row.dim[row.rank++] = d;
    return qkv_mul(tape, qkv_reshape(tape, x, column), qkv_reshape(tape, x, row));
}

/* [.., d, d] as [.., d d]. */
static qkv_var flat(qkv_tape *tape, qkv_var x)
{
    qkv_shape s = qkv_shape_of(tape, x);
    if (s.rank < 2) return (qkv_var){0};
    s.dim[s.rank - 2] *= s.dim[s.rank - 1];
    s.rank--;
    return qkv_reshape(tape, x, s);
}

qkv_var qkv_attend_variance(qkv_tape *tape, const qkv_attention *a, const qkv_attend_vars *in)
{
    if (check(tape, a, in)) return (qkv_var){0};
    qkv_attend_vars x = *in, squares = *in;
    x.v = centred(tape, in);
    squares.v = qkv_mul(tape, x.v, x.v);
    qkv_var mean = qkv_attend(tape, a, &x);
    return qkv_sub(tape, qkv_attend(tape, a, &squares), qkv_mul(tape, mean, mean));
}

qkv_var qkv_attend_covariance(qkv_tape *tape, const qkv_attention *a, const qkv_attend_vars *in)
{
    if (check(tape, a, in)) return (qkv_var){0};
    qkv_attend_vars x = *in, products = *in;
    x.v = centred(tape, in);
    products.v = flat(tape, outer(tape, x.v));
    qkv_var means = outer(tape, qkv_attend(tape, a, &x));
    qkv_var y = qkv_attend(tape, a, &products);
    const qkv_shape s = qkv_shape_of(tape, means);
    if (s.rank < 2) return (qkv_var){0};
    return qkv_sub(tape, qkv_reshape(tape, y, s), means);
}
