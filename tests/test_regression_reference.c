/* test_regression_reference.c - what R's ksmooth, np and locfit, statsmodels, NumPy and 100-digit
 * arithmetic say of the same regressions (tests/data/nadaraya-watson). */
#include "support.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkv/regression.h"
#include "src/csv.h"

#define REFERENCE QKV_TEST_DATA "/nadaraya-watson/"
#define DATA QKV_TEST_DATA "/../../examples/data/"

/* ---- Files and data -------------------------------------------------------------------------- */

enum { MAX_FIELDS = 24, MAX_ROWS = 272 };

/* A CSV without quotes, row after row. */
typedef struct reader {
    FILE *file;
    char header[512], line[512];
    char *name[MAX_FIELDS], *field[MAX_FIELDS];
    int rows;
} reader;

static void split(char *line, char **field)
{
    int n = 0;
    line[strcspn(line, "\r\n")] = 0;
    for (char *part; (part = strsep(&line, ","));) {
        assert_true(n < MAX_FIELDS);
        field[n++] = part;
    }
}

static reader *reader_open(const char *name)
{
    char path[4096];
    reader *t = calloc(1, sizeof *t);
    assert_non_null(t);
    snprintf(path, sizeof path, REFERENCE "%s", name);
    t->file = fopen(path, "r");
    if (!t->file) fail_msg("cannot open %s", path);
    assert_non_null(fgets(t->header, sizeof t->header, t->file));
    split(t->header, t->name);
    return t;
}

static bool next(reader *t)
{
    if (!fgets(t->line, sizeof t->line, t->file)) return false;
    split(t->line, t->field);
    t->rows++;
    return true;
}

static const char *text(const reader *t, const char *name)
{
    int i = 0;
    while (i < MAX_FIELDS && t->name[i] && strcmp(t->name[i], name) != 0) i++;
    if (i == MAX_FIELDS || !t->name[i]) fail_msg("no column %s", name);
    return t->field[i];
}

static double number(const reader *t, const char *name)
{
    char *end;
    const char *field = text(t, name);
    double x = strtod(field, &end);
    if (end == field || *end) fail_msg("'%s' is no number", field);
    return x;
}

static void reader_close(reader *t, int rows)
{
    assert_int_equal(t->rows, rows);
    fclose(t->file);
    free(t);
}

static double memory[3][2][MAX_ROWS];
static qkv_regression cars, faithful, old_chapter;

static void load(qkv_regression *r, double data[2][MAX_ROWS], const char *path, const char *x,
                 const char *y)
{
    qkv_table t;
    const char *columns[] = {x, y};
    assert_ok(qkv_csv_load(&t, path, columns, 2));
    assert_in_range(t.rows, 2, MAX_ROWS);
    for (size_t i = 0; i < t.rows; i++)
        for (size_t c = 0; c < 2; c++) data[c][i] = t.data[2 * i + c];
    *r = (qkv_regression){.x = data[0], .y = data[1], .n = (ptrdiff_t)t.rows};
    qkv_csv_free(&t);
}

static int load_all(void **state)
{
    (void)state;
    load(&cars, memory[0], DATA "cars.csv", "speed", "dist");
    load(&faithful, memory[1], DATA "faithful.csv", "eruptions", "waiting");
    load(&old_chapter, memory[2], REFERENCE "d2l/old_train.csv", "x", "y");
    return 0;
}

static qkv_regression model_of(const reader *t)
{
    if (!strcmp(text(t, "model"), "cars")) return cars;
    assert_string_equal(text(t, "model"), "faithful");
    return faithful;
}

/* Everything at one query. */
typedef struct fit {
    double mean, gradient, weights[MAX_ROWS], norm;
} fit;

static fit fit_at(const qkv_regression *r, double h, double q)
{
    fit f;
    qkv_regression_results out = {
        .mean = &f.mean, .gradient = &f.gradient, .weights = f.weights, .norm = &f.norm};
    assert_ok(qkv_regression_predict(r, &h, &q, 1, &out));
    assert_int_equal(out.empty, isnan(f.mean));
    return f;
}

static double from_convention(qkv_regression_convention tool, qkv_regression_kernel kernel,
                              double b)
{
    double h;
    assert_ok(qkv_regression_from_convention(tool, kernel, b, &h));
    return h;
}

static void assert_relative(double actual, double expected, double tolerance)
{
    assert_close(actual, expected, tolerance * fabs(expected));
}

static bool is_close(double actual, double expected, double tolerance)
{
    return fabs(actual - expected) <= tolerance * fabs(expected);
}

