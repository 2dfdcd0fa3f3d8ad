/* test_examples_figures.c - every number that the programs draw, save and print,
 * against the library and against what must hold. In gnuplot's place stands a program that only
 * copies what it is fed, so that each figure is its own script and data. */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "process.h"
#include "qkv/regression.h"
#include "src/csv.h"

enum { CARS = 50, GRID = 200 };

/* Runs program, its figures going to the scratch directory NAME, and gives its output, to be freed.
 */
static char *draw(const char *program, const char *name, const char *const *arguments)
{
    const char *argv[16] = {program, "--plot", scratch(name)};
    for (int i = 0; arguments[i]; i++) argv[3 + i] = arguments[i];
    static const char copier[] = "#!/bin/sh\ncat && echo '$data << END' && cat /dev/fd/3\n";
    write_file(scratch("copier"), copier, sizeof copier - 1);
    assert_int_equal(chmod(scratch("copier"), 0700), 0);
    setenv("QKV_GNUPLOT", scratch("copier"), 1);
    ran done = run(argv, NULL);
    unsetenv("QKV_GNUPLOT");
    if (done.exit_code) print_error("%s", done.err);
    assert_int_equal(done.exit_code, 0);
    free(done.err);
    return done.out;
}

static char *regress(const char *name, const char *const *arguments)
{
    return draw(QKV_BIN_DIR "/nadaraya_watson", name, arguments);
}

static double number_after(const char *text, const char *label)
{
    const char *at = strstr(text, label);
    if (!at) fail_msg("'%s' is not in: %s", label, text);
    return strtod(at + strlen(label), NULL);
}

static char *read_figure(const char *directory, const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "%s/%s.svg", directory, name);
    return read_file(scratch(path), NULL);
}

/* Numbers [rows, columns] of block number index of a figure's data, to be freed. The first row is
 * left out if it is the NaN that every series starts with. */
static double *read_block(const char *figure, int index, size_t *rows, size_t columns)
{
    const char *at = strstr(figure, "$data << END\n");
    assert_non_null(at);
    at += strlen("$data << END\n");
    for (int i = 0; i < index; i++) {
        at = strstr(at, "\n\n\n");
        assert_non_null(at);
        at += 3;
    }
    const char *end = strstr(at, "\n\n\n");
    assert_non_null(end);
    double *block = calloc((size_t)(end - at) + 1, sizeof *block);
    assert_non_null(block);
    size_t n = 0;
    for (char *next; at < end; at = next) {
        block[n++] = strtod(at, &next);
        assert_true(next > at);
        if (n == columns && isnan(block[0])) n = 0;
        while (*next == ' ' || (*next == '\n' && next < end)) next++;
    }
    assert_int_equal(n % columns, 0);
    *rows = n / columns;
    return block;
}

static void assert_near(double actual, double expected)
{
    assert_close(actual, expected, 1e-7 * (1 + fabs(expected)));
}

/* The series at index is (x, y), each [n]. */
static void assert_series(const char *figure, int index, const double *at, const double *value,
                          size_t n)
{
    size_t rows;
    double *block = read_block(figure, index, &rows, 4);
    assert_int_equal(rows, n);
    for (size_t i = 0; i < n; i++) {
        assert_near(block[4 * i], at[i]);
        assert_near(block[4 * i + 1], value[i]);
    }
    free(block);
}

/* ---- One column: cars ------------------------------------------------------------------------
 */

static double x[CARS], y[CARS], grid[GRID], start, h;
static qkv_regression r = {.x = x, .y = y, .n = CARS};
static char *out, *loss;
static double *way; /* the series of the loss figure: loss, then bandwidth, [steps + 1, 4] each */
static size_t steps;

/* Runs the program on cars from the last row to the first, which it must put in order. */
static int fit_cars(void **state)
{
    (void)state;
    qkv_table t;
    assert_ok(qkv_csv_load(&t, QKV_TEST_DATA "/../../examples/data/cars.csv",
                           (const char *const[]){"speed", "dist"}, 2));
    assert_int_equal(t.rows, CARS);
    double back_x[CARS], back_y[CARS];
    for (int i = 0; i < CARS; i++) {
        x[i] = back_x[CARS - 1 - i] = t.data[2 * i];
        y[i] = back_y[CARS - 1 - i] = t.data[2 * i + 1];
    }
    qkv_csv_free(&t);
    assert_ok(qkv_csv_save(scratch("cars.csv"), (const char *const[]){"speed", "dist"},
                           (const double *const[]){back_x, back_y}, 2, CARS));
    for (int i = 0; i < GRID; i++) grid[i] = 4 - 0.63 + (21 + 2 * 0.63) * i / (GRID - 1.0);
    assert_ok(qkv_regression_silverman(&r, &start));
    out = regress(
        "cars", (const char *const[]){"--data", scratch("cars.csv"), "--x", "1", "--y", "2", NULL});
    loss = read_figure("cars", "loss");
    way = read_block(loss, 1, &steps, 4);
    h = way[4 * --steps + 1];
    return 0;
}

