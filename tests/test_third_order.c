/* test_third_order.c - derivatives of attention beyond its fused forms, which end with the second
 * of the softmax and the first of all else: against central differences of those one order below,
 * in float, against attention composed by hand; symmetry. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "problem.h"
#include "qkv/gradcheck.h"
#include "qkv/tape.h"
#include "support.h"

/* ---- Any attention, and a function of its third derivatives ---- */

typedef struct trial {
    problem p;
    float *x_f32[OPERANDS], *dx_f32[OPERANDS];
    double *dx[OPERANDS];
    qkv_tape *tape;
    qkv_dtype dtype;
    int order; /* of what is differentiated once more */
} trial;

static void *allocate(size_t n, size_t size)
{
    void *memory = calloc(n + !n, size);
    assert_non_null(memory);
    return memory;
}

static trial trial_new(qkv_attention a, int with, qkv_dtype dtype, uint64_t seed)
{
    trial c = {.p = problem_random(a, QKV_F32, with, seed), .dtype = dtype};
    for (operand i = Q; i < OPERANDS; i++) {
        const size_t n = c.p.in[i] ? operand_size(&c.p, i) : 0;
        c.x_f32[i] = allocate(n, sizeof(float));
        c.dx_f32[i] = allocate(n, sizeof(float));
        c.dx[i] = allocate(n, sizeof(double));
        for (size_t k = 0; k < n; k++) c.x_f32[i][k] = (float)c.p.in[i][k];
    }
    assert_ok(qkv_tape_new(&c.tape, dtype));
    return c;
}

static void trial_free(trial *c)
{
    for (operand i = Q; i < OPERANDS; i++) {
        free(c->x_f32[i]);
        free(c->dx_f32[i]);
        free(c->dx[i]);
    }
    qkv_tape_free(c->tape);
    problem_free(&c->p);
}

/* What the tape takes each operand as. */
static qkv_shape shape_of(const trial *c, operand x)
{
    const ptrdiff_t *d = c->p.dim[x];
    if (x <= BIAS) return qkv_shape4(d[0], d[1], d[2], d[3]);
    if (x == RELATIVE) return qkv_shape2(d[1], d[3]);
    return qkv_shape1((ptrdiff_t)operand_size(&c->p, x));
}

static int record_leaves(trial *c, qkv_var x[OPERANDS], qkv_var all[OPERANDS])
{
    int n = 0;
    qkv_tape_reset(c->tape);
    for (operand i = Q; i < OPERANDS; i++) {
        x[i] = (qkv_var){0};
        if (!c->p.in[i]) continue;
        const qkv_shape s = shape_of(c, i);
        x[i] = c->dtype == QKV_F32 ? qkv_leaf_f32(c->tape, s, c->x_f32[i], c->dx_f32[i])
                                   : qkv_leaf_f64(c->tape, s, c->p.in[i], c->dx[i]);
        all[n++] = x[i];
    }
    return n;
}

static qkv_var record_attention(trial *c, const qkv_var x[OPERANDS])
{
    const qkv_slot_bool mask = {.data = c->p.mask};
    return qkv_attend(c->tape, &c->p.a,
                      &(qkv_attend_vars){.q = x[Q],
                                         .k = x[K],
                                         .v = x[V],
                                         .bias = x[BIAS],
                                         .scale = x[SCALE],
                                         .bandwidth = x[BANDWIDTH],
                                         .w = x[W],
                                         .slopes = x[SLOPES],
                                         .relative = x[RELATIVE],
                                         .sink = x[SINK],
                                         .mask = c->p.mask ? &mask : NULL,
                                         .lengths = c->p.lengths,
                                         .causal_offsets = c->p.causal_offsets});
}

/* x times sin(i + phase), summed. */
static qkv_var weighted(qkv_tape *t, qkv_var x, double phase)
{
    static float weight[16][4096];
    static double weight_f64[16][4096];
    const int at = (int)phase;
    for (int i = 0; i < 4096; i++) weight_f64[at][i] = weight[at][i] = (float)sin(i + phase);
    const qkv_shape s = qkv_shape_of(t, x);
    qkv_var w = qkv_tape_dtype(t) == QKV_F32 ? qkv_leaf_f32(t, s, weight[at], NULL)
                                             : qkv_leaf_f64(t, s, weight_f64[at], NULL);
    return qkv_sum(t, qkv_mul(t, x, w), NULL, 0, false);
}

/* Of the gradients by all n of xs. */
static qkv_var step(qkv_tape *t, qkv_var y, const qkv_var *xs, int n)
{
    qkv_var g[OPERANDS], sum = {0};
    if (qkv_grad(t, y, xs, n, g)) return (qkv_var){0};
    for (int i = 0; i < n; i++) {
        qkv_var part = weighted(t, g[i], i + 0.5);
        sum = i ? qkv_add(t, sum, part) : part;
    }
    return sum;
}

