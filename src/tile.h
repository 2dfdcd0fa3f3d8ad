/* tile.h - what the stages of attention work on.
 *
 * A block is QKV_LANES queries of one head, a tile is a block against up to QKV_KEYS keys. A tile
 * is S transposed: row j is a key, lane i is a query, x[j * QKV_LANES + i]. Queries being the lanes
 * of vectors, maxima, sums and rescalings need no horizontal step, and each query's bits depend on
 * no other query. A walk is a few blocks that pass over the keys together, so that keys fetched
 * from far away serve them all.
 *
 *     src/score.c      s      = scale a(q, k)          grad/score.c      ds -> dq, dk, dscale, dh
 *     src/mask.c       seen, b                         grad/mask.c       db -> dbias
 *     src/normalize.c  s, b   -> w, row max and sum    grad/normalize.c  w, dw -> ds, db
 *     src/pool.c       o     += w v                    grad/pool.c       do -> dw, dv
 *
 * Of very many keys each adds little to a sum that has grown large, and roundings add up. Hence a
 * walk has legs: o, the sum of the row and, backward, dq are sums of the leg at hand alone, and
 * those of the legs before wait in `earlier`. Legs begin at fixed keys, whatever a walk sees.
 *
 * A lane beyond n_q holds numbers that are computed and never used. All of it is compiled once an
 * instruction set, hence the names IN(...). */
#ifndef QKV_SRC_TILE_H
#define QKV_SRC_TILE_H

#include <stdbool.h>

#include "exponents.h"
#include "inputs.h"
#include "simd/vector.h"
#include "summary.h"
#include "team.h"

enum {
    QKV_KEYS = 192,          /* keys of a tile */
    QKV_BLOCKS = 4,          /* blocks of a walk */
    QKV_LEG = 64 * QKV_KEYS, /* keys whose tiles are summed before they join the legs before */
};

/* What there is at most of them in a problem: small problems take little memory. */
static inline ptrdiff_t IN(qkv_keys_of)(const qkv_attention *a)
{
    return a->n_k < QKV_KEYS ? a->n_k : QKV_KEYS;
}

static inline ptrdiff_t IN(qkv_blocks_of)(const qkv_attention *a)
{
    return (a->n_q + QKV_LANES - 1) / QKV_LANES;
}

static inline int IN(qkv_blocks_of_walk)(const qkv_attention *a)
{
    ptrdiff_t blocks = IN(qkv_blocks_of)(a);
    return blocks < QKV_BLOCKS ? (int)blocks : QKV_BLOCKS;
}

static inline ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b)
{
    return a < b ? a : b;
}

typedef enum qkv_coverage { QKV_SEES_NONE, QKV_SEES_SOME, QKV_SEES_ALL } qkv_coverage;

/* A block of rows of k or v, with column stride 1. */
typedef struct FN(qkv_rows) {
    const real *data; /* row j at data + j * stride */
    ptrdiff_t stride;
    real *packed; /* room for QKV_KEYS rows whose column stride is not 1 */
} FN(qkv_rows);

/* Rows of the caller's that will be needed soon (ahead.h). */
typedef struct FN(qkv_ahead) {
    const real *data; /* NULL: nothing to fetch */
    ptrdiff_t stride; /* of its rows; columns are neighbours */
    int rows, columns;
} FN(qkv_ahead);

