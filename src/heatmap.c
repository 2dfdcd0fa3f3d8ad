#include <math.h>
#include <stdlib.h>

#include "fail.h"
#include "figure.h"
#include "file.h"
#include "gnuplot.h"
#include "heatmap.h"
#include "plot_digits.h"
#include "resample.h"
#include "size.h"

/* Reds, Blues and Greys after ColorBrewer (Brewer 2003); viridis of van der Walt and Smith. */
static const char *const palettes[] = {
    [QKV_REDS] = "0 '#fff5f0', 1 '#fee0d2', 2 '#fcbba1', 3 '#fc9272', 4 '#fb6a4a', 5 '#ef3b2c', "
                 "6 '#cb181d', 7 '#a50f15', 8 '#67000d'",
    [QKV_VIRIDIS] = "0 '#440154', 1 '#472d7b', 2 '#3b528b', 3 '#2c728e', 4 '#21918c', "
                    "5 '#28ae80', 6 '#5ec962', 7 '#addc30', 8 '#fde725'",
    [QKV_BLUES] = "0 '#f7fbff', 1 '#deebf7', 2 '#c6dbef', 3 '#9ecae1', 4 '#6baed6', 5 '#4292c6', "
                  "6 '#2171b5', 7 '#08519c', 8 '#08306b'",
    [QKV_GREYS] = "0 '#ffffff', 1 '#f0f0f0', 2 '#d9d9d9', 3 '#bdbdbd', 4 '#969696', 5 '#737373', "
                  "6 '#525252', 7 '#252525', 8 '#000000'",
};

static const char caller[] = "qkv_show_heatmaps";

enum {
    MAX_CELLS = 4096,  /* in a figure that draws cell by cell; what has more is drawn as an image */
    MAX_SAMPLES = 2048 /* of such images, across the figure and down */
};

/* ---- The colour scale and its numbers ---------------------------------------------------------
 */

static qkv_status find_scale(qkv_heatmaps *h)
{
    static const double largest = 1e307; /* gnuplot, too, takes differences */
    h->lower = INFINITY;
    h->upper = -INFINITY;
    for (ptrdiff_t i = 0; i < h->rows * h->cols * h->n_q * h->n_k; i++) {
        double x = h->matrices[i];
        if (isnan(x)) h->holes = true;
        if (!isfinite(x)) continue;
        h->lower = fmin(h->lower, x);
        h->upper = fmax(h->upper, x);
    }
    bool given = h->options->lower < h->options->upper;
    if (given) {
        h->lower = h->options->lower;
        h->upper = h->options->upper;
    }
    if (isfinite(h->lower) && fmax(fabs(h->lower), fabs(h->upper)) > largest)
        return qkv_fail(QKV_E_DOMAIN,
                        "%s: the colour scale runs from %g to %g, expected -%g to %g at most: "
                        "divide the matrices, or set the scale",
                        caller, h->lower, h->upper, largest, largest);
    /* Rounding is no variation: all that differs in the last digits is of one colour. */
    if (given || h->upper - h->lower > 1e-9 * fmax(fabs(h->lower), fabs(h->upper)) + 1e-300)
        return QKV_OK;
    double only = isfinite(h->lower) ? h->lower : 0; /* a scale needs two ends: 0 is one of them */
    h->lower = only < -1e-300 ? only : 0;
    h->upper = only > 1e-300 ? only : only < -1e-300 ? 0 : 1;
    return QKV_OK;
}

