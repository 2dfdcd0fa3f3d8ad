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
#include "qkv/plot.h"
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

static char *read_figure(const char *directory, const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "%s/%s.svg", directory, name);
    return read_file(scratch(path), NULL);
}

/* Numbers [rows, columns] of block number index of a figure's data, to be freed. Of a series, which
 * has 4 columns, the NaN that it starts with is left out. */
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
        if (n == columns && columns == 4 && isnan(block[0])) n = 0;
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

static void assert_same(double actual, double expected)
{
    if (isnan(expected))
        assert_true(isnan(actual));
    else
        assert_near(actual, expected);
}

/* Column column of the series at index, over at, is value, each [n]; what is left out at the
 * beginning is left out of the block, too. */
static void assert_values(const char *figure, int index, int column, const double *at,
                          const double *value, size_t n)
{
    size_t rows, first = 0;
    while (first < n && isnan(value[first])) first++;
    double *block = read_block(figure, index, &rows, 4);
    assert_int_equal(rows, n - first);
    for (size_t i = 0; i < rows; i++) {
        assert_same(block[4 * i], isnan(value[first + i]) ? NAN : at[first + i]);
        assert_same(block[4 * i + (size_t)column], value[first + i]);
    }
    free(block);
}

static void assert_series(const char *figure, int index, const double *at, const double *value,
                          size_t n)
{
    assert_values(figure, index, 1, at, value, n);
}

static void assert_range(const char *figure, const char *name, double first, double last)
{
    assert_near(number_after(figure, name), first);
    assert_near(strtod(strchr(strstr(figure, name), ':') + 1, NULL), last);
}

/* ---- The regressor on one column: cars -------------------------------------------------------
 */

static double x[CARS], y[CARS], grid[GRID], h;
static qkv_regression r = {.x = x, .y = y, .n = CARS};

/* Runs the program on cars from the last row to the first, whose weights it must put in order. */
static int fit_cars(void **state)
{
    (void)state;
    qkv_table t;
    assert_ok(qkv_csv_load(&t, QKV_TEST_DATA "/../../examples/data/cars.csv",
                           (const char *const[]){"speed", "dist"}, 2));
    assert_int_equal(t.rows, CARS);
    for (int i = 0; i < CARS; i++) {
        x[i] = t.data[2 * (CARS - 1 - i)];
        y[i] = t.data[2 * (CARS - 1 - i) + 1];
    }
    qkv_csv_free(&t);
    assert_ok(qkv_csv_save(scratch("cars.csv"), (const char *const[]){"speed", "dist"},
                           (const double *const[]){x, y}, 2, CARS));
    for (int i = 0; i < GRID; i++) grid[i] = 4 + 21.0 * i / (GRID - 1);
    free(regress("cars", (const char *const[]){"--data", scratch("cars.csv"), "--bands", "0.9",
                                               "--report", scratch("cars.json"), NULL}));
    char *report = read_file(scratch("cars.json"), NULL);
    h = number_after(report, "\"bandwidth\": ");
    free(report);
    return 0;
}

static double sigma_of_cars(void)
{
    qkv_regression_statistics statistics;
    assert_ok(qkv_regression_measure(&r, &h, &statistics, NULL));
    return sqrt(statistics.sigma2);
}

static const double z90 = 1.6448536269514722;

static void the_fit_figure_is_data_curve_and_band(void **state)
{
    (void)state;
    double mean[GRID], norm[GRID], effective[GRID], lower[GRID], upper[GRID];
    qkv_regression_results out = {.mean = mean, .norm = norm, .n_effective = effective};
    assert_ok(qkv_regression_predict(&r, &h, grid, GRID, &out));
    double sigma = sigma_of_cars();
    for (int i = 0; i < GRID; i++) {
        if (effective[i] < 2) mean[i] = NAN; /* extrapolation */
        lower[i] = mean[i] - z90 * sigma * norm[i];
        upper[i] = mean[i] + z90 * sigma * norm[i];
    }
    char *figure = read_figure("cars", "fit");
    assert_values(figure, 0, 1, grid, lower, GRID);
    assert_values(figure, 0, 2, grid, upper, GRID);
    assert_series(figure, 1, x, y, CARS);
    assert_series(figure, 2, grid, mean, GRID);
    assert_non_null(strstr(figure, "set xlabel 'speed'"));
    assert_non_null(strstr(figure, "set label 1 'dist'"));
    assert_non_null(strstr(figure, "title '90 % band'"));
    assert_non_null(strstr(figure, "title 'fit, bandwidth 1.63'"));
    assert_null(strstr(figure, "2 sin x"));
    free(figure);
}

