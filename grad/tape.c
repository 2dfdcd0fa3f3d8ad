/* tape.c - nodes, handles, errors: everything about recording. backward.c plays it back. */
#include "grad/tape.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/size.h"

/* Unique over all tapes and resets of the process, so that a handle belongs to one of them. */
static uint32_t next_generation(void)
{
    static atomic_uint_least32_t last;
    uint32_t g;
    do g = (uint32_t)atomic_fetch_add(&last, 1) + 1;
    while (g == 0);
    return g;
}

/* ---- The tape -------------------------------------------------------------------------------- */

qkv_status qkv_tape_new(qkv_tape **tape, qkv_dtype dtype)
{
    if (!tape) return qkv_fail(QKV_E_ARG, "qkv_tape_new: tape is NULL");
    *tape = NULL;
    if (dtype != QKV_F32 && dtype != QKV_F64)
        return qkv_fail(QKV_E_ARG, "qkv_tape_new: dtype is %d, expected QKV_F32 or QKV_F64",
                        (int)dtype);
    qkv_tape *t = calloc(1, sizeof *t);
    if (!t) return qkv_fail(QKV_E_NOMEM, "qkv_tape_new: no memory");
    t->dtype = dtype;
    qkv_tape_reset(t);
    *tape = t;
    return QKV_OK;
}

void qkv_tape_free(qkv_tape *tape)
{
    if (!tape) return;
    qkv_arena_free(&tape->values);
    qkv_arena_free(&tape->sweep);
    qkv_tape_free(tape->inner);
    free(tape->workspace);
    free(tape->nodes);
    free(tape);
}

void qkv_tape_reset(qkv_tape *tape)
{
    if (!tape) return;
    qkv_arena_reset(&tape->values);
    qkv_arena_reset(&tape->sweep);
    tape->n_nodes = tape->n_swept = 0;
    tape->generation = next_generation();
    tape->no_grad = 0;
    tape->status = QKV_OK;
    tape->message[0] = 0;
}

qkv_status qkv_tape_status(const qkv_tape *tape)
{
    return tape ? tape->status : QKV_E_ARG;
}

const char *qkv_tape_error(const qkv_tape *tape)
{
    return tape ? tape->message : "the tape is NULL";
}

qkv_dtype qkv_tape_dtype(const qkv_tape *tape)
{
    return tape ? tape->dtype : QKV_F32;
}

size_t qkv_tape_nodes(const qkv_tape *tape)
{
    return tape ? tape->n_nodes : 0;
}

size_t qkv_tape_bytes(const qkv_tape *tape)
{
    if (!tape) return 0;
    return qkv_tape_bytes(tape->inner) + tape->values.bytes + tape->sweep.bytes +
           tape->workspace_bytes + tape->capacity * sizeof(qkv_node) + sizeof *tape;
}

void qkv_no_grad_begin(qkv_tape *tape)
{
    if (tape) tape->no_grad++;
}

void qkv_no_grad_end(qkv_tape *tape)
{
    if (!tape) return;
    if (tape->no_grad == 0)
        qkv_tape_fail(tape, QKV_E_STATE, "qkv_no_grad_end: no scope was begun");
    else
        tape->no_grad--;
}

/* ---- Errors ---------------------------------------------------------------------------------- */

/* Keeps the first error, and makes it the thread's last. */
static qkv_status stick(qkv_tape *tape, qkv_status status, const char *where, const char *format,
                        va_list arguments)
{
    if (tape->status) return tape->status;
    char what[QKV_MESSAGE_BYTES];
    vsnprintf(what, sizeof what, format, arguments);
    qkv_fail(status, "%s%s", where, what);
    tape->status = status;
    snprintf(tape->message, sizeof tape->message, "%s", qkv_last_error());
    return status;
}

qkv_status qkv_tape_fail(qkv_tape *tape, qkv_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    status = stick(tape, status, "", format, arguments);
    va_end(arguments);
    return status;
}

qkv_status qkv_node_fail(qkv_tape *tape, const qkv_node *node, qkv_status status,
                         const char *format, ...)
{
    char where[QKV_MESSAGE_BYTES / 2];
    qkv_node_describe(tape, node, where, sizeof where - 2);
    strcat(where, ": ");
    va_list arguments;
    va_start(arguments, format);
    status = stick(tape, status, where, format, arguments);
    va_end(arguments);
    return status;
}

