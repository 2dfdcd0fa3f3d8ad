/* heatmap.h - one figure of heatmaps: its measures, its texts, its scale. */
#ifndef QKV_SRC_HEATMAP_H
#define QKV_SRC_HEATMAP_H

#include <stdbool.h>
#include <stddef.h>

#include "qkv/plot.h"

enum { QKV_HEATMAP_TICS = 8 }; /* on a colour bar, at most */

/* A figure's measures, in inches. */
typedef struct qkv_heatmap_layout {
    double cell_w, cell_h;   /* of a cell */
    double panel_w, panel_h; /* of one matrix */
    double left, bottom;     /* of the lower left matrix */
    double y_label;          /* from its middle to the first matrix of a row */
    double right, top;       /* room beside the last column and above the first row */
    double gap;              /* between matrices */
    double grid_w, grid_h;   /* all matrices with their gaps */
    double width, height;    /* of the figure */
} qkv_heatmap_layout;

/* The options' texts, broken and cut to the room there is; owned. NULL: none. */
typedef struct qkv_heatmap_labels {
    char **x_label, **y_labels, **titles, **x_ticks, **y_ticks;
    int title_lines, x_label_lines, y_label_lines; /* room kept for them */
} qkv_heatmap_labels;

typedef struct qkv_heatmaps {
    const double *matrices;
    ptrdiff_t rows, cols, n_q, n_k;
    const qkv_heatmap_options *options;
    double x_range[2], y_range[2]; /* of the axes, from edge to edge */
    double lower, upper;           /* the colour scale */
    bool holes;                    /* some element is NaN */
    int n_tics;                    /* of the colour bar */
    double tic[QKV_HEATMAP_TICS];
    char tic_text[QKV_HEATMAP_TICS][32];
    qkv_heatmap_labels text;
    qkv_heatmap_layout at;
    bool image;                     /* not cell by cell, but as pixels of */
    ptrdiff_t samples_q, samples_k; /* what is drawn of one matrix */
} qkv_heatmaps;

/* Fits texts and measures to each other. QKV_E_NOMEM; QKV_E_ARG for a figure too small. */
qkv_status qkv_heatmap_lay_out(qkv_heatmaps *h, const char *caller);
void qkv_heatmap_release(qkv_heatmaps *h);

/* Between numbers that stand at least apart inches from each other, on an axis of n cells: 1, 2 or
 * 5 times a power of ten. */
double qkv_heatmap_tic_step(const double range[2], ptrdiff_t n, double cell, double apart);

/* Room for a number on that axis, in inches: rather too much than too little. */
double qkv_heatmap_number_inches(const double range[2]);

/* Do texts below the cells have to stand upright? */
bool qkv_heatmap_upright(const qkv_heatmaps *h);

/* As text, without gnuplot: its dumb terminal draws no images. QKV_E_IO. */
qkv_status qkv_heatmap_print(qkv_heatmaps *h, const char *caller);

#endif
