#include <math.h>
#include <string.h>

#include "fail.h"
#include "figure.h"
#include "gnuplot.h"
#include "qkv/plot.h"
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

typedef struct heatmaps {
    const double *matrices;
    ptrdiff_t rows, cols, n_q, n_k;
    const qkv_heatmap_options *options;
    double lower, upper; /* the colour scale */
    bool holes;          /* some element is NaN */
    layout at;
} heatmaps;

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
    }
    if (h->lower < h->upper) return;
    double only = isfinite(h->lower) ? h->lower : 0; /* a scale needs two ends: 0 is one of them */
    h->lower = fmin(only, 0);
    h->upper = only > 0 ? only : only < 0 ? 0 : 1;
}

/* Width of the widest label in inches, at about 9 points. */
static double text_inches(const char *const *texts, ptrdiff_t n)
{
    size_t longest = 0;
    for (ptrdiff_t i = 0; texts && i < n; i++)
        if (texts[i] && strlen(texts[i]) > longest) longest = strlen(texts[i]);
    return 0.085 * (double)longest;
}

/* Do texts below the cells have to stand upright? */
static bool upright(const heatmaps *h)
{
    return text_inches(h->options->x_ticks, h->n_k) + 0.08 > h->at.cell;
}

static int title_lines(const heatmaps *h)
{
    int most = 0;
    for (ptrdiff_t i = 0; h->options->titles && i < h->cols; i++) {
        const char *title = h->options->titles[i];
        int lines = title && *title ? 1 : 0;
        for (; title && *title; title++) lines += *title == '\n';
        if (lines > most) most = lines;
    }
    return most;
}

static double cell_wanted(const heatmaps *h)
{
    double longest = (double)(h->n_q > h->n_k ? h->n_q : h->n_k);
    double count = (double)(h->rows > h->cols ? h->rows : h->cols);
    double side = fmin(2.6, fmax(1.2, 5 / count));
    double cell = fmax(side / longest, fmin(0.16, 4.5 / (count * longest)));
    return h->options->x_ticks || h->options->y_ticks ? fmax(cell, 0.22) : fmin(cell, 1);
}

static void place(heatmaps *h)
{
    const qkv_heatmap_options *o = h->options;
    layout *at = &h->at;
    double cols = (double)h->cols, rows = (double)h->rows, n_k = (double)h->n_k,
           n_q = (double)h->n_q;
    at->gap = 0.14;
    at->cell = cell_wanted(h);
    at->left = fmax(0.4, text_inches(o->y_ticks, h->n_q) + 0.15) + (o->y_label ? 0.25 : 0);
    at->bottom = (o->x_ticks && upright(h) ? text_inches(o->x_ticks, h->n_k) + 0.15 : 0.32) +
                 (o->x_label ? 0.24 : 0);
    at->right = 1.05;
    at->top = 0.16 + 0.2 * title_lines(h);

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
    at->left += (at->width - fixed_w - cols * at->panel_w) / 2;
    at->bottom += (at->height - fixed_h - rows * at->panel_h) / 2;
}

/* The least of 1, 2 or 5 times a power of ten that is at least x > 0. */
static double round_step(double x)
{
    double power = pow(10, floor(log10(x)));
    double part = x / power;
    return power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
}

/* Cells between labels that are to stand at least apart inches from each other. */
static double tic_step(const heatmaps *h, double apart)
{
    return fmax(1, round_step(apart / h->at.cell));
}

static void set_text_tics(qkv_sheet *s, const char *axis, const char *const *texts, ptrdiff_t n,
                          const char *style)
{
    fprintf(s->script, "set %stics %s (", axis, style);
    for (ptrdiff_t i = 0; i < n; i++) {
        qkv_gnuplot_quote_tic(s->script, texts[i] ? texts[i] : "");
        fprintf(s->script, " %td%s", i, i + 1 < n ? ", " : ")\n");
    }
}

/* Numbers or texts only where the axis is not shared with a panel further out. */
static void set_tics(qkv_sheet *s, const heatmaps *h, bool bottom, bool first)
{
    const qkv_heatmap_options *o = h->options;
    if (bottom && o->x_ticks)
        set_text_tics(s, "x", o->x_ticks, h->n_k, upright(h) ? "rotate by 90 right" : "norotate");
    else
        fprintf(s->script, "set xtics norotate 0,%g\n", tic_step(h, 0.36));
    if (first && o->y_ticks)
        set_text_tics(s, "y", o->y_ticks, h->n_q, "");
    else
        fprintf(s->script, "set ytics 0,%g\n", tic_step(h, 0.28));
    fprintf(s->script, "set format x '%s'\nset format y '%s'\n", bottom ? "%g" : "",
            first ? "%g" : "");
}

