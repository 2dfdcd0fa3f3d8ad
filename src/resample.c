#include "resample.h"

#include <math.h>

/* Cells first .. last of n that sample i of to covers; measured in 1 / to of a cell all the borders
 * are whole numbers. */
typedef struct span {
    ptrdiff_t n, to, first, last, begin, end;
} span;

static span span_of(ptrdiff_t i, ptrdiff_t n, ptrdiff_t to)
{
    span s = {.n = n, .to = to, .begin = i * n, .end = (i + 1) * n};
    s.first = s.begin / to;
    s.last = (s.end - 1) / to;
    return s;
}

/* How much of cell j the sample covers. */
static double overlap(const span *s, ptrdiff_t j)
{
    ptrdiff_t low = j * s->to, high = low + s->to;
    return (double)((high < s->end ? high : s->end) - (low > s->begin ? low : s->begin));
}

void qkv_resample_row(const double *from, ptrdiff_t rows, ptrdiff_t cols, double lower,
                      double upper, ptrdiff_t i, ptrdiff_t to_rows, ptrdiff_t to_cols, double *to)
{
    span down = span_of(i, rows, to_rows);
    for (ptrdiff_t j = 0; j < to_cols; j++) {
        span across = span_of(j, cols, to_cols);
        double mean = NAN, weight = 0;
        for (ptrdiff_t row = down.first; row <= down.last; row++) {
            for (ptrdiff_t col = across.first; col <= across.last; col++) {
                double x = from[row * cols + col];
                if (isnan(x)) continue;
                x = fmin(fmax(x, lower), upper);
                double w = overlap(&down, row) * overlap(&across, col);
                weight += w;
                mean = weight > w ? mean + (x - mean) * (w / weight) : x;
            }
        }
        to[j] = mean;
    }
}
