/* nadaraya_watson.h - what the parts of nadaraya_watson share: its options, its data and model, how
 * the bandwidth was found, and what is predicted. */
#ifndef QKV_EXAMPLES_NADARAYA_WATSON_H
#define QKV_EXAMPLES_NADARAYA_WATSON_H

#include <stdbool.h>

#include "common.h"
#include "qkv/plot.h"
#include "qkv/regression.h"

enum { MAX_COLUMNS = 64, KERNELS = QKV_REGRESSION_CONSTANT + 1, MAX_MINIMA = 8 };

/* ---- Options: nadaraya_watson_options.c ------------------------------------------------------ */

typedef enum bandwidth_rule { AUTO = 0, SILVERMAN, NUMBERS } bandwidth_rule;

typedef struct settings {
    const char *data, *at, *predict, *report, *weights, *plot, *format, *save, *load; /* or NULL */
    const char *x[MAX_COLUMNS], *y[MAX_COLUMNS], *case_weight;
    long n_x, n_y; /* 0: the default */
    bool classify, every_kernel, product, open_edge, converts, sets_empty;
    qkv_regression_kernel kernel;
    qkv_regression_convention convention; /* of h, if converts */
    bandwidth_rule rule;
    double h[MAX_COLUMNS];
    long n_h;
    qkv_regression_criterion criterion;
    qkv_regression_optimizer optimizer;
    qkv_empty empty;
    long degree, grid, samples, seed,
        rows; /* grid, samples: 0 is none; rows: 0 is all, -1 the default */
    double level;
} settings;

settings read_settings(int argc, char **argv);
const char *criterion_name(qkv_regression_criterion criterion);

/* ---- Data and model: nadaraya_watson_data.c -------------------------------------------------- */

/* Rows to be asked, with NaN where a number is missing. */
typedef struct query_set {
    double *x; /* [n, d_x] */
    ptrdiff_t n;
} query_set;

typedef struct session {
    qkv_regression_model
        model;          /* loaded, or with the data; its bandwidth may be still to be found */
    const char *source; /* what the data come from, as a person reads it */
    char *label; /* the name of the column of classes, owned; NULL: unknown, or there are none */
    bool toy;
    ptrdiff_t dropped;                          /* rows of the data with something missing */
    query_set rows;                             /* all rows of the data, missing cells and all */
    double low[MAX_COLUMNS], high[MAX_COLUMNS]; /* the range of each column of x */
} session;

/* y = 2 sin x + x, the chapter's function. */
double toy_function(double x);

/* Data (or the model) as the options say; exits with a message where they cannot be had. */
session open_session(const settings *o);
void close_session(session *s);

/* What to predict at: --at, --grid, or else the rows of the data. */
query_set find_queries(const settings *o, const session *s);
/* n numbers, at least 2, from low to high. */
void fill_steps(double *x, ptrdiff_t n, double low, double high);

/* The regression for its own rows: the policy "error" is about queries. */
qkv_regression for_rows(const qkv_regression *r);

ptrdiff_t columns_x(const session *s);
ptrdiff_t columns_y(const session *s);

/* ---- The bandwidth: nadaraya_watson_fit.c ---------------------------------------------------- */

/* One kernel's bandwidth, and what it is worth. */
typedef struct trial {
    bool found; /* false: no bandwidth is admissible, message says why */
    char message[200];
    double objective;
    ptrdiff_t undefined;
    double bandwidth[MAX_COLUMNS];
    qkv_regression_fit_report report; /* zero unless searched for */
    double minima[MAX_MINIMA * (1 + MAX_COLUMNS)];
} trial;

/* Seconds since some moment. */
double now(void);

typedef struct search {
    bool every_kernel; /* trials of all, or just of the model's */
    trial trials[KERNELS];
    double seconds;
} search;

/* Finds the bandwidth, and with --kernel all the kernel, of the model. */
void find_bandwidth(const settings *o, session *s, search *found);

