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

/* ---- All kernels, all that is told of them ------------------------------------------------- */

typedef struct setting {
    qkv_regression r;
    qkv_regression_criterion criterion;
    double log_h[3], *q;
} setting;

static qkv_status evaluate_criterion(void *context, double *value)
{
    setting *f = context;
    double h[3];
    for (int c = 0; c < 3; c++) h[c] = exp(f->log_h[c]);
    return qkv_regression_objective(&f->r, f->criterion, h, value, NULL, NULL);
}

static qkv_status evaluate_mean(void *context, double *value)
{
    setting *f = context;
    double h[3], mean[2];
    for (int c = 0; c < 3; c++) h[c] = exp(f->log_h[c]);
    qkv_status status = predict(&f->r, h, f->q, 1, mean, NULL);
    *value = mean[0] - 2 * mean[1];
    return status;
}

/* Kernels that reach most rows of random normal data, and no kink within a step. */
static double wide(qkv_regression_kernel kernel)
{
    return kernel >= QKV_REGRESSION_LAPLACE || kernel == QKV_REGRESSION_GAUSSIAN ? 0.7 : 3.3;
}

static void check_criterion_gradient(setting *f, const char *name)
{
    double h[3], value, gradient[3];
    ptrdiff_t undefined;
    for (int c = 0; c < 3; c++) h[c] = exp(f->log_h[c]);
    assert_ok(qkv_regression_objective(&f->r, f->criterion, h, &value, &undefined, gradient));
    assert_int_equal(undefined, 0);
    qkv_check_input input = {.name = "log h",
                             .x = f->log_h,
                             .gradient = gradient,
                             .n = (size_t)f->r.bandwidths,
                             .scale = 0.05};
    qkv_check_report report;
    if (qkv_gradcheck(evaluate_criterion, f, &input, 1, NULL, &report) != QKV_OK)
        fail_msg("%s, product %d, degree %d, criterion %d: %s", name, f->r.product, f->r.degree,
                 (int)f->criterion, report.message);
}

static void check_query_gradient(setting *f, const char *name)
{
    double h[3], gradient[6], total[3], q[3] = {0.3, -0.2, 0.1};
    for (int c = 0; c < 3; c++) h[c] = exp(f->log_h[c]);
    f->q = q;
    qkv_regression_results out = {.gradient = gradient};
    assert_ok(qkv_regression_predict(&f->r, h, q, 1, &out));
    for (int c = 0; c < 3; c++) total[c] = gradient[c] - 2 * gradient[3 + c];
    qkv_check_input input = {.name = "q", .x = q, .gradient = total, .n = 3, .scale = 0.05};
    qkv_check_report report;
    if (qkv_gradcheck(evaluate_mean, f, &input, 1, NULL, &report) != QKV_OK)
        fail_msg("%s, product %d: %s", name, f->r.product, report.message);
}

enum { ROWS = 60 };

static setting random_setting(double *x, double *y, double *weight)
{
    fill_normal(x, ROWS * 3, 3);
    fill_normal(y, ROWS * 2, 4);
    for (int i = 0; i < ROWS; i++) weight[i] = uniform(5, (uint64_t)i, 0.5, 2);
    return (setting){.r = {.x = x, .y = y, .weight = weight, .n = ROWS, .d_x = 3, .d_y = 2}};
}

static void every_gradient_passes_its_check(void **state)
{
    (void)state;
    double x[ROWS * 3], y[ROWS * 2], weight[ROWS];
    setting f = random_setting(x, y, weight);
    for (int k = 0; k < QKV_REGRESSION_CONSTANT; k++)
        for (int i = 0; i < 12 && k != QKV_REGRESSION_BOXCAR; i++) {
            const char *name = qkv_regression_kernel_name((qkv_regression_kernel)k);
            f.r.kernel = (qkv_regression_kernel)k;
            f.r.product = i & 1;
            f.r.degree = i >> 1 & 1;
            f.criterion = (qkv_regression_criterion)(i / 4);
            f.r.bandwidths = k % 2 ? 3 : 1;
            for (int c = 0; c < 3; c++) f.log_h[c] = log((1 + 0.2 * c) * wide(f.r.kernel));
            /* The product has a kink wherever two rows share a column, nearly. */
            if (k == QKV_REGRESSION_TRIANGULAR || (k == QKV_REGRESSION_LAPLACE && f.r.product))
                continue;
            check_criterion_gradient(&f, name);
            if (f.criterion == 0 && f.r.degree == 0) check_query_gradient(&f, name);
        }
}

