/* test_tape.c - what a tape promises, whatever is recorded on it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkv/tape.h"
#include "src/real.h"
#include "support.h"

static qkv_tape *tape;

static int set_up(void **state)
{
    (void)state;
    return (int)qkv_tape_new(&tape, REAL_DTYPE);
}

static int tear_down(void **state)
{
    (void)state;
    qkv_tape_free(tape);
    return 0;
}

static const real two_three[2] = {2, 3};

static qkv_var leaf(ptrdiff_t n, const real *data, real *grad)
{
    return FN(qkv_leaf)(tape, qkv_shape1(n), data, grad);
}

static qkv_var total(qkv_var x)
{
    return qkv_sum(tape, x, NULL, 0, false);
}

static qkv_var square(qkv_var x)
{
    return qkv_mul(tape, x, x);
}

static bool is_invalid(qkv_var x)
{
    return x.node == 0 && x.generation == 0;
}

/* The tape is in this error, says so everywhere, and the message is this. */
static void assert_error(qkv_status status, const char *message)
{
    assert_status(qkv_tape_status(tape), status);
    assert_string_equal(qkv_tape_error(tape), message);
    assert_true(is_invalid(qkv_constant(tape, 1)));
    assert_status(qkv_backward(tape, (qkv_var){0}), status);
    assert_string_equal(qkv_last_error(), message);
}

/* ---- Gradients ------------------------------------------------------------------------------- */

static void gradient_is_added_to_the_callers_array(void **state)
{
    (void)state;
    real grad[2] = {10, 20};
    for (int pass = 1; pass <= 2; pass++) {
        assert_ok(qkv_backward(tape, total(square(leaf(2, two_three, grad)))));
        assert_close(grad[0], 10 + 4 * pass, 0);
        assert_close(grad[1], 20 + 6 * pass, 0);
        qkv_tape_reset(tape);
    }
}

static void two_leaves_may_share_a_gradient(void **state)
{
    (void)state;
    real grad[2] = {0};
    qkv_var a = leaf(2, two_three, grad), b = leaf(2, two_three, grad);
    assert_ok(qkv_backward(tape, total(qkv_mul(tape, a, b))));
    assert_close(grad[0], 4, 0);
    assert_close(grad[1], 6, 0);
}

static void paths_that_meet_again_add_up(void **state)
{
    (void)state;
    real grad[2] = {0};
    qkv_var x = leaf(2, two_three, grad);
    qkv_var y = qkv_add(tape, square(x), qkv_sub(tape, x, qkv_neg(tape, x)));
    assert_ok(qkv_backward(tape, total(y))); /* x^2 + 2x */
    assert_close(grad[0], 6, 0);
    assert_close(grad[1], 8, 0);
}

static void seed_is_the_cotangent(void **state)
{
    (void)state;
    real grad[2] = {0};
    const real cotangent[2] = {-1, 5};
    qkv_var y = square(leaf(2, two_three, grad));
    const qkv_backward_options options = {.seed = leaf(2, cotangent, NULL)};
    assert_ok(qkv_backward_with(tape, y, &options));
    assert_close(grad[0], -4, 0);
    assert_close(grad[1], 30, 0);
}

static void only_what_leads_to_the_root_gets_a_gradient(void **state)
{
    (void)state;
    real used_grad[2] = {0}, unused_grad[2] = {0};
    qkv_var used = leaf(2, two_three, used_grad), unused = leaf(2, two_three, unused_grad);
    qkv_var aside = square(unused), y = square(used), root = total(y);
    assert_ok(qkv_backward(tape, root));
    assert_close(unused_grad[0], 0, 0);
    assert_null(FN(qkv_grad)(tape, unused));
    assert_null(FN(qkv_grad)(tape, aside));
    assert_close(FN(qkv_grad)(tape, used)[1], 6, 0);
    assert_null(FN(qkv_grad)(tape, y)); /* no leaf, and not kept */
}

static void kept_gradients_are_of_the_last_backward(void **state)
{
    (void)state;
    const qkv_backward_options keep = {.keep = true};
    real grad[2] = {0};
    qkv_var x = leaf(2, two_three, grad), y = square(x), first = total(y), second = total(x);
    assert_ok(qkv_backward_with(tape, first, &keep));
    assert_close(FN(qkv_grad)(tape, y)[0], 1, 0);
    assert_close(FN(qkv_grad)(tape, x)[0], 4, 0);
    assert_ok(qkv_backward_with(tape, second, &keep));
    assert_null(FN(qkv_grad)(tape, y));
    assert_close(FN(qkv_grad)(tape, x)[0], 1, 0);
    assert_close(grad[0], 5, 0);
}

