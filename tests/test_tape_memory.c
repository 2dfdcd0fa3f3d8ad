/* test_tape_memory.c - every allocation that a tape, a fit or a set of parameters makes is counted,
 * and made to fail. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "allocations.h"
#include "grad/arena.h"
#include "process.h"
#include "qkv/parameters.h"
#include "qkv/regression.h"
#include "qkv/tape.h"
#include "support.h"

/* ---- A step of training, large enough for several chunks of the arena ------------------------ */

enum { N = 64, D = 16 };
static float x[N * D], weight[D * D], d_weight[D * D], target[N * D];
static float scale = 0.25F, d_scale;

static qkv_status triple(void *context, const qkv_op_array *in, int n, const qkv_op_array *out,
                         void *y)
{
    (void)context, (void)n;
    for (size_t i = 0; i < out->size; i++) ((float *)y)[i] = 3 * ((const float *)in[0].data)[i];
    return QKV_OK;
}

static qkv_status triple_backward(void *context, const qkv_op_array *in, int n,
                                  const qkv_op_array *out, const void *dy, void *const *dx)
{
    (void)context, (void)in, (void)n;
    for (size_t i = 0; i < out->size; i++) ((float *)dx[0])[i] += 3 * ((const float *)dy)[i];
    return QKV_OK;
}

static qkv_status step(qkv_tape *t)
{
    static const qkv_user_op op = {"triple", triple, triple_backward, NULL};
    qkv_var w = qkv_leaf_f32(t, qkv_shape2(D, D), weight, d_weight);
    qkv_var h = qkv_matmul(t, qkv_leaf_f32(t, qkv_shape2(N, D), x, NULL), w);
    qkv_var s = qkv_leaf_f32(t, qkv_scalar(), &scale, &d_scale);
    for (int layer = 0; layer < 8; layer++) {
        const qkv_attend_vars itself = {.q = h, .k = h, .v = h, .scale = s};
        h = qkv_tanh(t, qkv_attend(t, &(qkv_attention){0}, &itself));
        h = qkv_add(t, h, qkv_max(t, h, (int[]){0}, 1, true));
        h = qkv_layer_norm(t, qkv_dropout(t, h, 0.1, 1), (qkv_var){0}, (qkv_var){0}, 0);
    }
    h = qkv_apply(t, &op, &h, 1, qkv_shape2(N, D));
    h = qkv_concat(
        t, (qkv_var[]){h, qkv_transpose(t, qkv_reshape(t, h, qkv_shape2(D, N)), NULL), h}, 3, 1);
    h = qkv_slice(t, qkv_softmax(t, h, 1), 1, 0, D, 1);
    return qkv_backward(t, qkv_mse(t, h, qkv_leaf_f32(t, qkv_shape2(N, D), target, NULL)));
}

/* Third derivatives of attention: recorded, then swept on a tape within this one. */
static qkv_status third_order(qkv_tape *t)
{
    qkv_var w = qkv_leaf_f32(t, qkv_shape2(D, D), weight, d_weight), y, g;
    const qkv_attention a = {.mask.causal = true};
    g = qkv_attend(t, &a, &(qkv_attend_vars){.q = w, .k = w, .v = w});
    for (int order = 1; order <= 3; order++) {
        y = qkv_sum(t, qkv_mul(t, g, g), NULL, 0, false);
        if (qkv_grad(t, y, &w, 1, &g)) return qkv_tape_status(t);
    }
    return qkv_backward(t, y);
}

/* Second derivatives of two items of a kernel sum: composed. */
static qkv_status composed_order(qkv_tape *t)
{
    static const int64_t starts[] = {0, 1, D};
    const qkv_attention a = {.batch = 2,
                             .score = QKV_SCORE_GAUSSIAN,
                             .normalize = QKV_KERNEL_SUM,
                             .kernel = QKV_KERNEL_EPANECHNIKOV,
                             .empty = QKV_EMPTY_NEAREST,
                             .dropout = 0.3};
    qkv_var w = qkv_leaf_f32(t, qkv_shape2(D, D), weight, d_weight), g;
    g = qkv_attend(
        t, &a, &(qkv_attend_vars){.q = w, .k = w, .v = w, .starts_q = starts, .starts_k = starts});
    for (int order = 1; order <= 2; order++) {
        qkv_var y = qkv_sum(t, qkv_mul(t, g, g), NULL, 0, false);
        if (qkv_grad(t, y, &w, 1, &g)) return qkv_tape_status(t);
    }
    return qkv_backward(t, qkv_sum(t, g, NULL, 0, false));
}

/* ---- Tests ----------------------------------------------------------------------------------- */

static void pieces_are_aligned_and_apart(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 8, 9, 63, 64, 65, 4096, 1 << 14, 1, 1 << 15, 8};
    enum { PIECES = sizeof sizes / sizeof *sizes };
    qkv_arena arena = {0};
    for (int round = 0; round < 3; round++) { /* after a reset there is one chunk */
        unsigned char *at[PIECES];
        for (int i = 0; i < PIECES; i++) {
            at[i] = qkv_arena_take(&arena, sizes[i], 1);
            assert_non_null(at[i]);
            size_t aligned = sizes[i] >= 64 ? 64 : sizes[i] > 8 ? 16 : 8;
            assert_int_equal((uintptr_t)at[i] % aligned, 0);
            memset(at[i], i, sizes[i]);
        }
        for (int i = 0; i < PIECES; i++)
            for (size_t k = 0; k < sizes[i]; k++) assert_int_equal(at[i][k], i);
        qkv_arena_reset(&arena);
    }
    qkv_arena_free(&arena);
}

