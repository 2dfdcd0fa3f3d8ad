/* op_attend_gradient.c - the gradients of attention as one node: those that are wanted, flat, one
 * after another. Its backward is attention's double backward, fused and linear in memory, where
 * there is one: of the softmax, not ragged. Elsewhere it is that of the same, composed. */
#include <string.h>

#include "grad/op_attend.h"
#include "grad/segment.h"
#include "qkv/second_order.h"
#include "src/real.h"

/* The inputs are those of attend, and after them the cotangent of its value. */
typedef struct call {
    const attend_state *of;
    const bool *wanted; /* which inputs of attend's */
} call;

static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    const call *given = arguments;
    gradient_state *s = qkv_node_take(tape, node, 1, sizeof *s);
    if (!s) return QKV_E_NOMEM;
    *s = (gradient_state){.of = *given->of, .wanted = given->wanted};
    node->state = s;
    return FN(qkv_attend_flat)(tape, node, s->wanted, node->n_input - 1);
}

size_t FN(qkv_attend_parts)(const qkv_tape *tape, const qkv_node *node, const attend_state *of,
                            const bool *wanted, int n, void *flat, void *part[INPUTS])
{
    real *at[UINT8_MAX] = {0}, *next = flat;
    for (int i = 0; i < n; i++) {
        if (!wanted[i]) continue;
        at[i] = next;
        next += qkv_input(tape, node, i)->size;
    }
    for (int i = 0; i < INPUTS; i++) part[i] = of->input[i] < 0 ? NULL : at[of->input[i]];
    return (size_t)(next - (real *)flat);
}

qkv_status FN(qkv_attend_flat)(qkv_tape *tape, qkv_node *node, const bool *wanted, int n)
{
    ptrdiff_t total = 0;
    for (int i = 0; i < n; i++)
        if (wanted[i] &&
            __builtin_add_overflow(total, (ptrdiff_t)qkv_input(tape, node, i)->size, &total))
            return qkv_node_fail(tape, node, QKV_E_OVERFLOW, "the sum of the sizes overflows");
    return qkv_node_shape(tape, node, 1, &total);
}

qkv_status FN(qkv_attend_double)(qkv_tape *tape, const qkv_node *node, const attend_state *s,
                                 void *d_o, void *const u[INPUTS], void *const gradient[INPUTS],
                                 void *dd_o)
{
    if (s->a.score == QKV_SCORE_USER)
        return qkv_node_fail(tape, node, QKV_E_ARG,
                             "a user's score has no second order: its backward, which gives "
                             "numbers, cannot be differentiated");
    size_t bytes;
    void *memory = FN(qkv_attend_workspace)(tape, node, s, QKV_DOUBLE_BACKWARD, &bytes);
    if (!memory) return tape->status;
    const FN(qkv_operands) along = FN(qkv_attend_slots)(s, u),
                           d_in = FN(qkv_attend_slots)(s, gradient);
    const FN(qkv_results) d_out = {.o = FN(qkv_attend_slot)(s, d_o, s->a.heads, s->a.d_v)},
                          dd_out = {.o = FN(qkv_attend_slot)(s, dd_o, s->a.heads, s->a.d_v)};
    return FN(qkv_attend_report)(tape, node,
                                 FN(qkv_attention_double_backward)(&s->a, &s->in, &s->saved, &d_out,
                                                                   &along, &d_in, &dd_out, memory,
                                                                   bytes));
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    const gradient_state *s = node->state;
    int n = node->n_input - 1;
    void *part[INPUTS];
    if (node->size) memset(node->value, 0, node->size * sizeof(real));
    FN(qkv_attend_parts)(tape, node, &s->of, s->wanted, n, node->value, part);
    return FN(qkv_attend_backward)(tape, node, &s->of, qkv_input(tape, node, n)->value, part);
}

qkv_status FN(qkv_attend_gradient_problem)(qkv_tape *tape, const qkv_node *node,
                                           composed_problem *p)
{
    const gradient_state *s = node->state;
    const qkv_attention *a = &s->of.a;
    *p = (composed_problem){.first = s->wanted};
    p->fused = a->score == QKV_SCORE_USER || (a->normalize == QKV_SOFTMAX && !s->of.ragged);
    return p->fused ? QKV_OK : FN(qkv_attend_problem)(tape, node, &s->of, &p->of);
}

