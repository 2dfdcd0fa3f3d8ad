/* tile.h - what the stages of attention work on: one block of queries of one head, walking over the
 * keys tile by tile.
 *
 * A tile is S transposed: row j is a key, lane i is a query, x[j * QKV_LANES + i]. Queries being
 * the lanes of vectors, maxima, sums and rescalings need no horizontal step, and each query's bits
 * depend on no other query.
 *
 *     src/score.c      s      = scale a(q, k)          grad/score.c      ds -> dq, dk, dscale,
 * dbandwidth src/mask.c       seen, b                         grad/mask.c       db -> dbias
 *     src/normalize.c  s, b   -> w, row max and sum    grad/normalize.c  w, dw -> ds, db
 *     src/pool.c       o     += w v                    grad/pool.c       do -> dw, dv
 *
 * A lane beyond n_q holds numbers that are computed and never used. */
#ifndef QKV_SRC_TILE_H
#define QKV_SRC_TILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "problem.h"
#include "qkv/attention.h"
#include "real.h"

enum {
    QKV_LANES = 16, /* queries of a block */
    QKV_KEYS = 64,  /* keys of a tile */
    QKV_TILE = QKV_KEYS * QKV_LANES
};

/* Must all keys be looked at before the first weight is known? */
static inline bool qkv_needs_scan(const qkv_attention *a)
{
    return a->normalize == QKV_HARD || a->normalize == QKV_UNIFORM ||
           (a->normalize == QKV_KERNEL_SUM && a->empty == QKV_EMPTY_NEAREST);
}

/* Are the weights divided by a sum that forward finds and backward is given? */
static inline bool qkv_has_sum(const qkv_attention *a)
{
    return a->normalize == QKV_SOFTMAX || a->normalize == QKV_KERNEL_SUM;
}

typedef enum qkv_coverage { QKV_SEES_NONE, QKV_SEES_SOME, QKV_SEES_ALL } qkv_coverage;

/* A slot with its strides filled in; data NULL if absent. */
typedef struct FN(qkv_view) {
    real *data;
    ptrdiff_t stride[4];
} FN(qkv_view);

static inline real *FN(qkv_at)(const FN(qkv_view) *view, ptrdiff_t batch, ptrdiff_t head,
                               ptrdiff_t row)
{
    return view->data + batch * view->stride[0] + head * view->stride[1] + row * view->stride[2];
}

/* The inputs, resolved once a call. */
typedef struct FN(qkv_inputs) {
    qkv_attention a; /* kv_heads and bandwidths filled in, causal_offset within the matrix */
    FN(qkv_view) q, k, v, bias, scale, bandwidth;
    qkv_slot_bool mask;
} FN(qkv_inputs);

/* A block of rows of k or v, with column stride 1. */
typedef struct FN(qkv_rows) {
    const real *data; /* row j at data + j * stride */
    ptrdiff_t stride;
    real *packed; /* room for QKV_KEYS rows whose column stride is not 1 */
} FN(qkv_rows);

typedef struct FN(qkv_block) {
    const FN(qkv_inputs) *in;
    ptrdiff_t batch, head, kv_head;
    ptrdiff_t q0, k0; /* first query of the block, first key of the tile */
    int n_q, n_k;     /* how many of each */

    real scale;
    real *inverse_bandwidth; /* d_k */
    real *q;                 /* d_k x QKV_LANES, lanes beyond n_q are 0 */
    FN(qkv_rows) k, v;

    qkv_coverage coverage;
    uint8_t *seen; /* tile: may the query see the key; valid where coverage is SOME */
    real *s, *b;   /* tiles: the score, the bias (b valid if there is a bias) */
    real *w;       /* tile: the weights, not yet divided by sum while going forward */

    /* The rows, QKV_LANES each. */
    real *max, *sum; /* of the exponents so far; sum counts from max */
    real *log_sum;   /* log(sum), once forward is done; what backward reads */
    real *rescale;   /* what this tile's new max does to earlier sums: exp(old max - max) */
    real *any;       /* 1 if the row has seen a key, else 0 */
    real *best; /* by the scan: largest exponent (hard), smallest u^2 (nearest), count (uniform) */
    ptrdiff_t *winner; /* by the scan: key of best (hard), -1 for none */

    real *o; /* d_v x QKV_LANES, the pooled values so far */
} FN(qkv_block);

