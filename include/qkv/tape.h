/* tape.h - a tiny reverse-mode tape: record a computation, then ask for gradients.
 *
 *     qkv_tape *t;
 *     qkv_tape_new(&t, QKV_F64);
 *     qkv_var w = qkv_leaf_f64(t, qkv_shape1(3), weight, d_weight);
 *     qkv_var loss = qkv_mse(t, qkv_matmul(t, x, w), y);
 *     qkv_backward(t, loss);             // d_weight += d loss / d weight
 *     qkv_tape_reset(t);                 // forget the nodes; the next step mallocs nothing
 *
 * Every operation computes its value at once, appends one node and returns a handle. Errors are
 * sticky: the first one is kept with the node it happened at, later operations do nothing and
 * return the invalid handle, and qkv_backward (or qkv_tape_status) reports it. So compose freely
 * and check once. Any operation may leave
 *
 *     QKV_E_STATE                    for a handle that is invalid, stale or of another tape
 *     QKV_E_SHAPE                    for shapes or axes that do not fit
 *     QKV_E_OVERFLOW, QKV_E_NOMEM    for a result that cannot be had
 *
 * and where a comment below names an error, that one. On a NULL tape it does nothing and returns
 * the invalid handle.
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

/* Shapes of rank 0 to 4; for more, fill in the struct. Sizes are checked where they are used. */
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

/* *tape = a new, empty tape, to be freed; NULL on an error: QKV_E_NOMEM, or QKV_E_ARG for a NULL or
 * an unknown dtype. Freeing NULL is fine. */
QKV_API qkv_status qkv_tape_new(qkv_tape **tape, qkv_dtype dtype);
QKV_API void qkv_tape_free(qkv_tape *tape);

/* Forgets every node and the sticky error, keeps the memory, ends any no-grad scope. All handles
 * and all pointers into the tape become invalid. NULL is fine. */
QKV_API void qkv_tape_reset(qkv_tape *tape);

/* The sticky status and its message, "" if none. A NULL tape is QKV_E_ARG, and has a message. */
QKV_API qkv_status qkv_tape_status(const qkv_tape *tape);
QKV_API const char *qkv_tape_error(const qkv_tape *tape);

/* For debugging: costs a pass or two over every value, gradient and node; off at first, kept over
 * resets. Then it is a sticky error, which names the node,
 *
 *     QKV_E_STATE     if at a backward or qkv_grad the value of a leaf or of any other node, or
 *                     attention's mask, lengths, offsets or starts, are not what they were when
 *                     recorded: somebody wrote to the array behind a pointer
 *     QKV_E_DOMAIN    if an operation gives a NaN though its inputs have none, or, backward, though
 *                     the gradient of its value has none; a leaf, if it has one
 *
 * Nodes recorded while it was off are not compared. NULL is fine. */
QKV_API void qkv_tape_debug(qkv_tape *tape, bool on);

/* The tape's dtype, the nodes recorded since the last reset, and the bytes of memory it holds, used
 * or not. Of a NULL tape: QKV_F32, 0 and 0. */
QKV_API qkv_dtype qkv_tape_dtype(const qkv_tape *tape);
QKV_API size_t qkv_tape_nodes(const qkv_tape *tape);
QKV_API size_t qkv_tape_bytes(const qkv_tape *tape);

/* What was recorded, a line a node, `%3 = attend(%0,%1,%2) [2,4,8,16]`, or as Graphviz for
 * `dot -Tsvg`, where nodes without a gradient are grey. QKV_E_IO if a write fails, QKV_E_ARG for
 * NULL. */
QKV_API qkv_status qkv_tape_print(const qkv_tape *tape, FILE *out);
QKV_API qkv_status qkv_tape_dot(const qkv_tape *tape, FILE *out);

/* ---- Doors: the only typed calls. The other dtype is QKV_E_DTYPE, sticky. -------------------- */

/* An input. data (packed, as many numbers as shape has) is borrowed and must stay unchanged until
 * the reset. grad, of the same size, receives += the gradient at each backward that succeeds; NULL:
 * a constant. QKV_E_ARG if data is NULL but the shape has elements. */
QKV_API qkv_var qkv_leaf_f32(qkv_tape *tape, qkv_shape shape, const float *data, float *grad);
QKV_API qkv_var qkv_leaf_f64(qkv_tape *tape, qkv_shape shape, const double *data, double *grad);

