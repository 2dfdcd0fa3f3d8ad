/* test_optim.c - SGD, Adam and AdamW against hand-computed steps and scalar recurrences. */
#include "support.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

#include "qkv/optim.h"

/* ---- By hand --------------------------------------------------------------------------------- */

static void the_first_steps_of_sgd_are_as_by_hand(void **state)
{
    (void)state;
    static const qkv_sgd plain = {.rate = 0.5}, heavy = {.rate = 0.5, .momentum = 0.5},
                         nesterov = {.rate = 0.5, .momentum = 0.5, .nesterov = true},
                         decay = {.rate = 0.5, .weight_decay = 0.25};
    static const struct {
        const qkv_sgd *options;
        double after[3]; /* x from 8 with gradients 4, 4, 2 */
    } cases[] = {{&plain, {6, 4, 3}},
                 {&heavy, {6, 3, 0.5}},        /* v = 4, 6, 5 */
                 {&nesterov, {5, 1.5, -0.75}}, /* g + v / 2 = 6, 7, 4.5 */
                 {&decay, {5, 2.375, 1.078125}} /* g + x / 4 = 6, 5.25, 2.59375 */,
                 {NULL, {7.96, 7.92, 7.9}}};
    static const double gradients[] = {4, 4, 2};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        double x = 8, g;
        float x32 = 8, g32;
        qkv_optimizer *optimizer;
        assert_ok(qkv_sgd_new(&optimizer, cases[k].options));
        assert_ok(qkv_optimizer_add_f64(optimizer, &x, &g, 1));
        assert_ok(qkv_optimizer_add_f32(optimizer, &x32, &g32, 1));
        for (int t = 0; t < 3; t++) {
            g = gradients[t];
            g32 = (float)g;
            assert_ok(qkv_optimizer_step(optimizer));
            assert_close(x, cases[k].after[t], 1e-14);
            assert_close((double)x32, cases[k].after[t], 1e-6);
            assert_close(g, gradients[t], 0);
        }
        qkv_optimizer_free(optimizer);
    }
}

static void the_first_step_of_adam_is_the_rate_whatever_the_gradient(void **state)
{
    (void)state;
    static const double gradients[] = {1e-3, -2, 7e5};
    for (int k = 0; k < 3; k++) {
        double x = 1, g = gradients[k];
        qkv_optimizer *optimizer;
        assert_ok(qkv_adam_new(&optimizer, NULL));
        assert_ok(qkv_optimizer_add_f64(optimizer, &x, &g, 1));
        assert_ok(qkv_optimizer_step(optimizer));
        assert_close(x, 1 - 0.001 * g / (fabs(g) + 1e-8), 1e-15);
        qkv_optimizer_free(optimizer);
    }
}

static void decoupled_decay_shrinks_x_outside_the_moments(void **state)
{
    (void)state;
    double x = 2, g = 0;
    const qkv_adam adamw = {.rate = 0.1, .weight_decay = 0.5, .decoupled = true};
    qkv_optimizer *optimizer;
    assert_ok(qkv_adam_new(&optimizer, &adamw));
    assert_ok(qkv_optimizer_add_f64(optimizer, &x, &g, 1));
    assert_ok(qkv_optimizer_step(optimizer));
    assert_close(x, 1.9, 1e-15);
    qkv_optimizer_free(optimizer);
}

/* ---- By recurrences in closed form: every moment is a weighted sum over all past gradients --- */

enum { STEPS = 60, N = 3 };

static double gradient_of(const double *x, int i) /* of a bent valley that couples all of x */
{
    return (i + 1) * x[i] + 0.3 * sin(x[(i + 1) % N]) + 0.1 * x[i] * x[i] * x[i];
}

/* m_t = (1 - b) sum_s b^(t-s) g_s / (1 - b^t), the mean of g^power over the past. */
static double decayed_mean(double g[STEPS][N], int t, int i, double b, int power)
{
    double sum = 0, weight = 0;
    for (int s = 0; s <= t; s++) {
        sum += pow(b, t - s) * pow(g[s][i], power);
        weight += pow(b, t - s);
    }
    return sum / weight;
}

