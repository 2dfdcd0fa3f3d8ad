/* test_nadaraya_watson.c - the regressor as a person runs it: what each option does and what is
 * written, against the library and the references. */
#include "support.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nadaraya_watson_run.h"
#include "qkv/npy.h"
#include "qkv/regression.h"
#include "src/csv.h"

/* ---- The library's own answers --------------------------------------------------------------- */

enum { GRID = 7, ROWS = 50 };

static double speed[ROWS], dist[ROWS], grid[GRID];

static int load_cars(void **state)
{
    (void)state;
    double *x = column(CARS, "speed", NULL), *y = column(CARS, "dist", NULL);
    memcpy(speed, x, sizeof speed), memcpy(dist, y, sizeof dist);
    free(x), free(y);
    for (int i = 0; i < GRID; i++) grid[i] = 4 + 21 * i / (GRID - 1.0);
    return 0;
}

static qkv_regression cars(void)
{
    return (qkv_regression){.x = speed, .y = dist, .n = ROWS};
}

static void everything_predicted_is_the_librarys(void **state)
{
    (void)state;
    const char *out = scratch("out.csv");
    succeed(ARGUMENTS("--data", CARS, "--bandwidth", "2", "--grid", "7", "--predict", out), NULL);
    char *text = read_file(out, NULL);
    static const char header[] = "speed,mean,se,lower,upper,n_effective,grad_speed\n";
    assert_int_equal(strncmp(text, header, strlen(header)), 0);
    free(text);
    qkv_regression r = cars();
    double h = 2, mean[GRID], norm[GRID], effective[GRID], gradient[GRID], edge[GRID];
    qkv_regression_results results = {
        .mean = mean, .norm = norm, .n_effective = effective, .gradient = gradient};
    assert_ok(qkv_regression_predict(&r, &h, grid, GRID, &results));
    qkv_regression_statistics statistics;
    assert_ok(qkv_regression_measure(&r, &h, &statistics, NULL));
    double sigma = sqrt(statistics.sigma2);
    assert_column(out, "speed", grid, GRID, 1, 1e-15);
    assert_column(out, "mean", mean, GRID, 1, 0);
    for (int i = 0; i < GRID; i++) norm[i] *= sigma;
    assert_column(out, "se", norm, GRID, 1, 1e-14);
    for (int i = 0; i < GRID; i++) edge[i] = mean[i] - 1.959963984540054 * norm[i];
    assert_column(out, "lower", edge, GRID, 1, 1e-13);
    for (int i = 0; i < GRID; i++) edge[i] = mean[i] + 1.959963984540054 * norm[i];
    assert_column(out, "upper", edge, GRID, 1, 1e-13);
    assert_column(out, "n_effective", effective, GRID, 1, 0);
    assert_column(out, "grad_speed", gradient, GRID, 1, 0);

    succeed(ARGUMENTS("--data", CARS, "--bandwidth", "2", "--grid", "7", "--predict", out,
                      "--bands", "0.5"),
            NULL);
    for (int i = 0; i < GRID; i++) edge[i] = mean[i] + 0.6744897501960817 * norm[i];
    assert_column(out, "upper", edge, GRID, 1, 1e-13);
}

/* An option, and the regression that it should make. */
typedef struct choice {
    const char *options[4];
    qkv_regression_kernel kernel;
    bool open_edge;
    int degree;
    qkv_empty empty;
    double h;
} choice;

static void choices_about_the_fit_reach_the_library(void **state)
{
    (void)state;
    static const choice choices[] = {
        {{"--kernel", "boxcar"}, QKV_REGRESSION_BOXCAR, .h = 3},
        {{"--kernel", "boxcar", "--edge", "open"},
         QKV_REGRESSION_BOXCAR,
         .open_edge = true,
         .h = 3},
        {{"--kernel", "triangular"}, QKV_REGRESSION_TRIANGULAR, .h = 3},
        {{"--kernel", "epanechnikov"}, QKV_REGRESSION_EPANECHNIKOV, .h = 3},
        {{"--kernel", "laplace"}, QKV_REGRESSION_LAPLACE, .h = 3},
        {{"--kernel", "constant"}, QKV_REGRESSION_CONSTANT, .h = 3},
        {{"--degree", "1"}, QKV_REGRESSION_GAUSSIAN, .degree = 1, .h = 3},
        {{"--convention", "ksmooth"}, QKV_REGRESSION_GAUSSIAN, .h = 3 * 0.25 / 0.6744897501960817},
        {{"--convention", "locfit"}, QKV_REGRESSION_GAUSSIAN, .h = 3 / 2.5},
        {{"--kernel", "epanechnikov", "--convention", "np"},
         QKV_REGRESSION_EPANECHNIKOV,
         .h = 3 * 2.23606797749979}};
    const char *out = scratch("choice.csv");
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        const choice *c = &choices[i];
        const char *line[13] = {"--data", CARS, "--bandwidth", "3",
                                "--grid", "7",  "--predict",   out};
        memcpy(line + 8, c->options, sizeof c->options);
        succeed(line, NULL);
        qkv_regression r = cars();
        r.kernel = c->kernel, r.open_edge = c->open_edge, r.degree = c->degree;
        double mean[GRID];
        assert_ok(
            qkv_regression_predict(&r, &c->h, grid, GRID, &(qkv_regression_results){.mean = mean}));
        assert_column(out, "mean", mean, GRID, 1, 1e-6); /* R has 0.3706506, not all its digits */
    }
}