/* Numbers on the colour bar: the multiples of the largest round step that gives at least three. */
static void find_tics(qkv_heatmaps *h)
{
    static const double rounds[] = {5, 2.5, 2, 1};
    double power = pow(10, ceil(log10(h->upper / 2 - h->lower / 2))), step = 0;
    double first = 0, last = 0;
    for (int i = 0; i < 12 && last - first < 2; i++) {
        if (i % 4 == 0) power /= 10;
        step = rounds[i % 4] * power;
        first = ceil(h->lower / step - 1e-9);
        last = floor(h->upper / step + 1e-9);
    }
    /* As many digits as tell one number from the next. */
    double largest = fmax(fabs(first), fabs(last));
    int digits = 3 + (int)floor(log10(fmax(largest, 1)));
    for (double x = first; x <= last && h->n_tics < QKV_HEATMAP_TICS; x++) {
        double tic = x * step + 0.0; /* not -0 */
        snprintf(h->tic_text[h->n_tics], sizeof *h->tic_text, "%.*g", digits, tic);
        h->tic[h->n_tics++] = tic;
    }
}

/* Few cells are drawn as they are, in twos where there is only one: gnuplot draws no image that is
 * one cell wide. Of many, what the figure has pixels for. */
static void choose_samples(qkv_heatmaps *h, double per_inch)
{
    h->image = (double)(h->rows * h->cols * h->n_q * h->n_k) > MAX_CELLS;
    if (!h->image) {
        h->samples_q = h->n_q > 1 ? h->n_q : 2;
        h->samples_k = h->n_k > 1 ? h->n_k : 2;
        return;
    }
    double density = fmin(per_inch, MAX_SAMPLES / fmax(h->at.grid_w, h->at.grid_h));
    h->samples_q = (ptrdiff_t)fmax(2, round(h->at.panel_h * density));
    h->samples_k = (ptrdiff_t)fmax(2, round(h->at.panel_w * density));
}

/* ---- Drawing -----------------------------------------------------------------------------------
 */

/* On a shared axis the texts are blank. */
static void set_text_tics(qkv_sheet *s, const char *axis, const double *range, char *const *texts,
                          ptrdiff_t n, const char *style, bool shared)
{
    double cell = (range[1] - range[0]) / (double)n;
    fprintf(s->script, "set %stics %s (", axis, style);
    for (ptrdiff_t i = 0; i < n; i++) {
        qkv_gnuplot_quote_tic(s->script, shared ? "" : texts[i]);
        fprintf(s->script, " %.10g%s", range[0] + ((double)i + 0.5) * cell,
                i + 1 < n ? ", " : ")\n");
    }
}

static void set_format(qkv_sheet *s, const char *axis, const double *range, bool shared)
{
    if (shared)
        fprintf(s->script, "set format %s ''\n", axis);
    else
        fprintf(s->script, "set format %s '%%.%dg'\n", axis, qkv_plot_digits(range[0], range[1]));
}

/* Numbers or texts only where the axis is not shared with a panel further out. */
static void set_tics(qkv_sheet *s, const qkv_heatmaps *h, bool bottom, bool first)
{
    const qkv_heatmap_labels *t = &h->text;
    if (t->x_ticks)
        set_text_tics(s, "x", h->x_range, t->x_ticks, h->n_k,
                      qkv_heatmap_upright(h) ? "rotate by 90 right" : "norotate", !bottom);
    else
        fprintf(s->script, "set xtics norotate %g\n",
                qkv_heatmap_tic_step(h->x_range, h->n_k, h->at.cell_w,
                                     fmax(0.28, qkv_heatmap_number_inches(h->x_range) + 0.12)));
    if (t->y_ticks)
        set_text_tics(s, "y", h->y_range, t->y_ticks, h->n_q, "", !first);
    else
        fprintf(s->script, "set ytics %g\n",
                qkv_heatmap_tic_step(h->y_range, h->n_q, h->at.cell_h, 0.28));
    set_format(s, "x", h->x_range, !bottom);
    set_format(s, "y", h->y_range, !first);
}