static int drop_cars(void **state)
{
    (void)state;
    free(out), free(loss), free(way);
    return 0;
}

static void assert_curve(const char *figure, int index, qkv_regression_kernel kernel,
                         double bandwidth)
{
    qkv_regression other = r;
    double mean[GRID];
    other.kernel = kernel;
    assert_ok(qkv_regression_predict(&other, &bandwidth, grid, GRID, mean, NULL));
    assert_series(figure, index, grid, mean, GRID);
}

static void the_loss_figure_is_the_descent(void **state)
{
    (void)state;
    size_t rows;
    double *losses = read_block(loss, 0, &rows, 4), cv, gradient;
    assert_int_equal(rows, steps + 1);
    for (size_t i = 0; i <= steps; i++) {
        assert_close(losses[4 * i], (double)i, 0);
        assert_close(way[4 * i], (double)i, 0);
        assert_ok(qkv_regression_cv_gradient(&r, &way[4 * i + 1], &cv, NULL, &gradient));
        assert_near(losses[4 * i + 1], cv);
    }
    assert_near(way[1], start);
    assert_true(fabs(gradient) < 1e-5 * cv);
    assert_non_null(strstr(loss, "set title 'Bandwidth of speed'"));
    free(losses);
}

static void what_is_printed_is_what_was_found(void **state)
{
    (void)state;
    double fitted[CARS], mean = 0, total = 0, inside = 0, cv[2];
    assert_ok(qkv_regression_cv(&r, &start, &cv[0], NULL));
    assert_ok(qkv_regression_cv(&r, &h, &cv[1], NULL));
    assert_ok(qkv_regression_predict(&r, &h, x, CARS, fitted, NULL));
    for (int i = 0; i < CARS; i++) mean += y[i] / CARS;
    for (int i = 0; i < CARS; i++) {
        total += (y[i] - mean) * (y[i] - mean);
        inside += (y[i] - fitted[i]) * (y[i] - fitted[i]);
    }
    assert_non_null(strstr(out, "dist of "));
    assert_non_null(strstr(out, "cars.csv: 50 rows\n"));
    assert_close(number_after(out, "\nsteps "), (double)steps, 0);
    assert_non_null(strstr(out, ", converged\n"));
    assert_true(number_after(out, "\ngradient ") < 1e-6 * cv[1]);
    assert_close(number_after(out, "loss before "), cv[0], 1e-5 * cv[0]);
    assert_close(number_after(out, "loss after "), cv[1], 1e-5 * cv[1]);
    const char *less = strstr(strstr(out, "loss after"), "(");
    assert_close(strtod(less + 1, NULL), 100 * (1 - cv[1] / cv[0]), 0.01);
    assert_close(number_after(out, "bandwidth "), h, 1e-5);
    assert_close(number_after(out, "of speed (started at "), start, 1e-5);
    assert_close(number_after(out, "R^2 "), 1 - CARS * cv[1] / total, 1e-4);
    assert_close(number_after(out, "leave-one-out\n "), 1 - inside / total, 1e-4);
}

static void the_fit_figure_is_the_data_and_both_curves(void **state)
{
    (void)state;
    char *fit = read_figure("cars", "fit");
    assert_series(fit, 0, x, y, CARS);
    assert_curve(fit, 1, QKV_REGRESSION_GAUSSIAN, start);
    assert_curve(fit, 2, QKV_REGRESSION_GAUSSIAN, h);
    assert_non_null(strstr(fit, "set xlabel 'speed'"));
    assert_non_null(strstr(fit, "set ylabel 'dist'"));
    assert_non_null(strstr(fit, "'bandwidth 2.51, the start'"));
    assert_non_null(strstr(fit, "'bandwidth 1.63, learned'"));
    assert_null(strstr(fit, "2 sin x"));
    free(fit);
}

