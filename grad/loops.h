/* loops.h - visits the elements of one array in C order, knowing where the same elements are in two
 * others: what broadcasts, reductions, transpositions and batches of matrices have in common. */
#ifndef QKV_GRAD_LOOPS_H
#define QKV_GRAD_LOOPS_H

#include "grad/tape.h"

/* A loop over rows of n elements; neighbouring axes on which a and b go on evenly are one loop, so
 * that a row is as long as can be.
 *
 *     for (size_t row = 0; row < l.rows; row++, qkv_loops_next(&l))
 *         .. y[row * l.n + i], a[l.at_a + i * l.step_a], b[l.at_b + i * l.step_b] .. */
typedef struct qkv_loops {
    size_t rows, n;
    size_t step_a, step_b; /* along a row; 0 where an operand is stretched */
    size_t at_a, at_b;     /* of the present row */
    int rank;              /* of the loops outside a row, innermost first */
    size_t count[QKV_MAX_RANK], index[QKV_MAX_RANK];
    size_t stride_a[QKV_MAX_RANK], stride_b[QKV_MAX_RANK];
} qkv_loops;

/* Over an array of these sizes; strides are a's and b's on its axes, in elements. */
qkv_loops qkv_loops_over(int rank, const ptrdiff_t *dim, const size_t *stride_a,
                         const size_t *stride_b);
void qkv_loops_next(qkv_loops *loops);

/* The strides of packed x, stretched to an array of the given rank: 0 where x has size 1, or no
 * such axis. */
void qkv_stretched_strides(int rank, int x_rank, const ptrdiff_t *x_dim, size_t *stride);

/* Over node, with two of its inputs stretched to it. */
qkv_loops qkv_loops_broadcast(const qkv_node *node, const qkv_node *a, const qkv_node *b);

#endif