static void sizes_that_overflow_are_refused(void **state)
{
    (void)state;
    qkv_arena arena = {0};
    assert_null(qkv_arena_take(&arena, SIZE_MAX / 4 + 2, 4)); /* 4 bytes, modulo SIZE_MAX + 1 */
    assert_null(qkv_arena_take(&arena, SIZE_MAX, 1));
    assert_null(arena.newest);
}

static void training_does_not_allocate_after_its_first_step(void **state)
{
    (void)state;
    qkv_tape *t;
    assert_ok(qkv_tape_new(&t, QKV_F32));
    set_failing(-1);
    assert_ok(step(t));
    assert_true(allocations > 5);
    qkv_tape_reset(t);
    size_t bytes = qkv_tape_bytes(t);
    set_failing(-1);
    for (int i = 0; i < 10; i++) {
        assert_ok(step(t));
        qkv_tape_reset(t);
    }
    assert_int_equal(allocations, 0);
    assert_int_equal(qkv_tape_bytes(t), bytes);
    qkv_tape_free(t);
}

static void steps_in_another_order_do_not_allocate_either(void **state)
{
    (void)state;
    static float data[1 << 16];
    qkv_tape *t;
    assert_ok(qkv_tape_new(&t, QKV_F32));
    for (int pass = 0; pass < 2; pass++) {
        set_failing(-1);
        for (int i = 0; i < 17; i++) {
            ptrdiff_t size = (ptrdiff_t)1 << (pass == 0 ? i : 16 - i);
            qkv_neg(t, qkv_leaf_f32(t, qkv_shape1(size), data, NULL));
        }
        assert_ok(qkv_tape_status(t));
        qkv_tape_reset(t);
    }
    assert_int_equal(allocations, 0);
    qkv_tape_free(t);
}

static void assert_failures_are_reported(qkv_status (*program)(qkv_tape *tape))
{
    long before = live, failures = 0;
    for (long n = 0;; n++) {
        qkv_tape *t = NULL;
        for (int i = 0; i < D * D; i++) d_weight[i] = 0;
        set_failing(n);
        qkv_status status = qkv_tape_new(&t, QKV_F32);
        if (!status) status = program(t);
        bool done = status == QKV_OK;
        set_failing(-1);
        if (!done) {
            assert_status(status, QKV_E_NOMEM);
            assert_message("no memory");
            for (int i = 0; i < D * D; i++) assert_close(d_weight[i], 0, 0);
            failures++;
        }
        if (t) {
            qkv_tape_reset(t);
            assert_ok(program(t));
        }
        qkv_tape_free(t);
        assert_int_equal(live, before);
        if (done) break;
    }
    assert_true(failures > 5);
}

static void every_failing_allocation_is_reported_and_survived(void **state)
{
    (void)state;
    assert_failures_are_reported(step);
    assert_failures_are_reported(third_order);
    assert_failures_are_reported(composed_order);
}

static void reset_survives_a_failing_allocation(void **state)
{
    (void)state;
    long before = live;
    qkv_tape *t;
    assert_ok(qkv_tape_new(&t, QKV_F32));
    assert_ok(step(t));
    set_failing(0);
    qkv_tape_reset(t);
    assert_true(allocations > 0);
    set_failing(-1);
    assert_ok(step(t));
    qkv_tape_free(t);
    assert_int_equal(live, before);
}

/* Alone: all else fits in what the tape has. */
static void a_name_without_memory_is_reported(void **state)
{
    (void)state;
    enum { LONG = 1 << 20 };
    char *name = malloc(LONG);
    memset(name, 'n', LONG - 1);
    name[LONG - 1] = 0;
    const qkv_user_op op = {name, triple, triple_backward, NULL};
    qkv_tape *t;
    assert_ok(qkv_tape_new(&t, QKV_F32));
    qkv_var in = qkv_leaf_f32(t, qkv_shape1(4), x, NULL);
    set_failing(0);
    qkv_apply(t, &op, &in, 1, qkv_shape1(4));
    set_failing(-1);
    assert_status(qkv_tape_status(t), QKV_E_NOMEM);
    qkv_tape_free(t);
    free(name);
}

static void every_failing_allocation_of_a_fit_is_reported(void **state)
{
    (void)state;
    const double key[] = {0, 1, 2, 3, 4}, value[] = {0, 2, 1, 3, 2}, start = 0.1;
    const qkv_regression r = {.x = key, .y = value, .n = 5, .kernel = QKV_REGRESSION_EPANECHNIKOV};
    const qkv_regression_fit_options options = {.start = &start, .steps = 3}; /* no key in reach */
    long before = live, failures = 0;
    for (;; failures++) {
        double bandwidth = -1;
        set_failing(failures);
        qkv_status status = qkv_regression_fit(&r, &options, &bandwidth, NULL);
        set_failing(-1);
        assert_int_equal(live, before);
        if (status == QKV_OK) break;
        assert_status(status, QKV_E_NOMEM);
        assert_message("no memory");
        assert_close(bandwidth, -1, 0);
    }
    assert_true(failures > 20);
}