/* ---- Kernels and limits ---------------------------------------------------------------------- */

static qkv_regression_kernel kernel_named(const char *name)
{
    for (int k = 0; k <= QKV_REGRESSION_CONSTANT; k++)
        if (!strcmp(name, qkv_regression_kernel_name((qkv_regression_kernel)k)))
            return (qkv_regression_kernel)k;
    fail_msg("no kernel %s", name);
    return QKV_REGRESSION_GAUSSIAN;
}

static void every_kernel_predicts_as_numpy_does(void **state)
{
    (void)state;
    reader *t = reader_open("ref/kernels_numpy.csv");
    int undefined = 0;
    while (next(t)) {
        qkv_regression r = model_of(t);
        r.open_edge = !strcmp(text(t, "kernel"), "boxcar_open");
        r.kernel = r.open_edge ? QKV_REGRESSION_BOXCAR : kernel_named(text(t, "kernel"));
        fit f = fit_at(&r, number(t, "h1"), number(t, "x1"));
        assert_relative(f.mean, number(t, "mean"), 1e-10);
        undefined += isnan(f.mean);
        r.product = true; /* in one column, the same */
        fit product = fit_at(&r, number(t, "h1"), number(t, "x1"));
        assert_relative(product.mean, number(t, "mean"), 1e-10);
    }
    assert_int_equal(undefined, 16);
    reader_close(t, 984);
}

static void bandwidths_and_queries_of_any_size_have_the_limit(void **state)
{
    (void)state;
    reader *t = reader_open("autograd/extreme.csv");
    while (next(t)) {
        qkv_regression r = model_of(t);
        double q = number(t, "q"), h = number(t, "h"), expected = number(t, "mean");
        assert_relative(fit_at(&r, h, q).mean, expected, 1e-9);
        double x[MAX_ROWS]; /* a common offset, a multiple of all roundings, changes nothing */
        for (ptrdiff_t i = 0; i < r.n; i++) x[i] = r.x[i] + 0x1p40;
        r.x = x;
        if (q == rint(q)) assert_relative(fit_at(&r, h, q + 0x1p40).mean, expected, 1e-9);
    }
    reader_close(t, 90);
}

static void the_earlier_chapter_is_reproduced(void **state)
{
    (void)state;
    reader *t = reader_open("d2l/old_pred.csv");
    while (next(t)) {
        qkv_regression r = old_chapter;
        double x = number(t, "x");
        assert_relative(fit_at(&r, 1, x).mean, number(t, "w1"), 1e-10);
        assert_relative(fit_at(&r, 1 / 2.5, x).mean, number(t, "w2.5"), 1e-10);
        r.kernel = QKV_REGRESSION_CONSTANT;
        assert_relative(fit_at(&r, 1, x).mean, number(t, "average"), 1e-10);
    }
    reader_close(t, 50);
}

/* Its w is 1 / h, its loss half the sum of what CV is the mean of. */
static void the_earlier_chapters_descent_is_that_of_cv(void **state)
{
    (void)state;
    reader *t = reader_open("d2l/old_sgd_trajectory.csv");
    double next_w = NAN;
    while (next(t)) {
        double w = number(t, "w"), h = 1 / w, cv, gradient, scale = (double)old_chapter.n / 2;
        assert_ok(
            qkv_regression_objective(&old_chapter, QKV_REGRESSION_LOO, &h, &cv, NULL, &gradient));
        assert_relative(scale * cv, number(t, "loss"), 1e-10);
        assert_close(-scale * gradient / w, number(t, "dloss_dw"), 1e-10 * scale * cv / w);
        if (number(t, "epoch") > 0) assert_relative(next_w, w, 1e-10);
        next_w = w + number(t, "lr") * scale * gradient / w;
    }
    reader_close(t, 48);
}

/* ---- Two columns ----------------------------------------------------------------------------- */

enum { N_Q = 5, N_K = 7, D_X = 2, D_Y = 3, MOST = N_Q * N_K };

/* One array of one case, row after row. */
static void read_array(const char *name, bool masked, const char *array, double *x, int expected)
{
    reader *t = reader_open("gradients.csv");
    int n = 0;
    while (next(t)) {
        if (strcmp(text(t, "case"), name) != 0 || (number(t, "masked") != 0) != masked ||
            strcmp(text(t, "array"), array) != 0)
            continue;
        assert_true(n < expected);
        x[n++] = number(t, "value");
    }
    assert_int_equal(n, expected);
    reader_close(t, t->rows);
}

