/* local.h - the regression at one query: the rows within reach, their weights, and the mean or line
 * that they make. */
#ifndef QKV_SRC_LOCAL_H
#define QKV_SRC_LOCAL_H

#include "qkv/regression.h"

enum { QKV_ROW_PAD = 8 }; /* numbers behind every array of rows, so that vectors may end there */

/* The rows of a regression that are complete, in ascending order of their first column, and its
 * bandwidths. Arrays of rows are `stride` numbers apart; what pads them is 0. */
typedef struct qkv_sample {
    const qkv_regression *r;
    ptrdiff_t n, missing, d, d_y, stride;
    ptrdiff_t every;  /* row, of so many, stands for the others in criteria and statistics */
    ptrdiff_t *row;   /* [n]: which row of r it is */
    ptrdiff_t *place; /* [r->n]: where a row of r is here; -1 if it is missing */
    double *x, *y; /* [d, n], [d_y, n]; column c of x times 2^-exponent[c], which is exact and keeps
                         squares of differences within double: h and q are so, too */
    int *exponent; /* [d] */
    double *scale; /* [d] 2^-exponent */
    double *c;     /* [n] case weights, of mean 1; padded with 1. NULL: all 1 */
    double spread; /* log(largest c / least c) */
    double *h;     /* [d] bandwidths */
    double *ratio; /* [d] (least / h)^2 */
    double least;  /* h */
} qkv_sample;

/* Checks r and takes its rows. To be freed, also after an error. */
qkv_status qkv_sample_take(const char *who, const qkv_regression *r, qkv_sample *s);
/* The same, of at least two complete rows: one may be left out. */
qkv_status qkv_sample_take_pair(const char *who, const qkv_regression *r, qkv_sample *s);
qkv_status qkv_sample_widen(const char *who, const double *bandwidth, qkv_sample *s);
void qkv_sample_free(qkv_sample *s);

/* The fit at q. w and t are relative to what the weight of row `near` is without its case weight:
 *
 *     d w_j / d q_c     = -t_j (q - x_j)_c ratio_c / least
 *     d w_j / d log h_c =  t_j (q - x_j)_c^2 ratio_c / least
 *
 * For the Gaussian t = w / least, which is not stored; with product kernels each column has a t. */
typedef struct qkv_local {
    const qkv_sample *s;
    const double *q;    /* [d] */
    ptrdiff_t self;     /* the row that is left out, -1: none */
    ptrdiff_t from, to; /* the rows within reach */
    ptrdiff_t near;     /* one of those closest to q, or not much farther */
    ptrdiff_t second;   /* the nearest row elsewhere, if the slope of a line hangs on it; or -1 */
    ptrdiff_t base;     /* the heaviest row, which a line counts x from */
    bool empty;         /* no row in the support, whatever the policy made of it */
    double *w, *t, *part;
    double sum, squares; /* of w, and of w^2 / c */
    /* Of a line: the mean of x and the pseudo-inverse of sum w (x - mean)(x - mean)', both of x
     * relative to base's; and what makes the weights of the line: they are w_j times
     * 1 / sum + lean'(x_j - mean). All zero for degree 0. */
    double *mean, *inverse, *lean;
    double *line, *slope, *room; /* [5 + d, d], [3, d], [d] */
} qkv_local;

/* x of row j in column c, relative to base's: exact for close rows, whatever their offset. */
static inline double qkv_local_offset(const qkv_local *l, ptrdiff_t j, ptrdiff_t c)
{
    const double *x = l->s->x + c * l->s->stride;
    return x[j] - x[l->base];
}

/* The weight of row j in the prediction, over w_j. */
static inline double qkv_local_lambda(const qkv_local *l, ptrdiff_t j)
{
    double lambda = 1 / l->sum;
    for (ptrdiff_t c = 0; c < l->s->d && l->s->r->degree; c++)
        lambda += l->lean[c] * (qkv_local_offset(l, j, c) - l->mean[c]);
    return lambda;
}

typedef struct qkv_local_kernels {
    /* w and their sums, t too if slopes; for degree 1 the line. q and self are set. */
    void (*weigh)(qkv_local *l, bool slopes);
    /* The prediction from one column y of the sample, and the slope of its line (0 for degree 0).
     * sum w (y - m) = 0, so that m alone is a mean. */
    double (*predict)(const qkv_local *l, const double *y, double *slope);
    /* The derivatives of that prediction by log h, and, for degree 0, by q (NULL: not wanted).
     * y NULL: of a column of zeros, but for the row at q itself, which has m and slope. */
    void (*differentiate)(const qkv_local *l, const double *y, double m, const double *slope,
                          double *by_q, double *by_log_h);
    /* ||weights||^2, and that of the gradient's ([d]; NULL: not wanted). */
    double (*norms)(const qkv_local *l, double *gradient);
} qkv_local_kernels;

const qkv_local_kernels *qkv_local_kernels_of(const char *who);

#ifdef QKV_ISA /* compiled once an instruction set */
void IN(qkv_local_weigh)(qkv_local *l, bool slopes);
double IN(qkv_local_predict)(const qkv_local *l, const double *y, double *slope);
#endif

/* A walk over queries, in parallel, each with its fit. */
typedef struct qkv_sweep {
    const qkv_sample *s;
    const double *q; /* [n, d]; NULL: the rows of the sample, and n is set */
    ptrdiff_t n;
    ptrdiff_t every;        /* of those rows only one in so many; 0: 1 */
    bool leave_out, slopes; /* each row from its own fit; whether t is wanted */
    /* Called once for each query or row i, by several threads. A query with a NaN sees no row and
     * has a sum of NaN. */
    void (*visit)(const struct qkv_sweep *sweep, const qkv_local *l, ptrdiff_t i);
    void *job;
    const qkv_local_kernels *kernels;
    ptrdiff_t taken;
} qkv_sweep;

qkv_status qkv_sample_sweep(const char *who, qkv_sweep *sweep);

/* qkv_regression_objective at the bandwidth that the sample has; from one row in `every`, whose
 * fits stand for the others': close to the criterion at a fraction of its price. */
qkv_status qkv_sample_objective(const char *who, const qkv_sample *s,
                                qkv_regression_criterion criterion, ptrdiff_t every, double *value,
                                ptrdiff_t *undefined, double *gradient);

#endif
