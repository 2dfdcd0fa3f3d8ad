/* lanes.c - rows of the caller's become lanes, and lanes become rows again: the transposition at
 * both ends of the tile loop, by squares of vectors where the caller's columns are neighbours. */
#include "simd/transpose.h"
#include "tile.h"

/* to[c][i0 + i] for one square: up to QKV_VEC rows (the rest 0) of QKV_VEC columns. */
static void square_to_lanes(real *to, const real *x, ptrdiff_t row, int n, real scale)
{
    vec r[QKV_VEC];
    if (n >= QKV_VEC) {
        UNROLL
        for (int i = 0; i < QKV_VEC; i++) r[i] = load_any(x + i * row) * scale;
    } else {
        for (int i = 0; i < QKV_VEC; i++) r[i] = i < n ? load_any(x + i * row) * scale : splat(0);
    }
    transpose(r);
    UNROLL
    for (int i = 0; i < QKV_VEC; i++) store(to + i * QKV_LANES, r[i]);
}

void IN(qkv_to_lanes)(real *to, const real *x, ptrdiff_t row, ptrdiff_t column, int n, ptrdiff_t d,
                      int vectors, real scale)
{
    ptrdiff_t squares = column == 1 ? d / QKV_VEC * QKV_VEC : 0;
    for (int i0 = 0; i0 < vectors * QKV_VEC; i0 += QKV_VEC) {
        for (ptrdiff_t c = 0; c < squares; c += QKV_VEC)
            square_to_lanes(to + c * QKV_LANES + i0, x + i0 * row + c, row, n - i0, scale);
        for (ptrdiff_t c = squares; c < d; c++) {
            real *lanes = to + c * QKV_LANES;
            store(lanes + i0, splat(0));
            for (int i = i0; i < i0 + QKV_VEC && i < n; i++)
                lanes[i] = x[i * row + c * column] * scale;
        }
    }
}

/* Up to QKV_VEC rows of QKV_VEC columns. */
static void square_from_lanes(real *x, ptrdiff_t row, int n, const real *from, const real *factor,
                              bool add)
{
    vec r[QKV_VEC];
    UNROLL
    for (int c = 0; c < QKV_VEC; c++) r[c] = load(from + c * QKV_LANES) * load(factor);
    transpose(r);
    if (n > QKV_VEC) n = QKV_VEC;
    /* All loads before all stores, if rows do not overlap: rows a power of two apart look to the
     * processor like the one just stored (of backward with a bias 2 %). */
    if (n == QKV_VEC && (row >= QKV_VEC || row <= -QKV_VEC)) {
        UNROLL
        for (int i = 0; i < QKV_VEC && add; i++) r[i] += load_any(x + i * row);
        UNROLL
        for (int i = 0; i < QKV_VEC; i++) store_any(x + i * row, r[i]);
        return;
    }
    for (int i = 0; i < n; i++) store_any(x + i * row, add ? load_any(x + i * row) + r[i] : r[i]);
}

void IN(qkv_from_lanes)(real *x, ptrdiff_t row, ptrdiff_t column, int n, ptrdiff_t d,
                        const real *from, const real *factor, bool add)
{
    ptrdiff_t squares = column == 1 ? d / QKV_VEC * QKV_VEC : 0;
    for (int i0 = 0; i0 < n; i0 += QKV_VEC) {
        for (ptrdiff_t c = 0; c < squares; c += QKV_VEC)
            square_from_lanes(x + i0 * row + c, row, n - i0, from + c * QKV_LANES + i0, factor + i0,
                              add);
        for (ptrdiff_t c = squares; c < d; c++) {
            /* As a vector, like the squares: a scalar product could be fused with the sum. */
            vec y = load(from + c * QKV_LANES + i0) * load(factor + i0);
            for (int i = 0; i < QKV_VEC && i0 + i < n; i++) {
                real *to = x + (i0 + i) * row + c * column;
                *to = add ? *to + y[i] : y[i];
            }
        }
    }
}