/* A sum over the elements of the derivatives of this order. */
static qkv_var record(trial *c, qkv_var all[OPERANDS], int *n, int order)
{
    qkv_var x[OPERANDS];
    *n = record_leaves(c, x, all);
    qkv_var y = weighted(c->tape, qkv_tanh(c->tape, record_attention(c, x)), 15.5);
    for (int above = 0; above < order; above++) y = step(c->tape, y, all, *n);
    return y;
}

static qkv_status derivatives_at(void *trial_, double *value)
{
    qkv_var all[OPERANDS];
    int n;
    trial *c = trial_;
    *value = qkv_item(c->tape, record(c, all, &n, c->order));
    return qkv_tape_status(c->tape);
}

/* ---- Every kind ---- */

typedef struct kind {
    const char *name;
    qkv_attention a;
    int with;
} kind;

enum { HEADS = 4, SHARED = 2, N_Q = 5, N_K = 6, D_K = 3, D_V = 2 };

/* Where no key is within the support the nearest ones share the weight. */
#define KERNEL(how, which)                                                           \
    .score = QKV_SCORE_GAUSSIAN, .normalize = QKV_##how, .empty = QKV_EMPTY_NEAREST, \
    .kernel = QKV_KERNEL_##which

static const kind kinds[] = {
    {"plain", {0}, 0},
    {"a bias a pair, causal", {.batch = 2, .mask = {.causal = true}}, WITH_BIAS},
    {"a shared bias, a scale", {.batch = 2, .score = QKV_SCORE_DOT}, WITH_SHARED_BIAS | WITH_SCALE},
    {"lengths, offsets, slopes",
     {.batch = 3, .mask = {.causal = true}},
     WITH_KEY_BIAS | WITH_LENGTHS | WITH_OFFSETS | WITH_SLOPES},
    {"a mask, a bias that hides, a scale a head",
     {0},
     WITH_MASK | WITH_BIAS | WITH_HIDING_BIAS | WITH_HEAD_SCALE},
    {"a sink, softcap, a mask", {.softcap = 0.8}, WITH_SINK | WITH_MASK | WITH_BIAS},
    {"relative positions, offsets", {.batch = 2}, WITH_RELATIVE | WITH_OFFSETS},
    {"relative positions in a window",
     {.batch = 2, .mask = {.window = true, .window_left = 1, .window_right = 2}},
     WITH_RELATIVE},
    {"leave one out", {.batch = 2, .mask = {.leave_one_out = true}}, WITH_LENGTHS},
    {"dropout", {.batch = 2, .dropout = 0.3, .dropout_seed = 3}, WITH_MASK},
    {"cosine", {.score = QKV_SCORE_COSINE}, WITH_HEAD_SCALE},
    {"Gaussian", {.score = QKV_SCORE_GAUSSIAN, .bandwidths = D_K}, WITH_BANDWIDTH | WITH_SCALE},
    {"Laplace", {.score = QKV_SCORE_LAPLACE}, WITH_BANDWIDTH | WITH_BIAS},
    {"Cauchy", {.score = QKV_SCORE_CAUCHY, .softcap = 2}, WITH_BANDWIDTH | WITH_HEAD_SCALE},
    {"additive", {.batch = 2, .score = QKV_SCORE_ADDITIVE}, WITH_MASK},
    /* Other normalisers, which have no fused second order. */
    {"top-k", {.normalize = QKV_TOP_K, .top_k = 3, .softcap = 2}, WITH_MASK | WITH_BIAS},
    {"hard", {.normalize = QKV_HARD, .dropout = 0.2}, WITH_MASK | WITH_BIAS},
    {"uniform", {.normalize = QKV_UNIFORM, .dropout = 0.3}, WITH_MASK},
    {"uniform top-k", {.normalize = QKV_TOP_K_UNIFORM, .top_k = 2}, WITH_RELATIVE},
    {"sparsemax", {.normalize = QKV_SPARSEMAX, .batch = 2}, WITH_MASK | WITH_BIAS | WITH_SCALE},
    {"entmax", {.normalize = QKV_ENTMAX_15, .softcap = 3}, WITH_MASK | WITH_SLOPES},
    {"exp", {.normalize = QKV_NONE_EXP, .dropout = 0.3}, WITH_MASK | WITH_BIAS},
    {"sigmoid, causal, from the second query on",
     {.normalize = QKV_NONE_SIGMOID, .mask = {.causal = true, .causal_offset = -1}},
     WITH_BIAS},
    {"identity", {.normalize = QKV_NONE_IDENTITY, .softcap = 2}, WITH_MASK | WITH_KEY_BIAS},
    {"boxcar", {KERNEL(KERNEL_SUM, BOXCAR)}, WITH_MASK | WITH_BIAS | WITH_BANDWIDTH},
    {"triangle", {KERNEL(KERNEL_SUM, TRIANGULAR), .batch = 2}, WITH_MASK | WITH_BANDWIDTH},
    {"Epanechnikov", {KERNEL(KERNEL_SUM, EPANECHNIKOV)}, WITH_BIAS | WITH_SLOPES | WITH_BANDWIDTH},
    {"biweight", {KERNEL(KERNEL_SUM, BIWEIGHT), .mask.leave_one_out = true}, WITH_BANDWIDTH},
    {"triweight", {KERNEL(KERNEL_SUM, TRIWEIGHT), .dropout = 0.2}, WITH_BANDWIDTH | WITH_MASK},
    {"tricube",
     {KERNEL(NONE_KERNEL, TRICUBE), .softcap = 0.4},
     WITH_BANDWIDTH | WITH_MASK | WITH_BIAS},
    {"cosine kernel", {KERNEL(KERNEL_SUM, COSINE), .bandwidths = D_K}, WITH_BANDWIDTH | WITH_BIAS},
    {"constant kernel", {KERNEL(NONE_KERNEL, CONSTANT)}, WITH_BANDWIDTH | WITH_BIAS | WITH_MASK},
};

