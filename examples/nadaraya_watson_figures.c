/* nadaraya_watson_figures.c - what was learned, as pictures. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nadaraya_watson.h"

enum {
    CURVE = 200,      /* points of a curve, unless --grid says */
    MAX_POINTS = 2000 /* data shown: more would be one black area */
};

static const char data_colour[] = "#999999", fit_colour[] = "#d55e00", band_colour[] = "#d55e00",
                  truth_colour[] = "#000000";

char *sheet_path(const sheet *to, const char *name)
{
    return print_text("%s/%s.%s", to->directory, name, to->format);
}

void draw_panels(const sheet *to, const char *name, const qkv_panel *panels, int rows, int cols,
                 double width, double height)
{
    char *path = sheet_path(to, name);
    check(qkv_plot_panels(panels, rows, cols,
                          &(qkv_figure){.path = path, .width = width, .height = height}));
    say("wrote %s", path);
    free(path);
}

/* n panels in as many columns as make them look like a page; the only one is so wide. */
void draw_page(const sheet *to, const char *name, const qkv_panel *panels, int n, double width)
{
    int cols = n == 1 ? 1 : n <= 4 ? 2 : 3, rows = (n + cols - 1) / cols;
    qkv_panel all[MAX_PANELS + 3] = {0};
    memcpy(all, panels, (size_t)n * sizeof *panels);
    if (n == 1)
        draw_panels(to, name, all, 1, 1, width, 4.6);
    else
        draw_panels(to, name, all, rows, cols, 4.6 * cols, 3.6 * rows);
}

int panels_of(ptrdiff_t columns)
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
