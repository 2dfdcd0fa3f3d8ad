#include "order.h"

#include <stdlib.h>

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void qkv_sort(double *x, ptrdiff_t n)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
}

double qkv_quantile(const double *x, ptrdiff_t n, double p)
{
    double at = p * (double)(n - 1);
    ptrdiff_t i = (ptrdiff_t)at;
    if (i + 1 >= n) return x[n - 1];
    return x[i] + (at - (double)i) * (x[i + 1] - x[i]);
}
