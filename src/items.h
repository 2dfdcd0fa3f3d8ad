/* items.h - the items of a ragged batch: where each begins, and what problem it is. No dtype. */
#ifndef QKV_SRC_ITEMS_H
#define QKV_SRC_ITEMS_H

#include "problem.h"
#include "team.h"

typedef struct qkv_items {
    qkv_attention rows; /* all of them, as the arrays lie: batch 1 (or 0), n_q and n_k the totals */
    ptrdiff_t n;
    ptrdiff_t longest; /* the most keys of an item */
    double work;       /* of all, as qkv_work_of */
    const int64_t *starts_q, *starts_k;
} qkv_items;

/* Checks problem and starts; see ragged.h. */
qkv_status qkv_items_of(const char *who, const qkv_attention *a, size_t element,
                        const int64_t *starts_q, const int64_t *starts_k, qkv_items *items);

/* Item b as a problem of its own. */
qkv_attention qkv_item_of(const qkv_items *items, ptrdiff_t b);

/* Calls compute for every item that has queries. The large ones come first, one after the other,
 * each with all threads; then the small ones, side by side, each with a team of one. in_order: all
 * count as large, and come in ascending order. A team's memory is its shares, without the part that
 * the given team has in common. */
void qkv_items_run(const qkv_items *items, const qkv_team *team, bool in_order,
                   void (*compute)(void *context, ptrdiff_t b, const qkv_team *team),
                   void *context);

#endif