/* In an emulator every third: all would take minutes. */
enum { KINDS = sizeof kinds / sizeof *kinds, KIND_STEP = QKV_EMULATED ? 3 : 1 };

static trial trial_of(const kind *k, qkv_dtype dtype)
{
    qkv_attention a = k->a;
    if (!a.batch) a.batch = 1;
    a.heads = HEADS;
    a.kv_heads = SHARED;
    a.n_q = N_Q;
    a.n_k = N_K;
    a.d_k = D_K;
    a.d_v = D_V;
    return trial_new(a, k->with, dtype, 7);
}

static void assert_differences(trial *c, const char *name, int with, int order)
{
    c->order = order;
    qkv_var all[OPERANDS];
    int n_all;
    for (operand i = Q; i < OPERANDS; i++)
        if (c->p.in[i]) memset(c->dx[i], 0, operand_size(&c->p, i) * sizeof(double));
    qkv_var y = record(c, all, &n_all, order);
    if (qkv_backward(c->tape, y)) fail_msg("%s: %s", name, qkv_tape_error(c->tape));
    qkv_check_input inputs[OPERANDS];
    size_t n = 0;
    for (operand i = Q; i < OPERANDS; i++) {
        bool hides = i == BIAS && with & WITH_HIDING_BIAS;
        if (!c->p.in[i] || hides) continue;
        size_t zeros = 0, size = operand_size(&c->p, i);
        for (size_t k = 0; k < size; k++) zeros += c->dx[i][k] == 0;
        inputs[n++] =
            (qkv_check_input){.name = operand_name[i],
                              .x = c->p.in[i],
                              .gradient = c->dx[i],
                              .n = size,
                              .zero = zeros == size ? QKV_ZERO_EXACT : QKV_ZERO_UNDECLARED};
    }
    qkv_check_report report;
    const qkv_check_options options = {.directions = 2};
    if (qkv_gradcheck(derivatives_at, c, inputs, n, &options, &report))
        fail_msg("%s, order %d: %s", name, order + 1, report.message);
}

/* Second derivatives are those of the first, third ones those of the second. */
static void they_are_the_differences_of_those_below(void **state)
{
    (void)state;
    for (size_t k = 0; k < KINDS; k += KIND_STEP)
        for (int order = 1; order < 3; order++) {
            trial c = trial_of(&kinds[k], QKV_F64);
            assert_differences(&c, kinds[k].name, kinds[k].with, order);
            trial_free(&c);
        }
}

/* An operand's: what backward gave in double and float, and what was recorded in both. */
static void assert_the_same(const trial *c, const trial *f, operand x, bool other_than_0,
                            const double *recorded, const float *recorded_f32)
{
    const size_t n = operand_size(&c->p, x);
    double size = 0;
    for (size_t i = 0; i < n; i++) size = fmax(size, fabs(recorded[i]));
    assert_true(size > 1e-6 || !other_than_0);
    for (size_t i = 0; i < n; i++) {
        assert_close(c->dx[x][i], recorded[i], 1e-12 * size);
        assert_close((double)f->dx_f32[x][i], recorded[i], 1e-4 * size);
        assert_close((double)recorded_f32[i], recorded[i], 1e-4 * size);
    }
}

/* Do the weights move with queries and keys? */
static bool moves(const qkv_attention *a)
{
    const bool steps = a->kernel == QKV_KERNEL_BOXCAR || a->kernel == QKV_KERNEL_CONSTANT;
    if (a->normalize == QKV_KERNEL_SUM || a->normalize == QKV_NONE_KERNEL) return !steps;
    return a->normalize != QKV_HARD && a->normalize != QKV_UNIFORM &&
           a->normalize != QKV_TOP_K_UNIFORM;
}

static void recorded_swept_and_in_float_they_are_the_same(void **state)
{
    (void)state;
    for (size_t k = 0; k < KINDS; k += KIND_STEP) {
        trial c = trial_of(&kinds[k], QKV_F64), f = trial_of(&kinds[k], QKV_F32);
        qkv_var all[OPERANDS], all_f32[OPERANDS], g[OPERANDS], g_f32[OPERANDS];
        int n, at = 0;
        qkv_var y = record(&c, all, &n, 2), y_f32 = record(&f, all_f32, &n, 2);
        assert_ok(qkv_grad(c.tape, y, all, n, g));
        assert_ok(qkv_grad(f.tape, y_f32, all_f32, n, g_f32));
        assert_ok(qkv_backward(c.tape, y));
        assert_ok(qkv_backward(f.tape, y_f32));
        for (operand x = Q; x < OPERANDS; x++) {
            if (!c.p.in[x]) continue;
            assert_the_same(&c, &f, x, x == V || moves(&kinds[k].a), qkv_value_f64(c.tape, g[at]),
                            qkv_value_f32(f.tape, g_f32[at]));
            at++;
        }
        trial_free(&c);
        trial_free(&f);
    }
}

