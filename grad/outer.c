/* outer.c - dk and dv: where the queries of a walk meet. dx[j][c] += sum_i p[j][i] rows[i][c], with
 * p the weights or the gradients of the scores, rows those of d_o or q. */
#include "grad/tile.h"
#include "src/simd/product.h"

/* Tiles of p, one a block, QKV_BACK_TILE apart; the rows of all blocks, ld apart. */
typedef struct outer {
    const real *p, *rows;
    ptrdiff_t ld;
    int n[QKV_BLOCKS], blocks; /* rows of each block */
    real *dx;
    ptrdiff_t stride;
} outer;

INLINE void outer_strip(const outer *x, int j, ptrdiff_t column, const int m, const int nv)
{
    accumulators c;
    const real *p = x->p + j * QKV_LANES, *rows = x->rows + column;
    set(c, m, nv, splat(0));
    for (int i = 0; i < x->blocks; i++) {
        add_rows(c, p, QKV_LANES, rows, x->ld, x->n[i], m, nv);
        p += QKV_BACK_TILE;
        rows += x->n[i] * x->ld;
    }
    UNROLL
    for (int i = 0; i < m; i++) {
        UNROLL
        for (int v = 0; v < nv; v++) {
            real *to = x->dx + (j + i) * x->stride + column + v * QKV_VEC;
            store_any(to, load_any(to) + c[i][v]);
        }
    }
}

INLINE void outer_columns(const outer *x, int n_k, ptrdiff_t column, const int nv)
{
    int j = 0;
    for (; j + QKV_OUTER_ROWS <= n_k; j += QKV_OUTER_ROWS)
        outer_strip(x, j, column, QKV_OUTER_ROWS, nv);
    if (QKV_OUTER_ROWS > 4 && n_k - j >= 4) {
        outer_strip(x, j, column, 4, nv);
        j += 4;
    }
    for (; j < n_k; j++) outer_strip(x, j, column, 1, nv);
}

/* d columns, a multiple of QKV_VEC. */
static void outer_rows(const outer *x, int n_k, ptrdiff_t d)
{
    int left = (int)(d / QKV_VEC);
    for (ptrdiff_t column = 0; left > 0;) {
        int nv = left <= QKV_OUTER_VECTORS      ? left
                 : left < 2 * QKV_OUTER_VECTORS ? (left + 1) / 2
                                                : QKV_OUTER_VECTORS;
        switch (nv) {
        case 1:
            outer_columns(x, n_k, column, 1);
            break;
        case 2:
            outer_columns(x, n_k, column, 2);
            break;
        case 3:
            outer_columns(x, n_k, column, 3);
            break;
        default:
            outer_columns(x, n_k, column, QKV_OUTER_VECTORS);
        }
        left -= nv;
        column += nv * QKV_VEC;
    }
}

void IN(qkv_outer_product)(const real *p, const real *rows, int n_q, int n_k, ptrdiff_t ld,
                           real *dx)
{
    const outer x = {
        .p = p, .rows = rows, .ld = ld, .n = {n_q}, .blocks = 1, .dx = dx, .stride = ld};
    outer_rows(&x, n_k, ld);
}

/* The part of what stands as 0 in the rows of a block because it is not finite: over the pairs that
 * see each other, since 0 times it would be NaN where they do not. */
static void outer_not_finite(const FN(qkv_grad_block) *g, const outer *x, qkv_outer which)
{
    const FN(qkv_block) *t = &g->t;
    bool dv = which == QKV_OUTER_DV;
    const FN(qkv_view) *from = dv ? &g->to->d_o : &t->in->q;
    const real *p = dv ? t->w : g->ds;
    bool unit = !dv && t->in->a.score == QKV_SCORE_COSINE;
    ptrdiff_t d = dv ? t->in->a.d_v : t->in->a.d_k;
    for (int i = 0; i < t->n_q; i++) {
        real factor = dv ? 1 : unit ? t->scale * t->q_inverse[i] : t->scale;
        for (ptrdiff_t c = 0; c < d; c++) {
            real y = FN(qkv_at)(from, t->batch, t->head, t->q0 + i)[c * from->stride[3]] * factor;
            for (int j = 0; j < t->n_k && !isfinite(y); j++)
                if (FN(qkv_pair)(t, j, i)) x->dx[j * x->stride + c] += p[j * QKV_LANES + i] * y;
        }
    }
}

void IN(qkv_add_rows)(const FN(qkv_view) *to, const FN(qkv_block) *t, int n_k, const real *rows,
                      ptrdiff_t ld, ptrdiff_t d)
{
    real *x = FN(qkv_at)(to, t->batch, t->kv_head, t->k0);
    for (int j = 0; j < n_k; j++)
        for (ptrdiff_t c = 0; c < d; c++)
            x[j * to->stride[2] + c * to->stride[3]] += rows[j * ld + c];
}

/* From the gradients of keys k / |k| of unit length to those of k: (dx - x x'dx) / |k|. */
static void through_length(const FN(qkv_block) *t, int n_k, real *dx, ptrdiff_t ld)
{
    ptrdiff_t d = t->in->a.d_k;
    for (int j = 0; j < n_k; j++, dx += ld) {
        const real *x = t->k.packed + j * d;
        real along = 0;
        for (ptrdiff_t c = 0; c < d; c++) along += dx[c] == 0 ? 0 : x[c] * dx[c];
        for (ptrdiff_t c = 0; c < d; c++)
            dx[c] = along == 0 && dx[c] == 0 ? 0 : (dx[c] - x[c] * along) * t->k_inverse[j];
    }
}

static outer outer_of(const FN(qkv_grad_block) *g, qkv_outer which, ptrdiff_t ld)
{
    bool dv = which == QKV_OUTER_DV;
    return (outer){.p = dv ? g->t.w : g->ds, .rows = dv ? g->d_o_rows : g->q_rows, .ld = ld};
}

void IN(qkv_outer_add)(const FN(qkv_grad_block) *g, int blocks, int n_k, qkv_outer which,
                       real *scratch)
{
    const qkv_attention *a = &g->t.in->a;
    const FN(qkv_view) *to = which == QKV_OUTER_DV ? &g->to->v : &g->to->k;
    ptrdiff_t d = which == QKV_OUTER_DV ? a->d_v : a->d_k, ld = IN(qkv_padded)(d);
    bool unit = which == QKV_OUTER_DK && a->score == QKV_SCORE_COSINE;
    bool direct = d == ld && to->stride[3] == 1 && !unit;
    real *dx = direct ? FN(qkv_at)(to, g->t.batch, g->t.kv_head, g->t.k0) : scratch;
    ptrdiff_t stride = direct ? to->stride[2] : ld;
    if (!direct) memset(scratch, 0, sizeof(real) * (size_t)(n_k * ld));
    for (int i = 0; i < blocks; i++) {
        if (!g[i].seen) continue;
        outer x = outer_of(&g[i], which, ld);
        x.dx = dx;
        x.stride = stride;
        while (i < blocks && g[i].seen) x.n[x.blocks++] = g[i++].t.n_q;
        outer_rows(&x, n_k, ld);
        for (int y = i - x.blocks; y < i; y++)
            if (which == QKV_OUTER_DV ? !g[y].d_o_finite : !g[y].q_finite)
                outer_not_finite(&g[y], &x, which);
    }
    if (unit) through_length(&g->t, n_k, scratch, ld);
    if (!direct) IN(qkv_add_rows)(to, &g->t, n_k, scratch, ld, d);
}