static void backward_that_keeps_may_run_again_without_more_memory(void **state)
{
    (void)state;
    const qkv_backward_options keep = {.keep = true};
    real grad[2] = {0};
    qkv_var root = total(square(leaf(2, two_three, grad)));
    assert_ok(qkv_backward_with(tape, root, &keep));
    size_t bytes = qkv_tape_bytes(tape);
    for (int i = 0; i < 999; i++) assert_ok(qkv_backward_with(tape, root, &keep));
    assert_ok(qkv_backward(tape, root));
    assert_close(grad[0], 4 * 1001, 0);
    assert_int_equal(qkv_tape_bytes(tape), bytes);
}

static void second_backward_without_keep_is_an_error(void **state)
{
    (void)state;
    real grad[2] = {0};
    qkv_var y = square(leaf(2, two_three, grad));
    assert_ok(qkv_backward(tape, total(y)));
    assert_status(qkv_backward(tape, total(y)), QKV_E_STATE);
    assert_error(QKV_E_STATE,
                 "%1 = mul(%0,%0): backward has passed here already; ask the first one to keep");
    assert_close(grad[0], 4, 0);
}

static void graphs_that_share_only_leaves_are_separate(void **state)
{
    (void)state;
    real grad[2] = {0};
    qkv_var x = leaf(2, two_three, grad);
    assert_ok(qkv_backward(tape, total(square(x))));
    assert_ok(qkv_backward(tape, total(x)));
    assert_close(grad[0], 5, 0);
}

static void root_of_many_elements_needs_a_seed(void **state)
{
    (void)state;
    real grad[2];
    assert_status(qkv_backward(tape, square(leaf(2, two_three, grad))), QKV_E_SHAPE);
    assert_error(QKV_E_SHAPE, "%1 = mul(%0,%0): backward from [2] needs a seed of this shape, or "
                              "one element");
}

static void seed_of_another_shape_is_an_error(void **state)
{
    (void)state;
    real grad[2];
    qkv_var y = square(leaf(2, two_three, grad));
    const qkv_backward_options options = {.seed = qkv_constant(tape, 1)};
    assert_status(qkv_backward_with(tape, y, &options), QKV_E_SHAPE);
    assert_error(QKV_E_SHAPE, "%1 = mul(%0,%0): the seed is [], expected [2]");
}

static void root_without_a_leaf_to_reach_is_an_error(void **state)
{
    (void)state;
    assert_status(qkv_backward(tape, total(leaf(2, two_three, NULL))), QKV_E_STATE);
    assert_error(QKV_E_STATE, "%1 = sum(%0): no leaf with a gradient leads here");
}

/* ---- Constants ------------------------------------------------------------------------------- */

static void detached_value_flows_but_its_gradient_does_not(void **state)
{
    (void)state;
    real grad[2] = {0};
    qkv_var x = leaf(2, two_three, grad), fixed = qkv_detach(tape, x);
    assert_close(FN(qkv_value)(tape, fixed)[1], 3, 0);
    assert_ok(qkv_backward(tape, total(qkv_mul(tape, x, fixed))));
    assert_close(grad[0], 2, 0);
    assert_close(grad[1], 3, 0);
}

static void no_grad_scopes_nest(void **state)
{
    (void)state;
    real grad[2] = {0};
    qkv_var x = leaf(2, two_three, grad);
    qkv_no_grad_begin(tape);
    qkv_no_grad_begin(tape);
    qkv_no_grad_end(tape);
    qkv_var inside = square(x);
    qkv_no_grad_end(tape);
    assert_ok(qkv_backward(tape, total(qkv_mul(tape, x, inside))));
    assert_close(grad[0], 4, 0);
    assert_close(grad[1], 9, 0);
}

static void leaf_in_a_no_grad_scope_is_a_constant(void **state)
{
    (void)state;
    real grad[2] = {0};
    qkv_no_grad_begin(tape);
    qkv_var x = leaf(2, two_three, grad);
    qkv_no_grad_end(tape);
    assert_status(qkv_backward(tape, total(x)), QKV_E_STATE);
}

