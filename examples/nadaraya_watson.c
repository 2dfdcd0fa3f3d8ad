/* nadaraya_watson.c - kernel regression that learns its bandwidth: attention with data for keys and
 * values, and the leave-one-out loss descended by Adam on the logarithm of the bandwidth. */
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "qkv/plot.h"
#include "qkv/regression.h"
#include "src/csv.h"
#include "src/random.h"

enum { MAX_X = 16 };

typedef struct settings {
    const char *data, *plot, *format, *predict;
    const char *x[MAX_X];
    const char *y;
    long n_x, n, seed, steps, grid;
    double rate;
} settings;

typedef struct data_set {
    double *x, *y; /* [n, d], [n], sorted by the first column */
    ptrdiff_t n, d;
    size_t dropped;
    bool toy;
    const char *x_name[MAX_X];
    const char *y_name;
} data_set;

/* What the fit went through: [steps + 1] losses and first bandwidths. */
typedef struct trace {
    double *step, *loss, *bandwidth;
    size_t n, room;
    progress bar;
    long total;
} trace;

/* ---- Data ---------------------------------------------------------------------------------------
 */

/* The chapter's function, y = 2 sin x + x. */
static double toy_function(double x)
{
    return 2 * sin(x) + x;
}

static ptrdiff_t sort_columns; /* qsort's comparison takes no context */

static int by_first_column(const void *a, const void *b)
{
    const double *x = a, *y = b;
    for (ptrdiff_t c = 0; c < sort_columns; c++)
        if (x[c] != y[c]) return x[c] < y[c] ? -1 : 1;
    return 0;
}

/* rows [n, d + 1] with y last become x and y, sorted. */
static void take_rows(data_set *s, double *rows)
{
    sort_columns = s->d + 1;
    qsort(rows, (size_t)s->n, (size_t)(s->d + 1) * sizeof *rows, by_first_column);
    s->x = allocate((size_t)(s->n * s->d), sizeof *s->x);
    s->y = allocate((size_t)s->n, sizeof *s->y);
    for (ptrdiff_t i = 0; i < s->n; i++) {
        memcpy(s->x + i * s->d, rows + i * (s->d + 1), (size_t)s->d * sizeof *rows);
        s->y[i] = rows[i * (s->d + 1) + s->d];
    }
}

static data_set make_toy(const settings *o)
{
    data_set s = {.n = o->n, .d = 1, .toy = true, .x_name = {"x"}, .y_name = "y"};
    double *rows = allocate((size_t)s.n, 2 * sizeof *rows);
    for (ptrdiff_t i = 0; i < s.n; i++) {
        uint64_t seed = (uint64_t)o->seed, at = (uint64_t)i;
        rows[2 * i] = 5 * qkv_random_uniform(seed, 0, at);
        rows[2 * i + 1] = toy_function(rows[2 * i]) + qkv_random_normal(seed, 1, at);
    }
    take_rows(&s, rows);
    free(rows);
    return s;
}

static data_set load_data(const settings *o)
{
    const char *columns[MAX_X + 1];
    for (long c = 0; c < o->n_x; c++) columns[c] = o->x[c];
    columns[o->n_x] = o->y;
    qkv_table table;
    check(qkv_csv_load(&table, o->data, columns, (size_t)o->n_x + 1));
    data_set s = {
        .n = (ptrdiff_t)table.rows, .d = o->n_x, .dropped = table.dropped, .y_name = o->y};
    for (long c = 0; c < o->n_x; c++) s.x_name[c] = o->x[c];
    if (s.n < 3) fail_with("%s: %td complete rows, expected at least 3", o->data, s.n);
    take_rows(&s, table.data);
    qkv_csv_free(&table);
    return s;
}

/* ---- The fit
 * ------------------------------------------------------------------------------------- */

static bool observe(void *context, const qkv_regression_step *s)
{
    trace *t = context;
    if (t->n < t->room) {
        t->step[t->n] = (double)s->step;
        t->loss[t->n] = s->loss;
        t->bandwidth[t->n++] = s->bandwidth[0];
    }
    progress_show(&t->bar, s->step < t->total ? (long)s->step : t->total - 1, "loss %.6g", s->loss);
    return true;
}

