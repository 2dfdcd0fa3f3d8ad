/* nadaraya_watson_figures.c - what was learned, as pictures. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nadaraya_watson.h"

enum {
    CURVE = 200,       /* points of a curve, unless --grid says */
    SURFACE = 60,      /* points of a surface each way */
    MAX_POINTS = 2000, /* data shown: more would be one black area */
    MAX_PANELS = 12,   /* columns of y, or of x, that have a panel */
    MAX_QUERIES = 50,  /* rows of a heatmap of weights */
    MAX_CELLS = 80     /* and its columns */
};

static const char data_colour[] = "#999999", fit_colour[] = "#d55e00", band_colour[] = "#d55e00",
                  truth_colour[] = "#000000";

static char *figure_path(const sheet *to, const char *name)
{
    char *file = print_text("%s.%s", name, to->format), *path = join_path(to->directory, file);
    free(file);
    return path;
}

void draw_panels(const sheet *to, const char *name, const qkv_panel *panels, int rows, int cols,
                 double width, double height)
{
    char *path = figure_path(to, name);
    check(qkv_plot_panels(panels, rows, cols,
                          &(qkv_figure){.path = path, .width = width, .height = height}));
    say("wrote %s", path);
    free(path);
}

/* n panels in as many columns as make them look like a page; the only one is so wide. */
static void draw_page(const sheet *to, const char *name, const qkv_panel *panels, int n,
                      double width)
{
    int cols = n == 1 ? 1 : n <= 4 ? 2 : 3, rows = (n + cols - 1) / cols;
    qkv_panel all[MAX_PANELS + 3] = {0};
    memcpy(all, panels, (size_t)n * sizeof *panels);
    if (n == 1)
        draw_panels(to, name, all, 1, 1, width, 4.6);
    else
        draw_panels(to, name, all, rows, cols, 4.6 * cols, 3.6 * rows);
}

static int panels_of(ptrdiff_t columns)
{
    return columns < MAX_PANELS ? (int)columns : MAX_PANELS;
}

/* ---- Points ---------------------------------------------------------------------------------- */

/* Rows of the data that are shown: all, or evenly chosen ones. */
typedef struct cloud {
    double *x, *y; /* y: [d_y, n] */
    size_t n;
} cloud;

static cloud choose_points(const session *s)
{
    const qkv_regression *r = &s->model.r;
    ptrdiff_t d_y = columns_y(s), d = columns_x(s), step = (r->n + MAX_POINTS - 1) / MAX_POINTS;
    ptrdiff_t n = (r->n + step - 1) / step;
    cloud c = {allocate((size_t)n, sizeof *c.x), allocate((size_t)(n * d_y), sizeof *c.y),
               (size_t)n};
    for (ptrdiff_t i = 0; i < n; i++) {
        c.x[i] = r->x[i * step * d];
        for (ptrdiff_t k = 0; k < d_y; k++) c.y[k * n + i] = r->y[i * step * d_y + k];
    }
    return c;
}

static void free_cloud(cloud *c)
{
    free(c->x), free(c->y);
}

/* ---- Curves over one column ------------------------------------------------------------------ */

/* What is predicted along the column; gone where it would be extrapolation. Each [d_y, n]. */
typedef struct curves {
    double *x, *mean, *lower, *upper, *slope, *slope_lower, *slope_upper, *zero;
    size_t n;
} curves;

static curves trace_curves(const settings *o, const session *s)
{
    ptrdiff_t n = o->grid ? o->grid : CURVE, d_y = columns_y(s);
    query_set q = {allocate((size_t)n, sizeof(double)), n};
    fill_steps(q.x, n, s->low[0], s->high[0]);
    predictions p = predict_at(o, s, q);
    double z = normal_quantile(o->level);
    double *edges[2];
    for (int side = 0; side < 2; side++) {
        edges[side] = allocate((size_t)(n * d_y), sizeof(double));
        for (ptrdiff_t i = 0; i < n * d_y; i++)
            edges[side][i] = p.gradient[i] + (side ? z : -z) * p.gradient_se[i];
    }
    for (ptrdiff_t i = 0; i < n * d_y; i++)
        if (p.beyond[i / d_y])
            p.mean[i] = p.lower[i] = p.upper[i] = p.gradient[i] = edges[0][i] = edges[1][i] = NAN;
    curves c = {.x = q.x,
                .mean = transpose(p.mean, n, d_y),
                .lower = transpose(p.lower, n, d_y),
                .upper = transpose(p.upper, n, d_y),
                .slope = transpose(p.gradient, n, d_y),
                .slope_lower = transpose(edges[0], n, d_y),
                .slope_upper = transpose(edges[1], n, d_y),
                .zero = allocate((size_t)n, sizeof(double)),
                .n = (size_t)n};
    free(edges[0]), free(edges[1]);
    free_predictions(&p);
    return c;
}

