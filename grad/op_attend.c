/* op_attend.c - attention as one node: the stateless calls of attention.h, what they save in the
 * arena. */
#include <stdlib.h>
#include <string.h>

#include "grad/op_attend.h"
#include "src/items.h"
#include "src/real.h"

typedef struct call {
    const qkv_attention *attention;
    const qkv_slot_bool *mask;
    qkv_user_mask mask_rule;
    const int64_t *lengths, *causal_offsets, *starts_q, *starts_k;
    const void *user_score;
    /* Which of q, k, v, bias, scale, bandwidth, w, slopes, sink, relative the inputs are, in this
     * order. */
    bool present[INPUTS];
} call;

qkv_status FN(qkv_attend_report)(qkv_tape *tape, const qkv_node *node, qkv_status status)
{
    return status ? qkv_node_fail(tape, node, status, "%s", qkv_last_error()) : QKV_OK;
}

/* Packed [batch, heads, n, d], or [total, heads, d]. */
FN(qkv_slot) FN(qkv_attend_slot)(const attend_state *s, void *data, ptrdiff_t heads, ptrdiff_t d)
{
    FN(qkv_slot) slot = {.data = data, .strided = s->ragged};
    slot.stride[1] = d;
    slot.stride[2] = heads * d;
    slot.stride[3] = 1;
    return slot;
}

FN(qkv_operands) FN(qkv_attend_slots)(const attend_state *s, void *const data[INPUTS])
{
    FN(qkv_operands) x = s->in;
    x.q.data = data[Q];
    x.k.data = data[K];
    x.v.data = data[V];
    x.bias.data = data[BIAS];
    x.scale.data = data[SCALE];
    x.bandwidth.data = data[BANDWIDTH];
    x.w.data = data[W];
    x.slopes.data = data[SLOPES];
    x.sink.data = data[SINK];
    x.relative.data = data[RELATIVE];
    return x;
}

void *FN(qkv_attend_workspace)(qkv_tape *tape, const qkv_node *node, const attend_state *s,
                               qkv_pass pass, size_t *bytes)
{
    qkv_status status =
        s->ragged ? qkv_ragged_workspace(&s->a, s->starts_q, s->starts_k, pass, REAL_DTYPE, bytes)
                  : qkv_attention_workspace(&s->a, pass, REAL_DTYPE, bytes);
    return FN(qkv_attend_report)(tape, node, status) ? NULL
                                                     : qkv_node_workspace(tape, node, *bytes);
}

qkv_status FN(qkv_attend_split)(qkv_tape *tape, const qkv_node *node, const attend_state *s,
                                real *gradient[INPUTS])
{
    for (int i = 0; i < INPUTS; i++) {
        gradient[i] = s->input[i] < 0 ? NULL : qkv_input_gradient(tape, node, s->input[i]);
        for (int j = 0; j < i && gradient[i]; j++) {
            if (gradient[j] != gradient[i]) continue;
            size_t n = qkv_input(tape, node, s->input[i])->size;
            gradient[i] = qkv_node_take(tape, node, n, sizeof(real));
            if (!gradient[i]) return QKV_E_NOMEM;
            memset(gradient[i], 0, n * sizeof(real));
        }
    }
    return QKV_OK;
}

void FN(qkv_attend_join)(qkv_tape *tape, const qkv_node *node, const attend_state *s,
                         real *const gradient[INPUTS])
{
    for (int i = 0; i < INPUTS; i++) {
        real *to = s->input[i] < 0 ? NULL : qkv_input_gradient(tape, node, s->input[i]);
        if (!to || to == gradient[i]) continue;
        size_t n = qkv_input(tape, node, s->input[i])->size;
        for (size_t x = 0; x < n; x++) to[x] += gradient[i][x];
    }
}

/* [batch, heads, n, d] of an operand that may lack leading axes. That of a ragged batch has no
 * first axis, and rows come before heads. */
