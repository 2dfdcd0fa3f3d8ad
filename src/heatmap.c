#include <math.h>
#include <stdlib.h>

#include "fail.h"
#include "figure.h"
#include "file.h"
#include "gnuplot.h"
#include "label.h"
#include "qkv/plot.h"
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
    MAX_TICS = 8,
    MAX_CELLS = 4096, /* in a figure that draws cell by cell; what has more is drawn as an image */
    MAX_SAMPLES = 2048, /* of such images, across the figure and down */
    MAX_TEXT_CELLS = 40 /* across a terminal of 80 columns */
};

/* A figure's measures, in inches. */
typedef struct layout {
    double cell;             /* side of a cell */
    double panel_w, panel_h; /* of one matrix */
    double left, bottom;     /* of the lower left matrix */
    double right, top;       /* room beside the last column and above the first row */
    double gap;              /* between matrices */
    double grid_w, grid_h;   /* all matrices with their gaps */
    double width, height;    /* of the figure */
} layout;

/* The options' texts, broken and cut to the room there is; owned. NULL: none. */
typedef struct labels {
    char *x_label, *y_label;
    char **titles, **x_ticks, **y_ticks;
    int title_lines, x_label_lines, y_label_lines; /* room kept for them */
} labels;

typedef struct heatmaps {
    const double *matrices;
    ptrdiff_t rows, cols, n_q, n_k;
    const qkv_heatmap_options *options;
    double lower, upper; /* the colour scale */
    bool holes;          /* some element is NaN */
    int n_tics;          /* of the colour bar */
    double tic[MAX_TICS];
    char tic_text[MAX_TICS][32];
    labels text;
    layout at;
    bool image;                     /* not cell by cell, but as pixels of */
    ptrdiff_t samples_q, samples_k; /* what is drawn of one matrix */
} heatmaps;

/* ---- The colour scale and its numbers ---------------------------------------------------------
 */

static void find_scale(heatmaps *h)
{
    h->lower = INFINITY;
    h->upper = -INFINITY;
    for (ptrdiff_t i = 0; i < h->rows * h->cols * h->n_q * h->n_k; i++) {
        double x = h->matrices[i];
        if (isnan(x)) h->holes = true;
        if (!isfinite(x)) continue;
        h->lower = fmin(h->lower, x);
        h->upper = fmax(h->upper, x);
    }
    if (h->options->lower < h->options->upper) {
        h->lower = h->options->lower;
        h->upper = h->options->upper;
        return;
    }
    /* Rounding is no variation: all that differs in the last digits is of one colour. */
    if (h->upper - h->lower > 1e-9 * fmax(fabs(h->lower), fabs(h->upper)) + 1e-300) return;
    double only = isfinite(h->lower) ? h->lower : 0; /* a scale needs two ends: 0 is one of them */
    h->lower = fmin(only, 0);
    h->upper = only > 0 ? only : only < 0 ? 0 : 1;
}

/* Numbers on the colour bar: the multiples of the largest round step that gives at least three. */
static void find_tics(heatmaps *h)
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
    for (double x = first; x <= last && h->n_tics < MAX_TICS; x++) {
        double tic = x * step + 0.0; /* not -0 */
        snprintf(h->tic_text[h->n_tics], sizeof *h->tic_text, "%.*g", digits, tic);
        h->tic[h->n_tics++] = tic;
    }
}

/* ---- Texts -------------------------------------------------------------------------------------
 */

static void free_texts(char **texts, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; texts && i < n; i++) free(texts[i]);
    free(texts);
}

/* Replaces *fitted by texts that fit; *lines grows to what they need. */
static bool fit_texts(char ***fitted, const char *const *texts, ptrdiff_t n, double inches,
                      int max_lines, int *lines)
{
    if (!texts) return true;
    free_texts(*fitted, n);
    *fitted = calloc((size_t)n, sizeof **fitted);
    for (ptrdiff_t i = 0; *fitted && i < n; i++) {
        (*fitted)[i] = qkv_label_fit(texts[i] ? texts[i] : "", inches, max_lines);
        if (!(*fitted)[i]) return false;
        int needed = qkv_label_lines((*fitted)[i]);
        if (needed > *lines) *lines = needed;
    }
    return *fitted != NULL;
}

static bool fit_label(char **fitted, const char *text, double inches, int *lines)
{
    if (!text) return true;
    free(*fitted);
    *fitted = qkv_label_fit(text, inches, 2);
    if (*fitted && qkv_label_lines(*fitted) > *lines) *lines = qkv_label_lines(*fitted);
    return *fitted != NULL;
}