/* Everything that is told besides mean, from the weights alone. */
static void check_against_weights(const setting *f, const char *name)
{
    enum { QUERIES = 4 };
    double q[QUERIES * 3], h[3], mean[QUERIES * 2], weights[QUERIES * ROWS], norm[QUERIES],
        effective[QUERIES];
    fill_normal(q, QUERIES * 3, 9);
    for (int c = 0; c < 3; c++) h[c] = exp(f->log_h[c]);
    qkv_regression_results out = {
        .mean = mean, .weights = weights, .norm = norm, .n_effective = effective};
    assert_ok(qkv_regression_predict(&f->r, h, q, QUERIES, &out));
    assert_int_equal(out.empty, 0);
    for (int i = 0; i < QUERIES; i++) {
        double sum = 0, squares = 0, m[2] = {0};
        for (int j = 0; j < ROWS; j++) {
            double w = weights[i * ROWS + j], c = f->r.weight ? f->r.weight[j] : 1;
            sum += w;
            squares += w * w / c;
            for (int k = 0; k < 2; k++) m[k] += w * f->r.y[2 * j + k];
        }
        double scale = 0; /* the mean of the case weights */
        for (int j = 0; j < ROWS; j++) scale += (f->r.weight ? f->r.weight[j] : 1) / ROWS;
        if (fabs(sum - 1) > 1e-13) fail_msg("%s: weights add to %.17g", name, sum);
        assert_close(norm[i], sqrt(squares * scale), 1e-13 * norm[i]);
        if (f->r.degree == 0) assert_close(effective[i], 1 / (squares * scale), 1e-12 * ROWS);
        for (int k = 0; k < 2; k++) assert_close(mean[2 * i + k], m[k], 1e-12);
    }
}

static void weights_norms_and_effective_rows_agree(void **state)
{
    (void)state;
    double x[ROWS * 3], y[ROWS * 2], weight[ROWS];
    setting f = random_setting(x, y, weight);
    for (int k = 0; k <= QKV_REGRESSION_CONSTANT; k++)
        for (int i = 0; i < 8; i++) {
            f.r.kernel = (qkv_regression_kernel)k;
            f.r.product = i & 1;
            f.r.degree = i >> 1 & 1;
            f.r.weight = i >> 2 ? weight : NULL;
            for (int c = 0; c < 3; c++) f.log_h[c] = log(wide(f.r.kernel));
            check_against_weights(&f, qkv_regression_kernel_name(f.r.kernel));
        }
}

/* The weights of the chapter's kernels are attention's. */
static void a_regression_is_attention(void **state)
{
    (void)state;
    enum { N_Q = 5 };
    double x[ROWS * 3], y[ROWS * 2], weight[ROWS], q[N_Q * 3], o[N_Q * 2], mean[N_Q * 2];
    setting f = random_setting(x, y, weight);
    double h[3] = {0.5, 0.8, 1.1};
    fill_normal(q, N_Q * 3, 8);
    f.r.weight = NULL;
    f.r.bandwidths = 3;
    const qkv_attention a = {.n_q = N_Q,
                             .n_k = ROWS,
                             .d_k = 3,
                             .d_v = 2,
                             .batch = 1,
                             .heads = 1,
                             .score = QKV_SCORE_GAUSSIAN,
                             .bandwidths = 3};
    const qkv_operands_f64 in = {.q.data = q, .k.data = x, .v.data = y, .bandwidth.data = h};
    size_t bytes;
    assert_ok(qkv_attention_workspace(&a, QKV_FORWARD, QKV_F64, &bytes));
    void *workspace = malloc(bytes);
    assert_ok(
        qkv_attention_forward_f64(&a, &in, &(qkv_results_f64){.o.data = o}, workspace, bytes));
    free(workspace);
    assert_ok(predict(&f.r, h, q, N_Q, mean, NULL));
    for (int i = 0; i < N_Q * 2; i++) assert_close(mean[i], o[i], 1e-13);
}