static qkv_status matrix(qkv_tape *tape, const qkv_node *node, const qkv_node *x, const char *name,
                         ptrdiff_t dim[4])
{
    const attend_state *s = node->state;
    int most = s->ragged ? 3 : 4;
    if (x->rank < 2 || x->rank > most)
        return qkv_node_fail(tape, node, QKV_E_SHAPE, "%s has rank %d, expected 2 to %d", name,
                             x->rank, most);
    dim[3] = x->dim[x->rank - 1];
    if (s->ragged) {
        dim[0] = 1;
        dim[1] = x->rank > 2 ? x->dim[1] : 1;
        dim[2] = x->dim[0];
        return QKV_OK;
    }
    dim[0] = x->rank > 2 ? x->dim[0] : 1;
    dim[1] = x->rank > 3 ? x->dim[1] : 1;
    dim[2] = x->dim[x->rank - 2];
    return QKV_OK;
}

static qkv_status equal(qkv_tape *tape, const qkv_node *node, const char *what, ptrdiff_t found,
                        ptrdiff_t expected)
{
    if (found == expected) return QKV_OK;
    return qkv_node_fail(tape, node, QKV_E_SHAPE, "%s is %td, expected %td", what, found, expected);
}

/* The sizes of the problem from the shapes of q, k and v. */
static qkv_status sizes(qkv_tape *tape, qkv_node *node, qkv_attention *a)
{
    const qkv_node *q = qkv_input(tape, node, 0), *k = qkv_input(tape, node, 1),
                   *v = qkv_input(tape, node, 2);
    ptrdiff_t dq[4] = {0}, dk[4] = {0}, dv[4] = {0};
    if (matrix(tape, node, q, "q", dq) || matrix(tape, node, k, "k", dk) ||
        matrix(tape, node, v, "v", dv) || equal(tape, node, "the rank of k", k->rank, q->rank) ||
        equal(tape, node, "the rank of v", v->rank, q->rank) ||
        equal(tape, node, "the batch of k", dk[0], dq[0]) ||
        equal(tape, node, "the batch of v", dv[0], dq[0]) ||
        equal(tape, node, "the number of heads of v", dv[1], dk[1]) ||
        equal(tape, node, "the size of a key", dk[3], dq[3]) ||
        equal(tape, node, "the number of values", dv[2], dk[2]))
        return tape->status;
    const attend_state *s = node->state;
    if (!s->ragged) a->batch = dq[0];
    a->heads = dq[1];
    a->kv_heads = dk[1];
    a->n_q = dq[2];
    a->n_k = dk[2];
    a->d_k = dq[3];
    a->d_v = dv[3];
    return QKV_OK;
}

/* Do the starts fit the rows that there are? */
static qkv_status check_items(qkv_tape *tape, const qkv_node *node, attend_state *s)
{
    qkv_items items;
    s->columns = s->a.n_k;
    if (!s->ragged) return QKV_OK;
    qkv_status status =
        qkv_items_of("qkv_attend", &s->a, sizeof(real), s->starts_q, s->starts_k, &items);
    if (status) return FN(qkv_attend_report)(tape, node, status);
    s->columns = items.longest;
    if (equal(tape, node, "the number of queries", s->a.n_q, items.rows.n_q)) return tape->status;
    return equal(tape, node, "the number of keys", s->a.n_k, items.rows.n_k);
}

/* A bias of any shape that broadcasts, as strides over [batch, heads, n_q, n_k]. */
static qkv_status bias_slot(qkv_tape *tape, const qkv_node *node, const attend_state *s,
                            const qkv_node *x, FN(qkv_slot) *slot)
{
    const ptrdiff_t to[4] = {s->ragged ? 1 : s->a.batch, s->a.heads, s->a.n_q, s->columns};
    ptrdiff_t step = 1;
    if (x->rank > 4)
        return qkv_node_fail(tape, node, QKV_E_SHAPE, "the bias has rank %d, expected 0 to 4",
                             x->rank);
    slot->data = x->value;
    slot->strided = true;
    for (int i = 3, j = x->rank - 1; i >= 0; i--, j--) {
        ptrdiff_t n = j >= 0 ? x->dim[j] : 1;
        if (n != to[i] && n != 1)
            return qkv_node_fail(tape, node, QKV_E_SHAPE,
                                 "axis %d of the bias is %td, expected %td or 1", j, n, to[i]);
        slot->stride[i] = n == 1 ? 0 : step;
        step *= n;
    }
    return QKV_OK;
}

