/* nadaraya_watson_chapter.c - the chapter's two comparisons, "Adapting Attention Pooling" of Dive
 * into Deep Learning: the same data under four kernels, and under four widths of one. Its own
 * bandwidths for the toy data; for others, such as smooth like the learned one. */
#include <math.h>
#include <stdlib.h>

#include "nadaraya_watson.h"

enum { FOUR = 4, POINTS = 200 };

/* Four ways to see the same data. */
typedef struct comparison {
    qkv_regression r[FOUR]; /* of the first column of y */
    double h[FOUR];
    const char *titles[FOUR]; /* owned */
} comparison;

static double *curve(const qkv_regression *r, double h, const double *x)
{
    double *mean = allocate(POINTS, sizeof *mean);
    check(qkv_regression_predict(r, &h, x, POINTS, &(qkv_regression_results){.mean = mean}));
    return mean;
}

/* All panels have the range of the data, so that they compare. */
static void draw_comparison(const sheet *to, const char *name, const session *s,
                            const comparison *four)
{
    double x[POINTS], truth[POINTS], range[2] = {INFINITY, -INFINITY}, *mean[FOUR];
    const qkv_regression *r = four->r;
    fill_steps(x, POINTS, s->low[0], s->high[0]);
    for (int i = 0; i < POINTS; i++) truth[i] = toy_function(x[i]);
    for (ptrdiff_t i = 0; i < r->n; i++) {
        range[0] = fmin(range[0], r->y[i]);
        range[1] = fmax(range[1], r->y[i]);
    }
    for (int i = 0; s->toy && i < POINTS; i++) range[0] = fmin(range[0], truth[i]);
    double air = range[0] < range[1] ? 0.05 * (range[1] - range[0]) : fmax(1, fabs(range[0]));
    qkv_panel panels[FOUR];
    qkv_series series[FOUR][3];
    ptrdiff_t step = (r->n + 1999) / 2000; /* more points would be one black area */
    size_t n = (size_t)((r->n + step - 1) / step);
    double *some = allocate(2 * n, sizeof *some);
    for (size_t i = 0; i < n; i++)
        some[i] = r->x[(ptrdiff_t)i * step], some[n + i] = r->y[(ptrdiff_t)i * step];
    for (int k = 0; k < FOUR; k++) {
        mean[k] = curve(&four->r[k], four->h[k], x);
        series[k][0] =
            (qkv_series){QKV_POINTS, NULL, n, some, some + n, .size = 3, .colour = "#999999"};
        series[k][1] =
            (qkv_series){QKV_LINE, NULL, POINTS, x, mean[k], .size = 2, .colour = "#d55e00"};
        series[k][2] =
            (qkv_series){QKV_DASHES, NULL, POINTS, x, truth, .size = 1, .colour = "#000000"};
        panels[k] = (qkv_panel){.title = four->titles[k],
                                .x_label = s->model.x_names[0],
                                .y_label = k == 0 ? s->model.y_names[0] : NULL,
                                .y_range = {range[0] - air, range[1] + air},
                                .series = series[k],
                                .n_series = s->toy ? 3 : 2};
    }
    draw_panels(to, name, panels, 1, FOUR, 12, 3.3);
    for (int k = 0; k < FOUR; k++) free(mean[k]);
    free(some);
}

static void draw_both(const sheet *to, const char *name, const session *s, comparison *four)
{
    char *weights = print_text("%s_weights", name);
    draw_comparison(to, name, s, four);
    draw_weights(to, weights, s, four->r, four->h, four->titles, FOUR);
    for (int k = 0; k < FOUR; k++) free((char *)four->titles[k]);
    free(weights);
}

/* The chapter: every kernel at 1. Otherwise in proportion to the rules of thumb, by which kernels
 * smooth alike. */
static double alike(const session *s, const qkv_regression *r)
{
    double own, other;
    check(qkv_regression_silverman(&s->model.r, &own));
    check(qkv_regression_silverman(r, &other));
    return s->toy ? 1 : s->model.bandwidth[0] * (other / own);
}

static void draw_kernels(const sheet *to, const session *s, const qkv_regression *r)
{
    static const qkv_regression_kernel kernels[FOUR] = {
        QKV_REGRESSION_GAUSSIAN, QKV_REGRESSION_BOXCAR, QKV_REGRESSION_CONSTANT,
        QKV_REGRESSION_TRIANGULAR};
    static const char *const names[FOUR] = {"Gaussian", "Boxcar", "Constant",
                                            "Triangular (Epanechikov)"};
    comparison four;
    for (int k = 0; k < FOUR; k++) {
        four.r[k] = *r;
        four.r[k].kernel = kernels[k];
        four.h[k] = alike(s, &four.r[k]);
        four.titles[k] = kernels[k] == QKV_REGRESSION_CONSTANT
                             ? print_text("%s", names[k])
                             : print_text("%s, %.3g", names[k], four.h[k]);
    }
    draw_both(to, "kernels", s, &four);
}

static void draw_widths(const sheet *to, const session *s, const qkv_regression *r)
{
    static const double chapter[FOUR] = {0.1, 0.2, 0.5, 1}, times[FOUR] = {0.25, 0.5, 1, 2};
    comparison four;
    for (int k = 0; k < FOUR; k++) {
        four.r[k] = *r;
        if (s->toy) four.r[k].kernel = QKV_REGRESSION_GAUSSIAN;
        four.h[k] = s->toy ? chapter[k] : times[k] * s->model.bandwidth[0];
        four.titles[k] = print_text("%s %.3g", s->toy ? "Gaussian, width" : "Bandwidth", four.h[k]);
    }
    draw_both(to, "widths", s, &four);
}

void draw_chapter(const sheet *to, const session *s)
{
    qkv_regression r = s->model.r;
    double *columns = transpose(r.y, r.n, columns_y(s));
    r.y = columns;
    r.d_y = 1;
    draw_kernels(to, s, &r);
    draw_widths(to, s, &r);
    free(columns);
}
