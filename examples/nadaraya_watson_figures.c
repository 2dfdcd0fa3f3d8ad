#include "nadaraya_watson_figures.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "qkv/plot.h"

typedef struct sheet {
    const char *directory, *format;
} sheet;

double toy_function(double x)
{
    return 2 * sin(x) + x;
}

double *predict(const qkv_regression *r, const double *h, const double *q, ptrdiff_t n)
{
    double *mean = allocate((size_t)n, sizeof *mean);
    check(qkv_regression_predict(r, h, q, n, mean, NULL));
    return mean;
}

static char *figure_path(const sheet *to, const char *name)
{
    char file[64];
    snprintf(file, sizeof file, "%s.%s", name, to->format);
    return join_path(to->directory, file);
}

static void draw_panels(const sheet *to, const char *name, const qkv_panel *panels, int rows,
                        int cols, double width, double height)
{
    char *path = figure_path(to, name);
    check(qkv_plot_panels(panels, rows, cols,
                          &(qkv_figure){.path = path, .width = width, .height = height}));
    say("wrote %s", path);
    free(path);
}

static void draw_fit(const sheet *to, const learned *l)
{
    const data_set *s = &l->data;
    size_t n = (size_t)l->n_grid;
    double *before = predict(&l->r, l->start, l->grid, l->n_grid),
           *after = predict(&l->r, l->h, l->grid, l->n_grid);
    double *truth = allocate(n, sizeof *truth);
    for (size_t i = 0; i < n; i++) truth[i] = toy_function(l->grid[i]);
    char *start_label = print_text("bandwidth %.3g, the start", l->start[0]);
    char *end_label = print_text("bandwidth %.3g, learned", l->h[0]);
    const qkv_series series[] = {
        {QKV_POINTS, "data", (size_t)s->n, s->x, s->y, .colour = "#999999"},
        {QKV_DASHES, start_label, n, l->grid, before, .colour = "#56b4e9"},
        {QKV_LINE, end_label, n, l->grid, after, .size = 2.2, .colour = "#d55e00"},
        {QKV_LINE, "2 sin x + x", n, l->grid, truth, .size = 1, .colour = "#000000"}};
    const qkv_panel panel = {.title = "Nadaraya-Watson regression",
                             .x_label = s->x_name[0],
                             .y_label = s->y_name,
                             .series = series,
                             .n_series = s->toy ? 4 : 3};
    draw_panels(to, "fit", &panel, 1, 1, 7, 4.6);
    free(before), free(after), free(truth), free(start_label), free(end_label);
}

/* Several columns have no curve: what the other rows predict, against what was observed. */
static void draw_predicted(const sheet *to, const learned *l)
{
    const data_set *s = &l->data;
    double *mean = allocate((size_t)s->n, sizeof *mean), ends[2] = {s->y[0], s->y[0]};
    check(qkv_regression_leave_one_out(&l->r, l->h, mean));
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
    draw_panels(to, "fit", &panel, 1, 1, 5.5, 5);
    free(mean), free(observed), free(predicted);
}

/* The query that is number i of rows evenly chosen ones of n. */
static ptrdiff_t chosen(ptrdiff_t i, ptrdiff_t rows, ptrdiff_t n)
{
    return i * (n - 1) / (rows - 1);
}

/* Adds up the weights of neighbouring keys, so many a bin: a row still adds to 1. to: [rows, n over
 * bin, rounded up]. */
static void add_neighbours(const double *weights, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t bin,
                           double *to)
{
    ptrdiff_t cols = (n + bin - 1) / bin;
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < n; j++) to[i * cols + j / bin] += weights[i * n + j];
}

/* Queries over keys, in the order of x: at most 50 queries, evenly chosen, and at most 80 bins of
 * keys. Few keys get few queries, or the figure would be a strip. */