static bool fit_ticks(heatmaps *h)
{
    const double longest = 1.8;
    int one = 1;
    return fit_texts(&h->text.x_ticks, h->options->x_ticks, h->n_k, longest, 1, &one) &&
           fit_texts(&h->text.y_ticks, h->options->y_ticks, h->n_q, longest, 1, &one);
}

/* How long a text centred on a panel may be that shares its line with those of its neighbours, or
 * has the margins to itself. */
static double text_room(double panel, double gap, ptrdiff_t count, double before, double after)
{
    double beyond = count > 1 ? gap / 2 - 0.04 : fmin(before, after) - 0.08;
    return panel + 2 * fmax(beyond, 0);
}

static bool fit_labels(heatmaps *h)
{
    const qkv_heatmap_options *o = h->options;
    const layout *at = &h->at;
    double across = text_room(at->panel_w, at->gap, h->cols, at->left, at->right);
    double down = text_room(at->panel_h, at->gap, h->rows, at->bottom, at->top);
    labels *t = &h->text;
    return fit_texts(&t->titles, o->titles, h->cols, across, 4, &t->title_lines) &&
           fit_label(&t->x_label, o->x_label, across, &t->x_label_lines) &&
           fit_label(&t->y_label, o->y_label, down, &t->y_label_lines);
}

static void release(heatmaps *h)
{
    labels *t = &h->text;
    free_texts(t->titles, h->cols);
    free_texts(t->x_ticks, h->n_k);
    free_texts(t->y_ticks, h->n_q);
    free(t->x_label);
    free(t->y_label);
}

/* ---- Layout ------------------------------------------------------------------------------------
 */

static double widest(char *const *texts, ptrdiff_t n)
{
    double inches = 0;
    for (ptrdiff_t i = 0; texts && i < n; i++) inches = fmax(inches, qkv_label_inches(texts[i]));
    return inches;
}

/* Do texts below the cells have to stand upright? */
static bool upright(const heatmaps *h)
{
    return widest(h->text.x_ticks, h->n_k) + 0.08 > h->at.cell;
}

/* Cells as large as a page likes: a long matrix may be longer than a square one. */
static double cell_wanted(const heatmaps *h)
{
    double w = (double)(h->cols * h->n_k), hgt = (double)(h->rows * h->n_q);
    double longest = (double)(h->n_q > h->n_k ? h->n_q : h->n_k);
    double count = (double)(h->rows > h->cols ? h->rows : h->cols);
    double side = fmin(2.6, fmax(1.2, 5 / count));
    double page = fmin(8, 4.5 * sqrt(fmax(w, hgt) / fmin(w, hgt)));
    double cell = fmax(side / longest, fmin(0.16, page / fmax(w, hgt)));
    return h->options->x_ticks || h->options->y_ticks ? fmax(cell, 0.22) : fmin(cell, 1);
}

static double bar_text_width(const heatmaps *h)
{
    double inches = 0;
    for (int i = 0; i < h->n_tics; i++) inches = fmax(inches, qkv_label_inches(h->tic_text[i]));
    return inches;
}

static void place(heatmaps *h)
{
    const qkv_heatmap_options *o = h->options;
    layout *at = &h->at;
    double cols = (double)h->cols, rows = (double)h->rows, n_k = (double)h->n_k,
           n_q = (double)h->n_q;
    const double line = 0.17;
    char last[24];
    snprintf(last, sizeof last, "%td", h->n_q - 1);
    double tics = o->y_ticks ? widest(h->text.y_ticks, h->n_q) : qkv_label_inches(last);
    at->gap = 0.14;
    at->cell = cell_wanted(h);
    at->left =
        fmax(0.4, tics + 0.22) + (h->text.y_label_lines ? 0.08 : 0) + line * h->text.y_label_lines;
    at->bottom = (o->x_ticks && upright(h) ? widest(h->text.x_ticks, h->n_k) + 0.15 : 0.32) +
                 (h->text.x_label_lines ? 0.07 : 0) + line * h->text.x_label_lines;
    at->right = 0.55 + bar_text_width(h);
    at->top = 0.16 + 0.2 * h->text.title_lines;

    double fixed_w = at->left + at->right + (cols - 1) * at->gap;
    double fixed_h = at->bottom + at->top + (rows - 1) * at->gap;
    at->width = o->figure.width > 0 ? o->figure.width : fixed_w + cols * n_k * at->cell;
    at->height =
        o->figure.height > 0 ? o->figure.height : fmax(1.5, fixed_h + rows * n_q * at->cell);
    at->cell = fmin((at->width - fixed_w) / (cols * n_k), (at->height - fixed_h) / (rows * n_q));
    at->panel_w = n_k * at->cell;
    at->panel_h = n_q * at->cell;
    at->grid_w = cols * at->panel_w + (cols - 1) * at->gap;
    at->grid_h = rows * at->panel_h + (rows - 1) * at->gap;
    /* What a given size leaves over goes around the matrices, and is shared evenly. */
    double spare_w = (at->width - fixed_w - cols * at->panel_w) / 2;
    double spare_h = (at->height - fixed_h - rows * at->panel_h) / 2;
    at->left += spare_w;
    at->right += spare_w;
    at->bottom += spare_h;
    at->top += spare_h;
}

