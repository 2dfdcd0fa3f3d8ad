/* op_user.c - an operation that the caller brings, with its own backward. */
#include <string.h>

#include "grad/tape.h"
#include "grad/reverse.h"
#include "src/real.h"

typedef struct call {
    const qkv_user_op *op;
    qkv_shape shape;
} call;

/* state: the caller's struct with its name copied, and the arrays as its functions see them; the
 * output comes last. */
typedef struct user_state {
    qkv_user_op op; /* first: qkv_user_name reads it */
    qkv_op_array *array;
    void **gradient;
} user_state;

static void describe(const qkv_node *x, qkv_op_array *array)
{
    *array = (qkv_op_array){.shape.rank = x->rank, .size = x->size, .data = x->value};
    for (int i = 0; i < x->rank; i++) array->shape.dim[i] = x->dim[i];
}

static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    const call *a = arguments;
    size_t name_bytes = a->op->name ? strlen(a->op->name) + 1 : 0;
    user_state *s = qkv_node_take(tape, node, 1, sizeof *s);
    if (!s) return QKV_E_NOMEM;
    *s = (user_state){.op = *a->op};
    s->op.name = NULL;
    node->state = s;
    char *name = qkv_node_take(tape, node, name_bytes, 1);
    s->array = qkv_node_take(tape, node, node->n_input + 1u, sizeof *s->array);
    s->gradient = qkv_node_take(tape, node, node->n_input, sizeof *s->gradient);
    if (!name || !s->array || !s->gradient) return QKV_E_NOMEM;
    if (a->op->name) s->op.name = memcpy(name, a->op->name, name_bytes);
    return qkv_node_shape(tape, node, a->shape.rank, a->shape.dim);
}

static qkv_status report(qkv_tape *tape, const qkv_node *node, qkv_status status)
{
    if (!status) return QKV_OK;
    return qkv_node_fail(tape, node, status, "the operation returned %s", qkv_status_name(status));
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    user_state *s = node->state;
    for (int i = 0; i < node->n_input; i++) describe(qkv_input(tape, node, i), &s->array[i]);
    describe(node, &s->array[node->n_input]);
    memset(node->value, 0, node->size * sizeof(real));
    return report(tape, node,
                  s->op.forward(s->op.context, s->array, node->n_input, &s->array[node->n_input],
                                node->value));
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    user_state *s = node->state;
    for (int i = 0; i < node->n_input; i++) s->gradient[i] = qkv_input_gradient(tape, node, i);
    return report(tape, node,
                  s->op.backward(s->op.context, s->array, node->n_input, &s->array[node->n_input],
                                 node->gradient, s->gradient));
}

const qkv_op FN(qkv_op_user) = {.shape = shape, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_user(qkv_tape *t, const qkv_reverse *r)
{
    (void)r;
    qkv_tape_fail(t, QKV_E_ARG,
                  "qkv_grad: the gradient of %s, an operation of the user's, is no "
                  "computation that could be recorded",
                  qkv_user_name(&t->nodes[r->y.node]));
}

qkv_var qkv_apply(qkv_tape *tape, const qkv_user_op *op, const qkv_var *xs, int n, qkv_shape shape)
{
    if (!op || !op->forward || !op->backward || (n && !xs))
        return qkv_refuse(tape, QKV_OP_user, QKV_E_ARG, "%s is NULL",
                          !op             ? "op"
                          : !op->forward  ? "op's forward"
                          : !op->backward ? "op's backward"
                                          : "xs");
    if (n < 0 || n > UINT16_MAX)
        return qkv_refuse(tape, QKV_OP_user, QKV_E_ARG, "n is %d, expected 0 to %d", n, UINT16_MAX);
    return qkv_record(tape, QKV_OP_user, xs, n, &(call){.op = op, .shape = shape});
}

const char *qkv_user_name(const qkv_node *node)
{
    const qkv_user_op *op = node->state;
    return op && op->name ? op->name : "user";
}

/* ---- Its check: y = a^2 b as a user would write it ------------------------------------------- */

static qkv_status square_times(void *context, const qkv_op_array *in, int n,
                               const qkv_op_array *out, void *y)
{
    (void)context, (void)n;
    const real *a = in[0].data, *b = in[1].data;
    for (size_t i = 0; i < out->size; i++) ((real *)y)[i] = a[i] * a[i] * b[i];
    return QKV_OK;
}

static qkv_status square_times_backward(void *context, const qkv_op_array *in, int n,
                                        const qkv_op_array *out, const void *dy, void *const *dx)
{
    (void)context, (void)n;
    const real *a = in[0].data, *b = in[1].data, *g = dy;
    for (size_t i = 0; i < out->size; i++) {
        if (dx[0]) ((real *)dx[0])[i] += 2 * a[i] * b[i] * g[i];
        if (dx[1]) ((real *)dx[1])[i] += a[i] * a[i] * g[i];
    }
    return QKV_OK;
}

static qkv_var apply(qkv_tape *tape, const qkv_var *x)
{
    const qkv_user_op op = {
        .name = "square_times", .forward = square_times, .backward = square_times_backward};
    return qkv_apply(tape, &op, x, 2, qkv_shape1(6));
}

const qkv_op_case qkv_cases_user[] = {
    {.n_input = 2, .input = {{1, {6}}, {1, {6}}}, .rounding = -1, .apply = apply}, /* of doubles */
    {0},
};
#endif
