/* op_checkpoint.c - a segment of the computation as one node, which keeps its result alone and is
 * recorded once more when its gradients are wanted (Griewank & Walther 2000; Chen et al. 2016). It
 * runs on a tape of its own, whose leaves are the inputs. Their gradients there are the very arrays
 * of this tape, so that terms add up in the order, and to the bits, of a computation without it. */
#include <string.h>

#include "grad/segment.h"
#include "src/real.h"

typedef struct segment {
    qkv_segment f;
    void *context;
} segment;

static qkv_status inner_tape(qkv_tape *tape, const qkv_node *node)
{
    if (!tape->inner && qkv_tape_new(&tape->inner, tape->dtype))
        return qkv_node_fail(tape, node, QKV_E_NOMEM, "no memory for the segment's tape");
    qkv_tape_reset(tape->inner);
    tape->inner->debug = tape->debug;
    return QKV_OK;
}

static qkv_shape shape_of(const qkv_node *node)
{
    qkv_shape shape = {.rank = node->rank};
    for (int i = 0; i < node->rank; i++) shape.dim[i] = node->dim[i];
    return shape;
}

static qkv_status refuse_leaves(qkv_tape *tape, const qkv_node *node)
{
    const qkv_tape *inner = tape->inner;
    for (uint32_t n = node->n_input; n < inner->n_nodes; n++)
        if (inner->nodes[n].op == QKV_OP_leaf && inner->nodes[n].needs_gradient)
            return qkv_node_fail(tape, node, QKV_E_ARG,
                                 "the segment records %%%u, a leaf with a gradient; it must be an "
                                 "input",
                                 (unsigned)n);
    return QKV_OK;
}

/* Records the segment on the inner tape; its first nodes are the inputs. with_gradients: as this
 * tape's inputs have them, now that backward has seen to it. */
static qkv_status run(qkv_tape *tape, const qkv_node *node, const segment *s, bool with_gradients,
                      qkv_var *y)
{
    if (inner_tape(tape, node)) return tape->status;
    qkv_var *x = qkv_node_take(tape, node, node->n_input, sizeof *x);
    if (!x) return QKV_E_NOMEM;
    qkv_tape *inner = tape->inner;
    for (int i = 0; i < node->n_input; i++) {
        const qkv_node *in = qkv_input(tape, node, i);
        x[i] = FN(qkv_leaf)(inner, shape_of(in), in->value, with_gradients ? in->gradient : NULL);
    }
    *y = s->f(inner, s->context, x, node->n_input);
    const qkv_node *result = inner->status ? NULL : qkv_node_of(inner, *y, "the segment's result");
    if (result && y->node < node->n_input) *y = qkv_reshape(inner, *y, shape_of(result));
    if (inner->status)
        return qkv_node_fail(tape, node, inner->status, "in the segment, %s", inner->message);
    return refuse_leaves(tape, node);
}

static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    qkv_var y;
    node->state = qkv_node_take(tape, node, 1, sizeof(segment));
    if (!node->state) return QKV_E_NOMEM;
    *(segment *)node->state = *(const segment *)arguments;
    tape->busy = true;
    qkv_status status = run(tape, node, node->state, false, &y);
    tape->busy = false;
    if (status) return status;
    const qkv_node *result = &tape->inner->nodes[y.node];
    status = qkv_node_shape(tape, node, result->rank, result->dim);
    if (status) return status;
    node->value = qkv_node_take(tape, node, node->size, sizeof(real));
    if (!node->value) return QKV_E_NOMEM;
    if (node->size) memcpy(node->value, result->value, node->size * sizeof(real));
    qkv_tape_reset(tape->inner);
    return QKV_OK;
}

qkv_status FN(qkv_segment_backward)(qkv_tape *tape, const qkv_node *node, qkv_segment f,
                                    void *context)
{
    qkv_var y;
    if (run(tape, node, &(segment){.f = f, .context = context}, true, &y)) return tape->status;
    const qkv_node *result = &tape->inner->nodes[y.node];
    if (!result->needs_gradient) return QKV_OK;
    if (!qkv_same_shape(result, node))
        return qkv_node_fail(tape, node, QKV_E_STATE,
                             "the segment's result has another shape the second time");
    if (qkv_sweep_segment(tape->inner, y, node->gradient, node->n_input))
        return qkv_node_fail(tape, node, tape->inner->status, "in the segment, %s",
                             tape->inner->message);
    return QKV_OK;
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    const segment *s = node->state;
    return FN(qkv_segment_backward)(tape, node, s->f, s->context);
}

const qkv_op FN(qkv_op_checkpoint) = {.shape = shape, .forward = NULL, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
/* Of inputs that are nodes of their own here: what one of them owes to another is not the
 * segment's. In a no-grad scope the segment may not become a constant. */
void qkv_segment_differentiate(qkv_tape *tape, const qkv_reverse *r, qkv_segment f, void *context)
{
    const int no_grad = tape->no_grad;
    qkv_var *x = qkv_node_take(tape, &tape->nodes[r->y.node], (size_t)r->n, sizeof *x);
    if (!x) return;
    tape->no_grad = 0;
    for (int i = 0; i < r->n; i++) x[i] = qkv_reshape(tape, r->x[i], qkv_shape_of(tape, r->x[i]));
    qkv_var y = f(tape, context, x, r->n);
    tape->no_grad = no_grad;
    qkv_reverse_through(tape, y, r->dy, x, r->n, r->dx);
}

void qkv_differentiate_checkpoint(qkv_tape *t, const qkv_reverse *r)
{
    const segment *s = qkv_state_of(t, r->y);
    qkv_segment_differentiate(t, r, s->f, s->context);
}

qkv_var qkv_checkpoint(qkv_tape *tape, qkv_segment f, void *context, const qkv_var *xs, int n)
{
    if (!f || (n && !xs))
        return qkv_refuse(tape, QKV_OP_checkpoint, QKV_E_ARG, "%s is NULL", f ? "xs" : "f");
    if (n < 0 || n > UINT16_MAX)
        return qkv_refuse(tape, QKV_OP_checkpoint, QKV_E_ARG, "n is %d, expected 0 to %d", n,
                          UINT16_MAX);
    return qkv_record(tape, QKV_OP_checkpoint, xs, n, &(segment){.f = f, .context = context});
}

static qkv_var layer(qkv_tape *tape, void *context, const qkv_var *x, int n)
{
    (void)context, (void)n;
    return qkv_add(tape, x[0], qkv_tanh(tape, qkv_matmul(tape, x[0], x[1])));
}

static qkv_var two_layers(qkv_tape *tape, void *context, const qkv_var *x, int n)
{
    qkv_var first = qkv_checkpoint(tape, layer, context, x, n);
    return layer(tape, context, (qkv_var[]){first, x[1]}, n);
}

static qkv_var apply(qkv_tape *tape, const qkv_var *x)
{
    return qkv_checkpoint(tape, layer, NULL, x, 2);
}

static qkv_var apply_twice(qkv_tape *tape, const qkv_var *x)
{
    return qkv_checkpoint(tape, two_layers, NULL, x, 2);
}

const qkv_op_case qkv_cases_checkpoint[] = {
    {.n_input = 2, .input = {{2, {5, 3}}, {2, {3, 3}}}, .apply = apply},
    {.label = "checkpoint in a checkpoint",
     .n_input = 2,
     .input = {{2, {5, 3}}, {2, {3, 3}}},
     .apply = apply_twice},
    {0},
};
#endif
