/* summary.h - the resolved outputs of a summary. */
#ifndef QKV_SRC_SUMMARY_H
#define QKV_SRC_SUMMARY_H

#include "inputs.h"
#include "qkv/summary.h"

typedef struct FN(qkv_summary_views) {
    FN(qkv_view) row_max, row_log_sum; /* saved */
    FN(qkv_view) entropy, effective_keys, column_sums, top_weights, row_weights;
    int64_t *top_keys;
    const ptrdiff_t *rows;
    ptrdiff_t top, n_rows;
} FN(qkv_summary_views);

#endif
