/* regression.h - what the functions of qkv/regression.h share. */
#ifndef QKV_SRC_REGRESSION_H
#define QKV_SRC_REGRESSION_H

#include "qkv/regression.h"

/* Checks r alone, but for its numbers; function is the public name for the message. */
qkv_status qkv_regression_check(const char *function, const qkv_regression *r);

static inline ptrdiff_t qkv_one_if_zero(ptrdiff_t n)
{
    return n == 0 ? 1 : n;
}

/* Has the kernel a support, so that criteria have corners where rows come into reach? */
static inline bool qkv_is_compact(qkv_regression_kernel kernel)
{
    return kernel >= QKV_REGRESSION_BOXCAR && kernel <= QKV_REGRESSION_COSINE;
}

/* *x = rows * columns doubles, to be freed; QKV_E_OVERFLOW or QKV_E_NOMEM in function's name. */
qkv_status qkv_regression_allocate(const char *function, double **x, ptrdiff_t rows,
                                   ptrdiff_t columns);

#endif