/* The n_k largest of n_k: a softmax, but to top-k there is no fused second order. */
static void composed_the_softmax_has_the_second_order_of_the_fused(void **state)
{
    (void)state;
    for (size_t k = 0; k < KINDS; k += KIND_STEP) {
        kind other = kinds[k];
        if (other.a.normalize != QKV_SOFTMAX || other.with & WITH_SINK) continue;
        other.a.normalize = QKV_TOP_K;
        other.a.top_k = N_K;
        trial fused = trial_of(&kinds[k], QKV_F64), composed = trial_of(&other, QKV_F64);
        qkv_var all[OPERANDS];
        int n;
        assert_ok(qkv_backward(fused.tape, record(&fused, all, &n, 1)));
        assert_ok(qkv_backward(composed.tape, record(&composed, all, &n, 1)));
        for (operand x = Q; x < OPERANDS; x++) {
            const size_t size = fused.p.in[x] ? operand_size(&fused.p, x) : 0;
            double norm = 0;
            for (size_t i = 0; i < size; i++) norm = fmax(norm, fabs(fused.dx[x][i]));
            assert_true(norm > 1e-6 || size == 0);
            for (size_t i = 0; i < size; i++)
                assert_close(composed.dx[x][i], fused.dx[x][i], 1e-12 * norm);
        }
        trial_free(&fused);
        trial_free(&composed);
    }
}

/* A query that is its key: the cosine is smooth there, the others have a gradient of 0. */
static void kernels_at_their_centre_have_derivatives(void **state)
{
    (void)state;
    static const kind compact[] = {{"cosine", {KERNEL(KERNEL_SUM, COSINE)}, WITH_BANDWIDTH},
                                   {"tricube", {KERNEL(KERNEL_SUM, TRICUBE)}, WITH_BANDWIDTH},
                                   {"triangle", {KERNEL(NONE_KERNEL, TRIANGULAR)}, WITH_BANDWIDTH}};
    for (int i = 0; i < 3; i++) {
        trial c = trial_of(&compact[i], QKV_F64);
        memcpy(c.p.in[Q], c.p.in[K], D_K * sizeof(double));
        qkv_var all[OPERANDS];
        int n;
        qkv_tape_debug(c.tape, true);
        assert_ok(qkv_backward(c.tape, record(&c, all, &n, 1)));
        assert_true(fabs(c.dx[Q][0]) > 1e-6);
        if (i == 0) assert_differences(&c, compact[i].name, compact[i].with, 1);
        trial_free(&c);
    }
}

/* x k + x v, second derivatives of rows 0 and last of q, d: by q, k and v. */
static void differentiate_twice(qkv_tape *t, const qkv_attention *a, const qkv_var x[3],
                                qkv_var d[3])
{
    const ptrdiff_t last = qkv_shape_of(t, x[0]).dim[0] - 1, rows[] = {0, last};
    qkv_var o = qkv_attend(t, a, &(qkv_attend_vars){.q = x[0], .k = x[1], .v = x[2]}), g[3];
    qkv_var y = weighted(t, qkv_tanh(t, qkv_gather(t, o, 0, rows, 2)), 15.5);
    assert_ok(qkv_grad(t, y, x, 3, g));
    y = weighted(t, qkv_gather(t, g[0], 0, rows, 2), 0.5);
    for (int i = 1; i < 3; i++) y = qkv_add(t, y, weighted(t, g[i], i + 0.5));
    assert_ok(qkv_grad(t, y, x, 3, d));
}

/* Of the middle one of three queries, whose row is NaN. */
static void an_empty_support_spoils_nothing_else(void **state)
{
    (void)state;
    const qkv_attention a = {.score = QKV_SCORE_GAUSSIAN,
                             .normalize = QKV_KERNEL_SUM,
                             .kernel = QKV_KERNEL_EPANECHNIKOV};
    const double q[] = {0.1, 50, -0.2}, few[] = {0.1, -0.2}, k[] = {0.3, -0.4, 0.7, 0.2},
                 v[] = {1, 2, -1, 0.5};
    qkv_tape *t;
    assert_ok(qkv_tape_new(&t, QKV_F64));
    qkv_var keys = qkv_leaf_f64(t, qkv_shape2(4, 1), k, NULL),
            values = qkv_leaf_f64(t, qkv_shape2(4, 1), v, NULL), d[2][3];
    const qkv_var x[2][3] = {{qkv_leaf_f64(t, qkv_shape2(3, 1), q, NULL), keys, values},
                             {qkv_leaf_f64(t, qkv_shape2(2, 1), few, NULL), keys, values}};
    for (int i = 0; i < 2; i++) differentiate_twice(t, &a, x[i], d[i]);
    assert_true(isnan(qkv_value_f64(t, d[0][0])[1]));
    for (int i = 0; i < 2; i++)
        assert_close(qkv_value_f64(t, d[0][0])[2 * i], qkv_value_f64(t, d[1][0])[i], 1e-12);
    for (int o = 1; o < 3; o++)
        for (int i = 0; i < 4; i++)
            assert_close(qkv_value_f64(t, d[0][o])[i], qkv_value_f64(t, d[1][o])[i], 1e-12);
    qkv_tape_free(t);
}