static void an_empty_support_is_what_the_policy_says(void **state)
{
    (void)state;
    const char *out = scratch("empty.csv"), *json = scratch("empty.json");
    write_text("gap.csv", "x,y\n0,1\n1,2\n9,3\n"); /* the last row has no other in reach */
    write_text("gap_at.csv", "x\n1\n5\n6\n");
    const char *line[16] = {"--data",      scratch("gap.csv"),
                            "--kernel",    "boxcar",
                            "--at",        scratch("gap_at.csv"),
                            "--predict",   out,
                            "--report",    json,
                            "--bandwidth", "1.5"};
    ran r = regress(line, NULL);
    assert_int_equal(r.exit_code, 0);
    assert_contains(r.err, "warning: 2 of 3 queries have no row in reach");
    ran_free(&r);
    assert_column(out, "mean", (double[]){1.5, NAN, NAN}, 3, 1, 0);
    assert_column(out, "n_effective", (double[]){2, NAN, NAN}, 3, 1, 0);
    char *text = read_file(json, NULL);
    assert_close(number_after(text, "\"queries_empty\": "), 2, 0);
    free(text);
    line[12] = "--empty", line[13] = "nearest";
    succeed(line, NULL);
    assert_column(out, "mean", (double[]){1.5, 2.5, 3}, 3, 1, 0);
    remove(out);
    line[13] = "error";
    assert_refused(line, 1, "nadaraya_watson: ");
    assert_int_equal(scratch_count("empty.csv"), 0);
    write_text("gap_at.csv", "x\n1\n0\n9\n"); /* it is about the queries asked */
    succeed(line, NULL);

    const char *model = scratch("gap.qkv"); /* and a saved model may be asked under another */
    write_text("gap_at.csv", "x\n6\n");
    succeed(ARGUMENTS("--data", scratch("gap.csv"), "--kernel", "boxcar", "--bandwidth", "1.5",
                      "--save", model),
            NULL);
    succeed(ARGUMENTS("--load", model, "--at", scratch("gap_at.csv"), "--predict", out), NULL);
    assert_column(out, "mean", (double[]){NAN}, 1, 1, 0);
    succeed(ARGUMENTS("--load", model, "--at", scratch("gap_at.csv"), "--predict", out, "--empty",
                      "nearest"),
            NULL);
    assert_column(out, "mean", (double[]){3}, 1, 1, 0);
}

/* Means are numbers where the squares of y are not, and what hangs on those is NA. */
static void y_that_cannot_be_squared_has_no_errors(void **state)
{
    (void)state;
    const char *out = scratch("huge.csv"), *model = scratch("huge.qkv");
    succeed(ARGUMENTS("--data", "-", "--bandwidth", "1", "--save", model),
            "x,y\n1,1e200\n2,1e200\n3,2e200\n4,1e200\n");
    succeed(ARGUMENTS("--load", model, "--predict", out), NULL);
    double *mean = column(out, "mean", NULL);
    assert_true(mean[1] > 1e200 && mean[1] < 2e200);
    free(mean);
    assert_column(out, "se", (double[]){NAN, NAN, NAN, NAN}, 4, 1, 0);
    assert_column(out, "upper", (double[]){NAN, NAN, NAN, NAN}, 4, 1, 0);
}

