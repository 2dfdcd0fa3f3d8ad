/* tape.h - the inside of the tape: its nodes, and what an operation is.
 *
 * To add an operation: write grad/op_NAME.c, which defines `const qkv_op FN(qkv_op_NAME)`; add a
 * line to grad/ops.def; declare it in include/qkv/tape.h and record it in grad/ops.c. Without check
 * cases it does not link. */
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

typedef struct qkv_node {
    void *value;           /* size elements of the tape's dtype */
    void *gradient;        /* the same; NULL: not wanted, or not reached by the last backward */
    void *state;           /* the operation's own: an axis, indices, what forward saved */
    const uint32_t *input; /* nodes, all before this one */
    const ptrdiff_t *dim;
    size_t size;
    uint16_t op, n_input;
    uint8_t rank;
    bool needs_gradient;
    bool released; /* a backward without keep has passed */
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
    int no_grad;
    bool kept;     /* the last backward, all its gradients */
    bool busy;     /* an operation runs: a user's must not record on its own tape */
    bool sweeping; /* it runs backward */
    qkv_dtype dtype;
    qkv_status status;
    char message[QKV_MESSAGE_BYTES];
};

/* What an operation is checked on: random inputs, a random cotangent, every input on trial. */
typedef struct qkv_op_case {
    const char *label; /* of the operation alone if NULL */
    int n_input;
    qkv_shape input[7];
    double lower, upper;   /* the values; both 0: -1 to 1 */
    bool spread;           /* values at least a grid step apart and from 0, for kinks */
    bool gradient_is_zero; /* by design */
    unsigned constant;     /* bit i: input i has no gradient */
    qkv_var (*apply)(qkv_tape *tape, const qkv_var *x);
} qkv_op_case;

/* All functions see the finished inputs. Errors go through qkv_node_fail. */
typedef struct qkv_op {
    const char *name;
    /* Checks the inputs and calls qkv_node_shape; may take state from the arena. */
    qkv_status (*shape)(qkv_tape *tape, qkv_node *node, const void *arguments);
    qkv_status (*forward)(qkv_tape *tape, qkv_node *node);  /* fills value */
    qkv_status (*backward)(qkv_tape *tape, qkv_node *node); /* input gradients += */
    const qkv_op_case *cases;                               /* ends with apply == NULL */
    const void *kernel; /* what the shared loops of elementwise.c and reduce.c call */
} qkv_op;

extern const qkv_op *const qkv_ops_f32[QKV_OP_COUNT], *const qkv_ops_f64[QKV_OP_COUNT];

/* Appends a node and computes it; the invalid handle if anything is or goes wrong. */
qkv_var qkv_record(qkv_tape *tape, qkv_op_id op, const qkv_var *inputs, int n_inputs,
                   const void *arguments);

/* The node of a handle; NULL, with the tape in error, if it is stale or foreign. who: the call, for
 * the message. */
qkv_node *qkv_node_of(qkv_tape *tape, qkv_var x, const char *who);

static inline qkv_node *qkv_input(const qkv_tape *tape, const qkv_node *node, int i)
{
    return &tape->nodes[node->input[i]];
}

/* The input's gradient, to be added to; NULL if it needs none. Memory is there: backward has seen
 * to it. */
static inline void *qkv_input_gradient(const qkv_tape *tape, const qkv_node *node, int i)
{
    return qkv_input(tape, node, i)->gradient;
}

/* Sets the shape and checks that size fits. */
qkv_status qkv_node_shape(qkv_tape *tape, qkv_node *node, int rank, const ptrdiff_t *dim);
/* n elements that live until the reset, or, taken by a backward, until the next one. NULL with the
 * tape in error. */
void *qkv_node_take(qkv_tape *tape, const qkv_node *node, size_t n, size_t size);
/* Memory for the operation that runs now; the next one overwrites it. NULL with the tape in error.
 */
void *qkv_node_workspace(qkv_tape *tape, const qkv_node *node, size_t bytes);
/* Sets the sticky error, "%7 = matmul(%3,%5): ...". Returns the status. */
qkv_status qkv_node_fail(qkv_tape *tape, const qkv_node *node, qkv_status status,
                         const char *format, ...) __attribute__((format(printf, 4, 5)));
/* The same without a node. */
qkv_status qkv_tape_fail(qkv_tape *tape, qkv_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "%7 = matmul(%3,%5)" and "[2,4]" into a buffer, cut to its size. */
void qkv_node_describe(const qkv_tape *tape, const qkv_node *node, char *text, size_t bytes);
void qkv_shape_describe(int rank, const ptrdiff_t *dim, char *text, size_t bytes);

/* The name a user gave to his operation. */
const char *qkv_user_name(const qkv_node *node);

const qkv_op *qkv_op_of(const qkv_tape *tape, const qkv_node *node);
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