static void reset_ends_a_no_grad_scope(void **state)
{
    (void)state;
    real grad[2] = {0};
    qkv_no_grad_begin(tape);
    qkv_tape_reset(tape);
    assert_ok(qkv_backward(tape, total(leaf(2, two_three, grad))));
    assert_close(grad[0], 1, 0);
}

static void end_of_no_scope_is_an_error(void **state)
{
    (void)state;
    qkv_no_grad_end(tape);
    assert_error(QKV_E_STATE, "qkv_no_grad_end: no scope was begun");
}

/* ---- Handles and errors ---------------------------------------------------------------------- */

static void first_error_stays_and_later_calls_do_nothing(void **state)
{
    (void)state;
    const real three[3] = {0};
    qkv_var a = leaf(2, two_three, NULL), b = leaf(3, three, NULL);
    qkv_var y = qkv_add(tape, a, b);
    assert_true(is_invalid(y));
    assert_true(is_invalid(qkv_exp(tape, y)));
    assert_true(is_invalid(qkv_matmul(tape, b, b)));
    assert_int_equal(qkv_tape_nodes(tape), 2);
    assert_null(FN(qkv_value)(tape, a));
    assert_error(QKV_E_SHAPE,
                 "%2 = add(%0,%1): shapes [2] and [3] do not broadcast: sizes 2 and 3 differ");
    qkv_tape_reset(tape);
    assert_ok(qkv_tape_status(tape));
    assert_string_equal(qkv_tape_error(tape), "");
    assert_close(qkv_item(tape, qkv_exp(tape, qkv_constant(tape, 0))), 1, 0);
}

static void handle_from_before_a_reset_is_an_error(void **state)
{
    (void)state;
    qkv_var old = qkv_constant(tape, 1);
    qkv_tape_reset(tape);
    qkv_add(tape, qkv_constant(tape, 1), old);
    assert_error(QKV_E_STATE, "%1 = add(%0,?): input 1 is stale (from before a reset) or of "
                              "another tape");
}

static void handle_of_another_tape_is_an_error(void **state)
{
    (void)state;
    qkv_tape *other;
    assert_ok(qkv_tape_new(&other, REAL_DTYPE));
    qkv_var foreign = qkv_constant(other, 1);
    qkv_constant(tape, 1); /* a node of the same number */
    qkv_neg(tape, foreign);
    assert_error(QKV_E_STATE,
                 "%1 = neg(?): input 0 is stale (from before a reset) or of another tape");
    qkv_tape_free(other);
}

static void invalid_handle_is_an_error(void **state)
{
    (void)state;
    qkv_constant(tape, 1);
    qkv_neg(tape, (qkv_var){0});
    assert_error(QKV_E_STATE, "%1 = neg(?): input 0 is the invalid handle");
}

static void reading_a_bad_handle_gives_nothing(void **state)
{
    (void)state;
    assert_null(FN(qkv_value)(tape, (qkv_var){0}));
    assert_true(isnan(qkv_item(tape, (qkv_var){0})));
    assert_int_equal(qkv_shape_of(tape, (qkv_var){0}).rank, -1);
    assert_status(qkv_tape_status(tape), QKV_E_STATE);
}

static void other_dtype_is_an_error(void **state)
{
    (void)state;
    const float x32 = 1;
    const double x64 = 1;
    bool is_f32 = REAL_DTYPE == QKV_F32;
    qkv_var bad = is_f32 ? qkv_leaf_f64(tape, qkv_scalar(), &x64, NULL)
                         : qkv_leaf_f32(tape, qkv_scalar(), &x32, NULL);
    assert_true(is_invalid(bad));
    assert_error(QKV_E_DTYPE, is_f32 ? "%0 = leaf(): the tape carries float"
                                     : "%0 = leaf(): the tape carries double");
    qkv_tape_reset(tape);
    qkv_var good = qkv_neg(tape, qkv_constant(tape, 1));
    assert_null(is_f32 ? (const void *)qkv_value_f64(tape, good) : qkv_value_f32(tape, good));
    assert_error(QKV_E_DTYPE, is_f32 ? "%1 = neg(%0): qkv_value_f64: the tape carries float"
                                     : "%1 = neg(%0): qkv_value_f32: the tape carries double");
    qkv_tape_reset(tape);
    good = qkv_constant(tape, 1);
    assert_null(is_f32 ? (const void *)qkv_grad_f64(tape, good) : qkv_grad_f32(tape, good));
    assert_error(QKV_E_DTYPE, is_f32 ? "%0 = leaf(): qkv_grad_f64: the tape carries float"
                                     : "%0 = leaf(): qkv_grad_f32: the tape carries double");
}