static void the_gradient_figure_is_the_slope_and_its_band(void **state)
{
    (void)state;
    double slope[GRID], norm[GRID], effective[GRID], upper[GRID], zero[GRID] = {0};
    qkv_regression_results out = {
        .gradient = slope, .gradient_norm = norm, .n_effective = effective};
    assert_ok(qkv_regression_predict(&r, &h, grid, GRID, &out));
    double sigma = sigma_of_cars();
    for (int i = 0; i < GRID; i++) {
        if (effective[i] < 2) slope[i] = NAN;
        upper[i] = slope[i] + z90 * sigma * norm[i];
    }
    char *figure = read_figure("cars", "gradient");
    assert_values(figure, 0, 2, grid, upper, GRID);
    assert_series(figure, 1, grid, zero, GRID);
    assert_series(figure, 2, grid, slope, GRID);
    assert_non_null(strstr(figure, "set label 1 'd dist / d speed'"));
    free(figure);
}

static void the_criterion_figure_marks_the_bandwidth(void **state)
{
    (void)state;
    char *figure = read_figure("cars", "criterion");
    size_t n, one;
    double *curve = read_block(figure, 1, &n, 4), *chosen = read_block(figure, 2, &one, 4), value;
    assert_int_equal(n, 80);
    assert_int_equal(one, 1);
    assert_near(chosen[0], h);
    assert_true(curve[0] < h / 10 && curve[4 * n - 4] > 10 * h);
    assert_near(curve[4] / curve[0], curve[8] / curve[4]);
    for (size_t i = 0; i < n; i++) {
        assert_ok(
            qkv_regression_objective(&r, QKV_REGRESSION_LOO, &curve[4 * i], &value, NULL, NULL));
        assert_close(curve[4 * i + 1], value, 1e-6 * value); /* h has 10 digits there */
        assert_true(curve[4 * i + 1] >= chosen[1]);
    }
    assert_non_null(strstr(figure, "\nset logscale x\n"));
    assert_non_null(strstr(figure, "title 'chosen: 1.63'"));
    free(curve), free(chosen), free(figure);
}

static void assert_curve(const char *figure, int index, qkv_regression_kernel kernel,
                         double bandwidth)
{
    qkv_regression other = r;
    double mean[GRID];
    other.kernel = kernel;
    assert_ok(qkv_regression_predict(&other, &bandwidth, grid, GRID,
                                     &(qkv_regression_results){.mean = mean}));
    assert_series(figure, index, grid, mean, GRID);
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
    static const char *const titles[] = {"'Gaussian, 1.63'", "'Boxcar, 2.84'", "'Constant'",
                                         "'Triangular (Epanechikov), 3.96'"};
    char *figure = read_figure("cars", "kernels");
    for (int k = 0; k < 4; k++) {
        double bandwidth = h * (k % 2 ? canonical[k] / gaussian : 1);
        assert_series(figure, 2 * k, x, y, CARS);
        assert_curve(figure, 2 * k + 1, kernels[k], bandwidth);
        assert_non_null(strstr(figure, titles[k]));
    }
    free(figure);
    figure = read_figure("cars", "widths");
    for (int k = 0; k < 4; k++)
        assert_curve(figure, 2 * k + 1, QKV_REGRESSION_GAUSSIAN, h * (1 << k) / 4);
    assert_non_null(strstr(figure, "'Bandwidth 0.407'"));
    free(figure);
}

/* The weights of 50 queries along x, the keys in the order of x: ascending, or as they are if that
 * is turned round. To be freed. */
