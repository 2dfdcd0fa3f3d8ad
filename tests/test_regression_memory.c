/* test_regression_memory.c - a failing allocation, at any place, is reported and leaves nothing. */
#include "allocations.h"
#include "process.h"
#include "qkv/regression.h"
#include "support.h"

enum { N = 12, N_Q = 3 };
static double x[2 * N], y[2 * N], weight[N], q[2 * N_Q];
static double bandwidth[2] = {0.8, 1.2}, sigma2[2] = {1, 2};
static qkv_regression r = {
    .x = x, .y = y, .weight = weight, .n = N, .d_x = 2, .d_y = 2, .bandwidths = 2};

static int fill(void **state)
{
    (void)state;
    fill_normal(x, 2 * N, 1);
    fill_normal(y, 2 * N, 2);
    fill_normal(q, 2 * (size_t)N_Q, 3);
    for (int i = 0; i < N; i++) weight[i] = uniform(4, (uint64_t)i, 0.5, 2);
    return 0;
}

/* call with its first, second, .. allocation and all that follow failing, until none does. */
static void assert_failures_are_reported(qkv_status (*call)(void), long least)
{
    const long before = live;
    for (long n = 0;; n++) {
        set_failing(n);
        qkv_status status = call();
        set_failing(-1);
        assert_int_equal(live, before);
        if (status == QKV_OK) {
            assert_in_range(n, least, 1000);
            return;
        }
        assert_status(status, QKV_E_NOMEM);
        assert_message("no memory");
    }
}

static qkv_status predict(void)
{
    double mean[2 * N_Q], gradient[4 * N_Q], norm[N_Q];
    return qkv_regression_predict(
        &r, bandwidth, q, N_Q,
        &(qkv_regression_results){.mean = mean, .gradient = gradient, .norm = norm});
}

static qkv_status criterion(void)
{
    double value, gradient[2];
    return qkv_regression_objective(&r, QKV_REGRESSION_AICC, bandwidth, &value, NULL, gradient);
}

static qkv_status measure(void)
{
    qkv_regression_statistics statistics;
    return qkv_regression_measure(&r, bandwidth, &statistics, NULL);
}

static qkv_status silverman(void)
{
    double h[2];
    return qkv_regression_silverman(&r, h);
}

static void predictions_and_measures(void **state)
{
    (void)state;
    for (int degree = 1; degree >= 0; degree--) {
        r.degree = degree;
        assert_failures_are_reported(predict, 4);
        assert_failures_are_reported(criterion, 4);
        assert_failures_are_reported(measure, 4);
        assert_failures_are_reported(silverman, 1);
    }
}

static qkv_status bootstrap(void)
{
    const qkv_regression_bootstrap_options o = {.samples = 3};
    double lower[2 * N_Q], upper[2 * N_Q];
    lower[0] = upper[0] = 7;
    qkv_status status = qkv_regression_bootstrap(&r, bandwidth, q, N_Q, &o, lower, upper);
    assert_true((lower[0] == 7 && upper[0] == 7) == (status != QKV_OK));
    return status;
}

static void bands(void **state)
{
    (void)state;
    assert_failures_are_reported(bootstrap, 20);
}

static const char *path; /* of scratch, which allocates, too */

static qkv_status load(void)
{
    qkv_regression_model m;
    qkv_status status = qkv_regression_load(path, &m);
    assert_true((m.r.x == NULL) == (status != QKV_OK));
    if (status != QKV_OK) assert_true(!m.r.y && !m.bandwidth && !m.x_names && m.r.n == 0);
    qkv_regression_model_free(&m);
    return status;
}

static void models_from_files(void **state)
{
    (void)state;
    char *names[] = {"one", "two"};
    const qkv_regression_model m = {
        .r = r, .bandwidth = bandwidth, .sigma2 = sigma2, .x_names = names, .y_names = names};
    path = scratch("model.qkv");
    assert_ok(qkv_regression_save(path, &m));
    assert_failures_are_reported(load,
                                 12); /* the text, six arrays of numbers and names, each name */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(predictions_and_measures),
        cmocka_unit_test(bands),
        cmocka_unit_test(models_from_files),
    };
    qkv_set_num_threads(1);
    return cmocka_run_group_tests(tests, fill, NULL);
}