static void bad_leaf_is_an_error(void **state)
{
    (void)state;
    FN(qkv_leaf)(tape, qkv_shape1(1), NULL, NULL);
    assert_error(QKV_E_ARG, "%0 = leaf(): data is NULL");
    qkv_tape_reset(tape);
    FN(qkv_leaf)(tape, qkv_shape2(2, -1), two_three, NULL);
    assert_error(QKV_E_SHAPE, "%0 = leaf(): size 1 is -1, expected 0 or more");
    qkv_tape_reset(tape);
    FN(qkv_leaf)(tape, (qkv_shape){.rank = 9}, two_three, NULL);
    assert_error(QKV_E_SHAPE, "%0 = leaf(): the rank is 9, expected 0 to 8");
    qkv_tape_reset(tape);
    FN(qkv_leaf)(tape, qkv_shape3(PTRDIFF_MAX, 0, PTRDIFF_MAX), NULL, NULL);
    assert_error(QKV_E_OVERFLOW, "%0 = leaf(): the product of the sizes overflows");
}

static void result_too_large_for_memory_is_an_overflow(void **state)
{
    (void)state;
    qkv_var empty = FN(qkv_leaf)(tape, qkv_shape2(PTRDIFF_MAX / 16, 0), NULL, NULL);
    qkv_matmul(tape, empty, qkv_transpose(tape, empty, NULL));
    assert_status(qkv_tape_status(tape), QKV_E_OVERFLOW);
}

static void null_tape_records_nothing(void **state)
{
    (void)state;
    const qkv_var none = {0};
    const real one = 1;
    const ptrdiff_t zero = 0;
    qkv_var (*const unary[])(qkv_tape *, qkv_var) = {
        qkv_detach,  qkv_neg,  qkv_exp, qkv_log, qkv_sqrt,       qkv_tanh,
        qkv_sigmoid, qkv_relu, qkv_sin, qkv_cos, qkv_normal_cdf, qkv_gelu};
    qkv_var (*const binary[])(qkv_tape *, qkv_var, qkv_var) = {
        qkv_add, qkv_sub, qkv_mul, qkv_div, qkv_pow, qkv_matmul, qkv_mse};
    for (size_t i = 0; i < sizeof unary / sizeof *unary; i++)
        assert_true(is_invalid(unary[i](NULL, none)));
    for (size_t i = 0; i < sizeof binary / sizeof *binary; i++)
        assert_true(is_invalid(binary[i](NULL, none, none)));
    const qkv_var others[] = {FN(qkv_leaf)(NULL, qkv_shape1(1), &one, NULL),
                              qkv_constant(NULL, 1),
                              qkv_sum(NULL, none, NULL, 0, false),
                              qkv_mean(NULL, none, NULL, 0, false),
                              qkv_max(NULL, none, NULL, 0, false),
                              qkv_transpose(NULL, none, NULL),
                              qkv_reshape(NULL, none, qkv_scalar()),
                              qkv_slice(NULL, none, 0, 0, 1, 1),
                              qkv_concat(NULL, NULL, 1, 0),
                              qkv_concat(NULL, &none, 0, 0),
                              qkv_gather(NULL, none, 0, &zero, 1),
                              qkv_scatter(NULL, none, 0, &zero, 1, 1),
                              qkv_dropout(NULL, none, 0.5, 1),
                              qkv_layer_norm(NULL, none, none, none, 0),
                              qkv_softmax(NULL, none, 0),
                              qkv_log_softmax(NULL, none, 0),
                              qkv_cross_entropy(NULL, none, &zero, 1),
                              qkv_attend(NULL, NULL, NULL),
                              qkv_apply(NULL, NULL, &none, 1, qkv_scalar()),
                              qkv_apply(NULL, NULL, NULL, -1, qkv_scalar())};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) assert_true(is_invalid(others[i]));
}

