/* cache.h - keys and values that grow in place, for text generated token by token: append the new
 * ones, attend to all. Past and present of the ONNX operator are the cache before and after.
 *
 *     qkv_cache_f32 c = {.batch = 1, .kv_heads = 8, .capacity = 4096, .d_k = 64, .d_v = 64,
 *                        .k = k, .v = v, .lengths = lengths, .offsets = offsets};
 *     ..
 *     qkv_cache_append_f32(&c, n, &new_k, &new_v);
 *     qkv_cache_bind_f32(&c, &a, &in);
 *     qkv_attention_forward_f32(&a, &in, &out, workspace, bytes);
 */
#ifndef QKV_CACHE_H
#define QKV_CACHE_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All memory is the caller's, and packed. */
typedef struct qkv_cache_f32 {
    ptrdiff_t batch, kv_heads, capacity, d_k, d_v; /* capacity: rows of each batch item */
    float *k;                                      /* [batch, kv_heads, capacity, d_k] */
    float *v;                                      /* [batch, kv_heads, capacity, d_v] */
    int64_t *lengths; /* [batch]: rows that are filled; 0 at first, or lower again to forget some */
    int64_t *offsets; /* [batch]: rows there were before the last append */
} qkv_cache_f32;

/* The same in double. */
typedef struct qkv_cache_f64 {
    ptrdiff_t batch, kv_heads, capacity, d_k, d_v;
    double *k, *v;
    int64_t *lengths, *offsets;
} qkv_cache_f64;

/* Copies n new rows of every batch item, k [batch, kv_heads, n, d_k] and v [batch, kv_heads, n,
 * d_v] (slots, any strides), behind those that are there; lengths rise by n, offsets become the
 * lengths before. QKV_E_SHAPE, and nothing is changed, if they do not fit (names the batch item),
 * or for a negative size or a length not in 0 .. capacity; QKV_E_ARG for a NULL that has elements;
 * QKV_E_OVERFLOW for a cache that exceeds memory. The new rows must not lie in the cache. */
QKV_API qkv_status qkv_cache_append_f32(const qkv_cache_f32 *cache, ptrdiff_t n,
                                        const qkv_slot_f32 *k, const qkv_slot_f32 *v);
QKV_API qkv_status qkv_cache_append_f64(const qkv_cache_f64 *cache, ptrdiff_t n,
                                        const qkv_slot_f64 *k, const qkv_slot_f64 *v);

/* Poses the attention of a's queries to all rows of the cache: of a, sets batch, kv_heads, n_k (the
 * greatest length), d_k and d_v; of in, k, v, lengths and causal_offsets, which point into the
 * cache from now on. With a's mask.causal, the n_q queries stand at the last n_q rows when n_q rows
 * were appended last. All else is left alone. The workspace that capacity rows need is enough for
 * any length. Errors as append, and QKV_E_ARG for NULL. */
QKV_API qkv_status qkv_cache_bind_f32(const qkv_cache_f32 *cache, qkv_attention *a,
                                      qkv_operands_f32 *in);
QKV_API qkv_status qkv_cache_bind_f64(const qkv_cache_f64 *cache, qkv_attention *a,
                                      qkv_operands_f64 *in);

#ifdef __cplusplus
}
#endif
#endif
