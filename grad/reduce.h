/* reduce.h - what sum, mean and max share. */
#ifndef QKV_GRAD_REDUCE_H
#define QKV_GRAD_REDUCE_H

#include "grad/loops.h"

/* The node's state. */
typedef struct qkv_reduction {
    size_t stride[QKV_MAX_RANK]; /* of the result on the input's axes: 0 where it is reduced */
    bool reduced[QKV_MAX_RANK];  /* of the input's axes */
    size_t count;                /* inputs to one result */
    size_t *winner;              /* max: for each result, the input that won */
} qkv_reduction;

/* The whole call, and the shape function behind it. */
qkv_var qkv_record_reduction(qkv_tape *tape, qkv_op_id op, qkv_var x, const int *axes, int n_axes,
                             bool keep);
qkv_status qkv_reduce_shape(qkv_tape *tape, qkv_node *node, const void *arguments);
/* The same, where a result of no inputs has no value. */
qkv_status qkv_reduce_shape_of_some(qkv_tape *tape, qkv_node *node, const void *arguments);

/* Over the input, the result beside it as operand a. */
qkv_loops qkv_reduce_loops(const qkv_tape *tape, const qkv_node *node);

/* y = sum x, and dx += factor dy. */
void qkv_sum_axes_f32(const qkv_tape *tape, const qkv_node *node);
void qkv_sum_axes_f64(const qkv_tape *tape, const qkv_node *node);
void qkv_spread_over_axes_f32(const qkv_tape *tape, const qkv_node *node, float factor);
void qkv_spread_over_axes_f64(const qkv_tape *tape, const qkv_node *node, double factor);

#endif