static double *expected_weights(const qkv_regression *of, double bandwidth)
{
    enum { QUERIES = 50 };
    ptrdiff_t n = of->n;
    bool falls = of->x[0] > of->x[n - 1];
    double from = of->x[falls ? n - 1 : 0], to = of->x[falls ? 0 : n - 1], q[QUERIES];
    for (int i = 0; i < QUERIES; i++)
        q[i] = i + 1 < QUERIES ? from + i * ((to - from) / (QUERIES - 1)) : to;
    double *weights = calloc((size_t)(QUERIES * n), sizeof *weights);
    assert_ok(qkv_regression_predict(of, &bandwidth, q, QUERIES,
                                     &(qkv_regression_results){.weights = weights}));
    for (int i = 0; falls && i < QUERIES; i++)
        for (ptrdiff_t j = 0; j < n / 2; j++) {
            double *row = weights + i * n, kept = row[j];
            row[j] = row[n - 1 - j];
            row[n - 1 - j] = kept;
        }
    return weights;
}

/* Four heatmaps in a row are more cells than are drawn one by one: the figure is the same file as
 * one drawn of the weights expected. */
static void assert_four(const char *directory, const char *name, const qkv_regression *each,
                        const double *bandwidths, const char *const *titles, const char *x_name)
{
    ptrdiff_t n = each->n, size = 50 * n;
    double *all = calloc((size_t)(4 * size), sizeof *all);
    for (int k = 0; k < 4; k++) {
        double *weights = expected_weights(&each[k], bandwidths[k]);
        memcpy(all + k * size, weights, (size_t)size * sizeof *all);
        free(weights);
    }
    char keys[32], queries[32];
    snprintf(keys, sizeof keys, "Keys, by %s", x_name);
    snprintf(queries, sizeof queries, "Queries, by %s", x_name);
    double first = fmin(each->x[0], each->x[n - 1]), last = fmax(each->x[0], each->x[n - 1]),
           half = (last - first) / 98;
    const qkv_heatmap_options o = {.figure.path = scratch("four.svg"),
                                   .x_label = keys,
                                   .y_label = queries,
                                   .x_range = {-0.5, (double)n - 0.5},
                                   .y_range = {first - half, last + half},
                                   .titles = titles};
    setenv("QKV_GNUPLOT", scratch("copier"), 1);
    assert_ok(qkv_show_heatmaps(all, (ptrdiff_t[]){1, 4, 50, n}, &o));
    unsetenv("QKV_GNUPLOT");
    char *expected = read_file(scratch("four.svg"), NULL), *found = read_figure(directory, name);
    if (strcmp(found, expected) != 0) fail_msg("%s/%s has other weights", directory, name);
    free(all), free(expected), free(found);
}

static void the_weights_figures_are_queries_over_keys(void **state)
{
    (void)state;
    char *figure = read_figure("cars", "weights");
    size_t rows;
    double *shown = read_block(figure, 0, &rows, CARS), *weights = expected_weights(&r, h);
    assert_int_equal(rows, 50);
    for (int i = 0; i < 50 * CARS; i++) assert_near(shown[i], weights[i]);
    free(shown), free(weights);
    assert_non_null(strstr(figure, "set title 'Attention weights'"));
    assert_non_null(strstr(figure, "set xlabel 'Keys, by speed'"));
    assert_non_null(strstr(figure, "set label 1 'Queries, by speed'"));
    assert_non_null(strstr(figure, "set xrange [-0.5:49.5]"));
    assert_range(figure, "set yrange [", 25 + 21 / 98.0, 4 - 21 / 98.0);
    free(figure);
    const qkv_regression same[] = {r, r, r, r};
    const double widths[] = {h / 4, h / 2, h, 2 * h};
    static const char *const titles[] = {"Bandwidth 0.407", "Bandwidth 0.815", "Bandwidth 1.63",
                                         "Bandwidth 3.26"};
    assert_four("cars", "widths_weights", same, widths, titles, "speed");
}

/* Curves have gaps there, whatever queries would be told. */
static void where_no_row_is_in_reach_there_is_no_curve(void **state)
{
    (void)state;
    static const char csv[] = "x,y\n0,1\n1,2\n9,3\n";
    write_file(scratch("gap.csv"), csv, sizeof csv - 1);
    free(regress("gap", (const char *const[]){"--data", scratch("gap.csv"), "--kernel", "boxcar",
                                              "--bandwidth", "1.5", "--empty", "error", NULL}));
    char *figure = read_figure("gap", "kernels");
    assert_non_null(strstr(figure, "Boxcar, 1.5"));
    free(figure);
    figure = read_figure("gap", "criterion"); /* only where every row has another in reach */
    size_t n;
    double *curve = read_block(figure, 1, &n, 4);
    bool some = false;
    for (size_t i = 0; i < n; i++) {
        assert_true(isnan(curve[4 * i + 1]) || curve[4 * i] >= 8);
        some = some || isfinite(curve[4 * i + 1]);
    }
    assert_true(some);
    free(curve), free(figure);
}