static void case_weights_count_rows(void **state)
{
    (void)state;
    static const char csv[] = "w,x,y\n2,1,3\n1,2,5\n0,3,1000\n3,4,1\n1,5,2\nNA,6,7\n";
    const char *out = scratch("weights.csv");
    succeed(ARGUMENTS("--data", "-", "--x", "x", "--y", "y", "--case-weight", "w", "--bandwidth",
                      "1", "--predict", out),
            csv);
    const double x[] = {1, 2, 3, 4, 5}, y[] = {3, 5, 1000, 1, 2}, w[] = {2, 1, 0, 3, 1}, h = 1;
    const double q[] = {1, 2, 3, 4, 5, 6};
    double mean[6];
    const qkv_regression r = {.x = x, .y = y, .weight = w, .n = 5};
    assert_ok(qkv_regression_predict(&r, &h, q, 6, &(qkv_regression_results){.mean = mean}));
    assert_column(out, "mean", mean, 6, 1, 1e-14); /* every row of the file, the incomplete too */
    ran bad = regress(ARGUMENTS("--data", "-", "--x", "x", "--y", "y", "--case-weight", "w"),
                      "w,x,y\n1,2,3\n-2,3,4\n1,1,1\n");
    assert_int_equal(bad.exit_code, 1);
    assert_contains(bad.err, "'w' of complete row 2 is -2");
    ran_free(&bad);
}

static void several_columns_multiply_or_measure_a_distance(void **state)
{
    (void)state;
    const double x[] = {0, 0, 1, 3, 2, 1, 4, 4, 5, 2}, y[] = {1, 4, 2, 8, 5}, h[] = {2, 3};
    static const char csv[] = "a,b,y\n0,0,1\n1,3,4\n2,1,2\n4,4,8\n5,2,5\n";
    const char *out = scratch("two.csv");
    qkv_regression r = {.x = x, .y = y, .n = 5, .d_x = 2, .bandwidths = 2};
    r.kernel = QKV_REGRESSION_EPANECHNIKOV;
    for (int product = 0; product < 2; product++) {
        succeed(ARGUMENTS("--data", "-", "--kernel", "epanechnikov", "--bandwidth", "2,3",
                          "--predict", out, product ? "--product" : NULL),
                csv);
        double mean[5], gradient[10];
        r.product = product;
        assert_ok(qkv_regression_predict(
            &r, h, x, 5, &(qkv_regression_results){.mean = mean, .gradient = gradient}));
        assert_column(out, "mean", mean, 5, 1, 1e-14);
        assert_column(out, "grad_a", gradient, 5, 2, 1e-14);
        assert_column(out, "grad_b", gradient + 1, 5, 2, 1e-14);
    }
    succeed(ARGUMENTS("--data", "-", "--bandwidth", "2", "--grid", "3", "--predict", out), csv);
    assert_column(out, "a", (double[]){0, 0, 0, 2.5, 2.5, 2.5, 5, 5, 5}, 9, 1, 0);
    assert_column(out, "b", (double[]){0, 2, 4, 0, 2, 4, 0, 2, 4}, 9, 1, 0);
    succeed(ARGUMENTS("--data", "-", "--bandwidth", "2,3", "--convention", "np", "--report",
                      scratch("two.json")),
            csv);
    char *text = read_file(scratch("two.json"), NULL);
    assert_contains(text, "\"product\": true"); /* as there */
    assert_contains(text, "\"bandwidth\": [2, 3]");
    free(text);
}

static void bands_are_of_resampled_rows_if_asked_for(void **state)
{
    (void)state;
    const char *out = scratch("bands.csv");
    ran done = regress(ARGUMENTS("--data", CARS, "--bandwidth", "2", "--grid", "7", "--predict",
                                 out, "--bootstrap", "50", "--seed", "7", "--bands", "0.8"),
                       NULL);
    assert_int_equal(done.exit_code, 0);
    assert_contains(done.err, "bootstrap 50/50");
    ran_free(&done);
    qkv_regression r = cars();
    double h = 2, lower[GRID], upper[GRID];
    const qkv_regression_bootstrap_options o = {.samples = 50, .seed = 7, .level = 0.8};
    assert_ok(qkv_regression_bootstrap(&r, &h, grid, GRID, &o, lower, upper));
    assert_column(out, "lower", lower, GRID, 1, 0);
    assert_column(out, "upper", upper, GRID, 1, 0);
}

/* ---- The search ------------------------------------------------------------------------------ */

static char *report(const char *const *options)
{
    const char *line[16] = {"--data", CARS, "--report", scratch("report.json")};
    for (int i = 0; options[i]; i++) line[4 + i] = options[i];
    succeed(line, NULL);
    return read_file(scratch("report.json"), NULL);
}

