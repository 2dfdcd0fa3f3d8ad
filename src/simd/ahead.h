/* ahead.h - rows of the caller's matrix, fetched while the processor multiplies: it does not
 * foresee that the next tile continues 48 rows, and all of them at once would wait for memory (of
 * forward and backward with a bias and its gradient 12 %). */
#ifndef QKV_SIMD_AHEAD_H
#define QKV_SIMD_AHEAD_H

#include "vector.h"

typedef struct FN(qkv_ahead) {
    const real *data; /* NULL: nothing to fetch */
    ptrdiff_t stride; /* of its rows; columns are neighbours */
    int rows, columns;
} FN(qkv_ahead);

/* The share of the columns j .. j + m - 1, of those with the same cache line a part of the rows
 * each. Into the second cache: in the first, rows a power of two apart would push each other out
 * (8 %). */
INLINE void fetch_ahead(const FN(qkv_ahead) *x, int j, int m, const int to_write)
{
    enum { LINE = 64 / sizeof(real) };
    if (!x->data || j >= x->columns) return;
    const real *line = x->data + j / LINE * LINE;
    int end = (j % LINE + m) * x->rows / LINE;
    for (int i = j % LINE * x->rows / LINE; i < end; i++)
        __builtin_prefetch(line + i * x->stride, to_write, 2);
}

#endif
