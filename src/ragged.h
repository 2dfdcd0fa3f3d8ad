/* ragged.h - the items of a ragged batch as problems of their own, over the caller's arrays. */
#ifndef QKV_SRC_RAGGED_H
#define QKV_SRC_RAGGED_H

#include "items.h"
#include "kernels.h"
#include "qkv/ragged.h"

/* Checks problem, starts and operands, and resolves them for all items as one. */
qkv_status FN(qkv_ragged_resolve)(const char *who, const qkv_attention *a, const int64_t *starts_q,
                                  const int64_t *starts_k, const FN(qkv_operands) *in,
                                  qkv_items *items, FN(qkv_inputs) *all, qkv_slot_list *list);

/* Moves a view along an axis: from all items to one. */
static inline void FN(qkv_begin_at)(FN(qkv_view) *view, int axis, int64_t at)
{
    if (view->data) view->data += at * view->stride[axis];
}

FN(qkv_inputs)
FN(qkv_inputs_of_item)(const qkv_items *items, const FN(qkv_inputs) *all, ptrdiff_t b);

/* What forward needs: bytes a thread (SIZE_MAX on overflow), and *work, how many threads pay. */
size_t FN(qkv_ragged_forward_share)(const FN(qkv_forward_kernels) *kernels, const qkv_items *items,
                                    ptrdiff_t *work);

#endif