/* A constant scalar node (the number is rounded to the tape's dtype). */
QKV_API qkv_var qkv_constant(qkv_tape *tape, double value);

/* The value of a node, packed, as many numbers as its shape has, valid until the reset. NULL for a
 * bad handle (an error, sticky), on a tape in error, or for the other dtype. */
QKV_API const float *qkv_value_f32(qkv_tape *tape, qkv_var x);
QKV_API const double *qkv_value_f64(qkv_tape *tape, qkv_var x);

/* The first element of x as a double, in either dtype: for losses. NaN if x has none, for a bad
 * handle (sticky) and on a tape in error. */
QKV_API double qkv_item(qkv_tape *tape, qkv_var x);

/* The gradient d y / d x that the last backward computed, of x's shape and valid until the next
 * backward or reset; of that backward alone, where a leaf's own grad adds up. NULL for a node that
 * it did not reach, or that is no leaf unless it was told to keep; and as qkv_value_f32. */
QKV_API const float *qkv_grad_f32(qkv_tape *tape, qkv_var x);
QKV_API const double *qkv_grad_f64(qkv_tape *tape, qkv_var x);

/* The shape of a node; rank -1 for a bad handle (sticky) and on a tape in error. */
QKV_API qkv_shape qkv_shape_of(qkv_tape *tape, qkv_var x);

/* ---- Backward -------------------------------------------------------------------------------- */

typedef struct qkv_backward_options {
    qkv_var seed; /* the cotangent of y, of y's shape; {0}: 1, and y must have one element */
    bool keep;    /* let backward run again over the same nodes, and keep all gradients readable */
} qkv_backward_options;

/* leaf.grad += d y / d leaf for every leaf with a grad; on an error none is changed. (Reverse mode:
 * Baydin et al. 2018, section 3.2.) Iterative: depth is no limit. Returns the first error of the
 * whole program since the reset; its own, which name the node, are
 *
 *     QKV_E_STATE    no leaf with a grad leads to y, or an earlier backward has passed without keep
 *     QKV_E_SHAPE    y has not one element and there is no seed, or a seed of another shape
 *     QKV_E_NOMEM, and whatever a user's operation returns
 *
 * options NULL: all zero. */
QKV_API qkv_status qkv_backward(qkv_tape *tape, qkv_var y);
QKV_API qkv_status qkv_backward_with(qkv_tape *tape, qkv_var y,
                                     const qkv_backward_options *options);

/* gs[i] = the gradient of y, which has one element, by xs[i]: nodes of the tape, of the shapes of
 * xs, which can be differentiated again, by a backward or by this; 0 where y does not depend on
 * xs[i]. It can be called again and again on one graph. xs are any nodes, leaves without a grad
 * among them.
 *
 * Every operation records operations, so that all orders exist; of qkv_attend,
 *
 *     first order    is one node of the size of its gradients, fused: memory linear in n_q + n_k
 *     second order   of QKV_SOFTMAX is such a node too, if not ragged (second_order.h)
 *     beyond         by this or by a backward, the same attention is composed of qkv_matmul,
 *                    qkv_softmax and the like. Which keys a hard maximum, top-k, sparsemax, entmax
 *                    or a kernel with an edge gives weight to is a constant, and at its corners a
 *                    kernel has the slope 0. q, k and v must be finite even where they are hidden
 *
 * Composed, the tape keeps arrays of batch x heads x n_q x n_k numbers: 100 to 170 for the third
 * order of the softmax; for the second of other normalisers 10 to 120, and of kernels 100 + 40 d_k
 * (the cosine: 100 more); for each order more 4 to 5 times as many. Where the score is additive or
 * Laplace, it is d_k times that; a ragged batch counts as if all items were as long as the longest
 * (to save memory, attend to its items one by one, as slices). The status of the tape; gs are
 * invalid if it is not QKV_OK:
 *
 *     QKV_E_SHAPE    y has not one element
 *     QKV_E_ARG      xs or gs is NULL, n is negative, or on the way from y stands an operation of
 *                    the user's; or, differentiated twice, attention with a user's score, whose
 *                    backward gives numbers alone
 *     QKV_E_STATE    called from inside an operation */
QKV_API qkv_status qkv_grad(qkv_tape *tape, qkv_var y, const qkv_var *xs, int n, qkv_var *gs);