/* What a query sees is a regression of its own: hidden rows have weight 0. dq and dv are those of
 * sum(c * mean), by the gradient and by the weights. */
static void check_two_columns(const char *kernel, bool masked)
{
    double q[N_Q * D_X], k[N_K * D_X], v[N_K * D_Y], c[N_Q * D_Y], mask[MOST], h[D_X];
    double out[N_Q * D_Y], dq[N_Q * D_X], dv[N_K * D_Y], found_dv[N_K * D_Y] = {0};
    read_array("input", false, "q", q, N_Q * D_X);
    read_array("input", false, "k", k, N_K * D_X);
    read_array("input", false, "v", v, N_K * D_Y);
    read_array("input", false, "c", c, N_Q * D_Y);
    read_array("input", false, "mask", mask, MOST);
    read_array(kernel, masked, "h", h, D_X);
    read_array(kernel, masked, "out", out, N_Q * D_Y);
    read_array(kernel, masked, "dq", dq, N_Q * D_X);
    read_array(kernel, masked, "dv", dv, N_K * D_Y);
    for (int i = 0; i < N_Q; i++) {
        double mean[D_Y], gradient[D_Y][D_X], weights[N_K], found[D_X] = {0};
        const qkv_regression r = {.x = k,
                                  .y = v,
                                  .weight = masked ? mask + i * N_K : NULL,
                                  .n = N_K,
                                  .d_x = D_X,
                                  .d_y = D_Y,
                                  .bandwidths = D_X,
                                  .kernel = kernel_named(kernel)};
        qkv_regression_results at = {.mean = mean, .gradient = gradient[0], .weights = weights};
        assert_ok(qkv_regression_predict(&r, h, q + i * D_X, 1, &at));
        for (int y = 0; y < D_Y; y++) {
            assert_close(mean[y], out[i * D_Y + y], 1e-12);
            for (int x = 0; x < D_X; x++) found[x] += c[i * D_Y + y] * gradient[y][x];
            for (int j = 0; j < N_K; j++) found_dv[j * D_Y + y] += c[i * D_Y + y] * weights[j];
        }
        for (int x = 0; x < D_X; x++) assert_close(found[x], dq[i * D_X + x], 1e-12);
    }
    for (int j = 0; j < N_K * D_Y; j++) assert_close(found_dv[j], dv[j], 1e-12);
}

static void gradients_in_two_columns_are_those_of_a_complex_step(void **state)
{
    (void)state;
    static const char *const kernels[] = {"gaussian",     "laplace",  "cauchy", "triangular",
                                          "epanechnikov", "biweight", "tricube"};
    for (int i = 0; i < 14; i++) check_two_columns(kernels[i / 2], i % 2);
}

/* ---- ksmooth --------------------------------------------------------------------------------- */

/* ksmooth drops the rows beyond 4 sigma; of those that it keeps, its mean is ours. */
static double truncated(const qkv_regression *r, double h, double q)
{
    double x[MAX_ROWS], y[MAX_ROWS];
    qkv_regression kept = {.x = x, .y = y};
    for (ptrdiff_t i = 0; i < r->n; i++) {
        if (r->x[i] < q - 4 * h || r->x[i] > q + 4 * h) continue;
        x[kept.n] = r->x[i];
        y[kept.n++] = r->y[i];
    }
    return kept.n ? fit_at(&kept, h, q).mean : NAN;
}

static void ksmooths_numbers_are_ours(void **state)
{
    (void)state;
    reader *t = reader_open("ref/ksmooth.csv");
    int undefined = 0;
    while (next(t)) {
        qkv_regression r = model_of(t);
        bool normal = !strcmp(text(t, "kernel"), "normal");
        double q = number(t, "x"), expected = number(t, "mean");
        r.kernel = normal ? QKV_REGRESSION_GAUSSIAN : QKV_REGRESSION_BOXCAR;
        double h = from_convention(QKV_REGRESSION_KSMOOTH, r.kernel, number(t, "bandwidth"));
        double mean = normal ? truncated(&r, h, q) : fit_at(&r, h, q).mean;
        assert_relative(mean, expected, 1e-10);
        /* What the truncation leaves out has less than exp(-8) of the nearest row's weight. */
        if (normal && !isnan(expected)) assert_relative(fit_at(&r, h, q).mean, expected, 0.05);
        undefined += isnan(expected);
    }
    assert_int_equal(undefined, 12);
    reader_close(t, 304);
}

