/* ahead.h - rows of the caller's matrix, fetched while the processor multiplies: it does not
 * foresee that the next tile continues 48 rows, and all of them at once would wait for memory (of
 * forward and backward with a bias and its gradient 12 %). */
#ifndef QKV_SRC_AHEAD_H
#define QKV_SRC_AHEAD_H

#include "simd/product.h"
#include "tile.h"

/* A part of the share of the columns j .. j + m - 1: of those with the same cache line each has
 * some of the rows. Into the second cache: in the first, rows a power of two apart would push each
 * other out (8 %). */
INLINE void fetch_ahead(const FN(qkv_ahead) *x, int j, int m, int part, int parts,
                        const int to_write)
{
    enum { LINE = 64 / sizeof(real) };
    if (!x->data || j >= x->columns) return;
    const real *line = x->data + j / LINE * LINE;
    int begin = (j % LINE * parts + m * part) * x->rows / (LINE * parts);
    int end = (j % LINE * parts + m * (part + 1)) * x->rows / (LINE * parts);
    for (int i = begin; i < end; i++)
        if (to_write) /* clang wants constants here */
            __builtin_prefetch(line + i * x->stride, 1, 2);
        else
            __builtin_prefetch(line + i * x->stride, 0, 2);
}

/* add_rows for the columns j .. j + m - 1 of a tile, its b being a block's lanes; what they share
 * in is fetched a few lines at a time, since more would hold up the product's own loads (5 %). */
INLINE void add_rows_ahead(accumulators c, const real *a, ptrdiff_t stride, const real *b,
                           ptrdiff_t n, const int m, const int nv, int j,
                           const FN(qkv_ahead) *to_read, const FN(qkv_ahead) *to_write)
{
    enum { CHUNK = 16 };
    int parts = (int)((n + CHUNK - 1) / CHUNK);
    for (int p = 0; p < parts; p++, n -= CHUNK, a += CHUNK, b += CHUNK * QKV_LANES) {
        fetch_ahead(to_read, j, m, p, parts, false);
        if (to_write) fetch_ahead(to_write, j, m, p, parts, true);
        add_rows(c, a, stride, b, QKV_LANES, n < CHUNK ? n : CHUNK, m, nv);
    }
}

#endif