/* Between decimals, which a double has not, an edge is met where it would be on paper. */
static void the_boxcars_edge_is_met_between_decimals(void **state)
{
    (void)state;
    double x[2 * ROWS], y[ROWS] = {0}, n[ROWS];
    const double offsets[] = {0, -32, 10007}; /* in tenths */
    for (int o = 0; o < 3; o++)
        for (int mode = 0; mode < 8; mode++) { /* open edge, two columns, their product */
            bool open = mode & 1, two = mode & 2, product = mode & 4;
            for (int i = 0; i < ROWS; i++) {
                x[two ? 2 * i : i] = (offsets[o] + i) / 10;
                if (two) x[2 * i + 1] = 0.7;
            }
            for (int k = 1; k < 20; k++) {
                double h = k / 10.0;
                qkv_regression r = {.x = x,
                                    .y = y,
                                    .n = ROWS,
                                    .d_x = two ? 2 : 1,
                                    .kernel = QKV_REGRESSION_BOXCAR,
                                    .open_edge = open,
                                    .product = product};
                assert_ok(qkv_regression_predict(&r, &h, x, ROWS,
                                                 &(qkv_regression_results){.n_effective = n}));
                for (int i = 20; i < 40; i++)
                    assert_relative(n[i], open ? 2 * k - 1 : 2 * k + 1, 1e-12);
            }
        }
    double here[] = {1e9, 1e9}, h = 1e-9; /* narrower than a rounding: what is at q is in reach */
    qkv_regression r = {.x = here, .y = y, .n = 2, .kernel = QKV_REGRESSION_BOXCAR};
    for (int open = 0; open < 2; open++) {
        r.open_edge = open;
        assert_ok(
            qkv_regression_predict(&r, &h, here, 1, &(qkv_regression_results){.n_effective = n}));
        assert_relative(n[0], 2, 0);
    }
}

/* A row of weight 2 is two rows, a row with a NaN none. */
static void weights_count_rows_and_missing_rows_do_not(void **state)
{
    (void)state;
    for (int degree = 0; degree < 2; degree++) {
        double x[] = {0, 1, 2, 3, 4, NAN, 5}, y[] = {1, 3, 2, 5, 4, 9, 6}, h = 1.1, q[] = {0.3, 9},
               weight[] = {1, 2, 1, 3, 1, 1, 0}, m[2], same[2], se[2], se_same[2], loo[7];
        double twin_x[] = {0, 1, 1, 2, 3, 3, 3, 4}, twin_y[] = {1, 3, 3, 2, 5, 5, 5, 4};
        qkv_regression r = {.x = x, .y = y, .weight = weight, .n = 7, .degree = degree};
        qkv_regression twin = {.x = twin_x, .y = twin_y, .n = 8, .degree = degree};
        qkv_regression_results out = {.mean = m, .norm = se};
        assert_ok(qkv_regression_predict(&r, &h, q, 2, &out));
        out.mean = same;
        out.norm = se_same;
        assert_ok(qkv_regression_predict(&twin, &h, q, 2, &out));
        for (int i = 0; i < 2; i++) {
            assert_relative(m[i], same[i], 1e-14);
            /* Case weights are of mean 1, 8 / 5 in the twins. */
            assert_relative(se[i] / se_same[i], sqrt(8.0 / 5), 1e-13);
        }
        qkv_regression_statistics s, t;
        assert_ok(qkv_regression_measure(&r, &h, &s, NULL));
        assert_ok(qkv_regression_measure(&twin, &h, &t, NULL));
        assert_int_equal(s.n, 5);
        assert_int_equal(s.missing, 2);
        assert_relative(s.trace, t.trace, 1e-13);
        assert_relative(s.rss * 8 / 5, t.rss, 1e-13);
        assert_relative(s.r_squared, t.r_squared, 1e-13);
        assert_ok(leave_one_out(&r, &h, loo));
        assert_true(isnan(loo[5]) && isnan(loo[6]) && !isnan(loo[4]));
        q[0] = NAN;
        assert_ok(predict(&r, &h, q, 2, same, NULL));
        assert_true(isnan(same[0]) && same[1] == m[1]);
    }
}