static void draw_weights(const sheet *to, const learned *l)
{
    const data_set *s = &l->data;
    const double *queries = s->d == 1 ? l->grid : s->x;
    ptrdiff_t n_q = s->d == 1 ? l->n_grid : s->n;
    ptrdiff_t rows = (ptrdiff_t)fmin(fmin((double)n_q, 50), 2 * (double)s->n);
    ptrdiff_t bin = (s->n + 79) / 80, cols = (s->n + bin - 1) / bin;
    double *q = allocate((size_t)(rows * s->d), sizeof *q);
    double *all = allocate((size_t)(rows * s->n), sizeof *all);
    double *mean = allocate((size_t)rows, sizeof *mean);
    double *shown = allocate((size_t)(rows * cols), sizeof *shown);
    for (ptrdiff_t i = 0; i < rows; i++)
        memcpy(q + i * s->d, queries + chosen(i, rows, n_q) * s->d, (size_t)s->d * sizeof *q);
    check(qkv_regression_predict(&l->r, l->h, q, rows, mean, all));
    add_neighbours(all, rows, s->n, bin, shown);
    double first = s->d == 1 ? q[0] : 0, last = s->d == 1 ? q[rows - 1] : (double)(s->n - 1);
    double half = (last - first) / (double)(rows - 1) / 2; /* of a cell */
    char *path = figure_path(to, "weights");
    char *keys = bin > 1 ? print_text("Keys, in order of %s, %td in a cell", s->x_name[0], bin)
                         : print_text("Keys, in order of %s", s->x_name[0]);
    char *query = s->d == 1 ? print_text("Queries, by %s", s->x_name[0])
                            : print_text("Queries, in order of %s", s->x_name[0]);
    const ptrdiff_t shape[4] = {1, 1, rows, cols};
    const qkv_heatmap_options options = {.figure.path = path,
                                         .x_label = keys,
                                         .y_label = query,
                                         .x_range = {-0.5, (double)(bin * cols) - 0.5},
                                         .y_range = {first - half, last + half},
                                         .titles = (const char *const[]){"Attention weights"}};
    check(qkv_show_heatmaps(shown, shape, &options));
    say("wrote %s", path);
    free(path), free(keys), free(query);
    free(q), free(all), free(mean), free(shown);
}

/* The chapter's panel: the same data under four kernels, each at a bandwidth that smooths like the
 * learned one. */
static void draw_kernels(const sheet *to, const learned *l)
{
    const data_set *s = &l->data;
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
    check(qkv_regression_silverman(&l->r, &reference));
    for (int k = 0; k < 4; k++) {
        qkv_regression other = l->r;
        double bandwidth;
        other.kernel = kernels[k].kernel;
        check(qkv_regression_silverman(&other, &bandwidth));
        bandwidth *= l->h[0] / reference;
        mean[k] = predict(&other, &bandwidth, l->grid, l->n_grid);
        series[k][0] = (qkv_series){QKV_POINTS, NULL,      (size_t)s->n,       s->x,
                                    s->y,       .size = 3, .colour = "#999999"};
        series[k][1] =
            (qkv_series){QKV_LINE, NULL, (size_t)l->n_grid, l->grid, mean[k], .colour = "#d55e00"};
        titles[k] = kernels[k].kernel == QKV_REGRESSION_CONSTANT
                        ? print_text("%s", kernels[k].name)
                        : print_text("%s, bandwidth %.3g", kernels[k].name, bandwidth);
        panels[k] = (qkv_panel){.title = titles[k],
                                .x_label = s->x_name[0],
                                .y_label = k % 2 == 0 ? s->y_name : NULL,
                                .series = series[k],
                                .n_series = 2};
    }
    draw_panels(to, "kernels", panels, 2, 2, 8, 6);
    for (int k = 0; k < 4; k++) free(mean[k]), free(titles[k]);
}

static void draw_loss(const sheet *to, const learned *l)
{
    const data_set *s = &l->data;
    const trace *t = &l->way;
    qkv_mark mark = t->n > 1 ? QKV_LINE : QKV_POINTS; /* a line needs two points */
    const qkv_series loss = {mark, NULL, t->n, t->step, t->loss, .colour = "#0072b2"};
    qkv_series bandwidths[MAX_X];
    double least = INFINITY, most = 0;
    for (ptrdiff_t c = 0; c < s->d; c++) {
        bandwidths[c] = (qkv_series){.mark = mark,
                                     .label = s->d == 1 ? NULL : s->x_name[c],
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
    draw_panels(to, "loss", panels, 1, 2, 9, 3.6);
    free(title);
}

void draw_figures(const learned *l, const char *directory, const char *format)
{
    const sheet to = {directory, format};
    if (l->data.d == 1) {
        draw_fit(&to, l);
        draw_kernels(&to, l);
    } else {
        draw_predicted(&to, l);
    }
    draw_weights(&to, l);
    draw_loss(&to, l);
}
