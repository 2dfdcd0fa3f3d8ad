#include <math.h>
#include <stdlib.h>

#include "fail.h"
#include "heatmap.h"
#include "label.h"
#include "plot_digits.h"

enum { LONGEST = 20 }; /* a matrix, against its width: then its cells stretch */

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

/* One text, or NULL, for each of n. */
static bool fit_same(char ***fitted, const char *text, ptrdiff_t n, double inches, int *lines)
{
    const char **texts = calloc((size_t)n, sizeof *texts);
    for (ptrdiff_t i = 0; texts && i < n; i++) texts[i] = text;
    bool fits = texts && fit_texts(fitted, text ? texts : NULL, n, inches, 2, lines);
    free(texts);
    return fits;
}

static bool fit_ticks(qkv_heatmaps *h)
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

static bool fit_labels(qkv_heatmaps *h)
{
    const qkv_heatmap_options *o = h->options;
    const qkv_heatmap_layout *at = &h->at;
    double across = text_room(at->panel_w, at->gap, h->cols, at->left, at->right);
    double down = text_room(at->panel_h, at->gap, h->rows, at->bottom, at->top);
    qkv_heatmap_labels *t = &h->text;
    return fit_texts(&t->titles, o->titles, h->cols, across, 4, &t->title_lines) &&
           fit_same(&t->x_label, o->x_label, 1, across, &t->x_label_lines) &&
           (o->y_labels ? fit_texts(&t->y_labels, o->y_labels, h->rows, down, 2, &t->y_label_lines)
                        : fit_same(&t->y_labels, o->y_label, h->rows, down, &t->y_label_lines));
}

void qkv_heatmap_release(qkv_heatmaps *h)
{
    qkv_heatmap_labels *t = &h->text;
    free_texts(t->titles, h->cols);
    free_texts(t->x_ticks, h->n_k);
    free_texts(t->y_ticks, h->n_q);
    free_texts(t->x_label, 1);
    free_texts(t->y_labels, h->rows);
}

/* ---- Layout ------------------------------------------------------------------------------------
 */

static double widest(char *const *texts, ptrdiff_t n)
{
    double inches = 0;
    for (ptrdiff_t i = 0; texts && i < n; i++) inches = fmax(inches, qkv_label_inches(texts[i]));
    return inches;
}

bool qkv_heatmap_upright(const qkv_heatmaps *h)
{
    return widest(h->text.x_ticks, h->n_k) + 0.08 > h->at.cell_w;
}

/* Cells as large as a page likes: a long matrix may be longer than a square one. */
static double cell_wanted(const qkv_heatmaps *h)
{
    double w = (double)(h->cols * h->n_k), hgt = (double)(h->rows * h->n_q);
    double longest = (double)(h->n_q > h->n_k ? h->n_q : h->n_k);
    double count = (double)(h->rows > h->cols ? h->rows : h->cols);
    double side = fmin(2.6, fmax(1.2, 5 / count));
    double page = fmin(8, 4.5 * sqrt(fmax(w, hgt) / fmin(w, hgt)));
    double cell = fmax(side / longest, fmin(0.16, page / fmax(w, hgt)));
    return h->options->x_ticks || h->options->y_ticks ? fmax(cell, 0.22) : fmin(cell, 1);
}

double qkv_heatmap_tic_step(const double range[2], ptrdiff_t n, double cell, double apart)
{
    double unit =
        fabs(range[1] - range[0]) / (double)n; /* of a cell: no number stands between cells */
    double step = fmax(1, apart / cell) * unit, power = pow(10, floor(log10(step)));
    double part = step / power;
    return power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
}

double qkv_heatmap_number_inches(const double range[2])
{
    double inches = 0;
    int digits = qkv_plot_digits(range[0], range[1]);
    bool whole = fabs(range[1] - range[0]) >= 10;
    for (int i = 0; i <= 4;
         i++) { /* in between, far from 0, there are longer ones than at the ends */
        char text[32];
        double x = range[0] + i / 4.0 * (range[1] - range[0]);
        if (i % 4 && digits <= 6) continue;
        if (whole && fabs(x) < 1e6)
            snprintf(text, sizeof text, "%.0f", x);
        else
            snprintf(text, sizeof text, "%.*g", digits > 6 ? digits : 3, x);
        inches = fmax(inches, qkv_label_inches(text));
    }
    return inches;
}

static double bar_text_width(const qkv_heatmaps *h)
{
    double inches = 0;
    for (int i = 0; i < h->n_tics; i++) inches = fmax(inches, qkv_label_inches(h->tic_text[i]));
    return inches;
}

static void place(qkv_heatmaps *h)
{
    const qkv_heatmap_options *o = h->options;
    qkv_heatmap_layout *at = &h->at;
    double cols = (double)h->cols, rows = (double)h->rows, n_k = (double)h->n_k,
           n_q = (double)h->n_q;
    const double line = 0.17;
    double tics =
        o->y_ticks ? widest(h->text.y_ticks, h->n_q) : qkv_heatmap_number_inches(h->y_range);
    at->gap = 0.14;
    double wide = fmax(1, n_q / (LONGEST * n_k)), high = fmax(1, n_k / (LONGEST * n_q));
    double cell = cell_wanted(h);
    at->cell_w = cell * wide;
    at->y_label = fmax(0.4, tics + 0.22) + line * h->text.y_label_lines / 2;
    at->left = at->y_label + (h->text.y_label_lines ? 0.08 : 0) + line * h->text.y_label_lines / 2;
    at->bottom =
        (o->x_ticks && qkv_heatmap_upright(h) ? widest(h->text.x_ticks, h->n_k) + 0.15 : 0.32) +
        (h->text.x_label_lines ? 0.07 : 0) + line * h->text.x_label_lines;
    at->right = 0.55 + bar_text_width(h);
    at->top = 0.16 + 0.2 * h->text.title_lines;

    double fixed_w = at->left + at->right + (cols - 1) * at->gap;
    double fixed_h = at->bottom + at->top + (rows - 1) * at->gap;
    at->width = o->figure.width > 0 ? o->figure.width : fixed_w + cols * n_k * wide * cell;
    at->height =
        o->figure.height > 0 ? o->figure.height : fmax(1.5, fixed_h + rows * n_q * high * cell);
    cell = fmin((at->width - fixed_w) / (cols * n_k * wide),
                (at->height - fixed_h) / (rows * n_q * high));
    at->cell_w = cell * wide;
    at->cell_h = cell * high;
    at->panel_w = n_k * at->cell_w;
    at->panel_h = n_q * at->cell_h;
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
qkv_status qkv_heatmap_lay_out(qkv_heatmaps *h, const char *caller)
{
    bool fits = fit_ticks(h);
    for (int lines = -1, needed = 0; fits && needed > lines;) {
        lines = needed;
        place(h);
        fits = fit_labels(h);
        needed = h->text.title_lines + h->text.x_label_lines + h->text.y_label_lines;
    }
    if (!fits) return qkv_fail(QKV_E_NOMEM, "%s: no memory for the labels", caller);
    if (!(h->at.cell_w > 0))
        return qkv_fail(QKV_E_ARG, "%s: %g x %g inches leave no room for the matrices", caller,
                        h->at.width, h->at.height);
    return QKV_OK;
}
