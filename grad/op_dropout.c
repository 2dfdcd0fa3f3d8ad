/* op_dropout.c - y = x / (1 - p), or 0 with probability p; dx likewise. Which, is a function of the
 * seed and the place alone: what is recorded again drops the same. */
#include "grad/reverse.h"
#include "src/random.h"
#include "src/real.h"

typedef struct drops {
    double p;
    uint64_t seed;
    uint8_t *keep; /* [size] */
} drops;

static void draw(drops *d, size_t n)
{
    const uint64_t limit = (uint64_t)(d->p * 0x1p32 + 0.5);
    for (size_t i = 0; i < n; i += QKV_RANDOM_WORDS) {
        uint32_t word[QKV_RANDOM_WORDS];
        qkv_random_words(d->seed, 0, i / QKV_RANDOM_WORDS, word);
        for (size_t k = 0; k < QKV_RANDOM_WORDS && i + k < n; k++)
            d->keep[i + k] = word[k] >= limit;
    }
}

static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    const drops *a = arguments;
    const qkv_node *x = qkv_input(tape, node, 0);
    if (!(a->p >= 0 && a->p <= 1))
        return qkv_node_fail(tape, node, QKV_E_ARG, "p is %g, expected 0 to 1", a->p);
    drops *d = node->state = qkv_node_take(tape, node, 1, sizeof *d);
    if (!d) return QKV_E_NOMEM;
    *d = *a;
    d->keep = qkv_node_take(tape, node, x->size, sizeof *d->keep);
    if (!d->keep) return QKV_E_NOMEM;
    draw(d, x->size);
    return qkv_node_shape(tape, node, x->rank, x->dim);
}

/* Infinite where all is dropped. */
static real factor_of(const drops *d)
{
    return (real)(1 / (1 - d->p));
}

/* Chosen, not multiplied: what is dropped may be NaN. */
static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    const drops *d = node->state;
    const real *x = qkv_input(tape, node, 0)->value, factor = factor_of(d);
    real *restrict y = node->value;
    for (size_t i = 0; i < node->size; i++) y[i] = d->keep[i] ? x[i] * factor : 0;
    return QKV_OK;
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    const drops *d = node->state;
    const real *dy = node->gradient, factor = factor_of(d);
    real *restrict dx = qkv_input_gradient(tape, node, 0);
    for (size_t i = 0; i < node->size; i++) dx[i] += d->keep[i] ? dy[i] * factor : 0;
    return QKV_OK;
}

const qkv_op FN(qkv_op_dropout) = {.shape = shape, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
void qkv_differentiate_dropout(qkv_tape *t, const qkv_reverse *r)
{
    const drops *d = qkv_state_of(t, r->y);
    r->dx[0] = qkv_dropout(t, r->dy, d->p, d->seed);
}

qkv_var qkv_dropout(qkv_tape *tape, qkv_var x, double p, uint64_t seed)
{
    return qkv_record(tape, QKV_OP_dropout, &x, 1, &(drops){.p = p, .seed = seed});
}

static qkv_var some(qkv_tape *tape, qkv_var x)
{
    return qkv_dropout(tape, x, 0.4, 3);
}

static qkv_var none(qkv_tape *tape, qkv_var x)
{
    return qkv_dropout(tape, x, 0, 3);
}

static qkv_var all(qkv_tape *tape, qkv_var x)
{
    return qkv_dropout(tape, x, 1, 3);
}

const qkv_op_case qkv_cases_dropout[] = {
    {.unary = some, .n_input = 1, .input = {{2, {3, 5}}}},
    {.label = "dropout of nothing", .unary = none, .n_input = 1, .input = {{2, {3, 5}}}},
    {.label = "dropout of all", .unary = all, .n_input = 1, .input = {{2, {3, 5}}}, .zero = 1},
    {0},
};
#endif
