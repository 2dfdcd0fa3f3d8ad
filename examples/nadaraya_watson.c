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

static const double toy_start = 3; /* an almost flat curve: something is left to learn */

typedef struct settings {
    const char *data, *plot, *format, *predict;
    const char *x[MAX_X];
    const char *y;
    double start[MAX_X];
    long n_x, n_start, n, seed, steps, grid;
    double rate;
} settings;

typedef struct data_set {
    double *x, *y; /* [n, d], [n], sorted by the first column */
    ptrdiff_t n, d;
    bool toy;
    const char *x_name[MAX_X];
    const char *y_name;
    qkv_table table; /* has the names; zeroed for the toy data */
} data_set;

/* What the fit went through: [steps + 1] losses and bandwidths. */
typedef struct trace {
    double *step, *loss, *bandwidth[MAX_X];
    size_t n;
    ptrdiff_t d;
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

/* A column that never changes would pass through the fit in silence, and so would distances whose
 * squares overflow or vanish. */
static void check_column(const settings *o, const qkv_table *t, size_t column)
{
    double low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < t->rows; i++) {
        low = fmin(low, t->data[i * t->columns + column]);
        high = fmax(high, t->data[i * t->columns + column]);
    }
    if (low == high)
        fail_with("%s: '%s' is %g in all %zu rows: there is nothing to %s", o->data,
                  t->names[column], low, t->rows,
                  column + 1 == t->columns ? "predict" : "predict from");
    if (!(high - low > 1e-150 && high - low < 1e150))
        fail_with("%s: '%s' goes from %g to %g: rescale it, the squares exceed a double", o->data,
                  t->names[column], low, high);
}

static data_set load_data(const settings *o)
{
    const char *columns[MAX_X + 1];
    for (long c = 0; c < o->n_x; c++) columns[c] = o->x[c];
    columns[o->n_x] = o->y;
    data_set s = {.d = o->n_x};
    check(qkv_csv_load(&s.table, o->data, columns, (size_t)o->n_x + 1));
    s.n = (ptrdiff_t)s.table.rows;
    if (s.n < 3)
        fail_with("%s: complete rows: %td, expected at least 3 (incomplete, so dropped: %zu)",
                  o->data, s.n, s.table.dropped);
    for (size_t c = 0; c < s.table.columns; c++) check_column(o, &s.table, c);
    for (ptrdiff_t c = 0; c < s.d; c++) s.x_name[c] = s.table.names[c];
    s.y_name = s.table.names[s.d];
    take_rows(&s, s.table.data);
    return s;
}

/* ---- The fit -----------------------------------------------------------------------------------
 */

/* As asked for, for all columns or each; otherwise wide for the toy data and by rule for others. */
static void choose_start(const settings *o, const data_set *s, const qkv_regression *r,
                         double *start)
{
    if (o->n_start > 1 && o->n_start != s->d)
        usage_error("--start gives %ld bandwidths, expected 1 or %td", o->n_start, s->d);
    check(qkv_regression_silverman(r, start));
    if (s->toy) start[0] = toy_start;
    for (ptrdiff_t c = 0; o->n_start && c < s->d; c++) start[c] = o->start[o->n_start > 1 ? c : 0];
}

static trace new_trace(const settings *o, const data_set *s)
{
    size_t room = (size_t)o->steps + 1;
    trace t = {.d = s->d, .bar = {.label = "fit", .total = o->steps}, .total = o->steps};
    t.step = allocate(room, sizeof(double));
    t.loss = allocate(room, sizeof(double));
    for (ptrdiff_t c = 0; c < s->d; c++) t.bandwidth[c] = allocate(room, sizeof(double));
    return t;
}

static void free_trace(trace *t)
{
    free(t->step);
    free(t->loss);
    for (ptrdiff_t c = 0; c < t->d; c++) free(t->bandwidth[c]);
}