/* ---- On several columns ----------------------------------------------------------------------
 */

enum { ROWS = 160, SIDE = 60 };

static double pairs[2 * ROWS], heights[ROWS], low[2], high[2];

static void make_pairs(void)
{
    for (int c = 0; c < 2; c++) low[c] = INFINITY, high[c] = -INFINITY;
    for (int i = 0; i < ROWS; i++) { /* a and b are unlike everywhere */
        pairs[2 * i] = 5 - 0.03 * i;
        pairs[2 * i + 1] = 100 * uniform(1, (uint64_t)i, -1, 1);
        heights[i] = sin(2 * pairs[2 * i]) + cos(0.03 * pairs[2 * i + 1]);
        for (int c = 0; c < 2; c++) {
            low[c] = fmin(low[c], pairs[2 * i + c]);
            high[c] = fmax(high[c], pairs[2 * i + c]);
        }
    }
    double a[ROWS], b[ROWS];
    for (int i = 0; i < ROWS; i++) a[i] = pairs[2 * i], b[i] = pairs[2 * i + 1];
    assert_ok(qkv_csv_save(scratch("ab.csv"), (const char *const[]){"a", "b", "z"},
                           (const double *const[]){a, b, heights}, 3, ROWS));
}

static void two_columns_are_a_surface_blank_where_it_extrapolates(void **state)
{
    (void)state;
    make_pairs();
    const double bandwidth[] = {0.2, 20};
    free(regress(
        "ab", (const char *const[]){"--data", scratch("ab.csv"), "--bandwidth", "0.2,20", NULL}));
    char *figure = read_figure("ab", "surface");
    size_t n;
    double *shown = read_block(figure, 0, &n, SIDE);
    assert_int_equal(n, SIDE);
    const qkv_regression two = {.x = pairs, .y = heights, .n = ROWS, .d_x = 2, .bandwidths = 2};
    int blank = 0, solid = 0;
    for (int row = 0; row < SIDE; row++)
        for (int col = 0; col < SIDE; col++) { /* b rises from the last row to the first */
            double q[2] = {low[0] + (high[0] - low[0]) * col / (SIDE - 1),
                           high[1] - (high[1] - low[1]) * row / (SIDE - 1)},
                   mean, effective;
            assert_ok(qkv_regression_predict(
                &two, bandwidth, q, 1,
                &(qkv_regression_results){.mean = &mean, .n_effective = &effective}));
            double found = shown[row * SIDE + col];
            if (effective < 2) assert_true(isnan(found));
            if (isfinite(found)) assert_near(found, mean);
            blank += isnan(found), solid += isfinite(found);
        }
    assert_true(blank > 20 && solid > 2500);
    assert_range(figure, "set xrange [", low[0] - (high[0] - low[0]) / 118,
                 high[0] + (high[0] - low[0]) / 118);
    assert_range(figure, "set yrange [", low[1] - (high[1] - low[1]) / 118,
                 high[1] + (high[1] - low[1]) / 118);
    free(shown), free(figure);

    figure = read_figure("ab", "fit");
    double mean[ROWS], ends[] = {INFINITY, -INFINITY};
    assert_ok(
        qkv_regression_predict(&two, bandwidth, NULL, 0, &(qkv_regression_results){.mean = mean}));
    for (int i = 0; i < ROWS; i++) {
        ends[0] = fmin(ends[0], heights[i]);
        ends[1] = fmax(ends[1], heights[i]);
    }
    assert_series(figure, 0, ends, ends, 2);
    assert_series(figure, 1, heights, mean, ROWS);
    assert_non_null(strstr(figure, "'z, observed'"));
    assert_non_null(strstr(figure, "'z, predicted'"));
    free(figure);

    figure = read_figure("ab", "weights"); /* 50 of the rows, all of the keys, by a */
    double weights[ROWS];
    shown = read_block(figure, 0, &n, 80);
    assert_int_equal(n, 50);
    assert_ok(qkv_regression_predict(&two, bandwidth, pairs, 1,
                                     &(qkv_regression_results){.weights = weights}));
    for (int j = 0; j < 80; j++)
        assert_near(shown[49 * 80 + j], weights[ROWS - 1 - 2 * j] + weights[ROWS - 2 - 2 * j]);
    assert_non_null(strstr(figure, "'Keys, by a (2 a cell)'"));
    free(shown), free(figure);

    figure = read_figure("ab", "criterion"); /* one panel for each bandwidth */
    assert_non_null(strstr(figure, "'bandwidth of a'"));
    assert_non_null(strstr(figure, "'bandwidth of b'"));
    double *chosen = read_block(figure, 5, &n, 4);
    assert_near(chosen[0], 20);
    free(chosen), free(figure);
}

