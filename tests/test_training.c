/* test_training.c - all parts at once: a network on the tape learns, with each optimiser. */
#include <stdbool.h>

#include "qkv/optim.h"
#include "qkv/tape.h"
#include "src/real.h"
#include "support.h"

enum { SAMPLES = 32, HIDDEN = 12, STEPS = 400 };

/* y = tanh(x w1 + b1) w2 + b2 */
typedef struct network {
    real w1[HIDDEN], b1[HIDDEN], w2[HIDDEN], b2;
} network;

static real x[SAMPLES], target[SAMPLES];

static void make_data(network *net)
{
    double normal[3 * HIDDEN];
    fill_normal(normal, 3 * HIDDEN, 7);
    for (int i = 0; i < HIDDEN; i++) {
        net->w1[i] = (real)(2 * normal[i]);
        net->b1[i] = (real)normal[HIDDEN + i];
        net->w2[i] = (real)(0.3 * normal[2 * HIDDEN + i]);
    }
    net->b2 = 0;
    for (int i = 0; i < SAMPLES; i++) {
        x[i] = (real)(-1 + 2 * (i + 0.5) / SAMPLES);
        target[i] = (real)(sin(3 * (double)x[i]) + 0.5);
    }
}

static qkv_var record_loss(qkv_tape *t, const network *net, network *d)
{
    qkv_var inputs = FN(qkv_leaf)(t, qkv_shape2(SAMPLES, 1), x, NULL);
    qkv_var w1 = FN(qkv_leaf)(t, qkv_shape2(1, HIDDEN), net->w1, d->w1);
    qkv_var b1 = FN(qkv_leaf)(t, qkv_shape1(HIDDEN), net->b1, d->b1);
    qkv_var w2 = FN(qkv_leaf)(t, qkv_shape2(HIDDEN, 1), net->w2, d->w2);
    qkv_var b2 = FN(qkv_leaf)(t, qkv_scalar(), &net->b2, &d->b2);
    qkv_var hidden = qkv_tanh(t, qkv_add(t, qkv_matmul(t, inputs, w1), b1));
    qkv_var y = qkv_add(t, qkv_matmul(t, hidden, w2), b2);
    return qkv_mse(t, y, FN(qkv_leaf)(t, qkv_shape2(SAMPLES, 1), target, NULL));
}

/* STEPS steps; the loss before the first and after the last. Frees the optimizer. */
static void train(qkv_optimizer *optimizer, double *first, double *last)
{
    network net, d = {0};
    make_data(&net);
    qkv_tape *t;
    assert_ok(qkv_tape_new(&t, REAL_DTYPE));
    assert_ok(FN(qkv_optimizer_add)(optimizer, net.w1, d.w1, HIDDEN));
    assert_ok(FN(qkv_optimizer_add)(optimizer, net.b1, d.b1, HIDDEN));
    assert_ok(FN(qkv_optimizer_add)(optimizer, net.w2, d.w2, HIDDEN));
    assert_ok(FN(qkv_optimizer_add)(optimizer, &net.b2, &d.b2, 1));
    for (int step = 0; step <= STEPS; step++) {
        qkv_var loss = record_loss(t, &net, &d);
        *last = qkv_item(t, loss);
        if (step == 0) *first = *last;
        qkv_optimizer_zero_gradients(optimizer);
        assert_ok(qkv_backward(t, loss));
        assert_ok(qkv_optimizer_step(optimizer));
        qkv_tape_reset(t);
    }
    qkv_optimizer_free(optimizer);
    qkv_tape_free(t);
}

/* The variance of the target is 0.53: a network that ignores x cannot get below it. */
static void assert_learns(qkv_optimizer *optimizer, double bound)
{
    double first, last;
    train(optimizer, &first, &last);
    assert_true(first > 0.5);
    if (!(last < bound)) fail_msg("loss %g after training, expected less than %g", last, bound);
}

static void a_network_learns_by_gradient_descent(void **state)
{
    (void)state;
    qkv_optimizer *optimizer;
    assert_ok(qkv_sgd_new(&optimizer, &(qkv_sgd){.rate = 0.1}));
    assert_learns(optimizer, 0.02);
}

static void a_network_learns_by_momentum(void **state)
{
    (void)state;
    for (int nesterov = 0; nesterov < 2; nesterov++) {
        qkv_optimizer *optimizer;
        const qkv_sgd options = {.rate = 0.05, .momentum = 0.9, .nesterov = nesterov};
        assert_ok(qkv_sgd_new(&optimizer, &options));
        assert_learns(optimizer, 0.002);
    }
}

static void a_network_learns_by_adam_and_adamw(void **state)
{
    (void)state;
    qkv_optimizer *optimizer;
    assert_ok(qkv_adam_new(&optimizer, &(qkv_adam){.rate = 0.02}));
    assert_learns(optimizer, 0.005);
    const qkv_adam adamw = {.rate = 0.02, .weight_decay = 1e-3, .decoupled = true};
    assert_ok(qkv_adam_new(&optimizer, &adamw));
    assert_learns(optimizer, 0.005);
}

static void training_twice_gives_the_same_bits(void **state)
{
    (void)state;
    double first[2], last[2];
    for (int i = 0; i < 2; i++) {
        qkv_optimizer *optimizer;
        assert_ok(qkv_adam_new(&optimizer, NULL));
        train(optimizer, &first[i], &last[i]);
    }
    assert_memory_equal(&first[0], &first[1], sizeof first[0]);
    assert_memory_equal(&last[0], &last[1], sizeof last[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_network_learns_by_gradient_descent),
        cmocka_unit_test(a_network_learns_by_momentum),
        cmocka_unit_test(a_network_learns_by_adam_and_adamw),
        cmocka_unit_test(training_twice_gives_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
