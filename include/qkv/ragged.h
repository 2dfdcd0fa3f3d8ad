/* ragged.h - attention over sequences of different lengths that stand one after the other, without
 * padding: batch item b has the queries starts_q[b] .. starts_q[b + 1] - 1 of all queries and the
 * keys starts_k[b] .. starts_k[b + 1] - 1 of all keys, and sees nothing of the other items. (Others
 * call it varlen, with cu_seqlens: Dao 2023, FlashAttention-2; or nested tensors.)
 *
 * Every call gives, to the bit, what the calls of attention.h give for the items as problems of
 * their own, one after the other: for any number of threads, whatever other items there are. (But
 * dropout takes item b for batch item b, so that items do not drop the same.)
 *
 * The problem is a qkv_attention, with these differences:
 *
 *     batch       the number of items
 *     n_q, n_k    0, or the totals starts_q[batch] and starts_k[batch], which are then compared
 *     mask        counts queries and keys within the item: query 0 is the item's first.
 *                 Bottom-right alignment is causal_offsets[b] = number of keys - number of queries
 *
 * and these of the operands, results and gradients. A slot has no batch axis where it has rows (its
 * stride[0] is not used), and its row axis runs through all items:
 *
 *     q           [heads, total_q, d_k]         packed; strided: as projections leave it,
 *     k           [kv_heads, total_k, d_k]      [total, heads, d] is stride[1] = d,
 *     v           [kv_heads, total_k, d_v]      stride[2] = heads d, stride[3] = 1
 *     o           [heads, total_q, d_v]
 *     lse, row_max, row_log_sum [heads, total_q]
 *     bias, mask  [heads, total_q, longest]     longest: the most keys of an item. Column j is key
 *                                               j of the row's own item; the rest is not read, and
 *                                               of dbias not written
 *     scale, bandwidth, w, slopes, sink, causal_offsets
 *                 as ever: strided, stride[0] goes from item to item
 *     mask_rule   is told the item as tile->batch, and queries and keys within it
 *     lengths     must be NULL: the starts say it
 *     weights     must be absent
 *
 * Errors are those of attention.h, and QKV_E_SHAPE if starts do not begin with 0, descend, or end
 * elsewhere than at n_q or n_k; QKV_E_ARG for NULL starts of a batch that has items. */
#ifndef QKV_RAGGED_H
#define QKV_RAGGED_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* *bytes = the workspace for one pass (not QKV_COVARIANCE) at the present number of threads;
 * unspecified on an error. starts_q, starts_k: [batch + 1]. A smaller one serves as long as it
 * holds one thread's share; fewer threads then run. */
QKV_API qkv_status qkv_ragged_workspace(const qkv_attention *a, const int64_t *starts_q,
                                        const int64_t *starts_k, qkv_pass pass, qkv_dtype dtype,
                                        size_t *bytes);

/* As qkv_attention_forward_f32: o and the other results asked for are overwritten. Under
 * QKV_EMPTY_ERROR the rows of all items are written and counted. */
QKV_API qkv_status qkv_ragged_forward_f32(const qkv_attention *a, const int64_t *starts_q,
                                          const int64_t *starts_k, const qkv_operands_f32 *in,
                                          const qkv_results_f32 *out, void *workspace,
                                          size_t workspace_bytes);
QKV_API qkv_status qkv_ragged_forward_f64(const qkv_attention *a, const int64_t *starts_q,
                                          const int64_t *starts_k, const qkv_operands_f64 *in,
                                          const qkv_results_f64 *out, void *workspace,
                                          size_t workspace_bytes);

/* As qkv_attention_backward_f32: d_in += the vector-Jacobian product. Gradients that items share
 * (of scale, bandwidth, w, slopes, sink, and of a bias with stride[2] = 0) are added item by item,
 * in their order. */
QKV_API qkv_status qkv_ragged_backward_f32(const qkv_attention *a, const int64_t *starts_q,
                                           const int64_t *starts_k, const qkv_operands_f32 *in,
                                           const qkv_results_f32 *saved,
                                           const qkv_results_f32 *d_out,
                                           const qkv_operands_f32 *d_in, void *workspace,
                                           size_t workspace_bytes);
QKV_API qkv_status qkv_ragged_backward_f64(const qkv_attention *a, const int64_t *starts_q,
                                           const int64_t *starts_k, const qkv_operands_f64 *in,
                                           const qkv_results_f64 *saved,
                                           const qkv_results_f64 *d_out,
                                           const qkv_operands_f64 *d_in, void *workspace,
                                           size_t workspace_bytes);

#ifdef __cplusplus
}
#endif
#endif
