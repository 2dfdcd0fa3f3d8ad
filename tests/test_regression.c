/* test_regression.c - predictions and their gradients, of all kernels: against the chapter, the
 * weights, and limits known by hand. */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkv/gradcheck.h"
#include "regression_data.h"

/* ---- The chapter -------------------------------------------------------------------------- */

static void check_chapter(const qkv_regression *train, const char *name,
                          qkv_regression_kernel kernel, double bandwidth)
{
    size_t n_q, n = (size_t)train->n;
    double *x = load_column(REFERENCE "d2l/pred.csv", "x", &n_q);
    double *expected = load_column(REFERENCE "d2l/pred.csv", name, NULL);
    char path[512];
    snprintf(path, sizeof path, REFERENCE "d2l/weights_%s.csv", name);
    qkv_table alpha = load(path, NULL, 0);
    assert_int_equal(alpha.rows, n_q);
    assert_int_equal(alpha.columns, n);

    double *mean = calloc(n_q, sizeof *mean), *weights = calloc(n_q * n, sizeof *weights);
    assert_true(mean && weights);
    qkv_regression r = *train;
    r.kernel = kernel;
    assert_ok(predict(&r, &bandwidth, x, (ptrdiff_t)n_q, mean, weights));
    for (size_t i = 0; i < n_q; i++) assert_relative(mean[i], expected[i], 1e-10);
    for (size_t i = 0; i < n_q * n; i++) assert_close(weights[i], alpha.data[i], 1e-12);

    assert_ok(predict(&r, &bandwidth, x, (ptrdiff_t)n_q, weights, NULL));
    assert_memory_equal(weights, mean, n_q * sizeof *mean);
    free(x);
    free(expected);
    free(mean);
    free(weights);
    qkv_csv_free(&alpha);
}

static void the_chapters_predictions_and_weights_are_reproduced(void **state)
{
    (void)state;
    qkv_regression train = load_data(REFERENCE "d2l/train.csv", "x", "y");
    check_chapter(&train, "gaussian", QKV_REGRESSION_GAUSSIAN, 1);
    check_chapter(&train, "boxcar", QKV_REGRESSION_BOXCAR, 1);
    check_chapter(&train, "constant", QKV_REGRESSION_CONSTANT, 1);
    check_chapter(&train, "epanechikov", QKV_REGRESSION_TRIANGULAR, 1);
    check_chapter(&train, "sigma0.1", QKV_REGRESSION_GAUSSIAN, 0.1);
    check_chapter(&train, "sigma0.2", QKV_REGRESSION_GAUSSIAN, 0.2);
    check_chapter(&train, "sigma0.5", QKV_REGRESSION_GAUSSIAN, 0.5);
    check_chapter(&train, "sigma1", QKV_REGRESSION_GAUSSIAN, 1);
    free_data(&train);
}

/* ---- Leave-one-out ------------------------------------------------------------------------ */

static void cross_validation_and_its_gradient_match_the_reference(void **state)
{
    (void)state;
    qkv_regression data[] = {cars(), faithful()};
    const char *columns[] = {"n", "h1", "cv", "dcv_dlogh1"};
    qkv_table t = load(REFERENCE "ref/loo_cv.csv", columns, 4);
    assert_int_equal(t.rows, 10);
    for (size_t i = 0; i < t.rows; i++) {
        const double *row = t.data + i * t.columns;
        const qkv_regression *r = &data[row[0] == 50 ? 0 : 1];
        assert_int_equal(r->n, (ptrdiff_t)row[0]);
        double cv, same, gradient;
        ptrdiff_t undefined = -1;
        assert_ok(cv_of(r, &row[1], &cv, &undefined, NULL));
        assert_relative(cv, row[2], 1e-10);
        assert_int_equal(undefined, 0);
        assert_ok(cv_of(r, &row[1], &same, NULL, &gradient));
        assert_true(same == cv);
        assert_close(gradient, row[3], 1e-10 * (fabs(row[3]) + cv));
    }
    qkv_csv_free(&t);
    free_data(&data[0]);
    free_data(&data[1]);
}