static void the_kernels_figure_smooths_alike(void **state)
{
    (void)state;
    static const qkv_regression_kernel kernels[] = {QKV_REGRESSION_GAUSSIAN, QKV_REGRESSION_BOXCAR,
                                                    QKV_REGRESSION_CONSTANT,
                                                    QKV_REGRESSION_TRIANGULAR};
    /* Bandwidths a Gaussian one of 1 corresponds to: Marron & Nolan 1988. The constant has none. */
    const double canonical[] = {1, pow(4.5, 0.2), 1, pow(24, 0.2)};
    const double gaussian = pow(0.5 / sqrt(acos(-1)), 0.2);
    static const char *const titles[] = {"'Gaussian, bandwidth 1.63'", "'Boxcar, bandwidth 2.84'",
                                         "'Constant'",
                                         "'Triangular (Epanechikov), bandwidth 3.96'"};
    char *figure = read_figure("cars", "kernels");
    for (int k = 0; k < 4; k++) {
        double bandwidth = h * (k % 2 ? canonical[k] / gaussian : 1);
        assert_series(figure, 2 * k, x, y, CARS);
        assert_curve(figure, 2 * k + 1, kernels[k], bandwidth);
        assert_non_null(strstr(figure, titles[k]));
    }
    free(figure);
}

static void assert_range(const char *figure, const char *name, double first, double last)
{
    assert_near(number_after(figure, name), first);
    assert_near(strtod(strchr(strstr(figure, name), ':') + 1, NULL), last);
}

static void the_weights_figure_is_queries_over_keys(void **state)
{
    (void)state;
    enum { QUERIES = 50 };
    double q[QUERIES], mean[QUERIES], weights[QUERIES * CARS];
    for (int i = 0; i < QUERIES; i++) q[i] = grid[i * (GRID - 1) / (QUERIES - 1)];
    assert_ok(qkv_regression_predict(&r, &h, q, QUERIES, mean, weights));
    char *figure = read_figure("cars", "weights");
    size_t rows;
    double *shown = read_block(figure, 0, &rows, CARS);
    assert_int_equal(rows, QUERIES);
    for (int i = 0; i < QUERIES * CARS; i++) assert_near(shown[i], weights[i]);
    assert_non_null(strstr(figure, "set title 'Attention weights'"));
    assert_non_null(strstr(figure, "set xlabel 'Keys, in order of speed'"));
    assert_non_null(strstr(figure, "set ylabel 'Queries, by speed'"));
    assert_non_null(strstr(figure, "set xrange [-0.5:49.5]"));
    double half = (q[QUERIES - 1] - q[0]) / (QUERIES - 1) / 2;
    assert_range(figure, "set yrange [", q[QUERIES - 1] + half, q[0] - half);
    free(shown), free(figure);
}

static void the_predictions_are_the_curve(void **state)
{
    (void)state;
    double mean[GRID];
    qkv_table t;
    assert_ok(qkv_csv_load(&t, scratch("cars/predictions.csv"),
                           (const char *const[]){"speed", "dist_predicted"}, 2));
    assert_int_equal(t.rows, GRID);
    assert_ok(qkv_regression_predict(&r, &h, grid, GRID, mean, NULL));
    for (int i = 0; i < GRID; i++) {
        assert_near(t.data[2 * i], grid[i]);
        assert_near(t.data[2 * i + 1], mean[i]);
    }
    qkv_csv_free(&t);
}

/* ---- Several columns -------------------------------------------------------------------------
 */

enum { ROWS = 160 };

