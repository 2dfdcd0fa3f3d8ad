/* tile.h - blocks of queries on their way back: src/tile.h, and the cotangents that go with it. */
#ifndef QKV_GRAD_TILE_H
#define QKV_GRAD_TILE_H

#include "grad/inputs.h"
#include "src/tile.h"

enum {
    QKV_BACK_KEYS = 64,
    QKV_BACK_TILE = QKV_BACK_KEYS * QKV_LANES
}; /* keys of a tile, backward */

typedef struct FN(qkv_grad_block) {
    FN(qkv_block) t; /* s and w are the block's own: all blocks of a walk meet in dk and dv */
    const FN(qkv_gradients) *to;
    real *d_o;            /* d_v x QKV_LANES, the lanes of vectors beyond n_q are 0 */
    const real *q_rows;   /* n_q rows of the walk's, times scale for the dot scores */
    const real *d_o_rows; /* the same of d_o */
    real *delta;          /* QKV_LANES: d_o'o - d_lse, which every score of a row shares */
    /* Tiles, the block's own: */
    real *dw;             /* d weight, then d exponent, which is d bias */
    real *ds;             /* the score, then d score */
    real *dq;             /* d_k x QKV_LANES, before the factor scale */
    const real *db;       /* d exponent: dw, or ds where they are the same and fused.c writes one */
    FN(qkv_ahead) d_bias; /* where db will be added */
    real *keep;           /* of the walk: with dropout, the factor of each weight */
    real *slope;          /* of the walk: with softcap, d capped score / d score */
    real *dk;             /* all but dot scores: QKV_BACK_KEYS x d_k, of the walk */
    real *table;          /* of the walk: the gradient of relative */
    real *partial;        /* the walk's dscale, dbandwidth or dw, dslopes, dsink */
    bool q_finite, d_o_finite;
    bool seen; /* something of the tile at hand is; its pairs stand in t.seen, the block's own */
} FN(qkv_grad_block);

/* ---- pool.c ---- */
void IN(qkv_pool_backward)(FN(qkv_grad_block) *g); /* d_o -> dw = d_o'v */
/* ---- fused.c ---- */
/* For softmax of a dot score: from an unscored tile to w and ds in one go. */
void IN(qkv_softmax_dot_backward)(FN(qkv_grad_block) *g);
/* ---- normalize.c ---- */
void IN(qkv_normalize_backward)(FN(qkv_grad_block) *g); /* w, dw, delta, s -> dw = d bias, ds */
/* sum g dw and sum g of the tile's rows += .., of sparsemax and entmax: their delta is the
 * ratio. */
void IN(qkv_sparse_row_terms)(const FN(qkv_grad_block) *g, real *g_dw, real *sum);
/* dsink of the rows of the block, into partial. */
void IN(qkv_sink_backward)(const FN(qkv_grad_block) *g);
/* ---- mask.c ---- */
void IN(qkv_mask_backward)(const FN(qkv_grad_block) *g);   /* dbias += db */
void IN(qkv_slopes_backward)(const FN(qkv_grad_block) *g); /* dslopes, into partial */
/* table += db by distance. */
void IN(qkv_relative_backward)(const FN(qkv_block) *t, const real *db, real *table);
/* The gradient of relative of the block's head += table. */
void IN(qkv_relative_add)(const FN(qkv_view) *to, const FN(qkv_block) *t, const real *table);
/* ---- score.c ---- */
void IN(qkv_score_backward)(FN(qkv_grad_block) *g); /* ds -> dq; all but dots: dk and partial too */
/* After the last tile: dq += into the caller's, and dscale of the dot scores into partial. */
void IN(qkv_score_backward_end)(FN(qkv_grad_block) *g);
/* ---- outer.c ---- */
typedef enum qkv_outer { QKV_OUTER_DV, QKV_OUTER_DK } qkv_outer;
/* dv (or dk, of the dot scores) of the n_k keys of the tile += the part of all blocks of the walk;
 * rows of w and ds from a block's own n_k up to n_k are 0. scratch: QKV_BACK_KEYS padded rows. */
void IN(qkv_outer_add)(const FN(qkv_grad_block) *g, int blocks, int n_k, qkv_outer which,
                       real *scratch);
/* dx[j] += sum_i p[j][i] rows[i] of a tile p and n_q rows; rows and dx padded, ld apart. */
void IN(qkv_outer_product)(const real *p, const real *rows, int n_q, int n_k, ptrdiff_t ld,
                           real *dx);
/* The caller's rows of the tile += rows, ld apart. */
void IN(qkv_add_rows)(const FN(qkv_view) *to, const FN(qkv_block) *t, int n_k, const real *rows,
                      ptrdiff_t ld, ptrdiff_t d);

/* Places of a walk's partial sums: dscale first, then dbandwidth or dw, and these. */
static inline ptrdiff_t IN(qkv_at_slopes)(const qkv_attention *a)
{
    return 1 + a->bandwidths;
}

static inline ptrdiff_t IN(qkv_at_sink)(const qkv_attention *a)
{
    return 2 + a->bandwidths;
}

static inline ptrdiff_t IN(qkv_partials)(const qkv_attention *a)
{
    return 3 + a->bandwidths;
}

/* ---- attention.c ---- */
/* The sums of walks (items, so many a head), in order, into the gradients of what all share. */
void IN(qkv_add_partials)(const qkv_attention *a, const FN(qkv_gradients) *to, const real *partials,
                          ptrdiff_t walks, ptrdiff_t items);
/* Does an element of dbias get something from walks that do not take turns at it? */
bool IN(qkv_bias_is_shared)(const qkv_attention *a, const FN(qkv_view) *bias);

/* Rows padded to whole vectors. */
static inline ptrdiff_t IN(qkv_padded)(ptrdiff_t d)
{
    return (d + QKV_VEC - 1) / QKV_VEC * QKV_VEC;
}

#endif