static double mean_of(const double *x, ptrdiff_t n)
{
    double sum = 0;
    for (ptrdiff_t i = 0; i < n; i++) sum += x[i];
    return sum / (double)n;
}

/* 1 - residual / total sum of squares. */
static double r_squared(const double *y, const double *fitted, ptrdiff_t n)
{
    double mean = mean_of(y, n), residual = 0, total = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        residual += (y[i] - fitted[i]) * (y[i] - fitted[i]);
        total += (y[i] - mean) * (y[i] - mean);
    }
    return total > 0 ? 1 - residual / total : NAN;
}

static void print_report(const data_set *s, const qkv_regression *r, const double *start,
                         const double *h, const qkv_regression_fit_report *fit)
{
    double *fitted = allocate((size_t)s->n, sizeof *fitted);
    printf("data           %s: %td rows", s->toy ? "y = 2 sin x + x + noise" : s->y_name, s->n);
    if (s->dropped) printf(", %zu incomplete ones dropped", s->dropped);
    printf("\nsteps          %td%s\n", fit->steps, fit->converged ? ", converged" : "");
    printf("loss before    %.6g   (leave-one-out mean squared error)\n", fit->loss_before);
    printf("loss after     %.6g\n", fit->loss_after);
    for (ptrdiff_t c = 0; c < s->d; c++)
        printf("bandwidth      %.6g   of %s (started at %.6g)\n", h[c], s->x_name[c], start[c]);
    check(qkv_regression_leave_one_out(r, h, fitted));
    printf("R^2            %.4f   leave-one-out\n", r_squared(s->y, fitted, s->n));
    check(qkv_regression_predict(r, h, s->x, s->n, fitted, NULL));
    printf("               %.4f   in sample\n", r_squared(s->y, fitted, s->n));
    free(fitted);
}

/* ---- Output
 * ----------------------------------------------------------------------------------------- */

/* n numbers from the least to the greatest x, a little beyond. */
static double *make_grid(const data_set *s, ptrdiff_t n)
{
    double low = s->x[0], high = s->x[(s->n - 1) * s->d], beyond = 0.03 * (high - low);
    double *grid = allocate((size_t)n, sizeof *grid);
    for (ptrdiff_t i = 0; i < n; i++)
        grid[i] = low - beyond + (high - low + 2 * beyond) * (double)i / (double)(n - 1);
    return grid;
}

static double *predict(const qkv_regression *r, const double *h, const double *q, ptrdiff_t n)
{
    double *mean = allocate((size_t)n, sizeof *mean);
    check(qkv_regression_predict(r, h, q, n, mean, NULL));
    return mean;
}

/* One column: the curve on a grid. Several: each row with its prediction from all the others. */
static void save_predictions(const data_set *s, const qkv_regression *r, const double *h,
                             const double *grid, ptrdiff_t n_grid, const char *path)
{
    const char *names[MAX_X + 2];
    const double *columns[MAX_X + 2];
    size_t n = 0;
    double *mean, *x = allocate((size_t)(s->n * s->d), sizeof *x);
    if (s->d == 1) {
        names[n] = s->x_name[0];
        columns[n++] = grid;
        mean = predict(r, h, grid, n_grid);
    } else {
        for (ptrdiff_t c = 0; c < s->d; c++) {
            for (ptrdiff_t i = 0; i < s->n; i++) x[c * s->n + i] = s->x[i * s->d + c];
            names[n] = s->x_name[c];
            columns[n++] = x + c * s->n;
        }
        names[n] = s->y_name;
        columns[n++] = s->y;
        mean = allocate((size_t)s->n, sizeof *mean);
        check(qkv_regression_leave_one_out(r, h, mean));
    }
    names[n] = "mean";
    columns[n++] = mean;
    check(qkv_csv_save(path, names, columns, n, (size_t)(s->d == 1 ? n_grid : s->n)));
    free(mean), free(x);
}

static char *figure_path(const settings *o, const char *name)
{
    char file[64];
    snprintf(file, sizeof file, "%s.%s", name, o->format);
    return join_path(o->plot, file);
}