/* H v, of x's shape: the Hessian of y, which has one element, by x, times a v of x's shape
 * (QKV_E_SHAPE for another). Recorded are two reverse passes: the gradient, and its product with v
 * (Pearlmutter 1994), without H itself. v is what it is, even if it was computed from x: nothing is
 * added for that. This and the next two are nodes to be differentiated again, 0 where y does not
 * depend on x. Errors as qkv_grad. */
QKV_API qkv_var qkv_hessian_vector(qkv_tape *tape, qkv_var y, qkv_var x, qkv_var v);

/* The Jacobian of y by x as a matrix, [size of y, size of x], elements counted in C order: row i is
 * the gradient of y's element i. Every row is a reverse pass from y to x, and the tape keeps what
 * each records; with many rows ask for products instead. QKV_E_ARG beyond 65535 rows; other errors
 * as qkv_grad. (Baydin et al. 2018, section 3.2.) */
QKV_API qkv_var qkv_jacobian(qkv_tape *tape, qkv_var y, qkv_var x);

/* The Hessian of y, which has one element, by x: [size of x, size of x], the Jacobian of the
 * gradient, whose cost and errors it has. */
QKV_API qkv_var qkv_hessian(qkv_tape *tape, qkv_var y, qkv_var x);

/* Nodes recorded between begin and end are constants to backward. Scopes nest; an end without a
 * begin is QKV_E_STATE, sticky. */
QKV_API void qkv_no_grad_begin(qkv_tape *tape);
QKV_API void qkv_no_grad_end(qkv_tape *tape);

/* x as a constant: the value flows on, the gradient does not. */
QKV_API qkv_var qkv_detach(qkv_tape *tape, qkv_var x);

/* ---- Elementwise, with broadcasting ---------------------------------------------------------- */

/* Of shapes that broadcast together, a b for each element; the gradient of what was stretched is
 * summed back. Out of its domain an operation gives IEEE's NaN or infinity, not an error. */
QKV_API qkv_var qkv_add(qkv_tape *tape, qkv_var a, qkv_var b);
QKV_API qkv_var qkv_sub(qkv_tape *tape, qkv_var a, qkv_var b);
QKV_API qkv_var qkv_mul(qkv_tape *tape, qkv_var a, qkv_var b);
QKV_API qkv_var qkv_div(qkv_tape *tape, qkv_var a, qkv_var b);

/* y = a^b, with dy/da = b a^(b-1) and dy/db = y log a, which is 0 at a = 0 <= b. */
QKV_API qkv_var qkv_pow(qkv_tape *tape, qkv_var a, qkv_var b);

/* Of one array of any shape. */
QKV_API qkv_var qkv_neg(qkv_tape *tape, qkv_var x);
QKV_API qkv_var qkv_exp(qkv_tape *tape, qkv_var x);
QKV_API qkv_var qkv_log(qkv_tape *tape, qkv_var x);
QKV_API qkv_var qkv_sqrt(qkv_tape *tape, qkv_var x);
QKV_API qkv_var qkv_sin(qkv_tape *tape, qkv_var x);
QKV_API qkv_var qkv_cos(qkv_tape *tape, qkv_var x);
QKV_API qkv_var qkv_tanh(qkv_tape *tape, qkv_var x);
QKV_API qkv_var qkv_sigmoid(qkv_tape *tape, qkv_var x); /* never overflows */
QKV_API qkv_var qkv_relu(qkv_tape *tape, qkv_var x);    /* derivative 0 at 0; NaN stays NaN */

/* Phi(x) = erfc(-x / sqrt 2) / 2, the normal distribution function, to a relative error of 8 2^-23
 * (f64: 8 2^-52) down to the least normal number; and the GELU, x Phi(x) (Hendrycks & Gimpel 2016):
 * exact, not by tanh; 0 at -inf. */
QKV_API qkv_var qkv_normal_cdf(qkv_tape *tape, qkv_var x);
QKV_API qkv_var qkv_gelu(qkv_tape *tape, qkv_var x);

/* Each element of x becomes 0 with probability p, else x / (1 - p) (Srivastava et al. 2014); its
 * gradient likewise, and a NaN that is dropped is gone. Element i in C order is dropped if the word
 * i % 4 < p 2^32 (rounded) of Philox 4x32-10 (Salmon et al. 2011) with the counter {i / 4 low half,
 * high half, 0, 0} and the key seed, low half first: the same call drops the same, in a segment
 * that is recorded again too, so give each place and step a seed of its own. p = 0 is x, p = 1 is
 * 0; QKV_E_ARG for a p outside of 0 to 1. */
