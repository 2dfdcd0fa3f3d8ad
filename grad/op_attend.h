/* op_attend.h - attention on the tape: what its node keeps, and what its gradient, which may be a
 * node as well (op_attend_gradient.c), does with it. */
#ifndef QKV_GRAD_OP_ATTEND_H
#define QKV_GRAD_OP_ATTEND_H

#include "grad/tape.h"
#include "qkv/ragged.h"
#include "src/real.h"

enum { INPUTS = 10 };
enum { Q, K, V, BIAS, SCALE, BANDWIDTH, W, SLOPES, SINK, RELATIVE };

typedef struct attend_state {
    qkv_attention a;
    int input[INPUTS]; /* which input is q, k, ..; -1: absent */
    bool ragged;
    const int64_t *starts_q, *starts_k;
    ptrdiff_t columns; /* of a bias */
    FN(qkv_operands) in;
    FN(qkv_results) saved;
} attend_state;

/* The operands' layouts over other arrays; NULL: absent. */
FN(qkv_operands) FN(qkv_attend_slots)(const attend_state *s, void *const data[INPUTS]);
FN(qkv_slot) FN(qkv_attend_slot)(const attend_state *s, void *data, ptrdiff_t heads, ptrdiff_t d);
void *FN(qkv_attend_workspace)(qkv_tape *tape, const qkv_node *node, const attend_state *s,
                               qkv_pass pass, size_t *bytes);
qkv_status FN(qkv_attend_report)(qkv_tape *tape, const qkv_node *node, qkv_status status);

/* Where the gradients of the operands go. An array may be several operands at once (k and v of
 * self-attention), but attention writes no element twice: the later ones get an array of their own,
 * added by join. */
qkv_status FN(qkv_attend_split)(qkv_tape *tape, const qkv_node *node, const attend_state *s,
                                real *gradient[INPUTS]);
void FN(qkv_attend_join)(qkv_tape *tape, const qkv_node *node, const attend_state *s,
                         real *const gradient[INPUTS]);

/* ---- op_attend_gradient.c: the node of its gradients, flat ---- */
/* Its inputs are those of attend, and after them the cotangent of o. */
typedef struct gradient_state {
    attend_state of;
    const bool *wanted; /* which of attend's inputs */
} gradient_state;

/* The shape of those of the first n inputs that are wanted, one after another; where each operand
 * stands there, NULL where it is not, returning how many elements that is. */
qkv_status FN(qkv_attend_flat)(qkv_tape *tape, qkv_node *node, const bool *wanted, int n);
size_t FN(qkv_attend_parts)(const qkv_tape *tape, const qkv_node *node, const attend_state *of,
                            const bool *wanted, int n, void *flat, void *part[INPUTS]);

/* The gradients for d_o are added to, NULL where not wanted; and those of their product with u, and
 * o's tangent along u (dd_o, NULL or added to). */
qkv_status FN(qkv_attend_backward)(qkv_tape *tape, const qkv_node *node, const attend_state *s,
                                   void *d_o, void *const gradient[INPUTS]);
qkv_status FN(qkv_attend_double)(qkv_tape *tape, const qkv_node *node, const attend_state *s,
                                 void *d_o, void *const u[INPUTS], void *const gradient[INPUTS],
                                 void *dd_o);

/* ---- op_attend_composed.c: attention of operations that have derivatives of every order ---- */
typedef enum attend_row {
    QKV_ROW_USUAL,
    QKV_ROW_FLAT, /* what it sees is alike to the kernel: no slope */
    QKV_ROW_EMPTY /* nothing lies within the kernel's support: NaN */
} attend_row;

/* What of a problem has no dtype. Of a ragged batch all items are made as long as the longest, by
 * queries and keys that are not seen (op_attend_ragged.c). */
typedef struct attend_problem {
    qkv_attention a;
    int input[INPUTS];
    const int64_t *causal_offsets, *starts_q, *starts_k; /* starts NULL: not ragged */
    size_t n;         /* pairs: batch heads n_q n_k; 0: nothing to compose */
    bool *seen;       /* [n]: has, by mask and normaliser, a weight other than 0 */
    double *mark;     /* [n]: what dropout makes of weights, 0 where not seen; or fixed weights */
    bool marked;      /* by them some weight changes */
    attend_row *rows; /* [n / n_k], of kernels */
    bool any_flat, any_empty;
} attend_problem;

qkv_status FN(qkv_attend_problem)(qkv_tape *tape, const qkv_node *node, const attend_state *s,
                                  attend_problem *p);
/* o of attend's inputs; all of them finite, but for a bias. */
qkv_var qkv_attend_composed(qkv_tape *tape, const attend_problem *p, const qkv_var *x);

/* ---- op_attend_ragged.c ---- */
/* [total, heads, d] as [batch, heads, rows, d], a bias as one a pair, and the way back. */
qkv_var qkv_attend_pad(qkv_tape *tape, const int64_t *starts, ptrdiff_t batch, ptrdiff_t rows,
                       qkv_var x, ptrdiff_t heads, ptrdiff_t d);
qkv_var qkv_attend_pad_bias(qkv_tape *tape, const attend_problem *p, qkv_var bias);
qkv_var qkv_attend_unpad(qkv_tape *tape, const attend_problem *p, qkv_var o);

/* ---- op_attend_weights.c ---- */
typedef struct attend_scores {
    qkv_var s;    /* [batch, heads, n_q, n_k] */
    qkv_var b;    /* broadcasts to that; {0}: absent */
    qkv_var sink; /* [heads or 1, 1, 1]; {0}: absent */
} attend_scores;

bool qkv_attend_reads_scores(const attend_problem *p);
qkv_var qkv_attend_weights(qkv_tape *tape, const attend_problem *p, const attend_scores *x);

/* ---- op_attend_second.c ---- */
typedef struct qkv_attend_second_call {
    const gradient_state *of;
    const bool *wanted; /* which inputs of the gradient's node */
} qkv_attend_second_call;

/* What the nodes of gradients are, composed. */
typedef struct composed_problem {
    attend_problem of;
    const bool *first, *second; /* what is wanted of attend's inputs, of these and o's cotangent */
    bool fused;                 /* the node has a fused backward, and the rest is left out */
} composed_problem;

qkv_status qkv_attend_gradient_problem_f32(qkv_tape *tape, const qkv_node *node,
                                           composed_problem *p);
qkv_status qkv_attend_gradient_problem_f64(qkv_tape *tape, const qkv_node *node,
                                           composed_problem *p);
qkv_status qkv_attend_second_problem_f32(qkv_tape *tape, const qkv_node *node, composed_problem *p);
qkv_status qkv_attend_second_problem_f64(qkv_tape *tape, const qkv_node *node, composed_problem *p);
/* The nodes' values, composed; problem: a composed_problem. */
qkv_var qkv_attend_gradient_composed(qkv_tape *tape, void *problem, const qkv_var *x, int n);
qkv_var qkv_attend_second_composed(qkv_tape *tape, void *problem, const qkv_var *x, int n);

#endif
