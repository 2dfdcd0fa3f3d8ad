/* op_leaf.c - an input. state is the caller's gradient; backward.c delivers to it. */
#include "grad/arguments.h"
#include "grad/tape.h"
#include "src/real.h"

static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    const qkv_leaf_arguments *a = arguments;
    qkv_status status = qkv_node_shape(tape, node, a->shape.rank, a->shape.dim);
    if (status) return status;
    if (a->is_constant) {
        real *value = qkv_node_take(tape, node, 1, sizeof *value);
        if (!value) return QKV_E_NOMEM;
        *value = (real)a->constant;
        node->value = value;
        return QKV_OK;
    }
    if (!a->data && node->size) return qkv_node_fail(tape, node, QKV_E_ARG, "data is NULL");
    /* Borrowed, and only read: a leaf is no operation's output. An empty one needs a value all the
     * same. */
    node->value = a->data ? (void *)(uintptr_t)a->data : qkv_node_take(tape, node, 0, 1);
    node->state = a->gradient;
    node->needs_gradient = a->gradient && !tape->no_grad;
    return node->value ? QKV_OK : QKV_E_NOMEM;
}

static qkv_status nothing(qkv_tape *tape, qkv_node *node)
{
    (void)tape, (void)node;
    return QKV_OK;
}

/* The gradient of a leaf is its cotangent. */
static qkv_var itself(qkv_tape *tape, const qkv_var *x)
{
    (void)tape;
    return x[0];
}

static const qkv_op_case cases[] = {
    {.n_input = 1, .input = {{2, {3, 4}}}, .apply = itself},
    {0},
};

const qkv_op FN(qkv_op_leaf) = {"leaf", shape, nothing, nothing, cases, NULL};