/* Texts need lines, lines leave less room for the panels, and panels are as wide as texts may be;
 * the lines only grow, so this ends. */
static qkv_status lay_out(heatmaps *h)
{
    bool fits = fit_ticks(h);
    for (int lines = -1, needed = 0; fits && needed > lines;) {
        lines = needed;
        place(h);
        fits = fit_labels(h);
        needed = h->text.title_lines + h->text.x_label_lines + h->text.y_label_lines;
    }
    if (!fits) return qkv_fail(QKV_E_NOMEM, "%s: no memory for the labels", caller);
    if (!(h->at.cell > 0))
        return qkv_fail(QKV_E_ARG, "%s: %g x %g inches leave no room for the matrices", caller,
                        h->at.width, h->at.height);
    return QKV_OK;
}

/* Few cells are drawn as they are, in twos where there is only one: gnuplot draws no image that is
 * one cell wide. Of many, what the figure has pixels for. */
static void choose_samples(heatmaps *h, double per_inch)
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

/* Cells between labels that stand at least apart inches from each other: 1, 2 or 5 times a power of
 * ten. */
static double tic_step(const heatmaps *h, double apart)
{
    double cells = fmax(1, apart / h->at.cell), power = pow(10, floor(log10(cells)));
    double part = cells / power;
    return power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
}

static void set_text_tics(qkv_sheet *s, const char *axis, char *const *texts, ptrdiff_t n,
                          const char *style)
{
    fprintf(s->script, "set %stics %s (", axis, style);
    for (ptrdiff_t i = 0; i < n; i++) {
        qkv_gnuplot_quote_tic(s->script, texts[i]);
        fprintf(s->script, " %td%s", i, i + 1 < n ? ", " : ")\n");
    }
}

/* Numbers or texts only where the axis is not shared with a panel further out. */
static void set_tics(qkv_sheet *s, const heatmaps *h, bool bottom, bool first)
{
    const labels *t = &h->text;
    char last[24];
    snprintf(last, sizeof last, "%td", h->n_k - 1);
    if (bottom && t->x_ticks)
        set_text_tics(s, "x", t->x_ticks, h->n_k, upright(h) ? "rotate by 90 right" : "norotate");
    else
        fprintf(s->script, "set xtics norotate 0,%g\n",
                tic_step(h, fmax(0.28, qkv_label_inches(last) + 0.12)));
    if (first && t->y_ticks)
        set_text_tics(s, "y", t->y_ticks, h->n_q, "");
    else
        fprintf(s->script, "set ytics 0,%g\n", tic_step(h, 0.28));
    fprintf(s->script, "set format x '%s'\nset format y '%s'\n", bottom ? "%g" : "",
            first ? "%g" : "");
}

