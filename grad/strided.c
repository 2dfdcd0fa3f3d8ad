#include "grad/strided.h"

#include "src/real.h"

static qkv_loops walk(const qkv_node *node)
{
    const qkv_strided *s = node->state;
    return qkv_loops_over(node->rank, node->dim, s->stride, s->stride);
}

qkv_status FN(qkv_strided_forward)(qkv_tape *tape, qkv_node *node)
{
    real *restrict y = node->value;
    if (!node->size) return QKV_OK;
    qkv_loops l = walk(node);
    for (size_t row = 0; row < l.rows; row++, y += l.n, qkv_loops_next(&l)) {
        const real *x = (const real *)qkv_input(tape, node, 0)->value + l.at_a;
        for (size_t i = 0; i < l.n; i++) y[i] = x[i * l.step_a];
    }
    return QKV_OK;
}

qkv_status FN(qkv_strided_backward)(qkv_tape *tape, qkv_node *node)
{
    const real *dy = node->gradient;
    if (!node->size) return QKV_OK;
    qkv_loops l = walk(node);
    for (size_t row = 0; row < l.rows; row++, dy += l.n, qkv_loops_next(&l)) {
        real *dx = (real *)qkv_input_gradient(tape, node, 0) + l.at_a;
        for (size_t i = 0; i < l.n; i++) dx[i * l.step_a] += dy[i];
    }
    return QKV_OK;
}
