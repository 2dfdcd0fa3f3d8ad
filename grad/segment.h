/* segment.h - an operation that is a segment of others (op_checkpoint.c): it keeps its result, and
 * the segment is recorded when its gradients are wanted. */
#ifndef QKV_GRAD_SEGMENT_H
#define QKV_GRAD_SEGMENT_H

#include "grad/reverse.h"
#include "src/real.h"

/* The node's backward: f of its inputs, on a tape of its own, and back. */
qkv_status FN(qkv_segment_backward)(qkv_tape *tape, const qkv_node *node, qkv_segment f,
                                    void *context);
/* The same as operations of this tape, which stay. */
void qkv_segment_differentiate(qkv_tape *tape, const qkv_reverse *r, qkv_segment f, void *context);

#endif