static void null_tape_has_nothing_to_read(void **state)
{
    (void)state;
    const qkv_var none = {0};
    assert_int_equal(qkv_tape_dtype(NULL), QKV_F32);
    assert_int_equal(qkv_tape_nodes(NULL), 0);
    assert_int_equal(qkv_tape_bytes(NULL), 0);
    assert_status(qkv_tape_status(NULL), QKV_E_ARG);
    assert_string_equal(qkv_tape_error(NULL), "the tape is NULL");
    assert_null(FN(qkv_value)(NULL, none));
    assert_null(FN(qkv_grad)(NULL, none));
    assert_true(isnan(qkv_item(NULL, none)));
    assert_int_equal(qkv_shape_of(NULL, none).rank, -1);
}

static void null_tape_is_harmless(void **state)
{
    (void)state;
    assert_status(qkv_backward(NULL, (qkv_var){0}), QKV_E_ARG);
    assert_status(qkv_backward_with(NULL, (qkv_var){0}, NULL), QKV_E_ARG);
    assert_message("the tape is NULL");
    assert_status(qkv_tape_print(NULL, stdout), QKV_E_ARG);
    assert_status(qkv_tape_print(tape, NULL), QKV_E_ARG);
    assert_status(qkv_tape_dot(NULL, stdout), QKV_E_ARG);
    assert_status(qkv_tape_dot(tape, NULL), QKV_E_ARG);
    assert_status(qkv_tape_new(NULL, QKV_F32), QKV_E_ARG);
    qkv_tape_reset(NULL);
    qkv_no_grad_begin(NULL);
    qkv_no_grad_end(NULL);
    qkv_tape_free(NULL);
}

static void generations_are_unique_in_the_process(void **state)
{
    (void)state;
    qkv_tape *other;
    assert_ok(qkv_tape_new(&other, REAL_DTYPE));
    uint32_t last = 0;
    for (int i = 0; i < 100; i++) {
        qkv_var a = qkv_constant(tape, 1), b = qkv_constant(other, 1);
        assert_true(a.generation > last && b.generation > a.generation);
        last = b.generation;
        qkv_tape_reset(tape);
        qkv_tape_reset(other);
    }
    qkv_tape_free(other);
}

/* ---- Size ------------------------------------------------------------------------------------ */

static void chain_of_a_million_nodes_works(void **state)
{
    (void)state;
    enum { LENGTH = 1000000 };
    const real one = 1;
    real grad = 0;
    qkv_var x = FN(qkv_leaf)(tape, qkv_scalar(), &one, &grad), y = x;
    for (int i = 0; i < LENGTH; i++) y = qkv_neg(tape, y);
    assert_int_equal(qkv_tape_nodes(tape), LENGTH + 1);
    assert_ok(qkv_backward(tape, y));
    assert_close(grad, 1, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(gradient_is_added_to_the_callers_array),
        TEST(two_leaves_may_share_a_gradient),
        TEST(paths_that_meet_again_add_up),
        TEST(seed_is_the_cotangent),
        TEST(only_what_leads_to_the_root_gets_a_gradient),
        TEST(kept_gradients_are_of_the_last_backward),
        TEST(backward_that_keeps_may_run_again_without_more_memory),
        TEST(second_backward_without_keep_is_an_error),
        TEST(graphs_that_share_only_leaves_are_separate),
        TEST(root_of_many_elements_needs_a_seed),
        TEST(seed_of_another_shape_is_an_error),
        TEST(root_without_a_leaf_to_reach_is_an_error),
        TEST(detached_value_flows_but_its_gradient_does_not),
        TEST(no_grad_scopes_nest),
        TEST(leaf_in_a_no_grad_scope_is_a_constant),
        TEST(reset_ends_a_no_grad_scope),
        TEST(end_of_no_scope_is_an_error),
        TEST(first_error_stays_and_later_calls_do_nothing),
        TEST(handle_from_before_a_reset_is_an_error),
        TEST(handle_of_another_tape_is_an_error),
        TEST(invalid_handle_is_an_error),
        TEST(reading_a_bad_handle_gives_nothing),
        TEST(other_dtype_is_an_error),
        TEST(bad_leaf_is_an_error),
        TEST(result_too_large_for_memory_is_an_overflow),
        TEST(null_tape_records_nothing),
        TEST(null_tape_has_nothing_to_read),
        TEST(null_tape_is_harmless),
        TEST(generations_are_unique_in_the_process),
        TEST(chain_of_a_million_nodes_works),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
