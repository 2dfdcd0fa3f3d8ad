/* attention.h - softmax attention and its relatives, forward and backward, without state.
 *
 *     score        s_ij = scale a(q_i, k_j)            how well key j fits query i
 *     mask         seen_ij                             which keys query i may see at all
 *     normalize    alpha_ij from s_i. + bias_i.        the attention weights
 *     pool         o_i = sum_j alpha_ij v_j            the answer
 *
 * These are the steps of the chapter "Queries, Keys, and Values" of Dive into Deep Learning, and
 * its equations for attention pooling and softmax attention.
 *
 *     qkv_attention a = {.batch = 1, .heads = 8, .kv_heads = 2, .n_q = n, .n_k = n, .d_k = 64,
 *                        .d_v = 64, .mask.causal = true};
 *     qkv_operands_f32 in = {.q.data = q, .k.data = k, .v.data = v};
 *     qkv_results_f32 out = {.o.data = o, .row_max.data = m, .row_log_sum.data = l};
 *     qkv_attention_workspace(&a, QKV_FORWARD, QKV_F32, &bytes); // the same of QKV_BACKWARD
 *     qkv_attention_forward_f32(&a, &in, &out, workspace, bytes);
 *
 *     qkv_results_f32 d_out = {.o.data = d_o};
 *     qkv_operands_f32 d_in = {.q.data = dq, .k.data = dk, .v.data = dv};
 *     qkv_attention_backward_f32(&a, &in, &out, &d_out, &d_in, workspace, bytes); // dq += ..
 *
 * or, forward alone: qkv_attend_f32(&a, q, k, v, o).
 *
 * The caller owns all memory, the workspace included: nothing here allocates, locks, prints or
 * keeps state, but for qkv_attend_*, which allocates its own workspace and frees it on return.
 * Memory is linear in n_q + n_k: the matrix of weights exists only when results.weights asks for
 * it. Every function may be called from any number of threads at once.
 *
 * The bits of a result are the same for any number of threads, any strides, and whatever other
 * batch items and heads are computed with it. The bits of a query's outputs and gradient are the
 * same whatever other queries are, but that up to 4 queries against 4096 keys or more (softmax of a
 * dot score without bias, mask and weights) are summed in another order. Instruction sets (qkv_isa)
 * round differently.
 */
#ifndef QKV_ATTENTION_H
#define QKV_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- The problem: sizes and choices; no data, no dtype. All zero is softmax scaled dot. ------ */

/* s = scale a(q, k): here a, and the scale unless the operand scale replaces it. h is the operand
 * bandwidth. q'Mk for a matrix M is the dot of M'q and k: see qkv_attend in tape.h. */
typedef enum qkv_score {
    QKV_SCORE_SCALED_DOT = 0, /* q'k                                scale 1 / sqrt(d_k) */
    QKV_SCORE_DOT,            /* q'k                                scale 1 */
    QKV_SCORE_COSINE,         /* q'k / (||q|| ||k||), 0 if either is 0   scale 1 */
    QKV_SCORE_GAUSSIAN,       /* -1/2 sum_c u_c^2, u_c = (q_c - k_c) / h_c   scale 1 */
    QKV_SCORE_LAPLACE,        /* -sum_c |u_c|                        scale 1 */
    QKV_SCORE_CAUCHY,         /* -log(1 + sum_c u_c^2)               scale 1 */

    /* sum_c w_c tanh(q_c + k_c), scale 1: additive attention (Bahdanau, Cho & Bengio 2015) of
     * queries W_q q and keys W_k k; the tape projects them, here they come projected. */
    QKV_SCORE_ADDITIVE,
    QKV_SCORE_USER /* operands.user_score                 scale 1 */
} qkv_score;

/* How the scores s of a row become its weights. b is the bias (0 if absent); sums and the largest
 * are over the keys the query sees; a hidden key has weight 0. From QKV_TOP_K to QKV_ENTMAX_15 a
 * query looks at all keys before it gives the first weight (twice the work of a score, and n_k
 * numbers a thread and lane but for QKV_HARD and QKV_UNIFORM). */
