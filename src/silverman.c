#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "local.h"
#include "order.h"
#include "regression.h"

/* min(standard deviation, interquartile range / 1.349), each only if it is not 0; 1.349 is that
 * range of a standard normal. 1 without any spread. Sorts x. */
static double spread(double *x, ptrdiff_t n)
{
    qkv_sort(x, n);
    double mean = 0, squares = 0, width = x[n - 1] - x[0];
    if (width == 0) return 1;
    for (ptrdiff_t i = 0; i < n; i++) mean += (x[i] - mean) / (double)(i + 1);
    for (ptrdiff_t i = 0; i < n; i++) {
        double part = (x[i] - mean) / width; /* the squares of tiny x would vanish */
        squares += part * part;
    }
    double deviation = width * sqrt(squares / (double)(n - 1));
    double range = (qkv_quantile(x, n, 0.75) - qkv_quantile(x, n, 0.25)) / 1.349;
    return range > 0 && range < deviation ? range : deviation;
}

/* (R(K) / mu_2(K)^2)^(1/5) for K scaled to integrate to 1 (Marron & Nolan 1988, table 1). The
 * Cauchy kernel has no mu_2: it is as wide as the Gaussian at half its height. The constant kernel
 * has none either; any bandwidth serves it. */
static double canonical_bandwidth(qkv_regression_kernel kernel)
{
    static const double gaussian = 0.28209479177387814; /* 1 / (2 sqrt(pi)) */
    switch (kernel) {
    case QKV_REGRESSION_BOXCAR:
        return pow(9.0 / 2, 0.2);
    case QKV_REGRESSION_TRIANGULAR:
        return pow(24, 0.2);
    case QKV_REGRESSION_EPANECHNIKOV:
        return pow(15, 0.2);
    case QKV_REGRESSION_BIWEIGHT:
        return pow(35, 0.2);
    case QKV_REGRESSION_TRIWEIGHT:
        return pow(350.0 / 429 * 81, 0.2);
    case QKV_REGRESSION_TRICUBE:
        return pow(175.0 / 247 * (243.0 / 35) * (243.0 / 35), 0.2);
    case QKV_REGRESSION_COSINE:
        return pow(M_PI * M_PI / 16 / pow(1 - 8 / (M_PI * M_PI), 2), 0.2);
    case QKV_REGRESSION_LAPLACE:
        return pow(1.0 / 16, 0.2);
    case QKV_REGRESSION_CAUCHY:
        return sqrt(2 * log(2)) * pow(gaussian, 0.2);
    case QKV_REGRESSION_GAUSSIAN:
    case QKV_REGRESSION_CONSTANT:
        break;
    }
    return pow(gaussian, 0.2);
}

/* x is room for a column. */
static void choose(const qkv_sample *s, double *x, double *bandwidth)
{
    double d = (double)s->d, log_sum = 0;
    double factor = canonical_bandwidth(s->r->kernel) /
                    canonical_bandwidth(QKV_REGRESSION_GAUSSIAN) *
                    pow(4 / (d + 2) / (double)s->n, 1 / (d + 4));
    for (ptrdiff_t c = 0; c < s->d; c++) {
        memcpy(x, s->x + c * s->stride, (size_t)s->n * sizeof *x);
        double h = ldexp(factor * spread(x, s->n), s->exponent[c]);
        log_sum += log(h);
        if (s->r->bandwidths == s->d) bandwidth[c] = h;
    }
    if (s->r->bandwidths != s->d) bandwidth[0] = exp(log_sum / d);
}

qkv_status qkv_regression_silverman(const qkv_regression *r, double *bandwidth)
{
    if (!bandwidth) return qkv_fail(QKV_E_ARG, "%s: bandwidth is NULL", __func__);
    qkv_sample s;
    double *column = NULL;
    qkv_status status = qkv_sample_take(__func__, r, &s);
    if (status == QKV_OK) status = qkv_regression_allocate(__func__, &column, s.n, 1);
    if (status == QKV_OK) choose(&s, column, bandwidth);
    free(column);
    qkv_sample_free(&s);
    return status;
}
