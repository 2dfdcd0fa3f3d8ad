/* op_leaf.c - an input. state is the caller's gradient; backward.c delivers to it. */
#include "grad/tape.h"
#include "grad/reverse.h"
#include "src/real.h"

typedef struct call {
    qkv_shape shape;
    const real *data;
    real *gradient;
    real constant; /* the value where data is NULL and the shape a scalar's */
    bool is_constant;
} call;

static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    const call *a = arguments;
    qkv_status status = qkv_node_shape(tape, node, a->shape.rank, a->shape.dim);
    if (status) return status;
    if (!a->data && !a->is_constant && node->size)
        return qkv_node_fail(tape, node, QKV_E_ARG, "data is NULL");
    node->state = a->gradient;
    node->needs_gradient = a->gradient && !tape->no_grad;
    /* Borrowed, and only read: a leaf is no operation's output. */
    node->value = (void *)(uintptr_t)a->data;
    if (node->value) return QKV_OK;
    real *value = node->value = qkv_node_take(tape, node, 1, sizeof *value);
    if (!value) return QKV_E_NOMEM;
    *value = a->constant;
    return QKV_OK;
}

const qkv_op FN(qkv_op_leaf) = {.shape = shape, .forward = NULL, .backward = NULL};

qkv_var FN(qkv_leaf)(qkv_tape *tape, qkv_shape shape_of_x, const real *data, real *grad)
{
    if (tape && tape->dtype != REAL_DTYPE)
        return qkv_refuse(tape, QKV_OP_leaf, QKV_E_DTYPE, "the tape carries %s",
                          tape->dtype == QKV_F32 ? "float" : "double");
    return qkv_record(tape, QKV_OP_leaf, NULL, 0,
                      &(call){.shape = shape_of_x, .data = data, .gradient = grad});
}

qkv_var FN(qkv_constant_leaf)(qkv_tape *tape, double value)
{
    return qkv_record(tape, QKV_OP_leaf, NULL, 0,
                      &(call){.constant = (real)value, .is_constant = true});
}

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_leaf(qkv_tape *t, const qkv_reverse *r)
{
    (void)t, (void)r; /* it has no inputs */
}

qkv_var qkv_constant_leaf_f32(qkv_tape *tape, double value);

qkv_var qkv_constant(qkv_tape *tape, double value)
{
    if (!tape) return (qkv_var){0};
    return (tape->dtype == QKV_F32 ? qkv_constant_leaf_f32 : qkv_constant_leaf_f64)(tape, value);
}

/* The gradient of a leaf is its cotangent. */
static qkv_var itself(qkv_tape *tape, qkv_var x)
{
    (void)tape;
    return x;
}

const qkv_op_case qkv_cases_leaf[] = {
    {.unary = itself, .n_input = 1, .input = {{2, {3, 4}}}},
    {0},
};
#endif
