/* test_op_losses.c - softmax, log_softmax, mse and cross_entropy: values against a plain sum in
 * double, stability at the ends of the range, and what they refuse. */
#include <stdlib.h>
#include <string.h>

#include "qkv/tape.h"
#include "src/real.h"
#include "support.h"

enum { ROWS = 3, CLASSES = 5, N = ROWS * CLASSES };
static const double TOLERANCE = 16 * REAL_EPSILON;

static qkv_tape *tape;
static real x[N], dx[N];

static int set_up(void **state)
{
    (void)state;
    double normal[N];
    fill_normal(normal, N, 1);
    for (int i = 0; i < N; i++) {
        x[i] = (real)(2 * normal[i]);
        dx[i] = 0;
    }
    return (int)qkv_tape_new(&tape, REAL_DTYPE);
}

static int tear_down(void **state)
{
    (void)state;
    qkv_tape_free(tape);
    return 0;
}

static qkv_var leaf(void)
{
    return FN(qkv_leaf)(tape, qkv_shape2(ROWS, CLASSES), x, dx);
}

static qkv_var vector(ptrdiff_t n, const real *data)
{
    return FN(qkv_leaf)(tape, qkv_shape1(n), data, dx);
}

static void assert_value(qkv_var y, size_t n, const double *expected)
{
    const real *value = FN(qkv_value)(tape, y);
    assert_string_equal(qkv_tape_error(tape), "");
    assert_non_null(value);
    for (size_t i = 0; i < n; i++)
        assert_close((double)value[i], expected[i], TOLERANCE * (1 + fabs(expected[i])));
}

/* dx after this cotangent of y. */
static void assert_gradient(qkv_var y, const real *cotangent, size_t n, const double *expected)
{
    qkv_var seed = FN(qkv_leaf)(tape, qkv_shape_of(tape, y), cotangent, NULL);
    assert_ok(qkv_backward_with(tape, y, &(qkv_backward_options){.seed = seed}));
    for (size_t i = 0; i < n; i++)
        assert_close((double)dx[i], expected[i], TOLERANCE * (1 + fabs(expected[i])));
}

static void assert_refused(qkv_var y, qkv_status status, const char *message)
{
    assert_int_equal(y.generation, 0);
    assert_status(qkv_tape_status(tape), status);
    if (!strstr(qkv_tape_error(tape), message))
        fail_msg("\"%s\" does not contain \"%s\"", qkv_tape_error(tape), message);
    qkv_tape_reset(tape);
}

/* Softmax of x by its definition, over rows or over columns. */
static void plain_softmax(bool columns, double p[N])
{
    for (int i = 0; i < N; i++) {
        double sum = 0;
        for (int j = 0; j < N; j++)
            if (columns ? i % CLASSES == j % CLASSES : i / CLASSES == j / CLASSES)
                sum += exp((double)x[j]);
        p[i] = exp((double)x[i]) / sum;
    }
}

/* ---- softmax, log_softmax -------------------------------------------------------------------- */

static void softmax_is_its_definition_on_either_axis(void **state)
{
    (void)state;
    double p[N], log_p[N];
    for (int columns = 0; columns < 2; columns++) {
        plain_softmax(columns, p);
        for (int i = 0; i < N; i++) log_p[i] = log(p[i]);
        assert_value(qkv_softmax(tape, leaf(), columns ? 0 : -1), N, p);
        assert_value(qkv_log_softmax(tape, leaf(), columns ? -2 : 1), N, log_p);
    }
}

static void equal_logits_of_any_size_share_evenly(void **state)
{
    (void)state;
    static const double sizes[] = {1e30, -1e30, 0};
    for (int k = 0; k < 3; k++) {
        const real s = (real)sizes[k], row[4] = {s, s, s, s};
        dx[0] = dx[1] = dx[2] = dx[3] = 0;
        assert_value(qkv_log_softmax(tape, vector(4, row), 0), 4,
                     (double[]){-log(4), -log(4), -log(4), -log(4)});
        qkv_var y = qkv_softmax(tape, vector(4, row), 0);
        assert_value(y, 4, (double[]){0.25, 0.25, 0.25, 0.25});
        assert_gradient(y, (real[]){4, 0, 0, 0}, 4, (double[]){0.75, -0.25, -0.25, -0.25});
    }
}

static void logits_far_below_the_largest_have_no_weight(void **state)
{
    (void)state;
    const real row[4] = {(real)-1e30, (real)1e30, (real)-INFINITY, 0};
    qkv_var y = qkv_softmax(tape, vector(4, row), 0);
    assert_value(y, 4, (double[]){0, 1, 0, 0});
    assert_gradient(y, (real[]){1, 2, 3, 4}, 4, (double[]){0, 0, 0, 0});
    y = qkv_log_softmax(tape, vector(4, row), 0);
    assert_value(y, 4, (double[]){(double)((real)-2e30), 0, -INFINITY, (double)((real)-1e30)});
    assert_gradient(y, (real[]){1, 0, 1, 0}, 4, (double[]){1, -2, 1, 0});
}