static void adam_by_definition(const qkv_adam *o, double *x)
{
    double g[STEPS][N];
    for (int t = 0; t < STEPS; t++) {
        double next[N];
        for (int i = 0; i < N; i++) {
            g[t][i] = gradient_of(x, i) + (o->decoupled ? 0 : o->weight_decay * x[i]);
            double m = decayed_mean(g, t, i, o->beta1, 1), v = decayed_mean(g, t, i, o->beta2, 2);
            next[i] = x[i] - (o->decoupled ? o->rate * o->weight_decay * x[i] : 0) -
                      o->rate * m / (sqrt(v) + o->epsilon);
        }
        for (int i = 0; i < N; i++) x[i] = next[i];
    }
}

static void sgd_by_definition(const qkv_sgd *o, double *x)
{
    double g[STEPS][N];
    for (int t = 0; t < STEPS; t++) {
        double next[N];
        for (int i = 0; i < N; i++) {
            g[t][i] = gradient_of(x, i) + o->weight_decay * x[i];
            double v = 0;
            for (int s = 0; s <= t; s++) v += pow(o->momentum, t - s) * g[s][i];
            next[i] = x[i] - o->rate * (o->nesterov ? g[t][i] + o->momentum * v : v);
        }
        for (int i = 0; i < N; i++) x[i] = next[i];
    }
}

/* STEPS steps in both dtypes, from the same x; frees the optimizer. */
static void assert_trajectory(qkv_optimizer *optimizer, const double *start, const double *end)
{
    double x[N], g[N];
    float x32[N], g32[N];
    for (int i = 0; i < N; i++) x32[i] = (float)(x[i] = start[i]);
    assert_ok(qkv_optimizer_add_f64(optimizer, x, g, 1)); /* in two pieces: they stay apart */
    assert_ok(qkv_optimizer_add_f32(optimizer, x32, g32, N));
    assert_ok(qkv_optimizer_add_f64(optimizer, x + 1, g + 1, N - 1));
    for (int t = 0; t < STEPS; t++) {
        double wide[N];
        for (int i = 0; i < N; i++) wide[i] = (double)x32[i];
        for (int i = 0; i < N; i++) {
            g[i] = gradient_of(x, i);
            g32[i] = (float)gradient_of(wide, i);
        }
        assert_ok(qkv_optimizer_step(optimizer));
    }
    for (int i = 0; i < N; i++) {
        assert_true(fabs(end[i] - start[i]) > 0.01);
        assert_close(x[i], end[i], 1e-12);
        assert_close((double)x32[i], end[i], 2e-5);
    }
    qkv_optimizer_free(optimizer);
}

static void sgd_follows_its_definition(void **state)
{
    (void)state;
    static const qkv_sgd cases[] = {
        {.rate = 0.02},
        {.rate = 0.02, .momentum = 0.9},
        {.rate = 0.02, .momentum = 0.9, .nesterov = true},
        {.rate = 0.02, .momentum = 0.7, .weight_decay = 0.3, .nesterov = true},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const double start[N] = {1.5, -2, 0.7};
        double end[N] = {1.5, -2, 0.7};
        sgd_by_definition(&cases[k], end);
        qkv_optimizer *optimizer;
        assert_ok(qkv_sgd_new(&optimizer, &cases[k]));
        assert_trajectory(optimizer, start, end);
    }
}

static void adam_and_adamw_follow_their_definition(void **state)
{
    (void)state;
    static const qkv_adam cases[] = {
        {.rate = 0.02, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8},
        {.rate = 0.02, .beta1 = 0.5, .beta2 = 0.8, .epsilon = 0.1},
        {.rate = 0.02, .beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-4, .weight_decay = 0.3},
        {.rate = 0.02,
         .beta1 = 0.9,
         .beta2 = 0.99,
         .epsilon = 1e-4,
         .weight_decay = 0.3,
         .decoupled = true},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const double start[N] = {1.5, -2, 0.7};
        double end[N] = {1.5, -2, 0.7};
        adam_by_definition(&cases[k], end);
        qkv_optimizer *optimizer;
        assert_ok(qkv_adam_new(&optimizer, &cases[k]));
        assert_trajectory(optimizer, start, end);
    }
}

static void zeroed_fields_of_adam_mean_the_defaults(void **state)
{
    (void)state;
    const qkv_adam defaults = {.rate = 0.001, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8};
    const double start[N] = {1.5, -2, 0.7};
    double end[N] = {1.5, -2, 0.7};
    adam_by_definition(&defaults, end);
    qkv_optimizer *optimizer;
    assert_ok(qkv_adam_new(&optimizer, NULL));
    assert_trajectory(optimizer, start, end);
}