/* On a line any weights give the line; where all rows in reach share a place, their mean. */
/* Beside 1e300 a weight of 1e-300 is nothing, but alone in reach it is all there is. */
static void weights_of_all_sizes_make_numbers(void **state)
{
    (void)state;
    double x[] = {0, 0.1, 0.2, 0.3, 5, 5.1, 5.3}, y[] = {1, 2, 3, 5, 7, 9, 8};
    double c[] = {1e300, 2e300, 1e300, 3e300, 1e-300, 1e-300, 1e-300};
    double q[] = {0.15, 5.1}, h = 0.25, m[2], norm[2], n[2], expected, expected_norm, expected_n;
    for (int degree = 0; degree < 2; degree++) {
        qkv_regression r = {.x = x, .y = y, .weight = c, .n = 7, .degree = degree};
        r.kernel = QKV_REGRESSION_EPANECHNIKOV;
        qkv_regression_results out = {.mean = m, .norm = norm, .n_effective = n};
        assert_ok(qkv_regression_predict(&r, &h, q, 2, &out));
        const double ratios[] = {1, 2, 1, 3};
        out = (qkv_regression_results){
            .mean = &expected, .norm = &expected_norm, .n_effective = &expected_n};
        r.weight = ratios, r.n = 4;
        assert_ok(qkv_regression_predict(&r, &h, q, 1, &out));
        assert_relative(m[0], expected, 1e-14);
        assert_relative(norm[0], expected_norm * sqrt(4 / 7.0), 1e-14); /* of mean 1 among 7 */
        assert_relative(n[0], expected_n * (7 / 4.0), 1e-14);
        r.weight = NULL, r.n = 3, r.x = x + 4, r.y = y + 4;
        assert_ok(qkv_regression_predict(&r, &h, q + 1, 1, &out));
        assert_relative(m[1], expected, 1e-14);
        assert_relative(norm[1], expected_norm * 0x1p500, 1e-14);
        assert_relative(n[1], expected_n * 0x1p-1000, 1e-14);
        r = (qkv_regression){.x = x, .y = y, .weight = c, .n = 7, .degree = degree};
        qkv_regression_statistics statistics;
        assert_ok(qkv_regression_measure(&r, &h, &statistics, NULL));
        assert_true(isfinite(statistics.sigma2) && isfinite(statistics.cv) &&
                    isfinite(statistics.aicc) && isfinite(statistics.gcv));
    }
}

static void a_local_line_is_exact_and_safe(void **state)
{
    (void)state;
    double x[40], y[20], h[] = {0.4, 0.7}, q[] = {0.2, 0.9, 5, -3}, m[2], gradient[4];
    for (int i = 0; i < 20; i++) {
        x[2 * i] = uniform(1, (uint64_t)i, 0, 1);
        x[2 * i + 1] = uniform(2, (uint64_t)i, 0, 1);
        y[i] = 3 - 2 * x[2 * i] + 5 * x[2 * i + 1];
    }
    qkv_regression r = {.x = x, .y = y, .n = 20, .d_x = 2, .bandwidths = 2, .degree = 1};
    qkv_regression_results out = {.mean = m, .gradient = gradient};
    assert_ok(qkv_regression_predict(&r, h, q, 2, &out));
    assert_relative(m[0], 3 - 0.4 + 4.5, 1e-12);
    assert_relative(gradient[0], -2, 1e-11);
    assert_relative(gradient[1], 5, 1e-11);
    for (int i = 0; i < 20; i++) x[2 * i + 1] = x[2 * i]; /* one direction only */
    for (int i = 0; i < 20; i++) y[i] = 3 * x[2 * i];
    assert_ok(qkv_regression_predict(&r, h, q, 1, &out));
    assert_relative(gradient[0] + gradient[1], 3, 1e-10); /* none across */
    qkv_regression far = cars(); /* which end at speed 24, 93.75 on average, and 25, 85 */
    double far_q = 200, far_h = 1.5;
    far.degree = 1;
    assert_ok(qkv_regression_predict(&far, &far_h, &far_q, 1, &out));
    assert_relative(m[0], 85 - 8.75 * 175, 1e-12);
    assert_relative(gradient[0], -8.75, 1e-12);
    free_data(&far);
    /* A column of two values, one of which weighs next to nothing at q: the plane all the same. */
    double two_x[] = {0.1, 0.1, 0.4, 0.1, 0.9, 0.1, 0.2, 1.1, 0.5, 1.1, 0.8, 1.1}, two_y[6];
    double two_h[] = {0.2, 0.05}, two_q[] = {0.7, 0.15, 0.3, 0.1, 0.5, 1.4};
    for (int i = 0; i < 6; i++) two_y[i] = 1 + 2 * two_x[2 * i] - 3 * two_x[2 * i + 1];
    qkv_regression two = {.x = two_x, .y = two_y, .n = 6, .d_x = 2, .bandwidths = 2, .degree = 1};
    for (int i = 0; i < 3; i++) {
        assert_ok(qkv_regression_predict(&two, two_h, two_q + 2 * i, 1, &out));
        assert_close(m[0], 1 + 2 * two_q[2 * i] - 3 * two_q[2 * i + 1], 1e-9);
        assert_close(gradient[0], 2, 1e-9);
        assert_close(gradient[1], -3, 1e-9);
    }
    double one_x[] = {2, 2, 2}, one_y[] = {1, 2, 6};
    r = (qkv_regression){.x = one_x, .y = one_y, .n = 3, .degree = 1};
    assert_ok(qkv_regression_predict(&r, h, q, 1, &out));
    assert_relative(m[0], 3, 1e-15);
    assert_true(gradient[0] == 0);
}