static void classes_are_curves_of_their_probabilities(void **state)
{
    (void)state;
    static const char csv[] = "x,k\n1,u\n2,u\n3,v\n4,u\n5,v\n6,v\n7,w\n8,w\n9,v\n10,w\n";
    write_file(scratch("classes.csv"), csv, sizeof csv - 1);
    free(regress("classes",
                 (const char *const[]){"--data", scratch("classes.csv"), "--y", "k", "--classify",
                                       "--bandwidth", "0.65", "--grid", "10", NULL}));
    const double at[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, u[] = {1, 1, 0, 1, 0, 0, 0, 0, 0, 0},
                 one = 0.65;
    double p[10], effective[10];
    const qkv_regression of_u = {.x = at, .y = u, .n = 10};
    assert_ok(qkv_regression_predict(
        &of_u, &one, at, 10, &(qkv_regression_results){.mean = p, .n_effective = effective}));
    for (int i = 0; i < 10; i++)
        if (effective[i] < 2) p[i] = NAN;
    assert_true(isnan(p[0]) && isfinite(p[1]) && isnan(p[9])); /* the ends are extrapolation */
    char *figure = read_figure("classes", "fit");
    assert_series(figure, 3, at, p, 10); /* after the bands */
    assert_non_null(strstr(figure, "title 'u'"));
    assert_non_null(strstr(figure, "title 'w'"));
    size_t n;
    double *band = read_block(figure, 0, &n, 4);
    for (size_t i = 0; i < n; i++) assert_false(band[4 * i + 1] < 0 || band[4 * i + 2] > 1);
    free(band), free(figure);
}

/* ---- The toy data ----------------------------------------------------------------------------
 */

static void the_toy_run_is_the_chapter(void **state)
{
    (void)state;
    static const double widths[] = {0.1, 0.2, 0.5, 1};
    static const qkv_regression_kernel kernels[] = {QKV_REGRESSION_GAUSSIAN, QKV_REGRESSION_BOXCAR,
                                                    QKV_REGRESSION_CONSTANT,
                                                    QKV_REGRESSION_TRIANGULAR};
    char *text = regress("toy", (const char *const[]){"--save", scratch("toy.qkv"), NULL});
    assert_non_null(strstr(text, "y = 2 sin x + x + noise: 40 rows"));
    free(text);
    qkv_regression_model m;
    assert_ok(qkv_regression_load(scratch("toy.qkv"), &m));
    double at[GRID], truth[GRID], mean[GRID];
    for (int i = 0; i < GRID; i++) {
        at[i] = m.r.x[0] + (m.r.x[39] - m.r.x[0]) * i / (GRID - 1);
        truth[i] = 2 * sin(at[i]) + at[i];
    }
    char *by_kernel = read_figure("toy", "kernels"), *by_width = read_figure("toy", "widths");
    for (int k = 0; k < 4; k++) {
        qkv_regression of = m.r;
        assert_series(by_kernel, 3 * k, m.r.x, m.r.y, 40);
        of.kernel = kernels[k];
        assert_ok(qkv_regression_predict(&of, &(double){1}, at, GRID,
                                         &(qkv_regression_results){.mean = mean}));
        assert_series(by_kernel, 3 * k + 1, at, mean, GRID);
        assert_series(by_kernel, 3 * k + 2, at, truth, GRID);
        of.kernel = QKV_REGRESSION_GAUSSIAN;
        assert_ok(qkv_regression_predict(&of, &widths[k], at, GRID,
                                         &(qkv_regression_results){.mean = mean}));
        assert_series(by_width, 3 * k + 1, at, mean, GRID);
    }
    assert_non_null(strstr(by_kernel, "'Triangular (Epanechikov), 1'"));
    assert_non_null(strstr(by_width, "'Gaussian, width 0.1'"));
    free(by_kernel), free(by_width);
    char *figure = read_figure("toy", "fit");
    assert_series(figure, 3, at, truth, GRID);
    free(figure);
    qkv_regression each[] = {m.r, m.r, m.r, m.r};
    static const char *const by_width_titles[] = {"Gaussian, width 0.1", "Gaussian, width 0.2",
                                                  "Gaussian, width 0.5", "Gaussian, width 1"};
    assert_four("toy", "widths_weights", each, widths, by_width_titles, "x");
    for (int k = 0; k < 4; k++) each[k].kernel = kernels[k];
    static const char *const by_kernel_titles[] = {"Gaussian, 1", "Boxcar, 1", "Constant",
                                                   "Triangular (Epanechikov), 1"};
    assert_four("toy", "kernels_weights", each, (const double[]){1, 1, 1, 1}, by_kernel_titles,
                "x");
    qkv_regression_model_free(&m);
}

static void the_noise_of_the_toy_data_is_normal(void **state)
{
    (void)state;
    double mean = 0, squares = 0, middle = 0;
    enum { SEEDS = 25, TOY = 40 };
    for (int seed = 0; seed < SEEDS; seed++) {
        char text[8];
        snprintf(text, sizeof text, "%d", seed);
        ran done =
            run((const char *const[]){QKV_BIN_DIR "/nadaraya_watson", "--seed", text, "--plot", "",
                                      "--bandwidth", "1", "--save", scratch("seed.qkv"), NULL},
                NULL);
        assert_int_equal(done.exit_code, 0);
        ran_free(&done);
        qkv_regression_model m;
        assert_ok(qkv_regression_load(scratch("seed.qkv"), &m));
        for (int i = 0; i < TOY; i++) {
            double noise = m.r.y[i] - (2 * sin(m.r.x[i]) + m.r.x[i]);
            mean += noise / (SEEDS * TOY);
            squares += noise * noise / (SEEDS * TOY);
            middle += m.r.x[i] / (SEEDS * TOY);
        }
        qkv_regression_model_free(&m);
    }
    /* Five standard errors. */
    assert_close(mean, 0, 5 / sqrt(SEEDS * TOY));
    assert_close(squares, 1, 5 * sqrt(2.0 / (SEEDS * TOY)));
    assert_close(middle, 2.5, 5 * 5 / sqrt(12.0 * SEEDS * TOY));
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
    double printed[2]; /* the covariance, scaled, is the second matrix of its row */
    const char *row = strstr(text, "Cov_p[k]");
    row = strchr(row, '\n');
    char *end = (char *)row;
    for (int i = 0; i < 4; i++) printed[i % 2] = strtod(end, &end);
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
    const char *first = strstr(figure, "set label 1 'Queries to all records'");
    assert_non_null(first);
    assert_non_null(strstr(first, "set label 1 'Queries to all but Li'"));
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
        cmocka_unit_test(the_fit_figure_is_data_curve_and_band),
        cmocka_unit_test(the_gradient_figure_is_the_slope_and_its_band),
        cmocka_unit_test(the_criterion_figure_marks_the_bandwidth),
        cmocka_unit_test(the_kernels_figure_smooths_alike),
        cmocka_unit_test(the_weights_figures_are_queries_over_keys),
        cmocka_unit_test(where_no_row_is_in_reach_there_is_no_curve),
        cmocka_unit_test(two_columns_are_a_surface_blank_where_it_extrapolates),
        cmocka_unit_test(classes_are_curves_of_their_probabilities),
        cmocka_unit_test(the_toy_run_is_the_chapter),
        cmocka_unit_test(the_noise_of_the_toy_data_is_normal),
        cmocka_unit_test(the_ellipses_are_the_covariance_of_the_keys),
        cmocka_unit_test(each_row_of_the_names_says_whom_it_asks),
        cmocka_unit_test(the_nearest_name_to_none_is_none),
        cmocka_unit_test(the_weights_of_the_names_are_grey_where_a_record_is_gone),
    };
    return cmocka_run_group_tests(tests, fit_cars, NULL);
}