typedef enum qkv_normalize {
    QKV_SOFTMAX = 0,   /* exp(s + b) / sum exp(s + b) */
    QKV_KERNEL_SUM,    /* K(u) e^b / sum K(u) e^b, with u = sqrt(-2 s) and K the field kernel */
    QKV_TOP_K,         /* softmax over the top_k largest s + b, the lowest indices among equals */
    QKV_HARD,          /* 1 at the largest s + b, the lowest index among equals; 0 elsewhere. Like
                       * QKV_TOP_K_UNIFORM without gradient by q and k, even where a score is NaN */
    QKV_UNIFORM,       /* 1 / number of seen keys; scores and finite biases are ignored */
    QKV_TOP_K_UNIFORM, /* equal weights for the keys of QKV_TOP_K: nearest neighbours */
    QKV_SPARSEMAX,     /* max(0, s + b - t), t such that they add up to 1: the point of the simplex
                       * closest to s + b (Martins & Astudillo 2016) */
    QKV_ENTMAX_15,     /* max(0, (s + b) / 2 - t)^2, likewise: 1.5-entmax, between softmax and
                       * sparsemax (Peters, Niculae & Martins 2019) */
    QKV_NONE_EXP,      /* exp(s + b), not normalised: the convex cone of the values */
    QKV_NONE_SIGMOID,  /* 1 / (1 + exp(-(s + b))), not normalised */
    QKV_NONE_KERNEL,   /* K(u) e^b, not normalised */
    QKV_NONE_IDENTITY  /* s + b itself, of any sign: any linear combination of the values */
} qkv_normalize;

/* K(u) for QKV_KERNEL_SUM and QKV_NONE_KERNEL, which need QKV_SCORE_GAUSSIAN; at its default scale,
 * u = ||(q - k) / h||. */
typedef enum qkv_kernel {
    QKV_KERNEL_BOXCAR = 0,   /* 1 if u <= 1, else 0 */
    QKV_KERNEL_TRIANGULAR,   /* max(0, 1 - u); the chapter calls it Epanechikov */
    QKV_KERNEL_EPANECHNIKOV, /* max(0, 1 - u^2) */
    QKV_KERNEL_BIWEIGHT,     /* max(0, 1 - u^2)^2 */
    QKV_KERNEL_TRIWEIGHT,    /* max(0, 1 - u^2)^3 */
    QKV_KERNEL_TRICUBE,      /* max(0, 1 - u^3)^3 */
    QKV_KERNEL_COSINE,       /* cos(pi u / 2) if u < 1, else 0 */
    QKV_KERNEL_CONSTANT      /* 1 */
} qkv_kernel;

/* What a QKV_KERNEL_SUM row is worth when it sees keys but all of them lie outside the support. */
typedef enum qkv_empty {
    /* O, weights and dQ of the row are NaN, lse is -inf; nothing else gets a gradient from it. */
    QKV_EMPTY_NAN = 0,
    /* The seen keys at the smallest u share the weight in proportion to e^b; lse is the log of the
     * sum of their e^b. */
    QKV_EMPTY_NEAREST,
    /* As NaN, and the forward call, having written everything, returns QKV_E_DOMAIN with the count
     * of such rows. */
    QKV_EMPTY_ERROR
} qkv_empty;

/* Who may see whom, by rule; all rules, operands.mask, mask_rule and lengths, and a bias of -inf
 * combine by "and". Query i stands at key i + causal_offset. */
typedef struct qkv_mask {
    bool causal; /* query i sees keys j <= i + causal_offset */

    /* 0 aligns top-left; n_k - n_q for a cache whose newest key belongs to the newest query.
     * operands.causal_offsets, if given, replaces it batch item by batch item. */
    ptrdiff_t causal_offset;

    bool leave_one_out; /* query i does not see key i */

    /* A sliding window: query i sees only the keys from i + causal_offset - window_left to
     * i + causal_offset + window_right, both included; a negative number sets no bound. */
    bool window;
    ptrdiff_t window_left, window_right;
} qkv_mask;