/* ---- Ragged batches ---- */

enum { ITEMS = 3, LONGEST = 4 };

static const int64_t starts_q[] = {0, 3, 3, 5}, starts_k[] = {0, 2, 3, 7}, offsets[] = {1, 0, 2};

/* q [5, 2, 2], k and v [7, 1, 2], bias [5, 4], or [1, 4] for all. */
typedef struct ragged {
    qkv_attention a;
    bool one_bias;
    double x[4][20], dx[4][20];
    qkv_tape *tape;
} ragged;

static const int ragged_size[] = {20, 14, 14, 20};

static void ragged_leaves(ragged *r, qkv_var x[4])
{
    const qkv_shape shape[] = {qkv_shape3(5, 2, 2), qkv_shape3(7, 1, 2), qkv_shape3(7, 1, 2),
                               qkv_shape2(r->one_bias ? 1 : 5, LONGEST)};
    qkv_tape_reset(r->tape);
    for (int i = 0; i < 4; i++) x[i] = qkv_leaf_f64(r->tape, shape[i], r->x[i], r->dx[i]);
}

static qkv_var ragged_at_once(const ragged *r, const qkv_var x[4])
{
    return qkv_attend(r->tape, &r->a,
                      &(qkv_attend_vars){.q = x[0],
                                         .k = x[1],
                                         .v = x[2],
                                         .bias = x[3],
                                         .causal_offsets = offsets,
                                         .starts_q = starts_q,
                                         .starts_k = starts_k});
}

static qkv_var rows(qkv_tape *t, qkv_var x, const int64_t *starts, int item)
{
    x = qkv_slice(t, x, 0, (ptrdiff_t)starts[item], (ptrdiff_t)starts[item + 1], 1);
    const qkv_shape s = qkv_shape_of(t, x);
    x = qkv_transpose(t, x, (const int[]){1, 0, 2});
    return qkv_reshape(t, x, qkv_shape4(1, s.dim[1], s.dim[0], s.dim[2]));
}

static qkv_var ragged_by_slices(const ragged *r, const qkv_var x[4])
{
    qkv_tape *t = r->tape;
    qkv_var o[ITEMS];
    for (int b = 0; b < ITEMS; b++) {
        const ptrdiff_t n_k = (ptrdiff_t)(starts_k[b + 1] - starts_k[b]);
        qkv_var bias = x[3];
        if (!r->one_bias)
            bias = qkv_slice(t, bias, 0, (ptrdiff_t)starts_q[b], (ptrdiff_t)starts_q[b + 1], 1);
        const qkv_attend_vars in = {.q = rows(t, x[0], starts_q, b),
                                    .k = rows(t, x[1], starts_k, b),
                                    .v = rows(t, x[2], starts_k, b),
                                    .bias = qkv_slice(t, bias, 1, 0, n_k, 1),
                                    .causal_offsets = offsets + b};
        o[b] = qkv_transpose(t, qkv_attend(t, &r->a, &in), (const int[]){0, 2, 1, 3});
        o[b] = qkv_reshape(t, o[b], qkv_shape3((ptrdiff_t)(starts_q[b + 1] - starts_q[b]), 2, 2));
    }
    return qkv_concat(t, o, ITEMS, 0);
}

static ragged ragged_new(qkv_attention a)
{
    ragged r = {.a = a};
    r.a.batch = ITEMS;
    r.a.mask.causal = true;
    for (int i = 0; i < 4; i++) fill_normal(r.x[i], 20, (uint64_t)i + 1);
    assert_ok(qkv_tape_new(&r.tape, QKV_F64));
    return r;
}

/* Of all normalisers, the softmax of the slices being the fused one. */
static void a_ragged_batch_is_its_items(void **state)
{
    (void)state;
    static const qkv_attention all[] = {{.normalize = QKV_SOFTMAX, .softcap = 2},
                                        {.normalize = QKV_ENTMAX_15},
                                        {.normalize = QKV_TOP_K_UNIFORM, .top_k = 2},
                                        {.normalize = QKV_NONE_SIGMOID},
                                        {KERNEL(KERNEL_SUM, BIWEIGHT)}};
    for (size_t i = 0; i < 2 * sizeof all / sizeof *all; i++) {
        double d[2][4][20];
        ragged r = ragged_new(all[i / 2]);
        r.one_bias = i % 2;
        for (int slices = 0; slices < 2; slices++) {
            qkv_var x[4];
            memset(r.dx, 0, sizeof r.dx);
            ragged_leaves(&r, x);
            qkv_var o = slices ? ragged_by_slices(&r, x) : ragged_at_once(&r, x);
            qkv_var y = step(r.tape, weighted(r.tape, qkv_tanh(r.tape, o), 15.5), x, 4);
            if (qkv_backward(r.tape, y)) fail_msg("%zu: %s", i, qkv_tape_error(r.tape));
            memcpy(d[slices], r.dx, sizeof r.dx);
        }
        for (int o = 0; o < 4; o++)
            for (int k = 0; k < ragged_size[o]; k++)
                assert_close(d[0][o][k], d[1][o][k], 1e-12 * (1 + fabs(d[1][o][k])));
        assert_true(fabs(d[0][2][0]) > 1e-6);
        qkv_tape_free(r.tape);
    }
}

