/* ops.c - the doors of the operations: each packs its arguments and records a node. */
#include "grad/arguments.h"
#include "grad/tape.h"

#define QKV_OP(name) extern const qkv_op qkv_op_##name##_f32, qkv_op_##name##_f64;
#include "grad/ops.def"
#undef QKV_OP

#define QKV_OP(name) &qkv_op_##name##_f32,
const qkv_op *const qkv_ops_f32[QKV_OP_COUNT] = {
#include "grad/ops.def"
};
#undef QKV_OP

#define QKV_OP(name) &qkv_op_##name##_f64,
const qkv_op *const qkv_ops_f64[QKV_OP_COUNT] = {
#include "grad/ops.def"
};
#undef QKV_OP

static qkv_var unary(qkv_tape *tape, qkv_op_id op, qkv_var x)
{
    return qkv_record(tape, op, &x, 1, NULL);
}

static qkv_var binary(qkv_tape *tape, qkv_op_id op, qkv_var a, qkv_var b)
{
    return qkv_record(tape, op, (qkv_var[]){a, b}, 2, NULL);
}

/* ---- Leaves ------------------------------------------------------------------------------------
 */

static qkv_var leaf(qkv_tape *tape, qkv_dtype dtype, const qkv_leaf_arguments *arguments)
{
    if (tape && tape->dtype != dtype) {
        qkv_tape_fail(tape, QKV_E_DTYPE, "leaf: the tape carries %s",
                      tape->dtype == QKV_F32 ? "float" : "double");
        return (qkv_var){0};
    }
    return qkv_record(tape, QKV_OP_leaf, NULL, 0, arguments);
}

qkv_var qkv_leaf_f32(qkv_tape *tape, qkv_shape shape, const float *data, float *grad)
{
    return leaf(tape, QKV_F32,
                &(qkv_leaf_arguments){.shape = shape, .data = data, .gradient = grad});
}

qkv_var qkv_leaf_f64(qkv_tape *tape, qkv_shape shape, const double *data, double *grad)
{
    return leaf(tape, QKV_F64,
                &(qkv_leaf_arguments){.shape = shape, .data = data, .gradient = grad});
}

qkv_var qkv_constant(qkv_tape *tape, double value)
{
    return qkv_record(tape, QKV_OP_leaf, NULL, 0,
                      &(qkv_leaf_arguments){.is_constant = true, .constant = value});
}

qkv_var qkv_detach(qkv_tape *tape, qkv_var x)
{
    return unary(tape, QKV_OP_detach, x);
}

/* ---- Elementwise --------------------------------------------------------------------------------
 */

qkv_var qkv_add(qkv_tape *tape, qkv_var a, qkv_var b)
{
    return binary(tape, QKV_OP_add, a, b);
}

qkv_var qkv_sub(qkv_tape *tape, qkv_var a, qkv_var b)
{
    return binary(tape, QKV_OP_sub, a, b);
}

qkv_var qkv_mul(qkv_tape *tape, qkv_var a, qkv_var b)
{
    return binary(tape, QKV_OP_mul, a, b);
}

qkv_var qkv_div(qkv_tape *tape, qkv_var a, qkv_var b)
{
    return binary(tape, QKV_OP_div, a, b);
}

qkv_var qkv_pow(qkv_tape *tape, qkv_var a, qkv_var b)
{
    return binary(tape, QKV_OP_pow, a, b);
}

qkv_var qkv_neg(qkv_tape *tape, qkv_var x)
{
    return unary(tape, QKV_OP_neg, x);
}

qkv_var qkv_exp(qkv_tape *tape, qkv_var x)
{
    return unary(tape, QKV_OP_exp, x);
}

qkv_var qkv_log(qkv_tape *tape, qkv_var x)
{
    return unary(tape, QKV_OP_log, x);
}

qkv_var qkv_sqrt(qkv_tape *tape, qkv_var x)
{
    return unary(tape, QKV_OP_sqrt, x);
}

qkv_var qkv_tanh(qkv_tape *tape, qkv_var x)
{
    return unary(tape, QKV_OP_tanh, x);
}

qkv_var qkv_sigmoid(qkv_tape *tape, qkv_var x)
{
    return unary(tape, QKV_OP_sigmoid, x);
}

qkv_var qkv_relu(qkv_tape *tape, qkv_var x)
{
    return unary(tape, QKV_OP_relu, x);
}

/* ---- Reductions
 * ---------------------------------------------------------------------------------- */

static qkv_var reduce(qkv_tape *tape, qkv_op_id op, qkv_var x, const int *axes, int n, bool keep)
{
    return qkv_record(tape, op, &x, 1,
                      &(qkv_reduce_arguments){.axes = axes, .n_axes = n, .keep = keep});
}

qkv_var qkv_sum(qkv_tape *tape, qkv_var x, const int *axes, int n_axes, bool keep)
{
    return reduce(tape, QKV_OP_sum, x, axes, n_axes, keep);
}

qkv_var qkv_mean(qkv_tape *tape, qkv_var x, const int *axes, int n_axes, bool keep)
{
    return reduce(tape, QKV_OP_mean, x, axes, n_axes, keep);
}

