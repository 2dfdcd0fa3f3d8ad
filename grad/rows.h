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
/* The same with the caller's indices, copied, each in [0, size). */
qkv_status FN(qkv_rows_index)(qkv_tape *tape, qkv_node *node, int axis, const ptrdiff_t *index,
                              ptrdiff_t n, ptrdiff_t size);
/* whole[index[i]] += rows[i] around the axis. */
void FN(qkv_rows_add)(const qkv_rows_state *s, const real *rows, real *whole);
qkv_status FN(qkv_rows_forward)(qkv_tape *tape, qkv_node *node);
qkv_status FN(qkv_rows_backward)(qkv_tape *tape, qkv_node *node);

#endif