QKV_API qkv_var qkv_dropout(qkv_tape *tape, qkv_var x, double p, uint64_t seed);

/* ---- Reductions ------------------------------------------------------------------------------ */

/* Over n_axes distinct axes (negative: from the end; one named twice is QKV_E_ARG); axes NULL: all.
 * keep: reduced axes stay, with size 1. The sum of nothing is 0; mean and max of nothing are
 * QKV_E_SHAPE. max: NaN wins, and the gradient goes to the first of equals. */
QKV_API qkv_var qkv_sum(qkv_tape *tape, qkv_var x, const int *axes, int n_axes, bool keep);
QKV_API qkv_var qkv_mean(qkv_tape *tape, qkv_var x, const int *axes, int n_axes, bool keep);
QKV_API qkv_var qkv_max(qkv_tape *tape, qkv_var x, const int *axes, int n_axes, bool keep);

/* ---- Shapes ---------------------------------------------------------------------------------- */

/* Axis i of the result is axis permutation[i] of x; one named twice is QKV_E_ARG. NULL reverses the
 * axes. */
QKV_API qkv_var qkv_transpose(qkv_tape *tape, qkv_var x, const int *permutation);

/* The same elements in the same order. One size may be -1: it is what is left over. No copy is
 * made. */
QKV_API qkv_var qkv_reshape(qkv_tape *tape, qkv_var x, qkv_shape shape);

/* x[start:stop:step] on one axis, step >= 1 (else QKV_E_ARG). A negative axis, start or stop counts
 * from the end; start and stop must lie within the axis: nothing is clipped silently. */
QKV_API qkv_var qkv_slice(qkv_tape *tape, qkv_var x, int axis, ptrdiff_t start, ptrdiff_t stop,
                          ptrdiff_t step);

/* xs[0..n) one after another along an axis (negative: from the end), all other sizes equal.
 * QKV_E_ARG if xs is NULL or n not in 1 .. 65535. */
QKV_API qkv_var qkv_concat(qkv_tape *tape, const qkv_var *xs, int n, int axis);

/* The rows index[0..n) of one axis (negative: from the end); a row may repeat, its gradients add
 * up. On axis 0 of a table [words, d] this is an embedding, [n, d]; for [batch, length, d] reshape
 * it. index is copied; QKV_E_ARG for one not in [0, size of the axis), a negative n, and NULL with
 * n > 0. */
QKV_API qkv_var qkv_gather(qkv_tape *tape, qkv_var x, int axis, const ptrdiff_t *index,
                           ptrdiff_t n);

/* The mirror of gather: row i of x is added to row index[i] of an axis (negative: from the end),
 * which becomes of this size; rows that no index names are 0. n is x's size there. Errors as
 * qkv_gather, QKV_E_ARG for another n, QKV_E_SHAPE for a negative size. */
QKV_API qkv_var qkv_scatter(qkv_tape *tape, qkv_var x, int axis, const ptrdiff_t *index,
                            ptrdiff_t n, ptrdiff_t size);

/* x, stretched to a shape that it broadcasts to; QKV_E_SHAPE for another. */
QKV_API qkv_var qkv_broadcast(qkv_tape *tape, qkv_var x, qkv_shape shape);

/* ---- Products, softmax, normalization, losses ------------------------------------------------ */

/* [.., m, n] = a [.., m, k] times b [.., k, n], leading axes broadcast, by OpenBLAS. As in NumPy's
 * matmul, an a of rank 1 is a row, a b of rank 1 a column, and that axis is dropped again. Each of
 * m, k and n must fit in int (QKV_E_OVERFLOW). */
QKV_API qkv_var qkv_matmul(qkv_tape *tape, qkv_var a, qkv_var b);

/* exp(x) / sum exp(x) along one axis (negative: from the end), and its log, both computed from
 * x - max x. A row of -inf alone is NaN: it has no distribution. */
QKV_API qkv_var qkv_softmax(qkv_tape *tape, qkv_var x, int axis);
QKV_API qkv_var qkv_log_softmax(qkv_tape *tape, qkv_var x, int axis);

/* Layer normalization (Ba, Kiros & Hinton 2016) over the last axis, of n >= 1 elements, for each of
 * the others:
 *
 *     y = weight (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) + bias
 *
 * weight and bias are [n]; {0}: without. epsilon 0: 1e-5; QKV_E_ARG if negative or not finite. An
 * offset common to a row costs no digits but those that x itself has lost, and no row of finite
 * numbers overflows (in what qkv_grad records its squares may). */
