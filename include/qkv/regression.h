/* regression.h - Nadaraya-Watson kernel regression: attention with data for keys and values.
 *
 *     m(q) = sum_j w_j y_j / sum_j w_j,    w_j = c_j K(u_j)
 *     u_j  = || (q - x_j) / h ||           divided column by column
 *
 * (Nadaraya 1964, Watson 1964; chapter "Queries, Keys, and Values" of Dive into Deep Learning),
 * with everything one wants of it: its gradient by q, standard errors, and bandwidths h chosen by
 * exact gradients of a criterion. All is linear in memory, and in f64.
 *
 *     qkv_regression r = {.x = x, .y = y, .n = n};
 *     qkv_regression_fit(&r, NULL, &h, NULL);                    // learns the bandwidth
 *     qkv_regression_measure(&r, &h, &statistics, &sigma2);
 *     qkv_regression_results out = {.mean = mean, .norm = norm};
 *     qkv_regression_predict(&r, &h, q, n_q, &out);              // mean[i] +- sqrt(sigma2) norm[i]
 *
 * The Gaussian, Laplace and Cauchy weights are relative to that of the nearest row, whose distance
 * is never squared on its own: bandwidths from 1e-160 to 1e160, queries far from all data and rows
 * with a large common offset give the true limit. Rows whose weights together could not change the
 * last bit of the nearest one's (with the largest |y|) are not visited: in one column a narrow
 * kernel costs what lies within its reach.
 *
 * x is scaled within, y is not: beyond about 1e150 predictions are what they should be, while
 * criteria, RSS and sigma2, which are squares of y, are infinite (below 1e-150, 0).
 *
 * Rows with a NaN in x, y or weight are missing: they are left out, and counted. An infinity is
 * QKV_E_ARG, which names the row. A query with a NaN has results of NaN. */
#ifndef QKV_REGRESSION_H
#define QKV_REGRESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "attention.h"
#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* K(u). Those from the boxcar to the cosine have the support u <= 1, or u < 1 where K(1) = 0. */
typedef enum qkv_regression_kernel {
    QKV_REGRESSION_GAUSSIAN = 0, /* exp(-u^2 / 2) */
    QKV_REGRESSION_BOXCAR,       /* 1 if u <= 1 (u < 1 with open_edge); u within 2^-50 (1 + |q| / h)
                                    of 1, a few roundings, counts as 1: 0.4 is 0.1 from 0.3 */
    QKV_REGRESSION_TRIANGULAR,   /* 1 - u; the chapter calls it Epanechikov */
    QKV_REGRESSION_EPANECHNIKOV, /* 1 - u^2 */
    QKV_REGRESSION_BIWEIGHT,     /* (1 - u^2)^2 */
    QKV_REGRESSION_TRIWEIGHT,    /* (1 - u^2)^3 */
    QKV_REGRESSION_TRICUBE,      /* (1 - u^3)^3 */
    QKV_REGRESSION_COSINE,       /* cos(pi u / 2) */
    QKV_REGRESSION_LAPLACE,      /* exp(-u) */
    QKV_REGRESSION_CAUCHY,       /* 1 / (1 + u^2) */
    QKV_REGRESSION_CONSTANT      /* 1: the mean of y, whatever h */
} qkv_regression_kernel;

/* "gaussian", "boxcar", ..; NULL for what is no kernel. */
QKV_API const char *qkv_regression_kernel_name(qkv_regression_kernel kernel);

/* The regression: data and choices. Packed arrays in row-major order, borrowed, never written. */
typedef struct qkv_regression {
    const double *x; /* [n, d_x] */
    const double *y; /* [n, d_y] */
    const double
        *weight;        /* [n], c_j >= 0; NULL: 1 each. Only their ratios count: they are scaled to
                             mean 1 (precisions, not repetitions: n is the number of rows), and what
                             is below 2^-1000 then, but not 0, is that. In all sums over rows, too;
                             leave-one-out leaves out the whole row */
    ptrdiff_t n;        /* rows; at least 1, and 2 where rows are left out */
    ptrdiff_t d_x, d_y; /* columns; 0 means 1 */
    ptrdiff_t bandwidths; /* 0 or 1: one h for all columns of x; d_x: one for each */
    qkv_regression_kernel kernel;
    bool product;    /* the product of K(|q_c - x_c| / h_c) over columns instead of K(u) */
    bool open_edge;  /* of the boxcar */
    int degree;      /* 0: the weighted mean; 1: the weighted least-squares line at q, whose slope
                        takes no part in directions in which the rows in reach do not differ. One
                        column has the limit of that far from all data and for h near 0, the line
                        through the two nearest x; in several, rows whose weights are less than
                        e^-744 of the nearest one's are out of reach of a Gaussian or Laplace */
    qkv_empty empty; /* what a prediction with no row in the support of K is: attention.h */
    ptrdiff_t rows;  /* criteria and statistics come from the fits of at most so many rows, evenly
                        chosen in the order of the first column, which stand for the others; 0: all.
                        Each of those fits is of all data */
} qkv_regression;

