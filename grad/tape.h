/* tape.h - the inside of the tape: its nodes, and what an operation is.
 *
 * An operation is one file, op_NAME.c, and one line, QKV_OP(NAME) in ops.def. The file defines
 *
 *     FN(qkv_op_NAME)    its shape, forward and backward, for float and for double
 *     qkv_NAME           the public call, which ends in qkv_record (prototype in qkv/tape.h)
 *     qkv_differentiate_NAME
 *                        its backward once more, as operations that can be recorded
 *     qkv_cases_NAME     what its gradient is checked on (attend: in op_attend_cases.c)
 *
 * and the registry refers to all but the call: without them the library does not link.
 * op_tanh.c is the one to read first; elementwise.h and reduce.h have what several share. */
#ifndef QKV_GRAD_TAPE_H
#define QKV_GRAD_TAPE_H

#include "grad/arena.h"
#include "qkv/tape.h"
#include "src/fail.h"

typedef enum qkv_op_id {
#define QKV_OP(name) QKV_OP_##name,
#include "grad/ops.def"
#undef QKV_OP
    QKV_OP_COUNT
} qkv_op_id;

enum { QKV_FEW_INPUTS = 2 }; /* kept in the node itself */

typedef struct qkv_node {
    void *value;    /* size elements of the tape's dtype */
    void *gradient; /* the same; NULL: not wanted, or not reached by the last backward */
    void *state;    /* the operation's own: an axis, indices, what forward saved */
    union {
        uint32_t few[QKV_FEW_INPUTS];
        const uint32_t *many;
    } input;              /* nodes, all before this one; read with qkv_input_index */
    const ptrdiff_t *dim; /* often another node's: shapes never change */
    size_t size;
    uint64_t checksum; /* debugging: of the value; 0: none was taken */
    uint16_t op, n_input;
    uint8_t rank;
    bool needs_gradient;
    bool released; /* a backward without keep has passed */
    bool constant; /* detached, or recorded in a no-grad scope: no gradient passes */
} qkv_node;

struct qkv_tape {
    qkv_arena values; /* everything that lives until the reset */
    qkv_arena sweep;  /* gradients, and all else that lives until the next backward */
    void *workspace;  /* of the operation that runs, then of the next */
    size_t workspace_bytes;
    qkv_node *nodes;
    uint32_t n_nodes, capacity;
    uint32_t generation; /* never 0, so that {0} is no node's handle */
    uint32_t n_swept;    /* nodes from here on have no gradient */
    qkv_tape *inner;     /* for segments (qkv_checkpoint); NULL before the first */
    int no_grad;
    bool kept;     /* the last backward, all its gradients */
    bool busy;     /* an operation runs: a user's must not record on its own tape */
    bool sweeping; /* it runs backward */
    bool debug;    /* qkv_tape_debug */
    qkv_dtype dtype;
    qkv_status status;
    char message[QKV_MESSAGE_BYTES];
};

/* What an operation is checked on: random inputs, a random cotangent, every input on trial. */
typedef struct qkv_op_case {
    const char *label; /* of the operation alone if NULL */
    /* How to apply it: the first of these that is set. */
    qkv_var (*unary)(qkv_tape *tape, qkv_var x);
    qkv_var (*binary)(qkv_tape *tape, qkv_var a, qkv_var b);
    qkv_var (*apply)(qkv_tape *tape, const qkv_var *x);
    int n_input;
    qkv_shape input[7];
    /* The open domain, which steps do not leave; both 0: -1 to 1, and steps may leave. Values are
     * spread over it evenly in random order: none is close to another, nor, if their number is
     * even, to the middle, where a kink may be. */
    double lower, upper;
    unsigned zero;     /* bit i: the gradient of input i is exactly 0, by design */
    unsigned constant; /* bit i: input i has no gradient */
    /* By how many epsilons the numbers of the case may be off for which a float gradient is the
     * exact one; 0: 32 (gradcheck_op.c has why); -1: not in float. */
    double rounding;
} qkv_op_case;

/* All functions see the finished inputs. Errors go through qkv_node_fail. */
typedef struct qkv_op {
    /* Checks the inputs and calls qkv_node_shape; may take state, and may set the value, which is
     * then not allocated. arguments: what the call gave to qkv_record. */
    qkv_status (*shape)(qkv_tape *tape, qkv_node *node, const void *arguments);
    qkv_status (*forward)(qkv_tape *tape, qkv_node *node);  /* fills value; NULL: shape did */
    qkv_status (*backward)(qkv_tape *tape, qkv_node *node); /* input gradients +=; NULL: none */
    /* What forward decided: another number if other inputs won, say. NULL: it is smooth. */
    uint64_t (*branches)(const qkv_tape *tape, const qkv_node *node);
    /* A hash of the caller's arrays that the node reads and that are no leaves; NULL: none. */
    uint64_t (*borrowed)(const qkv_node *node);
} qkv_op;

struct qkv_reverse;

