/* plot_digits.h - numbers on an axis. */
#ifndef QKV_SRC_PLOT_DIGITS_H
#define QKV_SRC_PLOT_DIGITS_H

#include <math.h>

/* Significant digits that tell the numbers on an axis from each other: 6, as %g has, or more where
 * the axis is far from 0 for its length. */
static inline int qkv_plot_digits(double low, double high)
{
    double digits = 3 + ceil(log10(fmax(fabs(low), fabs(high)) / fabs(high - low)));
    return (int)fmin(fmax(6, digits), 17);
}

#endif