QKV_API qkv_var qkv_layer_norm(qkv_tape *tape, qkv_var x, qkv_var weight, qkv_var bias,
                               double epsilon);

/* mean((y - target)^2), a scalar, over two arrays of one shape that is not empty. */
QKV_API qkv_var qkv_mse(qkv_tape *tape, qkv_var y, qkv_var target);

/* The mean over n >= 1 rows of -log softmax(logits_i)[label_i], a scalar. logits: [n, classes].
 * label is copied; QKV_E_ARG for one not in [0, classes), and for NULL. */
QKV_API qkv_var qkv_cross_entropy(qkv_tape *tape, qkv_var logits, const ptrdiff_t *label,
                                  ptrdiff_t n);

/* ---- Attention ------------------------------------------------------------------------------- */

/* The operands as variables; {0} where bias or any after it is absent.
 *
 *     q          [batch, heads, n_q, d_k],    or [batch, n, d] (one head) or [n, d] (batch 1 too)
 *     k          [batch, kv_heads, n_k, d_k]  of q's rank
 *     v          [batch, kv_heads, n_k, d_v]  of q's rank
 *     bias       any shape that broadcasts to [batch, heads, n_q, n_k]
 *     scale      one element, or [heads]
 *     bandwidth  one element, or [d_k]; distance scores only
 *     w          [d_k] of the additive score, [bandwidths] of a user's score
 *     slopes     one element, or [heads]
 *     relative   [entries] of attention.h, the same for all heads, or [heads, entries]
 *     sink       one element, or [heads]; softmax only
 *     m          [d_q, d_k] or [heads, d_q, d_k]: q becomes q m first, and the score of a dot q'Mk
 *                (bilinear; Luong, Pham & Manning 2015). Dot and scaled dot only
 *     w_q, w_k   [d, d_q] and [d, d_k]: q becomes W_q q and k becomes W_k k first, so that the
 *                additive score is w'tanh(W_q q + W_k k). Additive score only
 *     user_score NULL, or a qkv_user_score_f32 or _f64, as the tape, unchanged until the reset
 *     mask       NULL, or a slot over [batch, heads, n_q, n_k] whose data (the slot itself is
 *                copied) stays unchanged until the reset
 *     mask_rule  as in qkv_operands_f32; must serve until the reset
 *     lengths, causal_offsets
 *                NULL, or [batch] numbers as in qkv_operands_f32, unchanged until the reset
 *     starts_q, starts_k
 *                NULL, or both [batch + 1]: a ragged batch (ragged.h), unchanged until the reset.
 *                Then batch is a's, q is [total_q, heads, d_k] (or [total_q, d_k]: one head), k
 *                [total_k, kv_heads, d_k], v [total_k, kv_heads, d_v], of one rank; bias anything
 *                that broadcasts to [heads, total_q, longest], mask a slot over that */
typedef struct qkv_attend_vars {
    qkv_var q, k, v, bias, scale, bandwidth, w, slopes, relative, sink, m, w_q, w_k;
    const void *user_score;
    const qkv_slot_bool *mask;
    qkv_user_mask mask_rule;
    const int64_t *lengths, *causal_offsets, *starts_q, *starts_k;
} qkv_attend_vars;

/* Attention as one node: the o of attention.h, [batch, heads, n_q, d_v] in q's rank, or, of a
 * ragged batch, [total_q, heads, d_v]. The choices (all fields that
 * are no sizes, and bandwidths of a user's score) are read from a, the sizes from the variables.
 * One variable may be several operands: its gradients add up. Errors as qkv_attention_forward_f32
 * or qkv_ragged_forward_f32; a or in NULL is QKV_E_ARG. */
QKV_API qkv_var qkv_attend(qkv_tape *tape, const qkv_attention *a, const qkv_attend_vars *in);

/* The variance of the values under the weights p of each query, E_p[v^2] - E_p[v]^2 coordinate by
 * coordinate, of the shape of qkv_attend's result; and their covariance, E_p[v v'] - E_p[v]
 * E_p[v]', with a last axis more: [.., n_q, d_v, d_v]. Differentiable by everything that qkv_attend
 * is. Values are counted from their mean over the keys, so that a common offset costs no digits.
 * Compositions of qkv_attend, whose errors they have; and QKV_E_ARG for weights that are no
 * distribution: QKV_NONE_.., a sink or dropout. */