/* ---- Predictions: nadaraya_watson_predict.c -------------------------------------------------- */

typedef struct predictions {
    query_set queries;     /* not owned */
    double *mean;          /* [n, d_y] */
    double *se;            /* [n, d_y] */
    double *lower, *upper; /* [n, d_y] */
    double *n_effective;   /* [n] */
    double *gradient;      /* [n, d_y, d_x] */
    double *gradient_se;   /* [n, d_y, d_x] */
    bool *beyond;          /* [n]: on too few rows, or out of the range of the data */
    ptrdiff_t empty, extrapolating, missing; /* of the queries */
} predictions;

predictions predict_at(const settings *o, const session *s, query_set queries);
void free_predictions(predictions *p);

/* The z with P(|Z| <= z) = level. */
double normal_quantile(double level);
/* The most probable class, NAN for none. */
double best_class(const double *probabilities, ptrdiff_t n);
/* [n, d] as d columns one after the other, to be freed. */
double *transpose(const double *x, ptrdiff_t n, ptrdiff_t d);

void save_predictions(const session *s, const predictions *p, const char *path);
/* Exits with a message if the weights would be too large a file. */
void refuse_many_weights(const session *s, query_set queries);
void save_weights(const session *s, query_set queries, const char *path);

/* ---- What is told: nadaraya_watson_report.c -------------------------------------------------- */

typedef struct account {
    qkv_regression_statistics statistics;
    bool measured;                /* statistics are there */
    double accuracy;              /* of classes, leave-one-out */
    const search *found;          /* NULL: the model was loaded */
    const predictions *predicted; /* NULL: nothing was asked */
    double seconds;
} account;

/* Fills statistics, and the model's sigma2 unless it was loaded. */
void measure(session *s, account *a);

void print_account(const settings *o, const session *s, const account *a);

/* What a person should know. */
typedef struct warnings {
    char *text[8 + 3 * MAX_COLUMNS]; /* owned */
    int n;
} warnings;

warnings list_warnings(const session *s, const account *a);
void free_warnings(warnings *w);
/* The same, on stderr. */
void warn(const session *s, const account *a);

/* nadaraya_watson_json.c */
void save_report(const settings *o, const session *s, const account *a);

/* ---- Figures --------------------------------------------------------------------------------- */

enum { MAX_PANELS = 12 }; /* columns of y, or of x, that have a panel */

typedef struct sheet {
    const char *directory, *format;
} sheet;

/* nadaraya_watson_figures.c: all of them. */
void draw_figures(const settings *o, const session *s, const search *found);
/* DIRECTORY/NAME.FORMAT, to be freed. */
char *sheet_path(const sheet *to, const char *name);
/* n columns, or as many as have a panel. */
int panels_of(ptrdiff_t columns);
void draw_panels(const sheet *to, const char *name, const qkv_panel *panels, int rows, int cols,
                 double width, double height);
/* n panels in as many columns as make them look like a page; the only one is so wide. */
void draw_page(const sheet *to, const char *name, const qkv_panel *panels, int n, double width);

/* nadaraya_watson_surface.c: rows predicted from the others, against what was observed; m over two
 * columns, blank where it would be extrapolation. */
void draw_predicted(const sheet *to, const session *s);
void draw_surface(const settings *o, const sheet *to, const session *s);

/* nadaraya_watson_criterion.c: a curve for each bandwidth, the chosen one marked. */
void draw_criterion(const settings *o, const sheet *to, const session *s, const trial *t);

/* nadaraya_watson_weights.c: n heatmaps beside each other, of a regression with its bandwidths,
 * [d_x], and title each. Queries along the only column, or rows of the data, over keys in the order
 * of the first column. */
void draw_weights(const sheet *to, const char *name, const session *s, const qkv_regression *each,
                  const double *bandwidths, const char *const *titles, int n);

/* nadaraya_watson_chapter.c: four kernels and four widths, curves and weights. */
void draw_chapter(const sheet *to, const session *s);

#endif
