/* test_regression_fit.c - how a bandwidth is found: descents, searches, rules, minima. */
#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "regression_data.h"

enum { ROWS = 60 };

static void silvermans_rule_is_its_formula(void **state)
{
    (void)state;
    double x[] = {10, 1, 3, 4, 2}, y[5] = {0}, h[2];
    qkv_regression r = {.x = x, .y = y, .n = 5};
    /* Quartiles 2 and 4, standard deviation sqrt(12.5): the quartiles decide. */
    double expected = pow(4.0 / 3, 0.2) * 2 / 1.349 * pow(5, -0.2);
    assert_ok(qkv_regression_silverman(&r, h));
    assert_relative(h[0], expected, 1e-14);
    r.kernel = QKV_REGRESSION_EPANECHNIKOV;
    assert_ok(qkv_regression_silverman(&r, h));
    assert_relative(h[0] / expected, 2.2138, 1e-4); /* Haerdle 1990, table 5.3 */
    r.kernel = QKV_REGRESSION_BOXCAR;
    assert_ok(qkv_regression_silverman(&r, h));
    assert_relative(h[0] / expected, 1.3510 / 0.7764, 1e-4); /* Marron & Nolan 1988, table 1 */
    r.kernel = QKV_REGRESSION_TRIANGULAR;
    assert_ok(qkv_regression_silverman(&r, h));
    assert_relative(h[0] / expected, 1.8882 / 0.7764, 1e-4);
    r.kernel = QKV_REGRESSION_GAUSSIAN;

    double even[] = {0, 0, 1, 1}; /* deviation sqrt(1/3), less than the quartiles' 1 / 1.349 */
    r.x = even;
    r.n = 4;
    assert_ok(qkv_regression_silverman(&r, h));
    assert_relative(h[0], pow(4.0 / 3 / 4, 0.2) * sqrt(1.0 / 3), 1e-14);
    even[2] = even[3] = 1e-200; /* whose square is 0 */
    assert_ok(qkv_regression_silverman(&r, h));
    assert_relative(h[0], 1e-200 * pow(4.0 / 3 / 4, 0.2) * sqrt(1.0 / 3), 1e-13);

    double pairs[] = {10, 7, 1, 7, 3, 7, 4, 7, 2, 7}; /* the second column has no spread */
    double a = pow(5, -1.0 / 6);
    r = (qkv_regression){.x = pairs, .y = y, .n = 5, .d_x = 2, .bandwidths = 2};
    assert_ok(qkv_regression_silverman(&r, h));
    assert_relative(h[0], a * 2 / 1.349, 1e-14);
    assert_relative(h[1], a, 1e-14);
    r.bandwidths = 1;
    assert_ok(qkv_regression_silverman(&r, h));
    assert_relative(h[0], a * sqrt(2 / 1.349), 1e-14);
}

/* ---- The fit ------------------------------------------------------------------------------ */

typedef struct trajectory {
    qkv_table expected; /* h, cv, gradient */
    ptrdiff_t seen, stop_after;
} trajectory;

static bool compare_step(void *context, const qkv_regression_step *step)
{
    trajectory *t = context;
    const double *row = t->expected.data + t->seen * 3;
    assert_int_equal(step->step, t->seen++);
    assert_relative(step->bandwidth[0], row[0], 1e-8);
    assert_relative(step->loss, row[1], 1e-8);
    assert_close(step->gradient[0], row[2], 1e-8 * step->loss);
    return t->seen < t->stop_after;
}

static void gradient_descent_walks_the_reference_trajectory(void **state)
{
    (void)state;
    qkv_regression r = cars();
    const char *columns[] = {"h1", "cv", "g1"};
    trajectory t = {load(REFERENCE "autograd/train_logh.csv", columns, 3), 0, 1000};
    assert_int_equal(t.expected.rows, 61);
    double start = 6, h;
    qkv_regression_fit_report report;
    qkv_regression_fit_options options = {.start = &start,
                                          .optimizer = QKV_REGRESSION_GRADIENT_DESCENT,
                                          .rate = 0.001,
                                          .steps = 60,
                                          .tolerance = -1,
                                          .observe = compare_step,
                                          .context = &t};
    assert_ok(qkv_regression_fit(&r, &options, &h, &report));
    assert_int_equal(t.seen, 61);
    assert_int_equal(report.steps, 60);
    assert_false(report.converged);
    assert_relative(report.loss_before, t.expected.data[1], 1e-8);
    assert_relative(report.loss_after, t.expected.data[60 * 3 + 1], 1e-8);
    assert_relative(h, t.expected.data[60 * 3], 1e-8);

    t.seen = 0;
    t.stop_after = 5;
    assert_ok(qkv_regression_fit(&r, &options, &h, &report));
    assert_int_equal(report.steps, 4);
    assert_relative(h, t.expected.data[4 * 3], 1e-8);
    qkv_csv_free(&t.expected);
    free_data(&r);
}

