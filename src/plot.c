#include "qkv/plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "figure.h"
#include "gnuplot.h"
#include "label.h"
#include "plot_digits.h"

static const char caller[] = "qkv_plot_panels";

/* Distinguishable with any colour vision (after Okabe and Ito 2008), blue and vermilion first. */
static const char *const cycle[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                    "#e69f00", "#56b4e9", "#666666"};
enum { CYCLE = sizeof cycle / sizeof *cycle };

/* Inches, for a panel and what stands around it, of which the left may have to be more. */
static const double panel_w = 3.4, panel_h = 2.4, least_left = 0.78, right = 0.18, bottom = 0.58,
                    top = 0.36;
static const double legend_line = 0.18, sample_w = 0.55;

typedef struct box {
    double low[2], high[2]; /* of x and y */
} box;

static bool visible(const qkv_panel *p, double x, double y)
{
    return isfinite(x) && isfinite(y) && !(p->log_x && x <= 0) && !(p->log_y && y <= 0);
}

static void widen(box *b, const qkv_panel *p, double x, double y)
{
    if (!visible(p, x, y)) return;
    b->low[0] = fmin(b->low[0], x);
    b->high[0] = fmax(b->high[0], x);
    b->low[1] = fmin(b->low[1], y);
    b->high[1] = fmax(b->high[1], y);
}

static box data_box(const qkv_panel *p)
{
    box b = {{INFINITY, INFINITY}, {-INFINITY, -INFINITY}};
    for (size_t i = 0; i < p->n_series; i++) {
        const qkv_series *s = &p->series[i];
        for (size_t j = 0; j < s->n; j++) {
            widen(&b, p, s->x[j], s->y[j]);
            if (s->mark == QKV_BAND) widen(&b, p, s->x[j], s->y2[j]);
            if (s->mark != QKV_BARS) continue;
            widen(&b, p, s->x[j] - 0.6, 0);
            widen(&b, p, s->x[j] + 0.6, 0);
        }
    }
    return b;
}

/* Some air around the data, none below bars; something sensible around nothing or one point. */
static void fit_axis(double *low, double *high, bool log, bool floor_at_zero)
{
    if (!(*low <= *high)) {
        *low = log ? 1 : 0;
        *high = log ? 10 : 1;
    }
    if (log) {
        double air = *low < *high ? pow(*high / *low, 0.05) : 2;
        *low /= air;
        *high *= air;
        return;
    }
    /* What rounding alone tells apart is one number: gnuplot would find the range empty. */
    bool wide = *high - *low > 1e-12 * fmax(fabs(*low), fabs(*high));
    double air = wide ? 0.05 * (*high - *low) : fmax(0.5, 0.05 * fabs(*low));
    if (!(floor_at_zero && *low == 0)) *low -= air;
    *high += air;
}

static bool has_bars(const qkv_panel *p)
{
    for (size_t i = 0; i < p->n_series; i++)
        if (p->series[i].mark == QKV_BARS) return true;
    return false;
}

/* The ranges of the axes; aspect: height of the panel over its width. */
static box find_ranges(const qkv_panel *p, double aspect)
{
    box b = data_box(p);
    fit_axis(&b.low[0], &b.high[0], p->log_x, false);
    fit_axis(&b.low[1], &b.high[1], p->log_y, has_bars(p));
    const double *given[] = {p->x_range, p->y_range};
    for (int axis = 0; axis < 2; axis++) {
        if (given[axis][0] == 0 && given[axis][1] == 0) continue;
        b.low[axis] = given[axis][0];
        b.high[axis] = given[axis][1];
    }
    if (!p->equal_aspect) return b;
    double w = b.high[0] - b.low[0], h = b.high[1] - b.low[1];
    int axis = h > w * aspect ? 0 : 1;
    double more = axis == 0 ? h / aspect - w : w * aspect - h;
    b.low[axis] -= more / 2;
    b.high[axis] += more / 2;
    return b;
}

/* The width of the longest number beside the axis: multiples of 1, 2 or 5 times a power of ten that
 * make five steps or more, which have as many digits as gnuplot's own; powers of ten. */