typedef struct FN(qkv_block) {
    const FN(qkv_inputs) *in;
    ptrdiff_t batch, head, kv_head;
    ptrdiff_t q0, k0; /* first query of the block, first key of the tile */
    int n_q, n_k;     /* how many of each */
    int vectors;      /* of a row of a tile that hold a query */

    bool base_2;             /* softmax, top-k: s, b and max are times log2(e), which saves a
                              * multiplication a weight; 1 % of the whole forward pass */
    real scale;              /* of the score */
    real *parameters;        /* bandwidths: the w of the additive and the user's score */
    real *q_inverse;         /* QKV_LANES, cosine: 1 / ||q||, 0 for 0; of the block */
    real *k_inverse;         /* the same of the keys of the tile */
    real *inverse_bandwidth; /* d_k */
    real *score_bandwidth;   /* d_k: what distances are multiplied by; the same, but for the
                              * Gaussian in base 2 times sqrt(|scale| log2(e) / 2) */
    real *q; /* d_k x QKV_LANES, 0 beyond n_q in its vectors; dot: times scale (and log2(e)), of
                unit length before that if cosine */
    FN(qkv_rows) k, v;

    qkv_coverage coverage;
    bool large_bias; /* some |b| is so large that its sum with a score might overflow */
    uint8_t *seen;   /* tile: may the query see the key; valid where coverage is SOME */
    real *b; /* tile: bias, slopes and relative, valid if biased; finite if the caller's bias is */
    FN(qkv_ahead) next_b; /* where the next tile's b comes from */
    real *s, *w; /* tile, the same memory: the scores, which become the weights (going forward not
                    yet divided by sum) */

    /* The rows, QKV_LANES each. */
    real *max, *sum; /* of the exponents so far; sum counts from max */
    real *log_sum;   /* log(sum), once forward is done; what backward reads */
    real *rescale;   /* what this tile's new max does to earlier sums: exp(old max - max) */
    real *from;      /* max where it is not -inf: what the tile's exponents are counted from */
    real *tile_max;  /* of the scores of this tile, by score.c */
    real *tile_sum;  /* of the weights of this tile */
    real *any;       /* 1 if the row has seen a key, else 0 */
    /* By the scan: the largest exponent (hard, sparsemax, entmax), the least that is selected
     * (top-k), the smallest u^2 (nearest), the count (uniform). */
    real *best;
    ptrdiff_t *winner; /* by the scan: the key of best, the last one for top-k; -1 for none */
    real *threshold; /* by the scan of sparsemax and entmax, counted from best; top-k: 1 / count */
    real *exponents; /* of the walk, for the scan of select.c: n_k rows; top-k: and as
                          many again for maxima of groups */

    real *o;                         /* d_v x QKV_LANES, the pooled values so far; of the leg */
    bool legs;                       /* the walk has several */
    real *earlier;                   /* o or dq of the legs before, room for either */
    real *earlier_sum, *earlier_max; /* the same of the row's sum; max: what they count from */
} FN(qkv_block);

/* Is something added to the scores? */
static inline bool IN(qkv_biased)(const FN(qkv_inputs) *in)
{
    return in->bias.data || in->slopes.data || in->relative.data;
}

/* May the query of lane i see the key of row j? Not asked for lanes beyond n_q. */
static inline bool FN(qkv_pair)(const FN(qkv_block) *t, int j, int i)
{
    return t->coverage == QKV_SEES_ALL || t->seen[j * QKV_LANES + i];
}

/* The bias of element x of the tile, 0 if there is none. */
static inline real FN(qkv_bias_at)(const FN(qkv_block) *t, int x)
{
    return IN(qkv_biased)(t->in) ? t->b[x] : 0;
}

/* A tile whose weights are to be pooled. */
typedef struct FN(qkv_pooling) {
    const FN(qkv_block) *t;
    FN(qkv_rows) v;
    ptrdiff_t d;
    int n_k, vectors;
    const real *w, *rescale;
    real *o;
    bool by_pairs; /* some hidden value is not finite; t must still be at this tile */
} FN(qkv_pooling);

/* ---- score.c ---- */
/* 1 / ||x|| of n numbers, 0 of zeros, without overflow on the way; and the same of the n rows that
 * are each lane's, of whole vectors. */
real IN(qkv_inverse_norm)(const real *x, ptrdiff_t n);
void IN(qkv_inverse_norms)(const real *lanes, ptrdiff_t n, int vectors, real *inverse);
/* The tile as a user's score sees it. */
FN(qkv_score_tile) IN(qkv_score_tile_of)(const FN(qkv_block) *t);
void IN(qkv_score_tile)(FN(qkv_block) *t); /* s and tile_max */
/* s[j][i] = sum_c x[j][c] lanes[c][i] for n rows; max: the largest s of each lane. ahead: to be
 * fetched meanwhile, or NULL. */
void IN(qkv_dot_tile)(const FN(qkv_rows) *x, int n, const real *lanes, ptrdiff_t d, int vectors,
                      real *s, real *max, const FN(qkv_ahead) *ahead);
