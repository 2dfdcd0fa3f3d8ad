/* radix.h - the rows of many numbers in their order, in linear time. */
#ifndef QKV_SRC_RADIX_H
#define QKV_SRC_RADIX_H

#include <stddef.h>

typedef struct qkv_key {
    double x;
    ptrdiff_t row;
} qkv_key;

/* Sorts keys, [n], by x, those that tie in the order they came; -0 and 0 tie, infinities are at the
 * ends. x has no NaN. room: [n], overwritten. */
void qkv_radix_sort(qkv_key *keys, qkv_key *room, ptrdiff_t n);

#endif