static void set_colour_bar(qkv_sheet *s, const qkv_heatmaps *h)
{
    const qkv_heatmap_layout *at = &h->at;
    bool low = at->grid_h < 0.9; /* then the bar is higher than the panels, or it shows nothing */
    double bar_h = low ? at->height - 0.5 : fmax(0.9, 0.7 * at->grid_h);
    double middle = low ? at->height / 2 : at->bottom + at->grid_h / 2;
    fprintf(s->script,
            "set palette defined (%s)\nset cbrange [%.17g:%.17g]\n"
            "set colorbox user origin screen %.5f,%.5f size screen %.5f,%.5f noborder\n"
            "set cbtics scale 0 offset -0.5,0 textcolor '#333333' (",
            palettes[h->options->palette], h->lower, h->upper,
            (at->left + at->grid_w + 0.18) / at->width, (middle - bar_h / 2) / at->height,
            0.13 / at->width, bar_h / at->height);
    for (int i = 0; i < h->n_tics; i++)
        fprintf(s->script, "%s'%s' %.17g", i ? ", " : "", h->tic_text[i], h->tic[i]);
    fputs(")\n", s->script);
}

static void set_figure(qkv_sheet *s, const qkv_heatmaps *h)
{
    set_colour_bar(s, h);
    fprintf(s->script,
            "set border 15 linecolor '#888888' linewidth 0.6\n"
            "set tics out nomirror scale 0.4 textcolor '#333333'\nset xtics offset 0,%g\n"
            "unset key\n"
            "set xrange [%.17g:%.17g] noextend\nset yrange [%.17g:%.17g] noextend\n"
            "set multiplot\n",
            s->raise, h->x_range[0], h->x_range[1], h->y_range[1], h->y_range[0]);
    /* Only where it shows: between cells that are drawn it would shine through their edges. */
    if (h->holes)
        fputs("set object 1 rectangle from graph 0,0 to graph 1,1 behind "
              "fillcolor '#e0e0e0' fillstyle solid noborder\n",
              s->script);
}

static void add_matrix(qkv_sheet *s, const qkv_heatmaps *h, const double *matrix, double *row)
{
    for (ptrdiff_t i = 0; i < h->samples_q; i++) {
        qkv_resample_row(matrix, h->n_q, h->n_k, h->lower, h->upper, i, h->samples_q, h->samples_k,
                         row);
        for (ptrdiff_t j = 0; j < h->samples_k; j++) qkv_sheet_number(s, row[j]);
        fputc('\n', s->data);
    }
    qkv_sheet_end_block(s);
}

static void add_panel(qkv_sheet *s, const qkv_heatmaps *h, ptrdiff_t row, ptrdiff_t col)
{
    const qkv_heatmap_layout *at = &h->at;
    ptrdiff_t index = row * h->cols + col;
    bool bottom = row == h->rows - 1, first = col == 0;
    double left = at->left + (double)col * (at->panel_w + at->gap);
    double low = at->bottom + (double)(h->rows - 1 - row) * (at->panel_h + at->gap);
    qkv_sheet_place(s, left, low, left + at->panel_w, low + at->panel_h);
    set_tics(s, h, bottom, first);
    qkv_sheet_labels(s, row == 0 && h->text.titles ? h->text.titles[col] : NULL,
                     bottom && h->text.x_label ? *h->text.x_label : NULL);
    qkv_sheet_y_label(s, first && h->text.y_labels ? h->text.y_labels[row] : NULL,
                      at->left - at->y_label, low + at->panel_h / 2);
    fprintf(s->script,
            "plot @data index %td matrix using (($1+0.5)*%.17g%+.17g):(($2+0.5)*%.17g%+.17g):3 "
            "with image%s notitle\n",
            index, (h->x_range[1] - h->x_range[0]) / (double)h->samples_k, h->x_range[0],
            (h->y_range[1] - h->y_range[0]) / (double)h->samples_q, h->y_range[0],
            s->vector && !h->image ? " pixels" : "");
    if (index == 0) fputs("unset colorbox\n", s->script);
}

