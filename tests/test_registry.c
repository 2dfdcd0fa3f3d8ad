/* test_registry.c - every operation of the tape has the gradient its value implies. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "grad/gradcheck_op.h"
#include "qkv/gradcheck.h"
#include "qkv/tape.h"
#include "support.h"

static void every_operation_passes_its_gradient_check(void **state)
{
    (void)state;
    for (int op = 0; op < qkv_op_count(); op++)
        for (uint64_t seed = 1; seed <= 3; seed++) {
            qkv_check_report report;
            assert_ok(qkv_gradcheck_op(op, seed, &report));
            assert_true(report.passed && report.checked > 0 && !report.failed);
            assert_true(report.certificate > 0 && report.certificate < 1e-4);
        }
}

/* Counts add up over the cases; the worst element, certificate and float are the worst of them. */
static void a_report_is_that_of_all_cases(void **state)
{
    (void)state;
    for (int op = 0; op < qkv_op_count(); op++) {
        qkv_check_report all, one;
        double worst = 0, certificate = 0;
        size_t checked = 0;
        assert_ok(qkv_gradcheck_op(op, 1, &all));
        for (const qkv_op_case *test = qkv_registry[op].cases; test->n_input; test++) {
            qkv_trial c;
            assert_ok(qkv_trial_begin(&c, test, 1, 1));
            assert_ok(qkv_gradcheck_trial(&c, NULL, &one));
            qkv_trial_end(&c);
            checked += one.checked;
            certificate = fmax(certificate, one.certificate);
            if (one.error > 0) worst = fmax(worst, one.error / one.bound);
        }
        assert_int_equal(all.checked, checked);
        assert_close(all.certificate, certificate, 0);
        assert_close(all.error > 0 ? all.error / all.bound : 0, worst, 1e-9);
        assert_true(all.float_error <= all.float_bound);
    }
}

/* Ties within float, sums that cancel, inputs next to an edge: once alarms, though all is right. */
static void seeds_that_once_raised_an_alarm_pass(void **state)
{
    (void)state;
    static const uint64_t seeds[] = {3, 42, 53, 110, 269, 305, 391, 1046};
    for (int op = 0; op < qkv_op_count(); op++)
        for (int i = 0; i < 8; i++) assert_ok(qkv_gradcheck_op(op, seeds[i], NULL));
}

/* ---- Multi-head attention with every bias: that of the keys shifts all scores of a query by the
 * same, so its gradient is 0 but for rounding. ------------------------------------------------- */

enum { PARAMETERS = 9, TOKENS = 5, WIDTH = 4, KEY_BIAS = 6 };

typedef struct block {
    qkv_tape *tape;
    double x[PARAMETERS][TOKENS * WIDTH], gradient[PARAMETERS][TOKENS * WIDTH];
} block;

static size_t size_of_parameter(int i)
{
    return i == 0 ? TOKENS * WIDTH : i < 5 ? WIDTH * WIDTH : WIDTH;
}

static qkv_var record_block(block *b)
{
    qkv_var p[PARAMETERS];
    qkv_tape_reset(b->tape);
    for (int i = 0; i < PARAMETERS; i++)
        p[i] = qkv_leaf_f64(b->tape,
                            i == 0  ? qkv_shape2(TOKENS, WIDTH)
                            : i < 5 ? qkv_shape2(WIDTH, WIDTH)
                                    : qkv_shape1(WIDTH),
                            b->x[i], b->gradient[i]);
    const qkv_multi_head_vars in = {.x_q = p[0],
                                    .w_q = p[1],
                                    .w_k = p[2],
                                    .w_v = p[3],
                                    .w_o = p[4],
                                    .b_q = p[5],
                                    .b_k = p[6],
                                    .b_v = p[7],
                                    .b_o = p[8]};
    const qkv_attention a = {.heads = 2, .kv_heads = 2};
    qkv_var y = qkv_multi_head_attention(b->tape, &a, &in);
    return qkv_sum(b->tape, qkv_mul(b->tape, y, y), NULL, 0, false);
}

static qkv_status block_value(void *context, double *value)
{
    block *b = context;
    *value = qkv_item(b->tape, record_block(b));
    return qkv_tape_status(b->tape);
}

static void a_bias_of_keys_is_declared_zero_to_rounding(void **state)
{
    (void)state;
    block b = {0};
    qkv_check_input in[PARAMETERS];
    assert_ok(qkv_tape_new(&b.tape, QKV_F64));
    for (int i = 0; i < PARAMETERS; i++) {
        fill_normal(b.x[i], size_of_parameter(i), (uint64_t)i);
        in[i] =
            (qkv_check_input){.x = b.x[i], .gradient = b.gradient[i], .n = size_of_parameter(i)};
    }
    assert_ok(qkv_backward(b.tape, record_block(&b)));
    for (int directions = 0; directions <= 8; directions += 8) {
        const qkv_check_options options = {.directions = directions};
        qkv_check_report report;
        in[KEY_BIAS].zero = QKV_ZERO_UNDECLARED;
        assert_status(qkv_gradcheck(block_value, &b, in, PARAMETERS, &options, &report),
                      QKV_E_GRADIENT);
        assert_true(report.vacuous && !report.failed && !report.inconclusive);
        assert_string_equal(report.worst_input, "x6");
        in[KEY_BIAS].zero = QKV_ZERO_ROUNDED;
        assert_ok(qkv_gradcheck(block_value, &b, in, PARAMETERS, &options, NULL));
        b.gradient[KEY_BIAS][1] += 1e-8;
        assert_status(qkv_gradcheck(block_value, &b, in, PARAMETERS, &options, NULL),
                      QKV_E_GRADIENT);
        b.gradient[KEY_BIAS][1] -= 1e-8;
    }
    qkv_tape_free(b.tape);
}

