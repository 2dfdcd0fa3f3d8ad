/* resample.h - a matrix on a grid of another size, by area mean. */
#ifndef QKV_SRC_RESAMPLE_H
#define QKV_SRC_RESAMPLE_H

#include <stddef.h>

/* Row i of to_rows, of the matrix from [rows, cols] as [to_rows, to_cols]: each element is the mean
 * of from over the area it covers, with elements clamped to [lower, upper] first and NaN left out;
 * an area of nothing but NaN is NaN. Exact where both grids agree. to: [to_cols]. */
void qkv_resample_row(const double *from, ptrdiff_t rows, ptrdiff_t cols, double lower,
                      double upper, ptrdiff_t i, ptrdiff_t to_rows, ptrdiff_t to_cols, double *to);

#endif