/* ---- Prediction ------------------------------------------------------------------------------
 *
 * bandwidth: [bandwidths], in units of x, at least DBL_MIN and finite. Errors of all functions:
 *
 *     QKV_E_ARG       a NULL, an unknown kernel, a bandwidth or weight that cannot be, an infinity
 *     QKV_E_SHAPE     too few rows, a negative size, bandwidths other than 0, 1 and d_x, a degree
 *     QKV_E_DOMAIN    an empty support under QKV_EMPTY_ERROR
 *     QKV_E_OVERFLOW, QKV_E_NOMEM
 */

/* What is wanted of n_q queries: each is overwritten unless NULL. */
typedef struct qkv_regression_results {
    double *mean;     /* [n_q, d_y] = m(q) */
    double *gradient; /* [n_q, d_y, d_x] = d m / d q; for degree 1 the slope of the line */
    double *weights;  /* [n_q, n]: m(q) = sum_j weights_j y_j; they add to 1 */
    double *norm;     /* [n_q] = ||weights / sqrt(c)||, c of mean 1 (all 1 without case weights):
                              the standard error of m(q) is sigma norm */
    double *gradient_norm; /* [n_q, d_x]: that of the gradient by q_c is sigma gradient_norm */
    double
        *n_effective; /* [n_q] = (sum_j w_j)^2 / sum_j (w_j^2 / c_j): how many rows m(q) rests on,
                              one of weight 2 being two */
    ptrdiff_t empty;  /* queries with no row in the support; their results are r->empty's */
} qkv_regression_results;

/* q [n_q, d_x]; NULL: the rows of x, each left out of its own prediction (n_q is then ignored: n).
 * A row that is missing has results of NaN. */
QKV_API qkv_status qkv_regression_predict(const qkv_regression *r, const double *bandwidth,
                                          const double *q, ptrdiff_t n_q,
                                          qkv_regression_results *out);

/* ---- How good a bandwidth is ----------------------------------------------------------------- */

/* S: the weights of the rows themselves, [n, n]; m = S y. RSS = sum_i c_i ||y_i - m_i||^2, with the
 * case weights c scaled to mean 1, over all columns of y. */
typedef enum qkv_regression_criterion {
    QKV_REGRESSION_LOO = 0, /* mean_i c_i ||y_i - m_-i(x_i)||^2, m_-i without row i */
    QKV_REGRESSION_AICC,    /* log(RSS / (n d_y)) + (1 + tr S / n) / (1 - (tr S + 2) / n); infinite
                               if n - tr S <= 2, or interpolation would win (Hurvich, Simonoff &
                               Tsai 1998) */
    QKV_REGRESSION_GCV      /* n RSS / (n - tr S)^2; infinite if tr S = n (Craven & Wahba 1979) */
} qkv_regression_criterion;

/* *value = the criterion at bandwidth, over the rows where it is defined (NaN if none is), and
 * gradient [bandwidths], unless NULL, = d value / d log h, exact. *undefined = the rows with no
 * other row in the support, which only compact kernels under QKV_EMPTY_NAN have; it may be NULL. A
 * bandwidth that leaves rows out compares with no other: judge it by undefined first. For the
 * boxcar, whose criterion is a step function, and the constant kernel the gradient is exactly 0. */
QKV_API qkv_status qkv_regression_objective(const qkv_regression *r,
                                            qkv_regression_criterion criterion,
                                            const double *bandwidth, double *value,
                                            ptrdiff_t *undefined, double *gradient);