/* One number for all heads, or one each. */
static qkv_status head_slot(qkv_tape *tape, const qkv_node *node, const qkv_node *x,
                            const char *name, ptrdiff_t heads, FN(qkv_slot) *slot)
{
    if (!x) return QKV_OK;
    bool per_head = x->rank == 1 && x->dim[0] == heads;
    if (!per_head && x->size != 1)
        return qkv_node_fail(tape, node, QKV_E_SHAPE, "%s has %zu elements, expected 1 or [%td]",
                             name, x->size, heads);
    *slot = (FN(qkv_slot)){.data = x->value, .strided = true};
    slot->stride[1] = per_head && heads > 1;
    return QKV_OK;
}

static qkv_status parameter_slots(qkv_tape *tape, const qkv_node *node, attend_state *s,
                                  const qkv_node *const x[INPUTS])
{
    const qkv_node *h = x[BANDWIDTH];
    if (head_slot(tape, node, x[SCALE], "scale", s->a.heads, &s->in.scale) ||
        head_slot(tape, node, x[SLOPES], "slopes", s->a.heads, &s->in.slopes) ||
        head_slot(tape, node, x[SINK], "sink", s->a.heads, &s->in.sink))
        return tape->status;
    if (h) {
        if (h->size != 1 && (h->rank != 1 || h->dim[0] != s->a.d_k))
            return qkv_node_fail(tape, node, QKV_E_SHAPE,
                                 "bandwidth has %zu elements, expected 1 or [%td]", h->size,
                                 s->a.d_k);
        s->in.bandwidth.data = h->value;
        s->a.bandwidths = (ptrdiff_t)h->size;
    }
    const qkv_node *w = x[W];
    ptrdiff_t n = s->a.score == QKV_SCORE_USER ? s->a.bandwidths : s->a.d_k;
    if (w && (w->rank != 1 || w->dim[0] != n))
        return qkv_node_fail(tape, node, QKV_E_SHAPE,
                             "w has %zu elements and rank %d, expected "
                             "[%td]",
                             w->size, w->rank, n);
    if (w) s->in.w.data = w->value;
    const qkv_node *table = x[RELATIVE];
    if (!table) return QKV_OK;
    ptrdiff_t entries = s->a.relative_left + s->a.relative_right + 1;
    bool per_head = table->rank == 2 && table->dim[0] == s->a.heads;
    if ((table->rank != 1 && !per_head) || table->dim[table->rank - 1] != entries)
        return qkv_node_fail(tape, node, QKV_E_SHAPE,
                             "relative has %zu elements and rank %d, expected [%td] or [%td, %td]",
                             table->size, table->rank, entries, s->a.heads, entries);
    s->in.relative = (FN(qkv_slot)){
        .data = table->value, .strided = true, .stride = {0, per_head ? entries : 0, 0, 1}};
    return QKV_OK;
}

/* The rows that backward needs. */
static qkv_status save_slots(qkv_tape *tape, const qkv_node *node, attend_state *s)
{
    size_t rows = (size_t)((s->ragged ? 1 : s->a.batch) * s->a.heads * s->a.n_q);
    real *memory = qkv_node_take(tape, node, rows, 2 * sizeof *memory);
    if (!memory) return QKV_E_NOMEM;
    s->saved.row_max.data = memory;
    s->saved.row_log_sum.data = memory + rows;
    return QKV_OK;
}