static void a_row_without_a_distribution_is_nan_and_alone(void **state)
{
    (void)state;
    const real rows[6] = {(real)-INFINITY, (real)-INFINITY, 0, 0, 1, (real)NAN};
    qkv_var m = FN(qkv_leaf)(tape, qkv_shape2(3, 2), rows, NULL);
    assert_value(qkv_softmax(tape, m, 1), 6, (double[]){NAN, NAN, 0.5, 0.5, NAN, NAN});
    assert_value(qkv_log_softmax(tape, m, 1), 6, (double[]){NAN, NAN, -log(2), -log(2), NAN, NAN});
}

static void softmax_of_an_empty_axis_is_empty(void **state)
{
    (void)state;
    qkv_var empty = FN(qkv_leaf)(tape, qkv_shape2(3, 0), x, NULL);
    qkv_var y = qkv_softmax(tape, empty, 1);
    assert_int_equal(qkv_shape_of(tape, y).dim[1], 0);
    y = qkv_log_softmax(tape, empty, 1);
    assert_int_equal(qkv_shape_of(tape, y).dim[0], 3);
}

/* ---- mse ------------------------------------------------------------------------------------- */

static void mse_is_the_mean_of_squared_differences(void **state)
{
    (void)state;
    real d_target[3] = {0};
    qkv_var y = vector(3, (real[]){1, 2, 4});
    qkv_var target = FN(qkv_leaf)(tape, qkv_shape1(3), (real[]){0, 4, 1}, d_target);
    qkv_var loss = qkv_mse(tape, y, target);
    assert_int_equal(qkv_shape_of(tape, loss).rank, 0);
    assert_value(loss, 1, (double[]){14.0 / 3});
    assert_gradient(loss, (real[]){3}, 3, (double[]){2, -4, 6});
    for (int i = 0; i < 3; i++) assert_close((double)d_target[i], -(double)dx[i], 0);
}

static void mse_of_a_variable_with_itself_has_no_gradient(void **state)
{
    (void)state;
    qkv_var y = vector(3, x);
    qkv_var loss = qkv_mse(tape, y, y);
    assert_value(loss, 1, (double[]){0});
    assert_gradient(loss, (real[]){1}, 3, (double[]){0, 0, 0});
}

static void either_side_of_mse_may_be_constant(void **state)
{
    (void)state;
    qkv_var constant = FN(qkv_leaf)(tape, qkv_shape1(2), (real[]){3, 5}, NULL);
    assert_gradient(qkv_mse(tape, constant, vector(2, (real[]){4, 3})), (real[]){1}, 2,
                    (double[]){1, -2});
    dx[0] = dx[1] = 0;
    assert_gradient(qkv_mse(tape, vector(2, (real[]){4, 3}), constant), (real[]){1}, 2,
                    (double[]){1, -2});
}

static void losses_over_many_elements_do_not_lose_digits(void **state)
{
    (void)state;
    enum { MANY = 1 << 20 };
    real *a = calloc(MANY, sizeof *a), *b = calloc(MANY, sizeof *b);
    ptrdiff_t *label = calloc(MANY, sizeof *label);
    assert_true(a && b && label);
    for (int i = 0; i < MANY; i++) a[i] = (real)1.1;
    qkv_var y = FN(qkv_leaf)(tape, qkv_shape1(MANY), a, NULL);
    qkv_var target = FN(qkv_leaf)(tape, qkv_shape1(MANY), b, NULL);
    assert_value(qkv_mse(tape, y, target), 1, (double[]){(double)(real)1.1 * (double)(real)1.1});
    qkv_var logits = qkv_reshape(tape, y, qkv_shape2(MANY / 8, 8));
    assert_value(qkv_cross_entropy(tape, logits, label, MANY / 8), 1, (double[]){log(8)});
    free(a);
    free(b);
    free(label);
}

static void mse_refuses_other_shapes(void **state)
{
    (void)state;
    qkv_var y = leaf(), target = vector(N, x);
    assert_refused(qkv_mse(tape, y, target), QKV_E_SHAPE,
                   "%2 = mse(%0,%1): shapes [3,5] and [15] differ");
    y = leaf(), target = FN(qkv_leaf)(tape, qkv_shape2(ROWS, 1), x, NULL);
    assert_refused(qkv_mse(tape, y, target), QKV_E_SHAPE, "[3,5] and [3,1]");
    assert_refused(qkv_mse(tape, vector(0, x), vector(0, x)), QKV_E_SHAPE, "mean of nothing");
}

