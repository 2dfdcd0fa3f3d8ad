/* problem.h - is the problem well posed: its sizes, its choices, and which elements the arrays
 * share? No dtype. */
#ifndef QKV_SRC_PROBLEM_H
#define QKV_SRC_PROBLEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkv/attention.h"

/* An array as the checks see it. */
typedef struct qkv_extent {
    const char *name;
    const void *data;
    size_t element; /* bytes of an element */
    ptrdiff_t dim[4], stride[4];
    uintptr_t first, last; /* its bytes; filled in by the list */
    bool written;
    bool packed;  /* in C order: no element stands twice */
    bool reduces; /* a stride of 0 means a sum, not an element written twice */
} qkv_extent;

/* Every array of a call, gathered while they are resolved and checked in one go. */
typedef struct qkv_slot_list {
    const char *who;               /* the public function, for messages */
    const struct qkv_items *items; /* of a ragged batch; NULL: none */
    int n;
    qkv_extent extent[56];
} qkv_slot_list;

/* "a cosine" and so on. */
const char *qkv_score_name(const qkv_attention *a);
/* filled = a with kv_heads and bandwidths. QKV_E_ARG, QKV_E_SHAPE or QKV_E_OVERFLOW for a problem
 * that is not well posed. */
qkv_status qkv_problem_check(const char *who, const qkv_attention *a, size_t element,
                             qkv_attention *filled);

/* Multiply-adds of all queries with all keys, about. */
double qkv_work_of(const qkv_attention *a);

/* C-order strides over dim, or the given ones. */
void qkv_strides(const ptrdiff_t dim[4], bool strided, const ptrdiff_t given[4],
                 ptrdiff_t stride[4]);

/* Appends an array; absent ones (data NULL) are skipped. QKV_E_OVERFLOW if its elements cannot all
 * be addressed. */
qkv_status qkv_slot_list_add(qkv_slot_list *list, const qkv_extent *extent);

/* QKV_E_ALIAS if a written element is written twice or shared with another array; names both. */
qkv_status qkv_slot_list_check(const qkv_slot_list *list);

#endif