static void free_curves(curves *c)
{
    free(c->x), free(c->mean), free(c->lower), free(c->upper);
    free(c->slope), free(c->slope_lower), free(c->slope_upper), free(c->zero);
}

static char *band_label(const settings *o)
{
    return print_text("%g %% band%s", 100 * o->level, o->samples ? ", bootstrap" : "");
}

static void draw_fit(const settings *o, const sheet *to, const session *s, const curves *c)
{
    cloud points = choose_points(s);
    double *truth = allocate(c->n, sizeof *truth);
    for (size_t i = 0; i < c->n; i++) truth[i] = toy_function(c->x[i]);
    char *band = band_label(o), *line = print_text("fit, bandwidth %.3g", s->model.bandwidth[0]);
    qkv_panel panels[MAX_PANELS];
    qkv_series series[MAX_PANELS][4];
    int n = panels_of(columns_y(s));
    for (int k = 0; k < n; k++) {
        size_t at = (size_t)k * c->n;
        series[k][0] = (qkv_series){
            QKV_BAND, band, c->n, c->x, c->lower + at, .y2 = c->upper + at, .colour = band_colour};
        series[k][1] = (qkv_series){QKV_POINTS,
                                    "data",
                                    points.n,
                                    points.x,
                                    points.y + (size_t)k * points.n,
                                    .size = 4,
                                    .colour = data_colour};
        series[k][2] = (qkv_series){
            QKV_LINE, line, c->n, c->x, c->mean + at, .size = 2.2, .colour = fit_colour};
        series[k][3] = (qkv_series){QKV_LINE,  "2 sin x + x",         c->n, c->x, truth,
                                    .size = 1, .colour = truth_colour};
        panels[k] = (qkv_panel){.title = n > 1 ? s->model.y_names[k] : "Nadaraya-Watson regression",
                                .x_label = s->model.x_names[0],
                                .y_label = s->model.y_names[k],
                                .series = series[k],
                                .n_series = s->toy ? 4 : 3};
    }
    draw_page(to, "fit", panels, n, 7);
    free(truth), free(band), free(line);
    free_cloud(&points);
}

static void draw_gradient(const settings *o, const sheet *to, const session *s, const curves *c)
{
    double *truth = allocate(c->n, sizeof *truth);
    for (size_t i = 0; i < c->n; i++) truth[i] = 2 * cos(c->x[i]) + 1;
    char *band = print_text("%g %% band", 100 * o->level), *labels[MAX_PANELS];
    qkv_panel panels[MAX_PANELS];
    qkv_series series[MAX_PANELS][4];
    int n = panels_of(columns_y(s));
    for (int k = 0; k < n; k++) {
        size_t at = (size_t)k * c->n;
        series[k][0] = (qkv_series){
            QKV_BAND,           band, c->n, c->x, c->slope_lower + at, .y2 = c->slope_upper + at,
            .colour = "#0072b2"};
        series[k][1] =
            (qkv_series){QKV_DASHES, NULL, c->n, c->x, c->zero, .size = 1, .colour = "#888888"};
        series[k][2] = (qkv_series){QKV_LINE,    "slope of the fit", c->n, c->x, c->slope + at,
                                    .size = 2.2, .colour = "#0072b2"};
        series[k][3] = (qkv_series){QKV_LINE,  "2 cos x + 1",         c->n, c->x, truth,
                                    .size = 1, .colour = truth_colour};
        labels[k] = print_text("d %s / d %s", s->model.y_names[k], s->model.x_names[0]);
        panels[k] = (qkv_panel){.title = n > 1 ? s->model.y_names[k] : "The gradient",
                                .x_label = s->model.x_names[0],
                                .y_label = labels[k],
                                .series = series[k],
                                .n_series = s->toy ? 4 : 3};
    }
    draw_page(to, "gradient", panels, n, 7);
    for (int k = 0; k < n; k++) free(labels[k]);
    free(truth), free(band);
}

