/* derivatives.c - what is asked of the walk of reverse.c: gradients, Jacobians, Hessians and their
 * products, all of them nodes that can be differentiated again. */
#include "grad/reverse.h"

enum { MOST_ROWS = UINT16_MAX }; /* what qkv_concat takes */

qkv_status qkv_carry_back(qkv_tape *tape, qkv_var y, qkv_var dy, const qkv_var *xs, int n,
                          qkv_var *dx)
{
    if (tape->debug && qkv_debug_unchanged(tape, y.node + 1)) return tape->status;
    qkv_reverse_through(tape, y, dy, xs, n, dx);
    for (int i = 0; i < n && !tape->status; i++)
        if (!dx[i].generation)
            dx[i] = qkv_broadcast(tape, qkv_constant(tape, 0), qkv_shape_of(tape, xs[i]));
    return tape->status;
}

qkv_status qkv_grad(qkv_tape *tape, qkv_var y, const qkv_var *xs, int n, qkv_var *gs)
{
    if (!tape) return qkv_fail(QKV_E_ARG, "qkv_grad: the tape is NULL");
    if (tape->status) return qkv_fail(tape->status, "%s", tape->message);
    if (tape->busy)
        return qkv_tape_fail(tape, QKV_E_STATE, "qkv_grad: called from inside an operation");
    if (n < 0 || (n && (!xs || !gs)))
        return qkv_tape_fail(tape, QKV_E_ARG, "qkv_grad: %s",
                             n < 0 ? "n is negative"
                             : xs  ? "gs is NULL"
                                   : "xs is NULL");
    const qkv_node *root = qkv_node_of(tape, y, "qkv_grad: y");
    for (int i = 0; i < n && root; i++) {
        gs[i] = (qkv_var){0};
        if (!qkv_node_of(tape, xs[i], "qkv_grad: xs")) return tape->status;
    }
    if (!root) return tape->status;
    if (root->size != 1)
        return qkv_node_fail(tape, root, QKV_E_SHAPE, "qkv_grad: y has %zu elements, expected one",
                             root->size);
    qkv_var one = qkv_reshape(tape, qkv_constant(tape, 1), qkv_shape_of(tape, y));
    return qkv_carry_back(tape, y, one, xs, n, gs);
}

/* A gradient on the way to second derivatives: in a no-grad scope it may not become a constant. */
static qkv_var gradient(qkv_tape *tape, qkv_var y, qkv_var x)
{
    qkv_var g;
    int no_grad = tape ? tape->no_grad : 0;
    if (tape) tape->no_grad = 0;
    qkv_status status = qkv_grad(tape, y, &x, 1, &g);
    if (tape) tape->no_grad = no_grad;
    return status ? (qkv_var){0} : g;
}

qkv_var qkv_hessian_vector(qkv_tape *tape, qkv_var y, qkv_var x, qkv_var v)
{
    qkv_var g = gradient(tape, y, x), hv;
    if (!g.generation) return g;
    const qkv_node *like = qkv_node_of(tape, x, "qkv_hessian_vector: x"),
                   *along = qkv_node_of(tape, v, "qkv_hessian_vector: v");
    if (!like || !along) return (qkv_var){0};
    if (!qkv_same_shape(like, along)) {
        char found[128], expected[128];
        qkv_shape_describe(along->rank, along->dim, found, sizeof found);
        qkv_shape_describe(like->rank, like->dim, expected, sizeof expected);
        qkv_node_fail(tape, along, QKV_E_SHAPE, "qkv_hessian_vector: v is %s, expected %s as x",
                      found, expected);
        return (qkv_var){0};
    }
    return qkv_carry_back(tape, g, v, &x, 1, &hv) ? (qkv_var){0}
                                                  : hv; /* H' v, and H is symmetric */
}

/* 1 at element i, 0 elsewhere, of y's shape. */
static qkv_var unit(qkv_tape *tape, qkv_var y, ptrdiff_t i)
{
    qkv_var one = qkv_reshape(tape, qkv_constant(tape, 1), qkv_shape1(1));
    qkv_var flat = qkv_scatter(tape, one, 0, &i, 1, (ptrdiff_t)qkv_size_of(tape, y));
    return qkv_reshape(tape, flat, qkv_shape_of(tape, y));
}

qkv_var qkv_jacobian(qkv_tape *tape, qkv_var y, qkv_var x)
{
    const qkv_node *of = tape ? qkv_node_of(tape, y, "qkv_jacobian: y") : NULL,
                   *by = of ? qkv_node_of(tape, x, "qkv_jacobian: x") : NULL;
    if (!by) return (qkv_var){0};
    const ptrdiff_t rows = (ptrdiff_t)of->size, columns = (ptrdiff_t)by->size;
    if (rows == 0) return qkv_broadcast(tape, qkv_constant(tape, 0), qkv_shape2(0, columns));
    if (rows > MOST_ROWS) {
        qkv_node_fail(tape, of, QKV_E_ARG, "qkv_jacobian: y has %td elements, expected %d at most",
                      rows, MOST_ROWS);
        return (qkv_var){0};
    }
    qkv_var *row = qkv_node_take(tape, of, (size_t)rows, sizeof *row);
    for (ptrdiff_t i = 0; i < rows && row && !tape->status; i++) {
        qkv_carry_back(tape, y, unit(tape, y, i), &x, 1, &row[i]);
        row[i] = qkv_reshape(tape, row[i], qkv_shape2(1, columns));
    }
    return tape->status ? (qkv_var){0} : qkv_concat(tape, row, (int)rows, 0);
}

qkv_var qkv_hessian(qkv_tape *tape, qkv_var y, qkv_var x)
{
    qkv_var g = gradient(tape, y, x);
    return g.generation ? qkv_jacobian(tape, g, x) : g;
}
