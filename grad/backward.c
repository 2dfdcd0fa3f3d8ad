/* backward.c - the sweep: cotangents flow from a root to the leaves, in reverse order of recording.
 * A loop over the nodes, not a recursion, so depth is no limit. */
#include <string.h>

#include "grad/tape.h"

static void forget_gradients(qkv_tape *tape)
{
    for (uint32_t n = 0; n < tape->n_swept; n++) tape->nodes[n].gradient = NULL;
    tape->n_swept = 0;
    qkv_arena_reset(&tape->sweep);
}

/* Zeroed, when the first cotangent arrives. */
static qkv_status take_gradient(qkv_tape *tape, qkv_node *node)
{
    if (node->gradient) return QKV_OK;
    node->gradient = qkv_node_take(tape, node, node->size, qkv_element(tape));
    if (!node->gradient) return QKV_E_NOMEM;
    memset(node->gradient, 0, node->size * qkv_element(tape));
    return QKV_OK;
}

static qkv_status check_root(qkv_tape *tape, const qkv_node *root, const qkv_node *seed)
{
    char found[256], expected[256];
    qkv_shape_describe(root->rank, root->dim, expected, sizeof expected);
    if (!root->needs_gradient)
        return qkv_node_fail(tape, root, QKV_E_STATE, "no leaf with a gradient leads here");
    if (!seed && root->size != 1)
        return qkv_node_fail(tape, root, QKV_E_SHAPE,
                             "backward from %s needs a seed of this shape, or one element",
                             expected);
    if (!seed || qkv_same_shape(seed, root)) return QKV_OK;
    qkv_shape_describe(seed->rank, seed->dim, found, sizeof found);
    return qkv_node_fail(tape, root, QKV_E_SHAPE, "the seed is %s, expected %s", found, expected);
}

static void plant(const qkv_tape *tape, qkv_node *root, const void *seed)
{
    if (root->size == 0) return;
    if (seed)
        memcpy(root->gradient, seed, root->size * qkv_element(tape));
    else if (tape->dtype == QKV_F32)
        *(float *)root->gradient = 1;
    else
        *(double *)root->gradient = 1;
}

static void visit(qkv_tape *tape, qkv_node *node)
{
    if (node->released) {
        qkv_node_fail(tape, node, QKV_E_STATE,
                      "backward has passed here already; ask the first one to keep");
        return;
    }
    for (int i = 0; i < node->n_input; i++) {
        qkv_node *x = qkv_input(tape, node, i);
        if (x->needs_gradient && take_gradient(tape, x)) return;
    }
    const qkv_op *op = qkv_op_of(tape, node);
    if (op->backward) op->backward(tape, node);
    if (tape->debug && !tape->status) qkv_debug_swept(tape, node);
}

/* seed: packed, or NULL for 1. */
static qkv_status sweep(qkv_tape *tape, const void *seed)
{
    qkv_node *root = &tape->nodes[tape->n_swept - 1];
    if (take_gradient(tape, root)) return QKV_E_NOMEM;
    plant(tape, root, seed);
    for (uint32_t n = tape->n_swept; n-- > 0 && !tape->status;)
        if (tape->nodes[n].gradient) visit(tape, &tape->nodes[n]);
    return tape->status;
}

static void add_to_callers(const qkv_tape *tape, const qkv_node *leaf)
{
    for (size_t i = 0; i < leaf->size; i++)
        if (tape->dtype == QKV_F32)
            ((float *)leaf->state)[i] += ((const float *)leaf->gradient)[i];
        else
            ((double *)leaf->state)[i] += ((const double *)leaf->gradient)[i];
}

/* Only now, when nothing can fail any more: a backward that fails leaves the caller's gradients
 * as they were. */
static void deliver(qkv_tape *tape, bool keep)
{
    for (uint32_t n = 0; n < tape->n_swept; n++) {
        qkv_node *node = &tape->nodes[n];
        if (!node->gradient) continue;
        if (node->op == QKV_OP_leaf)
            add_to_callers(tape, node);
        else
            node->released = !keep;
    }
}

qkv_status qkv_backward_with(qkv_tape *tape, qkv_var y, const qkv_backward_options *options)
{
    static const qkv_backward_options zero;
    if (!tape) return qkv_fail(QKV_E_ARG, "qkv_backward: the tape is NULL");
    if (tape->status) return qkv_fail(tape->status, "%s", tape->message);
    if (tape->busy)
        return qkv_tape_fail(tape, QKV_E_STATE, "qkv_backward: called from inside an operation");
    if (!options) options = &zero;
    const qkv_node *root = qkv_node_of(tape, y, "qkv_backward"), *seed = NULL;
    if (root && options->seed.generation)
        seed = qkv_node_of(tape, options->seed, "qkv_backward: seed");
    if (tape->status || check_root(tape, root, seed)) return tape->status;
    if (tape->debug && qkv_debug_unchanged(tape, y.node + 1)) return tape->status;
    forget_gradients(tape);
    tape->n_swept = y.node + 1;
    tape->kept = options->keep;
    tape->busy = tape->sweeping = true;
    qkv_status status = sweep(tape, seed ? seed->value : NULL);
    tape->busy = tape->sweeping = false;
    if (!status) deliver(tape, options->keep);
    return status;
}

qkv_status qkv_sweep_segment(qkv_tape *tape, qkv_var y, const void *cotangent, uint32_t n)
{
    forget_gradients(tape);
    tape->n_swept = y.node + 1;
    for (uint32_t i = 0; i < n; i++) tape->nodes[i].gradient = tape->nodes[i].state;
    tape->busy = tape->sweeping = true;
    qkv_status status = sweep(tape, cotangent);
    tape->busy = tape->sweeping = false;
    return status;
}

qkv_status qkv_backward(qkv_tape *tape, qkv_var y)
{
    return qkv_backward_with(tape, y, NULL);
}
