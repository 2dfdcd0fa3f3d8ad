/* inputs.h - mirror of src/inputs.h: where the gradients go and what they come from. */
#ifndef QKV_GRAD_INPUTS_H
#define QKV_GRAD_INPUTS_H

#include "src/inputs.h"

/* data NULL where not wanted. dscale, dbandwidth, dw, dslopes and dsink are sums over everything a
 * head does, so each walk of queries first sums into its own place in partial, and the caller's
 * slots get += the walks in order. */
typedef struct FN(qkv_gradients) {
    FN(qkv_view) q, k, v, bias, scale, parameters, slopes, sink, relative;
    FN(qkv_view) d_o, d_lse;              /* the cotangents */
    FN(qkv_view) o, row_max, row_log_sum; /* what forward saved */
} FN(qkv_gradients);

/* Check and resolve; the arrays join the list. */
qkv_status FN(qkv_cotangents_resolve)(const qkv_attention *a, const FN(qkv_results) *saved,
                                      const FN(qkv_results) *d_out, FN(qkv_gradients) *to,
                                      qkv_slot_list *list);
qkv_status FN(qkv_gradients_resolve)(const qkv_attention *a, const FN(qkv_operands) *d_in,
                                     FN(qkv_gradients) *to, qkv_slot_list *list);
/* The operands' tangents, as views. */
qkv_status FN(qkv_tangents_resolve)(const qkv_attention *a, const FN(qkv_operands) *tangent,
                                    FN(qkv_gradients) *u, qkv_slot_list *list);

#endif