static void draw_panels(const settings *o, const char *name, const qkv_panel *panels, int rows,
                        int cols, double width, double height)
{
    char *path = figure_path(o, name);
    check(qkv_plot_panels(panels, rows, cols,
                          &(qkv_figure){.path = path, .width = width, .height = height}));
    free(path);
}

static void draw_fit(const settings *o, const data_set *s, const qkv_regression *r,
                     const double *start, const double *h, const double *grid, ptrdiff_t n)
{
    double *before = predict(r, start, grid, n), *after = predict(r, h, grid, n);
    double *truth = allocate((size_t)n, sizeof *truth);
    for (ptrdiff_t i = 0; i < n; i++) truth[i] = toy_function(grid[i]);
    qkv_series series[] = {
        {QKV_POINTS, "data", (size_t)s->n, s->x, s->y, .colour = "#999999"},
        {QKV_DASHES, "bandwidth at the start", (size_t)n, grid, before, .colour = "#56b4e9"},
        {QKV_LINE, "learned bandwidth", (size_t)n, grid, after, .size = 2.2, .colour = "#d55e00"},
        {QKV_LINE, "2 sin x + x", (size_t)n, grid, truth, .colour = "#000000"}};
    const qkv_panel panel = {.title = "Nadaraya-Watson regression",
                             .x_label = s->x_name[0],
                             .y_label = s->y_name,
                             .series = series,
                             .n_series = s->toy ? 4 : 3};
    draw_panels(o, "fit", &panel, 1, 1, 7, 4.6);
    free(before), free(after), free(truth);
}

/* Several columns have no curve: what the other rows predict, against what was observed. */
static void draw_predicted(const settings *o, const data_set *s, const qkv_regression *r,
                           const double *h)
{
    double *mean = allocate((size_t)s->n, sizeof *mean), ends[2] = {s->y[0], s->y[0]};
    check(qkv_regression_leave_one_out(r, h, mean));
    for (ptrdiff_t i = 0; i < s->n; i++) {
        ends[0] = fmin(ends[0], s->y[i]);
        ends[1] = fmax(ends[1], s->y[i]);
    }
    const qkv_series series[] = {{QKV_LINE, NULL, 2, ends, ends, .colour = "#999999"},
                                 {QKV_POINTS, NULL, (size_t)s->n, s->y, mean, .colour = "#0072b2"}};
    const qkv_panel panel = {.title = "Each row predicted from all the others",
                             .x_label = "observed",
                             .y_label = "predicted",
                             .equal_aspect = true,
                             .series = series,
                             .n_series = 2};
    draw_panels(o, "fit", &panel, 1, 1, 5.5, 5);
    free(mean);
}

/* Queries over keys: at most 50 of one and 120 of the other, evenly chosen, in the order of x. */
static void draw_weights(const settings *o, const data_set *s, const qkv_regression *r,
                         const double *h, const double *grid, ptrdiff_t n_grid)
{
    ptrdiff_t n_q = s->d == 1 ? n_grid : s->n;
    ptrdiff_t rows = n_q < 50 ? n_q : 50, cols = s->n < 120 ? s->n : 120;
    double *q = allocate((size_t)(rows * s->d), sizeof *q);
    double *all = allocate((size_t)(rows * s->n), sizeof *all), *mean = allocate((size_t)rows, 8);
    double *shown = allocate((size_t)(rows * cols), sizeof *shown);
    for (ptrdiff_t i = 0; i < rows; i++)
        memcpy(q + i * s->d,
               (s->d == 1 ? grid : s->x) + i * (n_q - 1) / (rows > 1 ? rows - 1 : 1) * s->d,
               (size_t)s->d * sizeof *q);
    check(qkv_regression_predict(r, h, q, rows, mean, all));
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < cols; j++)
            shown[i * cols + j] = all[i * s->n + j * (s->n - 1) / (cols > 1 ? cols - 1 : 1)];
    char *path = figure_path(o, "weights");
    const char *const titles[] = {"Attention weights"};
    const ptrdiff_t shape[4] = {1, 1, rows, cols};
    check(qkv_show_heatmaps(shown, shape,
                            &(qkv_heatmap_options){.figure.path = path,
                                                   .x_label = "Keys (data, sorted by x)",
                                                   .y_label = "Queries (sorted by x)",
                                                   .titles = titles}));
    free(path), free(q), free(all), free(mean), free(shown);
}

