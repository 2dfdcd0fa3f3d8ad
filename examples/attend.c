/* attend - the attention operator on .npy files, for any language that can write them. */
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attend.h"

/* ---- The problem ---- */

typedef struct problem {
    qkv_attention a;
    int rank;
    operand q, k, v, bias, sink, slopes, d_o;
    ptrdiff_t past; /* keys before the new ones */
    qkv_npy mask;   /* as it came */
    uint8_t *seen;  /* a boolean mask over bias.dim */
    void *scale, *bandwidth;
    int64_t *lengths, *offsets;
} problem;

/* Past rows, [batch, heads, n, d], if there are any, and new ones, as one packed array. */
static operand join_past(int option, const operand *x)
{
    operand past = {.dim = {x->dim[0], x->dim[1], 0, x->dim[3]}};
    if (given[option]) past = load_operand(option, 4, 1);
    expect(option, "the batch", past.dim[0], x->dim[0]);
    expect(option, "the number of heads", past.dim[1], x->dim[1]);
    expect(option, "the last axis", past.dim[3], x->dim[3]);
    operand all = packed(x->dim[0], x->dim[1], past.dim[2] + x->dim[2], x->dim[3]);
    for (ptrdiff_t b = 0; b < all.dim[0]; b++)
        for (ptrdiff_t h = 0; h < all.dim[1]; h++)
            for (ptrdiff_t i = 0; i < all.dim[2]; i++)
                for (ptrdiff_t c = 0; c < all.dim[3]; c++) {
                    const operand *from = i < past.dim[2] ? &past : x;
                    ptrdiff_t row = i < past.dim[2] ? i : i - past.dim[2];
                    set(all.data, place(&all, b, h, i, c),
                        get(from->data, place(from, b, h, row, c)));
                }
    free(past.data);
    free(x->data);
    return all;
}

static void load_queries_keys_values(problem *p)
{
    qkv_npy q = load(QUERY);
    type = q.type;
    p->rank = q.rank;
    if (type != QKV_NPY_F32 && type != QKV_NPY_F64)
        fail_with("%s has type %s, expected float32 or float64", given[QUERY], type_name(type));
    if (q.rank < 2 || q.rank > 4) refuse_axes(QUERY, q.rank, "2 to 4");
    qkv_npy_free(&q);
    long heads = given[HEADS] ? integer_argument("heads", given[HEADS], 1, 1 << 20) : 1;
    long kv_heads =
        given[KV_HEADS] ? integer_argument("kv-heads", given[KV_HEADS], 1, 1 << 20) : heads;
    if (p->rank != 3 && (given[HEADS] || given[KV_HEADS]))
        usage_error("--heads and --kv-heads go with files of 3 axes; %s has %d", given[QUERY],
                    p->rank);
    p->q = load_operand(QUERY, p->rank, heads);
    p->k = load_operand(KEY, p->rank, kv_heads);
    p->v = load_operand(VALUE, p->rank, kv_heads);
    expect(KEY, "the batch", p->k.dim[0], p->q.dim[0]);
    expect(VALUE, "the batch", p->v.dim[0], p->q.dim[0]);
    expect(VALUE, "the number of heads", p->v.dim[1], p->k.dim[1]);
    expect(VALUE, "the number of values", p->v.dim[2], p->k.dim[2]);
    expect(KEY, "the size of a key", p->k.dim[3], p->q.dim[3]);
    if (!given[PAST_KEY] != !given[PAST_VALUE])
        usage_error("--past-key and --past-value go together");
    if (given[PAST_KEY] || given[PRESENT_KEY] || given[PRESENT_VALUE]) {
        ptrdiff_t new = p->k.dim[2];
        p->k = join_past(PAST_KEY, &p->k);
        p->v = join_past(PAST_VALUE, &p->v);
        p->past = p->k.dim[2] - new;
        expect(PAST_VALUE, "the number of values", p->v.dim[2] - new, p->past);
    }
    p->a.batch = p->q.dim[0];
    p->a.heads = p->q.dim[1];
    p->a.kv_heads = p->k.dim[1];
    p->a.n_q = p->q.dim[2];
    p->a.n_k = p->k.dim[2];
    p->a.d_k = p->q.dim[3];
    p->a.d_v = p->v.dim[3];
}

