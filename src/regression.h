/* regression.h - a regression posed as an attention problem, for src/ and grad/ alike. */
#ifndef QKV_SRC_REGRESSION_H
#define QKV_SRC_REGRESSION_H

#include "qkv/regression.h"

/* Queries q [n_q, d_x] (NULL: the rows of x themselves, each without itself), keys x, values y. */
typedef struct qkv_regression_problem {
    qkv_attention a;
    qkv_operands_f64 in;
} qkv_regression_problem;

/* Checks r, bandwidth and n_q first; function is the public name for the message. */
qkv_status qkv_regression_pose(qkv_regression_problem *p, const char *function,
                               const qkv_regression *r, const double *bandwidth, const double *q,
                               ptrdiff_t n_q);

/* Checks r alone: what can be said before there is a bandwidth. */
qkv_status qkv_regression_check(const char *function, const qkv_regression *r);

static inline ptrdiff_t qkv_one_if_zero(ptrdiff_t n)
{
    return n == 0 ? 1 : n;
}

/* CV over the rows of mean [n, d_y] that are not NaN; undefined counts the others. */
double qkv_regression_cv_of(const qkv_regression *r, const double *mean, ptrdiff_t *undefined);

/* *x = rows * columns doubles, to be freed; QKV_E_OVERFLOW or QKV_E_NOMEM in function's name. */
qkv_status qkv_regression_allocate(const char *function, double **x, ptrdiff_t rows,
                                   ptrdiff_t columns);

/* attention forward on p with a workspace of its own. */
qkv_status qkv_regression_forward(const char *function, const qkv_regression_problem *p,
                                  const qkv_results_f64 *out);

#endif