/* The chapter's panel: the same data under four kernels, each at a bandwidth that smooths like the
 * learned one. */
static void draw_kernels(const settings *o, const data_set *s, const qkv_regression *r,
                         const double *h, const double *grid, ptrdiff_t n)
{
    static const struct {
        qkv_regression_kernel kernel;
        const char *name;
    } kernels[] = {{QKV_REGRESSION_GAUSSIAN, "Gaussian"},
                   {QKV_REGRESSION_BOXCAR, "Boxcar"},
                   {QKV_REGRESSION_CONSTANT, "Constant"},
                   {QKV_REGRESSION_TRIANGULAR, "Triangular (Epanechikov)"}};
    qkv_panel panels[4];
    qkv_series series[4][2];
    double *mean[4], reference;
    check(qkv_regression_silverman(r, &reference));
    for (int k = 0; k < 4; k++) {
        qkv_regression other = *r;
        double bandwidth;
        other.kernel = kernels[k].kernel;
        check(qkv_regression_silverman(&other, &bandwidth));
        bandwidth *= h[0] / reference;
        mean[k] = predict(&other, &bandwidth, grid, n);
        series[k][0] = (qkv_series){QKV_POINTS, NULL,      (size_t)s->n,       s->x,
                                    s->y,       .size = 3, .colour = "#999999"};
        series[k][1] = (qkv_series){QKV_LINE, NULL, (size_t)n, grid, mean[k], .colour = "#d55e00"};
        panels[k] = (qkv_panel){.title = kernels[k].name,
                                .x_label = s->x_name[0],
                                .y_label = k % 2 == 0 ? s->y_name : NULL,
                                .series = series[k],
                                .n_series = 2};
    }
    draw_panels(o, "kernels", panels, 2, 2, 8, 6);
    for (int k = 0; k < 4; k++) free(mean[k]);
}

static void draw_loss(const settings *o, const trace *t)
{
    const qkv_series loss = {QKV_LINE, NULL, t->n, t->step, t->loss, .colour = "#0072b2"};
    const qkv_series bandwidth = {QKV_LINE, NULL, t->n, t->step, t->bandwidth, .colour = "#d55e00"};
    const qkv_panel panels[] = {
        {.title = "Leave-one-out loss", .x_label = "step", .series = &loss, .n_series = 1},
        {.title = "Bandwidth", .x_label = "step", .series = &bandwidth, .n_series = 1}};
    draw_panels(o, "loss", panels, 1, 2, 9, 3.6);
}

/* ---- The command line
 * --------------------------------------------------------------------------------- */

/* Splits "a,b" in place. */
static long split(char *text, const char **parts)
{
    long n = 0;
    for (char *part = strtok(text, ","); part; part = strtok(NULL, ",")) {
        if (n == MAX_X) usage_error("--x names more than %d columns", MAX_X);
        parts[n++] = part;
    }
    if (n == 0) usage_error("--x names no column");
    return n;
}

