/* turn.h - walks that add to the same memory take turns at it, piece by piece: a walk may touch the
 * keys below n when the walk before has passed n. */
#ifndef QKV_SRC_TURN_H
#define QKV_SRC_TURN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct qkv_turn {
    ptrdiff_t *passed; /* [items], keys that each walk has passed; NULL: one thread, no waiting */
    ptrdiff_t item;
    bool first; /* nobody comes before */
} qkv_turn;

void qkv_turn_wait(const qkv_turn *t, ptrdiff_t n);
void qkv_turn_pass(const qkv_turn *t, ptrdiff_t n);
/* No more keys: the next may pass where all before this one have. */
void qkv_turn_end(const qkv_turn *t);

/* Pieces of work whose last step must be done in order: piece n waits until n are through. */
void qkv_order_wait(const ptrdiff_t *through, ptrdiff_t n);
void qkv_order_pass(ptrdiff_t *through, ptrdiff_t n);

#endif