typedef struct qkv_registered {
    const char *name;
    const qkv_op *op[2];      /* by dtype */
    const qkv_op_case *cases; /* ends with n_input = 0 */
    /* backward as operations of the tape (reverse.h). */
    void (*differentiate)(qkv_tape *tape, const struct qkv_reverse *reverse);
} qkv_registered;

extern const qkv_registered qkv_registry[QKV_OP_COUNT];

/* Appends a node and computes it; the invalid handle if anything is or goes wrong. */
qkv_var qkv_record(qkv_tape *tape, qkv_op_id op, const qkv_var *inputs, int n_inputs,
                   const void *arguments);

/* The node of a handle; NULL, with the tape in error, if it is stale or foreign. who names the call
 * in the message. */
qkv_node *qkv_node_of(qkv_tape *tape, qkv_var x, const char *who);

static inline uint32_t qkv_input_index(const qkv_node *node, int i)
{
    const uint32_t *input = node->n_input > QKV_FEW_INPUTS ? node->input.many : node->input.few;
    return input[i];
}

static inline qkv_node *qkv_input(const qkv_tape *tape, const qkv_node *node, int i)
{
    return &tape->nodes[qkv_input_index(node, i)];
}

/* The input's gradient, to be added to; NULL if it needs none. backward has seen to it that the
 * memory is there. */
static inline void *qkv_input_gradient(const qkv_tape *tape, const qkv_node *node, int i)
{
    return qkv_input(tape, node, i)->gradient;
}

static inline bool qkv_same_shape(const qkv_node *a, const qkv_node *b)
{
    if (a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

/* Sets the shape and checks that size fits. */
qkv_status qkv_node_shape(qkv_tape *tape, qkv_node *node, int rank, const ptrdiff_t *dim);
/* n elements that live until the reset, or, taken by a backward, until the next one. NULL with the
 * tape in error. */
void *qkv_node_take(qkv_tape *tape, const qkv_node *node, size_t n, size_t size);
/* Memory for the operation that runs now, overwritten by the next. NULL with the tape in error. */
void *qkv_node_workspace(qkv_tape *tape, const qkv_node *node, size_t bytes);
/* Sets the sticky error, "%7 = matmul(%3,%5): ...". Returns the status. */
qkv_status qkv_node_fail(qkv_tape *tape, const qkv_node *node, qkv_status status,
                         const char *format, ...) __attribute__((format(printf, 4, 5)));
/* The same for the node that would come next, and cannot be recorded. The invalid handle. */
qkv_var qkv_refuse(qkv_tape *tape, qkv_op_id op, qkv_status status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The same without a node. */
qkv_status qkv_tape_fail(qkv_tape *tape, qkv_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "%7 = matmul(%3,%5)" and "[2,4]" into a buffer, cut to its size. */
void qkv_node_describe(const qkv_tape *tape, const qkv_node *node, char *text, size_t bytes);
void qkv_shape_describe(int rank, const ptrdiff_t *dim, char *text, size_t bytes);

/* ---- backward.c ---- */
/* The sweep from y with a packed cotangent, for a tape whose first n nodes are leaves that share
 * their callers' gradients: terms are added there at once. */
qkv_status qkv_sweep_segment(qkv_tape *tape, qkv_var y, const void *cotangent, uint32_t n);

/* ---- debug.c ---- */
/* hash, and the bytes. */
uint64_t qkv_debug_hash(uint64_t hash, const void *value, size_t bytes);
/* The node has been computed: its checksum is taken, and a NaN of its own is an error. */
qkv_status qkv_debug_recorded(qkv_tape *tape, qkv_node *node);
/* The checksums of the first n_nodes still hold. */
qkv_status qkv_debug_unchanged(qkv_tape *tape, uint32_t n_nodes);
/* The node's backward has run: a NaN of its own is an error. */
qkv_status qkv_debug_swept(qkv_tape *tape, const qkv_node *node);

/* The name that a user's operation was given. */
const char *qkv_user_name(const qkv_node *node);

static inline const qkv_op *qkv_op_of(const qkv_tape *tape, const qkv_node *node)
{
    return qkv_registry[node->op].op[tape->dtype];
}

static inline size_t qkv_element(const qkv_tape *tape)
{
    return tape->dtype == QKV_F32 ? sizeof(float) : sizeof(double);
}

/* axis, negative from the end, becomes 0 .. rank - 1; QKV_E_SHAPE otherwise. */
qkv_status qkv_node_axis(qkv_tape *tape, const qkv_node *node, int rank, int axis, int *result);

/* Shapes that many operations share. */
qkv_status qkv_shape_same(qkv_tape *tape, qkv_node *node, const void *arguments); /* as input 0 */
qkv_status qkv_shape_broadcast(qkv_tape *tape, qkv_node *node, const void *arguments);
qkv_status qkv_shape_broadcast_pair(qkv_tape *tape, const qkv_node *node, int rank_a,
                                    const ptrdiff_t *a, int rank_b, const ptrdiff_t *b,
                                    qkv_shape *result);

#endif