/* How far one step of those options moves log h of cars. */
static double first_step(qkv_regression_fit_options options, double start)
{
    qkv_regression r = cars();
    double h;
    qkv_regression_fit_report report;
    options.start = &start;
    options.steps = 1;
    assert_ok(qkv_regression_fit(&r, &options, &h, &report));
    assert_int_equal(report.steps, 1);
    free_data(&r);
    return log(h / start);
}

static void steps_are_as_long_as_documented(void **state)
{
    (void)state;
    qkv_regression r = cars();
    double start = 4, cv, gradient;
    assert_ok(cv_of(&r, &start, &cv, NULL, &gradient));
    qkv_regression_fit_options options = {.optimizer = QKV_REGRESSION_ADAM};
    assert_close(first_step(options, start), -0.1, 1e-7);
    options.rate = 0.02;
    assert_close(first_step(options, start), -0.02, 1e-7);
    options.rate = 1e6; /* exp(-1e6) is no bandwidth: taken back until it is */
    assert_true(isfinite(first_step(options, start)));
    options = (qkv_regression_fit_options){.optimizer = QKV_REGRESSION_GRADIENT_DESCENT};
    assert_close(first_step(options, start), -gradient / cv, 1e-12);
    free_data(&r);
}

/* The least CV over 300 bandwidths between 1/30 and 10 times Silverman's. */
static double grid_minimum(const qkv_regression *r)
{
    double silverman, least = INFINITY;
    assert_ok(qkv_regression_silverman(r, &silverman));
    for (int i = 0; i < 300; i++) {
        double h = silverman / 30 * pow(300, i / 299.0), cv;
        ptrdiff_t undefined;
        assert_ok(cv_of(r, &h, &cv, &undefined, NULL));
        if (undefined == 0) least = fmin(least, cv);
    }
    return least;
}

typedef struct descent_seen {
    int start;
    ptrdiff_t steps, grid;
    double loss, gradient; /* of the last step, and its largest |gradient| */
    ptrdiff_t columns;
} descent_seen;

static bool assert_lower(void *context, const qkv_regression_step *step)
{
    descent_seen *d = context;
    if (step->start < 0) {
        assert_null(step->gradient);
        assert_int_equal(step->step, ++d->grid);
        assert_true(step->step <= step->steps);
        return true;
    }
    if (step->start != d->start) {
        assert_int_equal(step->start, d->start + 1);
        *d = (descent_seen){.start = step->start, .columns = d->columns};
    }
    assert_int_equal(step->step, d->steps++);
    if (step->step > 0) assert_true(step->loss < d->loss);
    d->loss = step->loss;
    d->gradient = 0;
    for (ptrdiff_t c = 0; c < d->columns; c++)
        d->gradient = fmax(d->gradient, fabs(step->gradient[c]));
    return true;
}

/* Every step lowers the loss, and the report says what the last step saw. */
static void check_descent(const qkv_regression *r, qkv_regression_fit_options options, double *h,
                          qkv_regression_fit_report *report)
{
    descent_seen seen = {.columns = r->bandwidths ? r->bandwidths : 1};
    double cv, gradient[3], largest = 0;
    options.observe = assert_lower;
    options.context = &seen;
    options.starts = 1;
    assert_ok(qkv_regression_fit(r, &options, h, report));
    assert_int_equal(report->steps, seen.steps - 1);
    assert_ok(cv_of(r, h, &cv, NULL, gradient));
    assert_true(report->loss_after == cv && cv == seen.loss);
    for (ptrdiff_t c = 0; c < seen.columns; c++) largest = fmax(largest, fabs(gradient[c]));
    assert_true(report->gradient == largest && largest == seen.gradient);
    assert_int_equal(report->converged, largest <= 1e-6 * cv);
}