static void set_colour_bar(qkv_sheet *s, const heatmaps *h)
{
    const layout *at = &h->at;
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

static void set_figure(qkv_sheet *s, const heatmaps *h)
{
    set_colour_bar(s, h);
    fprintf(s->script,
            "set border 15 linecolor '#888888' linewidth 0.6\n"
            "set tics out nomirror scale 0.4 textcolor '#333333'\nset xtics offset 0,%g\n"
            "unset key\n"
            "set xrange [-0.5:%td.5] noextend\nset yrange [%td.5:-0.5] noextend\n"
            "set multiplot\n",
            s->raise, h->n_k - 1, h->n_q - 1);
    /* Only where it shows: between cells that are drawn it would shine through their edges. */
    if (h->holes)
        fputs("set object 1 rectangle from graph 0,0 to graph 1,1 behind "
              "fillcolor '#e0e0e0' fillstyle solid noborder\n",
              s->script);
}

static void add_matrix(qkv_sheet *s, const heatmaps *h, const double *matrix, double *row)
{
    for (ptrdiff_t i = 0; i < h->samples_q; i++) {
        qkv_resample_row(matrix, h->n_q, h->n_k, h->lower, h->upper, i, h->samples_q, h->samples_k,
                         row);
        for (ptrdiff_t j = 0; j < h->samples_k; j++) qkv_sheet_number(s, row[j]);
        fputc('\n', s->data);
    }
    qkv_sheet_end_block(s);
}

static void add_panel(qkv_sheet *s, const heatmaps *h, ptrdiff_t row, ptrdiff_t col)
{
    const layout *at = &h->at;
    ptrdiff_t index = row * h->cols + col;
    bool bottom = row == h->rows - 1, first = col == 0;
    double left = at->left + (double)col * (at->panel_w + at->gap);
    double low = at->bottom + (double)(h->rows - 1 - row) * (at->panel_h + at->gap);
    qkv_sheet_place(s, left, low, left + at->panel_w, low + at->panel_h);
    set_tics(s, h, bottom, first);
    qkv_sheet_labels(s, row == 0 && h->text.titles ? h->text.titles[col] : NULL,
                     bottom ? h->text.x_label : NULL, first ? h->text.y_label : NULL);
    /* Samples lie between -0.5 and n - 0.5, as cells do. */
    fprintf(s->script,
            "plot @data index %td matrix using (($1+0.5)*%.17g-0.5):(($2+0.5)*%.17g-0.5):3 "
            "with image%s notitle\n",
            index, (double)h->n_k / (double)h->samples_k, (double)h->n_q / (double)h->samples_q,
            s->vector && !h->image ? " pixels" : "");
    if (index == 0) fputs("unset colorbox\n", s->script);
}

static qkv_status draw(heatmaps *h)
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

static qkv_status draw_figure(heatmaps *h)
{
    find_tics(h);
    qkv_status status = lay_out(h);
    if (!status) status = draw(h);
    release(h);
    return status;
}

/* ---- As text, without gnuplot: its dumb terminal draws no images -------------------------------
 */

static void print_row(const heatmaps *h, FILE *to, const double *row)
{
    static const char *const shades[] = {"  ", "\u2591\u2591", "\u2592\u2592", "\u2593\u2593",
                                         "\u2588\u2588"};
    for (ptrdiff_t k = 0; k < h->samples_k; k++) {
        double part = (row[k] - h->lower) / (h->upper - h->lower);
        fputs(isnan(part) ? "??" : shades[(int)lround(4 * part)], to);
    }
}

static qkv_status print_text(heatmaps *h)
{
    const qkv_heatmap_options *o = h->options;
    FILE *to = o->figure.text ? o->figure.text : stdout;
    double longest = (double)(h->n_q > h->n_k ? h->n_q : h->n_k);
    double part = fmin(1, MAX_TEXT_CELLS / longest), row[MAX_TEXT_CELLS];
    h->samples_q = (ptrdiff_t)fmax(1, round((double)h->n_q * part));
    h->samples_k = (ptrdiff_t)fmax(1, round((double)h->n_k * part));
    for (ptrdiff_t i = 0; i < h->rows * h->cols; i++) {
        if (o->titles && o->titles[i % h->cols]) fprintf(to, "%s\n", o->titles[i % h->cols]);
        for (ptrdiff_t q = 0; q < h->samples_q; q++) {
            qkv_resample_row(h->matrices + i * h->n_q * h->n_k, h->n_q, h->n_k, h->lower, h->upper,
                             q, h->samples_q, h->samples_k, row);
            print_row(h, to, row);
            if (o->y_ticks && h->samples_q == h->n_q && o->y_ticks[q])
                fprintf(to, " %s", o->y_ticks[q]);
            fputc('\n', to);
        }
        fputc('\n', to);
    }
    fprintf(to, "%s down, %s across, from %g (blank) to %g (full)",
            o->y_label ? o->y_label : "rows", o->x_label ? o->x_label : "columns", h->lower,
            h->upper);
    if (part < 1)
        fprintf(to, "; each shade is the mean of %.3g x %.3g cells",
                (double)h->n_q / (double)h->samples_q, (double)h->n_k / (double)h->samples_k);
    fputc('\n', to);
    return ferror(to) ? qkv_fail(QKV_E_IO, "%s: cannot write the figure as text", caller) : QKV_OK;
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
    if (!isfinite(o->lower) || !isfinite(o->upper) || o->lower > o->upper ||
        (o->lower == o->upper && o->lower != 0))
        return qkv_fail(QKV_E_ARG, "%s: the scale runs from %g to %g, expected lower < upper",
                        caller, o->lower, o->upper);
    return QKV_OK;
}

qkv_status qkv_show_heatmaps(const double *matrices, const ptrdiff_t shape[4],
                             const qkv_heatmap_options *options)
{
    static const qkv_heatmap_options defaults = {0};
    if (!options) options = &defaults;
    qkv_status status = check_arguments(matrices, shape, options);
    if (status) return status;
    heatmaps h = {.matrices = matrices,
                  .rows = shape[0],
                  .cols = shape[1],
                  .n_q = shape[2],
                  .n_k = shape[3],
                  .options = options};
    find_scale(&h);
    locale_t locale = qkv_c_locale_enter();
    status = options->figure.path ? draw_figure(&h) : print_text(&h);
    qkv_c_locale_leave(locale);
    return status;
}