static void two_columns_are_drawn_and_saved_row_by_row(void **state)
{
    (void)state;
    double a[ROWS], b[ROWS], z[ROWS], pairs[2 * ROWS], mean[ROWS], learned[2];
    for (int i = 0; i < ROWS;
         i++) { /* b and z are unlike everywhere, a falls: to be turned round */
        a[i] = 5 - 0.03 * i;
        b[i] = 100 * uniform(1, (uint64_t)i, -1, 1);
        z[i] = sin(2 * a[i]) + cos(0.03 * b[i]);
    }
    assert_ok(qkv_csv_save(scratch("ab.csv"), (const char *const[]){"a", "b", "z"},
                           (const double *const[]){a, b, z}, 3, ROWS));
    char *text = regress("ab", (const char *const[]){"--data", scratch("ab.csv"), "--x", "a,b",
                                                     "--y", "z", "--start", "1,20", NULL});
    assert_non_null(strstr(text, "of a (started at 1)"));
    assert_non_null(strstr(text, "of b (started at 20)"));
    assert_true(number_after(text, "R^2 ") > 0.9);

    qkv_table t;
    assert_ok(qkv_csv_load(&t, scratch("ab/predictions.csv"),
                           (const char *const[]){"a", "b", "z", "z_predicted"}, 4));
    assert_int_equal(t.rows, ROWS);
    char *figure = read_figure("ab", "loss");
    for (int c = 0; c < 2; c++) {
        size_t n;
        double *series = read_block(figure, 1 + c, &n, 4);
        assert_near(series[1], c ? 20 : 1);
        learned[c] = series[4 * (n - 1) + 1];
        free(series);
    }
    assert_non_null(strstr(figure, "title 'a'"));
    assert_non_null(strstr(figure, "title 'b'"));
    assert_non_null(strstr(figure, "\nset logscale y")); /* from below 1 to 20 */
    free(figure);

    for (int i = 0; i < ROWS; i++) {
        int from = ROWS - 1 - i;
        pairs[2 * i] = a[from];
        pairs[2 * i + 1] = b[from];
        mean[i] = z[from];
    }
    memcpy(z, mean, sizeof z);
    const qkv_regression two = {.x = pairs, .y = z, .n = ROWS, .d_x = 2, .bandwidths = 2};
    assert_ok(qkv_regression_leave_one_out(&two, learned, mean));
    for (int i = 0; i < ROWS; i++) {
        const double expected[] = {pairs[2 * i], pairs[2 * i + 1], z[i], mean[i]};
        for (int c = 0; c < 4; c++) assert_near(t.data[4 * i + c], expected[c]);
    }
    figure = read_figure("ab", "fit");
    double ends[] = {INFINITY, -INFINITY};
    for (int i = 0; i < ROWS; i++) {
        ends[0] = fmin(ends[0], z[i]);
        ends[1] = fmax(ends[1], z[i]);
    }
    assert_series(figure, 0, ends, ends, 2);
    assert_series(figure, 1, z, mean, ROWS);
    assert_non_null(strstr(figure, "'z, observed'"));
    assert_non_null(strstr(figure, "'z, predicted'"));
    free(figure);

    figure = read_figure("ab", "weights"); /* 50 of the queries, all of the keys */
    double weights[ROWS];
    size_t n;
    double *shown = read_block(figure, 0, &n, 80);
    assert_int_equal(n, 50);
    assert_ok(qkv_regression_predict(&two, learned, pairs + 2 * (ROWS - 1), 1, mean, weights));
    for (int j = 0; j < 80; j++)
        assert_near(shown[49 * 80 + j], weights[2 * j] + weights[2 * j + 1]);
    assert_non_null(strstr(figure, "'Keys, in order of a, 2 in a cell'"));
    assert_non_null(strstr(figure, "'Queries, in order of a'"));
    assert_range(figure, "set xrange [", -0.5, ROWS - 0.5);
    assert_range(figure, "set yrange [", ROWS - 1 + 159 / 98.0, -159 / 98.0);
    free(shown), free(figure), free(text);
    qkv_csv_free(&t);
}

/* ---- The toy data ----------------------------------------------------------------------------
 */