typedef struct qkv_attention {
    ptrdiff_t batch, heads; /* 0 means 0: nothing is computed, QKV_OK */

    /* 0 means heads. Query head h reads key/value head h / (heads / kv_heads). */
    ptrdiff_t kv_heads;

    ptrdiff_t n_q, n_k; /* queries, keys; either may be 0 */
    ptrdiff_t d_k, d_v; /* size of a query or key, size of a value; either may be 0 */

    /* Distances: 0 or 1: one bandwidth for all coordinates; d_k: one for each. QKV_SCORE_USER: how
     * many numbers its w has. 0 otherwise. */
    ptrdiff_t bandwidths;
    qkv_score score;
    qkv_normalize normalize;
    qkv_kernel kernel;
    bool open_edge; /* a key at u = 1 lies outside; the other kernels than the boxcar are 0 there */
    qkv_empty empty;

    /* operands.relative has an entry for each distance from -relative_left to relative_right. */
    ptrdiff_t relative_left, relative_right;
    ptrdiff_t top_k; /* QKV_TOP_K and QKV_TOP_K_UNIFORM: how many keys at most, 1 or more */
    qkv_mask mask;

    /* c > 0: each score becomes c tanh(s / c), before bias and mask (Gemma 2, 2024). 0: off. Not
     * with QKV_KERNEL_SUM, nor with QKV_UNIFORM, which reads no scores. */
    double softcap;

    /* Each weight becomes 0 with this probability, else 1 / (1 - dropout) times itself (Srivastava
     * et al. 2014); sum, lse and covariance do not change. 0: off; 1: o = 0. Dropped is what has
     * word key % 4 < dropout 2^32 (rounded) of Philox 4x32-10 (Salmon et al. 2011) with the counter
     * {query, key / 4, batch item * heads + head, dropout_offset} and the key dropout_seed, low
     * half first: the same forward and backward, for any threads. */
    double dropout;
    uint64_t dropout_seed;
    uint32_t dropout_offset; /* the number of the call, say */
} qkv_attention;

/* ---- The data -------------------------------------------------------------------------------- */

/* An array of 4 axes: batch, head, row, column. With nothing but data set it is packed in C order
 * over the sizes listed below. With strided = true, stride counts elements (not bytes) between
 * neighbours on each axis, of any sign; 0 repeats the data along an axis (inputs), or sums over it
 * (gradients of all but q, k and v). data NULL: the operand is absent, or its gradient or
 * result not wanted. */
typedef struct qkv_slot_f32 {
    float *data;
    bool strided;
    ptrdiff_t stride[4];
} qkv_slot_f32;

typedef struct qkv_slot_f64 {
    double *data;
    bool strided;
    ptrdiff_t stride[4];
} qkv_slot_f64;

/* A score of your own, a(q, k) for one tile of pairs at a time; called from several threads at
 * once. Queries i are lanes: q[c * lanes + i], s[j * lanes + i], with i < n_q <= lanes. */
typedef struct qkv_score_tile_f32 {
    ptrdiff_t batch, head, query, key; /* query and key: the first of the tile */
    ptrdiff_t n_q, n_k, d_k, lanes;
    const float *q;
    const float *k; /* k[j * k_stride + c] */
    ptrdiff_t k_stride;
    const float *w; /* operands.w of this batch item and head */
} qkv_score_tile_f32;

typedef struct qkv_user_score_f32 {
    /* s[j * lanes + i] = a(q_i, k_j), overwritten. */
    void (*forward)(void *context, const qkv_score_tile_f32 *tile, float *s);

    /* dq[c * lanes + i], dk[j * d_k + c] and dw[n] += the sum over pairs of da[j * lanes + i] times
     * the derivative of a(q_i, k_j). A pair whose da is 0 must add nothing: it may be hidden, and
     * its query or key NaN. Required by backward only. */
    void (*backward)(void *context, const qkv_score_tile_f32 *tile, const float *da, float *dq,
                     float *dk, float *dw);
    void *context;
} qkv_user_score_f32;

/* The same in double. */
typedef struct qkv_score_tile_f64 {
    ptrdiff_t batch, head, query, key;
    ptrdiff_t n_q, n_k, d_k, lanes;
    const double *q, *k;
    ptrdiff_t k_stride;
    const double *w;
} qkv_score_tile_f64;

typedef struct qkv_user_score_f64 {
    void (*forward)(void *context, const qkv_score_tile_f64 *tile, double *s);
    void (*backward)(void *context, const qkv_score_tile_f64 *tile, const double *da, double *dq,
                     double *dk, double *dw);
    void *context;
} qkv_user_score_f64;

typedef struct qkv_slot_bool {
    const uint8_t *data; /* 0: hidden, anything else: seen */
    bool strided;
    ptrdiff_t stride[4];
} qkv_slot_bool;

/* n_q queries of one head, from this one on, with n_k keys, from this one on. */
typedef struct qkv_mask_tile {
    ptrdiff_t batch, head, query, key;
    ptrdiff_t n_q, n_k;
    ptrdiff_t stride_q, stride_k; /* of seen, see below */
} qkv_mask_tile;