/* ---- Use ------------------------------------------------------------------------------------- */

static void every_rule_finds_the_minimum_of_a_quadratic(void **state)
{
    (void)state;
    const qkv_sgd nesterov = {.rate = 0.02, .momentum = 0.9, .nesterov = true};
    const qkv_adam adam = {.rate = 0.02};
    for (int rule = 0; rule < 2; rule++) {
        double x[2] = {5, -3}, g[2];
        qkv_optimizer *optimizer;
        if (rule)
            assert_ok(qkv_adam_new(&optimizer, &adam));
        else
            assert_ok(qkv_sgd_new(&optimizer, &nesterov));
        assert_ok(qkv_optimizer_add_f64(optimizer, x, g, 2));
        for (int t = 0; t < 3000; t++) {
            g[0] = 10 * (x[0] - 1);
            g[1] = x[1] - 2;
            assert_ok(qkv_optimizer_step(optimizer));
        }
        assert_close(x[0], 1, 1e-6);
        assert_close(x[1], 2, 1e-6);
        qkv_optimizer_free(optimizer);
    }
}

static void an_array_added_later_starts_its_own_moments(void **state)
{
    (void)state;
    double x[2] = {1, 1}, g[2] = {2, 2};
    qkv_optimizer *optimizer;
    assert_ok(qkv_adam_new(&optimizer, NULL));
    assert_ok(qkv_optimizer_add_f64(optimizer, x, g, 1));
    for (int t = 0; t < 10; t++) assert_ok(qkv_optimizer_step(optimizer));
    assert_ok(qkv_optimizer_add_f64(optimizer, x + 1, g + 1, 1));
    assert_ok(qkv_optimizer_step(optimizer));
    assert_close(x[1], 0.999, 1e-10);
    qkv_optimizer_free(optimizer);
}

static void the_rate_can_be_changed_and_gradients_cleared(void **state)
{
    (void)state;
    double x = 1, g = 2;
    float x32 = 1, g32 = 2;
    qkv_optimizer *optimizer;
    assert_ok(qkv_sgd_new(&optimizer, NULL));
    assert_ok(qkv_optimizer_add_f64(optimizer, &x, &g, 1));
    assert_ok(qkv_optimizer_add_f32(optimizer, &x32, &g32, 1));
    assert_ok(qkv_optimizer_set_rate(optimizer, 0.25));
    assert_ok(qkv_optimizer_step(optimizer));
    assert_close(x, 0.5, 0);
    assert_ok(qkv_optimizer_set_rate(optimizer, 0));
    assert_ok(qkv_optimizer_step(optimizer));
    assert_close(x, 0.5, 0);
    qkv_optimizer_zero_gradients(optimizer);
    assert_close(g, 0, 0);
    assert_close((double)g32, 0, 0);
    assert_status(qkv_optimizer_set_rate(optimizer, NAN), QKV_E_ARG);
    qkv_optimizer_zero_gradients(NULL);
    qkv_optimizer_free(optimizer);
    qkv_optimizer_free(NULL);
}

static void a_gradient_that_is_not_finite_changes_nothing(void **state)
{
    (void)state;
    double x[3] = {1, 2, 3}, g[3] = {1, 1, 1};
    float x32[2] = {4, 5}, g32[2] = {1, NAN};
    qkv_optimizer *optimizer;
    assert_ok(qkv_adam_new(&optimizer, NULL));
    assert_ok(qkv_optimizer_add_f64(optimizer, x, g, 3));
    assert_ok(qkv_optimizer_add_f32(optimizer, x32, g32, 2));
    assert_status(qkv_optimizer_step(optimizer), QKV_E_DOMAIN);
    assert_message("array 1 is nan at element 1");
    assert_close(x[0], 1, 0);
    assert_close((double)x32[0], 4, 0);
    g32[1] = 1;
    g[2] = INFINITY;
    assert_status(qkv_optimizer_step(optimizer), QKV_E_DOMAIN);
    assert_message("array 0 is inf at element 2");
    g[2] = 1;
    assert_ok(qkv_optimizer_step(optimizer));
    assert_close(x[0], 0.999, 1e-10); /* a first step: the refused ones left no moments */
    qkv_optimizer_free(optimizer);
}

enum { MANY = 1001 }; /* several of the optimiser's blocks, and a part of one */