/* The mask over [batch, heads, n_q, n_k], an axis of size 1 where it is broadcast. */
static void load_mask(problem *p)
{
    const ptrdiff_t full[4] = {p->a.batch, p->a.heads, p->a.n_q, p->a.n_k};
    p->mask = load(MASK);
    const qkv_npy *m = &p->mask;
    if (m->rank < 1 || m->rank > 4) refuse_axes(MASK, m->rank, "1 to 4");
    bool boolean = m->type == QKV_NPY_BOOL;
    if (!boolean && m->type != QKV_NPY_F16 && m->type != QKV_NPY_F32 && m->type != QKV_NPY_F64)
        fail_with("%s has type %s, expected bool (true: attend) or a float (added)", given[MASK],
                  type_name(m->type));
    if (given[GRAD_MASK] && boolean) fail_with("%s: a boolean mask has no gradient", given[MASK]);
    ptrdiff_t dim[4] = {1, 1, 1, 1}, last = m->dim[m->rank - 1];
    for (int i = 0; i < m->rank; i++) dim[4 - m->rank + i] = m->dim[i];
    for (int i = 0; i < 3; i++)
        if (dim[i] != 1 && dim[i] != full[i])
            fail_with("%s: axis %d is %td, expected 1 or %td", given[MASK], i - 4 + m->rank, dim[i],
                      full[i]);
    if (last > full[3])
        fail_with("%s: the last axis is %td, expected at most %td", given[MASK], last, full[3]);
    p->bias = packed(dim[0], dim[1], dim[2], full[3]);
    ptrdiff_t rows = dim[0] * dim[1] * dim[2];
    if (boolean) p->seen = allocate((size_t)(rows * full[3]) + 1, 1);
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < full[3]; j++) {
            bool there = j < last;
            double x = there ? qkv_npy_element(m, (size_t)(i * last + j)) : -INFINITY;
            if (boolean)
                p->seen[i * full[3] + j] = there && x != 0;
            else
                set(p->bias.data, i * full[3] + j, x);
        }
    for (int i = 0; i < 3; i++)
        if (dim[i] == 1) p->bias.stride[i] = 0;
}

/* [heads] or [batch, heads] numbers. */
static operand load_heads(int option, const qkv_attention *a)
{
    qkv_npy x = load(option);
    bool each = x.rank == 2;
    if (x.rank < 1 || x.rank > 2) refuse_axes(option, x.rank, "1 or 2");
    expect(option, "the number of heads", x.dim[x.rank - 1], a->heads);
    if (each) expect(option, "the batch", x.dim[0], a->batch);
    operand y = packed(each ? a->batch : 1, a->heads, 1, 1);
    for (size_t i = 0; i < qkv_npy_size(&x); i++) set(y.data, (ptrdiff_t)i, qkv_npy_element(&x, i));
    if (!each) y.stride[0] = 0;
    qkv_npy_free(&x);
    return y;
}

static void load_lengths(problem *p)
{
    qkv_npy x = load(LENGTHS);
    if (x.type != QKV_NPY_I64)
        fail_with("%s has type %s, expected int64", given[LENGTHS], type_name(x.type));
    if (x.rank != 1) refuse_axes(LENGTHS, x.rank, "1, [batch]");
    expect(LENGTHS, "the batch", x.dim[0], p->a.batch);
    p->lengths = x.data;
    for (ptrdiff_t b = 0; b < p->a.batch; b++)
        if (p->lengths[b] < 0 || p->lengths[b] > p->a.n_k)
            fail_with("%s: length %td is %lld, expected 0 to the number of keys, %td",
                      given[LENGTHS], b, (long long)p->lengths[b], p->a.n_k);
}

static const double FAR = 1e15; /* where doubles are still whole */

static void set_offsets(problem *p)
{
    ptrdiff_t batch = p->a.batch, n = 0;
    double *numbers = NULL;
    if (given[CAUSAL_OFFSET]) n = parse_list(CAUSAL_OFFSET, true, -FAR, FAR, &numbers);
    if (n > 1 && n != batch)
        usage_error("--causal-offset: %td numbers for a batch of %td", n, batch);
    p->offsets = allocate((size_t)batch + 1, sizeof *p->offsets);
    for (ptrdiff_t b = 0; b < batch; b++)
        p->offsets[b] = n            ? (int64_t)numbers[n > 1 ? b : 0]
                        : p->past    ? p->past
                        : p->lengths ? p->lengths[b] - p->a.n_q
                                     : 0;
    free(numbers);
}