static void the_bandwidth_is_the_librarys(void **state)
{
    (void)state;
    static const char *const criteria[] = {"loo", "aicc", "gcv"};
    static const char *const optimizers[] = {"lbfgs", "adam", "gd"};
    qkv_regression r = cars();
    for (int i = 0; i < 5; i++) {
        int criterion = i < 3 ? i : 0, optimizer = i < 3 ? 0 : i - 2;
        char *text = report(
            ARGUMENTS("--select", criteria[criterion], "--optimizer", optimizers[optimizer]));
        qkv_regression_fit_options o = {.criterion = (qkv_regression_criterion)criterion,
                                        .optimizer = (qkv_regression_optimizer)optimizer,
                                        .starts = 3};
        qkv_regression_fit_report fit;
        double h, objective;
        assert_ok(qkv_regression_fit(&r, &o, &h, &fit));
        assert_ok(qkv_regression_objective(&r, o.criterion, &h, &objective, NULL, NULL));
        assert_close(number_after(text, "\"bandwidth\": "), h, 1e-12);
        assert_close(number_after(text, "\"objective\": "), objective, 1e-12 * fabs(objective));
        assert_close(number_after(text, "\"steps\": "), (double)fit.steps, 0);
        assert_close(number_after(text, "\"evaluations\": "), (double)fit.evaluations, 0);
        assert_close(number_after(text, "\"minima\": [{\"objective\": "), objective, 1e-9);
        assert_close(number_after(strstr(text, "\"minima\""), "\"bandwidth\": "), h, 1e-9);
        char name[64];
        snprintf(name, sizeof name, "\"optimizer\": \"%s\"", optimizers[optimizer]);
        assert_contains(text, name);
        free(text);
    }
    char *text = report(ARGUMENTS("--bandwidth", "silverman"));
    double h;
    assert_ok(qkv_regression_silverman(&r, &h));
    assert_close(number_after(text, "\"bandwidth\": "), h, 1e-15);
    free(text);
}

static void the_report_says_how_much_is_explained(void **state)
{
    (void)state;
    qkv_regression r = cars();
    double h = 2;
    qkv_regression_statistics statistics;
    assert_ok(qkv_regression_measure(&r, &h, &statistics, NULL));
    char *text = report(ARGUMENTS("--bandwidth", "2"));
    assert_close(number_after(text, "\"r2\": "), statistics.r_squared, 1e-14);
    assert_close(number_after(text, "\"r2_loo\": "), statistics.r_squared_loo, 1e-14);
    free(text);
}

static void the_report_has_the_references_numbers(void **state)
{
    (void)state;
    static const char *const names[] = {"h1", "cv", "rss", "trS", "trSS", "sigma2", "gcv", "aicc"};
    static const char *const keys[] = {
        NULL,           "\"cv\": ",  "\"rss\": ", "\"trace\": ", "\"trace_squared\": ",
        "\"sigma2\": ", "\"gcv\": ", "\"aicc\": "};
    qkv_table t;
    assert_ok(qkv_csv_load(&t, QKV_TEST_DATA "/nadaraya-watson/ref/loo_cv.csv", names, 8));
    for (int i = 0; i < 2; i++) { /* cars at two bandwidths */
        const double *row = t.data + 8 * i;
        char h[40];
        snprintf(h, sizeof h, "%.17g", row[0]);
        char *text = report(ARGUMENTS("--bandwidth", h));
        for (int k = 1; k < 8; k++)
            assert_close(number_after(text, keys[k]), row[k], 1e-10 * fabs(row[k]));
        free(text);
    }
    qkv_csv_free(&t);
}

static void criteria_come_from_so_many_rows(void **state)
{
    (void)state;
    qkv_regression r = cars();
    r.rows = 20;
    double h = 2, objective;
    assert_ok(qkv_regression_objective(&r, QKV_REGRESSION_LOO, &h, &objective, NULL, NULL));
    char *text = report(ARGUMENTS("--bandwidth", "2", "--rows", "20"));
    assert_close(number_after(text, "\"objective\": "), objective, 1e-12 * objective);
    assert_close(number_after(text, "\"rows\": "), 20, 0);
    free(text);
}

static void a_report_is_json_whatever_the_numbers(void **state)
{
    (void)state;
    ran r = regress(ARGUMENTS("--data", "-", "--bandwidth", "1e-9", "--report", scratch("r.json")),
                    "\"a\"\"\\\x01\xff\",y\n1,1\n2,2\n3,3\n4,5\nNA,3\n");
    assert_int_equal(r.exit_code, 0);
    ran_free(&r);
    char *text = read_file(scratch("r.json"), NULL);
    assert_contains(text, "\"n\": 4,\n");
    assert_contains(text, "\"dropped\": 1,\n");
    assert_contains(text, "\"kernel\": \"gaussian\",\n");
    assert_contains(text, "\"aicc\": null,\n"); /* interpolation: infinite */
    assert_contains(text, "\"sigma2\": null,\n");
    assert_contains(text, "\"x\": [\"a\\\"\\\\\\u0001\\ufffd\"]");
    assert_true(number_after(text, "\"seconds\": ") > 0);
    free(text);
    r = run(ARGUMENTS("python3", "-c", ""), NULL);
    int missing = r.exit_code;
    ran_free(&r);
    if (missing) skip();
    r = run(ARGUMENTS("python3", "-c", "import json, sys; json.load(open(sys.argv[1]))",
                      scratch("r.json")),
            NULL);
    assert_string_equal(r.err, "");
    ran_free(&r);
}