static void numbers_of_a_long_array_step_as_if_each_were_alone(void **state)
{
    (void)state;
    static double x[MANY], g[MANY], alone[MANY];
    for (int adam = 0; adam < 2; adam++) {
        qkv_optimizer *optimizer[2];
        for (int k = 0; k < 2; k++)
            if (adam)
                assert_ok(qkv_adam_new(&optimizer[k], NULL));
            else
                assert_ok(qkv_sgd_new(&optimizer[k], &(qkv_sgd){.momentum = 0.5}));
        assert_ok(qkv_optimizer_add_f64(optimizer[0], x, g, MANY));
        for (size_t i = 0; i < MANY; i++) {
            x[i] = alone[i] = uniform(1, i, -1, 1);
            assert_ok(qkv_optimizer_add_f64(optimizer[1], &alone[i], &g[i], 1));
        }
        for (uint64_t step = 0; step < 3; step++) {
            for (uint64_t i = 0; i < MANY; i++) g[i] = uniform(2 + step, i, -1, 1);
            for (int k = 0; k < 2; k++) assert_ok(qkv_optimizer_step(optimizer[k]));
            for (size_t i = 0; i < MANY; i++) assert_close(x[i], alone[i], 1e-14);
        }
        for (int k = 0; k < 2; k++) qkv_optimizer_free(optimizer[k]);
    }
}

static void a_gradient_that_is_not_finite_is_found_anywhere(void **state)
{
    (void)state;
    static double x[MANY], g[MANY];
    qkv_optimizer *optimizer;
    assert_ok(qkv_sgd_new(&optimizer, NULL));
    assert_ok(qkv_optimizer_add_f64(optimizer, x, g, MANY));
    for (size_t i = 0; i < MANY; i++) {
        char element[32];
        snprintf(element, sizeof element, "at element %zu", i);
        g[i] = i % 2 ? NAN : -INFINITY;
        assert_status(qkv_optimizer_step(optimizer), QKV_E_DOMAIN);
        assert_message(element);
        g[i] = 0;
    }
    assert_ok(qkv_optimizer_step(optimizer));
    qkv_optimizer_free(optimizer);
}

/* ---- Clipping and schedules ------------------------------------------------------------------ */

static void gradients_are_clipped_together(void **state)
{
    (void)state;
    double x[2] = {0}, g[2] = {3, -4}, norm;
    float x32[2] = {0}, g32[2] = {12, 0};
    qkv_optimizer *optimizer;
    assert_ok(qkv_sgd_new(&optimizer, NULL));
    assert_ok(qkv_optimizer_clip_gradients(optimizer, 1, &norm));
    assert_close(norm, 0, 0);
    assert_ok(qkv_optimizer_add_f64(optimizer, x, g, 2));
    assert_ok(qkv_optimizer_add_f32(optimizer, x32, g32, 2));
    assert_ok(qkv_optimizer_clip_gradients(optimizer, INFINITY, &norm));
    assert_close(norm, 13, 1e-14);
    assert_ok(qkv_optimizer_clip_gradients(optimizer, 13, NULL));
    assert_true(g[0] == 3 && g[1] == -4 && g32[0] == 12);
    assert_ok(qkv_optimizer_clip_gradients(optimizer, 6.5, &norm));
    assert_close(norm, 13, 1e-14);
    assert_true(g[0] == 1.5 && g[1] == -2 && g32[0] == 6 && g32[1] == 0);
    g[0] = g[1] = g32[0] = 0;
    assert_ok(qkv_optimizer_clip_gradients(optimizer, 1, &norm));
    assert_close(norm, 0, 0);
    qkv_optimizer_free(optimizer);
}

static void the_norm_of_any_gradients_is_found(void **state)
{
    (void)state;
    static double x[MANY], g[MANY];
    static const double scales[] = {1, 1e300, 1e-300, 0x1p-1074};
    for (int k = 0; k < 4; k++) {
        double norm, expected = 0;
        qkv_optimizer *optimizer;
        assert_ok(qkv_sgd_new(&optimizer, NULL));
        assert_ok(qkv_optimizer_add_f64(optimizer, x, g, MANY - 1));
        assert_ok(qkv_optimizer_add_f64(optimizer, x, g + MANY - 1, 1));
        for (size_t i = 0; i < MANY; i++) {
            g[i] = (double)(i % 5) * scales[k];
            expected += (double)((i % 5) * (i % 5));
        }
        expected = sqrt(expected);
        assert_ok(qkv_optimizer_clip_gradients(optimizer, INFINITY, &norm));
        assert_close(norm / scales[k], expected, k == 3 ? 1 : 1e-13 * expected);
        assert_ok(qkv_optimizer_clip_gradients(optimizer, 0.5, NULL));
        assert_ok(qkv_optimizer_clip_gradients(optimizer, 1, &norm));
        assert_close(norm, k < 2 ? 0.5 : expected * scales[k], k < 2 ? 1e-13 : scales[k]);
        qkv_optimizer_free(optimizer);
    }
}

