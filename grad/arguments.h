/* arguments.h - what the doors of ops.c hand to an operation's shape function. */
#ifndef QKV_GRAD_ARGUMENTS_H
#define QKV_GRAD_ARGUMENTS_H

#include "qkv/tape.h"

enum { QKV_ATTEND_INPUTS = 6 };

typedef struct qkv_leaf_arguments {
    qkv_shape shape;
    const void *data;
    void *gradient;
    bool is_constant; /* a scalar, constant, instead of data */
    double constant;
} qkv_leaf_arguments;

typedef struct qkv_reduce_arguments {
    const int *axes; /* NULL: all */
    int n_axes;
    bool keep;
} qkv_reduce_arguments;

typedef struct qkv_slice_arguments {
    int axis;
    ptrdiff_t start, stop, step;
} qkv_slice_arguments;

typedef struct qkv_gather_arguments { /* cross_entropy: index are the labels, axis unused */
    int axis;
    const ptrdiff_t *index;
    ptrdiff_t n;
} qkv_gather_arguments;

typedef struct qkv_user_arguments {
    const qkv_user_op *op;
    qkv_shape shape;
} qkv_user_arguments;

typedef struct qkv_attend_arguments {
    const qkv_attention *attention;
    const qkv_slot_bool *mask;
    bool present[QKV_ATTEND_INPUTS]; /* which of q, k, v, bias, scale, bandwidth the inputs are, in
                                        this order */
} qkv_attend_arguments;

#endif