static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    const call *given = arguments;
    attend_state *s = qkv_node_take(tape, node, 1, sizeof *s);
    if (!s) return QKV_E_NOMEM;
    *s = (attend_state){.a = *given->attention,
                        .ragged = given->starts_q || given->starts_k,
                        .starts_q = given->starts_q,
                        .starts_k = given->starts_k};
    if (s->a.score != QKV_SCORE_USER) s->a.bandwidths = 0;
    node->state = s;
    const qkv_node *x[INPUTS] = {0};
    for (int i = 0, n = 0; i < INPUTS; i++) {
        s->input[i] = given->present[i] ? n++ : -1;
        if (given->present[i]) x[i] = qkv_input(tape, node, s->input[i]);
    }
    if (sizes(tape, node, &s->a) || check_items(tape, node, s)) return tape->status;
    s->in.q = FN(qkv_attend_slot)(s, x[Q]->value, s->a.heads, s->a.d_k);
    s->in.k = FN(qkv_attend_slot)(s, x[K]->value, s->a.kv_heads, s->a.d_k);
    s->in.v = FN(qkv_attend_slot)(s, x[V]->value, s->a.kv_heads, s->a.d_v);
    if (given->mask) s->in.mask = *given->mask;
    s->in.mask_rule = given->mask_rule;
    s->in.lengths = given->lengths;
    s->in.causal_offsets = given->causal_offsets;
    s->in.user_score = given->user_score;
    if (x[BIAS] && bias_slot(tape, node, s, x[BIAS], &s->in.bias)) return tape->status;
    if (parameter_slots(tape, node, s, x) || save_slots(tape, node, s)) return tape->status;
    ptrdiff_t dim[4];
    for (int i = 0; i < x[Q]->rank; i++) dim[i] = x[Q]->dim[i];
    dim[x[Q]->rank - 1] = s->a.d_v;
    return qkv_node_shape(tape, node, x[Q]->rank, dim);
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    attend_state *s = node->state;
    size_t bytes;
    void *memory = FN(qkv_attend_workspace)(tape, node, s, QKV_FORWARD, &bytes);
    if (!memory) return tape->status;
    s->saved.o = FN(qkv_attend_slot)(s, node->value, s->a.heads, s->a.d_v);
    return FN(qkv_attend_report)(
        tape, node,
        s->ragged ? FN(qkv_ragged_forward)(&s->a, s->starts_q, s->starts_k, &s->in, &s->saved,
                                           memory, bytes)
                  : FN(qkv_attention_forward)(&s->a, &s->in, &s->saved, memory, bytes));
}

qkv_status FN(qkv_attend_backward)(qkv_tape *tape, const qkv_node *node, const attend_state *s,
                                   void *d_o, void *const gradient[INPUTS])
{
    size_t bytes;
    void *memory = FN(qkv_attend_workspace)(tape, node, s, QKV_BACKWARD, &bytes);
    if (!memory) return tape->status;
    const FN(qkv_operands) d_in = FN(qkv_attend_slots)(s, gradient);
    const FN(qkv_results) d_out = {.o = FN(qkv_attend_slot)(s, d_o, s->a.heads, s->a.d_v)};
    return FN(qkv_attend_report)(
        tape, node,
        s->ragged
            ? FN(qkv_ragged_backward)(&s->a, s->starts_q, s->starts_k, &s->in, &s->saved, &d_out,
                                      &d_in, memory, bytes)
            : FN(qkv_attention_backward)(&s->a, &s->in, &s->saved, &d_out, &d_in, memory, bytes));
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    const attend_state *s = node->state;
    real *gradient[INPUTS];
    if (FN(qkv_attend_split)(tape, node, s, gradient) ||
        FN(qkv_attend_backward)(tape, node, s, node->gradient, (void *const *)gradient))
        return tape->status;
    FN(qkv_attend_join)(tape, node, s, gradient);
    return QKV_OK;
}

/* Do weights become exactly 0 somewhere, where o or its slope is not smooth? */
static bool has_edges(const qkv_attention *a)
{
    bool kernel = a->normalize == QKV_KERNEL_SUM || a->normalize == QKV_NONE_KERNEL;
    return a->normalize == QKV_HARD || a->normalize == QKV_TOP_K ||
           a->normalize == QKV_TOP_K_UNIFORM || a->normalize == QKV_SPARSEMAX ||
           a->normalize == QKV_ENTMAX_15 || kernel;
}