static void set_choices(problem *p)
{
    qkv_attention *a = &p->a;
    double *numbers;
    if (given[SCORE]) a->score = parse_score(given[SCORE]);
    if (given[NORMALIZE]) parse_normalize(given[NORMALIZE], a);
    bool kernel = a->normalize == QKV_KERNEL_SUM;
    if (kernel && a->score != QKV_SCORE_GAUSSIAN)
        usage_error("--normalize %s goes with --score gaussian, whose distance it takes",
                    given[NORMALIZE]);
    bool counts = a->normalize == QKV_TOP_K || a->normalize == QKV_TOP_K_UNIFORM;
    if (given[LSE] && a->normalize != QKV_SOFTMAX && !counts && !kernel)
        usage_error("--lse does not go with --normalize %s, which has no sum; it goes with "
                    "softmax, top-k and the kernels",
                    given[NORMALIZE]);
    if (counts != (given[TOP_K] != NULL))
        usage_error("--top-k goes with --normalize top-k or top-k-uniform, and they with it");
    if (counts) a->top_k = (ptrdiff_t)integer_argument("top-k", given[TOP_K], 1, INT64_MAX);
    if (given[DROPOUT]) a->dropout = number_argument("dropout", given[DROPOUT], 0, 1);
    if (given[SEED])
        a->dropout_seed = (uint64_t)integer_argument("seed", given[SEED], 0, INT64_MAX);
    if (given[SOFTCAP]) a->softcap = number_argument("softcap", given[SOFTCAP], 1e-300, 1e300);
    a->mask.causal = given[CAUSAL] != NULL;
    if (given[WINDOW]) {
        if (parse_list(WINDOW, true, -1, FAR, &numbers) != 2)
            usage_error("--window: '%s' is not L,R", given[WINDOW]);
        a->mask.window = true;
        a->mask.window_left = (ptrdiff_t)numbers[0];
        a->mask.window_right = (ptrdiff_t)numbers[1];
        free(numbers);
    }
    if (given[SCALE]) {
        p->scale = allocate(1, item());
        set(p->scale, 0, number_argument("scale", given[SCALE], -1e300, 1e300));
    }
    if (given[BANDWIDTH]) {
        a->bandwidths = parse_list(BANDWIDTH, false, 1e-300, 1e300, &numbers);
        p->bandwidth = allocate((size_t)a->bandwidths, item());
        for (ptrdiff_t c = 0; c < a->bandwidths; c++) set(p->bandwidth, c, numbers[c]);
        free(numbers);
    }
}

/* ---- The calls ----------------------------------------------------------------------------------
 */

typedef struct results {
    operand o, lse, row_max, row_log_sum, weights;
} results;

typedef struct gradients {
    operand q, k, v, bias;
    void *scale, *bandwidth;
} gradients;

static qkv_slot_f32 slot_f32(const operand *x)
{
    qkv_slot_f32 s = {.data = x->data, .strided = true};
    memcpy(s.stride, x->stride, sizeof s.stride);
    return s;
}

static qkv_slot_f64 slot_f64(const operand *x)
{
    qkv_slot_f64 s = {.data = x->data, .strided = true};
    memcpy(s.stride, x->stride, sizeof s.stride);
    return s;
}

static qkv_slot_bool slot_seen(const problem *p)
{
    qkv_slot_bool s = {.data = p->seen, .strided = true};
    memcpy(s.stride, p->bias.stride, sizeof s.stride);
    return s;
}

static qkv_operands_f32 operands_f32(const problem *p)
{
    return (qkv_operands_f32){.q = slot_f32(&p->q),
                              .k = slot_f32(&p->k),
                              .v = slot_f32(&p->v),
                              .bias = p->seen ? (qkv_slot_f32){0} : slot_f32(&p->bias),
                              .scale.data = p->scale,
                              .bandwidth.data = p->bandwidth,
                              .slopes = slot_f32(&p->slopes),
                              .sink = slot_f32(&p->sink),
                              .mask = slot_seen(p),
                              .lengths = p->lengths,
                              .causal_offsets = p->offsets};
}

static qkv_operands_f64 operands_f64(const problem *p)
{
    return (qkv_operands_f64){.q = slot_f64(&p->q),
                              .k = slot_f64(&p->k),
                              .v = slot_f64(&p->v),
                              .bias = p->seen ? (qkv_slot_f64){0} : slot_f64(&p->bias),
                              .scale.data = p->scale,
                              .bandwidth.data = p->bandwidth,
                              .slopes = slot_f64(&p->slopes),
                              .sink = slot_f64(&p->sink),
                              .mask = slot_seen(p),
                              .lengths = p->lengths,
                              .causal_offsets = p->offsets};
}

