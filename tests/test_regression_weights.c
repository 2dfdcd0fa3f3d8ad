/* test_regression_weights.c - all that is told of a regression agrees with its weights, for all
 * kernels: means, norms, effective rows, gradients; rows that count twice, or not at all. */
#include "support.h"

#include <math.h>
#include <stdlib.h>

#include "qkv/gradcheck.h"
#include "regression_data.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_gradient_passes_its_check),
        cmocka_unit_test(weights_norms_and_effective_rows_agree),
        cmocka_unit_test(a_regression_is_attention),
        cmocka_unit_test(the_boxcars_edge_is_met_between_decimals),
        cmocka_unit_test(weights_count_rows_and_missing_rows_do_not),
        cmocka_unit_test(weights_of_all_sizes_make_numbers),
        cmocka_unit_test(gradient_norms_are_those_of_its_weights),
        cmocka_unit_test(columns_of_y_are_fitted_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
