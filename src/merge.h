/* merge.h - what both directions of the merge of two shards need. */
#ifndef QKV_SRC_MERGE_H
#define QKV_SRC_MERGE_H

#include "qkv/attention.h"
#include "real.h"

/* The weights e^(lse of a shard - lse) of a row, 0 of a shard without keys, and its lse. */
typedef struct FN(qkv_shares) {
    real a, b, lse;
} FN(qkv_shares);

FN(qkv_shares) FN(qkv_shares_of)(real a, real b);

/* 0 of anything is 0: the shard is as if absent. */
static inline real FN(qkv_share)(real weight, real x)
{
    return weight == 0 ? 0 : weight * x;
}

/* QKV_E_SHAPE or QKV_E_ARG unless all n parts, by these names, are there. */
qkv_status FN(qkv_merge_check)(const char *who, ptrdiff_t rows, ptrdiff_t d_v,
                               const FN(qkv_partial) *const parts[], const char *const names[],
                               int n);

#endif
