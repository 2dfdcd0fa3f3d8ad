/* tape.h - a tiny reverse-mode tape: record a computation, then ask for gradients.
 *
 *     qkv_tape *t;
 *     qkv_tape_new(&t, QKV_F64);
 *     qkv_var w = qkv_leaf_f64(t, qkv_shape1(3), weight, d_weight);
 *     qkv_var loss = qkv_mse(t, qkv_matmul(t, x, w), y);
 *     qkv_backward(t, loss);             // d_weight += d loss / d weight
 *     qkv_tape_reset(t);                 // forget the nodes, keep the memory: the next step
 * mallocs nothing
 *
 * Every operation computes its value at once, appends one node and returns a handle. Errors are
 * sticky: the first one is kept with the node it happened at, later operations do nothing and
 * return the invalid handle, and qkv_backward (or qkv_tape_status) reports it. So compose freely
 * and check once.
 *
 * A tape carries one dtype and belongs to one thread at a time. Values are packed in C order.
 * Broadcasting is NumPy's: axes are aligned at the right, a size of 1 stretches. */
#ifndef QKV_TAPE_H
#define QKV_TAPE_H

#include <stdio.h>

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { QKV_MAX_RANK = 8 };

/* The sizes of an array of rank 0 (a scalar) to QKV_MAX_RANK. */
typedef struct qkv_shape {
    int rank;
    ptrdiff_t dim[QKV_MAX_RANK];
} qkv_shape;

QKV_API qkv_shape qkv_scalar(void);
QKV_API qkv_shape qkv_shape1(ptrdiff_t a);
QKV_API qkv_shape qkv_shape2(ptrdiff_t a, ptrdiff_t b);
QKV_API qkv_shape qkv_shape3(ptrdiff_t a, ptrdiff_t b, ptrdiff_t c);
QKV_API qkv_shape qkv_shape4(ptrdiff_t a, ptrdiff_t b, ptrdiff_t c, ptrdiff_t d);

typedef struct qkv_tape qkv_tape;

/* A handle to a node. generation is unique to one tape between two resets, so a handle kept too
 * long or shown to another tape is an error that says so. {0} is the invalid handle. */
typedef struct qkv_var {
    uint32_t node;
    uint32_t generation;
} qkv_var;

/* ---- The tape itself ------------------------------------------------------------------------- */

/* QKV_E_NOMEM leaves *tape NULL. free(NULL) is fine. */
QKV_API qkv_status qkv_tape_new(qkv_tape **tape, qkv_dtype dtype);
QKV_API void qkv_tape_free(qkv_tape *tape);

/* Forget every node and the sticky error; keep the memory, end any no-grad scope. All handles and
 * all pointers into the tape become invalid. */
QKV_API void qkv_tape_reset(qkv_tape *tape);

/* The sticky status and its message, "" if none. */
QKV_API qkv_status qkv_tape_status(const qkv_tape *tape);
QKV_API const char *qkv_tape_error(const qkv_tape *tape);

QKV_API qkv_dtype qkv_tape_dtype(const qkv_tape *tape);
QKV_API size_t qkv_tape_nodes(const qkv_tape *tape); /* nodes recorded since the last reset */
QKV_API size_t qkv_tape_bytes(const qkv_tape *tape); /* memory held, used or not */

/* One line a node, `%3 = attend(%0,%1,%2) [2,4,8,16]`; Graphviz for `dot -Tsvg`. QKV_E_IO if a
 * write fails. */
QKV_API qkv_status qkv_tape_print(const qkv_tape *tape, FILE *out);
QKV_API qkv_status qkv_tape_dot(const qkv_tape *tape, FILE *out);

/* ---- Doors: the only typed calls. The other dtype is QKV_E_DTYPE ----------------------------- */

/* An input. data (shape's elements, packed) is borrowed and must stay unchanged until the reset;
 * grad, if not NULL, receives += the gradient at each backward. grad NULL: a constant. */
QKV_API qkv_var qkv_leaf_f32(qkv_tape *tape, qkv_shape shape, const float *data, float *grad);
QKV_API qkv_var qkv_leaf_f64(qkv_tape *tape, qkv_shape shape, const double *data, double *grad);

/* A constant scalar node (the number is rounded to the tape's dtype). */
QKV_API qkv_var qkv_constant(qkv_tape *tape, double value);

