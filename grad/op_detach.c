/* op_detach.c - the value flows on, the gradient does not. The value is shared, not copied. */
#include "grad/tape.h"
#include "grad/reverse.h"
#include "src/real.h"

static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    (void)arguments;
    node->needs_gradient = false;
    node->constant = true;
    node->value = qkv_input(tape, node, 0)->value;
    return qkv_shape_same(tape, node, NULL);
}

const qkv_op FN(qkv_op_detach) = {.shape = shape, .forward = NULL, .backward = NULL};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_detach(qkv_tape *t, const qkv_reverse *r)
{
    (void)t, (void)r; /* nothing passes */
}

qkv_var qkv_detach(qkv_tape *tape, qkv_var x)
{
    return qkv_record(tape, QKV_OP_detach, &x, 1, NULL);
}

/* Differences see through a detached x, so here what is detached has no gradient to begin with. */
static qkv_var beside(qkv_tape *tape, const qkv_var *x)
{
    return qkv_add(tape, qkv_neg(tape, x[0]), qkv_detach(tape, x[1]));
}

const qkv_op_case qkv_cases_detach[] = {
    {.n_input = 2, .input = {{1, {5}}, {1, {5}}}, .constant = 1u << 1, .apply = beside},
    {0},
};
#endif
