#include "calls.h"

#include <stdlib.h>

#include "measure.h"
#include "qkv/tape.h"
#include "src/real.h"

typedef struct state {
    bench_case c;
    FN(qkv_operands) in, d_in;
    FN(qkv_results) out, d_out;
    size_t n_q, n_k, n_v, n_o; /* elements of q, k, v and o */
    size_t n_more;             /* of bias, slopes and sink, each with its gradient */
    real *data;
    uint8_t *mask;
    qkv_tape *tape;
    void *workspace[2]; /* by pass */
    size_t workspace_bytes[2];
} state;

/* Reproducible and fast: decode has 1e8 of them. */
static void fill(real *x, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        x[i] = (real)(int32_t)(seed >> 32) * (real)0x1p-31;
    }
}

static void check(qkv_status status)
{
    if (status) die("%s: %s", qkv_status_name(status), qkv_last_error());
}

static real *next(real **at, size_t n)
{
    real *x = *at;
    *at += n;
    return x;
}

static bool both_passes(const bench_case *c)
{
    return c->tape || c->measure == MEBIBYTES;
}

/* Carves everything out of one piece, keys and values side by side; returns its elements. */
static size_t lay_out(state *s, real *data)
{
    const qkv_attention *a = &s->c.a;
    real *at = data;
    const size_t rows = s->n_q / (size_t)a->d_k;
    s->in.k.data = next(&at, s->n_k);
    s->in.v.data = next(&at, s->n_v);
    s->in.q.data = next(&at, s->n_q);
    const struct {
        bool is_there;
        FN(qkv_slot) *in, *gradient;
        size_t n;
    } more[] = {
        {s->c.bias, &s->in.bias, &s->d_in.bias, (size_t)(a->batch * a->heads * a->n_q * a->n_k)},
        {s->c.slopes, &s->in.slopes, &s->d_in.slopes, (size_t)a->heads},
        {s->c.relative, &s->in.relative, &s->d_in.relative,
         (size_t)(a->heads * (a->relative_left + a->relative_right + 1))},
        {s->c.sink, &s->in.sink, &s->d_in.sink, (size_t)a->heads}};
    real *first = at;
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
        if (!more[i].is_there) continue;
        more[i].in->data = next(&at, more[i].n);
        if (s->c.pass == QKV_BACKWARD) more[i].gradient->data = next(&at, more[i].n);
    }
    s->n_more = (size_t)(at - first);
    s->out.o.data = next(&at, s->n_o);
    s->out.row_max.data = next(&at, rows);
    s->out.row_log_sum.data = next(&at, rows);
    if (s->c.pass == QKV_FORWARD) return (size_t)(at - data);
    s->d_out.o.data = next(&at, s->n_o);
    s->d_in.q.data = next(&at, s->n_q);
    s->d_in.k.data = next(&at, s->n_k);
    s->d_in.v.data = next(&at, s->n_v);
    return (size_t)(at - data);
}

static void forward(state *s)
{
    check(FN(qkv_attention_forward)(&s->c.a, &s->in, &s->out, s->workspace[QKV_FORWARD],
                                    s->workspace_bytes[QKV_FORWARD]));
}

static void backward(state *s)
{
    check(FN(qkv_attention_backward)(&s->c.a, &s->in, &s->out, &s->d_out, &s->d_in,
                                     s->workspace[QKV_BACKWARD], s->workspace_bytes[QKV_BACKWARD]));
}

static void make_mask(state *s)
{
    const qkv_attention *a = &s->c.a;
    const size_t n = (size_t)(a->batch * a->heads * a->n_q * a->n_k);
    s->mask = memory_for(n);
    uint64_t seed = 3;
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        s->mask[i] = (seed >> 33) % 3 != 0;
    }
    s->in.mask.data = s->mask;
}

/* One step of training: record, go back, forget. */
static void through_tape(state *s)
{
    const qkv_attention *a = &s->c.a;
    qkv_tape *t = s->tape;
    const qkv_shape q = qkv_shape2(a->n_q, a->d_k), k = qkv_shape2(a->n_k, a->d_k),
                    v = qkv_shape2(a->n_k, a->d_v);
    const qkv_attend_vars in = {.q = FN(qkv_leaf)(t, q, s->in.q.data, s->d_in.q.data),
                                .k = FN(qkv_leaf)(t, k, s->in.k.data, s->d_in.k.data),
                                .v = FN(qkv_leaf)(t, v, s->in.v.data, s->d_in.v.data)};
    check(qkv_backward(t, qkv_sum(t, qkv_attend(t, a, &in), NULL, 0, false)));
    qkv_tape_reset(t);
}

static void call(void *of)
{
    state *s = of;
    if (s->c.tape) {
        through_tape(s);
        return;
    }
    if (s->c.pass == QKV_FORWARD || both_passes(&s->c)) forward(s);
    if (s->c.pass == QKV_BACKWARD) backward(s);
}

static void release(void *of)
{
    state *s = of;
    for (qkv_pass pass = QKV_FORWARD; pass <= QKV_BACKWARD; pass++) free(s->workspace[pass]);
    qkv_tape_free(s->tape);
    free(s->data);
    free(s->mask);
    free(s);
}

/* The workspace's pages are not touched: what a pass does not use is not counted as its memory. */
static void take_workspaces(state *s)
{
    for (qkv_pass pass = QKV_FORWARD; pass <= QKV_BACKWARD; pass++) {
        check(qkv_attention_workspace(&s->c.a, pass, REAL_DTYPE, &s->workspace_bytes[pass]));
        s->workspace[pass] = malloc(s->workspace_bytes[pass]);
        if (!s->workspace[pass]) die("no memory for a workspace");
    }
}

bench_calls FN(calls)(const bench_case *c)
{
    state *s = memory_for(sizeof *s);
    const qkv_attention *a = &c->a;
    const size_t heads = (size_t)(a->batch * a->heads);
    *s = (state){.c = *c,
                 .n_q = heads * (size_t)(a->n_q * a->d_k),
                 .n_k = heads * (size_t)(a->n_k * a->d_k),
                 .n_v = heads * (size_t)(a->n_k * a->d_v),
                 .n_o = heads * (size_t)(a->n_q * a->d_v)};
    const size_t n = lay_out(s, NULL);
    s->data = memory_for(n * sizeof(real));
    lay_out(s, s->data);
    fill(s->data, s->n_k + s->n_v + s->n_q + s->n_more, 1);
    if (c->pass == QKV_BACKWARD) fill(s->d_out.o.data, s->n_o, 2);
    if (c->mask) make_mask(s);
    take_workspaces(s);
    if (c->tape) check(qkv_tape_new(&s->tape, REAL_DTYPE));
    if (c->pass == QKV_BACKWARD && !both_passes(c)) forward(s);
    return (bench_calls){.state = s,
                         .call = call,
                         .free = release,
                         .keys = s->in.k.data,
                         .keys_bytes = (s->n_k + s->n_v) * sizeof(real),
                         .data_bytes = n * sizeof(real)};
}