static void the_toy_run_starts_wide_and_finds_the_curve(void **state)
{
    (void)state;
    char *text = regress("toy", (const char *const[]){NULL});
    assert_non_null(strstr(text, "40 rows"));
    assert_non_null(strstr(text, "of x (started at 3)"));
    assert_true(number_after(text, "loss after ") < 0.85 * number_after(text, "loss before "));
    free(text);

    size_t n, m;
    text = regress("toy", (const char *const[]){"--n", "3", NULL});
    char *figure = read_figure("toy", "weights"); /* two queries a key: no strip */
    free(read_block(figure, 0, &n, 3));
    assert_int_equal(n, 6);
    free(figure), free(text);

    text = regress("toy", (const char *const[]){"--start", "1e-9", NULL});
    figure = read_figure("toy", "loss"); /* no step was taken, which shows as one point */
    free(read_block(figure, 0, &n, 4));
    assert_int_equal(n, 1);
    assert_non_null(strstr(figure, "with points"));
    assert_null(strstr(figure, "with lines"));
    free(figure), free(text);

    text = regress("toy", (const char *const[]){"--n", "201", NULL});
    figure = read_figure("toy", "weights"); /* 3 keys a cell: none is lost */
    double *cells = read_block(figure, 0, &n, 67);
    assert_int_equal(n, 50);
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (int j = 0; j < 67; j++) sum += cells[67 * i + (size_t)j];
        assert_near(sum, 1);
    }
    assert_range(figure, "set xrange [", -0.5, 200.5);
    free(cells), free(figure), free(text);

    text =
        regress("toy", (const char *const[]){"--n", "1500", "--grid", "30", "--seed", "7", NULL});
    figure = read_figure("toy", "fit");
    double *data = read_block(figure, 0, &n, 4), *learned = read_block(figure, 2, &m, 4);
    double *truth = read_block(figure, 3, &m, 4), mean = 0, squares = 0, middle = 0;
    assert_int_equal(n, 1500);
    assert_int_equal(m, 30);
    for (size_t i = 0; i < n; i++) {
        double noise = data[4 * i + 1] - (2 * sin(data[4 * i]) + data[4 * i]);
        mean += noise / (double)n;
        squares += noise * noise / (double)n;
        middle += data[4 * i] / (double)n;
    }
    /* Five standard errors. */
    assert_close(mean, 0, 5 / sqrt(1500));
    assert_close(squares, 1, 5 * sqrt(2 / 1500.0));
    assert_close(middle, 2.5, 5 * 5 / sqrt(12 * 1500));
    for (size_t i = 1; i < m - 1; i++) {
        double at = truth[4 * i];
        assert_near(truth[4 * i + 1], 2 * sin(at) + at);
        assert_close(learned[4 * i + 1], truth[4 * i + 1], 0.5);
    }
    free(data), free(learned), free(truth), free(figure), free(text);
}

/* ---- The covariance exercise -----------------------------------------------------------------
 */

static void the_ellipses_are_the_covariance_of_the_keys(void **state)
{
    (void)state;
    enum { KEYS = 9 };
    char *text = draw(QKV_BIN_DIR "/covariance", "cov",
                      (const char *const[]){"--keys", "9", "--scale", "1.5", "--seed", "3", NULL});
    assert_non_null(strstr(text, "a(q, k) = 1.5 q'k, 9 keys in 2 dimensions"));
    assert_true(number_after(text, " tape and covariance ") < 1e-14);
    double of_differences = number_after(text, " differences and covariance ");
    assert_true(of_differences > 1e-14 && of_differences < 1e-11); /* not the tape's again */

    char *figure = read_figure("cov", "covariance");
    size_t n[5];
    double *block[5]; /* the keys, the ellipses, the query, the attention */
    for (int i = 0; i < 5; i++) block[i] = read_block(figure, i, &n[i], 4);
    assert_int_equal(n[0], KEYS);
    const double *q = block[3], *k = block[0];
    double p[KEYS], sum = 0, most = 0, mean[2] = {0}, a = 0, b = 0, c = 0;
    for (int j = 0; j < KEYS; j++) sum += p[j] = exp(1.5 * (q[0] * k[4 * j] + q[1] * k[4 * j + 1]));
    for (int j = 0; j < KEYS; j++) {
        p[j] /= sum;
        most = fmax(most, p[j]);
        for (int i = 0; i < 2; i++) mean[i] += p[j] * k[4 * j + i];
    }
    for (int j = 0; j < KEYS; j++) {
        double u = k[4 * j] - mean[0], v = k[4 * j + 1] - mean[1];
        a += p[j] * u * u, b += p[j] * u * v, c += p[j] * v * v;
        assert_near(k[4 * j + 3], fmax(1.5, 24 * sqrt(p[j] / most)));
    }
    for (int i = 0; i < 2; i++) assert_near(block[4][i], mean[i]);
    for (int radius = 1; radius <= 2; radius++) {
        const double *curve = block[radius];
        double widest = 0, highest = 0; /* of the whole curve: radius standard deviations */
        for (size_t i = 0; i < n[radius]; i++) {
            double u = curve[4 * i] - mean[0], v = curve[4 * i + 1] - mean[1];
            double square = (c * u * u - 2 * b * u * v + a * v * v) / (a * c - b * b);
            assert_close(square, radius * radius, 1e-5);
            widest = fmax(widest, u), highest = fmax(highest, v);
        }
        assert_close(widest, radius * sqrt(a), 1e-2);
        assert_close(highest, radius * sqrt(c), 1e-2);
    }
    assert_non_null(strstr(figure, "title 'covariance, 1 \u03c3'"));
    assert_non_null(strstr(figure, "title 'covariance, 2 \u03c3'"));
    double printed[2]; /* the covariance, scaled, is the last matrix of the first row */
    const char *row = strstr(text, "Cov_p[k]");
    row = strchr(row, '\n');
    char *end = (char *)row;
    for (int i = 0; i < 6; i++) printed[i % 2] = strtod(end, &end);
    assert_close(printed[0], 1.5 * a, 1e-6);
    assert_close(printed[1], 1.5 * b, 1e-6);
    for (int i = 0; i < 5; i++) free(block[i]);
    free(figure), free(text);
}

