/* regression.h - Nadaraya-Watson kernel regression: attention with data for keys and values.
 *
 *     m(q) = sum_j K(u_j) y_j / sum_j K(u_j)
 *     u_j  = || (q - x_j) / h ||                      divided column by column
 *
 * (Nadaraya 1964, Watson 1964; chapter "Queries, Keys, and Values" of Dive into Deep Learning). The
 * only thing to learn is the bandwidth h, by leave-one-out cross-validation:
 *
 *     CV(h) = mean_i || y_i - m_-i(x_i) ||^2          m_-i: the regression without row i
 *
 * In f64 throughout. Every function here is a few calls of attention.h; each allocates memory
 * linear in n + n_q and frees it on return (QKV_E_NOMEM), keeps no state and may run in any thread.
 * x, y and q must be finite: a row with a NaN spoils every prediction whose kernel reaches it, so
 * drop it first. */
#ifndef QKV_REGRESSION_H
#define QKV_REGRESSION_H

#include <stdbool.h>
#include <stddef.h>

#include "attention.h"
#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* K(u). All but the Gaussian have the support u <= 1, or u < 1 where K(1) = 0. */
typedef enum qkv_regression_kernel {
    QKV_REGRESSION_GAUSSIAN = 0, /* exp(-u^2 / 2) */
    QKV_REGRESSION_BOXCAR,       /* 1 if u <= 1 */
    QKV_REGRESSION_TRIANGULAR,   /* 1 - u; the chapter calls it Epanechikov */
    QKV_REGRESSION_EPANECHNIKOV, /* 1 - u^2 */
    QKV_REGRESSION_CONSTANT      /* 1: the mean of y, whatever h */
} qkv_regression_kernel;

/* The regression: data and choices. Packed arrays in row-major order, borrowed, never written. */
typedef struct qkv_regression {
    const double *x;      /* [n, d_x] */
    const double *y;      /* [n, d_y] */
    ptrdiff_t n;          /* rows; at least 1, and 2 where rows are left out */
    ptrdiff_t d_x, d_y;   /* columns; 0 means 1 */
    ptrdiff_t bandwidths; /* 0 or 1: one h for all columns of x; d_x: one for each */
    qkv_regression_kernel kernel;
    qkv_empty empty; /* what a prediction with no row in the support of K is: attention.h */
} qkv_regression;

/* ---- Prediction ------------------------------------------------------------------------------
 *
 * bandwidth: [bandwidths], in units of x, finite and > 0. Errors of all functions:
 *
 *     QKV_E_ARG       a NULL, an unknown kernel, a bandwidth that is not positive
 *     QKV_E_SHAPE     too few rows, a negative size, bandwidths other than 0, 1 and d_x
 *     QKV_E_DOMAIN    an empty support under QKV_EMPTY_ERROR
 *     QKV_E_OVERFLOW, QKV_E_NOMEM
 */

/* mean [n_q, d_y] = m(q) for the rows of q [n_q, d_x], overwritten. weights [n_q, n], overwritten
 * unless NULL: the attention weights K(u_j) / sum K. */
QKV_API qkv_status qkv_regression_predict(const qkv_regression *r, const double *bandwidth,
                                          const double *q, ptrdiff_t n_q, double *mean,
                                          double *weights);

/* mean [n, d_y]: row i is m_-i(x_i), overwritten. */
QKV_API qkv_status qkv_regression_leave_one_out(const qkv_regression *r, const double *bandwidth,
                                                double *mean);

/* *cv = CV(h), the mean over the rows where m_-i is defined; NaN if none is. *undefined = how many
 * are not, which only compact kernels under QKV_EMPTY_NAN have; it may be NULL. A bandwidth that
 * leaves rows out compares with no other: judge it by undefined first. */
QKV_API qkv_status qkv_regression_cv(const qkv_regression *r, const double *bandwidth, double *cv,
                                     ptrdiff_t *undefined);

/* ---- Learning the bandwidth ------------------------------------------------------------------ */

/* The same, and gradient [bandwidths] = d CV / d log h, overwritten. For the boxcar, whose CV is a
 * step function, and the constant kernel the gradient is exactly 0. */
QKV_API qkv_status qkv_regression_cv_gradient(const qkv_regression *r, const double *bandwidth,
                                              double *cv, ptrdiff_t *undefined, double *gradient);

/* The normal-reference bandwidth, overwritten, [bandwidths]:
 *
 *     h_c = a A_c (4 / (d_x + 2))^(1 / (d_x + 4)) n^(-1 / (d_x + 4))
 *     A_c = min(standard deviation, interquartile range / 1.349) of column c
 *
 * (Silverman 1986, section 3.4.2 and eq. 4.14); a = 1 for the Gaussian and otherwise the ratio of
 * canonical bandwidths, so that the kernels smooth alike (Marron & Nolan 1988). One bandwidth for
 * several columns is the geometric mean of theirs. A column without spread counts as A_c = 1. */
QKV_API qkv_status qkv_regression_silverman(const qkv_regression *r, double *bandwidth);

typedef enum qkv_regression_optimizer {
    QKV_REGRESSION_ADAM = 0,
    QKV_REGRESSION_GRADIENT_DESCENT
} qkv_regression_optimizer;

/* The state before a step. The arrays are [bandwidths], valid during the call. */
typedef struct qkv_regression_step {
    ptrdiff_t step; /* from 0 */
    double loss;    /* CV(bandwidth) */
    const double *bandwidth;
    const double *gradient; /* d loss / d log h */
} qkv_regression_step;

typedef struct qkv_regression_fit_options {
    const double *start; /* [bandwidths]; NULL: qkv_regression_silverman */
    qkv_regression_optimizer optimizer;
    double rate;      /* 0: 0.1 for Adam, 1 / (loss at the start) for gradient descent */
    ptrdiff_t steps;  /* at most so many; 0: 500 */
    double tolerance; /* converged at max |gradient| <= tolerance loss, or a thousandth of the loss
                         at the start if that is more (where the loss goes to 0). 0: 1e-6; < 0:
                         never */
    /* Called before every step and once after the last; false ends the fit there. May be NULL. */
    bool (*observe)(void *context, const qkv_regression_step *step);
    void *context;
} qkv_regression_fit_options;

typedef struct qkv_regression_fit_report {
    double loss_before, loss_after; /* CV at the start and at the bandwidth returned */
    double gradient;                /* the largest |d loss / d log h_c| there */
    ptrdiff_t steps;                /* taken */
    bool converged;
} qkv_regression_fit_report;

/* Minimises CV over log h by gradient steps. bandwidth, [bandwidths], is overwritten by the one
 * reached, and unchanged on failure.
 *
 * Every step lowers the loss: one that would not is taken back, and the next starts without
 * momentum and at half the rate, which grows again by a fifth a step. The fit has converged where
 * the gradient is small beside the loss; it also ends after the last step allowed, or where
 * rounding lets no step lower the loss. CV may have several minima: this finds one downhill from
 * the start. Only bandwidths that define every leave-one-out row are admitted: a start that does
 * not is doubled until it does, a step that would leave them is taken back.
 *
 * options NULL: all zero. report is overwritten; it may be NULL. QKV_E_ARG also for a bad option,
 * and for the boxcar and the constant kernel, which have no gradient to follow; QKV_E_DOMAIN also
 * if the loss is not finite. */
QKV_API qkv_status qkv_regression_fit(const qkv_regression *r,
                                      const qkv_regression_fit_options *options, double *bandwidth,
                                      qkv_regression_fit_report *report);

#ifdef __cplusplus
}
#endif
#endif
