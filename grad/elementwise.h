/* elementwise.h - all of an elementwise operation but its formula. The formulas are inlined into
 * the loops here, which are plain and vectorise. */
#ifndef QKV_GRAD_ELEMENTWISE_H
#define QKV_GRAD_ELEMENTWISE_H

#include "grad/loops.h"
#include "grad/sum_of.h"
#include "src/real.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* y = f(x) */
ALWAYS_INLINE qkv_status unary_forward(const qkv_tape *tape, const qkv_node *node,
                                       real (*f)(real x))
{
    const real *x = qkv_input(tape, node, 0)->value;
    real *restrict y = node->value;
    for (size_t i = 0; i < node->size; i++) y[i] = f(x[i]);
    return QKV_OK;
}

/* dx += slope(x, y) dy */
ALWAYS_INLINE qkv_status unary_backward(const qkv_tape *tape, const qkv_node *node,
                                        real (*slope)(real x, real y))
{
    const real *x = qkv_input(tape, node, 0)->value, *y = node->value, *dy = node->gradient;
    real *restrict dx = qkv_input_gradient(tape, node, 0);
    for (size_t i = 0; i < node->size; i++) dx[i] += slope(x[i], y[i]) * dy[i];
    return QKV_OK;
}

/* y = f(a, b) */
ALWAYS_INLINE qkv_status binary_forward(const qkv_tape *tape, const qkv_node *node,
                                        real (*f)(real a, real b))
{
    const qkv_node *in_a = qkv_input(tape, node, 0), *in_b = qkv_input(tape, node, 1);
    qkv_loops l = qkv_loops_broadcast(node, in_a, in_b);
    real *restrict y = node->value;
    for (size_t row = 0; row < l.rows; row++, y += l.n, qkv_loops_next(&l)) {
        const real *a = (const real *)in_a->value + l.at_a, *b = (const real *)in_b->value + l.at_b;
        if (l.step_a && l.step_b)
            for (size_t i = 0; i < l.n; i++) y[i] = f(a[i], b[i]);
        else if (l.step_a)
            for (size_t i = 0; i < l.n; i++) y[i] = f(a[i], *b);
        else
            for (size_t i = 0; i < l.n; i++) y[i] = f(*a, b[i]);
    }
    return QKV_OK;
}

/* The gradient of one operand (0: a, 1: b) += slope(a, b, y) dy, summed where it is stretched. In
 * blocks that stay in L1: one plain loop evaluates the formula, another adds or sums the block. */
ALWAYS_INLINE void binary_backward_of(const qkv_tape *tape, const qkv_node *node, int which,
                                      real (*slope)(real a, real b, real y))
{
    enum { BLOCK = 256 };
    real block[BLOCK];
    const qkv_node *in_a = qkv_input(tape, node, 0), *in_b = qkv_input(tape, node, 1);
    real *gradient = qkv_input_gradient(tape, node, which);
    if (!gradient) return;
    qkv_loops l = qkv_loops_broadcast(node, in_a, in_b);
    const size_t step = which ? l.step_b : l.step_a;
    const real *y = node->value, *dy = node->gradient;
    for (size_t row = 0; row < l.rows; row++, qkv_loops_next(&l)) {
        const real *a = (const real *)in_a->value + l.at_a, *b = (const real *)in_b->value + l.at_b;
        real *d = gradient + (which ? l.at_b : l.at_a);
        for (size_t left = l.n, n; left; left -= n, y += n, dy += n) {
            n = left < BLOCK ? left : BLOCK;
            if (l.step_a && l.step_b)
                for (size_t i = 0; i < n; i++) block[i] = slope(a[i], b[i], y[i]) * dy[i];
            else if (l.step_a)
                for (size_t i = 0; i < n; i++) block[i] = slope(a[i], *b, y[i]) * dy[i];
            else
                for (size_t i = 0; i < n; i++) block[i] = slope(*a, b[i], y[i]) * dy[i];
            if (step)
                for (size_t i = 0; i < n; i++) d[i] += block[i];
            else
                *d += FN(qkv_sum_of)(block, n);
            a += l.step_a * n;
            b += l.step_b * n;
            d += step * n;
        }
    }
}

ALWAYS_INLINE qkv_status binary_backward(const qkv_tape *tape, const qkv_node *node,
                                         real (*slope_a)(real a, real b, real y),
                                         real (*slope_b)(real a, real b, real y))
{
    binary_backward_of(tape, node, 0, slope_a);
    binary_backward_of(tape, node, 1, slope_b);
    return QKV_OK;
}

#endif