/* May the query of lane i see the key of row j? Not asked for lanes beyond n_q. */
static inline bool FN(qkv_pair)(const FN(qkv_block) *t, int j, int i)
{
    return t->coverage == QKV_SEES_ALL || t->seen[j * QKV_LANES + i];
}

/* The bias of element x of the tile, 0 if there is none. */
static inline real FN(qkv_bias_at)(const FN(qkv_block) *t, int x)
{
    return t->in->bias.data ? t->b[x] : 0;
}

/* ---- score.c ---- */
void FN(qkv_score_tile)(FN(qkv_block) *t);
/* ---- mask.c ---- */
void FN(qkv_mask_tile)(FN(qkv_block) *t); /* sets coverage, seen and b */
ptrdiff_t FN(qkv_mask_last)(
    const FN(qkv_block) *t); /* keys from here on are hidden from the block by rule */
/* ---- normalize.c ---- */
void FN(qkv_normalize_begin)(FN(qkv_block) *t);  /* the rows, before the first tile */
void FN(qkv_normalize_scan)(FN(qkv_block) *t);   /* s, b, seen -> best, winner */
void FN(qkv_normalize_online)(FN(qkv_block) *t); /* s, b, seen -> w, max, sum, rescale, any */
void FN(qkv_normalize_weights)(
    FN(qkv_block) *t); /* s, b, seen, max, log_sum -> final w; 0 where unseen */
real FN(qkv_kernel_weight)(qkv_kernel kernel, real u2);
/* ---- pool.c ---- */
void FN(qkv_pool_tile)(FN(qkv_block) *t); /* o = o * rescale + w v */
bool FN(qkv_rows_finite)(const FN(qkv_rows) *rows, int n, ptrdiff_t d);

/* ---- block.c: the loop's own parts, shared with grad/ and covariance.c ---- */
/* Points the block's buffers into memory (aligned); NULL counts only. Bytes, or SIZE_MAX on
 * overflow. */
size_t FN(qkv_block_layout)(FN(qkv_block) *t, const qkv_attention *a, void *memory);
void FN(qkv_block_begin)(FN(qkv_block) *t, ptrdiff_t batch, ptrdiff_t head, ptrdiff_t q0);
void FN(qkv_block_scan)(
    FN(qkv_block) *t); /* the scan of normalize.c over all tiles, where one is needed */
/* Loads, masks and scores the tile at k0; false, and no more than the mask done, if nothing in it
 * is seen. */
bool FN(qkv_block_tile)(FN(qkv_block) *t, ptrdiff_t k0);
/* to = d x QKV_LANES from the block's n_q rows; unused lanes 0. */
void FN(qkv_load_lanes)(real *to, const FN(qkv_view) *from, const FN(qkv_block) *t, ptrdiff_t d);

/* ---- inputs.c: from the caller's structs to checked views ---- */
/* Checks problem and operands, resolves them, starts the list of arrays with them. */
qkv_status FN(qkv_inputs_resolve)(const char *who, const qkv_attention *a,
                                  const FN(qkv_operands) *in, FN(qkv_inputs) *out,
                                  qkv_slot_list *list);
/* The sizes of q, k, v, bias, scale, bandwidth. */
void FN(qkv_operand_dims)(const qkv_attention *a, const FN(qkv_operands) *in, ptrdiff_t dims[6][4]);
/* Adds the six arrays (inputs, or their gradients, which are written) to the list. */
qkv_status FN(qkv_operands_list)(const qkv_attention *a, const FN(qkv_operands) *x, bool gradients,
                                 qkv_slot_list *list);
FN(qkv_view) FN(qkv_view_of)(const FN(qkv_slot) *slot, const ptrdiff_t dim[4]);
/* Of scale or bandwidth: packed means one for all batch items and heads. */
FN(qkv_view) FN(qkv_parameter_view)(const FN(qkv_slot) *slot, const ptrdiff_t dim[4]);
qkv_extent FN(qkv_extent_of)(const char *name, const FN(qkv_slot) *slot, const ptrdiff_t dim[4],
                             bool written);

/* ---- attention.c, covariance.c: pieces of work for threads, and the workspace of one thread ----
 */
ptrdiff_t FN(qkv_forward_work)(const qkv_attention *a);
/* QKV_E_DOMAIN if there are rows with an empty support and the policy calls that an error. */
qkv_status FN(qkv_empty_rows)(const char *who, const qkv_attention *a, ptrdiff_t empty);
size_t FN(qkv_forward_share)(const qkv_attention *a);
size_t FN(qkv_covariance_share)(const qkv_attention *a);

#endif
