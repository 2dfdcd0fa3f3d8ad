/* test_checkpoint.c - a segment that is recorded again has the bits of one that is kept, in less
 * memory. Built for each dtype. */
#include <stdlib.h>
#include <string.h>

#include "qkv/tape.h"
#include "src/random.h"
#include "src/real.h"
#include "support.h"

enum { ROWS = 64, WIDTH = 16, LAYERS = 60, ACROSS = 5 };

typedef struct model {
    real x[ROWS * WIDTH], w[WIDTH * WIDTH], dx[ROWS * WIDTH], dw[WIDTH * WIDTH];
} model;

static model *model_new(void)
{
    model *m = calloc(1, sizeof *m);
    for (uint64_t i = 0; i < ROWS * WIDTH; i++) m->x[i] = (real)qkv_random_normal(1, 1, i);
    for (uint64_t i = 0; i < WIDTH * WIDTH; i++) m->w[i] = (real)qkv_random_normal(1, 2, i) / 4;
    return m;
}

/* ACROSS layers of attention and a product with dropout, each of them on all that came before. */
static qkv_var layers(qkv_tape *tape, void *context, const qkv_var *x, int n)
{
    (void)n;
    qkv_var y = x[0];
    for (int i = 0; i < ACROSS; i++) {
        const uint64_t seed = *(const uint64_t *)context;
        const qkv_attention a = {.dropout = 0.2, .dropout_seed = seed};
        qkv_var v = qkv_dropout(tape, qkv_matmul(tape, y, x[1]), 0.2, seed + (uint64_t)i);
        const qkv_attend_vars in = {.q = y, .k = y, .v = v};
        y = qkv_add(tape, y, qkv_tanh(tape, qkv_attend(tape, &a, &in)));
    }
    return y;
}

static size_t run(model *m, bool checkpoints, bool debug)
{
    static uint64_t seed = 7;
    qkv_tape *t;
    assert_ok(qkv_tape_new(&t, REAL_DTYPE));
    qkv_tape_debug(t, debug);
    qkv_var x[2] = {FN(qkv_leaf)(t, qkv_shape2(ROWS, WIDTH), m->x, m->dx),
                    FN(qkv_leaf)(t, qkv_shape2(WIDTH, WIDTH), m->w, m->dw)};
    for (int i = 0; i < LAYERS; i += ACROSS)
        x[0] = checkpoints ? qkv_checkpoint(t, layers, &seed, x, 2) : layers(t, &seed, x, 2);
    qkv_var loss = qkv_sum(t, qkv_mul(t, x[0], x[0]), NULL, 0, false);
    assert_ok(qkv_backward_with(t, loss, &(qkv_backward_options){.keep = true}));
    assert_ok(qkv_backward(t, loss));
    size_t bytes = qkv_tape_bytes(t);
    qkv_tape_free(t);
    return bytes;
}

static void bits_are_those_of_a_computation_that_is_kept(void **state)
{
    (void)state;
    model *kept = model_new(), *again = model_new();
    size_t bytes_kept = run(kept, false, false), bytes_again = run(again, true, false);
    assert_memory_equal(kept->dx, again->dx, sizeof kept->dx);
    assert_memory_equal(kept->dw, again->dw, sizeof kept->dw);
    assert_true(kept->dw[0] != 0 && kept->dw[0] - kept->dw[0] == 0);
    assert_true(2 * bytes_again < bytes_kept);
    memset(again->dx, 0, sizeof again->dx);
    memset(again->dw, 0, sizeof again->dw);
    run(again, true, true);
    assert_memory_equal(kept->dw, again->dw, sizeof kept->dw);
    free(kept);
    free(again);
}

static qkv_var first(qkv_tape *tape, void *context, const qkv_var *x, int n)
{
    (void)tape, (void)context, (void)n;
    return x[0];
}

static qkv_var number(qkv_tape *tape, void *context, const qkv_var *x, int n)
{
    (void)context, (void)x, (void)n;
    return qkv_constant(tape, 3);
}