/* The probability of each class, with its band. */
static void draw_probabilities(const sheet *to, const session *s, const curves *c)
{
    static const char *const colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                          "#e69f00", "#56b4e9", "#666666"};
    enum { COLOURS = sizeof colours / sizeof *colours };
    qkv_series series[2 * MAX_PANELS];
    size_t n = (size_t)panels_of(columns_y(s));
    for (size_t k = 0; k < n; k++) {
        const char *colour = colours[k % COLOURS];
        size_t at = k * c->n;
        series[k] = (qkv_series){
            QKV_BAND, NULL, c->n, c->x, c->lower + at, .y2 = c->upper + at, .colour = colour};
        series[n + k] = (qkv_series){QKV_LINE,    s->model.y_names[k], c->n, c->x, c->mean + at,
                                     .size = 2.2, .colour = colour};
    }
    const qkv_panel panel = {.title = "Probabilities of the classes",
                             .x_label = s->model.x_names[0],
                             .y_label = "probability",
                             .y_range = {-0.03, 1.03},
                             .series = series,
                             .n_series = 2 * n};
    draw_panels(to, "fit", &panel, 1, 1, 7, 4.6);
}

/* ---- Several columns ------------------------------------------------------------------------- */

/* What the other rows predict, against what was observed. */
static void draw_predicted(const sheet *to, const session *s)
{
    const qkv_regression *r = &s->model.r;
    ptrdiff_t d_y = columns_y(s), step = (r->n + MAX_POINTS - 1) / MAX_POINTS;
    size_t n = (size_t)((r->n + step - 1) / step);
    double *mean = allocate((size_t)(r->n * d_y), sizeof *mean);
    check(qkv_regression_predict(r, s->model.bandwidth, NULL, 0,
                                 &(qkv_regression_results){.mean = mean}));
    qkv_panel panels[MAX_PANELS];
    qkv_series series[MAX_PANELS][2];
    double ends[MAX_PANELS][2], *pairs = allocate(2 * n * (size_t)d_y, sizeof *pairs);
    char *labels[MAX_PANELS][2];
    int shown = panels_of(d_y);
    for (int k = 0; k < shown; k++) {
        double *observed = pairs + 2 * n * (size_t)k, *predicted = observed + n;
        ends[k][0] = INFINITY, ends[k][1] = -INFINITY;
        for (size_t i = 0; i < n; i++) {
            ptrdiff_t at = (ptrdiff_t)i * step * d_y + k;
            observed[i] = r->y[at], predicted[i] = mean[at];
            ends[k][0] = fmin(ends[k][0], observed[i]);
            ends[k][1] = fmax(ends[k][1], observed[i]);
        }
        series[k][0] = (qkv_series){QKV_LINE, NULL, 2, ends[k], ends[k], .colour = data_colour};
        series[k][1] =
            (qkv_series){QKV_POINTS, NULL, n, observed, predicted, .size = 4, .colour = "#0072b2"};
        labels[k][0] = print_text("%s, observed", s->model.y_names[k]);
        labels[k][1] = print_text("%s, predicted", s->model.y_names[k]);
        panels[k] = (qkv_panel){.title = "Each row predicted from all the others",
                                .x_label = labels[k][0],
                                .y_label = labels[k][1],
                                .equal_aspect = true,
                                .series = series[k],
                                .n_series = 2};
    }
    draw_page(to, "fit", panels, shown, 5.2);
    for (int k = 0; k < shown; k++) free(labels[k][0]), free(labels[k][1]);
    free(mean), free(pairs);
}

/* values [n, d_y] at a lattice whose second column is the faster: maps of n columns of y from the
 * one at first on, the second column of x rising from bottom to top. */
static void draw_map(const sheet *to, const char *name, const session *s, const double *values,
                     ptrdiff_t first, ptrdiff_t n, bool probabilities)
{
    ptrdiff_t d_y = columns_y(s);
    double *maps = allocate((size_t)(n * SURFACE * SURFACE), sizeof *maps);
    for (ptrdiff_t k = 0; k < n; k++)
        for (ptrdiff_t row = 0; row < SURFACE; row++)
            for (ptrdiff_t col = 0; col < SURFACE; col++)
                maps[(k * SURFACE + row) * SURFACE + col] =
                    values[(col * SURFACE + SURFACE - 1 - row) * d_y + first + k];
    double half[2];
    for (int c = 0; c < 2; c++) half[c] = (s->high[c] - s->low[c]) / (SURFACE - 1) / 2;
    char *path = figure_path(to, name), *titles[MAX_PANELS];
    for (ptrdiff_t k = 0; k < n; k++)
        titles[k] = print_text("%s%s", probabilities ? "p of " : "", s->model.y_names[first + k]);
    const qkv_heatmap_options options = {.figure.path = path,
                                         .x_label = s->model.x_names[0],
                                         .y_label = s->model.x_names[1],
                                         .x_range = {s->low[0] - half[0], s->high[0] + half[0]},
                                         .y_range = {s->high[1] + half[1], s->low[1] - half[1]},
                                         .titles = (const char *const *)titles,
                                         .palette = QKV_VIRIDIS,
                                         .lower = 0,
                                         .upper = probabilities ? 1 : 0};
    check(qkv_show_heatmaps(maps, (const ptrdiff_t[]){1, n, SURFACE, SURFACE}, &options));
    say("wrote %s", path);
    for (ptrdiff_t k = 0; k < n; k++) free(titles[k]);
    free(path), free(maps);
}