static void set_figure(qkv_sheet *s, const heatmaps *h)
{
    const layout *at = &h->at;
    double bar_h = fmax(fmin(at->grid_h, 0.9), 0.7 * at->grid_h);
    if (at->grid_h < 0.9) bar_h = at->height - 0.5;
    double middle = at->bottom + at->grid_h / 2;
    if (at->grid_h < 0.9) middle = at->height / 2;
    fprintf(s->script,
            "set palette defined (%s)\nset cbrange [%.10g:%.10g]\n"
            "set colorbox user origin screen %.5f,%.5f size screen %.5f,%.5f noborder\n"
            "set cbtics scale 0 offset -0.5,0 %.10g textcolor '#333333'\nset format cb '%%g'\n"
            "set border 15 linecolor '#888888' linewidth 0.6\n"
            "set tics out nomirror scale 0.4 textcolor '#333333'\nset xtics offset 0,%g\n"
            "unset key\n"
            "set xrange [-0.5:%td.5] noextend\nset yrange [%td.5:-0.5] noextend\n"
            "set multiplot\n",
            palettes[h->options->palette], h->lower, h->upper,
            (at->left + at->grid_w + 0.18) / at->width, (middle - bar_h / 2) / at->height,
            0.13 / at->width, bar_h / at->height,
            round_step((h->upper - h->lower) * fmin(0.25 / bar_h, 0.5)), s->raise, h->n_k - 1,
            h->n_q - 1);
    /* Only where it shows: between cells that are drawn it would shine through their edges. */
    if (h->holes)
        fputs("set object 1 rectangle from graph 0,0 to graph 1,1 behind "
              "fillcolor '#e0e0e0' fillstyle solid noborder\n",
              s->script);
}

/* gnuplot draws no image that is one cell wide, so such a cell is written twice, half as wide. */
static void add_matrix(qkv_sheet *s, const heatmaps *h, const double *matrix)
{
    ptrdiff_t twice_q = h->n_q == 1 ? 2 : 1, twice_k = h->n_k == 1 ? 2 : 1;
    for (ptrdiff_t i = 0; i < h->n_q * twice_q; i++) {
        for (ptrdiff_t j = 0; j < h->n_k * twice_k; j++) {
            double x = matrix[i / twice_q * h->n_k + j / twice_k];
            qkv_sheet_number(s, isnan(x) ? x : fmin(fmax(x, h->lower), h->upper));
        }
        fputc('\n', s->data);
    }
    qkv_sheet_end_block(s);
}

static void add_panel(qkv_sheet *s, const heatmaps *h, ptrdiff_t row, ptrdiff_t col)
{
    const qkv_heatmap_options *o = h->options;
    const layout *at = &h->at;
    ptrdiff_t index = row * h->cols + col;
    bool bottom = row == h->rows - 1, first = col == 0;
    double left = at->left + (double)col * (at->panel_w + at->gap);
    double low = at->bottom + (double)(h->rows - 1 - row) * (at->panel_h + at->gap);
    qkv_sheet_place(s, left, low, left + at->panel_w, low + at->panel_h);
    set_tics(s, h, bottom, first);
    qkv_sheet_labels(s, row == 0 && o->titles ? o->titles[col] : NULL, bottom ? o->x_label : NULL,
                     first ? o->y_label : NULL);
    fprintf(s->script, "plot @data index %td matrix using (%s):(%s):3 with image%s notitle\n",
            index, h->n_k == 1 ? "$1*0.5-0.25" : "$1", h->n_q == 1 ? "$2*0.5-0.25" : "$2",
            s->vector ? " pixels" : "");
    if (index == 0) fputs("unset colorbox\n", s->script);
    add_matrix(s, h, h->matrices + index * h->n_q * h->n_k);
}

/* ---- As text, without gnuplot: its dumb terminal draws no images -------------------------------
 */

static qkv_status print_text(const heatmaps *h)
{
    static const char *const shades[] = {"  ", "\u2591\u2591", "\u2592\u2592", "\u2593\u2593",
                                         "\u2588\u2588"};
    const qkv_heatmap_options *o = h->options;
    FILE *to = o->figure.text ? o->figure.text : stdout;
    for (ptrdiff_t i = 0; i < h->rows * h->cols; i++) {
        if (o->titles && o->titles[i % h->cols]) fprintf(to, "%s\n", o->titles[i % h->cols]);
        for (ptrdiff_t q = 0; q < h->n_q; q++) {
            for (ptrdiff_t k = 0; k < h->n_k; k++) {
                double x = h->matrices[(i * h->n_q + q) * h->n_k + k];
                double part = fmin(fmax((x - h->lower) / (h->upper - h->lower), 0), 1);
                fputs(isnan(x) ? "??" : shades[(int)lround(4 * part)], to);
            }
            if (o->y_ticks && o->y_ticks[q]) fprintf(to, " %s", o->y_ticks[q]);
            fputc('\n', to);
        }
        fputc('\n', to);
    }
    fprintf(to, "%s down, %s across, from %g (blank) to %g (full)\n",
            o->y_label ? o->y_label : "rows", o->x_label ? o->x_label : "columns", h->lower,
            h->upper);
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
    if (!options->figure.path) return print_text(&h);
    place(&h);
    if (!(h.at.cell > 0))
        return qkv_fail(QKV_E_ARG, "%s: %g x %g inches leave no room for the matrices", caller,
                        h.at.width, h.at.height);
    qkv_sheet sheet;
    status = qkv_sheet_open(&sheet, &options->figure, h.at.width, h.at.height, caller);
    if (status) return status;
    set_figure(&sheet, &h);
    for (ptrdiff_t row = 0; row < h.rows; row++)
        for (ptrdiff_t col = 0; col < h.cols; col++) add_panel(&sheet, &h, row, col);
    fputs("unset multiplot\n", sheet.script);
    return qkv_sheet_draw(&sheet);
}
