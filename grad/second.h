/* second.h - blocks of queries and the tangents of everything they meet: what the Jacobian-vector
 * product (jvp.c) and the second backward pass (double.c) share. All of it in natural units.
 *
 *     x = scale a(q, k),  y = cap(x),  s = y + bias + slope distance;  a' x' y' s' along u
 */
#ifndef QKV_GRAD_SECOND_H
#define QKV_GRAD_SECOND_H

#include "grad/second_order.h"
#include "grad/tile.h"

typedef struct FN(qkv_second) {
    FN(qkv_block) t;
    const FN(qkv_gradients) *u;  /* the tangents; of these, the operands only */
    const FN(qkv_gradients) *to; /* saved rows, cotangents, and where gradients go */
    bool unit;                   /* cosine: q and k are of unit length, q' and k' its tangents */
    real scale_u;
    real *parameters_u;        /* tangents of bandwidths (one a coordinate) or w */
    real *q, *q_u;             /* d_k x QKV_LANES */
    real *q_rows, *q_u_rows;   /* the same as n_q padded rows of d_k */
    real *k_u, *v_u;           /* QKV_BACK_KEYS rows */
    real *q_along, *k_along;   /* cosine: unit row times its raw tangent */
    real *a, *a_u, *x_u, *s_u; /* tiles; 0 where hidden */
    real *slope, *curve;       /* tiles, with softcap: dy/dx and d2y/dx2 */
    real *keep;                /* tile, with dropout */
    real *p, *r;               /* tiles of no lasting meaning */
    real *o_u;                 /* d_v x QKV_LANES: o' */
    real *lse_u;               /* QKV_LANES */
    real *ones;                /* QKV_LANES */
    /* The second backward pass only: */
    real *d_o, *d_o_rows; /* d_v x QKV_LANES, and n_q padded rows */
    bool finite;          /* q_rows, q_u_rows and d_o_rows are */
    real *delta, *row;    /* QKV_LANES: d_o'o - d_lse, d_o'o' */
    real *g, *h;          /* tiles: d phi / da and d phi / da', by way of s and s' */
    real *dq, *dq_u;      /* d_k x QKV_LANES: by q and, cosine, by q' */
    real *dk, *dk_u, *dv; /* QKV_BACK_KEYS padded rows */
    real *table;          /* the gradient of relative */
    real *partial;
} FN(qkv_second);

/* ---- jvp.c ---- */
/* Points the buffers into memory (aligned); NULL counts only. Bytes, or SIZE_MAX on overflow. */
size_t IN(qkv_second_layout)(FN(qkv_second) *x, const qkv_attention *a, bool backward,
                             void *memory);
void IN(qkv_second_begin)(FN(qkv_second) *x, ptrdiff_t batch, ptrdiff_t head, ptrdiff_t index);
/* All of a tile up to s'; w in t.w. False if nothing in it is seen. */
bool IN(qkv_second_tile)(FN(qkv_second) *x, ptrdiff_t k0);
/* The pass over all keys: o_u and lse_u. */
void IN(qkv_second_rows)(FN(qkv_second) *x);
/* to (d x QKV_LANES) += rows pooled by p. */
void IN(qkv_second_pool)(const FN(qkv_second) *x, FN(qkv_rows) rows, ptrdiff_t d, const real *p,
                         real *to);
/* The sink's weight in the row of a lane; 0 without. */
real IN(qkv_sink_weight)(const FN(qkv_block) *t, int i);
/* o' and lse' of the block, overwritten or added. */
void IN(qkv_second_write)(const FN(qkv_second) *x, const FN(qkv_view) *o, const FN(qkv_view) *lse,
                          bool add);
/* ---- second_score.c ---- */
/* dx[j] += sum_i p[j][i] of row i, both padded rows of d; what has no p takes no part. lanes: the
 * rows as they came; rows: 0 where those are not finite. */
void IN(qkv_second_outer)(const FN(qkv_second) *x, const real *p, const real *rows,
                          const real *lanes, ptrdiff_t d, real *dx);
void IN(qkv_second_score)(FN(qkv_second) *x); /* a, a_u */
void IN(qkv_second_chain)(FN(qkv_second) *x); /* g, h -> dq, dk, the parameters in partial */
/* dq of the caller += the block's. */
void IN(qkv_second_chain_end)(FN(qkv_second) *x);

/* ---- double.c ---- */
size_t IN(qkv_double_share)(const qkv_attention *a);
size_t IN(qkv_double_common)(const qkv_attention *a);
void IN(qkv_double_backward)(const FN(qkv_inputs) *in, const FN(qkv_gradients) *u,
                             const FN(qkv_gradients) *to, const FN(qkv_outputs) *dd_out,
                             const qkv_team *team);

#endif
