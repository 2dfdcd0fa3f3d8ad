/* nadaraya_watson.c - kernel regression that learns its bandwidth: attention with data for keys and
 * values, and the leave-one-out loss descended by Adam on the logarithm of the bandwidth. */
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "nadaraya_watson_figures.h"
#include "src/random.h"

static const double toy_start = 3; /* an almost flat curve: something is left to learn */

typedef struct settings {
    const char *data, *plot, *format, *predict;
    const char *x[MAX_X];
    const char *y;
    double start[MAX_X];
    long n_x, n_start, n, seed, steps, grid;
    double rate;
} settings;

/* A fit in progress. */
typedef struct watch {
    trace *way;
    ptrdiff_t d;
    progress bar;
} watch;

/* ---- Data ---------------------------------------------------------------------------------------
 */

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

static void column_range(const double *x, ptrdiff_t n, ptrdiff_t stride, double *low, double *high)
{
    *low = INFINITY;
    *high = -INFINITY;
    for (ptrdiff_t i = 0; i < n; i++) {
        *low = fmin(*low, x[i * stride]);
        *high = fmax(*high, x[i * stride]);
    }
}

/* A column that never changes would pass through the fit in silence, and so would distances whose
 * squares overflow or vanish. */
static void check_column(const settings *o, const qkv_table *t, size_t column)
{
    double low, high;
    column_range(t->data + column, (ptrdiff_t)t->rows, (ptrdiff_t)t->columns, &low, &high);
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
static void choose_start(const settings *o, learned *l)
{
    static const double most = 1e12; /* squares of it are still far from the ends of a double */
    ptrdiff_t d = l->data.d;
    if (o->n_start > 1 && o->n_start != d)
        usage_error("--start gives %ld bandwidths, expected 1 or %td", o->n_start, d);
    check(qkv_regression_silverman(&l->r, l->start));
    if (l->data.toy) l->start[0] = toy_start;
    for (ptrdiff_t c = 0; o->n_start && c < d; c++) {
        double h = l->start[c] = o->start[o->n_start > 1 ? c : 0], low, high;
        column_range(l->data.x + c, l->data.n, d, &low, &high);
        if (!(h >= (high - low) / most && h <= most * (high - low)))
            usage_error("--start: %g is not between %g and %g, for values of '%s' from %g to %g", h,
                        (high - low) / most, most * (high - low), l->data.x_name[c], low, high);
    }
}

static bool observe(void *context, const qkv_regression_step *s)
{
    watch *w = context;
    trace *t = w->way;
    t->step[t->n] = (double)s->step;
    t->loss[t->n] = s->loss;
    for (ptrdiff_t c = 0; c < w->d; c++) t->bandwidth[c][t->n] = s->bandwidth[c];
    t->n++;
    if (s->step < w->bar.total) progress_show(&w->bar, (long)s->step, "loss %.6g", s->loss);
    return true;
}

/* Learns h and leaves its way there; start becomes where it really began. */
static qkv_regression_fit_report fit(const settings *o, learned *l)
{
    size_t room = (size_t)o->steps + 1;
    l->way.step = allocate(room, sizeof(double));
    l->way.loss = allocate(room, sizeof(double));
    for (ptrdiff_t c = 0; c < l->data.d; c++) l->way.bandwidth[c] = allocate(room, sizeof(double));
    choose_start(o, l);
    watch w = {&l->way, l->data.d, {.label = "fit", .total = o->steps}};
    qkv_regression_fit_report report;
    const qkv_regression_fit_options options = {
        .start = l->start, .steps = o->steps, .rate = o->rate, .observe = observe, .context = &w};
    check(qkv_regression_fit(&l->r, &options, l->h, &report));
    for (ptrdiff_t c = 0; c < l->data.d; c++) l->start[c] = l->way.bandwidth[c][0];
    w.bar.total = report.steps;
    progress_show(&w.bar, report.steps, "loss %.6g", report.loss_after);
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

static void print_report(const settings *o, const learned *l, const qkv_regression_fit_report *fit)
{
    const data_set *s = &l->data;
    double *fitted = allocate((size_t)s->n, sizeof *fitted);
    if (s->toy)
        say("data           y = 2 sin x + x + noise: %td rows", s->n);
    else
        say("data           %s of %s: %td rows", s->y_name,
            strcmp(o->data, "-") == 0 ? "standard input" : o->data, s->n);
    if (s->table.dropped) say("               incomplete rows dropped: %zu", s->table.dropped);
    say("steps          %td, %s", fit->steps, ending(o, fit));
    say("gradient       %.2g   (the largest |d loss / d log h|)", fit->gradient);
    say("loss before    %.6g   (leave-one-out mean squared error)", fit->loss_before);
    say("loss after     %.6g   (%.3g %% less)", fit->loss_after,
        fit->loss_before > 0 ? 100 * (1 - fit->loss_after / fit->loss_before) : 0);
    for (ptrdiff_t c = 0; c < s->d; c++)
        say("bandwidth      %.6g   of %s (started at %.6g)", l->h[c], s->x_name[c], l->start[c]);
    check(qkv_regression_leave_one_out(&l->r, l->h, fitted));
    say("R^2            %.4f   leave-one-out", r_squared(s->y, fitted, s->n));
    check(qkv_regression_predict(&l->r, l->h, s->x, s->n, fitted, NULL));
    say("               %.4f   in sample", r_squared(s->y, fitted, s->n));
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

/* One column: the curve on a grid. Several: each row with its prediction from all the others. */
static void save_predictions(const learned *l, const char *path)
{
    const data_set *s = &l->data;
    const char *names[MAX_X + 2];
    const double *columns[MAX_X + 2];
    size_t n = 0;
    double *mean, *x = allocate((size_t)(s->n * s->d), sizeof *x);
    if (s->d == 1) {
        names[n] = s->x_name[0];
        columns[n++] = l->grid;
        mean = predict(&l->r, l->h, l->grid, l->n_grid);
    } else {
        for (ptrdiff_t c = 0; c < s->d; c++) {
            for (ptrdiff_t i = 0; i < s->n; i++) x[c * s->n + i] = s->x[i * s->d + c];
            names[n] = s->x_name[c];
            columns[n++] = x + c * s->n;
        }
        names[n] = s->y_name;
        columns[n++] = s->y;
        mean = allocate((size_t)s->n, sizeof *mean);
        check(qkv_regression_leave_one_out(&l->r, l->h, mean));
    }
    char *predicted = print_text("%s_predicted", s->y_name);
    names[n] = predicted;
    columns[n++] = mean;
    check(qkv_csv_save(path, names, columns, n, (size_t)(s->d == 1 ? l->n_grid : s->n)));
    free(mean), free(x), free(predicted);
}

/* ---- The command line -------------------------------------------------------------------------
 */

/* Splits "a,b" in place. */
static long split(const char *option, char *text, const char **parts)
{
    long n = 0;
    for (char *part; (part = strsep(&text, ","));) {
        if (n == MAX_X) usage_error("--%s has more than %d parts", option, MAX_X);
        parts[n++] = text_argument(option, part);
    }
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
        {"data", "FILE", "CSV to learn from, - for standard input (default: the toy data)."},
        {"x", "COL[,COL]", "Column or columns to regress on, by name or number from 1."},
        {"y", "COL", "Column to predict."},
        {"n", "N", "Rows of the toy data (default: 40)."},
        {"seed", "N", "Seed of the toy data (default: 1)."},
        {"start", "H[,H]",
         "Bandwidth to start at, one for all columns or one each (default: Silverman's rule of "
         "thumb; 3 for the toy data, too wide on purpose)."},
        {"steps", "N", "At most so many steps of Adam (default: 300)."},
        {"rate", "R", "Its learning rate, on log h (default: 0.1)."},
        {"grid", "N", "Points of the predicted curve (default: 200)."},
        {"plot", "DIR",
         "Draw fit, weights, kernels and loss into DIR, and write predictions.csv there "
         "(default: figures; '' for none)."},
        {"format", "FORMAT", "Format of the figures: svg (default), png or pdf."},
        {"predict", "FILE", "Write the predictions to FILE instead."},
        {"threads", "N", "Threads of the attention layer (default: all)."},
        {NULL, NULL, NULL}};
    static const command c = {
        .usage = "",
        .summary = "Learns the bandwidth of Nadaraya-Watson kernel regression: the leave-one-out "
                   "loss is descended by Adam on log h. Without --data: the chapter's toy data, "
                   "y = 2 sin x + x + noise.",
        .options = options};
    const char *toy = NULL, *curve = NULL; /* options that not all data have a use for */
    settings o = {.n = 40,
                  .seed = 1,
                  .steps = 300,
                  .grid = 200,
                  .rate = 0.1,
                  .plot = "figures",
                  .format = "svg"};
    for (int i; (i = command_next(&c, argc, argv)) >= 0;) switch (i) {
        case 0:
            o.data = text_argument("data", optarg);
            break;
        case 1:
            o.n_x = split("x", optarg, o.x);
            break;
        case 2:
            o.y = text_argument("y", optarg);
            break;
        case 3:
            o.n = integer_argument(toy = "n", optarg, 3, 1000000);
            break;
        case 4:
            o.seed = integer_argument(toy = "seed", optarg, 0, 1L << 62);
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
            o.grid = integer_argument(curve = "grid", optarg, 2, 10000000);
            break;
        case 9:
            o.plot = *optarg ? optarg : NULL;
            break;
        case 10:
            o.format = format_argument("format", optarg);
            break;
        case 11:
            o.predict = text_argument("predict", optarg);
            break;
        case 12:
            check(qkv_set_num_threads((int)integer_argument("threads", optarg, 1, 4096)));
            break;
        }
    if (optind < argc) usage_error("unexpected argument '%s'", argv[optind]);
    if (o.data && (!o.n_x || !o.y)) usage_error("--data needs --x and --y");
    if (!o.data && (o.n_x || o.y)) usage_error("--x and --y need --data");
    if (o.data && toy)
        usage_error("--%s and --data do not go together: it is for the toy data", toy);
    if (o.n_x > 1 && curve)
        usage_error("--%s and several columns in --x do not go together: they have no curve",
                    curve);
    return o;
}

static void free_learned(learned *l)
{
    for (ptrdiff_t c = 0; c < l->data.d; c++) free(l->way.bandwidth[c]);
    free(l->way.step), free(l->way.loss), free(l->grid), free(l->data.x), free(l->data.y);
    qkv_csv_free(&l->data.table);
}

int main(int argc, char **argv)
{
    clean_up_on_signals();
    settings o = read_settings(argc, argv);
    learned l = {.data = o.data ? load_data(&o) : make_toy(&o), .n_grid = o.grid};
    const data_set *s = &l.data;
    l.r = (qkv_regression){.x = s->x, .y = s->y, .n = s->n, .d_x = s->d, .bandwidths = s->d};
    if (o.plot) make_directories(o.plot);
    qkv_regression_fit_report report = fit(&o, &l);
    print_report(&o, &l, &report);
    l.grid = make_grid(s, l.n_grid);
    char *path = o.predict ? NULL : o.plot ? join_path(o.plot, "predictions.csv") : NULL;
    const char *csv = o.predict ? o.predict : path;
    if (csv) {
        save_predictions(&l, csv);
        putchar('\n');
        say("wrote %s", csv);
    }
    if (o.plot) draw_figures(&l, o.plot, o.format); /* last: the numbers need no gnuplot */
    free(path);
    free_learned(&l);
    return finish();
}
