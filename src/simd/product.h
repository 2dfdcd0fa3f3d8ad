/* product.h - the two register kernels that every dense product of a tile is made of.
 *
 *     add_rows      c[i][j] += sum_r a[i][r] b[r][j]     a is read along its rows
 *     add_columns   c[i][j] += sum_r a[r][i] b[r][j]     a is read down its columns
 *
 * c is a small matrix of vectors that lives in registers: j counts vectors, a's elements are
 * broadcast. Its size, m x nv, is constant at every call. Each element of c is one chain of
 * multiply-adds in the order of r, whatever m, nv and the unrolling: a query's bits do not depend
 * on its neighbours. */
#ifndef QKV_SIMD_PRODUCT_H
#define QKV_SIMD_PRODUCT_H

#include "vector.h"

/* The shapes that fill the registers: 24 or 12 accumulators, one row of b, one element of a. */
#if defined(__AVX512F__) || defined(__aarch64__)
enum { QKV_ROWS = 8, QKV_OUTER_ROWS = 6, QKV_OUTER_VECTORS = 4 }; /* 32 registers */
#else
enum { QKV_ROWS = 4, QKV_OUTER_ROWS = 4, QKV_OUTER_VECTORS = 3 }; /* 16 */
#endif

typedef vec accumulators[8][4];

INLINE void set(accumulators c, const int m, const int nv, vec x)
{
    UNROLL
    for (int i = 0; i < m; i++) {
        UNROLL
        for (int j = 0; j < nv; j++) c[i][j] = x;
    }
}

INLINE void add_product(accumulators c, const real *a, ptrdiff_t stride, const real *b, const int m,
                        const int nv)
{
    vec x[4];
    UNROLL
    for (int j = 0; j < nv; j++) x[j] = load(b + j * QKV_VEC);
    UNROLL
    for (int i = 0; i < m; i++) {
        real y = a[i * stride];
        UNROLL
        for (int j = 0; j < nv; j++) c[i][j] += y * x[j];
    }
}

INLINE void add_rows(accumulators c, const real *a, ptrdiff_t stride, const real *b, ptrdiff_t ld,
                     ptrdiff_t n, const int m, const int nv)
{
    UNROLL_BY(4)
    for (ptrdiff_t r = 0; r < n; r++) add_product(c, a + r, stride, b + r * ld, m, nv);
}

INLINE void add_columns(accumulators c, const real *a, ptrdiff_t stride, const real *b,
                        ptrdiff_t ld, ptrdiff_t n, const int m, const int nv)
{
    UNROLL_BY(4)
    for (ptrdiff_t r = 0; r < n; r++) add_product(c, a + r * stride, 1, b + r * ld, m, nv);
}

#endif