static double number_inches(const qkv_panel *p, double low, double high)
{
    double inches = 0, step = p->log_y ? 1 : pow(10, floor(log10((high - low) / 5)));
    double first = p->log_y ? floor(log10(low)) : ceil(low / step);
    double last = floor(p->log_y ? log10(high) : high / step);
    double stride = p->log_y ? fmax(1, floor((last - first) / 100)) : 1;
    for (int n = 0; n <= 120 && first + n * stride <= last; n++) {
        char text[32];
        double i = first + n * stride;
        if (!p->log_y && fmod(i, 5) != 0 && fmod(i, 2) != 0) continue;
        snprintf(text, sizeof text, "%.*g", qkv_plot_digits(low, high),
                 p->log_y ? pow(10, i) : i * step);
        inches = fmax(inches, qkv_label_inches(text));
    }
    return inches;
}

/* From the axis to the middle of its label. */
static double label_distance(const qkv_panel *p)
{
    box b = find_ranges(p, panel_h / panel_w);
    return number_inches(p, b.low[1], b.high[1]) + 0.28;
}

/* ---- The legend stands between title and axes, where it can hide no data ---------------------
 */

typedef struct legend {
    int columns, lines; /* 0 without labels */
} legend;

/* As many columns as are as wide as the widest label, with its sample, in a panel of width w. */
static legend fit_legend(const qkv_panel *p, double w)
{
    double widest = 0;
    int n = 0;
    for (size_t i = 0; i < p->n_series; i++) {
        if (!p->series[i].label) continue;
        widest = fmax(widest, qkv_label_inches(p->series[i].label));
        n++;
    }
    if (n == 0) return (legend){0};
    int columns = (int)fmin(n, fmax(1, floor(w / (widest + sample_w))));
    int lines = (n + columns - 1) / columns;
    return (legend){(n + lines - 1) / lines, lines}; /* even lines */
}

/* ---- Drawing --------------------------------------------------------------------------------- */

static void add_data(qkv_sheet *sheet, const qkv_panel *p, const qkv_series *s)
{
    fputs("NaN NaN NaN NaN\n", sheet->data); /* so that an empty series is a block too */
    for (size_t j = 0; j < s->n; j++) {
        bool shown = visible(p, s->x[j], s->y[j]);
        if (s->mark == QKV_BAND) shown = shown && visible(p, s->x[j], s->y2[j]);
        qkv_sheet_number(sheet, shown ? s->x[j] : NAN);
        qkv_sheet_number(sheet, shown ? s->y[j] : NAN);
        qkv_sheet_number(sheet, s->y2 ? s->y2[j] : NAN);
        qkv_sheet_number(sheet, s->sizes ? s->sizes[j] : s->size > 0 ? s->size : 4.5);
        fputc('\n', sheet->data);
    }
    qkv_sheet_end_block(sheet);
}

static void add_series(qkv_sheet *sheet, const qkv_series *s, int index, size_t position)
{
    FILE *f = sheet->script;
    fprintf(f, "@data index %d ", index);
    double size = s->size > 0 ? s->size : 1.5;
    switch (s->mark) {
    case QKV_LINE:
    case QKV_DASHES:
        fprintf(f, "using 1:2 with lines linewidth %g dashtype %s", size / sheet->points_per_line,
                s->mark == QKV_DASHES ? "(7,5)" : "solid");
        break;
    case QKV_POINTS:
        fprintf(f, "using 1:2:($4*%g) with points pointtype 7 pointsize variable",
                1 / sheet->points_per_mark);
        break;
    case QKV_BAND:
        fputs("using 1:2:3 with filledcurves fillstyle transparent solid 0.22 noborder", f);
        break;
    case QKV_BARS:
        fputs("using 1:2:(0.7) with boxes fillstyle solid 0.85 noborder", f);
        break;
    }
    fputs(" linecolor rgb ", f);
    qkv_gnuplot_quote(f, s->colour ? s->colour : cycle[position % CYCLE]);
    if (s->label) {
        fputs(" title ", f);
        qkv_gnuplot_quote(f, s->label);
    } else {
        fputs(" notitle", f);
    }
}