static void a_result_may_be_an_input_or_a_constant(void **state)
{
    (void)state;
    qkv_tape *t;
    const real x[3] = {1, 2, 4};
    real d[3] = {0};
    assert_ok(qkv_tape_new(&t, REAL_DTYPE));
    qkv_var v = FN(qkv_leaf)(t, qkv_shape1(3), x, d);
    qkv_var y = qkv_checkpoint(t, first, NULL, &v, 1), c = qkv_checkpoint(t, number, NULL, &v, 1);
    qkv_var all = qkv_mul(t, qkv_add(t, qkv_mul(t, y, y), v), c);
    assert_ok(qkv_backward(t, qkv_sum(t, all, NULL, 0, false)));
    for (int i = 0; i < 3; i++) assert_close((double)d[i], 3 * (2 * (double)x[i] + 1), 0);
    qkv_tape_reset(t);
    c = qkv_checkpoint(t, number, NULL, NULL, 0);
    assert_close(qkv_item(t, c), 3, 0);
    qkv_tape_free(t);
}

static qkv_var product(qkv_tape *tape, void *context, const qkv_var *x, int n)
{
    (void)context, (void)n;
    return qkv_mul(tape, x[0], x[1]);
}

/* x x^2, where the segment is given x and x^2, has the gradient 3 x^2 to backward and, recorded, in
 * a no-grad scope and out of it, to qkv_grad: what one input owes to another counts once. */
static void inputs_may_depend_on_one_another(void **state)
{
    (void)state;
    qkv_tape *t;
    const real x = 2;
    real d = 0;
    assert_ok(qkv_tape_new(&t, REAL_DTYPE));
    qkv_var v = FN(qkv_leaf)(t, qkv_scalar(), &x, &d), both[] = {v, qkv_mul(t, v, v)}, g;
    qkv_var y = qkv_checkpoint(t, product, NULL, both, 2);
    for (int scope = 0; scope < 2; scope++) {
        if (scope) qkv_no_grad_begin(t);
        assert_ok(qkv_grad(t, y, &v, 1, &g));
        assert_close(qkv_item(t, g), 12, 0);
    }
    qkv_no_grad_end(t);
    assert_ok(qkv_backward(t, y));
    assert_close((double)d, 12, 0);
    qkv_tape_free(t);
}

static qkv_var with_leaf(qkv_tape *tape, void *context, const qkv_var *x, int n)
{
    (void)n;
    static const real one = 1;
    return qkv_mul(tape, x[0], FN(qkv_leaf)(tape, qkv_scalar(), &one, context));
}

static qkv_var wrong_shape(qkv_tape *tape, void *context, const qkv_var *x, int n)
{
    (void)context, (void)n;
    return qkv_matmul(tape, x[0], x[0]);
}

static qkv_var grows(qkv_tape *tape, void *context, const qkv_var *x, int n)
{
    (void)n;
    qkv_var both[] = {x[0], x[0]};
    return qkv_concat(tape, both, ++*(int *)context, 0);
}

static void errors_name_the_node_and_the_one_within(void **state)
{
    (void)state;
    qkv_tape *t;
    real x[6] = {0}, d[6] = {0}, own = 0;
    int times = 0;
    assert_ok(qkv_tape_new(&t, REAL_DTYPE));
    const struct {
        qkv_segment f;
        void *context;
        qkv_status status;
        const char *message;
    } cases[] = {
        {with_leaf, &own, QKV_E_ARG, "%1 = checkpoint(%0): the segment records %1, a leaf with"},
        {wrong_shape, NULL, QKV_E_SHAPE, "%1 = checkpoint(%0): in the segment, %1 = matmul(%0,%0)"},
        {NULL, NULL, QKV_E_ARG, "f is NULL"},
        {grows, &times, QKV_E_STATE, "another shape the second time"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qkv_tape_reset(t);
        qkv_var v = FN(qkv_leaf)(t, qkv_shape2(2, 3), x, d);
        qkv_var y = qkv_checkpoint(t, cases[i].f, cases[i].context, &v, 1);
        qkv_backward(t, qkv_sum(t, y, NULL, 0, false));
        assert_status(qkv_tape_status(t), cases[i].status);
        assert_message(cases[i].message);
        for (int k = 0; k < 6; k++) assert_true(d[k] == 0);
    }
    assert_true(own == 0);
    qkv_tape_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_are_those_of_a_computation_that_is_kept),
        cmocka_unit_test(a_result_may_be_an_input_or_a_constant),
        cmocka_unit_test(inputs_may_depend_on_one_another),
        cmocka_unit_test(errors_name_the_node_and_the_one_within),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