static qkv_results_f32 results_f32(const results *r)
{
    return (qkv_results_f32){.o = slot_f32(&r->o),
                             .lse = slot_f32(&r->lse),
                             .row_max = slot_f32(&r->row_max),
                             .row_log_sum = slot_f32(&r->row_log_sum),
                             .weights = slot_f32(&r->weights)};
}

static qkv_results_f64 results_f64(const results *r)
{
    return (qkv_results_f64){.o = slot_f64(&r->o),
                             .lse = slot_f64(&r->lse),
                             .row_max = slot_f64(&r->row_max),
                             .row_log_sum = slot_f64(&r->row_log_sum),
                             .weights = slot_f64(&r->weights)};
}

static void *workspace(const qkv_attention *a, qkv_pass pass, size_t *bytes)
{
    check(qkv_attention_workspace(a, pass, type == QKV_NPY_F32 ? QKV_F32 : QKV_F64, bytes));
    return allocate(*bytes + 1, 1);
}

static void forward(const problem *p, const results *r)
{
    size_t bytes;
    void *memory = workspace(&p->a, QKV_FORWARD, &bytes);
    if (type == QKV_NPY_F32) {
        const qkv_operands_f32 in = operands_f32(p);
        const qkv_results_f32 out = results_f32(r);
        check(qkv_attention_forward_f32(&p->a, &in, &out, memory, bytes));
    } else {
        const qkv_operands_f64 in = operands_f64(p);
        const qkv_results_f64 out = results_f64(r);
        check(qkv_attention_forward_f64(&p->a, &in, &out, memory, bytes));
    }
    free(memory);
}

static void backward(const problem *p, results saved, const gradients *g)
{
    size_t bytes;
    void *memory = workspace(&p->a, QKV_BACKWARD, &bytes);
    problem to = {.q = g->q, .k = g->k, .v = g->v, .bias = g->bias};
    saved.lse = saved.weights = (operand){0};
    const results cotangents = {.o = p->d_o};
    if (type == QKV_NPY_F32) {
        const qkv_operands_f32 in = operands_f32(p);
        const qkv_results_f32 from = results_f32(&saved), d_out = results_f32(&cotangents);
        qkv_operands_f32 d_in = operands_f32(&to);
        d_in.scale.data = g->scale;
        d_in.bandwidth.data = g->bandwidth;
        check(qkv_attention_backward_f32(&p->a, &in, &from, &d_out, &d_in, memory, bytes));
    } else {
        const qkv_operands_f64 in = operands_f64(p);
        const qkv_results_f64 from = results_f64(&saved), d_out = results_f64(&cotangents);
        qkv_operands_f64 d_in = operands_f64(&to);
        d_in.scale.data = g->scale;
        d_in.bandwidth.data = g->bandwidth;
        check(qkv_attention_backward_f64(&p->a, &in, &from, &d_out, &d_in, memory, bytes));
    }
    free(memory);
}

/* ---- What is written ----------------------------------------------------------------------------
 */

static operand rows_of(const qkv_attention *a, ptrdiff_t columns)
{
    return packed(a->batch, a->heads, a->n_q, columns);
}

typedef enum stage { RAW, CAPPED, BIASED, FINAL } stage;

static stage parse_stage(void)
{
    static const char *const names[] = {"raw", "softcap", "bias", "weights"};
    if (!given[SCORES_STAGE]) return RAW;
    for (int i = 0; i < 4; i++)
        if (!strcmp(given[SCORES_STAGE], names[i])) return (stage)i;
    usage_error("--scores-stage: '%s' is none of raw, softcap, bias, weights", given[SCORES_STAGE]);
}

/* Scores are the weights of a normaliser that leaves them alone; hidden are those that uniform
 * attention gives nothing. */
static void write_scores(problem p, const operand *weights)
{
    stage at = parse_stage();
    bool raw = at == RAW, softcap = at == CAPPED;
    if (at == FINAL) {
        save_matrix(SCORES, weights, p.rank, 4);
        return;
    }
    results r = {.o = rows_of(&p.a, p.a.d_v), .weights = rows_of(&p.a, p.a.n_k)};
    p.sink = (operand){0};
    p.a.top_k = 0;
    p.a.dropout = 0;
    operand uniform = {0};
    if (raw || softcap) {
        p.bias = p.slopes = (operand){0};
        p.a.mask = (qkv_mask){0};
        p.lengths = NULL;
        p.seen = NULL;
        if (raw) p.a.softcap = 0;
    } else {
        problem all = p;
        all.a.normalize = QKV_UNIFORM;
        all.a.softcap = 0;
        forward(&all, &r);
        uniform = r.weights;
        r.weights = rows_of(&p.a, p.a.n_k);
    }
    p.a.normalize = QKV_NONE_IDENTITY;
    forward(&p, &r);
    ptrdiff_t n = p.a.batch * p.a.heads * p.a.n_q * p.a.n_k;
    for (ptrdiff_t i = 0; uniform.data && i < n; i++)
        if (get(uniform.data, i) == 0) set(r.weights.data, i, -INFINITY);
    save_matrix(SCORES, &r.weights, p.rank, 4);
    free(uniform.data);
    free(r.weights.data);
    free(r.o.data);
}