static bool is_shown(const bool *beyond, ptrdiff_t row, ptrdiff_t col)
{
    bool inside = row >= 0 && row < SURFACE && col >= 0 && col < SURFACE;
    return inside && !beyond[row * SURFACE + col];
}

/* A point half way between two far rows rests on two, wherever it is: on the lattice such points
 * are specks and threads, which go with what is around them. */
static void blank_specks(bool *beyond)
{
    enum { AROUND = 9, ROUNDS = 2 };
    bool next[SURFACE * SURFACE];
    for (int round = 0; round < ROUNDS; round++) {
        for (ptrdiff_t i = 0; i < SURFACE * SURFACE; i++) {
            int shown = 0;
            for (int k = 0; k < AROUND; k++)
                shown += is_shown(beyond, i / SURFACE + k / 3 - 1, i % SURFACE + k % 3 - 1);
            next[i] = beyond[i] || shown <= AROUND / 2;
        }
        memcpy(beyond, next, sizeof next);
    }
}

/* m over two columns, blank where it would be extrapolation. */
static void draw_surface(const settings *o, const sheet *to, const session *s)
{
    settings lattice = *o;
    lattice.at = NULL;
    lattice.grid = SURFACE;
    lattice.samples = 0; /* the bands are not shown */
    query_set q = find_queries(&lattice, s);
    predictions p = predict_at(&lattice, s, q);
    ptrdiff_t d_y = columns_y(s);
    blank_specks(p.beyond);
    for (ptrdiff_t i = 0; i < q.n * d_y; i++)
        if (p.beyond[i / d_y]) p.mean[i] = NAN;
    if (s->model.classes) draw_map(to, "surface", s, p.mean, 0, d_y < 4 ? d_y : 4, true);
    for (int k = 0; !s->model.classes && k < panels_of(d_y); k++) {
        char *name = d_y > 1 ? print_text("surface_%d", k + 1) : print_text("surface");
        draw_map(to, name, s, p.mean, k, 1, false);
        free(name);
    }
    free_predictions(&p);
    free(q.x);
}

/* ---- The criterion --------------------------------------------------------------------------- */

enum { CRITERION_POINTS = 80 };

/* So many points of the curve that they take some seconds at most. */
static int affordable_points(const session *s)
{
    const qkv_regression *r = &s->model.r;
    double n = (double)r->n, rows = r->rows > 0 ? fmin((double)r->rows, n) : n;
    double points = 4e9 / (n * rows * (double)columns_x(s));
    return (int)fmin(CRITERION_POINTS, points);
}

/* One decade and a half around the reference bandwidth and the chosen one, column c's. */
static void criterion_range(const session *s, ptrdiff_t c, double range[2])
{
    double reference[MAX_COLUMNS], h = s->model.bandwidth[c];
    check(qkv_regression_silverman(&s->model.r, reference));
    double ratio = reference[c] / h;
    range[0] = h * fmin(1, ratio) / 20;
    range[1] = h * fmax(1, ratio) * 20;
    if (!(range[0] > 0)) range[0] = h;
    if (!isfinite(range[1])) range[1] = h;
}

/* How the criterion depends on the bandwidth of one column, those of the others as they are; gone
 * where rows are undefined. */
static void trace_criterion(const settings *o, const session *s, ptrdiff_t c, int points, double *h,
                            double *value)
{
    double bandwidth[MAX_COLUMNS], range[2];
    memcpy(bandwidth, s->model.bandwidth, (size_t)columns_x(s) * sizeof *bandwidth);
    criterion_range(s, c, range);
    for (int i = 0; i < points; i++) {
        ptrdiff_t undefined = 0;
        h[i] = bandwidth[c] = range[0] * pow(range[1] / range[0], i / (points - 1.0));
        qkv_status status = qkv_regression_objective(&s->model.r, o->criterion, bandwidth,
                                                     &value[i], &undefined, NULL);
        if (status && status != QKV_E_DOMAIN) check(status);
        if (status || undefined || !isfinite(value[i])) value[i] = NAN;
    }
}