qkv_var qkv_max(qkv_tape *tape, qkv_var x, const int *axes, int n_axes, bool keep)
{
    return reduce(tape, QKV_OP_max, x, axes, n_axes, keep);
}

/* ---- Shapes
 * --------------------------------------------------------------------------------------- */

qkv_var qkv_transpose(qkv_tape *tape, qkv_var x, const int *permutation)
{
    return qkv_record(tape, QKV_OP_transpose, &x, 1, permutation);
}

qkv_var qkv_reshape(qkv_tape *tape, qkv_var x, qkv_shape shape)
{
    return qkv_record(tape, QKV_OP_reshape, &x, 1, &shape);
}

qkv_var qkv_slice(qkv_tape *tape, qkv_var x, int axis, ptrdiff_t start, ptrdiff_t stop,
                  ptrdiff_t step)
{
    return qkv_record(
        tape, QKV_OP_slice, &x, 1,
        &(qkv_slice_arguments){.axis = axis, .start = start, .stop = stop, .step = step});
}

qkv_var qkv_concat(qkv_tape *tape, const qkv_var *xs, int n, int axis)
{
    if (tape && (n < 1 || n > UINT16_MAX || !xs)) {
        qkv_tape_fail(tape, QKV_E_ARG, "concat: n is %d, expected 1 to %d arrays", n, UINT16_MAX);
        return (qkv_var){0};
    }
    return qkv_record(tape, QKV_OP_concat, xs, n, &axis);
}

qkv_var qkv_gather(qkv_tape *tape, qkv_var x, int axis, const ptrdiff_t *index, ptrdiff_t n)
{
    return qkv_record(tape, QKV_OP_gather, &x, 1,
                      &(qkv_gather_arguments){.axis = axis, .index = index, .n = n});
}

/* ---- Products, softmax, losses
 * ---------------------------------------------------------------------- */

qkv_var qkv_matmul(qkv_tape *tape, qkv_var a, qkv_var b)
{
    return binary(tape, QKV_OP_matmul, a, b);
}

qkv_var qkv_softmax(qkv_tape *tape, qkv_var x, int axis)
{
    return qkv_record(tape, QKV_OP_softmax, &x, 1, &axis);
}

qkv_var qkv_log_softmax(qkv_tape *tape, qkv_var x, int axis)
{
    return qkv_record(tape, QKV_OP_log_softmax, &x, 1, &axis);
}

qkv_var qkv_mse(qkv_tape *tape, qkv_var y, qkv_var target)
{
    return binary(tape, QKV_OP_mse, y, target);
}

qkv_var qkv_cross_entropy(qkv_tape *tape, qkv_var logits, const ptrdiff_t *label, ptrdiff_t n)
{
    return qkv_record(tape, QKV_OP_cross_entropy, &logits, 1,
                      &(qkv_gather_arguments){.index = label, .n = n});
}

/* ---- Attention, and your own -------------------------------------------------------------------
 */

qkv_var qkv_attend(qkv_tape *tape, const qkv_attention *a, const qkv_attend_vars *in)
{
    if (tape && (!a || !in)) {
        qkv_tape_fail(tape, QKV_E_ARG, "attend: %s is NULL", a ? "in" : "a");
        return (qkv_var){0};
    }
    if (!tape) return (qkv_var){0};
    const qkv_var all[QKV_ATTEND_INPUTS] = {in->q,    in->k,     in->v,
                                            in->bias, in->scale, in->bandwidth};
    qkv_attend_arguments arguments = {.attention = a, .mask = in->mask};
    qkv_var inputs[QKV_ATTEND_INPUTS];
    int n = 0;
    for (int i = 0; i < QKV_ATTEND_INPUTS; i++) {
        arguments.present[i] = i < 3 || all[i].generation != 0;
        if (arguments.present[i]) inputs[n++] = all[i];
    }
    return qkv_record(tape, QKV_OP_attend, inputs, n, &arguments);
}

qkv_var qkv_apply(qkv_tape *tape, const qkv_user_op *op, const qkv_var *xs, int n, qkv_shape shape)
{
    if (tape && (!op || !op->forward || !op->backward || n < 0 || n > UINT16_MAX || (n && !xs))) {
        qkv_tape_fail(tape, QKV_E_ARG,
                      "apply: op, its forward or backward, or xs is NULL, or n = %d", n);
        return (qkv_var){0};
    }
    return qkv_record(tape, QKV_OP_user, xs, n, &(qkv_user_arguments){.op = op, .shape = shape});
}

const char *qkv_user_name(const qkv_node *node)
{
    const qkv_user_op *op = node->state;
    return op && op->name ? op->name : "user";
}

/* ---- The registry, seen from outside
 * ------------------------------------------------------------------ */

int qkv_op_count(void)
{
    return QKV_OP_COUNT;
}

const char *qkv_op_name(int op)
{
    return op >= 0 && op < QKV_OP_COUNT ? qkv_ops_f64[op]->name : NULL;
}

/* ---- Shapes as arguments
 * -------------------------------------------------------------------------------- */

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