static qkv_var ragged_first(ragged *r)
{
    qkv_var x[4];
    ragged_leaves(r, x);
    qkv_var o = ragged_at_once(r, x);
    return step(r->tape, weighted(r->tape, qkv_tanh(r->tape, o), 15.5), x, 4);
}

static qkv_status ragged_first_at(void *ragged_, double *value)
{
    ragged *r = ragged_;
    *value = qkv_item(r->tape, ragged_first(r));
    return qkv_tape_status(r->tape);
}

/* Which, unlike slices, drops other pairs in each item. */
static void a_ragged_batch_has_dropout(void **state)
{
    (void)state;
    ragged r = ragged_new((qkv_attention){.dropout = 0.3, .dropout_seed = 3});
    assert_ok(qkv_backward(r.tape, ragged_first(&r)));
    static const char *const names[] = {"q", "k", "v", "bias"};
    qkv_check_input inputs[4];
    for (int i = 0; i < 4; i++)
        inputs[i] = (qkv_check_input){
            .name = names[i], .x = r.x[i], .gradient = r.dx[i], .n = (size_t)ragged_size[i]};
    qkv_check_report report;
    const qkv_check_options options = {.directions = 2};
    if (qkv_gradcheck(ragged_first_at, &r, inputs, 4, &options, &report))
        fail_msg("%s", report.message);
    qkv_tape_free(r.tape);
}

/* ---- What is hidden, and corners ---- */

/* The pairs of 3 queries and 4 keys that hide_by_bias hides. */
static bool is_hidden(int pair)
{
    return pair / 4 == 1 || pair % 4 == 2 || pair % 4 - pair / 4 >= 2;
}

/* Key 2 and, with the distances from 2 on, all that query 1 sees. */
static void hide_by_bias(trial *c)
{
    const float hidden = -INFINITY;
    c->x_f32[RELATIVE][6] = hidden;
    for (int i = 0; i < 12; i++)
        if ((i / 4 == 1 && i % 4 < 3) || i % 4 == 2) c->x_f32[BIAS][i] = hidden;
    for (int i = 0; i < 12; i++) c->p.in[BIAS][i] = (double)c->x_f32[BIAS][i];
    for (int i = 0; i < 7; i++) c->p.in[RELATIVE][i] = (double)c->x_f32[RELATIVE][i];
}

/* What a bias of -inf hides has no part in anything; a query that sees nothing gives 0, not NaN. */
static void what_is_hidden_has_no_gradient(void **state)
{
    (void)state;
    const qkv_attention a = {.batch = 1, .heads = 1, .n_q = 3, .n_k = 4, .d_k = 2, .d_v = 2};
    for (int with = 0; with < 4; with++) {
        const qkv_dtype dtype = with & 1 ? QKV_F32 : QKV_F64;
        trial c = trial_new(a, WITH_BIAS | WITH_RELATIVE, dtype, 3);
        hide_by_bias(&c);
        qkv_var all[OPERANDS], g[OPERANDS];
        int n;
        qkv_tape_debug(c.tape, true);
        qkv_var y = record(&c, all, &n, 2);
        assert_ok(with & 2 ? qkv_backward(c.tape, y) : qkv_grad(c.tape, y, all, n, g));
        double d[4][12]; /* by q, k, v, bias */
        for (int o = 0; o < 4; o++)
            for (int i = 0; i < qkv_shape_of(c.tape, all[o]).dim[2] * (o == 3 ? 4 : 2); i++)
                d[o][i] = with == 3   ? (double)c.dx_f32[o][i]
                          : with == 2 ? c.dx[o][i]
                          : with == 1 ? (double)qkv_value_f32(c.tape, g[o])[i]
                                      : qkv_value_f64(c.tape, g[o])[i];
        for (int x = 0; x < 2; x++) {
            assert_close(d[Q][2 + x], 0, 0);
            assert_close(d[K][4 + x], 0, 0);
            assert_close(d[V][4 + x], 0, 0);
            assert_true(fabs(d[Q][4 + x]) > 1e-6);
        }
        for (int x = 0; x < 12; x++)
            assert_true(is_hidden(x) ? d[BIAS][x] == 0 : fabs(d[BIAS][x]) > 1e-6);
        trial_free(&c);
    }
}