static void rows_without_a_neighbour_are_undefined_and_counted(void **state)
{
    (void)state;
    qkv_regression data[] = {cars(), faithful()};
    const char *columns[] = {"h_support", "cv_defined", "n_undefined"};
    qkv_table t = load(REFERENCE "ref/loo_cv_epan.csv", columns, 3);
    assert_int_equal(t.rows, 10);
    for (size_t i = 0; i < t.rows; i++) {
        const double *row = t.data + i * t.columns;
        qkv_regression *r = &data[i / 5];
        r->kernel = QKV_REGRESSION_EPANECHNIKOV;
        double cv, gradient, above, below, up = row[0] * exp(1e-6), down = row[0] * exp(-1e-6);
        ptrdiff_t undefined;
        assert_ok(cv_of(r, row, &cv, &undefined, &gradient));
        assert_relative(cv, row[1], 1e-10);
        assert_int_equal(undefined, (ptrdiff_t)row[2]);
        assert_ok(cv_of(r, &up, &above, NULL, NULL));
        assert_ok(cv_of(r, &down, &below, NULL, NULL));
        assert_close(gradient, (above - below) / 2e-6, 1e-6 * cv);
    }

    const ptrdiff_t alone[] = {5, 6, 44, 45, 50}; /* rows of cars at the first h, from 1 */
    double mean[50];
    size_t found = 0;
    assert_ok(leave_one_out(&data[0], t.data, mean));
    for (ptrdiff_t i = 0; i < 50; i++)
        if (isnan(mean[i])) assert_int_equal(i + 1, alone[found++]);
    assert_int_equal(found, 5);
    qkv_csv_free(&t);
    free_data(&data[0]);
    free_data(&data[1]);
}

static void leaving_a_row_out_is_the_regression_without_it(void **state)
{
    (void)state;
    enum { N = 17, P = 2, D = 3 };
    double x[N * P], y[N * D], mean[N * D], one[D], h[P] = {0.4, 0.9};
    fill_normal(x, N * P, 1);
    fill_normal(y, N * D, 2);
    qkv_regression r = {.x = x, .y = y, .n = N, .d_x = P, .d_y = D, .bandwidths = P};
    assert_ok(leave_one_out(&r, h, mean));
    for (ptrdiff_t i = 0; i < N; i++) {
        double rest_x[N * P], rest_y[N * D];
        memcpy(rest_x, x, sizeof x);
        memcpy(rest_y, y, sizeof y);
        memmove(rest_x + i * P, x + (i + 1) * P, (size_t)(N - 1 - i) * P * sizeof *x);
        memmove(rest_y + i * D, y + (i + 1) * D, (size_t)(N - 1 - i) * D * sizeof *y);
        qkv_regression rest = r;
        rest.x = rest_x;
        rest.y = rest_y;
        rest.n = N - 1;
        assert_ok(predict(&rest, h, x + i * P, 1, one, NULL));
        for (int c = 0; c < D; c++) assert_close(one[c], mean[i * D + c], 1e-13);
    }
}

/* ---- The gradient ------------------------------------------------------------------------- */

static void kernels_without_slope_have_gradient_zero(void **state)
{
    (void)state;
    qkv_regression r = cars();
    double h = 4, cv, gradient = 1;
    r.kernel = QKV_REGRESSION_BOXCAR;
    assert_ok(cv_of(&r, &h, &cv, NULL, &gradient));
    assert_true(gradient == 0);
    r.kernel = QKV_REGRESSION_CONSTANT;
    gradient = 1;
    assert_ok(cv_of(&r, &h, &cv, NULL, &gradient));
    assert_true(gradient == 0);
    free_data(&r);
}

/* ---- Extremes ------------------------------------------------------------------------------ */