/* All but the nearest x may weigh less than a double can tell: the line through the two nearest
 * stays. */
static void a_local_line_has_its_limit_far_away_and_for_narrow_kernels(void **state)
{
    (void)state;
    qkv_regression r = cars();
    r.degree = 1;
    double m, slope, norm;
    qkv_regression_results out = {.mean = &m, .gradient = &slope, .norm = &norm};
    const double weights[] = {1, 3}; /* of the even and the odd rows */
    double c[50];
    for (int i = 0; i < 50; i++) c[i] = weights[i % 2];
    for (int weighted = 0; weighted < 2; weighted++) {
        double ends[] = {93.75, 85}; /* means at 24 and 25 */
        r.weight = weighted ? c : NULL;
        if (weighted) ends[0] = (3 * 70 + 92 + 3 * 93 + 120) / 8.0;
        for (double q = 300; q < 1e20; q *= 1.5) {
            double h = 2, expected = ends[1] + (ends[1] - ends[0]) * (q - 25);
            assert_ok(qkv_regression_predict(&r, &h, &q, 1, &out));
            assert_relative(m, expected, 1e-12);
            assert_relative(slope, ends[1] - ends[0], 1e-12);
            if (!weighted) assert_relative(norm, hypot((q - 24), 0.5 * (q - 25)), 1e-12);
        }
    }
    r.weight = NULL;
    /* Between rows the line through the two nearest, which need not be on both sides. */
    double x[] = {0, 1, 3, 3, 7}, y[] = {1, 4, 2, 4, 9}, q[] = {1.4, 3.4, 5.5, -2, 7};
    const double expected[] = {5.2, 2.8, 6.75, -5, 9}, slopes[] = {3, -0.5, 1.5, 3, 1.5};
    qkv_regression few = {.x = x, .y = y, .n = 5, .degree = 1};
    for (int kernel = 0; kernel < 2; kernel++)
        for (double h = 1e-3; h > 1e-160; h *= 0.7)
            for (int i = 0; i < 5; i++) {
                few.kernel = kernel ? QKV_REGRESSION_LAPLACE : QKV_REGRESSION_GAUSSIAN;
                assert_ok(qkv_regression_predict(&few, &h, &q[i], 1, &out));
                assert_close(m, expected[i], 1e-12);
                assert_close(slope, slopes[i], 1e-12);
            }
    double h = 1e-3, cv, gradient;
    assert_ok(cv_of(&few, &h, &cv, NULL, &gradient));
    assert_relative(cv, (3.5 * 3.5 + 49 / 9.0 + 4 + 4 + 64) / 5, 1e-12);
    assert_close(gradient, 0, 1e-9 * cv);
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

/* The gradient is linear in y: its weights are the gradients of unit vectors. */
static void gradient_norms_are_those_of_its_weights(void **state)
{
    (void)state;
    double x[ROWS * 3], y[ROWS * 2], weight[ROWS], g[ROWS * 3], norm[3], scale = 0;
    static double units[ROWS * ROWS];
    const double q[] = {0.3, -0.2, 0.1}, h[] = {0.7, 0.9, 0.8};
    setting f = random_setting(x, y, weight);
    for (int j = 0; j < ROWS; j++) units[j * ROWS + j] = 1, scale += weight[j] / ROWS;
    f.r.y = units;
    f.r.d_y = ROWS;
    f.r.bandwidths = 3;
    for (int i = 0; i < 4; i++) {
        f.r.degree = i & 1;
        f.r.weight = i >> 1 ? weight : NULL;
        qkv_regression_results out = {.gradient = g, .gradient_norm = norm};
        assert_ok(qkv_regression_predict(&f.r, h, q, 1, &out));
        for (int c = 0; c < 3; c++) {
            double squares = 0;
            for (int j = 0; j < ROWS; j++)
                squares += g[3 * j + c] * g[3 * j + c] * (i >> 1 ? scale / weight[j] : 1);
            assert_close(norm[c], sqrt(squares), 1e-12 * norm[c]);
        }
    }
}

static void columns_of_y_are_fitted_alike(void **state)
{
    (void)state;
    double x[ROWS * 3], y[ROWS * 2], weight[ROWS], column[ROWS], sigma2[2], h = 0.9;
    setting f = random_setting(x, y, weight);
    qkv_regression_statistics both, one[2];
    assert_ok(qkv_regression_measure(&f.r, &h, &both, sigma2));
    f.r.y = column;
    f.r.d_y = 1;
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < ROWS; i++) column[i] = y[2 * i + k];
        assert_ok(qkv_regression_measure(&f.r, &h, &one[k], NULL));
        assert_close(sigma2[k], one[k].sigma2, 1e-12);
        assert_close(one[k].trace, both.trace, 1e-12);
    }
    assert_close(both.rss, one[0].rss + one[1].rss, 1e-12);
    assert_close(both.cv, one[0].cv + one[1].cv, 1e-12);
    assert_close(both.sigma2, (one[0].sigma2 + one[1].sigma2) / 2, 1e-12);
    /* The variance of which it is the logarithm is the mean of theirs. */
    assert_close(exp(both.aicc), (exp(one[0].aicc) + exp(one[1].aicc)) / 2, 1e-10);
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
        cmocka_unit_test(the_chapters_predictions_and_weights_are_reproduced),
        cmocka_unit_test(cross_validation_and_its_gradient_match_the_reference),
        cmocka_unit_test(rows_without_a_neighbour_are_undefined_and_counted),
        cmocka_unit_test(leaving_a_row_out_is_the_regression_without_it),
        cmocka_unit_test(kernels_without_slope_have_gradient_zero),
        cmocka_unit_test(every_gradient_passes_its_check),
        cmocka_unit_test(weights_norms_and_effective_rows_agree),
        cmocka_unit_test(a_regression_is_attention),
        cmocka_unit_test(weights_count_rows_and_missing_rows_do_not),
        cmocka_unit_test(weights_of_all_sizes_make_numbers),
        cmocka_unit_test(a_local_line_is_exact_and_safe),
        cmocka_unit_test(a_local_line_has_its_limit_far_away_and_for_narrow_kernels),
        cmocka_unit_test(extremes_have_the_true_limit),
        cmocka_unit_test(units_do_not_matter),
        cmocka_unit_test(a_window_gives_what_all_rows_give),
        cmocka_unit_test(some_rows_stand_for_all),
        cmocka_unit_test(the_boxcars_edge_is_met_between_decimals),
        cmocka_unit_test(an_empty_support_follows_the_policy),
        cmocka_unit_test(what_cannot_be_is_an_error),
        cmocka_unit_test(gradient_norms_are_those_of_its_weights),
        cmocka_unit_test(columns_of_y_are_fitted_alike),
        cmocka_unit_test(the_boxcar_is_searched_at_its_steps_in_two_columns),
        cmocka_unit_test(the_grid_reaches_beyond_the_range_of_the_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