static void of_all_kernels_the_best_is_taken(void **state)
{
    (void)state;
    char *text = report(ARGUMENTS("--kernel", "all", "--select", "gcv"));
    double best = number_after(text, "\"objective\": "), least = INFINITY;
    const char *name = NULL;
    for (int k = 0; k <= QKV_REGRESSION_CONSTANT; k++) {
        char key[64];
        const char *kernel = qkv_regression_kernel_name((qkv_regression_kernel)k);
        snprintf(key, sizeof key, "\"%s\": {\"objective\": ", kernel);
        double objective = number_after(text, key);
        if (objective < least) least = objective, name = kernel;
    }
    assert_close(best, least, 0);
    char key[64];
    snprintf(key, sizeof key, "\"kernel\": \"%s\"", name);
    assert_contains(text, key);
    free(text);
    ran r = regress(ARGUMENTS("--data", CARS, "--kernel", "all"), NULL);
    assert_int_equal(r.exit_code, 0);
    assert_contains(r.out, "kernel         loo          bandwidth\n  gaussian     248.");
    const char *mark = strstr(r.out, "   best\n");
    assert_non_null(mark);
    assert_null(strstr(mark + 1, "   best\n"));
    ran_free(&r);
}

static void of_many_rows_some_stand_for_all(void **state)
{
    (void)state;
    enum { MANY = 60000 };
    double *x = calloc(MANY, sizeof *x), *y = calloc(MANY, sizeof *y);
    fill_normal(y, MANY, 5);
    for (int i = 0; i < MANY; i++) {
        x[i] = uniform(6, (uint64_t)i, 0, 10);
        y[i] = sin(x[i]) + 0.3 * y[i];
    }
    const char *csv = scratch("many.csv");
    assert_ok(
        qkv_csv_save(csv, (const char *const[]){"x", "y"}, (const double *const[]){x, y}, 2, MANY));
    const char *const line[] = {
        "--data", csv, "--bandwidth", "0.01", "--report", scratch("many.json"), NULL};
    ran r = regress(line, NULL);
    assert_int_equal(r.exit_code, 0);
    assert_contains(r.err, "warning: criteria and statistics come from the fits of 10000 of 60000");
    char *text = read_file(scratch("many.json"), NULL);
    assert_contains(text, "\"rows\": 10000,");
    assert_close(number_after(text, "\"sigma2\": "), 0.09, 0.005);
    free(text);
    ran_free(&r), free(x), free(y);
}

/* ---- Several columns of y, and classes ------------------------------------------------------- */

static void each_y_is_predicted_as_if_alone(void **state)
{
    (void)state;
    static const char csv[] = "x,a,b\n1,2,9\n2,4,7\n3,3,8\n4,6,1\n5,NA,3\n6,5,2\n7,8,4\n";
    write_text("at.csv", "x\n1.5\n4.2\n");
    const char *both = scratch("both.csv"), *alone = scratch("alone.csv");
    succeed(ARGUMENTS("--data", "-", "--x", "x", "--y", "a,b", "--bandwidth", "1.5", "--at",
                      scratch("at.csv"), "--predict", both),
            csv);
    char *text = read_file(both, NULL);
    static const char header[] = "x,mean_a,se_a,lower_a,upper_a,mean_b,se_b,lower_b,upper_b,"
                                 "n_effective,grad_x_a,grad_x_b\n";
    assert_int_equal(strncmp(text, header, strlen(header)), 0);
    free(text);
    static const char complete[] = "x,a,b\n1,2,9\n2,4,7\n3,3,8\n4,6,1\n6,5,2\n7,8,4\n";
    static const char *const what[] = {"mean", "se", "lower", "upper", "grad_x"};
    for (int k = 0; k < 2; k++) {
        succeed(ARGUMENTS("--data", "-", "--x", "x", "--y", k ? "b" : "a", "--bandwidth", "1.5",
                          "--at", scratch("at.csv"), "--predict", alone),
                complete);
        for (int i = 0; i < 5; i++) {
            char name[16];
            snprintf(name, sizeof name, "%s_%s", what[i], k ? "b" : "a");
            double *expected = column(alone, what[i], NULL);
            assert_column(both, name, expected, 2, 1, 1e-12);
            free(expected);
        }
    }
}