static qkv_status fused_backward(qkv_tape *tape, qkv_node *node)
{
    const gradient_state *s = node->state;
    const qkv_node *d_o = qkv_input(tape, node, node->n_input - 1);
    void *part[INPUTS];
    real *gradient[INPUTS], *dd_o = d_o->gradient, *own = NULL;
    if (FN(qkv_attend_split)(tape, node, &s->of, gradient)) return tape->status;
    FN(qkv_attend_parts)(tape, node, &s->of, s->wanted, node->n_input - 1, node->gradient, part);
    for (int i = 0; i < INPUTS && dd_o; i++)
        if (gradient[i] == dd_o) own = dd_o; /* attention of its own cotangent */
    if (own) {
        dd_o = qkv_node_take(tape, node, d_o->size, sizeof *dd_o);
        if (!dd_o) return QKV_E_NOMEM;
        memset(dd_o, 0, d_o->size * sizeof *dd_o);
    }
    if (FN(qkv_attend_double)(tape, node, &s->of, d_o->value, part, (void *const *)gradient, dd_o))
        return tape->status;
    FN(qkv_attend_join)(tape, node, &s->of, gradient);
    for (size_t i = 0; i < d_o->size && own; i++) own[i] += dd_o[i];
    return QKV_OK;
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    composed_problem p;
    if (FN(qkv_attend_gradient_problem)(tape, node, &p)) return tape->status;
    if (p.fused) return fused_backward(tape, node);
    if (p.of.n == 0) return QKV_OK;
    return FN(qkv_segment_backward)(tape, node, qkv_attend_gradient_composed, &p);
}

const qkv_op FN(qkv_op_attend_gradient) = {
    .shape = shape, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
/* The inputs of a node and what follows them, as those of another; and a copy of wanted. */
static qkv_var *inputs_of(qkv_tape *t, const qkv_reverse *r, const bool **wanted)
{
    const qkv_node *node = qkv_node_of(t, r->y, "qkv_grad");
    bool *copy = node ? qkv_node_take(t, node, (size_t)r->n, sizeof *copy) : NULL;
    qkv_var *in = copy ? qkv_node_take(t, node, (size_t)r->n + 1, sizeof *in) : NULL;
    if (!in) return NULL;
    memcpy(copy, r->wanted, (size_t)r->n * sizeof *copy);
    memcpy(in, r->x, (size_t)r->n * sizeof *in);
    in[r->n] = r->dy;
    *wanted = copy;
    return in;
}

/* A flat array's parts, in the shapes of the inputs. */
static void take_parts(qkv_tape *t, const qkv_reverse *r, qkv_var flat)
{
    ptrdiff_t at = 0;
    for (int i = 0; i < r->n; i++) {
        if (!r->wanted[i]) continue;
        ptrdiff_t n = (ptrdiff_t)qkv_size_of(t, r->x[i]);
        r->dx[i] = qkv_reshape(t, qkv_slice(t, flat, 0, at, at + n, 1), qkv_shape_of(t, r->x[i]));
        at += n;
    }
}

void qkv_differentiate_attend(qkv_tape *t, const qkv_reverse *r)
{
    call given = {.of = qkv_state_of(t, r->y)};
    const qkv_var *in = inputs_of(t, r, &given.wanted);
    if (in) take_parts(t, r, qkv_record(t, QKV_OP_attend_gradient, in, r->n + 1, &given));
}

static void record_second(qkv_tape *t, const qkv_reverse *r)
{
    qkv_attend_second_call given = {.of = qkv_state_of(t, r->y)};
    const qkv_var *in = inputs_of(t, r, &given.wanted);
    if (in) take_parts(t, r, qkv_record(t, QKV_OP_attend_second, in, r->n + 1, &given));
}

void qkv_differentiate_attend_gradient(qkv_tape *t, const qkv_reverse *r)
{
    const qkv_node *node = qkv_node_of(t, r->y, "qkv_grad");
    composed_problem p;
    if (!node || (t->dtype == QKV_F32 ? qkv_attend_gradient_problem_f32(t, node, &p)
                                      : qkv_attend_gradient_problem_f64(t, node, &p)))
        return;
    if (p.fused) {
        record_second(t, r);
    } else if (p.of.n) {
        qkv_segment_differentiate(t, r, qkv_attend_gradient_composed, &p);
    }
}

static qkv_var apply(qkv_tape *t, const qkv_var *x)
{
    const qkv_attention a = {.mask = {.causal = true, .causal_offset = 1}};
    qkv_var y = qkv_attend(t, &a, &(qkv_attend_vars){.q = x[0], .k = x[1], .v = x[2]});
    qkv_var g[3], loss = qkv_sum(t, qkv_mul(t, y, y), NULL, 0, false);
    if (qkv_grad(t, loss, x, 3, g)) return (qkv_var){0};
    qkv_var tq = qkv_tanh(t, g[0]), tk = qkv_sum(t, g[1], (int[]){0}, 1, true);
    return qkv_add(t, qkv_mul(t, tq, tk), qkv_sum(t, g[2], NULL, 0, false));
}

const qkv_op_case qkv_cases_attend_gradient[] = {
    {.n_input = 3, .input = {{2, {4, 3}}, {2, {5, 3}}, {2, {5, 2}}}, .apply = apply},
    {0},
};
#endif