typedef struct qkv_regression_statistics {
    ptrdiff_t n, missing; /* rows used, rows left out */
    ptrdiff_t undefined;  /* rows with no other in reach: out of cv */
    double cv, aicc, gcv; /* the three criteria */
    double rss;           /* over all columns of y */
    double trace;         /* tr S, the degrees of freedom of m */
    double trace_squared; /* tr S'S */
    double sigma2;        /* RSS / (n - 2 tr S + tr S'S), the mean over columns (Cleveland 1979);
                                NaN where that is not positive */
    double r_squared;     /* 1 - RSS / the sum of squares about the mean */
    double r_squared_loo; /* the same with the leave-one-out residuals */
} qkv_regression_statistics;

/* sigma2 [d_y], unless NULL: for each column of y. */
QKV_API qkv_status qkv_regression_measure(const qkv_regression *r, const double *bandwidth,
                                          qkv_regression_statistics *statistics, double *sigma2);

/* ---- Learning the bandwidth ------------------------------------------------------------------ */

/* The normal-reference bandwidth, overwritten, [bandwidths]:
 *
 *     h_c = a A_c (4 / (d_x + 2))^(1 / (d_x + 4)) n^(-1 / (d_x + 4))
 *     A_c = min(standard deviation, interquartile range / 1.349) of column c
 *
 * (Silverman 1986, section 3.4.2 and eq. 4.14); a = 1 for the Gaussian and otherwise the ratio of
 * canonical bandwidths, so that the kernels smooth alike (Marron & Nolan 1988); the Cauchy kernel,
 * which has none, goes by its half width. One bandwidth for several columns is the geometric mean
 * of theirs. A column without spread counts as A_c = 1. */
QKV_API qkv_status qkv_regression_silverman(const qkv_regression *r, double *bandwidth);

typedef enum qkv_regression_optimizer {
    QKV_REGRESSION_LBFGS = 0, /* Nocedal 1980, by the library liblbfgs */
    QKV_REGRESSION_ADAM,      /* optim.h */
    QKV_REGRESSION_GRADIENT_DESCENT
} qkv_regression_optimizer;

/* The state before a step. The arrays are [bandwidths], valid during the call. */
typedef struct qkv_regression_step {
    ptrdiff_t step; /* from 0, in the descent from one start */
    int start; /* which start, from 0; -1: the search on the grid, where step of steps are done */
    ptrdiff_t steps; /* at most so many */
    double loss;     /* the criterion at bandwidth */
    const double *bandwidth;
    const double *gradient; /* d loss / d log h; NULL on the grid */
} qkv_regression_step;

typedef struct qkv_regression_fit_options {
    qkv_regression_criterion criterion;
    qkv_regression_optimizer optimizer;
    const double *start; /* [bandwidths]: the only start; NULL: a log-grid is searched for some */
    int starts;          /* at most so many local minima of the grid are descended from; 0: 3 */
    double rate;         /* of Adam (0: 0.1) and gradient descent (0: 1 / the loss at the start) */
    ptrdiff_t steps;     /* at most so many from a start; 0: 500 */
    double tolerance;    /* converged at max |gradient| <= tolerance loss, or a thousandth of the
                            loss at the start if that is more (where the loss goes to 0). 0: 1e-6;
                            < 0: never */
    /* Called before every step and once after the last; false ends the fit there. May be NULL. */
    bool (*observe)(void *context, const qkv_regression_step *step);
    void *context;
    double *minima; /* [max_minima, 1 + bandwidths], overwritten: the criterion and bandwidths
                             of the minima found, the best first; may be NULL */
    ptrdiff_t max_minima;
} qkv_regression_fit_options;

typedef struct qkv_regression_fit_report {
    double loss_before,
        loss_after;  /* the criterion at the (best) start and at the bandwidth returned */
    double gradient; /* the largest |d loss / d log h_c| there */
    ptrdiff_t steps; /* taken from that start */
    bool converged;
    int starts;             /* descended from */
    ptrdiff_t minima;       /* different ones that were found */
    ptrdiff_t evaluations;  /* of the criterion, in all */
    ptrdiff_t inadmissible; /* bandwidths of the grid at which the criterion is not defined */
    uint64_t smoothed_out;  /* bit c: h_c is so large that column c < 64 takes no part */
} qkv_regression_fit_report;