static settings read_settings(int argc, char **argv)
{
    static const command_option options[] = {
        {"data", "FILE",
         "a CSV to learn from, - for standard input (default: the chapter's toy data)"},
        {"x", "COL[,COL]", "the column or columns to regress on, by name or number from 1"},
        {"y", "COL", "the column to predict"},
        {"n", "N", "rows of the toy data (default 40)"},
        {"seed", "N", "seed of the toy data (default 1)"},
        {"steps", "N", "at most so many steps of Adam (default 300)"},
        {"rate", "R", "its learning rate, on log h (default 0.1)"},
        {"grid", "N", "points of the predicted curve (default 200)"},
        {"plot", "DIR",
         "where to write the figures fit, weights, kernels and loss, and predictions.csv (default "
         "figures; '' for none)"},
        {"format", "svg|png|pdf", "format of the figures (default svg)"},
        {"predict", "FILE", "write the predictions to FILE instead"},
        {"threads", "N", "threads of the attention layer (default: all)"},
        {0}};
    static const command c = {.usage = "",
                              .summary = "Nadaraya-Watson kernel regression that learns its "
                                         "bandwidth: the leave-one-out loss is "
                                         "descended by Adam on log h.",
                              .options = options};
    settings o = {.n = 40,
                  .seed = 1,
                  .steps = 300,
                  .grid = 200,
                  .rate = 0.1,
                  .plot = "figures",
                  .format = "svg"};
    for (int i; (i = command_next(&c, argc, argv)) >= 0;) switch (i) {
        case 0:
            o.data = optarg;
            break;
        case 1:
            o.n_x = split(optarg, o.x);
            break;
        case 2:
            o.y = optarg;
            break;
        case 3:
            o.n = integer_argument("n", optarg, 3, 1000000);
            break;
        case 4:
            o.seed = integer_argument("seed", optarg, 0, 1L << 62);
            break;
        case 5:
            o.steps = integer_argument("steps", optarg, 1, 1000000);
            break;
        case 6:
            o.rate = number_argument("rate", optarg, 1e-9, 1e3);
            break;
        case 7:
            o.grid = integer_argument("grid", optarg, 2, 10000000);
            break;
        case 8:
            o.plot = *optarg ? optarg : NULL;
            break;
        case 9:
            o.format = format_argument("format", optarg);
            break;
        case 10:
            o.predict = optarg;
            break;
        case 11:
            check(qkv_set_num_threads((int)integer_argument("threads", optarg, 1, 4096)));
            break;
        }
    if (optind < argc) usage_error("unexpected argument '%s'", argv[optind]);
    if (o.data && (!o.n_x || !o.y)) usage_error("--data needs --x and --y");
    if (!o.data && (o.n_x || o.y)) usage_error("--x and --y need --data");
    return o;
}

static void draw_all(const settings *o, const data_set *s, const qkv_regression *r,
                     const double *start, const double *h, const double *grid, const trace *t)
{
    if (s->d == 1) {
        draw_fit(o, s, r, start, h, grid, o->grid);
        draw_kernels(o, s, r, h, grid, o->grid);
    } else {
        draw_predicted(o, s, r, h);
    }
    draw_weights(o, s, r, h, grid, o->grid);
    draw_loss(o, t);
    printf("figures        %s/{fit,weights%s,loss}.%s\n", o->plot, s->d == 1 ? ",kernels" : "",
           o->format);
}

int main(int argc, char **argv)
{
    settings o = read_settings(argc, argv);
    data_set s = o.data ? load_data(&o) : make_toy(&o);
    if (o.plot) make_directories(o.plot);
    const qkv_regression r = {.x = s.x, .y = s.y, .n = s.n, .d_x = s.d, .bandwidths = s.d};
    trace t = {
        .room = (size_t)o.steps + 1, .bar = {.label = "fit", .total = o.steps}, .total = o.steps};
    t.step = allocate(t.room, sizeof(double));
    t.loss = allocate(t.room, sizeof(double));
    t.bandwidth = allocate(t.room, sizeof(double));
    double start[MAX_X], h[MAX_X];
    qkv_regression_fit_report report;
    check(qkv_regression_silverman(&r, start));
    check(qkv_regression_fit(
        &r,
        &(qkv_regression_fit_options){
            .start = start, .steps = o.steps, .rate = o.rate, .observe = observe, .context = &t},
        h, &report));
    progress_show(&t.bar, o.steps, "loss %.6g", report.loss_after);
    print_report(&s, &r, start, h, &report);
    double *grid = make_grid(&s, o.grid);
    char *path = o.predict ? NULL : o.plot ? join_path(o.plot, "predictions.csv") : NULL;
    const char *csv = o.predict ? o.predict : path;
    if (csv) {
        save_predictions(&s, &r, h, grid, o.grid, csv);
        printf("predictions    %s\n", csv);
    }
    /* Last: the numbers need no gnuplot. */
    if (o.plot) draw_all(&o, &s, &r, start, h, grid, &t);
    free(path), free(grid), free(t.step), free(t.loss), free(t.bandwidth), free(s.x), free(s.y);
    return finish();
}