/* Results keep their names, whatever the columns of the data are called. */
static void columns_of_predictions_have_different_names(void **state)
{
    (void)state;
    static const struct {
        const char *x, *y, *csv, *header, *message;
    } cases[] = {
        {"mean,se", "y", "mean,se,y\n1,5,2\n2,3,4\n3,1,3\n",
         "x_mean,x_se,mean,se,lower,upper,n_effective,grad_mean,grad_se\n",
         "warning: two columns of the predictions would be called 'mean': one is 'x_mean'\n"},
        {"1,2", "y", "grad_b,b,y\n1,5,2\n2,3,4\n3,1,3\n",
         "x_grad_b,b,mean,se,lower,upper,n_effective,grad_grad_b,grad_b\n", "one is 'x_grad_b'\n"},
        {"1,2", "3", "x,x,y\n1,5,2\n2,3,4\n3,1,3\n",
         "x,x_x,mean,se,lower,upper,n_effective,grad_x,grad_x_2\n", "one is 'x_x'\n"},
        {"1", "2,3", "mean_y,y,y\n1,5,2\n2,3,4\n3,1,3\n",
         "x_mean_y,mean_y,se_y,lower_y,upper_y,mean_y_2,se_y_2,lower_y_2,upper_y_2,n_effective,"
         "grad_mean_y_y,grad_mean_y_y_2\n",
         "one is 'x_mean_y'\n"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ran r = regress(ARGUMENTS("--data", "-", "--x", cases[i].x, "--y", cases[i].y,
                                  "--bandwidth", "1", "--predict", "-"),
                        cases[i].csv);
        assert_int_equal(r.exit_code, 0);
        assert_int_equal(strcspn(r.out, "\n"), strlen(cases[i].header) - 1);
        assert_contains(r.out, cases[i].header);
        assert_contains(r.err, cases[i].message);
        ran_free(&r);
    }
}

static void labels_have_probabilities(void **state)
{
    (void)state;
    static const char csv[] = "x,kind\n1,red\n2,red\n3,\"blue, dark\"\n4,red\n5,\"blue, dark\"\n"
                              "6,\"blue, dark\"\n7,NA\n";
    const char *out = scratch("classes.csv"), *json = scratch("classes.json");
    succeed(ARGUMENTS("--data", "-", "--y", "kind", "--classify", "--bandwidth", "1", "--predict",
                      out, "--report", json),
            csv);
    const double x[] = {1, 2, 3, 4, 5, 6}, red[] = {1, 1, 0, 1, 0, 0}, h = 1;
    const double q[] = {1, 2, 3, 4, 5, 6, 7};
    double p[7], loo[6], right = 0;
    const qkv_regression r = {.x = x, .y = red, .n = 6};
    assert_ok(qkv_regression_predict(&r, &h, q, 7, &(qkv_regression_results){.mean = p}));
    assert_column(out, "p_red", p, 7, 1, 1e-14);
    for (int i = 0; i < 7; i++) p[i] = 1 - p[i];
    assert_column(out, "p_blue, dark", p, 7, 1, 1e-14);
    double *edge = column(out, "lower_red", NULL);
    assert_true(edge[6] >= 0);
    free(edge);
    char *text = read_file(out, NULL);
    static const char header[] = "x,\"p_blue, dark\",p_red,class,";
    assert_int_equal(strncmp(text, header, strlen(header)), 0);
    const char *name = "class";
    qkv_table t;
    assert_ok(qkv_csv_read(
        &t, out, &(qkv_csv_options){.columns = &name, .n = 1, .text = (const bool[]){true}}));
    for (int i = 0; i < 7; i++)
        assert_string_equal(t.levels[0].names[(int)t.data[i]], p[i] >= 0.5 ? "blue, dark" : "red");
    qkv_csv_free(&t), free(text);
    text = read_file(json, NULL);
    assert_ok(qkv_regression_predict(&r, &h, NULL, 0, &(qkv_regression_results){.mean = loo}));
    for (int i = 0; i < 6; i++) right += (loo[i] > 0.5) == (red[i] > 0);
    assert_close(number_after(text, "\"accuracy\": "), right / 6, 1e-15);
    assert_close(number_after(text, "\"dropped\": "), 1, 0);
    assert_contains(text, "\"classes\": [\"blue, dark\", \"red\"]");
    free(text);
    succeed(ARGUMENTS("--data", "-", "--y", "k", "--classify", "--report", json),
            "x,k\n1,10\n2,9\n3,9\n4,10\n5,100\n6,100\n");
    text = read_file(json, NULL);
    assert_contains(text, "\"classes\": [\"9\", \"10\", \"100\"]"); /* in the order of numbers */
    free(text);
    succeed(ARGUMENTS("--data", "-", "--y", "k", "--classify", "--kernel", "boxcar", "--bandwidth",
                      "1.5", "--report", json),
            "x,k\n1,u\n2,u\n3,u\n9,v\n"); /* the last row has no other in reach */
    text = read_file(json, NULL);
    assert_close(number_after(text, "\"accuracy\": "), 1, 0);
    free(text);
}

/* ---- Queries, models, weights ---------------------------------------------------------------- */

static void queries_come_from_a_file_by_name(void **state)
{
    (void)state;
    const char *out = scratch("at_out.csv");
    write_text("query.csv", "note,speed\nfirst,10\nsecond,\nthird,90\n");
    const char *const line[] = {"--data",      CARS, "--at", scratch("query.csv"), "--predict", out,
                                "--bandwidth", "2",  NULL};
    ran r = regress(line, NULL);
    assert_int_equal(r.exit_code, 0);
    assert_contains(r.err, "1 of 3 queries have missing cells: their results are NA");
    assert_contains(r.err, "1 of 3 queries extrapolate: n_effective below 2, or outside");
    ran_free(&r);
    qkv_regression cars_ = cars();
    double q[] = {10, 90}, h = 2, mean[2];
    assert_ok(qkv_regression_predict(&cars_, &h, q, 2, &(qkv_regression_results){.mean = mean}));
    assert_column(out, "mean", (double[]){mean[0], NAN, mean[1]}, 3, 1, 0);
    char *text = read_file(out, NULL);
    assert_contains(text, "\nNA,NA,NA,NA,NA,NA,NA\n"); /* all of it */
    free(text);
    write_text("query.csv", "note\n1\n");
    assert_refused(line, 1, "query.csv, line 1: expected a column 'speed', found 'note'\n");
}

/* Without a header columns go by their places: those of x alone, or those of the data. */
static void queries_without_a_header_go_by_place(void **state)
{
    (void)state;
    static const struct {
        const char *data, *x, *y, *queries;
    } same[] = {{"a,b,y\n0,0,1\n1,3,4\n2,1,2\n4,4,8\n", "a,b", "y", "a,b\n1,2\n3,1\n"},
                {"a,b,y\n0,0,1\n1,3,4\n2,1,2\n4,4,8\n", "a,b", "y", "1,2\n3,1\n"},
                {"b,a,y\n0,0,1\n3,1,4\n1,2,2\n4,4,8\n", "a,b", "y", "1,2\n3,1\n"},
                {"0,0,1\n1,3,4\n2,1,2\n4,4,8\n", "1,2", "3", "1;2\n3;1\n"},
                {"1,0,0\n4,1,3\n2,2,1\n8,4,4\n", "2,3", "1", "9,1,2\n9,3,1\n"}};
    const char *out = scratch("place.csv");
    double *expected = NULL;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        write_text("place_at.csv", same[i].queries);
        succeed(ARGUMENTS("--data", "-", "--x", same[i].x, "--y", same[i].y, "--bandwidth", "1,2",
                          "--at", scratch("place_at.csv"), "--predict", out),
                same[i].data);
        if (i == 0) expected = column(out, "mean", NULL);
        assert_column(out, "mean", expected, 2, 1, 1e-14); /* sums are in the order of x */
    }
    free(expected);
    write_text("place_at.csv", "1,2\n3,1\n");
    assert_refused(
        ARGUMENTS("--data", CARS, "--at", scratch("place_at.csv"), "--predict", out), 1,
        "place_at.csv, line 1: columns: 2, without a header; expected 1, or a header with "
        "'speed'\n");
}

