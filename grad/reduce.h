/* reduce.h - what sum, mean and max share: which axes go, and the walk over the input with the
 * output beside it. */
#ifndef QKV_GRAD_REDUCE_H
#define QKV_GRAD_REDUCE_H

#include "grad/axes.h"

/* The node's state: over the input's axes, the strides of the output, 0 where it is reduced. */
typedef struct qkv_reduction {
    ptrdiff_t stride[QKV_MAX_RANK];
    size_t count;   /* inputs to one output */
    size_t *winner; /* max: for each output, the input that won */
} qkv_reduction;

/* The shape function: takes qkv_reduce_arguments. */
qkv_status qkv_reduce_shape(qkv_tape *tape, qkv_node *node, const void *arguments);

/* An odometer over the input whose offset is the output's. */
qkv_odometer qkv_reduce_walk(const qkv_tape *tape, const qkv_node *node);

#endif