/* ---- np and statsmodels ---------------------------------------------------------------------- */

/* np's standard error of a mean: sqrt(v R(K) / sum K), v the weighted variance of y, K normalised.
 * v as np finds it, the square's mean less the mean's square, is uncertain by `rounding`. */
static double np_variance(const qkv_regression *r, const fit *f, double b, double q,
                          double *rounding)
{
    const double root = sqrt(5), pi = acos(-1);
    bool gaussian = r->kernel == QKV_REGRESSION_GAUSSIAN;
    double roughness = gaussian ? 1 / (2 * sqrt(pi)) : 3 / (5 * root), sum = 0, v = 0, square = 0;
    for (ptrdiff_t i = 0; i < r->n; i++) {
        double u = (q - r->x[i]) / b;
        sum += gaussian         ? exp(-u * u / 2) / sqrt(2 * pi)
               : fabs(u) < root ? 3 / (4 * root) * (1 - u * u / 5)
                                : 0;
        v += f->weights[i] * (r->y[i] - f->mean) * (r->y[i] - f->mean);
        square += f->weights[i] * r->y[i] * r->y[i];
    }
    *rounding = 1e-14 * square * roughness / sum;
    return v * roughness / sum;
}

static int in_support(const qkv_regression *r, const fit *f)
{
    int n = 0;
    for (ptrdiff_t i = 0; i < r->n; i++) n += f->weights[i] > 0;
    return n;
}

static void nps_local_constant_fits_are_ours(void **state)
{
    (void)state;
    reader *t = reader_open("ref/np_fit.csv");
    int empty = 0, fits = 0;
    while (next(t)) {
        if (strcmp(text(t, "regtype"), "lc") != 0) continue;
        qkv_regression r = model_of(t);
        r.kernel = kernel_named(text(t, "kernel"));
        r.product = true;
        double b = number(t, "h1"), q = number(t, "x1"), se = number(t, "se"), rounding;
        fit f = fit_at(&r, from_convention(QKV_REGRESSION_NP, r.kernel, b), q);
        fits++;
        if (number(t, "n_support") == 0) { /* where np's mean is 0 */
            assert_true(isnan(f.mean) && isnan(f.gradient) && isnan(f.norm));
            empty++;
            continue;
        }
        if (r.kernel == QKV_REGRESSION_EPANECHNIKOV)
            assert_int_equal(in_support(&r, &f), (int)number(t, "n_support"));
        double variance = np_variance(&r, &f, b, q, &rounding);
        assert_relative(f.mean, number(t, "mean"), 1e-10);
        assert_close(f.gradient, number(t, "grad1"),
                     1e-10 * (fabs(number(t, "grad1")) + f.mean / b));
        assert_close(variance, se * se, 1e-10 * se * se + rounding);
    }
    assert_int_equal(empty, 6);
    assert_int_equal(fits, 456);
    reader_close(t, 684);
}

/* Lines far outside of the data are ill-conditioned: of 100 there 99 agree to 1e-10, all to 2e-6.
 */
static void check_lines(const char *file, const char *slope, int rows)
{
    reader *t = reader_open(file);
    int lines = 0, loose = 0;
    while (next(t)) {
        if (strcmp(text(t, "regtype"), "ll") != 0) continue;
        qkv_regression r = model_of(t);
        r.degree = 1;
        double mean = number(t, "mean"), by_q = number(t, slope), b = number(t, "h1");
        fit f = fit_at(&r, from_convention(QKV_REGRESSION_NP, r.kernel, b), number(t, "x1"));
        assert_relative(f.mean, mean, 2e-6);
        assert_relative(f.gradient, by_q, 2e-6);
        lines++;
        loose += !is_close(f.mean, mean, 1e-10) || !is_close(f.gradient, by_q, 1e-10);
    }
    assert_int_equal(lines, 228);
    assert_in_range(loose, 0, lines / 100);
    reader_close(t, rows);
}

static void lines_are_those_of_np(void **state)
{
    (void)state;
    check_lines("ref/np_fit.csv", "grad1", 684);
}

static void lines_are_those_of_statsmodels(void **state)
{
    (void)state;
    check_lines("ref/statsmodels_fit.csv", "slope1", 456);
}

static void statsmodels_means_are_ours(void **state)
{
    (void)state;
    reader *t = reader_open("ref/statsmodels_fit.csv");
    while (next(t)) {
        if (strcmp(text(t, "regtype"), "lc") != 0) continue;
        qkv_regression r = model_of(t);
        double h = from_convention(QKV_REGRESSION_STATSMODELS, r.kernel, number(t, "h1"));
        assert_relative(fit_at(&r, h, number(t, "x1")).mean, number(t, "mean"), 1e-10);
    }
    reader_close(t, 456);
}