/* Which keys have weight. For the gradient check, which has few: the whole matrix is computed. */
static uint64_t branches(const qkv_tape *tape, const qkv_node *node)
{
    const attend_state *s = node->state;
    size_t bytes, rows = (size_t)(s->a.batch * s->a.heads * s->a.n_q);
    size_t n_weights = rows * (size_t)s->a.n_k, n_o = rows * (size_t)s->a.d_v;
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
    (void)tape;
    if (!has_edges(&s->a) || s->ragged ||
        qkv_attention_workspace(&s->a, QKV_FORWARD, REAL_DTYPE, &bytes))
        return 0;
    real *numbers = calloc(n_weights + n_o + 1, sizeof *numbers);
    void *workspace = malloc(bytes + !bytes);
    const FN(qkv_results) out = {.weights = {.data = numbers}, .o = {.data = numbers + n_weights}};
    if (numbers && workspace && !FN(qkv_attention_forward)(&s->a, &s->in, &out, workspace, bytes))
        for (size_t i = 0; i < n_weights; i++) hash = (hash ^ (numbers[i] != 0)) * 0x100000001b3;
    free(numbers);
    free(workspace);
    return hash;
}

static uint64_t hash_mask(uint64_t hash, const attend_state *s)
{
    const qkv_slot_bool *m = &s->in.mask;
    const ptrdiff_t n[4] = {s->a.batch, s->a.heads, s->a.n_q, s->a.n_k};
    const ptrdiff_t packed[4] = {n[1] * n[2] * n[3], n[2] * n[3], n[3], 1};
    const ptrdiff_t *step = m->strided ? m->stride : packed;
    for (ptrdiff_t b = 0; b < n[0]; b++)
        for (ptrdiff_t h = 0; h < n[1]; h++)
            for (ptrdiff_t i = 0; i < n[2]; i++)
                for (ptrdiff_t j = 0; j < n[3]; j++) {
                    ptrdiff_t at = b * step[0] + h * step[1] + i * step[2] + j * step[3];
                    hash = qkv_debug_hash(hash, m->data + at, 1);
                }
    return hash;
}

/* Lengths, offsets, starts and mask: whatever a rule or a score of the caller's reads is its own
 * affair. */
static uint64_t borrowed(const qkv_node *node)
{
    const attend_state *s = node->state;
    const int64_t *const lists[] = {s->in.lengths, s->in.causal_offsets, s->starts_q, s->starts_k};
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        size_t n = (size_t)s->a.batch + (i >= 2);
        if (lists[i]) hash = qkv_debug_hash(hash, lists[i], n * sizeof *lists[i]);
    }
    return s->in.mask.data ? hash_mask(hash, s) : hash;
}

const qkv_op FN(qkv_op_attend) = {.shape = shape,
                                  .forward = forward,
                                  .backward = backward,
                                  .branches = branches,
                                  .borrowed = borrowed};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
/* A projection is [in, out] or, if it may be one a head, [heads, in, out]. */
static qkv_status check_projection(qkv_tape *tape, const char *name, qkv_var p, qkv_var x,
                                   ptrdiff_t heads, int axis)
{
    const qkv_shape w = qkv_shape_of(tape, p), s = qkv_shape_of(tape, x);
    char text[64];
    if (tape->status || s.rank < 2) return tape->status; /* of q and k the node itself will tell */
    ptrdiff_t width = s.dim[s.rank - 1];
    bool of_heads = heads >= 0 && w.rank == 3 && w.dim[0] == heads;
    if ((w.rank == 2 || of_heads) && w.dim[w.rank - 2 + axis] == width) return QKV_OK;
    qkv_shape_describe(w.rank, w.dim, text, sizeof text);
    if (heads < 0)
        qkv_refuse(tape, QKV_OP_attend, QKV_E_SHAPE, "%s is %s, expected [d, %td]", name, text,
                   width);
    else
        qkv_refuse(tape, QKV_OP_attend, QKV_E_SHAPE,
                   "%s is %s, expected [%td, d_k] or [%td, %td, d_k]", name, text, width, heads,
                   width);
    return tape->status;
}