/* The new rows of the gradient of keys or values, with the axes of the queries' file. */
static void save_new(int option, const problem *p, const operand *x)
{
    const ptrdiff_t *n = x->dim;
    operand y = packed_as(p->rank, n[0], n[1], n[2] - p->past, n[3]);
    for (ptrdiff_t b = 0; b < n[0]; b++)
        for (ptrdiff_t h = 0; h < n[1]; h++)
            for (ptrdiff_t i = 0; i < n[2] - p->past; i++)
                for (ptrdiff_t c = 0; c < n[3]; c++)
                    set(y.data, place(&y, b, h, i, c),
                        get(x->data, place(x, b, h, i + p->past, c)));
    save_operand(option, &y, p->rank);
    free(y.data);
}

/* The gradient of the mask without what made its last axis whole. */
static void save_mask_gradient(const problem *p, const operand *x)
{
    ptrdiff_t last = p->mask.dim[p->mask.rank - 1], n_k = x->dim[3];
    ptrdiff_t rows = x->dim[0] * x->dim[1] * x->dim[2];
    void *data = allocate((size_t)(rows * last) + 1, item());
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < last; j++) set(data, i * last + j, get(x->data, i * n_k + j));
    save(GRAD_MASK, p->mask.rank, p->mask.dim, data);
    free(data);
}

static operand gradient_like(const operand *x)
{
    operand y = packed(x->dim[0], x->dim[1], x->dim[2], x->dim[3]);
    for (int i = 0; i < 4; i++)
        if (x->stride[i] == 0) y.stride[i] = 0;
    return y;
}

static void load_cotangent(problem *p)
{
    const ptrdiff_t expected[] = {p->a.batch, p->a.heads, p->a.n_q, p->a.d_v};
    static const char *const names[] = {"the batch", "the number of heads", "the number of queries",
                                        "the size of a value"};
    p->d_o = load_operand(GRAD_OUT, p->rank, p->a.heads);
    for (int i = 0; i < 4; i++) expect(GRAD_OUT, names[i], p->d_o.dim[i], expected[i]);
}

static void write_gradients(problem *p, const results *r)
{
    static gradients g;
    if (given[GRAD_QUERY])
        g.q = packed_as(p->rank, p->q.dim[0], p->q.dim[1], p->q.dim[2], p->q.dim[3]);
    if (given[GRAD_KEY]) g.k = gradient_like(&p->k);
    if (given[GRAD_VALUE]) g.v = gradient_like(&p->v);
    if (given[GRAD_MASK]) g.bias = gradient_like(&p->bias);
    if (given[GRAD_SCALE]) g.scale = allocate(1, item());
    if (given[GRAD_BANDWIDTH]) g.bandwidth = allocate((size_t)p->a.bandwidths, item());
    backward(p, *r, &g);
    if (given[GRAD_QUERY]) save_operand(GRAD_QUERY, &g.q, p->rank);
    if (given[GRAD_KEY]) save_new(GRAD_KEY, p, &g.k);
    if (given[GRAD_VALUE]) save_new(GRAD_VALUE, p, &g.v);
    if (given[GRAD_MASK]) save_mask_gradient(p, &g.bias);
    if (given[GRAD_SCALE]) save(GRAD_SCALE, 0, p->q.dim, g.scale);
    if (given[GRAD_BANDWIDTH]) save(GRAD_BANDWIDTH, 1, &p->a.bandwidths, g.bandwidth);
}

static const int files[] = {
    QUERY,      KEY,       VALUE,          MASK,          LENGTHS,    ALIBI,
    SINK,       PAST_KEY,  PAST_VALUE,     GRAD_OUT,      OUT,        WEIGHTS,
    LSE,        SCORES,    PRESENT_KEY,    PRESENT_VALUE, GRAD_QUERY, GRAD_KEY,
    GRAD_VALUE, GRAD_MASK, GRAD_BANDWIDTH, GRAD_SCALE};