static void draw_criterion(const settings *o, const sheet *to, const session *s, const trial *t)
{
    static const char *const names[] = {"Leave-one-out mean squared error", "AICc", "GCV"};
    int points = affordable_points(s), n = panels_of(columns_x(s));
    if (points < 10 || s->model.r.bandwidths < columns_x(s)) return;
    double h[MAX_PANELS][CRITERION_POINTS], value[MAX_PANELS][CRITERION_POINTS];
    double line_x[MAX_PANELS][2], line_y[MAX_PANELS][2];
    char *titles[MAX_PANELS], *labels[MAX_PANELS];
    qkv_panel panels[MAX_PANELS];
    qkv_series series[MAX_PANELS][3];
    progress bar = {.label = "criterion", .total = n};
    for (int c = 0; c < n; c++) {
        trace_criterion(o, s, c, points, h[c], value[c]);
        if (n > 1) progress_show(&bar, c + 1, "of %d columns", n);
        double low = t->objective, high = t->objective, chosen = s->model.bandwidth[c];
        for (int i = 0; i < points; i++)
            low = fmin(low, value[c][i]), high = fmax(high, value[c][i]);
        memcpy(line_x[c], (double[]){chosen, chosen}, sizeof *line_x);
        memcpy(line_y[c], (double[]){low - 0.04 * (high - low), high}, sizeof *line_y);
        titles[c] = n > 1 ? print_text("%s, by %s", names[o->criterion], s->model.x_names[c])
                          : print_text("%s", names[o->criterion]);
        labels[c] = print_text("bandwidth of %s", s->model.x_names[c]);
        series[c][0] = (qkv_series){QKV_DASHES,           NULL, 2, line_x[c], line_y[c], .size = 1,
                                    .colour = data_colour};
        series[c][1] = (qkv_series){QKV_LINE, NULL,      (size_t)points,     h[c],
                                    value[c], .size = 2, .colour = "#0072b2"};
        char *label = print_text("chosen: %.3g", chosen);
        series[c][2] = (qkv_series){
            QKV_POINTS,          label, 1, &s->model.bandwidth[c], &t->objective, .size = 8,
            .colour = fit_colour};
        panels[c] = (qkv_panel){.title = titles[c],
                                .x_label = labels[c],
                                .log_x = true,
                                .series = series[c],
                                .n_series = 3};
    }
    draw_page(to, "criterion", panels, n, 7);
    for (int c = 0; c < n; c++) free(titles[c]), free(labels[c]), free((char *)series[c][2].label);
}

/* ---- Weights --------------------------------------------------------------------------------- */

typedef struct key {
    double x;
    ptrdiff_t row;
} key;