/* ---- softcap.c ---- */
/* n rows of s become c tanh(s / c), if the problem says so; slope: its derivative, or NULL. */
void IN(qkv_softcap)(const FN(qkv_block) *t, real *s, int n, real *slope);
/* ---- mask.c ---- */
void IN(qkv_mask_tile)(FN(qkv_block) *t); /* sets coverage, seen and b */
/* The keys that the rules leave to a query, but for leave_one_out: from first on, before end. Both
 * ascend with the query. */
typedef struct IN(qkv_span) {
    ptrdiff_t first, end;
} IN(qkv_span);
IN(qkv_span) IN(qkv_span_of)(const FN(qkv_inputs) *in, ptrdiff_t batch, ptrdiff_t query);
/* j - i - causal_offset of row j of the tile and lane 0; lane i has i less. */
real IN(qkv_distance_of)(const FN(qkv_block) *t, int j);
/* The entries of a table of relative positions for the distances of the tile, from the largest
 * down: r[n_k - 1 - j + i] is that of row j and lane i. */
enum { QKV_SEGMENT = QKV_KEYS + QKV_LANES };
void IN(qkv_relative_segment)(const FN(qkv_block) *t, const FN(qkv_view) *table,
                              real r[QKV_SEGMENT]);
/* The entries of r[0] .. r[n - 1] above: before last the table's last one, from first on entry 0,
 * in between at - m. */
typedef struct IN(qkv_diagonals) {
    int last, first;
    ptrdiff_t at;
} IN(qkv_diagonals);
IN(qkv_diagonals) IN(qkv_diagonals_of)(const FN(qkv_block) *t, int n);
/* Of a block: all keys that the rules leave to any of its queries. */
IN(qkv_span) IN(qkv_mask_span)(const FN(qkv_block) *t);
/* ---- normalize.c ---- */
void IN(qkv_normalize_begin)(FN(qkv_block) *t);  /* the rows, before the first tile */
void IN(qkv_normalize_scan)(FN(qkv_block) *t);   /* s, b, seen -> best, winner */
void IN(qkv_normalize_online)(FN(qkv_block) *t); /* s, b, seen -> w, max, sum, rescale, any */
/* The same for softmax in three steps: max and rescale; weights and tile_sum, which may be done by
 * pool.c in between; sum. */
FN(qkv_exponents) IN(qkv_softmax_begin)(FN(qkv_block) *t);
void IN(qkv_softmax_weigh)(FN(qkv_exponents) *e, int vectors);
void IN(qkv_softmax_end)(FN(qkv_block) *t);
/* A leg ends: o and sum join those of the legs before. They are 0 then, or after the last leg, the
 * sums of all. */
void IN(qkv_normalize_leg)(FN(qkv_block) *t, bool last);
/* s += b, -inf where hidden, and tile_max with them. */
void IN(qkv_complete_exponents)(FN(qkv_block) *t);
/* s, b, seen, max, log_sum -> final w; 0 where unseen. */
void IN(qkv_normalize_weights)(FN(qkv_block) *t);
real IN(qkv_kernel_weight)(const qkv_attention *a, real u2);
/* ---- select.c ---- */
/* The scan's tile: its exponents are kept; seen false if there are none. */
void IN(qkv_select_keep)(FN(qkv_block) *t, bool seen);
/* Kept exponents -> best, winner, threshold. False if, of equals, not all are selected: then all
 * tiles must pass once more, by the next, in order. */
bool IN(qkv_select_end)(FN(qkv_block) *t);
void IN(qkv_select_find)(FN(qkv_block) *t); /* winner */
/* Hides the pairs that are not selected; sets coverage. */
void IN(qkv_select_tile)(FN(qkv_block) *t);
/* w, but of top-k softmax. */
void IN(qkv_select_weights)(FN(qkv_block) *t);
/* ---- dropout.c ---- */
/* The factor of each weight of the tile, 0 or 1 / (1 - p), to keep and onto w; either may be
 * NULL. */
void IN(qkv_dropout)(const FN(qkv_block) *t, real *keep, real *w);
/* x *= keep, of which 0 times anything is 0. */
void IN(qkv_times_keep)(const FN(qkv_block) *t, const real *keep, real *x);
/* ---- pool.c ---- */
/* o = o * rescale + w v. Exponents of another tile, if there are any, become weights meanwhile: the
 * two keep different units of the processor busy. */
