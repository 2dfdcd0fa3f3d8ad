/* rows.h - what slice and gather share: rows of one axis, chosen by index. */
#ifndef QKV_GRAD_ROWS_H
#define QKV_GRAD_ROWS_H

#include "grad/axes.h"
#include "src/real.h"

/* The node's state. */
typedef struct qkv_rows_state {
    qkv_axis_view x;
    int axis;
    ptrdiff_t *index;
    size_t n;
} qkv_rows_state;

/* Gives the node the input's shape with n rows on the axis, and a state with room for n indices, to
 * be filled in. */
qkv_status FN(qkv_rows_shape)(qkv_tape *tape, qkv_node *node, int axis, ptrdiff_t n);
qkv_status FN(qkv_rows_forward)(qkv_tape *tape, qkv_node *node);
qkv_status FN(qkv_rows_backward)(qkv_tape *tape, qkv_node *node);

#endif
