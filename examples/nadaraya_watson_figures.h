/* nadaraya_watson_figures.h - what nadaraya_watson learned from, what it learned, and its figures.
 */
#ifndef QKV_EXAMPLES_NADARAYA_WATSON_FIGURES_H
#define QKV_EXAMPLES_NADARAYA_WATSON_FIGURES_H

#include <stdbool.h>

#include "qkv/regression.h"
#include "src/csv.h"

enum { MAX_X = 16 };

typedef struct data_set {
    double *x, *y; /* [n, d], [n], sorted by the first column */
    ptrdiff_t n, d;
    bool toy;
    const char *x_name[MAX_X];
    const char *y_name;
    qkv_table table; /* has the names; zeroed for the toy data */
} data_set;

/* What the fit went through: [n] losses and bandwidths of every column, step 0 first. */
typedef struct trace {
    double *step, *loss, *bandwidth[MAX_X];
    size_t n;
} trace;

typedef struct learned {
    data_set data;
    qkv_regression r; /* of data */
    trace way;
    double start[MAX_X], h[MAX_X];
    double *grid; /* [n_grid]: where the curve of one column is drawn */
    ptrdiff_t n_grid;
} learned;

/* The chapter's function, y = 2 sin x + x. */
double toy_function(double x);

/* The regression at the rows of q [n, d], to be freed; exits on an error, as check does. */
double *predict(const qkv_regression *r, const double *h, const double *q, ptrdiff_t n);

/* DIRECTORY/NAME.FORMAT for fit, weights, loss and, of one column, kernels; exits on an error. */
void draw_figures(const learned *l, const char *directory, const char *format);

#endif