/* A mask of your own, without its matrix. fill is asked tile by tile: seen[i * stride_q + j *
 * stride_k] is 1 where all else lets query `query + i` see key `key + j`, and 0 elsewhere; it may
 * write 0 (a 1 over a 0 shows nothing). It is called from any thread, for tiles of any size, as
 * often as passes need them, and must answer the same each time. Of a tile that it hides as a whole
 * neither keys nor values are read. fill NULL: none. */
typedef struct qkv_user_mask {
    void (*fill)(void *context, const qkv_mask_tile *tile, uint8_t *seen);
    void *context; /* yours */
} qkv_user_mask;

/* The inputs, which are never written (data is not const because the same struct carries the
 * gradients). q, k and v are required where they have elements. As d_in, a slot with data receives
 * += the gradient of that input; what is no slot of numbers is ignored. */
typedef struct qkv_operands_f32 {
    qkv_slot_f32 q; /* [batch, heads, n_q, d_k] */
    qkv_slot_f32 k; /* [batch, kv_heads, n_k, d_k] */
    qkv_slot_f32 v; /* [batch, kv_heads, n_k, d_v] */

    /* [batch, heads, n_q, n_k]. Absent: 0. -inf hides the key, with a gradient of exactly 0. Of
     * softmax, finite exponents s + bias beyond +-FLT_MAX / log2(e) = 2.4e38 (DBL_MAX / log2(e))
     * count as that. */
    qkv_slot_f32 bias;

    /* One number; strided: [batch, heads] by the strides 0 and 1. Absent: see qkv_score. */
    qkv_slot_f32 scale;

    /* h > 0, in units of q and k: [bandwidths], shared by all; strided: [batch, heads, bandwidths]
     * by the strides 0, 1 and 3. Absent: 1. Distance scores only. */
    qkv_slot_f32 bandwidth;

    /* [d_k] of QKV_SCORE_ADDITIVE, [bandwidths] of QKV_SCORE_USER, shared by all; strided as
     * bandwidth. Required there, absent elsewhere. */
    qkv_slot_f32 w;

    /* [heads]; strided: [batch, heads] by the strides 0 and 1. slope (j - i - causal_offset) is
     * added as a bias would be, without its matrix (ALiBi: Press, Smith & Lewis 2022). Absent: 0.
     */
    qkv_slot_f32 slopes;

    /* [heads, relative_left + relative_right + 1]; strided: [batch, heads, entries] by the strides
     * 0, 1 and 3. A learned bias by relative position: entry d + relative_left is added to the
     * score of a key at distance d = j - i - causal_offset; what is farther away takes the first or
     * the last entry (Raffel et al. 2020; Shaw, Uszkoreit & Vaswani 2018). Absent: 0. */
    qkv_slot_f32 relative;

    /* [heads]; strided: [batch, heads] by the strides 0 and 1. A logit that takes part in the
     * softmax and the lse, but has no value: alpha_ij = exp(s_ij + b_ij) / (e^sink + sum). A row
     * that sees no key has o = 0 and lse = sink. Softmax only. Absent: none. */
    qkv_slot_f32 sink;

    qkv_slot_bool mask; /* [batch, heads, n_q, n_k]. Absent: all seen */

    qkv_user_mask mask_rule; /* beside the mask. Absent: all seen */

    /* [batch], packed: batch item b has only the keys j < lengths[b]; 0 to n_k. NULL: n_k each. */
    const int64_t *lengths;

    /* [batch], packed: mask.causal_offset of each batch item. NULL: the same for all. */
    const int64_t *causal_offsets;

    const qkv_user_score_f32 *user_score; /* QKV_SCORE_USER only */
} qkv_operands_f32;

/* The same in double. */
typedef struct qkv_operands_f64 {
    qkv_slot_f64 q, k, v, bias, scale, bandwidth, w, slopes, relative, sink;
    qkv_slot_bool mask;
    qkv_user_mask mask_rule;
    const int64_t *lengths, *causal_offsets;
    const qkv_user_score_f64 *user_score;
} qkv_operands_f64;

/* The outputs, overwritten. o is required, the others are computed if data is given. row_max and
 * row_log_sum are what backward needs beside o: keep them and pass them back. As d_out, o and lse
 * hold the cotangents (either may be absent, not both) and the others must be absent. */