static void check_training(const qkv_regression *r, qkv_regression_optimizer optimizer, int steps)
{
    qkv_regression_fit_report report;
    double h, least = grid_minimum(r);
    check_descent(r, (qkv_regression_fit_options){.optimizer = optimizer}, &h, &report);
    assert_true(report.converged && report.steps <= steps);
    assert_true(report.loss_after <= least + 1e-9 * least);
    assert_true(report.loss_after < report.loss_before);
    assert_int_equal(report.starts, 1);
    assert_true(report.evaluations > report.steps);
}

static void training_reaches_the_minimum_of_a_dense_search(void **state)
{
    (void)state;
    qkv_regression data[] = {cars(), faithful(), mcycle()};
    for (int i = 0; i < 3; i++) {
        check_training(&data[i], QKV_REGRESSION_LBFGS, 10);
        check_training(&data[i], QKV_REGRESSION_ADAM, 40);
    }
    check_training(&data[0], QKV_REGRESSION_GRADIENT_DESCENT, 60);
    for (int i = 0; i < 3; i++) free_data(&data[i]);
}

static void a_loss_that_goes_to_zero_converges(void **state)
{
    (void)state;
    double x[] = {1, 1, 2, 2, 3, 3}, y[] = {2, 2, 3, 3, 5, 5}, h; /* every row has a twin */
    const qkv_regression r = {.x = x, .y = y, .n = 6};
    qkv_regression_fit_report report;
    assert_ok(qkv_regression_fit(&r, NULL, &h, &report));
    assert_true(report.converged && report.steps < 100);
    assert_true(report.loss_after < 1e-9);
}

static void a_column_without_meaning_is_smoothed_out(void **state)
{
    (void)state;
    enum { N = 120, P = 3 };
    double x[N * P], y[N], h[P], before;
    for (int i = 0; i < N * P; i++) x[i] = uniform(5, (uint64_t)i, 0, 3);
    fill_normal(y, N, 6);
    for (int i = 0; i < N; i++) y[i] = 0.1 * y[i] + sin(2 * x[i * P]) + x[i * P + 1];
    qkv_regression r = {.x = x, .y = y, .n = N, .d_x = P};
    qkv_regression_fit_report one, each;
    assert_ok(qkv_regression_fit(&r, NULL, &before, &one));
    r.bandwidths = P;
    assert_ok(qkv_regression_fit(&r, NULL, h, &each));
    assert_true(each.loss_after < 0.5 * one.loss_after);
    assert_true(h[2] > 10 * h[0] && h[2] > 10 * h[1]);

    /* From far below, one column overshoots long before the others arrive. */
    double start[P], again[P];
    assert_ok(qkv_regression_silverman(&r, start));
    for (int c = 0; c < P; c++) start[c] /= 4;
    check_descent(&r, (qkv_regression_fit_options){.start = start}, again, &each);
    assert_true(each.converged && each.steps < 100);
    for (int c = 0; c < P; c++) assert_relative(again[c], h[c], 1e-3);
}

static void compact_kernels_stay_where_every_row_has_a_neighbour(void **state)
{
    (void)state;
    static const qkv_regression_kernel kernels[] = {QKV_REGRESSION_TRIANGULAR,
                                                    QKV_REGRESSION_EPANECHNIKOV};
    static const qkv_empty policies[] = {QKV_EMPTY_NAN, QKV_EMPTY_ERROR};
    qkv_regression data[] = {cars(), mcycle()};
    for (int i = 0; i < 4; i++) {
        qkv_regression r = data[i / 2];
        r.kernel = kernels[i % 2];
        r.empty = policies[i % 2];
        double start = 1e-3, h, cv;
        ptrdiff_t undefined;
        qkv_regression_fit_report report;
        qkv_regression_fit_options options = {.start = &start};
        assert_ok(qkv_regression_fit(&r, &options, &h, &report));
        assert_ok(cv_of(&r, &h, &cv, &undefined, NULL));
        assert_int_equal(undefined, 0);
        assert_true(cv <= report.loss_before && isfinite(cv));
        assert_true(h > start);
    }
    free_data(&data[0]);
    free_data(&data[1]);
}