/* ---- Statistics ------------------------------------------------------------------------------ */

static qkv_regression_kernel locfit_kernel(const char *name)
{
    static const char *const names[] = {"gauss", "rect", "tria", "epan", "bisq", "trwt", "tcub"};
    for (int k = 0; k < 7; k++)
        if (!strcmp(name, names[k])) return (qkv_regression_kernel)k;
    fail_msg("no kernel %s", name);
    return QKV_REGRESSION_GAUSSIAN;
}

static void locfits_means_and_standard_errors_are_ours(void **state)
{
    (void)state;
    reader *t = reader_open("ref/locfit_points.csv");
    while (next(t)) {
        qkv_regression r = model_of(t);
        qkv_regression_statistics statistics;
        r.kernel = locfit_kernel(text(t, "kernel"));
        r.degree = (int)number(t, "degree");
        double h = from_convention(QKV_REGRESSION_LOCFIT, r.kernel, number(t, "h"));
        fit f = fit_at(&r, h, number(t, "x"));
        assert_relative(f.mean, number(t, "mean"), 1e-10);
        assert_ok(qkv_regression_measure(&r, &h, &statistics, NULL));
        assert_relative(sqrt(statistics.sigma2) * f.norm, number(t, "se"), 1e-10);
    }
    reader_close(t, 900);
}

static double criterion(const qkv_regression *r, qkv_regression_criterion which, double h)
{
    double value;
    assert_ok(qkv_regression_objective(r, which, &h, &value, NULL, NULL));
    return value;
}

static void statistics_and_criteria_are_the_references(void **state)
{
    (void)state;
    reader *t = reader_open("ref/loo_cv.csv");
    while (next(t)) {
        const qkv_regression r = model_of(t);
        qkv_regression_statistics s;
        double h = number(t, "h1"), sigma2;
        assert_ok(qkv_regression_measure(&r, &h, &s, &sigma2));
        assert_int_equal(s.n, (ptrdiff_t)number(t, "n"));
        assert_relative(s.cv, number(t, "cv"), 1e-10);
        assert_relative(s.rss, number(t, "rss"), 1e-10);
        assert_relative(s.trace, number(t, "trS"), 1e-10);
        assert_relative(s.trace_squared, number(t, "trSS"), 1e-10);
        assert_relative(s.sigma2, number(t, "sigma2"), 1e-10);
        assert_relative(sigma2, number(t, "sigma2"), 1e-10);
        assert_relative(s.gcv, number(t, "gcv"), 1e-10);
        assert_relative(s.aicc, number(t, "aicc"), 1e-10);
        assert_relative(criterion(&r, QKV_REGRESSION_LOO, h), number(t, "cv"), 1e-10);
        assert_relative(criterion(&r, QKV_REGRESSION_GCV, h), number(t, "gcv"), 1e-10);
        assert_relative(criterion(&r, QKV_REGRESSION_AICC, h), number(t, "aicc"), 1e-10);
    }
    reader_close(t, 10);
}

/* The rows without another in reach, as the file lists them: "5;6;44", from 1. */
static void assert_undefined_rows(const qkv_regression *r, double h, const char *expected)
{
    double mean[MAX_ROWS];
    char found[256] = "";
    qkv_regression_results out = {.mean = mean};
    assert_ok(qkv_regression_predict(r, &h, NULL, 0, &out));
    for (ptrdiff_t i = 0; i < r->n; i++) {
        size_t at = strlen(found);
        if (isnan(mean[i])) snprintf(found + at, sizeof found - at, ";%td", i + 1);
    }
    assert_string_equal(found[0] ? found + 1 : found, expected);
}

static void compact_kernels_have_the_references_traces_and_undefined_rows(void **state)
{
    (void)state;
    reader *t = reader_open("ref/loo_cv_epan.csv");
    while (next(t)) {
        qkv_regression r = model_of(t);
        qkv_regression_statistics s;
        double h = number(t, "h_support");
        r.kernel = QKV_REGRESSION_EPANECHNIKOV;
        assert_ok(qkv_regression_measure(&r, &h, &s, NULL));
        assert_int_equal(s.undefined, (ptrdiff_t)number(t, "n_undefined"));
        assert_relative(s.cv, number(t, "cv_defined"), 1e-10);
        assert_relative(s.trace, number(t, "trS"), 1e-10);
        assert_relative(s.trace_squared, number(t, "trSS"), 1e-10);
        assert_undefined_rows(&r, h, text(t, "undefined_rows"));
    }
    reader_close(t, 10);
}