static bool observe(void *context, const qkv_regression_step *s)
{
    trace *t = context;
    t->step[t->n] = (double)s->step;
    t->loss[t->n] = s->loss;
    for (ptrdiff_t c = 0; c < t->d; c++) t->bandwidth[c][t->n] = s->bandwidth[c];
    t->n++;
    progress_show(&t->bar, s->step < t->total ? (long)s->step : t->total - 1, "loss %.6g", s->loss);
    return true;
}

/* Learns h and leaves its way there in t; start is where it really began. */
static qkv_regression_fit_report fit(const settings *o, const qkv_regression *r, double *start,
                                     double *h, trace *t)
{
    qkv_regression_fit_report report;
    const qkv_regression_fit_options options = {
        .start = start, .steps = o->steps, .rate = o->rate, .observe = observe, .context = t};
    check(qkv_regression_fit(r, &options, h, &report));
    for (ptrdiff_t c = 0; c < t->d; c++) start[c] = t->bandwidth[c][0];
    t->bar.total = report.steps;
    progress_show(&t->bar, report.steps, "loss %.6g", report.loss_after);
    return report;
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

/* How the descent ended, and what to do about it. */
static const char *ending(const settings *o, const qkv_regression_fit_report *fit)
{
    if (fit->converged)
        return fit->steps ? "converged" : "no slope at the start: try another --start";
    return fit->steps < o->steps ? "rounding lets no step lower the loss"
                                 : "not converged: allow more --steps";
}

static void print_report(const settings *o, const data_set *s, const qkv_regression *r,
                         const double *start, const double *h, const qkv_regression_fit_report *fit)
{
    double *fitted = allocate((size_t)s->n, sizeof *fitted);
    if (s->toy)
        printf("data           y = 2 sin x + x + noise: %td rows\n", s->n);
    else
        printf("data           %s of %s: %td rows\n", s->y_name, o->data, s->n);
    if (s->table.dropped) printf("               %zu incomplete rows dropped\n", s->table.dropped);
    printf("steps          %td, %s\n", fit->steps, ending(o, fit));
    printf("gradient       %.2g   (the largest |d loss / d log h|)\n", fit->gradient);
    printf("loss before    %.6g   (leave-one-out mean squared error)\n", fit->loss_before);
    printf("loss after     %.6g   (%.3g %% less)\n", fit->loss_after,
           fit->loss_before > 0 ? 100 * (1 - fit->loss_after / fit->loss_before) : 0);
    for (ptrdiff_t c = 0; c < s->d; c++)
        printf("bandwidth      %.6g   of %s (started at %.6g)\n", h[c], s->x_name[c], start[c]);
    check(qkv_regression_leave_one_out(r, h, fitted));
    printf("R^2            %.4f   leave-one-out\n", r_squared(s->y, fitted, s->n));
    check(qkv_regression_predict(r, h, s->x, s->n, fitted, NULL));
    printf("               %.4f   in sample\n", r_squared(s->y, fitted, s->n));
    free(fitted);
}

/* ---- Output ------------------------------------------------------------------------------------
 */

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
    char *predicted = print_text("%s_predicted", s->y_name);
    names[n] = predicted;
    columns[n++] = mean;
    check(qkv_csv_save(path, names, columns, n, (size_t)(s->d == 1 ? n_grid : s->n)));
    free(mean), free(x), free(predicted);
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
    char *started = print_text("bandwidth %.3g, the start", start[0]);
    char *learned = print_text("bandwidth %.3g, learned", h[0]);
    const qkv_series series[] = {
        {QKV_POINTS, "data", (size_t)s->n, s->x, s->y, .colour = "#999999"},
        {QKV_DASHES, started, (size_t)n, grid, before, .colour = "#56b4e9"},
        {QKV_LINE, learned, (size_t)n, grid, after, .size = 2.2, .colour = "#d55e00"},
        {QKV_LINE, "2 sin x + x", (size_t)n, grid, truth, .size = 1, .colour = "#000000"}};
    const qkv_panel panel = {.title = "Nadaraya-Watson regression",
                             .x_label = s->x_name[0],
                             .y_label = s->y_name,
                             .series = series,
                             .n_series = s->toy ? 4 : 3};
    draw_panels(o, "fit", &panel, 1, 1, 7, 4.6);
    free(before), free(after), free(truth), free(started), free(learned);
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
    char *observed = print_text("%s, observed", s->y_name),
         *predicted = print_text("%s, predicted", s->y_name);
    const qkv_panel panel = {.title = "Each row predicted from all the others",
                             .x_label = observed,
                             .y_label = predicted,
                             .equal_aspect = true,
                             .series = series,
                             .n_series = 2};
    draw_panels(o, "fit", &panel, 1, 1, 5.5, 5);
    free(mean), free(observed), free(predicted);
}

