/* nadaraya_watson_surface.c - figures of what several columns predict. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nadaraya_watson.h"

enum {
    SURFACE = 60,     /* points of a surface each way */
    MAX_POINTS = 2000 /* data shown: more would be one black area */
};

/* What the other rows predict, against what was observed. */
void draw_predicted(const sheet *to, const session *s)
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
        series[k][0] = (qkv_series){QKV_LINE, NULL, 2, ends[k], ends[k], .colour = "#999999"};
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
    char *path = sheet_path(to, name), *titles[MAX_PANELS];
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
void draw_surface(const settings *o, const sheet *to, const session *s)
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
