/* inputs.h - from the caller's structs to checked views. */
#ifndef QKV_SRC_INPUTS_H
#define QKV_SRC_INPUTS_H

#include "items.h"
#include "problem.h"
#include "qkv/attention.h"
#include "real.h"

/* Are the weights 0 but for the keys that select.c finds? */
static inline bool qkv_selects(const qkv_attention *a)
{
    return a->normalize == QKV_TOP_K || a->normalize == QKV_TOP_K_UNIFORM ||
           a->normalize == QKV_SPARSEMAX || a->normalize == QKV_ENTMAX_15;
}

/* Does backward need a sum over each row that forward does not keep? */
static inline bool qkv_has_row_pass(const qkv_attention *a)
{
    return a->normalize == QKV_SPARSEMAX || a->normalize == QKV_ENTMAX_15;
}

/* Must all keys be looked at before the first weight is known? */
static inline bool qkv_needs_scan(const qkv_attention *a)
{
    return qkv_selects(a) || a->normalize == QKV_HARD || a->normalize == QKV_UNIFORM ||
           (a->normalize == QKV_KERNEL_SUM && a->empty == QKV_EMPTY_NEAREST);
}

/* Entries of a table of relative positions. */
static inline ptrdiff_t qkv_relative_size(const qkv_attention *a)
{
    return a->relative_left + a->relative_right + 1;
}

/* Is the score a product, of rows as they are or of unit length? */
static inline bool qkv_is_dot(const qkv_attention *a)
{
    return a->score <= QKV_SCORE_COSINE;
}

/* Is it a distance, with bandwidths? */
static inline bool qkv_is_distance(const qkv_attention *a)
{
    return a->score >= QKV_SCORE_GAUSSIAN && a->score <= QKV_SCORE_CAUCHY;
}

/* A softmax over all or over some? Their scores count in base 2. */
static inline bool qkv_is_softmax(const qkv_attention *a)
{
    return a->normalize == QKV_SOFTMAX || a->normalize == QKV_TOP_K;
}

/* Are the weights divided by a sum that forward finds and backward is given? */
static inline bool qkv_has_sum(const qkv_attention *a)
{
    return qkv_is_softmax(a) || a->normalize == QKV_KERNEL_SUM;
}

/* Has a row a log-sum-exp? That of equal weights is the log of their number. */
static inline bool qkv_has_lse(const qkv_attention *a)
{
    return qkv_has_sum(a) || a->normalize == QKV_TOP_K_UNIFORM;
}

/* Are the weights a distribution over the keys? */
static inline bool qkv_is_convex(const qkv_attention *a)
{
    return a->normalize < QKV_NONE_EXP;
}

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
    ptrdiff_t item;  /* of a ragged batch, else 0: what batch 0 is to dropout and mask_rule */
    qkv_attention a; /* kv_heads and bandwidths filled in */
    FN(qkv_view) q, k, v, bias, scale, slopes, sink, relative;
    FN(qkv_view) parameters; /* the bandwidths of a distance, the w of other scores */
    qkv_slot_bool mask;
    qkv_user_mask mask_rule;
    const int64_t *lengths, *causal_offsets;
    const FN(qkv_user_score) *user_score;
} FN(qkv_inputs);

typedef struct FN(qkv_outputs) {
    FN(qkv_view) o, lse, row_max, row_log_sum, weights;
} FN(qkv_outputs);

/* Resolves the operands of a problem that is checked already, and starts the list of arrays with
 * them. list->who and list->items are set: a is items->rows then. */
qkv_status FN(qkv_inputs_view)(const qkv_attention *a, const FN(qkv_operands) *in,
                               FN(qkv_inputs) *out, qkv_slot_list *list);
/* The same, and checks the problem. */
qkv_status FN(qkv_inputs_resolve)(const char *who, const qkv_attention *a,
                                  const FN(qkv_operands) *in, FN(qkv_inputs) *out,
                                  qkv_slot_list *list);
/* The same for the results of forward. */
qkv_status FN(qkv_outputs_resolve)(const qkv_attention *a, const FN(qkv_results) *out,
                                   FN(qkv_outputs) *views, qkv_slot_list *list);
enum { QKV_OPERANDS = 10 };
/* The sizes of q, k, v, bias, scale, bandwidth, w, slopes, sink, relative; items: NULL if not
 * ragged. */
void FN(qkv_operand_dims)(const qkv_attention *a, const qkv_items *items,
                          const FN(qkv_operands) *in, ptrdiff_t dims[QKV_OPERANDS][4]);
/* Adds these arrays, of these sizes, to the list: inputs, their gradients, which are written, or
 * their tangents. */
typedef enum qkv_role { QKV_INPUT, QKV_GRADIENT, QKV_TANGENT } qkv_role;
qkv_status FN(qkv_operands_list)(ptrdiff_t dims[QKV_OPERANDS][4], const FN(qkv_operands) *x,
                                 qkv_role role, qkv_slot_list *list);
FN(qkv_view) FN(qkv_view_of)(const FN(qkv_slot) *slot, const ptrdiff_t dim[4]);
/* Of scale, bandwidth or w: packed means one for all batch items and heads. */
FN(qkv_view) FN(qkv_parameter_view)(const FN(qkv_slot) *slot, const ptrdiff_t dim[4]);
/* Of slopes, sink or relative: packed means the same for all batch items. */
FN(qkv_view) FN(qkv_head_view)(const FN(qkv_slot) *slot, const ptrdiff_t dim[4]);
/* QKV_E_ARG for a bandwidth or a w that does not go with the score. */
qkv_status FN(qkv_parameters_check)(const char *who, const qkv_attention *a,
                                    const FN(qkv_operands) *x);
qkv_extent FN(qkv_extent_of)(const char *name, const FN(qkv_slot) *slot, const ptrdiff_t dim[4],
                             bool written);

#endif
