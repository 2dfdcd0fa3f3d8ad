/* backward.c - the sweep: cotangents flow from a root to the leaves, in reverse order of recording.
 * A loop over the nodes, not a recursion, so depth is no limit. */
#include "grad/tape.h"

#include <string.h>

/* What has no gradient, or was not reached, has gradient NULL while the sweep runs. */
static qkv_status take_gradient(qkv_tape *tape, qkv_node *node)
{
    if (!node->gradient) node->gradient = qkv_node_take(tape, node, node->size, qkv_element(tape));
    if (!node->gradient) return QKV_E_NOMEM;
    memset(node->gradient, 0, node->size * qkv_element(tape));
    return QKV_OK;
}

static qkv_status seed_root(qkv_tape *tape, qkv_node *root, qkv_var seed)
{
    if (seed.generation == 0) {
        if (root->size != 1)
            return qkv_node_fail(tape, root, QKV_E_SHAPE,
                                 "backward from %zu elements needs a seed of their shape",
                                 root->size);
        if (tape->dtype == QKV_F32)
            *(float *)root->gradient = 1;
        else
            *(double *)root->gradient = 1;
        return QKV_OK;
    }
    const qkv_node *s = qkv_node_of(tape, seed, "qkv_backward: seed");
    if (!s) return tape->status;
    if (s->rank != root->rank || memcmp(s->dim, root->dim, root->rank * sizeof *root->dim) != 0)
        return qkv_node_fail(tape, root, QKV_E_SHAPE, "the seed %%%u has another shape",
                             (unsigned)seed.node);
    memcpy(root->gradient, s->value, root->size * qkv_element(tape));
    return QKV_OK;
}

/* The inputs' gradients come to be, zeroed, when the first cotangent arrives. */
static qkv_status prepare_inputs(qkv_tape *tape, const qkv_node *node, uint8_t *reached)
{
    for (int i = 0; i < node->n_input; i++) {
        uint32_t index = node->input[i];
        qkv_node *x = &tape->nodes[index];
        if (!x->needs_gradient || reached[index]) continue;
        qkv_status status = take_gradient(tape, x);
        if (status) return status;
        reached[index] = 1;
    }
    return QKV_OK;
}

static qkv_status visit(qkv_tape *tape, qkv_node *node, bool keep, uint8_t *reached)
{
    if (node->op == QKV_OP_leaf) return QKV_OK;
    if (node->released)
        return qkv_node_fail(tape, node, QKV_E_STATE,
                             "backward has passed here already; ask the first one to keep");
    node->released = !keep;
    qkv_status status = prepare_inputs(tape, node, reached);
    return status ? status : qkv_op_of(tape, node)->backward(tape, node);
}

/* Only now, when nothing can fail any more, the caller's arrays get their sums. */
static void deliver(qkv_tape *tape, const uint8_t *reached, uint32_t root)
{
    for (uint32_t n = 1; n <= root; n++) {
        const qkv_node *node = &tape->nodes[n];
        if (node->op != QKV_OP_leaf || !reached[n]) continue;
        for (size_t i = 0; i < node->size; i++)
            if (tape->dtype == QKV_F32)
                ((float *)node->state)[i] += ((const float *)node->gradient)[i];
            else
                ((double *)node->state)[i] += ((const double *)node->gradient)[i];
    }
}

/* Gradients of the last backward that this one does not reach are no longer readable. */
static void forget_gradients(qkv_tape *tape, const uint8_t *reached)
{
    for (uint32_t n = 1; n < tape->n_nodes; n++)
        if (!reached[n]) tape->nodes[n].gradient = NULL;
}

qkv_status qkv_backward_with(qkv_tape *tape, qkv_var y, const qkv_backward_options *options)
{
    static const qkv_backward_options zero;
    if (!tape) return qkv_fail(QKV_E_ARG, "qkv_backward: the tape is NULL");
    if (!options) options = &zero;
    qkv_node *root = qkv_node_of(tape, y, "qkv_backward");
    if (!root) return tape->status;
    if (!root->needs_gradient)
        return qkv_node_fail(tape, root, QKV_E_STATE, "no leaf with a gradient leads here");
    uint8_t *reached = qkv_node_take(tape, root, tape->n_nodes, 1);
    if (!reached) return tape->status;
    memset(reached, 0, tape->n_nodes);
    if (take_gradient(tape, root) || seed_root(tape, root, options->seed)) return tape->status;
    reached[y.node] = 1;
    for (uint32_t n = y.node; n > 0; n--)
        if (reached[n] && visit(tape, &tape->nodes[n], options->keep, reached)) return tape->status;
    deliver(tape, reached, y.node);
    forget_gradients(tape, reached);
    tape->kept = options->keep;
    return QKV_OK;
}

qkv_status qkv_backward(qkv_tape *tape, qkv_var y)
{
    return qkv_backward_with(tape, y, NULL);
}