static void extremes_have_the_true_limit(void **state)
{
    (void)state;
    double x[] = {1e9, 1e9 + 1, 1e9 + 3}, y[] = {1, 2, 4}, q[] = {1e9 + 1.5, 1e9 + 2, -1e300}, m[3],
           gradient[3];
    static const double bandwidths[] = {1e-300, 1e-160, 1e-9};
    for (int k = 0; k < QKV_REGRESSION_CONSTANT; k++)
        for (int i = 0; i < 3; i++) {
            qkv_regression r = {.x = x,
                                .y = y,
                                .n = 3,
                                .kernel = (qkv_regression_kernel)k,
                                .empty = QKV_EMPTY_NEAREST};
            qkv_regression_results out = {.mean = m, .gradient = gradient};
            if (k == QKV_REGRESSION_CAUCHY) continue; /* has a tail: below */
            assert_ok(qkv_regression_predict(&r, &bandwidths[i], q, 2, &out));
            assert_true(m[0] == 2 && m[1] == 3);
            assert_true(gradient[0] == 0);
            double h = 1e160;
            r.empty = QKV_EMPTY_NAN;
            assert_ok(qkv_regression_predict(&r, &h, q, 2, &out));
            assert_close(m[0], 7.0 / 3, 1e-15 * 3);
            assert_true(fabs(gradient[0]) < 1e-100);
        }
    qkv_regression r = {.x = x, .y = y, .n = 3, .kernel = QKV_REGRESSION_CAUCHY};
    double tiny = 1e-160; /* weights 1 / distance^2 */
    assert_ok(predict(&r, &tiny, q, 1, m, NULL));
    double expected = (1 / 2.25 + 2 / 0.25 + 4 / 2.25) / (2 / 2.25 + 1 / 0.25);
    assert_relative(m[0], expected, 1e-14);
    r.kernel = QKV_REGRESSION_GAUSSIAN;
    tiny = 1;
    assert_ok(predict(&r, &tiny, q + 2, 1, m, NULL));
    assert_true(m[0] == 1);
}

/* x and h in other units: the same fit, to the last bits. */
static void units_do_not_matter(void **state)
{
    (void)state;
    static const double units[] = {1e-300, 1e-200, 1e-160, 1e154, 1e160, 1e300};
    double x[] = {1, 2, 3, 5, 2.5}, y[] = {1, 4, 2, 5, 3}, h = 0.83, q[] = {2.2, 9}, xs[5], qs[2];
    for (int k = 0; k < 2 * QKV_REGRESSION_CONSTANT; k++)
        for (int u = 0; u < 6; u++) {
            double unit = units[u], h_unit = h * unit, m[4], g[4], se[4], effective[4];
            for (int i = 0; i < 5; i++) xs[i] = x[i] * unit;
            for (int i = 0; i < 2; i++) qs[i] = q[i] * unit;
            qkv_regression r = {.x = x,
                                .y = y,
                                .n = 5,
                                .kernel = (qkv_regression_kernel)(k / 2),
                                .degree = k % 2,
                                .empty = QKV_EMPTY_NEAREST};
            qkv_regression_results out = {
                .mean = m, .gradient = g, .gradient_norm = se, .n_effective = effective};
            qkv_regression_statistics here, there;
            double reference, other;
            assert_ok(qkv_regression_predict(&r, &h, q, 2, &out));
            assert_ok(qkv_regression_measure(&r, &h, &here, NULL));
            assert_ok(qkv_regression_silverman(&r, &reference));
            r.x = xs;
            out = (qkv_regression_results){.mean = m + 2,
                                           .gradient = g + 2,
                                           .gradient_norm = se + 2,
                                           .n_effective = effective + 2};
            assert_ok(qkv_regression_predict(&r, &h_unit, qs, 2, &out));
            assert_ok(qkv_regression_measure(&r, &h_unit, &there, NULL));
            assert_ok(qkv_regression_silverman(&r, &other));
            assert_relative(there.trace, here.trace, 1e-12);
            assert_relative(there.cv, here.cv, 1e-12);
            assert_relative(other / unit, reference, 1e-12);
            for (int i = 0; i < 2; i++) {
                assert_relative(m[2 + i], m[i], 1e-12);
                assert_relative(effective[2 + i], effective[i], 1e-12);
                assert_close(g[2 + i] * unit, g[i], 1e-11 * (1 + fabs(g[i])));
                assert_close(se[2 + i] * unit, se[i], 1e-11 * (1 + fabs(se[i])));
            }
        }
}