/* gnuplot numbers whole powers of ten only; in few decades 1, 2 and 5 times them as well. */
static void set_log_tics(FILE *f, char axis, double low, double high)
{
    if (high / low > 1000) return;
    fprintf(f, "set %ctics (", axis);
    bool first = true;
    for (double power = pow(10, floor(log10(low))); power <= high; power *= 10)
        for (int i = 1; i <= 5; i += i == 1 ? 1 : 3) {
            if (i * power < low || i * power > high) continue;
            fprintf(f, "%s%.6g", first ? "" : ", ", i * power);
            first = false;
        }
    fputs(")\n", f);
}

static void set_axes(qkv_sheet *sheet, const qkv_panel *p, const box *b)
{
    FILE *f = sheet->script;
    fprintf(f, "set xrange [%.15g:%.15g]\nset yrange [%.15g:%.15g]\n", b->low[0], b->high[0],
            b->low[1], b->high[1]);
    fprintf(f, "%sset logscale x\n%sset logscale y\n", p->log_x ? "" : "un", p->log_y ? "" : "un");
    fprintf(f,
            "set format x '%%.%dg'\nset format y '%%.%dg'\nset ytics autofreq\n"
            "set xtics autofreq\n",
            qkv_plot_digits(b->low[0], b->high[0]), qkv_plot_digits(b->low[1], b->high[1]));
    if (p->log_x) set_log_tics(f, 'x', b->low[0], b->high[0]);
    if (p->log_y) set_log_tics(f, 'y', b->low[1], b->high[1]);
    if (p->x_ticks) {
        fputs("set xtics (", f);
        for (size_t i = 0; i < p->n_x_ticks; i++) {
            qkv_gnuplot_quote_tic(f, p->x_ticks[i] ? p->x_ticks[i] : "");
            fprintf(f, " %zu%s", i, i + 1 < p->n_x_ticks ? ", " : "");
        }
        fputs(")\n", f);
    }
    fprintf(f, "set grid %s linetype 1 linecolor '#e4e4e4' linewidth 0.6 back\n",
            p->x_ticks ? "noxtics ytics" : "xtics ytics");
}

/* Above axes whose upper left corner is at (x, y) of a figure that high and wide. */
static void set_legend(qkv_sheet *sheet, legend l, double x, double y)
{
    fprintf(sheet->script, "set key at screen %.5f,%.5f left top horizontal maxcols %d\n",
            x / sheet->width, (y + legend_line * l.lines + 0.06) / sheet->height,
            l.columns > 0 ? l.columns : 1);
}

static bool is_blank(const qkv_panel *p)
{
    return p->n_series == 0 && !p->title && !p->x_label && !p->y_label;
}

/* In the rectangle of width w and height h with its lower left corner at (x, y), legend and all.
 * false: no memory. */
static bool add_panel(qkv_sheet *sheet, const qkv_panel *p, double x, double y, double w, double h,
                      int *index)
{
    if (is_blank(p)) return true;
    char *title = qkv_label_fit(p->title ? p->title : "", w + 2 * right - 0.08, 1);
    if (!title) return false;
    legend l = fit_legend(p, w);
    h = fmax(h / 3, h - legend_line * l.lines);
    box b = find_ranges(p, h / w);
    qkv_sheet_place(sheet, x, y, x + w, y + h);
    set_axes(sheet, p, &b);
    set_legend(sheet, l, x, y + h);
    qkv_sheet_labels(sheet, title, p->x_label);
    qkv_sheet_y_label(sheet, p->y_label, x - label_distance(p), y + h / 2);
    if (*title) /* above the legend */
        fprintf(sheet->script, "set title offset 0,screen %.5f\n",
                (legend_line * l.lines - (l.lines ? 0.03 : 0.06)) / sheet->height);
    free(title);
    fputs("plot ", sheet->script);
    if (p->n_series == 0) fputs("NaN notitle", sheet->script);
    size_t position = 0;
    for (size_t i = 0; i < p->n_series; i++) {
        if (i > 0) fputs(", ", sheet->script);
        add_series(sheet, &p->series[i], (*index)++, position);
        position += !p->series[i].colour;
        add_data(sheet, p, &p->series[i]);
    }
    fputc('\n', sheet->script);
    return true;
}

static void set_figure(qkv_sheet *sheet)
{
    fprintf(sheet->script,
            "set border 3 linecolor '#888888' linewidth 0.8\n"
            "set tics out nomirror scale 0.4 textcolor '#333333'\nset xtics offset 0,%g\n"
            "set samples 2\n"
            "set key noautotitle Left reverse samplen 1.6 spacing %g "
            "textcolor '#222222'\nset multiplot\n",
            sheet->raise, sheet->key_spacing);
}

