/* nadaraya_watson_criterion.c - how the criterion depends on the bandwidth, as a figure. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nadaraya_watson.h"

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

void draw_criterion(const settings *o, const sheet *to, const session *s, const trial *t)
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
        series[c][0] =
            (qkv_series){QKV_DASHES, NULL, 2, line_x[c], line_y[c], .size = 1, .colour = "#999999"};
        series[c][1] = (qkv_series){QKV_LINE, NULL,      (size_t)points,     h[c],
                                    value[c], .size = 2, .colour = "#0072b2"};
        char *label = print_text("chosen: %.3g", chosen);
        series[c][2] = (qkv_series){
            QKV_POINTS,         label, 1, &s->model.bandwidth[c], &t->objective, .size = 8,
            .colour = "#d55e00"};
        panels[c] = (qkv_panel){.title = titles[c],
                                .x_label = labels[c],
                                .log_x = true,
                                .series = series[c],
                                .n_series = 3};
    }
    draw_page(to, "criterion", panels, n, 7);
    for (int c = 0; c < n; c++) free(titles[c]), free(labels[c]), free((char *)series[c][2].label);
}
