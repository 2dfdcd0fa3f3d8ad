/* op_attend_second.c - the gradients of attention's gradients as one node, flat: its fused double
 * backward. Third derivatives have no fused form. */
#include <string.h>

#include "grad/op_attend.h"
#include "grad/reverse.h"
#include "src/real.h"

/* The inputs are those of attend, the cotangent of o, and the cotangent of their gradients. */
typedef struct second_state {
    gradient_state of;
    const bool *wanted; /* which of attend's inputs and o's cotangent */
} second_state;

static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    const qkv_attend_second_call *given = arguments;
    second_state *s = qkv_node_take(tape, node, 1, sizeof *s);
    if (!s) return QKV_E_NOMEM;
    *s = (second_state){.of = *given->of, .wanted = given->wanted};
    node->state = s;
    return FN(qkv_attend_flat)(tape, node, s->wanted, node->n_input - 1);
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    const second_state *s = node->state;
    const attend_state *of = &s->of.of;
    int n = node->n_input - 2; /* of attend */
    const qkv_node *d_o = qkv_input(tape, node, n), *u = qkv_input(tape, node, n + 1);
    void *tangent[INPUTS], *gradient[INPUTS];
    if (node->size) memset(node->value, 0, node->size * sizeof(real));
    FN(qkv_attend_parts)(tape, node, of, s->of.wanted, n, u->value, tangent);
    size_t used = FN(qkv_attend_parts)(tape, node, of, s->wanted, n, node->value, gradient);
    real *dd_o = s->wanted[n] ? (real *)node->value + used : NULL;
    return FN(qkv_attend_double)(tape, node, of, d_o->value, tangent, gradient, dd_o);
}

#define QKV_NO_THIRD                                                                             \
    "third derivatives of attention have no fused form; composed of qkv_matmul and qkv_softmax " \
    "it has all, and takes memory for n_q x n_k weights"

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    return qkv_node_fail(tape, node, QKV_E_ARG, QKV_NO_THIRD);
}

const qkv_op FN(qkv_op_attend_second) = {.shape = shape, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_attend_second(qkv_tape *t, const qkv_reverse *r)
{
    qkv_node_fail(t, &t->nodes[r->y.node], QKV_E_ARG, QKV_NO_THIRD);
}

/* It has no gradient to check, so here it is a constant factor. */
static qkv_var apply(qkv_tape *t, const qkv_var *x)
{
    qkv_var o =
        qkv_attend(t, &(qkv_attention){0}, &(qkv_attend_vars){.q = x[1], .k = x[1], .v = x[1]});
    qkv_var g, h;
    if (qkv_grad(t, qkv_sum(t, qkv_mul(t, o, o), NULL, 0, false), &x[1], 1, &g) ||
        qkv_grad(t, qkv_sum(t, qkv_mul(t, g, g), NULL, 0, false), &x[1], 1, &h))
        return (qkv_var){0};
    return qkv_mul(t, x[0], qkv_detach(t, h));
}

const qkv_op_case qkv_cases_attend_second[] = {
    {.n_input = 2, .input = {{2, {5, 3}}, {2, {5, 3}}}, .constant = 2, .apply = apply},
    {0},
};
#endif