static void a_norm_beyond_double_is_clipped_too(void **state)
{
    (void)state;
    double x[2] = {0}, g[2] = {DBL_MAX, -DBL_MAX}, norm;
    qkv_optimizer *optimizer;
    assert_ok(qkv_sgd_new(&optimizer, NULL));
    assert_ok(qkv_optimizer_add_f64(optimizer, x, g, 2));
    assert_ok(qkv_optimizer_clip_gradients(optimizer, INFINITY, &norm));
    assert_close(norm, INFINITY, 0);
    assert_true(g[0] == DBL_MAX);
    assert_ok(qkv_optimizer_clip_gradients(optimizer, 2, &norm));
    assert_close(g[0], sqrt(2), 1e-14);
    assert_close(g[1], -sqrt(2), 1e-14);
    qkv_optimizer_free(optimizer);
}

static void what_cannot_be_clipped_stays_as_it_is(void **state)
{
    (void)state;
    double x[2] = {0}, g[2] = {3, NAN}, norm = 1;
    qkv_optimizer *optimizer;
    assert_ok(qkv_sgd_new(&optimizer, NULL));
    assert_ok(qkv_optimizer_add_f64(optimizer, x, g, 2));
    assert_status(qkv_optimizer_clip_gradients(optimizer, 1, &norm), QKV_E_DOMAIN);
    assert_message("qkv_optimizer_clip_gradients: the gradient of array 0 is nan at element 1");
    assert_close(norm, NAN, 0);
    assert_close(g[0], 3, 0);
    assert_status(qkv_optimizer_clip_gradients(NULL, 1, &norm), QKV_E_ARG);
    static const double limits[] = {0, -1, NAN};
    for (int i = 0; i < 3; i++) {
        assert_status(qkv_optimizer_clip_gradients(optimizer, limits[i], NULL), QKV_E_ARG);
        assert_message("max_norm is ");
    }
    qkv_optimizer_free(optimizer);
}

static void schedules_warm_up_and_decay(void **state)
{
    (void)state;
    const double half = sqrt(0.5);
    const struct {
        qkv_schedule schedule;
        double rates[9]; /* of steps 0 to 8 */
    } cases[] = {
        {{0}, {0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001}},
        {{.rate = 8, .warmup = 4, .steps = 5}, {2, 4, 6, 8, 8, 8, 8, 8, 8}},
        {{.rate = 2, .last = 1, .decay = QKV_DECAY_COSINE, .warmup = 2, .steps = 6},
         {1, 2, 1.5 + half / 2, 1.5, 1.5 - half / 2, 1, 1, 1, 1}},
        {{.rate = 2, .decay = QKV_DECAY_COSINE, .steps = 4},
         {1 + half, 1, 1 - half, 0, 0, 0, 0, 0, 0}},
        {{.rate = 6, .decay = QKV_DECAY_INVERSE_SQRT, .warmup = 2},
         {3, 6, 6 * sqrt(2. / 3), 6 * half, 6 * sqrt(0.4), 6 * sqrt(1. / 3), 6 * sqrt(2. / 7), 3,
          2 * sqrt(2.)}},
        {{.rate = 6, .decay = QKV_DECAY_INVERSE_SQRT},
         {6, 6 * half, 6 * sqrt(1. / 3), 3, 6 * sqrt(0.2), sqrt(6.), 6 * sqrt(1. / 7), 3 * half,
          2}},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        for (ptrdiff_t step = 0; step < 9; step++)
            assert_close(qkv_schedule_rate(&cases[k].schedule, step), cases[k].rates[step], 1e-14);
}

static void a_schedule_that_is_none_is_no_number(void **state)
{
    (void)state;
    static const qkv_schedule wrong[] = {
        {.rate = -1},
        {.rate = INFINITY},
        {.last = NAN},
        {.warmup = -1},
        {.steps = -1},
        {.decay = (qkv_decay)3},
        {.decay = QKV_DECAY_COSINE},
        {.decay = QKV_DECAY_COSINE, .warmup = 4, .steps = 4},
    };
    for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++)
        assert_close(qkv_schedule_rate(&wrong[k], 1), NAN, 0);
    assert_close(qkv_schedule_rate(NULL, 1), NAN, 0);
    assert_close(qkv_schedule_rate(&(qkv_schedule){0}, -1), NAN, 0);
}