/* Minimises the criterion over log h. bandwidth, [bandwidths], is overwritten by the best minimum
 * found, and unchanged on failure.
 *
 * Without a start, a grid of bandwidths is searched (from the spacing of the rows to well beyond
 * their range, in steps of a factor of sqrt 2; for several, about the reference bandwidths), with
 * the fits of 1000 rows standing for all, and its local minima are descended from. Where the
 * criterion falls all the way to the largest h, h is left there: the column is smoothed out. The
 * constant kernel needs no descent, nor does the boxcar, whose criterion is a step function of h:
 * it is compared between the distances of rows, where it steps. If they are no more than 2^20 / n,
 * at least 128 and at most 4096, h is the best of all (of several bandwidths, of all multiples of
 * the best of the grid). Otherwise so many of them are tried from half to twice a start, then about
 * the best of those, until none is between.
 *
 * In a descent every step lowers the loss: one that would not is taken back, and the next starts
 * without momentum and at half the rate, which grows again by a fifth a step. It has converged
 * where the gradient is small beside the loss; it also ends after the last step allowed, or where
 * rounding lets no step lower the loss. Only bandwidths that define every row are admitted: a start
 * that does not is doubled until it does, a step that would leave them is taken back.
 *
 * options NULL: all zero. report is overwritten; it may be NULL. QKV_E_ARG also for a bad option,
 * QKV_E_DOMAIN also if the loss is finite nowhere. */
QKV_API qkv_status qkv_regression_fit(const qkv_regression *r,
                                      const qkv_regression_fit_options *options, double *bandwidth,
                                      qkv_regression_fit_report *report);

/* ---- Bands by resampling --------------------------------------------------------------------- */

typedef struct qkv_regression_bootstrap_options {
    ptrdiff_t samples; /* of n rows with replacement; 0: 1000 */
    uint64_t seed;
    double level; /* of the band; 0: 0.95 */
    /* Called after every sample with how many are done; false ends it (QKV_E_STATE). NULL: not. */
    bool (*observe)(void *context, ptrdiff_t done, ptrdiff_t samples);
    void *context;
} qkv_regression_bootstrap_options;

/* lower, upper [n_q, d_y], overwritten: the pointwise percentile band of m(q) over resampled rows
 * (Efron & Tibshirani 1993, chapter 13) at this bandwidth. Samples in which a query has no row in
 * reach do not count for it; NaN if all are so. Memory: samples n_q d_y numbers. */
QKV_API qkv_status qkv_regression_bootstrap(const qkv_regression *r, const double *bandwidth,
                                            const double *q, ptrdiff_t n_q,
                                            const qkv_regression_bootstrap_options *options,
                                            double *lower, double *upper);

/* ---- The bandwidths of other tools ----------------------------------------------------------- */

typedef enum qkv_regression_convention {
    QKV_REGRESSION_KSMOOTH,     /* R stats: box, h = b / 2; normal, quartiles at b / 4 */
    QKV_REGRESSION_NP,          /* R np: gaussian, h = b; epanechnikov, support sqrt(5) b */
    QKV_REGRESSION_STATSMODELS, /* gaussian, h = b */
    QKV_REGRESSION_LOCFIT       /* R locfit: support b; gaussian, h = b / 2.5 */
} qkv_regression_convention;

/* *h = the bandwidth here that smooths as b does there. np and statsmodels multiply over columns:
 * set product. QKV_E_ARG for a kernel the tool does not have. */
QKV_API qkv_status qkv_regression_from_convention(qkv_regression_convention convention,
                                                  qkv_regression_kernel kernel, double b,
                                                  double *h);

/* ---- The model as a file --------------------------------------------------------------------- */

/* A regression with its bandwidth and what else a prediction needs. */
typedef struct qkv_regression_model {
    qkv_regression r;
    double *bandwidth; /* [bandwidths] */
    double *sigma2;    /* [d_y], for standard errors; NULL: unknown */
    char **x_names;    /* [d_x]; NULL: none */
    char **y_names;    /* [d_y]; NULL: none */
    bool classes;      /* y is one-hot, its names those of classes */
} qkv_regression_model;

/* A text file of every number to the bit, with a version and a checksum (src/regression_file.c has
 * the format). It appears whole or not at all. QKV_E_ARG, QKV_E_IO, QKV_E_NOMEM. */
QKV_API qkv_status qkv_regression_save(const char *path, const qkv_regression_model *model);

/* Everything in *model, which is overwritten, is allocated; qkv_regression_model_free frees it. On
 * an error it is zeroed: QKV_E_FORMAT naming file and line, QKV_E_IO, QKV_E_NOMEM. */
QKV_API qkv_status qkv_regression_load(const char *path, qkv_regression_model *model);
QKV_API void qkv_regression_model_free(qkv_regression_model *model);

#ifdef __cplusplus
}
#endif
#endif
