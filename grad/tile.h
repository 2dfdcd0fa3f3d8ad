/* tile.h - the block of queries on its way back: src/tile.h, and the cotangents that go with it. */
#ifndef QKV_GRAD_TILE_H
#define QKV_GRAD_TILE_H

#include "src/tile.h"

/* Where the gradients go; data NULL where not wanted. dscale and dbandwidth are sums over
 * everything a head does, so each head first sums into its own place in partial, and the caller's
 * slots get += the heads in order. */
typedef struct FN(qkv_gradients) {
    FN(qkv_view) q, k, v, bias, scale, bandwidth;
    FN(qkv_view) d_o, d_lse;              /* the cotangents */
    FN(qkv_view) o, row_max, row_log_sum; /* what forward saved */
    real *partial;                        /* [batch * heads][1 + bandwidths] */
} FN(qkv_gradients);

typedef struct FN(qkv_grad_block) {
    FN(qkv_block) t;
    const FN(qkv_gradients) *to;
    real *d_o;      /* d_v x QKV_LANES, lanes beyond n_q are 0 */
    real *d_o_rows; /* QKV_LANES x d_v, the same */
    real *q_rows;   /* QKV_LANES x d_k */
    real *delta;    /* QKV_LANES: what every score of the row shares, d_o'o - d_lse */
    real *dw;       /* tile: d weight, then d exponent, which is d bias */
    real *ds;       /* tile: the score, then d score */
    real *dq;       /* d_k x QKV_LANES */
    real *dk, *dv;  /* QKV_KEYS x d_k, d_v: of one tile */
    real *partial;  /* this head's dscale and dbandwidth */
    bool q_finite, d_o_finite;
} FN(qkv_grad_block);

/* ---- pool.c ---- */
void FN(qkv_pool_backward)(FN(qkv_grad_block) *g); /* d_o, w -> dw = d_o'v, dv = w d_o */
/* dx[j][c] = sum_i p[j][i] rows[i][c] over the pairs that see each other. */
void FN(qkv_outer)(const FN(qkv_block) *t, const real *p, const real *rows, bool rows_finite,
                   ptrdiff_t d, real *dx);
/* ---- normalize.c ---- */
void FN(qkv_normalize_backward)(FN(qkv_grad_block) *g); /* w, dw, delta, s -> dw = d bias, ds */
/* ---- mask.c ---- */
void FN(qkv_mask_backward)(FN(qkv_grad_block) *g); /* dbias += dw */
/* ---- score.c ---- */
void FN(qkv_score_backward)(FN(qkv_grad_block) *g); /* ds -> dq, dk, and this head's partial sums */

/* ---- inputs.c: checks and resolves; the arrays join the list ---- */
qkv_status FN(qkv_cotangents_resolve)(const qkv_attention *a, const FN(qkv_results) *saved,
                                      const FN(qkv_results) *d_out, FN(qkv_gradients) *to,
                                      qkv_slot_list *list);
qkv_status FN(qkv_gradients_resolve)(const qkv_attention *a, const FN(qkv_operands) *d_in,
                                     FN(qkv_gradients) *to, qkv_slot_list *list);
/* ---- attention.c: pieces of work, workspace of a thread, workspace common to all ---- */
ptrdiff_t FN(qkv_backward_work)(const qkv_attention *a);
size_t FN(qkv_backward_share)(const qkv_attention *a);
size_t FN(qkv_backward_common)(const qkv_attention *a);

#endif