/* ---- Criteria and searches ------------------------------------------------------------------ */

static void interpolation_does_not_win(void **state)
{
    (void)state;
    qkv_regression r = faithful();
    double h = 1e-8, value;
    assert_ok(qkv_regression_objective(&r, QKV_REGRESSION_AICC, &h, &value, NULL, NULL));
    qkv_regression_statistics s;
    double x[] = {1, 2, 3, 4, 5}, y[] = {1, 4, 2, 5, 3};
    const qkv_regression small = {.x = x, .y = y, .n = 5};
    assert_ok(qkv_regression_measure(&small, &h, &s, NULL));
    assert_true(isinf(s.aicc) && s.aicc > 0 && isinf(s.gcv) && isnan(s.sigma2));
    assert_relative(s.trace, 5, 1e-15);
    for (int c = QKV_REGRESSION_LOO; c <= QKV_REGRESSION_GCV; c++) {
        const qkv_regression_fit_options options = {.criterion = (qkv_regression_criterion)c};
        qkv_regression_fit_report report;
        assert_ok(qkv_regression_fit(&r, &options, &h, &report));
        assert_true(report.converged && h > 0.05 && h < 2);
        for (int i = 0; i < 200; i++) { /* nothing near is better */
            double other = h * exp(uniform(6, (uint64_t)i, -1, 1));
            assert_ok(qkv_regression_objective(&r, options.criterion, &other, &value, NULL, NULL));
            assert_true(value >= report.loss_after - 1e-9 * fabs(report.loss_after));
        }
    }
    free_data(&r);
}