/* The row of n that is number i of m evenly chosen ones. */
static ptrdiff_t chosen(ptrdiff_t i, ptrdiff_t m, ptrdiff_t n)
{
    return m > 1 ? i * (n - 1) / (m - 1) : 0;
}

static char *axis_label(const char *what, ptrdiff_t shown, ptrdiff_t n, const char *sorted_by)
{
    if (shown < n) return print_text("%s (%td of %td, by %s)", what, shown, n, sorted_by);
    return print_text("%s (by %s)", what, sorted_by);
}

/* Queries over keys: at most 50 of one and 150 of the other, evenly chosen, in the order of x. */
static void draw_weights(const settings *o, const data_set *s, const qkv_regression *r,
                         const double *h, const double *grid, ptrdiff_t n_grid)
{
    const double *queries = s->d == 1 ? grid : s->x;
    ptrdiff_t n_q = s->d == 1 ? n_grid : s->n;
    ptrdiff_t rows = n_q < 50 ? n_q : 50, cols = s->n < 150 ? s->n : 150;
    double *q = allocate((size_t)(rows * s->d), sizeof *q);
    double *all = allocate((size_t)(rows * s->n), sizeof *all);
    double *mean = allocate((size_t)rows, sizeof *mean);
    double *shown = allocate((size_t)(rows * cols), sizeof *shown);
    for (ptrdiff_t i = 0; i < rows; i++)
        memcpy(q + i * s->d, queries + chosen(i, rows, n_q) * s->d, (size_t)s->d * sizeof *q);
    check(qkv_regression_predict(r, h, q, rows, mean, all));
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < cols; j++)
            shown[i * cols + j] = all[i * s->n + chosen(j, cols, s->n)];
    char *path = figure_path(o, "weights");
    char *keys = axis_label("Keys", cols, s->n, s->x_name[0]);
    char *query = axis_label("Queries", rows, s->d == 1 ? rows : s->n, s->x_name[0]);
    const char *const titles[] = {"Attention weights"};
    const ptrdiff_t shape[4] = {1, 1, rows, cols};
    check(qkv_show_heatmaps(
        shown, shape,
        &(qkv_heatmap_options){
            .figure.path = path, .x_label = keys, .y_label = query, .titles = titles}));
    free(path), free(keys), free(query), free(q), free(all), free(mean), free(shown);
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
    char *titles[4];
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
        titles[k] = kernels[k].kernel == QKV_REGRESSION_CONSTANT
                        ? print_text("%s", kernels[k].name)
                        : print_text("%s, bandwidth %.3g", kernels[k].name, bandwidth);
        panels[k] = (qkv_panel){.title = titles[k],
                                .x_label = s->x_name[0],
                                .y_label = k % 2 == 0 ? s->y_name : NULL,
                                .series = series[k],
                                .n_series = 2};
    }
    draw_panels(o, "kernels", panels, 2, 2, 8, 6);
    for (int k = 0; k < 4; k++) free(mean[k]), free(titles[k]);
}

