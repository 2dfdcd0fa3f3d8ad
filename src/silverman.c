#include <math.h>
#include <stdlib.h>

#include "fail.h"
#include "regression.h"

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The quantile at p of sorted x, interpolated between order statistics (Hyndman & Fan's type 7). */
static double quantile(const double *x, ptrdiff_t n, double p)
{
    double at = p * (double)(n - 1);
    ptrdiff_t i = (ptrdiff_t)at;
    if (i + 1 >= n) return x[n - 1];
    return x[i] + (at - (double)i) * (x[i + 1] - x[i]);
}

/* min(standard deviation, interquartile range / 1.349), each only if it is not 0; 1.349 is that
 * range of a standard normal. 1 without any spread. Sorts x. */
static double spread(double *x, ptrdiff_t n)
{
    qsort(x, (size_t)n, sizeof *x, compare_doubles);
    double mean = 0, squares = 0, width = x[n - 1] - x[0];
    if (width == 0) return 1;
    for (ptrdiff_t i = 0; i < n; i++) mean += (x[i] - mean) / (double)(i + 1);
    for (ptrdiff_t i = 0; i < n; i++) {
        double part = (x[i] - mean) / width; /* the squares of tiny x would vanish */
        squares += part * part;
    }
    double deviation = width * sqrt(squares / (double)(n - 1));
    double range = (quantile(x, n, 0.75) - quantile(x, n, 0.25)) / 1.349;
    return range > 0 && range < deviation ? range : deviation;
}

/* (R(K) / mu_2(K)^2)^(1/5) for K scaled to integrate to 1 (Marron & Nolan 1988, table 1). The
 * constant kernel has none; any bandwidth serves it. */
static double canonical_bandwidth(qkv_regression_kernel kernel)
{
    switch (kernel) {
    case QKV_REGRESSION_BOXCAR:
        return pow(9.0 / 2, 0.2);
    case QKV_REGRESSION_TRIANGULAR:
        return pow(24, 0.2);
    case QKV_REGRESSION_EPANECHNIKOV:
        return pow(15, 0.2);
    case QKV_REGRESSION_GAUSSIAN:
    case QKV_REGRESSION_CONSTANT:
        break;
    }
    return pow(0.28209479177387814, 0.2); /* 1 / (2 sqrt(pi)) */
}

qkv_status qkv_regression_silverman(const qkv_regression *r, double *bandwidth)
{
    qkv_status status = qkv_regression_check(__func__, r);
    if (status != QKV_OK) return status;
    if (!bandwidth) return qkv_fail(QKV_E_ARG, "%s: bandwidth is NULL", __func__);
    double *column = NULL;
    status = qkv_regression_allocate(__func__, &column, r->n, 1);
    if (status != QKV_OK) return status;

    ptrdiff_t d_x = qkv_one_if_zero(r->d_x);
    double d = (double)d_x, log_sum = 0;
    double factor = canonical_bandwidth(r->kernel) / canonical_bandwidth(QKV_REGRESSION_GAUSSIAN) *
                    pow(4 / (d + 2) / (double)r->n, 1 / (d + 4));
    for (ptrdiff_t c = 0; c < d_x; c++) {
        for (ptrdiff_t i = 0; i < r->n; i++) column[i] = r->x[i * d_x + c];
        double h = factor * spread(column, r->n);
        log_sum += log(h);
        if (r->bandwidths == d_x) bandwidth[c] = h;
    }
    if (r->bandwidths != d_x) bandwidth[0] = exp(log_sum / d);
    free(column);
    return QKV_OK;
}