/* ---- The name database -----------------------------------------------------------------------
 */

static void the_weights_of_the_names_are_grey_where_a_record_is_gone(void **state)
{
    (void)state;
    enum { PEOPLE = 6, LIPTON = 1, HU = 4, ASKED = 7 };
    free(
        draw(QKV_BIN_DIR "/database", "names",
             (const char *const[]){"--query", "lip", "--query", "smola", "--without", "Hu", NULL}));
    char *figure = read_figure("names", "database_weights");
    /* Shared letters 3, 2 and 0 three times, over a temperature of 1/2. */
    const double softmax = exp(6) / (exp(6) + exp(4) + 3);
    const double expected[] = {0, 1, softmax}; /* Lipton's weight: exact, nearest, softmax */
    for (int mode = 0; mode < 3; mode++) {
        size_t rows;
        double *w = read_block(figure, mode, &rows, PEOPLE);
        assert_int_equal(rows, ASKED);
        assert_near(w[LIPTON], expected[mode]);
        for (int i = 0; i < PEOPLE; i++) {
            assert_int_equal(isnan(w[i]), i == HU);
            if (mode < 2 && i != HU && i != LIPTON) assert_close(w[i], 0, 0);
        }
        free(w);
    }
    free(figure);
}

/* The chapter's story: two databases, the second without Li. */
static void each_row_of_the_names_says_whom_it_asks(void **state)
{
    (void)state;
    free(draw(QKV_BIN_DIR "/database", "story", (const char *const[]){NULL}));
    char *figure = read_figure("story", "database_weights");
    const char *first = strstr(figure, "set ylabel 'Queries to all records'");
    assert_non_null(first);
    assert_non_null(strstr(first, "set ylabel 'Queries to all but Li'"));
    assert_non_null(strstr(first, "set xlabel 'Keys (grey: removed)'"));
    /* Ticks, blank or not, stand at every name of every panel. */
    int panels = 0;
    for (char *at = figure; (at = strstr(at, "set xtics ")); at++) {
        if (strncmp(at, "set xtics offset", 16) == 0) continue;
        assert_non_null(memmem(at, strcspn(at, "\n"), " 5)", 3));
        panels++;
    }
    assert_int_equal(panels, 6);
    free(figure);
    figure = read_figure("story", "database_bars");
    assert_non_null(strstr(figure, "\"Li\" asked of all but Li"));
    free(figure);
}

/* Who shares no letter with anybody is nearest to nobody, in the figure as in the text. */
static void the_nearest_name_to_none_is_none(void **state)
{
    (void)state;
    char *text = draw(QKV_BIN_DIR "/database", "none", (const char *const[]){"--query", "Q", NULL});
    assert_non_null(strstr(text, "approximate: no answer"));
    char *figure = read_figure("none", "database_weights");
    size_t rows;
    double *w = read_block(figure, 1, &rows, 6);
    for (int i = 0; i < 6; i++) assert_close(w[i], 0, 0);
    assert_close(w[6], 1, 0); /* Zhang is nearest to Zhang */
    free(w), free(figure), free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_loss_figure_is_the_descent),
        cmocka_unit_test(what_is_printed_is_what_was_found),
        cmocka_unit_test(the_fit_figure_is_the_data_and_both_curves),
        cmocka_unit_test(the_kernels_figure_smooths_alike),
        cmocka_unit_test(the_weights_figure_is_queries_over_keys),
        cmocka_unit_test(the_predictions_are_the_curve),
        cmocka_unit_test(two_columns_are_drawn_and_saved_row_by_row),
        cmocka_unit_test(the_toy_run_starts_wide_and_finds_the_curve),
        cmocka_unit_test(the_ellipses_are_the_covariance_of_the_keys),
        cmocka_unit_test(each_row_of_the_names_says_whom_it_asks),
        cmocka_unit_test(the_nearest_name_to_none_is_none),
        cmocka_unit_test(the_weights_of_the_names_are_grey_where_a_record_is_gone),
    };
    return cmocka_run_group_tests(tests, fit_cars, drop_cars);
}