/* ---- cross_entropy --------------------------------------------------------------------------- */

static void cross_entropy_is_the_mean_surprise(void **state)
{
    (void)state;
    const ptrdiff_t label[ROWS] = {4, 0, 4};
    double p[N], expected = 0, gradient[N];
    plain_softmax(false, p);
    for (int i = 0; i < ROWS; i++) expected -= log(p[i * CLASSES + label[i]]) / ROWS;
    for (int i = 0; i < N; i++)
        gradient[i] = 2 * (p[i] - (label[i / CLASSES] == i % CLASSES)) / ROWS;
    qkv_var loss = qkv_cross_entropy(tape, leaf(), label, ROWS);
    assert_int_equal(qkv_shape_of(tape, loss).rank, 0);
    assert_value(loss, 1, &expected);
    assert_gradient(loss, (real[]){2}, N, gradient);
}

static void cross_entropy_copies_its_labels(void **state)
{
    (void)state;
    ptrdiff_t label[1] = {1};
    qkv_var logits = FN(qkv_leaf)(tape, qkv_shape2(1, 2), (real[]){0, 0}, dx);
    qkv_var loss = qkv_cross_entropy(tape, logits, label, 1);
    label[0] = 0;
    assert_gradient(loss, (real[]){1}, 2, (double[]){0.5, -0.5});
}

static void cross_entropy_is_stable_at_both_ends(void **state)
{
    (void)state;
    const real rows[6] = {(real)1e30, 0, (real)-1e30, 0, 0, (real)-INFINITY};
    qkv_var logits = FN(qkv_leaf)(tape, qkv_shape2(3, 2), rows, dx);
    qkv_var right = qkv_cross_entropy(tape, logits, (ptrdiff_t[]){0, 1, 0}, 3);
    assert_value(right, 1, (double[]){0});
    assert_gradient(right, (real[]){3}, 6, (double[6]){0});
    qkv_tape_reset(tape);
    logits = FN(qkv_leaf)(tape, qkv_shape2(2, 2), rows, dx);
    qkv_var wrong = qkv_cross_entropy(tape, logits, (ptrdiff_t[]){1, 0}, 2);
    assert_value(wrong, 1, (double[]){(double)(real)1e30});
    assert_gradient(wrong, (real[]){2}, 4, (double[]){1, -1, -1, 1});
}

static void a_label_that_is_no_class_is_refused(void **state)
{
    (void)state;
    assert_refused(qkv_cross_entropy(tape, leaf(), (ptrdiff_t[]){0, 5, 1}, ROWS), QKV_E_ARG,
                   "%1 = cross_entropy(%0): label[1] is 5, expected 0 to 4");
    assert_refused(qkv_cross_entropy(tape, leaf(), (ptrdiff_t[]){0, 1, -1}, ROWS), QKV_E_ARG,
                   "label[2] is -1");
    assert_refused(qkv_cross_entropy(tape, leaf(), NULL, ROWS), QKV_E_ARG, "label is NULL");
    assert_refused(qkv_cross_entropy(tape, leaf(), (ptrdiff_t[]){0, 1}, 2), QKV_E_SHAPE,
                   "rank 2 and 3 rows, expected [2, classes]");
    assert_refused(qkv_cross_entropy(tape, vector(3, x), (ptrdiff_t[]){0, 1, 0}, 3), QKV_E_SHAPE,
                   "rank 1");
    qkv_var none = FN(qkv_leaf)(tape, qkv_shape2(0, 3), x, NULL);
    assert_refused(qkv_cross_entropy(tape, none, NULL, 0), QKV_E_SHAPE, "mean of nothing");
    qkv_var classless = FN(qkv_leaf)(tape, qkv_shape2(1, 0), x, NULL);
    assert_refused(qkv_cross_entropy(tape, classless, (ptrdiff_t[]){0}, 1), QKV_E_ARG, "label[0]");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(softmax_is_its_definition_on_either_axis),
        TEST(equal_logits_of_any_size_share_evenly),
        TEST(logits_far_below_the_largest_have_no_weight),
        TEST(a_row_without_a_distribution_is_nan_and_alone),
        TEST(softmax_of_an_empty_axis_is_empty),
        TEST(mse_is_the_mean_of_squared_differences),
        TEST(mse_of_a_variable_with_itself_has_no_gradient),
        TEST(either_side_of_mse_may_be_constant),
        TEST(losses_over_many_elements_do_not_lose_digits),
        TEST(mse_refuses_other_shapes),
        TEST(cross_entropy_is_the_mean_surprise),
        TEST(cross_entropy_copies_its_labels),
        TEST(cross_entropy_is_stable_at_both_ends),
        TEST(a_label_that_is_no_class_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
