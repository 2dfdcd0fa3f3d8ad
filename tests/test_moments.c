/* test_moments.c - variance and covariance of the values on the tape: the stateless covariance with
 * k = v, by hand, and with an offset. Their gradients are in the registry's cases. Built for each
 * dtype. */
#include <math.h>
#include <string.h>

#include "qkv/attention.h"
#include "qkv/tape.h"
#include "src/real.h"
#include "support.h"

enum { N_Q = 5, N_K = 9, D = 3 };

static void fill(real *x, size_t n, uint64_t seed)
{
    double y[64];
    fill_normal(y, n, seed);
    for (size_t i = 0; i < n; i++) x[i] = (real)y[i];
}

/* variance [N_Q, D] and covariance [N_Q, D, D] of values that are the keys plus an offset. */
static void moments(qkv_normalize normalize, double offset, double variance[N_Q * D],
                    double covariance[N_Q * D * D])
{
    real q[N_Q * D], k[N_K * D], v[N_K * D];
    fill(q, N_Q * D, 1);
    fill(k, N_K * D, 2);
    for (int i = 0; i < N_K * D; i++) v[i] = k[i] + (real)offset;
    qkv_tape *t;
    assert_ok(qkv_tape_new(&t, REAL_DTYPE));
    const qkv_attend_vars in = {.q = FN(qkv_leaf)(t, qkv_shape2(N_Q, D), q, NULL),
                                .k = FN(qkv_leaf)(t, qkv_shape2(N_K, D), k, NULL),
                                .v = FN(qkv_leaf)(t, qkv_shape2(N_K, D), v, NULL)};
    const qkv_attention a = {.score = QKV_SCORE_DOT, .normalize = normalize};
    const real *x = FN(qkv_value)(t, qkv_attend_variance(t, &a, &in));
    assert_non_null(x);
    for (int i = 0; i < N_Q * D; i++) variance[i] = (double)x[i];
    qkv_var c = qkv_attend_covariance(t, &a, &in);
    assert_int_equal(qkv_shape_of(t, c).rank, 3);
    x = FN(qkv_value)(t, c);
    assert_non_null(x);
    for (int i = 0; i < N_Q * D * D; i++) covariance[i] = (double)x[i];
    qkv_tape_free(t);
}

static void they_are_the_stateless_covariance_of_keys_that_are_values(void **state)
{
    (void)state;
    for (qkv_normalize n = QKV_SOFTMAX; n <= QKV_ENTMAX_15; n++) {
        if (n == QKV_KERNEL_SUM || n == QKV_TOP_K || n == QKV_TOP_K_UNIFORM) continue;
        real q[N_Q * D], k[N_K * D], expected[N_Q * D * D], workspace[1 << 14];
        double variance[N_Q * D], covariance[N_Q * D * D];
        fill(q, N_Q * D, 1);
        fill(k, N_K * D, 2);
        const qkv_attention a = {.batch = 1,
                                 .heads = 1,
                                 .n_q = N_Q,
                                 .n_k = N_K,
                                 .d_k = D,
                                 .d_v = D,
                                 .score = QKV_SCORE_DOT,
                                 .normalize = n};
        const FN(qkv_operands) in = {.q.data = q, .k.data = k, .v.data = k};
        const FN(qkv_slot) to = {.data = expected};
        assert_ok(FN(qkv_attention_covariance)(&a, &in, &to, workspace, sizeof workspace));
        moments(n, 0, variance, covariance);
        for (int i = 0; i < N_Q * D * D; i++)
            assert_close(covariance[i], (double)expected[i], 64 * REAL_EPSILON);
        for (int i = 0; i < N_Q * D; i++)
            assert_close(variance[i], (double)expected[i / D * D * D + i % D * (D + 1)],
                         64 * REAL_EPSILON);
    }
}

static void a_common_offset_costs_no_digits_but_its_own(void **state)
{
    (void)state;
    double a[N_Q * D], b[N_Q * D], unused[N_Q * D * D];
    moments(QKV_SOFTMAX, 0, a, unused);
    moments(QKV_SOFTMAX, 1024, b, unused);
    for (int i = 0; i < N_Q * D; i++) assert_close(b[i], a[i], 8 * 1024 * REAL_EPSILON);
}

static void what_is_no_distribution_is_refused(void **state)
{
    (void)state;
    static const real x[4] = {1, 2, 3, 4};
    for (int i = 0; i < 3; i++) {
        qkv_tape *t;
        assert_ok(qkv_tape_new(&t, REAL_DTYPE));
        qkv_var v = FN(qkv_leaf)(t, qkv_shape2(2, 2), x, NULL);
        qkv_attention a = {.normalize = i == 0 ? QKV_NONE_EXP : QKV_SOFTMAX, .dropout = i == 1};
        qkv_attend_vars in = {.q = v, .k = v, .v = v};
        if (i == 2) in.sink = qkv_constant(t, 0);
        qkv_attend_covariance(t, &a, &in);
        assert_status(qkv_tape_status(t), QKV_E_ARG);
        assert_non_null(strstr(qkv_tape_error(t), "moments do not go with weights"));
        qkv_tape_free(t);
    }
}

static void values_that_are_no_rows_are_refused_as_by_attention(void **state)
{
    (void)state;
    static const real x[4] = {1, 2, 3, 4};
    for (int i = 0; i < 2; i++) {
        qkv_tape *t;
        assert_ok(qkv_tape_new(&t, REAL_DTYPE));
        qkv_var rows = FN(qkv_leaf)(t, qkv_shape2(2, 2), x, NULL);
        qkv_attend_vars in = {.q = rows, .k = rows, .v = FN(qkv_leaf)(t, qkv_shape1(2), x, NULL)};
        (i ? qkv_attend_covariance : qkv_attend_variance)(t, &(qkv_attention){0}, &in);
        assert_status(qkv_tape_status(t), QKV_E_SHAPE);
        assert_non_null(strstr(qkv_tape_error(t), "v has rank 1, expected 2 to 4"));
        qkv_tape_free(t);
    }
}

static void without_keys_they_are_0_and_no_nan_is_made(void **state)
{
    (void)state;
    real x[4] = {1, 2, 3, 4}, dx[4] = {0};
    qkv_tape *t;
    assert_ok(qkv_tape_new(&t, REAL_DTYPE));
    qkv_tape_debug(t, true);
    qkv_var none = FN(qkv_leaf)(t, qkv_shape2(0, 2), x, NULL);
    qkv_attend_vars in = {.q = FN(qkv_leaf)(t, qkv_shape2(2, 2), x, dx), .k = none, .v = none};
    qkv_var y = qkv_attend_variance(t, &(qkv_attention){0}, &in);
    assert_ok(qkv_backward(t, qkv_sum(t, y, NULL, 0, false)));
    for (int i = 0; i < 4; i++) assert_close(FN(qkv_value)(t, y)[i], 0, 0);
    for (int i = 0; i < 4; i++) assert_close(dx[i], 0, 0);
    qkv_tape_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_are_the_stateless_covariance_of_keys_that_are_values),
        cmocka_unit_test(a_common_offset_costs_no_digits_but_its_own),
        cmocka_unit_test(what_is_no_distribution_is_refused),
        cmocka_unit_test(without_keys_they_are_0_and_no_nan_is_made),
        cmocka_unit_test(values_that_are_no_rows_are_refused_as_by_attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