/* Two arrays that an optimizer has, loaded; they are freed. */
static qkv_status use_parameters(const char *save, const char *load)
{
    qkv_parameters *set = NULL;
    qkv_optimizer *optimizer = NULL;
    const qkv_initializer one = {.rule = QKV_INIT_CONSTANT};
    qkv_status status = qkv_parameters_new(&set, QKV_F32);
    if (!status) status = qkv_parameters_add(set, "a", qkv_shape1(3), &one);
    if (!status) status = qkv_parameters_add(set, "b", qkv_shape1(3), &one);
    if (!status) status = qkv_adam_new(&optimizer, NULL);
    if (!status) status = qkv_optimizer_add_parameters(optimizer, set);
    if (!status && save) status = qkv_parameters_save(set, save);
    if (!status && load) status = qkv_parameters_load(set, load);
    if (!status) status = qkv_optimizer_step(optimizer);
    qkv_optimizer_free(optimizer);
    qkv_parameters_free(set);
    return status;
}

static void every_failing_allocation_of_parameters_is_reported(void **state)
{
    (void)state;
    const char *path = scratch("parameters");
    assert_ok(use_parameters(path, NULL)); /* libc allocates in a save, and is not counted */
    long before = live, failures = 0;
    for (;; failures++) {
        set_failing(failures);
        qkv_status status = use_parameters(NULL, path);
        set_failing(-1);
        assert_int_equal(live, before);
        if (status == QKV_OK) break;
        assert_status(status, QKV_E_NOMEM);
        assert_message("no memory");
    }
    assert_true(failures > 12);
}

/* One that lacks memory for the second array has the first no longer. */
static void an_optimizer_has_all_parameters_or_none(void **state)
{
    (void)state;
    qkv_parameters *set;
    qkv_optimizer *optimizer;
    assert_ok(qkv_parameters_new(&set, QKV_F64));
    assert_ok(qkv_parameters_add(set, "a", qkv_shape1(3), NULL));
    assert_ok(qkv_parameters_add(set, "b", qkv_shape1(3), NULL));
    assert_ok(qkv_sgd_new(&optimizer, NULL));
    double *g = qkv_parameters_at(set, 0)->gradient, norm;
    g[0] = 5;
    for (long n = 0; n < 4; n++) { /* for each, the list and the state */
        set_failing(n);
        assert_status(qkv_optimizer_add_parameters(optimizer, set), QKV_E_NOMEM);
        set_failing(-1);
        assert_ok(qkv_optimizer_clip_gradients(optimizer, INFINITY, &norm));
        assert_close(norm, 0, 0);
    }
    assert_ok(qkv_optimizer_add_parameters(optimizer, set));
    assert_ok(qkv_optimizer_clip_gradients(optimizer, INFINITY, &norm));
    assert_close(norm, 5, 1e-15);
    qkv_optimizer_free(optimizer);
    qkv_parameters_free(set);
}

/* Where the last of its allocations fails, nothing later would tell. */
static void an_array_without_memory_is_not_added(void **state)
{
    (void)state;
    qkv_parameters *set;
    assert_ok(qkv_parameters_new(&set, QKV_F64));
    assert_ok(qkv_parameters_add(set, "a", qkv_shape1(3), NULL));
    long before = live, n = 0;
    qkv_status status = QKV_E_NOMEM;
    while (status) {
        set_failing(n);
        status = qkv_parameters_add(set, "b", qkv_shape1(3), NULL);
        long asked = allocations;
        set_failing(-1);
        assert_int_equal(status, asked > n ? QKV_E_NOMEM : QKV_OK);
        if (status) assert_int_equal(live, before);
        n += status != QKV_OK;
    }
    assert_true(n >= 3); /* itself, its numbers and their gradient */
    qkv_parameters_free(set);
}

int main(void)
{
    for (uint64_t i = 0; i < N * D; i++) x[i] = (float)uniform(1, i, -1, 1);
    for (uint64_t i = 0; i < D * D; i++) weight[i] = (float)uniform(2, i, -1, 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_aligned_and_apart),
        cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(training_does_not_allocate_after_its_first_step),
        cmocka_unit_test(steps_in_another_order_do_not_allocate_either),
        cmocka_unit_test(every_failing_allocation_is_reported_and_survived),
        cmocka_unit_test(reset_survives_a_failing_allocation),
        cmocka_unit_test(a_name_without_memory_is_reported),
        cmocka_unit_test(every_failing_allocation_of_a_fit_is_reported),
        cmocka_unit_test(every_failing_allocation_of_parameters_is_reported),
        cmocka_unit_test(an_optimizer_has_all_parameters_or_none),
        cmocka_unit_test(an_array_without_memory_is_not_added),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