static void the_boxcar_is_searched_at_its_steps(void **state)
{
    (void)state;
    qkv_regression r = cars();
    r.kernel = QKV_REGRESSION_BOXCAR;
    double h, least = INFINITY;
    qkv_regression_fit_report report;
    assert_ok(qkv_regression_fit(&r, NULL, &h, &report));
    for (int i = 1; i < 4000; i++) { /* speeds are whole numbers: so are all steps */
        double at = i * 0.01, value;
        ptrdiff_t undefined;
        assert_ok(cv_of(&r, &at, &value, &undefined, NULL));
        if (undefined == 0) least = fmin(least, value);
    }
    assert_relative(report.loss_after, least, 1e-14);
    free_data(&r);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The least criterion of all bandwidths, each between two distances of rows. */
static double least_between_steps(const qkv_regression *r, qkv_regression_criterion criterion)
{
    double *at = calloc((size_t)(r->n * r->n), sizeof *at), least = INFINITY;
    ptrdiff_t n = 0;
    for (ptrdiff_t i = 0; i < r->n; i++)
        for (ptrdiff_t j = 0; j < i; j++) at[n++] = fabs(r->x[i] - r->x[j]);
    qsort(at, (size_t)n, sizeof *at, ascending);
    for (ptrdiff_t k = 0; k + 1 < n; k++) {
        double h = (at[k] + at[k + 1]) / 2, value;
        ptrdiff_t undefined;
        if (at[k + 1] - at[k] < 1e-9) continue;
        assert_ok(qkv_regression_objective(r, criterion, &h, &value, &undefined, NULL));
        if (undefined == 0) least = fmin(least, value);
    }
    free(at);
    return least;
}

static void the_boxcars_best_step_is_found(void **state)
{
    (void)state;
    double x[ROWS], y[ROWS], h, value;
    fill_normal(y, ROWS, 3);
    for (int i = 0; i < ROWS; i++) {
        x[i] = uniform(4, (uint64_t)i, 0, 10);
        y[i] = sin(x[i]) + 0.5 * y[i];
    }
    qkv_regression data[] = {mcycle(), {.x = x, .y = y, .n = ROWS}};
    for (int d = 0; d < 2; d++)
        for (int criterion = 0; criterion < 3; criterion++) {
            qkv_regression *r = &data[d];
            r->kernel = QKV_REGRESSION_BOXCAR;
            qkv_regression_fit_options o = {.criterion = (qkv_regression_criterion)criterion};
            assert_ok(qkv_regression_fit(r, &o, &h, NULL));
            assert_ok(qkv_regression_objective(r, o.criterion, &h, &value, NULL, NULL));
            assert_relative(value, least_between_steps(r, o.criterion), 1e-13);
            /* Counted in tenths, without roundings: rows up to 2.8 away. */
            if (d == 0 && criterion == 0) assert_relative(value, 651.0970780073218, 1e-12);
        }
    free_data(&data[0]);
}

static void minima_are_told_the_best_first(void **state)
{
    (void)state;
    enum { N = 400 };
    double x[N], y[N], h, minima[4 * 2];
    for (int i = 0; i < N; i++) { /* fast and slow: two bandwidths that help */
        x[i] = (double)i / N;
        y[i] = sin(160 * x[i]) + 0.05 * sin(2 * x[i]);
    }
    qkv_regression r = {.x = x, .y = y, .n = N};
    qkv_regression_fit_report report;
    const qkv_regression_fit_options options = {.minima = minima, .max_minima = 4};
    assert_ok(qkv_regression_fit(&r, &options, &h, &report));
    assert_true(report.minima >= 2 && report.starts >= 2);
    assert_true(minima[1] == h && minima[0] == report.loss_after);
    for (ptrdiff_t i = 1; i < report.minima && i < 4; i++) {
        double value;
        assert_true(minima[2 * i] > minima[2 * i - 2]);
        assert_ok(cv_of(&r, &minima[2 * i + 1], &value, NULL, NULL));
        assert_true(value == minima[2 * i]);
    }
}

/* On a lattice few distances differ: the best of all bandwidths lies just beyond one of them. The
 * grid may pass it by; of these seeds it does not. */
static void the_boxcar_is_searched_at_its_steps_in_two_columns(void **state)
{
    (void)state;
    double x[24], y[12];
    for (int i = 0; i < 12; i++) x[2 * i] = i % 4, x[2 * i + 1] = 1.2 * (i / 4);
    for (uint64_t seed = 30; seed < 60; seed++) {
        fill_normal(y, 12, seed);
        for (int i = 0; i < 12; i++) y[i] += 0.5 * (x[2 * i] - x[2 * i + 1]);
        qkv_regression r = {.x = x, .y = y, .n = 12, .d_x = 2, .d_y = 1};
        r.kernel = QKV_REGRESSION_BOXCAR;
        r.product = seed % 2;
        double h, least = INFINITY;
        qkv_regression_fit_report report;
        assert_ok(qkv_regression_fit(&r, NULL, &h, &report));
        for (double at = 1; at < 6; at += 0.01) {
            double value;
            assert_ok(cv_of(&r, &at, &value, NULL, NULL));
            least = fmin(least, value);
        }
        assert_relative(report.loss_after, least, 1e-14);
    }
}

/* The rule of thumb is blind to the two rows afar, which take a bandwidth of 1000 to be reached. */
static void the_grid_reaches_beyond_the_range_of_the_rows(void **state)
{
    (void)state;
    enum { NEAR = 40 };
    double x[NEAR + 2], y[NEAR + 2], h;
    fill_normal(x, NEAR, 1);
    fill_normal(y, NEAR + 2, 2);
    x[NEAR] = -1000;
    x[NEAR + 1] = 1000;
    qkv_regression r = {.x = x, .y = y, .n = NEAR + 2, .d_x = 1, .d_y = 1};
    r.kernel = QKV_REGRESSION_BOXCAR;
    assert_ok(qkv_regression_fit(&r, NULL, &h, NULL));
    assert_true(h > 990);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradient_descent_walks_the_reference_trajectory),
        cmocka_unit_test(steps_are_as_long_as_documented),
        cmocka_unit_test(training_reaches_the_minimum_of_a_dense_search),
        cmocka_unit_test(a_loss_that_goes_to_zero_converges),
        cmocka_unit_test(a_column_without_meaning_is_smoothed_out),
        cmocka_unit_test(compact_kernels_stay_where_every_row_has_a_neighbour),
        cmocka_unit_test(interpolation_does_not_win),
        cmocka_unit_test(the_boxcar_is_searched_at_its_steps),
        cmocka_unit_test(the_boxcars_best_step_is_found),
        cmocka_unit_test(minima_are_told_the_best_first),
        cmocka_unit_test(silvermans_rule_is_its_formula),
        cmocka_unit_test(the_boxcar_is_searched_at_its_steps_in_two_columns),
        cmocka_unit_test(the_grid_reaches_beyond_the_range_of_the_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
