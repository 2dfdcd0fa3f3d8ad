/* figure.h - one figure in the making: a gnuplot script and the data it draws. */
#ifndef QKV_SRC_FIGURE_H
#define QKV_SRC_FIGURE_H

#include <locale.h>
#include <stdbool.h>
#include <stdio.h>

#include "qkv/plot.h"

typedef struct qkv_sheet {
    FILE *script; /* plots "@data index I" */
    FILE *data;   /* blocks of numbers; qkv_sheet_end_block after each */
    char *script_text, *data_text;
    size_t script_length, data_length;
    double width, height;    /* inches */
    bool vector;             /* SVG or PDF: cells are shapes, not pixels */
    double samples_per_inch; /* of an image in it */
    /* Each terminal has its own gap below tics (raise: characters to move labels up by), and its
     * own unit of linewidth and pointsize (in points). */
    double raise, key_spacing, points_per_line, points_per_mark;
    const qkv_figure *figure;
    const char *caller, *terminal;
    locale_t locale;
} qkv_sheet;

/* Starts a figure of that size; numbers print with a point until it is drawn or dropped. QKV_E_ARG
 * for a size or a path that cannot be, QKV_E_NOMEM. */
qkv_status qkv_sheet_open(qkv_sheet *sheet, const qkv_figure *figure, double width, double height,
                          const char *caller);

/* A number of the data; what is not finite becomes gnuplot's NaN. */
void qkv_sheet_number(qkv_sheet *sheet, double x);
void qkv_sheet_end_block(qkv_sheet *sheet);

/* The texts above and below one set of axes; NULL: none. */
void qkv_sheet_labels(qkv_sheet *sheet, const char *title, const char *x_label);

/* The text beside them, its middle at (x, y), in inches from the bottom left corner; NULL: none.
 * gnuplot's own would stand where it guesses that the numbers end, and off the page if that is too
 * far. */
void qkv_sheet_y_label(qkv_sheet *sheet, const char *text, double x, double y);

/* The axes' rectangle, in inches from the bottom left corner. */
void qkv_sheet_place(qkv_sheet *sheet, double left, double bottom, double right, double top);

/* Frees a figure that is not to be drawn. */
void qkv_sheet_drop(qkv_sheet *sheet);

/* Runs gnuplot, keeps the script if asked to, and frees everything, whatever happens. */
qkv_status qkv_sheet_draw(qkv_sheet *sheet);

#endif
