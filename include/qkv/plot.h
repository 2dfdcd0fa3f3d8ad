/* plot.h - figures through gnuplot: heatmaps of attention weights, and small panels of curves.
 *
 * gnuplot is started without a shell and fed through a pipe; every label and title is plain text,
 * whatever it contains. Bytes that are not UTF-8 and control characters are shown as '?'; a newline
 * breaks the line. A text with no room is cut, and ends in an ellipsis. The environment variable
 * QKV_GNUPLOT names another gnuplot binary.
 *
 * The file appears whole or not at all. Errors of both functions:
 *
 *     QKV_E_ARG, QKV_E_SHAPE, QKV_E_OVERFLOW   for the arguments
 *     QKV_E_PROCESS                            gnuplot is missing or fails; with its own message
 *     QKV_E_IO, QKV_E_NOMEM */
#ifndef QKV_PLOT_H
#define QKV_PLOT_H

#include <stdbool.h>
#include <stdio.h>

#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where a figure goes and how large it is. */
typedef struct qkv_figure {
    const char *path;     /* FILE.svg, .png or .pdf; NULL: as text */
    FILE *text;           /* where text goes if path is NULL; NULL: stdout */
    double width, height; /* inches; 0: fitted to the content */
    bool keep_script;     /* also write path.gp and path.dat: gnuplot path.gp, called from anywhere,
                             draws the figure again beside them */
} qkv_figure;

/* Colour ramps of steadily falling (viridis: rising) lightness. */
typedef enum qkv_palette { QKV_REDS = 0, QKV_VIRIDIS, QKV_BLUES, QKV_GREYS } qkv_palette;

typedef struct qkv_heatmap_options {
    qkv_figure figure;
    const char *x_label, *y_label; /* "Keys", "Queries"; NULL: none */
    const char *const *y_labels;   /* one for each row of the figure, instead of y_label */
    const char *const *titles;     /* one for each column of the figure, broken into lines as wide
                                      as the column, 4 at most; NULL: none */
    const char *const *x_ticks;    /* one for each key, instead of numbers; NULL: numbers */
    const char *const *y_ticks;    /* one for each query */
    double x_range[2], y_range[2]; /* what the numbers along an axis count, from its first edge to
                                      its last, rising or falling; both 0: keys or queries,
                                      -0.5 to n - 0.5 */
    qkv_palette palette;
    double lower, upper; /* the colour scale; both 0: the least and greatest finite element, of a
                            constant matrix 0 and its element, of zeros 0 and 1. No further than
                            1e307 from 0: numbers this large are an error (QKV_E_DOMAIN) */
} qkv_heatmap_options;

/* The chapter's show_heatmaps. matrices: [rows, cols, queries, keys] = shape, packed, each size at
 * least 1. Each of the rows x cols panels is one matrix, query 0 at the top, cells square (unless
 * that made a matrix over 20 times as long as it is wide), all on one colour scale with one colour
 * bar. Panels share their axes: numbers and x_label stand below the bottom row only, those of y
 * beside the first column only. NaN is drawn in light grey, infinities as the ends of the scale.
 * options NULL: all zero.
 *
 * A figure of more than 4096 cells is an image: 144 samples an inch (PNG: 192), at most 2048 across
 * or down the figure, each the mean of the elements in its area, NaN left out. As text, a matrix
 * has at most 40 samples across or down. Axes and colour scale remain those of the elements: where
 * one large weight makes all others pale, lower and upper bring them out. */
QKV_API qkv_status qkv_show_heatmaps(const double *matrices, const ptrdiff_t shape[4],
                                     const qkv_heatmap_options *options);

typedef enum qkv_mark {
    QKV_LINE = 0, /* y over x */
    QKV_DASHES,   /* the same, dashed */
    QKV_POINTS,   /* discs at (x, y), of size or sizes */
    QKV_BAND,     /* the area between y and y2 */
    QKV_BARS      /* from 0 to y, centred on x, 0.7 wide */
} qkv_mark;

typedef struct qkv_series {
    qkv_mark mark;
    const char *label; /* in the legend; NULL: not there */
    size_t n;
    const double *x, *y;
    const double *y2;    /* QKV_BAND: the other edge */
    const double *sizes; /* QKV_POINTS: diameters in points (1/72 inch); NULL: all of size */
    double size;         /* line width or point diameter in points; 0: 1.5 and 4.5 */
    const char *colour;  /* "#rrggbb"; NULL: the next of a cycle fit for colour-blind readers */
} qkv_series;

/* One set of axes. A range of {0, 0} is fitted to the data. */
typedef struct qkv_panel {
    const char *title, *x_label, *y_label; /* NULL: none */
    double x_range[2], y_range[2];
    bool log_x, log_y;          /* values <= 0 are left out */
    bool equal_aspect;          /* one unit is as long in x as in y; widens a range to get there */
    const char *const *x_ticks; /* texts at x = 0, 1, .. instead of numbers; NULL: numbers */
    size_t n_x_ticks;
    const qkv_series *series; /* drawn in this order; points that are not finite are left out */
    size_t n_series;
} qkv_panel;

/* rows x cols panels, 1 to 20 each way, packed row by row, as one figure. figure NULL: all zero. A
 * panel with neither series nor texts is left blank. */
QKV_API qkv_status qkv_plot_panels(const qkv_panel *panels, int rows, int cols,
                                   const qkv_figure *figure);

#ifdef __cplusplus
}
#endif
#endif