/* The value of a node, valid until the reset; NULL for a bad handle, on a tape in error, or the
 * wrong dtype. */
QKV_API const float *qkv_value_f32(qkv_tape *tape, qkv_var x);
QKV_API const double *qkv_value_f64(qkv_tape *tape, qkv_var x);

/* The first element of x as a double, in either dtype: for losses. NaN for a bad handle. */
QKV_API double qkv_item(qkv_tape *tape, qkv_var x);

/* The gradient that the last backward computed for any node it reached (valid until the next
 * backward or reset; keep = true is needed for nodes that are not leaves); NULL otherwise. */
QKV_API const float *qkv_grad_f32(qkv_tape *tape, qkv_var x);
QKV_API const double *qkv_grad_f64(qkv_tape *tape, qkv_var x);

/* The shape of a node; rank -1 for a bad handle. */
QKV_API qkv_shape qkv_shape_of(qkv_tape *tape, qkv_var x);

/* ---- Backward -------------------------------------------------------------------------------- */

typedef struct qkv_backward_options {
    qkv_var seed; /* the cotangent of y, of y's shape; {0}: 1, and y must have one element */
    bool keep;    /* keep what backward needs, so that backward may run again, and all gradients
                     readable */
} qkv_backward_options;

/* leaf.grad += d y / d leaf for every leaf with a grad. Iterative: depth is no limit. Returns the
 * first error of the whole program since the reset. A second call without keep, or a y of more than
 * one element without a seed, is QKV_E_STATE / QKV_E_SHAPE naming the node. options NULL: all zero.
 */
QKV_API qkv_status qkv_backward(qkv_tape *tape, qkv_var y);
QKV_API qkv_status qkv_backward_with(qkv_tape *tape, qkv_var y,
                                     const qkv_backward_options *options);

/* Nodes recorded between begin and end are constants to backward. Scopes nest. */
QKV_API void qkv_no_grad_begin(qkv_tape *tape);
QKV_API void qkv_no_grad_end(qkv_tape *tape);

/* x as a constant: the value flows on, the gradient does not. */
QKV_API qkv_var qkv_detach(qkv_tape *tape, qkv_var x);

/* ---- Elementwise, with broadcasting ---------------------------------------------------------- */

QKV_API qkv_var qkv_add(qkv_tape *tape, qkv_var a, qkv_var b);
QKV_API qkv_var qkv_sub(qkv_tape *tape, qkv_var a, qkv_var b);
QKV_API qkv_var qkv_mul(qkv_tape *tape, qkv_var a, qkv_var b);
QKV_API qkv_var qkv_div(qkv_tape *tape, qkv_var a, qkv_var b);
QKV_API qkv_var qkv_pow(qkv_tape *tape, qkv_var a,
                        qkv_var b); /* da = b a^(b-1), db = a^b log a (0 at a = 0 <= b) */

QKV_API qkv_var qkv_neg(qkv_tape *tape, qkv_var x);
QKV_API qkv_var qkv_exp(qkv_tape *tape, qkv_var x);
QKV_API qkv_var qkv_log(qkv_tape *tape, qkv_var x);
QKV_API qkv_var qkv_sqrt(qkv_tape *tape, qkv_var x);
QKV_API qkv_var qkv_tanh(qkv_tape *tape, qkv_var x);
QKV_API qkv_var qkv_sigmoid(qkv_tape *tape, qkv_var x); /* never overflows */
QKV_API qkv_var qkv_relu(qkv_tape *tape, qkv_var x);    /* derivative 0 at 0; NaN stays NaN */

/* ---- Reductions ------------------------------------------------------------------------------ */

/* Over n_axes distinct axes (negative: from the end); axes NULL: all. keep: reduced axes stay, with
 * size 1. sum of nothing is 0; mean and max of nothing are QKV_E_SHAPE. max: the gradient goes to
 * the first of equals; NaN wins. */
QKV_API qkv_var qkv_sum(qkv_tape *tape, qkv_var x, const int *axes, int n_axes, bool keep);
QKV_API qkv_var qkv_mean(qkv_tape *tape, qkv_var x, const int *axes, int n_axes, bool keep);
QKV_API qkv_var qkv_max(qkv_tape *tape, qkv_var x, const int *axes, int n_axes, bool keep);