static void a_descent_by_hand_follows_the_reference(void **state)
{
    (void)state;
    reader *t = reader_open("autograd/train_logh.csv");
    double h = NAN, cv, gradient;
    while (next(t)) {
        const qkv_regression r = model_of(t);
        if (number(t, "step") == 0) h = number(t, "h1");
        assert_ok(qkv_regression_objective(&r, QKV_REGRESSION_LOO, &h, &cv, NULL, &gradient));
        assert_relative(h, number(t, "h1"), 1e-8);
        assert_relative(cv, number(t, "cv"), 1e-8);
        assert_close(gradient, number(t, "g1"), 1e-8 * cv);
        h *= exp(-number(t, "lr") * gradient);
    }
    reader_close(t, 61);
}

/* ---- Conventions ----------------------------------------------------------------------------- */

static void conventions_are_refused_for_kernels_a_tool_does_not_have(void **state)
{
    (void)state;
    static const bool has[4][QKV_REGRESSION_CONSTANT + 1] = {
        [QKV_REGRESSION_KSMOOTH] = {true, true},
        [QKV_REGRESSION_NP] = {true, false, false, true},
        [QKV_REGRESSION_STATSMODELS] = {true},
        [QKV_REGRESSION_LOCFIT] = {true, true, true, true, true, true, true}};
    double h;
    for (int tool = 0; tool < 4; tool++)
        for (int k = 0; k <= QKV_REGRESSION_CONSTANT; k++) {
            h = 7;
            assert_status(qkv_regression_from_convention((qkv_regression_convention)tool,
                                                         (qkv_regression_kernel)k, 2, &h),
                          has[tool][k] ? QKV_OK : QKV_E_ARG);
            assert_true((h == 7) == !has[tool][k]);
        }
    assert_message("locfit has no constant kernel");
    const qkv_regression_convention locfit = QKV_REGRESSION_LOCFIT;
    assert_close(from_convention(locfit, QKV_REGRESSION_TRIWEIGHT, 3), 3, 0);
    assert_status(qkv_regression_from_convention(locfit, QKV_REGRESSION_GAUSSIAN, 0, &h),
                  QKV_E_ARG);
    assert_status(qkv_regression_from_convention(locfit, QKV_REGRESSION_GAUSSIAN, NAN, &h),
                  QKV_E_ARG);
    assert_status(qkv_regression_from_convention(locfit, QKV_REGRESSION_GAUSSIAN, 1, NULL),
                  QKV_E_ARG);
    assert_status(qkv_regression_from_convention(locfit, (qkv_regression_kernel)11, 1, &h),
                  QKV_E_ARG);
    assert_status(qkv_regression_from_convention((qkv_regression_convention)4, 0, 1, &h),
                  QKV_E_ARG);
    assert_null(qkv_regression_kernel_name((qkv_regression_kernel)11));
    assert_string_equal(qkv_regression_kernel_name(QKV_REGRESSION_TRICUBE), "tricube");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kernel_predicts_as_numpy_does),
        cmocka_unit_test(bandwidths_and_queries_of_any_size_have_the_limit),
        cmocka_unit_test(the_earlier_chapter_is_reproduced),
        cmocka_unit_test(the_earlier_chapters_descent_is_that_of_cv),
        cmocka_unit_test(gradients_in_two_columns_are_those_of_a_complex_step),
        cmocka_unit_test(ksmooths_numbers_are_ours),
        cmocka_unit_test(nps_local_constant_fits_are_ours),
        cmocka_unit_test(lines_are_those_of_np),
        cmocka_unit_test(lines_are_those_of_statsmodels),
        cmocka_unit_test(statsmodels_means_are_ours),
        cmocka_unit_test(locfits_means_and_standard_errors_are_ours),
        cmocka_unit_test(statistics_and_criteria_are_the_references),
        cmocka_unit_test(compact_kernels_have_the_references_traces_and_undefined_rows),
        cmocka_unit_test(a_descent_by_hand_follows_the_reference),
        cmocka_unit_test(conventions_are_refused_for_kernels_a_tool_does_not_have),
    };
    qkv_set_num_threads(1); /* few rows: waking a second thread costs more than it brings */
    return cmocka_run_group_tests(tests, load_all, NULL);
}