static int by_x(const void *a, const void *b)
{
    const key *x = a, *y = b;
    if (x->x != y->x) return x->x < y->x ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

/* The rows of the data in the order of the first column. */
static ptrdiff_t *sort_rows(const session *s)
{
    const qkv_regression *r = &s->model.r;
    key *keys = allocate((size_t)r->n, sizeof *keys);
    ptrdiff_t *order = allocate((size_t)r->n, sizeof *order);
    for (ptrdiff_t i = 0; i < r->n; i++) keys[i] = (key){r->x[i * columns_x(s)], i};
    qsort(keys, (size_t)r->n, sizeof *keys, by_x);
    for (ptrdiff_t i = 0; i < r->n; i++) order[i] = keys[i].row;
    free(keys);
    return order;
}

/* Steps along the only column, or evenly chosen rows of the data in the order of the first. */
static double *weight_queries(const session *s, const ptrdiff_t *order, ptrdiff_t rows)
{
    const qkv_regression *r = &s->model.r;
    ptrdiff_t d = columns_x(s);
    double *q = allocate((size_t)(rows * d), sizeof *q);
    if (d == 1) fill_steps(q, rows, s->low[0], s->high[0]);
    for (ptrdiff_t i = 0; d > 1 && i < rows; i++)
        memcpy(q + i * d, r->x + order[rows > 1 ? i * (r->n - 1) / (rows - 1) : 0] * d,
               (size_t)d * sizeof *q);
    return q;
}

/* The weights of n queries, in the order of the keys, so many neighbours a cell added up: a row
 * still adds to 1. cells: [n, cols]. Not all at once: weights are as many as queries times keys. */
static void add_weights(const qkv_regression *r, const double *bandwidth, const double *q,
                        ptrdiff_t n, const ptrdiff_t *order, ptrdiff_t bin, double *cells)
{
    enum { AT_ONCE = 10000000 };
    ptrdiff_t most = r->n < AT_ONCE ? AT_ONCE / r->n : 1, cols = (r->n + bin - 1) / bin;
    double *weights = allocate((size_t)(r->n * (most < n ? most : n)), sizeof *weights);
    for (ptrdiff_t i = 0, part; i < n; i += part) {
        part = most < n - i ? most : n - i;
        check(qkv_regression_predict(r, bandwidth, q + i * (r->d_x > 0 ? r->d_x : 1), part,
                                     &(qkv_regression_results){.weights = weights}));
        for (ptrdiff_t k = 0; k < part; k++)
            for (ptrdiff_t j = 0; j < r->n; j++)
                cells[(i + k) * cols + j / bin] += weights[k * r->n + order[j]];
    }
    free(weights);
}

void draw_weights(const sheet *to, const char *name, const session *s, const qkv_regression *each,
                  const double *bandwidths, const char *const *titles, int n)
{
    ptrdiff_t d = columns_x(s), keys = s->model.r.n, bin = (keys + MAX_CELLS - 1) / MAX_CELLS,
              cols = (keys + bin - 1) / bin;
    ptrdiff_t rows = (ptrdiff_t)fmin(MAX_QUERIES, 2 * (double)keys); /* or it would be a strip */
    ptrdiff_t *order = sort_rows(s);
    double *q = weight_queries(s, order, rows);
    double *cells = allocate((size_t)(n * rows * cols), sizeof *cells);
    for (int k = 0; k < n; k++)
        add_weights(&each[k], bandwidths + k * d, q, rows, order, bin, cells + k * rows * cols);
    double first = d == 1 ? s->low[0] : 0, last = d == 1 ? s->high[0] : (double)(keys - 1);
    double half = last > first ? (last - first) / (double)(rows - 1) / 2 : 0.5; /* of a cell */
    char *path = figure_path(to, name);
    char *below = bin > 1 ? print_text("Keys, by %s (%td a cell)", s->model.x_names[0], bin)
                          : print_text("Keys, by %s", s->model.x_names[0]);
    char *beside = d == 1 ? print_text("Queries, by %s", s->model.x_names[0])
                          : print_text("Queries, by %s", s->model.x_names[0]);
    const qkv_heatmap_options options = {.figure.path = path,
                                         .x_label = below,
                                         .y_label = beside,
                                         .x_range = {-0.5, (double)(bin * cols) - 0.5},
                                         .y_range = {first - half, last + half},
                                         .titles = titles};
    check(qkv_show_heatmaps(cells, (const ptrdiff_t[]){1, n, rows, cols}, &options));
    say("wrote %s", path);
    free(path), free(below), free(beside), free(q), free(cells), free(order);
}

/* ---- All ------------------------------------------------------------------------------------- */

static void draw_curves(const settings *o, const sheet *to, const session *s)
{
    curves c = trace_curves(o, s);
    if (s->model.classes)
        draw_probabilities(to, s, &c);
    else
        draw_fit(o, to, s, &c);
    draw_gradient(o, to, s, &c);
    free_curves(&c);
}

void draw_figures(const settings *o, const session *learned, const search *found)
{
    session gaps = *learned, *s = &gaps; /* where no row is in reach, a curve has a gap */
    gaps.model.r = for_rows(&learned->model.r);
    const sheet to = {o->plot, o->format};
    make_directories(o->plot);
    const trial *t = &found->trials[s->model.r.kernel];
    if (columns_x(s) == 1)
        draw_curves(o, &to, s);
    else if (!s->model.classes && (s->model.r.rows == 0 || s->model.r.n <= s->model.r.rows))
        draw_predicted(&to, s); /* it takes the fits of all rows */
    bool spread = s->low[0] < s->high[0] && s->low[1] < s->high[1];
    if (columns_x(s) == 2 && spread) draw_surface(o, &to, s);
    if (t->found) draw_criterion(o, &to, s, t);
    draw_weights(&to, "weights", s, &s->model.r, s->model.bandwidth,
                 (const char *const[]){"Attention weights"}, 1);
    if (columns_x(s) == 1 && !s->model.classes) draw_chapter(&to, s);
}