/* ---- Shapes ---------------------------------------------------------------------------------- */

/* Axis i of the result is axis permutation[i] of x; NULL reverses the axes. */
QKV_API qkv_var qkv_transpose(qkv_tape *tape, qkv_var x, const int *permutation);
/* One size may be -1: it is what is left over. No copy is made. */
QKV_API qkv_var qkv_reshape(qkv_tape *tape, qkv_var x, qkv_shape shape);
/* x[start:stop:step] on one axis, step >= 1; negative start and stop count from the end, and bounds
 * must lie within the axis (no silent clipping). */
QKV_API qkv_var qkv_slice(qkv_tape *tape, qkv_var x, int axis, ptrdiff_t start, ptrdiff_t stop,
                          ptrdiff_t step);
QKV_API qkv_var qkv_concat(qkv_tape *tape, const qkv_var *xs, int n, int axis);
/* The rows index[0..n) of one axis, copied; an index may repeat, its gradients add up. index is
 * copied. */
QKV_API qkv_var qkv_gather(qkv_tape *tape, qkv_var x, int axis, const ptrdiff_t *index,
                           ptrdiff_t n);

/* ---- Products, softmax, losses --------------------------------------------------------------- */

/* a [.., m, k] times b [.., k, n], leading axes broadcast; rank 1 as in NumPy's matmul. OpenBLAS.
 */
QKV_API qkv_var qkv_matmul(qkv_tape *tape, qkv_var a, qkv_var b);
QKV_API qkv_var qkv_softmax(qkv_tape *tape, qkv_var x, int axis);
QKV_API qkv_var qkv_log_softmax(qkv_tape *tape, qkv_var x, int axis);
/* mean((y - target)^2), a scalar; shapes must be equal. */
QKV_API qkv_var qkv_mse(qkv_tape *tape, qkv_var y, qkv_var target);
/* Mean over n rows of -log softmax(logits)[label], logits [n, classes], label[i] in [0, classes);
 * copied. */
QKV_API qkv_var qkv_cross_entropy(qkv_tape *tape, qkv_var logits, const ptrdiff_t *label,
                                  ptrdiff_t n);

/* ---- Attention ------------------------------------------------------------------------------- */

/* The operands as variables; {0} where absent. Ranks: q, k, v as [batch, heads, n, d], or [batch,
 * n, d] (heads = 1) or [n, d] (batch = heads = 1). bias: any shape that broadcasts to [batch,
 * heads, n_q, n_k]. scale: a scalar, or [heads]. bandwidth: a scalar, or [1 or d_k]. mask: NULL, or
 * a slot over [batch, heads, n_q, n_k] whose data stays unchanged until the reset. */
typedef struct qkv_attend_vars {
    qkv_var q, k, v, bias, scale, bandwidth;
    const qkv_slot_bool *mask;
} qkv_attend_vars;

/* Attention as one node. The choices (score, normalize, kernel, empty, mask) are read from a; its
 * sizes are taken from the variables. The result has q's rank, [.., n_q, d_v]. */
QKV_API qkv_var qkv_attend(qkv_tape *tape, const qkv_attention *a, const qkv_attend_vars *in);

/* ---- Your own operation ---------------------------------------------------------------------- */

/* Arrays of the tape's dtype, packed. */
typedef struct qkv_op_array {
    qkv_shape shape;
    size_t size;      /* number of elements */
    const void *data; /* float or double, as the tape */
} qkv_op_array;

typedef struct qkv_user_op {
    const char *name; /* for printing and messages; copied */
    /* y (zeroed) from the inputs. */
    qkv_status (*forward)(void *context, const qkv_op_array *in, int n_in, const qkv_op_array *out,
                          void *y);
    /* dx[i] += (dy / dx_i)' dy; dx[i] NULL where not wanted. */
    qkv_status (*backward)(void *context, const qkv_op_array *in, int n_in, const qkv_op_array *out,
                           const void *dy, void *const *dx);
    void *context; /* yours; must live until the reset */
} qkv_user_op;

QKV_API qkv_var qkv_apply(qkv_tape *tape, const qkv_user_op *op, const qkv_var *xs, int n,
                          qkv_shape shape);

#ifdef __cplusplus
}
#endif
#endif