static void wrong_options_and_arguments_are_named(void **state)
{
    (void)state;
    double x = 0;
    qkv_optimizer *optimizer = (void *)&x;
    assert_status(qkv_sgd_new(&optimizer, &(qkv_sgd){.momentum = -0.1}), QKV_E_ARG);
    assert_message("momentum is -0.1");
    assert_null(optimizer);
    assert_status(qkv_sgd_new(&optimizer, &(qkv_sgd){.rate = INFINITY}), QKV_E_ARG);
    assert_status(qkv_sgd_new(&optimizer, &(qkv_sgd){.weight_decay = NAN}), QKV_E_ARG);
    assert_status(qkv_sgd_new(NULL, NULL), QKV_E_ARG);
    assert_status(qkv_adam_new(&optimizer, &(qkv_adam){.beta1 = 1}), QKV_E_ARG);
    assert_message("beta1 is 1");
    assert_status(qkv_adam_new(&optimizer, &(qkv_adam){.beta2 = 2}), QKV_E_ARG);
    assert_status(qkv_adam_new(&optimizer, &(qkv_adam){.rate = -1}), QKV_E_ARG);
    assert_status(qkv_adam_new(&optimizer, &(qkv_adam){.epsilon = -1}), QKV_E_ARG);
    assert_status(qkv_adam_new(&optimizer, &(qkv_adam){.weight_decay = -1}), QKV_E_ARG);
    assert_status(qkv_adam_new(NULL, NULL), QKV_E_ARG);
    assert_status(qkv_optimizer_step(NULL), QKV_E_ARG);
    assert_status(qkv_optimizer_set_rate(NULL, 1), QKV_E_ARG);
    assert_status(qkv_optimizer_add_f64(NULL, &x, &x, 1), QKV_E_ARG);
    assert_ok(qkv_adam_new(&optimizer, NULL));
    assert_status(qkv_optimizer_add_f64(optimizer, &x, NULL, 1), QKV_E_ARG);
    assert_message("gradient is NULL");
    assert_status(qkv_optimizer_add_f32(optimizer, NULL, NULL, 1), QKV_E_ARG);
    assert_status(qkv_optimizer_add_f64(optimizer, &x, &x, SIZE_MAX / 16 + 1), QKV_E_OVERFLOW);
    assert_ok(qkv_optimizer_add_f64(optimizer, NULL, NULL, 0));
    assert_ok(qkv_optimizer_step(optimizer));
    qkv_optimizer_free(optimizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_steps_of_sgd_are_as_by_hand),
        cmocka_unit_test(the_first_step_of_adam_is_the_rate_whatever_the_gradient),
        cmocka_unit_test(decoupled_decay_shrinks_x_outside_the_moments),
        cmocka_unit_test(sgd_follows_its_definition),
        cmocka_unit_test(adam_and_adamw_follow_their_definition),
        cmocka_unit_test(zeroed_fields_of_adam_mean_the_defaults),
        cmocka_unit_test(every_rule_finds_the_minimum_of_a_quadratic),
        cmocka_unit_test(an_array_added_later_starts_its_own_moments),
        cmocka_unit_test(the_rate_can_be_changed_and_gradients_cleared),
        cmocka_unit_test(a_gradient_that_is_not_finite_changes_nothing),
        cmocka_unit_test(numbers_of_a_long_array_step_as_if_each_were_alone),
        cmocka_unit_test(a_gradient_that_is_not_finite_is_found_anywhere),
        cmocka_unit_test(gradients_are_clipped_together),
        cmocka_unit_test(the_norm_of_any_gradients_is_found),
        cmocka_unit_test(a_norm_beyond_double_is_clipped_too),
        cmocka_unit_test(what_cannot_be_clipped_stays_as_it_is),
        cmocka_unit_test(schedules_warm_up_and_decay),
        cmocka_unit_test(a_schedule_that_is_none_is_no_number),
        cmocka_unit_test(wrong_options_and_arguments_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