void IN(qkv_pool_tile)(const FN(qkv_pooling) *p, FN(qkv_exponents) *e);
FN(qkv_pooling) IN(qkv_pooling_of)(const FN(qkv_block) *t);
/* earlier = earlier * factor + sums, d rows of them; sums = 0, after the last leg the same. */
void IN(qkv_add_leg)(real *sums, real *earlier, const real *factor, ptrdiff_t d, bool last);
/* The same for d_v of 1 or 2, all values finite: the exponents are weighed and pooled at once. */
void IN(qkv_pool_narrow)(FN(qkv_block) *t, FN(qkv_exponents) *e);
bool IN(qkv_rows_finite)(const FN(qkv_rows) *rows, int n, ptrdiff_t d);

/* ---- block.c: the loop's own parts, shared with grad/ and covariance.c ---- */
/* Points the buffers of a walk's blocks into memory (aligned); NULL counts only. The blocks share
 * what only the tile at hand needs. Bytes, or SIZE_MAX on overflow. */
size_t IN(qkv_blocks_layout)(FN(qkv_block) *t, int blocks, const qkv_attention *a, void *memory);
real IN(qkv_scale_of)(const FN(qkv_inputs) *in, ptrdiff_t batch, ptrdiff_t head);
void IN(qkv_block_begin)(FN(qkv_block) *t, ptrdiff_t batch, ptrdiff_t head, ptrdiff_t index);
/* The keys of a walk are known: legs, and earlier is 0. */
void IN(qkv_legs_begin)(FN(qkv_block) *t, IN(qkv_span) keys);
/* The scan of normalize.c over all tiles, where one is needed; keys: what a tile has room for. */
void IN(qkv_block_scan)(FN(qkv_block) *t, int keys);
/* The keys of the tile as the caller has them. */
void IN(qkv_block_keys)(FN(qkv_block) *t);
/* Masks and loads the tile of up to n keys at k0; false, and no more than the mask done, if nothing
 * in it is seen. */
bool IN(qkv_block_mask)(FN(qkv_block) *t, ptrdiff_t k0, int n);
/* Scores the masked tile and selects; slope: the softcap's, or NULL. False as above. */
bool IN(qkv_block_score)(FN(qkv_block) *t, real *slope);
/* Both. */
bool IN(qkv_block_tile)(FN(qkv_block) *t, ptrdiff_t k0, int n);

/* ---- decode.c: forward for few queries and many keys, without bias, mask and weights ---- */
bool IN(qkv_decode_suits)(const qkv_attention *a);
ptrdiff_t IN(qkv_decode_pieces)(const qkv_attention *a);
size_t IN(qkv_decode_share)(const qkv_attention *a);
size_t IN(qkv_decode_common)(const qkv_attention *a);
void IN(qkv_decode)(const FN(qkv_inputs) *in, const FN(qkv_outputs) *out, const qkv_team *team);

/* ---- covariance.c ---- */
size_t IN(qkv_covariance_share)(const qkv_attention *a);
ptrdiff_t IN(qkv_covariance)(const FN(qkv_inputs) *in, const FN(qkv_view) *to,
                             const qkv_team *team);

/* ---- summary.c ---- */
size_t IN(qkv_summary_share)(const qkv_attention *a);
size_t IN(qkv_summary_common)(const qkv_attention *a);
void IN(qkv_summarize)(const FN(qkv_inputs) *in, const FN(qkv_summary_views) *out,
                       const qkv_team *team);

/* ---- lanes.c: between rows of the caller's and lanes ---- */
/* to[c][i] = scale * x[i * row + c * column] for n rows, 0 in the other lanes. */
void IN(qkv_to_lanes)(real *to, const real *x, ptrdiff_t row, ptrdiff_t column, int n, ptrdiff_t d,
                      int vectors, real scale);
/* x[i * row + c * column] = from[c][i] * factor[i], or += it. */
void IN(qkv_from_lanes)(real *x, ptrdiff_t row, ptrdiff_t column, int n, ptrdiff_t d,
                        const real *from, const real *factor, bool add);

#endif
