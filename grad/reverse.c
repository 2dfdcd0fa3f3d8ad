/* reverse.c - gradients as nodes: the walk of backward.c, on which every operation's backward is
 * recorded as operations, so that what comes out can be differentiated again. derivatives.c has the
 * calls. */
#include "grad/reverse.h"

#include "grad/reduce.h"

#include <string.h>

/* ---- What the operations' parts are made of ---- */

const void *qkv_state_of(qkv_tape *tape, qkv_var x)
{
    const qkv_node *node = qkv_node_of(tape, x, "qkv_grad");
    return node ? node->state : NULL;
}

size_t qkv_size_of(qkv_tape *tape, qkv_var x)
{
    const qkv_node *node = qkv_node_of(tape, x, "qkv_grad");
    return node ? node->size : 0;
}

qkv_var qkv_sum_to(qkv_tape *tape, qkv_var dy, qkv_var x)
{
    const qkv_shape from = qkv_shape_of(tape, dy), to = qkv_shape_of(tape, x);
    int axes[QKV_MAX_RANK], n = 0, lead = from.rank - to.rank;
    for (int i = 0; i < from.rank; i++)
        if (i < lead || (to.dim[i - lead] == 1 && from.dim[i] != 1)) axes[n++] = i;
    if (n == 0) return dy;
    return qkv_reshape(tape, qkv_sum(tape, dy, axes, n, true), to);
}

qkv_var qkv_spread(qkv_tape *tape, const qkv_reverse *r)
{
    const qkv_shape x = qkv_shape_of(tape, r->x[0]);
    const qkv_reduction *s = qkv_state_of(tape, r->y);
    qkv_shape kept = x;
    for (int i = 0; i < x.rank && s; i++)
        if (s->reduced[i]) kept.dim[i] = 1;
    return qkv_broadcast(tape, qkv_reshape(tape, r->dy, kept), x);
}

/* Zeros, as many as x has elements, overwritten by the next operation. NULL with the tape in
 * error. */
static double *zeros_like(qkv_tape *tape, qkv_var x)
{
    const qkv_node *node = qkv_node_of(tape, x, "qkv_grad");
    size_t bytes = node ? node->size * sizeof(double) : 0;
    double *zeros = node ? qkv_node_workspace(tape, node, bytes) : NULL;
    if (zeros) memset(zeros, 0, bytes);
    return zeros;
}

/* A constant of x's shape with these elements. */
static qkv_var constant_like(qkv_tape *tape, qkv_var x, const double *from)
{
    const qkv_node *node = &tape->nodes[x.node];
    const qkv_shape shape = qkv_shape_of(tape, x);
    void *data = qkv_node_take(tape, node, node->size, qkv_element(tape));
    if (!data) return (qkv_var){0};
    for (size_t i = 0; i < node->size; i++)
        if (tape->dtype == QKV_F32)
            ((float *)data)[i] = (float)from[i];
        else
            ((double *)data)[i] = from[i];
    if (tape->dtype == QKV_F32) return qkv_leaf_f32(tape, shape, data, NULL);
    return qkv_leaf_f64(tape, shape, data, NULL);
}

qkv_var qkv_constant_map(qkv_tape *tape, qkv_var x, double (*f)(double x))
{
    double *to = zeros_like(tape, x);
    if (!to) return (qkv_var){0};
    const qkv_node *node = &tape->nodes[x.node];
    for (size_t i = 0; i < node->size; i++)
        to[i] = f(tape->dtype == QKV_F32 ? ((const float *)node->value)[i]
                                         : ((const double *)node->value)[i]);
    return constant_like(tape, x, to);
}

qkv_var qkv_constant_marks(qkv_tape *tape, qkv_var x, void (*mark)(const void *of, double *x),
                           const void *of)
{
    double *to = zeros_like(tape, x);
    if (!to) return (qkv_var){0};
    mark(of, to);
    return constant_like(tape, x, to);
}

/* ---- The walk ---- */

/* For each node up to y. */
typedef struct way {
    bool *leads; /* to it leads one of xs */
    qkv_var *cotangent;
} way;

static bool take_way(qkv_tape *tape, qkv_var y, way *w)
{
    const qkv_node *root = &tape->nodes[y.node];
    size_t n = (size_t)y.node + 1;
    w->leads = qkv_node_take(tape, root, n, sizeof *w->leads);
    w->cotangent = w->leads ? qkv_node_take(tape, root, n, sizeof *w->cotangent) : NULL;
    if (!w->cotangent) return false;
    memset(w->leads, 0, n * sizeof *w->leads);
    memset(w->cotangent, 0, n * sizeof *w->cotangent);
    return true;
}

static void find_ways(const qkv_tape *tape, qkv_var y, way *w)
{
    for (uint32_t n = 0; n <= y.node; n++) {
        const qkv_node *node = &tape->nodes[n];
        for (int i = 0; i < node->n_input && !node->constant; i++)
            w->leads[n] |= w->leads[qkv_input_index(node, i)];
    }
}

static void add_cotangent(qkv_tape *tape, way *w, uint32_t n, qkv_var dx)
{
    qkv_var *at = &w->cotangent[n];
    *at = at->generation ? qkv_add(tape, *at, dx) : dx;
}

/* The node's inputs get their parts. */
static void pass(qkv_tape *tape, way *w, uint32_t n)
{
    const qkv_node *node = &tape->nodes[n];
    int inputs = node->n_input;
    qkv_var *x = qkv_node_take(tape, node, 2 * (size_t)inputs, sizeof *x), *dx = x + inputs;
    bool *wanted = x ? qkv_node_take(tape, node, (size_t)inputs, sizeof *wanted) : NULL;
    if (!wanted) return;
    for (int i = 0; i < inputs; i++) {
        uint32_t index = qkv_input_index(node, i);
        x[i] = (qkv_var){.node = index, .generation = tape->generation};
        dx[i] = (qkv_var){0};
        wanted[i] = w->leads[index];
    }
    const qkv_reverse r = {.y = {.node = n, .generation = tape->generation},
                           .dy = w->cotangent[n],
                           .n = inputs,
                           .x = x,
                           .wanted = wanted,
                           .dx = dx};
    qkv_registry[node->op].differentiate(tape, &r);
    for (int i = 0; i < inputs && !tape->status; i++)
        if (wanted[i] && dx[i].generation) add_cotangent(tape, w, x[i].node, dx[i]);
}

void qkv_reverse_through(qkv_tape *tape, qkv_var y, qkv_var dy, const qkv_var *xs, int n,
                         qkv_var *dx)
{
    way w;
    if (!qkv_node_of(tape, y, "qkv_grad") || !take_way(tape, y, &w)) return;
    for (int i = 0; i < n; i++)
        if (xs[i].node <= y.node) w.leads[xs[i].node] = true;
    find_ways(tape, y, &w);
    if (w.leads[y.node]) w.cotangent[y.node] = dy;
    for (uint32_t m = y.node + 1; m-- > 0 && !tape->status;)
        if (w.leads[m] && w.cotangent[m].generation) pass(tape, &w, m);
    for (int i = 0; i < n; i++)
        dx[i] = xs[i].node <= y.node ? w.cotangent[xs[i].node] : (qkv_var){0};
}