/* A row of zeros has no direction: with cosines its score is 0, and so are its derivatives. */
static void a_row_of_zeros_has_no_direction(void **state)
{
    (void)state;
    const kind cosine = {"cosine", {.score = QKV_SCORE_COSINE}, 0};
    trial c = trial_of(&cosine, QKV_F64);
    for (int x = 0; x < D_K; x++) c.p.in[Q][D_K + x] = c.p.in[K][x] = 0;
    qkv_var all[OPERANDS];
    int n;
    qkv_tape_debug(c.tape, true);
    assert_ok(qkv_backward(c.tape, record(&c, all, &n, 2)));
    for (int x = 0; x < D_K; x++) {
        assert_close(c.dx[Q][D_K + x], 0, 0);
        assert_close(c.dx[K][x], 0, 0);
        assert_true(fabs(c.dx[Q][x]) > 0);
    }
    trial_free(&c);
}

static void nothing_to_attend_to_has_derivatives_of_zero(void **state)
{
    (void)state;
    static const ptrdiff_t sizes[][4] = {{0, 2, 2, 2}, {2, 0, 2, 2}, {2, 2, 2, 0}};
    for (int i = 0; i < 3; i++) {
        const ptrdiff_t *s = sizes[i];
        const qkv_attention a = {.batch = 1,
                                 .heads = 1,
                                 .n_q = s[0],
                                 .n_k = s[1],
                                 .d_k = s[2],
                                 .d_v = s[3],
                                 .score = QKV_SCORE_GAUSSIAN};
        trial c = trial_new(a, 0, QKV_F64, 3);
        qkv_var all[OPERANDS];
        int n;
        qkv_var third = record(&c, all, &n, 3);
        assert_close(qkv_item(c.tape, third), 0, 0);
        assert_ok(qkv_tape_status(c.tape));
        assert_ok(qkv_backward(c.tape, record(&c, all, &n, 2)));
        trial_free(&c);
    }
}

/* ---- The tensor of third derivatives, fourth ones, and by hand ---- */

enum { N = 5, D = 4 };

static qkv_var leaf(qkv_tape *t, ptrdiff_t rows, const double *data)
{
    return qkv_leaf_f64(t, qkv_shape2(rows, D), data, NULL);
}

/* Of self-attention. */
static qkv_var loss_of(qkv_tape *t, qkv_var x)
{
    const qkv_attention a = {.mask.causal = true};
    return weighted(t, qkv_attend(t, &a, &(qkv_attend_vars){.q = x, .k = x, .v = x}), 3.5);
}

/* The derivative of y along directions, one after another. */
static qkv_var along(qkv_tape *t, qkv_var y, qkv_var x, const qkv_var *u, const int *which, int n)
{
    qkv_var g;
    for (int i = 0; i < n; i++) {
        if (qkv_grad(t, y, &x, 1, &g)) return (qkv_var){0};
        y = qkv_sum(t, qkv_mul(t, g, u[which[i]]), NULL, 0, false);
    }
    return y;
}

static void any_order_of_directions_is_the_same(void **state)
{
    (void)state;
    static const int orders[][4] = {{0, 1, 2, 3}, {1, 2, 0, 3}, {2, 0, 1, 3},
                                    {0, 2, 1, 3}, {3, 2, 1, 0}, {1, 3, 0, 2}};
    double x[N * D], u[4][N * D];
    qkv_var directions[4];
    qkv_tape *t;
    assert_ok(qkv_tape_new(&t, QKV_F64));
    fill_normal(x, N * D, 1);
    qkv_var v = leaf(t, N, x), y = loss_of(t, v);
    for (int i = 0; i < 4; i++) {
        fill_normal(u[i], N * D, 2 + (uint64_t)i);
        directions[i] = leaf(t, N, u[i]);
    }
    const double third = qkv_item(t, along(t, y, v, directions, orders[0], 3)),
                 fourth = qkv_item(t, along(t, y, v, directions, orders[0], 4));
    assert_true(fabs(third) > 0.01 && fabs(fourth) > 0.01);
    for (int i = 1; i < 6; i++) { /* the first four are of the first three directions */
        if (i < 4)
            assert_close(qkv_item(t, along(t, y, v, directions, orders[i], 3)), third,
                         1e-12 * fabs(third));
        assert_close(qkv_item(t, along(t, y, v, directions, orders[i], 4)), fourth,
                     1e-12 * fabs(fourth));
    }
    assert_ok(qkv_tape_status(t));
    qkv_tape_free(t);
}

/* softmax(q k' / 2 + bias + mask) v, head by head, with heads 0 and 1 on the first keys. */
static qkv_var by_hand(qkv_tape *t, const qkv_var x[4], qkv_var mask)
{
    qkv_var heads[4];
    for (int h = 0; h < 4; h++) {
        qkv_var q = qkv_slice(t, x[0], 1, h, h + 1, 1),
                k = qkv_slice(t, x[1], 1, h / 2, h / 2 + 1, 1),
                v = qkv_slice(t, x[2], 1, h / 2, h / 2 + 1, 1);
        qkv_var s = qkv_matmul(t, q, qkv_transpose(t, k, (const int[]){0, 1, 3, 2}));
        s = qkv_add(t, qkv_mul(t, s, qkv_constant(t, 0.5)), qkv_add(t, x[3], mask));
        heads[h] = qkv_matmul(t, qkv_softmax(t, s, -1), v);
    }
    return qkv_concat(t, heads, 4, 1);
}