typedef struct qkv_results_f32 {
    qkv_slot_f32 o; /* [batch, heads, n_q, d_v] */

    /* [batch, heads, n_q, 1]: log of the row's sum, -inf where a row sees nothing. Softmax, kernel
     * sum and top-k only; of QKV_TOP_K_UNIFORM the log of how many keys share the weight. */
    qkv_slot_f32 lse;

    /* [batch, heads, n_q, 1]: the largest exponent of the row; of softmax times log2(e), so that
     * both passes count from the same number to the bit. */
    qkv_slot_f32 row_max;
    qkv_slot_f32 row_log_sum; /* [batch, heads, n_q, 1]: log of the sum, without row_max */

    /* [batch, heads, n_q, n_k]: alpha, after dropout. The scores themselves are the weights of
     * QKV_NONE_IDENTITY: with bias and mask, or without, capped or not, as the problem says. */
    qkv_slot_f32 weights;
} qkv_results_f32;

/* The same in double. */
typedef struct qkv_results_f64 {
    qkv_slot_f64 o, lse, row_max, row_log_sum, weights;
} qkv_results_f64;

/* ---- The calls -------------------------------------------------------------------------------
 *
 * Their errors, found before anything is written:
 *   QKV_E_SHAPE     a negative size; heads no multiple of kv_heads; bandwidths neither 1 nor d_k;
 *                   d_k = 0 with the default scale 1 / sqrt(d_k)
 *   QKV_E_ARG       a NULL that is not said to be fine; choices that do not go together; an operand
 *                   or a result that does not go with the choices; a workspace too small
 *   QKV_E_OVERFLOW  a product of sizes exceeds what memory can hold
 *   QKV_E_ALIAS     an element would be written twice, or written and read
 * and after everything is written:
 *   QKV_E_DOMAIN    an empty support under QKV_EMPTY_ERROR (forward and covariance)
 */

typedef enum qkv_pass {
    QKV_FORWARD = 0,
    QKV_BACKWARD,
    QKV_COVARIANCE,
    QKV_JVP, /* this and the next: second_order.h */
    QKV_DOUBLE_BACKWARD,
    QKV_SUMMARY /* summary.h */
} qkv_pass;

/* *bytes = the workspace for one pass of a at the present number of threads; unspecified on an
 * error. A smaller one serves as long as it holds one thread's share; fewer threads then run. */
QKV_API qkv_status qkv_attention_workspace(const qkv_attention *a, qkv_pass pass, qkv_dtype dtype,
                                           size_t *bytes);

/* o = pool(normalize(mask(score(q, k)))), and the other results asked for, overwritten. A query
 * that sees no key has o = 0, weights 0, lse = -inf. workspace: of any alignment; NULL is fine if
 * there is nothing to compute. */
QKV_API qkv_status qkv_attention_forward_f32(const qkv_attention *a, const qkv_operands_f32 *in,
                                             const qkv_results_f32 *out, void *workspace,
                                             size_t workspace_bytes);
QKV_API qkv_status qkv_attention_forward_f64(const qkv_attention *a, const qkv_operands_f64 *in,
                                             const qkv_results_f64 *out, void *workspace,
                                             size_t workspace_bytes);

/* The vector-Jacobian product d_in += (d forward / d in)' d_out, for the slots of d_in that have
 * data. saved: the o, row_max and row_log_sum that forward wrote for these inputs; a normaliser
 * without a sum (all but softmax, kernel sum and top-k) needs none of them. Of the softmax over all
 * keys, o, row_max and row_log_sum serve for a shard of the keys too, which then adds its part of
 * the gradients; from lse = log(2) row_max + row_log_sum of merged shards, any such two numbers do.
 * The scores are recomputed tile by tile; for the softmax
 *
 *     dV_j  += sum_i alpha_ij dO_i
 *     dS_ij  = alpha_ij (dO_i'v_j - dO_i'o_i + dlse_i)
 *
 * (Dao et al. 2022, FlashAttention, algorithm 4; Baydin et al. 2018 for the notion). */
QKV_API qkv_status qkv_attention_backward_f32(const qkv_attention *a, const qkv_operands_f32 *in,
                                              const qkv_results_f32 *saved,
                                              const qkv_results_f32 *d_out,
                                              const qkv_operands_f32 *d_in, void *workspace,
                                              size_t workspace_bytes);