static void draw_loss(const settings *o, const data_set *s, const trace *t)
{
    const qkv_series loss = {QKV_LINE, NULL, t->n, t->step, t->loss, .colour = "#0072b2"};
    qkv_series bandwidths[MAX_X];
    double least = INFINITY, most = 0;
    for (ptrdiff_t c = 0; c < s->d; c++) {
        bandwidths[c] = (qkv_series){.label = s->d == 1 ? NULL : s->x_name[c],
                                     .n = t->n,
                                     .x = t->step,
                                     .y = t->bandwidth[c],
                                     .colour = s->d == 1 ? "#d55e00" : NULL};
        for (size_t i = 0; i < t->n; i++) {
            least = fmin(least, t->bandwidth[c][i]);
            most = fmax(most, t->bandwidth[c][i]);
        }
    }
    char *title =
        s->d == 1 ? print_text("Bandwidth of %s", s->x_name[0]) : print_text("Bandwidths");
    const qkv_panel panels[] = {
        {.title = "Leave-one-out loss", .x_label = "step", .series = &loss, .n_series = 1},
        {.title = title,
         .x_label = "step",
         .log_y = most > 20 * least, /* a logarithmic axis needs a decade to have labels */
         .series = bandwidths,
         .n_series = (size_t)s->d}};
    draw_panels(o, "loss", panels, 1, 2, 9, 3.6);
    free(title);
}

/* ---- The command line -------------------------------------------------------------------------
 */

/* Splits "a,b" in place. */
static long split(const char *option, char *text, const char **parts)
{
    long n = 0;
    for (char *part = strtok(text, ","); part; part = strtok(NULL, ",")) {
        if (n == MAX_X) usage_error("--%s has more than %d parts", option, MAX_X);
        parts[n++] = part;
    }
    if (n == 0) usage_error("--%s is empty", option);
    return n;
}

static long read_start(char *text, double *start)
{
    const char *parts[MAX_X];
    long n = split("start", text, parts);
    for (long i = 0; i < n; i++) start[i] = number_argument("start", parts[i], 1e-300, 1e300);
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
        {"start", "H[,H]",
         "the bandwidth to start at, one for all columns or one each (default: Silverman's rule of "
         "thumb; 3 for the toy data, too wide on purpose)"},
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
            o.n_x = split("x", optarg, o.x);
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
            o.n_start = read_start(optarg, o.start);
            break;
        case 6:
            o.steps = integer_argument("steps", optarg, 1, 1000000);
            break;
        case 7:
            o.rate = number_argument("rate", optarg, 1e-9, 1e3);
            break;
        case 8:
            o.grid = integer_argument("grid", optarg, 2, 10000000);
            break;
        case 9:
            o.plot = *optarg ? optarg : NULL;
            break;
        case 10:
            o.format = format_argument("format", optarg);
            break;
        case 11:
            o.predict = optarg;
            break;
        case 12:
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
    draw_loss(o, s, t);
    printf("figures        %s/{fit,weights%s,loss}.%s\n", o->plot, s->d == 1 ? ",kernels" : "",
           o->format);
}

int main(int argc, char **argv)
{
    settings o = read_settings(argc, argv);
    data_set s = o.data ? load_data(&o) : make_toy(&o);
    if (o.plot) make_directories(o.plot);
    const qkv_regression r = {.x = s.x, .y = s.y, .n = s.n, .d_x = s.d, .bandwidths = s.d};
    trace t = new_trace(&o, &s);
    double start[MAX_X], h[MAX_X];
    choose_start(&o, &s, &r, start);
    qkv_regression_fit_report report = fit(&o, &r, start, h, &t);
    print_report(&o, &s, &r, start, h, &report);
    double *grid = make_grid(&s, o.grid);
    char *path = o.predict ? NULL : o.plot ? join_path(o.plot, "predictions.csv") : NULL;
    const char *csv = o.predict ? o.predict : path;
    if (csv) {
        save_predictions(&s, &r, h, grid, o.grid, csv);
        printf("predictions    %s\n", csv);
    }
    /* Last: the numbers need no gnuplot. */
    if (o.plot) draw_all(&o, &s, &r, start, h, grid, &t);
    free(path), free(grid), free(s.x), free(s.y);
    qkv_csv_free(&s.table);
    free_trace(&t);
    return finish();
}