/* Causal, with a shared bias and heads that share keys. */
static void by_hand_they_are_the_same(void **state)
{
    (void)state;
    enum { B = 2, Q_SIZE = B * 4 * N * D, K_SIZE = B * 2 * N * D };
    static double q[Q_SIZE], k[K_SIZE], v[K_SIZE], bias[N * N], mask[N * N];
    fill_normal(q, Q_SIZE, 1);
    fill_normal(k, K_SIZE, 2);
    fill_normal(v, K_SIZE, 3);
    fill_normal(bias, N * N, 4);
    for (int i = 0; i < N * N; i++) mask[i] = i % N > i / N ? (double)-INFINITY : 0;
    qkv_tape *t;
    assert_ok(qkv_tape_new(&t, QKV_F64));
    const qkv_shape keys = qkv_shape4(B, 2, N, D);
    const qkv_var x[] = {qkv_leaf_f64(t, qkv_shape4(B, 4, N, D), q, NULL),
                         qkv_leaf_f64(t, keys, k, NULL), qkv_leaf_f64(t, keys, v, NULL),
                         qkv_leaf_f64(t, qkv_shape2(N, N), bias, NULL)};
    const qkv_attention a = {.mask.causal = true};
    qkv_var y[] = {
        qkv_attend(t, &a, &(qkv_attend_vars){.q = x[0], .k = x[1], .v = x[2], .bias = x[3]}),
        by_hand(t, x, qkv_leaf_f64(t, qkv_shape2(N, N), mask, NULL))};
    qkv_var g[2][4];
    for (int i = 0; i < 2; i++) {
        y[i] = step(t, step(t, weighted(t, qkv_tanh(t, y[i]), 15.5), x, 4), x, 4);
        assert_ok(qkv_grad(t, y[i], x, 4, g[i]));
    }
    const int sizes[] = {Q_SIZE, K_SIZE, K_SIZE, N * N};
    for (int o = 0; o < 4; o++)
        for (int i = 0; i < sizes[o]; i++) {
            const double expected = qkv_value_f64(t, g[1][o])[i];
            assert_close(qkv_value_f64(t, g[0][o])[i], expected, 1e-11 * (1 + fabs(expected)));
        }
    qkv_tape_free(t);
}

/* d^2 f / d h^2 of one bandwidth of this shape. */
static double curvature_by_bandwidth(qkv_shape shape)
{
    double q[6], k[8], v[8];
    fill_normal(q, 6, 1);
    fill_normal(k, 8, 2);
    fill_normal(v, 8, 3);
    qkv_tape *t;
    assert_ok(qkv_tape_new(&t, QKV_F64));
    qkv_var h = qkv_leaf_f64(t, shape, (double[]){3}, NULL), g, gg;
    const qkv_attend_vars in = {.q = qkv_leaf_f64(t, qkv_shape2(3, 2), q, NULL),
                                .k = qkv_leaf_f64(t, qkv_shape2(4, 2), k, NULL),
                                .v = qkv_leaf_f64(t, qkv_shape2(4, 2), v, NULL),
                                .bandwidth = h};
    qkv_var o = qkv_attend(t, &(qkv_attention){KERNEL(KERNEL_SUM, BIWEIGHT)}, &in);
    assert_ok(qkv_grad(t, weighted(t, o, 15.5), &h, 1, &g));
    assert_ok(qkv_grad(t, qkv_sum(t, g, NULL, 0, false), &h, 1, &gg));
    double curvature = *qkv_value_f64(t, gg);
    qkv_tape_free(t);
    return curvature;
}

static void one_bandwidth_may_have_any_rank(void **state)
{
    (void)state;
    const double expected = curvature_by_bandwidth(qkv_scalar());
    assert_true(fabs(expected) > 1e-3);
    assert_close(curvature_by_bandwidth((qkv_shape){6, {1, 1, 1, 1, 1, 1}}), expected, 1e-14);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_are_the_differences_of_those_below),
        cmocka_unit_test(recorded_swept_and_in_float_they_are_the_same),
        cmocka_unit_test(composed_the_softmax_has_the_second_order_of_the_fused),
        cmocka_unit_test(kernels_at_their_centre_have_derivatives),
        cmocka_unit_test(an_empty_support_spoils_nothing_else),
        cmocka_unit_test(a_ragged_batch_is_its_items),
        cmocka_unit_test(a_ragged_batch_has_dropout),
        cmocka_unit_test(what_is_hidden_has_no_gradient),
        cmocka_unit_test(a_row_of_zeros_has_no_direction),
        cmocka_unit_test(nothing_to_attend_to_has_derivatives_of_zero),
        cmocka_unit_test(any_order_of_directions_is_the_same),
        cmocka_unit_test(by_hand_they_are_the_same),
        cmocka_unit_test(one_bandwidth_may_have_any_rank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