static void a_saved_model_predicts_the_same_bits(void **state)
{
    (void)state;
    const char *model = scratch("model.qkv"), *before = scratch("before.csv"),
               *after = scratch("after.csv");
    write_text("far.csv", "b,a\n1,2\n0.3,-4\nNA,1\n7,7\n");
    static const char csv[] = "a,b,label\n0,0,u\n1,3,v\n2,1,u\n4,4,v\n5,2,w\n3,3,w\n";
    const char *const data[][12] = {
        {"--data", CARS, "--kernel", "tricube"},
        {"--data", "-", "--x", "a,b", "--y", "label", "--classify", "--degree", "1"}};
    for (int i = 0; i < 2; i++) {
        const char *line[20], *where[2] = {i ? "--at" : "--grid", i ? scratch("far.csv") : "9"};
        int n = 0;
        for (; data[i][n]; n++) line[n] = data[i][n];
        const char *const more[] = {where[0], where[1], "--save", model, "--predict", before, NULL};
        memcpy(line + n, more, sizeof more);
        succeed(line, csv);
        succeed(ARGUMENTS("--load", model, where[0], where[1], "--predict", after), NULL);
        char *first = read_file(before, NULL), *second = read_file(after, NULL);
        assert_string_equal(second, first);
        free(first), free(second);
    }
    assert_refused(ARGUMENTS("--load", model), 2, "--load goes with ");
    assert_refused(ARGUMENTS("--load", model, "--kernel", "boxcar", "--predict", after), 2,
                   "--kernel and --load do not go together");
    assert_refused(ARGUMENTS("--load", CARS, "--grid", "3", "--predict", after), 1, "cars.csv");
}

