/* op_attend_second.c - the gradients of attention's gradients as one node, flat: its fused double
 * backward. Third derivatives have no fused form: they are those of the same, composed. */
#include <string.h>

#include "grad/op_attend.h"
#include "grad/segment.h"
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

qkv_status FN(qkv_attend_second_problem)(qkv_tape *tape, const qkv_node *node, composed_problem *p)
{
    const second_state *s = node->state;
    *p = (composed_problem){.first = s->of.wanted, .second = s->wanted};
    return FN(qkv_attend_problem)(tape, node, &s->of.of, &p->of);
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    composed_problem p;
    if (FN(qkv_attend_second_problem)(tape, node, &p) || p.of.n == 0) return tape->status;
    return FN(qkv_segment_backward)(tape, node, qkv_attend_second_composed, &p);
}

const qkv_op FN(qkv_op_attend_second) = {.shape = shape, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
static int pick(const qkv_var *x, const bool *wanted, int n, qkv_var *to)
{
    int picked = 0;
    for (int i = 0; i < n; i++)
        if (wanted[i]) to[picked++] = x[i];
    return picked;
}

static qkv_var flat(qkv_tape *t, qkv_var x)
{
    return qkv_reshape(t, x, qkv_shape1((ptrdiff_t)qkv_size_of(t, x)));
}

qkv_var qkv_attend_gradient_composed(qkv_tape *t, void *problem, const qkv_var *x, int n_x)
{
    const composed_problem *p = problem;
    const int n = n_x - 1; /* of attend */
    qkv_var in[INPUTS], g[INPUTS];
    int n_in = pick(x, p->first, n, in);
    qkv_carry_back(t, qkv_attend_composed(t, &p->of, x), x[n], in, n_in, g);
    for (int i = 0; i < n_in && !t->status; i++) g[i] = flat(t, g[i]);
    return qkv_concat(t, g, n_in, 0);
}

/* Of attention the gradients, of their product with u the gradients. */
qkv_var qkv_attend_second_composed(qkv_tape *t, void *problem, const qkv_var *x, int n_x)
{
    const composed_problem *p = problem;
    qkv_var in[INPUTS + 1], g[INPUTS + 1], u = x[n_x - 1];
    qkv_var phi = qkv_matmul(t, qkv_attend_gradient_composed(t, problem, x, n_x - 1), u);
    int n_in = pick(x, p->second, n_x - 1, in);
    qkv_carry_back(t, phi, qkv_constant(t, 1), in, n_in, g);
    for (int i = 0; i < n_in && !t->status; i++) g[i] = flat(t, g[i]);
    return qkv_concat(t, g, n_in, 0);
}

void qkv_differentiate_attend_second(qkv_tape *t, const qkv_reverse *r)
{
    const qkv_node *node = qkv_node_of(t, r->y, "qkv_grad");
    composed_problem p;
    if (!node || (t->dtype == QKV_F32 ? qkv_attend_second_problem_f32(t, node, &p)
                                      : qkv_attend_second_problem_f64(t, node, &p)))
        return;
    if (p.of.n) qkv_segment_differentiate(t, r, qkv_attend_second_composed, &p);
}

static qkv_var square(qkv_tape *t, qkv_var x)
{
    return qkv_sum(t, qkv_mul(t, x, x), NULL, 0, false);
}

static qkv_var apply(qkv_tape *t, const qkv_var *x)
{
    const qkv_attention a = {.mask = {.causal = true, .causal_offset = 1}};
    qkv_attend_vars in = {.q = x[0], .k = x[1], .v = x[2], .bias = x[3]};
    qkv_var g[4], h[4];
    if (qkv_grad(t, square(t, qkv_attend(t, &a, &in)), x, 4, g) ||
        qkv_grad(t, qkv_add(t, square(t, g[0]), square(t, g[1])), x, 4, h))
        return (qkv_var){0};
    qkv_var parts[4];
    for (int i = 0; i < 4; i++) parts[i] = flat(t, h[i]);
    return qkv_concat(t, parts, 4, 0);
}

const qkv_op_case qkv_cases_attend_second[] = {
    {.n_input = 4, .input = {{2, {4, 3}}, {2, {5, 3}}, {2, {5, 2}}, {1, {5}}}, .apply = apply},
    {0},
};
#endif
