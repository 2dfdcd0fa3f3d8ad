/* axes.h - an array seen around one of its axes. */
#ifndef QKV_GRAD_AXES_H
#define QKV_GRAD_AXES_H

#include "grad/tape.h"

/* An array seen as [outer, n, inner] around one axis. */
typedef struct qkv_axis_view {
    size_t outer, n, inner;
} qkv_axis_view;

static inline qkv_axis_view qkv_view_axis(const qkv_node *x, int axis)
{
    qkv_axis_view v = {1, (size_t)x->dim[axis], 1};
    for (int i = 0; i < axis; i++) v.outer *= (size_t)x->dim[i];
    for (int i = axis + 1; i < x->rank; i++) v.inner *= (size_t)x->dim[i];
    return v;
}

#endif