qkv_var qkv_refuse(qkv_tape *tape, qkv_op_id op, qkv_status status, const char *format, ...)
{
    if (!tape) return (qkv_var){0};
    char where[64];
    snprintf(where, sizeof where, "%%%u = %s(): ", (unsigned)tape->n_nodes, qkv_registry[op].name);
    va_list arguments;
    va_start(arguments, format);
    stick(tape, status, where, format, arguments);
    va_end(arguments);
    return (qkv_var){0};
}

/* ---- Nodes ----------------------------------------------------------------------------------- */

static bool is_known(const qkv_tape *tape, qkv_var x)
{
    return x.generation == tape->generation && x.node < tape->n_nodes;
}

/* What is wrong with a handle that is not known. */
static const char *fault(qkv_var x)
{
    return x.generation ? "stale (from before a reset) or of another tape" : "the invalid handle";
}

qkv_node *qkv_node_of(qkv_tape *tape, qkv_var x, const char *who)
{
    if (tape->status) return NULL;
    if (is_known(tape, x)) return &tape->nodes[x.node];
    qkv_tape_fail(tape, QKV_E_STATE, "%s: the handle is %s", who, fault(x));
    return NULL;
}

void *qkv_node_take(qkv_tape *tape, const qkv_node *node, size_t n, size_t size)
{
    void *memory = qkv_arena_take(tape->sweeping ? &tape->sweep : &tape->values, n, size);
    if (!memory) qkv_node_fail(tape, node, QKV_E_NOMEM, "no memory for %zu x %zu bytes", n, size);
    return memory;
}

void *qkv_node_workspace(qkv_tape *tape, const qkv_node *node, size_t bytes)
{
    if (bytes <= tape->workspace_bytes && tape->workspace) return tape->workspace;
    free(tape->workspace);
    tape->workspace_bytes = 0;
    tape->workspace = malloc(bytes + !bytes);
    if (tape->workspace)
        tape->workspace_bytes = bytes;
    else
        qkv_node_fail(tape, node, QKV_E_NOMEM, "no memory for a workspace of %zu bytes", bytes);
    return tape->workspace;
}

qkv_status qkv_node_shape(qkv_tape *tape, qkv_node *node, int rank, const ptrdiff_t *dim)
{
    if (rank < 0 || rank > QKV_MAX_RANK)
        return qkv_node_fail(tape, node, QKV_E_SHAPE, "the rank is %d, expected 0 to %d", rank,
                             QKV_MAX_RANK);
    size_t size = 1, bytes = qkv_element(tape);
    for (int i = 0; i < rank; i++) {
        if (dim[i] < 0)
            return qkv_node_fail(tape, node, QKV_E_SHAPE, "size %d is %td, expected 0 or more", i,
                                 dim[i]);
        if (!qkv_size_mul(&size, dim[i]) || !qkv_size_mul(&bytes, dim[i]) || bytes > PTRDIFF_MAX)
            return qkv_node_fail(tape, node, QKV_E_OVERFLOW, "the product of the sizes overflows");
    }
    ptrdiff_t *copy = qkv_node_take(tape, node, (size_t)rank, sizeof *dim);
    if (!copy) return QKV_E_NOMEM;
    for (int i = 0; i < rank; i++) copy[i] = dim[i];
    node->rank = (uint8_t)rank;
    node->dim = copy;
    node->size = size;
    return QKV_OK;
}

qkv_status qkv_node_axis(qkv_tape *tape, const qkv_node *node, int rank, int axis, int *result)
{
    *result = axis < 0 ? axis + rank : axis;
    if (*result >= 0 && *result < rank) return QKV_OK;
    return qkv_node_fail(tape, node, QKV_E_SHAPE, "axis %d does not exist at rank %d", axis, rank);
}

static bool reserve_node(qkv_tape *tape)
{
    if (tape->n_nodes < tape->capacity) return true;
    uint32_t capacity = tape->capacity ? 2 * tape->capacity : 64;
    qkv_node *nodes = NULL;
    if (capacity > tape->capacity) nodes = realloc(tape->nodes, capacity * sizeof *nodes);
    if (!nodes) return false;
    tape->nodes = nodes;
    tape->capacity = capacity;
    return true;
}

static qkv_status compute(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    const qkv_op *op = qkv_op_of(tape, node);
    qkv_status status = op->shape(tape, node, arguments);
    if (status) return status;
    if (!node->value) node->value = qkv_node_take(tape, node, node->size, qkv_element(tape));
    if (!node->value) return QKV_E_NOMEM;
    if (op->forward) {
        tape->busy = true;
        status = op->forward(tape, node);
        tape->busy = false;
    }
    if (status || tape->status) return status ? status : tape->status;
    return tape->debug ? qkv_debug_recorded(tape, node) : QKV_OK;
}