/* Rows beyond a narrow kernel's reach are not visited, and it makes no difference. */
static void a_window_gives_what_all_rows_give(void **state)
{
    (void)state;
    enum { N = 3000 };
    double *x = calloc(N, sizeof *x), *y = calloc(N, sizeof *y), h = 0.02;
    for (int i = 0; i < N; i++) {
        x[i] = uniform(3, (uint64_t)i, 0, 10);
        y[i] = uniform(4, (uint64_t)i, -1, 1);
    }
    qkv_regression r = {.x = x, .y = y, .n = N};
    for (int i = 0; i < 50; i++) {
        double q = uniform(5, (uint64_t)i, -1, 11), m, near = INFINITY, top = 0, bottom = 0;
        for (int j = 0; j < N; j++) near = fmin(near, fabs(q - x[j]));
        for (int j = 0; j < N; j++) {
            double w = exp(-(q - x[j] - near) * (q - x[j] + near) / (2 * h * h));
            top += w * y[j];
            bottom += w;
        }
        assert_ok(predict(&r, &h, &q, 1, &m, NULL));
        assert_close(m, top / bottom, 1e-12);
    }
    free(x);
    free(y);
}

/* Of rows in pairs of twins, every second stands for all. */
static void some_rows_stand_for_all(void **state)
{
    (void)state;
    enum { N = 300 };
    double x[2 * N], y[2 * N], weight[2 * N], h = 0.1, all, some, gradient, same;
    for (int i = 0; i < N; i++) {
        x[2 * i] = x[2 * i + 1] = uniform(3, (uint64_t)i, 0, 5);
        y[2 * i] = y[2 * i + 1] = uniform(4, (uint64_t)i, -1, 1);
        weight[2 * i] = weight[2 * i + 1] = uniform(5, (uint64_t)i, 1, 2);
    }
    qkv_regression r = {.x = x, .y = y, .weight = weight, .n = 2 * N}, fewer = r;
    fewer.rows = N;
    for (int c = QKV_REGRESSION_LOO; c <= QKV_REGRESSION_GCV; c++) {
        qkv_regression_criterion criterion = (qkv_regression_criterion)c;
        assert_ok(qkv_regression_objective(&r, criterion, &h, &all, NULL, &gradient));
        assert_ok(qkv_regression_objective(&fewer, criterion, &h, &some, NULL, &same));
        assert_relative(some, all, 1e-12);
        assert_relative(same, gradient, 1e-11);
    }
    qkv_regression_statistics a, b;
    double sigma2[2];
    assert_ok(qkv_regression_measure(&r, &h, &a, &sigma2[0]));
    assert_ok(qkv_regression_measure(&fewer, &h, &b, &sigma2[1]));
    assert_relative(b.trace, a.trace, 1e-12);
    assert_relative(b.sigma2, a.sigma2, 1e-12);
    assert_relative(b.r_squared_loo, a.r_squared_loo, 1e-12);
    assert_relative(sigma2[1], sigma2[0], 1e-12);
    fewer.rows = 7; /* 600 rows, one in 86 */
    assert_ok(qkv_regression_objective(&fewer, QKV_REGRESSION_LOO, &h, &some, NULL, NULL));
    assert_true(some > 0.1 * all && some < 10 * all && some != all);
    fewer.rows = -1;
    assert_status(qkv_regression_measure(&fewer, &h, &b, NULL), QKV_E_SHAPE);
}

/* ---- Empty supports, errors ----------------------------------------------------------- */

static void an_empty_support_follows_the_policy(void **state)
{
    (void)state;
    double x[] = {0, 1, 1, 5}, y[] = {1, 2, 4, 8}, q[] = {0.5, 3}, h = 1, mean[2];
    qkv_regression r = {.x = x, .y = y, .n = 4, .kernel = QKV_REGRESSION_BOXCAR};
    assert_ok(predict(&r, &h, q, 2, mean, NULL));
    assert_close(mean[0], 7.0 / 3, 1e-15);
    assert_true(isnan(mean[1]));
    for (r.degree = 0; r.degree < 2; r.degree++) { /* no number has an error of 0 */
        double norm[2], gradient_norm[2], n[2];
        qkv_regression_results out = {
            .norm = norm, .gradient_norm = gradient_norm, .n_effective = n};
        assert_ok(qkv_regression_predict(&r, &h, q, 2, &out));
        assert_true(isnan(norm[1]) && isnan(gradient_norm[1]) && isnan(n[1]));
    }
    r.degree = 0;
    r.empty = QKV_EMPTY_NEAREST;
    assert_ok(predict(&r, &h, q, 2, mean, NULL));
    assert_close(mean[1], 14.0 / 3, 1e-14); /* 1, 1 and 5 are equally near */
    r.empty = QKV_EMPTY_ERROR;
    assert_status(predict(&r, &h, q, 2, mean, NULL), QKV_E_DOMAIN);
}