QKV_API qkv_status qkv_attention_backward_f64(const qkv_attention *a, const qkv_operands_f64 *in,
                                              const qkv_results_f64 *saved,
                                              const qkv_results_f64 *d_out,
                                              const qkv_operands_f64 *d_in, void *workspace,
                                              size_t workspace_bytes);

/* The covariance of values and keys under the weights p of each query,
 *
 *     cov_i = Cov_p[v, k] = sum_j p_ij (v_j - E v)(k_j - E k)'
 *
 * as [batch, heads, n_q, d_v * d_k], the last axis a row-major d_v x d_k matrix, overwritten. It is
 * the Jacobian of attention (exercise 2 of the chapter):
 *
 *     dO/dq = scale Cov_p[v, k]                     softmax of a dot score
 *     dO/dq = Cov_p[v, k] diag(scale / h_c^2)       softmax of the Gaussian
 *
 * One pass over the keys, by merged centred co-moments (Chan, Golub & LeVeque 1983), so a common
 * offset of the keys does not cancel. Weights that add up to 1 only. A query that sees no
 * key has 0, one that sees one key exactly 0. */
QKV_API qkv_status qkv_attention_covariance_f32(const qkv_attention *a, const qkv_operands_f32 *in,
                                                const qkv_slot_f32 *cov, void *workspace,
                                                size_t workspace_bytes);
QKV_API qkv_status qkv_attention_covariance_f64(const qkv_attention *a, const qkv_operands_f64 *in,
                                                const qkv_slot_f64 *cov, void *workspace,
                                                size_t workspace_bytes);

/* Softmax attention of the same queries over some of the keys: a shard. */
typedef struct qkv_partial_f32 {
    float *o;   /* [rows, d_v] */
    float *lse; /* [rows]; -inf where the shard has no key for the query, and o counts as absent */
} qkv_partial_f32;

typedef struct qkv_partial_f64 {
    double *o, *lse;
} qkv_partial_f64;

/* Two shards of the keys become the whole, out overwritten; rows counts all queries of all batch
 * items and heads. out may be a or b; shards may be merged in any order and number.
 *
 *     lse = log(e^lse_a + e^lse_b),  o = e^(lse_a - lse) o_a + e^(lse_b - lse) o_b
 *
 * (Milakov & Gimelshein 2018; Dao et al. 2022.) A sink belongs to one of the shards. QKV_E_SHAPE
 * for a negative size, QKV_E_ARG for NULL. */
QKV_API qkv_status qkv_attention_merge_f32(ptrdiff_t rows, ptrdiff_t d_v, const qkv_partial_f32 *a,
                                           const qkv_partial_f32 *b, const qkv_partial_f32 *out);
QKV_API qkv_status qkv_attention_merge_f64(ptrdiff_t rows, ptrdiff_t d_v, const qkv_partial_f64 *a,
                                           const qkv_partial_f64 *b, const qkv_partial_f64 *out);

/* d_a, d_b += the gradients of the shards, from those of the whole: d_out, of which o or lse may be
 * NULL. d_a, d_b or an array of theirs NULL: not wanted. What comes out goes into the shards'
 * backward as d_out.o and d_out.lse. Gradients share no memory with anything else. */
QKV_API qkv_status qkv_attention_merge_backward_f32(
    ptrdiff_t rows, ptrdiff_t d_v, const qkv_partial_f32 *a, const qkv_partial_f32 *b,
    const qkv_partial_f32 *d_out, const qkv_partial_f32 *d_a, const qkv_partial_f32 *d_b);
QKV_API qkv_status qkv_attention_merge_backward_f64(
    ptrdiff_t rows, ptrdiff_t d_v, const qkv_partial_f64 *a, const qkv_partial_f64 *b,
    const qkv_partial_f64 *d_out, const qkv_partial_f64 *d_a, const qkv_partial_f64 *d_b);

/* The common case: q, k, v and o packed (the shapes of qkv_operands_f32 and qkv_results_f32), o
 * overwritten; no bias and no boolean mask, scale and bandwidth at their defaults. QKV_E_NOMEM if
 * there is no memory for its workspace. */
QKV_API qkv_status qkv_attend_f32(const qkv_attention *a, const float *q, const float *k,
                                  const float *v, float *o);
QKV_API qkv_status qkv_attend_f64(const qkv_attention *a, const double *q, const double *k,
                                  const double *v, double *o);

#ifdef __cplusplus
}
#endif
#endif