enum { READ = 10, FILES = sizeof files / sizeof *files };

/* Something is written, and replaces neither what is read nor what is written besides. */
static void check_files(void)
{
    bool any = false, gradient = false;
    for (int i = READ; i < FILES; i++) {
        any |= given[files[i]] != NULL;
        gradient |= given[files[i]] && files[i] >= GRAD_QUERY;
    }
    expect_different_files(attend.options, given, files, READ, FILES);
    if (given[GRAD_OUT] && !gradient)
        usage_error("--grad-out needs --grad-query or another of the gradients to write");
    if (!any) usage_error("nothing to write: give --out");
}

/* What cannot be written is told before the work. */
static void expect_files(void)
{
    for (int i = READ; i < FILES; i++) {
        char *option = print_text("--%s", attend.options[files[i]].name);
        expect_creatable(option, given[files[i]]);
        free(option);
    }
}

static void check_options(void)
{
    for (int i = QUERY; i <= VALUE; i++)
        if (!given[i]) usage_error("--%s is required", attend.options[i].name);
    static const int needs[][2] = {{GRAD_QUERY, GRAD_OUT},
                                   {GRAD_KEY, GRAD_OUT},
                                   {GRAD_VALUE, GRAD_OUT},
                                   {GRAD_MASK, GRAD_OUT},
                                   {GRAD_BANDWIDTH, GRAD_OUT},
                                   {GRAD_SCALE, GRAD_OUT},
                                   {GRAD_MASK, MASK},
                                   {GRAD_BANDWIDTH, BANDWIDTH},
                                   {GRAD_SCALE, SCALE},
                                   {SCORES_STAGE, SCORES},
                                   {SEED, DROPOUT}};
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        if (given[needs[i][0]] && !given[needs[i][1]])
            usage_error("--%s needs --%s", attend.options[needs[i][0]].name,
                        attend.options[needs[i][1]].name);
    if (given[CAUSAL_OFFSET] && !given[CAUSAL] && !given[WINDOW] && !given[ALIBI])
        usage_error("--causal-offset goes with --causal, --window or --alibi");
    parse_stage();
    check_files();
}

int main(int argc, char **argv)
{
    clean_up_on_signals();
    for (int i; (i = command_next(&attend, argc, argv)) >= 0;) {
        const command_option *option = &attend.options[i];
        given[i] = !option->argument                   ? ""
                   : !strcmp(option->argument, "FILE") ? path_argument(option->name, optarg)
                                                       : text_argument(option->name, optarg);
    }
    if (optind < argc) usage_error("unexpected argument '%s'", argv[optind]);
    check_options();
    if (given[THREADS])
        check(qkv_set_num_threads((int)integer_argument("threads", given[THREADS], 1, 4096)));
    static problem p; /* until the end */
    static results r;
    load_queries_keys_values(&p);
    set_choices(&p);
    if (given[MASK]) load_mask(&p);
    if (given[LENGTHS]) load_lengths(&p);
    if (given[ALIBI]) p.slopes = load_heads(ALIBI, &p.a);
    if (given[SINK]) p.sink = load_heads(SINK, &p.a);
    set_offsets(&p);
    if (given[GRAD_OUT]) load_cotangent(&p);
    expect_files();
    const qkv_attention *a = &p.a;
    r.o = packed_as(p.rank, a->batch, a->heads, a->n_q, a->d_v);
    r.row_max = rows_of(a, 1);
    r.row_log_sum = rows_of(a, 1);
    if (given[LSE]) r.lse = rows_of(a, 1);
    if (given[WEIGHTS] || parse_stage() == FINAL) r.weights = rows_of(a, a->n_k);
    forward(&p, &r);
    if (given[OUT]) save_operand(OUT, &r.o, p.rank);
    if (given[WEIGHTS]) save_matrix(WEIGHTS, &r.weights, p.rank, 4);
    if (given[LSE]) save_matrix(LSE, &r.lse, p.rank, 3);
    if (given[SCORES]) write_scores(p, &r.weights);
    if (given[PRESENT_KEY]) save(PRESENT_KEY, 4, p.k.dim, p.k.data);
    if (given[PRESENT_VALUE]) save(PRESENT_VALUE, 4, p.v.dim, p.v.data);
    if (given[GRAD_OUT]) write_gradients(&p, &r);
    return finish();
}
