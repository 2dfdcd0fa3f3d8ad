/* strided.h - what transpose and broadcast share: y is x, read by strides. */
#ifndef QKV_GRAD_STRIDED_H
#define QKV_GRAD_STRIDED_H

#include "grad/loops.h"
#include "src/real.h"

/* The node's state: for each axis of y, its stride in x, 0 where x is stretched. */
typedef struct qkv_strided {
    size_t stride[QKV_MAX_RANK];
    int axis[QKV_MAX_RANK]; /* transpose: which of x's it is */
} qkv_strided;

qkv_status FN(qkv_strided_forward)(qkv_tape *tape, qkv_node *node);
qkv_status FN(qkv_strided_backward)(qkv_tape *tape, qkv_node *node);

#endif