QKV_API qkv_var qkv_attend_variance(qkv_tape *tape, const qkv_attention *a,
                                    const qkv_attend_vars *in);
QKV_API qkv_var qkv_attend_covariance(qkv_tape *tape, const qkv_attention *a,
                                      const qkv_attend_vars *in);

/* The operands of multi-head attention; {0} where one from x_k on, but w_q to w_o, is absent.
 * Widths are heads d_k, kv_heads d_k, kv_heads d_v and heads d_v.
 *
 *     x_q        [batch, n_q, d_model], or [n_q, d_model], of a ragged batch [total_q, d_model]
 *     x_k        [batch, n_k, d_model] of x_q's rank; absent: x_q (self-attention)
 *     x_v        the same; absent: x_k
 *     w_q w_k w_v
 *                [d_model, width]: head h has the columns h d to h d + d - 1
 *     w_o        [heads d_v, d_out]
 *     b_q b_k b_v b_o
 *                [width], [d_out]: added to the products
 *     attend     everything else of qkv_attend; its q, k, v, m, w_q and w_k are not read */
typedef struct qkv_multi_head_vars {
    qkv_var x_q, x_k, x_v, w_q, w_k, w_v, w_o, b_q, b_k, b_v, b_o;
    qkv_attend_vars attend;
} qkv_multi_head_vars;

/* Multi-head attention (Vaswani et al. 2017, section 3.2.2), [batch, n_q, d_out] in x_q's rank: the
 * projections of x_q, x_k and x_v attend head by head, and the answers side by side go through w_o.
 * heads, kv_heads and the choices are read from a. QKV_E_SHAPE if heads divide no width. A
 * composition of qkv_matmul, qkv_add, qkv_transpose and qkv_attend, whose errors it has. */
QKV_API qkv_var qkv_multi_head_attention(qkv_tape *tape, const qkv_attention *a,
                                         const qkv_multi_head_vars *in);

/* ---- Less memory ----------------------------------------------------------------------------- */

/* A part of a computation: records on tape what makes its result of xs[0..n), and returns that. It
 * must record the same each time. */
typedef qkv_var (*qkv_segment)(qkv_tape *tape, void *context, const qkv_var *xs, int n);

/* f of xs as one node that keeps only the result: what f records is forgotten, and recorded once
 * more by each backward (checkpointing: Griewank & Walther 2000). Values and gradients have the
 * bits of f(tape, context, xs, n) itself, for the time of one more forward pass. f gets a tape of
 * its own, where xs are leaves, and may use qkv_checkpoint in turn; what needs a gradient must come
 * through xs. context must live until the reset. QKV_E_ARG if f or xs is NULL, n is not in 0 ..
 * 65535 or f records a leaf with a gradient; and whatever f's operations leave. */
QKV_API qkv_var qkv_checkpoint(qkv_tape *tape, qkv_segment f, void *context, const qkv_var *xs,
                               int n);

/* ---- Your own operation ---------------------------------------------------------------------- */

/* A packed array of the tape's dtype. */
typedef struct qkv_op_array {
    qkv_shape shape;
    size_t size;      /* number of elements */
    const void *data; /* float or double, as the tape */
} qkv_op_array;

/* Neither function may record on the tape it runs for. A status other than QKV_OK becomes the
 * tape's, at this node. Both functions are required. */
typedef struct qkv_user_op {
    const char *name; /* for printing and messages, copied; NULL: "user" */

    /* y from in[0..n_in). It is out->data, zeroed. */
    qkv_status (*forward)(void *context, const qkv_op_array *in, int n_in, const qkv_op_array *out,
                          void *y);

    /* dx[i] += (d out / d in_i)' dy, of in[i]'s shape; dx[i] is NULL where not wanted. dy has out's
     * shape, and out->data is the value that forward wrote. */
    qkv_status (*backward)(void *context, const qkv_op_array *in, int n_in, const qkv_op_array *out,
                           const void *dy, void *const *dx);
    void *context; /* yours; must live until the reset */
} qkv_user_op;

/* op on xs[0..n), n in 0 .. 65535, with a result of the given shape. op is copied. QKV_E_ARG if op,
 * one of its functions or xs is NULL, or n out of range. */
QKV_API qkv_var qkv_apply(qkv_tape *tape, const qkv_user_op *op, const qkv_var *xs, int n,
                          qkv_shape shape);

#ifdef __cplusplus
}
#endif
#endif