/* q m, head by head if m is. */
static qkv_var bilinear(qkv_tape *tape, const qkv_attend_vars *in)
{
    static const int heads_first[] = {1, 0, 2};
    bool turn = in->starts_q && qkv_shape_of(tape, in->m).rank == 3; /* q is [total, heads, d] */
    if (!turn) return qkv_matmul(tape, in->q, in->m);
    qkv_var by_head = qkv_matmul(tape, qkv_transpose(tape, in->q, heads_first), in->m);
    return qkv_transpose(tape, by_head, heads_first);
}

static ptrdiff_t heads_of(qkv_tape *tape, const qkv_attend_vars *in)
{
    const qkv_shape q = qkv_shape_of(tape, in->q);
    return q.rank == 4 || (q.rank == 3 && in->starts_q) ? q.dim[1] : 1;
}

/* q and k become what the dot, or the additive score's sum, is taken of. */
static qkv_status project(qkv_tape *tape, const qkv_attention *a, qkv_attend_vars *in)
{
    bool plain = a->score == QKV_SCORE_SCALED_DOT || a->score == QKV_SCORE_DOT;
    bool w = in->w_q.generation || in->w_k.generation;
    if (in->m.generation && !plain) {
        qkv_refuse(tape, QKV_OP_attend, QKV_E_ARG,
                   "m does not go with %s score, only with a dot or scaled dot", qkv_score_name(a));
        return QKV_E_ARG;
    }
    if (w && a->score != QKV_SCORE_ADDITIVE) {
        qkv_refuse(tape, QKV_OP_attend, QKV_E_ARG,
                   "w_q and w_k do not go with %s score, only with an additive one",
                   qkv_score_name(a));
        return QKV_E_ARG;
    }
    if (in->m.generation) {
        if (check_projection(tape, "m", in->m, in->q, heads_of(tape, in), 0)) return tape->status;
        in->q = bilinear(tape, in);
    }
    if (in->w_q.generation) {
        if (check_projection(tape, "w_q", in->w_q, in->q, -1, 1)) return tape->status;
        in->q = qkv_matmul(tape, in->q, qkv_transpose(tape, in->w_q, NULL));
    }
    if (in->w_k.generation) {
        if (check_projection(tape, "w_k", in->w_k, in->k, -1, 1)) return tape->status;
        in->k = qkv_matmul(tape, in->k, qkv_transpose(tape, in->w_k, NULL));
    }
    return tape->status;
}

qkv_var qkv_attend(qkv_tape *tape, const qkv_attention *a, const qkv_attend_vars *in)
{
    if (!tape || !a || !in)
        return qkv_refuse(tape, QKV_OP_attend, QKV_E_ARG, "%s is NULL", a ? "in" : "a");
    qkv_attend_vars projected;
    if (in->m.generation || in->w_q.generation || in->w_k.generation) {
        projected = *in;
        if (project(tape, a, &projected)) return (qkv_var){0};
        in = &projected;
    }
    const qkv_var all[INPUTS] = {in->q,         in->k, in->v,      in->bias, in->scale,
                                 in->bandwidth, in->w, in->slopes, in->sink, in->relative};
    call arguments = {.attention = a,
                      .mask = in->mask,
                      .mask_rule = in->mask_rule,
                      .lengths = in->lengths,
                      .causal_offsets = in->causal_offsets,
                      .starts_q = in->starts_q,
                      .starts_k = in->starts_k,
                      .user_score = in->user_score};
    qkv_var inputs[INPUTS];
    int n = 0;
    for (int i = 0; i < INPUTS; i++) {
        arguments.present[i] = i < 3 || all[i].generation != 0;
        if (arguments.present[i]) inputs[n++] = all[i];
    }
    return qkv_record(tape, QKV_OP_attend, inputs, n, &arguments);
}
#endif