static qkv_status check_series(const qkv_series *s, int panel, size_t i)
{
    if (s->n > 0 && (!s->x || !s->y || (s->mark == QKV_BAND && !s->y2)))
        return qkv_fail(QKV_E_ARG, "%s: panel %d, series %zu: x, y or y2 is NULL", caller, panel,
                        i);
    if ((unsigned)s->mark > QKV_BARS || !(s->size >= 0))
        return qkv_fail(QKV_E_ARG, "%s: panel %d, series %zu: mark %d or size %g is none", caller,
                        panel, i, (int)s->mark, s->size);
    return QKV_OK;
}

static bool range_is_valid(const double *range, bool log_scale)
{
    if (range[0] == 0 && range[1] == 0) return true;
    return isfinite(range[0]) && isfinite(range[1]) && range[0] < range[1] &&
           !(log_scale && range[0] <= 0);
}

static qkv_status check_panel(const qkv_panel *p, int panel)
{
    if (!range_is_valid(p->x_range, p->log_x) || !range_is_valid(p->y_range, p->log_y))
        return qkv_fail(QKV_E_ARG, "%s: panel %d: a range is not low < high", caller, panel);
    if (p->equal_aspect && (p->log_x || p->log_y))
        return qkv_fail(QKV_E_ARG, "%s: panel %d: equal_aspect excludes a logarithmic axis", caller,
                        panel);
    if ((p->n_series > 0 && !p->series) || (p->x_ticks && p->n_x_ticks == 0))
        return qkv_fail(QKV_E_ARG, "%s: panel %d: series is NULL or x_ticks is empty", caller,
                        panel);
    for (size_t i = 0; i < p->n_series; i++) {
        qkv_status status = check_series(&p->series[i], panel, i);
        if (status) return status;
    }
    return QKV_OK;
}

qkv_status qkv_plot_panels(const qkv_panel *panels, int rows, int cols, const qkv_figure *figure)
{
    static const qkv_figure defaults = {0};
    if (!figure) figure = &defaults;
    if (!panels) return qkv_fail(QKV_E_ARG, "%s: panels is NULL", caller);
    if (rows < 1 || cols < 1 || rows > 20 || cols > 20)
        return qkv_fail(QKV_E_SHAPE, "%s: %d x %d panels, expected 1 to 20 each", caller, rows,
                        cols);
    for (int i = 0; i < rows * cols; i++) {
        qkv_status status = check_panel(&panels[i], i);
        if (status) return status;
    }
    if (!(figure->width >= 0) || !(figure->height >= 0))
        return qkv_fail(QKV_E_ARG, "%s: the figure is %g x %g inches, expected 0 or more", caller,
                        figure->width, figure->height);
    double left = least_left;
    for (int i = 0; i < rows * cols; i++)
        left = fmax(left, label_distance(&panels[i]) + (panels[i].y_label ? 0.14 : 0));
    double frame_w = left + right, frame_h = bottom + top;
    double width = figure->width > 0 ? figure->width : cols * (panel_w + frame_w);
    double height = figure->height > 0 ? figure->height : rows * (panel_h + frame_h);
    double w = width / cols - frame_w, h = height / rows - frame_h;
    if (!(w > 0 && h > 0))
        return qkv_fail(QKV_E_ARG, "%s: %g x %g inches leave no room for %d x %d panels", caller,
                        width, height, rows, cols);
    qkv_sheet sheet;
    qkv_status status = qkv_sheet_open(&sheet, figure, width, height, caller);
    if (status) return status;
    set_figure(&sheet);
    int index = 0;
    for (int i = 0; i < rows * cols; i++) {
        double x = i % cols * (w + frame_w) + left,
               y = (rows - 1 - i / cols) * (h + frame_h) + bottom;
        if (add_panel(&sheet, &panels[i], x, y, w, h, &index)) continue;
        qkv_sheet_drop(&sheet);
        return qkv_fail(QKV_E_NOMEM, "%s: no memory for a title", caller);
    }
    fputs("unset multiplot\n", sheet.script);
    return qkv_sheet_draw(&sheet);
}
