/* summary.h - what the weights of attention say, without their n_q x n_k matrix.
 *
 * All of it is of the weights before dropout, and is found in one pass over the keys once forward
 * has been there. Bits depend neither on the number of threads nor on strides. */
#ifndef QKV_SUMMARY_H
#define QKV_SUMMARY_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Each is computed if its data is given, and overwritten. w are the weights of a query. */
typedef struct qkv_summary_f32 {
    /* [batch, heads, n_q, 1]: -sum_j p_j log p_j with p = w / sum w, in nats; 0 for a query that
     * sees no key. */
    qkv_slot_f32 entropy;

    /* [batch, heads, n_q, 1]: (sum_j w_j)^2 / sum_j w_j^2, from 1 to the number of keys (Kish
     * 1965's effective sample size); 0 for a query that sees no key. */
    qkv_slot_f32 effective_keys;

    qkv_slot_f32 column_sums; /* [batch, heads, 1, n_k]: sum over queries: how much a key is seen */

    /* [batch, heads, n_q, top]: the largest weights, in descending order, and in keys their
     * numbers, the lowest of equals first; 0 and -1 where fewer are above 0. NaN counts as the
     * largest. */
    qkv_slot_f32 top_weights;
    int64_t *top_keys; /* packed; NULL: not wanted */
    ptrdiff_t top;

    /* [batch, heads, n_rows, n_k]: the weights of the queries rows[0..n_rows), each less than n_q,
     * in any order. */
    qkv_slot_f32 row_weights;
    const ptrdiff_t *rows;
    ptrdiff_t n_rows;
} qkv_summary_f32;

/* The same in double. */
typedef struct qkv_summary_f64 {
    qkv_slot_f64 entropy, effective_keys, column_sums, top_weights;
    int64_t *top_keys;
    ptrdiff_t top;
    qkv_slot_f64 row_weights;
    const ptrdiff_t *rows;
    ptrdiff_t n_rows;
} qkv_summary_f64;

/* saved: the row_max and row_log_sum that forward wrote for these inputs; a normaliser without a
 * sum needs none. Entropy and effective keys do not go with QKV_NONE_IDENTITY, whose weights have
 * signs; top_keys needs top_weights. Workspace: pass QKV_SUMMARY. Errors as
 * qkv_attention_forward_f32; QKV_E_SHAPE for a row that does not exist or a negative number. */
QKV_API qkv_status qkv_attention_summary_f32(const qkv_attention *a, const qkv_operands_f32 *in,
                                             const qkv_results_f32 *saved,
                                             const qkv_summary_f32 *out, void *workspace,
                                             size_t workspace_bytes);
QKV_API qkv_status qkv_attention_summary_f64(const qkv_attention *a, const qkv_operands_f64 *in,
                                             const qkv_results_f64 *saved,
                                             const qkv_summary_f64 *out, void *workspace,
                                             size_t workspace_bytes);

#ifdef __cplusplus
}
#endif
#endif
