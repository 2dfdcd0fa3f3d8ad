/* axes.h - loops over some axes of an array in the order of another's: what reductions,
 * transpositions, slices and gathers have in common. */
#ifndef QKV_GRAD_AXES_H
#define QKV_GRAD_AXES_H

#include "grad/tape.h"

/* Visits n elements of x at the strides of dim's axes, the last one fastest. */
typedef struct qkv_odometer {
    int rank;
    const ptrdiff_t *dim;
    ptrdiff_t stride[QKV_MAX_RANK], index[QKV_MAX_RANK];
    ptrdiff_t at; /* the present offset */
} qkv_odometer;

/* Packed strides of an array. */
static inline void qkv_packed_strides(int rank, const ptrdiff_t *dim, ptrdiff_t *stride)
{
    ptrdiff_t n = 1;
    for (int i = rank - 1; i >= 0; i--) {
        stride[i] = n;
        n *= dim[i];
    }
}

static inline void qkv_odometer_next(qkv_odometer *o)
{
    for (int i = o->rank - 1; i >= 0; i--) {
        o->at += o->stride[i];
        if (++o->index[i] < o->dim[i]) return;
        o->at -= o->stride[i] * o->dim[i];
        o->index[i] = 0;
    }
}

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