static void operations_have_names_of_their_own(void **state)
{
    (void)state;
    assert_true(qkv_op_count() >= 25);
    for (int i = 0; i < qkv_op_count(); i++)
        for (int j = 0; j < i; j++) assert_string_not_equal(qkv_op_name(i), qkv_op_name(j));
    assert_null(qkv_op_name(-1));
    assert_null(qkv_op_name(qkv_op_count()));
}

static void check_of_no_operation_is_an_error(void **state)
{
    (void)state;
    qkv_check_report report;
    assert_status(qkv_gradcheck_op(-1, 1, &report), QKV_E_ARG);
    assert_status(qkv_gradcheck_op(qkv_op_count(), 1, NULL), QKV_E_ARG);
    assert_false(report.passed);
}

static qkv_var above_one(qkv_tape *tape, qkv_var x)
{
    return qkv_relu(tape, qkv_sub(tape, x, qkv_constant(tape, 1)));
}

static qkv_var highest(qkv_tape *tape, qkv_var x)
{
    return qkv_max(tape, x, NULL, 0, false);
}

static qkv_var negative(qkv_tape *tape, qkv_var x)
{
    return qkv_neg(tape, x);
}

/* What decides is who wins, not by how much; which input it is that the operation has. */
static void operations_with_corners_tell_which_side_was_taken(void **state)
{
    (void)state;
    static qkv_var (*const of[])(qkv_tape *, qkv_var) = {above_one, highest};
    for (int i = 0; i < 2; i++) {
        const qkv_op_case test = {.unary = of[i], .n_input = 1, .input = {{1, {5}}}};
        double kept, value;
        qkv_trial c;
        assert_ok(qkv_trial_begin(&c, &test, 1, 1));
        for (int k = 0; k < 5; k++) c.x[0][k] = 1.5 + k;
        assert_ok(qkv_trial_value(&c, &value));
        uint64_t before = qkv_trial_branches(&c);
        for (int k = 0; k < 5; k++) {
            kept = c.x[0][k];
            c.x[0][k] = k < 4 && i == 1 ? 100 : 0.75;
            assert_ok(qkv_trial_value(&c, &value));
            assert_true(qkv_trial_branches(&c) != before);
            c.x[0][k] = kept + 0.25;
            assert_ok(qkv_trial_value(&c, &value));
            assert_true(qkv_trial_branches(&c) == before);
            c.x[0][k] = kept;
        }
        qkv_trial_end(&c);
    }
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One number in the middle half of each of n equal pieces of the domain, in no order. */
static void inputs_are_spread_over_their_domain(void **state)
{
    (void)state;
    enum { N = 40 };
    qkv_op_case test = {.unary = negative, .n_input = 1, .input = {{1, {N}}}};
    for (int domain = 0; domain < 2; domain++) {
        double factor = 3, lower = domain ? 1 : -factor, upper = domain ? 5 : factor, x[2][N];
        if (domain) test.lower = lower, test.upper = upper;
        for (int seed = 0; seed < 2; seed++) {
            qkv_trial c;
            assert_ok(qkv_trial_begin(&c, &test, (uint64_t)seed, factor));
            int falls = 0;
            for (int i = 0; i < N; i++) {
                assert_close(c.x_f32[0][i], c.x[0][i], 0);
                falls += i && c.x[0][i] < c.x[0][i - 1];
            }
            assert_in_range(falls, N / 4, N - N / 4);
            memcpy(x[seed], c.x[0], sizeof x[seed]);
            qkv_trial_end(&c);
            qsort(x[seed], N, sizeof(double), by_size);
            for (int i = 0; i < N; i++) {
                double piece = (upper - lower) / N, middle = lower + piece * (i + 0.5);
                assert_close(x[seed][i], middle, piece / 4 + 1e-6);
            }
        }
        assert_memory_not_equal(x[0], x[1], sizeof x[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_passes_its_gradient_check),
        cmocka_unit_test(a_report_is_that_of_all_cases),
        cmocka_unit_test(seeds_that_once_raised_an_alarm_pass),
        cmocka_unit_test(a_bias_of_keys_is_declared_zero_to_rounding),
        cmocka_unit_test(operations_have_names_of_their_own),
        cmocka_unit_test(operations_with_corners_tell_which_side_was_taken),
        cmocka_unit_test(inputs_are_spread_over_their_domain),
        cmocka_unit_test(check_of_no_operation_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