static qkv_status draw(qkv_heatmaps *h)
{
    qkv_sheet sheet;
    qkv_status status =
        qkv_sheet_open(&sheet, &h->options->figure, h->at.width, h->at.height, caller);
    if (status) return status;
    choose_samples(h, sheet.samples_per_inch);
    double *row = calloc((size_t)h->samples_k, sizeof *row);
    if (!row) {
        qkv_sheet_drop(&sheet);
        return qkv_fail(QKV_E_NOMEM, "%s: no memory for a row", caller);
    }
    set_figure(&sheet, h);
    for (ptrdiff_t i = 0; i < h->rows * h->cols; i++) {
        add_panel(&sheet, h, i / h->cols, i % h->cols);
        add_matrix(&sheet, h, h->matrices + i * h->n_q * h->n_k, row);
    }
    free(row);
    fputs("unset multiplot\n", sheet.script);
    return qkv_sheet_draw(&sheet);
}

static qkv_status draw_figure(qkv_heatmaps *h)
{
    find_tics(h);
    qkv_status status = qkv_heatmap_lay_out(h, caller);
    if (!status) status = draw(h);
    qkv_heatmap_release(h);
    return status;
}

static bool is_range(const double *range)
{
    return (range[0] == 0 && range[1] == 0) ||
           (range[0] != range[1] && isfinite(range[1] - range[0]));
}

static qkv_status check_arguments(const double *matrices, const ptrdiff_t *shape,
                                  const qkv_heatmap_options *o)
{
    if (!matrices || !shape) return qkv_fail(QKV_E_ARG, "%s: matrices or shape is NULL", caller);
    size_t bytes = sizeof *matrices;
    for (int i = 0; i < 4; i++) {
        if (shape[i] < 1)
            return qkv_fail(QKV_E_SHAPE, "%s: shape[%d] is %td, expected at least 1", caller, i,
                            shape[i]);
        if (!qkv_size_mul(&bytes, shape[i]))
            return qkv_fail(QKV_E_OVERFLOW, "%s: the sizes overflow at shape[%d]", caller, i);
    }
    if ((unsigned)o->palette >= sizeof palettes / sizeof *palettes)
        return qkv_fail(QKV_E_ARG, "%s: palette is %d, which is none", caller, (int)o->palette);
    if (!(o->figure.width >= 0) || !(o->figure.height >= 0))
        return qkv_fail(QKV_E_ARG, "%s: the figure is %g x %g inches, expected 0 or more", caller,
                        o->figure.width, o->figure.height);
    if (!is_range(o->x_range) || !is_range(o->y_range))
        return qkv_fail(
            QKV_E_ARG,
            "%s: x_range is %g to %g, y_range %g to %g, expected two different numbers, or 0 and 0",
            caller, o->x_range[0], o->x_range[1], o->y_range[0], o->y_range[1]);
    if (!isfinite(o->lower) || !isfinite(o->upper) || o->lower > o->upper ||
        (o->lower == o->upper && o->lower != 0))
        return qkv_fail(QKV_E_ARG, "%s: the scale runs from %g to %g, expected lower < upper",
                        caller, o->lower, o->upper);
    return QKV_OK;
}

static void set_range(double *range, const double *given, ptrdiff_t n)
{
    bool cells = given[0] == 0 && given[1] == 0;
    range[0] = cells ? -0.5 : given[0];
    range[1] = cells ? (double)n - 0.5 : given[1];
}

qkv_status qkv_show_heatmaps(const double *matrices, const ptrdiff_t shape[4],
                             const qkv_heatmap_options *options)
{
    static const qkv_heatmap_options defaults = {0};
    if (!options) options = &defaults;
    qkv_status status = check_arguments(matrices, shape, options);
    if (status) return status;
    qkv_heatmaps h = {.matrices = matrices,
                      .rows = shape[0],
                      .cols = shape[1],
                      .n_q = shape[2],
                      .n_k = shape[3],
                      .options = options};
    set_range(h.x_range, options->x_range, h.n_k);
    set_range(h.y_range, options->y_range, h.n_q);
    status = find_scale(&h);
    if (status) return status;
    locale_t locale = qkv_c_locale_enter();
    status = options->figure.path ? draw_figure(&h) : qkv_heatmap_print(&h, caller);
    qkv_c_locale_leave(locale);
    return status;
}