/* The inputs' nodes into the node; a bad handle is one beyond the tape, printed as ?. */
static qkv_status connect(qkv_tape *tape, qkv_node *node, const qkv_var *inputs, int n_inputs)
{
    uint32_t *input = node->input.few;
    if (n_inputs > QKV_FEW_INPUTS)
        node->input.many = input = qkv_node_take(tape, node, (size_t)n_inputs, sizeof *input);
    if (!input) return QKV_E_NOMEM;
    int bad = -1;
    bool needs_gradient = false;
    for (int i = 0; i < n_inputs; i++) {
        bool known = is_known(tape, inputs[i]);
        input[i] = known ? inputs[i].node : UINT32_MAX;
        needs_gradient |= known && tape->nodes[input[i]].needs_gradient;
        if (!known && bad < 0) bad = i;
    }
    node->n_input = (uint16_t)n_inputs;
    node->needs_gradient = needs_gradient && !tape->no_grad;
    node->constant = tape->no_grad > 0;
    if (bad < 0) return QKV_OK;
    return qkv_node_fail(tape, node, QKV_E_STATE, "input %d is %s", bad, fault(inputs[bad]));
}

qkv_var qkv_record(qkv_tape *tape, qkv_op_id id, const qkv_var *inputs, int n_inputs,
                   const void *arguments)
{
    const qkv_var invalid = {0};
    if (!tape || tape->status) return invalid;
    if (tape->busy)
        return qkv_refuse(tape, id, QKV_E_STATE, "recorded from inside an operation of this tape");
    if (!reserve_node(tape)) return qkv_refuse(tape, id, QKV_E_NOMEM, "no memory for the node");
    qkv_node *node = &tape->nodes[tape->n_nodes];
    *node = (qkv_node){.op = (uint16_t)id};
    if (connect(tape, node, inputs, n_inputs)) return invalid;
    if (compute(tape, node, arguments)) return invalid;
    return (qkv_var){.node = tape->n_nodes++, .generation = tape->generation};
}

/* ---- Reading --------------------------------------------------------------------------------- */

static const qkv_node *typed(qkv_tape *tape, qkv_var x, qkv_dtype dtype, const char *who)
{
    const qkv_node *node = tape ? qkv_node_of(tape, x, who) : NULL;
    if (!node || tape->dtype == dtype) return node;
    qkv_node_fail(tape, node, QKV_E_DTYPE, "%s: the tape carries %s", who,
                  tape->dtype == QKV_F32 ? "float" : "double");
    return NULL;
}

const float *qkv_value_f32(qkv_tape *tape, qkv_var x)
{
    const qkv_node *node = typed(tape, x, QKV_F32, "qkv_value_f32");
    return node ? node->value : NULL;
}

const double *qkv_value_f64(qkv_tape *tape, qkv_var x)
{
    const qkv_node *node = typed(tape, x, QKV_F64, "qkv_value_f64");
    return node ? node->value : NULL;
}

double qkv_item(qkv_tape *tape, qkv_var x)
{
    const qkv_node *node = tape ? qkv_node_of(tape, x, "qkv_item") : NULL;
    if (!node || node->size == 0) return NAN;
    return tape->dtype == QKV_F32 ? *(const float *)node->value : *(const double *)node->value;
}

static const void *gradient(qkv_tape *tape, const qkv_node *node)
{
    bool readable = node && (tape->kept || node->op == QKV_OP_leaf);
    return readable ? node->gradient : NULL;
}

const float *qkv_grad_f32(qkv_tape *tape, qkv_var x)
{
    return gradient(tape, typed(tape, x, QKV_F32, "qkv_grad_f32"));
}

const double *qkv_grad_f64(qkv_tape *tape, qkv_var x)
{
    return gradient(tape, typed(tape, x, QKV_F64, "qkv_grad_f64"));
}

qkv_shape qkv_shape_of(qkv_tape *tape, qkv_var x)
{
    qkv_shape shape = {.rank = -1};
    const qkv_node *node = tape ? qkv_node_of(tape, x, "qkv_shape_of") : NULL;
    if (!node) return shape;
    shape.rank = node->rank;
    for (int i = 0; i < node->rank; i++) shape.dim[i] = node->dim[i];
    return shape;
}