static void what_cannot_be_is_an_error(void **state)
{
    (void)state;
    double x[] = {0, 1, 2, 4}, y[] = {1, 2, 4, 8}, h = 1, bad = 0, out[16],
           infinite[] = {1, INFINITY, 2, 3};
    const qkv_regression r = {.x = x, .y = y, .n = 4};
    qkv_regression wrong = r;
    assert_status(predict(NULL, &h, x, 1, out, NULL), QKV_E_ARG);
    assert_status(predict(&r, NULL, x, 1, out, NULL), QKV_E_ARG);
    assert_status(qkv_regression_predict(&r, &h, x, 1, NULL), QKV_E_ARG);
    assert_status(predict(&r, &h, x, -1, out, NULL), QKV_E_SHAPE);
    assert_ok(predict(&r, &h, x, 0, NULL, NULL));
    assert_status(cv_of(&r, &bad, out, NULL, NULL), QKV_E_ARG);
    assert_message("bandwidth[0] is 0");
    bad = NAN;
    assert_status(leave_one_out(&r, &bad, out), QKV_E_ARG);
    bad = INFINITY;
    assert_status(predict(&r, &bad, x, 1, out, NULL), QKV_E_ARG);
    wrong.n = 0;
    assert_status(predict(&wrong, &h, x, 1, out, NULL), QKV_E_SHAPE);
    wrong = r;
    wrong.bandwidths = 2;
    assert_status(cv_of(&wrong, &h, out, NULL, NULL), QKV_E_SHAPE);
    wrong = r;
    wrong.n = 1;
    assert_status(cv_of(&wrong, &h, out, NULL, NULL), QKV_E_SHAPE);
    assert_message("leave one out");
    wrong = r;
    wrong.y = NULL;
    assert_status(qkv_regression_silverman(&wrong, out), QKV_E_ARG);
    wrong = r;
    wrong.kernel = (qkv_regression_kernel)77;
    assert_status(predict(&wrong, &h, x, 1, out, NULL), QKV_E_ARG);
    wrong = r;
    wrong.d_y = PTRDIFF_MAX / 2;
    assert_status(cv_of(&wrong, &h, out, NULL, NULL), QKV_E_OVERFLOW);

    wrong = r;
    wrong.y = infinite;
    out[0] = 42;
    assert_status(qkv_regression_fit(&wrong, NULL, out, NULL), QKV_E_ARG);
    assert_message("y[1, 0] is inf");
    wrong = r;
    wrong.weight = infinite;
    assert_status(qkv_regression_fit(&wrong, NULL, out, NULL), QKV_E_ARG);
    assert_message("weight[1] is inf");
    wrong = r;
    wrong.degree = 2;
    assert_status(qkv_regression_fit(&wrong, NULL, out, NULL), QKV_E_SHAPE);
    assert_message("degree is 2");
    qkv_regression_fit_options options = {.start = &bad};
    assert_status(qkv_regression_fit(&r, &options, out, NULL), QKV_E_ARG);
    options = (qkv_regression_fit_options){.rate = -1};
    assert_status(qkv_regression_fit(&r, &options, out, NULL), QKV_E_ARG);
    assert_true(out[0] == 42);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_chapters_predictions_and_weights_are_reproduced),
        cmocka_unit_test(cross_validation_and_its_gradient_match_the_reference),
        cmocka_unit_test(rows_without_a_neighbour_are_undefined_and_counted),
        cmocka_unit_test(leaving_a_row_out_is_the_regression_without_it),
        cmocka_unit_test(kernels_without_slope_have_gradient_zero),
        cmocka_unit_test(extremes_have_the_true_limit),
        cmocka_unit_test(units_do_not_matter),
        cmocka_unit_test(a_window_gives_what_all_rows_give),
        cmocka_unit_test(some_rows_stand_for_all),
        cmocka_unit_test(an_empty_support_follows_the_policy),
        cmocka_unit_test(what_cannot_be_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
