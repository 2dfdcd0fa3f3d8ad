/* order.h - order statistics. */
#ifndef QKV_SRC_ORDER_H
#define QKV_SRC_ORDER_H

#include <stddef.h>

/* Ascending; x has no NaN. */
void qkv_sort(double *x, ptrdiff_t n);

/* The quantile at p of sorted x, interpolated between order statistics (Hyndman & Fan 1996, type
 * 7). */
double qkv_quantile(const double *x, ptrdiff_t n, double p);

#endif
