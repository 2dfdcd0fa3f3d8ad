/* softmax.h - what softmax, log_softmax and cross_entropy share: a row's maximum, and the log of
 * its sum. */
#ifndef QKV_GRAD_SOFTMAX_H
#define QKV_GRAD_SOFTMAX_H

#include "grad/axes.h"
#include "src/real.h"

/* n numbers at a stride: their largest, and log(sum exp(x - max)), apart, since at 1e30 their sum
 * would lose the log. A row of -inf alone has no distribution: its log_sum is NaN, as is that of a
 * row with NaN or +inf. */
typedef struct FN(qkv_row_sum) {
    real max, log_sum;
} FN(qkv_row_sum);

static inline FN(qkv_row_sum) FN(qkv_sum_row)(const real *x, size_t n, size_t stride)
{
    FN(qkv_row_sum) r = {.max = (real)-INFINITY};
    real sum = 0;
    for (size_t i = 0; i < n; i++) r.max = x[i * stride] > r.max ? x[i * stride] : r.max;
    for (size_t i = 0; i < n; i++) sum += exp(x[i * stride] - r.max);
    r.log_sum = log(sum);
    return r;
}

/* The shape function of both softmaxes: as the input, with the axis (an int) for state. */
static inline qkv_status FN(qkv_softmax_shape)(qkv_tape *tape, qkv_node *node,
                                               const void *arguments)
{
    const qkv_node *x = qkv_input(tape, node, 0);
    int *axis = qkv_node_take(tape, node, 1, sizeof *axis);
    if (!axis || qkv_node_axis(tape, node, x->rank, *(const int *)arguments, axis))
        return qkv_tape_status(tape);
    node->state = axis;
    return qkv_node_shape(tape, node, x->rank, x->dim);
}

#endif