static void weights_are_written_as_an_array(void **state)
{
    (void)state;
    const char *path = scratch("w.npy");
    succeed(ARGUMENTS("--data", CARS, "--bandwidth", "2", "--grid", "7", "--weights", path), NULL);
    qkv_npy w;
    assert_ok(qkv_npy_load(&w, path));
    assert_int_equal(w.rank, 2);
    assert_int_equal(w.dim[0], GRID);
    assert_int_equal(w.dim[1], ROWS);
    assert_int_equal(w.type, QKV_NPY_F64);
    qkv_regression r = cars();
    double h = 2, expected[GRID * ROWS];
    assert_ok(
        qkv_regression_predict(&r, &h, grid, GRID, &(qkv_regression_results){.weights = expected}));
    assert_memory_equal(w.data, expected, sizeof expected);
    qkv_npy_free(&w);
    /* More than a machine may have are refused before anything is searched or written. */
    remove(path);
    ran many = regress(ARGUMENTS("--data", CARS, "--grid", "10000000", "--weights", path), NULL);
    assert_int_equal(many.exit_code, 1);
    assert_string_equal(many.err, "nadaraya_watson: --weights: 10000000 queries by 50 rows are 4 "
                                  "GB, expected at most 2: ask for fewer queries with --grid or "
                                  "--at\n");
    assert_int_equal(scratch_count("w.npy"), 0);
    ran_free(&many);
}

static void threads_and_seeds_do_what_they_should(void **state)
{
    (void)state;
    const char *one = scratch("one.csv"), *two = scratch("two_.csv"), *other = scratch("other.csv");
    succeed(ARGUMENTS("--plot", "", "--threads", "1", "--predict", one), NULL);
    succeed(ARGUMENTS("--plot", "", "--threads", "2", "--predict", two), NULL);
    succeed(ARGUMENTS("--plot", "", "--seed", "2", "--predict", other), NULL);
    char *a = read_file(one, NULL), *b = read_file(two, NULL), *c = read_file(other, NULL);
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
    free(a), free(b), free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_predicted_is_the_librarys),
        cmocka_unit_test(choices_about_the_fit_reach_the_library),
        cmocka_unit_test(an_empty_support_is_what_the_policy_says),
        cmocka_unit_test(y_that_cannot_be_squared_has_no_errors),
        cmocka_unit_test(case_weights_count_rows),
        cmocka_unit_test(several_columns_multiply_or_measure_a_distance),
        cmocka_unit_test(bands_are_of_resampled_rows_if_asked_for),
        cmocka_unit_test(the_bandwidth_is_the_librarys),
        cmocka_unit_test(the_report_says_how_much_is_explained),
        cmocka_unit_test(the_report_has_the_references_numbers),
        cmocka_unit_test(criteria_come_from_so_many_rows),
        cmocka_unit_test(a_report_is_json_whatever_the_numbers),
        cmocka_unit_test(of_all_kernels_the_best_is_taken),
        cmocka_unit_test(of_many_rows_some_stand_for_all),
        cmocka_unit_test(each_y_is_predicted_as_if_alone),
        cmocka_unit_test(columns_of_predictions_have_different_names),
        cmocka_unit_test(labels_have_probabilities),
        cmocka_unit_test(queries_come_from_a_file_by_name),
        cmocka_unit_test(queries_without_a_header_go_by_place),
        cmocka_unit_test(a_saved_model_predicts_the_same_bits),
        cmocka_unit_test(weights_are_written_as_an_array),
        cmocka_unit_test(threads_and_seeds_do_what_they_should),
    };
    return cmocka_run_group_tests(tests, load_cars, NULL);
}
